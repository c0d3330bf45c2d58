"""The ledger under load, with hotcelld killed at random: every end has its row, once, and rows add up to what is stored.

    test_ledger.py [EXECUTIONS SANDBOXES KILLS [SEED]], or HOTCELL_TEST_LEDGER with these numbers; the seed of each run is printed.
"""

import contextlib
import itertools
import os
import random
import signal
import sqlite3
import sys
import threading
import time
import unittest

import daemons
import load
from patient import new_id
from stubs import sandbox_service

WORDS = (os.environ.get("HOTCELL_TEST_LEDGER") or "240 12 5").split()
WORKERS = 8
PATIENCE_SECONDS = 120 * daemons.PATIENCE
AMOUNTS = ("cpu_usec", "cpu_user_usec", "cpu_system_usec", "memory_byte_seconds", "oom_kills", "throttled_periods", "throttled_usec",
           "scheduled_usec", "wait_usec", "context_switches", "earlier_usec", "sent_bytes", "received_bytes", "stdout_bytes",
           "stderr_bytes", "rich_bytes")
PEAKS = ("memory_peak_bytes", "rss_peak_bytes")

# Works on between cells, which are billed to the sandbox.
BACKGROUND = "import threading, time\nthreading.Thread(target=lambda: [sum(range(20000)) or time.sleep(0.02) for _ in range(10**6)], daemon=True).start()"
CELLS = ("sum(range(100000))", "print('x' * 1000)", "b = bytearray(8 << 20)", "import time; time.sleep(0.02)", "1 / 0", "import os; os._exit(3)")


class Life(load.Worker):
    """One sandbox after the other, each with its cells."""

    def __init__(self, journal, target, seed, name, numbers, n_cells):
        super().__init__(journal, target, seed, name)
        self.numbers, self.n_cells = numbers, n_cells
        self.ended = {}  # by execution: what the client was told
        self.totals = {}  # by sandbox

    def run(self):
        try:
            for number in iter(lambda: next(self.numbers, None), None):
                if self.journal.failures:
                    return
                self.live(number)
        except BaseException as error:  # pylint: disable=broad-exception-caught
            self.journal.fail(f"{self.name}: {error!r}")
        finally:
            self.client.channel.close()

    def live(self, number):
        sandbox_id = self.create(labels={"number": str(number % 3)})
        for i in range(self.n_cells):
            code = BACKGROUND if i == 0 and number % 2 else self.rng.choice(CELLS)
            run = self.cell(sandbox_id, code).finish()
            self.ended[run.execution_id] = run.ended
            self.journal.count("executions")
        message = sandbox_service.DeleteSandboxRequest(sandbox_id=sandbox_id, request_id=new_id())
        self.totals[sandbox_id] = self.ask(self.client.sandboxes.DeleteSandbox, message).sandbox.usage.total


def usec(duration):
    return duration.seconds * 1000000 + duration.nanos // 1000


