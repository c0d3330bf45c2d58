"""What an execution and a sandbox are told to have sent and received is what the hosts saw, byte for byte."""

import concurrent.futures
import os
import signal
import unittest

import scenario
import scene as scenes
from daemons import PATIENCE, wait_until
from scene import allow
from scenario import MIB
from stubs import execution_service

ALLOWED = {4: "93.184.216.34", 6: "2606:2800:220:1::34"}
ECHO, COUNT = 7, 1002
scene = scenes.Scene()

# Beside inside.py. hotcell-egress has one thread: when a name is answered, all that came out of connections before was counted.
PRELUDE = """
def both_ways(address, n):
    "Sends so much, and takes it back at the same time."
    with opened(address, 7) as s:
        s.connect((address, 7))
        def send():
            s.sendall(bytes(n))
            s.shutdown(socket.SHUT_WR)
        sending = threading.Thread(target=send)
        sending.start()
        got = 0
        while data := s.recv(1 << 20):
            got += len(data)
        sending.join()
        return got

def once(s, n):
    s.sendall(bytes(n))
    got = 0
    while got < n:
        got += len(s.recv(65536))
    assert ask("denied.test") == "REFUSED"
"""


def setUpModule():
    scene.enter()
    scene.world.set_zones({"allowed.test": {"A": ["93.184.216.40"]}})


def create(*more):
    sandbox = scene.create(*(allow(address) for address in ALLOWED.values()), *more)
    scene.run(sandbox, PRELUDE)
    return sandbox


def of(usage):
    assert "sent_bytes" not in usage.missing
    return usage.sent_bytes, usage.received_bytes


def total(sandbox):
    return of(scenario.get(scene.client, sandbox).usage.total)


def ended(start, port):
    """What the hosts received in connections that are over."""
    scene.world.settle()
    return [event["received"] for event in scene.world.events(start) if event["kind"] == "ended" and event["port"] == port]


class Traffic(unittest.TestCase):
    def test_50_mib_each_way_are_told_as_the_hosts_saw_them(self):
        sandbox = create()
        for address in ALLOWED.values():
            with self.subTest(address=address):
                before, start = total(sandbox), len(scene.world.events())
                run = scene.run(sandbox, f"both_ways({address!r}, {50 * MIB})")
                self.assertEqual(run.text, str(50 * MIB))
                self.assertEqual(of(run.ended.usage), (50 * MIB, 50 * MIB))
                after = total(sandbox)
                self.assertEqual((after[0] - before[0], after[1] - before[1]), (50 * MIB, 50 * MIB))
                wait_until(lambda: ended(start, ECHO) == [50 * MIB], "the host saw as much")
                event = scene.wait_log(sandbox, type="FLOW_ENDED", address=address, port=ECHO)
                self.assertEqual((event.sent_bytes, event.received_bytes), (50 * MIB, 50 * MIB))

    def test_each_way_is_counted_for_itself(self):
        run = scene.run(create(), f"half_closed_by_us({ALLOWED[4]!r}, {COUNT})")
        self.assertEqual(run.text, "'100000'")
        self.assertEqual(of(run.ended.usage), (100000, 6))

    def test_executions_that_run_at_once_are_not_mixed_up(self):
        sandbox = create()
        contexts = [scene.client.executions.CreateContext(execution_service.CreateContextRequest(sandbox_id=sandbox), timeout=60 * PATIENCE)
                    .context.context_id for _ in range(2)]
        before = total(sandbox)

        def run(context, n):
            scene.run(sandbox, f"{scenes.PRELUDE}\n{PRELUDE}", context_id=context)
            done = scene.run(sandbox, f"for _ in range(20): assert both_ways({ALLOWED[4]!r}, {n}) == {n}", context_id=context)
            self.assertEqual(of(done.ended.usage), (20 * n, 20 * n))
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for future in [pool.submit(run, context, n) for context, n in zip(contexts, (300001, 77))]:
                future.result()
        after = total(sandbox)
        self.assertEqual((after[0] - before[0], after[1] - before[1]), (20 * 300078, 20 * 300078))

    def test_a_connection_that_goes_on_is_parted_among_its_executions(self):
        sandbox = create()
        scene.run(sandbox, f"kept = opened({ALLOWED[4]!r}, {ECHO}); kept.connect(({ALLOWED[4]!r}, {ECHO}))")
        for n in (1000, 200000, 3):
            self.assertEqual(of(scene.run(sandbox, f"once(kept, {n})").ended.usage), (n, n))
        self.assertEqual(of(scene.run(sandbox, "1 + 1").ended.usage), (0, 0))
        self.assertEqual(total(sandbox), (201003, 201003))

    def test_what_is_sent_while_nothing_runs_is_the_sandboxs(self):
        """By a thread, between two executions."""
        sandbox = create()
        scene.run(sandbox, f"""
def later():
    go.wait()
    both_ways({ALLOWED[4]!r}, 5000)
go = threading.Event()
thread = threading.Thread(target=later, daemon=True)
thread.start()
threading.Timer(0.2, go.set).start()""")
        wait_until(lambda: total(sandbox) == (5000, 5000), "it is counted")
        self.assertEqual(of(scene.run(sandbox, "thread.join()").ended.usage), (0, 0))

    def test_questions_for_names_are_not_counted(self):
        sandbox = create(allow("allowed.test"))
        run = scene.run(sandbox, "assert [ask('allowed.test') for _ in range(20)] == ['NOERROR 93.184.216.40'] * 20")
        self.assertEqual(of(run.ended.usage), (0, 0))
        self.assertEqual(total(sandbox), (0, 0))

    def test_what_came_before_hotcell_egress_was_killed_is_told(self):
        sandbox = create()
        relay = scene.running.egress_pid()
        request = scenario.request(sandbox, f"""
kept = opened({ALLOWED[4]!r}, {ECHO})
kept.connect(({ALLOWED[4]!r}, {ECHO}))
once(kept, {MIB})
print("done", flush=True)
assert attempt(kept.recv, 1) == "ECONNRESET"
""")
        stream = scene.client.executions.Execute(request, timeout=120 * PATIENCE)
        run = scenario.fold_until(stream, lambda run: b"done" in run.stdout)
        os.kill(relay, signal.SIGKILL)
        run = scenario.fold(stream, run)
        self.assertEqual(run.outcome, "OK", run.error)
        self.assertEqual(of(run.ended.usage), (MIB, MIB))
        wait_until(lambda: scene.running.egress_pid() not in (None, relay), "there is another one")
        wait_until(scene.running.is_ready, "ready again")
        wait_until(lambda: scene.inside(sandbox, f"tcp({ALLOWED[4]!r}, {ECHO})") == "echo", "the policy is in force")
        before = total(sandbox)
        self.assertEqual(of(scene.run(sandbox, f"both_ways({ALLOWED[4]!r}, 4000)").ended.usage), (4000, 4000))
        self.assertEqual(total(sandbox), (before[0] + 4000, before[1] + 4000))
        self.assertGreaterEqual(before[0], MIB)

    def test_what_a_sandbox_sent_is_known_after_its_process_ended(self):
        """An interpreter that exits takes its place in the table along, but not what it sent."""
        sandbox = create()
        scene.run(sandbox, f"both_ways({ALLOWED[4]!r}, 3000)")
        done = scenario.execute(scene.client, sandbox, f"both_ways({ALLOWED[4]!r}, 400)\nimport os; os._exit(3)")
        self.assertEqual((done.outcome, *of(done.ended.usage)), ("EXITED", 400, 400))
        self.assertEqual(total(sandbox), (3400, 3400))


if __name__ == "__main__":
    unittest.main()
