"""Programs in sandboxes, held against three clocks: what hotcell says that each used, what the files of its cgroup say, and what it says itself.

A module with tests of these makes the place for them; see enter().
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import unittest

import daemons
import measured
import stubs
from measured import MIB, usec

HEAD = f"{'workload':<26}{'cpu':>9}{'file':>9}{'own':>9}{'seen':>9}{'wait':>9}{'switches':>9}{'peak':>8}{'file':>8}{'rss':>8}{'VmHWM':>8}{'sent':>7}{'back':>7}"
UNITS = f"{'':<26}{'ms':>9}{'ms':>9}{'ms':>9}{'ms':>9}{'ms':>9}{'':>9}{'MiB':>8}{'MiB':>8}{'MiB':>8}{'MiB':>8}{'MiB':>7}{'MiB':>7}"


class Place:
    """Where they run."""

    def enter(self, running, client, has_programs):
        self.running, self.client, self.has_programs = running, client, has_programs
        self.rows = []
        unittest.addModuleCleanup(self.write_table, self.rows, has_programs)

    def write_table(self, rows, has_programs):
        title = "what programs used, by hotcell, by the files of their cgroup, and by their own clocks" + (
            "" if has_programs else "; without BPF programs")
        lines = [title, HEAD, UNITS, *rows]
        print("".join(f"# {line}\n" for line in lines), end="", flush=True)
        path = self.table_path(has_programs)
        if path:
            path.write_text("\n".join(lines) + "\n")

    @staticmethod
    def table_path(has_programs):
        if os.environ.get("HOTCELL_TEST_METER_TABLE"):
            return pathlib.Path(os.environ["HOTCELL_TEST_METER_TABLE"])
        logs = daemons.build_folder() / "meson-logs"
        return logs / f"meter-table{'' if has_programs else '-files'}.txt" if logs.is_dir() else None


place = Place()


class Measured:
    """One execution, and the readings around it."""

    def __init__(self, sandbox_id, context_id, code):
        groups = measured.Groups(place.running, sandbox_id, context_id)
        before = groups.read()
        self.run = measured.run(place.client, sandbox_id, code, context_id=context_id)
        after = groups.read()
        self.usage = self.run.ended.usage
        self.file_cpu_usec = after.cpu_usec - before.cpu_usec
        self.file_peak_bytes = after.memory_peak_bytes
        self.own = json.loads(self.run.stdout)

    def row(self, name):
        def milliseconds(microseconds):
            return f"{microseconds / 1000:>9.1f}"

        def mebibytes(n_bytes, width=8):
            return f"{'-' if n_bytes is None else format(n_bytes / MIB, '.1f'):>{width}}"
        usage = self.usage
        return "".join((
            f"{name:<26}", milliseconds(usec(usage.cpu_time)), milliseconds(self.file_cpu_usec), milliseconds(self.own["cpu"] * 1e6),
            milliseconds(usec(usage.scheduled_time)), milliseconds(usec(usage.run_queue_wait)), f"{usage.context_switches:>9}",
            mebibytes(usage.memory_peak_bytes), mebibytes(self.file_peak_bytes), mebibytes(usage.rss_peak_bytes), mebibytes(self.own["rss"]),
            mebibytes(usage.sent_bytes, 7), mebibytes(usage.received_bytes, 7)))


@contextlib.contextmanager
def contended():
    """Processes beside sandboxes that want every CPU."""
    spinners = [subprocess.Popen(["setpriv", "--pdeathsig", "KILL", sys.executable, "-c", "print(flush=True)\nwhile True: pass"],
                                 stdout=subprocess.PIPE) for _ in os.sched_getaffinity(0)]
    try:
        for spinner in spinners:
            spinner.stdout.readline()
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()
            spinner.stdout.close()


class Case(unittest.TestCase):
    egress = None  # its sandbox's policy

    @classmethod
    def setUpClass(cls):
        cls.sandbox = measured.sandbox(place.client, egress=cls.egress)

    @classmethod
    def tearDownClass(cls):
        place.client.sandboxes.DeleteSandbox(stubs.sandbox_service.DeleteSandboxRequest(sandbox_id=cls.sandbox), timeout=60)

    def context(self):
        context_id = measured.new_context(place.client, self.sandbox)
        self.addCleanup(place.client.executions.DeleteContext,
                        stubs.execution_service.DeleteContextRequest(sandbox_id=self.sandbox, context_id=context_id), timeout=60)
        return context_id

    def measure(self, name, code):
        """Runs it in a context of its own and holds what is told of it against all bars."""
        done = Measured(self.sandbox, self.context(), f"measured({code})")
        self.check(name, done)
        return done

    def check(self, name, done):
        place.rows.append(done.row(name))
        usage, own = done.usage, done.own
        self.check_cpu(usage, done.file_cpu_usec, own["cpu"] * 1e6)
        self.assertEqual(usage.memory_peak_bytes, done.file_peak_bytes)
        if place.has_programs:
            self.assertLessEqual(abs(usage.rss_peak_bytes - own["rss"]), measured.rss_bar(own["rss"]), "rss_peak and VmHWM")
        self.assertEqual(set(usage.missing) & measured.BY_PROGRAMS - {"run_queue_wait"},
                         set() if place.has_programs else measured.BY_PROGRAMS - {"run_queue_wait"})
        self.check_told(done)

    def check_cpu(self, usage, file_usec, own_usec):
        bar = measured.cpu_bar(file_usec)
        self.assertLessEqual(abs(usec(usage.cpu_time) - file_usec), bar, "cpu_time and cpu.stat")
        self.assertLessEqual(abs(usec(usage.cpu_user_time) + usec(usage.cpu_system_time) - usec(usage.cpu_time)), 2, "its parts")
        self.assertGreaterEqual(usec(usage.cpu_time), own_usec - bar, "cpu_time and the program's own clock")
        if place.has_programs:
            self.assertLessEqual(abs(usec(usage.scheduled_time) - file_usec), bar, "scheduled_time and cpu.stat")
            self.assertLessEqual(usec(usage.earlier_work_time), bar, "nothing of it is of an earlier execution")
        else:
            self.assertEqual((usec(usage.scheduled_time), usage.context_switches), (0, 0))

    def check_told(self, done):
        """The stream, GetExecution and the ledger say the same."""
        told = measured.fields(done.usage)
        again = measured.get_execution(place.client, done.run.execution_id)
        self.assertEqual(measured.fields(again.ended.usage), told)
        records, _ = measured.ledger(place.client, execution_id=done.run.execution_id)
        self.assertEqual(len(records), 1)
        without = measured.OF_THE_SANDBOX
        self.assertEqual(measured.fields(records[0].usage, without), measured.fields(done.usage, without))
