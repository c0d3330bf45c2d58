"""Requests with a request_id: however often and whenever they come, also over kills of hotcelld, they happen once."""

import concurrent.futures
import random
import sqlite3
import time
import unittest
import uuid

import grpc

import daemons
import scenario
import stubs
from kills import kill, retry
from scenario import create, delete, execute, fold, fold_until, get, request, spec
from stubs import execution_service, key_rpc, sandbox, sandbox_service

COUNT = "open('/tmp/count', 'a').write('x')\n"
ENDED = sandbox.SANDBOX_STATE_ENDED


def setUpModule():
    global running, client
    running = unittest.enterModuleContext(daemons.Daemons())
    client = unittest.enterModuleContext(stubs.Client(running.target))


def new_id():
    return str(uuid.uuid4())


def counted(own, sandbox_id):
    """How often COUNT ran there."""
    return int(execute(own, sandbox_id, "import os; os.path.exists('/tmp/count') and os.path.getsize('/tmp/count') or 0").text)


def kinds(run):
    return [kind for kind, _ in run.order]


class Case(unittest.TestCase):
    def sandbox(self, **fields):
        made = create(client, **fields)
        self.addCleanup(delete, client, made.sandbox_id)
        return made.sandbox_id

    def assert_fails(self, code, reason, call, message):
        error = scenario.error_of(call, message)
        self.assertEqual((error.code(), stubs.reason(error)), (code, reason))
        return error


class Form(Case):
    def test_every_request_that_changes_something_takes_an_id(self):
        reads = set()
        for service in (execution_service.DESCRIPTOR.services_by_name["ExecutionService"],
                        sandbox_service.DESCRIPTOR.services_by_name["SandboxService"]):
            for method in service.methods:
                if "request_id" not in method.input_type.fields_by_name:
                    reads.add(method.name)
        self.assertEqual(reads, {"GetSandbox", "ListSandboxes", "WatchSandboxes", "ListContexts", "AttachExecution", "GetExecution",
                                 "ListExecutions"})

    def test_an_id_has_a_form_and_a_length(self):
        for bad in ("x" * 65, "two words", "a/b", "ä", "a\n"):
            with self.subTest(bad):
                error = self.assert_fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", client.sandboxes.CreateSandbox,
                                          sandbox_service.CreateSandboxRequest(spec=spec(), request_id=bad))
                violations = stubs.error_details(error)["BadRequest"].field_violations
                self.assertEqual([v.field for v in violations], ["request_id"])
        message = sandbox_service.CreateSandboxRequest(spec=spec(), request_id="Az09-_.:" * 8)
        delete(client, client.sandboxes.CreateSandbox(message, timeout=60).sandbox.sandbox_id)


