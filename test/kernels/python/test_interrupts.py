"""The Python kernel in its template: interrupts, and the event loop, one fact a test."""

import signal
import time
import unittest

from cases import KernelTest, setUpModule, tearDownModule  # noqa: F401


class Interrupts(KernelTest):
    def interrupt_when(self, code, name="KeyboardInterrupt", when=None):
        self.peer.start(code)
        self.peer.wait_for("stdout", b"go")
        if when:
            self.peer.wait_in_call(when)
        self.peer.interrupt()
        run = self.peer.finish()
        self.assertEqual(run.error.name, name)
        self.assertFalse(run.done.ok)
        self.assertEqual(self.value_of("1 + 1"), "2")
        return run

    def test_sleep(self):
        run = self.interrupt_when("import time\nkept = 5\nprint('go')\ntime.sleep(60)", when="clock_nanosleep")
        self.assertRegex("\n".join(run.error.traceback), r"Cell In\[\d+\], line 4")
        self.assertEqual(self.value_of("kept"), "5")

    def test_busy_loop(self):
        self.interrupt_when("print('go')\nwhile True: pass")

    def test_native_code(self):
        self.interrupt_when("import numpy as np\na = np.ones(1000)\nprint('go')\nwhile True: a.sum()")

    def test_child_process(self):
        self.interrupt_when("import subprocess\nprint('go')\nsubprocess.run(['sleep', '60'])")

    def test_shell_command(self):
        self.interrupt_when("!echo go; sleep 77; echo no | cat")
        # What was killed may still be on its way out; what was not would stay for a minute.
        self.run_ok("!while grep -q 'sleep.7[7]' /proc/[0-9]*/cmdline; do sleep 0.01; done")

    def test_bash_cell(self):
        self.interrupt_when("%%bash\necho go\nsleep 77 | cat")
        # What was killed may still be on its way out; what was not would stay for a minute.
        self.run_ok("!while grep -q 'sleep.7[7]' /proc/[0-9]*/cmdline; do sleep 0.01; done")

    def test_await(self):
        run = self.interrupt_when("import asyncio\nasyncio.get_running_loop().call_later(0.05, print, 'go')\nawait asyncio.sleep(60)")
        self.assertRegex("\n".join(run.error.traceback), r"Cell In\[\d+\], line 3")
        self.assertNotIn("Cancelled", "\n".join(run.error.traceback))

    def test_computing_coroutine(self):
        self.interrupt_when("import asyncio\nawait asyncio.sleep(0)\nprint('go')\nwhile True: pass")

    def test_an_interrupted_coroutine_says_nothing_later(self):
        self.interrupt_when("import asyncio\nawait asyncio.sleep(0)\nprint('go')\nwhile True: pass")
        self.assertEqual(self.run_ok("import gc\nn_collected = gc.collect()\nNone").kinds, [])

    def test_asyncio_run(self):
        self.interrupt_when("import asyncio\nasync def main():\n    print('go')\n    await asyncio.sleep(60)\nasyncio.run(main())")

    def test_background_task_survives_it(self):
        self.run_ok("import asyncio\nbeats = 0\nasync def beat():\n    global beats\n    while True:\n        await asyncio.sleep(0.005)\n        beats += 1\ntask = asyncio.create_task(beat())")
        self.interrupt_when("print('go')\nawait asyncio.sleep(60)")
        before = int(self.value_of("beats"))
        self.run_ok(f"while beats == {before}: await asyncio.sleep(0.005)")
        self.run_ok("task.cancel();")

    def test_computing_background_task(self):
        code = ("import asyncio\nme = asyncio.current_task()\nasync def hog():\n    print('go')\n    while not me.cancelling(): pass\n"
                "    print('heard')\n    while True: pass\nt = asyncio.create_task(hog())\nawait asyncio.sleep(60)")
        self.peer.start(code)
        self.peer.wait_for("stdout", b"go")
        # The first is meant for the cell's task, which cannot take it; the next one, a step of the ladder, hits.
        self.peer.interrupt()
        self.peer.wait_for("stdout", b"heard")
        self.peer.interrupt()
        self.assertEqual(self.peer.finish().error.name, "KeyboardInterrupt")

    def test_swallowed_then_again(self):
        self.peer.start("import time\ntry:\n    print('go')\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('swallowed')\ntime.sleep(60)")
        self.peer.wait_for("stdout", b"go")
        self.peer.interrupt()
        self.peer.wait_for("stdout", b"swallowed")
        self.peer.interrupt()
        self.assertEqual(self.peer.finish().error.name, "KeyboardInterrupt")

    def test_idle(self):
        self.run_ok("idle_state = 1")
        self.peer.interrupt()
        self.assertEqual(self.value_of("idle_state"), "1")

    def test_not_ignored_in_children(self):
        self.assertEqual(self.value_of("import subprocess, signal\nsubprocess.run(['sh', '-c', 'kill -INT $$; sleep 1']).returncode"), "-2")

    def test_handler_of_the_program_lasts_for_its_cell(self):
        self.run_ok("import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN);")
        self.interrupt_when("import time\nprint('go')\ntime.sleep(60)")

    def test_blocked_write(self):
        self.peer.start("import os, sys\nfor i in range(1000): sys.stdout.write('%5d' % i * 13107)")
        self.peer.wait_for("started")
        self.peer.stop_reading_outputs()
        self.peer.wait_until(self.peer.is_output_full, "the output is full")
        self.peer.interrupt()
        self.peer.wait_until(self.peer.has_taken_interrupt, "the interrupt was taken")
        self.peer.resume_reading_outputs()
        run = self.peer.finish()
        self.assertEqual(run.error.name, "KeyboardInterrupt")
        # What came is what was written, without a gap or a repetition, up to where it stopped.
        whole = "".join("%5d" % i * 13107 for i in range(30))
        self.assertTrue(whole.startswith(run.stdout[: len(whole)]))
        self.assertEqual(self.value_of("1"), "1")

    def test_during_barriers(self):
        """Wherever the signal strikes, the kernel and its peer agree on what was acknowledged."""
        code = "import sys\nprint('go')\nwhile True:\n    sys.stdout.write('o')\n    sys.stderr.write('e')\n    display(1)"
        for i in range(40):
            self.peer.start(code)
            self.peer.wait_for("stdout", b"go")
            time.sleep(0.0007 * i)
            self.peer.interrupt()
            self.assertEqual(self.peer.finish().error.name, "KeyboardInterrupt")
        run = self.run_ok("for i in range(50):\n    sys.stdout.write('o')\n    sys.stderr.write('e')")
        self.assertEqual(run.kinds, ["stdout", "stderr"] * 50)

    def test_unanswered_barrier(self):
        """The peer does not answer (its client does not read): the interrupt gets through nevertheless."""
        self.run_ok("import signal, sys, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]);")
        self.peer.start("print('go')\nsignal.sigwait([signal.SIGUSR1])\nprint('x', file=sys.stderr)\nprint('no')\ntime.sleep(60)")
        self.peer.wait_for("stdout", b"go")
        self.peer.wait_in_call("rt_sigtimedwait")
        self.peer.stop_reading_outputs()
        self.peer.signal(signal.SIGUSR1)
        self.peer.wait_until(self.peer.has_unread_frames, "the barrier was sent")
        self.peer.interrupt()
        self.peer.wait_until(self.peer.has_taken_interrupt, "the interrupt was taken")
        self.peer.resume_reading_outputs()
        run = self.peer.finish()
        self.assertEqual(run.error.name, "KeyboardInterrupt")
        self.assertNotIn("no", run.stdout)
        self.run_ok("signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1]);")
        run = self.run_ok("for i in range(20):\n    sys.stdout.write('o')\n    sys.stderr.write('e')")
        self.assertEqual(run.kinds, ["stdout", "stderr"] * 20)

    def test_alarm_of_the_program_during_barriers(self):
        # Python drops what is raised in a finaliser: then it is raised once more.
        code = """import signal, sys
class Late(BaseException): pass
n = ticks = 0
armed = False
def late(*a):
    global ticks
    ticks += 1
    if armed and ticks % 8 == 1:
        raise Late
signal.signal(signal.SIGALRM, late)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
while n < 300:
    try:
        armed = True
        while True:
            sys.stdout.write('o')
            sys.stderr.write('e')
            display({'text/plain': 'd'}, raw=True)
    except Late:
        armed = False
        n += 1
signal.setitimer(signal.ITIMER_REAL, 0)
print('caught', n)"""
        self.assertIn("caught 300", self.run_ok(code).stdout)
        run = self.run_ok("for i in range(50):\n    sys.stdout.write('o')\n    sys.stderr.write('e')")
        self.assertEqual(run.kinds, ["stdout", "stderr"] * 50)

    def test_alarm_after_the_cell(self):
        self.run_ok("import asyncio\nforever = asyncio.create_task(asyncio.sleep(3600))")
        self.run_ok("import signal\ndef late(*a): raise TimeoutError('from an alarm')\nsignal.signal(signal.SIGALRM, late)\nsignal.setitimer(signal.ITIMER_REAL, 0.05);")
        self.peer.wait_for("stderr", b"from an alarm")
        self.assertEqual(self.value_of("asyncio.get_event_loop() is forever.get_loop(), forever.done()"), "(True, False)")
        self.run_ok("forever.cancel();")


