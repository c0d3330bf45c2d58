"""Limits hold, and are changed while a program runs: each is seen from inside, by a program that lives through the change."""

import os
import re
import signal
import subprocess
import unittest

import grpc

import daemons
import scenario
import stubs
from daemons import PATIENCE
from scenario import MIB, create, delete, execute, get
from stubs import execution_service, key_service, sandbox_service

# What programs inside measure with.
SPIN = """
import time
def spin(seconds):
    cpu, wall = time.process_time(), time.monotonic()
    while time.monotonic() - wall < seconds:
        pass
    return (time.process_time() - cpu) / (time.monotonic() - wall)
"""


def setUpModule():
    global running, client
    running = unittest.enterModuleContext(daemons.Daemons(["--tcp", "127.0.0.1:0"]))
    client = unittest.enterModuleContext(stubs.Client(running.target))


def request(sandbox_id, paths=None, **limits):
    message = sandbox_service.UpdateSandboxRequest(sandbox_id=sandbox_id)
    for name, value in limits.items():
        setattr(message.limits, name, value)
    message.update_mask.paths.extend(paths if paths is not None else [f"limits.{name}" for name in limits])
    return message


class Case(unittest.TestCase):
    def sandbox(self, memory=256 * MIB, **limits):
        made = create(client, memory=memory, limits={"disk_bytes": 64 * MIB, **limits})
        self.addCleanup(delete, client, made.sandbox_id)
        return made.sandbox_id

    def update(self, sandbox_id, **limits):
        return client.sandboxes.UpdateSandbox(request(sandbox_id, **limits), timeout=60 * PATIENCE).sandbox

    def refused(self, sandbox_id, **limits):
        """LIMIT_NOT_POSSIBLE, and nothing was changed."""
        before = get(client, sandbox_id)
        error = scenario.error_of(client.sandboxes.UpdateSandbox, request(sandbox_id, **limits))
        self.assertEqual(stubs.reason(error), "LIMIT_NOT_POSSIBLE", error)
        after = get(client, sandbox_id)
        self.assertEqual((after.limits, after.etag), (before.limits, before.etag))
        return error.details()

    def value(self, sandbox_id, code):
        run = execute(client, sandbox_id, code)
        self.assertEqual(run.outcome, "OK", (run.ended, run.error, run.stderr))
        return run.text


