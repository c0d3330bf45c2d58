"""A world for the daemons: a network in which they run, and another with the test hosts, joined by a pair of devices.

    sandboxes ── daemons (HOME4, HOME6) ── world0 │ world1 ── hosts: every other address there is

In the hosts' network every address is local, so whatever leaves the daemons' network arrives: public, private, metadata, multicast. What came is
counted off the wire; see hosts.py. Nothing is in /run/netns: descriptors and processes of the test hold the networks, which end with them.
"""

import collections
import contextlib
import ipaddress
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import uuid

import daemons
import network

HOSTS_ADDRESSES = ("93.184.215.1/24", "2606:2800:21f::1/64")
HOME4, HOME6 = "93.184.215.14", "2606:2800:21f::14"
HOME_BROADCAST = "93.184.215.255"
NAMESERVERS = ("9.9.9.9", "2620:fe::fe")  # names.py
# Where packets go and nothing comes back, and where a router says that there is no way.
HOLES = ("44.0.0.1", "2a00:44::1")
UNREACHABLE = ("44.0.0.2", "2a00:44::2")
NAMES = ("allowed.test", "*.allowed.test", "wild.test", "*.wild.test", "*.names.test", "*.test")  # of the certificate


class Network(network.Network):
    """With settings, and commands that are some user's."""

    def command(self, *words, user=None, pdeathsig="KILL"):
        # Who becomes another user loses the signal: so it is asked for once more.
        become = [] if user is None else ["setpriv", "--pdeathsig", pdeathsig, f"--reuid={user}", f"--regid={user}", "--clear-groups",
                                          "--bounding-set=-all", "--inh-caps=-all"]
        return super().command(*become, *words, pdeathsig=pdeathsig)

    def set(self, name, value):
        self.run("sh", "-c", f"echo {value} >/proc/sys/net/{name}")


class Peer:
    """A process that takes lines of JSON and answers each with one."""

    def __init__(self, words):
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lock = threading.Lock()

    def ask(self, value):
        with self.lock:
            self.process.stdin.write(json.dumps(value) + "\n")
            self.process.stdin.flush()
            return self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        assert line, f"{self.process.args[-1]} ended with {self.process.wait()}"
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


class Outside:
    """A Python outside of all sandboxes, in the daemons' network: what it tries arrives, so a test that looks for it can fail."""

    PROGRAM = """
import json, sys
scope = {}
for line in sys.stdin:
    scope.pop("result", None)
    exec(json.loads(line), scope)
    print(json.dumps(scope.get("result")), flush=True)
"""

    def __init__(self, network, user=None):
        self.peer = Peer(network.command(sys.executable, "-c", self.PROGRAM, user=user))

    def run(self, code):
        """What the code leaves in `result`."""
        return self.peer.ask(code)


def make_certificates(folder):
    """An authority and, by it, a certificate for NAMES. Returns the authority's."""
    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=Authority of the tests",
            "-keyout", "authority.key", "-out", "authority.pem", "-addext", "keyUsage=critical,keyCertSign")
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=host", "-keyout", "host.key",
            "-out", "host.csr")
    (folder / "extensions").write_text("subjectAltName=" + ",".join(f"DNS:{name}" for name in NAMES))
    openssl("x509", "-req", "-in", "host.csr", "-CA", "authority.pem", "-CAkey", "authority.key", "-days", "2", "-extfile", "extensions",
            "-out", "host.pem")
    return (folder / "authority.pem").read_text()


