"""Egress policies through the API and the command line: what is taken, refused, shown and kept."""

import json
import os
import signal
import unittest

import grpc

import daemons
import scenario
import stubs
from scenario import create, error_of, spec
from stubs import egress, execution_service, sandbox_service, server_service

INVALID, PRECONDITION, CONFLICT = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ABORTED)


def setUpModule():
    global running, client
    # Nobody is asked there: no name is looked up here.
    running = unittest.enterModuleContext(daemons.Daemons(nameservers=["127.0.0.1"]))
    client = unittest.enterModuleContext(stubs.Client(running.target))


def deny(cidr, *ports):
    return egress.EgressRule(action=egress.EGRESS_ACTION_DENY, cidr=cidr, protocol=egress.EGRESS_PROTOCOL_TCP,
                             ports=[egress.EgressPorts(first=first) for first in ports])


def policy(*rules):
    return egress.EgressPolicy(default_action=egress.EGRESS_DEFAULT_ACTION_DENY, rules=rules)


ALLOWING = (egress.EgressPolicy(default_action=egress.EGRESS_DEFAULT_ACTION_ALLOW_PUBLIC),
            policy(egress.EgressRule(action=egress.EGRESS_ACTION_ALLOW, domain="example.org", protocol=egress.EGRESS_PROTOCOL_TCP)))


class Case(unittest.TestCase):
    """With the module's daemons, or with others."""

    @property
    def running(self):
        return running

    @property
    def client(self):
        return client

    def run_hotcell(self, *arguments):
        return daemons.hotcell(self.running, *arguments)

    def sandbox(self, **fields):
        made = create(self.client, **fields)
        self.addCleanup(scenario.delete, self.client, made.sandbox_id)
        return made

    def get(self, sandbox_id):
        return self.client.sandboxes.GetSandbox(sandbox_service.GetSandboxRequest(sandbox_id=sandbox_id), timeout=60).sandbox

    def update(self, sandbox_id, new, **fields):
        request = sandbox_service.UpdateSandboxRequest(sandbox_id=sandbox_id, egress=new, **fields)
        request.update_mask.paths.append("egress")
        return self.client.sandboxes.UpdateSandbox(request, timeout=60).sandbox

    def refused(self, reason, code, call, message):
        error = error_of(call, message)
        self.assertEqual((stubs.reason(error), error.code()), (reason, code), error.details())
        return stubs.error_details(error)


