"""What a program or a client can use up of the service itself: nothing that others feel."""

import time
import unittest

import daemons
import grpc
import scenario
import stubs
from hostile import PRELUDE, rss_bytes
from scenario import MIB

def setUpModule():
    global running, client
    running = unittest.enterModuleContext(daemons.Daemons())
    client = unittest.enterModuleContext(stubs.Client(running.target))


class Case(unittest.TestCase):
    def setUp(self):
        self.sandbox = self.fresh()
        self.neighbour = self.fresh()

    def fresh(self, memory=256 * MIB):
        made = scenario.create(client, memory=memory, limits={"disk_bytes": 64 * MIB}).sandbox_id
        self.addCleanup(scenario.delete, client, made)
        return made

    def inside(self, code, where=None, **fields):
        return scenario.execute(client, where or self.sandbox, PRELUDE + code, **fields)


class Service(Case):
    def test_queued_code_does_not_grow_the_service(self):
        """Five contexts, each with 32 executions of 1 MiB behind one that runs."""
        pid = running.server_pid()
        before = rss_bytes(pid)
        code = "#" + "x" * ((1 << 20) - 2)
        streams, reasons, contexts = [], [], []
        for _ in range(5):
            made = stubs.execution_service.CreateContextRequest(sandbox_id=self.sandbox)
            contexts.append(client.executions.CreateContext(made, timeout=60).context.context_id)
            streams.append(client.executions.Execute(scenario.request(self.sandbox, "import time; time.sleep(60)", context_id=contexts[-1]), timeout=60))
            scenario.fold_until(streams[-1], lambda run: run.started)
        for context in contexts:
            for _ in range(32):
                stream = client.executions.Execute(scenario.request(self.sandbox, code, context_id=context), timeout=60)
                try:
                    next(stream)
                    streams.append(stream)
                except grpc.RpcError as error:
                    reasons.append(stubs.reason(error))
                    details = stubs.error_details(error)
                    self.assertEqual(error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
                    self.assertTrue(details["QuotaFailure"].violations and details["RetryInfo"].retry_delay.ToNanoseconds() > 0)
        grown = rss_bytes(pid) - before
        print(f"# hotcelld grew by {grown >> 20} MiB")
        self.assertEqual((len(streams), set(reasons)), (5 + 8, {"QUEUE_FULL"}))
        for stream in streams:
            stream.cancel()
        self.assertLess(grown, 40 * MIB, f"hotcelld grew by {grown >> 20} MiB for one sandbox's queue")

    def test_room_for_code_comes_back(self):
        """What ran, and what was given up while it waited, does not count any more."""
        code = "#" + "x" * ((1 << 20) - 2)
        for _ in range(20):
            self.assertEqual(scenario.execute(client, self.sandbox, code).outcome, "OK")
        for _ in range(2):
            first = client.executions.Execute(scenario.request(self.sandbox, "import time; time.sleep(60)"), timeout=60)
            scenario.fold_until(first, lambda run: run.started)
            waiting = [client.executions.Execute(scenario.request(self.sandbox, code), timeout=60) for _ in range(8)]
            runs = [scenario.fold_until(stream, lambda run: run.execution_id) for stream in waiting]
            for run in runs:
                message = stubs.execution_service.InterruptExecutionRequest(execution_id=run.execution_id)
                client.executions.InterruptExecution(message, timeout=60)
            self.assertEqual({scenario.fold(*pair).outcome for pair in zip(waiting, runs)}, {"NOT_STARTED"})
            first.cancel()

    def test_attachments_do_not_grow_the_service(self):
        pid = running.server_pid()
        run = self.inside("import sys; sys.stdout.write('x' * (900 << 10))")
        before = rss_bytes(pid)
        streams = [client.executions.AttachExecution(
            stubs.execution_service.AttachExecutionRequest(execution_id=run.execution_id), timeout=60) for _ in range(200)]
        for stream in streams:
            next(stream)  # each is attached, and as much as goes out was made
        looks = [0]

        def is_settled():
            looks.append(rss_bytes(pid))
            return looks[-1] == looks[-2]

        daemons.wait_until(is_settled, "two equal looks")
        grown = looks[-1] - before
        for stream in streams:
            stream.cancel()
        self.assertLess(grown, 100 * MIB)
        self.assertEqual(scenario.execute(client, self.neighbour, "1+1").text, "2")

    def test_the_log_does_not_grow_with_what_a_program_does(self):
        before = running.log_path.stat().st_size
        self.inside("for _ in range(2000): os.close(os.open('/dev/null', 0)); print('x', flush=True)")
        self.assertLess(running.log_path.stat().st_size - before, 10000)


if __name__ == "__main__":
    unittest.main()
