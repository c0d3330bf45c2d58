"""hotcell-template: its inputs, its digest, its store, and what an interrupted build leaves. No network."""

import base64
import fcntl
import hashlib
import importlib.machinery
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import zipfile
from unittest import mock

sys.dont_write_bytecode = True
SOURCE = os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "..", "runtime", "template")
SCRIPT = os.path.join(SOURCE, "hotcell-template")
sys.path.insert(0, SOURCE)

from hotcell_template import build, child, recipe, sources, spec, tree  # noqa: E402
from hotcell_template.errors import Interrupted, TemplateError  # noqa: E402
from hotcell_template.progress import Progress  # noqa: E402
from hotcell_template.store import Store  # noqa: E402

EPOCH = 1735689600
IS_ROOT = os.geteuid() == 0


def copy_for_others(source, target):
    """The source tree may be closed to other users, folders and files."""
    shutil.copytree(source, target)
    subprocess.run(["chmod", "-R", "a+rX", target], check=True)


class Case(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="hotcell-test-")
        self.addCleanup(shutil.rmtree, self.directory)

    def path(self, *names):
        return os.path.join(self.directory, *names)

    def write(self, path, content="", mode=0o644):
        full = self.path(path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as file:
            file.write(content)
        os.chmod(full, mode)
        return full

    def assert_fails(self, reason, function, *arguments):
        with self.assertRaises(TemplateError) as caught:
            function(*arguments)
        self.assertEqual(caught.exception.reason, reason)
        return str(caught.exception)


class Digest(Case):
    def make(self, name, order=("a", "b/c", "b/d")):
        for path in order:
            self.write(os.path.join(name, path), f"content of {path}")
        os.symlink("a", self.path(name, "link"))
        for parent, _, _ in os.walk(self.path(name)):
            os.chmod(parent, 0o755)
        return self.path(name)

    def digest(self, root):
        return tree.read(root).digest

    def test_is_the_documented_serialization(self):
        root = self.path("root")
        os.mkdir(root, 0o755)
        self.write("root/a", "hello")
        owner = b"%d\0%d\0" % (os.getuid(), os.getgid())
        content = b"5:" + hashlib.sha256(b"hello").hexdigest().encode()
        text = b"hotcell-tree-1\n.\0d\x000755\0" + owner + b"\x000\0a\0f\x000644\0" + owner + content + b"\x000\0"
        self.assertEqual(self.digest(root), "sha256-" + hashlib.sha256(text).hexdigest())

    def test_does_not_depend_on_the_order_of_creation(self):
        self.assertEqual(self.digest(self.make("one")), self.digest(self.make("two", ("b/d", "b/c", "a"))))

    def test_does_not_depend_on_times(self):
        root = self.make("one")
        before = self.digest(root)
        os.utime(self.path("one", "a"), (1, 1))
        self.assertEqual(self.digest(root), before)

    def test_does_not_depend_on_hard_links(self):
        one, two = self.make("one"), self.make("two")
        for root in (one, two):
            shutil.copyfile(os.path.join(root, "a"), os.path.join(root, "e"))
            os.chmod(os.path.join(root, "e"), 0o644)
        os.unlink(os.path.join(two, "e"))
        os.link(os.path.join(two, "a"), os.path.join(two, "e"))
        self.assertEqual(self.digest(one), self.digest(two))

    def assert_changes(self, change):
        root = self.make("root")
        before = self.digest(root)
        change(root)
        self.assertNotEqual(self.digest(root), before)

    def test_changes_with_content(self):
        self.assert_changes(lambda root: self.write("root/a", "other"))

    def test_changes_with_the_mode_of_a_file(self):
        self.assert_changes(lambda root: os.chmod(os.path.join(root, "a"), 0o755))

    def test_changes_with_the_mode_of_the_root(self):
        self.assert_changes(lambda root: os.chmod(root, 0o700))

    def test_changes_with_the_target_of_a_link(self):
        def change(root):
            os.unlink(os.path.join(root, "link"))
            os.symlink("b", os.path.join(root, "link"))

        self.assert_changes(change)

    def test_changes_with_a_name(self):
        self.assert_changes(lambda root: os.rename(os.path.join(root, "a"), os.path.join(root, "z")))

    def test_changes_when_a_link_becomes_a_file_of_that_content(self):
        def change(root):
            os.unlink(os.path.join(root, "link"))
            self.write("root/link", "a")

        self.assert_changes(change)

    def test_changes_with_an_empty_directory(self):
        self.assert_changes(lambda root: os.mkdir(os.path.join(root, "empty")))

    @unittest.skipUnless(IS_ROOT, "needs root: changes owners")
    def test_changes_with_the_owner(self):
        self.assert_changes(lambda root: os.chown(os.path.join(root, "a"), 1000, 0))

    @unittest.skipUnless(IS_ROOT, "needs root: sets trusted attributes")
    def test_changes_with_an_extended_attribute(self):
        try:
            self.assert_changes(lambda root: os.setxattr(os.path.join(root, "a"), "trusted.hotcell", b"1"))
        except OSError as error:
            self.skipTest(f"no extended attributes here: {error.strerror}")

    def test_takes_names_with_newlines_and_bytes_that_are_no_text(self):
        root = self.make("root")
        self.write("root/new\nline")
        with open(os.path.join(os.fsencode(root), b"\xff\xfe"), "w", encoding="utf-8"):
            pass
        found = tree.records(tree.read(root).serialization)
        self.assertIn(b"new\nline", found)
        self.assertIn(b"\xff\xfe", found)

    def test_refuses_pipes_and_sockets(self):
        root = self.make("root")
        os.mkfifo(os.path.join(root, "pipe"))
        self.assert_fails("BAD_TREE", tree.read, root)

    def test_sets_times_of_files_directories_and_links(self):
        root = self.make("root")
        tree.read(root, EPOCH)
        for path in (".", "a", "b", "b/c", "link"):
            self.assertEqual(os.lstat(os.path.join(root, path)).st_mtime, EPOCH, path)

    def test_counts_files_and_bytes(self):
        found = tree.read(self.make("root"))
        self.assertEqual((found.n_files, found.size_bytes), (3, len("content of a" + 2 * "content of b/c")))

    def test_differences_name_the_paths(self):
        old = tree.read(self.make("one")).serialization
        root = self.make("two")
        self.write("two/a", "other")
        self.write("two/new")
        os.unlink(os.path.join(root, "link"))
        new = tree.read(root).serialization
        self.assertEqual(tree.differences(old, new), [("~", "a"), ("-", "link"), ("+", "new")])
        self.assertEqual(tree.differences(old, old), [])


class Sources(Case):
    def test_one_line_format(self):
        text = """
            # deb http://commented.example/debian bookworm main
            deb http://mirror.example/debian bookworm main contrib # the mirror
            deb-src http://mirror.example/debian bookworm main
            deb [arch=amd64 signed-by=/a/b.gpg] https://other.example/x bookworm-updates main
            deb http://incomplete.example
        """
        self.assertEqual(
            sources.parse_one_line(text),
            [
                sources.Source("http://mirror.example/debian", "bookworm", ("main", "contrib")),
                sources.Source("https://other.example/x", "bookworm-updates", ("main",)),
            ],
        )

    def test_deb822_format(self):
        text = (
            "# a comment\nTypes: deb deb-src\nURIs: http://a.example/debian\n  http://b.example/debian\n"
            "Suites: bookworm bookworm-updates\n# inside\nComponents: main\nSigned-By:\n -----BEGIN KEY-----\n .\n x\n\n"
            "Types: deb\nEnabled: no\nURIs: http://off.example\nSuites: bookworm\nComponents: main\n\n"
            "types: deb-src\nuris: http://src.example\nsuites: bookworm\ncomponents: main\n"
        )
        found = [(source.uri, source.suite) for source in sources.parse_deb822(text)]
        self.assertEqual(
            found,
            [
                ("http://a.example/debian", "bookworm"),
                ("http://a.example/debian", "bookworm-updates"),
                ("http://b.example/debian", "bookworm"),
                ("http://b.example/debian", "bookworm-updates"),
            ],
        )

    def test_reads_what_apt_would_read(self):
        line = "deb http://{}.example/debian bookworm main\n"
        self.write("apt/sources.list", line.format("first"))
        self.write("apt/sources.list.d/b.list", line.format("third"))
        self.write("apt/sources.list.d/a.sources", "Types: deb\nURIs: http://second.example\nSuites: x\nComponents: main\n")
        self.write("apt/sources.list.d/c.list.disabled", line.format("off"))
        self.write("apt/sources.list.d/bad name.list", line.format("off"))
        hosts = [source.uri.split("/")[2] for source in sources.read_host(self.directory)]
        self.assertEqual(hosts, ["first.example", "second.example", "third.example"])

    def test_no_sources_at_all(self):
        self.assertEqual(sources.read_host(self.directory), [])

    def test_the_suite_is_ours_and_the_address_the_hosts(self):
        found = sources.parse_one_line(
            "deb http://tools.example/apt cloud-bookworm main\n"
            "deb http://nonfree.example/debian bookworm non-free\n"
            "deb http://m.example/debian bookworm main\n"
            "deb http://second.example/debian bookworm main\n"
            "deb http://m.example/security bookworm-security main\n"
        )
        self.assertEqual(
            sources.for_suite("trixie", found, "bookworm"),
            ["deb http://m.example/debian trixie main", "deb http://m.example/security trixie-security main"],
        )

    def test_without_a_mirror_says_how_to_name_one(self):
        self.assert_fails("NO_MIRROR", sources.for_suite, "trixie", [], "bookworm")

    def test_a_mirror_must_be_a_url(self):
        self.assertEqual(sources.for_mirror("trixie", "file:/srv/debian"), ["deb file:/srv/debian trixie main"])
        for bad in ("debian", "http://a b", "--option", "http://a\ndeb http://b"):
            self.assert_fails("BAD_MIRROR", sources.for_mirror, "trixie", bad)

    def test_release_of_the_host(self):
        self.write("os-release", 'ID=debian\nVERSION_CODENAME="bookworm"\n')
        self.assertEqual(sources.host_release(self.directory), "bookworm")

    def test_passwords_are_hidden(self):
        self.assertEqual(sources.without_password("at http://me:secret@m.example/x"), "at http://***@m.example/x")


class Lock(Case):
    HASH = "a" * 64

    def test_pins_with_hashes(self):
        text = f"# made\nNumPy==2.5.1 \\\n    --hash=sha256:{self.HASH} \\\n    --hash=sha256:{'b' * 64}\n\nx_y==1  --hash=sha256:{self.HASH}\n"
        pins = spec.parse_lock(text)
        self.assertEqual(pins["numpy"], spec.Pin("numpy", "2.5.1", (self.HASH, "b" * 64)))
        self.assertEqual(pins["x-y"].version, "1")

    def test_is_what_was_written(self):
        pins = {"a": spec.Pin("a", "1", (self.HASH,)), "b": spec.Pin("b", "2.0+x", (self.HASH, "b" * 64))}
        self.assertEqual(spec.parse_lock(spec.format_lock(pins)), pins)

    def test_errors_name_the_line(self):
        good = f"a==1 --hash=sha256:{self.HASH}\n"
        for bad in (
            "numpy>=2\n",
            "numpy==2.*\n",
            "numpy==2\n",
            "numpy==2 --hash=md5:00\n",
            "numpy==2 --hash=sha256:short\n",
            f"numpy==2 --hash=sha256:{self.HASH} --global-option=x\n",
            "--index-url http://evil.example\n",
            "git+https://evil.example/x\n",
            f"a==1 --hash=sha256:{self.HASH}\n",
        ):
            self.assertIn("lock:2:", self.assert_fails("BAD_LOCK", spec.parse_lock, good + bad))

    def test_an_empty_or_missing_lock_is_an_error(self):
        self.assert_fails("BAD_LOCK", spec.parse_lock, "# nothing\n")
        self.assert_fails("BAD_LOCK", spec.read_lock, self.path("none"))

    def test_the_projects_own_lock_pins_every_requirement(self):
        template = spec.read_template(os.path.join(SOURCE, "python"))
        pins = spec.read_lock(os.path.join(SOURCE, "python", template.python["lock"]))
        for requirement in template.python["requirements"]:
            self.assertIn(spec.canonical_name(requirement), pins)


class TemplateFile(Case):
    def setUp(self):
        super().setUp()
        with open(os.path.join(SOURCE, "python", "template.toml"), encoding="utf-8") as file:
            self.text = file.read()

    def parse(self, old="", new=""):
        self.assertIn(old, self.text)
        return spec.Template("template.toml", self.text.replace(old, new, 1))

    def test_the_projects_own_is_valid(self):
        template = self.parse()
        self.assertEqual((template.name, template.user["uid"]), ("python", 1000))
        for package in ("git", "python3", "python3-pip", "bash", "grep", "coreutils"):
            self.assertIn(package, template.debian["packages"])

    def test_mistakes_are_named(self):
        for old, new, word in (
            ("format = 1", "format = 2", "format"),
            ("format = 1", "format = ", "line"),
            ('name = "python"', 'name = "../x"', "name"),
            ('suite = "trixie"', "", "debian.suite"),
            ('suite = "trixie"', 'suit = "trixie"', "debian.suit"),
            ("[limits]", "[limit]", "limit"),
            ("uid = 1000", "uid = 0", "user.uid"),
            ("uid = 1000", "uid = 65536", "user.uid"),
            ("uid = 1000", 'uid = "1000"', "user.uid"),
            ('home = "/home/user"', 'home = "/../etc"', "user.home"),
            ('LANG = "C.UTF-8"', "LANG = 1", "environment.LANG"),
            ("processes = 128", "processes = -1", "limits.processes"),
            ('"git",', "1,", "debian.packages"),
        ):
            with self.subTest(new=new):
                self.assertIn(word, self.assert_fails("BAD_TEMPLATE", self.parse, old, new))

    def test_an_unknown_template_is_an_error(self):
        self.assert_fails("UNKNOWN_TEMPLATE", spec.read_template, self.directory)


class Keys(Case):
    def setUp(self):
        super().setUp()
        self.template = spec.read_template(os.path.join(SOURCE, "python"))
        self.pins = {"a": spec.Pin("a", "1", ("0" * 64,))}
        self.write("kernel/main.py", "1")

    def keys(self):
        base = spec.base_key(self.template, self.pins, "x86_64")
        return base, spec.input_key(base, self.template, self.path("kernel"))

    def test_are_stable(self):
        self.assertEqual(self.keys(), self.keys())

    def test_the_kernels_files_change_only_the_input(self):
        before = self.keys()
        self.write("kernel/main.py", "2")
        after = self.keys()
        self.assertEqual(before[0], after[0])
        self.assertNotEqual(before[1], after[1])

    def test_what_is_not_installed_changes_nothing(self):
        before = self.keys()
        self.write("kernel/__pycache__/main.pyc")
        self.write("kernel/meson.build")
        self.assertEqual(self.keys(), before)

    def test_a_pin_changes_both(self):
        before = self.keys()
        self.pins["a"] = spec.Pin("a", "2", ("0" * 64,))
        self.assertTrue(set(before).isdisjoint(self.keys()))

    def test_a_limit_changes_both(self):
        before = self.keys()
        self.template.table["limits"]["processes"] += 1
        self.assertTrue(set(before).isdisjoint(self.keys()))


class Stores(Case):
    def setUp(self):
        super().setUp()
        self.store = Store(self.path("store"))
        self.store.create()

    def publish(self, letter):
        temporary = self.store.temporary()
        os.mkdir(os.path.join(temporary, "root"))
        digest = "sha256-" + letter * 64
        return digest, self.store.publish(temporary, {"digest": digest, "size_bytes": 1}, tree.HEADER), temporary

    def test_is_closed_to_others(self):
        self.assertEqual(os.stat(self.store.path).st_mode & 0o777, 0o700)

    def test_publishes_whole(self):
        digest, new, temporary = self.publish("a")
        self.assertTrue(new)
        self.assertFalse(os.path.exists(temporary))
        self.assertEqual(sorted(os.listdir(self.store.directory(digest))), ["manifest.json", "root", "tree"])
        self.assertEqual(self.store.manifest(digest)["digest"], digest)

    def test_the_same_digest_again_changes_nothing(self):
        digest, _, _ = self.publish("a")
        inode = os.stat(self.store.root(digest)).st_ino
        self.assertFalse(self.publish("a")[1])
        self.assertEqual(os.stat(self.store.root(digest)).st_ino, inode)

    def test_a_name_moves_without_a_gap(self):
        digests = [self.publish("a")[0], self.publish("b")[0]]
        self.store.point("by-name", "python", digests[0])
        stop, seen = threading.Event(), set()

        def look():
            while not stop.is_set():
                seen.add(self.store.lookup("by-name", "python"))

        reader = threading.Thread(target=look)
        reader.start()
        for i in range(200):
            self.store.point("by-name", "python", digests[i % 2])
        stop.set()
        reader.join()
        self.assertLessEqual(seen, set(digests))
        self.assertEqual(os.listdir(os.path.join(self.store.path, "by-name")), ["python"])

    def test_a_name_of_something_that_is_gone_means_nothing(self):
        self.store.point("by-name", "python", "sha256-" + "a" * 64)
        self.assertIsNone(self.store.lookup("by-name", "python"))
        self.assertEqual(self.store.names(), {})

    def test_a_name_that_leads_elsewhere_means_nothing(self):
        os.symlink("/etc", os.path.join(self.store.path, "by-name", "python"))
        self.assertIsNone(self.store.lookup("by-name", "python"))

    def test_resolves_names_digests_and_unique_beginnings(self):
        digest = self.publish("a")[0]
        self.store.point("by-name", "python", digest)
        for text in ("python", digest, digest[:15], "aaaaaa", "sha256:" + "a" * 64):
            self.assertEqual(self.store.resolve(text), digest)
        for text in ("node", "", "b" * 64, "../by-name/python"):
            self.assert_fails("UNKNOWN_TEMPLATE", self.store.resolve, text)

    def test_the_lock_removes_what_a_killed_build_left(self):
        os.makedirs(os.path.join(self.store.temporary(), "root/usr"))
        self.store.lock(lambda: None, lambda: None)
        self.store.unlock()
        self.assertEqual(sorted(os.listdir(self.store.path)), ["by-base", "by-input", "by-name"])

    def test_one_lock_at_a_time(self):
        self.store.lock(lambda: None, lambda: None)
        waited = []

        def give_up():
            raise Interrupted(signal.SIGINT)

        other = Store(self.store.path)
        self.assertRaises(Interrupted, other.lock, give_up, lambda: waited.append(1))
        self.assertEqual(waited, [1])

    def test_forgets_only_what_has_no_name(self):
        old, new = self.publish("a")[0], self.publish("b")[0]
        self.store.point("by-name", "python", new)
        self.store.point("by-input", "0" * 64, old)
        self.assert_fails("IN_USE", self.store.forget, new)
        self.store.forget(old)
        self.assertEqual(self.store.digests(), [new])
        self.assertEqual(os.listdir(os.path.join(self.store.path, "by-input")), [])

    @unittest.skipUnless(IS_ROOT, "only root can make a store of root")
    def test_without_root_nothing_is_removed_and_it_says_so(self):
        old = self.publish("a")[0]
        copy = self.path("copy")
        copy_for_others(SOURCE, copy)
        script = os.path.join(copy, os.path.basename(SCRIPT))
        for path in (self.directory, self.store.path):
            os.chmod(path, 0o755)
        done = subprocess.run([sys.executable, script, "rm", old, "--store", self.store.path], capture_output=True, text=True,
                              check=False, user=65534, group=65534, extra_groups=[])
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"^hotcell-template: NO_PERMISSION: .*\n  to do: run as root\n$")
        self.assertEqual(self.store.digests(), [old])

    def test_what_sandboxes_run_on_is_kept_until_they_have_ended(self):
        named, used, idle = (self.publish(letter)[0] for letter in "abc")
        self.store.point("by-name", "python", named)
        root = os.open(self.store.root(used), os.O_RDONLY)
        fcntl.flock(root, fcntl.LOCK_SH)
        self.assert_fails("IN_USE", self.store.forget, used)
        command = [SCRIPT, "gc", "--store", self.store.path]
        first = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        self.assertEqual([line.split("\t")[:2] for line in first], [["kept", used], ["removed", idle]])
        os.close(root)
        second = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        self.assertEqual([line.split("\t")[:2] for line in second], [["removed", used]])
        self.assertEqual(self.store.digests(), [named])


