"""Direct mode: UDP and echo requests leave by a device of the sandbox's own, as its rules say and no further; what comes to it is an answer. The
hosts' own count says what arrived."""

import contextlib
import os
import signal
import unittest

import grpc

import scenario
import scene as scenes
import world as worlds
from daemons import PATIENCE, wait_until
from scene import allow, deny
from stubs import egress, server_service

POOLS = ("198.51.100.0/23", "2001:db8:7::/64")
ALLOWED = {4: "93.184.216.34", 6: "2606:2800:220:1::34"}
BESIDE = {4: "93.184.216.35", 6: "2606:2800:220:1::35"}  # no rule is about it
PUBLIC = {4: "93.184.217.1", 6: "2606:2801::1"}
HOME = {4: worlds.HOME4, 6: worlds.HOME6}
METADATA = {4: "169.254.169.254", 6: "fd00:ec2::254"}
FORGED = {4: "198.51.100.250", 6: "2001:db8:7::fa"}
ECHO, TCP_ECHO, CLOSED, LISTENER = 2020, 7, 2019, 7777
ICMP = {4: "icmp", 6: "icmpv6"}
scene = scenes.Scene()

# Beside inside.py. What is dropped on its way is not answered, so who waits for that waits shortly.
PRELUDE = """
def udp_echo(address, port, source=None, size=len(MESSAGE), seconds=SECONDS, segment=0):
    def run():
        with opened(address, port, socket.SOCK_DGRAM) as s:
            s.settimeout(seconds)
            if source:
                s.setsockopt(*((41, 78) if ":" in source else (0, 15)), 1)  # IP_FREEBIND
                s.bind((source, 0))
            if segment:
                s.setsockopt(17, 103, segment)  # UDP_SEGMENT
            s.sendto(bytes(size), (address, port))
            data, peer = s.recvfrom(65536)
            return "echo" if (len(data), peer[:2]) == (segment or size, (address, port)) else repr((data[:20], peer))
    return attempt(run)


def ping_echo(address, seconds=SECONDS):
    def run():
        v6 = ":" in address
        with opened(address, 0, socket.SOCK_DGRAM, None, 58 if v6 else 1) as s:
            s.settimeout(seconds)
            s.sendto(struct.pack("!BBHHH", 128 if v6 else 8, 0, 0, 1, 1) + b"abc", (address, 0))
            data, peer = s.recvfrom(2000)
            return "echo" if (data[0], data[-3:], peer[0]) == (129 if v6 else 0, b"abc", address) else repr((data, peer))
    return attempt(run)


def own_address(address):
    with opened(address, 0, socket.SOCK_DGRAM) as s:
        s.connect((address, %d))
        return s.getsockname()[0]


def refusal_of(address, port):
    "What a connected socket is told of a datagram that did not arrive."
    def run():
        with opened(address, port, socket.SOCK_DGRAM) as s:
            s.connect((address, port))
            s.send(MESSAGE)
            s.recv(100)
    return attempt(run)
""" % ECHO


def by(protocol, rule):
    rule.protocol = getattr(egress, f"EGRESS_PROTOCOL_{protocol.upper()}")
    return rule


def rules():
    for v in (4, 6):
        yield by("udp", allow(ALLOWED[v], (2000, 2020)))
        yield by("icmp", allow(ALLOWED[v]))
        yield allow(ALLOWED[v], TCP_ECHO)
        yield by("udp", allow(HOME[v]))
        yield by("icmp", allow(HOME[v]))
        yield by("udp", allow(METADATA[v]))
    yield by("udp", allow("198.51.100.0/23"))
    yield by("udp", allow("2001:db8:7::/64"))


def setUpModule():
    scene.enter(runtime_arguments=[f"--direct-pool={pool}" for pool in POOLS])
    scene.world.route_back(*POOLS)
    scene.world.outside.run(scenes.PRELUDE)


def devices():
    """The sandboxes' devices in the daemons' network: {number: name}."""
    lines = [line.split(": ") for line in scene.world.home.run("ip", "-o", "link", "show").splitlines()]
    return {int(number): name for number, name, *_ in lines if name.startswith("hc")}


def create(*more, **fields):
    sandbox = scene.create(*more, **fields)
    scene.run(sandbox, PRELUDE)
    return sandbox


