"""Stopping what is only being started, at every moment of its start: always a typed end, and nothing is left."""

import contextlib
import sqlite3
import time
import unittest

import grpc

import daemons
import scenario
import stubs
from scenario import create, delete, execute, fold, fold_until, request, spec
from stubs import execution_service, sandbox, sandbox_service

ROUNDS = 24  # moments, spread over the time that a start takes
ENDED = 4, 3  # sandbox, execution


def setUpModule():
    global running, client, start_seconds
    running = unittest.enterModuleContext(daemons.Daemons(runtime_arguments=["--netns-pool=2"]))
    client = unittest.enterModuleContext(stubs.Client(running.target))
    made = create(client).sandbox_id
    begun = time.monotonic()
    create_context(made).result()
    start_seconds = time.monotonic() - begun
    delete(client, made)
    print(f"# an interpreter starts in {start_seconds * 1000:.0f} ms")


def create_context(sandbox_id):
    """Goes on by itself: the future's result is the context."""
    return client.executions.CreateContext.future(execution_service.CreateContextRequest(sandbox_id=sandbox_id), timeout=120)


def contexts(sandbox_id):
    message = execution_service.ListContextsRequest(sandbox_id=sandbox_id)
    return list(client.executions.ListContexts(message, timeout=60).contexts)


def reason_of(call):
    """None if it was done, else the reason of its refusal."""
    try:
        call.result()
    except grpc.RpcError as error:
        return stubs.reason(error) or f"no reason: {error}"
    return None


class Case(unittest.TestCase):
    def setUp(self):
        self.before = self.traces()
        self.addCleanup(self.check_nothing_is_left)

    def traces(self):
        return len(running.processes()), running.cgroups()

    def check_nothing_is_left(self):
        daemons.wait_until(lambda: self.traces() == self.before, "no process and no group is left")
        with contextlib.closing(sqlite3.connect(f"file:{running.state / 'hotcell.db'}?mode=ro", uri=True)) as database:
            for table, state in zip(("sandboxes", "executions"), ENDED):
                left = database.execute(f"SELECT * FROM {table} WHERE state <> ?", [state]).fetchall()
                self.assertEqual(left, [], table)
        self.assertNotIn(" error: ", running.log())

    def moments(self):
        """Waits until another moment of a start in each round; the last ones are after it."""
        for i in range(ROUNDS):
            def wait(seconds=start_seconds * 1.1 * i / (ROUNDS - 1)):
                time.sleep(seconds)

            yield wait

    def starting(self, sandbox_id):
        """The pending CreateContext, and the id of its context."""
        call = create_context(sandbox_id)
        found = daemons.wait_until(lambda: contexts(sandbox_id), "the context is listed")
        return call, found[0].context_id


class Sandboxes(Case):
    def test_deleting_a_sandbox_whose_context_starts(self):
        seen = []
        for wait in self.moments():
            made = create(client).sandbox_id
            call = create_context(made)
            wait()
            delete(client, made)
            seen.append(reason_of(call))
        self.assertLessEqual(set(seen), {None, "SANDBOX_ENDED"})
        self.assertIn("SANDBOX_ENDED", seen)

    def test_deleting_a_sandbox_whose_first_execution_waits_for_its_interpreter(self):
        seen = []
        for wait in self.moments():
            made = create(client).sandbox_id
            stream = client.executions.Execute(request(made, "1+1"), timeout=120)
            run = fold_until(stream, lambda r: r.execution_id)
            wait()
            delete(client, made)
            run = fold(stream, run)
            seen.append((run.outcome, run.cause))
        self.assertLessEqual(set(seen), {("OK", "PROGRAM"), ("NOT_STARTED", "CLIENT"), ("SANDBOX_ENDED", "CLIENT")})
        self.assertIn("CLIENT", [cause for _, cause in seen])

    def test_deleting_a_sandbox_that_is_being_made(self):
        seen = []
        for i in range(ROUNDS):
            message = sandbox_service.CreateSandboxRequest(spec=spec(name=f"early-{i}"))
            call = client.sandboxes.CreateSandbox.future(message, timeout=120)
            lists = sandbox_service.ListSandboxesRequest(name=f"early-{i}")
            found = daemons.wait_until(lambda asked=lists: client.sandboxes.ListSandboxes(asked, timeout=60).sandboxes, "it is listed")
            delete(client, found[0].sandbox_id)
            seen.append(reason_of(call))
            self.assertEqual(scenario.get(client, found[0].sandbox_id).state, sandbox.SANDBOX_STATE_ENDED)
        self.assertLessEqual(set(seen), {None, "SANDBOX_ENDED"})


