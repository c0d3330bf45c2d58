"""Every call and every allocation of each way to make something fails once: nobody is left waiting, nothing is left behind."""

import collections
import contextlib
import os
import pathlib
import sqlite3
import time
import unittest

import daemons
import grpc
import inject
import scenario
import stubs
from stubs import execution_service, sandbox_service

POOL = 2
RANGES = 8  # of ids: one that leaked would soon be missed
MIB_KIB = 1024


def setUpModule():
    global running, client, bystander, standing
    running = unittest.enterModuleContext(inject.Daemons(
        runtime_arguments=[f"--netns-pool={POOL}", f"--sandboxes-max={RANGES}"], server_arguments=["--rings-retained=1MiB"]))
    client = unittest.enterModuleContext(stubs.Client(running.target))
    bystander = scenario.create(client).sandbox_id
    scenario.execute(client, bystander, "x = 41")
    standing = scenario.create(client).sandbox_id


class NotMade(Exception):
    """The request was taken, and its execution told why it did not run."""


def create():
    message = sandbox_service.CreateSandboxRequest(
        spec=scenario.spec(name="probe", labels={"team": "blue"}, environment={"KEY": "value"}))
    made = client.sandboxes.CreateSandbox(message, timeout=60 * daemons.PATIENCE).sandbox
    return lambda: scenario.delete(client, made.sandbox_id)


def create_context():
    """With its interpreter: descriptors, journal, rings, and the runtime's keeping of them."""
    message = execution_service.CreateContextRequest(sandbox_id=standing, language="python")
    made = client.executions.CreateContext(message, timeout=60 * daemons.PATIENCE).context
    return lambda: client.executions.DeleteContext(
        execution_service.DeleteContextRequest(sandbox_id=standing, context_id=made.context_id), timeout=60 * daemons.PATIENCE)


def execute():
    check(scenario.execute(client, bystander, "print(x)\nx"), "41")


def one_shot():
    message = execution_service.ExecuteRequest(code="6*7", sandbox=scenario.spec())
    check(scenario.fold(client.executions.Execute(message, timeout=60 * daemons.PATIENCE)), "42")


def check(run, text):
    if run.outcome == "NOT_STARTED":
        raise NotMade(f"NOT_STARTED {run.cause}: {run.ended.message}")
    assert (run.outcome, run.text) == ("OK", text), (run.outcome, run.cause, run.ended.message, run.text)


def attempt(path):
    """The answer in a word."""
    try:
        undo = path()
    except grpc.RpcError as error:
        return reason_of(error)
    except NotMade as answer:
        return str(answer).split(":", maxsplit=1)[0]
    answer = "OK"
    while undo:
        try:
            undo()
            break
        except grpc.RpcError as error:
            assert answer == "OK", f"refused twice: {error.details()}"
            answer = f"then {reason_of(error)}"
    return answer


def reason_of(error):
    # Without memory for the details of an error there are none.
    reason = stubs.reason(error) or ("without details" if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED else None)
    assert reason and reason != "INTERNAL", f"{error.code().name} {reason}: {error.details()}"
    return reason


def rss_kib(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1])


def descriptors(pid):
    links = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            links.append(os.readlink(f"/proc/{pid}/fd/{name}").split(":")[0].split("/")[0])
        except OSError:
            pass
    return collections.Counter(links)


def mounts(pid):
    """In the spawner's mount namespace all; elsewhere those of these daemons: others may mount, too."""
    lines = pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return len([line for line in lines if pid == running.spawner_pid() or str(running.folder) in line])


def look():
    """What there is; the spawner may be another one than before."""
    daemon_pids = [running.process.pid, running.spawner_pid(), running.server_pid()]
    if None in daemon_pids or len({pid for pid in daemon_pids}) != 3:
        return None
    if descriptors(running.process.pid)["net"] != POOL + 1:
        return None
    return {
        "processes": len(running.processes()),
        "cgroups": len(running.cgroups()),
        "descriptors": [descriptors(pid) for pid in daemon_pids],
        "mounts": [mounts(pid) for pid in [*daemon_pids, os.getpid()]],
    }


