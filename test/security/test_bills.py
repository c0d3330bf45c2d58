"""What one who has a key, or the program in a sandbox, tries in order to have more than its quota, to read others' bills, or to forge how a run ended."""

import collections
import concurrent.futures
import contextlib
import os
import pwd
import re
import sqlite3
import threading
import time
import unittest

import daemons
import grpc
import scenario
import stubs
from scenario import MIB
from stubs import execution_service as executions, key_service as keys, sandbox_service as sandboxes, server_service as server, usage_service as usage

SHARES = ("sandboxes", "memory_bytes", "cpu_millis", "creations", "executions")


def setUpModule():
    global running, local, a, b
    running = unittest.enterModuleContext(daemons.Daemons(["--tcp", "127.0.0.1:0"]))
    local = unittest.enterModuleContext(stubs.Client(running.target))
    port = daemons.wait_until(lambda: re.search(r"listening address=127\.0\.0\.1.*port=(\d+)", running.log()), "its port").group(1)
    a, b = (Tenant(name, f"127.0.0.1:{port}") for name in ("one", "two"))


class Tenant:
    """An owner with two keys."""

    def __init__(self, name, target):
        first = local.keys.CreateKey(keys.CreateKeyRequest(name=name), timeout=60)
        second = local.keys.CreateKey(keys.CreateKeyRequest(name=name + "-too", owner_key_id=first.key.key_id), timeout=60)
        self.key = first.key
        self.metadata = [[("x-api-key", made.secret)] for made in (first, second)]
        self.client = unittest.enterModuleContext(stubs.Client(target))

    def call(self, method, message, key=0, timeout=60 * daemons.PATIENCE):
        return method(message, metadata=self.metadata[key], timeout=timeout)

    def create(self, key=0, memory=128 * MIB, **fields):
        message = sandboxes.CreateSandboxRequest(spec=scenario.spec(memory=memory, limits={"disk_bytes": 16 * MIB}, **fields))
        return self.call(self.client.sandboxes.CreateSandbox, message, key).sandbox.sandbox_id

    def update(self, sandbox_id, memory, key=0):
        message = sandboxes.UpdateSandboxRequest(sandbox_id=sandbox_id)
        message.limits.memory_bytes = memory
        message.update_mask.paths.append("limits.memory_bytes")
        return self.call(self.client.sandboxes.UpdateSandbox, message, key)

    def run(self, sandbox_id, code, **fields):
        return scenario.fold(self.call(self.client.executions.Execute, scenario.request(sandbox_id, code, **fields), timeout=120 * daemons.PATIENCE))

    def delete(self, sandbox_id):
        self.call(self.client.sandboxes.DeleteSandbox, sandboxes.DeleteSandboxRequest(sandbox_id=sandbox_id))

    def usage(self, **query):
        return self.call(self.client.usage.GetUsage, usage.GetUsageRequest(**query))

    def held(self):
        info = self.call(self.client.server.GetServerInfo, server.GetServerInfoRequest())
        return {quota.name: quota.owner_used for quota in info.quotas if quota.name in SHARES}

    def set_quotas(self, **quotas):
        message = keys.UpdateKeyRequest(key_id=self.key.key_id, quotas=keys.KeyQuotas(**quotas))
        message.update_mask.paths.append("quotas")
        local.keys.UpdateKey(message, timeout=60)


def tried(function, *arguments):
    """What it returns, or why it was refused."""
    try:
        return function(*arguments)
    except grpc.RpcError as error:
        return stubs.reason(error)


