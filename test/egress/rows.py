"""The rows of the table: what programs try, what becomes of it, and which wall it is that refuses. See test_table.py."""

import dataclasses
import socket

import world as worlds
from scene import allow, deny

ALLOWED = {4: "93.184.216.34", 6: "2606:2800:220:1::34"}
BESIDE = {4: "93.184.216.35", 6: "2606:2800:220:1::35"}  # no rule is about it
NAMED = {4: "93.184.216.40", 6: "2606:2800:220:1::40"}   # allowed.test
WILD = {4: "93.184.216.41", 6: "2606:2800:220:1::41"}    # *.wild.test
EVIL = {4: "93.184.216.66", 6: "2606:2800:220:1::66"}    # evil.test
HALF = {4: "93.184.216.43", 6: "2606:2800:220:1::43"}    # half.test
TYPED = "93.184.216.44"                                  # typed.test
HOME = {4: worlds.HOME4, 6: worlds.HOME6}
HOLE, UNREACHABLE = dict(zip((4, 6), worlds.HOLES)), dict(zip((4, 6), worlds.UNREACHABLE))
LOCAL = {4: "127.0.0.1", 6: "::1"}
LISTENER = 7777  # of the host itself, in the daemons' network

PRIVATE4 = ("10.1.2.3", "172.16.9.9", "192.168.7.7", "100.64.1.1", "192.0.2.7", "198.18.0.1")
METADATA4 = ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192")
PRIVATE6 = ("fd00::7", "fec0::7", "2001:db8::7")
METADATA6 = ("fd00:ec2::254", "fd20:ce::254")
EMBEDDED = {"NAT64": "64:ff9b::a01:203", "NAT64 of one's own": "64:ff9b:1::a01:203", "6to4": "2002:a01:203::1", "Teredo": "2001:0:a01:203::1",
            "NAT64 of metadata": "64:ff9b::a9fe:a9fe"}

# Rules that allow what no rule can allow, so that it is the list that refuses.
HOPEFUL = [allow(where) for where in (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/16", "198.18.0.0/15",
    "192.168.0.0/16", "224.0.0.0/3", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2001:db8::/32", "2002::/16", "fc00::/7", "fe80::/9",
    "ff00::/8", worlds.HOME4, worlds.HOME6, worlds.HOME_BROADCAST)]

POLICIES = {
    "nothing": (),
    "rules": [
        *(rule for version in (4, 6) for rule in (
            allow(ALLOWED[version], 7, 19, (80, 81), 443, (1001, 1004), (2000, 2009)), deny(ALLOWED[version], 2005),
            allow(HOLE[version]), allow(UNREACHABLE[version]))),
        allow("5.5.0.0/16"), deny("5.5.5.5"), deny("6.6.0.0/16"), allow("6.6.6.6"),
        allow("2a00:5::/32"), deny("2a00:5:5::5"), deny("2a00:6::/32"), allow("2a00:6:6::6"),
        *HOPEFUL],
    "names": [allow("allowed.test", 7, 80, 443), allow("*.wild.test", 7, 80, 443), deny("bad.wild.test"), allow("*.rebind.test"),
              allow("silent.test"), allow("garbage.test"), allow("gone.test")],
    "types": [allow("typed.test"), allow("untyped.test"), allow("inward.typed.test")],
    "public": [deny(BESIDE[4]), deny(BESIDE[6]), deny("evil.test"), deny("half.test", 7)],
}

# Of DNS records, which a policy lets be asked for.
RECORD_TYPES = {"types": ("TXT", "NULL", "ANY")}

ZONES = {name: {"ttl": 300, **record} for name, record in {
    "allowed.test": {"A": [NAMED[4]], "AAAA": [NAMED[6]], "TXT": ["text"]},
    "*.wild.test": {"A": [WILD[4]], "AAAA": [WILD[6]], "TXT": ["text"]},
    "chain.wild.test": {"CNAME": "one.elsewhere.test"}, "one.elsewhere.test": {"CNAME": "two.elsewhere.test"},
    "two.elsewhere.test": {"A": ["93.184.216.42"], "AAAA": ["2606:2800:220:1::42"]},
    "inward.wild.test": {"CNAME": "inside.elsewhere.test"}, "inside.elsewhere.test": {"A": ["10.1.2.3"], "AAAA": ["fd00::7"]},
    "evil.test": {"A": [EVIL[4]], "AAAA": [EVIL[6]]}, "*.evil.test": {"A": [EVIL[4]], "AAAA": [EVIL[6]]},
    "half.test": {"A": [HALF[4]], "AAAA": [HALF[6]]},
    "typed.test": {"A": [TYPED], "TXT": ["text"], "NULL": ["null"]}, "untyped.test": {"A": [TYPED]},
    "inward.typed.test": {"A": ["10.1.2.3"]},
    "loopback.rebind.test": {"A": ["127.0.0.1"], "AAAA": ["::1"]},
    "metadata.rebind.test": {"A": ["169.254.169.254"], "AAAA": ["fd00:ec2::254"]},
    "private.rebind.test": {"A": ["10.1.2.3"], "AAAA": ["fd00::7"]},
    "resolver.rebind.test": {"A": ["127.0.0.53"], "AAAA": ["::ffff:127.0.0.53"]},
    "relay.rebind.test": {"A": ["127.64.0.1"], "AAAA": ["fd68:6365:6c6c::1"]},
    "host.rebind.test": {"A": [HOME[4]], "AAAA": [HOME[6]]},
    "mixed.rebind.test": {"A": ["10.1.2.3", WILD[4]], "AAAA": ["fd00::7", WILD[6]]},
    "turns.rebind.test": {"A": [WILD[4], "127.0.0.1"], "AAAA": [WILD[6], "::1"], "ttl": 0, "mode": "turns"},
    "silent.test": {"mode": "silent"}, "garbage.test": {"mode": "garbage"},
}.items()}