class Held(Case):
    def test_memory(self):
        box = self.sandbox()
        self.update(box, memory_bytes=640 * MIB)
        self.assertEqual(self.value(box, f"b = bytearray({400 * MIB})\nfor i in range(0, len(b), 4096): b[i] = 1\nlen(b)"), str(400 * MIB))
        why = self.refused(box, memory_bytes=256 * MIB)
        self.assertIn("limits.memory_bytes", why)
        # What is used has some room: programs may take more while it is lowered.
        least = int(re.search(r"at least (\d+)", why).group(1))
        self.assertGreaterEqual(least, 416 * MIB)
        self.refused(box, memory_bytes=least - 8 * MIB)
        self.assertEqual(self.value(box, "len(b)"), str(400 * MIB))  # it lives
        self.value(box, "del b")
        self.update(box, memory_bytes=256 * MIB)
        self.assertEqual(execute(client, box, f"b = b'x' * {400 * MIB}").outcome, "OOM")

    def test_cpu_time(self):
        box = self.sandbox(cpu_millis=1000)
        self.value(box, SPIN)
        self.update(box, cpu_millis=50)
        few = float(self.value(box, "spin(1)"))
        self.update(box, cpu_millis=1000)
        more = float(self.value(box, "spin(1)"))
        self.assertLess(few, 0.1)
        self.assertGreater(more, 2 * few)  # the machine may have others who want its CPUs

    def test_processes(self):
        box = self.sandbox(processes=24)
        code = """
import threading
stop = threading.Event()
def fill():
    n = 0
    try:
        while n < 100:
            threading.Thread(target=stop.wait, daemon=True).start()
            n += 1
    except RuntimeError:
        pass
    return threading.active_count()
fill()
"""
        few = int(self.value(box, code))
        self.assertEqual(few, 24)  # the init is none of them
        self.update(box, processes=48)
        more = int(self.value(box, "fill()"))
        self.assertEqual(more, few + 24)
        # Below what there is: nobody is ended, and no more are made.
        self.update(box, processes=8)
        self.assertEqual(int(self.value(box, "fill()")), more)

    def test_disk(self):
        box = self.sandbox(disk_bytes=8 * MIB)
        code = """
import os
def fill(path):
    n = 0
    with open(path, 'wb', buffering=0) as file:
        try:
            while n < 100 << 20:
                n += file.write(bytes(1 << 16))
        except OSError:
            pass
    return n
fill('/tmp/a')
"""
        self.assertLessEqual(int(self.value(box, code)), 8 * MIB)
        self.update(box, disk_bytes=24 * MIB)
        more = int(self.value(box, "fill('/tmp/b')"))
        self.assertGreater(more, 14 * MIB)
        self.assertLessEqual(more, 16 * MIB + (1 << 16))
        self.assertIn("limits.disk_bytes", self.refused(box, disk_bytes=8 * MIB))
        self.value(box, "os.unlink('/tmp/b')")
        self.update(box, disk_bytes=10 * MIB)
        self.assertLess(int(self.value(box, "fill('/tmp/b')")), 4 * MIB)

    def test_inodes(self):
        box = self.sandbox(disk_inodes=300)
        code = """
import os
def fill(name):
    n = 0
    try:
        while n < 5000:
            os.close(os.open(f'/tmp/{name}{n}', os.O_CREAT))
            n += 1
    except OSError:
        pass
    return n
fill('a')
"""
        few = int(self.value(box, code))
        self.assertTrue(100 < few <= 300, few)
        self.update(box, disk_inodes=500)
        self.assertTrue(195 <= int(self.value(box, "fill('b')")) <= 200)
        self.assertIn("limits.disk_inodes", self.refused(box, disk_inodes=300))

    def test_open_files(self):
        box = self.sandbox(open_files=128)
        code = """
import os
def fill():
    fds = []
    try:
        while len(fds) < 2000:
            fds.append(os.open('/dev/null', os.O_RDONLY))
    except OSError:
        pass
    for fd in fds:
        os.close(fd)
    return max(fds) + 1
fill()
"""
        self.assertEqual(self.value(box, code), "128")
        self.update(box, open_files=64)
        self.assertEqual(self.value(box, "fill()"), "64")
        self.update(box, open_files=100)
        self.assertEqual(self.value(box, "fill()"), "100")
        # Whoever lives was started with 128. A new program gets the new limit.
        self.assertRegex(self.refused(box, open_files=256), "128.*`hotcell context rm`")
        context = execute(client, box, "1").context_id
        client.executions.DeleteContext(execution_service.DeleteContextRequest(sandbox_id=box, context_id=context), timeout=60 * PATIENCE)
        self.update(box, open_files=256)
        self.assertEqual(self.value(box, code), "256")

    def test_weights(self):
        boxes = [self.sandbox(cpu_millis=1000) for _ in range(2)]
        self.update(boxes[0], cpu_weight=800)
        for box in boxes:
            code = "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nwhile True: pass"
            run = client.executions.Execute(scenario.request(box, code), timeout=120 * PATIENCE)
            self.addCleanup(run.cancel)
            scenario.fold_until(run, lambda run: run.started)

        def used():
            return [get(client, box).usage.cpu_time.ToMicroseconds() for box in boxes]

        # Only while both want the same CPU, and for as long as it takes to see it, whoever else wants that.
        before = daemons.wait_until(lambda: (now := used()) and min(now) > 200_000 and now, "both are at it")
        daemons.wait_until(lambda: sum(used()) - sum(before) > 2_000_000, "both used some time")
        parts = [now - then for now, then in zip(used(), before)]
        self.assertGreater(parts[0], 3 * parts[1], parts)
        self.assertLess(parts[0], 20 * parts[1], parts)

    def test_bandwidth(self):
        box = self.sandbox(io_bytes_per_second=4 * MIB)
        code = """
import mmap, os, time, sys
def read(n):
    path = max(('/usr/lib/x86_64-linux-gnu/' + f for f in os.listdir('/usr/lib/x86_64-linux-gnu')), key=os.path.getsize)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, 1 << 18)
    start = time.monotonic()
    while n > 0:
        got = os.readv(fd, [buffer])
        if got <= 0:
            os.lseek(fd, 0, os.SEEK_SET)
        n -= got
    return time.monotonic() - start
read(6 << 20)
"""
        self.assertGreater(float(self.value(box, code)), 0.8)
        self.update(box, io_bytes_per_second=1 * MIB)
        self.assertGreater(float(self.value(box, "read(2 << 20)")), 1.2)
        self.update(box, io_bytes_per_second=0)
        self.assertLess(float(self.value(box, "read(4 << 20)")), 2.0 * PATIENCE)

    def test_executions(self):
        box = self.sandbox()
        message = request(box, ["limits.execution.timeout"])
        message.limits.execution.timeout.FromMilliseconds(300)
        client.sandboxes.UpdateSandbox(message, timeout=60 * PATIENCE)
        self.assertEqual(execute(client, box, "import time; time.sleep(60)").outcome, "TIMEOUT")


