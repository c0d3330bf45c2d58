"""What an execution shows besides its two outputs: results, displays, the error.

Takes IPython's representations (a dict from MIME type to text, base64 or JSON-like data) and sends them as parts of raw
bytes. Before every frame the outputs are passed on, so that a display stands where it was made.
"""

import binascii
import json
import re

from . import errors, frames

INLINE_BYTES_MAX = 256 << 10
PART_DATA_BYTES_MAX = 256 << 10
PARTS_MAX = 32
TYPE_BYTES_MAX = 128
DISPLAY_ID_BYTES_MAX = 128

_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*")
_JSON_TYPE = re.compile(r"application/(json|.*\+json)")
# Types whose text is base64 in IPython. An SVG is text, whatever its top-level type says.
_BINARY_TYPE = re.compile(r"(image|audio|video|font)/(?!svg\+xml)|application/(pdf|octet-stream|zip)$")


class Report:
    def __init__(self):
        self._channel = None
        self._streams = None
        self.has_failed = False

    def connect(self, channel, streams):
        self._channel = channel
        self._streams = streams

    def begin(self):
        self.has_failed = False

    def result(self, data):
        self._send_bundle(frames.RESULT, data, "", False)

    def display(self, data, display_id="", update=False):
        display_id = str(display_id)
        if len(display_id.encode("utf-8", "backslashreplace")) > DISPLAY_ID_BYTES_MAX or "\0" in display_id:
            raise ValueError(f"a display_id has at most {DISPLAY_ID_BYTES_MAX} bytes, and no NUL")
        self._send_bundle(frames.DISPLAY, data, display_id, update)

    def clear_output(self, wait):
        self._streams.settle()
        self._channel.say((frames.CLEAR_OUTPUT, frames.SYNC, frames.clear_output(wait)))

    def error(self, value, tb):
        """The first one is the execution's error. What comes after it is printed."""
        name, text, lines = errors.render(value, tb)
        self._streams.settle()
        message = (frames.ERROR, frames.SYNC, frames.error(name, text, lines))
        if self.has_failed or not self._channel.say(message):
            self._streams.complain("\n".join(lines))
        self.has_failed = True

    def _send_bundle(self, type, data, display_id, update):
        parts, problems = _parts(data)
        if problems and not parts:
            raise problems[0][1]
        for name, e in problems:
            self._streams.complain(f"The {name} form of an object is left out: {e}")
        if not parts:
            return
        self._streams.settle()
        messages = list(_messages(type, parts, display_id, update))
        if type == frames.RESULT and self._channel.say_with_next(*messages):
            self._streams.expect_frame()
        elif not self._channel.say(*messages) and type == frames.DISPLAY:
            # No execution is there to show it: a thread or a task that goes on after its cell, or a forked child.
            for part in parts:
                if part.type == "text/plain":
                    print(part.data.decode("utf-8", "replace"))


def _messages(type, parts, display_id, update):
    n_inline, rest = [], INLINE_BYTES_MAX
    for part in parts:
        n_inline.append(min(len(part.data), rest))
        rest -= n_inline[-1]
    # The code ends with its result: what may follow waits for itself (see Streams.expect_frame).
    flags = 0 if type == frames.RESULT else frames.SYNC
    yield type, flags, frames.bundle(parts, n_inline, display_id, update)
    for i, part in enumerate(parts):
        for offset in range(n_inline[i], len(part.data), PART_DATA_BYTES_MAX):
            chunk = part.data[offset : offset + PART_DATA_BYTES_MAX]
            yield frames.PART_DATA, 0, frames.part_data(i, offset, chunk)


def _parts(data):
    """Returns the parts that can be sent, and (type, exception) of those that cannot."""
    parts, problems = [], []
    for type, value in data.items():
        # Parameters, such as a character set, say nothing here: text is UTF-8.
        type = str(type).partition(";")[0].strip().lower()
        if not _TYPE.fullmatch(type) or len(type) > TYPE_BYTES_MAX or len(parts) == PARTS_MAX:
            continue
        try:
            parts.append(frames.Part(type, _encode(type, value)))
        except (TypeError, ValueError, RecursionError) as e:
            problems.append((type, e))
    return parts, problems


def _encode(type, value):
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if _JSON_TYPE.fullmatch(type) and not (isinstance(value, str) and type != "application/json"):
        return _encode_json(value)
    if isinstance(value, str):
        return _decode_base64(value) if _BINARY_TYPE.match(type) else value.encode("utf-8", "backslashreplace")
    if isinstance(value, (dict, list)):
        return _encode_json(value)
    return str(value).encode("utf-8", "backslashreplace")


def _decode_base64(text):
    try:
        return binascii.a2b_base64("".join(text.split()), strict_mode=True)
    except (binascii.Error, ValueError):
        return text.encode("utf-8", "backslashreplace")


def _encode_json(value):
    try:
        text = _dump(value)
    except ValueError:
        # A number that JSON has no word for; or the value contains itself, which walking it will find out.
        try:
            text = _dump(_without_nan(value))
        except RecursionError:
            raise ValueError("a value that contains itself has no form in JSON") from None
    return text.encode("utf-8", "backslashreplace")


def _dump(value):
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_as_json)


def _as_json(value):
    """Numbers and arrays of numpy, times, and sets, as JSON has them."""
    for name in ("tolist", "isoformat"):
        method = getattr(value, name, None)
        if callable(method):
            return _without_nan(method())
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _without_nan(value):
    """null in place of what is not a number. A circular value ends as RecursionError."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return value
