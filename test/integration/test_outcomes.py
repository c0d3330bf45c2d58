"""Every outcome and cause of a run, and every cause of a sandbox's end, caused on purpose: all who tell it agree.

But for two that take a host which fails in ways that only unit tests can arrange: POLICY (what a sandbox may reach cannot be put in force
again) and HOST_LOST (another boot; a server that was gone while a sandbox was made).
"""

import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import unittest

import grpc

import daemons
import endings
import scenario
import stubs
from daemons import wait_until
from endings import CUT_OFF, EXIT_OURS, Run
from scenario import MIB
from stubs import execution_service, sandbox_service

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1] / name) for name in ("security", "faults")]
from hostile import CHANNEL, PRELUDE  # noqa: E402
from test_full_disk import RESERVE, Daemons as FullDiskDaemons  # noqa: E402

AT_ONCE = 4  # cases that go on beside each other
SMALL = ("--memory", "256M", "--disk", "64M")
LADDER = ["--interrupt-again-after=100ms", f"--interrupt-kill-after={2 * daemons.PATIENCE}s"]
BEGUN = "import os, signal, subprocess, sys, threading, time\nprint('begun', flush=True)\n"
SLEEP = BEGUN + "time.sleep(600)"
DEAF = "import signal; signal.signal(2, signal.SIG_IGN)\n" + BEGUN + "while True: time.sleep(600)"
AWAIT = BEGUN + "while not os.path.exists('/tmp/go'): time.sleep(0.01)\n"
HOG = "bytearray(1 << 30)"
KILL = execution_service.INTERRUPT_LEVEL_KILL
INTERRUPT = execution_service.INTERRUPT_LEVEL_INTERRUPT
table = endings.Table()


def setUpModule():
    global unreachable
    unittest.addModuleCleanup(table.show)
    unreachable = Alone()
    unittest.addModuleCleanup(unreachable.doCleanups)
    unreachable.begin()
    unreachable.run = unreachable.start(SLEEP)
    unreachable.stream, unreachable.cut = unreachable.begin_stream()
    os.kill(unreachable.running.process.pid, signal.SIGSTOP)
    os.kill(unreachable.running.server_pid(), signal.SIGKILL)
    unreachable.running.kill()


@dataclasses.dataclass
class Case:
    """A run by the command line. @act does something to it once its code has begun."""

    name: str
    code: str
    outcome: str
    cause: str
    exit: int
    words: tuple = ()
    fields: dict = dataclasses.field(default_factory=dict)  # of Ended, besides these
    stdout: bytes = None
    act: object = None
    sandbox_cause: str = "PROGRAM"


def interrupt(level):
    def act(tellers, run):
        message = execution_service.InterruptExecutionRequest(execution_id=run.execution_id, level=level)
        tellers.client.executions.InterruptExecution(message, timeout=endings.SECONDS)
    return act


def delete_sandbox(tellers, run):
    scenario.delete(tellers.client, run.sandbox_id)


def delete_context(tellers, run):
    message = execution_service.DeleteContextRequest(sandbox_id=run.sandbox_id, context_id=run.context_id)
    tellers.client.executions.DeleteContext(message, timeout=endings.SECONDS)


def restart_context(tellers, run):
    message = execution_service.RestartContextRequest(sandbox_id=run.sandbox_id, context_id=run.context_id)
    run.pending = tellers.client.executions.RestartContext.future(message, timeout=endings.SECONDS)  # goes on while somebody holds it


def init_groups(running, sandbox_id):
    """The groups of its first process."""
    return [group for group in running.cgroups() if group.endswith(f"/sandbox-{sandbox_id}/init")]


def kill_init(tellers, run):
    pids = {int(pid) for group in init_groups(tellers.running, run.sandbox_id)
            for pid in (pathlib.Path(group) / "cgroup.procs").read_text().split()}
    assert len(pids) == 1, pids
    os.kill(pids.pop(), signal.SIGKILL)


