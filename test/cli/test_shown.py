"""What `hotcell` shows and saves of an execution whose events a server plays."""

import base64
import json
import os
import pty
import re
import select
import signal
import subprocess
import tempfile
import threading
import time
import unittest

from cli_case import CliTest, HOTCELL, TIMEOUT, play, started
from fake_server import (EXECUTION_ID, SANDBOX_ID, bundle, chunk, egress, egress_service, ended, execution,
                         executions, queued, sandbox, sandboxes)


class Output(CliTest):
    def test_streams_are_byte_exact_and_apart(self):
        junk = bytes(range(256)) * 300
        ran = self.run_script(play({"stdout": chunk(junk)}, {"stderr": chunk(b"\xff\x1b[31m")},
                                   {"stdout": chunk(b"end", len(junk))}))
        self.assertEqual(ran.stdout, junk + b"end")
        self.assertEqual(ran.stderr, b"\xff\x1b[31m")
        self.assertEqual(ran.returncode, 0)

    def test_output_arrives_before_the_end(self):
        go_on = threading.Event()

        def script(_server, _after):
            yield queued()
            yield {"stdout": chunk(b"early\n")}
            if not go_on.wait(TIMEOUT):
                raise AssertionError("the client never showed the first line")
            yield ended(execution.OUTCOME_OK)
        process = self.spawn(self.serve(script), "run", "-c", "code")
        self.assertEqual(process.stdout.readline(), b"early\n")
        go_on.set()
        self.assertEqual(process.wait(TIMEOUT), 0)

    def test_a_result_begins_a_new_line(self):
        result = {"result": execution.Result(bundle=bundle(("text/plain", b"42")))}
        self.assertEqual(self.run_script(play(result)).stdout, b"42\n")
        self.assertEqual(self.run_script(play({"stdout": chunk(b"x\n")}, result)).stdout, b"x\n42\n")
        self.assertEqual(self.run_script(play({"stdout": chunk(b"x")}, result)).stdout, b"x\n42\n")

    def test_a_long_result_is_put_together(self):
        ran = self.run_script(play(
            {"result": execution.Result(bundle=bundle(("image/png", b"P"), ("text/plain", b"ab", 6)))},
            {"part_data": execution.PartData(bundle_sequence=3, part_index=1, offset=2, data=b"cd")},
            {"part_data": execution.PartData(bundle_sequence=3, part_index=0, offset=1, data=b"NG")},
            {"part_data": execution.PartData(bundle_sequence=3, part_index=1, offset=4, data=b"ef")},
            {"stdout": chunk(b"after")}))
        self.assertEqual(ran.stdout, b"abcdef\nafter")

    def test_an_error_shows_its_traceback_and_exits_1(self):
        ran = self.run_script(play(
            {"error": execution.ExecutionError(name="NameError", value="x",
                                               traceback=["Traceback", "NameError: x"])},
            ended(execution.OUTCOME_RAISED)))
        self.assertEqual(ran.stderr, b"Traceback\nNameError: x\n")
        self.assertEqual(ran.returncode, 1)

    def test_a_gap_and_truncation_are_named(self):
        ran = self.run_script(play({"gap": execution.Gap(events=3, stdout_bytes=70, stderr_bytes=5)},
                                   ended(execution.OUTCOME_OK, truncated_bytes=99)))
        self.assertIn(b"3 events are missing here, with 70 bytes", ran.stderr)
        self.assertIn(b"99 bytes of output beyond the limit", ran.stderr)

    def test_usage_goes_to_standard_error(self):
        usage = execution.Usage(memory_peak_bytes=3 << 20, stdout_bytes=5)
        usage.cpu_time.FromMilliseconds(1500)
        ran = self.run_script(play(ended(execution.OUTCOME_OK, usage=usage)), "--usage")
        self.assertEqual(ran.stdout, b"")
        self.assertEqual(ran.stderr, b"hotcell: usage: execution: cpu 1.500 s, wall 0.000 s, memory peak 3.0 MiB, stdout 5 B\n")

    def test_usage_of_the_sandbox_is_the_bill_with_the_start_of_the_interpreter(self):
        states = [sandbox.SANDBOX_STATE_ENDING, sandbox.SANDBOX_STATE_ENDED]
        usage = execution.Usage()
        usage.cpu_time.FromMilliseconds(1500)

        def get(_request):
            state = states.pop(0)
            total = execution.Usage()
            total.cpu_time.FromMilliseconds(1700 if state == sandbox.SANDBOX_STATE_ENDED else 1)
            return sandboxes.GetSandboxResponse(sandbox=sandbox.Sandbox(state=state, usage={"total": total}))

        server = self.serve(play(ended(execution.OUTCOME_OK, usage=usage)), GetSandbox=get)
        ran = self.hotcell(server, "run", "--usage", "-c", "code")
        self.assertEqual((ran.returncode, ran.stderr.decode().splitlines()), (0, [
            "hotcell: usage: execution: cpu 1.500 s, wall 0.000 s",
            "hotcell: usage: sandbox, its start and the interpreter's included: cpu 1.700 s, wall 0.000 s"]))

    def test_usage_says_what_is_worth_a_word(self):
        usage = execution.Usage(memory_peak_bytes=3 << 20, sent_bytes=1024, received_bytes=5 << 20, stderr_bytes=7, rich_bytes=9)
        for name, value in (("cpu", 1500), ("earlier_work", 250), ("throttled", 1250), ("wall", 2000)):
            getattr(usage, name + "_time").FromMilliseconds(value)
        usage.run_queue_wait.FromMilliseconds(125)
        ran = self.run_script(play(ended(execution.OUTCOME_OK, usage=usage)), "--usage")
        self.assertEqual(ran.stderr, b"hotcell: usage: execution: cpu 1.500 s, of it earlier work 0.250 s, waited for a CPU 0.125 s, throttled 1.250 s, "
                         b"wall 2.000 s, memory peak 3.0 MiB, sent 1.0 KiB, received 5.0 MiB, stderr 7 B, results 9 B\n")

    def test_usage_of_a_sandbox_that_ends_is_not_so_far(self):
        states = [sandbox.SANDBOX_STATE_ENDING, sandbox.SANDBOX_STATE_ENDED]
        server = self.serve(play(ended(execution.OUTCOME_OK)), GetSandbox=lambda _request: sandboxes.GetSandboxResponse(
            sandbox=sandbox.Sandbox(state=states.pop(0), usage={"total": execution.Usage()})))
        ran = self.hotcell(server, "exec", "--usage", SANDBOX_ID, "-c", "code")
        self.assertEqual(ran.stderr.decode().splitlines()[-1], "hotcell: usage: sandbox, all that ran in it: cpu 0.000 s, wall 0.000 s")

    def test_usage_that_was_measured_in_part_is_at_least_that(self):
        usage = execution.Usage(memory_peak_bytes=3 << 20, missing=["run_queue_wait", "rss_peak_bytes", "sent_bytes"])
        usage.cpu_time.FromMilliseconds(1500)
        usage.run_queue_wait.FromMilliseconds(125)
        ran = self.run_script(play(ended(execution.OUTCOME_OK, usage=usage)), "--usage")
        self.assertEqual(ran.stderr, b"hotcell: usage: execution: cpu 1.500 s, waited for a CPU at least 0.125 s, wall 0.000 s, memory peak 3.0 MiB"
                         b"; not measured, or not in full: run_queue_wait, rss_peak_bytes, sent_bytes\n")

    def test_usage_of_what_was_lost_is_what_was_read_last(self):
        usage = execution.Usage(memory_peak_bytes=3 << 20, missing=["cpu_time", "memory_peak_bytes", "oom_kills"])
        usage.cpu_time.FromMilliseconds(1500)
        ran = self.run_script(play(ended(execution.OUTCOME_LOST, usage=usage)), "--usage")
        self.assertEqual(ran.stderr.decode().splitlines()[-1], "hotcell: usage: execution: cpu at least 1.500 s, wall 0.000 s, "
                         "memory peak at least 3.0 MiB; more may have been used: its last meters were lost")

    def test_what_is_short_is_said_once_of_each_kind(self):
        def full(used):
            return {"pressure": execution.Pressure(kind=execution.PRESSURE_KIND_MEMORY_LIMIT, used=used << 20, limit=512 << 20,
                                                   message=f"Memory is nearly full: {used} of 512 MiB.")}
        later = {"pressure": execution.Pressure(kind=77, used=1, message="Another\x1b kind.")}
        server = self.serve(play({"stdout": chunk(b"out")}, {"stderr": chunk(b"mid")}, full(486), full(500), later, later))
        for words in (("exec", SANDBOX_ID), ("run",)):
            ran = self.hotcell(server, *words, "-c", "x")
            self.assertEqual((ran.returncode, ran.stdout), (0, b"out"))
            self.assertEqual(ran.stderr.decode().splitlines(), ["mid", "hotcell: memory is nearly full: 486 of 512 MiB"]
                             + 2 * ["hotcell: another\\x1b kind"])
        ran = self.hotcell(server, "exec", SANDBOX_ID, "-o", "jsonl", "-c", "x")
        told = [event["pressure"] for event in map(json.loads, ran.stdout.splitlines()) if "pressure" in event]
        self.assertEqual([(one["kind"], one["used"], one["limit"]) for one in told[:2]],
                         [("MEMORY_LIMIT", 486 << 20, 512 << 20), ("MEMORY_LIMIT", 500 << 20, 512 << 20)])
        self.assertEqual(told[0]["message"], "Memory is nearly full: 486 of 512 MiB.")
        self.assertEqual(ran.stderr, b"")

    def test_unknown_events_are_ignored(self):
        def script(_server, _after):
            yield queued()
            yield {}  # as an event of a later version looks to this one
            yield ended(execution.OUTCOME_OK)
        ran = self.run_script(script)
        self.assertEqual((ran.returncode, ran.stdout, ran.stderr), (0, b"", b""))

    def test_jsonl_has_one_event_a_line(self):
        ran = self.run_script(play({"stdout": chunk(b"hi\n")}, {"stderr": chunk(b"\xff")},
                                   ended(execution.OUTCOME_EXITED, exit_code=3)), "-o", "jsonl")
        events = [json.loads(line) for line in ran.stdout.splitlines()]
        self.assertEqual([e["sequence"] for e in events], [1, 2, 3, 4, 5])
        self.assertEqual(events[0]["queued"]["execution_id"], EXECUTION_ID)
        self.assertEqual(events[0]["event_time"], "2023-11-14T22:13:20.000Z")
        self.assertEqual(events[2]["stdout"],
                         {"data": base64.b64encode(b"hi\n").decode(), "text": "hi\n", "offset": 0})
        self.assertEqual(events[3]["stderr"], {"data": "/w==", "offset": 0})
        self.assertEqual(events[4]["ended"]["outcome"], "EXITED")
        self.assertEqual(events[4]["ended"]["exit_code"], 3)
        self.assertEqual(ran.returncode, 3)
        self.assertEqual(ran.stderr, b"")

    def test_json_is_one_object_at_the_end(self):
        ran = self.run_script(play({"stdout": chunk(b"hi")}, ended(execution.OUTCOME_TIMEOUT)), "-o", "json")
        whole = json.loads(ran.stdout)
        self.assertEqual(whole["execution_id"], EXECUTION_ID)
        self.assertEqual(whole["sandbox_id"], SANDBOX_ID)
        self.assertEqual(whole["exit_code"], 124)
        self.assertEqual(whole["ended"]["outcome"], "TIMEOUT")
        self.assertNotIn("exit_code", whole["ended"])
        self.assertEqual(len(whole["events"]), 4)

    def test_a_reader_that_leaves_ends_the_code(self):
        def script(server, _after):
            yield queued()
            for i in range(1000):
                yield {"stdout": chunk(b"y\n" * 4096, i)}
                if server.interrupts:
                    return
        server = self.serve(script)
        process = self.spawn(server, "run", "-c", "code")
        process.stdout.readline()
        process.stdout.close()
        self.assertEqual(process.wait(TIMEOUT), 128 + signal.SIGPIPE)
        self.assertEqual(server.interrupts, [executions.INTERRUPT_LEVEL_KILL])


