"""A program that owns its kernel's process and channel: it can hurt its own sandbox only."""

import statistics
import time
import unittest

import daemons
import scenario
import stubs
from hostile import CHANNEL, PRELUDE, rss_bytes
from scenario import MIB


def setUpModule():
    global running, client, calm, usual
    running = unittest.enterModuleContext(daemons.Daemons())
    client = unittest.enterModuleContext(stubs.Client(running.target))
    calm = scenario.create(client).sandbox_id
    scenario.execute(client, calm, "1")
    usual = statistics.median(latencies(1))


def latencies(seconds):
    """Of the neighbour's executions, one after the other."""
    end, taken = time.monotonic() + seconds, []
    while time.monotonic() < end:
        begin = time.monotonic()
        run = scenario.execute(client, calm, "1+1")
        assert run.text == "2", run
        taken.append(time.monotonic() - begin)
    return taken


class Case(unittest.TestCase):
    def setUp(self):
        self.sandbox = scenario.create(client).sandbox_id
        self.addCleanup(scenario.delete, client, self.sandbox)

    def hostile(self, code, **fields):
        return scenario.execute(client, self.sandbox, PRELUDE + CHANNEL + code, **{"timeout": 5, **fields})

    def neighbour_is_well(self, seconds=2):
        """The neighbour's latency while the attack goes on, and the service's memory."""
        before = rss_bytes(running.server_pid())
        taken = latencies(seconds)
        self.assertLess(statistics.median(taken), max(0.2, 20 * usual))
        self.assertLess(max(taken), max(1, 50 * usual))
        self.assertLess(rss_bytes(running.server_pid()) - before, 30 * MIB)


class Floods(Case):
    def flood(self, body, is_killed=False):
        # A thread: the kernel's descriptors do not survive a fork of it.
        self.hostile("import threading\ndef flood():\n" + "\n".join("    " + line for line in body.splitlines()) +
                     "\nthreading.Thread(target=flood, daemon=True).start()")
        self.neighbour_is_well()
        if is_killed:
            self.assertGreater(self.hostile("1").started.context_generation, 1)

    def test_small_frames(self):
        """Well-formed, but their turn never comes: nothing is broken by them, so they go on."""
        self.flood("small = struct.pack('<IBBHI', 0, 71, 0, 0, 0) * 5000\nwhile True: os.write(events, small)")

    def test_small_frames_of_an_unknown_type(self):
        self.flood("small = struct.pack('<IBBHI', 0, 250, 0, 0, 0) * 5000\nwhile True: os.write(events, small)", is_killed=True)

    def test_frames_of_an_unknown_type_while_code_runs(self):
        run = self.hostile("small = struct.pack('<IBBHI', 0, 250, 0, 0, 0) * 1001\nos.write(events, small)\nimport time; time.sleep(60)")
        self.assertEqual((run.outcome, run.cause), ("KILLED", "KERNEL_PROTOCOL"))
        run = self.hostile("small = struct.pack('<IBBHI', 0, 250, 0, 0, 0) * 900\nos.write(events, small)")
        self.assertEqual(run.outcome, "OK")

    def test_small_frames_that_want_an_answer_which_nobody_reads(self):
        self.flood("small = struct.pack('<IBBHI', 0, 71, 1, 0, 0) * 5000\nwhile True: os.write(events, small)")

    def test_barriers(self):
        self.flood("small = struct.pack('<IBBHI', 0, 72, 1, 0, 0) * 5000\nwhile True: os.write(events, small)")

    def test_small_frames_behind_a_large_one(self):
        """The buffer stays large while it is not empty: each small frame must not move all of it."""
        self.flood("""import fcntl
fcntl.fcntl(events, 1031, 1 << 20)
data = struct.pack('<IBBHI', 70000, 250, 0, 0, 0) + bytes(70000) + struct.pack('<IBBHI', 0, 71, 0, 0, 0) * 80000
while True:
    at = 0
    while at < len(data): at += os.write(events, data[at:])""")

    def test_output_between_executions(self):
        self.flood("data = bytes(1 << 20)\nwhile True: os.write(1, data)")

    def test_frames_and_output_at_once(self):
        self.flood("""import fcntl
fcntl.fcntl(1, 1031, 1 << 20)
if os.fork():
    while True: os.write(1, bytes(1 << 20))
small = struct.pack('<IBBHI', 0, 71, 0, 0, 0) * 5000
while True: os.write(events, small)""")


class Lies(Case):
    def is_told(self, run, *outcomes):
        self.assertIn(run.outcome, outcomes, (run.cause, run.error))
        self.assertEqual(scenario.execute(client, calm, "1+1").text, "2")

    def test_half_a_frame_and_then_nothing(self):
        run = self.hostile("os.write(events, b'\\x10\\0\\0\\0')\nimport time\nwhile True: time.sleep(1)", timeout=2)
        self.is_told(run, "TIMEOUT", "KILLED")

    def test_a_closed_channel(self):
        run = self.hostile("for n in pipes: os.close(n)\nimport time; time.sleep(20)")
        self.is_told(run, "KILLED", "TIMEOUT")

    def test_a_stopped_kernel(self):
        run = self.hostile("os.kill(os.getpid(), 19)", timeout=2)
        self.is_told(run, "TIMEOUT", "KILLED")

    def test_a_result_of_a_huge_announced_size(self):
        before = rss_bytes(running.server_pid())
        part = b"\x0a\x09text/html\x18" + b"\xff" * 8 + b"\x00"
        run = self.hostile(f"part = {part!r}\nframe(65, b'\\x0a' + bytes([len(part)]) + part, 0, 1)\nframe(66, b'\\x0a' + bytes([len(part)]) + part, 0, 1)")
        self.assertLess(rss_bytes(running.server_pid()) - before, 20 * MIB)
        self.assertEqual(scenario.execute(client, calm, "1+1").text, "2")
        self.assertIsNotNone(run.ended)

    def test_usage_and_exit_are_seen_from_the_host(self):
        run = self.hostile("""
import time
end = time.process_time() + 0.5
while time.process_time() < end: pass
os.kill(os.getpid(), 9)""")
        self.assertEqual(run.outcome, "SIGNALLED")
        self.assertGreaterEqual(run.ended.usage.cpu_time.ToMilliseconds(), 450)

    def test_what_runs_on_after_a_forged_end_is_charged_to_its_sandbox(self):
        self.hostile("""
if os.fork() == 0:
    os.setsid()
    while True: pass
frame(73, b'\\x08\\x01', 0, 1)""")
        before = scenario.get(client, self.sandbox).usage.cpu_time.ToMilliseconds()
        daemons.wait_until(lambda: scenario.get(client, self.sandbox).usage.cpu_time.ToMilliseconds() > before + 200, "charged")


if __name__ == "__main__":
    unittest.main()
