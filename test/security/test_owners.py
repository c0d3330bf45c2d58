"""Two keys and the operator: what is another's is as if it were not there, for every method that the server has; a key that is over lets
nobody in, and what was open with it ends. A method without a row in METHODS fails the first test."""

import itertools
import json
import re
import secrets
import tempfile
import time
import types
import unittest

import daemons
import grpc
import scenario
import stubs
from google.protobuf import descriptor_pb2, duration_pb2, timestamp_pb2
from stubs import egress_service as egress, execution, execution_service as executions, key_service as keys, sandbox_service as sandboxes
from stubs import server_service as server, usage_service as usage

OWN = object()  # no ids of others; test_lists_and_watches… or another test looks at it
OPERATOR = object()  # of keys: for the operator only
OPEN = object()  # for everybody, without a key: nothing of any owner is in it
MISSING_TEMPLATE = sandboxes.CreateSandboxRequest(spec=scenario.spec(template="none"))


def update(i):
    message = sandboxes.UpdateSandboxRequest(sandbox_id=i.sandbox, labels={"mark": "foreign"})
    message.update_mask.paths.append("labels")
    return message


# What each method is asked, with the ids of a sandbox, a context and an execution.
METHODS = {
    "hotcell.v1.SandboxService/CreateSandbox": OWN,
    "hotcell.v1.SandboxService/GetSandbox": lambda i: sandboxes.GetSandboxRequest(sandbox_id=i.sandbox),
    "hotcell.v1.SandboxService/ListSandboxes": OWN,
    "hotcell.v1.SandboxService/UpdateSandbox": update,
    "hotcell.v1.SandboxService/DeleteSandbox": lambda i: sandboxes.DeleteSandboxRequest(sandbox_id=i.sandbox),
    "hotcell.v1.SandboxService/WatchSandboxes": lambda i: sandboxes.WatchSandboxesRequest(sandbox_id=i.sandbox),
    "hotcell.v1.ExecutionService/CreateContext": lambda i: executions.CreateContextRequest(sandbox_id=i.sandbox),
    "hotcell.v1.ExecutionService/ListContexts": lambda i: executions.ListContextsRequest(sandbox_id=i.sandbox),
    "hotcell.v1.ExecutionService/RestartContext": lambda i: executions.RestartContextRequest(sandbox_id=i.sandbox, context_id=i.context),
    "hotcell.v1.ExecutionService/DeleteContext": lambda i: executions.DeleteContextRequest(sandbox_id=i.sandbox, context_id=i.context),
    "hotcell.v1.ExecutionService/Execute": lambda i: scenario.request(i.sandbox, "x = 'foreign'", context_id=i.context),
    "hotcell.v1.ExecutionService/AttachExecution": lambda i: executions.AttachExecutionRequest(execution_id=i.execution),
    "hotcell.v1.ExecutionService/InterruptExecution": lambda i: executions.InterruptExecutionRequest(execution_id=i.execution, level=2),
    "hotcell.v1.ExecutionService/GetExecution": lambda i: executions.GetExecutionRequest(execution_id=i.execution),
    "hotcell.v1.ExecutionService/ListExecutions": lambda i: executions.ListExecutionsRequest(sandbox_id=i.sandbox, context_id=i.context),
    "hotcell.v1.EgressService/ListEgressEvents": lambda i: egress.ListEgressEventsRequest(sandbox_id=i.sandbox, execution_id=i.execution),
    "hotcell.v1.UsageService/GetUsage": OWN,
    "hotcell.v1.UsageService/WatchUsage": lambda i: usage.WatchUsageRequest(sandbox_id=i.sandbox),
    "hotcell.v1.ServerService/GetServerInfo": OWN,
    "hotcell.v1.KeyService/CreateKey": OPERATOR,
    "hotcell.v1.KeyService/ListKeys": OPERATOR,
    "hotcell.v1.KeyService/RevokeKey": OPERATOR,
    "hotcell.v1.KeyService/UpdateKey": OPERATOR,
    "grpc.health.v1.Health/Check": OPEN,
    "grpc.health.v1.Health/Watch": OPEN,
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo": OPEN,
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": OPEN,
}

# Lists with a filter: what is not there is not in them.
EMPTY = {"hotcell.v1.ExecutionService/ListExecutions"}

