"""The main job where cgroup2 has all controllers: limits, ends, kills, state, and what a stop leaves. For the machine of run.py.

The daemons are in a group of their own, as a service manager would put them.
"""

import os
import pathlib
import subprocess
import unittest

import daemons
import scenario
import stubs
from scenario import MIB

ROOT_GROUP = pathlib.Path("/sys/fs/cgroup")
SERVICE = ROOT_GROUP / "system.slice/hotcell.service"
OWN_LEAF = "hotcell-runtime"


class Service(daemons.Daemons):
    """Daemons that are started in a group."""

    def __init__(self, group, beside=None):
        # What a second is enough for elsewhere takes longer where processors are emulated.
        super().__init__(["--timeout-default=10m", "--interrupt-again-after=10s", "--interrupt-kill-after=1m"])
        self.group = group
        group.mkdir(parents=True)
        self.beside = beside and subprocess.Popen(self.into_group(beside))

    def into_group(self, command):
        return ["/bin/sh", "-c", 'echo 0 >"$0/cgroup.procs" && exec "$@"', str(self.group), *command]

    def command(self):
        return self.into_group(super().command())

    def __exit__(self, *exc):
        super().__exit__(*exc)
        if self.beside:
            self.beside.kill()
            self.beside.wait()
        # What a service manager does after the last process of a service.
        if (self.group / OWN_LEAF).exists():
            (self.group / OWN_LEAF).rmdir()
        self.group.rmdir()
        self.group.parent.rmdir()


def setUpModule():
    global running, client
    running = unittest.enterModuleContext(Service(SERVICE))
    client = unittest.enterModuleContext(stubs.Client(running.target))


def group_of_process(pid):
    return pathlib.Path(f"/proc/{pid}/cgroup").read_text()


def groups_below(group):
    return {folder for folder, _, _ in os.walk(group)} - {str(group)}


def network_namespaces():
    found = set()
    for path in pathlib.Path("/proc").glob("[0-9]*/ns/net"):
        try:
            found.add(os.readlink(path))
        except OSError:
            pass
    return found


class Case(unittest.TestCase):
    def sandbox(self, memory=256 * MIB, **limits):
        made = scenario.create(client, memory=memory, limits={"disk_bytes": 64 * MIB, **limits}).sandbox_id
        self.addCleanup(scenario.delete, client, made)
        return made

    def group(self, sandbox_id):
        """The sandbox's directory, which in this layout is its only one."""
        [found] = [folder for folder in groups_below(SERVICE) if folder.endswith(f"/sandbox-{sandbox_id}")]
        return pathlib.Path(found)

    def inside(self, sandbox_id, code, **fields):
        return scenario.execute(client, sandbox_id, code, **fields)

    def still_answers(self, sandbox_id):
        self.assertEqual(self.inside(sandbox_id, "1+1").text, "2")


class Walls(unittest.TestCase):
    def test_every_required_wall_holds(self):
        info = client.server.GetServerInfo(stubs.server_service.GetServerInfoRequest(), timeout=60 * daemons.PATIENCE)
        self.assertEqual([w.name for w in info.walls if w.required and not w.holds], [])
        self.assertGreater(sum(w.required for w in info.walls), 15)

    def test_doctor_finds_each_controller_in_cgroup2(self):
        done = daemons.hotcell(running, "doctor")
        self.assertEqual(done.returncode, 0, done.stdout)
        for name in ("memory", "cpu", "pids"):
            self.assertRegex(done.stdout.decode(), rf"cgroup_{name} +yes +cgroup v2")

    def test_no_cgroup_v1_is_here(self):
        self.assertNotIn(" - cgroup ", pathlib.Path("/proc/self/mountinfo").read_text())


