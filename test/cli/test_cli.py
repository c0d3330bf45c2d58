"""Drives the built `hotcell` (path in HOTCELL_CLI) against a server that plays a script."""

import base64
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

import grpc

import fake_server as fake
from fake_server import (CONTEXT_ID, EXECUTION_ID, SANDBOX_ID, Disconnect, FakeServer, Refuse, bundle,
                         chunk, details_pb2, egress, egress_service, ended, execution, executions, keys, queued, sandbox,
                         sandboxes, server_info)

HOTCELL = os.environ["HOTCELL_CLI"]
TIMEOUT = 60  # for what should take milliseconds, on a busy machine
UUID = r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"


def started():
    return {"started": execution.Started(context_generation=1, execution_count=1)}


def play(*events):
    """A script of fixed events between `started` and an end that is OK unless the last one is `ended`."""
    def script(_server, _after):
        yield queued()
        yield started()
        yield from events
        if not events or "ended" not in events[-1]:
            yield ended(execution.OUTCOME_OK)
    return script


class SlowRelay:
    """A socket in front of a server, behind which nothing moves for a while after a connection."""

    def __init__(self, path, address, seconds):
        self.address, self.seconds = address, seconds
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.sockets = [self.listener]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near = self.listener.accept()[0]
            except OSError:
                return
            self.sockets.append(near)
            threading.Timer(self.seconds, self.connect, [near]).start()

    def connect(self, near):
        far = socket.socket(socket.AF_UNIX)
        self.sockets.append(far)
        far.connect(self.address.removeprefix("unix:"))
        for pair in ((near, far), (far, near)):
            threading.Thread(target=self.pass_on, args=pair, daemon=True).start()

    @staticmethod
    def pass_on(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        for each in self.sockets:
            each.close()


class CliTest(unittest.TestCase):
    def serve(self, script=None, **handlers):
        server = FakeServer(script)
        self.addCleanup(server.close)
        server.handlers.update(handlers)
        return server

    def environment(self, server=None, **more):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HOTCELL_")}
        if server:
            environment["HOTCELL_TARGET"] = server.address
        environment.update(more)
        return environment

    def hotcell(self, server, *arguments, stdin=b"", **more):
        return subprocess.run([HOTCELL, *arguments], env=self.environment(server, **more), input=stdin,
                              capture_output=True, timeout=TIMEOUT, check=False)

    def spawn(self, server, *arguments):
        process = subprocess.Popen([HOTCELL, *arguments], env=self.environment(server),
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def run_script(self, script, *arguments):
        return self.hotcell(self.serve(script), "run", *arguments, "-c", "code")


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
        self.assertIn(b"cpu 1.500 s", ran.stderr)
        self.assertIn(b"memory peak 3.0 MiB", ran.stderr)

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
        for fields, line in (
                ({}, "egress denied: tcp 1.2.3.4:443 (no rule allows it)"),
                ({"address": "2001:db8::1", "count": 12}, "egress denied: tcp [2001:db8::1]:443 (no rule allows it), 12 times"),
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
                (failed, "egress failed: tcp 1.2.3.4:443 (ECONNREFUSED)")):
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
        flow = self.event(type=egress.EGRESS_EVENT_TYPE_FLOW_ENDED, reason=0, name="example.org", command="c\x1burl", execution_id=EXECUTION_ID,
                          sent_bytes=100, received_bytes=2048)
        flow.duration.FromMilliseconds(1500)
        events = [self.event(count=7), flow, self.event(type=egress.EGRESS_EVENT_TYPE_FAILED, reason=0, error="ETIMEDOUT")]

        def answer(request):
            start = int(request.page_token or 0)
            end = start + 2  # small pages, so that the client must turn them
            return egress_service.ListEgressEventsResponse(events=events[start:end], next_page_token=str(end) if end < len(events) else "")
        server = self.serve(ListEgressEvents=answer)
        ran = self.hotcell(server, "egress", "log", SANDBOX_ID)
        self.assertEqual((ran.returncode, ran.stderr), (0, b""))
        self.assertEqual([re.split("  +", line.rstrip()) for line in ran.stdout.decode().splitlines()], [
            ["TIME", "DECISION", "DESTINATION", "NAME", "REASON", "COMMAND", "EXECUTION"],
            ["2023-11-14T22:13:20.123Z", "DENIED x7", "tcp 1.2.3.4:443", "-", "no rule allows it", "-", "-"],
            ["2023-11-14T22:13:20.123Z", "FLOW_ENDED", "tcp 1.2.3.4:443", "example.org", "100 B sent, 2.0 KiB received, 1.5 s", "c\\x1burl",
             EXECUTION_ID],
            ["2023-11-14T22:13:20.123Z", "FAILED", "tcp 1.2.3.4:443", "-", "ETIMEDOUT", "-", "-"]])
        request = server.requests[0][1]
        self.assertEqual((request.sandbox_id, request.execution_id, list(request.types)), (SANDBOX_ID, "", []))
        lines = self.hotcell(server, "egress", "log", "-o", "jsonl", SANDBOX_ID).stdout.splitlines()
        self.assertEqual([json.loads(line)["type"] for line in lines], ["DENIED", "FLOW_ENDED", "FAILED"])
        rows = json.loads(self.hotcell(server, "egress", "log", "-o", "json", SANDBOX_ID).stdout)
        self.assertEqual([row.get("duration") for row in rows], [None, "1.5s", None])
        self.hotcell(server, "egress", "log", "--type", "denied", "--type", "FAILED", "--execution", EXECUTION_ID, SANDBOX_ID)
        request = [request for method, request, _ in server.requests if method == "ListEgressEvents"][-1]
        self.assertEqual((request.execution_id, list(request.types)), (EXECUTION_ID, [1, 2]))

    def test_the_log_says_last_how_many_refusals_are_not_in_it(self):
        box = sandbox.Sandbox(sandbox_id=SANDBOX_ID)
        box.egress_status.refusals.denied, box.egress_status.refusals.logged, box.egress_status.refusals.dropped = 4500, 71, 4429
        server = self.serve(ListEgressEvents=lambda request: egress_service.ListEgressEventsResponse(events=[self.event()]),
                            GetSandbox=lambda request: sandboxes.GetSandboxResponse(sandbox=box))
        said = b"hotcell: 4429 of 4500 refusals in the sandbox are not in the log: they were too many at once, and only counted\n"
        for words in ((), ("-o", "jsonl")):
            ran = self.hotcell(server, "egress", "log", *words, SANDBOX_ID)
            self.assertEqual((ran.returncode, ran.stderr), (0, said))
        shown = json.loads(self.hotcell(server, "sandbox", "inspect", SANDBOX_ID).stdout)
        self.assertEqual(int(shown["egress_status"]["refusals"]["dropped"]), 4429)
        box.egress_status.refusals.denied, box.egress_status.refusals.dropped = 71, 0
        self.assertEqual(self.hotcell(server, "egress", "log", SANDBOX_ID).stderr, b"")

    def test_mistakes_are_said(self):
        ran = self.hotcell(None, "egress", "log", "--type", "allowed", SANDBOX_ID)
        self.assertEqual((ran.returncode, ran.stderr), (125, b"hotcell: egress log: --type is one of denied, failed, flow_ended, not 'allowed'\n"))
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


class ExitCodes(CliTest):
    def test_each_outcome(self):
        for outcome, fields, expected in (
                ("OK", {}, 0), ("RAISED", {}, 1), ("EXITED", {"exit_code": 0}, 0),
                ("EXITED", {"exit_code": 7}, 7), ("EXITED", {"exit_code": 126}, 126),
                ("EXITED", {"exit_code": 127}, 127), ("EXITED", {}, 125),
                ("EXITED", {"exit_code": 256}, 125), ("SIGNALLED", {"signal": 11}, 139),
                ("SIGNALLED", {}, 125), ("TIMEOUT", {}, 124), ("OOM", {}, 137),
                ("OUTPUT_LIMIT", {}, 137), ("INTERRUPTED", {}, 130), ("KILLED", {}, 137),
                ("NOT_STARTED", {}, 125), ("SANDBOX_ENDED", {}, 125), ("LOST", {}, 125)):
            with self.subTest(outcome=outcome, **fields):
                ran = self.run_script(play(ended(getattr(execution, "OUTCOME_" + outcome), **fields)))
                self.assertEqual(ran.returncode, expected, ran.stderr)

    def test_an_outcome_of_a_later_version_is_a_failure(self):
        self.assertEqual(self.run_script(play(ended(77))).returncode, 125)

    def test_what_is_not_the_programs_doing_is_said(self):
        script = play(ended(execution.OUTCOME_OOM, cause=execution.CAUSE_LIMIT, state_lost=True, message="No memory."))
        ran = self.run_script(script)
        self.assertEqual(ran.stderr, b"hotcell: No memory (OOM, cause LIMIT)\n")
        ran = self.hotcell(self.serve(script), "exec", SANDBOX_ID, "-c", "code")
        self.assertEqual(ran.stderr, b"hotcell: No memory (OOM, cause LIMIT); the variables of its context are gone\n")
        ran = self.run_script(play(ended(execution.OUTCOME_LOST, cause=execution.CAUSE_HOST_LOST)))
        self.assertIn(b"whether it ran to its end is unknown (LOST, cause HOST_LOST)", ran.stderr)


class Signals(CliTest):
    def waiting_script(self, n_interrupts, outcome):
        def script(server, _after):
            yield queued()
            yield {"stdout": chunk(b"ready\n")}
            for n in range(1, n_interrupts + 1):
                server.wait_for_interrupts(n)
                yield {"stdout": chunk(b"interrupt %d\n" % n)}
            yield ended(outcome)
        return script

    def test_ctrl_c_interrupts_and_the_stream_goes_on(self):
        server = self.serve(self.waiting_script(1, execution.OUTCOME_INTERRUPTED))
        process = self.spawn(server, "exec", SANDBOX_ID, "-c", "code")
        self.assertEqual(process.stdout.readline(), b"ready\n")
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.stdout.readline(), b"interrupt 1\n")
        self.assertEqual(process.wait(TIMEOUT), 130)
        self.assertEqual(server.interrupts, [executions.INTERRUPT_LEVEL_INTERRUPT])

    def test_ctrl_c_twice_kills(self):
        server = self.serve(self.waiting_script(2, execution.OUTCOME_KILLED))
        process = self.spawn(server, "exec", SANDBOX_ID, "-c", "code")
        process.stdout.readline()
        for n in (1, 2):
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.stdout.readline(), b"interrupt %d\n" % n)
        self.assertEqual(process.wait(TIMEOUT), 137)
        self.assertEqual(server.interrupts, [executions.INTERRUPT_LEVEL_INTERRUPT,
                                             executions.INTERRUPT_LEVEL_KILL])

    def test_ctrl_c_three_times_leaves(self):
        server = self.serve(self.waiting_script(3, execution.OUTCOME_KILLED))
        process = self.spawn(server, "exec", SANDBOX_ID, "-c", "code")
        process.stdout.readline()
        for n in (1, 2):
            process.send_signal(signal.SIGINT)
            process.stdout.readline()
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(TIMEOUT), 130)
        self.assertEqual(len(server.interrupts), 2)

    def test_sigterm_of_run_kills_the_code_and_leaves(self):
        server = self.serve(self.waiting_script(2, execution.OUTCOME_KILLED))
        process = self.spawn(server, "run", "-c", "code")
        process.stdout.readline()
        process.terminate()
        self.assertEqual(process.wait(TIMEOUT), 143)
        self.assertEqual(server.interrupts, [executions.INTERRUPT_LEVEL_KILL])
        self.assertTrue(server.gone.wait(TIMEOUT))

    def test_sigterm_of_exec_keeps_the_context(self):
        server = self.serve(self.waiting_script(2, execution.OUTCOME_KILLED))
        process = self.spawn(server, "exec", SANDBOX_ID, "-c", "code")
        process.stdout.readline()
        process.terminate()
        self.assertEqual(process.wait(TIMEOUT), 143)
        self.assertEqual(server.interrupts, [executions.INTERRUPT_LEVEL_INTERRUPT])

    def test_signals_to_logs_touch_nothing(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(signal=number):
                server = self.serve(self.waiting_script(1, execution.OUTCOME_KILLED))
                process = self.spawn(server, "logs", EXECUTION_ID)
                process.stdout.readline()
                process.send_signal(number)
                self.assertEqual(process.wait(TIMEOUT), 128 + number)
                self.assertEqual(server.interrupts, [])

    def test_ctrl_c_before_anything_is_queued_leaves(self):
        asked = threading.Event()

        def script(server, _after):
            asked.set()
            server.wait_for_interrupts(1)
            yield queued()
        server = self.serve(script)
        process = self.spawn(server, "run", "-c", "code")
        self.assertTrue(asked.wait(TIMEOUT))
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(TIMEOUT), 130)
        self.assertTrue(server.gone.wait(TIMEOUT))

    def test_ctrl_c_ends_a_question_that_is_not_answered(self):
        asked, release = threading.Event(), threading.Event()
        self.addCleanup(release.set)

        def answer(_request):
            asked.set()
            release.wait(TIMEOUT)
            return sandboxes.ListSandboxesResponse()
        process = self.spawn(self.serve(ListSandboxes=answer), "sandbox", "ls")
        self.assertTrue(asked.wait(TIMEOUT))
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(TIMEOUT), 130)
        release.set()