# Those of OWN and OPERATOR, as questions that change nothing.
HARMLESS = {
    "hotcell.v1.SandboxService/CreateSandbox": MISSING_TEMPLATE,
    "hotcell.v1.SandboxService/ListSandboxes": sandboxes.ListSandboxesRequest(),
    "hotcell.v1.ServerService/GetServerInfo": server.GetServerInfoRequest(),
    "hotcell.v1.UsageService/GetUsage": usage.GetUsageRequest(),
    "hotcell.v1.KeyService/CreateKey": keys.CreateKeyRequest(name="UPPER CASE"),
    "hotcell.v1.KeyService/ListKeys": keys.ListKeysRequest(),
    "hotcell.v1.KeyService/RevokeKey": keys.RevokeKeyRequest(key_id="key-none"),
    "hotcell.v1.KeyService/UpdateKey": keys.UpdateKeyRequest(key_id="key-none", update_mask={"paths": ["quotas"]}),
}

# Streams of what is there: reading, although they cannot be marked as NO_SIDE_EFFECTS.
READING = {"hotcell.v1.SandboxService/WatchSandboxes", "hotcell.v1.ExecutionService/AttachExecution",
           "hotcell.v1.UsageService/WatchUsage"}


def described():
    """Every method of the server, by full name, from the descriptors that it is built with and serves by reflection."""
    packed = (daemons.build_folder() / "proto/api.fds").read_bytes()
    files = descriptor_pb2.FileDescriptorSet.FromString(packed).file
    return {f"{file.package}.{service.name}/{method.name}": (file, method)
            for file in files for service in file.service for method in service.method}


class Actor:
    """Somebody who calls: a key over TCP, or the operator over the unix socket."""

    def __init__(self, target, secret=None):
        self.client = stubs.Client(target)
        self.metadata = [("authorization", f"Bearer {secret}")] if secret else []

    def call(self, method, message, timeout=60):
        service, name = method.split("/")
        stub = {"SandboxService": self.client.sandboxes, "ExecutionService": self.client.executions,
                "ServerService": self.client.server, "KeyService": self.client.keys, "EgressService": self.client.egress,
                "UsageService": self.client.usage}[service.rsplit(".", 1)[1]]
        return getattr(stub, name)(message, metadata=self.metadata, timeout=timeout)

    def create(self, **fields):
        message = sandboxes.CreateSandboxRequest(spec=scenario.spec(**fields))
        return self.call("hotcell.v1.SandboxService/CreateSandbox", message).sandbox.sandbox_id

    def execute(self, sandbox_id, code, **fields):
        return self.call("hotcell.v1.ExecutionService/Execute", scenario.request(sandbox_id, code, **fields), timeout=120)

    def attach(self, execution_id):
        message = executions.AttachExecutionRequest(execution_id=execution_id)
        return scenario.fold(self.call("hotcell.v1.ExecutionService/AttachExecution", message, timeout=120))

    def watch(self, **fields):
        return self.call("hotcell.v1.SandboxService/WatchSandboxes", sandboxes.WatchSandboxesRequest(**fields), timeout=120)

    def delete(self, sandbox_id):
        return self.call("hotcell.v1.SandboxService/DeleteSandbox", sandboxes.DeleteSandboxRequest(sandbox_id=sandbox_id)).sandbox

    def get(self, sandbox_id):
        return self.call("hotcell.v1.SandboxService/GetSandbox", sandboxes.GetSandboxRequest(sandbox_id=sandbox_id)).sandbox


def make_key(name, **fields):
    """A key and who shows it."""
    message = keys.CreateKeyRequest(name=name, **{k: v for k, v in fields.items() if k != "ttl"})
    if "ttl" in fields:
        message.ttl.FromMilliseconds(int(fields["ttl"] * 1000))
    made = operator.call("hotcell.v1.KeyService/CreateKey", message)
    return made.key, Actor(tcp, made.secret)


def revoke(key, **fields):
    return operator.call("hotcell.v1.KeyService/RevokeKey", keys.RevokeKeyRequest(key_id=key.key_id, **fields))


def ids_of(actor, run):
    return types.SimpleNamespace(sandbox=run.sandbox_id, context=run.context_id, execution=run.execution_id, actor=actor)


