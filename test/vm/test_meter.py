"""What is told of use on a kernel with cgroup2 alone: a few of the programs of test/meter, with the BPF programs and with a runtime without."""

import pathlib
import sys
import unittest

import daemons
import stubs

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "meter"))
import measured  # noqa: E402  pylint: disable=wrong-import-position
import workloads  # noqa: E402  pylint: disable=wrong-import-position
from measured import MIB, usec  # noqa: E402  pylint: disable=wrong-import-position


class Programs:
    """The tests; @arguments are the runtime's."""

    @classmethod
    def setUpClass(cls):
        running = unittest.enterModuleContext(daemons.Daemons(["--timeout-default=10m"], cls.arguments))
        workloads.place.enter(running, unittest.enterModuleContext(stubs.Client(running.target)), not cls.arguments)
        super().setUpClass()

    def test_spinning(self):
        done = self.measure("spin 0.3 s, two threads", "on_threads, 2, spin, 0.3")
        self.assertGreaterEqual(usec(done.usage.cpu_time), 600_000)

    def test_forking(self):
        self.measure("fork 20 children", "fork_many, 20")

    def test_touching_and_freeing(self):
        done = self.measure("touch 100 MiB and free it", f"touch_and_free, {100 * MIB}")
        self.assertGreaterEqual(done.usage.memory_peak_bytes, 100 * MIB)

    def test_the_server_says_how_it_measures(self):
        metering = workloads.place.client.server.GetServerInfo(stubs.server_service.GetServerInfoRequest(), timeout=60 * daemons.PATIENCE).metering
        self.assertEqual(metering.programs, workloads.place.has_programs, metering.detail)
        self.assertEqual(set(metering.missing) & measured.BY_PROGRAMS, set() if workloads.place.has_programs else measured.BY_PROGRAMS)


class WithPrograms(Programs, workloads.Case):
    arguments = ()


class WithoutPrograms(Programs, workloads.Case):
    arguments = ("--no-meter-programs",)