class Contexts(Case):
    def setUp(self):
        super().setUp()
        self.sandbox = create(client).sandbox_id
        self.addCleanup(delete, client, self.sandbox)

    def test_deleting_a_context_that_starts(self):
        seen = []
        for wait in self.moments():
            call, context_id = self.starting(self.sandbox)
            wait()
            message = execution_service.DeleteContextRequest(sandbox_id=self.sandbox, context_id=context_id)
            client.executions.DeleteContext(message, timeout=120)
            seen.append(reason_of(call))
            self.assertEqual(contexts(self.sandbox), [])
        self.assertLessEqual(set(seen), {None, "CONTEXT_NOT_FOUND"})
        self.assertIn("CONTEXT_NOT_FOUND", seen)

    def test_restarting_a_context_that_starts(self):
        for wait in self.moments():
            call, context_id = self.starting(self.sandbox)
            wait()
            message = execution_service.RestartContextRequest(sandbox_id=self.sandbox, context_id=context_id)
            restarted = client.executions.RestartContext(message, timeout=120).context
            self.assertGreaterEqual(restarted.generation, 2)
            self.assertIsNone(reason_of(call))
            self.assertEqual(execute(client, self.sandbox, "1+1", context_id=context_id).text, "2")
            message = execution_service.DeleteContextRequest(sandbox_id=self.sandbox, context_id=context_id)
            client.executions.DeleteContext(message, timeout=120)


class Executions(Case):
    def interrupted(self, level, outcomes):
        """What waits for its interpreter is interrupted; the next execution is not harmed."""
        made = create(client).sandbox_id
        self.addCleanup(delete, client, made)
        seen = []
        for wait in self.moments():
            stream = client.executions.Execute(request(made, "import time; time.sleep(60)"), timeout=120)
            run = fold_until(stream, lambda r: r.execution_id)
            wait()
            message = execution_service.InterruptExecutionRequest(execution_id=run.execution_id, level=level)
            client.executions.InterruptExecution(message, timeout=120)
            run = fold(stream, run)
            seen.append((run.outcome, run.cause))
            self.assertEqual(execute(client, made, "1+1").text, "2")
            message = execution_service.DeleteContextRequest(sandbox_id=made, context_id=run.context_id)
            client.executions.DeleteContext(message, timeout=120)
        self.assertLessEqual(set(seen), {(outcome, "CLIENT") for outcome in outcomes})
        self.assertIn(("NOT_STARTED", "CLIENT"), seen)

    def test_interrupting_what_waits_for_its_interpreter(self):
        self.interrupted(execution_service.INTERRUPT_LEVEL_INTERRUPT, {"NOT_STARTED", "INTERRUPTED", "KILLED"})

    def test_killing_what_waits_for_its_interpreter(self):
        self.interrupted(execution_service.INTERRUPT_LEVEL_KILL, {"NOT_STARTED", "KILLED"})

    def test_a_client_that_leaves_a_one_shot_run_that_starts(self):
        for wait in self.moments():
            message = request("", "import time; time.sleep(60)", sandbox=spec())
            message.disconnect_grace.FromMilliseconds(1)
            stream = client.executions.Execute(message, timeout=120)
            run = fold_until(stream, lambda r: r.execution_id)
            wait()
            stream.cancel()
            asked = execution_service.GetExecutionRequest(execution_id=run.execution_id)
            ended = daemons.wait_until(
                lambda question=asked: (e := client.executions.GetExecution(question, timeout=60).execution).state == 3 and e, "the end")
            self.assertEqual(ended.ended.cause, stubs.execution.CAUSE_CLIENT_GONE, ended.ended)


if __name__ == "__main__":
    unittest.main()
