"""What an owner tries from within sandboxes, and by a key, against the wall, its log and its neighbours."""

import ast
import concurrent.futures
import unittest

import grpc

import daemons
import scenario
import scene as scenes
from daemons import PATIENCE
from scene import allow
from stubs import egress_service, key_service, sandbox_service

ALLOWED, FORBIDDEN = "93.184.216.34", "93.184.216.250"
ECHO = 7
scene = scenes.Scene()


def setUpModule():
    global mallory
    scene.enter()
    mallory = Tenant("mallory")
    scene.world.set_zones({"wild.test": {}, "*.wild.test": {"A": [ALLOWED], "TXT": ["text"]}, "typed.test": {"A": [ALLOWED], "TXT": ["text"]}})


class Tenant:
    """By a key, on the unix socket."""

    def __init__(self, name):
        made = scene.client.keys.CreateKey(key_service.CreateKeyRequest(name=name), timeout=60)
        self.metadata = [("x-api-key", made.secret)]
        self.client = scene.client

    def call(self, method, message, timeout=120 * PATIENCE):
        return method(message, metadata=self.metadata, timeout=timeout)

    def create(self, *rules, types=(), default="DENY", **fields):
        message = sandbox_service.CreateSandboxRequest(spec=scenario.spec(egress=scenes.policy(*rules, types=types, default=default), **fields))
        made = self.call(self.client.sandboxes.CreateSandbox, message).sandbox.sandbox_id
        self.run(made, f"AUTHORITY = {scene.world.authority!r}\n{scenes.PRELUDE}")
        return made

    def run(self, sandbox_id, code, **fields):
        done = scenario.fold(self.call(self.client.executions.Execute, scenario.request(sandbox_id, code, **fields)))
        assert done.outcome == "OK", f"{done.outcome} {done.error}"
        return done

    def delete(self, sandbox_id):
        return self.call(self.client.sandboxes.DeleteSandbox, sandbox_service.DeleteSandboxRequest(sandbox_id=sandbox_id))

    def update(self, sandbox_id, *rules, **fields):
        message = sandbox_service.UpdateSandboxRequest(sandbox_id=sandbox_id, egress=scenes.policy(*rules, **fields))
        message.update_mask.paths.append("egress")
        return self.call(self.client.sandboxes.UpdateSandbox, message)


def code_of(function, *arguments, **fields):
    try:
        function(*arguments, **fields)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


class Names(unittest.TestCase):
    def test_what_a_program_calls_itself_is_told_as_text(self):
        sandbox = scene.create(allow(ALLOWED))
        names = (b"\xff\xfe", b"\x1b[2J\x1b]0;x\x07", b"a\nb\tc", "\u202e".encode() * 4, b"\xc3" * 15, "\xe9".encode() * 7)
        ports = [3000 + i for i in range(len(names))]
        for name, port in zip(names, ports):
            scene.save_tokens(sandbox)
            run = scene.run(sandbox, f"libc.prctl(15, {name!r}, 0, 0, 0); tcp({FORBIDDEN!r}, {port}); libc.prctl(15, b'python3', 0, 0, 0)")
            self.assertEqual([event.port for event in run.egress], [port], name)
            scene.wait_log(sandbox, port=port)
        lines = daemons.hotcell(scene.running, "egress", "log", sandbox).stdout.decode()
        self.assertNotIn("\x1b", lines)
        self.assertNotIn("\u202e", lines)
        for port in ports:
            self.assertIn(f"{FORBIDDEN}:{port}", lines)


class Owners(unittest.TestCase):
    def test_nothing_of_the_others_egress_can_be_read_or_changed(self):
        mine = scene.create(allow(ALLOWED))
        for port in range(5):
            scene.save_tokens(mine)
            scene.run(mine, f"tcp({FORBIDDEN!r}, {4000 + port})")
        scene.wait_log(mine, port=4004)
        token = scene.client.egress.ListEgressEvents(egress_service.ListEgressEventsRequest(sandbox_id=mine, page_size=2), timeout=60).next_page_token
        self.assertTrue(token)
        theirs = mallory.create(allow(ALLOWED))
        self.addCleanup(mallory.delete, theirs)

        def ask(**fields):
            return code_of(mallory.call, scene.client.egress.ListEgressEvents, egress_service.ListEgressEventsRequest(**fields))
        self.assertEqual(ask(sandbox_id=mine), "NOT_FOUND")
        self.assertEqual(ask(sandbox_id=mine, page_token=token), "NOT_FOUND")
        self.assertEqual(ask(sandbox_id=theirs, page_token=token), "INVALID_ARGUMENT")
        self.assertEqual(code_of(mallory.update, mine, allow("5.5.5.5")), "NOT_FOUND")
        self.assertEqual(scenario.get(scene.client, mine).egress_status.policy_version, 1)