class Asked(Case):
    def test_what_cannot_be_is_refused_by_name(self):
        box = self.sandbox()
        cases = [
            (request(box, cpu_weight=0), "limits.cpu_weight"),
            (request(box, cpu_weight=100000), "limits.cpu_weight"),
            (request(box, disk_inodes=1), "limits.disk_inodes"),
            (request(box, io_bytes_per_second=1), "limits.io_bytes_per_second"),
            (request(box, memory_bytes=1 << 50), "limits.memory_bytes"),
            (request(box, ["limits.memory_bytes"]), "limits.memory_bytes"),
            (request(box, ["limits.execution.output_bytes"]), "limits.execution.output_bytes"),
            (request(box, ["limits.nothing"]), "update_mask"),
        ]
        for message, field in cases:
            error = scenario.error_of(client.sandboxes.UpdateSandbox, message)
            self.assertEqual([v.field for v in stubs.error_details(error)["BadRequest"].field_violations], [field])
        self.assertIn("64 MiB", self.refused(box, disk_bytes=200 * MIB))

    def test_all_of_them_are_replaced_or_none(self):
        box = self.sandbox(cpu_millis=500)
        etag = get(client, box).etag
        # The memory could be raised, the open files could not.
        self.value(box, "1")
        self.refused(box, memory_bytes=512 * MIB, open_files=2048)
        after = self.update(box, memory_bytes=512 * MIB, processes=100)
        self.assertNotEqual(after.etag, etag)
        self.assertEqual((after.limits.memory_bytes, after.limits.processes, after.limits.cpu_millis), (512 * MIB, 100, 500))
        error = scenario.error_of(client.sandboxes.UpdateSandbox, sandbox_service.UpdateSandboxRequest(
            sandbox_id=box, etag=etag, update_mask={"paths": ["limits.memory_bytes"]}, limits={"memory_bytes": 300 * MIB}))
        self.assertEqual(stubs.reason(error), "CONFLICT")
        # `limits` by itself: what is unset gets the default.
        whole = client.sandboxes.UpdateSandbox(request(box, ["limits"], memory_bytes=400 * MIB), timeout=60 * PATIENCE).sandbox
        self.assertEqual((whole.limits.memory_bytes, whole.limits.cpu_millis), (400 * MIB, 1000))

    def test_the_command_line_changes_and_shows_them(self):
        box = self.sandbox()
        token = client.sandboxes.ListSandboxes(sandbox_service.ListSandboxesRequest(), timeout=60 * PATIENCE).watch_token
        program = [daemons.build_folder() / "cli/hotcell", "--target", running.target, "sandbox"]
        subprocess.run([*program, "update", "--memory", "300M", "--cpu-weight", "50", "--inodes", "9000", "--timeout", "9s", box],
                       check=True, capture_output=True)
        limits = get(client, box).limits
        self.assertEqual((limits.memory_bytes, limits.cpu_weight, limits.disk_inodes, limits.execution.timeout.seconds),
                         (300 * MIB, 50, 9000, 9))
        events = client.sandboxes.WatchSandboxes(sandbox_service.WatchSandboxesRequest(watch_token=token, sandbox_id=box), timeout=60 * PATIENCE)
        event = next(iter(events)).events[0]
        self.assertEqual(event.type, sandbox_service.SANDBOX_EVENT_TYPE_UPDATED)
        self.assertEqual(event.sandbox.limits.memory_bytes, 300 * MIB)
        events.cancel()
        wrong = subprocess.run([*program, "update", "--memory", "1T", box], capture_output=True, text=True, check=False)
        self.assertEqual(wrong.returncode, 125)
        self.assertIn("--memory", wrong.stderr)

    def test_they_outlive_hotcelld(self):
        box = self.sandbox()
        self.update(box, memory_bytes=640 * MIB, disk_bytes=100 * MIB)
        before = running.server_pid()
        os.kill(before, signal.SIGKILL)
        daemons.wait_until(lambda: running.server_pid() not in (None, before), "another hotcelld")
        daemons.wait_until(running.is_ready, "ready")
        with stubs.Client(running.target) as again:
            limits = get(again, box).limits
            self.assertEqual((limits.memory_bytes, limits.disk_bytes), (640 * MIB, 100 * MIB))
            self.assertEqual(execute(again, box, f"len(b'x' * {400 * MIB})").text, str(400 * MIB))