class Egress(CliTest):
    def event(self, **fields):
        fields = {"sequence": 1, "sandbox_id": SANDBOX_ID, "type": egress.EGRESS_EVENT_TYPE_DENIED, "address": "1.2.3.4", "port": 443,
                  "protocol": egress.EGRESS_PROTOCOL_TCP, "reason": egress.EGRESS_REASON_DEFAULT, "count": 1} | fields
        event = egress.EgressEvent(**fields)
        event.event_time.FromMilliseconds(1700000000123)
        return event

    def test_an_execution_says_what_was_denied_in_lines_of_their_own(self):
        failed = {"type": egress.EGRESS_EVENT_TYPE_FAILED, "reason": 0, "error_number": 111, "error": "ECONNREFUSED"}
        lookup = {"name": "example.org", "address": "", "port": 53, "protocol": egress.EGRESS_PROTOCOL_UDP}
        for fields, line in (
                ({}, "egress denied: tcp 1.2.3.4:443 (no rule allows it)"),
                ({"address": "2001:db8::1", "count": 12}, "egress denied: tcp [2001:db8::1]:443 (no rule allows it), 12 times"),
                ({"reason": egress.EGRESS_REASON_NAME_ABSENT, "name": "a.org"}, "egress denied: tcp 1.2.3.4:443 a.org (the program named no host)"),
                ({"reason": egress.EGRESS_REASON_RULE, "rule_index": 3, "policy_version": 2},
                 "egress denied: tcp 1.2.3.4:443 (rule 3 of policy version 2 denies it)"),
                ({"reason": egress.EGRESS_REASON_RULE, "rule_index": 3, "policy_version": 2, "rule": "deny 1.2.3.0/24:443"},
                 "egress denied: tcp 1.2.3.4:443 (rule 3 of policy version 2: deny 1.2.3.0/24:443)"),
                ({"protocol": egress.EGRESS_PROTOCOL_UDP, "address": "169.254.169.254", "port": 53, "name": "a.org",
                  "reason": egress.EGRESS_REASON_ALWAYS_DENIED},
                 "egress denied: dns a.org (it is 169.254.169.254, which no rule can allow)"),
                ({"protocol": egress.EGRESS_PROTOCOL_UDP, "address": "169.254.169.254", "port": 53, "reason": egress.EGRESS_REASON_PROTOCOL},
                 "egress denied: udp 169.254.169.254:53 (the network does not carry this protocol)"),
                ({"name": "example.org MX", "address": "", "port": 53, "protocol": egress.EGRESS_PROTOCOL_UDP, "reason": egress.EGRESS_REASON_RECORD_TYPE},
                 "egress denied: dns example.org MX (the policy does not let records of this type be asked for)"),
                ({"address": "", "port": 53, "protocol": egress.EGRESS_PROTOCOL_UDP, "reason": egress.EGRESS_REASON_MALFORMED},
                 "egress denied: dns (the question is malformed)"),
                ({"reason": egress.EGRESS_REASON_MALFORMED + 90},
                 "egress denied: tcp 1.2.3.4:443 (for a reason that this client does not know)"),
                ({"name": "example.org", "reason": egress.EGRESS_REASON_NAME_MISMATCH},
                 "egress denied: tcp 1.2.3.4:443 example.org (it is not allowed under this name)"),
                ({"address": "", "port": 0, "name": "a\x1b.org", "reason": egress.EGRESS_REASON_RESOLVER},
                 "egress denied: dns a\\x1b.org (the policy does not allow the name)"),
                ({"protocol": egress.EGRESS_PROTOCOL_ICMP, "port": 0, "reason": egress.EGRESS_REASON_PROTOCOL},
                 "egress denied: icmp 1.2.3.4 (the network does not carry this protocol)"),
                ({"protocol": 0, "address": "", "port": 0, "reason": 99},
                 "egress denied: ip (for a reason that this client does not know)"),
                ({"left_out": 3}, "egress denied: tcp 1.2.3.4:443 (no rule allows it); 3 before it are only in `hotcell egress log`"),
                ({"type": egress.EGRESS_EVENT_TYPE_FLOW_ENDED, "reason": egress.EGRESS_REASON_POLICY_CHANGED},
                 "egress cut: tcp 1.2.3.4:443 (the policy was changed)"),
                (failed, "egress failed: tcp 1.2.3.4:443 (ECONNREFUSED)"),
                (failed | {"error": "ETIMEDOUT"}, "egress failed: tcp 1.2.3.4:443 (ETIMEDOUT)"),
                (failed | lookup | {"error": "ETIMEDOUT"}, "egress failed: dns example.org (no name server answered)"),
                (failed | lookup | {"error": "EREMOTEIO"}, "egress failed: dns example.org (the name server failed or cannot be reached)"),
                (failed | lookup | {"error": "EBADMSG"}, "egress failed: dns example.org (EBADMSG)")):
            with self.subTest(line):
                server = self.serve(play({"stdout": chunk(b"out")}, {"stderr": chunk(b"mid")}, {"egress": self.event(**fields)},
                                         {"stdout": chunk(b"put", 3)}))
                for words in (("exec", SANDBOX_ID), ("run",)):
                    ran = self.hotcell(server, *words, "-c", "x")
                    self.assertEqual((ran.returncode, ran.stdout, ran.stderr.decode()), (0, b"output", f"mid\nhotcell: {line}\n"))

    def test_what_is_no_denial_and_no_failure_is_not_said(self):
        server = self.serve(play({"egress": self.event(type=egress.EGRESS_EVENT_TYPE_FLOW_ENDED)}, {"egress": self.event(type=9)}))
        self.assertEqual(self.hotcell(server, "exec", SANDBOX_ID, "-c", "x").stderr, b"")

    def test_an_execution_has_it_as_an_event_in_json(self):
        server = self.serve(play({"egress": self.event(count=2)}))
        ran = self.hotcell(server, "exec", SANDBOX_ID, "-o", "jsonl", "-c", "x")
        event = json.loads(ran.stdout.splitlines()[2])
        self.assertEqual((event["egress"]["type"], event["egress"]["address"], event["egress"]["port"], event["egress"]["reason"],
                          event["egress"]["count"], event["egress"]["event_time"]),
                         ("DENIED", "1.2.3.4", 443, "DEFAULT", 2, "2023-11-14T22:13:20.123Z"))
        self.assertEqual(ran.stderr, b"")
        ran = self.hotcell(server, "exec", SANDBOX_ID, "-o", "json", "-c", "x")
        self.assertEqual([event for event in json.loads(ran.stdout)["events"] if "egress" in event][0]["egress"]["protocol"], "TCP")

    def test_the_log(self):
        flow = self.event(type=egress.EGRESS_EVENT_TYPE_FLOW_ENDED, reason=0, name="example.org", command="c\x1burl", pid=4711, execution_id=EXECUTION_ID,
                          sent_bytes=100, received_bytes=2048)
        flow.duration.FromMilliseconds(1500)
        cut = self.event(type=egress.EGRESS_EVENT_TYPE_FLOW_ENDED, reason=egress.EGRESS_REASON_POLICY_CHANGED, sent_bytes=5)
        cut.duration.FromMilliseconds(2500)
        events = [self.event(count=7), flow, cut, self.event(type=egress.EGRESS_EVENT_TYPE_FAILED, reason=0, error="ETIMEDOUT")]

        def answer(request):
            start = int(request.page_token or 0)
            end = start + 2  # small pages, so that the client must turn them
            return egress_service.ListEgressEventsResponse(events=events[start:end], next_page_token=str(end) if end < len(events) else "")
        server = self.serve(ListEgressEvents=answer)
        ran = self.hotcell(server, "egress", "log", SANDBOX_ID)
        self.assertEqual((ran.returncode, ran.stderr), (0, b""))
        self.assertEqual([re.split("  +", line.rstrip()) for line in ran.stdout.decode().splitlines()], [
            ["TIME", "DECISION", "DESTINATION", "NAME", "REASON", "COMMAND", "PID", "EXECUTION"],
            ["2023-11-14T22:13:20.123Z", "DENIED x7", "tcp 1.2.3.4:443", "-", "no rule allows it", "-", "-", "-"],
            ["2023-11-14T22:13:20.123Z", "FLOW_ENDED", "tcp 1.2.3.4:443", "example.org", "100 B sent, 2.0 KiB received, 1.5 s", "c\\x1burl",
             "4711", EXECUTION_ID],
            ["2023-11-14T22:13:20.123Z", "FLOW_ENDED", "tcp 1.2.3.4:443", "-", "5 B sent, 0 B received, 2.5 s; the policy was changed", "-", "-", "-"],
            ["2023-11-14T22:13:20.123Z", "FAILED", "tcp 1.2.3.4:443", "-", "ETIMEDOUT", "-", "-", "-"]])
        request = server.requests[0][1]
        self.assertEqual((request.sandbox_id, request.execution_id, list(request.types)), (SANDBOX_ID, "", []))
        lines = self.hotcell(server, "egress", "log", "-o", "jsonl", SANDBOX_ID).stdout.splitlines()
        self.assertEqual([json.loads(line)["type"] for line in lines], ["DENIED", "FLOW_ENDED", "FLOW_ENDED", "FAILED"])
        rows = json.loads(self.hotcell(server, "egress", "log", "-o", "json", SANDBOX_ID).stdout)
        self.assertEqual([row.get("duration") for row in rows], [None, "1.5s", "2.5s", None])
        self.hotcell(server, "egress", "log", "--type", "denied", "--type", "FAILED", "--execution", EXECUTION_ID, SANDBOX_ID)
        request = [request for method, request, _ in server.requests if method == "ListEgressEvents"][-1]
        self.assertEqual((request.execution_id, list(request.types)), (EXECUTION_ID, [1, 2]))
        for word in ("flow_ended", "flow-ended", "FLOW_ENDED"):
            self.assertEqual(self.hotcell(server, "egress", "log", "--type", word, SANDBOX_ID).returncode, 0, word)
            self.assertEqual(list([request for method, request, _ in server.requests if method == "ListEgressEvents"][-1].types), [3])

    def test_the_log_says_last_how_many_refusals_are_not_in_it(self):
        box = sandbox.Sandbox(sandbox_id=SANDBOX_ID)
        box.egress_status.refusals.denied, box.egress_status.refusals.logged, box.egress_status.refusals.dropped = 4500, 71, 4429
        server = self.serve(ListEgressEvents=lambda request: egress_service.ListEgressEventsResponse(events=[self.event()]),
                            GetSandbox=lambda request: sandboxes.GetSandboxResponse(sandbox=box))
        said = b"hotcell: 4429 of 4500 refusals in the sandbox are not in the log: they were too many at once, and only counted\n"
        for words in ((), ("-o", "jsonl")):
            ran = self.hotcell(server, "egress", "log", *words, SANDBOX_ID)
            self.assertEqual((ran.returncode, ran.stderr), (0, said))
        with tempfile.TemporaryFile() as file:  # both streams in one, as with 2>&1
            subprocess.run([HOTCELL, "egress", "log", SANDBOX_ID], stdout=file, stderr=file, env=self.environment(server), check=True, timeout=TIMEOUT)
            file.seek(0)
            self.assertEqual(file.read(), self.hotcell(server, "egress", "log", SANDBOX_ID).stdout + said)
        shown = json.loads(self.hotcell(server, "sandbox", "inspect", SANDBOX_ID).stdout)
        self.assertEqual(int(shown["egress_status"]["refusals"]["dropped"]), 4429)
        box.egress_status.refusals.denied, box.egress_status.refusals.dropped = 71, 0
        self.assertEqual(self.hotcell(server, "egress", "log", SANDBOX_ID).stderr, b"")

    def test_mistakes_are_said(self):
        ran = self.hotcell(None, "egress", "log", "--type", "allowed", SANDBOX_ID)
        self.assertEqual((ran.returncode, ran.stderr), (125, b"hotcell: egress log: --type is one of denied, failed, flow_ended, not 'allowed'\n"))
        for word in ("flow", "flow_ended_", "denied-", ""):
            self.assertEqual(self.hotcell(None, "egress", "log", "--type", word, SANDBOX_ID).returncode, 125, word)
        ran = self.hotcell(None, "egress", "logs", SANDBOX_ID)
        self.assertEqual((ran.returncode, ran.stderr), (125, b"hotcell: egress: no command 'logs'; did you mean 'log'?\n"))


