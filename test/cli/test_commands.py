"""What `hotcell` asks a server for, command by command."""

import json
import os
import re
import shlex
import tempfile
import threading
import time
import unittest

import grpc

import fake_server as fake
from cli_case import CliTest, TIMEOUT, play
from fake_server import (CONTEXT_ID, EXECUTION_ID, SANDBOX_ID, Disconnect, FakeServer, Refuse, chunk, egress,
                         ended, execution, executions, keys, queued, sandbox, sandboxes, server_info)


class Requests(CliTest):
    def request(self, *arguments, stdin=b"", **more):
        server = self.serve(play())
        ran = self.hotcell(server, *arguments, stdin=stdin, **more)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        return server.requests[0][1]

    def test_run_sends_a_sandbox_spec(self):
        request = self.request("run", "--memory", "512M", "--cpus", "1.5", "--processes", "20", "--disk", "64M",
                               "--open-files", "99", "--ttl", "1h", "--idle-timeout", "90s", "--template", "python",
                               "--name", "box", "-l", "a=b", "-l", "a=c", "--timeout", "1.5s", "-e", "X=1=2",
                               "--env", "FROM_HERE", "--language", "python", "--combine-output", "--output-limit", "10M",
                               "--on-output-limit", "truncate", "-c", "pass", FROM_HERE="here")
        spec = request.sandbox
        self.assertEqual(spec.limits.memory_bytes, 512 << 20)
        self.assertEqual(spec.limits.cpu_millis, 1500)
        self.assertEqual((spec.limits.processes, spec.limits.disk_bytes, spec.limits.open_files), (20, 64 << 20, 99))
        self.assertEqual((spec.ttl.seconds, spec.idle_timeout.seconds), (3600, 90))
        self.assertEqual((spec.template, spec.name, dict(spec.labels)), ("python", "box", {"a": "c"}))
        self.assertEqual((request.limits.timeout.seconds, request.limits.timeout.nanos), (1, 500000000))
        self.assertEqual(request.limits.output_bytes, 10 << 20)
        self.assertEqual(dict(request.environment), {"X": "1=2", "FROM_HERE": "here"})
        self.assertEqual((request.code, request.language), ("pass", "python"))
        self.assertTrue(request.combine_output)
        self.assertEqual(request.on_output_limit, executions.ON_OUTPUT_LIMIT_TRUNCATE)
        self.assertEqual(request.on_disconnect, executions.ON_DISCONNECT_UNSPECIFIED)

    def egress(self, *arguments):
        return self.request("run", *arguments, "-c", "pass").sandbox.egress

    def test_types_of_dns_records_are_sent_once_each(self):
        policy = self.egress("--allow", "example.org", "--dns-type", "TXT", "--dns-type", "mx", "--dns-type", "txt")
        self.assertEqual(list(policy.record_types), [egress.EGRESS_RECORD_TYPE_TXT, egress.EGRESS_RECORD_TYPE_MX])
        for word in ("A", "UNSPECIFIED", "", "16"):
            ran = self.hotcell(None, "run", "--dns-type", word, "-c", "pass")
            self.assertEqual(ran.returncode, 125, word)
            self.assertIn(f"--dns-type takes one of NS, CNAME, NULL, PTR, HINFO, MX, TXT, SRV, SSHFP, TLSA, ANY, URI, CAA, not '{word}'", ran.stderr.decode())

    def test_egress_rules_are_sent_as_they_were_written(self):
        policy = self.egress("--allow", "example.org:443", "--deny", "10.0.0.0/8", "--allow", "*.example.org",
                             "--allow", "192.0.2.7:80,8000-8080", "--allow", "[2001:db8::/32]:443", "--allow", "2001:db8::1",
                             "--allow", "[2001:db8::2]", "--egress-default", "allow-public")
        self.assertEqual(policy.default_action, egress.EGRESS_DEFAULT_ACTION_ALLOW_PUBLIC)
        self.assertEqual([(rule.action, rule.WhichOneof("destination"), rule.cidr or rule.domain,
                           [(ports.first, ports.last) for ports in rule.ports]) for rule in policy.rules], [
            (egress.EGRESS_ACTION_ALLOW, "domain", "example.org", [(443, 0)]),
            (egress.EGRESS_ACTION_ALLOW, "domain", "*.example.org", []),
            (egress.EGRESS_ACTION_ALLOW, "cidr", "192.0.2.7", [(80, 0), (8000, 8080)]),
            (egress.EGRESS_ACTION_ALLOW, "cidr", "2001:db8::/32", [(443, 0)]),
            (egress.EGRESS_ACTION_ALLOW, "cidr", "2001:db8::1", []),
            (egress.EGRESS_ACTION_ALLOW, "cidr", "2001:db8::2", []),
            (egress.EGRESS_ACTION_DENY, "cidr", "10.0.0.0/8", [])])
        self.assertEqual(list(policy.record_types), [])
        self.assertEqual(self.egress("--deny", "10.0.0.0/8").default_action, egress.EGRESS_DEFAULT_ACTION_UNSPECIFIED)
        self.assertFalse(self.request("run", "-c", "pass").sandbox.HasField("egress"))
        self.assertTrue(self.request("run", "--egress-default", "deny", "-c", "pass").sandbox.HasField("egress"))

    def test_a_rule_may_begin_with_a_protocol(self):
        policy = self.egress(*(word for text in ("udp:192.0.2.0/24:53", "icmp:2001:db8::/32", "udp:[2001:db8::1]:53,123", "tcp:udp:443", "udp.example:443")
                               for word in ("--allow", text)))
        self.assertEqual([(rule.protocol, rule.cidr or rule.domain, [ports.first for ports in rule.ports]) for rule in policy.rules], [
            (egress.EGRESS_PROTOCOL_UDP, "192.0.2.0/24", [53]),
            (egress.EGRESS_PROTOCOL_ICMP, "2001:db8::/32", []),
            (egress.EGRESS_PROTOCOL_UDP, "2001:db8::1", [53, 123]),
            (egress.EGRESS_PROTOCOL_TCP, "udp", [443]),
            (egress.EGRESS_PROTOCOL_UNSPECIFIED, "udp.example", [443])])

    def test_what_only_looks_odd_is_left_to_the_server(self):
        for text in ("1.2.3", "::ffff:1.2.3.4", "example.0x", "example.0xg", "1.example", "a..", ".", "example.org.", "x-", "0x.org"):
            self.assertEqual(len(self.egress("--allow", text).rules), 1, text)

    def test_what_is_no_host_with_ports_is_not_sent(self):
        for text in ("", ":443", "udp:", "udp::53", "example.org:", "example.org:https", "example.org:80,", "example.org:80-", "example.org:-80",
                     "example.org:80-0", "b.org:0", "b.org:65536", "b.org:90-80", "[2001:db8::1", "[2001:db8::1]443", "[]:443", "example.org:99999999999"):
            with self.subTest(text=text):
                ran = self.hotcell(None, "sandbox", "create", "--allow", text)
                self.assertEqual(ran.returncode, 125)
                self.assertIn("--allow takes [PROTOCOL:]HOST[:PORTS], such as example.org:443, udp:93.184.216.34:53 or "
                              f"[2606:2800:220::/48]:443,8000-8080, with ports from 1 to 65535, not '{text}'", ran.stderr.decode())

    def test_common_slips_are_told_with_what_to_write(self):
        for text, wanted in (
                ("https://example.org:443/x", "is a URL: write only its host and port, example.org:443"),
                ("https://example.org/x:y", "is a URL: write only its host and port, example.org:443"),
                ("http://[2606:2800:220::1]/", "is a URL: write only its host and port, [2606:2800:220::1]:80"),
                ("ftp://example.org", "is a URL: write only its host and port, example.org"),
                ("example.org/path", "has a path: write only the host and its ports, example.org"),
                ("example.org:443/path", "has a path: write only the host and its ports, example.org:443"),
                ("2001:db8::/32:443", "has ports behind an IPv6 prefix: write that in brackets, [2001:db8::/32]:443"),
                ("[2001:db8::]/32:443", "has its length behind the bracket: write [2001:db8::/32]:443"),
                ("[2001:db8::]/32", "has its length behind the bracket: write [2001:db8::/32]"),
                ("udp:2001:db8::/32:443", "has ports behind an IPv6 prefix: write that in brackets, udp:[2001:db8::/32]:443"),
                ("udp:[2001:db8::]/32:443", "has its length behind the bracket: write udp:[2001:db8::/32]:443"),
                ("tcp:example.org:443/path", "has a path: write only the host and its ports, tcp:example.org:443"),
                ("https://u:secret@example.org/", "is a URL: write only its host and port, example.org:443"),
                ("https://a@b@example.org:8443/@x", "is a URL: write only its host and port, example.org:8443"),
                *((text, "has more than one colon, but is no IPv6 address: write ports behind one, such as example.org:443,8000-8080")
                  for text in ("example.org:443:80", "tcp:example.org:443:80", "10.0.0.1:80:https")),
                *((text, "may have a `*` only as the whole first label, like *.example.org; for all public names use --egress-default allow-public")
                  for text in ("a.*.org", "*x.org:443", "**.org", "*.*.org", "a.*")),
                *((text, "ends in a number, as no name does: write an address like 93.184.216.34 or a prefix like 93.184.216.0/24")
                  for text in ("0x7f.1", "127.0X1", "1.2.3.4-1.2.3.9", "1.2.3.4-1.2.3.9:443", "example.1", "example.1.:80", "0xff")),
                ("udp:*", "is no host: for all addresses use --allow udp:0.0.0.0/0 --allow 'udp:[::/0]'"),
                ("udp:*:53", "is no host: for all addresses use --allow udp:0.0.0.0/0:53 --allow 'udp:[::/0]:53'"),
                ("icmp:*", "is no host: for all addresses use --allow icmp:0.0.0.0/0 --allow 'icmp:[::/0]'"),
                ("tcp:*", "is no host: for all public ones use --egress-default allow-public"),
                ("*", "is no host: for all public ones use --egress-default allow-public"),
                ("*:443", "is no host: for all public ones use --egress-default allow-public")):
            with self.subTest(text=text):
                ran = self.hotcell(None, "run", "--deny", "a.org", "--allow", text, "-c", "1")
                self.assertEqual((ran.returncode, ran.stderr.decode()), (125, f"hotcell: run: --allow '{text}' {wanted}\n"))

    def test_who_denies_all_is_told_how(self):
        self.assertIn(b"only as the whole first label, like *.example.org\n", self.hotcell(None, "run", "--deny", "a.*", "-c", "1").stderr)
        for text, wanted in (("*", "--deny 0.0.0.0/0 --deny '[::/0]'"), ("*:25", "--deny 0.0.0.0/0:25 --deny '[::/0]:25'"),
                             ("udp:*:53", "--deny udp:0.0.0.0/0:53 --deny 'udp:[::/0]:53'")):
            ran = self.hotcell(None, "run", "--deny", text, "-c", "1")
            self.assertEqual((ran.returncode, ran.stderr.decode()), (
                125, f"hotcell: run: --deny '{text}' is no host: nothing leaves that is not allowed; against what is allowed use {wanted}\n"))
            rules = self.egress(*shlex.split(wanted)).rules
            self.assertEqual([rule.cidr for rule in rules], ["0.0.0.0/0", "::/0"])

    def test_unset_limits_are_not_sent(self):
        request = self.request("run", "-c", "pass")
        self.assertFalse(request.sandbox.limits.HasField("memory_bytes"))
        self.assertFalse(request.sandbox.HasField("idle_timeout"))
        self.assertIsNone(request.sandbox.WhichOneof("lifetime"))
        self.assertFalse(request.HasField("limits"))

    def test_a_zero_is_sent(self):
        request = self.request("run", "--timeout", "0", "--ttl", "0", "-c", "pass")
        self.assertTrue(request.limits.HasField("timeout"))
        self.assertEqual(request.sandbox.WhichOneof("lifetime"), "ttl")

    def test_code_from_standard_input_and_from_a_file(self):
        code = "print('ä')\n"
        self.assertEqual(self.request("run", "-", stdin=code.encode()).code, code)
        with tempfile.NamedTemporaryFile("w", suffix=".py", encoding="utf-8") as file:
            file.write(code)
            file.flush()
            self.assertEqual(self.request("run", file.name).code, code)

    def test_options_may_come_after_operands(self):
        request = self.request("exec", SANDBOX_ID, "--timeout=2", "-c", "pass")
        self.assertEqual((request.sandbox_id, request.limits.timeout.seconds), (SANDBOX_ID, 2))

    def test_code_context_is_sent(self):
        request = self.request("exec", "--code-context", CONTEXT_ID, SANDBOX_ID, "-c", "pass")
        self.assertEqual(request.context_id, CONTEXT_ID)

    def test_the_key_goes_into_the_header(self):
        server = self.serve(play())
        self.hotcell(server, "run", "-c", "pass", HOTCELL_API_KEY="hck_secret")
        self.assertEqual(server.requests[0][2]["authorization"], "Bearer hck_secret")
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("hck_file\n")
            file.flush()
            self.hotcell(server, "--api-key-file", file.name, "run", "-c", "pass", HOTCELL_API_KEY="hck_secret")
        self.assertEqual(server.requests[1][2]["authorization"], "Bearer hck_file")

    def test_detach_prints_the_id_and_leaves(self):
        def script(_server, _after):
            yield queued()
            release.wait(TIMEOUT)
        release = threading.Event()
        server = self.serve(script)
        try:
            ran = self.hotcell(server, "run", "--detach", "-c", "pass")
        finally:
            release.set()
        self.assertEqual((ran.returncode, ran.stdout.decode()), (0, EXECUTION_ID + "\n"))
        self.assertEqual(server.requests[0][1].on_disconnect, executions.ON_DISCONNECT_CONTINUE)
        self.assertEqual(server.interrupts, [])

    def test_detach_takes_nothing_for_an_end_that_it_does_not_see(self):
        server = self.serve(play())
        for option in (("--save", "pictures"), ("--usage",)):
            for command in (("run",), ("exec", "sbx")):
                ran = self.hotcell(server, *command, "--detach", *option, "-c", "pass")
                self.assertEqual(ran.returncode, 125)
                self.assertIn(f"--detach leaves before there is anything for {option[0]}".encode(), ran.stderr)
        self.assertEqual(server.requests, [])

    def test_tcp_works_too(self):
        server = FakeServer(play({"stdout": chunk(b"tcp")}), "127.0.0.1:0")
        self.addCleanup(server.close)
        # A proxy from the environment must not get to see code and keys.
        ran = self.hotcell(None, "--target", server.address, "run", "-c", "x", http_proxy="http://127.0.0.1:1",
                           no_proxy="", no_grpc_proxy="")
        self.assertEqual(ran.stdout, b"tcp", ran.stderr)


