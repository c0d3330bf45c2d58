"""An exception as the name, the text and the traceback that a client sees.

The standard library does the formatting: it knows chains, groups, notes and exceptions that cannot be printed. The frames
of the kernel and of IPython are left out, and a cell is called `Cell In[2]` instead of the file name that it is compiled under.
"""

import os
import re
import traceback

import IPython

NAME_BYTES_MAX = 256
VALUE_BYTES_MAX = 16 << 10
TRACEBACK_BYTES_MAX = 256 << 10
LINE_BYTES_MAX = 8 << 10

# What is longer is cut in the middle: people look for who called, and for who raised.
LINES_MAX = 400
# Taking a frame apart costs microseconds, and a program may raise its recursion limit to millions.
FRAMES_MAX = 5000

_HOME = os.path.dirname(os.path.abspath(__file__)) + os.sep
_IPYTHON_HOME = os.path.dirname(os.path.abspath(IPython.__file__)) + os.sep
_CELL_FILE = re.compile(r"<ipython-input-(\d+)-[0-9a-f]+>")
_CELL_LINE = re.compile(r'^([ |+]*)File "<ipython-input-(\d+)-[0-9a-f]+>", line (\d+)(?:, in <(?:module|cell line: \d+)>)?')


def render(value, tb):
    """Returns (name, text, lines), each within its limit. Never raises an Exception."""
    name = _name(value)
    try:
        text = _text(value)
    except Exception as e:
        text = f"<{name} cannot be shown as text: its __str__ raised {_name(e)}>"
    try:
        lines = _lines(value, tb)
    except Exception as e:
        lines = [f"{name}: {text}", f"(its traceback cannot be shown: {_name(e)})"]
    return _cut(name, NAME_BYTES_MAX), _cut(text, VALUE_BYTES_MAX), _cut_lines(lines)


def _name(value):
    name = type.__dict__["__name__"].__get__(type(value))
    return str.__str__(name) or "Exception"


def _text(value):
    text = str(value)
    return _CELL_FILE.sub(r"Cell In[\1]", text) if isinstance(value, SyntaxError) else text


def _lines(value, tb):
    limit = -FRAMES_MAX if _is_deeper(tb, FRAMES_MAX) else None
    shown = traceback.TracebackException(type(value), value, tb, limit=limit, compact=True)
    _trim(shown, value, set())
    text = "".join(shown.format())
    return [_CELL_LINE.sub(_cell_line, line) for line in text.rstrip("\n").split("\n")]


def _cell_line(match):
    return f"{match[1]}Cell In[{match[2]}], line {match[3]}"


def _is_deeper(tb, n):
    while tb is not None and n:
        tb, n = tb.tb_next, n - 1
    return tb is not None


def _trim(shown, value, seen):
    """Leaves out what is not the program's, in an exception and all that are chained to it."""
    if shown is None or id(shown) in seen:
        return
    seen.add(id(shown))
    cells = [i for i, frame in enumerate(shown.stack) if _CELL_FILE.fullmatch(frame.filename)]
    if cells:
        # What lies above the cell called it; below it, magics and formatters call back into it.
        del shown.stack[: cells[0]]
    hidden = (_HOME, _IPYTHON_HOME) if cells else (_HOME,)
    shown.stack[:] = [frame for frame in shown.stack if not frame.filename.startswith(hidden)]
    # A cell that is not valid Python never ran, and an interrupt may come between two statements of one.
    is_beside = isinstance(value, KeyboardInterrupt) or _CELL_FILE.fullmatch(getattr(shown, "filename", None) or "")
    if not shown.stack or (is_beside and not cells):
        shown.stack = None
    for other in (shown.__cause__, shown.__context__, *(shown.exceptions or ())):
        _trim(other, None, seen)


def _cut(text, limit):
    # A NUL would end the text for a reader in C.
    data = text.replace("\0", "\\x00").encode("utf-8", "backslashreplace")
    if len(data) <= limit:
        return data.decode()
    mark = f"… [cut, {len(data)} bytes in all]"
    kept = data[: limit - len(mark.encode())]
    return kept.decode("utf-8", "ignore") + mark


def _cut_lines(lines):
    """Cuts long lines, then takes lines out of the middle until the rest fits."""
    lines = [_cut(line, LINE_BYTES_MAX) for line in lines]
    budget = TRACEBACK_BYTES_MAX // 2 - 64  # the mark needs room
    head, tail = _within(lines, budget), _within(reversed(lines), budget)
    if len(lines) > LINES_MAX:
        head, tail = min(head, LINES_MAX // 2), min(tail, LINES_MAX // 2)
    if head + tail >= len(lines):
        return lines
    n_cut = len(lines) - head - tail
    return lines[:head] + [f"  [… {n_cut} lines cut …]"] + lines[len(lines) - tail :]


def _within(lines, budget):
    n = 0
    for line in lines:
        budget -= len(line.encode())
        if budget < 0:
            break
        n += 1
    return n