def setUpModule():
    global running, operator, tcp, actors, living, ended
    running = unittest.enterModuleContext(daemons.Daemons(["--tcp", "127.0.0.1:0"]))
    port = daemons.wait_until(lambda: re.search(r"listening address=127\.0\.0\.1.*port=(\d+)", running.log()), "its port").group(1)
    tcp = f"127.0.0.1:{port}"
    operator = Actor(running.target)
    actors = {"a": make_key("owner-a")[1], "b": make_key("owner-b")[1], "operator": operator}
    living, ended = {}, {}
    for name, actor in actors.items():
        sandbox = actor.create(name="same-name", labels={"mark": name})
        living[name] = ids_of(actor, scenario.fold(actor.execute(sandbox, f"x = {name!r}")))
        gone = actor.create()
        ended[name] = ids_of(actor, scenario.fold(actor.execute(gone, "1")))
        actor.delete(gone)


def tearDownModule():
    for ids in living.values():
        ids.actor.delete(ids.sandbox)


def fake(prefix):
    return prefix + "-" + "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(26))


def never():
    """Ids that no server has given."""
    return types.SimpleNamespace(sandbox=fake("sbx"), context=fake("ctx"), execution=fake("exe"))


def outcome(actor, method, message, ids):
    """All that the caller learns, with placeholders for the ids: code, message, details; or the answer."""
    def masked(data):
        for name in ("sandbox", "context", "execution"):
            data = data.replace(getattr(ids, name).encode(), f"<{name}>".encode())
        return data
    try:
        answer = actor.call(method, message, timeout=30)
        if hasattr(answer, "__iter__") and not hasattr(answer, "DESCRIPTOR"):
            answer = list(answer)[0]
        return "OK", masked(answer.SerializeToString())
    except grpc.RpcError as error:
        details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
        return error.code().name, masked(error.details().encode()), masked(stubs.status_pb2.Status.FromString(details).details[0].value)


