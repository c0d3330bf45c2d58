"""Each daemon is killed, stopped or renewed at a chosen moment: what goes on, what is lost, and what both say."""

import concurrent.futures
import contextlib
import os
import pathlib
import re
import shutil
import signal
import sqlite3
import threading
import time
import unittest

import grpc

import daemons
import scenario
import stubs
from daemons import wait_until
from patient import OPTIONS, Cell, ask, new_id, retry
from scenario import MIB, create, delete, error_of, execute, fold, fold_until, get, request, spec
from stubs import execution_service, sandbox, sandbox_service, server_service, usage_service

COUNT = "open('/tmp/count', 'a').write('x')\n"
PRINTING = COUNT + """import sys, time
for i in range(400):
    print('out', i)
    print('err', i, file=sys.stderr)
    time.sleep(0.002)
x = globals().get('x', 0) + 1
"""
OUT = "".join(f"out {i}\n" for i in range(400)).encode()
ERR = OUT.replace(b"out", b"err")
ENDED = sandbox.SANDBOX_STATE_ENDED


class Case(unittest.TestCase):
    options = {}

    def setUp(self):
        self.mine = self.enterContext(daemons.Daemons(**self.options))
        self.client = self.enterContext(stubs.Client(self.mine.target))

    def cell(self, sandbox_id, code, **fields):
        return Cell(self.client, request(sandbox_id, code, request_id=new_id(), **fields))

    def kill_server(self):
        """Returns when another one serves."""
        pid = self.mine.server_pid()
        os.kill(pid, signal.SIGKILL)
        self.await_successor(pid)

    def await_successor(self, pid):
        wait_until(lambda: self.mine.server_pid() not in (None, pid), "hotcelld is started again")
        wait_until(self.mine.is_ready, "ready again")
        # The connection may not know yet that the other end is gone.
        ask(self.client.server.GetServerInfo, server_service.GetServerInfoRequest())

    def count(self, sandbox_id):
        return int(execute(self.client, sandbox_id, "import os; os.path.getsize('/tmp/count')").text)

    def rows(self, query):
        with contextlib.closing(sqlite3.connect(f"file:{self.mine.state}/hotcell.db?mode=ro", uri=True)) as database:
            return database.execute(query).fetchall()

    def health(self):
        """What grpc.health.v1 says: SERVING is 1, NOT_SERVING 2."""
        return self.client.channel.unary_unary("/grpc.health.v1.Health/Check")(b"", **OPTIONS)[1]

    def assert_printed(self, run):
        self.assertEqual((run.outcome, run.stdout, run.stderr, run.gaps), ("OK", OUT, ERR, []))


