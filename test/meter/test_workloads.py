"""A table of programs: what hotcell says that each used, what the files of its cgroup say, and what its own clocks say.

HOTCELL_TEST_METER_PROGRAMS=0: without the BPF programs, see measured.py. HOTCELL_TEST_METER_TABLE says which file the table is written to.
"""

import concurrent.futures
import pathlib
import sys
import unittest

import measured
import stubs
import workloads
from measured import MIB, usec
from workloads import place

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "egress"))
import scene as scenes  # noqa: E402  pylint: disable=wrong-import-position

HOST = "93.184.216.34"
ECHO_BYTES = 50 * MIB
SPINNING_USEC = 1_000_000
scene = scenes.Scene()


def setUpModule():
    scene.enter(runtime_arguments=measured.RUNTIME_ARGUMENTS)
    place.enter(scene.running, scene.client, measured.HAS_PROGRAMS)


class Table(workloads.Case):
    egress = scenes.policy(scenes.allow(HOST))

    def test_spinning_on_one_thread(self):
        done = self.measure("spin 1 s, one thread", "spin, 1")
        self.assertGreaterEqual(usec(done.usage.cpu_time), SPINNING_USEC)

    def test_spinning_on_two_threads(self):
        done = self.measure("spin 1 s, two threads", "on_threads, 2, spin, 1")
        self.assertGreaterEqual(usec(done.usage.cpu_time), 2 * SPINNING_USEC)

    def test_forking_a_thousand_children(self):
        done = self.measure("fork 1,000 children", "fork_many, 1000")
        if place.has_programs:
            self.assertGreaterEqual(done.usage.context_switches, 1000)

    def test_sleeping(self):
        done = self.measure("sleep 1 s", "time.sleep, 1")
        self.assertGreaterEqual(usec(done.usage.wall_time), 1_000_000)
        self.assertLess(usec(done.usage.cpu_time), 200_000)

    def test_touching_and_freeing(self):
        done = self.measure("touch 300 MiB and free it", f"touch_and_free, {300 * MIB}")
        self.assertGreaterEqual(done.usage.memory_peak_bytes, 300 * MIB)

    def test_mapping_a_file(self):
        done = self.measure("mmap a file", "map_file")
        if place.has_programs:
            self.assertGreater(done.usage.rss_peak_bytes, 20 * MIB)

    def test_writing_to_memory_files(self):
        done = self.measure("write 100 MiB to tmpfs", f"write_files, {100 * MIB}")
        self.assertGreaterEqual(done.usage.memory_peak_bytes, 100 * MIB)

    def test_fifty_mebibytes_through_the_relay(self):
        start = scene.world.hosts.ask(["n_events"])
        done = self.measure("50 MiB through the relay", f"echo, {HOST!r}, {ECHO_BYTES}")
        came = scene.world.wait_event(start, "the host saw the end", kind="ended", address=HOST, port=7)
        self.assertEqual(came["received"], ECHO_BYTES)
        self.assertEqual((done.usage.sent_bytes, done.usage.received_bytes), (ECHO_BYTES, ECHO_BYTES))
        self.assertNotIn("sent_bytes", done.usage.missing)

    def test_a_product_of_numpy(self):
        self.measure("numpy product", "multiply, 1000, 8")

    def test_two_executions_at_once(self):
        contexts = [self.context(), self.context()]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            both = [pool.submit(workloads.Measured, self.sandbox, context_id, f"measured({code})")
                    for context_id, code in zip(contexts, ("spin, 1", f"touch_and_free, {300 * MIB}"))]
        for name, done in zip(("at once: spin 1 s", "at once: touch 300 MiB"), both):
            self.check(name, done.result())
        self.assertLess(both[0].result().usage.memory_peak_bytes, 100 * MIB)

    def test_while_others_want_all_cpus(self):
        with workloads.contended():
            done = self.measure("contended: two threads", "on_threads, 2, spin, 1")
        if place.has_programs and "run_queue_wait" not in done.usage.missing:
            self.assertGreater(usec(done.usage.run_queue_wait), 100_000)

    def test_two_executions_while_others_want_all_cpus(self):
        contexts = [self.context(), self.context()]
        with workloads.contended(), concurrent.futures.ThreadPoolExecutor() as pool:
            both = list(pool.map(lambda context_id: workloads.Measured(self.sandbox, context_id, "measured(spin, 1)"), contexts))
        for number, done in enumerate(both, 1):
            self.check(f"contended: spin 1 s, {number} of 2", done)


class Server(unittest.TestCase):
    def test_the_server_says_how_it_measures(self):
        metering = place.client.server.GetServerInfo(stubs.server_service.GetServerInfoRequest(), timeout=60).metering
        self.assertEqual(metering.programs, place.has_programs, metering.detail)
        self.assertEqual(bool(metering.detail), not place.has_programs)
        self.assertEqual(set(metering.missing) & (measured.BY_PROGRAMS - {"run_queue_wait"}),
                         set() if place.has_programs else measured.BY_PROGRAMS - {"run_queue_wait"})
        if place.has_programs:
            self.assertEqual(metering.slots_refused, 0)
            self.assertGreater(metering.slots, 0)
