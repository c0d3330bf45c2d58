"""While it is not known which name a connection is for, it costs hotcell-egress nothing but what comes."""

import os
import pathlib
import time
import unittest

import scene as scenes
from scene import allow

NAMED = "93.184.216.40"
SECONDS = 1.0  # one processor's time, if it turned all the while
scene = scenes.Scene()

# The head of a ClientHello of 16 KiB, and ciphers up to its end.
LONG_HELLO = r"b'\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03' + bytes(32) + b'\x00\x3f\x00' + bytes(20000)"


def setUpModule():
    scene.enter()
    scene.world.set_zones({"allowed.test": {"A": [NAMED]}})


def processor_time(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Waiting(unittest.TestCase):
    def check(self, code):
        """Of connections that @code leaves in `flows`: they wait, and nobody turns."""
        sandbox = scene.create(allow("allowed.test", 443))
        scene.run(sandbox, f"""
address = address_of("allowed.test", 4)
flows = []
for _ in range(8):
    s = opened(address, 443)
    s.connect((address, 443))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
{code}
    flows.append(s)""")
        pid = scene.running.egress_pid()
        before = processor_time(pid)
        time.sleep(SECONDS)
        self.assertLess(processor_time(pid) - before, SECONDS / 4)
        # They are still there: neither refused nor forgotten.
        self.assertEqual(scene.inside(sandbox, "[attempt(lambda s=s: (s.setblocking(False), s.recv(1))) for s in flows]"), ["EAGAIN"] * 8)

    def test_behind_an_urgent_byte(self):
        """A peek ends before it, but what is behind it has come."""
        self.check(r"    s.sendall(b'\x16'); s.send(b'!', socket.MSG_OOB); s.sendall(b'\x03\x01')")

    def test_with_a_buffer_full_of_small_segments(self):
        """The kernel says that there is something to read, however little that is."""
        self.check(f"""    data = {LONG_HELLO}
    s.setblocking(False)
    try:
        for i in range(0, 16000, 100):
            s.send(data[i:i + 100])
    except BlockingIOError:
        pass
    s.setblocking(True)""")


if __name__ == "__main__":
    unittest.main()
