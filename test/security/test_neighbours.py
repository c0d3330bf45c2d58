"""Two sandboxes on one template: what is one file, one table or one counter to the kernel is no channel and no bottleneck."""

import concurrent.futures
import json
import pathlib
import time
import unittest

import daemons
import scenario
import stubs
from hostile import PRELUDE
from scenario import MIB


def setUpModule():
    global running, client
    running = unittest.enterModuleContext(daemons.Daemons(["--sandboxes-max", "60"], ["--sandboxes-max", "60"]))
    client = unittest.enterModuleContext(stubs.Client(running.target))


class Case(unittest.TestCase):
    def setUp(self):
        self.sandbox, self.neighbour = self.fresh(), self.fresh()

    def fresh(self, memory=256 * MIB, **limits):
        made = scenario.create(client, memory=memory, limits={"disk_bytes": 64 * MIB, **limits}).sandbox_id
        self.addCleanup(scenario.delete, client, made)
        return made

    def inside(self, code, where=None, **fields):
        run = scenario.execute(client, where or self.sandbox, PRELUDE + code, **fields)
        self.assertEqual(run.outcome, "OK", run)
        return json.loads(run.stdout)


class SharedFiles(Case):
    """Every sandbox sees the template's files; none may leave a mark on them that another sees."""

    def test_flock(self):
        held = "import fcntl; kept = open('/etc/os-release'); print(json.dumps(tried(fcntl.flock, kept, fcntl.LOCK_EX | fcntl.LOCK_NB)[0]))"
        self.assertEqual(self.inside(held), "done")
        self.assertEqual(self.inside(held, self.neighbour), "done")

    def test_record_locks_and_those_of_open_files(self):
        held = """
import fcntl, struct
kept = open('/usr/bin/python3'); results = [tried(fcntl.lockf, kept, fcntl.LOCK_SH | fcntl.LOCK_NB)[0]]
kept2 = open('/etc/passwd', 'r+') if os.access('/etc/passwd', os.W_OK) else open('/etc/passwd')
results.append(tried(fcntl.fcntl, kept2, 37, struct.pack('hhqqi4x', 0, 0, 0, 0, 0))[0])
print(json.dumps(results))"""
        self.assertEqual(self.inside(held), self.inside(held, self.neighbour))

    def test_leases(self):
        """A lease would let one sandbox hold up another's open."""
        self.inside("""
import fcntl
kept = [os.open(p, os.O_RDONLY) for p in ('/etc/os-release', '/etc/passwd', '/usr/bin/env')]
print(json.dumps([tried(fcntl.fcntl, fd, 1024, how)[0] for fd in kept for how in (fcntl.F_RDLCK, fcntl.F_WRLCK)]))""")
        seconds = self.inside("""
import time
begin = time.monotonic()
for p in ('/etc/os-release', '/etc/passwd', '/usr/bin/env'): open(p, 'rb').read(10)
print(json.dumps(time.monotonic() - begin))""", self.neighbour)
        self.assertLess(seconds, 2)

    def test_inotify(self):
        watch = """
fd = libc.inotify_init1(0o4000)
marks = [libc.inotify_add_watch(fd, p, 0xfff) for p in (b'/etc', b'/etc/os-release', b'/usr/bin', b'/opt', b'/')]
print(json.dumps(min(marks)))"""
        self.assertGreater(self.inside(watch), 0)
        self.inside("""
open('/etc/os-release').read(); os.listdir('/usr/bin'); os.listdir('/etc'); os.listdir('/')
print(json.dumps(tried(os.utime, '/etc/os-release')[0]))""", self.neighbour)
        self.assertEqual(self.inside("print(json.dumps(tried(os.read, fd, 4096)[0]))"), "EAGAIN")

    def test_unix_sockets_and_fifos_of_the_lower_layer(self):
        found = self.inside("""
import stat
odd = []
for root, folders, files in os.walk('/'):
    if root == '/': folders[:] = [f for f in folders if f not in ('proc', 'dev')]
    for name in files:
        try: mode = os.lstat(os.path.join(root, name)).st_mode
        except OSError: continue
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)): odd.append(os.path.join(root, name))
print(json.dumps(odd))""")
        self.assertEqual(found, [])

    def test_attributes_and_times_stay_ones_own(self):
        self.inside("os.chmod(os.path.expanduser('~'), 0o700); print(json.dumps(tried(os.utime, os.path.expanduser('~'), (1, 1))[0]))")
        self.assertNotEqual(self.inside("print(json.dumps(os.stat(os.path.expanduser('~')).st_mtime))", self.neighbour), 1)