class Policies(Case):
    def test_a_policy_comes_back_with_its_status(self):
        wanted = policy(deny("10.0.0.0/8", 80, 443), deny("2001:DB8::/32"))
        made = self.sandbox(egress=wanted)
        self.assertEqual(made.egress, wanted)
        got = self.get(made.sandbox_id)
        self.assertEqual(got.egress, wanted)
        self.assertEqual((got.egress_status.enforced, got.egress_status.policy_version), (True, 1))
        self.assertRegex(got.egress_status.policy_digest, "^sha256-[0-9a-f]{64}$")
        other = self.sandbox(egress=policy(deny("2001:db8::/32"), deny("10.0.0.0/8", 443, 80)))
        self.assertEqual(self.get(other.sandbox_id).egress_status.policy_digest, got.egress_status.policy_digest)

    def test_who_gets_one_that_was_there_learns_that_its_policy_is_another(self):
        made = self.sandbox(name="egress-joined", egress=policy(deny("10.0.0.0/8"), deny("8.8.8.8")))
        for wanted, differs in ((policy(deny("8.8.8.8"), deny("10.0.0.0/8")), False), (policy(deny("8.8.8.8")), True), (policy(), True), (None, True)):
            request = sandbox_service.CreateSandboxRequest(spec=spec(name="egress-joined", egress=wanted), get_or_create=True)
            answer = client.sandboxes.CreateSandbox(request, timeout=60)
            self.assertEqual((answer.sandbox.sandbox_id, answer.created, answer.egress_differs), (made.sandbox_id, False, differs), wanted)
        unlimited = self.sandbox(name="egress-none")
        request = sandbox_service.CreateSandboxRequest(spec=spec(name="egress-none", egress=policy()), get_or_create=True)
        answer = client.sandboxes.CreateSandbox(request, timeout=60)
        self.assertEqual((answer.sandbox.sandbox_id, answer.egress_differs), (unlimited.sandbox_id, False))

    def test_without_one_nothing_may_leave(self):
        got = self.get(self.sandbox().sandbox_id)
        self.assertEqual(got.egress, policy())
        self.assertEqual((got.egress_status.enforced, got.egress_status.policy_version), (True, 1))
        self.assertTrue(got.egress_status.policy_digest)

    def test_what_allows_something_is_in_force(self):
        for wanted in ALLOWING:
            got = self.get(self.sandbox(egress=wanted).sandbox_id)
            self.assertEqual(got.egress, wanted)
            self.assertEqual((got.egress_status.enforced, got.egress_status.policy_version), (True, 1))

    def test_types_of_records_are_a_part_of_it(self):
        types = [egress.EGRESS_RECORD_TYPE_MX, egress.EGRESS_RECORD_TYPE_TXT]
        wanted = egress.EgressPolicy(default_action=egress.EGRESS_DEFAULT_ACTION_DENY, rules=policy(deny("10.0.0.0/8")).rules, record_types=types)
        made = self.sandbox(egress=wanted)
        got = self.get(made.sandbox_id)
        self.assertEqual((got.egress, got.egress_status.enforced), (wanted, True))
        wanted.record_types[:] = types[::-1]
        self.assertEqual(self.update(made.sandbox_id, wanted).etag, made.etag)
        changed = self.update(made.sandbox_id, policy(deny("10.0.0.0/8")))
        self.assertEqual((list(changed.egress.record_types), changed.egress_status.policy_version), ([], 2))
        self.assertNotEqual(self.get(made.sandbox_id).egress_status.policy_digest, got.egress_status.policy_digest)
        wanted.record_types.append(types[0])
        bad = self.refused("INVALID_FIELD", INVALID, client.sandboxes.UpdateSandbox, sandbox_service.UpdateSandboxRequest(
            sandbox_id=made.sandbox_id, egress=wanted, update_mask={"paths": ["egress"]}))
        self.assertIn("egress.record_types[2]", str(bad))

    def test_an_update_replaces_it_and_the_etag(self):
        made = self.sandbox()
        changed = self.update(made.sandbox_id, policy(deny("10.0.0.0/8")), etag=made.etag)
        self.assertEqual((changed.egress, changed.egress_status.policy_version), (policy(deny("10.0.0.0/8")), 2))
        self.assertTrue(changed.egress_status.enforced)
        self.assertNotEqual(changed.etag, made.etag)
        with self.assertRaises(grpc.RpcError) as raised:
            self.update(made.sandbox_id, policy(), etag=made.etag)
        self.assertEqual((stubs.reason(raised.exception), raised.exception.code()), ("CONFLICT", CONFLICT))
        self.assertEqual(self.get(made.sandbox_id).egress, changed.egress)
        same = self.update(made.sandbox_id, policy(deny("10.0.0.0/8")))
        self.assertEqual((same.etag, same.egress_status.policy_version), (changed.etag, 2))
        self.assertEqual(self.update(made.sandbox_id, None).egress, policy())

    def test_a_retry_with_other_rules_is_not_the_same_request(self):
        made = self.sandbox()
        first = self.update(made.sandbox_id, policy(deny("10.0.0.0/8")), request_id="egress-1")
        again = self.update(made.sandbox_id, policy(deny("10.0.0.0/8")), request_id="egress-1")
        self.assertEqual((again.egress, again.egress_status), (first.egress, first.egress_status))
        with self.assertRaises(grpc.RpcError) as raised:
            self.update(made.sandbox_id, policy(deny("10.0.0.0/9")), request_id="egress-1")
        self.assertEqual(stubs.reason(raised.exception), "REQUEST_ID_REUSED")

    def test_lists_watches_and_deletes_have_the_version_and_the_refusals_only(self):
        start = client.sandboxes.ListSandboxes(sandbox_service.ListSandboxesRequest(), timeout=60).watch_token
        made = create(client, egress=policy(deny("10.0.0.0/8")), labels={"egress": "listed"})
        self.update(made.sandbox_id, policy(deny("10.0.0.0/9")))
        listed = client.sandboxes.ListSandboxes(sandbox_service.ListSandboxesRequest(labels={"egress": "listed"}), timeout=60).sandboxes
        deleted = client.sandboxes.DeleteSandbox(sandbox_service.DeleteSandboxRequest(sandbox_id=made.sandbox_id), timeout=60).sandbox
        watch = client.sandboxes.WatchSandboxes(sandbox_service.WatchSandboxesRequest(watch_token=start, sandbox_id=made.sandbox_id), timeout=60)
        events = []
        for answer in watch:
            events += answer.events
            if events[-1].type == sandbox_service.SANDBOX_EVENT_TYPE_ENDED:
                break
        watch.cancel()
        self.assertEqual([event.sandbox.egress_status.policy_version for event in events], [1, 1, 2, 2])
        self.assertEqual(listed[0].egress_status.policy_version, 2)
        for one in (*listed, deleted, *(event.sandbox for event in events)):
            self.assertFalse(one.HasField("egress"))
            self.assertLessEqual({field.name for field, _ in one.egress_status.ListFields()}, {"policy_version", "refusals"})
        ended = self.get(made.sandbox_id)
        self.assertFalse(ended.HasField("egress"))
        self.assertEqual((ended.egress_status.enforced, ended.egress_status.policy_version), (False, 2))
        self.assertTrue(ended.egress_status.policy_digest)

    def test_ten_thousand_rules_outlive_the_server(self):
        many = policy(*(deny(f"10.{i // 256}.{i % 256}.0/24", 22, 443) for i in range(10_000)))
        made = self.sandbox(egress=many)
        self.assertEqual(made.egress, many)
        before = self.get(made.sandbox_id)
        quota = self.quota()
        self.assertGreater(quota, 300_000)
        os.kill(running.server_pid(), signal.SIGKILL)
        daemons.wait_until(running.is_ready, "ready again")
        after = daemons.wait_until(lambda: self.found(made.sandbox_id), "its sandbox is found again")
        self.assertEqual((after.egress, after.egress_status, after.etag), (many, before.egress_status, before.etag))
        self.assertEqual(self.quota(), quota)

    def found(self, sandbox_id):
        try:
            return self.get(sandbox_id)
        except grpc.RpcError:
            return None

    def quota(self):
        info = client.server.GetServerInfo(server_service.GetServerInfoRequest(), timeout=60)
        return next(quota.used for quota in info.quotas if quota.name == "egress_rule_bytes")


