"""A daemon is killed at each step of the life of a sandbox with traffic: what was refused stays refused all the time, and what is allowed works
again soon after."""

import concurrent.futures
import contextlib
import os
import pathlib
import signal
import threading
import unittest

import grpc

import daemons
import scenario
import scene as scenes
from daemons import PATIENCE, wait_until
from patient import ask, new_id
from scene import allow
from stubs import sandbox_service, server_service

ALLOWED = {4: "93.184.216.34", 6: "2606:2800:220:1::34"}
FORBIDDEN = {4: "93.184.216.35", 6: "2606:2800:220:1::35"}
NAMED = {4: "93.184.216.40", 6: "2606:2800:220:1::40"}
EVIL = {4: "93.184.216.66", 6: "2606:2800:220:1::66"}
ECHO = 7
RULES = [*(allow(address) for address in ALLOWED.values()), allow("allowed.test")]
scene = scenes.Scene()

# Threads that try all of it without end. What a forbidden attempt came to is kept: it may only be refused.
TRAFFIC = f"""
import collections
tries, stopped = collections.Counter(), threading.Event()

def traffic(kind, what, *arguments):
    while not stopped.is_set():
        tries[kind, what(*arguments)] += 1
        time.sleep(0.2 if kind == "name" else 0.001)  # of names there may be 20 a second

threads = []
for version in (4, 6):
    allowed, forbidden = {ALLOWED!r}[version], {FORBIDDEN!r}[version]
    for kind, what, *arguments in (("allowed", tcp, allowed, {ECHO}), ("forbidden", tcp, forbidden, {ECHO}), ("forbidden", udp_send, allowed, {ECHO}),
                                   ("forbidden", tcp, {{4: "169.254.169.254", 6: "fd00:ec2::254"}}[version], 80),
                                   ("name", ask, "evil.test")):
        threads.append(threading.Thread(target=traffic, args=(kind, what, *arguments), daemon=True))
SECONDS = 5
for thread in threads:
    thread.start()
"""


def setUpModule():
    scene.enter()
    scene.world.set_zones({"allowed.test": {"A": [NAMED[4]], "AAAA": [NAMED[6]]}, "evil.test": {"A": [EVIL[4]], "AAAA": [EVIL[6]]}})


