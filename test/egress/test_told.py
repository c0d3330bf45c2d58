"""What a run is told of its egress: all that it was refused before its end, names and flows under its own id, cut flows, and how many were refused."""

import concurrent.futures
import contextlib
import os
import signal
import unittest

import grpc

import daemons
import scenario
import scene as scenes
import stubs
import test_counts
from daemons import PATIENCE, wait_until
from patient import ask
from scene import allow, deny, is_like
from stubs import execution_service, sandbox_service, server_service

ALLOWED = "93.184.216.34"
FORBIDDEN = "93.184.216.250"
CHARGEN, ECHO, CLOSED = 19, 7, 81
N_ENDS = 25
scene = scenes.Scene()


def setUpModule():
    scene.enter()
    test_counts.scene = scene


def told(run, **fields):
    return [event for event in run.egress if is_like(event, fields)]


def new_context(sandbox):
    message = execution_service.CreateContextRequest(sandbox_id=sandbox)
    return scene.client.executions.CreateContext(message, timeout=60 * PATIENCE).context.context_id


class Whose(unittest.TestCase):
    def test_a_refused_name_is_told_to_the_run(self):
        sandbox = scene.create(allow(ALLOWED))
        run = scene.run(sandbox, "assert ask('evil.test') == 'REFUSED'")
        self.assertEqual(len(told(run, type="DENIED", reason="RESOLVER", name="evil.test")), 1)
        event = scene.wait_log(sandbox, name="evil.test")
        self.assertEqual(event.execution_id, run.execution_id)

    def test_a_denial_tells_the_rule_in_words(self):
        sandbox = scene.create(allow("93.184.216.0/24"), deny(FORBIDDEN, 25))
        run = scene.run(sandbox, f"tcp({FORBIDDEN!r}, 25)")
        event = told(run, reason="RULE")[0]
        self.assertEqual((event.rule_index, event.policy_version, event.rule), (1, 1, f"deny {FORBIDDEN}:25"))
        scene.update(sandbox, deny("93.184.0.0/16"))
        event = told(scene.run(sandbox, f"tcp({FORBIDDEN!r}, 25)"), reason="RULE")[0]
        self.assertEqual((event.rule_index, event.policy_version, event.rule), (0, 2, "deny 93.184.0.0/16"))
        scene.wait_log(sandbox, reason="RULE", policy_version=2)
        lines = daemons.hotcell(scene.running, "egress", "log", sandbox).stdout.decode()
        self.assertIn(f"rule 1 of policy version 1: deny {FORBIDDEN}:25", lines)
        self.assertIn("rule 0 of policy version 2: deny 93.184.0.0/16", lines)

    def test_flows_and_failures_are_of_the_run_that_asked(self):
        sandbox = scene.create(allow(ALLOWED))
        first = scene.run(sandbox, f"kept = opened({ALLOWED!r}, {ECHO}); kept.connect(({ALLOWED!r}, {ECHO})); assert talk(kept) == 'echo'")
        scene.run(sandbox, "kept.close()")
        self.assertEqual(scene.wait_log(sandbox, type="FLOW_ENDED").execution_id, first.execution_id)
        failing = scene.run(sandbox, f"s = opened({ALLOWED!r}, {CLOSED}); connect(s, {ALLOWED!r}, {CLOSED})")
        self.assertEqual(scene.wait_log(sandbox, type="FAILED").execution_id, failing.execution_id)

    def test_the_flow_that_a_one_shot_run_left_open_is_its(self):
        for _ in range(5):
            spec = scenario.spec(egress=scenes.policy(allow(ALLOWED)))
            run = scenario.fold(scene.client.executions.Execute(scenario.request("", f"""
import socket
kept = socket.create_connection(({ALLOWED!r}, {ECHO}))
""", sandbox=spec), timeout=120 * PATIENCE))
            self.assertEqual(run.outcome, "OK")
            event = scene.wait_log(run.sandbox_id, type="FLOW_ENDED")
            self.assertEqual(event.execution_id, run.execution_id)

    def test_a_flow_that_an_update_cut_is_told_to_its_run(self):
        sandbox = scene.create(allow(ALLOWED))
        start = len(scene.world.events())
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            running = pool.submit(scene.run, sandbox, f"""
s = opened({ALLOWED!r}, {CHARGEN})
s.connect(({ALLOWED!r}, {CHARGEN}))
try:
    while s.recv(1 << 16): pass
except ConnectionResetError:
    pass
""")
            scene.world.wait_event(start, "it is connected", kind="accepted", port=CHARGEN)
            scene.update(sandbox, allow("5.5.5.5"))
            run = running.result(60 * PATIENCE)
        events = told(run, type="FLOW_ENDED", reason="POLICY_CHANGED", address=ALLOWED, port=CHARGEN)
        self.assertEqual(len(events), 1)
        self.assertGreater(events[0].received_bytes, 0)
        self.assertEqual(scene.wait_log(sandbox, type="FLOW_ENDED").received_bytes, events[0].received_bytes)


