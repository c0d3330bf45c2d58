"""Two tenants with keys of their own: tokens, names, load and logs of one are nothing to the other. For ids see test_owners.py."""

import concurrent.futures
import json
import re
import time
import unittest

import daemons
import grpc
import scenario
import stubs
from scenario import MIB
from stubs import execution_service as executions, sandbox_service as sandboxes


def setUpModule():
    global running, a, b, local
    running = unittest.enterModuleContext(daemons.Daemons(["--tcp", "127.0.0.1:0", "--sandboxes-max", "12"]))
    port = daemons.wait_until(lambda: re.search(r"listening address=127\.0\.0\.1.*port=(\d+)", running.log()), "its port").group(1)
    local = unittest.enterModuleContext(stubs.Client(running.target))
    a, b = (Tenant(name, f"127.0.0.1:{port}") for name in ("tenant-a", "tenant-b"))


class Tenant:
    def __init__(self, name, target):
        made = local.keys.CreateKey(stubs.key_service.CreateKeyRequest(name=name), timeout=60)
        self.metadata = [("x-api-key", made.secret)]
        self.client = unittest.enterModuleContext(stubs.Client(target))

    def call(self, method, message, timeout=60):
        return method(message, metadata=self.metadata, timeout=timeout)

    def create(self, **fields):
        get_or_create = fields.pop("get_or_create", False)
        message = sandboxes.CreateSandboxRequest(spec=scenario.spec(**fields), get_or_create=get_or_create)
        return self.call(self.client.sandboxes.CreateSandbox, message)

    def run(self, sandbox_id, code, **fields):
        return scenario.fold(self.call(self.client.executions.Execute, scenario.request(sandbox_id, code, **fields)))

    def delete(self, sandbox_id):
        return self.call(self.client.sandboxes.DeleteSandbox, sandboxes.DeleteSandboxRequest(sandbox_id=sandbox_id))


class Case(unittest.TestCase):
    def code_of(self, tenant, method, message):
        try:
            answer = tenant.call(method, message, timeout=10)
            if hasattr(answer, "cancel") and hasattr(answer, "__iter__"):
                list(answer)
        except grpc.RpcError as error:
            return error.code().name
        return "OK"


class Tokens(Case):
    def test_tokens_of_the_other(self):
        for number in range(2):
            made = a.create(labels={"n": str(number)}).sandbox.sandbox_id
            self.addCleanup(a.delete, made)
        page = a.call(a.client.sandboxes.ListSandboxes, sandboxes.ListSandboxesRequest(page_size=1))
        ids = {each.sandbox_id for each in a.call(a.client.sandboxes.ListSandboxes, sandboxes.ListSandboxesRequest()).sandboxes}
        try:
            found = b.call(b.client.sandboxes.ListSandboxes, sandboxes.ListSandboxesRequest(page_size=1, page_token=page.next_page_token))
            self.assertFalse(ids & {each.sandbox_id for each in found.sandboxes})
        except grpc.RpcError as error:
            self.assertEqual(error.code().name, "INVALID_ARGUMENT")
        stream = b.call(b.client.sandboxes.WatchSandboxes, sandboxes.WatchSandboxesRequest(watch_token=page.watch_token), timeout=2)
        seen = []
        a.delete(a.create().sandbox.sandbox_id)
        try:
            for response in stream:
                seen += [event.sandbox.sandbox_id for event in response.events]
        except grpc.RpcError as error:
            self.assertIn(error.code().name, ("DEADLINE_EXCEEDED", "INVALID_ARGUMENT", "OUT_OF_RANGE"))
        self.assertFalse([each for each in seen if each], "b saw a's events")

    def test_huge_and_odd_tokens(self):
        for token in ("x" * (3 << 20), "\x7f", "AAAA", "\u202e" * 100):
            self.assertEqual(self.code_of(b, b.client.sandboxes.ListSandboxes, sandboxes.ListSandboxesRequest(page_token=token)), "INVALID_ARGUMENT")


