"""What hotcelld, which hears strangers, could do to its host if it were taken over: as little as its user."""

import os
import pathlib
import pwd
import subprocess
import unittest

import daemons
import scenario
import stubs


def setUpModule():
    global running, client
    running = unittest.enterModuleContext(daemons.Daemons(["--tcp", "127.0.0.1:0"]))
    client = unittest.enterModuleContext(stubs.Client(running.target))
    # All threads are there once it has served: the database's, gRPC's own.
    made = scenario.create(client).sandbox_id
    scenario.execute(client, made, "1+1")
    scenario.delete(client, made)


def fields(path):
    return dict(line.split(":\t", 1) for line in path.read_text().splitlines() if ":\t" in line)


class Daemon(unittest.TestCase):
    def setUp(self):
        self.pid = running.server_pid()
        self.proc = pathlib.Path(f"/proc/{self.pid}")
        self.user = pwd.getpwnam(daemons.SERVER_USER)

    def threads(self):
        """The status of each: the kernel keeps identity, capabilities and filters of every thread by itself."""
        found = [fields(task / "status") for task in (self.proc / "task").iterdir()]
        self.assertGreaterEqual(len(found), 3, "the loop, the pump, the database")
        return found

    def test_all_threads_are_its_users(self):
        for status in self.threads():
            self.assertEqual(status["Uid"].split(), [str(self.user.pw_uid)] * 4, status["Name"])
            self.assertEqual(status["Gid"].split(), [str(self.user.pw_gid)] * 4, status["Name"])
            self.assertEqual(status["Groups"].split(), [str(self.user.pw_gid)], status["Name"])
        self.assertNotEqual(self.user.pw_uid, 0)

    def test_no_thread_has_or_can_gain_a_capability(self):
        for status in self.threads():
            sets = {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
            self.assertEqual(set(sets.values()), {0}, (status["Name"], sets))
            self.assertEqual(status["NoNewPrivs"], "1", status["Name"])

    def test_every_thread_is_filtered(self):
        for status in self.threads():
            self.assertEqual((status["Seccomp"], status["Seccomp_filters"]), ("2", "1"), status["Name"])

    def test_no_memory_is_both_written_and_executed(self):
        flags = {line.split()[1] for line in (self.proc / "maps").read_text().splitlines()}
        self.assertIn("r-xp", flags)
        self.assertEqual([f for f in flags if "w" in f and "x" in f], [])

    def test_it_leaves_no_core(self):
        core = next(line for line in (self.proc / "limits").read_text().splitlines() if line.startswith("Max core"))
        self.assertEqual(core.split()[4:6], ["0", "0"])

    def test_others_of_its_user_read_nothing_of_it(self):
        for name in ("environ", "maps", "mem", "fd"):
            self.assertEqual(os.stat(self.proc / name).st_uid, 0, name)
        read = subprocess.run(["setpriv", f"--reuid={self.user.pw_uid}", f"--regid={self.user.pw_gid}", "--clear-groups",
                               "cat", self.proc / "maps"], capture_output=True, text=True, check=False)
        self.assertEqual((read.returncode, read.stdout), (1, ""))
        self.assertIn("Permission denied", read.stderr)

    def test_nothing_of_the_runtimes_environment_reaches_it(self):
        names = {entry.split(b"=")[0].decode() for entry in (self.proc / "environ").read_bytes().split(b"\0") if entry}
        self.assertLessEqual(names, {"PATH", "USER", "HOME", "TZ"})

    def test_it_has_no_children(self):
        tasks = (self.proc / "task").iterdir()
        self.assertEqual("".join((task / "children").read_text() for task in tasks), "")


if __name__ == "__main__":
    unittest.main()
