"""How `hotcell` ends or goes on: exit codes, signals, streams that break off."""

import json
import os
import signal
import socket
import subprocess
import threading
import unittest

import grpc

from cli_case import CliTest, TIMEOUT, UUID, play
from fake_server import (EXECUTION_ID, SANDBOX_ID, Disconnect, Refuse, chunk, details_pb2, ended, execution,
                         executions, queued, sandbox, sandboxes)


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
        self.assertEqual(ran.stderr, b"hotcell: No memory (OOM, cause LIMIT)\n  hint: --memory gives it more\n")
        ran = self.hotcell(self.serve(script), "exec", SANDBOX_ID, "-c", "code")
        self.assertEqual(ran.stderr, b"hotcell: No memory (OOM, cause LIMIT); the variables of its context are gone\n  hint: `hotcell sandbox update --memory` gives its sandbox more\n")
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


if __name__ == "__main__":
    unittest.main()