class Refusals(Case):
    def test_a_mistake_is_told_with_its_path(self):
        wanted = policy(deny("10.0.0.0/8"), deny("10.0.0.1/8"))
        details = self.refused("INVALID_FIELD", INVALID, client.sandboxes.CreateSandbox,
                               sandbox_service.CreateSandboxRequest(spec=spec(egress=wanted)))
        self.assertEqual([field.field for field in details["BadRequest"].field_violations], ["spec.egress.rules[1].cidr"])
        details = self.refused("INVALID_FIELD", INVALID, client.executions.Execute,
                               execution_service.ExecuteRequest(sandbox=spec(egress=wanted), code="1"))
        self.assertEqual([field.field for field in details["BadRequest"].field_violations], ["sandbox.egress.rules[1].cidr"])
        wanted.rules[1].CopyFrom(deny("10.0.0.0/8"))
        wanted.rules[1].protocol = egress.EGRESS_PROTOCOL_UDP
        with self.assertRaises(grpc.RpcError) as raised:
            self.update(self.sandbox().sandbox_id, wanted)
        self.assertEqual(stubs.reason(raised.exception), "NEEDS_DIRECT_MODE")
        fields = stubs.error_details(raised.exception)["BadRequest"].field_violations
        self.assertEqual([field.field for field in fields], ["egress.rules[1].protocol"])

    def test_ranges_beyond_what_an_entry_holds_are_too_complex(self):
        rules = [deny("10.0.0.0/8", *range(1000, 1800, 100)), deny("10.1.0.0/16", 9)]
        details = self.refused("RULE_TOO_COMPLEX", INVALID, client.sandboxes.CreateSandbox,
                               sandbox_service.CreateSandboxRequest(spec=spec(egress=policy(*rules))))
        self.assertRegex(details["BadRequest"].field_violations[0].field, r"^spec\.egress\.rules\[[01]\]$")

    def test_rules_are_bounded(self):
        wanted = policy(*(deny("10.0.0.0/8") for _ in range(10_001)))
        details = self.refused("LIMIT_OUT_OF_RANGE", INVALID, client.sandboxes.CreateSandbox,
                               sandbox_service.CreateSandboxRequest(spec=spec(egress=wanted)))
        self.assertEqual(details["BadRequest"].field_violations[0].field, "spec.egress.rules")


class Away(Case):
    """hotcell-egress was killed, and nobody starts it again as long as its runtime stands still."""

    def wall(self):
        answer = self.client.server.GetServerInfo(server_service.GetServerInfoRequest(), timeout=60 * daemons.PATIENCE)
        return next(wall for wall in answer.walls if wall.name == "egress_relay")

    def test_what_needs_it_is_refused_with_a_time_to_try_again(self):
        made = self.sandbox(egress=ALLOWING[1])
        runtime = self.running.process.pid
        os.kill(runtime, signal.SIGSTOP)
        try:
            os.kill(self.running.egress_pid(), signal.SIGKILL)
            daemons.wait_until(lambda: not self.wall().holds, "hotcelld knows that it is gone")
            for call in (lambda: self.client.sandboxes.CreateSandbox(sandbox_service.CreateSandboxRequest(spec=spec(egress=ALLOWING[0]))),
                         lambda: self.update(made.sandbox_id, ALLOWING[0]), lambda: self.update(made.sandbox_id, policy(deny("10.0.0.0/8")))):
                with self.assertRaises(grpc.RpcError) as raised:
                    call()
                self.assertEqual((stubs.reason(raised.exception), raised.exception.code()), ("EGRESS_UNAVAILABLE", PRECONDITION))
                self.assertGreater(stubs.error_details(raised.exception)["RetryInfo"].retry_delay.ToMilliseconds(), 0)
                self.assertIn("no hotcell-egress now", raised.exception.details())
        finally:
            os.kill(runtime, signal.SIGCONT)
        daemons.wait_until(lambda: self.wall().holds, "it is started again")
        daemons.wait_until(lambda: self.get(made.sandbox_id).egress_status.enforced, "the policy before is in force again")
        self.assertEqual(self.get(made.sandbox_id).egress, ALLOWING[1])
        self.update(made.sandbox_id, ALLOWING[0])
        self.assertEqual(self.get(made.sandbox_id).egress, ALLOWING[0])