# Of the host's own addresses, in the daemons' network: they listen, and count who came.
LISTEN_HOME = f"""
listeners = []
for address in {list(HOME.values())!r}:
    s = socket.create_server((address, {LISTENER}), family=family_of(address))
    s.setblocking(False)
    listeners.append(s)"""
COUNT_HOME = """
result = 0
for listener in listeners:
    try:
        listener.accept()
        result += 1
    except BlockingIOError:
        pass"""

BAD_KIND = 15  # of a socket: there is none, which the kernel says first

# The walls, by what shows which it was; see wall_of() in test_table.py.
SECCOMP, CAPABILITY, KERNEL, PING, BPF, RELAY, RESOLVER, ROUTE, TAKEN, OWN, NONE = (
    "seccomp", "capability", "absent from the kernel", "ping_group_range", "BPF", "relay", "resolver", "no route", "bind()", "network of its own", "-")


@dataclasses.dataclass
class Row:
    what: str
    code: str                   # an expression over inside.py
    expect: str | tuple         # its value, or all values that are good
    walls: tuple = (NONE,)      # any of these; the test finds which it was
    policy: str = "nothing"
    version: int = 0            # of IP; zero: it is about none
    seen: tuple = ()            # (protocol, address, port) that must arrive at a host; others must not
    aim: tuple = ()             # what arrives when the same is tried outside: else the row would prove nothing
    outside: str = ""           # the code to try outside, if another one
    probe: str = ""             # what the kernel would refuse with another error, before it looks at what this row is about
    event: dict | None = None   # an event of it; None: there is none
    names: tuple = ()           # that the name server must be asked for; others must not
    result: str = ""            # what became of it
    probed: str | None = None   # and of the probe
    nobody: str | None = None   # outside, by somebody without rights
    root: str | None = None
    probed_outside: str | None = None
    problems: list = dataclasses.field(default_factory=list)

    def needs_comparison(self):
        """With what happens outside; see wall_of()."""
        return bool(set(self.walls) & {SECCOMP, CAPABILITY, KERNEL})


def refused(what, code, aim, version, policy="nothing", event=None, **more):
    """By BPF, at once."""
    protocol, address, port = aim
    event = {"type": "DENIED", "address": address, "port": port, "reason": "DEFAULT" if protocol == "tcp" else "PROTOCOL", **(event or {})}
    return Row(what, code, "EPERM", (BPF,), policy, version, aim=(aim,), event=event, **more)


