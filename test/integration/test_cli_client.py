"""The main job through `hotcell`, the gRPC client in C: state, order, time, limits, and what the command line adds."""

import json
import os
import pathlib
import pwd
import re
import signal
import subprocess
import tempfile
import time
import unittest

import daemons

MIB = 1 << 20


def setUpModule():
    global running
    running = unittest.enterModuleContext(daemons.Daemons())


def run(*arguments, **options):
    return daemons.hotcell(running, *arguments, **options)


class Case(unittest.TestCase):
    def sandbox(self, *arguments):
        made = run("sandbox", "create", "-q", "--memory", "512M", *arguments)
        self.assertEqual(made.returncode, 0, made.stderr)
        name = made.stdout.decode().strip()
        self.addCleanup(run, "sandbox", "rm", name)
        return name

    def events(self, *arguments, code):
        done = run(*arguments, "-o", "jsonl", "-c", code)
        return [json.loads(line) for line in done.stdout.splitlines()], done


class State(Case):
    def test_a_context_keeps_its_variables_and_another_sandbox_has_none(self):
        one = self.sandbox()
        run("exec", one, "-c", "x = 41")
        done = run("exec", one, "-c", "x + 1")
        self.assertEqual((done.returncode, done.stdout), (0, b"42\n"))
        done = run("exec", self.sandbox(), "-c", "\nx + 1")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"NameError: name 'x' is not defined", done.stderr)
        self.assertRegex(done.stderr, rb"line 2|----> 2")

    def test_usage_tells_the_execution_and_its_sandbox_with_the_start_of_the_interpreter(self):
        def cpu_seconds(done):
            return [float(seconds) for seconds in re.findall(rb"usage: \w+.*?: cpu ([0-9.]+) s", done.stderr)]

        execution, sandbox = cpu_seconds(run("run", "--usage", "-c", "1"))
        self.assertGreater(sandbox, execution + 0.02)
        box = self.sandbox()
        first, total = cpu_seconds(run("exec", box, "--usage", "-c", "1"))
        self.assertGreater(total, first + 0.02)
        self.assertGreaterEqual(cpu_seconds(run("exec", box, "--usage", "-c", "1"))[1], total)

    def test_a_run_takes_code_from_a_file_and_from_standard_input(self):
        self.assertEqual(run("run", "-", input=b"print('in')").stdout, b"in\n")
        with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
            file.write("print('file')\n7")
            file.flush()
            self.assertEqual(run("run", file.name).stdout, b"file\n7\n")

    def test_exit_codes_tell_how_it_ended(self):
        for code, wanted in (("import sys; sys.exit(3)", 3), ("1/0", 1), ("import os; os._exit(9)", 9),
                             ("import os; os.kill(os.getpid(), 11)", 139), ("bytearray(1 << 31)", 137)):
            self.assertEqual(run("run", "--memory", "256M", "--disk", "64M", "-c", code).returncode, wanted, code)
        self.assertEqual(run("run", "--timeout", "1s", "-c", "while True: pass").returncode, 124)
        self.assertEqual(run("exec", "sbx-none", "-c", "1").returncode, 125)


class Order(Case):
    def test_output_arrives_in_order_also_after_attaching_again(self):
        code = ("import os, subprocess, sys\nfor i in range(5):\n    print('out', i)\n    print('err', i, file=sys.stderr)\n"
                "from IPython.display import display, HTML\ndisplay(HTML('<b>one</b>'))\nos.write(1, b'raw\\n')\n"
                "subprocess.run(['echo', 'child'])\n'value'")
        one = self.sandbox()
        events, done = self.events("exec", one, code=code)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([e["sequence"] for e in events], list(range(1, len(events) + 1)))
        execution = next(e["queued"]["execution_id"] for e in events if "queued" in e)
        again = run("logs", "-o", "jsonl", execution)
        self.assertEqual([json.loads(line) for line in again.stdout.splitlines()], events)
        merged = subprocess.run([daemons.build_folder() / "cli/hotcell", "exec", one, "-c", code], check=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                env={**os.environ, "HOTCELL_TARGET": running.target})
        wanted = b"".join(b"out %d\nerr %d\n" % (i, i) for i in range(5))
        self.assertTrue(merged.stdout.startswith(wanted), merged.stdout)
        self.assertIn(b"raw\nchild\n", merged.stdout)

    def test_combined_output_keeps_200_alternating_raw_writes(self):
        done = run("run", "--combine-output", "-c", "import os\nfor i in range(200):\n    os.write(1 + i % 2, b'%d\\n' % i)")
        self.assertEqual(done.stdout, b"".join(b"%d\n" % i for i in range(200)))


