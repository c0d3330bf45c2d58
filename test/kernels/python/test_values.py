"""The Python kernel in its template: values and state, and the life of a kernel, one fact a test."""

import os
import struct
import time
import unittest

import peer
from cases import KernelTest, OwnKernelTest, setUpModule, tearDownModule  # noqa: F401
from peer import Peer


class Values(KernelTest):
    def test_last_expression(self):
        self.assertEqual(self.value_of("x = 41\nx + 1"), "42")

    def test_no_value(self):
        for code in ("y = 1", "None", "1;", "for i in [1]: i", "", "   ", "# only this"):
            with self.subTest(code=code):
                self.assertEqual(self.run_ok(code).kinds, [])

    def test_state_stays(self):
        self.run_ok("state = [1]\ndef f(): return 'first'")
        self.run_ok("state.append(2)\ndef f(): return 'second'")
        self.assertEqual(self.value_of("state, f()"), "([1, 2], 'second')")

    def test_count_goes_up(self):
        first = self.run_ok("1").all("started")[0].execution_count
        second = self.run_ok("1").all("started")[0].execution_count
        self.assertEqual(second, first + 1)

    def test_underscore_and_out(self):
        run = self.run_ok("'kept'")
        self.assertEqual(self.value_of("_"), "'kept'")
        self.assertEqual(self.value_of(f"Out[{run.all('started')[0].execution_count}]"), "'kept'")

    def test_out_is_bounded(self):
        self.run_ok("class Big: alive = 0\nclass Big:\n alive = 0\n def __init__(self): Big.alive += 1\n def __del__(self): Big.alive -= 1")
        for _ in range(130):
            self.run_ok("Big()")
        self.assertLess(int(self.value_of("Big.alive")), 110)

    def test_indented_cell(self):
        self.assertEqual(self.value_of("    a = 1\n    a + 1"), "2")

    def test_unicode_source(self):
        self.assertEqual(self.value_of("größe = '🚀'\ngröße"), "'🚀'")

    def test_source_of_a_mebibyte(self):
        body = "# " + "x" * 97 + "\n"
        code = "big = 1\n" + body * ((1 << 20) // len(body) - 1) + "big + 1"
        self.assertEqual(self.value_of(code), "2")

    def test_await(self):
        self.assertEqual(self.value_of("import asyncio\nawait asyncio.sleep(0.001, 'slept')"), "'slept'")

    def test_magics(self):
        self.assertIn("per loop", self.run_ok("%timeit -n1 -r1 1+1").stdout)
        self.assertEqual(self.run_ok("%%capture c\nprint('x')").kinds, [])
        self.assertEqual(self.value_of("c.stdout"), "'x\\n'")

    def test_help_is_printed(self):
        run = self.run_ok("len?")
        self.assertEqual(run.kinds, ["stdout"])
        self.assertIn("Return the number of items", run.stdout)

    def test_pickle_of_a_class_of_the_cell(self):
        code = "import pickle, dataclasses\n@dataclasses.dataclass\nclass P:\n    x: int\npickle.loads(pickle.dumps(P(3)))"
        self.assertEqual(self.value_of(code), "P(x=3)")

    def test_source_of_a_function_of_the_cell(self):
        self.run_ok("def sourced():\n    return 5")
        self.assertEqual(self.value_of("import inspect\ninspect.getsource(sourced)"), repr("def sourced():\n    return 5\n"))

    def test_open_takes_any_descriptor(self):
        self.assertEqual(self.run_ok("with open(1, 'w', closefd=False) as f: print('direct', file=f)").stdout, "direct\n")


class Leaving(KernelTest):
    def test_sys_exit(self):
        self.run_ok("stays = 1")
        for code, expected in (("3", 3), ("", 0), ("None", 0), ("256", 0), ("-1", 255), ("True", 1)):
            with self.subTest(code=code):
                run = self.run_ok(f"import sys\nsys.exit({code})\nprint('not reached')")
                self.assertTrue(run.done.HasField("exit_code"))
                self.assertEqual(run.done.exit_code, expected)
                self.assertEqual(run.kinds, [])
        self.assertEqual(self.value_of("stays"), "1")

    def test_sys_exit_with_a_text(self):
        run = self.run_ok("sys.exit('goodbye')")
        self.assertEqual((run.done.exit_code, run.stderr), (1, "goodbye\n"))

    def test_exit_and_quit(self):
        for code, expected in (("exit()", 0), ("quit()", 0), ("exit", 0), ("exit(4)", 4), ("raise SystemExit(5)", 5)):
            with self.subTest(code=code):
                self.assertEqual(self.run_ok(code).done.exit_code, expected)

    def test_exit_in_an_async_cell(self):
        self.assertEqual(self.run_ok("import asyncio, sys\nawait asyncio.sleep(0)\nsys.exit(6)").done.exit_code, 6)

    def test_no_exit(self):
        self.assertFalse(self.run_ok("1").done.HasField("exit_code"))

    def test_script_that_exits(self):
        self.run_ok("open('/tmp/leave.py', 'w').write('import sys; sys.exit(7)');")
        self.assertEqual(self.run_ok("%run /tmp/leave.py").done.exit_code, 7)

    def test_input(self):
        for code in ("input()", "input('name? ')", "breakpoint()"):
            with self.subTest(code=code):
                run = self.run_bad(code, "StdinNotImplementedError")
                self.assertIn("input() is not available in a sandbox execution", run.error.value)


class Environment(KernelTest):
    VALUES = {"HOTCELL_A": "plain", "HOTCELL_B": "q'\"\n$HOME `x` \\ ü", "HOTCELL_C": ""}

    def test_set_for_one_execution(self):
        run = self.run_ok("import os, subprocess\n[os.environ.get('HOTCELL_' + n) for n in 'ABC']", environment=self.VALUES)
        self.assertEqual(run.result.text.replace("\n", ""), repr(list(self.VALUES.values())))
        self.assertEqual(self.value_of("[n for n in os.environ if n.startswith('HOTCELL_')]"), "[]")

    def test_seen_by_children(self):
        run = self.run_ok("!printf %s \"$HOTCELL_B\"", environment=self.VALUES)
        self.assertEqual(run.stdout, self.VALUES["HOTCELL_B"])

    def test_restored(self):
        self.run_ok("os.environ['HOTCELL_D'] = 'mine'")
        self.assertEqual(self.run_ok("os.environ['HOTCELL_D'] = 'changed'", environment={"HOTCELL_D": "theirs"}).kinds, [])
        self.assertEqual(self.value_of("os.environ.pop('HOTCELL_D')"), "'mine'")

    def test_restored_after_an_error(self):
        self.run_bad("1/0", "ZeroDivisionError", environment={"HOTCELL_E": "1"})
        self.assertEqual(self.value_of("'HOTCELL_E' in os.environ"), "False")

    def test_line_numbers_do_not_move(self):
        run = self.run_bad("1/0", "ZeroDivisionError", environment=self.VALUES)
        self.assertIn("line 1", run.error.traceback[1])

    def test_time_zone(self):
        run = self.run_ok("import time\ntime.tzname[0]", environment={"TZ": "XYZ5"})
        self.assertEqual(run.result.text, "'XYZ'")
        self.assertNotEqual(self.value_of("time.tzname[0]"), "'XYZ'")

    def test_invalid_name(self):
        self.run_bad("print('not run')", "ValueError", environment={"HOTCELL_OK": "1", "A=B": "x"})
        self.assertEqual(self.value_of("'HOTCELL_OK' in os.environ"), "False")


class Packages(OwnKernelTest):
    WHEEL = """import zipfile
with zipfile.ZipFile('/tmp/novel-1-py3-none-any.whl', 'w') as z:
    z.writestr('novel.py', 'value = 5')
    z.writestr('novel-1.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: novel\\nVersion: 1\\n')
    z.writestr('novel-1.dist-info/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    z.writestr('novel-1.dist-info/RECORD', '')
"""
    INSTALL = "pip install -q --user --no-index /tmp/novel-1-py3-none-any.whl"

    def test_installed_ones_can_be_imported_at_once(self):
        self.run_bad(self.WHEEL + "import novel", "ModuleNotFoundError")
        self.assertEqual(self.value_of(f"!{self.INSTALL}\nimport novel\nnovel.value"), "5")

    def test_installed_by_the_magic(self):
        self.run_bad(self.WHEEL + "import novel", "ModuleNotFoundError")
        self.run_ok("%" + self.INSTALL)
        self.assertEqual(self.value_of("import novel\nnovel.value"), "5")

    def test_files_of_the_program_do_not_replace_the_kernels(self):
        for name in ("bdb", "json", "report", "traceback", "fnmatch", "binascii"):
            self.run_ok(f"open('{name}.py', 'w').write('raise ImportError');")
        self.run_bad("1/0", "ZeroDivisionError")
        self.assertEqual(self.run_ok("from IPython.display import JSON\nJSON({})").result["application/json"], b"{}")


class Fresh(OwnKernelTest):
    def test_descriptors(self):
        fds = [int(fd) for fd in eval(self.value_of("import os\nos.listdir('/proc/self/fd')"))]
        # 3 is the listing's own.
        self.assertEqual(sorted(fds)[:4], [0, 1, 2, 3])
        self.assertEqual(len(fds), 6)
        self.assertTrue(all(fd >= 200 for fd in sorted(fds)[4:]))

    def test_no_descriptors_of_the_loop_in_a_plain_cell(self):
        self.run_ok("import asyncio\nawait asyncio.sleep(0.01)")
        self.peer.wait_in_call("poll")  # the loop's own wait, with its descriptors
        self.assertEqual(len(eval(self.value_of("import os\nos.listdir('/proc/self/fd')"))), 6)

    def test_names(self):
        self.assertEqual(self.value_of("import sys\n[n for n in ('frames', 'channel', 'streams', 'shell', 'kernel', 'loop') if n in sys.modules]"), "[]")
        self.assertEqual(self.value_of("sys.path[0], sys.argv, __name__"), "('', [''], '__main__')")
        self.run_ok("open('shell.py', 'w').write('mine = 1');")
        self.assertEqual(self.value_of("import shell\nshell.mine"), "1")

    def test_working_directory(self):
        self.assertEqual(self.value_of("import os\nos.getcwd()"), "'/home/user'")
        self.run_ok("os.chdir('/tmp')")
        self.assertEqual(self.value_of("os.getcwd()"), "'/tmp'")

    def test_one_thread_and_nothing_in_the_home(self):
        self.run_ok("import asyncio\nawait asyncio.sleep(0)\n!true")
        self.run_code("1/0")
        self.assertEqual(self.value_of("import os\nlen(os.listdir('/proc/self/task')), os.listdir(os.path.expanduser('~'))"), "(1, [])")

    def test_what_is_not_loaded(self):
        """What a first cell would pay for without using it."""
        code = "import sys\n[m for m in ('asyncio', 'numpy', 'matplotlib', 'jedi', 'prompt_toolkit', 'sqlite3', 'subprocess') if m in sys.modules]"
        self.assertEqual(self.value_of(code), "[]")

    def test_environment(self):
        code = "import os\n[n for n in os.environ if n.startswith('HOTCELL')], os.environ['MPLBACKEND'], os.environ['PLOTLY_RENDERER']"
        self.assertEqual(self.value_of(code).replace("\n", ""), "([], 'module://matplotlib_inline.backend_inline', 'plotly_mimetype')")

    def test_unread_frame_types_and_stray_acks(self):
        self.peer.send_raw(struct.pack("<IBBHI", 5, 99, 0, self.peer.serial, 0) + b"12345")
        self.peer.serial += 1
        self.peer.send("ACK", None, 0)
        self.assertEqual(self.value_of("1 + 1"), "2")

    def test_frames_that_come_in_pieces(self):
        data = self.peer.pb.Execute(code="'pieces'").SerializeToString()
        self.peer.execution += 1
        data = struct.pack("<IBBHI", len(data), 2, 0, self.peer.serial, self.peer.execution) + data
        for i in range(len(data)):
            self.peer.send_raw(data[i : i + 1])
            self.peer.wait_until(self.peer.has_read_commands, "the piece was read")
        self.assertEqual(self.peer.finish().result.text, "'pieces'")

    def test_warm_round_trip(self):
        times = []
        for _ in range(200):
            started = time.perf_counter()
            self.peer.run("1 + 1")
            times.append(time.perf_counter() - started)
        times.sort()
        # The aim is 1 ms on an idle machine; this one may be busy.
        self.assertLess(times[len(times) // 10], 0.005)


class Endings(OwnKernelTest):
    def test_closed_channel(self):
        os.close(self.peer._commands)
        self.peer._commands = os.open("/dev/null", os.O_WRONLY)
        self.assertEqual(self.peer.wait_for_end(), 0)

    def test_malformed_frame(self):
        self.peer.send_raw(struct.pack("<IBBHI", 1 << 31, 2, 0, 0, 1))
        self.assertNotEqual(self.peer.wait_for_end(), 0)

    def test_malformed_message(self):
        self.peer.send_raw(struct.pack("<IBBHI", 3, 2, 0, self.peer.serial, 1) + b"\x0a\x7f\x00")
        self.assertNotEqual(self.peer.wait_for_end(), 0)

    def test_output_before_a_crash_is_kept(self):
        for code in ("os._exit(5)", "os.kill(os.getpid(), 9)", "import ctypes\nctypes.string_at(0)"):
            with self.subTest(code=code):
                other = Peer()
                self.addCleanup(other.close)
                other.start(f"import os\nprint('last words')\n{code}")
                other.wait_for_end()
                self.assertIn("last words", peer.Run(other.events).stdout)

    def test_odd_streams(self):
        self.run_code("import sys\ndel sys.stdout, sys.stderr")
        self.run_bad("print('there')\n1/0", "ZeroDivisionError")
        self.run_ok("import subprocess\nsys.stdout = sys.stderr = None\nprint(1)\nsubprocess.run('true');")
        self.run_ok("sys.stdout = []")
        self.assertEqual(self.value_of("1 + 1"), "2")

    def test_closed_descriptors(self):
        self.run_ok("import os\nos.close(1)")
        self.assertEqual(self.value_of("1 + 1"), "2")
        self.run_ok("os.close(2)")
        self.assertEqual(self.value_of("2 + 2"), "4")
        self.run_ok("1", combine=True)

    def test_program_that_closes_the_channel(self):
        self.peer.start("import os\nos.closerange(3, 1000)\nprint('x')")
        self.assertNotEqual(self.peer.wait_for_end(), 0)


class Processes(OwnKernelTest):
    def test_fork_is_silent_on_the_channel(self):
        code = "import os, sys\nprint('buffered', end='')\npid = os.fork()\nif pid == 0:\n    print('child')\n    print('e', file=sys.stderr)\n    display(1)\n    sys.stdout.flush()\n    os._exit(0)\n"
        run = self.run_ok(code + "os.waitpid(pid, 0)\nprint('parent')")
        self.assertEqual(run.stdout, "bufferedchild\n1\nparent\n")
        self.assertEqual(run.stderr, "e\n")
        self.assertEqual(run.all("display"), [])

    def test_fork_that_returns_from_the_cell(self):
        """A child that runs into the end of the cell does not speak, and does not live on as a second kernel."""
        run = self.run_ok("import os, sys\npid = os.fork()\nif not pid: sys.exit(9)\nos.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])")
        self.assertEqual((run.result.text, run.kinds), ("9", ["result"]))
        run = self.run_ok("pid = os.fork()\nif not pid: 1/0\nos.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])")
        self.assertEqual((run.result.text, run.kinds), ("1", ["stderr", "result"]))
        self.assertIn("ZeroDivisionError", run.stderr)
        run = self.run_ok("pid = os.fork()\n'value'")
        self.assertEqual((run.result.text, run.kinds), ("'value'", ["result"]))
        self.assertEqual(self.value_of("1 + 1"), "2")

    def test_multiprocessing(self):
        code = "import multiprocessing as mp\ndef square(x): return x * x\nwith mp.get_context('fork').Pool(2) as pool: print(pool.map(square, range(4)))"
        run = self.run_ok(code)
        self.assertEqual((run.stdout, run.stderr), ("[0, 1, 4, 9]\n", ""))

    def test_spawn(self):
        code = "import multiprocessing as mp, math\nwith mp.get_context('spawn').Pool(1) as pool: print(pool.map(math.sqrt, [4]))"
        self.assertEqual(self.run_ok(code).stdout, "[2.0]\n")

    def test_process_pool(self):
        code = "import concurrent.futures as cf, math, multiprocessing as mp\nwith cf.ProcessPoolExecutor(1, mp_context=mp.get_context('fork')) as pool: print(list(pool.map(math.sqrt, [9])))"
        self.assertEqual(self.run_ok(code).stdout, "[3.0]\n")

    def test_children_do_not_see_the_channel(self):
        run = self.run_ok("import subprocess\nprint(subprocess.run('ls /proc/self/fd; env', shell=True, capture_output=True, text=True).stdout)")
        lines = run.stdout.split()
        self.assertEqual([line for line in lines if line.isdigit()], ["0", "1", "2", "3"])
        self.assertNotIn("HOTCELL_COMMANDS_FD", run.stdout)


if __name__ == "__main__":
    unittest.main()