class Terminal(CliTest):
    """What is shown on a terminal: a pty for both streams."""

    def show(self, script, *arguments):
        server = self.serve(script)
        main, sub = pty.openpty()
        with subprocess.Popen([HOTCELL, *arguments], stdin=sub, stdout=sub, stderr=sub,
                              env=self.environment(server, NO_COLOR="1")) as process:
            os.close(sub)
            shown = b""
            while True:
                ready, _, _ = select.select([main], [], [], TIMEOUT)
                try:
                    got = os.read(main, 65536) if ready else b""
                except OSError:
                    got = b""
                if not got:
                    break
                shown += got
        os.close(main)
        return shown.replace(b"\r\n", b"\n")

    def test_results_and_errors_are_escaped_and_output_is_raw(self):
        shown = self.show(play(
            {"stdout": chunk(b"\x1b[1mraw\x1b[0m\n")},
            {"result": execution.Result(bundle=bundle(("text/plain", b"'\x1b]0;evil\x07'")))},
            {"error": execution.ExecutionError(name="E", value="", traceback=["bad \u009b \u202e"])},
            ended(execution.OUTCOME_RAISED)), "run", "-c", "code")
        self.assertIn(b"\x1b[1mraw\x1b[0m\n", shown)
        self.assertIn(b"'\\x1b]0;evil\\x07'\n", shown)
        self.assertIn(b"bad \\xc2\\x9b \\xe2\\x80\\xae\n", shown)

    def test_a_spinner_shows_life_and_goes_away(self):
        release = threading.Event()

        def script(_server, _after):
            yield queued()
            if not release.wait(1.8):  # longer than the second that it keeps quiet
                pass
            yield started()
            yield {"stdout": chunk(b"done\n")}
            yield ended(execution.OUTCOME_OK)
        shown = self.show(script, "run", "-c", "code")
        self.assertIn(b"waiting for the interpreter, 1 s", shown)
        self.assertTrue(shown.endswith(b"\r\x1b[Kdone\n"), shown)

    def test_who_waits_in_a_queue_is_told_so(self):
        def script(_server, _after):
            event = queued()
            event["queued"].position = 2
            yield event
            time.sleep(1.8)  # longer than the second that it keeps quiet
            yield started()
            yield ended(execution.OUTCOME_OK)
        self.assertIn(b"waiting, 2 executions came before it, 1 s", self.show(script, "run", "-c", "code"))

    def test_a_picture_is_mentioned(self):
        shown = self.show(play({"stdout": chunk(b"out")},
                               {"display": execution.Display(bundle=bundle(("image/png", b"PNG")))}), "run", "-c", "code")
        self.assertEqual(shown, b"out\nhotcell: image/png, 3 B, not saved: use --save DIR\n")


