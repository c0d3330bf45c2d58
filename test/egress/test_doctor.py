"""hotcell doctor tells whether hotcell-egress, through which all goes that policies allow, is there and answers."""

import contextlib
import os
import signal
import unittest

import daemons
from daemons import hotcell, wait_until

CAN, CANNOT = (f"What policies allow can leave sandboxes: {word}" for word in ("hotcell-egress is there and answers;", "NO, see egress_relay above."))
NAMESERVER = "127.0.0.1:9"  # is never asked


class Doctor(unittest.TestCase):
    def doctor(self, running):
        done = hotcell(running, "doctor")
        text = done.stdout.decode()
        self.assertIn("All required walls hold: yes. The server serves: yes.", text)
        self.assertEqual(done.returncode, 0)
        return text

    def test_without_hotcell_egress(self):
        with daemons.Daemons() as running:
            text = self.doctor(running)
            self.assertIn("hotcell-runtime has no hotcell-egress", text)
            self.assertIn(CANNOT, text)
            refused = hotcell(running, "sandbox", "create", "--allow", "example.org")
            self.assertIn(b"EGRESS_UNAVAILABLE", refused.stderr)
            self.assertIn(b"hotcell doctor", refused.stderr)

    def test_with_one_that_does_not_answer_or_was_replaced(self):
        with daemons.Daemons(nameservers=[NAMESERVER]) as running:
            wait_until(lambda: CAN in self.doctor(running), "hotcell-egress is there")
            pid = running.egress_pid()
            os.kill(pid, signal.SIGSTOP)
            try:
                text = self.doctor(running)
                self.assertIn("hotcell-egress is there and does not answer", text)
                self.assertIn(CANNOT, text)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            self.assertIn(CAN, self.doctor(running))
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: running.egress_pid() not in (None, pid) and CAN in self.doctor(running), "the next one is there")


if __name__ == "__main__":
    unittest.main()