class Ends(unittest.TestCase):
    def test_denials_right_before_the_end_come_before_it(self):
        """Beside a neighbour that downloads as fast as it can."""
        loud, quiet = scene.create(allow(ALLOWED)), scene.create(allow(ALLOWED))
        start = len(scene.world.events())
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            download = pool.submit(scene.run, loud, f"""
import os
with opened({ALLOWED!r}, {CHARGEN}) as s:
    s.connect(({ALLOWED!r}, {CHARGEN}))
    while not os.path.exists("/tmp/enough"): s.recv(1 << 20)
""", timeout=110)
            try:
                scene.world.wait_event(start, "it is connected", kind="accepted", port=CHARGEN)
                lost = 0
                for i in range(N_ENDS):
                    scene.save_tokens(quiet)
                    run = scene.run(quiet, f"tcp({FORBIDDEN!r}, {2 * i + 1}); tcp({FORBIDDEN!r}, {2 * i + 2})")
                    lost += {event.port for event in told(run, type="DENIED", address=FORBIDDEN)} != {2 * i + 1, 2 * i + 2}
                self.assertEqual(lost, 0, f"of {N_ENDS} runs, so many were not told of all")
            finally:
                other = new_context(loud)
                scene.run(loud, "open('/tmp/enough', 'w').close()", context_id=other)
                download.result(60 * PATIENCE)

    def test_a_hotcell_egress_that_hangs_keeps_no_run(self):
        sandbox = scene.create(allow(ALLOWED))
        relay = scene.running.egress_pid()
        os.kill(relay, signal.SIGSTOP)
        try:
            runs = [scene.run(sandbox, f"tcp({FORBIDDEN!r}, {port})") for port in (1, 2, 3)]
        finally:
            os.kill(relay, signal.SIGCONT)
        for port, run in zip((1, 2, 3), runs):
            self.assertEqual(scene.wait_log(sandbox, port=port).execution_id, run.execution_id)
        wait_until(lambda: told(scene.run(sandbox, f"tcp({FORBIDDEN!r}, 4)"), port=4), "it is asked again")


class Counted(unittest.TestCase):
    def refusals(self, sandbox):
        status = scenario.get(scene.client, sandbox).egress_status
        self.assertTrue(status.HasField("refusals"))
        counts = status.refusals
        self.assertEqual(counts.denied, counts.logged + counts.dropped)
        return {"denied": counts.denied, "logged": counts.logged, "dropped": counts.dropped}

    def listed(self, sandbox):
        message = sandbox_service.ListSandboxesRequest(page_size=1000, states=[stubs.sandbox.SANDBOX_STATE_RUNNING, stubs.sandbox.SANDBOX_STATE_ENDED])
        answer = scene.client.sandboxes.ListSandboxes(message, timeout=60 * PATIENCE)
        return next(box for box in answer.sandboxes if box.sandbox_id == sandbox).egress_status.refusals

    def test_all_refusals_are_counted_and_stay_so(self):
        sandbox = scene.create(allow(ALLOWED))
        proof = test_counts.counts_of(sandbox)
        self.assertEqual(self.refusals(sandbox), {"denied": 0, "logged": 0, "dropped": 0})
        scene.run(sandbox, f"for i in range(4500): tcp({FORBIDDEN!r}, 1 + i)")
        counted = {name: value - proof[name] for name, value in test_counts.counts_of(sandbox).items()}
        self.assertEqual(counted["denied"], 4500)
        self.assertGreater(counted["dropped"], 0)
        self.assertEqual(self.refusals(sandbox), counted)
        self.assertEqual(self.listed(sandbox).dropped, counted["dropped"])
        self.check_by_restarts(sandbox, counted)
        self.check_in_the_background(sandbox, counted)
        self.check_at_the_end(sandbox, proof, counted)

    def check_by_restarts(self, sandbox, counted):
        for pid_of in (scene.running.egress_pid, scene.running.server_pid):
            pid = pid_of()
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: pid_of() not in (None, pid), "it is started again")
            wait_until(scene.running.is_ready, "ready again")
            ask(scene.client.server.GetServerInfo, server_service.GetServerInfoRequest())
            wait_until(lambda: scenario.get(scene.client, sandbox).egress_status.refusals.denied == counted["denied"], "the counts are back")
            self.assertEqual(self.refusals(sandbox), counted)

    def check_in_the_background(self, sandbox, counted):
        """While it runs, and before it ends."""
        scene.run(sandbox, scenes.PRELUDE)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            running = pool.submit(scene.run, sandbox, f"""
import os
tcp({FORBIDDEN!r}, 9999)
while not os.path.exists("/tmp/enough"): time.sleep(0.01)""", timeout=110)
            try:
                wait_until(lambda: self.refusals(sandbox)["denied"] == counted["denied"] + 1, "it is told while the run goes on")
            finally:
                other = new_context(sandbox)
                scene.run(sandbox, "open('/tmp/enough', 'w').close()", context_id=other)
                running.result(60 * PATIENCE)

    def check_at_the_end(self, sandbox, proof, counted):
        scene.run(sandbox, f"""
import threading
def strike():
    while True: tcp({FORBIDDEN!r}, 8)
for _ in range(2): threading.Thread(target=strike, daemon=True).start()""")
        before = test_counts.counts_of(sandbox)["denied"] - proof["denied"]
        with contextlib.suppress(grpc.RpcError):
            scenario.delete(scene.client, sandbox)
        last = self.refusals(sandbox)
        self.assertGreaterEqual(last["denied"], before)
        self.assertGreater(last["denied"], counted["denied"] + 1)
        self.assertGreater(last["dropped"], 0)
        self.assertEqual(self.listed(sandbox).denied, last["denied"])


if __name__ == "__main__":
    unittest.main()