class Case(unittest.TestCase):
    """With one sandbox whose programs try all the time, and others that are at some step of their life when the daemon is killed."""

    def setUp(self):
        self.start = scene.world.carried()
        self.n_events = len(scene.world.events())
        self.sandbox = scene.create(*RULES)
        self.others = []
        scene.run(self.sandbox, TRAFFIC)
        self.pool = self.enterContext(concurrent.futures.ThreadPoolExecutor(4))

    # --- who is killed ---

    def hotcelld(self):
        return scene.running.server_pid()

    def hotcell_egress(self):
        return scene.running.egress_pid()

    def spawner(self):
        """The runtime's child that is the same program, and is not on its way to be a sandbox's."""
        runtime = scene.running.process.pid
        for child in daemons.children(runtime):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                is_same = os.readlink(f"/proc/{child}/exe") == os.readlink(f"/proc/{runtime}/exe")
                if is_same and "sandbox-" not in pathlib.Path(f"/proc/{child}/cgroup").read_text():
                    return child
        return None

    def kill(self, who):
        if who == "spawner" and not self.spawner():
            # It is started for the next sandbox.
            scenario.delete(scene.client, scene.create(*RULES))
        pid = wait_until(getattr(self, who), f"there is {who}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if who == "spawner":
            wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "it is gone")
        else:
            wait_until(lambda: getattr(self, who)() not in (None, pid), f"{who} is started again")
            wait_until(scene.running.is_ready, "ready again")
            # The connection may not know yet that the other end is gone.
            ask(scene.client.server.GetServerInfo, server_service.GetServerInfoRequest())

    # --- steps ---

    def create(self):
        made = ask(scene.client.sandboxes.CreateSandbox, sandbox_service.CreateSandboxRequest(
            spec=scenario.spec(egress=scenes.policy(*RULES)), request_id=new_id())).sandbox.sandbox_id
        self.others.append(made)
        return made

    def update(self, *rules):
        message = sandbox_service.UpdateSandboxRequest(sandbox_id=self.sandbox, egress=scenes.policy(*rules), request_id=new_id())
        message.update_mask.paths.append("egress")
        return ask(scene.client.sandboxes.UpdateSandbox, message)

    def step(self, who, call):
        """Kills while the call is on its way, at another moment each time. The call may fail, but not do harm."""
        for pause in (0, 0.002, 0.01):
            future = self.pool.submit(call)
            threading.Event().wait(pause)
            self.kill(who)
            with contextlib.suppress(grpc.RpcError):
                future.result(120 * PATIENCE)

    # --- what must hold ---

    def check(self):
        """Allowed works again for all, forbidden does not, and it never did."""
        count = "sum(n for key, n in tries.items() if key == ('allowed', 'echo'))"
        before = scene.inside(self.sandbox, count)
        wait_until(lambda: scene.inside(self.sandbox, count) > before + 10, "allowed traffic works again")
        scene.run(self.sandbox, "stopped.set()\nfor thread in threads: thread.join(60)")
        for sandbox in (self.sandbox, *self.others):
            self.check_one(sandbox)
        tries = scene.inside(self.sandbox, "[[*key, n] for key, n in tries.items()]")
        print(f"# {self.id().split('.')[-1]}: " + ", ".join(f"{kind} {what} {n}" for kind, what, n in sorted(tries)))
        self.assertEqual({what for kind, what, _ in tries if kind == "forbidden"}, {"EPERM"})
        self.assertLessEqual({what for kind, what, _ in tries if kind == "name"}, {"REFUSED", "SERVFAIL", "timeout"})
        self.assertIn("echo", {what for kind, what, _ in tries if kind == "allowed"})
        arrived = set(scene.world.carried() - self.start)
        good = {*ALLOWED.values(), *NAMED.values(), "9.9.9.9"}
        self.assertEqual({key for key in arrived if key[1] not in good or key[0] == "udp" and key[1] != "9.9.9.9"}, set(), "forbidden, and it arrived")
        self.assertNotIn("evil.test", {event["name"] for event in scene.world.events(self.n_events) if event["kind"] == "dns"})

    def check_one(self, sandbox):
        scene.run(sandbox, scenes.PRELUDE)
        for version in (4, 6):
            wait_until(lambda v=version: scene.inside(sandbox, f"tcp({ALLOWED[v]!r}, {ECHO})") == "echo", "allowed traffic works again")
            self.assertEqual(scene.inside(sandbox, f"tcp({FORBIDDEN[version]!r}, {ECHO})"), "EPERM")
        wait_until(lambda: scene.inside(sandbox, "ask('allowed.test')") == f"NOERROR {NAMED[4]}", "names work again")
        self.assertEqual(scene.inside(sandbox, f"tcp({NAMED[4]!r}, {ECHO})"), "echo")
        self.assertEqual(scene.inside(sandbox, "ask('evil.test')"), "REFUSED")
        status = scenario.get(scene.client, sandbox).egress_status
        self.assertTrue(status.enforced)
        scene.fence(sandbox)

    def tearDown(self):
        for sandbox in (self.sandbox, *self.others):
            with contextlib.suppress(grpc.RpcError):
                scenario.delete(scene.client, sandbox)


def add(who, step):
    def test(self):
        getattr(self, f"at_{step}")(who)
        self.check()
    setattr(Killed, f"test_{who}_{step}", test)


class Killed(Case):
    def at_with_traffic(self, who):
        for _ in range(3):
            tries = scene.inside(self.sandbox, "sum(tries.values())")
            wait_until(lambda n=tries: scene.inside(self.sandbox, "sum(tries.values())") > n + 100, "traffic goes on")
            self.kill(who)

    def at_while_one_is_made(self, who):
        self.step(who, self.create)

    def at_while_one_is_deleted(self, who):
        made = [self.create() for _ in range(3)]
        self.others.clear()
        self.step(who, lambda: ask(scene.client.sandboxes.DeleteSandbox, sandbox_service.DeleteSandboxRequest(
            sandbox_id=made.pop(), request_id=new_id())))

    def at_while_the_policy_changes(self, who):
        self.step(who, lambda: self.update(*RULES, allow("5.5.0.0/16")))
        # Whatever became of the last one.
        self.update(*RULES)

    def at_while_a_name_is_asked_for(self, who):
        self.step(who, lambda: scene.run(self.sandbox, "[ask('allowed.test', over='tcp'), ask('allowed.test')]"))


