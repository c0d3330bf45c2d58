#!/usr/bin/python3
"""hotcelld by itself, without a runtime: what it refuses, with which exit code, and how it stops."""

import os
import pathlib
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
import unittest

HOTCELLD = pathlib.Path(os.environ["HOTCELLD"]).resolve()
NOBODY = 65534


def capabilities(status):
    names = ("CapInh", "CapPrm", "CapEff", "CapAmb")
    return {name: int(status[name], 16) for name in names}


class Hotcelld(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="hotcelld-"))
        # Also where the build folder is only root's: the user that it runs as must reach it.
        self.program = self.folder / "hotcelld"
        shutil.copy(HOTCELLD, self.program)
        self.state = self.folder / "state"
        self.socket = self.folder / "sock"
        self.processes = []
        if os.geteuid() == 0:
            os.chown(self.folder, NOBODY, NOBODY)

    def tearDown(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        shutil.rmtree(self.folder)

    def start(self, *flags, as_root=False):
        user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        process = subprocess.Popen(
            [self.program, "--config", "/dev/null", "--unix", self.socket, "--state-dir", self.state,
             "--runtime-socket", self.folder / "no-runtime", *flags],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            **({} if as_root or os.geteuid() != 0 else user))
        self.processes.append(process)
        return process

    def refused(self, *flags, code, because, as_root=False):
        process = self.start(*flags, as_root=as_root)
        _, errors = process.communicate(timeout=30)
        self.assertEqual(process.returncode, code, errors)
        self.assertIn(because, errors)
        self.assertNotIn("assert", errors.lower())
        return errors

    def started(self, *flags):
        process = self.start(*flags)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with socket.socket(socket.AF_UNIX) as client:
                try:
                    client.connect(str(self.socket))
                    return process
                except (FileNotFoundError, ConnectionRefusedError):
                    if process.poll() is not None:
                        self.fail(process.stderr.read())
            time.sleep(0.02)
        self.fail("it does not listen")

    def stopped(self, process, by=signal.SIGTERM):
        process.send_signal(by)
        _, errors = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 0, errors)
        self.assertIn("stopped", errors)
        return errors

    def make_database(self):
        self.stopped(self.started())
        return self.state / "hotcell.db"

    def test_it_starts_without_a_runtime_and_stops_on_each_signal(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            self.stopped(self.started(), number)
            self.assertFalse(self.socket.exists())

    def test_a_hangup_makes_room_for_a_successor(self):
        process = self.started()
        process.send_signal(signal.SIGHUP)
        _, errors = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 75, errors)
        self.assertIn("left to the successor", errors)
        self.stopped(self.started())

    def test_it_gave_up_what_it_does_not_need(self):
        process = self.started()
        status = dict(line.split(":\t", 1) for line in
                      pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines() if ":\t" in line)
        self.assertEqual(set(capabilities(status).values()), {0})
        self.assertEqual(status["NoNewPrivs"].strip(), "1")
        if os.environ.get("HOTCELL_SANITIZED") != "1":
            self.assertEqual(status["Seccomp"].strip(), "2")
        self.assertEqual(self.socket.stat().st_mode & 0o777, 0o660)
        limits = pathlib.Path(f"/proc/{process.pid}/limits")
        if os.geteuid() == 0:
            core = next(line for line in limits.read_text().splitlines() if line.startswith("Max core"))
            self.assertEqual(core.split()[4:6], ["0", "0"])
            # Not dumpable: its files in /proc are root's, so no other program of its user reads them.
            self.assertEqual(os.stat(f"/proc/{process.pid}/mem").st_uid, 0)

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_it_does_not_run_as_root(self):
        self.refused(code=78, because="does not run as root", as_root=True)

    def test_only_loopback_is_served_in_plaintext(self):
        for address in ("0.0.0.0:7777", "[::]:7777", "192.0.2.7:7777", "example.org:7777"):
            self.refused("--tcp", address, code=78, because="not a loopback address")

    def test_bad_settings_are_refused(self):
        self.refused("--memory-max", "lots", code=78, because="give bytes such as")
        self.refused("--no-such-thing", code=78, because="there is no such flag")
        self.refused("--unix-group", "no-such-group-here", code=78, because="there is no such group")

    def test_a_second_one_is_refused(self):
        process = self.started()
        self.refused(code=1, because="Another process uses the database")
        self.refused("--state-dir", str(self.folder / "other"), code=1, because="another server listens there")
        # The first one has not noticed.
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.socket))
        self.stopped(process)

    def test_a_taken_port_is_refused(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            self.refused("--tcp", f"127.0.0.1:{taken.getsockname()[1]}", code=1, because="another server")

    def test_a_corrupt_database_is_kept_and_refused(self):
        database = self.make_database()
        damaged = bytearray(database.read_bytes())
        damaged[8192:12288] = b"\x5a" * 4096
        database.write_bytes(damaged)
        self.refused(code=1, because="is damaged; it was left as it is")
        self.assertEqual(database.read_bytes(), bytes(damaged))
        database.write_bytes(b"not a database")
        self.refused(code=1, because="is no database of hotcell")
        self.assertEqual(database.read_bytes(), b"not a database")

    def test_a_newer_schema_is_refused(self):
        database = self.make_database()
        with sqlite3.connect(database) as connection:
            connection.execute("PRAGMA user_version = 1000")
        connection.close()
        self.refused(code=1, because="has schema version 1000 and this program knows up to")

    def test_an_old_schema_is_migrated(self):
        self.state.mkdir()
        connection = sqlite3.connect(self.state / "hotcell.db")
        connection.executescript(pathlib.Path(os.environ["HOTCELL_TEST_DATA"], "schema_0001.sql").read_text())
        # An hotcelld that finds living sandboxes without a runtime would wait for it: end them.
        connection.execute("UPDATE sandboxes SET state = 4")
        connection.execute("UPDATE executions SET state = 3")
        connection.commit()
        connection.close()
        if os.geteuid() == 0:
            for path in (self.state, self.state / "hotcell.db"):
                os.chown(path, NOBODY, NOBODY)
        # Its rows are from long ago: they must not be pruned while they are counted.
        process = self.started("--retention", "0")
        self.assertIn("migration=0002_sandbox_events", self.stopped(process))
        with sqlite3.connect(self.state / "hotcell.db") as connection:
            self.assertEqual(connection.execute("SELECT count(*) FROM sandboxes").fetchone(), (2,))
        connection.close()

    def test_a_read_only_state_folder_is_refused(self):
        self.state.mkdir(0o500)
        if os.geteuid() == 0:
            os.chown(self.state, NOBODY, NOBODY)
        self.refused(code=1, because="Cannot write to")
        self.refused(code=1, because="name another folder with --state-dir")

    def test_it_may_open_as_many_files_as_it_may(self):
        process = self.started()
        limits = pathlib.Path(f"/proc/{process.pid}/limits").read_text(encoding="ascii")
        files = next(line for line in limits.splitlines() if line.startswith("Max open files"))
        self.assertEqual(files.split()[3], files.split()[4])

    def test_configuration_can_be_checked_and_printed(self):
        def run(*flags):
            return subprocess.run([self.program, "--config", "/dev/null", *flags], capture_output=True,
                                  text=True, check=False)
        self.assertEqual(run("--check-config").returncode, 0)
        self.assertEqual(run("--check-config", "--queue-max", "x").returncode, 78)
        self.assertIn("\nqueue_max = 7\n", run("--print-config", "--queue-max", "7").stdout)
        self.assertIn("--state-dir (/var/lib/hotcell/state)", run("--help").stdout)
        self.assertRegex(run("--version").stdout, r"^hotcelld \d+\.\d+\.\d+\n$")


if __name__ == "__main__":
    unittest.main(verbosity=1)
