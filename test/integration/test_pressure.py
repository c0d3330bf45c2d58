"""What is short in a sandbox is told while its code runs, so that it can use less: before it is too late."""

import signal
import subprocess
import time
import unittest

import daemons
import scenario
import stubs
from daemons import PATIENCE
from scenario import MIB
from stubs import execution, execution_service

FILL_UP = {"MEMORY_LIMIT", "PROCESSES", "DISK", "INODES"}
WINDOW_SECONDS = 2  # between looks
SEVERAL_LOOKS = 4 * WINDOW_SECONDS
WAIT = "import threading; threading.Event().wait()"


def setUpModule():
    global running, client
    running = unittest.enterModuleContext(daemons.Daemons())
    client = unittest.enterModuleContext(stubs.Client(running.target))


def create(**limits):
    return scenario.create(client, memory=256 * MIB, limits={"disk_bytes": 64 * MIB, **limits}).sandbox_id


def kind_of(pressure):
    return execution.PressureKind.Name(pressure.kind).removeprefix("PRESSURE_KIND_")


class Pressure(unittest.TestCase):
    def run_until_told(self, sandbox, kind, code):
        """The first of that kind; then the code is interrupted. @return: it, and the run."""
        def found(run):
            return next((pressure for pressure in run.pressures if kind_of(pressure) == kind), None)
        stream = client.executions.Execute(scenario.request(sandbox, code, timeout=60 * PATIENCE), timeout=120 * PATIENCE)
        run = scenario.fold_until(stream, lambda run: found(run) or run.ended)
        self.told_at = time.monotonic()
        self.assertIsNone(run.ended, f"{kind} was not told: {run}")
        client.executions.InterruptExecution(execution_service.InterruptExecutionRequest(execution_id=run.execution_id), timeout=60 * PATIENCE)
        run = scenario.fold(stream, run)
        # How much others use this host decides what is waited for; what fills up is the sandbox's alone.
        self.assertEqual({kind_of(pressure) for pressure in run.pressures} & FILL_UP, {kind} & FILL_UP)
        return found(run), run

    def test_memory_is_told_before_it_is_out(self):
        sandbox = create()
        scenario.execute(client, sandbox, "1")
        n_mib = (256 * 88 // 100) - scenario.get(client, sandbox).usage.memory_bytes // MIB
        run = scenario.execute(client, sandbox, f"""
import time
held = [bytearray(1 << 20) for _ in range({n_mib})]
while True:
    held.append(bytearray(1 << 20))
    time.sleep(0.15)
""")
        self.assertEqual((run.outcome, run.cause), ("OOM", "LIMIT"))
        told = next(pressure for pressure in run.pressures if kind_of(pressure) == "MEMORY_LIMIT")
        self.assertEqual(told.limit, 256 * MIB)
        self.assertGreaterEqual(told.used, 0.9 * 256 * MIB)
        self.assertLessEqual(told.used, 256 * MIB)
        self.assertEqual(told.message, f"Memory is nearly full: {told.used // MIB} of 256 MiB.")
        # It is in what a client reads later, too, and for a while in what is told of the sandbox.
        stream = client.usage.WatchUsage(stubs.usage_service.WatchUsageRequest(sandbox_id=sandbox), timeout=60 * PATIENCE)
        now = next(stream).sandboxes[0]
        stream.cancel()
        kept = next(pressure for pressure in now.pressures if kind_of(pressure) == "MEMORY_LIMIT")
        self.assertEqual(kept, [pressure for pressure in run.pressures if kind_of(pressure) == "MEMORY_LIMIT"][-1])
        self.assertEqual(len(scenario.attach(client, run.execution_id).pressures), len(run.pressures))

    def test_a_cpu_limit_that_is_used_up_is_told(self):
        # By several at once: it is to be more than the limit also of what a busy host has left.
        told, run = self.run_until_told(create(cpu_millis=150), "CPU_THROTTLED", """
import subprocess, sys
spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
try:
    while True: pass
finally:
    for one in spinning: one.kill()
""")
        self.assertGreaterEqual(told.used, 500)
        self.assertLessEqual(told.used, 1000)
        self.assertEqual(told.limit, 0)
        self.assertEqual(told.message, f"Programs wait as their CPU limit is used up, {told.used // 10} % of the time.")
        self.assertEqual(run.outcome, "INTERRUPTED")

    def test_the_first_two_seconds_of_a_sandbox_are_looked_at(self):
        begin = time.monotonic()
        self.run_until_told(create(cpu_millis=150), "CPU_THROTTLED", "while True: pass")
        self.assertLess(self.told_at - begin, 2 * WINDOW_SECONDS)

    def test_waiting_for_a_disk_is_told_while_it_lasts(self):
        """Nothing in the sandbox uses CPU meanwhile."""
        n_mib = 8 * PATIENCE
        told, run = self.run_until_told(create(io_bytes_per_second=MIB), "IO_STALL", f"""
import mmap, os
folder = "/usr/lib/x86_64-linux-gnu"
path = max((os.path.join(folder, name) for name in os.listdir(folder)), key=os.path.getsize)
fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
size = os.path.getsize(path) // 4096 * 4096
buffer = mmap.mmap(-1, min(size, {n_mib} << 20))
os.preadv(fd, [buffer], 0)
print("read", flush=True)
""")
        self.assertIn(run.outcome, ("INTERRUPTED", "KILLED"))  # what waits for a disk hears nothing else
        self.assertEqual(run.stdout, b"", "it was told before the disk had answered")
        self.assertGreaterEqual(told.used, 500)

    def test_processes_are_told(self):
        told, run = self.run_until_told(create(processes=40), "PROCESSES", """
import threading
done = threading.Event()
try:
    while True:
        threading.Thread(target=done.wait, daemon=True).start()
except RuntimeError:
    pass
try:
    threading.Event().wait()
finally:
    done.set()
""")
        self.assertEqual((told.used, told.limit), (40, 40))
        self.assertEqual(told.message, "There is hardly room for another process: 40 of 40.")

    def test_a_full_disk_is_told_by_the_command_line(self):
        sandbox = create()
        code = f"open('/tmp/large', 'wb').write(bytes({60 * MIB}))\n{WAIT}"
        process = subprocess.Popen([daemons.build_folder() / "cli/hotcell", "--target", running.target, "exec", sandbox, "-c", code],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        line = next(line for line in process.stderr if "disk" in line)
        self.assertRegex(line, r"^hotcell: the disk is nearly full: 6[0-4] of 64 MiB\n$")
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60 * PATIENCE)[1]
        self.assertNotIn("disk", rest)

    def test_files_that_run_out_by_number_are_told(self):
        told, run = self.run_until_told(create(disk_inodes=2000), "INODES", """
import os
os.mkdir("/tmp/many")
try:
    for number in range(2000):
        os.mknod(f"/tmp/many/{number}")
except OSError:
    pass
while True: pass
""")
        self.assertEqual((told.used, told.limit), (2000, 2000))
        self.assertEqual(told.message, "There is hardly room for another file: 2000 of 2000.")

    def test_a_sandbox_where_nothing_is_short_is_told_nothing(self):
        sandbox = create()
        done = scenario.execute(client, sandbox, f"import time\nend = time.monotonic() + {SEVERAL_LOOKS}\nwhile time.monotonic() < end: time.sleep(0.01)")
        self.assertEqual({kind_of(pressure) for pressure in done.pressures} & (FILL_UP | {"CPU_THROTTLED"}), set())


if __name__ == "__main__":
    unittest.main()