class Groups(Case):
    def test_the_runtime_steps_down_into_a_leaf_and_passes_controllers_on(self):
        self.assertEqual(group_of_process(running.process.pid), f"0::/system.slice/hotcell.service/{OWN_LEAF}\n")
        self.assertLessEqual({"cpu", "memory", "pids"}, set((SERVICE / "cgroup.subtree_control").read_text().split()))
        self.assertEqual((SERVICE / "cgroup.procs").read_text(), "")

    def test_in_a_shared_group_sandboxes_are_made_above_it(self):
        group = ROOT_GROUP / "session.slice/session.scope"
        with Service(group, beside=["sleep", "100000"]) as mine:
            self.assertEqual(group_of_process(mine.process.pid), "0::/session.slice/session.scope\n")
            self.assertEqual(sum(path.name.startswith("hotcell-") for path in group.parent.iterdir()), 1)
            self.assertEqual((group / "cgroup.subtree_control").read_text().strip(), "")
            done = daemons.hotcell(mine, "run", "-c", "6*7")
            self.assertEqual((done.returncode, done.stdout), (0, b"42\n"), done.stderr)
            self.assertEqual(mine.stop(), 0, mine.log())
            self.assertEqual(groups_below(group.parent), {str(group)})

    def test_limits_are_in_the_files_of_cgroup2(self):
        group = self.group(self.sandbox(cpu_millis=500, processes=40))
        names = ("memory.max", "memory.swap.max", "cpu.max", "pids.max")
        found = {name: (group / name).read_text().strip() for name in names}
        self.assertEqual(found, {"memory.max": str(256 * MIB), "memory.swap.max": "0",
                                 "cpu.max": "50000 100000",
                                 "pids.max": "41"})  # the init's is one more

    def test_changed_limits_are_in_the_files_of_cgroup2(self):
        sandbox = self.sandbox()
        update = stubs.sandbox_service.UpdateSandboxRequest(sandbox_id=sandbox)
        for name, value in {"memory_bytes": 300 * MIB, "cpu_millis": 700, "cpu_weight": 33, "processes": 50, "io_bytes_per_second": 5 * MIB,
                            "disk_bytes": 80 * MIB, "disk_inodes": 3000}.items():
            setattr(update.limits, name, value)
            update.update_mask.paths.append(f"limits.{name}")
        client.sandboxes.UpdateSandbox(update, timeout=60 * daemons.PATIENCE)
        group = self.group(sandbox)
        names = ("memory.max", "memory.swap.max", "cpu.max", "cpu.weight", "pids.max")
        found = {name: (group / name).read_text().strip() for name in names}
        self.assertEqual(found, {"memory.max": str(300 * MIB), "memory.swap.max": "0", "cpu.max": "70000 100000", "cpu.weight": "33", "pids.max": "51"})
        self.assertRegex((group / "io.max").read_text(), rf"^\d+:\d+ rbps={5 * MIB} wbps={5 * MIB} ")
        self.assertEqual(self.inside(sandbox, "import os; s = os.statvfs('/'); s.f_blocks * s.f_frsize, s.f_files").text, f"({80 * MIB}, 3000)")
        # cgroup2 would take it, and kill.
        run = self.inside(sandbox, f"b = bytearray({200 * MIB})\nfor i in range(0, len(b), 4096): b[i] = 1")
        self.assertEqual(run.outcome, "OK")
        update = stubs.sandbox_service.UpdateSandboxRequest(sandbox_id=sandbox, update_mask={"paths": ["limits.memory_bytes"]},
                                                            limits={"memory_bytes": 150 * MIB})
        error = scenario.error_of(client.sandboxes.UpdateSandbox, update)
        self.assertEqual(stubs.reason(error), "LIMIT_NOT_POSSIBLE")
        self.assertEqual(self.inside(sandbox, "len(b)").text, str(200 * MIB))


