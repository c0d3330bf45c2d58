"""Kernel memory that a program makes the host keep: it is the sandbox's, and bounded by the sandbox's limit."""

import json
import pathlib
import time
import unittest

import daemons
import scenario
import stubs
from hostile import PRELUDE
from scenario import MIB

LIMIT_MIB = 256


def setUpModule():
    global running, client
    running = unittest.enterModuleContext(daemons.Daemons())
    client = unittest.enterModuleContext(stubs.Client(running.target))


def host_mib():
    """What the host has left without caches that it could drop, and what its kernel has taken in objects."""
    found = {name: int(value.split()[0]) >> 10 for name, value in
             (line.split(":") for line in pathlib.Path("/proc/meminfo").read_text().splitlines())}
    return found["MemAvailable"], found["SUnreclaim"]


class Kernel(unittest.TestCase):
    """The host may lose no more than the limit and some noise of its own while the objects are held."""

    MOST_MIB = LIMIT_MIB + 150

    def setUp(self):
        limits = {"disk_bytes": 64 * MIB, "open_files": 20000, "processes": 256, "cpu_millis": 2000}
        self.sandbox = scenario.create(client, memory=LIMIT_MIB * MIB, limits=limits).sandbox_id
        self.addCleanup(scenario.delete, client, self.sandbox)
        self.assertEqual(scenario.execute(client, self.sandbox, "1").outcome, "OK")

    def hold(self, code, seconds=70):
        """Runs code that makes objects, says a line of JSON when it holds them, and waits."""
        free_before, taken_before = host_mib()
        source = PRELUDE + "import time\n" + code + "\nprint(json.dumps(n), flush=True)\ntime.sleep(60)\n"
        stream = client.executions.Execute(scenario.request(self.sandbox, source, timeout=seconds), timeout=120)
        run = scenario.fold_until(stream, lambda run: run.ended or run.stdout.endswith(b"\n"))
        time.sleep(0.5)
        free_held, taken_held = host_mib()
        usage = scenario.get(client, self.sandbox).usage.memory_bytes >> 20
        stream.cancel()
        scenario.delete(client, self.sandbox)
        # What others on this machine take and give meanwhile is not the sandbox's: only what comes back with its end is.
        end = time.monotonic() + 15
        while free_before - free_held > self.MOST_MIB and time.monotonic() < end and host_mib()[0] - free_held < free_before - free_held:
            time.sleep(0.5)
        lost = max(min(free_before - free_held, host_mib()[0] - free_held), taken_held - taken_before)
        made = json.loads(run.stdout) if run.stdout else run.outcome
        print(f"# {self.id().rsplit('.', 1)[-1]}: made {made}; it costs the host {lost} MiB, the sandbox is charged {usage} MiB")
        self.assertLess(lost, self.MOST_MIB)
        return made

    def test_answers_in_netlink_sockets(self):
        """Each holds errors that quote the message they are about, until nobody's receive buffer takes more."""
        self.hold("""
import struct
keep, n = [], 0
message = struct.pack("IHHII", 32768, 9999, 5, 1, 0) + bytes(32768 - 16)
try:
    while n < 500:
        s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        s.setblocking(False)
        keep.append(s); n += 1
        for _ in range(30):
            try: s.send(message)
            except BlockingIOError: break
except OSError as error: n = [n, str(error)]
""")

    def waiting(self, n, data):
        """Connections that nobody accepts, of many listeners: what each is sent counts for nobody either."""
        return f"""
keep, n = [], 0
try:
    while n < {n}:
        l = socket.socket(); l.bind(("127.0.0.1", 0)); l.listen(4096); keep.append(l)
        address = l.getsockname()
        for _ in range(400):
            c = socket.socket(); c.connect(address); c.setblocking(False)
            if {data}:
                try: c.send(bytes({data}))
                except BlockingIOError: pass
            c.close(); n += 1
except OSError as error: n = [n, str(error)]
"""

    def test_connections_that_wait_to_be_accepted(self):
        self.assertEqual(self.hold(self.waiting(60000, 0)), "OOM")

    def test_connections_that_wait_with_what_they_were_sent(self):
        self.assertEqual(self.hold(self.waiting(60000, 30000)), "OOM")

    def test_a_few_connections_may_wait(self):
        self.assertEqual(self.hold(self.waiting(800, 0)), 800)

    def test_a_sandbox_goes_on_after_its_connections_were_ended(self):
        run = scenario.execute(client, self.sandbox, PRELUDE + self.waiting(60000, 0) + "\ntime.sleep(60)", timeout=60)
        self.assertEqual(run.outcome, "OOM")
        self.assertEqual(scenario.execute(client, self.sandbox, "1+1").text, "2")

    def test_packets_that_come_back_with_their_time(self):
        """A copy of each packet sent waits with its time stamp in the error queue of its socket."""
        self.hold("""
keep, n = [], 0
sink = socket.socket(type=socket.SOCK_DGRAM); sink.bind(("127.0.0.1", 0))
try:
    while len(keep) < 300:
        s = socket.socket(type=socket.SOCK_DGRAM); keep.append(s)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22); s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        s.setsockopt(socket.SOL_SOCKET, 37, 2 | 16); s.connect(sink.getsockname())
        for _ in range(150): s.send(bytes(60000)); n += 1
except OSError as error: n = [len(keep), n, str(error)]
""")

    def test_packets_whose_time_is_asked_for_in_a_message(self):
        """The same without the socket's option, which a filter of system calls could see."""
        made = self.hold("""
import struct
keep, n = [], 0
sink = socket.socket(type=socket.SOCK_DGRAM); sink.bind(("127.0.0.1", 0))
times = [(socket.SOL_SOCKET, 37, struct.pack("I", 2))]
try:
    while len(keep) < 300:
        s = socket.socket(type=socket.SOCK_DGRAM); keep.append(s); s.connect(sink.getsockname())
        for _ in range(4): s.sendmsg([bytes(50000)], times); n += 1
except OSError as error: n = [len(keep), n, str(error)]
rows = [line.split()[4].split(":") for line in open("/proc/net/udp").read().splitlines()[1:]]
held = [int(queue[1], 16) for queue in rows]
n = [n, sum(held) - max(held)]  # but for what the sink has
""")
        self.assertEqual(made, [1200, 0])

    def test_packets_that_wait_for_more(self):
        made = self.hold("""
keep, n, refused = [], 0, None
try:
    while n < 7000:
        s = socket.socket(type=socket.SOCK_DGRAM); keep.append(s); s.connect(("127.0.0.1", 9))
        s.send(bytes(60000), socket.MSG_MORE); n += 1
except OSError as error: refused = errno.errorcode[error.errno]
n = [n, refused, tried(s.setsockopt, socket.IPPROTO_UDP, 1, 1)[0]]
""")
        self.assertEqual(made, [0, "ENOTSUP", "ENOPROTOOPT"])

    def test_errors_that_wait_to_be_read(self):
        """Options that keep packets in error queues are said to be set, and are not; the resolver asks for one."""
        made = self.hold("""
s = socket.socket(type=socket.SOCK_DGRAM); six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(0, 11, 1); six.setsockopt(41, 25, 1)
before = s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF); s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
n = [s.getsockopt(0, 11), six.getsockopt(41, 25), s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) - before]
listener = socket.socket(); before = listener.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1 << 22)
n.append(listener.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) - before)
n += [tried(s.setsockopt, socket.SOL_SOCKET, option, 1)[0] for option in (37, 65, 41, 60, 61)]
""")
        self.assertEqual(made, [0, 0, 0, 0] + ["ENOPROTOOPT"] * 5)

    def test_echoes_in_ping_sockets(self):
        self.hold("""
n = tried(socket.socket, socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
if n[0] == "done":
    keep, n = [], 0
    try:
        while len(keep) < 200:
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP); keep.append(s)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22); s.connect(("127.0.0.1", 0))
            for _ in range(150): s.send(b"\\10\\0" + bytes(60000)); n += 1
    except OSError as error: n = [len(keep), n, str(error)]
""")

    def test_multicast_sources(self):
        """Lists that hang on a socket, each as long as the kernel lets one be."""
        self.hold("""
import struct
keep, n = [], 0
try:
    while len(keep) < 15000:
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); keep.append(s)
        s.setsockopt(0, 35, socket.inet_aton("224.1.1.1") + socket.inet_aton("127.0.0.1"))
        for i in range(10):
            s.setsockopt(0, 39, socket.inet_aton("224.1.1.1") + socket.inet_aton("127.0.0.1") + struct.pack(">I", 0x0b000001 + i)); n += 1
except OSError as error: n = [len(keep), n, str(error)]
""")

    def test_pipes(self):
        self.hold("""
keep, n = [], 0
try:
    while n < 9000:
        r, w = os.pipe(); keep += [r, w]; os.set_blocking(w, False); n += 1
        try: os.write(w, bytes(65536))
        except BlockingIOError: pass
except OSError as error: n = [n, str(error)]
""")

    def test_descriptors_in_flight(self):
        self.hold("""
n = 0; pairs = []
try:
    for _ in range(9000):
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); a.setblocking(False); pairs.append((a, b))
        f = [os.memfd_create("x") for _ in range(50)]
        for _ in range(20):
            try: socket.send_fds(a, [b"x" * 1000], f); n += 50
            except BlockingIOError: break
        for one in f: os.close(one)
except OSError as error: n = [n, str(error)]
""")

    def test_epoll_inotify_timers_and_locks(self):
        self.hold("""
import fcntl
n = 0
def until_refused(make, most):
    count = 0
    try:
        while count < most: make(count); count += 1
    except OSError as error: return [count, errno.errorcode[error.errno]]
    return count
inner = [os.eventfd(0) for _ in range(3000)] if hasattr(os, "eventfd") else []
import select
polls = []
def poll(i):
    polls.append(select.epoll())
    for one in inner: polls[-1].register(one)
watch = libc.inotify_init1(0)
os.makedirs("/tmp/w", exist_ok=True)
def one_watch(i):
    open(f"/tmp/w/{i}", "w").close()
    if libc.inotify_add_watch(watch, f"/tmp/w/{i}".encode(), 2) < 0: raise OSError(ctypes.get_errno(), "watch")
timer = ctypes.c_void_p()
def one_timer(i):
    if libc.timer_create(1, None, ctypes.byref(timer)): raise OSError(ctypes.get_errno(), "timer")
lock = open("/tmp/lock", "w+")
def one_lock(i): fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 2 * i)
n = [until_refused(poll, 300), until_refused(one_watch, 10000), until_refused(one_timer, 200000), until_refused(one_lock, 20000)]
""")

    def test_page_tables_and_areas(self):
        self.hold("""
import mmap
n = 0; keep = []
fd = os.memfd_create("one"); os.ftruncate(fd, 4096)
try:
    for child in range(20):
        if os.fork() == 0:
            m = mmap.mmap(-1, 64 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
            try:
                for at in range(0, 64 << 30, 2 << 20): m[at]
            finally: time.sleep(40); os._exit(0)
        n += 1
    time.sleep(8)
except OSError as error: n = [n, str(error)]
""")

    def test_names_that_are_not_there(self):
        """The kernel remembers each."""
        self.hold("""
n = 0; left = time.monotonic() + 12
while time.monotonic() < left:
    for _ in range(1000):
        try: os.stat("/tmp/%0200d" % n)
        except OSError: pass
        n += 1
""")

    def test_extended_attributes_queues_and_segments(self):
        self.hold("""
n = []
count = 0
open("/tmp/x", "w").close()
try:
    while count < 20000: os.setxattr("/tmp/x", "user.%d" % count, bytes(60000)); count += 1
except OSError as error: n.append(["xattr", count, errno.errorcode[error.errno]])
count = 0
try:
    while count < 30000:
        q = libc.msgget(0, 0o1600)
        if q < 0: raise OSError(ctypes.get_errno(), "msgget")
        buffer = ctypes.create_string_buffer(bytes([1]) + bytes(8 + 8000))
        while libc.msgsnd(q, buffer, 8000, 0o4000) == 0: count += 1
except OSError as error: n.append(["msg", count, errno.errorcode[error.errno]])
count = 0
try:
    while count < 32000:
        if libc.semget(0, 30000, 0o1600) < 0: raise OSError(ctypes.get_errno(), "semget")
        count += 1
except OSError as error: n.append(["sem", count, errno.errorcode[error.errno]])
""")

    def test_packets_on_the_way(self):
        """Fragments whose rest never comes, sockets nobody reads, connections half closed."""
        self.hold("""
n = 0; keep = []
try:
    while n < 9000:
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM); keep += [a, b]; a.setblocking(False); n += 1
        a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        try:
            while True: a.send(bytes(32768))
        except BlockingIOError: pass
except OSError as error: n = [n, str(error)]
""")


if __name__ == "__main__":
    unittest.main()
