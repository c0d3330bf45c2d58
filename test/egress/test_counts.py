"""What the hosts saw, what the BPF programs counted and what the egress log tells agree, event for event; and nobody's noise hides a neighbour."""

import json
import os
import pathlib
import signal
import subprocess
import threading
import time
import unittest

import scenario
import scene as scenes
from daemons import wait_until
from scene import allow, deny, is_like, short

ALLOWED = {4: "93.184.216.34", 6: "2606:2800:220:1::34"}
REFUSING = 81
N_DENIED = int(os.environ.get("HOTCELL_TEST_DENIED", 1_000_000))
scene = scenes.Scene()


def setUpModule():
    scene.enter()


def bpftool(*words):
    return json.loads(subprocess.run(["bpftool", "-j", *map(str, words)], check=True, capture_output=True, text=True).stdout)


def counts_of(sandbox):
    """What the BPF programs counted for it: denied, logged, dropped."""
    programs = scenario.get(scene.client, sandbox).egress_status.program_ids
    maps = {number for program in programs for number in bpftool("prog", "show", "id", program).get("map_ids", [])}
    counts = next(number for number in maps if bpftool("map", "show", "id", number)["name"] == "counts")
    # Only groups of version 2 have a type.
    groups = {path.stat().st_ino for path in map(pathlib.Path, scene.running.cgroups())
              if path.name == f"sandbox-{sandbox}" and (path / "cgroup.type").exists()}
    found = [entry["formatted"]["value"] for entry in bpftool("map", "dump", "id", counts) if entry["formatted"]["key"] in groups]
    assert len(found) == 1, f"{len(found)} counts of {sandbox}"
    return {name: found[0][f"n_{name}"] for name in ("denied", "logged", "dropped")}