class SharedTables(Case):
    def test_terminals(self):
        """The kernel has a few thousand for all: thirty sandboxes may not leave none for another."""
        many = [self.fresh(memory=128 * MIB) for _ in range(34)]
        code = """
keep, refused = [], None
try:
    while True: keep.append(os.open('/dev/ptmx', os.O_RDWR))
except OSError as error: refused = errno.errorcode[error.errno]
print(json.dumps([len(keep), refused]))"""
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            held = list(pool.map(lambda one: self.inside(code, one)[0], many))
        print(f"# {sum(held)} terminals are held")
        self.assertEqual(self.inside("print(json.dumps(tried(os.open, '/dev/ptmx', os.O_RDWR)[0]))", self.neighbour), "done")

    def test_user_counters_of_all_kinds(self):
        for code in ("keep = []\ntry:\n  while True: keep.append(libc.inotify_init1(0) if len(keep) < 2000 else 1 / 0)\nexcept ZeroDivisionError: pass",
                     "import mmap\nm = mmap.mmap(-1, 1 << 20)\nlibc.mlockall(2)"):
            self.inside(code + "\nprint(json.dumps(0))")
        found = self.inside("""
import mmap
m = mmap.mmap(-1, 16384); fd = libc.inotify_init1(0)
print(json.dumps([fd >= 0, len(socket.socketpair()), os.pipe()[0] > 0]))""", self.neighbour)
        self.assertEqual(found, [True, 2, True])

    def test_pipes_keep_their_size_next_door(self):
        """pipe-user-pages: above it a user's new pipes shrink to a page or two."""
        self.inside("keep = [os.pipe() for _ in range(400)]\nimport fcntl\nfor r, w in keep: tried(fcntl.fcntl, w, 1031, 1 << 20)\nprint(json.dumps(0))")
        size = self.inside("import fcntl\nr, w = os.pipe(); print(json.dumps(fcntl.fcntl(w, 1032)))", self.neighbour)
        self.assertEqual(size, 65536)


class Leaks(Case):
    def test_nothing_in_proc_names_the_host_or_a_neighbour(self):
        text = self.inside("""
texts = {}
for root, folders, files in os.walk('/proc'):
    if root == '/proc': folders[:] = [f for f in folders if f in ('self', 'sys', 'net', 'sysvipc', '1')]
    if root.count('/') > 5: folders[:] = []
    if '/task' in root or '/fd' in root: continue
    for name in files:
        path = os.path.join(root, name)
        if os.path.islink(path):
            try: texts[path] = os.readlink(path)
            except OSError: pass
            continue
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            data = os.read(fd, 65536).decode(errors='replace'); os.close(fd)
            texts[path] = data
        except OSError: pass
texts['mountinfo'] = open('/proc/self/mountinfo').read()
texts['cgroup'] = open('/proc/self/cgroup').read()
print(json.dumps(texts))""")
        names = (str(running.folder), "/var/lib/hotcell", self.neighbour, "hotcelld", pathlib.Path("/proc/sys/kernel/hostname").read_text().strip() + "\n")
        for path, content in text.items():
            for name in names:
                if name.strip() == "vm" and path != "/proc/sys/kernel/hostname":
                    continue
                self.assertNotIn(name, content, path)
        print("#", len(text), "files were read;", text["cgroup"].split()[:3], text["mountinfo"].splitlines()[0])

    def test_no_write_below_proc_sys(self):
        done = self.inside("""
done = []
for root, folders, files in os.walk('/proc/sys'):
    for name in files:
        try: os.close(os.open(os.path.join(root, name), os.O_WRONLY)); done.append(os.path.join(root, name))
        except OSError: pass
print(json.dumps(done))""")
        self.assertEqual(done, [])

    def test_counters_by_which_sandboxes_could_signal(self):
        """Those of the whole host that a program can move and another can read."""
        read = """
found = {}
for path in ('/proc/sys/kernel/pty/nr', '/proc/sys/fs/file-nr', '/proc/sys/fs/inode-nr', '/proc/sys/fs/dentry-state', '/proc/sys/kernel/ns_last_pid',
             '/proc/sys/fs/aio-nr', '/proc/sys/kernel/random/entropy_avail', '/proc/loadavg', '/proc/sys/kernel/random/boot_id', '/proc/sys/net/core/rmem_max'):
    try: found[path] = open(path).read().strip()
    except OSError as error: found[path] = errno.errorcode[error.errno]
print(json.dumps(found))"""
        before = self.inside(read, self.neighbour)
        self.inside("keep = [os.open('/dev/ptmx', os.O_RDWR) for _ in range(40)]; print(json.dumps(0))")
        after = self.inside(read, self.neighbour)
        print("# readable:", before)
        print("# pty nr", before["/proc/sys/kernel/pty/nr"], "->", after["/proc/sys/kernel/pty/nr"])
        self.assertFalse(before["/proc/sys/kernel/pty/nr"].isdigit() and int(after["/proc/sys/kernel/pty/nr"]) - int(before["/proc/sys/kernel/pty/nr"]) >= 40,
                         "the number of terminals of all sandboxes can be read")