class Sandboxes(CliTest):
    def lists(self, *boxes):
        def answer(request):
            start = int(request.page_token or 0)
            end = start + 2  # small pages, so that the client must turn them
            return sandboxes.ListSandboxesResponse(
                sandboxes=boxes[start:end], next_page_token=str(end) if end < len(boxes) else "")
        return answer

    def box(self, letter, name="", state=sandbox.SANDBOX_STATE_RUNNING):
        return sandbox.Sandbox(sandbox_id="sbx-" + letter * 26, name=name, state=state)

    def resolved(self, text, *boxes):
        server = self.serve(play(), ListSandboxes=self.lists(*boxes))
        ran = self.hotcell(server, "exec", text, "-c", "x")
        return ran, [request.sandbox_id for method, request, _ in server.requests if method == "Execute"]

    def test_names_and_beginnings_of_ids(self):
        boxes = [self.box("k", "alpha"), self.box("m", "k"), self.box("p", "beta"), self.box("q")]
        for text, letter in (("alpha", "k"), ("beta", "p"), ("sbx-q", "q"), ("qq", "q"), ("k", "m")):
            with self.subTest(text=text):
                self.assertEqual(self.resolved(text, *boxes)[1], ["sbx-" + letter * 26])

    def test_a_whole_id_is_not_looked_up(self):
        server = self.serve(play())
        self.hotcell(server, "exec", SANDBOX_ID, "-c", "x")
        self.assertEqual([method for method, _, _ in server.requests], ["Execute"])

    def test_what_is_unknown_or_ambiguous_is_said(self):
        boxes = [sandbox.Sandbox(sandbox_id="sbx-ab" + letter * 24) for letter in "xyz"]
        ran, executed = self.resolved("ab", *boxes)
        self.assertEqual((ran.returncode, executed), (125, []))
        self.assertIn(b"'ab' fits more than one living sandbox:", ran.stderr)
        self.assertIn(b"sbx-ab" + b"y" * 24, ran.stderr)
        ran, executed = self.resolved("nix", *boxes)
        self.assertEqual((ran.returncode, executed), (125, []))
        self.assertIn(b"no living sandbox has the id or name 'nix'", ran.stderr)

    def test_ls(self):
        boxes = [self.box("k", "al\x1bpha"), self.box("m"), self.box("p", "z", sandbox.SANDBOX_STATE_ENDED)]
        for box in boxes:
            box.expire_time.FromSeconds(int(time.time()) + 7250)
        server = self.serve(ListSandboxes=self.lists(*boxes))
        ran = self.hotcell(server, "sandbox", "ls", "-a", "--label", "job=1")
        lines = ran.stdout.decode().splitlines()
        self.assertEqual(len(lines), 4)
        self.assertIn("al\\x1bpha", lines[1])
        self.assertIn("ENDED", lines[3])
        self.assertEqual([line.rstrip().endswith("in 2h") for line in lines[1:]], [True, True, False])
        request = server.requests[0][1]
        self.assertEqual(dict(request.labels), {"job": "1"})
        self.assertIn(sandbox.SANDBOX_STATE_ENDED, request.states)
        self.assertEqual(self.hotcell(server, "sandbox", "ls", "-q").stdout.decode().split(),
                         [box.sandbox_id for box in boxes])
        rows = json.loads(self.hotcell(server, "sandbox", "ls", "-o", "json").stdout)
        self.assertEqual([("usage" in row, row["name"]) for row in rows], [(False, "al\x1bpha"), (False, ""), (False, "z")])
        self.assertEqual(len(self.hotcell(server, "sandbox", "ls", "-o", "jsonl").stdout.splitlines()), 3)

    def test_another_egress_policy_than_the_one_asked_for_is_said(self):
        box = self.box("k", "alpha")
        given = b"it has another egress policy than the one given here, and keeps it"
        none = b"it has another egress policy than that of no rules, under which nothing leaves, and keeps it"
        for differs, words, said in ((True, ("--deny", "8.8.8.8"), given), (False, ("--deny", "8.8.8.8"), None), (True, (), none), (False, (), None)):
            server = self.serve(CreateSandbox=lambda request: sandboxes.CreateSandboxResponse(sandbox=box, egress_differs=differs))
            for quiet in ((), ("-q",)):
                ran = self.hotcell(server, "sandbox", "create", "--name", "alpha", "--get-or-create", *words, *quiet)
                self.assertEqual((ran.returncode, ran.stdout.decode()), (0, box.sandbox_id + "\n"))
                self.assertEqual(b"egress policy" in ran.stderr, said is not None, (differs, words))
                self.assertIn(said or b"", ran.stderr)
                self.assertEqual("it was there already" in ran.stderr.decode(), not quiet)

    def test_create_update_inspect_rm(self):
        box = self.box("k", "alpha")
        server = self.serve(
            CreateSandbox=lambda request: sandboxes.CreateSandboxResponse(sandbox=box, created=True),
            UpdateSandbox=lambda request: sandboxes.UpdateSandboxResponse(sandbox=box),
            GetSandbox=lambda request: sandboxes.GetSandboxResponse(sandbox=box),
            DeleteSandbox=lambda request: sandboxes.DeleteSandboxResponse(sandbox=box))
        ran = self.hotcell(server, "sandbox", "create", "--name", "alpha", "--env", "A=1", "--get-or-create", "--timeout", "9")
        self.assertEqual(ran.stdout.decode(), box.sandbox_id + "\n")
        request = server.requests[-1][1]
        self.assertEqual((request.spec.name, dict(request.spec.environment)), ("alpha", {"A": "1"}))
        self.assertTrue(request.get_or_create)
        self.assertEqual(request.spec.limits.execution.timeout.seconds, 9)
        self.hotcell(server, "sandbox", "update", box.sandbox_id, "--ttl", "2h", "--label", "a=b")
        request = server.requests[-1][1]
        self.assertEqual(sorted(request.update_mask.paths), ["labels", "ttl"])
        self.assertEqual((request.ttl.seconds, dict(request.labels)), (7200, {"a": "b"}))
        self.assertFalse(request.HasField("egress"))
        self.hotcell(server, "sandbox", "update", box.sandbox_id, "--deny", "10.0.0.0/8")
        request = server.requests[-1][1]
        self.assertEqual((list(request.update_mask.paths), request.egress.rules[0].cidr), (["egress"], "10.0.0.0/8"))
        self.hotcell(server, "sandbox", "update", box.sandbox_id, "--dns-type", "SRV")
        request = server.requests[-1][1]
        self.assertEqual((list(request.update_mask.paths), list(request.egress.record_types)), (["egress"], [egress.EGRESS_RECORD_TYPE_SRV]))
        box.egress.record_types.append(egress.EGRESS_RECORD_TYPE_TXT)
        box.egress.rules.add(action=egress.EGRESS_ACTION_DENY, cidr="10.0.0.0/8").ports.add(first=443)
        box.egress_status.policy_version = 3
        shown = json.loads(self.hotcell(server, "sandbox", "inspect", box.sandbox_id).stdout)
        self.assertEqual((shown["egress"]["rules"][0]["cidr"], shown["egress"]["rules"][0]["action"]), ("10.0.0.0/8", "DENY"))
        self.assertEqual(shown["egress"]["record_types"], ["TXT"])
        self.assertEqual(shown["egress_status"]["policy_version"], 3)
        self.assertEqual((shown["name"], shown["state"], shown["labels"]), ("alpha", "RUNNING", {}))
        self.assertEqual(self.hotcell(server, "sandbox", "rm", box.sandbox_id).stdout.decode(), box.sandbox_id + "\n")

    def test_watch_goes_on_where_it_was(self):
        def events(request):
            for n in range(int(request.watch_token or 0) + 1, 4):
                yield sandboxes.SandboxEvent(watch_token=str(n), type=sandboxes.SANDBOX_EVENT_TYPE_UPDATED,
                                             sandbox=self.box("k"))
                if n == 2 and not request.watch_token:
                    raise Disconnect
            raise fake.Refuse(grpc.StatusCode.OUT_OF_RANGE, "too old")
        server = self.serve(WatchSandboxes=events)
        ran = self.hotcell(server, "watch", "-o", "jsonl")
        self.assertEqual([json.loads(line)["watch_token"] for line in ran.stdout.splitlines()], ["1", "2", "3"])
        self.assertEqual(ran.returncode, 125)