class Reattach(CliTest):
    def test_a_lost_stream_goes_on_without_duplicates(self):
        def script(_server, after):
            yield queued()
            yield {"stdout": chunk(b"one\n")}
            if after == 0:
                raise Disconnect
            yield {"stdout": chunk(b"two\n")}
            if after == 2:
                raise Disconnect
            yield ended(execution.OUTCOME_EXITED, exit_code=5)
        server = self.serve(script)
        ran = self.hotcell(server, "run", "-c", "code")
        self.assertEqual(ran.stdout, b"one\ntwo\n")
        self.assertEqual((ran.returncode, ran.stderr), (5, b""))
        self.assertEqual(server.attaches, [2, 3])
        self.assertEqual(sum(method == "Execute" for method, _, _ in server.requests), 1)

    def test_a_server_that_repeats_events_is_not_believed(self):
        def script(server, _after):
            yield queued()
            yield {"stdout": chunk(b"one\n")}
            if not server.attaches:
                raise Disconnect
            yield ended(execution.OUTCOME_OK)
        server = self.serve(script)
        stream = server.stream
        server.stream = lambda response, _after, context: stream(response, 0, context)
        self.assertEqual(self.hotcell(server, "run", "-c", "code").stdout, b"one\n")

    def test_a_stream_that_ends_well_without_ended_goes_on(self):
        def script(_server, after):
            yield queued()
            if after:
                yield ended(execution.OUTCOME_OK)
        server = self.serve(script)
        self.assertEqual(self.hotcell(server, "run", "-c", "code").returncode, 0)
        self.assertEqual(server.attaches, [1])

    def test_a_restart_of_the_server_is_survived(self):
        hold = threading.Event()

        def script(_server, after):
            yield queued()
            yield {"stdout": chunk(b"before\n")}
            if after == 0:
                hold.wait(TIMEOUT)
                return
            yield {"stdout": chunk(b"after\n")}
            yield ended(execution.OUTCOME_OK)
        server = self.serve(script)
        process = self.spawn(server, "run", "-c", "code")
        self.assertEqual(process.stdout.readline(), b"before\n")
        server.stop()
        hold.set()
        server.start()
        self.assertEqual(process.stdout.readline(), b"after\n")
        self.assertEqual(process.wait(TIMEOUT), 0)

    def test_code_that_was_never_queued_is_sent_again_with_its_id(self):
        def script(server, _after):
            if len(server.requests) < 3:
                raise Disconnect
            yield queued()
            yield {"stdout": chunk(b"once\n")}
            yield ended(execution.OUTCOME_OK)
        server = self.serve(script)
        ran = self.hotcell(server, "run", "-c", "code")
        self.assertEqual((ran.returncode, ran.stdout, ran.stderr), (0, b"once\n", b""))
        self.assertEqual([method for method, _, _ in server.requests], 3 * ["Execute"])
        self.assertEqual(len({message.SerializeToString() for _, message, _ in server.requests}), 1)
        self.assertRegex(server.requests[0][1].request_id, UUID)

    def test_each_command_has_an_id_of_its_own(self):
        server = self.serve(play(ended(execution.OUTCOME_OK)))
        for _ in range(2):
            self.hotcell(server, "run", "-c", "code")
        self.assertNotEqual(server.requests[0][1].request_id, server.requests[1][1].request_id)

    def test_a_sandbox_is_asked_for_again_with_the_same_id(self):
        def create(request):
            if len(server.requests) < 3:
                raise Refuse(grpc.StatusCode.UNAVAILABLE, "the server stops")
            return sandboxes.CreateSandboxResponse(sandbox=sandbox.Sandbox(sandbox_id=SANDBOX_ID), created=True)
        server = self.serve(CreateSandbox=create)
        ran = self.hotcell(server, "sandbox", "create")
        self.assertEqual((ran.returncode, ran.stdout.decode().strip(), ran.stderr), (0, SANDBOX_ID, b""))
        self.assertEqual(len(server.requests), 3)
        self.assertEqual(len({message.request_id for _, message, _ in server.requests}), 1)
        self.assertRegex(server.requests[0][1].request_id, UUID)

    def test_a_key_is_not_asked_for_twice(self):
        def create(_request):
            raise Refuse(grpc.StatusCode.UNAVAILABLE, "the server stops")
        server = self.serve(CreateKey=create)
        self.assertEqual(self.hotcell(server, "key", "create", "mine").returncode, 125)
        self.assertEqual(len(server.requests), 1)

    def test_an_answer_that_refuses_is_not_asked_for_again(self):
        def create(_request):
            raise Refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many")
        server = self.serve(CreateSandbox=create)
        self.assertEqual(self.hotcell(server, "sandbox", "create").returncode, 125)
        self.assertEqual(len(server.requests), 1)

    def test_a_socket_whose_server_is_gone_is_tried_again(self):
        server = self.serve(play(ended(execution.OUTCOME_OK)))
        server.stop()
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(server.address.removeprefix("unix:"))
        process = self.spawn(server, "run", "-c", "code")
        with self.assertRaises(subprocess.TimeoutExpired):
            process.wait(0.5)
        os.unlink(server.address.removeprefix("unix:"))
        server.start()
        self.assertEqual(process.wait(TIMEOUT), 0)

    def test_ctrl_c_ends_the_wait(self):
        asked = threading.Event()

        def create(_request):
            asked.set()
            raise Refuse(grpc.StatusCode.UNAVAILABLE, "the server stops")
        process = self.spawn(self.serve(CreateSandbox=create), "sandbox", "create")
        self.assertTrue(asked.wait(TIMEOUT))
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(TIMEOUT), 130)

    def test_an_end_that_only_the_record_knows_is_learned(self):
        def script(_server, after):
            yield queued()
            if after == 0:
                raise Disconnect
            raise Refuse(grpc.StatusCode.NOT_FOUND, "not retained")
        lost = execution.Ended(outcome=execution.OUTCOME_LOST, cause=execution.CAUSE_HOST_LOST)
        server = self.serve(script, GetExecution=lambda request: executions.GetExecutionResponse(
            execution=execution.Execution(state=execution.EXECUTION_STATE_ENDED, last_sequence=9, ended=lost)))
        ran = self.hotcell(server, "run", "-c", "code")
        self.assertEqual(ran.returncode, 125)
        self.assertIn(b"the events after 1 are lost", ran.stderr)
        self.assertIn(b"(LOST, cause HOST_LOST)", ran.stderr)
        ran = self.hotcell(server, "run", "-o", "json", "-c", "code")
        self.assertEqual(json.loads(ran.stdout)["ended"]["outcome"], "LOST")

    def test_an_answer_instead_of_events_ends_it(self):
        def script(_server, after):
            yield queued()
            if after == 0:
                raise Disconnect
            raise Refuse(grpc.StatusCode.NOT_FOUND, "no such execution",
                         details_pb2.ErrorInfo(reason="EXECUTION_NOT_FOUND", domain="hotcell.dev"))
        ran = self.run_script(script)
        self.assertEqual(ran.returncode, 125)
        self.assertIn(b"no such execution", ran.stderr)
        self.assertIn(b"is unknown here", ran.stderr)


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
        self.assertEqual(self.egress("--deny", "10.0.0.0/8").default_action, egress.EGRESS_DEFAULT_ACTION_UNSPECIFIED)
        self.assertFalse(self.request("run", "-c", "pass").sandbox.HasField("egress"))
        self.assertTrue(self.request("run", "--egress-default", "deny", "-c", "pass").sandbox.HasField("egress"))

    def test_what_is_no_host_with_ports_is_not_sent(self):
        for text in ("", ":443", "example.org:", "example.org:https", "example.org:80,", "example.org:80-", "example.org:-80",
                     "example.org:80-0", "[2001:db8::1", "[2001:db8::1]443", "[]:443", "example.org:99999999999"):
            with self.subTest(text=text):
                ran = self.hotcell(None, "sandbox", "create", "--allow", text)
                self.assertEqual(ran.returncode, 125)
                self.assertIn(f"--allow takes HOST[:PORTS], such as example.org:443 or [2001:db8::/32]:443,8000-8080, not '{text}'",
                              ran.stderr.decode())

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

    def test_a_rule_whose_host_is_quoted_needs_no_number(self):
        def refuse(_request):
            bad = details_pb2.BadRequest()
            bad.field_violations.add(field="spec.egress.rules[1].cidr", description="'10.0.0.1/8' has bits set")
            bad.field_violations.add(field="spec.egress.rules[2].ports[0].first", description="is 0")
            raise Refuse(grpc.StatusCode.INVALID_ARGUMENT, "spec.egress.rules[1].cidr '10.0.0.1/8' has bits set", bad)
        ran = self.hotcell(self.serve(CreateSandbox=refuse), "sandbox", "create")
        self.assertEqual(ran.stderr.decode().splitlines(), [
            "hotcell: --allow or --deny '10.0.0.1/8' has bits set", "  spec.egress.rules[2].ports[0].first: is 0"])

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
        box.egress.rules.add(action=egress.EGRESS_ACTION_DENY, cidr="10.0.0.0/8").ports.add(first=443)
        box.egress_status.policy_version = 3
        shown = json.loads(self.hotcell(server, "sandbox", "inspect", box.sandbox_id).stdout)
        self.assertEqual((shown["egress"]["rules"][0]["cidr"], shown["egress"]["rules"][0]["action"]), ("10.0.0.0/8", "DENY"))
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
        key = keys.Key(key_id="key-" + "k" * 26, name="ci", state=keys.KEY_STATE_ACTIVE, scopes=["sandboxes:read", "server:read"])
        key.create_time.seconds, key.last_used_time.seconds, key.expire_time.seconds = now - 7 * 86400, now - 300, now + 3 * 86400 + 60
        old = keys.Key(key_id="key-" + "m" * 26, name="old", state=keys.KEY_STATE_EXPIRED)
        server = self.serve(ListKeys=lambda request: keys.ListKeysResponse(keys=[key, old]))
        head, first, second = self.hotcell(server, "key", "ls").stdout.decode().splitlines()
        self.assertEqual(re.split(r"  +", head), ["KEY", "NAME", "STATE", "CREATED", "EXPIRES", "LAST USED", "SCOPES"])
        self.assertEqual(re.split(r"  +", first), [key.key_id, "ci", "ACTIVE", "7d ago", "in 3d", "5m ago", "sandboxes:read,server:read"])
        self.assertEqual(re.split(r"  +", second)[2:], ["EXPIRED", "-", "never", "-", "-"])

    def test_revoking_with_all_sandboxes_says_how_many(self):
        key = keys.Key(key_id="key-" + "k" * 26, name="ci", state=keys.KEY_STATE_ACTIVE)
        server = self.serve(RevokeKey=lambda request: keys.RevokeKeyResponse(key=key, sandboxes_deleted=3))
        ran = self.hotcell(server, "key", "revoke", "--delete-sandboxes", key.key_id)
        self.assertEqual((ran.stdout.decode(), ran.returncode), (key.key_id + "\n", 0))
        self.assertIn(b"sandboxes of its owner that end: 3", ran.stderr)
        self.assertTrue(server.requests[-1][1].delete_sandboxes)

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

    def test_code_that_ran_out_of_time_has_a_hint(self):
        ran = self.run_script(play(ended(execution.OUTCOME_TIMEOUT, cause=execution.CAUSE_LIMIT)))
        self.assertEqual(ran.stderr.decode().splitlines(), ["hotcell: it ran out of time (TIMEOUT, cause LIMIT)",
                                                            "  hint: --timeout gives it longer"])

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