class Races(Case):
    def test_one_name_of_many_creators_is_one_sandbox_and_none_of_the_others(self):
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            jobs = [pool.submit((a, b)[i % 2].create, name="race", get_or_create=True) for i in range(16)]
            ids = [{job.result().sandbox.sandbox_id for job in jobs[i::2]} for i in range(2)]
        self.addCleanup(a.delete, next(iter(ids[0])))
        self.addCleanup(b.delete, next(iter(ids[1])))
        self.assertEqual([len(each) for each in ids], [1, 1])
        self.assertFalse(ids[0] & ids[1])


class Fairness(Case):
    def test_one_tenant_cannot_take_every_sandbox(self):
        made = []
        self.addCleanup(lambda: [a.delete(each) for each in made])
        with self.assertRaises(grpc.RpcError) as caught:
            for _ in range(12):
                made.append(a.create(memory=128 * MIB, limits={"disk_bytes": 32 * MIB}).sandbox.sandbox_id)
        self.assertEqual((len(made), stubs.reason(caught.exception)), (6, "SANDBOX_LIMIT"))
        self.assertIn("RetryInfo", stubs.error_details(caught.exception))
        mine = b.create().sandbox.sandbox_id
        b.delete(mine)

    def test_calls_of_one_tenant_do_not_hold_up_the_other(self):
        sandbox = b.create().sandbox.sandbox_id
        self.addCleanup(b.delete, sandbox)
        b.run(sandbox, "1")
        streams = [a.call(a.client.sandboxes.WatchSandboxes, sandboxes.WatchSandboxesRequest()) for _ in range(250)]
        begin = time.monotonic()
        self.assertEqual(b.run(sandbox, "1+1").text, "2")
        self.assertLess(time.monotonic() - begin, 2)
        for stream in streams:
            stream.cancel()


class Keys(Case):
    def test_large_and_odd_metadata_is_refused(self):
        for value in ("x" * 7000, "Bearer", "Bearer  ", ""):
            for name in ("authorization", "x-api-key"):
                with self.assertRaises(grpc.RpcError) as caught:
                    a.client.sandboxes.ListSandboxes(sandboxes.ListSandboxesRequest(), metadata=[(name, value)], timeout=10)
                self.assertIn(caught.exception.code().name, ("UNAUTHENTICATED", "RESOURCE_EXHAUSTED", "INTERNAL", "UNKNOWN"), value[:20])

    def test_two_contradicting_keys_are_not_the_better_one(self):
        for metadata in (a.metadata + [("authorization", "Bearer wrong")], [("x-api-key", "wrong")] + a.metadata):
            with self.assertRaises(grpc.RpcError):
                a.client.sandboxes.ListSandboxes(sandboxes.ListSandboxesRequest(), metadata=metadata, timeout=10)


class Logs(Case):
    def test_no_client_writes_lines_into_the_log(self):
        forged = "x\n2026-01-01T00:00:00.000Z hotcelld error: forged \x1b[2J"
        sandbox = a.create().sandbox.sandbox_id
        self.addCleanup(a.delete, sandbox)
        e = a.client.executions
        self.code_of(a, e.CreateContext, executions.CreateContextRequest(sandbox_id=sandbox, working_directory="/" + forged))
        self.code_of(a, e.CreateContext, executions.CreateContextRequest(sandbox_id=sandbox, language=forged))
        for fields in ({"template": forged}, {"name": forged}, {"labels": {forged: forged}}, {"environment": {"A": forged}}):
            try:
                a.delete(a.create(**fields).sandbox.sandbox_id)
            except grpc.RpcError:
                pass
        a.run(sandbox, f"import sys, os; sys.stderr.write({forged!r}); sys.stderr.flush(); os._exit(3)")
        log = running.log()
        self.assertNotIn("\x1b", log)
        self.assertFalse([line for line in log.splitlines() if line.startswith("2026-01-01")])
        self.assertNotIn(json.dumps(a.metadata[0][1])[1:-1], log, "a secret in the log")


if __name__ == "__main__":
    unittest.main()