def starve_init(tellers, run):
    """Its own group runs out of memory: a process of ours goes there and takes too much."""
    groups = init_groups(tellers.running, run.sandbox_id)
    hog = subprocess.Popen([sys.executable, "-c", f"import sys\nsys.stdin.read()\n{HOG}"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        for group in groups:
            with contextlib.suppress(OSError):  # of a hierarchy that takes no such process
                (pathlib.Path(group) / "cgroup.procs").write_text(str(hog.pid))
        hog.stdin.close()
        assert hog.wait(endings.SECONDS) == -signal.SIGKILL
    finally:
        hog.kill()
        hog.wait()


def exited(code, state_lost):
    return {"exit_code": code, "signal": 0, "state_lost": state_lost}


def signalled(number, **fields):
    return {"exit_code": None, "signal": number, "state_lost": True, **fields}


KEPT, LOST = {"state_lost": False}, {"state_lost": True}
VICTIM = r"; the kernel killed python3 \(pid \d+ on the host, \d+ MiB resident\)"
OOM = signalled(9, like=rf"^It ran out of memory: limit 256 MiB, peak 2\d\d MiB({VICTIM})?\.$")

CASES = [
    Case("runs to its end", "41", "OK", "PROGRAM", 0, fields=KEPT),
    Case("raises", "1/0", "RAISED", "PROGRAM", 1, fields=KEPT),
    Case("sys.exit(0)", "import sys; sys.exit(0)", "EXITED", "PROGRAM", 0, fields=exited(0, False)),
    Case("sys.exit(1)", "import sys; sys.exit(1)", "EXITED", "PROGRAM", 1, fields=exited(1, False)),
    Case("sys.exit(3)", "import sys; sys.exit(3)", "EXITED", "PROGRAM", 3, fields=exited(3, False)),
    Case("sys.exit(255)", "import sys; sys.exit(255)", "EXITED", "PROGRAM", 255, fields=exited(255, False)),
    Case("os._exit(0)", "import os; os._exit(0)", "EXITED", "PROGRAM", 0, fields=exited(0, True)),
    Case("os._exit(3)", "import os; os._exit(3)", "EXITED", "PROGRAM", 3, fields=exited(3, True)),
    Case("SystemExit in a thread", "import sys, threading\nt = threading.Thread(target=sys.exit, args=(3,)); t.start(); t.join()", "OK",
         "PROGRAM", 0, fields=KEPT),
    Case("SIGSEGV", "import os; os.kill(os.getpid(), 11)", "SIGNALLED", "PROGRAM", 139, fields=signalled(11)),
    Case("SIGABRT", "import os; os.abort()", "SIGNALLED", "PROGRAM", 134, fields=signalled(6)),
    Case("SIGTERM", "import os; os.kill(os.getpid(), 15)", "SIGNALLED", "PROGRAM", 143, fields=signalled(15)),
    Case("SIGKILL by itself", "import os; os.kill(os.getpid(), 9)", "SIGNALLED", "PROGRAM", 137, fields=signalled(9)),
    Case("SIGINT by itself", "import os, signal; signal.signal(2, signal.SIG_DFL); os.kill(os.getpid(), 2)", "SIGNALLED", "PROGRAM", 130,
         fields=signalled(2)),
    Case("timeout", SLEEP, "TIMEOUT", "LIMIT", 124, ("--timeout", "500ms"), KEPT),
    Case("timeout, SIGINT ignored", DEAF, "TIMEOUT", "LIMIT", 124, ("--timeout", "500ms"), signalled(9)),
    Case("timeout, exits then", "import os, signal; signal.signal(2, lambda *_: os._exit(7))\n" + SLEEP, "TIMEOUT", "LIMIT", 124,
         ("--timeout", "500ms"), exited(7, True)),
    Case("output, killed", "print('x' * 1000000)\nimport time; time.sleep(600)", "OUTPUT_LIMIT", "LIMIT", 137, ("--output-limit", "1K"), KEPT),
    Case("output, truncated", "print('x' * 1000000)", "OK", "PROGRAM", 0, ("--output-limit", "1K", "--on-output-limit", "truncate"), KEPT),
    Case("OOM of the interpreter", HOG, "OOM", "LIMIT", 137, fields=OOM),
    Case("OOM of a child, awaited", f"import subprocess, time\nsubprocess.run(['python3', '-c', '{HOG}']); time.sleep(600)", "OOM", "LIMIT", 137,
         fields=OOM),
    Case("OOM of a child, quick", f"import subprocess\nsubprocess.run(['python3', '-c', '{HOG}'])", "OOM", "LIMIT", 137,
         fields={**LOST, "like": OOM["like"]}),
    Case("processes", "import os, sys, time\ntry:\n    while os.fork(): pass\n    time.sleep(600)\nexcept OSError as e:\n    sys.exit(e.errno)",
         "EXITED", "PROGRAM", 11, ("--processes", "16"), exited(11, False)),
    Case("disk full", "with open('big', 'wb') as f:\n    f.write(bytes(80 << 20))", "RAISED", "PROGRAM", 1, fields=KEPT),
    Case("open files", "import sys\ntry:\n    x = [open('/dev/null') for _ in range(100)]\nexcept OSError as e:\n    x = None; sys.exit(e.errno)",
         "EXITED", "PROGRAM", 24, ("--open-files", "64"), exited(24, False)),
    Case("CPU throttled", "import time\na, b = time.perf_counter(), time.process_time()\nwhile time.process_time() - b < 0.2: pass\n"
         "print(time.perf_counter() - a > 0.4)", "OK", "PROGRAM", 0, ("--cpus", "0.25"), KEPT, stdout=b"True\n"),
    Case("killed by a client", SLEEP, "KILLED", "CLIENT", 137, fields=signalled(9), act=interrupt(KILL)),
    Case("interrupted", SLEEP, "INTERRUPTED", "CLIENT", 130, fields=KEPT, act=interrupt(INTERRUPT)),
    Case("interrupted, SIGINT ignored", DEAF, "KILLED", "CLIENT", 137, fields=signalled(9), act=interrupt(INTERRUPT)),
    Case("its sandbox is deleted", SLEEP, "SANDBOX_ENDED", "CLIENT", 125, fields=LOST, act=delete_sandbox, sandbox_cause="CLIENT"),
    Case("its context is deleted", SLEEP, "KILLED", "CLIENT", 137, fields=signalled(9), act=delete_context),
    Case("its context is restarted", SLEEP, "KILLED", "CLIENT", 137, fields=signalled(9), act=restart_context),
    Case("ttl", SLEEP, "SANDBOX_ENDED", "TTL", 125, ("--ttl", "3s"), LOST, sandbox_cause="TTL"),
    Case("protocol broken", PRELUDE + CHANNEL + "os.write(events, b'x' * 4096)\nimport time; time.sleep(600)", "KILLED", "KERNEL_PROTOCOL", 137,
         fields=signalled(9, like=r"^The interpreter broke its protocol \(.+\) and was killed\.$")),
    Case("init killed from the host", SLEEP, "SANDBOX_ENDED", "PROGRAM", 125, fields=LOST, act=kill_init),
    Case("init out of memory", SLEEP, "SANDBOX_ENDED", "LIMIT", 125, fields=LOST, act=starve_init, sandbox_cause="LIMIT"),
]


def tell(tellers, name, run, wanted, exit_code, sandbox_cause=None):
    """The end of @run as all tell it, into the table."""
    code, streamed = run.finish()
    assert code == exit_code, f"{name}: exit code {code}, not {exit_code}: {run.events} {run.stderr}"
    ledger = tellers.check(run.execution_id, wanted, streamed)
    if sandbox_cause:
        tellers.check_sandbox(run.sandbox_id, sandbox_cause)
    table.add(name, wanted["outcome"], wanted["cause"], code if streamed else f"{code} {CUT_OFF}", ledger, sandbox_cause or "")
    return streamed


class Common(unittest.TestCase):
    """Of one server, beside each other."""

    @classmethod
    def setUpClass(cls):
        cls.running = cls.enterClassContext(daemons.Daemons(server_arguments=[*LADDER, "--tcp=127.0.0.1:0"]))
        cls.client = cls.enterClassContext(stubs.Client(cls.running.target))
        cls.tellers = endings.Tellers(cls.running, cls.client)
        info = cls.client.server.GetServerInfo(stubs.server_service.GetServerInfoRequest(), timeout=endings.SECONDS)
        cls.names_victims = info.metering.programs

    def cause_one(self, case):
        run = Run(self.running.target, ("run", *SMALL, *case.words), case.code)
        try:
            if case.act:
                case.act(self.tellers, run.wait_output())
            streamed = tell(self.tellers, case.name, run, {"outcome": case.outcome, "cause": case.cause, **case.fields}, case.exit,
                            case.sandbox_cause)
            self.assertTrue(streamed, "the stream had no end")
            if case.fields is OOM and self.names_victims:
                self.assertRegex(streamed["message"], VICTIM)
            if case.stdout is not None:
                self.assertEqual(run.stdout, case.stdout)
        finally:
            run.leave()

    def test_each_is_told_the_same_by_all(self):
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            going_on = {pool.submit(self.cause_one, case): case for case in CASES}
            for done in concurrent.futures.as_completed(going_on):
                with self.subTest(going_on[done].name):
                    done.result()

    def sandbox(self, **fields):
        made = scenario.create(self.client, memory=256 * MIB, limits={"disk_bytes": 64 * MIB}, **fields).sandbox_id
        self.addCleanup(scenario.delete, self.client, made)
        return made

    def exec(self, sandbox_id, code, *words, **options):
        run = Run(self.running.target, ("exec", sandbox_id, *words), code, **options)
        self.addCleanup(run.leave)
        return run

    def stream(self, sandbox_id, code, **fields):
        """By gRPC, what the command line cannot ask for."""
        message = scenario.request(sandbox_id, code)
        for name, msec in fields.items():
            getattr(message, name).FromMilliseconds(msec)
        return self.client.executions.Execute(message, timeout=endings.SECONDS)

    def test_what_waits_and_is_cancelled_never_ran(self):
        one = self.sandbox()
        first = self.exec(one, SLEEP).wait_output()
        second = self.exec(one, "41").wait_queued()
        interrupt(INTERRUPT)(self.tellers, second)
        tell(self.tellers, "queued, cancelled", second, {"outcome": "NOT_STARTED", "cause": "CLIENT", **KEPT}, EXIT_OURS)
        third = self.exec(one, "41").wait_queued()
        scenario.delete(self.client, one)
        tell(self.tellers, "queued, sandbox deleted", third, {"outcome": "NOT_STARTED", "cause": "CLIENT", **KEPT}, EXIT_OURS)
        tell(self.tellers, "its sandbox is deleted, one waits", first, {"outcome": "SANDBOX_ENDED", "cause": "CLIENT"}, EXIT_OURS, "CLIENT")

    def test_what_waits_too_long_never_ran(self):
        one = self.sandbox()
        first = self.exec(one, SLEEP).wait_output()
        run = scenario.fold(self.stream(one, "41", queue_timeout=200))
        ledger = self.tellers.check(run.execution_id, {"outcome": "NOT_STARTED", "cause": "LIMIT", **KEPT}, endings.ended_of(run.ended))
        table.add("queue timeout", run.outcome, run.cause, "-", ledger)
        interrupt(KILL)(self.tellers, first)

    def test_a_client_that_is_gone(self):
        stream = self.stream(self.sandbox(), SLEEP, disconnect_grace=100)
        run = scenario.fold_until(stream, lambda r: r.stdout)
        stream.cancel()
        ledger = self.tellers.check(run.execution_id, {"outcome": "INTERRUPTED", "cause": "CLIENT_GONE", **KEPT})
        table.add("client gone", "INTERRUPTED", "CLIENT_GONE", "-", ledger)

    def test_a_client_that_does_not_read(self):
        run = self.exec(self.sandbox(), "import os\nwhile True: os.write(1, b'x' * 65536)", "--timeout", "1s", "--output-limit", "1G", is_read=False)
        self.tellers.await_end(run.wait_queued().execution_id)
        tell(self.tellers, "client not reading", run, {"outcome": "TIMEOUT", "cause": "CLIENT_NOT_READING"}, 124)

    def test_want_of_memory_is_of_the_leaf_that_it_took(self):
        one = self.sandbox()
        calm = self.exec(one, AWAIT + "7").wait_output()
        message = execution_service.CreateContextRequest(sandbox_id=one)
        beside = self.client.executions.CreateContext(message, timeout=endings.SECONDS).context.context_id
        words = "--code-context", beside
        tell(self.tellers, "OOM beside another context", self.exec(one, HOG, *words), {"outcome": "OOM", "cause": "LIMIT", **signalled(9)}, 137)
        run = self.exec(one, "open('/tmp/go', 'w').close()", *words)
        tell(self.tellers, "after an OOM", run, {"outcome": "OK", "cause": "PROGRAM"}, 0)
        self.assertEqual(run.event("started")["context_generation"], 2)
        tell(self.tellers, "OOM of another context", calm, {"outcome": "OK", "cause": "PROGRAM", **KEPT}, 0)

    def test_code_after_the_want_of_memory_of_a_child_is_not_harmed(self):
        one = self.sandbox()
        first = self.exec(one, f"import subprocess\nsubprocess.run(['python3', '-c', '{HOG}'])").wait_queued()
        second = self.exec(one, "41").wait_queued()
        tell(self.tellers, "OOM of a child, one waits", first, {"outcome": "OOM", "cause": "LIMIT", **LOST}, 137)
        tell(self.tellers, "behind an OOM of a child", second, {"outcome": "OK", "cause": "PROGRAM", **KEPT}, 0)
        self.assertEqual(second.event("started")["context_generation"], 2)

    def test_a_key_is_revoked(self):
        made = self.client.keys.CreateKey(stubs.key_service.CreateKeyRequest(name="tenant"), timeout=endings.SECONDS)
        line = next(line for line in self.running.log().splitlines() if "listening address=127.0.0.1" in line)
        run = Run(f"127.0.0.1:{line.split('port=')[1].split()[0]}", ("run", *SMALL), SLEEP, api_key=made.secret)
        self.addCleanup(run.leave)
        run.wait_output()
        self.client.keys.RevokeKey(stubs.key_service.RevokeKeyRequest(key_id=made.key.key_id, delete_sandboxes=True), timeout=endings.SECONDS)
        code, streamed = run.finish()
        self.assertEqual((code, streamed), (EXIT_OURS, None))
        # Nobody else may ask for what a key owned: only the rows are left.
        told = wait_until(lambda: self.tellers.told_by_row(run.execution_id), "its row")
        ledger = self.tellers.check_told(run.execution_id, told, {"outcome": "SANDBOX_ENDED", "cause": "OPERATOR", **LOST})
        wait_until(lambda: self.tellers.rows("SELECT state, end_cause FROM sandboxes WHERE sandbox_id = ?", run.sandbox_id) ==
                   [(4, stubs.execution.CAUSE_OPERATOR)], "the sandbox's row")
        table.add("its key is revoked", "SANDBOX_ENDED", "OPERATOR", f"{code} {CUT_OFF}", ledger, "OPERATOR")

    def test_an_idle_sandbox(self):
        message = scenario.spec(memory=256 * MIB, limits={"disk_bytes": 64 * MIB})
        message.idle_timeout.FromMilliseconds(1000)
        made = self.client.sandboxes.CreateSandbox(sandbox_service.CreateSandboxRequest(spec=message), timeout=endings.SECONDS).sandbox.sandbox_id
        tell(self.tellers, "then idle", self.exec(made, "41"), {"outcome": "OK", "cause": "PROGRAM"}, 0, "IDLE")


class Alone(unittest.TestCase):
    """Each with daemons of its own."""

    def begin(self, *arguments, kind=daemons.Daemons, ladder=LADDER, **options):
        self.running = self.enterContext(kind(server_arguments=[*ladder, *arguments], **options))
        self.client = self.enterContext(stubs.Client(self.running.target))
        self.tellers = endings.Tellers(self.running, self.client)

    def start(self, code):
        run = Run(self.running.target, ("run", *SMALL), code)
        self.addCleanup(run.leave)
        return run.wait_output()

    def let_go(self):
        """Makes /tmp/go in each sandbox."""
        for pid in daemons.descendants(self.running.process.pid):
            root = pathlib.Path(f"/proc/{pid}/root/tmp")
            with contextlib.suppress(OSError):
                if root.is_dir() and not os.path.samefile(root, "/tmp"):
                    (root / "go").touch()

    def tell(self, name, run, outcome, cause, exit_code, sandbox_cause="PROGRAM", **fields):
        return tell(self.tellers, name, run, {"outcome": outcome, "cause": cause, **fields}, exit_code, sandbox_cause)

    def renew(self, name, find):
        """Kills the daemon, and awaits the next one."""
        pid = find()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: find() not in (None, pid), f"another {name}")

    def spawner_pid(self):
        for child in daemons.children(self.running.process.pid):
            with contextlib.suppress(OSError):
                if pathlib.Path(f"/proc/{child}/comm").read_text().strip() == "hotcell-spawner":
                    return child
        return None

    def begin_stream(self):
        """A client that does not come back by itself."""
        made = scenario.create(self.client, memory=256 * MIB, limits={"disk_bytes": 64 * MIB}).sandbox_id
        stream = self.client.executions.Execute(scenario.request(made, AWAIT), timeout=endings.SECONDS)
        return stream, scenario.fold_until(stream, lambda r: r.stdout)

    def assert_cut_off(self, stream):
        with self.assertRaises(grpc.RpcError) as caught:
            list(stream)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE, caught.exception)


