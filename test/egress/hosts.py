"""The hosts of the world: one process in a network of its own, in which every address is its own. `hosts.py CERTIFICATE KEY`

It takes commands from standard input and answers on standard output, a line of JSON each. What arrives is kept in two logs: `packets` counts
what came off the wire (an AF_PACKET socket, so that nothing can be missed), `events` says what the services saw.
"""

import asyncio
import collections
import ipaddress
import json
import re
import socket
import ssl
import struct
import sys
import time

import names

CHUNK = bytes(range(256)) * 256
BARRIER_PORT = 65000  # see World.settle()
PORTS = {"echo": 7, "discard": 9, "chargen": 19, "http": 80, "tls": 443, "banner": 1001, "count": 1002, "reset": 1003, "speak_first": 1004}
UDP_ECHO = 2020
MORE_ECHO = (853, *range(2000, 2012), 8080)
IGNORED_ICMPV6 = (130, 131, 132, 133, 134, 135, 136, 143)  # neighbours and groups, by the kernel alone


class Packets:
    """Counts by (protocol, address, port)."""

    def __init__(self, loop, device):
        self.counts = collections.Counter()
        self.connects = collections.Counter()  # TCP: those that begin a connection
        self.carried = collections.Counter()   # those that begin one or carry something: not the rest of a connection's end
        self.options = collections.Counter()   # IP options, extension headers, or fragments
        self.barriers = collections.Counter()
        self.n_dropped = 0
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(3))
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        self.socket.bind((device, 3))
        loop.add_reader(self.socket, self.read)

    def read(self):
        for _ in range(256):
            try:
                data, (_, ethertype, kind, _, _) = self.socket.recvfrom(256)
            except BlockingIOError:
                return
            if kind == socket.PACKET_OUTGOING:
                continue
            if ethertype == 0x0800:
                self.take4(data)
            elif ethertype == 0x86dd:
                self.take6(data)
            elif ethertype != 0x0806:
                self.counts[f"ethertype-{ethertype:#x}", "", 0] += 1

    def take4(self, data):
        head = (data[0] & 15) * 4
        to = str(ipaddress.IPv4Address(data[16:20]))
        fragment = struct.unpack("!H", data[6:8])[0] & 0x3fff
        if head > 20 or fragment:
            self.options["options" if head > 20 else "fragment", to] += 1
        self.take(data[9], to, data[head:], struct.unpack("!H", data[2:4])[0] - head)

    def take6(self, data):
        to = str(ipaddress.IPv6Address(data[24:40]))
        protocol, rest = data[6], data[40:]
        size = struct.unpack("!H", data[4:6])[0]
        while protocol in (0, 43, 44, 60) and len(rest) >= 8:
            if protocol != 0 or not to.startswith("ff02:"):  # the kernel's reports of groups have one
                self.options[f"extension-{protocol}", to] += 1
            protocol, rest = rest[0], rest[8 if protocol == 44 else (rest[1] + 1) * 8:]
        if protocol == 58 and rest and rest[0] in IGNORED_ICMPV6:
            return
        self.take(protocol, to, rest, size - (len(data) - 40 - len(rest)))

    def take(self, protocol, to, rest, size):
        port = struct.unpack("!H", rest[2:4])[0] if protocol in (6, 17, 33, 132, 136) and len(rest) >= 4 else 0
        if protocol == 17 and port == BARRIER_PORT:
            self.barriers[rest[8:24].decode(errors="replace")] += 1
            return
        name = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}.get(protocol, str(protocol))
        self.counts[name, to, port] += 1
        is_tcp = protocol == 6 and len(rest) >= 14
        if is_tcp and rest[13] & 0x12 == 2:
            self.connects[to, port] += 1
        if not is_tcp or rest[13] & 0x12 == 2 or size > (rest[12] >> 4) * 4:
            self.carried[name, to, port] += 1

    def dropped(self):
        packets, dropped = struct.unpack("II", self.socket.getsockopt(263, 6, 8))  # SOL_PACKET, PACKET_STATISTICS
        self.n_dropped += dropped
        return self.n_dropped