def rows_of_protocols(v):
    """What a sandbox without a policy may not do."""
    address, tcp, udp = ALLOWED[v], ("tcp", ALLOWED[v], 7), ("udp", ALLOWED[v], 7)
    yield refused("TCP connect", f"tcp({address!r}, 7)", tcp, v)
    yield refused("TCP fast open by sendto", f"fast_open({address!r}, 7)", tcp, v)
    yield refused("TCP fast open by connect", f"fast_open_connect({address!r}, 7)", tcp, v)
    yield refused("UDP, connected", f"udp_connect({address!r}, 7)", udp, v)
    yield refused("UDP, sendto", f"udp_send({address!r}, 7)", udp, v)
    yield refused("UDP, sendmsg", f"udp_message({address!r}, 7)", udp, v)
    yield refused("UDP, sendmmsg", f"udp_many({address!r}, 7)", udp, v)
    yield refused("UDP, sendto when connected within", f"udp_after_local({address!r}, 7)", udp, v,
                  outside=f"udp_send({address!r}, 7)")
    yield refused("UDP in fragments", f"udp_send({address!r}, 7, bytes(9000))", udp, v)
    yield refused("UDP in segments (GSO)", f"udp_send({address!r}, 7, bytes(3000), options=[(17, 103, 1000)])", udp, v)
    yield refused("DNS to another server", f"ask('allowed.test', server={'2620:fe::fe' if v == 6 else '9.9.9.9'!r})",
                  ("udp", {4: "9.9.9.9", 6: "2620:fe::fe"}[v], 53), v)
    yield refused("DNS over TCP to another server", f"ask('allowed.test', over='tcp', server={'2620:fe::fe' if v == 6 else '9.9.9.9'!r})",
                  ("tcp", {4: "9.9.9.9", 6: "2620:fe::fe"}[v], 53), v)
    yield refused("DNS over TLS (853)", f"tcp({address!r}, 853)", ("tcp", address, 853), v)
    for kind, name in ((socket.SOCK_STREAM, "TCP"), (socket.SOCK_DGRAM, "UDP")):
        yield refused(f"{name} socket passed over a unix socket", f"passed_over({address!r}, 7, {int(kind)})", (name.lower(), address, 7), v)
    ping_protocol = "icmpv6" if v == 6 else "icmp"
    yield Row("ping socket", f"ping({address!r})", ("EACCES", "EPERM"), (PING, BPF), version=v, aim=((ping_protocol, address, 0),))
    family = f"socket.AF_INET{'6' if v == 6 else ''}"
    yield Row("raw socket", f"raw({address!r})", "EPERM", (SECCOMP,), version=v, aim=((ping_protocol, address, 0),), probe=f"make({family}, 3, 999)")
    yield Row("AF_PACKET", f"packet({address!r})", "EPERM", (SECCOMP,), version=v, aim=(("udp", address, 7),), probe=f"make(17, {BAD_KIND}, 0)")
    for name, kind, protocol in (("MPTCP", 1, 262), ("SCTP", 1, 132), ("SCTP, one to many", 5, 132), ("UDP-Lite", 2, 136), ("DCCP", 6, 33)):
        yield Row(name, f"make({family}, {kind}, {protocol})", ("EPROTONOSUPPORT", "EPERM"), (SECCOMP,), version=v, probe=f"make({family}, {kind}, 999)")
    yield Row("binding to a host's address", f"bind_to({HOME[v]!r}, 99)", "EADDRNOTAVAIL", (TAKEN,), version=v)
    level, number = (0, 15) if v == 4 else (41, 78)
    yield Row("foreign source address (IP_FREEBIND), then UDP",
              f"udp_send({address!r}, 7, options=[({level}, {number}, 1)])", "EPERM", (BPF,), version=v, aim=(("udp", address, 7),),
              event={"type": "DENIED", "address": address, "port": 7, "reason": "PROTOCOL"})
    level, number = (0, 19) if v == 4 else (41, 75)
    yield Row("transparent socket", f"option({address!r}, {level}, {number}, 1)", "EPERM", (CAPABILITY,), version=v)


def rows_of_protocols_at_all():
    yield Row("io_uring", "by_uring('', 0)", "EPERM", (SECCOMP,))
    yield Row("mark on packets (SO_MARK)", "option('', 1, 36, 1)", "EPERM", (CAPABILITY,))
    for name, family in (("AF_NETLINK", 16), ("AF_VSOCK", 40), ("AF_ALG", 38), ("AF_XDP", 44), ("AF_KEY", 15), ("AF_SMC", 43), ("AF_TIPC", 30)):
        yield Row(name, f"make({family}, {3 if family in (16, 15, 44) else 5 if family == 38 else 1}, {2 if family == 15 else 0})",
                  ("EPERM", "EAFNOSUPPORT"), (SECCOMP,), probe=f"make({family}, {BAD_KIND}, 0)")


