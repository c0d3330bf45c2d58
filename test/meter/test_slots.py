"""More leaves than the BPF programs have places for: those that have none go on from cgroup files, and say so."""

import unittest

import daemons
import measured
import scenario
import stubs
from measured import usec

SLOTS = 4  # for two sandboxes: an init and a context each
SPIN = "spin(0.2)"


def setUpModule():
    global running, client
    running = unittest.enterModuleContext(daemons.Daemons(runtime_arguments=["--meter-slots", str(SLOTS)]))
    client = unittest.enterModuleContext(stubs.Client(running.target))


def await_slots(n_used, n_refused):
    """hotcelld asks the runtime about once a second."""
    def is_so():
        told = client.server.GetServerInfo(stubs.server_service.GetServerInfoRequest(), timeout=60).metering
        return (told.slots, told.slots_used, told.slots_refused) == (SLOTS, n_used, n_refused)
    daemons.wait_until(is_so, f"{n_used} of {SLOTS} slots are used, {n_refused} were refused")


class Slots(unittest.TestCase):
    def spin(self, sandbox_id):
        """The usage of a cell there, which must agree with the files."""
        context_id = measured.run(client, sandbox_id, measured.PRELUDE).context_id
        groups = measured.Groups(running, sandbox_id, context_id)
        before = groups.read()
        usage = measured.run(client, sandbox_id, SPIN).ended.usage
        used = groups.read().cpu_usec - before.cpu_usec
        self.assertGreaterEqual(usec(usage.cpu_time), 200_000)
        self.assertLessEqual(abs(usec(usage.cpu_time) - used), measured.cpu_bar(used))
        return usage

    def test_a_leaf_without_a_slot_goes_on_from_files(self):
        await_slots(0, 0)
        made = [measured.sandbox(client, memory=256 * measured.MIB, limits={"disk_bytes": 32 * measured.MIB}) for _ in range(4)]
        usages = [self.spin(sandbox_id) for sandbox_id in made]
        without = [set(usage.missing) & measured.BY_PROGRAMS for usage in usages]
        n_refused = 2 * len(made) - SLOTS
        await_slots(SLOTS, n_refused)
        self.assertEqual(without.count(set()) + without.count(measured.BY_PROGRAMS), len(made))
        self.assertGreaterEqual(without.count(measured.BY_PROGRAMS), 1)
        for usage, missing in zip(usages, without):
            if missing:
                self.assertEqual((usec(usage.scheduled_time), usage.context_switches, usage.rss_peak_bytes), (0, 0, 0))
            else:
                self.assertLessEqual(abs(usec(usage.scheduled_time) - usec(usage.cpu_time)), measured.cpu_bar(usec(usage.cpu_time)))
        for sandbox_id in made:
            scenario.delete(client, sandbox_id)
        await_slots(0, n_refused)
        self.check_bills(made, usages)
        again = measured.sandbox(client)
        self.assertEqual(set(self.spin(again).missing) & measured.BY_PROGRAMS, set())
        await_slots(2, n_refused)
        scenario.delete(client, again)

    def check_bills(self, made, usages):
        """What was not measured in one execution is said of the sandbox, too."""
        for sandbox_id, usage in zip(made, usages):
            _, sums = measured.ledger(client, sandbox_id=sandbox_id)
            self.assertGreaterEqual(usec(sums.cpu_time), usec(usage.cpu_time))
            self.assertLessEqual(set(usage.missing), set(sums.missing))