class Saving(CliTest):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.target = os.path.join(self.folder.name, "out")

    def read(self, name):
        with open(os.path.join(self.target, name), "rb") as file:
            return file.read()

    def save(self, *events):
        return self.run_script(play(*events), "--save", self.target)

    def test_parts_become_files_with_our_names(self):
        ran = self.save(
            {"result": execution.Result(bundle=bundle(("text/plain", b"<Figure>"), ("image/png", b"PNG1"),
                                                      ("text/html", b"<p>")))},
            {"display": execution.Display(bundle=bundle(("../../evil/x.sh", b"x")))})
        self.assertEqual(sorted(os.listdir(self.target)), ["1-result.html", "1-result.png", "2-display.bin"])
        self.assertEqual(self.read("1-result.png"), b"PNG1")
        self.assertEqual(ran.stdout, b"<Figure>\n")
        self.assertIn(f"saved {self.target}/1-result.png (4 bytes)".encode(), ran.stderr)

    def test_parts_that_come_in_pieces_are_put_together(self):
        self.save({"result": execution.Result(bundle=bundle(("image/png", b"ab", 5)))},
                  {"part_data": execution.PartData(bundle_sequence=3, part_index=0, offset=2, data=b"cd")},
                  {"part_data": execution.PartData(bundle_sequence=3, part_index=0, offset=4, data=b"e")})
        self.assertEqual(self.read("1-result.png"), b"abcde")

    def test_what_is_not_saved_is_said(self):
        events = ({"stderr": chunk(b"err")},
                  {"result": execution.Result(bundle=bundle(("text/plain", b"<Figure>"), ("image/png", b"P", 60000),
                                                            ("text/html", b"<p>")))},
                  {"display": execution.Display(bundle=bundle(("application/json\x1b[2J", b"{}")))})
        ran = self.run_script(play(*events))
        self.assertEqual(ran.stdout, b"<Figure>\n")
        self.assertEqual(ran.stderr.decode(), "err\nhotcell: image/png, 58.6 KiB, not saved: use --save DIR\n"
                         "hotcell: application/json\\x1b[2J, 2 B, not saved: use --save DIR\n")
        for more in (("-o", "json"), ("-o", "jsonl"), ("--save", self.target)):
            self.assertNotIn(b"not saved", self.run_script(play(*events), *more).stderr)

    def test_a_missing_piece_is_said(self):
        ran = self.save({"result": execution.Result(bundle=bundle(("image/png", b"ab", 5)))},
                        {"part_data": execution.PartData(bundle_sequence=3, part_index=0, offset=3, data=b"de")})
        self.assertIn(b"1-result.png is incomplete: bytes are missing after 2", ran.stderr)
        ran = self.save({"result": execution.Result(bundle=bundle(("image/png", b"ab", 5)))})
        self.assertIn(b"2-result.png is incomplete: 2 of 5 bytes", ran.stderr)

    def test_nothing_is_replaced_and_no_link_is_followed(self):
        os.mkdir(self.target)
        victim = os.path.join(self.folder.name, "victim")
        os.symlink(victim, os.path.join(self.target, "1-result.png"))
        self.save({"result": execution.Result(bundle=bundle(("image/png", b"PNG")))})
        self.assertFalse(os.path.exists(victim))
        self.assertEqual(self.read("2-result.png"), b"PNG")

    def test_a_directory_that_cannot_be_made_is_said_before_anything_runs(self):
        server = self.serve(play())
        ran = self.hotcell(server, "run", "--save", self.target + "/deeper/still", "-c", "code")
        self.assertEqual(ran.returncode, 125)
        self.assertIn(b"cannot save to", ran.stderr)
        self.assertEqual(server.requests, [])


if __name__ == "__main__":
    unittest.main()