for each_who in ("hotcelld", "hotcell_egress", "spawner"):
    for each_step in [name.removeprefix("at_") for name in vars(Killed) if name.startswith("at_")]:
        add(each_who, each_step)


class Tightened(Case):
    def test_a_policy_that_was_tightened_stays_so(self):
        """The answer came, then everything that could know is killed."""
        self.update(*(allow(address) for address in ALLOWED.values()))
        for who in ("hotcell_egress", "hotcelld"):
            self.kill(who)
            for version in (4, 6):
                wait_until(lambda v=version: scene.inside(self.sandbox, f"tcp({ALLOWED[v]!r}, {ECHO})") == "echo", "allowed traffic works again")
            self.assertEqual(scene.inside(self.sandbox, f"[ask('allowed.test'), tcp({NAMED[4]!r}, {ECHO})]"), ["REFUSED", "EPERM"])
        self.assertEqual(scenario.get(scene.client, self.sandbox).egress_status.policy_version, 2)
        self.assertFalse({key for key in scene.world.carried() - self.start if key[1] in NAMED.values()})


class Unready(unittest.TestCase):
    def test_what_is_refused_for_want_of_a_policy_is_unavailable(self):
        """hotcelld is stopped, so a hotcell-egress that is started anew gets none."""
        sandbox = scene.create(*RULES)
        scene.run(sandbox, f"tcp({FORBIDDEN[4]!r}, 4711)")
        pid = scene.wait_log(sandbox, port=4711).pid
        scene.run(sandbox, f"""
import threading
def watch():
    left = {{"EPERM": lambda: tcp({ALLOWED[4]!r}, {ECHO}), "REFUSED": lambda: ask("allowed.test")}}
    while left:
        for result, attempt in list(left.items()):
            if attempt() == result:
                open("/tmp/" + result, "w").close()
                del left[result]
        time.sleep(0.05)
threading.Thread(target=watch, daemon=True).start()""")
        server = scene.running.server_pid()
        os.kill(server, signal.SIGSTOP)
        try:
            os.kill(scene.running.egress_pid(), signal.SIGKILL)
            for result in ("EPERM", "REFUSED"):
                wait_until(lambda name=result: os.path.exists(f"/proc/{pid}/root/tmp/{name}"), f"the program saw {result}")
        finally:
            os.kill(server, signal.SIGCONT)
        scene.wait_log(sandbox, type="DENIED", reason="UNAVAILABLE", address=ALLOWED[4], port=ECHO)
        scene.wait_log(sandbox, type="DENIED", reason="UNAVAILABLE", name="allowed.test")
        wait_until(lambda: scene.inside(sandbox, f"tcp({ALLOWED[4]!r}, {ECHO})") == "echo", "allowed traffic works again")


class Whole(unittest.TestCase):
    def test_both_at_once_while_a_download_goes_on(self):
        sandbox = scene.create(*RULES)
        future = concurrent.futures.ThreadPoolExecutor(1).submit(scene.run, sandbox, f"""
with opened({ALLOWED[4]!r}, 19) as s:
    s.connect(({ALLOWED[4]!r}, 19))
    try:
        while s.recv(1 << 20):
            pass
        print("end")
    except OSError as error:
        print(name_of(error))""")
        scene.world.wait_event(0, "it is connected", kind="accepted", port=19)
        start = len(scene.world.events())
        server, relay = scene.running.server_pid(), scene.running.egress_pid()
        for pid in (relay, server):
            os.kill(pid, signal.SIGKILL)
        event = scene.world.wait_event(start, "the host saw the end", kind="ended", port=19)
        self.assertEqual(event["how"], "ConnectionResetError")
        wait_until(lambda: scene.running.egress_pid() not in (None, relay) and scene.running.server_pid() not in (None, server), "they are back")
        wait_until(scene.running.is_ready, "ready again")
        with contextlib.suppress(grpc.RpcError):
            self.assertEqual(future.result(60 * PATIENCE).stdout.strip(), b"ECONNRESET", "a download that was cut looks complete")
        wait_until(lambda: scene.inside(sandbox, f"tcp({ALLOWED[4]!r}, {ECHO})") == "echo", "allowed traffic works again")
        self.assertEqual(scene.inside(sandbox, f"tcp({FORBIDDEN[4]!r}, {ECHO})"), "EPERM")


if __name__ == "__main__":
    unittest.main()
