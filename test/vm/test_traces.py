"""After all other tests of the machine: nothing of them is left."""

import os
import pathlib
import unittest


class Traces(unittest.TestCase):
    def test_no_group_is_left(self):
        groups = [folder for folder, _, _ in os.walk("/sys/fs/cgroup")][1:]
        self.assertEqual(groups, [])

    def test_no_mount_is_left(self):
        points = [line.split()[4] for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()]
        self.assertEqual(sorted(points), sorted(["/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/run", "/run/job", "/run/disk",
                                                 "/run/scratch", "/sys/fs/cgroup", "/var/tmp"]))

    def test_no_process_is_left(self):
        """Process 1, the job's shell, and this test; and the kernel's own, which have no command line."""
        commands = {}
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            command = path.read_bytes().replace(b"\0", b" ").decode().strip()
            if command:
                commands[int(path.parent.name)] = command
        others = {pid: command for pid, command in commands.items() if pid not in (1, os.getpid(), os.getppid())}
        self.assertEqual(others, {})

    def test_no_namespace_is_left(self):
        for kind in ("mnt", "net", "user", "pid", "ipc", "uts", "cgroup"):
            kinds = {os.readlink(path) for path in pathlib.Path("/proc").glob(f"[0-9]*/ns/{kind}")}
            # devtmpfs's kernel thread has mounts of its own.
            self.assertLessEqual(len(kinds), 2 if kind == "mnt" else 1, kind)

    def test_no_folder_is_left(self):
        # In /tmp the host's files show, too: those of the machine are in the upper layer.
        folders = ("/run", "/run/scratch/upper/tmp", "/var/tmp")
        self.assertTrue(all(pathlib.Path(folder).is_dir() for folder in folders))
        found = [str(path) for folder in folders for path in pathlib.Path(folder).glob("hotcell-test*") if path.is_dir()]
        self.assertEqual(found, [])