def rows_of_rules(v):
    address = ALLOWED[v]
    def allowed(what, code, port, expect="echo", **more):
        return Row(what, code, expect, policy="rules", version=v, seen=(("tcp", address, port),), **more)
    yield allowed("allowed: TCP connect", f"tcp({address!r}, 7)", 7,
                  event={"type": "FLOW_ENDED", "address": address, "port": 7, "sent_bytes": 13, "received_bytes": 13})
    yield allowed("allowed: TCP fast open", f"fast_open({address!r}, 7)", 7, event={"type": "FLOW_ENDED", "address": address, "port": 7})
    yield allowed("allowed: getpeername() says where", f"peer({address!r}, 7)", 7, f"{address} 7", event={"type": "FLOW_ENDED", "port": 7})
    yield allowed("allowed: first and last port of a range", f"tcp({address!r}, 2000) + tcp({address!r}, 2009)", 2000, "echoecho",
                  event={"type": "FLOW_ENDED", "port": 2009})
    yield allowed("allowed: the host speaks first", f"listen_to({address!r}, 1004)", 1004, "220 ready\n", event={"type": "FLOW_ENDED", "port": 1004})
    yield allowed("allowed: we close one half", f"half_closed_by_us({address!r}, 1002)", 1002, "100000",
                  event={"type": "FLOW_ENDED", "port": 1002, "sent_bytes": 100000, "received_bytes": 6})
    yield allowed("allowed: the host closes one half", f"half_closed_by_them({address!r}, 1001)", 1001, "bye\n",
                  event={"type": "FLOW_ENDED", "port": 1001, "sent_bytes": 10000, "received_bytes": 4})
    yield allowed("allowed: the host resets", f"tcp({address!r}, 1003)", 1003, "then ECONNRESET", event={"type": "FLOW_ENDED", "port": 1003})
    yield allowed("allowed: the host refuses", f"tcp({address!r}, 81)", 81, "then ECONNRESET",
                  event={"type": "FAILED", "address": address, "port": 81, "error": "ECONNREFUSED"})
    yield Row("allowed: no way to the host", f"tcp({UNREACHABLE[v]!r}, 7)", "then ECONNRESET", policy="rules", version=v,
              seen=(("tcp", UNREACHABLE[v], 7),), event={"type": "FAILED", "address": UNREACHABLE[v], "error": {4: "EHOSTUNREACH", 6: "ENETUNREACH"}[v]})
    yield Row("allowed: a black hole", f"tcp({HOLE[v]!r}, 7)", "then ECONNRESET", policy="rules", version=v, seen=(("tcp", HOLE[v], 7),),
              event={"type": "FAILED", "address": HOLE[v], "error": "ETIMEDOUT"})
    inner = {4: "5.5.5.5", 6: "2a00:5:5::5"}[v]
    around = {4: "5.5.5.6", 6: "2a00:5:5::6"}[v]
    yield Row("allowed prefix", f"tcp({around!r}, 7)", "echo", policy="rules", version=v, seen=(("tcp", around, 7),),
              event={"type": "FLOW_ENDED", "address": around})
    yield refused("denied host in an allowed prefix", f"tcp({inner!r}, 7)", ("tcp", inner, 7), v, "rules", {"reason": "RULE"})
    inner = {4: "6.6.6.6", 6: "2a00:6:6::6"}[v]
    yield refused("allowed host in a denied prefix", f"tcp({inner!r}, 7)", ("tcp", inner, 7), v, "rules", {"reason": "RULE"})
    yield refused("denied port in an allowed range", f"tcp({address!r}, 2005)", ("tcp", address, 2005), v, "rules", {"reason": "RULE"})
    for port in (1999, 2010):
        yield refused(f"port beside a range ({port})", f"tcp({address!r}, {port})", ("tcp", address, port), v, "rules")
    yield refused("address beside the allowed one", f"tcp({BESIDE[v]!r}, 7)", ("tcp", BESIDE[v], 7), v, "rules")
    yield refused("UDP to the allowed address and port", f"udp_send({address!r}, 7)", ("udp", address, 7), v, "rules")
    yield refused("TCP fast open to a denied one", f"fast_open({BESIDE[v]!r}, 7)", ("tcp", BESIDE[v], 7), v, "rules")


def rows_of_forms():
    for address, expect in ((f"::ffff:{ALLOWED[4]}", "echo"),):
        yield Row("allowed: v4-mapped", f"tcp({address!r}, 7)", expect, policy="rules", version=6, seen=(("tcp", ALLOWED[4], 7),),
                  event={"type": "FLOW_ENDED", "address": ALLOWED[4]})
    yield refused("v4-mapped, TCP", f"tcp('::ffff:{BESIDE[4]}', 7)", ("tcp", BESIDE[4], 7), 6, "rules")
    yield refused("v4-mapped, UDP", f"udp_send('::ffff:{BESIDE[4]}', 7)", ("udp", BESIDE[4], 7), 6, "rules")
    yield refused("v4-mapped, UDP connected", f"udp_connect('::ffff:{BESIDE[4]}', 7)", ("udp", BESIDE[4], 7), 6, "rules")
    yield refused("v4-mapped metadata", "tcp('::ffff:169.254.169.254', 80)", ("tcp", "169.254.169.254", 80), 6, "rules", {"reason": "ALWAYS_DENIED"})
    for name, address in EMBEDDED.items():
        yield refused(name, f"tcp({address!r}, 7)", ("tcp", address, 7), 6, "rules", {"reason": "ALWAYS_DENIED"})
    for kind, version, addresses in (("private", 4, PRIVATE4), ("metadata", 4, METADATA4), ("private", 6, PRIVATE6), ("metadata", 6, METADATA6)):
        for address in addresses:
            yield refused(f"{kind} {address}", f"tcp({address!r}, 80)", ("tcp", address, 80), version, "rules", {"reason": "ALWAYS_DENIED"})
    for version, address in ((4, "239.1.2.3"), (4, "224.0.0.251"), (6, "ff0e::1")):
        yield refused(f"multicast {address}, UDP", f"udp_send({address!r}, 7)", ("udp", address, 7), version, "rules")
        yield Row(f"multicast {address}, TCP", f"tcp({address!r}, 7)", "EPERM", (BPF,), "rules", version,
                  event={"type": "DENIED", "address": address, "reason": "ALWAYS_DENIED"})
    for address in ("255.255.255.255", worlds.HOME_BROADCAST):
        yield refused(f"broadcast {address}, UDP", f"udp_send({address!r}, 7)", ("udp", address, 7), 4, "rules")
    yield Row("broadcast 255.255.255.255, TCP", "tcp('255.255.255.255', 7)", "EPERM", (BPF,), "rules", 4,
              event={"type": "DENIED", "address": "255.255.255.255", "reason": "ALWAYS_DENIED"})
    yield Row("broadcast of the host's network, TCP", f"tcp({worlds.HOME_BROADCAST!r}, 7)", "then ECONNRESET", (RELAY,), "rules", 4,
              event={"type": "DENIED", "address": worlds.HOME_BROADCAST, "reason": "ALWAYS_DENIED"})
    yield Row("reserved 240.0.0.1", "tcp('240.0.0.1', 7)", "EPERM", (BPF,), "rules", 4,
              event={"type": "DENIED", "address": "240.0.0.1", "reason": "ALWAYS_DENIED"})
    yield Row("link-local fe80::1", "tcp('fe80::1', 7)", ("EPERM", "EINVAL"), (BPF, KERNEL), "rules", 6,
              event={"type": "DENIED", "address": "fe80::1", "reason": "ALWAYS_DENIED"})
    # The options are set; what they would change is the way, and there is only one.
    hop = BESIDE[4]
    yield Row("IP option: source route by another host", f"with_option({ALLOWED[4]!r}, 7, 0, 4, source_route({hop!r}))", ("ENETUNREACH", "EPERM"),
              (ROUTE, CAPABILITY), "rules", 4, aim=(("tcp", hop, 7),))
    yield Row("IP option: record route", f"with_option({ALLOWED[4]!r}, 7, 0, 4, bytes([7, 7, 4, 0, 0, 0, 0, 0]))", "echo", (NONE,), "rules", 4,
              seen=(("tcp", ALLOWED[4], 7),), event={"type": "FLOW_ENDED", "port": 7})
    yield Row("IPv6 option: segment route by another host", f"with_option({ALLOWED[6]!r}, 7, 41, 57, segment_route({BESIDE[6]!r}))",
              ("ENETUNREACH", "EPERM", "EINVAL"), (ROUTE, CAPABILITY, KERNEL), "rules", 6)
    yield Row("IPv6 option: hop by hop", f"with_option({ALLOWED[6]!r}, 7, 41, 54, bytes([0, 0, 1, 4, 0, 0, 0, 0]))", "EPERM",
              (CAPABILITY,), "rules", 6)