class Executions(Case):
    def test_a_retry_gets_the_same_events_and_runs_nothing(self):
        one = self.sandbox()
        message = request(one, COUNT + "print('once')\n41 + 1", request_id=new_id())
        runs = [fold(client.executions.Execute(message, timeout=120)) for _ in range(3)]
        self.assertEqual({run.execution_id for run in runs}, {runs[0].execution_id})
        self.assertEqual([(run.stdout, run.text, run.order) for run in runs], 3 * [(b"once\n", "42", runs[0].order)])
        self.assertEqual(counted(client, one), 1)

    def test_retries_join_what_runs_from_its_first_event(self):
        one = self.sandbox()
        message = request(one, COUNT + "print('first', flush=True)\nimport time\n"
                          "while not __import__('os').path.exists('/tmp/stop'): time.sleep(0.01)\nprint('last')", request_id=new_id())
        first = client.executions.Execute(message, timeout=120)
        begun = fold_until(first, lambda run: run.stdout)
        second = client.executions.Execute(message, timeout=120)
        joined = fold_until(second, lambda run: run.stdout)
        self.assertEqual(joined.order, begun.order)
        context = client.executions.CreateContext(execution_service.CreateContextRequest(sandbox_id=one), timeout=60).context
        execute(client, one, "open('/tmp/stop', 'w').close()", context_id=context.context_id)
        begun, joined = fold(first, begun), fold(second, joined)
        self.assertEqual((begun.execution_id, begun.order), (joined.execution_id, joined.order))
        self.assertEqual(begun.stdout, b"first\nlast\n")
        self.assertEqual(counted(client, one), 1)

    def test_many_at_once_are_one(self):
        one = self.sandbox()
        message = request(one, COUNT + "print('once')", request_id=new_id())
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            runs = list(pool.map(lambda _: fold(client.executions.Execute(message, timeout=120)), range(16)))
        self.assertEqual({(run.execution_id, run.stdout, run.outcome) for run in runs}, {(runs[0].execution_id, b"once\n", "OK")})
        self.assertEqual(counted(client, one), 1)

    def test_a_one_shot_is_one_sandbox(self):
        message = request(None, "print('once')", request_id=new_id(), sandbox=spec(labels={"one": "shot"}))
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            runs = list(pool.map(lambda _: fold(client.executions.Execute(message, timeout=120)), range(4)))
        runs.append(fold(client.executions.Execute(message, timeout=120)))
        self.assertEqual({(run.sandbox_id, run.stdout) for run in runs}, {(runs[0].sandbox_id, b"once\n")})
        listed = client.sandboxes.ListSandboxes(
            sandbox_service.ListSandboxesRequest(labels={"one": "shot"}, states=list(range(1, 5))), timeout=60)
        self.assertEqual([s.sandbox_id for s in listed.sandboxes], [runs[0].sandbox_id])

    def test_other_fields_are_refused(self):
        one = self.sandbox()
        message = request(one, COUNT, request_id=new_id())
        execute(client, one, COUNT, request_id=message.request_id)
        for change in ({"code": COUNT + " "}, {"combine_output": True}, {"environment": {"A": "1"}}):
            other = execution_service.ExecuteRequest()
            other.CopyFrom(message)
            other.MergeFrom(execution_service.ExecuteRequest(**change))
            self.assert_fails(grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED", client.executions.Execute, other)
        self.assertEqual(counted(client, one), 1)

    def test_the_order_of_a_map_makes_no_difference(self):
        one = self.sandbox()
        message = request(one, COUNT, request_id=new_id()).SerializeToString()

        def entry(key, value):
            body = b"\x0a" + bytes([len(key)]) + key + b"\x12" + bytes([len(value)]) + value
            return b"\x32" + bytes([len(body)]) + body

        a, b = entry(b"A", b"1"), entry(b"B", b"2")
        call = client.channel.unary_stream("/hotcell.v1.ExecutionService/Execute",
                                           response_deserializer=execution_service.ExecuteResponse.FromString)
        runs = [fold(call(message + maps, timeout=120)) for maps in (a + b, b + a, entry(b"A", b"0") + b + a)]
        self.assertEqual(len({run.execution_id for run in runs}), 1)
        self.assertEqual(counted(client, one), 1)

    def test_a_refused_one_is_not_remembered(self):
        one = self.sandbox()
        same = new_id()
        self.assert_fails(grpc.StatusCode.NOT_FOUND, "SANDBOX_NOT_FOUND", client.executions.Execute,
                          request("sbx-none", COUNT, request_id=same))
        self.assert_fails(grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_LANGUAGE", client.executions.Execute,
                          request(one, COUNT, language="cobol", request_id=same))
        self.assertEqual(execute(client, one, COUNT, request_id=same).outcome, "OK")
        self.assertEqual(counted(client, one), 1)

    def test_what_is_not_retained_is_told_by_its_end(self):
        with daemons.Daemons(["--rings-retained-for", "0"]) as mine, stubs.Client(mine.target) as own:
            one = create(own).sandbox_id
            message = request(one, COUNT + "print(1)\nexit(3)", request_id=new_id())
            first = fold(own.executions.Execute(message, timeout=120))
            read = execution_service.GetExecutionRequest(execution_id=first.execution_id)
            daemons.wait_until(lambda: not own.executions.GetExecution(read, timeout=60).execution.first_sequence, "forgotten")
            again = fold(own.executions.Execute(message, timeout=120))
            self.assertEqual(kinds(again), ["queued", "gap", "ended"])
            self.assertEqual((again.execution_id, again.sandbox_id, again.context_id),
                             (first.execution_id, first.sandbox_id, first.context_id))
            self.assertEqual((again.ended, again.sequence), (first.ended, first.sequence))
            self.assertEqual((again.gaps[0].events, again.gaps[0].stdout_bytes), (first.sequence - 2, 2))
            self.assertEqual(counted(own, one), 1)

    def test_an_interrupt_is_answered_again_after_the_end(self):
        one = self.sandbox()
        stream = client.executions.Execute(request(one, "print(1, flush=True)\nimport time; time.sleep(60)"), timeout=120)
        run = fold_until(stream, lambda r: r.stdout)
        message = execution_service.InterruptExecutionRequest(execution_id=run.execution_id, request_id=new_id())
        client.executions.InterruptExecution(message, timeout=60)
        self.assertEqual(fold(stream, run).outcome, "INTERRUPTED")
        again = client.executions.InterruptExecution(message, timeout=60).execution
        self.assertEqual((again.execution_id, again.ended.outcome), (run.execution_id, run.ended.outcome))
        message.request_id = new_id()
        self.assert_fails(grpc.StatusCode.FAILED_PRECONDITION, "EXECUTION_ENDED", client.executions.InterruptExecution, message)


class Sandboxes(Case):
    def test_a_retried_creation_shows_its_sandbox_as_it_is_now(self):
        message = sandbox_service.CreateSandboxRequest(spec=spec(name="retried"), request_id=new_id())
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: client.sandboxes.CreateSandbox(message, timeout=60), range(8)))
        one = answers[0].sandbox.sandbox_id
        self.assertEqual({(a.sandbox.sandbox_id, a.created) for a in answers}, {(one, True)})
        self.assert_fails(grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED", client.sandboxes.CreateSandbox,
                          sandbox_service.CreateSandboxRequest(spec=spec(name="other"), request_id=message.request_id))
        delete(client, one)
        again = client.sandboxes.CreateSandbox(message, timeout=60)
        self.assertEqual((again.sandbox.sandbox_id, again.sandbox.state, again.created), (one, ENDED, True))

    def test_what_get_or_create_found_is_found_again(self):
        one = self.sandbox(name="found")
        message = sandbox_service.CreateSandboxRequest(spec=spec(name="found"), get_or_create=True, request_id=new_id())
        answer = client.sandboxes.CreateSandbox(message, timeout=60)
        self.assertEqual((answer.sandbox.sandbox_id, answer.created), (one, False))
        delete(client, one)
        again = client.sandboxes.CreateSandbox(message, timeout=60)
        self.assertEqual((again.sandbox.sandbox_id, again.sandbox.state, again.created), (one, ENDED, False))

    def test_a_retried_update_changes_nothing_back(self):
        one = self.sandbox()
        update = sandbox_service.UpdateSandboxRequest(sandbox_id=one, update_mask={"paths": ["labels"]}, labels={"a": "1"},
                                                      request_id=new_id())
        client.sandboxes.UpdateSandbox(update, timeout=60)
        client.sandboxes.UpdateSandbox(sandbox_service.UpdateSandboxRequest(
            sandbox_id=one, update_mask={"paths": ["labels"]}, labels={"a": "2"}), timeout=60)
        again = client.sandboxes.UpdateSandbox(update, timeout=60).sandbox
        self.assertEqual(dict(again.labels), {"a": "2"})
        self.assertEqual(dict(get(client, one).labels), {"a": "2"})

    def test_a_delete_is_remembered_for_its_sandbox(self):
        one, other = self.sandbox(), self.sandbox()
        message = sandbox_service.DeleteSandboxRequest(sandbox_id=one, request_id=new_id())
        for _ in range(2):
            self.assertEqual(client.sandboxes.DeleteSandbox(message, timeout=60).sandbox.state, ENDED)
        message.sandbox_id = other
        self.assert_fails(grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED", client.sandboxes.DeleteSandbox, message)
        self.assertNotEqual(get(client, other).state, ENDED)


class Contexts(Case):
    def test_a_retried_creation_is_one_context(self):
        one = self.sandbox()
        message = execution_service.CreateContextRequest(sandbox_id=one, request_id=new_id())
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: client.executions.CreateContext(message, timeout=60), range(4)))
        self.assertEqual(len({answer.context.context_id for answer in answers}), 1)
        listed = client.executions.ListContexts(execution_service.ListContextsRequest(sandbox_id=one), timeout=60)
        self.assertEqual(len(listed.contexts), 1)

    def test_a_retried_restart_keeps_what_came_after_the_first(self):
        one = self.sandbox()
        run = execute(client, one, "x = 1")
        message = execution_service.RestartContextRequest(sandbox_id=one, context_id=run.context_id, request_id=new_id())
        self.assertEqual(client.executions.RestartContext(message, timeout=60).context.generation, 2)
        execute(client, one, "x = 41")
        self.assertEqual(client.executions.RestartContext(message, timeout=60).context.generation, 2)
        self.assertEqual(execute(client, one, "x + 1").text, "42")

    def test_a_retried_delete_succeeds(self):
        one = self.sandbox()
        run = execute(client, one, "1")
        message = execution_service.DeleteContextRequest(sandbox_id=one, context_id=run.context_id, request_id=new_id())
        for _ in range(2):
            client.executions.DeleteContext(message, timeout=60)


