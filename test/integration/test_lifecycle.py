"""The life of sandboxes, contexts and the daemons: lists, watches, lifetimes, restarts."""

import os
import pathlib
import signal
import threading
import unittest

import grpc

import daemons
import scenario
import stubs
from scenario import attach, create, delete, execute, fold, fold_until, get, request
from stubs import execution_service, sandbox, sandbox_service

RUNNING, ENDED = sandbox.SANDBOX_STATE_RUNNING, sandbox.SANDBOX_STATE_ENDED


def setUpModule():
    global running, client
    running = unittest.enterModuleContext(daemons.Daemons())
    client = unittest.enterModuleContext(stubs.Client(running.target))


def listed(**fields):
    return client.sandboxes.ListSandboxes(sandbox_service.ListSandboxesRequest(**fields), timeout=60)


def ids(answer):
    return [s.sandbox_id for s in answer.sandboxes]


class Case(unittest.TestCase):
    def sandbox(self, **fields):
        made = create(client, **fields)
        self.addCleanup(delete, client, made.sandbox_id)
        return made


class Lists(Case):
    def test_pages_go_from_the_newest_to_the_oldest_without_holes(self):
        made = [self.sandbox(labels={"page": "yes"}).sandbox_id for _ in range(5)]
        seen, token = [], ""
        while True:
            answer = listed(labels={"page": "yes"}, page_size=2, page_token=token)
            seen += ids(answer)
            token = answer.next_page_token
            if not token:
                break
        self.assertEqual(seen, made[::-1])

    def test_filters_and_hidden_ended_ones(self):
        one = self.sandbox(name="filter-me", labels={"a": "1", "b": "2"}).sandbox_id
        self.sandbox(labels={"a": "1"})
        self.assertEqual(ids(listed(labels={"a": "1", "b": "2"})), [one])
        self.assertEqual(ids(listed(name="filter-me")), [one])
        delete(client, one)
        self.assertEqual(ids(listed(name="filter-me")), [])
        self.assertEqual(ids(listed(name="filter-me", states=[ENDED])), [one])

    def test_a_token_of_another_filter_is_refused(self):
        for _ in range(2):
            self.sandbox(labels={"token": "x"})
        token = listed(labels={"token": "x"}, page_size=1).next_page_token
        self.assertTrue(token)
        error = scenario.error_of(client.sandboxes.ListSandboxes, sandbox_service.ListSandboxesRequest(page_token=token))
        self.assertEqual(stubs.reason(error), "INVALID_PAGE_TOKEN")

    def test_executions_are_listed_with_how_they_ended(self):
        one = self.sandbox().sandbox_id
        execute(client, one, "1")
        execute(client, one, "1/0")
        answer = client.executions.ListExecutions(execution_service.ListExecutionsRequest(sandbox_id=one), timeout=60)
        self.assertEqual([e.ended.outcome for e in answer.executions], [2, 1])


class Etags(Case):
    def update(self, sandbox_id, etag, labels):
        message = sandbox_service.UpdateSandboxRequest(sandbox_id=sandbox_id, etag=etag, update_mask={"paths": ["labels"]}, labels=labels)
        return client.sandboxes.UpdateSandbox, message

    def assert_conflict(self, call, message):
        error = scenario.error_of(call, message)
        self.assertEqual((error.code(), stubs.reason(error)), (grpc.StatusCode.ABORTED, "CONFLICT"))

    def test_a_change_of_what_was_changed_meanwhile_is_refused(self):
        made = self.sandbox(labels={"z": "1", "a": "2"})
        self.assertEqual(listed(labels={"z": "1"}).sandboxes[0].etag, made.etag)
        call, message = self.update(made.sandbox_id, made.etag, {"a": "3"})
        changed = call(message, timeout=60).sandbox
        self.assertNotEqual(changed.etag, made.etag)
        self.assert_conflict(*self.update(made.sandbox_id, made.etag, {"a": "4"}))
        message = sandbox_service.DeleteSandboxRequest(sandbox_id=made.sandbox_id, etag=made.etag)
        self.assert_conflict(client.sandboxes.DeleteSandbox, message)
        self.assertEqual(dict(get(client, made.sandbox_id).labels), {"a": "3"})
        message.etag = changed.etag
        self.assertEqual(client.sandboxes.DeleteSandbox(message, timeout=60).sandbox.etag, changed.etag)


