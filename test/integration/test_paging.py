"""Pages of thousands of records that change meanwhile, over kills of hotcelld: none that was there all along is skipped or repeated."""

import collections
import random
import sqlite3
import unittest

import daemons
import kills
import scenario
import stubs
from scenario import MIB
from stubs import execution_service, sandbox_service

N_RECORDS = 10_000
SAME_TIME = 7  # so many records were made in the same microsecond
PAGE = 97
PAGES_TO_A_KILL = 40
ALL_STATES = list(range(1, 5))
N_LIVING = 8


def copy_rows(database, table, key, model, n, change):
    """@n copies of the row whose @key is @model, each with a key of its own; returns the keys."""
    cursor = database.execute(f"SELECT * FROM {table} WHERE {key} = ?", (model,))
    row = dict(zip([column[0] for column in cursor.description], cursor.fetchone()))
    ids = [f"{model[:4]}{i:026}" for i in range(n)]
    random.Random(1).shuffle(ids)  # the order of ids is not that of times
    rows = [{**row, key: one, "create_time_usec": row["create_time_usec"] + 1 + i // SAME_TIME, **change} for i, one in enumerate(ids)]
    database.executemany(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(f':{name}' for name in row)})", rows)
    return set(ids)


def setUpModule():
    """A server with many records, and some sandboxes that live."""
    global running, client, sandboxes, executions, busy, living
    running = unittest.enterModuleContext(daemons.Daemons())
    client = unittest.enterModuleContext(stubs.Client(running.target))
    made = scenario.create(client).sandbox_id
    run = scenario.execute(client, made, "1")
    scenario.delete(client, made)
    running.stop()
    with sqlite3.connect(f"{running.state}/hotcell.db") as database:
        sandboxes = copy_rows(database, "sandboxes", "sandbox_id", made, N_RECORDS, {}) | {made}
        executions = copy_rows(database, "executions", "execution_id", run.execution_id, N_RECORDS, {}) | {run.execution_id}
    database.close()
    running.start()
    living = [small() for _ in range(N_LIVING)]
    busy = {kills.retry(lambda one=one: scenario.execute(client, one, "1")).execution_id for one in living}


def small(**fields):
    return scenario.create(client, memory=256 * MIB, limits={"disk_bytes": 64 * MIB}, **fields).sandbox_id


class Changes:
    """What happens between two pages."""

    def __init__(self):
        self.counts = collections.Counter()

    def make(self, n_pages):
        change = (self.make_and_end, self.relabel, self.execute)[n_pages % 3]
        kills.retry(change)
        self.counts[change.__name__] += 1

    @staticmethod
    def make_and_end():
        one = small(labels={"made": "meanwhile"})
        kills.retry(lambda: scenario.delete(client, one))

    @staticmethod
    def relabel():
        client.sandboxes.UpdateSandbox(sandbox_service.UpdateSandboxRequest(
            sandbox_id=random.choice(living), update_mask={"paths": ["labels"]}, labels={"n": str(random.random())}), timeout=60)

    @staticmethod
    def execute():
        scenario.execute(client, random.choice(living), "3")


class Paging(unittest.TestCase):
    def pages(self, call, message, field, id_field, changes):
        """How often each id was listed; hotcelld is killed now and then, and the token goes on."""
        seen, n_pages, n_kills = collections.Counter(), 0, 0
        while n_pages == 0 or message.page_token:
            if n_pages % PAGES_TO_A_KILL == PAGES_TO_A_KILL - 1:
                kills.kill(running)
                n_kills += 1
            answer = kills.retry(lambda: call(message, timeout=60 * daemons.PATIENCE))
            seen.update(getattr(one, id_field) for one in getattr(answer, field))
            message.page_token = answer.next_page_token
            n_pages += 1
            changes.make(n_pages)
        return seen, n_pages, n_kills

    def check(self, call, message, field, id_field, all_along):
        changes = Changes()
        seen, n_pages, n_kills = self.pages(call, message, field, id_field, changes)
        print(f"# {field}: {n_pages} pages, {sum(seen.values())} records, {len(all_along)} there all along, {n_kills} kills, "
              f"meanwhile {dict(changes.counts)}", flush=True)
        self.assertEqual([one for one, n in seen.items() if n > 1], [], "repeated")
        self.assertEqual(all_along - set(seen), set(), "skipped")
        self.assertGreaterEqual(n_kills, 2)

    def test_of_ended_sandboxes(self):
        message = sandbox_service.ListSandboxesRequest(states=[stubs.sandbox.SANDBOX_STATE_ENDED], page_size=PAGE)
        self.check(client.sandboxes.ListSandboxes, message, "sandboxes", "sandbox_id", sandboxes)

    def test_of_all_sandboxes(self):
        message = sandbox_service.ListSandboxesRequest(states=ALL_STATES, page_size=PAGE)
        self.check(client.sandboxes.ListSandboxes, message, "sandboxes", "sandbox_id", sandboxes | set(living))

    def test_of_all_executions(self):
        message = execution_service.ListExecutionsRequest(page_size=PAGE)
        self.check(client.executions.ListExecutions, message, "executions", "execution_id", executions | busy)

    def test_of_the_executions_of_one_sandbox(self):
        made = kills.retry(lambda: client.executions.GetExecution(
            execution_service.GetExecutionRequest(execution_id=min(executions)), timeout=60)).execution.sandbox_id
        message = execution_service.ListExecutionsRequest(sandbox_id=made, page_size=PAGE)
        self.check(client.executions.ListExecutions, message, "executions", "execution_id", executions)


if __name__ == "__main__":
    unittest.main()