class Matrix(unittest.TestCase):
    def test_every_method_has_its_row(self):
        found = described()
        self.assertGreater(len(found), 20)
        self.assertEqual(set(METHODS), set(found))
        self.assertEqual(set(HARMLESS), {name for name, row in METHODS.items() if row in (OWN, OPERATOR)})

    def test_every_row_asks_with_every_id_that_its_method_takes(self):
        for name, (file, method) in described().items():
            if callable(METHODS[name]):
                request = next(m for m in file.message_type if m.name == method.input_type.rsplit(".", 1)[1])
                wanted = {field.name for field in request.field if field.name.endswith("_id")} - {"request_id"}
                asked = {field.name for field, _ in METHODS[name](living["a"]).ListFields()}
                self.assertEqual(wanted - asked, set(), name)
                self.assertTrue(wanted, name)

    def test_what_is_anothers_is_as_if_it_were_not_there(self):
        n = 0
        for (me, other), (method, row) in itertools.product(itertools.permutations(actors, 2), METHODS.items()):
            if not callable(row):
                continue
            for theirs in (living[other], ended[other]):
                for foreign, none in self.mixtures(living[me], theirs, row):
                    with self.subTest(method, caller=me, owner=other):
                        seen = outcome(actors[me], method, row(foreign), foreign)
                        self.assertEqual(seen, outcome(actors[me], method, row(none), none))
                        self.assertEqual(seen[:2] if method in EMPTY else seen[0], ("OK", b"") if method in EMPTY else "NOT_FOUND")
                        n += 1
        self.assertGreater(n, 6 * 2 * 13)
        print(f"# {n} calls with ids of others")
        for name, ids in living.items():
            self.assertEqual(dict(ids.actor.get(ids.sandbox).labels), {"mark": name})
            self.assertEqual(scenario.fold(ids.actor.execute(ids.sandbox, "x")).text, repr(name))

    @staticmethod
    def mixtures(mine, theirs, row):
        """Ids of which some are theirs and the others mine, and the same with ids that nobody has: no pair twice."""
        seen = set()
        for size in (1, 2, 3):
            for chosen in itertools.combinations(("sandbox", "context", "execution"), size):
                names = {"sandbox": mine.sandbox, "context": mine.context, "execution": mine.execution}
                foreign = types.SimpleNamespace(**names | {name: getattr(theirs, name) for name in chosen})
                none = types.SimpleNamespace(**names | {name: getattr(never(), name) for name in chosen})
                request = row(foreign).SerializeToString()
                if request not in seen and request != row(mine).SerializeToString():
                    seen.add(request)
                    yield foreign, none

    def test_keys_cannot_manage_keys(self):
        for name in ("a", "b"):
            for method, row in METHODS.items():
                if row is OPERATOR:
                    with self.subTest(method, caller=name), self.assertRaises(grpc.RpcError) as caught:
                        actors[name].call(method, HARMLESS[method])
                    self.assertEqual((caught.exception.code().name, stubs.reason(caught.exception)), ("PERMISSION_DENIED", "OPERATOR_ONLY"))

    def test_lists_and_watches_show_only_ones_own(self):
        every_state = sandboxes.ListSandboxesRequest(states=[1, 2, 3, 4], page_size=1000)
        tokens = {}
        for name, actor in actors.items():
            with self.subTest(name):
                listed = actor.call("hotcell.v1.SandboxService/ListSandboxes", every_state)
                tokens[name] = listed.watch_token
                mine = {living[name].sandbox, ended[name].sandbox}
                theirs = {ids.sandbox for other in actors if other != name for ids in (living[other], ended[other])}
                shown = {each.sandbox_id for each in listed.sandboxes}
                self.assertLessEqual(mine, shown)
                self.assertFalse(theirs & shown)
                listed = actor.call("hotcell.v1.ExecutionService/ListExecutions", executions.ListExecutionsRequest(page_size=1000))
                self.assertFalse({each.sandbox_id for each in listed.executions} & theirs)
                self.assertIn(living[name].execution, {each.execution_id for each in listed.executions})
                info = actor.call("hotcell.v1.ServerService/GetServerInfo", server.GetServerInfoRequest()).SerializeToString()
                self.assertFalse([each for each in theirs if each.encode() in info])
        # The own event comes last, so those of the others had their chance before.
        for name, actor in actors.items():
            with self.subTest(name):
                streams = [actor.watch(watch_token=token) for token in tokens.values()]
                others = {self.come_and_go(other) for label, other in actors.items() if label != name}
                mine = self.come_and_go(actor)
                for stream in streams:
                    seen = self.seen_until_end_of(stream, mine)
                    self.assertIn(mine, seen)
                    self.assertFalse(seen & others)

    def test_the_ledger_is_everybodys_own_and_the_operators(self):
        method = "hotcell.v1.UsageService/GetUsage"
        questions = (lambda i: usage.GetUsageRequest(sandbox_id=i.sandbox), lambda i: usage.GetUsageRequest(execution_id=i.execution),
                     lambda i: usage.GetUsageRequest(sandbox_id=i.sandbox, execution_id=i.execution, destinations=True))
        for name, actor in actors.items():
            mine = actor.call(method, usage.GetUsageRequest(page_size=1000))
            self.assertIn(ended[name].sandbox, {record.sandbox_id for record in mine.records})
            if name != "operator":
                self.assertEqual(len({record.owner for record in mine.records}), 1)
            for other in set(actors) - {name}:
                for ids, question in itertools.product((living[other], ended[other]), questions):
                    if name == "operator":
                        self.assertTrue(actor.call(method, question(ids)).records)
                        continue
                    nothing = never()
                    answer = outcome(actor, method, question(ids), ids)
                    self.assertEqual(answer, outcome(actor, method, question(nothing), nothing))
                    self.assertEqual(answer[0], "NOT_FOUND")
                others = actors[other].call(method, usage.GetUsageRequest(sandbox_id=ended[other].sandbox)).records[0].owner
                if name == "operator":
                    found = actor.call(method, usage.GetUsageRequest(owner=others))
                    self.assertEqual({record.owner for record in found.records}, {others})
                    continue
                with self.assertRaises(grpc.RpcError) as caught:
                    actor.call(method, usage.GetUsageRequest(owner=others))
                self.assertEqual((caught.exception.code().name, stubs.reason(caught.exception)), ("PERMISSION_DENIED", "OPERATOR_ONLY"))

    @staticmethod
    def come_and_go(actor):
        sandbox = actor.create()
        actor.delete(sandbox)
        return sandbox

    @staticmethod
    def seen_until_end_of(stream, sandbox_id):
        seen = set()
        for response in stream:
            for event in response.events:
                seen.add(event.sandbox.sandbox_id)
                if event.sandbox.sandbox_id == sandbox_id and event.type == sandboxes.SANDBOX_EVENT_TYPE_ENDED:
                    stream.cancel()
                    return seen
        raise AssertionError("the watch ended")

    def test_names_of_others_are_free(self):
        found = {name: ids.actor.call("hotcell.v1.SandboxService/CreateSandbox", sandboxes.CreateSandboxRequest(
            spec=scenario.spec(name="same-name"), get_or_create=True)) for name, ids in living.items()}
        self.assertEqual({name: (each.sandbox.sandbox_id, each.created) for name, each in found.items()},
                         {name: (ids.sandbox, False) for name, ids in living.items()})