class FakeRecipe(recipe.Recipe):
    """Makes a small root without Debian; the class says where it is to be stopped."""

    n_made = 0
    stop_at = None

    def _reach(self, stage):
        if stage == FakeRecipe.stop_at:
            raise Interrupted(signal.SIGTERM)

    def download_wheels(self, machine, pip):
        FakeRecipe.n_made += 1
        self._reach("download")

    def bootstrap(self, source_lines, machine):
        os.makedirs(os.path.join(self.root, "var/lib/dpkg"))
        with open(os.path.join(self.root, "var/lib/dpkg/status"), "w", encoding="utf-8") as file:
            file.write("Package: b\nVersion: 2\nArchitecture: all\nDescription: x\n y: z\n\nPackage: a\nVersion: 1\nArchitecture: amd64\n")
        self._reach("bootstrap")

    def install_wheels(self):
        self._reach("wheels")

    def configure(self):
        pass

    def trim(self):
        pass

    def compile(self, *directories):
        self._reach("kernel" if directories else "compile")

    def warm(self):
        return "3.13.9"

    def install_kernel(self, source, files):
        self.template.kernel["argv"] = ["/usr/lib/hotcell/kernels/python/main.py"]
        super().install_kernel(source, files)


@mock.patch("hotcell_template.build.Recipe", FakeRecipe)
@mock.patch("os.geteuid", lambda: 0)
class Builds(Case):
    def setUp(self):
        super().setUp()
        FakeRecipe.n_made, FakeRecipe.stop_at = 0, None
        self.write("kernel/main.py", "print(1)\n")
        self.write("kernel/lib/frames.py", "")
        self.store = Store(self.path("store"))
        patch = mock.patch.object(build.Build, "_preflight", lambda self: None)
        patch.start()
        self.addCleanup(patch.stop)

    def build(self, refresh=False, store=None, check=lambda: None):
        template = spec.read_template(os.path.join(SOURCE, "python"))
        progress = Progress("none", "test")
        job = build.Build(template, self.path("kernel"), store or self.store, progress, check, "http://mirror.example/")
        return job.run(refresh)

    def leftovers(self):
        return sorted(set(os.listdir(self.store.path)) - {"by-base", "by-input", "by-name"})

    def test_publishes_a_root_with_its_manifest(self):
        digest, built = self.build()
        self.assertTrue(built)
        self.assertEqual(self.leftovers(), [digest])
        self.assertEqual(self.store.lookup("by-name", "python"), digest)
        manifest = self.store.manifest(digest)
        self.assertEqual(manifest["kernels"][0]["language_version"], "3.13.9")
        self.assertEqual([package["name"] for package in manifest["packages"]], ["a", "b"])
        self.assertEqual(tree.read(self.store.root(digest)).digest, digest)

    def test_the_manifest_is_in_the_root_so_the_digest_speaks_for_it(self):
        digest, _ = self.build()
        with open(os.path.join(self.store.root(digest), "usr/lib/hotcell/template.json"), encoding="utf-8") as file:
            inside = json.load(file)
        manifest = self.store.manifest(digest)
        self.assertEqual(inside, {key: manifest[key] for key in inside})

    def test_mount_points_are_bare(self):
        root = self.store.root(self.build()[0])
        for path, mode in (("proc", 0o555), ("sys", 0o555), ("dev", 0o755), ("run", 0o755), ("tmp", 0o1777)):
            self.assertEqual(os.listdir(os.path.join(root, path)), [])
            self.assertEqual(os.stat(os.path.join(root, path)).st_mode & 0o7777, mode)

    def test_nothing_changed_means_nothing_built(self):
        digest, _ = self.build()
        self.assertEqual(self.build(), (digest, False))
        self.assertEqual(FakeRecipe.n_made, 1)

    def test_a_refresh_gives_the_same_digest(self):
        digest, _ = self.build()
        self.assertEqual(self.build(refresh=True), (digest, True))
        self.assertEqual(FakeRecipe.n_made, 2)
        self.assertEqual(self.leftovers(), [digest])

    def test_a_new_kernel_takes_over_the_packages(self):
        old, _ = self.build()
        self.write("kernel/main.py", "print(2)\n")
        new, _ = self.build()
        self.assertEqual(FakeRecipe.n_made, 1)
        other = Store(self.path("other"))
        self.assertEqual(self.build(store=other)[0], new, "as if it had been built from nothing")
        self.assertEqual(tree.read(self.store.root(old)).digest, old, "the older root is untouched")

    def test_the_older_root_is_not_needed_to_take_over_its_packages(self):
        old, _ = self.build()
        self.write("kernel/main.py", "print(2)\n")
        self.build()
        self.store.forget(old)
        self.write("kernel/main.py", "print(3)\n")
        self.build()
        self.assertEqual(FakeRecipe.n_made, 1)

    def test_packages_are_not_taken_over_from_a_damaged_root(self):
        digest, _ = self.build()
        with open(os.path.join(self.store.root(digest), "var/lib/dpkg/status"), "a", encoding="utf-8") as file:
            file.write("x")
        self.write("kernel/main.py", "print(2)\n")
        self.assert_fails("DAMAGED", self.build)
        self.assertEqual(self.leftovers(), [digest])

    def test_a_kernel_file_that_is_gone_is_gone_from_the_root(self):
        self.build()
        os.unlink(self.path("kernel/lib/frames.py"))
        digest, _ = self.build()
        self.assertFalse(os.path.exists(os.path.join(self.store.root(digest), "usr/lib/hotcell/kernels/python/lib")))

    def test_a_kernel_without_its_program_is_an_error(self):
        os.unlink(self.path("kernel/main.py"))
        self.assert_fails("NO_KERNEL", self.build)
        self.assertEqual(self.leftovers(), [])

    def test_an_interrupted_build_leaves_nothing(self):
        for stage in ("download", "bootstrap", "wheels", "compile", "kernel"):
            with self.subTest(stage=stage):
                FakeRecipe.stop_at = stage
                self.assertRaises(Interrupted, self.build)
                self.assertEqual(self.leftovers(), [])
                self.assertEqual(self.store.names(), {})

    def test_two_at_once_build_one(self):
        results = []
        threads = [threading.Thread(target=lambda: results.append(self.build(store=Store(self.store.path)))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(FakeRecipe.n_made, 1)
        self.assertEqual(len({digest for digest, _ in results}), 1)
        self.assertEqual(sorted(built for _, built in results), [False, True])


class Links(Case):
    """A root's own links must never lead the builder to files of the host."""

    def setUp(self):
        super().setUp()
        os.makedirs(self.path("root/var"))
        self.victim = self.write("host/victim", "precious")
        template = spec.read_template(os.path.join(SOURCE, "python"))
        self.recipe = recipe.Recipe(template, self.path("root"), self.path("scratch"), lambda: None)

    def test_replacing_a_link_leaves_its_target(self):
        os.symlink(self.victim, self.path("root/resolv.conf"))
        self.recipe._replace("/resolv.conf", "new")
        with open(self.victim, encoding="utf-8") as file:
            self.assertEqual(file.read(), "precious")

    def test_a_parent_that_leads_out_is_refused(self):
        os.symlink(self.path("host"), self.path("root/etc"))
        self.assert_fails("BAD_TREE", self.recipe._replace, "/etc/victim", "new")

    def test_patterns_do_not_pass_links(self):
        os.symlink(self.path("host"), self.path("root/var/log"))
        self.recipe._remove("/var/*/victim")
        self.assertTrue(os.path.exists(self.victim))

    def test_removing_a_link_leaves_its_target(self):
        os.symlink(self.path("host"), self.path("root/var/log"))
        self.recipe._remove("/var/*")
        self.assertTrue(os.path.exists(self.victim))
        self.assertEqual(os.listdir(self.path("root/var")), [])


class Explanations(Case):
    def test_of_tools_that_failed(self):
        def failed(log):
            return child.Failed(["tool"], 1, log)

        for explain, log, reason in (
            (recipe.explain_mmdebstrap, "E: Could not connect to m.example:80, connection refused", "MIRROR_UNREACHABLE"),
            (recipe.explain_mmdebstrap, "Temporary failure resolving 'm.example'", "MIRROR_UNREACHABLE"),
            (recipe.explain_mmdebstrap, "GPG error: x: NO_PUBKEY 0123", "MIRROR_UNTRUSTED"),
            (recipe.explain_mmdebstrap, "E: Unable to locate package nosuch", "NO_PACKAGE"),
            (recipe.explain_mmdebstrap, "write failed: No space left on device", "NO_SPACE"),
            (recipe.explain_mmdebstrap, "anything else", "BUILD_FAILED"),
            (recipe.explain_pip, "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES", "HASH_MISMATCH"),
            (recipe.explain_pip, "NewConnectionError: refused", "INDEX_UNREACHABLE"),
            (recipe.explain_pip, "No matching distribution found for numpy", "NO_WHEEL"),
            (recipe.explain_pip, "No module named pip", "NO_TOOL"),
            (recipe.explain_pip, "[Errno 28] No space left on device", "NO_SPACE"),
        ):
            self.assertEqual(explain(failed(log)).reason, reason, log)

    def test_hide_passwords(self):
        error = recipe.explain_mmdebstrap(child.Failed(["x"], 1, "Failed to fetch http://u:secret@m.example/"))
        self.assertNotIn("secret", str(error))


class Lines(Case):
    class Terminal:
        def __init__(self, is_terminal):
            self.is_terminal = is_terminal
            self.text = ""

        def isatty(self):
            return self.is_terminal

        def write(self, text):
            self.text += text

        def flush(self):
            pass

    def run_stage(self, mode, is_terminal):
        stream = self.Terminal(is_terminal)
        times = iter((10.0, 10.05, 11.0, 12.5) if mode == "auto" and is_terminal else (10.0, 12.0))
        progress = Progress(mode, "template python", stream, lambda: next(times))
        progress.begin("working")
        progress.tick()
        progress.tick()
        progress.end()
        return stream.text

    def test_plain_lines_elsewhere(self):
        self.assertEqual(self.run_stage("auto", False), "template python: working ...\ntemplate python: working: 2.0 s\n")

    def test_one_redrawn_line_on_a_terminal(self):
        text = self.run_stage("auto", True)
        self.assertEqual(text.count("\n"), 1)
        self.assertEqual(text.count("\r"), 3, "a tick that comes too early draws nothing")
        self.assertTrue(text.endswith("\r\x1b[Ktemplate python: working: 2.5 s\n"))

    def test_nothing_when_asked(self):
        self.assertEqual(self.run_stage("none", True), "")


@unittest.skipUnless(IS_ROOT, "needs root: makes namespaces")
class Children(Case):
    def test_take_all_their_children_with_them(self):
        deadline = time.monotonic() + 60

        def tick():
            # All three are what they are to be; before, they are the shell's copies or `setsid`.
            if list(processes_with("98765").values()).count(["sleep", "98765"]) == 3:
                raise Interrupted(signal.SIGTERM)
            self.assertLess(time.monotonic(), deadline)

        script = "setsid sleep 98765 & setsid sleep 98765 & sleep 98765"
        with self.assertRaises(Interrupted):
            child.run(["/bin/sh", "-c", script], env={"PATH": os.environ["PATH"]}, log=self.path("log"), tick=tick)
        self.assertEqual(processes_with("98765"), {})

    def test_keep_their_temporary_files_where_the_build_removes_them(self):
        os.mkdir(self.path("scratch"))
        child.run(["mktemp", "-d"], env={"PATH": "/usr/bin", "TMPDIR": "/tmp"}, log=self.path("scratch", "log"), tick=lambda: None)
        self.assertEqual(len(os.listdir(self.path("scratch"))), 2)

    def test_failures_carry_what_was_said(self):
        with self.assertRaises(child.Failed) as caught:
            child.run(["/bin/sh", "-c", "echo why; exit 3"], env={"PATH": "/usr/bin"}, log=self.path("log"), tick=lambda: None)
        self.assertEqual(caught.exception.log, "why\n")


def processes_with(word):
    """The command lines of others by process id."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
                line = file.read()
        except OSError:
            continue
        if word in line and int(pid) != os.getpid():
            found[int(pid)] = line.split("\0")[:-1]
    return found


def make_wheel(directory):
    """A wheel that pip accepts, and its hash."""
    os.makedirs(directory)
    path = os.path.join(directory, "tiny-1.0-py3-none-any.whl")
    metadata = "tiny-1.0.dist-info/"
    files = {
        "tiny.py": "",
        metadata + "METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        metadata + "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(content)}\n"
        archive.writestr(metadata + "RECORD", record + metadata + "RECORD,,\n")
    return tree.hash_file(path)


@unittest.skipUnless(IS_ROOT, "needs root: builds")
@unittest.skipUnless(shutil.which("mmdebstrap"), "needs mmdebstrap")
class Commands(Case):
    """The real program with the real tools, and a mirror on the loopback that never answers or is not there."""

    def setUp(self):
        super().setUp()
        digest = make_wheel(self.path("wheels"))
        with open(os.path.join(SOURCE, "python", "template.toml"), encoding="utf-8") as file:
            self.write("template/template.toml", file.read())
        self.write("template/requirements.lock", f"tiny==1.0 --hash=sha256:{digest}\n")
        self.write("kernel/main.py", "")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listener.close)
        self.environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        self.environment.update(PIP_NO_INDEX="1", PIP_FIND_LINKS=self.path("wheels"), PIP_CONFIG_FILE="/dev/null")

    def start(self, mirror, *arguments):
        command = [SCRIPT, "build", "python", "--store", self.path("store"), "--template-dir", self.path("template")]
        command += ["--kernel-dir", self.path("kernel"), "--mirror", mirror, "--progress", "plain", *arguments]
        process = subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def mirror(self):
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}/debian"

    def assert_nothing_left(self):
        self.assertEqual(sorted(os.listdir(self.path("store"))), ["by-base", "by-input", "by-name"])
        for kind in ("by-base", "by-input", "by-name"):
            self.assertEqual(os.listdir(self.path("store", kind)), [])
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            self.assertNotIn(self.path("store"), file.read())
        self.assertEqual(processes_with(self.path("store")), {})

    def wait_for_mirror_use(self):
        self.listener.settimeout(60)
        connection, _ = self.listener.accept()
        self.addCleanup(connection.close)

    def test_a_signal_ends_the_build_and_leaves_nothing(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(signal=number):
                process = self.start(self.mirror())
                self.wait_for_mirror_use()
                started = time.monotonic()
                process.send_signal(number)
                _, errors = process.communicate(timeout=30)
                self.assertEqual(process.returncode, 128 + number, errors)
                self.assertLess(time.monotonic() - started, 5)
                self.assertIn("interrupted", errors)
                self.assert_nothing_left()

    def test_a_signal_at_any_moment_of_the_start_is_one_line(self):
        # To the whole group, as Ctrl-C does, from the first instruction on and while it imports.
        for n in range(30):
            process = self.start(self.mirror())
            time.sleep(n * 0.004)
            os.killpg(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=30)
            # Ended before it could be asked to wait with that, it has made nothing and says nothing.
            said = [line for line in errors.splitlines() if not line.startswith("template python: ")]
            wanted = [] if process.returncode == -signal.SIGINT else ["hotcell-template: interrupted, nothing is left behind"]
            self.assertEqual(said, wanted)
            self.assertIn(process.returncode, (-signal.SIGINT, 128 + signal.SIGINT))
            self.assertFalse(processes_with(self.path("store")))

    def test_a_tool_that_the_signal_ended_is_no_failure(self):
        def tick():
            raise Interrupted(signal.SIGINT)

        with self.assertRaises(Interrupted):
            child.run(["/bin/sh", "-c", "kill -INT $$"], env={"PATH": "/usr/bin"}, log=self.path("log"), tick=tick)

    def test_a_killed_builder_takes_its_tools_along_and_the_next_build_cleans_up(self):
        process = self.start(self.mirror())
        self.wait_for_mirror_use()
        process.kill()
        process.communicate(timeout=30)
        deadline = time.monotonic() + 10
        while processes_with(self.path("store")) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual(processes_with(self.path("store")), {})
        self.assertEqual(len(os.listdir(self.path("store"))), 4)
        # Any next build does; this one ends early.
        self.write("template/requirements.lock", f"tiny==1.0 --hash=sha256:{'0' * 64}\n")
        self.start(self.mirror()).communicate(timeout=60)
        self.assert_nothing_left()

    def mirror_that_is_gone(self):
        with socket.create_server(("127.0.0.1", 0)) as closed:
            return f"http://127.0.0.1:{closed.getsockname()[1]}/debian"

    def test_an_unreachable_mirror_is_said_to_be_so(self):
        process = self.start(self.mirror_that_is_gone())
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1)
        self.assertIn("MIRROR_UNREACHABLE", errors)
        self.assertIn("--mirror", errors)
        self.assert_nothing_left()

    def test_a_wheel_that_is_not_the_locked_one_is_refused(self):
        self.write("template/requirements.lock", f"tiny==1.0 --hash=sha256:{'0' * 64}\n")
        _, errors = self.start(self.mirror()).communicate(timeout=60)
        self.assertIn("HASH_MISMATCH", errors)
        self.assert_nothing_left()

    def test_root_without_the_right_to_make_namespaces_is_told_so(self):
        command = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", SCRIPT, "build", "python"]
        command += ["--store", self.path("store"), "--kernel-dir", self.path("kernel")]
        run = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 1)
        self.assertIn("NO_NAMESPACES", run.stderr)
        self.assert_nothing_left()

    def test_a_full_disk_is_said_before_anything_is_done(self):
        template = spec.read_template(os.path.join(SOURCE, "python"))
        store = Store(self.path("store"))
        job = build.Build(template, self.path("kernel"), store, Progress("none", ""), lambda: None)
        with mock.patch.object(store, "free_bytes", lambda: 1 << 30):
            self.assertIn("1024 MiB", self.assert_fails("NO_SPACE", job.run))
        self.assert_nothing_left()

    def test_other_users_are_told_to_become_root(self):
        os.chmod(self.directory, 0o755)
        copy = os.path.join(self.directory, "runtime", "template")
        copy_for_others(SOURCE, copy)
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                   os.path.join(copy, os.path.basename(SCRIPT)), "build", "python"]
        run = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 1)
        self.assertIn("NO_ROOT", run.stderr)


class CommandLine(Case):
    def setUp(self):
        super().setUp()
        loader = importlib.machinery.SourceFileLoader("hotcell_template_command", SCRIPT)
        self.command = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
        loader.exec_module(self.command)

    def test_finds_its_data_in_the_source_tree_and_installed(self):
        found = self.command.data_directory("kernels", "python")
        self.assertEqual(found, os.path.normpath(os.path.join(SOURCE, "..", "kernels", "python")))
        with mock.patch.object(self.command, "HERE", "/usr/libexec/hotcell"):
            self.assertEqual(self.command.data_directory("kernels", "python"), "/usr/share/hotcell/kernels/python")
            self.assertEqual(self.command.data_directory("templates", "python"), "/usr/share/hotcell/templates/python")

    def test_differences_of_packages_are_named(self):
        def manifest(**versions):
            return {"packages": [{"name": n, "version": v} for n, v in versions.items()], "wheels": []}

        self.assertEqual(
            self.command.manifest_differences(manifest(a="1", b="1"), manifest(b="2", c="1")),
            [("-", "package a 1"), ("~", "package b 1 -> 2"), ("+", "package c 1")],
        )


if __name__ == "__main__":
    unittest.main()
