"""What a program inside can reach: nothing. Each attempt is made by code in a sandbox, over the public API."""

import json
import unittest

import daemons
import scenario
import stubs


def setUpModule():
    global running, client, sandbox, other
    running = unittest.enterModuleContext(daemons.Daemons())
    client = unittest.enterModuleContext(stubs.Client(running.target))
    sandbox = scenario.create(client).sandbox_id
    other = scenario.create(client).sandbox_id


# A little of libc for the code inside; results come back as JSON on standard output.
PRELUDE = r"""
import ctypes, errno, json, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    "The errno's name of a raw system call, or its result."
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    return errno.errorcode[ctypes.get_errno()] if result == -1 else result
def tried(function, *arguments):
    try:
        return ["done", repr(function(*arguments))]
    except OSError as error:
        return [errno.errorcode.get(error.errno, str(error.errno)), str(error)]
"""


class Case(unittest.TestCase):
    def inside(self, code, where=None):
        run = scenario.execute(client, where or sandbox, PRELUDE + code)
        self.assertEqual(run.outcome, "OK", run.error)
        return json.loads(run.stdout)


class Walls(Case):
    def test_no_capability_in_any_of_the_five_sets(self):
        status = self.inside("""
sets = {}
for line in open("/proc/self/status"):
    if line.startswith(("Cap", "NoNewPrivs", "Seccomp:")):
        name, value = line.split()
        sets[name.rstrip(":")] = int(value, 16)
print(json.dumps(sets))""")
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            self.assertEqual(status[name], 0, name)
        self.assertEqual((status["NoNewPrivs"], status["Seccomp"]), (1, 2))

    def test_no_network_device_but_lo(self):
        found = self.inside("""
print(json.dumps([[line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]], open("/proc/net/dev").read().count(":")]))""")
        self.assertEqual(found, [["lo"], 1])

    def test_nothing_leaves(self):
        found = self.inside("""
results = []
for family, address in ((socket.AF_INET, ("192.0.2.1", 80)), (socket.AF_INET6, ("2001:db8::1", 80)),
                        (socket.AF_INET, ("169.254.169.254", 80))):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        s = socket.socket(family, kind)
        s.settimeout(2)
        results.append(tried(s.connect, address)[0])
print(json.dumps(results))""")
        self.assertEqual(set(found), {"EPERM"})

    def test_files_of_the_host_are_out_of_reach(self):
        found = self.inside("""
paths = ["/proc/1/root", "/proc/1/environ", "/proc/1/fd", "/proc/1/maps", "/proc/1/cwd", "/proc/1/mem"]
results = {p: tried(os.listdir if p.endswith(("root", "fd", "cwd")) else open, p)[0] for p in paths}
for p in ("/proc/kcore", "/proc/keys", "/proc/kallsyms", "/proc/sysrq-trigger", "/proc/kmsg", "/proc/timer_list"):
    results[p] = tried(lambda: open(p, "rb").read(1))
results["/sys/fs/cgroup"] = tried(os.listdir, "/sys/fs/cgroup")[0]
results["/sys"] = os.listdir("/sys") if os.path.exists("/sys") else []
results["core_pattern"] = tried(open, "/proc/sys/kernel/core_pattern", "w")[0]
results["block devices"] = [e.name for e in os.scandir("/dev") if not e.is_dir() and os.stat(e.path).st_mode & 0o170000 == 0o060000]
print(json.dumps(results))""")
        for path in ("/proc/1/root", "/proc/1/environ", "/proc/1/fd", "/proc/1/maps", "/proc/1/cwd", "/proc/1/mem"):
            self.assertIn(found[path], ("EACCES", "EPERM"), path)
        for path in ("/proc/kcore", "/proc/keys", "/proc/kallsyms", "/proc/sysrq-trigger", "/proc/kmsg", "/proc/timer_list"):
            if found[path][0] == "done":
                self.assertEqual(found[path][1], "b''", path)
            else:
                self.assertIn(found[path][0], ("EACCES", "EPERM", "ENOENT"), path)
        self.assertEqual((found["/sys/fs/cgroup"], found["/sys"]), ("ENOENT", []))
        self.assertIn(found["core_pattern"], ("EROFS", "EACCES"))
        self.assertEqual(found["block devices"], [])

    def test_system_calls_that_widen_are_refused(self):
        found = self.inside("""
n = {"mount": 165, "umount2": 166, "pivot_root": 155, "unshare": 272, "setns": 308, "bpf": 321, "io_uring_setup": 425,
     "io_uring_enter": 426, "io_uring_register": 427, "keyctl": 250, "add_key": 248, "request_key": 249,
     "perf_event_open": 298, "userfaultfd": 323, "kexec_load": 246, "init_module": 175, "open_by_handle_at": 304,
     "fsopen": 430, "open_tree": 428, "move_mount": 429, "mount_setattr": 442, "pidfd_getfd": 438, "reboot": 169,
     "swapon": 167, "settimeofday": 164, "chroot": 161, "acct": 163, "quotactl": 179, "ptrace": 101, "process_vm_readv": 310}
results = {}
for name, number in n.items():
    arguments = {"unshare": (0x10000000,), "setns": (0, 0)}.get(name, (0, 0, 0, 0, 0))
    results[name] = call(number, *arguments)
results["unshare mount"] = call(272, 0x20000)
results["clone3"] = call(435, 0, 0)
results["clone newuser"] = call(56, 0x10000000 | 17, 0, 0, 0, 0)
print(json.dumps(results))""")
        clone3 = found.pop("clone3")
        self.assertEqual(clone3, "ENOSYS")
        for name, result in found.items():
            self.assertIn(result, ("EPERM", "ENOSYS"), f"{name}: {result}")

    def test_socket_families_that_are_no_networks_of_ours_are_refused(self):
        found = self.inside("""
allowed = []
for family in range(0, 46):
    for kind in (1, 2, 3, 5):
        result = call(41, family, kind, 0)
        if isinstance(result, int):
            os.close(result)
            allowed.append([family, kind])
print(json.dumps(allowed))""")
        unix, inet, inet6 = 1, 2, 10
        for family, kind in found:
            self.assertIn(family, (unix, inet, inet6), f"family {family} type {kind}")
            if family in (inet, inet6):
                self.assertNotEqual(kind, 3, "a raw socket")
        for refused in (16, 17, 38, 40, 44):  # AF_NETLINK, AF_PACKET, AF_ALG, AF_VSOCK, AF_XDP
            self.assertNotIn(refused, [family for family, _ in found])

    def test_open_descriptors_are_the_three_and_the_kernels_channel(self):
        fresh = scenario.create(client).sandbox_id
        self.addCleanup(scenario.delete, client, fresh)
        found = self.inside("""
listing = os.open("/proc/self/fd", os.O_RDONLY)
numbers = sorted(int(n) for n in os.listdir(listing) if int(n) != listing)
os.close(listing)
links = {}
for number in numbers:
    try:
        links[number] = os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        pass
print(json.dumps(links))""", fresh)
        low = sorted(int(n) for n in found if int(n) < 200)
        high = sorted(int(n) for n in found if int(n) >= 200)
        self.assertEqual(low, [0, 1, 2])
        self.assertLessEqual(len(high), 2, found)
        self.assertEqual(found["0"], "/dev/null")
        for number, link in found.items():
            if number != "0":
                self.assertTrue(link.startswith("pipe:"), f"{number}: {link}")

    def test_the_program_is_nobody_special(self):
        found = self.inside("""
print(json.dumps([os.getuid(), os.getgid(), os.getgroups(), os.getenv("HOME"), os.getcwd(), os.uname().nodename,
                  tried(os.setuid, 0)[0], sorted(os.environ)]))""")
        self.assertEqual(found[:5], [1000, 1000, [], "/home/user", "/home/user"])
        self.assertEqual(found[6], "EPERM")
        self.assertFalse([name for name in found[7] if name.startswith("HOTCELL")])

    def test_a_tight_id_map_and_no_further_user_namespace(self):
        found = self.inside("""
print(json.dumps([open("/proc/self/uid_map").read().split(), open("/proc/sys/user/max_user_namespaces").read().strip()]))""")
        inner, outer, count = map(int, found[0])
        self.assertEqual((inner, count), (0, 65536))
        self.assertGreaterEqual(outer, 65536)
        other_map = self.inside('print(json.dumps(open("/proc/self/uid_map").read().split()))', other)
        self.assertGreaterEqual(abs(int(other_map[1]) - outer), 65536, "the ranges overlap")
        self.assertEqual(found[1], "0")