class Server(Case):
    """hotcelld is killed."""

    def test_in_the_middle_of_a_printing_cell(self):
        one = create(self.client).sandbox_id
        execute(self.client, one, "x = 40")
        cell = self.cell(one, PRINTING)
        for i in (50, 150, 250):
            cell.until(lambda run, line=f"out {i}\n".encode(): line in run.stdout)
            self.kill_server()
        run = cell.finish()
        self.assert_printed(run)
        again = Cell(self.client, cell.message).finish()
        self.assertEqual((again.execution_id, again.order), (run.execution_id, run.order))
        self.assertEqual(execute(self.client, one, "x").text, "41")
        self.assertEqual(self.count(one), 1)

    def test_between_the_commit_and_the_answer(self):
        one = create(self.client).sandbox_id
        execute(self.client, one, "x = 41")
        cell = self.cell(one, COUNT + "x")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answer = pool.submit(cell.finish)
            wait_until(lambda: self.rows(f"SELECT object_id FROM requests WHERE request_id = '{cell.message.request_id}'"), "the row")
            self.kill_server()
            run = answer.result()
        self.assertEqual((run.outcome, run.text), ("OK", "41"))
        self.assertEqual(Cell(self.client, cell.message).finish().execution_id, run.execution_id)
        self.assertEqual(self.count(one), 1)

    def test_while_executions_are_queued(self):
        one = create(self.client).sandbox_id
        cells = [self.cell(one, "import time\nwhile not __import__('os').path.exists('/tmp/go'): time.sleep(0.01)")]
        cells += [self.cell(one, f"{COUNT}print({i})\nlen(open('/tmp/count').read())") for i in range(4)]
        for cell in cells:
            cell.until(lambda run: run.execution_id)
        cells[0].until(lambda run: run.started)
        self.kill_server()
        other = self.client.executions.CreateContext(execution_service.CreateContextRequest(sandbox_id=one), **OPTIONS).context
        execute(self.client, one, "open('/tmp/go', 'w').close()", context_id=other.context_id)
        self.assertEqual(cells[0].finish().outcome, "OK")
        for i, cell in enumerate(cells[1:]):
            run = cell.finish()
            self.assertEqual((run.outcome, run.stdout, run.text), ("OK", f"{i}\n".encode(), f"{i + 1}"))

    def at_a_state(self, state, call):
        """Kills while a sandbox is in the state, which ends without a kill after some milliseconds: tries until it was."""
        for _ in range(200):
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                answer = pool.submit(call)
                while not answer.done():
                    if self.rows(f"SELECT 1 FROM sandboxes WHERE state = {state}"):
                        self.kill_server()
                        return answer.result()
                answer.result()
        self.fail("it was never seen in that state")

    def test_while_a_sandbox_is_made(self):
        def make():
            message = sandbox_service.CreateSandboxRequest(spec=spec(memory=256 * MIB), request_id=new_id())
            return ask(self.client.sandboxes.CreateSandbox, message).sandbox.sandbox_id

        made = self.at_a_state(1, make)
        self.assertEqual(execute(self.client, made, "41").text, "41")
        alive = [one.sandbox_id for one in self.client.sandboxes.ListSandboxes(sandbox_service.ListSandboxesRequest(), **OPTIONS).sandboxes]
        self.assertIn(made, alive)
        self.assertEqual(self.rows("SELECT count(*) FROM sandboxes WHERE state <> 4"), [(len(alive),)])

    def test_while_a_sandbox_is_deleted(self):
        def drop():
            made = create(self.client).sandbox_id
            message = sandbox_service.DeleteSandboxRequest(sandbox_id=made, request_id=new_id())
            return ask(self.client.sandboxes.DeleteSandbox, message).sandbox

        before = self.mine.cgroups()
        gone = self.at_a_state(3, drop)
        self.assertEqual((gone.state, gone.end_cause), (ENDED, stubs.execution.CAUSE_CLIENT))
        wait_until(lambda: self.mine.cgroups() == before, "its groups are gone")

    def test_watches_and_page_tokens_go_on(self):
        made = [create(self.client, memory=256 * MIB).sandbox_id for _ in range(3)]
        lists = sandbox_service.ListSandboxesRequest(page_size=1)
        first = self.client.sandboxes.ListSandboxes(lists, **OPTIONS)
        self.kill_server()
        lists.page_token = first.next_page_token
        second = self.client.sandboxes.ListSandboxes(lists, **OPTIONS)
        self.assertEqual([first.sandboxes[0].sandbox_id, second.sandboxes[0].sandbox_id], made[:0:-1])
        delete(self.client, made[0])
        self.kill_server()
        stream = self.client.sandboxes.WatchSandboxes(sandbox_service.WatchSandboxesRequest(watch_token=first.watch_token), **OPTIONS)
        event = next(stream).events[0]
        self.assertEqual((event.sandbox.sandbox_id, event.type), (made[0], sandbox_service.SANDBOX_EVENT_TYPE_ENDED))
        stream.cancel()

    def test_what_is_not_known_yet_is_not_denied(self):
        """Whoever asks while the successor still looks is told to try again, not that there is nothing."""
        one = create(self.client).sandbox_id
        cell = self.cell(one, "import time; time.sleep(60)")
        execution_id = cell.until(lambda run: run.started).execution_id
        os.kill(self.mine.process.pid, signal.SIGSTOP)  # the successor waits for its runtime
        try:
            self.assertTrue(self.mine.server_pid())
            os.kill(self.mine.server_pid(), signal.SIGKILL)
        finally:
            os.kill(self.mine.process.pid, signal.SIGCONT)
        cell.leave()
        stopped = threading.Event()
        codes = set()

        def ask_all():
            with stubs.Client(self.mine.target) as own:
                while not stopped.is_set():
                    for call in (lambda: own.executions.InterruptExecution(
                            execution_service.InterruptExecutionRequest(execution_id=execution_id), **OPTIONS),
                            lambda: next(own.executions.AttachExecution(
                                execution_service.AttachExecutionRequest(execution_id=execution_id), **OPTIONS))):
                        try:
                            call()
                        except grpc.RpcError as error:
                            codes.add(error.code())
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ask_all)
            run = Cell.finish(cell)
            stopped.set()
            answer.result()
        self.assertEqual(run.outcome, "INTERRUPTED")
        self.assertLessEqual(codes, {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.FAILED_PRECONDITION})

    def test_what_was_on_its_way_is_not_lost(self):
        """Of an output that is larger than a ring, to a client that reads slowly."""
        for on_disconnect in (execution_service.ON_DISCONNECT_INTERRUPT, execution_service.ON_DISCONNECT_CONTINUE):
            with self.subTest(on_disconnect):
                self.read_slowly(on_disconnect)

    def read_slowly(self, on_disconnect):
        one = create(self.client).sandbox_id
        size = 8 * MIB
        cell = self.cell(one, f"import sys\nfor i in range({size} // 4096): sys.stdout.write(f'{{i:04095}}\\n')",
                         on_disconnect=on_disconnect)
        for n in (MIB, 3 * MIB, 5 * MIB):
            cell.until(lambda run, wanted=n: len(run.stdout) > wanted)
            self.kill_server()
        run = cell.finish()
        self.assertEqual((run.outcome, run.gaps, len(run.stdout)), ("OK", [], size))
        self.assertEqual(run.stdout, b"".join(b"%04095d\n" % i for i in range(size // 4096)))

    def test_one_that_ran_well_is_back_soon(self):
        for _ in range(5):
            born = time.monotonic()
            wait_until(lambda since=born: time.monotonic() - since > 1.5, "it ran")
            self.kill_server()
        self.assertEqual(re.findall(r"starting hotcelld again: in_msec=(\d+)", self.mine.log()), ["100"] * 5)

    def test_clients_have_time_to_come_back(self):
        one = create(self.client).sandbox_id
        message = request(one, PRINTING, request_id=new_id())
        message.disconnect_grace.FromMilliseconds(1)
        cell = Cell(self.client, message)
        cell.until(lambda run: run.stdout)
        self.kill_server()
        self.assert_printed(cell.finish())


class Spawner(Case):
    def spawner(self):
        """The runtime's child that is the same program."""
        for child in daemons.children(self.mine.process.pid):
            if os.readlink(f"/proc/{child}/exe") == os.readlink(f"/proc/{self.mine.process.pid}/exe"):
                return child
        raise AssertionError("there is no spawner")

    def test_its_death_loses_nothing(self):
        one = create(self.client).sandbox_id
        execute(self.client, one, "x = 40")
        cell = self.cell(one, PRINTING)
        cell.until(lambda run: run.stdout)
        pid = self.spawner()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: "the spawner ended" in self.mine.log(), "the runtime has seen it")
        other = create(self.client).sandbox_id
        self.assertEqual(execute(self.client, other, "41").text, "41")
        self.assert_printed(cell.finish())
        self.assertEqual(execute(self.client, one, "x").text, "41")
        self.assertNotEqual(self.spawner(), pid)


class Lost(Case):
    """What is lost with the runtime, and what the next one cleans."""

    def prepare(self):
        self.one = create(self.client).sandbox_id
        self.busy = self.cell(self.one, COUNT + "import time; time.sleep(600)")
        self.busy.until(lambda run: run.started)
        self.waiting = self.cell(self.one, COUNT)
        self.waiting.until(lambda run: run.execution_id)
        self.idle = create(self.client).sandbox_id
        self.groups = self.mine.cgroups()
        self.pids = self.mine.processes()
        self.folder = self.files()

    def files(self):
        return sorted(str(path.relative_to(self.mine.folder)) for path in self.mine.folder.glob("**/*")
                      if not path.name.startswith(("hotcell.db", "log")))

    def assert_lost(self):
        """By cause and row."""
        for one in (self.one, self.idle):
            gone = wait_until(lambda which=one: (found := get(self.client, which)).state == ENDED and found, "its end is recorded")
            self.assertEqual(gone.end_cause, stubs.execution.CAUSE_RUNTIME_LOST)
        for cell, outcomes in ((self.busy, {"LOST"}), (self.waiting, {"LOST", "NOT_STARTED"})):
            ended = self.client.executions.GetExecution(execution_service.GetExecutionRequest(execution_id=cell.run.execution_id),
                                                        **OPTIONS).execution.ended
            self.assertIn(stubs.execution.Outcome.Name(ended.outcome).removeprefix("OUTCOME_"), outcomes)
            self.assertEqual(ended.cause, stubs.execution.CAUSE_RUNTIME_LOST)
        self.assertEqual(self.rows("SELECT 1 FROM sandboxes WHERE state <> 4 UNION SELECT 1 FROM executions WHERE state <> 3"), [])

    def assert_clean(self):
        """Nothing of the old one is left: no process, and with those no mount and no namespace; no group, no file."""
        wait_until(lambda: not [group for group in self.groups if os.path.exists(group)], "the old groups are gone")
        wait_until(lambda: not [pid for pid in self.pids if os.path.exists(f"/proc/{pid}")], "the old processes are gone")
        self.assertEqual(self.files(), self.folder)
        self.assertNotIn(str(self.mine.folder), pathlib.Path("/proc/self/mountinfo").read_text())


class Supervised(Lost):
    def test_hotcelld_ends_with_its_runtime_and_the_next_start_cleans(self):
        self.prepare()
        server = self.mine.server_pid()
        self.mine.kill()
        wait_until(lambda: not os.path.exists(f"/proc/{server}"), "hotcelld is gone")
        self.mine.start()
        self.assert_lost()
        self.pids.discard(self.mine.process.pid)
        self.assert_clean()
        self.assertEqual(execute(self.client, create(self.client).sandbox_id, "41").text, "41")

    def test_both_killed_at_once(self):
        self.prepare()
        os.kill(self.mine.process.pid, signal.SIGSTOP)
        os.kill(self.mine.server_pid(), signal.SIGKILL)
        self.mine.kill()
        self.mine.start()
        self.assert_lost()
        self.assert_clean()
        self.assertEqual(execute(self.client, create(self.client).sandbox_id, "41").text, "41")


class Apart(Lost):
    """hotcelld is a service of its own."""
    options = {"apart": True}

    def setUp(self):
        super().setUp()
        self.prepare()
        self.pids = self.mine.processes()

    def test_it_says_that_the_runtime_is_lost_and_serves_with_the_next_one(self):
        self.mine.kill()
        run = self.busy.finish()
        self.assertEqual((run.outcome, run.cause), ("LOST", "RUNTIME_LOST"))
        self.assertEqual(self.health(), 2)
        error = error_of(self.client.sandboxes.CreateSandbox, sandbox_service.CreateSandboxRequest(spec=spec()))
        self.assertEqual((error.code(), stubs.reason(error)), (grpc.StatusCode.UNAVAILABLE, "RUNTIME_UNAVAILABLE"))
        self.assertIn("RetryInfo", stubs.error_details(error))
        error = error_of(self.client.executions.Execute, request(self.one, "1"))
        self.assertEqual((error.code(), stubs.reason(error)), (grpc.StatusCode.FAILED_PRECONDITION, "SANDBOX_ENDED"))
        self.assert_lost()
        self.mine.start()
        self.assertEqual(self.health(), 1)
        self.assert_clean()
        self.assertEqual(execute(self.client, create(self.client).sandbox_id, "41").text, "41")

    def test_it_goes_on_after_its_own_death(self):
        cell = self.cell(self.idle, PRINTING)
        cell.until(lambda run: run.stdout)
        self.mine.server.kill()
        self.mine.server.wait()
        self.mine.start_server()
        self.assert_printed(cell.finish())

    def test_it_leaves_to_a_successor(self):
        cell = self.cell(self.idle, PRINTING)
        cell.until(lambda run: run.stdout)
        self.mine.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "hotcelld is not supervised here" in self.mine.log(), "the runtime says whom to ask")
        self.assertIsNone(self.mine.server.poll())
        self.mine.server.send_signal(signal.SIGHUP)
        self.assertEqual(self.mine.server.wait(60), 75)
        self.mine.start_server()
        self.assert_printed(cell.finish())

    def test_a_stop_while_it_leaves_is_a_stop(self):
        for number in (signal.SIGSTOP, signal.SIGHUP, signal.SIGTERM, signal.SIGCONT):
            self.mine.server.send_signal(number)
        self.assertEqual(self.mine.server.wait(60), 0)
        self.mine.start_server()
        wait_until(self.mine.is_ready, "ready")
        self.assertEqual({get(self.client, one).end_cause for one in (self.one, self.idle)}, {stubs.execution.CAUSE_SHUTDOWN})


class Stop(Lost):
    def test_everything_is_stopped_and_started(self):
        self.prepare()
        self.assertEqual(self.mine.stop(), 0)
        self.assert_clean_but_socket()
        self.mine.start()
        for one in (self.one, self.idle):
            gone = get(self.client, one)
            self.assertEqual((gone.state, gone.end_cause), (ENDED, stubs.execution.CAUSE_SHUTDOWN))
        for cell, outcome in ((self.busy, stubs.execution.OUTCOME_SANDBOX_ENDED), (self.waiting, stubs.execution.OUTCOME_NOT_STARTED)):
            ended = self.client.executions.GetExecution(execution_service.GetExecutionRequest(execution_id=cell.run.execution_id),
                                                        **OPTIONS).execution.ended
            self.assertEqual((ended.outcome, ended.cause), (outcome, stubs.execution.CAUSE_SHUTDOWN))
        self.assertEqual(self.rows("SELECT 1 FROM sandboxes WHERE state <> 4 UNION SELECT 1 FROM executions WHERE state <> 3"), [])

    def assert_clean_but_socket(self):
        self.assertEqual([group for group in self.groups if os.path.exists(group)], [])
        self.assertEqual([pid for pid in self.pids if os.path.exists(f"/proc/{pid}")], [])


class Update(Case):
    """hotcelld is renewed in order."""

    def setUp(self):
        folder = pathlib.Path(self.enterContext(daemons.folder()))
        self.program = folder / "hotcelld"
        shutil.copy(daemons.build_folder() / "server/hotcelld", self.program)
        self.options = {"program": self.program, "server_arguments": ["--config", str(folder / "hotcelld.conf")]}
        self.settings = folder / "hotcelld.conf"
        self.settings.write_text("queue_max = 7\n")
        super().setUp()

    def replace(self, content):
        newer = self.program.with_suffix(".new")
        newer.write_bytes(content)
        newer.chmod(0o755)
        newer.rename(self.program)

    def size(self):
        """Of the program that runs."""
        return os.stat(f"/proc/{self.mine.server_pid()}/exe").st_size

    def renew(self):
        pid = self.mine.server_pid()
        self.mine.process.send_signal(signal.SIGHUP)
        self.await_successor(pid)

    def assert_renewed_at_once(self):
        self.assertNotIn("starting hotcelld again", self.mine.log())

    def test_streams_are_told_and_nothing_ends(self):
        one = create(self.client).sandbox_id
        execute(self.client, one, "x = 40")
        stream = self.client.executions.Execute(request(one, PRINTING), timeout=120)
        run = fold_until(stream, lambda r: r.stdout)
        watch = self.client.sandboxes.WatchSandboxes(sandbox_service.WatchSandboxesRequest(), timeout=120)
        pid = self.mine.server_pid()
        os.kill(pid, signal.SIGHUP)
        for open_stream in (stream, watch):
            with self.assertRaises(grpc.RpcError) as raised:
                fold(stream, run) if open_stream is stream else list(watch)
            self.assertEqual((raised.exception.code(), stubs.reason(raised.exception)), (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN"))
            self.assertIn("RetryInfo", stubs.error_details(raised.exception))
        run = retry(lambda: fold(self.client.executions.AttachExecution(execution_service.AttachExecutionRequest(
            execution_id=run.execution_id, after_sequence=run.sequence), **OPTIONS), run))
        self.assert_printed(run)
        self.assertEqual(execute(self.client, one, "x").text, "41")
        self.assertEqual(self.count(one), 1)
        self.assertNotEqual(self.mine.server_pid(), pid)
        self.assert_renewed_at_once()

    def test_a_changed_program_and_changed_settings_are_used(self):
        one = create(self.client).sandbox_id
        cell = self.cell(one, PRINTING)
        cell.until(lambda run: run.stdout)
        before = self.size()
        self.replace(self.program.read_bytes() + b"newer")
        self.settings.write_text("queue_max = 8\n")
        self.renew()
        self.assertEqual(self.size(), before + 5)
        self.assert_printed(cell.finish())
        self.assert_renewed_at_once()

    def refused(self, why):
        pid, before = self.mine.server_pid(), self.mine.log().count("hotcelld goes on as it is")
        self.mine.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.mine.log().count("hotcelld goes on as it is") > before, why)
        self.assertEqual(self.mine.server_pid(), pid)
        self.assertEqual(self.health(), 1)

    def test_what_is_not_good_is_not_used(self):
        one = create(self.client).sandbox_id
        good = self.program.read_bytes()
        self.settings.write_text("queue_max = lots\n")
        self.refused("settings that are wrong")
        self.settings.write_text("queue_max = 7\n")
        self.replace(b"no program")
        self.refused("a program that cannot be executed")
        self.program.unlink()
        self.refused("a program that is not there")
        self.replace(good)
        self.renew()
        self.assertEqual(execute(self.client, one, "41").text, "41")

    def test_calls_that_take_long_are_told_to_come_again(self):
        """Such as those that wait for an interpreter."""
        one = create(self.client).sandbox_id
        for _ in range(5):
            message = execution_service.CreateContextRequest(sandbox_id=one, request_id=new_id())
            call = self.client.executions.CreateContext.future(message, timeout=60)
            wait_until(lambda: call.done() or self.client.executions.ListContexts(
                execution_service.ListContextsRequest(sandbox_id=one), **OPTIONS).contexts, "it is made")
            self.renew()
            with contextlib.suppress(grpc.RpcError):
                call.result()
            self.assertIn(call.code(), (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE))
            context = ask(self.client.executions.CreateContext, message).context
            self.assertEqual(execute(self.client, one, "41", context_id=context.context_id).text, "41")

    def test_many_renewals_at_once_are_few(self):
        one = create(self.client).sandbox_id
        cell = self.cell(one, PRINTING)
        cell.until(lambda run: run.stdout)
        pid = self.mine.server_pid()
        for _ in range(20):
            self.mine.process.send_signal(signal.SIGHUP)
        self.await_successor(pid)
        self.assert_printed(cell.finish())



class Bills(Case):
    """What was used before the runtime was lost is billed as far as it was read, and said to be no more than that."""
    options = {"server_arguments": ["--ledger-period=1s"]}

    def usage(self, **fields):
        return self.client.usage.GetUsage(usage_service.GetUsageRequest(**fields), **OPTIONS)

    def spin(self):
        """A run that the ledger knows of: what it had used before the last record of its sandbox began."""
        self.one = create(self.client).sandbox_id
        self.busy = self.cell(self.one, "import time; end = time.monotonic() + 600\nwhile time.monotonic() < end: pass")
        self.busy.until(lambda run: run.started)
        watch = self.client.usage.WatchUsage(usage_service.WatchUsageRequest(sandbox_id=self.one), **OPTIONS)
        seen = next(now for now in watch if any(each.usage.cpu_time.ToMicroseconds() > 1_500_000 for each in now.sandboxes[0].executions))
        watch.cancel()
        seen, n_seen = seen.sandboxes[0], self.usage(sandbox_id=self.one).records_total
        wait_until(lambda: self.usage(sandbox_id=self.one).records_total > n_seen + 1, "it was billed after that")
        return seen.executions[0].usage, seen.usage.total

    def assert_billed(self, run, total):
        ended = wait_until(lambda: (found := get(self.client, self.one)).state == ENDED and found, "its end is recorded")
        message = execution_service.GetExecutionRequest(execution_id=self.busy.run.execution_id)
        told = self.client.executions.GetExecution(message, **OPTIONS).execution.ended.usage
        self.assertGreaterEqual(told.cpu_time.ToMicroseconds(), run.cpu_time.ToMicroseconds())
        self.assertGreaterEqual(told.memory_peak_bytes, run.memory_peak_bytes)
        for usage in (told, ended.usage.total):
            self.assertIn("cpu_time", usage.missing)
        answer = self.usage(sandbox_id=self.one)
        record, = (each for each in answer.records if each.execution_id)
        self.assertEqual((record.usage.cpu_time, record.incomplete), (told.cpu_time, True))
        self.assertTrue(answer.records[-1].incomplete)
        self.assertGreaterEqual(answer.records[-1].usage.memory_peak_bytes, total.memory_peak_bytes)
        self.assertGreaterEqual(answer.sums.cpu_time.ToMicroseconds(), total.cpu_time.ToMicroseconds())
        self.assertEqual(sum(each.usage.cpu_time.ToMicroseconds() for each in answer.records), answer.sums.cpu_time.ToMicroseconds())
        self.assertEqual(ended.usage.total.cpu_time, answer.sums.cpu_time)
        return told

    def test_lost_with_the_server(self):
        seen = self.spin()
        self.mine.kill()
        self.mine.start()
        self.assert_billed(*seen)


class BillsApart(Bills):
    options = {"apart": True, **Bills.options}

    def test_lost_with_the_server(self):
        """Here without it: its stream says the same."""
        seen = self.spin()
        self.mine.kill()
        run = self.busy.finish()
        self.assertEqual((run.outcome, run.cause), ("LOST", "RUNTIME_LOST"))
        self.assertEqual(self.assert_billed(*seen), run.ended.usage)
        self.mine.start()

if __name__ == "__main__":
    unittest.main()