class Agreeing(unittest.TestCase):
    def test_each_denial_is_told_once_or_counted(self):
        sandbox = scene.create(allow(ALLOWED[4], 7))
        start = counts_of(sandbox)
        n = 3000
        made = scene.inside(sandbox, f"[tcp('93.184.216.250', 1 + i) for i in range({n})].count('EPERM')")
        self.assertEqual(made, n)
        counted = {name: value - start[name] for name, value in counts_of(sandbox).items()}
        self.assertEqual(counted["denied"], n)
        self.assertEqual(counted["denied"], counted["logged"] + counted["dropped"])
        self.assertGreaterEqual(counted["logged"], 64)
        events = wait_until(lambda: self.all_told(sandbox, counted["logged"]), "all that were logged are in the log")
        ports = [event.port for event in events]
        self.assertEqual(len(ports), len(set(ports)), "told twice")
        print(f"# of {n} denials {counted['logged']} were logged and {counted['dropped']} dropped")

    def all_told(self, sandbox, n):
        events = [event for event in scene.log(sandbox) if short(event)["type"] == "DENIED"]
        told = sum(event.count for event in events)
        self.assertLessEqual(told, n)
        return events if told == n else None

    def test_slow_denials_are_all_told(self):
        sandbox = scene.create(allow(ALLOWED[4], 7))
        start = counts_of(sandbox)
        for i in range(100):
            scene.save_tokens(sandbox)
            scene.run(sandbox, f"tcp('93.184.216.250', {1000 + i})")
        counted = {name: value - start[name] for name, value in counts_of(sandbox).items()}
        self.assertEqual(counted, {"denied": 100, "logged": 100, "dropped": 0})
        events = wait_until(lambda: self.all_told(sandbox, 100), "all are in the log")
        self.assertEqual([event.port for event in events], list(range(1000, 1100)))
        sequences = [event.sequence for event in events]
        self.assertEqual(sequences, sorted(set(sequences)))

    def test_what_had_no_place_on_its_way_to_the_relay_is_told_as_that(self):
        sandbox = scene.create(allow(ALLOWED[4], 7))
        n, n_places = 400, 256  # EGRESS_TOKENS of bpf/egress_abi.h
        relay = scene.running.egress_pid()
        os.kill(relay, signal.SIGSTOP)
        try:
            scene.run(sandbox, f"""
def begin():
    s = opened({ALLOWED[4]!r}, 7)
    s.setblocking(False)
    assert s.connect_ex(({ALLOWED[4]!r}, 7)) in (0, errno.EINPROGRESS)
    return s

import errno
begun = [begin() for _ in range({n})]""")
        finally:
            os.kill(relay, signal.SIGCONT)

        def n_told(**fields):
            return sum(event.count for event in scene.log(sandbox) if is_like(event, fields))
        wait_until(lambda: n_told(type="DENIED") >= n - n_places, "those without a place are told")
        self.assertEqual(n_told(type="DENIED", reason="LIMIT", address="", pid=0), n - n_places)
        scene.run(sandbox, "for s in begun: s.close()")
        wait_until(lambda: n_told(type="FLOW_ENDED", address=ALLOWED[4]) >= n_places, "the others were relayed")
        self.assertEqual(n_told(type="DENIED"), n - n_places)
        self.assertEqual(n_told(type="FLOW_ENDED", address=ALLOWED[4]), n_places)

    def test_the_same_denial_again_and_again_has_a_count(self):
        sandbox = scene.create()
        start = counts_of(sandbox)
        scene.run(sandbox, "for _ in range(40): tcp('93.184.216.250', 99)")
        logged = counts_of(sandbox)["logged"] - start["logged"]
        self.assertEqual(logged, 40)
        events = wait_until(lambda: self.all_told(sandbox, logged), "all are in the log")
        print(f"# 40 equal denials are {len(events)} events")

    def test_flows_agree_with_the_hosts(self):
        sandbox = scene.create(*(allow(address) for address in ALLOWED.values()))
        mark = scene.world.mark()
        connects = scene.world.connects()
        scene.run(sandbox, f"""
for i in range(50):
    for address in {list(ALLOWED.values())!r}:
        assert tcp(address, 7, bytes(100 * i + 1)) == "echo"
        assert half_closed_by_us(address, 1002) == "100000"
        assert tcp(address, {REFUSING}) == "then ECONNRESET"
""", timeout=100)
        ended = wait_until(lambda: self.of_type(sandbox, "FLOW_ENDED", 200), "all flows ended")
        failed = wait_until(lambda: self.of_type(sandbox, "FAILED", 100), "all failures are told")
        scene.world.settle()
        seen = [event for event in scene.world.events(mark.n_events) if event["kind"] == "ended"]
        as_told = sorted((event.address, event.port, event.sent_bytes) for event in ended)
        self.assertEqual(as_told, sorted((event["address"], event["port"], event["received"]) for event in seen))
        self.assertEqual({event.received_bytes for event in ended if event.port == 1002}, {6})
        self.assertTrue(all(event.received_bytes == event.sent_bytes for event in ended if event.port == 7))
        self.assertEqual({event.error for event in failed}, {"ECONNREFUSED"})
        fresh = scene.world.connects() - connects
        self.assertEqual(fresh, {(address, port): n for address in ALLOWED.values() for port, n in ((7, 50), (1002, 50), (REFUSING, 50))})
        self.assertEqual(self.of_type(sandbox, "DENIED", 0), [])

    def test_a_flow_is_told_with_its_process_and_its_length(self):
        sandbox = scene.create(allow(ALLOWED[4]))
        self.check_flow(sandbox, f"tcp({ALLOWED[4]!r}, 7)", "echo", 7, error="", sent_bytes=13, received_bytes=13, policy_version=1)
        self.check_flow(sandbox, f"tcp({ALLOWED[4]!r}, 1003)", "then ECONNRESET", 1003, error="ECONNRESET", policy_version=1)
        scene.update(sandbox, allow(ALLOWED[4]), allow(ALLOWED[6]))
        self.check_flow(sandbox, f"tcp({ALLOWED[4]!r}, 2000)", "echo", 2000, error="", sent_bytes=13, received_bytes=13, policy_version=2)

    def check_flow(self, sandbox, code, result, port, **fields):
        started = time.monotonic()
        self.assertEqual(scene.inside(sandbox, code), result)
        event = scene.wait_log(sandbox, type="FLOW_ENDED", address=ALLOWED[4], port=port)
        self.assertTrue(is_like(event, fields), short(event))
        self.assertRegex(event.command, "^python")
        self.assertGreater(event.pid, 0)
        # The interpreter still runs.
        self.assertIn(f"sandbox-{sandbox}", pathlib.Path(f"/proc/{event.pid}/cgroup").read_text())
        self.assertGreater(event.duration.ToMicroseconds(), 0)
        self.assertLess(event.duration.ToMicroseconds(), (time.monotonic() - started) * 1e6)

    def test_a_flow_that_urgent_data_cut_is_told_as_that(self):
        sandbox = scene.create(allow(ALLOWED[4]))
        scene.run(sandbox, f"""
with opened({ALLOWED[4]!r}, 7) as s:
    s.connect(({ALLOWED[4]!r}, 7))
    s.send(b"!", socket.MSG_OOB)
    try:
        while s.recv(100): pass
        raise AssertionError("it ended in order")
    except ConnectionResetError:
        pass""")
        event = scene.wait_log(sandbox, type="FLOW_ENDED", address=ALLOWED[4], port=7)
        self.assertTrue(is_like(event, {"reason": "PROTOCOL", "error": ""}), short(event))

    def test_flows_beyond_the_rate_are_summed_up_with_their_bytes(self):
        """All that is told of them agrees with what the hosts saw."""
        sandbox = scene.create(allow(ALLOWED[4]))
        n, start = 1200, len(scene.world.events())
        scene.run(sandbox, f"""
def flow(i):
    assert tcp({ALLOWED[4]!r}, 7, bytes(1 + i)) == "echo"
threads = [threading.Thread(target=lambda first=first: [flow(i) for i in range(first, {n}, 8)]) for first in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()""", timeout=110)

        def told(kind):
            events = [event for event in scene.log(sandbox) if short(event)["type"] == kind]
            return sum(event.count for event in events), events
        wait_until(lambda: told("FLOW_ENDED")[0] >= n, "all flows are told")
        count, events = told("FLOW_ENDED")
        scene.world.settle()
        seen = [event for event in scene.world.events(start) if event["kind"] == "ended" and event["port"] == 7]
        self.assertEqual(count, len(seen))
        self.assertEqual(sum(event.sent_bytes for event in events), sum(event["received"] for event in seen))
        self.assertEqual(sum(event.received_bytes for event in events), sum(event.sent_bytes for event in events))
        self.assertEqual(told("DENIED"), (0, []))
        print(f"# {n} flows are {len(events)} events")

    def of_type(self, sandbox, kind, n):
        found = [event for event in scene.log(sandbox) if short(event)["type"] == kind]
        self.assertLessEqual(len(found), n)
        return found if len(found) == n else None

    def test_an_execution_is_told_of_its_own(self):
        """In its stream and in the log, with its id, process and command."""
        sandbox = scene.create()
        run = scene.run(sandbox, "tcp('93.184.216.250', 4711)")
        event = scene.wait_log(sandbox, address="93.184.216.250", port=4711)
        self.assertEqual((event.execution_id, event.command[:6]), (run.execution_id, "python"))
        self.assertGreater(event.pid, 0)
        self.assertIn("egress", [kind for kind, _ in run.order])


