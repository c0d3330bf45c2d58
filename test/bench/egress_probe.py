"""What is measured of the network. This text runs on all sides, in sandboxes and beside them, by the same Python.

Times are nanoseconds. Each function first does once, unmeasured, what it measures, and lets the machine go idle before each sample.
"""

import socket
import struct
import time

PATIENCE_SECONDS = 60
CHUNK_BYTES = 256 << 10
ENDLESS_BYTES = 1 << 60


def _dial(address, port):
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.settimeout(PATIENCE_SECONDS)
    connection.connect((address, port))
    return connection


def _timed(function, n, gap_seconds, afterwards=lambda: None):
    samples = []
    for _ in range(n + 1):
        time.sleep(gap_seconds)
        start = time.perf_counter_ns()
        function()
        samples.append(time.perf_counter_ns() - start)
        afterwards()
    return samples[1:]


def connects(address, port, n, gap_seconds):
    """A new connection to its first byte, which the server sends as soon as it has accepted it."""
    dialled = []

    def first_byte():
        dialled.append(_dial(address, port))
        if dialled[0].recv(1) != b"x":
            raise OSError("there was no first byte")

    return _timed(first_byte, n, gap_seconds, afterwards=lambda: dialled.pop().close())


def round_trips(address, port, n, gap_seconds):
    """64 bytes there and back, over one connection."""
    message = b"x" * 64
    with _dial(address, port) as connection:

        def there_and_back():
            connection.sendall(message)
            if connection.recv(64, socket.MSG_WAITALL) != message:
                raise OSError("what came back is something else")

        return _timed(there_and_back, n, gap_seconds)


def rate(address, port, n_bytes):
    """Bytes a second of one stream from the server, from the request to the last byte."""
    buffer = bytearray(CHUNK_BYTES)
    with _dial(address, port) as connection:
        start = time.perf_counter_ns()
        connection.sendall(struct.pack("!Q", n_bytes))
        left = n_bytes
        while left:
            size = connection.recv_into(buffer)
            if size == 0:
                raise OSError(f"the stream ended {left} bytes too early")
            left -= size
        return [n_bytes / (time.perf_counter_ns() - start) * 1e9]


def until_reset(address, port):
    """Reads a stream that has no end until it is reset. Nanoseconds of a clock that all processes share."""
    with _dial(address, port) as connection:
        connection.sendall(struct.pack("!Q", ENDLESS_BYTES))
        connection.recv(1)
        print("streaming", flush=True)
        try:
            while connection.recv(CHUNK_BYTES):
                pass
        except ConnectionResetError:
            return time.monotonic_ns()
    raise OSError("the stream ended without a reset")


def queries(server, name, address, n, gap_seconds):
    """A query for the address of @name, which must be @address, to its answer."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    question = b"\x12\x34" + struct.pack("!HHHHH", 0x100, 1, 0, 0, 0) + labels + struct.pack("!HH", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(PATIENCE_SECONDS)
        asker.connect((server, 53))

        def ask():
            asker.send(question)
            answer = asker.recv(512)
            if answer[:2] != question[:2] or answer[3] & 15 or socket.inet_aton(address) not in answer:
                raise OSError(f"{name} is not {address} but {answer.hex()}")

        return _timed(ask, n, gap_seconds)


def is_refused(address, port):
    """Whether something on the way does not want a connection there, where a server listens."""
    try:
        _dial(address, port).close()
    except (PermissionError, ConnectionRefusedError):
        return True
    return False
