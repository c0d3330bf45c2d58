"""What the kernel counts for the whole host, or not at all: no sandbox uses it up or passes it by."""

import ctypes
import pathlib
import unittest

import daemons
import scenario
import stubs
from hostile import PRELUDE
from scenario import MIB

libc = ctypes.CDLL(None, use_errno=True)

# Fills pairs of sockets over lo until the kernel takes no more; says how many MiB it was made to take.
FILL = """
keep = []
def fill(pair, limit):
    held, data = 0, bytes(60000)
    try:
        while len(keep) < 600 and held < limit:
            a, b = pair()
            b.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20); a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
            a.setblocking(False); keep.extend((a, b))
            for _ in range(200):
                try: held += a.send(data)
                except BlockingIOError: break
    except OSError:
        pass
    if keep[-1].type == socket.SOCK_DGRAM:  # what does not fit is dropped without a word
        held = 0
        for b in keep:
            b.setblocking(False)
            try:
                while True: held += len(b.recv(60000))
            except BlockingIOError: pass
    return held >> 20

listener = socket.socket(); listener.bind(("127.0.0.1", 0)); listener.listen(1000)
def tcp():
    a = socket.socket(); a.settimeout(2); a.connect(listener.getsockname())
    return a, listener.accept()[0]
def udp():
    a, b = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
    b.bind(("127.0.0.1", 0)); a.connect(b.getsockname())
    return a, b
"""


def setUpModule():
    global running, client
    running = unittest.enterModuleContext(daemons.Daemons())
    client = unittest.enterModuleContext(stubs.Client(running.target))


class Case(unittest.TestCase):
    def setUp(self):
        self.sandbox = self.fresh()
        self.neighbour = self.fresh()

    def fresh(self, memory=256 * MIB, **limits):
        made = scenario.create(client, memory=memory, limits={"disk_bytes": 64 * MIB, **limits}).sandbox_id
        self.addCleanup(scenario.delete, client, made)
        return made

    def inside(self, code, where=None, **fields):
        return scenario.execute(client, where or self.sandbox, PRELUDE + code, **fields)


class SocketMemory(Case):
    MOST_MIB = 40 if pathlib.Path("/sys/fs/cgroup/memory").is_dir() else 256  # v1: 32, and what is on its way

    def held(self, kind, where=None, **fields):
        run = self.inside(FILL + f"print(fill({kind}, 400 << 20))", where, timeout=50, **fields)
        if run.outcome == "OOM":
            return 0
        self.assertEqual(run.outcome, "OK", run)
        return int(run.stdout)

    def test_tcp_buffers_are_bounded(self):
        self.assertLess(self.held("tcp"), self.MOST_MIB)

    def test_udp_buffers_are_bounded(self):
        self.assertLess(self.held("udp"), self.MOST_MIB)

    def test_a_small_sandbox_has_a_small_bound(self):
        small = self.fresh(memory=128 * MIB)
        self.assertLess(self.held("tcp", small), 20 if self.MOST_MIB < 128 else 128)

    def test_all_contexts_share_the_bound(self):
        """Sockets are counted in the leaf of the process that made them: each must have its counter on."""
        total = 0
        for _ in range(3):
            made = stubs.execution_service.CreateContextRequest(sandbox_id=self.sandbox)
            context = client.executions.CreateContext(made, timeout=60).context.context_id
            total += self.held("tcp", context_id=context)
        self.assertLess(total, self.MOST_MIB + 10)

    def test_many_connections_with_a_packet_each_end_their_process(self):
        """The kernel gives each connection some memory, whatever the limit says."""
        sandbox = self.fresh(open_files=20000)
        run = self.inside(FILL + """
import time
for _ in range(4000):
    a, b = tcp(); a.setblocking(False); keep += [a, b]
    try:
        while True: a.send(bytes(65536))
    except BlockingIOError: pass
time.sleep(60)""", sandbox, timeout=50)
        self.assertEqual(run.outcome, "OOM", run)
        self.assertEqual(scenario.execute(client, sandbox, "1+1").text, "2")

    def test_sockets_work_while_the_bound_is_reached_next_door(self):
        self.held("tcp")
        run = self.inside(FILL + "a, b = tcp(); a.sendall(b'x' * 1000); print(len(b.recv(1000)))", self.neighbour)
        self.assertEqual(run.stdout, b"1000\n")

    def test_megabytes_pass_through_a_connection(self):
        run = self.inside(FILL + """
import threading
a, b = tcp(); n = 0; a.settimeout(20); b.settimeout(20)
sender = threading.Thread(target=lambda: (a.sendall(bytes(64 << 20)), a.close())); sender.start()
while data := b.recv(1 << 20): n += len(data)
print(n >> 20)""", timeout=50)
        self.assertEqual(run.stdout, b"64\n")