class Neighbours(unittest.TestCase):
    def test_a_flood_of_denials_does_not_hide_one_of_a_neighbour(self):
        loud, quiet = scene.create(), scene.create()
        start = counts_of(loud)
        done = threading.Event()

        def flood():
            try:
                scene.run(loud, f"""
import multiprocessing
def strike(n):
    address = ("93.184.216.250", 9)
    for _ in range(n):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            for _ in range(1000):
                try: s.connect(address)
                except PermissionError: pass
        finally:
            s.close()
children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        strike({N_DENIED} // 2000)
        os._exit(0)
    children.append(child)
for child in children: os.waitpid(child, 0)""", timeout=110)
            finally:
                done.set()
        thread = threading.Thread(target=flood)
        began = time.monotonic()
        thread.start()
        wait_until(lambda: counts_of(loud)["denied"] > start["denied"] + 1000, "the flood began")
        waits, port = [], 30000
        while not done.is_set() or len(waits) < 5:
            scene.save_tokens(quiet)
            asked = time.monotonic()
            scene.run(quiet, f"tcp('93.184.216.250', {port})")
            scene.wait_log(quiet, address="93.184.216.250", port=port)
            waits.append(time.monotonic() - asked)
            port += 1
        thread.join()
        took = time.monotonic() - began
        counted = {name: value - start[name] for name, value in counts_of(loud).items()}
        self.assertEqual(counted["denied"], N_DENIED // 2000 * 2000)
        self.assertEqual(counted["denied"], counted["logged"] + counted["dropped"])
        own = counts_of(quiet)
        self.assertEqual(own["dropped"], 0)
        print(f"# {counted} of the loud one in {took:.1f} s; each of {len(waits)} of its neighbour was told, the last after {max(waits) * 1000:.0f} ms")


if __name__ == "__main__":
    unittest.main()
