"""The main job through Debian's grpcio: state, order, time, limits."""

import threading
import time
import unittest

import daemons
import stubs
from scenario import MIB, attach, create, delete, error_of, execute, fold, fold_until, get, request, spec
from stubs import execution_service


def setUpModule():
    global running, client
    running = unittest.enterModuleContext(daemons.Daemons())
    client = unittest.enterModuleContext(stubs.Client(running.target))


class Case(unittest.TestCase):
    def sandbox(self, **fields):
        made = create(client, **fields)
        self.addCleanup(delete, client, made.sandbox_id)
        return made.sandbox_id


class State(Case):
    def test_a_context_keeps_its_variables(self):
        sandbox = self.sandbox()
        self.assertEqual(execute(client, sandbox, "x = 41").outcome, "OK")
        run = execute(client, sandbox, "x + 1")
        self.assertEqual((run.outcome, run.text), ("OK", "42"))

    def test_another_sandbox_raises_a_name_error_with_the_cells_line(self):
        run = execute(client, self.sandbox(), "y = 1\n\nx + y")
        self.assertEqual((run.outcome, run.cause), ("RAISED", "PROGRAM"))
        self.assertEqual((run.error.name, run.error.value), ("NameError", "name 'x' is not defined"))
        traceback = "\n".join(run.error.traceback)
        self.assertRegex(traceback, r"line 3|----> 3")
        self.assertIn("x + y", traceback)
        self.assertNotIn("\x1b", traceback)

    def test_two_contexts_of_a_sandbox_do_not_share_variables(self):
        sandbox = self.sandbox()
        other = client.executions.CreateContext(
            execution_service.CreateContextRequest(sandbox_id=sandbox), timeout=60).context
        self.assertEqual(other.generation, 1)
        execute(client, sandbox, "x = 1", context_id=other.context_id)
        self.assertEqual(execute(client, sandbox, "x").outcome, "RAISED")
        self.assertEqual(execute(client, sandbox, "x", context_id=other.context_id).text, "1")

    def test_files_are_shared_by_the_contexts_of_a_sandbox(self):
        sandbox = self.sandbox()
        execute(client, sandbox, "open('note', 'w').write('kept')")
        self.assertEqual(execute(client, sandbox, "open('/home/user/note').read()").text, "'kept'")

    def test_environment_of_an_execution_ends_with_it(self):
        sandbox = self.sandbox(environment={"ALWAYS": "a'\"$\n"})
        code = "import os; os.environ.get('ALWAYS'), os.environ.get('ONCE')"
        self.assertEqual(execute(client, sandbox, code, environment={"ONCE": "o"}).text, repr(("a'\"$\n", "o")))
        self.assertEqual(execute(client, sandbox, code).text, repr(("a'\"$\n", None)))

    def test_a_one_shot_leaves_no_sandbox(self):
        message = request(None, "6 * 7")
        message.sandbox.limits.memory_bytes = 256 * MIB
        run = fold(client.executions.Execute(message, timeout=120))
        self.assertEqual((run.outcome, run.text), ("OK", "42"))
        daemons.wait_until(lambda: get(client, run.sandbox_id).state == stubs.sandbox.SANDBOX_STATE_ENDED, "ended")

    def test_sys_exit_gives_its_code_and_keeps_the_state(self):
        sandbox = self.sandbox()
        run = execute(client, sandbox, "kept = 1\nimport sys; sys.exit(3)")
        self.assertEqual((run.outcome, run.ended.exit_code, run.ended.state_lost), ("EXITED", 3, False))
        self.assertEqual(execute(client, sandbox, "kept").text, "1")

    def test_a_kernel_that_exits_is_told_apart_and_loses_its_state(self):
        sandbox = self.sandbox()
        run = execute(client, sandbox, "print('before', flush=True)\nimport os; os._exit(7)")
        self.assertEqual((run.outcome, run.ended.exit_code, run.ended.state_lost), ("EXITED", 7, True))
        self.assertEqual(run.stdout, b"before\n")
        run = execute(client, sandbox, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
        self.assertEqual((run.outcome, run.ended.signal, run.ended.state_lost), ("SIGNALLED", 11, True))
        self.assertEqual(run.started.context_generation, 2)


ORDERED = """
import os, subprocess, sys
from IPython.display import display, HTML
for i in range(5):
    print("out", i)
    print("err", i, file=sys.stderr)
display(HTML("<b>one</b>"))
os.write(1, b"raw\\n")
print("before child")
subprocess.run(["echo", "child"])
print("after child")
display(HTML("<b>two</b>"))
print("last", file=sys.stderr)
"value"
"""


class Gate:
    """Holds a cell of a sandbox at WAIT until it is opened, from another context."""

    WAIT = "__import__('subprocess').run(['sh', '-c', 'until [ -e opened ]; do sleep 0.01; done'])"

    def __init__(self, sandbox):
        self.sandbox = sandbox
        made = client.executions.CreateContext(execution_service.CreateContextRequest(sandbox_id=sandbox), timeout=60)
        self.context_id = made.context.context_id

    def open(self):
        run = execute(client, self.sandbox, "open('opened', 'w').close()", context_id=self.context_id)
        assert run.outcome == "OK", run


class Order(Case):
    def check_order(self, run):
        wanted = []
        for i in range(5):
            wanted += [("stdout", b"out %d\n" % i), ("stderr", b"err %d\n" % i)]
        wanted += [("display", b""), ("stdout", b"raw\nbefore child\nchild\nafter child\n"), ("display", b""),
                   ("stderr", b"last\n"), ("result", b"")]
        seen = []
        for kind, data in run.order:
            if kind in ("queued", "started", "ended"):
                continue
            if seen and seen[-1][0] == kind and kind in ("stdout", "stderr"):
                seen[-1] = (kind, seen[-1][1] + data)
            else:
                seen.append((kind, data))
        self.assertEqual(seen, wanted)
        self.assertEqual([kind for kind, _ in run.order][-1], "ended")

    def test_prints_displays_raw_writes_and_children_arrive_in_order(self):
        self.check_order(execute(client, self.sandbox(), ORDERED))

    def test_the_order_holds_for_a_client_that_leaves_and_attaches_again(self):
        sandbox = self.sandbox()
        gate = Gate(sandbox)
        halfway = ORDERED.replace('print("out", i)', f'print("out", i)\n    if i == 2:\n        {gate.WAIT}')
        stream = client.executions.Execute(request(sandbox, halfway), timeout=120)
        run = fold_until(stream, lambda r: b"out 2" in r.stdout)
        stream.cancel()
        gate.open()
        run = attach(client, run.execution_id, run.sequence, run)
        self.check_order(run)
        again = attach(client, run.execution_id)
        self.assertEqual(again.order, run.order)

    def test_combined_output_keeps_200_alternating_raw_writes(self):
        code = "import os\nfor i in range(200):\n    os.write(1 + i % 2, b'%d\\n' % i)"
        run = execute(client, self.sandbox(), code, combine_output=True)
        self.assertEqual(run.stdout, b"".join(b"%d\n" % i for i in range(200)))
        self.assertEqual(run.stderr, b"")

    def test_each_stream_is_byte_exact(self):
        code = "import os\nos.write(1, bytes(range(256)) * 100)\nos.write(2, b'\\xff\\x00' * 500)"
        run = execute(client, self.sandbox(), code)
        self.assertEqual((run.stdout, run.stderr), (bytes(range(256)) * 100, b"\xff\x00" * 500))


class Time(Case):
    def test_a_timeout_ends_a_busy_loop_and_keeps_the_variables(self):
        sandbox = self.sandbox()
        execute(client, sandbox, "kept = 7")
        start = time.monotonic()
        run = execute(client, sandbox, "while True: pass", timeout=1)
        self.assertEqual((run.outcome, run.cause, run.ended.state_lost), ("TIMEOUT", "LIMIT", False))
        self.assertLess(time.monotonic() - start, 3)
        self.assertGreaterEqual(run.ended.usage.wall_time.ToMilliseconds(), 1000)
        self.assertEqual(execute(client, sandbox, "kept").text, "7")

    def test_a_cell_that_ignores_sigint_is_killed_and_says_so(self):
        sandbox = self.sandbox()
        execute(client, sandbox, "kept = 7")
        code = ("import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
                "while True:\n    try:\n        while True: pass\n    except BaseException: pass")
        run = execute(client, sandbox, code, timeout=1)
        self.assertEqual((run.outcome, run.cause, run.ended.state_lost), ("TIMEOUT", "LIMIT", True))
        self.assertEqual(run.ended.signal, 9)
        generation = run.started.context_generation
        run = execute(client, sandbox, "kept")
        self.assertEqual((run.outcome, run.started.context_generation), ("RAISED", generation + 1))

    def test_a_cell_that_swallows_the_first_interrupt_hears_the_second(self):
        sandbox = self.sandbox()
        execute(client, sandbox, "kept = 7")
        code = ("import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('swallowed', flush=True)\n"
                "    time.sleep(60)")
        run = execute(client, sandbox, code, timeout=1)
        self.assertEqual((run.outcome, run.stdout, run.ended.state_lost), ("TIMEOUT", b"swallowed\n", False))
        self.assertEqual(execute(client, sandbox, "kept").text, "7")

    def test_usage_is_that_of_one_execution_alone(self):
        sandbox = self.sandbox()
        busy = execute(client, sandbox, "import time\nend = time.process_time() + 1\nwhile time.process_time() < end: pass")
        idle = execute(client, sandbox, "1")
        self.assertGreaterEqual(busy.ended.usage.cpu_time.ToMilliseconds(), 950)
        self.assertLess(idle.ended.usage.cpu_time.ToMilliseconds(), 500)

    def test_an_interrupt_keeps_the_state_and_a_kill_does_not(self):
        sandbox = self.sandbox()
        for level, outcome, lost in ((1, "INTERRUPTED", False), (2, "KILLED", True)):
            stream = client.executions.Execute(request(sandbox, "kept = 1\nprint('runs', flush=True)\nwhile True: pass"),
                                               timeout=120)
            run = fold_until(stream, lambda r: r.stdout)
            client.executions.InterruptExecution(
                execution_service.InterruptExecutionRequest(execution_id=run.execution_id, level=level), timeout=60)
            run = fold(stream, run)
            self.assertEqual((run.outcome, run.cause, run.ended.state_lost), (outcome, "CLIENT", lost))

    def test_an_execution_that_nobody_waits_for_is_interrupted_after_its_grace(self):
        sandbox = self.sandbox()
        message = request(sandbox, "print('runs', flush=True)\nwhile True: pass")
        message.disconnect_grace.FromMilliseconds(200)
        stream = client.executions.Execute(message, timeout=120)
        run = fold_until(stream, lambda r: r.stdout)
        stream.cancel()
        get_message = execution_service.GetExecutionRequest(execution_id=run.execution_id)
        daemons.wait_until(
            lambda: client.executions.GetExecution(get_message, timeout=60).execution.state == 3, "the end")
        run = attach(client, run.execution_id)
        self.assertEqual((run.outcome, run.cause), ("INTERRUPTED", "CLIENT_GONE"))

    def test_a_detached_execution_goes_on(self):
        sandbox = self.sandbox()
        gate = Gate(sandbox)
        message = request(sandbox, f"print('a', flush=True)\n{gate.WAIT}\nprint('b')")
        message.on_disconnect = execution_service.ON_DISCONNECT_CONTINUE
        stream = client.executions.Execute(message, timeout=120)
        run = fold_until(stream, lambda r: r.stdout)
        stream.cancel()
        gate.open()
        run = attach(client, run.execution_id)
        self.assertEqual((run.outcome, run.stdout), ("OK", b"a\nb\n"))

    def test_executions_of_a_context_wait_in_order(self):
        sandbox = self.sandbox()
        gate = Gate(sandbox)
        execute(client, sandbox, "seen = []")
        codes = [f"{gate.WAIT}; seen.append(0)", *(f"seen.append({i})" for i in range(1, 5))]
        streams, runs = [], []
        for code in codes:
            streams.append(client.executions.Execute(request(sandbox, code), timeout=120))
            runs.append(fold_until(streams[-1], lambda r: r.execution_id))
        gate.open()
        runs = [fold(*pair) for pair in zip(streams, runs)]
        self.assertEqual([run.outcome for run in runs], ["OK"] * 5)
        self.assertEqual(execute(client, sandbox, "seen").text, "[0, 1, 2, 3, 4]")
        counts = [run.started.execution_count for run in runs]
        self.assertEqual(counts, sorted(counts))


class Limits(Case):
    def test_memory_ends_as_oom_and_the_sandbox_still_answers(self):
        sandbox = self.sandbox(memory=256 * MIB, limits={"disk_bytes": 64 * MIB})
        run = execute(client, sandbox, "block = bytearray(1 << 30)")
        self.assertEqual((run.outcome, run.cause, run.ended.state_lost), ("OOM", "LIMIT", True))
        self.assertEqual(execute(client, sandbox, "1+1").text, "2")

    def test_a_fork_bomb_hits_the_pids_limit_and_a_neighbour_still_answers(self):
        bomb, neighbour = self.sandbox(limits={"processes": 64}), self.sandbox()
        execute(client, neighbour, "0")
        code = ("import os, time\nn = 0\ntry:\n    while True:\n        if os.fork() == 0:\n            time.sleep(60)\n"
                "            os._exit(0)\n        n += 1\nexcept OSError as error:\n    print(n, error.errno, flush=True)\n"
                "time.sleep(60)")
        stream = client.executions.Execute(request(bomb, code), timeout=120)
        run = fold_until(stream, lambda r: b"\n" in r.stdout)
        self.assertEqual(execute(client, neighbour, "1+1", timeout=20).text, "2")
        client.executions.InterruptExecution(execution_service.InterruptExecutionRequest(execution_id=run.execution_id), timeout=60)
        run = fold(stream, run)
        self.assertEqual((run.outcome, run.cause), ("INTERRUPTED", "CLIENT"))
        forked, number = run.stdout.split()
        self.assertLess(int(forked), 64)
        self.assertEqual(int(number), 11)
        self.assertEqual(execute(client, neighbour, "1+1").text, "2")

    def test_a_full_disk_is_enospc_inside_and_the_sandbox_still_answers(self):
        sandbox = self.sandbox(memory=256 * MIB, limits={"disk_bytes": 32 * MIB})
        code = ("try:\n    with open('big', 'wb') as f:\n        for _ in range(100):\n            f.write(bytes(1 << 20))\n"
                "except OSError as error:\n    print(error.errno)")
        self.assertEqual(execute(client, sandbox, code).stdout, b"28\n")
        self.assertEqual(execute(client, sandbox, "1+1").text, "2")

    def test_a_disk_limit_without_room_below_memory_is_refused_with_both_fields(self):
        message = stubs.sandbox_service.CreateSandboxRequest(spec=spec(memory=256 * MIB, limits={"disk_bytes": 256 * MIB}))
        error = error_of(client.sandboxes.CreateSandbox, message)
        self.assertEqual(stubs.reason(error), "LIMITS_CONFLICT")
        fields = {v.field for v in stubs.error_details(error)["BadRequest"].field_violations}
        self.assertEqual(fields, {"spec.limits.memory_bytes", "spec.limits.disk_bytes"})

    def test_a_client_that_does_not_read_blocks_the_program_until_its_timeout(self):
        sandbox = self.sandbox()
        code = "import os\nblock = b'x' * 65536\nfor _ in range(16384):\n    os.write(1, block)"
        stream = client.executions.Execute(request(sandbox, code, timeout=3, output_bytes=1 << 30), timeout=120)
        first = next(stream)
        execution_id = first.events[0].queued.execution_id
        message = execution_service.GetExecutionRequest(execution_id=execution_id)
        ended = daemons.wait_until(
            lambda: (e := client.executions.GetExecution(message, timeout=60).execution).state == 3 and e, "the end")
        self.assertEqual((ended.ended.outcome, ended.ended.cause), (5, 5), ended)  # TIMEOUT, CLIENT_NOT_READING
        self.assertLess(ended.ended.usage.stdout_bytes, 64 * MIB)
        self.assertLess(server_rss_bytes(), 100 * MIB)
        stream.cancel()

    def test_detached_output_drops_the_oldest_with_a_gap_and_ends_by_the_limit(self):
        sandbox = self.sandbox()
        code = "import os\nblock = b'x' * 65536\nfor _ in range(16384):\n    os.write(1, block)"
        message = request(sandbox, code, timeout=60, output_bytes=512 * MIB)
        message.on_disconnect = execution_service.ON_DISCONNECT_CONTINUE
        message.disconnect_grace.FromMilliseconds(1)
        stream = client.executions.Execute(message, timeout=120)
        execution_id = next(stream).events[0].queued.execution_id
        stream.cancel()
        get_message = execution_service.GetExecutionRequest(execution_id=execution_id)
        daemons.wait_until(lambda: client.executions.GetExecution(get_message, timeout=60).execution.state == 3,
                           "the end", 100)
        run = attach(client, execution_id)
        self.assertEqual((run.outcome, run.cause), ("OUTPUT_LIMIT", "LIMIT"))
        self.assertEqual(len(run.gaps), 1)
        self.assertGreater(run.gaps[0].stdout_bytes, 400 * MIB)
        self.assertEqual(run.gaps[0].stdout_bytes + len(run.stdout), 512 * MIB)
        self.assertEqual(512 * MIB + run.ended.truncated_bytes, run.ended.usage.stdout_bytes)
        self.assertLess(server_rss_bytes(), 100 * MIB)

    def test_truncate_counts_what_it_throws_away_and_goes_on(self):
        message = request(self.sandbox(), "print('x' * 100000)\n5", output_bytes=1000)
        message.on_output_limit = execution_service.ON_OUTPUT_LIMIT_TRUNCATE
        run = fold(client.executions.Execute(message, timeout=120))
        self.assertEqual((run.outcome, len(run.stdout)), ("OK", 1000))
        self.assertGreaterEqual(run.ended.truncated_bytes, 99001)


def server_rss_bytes():
    with open(f"/proc/{running.server_pid()}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


class Rich(Case):
    def test_a_chart_arrives_as_a_png(self):
        code = "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3]); plt.show()"
        run = execute(client, self.sandbox(memory=1024 * MIB), code)
        self.assertEqual(run.outcome, "OK", run.error)
        self.assertTrue(run.displays[0]["image/png"].startswith(b"\x89PNG"))

    def test_a_data_frame_has_text_and_html(self):
        run = execute(client, self.sandbox(memory=1024 * MIB), "import pandas as pd\npd.DataFrame({'a': [1, 2]})")
        self.assertIn(b"<table", run.results[0]["text/html"])
        self.assertIn("a", run.text)

    def test_a_part_larger_than_a_message_follows_in_pieces(self):
        code = "from IPython.display import HTML\nHTML('x' * 3_000_000)"
        stream = client.executions.Execute(request(self.sandbox(), code), timeout=120)
        pieces, size = b"", None
        for response in stream:
            self.assertLess(response.ByteSize(), MIB)
            for event in response.events:
                if event.WhichOneof("event") == "result":
                    index, part = next((i, p) for i, p in enumerate(event.result.bundle.parts) if p.type == "text/html")
                    pieces, size = part.data, part.size_bytes
                elif event.WhichOneof("event") == "part_data" and event.part_data.part_index == index:
                    self.assertEqual(event.part_data.offset, len(pieces))
                    pieces += event.part_data.data
        self.assertEqual((size, len(pieces)), (3_000_000, 3_000_000))


if __name__ == "__main__":
    unittest.main()