class HostLimits(Case):
    """What the kernel counts for a user must not be counted for root or for another sandbox."""

    def test_inotify_instances(self):
        self.assertEqual(self.inside("while libc.inotify_init1(0) >= 0: pass").outcome, "OK")
        self.assertEqual(self.inside("print(libc.inotify_init1(0) >= 0)", self.neighbour).stdout, b"True\n")

    def test_timers_and_pending_signals(self):
        self.assertEqual(self.inside("t = ctypes.c_void_p()\nwhile libc.timer_create(1, None, ctypes.byref(t)) == 0: pass", timeout=50).outcome, "OK")
        self.assertEqual(self.inside("t = ctypes.c_void_p(); print(libc.timer_create(1, None, ctypes.byref(t)))", self.neighbour).stdout, b"0\n")
        timer = ctypes.c_void_p()
        self.assertEqual(libc.timer_create(1, None, ctypes.byref(timer)), 0, "the host's root has no timers left")
        libc.timer_delete(timer)

    def test_message_queues(self):
        code = """
rt = ctypes.CDLL("librt.so.1", use_errno=True); n = 0
while rt.mq_open(b"/q%d" % n, os.O_CREAT | os.O_RDWR, 0o600, None) >= 0: n += 1
print(n > 0)"""
        self.assertEqual(self.inside(code).stdout, b"True\n")
        self.assertEqual(self.inside(code, self.neighbour).stdout, b"True\n")

    def test_a_core_dump_cannot_be_asked_for(self):
        """A limit of 0 lets a piped core_pattern start the host's helper as root; only 1 keeps it from that."""
        run = self.inside("""
import resource
def attempt(function, *arguments):
    try: function(*arguments)
    except ValueError as error: return str(error)  # what Python makes of EPERM
    except OSError as error: return errno.errorcode[error.errno]
results = [attempt(resource.setrlimit, resource.RLIMIT_CORE, (0, 0)),
           attempt(resource.prlimit, 0, resource.RLIMIT_CORE, (0, 0)), resource.getrlimit(resource.RLIMIT_CORE),
           resource.prlimit(0, resource.RLIMIT_CORE), call({"x86_64": 160, "aarch64": 164}[os.uname().machine], 4, ctypes.byref((ctypes.c_uint64 * 2)()))]
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
print(json.dumps(results), resource.getrlimit(resource.RLIMIT_NOFILE))""")
        self.assertEqual(run.stdout, b'["not allowed to raise maximum limit", "EPERM", [1, 1], [1, 1], "EPERM"] (100, 100)\n')

    def test_socket_filters_are_refused(self):
        """Each compiled one counts against net.core.bpf_jit_limit, which all sandboxes' seccomp filters need."""
        run = self.inside("""
import struct
code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0xffffffff))
program = struct.pack("HxxxxxxQ", 1, ctypes.addressof(code))
s = socket.socket(socket.AF_UNIX)
print(*(tried(s.setsockopt, 1, option, program)[0] for option in (26, 50, 51, 52, 44)))
s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
socket.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)""")
        self.assertEqual((run.outcome, run.stdout), ("OK", b"EPERM EPERM EPERM EPERM EPERM\n"))

    def test_seccomp_filters_are_unknown(self):
        run = self.inside("""
code = ctypes.create_string_buffer(bytes.fromhex("060000000000ff7f"))
program = (ctypes.c_uint64 * 2)(1, ctypes.addressof(code))
libc.prctl(38, 1, 0, 0, 0); results = []
results += [call({"x86_64": 317, "aarch64": 277}[os.uname().machine], 1, 0, ctypes.byref(program))]
results += [libc.prctl(22, 2, ctypes.byref(program)), ctypes.get_errno()]
results += [libc.prctl(15, b"renamed"), libc.prctl(21)]
print(results)""")
        self.assertEqual(run.stdout, b"['EINVAL', -1, 22, 0, 2]\n")

    def test_programs_that_crash_leave_no_dump(self):
        run = self.inside("""
import faulthandler, subprocess, sys
child = subprocess.run([sys.executable, "-X", "faulthandler", "-c", "import ctypes; ctypes.string_at(0)"], cwd="/tmp",
                       stderr=subprocess.PIPE)
print(child.returncode, b"Segmentation fault" in child.stderr, [name for name in os.listdir("/tmp") if "core" in name])""")
        self.assertEqual(run.stdout, b"-11 True []\n")


class Walls(Case):
    def test_a_helper_for_core_dumps_is_reported(self):
        answer = client.server.GetServerInfo(stubs.server_service.GetServerInfoRequest(), timeout=60)
        wall = next(wall for wall in answer.walls if wall.name == "core_pattern")
        piped = pathlib.Path("/proc/sys/kernel/core_pattern").read_text().startswith("|")
        self.assertEqual((wall.required, wall.holds, wall.fix != ""), (False, not piped, piped))


if __name__ == "__main__":
    unittest.main()
