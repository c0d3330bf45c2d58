"""What all owners share: one who takes all it gets leaves the others theirs, and a refusal says whose limit it was and when to ask again."""

import concurrent.futures
import contextlib
import re
import time
import unittest

import daemons
import grpc
import scenario
import stubs
from scenario import MIB
from stubs import execution_service as executions, sandbox_service as sandboxes

FLAGS = ["--tcp", "127.0.0.1:0", "--sandboxes-max", "20", "--memory-total", "4GiB", "--executions-max", "8", "--executions-queued-max", "8",
         "--queued-code-total-max", "8MiB", "--open-streams-max", "40", "--updates-per-second", "20", "--rings-retained", "2MiB",
         "--retention-events-size", "4MiB", "--queue-max", "10000"]


def setUpModule():
    global running, local, a, b, c
    running = unittest.enterModuleContext(daemons.Daemons(FLAGS))
    local = unittest.enterModuleContext(stubs.Client(running.target))
    port = daemons.wait_until(lambda: re.search(r"listening address=127\.0\.0\.1.*port=(\d+)", running.log()), "its port").group(1)
    a, b, c = (Tenant(name, f"127.0.0.1:{port}") for name in ("one", "two", "three"))


class Tenant:
    def __init__(self, name, target):
        made = local.keys.CreateKey(stubs.key_service.CreateKeyRequest(name=name), timeout=60)
        self.owner, self.metadata = made.key.key_id, [("x-api-key", made.secret)]
        self.client = unittest.enterModuleContext(stubs.Client(target))

    def call(self, method, message, timeout=60):
        return method(message, metadata=self.metadata, timeout=timeout)

    def create(self, memory=128 * MIB, **fields):
        message = sandboxes.CreateSandboxRequest(spec=scenario.spec(memory=memory, limits={"disk_bytes": 32 * MIB}, **fields))
        return self.call(self.client.sandboxes.CreateSandbox, message).sandbox.sandbox_id

    def execute(self, sandbox_id, code, **fields):
        return self.call(self.client.executions.Execute, scenario.request(sandbox_id, code, **fields))

    def run(self, sandbox_id, code, **fields):
        return scenario.fold(self.execute(sandbox_id, code, **fields))

    def delete(self, sandbox_id):
        return self.call(self.client.sandboxes.DeleteSandbox, sandboxes.DeleteSandboxRequest(sandbox_id=sandbox_id))

    def quota(self, name):
        info = self.call(self.client.server.GetServerInfo, stubs.server_service.GetServerInfoRequest())
        return next(each for each in info.quotas if each.name == name)


class Case(unittest.TestCase):
    def made(self, tenant, **fields):
        sandbox = tenant.create(**fields)
        self.addCleanup(tenant.delete, sandbox)
        return sandbox

    def until_refused(self, reason, take, most=300):
        """Takes until it is refused: how often it was given, and the refusal."""
        for n in range(most):
            begin = time.monotonic()
            try:
                take()
            except grpc.RpcError as error:
                self.assertEqual((error.code().name, stubs.reason(error)), ("RESOURCE_EXHAUSTED", reason), error.details())
                self.assertLess(time.monotonic() - begin, 2)
                details = stubs.error_details(error)
                self.assertGreater(details["RetryInfo"].retry_delay.ToMicroseconds(), 0)
                return n, details["QuotaFailure"].violations[0]
        raise AssertionError(f"never refused, in {most} times")

    def first_event(self, stack, tenant, sandbox, code, **fields):
        """An execution that was taken: its stream stays open until the stack ends."""
        stream = tenant.execute(sandbox, code, **fields)
        stack.callback(stream.cancel)
        next(iter(stream))
        return stream


class Sandboxes(Case):
    def test_two_that_take_all_they_get_leave_some_for_a_third_and_the_operator(self):
        n_a, whose = self.until_refused("SANDBOX_LIMIT", lambda: self.made(a))
        self.assertEqual(whose.subject, a.owner)
        n_b, _ = self.until_refused("SANDBOX_LIMIT", lambda: self.made(b))
        self.assertEqual(n_a, 9)
        self.assertEqual(n_b, 5)
        self.made(c)
        left = 20 - n_a - n_b - 1
        for _ in range(left):
            self.addCleanup(scenario.delete, local, scenario.create(local, memory=96 * MIB, limits={"disk_bytes": MIB}).sandbox_id)
        _, whose = self.until_refused("SANDBOX_LIMIT", lambda: scenario.create(local, memory=96 * MIB, limits={"disk_bytes": MIB}))
        self.assertEqual(whose.subject, "server")
        self.assertEqual(local.server.GetServerInfo(stubs.server_service.GetServerInfoRequest(), timeout=60).sandboxes_active, 20)

    def test_memory_is_promised_only_as_far_as_it_goes(self):
        n, whose = self.until_refused("MEMORY_LIMIT", lambda: self.made(a, memory=600 * MIB))
        self.assertEqual((n, whose.subject), (3, a.owner))
        quota = a.quota("memory_bytes")
        self.assertEqual((quota.limit, quota.used, quota.owner_used), (4 << 30, 1800 * MIB, 1800 * MIB))
        self.made(b, memory=600 * MIB)


