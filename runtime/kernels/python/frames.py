"""Frames of the kernel protocol and the few messages in them, by hand.

There is no protobuf library in a sandbox on purpose: whichever version a program wants to install, it cannot collide with
ours. Only what kernel.proto needs is here: varints, length-delimited fields, and skipping what is unknown.

An encoder leaves out fields that have their default, as proto3 does. A decoder raises `Malformed`, and nothing else, for
bytes that are not such a message.
"""

import struct
from typing import NamedTuple

PROTOCOL = 2

HELLO = 1
EXECUTE = 2
ACK = 3
MORE = 4
READY = 65
STARTED = 66
RESULT = 67
DISPLAY = 68
PART_DATA = 69
ERROR = 70
CLEAR_OUTPUT = 71
BARRIER = 72
DONE = 73

SYNC = 1

HEADER = struct.Struct("<IBBHI")
PAYLOAD_MAX = (1 << 20) + (64 << 10)

_VARINT = 0
_FIXED64 = 1
_BYTES = 2
_FIXED32 = 5


class Malformed(Exception):
    """The peer sent what the protocol does not allow."""


class Header(NamedTuple):
    size: int
    type: int
    flags: int
    serial: int
    execution: int


class Execute(NamedTuple):
    code: str
    environment: list  # of (name, value)
    combine_output: bool


class Hello(NamedTuple):
    protocol: int
    working_directory: str


class Part(NamedTuple):
    type: str
    data: bytes


def frame(type, execution, payload=b"", flags=0):
    if len(payload) > PAYLOAD_MAX:
        raise ValueError(f"a frame of {len(payload)} bytes is above the limit of {PAYLOAD_MAX}")
    return HEADER.pack(len(payload), type, flags, 0, execution) + payload


def header(data):
    size, type, flags, serial, execution = HEADER.unpack(data)
    if size > PAYLOAD_MAX:
        raise Malformed("a frame's header is not one")
    return Header(size, type, flags, serial, execution)


# What the kernel says.


def ready(language, version):
    return _uint(1, PROTOCOL) + _text(2, language) + _text(3, version)


def started(execution_count):
    return _uint(1, execution_count)


def bundle(parts, n_inline, display_id="", update=False):
    """@parts are whole; of the i-th, the first @n_inline[i] bytes go into this message."""
    out = bytearray()
    for part, n in zip(parts, n_inline):
        out += _bytes(1, _text(1, part.type) + _uint(2, len(part.data)) + _bytes(3, part.data[:n]), always=True)
    out += _text(2, display_id)
    out += _uint(3, update)
    return bytes(out)


def part_data(part, offset, data):
    return _uint(1, part) + _uint(2, offset) + _bytes(3, data)


def error(name, value, traceback):
    lines = b"".join(_bytes(3, _utf8(line), always=True) for line in traceback)
    return _text(1, name) + _text(2, value) + lines


def clear_output(wait):
    return _uint(1, wait)


def done(ok, exit_code=None):
    out = _uint(1, ok)
    if exit_code is not None:
        # An optional field says that it is there even when it is zero; negative numbers take ten bytes.
        out += _tag(2, _VARINT) + _varint(exit_code & (1 << 64) - 1)
    return out


# What the kernel hears.


def parse_hello(data):
    protocol, working_directory = 0, ""
    for number, value in _fields(data):
        if number == 1:
            protocol = _as_int(value)
        elif number == 2:
            working_directory = _as_text(value)
    return Hello(protocol, working_directory)


def parse_execute(data):
    code, environment, combine_output = "", [], False
    for number, value in _fields(data):
        if number == 1:
            code = _as_text(value)
        elif number == 2:
            environment.append(_parse_variable(_as_bytes(value)))
        elif number == 3:
            combine_output = _as_int(value) != 0
    return Execute(code, environment, combine_output)


def _parse_variable(data):
    name, content = "", ""
    for number, value in _fields(data):
        if number == 1:
            name = _as_text(value)
        elif number == 2:
            content = _as_text(value)
    return name, content


# The wire format.


def _varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _tag(number, wire_type):
    return _varint(number << 3 | wire_type)


def _uint(number, value):
    return _tag(number, _VARINT) + _varint(int(value)) if value else b""


def _bytes(number, value, always=False):
    if not value and not always:
        return b""
    return b"".join((_tag(number, _BYTES), _varint(len(value)), value))


def _text(number, value):
    return _bytes(number, _utf8(value))


def _utf8(value):
    # A lone surrogate has no UTF-8; it is shown the way Python writes it.
    return value.encode("utf-8", "backslashreplace")


def _fields(data):
    """Yields (number, value): an int for a number field, a memoryview for the others."""
    view = memoryview(data)
    at = 0
    while at < len(view):
        tag, at = _read_varint(view, at)
        number, wire_type = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise Malformed("a field has no valid number")
        if wire_type == _VARINT:
            value, at = _read_varint(view, at)
        elif wire_type == _BYTES:
            size, at = _read_varint(view, at)
            value, at = _read_slice(view, at, size)
        elif wire_type == _FIXED64:
            value, at = _read_slice(view, at, 8)
        elif wire_type == _FIXED32:
            value, at = _read_slice(view, at, 4)
        else:
            raise Malformed(f"wire type {wire_type} is not in use")
        yield number, value


def _read_varint(view, at):
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            raise Malformed("a number is cut off")
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
    raise Malformed("a number has more than ten bytes")


def _read_slice(view, at, size):
    if size > len(view) - at:
        raise Malformed("a field is cut off")
    return view[at : at + size], at + size


def _as_int(value):
    if not isinstance(value, int):
        raise Malformed("a number field holds bytes")
    return value


def _as_bytes(value):
    if isinstance(value, int):
        raise Malformed("a bytes field holds a number")
    return value


def _as_text(value):
    try:
        return str(_as_bytes(value), "utf-8")
    except UnicodeDecodeError:
        raise Malformed("a text field is not UTF-8") from None