class Direct(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.sandbox = create(*rules())
        cls.other = create(*rules())

    def attempt(self, code, expected, seen=(), event=None, sandbox=None):
        """@seen: (protocol, address, port) that arrive at the hosts, and nothing else does."""
        sandbox = sandbox or self.sandbox
        start = scene.fence(sandbox)
        mark = scene.world.mark()
        result = scene.inside(sandbox, code)
        self.assertIn(result, (expected,) if isinstance(expected, str) else expected)
        if event:
            scene.wait_log(sandbox, start, **event)
        else:
            end = scene.fence(sandbox)
            between = [scenes.short(e) for e in scene.log(sandbox) if start < e.sequence < end]
            self.assertEqual([e for e in between if e["type"] == "DENIED"], [])
        self.assertEqual(set(scene.world.arrived(mark)), set(seen))

    def test_the_server_says_that_it_is_on_and_holds(self):
        info = scene.client.server.GetServerInfo(server_service.GetServerInfoRequest(probe_walls=True), timeout=60 * PATIENCE)
        wall = next(wall for wall in info.walls if wall.name == "direct_mode")
        self.assertTrue(wall.holds, wall.detail)
        self.assertIn("on: ", wall.detail)
        self.assertIn("egress.direct", info.capabilities)

    def test_what_a_rule_allows_arrives_and_is_answered(self):
        for v in (4, 6):
            address = ALLOWED[v]
            with self.subTest(version=v):
                self.attempt(f"udp_echo({address!r}, {ECHO})", "echo", {("udp", address, ECHO)})
                self.attempt(f"ping_echo({address!r})", "echo", {(ICMP[v], address, 0)})
                self.attempt(f"udp_echo({address!r}, {ECHO}, size=3000, segment=1000)", "echo", {("udp", address, ECHO)})
                self.attempt(f"udp_echo({address!r}, {ECHO}, size=1400)", "echo", {("udp", address, ECHO)})

    def test_what_its_device_carries_is_counted(self):
        """From the head of IP on, of both ways, and of one packet that the kernel parts as of what it is parted into."""
        sandbox = create(*rules())
        sent = received = 0
        for v, head in ((4, 28), (6, 48)):
            scene.run(sandbox, f"assert udp_echo({ALLOWED[v]!r}, {ECHO}, size=1000) == 'echo'")
            scene.run(sandbox, f"assert udp_echo({ALLOWED[v]!r}, {ECHO}, size=2500, segment=1000) == 'echo'")
            scene.run(sandbox, f"assert ping_echo({ALLOWED[v]!r}) == 'echo'")
            scene.run(sandbox, f"assert udp_echo({BESIDE[v]!r}, {ECHO}, seconds=1) == 'EPERM'")
            scene.run(sandbox, f"assert tcp({ALLOWED[v]!r}, {TCP_ECHO}, bytes(10)) == 'echo'")
            sent += 1000 + head + 2500 + 3 * head + 3 + head + 10
            received += 1000 + head + 2500 + 3 * head + 3 + head + 10

        def usage():
            total = scenario.get(scene.client, sandbox).usage.total
            return total.sent_bytes, total.received_bytes
        # The last answers of those that were parted may still be on their way.
        wait_until(lambda: usage() == (sent, received), f"it is {sent} and {received} bytes")

    def test_tcp_goes_by_the_relay_and_names_by_the_resolver_as_ever(self):
        for v in (4, 6):
            self.attempt(f"tcp({ALLOWED[v]!r}, {TCP_ECHO})", "echo", {("tcp", ALLOWED[v], TCP_ECHO)})
            self.attempt(f"tcp({ALLOWED[v]!r}, {ECHO})", "EPERM", event={"type": "DENIED", "protocol": "TCP", "reason": "DEFAULT"})
        self.attempt("ask('allowed.test')", "REFUSED", event={"type": "DENIED", "reason": "RESOLVER"})

    def test_what_no_rule_allows_is_refused_at_once(self):
        for v in (4, 6):
            for address, port, reason in ((ALLOWED[v], 2021, "DEFAULT"), (BESIDE[v], ECHO, "DEFAULT"), (METADATA[v], 53, "ALWAYS_DENIED"),
                                          (FORGED[v], ECHO, "ALWAYS_DENIED")):
                with self.subTest(address=address, port=port):
                    self.attempt(f"udp_echo({address!r}, {port}, seconds=1)", "EPERM",
                                 event={"type": "DENIED", "protocol": "UDP", "address": address, "port": port, "reason": reason})

    def test_a_ping_that_no_rule_allows_is_dropped_and_told(self):
        for v in (4, 6):
            self.attempt(f"ping_echo({BESIDE[v]!r}, 0.2)", "timeout",
                         event={"type": "DENIED", "protocol": "ICMP", "address": BESIDE[v], "reason": "DEFAULT"})

    def test_the_host_itself_is_not_reached(self):
        scene.world.outside.run(f"""
import select
sockets = []
for address in {list(HOME.values())!r}:
    s = socket.socket(family_of(address), socket.SOCK_DGRAM)
    s.bind((address, {LISTENER}))
    sockets.append(s)""")
        for v in (4, 6):
            self.attempt(f"udp_echo({HOME[v]!r}, {LISTENER}, seconds=0.2)", "timeout",
                         event={"type": "DENIED", "protocol": "UDP", "address": HOME[v], "port": LISTENER, "reason": "ALWAYS_DENIED"})
            self.attempt(f"ping_echo({HOME[v]!r}, 0.2)", "timeout",
                         event={"type": "DENIED", "protocol": "ICMP", "address": HOME[v], "reason": "ALWAYS_DENIED"})
        self.assertEqual(scene.world.outside.run("result = len(select.select(sockets, [], [], 0)[0])"), 0)

    def test_another_sandbox_is_not_reached(self):
        for v in (4, 6):
            address = scene.inside(self.other, f"own_address({ALLOWED[v]!r})")
            self.attempt(f"udp_echo({address!r}, {ECHO}, seconds=0.2)", "EPERM",
                         event={"type": "DENIED", "address": address, "reason": "ALWAYS_DENIED"})

    def test_another_sender_is_not_believed(self):
        for v in (4, 6):
            other = scene.inside(self.other, f"own_address({ALLOWED[v]!r})")
            for source in (FORGED[v], other, HOME[v]):
                with self.subTest(source=source):
                    # Of IPv4 the kernel finds no way for it, of IPv6 it sends it.
                    told = {"type": "DENIED", "protocol": "UDP", "address": ALLOWED[v], "reason": "UNAVAILABLE"}
                    self.attempt(f"udp_echo({ALLOWED[v]!r}, {ECHO}, {source!r}, seconds=0.2)", "timeout" if v == 6 else "ENETUNREACH",
                                 event=told if v == 6 else None)

    def test_a_datagram_in_pieces_is_dropped(self):
        for v in (4, 6):
            self.attempt(f"udp_echo({ALLOWED[v]!r}, {ECHO}, size=4000, seconds=0.2)", "timeout",
                         event={"type": "DENIED", "address": ALLOWED[v], "reason": "PROTOCOL"})
        self.assertEqual(scene.world.odd_packets(), {})

    def test_a_packet_with_options_is_dropped(self):
        self.attempt(f"udp_send({ALLOWED[4]!r}, {ECHO}, options=[(0, 4, bytes([7, 7, 4, 0, 0, 0, 0, 0]))])", "done",
                     event={"type": "DENIED", "address": ALLOWED[4], "reason": "PROTOCOL"})
        self.assertEqual(scene.world.odd_packets(), {})

    def test_errors_of_the_way_are_told(self):
        for v in (4, 6):
            self.attempt(f"refusal_of({ALLOWED[v]!r}, {CLOSED})", "ECONNREFUSED", {("udp", ALLOWED[v], CLOSED)})

    def test_nobody_comes_in(self):
        sandbox = create(*(by("udp", allow(address, ECHO)) for address in ALLOWED.values()))
        scene.run(sandbox, f"""
servers = [socket.create_server((address, 8888), family=family_of(address)) for address in ("0.0.0.0", "::1")]
datagrams = []
for address in (own_address({ALLOWED[4]!r}), own_address({ALLOWED[6]!r})):
    s = socket.socket(family_of(address), socket.SOCK_DGRAM)
    s.bind((address, 8888))
    datagrams.append(s)""")
        for v in (4, 6):
            own = scene.inside(sandbox, f"own_address({ALLOWED[v]!r})")
            scene.world.outside.run("SECONDS = 0.3")
            self.assertEqual(scene.world.outside.run(f"result = tcp({own!r}, 8888)"), "timeout")
            self.assertEqual(scene.world.outside.run(f"result = udp_send({own!r}, 8888)"), "done")
        # What came before it would be there, too.
        self.attempt(f"udp_echo({ALLOWED[4]!r}, {ECHO})", "echo", {("udp", ALLOWED[4], ECHO)}, sandbox=sandbox)
        self.assertEqual(scene.inside(sandbox, "len(__import__('select').select(servers + datagrams, [], [], 0)[0])"), 0)

    def test_the_default_and_names_let_only_tcp_through(self):
        sandbox = create(deny(scenes.FENCE), default="ALLOW_PUBLIC")
        for v in (4, 6):
            self.attempt(f"udp_send({PUBLIC[v]!r}, 7)", "EPERM", event={"type": "DENIED", "protocol": "UDP", "reason": "DEFAULT"}, sandbox=sandbox)
            self.attempt(f"tcp({PUBLIC[v]!r}, 7)", "echo", {("tcp", PUBLIC[v], 7)}, sandbox=sandbox)
        with self.assertRaises(grpc.RpcError) as raised:
            scene.update(sandbox, by("udp", allow("example.org")))
        self.assertIn("egress.rules[0].protocol", raised.exception.details())

    def test_a_change_holds_from_the_next_packet_on(self):
        sandbox = create(*rules())
        scene.run(sandbox, f"""
sockets = {{}}
for v, address in {ALLOWED!r}.items():
    sockets[v] = opened(address, {ECHO}, socket.SOCK_DGRAM)
    sockets[v].connect((address, {ECHO}))

def once(v, seconds=SECONDS):
    def run():
        sockets[v].settimeout(seconds)
        sockets[v].send(MESSAGE)
        return "echo" if sockets[v].recv(1000) == MESSAGE else "?"
    return attempt(run)""")
        for v in (4, 6):
            self.attempt(f"once({v})", "echo", {("udp", ALLOWED[v], ECHO)}, sandbox=sandbox)
        scene.update(sandbox, allow(ALLOWED[4], TCP_ECHO))
        for v in (4, 6):
            # Connected already: nothing but the device's programs sees it.
            self.attempt(f"once({v}, 0.2)", "timeout", event={"type": "DENIED", "protocol": "UDP", "address": ALLOWED[v], "reason": "DEFAULT"},
                         sandbox=sandbox)
            self.attempt(f"ping_echo({ALLOWED[v]!r}, 0.2)", "timeout", event={"type": "DENIED", "protocol": "ICMP"}, sandbox=sandbox)
        scene.update(sandbox, *(by("udp", allow(address)) for address in ALLOWED.values()))
        for v in (4, 6):
            self.attempt(f"once({v})", "echo", {("udp", ALLOWED[v], ECHO)}, sandbox=sandbox)

    def test_a_device_ends_with_its_sandbox(self):
        before = devices()
        sandbox = create(*rules())
        own = scene.inside(sandbox, f"own_address({ALLOWED[4]!r})")
        scenario.delete(scene.client, sandbox)
        wait_until(lambda: own not in scene.world.home.run("ip", "route"), "the route of a sandbox that has ended is gone")
        wait_until(lambda: len(devices()) <= len(before) + 1, "its device, too")

    def test_only_ping_and_udp_sockets_beside_tcp(self):
        for kind, protocol, result in ((2, 1, "done"), (3, 1, "EPERM"), (3, 17, "EPERM"), (2, 136, "EPROTONOSUPPORT")):
            self.assertEqual(scene.inside(self.sandbox, f"make(socket.AF_INET, {kind}, {protocol})"), result)
        self.assertEqual(scene.inside(self.sandbox, "make(17, 3, 0)"), "EPERM")


class Restarts(unittest.TestCase):
    """After Direct."""

    def test_a_killed_hotcell_egress_lets_nothing_more_through(self):
        sandbox = create(by("udp", allow(ALLOWED[4], ECHO)))
        self.assertEqual(scene.inside(sandbox, f"udp_echo({ALLOWED[4]!r}, {ECHO})"), "echo")
        pid = scene.running.egress_pid()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: scene.running.egress_pid() not in (None, pid), "there is another one")
        wait_until(lambda: scene.inside(sandbox, f"udp_echo({ALLOWED[4]!r}, {ECHO}, seconds=1)") == "echo", "the policy is in force again")
        self.assertEqual(scene.inside(sandbox, f"udp_send({BESIDE[4]!r}, {ECHO})"), "EPERM")
        scenario.delete(scene.client, sandbox)

    def test_nothing_is_left_of_a_killed_runtime_nor_at_the_end(self):
        create(*rules())
        before = devices()
        with contextlib.ExitStack() as stack:
            # Networks live on while somebody holds them, and their devices with them.
            for pid in scene.running.processes():
                network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
                stack.callback(os.close, network)
            scene.running.kill()
            scene.running.start()
            self.assertIn("removed devices that were left", scene.running.log())
            self.assertEqual(before.keys() & devices().keys(), set())
            sandbox = create(*rules())
            self.assertEqual(scene.inside(sandbox, f"udp_echo({ALLOWED[4]!r}, {ECHO})"), "echo")
            self.assertTrue(devices())
        scene.running.stop()
        wait_until(lambda: not devices(), "no device is left")
        for flag in ("-4", "-6"):
            routes = scene.world.home.run("ip", flag, "route")
            self.assertFalse("198.51.100." in routes or "2001:db8:7:" in routes, routes)


if __name__ == "__main__":
    unittest.main()