def rows_of_the_host(v):
    yield Row("the host's own address, by a rule", f"tcp({HOME[v]!r}, {LISTENER})", "then ECONNRESET", (RELAY,), "rules", v,
              event={"type": "DENIED", "address": HOME[v], "port": LISTENER, "reason": "ALWAYS_DENIED"})
    yield Row("the host's own address, by ALLOW_PUBLIC", f"tcp({HOME[v]!r}, {LISTENER})", "then ECONNRESET", (RELAY,), "public", v,
              event={"type": "DENIED", "address": HOME[v], "port": LISTENER, "reason": "ALWAYS_DENIED"})
    yield Row("within the sandbox: its own server", f"within(socket.AF_INET{'6' if v == 6 else ''}, {LOCAL[v]!r})", "echo", policy="nothing", version=v)
    yield Row("a host's service by loopback", f"tcp({LOCAL[v]!r}, {LISTENER})", "ECONNREFUSED", (OWN,), "rules", v)
    yield Row("the relay's listener, dialled directly", f"tcp({LOCAL[v]!r}, relay_port())", "then ECONNRESET", (RELAY,), "rules", v,
              event={"type": "DENIED", "reason": "UNAVAILABLE", "address": ""})
    token = {4: "127.64.0.1", 6: "fd68:6365:6c6c::1"}[v]
    yield Row("a forged token", f"tcp({token!r}, relay_port())", "EPERM", (BPF,), "rules", v,
              event={"type": "DENIED", "reason": "ALWAYS_DENIED", "address": token})
    yield Row("a forged token, UDP", f"udp_send({token!r}, 7)", "EPERM", (BPF,), "rules", v, event={"type": "DENIED", "address": token})
    yield Row("the relay's port, bound by the program", f"bind_to({'::' if v == 6 else '0.0.0.0'!r}, relay_port())", "EADDRINUSE", (TAKEN,), "rules", v)
    yield Row("the relay's port at a token's address, bound", f"bind_to({token!r}, relay_port())", ("EADDRINUSE", "EADDRNOTAVAIL"), (TAKEN,), "rules", v)


def rows_of_other_tokens():
    yield Row("a forged token, v4-mapped", "tcp('::ffff:127.64.0.1', relay_port())", "EPERM", (BPF,), "rules", 6,
              event={"type": "DENIED", "reason": "ALWAYS_DENIED", "address": "127.64.0.1"})
    for v, token in ((4, "127.64.0.1"), (6, "::ffff:127.64.0.1")):
        yield Row("a forged token by bind()", f"by_bind({token!r}, relay_port())", "EPERM", (BPF,), "rules", v,
                  event={"type": "DENIED", "reason": "ALWAYS_DENIED", "address": "0.0.0.0"})
    yield Row("a forged token by a source route", "with_option('127.0.0.1', relay_port(), 0, 4, source_route('127.64.0.1'))",
              ("timeout", "EPERM"), ("no answer", CAPABILITY), "rules", 4)
    yield Row("the resolver's port, bound by the program", "bind_to(nameserver(), 53)", "EADDRINUSE", (TAKEN,), "rules", 4)


