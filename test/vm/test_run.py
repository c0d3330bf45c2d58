"""What run.py makes of a machine that does other than it should: a failure, never silence."""

import contextlib
import io
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

import machine
import run

GOOD = ["MACHINE 6.1", "BEGIN a", "1..2", "ok 1 - x.c:a:first: Passed", "ok 2 - x.c:a:second: Passed", "END 0 7"]
END = ["EXITCODE 0"]


def report(lines, sections=("a",), problem=None):
    """The exit code, and the lines without comments."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        made = run.Report(sections)
        for line in lines:
            made.line(line)
        code = made.finish(problem, ["the kernel's last words"])
    return code, [line for line in out.getvalue().splitlines() if not line.startswith("#")], out.getvalue()


class Reports(unittest.TestCase):
    def failing(self, lines, name, comment, **options):
        code, tap, out = report(lines, **options)
        self.assertEqual(code, 1)
        self.assertTrue(any(line.startswith("not ok") and line.endswith(name) for line in tap), out)
        self.assertIn(comment, out)
        self.assertIn("# the kernel's last words", out)

    def test_each_case_is_a_line(self):
        self.assertEqual(report(GOOD + END)[:2], (0, ["TAP version 13", "ok 1 a: first", "ok 2 a: second", "ok 3 the machine runs to its end", "1..3"]))

    def test_a_case_that_fails_does_so_with_its_message(self):
        self.failing(["BEGIN a", "not ok 1 - x.c:a:first: 1 == 2", "1..1", "END 1 0", *END], "a: first", "# 1 == 2")

    def test_a_section_that_ends_early_fails(self):
        self.failing(["BEGIN a", "1..2", "ok 1 first", "END 0 0", *END], "a: runs to its end", "after 1 tests of 2")

    def test_a_section_that_crashes_after_its_tests_fails(self):
        self.failing(["BEGIN a", "1..1", "ok 1 first", "END 139 0", *END], "a: runs to its end", "exit code 139")

    def test_a_section_without_tests_fails(self):
        self.failing(["BEGIN a", "END 0 0", *END], "a: runs to its end", "after 0 tests")

    def test_a_skip_fails(self):
        self.failing(["BEGIN a", "1..1", "ok 1 first # SKIP no root", "END 0 0", *END], "a: first", "not allowed")
        self.failing(["BEGIN a", "1..0 # SKIP no root", "END 0 0", *END], "a: runs to its end", "no root")

    def test_a_section_that_never_came_fails(self):
        self.failing(GOOD + END, "the machine runs to its end", "not run: b", sections=("a", "b"))

    def test_a_machine_that_ends_in_the_middle_fails(self):
        self.failing(GOOD[:3], "the machine runs to its end", "it ended in a, after 0 tests")
        self.failing([], "the machine runs to its end", "its script ended with None")
        self.failing(GOOD + ["EXITCODE 1"], "the machine runs to its end", "its script ended with 1")

    def test_a_machine_that_hangs_fails(self):
        self.failing(GOOD[:4], "the machine runs to its end", "it hangs in a, after 1 tests", problem="it hangs")


class Tables(unittest.TestCase):
    def test_the_table_of_the_machine_is_kept_beside_the_hosts(self):
        with tempfile.TemporaryDirectory() as name:
            job, logs = pathlib.Path(name) / "job", pathlib.Path(name) / "logs"
            for folder in (job, logs):
                folder.mkdir()
            run.keep_table(job, logs)
            self.assertEqual(list(logs.iterdir()), [])
            (job / run.TABLE).write_text("rows\n")
            run.keep_table(job, logs)
            self.assertEqual([(file.name, file.read_text()) for file in logs.iterdir()], [("egress-table-vm.txt", "rows\n")])


class Stub(machine.Machine):
    """Some program in QEMU's place."""

    def __init__(self, *command):  # pylint: disable=super-init-not-called
        self.stub = command

    def command(self):
        return self.stub


class Watchdogs(unittest.TestCase):
    def test_lines_arrive_whole_and_the_end_is_seen(self):
        with Stub("printf", r"one\r\ntw\303\244\nrest") as guest:
            self.assertEqual(list(guest.lines(60)), ["one", "twä"])

    def test_a_machine_that_says_nothing_is_ended(self):
        with mock.patch.object(machine, "BOOT_SECONDS", 0.2), Stub("sleep", "1000") as guest:
            with self.assertRaisesRegex(TimeoutError, "did not start"):
                list(guest.lines(60))
        self.assertEqual(guest.process.returncode, -9)

    def test_a_machine_that_does_not_end_is_ended(self):
        with Stub("sh", "-c", "echo begun; exec sleep 1000") as guest:
            lines = guest.lines(0.2)
            with self.assertRaisesRegex(TimeoutError, "did not end"):
                list(lines)
        self.assertEqual(guest.process.returncode, -9)

    def test_a_machine_ends_with_a_runner_that_is_killed(self):
        code = f"""
import sys; sys.path.insert(0, {str(pathlib.Path(machine.__file__).parent)!r})
import test_run
with test_run.Stub("sleep", "1000") as guest:
    print(guest.process.pid, flush=True)
    sys.stdin.read()"""
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as runner:
            pid = int(runner.stdout.readline())
            self.assertTrue(pathlib.Path(f"/proc/{pid}").exists())
            runner.kill()
            runner.wait()
        end = time.monotonic() + 60
        while is_alive(pid) and time.monotonic() < end:
            time.sleep(0.01)
        self.assertFalse(is_alive(pid))


def is_alive(pid):
    """Who inherits it may leave it unreaped."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


if __name__ == "__main__":
    unittest.main()
