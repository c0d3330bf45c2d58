"""Each sync of the disk takes 300 ms: what does not wait for one goes on, nothing ends wrongly, and the log stays small."""

import concurrent.futures
import statistics
import time
import unittest

import daemons
import inject
import scenario
import stubs
from stubs import sandbox_service

SYNC_MSEC = 300
CLIENTS = 4
SECONDS = 8


class SlowDisk(unittest.TestCase):
    def setUp(self):
        self.running = self.enterContext(inject.Daemons())
        self.client = self.enterContext(stubs.Client(self.running.target))
        self.calm = scenario.create(self.client).sandbox_id
        scenario.execute(self.client, self.calm, "x = 41")

    def churn(self, end):
        """Sandboxes come, work and go: each end waits for the disk."""
        n = 0
        with stubs.Client(self.running.target) as client:
            while time.monotonic() < end:
                made = scenario.create(client).sandbox_id
                run = scenario.execute(client, made, "6*7", timeout=20)
                assert (run.outcome, run.text) == ("OK", "42"), run
                scenario.delete(client, made)
                n += 1
        return n

    def taken(self, what, end):
        seconds = []
        while time.monotonic() < end:
            begin = time.monotonic()
            what()
            seconds.append(time.monotonic() - begin)
        return seconds

    def read(self):
        self.client.server.GetServerInfo(stubs.server_service.GetServerInfoRequest(), timeout=60)
        self.client.sandboxes.GetSandbox(sandbox_service.GetSandboxRequest(sandbox_id=self.calm), timeout=60)

    def test_others_go_on_and_nothing_ends_wrongly(self):
        cell = "import time\nfor i in range(100):\n    print(i, flush=True)\n    time.sleep(0.05)\nx"
        with self.running.page.slow_sync(SYNC_MSEC), concurrent.futures.ThreadPoolExecutor() as pool:
            end = time.monotonic() + SECONDS
            printing = pool.submit(scenario.execute, self.client, self.calm, cell, timeout=60)
            churning = [pool.submit(self.churn, end) for _ in range(CLIENTS)]
            reads = self.taken(self.read, end)
            n_sandboxes = sum(future.result() for future in churning)
            run = printing.result()
            n_syncs = self.running.page.n_syncs()
        print(f"# {n_syncs} syncs, {n_sandboxes} sandboxes, {len(reads)} reads: median {statistics.median(reads) * 1000:.1f} ms, "
              f"slowest {max(reads) * 1000:.0f} ms", flush=True)
        self.assertGreater(n_syncs, 5)
        self.assertGreaterEqual(n_sandboxes, CLIENTS)
        self.assertEqual((run.outcome, run.text), ("OK", "41"))
        self.assertEqual(run.stdout, "".join(f"{i}\n" for i in range(100)).encode())
        # What living sandboxes are is in memory.
        self.assertLess(statistics.median(reads), SYNC_MSEC / 1000 / 2 * daemons.PATIENCE)
        self.assertLess((self.running.state / "hotcell.db-wal").stat().st_size, 9 << 20)
        self.assertNotIn("cannot be written", self.running.log())
        self.assertEqual(scenario.execute(self.client, self.calm, "x").text, "41")


if __name__ == "__main__":
    unittest.main()
