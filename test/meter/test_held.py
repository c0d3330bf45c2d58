"""What is billed for memory over time is what the sandbox holds now, also where nothing runs that told of a change.

HOTCELL_TEST_METER_PROGRAMS=0: without the BPF programs, see measured.py.
"""

import unittest

import daemons
import measured
import scenario
import stubs
from measured import MIB

PERIOD_SECONDS = 1
SLACK_MIB = 16  # a client's time and a look's are not the same
FILE_MIB = 150
TRIES = 6  # of what is seen only if a look came too early


def setUpModule():
    global running, client
    running = unittest.enterModuleContext(daemons.Daemons(runtime_arguments=measured.RUNTIME_ARGUMENTS))
    client = unittest.enterModuleContext(stubs.Client(running.target))


def moments(sandbox_id):
    """Times, what is held, and what was billed until then."""
    request = stubs.usage_service.WatchUsageRequest(sandbox_id=sandbox_id)
    request.period.FromSeconds(PERIOD_SECONDS)
    for answer in client.usage.WatchUsage(request, timeout=60 * daemons.PATIENCE):
        usage = answer.sandboxes[0].usage
        yield answer.time.ToMicroseconds() / 1e6, usage.memory_bytes / MIB, usage.total.memory_byte_seconds / MIB


class Held(unittest.TestCase):
    def await_truth(self, sandbox_id, least_mib=0):
        """Until a whole period is billed by what is held; looks are at random, so not the first one."""
        last, seen = None, []
        for seconds, held_mib, billed in moments(sandbox_id):
            if last:
                rate_mib = (billed - last[1]) / (seconds - last[0])
                seen.append(f"holds {held_mib:.1f} MiB, billed {rate_mib:.1f} MiB a second")
                self.assertGreaterEqual(held_mib, least_mib)
                if abs(rate_mib - held_mib) <= SLACK_MIB:
                    break
                if len(seen) == 10:
                    self.fail(f"{seen}")
            last = seconds, billed
        print(f"# {seen[-1]} (period {len(seen)})")

    def make(self):
        return measured.sandbox(client, limits={"disk_bytes": 700 * MIB})

    def test_an_interpreter_that_ended_holds_nothing(self):
        sandbox_id = self.make()
        scenario.execute(client, sandbox_id, "import os, time\nb = b'x' * (600 << 20)\ntime.sleep(1)\nos._exit(3)")
        self.await_truth(sandbox_id)

    def test_an_interpreter_that_ran_out_of_memory_holds_nothing(self):
        sandbox_id = self.make()
        scenario.execute(client, sandbox_id, "b = []\nwhile True: b.append(b'x' * (1 << 20))")
        self.await_truth(sandbox_id)

    def test_a_file_that_another_context_deletes_is_held_by_nobody(self):
        sandbox_id = self.make()
        measured.run(client, sandbox_id, "1")
        other = measured.new_context(client, sandbox_id)
        measured.run(client, sandbox_id, "import os, time\nf = os.open('/tmp/f', 66)\nos.posix_fallocate(f, 0, 600 << 20)\nos.close(f)\ntime.sleep(1)",
                     context_id=other)
        measured.run(client, sandbox_id, "import os\nos.unlink('/tmp/f')")
        self.await_truth(sandbox_id)

    def test_files_of_an_interpreter_that_ended_at_once_are_held(self):
        for _ in range(TRIES):
            sandbox_id = self.make()
            measured.run(client, sandbox_id, "import os, time\ntime.sleep(0.5)")
            scenario.execute(client, sandbox_id, f"f = os.open('/tmp/f', 66)\nos.posix_fallocate(f, 0, {FILE_MIB} << 20)\nos._exit(0)")
            self.await_truth(sandbox_id, least_mib=FILE_MIB)
            scenario.delete(client, sandbox_id)


if __name__ == "__main__":
    unittest.main()
