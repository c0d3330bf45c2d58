"""How roots get into the store, and what is kept there. No network."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import unittest
from unittest import mock

from template_case import Case, IS_ROOT, SCRIPT, SOURCE, copy_for_others
from hotcell_template import build, recipe, spec, tree
from hotcell_template.errors import Interrupted
from hotcell_template.progress import Progress
from hotcell_template.store import Store


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


if __name__ == "__main__":
    unittest.main()
