"""A peer that speaks HTTP/2 by hand, so that it can break its rules: frames as the test wants them, nothing else."""

import select
import socket
import struct
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1


def integer(value, bits):
    """An integer of HPACK with a prefix of so many bits."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([value])
    out, value = [most], value - most
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def header(name, value):
    """One literal header, not indexed."""
    name, value = name.encode(), value.encode()
    return b"\0" + integer(len(name), 7) + name + integer(len(value), 7) + value


def request_headers(path, *pairs):
    all_pairs = ((":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost"), ("te", "trailers"),
                 ("content-type", "application/grpc"), *pairs)
    return b"".join(header(*pair) for pair in all_pairs)


class Peer:
    """One connection. What comes is read by `pump`, which keeps the windows and counts frames by type."""

    def __init__(self, address, settings=()):
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
        else:
            self.socket = socket.socket()
        self.socket.settimeout(20)
        self.socket.connect(address)
        self.buffer = b""
        self.window = 65535
        self.windows = {}
        self.initial = 65535
        self.counts = {}
        self.is_closed = False
        self.send(PREFACE + self.frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in settings)))

    def close(self):
        self.socket.close()

    @staticmethod
    def frame(kind, flags, stream, payload=b""):
        return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload

    def send(self, data):
        try:
            self.socket.sendall(data)
        except OSError:
            self.is_closed = True

    def open(self, stream, path, *pairs, flags=END_HEADERS):
        self.windows[stream] = self.initial
        self.send(self.frame(HEADERS, flags, stream, request_headers(path, *pairs)))

    def pump(self, seconds=0.0):
        """Reads what has come, for at least so long."""
        end = time.monotonic() + seconds
        while not self.is_closed:
            if not select.select([self.socket], [], [], max(0, end - time.monotonic()))[0]:
                return
            try:
                data = self.socket.recv(1 << 16)
            except OSError:
                data = b""
            self.is_closed = not data
            self.buffer += data
            while len(self.buffer) >= 9:
                n = int.from_bytes(self.buffer[:3], "big")
                if len(self.buffer) < 9 + n:
                    break
                kind, flags, stream = struct.unpack(">BBI", self.buffer[3:9])
                self.take(kind, flags, stream, self.buffer[9:9 + n])
                self.buffer = self.buffer[9 + n:]

    def take(self, kind, flags, stream, payload):
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                key, value = struct.unpack(">HI", payload[at:at + 6])
                if key == 4:
                    self.windows = {s: w + value - self.initial for s, w in self.windows.items()}
                    self.initial = value
            self.send(self.frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.send(self.frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            more = struct.unpack(">I", payload)[0]
            if stream:
                self.windows[stream] = self.windows.get(stream, self.initial) + more
            else:
                self.window += more
        elif kind in (RST_STREAM, HEADERS):
            if kind == RST_STREAM or flags & END_STREAM:
                self.windows.pop(stream, None)

    def data(self, stream, most):
        """Sends as many zero bytes as the windows and @most let; says how many."""
        n = max(0, min(most, self.window, self.windows.get(stream, 0), 16384))
        if n:
            self.window -= n
            self.windows[stream] -= n
            self.send(self.frame(DATA, 0, stream, bytes(n)))
        return n
