"""What `hotcell` says of mistakes and refusals."""

import tempfile
import unittest

import grpc

from cli_case import CliTest, SlowRelay, play
from fake_server import SANDBOX_ID, Refuse, chunk, details_pb2


class Errors(CliTest):
    def test_rich_errors_are_shown_in_full(self):
        def script(_server, _after):
            bad = details_pb2.BadRequest()
            bad.field_violations.add(field="sandbox.limits.disk_bytes", description="needs room \x1b[2J")
            bad.field_violations.add(field="sandbox.limits.memory_bytes", description="too small")
            retry = details_pb2.RetryInfo()
            retry.retry_delay.FromMilliseconds(1500)
            raise Refuse(grpc.StatusCode.INVALID_ARGUMENT, "the limits do not fit\n\x07",
                         details_pb2.ErrorInfo(reason="LIMITS", domain="hotcell.dev"), bad, retry,
                         details_pb2.ResourceInfo(resource_type="sandbox", resource_name="box"))
            yield  # pylint: disable=unreachable
        ran = self.run_script(script)
        self.assertEqual(ran.returncode, 125)
        self.assertEqual(ran.stderr.decode().splitlines(), [
            "hotcell: the limits do not fit\\n\\x07",
            "  reason: LIMITS",
            "  --disk (sandbox.limits.disk_bytes): needs room \\x1b[2J",
            "  --memory (sandbox.limits.memory_bytes): too small",
            "  try again in: 1.5 s",
            "  sandbox: box"])

    def test_a_field_is_called_what_the_command_line_calls_it(self):
        def refusal(field, message):
            def refuse(*_):
                bad = details_pb2.BadRequest()
                bad.field_violations.add(field=field, description="is bad")
                raise Refuse(grpc.StatusCode.INVALID_ARGUMENT, message, bad)
            return refuse

        fields = {"spec." + field: flag for field, flag in {
            "name": "--name", "template": "--template", "ttl": "--ttl", "idle_timeout": "--idle-timeout",
            "labels": "--label", "environment": "--env", "limits.memory_bytes": "--memory", "limits.cpu_millis": "--cpus",
            "limits.processes": "--processes", "limits.disk_bytes": "--disk", "limits.open_files": "--open-files",
            "limits.execution.timeout": "--timeout", "limits.execution.output_bytes": "--output-limit",
            "egress.default_action": "--egress-default"}.items()}
        known = self.hotcell(None, "sandbox", "create", "--help").stdout.decode()
        for field, flag in fields.items():
            with self.subTest(field=field):
                self.assertIn(flag + " ", known)
                ran = self.hotcell(self.serve(CreateSandbox=refusal(field, f"{field} is bad")), "sandbox", "create")
                self.assertEqual(ran.stderr.decode().splitlines(), [f"hotcell: {flag} is bad"])
        known = self.hotcell(None, "run", "--help").stdout.decode()
        for field, flag in (("limits.timeout", "--timeout"), ("limits.output_bytes", "--output-limit"),
                            ("environment", "--env"), ("language", "--language"), ("on_output_limit", "--on-output-limit"),
                            ("sandbox.limits.memory_bytes", "--memory")):
            with self.subTest(field=field):
                self.assertIn(flag + " ", known)
                ran = self.run_script(refusal(field, "No."))
                self.assertEqual(ran.stderr.decode().splitlines(), ["hotcell: No.", f"  {flag} ({field}): is bad"])

    def test_a_field_that_no_flag_sets_keeps_its_name(self):
        def refuse(_request):
            bad = details_pb2.BadRequest()
            bad.field_violations.add(field="page_size", description="is bad")
            bad.field_violations.add(field="name", description="is bad")
            raise Refuse(grpc.StatusCode.INVALID_ARGUMENT, "page_size is bad", bad)
        ran = self.hotcell(self.serve(CreateKey=refuse), "key", "create", "x")
        self.assertEqual(ran.stderr.decode().splitlines(), ["hotcell: page_size is bad", "  NAME (name): is bad"])

    def test_a_rule_is_named_as_it_was_written(self):
        def refused(part, description, i=1):
            def refuse(_request):
                bad = details_pb2.BadRequest()
                bad.field_violations.add(field=f"spec.egress.rules[{i}]{part}", description=description)
                bad.field_violations.add(field="spec.egress.rules[2].ports[0].first", description="is 0")
                raise Refuse(grpc.StatusCode.INVALID_ARGUMENT, f"spec.egress.rules[{i}]{part} {description}", bad)
            ran = self.hotcell(self.serve(CreateSandbox=refuse), "sandbox", "create", "--deny", "c.org:7", "--allow", "a.org", "--allow", "10.0.0.1/8:9")
            return ran.stderr.decode().splitlines()
        second = "  --deny 'c.org:7' (spec.egress.rules[2].ports[0].first): is 0"
        for part, description, said in ((".cidr", "'10.0.0.1/8' has bits set", ": '10.0.0.1/8' has bits set"),
                                        (".ports[1].first", "is 0", ": a port is 0"), (".ports", "has more", ": it has more"),
                                        ("", "makes more", ": it makes more")):
            self.assertEqual(refused(part, description), [f"hotcell: --allow '10.0.0.1/8:9'{said}", second])
        self.assertEqual(refused("", "is odd", i=3)[0], "hotcell: spec.egress.rules[3] is odd")
        self.assertEqual(refused("x]y", "is odd", i="")[0], "hotcell: spec.egress.rules[]x]y is odd")

    def test_other_fields_in_a_sentence_are_called_by_their_flags_too(self):
        def refuse(_request):
            bad = details_pb2.BadRequest()
            bad.field_violations.add(field="spec.limits.disk_bytes", description="is not below memory_bytes")
            bad.field_violations.add(field="spec.limits.memory_bytes", description="is not above disk_bytes, an_odd_word or processes")
            raise Refuse(grpc.StatusCode.INVALID_ARGUMENT, "spec.limits.disk_bytes is not below memory_bytes", bad)
        ran = self.hotcell(self.serve(CreateSandbox=refuse), "sandbox", "create")
        self.assertEqual(ran.stderr.decode().splitlines(), [
            "hotcell: --disk is not below --memory",
            "  --memory (spec.limits.memory_bytes): is not above --disk, an_odd_word or processes"])

    def test_an_unknown_scope_names_the_flag(self):
        def refuse(_request):
            bad = details_pb2.BadRequest()
            bad.field_violations.add(field="scopes", description="has an unknown scope; known are a, b")
            raise Refuse(grpc.StatusCode.INVALID_ARGUMENT, "scopes has an unknown scope; known are a, b", bad)
        ran = self.hotcell(self.serve(CreateKey=refuse), "key", "create", "--scope", "foo", "x")
        self.assertEqual(ran.stderr.decode(), "hotcell: --scope has an unknown scope; known are a, b\n")

    def test_no_answer_in_time_has_a_hint(self):
        def refuse(_request):
            raise Refuse(grpc.StatusCode.DEADLINE_EXCEEDED, "slow")
        ran = self.hotcell(self.serve(DeleteSandbox=refuse), "sandbox", "rm", SANDBOX_ID)
        self.assertIn(b"  hint: the server is there but did not answer in time", ran.stderr)

    def test_a_known_reason_has_a_hint(self):
        def refuse(_request):
            raise Refuse(grpc.StatusCode.FAILED_PRECONDITION, "it ended",
                         details_pb2.ErrorInfo(reason="SANDBOX_ENDED", domain="hotcell.dev"))
        ran = self.hotcell(self.serve(DeleteSandbox=refuse), "sandbox", "rm", SANDBOX_ID)
        self.assertEqual(ran.returncode, 125)
        self.assertIn(b"  hint: `hotcell sandbox inspect` says why", ran.stderr)

    def test_a_server_that_is_slow_to_greet_is_waited_for(self):
        """On a busy machine, and where processors are emulated, a second is soon over."""
        server = self.serve(play({"stdout": chunk(b"late")}))
        with tempfile.TemporaryDirectory() as folder:
            relay = SlowRelay(f"{folder}/socket", server.address, seconds=1.5)
            self.addCleanup(relay.close)
            ran = self.hotcell(None, "--target", f"{folder}/socket", "run", "-c", "x")
        self.assertEqual((ran.returncode, ran.stdout), (0, b"late"), ran.stderr)

    def test_no_socket(self):
        ran = self.hotcell(None, "--target", "/nonexistent/socket", "run", "-c", "x")
        self.assertEqual(ran.returncode, 125)
        self.assertIn(b"cannot reach the server at unix:/nonexistent/socket: No such file or directory", ran.stderr)
        self.assertIn(b"`hotcell doctor` looks further", ran.stderr)

    def test_a_limit_that_is_not_possible_is_called_as_its_flag(self):
        def refuse(_request):
            raise Refuse(grpc.StatusCode.FAILED_PRECONDITION, "The runtime refused the limits: limits.disk_bytes: 1 is too low. No limits of memory.",
                         details_pb2.ErrorInfo(reason="LIMIT_NOT_POSSIBLE", domain="hotcell.dev"))

        ran = self.hotcell(self.serve(UpdateSandbox=refuse), "sandbox", "update", "--disk", "1", SANDBOX_ID)
        self.assertEqual(ran.stderr.decode().splitlines()[0], "hotcell: The runtime refused the limits: --disk: 1 is too low. No limits of memory.")

    def test_fields_of_usage_are_called_as_its_flags(self):
        def refusal(field, description):
            def refuse(_request):
                bad = details_pb2.BadRequest()
                bad.field_violations.add(field=field, description=description)
                raise Refuse(grpc.StatusCode.INVALID_ARGUMENT, f"{field} {description}", bad)
            return refuse

        for field, description, said in (("destinations", "needs sandbox_id or execution_id", "--destinations needs SANDBOX or --execution"),
                                         ("end_time", "is not after start_time", "--until is not after --since"),
                                         ("owner", "is none", "--owner is none")):
            ran = self.hotcell(self.serve(GetUsage=refusal(field, description)), "usage")
            self.assertEqual(ran.stderr.decode().splitlines(), [f"hotcell: {said}"])

    def test_a_quota_names_the_flag_that_asks_for_less(self):
        for reason, field, flag in (("MEMORY_LIMIT", "limits.memory_bytes", "--memory"), ("CPU_LIMIT", "limits.cpu_millis", "--cpus")):
            def refuse(_request, reason=reason, field=field):
                raise Refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, f"Ask for less ({field}).",
                             details_pb2.ErrorInfo(reason=reason, domain="hotcell.dev"))

            ran = self.hotcell(self.serve(CreateSandbox=refuse), "sandbox", "create")
            self.assertEqual(ran.stderr.decode().splitlines()[0], f"hotcell: Ask for less ({flag}).")

    def test_only_limits_that_version_shows_are_said_to_be_there(self):
        for field, is_shown in (("period", False), ("quotas.memory_bytes", False), ("spec.limits.memory_bytes", True), ("limits.timeout", True),
                                ("spec.ttl", True), ("spec.idle_timeout", True)):
            def refuse(_request, field=field):
                bad = details_pb2.BadRequest()
                bad.field_violations.add(field=field, description="is too low")
                raise Refuse(grpc.StatusCode.INVALID_ARGUMENT, f"{field} is too low", bad,
                             details_pb2.ErrorInfo(reason="LIMIT_OUT_OF_RANGE", domain="hotcell.dev"))

            ran = self.hotcell(self.serve(CreateSandbox=refuse), "sandbox", "create")
            self.assertEqual(b"`hotcell version`" in ran.stderr, is_shown, field)

    def test_a_quota_is_not_told_twice(self):
        def refuse(_request):
            raise Refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "Your quota is 1.", details_pb2.QuotaFailure(violations=[{"subject": "key-a", "description": "sandboxes: Your quota is 1."}]))

        ran = self.hotcell(self.serve(CreateSandbox=refuse), "sandbox", "create")
        self.assertEqual(ran.stderr.decode().splitlines()[:2], ["hotcell: Your quota is 1.", "  key-a: sandboxes"])

    def test_usage_mistakes_exit_125_with_one_line(self):
        for arguments, expected in (
                (["rnu"], "hotcell: no command 'rnu'; did you mean 'run'?"),
                (["attach"], "hotcell: no command 'attach'; did you mean 'logs'?"),
                (["sandbox", "delete"], "hotcell: sandbox: no command 'delete'; did you mean 'rm'?"),
                (["sandbox", "creat"], "hotcell: sandbox: no command 'creat'; did you mean 'create'?"),
                (["run", "--timout", "1", "-c", "x"], "hotcell: run: no option --timout; did you mean --timeout?"),
                (["run", "--mmeory=1", "-c", "x"], "hotcell: run: no option --mmeory=1; did you mean --memory?"),
                (["run", "-Z"], "hotcell: run: no option -Z; see `hotcell run --help`"),
                (["run", "--timeout", "1y", "-c", "x"],
                 "hotcell: run: --timeout takes a duration such as 250ms, 1.5s, 2m, 1h or 7d, not '1y'"),
                (["run", "--memory", "-1", "-c", "x"],
                 "hotcell: run: --memory takes bytes such as 1048576, 512M or 2GiB, not '-1'"),
                (["run", "--cpus", "1.2345", "-c", "x"],
                 "hotcell: run: --cpus takes CPUs such as 1 or 1.5, in steps of 0.001 up to 2147483647, not '1.2345'"),
                (["run", "--label", "x", "-c", "x"], "hotcell: run: --label takes KEY=VALUE, not 'x'"),
                (["run", "--timeout"], "hotcell: run: --timeout needs a value: DURATION"),
                (["run", "--allow", "-c", "1"], "hotcell: run: --allow needs a value: [PROTOCOL:]HOST[:PORTS], not '-c'"),
                (["exec", "--allow", "a.org", "3k7q", "-c", "1"], "hotcell: exec: no option --allow; a sandbox has one policy for all that runs in it: "
                                                                  "`hotcell sandbox update` replaces it"),
                (["exec", "--egress-default=deny", "3k7q", "-c", "1"], "hotcell: exec: no option --egress-default; a sandbox has one policy"),
                (["run", "-o", "xml", "-c", "x"], "hotcell: run: --output is one of text|json|jsonl, not 'xml'"),
                (["sandbox", "ls", "--state", "dead"],
                 "hotcell: sandbox ls: --state is one of creating, running, ending, ended, not 'dead'"),
                (["--target", "example.com:1", "ps"], "hotcell: --target example.com:1: code and keys")):
            with self.subTest(arguments=arguments):
                ran = self.hotcell(None, *arguments)
                self.assertEqual(ran.returncode, 125)
                self.assertTrue(ran.stderr.decode().startswith(expected), ran.stderr)
                self.assertEqual(ran.stderr.count(b"\n"), 1)
                self.assertEqual(ran.stdout, b"")

    def test_a_missing_operand_shows_the_usage(self):
        ran = self.hotcell(None, "exec")
        self.assertEqual(ran.returncode, 125)
        self.assertIn(b"exec: SANDBOX is missing\nUsage: hotcell exec ", ran.stderr)

    def test_bad_code_never_reaches_the_server(self):
        server = self.serve(play())
        for stdin, expected in ((b"\xff", b"must be UTF-8"), (b"a\0b", b"must be UTF-8"),
                                (b"x" * (1 << 20) + b"x", b"at most 1 MiB")):
            ran = self.hotcell(server, "run", "-", stdin=stdin)
            self.assertEqual(ran.returncode, 125)
            self.assertIn(expected, ran.stderr)
        self.assertEqual(server.requests, [])

    def test_every_command_has_help_with_examples(self):
        for command in ("run", "exec", "sandbox create", "sandbox ls", "sandbox inspect", "sandbox update", "sandbox rm",
                        "context create", "context ls", "context restart", "context rm", "ps", "logs", "egress log", "watch", "doctor",
                        "key create", "key ls", "key revoke", "version"):
            with self.subTest(command=command):
                ran = self.hotcell(None, *command.split(), "--help")
                self.assertEqual((ran.returncode, ran.stderr), (0, b""))
                self.assertTrue(ran.stdout.startswith(f"Usage: hotcell {command} ".encode()))
                self.assertIn(b"\nExamples:\n  ", ran.stdout)
                self.assertEqual(b"more than 50 refusals a second" in ran.stdout, command in ("run", "exec"))


if __name__ == "__main__":
    unittest.main()