def rows_of_names(v):
    kind, named = {4: "A", 6: "AAAA"}[v], NAMED[v]
    # Each asks for the name first, so that it does not matter which rows ran before.
    asked = f"address_of('allowed.test', {v})"
    def at_name(what, code, port, expect="HTTP/1.1 200 OK", **more):
        return Row(what, code, expect, policy="names", version=v, seen=(("tcp", named, port),), names=("allowed.test",), **more)
    yield at_name("allowed: a name, connected to", f"named('allowed.test', 7, {v})", 7, "echo",
                  event={"type": "FLOW_ENDED", "address": named, "name": "allowed.test"})
    yield refused("its address at another port", f"tcp({asked}, 8080)", ("tcp", named, 8080), v, "names", {"name": "allowed.test"},
                  outside=f"tcp({named!r}, 8080)", names=("allowed.test",))
    yield at_name("allowed: HTTP to the name", f"http_to({asked}, 'allowed.test')", 80, event={"type": "FLOW_ENDED", "port": 80, "name": "allowed.test"})
    yield at_name("allowed: HTTP in pieces", f"http_to({asked}, 'allowed.test', pieces=3)", 80, event={"type": "FLOW_ENDED", "port": 80})
    yield at_name("allowed: TLS to the name", f"tls_to({asked}, 'allowed.test', again=2)", 443,
                  event={"type": "FLOW_ENDED", "port": 443, "name": "allowed.test"})
    mismatched = ["HTTP with another Host", "TLS with another name (SNI)", "TLS with the name of another rule"]
    if v == 4:
        mismatched.append("HTTP with an address as Host")  # of IPv6 it is written without brackets, and so no host at all
    for what, function, arguments, port in (
            ("HTTP with another Host", "http_to", "'evil.test'", 80),
            ("HTTP with an address as Host", "http_to", f"{named!r}", 80),
            ("HTTP without a Host", "tcp", "80, b'GET / HTTP/1.0\\r\\n\\r\\n'", 80),
            ("HTTP CONNECT", "tcp", "80, b'CONNECT evil.test:443 HTTP/1.1\\r\\nHost: allowed.test\\r\\n\\r\\n'", 80),
            ("HTTP with two Hosts", "tcp", "80, b'GET / HTTP/1.1\\r\\nHost: allowed.test\\r\\nHost: evil.test\\r\\n\\r\\n'", 80),
            ("no HTTP at port 80", "tcp", "80, b'\\0' * 100", 80),
            ("TLS with another name (SNI)", "tls_to", "'evil.test'", 443),
            ("TLS with the name of another rule", "tls_to", "'bad.wild.test'", 443),
            ("TLS without a name", "tls_to", "None", 443),
            ("no TLS at port 443", "tcp", "443, b'SSH-2.0-x\\r\\n' * 9", 443)):
        reason = "NAME_MISMATCH" if what in mismatched else "NAME_ABSENT"
        yield Row(what, f"{function}({asked}, {arguments})", "then ECONNRESET", (RELAY,), "names", v, aim=(("tcp", named, port),),
                  outside=f"{function}({named!r}, {arguments})", names=("allowed.test",), event={"type": "DENIED", "address": named, "port": port, "reason": reason})
    yield refused("address of an allowed name that was not asked for", f"tcp({WILD[v]!r}, 7)", ("tcp", WILD[v], 7), v, "names")
    yield Row("allowed: a random label under an allowed name", f"named('a8fk2.wild.test', 7, {v})", "echo", policy="names", version=v,
              seen=(("tcp", WILD[v], 7),), names=("a8fk2.wild.test",), event={"type": "FLOW_ENDED", "name": "a8fk2.wild.test"})
    yield Row("allowed: by a chain of CNAMEs", f"named('chain.wild.test', 7, {v})", "echo", policy="names", version=v,
              seen=(("tcp", {4: "93.184.216.42", 6: "2606:2800:220:1::42"}[v], 7),), names=("chain.wild.test",),
              event={"type": "FLOW_ENDED", "name": "chain.wild.test"})
    yield Row("allowed: in other letters", f"ask('AlLoWeD.TeSt', {kind!r})", f"NOERROR {named}", policy="names", version=v, names=("allowed.test",))
    yield Row("allowed: over TCP", f"ask('allowed.test', {kind!r}, 'tcp')", f"NOERROR {named}", policy="names", version=v, names=("allowed.test",))
    refusals = [("a name that no rule allows", "evil.test", "udp"), ("the same over TCP", "evil.test", "tcp"),
                ("a random label under a forbidden name", "k3jf9s.evil.test", "udp"), ("a name that a rule denies", "bad.wild.test", "udp"),
                ("the name of a wildcard itself", "wild.test", "udp")]
    for what, name, over in refusals:
        yield Row(what, f"ask({name!r}, {kind!r}, {over!r})", "REFUSED", (RESOLVER,), "names", v, aim=(("dns", name),),
                  outside=f"ask({name!r}, {kind!r}, {over!r}, server='9.9.9.9')",
                  event={"type": "DENIED", "name": name, "reason": "RULE" if name.startswith("bad") else "RESOLVER"})
    for what, name in (("loopback", "loopback"), ("metadata", "metadata"), ("a private address", "private"), ("the resolver's own address", "resolver"),
                       ("the relay's own address", "relay")):
        yield Row(f"rebinding to {what}", f"ask('{name}.rebind.test', {kind!r})", "REFUSED", (RESOLVER,), "names", v, names=(f"{name}.rebind.test",),
                  event={"type": "DENIED", "name": f"{name}.rebind.test", "reason": "ALWAYS_DENIED"})
    yield Row("a CNAME to a private address", f"ask('inward.wild.test', {kind!r})", "REFUSED", (RESOLVER,), "names", v, names=("inward.wild.test",),
              event={"type": "DENIED", "name": "inward.wild.test", "reason": "ALWAYS_DENIED"})
    yield Row("allowed: of mixed addresses the public one", f"ask('mixed.rebind.test', {kind!r})", f"NOERROR {WILD[v]}", policy="names", version=v,
              names=("mixed.rebind.test",))
    yield Row("rebinding to the host's own address", f"tcp(address_of('host.rebind.test', {v}), {LISTENER})", ("then ECONNRESET", "EPERM"),
              (RELAY, RESOLVER), "names", v, names=("host.rebind.test",), event={"type": "DENIED", "reason": "ALWAYS_DENIED"})
    yield Row("rebinding at the second question", f"[ask('turns.rebind.test', {kind!r}) for _ in range(2)][1]", "REFUSED", (RESOLVER,), "names", v,
              names=("turns.rebind.test",), event={"type": "DENIED", "reason": "ALWAYS_DENIED"})