class Watches(Case):
    def watch(self, **fields):
        stream = client.sandboxes.WatchSandboxes(sandbox_service.WatchSandboxesRequest(**fields), timeout=120)
        self.addCleanup(stream.cancel)
        return stream

    def next_events(self, stream, n):
        events = []
        while len(events) < n:
            events += next(stream).events
        return events

    def test_a_watch_from_a_list_sees_everything_and_resumes(self):
        token = listed().watch_token
        made = create(client, labels={"watched": "yes"})
        stream = self.watch(watch_token=token, sandbox_id=made.sandbox_id)
        events = self.next_events(stream, 2)
        self.assertEqual([e.type for e in events], [1, 2])
        self.assertEqual(events[1].sandbox.labels["watched"], "yes")
        stream.cancel()
        update = sandbox_service.UpdateSandboxRequest(sandbox_id=made.sandbox_id, update_mask={"paths": ["labels"]},
                                                      labels={"watched": "no"})
        client.sandboxes.UpdateSandbox(update, timeout=60)
        delete(client, made.sandbox_id)
        resumed = self.watch(watch_token=events[-1].watch_token, sandbox_id=made.sandbox_id)
        later = self.next_events(resumed, 2)
        self.assertEqual([e.type for e in later], [3, 4])
        self.assertEqual((later[0].sandbox.labels["watched"], later[1].sandbox.end_cause), ("no", 3))

    def test_a_live_watch_is_told_as_it_happens(self):
        stream = self.watch(watch_token=listed().watch_token)
        made = self.sandbox()
        events = self.next_events(stream, 2)
        self.assertEqual({e.sandbox.sandbox_id for e in events}, {made.sandbox_id})


class Lifetimes(Case):
    def wait_ended(self, sandbox_id, cause):
        ended = daemons.wait_until(lambda: (s := get(client, sandbox_id)).state == ENDED and s, "the end")
        self.assertEqual(ended.end_cause, cause)
        self.assertGreater(ended.end_time.ToMicroseconds(), ended.create_time.ToMicroseconds())

    def test_a_lifetime_ends_the_sandbox_and_what_runs_in_it(self):
        message = scenario.spec()
        message.ttl.seconds = 3
        made = client.sandboxes.CreateSandbox(sandbox_service.CreateSandboxRequest(spec=message), timeout=60).sandbox
        run = execute(client, made.sandbox_id, "import time; time.sleep(60)")
        self.assertEqual((run.outcome, run.cause), ("SANDBOX_ENDED", "TTL"))
        self.wait_ended(made.sandbox_id, 7)

    def test_an_idle_sandbox_ends_but_not_while_code_runs(self):
        message = scenario.spec()
        message.idle_timeout.seconds = 1
        made = client.sandboxes.CreateSandbox(sandbox_service.CreateSandboxRequest(spec=message), timeout=60).sandbox
        self.assertEqual(execute(client, made.sandbox_id, "import time; time.sleep(2.5); 5").text, "5")
        self.wait_ended(made.sandbox_id, 8)

    def test_only_an_update_changes_the_lifetime(self):
        made = self.sandbox()
        execute(client, made.sandbox_id, "1")
        self.assertEqual(get(client, made.sandbox_id).expire_time, made.expire_time)
        message = sandbox_service.UpdateSandboxRequest(sandbox_id=made.sandbox_id, update_mask={"paths": ["ttl"]})
        message.ttl.seconds = 30
        changed = client.sandboxes.UpdateSandbox(message, timeout=60).sandbox
        self.assertLess(changed.expire_time.seconds, made.expire_time.seconds)

    def test_a_sandbox_holds_the_lock_of_its_template_until_it_ends(self):
        """So that hotcell-template removes none that is in use."""
        root = os.stat(os.path.join(os.environ.get("HOTCELL_STORE", "/var/lib/hotcell/templates"), "by-name/python/root")).st_ino

        def held():
            locks = [line.split() for line in pathlib.Path("/proc/locks").read_text().splitlines()]
            return sum(words[1:5] == ["FLOCK", "ADVISORY", "READ", str(running.process.pid)] and words[5].endswith(f":{root}")
                       for words in locks)

        before = held()
        one, two = (self.sandbox().sandbox_id for _ in range(2))
        self.assertEqual(held(), before + 2)
        delete(client, one)
        self.assertEqual(held(), before + 1)
        delete(client, two)
        self.assertEqual(held(), before)

    def test_usage_is_seen_from_outside(self):
        made = self.sandbox()
        execute(client, made.sandbox_id, "open('f', 'wb').write(bytes(8 << 20)); sum(range(3_000_000))")
        usage = get(client, made.sandbox_id).usage
        self.assertGreater(usage.cpu_time.ToMicroseconds(), 10_000)
        self.assertGreaterEqual(usage.disk_bytes, 8 << 20)
        self.assertGreater(usage.memory_bytes, 8 << 20)
        self.assertGreaterEqual(usage.memory_peak_bytes, usage.disk_bytes)
        self.assertGreaterEqual(usage.processes, 2)

    def test_usage_is_absent_where_nobody_measures(self):
        token = listed().watch_token
        made = self.sandbox(labels={"usage": "yes"})
        execute(client, made.sandbox_id, "1")
        self.assertTrue(get(client, made.sandbox_id).HasField("usage"))
        update = sandbox_service.UpdateSandboxRequest(sandbox_id=made.sandbox_id, update_mask={"paths": ["ttl"]})
        update.ttl.seconds = 60
        living = [made, client.sandboxes.UpdateSandbox(update, timeout=60).sandbox, *listed(labels={"usage": "yes"}).sandboxes]
        self.assertEqual([one.HasField("usage") for one in living], [False] * 3)
        delete(client, made.sandbox_id)
        ended, = listed(labels={"usage": "yes"}, states=[ENDED]).sandboxes
        self.assertGreater(ended.usage.cpu_time.ToMicroseconds(), 10_000)
        self.assertEqual(ended.usage, get(client, made.sandbox_id).usage)
        stream = client.sandboxes.WatchSandboxes(
            sandbox_service.WatchSandboxesRequest(watch_token=token, sandbox_id=made.sandbox_id), timeout=120)
        self.addCleanup(stream.cancel)
        events = []
        while len(events) < 4:
            events += next(stream).events
        self.assertEqual([event.sandbox.HasField("usage") for event in events], [False, False, False, True])