class Scopes(unittest.TestCase):
    NAMES = ("sandboxes:read", "sandboxes:write", "executions:read", "executions:write", "server:read", "usage:read")

    def test_a_new_key_has_all_that_keys_can_have(self):
        key, _ = make_key("all-scopes")
        self.addCleanup(revoke, key)
        self.assertEqual(tuple(key.scopes), self.NAMES)

    @classmethod
    def scope_of(cls, name, method):
        service = {"SandboxService": "sandboxes", "ExecutionService": "executions", "EgressService": "executions", "ServerService": "server",
                   "UsageService": "usage"}
        reads = method.options.idempotency_level == descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS or name in READING
        return f"{service[name.split('/')[0].rsplit('.', 1)[1]]}:{'read' if reads else 'write'}"

    def test_each_method_needs_its_scope_and_no_other(self):
        made = {scope: make_key(scope.replace(":", "-"), scopes=[scope]) for scope in self.NAMES}
        for key, _ in made.values():
            self.addCleanup(revoke, key)
        for name, (_, method) in described().items():
            if METHODS[name] in (OPEN, OPERATOR):
                continue
            needed = self.scope_of(name, method)
            message = HARMLESS.get(name) or METHODS[name](never())
            for scope, (_, actor) in made.items():
                with self.subTest(name, scope=scope):
                    error = self.error_of(actor, name, message)
                    if scope == needed:
                        self.assertNotEqual(error and error.code(), grpc.StatusCode.PERMISSION_DENIED)
                        continue
                    self.assertEqual((error.code().name, stubs.reason(error)), ("PERMISSION_DENIED", "SCOPE_MISSING"))
                    self.assertEqual(dict(stubs.error_details(error)["ErrorInfo"].metadata), {"scope": needed, "method": name})

    @staticmethod
    def error_of(actor, method, message):
        try:
            answer = actor.call(method, message)
            if hasattr(answer, "__iter__") and not hasattr(answer, "DESCRIPTOR"):
                list(answer)
        except grpc.RpcError as error:
            return error
        return None

    def test_an_unknown_scope_is_named_with_those_that_exist(self):
        for scopes in (["sandboxes:admin"], ["sandboxes:read", ""], ["OPERATOR"]):
            with self.assertRaises(grpc.RpcError) as caught:
                make_key("odd", scopes=scopes)
            self.assertEqual(stubs.reason(caught.exception), "INVALID_FIELD")
            violation = stubs.error_details(caught.exception)["BadRequest"].field_violations[0]
            self.assertEqual(violation.field, "scopes")
            for name in self.NAMES:
                self.assertIn(name, violation.description)