class Races(unittest.TestCase):
    def test_an_address_that_changes_under_connect_never_leads_elsewhere(self):
        sandbox = scene.create(allow(ALLOWED, ECHO))
        mark = scene.world.mark()
        scene.run(sandbox, f"""
import ctypes, threading
good = struct.pack("!HH", 0, {ECHO})[2:] + socket.inet_aton({ALLOWED!r})
evil = struct.pack("!HH", 0, {ECHO})[2:] + socket.inet_aton({FORBIDDEN!r})
where = ctypes.create_string_buffer(struct.pack("=H", socket.AF_INET) + good + bytes(8), 16)
stop = False
def flip():
    at = ctypes.addressof(where) + 2
    while not stop:
        ctypes.memmove(at, evil, 6); ctypes.memmove(at, good, 6)
threads = [threading.Thread(target=flip) for _ in range(2)]
for t in threads: t.start()
end, n_refused = time.monotonic() + 6, 0
while time.monotonic() < end:
    s = socket.socket()
    n_refused += libc.connect(s.fileno(), where, 16) != 0
    s.close()
stop = True
for t in threads: t.join()
assert n_refused > 0
""", timeout=60)
        arrived = scene.world.arrived(mark)
        self.assertFalse([key for key in arrived if key[1] == FORBIDDEN], arrived)
        self.assertTrue([key for key in arrived if key[1] == ALLOWED])

    def test_no_token_is_chosen_by_where_a_socket_is_bound(self):
        """To `::` a socket that is bound to a mapped address goes to 127.0.0.1; to the mapped 0.0.0.0, to where it is bound."""
        sandbox = scene.create(allow(ALLOWED, ECHO))
        mark = scene.world.mark()
        found = scene.run(sandbox, f"""
def try_(bound, to, port):
    def run():
        with opened(to, port, family=family_of(bound)) as s:
            if ":" in bound: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            s.bind((bound, 0))
            connect(s, to, port)
            return talk(s)
    return attempt(run)
with opened({ALLOWED!r}, {ECHO}) as kept:
    kept.connect(({ALLOWED!r}, {ECHO}))
    ports = {{int(line.split()[1].split(":")[1], 16) for line in open("/proc/net/tcp").read().splitlines()[1:]}}
    pairs = [("{{}}", "0.0.0.0"), ("::ffff:{{}}", "::ffff:0.0.0.0"), ("::ffff:{{}}", "::")]
    found = {{(to, try_(bound.format(f"127.64.1.{{token}}"), to, port)) for port in ports for token in range(4) for bound, to in pairs}}
print(sorted(found))""", timeout=100).stdout.decode()
        self.assertNotIn("echo", found)
        for to in ("0.0.0.0", "::ffff:0.0.0.0"):
            self.assertEqual({result for where, result in ast.literal_eval(found) if where == to}, {"EPERM"}, found)
        arrived = scene.world.arrived(mark)
        self.assertFalse([key for key in arrived if key[1] != ALLOWED], arrived)


class Tunnels(unittest.TestCase):
    def test_new_names_are_as_few_with_types_as_without(self):
        sandbox = scene.create(allow("*.wild.test"), types=("TXT", "NULL", "ANY", "MX"))
        start = len(scene.world.events())
        scene.run(sandbox, """
end, n = time.monotonic() + 12, 0
while time.monotonic() < end:
    for kind in ("TXT", "A", "AAAA", "ANY"):
        ask(f"x{n}.wild.test", kind); n += 1""", timeout=60)
        asked = {e["name"] for e in scene.world.events(start) if e["kind"] == "dns"}
        self.assertGreaterEqual(len(asked), 100)
        self.assertLessEqual(len(asked), 200 + 20)

    def test_a_type_that_is_taken_away_is_not_answered_any_more(self):
        sandbox = scene.create(allow("typed.test"), types=("TXT",))
        self.assertEqual(scene.inside(sandbox, "ask('typed.test', 'TXT')"), "NOERROR text")
        scene.update(sandbox, allow("typed.test"))
        self.assertEqual(scene.inside(sandbox, "ask('typed.test', 'TXT')"), "REFUSED")
        scene.update(sandbox, allow("typed.test"), types=("TXT",))
        scene.world.set_zones({"typed.test": {"A": [ALLOWED], "TXT": ["text"], "mode": "held"}})
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            n = len(scene.world.events())
            answer = pool.submit(scene.inside, sandbox, "ask('typed.test', 'TXT')")
            scene.world.wait_event(n, "it was asked", kind="dns", name="typed.test")
            scene.update(sandbox, allow("typed.test"))
            scene.world.set_zones({"typed.test": {"A": [ALLOWED], "TXT": ["text"]}, "*.wild.test": {"A": [ALLOWED], "TXT": ["text"]}})
            self.assertEqual(answer.result(60), "REFUSED")


if __name__ == "__main__":
    unittest.main()