def rows_of_another_sandbox():
    """Sockets that another one made are out of reach: there is no place where to be handed one. It listens; see test_table.py."""
    yield Row("a socket made by another sandbox, over a unix socket", "attempt(lambda: socket.socket(socket.AF_UNIX).connect('\\0meeting'))",
              "ECONNREFUSED", (OWN,), "nothing")
    yield Row("another sandbox's server", f"tcp('127.0.0.1', {LISTENER})", "ECONNREFUSED", (OWN,), "nothing", 4)


def rows_of_names_at_all():
    for kind in ("TXT", "NULL", "ANY", "MX"):
        yield Row(f"{kind} of an allowed name", f"ask('allowed.test', {kind!r})", "REFUSED", (RESOLVER,), "names",
                  aim=(("dns", "allowed.test"),), outside=f"ask('allowed.test', {kind!r}, server='9.9.9.9')",
                  event={"type": "DENIED", "name": f"allowed.test {kind}", "reason": "RECORD_TYPE"})
    for kind, found in (("TXT", "text"), ("NULL", "null"), ("ANY", TYPED)):
        for over in ("udp", "tcp"):
            yield Row(f"allowed: {kind} where the policy lets it be asked for, over {over.upper()}", f"ask('typed.test', {kind!r}, {over!r})",
                      f"NOERROR {found}", policy="types", names=("typed.test",))
        yield Row(f"{kind} of a forbidden name, where the policy lets it be asked for", f"ask('evil.test', {kind!r})", "REFUSED", (RESOLVER,), "types",
                  aim=(("dns", "evil.test"),), outside=f"ask('evil.test', {kind!r}, server='9.9.9.9')",
                  event={"type": "DENIED", "name": "evil.test", "reason": "RESOLVER"})
    yield Row("a type that the policy does not let be asked for, among others", "ask('untyped.test', 'MX')", "REFUSED", (RESOLVER,), "types",
              aim=(("dns", "untyped.test"),), outside="ask('untyped.test', 'MX', server='9.9.9.9')",
              event={"type": "DENIED", "name": "untyped.test MX", "reason": "RECORD_TYPE"})
    yield Row("allowed: an address out of the answer to ANY", f"[ask('typed.test', 'ANY'), tcp({TYPED!r}, 7)][1]", "echo", policy="types", version=4,
              seen=(("tcp", TYPED, 7),), names=("typed.test",), event={"type": "FLOW_ENDED", "address": TYPED})
    yield Row("rebinding by ANY", "ask('inward.typed.test', 'ANY')", "REFUSED", (RESOLVER,), "types", names=("inward.typed.test",),
              event={"type": "DENIED", "name": "inward.typed.test", "reason": "ALWAYS_DENIED"})
    yield Row("allowed: as programs look names up", "lookup('allowed.test')", f"{NAMED[6]} {NAMED[4]}", policy="names", names=("allowed.test",))
    yield Row("forbidden: as programs look names up", "lookup('evil.test')", ("EAI_AGAIN", "EAI_NONAME", "EAI_FAIL"), (RESOLVER,), "names",
              event={"type": "DENIED", "name": "evil.test"})
    yield Row("allowed: a name that there is not", "ask('gone.test')", "NXDOMAIN", policy="names", names=("gone.test",))
    for name in ("silent", "garbage"):
        yield Row(f"allowed: a name server that is {name}", f"ask('{name}.test')", "SERVFAIL", policy="names", names=(f"{name}.test",),
                  event={"type": "FAILED", "name": f"{name}.test"})
    yield Row("allowed: two questions in one segment", "ask_at_once('allowed.test', 'b9xk3.wild.test')", f"NOERROR {NAMED[4]}, NOERROR {WILD[4]}",
              policy="names", names=("allowed.test", "b9xk3.wild.test"))
    yield Row("allowed: an HTTP fetch by name", "fetch('http://allowed.test/')", "200", policy="names", seen=(("tcp", NAMED[6], 80),),
              names=("allowed.test",), event={"type": "FLOW_ENDED", "port": 80})
    yield Row("redirect to a forbidden name", "fetch('http://allowed.test/redirect?http://evil.test/')", "no such name", (RESOLVER,), "names",
              seen=(("tcp", NAMED[6], 80),), names=("allowed.test",), event={"type": "DENIED", "name": "evil.test"})
    yield Row("redirect to metadata", "fetch('http://allowed.test/redirect?http://169.254.169.254/')", "EPERM", (BPF,), "names",
              seen=(("tcp", NAMED[6], 80),), names=("allowed.test",),
              event={"type": "DENIED", "address": "169.254.169.254", "reason": "ALWAYS_DENIED"})
    yield Row("redirect to a forbidden address", f"fetch('http://allowed.test/redirect?http://{EVIL[4]}/')", "EPERM", (BPF,), "names",
              seen=(("tcp", NAMED[6], 80),), names=("allowed.test",), event={"type": "DENIED", "address": EVIL[4], "reason": "DEFAULT"})