class Own(Alone):
    def test_daemons_that_are_killed_change_nothing(self):
        self.begin(nameservers=["127.0.0.1"])
        ends = {"exits": ("os._exit(3)", "EXITED", "PROGRAM", 3), "out of memory": (HOG, "OOM", "LIMIT", 137)}
        runs = {name: self.start(AWAIT + code) for name, (code, *_) in ends.items()}
        self.renew("hotcell-egress", self.running.egress_pid)
        os.kill(self.spawner_pid(), signal.SIGKILL)
        wait_until(lambda: "the spawner ended" in self.running.log(), "the runtime has seen it")
        self.let_go()
        for name, (_, outcome, cause, code) in ends.items():
            self.tell(f"{name}, egress and spawner killed", runs[name], outcome, cause, code)

        runs = {name: self.start(AWAIT + code) for name, (code, *_) in ends.items()}
        stream, cut = self.begin_stream()
        self.renew("hotcelld", self.running.server_pid)
        self.assert_cut_off(stream)
        wait_until(self.running.is_ready, "ready again")
        self.let_go()
        for name, (_, outcome, cause, code) in ends.items():
            self.tell(f"{name}, hotcelld killed", runs[name], outcome, cause, code)
        ledger = self.tellers.check(cut.execution_id, {"outcome": "OK", "cause": "PROGRAM", **KEPT})
        table.add("hotcelld killed, no second try", "OK", "PROGRAM", f"- {CUT_OFF}", ledger)

    def test_ends_while_no_server_is_there(self):
        self.begin(apart=True)
        ends = {"exits": ("os._exit(3)", "EXITED", "PROGRAM", 3), "a signal": ("os.kill(os.getpid(), 11)", "SIGNALLED", "PROGRAM", 139),
                "out of memory": (HOG, "OOM", "LIMIT", 137)}
        runs = {name: self.start(AWAIT + code) for name, (code, *_) in ends.items()}
        self.running.server.kill()
        self.running.server.wait()
        n_before = len(self.running.processes())
        self.let_go()
        wait_until(lambda: len(self.running.processes()) == n_before - len(ends), "the interpreters are gone")
        self.running.start_server()
        for name, (_, outcome, cause, code) in ends.items():
            self.tell(f"{name}, no server there", runs[name], outcome, cause, code)

    def test_a_runtime_that_is_killed_beside_its_server(self):
        self.begin(apart=True)
        run = self.start(SLEEP)
        self.running.kill()
        self.tell("runtime killed", run, "LOST", "RUNTIME_LOST", EXIT_OURS, "RUNTIME_LOST", state_lost=True)
        self.running.start()

    def test_a_runtime_that_is_killed_with_its_server(self):
        self.begin()
        run = self.start(SLEEP)
        server = self.running.server_pid()
        self.running.kill()
        wait_until(lambda: not os.path.exists(f"/proc/{server}"), "hotcelld is gone, too")
        self.running.start()
        self.tell("runtime killed, and so its server", run, "LOST", "RUNTIME_LOST", EXIT_OURS, "RUNTIME_LOST", state_lost=True)

    def test_an_interrupt_that_ends_in_want_of_memory(self):
        self.begin(ladder=["--interrupt-kill-after=600s"])  # it takes as long as it takes
        run = self.start(f"try:\n    import time; print('begun', flush=True); time.sleep(600)\nexcept KeyboardInterrupt:\n    x = {HOG}")
        interrupt(INTERRUPT)(self.tellers, run)
        tell(self.tellers, "interrupted, then OOM", run, {"outcome": "OOM", "cause": "LIMIT", **OOM}, 137, "PROGRAM")

    def test_a_stop(self):
        self.begin()
        run = self.start(SLEEP)
        self.running.stop()
        self.running.start()
        self.tell("the service is stopped", run, "SANDBOX_ENDED", "SHUTDOWN", EXIT_OURS, "SHUTDOWN", state_lost=True)

    def test_a_full_disk(self):
        self.begin(f"--state-reserve={RESERVE}", kind=FullDiskDaemons)
        run = self.start(AWAIT + "sys.exit(3)")
        self.running.fill()
        for n in range(10000):
            refused = daemons.hotcell(self.running, "key", "create", f"key-{n}")
            if refused.returncode:
                break
        self.assertIn(b"STATE_FULL", refused.stderr)
        self.running.fill()
        new = daemons.hotcell(self.running, "run", *SMALL, "-c", "41")
        self.assertEqual((new.returncode, b"STATE_FULL" in new.stderr), (EXIT_OURS, True), new.stderr)
        self.let_go()
        self.tell("the state's disk is full", run, "EXITED", "PROGRAM", 3)
        self.running.free()


class Unreachable(Alone):
    """A server that does not come back while its clients wait: they have, since before the tests above."""

    def test_clients_that_give_up_can_ask_later(self):
        self.running, self.client = unreachable.running, unreachable.client
        self.tellers = endings.Tellers(self.running, self.client)
        self.assert_cut_off(unreachable.stream)
        code, streamed = unreachable.run.finish()
        self.assertEqual((code, streamed), (EXIT_OURS, None), unreachable.run.stderr)
        self.assertIn(b"is unknown here", unreachable.run.stderr)
        self.running.start()
        self.tell("runtime and server killed", unreachable.run, "LOST", "RUNTIME_LOST", EXIT_OURS, "RUNTIME_LOST", state_lost=True)
        ledger = self.tellers.check(unreachable.cut.execution_id, {"outcome": "LOST", "cause": "RUNTIME_LOST", **LOST})
        table.add("the same, no second try", "LOST", "RUNTIME_LOST", f"- {CUT_OFF}", ledger)


if __name__ == "__main__":
    unittest.main()