class Time(Case):
    def test_a_timeout_keeps_the_variables(self):
        one = self.sandbox()
        run("exec", one, "-c", "kept = 7")
        start = time.monotonic()
        self.assertEqual(run("exec", one, "--timeout", "1s", "-c", "while True: pass").returncode, 124)
        self.assertLess(time.monotonic() - start, 3)
        self.assertEqual(run("exec", one, "-c", "kept").stdout, b"7\n")

    def test_a_cell_that_ignores_sigint_is_killed_with_a_new_generation(self):
        one = self.sandbox()
        events, done = self.events("exec", one, "--timeout", "1s",
                                   code="import signal\nsignal.signal(2, signal.SIG_IGN)\nwhile True: pass")
        self.assertEqual(done.returncode, 124)
        self.assertTrue(events[-1]["ended"]["state_lost"])
        first = next(e["started"]["context_generation"] for e in events if "started" in e)
        events, _ = self.events("exec", one, code="1")
        self.assertEqual(next(e["started"]["context_generation"] for e in events if "started" in e), first + 1)

    def test_ctrl_c_interrupts_the_code(self):
        one = self.sandbox()
        process = subprocess.Popen([daemons.build_folder() / "cli/hotcell", "exec", one, "-c",
                                    "print('runs', flush=True)\nwhile True: pass"], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, env={**os.environ, "HOTCELL_TARGET": running.target})
        self.assertEqual(process.stdout.readline(), b"runs\n")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)

    def test_a_run_that_is_killed_leaves_no_sandbox(self):
        process = subprocess.Popen([daemons.build_folder() / "cli/hotcell", "run", "-c",
                                    "print('runs', flush=True)\nwhile True: pass"], stdout=subprocess.PIPE,
                                   env={**os.environ, "HOTCELL_TARGET": running.target})
        self.assertEqual(process.stdout.readline(), b"runs\n")
        before = set(run("sandbox", "ls", "-q").stdout.split())
        process.kill()
        process.communicate()
        self.assertEqual(len(before), 1)
        daemons.wait_until(lambda: not set(run("sandbox", "ls", "-q").stdout.split()) & before, "gone", 60)