class Contexts(Case):
    def test_a_restart_raises_the_generation_and_forgets(self):
        one = self.sandbox().sandbox_id
        run = execute(client, one, "x = 1")
        message = execution_service.RestartContextRequest(sandbox_id=one, context_id=run.context_id)
        context = client.executions.RestartContext(message, timeout=60).context
        self.assertEqual(context.generation, 2)
        self.assertEqual(execute(client, one, "x").error.name, "NameError")

    def test_deleting_a_context_ends_what_runs_in_it_and_repeats(self):
        one = self.sandbox().sandbox_id
        stream = client.executions.Execute(request(one, "print(1, flush=True)\nimport time; time.sleep(60)"), timeout=120)
        run = fold_until(stream, lambda r: r.stdout)
        message = execution_service.DeleteContextRequest(sandbox_id=one, context_id=run.context_id)
        for _ in range(2):
            client.executions.DeleteContext(message, timeout=60)
        self.assertEqual(fold(stream, run).outcome, "KILLED")
        answer = client.executions.ListContexts(execution_service.ListContextsRequest(sandbox_id=one), timeout=60)
        self.assertEqual(list(answer.contexts), [])

    def test_a_working_directory_is_where_code_starts(self):
        one = self.sandbox().sandbox_id
        message = execution_service.CreateContextRequest(sandbox_id=one, working_directory="/tmp")
        context = client.executions.CreateContext(message, timeout=60).context
        self.assertEqual(execute(client, one, "import os; os.getcwd()", context_id=context.context_id).text, "'/tmp'")


class Daemons(unittest.TestCase):
    """Each with daemons of its own."""

    def test_what_runs_survives_a_killed_hotcelld(self):
        with daemons.Daemons() as mine, stubs.Client(mine.target) as own:
            made = create(own, name="survivor").sandbox_id
            execute(own, made, "open('kept', 'w').write('yes'); x = 41")
            code = "import os, time\nprint(1, flush=True)\nwhile not os.path.exists('go'): time.sleep(0.01)\nprint(2)\nx + 1"
            stream = own.executions.Execute(request(made, code), timeout=120)
            run = fold_until(stream, lambda r: r.stdout)
            os.kill(mine.server_pid(), signal.SIGKILL)
            with self.assertRaises(grpc.RpcError):
                fold(stream, run)
            daemons.wait_until(mine.is_ready, "ready again")
            beside = own.executions.CreateContext(execution_service.CreateContextRequest(sandbox_id=made), timeout=60).context.context_id
            execute(own, made, "open('go', 'w');", context_id=beside)
            attach(own, run.execution_id, run.sequence, run)
            self.assertEqual((run.outcome, run.stdout, run.text), ("OK", b"1\n2\n", "42"))
            again = execute(own, made, "open('kept').read(), x")
            self.assertEqual((again.outcome, again.text), ("OK", "('yes', 41)"))
            self.assertEqual(again.started.context_generation, 1)
            delete(own, made)

    def test_a_stop_ends_sandboxes_and_streams_with_their_cause(self):
        with daemons.Daemons() as mine, stubs.Client(mine.target) as own:
            made = create(own).sandbox_id
            stream = own.executions.Execute(request(made, "print(1, flush=True)\nimport time; time.sleep(60)"), timeout=120)
            run = fold_until(stream, lambda r: r.stdout)
            thread = threading.Thread(target=mine.stop)
            thread.start()
            try:
                run = fold(stream, run)
                self.assertEqual((run.outcome, run.cause), ("SANDBOX_ENDED", "SHUTDOWN"))
            except grpc.RpcError as error:
                self.assertEqual((error.code(), stubs.reason(error)), (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN"))
            thread.join()
            mine.start()
            ended = own.sandboxes.GetSandbox(sandbox_service.GetSandboxRequest(sandbox_id=made), timeout=60,
                                             wait_for_ready=True).sandbox
            self.assertEqual((ended.state, ended.end_cause), (ENDED, 11))


if __name__ == "__main__":
    unittest.main()