class Quotas(unittest.TestCase):
    def setUp(self):
        self.addCleanup(a.set_quotas)

    def test_keys_of_one_owner_share_its_quotas_also_at_once(self):
        a.set_quotas(sandboxes=3, memory_bytes=400 * MIB)
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            got = list(pool.map(lambda n: tried(a.create, n % 2), range(16)))
            made = [each for each in got if each.startswith("sbx-")]
            for sandbox_id in made:
                self.addCleanup(tried, a.delete, sandbox_id)
            self.assertEqual((len(made), set(got) - set(made)), (3, {"SANDBOX_LIMIT"}))
            got = list(pool.map(lambda n: tried(a.update, made[n], 144 * MIB, n % 2), range(3)))
        self.assertEqual([each for each in got if isinstance(each, str)], ["MEMORY_LIMIT"] * 2)
        self.assertEqual(a.held()["memory_bytes"], 400 * MIB)
        for sandbox_id in made:
            a.delete(sandbox_id)
        self.assertEqual(set(a.held().values()), {0})

    def test_what_was_not_made_holds_nothing(self):
        a.set_quotas(sandboxes=1, memory_bytes=200 * MIB, cpu_millis=1000)
        for _ in range(30):
            message = sandboxes.CreateSandboxRequest(spec=scenario.spec(memory=128 * MIB, limits={"disk_bytes": 16 * MIB}, template="none-such"))
            self.assertEqual(tried(a.call, a.client.sandboxes.CreateSandbox, message), "UNKNOWN_TEMPLATE")
        self.assertEqual(set(a.held().values()), {0})
        a.delete(a.create())

    def test_limits_that_change_while_a_sandbox_runs_out_of_memory_and_ends(self):
        sandbox_id, over = a.create(), threading.Event()
        reasons = set()

        def storm():
            turn = 0
            while not over.is_set():
                turn += 1
                answer = tried(a.update, sandbox_id, (128, 100, 120, 140)[turn % 4] * MIB)
                reasons.add(answer if isinstance(answer, str) else "")

        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            jobs = [pool.submit(storm) for _ in range(3)]
            try:
                for _ in range(3):
                    run = a.run(sandbox_id, "x = [bytearray(4 << 20) for i in range(100)]")
                    self.assertEqual((run.outcome, run.cause), ("OOM", "LIMIT"))
                a.delete(sandbox_id)
                daemons.wait_until(lambda: "SANDBOX_ENDED" in reasons, "updates of what has ended")
            finally:
                over.set()
            for job in jobs:
                job.result()
        self.assertLessEqual(reasons, {"", "CONFLICT", "UPDATE_RATE", "LIMIT_NOT_POSSIBLE", "SANDBOX_ENDED"})
        self.assertEqual(set(a.held().values()), {0})


class OneAfterTheOther(unittest.TestCase):
    """Whoever has read how something ended has what it held: of a quota of one, the next may have all."""

    def setUp(self):
        self.addCleanup(a.set_quotas)

    def one_shot(self, code, **fields):
        return self.request(executions.ExecuteRequest(code=code, sandbox=scenario.spec(memory=128 * MIB, limits={"disk_bytes": 16 * MIB}, **fields)))

    def request(self, message):
        return scenario.fold(a.call(a.client.executions.Execute, message, timeout=120 * daemons.PATIENCE))

    def test_one_sandbox_at_a_time_is_enough_for_runs_in_turn(self):
        a.set_quotas(sandboxes=1, memory_bytes=128 * MIB, executions=1)
        for n in range(50):
            self.assertEqual(self.one_shot(f"print({n})").outcome, "OK")

    def test_a_name_is_free_once_its_run_has_ended(self):
        for _ in range(10):
            self.assertEqual(self.one_shot("1", name="again").outcome, "OK")

    def test_one_execution_at_a_time_is_enough_for_executions_in_turn(self):
        a.set_quotas(executions=1)
        made = [a.create(), a.create()]
        for sandbox_id in made:
            self.addCleanup(a.delete, sandbox_id)
        for n in range(50):
            self.assertEqual(a.run(made[n % 2], "1").outcome, "OK")

    def test_who_asks_how_it_ended_may_go_on_as_well(self):
        a.set_quotas(sandboxes=1)

        def has_ended(execution_id):
            got = a.call(a.client.executions.GetExecution, executions.GetExecutionRequest(execution_id=execution_id))
            return got.execution.state == stubs.execution.EXECUTION_STATE_ENDED

        for _ in range(10):
            events = a.call(a.client.executions.Execute, executions.ExecuteRequest(code="1", sandbox=scenario.spec(memory=128 * MIB), on_disconnect="ON_DISCONNECT_CONTINUE"))
            execution_id = next(iter(events)).events[0].queued.execution_id
            events.cancel()
            daemons.wait_until(lambda: has_ended(execution_id), "its end")