class Neighbours(Case):
    def test_two_sandboxes_cannot_see_each_other(self):
        write = """
open("/home/user/secret", "w").write("s"); open("/tmp/secret", "w").write("s"); open("/dev/shm/secret", "w").write("s")
import subprocess
globals()["child"] = subprocess.Popen(["sleep", "61"])
a = socket.socket(socket.AF_UNIX); a.bind("\\0hotcell-test"); a.listen()
globals()["abstract"] = a
t = socket.socket(); t.bind(("127.0.0.1", 4711)); t.listen()
globals()["tcp"] = t
import mmap
libc.shmget.restype = ctypes.c_int
segment = libc.shmget(0x1234, 4096, 0o1600 | 0o666)
print(json.dumps([child.pid, segment]))"""
        self.inside(write)
        found = self.inside("""
seen = []
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        seen.append(open(f"/proc/{pid}/cmdline").read().replace("\\0", " "))
    except OSError:
        pass
a, t = socket.socket(socket.AF_UNIX), socket.socket()
print(json.dumps({
    "files": [p for p in ("/home/user/secret", "/tmp/secret", "/dev/shm/secret") if os.path.exists(p)],
    "processes": [c for c in seen if "sleep" in c],
    "abstract": tried(a.connect, "\\0hotcell-test")[0],
    "tcp": tried(t.connect, ("127.0.0.1", 4711))[0],
    "segment": libc.shmget(0x1234, 4096, 0),
}))""", other)
        self.assertEqual(found, {"files": [], "processes": [], "abstract": "ECONNREFUSED", "tcp": "ECONNREFUSED",
                                 "segment": -1})