class Kills(unittest.TestCase):
    """hotcelld is killed; what was asked for is asked again with the same id."""

    def setUp(self):
        self.mine = self.enterContext(daemons.Daemons())
        self.own = self.enterContext(stubs.Client(self.mine.target))

    def is_remembered(self, request_id):
        """Whether the row is committed: what was killed after that happened once."""
        with sqlite3.connect(f"file:{self.mine.state}/hotcell.db?mode=ro", uri=True) as database:
            return database.execute("SELECT object_id FROM requests WHERE request_id = ?", (request_id,)).fetchone()

    def test_between_the_commit_and_the_answer(self):
        one = create(self.own).sandbox_id
        execute(self.own, one, "1")
        message = request(one, COUNT, request_id=new_id(), on_disconnect=2)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answer = pool.submit(lambda: retry(lambda: fold(self.own.executions.Execute(message, timeout=120))))
            execution_id, = daemons.wait_until(lambda: self.is_remembered(message.request_id), "the row")
            kill(self.mine)
            run = answer.result()
        self.assertEqual(run.execution_id, execution_id)
        again = retry(lambda: fold(self.own.executions.Execute(message, timeout=120)))
        self.assertEqual((again.execution_id, again.outcome), (execution_id, run.outcome))
        self.assertLessEqual(retry(lambda: counted(self.own, one)), 1)

    def test_at_any_moment_of_an_execution(self):
        one = create(self.own).sandbox_id
        for _ in range(8):
            retry(lambda: execute(self.own, one, "import os\nif os.path.exists('/tmp/count'): os.unlink('/tmp/count')"))
            message = request(one, COUNT, request_id=new_id(), on_disconnect=2)
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                answer = pool.submit(lambda: retry(lambda: fold(self.own.executions.Execute(message, timeout=120))))
                time.sleep(random.uniform(0, 0.02))
                kill(self.mine)
                run = answer.result()
            daemons.wait_until(self.mine.is_ready, "ready again")
            n = retry(lambda: counted(self.own, one))
            self.assertEqual((run.outcome, n), ("OK", 1))

    def test_at_any_moment_of_a_creation(self):
        made = {}
        for i in range(6):
            message = sandbox_service.CreateSandboxRequest(spec=spec(memory=256 * scenario.MIB, name=f"box-{i}"), request_id=new_id())
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                answer = pool.submit(lambda: retry(lambda: self.own.sandboxes.CreateSandbox(message, timeout=60)))
                time.sleep(random.uniform(0, 0.03))
                kill(self.mine)
                made[f"box-{i}"] = answer.result().sandbox
            daemons.wait_until(self.mine.is_ready, "ready again")
            self.assertEqual(made[f"box-{i}"].state, sandbox.SANDBOX_STATE_RUNNING)
        listed = retry(lambda: self.own.sandboxes.ListSandboxes(sandbox_service.ListSandboxesRequest(), timeout=60))
        self.assertEqual({s.name: s.sandbox_id for s in listed.sandboxes}, {name: s.sandbox_id for name, s in made.items()})

    def test_under_the_commands(self):
        one = create(self.own, name="kept").sandbox_id
        for i in range(6):
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                made = pool.submit(daemons.hotcell, self.mine, "sandbox", "create", "--memory", "256M", "--name", f"cli-{i}")
                ran = pool.submit(daemons.hotcell, self.mine, "exec", "kept", "-c", f"open('/tmp/count-{i}', 'a').write('x')")
                time.sleep(random.uniform(0, 0.05))
                kill(self.mine)
                made, ran = made.result(), ran.result()
            self.assertEqual((made.returncode, made.stderr), (0, b""))
            daemons.wait_until(self.mine.is_ready, "ready again")
            self.assertEqual(retry(lambda: get(self.own, made.stdout.decode().strip())).name, f"cli-{i}")
            n = retry(lambda: execute(self.own, one, f"import os; os.path.exists('/tmp/count-{i}') and os.path.getsize('/tmp/count-{i}') or 0"))
            self.assertEqual((ran.returncode, n.text), (0, "1"), ran.stderr)
        listed = retry(lambda: self.own.sandboxes.ListSandboxes(sandbox_service.ListSandboxesRequest(), timeout=60))
        self.assertEqual({s.name for s in listed.sandboxes}, {"kept", *(f"cli-{i}" for i in range(6))})


if __name__ == "__main__":
    unittest.main()