class Over(unittest.TestCase):
    """Keys that end while they are used. A second key of the same owner sees what becomes of it."""

    def pair(self, name, **fields):
        key, actor = make_key(name, **fields)
        heir_key, heir = make_key(name + "-heir", owner_key_id=key.key_id)
        self.addCleanup(revoke, heir_key)
        self.assertEqual(heir_key.owner, key.owner)
        return key, actor, heir

    def start(self, actor, code, **fields):
        """A sandbox in which code runs that has printed `on`, its stream and what was read of it."""
        sandbox = actor.create()
        stream = actor.execute(sandbox, code, **fields)
        run = scenario.fold_until(stream, lambda run: b"on" in run.stdout)
        return sandbox, stream, run

    def ends_with(self, stream, reason):
        with self.assertRaises(grpc.RpcError) as caught:
            for _ in stream:
                pass
        self.assertEqual((caught.exception.code().name, stubs.reason(caught.exception)), ("UNAUTHENTICATED", reason))

    def refused(self, actor, reason):
        with self.assertRaises(grpc.RpcError) as caught:
            actor.call("hotcell.v1.SandboxService/ListSandboxes", sandboxes.ListSandboxesRequest())
        self.assertEqual((caught.exception.code().name, stubs.reason(caught.exception)), ("UNAUTHENTICATED", reason))

    def grace(self, seconds):
        return {"disconnect_grace": duration_pb2.Duration(nanos=int(seconds * 1e9))}

    def test_revocation_ends_open_streams_as_a_disconnect(self):
        key, actor, heir = self.pair("leaver")
        bystander = actors["a"].watch()
        sandbox, stream, run = self.start(actor, "print('on', flush=True)\nimport time\ntime.sleep(300)", **self.grace(0))
        self.addCleanup(heir.delete, sandbox)
        kept, other_stream, other = self.start(actor, "print('on', flush=True)\nimport time\ntime.sleep(300)",
                                               on_disconnect=executions.ON_DISCONNECT_CONTINUE)
        self.addCleanup(heir.delete, kept)
        attached = actor.call("hotcell.v1.ExecutionService/AttachExecution",
                              executions.AttachExecutionRequest(execution_id=run.execution_id), timeout=120)
        next(attached)
        watches = [actor.watch(), actor.watch(sandbox_id=sandbox, watch_token=actor.call(
            "hotcell.v1.SandboxService/ListSandboxes", sandboxes.ListSandboxesRequest()).watch_token)]
        begin = time.monotonic()
        self.assertEqual(revoke(key).key.state, keys.KEY_STATE_REVOKED)
        for each in (stream, other_stream, attached, *watches):
            self.ends_with(each, "KEY_REVOKED")
        self.assertLess(time.monotonic() - begin, 10)
        self.refused(actor, "KEY_REVOKED")
        # What ran: as its request says for a client that left.
        ended_run = heir.attach(run.execution_id)
        self.assertEqual((ended_run.outcome, ended_run.cause), ("INTERRUPTED", "CLIENT_GONE"))
        message = executions.GetExecutionRequest(execution_id=other.execution_id)
        self.assertEqual(heir.call("hotcell.v1.ExecutionService/GetExecution", message).execution.state, execution.EXECUTION_STATE_RUNNING)
        self.assertEqual(heir.get(sandbox).state, stubs.sandbox.SANDBOX_STATE_RUNNING)
        # Others heard nothing of it.
        mine = Matrix.come_and_go(actors["a"])
        self.assertEqual(Matrix.seen_until_end_of(bystander, mine), {mine})

    def test_a_stream_that_nobody_reads_ends_too(self):
        key, actor, heir = self.pair("not-reading")
        sandbox = actor.create()
        self.addCleanup(heir.delete, sandbox)
        stream = actor.execute(sandbox, "while True: print('x' * 1000)", **self.grace(0))
        run = scenario.fold_until(stream, lambda run: len(run.stdout) > 1 << 20)
        revoke(key)
        self.refused(actor, "KEY_REVOKED")
        ended_run = heir.call("hotcell.v1.ExecutionService/AttachExecution",
                              executions.AttachExecutionRequest(execution_id=run.execution_id), timeout=120)
        last = [event for response in ended_run for event in response.events][-1].ended
        self.assertEqual((last.outcome, last.cause), (execution.OUTCOME_INTERRUPTED, execution.CAUSE_CLIENT_GONE))
        stream.cancel()

    def test_a_call_that_waits_ends_with_its_key(self):
        key, actor, heir = self.pair("waiting")
        sandbox, stream, run = self.start(actor, "print('on', flush=True)\nimport time\ntime.sleep(300)", **self.grace(0))
        self.addCleanup(heir.delete, sandbox)
        queued = actor.execute(sandbox, "1", context_id=run.context_id, **self.grace(0))
        waiting = scenario.fold_until(queued, lambda run: run.execution_id)
        revoke(key)
        self.ends_with(queued, "KEY_REVOKED")
        self.ends_with(stream, "KEY_REVOKED")
        self.assertEqual(heir.attach(waiting.execution_id).cause, "CLIENT_GONE")

    def test_a_leaked_key_can_be_revoked_with_all_its_sandboxes(self):
        key, actor, heir = self.pair("leaked")
        made = [actor.create(), actor.create()]
        answer = revoke(key, delete_sandboxes=True)
        self.assertEqual(answer.sandboxes_deleted, 2)
        for sandbox in made:
            gone = daemons.wait_until(lambda: (box := heir.get(sandbox)).state == stubs.sandbox.SANDBOX_STATE_ENDED and box, "its end")
            self.assertEqual(gone.end_cause, execution.CAUSE_OPERATOR)
        for ids in living.values():
            self.assertEqual(ids.actor.get(ids.sandbox).state, stubs.sandbox.SANDBOX_STATE_RUNNING)
        self.assertEqual(revoke(key, delete_sandboxes=True).sandboxes_deleted, 0)

    def test_an_expired_key_is_over_at_its_time_also_in_open_streams(self):
        begin = time.time()
        key, actor, heir = self.pair("short-lived", ttl=4)
        self.assertAlmostEqual(key.expire_time.ToNanoseconds() / 1e9, begin + 4, delta=3)
        sandbox, stream, run = self.start(actor, "print('on', flush=True)\nimport time\ntime.sleep(300)", **self.grace(0))
        self.addCleanup(heir.delete, sandbox)
        watch = actor.watch()
        self.ends_with(stream, "KEY_EXPIRED")
        self.assertGreaterEqual(time.time(), key.expire_time.ToNanoseconds() / 1e9)
        self.assertLess(time.time(), key.expire_time.ToNanoseconds() / 1e9 + 10)
        self.ends_with(watch, "KEY_EXPIRED")
        self.refused(actor, "KEY_EXPIRED")
        self.assertEqual(heir.attach(run.execution_id).cause, "CLIENT_GONE")
        listed = {each.key_id: each for each in operator.call("hotcell.v1.KeyService/ListKeys", keys.ListKeysRequest()).keys}
        self.assertEqual(listed[key.key_id].state, keys.KEY_STATE_EXPIRED)
        self.assertGreater(listed[key.key_id].last_used_time.seconds, begin - 120)

    def test_a_lifetime_must_lie_ahead(self):
        for fields, reason in (({"ttl": -1}, "LIMIT_OUT_OF_RANGE"), ({"ttl": 200 * 366 * 86400}, "LIMIT_OUT_OF_RANGE"),
                               ({"expire_time": timestamp_pb2.Timestamp(seconds=1)}, "EXPIRE_TIME_IN_PAST")):
            with self.assertRaises(grpc.RpcError) as caught:
                make_key("odd", **fields)
            self.assertEqual(stubs.reason(caught.exception), reason)

    def test_no_key_shares_what_is_not_there(self):
        with self.assertRaises(grpc.RpcError) as caught:
            make_key("heir", owner_key_id=fake("key"))
        self.assertEqual(stubs.reason(caught.exception), "KEY_NOT_FOUND")


