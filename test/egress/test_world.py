"""The world itself: what leaves the daemons' network arrives at a host and is counted; and nothing of it stays."""

import os
import pathlib
import signal
import subprocess
import sys
import unittest

import daemons
import world as worlds

ALLOWED = ("93.184.216.34", "2606:2800:220:1::34")


class Arriving(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.world = cls.enterClassContext(worlds.World())

    def arrived(self, code):
        mark = self.world.mark()
        self.result = self.world.outside.run(f"result = None\n{code}")
        return set(self.world.arrived(mark))

    def test_every_address_is_a_host(self):
        for address in (*ALLOWED, "10.1.2.3", "172.16.0.9", "192.168.7.7", "169.254.169.254", "100.100.100.200", "168.63.129.16", "fd00::7",
                        "fd00:ec2::254", "64:ff9b::a01:203", "2002:a01:203::1"):
            with self.subTest(address):
                seen = self.arrived(f"""
with socket.create_connection(({address!r}, 7), 10) as s:
    s.sendall(b"x")
    result = s.recv(9).decode()""")
                self.assertEqual((self.result, seen), ("x", {("tcp", address, 7)}))

    def test_datagrams_to_one_and_to_many_are_counted(self):
        for address in (*ALLOWED, "255.255.255.255", "239.1.2.3", "ff0e::1"):
            with self.subTest(address):
                seen = self.arrived(f"""
with socket.socket(socket.AF_INET6 if ":" in {address!r} else socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    s.sendto(b"x", ({address!r}, 9))""")
                self.assertEqual(seen, {("udp", address, 9)})

    def test_a_hole_is_silent_and_no_way_is_told(self):
        for address in worlds.HOLES:
            self.arrived(f"""
with socket.socket(socket.AF_INET6 if ":" in {address!r} else socket.AF_INET) as s:
    s.settimeout(0.3)
    try: s.connect(({address!r}, 7))
    except OSError as error: result = repr(error)""")
            self.assertIn("timed out", self.result)
        for address in worlds.UNREACHABLE:
            self.arrived(f"""
try: socket.create_connection(({address!r}, 7), 10)
except OSError as error: result = str(error)""")
            self.assertRegex(self.result, "unreachable|No route")


class Ending(unittest.TestCase):
    def test_nothing_is_left_of_a_world_that_was_killed(self):
        here = pathlib.Path(__file__).resolve().parent
        program = f"""
import sys
sys.path[:0] = [{str(here)!r}, {str(here.parent / "lib")!r}]
import world
with world.World() as w:
    print(w.hosts.process.pid, w.outside.peer.process.pid, w.nobody.peer.process.pid, flush=True)
    sys.stdin.read()
"""
        with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            pids = list(map(int, process.stdout.readline().split()))
            # Kept open: the number of a network that is gone is soon another one's.
            kept = [self.enterContext(open(f"/proc/{pid}/ns/net", "rb")) for pid in pids]
            networks = {f"net:[{os.fstat(network.fileno()).st_ino}]" for network in kept}
            process.send_signal(signal.SIGKILL)
            process.stdin.close()
        daemons.wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), "its processes ended")
        held = {os.readlink(path) for path in pathlib.Path("/proc").glob("[0-9]*/ns/net") if os.access(path, os.R_OK)}
        self.assertFalse(networks & held)


if __name__ == "__main__":
    unittest.main()