class Fairness(Case):
    def latency(self, n=20):
        worst = 0
        for _ in range(n):
            begin = time.monotonic()
            self.assertEqual(scenario.execute(client, self.neighbour, "1+1").text, "2")
            worst = max(worst, time.monotonic() - begin)
        return worst

    def test_busy_sandboxes_do_not_starve_the_daemons(self):
        many = [self.fresh(memory=128 * MIB) for _ in range(20)]
        streams = []
        for one in many:
            code = "import os\nfor _ in range(30):\n    if os.fork() == 0:\n        while True: pass\nwhile True: pass"
            streams.append(client.executions.Execute(scenario.request(one, code, timeout=40), timeout=120))
            scenario.fold_until(streams[-1], lambda run: run.started)
        time.sleep(3)
        begin = time.monotonic()
        client.server.GetServerInfo(stubs.server_service.GetServerInfoRequest(), timeout=30)
        info = time.monotonic() - begin
        worst = self.latency(10)
        for stream in streams:
            stream.cancel()
        print(f"# 620 busy processes: GetServerInfo {info:.2f} s, 1+1 at most {worst:.2f} s")
        self.assertLess(info, 2)
        self.assertLess(worst, 10)

    def test_an_end_with_many_files_and_processes_keeps_nobody_waiting(self):
        big = self.fresh(memory=1024 * MIB, disk_bytes=700 * MIB, processes=2000)
        made = self.inside("""
n = 0
try:
    for i in range(300):
        os.mkdir(f'/tmp/{i}')
        for j in range(1000): os.close(os.open(f'/tmp/{i}/{j}', os.O_CREAT)); n += 1
except OSError as error: pass
import subprocess
keep = [os.fork() or __import__('signal').pause() for _ in range(500)]
print(json.dumps(n))""", big, timeout=100)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            gone = pool.submit(lambda: (time.monotonic(), scenario.delete(client, big), time.monotonic()))
            worst = self.latency(30)
            begin, _, end = gone.result()
        print(f"# {made} files and 500 processes: deleted in {end - begin:.2f} s, 1+1 next door at most {worst:.2f} s")
        self.assertLess(worst, 5)

    def test_a_storm_of_forks_and_ends_keeps_nobody_waiting(self):
        stream = client.executions.Execute(scenario.request(self.sandbox, """
import os
for _ in range(8):
    if os.fork() == 0: break
while True:
    if (p := os.fork()) == 0: os._exit(0)
    os.waitpid(p, 0)""", timeout=15), timeout=60)
        scenario.fold_until(stream, lambda run: run.started)
        time.sleep(1)
        worst = self.latency()
        stream.cancel()
        print(f"# 1+1 at most {worst:.2f} s")
        self.assertLess(worst, 5)

    def test_kernels_that_die_at_once_again_and_again_fill_no_log(self):
        before = running.log_path.stat().st_size
        for _ in range(20):
            scenario.execute(client, self.sandbox, "import os; os._exit(1)")
        self.assertLess(running.log_path.stat().st_size - before, 20 * 600)


class Outliving(Case):
    def test_work_on_a_sandbox_that_is_being_deleted(self):
        """Calls of all kinds race its end: each is answered, nothing of it stays."""
        for _ in range(5):
            made = scenario.create(client, memory=128 * MIB, limits={"disk_bytes": 64 * MIB}).sandbox_id
            streams = [client.executions.Execute(scenario.request(made, "import time; time.sleep(30)"), timeout=60)]
            scenario.fold_until(streams[0], lambda run: run.started)
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                calls = [pool.submit(scenario.delete, client, made) for _ in range(3)]
                calls += [pool.submit(lambda: scenario.error_of(client.executions.Execute, scenario.request(made, "1"))) for _ in range(3)]
                calls += [pool.submit(client.executions.CreateContext, stubs.execution_service.CreateContextRequest(sandbox_id=made), timeout=60) for _ in range(3)]
                for call in calls:
                    try:
                        call.result(60)
                    except Exception as error:  # refused, each in its way; hanging is what must not be
                        self.assertNotIsInstance(error, concurrent.futures.TimeoutError)
            self.assertEqual(scenario.get(client, made).end_cause, 3)
        self.assertEqual(scenario.execute(client, self.neighbour, "1+1").text, "2")

    def test_no_process_cgroup_or_mount_stays(self):
        made = scenario.create(client, memory=128 * MIB, limits={"disk_bytes": 64 * MIB}).sandbox_id
        base = int(self.inside("print(json.dumps(open('/proc/self/uid_map').read().split()[1]))", made))
        self.inside("""
for _ in range(30):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            import signal
            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65)); keep = socket.socketpair(); socket.send_fds(keep[0], [b'x'], [keep[1].fileno()])
            while True: signal.pause()
        os._exit(0)
print(json.dumps(0))""", made)
        scenario.delete(client, made)
        alive = []
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    uid = int(next(line for line in (entry / "status").read_text().splitlines() if line.startswith("Uid")).split()[1])
                except (OSError, StopIteration):
                    continue
                if base <= uid < base + 65536:
                    alive.append(entry.name)
        self.assertEqual(alive, [])
        daemons.wait_until(lambda: not [p for p in pathlib.Path("/sys/fs/cgroup").glob(f"**/*{made}*")], "its cgroups gone")


if __name__ == "__main__":
    unittest.main()