def recorded():
    """The sandboxes and executions that are not over, as the database says."""
    with contextlib.closing(sqlite3.connect(f"file:{running.state}/hotcell.db?mode=ro", uri=True)) as database:
        sandboxes = database.execute("SELECT sandbox_id FROM sandboxes WHERE state != 4").fetchall()
        executions = database.execute("SELECT execution_id FROM executions WHERE state != 3").fetchall()
    return {row[0] for row in sandboxes}, {row[0] for row in executions}


def settled():
    """When only what stays is recorded as running."""
    def twice():
        if recorded() != ({bystander, standing}, set()):
            return None
        try:
            first, second = look(), look()
        except OSError:
            return None
        return second if first == second else None
    try:
        return daemons.wait_until(twice, "two equal looks")
    except AssertionError:
        raise AssertionError(f"recorded as running: {recorded()} instead of {bystander}, {standing}; there is {look()}") from None


class Creation(unittest.TestCase):
    def fail_all(self, path, role, kind):
        """Until the path goes through without a call that was not failed yet: (function, callers, answer) of each."""
        cases = []
        while True:
            running.page.arm(role, kind)
            try:
                answer = attempt(path)
            except AssertionError as error:
                failed = running.page.disarm()
                self.fail(f"{inject.ROLES[role]} {failed and (failed[0], running.symbols(failed[1]))}: {error}\n{running.log()[-2000:]}")
            failed = running.page.disarm()
            self.assertTrue(self.is_alive(), running.log()[-4000:])
            if not failed:
                self.assertEqual(answer, "OK")
                return cases
            cases.append((failed[0], failed[1], answer))
            self.succeed(path, role, failed)

    def is_alive(self):
        return running.process.poll() is None and running.server.poll() is None

    def succeed(self, path, role, failed):
        """The second try, without a fault: at once, or when the first one is cleared away."""
        end, answer = time.monotonic() + 20 * daemons.PATIENCE, None
        while answer != "OK":
            if time.monotonic() > end:
                self.fail(f"{answer} long after a failed {failed[0]} of the {inject.ROLES[role]} {running.symbols(failed[1])}")
            answer = attempt(path)
            time.sleep(0.005 if answer != "OK" else 0)

    def try_path(self, name, path):
        attempt(path)  # caches and buffers
        n_all = 0
        for role, role_name in inject.ROLES.items():
            before = settled()
            rss = [rss_kib(running.process.pid), rss_kib(running.server_pid())]
            for kind, kind_name in inject.KINDS.items():
                cases = self.fail_all(path, role, kind)
                n_all += len(cases)
                self.show(f"{name} {role_name} {kind_name}", cases)
            self.nothing_is_left(before, f"{name} {role_name}")
            grown = [now - then for now, then in zip([rss_kib(running.process.pid), rss_kib(running.server_pid())], rss)]
            print(f"# {name}: {role_name}: RSS of runtime and hotcelld grew by {grown} KiB", flush=True)
            self.assertLess(grown[0], 2 * MIB_KIB)
            self.assertLess(grown[1], 16 * MIB_KIB)
        self.assertGreaterEqual(n_all, 24)
        self.assertEqual(scenario.execute(client, bystander, "x").text, "41")

    def show(self, title, cases):
        """A line for each function that failed and each answer: how often."""
        print(f"# {title}: {len(cases)} cases", flush=True)
        table = collections.Counter((function, answer) for function, _, answer in cases)
        for (function, answer), n in sorted(table.items()):
            print(f"#   {function:<16}{n:>5}  {answer}", flush=True)

    def nothing_is_left(self, before, what):
        deadline = time.monotonic() + 30 * daemons.PATIENCE
        while (after := settled()) != before:
            if time.monotonic() > deadline:
                changes = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
                self.fail(f"{what} left: {changes}")

    def test_1_sandboxes(self):
        self.try_path("CreateSandbox", create)

    def test_2_contexts_with_their_interpreters(self):
        self.try_path("CreateContext", create_context)

    def test_3_executions(self):
        self.try_path("Execute", execute)

    def test_4_one_shots_where_they_are_more_than_the_others(self):
        self.try_path("one-shot Execute", one_shot)


if __name__ == "__main__":
    unittest.main()
