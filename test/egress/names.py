"""A name server of the world, with zones that tests change. Each question is told.

`records`: {"name": {"A": [address, …], "AAAA": […], "CNAME": "name", "ttl": seconds, "mode": "…"}}, lower case, without a final dot; `*.name`
stands for all names below. Modes: "silent", "garbage", "servfail", "turns" (one address at a time, each question the next one), "held" (what was
asked by datagram is answered by the next zones).
"""

import asyncio
import socket
import struct

ADDRESSES = ("9.9.9.9", "2620:fe::fe")
TYPES = {1: "A", 5: "CNAME", 16: "TXT", 28: "AAAA", 255: "ANY", 10: "NULL", 65: "HTTPS"}


def read_name(data, at):
    labels = []
    while n := data[at]:
        labels.append(data[at + 1:at + 1 + n].decode("latin-1"))
        at += n + 1
    return ".".join(labels), at + 1


def pack_name(name):
    return b"".join(bytes([len(label)]) + label.encode("latin-1") for label in name.split(".") if label) + b"\0"


class Zones:
    def __init__(self, tell):
        self.records = {}
        self.tell = tell
        self.turns = {}
        self.held = []

    def set(self, records):
        self.records = records
        held, self.held = self.held, []
        for udp, data, peer in held:
            self.on_question(udp, data, peer)

    async def start(self, loop):
        self.sockets = []
        for address in ADDRESSES:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            udp = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            udp.bind((address, 53))
            loop.add_reader(udp, self.on_datagram, udp)
            self.sockets.append(udp)
            self.sockets.append(await asyncio.start_server(self.on_stream, address, 53))

    def on_datagram(self, udp):
        self.on_question(udp, *udp.recvfrom(65536))

    def on_question(self, udp, data, peer):
        answer = self.answer(data, "udp")
        if answer:
            udp.sendto(answer, peer)
        elif (self.find(read_name(data, 12)[0].lower()) or {}).get("mode") == "held":
            self.held.append((udp, data, peer))

    async def on_stream(self, reader, writer):
        try:
            while True:
                size, = struct.unpack("!H", await reader.readexactly(2))
                answer = self.answer(await reader.readexactly(size), "tcp")
                if answer:
                    writer.write(struct.pack("!H", len(answer)) + answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def find(self, name):
        if name in self.records:
            return self.records[name]
        while "." in name:
            name = name.split(".", 1)[1]
            if f"*.{name}" in self.records:
                return self.records[f"*.{name}"]
        return None

    def answer(self, data, over):
        name, end = read_name(data, 12)
        kind = struct.unpack("!H", data[end:end + 2])[0]
        self.tell("dns", name=name.lower(), type=TYPES.get(kind, str(kind)), over=over)
        question = data[12:end + 4]
        record = self.find(name.lower())
        mode = record.get("mode") if record else None
        if mode in ("silent", "held"):
            return None
        if mode == "garbage":
            return data[:2] + b"\xff" * 40
        answers, rcode = [], 0
        if mode == "servfail":
            rcode = 2
        elif record is None:
            rcode = 3
        else:
            answers = self.resolve(name, kind)
        head = data[:2] + struct.pack("!HHHHH", 0x8180 | rcode, 1, len(answers), 0, 0)
        return head + question + b"".join(answers)

    def resolve(self, name, kind):
        answers = []
        for _ in range(16):
            record = self.find(name.lower())
            if not record:
                return answers
            ttl = record.get("ttl", 60)
            if "CNAME" in record and kind != 5:
                answers.append(self.pack(name, 5, ttl, pack_name(record["CNAME"])))
                name = record["CNAME"]
                continue
            found = record.get(TYPES.get(kind), [])
            if record.get("mode") == "turns" and found:
                turn = self.turns[name, kind] = self.turns.get((name, kind), -1) + 1
                found = [found[turn % len(found)]]
            for value in found:
                data = (socket.inet_pton(socket.AF_INET6 if kind == 28 else socket.AF_INET, value) if kind in (1, 28)
                        else bytes([len(value)]) + value.encode())
                answers.append(self.pack(name, kind, ttl, data))
            return answers
        return answers

    @staticmethod
    def pack(name, kind, ttl, data):
        return pack_name(name) + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data