class Bills(unittest.TestCase):
    def test_no_filter_watch_or_token_shows_anothers(self):
        theirs, mine = b.create(labels={"who": "b"}), a.create()
        self.addCleanup(a.delete, mine)
        for _ in range(3):
            b.run(theirs, "print('x' * 100)")
            a.run(mine, "1")
        answer = a.usage(labels={"who": "b"})
        self.assertEqual((len(answer.records), answer.records_total, answer.sums.stdout_bytes, answer.HasField("complete_until")), (0, 0, 0, False))
        for query in ({"sandbox_id": theirs}, {"sandbox_id": theirs, "destinations": True}):
            self.assertEqual(tried(lambda query=query: a.usage(**query)), "SANDBOX_NOT_FOUND")
        token = b.usage(page_size=1).next_page_token
        self.assertTrue(token)
        answer = tried(lambda: a.usage(page_size=1, page_token=token))
        if not isinstance(answer, str):
            self.assertEqual({record.owner for record in answer.records} - {a.key.owner}, set())
        watch = a.call(a.client.usage.WatchUsage, usage.WatchUsageRequest(sandbox_id=theirs))
        self.assertEqual(tried(next, watch), "SANDBOX_NOT_FOUND")
        watch = a.call(a.client.usage.WatchUsage, usage.WatchUsageRequest())
        self.assertNotIn(theirs, {each.sandbox_id for each in next(watch).sandboxes})
        watch.cancel()
        b.delete(theirs)

    def test_names_that_a_terminal_or_a_table_would_obey(self):
        for name in ("\x1b[2J", "a\nb", "=1+1", "A B", "a,b", '"'):
            self.assertEqual(tried(lambda name=name: a.create(name=name)), "INVALID_FIELD", repr(name))