class World:
    """Use as a context manager. `home` is the daemons' network."""

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.folder = pathlib.Path(tempfile.mkdtemp(prefix="hotcell-world."))
            stack.callback(shutil.rmtree, self.folder, True)
            self.authority = make_certificates(self.folder)
            self.home, self.far = Network(), Network()
            stack.callback(self.home.close)
            stack.callback(self.far.close)
            self.join()
            here = pathlib.Path(__file__).parent
            self.hosts = Peer(self.far.command(sys.executable, here / "hosts.py", self.folder / "host.pem", self.folder / "host.key"))
            stack.callback(self.hosts.close)
            assert self.hosts.answer() == "ready"
            shutil.rmtree(self.folder)  # they were read; so a kill leaves nothing of it
            self.outside = Outside(self.home)
            stack.callback(self.outside.peer.close)
            self.nobody = Outside(self.home, 65534)
            stack.callback(self.nobody.peer.close)
            self.outside.run("import socket\nmarkers = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)")
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *exc):
        self.stack.close()

    def join(self):
        for network in (self.home, self.far):
            network.set("ipv6/conf/default/accept_dad", 0)
            network.set("ipv6/conf/default/router_solicitations", 0)
            network.set("ipv6/conf/default/accept_ra", 0)
            for kind in ("all", "default"):
                network.set(f"ipv4/conf/{kind}/rp_filter", 0)
        self.far.set("ipv6/ip_nonlocal_bind", 1)
        self.far.set("ipv4/ip_forward", 1)  # only who forwards says that there is no way
        # Whoever may open a ping socket may do so here.
        self.home.set("ipv4/ping_group_range", "'0 2147483647'")
        self.home.run("ip", "link", "add", "world0", "type", "veth", "peer", "name", "world1", "netns", self.far.path)
        self.home.run("ip", "address", "add", f"{HOME4}/24", "broadcast", HOME_BROADCAST, "dev", "world0")
        self.home.run("ip", "address", "add", f"{HOME6}/64", "nodad", "dev", "world0")
        for address in HOSTS_ADDRESSES:
            self.far.run("ip", "address", "add", address, *(["nodad"] if ":" in address else []), "dev", "world1")
        for network, device in ((self.home, "world0"), (self.far, "world1")):
            network.run("ip", "link", "set", "lo", "up")
            network.run("ip", "link", "set", device, "up")
        for address in HOSTS_ADDRESSES:
            flag = "-6" if ":" in address else "-4"
            self.home.run("ip", flag, "route", "add", "default", "via", address.split("/")[0], "dev", "world0")
            # All in the table that is asked first: only an address that it knows may answer.
            network = ipaddress.ip_interface(address).network
            self.far.run("ip", flag, "route", "add", network, "dev", "world1", "table", "local")
            self.far.run("ip", flag, "route", "add", "local", "default", "dev", "lo", "table", "local")
        for kind, addresses in (("blackhole", HOLES), ("unreachable", UNREACHABLE)):
            for address in addresses:
                self.far.run("ip", "route", "add", kind, address, "table", "local")

    def route_back(self, *prefixes):
        """For direct mode: the daemons' network sends on, and what the hosts answer to these comes back to it."""
        self.home.set("ipv4/conf/world0/forwarding", 1)
        self.home.set("ipv6/conf/all/forwarding", 1)
        for prefix in prefixes:
            self.far.run("ip", "route", "add", prefix, "via", HOME6 if ":" in prefix else HOME4, "dev", "world1", "table", "local")

    def set_zones(self, zones):
        """See names.py."""
        self.hosts.ask(["zones", zones])

    def set_pages(self, pages):
        """{path: (type, bytes)}, for HTTP and TLS."""
        self.hosts.ask(["pages", {path: (kind, content.hex()) for path, (kind, content) in pages.items()}])

    def events(self, start=0):
        return self.hosts.ask(["events", start])

    def wait_event(self, start, what, **fields):
        """The first event since @start that has all of @fields."""
        def find():
            return next((e for e in self.events(start) if all(e.get(name) == value for name, value in fields.items())), None)
        return daemons.wait_until(find, what)

    def mark(self):
        """From here: for arrived() and events()."""
        self.settle()
        return Mark(self.packets(), self.hosts.ask(["n_events"]))

    def arrived(self, mark):
        """What came since: {(protocol, address, port): packets}."""
        self.settle()
        return self.packets() - mark.packets

    def packets(self):
        found = self.hosts.ask(["packets"])
        assert found["dropped"] == 0, "the hosts did not see every packet"
        return collections.Counter({tuple(key): n for *key, n in found["counts"]})

    def carried(self):
        """What came, without what only ends a connection: {(protocol, address, port): packets}."""
        self.settle()
        return collections.Counter({tuple(key): n for *key, n in self.hosts.ask(["packets"])["carried"]})

    def connects(self):
        """TCP connections that were begun: {(address, port): n}."""
        return collections.Counter({tuple(key): n for *key, n in self.hosts.ask(["packets"])["connects"]})

    def odd_packets(self):
        """IPv4 options, extension headers and fragments: {(what, address): n}."""
        return {tuple(key): n for *key, n in self.hosts.ask(["packets"])["options"]}

    def settle(self):
        """Waits until what left so far has arrived: a packet that leaves after it is there."""
        word = uuid.uuid4().hex[:16]
        # Each CPU has its own queue.
        cpus = sorted(os.sched_getaffinity(0))
        self.outside.run(f"""
import os
for cpu in {cpus}:
    os.sched_setaffinity(0, [cpu])
    markers.sendto({word!r}.encode(), ({HOSTS_ADDRESSES[0].split("/")[0]!r}, 65000))
os.sched_setaffinity(0, {cpus})""")
        daemons.wait_until(lambda: self.hosts.ask(["barrier", word]) == len(cpus), "the hosts saw the marks")


Mark = collections.namedtuple("Mark", "packets n_events")
