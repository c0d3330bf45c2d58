"""What a root is made from, and by which digest and keys it is known. No network."""

import hashlib
import os
import shutil
import unittest

from template_case import Case, EPOCH, IS_ROOT, SOURCE
from hotcell_template import sources, spec, tree


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


if __name__ == "__main__":
    unittest.main()