class LongLedger(unittest.TestCase):
    """One whose ledger is long, and whose labels are many, asks for nothing of it again and again."""

    ROWS = 20_000
    LABELS = {f"label-{n:02}": "x" for n in range(63)}

    def setUp(self):
        self.mine = self.enterContext(daemons.Daemons(["--tcp", "127.0.0.1:0"]))
        with stubs.Client(self.mine.target) as operator:
            made = [operator.keys.CreateKey(keys.CreateKeyRequest(name=name), timeout=60) for name in ("long", "short")]
        self.metadata = [[("x-api-key", each.secret)] for each in made]
        with self.connect() as client:
            message = sandboxes.CreateSandboxRequest(spec=scenario.spec(memory=128 * MIB, labels=self.LABELS))
            sandbox_id = client.sandboxes.CreateSandbox(message, metadata=self.metadata[0], timeout=60 * daemons.PATIENCE).sandbox.sandbox_id
            client.sandboxes.DeleteSandbox(sandboxes.DeleteSandboxRequest(sandbox_id=sandbox_id), metadata=self.metadata[0], timeout=60 * daemons.PATIENCE)
        self.mine.stop()
        with contextlib.closing(sqlite3.connect(f"{self.mine.state}/hotcell.db")) as database, database:
            columns = [row[1] for row in database.execute("PRAGMA table_info(usage_records)")]
            grown = {"record_id": "NULL", "type": "2", "sequence": "sequence + n", "record_time_usec": "record_time_usec + n"}
            database.execute(f"WITH more(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM more WHERE n < {self.ROWS}) INSERT INTO usage_records "
                             f"SELECT {', '.join(grown.get(name, name) for name in columns)} FROM more, "
                             "(SELECT * FROM usage_records ORDER BY record_id DESC LIMIT 1)")
        user = pwd.getpwnam(daemons.SERVER_USER)
        for path in self.mine.state.iterdir():
            os.chown(path, user.pw_uid, user.pw_gid)
        self.mine.start()

    def connect(self):
        return stubs.Client("127.0.0.1:" + re.findall(r"listening address=127\.0\.0\.1.*port=(\d+)", self.mine.log())[-1])

    def run_short(self, client):
        begin = time.monotonic()
        message = executions.ExecuteRequest(code="1", sandbox=scenario.spec(memory=128 * MIB))
        run = scenario.fold(client.executions.Execute(message, metadata=self.metadata[1], timeout=120 * daemons.PATIENCE))
        self.assertEqual(run.outcome, "OK")
        return time.monotonic() - begin

    def ask(self, client, token=""):
        message = usage.GetUsageRequest(labels=self.LABELS | {"none": "such"}, page_size=1, page_token=token)
        return client.usage.GetUsage(message, metadata=self.metadata[0], timeout=120 * daemons.PATIENCE)

    def test_pages_keep_nobody_else_waiting(self):
        client = self.enterContext(self.connect())
        first = self.ask(client)
        self.assertEqual((first.records_total, len(first.records)), (0, 0))
        token, over, answers = first.next_page_token, threading.Event(), collections.Counter()
        self.assertTrue(token)
        quiet = min(self.run_short(client) for _ in range(3))

        def storm():
            while not over.is_set():
                answer = tried(lambda: len(self.ask(client, token).records))
                answers[answer] += 1
                if answer == "CALL_LIMIT":
                    over.wait(0.2)  # a client that backs off: it is not the test that is to be slow

        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            jobs = [pool.submit(storm) for _ in range(32)]
            try:
                daemons.wait_until(lambda: answers.total() >= 32, "pages")
                busy = min(self.run_short(client) for _ in range(3))
            finally:
                over.set()
            for job in jobs:
                job.result()
        print(f"# a run takes {quiet:.2f} s, while another one asks for pages {busy:.2f} s; of these {dict(answers)}")
        self.assertLessEqual(set(answers), {0, "CALL_LIMIT"})
        self.assertGreater(answers[0], 0)
        self.assertLess(busy, 4 * quiet + 1)


class Forged(unittest.TestCase):
    """An end says what the host saw, whatever the program calls itself or ends with."""

    def ends(self, code):
        sandbox_id = a.create()
        self.addCleanup(a.delete, sandbox_id)
        return a.run(sandbox_id, code)

    def test_want_of_memory(self):
        for code, outcome in (("import os; os._exit(137)", "EXITED"),
                              ("import os; os.kill(os.getpid(), 9)", "SIGNALLED"),
                              ("raise MemoryError('It ran out of memory: limit 1 MiB')", "RAISED"),
                              ("import resource\nresource.setrlimit(resource.RLIMIT_AS, (200 << 20, 200 << 20))\nx = bytearray(300 << 20)", "RAISED"),
                              ("import os, sys\nos.kill(os.getppid(), 9)\nsys.exit(124)", None)):
            run = self.ends(code)
            if outcome:
                self.assertEqual(run.outcome, outcome, code)
            self.assertNotIn(run.outcome, ("OOM", "TIMEOUT", "OK"), code)
            self.assertEqual(run.ended.usage.oom_kills, 0)

    def test_a_victim_with_a_hostile_name(self):
        run = self.ends("""
import ctypes
ctypes.CDLL(None).prctl(15, b"\\x1b[2J {code}%s\\n", 0, 0, 0)
x = [bytearray(8 << 20) for i in range(100)]
""")
        self.assertEqual((run.outcome, run.cause), ("OOM", "LIMIT"))
        self.assertTrue(run.ended.message.isprintable(), run.ended.message)
        self.assertIn("the kernel killed ?[2J?{code}%s?", run.ended.message)


if __name__ == "__main__":
    unittest.main()