class Executions(Case):
    def test_what_runs(self):
        with contextlib.ExitStack() as stack:
            def start():
                self.first_event(stack, a, self.made(a), "import time; time.sleep(100)")
            n, whose = self.until_refused("EXECUTION_LIMIT", start)
            self.assertEqual((n, whose.subject), (4, a.owner))
            sandbox = self.made(b)
            self.assertEqual(b.run(sandbox, "1+1").text, "2")
            self.assertEqual(a.quota("executions").owner_used, 4)

    def test_what_waits(self):
        mine, yours = self.made(a), self.made(b)
        with contextlib.ExitStack() as stack:
            for tenant, sandbox in ((a, mine), (b, yours)):
                self.first_event(stack, tenant, sandbox, "import time; time.sleep(100)")
            n, whose = self.until_refused("QUEUE_LIMIT", lambda: self.first_event(stack, a, mine, "1"))
            self.assertEqual((n, whose.subject), (4, a.owner))
            self.first_event(stack, b, yours, "1")

    def test_code_that_waits_in_many_sandboxes_of_one_leaves_anothers_its_room(self):
        code = "#" * (1000 << 10)
        sandboxes_of_a = [self.made(a) for _ in range(2)]
        yours = self.made(b)
        with contextlib.ExitStack() as stack:
            for sandbox in sandboxes_of_a:
                self.first_event(stack, a, sandbox, "import time; time.sleep(100)")
            turns = iter(range(100))
            n, _ = self.until_refused("QUEUE_LIMIT", lambda: self.first_event(stack, a, sandboxes_of_a[next(turns) % 2], code))
            self.assertGreaterEqual(n, 3)
            self.assertEqual(b.run(yours, "#" * (64 << 10) + "\n1+1").text, "2")

    def test_output_of_one_does_not_push_out_anothers(self):
        mine, yours = self.made(a), self.made(b)
        kept = b.run(yours, "print('kept')")
        for _ in range(12):
            a.run(mine, "print('x' * 500000)")
        again = scenario.fold(b.call(b.client.executions.AttachExecution, executions.AttachExecutionRequest(execution_id=kept.execution_id)))
        self.assertEqual((again.stdout, again.gaps), (b"kept\n", []))
        self.assertLessEqual(a.quota("retained_output_bytes").used, 2 << 20)


class Streams(Case):
    def test_watches(self):
        with contextlib.ExitStack() as stack:
            def watch(tenant):
                stream = tenant.call(tenant.client.sandboxes.WatchSandboxes, sandboxes.WatchSandboxesRequest())
                stack.callback(stream.cancel)
                # One that is refused has ended before the answer to a later call on the same connection.
                held = tenant.quota("streams").owner_used
                if held == len(open_ones):
                    list(stream)
                open_ones.append(stream)
            open_ones = []
            n, whose = self.until_refused("STREAM_LIMIT", lambda: watch(a))
            self.assertEqual((n, whose.subject), (18, a.owner))
            self.assertEqual(b.run(self.made(b), "1+1").text, "2")
            open_ones.clear()
            watch(b)
        daemons.wait_until(lambda: a.quota("streams").used == 0, "no stream open")


class Updates(Case):
    def update(self, sandbox, labels):
        message = sandboxes.UpdateSandboxRequest(sandbox_id=sandbox, labels=labels)
        message.update_mask.paths.append("labels")
        return a.call(a.client.sandboxes.UpdateSandbox, message)

    def state_bytes(self):
        return sum(path.stat().st_size for path in running.state.rglob("*") if path.is_file())

    def test_a_storm_of_updates_fills_no_disk_and_no_log(self):
        sandbox, other = self.made(a), self.made(b)
        begin, size, log = time.monotonic(), self.state_bytes(), running.log_path.stat().st_size
        n, refused = 0, 0
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            def storm(worker):
                nonlocal n, refused
                while time.monotonic() < begin + 5:
                    n += 1
                    try:
                        self.update(sandbox, {f"l{i}": str(n) + str(worker) + "x" * 1000 for i in range(64)})
                    except grpc.RpcError as error:
                        refused += 1
                        self.assertEqual(stubs.reason(error), "UPDATE_RATE")
                        self.assertLessEqual(stubs.error_details(error)["RetryInfo"].retry_delay.ToMicroseconds(), 50000)
            for job in [pool.submit(storm, worker) for worker in range(4)]:
                job.result()
        grown = (self.state_bytes() - size) >> 20
        print(f"# {n} updates in 5 s, {refused} of them refused; the state grew by {grown} MiB, the log by {running.log_path.stat().st_size - log} bytes")
        self.assertGreater(refused, 0)
        self.assertLess(grown, 24)
        self.assertLess(running.log_path.stat().st_size - log, 50000)
        self.assertEqual(b.run(other, "1+1").text, "2")

    def test_an_update_that_changes_nothing_is_no_event(self):
        sandbox = self.made(a, labels={"x": "1"})
        token = a.call(a.client.sandboxes.ListSandboxes, sandboxes.ListSandboxesRequest()).watch_token
        time_of = lambda: self.update(sandbox, {"x": "1"})
        for _ in range(3):
            daemons.wait_until(lambda: self.accepted(time_of), "an update")
        daemons.wait_until(lambda: self.accepted(lambda: self.update(sandbox, {"x": "2"})), "an update")
        stream = a.call(a.client.sandboxes.WatchSandboxes, sandboxes.WatchSandboxesRequest(watch_token=token))
        event = next(iter(stream)).events[0]
        stream.cancel()
        self.assertEqual(event.sandbox.labels["x"], "2")

    def accepted(self, call):
        try:
            call()
        except grpc.RpcError as error:
            self.assertEqual(stubs.reason(error), "UPDATE_RATE")
            return False
        return True


if __name__ == "__main__":
    unittest.main()