class Ledger(unittest.TestCase):
    def setUp(self):
        self.n_executions, self.n_sandboxes, self.n_kills = map(int, WORDS[:3])
        self.seed = WORDS[3] if len(WORDS) > 3 else str(random.SystemRandom().randrange(10**9))
        self.mine = self.enterContext(daemons.Daemons(server_arguments=["--ledger-period=1s"]))
        self.journal = load.Journal()

    def seconds(self):
        """Enough for all of the load."""
        return 4 * PATIENCE_SECONDS + self.n_executions / 5 * daemons.PATIENCE

    def start_load(self):
        numbers = itertools.count()
        lock = threading.Lock()

        def take():
            while True:
                with lock:
                    number = next(numbers)
                if number >= self.n_sandboxes:
                    return
                yield number
        n_cells = self.n_executions // self.n_sandboxes
        workers = [Life(self.journal, self.mine.target, self.seed, f"life-{i}", take(), n_cells) for i in range(WORKERS)]
        for worker in workers:
            worker.start()
        return workers

    def kill_at(self, n, last):
        """Once @n executions are over, the hotcelld that is not @last. Its process id."""
        rng = random.Random(f"{self.seed} {n}")
        daemons.wait_until(lambda: self.journal.counts["executions"] >= n or self.journal.failures, "the load goes on",
                           self.seconds())
        pid = daemons.wait_until(lambda: (self.mine.server_pid() not in (None, last) and self.mine.server_pid()) or self.journal.failures,
                                 "hotcelld is started again", PATIENCE_SECONDS)
        time.sleep(rng.uniform(0, 0.3))
        if not self.journal.failures:
            os.kill(pid, signal.SIGKILL)
        return pid

    def rows(self, query):
        with contextlib.closing(sqlite3.connect(f"file:{self.mine.state}/hotcell.db?mode=ro", uri=True)) as database:
            return database.execute(query).fetchall()

    def test_rows_add_up_whatever_is_killed(self):
        print(f"# {self.n_executions} executions, {self.n_sandboxes} sandboxes, {self.n_kills} kills, seed {self.seed}", flush=True)
        start = time.monotonic()
        workers = self.start_load()
        last = None
        for n in sorted(random.Random(self.seed).choices(range(1, self.n_executions * 9 // 10), k=self.n_kills)):
            last = self.kill_at(n, last)
        for worker in workers:
            worker.join(self.seconds())
            self.assertFalse(worker.is_alive(), f"{worker.name} does not come to its end")
        self.assertEqual(self.journal.failures, [])
        seconds = time.monotonic() - start
        self.assertEqual(self.mine.log().count("hotcelld ended: signal=9"), self.n_kills)
        self.assertEqual(self.mine.stop(), 0)
        self.check_rows(workers)
        self.check_sums()
        counts = dict(self.rows("SELECT type, count(*) FROM usage_records GROUP BY type"))
        print(f"# in {seconds:.0f} s: rows of {counts[1]} executions, {counts.get(2, 0)} of living sandboxes, {counts[3]} of ended ones; "
              "none missing, none twice, all add up", flush=True)

    def check_rows(self, workers):
        ended = {key: value for worker in workers for key, value in worker.ended.items()}
        n_cells = self.n_executions // self.n_sandboxes
        self.assertEqual(len(ended), n_cells * self.n_sandboxes)
        # One of each execution that ended, and of no other.
        rows = self.rows("SELECT execution_id, cpu_usec, memory_peak_bytes, stdout_bytes, wall_usec, is_incomplete, outcome, cause "
                         "FROM usage_records WHERE type = 1")
        self.assertEqual(len(rows), len(ended))
        self.assertEqual({row[0] for row in rows}, set(ended))
        self.assertEqual({one for one, in self.rows("SELECT execution_id FROM executions WHERE state = 3")}, set(ended))
        # It says what the client was told.
        told = {(key, usec(end.usage.cpu_time), end.usage.memory_peak_bytes, end.usage.stdout_bytes, usec(end.usage.wall_time), 0,
                 end.outcome, end.cause) for key, end in ended.items()}
        self.assertEqual(set(rows) - told, set())
        self.assertEqual(self.rows("SELECT count(*) FROM executions JOIN usage_records USING (execution_id) WHERE "
                                   "(used_cpu_usec, used_wall_usec, executions.stdout_bytes) <> (cpu_usec, wall_usec, usage_records.stdout_bytes)"),
                         [(0,)])
        # Sequences are 1 … n, the last one is the end.
        bad = self.rows("SELECT sandbox_id FROM usage_records GROUP BY sandbox_id HAVING min(sequence) <> 1 OR max(sequence) <> count(*) "
                        "OR sum(type = 3) <> 1 OR max(iif(type = 3, sequence, 0)) <> count(*)")
        self.assertEqual(bad, [])
        # Also those that a killed hotcelld was making, of which nobody was told.
        self.assertEqual(self.rows("SELECT count(*) FROM sandboxes WHERE state <> 4"), [(0,)])
        self.assertEqual(sorted(self.rows("SELECT DISTINCT sandbox_id FROM usage_records")), sorted(self.rows("SELECT sandbox_id FROM sandboxes")))
        self.check_totals({key: value for worker in workers for key, value in worker.totals.items()})

    def check_totals(self, totals):
        """A client was told at the end what the rows add up to."""
        self.assertEqual(len(totals), self.n_sandboxes)
        sums = self.rows("SELECT sandbox_id, sum(cpu_usec), max(memory_peak_bytes), sum(stdout_bytes), sum(iif(type > 1, wall_usec, 0)) "
                         "FROM usage_records GROUP BY sandbox_id")
        told = {(key, usec(total.cpu_time), total.memory_peak_bytes, total.stdout_bytes, usec(total.wall_time))
                for key, total in totals.items()}
        self.assertEqual(told - set(sums), set())

    def check_sums(self):
        """What is stored of each sandbox is what its rows add up to; a life is without holes."""
        sums = [(name, f"sum({name})") for name in AMOUNTS] + [(name, f"max({name})") for name in PEAKS]
        sums.append(("wall_usec", "sum(iif(type > 1, wall_usec, 0))"))
        for name, total in sums:
            found = self.rows(f"SELECT sandbox_id, {name}, total FROM usage_sandboxes JOIN (SELECT sandbox_id, {total} AS total "
                              f"FROM usage_records GROUP BY sandbox_id) USING (sandbox_id) WHERE end_time_usec > 0")
            self.assertGreaterEqual(len(found), self.n_sandboxes)
            self.assertEqual([row for row in found if row[1] != row[2]], [], name)
        self.assertEqual(self.rows("SELECT sandbox_id FROM (SELECT sandbox_id, start_time_usec, end_time_usec, type, "
                                   "lag(end_time_usec) OVER (PARTITION BY sandbox_id ORDER BY sequence) AS before_usec "
                                   "FROM usage_records WHERE type > 1) AS row JOIN sandboxes USING (sandbox_id) "
                                   "WHERE start_time_usec <> coalesce(before_usec, create_time_usec) "
                                   "OR (type = 3 AND row.end_time_usec <> sandboxes.end_time_usec)"), [])
        # It is metered from when the runtime made it, and its cells, one after the other, are parts of it.
        self.assertEqual(self.rows("SELECT sandbox_id FROM sandboxes LEFT JOIN usage_sandboxes AS account USING (sandbox_id) "
                                   "WHERE wall_usec IS NULL OR wall_usec > sandboxes.end_time_usec - create_time_usec + 10000 "
                                   "OR wall_usec < (SELECT coalesce(sum(wall_usec), 0) FROM usage_records "
                                   "WHERE type = 1 AND usage_records.sandbox_id = sandboxes.sandbox_id)"), [])


if __name__ == "__main__":
    WORDS = sys.argv[1:] or WORDS
    unittest.main(argv=sys.argv[:1])