def rows_of_public(v):
    yield Row("allowed: any public address", f"tcp({ALLOWED[v]!r}, 7)", "echo", policy="public", version=v, seen=(("tcp", ALLOWED[v], 7),),
              event={"type": "FLOW_ENDED", "address": ALLOWED[v]})
    yield refused("denied by a rule", f"tcp({BESIDE[v]!r}, 7)", ("tcp", BESIDE[v], 7), v, "public", {"reason": "RULE"})
    for what, address in (("private", {4: "10.1.2.3", 6: "fd00::7"}[v]), ("metadata", {4: "169.254.169.254", 6: "fd00:ec2::254"}[v])):
        yield refused(f"{what} with ALLOW_PUBLIC", f"tcp({address!r}, 80)", ("tcp", address, 80), v, "public", {"reason": "ALWAYS_DENIED"})
    yield refused("UDP with ALLOW_PUBLIC", f"udp_send({ALLOWED[v]!r}, 7)", ("udp", ALLOWED[v], 7), v, "public")
    yield Row("allowed: any name", f"named('allowed.test', 7, {v})", "echo", policy="public", version=v, seen=(("tcp", NAMED[v], 7),),
              names=("allowed.test",), event={"type": "FLOW_ENDED", "address": NAMED[v]})
    yield Row("allowed: a name with a denied port, at another port", f"named('half.test', 2000, {v})", "echo", policy="public", version=v,
              seen=(("tcp", HALF[v], 2000),), names=("half.test",), event={"type": "FLOW_ENDED", "address": HALF[v], "name": "half.test"})
    yield Row("a port that a name's rule denies", f"named('half.test', 7, {v})", "then ECONNRESET", (RELAY,), "public", v,
              aim=(("tcp", HALF[v], 7),), outside=f"tcp({HALF[v]!r}, 7)", names=("half.test",),
              event={"type": "DENIED", "address": HALF[v], "port": 7, "reason": "RULE", "name": "half.test"})
    yield Row("a denied name with ALLOW_PUBLIC", f"ask('evil.test', {'AAAA' if v == 6 else 'A'!r})", "REFUSED", (RESOLVER,), "public", v,
              aim=(("dns", "evil.test"),), outside="ask('evil.test', server='9.9.9.9')", event={"type": "DENIED", "name": "evil.test", "reason": "RULE"})


def all_rows():
    rows = []
    for part in (rows_of_protocols, rows_of_rules, rows_of_the_host, rows_of_names, rows_of_public):
        for version in (4, 6):
            rows += part(version)
    for part in (rows_of_protocols_at_all, rows_of_forms, rows_of_other_tokens, rows_of_another_sandbox, rows_of_names_at_all):
        rows += part()
    return rows