class Hosts:
    def __init__(self, loop, certificate, key):
        self.loop = loop
        self.events = []
        self.n_connections = 0
        self.servers = []
        self.zones = names.Zones(self.tell)
        self.pages = {}
        self.packets = Packets(loop, "world1")
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(certificate, key)
        self.tls.sni_callback = lambda _, name, __: self.tell("tls", name=name)

    def tell(self, kind, **fields):
        self.events.append({"kind": kind, "time": time.monotonic(), **fields})

    # --- services ---

    async def start(self):
        for name, port in PORTS.items():
            await self.listen(port, getattr(self, f"serve_{name}"), self.tls if name == "tls" else None)
        for port in MORE_ECHO:
            await self.listen(port, self.serve_echo)
        await self.zones.start(self.loop)
        self.udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.udp.bind(("::", 7))
        self.loop.add_reader(self.udp, self.on_udp)
        self.udp_echo = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.udp_echo.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        self.udp_echo.bind(("::", UDP_ECHO))
        self.loop.add_reader(self.udp_echo, self.on_udp_echo)

    def on_udp(self):
        data, peer = self.udp.recvfrom(65536)
        self.tell("udp", size=len(data), peer=peer[0])

    def on_udp_echo(self):
        """Back from the address that it came to, and once more from another port."""
        data, control, _, peer = self.udp_echo.recvmsg(65536, socket.CMSG_SPACE(20))
        at = control[0][2][:16]
        self.tell("udp", size=len(data), peer=peer[0], port=UDP_ECHO)
        back = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, at + bytes(4))]
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other:
            other.sendmsg([b"from elsewhere"], back, 0, peer)
        self.udp_echo.sendmsg([data], back, 0, peer)

    async def listen(self, port, handler, tls=None):
        async def serve(reader, writer):
            address, at = writer.get_extra_info("sockname")[:2]
            address = str(ipaddress.ip_address(address).ipv4_mapped or address) if ":" in address else address
            self.n_connections += 1
            number = self.n_connections
            self.tell("accepted", number=number, address=address, port=at)
            received, how = [0], "closed"
            try:
                await handler(reader, writer, received)
            except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError) as error:
                how = type(error).__name__
            finally:
                writer.close()
                self.tell("ended", number=number, address=address, port=at, received=received[0], how=how)
        for address in ("::", "0.0.0.0"):
            self.servers.append(await asyncio.start_server(serve, address, port, ssl=tls, backlog=1024, limit=1 << 20))

    async def copy(self, reader, received, writer=None):
        while data := await reader.read(65536):
            received[0] += len(data)
            if writer:
                writer.write(data)
                await writer.drain()

    async def serve_echo(self, reader, writer, received):
        await self.copy(reader, received, writer)

    async def serve_discard(self, reader, writer, received):
        await self.copy(reader, received)

    async def serve_chargen(self, reader, writer, received):
        while True:
            writer.write(CHUNK)
            await writer.drain()

    async def serve_banner(self, reader, writer, received):
        """Says something, closes its half, and counts what still comes."""
        writer.write(b"bye\n")
        writer.write_eof()
        await self.copy(reader, received)

    async def serve_count(self, reader, writer, received):
        """When the other half is closed, says how much came."""
        await self.copy(reader, received)
        writer.write(b"%d" % received[0])
        await writer.drain()

    async def serve_reset(self, reader, writer, received):
        received[0] += len(await reader.read(65536))
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def serve_speak_first(self, reader, writer, received):
        writer.write(b"220 ready\n")
        await self.copy(reader, received, writer)

    async def serve_http(self, reader, writer, received):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            received[0] += len(head)
            path = head.split()[1].decode()
            host = re.search(rb"(?im)^host: *([^\r\n]*)", head)
            length = re.search(rb"(?im)^content-length: *(\d+)", head)
            body = await reader.readexactly(int(length[1])) if length else b""
            received[0] += len(body)
            self.tell("http", path=path, host=host[1].decode() if host else None, body=len(body))
            status, more, content = self.page(path)
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n{more}\r\n".encode() + content)
            await writer.drain()

    def page(self, path):
        if path.startswith("/redirect?"):
            return "302 Found", f"Location: {path.split('?', 1)[1]}\r\n", b""
        if path in self.pages:
            kind, content = self.pages[path]
            return "200 OK", f"Content-Type: {kind}\r\n", content
        return ("200 OK", "", b"hello\n") if path == "/" else ("404 Not Found", "", b"")

    serve_tls = serve_http

    # --- commands ---

    def command(self, words):
        what, *arguments = words
        return getattr(self, f"do_{what}")(*arguments)

    def do_zones(self, zones):
        self.zones.set(zones)

    def do_pages(self, pages):
        self.pages = {path: (kind, bytes.fromhex(content)) for path, (kind, content) in pages.items()}

    def do_events(self, start):
        return self.events[start:]

    def do_n_events(self):
        return len(self.events)

    def do_packets(self):
        return {"counts": [[*key, n] for key, n in self.packets.counts.items()],
                "connects": [[*key, n] for key, n in self.packets.connects.items()],
                "carried": [[*key, n] for key, n in self.packets.carried.items()],
                "options": [[*key, n] for key, n in self.packets.options.items()],
                "dropped": self.packets.dropped()}

    def do_barrier(self, word):
        return self.packets.barriers[word]


async def main(certificate, key):
    loop = asyncio.get_running_loop()
    hosts = Hosts(loop, certificate, key)
    await hosts.start()
    print(json.dumps("ready"), flush=True)
    reader = asyncio.StreamReader(limit=1 << 26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        print(json.dumps(hosts.command(json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