class Limits(Case):
    def test_memory_ends_as_oom_and_the_sandbox_answers(self):
        sandbox = self.sandbox()
        run = self.inside(sandbox, "x = bytearray(1 << 30)")
        self.assertEqual((run.outcome, run.cause), ("OOM", "LIMIT"))
        self.assertTrue(run.ended.state_lost)
        self.assertGreater(run.ended.usage.memory_peak_bytes, 200 * MIB)
        self.assertRegex((self.group(sandbox) / "memory.events").read_text(), r"oom_kill [1-9]")
        self.still_answers(sandbox)

    def test_buffers_of_sockets_count_as_memory(self):
        """No limit of their own is needed here: together with the rest they reach memory.max, or stay below it."""
        sandbox = self.sandbox(memory=192 * MIB)
        run = self.inside(sandbox, """
import socket
listener = socket.create_server(("127.0.0.1", 0)); keep, held = [], 0
try:
    while len(keep) < 800:
        a = socket.create_connection(listener.getsockname()); keep += [a, listener.accept()[0]]
        a.setblocking(False)
        try:
            while True: held += a.send(bytes(65536))
        except BlockingIOError: pass
except OSError: pass
print(held >> 20)""")
        if run.outcome != "OOM":
            self.assertEqual(run.outcome, "OK", run)
            self.assertLess(int(run.stdout), 192)
        self.assertGreater(int((self.group(sandbox) / "memory.peak").read_text()), 100 * MIB)
        self.still_answers(sandbox)

    def test_processes_are_bounded_and_a_neighbour_answers(self):
        sandbox, neighbour = self.sandbox(processes=40), self.sandbox()
        run = self.inside(sandbox, """
import errno, os, signal
children, refused = [], None
while not refused:
    try:
        child = os.fork()
    except OSError as error:
        refused = errno.errorcode[error.errno]
        continue
    if child == 0:
        while True: signal.pause()
    children.append(child)
print(len(children), refused)
for child in children:
    os.kill(child, signal.SIGKILL); os.waitpid(child, 0)""")
        n, refused = run.stdout.split()
        self.assertEqual(refused, b"EAGAIN")
        self.assertTrue(30 <= int(n) < 40, n)
        self.still_answers(neighbour)
        self.still_answers(sandbox)

    def test_cpu_is_throttled(self):
        sandbox = self.sandbox(cpu_millis=250)
        self.inside(sandbox, "import time")
        before = self.cpu_stat(sandbox)
        run = self.inside(sandbox, "end = time.monotonic() + 4\nwhile time.monotonic() < end: pass")
        used, lasted = (d.ToMicroseconds() for d in (run.ended.usage.cpu_time, run.ended.usage.wall_time))
        after = self.cpu_stat(sandbox)
        self.assertGreaterEqual(lasted, 3_900_000)
        self.assertLess(used / lasted, 0.35)
        self.assertGreater(used / lasted, 0.05)
        self.assertGreater(after["nr_throttled"], before["nr_throttled"])
        self.assertLessEqual(used, after["usage_usec"] - before["usage_usec"])

    def cpu_stat(self, sandbox):
        lines = (self.group(sandbox) / "cpu.stat").read_text().splitlines()
        return {name: int(value) for name, value in map(str.split, lines)}

    def test_a_full_disk_is_enospc(self):
        sandbox = self.sandbox()
        run = self.inside(sandbox, """
import errno
n = 0
try:
    with open("/tmp/big", "wb", buffering=0) as file:
        while True: n += file.write(bytes(1 << 20))
except OSError as error: print(errno.errorcode[error.errno], n >> 20)""")
        name, n = run.stdout.split()
        self.assertEqual(name, b"ENOSPC")
        self.assertTrue(55 <= int(n) <= 64, n)
        self.still_answers(sandbox)

    def test_open_files_are_bounded(self):
        sandbox = self.sandbox(open_files=100)
        run = self.inside(sandbox, """
import errno, os
held = []
try:
    while True: held.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error: refused = errno.errorcode[error.errno]
print(refused, max(held))
for fd in held: os.close(fd)""")
        self.assertEqual(run.stdout, b"EMFILE 99\n")
        self.still_answers(sandbox)