class WithoutRelay(Case):
    """Nobody is there who could see that the wall refuses."""

    @classmethod
    def setUpClass(cls):
        cls.running = cls.enterClassContext(daemons.Daemons())
        cls.client = cls.enterClassContext(stubs.Client(cls.running.target))

    def test_what_only_denies_is_taken_and_not_enforced(self):
        for wanted in (policy(deny("10.0.0.0/8")), policy()):
            got = self.get(self.sandbox(egress=wanted).sandbox_id)
            self.assertEqual(got.egress, wanted)
            self.assertEqual((got.egress_status.enforced, got.egress_status.policy_version), (False, 1))
            self.assertRegex(got.egress_status.policy_digest, "^sha256-[0-9a-f]{64}$")

    def test_what_allows_anything_is_refused(self):
        made = self.sandbox()
        for wanted in ALLOWING:
            with self.subTest(wanted=wanted):
                self.refused("EGRESS_UNAVAILABLE", PRECONDITION, self.client.sandboxes.CreateSandbox,
                             sandbox_service.CreateSandboxRequest(spec=spec(egress=wanted)))
                self.refused("EGRESS_UNAVAILABLE", PRECONDITION, self.client.executions.Execute,
                             execution_service.ExecuteRequest(sandbox=spec(egress=wanted), code="1"))
                with self.assertRaises(grpc.RpcError) as raised:
                    self.update(made.sandbox_id, wanted)
                self.assertEqual(stubs.reason(raised.exception), "EGRESS_UNAVAILABLE")
                self.assertIn("no hotcell-egress", raised.exception.details())
        self.assertEqual(self.get(made.sandbox_id).egress_status.policy_version, 1)

    def test_the_command_line_explains_it(self):
        ran = self.run_hotcell("run", "--allow", "example.org:443", "-c", "1")
        self.assertEqual(ran.returncode, 125)
        self.assertIn(b"no hotcell-egress", ran.stderr)


class CommandLine(Case):
    def test_a_policy_is_set_shown_and_replaced(self):
        made = self.run_hotcell("sandbox", "create", "-q", "--memory", "512M", "--deny", "10.0.0.0/8:443,8000-8080", "--egress-default", "deny",
                                "--dns-type", "TXT", "--dns-type", "MX")
        self.assertEqual(made.returncode, 0, made.stderr)
        name = made.stdout.decode().strip()
        self.addCleanup(self.run_hotcell, "sandbox", "rm", name)
        shown = json.loads(self.run_hotcell("sandbox", "inspect", name).stdout)
        self.assertEqual(shown["egress"], {"default_action": "DENY", "record_types": ["MX", "TXT"], "rules": [
            {"action": "DENY", "cidr": "10.0.0.0/8", "ports": [{"first": 443, "last": 0}, {"first": 8000, "last": 8080}], "protocol": "TCP"}]})
        self.assertEqual((shown["egress_status"]["enforced"], shown["egress_status"]["policy_version"]), (True, 1))
        self.assertEqual(self.run_hotcell("sandbox", "update", "--egress-default", "deny", name).returncode, 0)
        shown = json.loads(self.run_hotcell("sandbox", "inspect", name).stdout)
        self.assertEqual((shown["egress"]["rules"], shown["egress"]["record_types"], shown["egress_status"]["policy_version"]), ([], [], 2))

    def test_what_is_refused_is_explained(self):
        ran = self.run_hotcell("sandbox", "create", "--deny", "10.0.0.1/8")
        self.assertEqual(ran.returncode, 125)
        self.assertIn(b"--deny '10.0.0.1/8': '10.0.0.1/8' has bits set", ran.stderr)
        self.assertEqual(self.run_hotcell("run", "--deny", "10.0.0.0/8", "-c", "print(1)").stdout, b"1\n")


if __name__ == "__main__":
    unittest.main()