class Limits(Case):
    def test_memory_and_disk_end_as_they_should_and_the_sandbox_still_answers(self):
        one = self.sandbox("--memory", "256M", "--disk", "32M")
        self.assertEqual(run("exec", one, "-c", "bytearray(1 << 30)").returncode, 137)
        self.assertEqual(run("exec", one, "-c", "1+1").stdout, b"2\n")
        done = run("exec", one, "-c", "open('big', 'wb').write(bytes(64 << 20))")
        self.assertIn(b"No space left on device", done.stderr)
        self.assertEqual(run("exec", one, "-c", "1+1").stdout, b"2\n")

    def test_a_fork_bomb_stays_in_its_sandbox(self):
        bomb, neighbour = self.sandbox("--processes", "64"), self.sandbox()
        code = ("import os, time\ntry:\n    while True:\n        if os.fork() == 0:\n            time.sleep(60)\n"
                "            os._exit(0)\nexcept OSError as error:\n    print(error.errno)")
        self.assertEqual(run("exec", bomb, "-c", code).stdout, b"11\n")
        self.assertEqual(run("exec", neighbour, "-c", "1+1").stdout, b"2\n")

    def test_limits_that_do_not_go_together_are_refused_with_both_flags(self):
        done = run("sandbox", "create", "--memory", "256M", "--disk", "256M")
        self.assertEqual(done.returncode, 125)
        for word in (b"LIMITS_CONFLICT", b"hotcell: --disk must be at least 64 MiB below --memory, which is 256 MiB",
                     b"--memory (spec.limits.memory_bytes): must be at least 64 MiB above --disk"):
            self.assertIn(word, done.stderr)

    def test_limits_out_of_range_are_told_in_the_units_of_their_flags(self):
        for flag, value, said in (("--cpus", "0", "--cpus must be from 0.01 to "), ("--memory", "1", "--memory must be from 96 MiB to "),
                                  ("--disk", "1", "--disk must be from 1 MiB to 4 GiB (1048576 to 4294967296 bytes)"),
                                  ("--ttl", "99999d", "--ttl is above this server's maximum of 30 d"),
                                  ("--timeout", "100d", "--timeout is above this server's maximum of 1 d"),
                                  ("--timeout", "0", "--timeout zero means none, which this server does not allow"),
                                  ("--output-limit", "0", "--output-limit must be from 1 B to 1 GiB (1 to 1073741824 bytes)")):
            with self.subTest(flag=flag, value=value):
                done = run("sandbox", "create", flag, value)
                self.assertEqual(done.returncode, 125)
                lines = done.stderr.decode().splitlines()
                self.assertTrue(lines[0].startswith(f"hotcell: {said}"), lines)
                self.assertEqual(lines[1:], ["  reason: LIMIT_OUT_OF_RANGE",
                                             "  hint: `hotcell version` shows the highest limits and the defaults"])
        shown = run("version").stdout
        for line in (b"  --ttl: 1h unless set, at most 30d, 0 is refused\n", b"  --idle-timeout: none unless set, at most 30d, 0 for none\n",
                     b"  --timeout: 1m unless set, at most 1d, 0 is refused\n"):
            self.assertIn(line, shown)
        done = run("key", "create", "--scope", "foo", "bad-scope")
        self.assertIn(b"hotcell: --scope has an unknown scope; known are sandboxes:read", done.stderr)

    def test_a_reader_that_stops_blocks_the_program(self):
        process = subprocess.Popen([daemons.build_folder() / "cli/hotcell", "run", "--timeout", "3s", "--output-limit", "1G",
                                    "-c", "import os\nfor _ in range(16384):\n    os.write(1, b'x' * 65536)"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env={**os.environ, "HOTCELL_TARGET": running.target})
        def ended():
            rows = run("ps", "-a", "-o", "json").stdout
            return b"CLIENT_NOT_READING" in rows
        try:
            daemons.wait_until(ended, "the end", 60)
        finally:
            process.kill()
            process.communicate()


class Files(Case):
    def test_charts_are_saved_under_names_of_ours(self):
        with tempfile.TemporaryDirectory() as folder:
            done = run("run", "--save", folder, "-c", "import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()")
            self.assertEqual(done.returncode, 0, done.stderr)
            pictures = list(pathlib.Path(folder).glob("*.png"))
            self.assertEqual(len(pictures), 1)
            self.assertTrue(pictures[0].read_bytes().startswith(b"\x89PNG"))


class SmallDisk(daemons.Daemons):
    """Its state is on a disk of its own."""

    def start(self):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "none", self.state], check=True)
        user = pwd.getpwnam(daemons.SERVER_USER)
        os.chown(self.state, user.pw_uid, user.pw_gid)
        super().start()

    def __exit__(self, *exc):
        try:
            self.stop()
        finally:
            subprocess.run(["umount", self.state], check=False)
            super().__exit__(*exc)


class FullDisk(unittest.TestCase):
    def test_doctor_says_that_the_state_cannot_be_written_and_what_to_do(self):
        with SmallDisk() as small:
            done = daemons.hotcell(small, "doctor")
            self.assertEqual(done.returncode, 0, done.stdout)
            self.assertRegex(done.stdout, rb"(?m)^state +yes +the database can be written")
            filler = small.state / "filler"
            with self.assertRaises(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))

            def sees_it():
                # A small write may still find room: the state is what the last one met.
                daemons.hotcell(small, "sandbox", "create")
                done = daemons.hotcell(small, "doctor")
                return re.search(rb"(?m)^state +NO +(the disk is full|the database cannot be written)", done.stdout) and done
            done = daemons.wait_until(sees_it, "doctor sees it")
            self.assertNotEqual(done.returncode, 0)
            self.assertRegex(done.stdout, rb"(?m)^state +make room on the disk of the state directory")
            self.assertIn(b"All required walls hold: NO. The server serves: NO, it is not ready.", done.stdout)
            filler.unlink()
            daemons.wait_until(lambda: daemons.hotcell(small, "doctor").returncode == 0, "room again")


if __name__ == "__main__":
    unittest.main()