class Quotas(unittest.TestCase):
    """Of an owner of keys, with all of them together."""

    def setUp(self):
        self.clients = []

    def key(self, name, owner="", **quotas):
        message = key_service.CreateKeyRequest(name=name, owner_key_id=owner)
        if quotas:
            message.quotas.CopyFrom(key_service.KeyQuotas(**quotas))
        made = client.keys.CreateKey(message, timeout=60 * PATIENCE)
        self.addCleanup(client.keys.RevokeKey, key_service.RevokeKeyRequest(key_id=made.key.key_id, delete_sandboxes=True), timeout=60 * PATIENCE)
        return made

    @staticmethod
    def address():
        return "127.0.0.1:" + re.findall(r"listening address=127\.0\.0\.1.*port=(\d+)", running.log())[-1]

    def connect(self, key):
        """What a holder of the key sees; again after a restart."""
        return self.enterContext(stubs.Client(self.address(), metadata=[("x-api-key", key.secret)]))

    def create(self, holder, memory=128 * MIB, **limits):
        message = sandbox_service.CreateSandboxRequest(spec=scenario.spec(memory=memory, limits={"disk_bytes": 16 * MIB, **limits}))
        return holder.sandboxes.CreateSandbox(message, metadata=holder.metadata, timeout=60 * PATIENCE).sandbox.sandbox_id

    def refused(self, reason, quota, owner, call, *arguments):
        with self.assertRaises(grpc.RpcError) as caught:
            result = call(*arguments)
            if hasattr(result, "__iter__"):
                list(result)
        details = stubs.error_details(caught.exception)
        self.assertEqual((caught.exception.code(), details["ErrorInfo"].reason), (grpc.StatusCode.RESOURCE_EXHAUSTED, reason))
        [violation] = details["QuotaFailure"].violations
        self.assertEqual(violation.subject, owner)
        self.assertTrue(violation.description.startswith(f"{quota}: "), violation.description)
        self.assertGreater(details["RetryInfo"].retry_delay.ToMilliseconds(), 0)

    def used(self, holder):
        info = holder.server.GetServerInfo(stubs.server_service.GetServerInfoRequest(), metadata=holder.metadata, timeout=60 * PATIENCE)
        return {q.name: q.owner_used for q in info.quotas}

    def update(self, key, **quotas):
        message = key_service.UpdateKeyRequest(key_id=key.key.key_id, quotas=quotas, update_mask={"paths": [f"quotas.{name}" for name in quotas]})
        return client.keys.UpdateKey(message, timeout=60 * PATIENCE).key

    def test_each_is_held_to_by_name(self):
        key = self.key("each", sandboxes=2, memory_bytes=512 * MIB, cpu_millis=1500)
        owner, holder = key.key.owner, self.connect(key)
        first = self.create(holder, cpu_millis=500)
        self.refused("MEMORY_LIMIT", "memory_bytes", owner, lambda: self.create(holder, memory=400 * MIB, cpu_millis=500))
        self.refused("CPU_LIMIT", "cpu_millis", owner, lambda: self.create(holder, cpu_millis=1100))
        self.create(holder, cpu_millis=500)
        self.refused("SANDBOX_LIMIT", "sandboxes", owner, lambda: self.create(holder, cpu_millis=100))
        message = request(first, memory_bytes=400 * MIB)
        self.refused("MEMORY_LIMIT", "memory_bytes", owner,
                     lambda: holder.sandboxes.UpdateSandbox(message, metadata=holder.metadata, timeout=60 * PATIENCE))
        used = self.used(holder)
        self.assertEqual((used["sandboxes"], used["memory_bytes"], used["cpu_millis"]), (2, 256 * MIB, 1000))

    def test_executions_at_a_time(self):
        key = self.key("executions", executions=1)
        holder = self.connect(key)
        boxes = [self.create(holder) for _ in range(2)]
        runs = holder.executions.Execute(scenario.request(boxes[0], "while True: pass"), metadata=holder.metadata, timeout=60 * PATIENCE)
        scenario.fold_until(runs, lambda run: run.started)
        self.refused("EXECUTION_LIMIT", "executions", key.key.owner, lambda: holder.executions.Execute(
            scenario.request(boxes[1], "1"), metadata=holder.metadata, timeout=60 * PATIENCE))
        self.update(key, executions=2)
        run = scenario.fold(holder.executions.Execute(scenario.request(boxes[1], "1+1"), metadata=holder.metadata, timeout=60 * PATIENCE))
        self.assertEqual(run.text, "2")

    def test_keys_share_those_of_their_owner(self):
        key = self.key("owner", sandboxes=1)
        shared = self.key("shared", owner=key.key.key_id)
        self.assertEqual(shared.key.quotas.sandboxes, 1)
        self.create(self.connect(key))
        self.refused("SANDBOX_LIMIT", "sandboxes", key.key.owner, lambda: self.create(self.connect(shared)))
        # By either key; what is there stays, and a restart changes nothing.
        self.update(shared, sandboxes=2)
        self.create(self.connect(shared))
        self.update(key, sandboxes=1)
        before = running.server_pid()
        os.kill(before, signal.SIGKILL)
        daemons.wait_until(lambda: running.server_pid() not in (None, before), "another hotcelld")
        daemons.wait_until(running.is_ready, "ready")
        holder = self.connect(key)
        self.assertEqual(self.used(holder)["sandboxes"], 2)
        self.refused("SANDBOX_LIMIT", "sandboxes", key.key.owner, lambda: self.create(holder))
        with stubs.Client(running.target) as local:
            listed = local.keys.ListKeys(key_service.ListKeysRequest(), timeout=60 * PATIENCE).keys
        self.assertEqual({(k.quotas.sandboxes, k.used.sandboxes) for k in listed if k.owner == key.key.owner}, {(1, 2)})

    def test_all_of_them_are_replaced_or_those_that_are_named(self):
        key = self.key("many", sandboxes=1, memory_bytes=300 * MIB, cpu_millis=2000, executions=2)
        after = self.update(key, cpu_millis=3000).quotas
        self.assertEqual((after.sandboxes, after.memory_bytes, after.cpu_millis, after.executions), (1, 300 * MIB, 3000, 2))
        message = key_service.UpdateKeyRequest(key_id=key.key.key_id, quotas={"memory_bytes": 400 * MIB}, update_mask={"paths": ["quotas"]})
        after = client.keys.UpdateKey(message, timeout=60 * PATIENCE).key.quotas
        self.assertEqual((after.sandboxes, after.memory_bytes, after.cpu_millis, after.executions), (0, 400 * MIB, 0, 0))

    def test_the_command_line_sets_them(self):
        program = [daemons.build_folder() / "cli/hotcell", "--target", running.target, "key"]
        made = subprocess.run([*program, "create", "--max-sandboxes", "3", "--max-memory", "1G", "-o", "json", "words"],
                              check=True, capture_output=True)
        self.addCleanup(subprocess.run, [*program, "revoke", "words"], check=True, capture_output=True)
        self.assertIn(b'"sandboxes"', made.stdout)
        subprocess.run([*program, "update", "--max-cpus", "2.5", "--max-executions", "4", "--max-memory", "0", "words"], check=True, capture_output=True)
        with stubs.Client(running.target) as local:
            [quotas] = [k.quotas for k in local.keys.ListKeys(key_service.ListKeysRequest(), timeout=60 * PATIENCE).keys if k.name == "words"]
        self.assertEqual((quotas.sandboxes, quotas.memory_bytes, quotas.cpu_millis, quotas.executions), (3, 0, 2500, 4))

    def test_who_asks_for_more_than_all_is_not_told_to_ask_again(self):
        key = self.key("much", memory_bytes=256 * MIB)
        with self.assertRaises(grpc.RpcError) as caught:
            self.create(self.connect(key), memory=512 * MIB)
        details = stubs.error_details(caught.exception)
        self.assertEqual(set(details) & {"QuotaFailure", "RetryInfo"}, {"QuotaFailure"})
        self.assertIn("256 MiB", caught.exception.details())
        self.assertIn(f"hotcell key update --max-memory N {key.key.owner}", caught.exception.details())

    def test_a_quota_is_enough_for_a_sandbox(self):
        program = [daemons.build_folder() / "cli/hotcell", "--target", running.target, "key"]
        for flag, value, said in (("--max-memory", "64M", "--max-memory is below 96 MiB, the least"), ("--max-cpus", "0.009", "--max-cpus is below 0.01 CPUs, the least")):
            made = subprocess.run([*program, "create", flag, value, "useless"], capture_output=True, text=True, check=False)
            self.assertEqual((made.returncode, made.stdout), (125, ""))
            self.assertIn(said, made.stderr)
        key = self.key("least", memory_bytes=96 * MIB, cpu_millis=10)
        with self.assertRaises(grpc.RpcError) as caught:
            self.update(key, memory_bytes=96 * MIB - 1)
        self.assertEqual(stubs.reason(caught.exception), "LIMIT_OUT_OF_RANGE")

    def test_what_a_revoked_key_left_is_deleted_later(self):
        key = self.key("left")
        self.create(self.connect(key))
        program = [daemons.build_folder() / "cli/hotcell", "--target", running.target, "key", "revoke"]
        first, again = [subprocess.run([*program, *more, key.key.key_id], capture_output=True, text=True, check=True).stderr
                        for more in ([], ["--delete-sandboxes"])]
        self.assertIn("live on until their end: 1;", first)
        self.assertIn("that end: 1", again)

    def test_who_has_a_key_sees_with_the_command_line_what_is_its(self):
        key = self.key("seer", sandboxes=2)
        holder = self.connect(key)
        sandbox_id = self.create(holder)
        program = daemons.build_folder() / "cli/hotcell"
        shown = subprocess.run([program, "--target", self.address(), "version"], check=True, capture_output=True, text=True,
                               env={**os.environ, "HOTCELL_API_KEY": key.secret}).stdout
        self.assertRegex(shown, r"you have: 1 of 2 sandboxes, .* memory, .* CPUs, 0 of \d+ executions")
        listed = subprocess.run([program, "--target", running.target, "key", "ls"], check=True, capture_output=True, text=True).stdout
        self.assertRegex(listed, rf"{key.key.key_id} .* 1 of 2 sandboxes, ")
        self.assertTrue(sandbox_id)

    def test_what_is_wrong_is_refused(self):
        key = self.key("wrong")
        for message, field in [(key_service.UpdateKeyRequest(key_id=key.key.key_id, quotas={"sandboxes": -1}, update_mask={"paths": ["quotas"]}),
                                "quotas.sandboxes"),
                               (key_service.UpdateKeyRequest(key_id=key.key.key_id, update_mask={"paths": ["name"]}), "update_mask"),
                               (key_service.UpdateKeyRequest(key_id=key.key.key_id), "update_mask")]:
            error = scenario.error_of(client.keys.UpdateKey, message)
            self.assertEqual([v.field for v in stubs.error_details(error)["BadRequest"].field_violations], [field])
        error = scenario.error_of(client.keys.UpdateKey, key_service.UpdateKeyRequest(key_id="key-none", update_mask={"paths": ["quotas"]}))
        self.assertEqual(stubs.reason(error), "KEY_NOT_FOUND")
        error = scenario.error_of(client.keys.CreateKey, key_service.CreateKeyRequest(name="both", owner_key_id=key.key.key_id, quotas={"sandboxes": 1}))
        self.assertEqual(stubs.reason(error), "INVALID_FIELD")


if __name__ == "__main__":
    unittest.main()
