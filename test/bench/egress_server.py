"""The servers that the egress figures are measured against: `egress_server.py ADDRESS`. Ends with its standard input.

At ADDRESS names are asked for, and it is what every name has. Each connection is served by the thread that accepted it, one at a time:
so no figure holds the start of a thread.
"""

import socket
import struct
import sys
import threading

# Public addresses, since others are always denied; and a name. They are reached only in the networks of egress_lab.
SERVED, UNLISTED = "93.184.216.34", "93.184.217.35"
NAME = "served.test"
FIRST_BYTE_PORT, ECHO_PORT, STREAM_PORT, DNS_PORT = 7001, 7002, 7003, 53
CHUNK = bytes(256 << 10)


def first_byte(connection):
    connection.sendall(b"x")


def echo(connection):
    while data := connection.recv(65536):
        connection.sendall(data)


def stream(connection):
    """As many bytes as the client says."""
    head = connection.recv(8, socket.MSG_WAITALL)
    left = struct.unpack("!Q", head)[0] if len(head) == 8 else 0
    view = memoryview(CHUNK)
    while left:
        left -= connection.send(view[: min(left, len(CHUNK))])


def serve(port, function):
    """Returns the port, which is a free one for 0."""
    listener = socket.create_server(("0.0.0.0", port), backlog=128)

    def run():
        while True:
            connection, _ = listener.accept()
            with connection:
                try:
                    function(connection)
                except OSError:
                    pass  # who left early says what is wrong

    threading.Thread(target=run, daemon=True).start()
    return listener.getsockname()[1]


def serve_names(address):
    """Every name has this address."""
    names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    names.bind((address, DNS_PORT))  # so that it answers from there
    packed = socket.inet_aton(address)

    def run():
        while True:
            query, peer = names.recvfrom(512)
            question = query[12 : query.index(b"\0", 12) + 5]
            is_a = question[-4:] == b"\0\1\0\1"
            head = query[:2] + struct.pack("!HHHHH", 0x8180, 1, int(is_a), 0, 0)
            record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + packed
            names.sendto(head + question + (record if is_a else b""), peer)

    threading.Thread(target=run, daemon=True).start()


def main():
    serve(FIRST_BYTE_PORT, first_byte)
    serve(ECHO_PORT, echo)
    serve(STREAM_PORT, stream)
    serve_names(sys.argv[1])
    print("ok", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