class CommandLine(unittest.TestCase):
    def test_a_key_is_made_used_listed_and_revoked(self):
        made = daemons.hotcell(running, "key", "create", "by-hand", "--scope", "executions:write", "--scope", "sandboxes:write", "--expires", "30d",
                               "-o", "json")
        self.assertEqual(made.returncode, 0, made.stderr)
        secret, key_id = json.loads(made.stdout)["secret"], json.loads(made.stdout)["key"]["key_id"]
        self.assertRegex(secret, "^hck_[a-z2-7]{52}$")
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(secret)
            file.flush()
            as_key = ("--target", tcp, "--api-key-file", file.name)
            ran = daemons.hotcell(running, *as_key, "run", "-c", "6 * 7")
            self.assertEqual((ran.returncode, ran.stdout), (0, b"42\n"), ran.stderr)
            self.assertEqual(daemons.hotcell(running, *as_key, "sandbox", "create").returncode, 0)
            ran = daemons.hotcell(running, *as_key, "sandbox", "ls")
            self.assertEqual(ran.returncode, 125)
            self.assertIn(b"lacks the scope sandboxes:read", ran.stderr)
            row = next(line for line in daemons.hotcell(running, "key", "ls").stdout.decode().splitlines() if key_id in line)
            self.assertRegex(row, r"by-hand +ACTIVE +\S+ ago +in (29|30)d +\S+ ago +1 sandboxes, 1.0 GiB memory, 1 CPUs +sandboxes:write,executions:write$")
            ran = daemons.hotcell(running, "key", "revoke", "--delete-sandboxes", "by-hand")
            self.assertEqual((ran.returncode, ran.stdout.decode()), (0, key_id + "\n"))
            self.assertIn(b"that end: 1", ran.stderr)
            ran = daemons.hotcell(running, *as_key, "run", "-c", "1")
            self.assertEqual(ran.returncode, 125)
            self.assertIn(b"was revoked", ran.stderr)


if __name__ == "__main__":
    unittest.main()