class Loop(KernelTest):
    def test_asyncio_run_in_a_cell(self):
        self.assertEqual(self.value_of("import asyncio\nasyncio.run(asyncio.sleep(0, 'ran'))"), "'ran'")

    def test_run_until_complete_in_a_cell(self):
        self.assertEqual(self.value_of("import asyncio\nasyncio.get_event_loop().run_until_complete(asyncio.sleep(0, 'ran'))"), "'ran'")

    def test_after_the_loop_was_closed(self):
        self.run_ok("import asyncio\nasyncio.get_event_loop().close()")
        self.assertEqual(self.value_of("await asyncio.sleep(0, 'new')"), "'new'")

    def test_task_of_a_plain_cell_goes_on_between_cells(self):
        self.run_ok("import asyncio\nasync def say():\n    await asyncio.sleep(0.05)\n    print('from the task')\nt = asyncio.create_task(say())")
        self.peer.wait_for("stdout", b"from the task")
        self.assertEqual(self.value_of("t.done()"), "True")

    def test_task_in_an_awaiting_cell_and_then_asyncio_run(self):
        self.run_ok("t = asyncio.create_task(asyncio.sleep(0.05, 'task'))\nawait asyncio.sleep(0)")
        self.run_ok("asyncio.run(asyncio.sleep(0))")
        self.assertEqual(self.value_of("await t"), "'task'")

    def test_threads_wake_the_loop(self):
        code = "import asyncio, time\nawait asyncio.get_running_loop().run_in_executor(None, lambda: (time.sleep(0.05), 'thread')[1])"
        self.assertEqual(self.value_of(code), "'thread'")
        self.run_ok("async def later():\n    print(await asyncio.to_thread(lambda: (time.sleep(0.05), 'idle thread')[1]))\nt = asyncio.create_task(later())")
        self.peer.wait_for("stdout", b"idle thread")

    def test_subprocess(self):
        code = "import asyncio\np = await asyncio.create_subprocess_exec('echo', 'async', stdout=-1)\n(await p.communicate())[0]"
        self.assertEqual(self.value_of(code), "b'async\\n'")

    def test_async_for_and_with(self):
        self.assertEqual(self.value_of("async def g():\n    yield 1\n[x async for x in g()]"), "[1]")

    def test_exception_in_an_awaiting_cell(self):
        run = self.run_bad("await asyncio.sleep(0)\n1/0", "ZeroDivisionError")
        self.assertIn("line 2", run.error.traceback[1])

    def test_cancelled_by_the_program(self):
        self.run_bad("t = asyncio.ensure_future(asyncio.sleep(9))\nt.cancel()\nawait t", "CancelledError")

    def test_background_task_that_exits(self):
        self.run_ok("async def leave():\n    raise SystemExit(2)\nt = asyncio.create_task(leave())")
        self.assertEqual(self.value_of("1 + 1"), "2")

    def test_background_task_that_hogs(self):
        """It keeps the kernel from its commands; the interrupt of the execution that waits reaches it."""
        self.run_ok("async def hog():\n    print('hogging')\n    while True: pass\nt = asyncio.create_task(hog())")
        self.peer.wait_for("stdout", b"hogging")
        self.peer.start("'free again'")
        self.peer.interrupt()
        self.assertEqual(self.peer.finish().result.text, "'free again'")


if __name__ == "__main__":
    unittest.main()