class Ends(Case):
    def test_exits_and_signals_of_the_interpreter_are_told(self):
        sandbox = self.sandbox()
        for code, outcome, exit_code, signal in (
                ("import sys; sys.exit(3)", "EXITED", 3, 0),
                ("import os; os._exit(9)", "EXITED", 9, 0),
                ("import os; os.kill(os.getpid(), 11)", "SIGNALLED", 0, 11),
                ("1/0", "RAISED", 0, 0)):
            run = self.inside(sandbox, code)
            self.assertEqual((run.outcome, run.ended.exit_code, run.ended.signal), (outcome, exit_code, signal), code)

    def test_the_command_line_exits_as_the_program_did(self):
        sandbox = self.sandbox()
        for code, wanted in (("import sys; sys.exit(3)", 3), ("import os; os.kill(os.getpid(), 15)", 143)):
            self.assertEqual(daemons.hotcell(running, "exec", sandbox, "-c", code).returncode, wanted, code)

    def test_ends_of_child_processes_are_seen_by_their_parent(self):
        run = self.inside(self.sandbox(), """
import subprocess
print([subprocess.run(["sh", "-c", code]).returncode for code in ("exit 7", "kill -15 $$", "kill -9 $$", "true")])""")
        self.assertEqual(run.stdout, b"[7, -15, -9, 0]\n")

    def test_a_timeout_ends_a_busy_loop_and_keeps_the_variables(self):
        sandbox = self.sandbox()
        self.inside(sandbox, "x = 41")
        run = self.inside(sandbox, "while True: pass", timeout=2)
        self.assertEqual(run.outcome, "TIMEOUT")
        self.assertEqual(self.inside(sandbox, "x + 1").text, "42")

    def test_a_deleted_sandbox_takes_a_tree_that_ignores_signals(self):
        sandbox = scenario.create(client).sandbox_id
        group = self.group(sandbox)
        self.inside(sandbox, """
import os, signal
ready, say_ready = os.pipe()
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)
        os.fork()
        os.write(say_ready, b".")
        while True: signal.pause()
for _ in range(6): os.read(ready, 1)""")
        pids = {int(pid) for path in group.rglob("cgroup.procs") for pid in path.read_text().split()}
        self.assertGreaterEqual(len(pids), 8)
        scenario.delete(client, sandbox)
        daemons.wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), "all processes are gone")
        daemons.wait_until(lambda: not group.exists(), "the group is gone")


class Cells(Case):
    def test_a_run_prints_the_value_of_its_cell(self):
        done = daemons.hotcell(running, "run", "-c", "41+1")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"42\n", b""))

    def test_state_is_kept_from_one_exec_to_the_next(self):
        sandbox = self.sandbox()
        for code, wanted in (("x = 41; open('kept', 'w').write('file')", b"4\n"), ("x + 1", b"42\n"), ("open('kept').read()", b"'file'\n")):
            done = daemons.hotcell(running, "exec", sandbox, "-c", code)
            self.assertEqual((done.returncode, done.stdout), (0, wanted), done.stderr)


class Stop(unittest.TestCase):
    def test_a_stop_leaves_no_group_mount_namespace_or_process(self):
        before = network_namespaces(), pathlib.Path("/proc/self/mountinfo").read_text()
        with Service(ROOT_GROUP / "second.slice/hotcell.service") as mine:
            with stubs.Client(mine.target) as own:
                made = scenario.create(own).sandbox_id
                self.assertEqual(scenario.execute(own, made, "1").text, "1")
            pids = {int(pid) for path in mine.group.rglob("cgroup.procs") for pid in path.read_text().split()}
            self.assertGreaterEqual(len(pids), 5)
            self.assertNotEqual(network_namespaces(), before[0])
            self.assertEqual(mine.stop(), 0, mine.log())
            self.assertEqual([pid for pid in pids if os.path.exists(f"/proc/{pid}")], [])
            self.assertEqual(groups_below(mine.group), {str(mine.group / OWN_LEAF)})
            self.assertFalse(mine.socket.exists())
            self.assertEqual((network_namespaces(), pathlib.Path("/proc/self/mountinfo").read_text()), before)