class Others(CliTest):
    def test_logs_attaches_after_a_sequence(self):
        server = self.serve(play({"stdout": chunk(b"one")}, {"stdout": chunk(b"two")},
                                 ended(execution.OUTCOME_EXITED, exit_code=4)))
        ran = self.hotcell(server, "logs", "--after", "3", EXECUTION_ID)
        self.assertEqual((ran.stdout, ran.returncode), (b"two", 4))

    def test_logs_without_following_stops_at_what_is_there(self):
        def script(_server, _after):
            yield queued()
            yield {"stdout": chunk(b"so far")}
            release.wait(TIMEOUT)
        release = threading.Event()
        server = self.serve(script, GetExecution=lambda request: executions.GetExecutionResponse(
            execution=execution.Execution(state=execution.EXECUTION_STATE_RUNNING, last_sequence=2)))
        try:
            ran = self.hotcell(server, "logs", "--no-follow", EXECUTION_ID)
        finally:
            release.set()
        self.assertEqual((ran.stdout, ran.returncode), (b"so far", 0))

    def test_keys(self):
        key = keys.Key(key_id="key-" + "k" * 26, name="ci")
        server = self.serve(CreateKey=lambda request: keys.CreateKeyResponse(key=key, secret="hck_x"),
                            ListKeys=lambda request: keys.ListKeysResponse(keys=[key]),
                            RevokeKey=lambda request: keys.RevokeKeyResponse(key=key))
        self.assertEqual(self.hotcell(server, "key", "create", "ci").stdout, b"hck_x\n")
        self.assertIn(b"ci", self.hotcell(server, "key", "ls").stdout)
        self.assertEqual(self.hotcell(server, "key", "revoke", "ci").stdout.decode(), key.key_id + "\n")
        self.assertEqual(server.requests[-1][1], keys.RevokeKeyRequest(key_id=key.key_id))

    def test_a_key_with_scopes_a_lifetime_and_an_owner(self):
        old = keys.Key(key_id="key-" + "k" * 26, name="ci", state=keys.KEY_STATE_REVOKED)
        server = self.serve(CreateKey=lambda request: keys.CreateKeyResponse(key=old, secret="hck_x"),
                            ListKeys=lambda request: keys.ListKeysResponse(keys=[old]))
        ran = self.hotcell(server, "key", "create", "new", "--owner", "ci", "--expires", "30d", "--scope", "sandboxes:read",
                           "--scope", "executions:read")
        self.assertEqual((ran.returncode, ran.stdout), (0, b"hck_x\n"))
        asked = server.requests[-1][1]
        self.assertEqual((asked.name, list(asked.scopes), asked.ttl.seconds, asked.owner_key_id),
                         ("new", ["sandboxes:read", "executions:read"], 30 * 86400, old.key_id))
        ran = self.hotcell(server, "key", "create", "plain")
        self.assertEqual(server.requests[-1][1], keys.CreateKeyRequest(name="plain"))
        ran = self.hotcell(server, "key", "create", "new", "--owner", "nobody")
        self.assertEqual((ran.returncode, ran.stdout), (125, b""))

    def test_keys_are_listed_with_what_they_may(self):
        now = int(time.time())
        key = keys.Key(key_id="key-" + "k" * 26, name="ci", state=keys.KEY_STATE_ACTIVE, scopes=["sandboxes:read", "server:read"],
                       quotas={"sandboxes": 2, "memory_bytes": 1 << 30}, used={"sandboxes": 1, "cpu_millis": 1500})
        key.create_time.seconds, key.last_used_time.seconds, key.expire_time.seconds = now - 7 * 86400, now - 300, now + 3 * 86400 + 60
        old = keys.Key(key_id="key-" + "m" * 26, name="old", state=keys.KEY_STATE_EXPIRED)
        old.create_time.seconds, old.last_used_time.seconds = now - 1000, now - 1040
        server = self.serve(ListKeys=lambda request: keys.ListKeysResponse(keys=[key, old]))
        head, first, second = self.hotcell(server, "key", "ls").stdout.decode().splitlines()
        self.assertEqual(re.split(r"  +", head), ["KEY", "NAME", "STATE", "CREATED", "EXPIRES", "LAST USED", "HOLDS", "SCOPES"])
        self.assertEqual(re.split(r"  +", first), [key.key_id, "ci", "ACTIVE", "7d ago", "in 3d", "5m ago",
                                                       "1 of 2 sandboxes, 0 B of 1.0 GiB memory, 1.5 CPUs", "sandboxes:read,server:read"])
        self.assertEqual(re.split(r"  +", second)[2:], ["EXPIRED", "16m ago", "never", "16m ago", "-", "-"])

    def test_revoking_with_all_sandboxes_says_how_many(self):
        key = keys.Key(key_id="key-" + "k" * 26, name="ci", state=keys.KEY_STATE_ACTIVE)
        server = self.serve(RevokeKey=lambda request: keys.RevokeKeyResponse(key=key, sandboxes_deleted=3))
        ran = self.hotcell(server, "key", "revoke", "--delete-sandboxes", key.key_id)
        self.assertEqual((ran.stdout.decode(), ran.returncode), (key.key_id + "\n", 0))
        self.assertIn(b"sandboxes of its owner that end: 3", ran.stderr)
        self.assertTrue(server.requests[-1][1].delete_sandboxes)

    def test_revoking_says_what_is_left(self):
        key = keys.Key(key_id="key-" + "k" * 26, name="ci", owner="key-" + "o" * 26, used={"sandboxes": 2})
        server = self.serve(RevokeKey=lambda request: keys.RevokeKeyResponse(key=key))
        ran = self.hotcell(server, "key", "revoke", key.key_id)
        self.assertEqual((ran.stdout.decode(), ran.returncode), (key.key_id + "\n", 0))
        self.assertEqual(ran.stderr.decode(), "hotcell: sandboxes of its owner that live on until their end: 2; "
                         f"`hotcell key revoke --delete-sandboxes {key.key_id}` ends them, and "
                         f"`hotcell key create NAME --owner {key.key_id}` makes a key that sees them\n")
        key.used.sandboxes = 0
        self.assertEqual(self.hotcell(server, "key", "revoke", key.key_id).stderr, b"")

    def doctor(self, info):
        return self.hotcell(self.serve(GetServerInfo=lambda request: info), "doctor")

    def test_doctor_is_content_only_when_all_required_walls_hold(self):
        walls = [server_info.Wall(name="cgroup", holds=True, required=True, detail="v2"),
                 server_info.Wall(name="idmap", holds=False, required=False, detail="old kernel", fix="upgrade")]
        good = server_info.GetServerInfoResponse(walls=walls, ready=True, runtime_version="1")
        ran = self.doctor(good)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertIn(b"cgroup", ran.stdout)
        self.assertIn(b"upgrade", ran.stdout)
        walls[1].required = True
        self.assertEqual(self.doctor(server_info.GetServerInfoResponse(walls=walls, ready=True)).returncode, 125)
        self.assertEqual(self.doctor(server_info.GetServerInfoResponse(walls=walls[:1])).returncode, 125)
        self.assertEqual(self.doctor(server_info.GetServerInfoResponse(ready=True)).returncode, 125)

    def test_doctor_says_what_it_knows_of_leaving(self):
        walls = [server_info.Wall(name="cgroup", holds=True, required=True),
                 server_info.Wall(name="egress_relay", holds=False, detail="hotcell-egress has ended", fix="read the log")]
        ran = self.doctor(server_info.GetServerInfoResponse(walls=walls, ready=True))
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertIn(b"read the log", ran.stdout)
        self.assertIn(b"What policies allow can leave sandboxes: NO, see egress_relay above.", ran.stdout)
        walls[1].holds = True
        self.assertIn(b"What policies allow can leave sandboxes: hotcell-egress is there and answers; whether this host has routes and a name server "
                      b"that answers was not asked.", self.doctor(server_info.GetServerInfoResponse(walls=walls, ready=True)).stdout)
        self.assertNotIn(b"leave sandboxes", self.doctor(server_info.GetServerInfoResponse(walls=walls[:1], ready=True)).stdout)

    def test_doctor_of_a_stranger_does_without_a_new_probe(self):
        def answer(request):
            if request.probe_walls:
                raise Refuse(grpc.StatusCode.PERMISSION_DENIED, "operators only")
            return server_info.GetServerInfoResponse(
                ready=True, walls=[server_info.Wall(name="w", holds=True, required=True)])
        self.assertEqual(self.hotcell(self.serve(GetServerInfo=answer), "doctor").returncode, 0)

    @unittest.skipUnless(os.geteuid() == 0, "only root may let the runtime probe")
    def test_doctor_without_a_server_asks_the_runtime(self):
        with tempfile.TemporaryDirectory() as folder:
            runtime = os.path.join(folder, "hotcell-runtime")
            with open(runtime, "w", encoding="utf-8") as file:
                file.write('#!/bin/sh\n[ "$1" = --probe=json ] || exit 9\n'
                           'echo "$*" >"${0%/*}/arguments"\n'
                           'echo \'{"walls": [{"name": "seccomp", "holds": false, "required": true, '
                           '"detail": "no", "fix": "mend it"}]}\'\nexit 1\n')
            os.chmod(runtime, 0o755)
            for store, wanted in (("", "--probe=json\n"), ("/a store", "--probe=json --store /a store\n")):
                ran = self.hotcell(None, "--target", f"{folder}/socket", "doctor", HOTCELL_RUNTIME=runtime, HOTCELL_STORE=store)
                with open(f"{folder}/arguments", encoding="utf-8") as file:
                    self.assertEqual(file.read(), wanted)
        self.assertEqual(ran.returncode, 125)
        self.assertIn(b"seccomp  NO", ran.stdout)
        self.assertIn(b"mend it", ran.stdout)
        self.assertIn(b"cannot be reached", ran.stdout)

    def test_version(self):
        server = self.serve(GetServerInfo=lambda request: server_info.GetServerInfoResponse(version="9.9"))
        ran = self.hotcell(server, "version")
        self.assertIn(b"server 9.9", ran.stdout)
        self.assertEqual(self.hotcell(None, "version", "--client").returncode, 0)

    def test_version_shows_how_long_things_may_take(self):
        info = server_info.GetServerInfoResponse(version="9.9")
        info.ttl.unless_set.FromSeconds(3600)
        info.ttl.max.FromSeconds(30 * 86400)
        info.idle_timeout.unless_set.FromSeconds(0)
        info.idle_timeout.max.FromSeconds(5400)
        info.idle_timeout.zero_allowed = True
        info.execution_timeout.unless_set.FromSeconds(90)
        info.execution_timeout.max.FromMilliseconds(100500)
        lines = self.hotcell(self.serve(GetServerInfo=lambda request: info), "version").stdout.decode().splitlines()
        self.assertEqual(lines[-3:], ["  --ttl: 1h unless set, at most 30d, 0 is refused",
                                      "  --idle-timeout: none unless set, at most 90m, 0 for none",
                                      "  --timeout: 90s unless set, at most 100.5s, 0 is refused"])

    def test_version_shows_how_much_an_egress_policy_may_say(self):
        info = server_info.GetServerInfoResponse(version="9.9")
        info.egress_limits.rules, info.egress_limits.port_ranges, info.egress_limits.converted_names, info.egress_limits.bytes = 100, 8, 10, 15 << 18
        lines = self.hotcell(self.serve(GetServerInfo=lambda request: info), "version").stdout.decode().splitlines()
        self.assertEqual(lines[-1], "  --allow, --deny: at most 100 together, with 8 ranges of ports each, 10 labels of names that are not ASCII, 3.75 MiB in all")

    def test_version_shows_how_it_measures(self):
        info = server_info.GetServerInfoResponse(version="9.9")
        info.metering.programs = True
        lines = self.hotcell(self.serve(GetServerInfo=lambda request: info), "version").stdout.decode().splitlines()
        self.assertEqual(lines[-1], "  metering: eBPF and cgroup files")
        info.metering.programs, info.metering.detail = False, "refused\x1b"
        info.metering.missing.extend(["scheduled_time", "rss_peak_bytes"])
        info.metering.slots, info.metering.slots_refused = 8, 3
        lines = self.hotcell(self.serve(GetServerInfo=lambda request: info), "version").stdout.decode().splitlines()
        self.assertEqual(lines[-1], "  metering: cgroup files alone (refused\\x1b); not measured: scheduled_time, rss_peak_bytes; 3 processes had none of 8 slots")

    def test_code_that_ran_out_of_time_has_a_hint(self):
        ran = self.run_script(play(ended(execution.OUTCOME_TIMEOUT, cause=execution.CAUSE_LIMIT)))
        self.assertEqual(ran.stderr.decode().splitlines(), ["hotcell: it ran out of time (TIMEOUT, cause LIMIT)",
                                                            "  hint: --timeout gives it longer"])

    def test_what_a_limit_ended_has_a_hint_that_gives_it_more(self):
        for outcome, hint in ((execution.OUTCOME_OOM, "--memory gives it more"),
                              (execution.OUTCOME_OUTPUT_LIMIT, "--output-limit lets it write more, --on-output-limit truncate goes on without")):
            ran = self.run_script(play(ended(outcome, cause=execution.CAUSE_LIMIT)))
            self.assertEqual(ran.stderr.decode().splitlines()[1:], ["  hint: " + hint])
            ran = self.run_script(play(ended(outcome, cause=execution.CAUSE_CLIENT)))
            self.assertNotIn(b"hint", ran.stderr)
        ran = self.hotcell(self.serve(play(ended(execution.OUTCOME_OOM, cause=execution.CAUSE_LIMIT))), "exec", SANDBOX_ID, "-c", "code")
        self.assertIn(b"hint: `hotcell sandbox update --memory` gives its sandbox more", ran.stderr)

    def test_an_update_of_a_sandbox_says_that_what_is_not_given_stays(self):
        self.assertNotIn(b"nothing unless given", self.hotcell(None, "sandbox", "update", "--help").stdout)
        self.assertIn(b"nothing unless given", self.hotcell(None, "sandbox", "create", "--help").stdout)

    def test_help_lists_only_options_that_do_something(self):
        for command in ("sandbox rm", "context rm"):
            self.assertNotIn(b"--output", self.hotcell(None, *command.split(), "--help").stdout)
            ran = self.hotcell(None, *command.split(), "-o", "json", "a", "b")
            self.assertEqual((ran.returncode, ran.stdout), (125, b""))

    def test_help_about_help_is_help(self):
        for arguments in (["help", "--help"], ["--help", "--help"], ["help", "help"], ["sandbox", "help", "--help"]):
            ran = self.hotcell(None, *arguments)
            self.assertEqual(ran.returncode, 0, arguments)
            self.assertIn(b"Commands:", ran.stdout)


if __name__ == "__main__":
    unittest.main()