class Hostile(Case):
    """Code that owns the kernel's process and lies on its channel."""

    def setUp(self):
        self.sandbox = scenario.create(client).sandbox_id
        self.addCleanup(scenario.delete, client, self.sandbox)

    def hostile(self, code):
        """Runs it, then asks whether the service is still well."""
        run = scenario.execute(client, self.sandbox, PRELUDE + code, timeout=10)
        self.assertEqual(scenario.execute(client, sandbox, "1+1").text, "2")
        return run

    CHANNEL = """
import struct
pipes = [n for n in map(int, os.listdir("/proc/self/fd")) if n >= 200]
def is_writable(n):
    return os.path.exists(f"/proc/self/fd/{n}") and int(next(l for l in open(f"/proc/self/fdinfo/{n}") if l.startswith("flags")).split()[1], 8) & 3 == 1
events = next(n for n in pipes if is_writable(n))
def frame(kind, payload=b"", flags=0, execution=0, size=None):
    os.write(events, struct.pack("<IBBHI", len(payload) if size is None else size, kind, flags, 0, execution) + payload)
"""

    def test_garbage_on_the_channel_ends_the_kernel(self):
        run = self.hostile(self.CHANNEL + "os.write(events, b'\\xff' * 4096)\nimport time; time.sleep(30)")
        self.assertEqual((run.cause, run.ended.state_lost), ("KERNEL_PROTOCOL", True))

    def test_a_frame_of_four_gigabytes_ends_the_kernel(self):
        run = self.hostile(self.CHANNEL + "frame(67, b'', size=0xffffffff)\nimport time; time.sleep(30)")
        self.assertEqual(run.cause, "KERNEL_PROTOCOL")

    def test_a_forged_done_changes_no_exit_of_a_process(self):
        code = self.CHANNEL + "frame(73, b'\\x08\\x01', 0, 1)\nos._exit(9)"
        run = self.hostile(code)
        self.assertIn(run.outcome, ("OK", "EXITED"))  # its own output is all that it can falsify
        run = scenario.execute(client, self.sandbox, "2+2")
        self.assertEqual(run.text, "4")

    def test_closing_everything_is_an_end_that_is_told(self):
        run = self.hostile("for n in range(1024):\n    try: os.close(n)\n    except OSError: pass\nwhile True: pass")
        self.assertIn(run.outcome, ("KILLED", "TIMEOUT", "SIGNALLED", "EXITED"))

    def test_a_tree_that_ignores_signals_ends_with_its_sandbox(self):
        code = """
import signal, time
for _ in range(20):
    if os.fork() == 0:
        os.setsid()
        for number in range(1, 32):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        if os.fork() == 0:
            while True: time.sleep(1)
        os._exit(0)
"""
        self.hostile(code)
        before = scenario.get(client, self.sandbox).usage.processes
        self.assertGreaterEqual(before, 20)
        scenario.delete(client, self.sandbox)
        self.assertEqual(scenario.get(client, self.sandbox).end_cause, 3)


if __name__ == "__main__":
    unittest.main()
