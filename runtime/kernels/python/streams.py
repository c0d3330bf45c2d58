"""sys.stdout and sys.stderr, so that what is written to both arrives in the order of the writes.

Both are ordinary line-buffered text streams over descriptors 1 and 2: C code, children and threads that write to the
descriptors are in no one's way. hotcelld reads two pipes and cannot know which of them was written to first; so where the
writes change from one stream to the other, the first is flushed, and a barrier waits until hotcelld has read it.

A child that the program starts may write to both. Before it starts, everything is passed on, and after it, the first write
of the program waits for a barrier as well. (What a program writes to the descriptors with os.write() goes past all this.)

The text layer passes every write on at once (`write_through`), so that the check sits in one place, the buffer below it,
and also sees what is written to `sys.stdout.buffer`.
"""

import functools
import io
import os
import sys

from . import imports


class Streams:
    def __init__(self, barrier):
        self.turn = Turn(barrier)
        self._stdout = self._stderr = None

    def watch_children(self):
        """Once per process: from now on, before_child() is called where a child may be started."""
        os.register_at_fork(before=self.before_child)
        os.system = _preceded(os.system, self.before_child)
        imports.when_loaded("subprocess", self._on_subprocess)

    def before_child(self):
        """Also keeps a forked child from writing once more what is still buffered here."""
        for name in ("stdout", "stderr"):
            try:
                getattr(sys, name).flush()
            except Exception:
                pass  # closed, gone, or of the program's own making
        self._flush()
        self.turn.pass_to_child()

    def _on_subprocess(self, subprocess):
        subprocess.Popen._execute_child = _preceded(subprocess.Popen._execute_child, self.before_child)

    def install(self):
        """Puts streams in place, also for those that a program closed or deleted. What it put there itself stays."""
        for name, fd in (("stdout", 1), ("stderr", 2)):
            own = getattr(self, "_" + name)
            is_own = getattr(sys, name, own) is own
            if own is None or own.closed:
                is_own |= own is None
                own = _open(fd, f"<{name}>", self.turn)
                setattr(self, "_" + name, own)
                setattr(sys, f"__{name}__", own)
            if is_own:
                setattr(sys, name, own)

    def settle(self):
        """Passes on what is still buffered. A frame that waits for its ACK follows, so that nothing precedes the next write."""
        self._flush()
        self.turn.holder = None

    def expect_frame(self):
        """A frame is on its way that nobody waits for: the next write or child waits until hotcelld has it."""
        self.turn.holder = _FRAME

    def complain(self, text):
        """Prints to the standard error that the kernel gave the program, whatever the program put in its place."""
        try:
            self._stderr.write(text + "\n")
            self._stderr.flush()
        except (OSError, ValueError):
            pass  # closed

    def _flush(self):
        for stream in (self._stdout, self._stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                pass  # closed by the program, the stream or the descriptor: its loss


# Holds the turn when nobody knows who wrote last, or whether anybody did.
_CHILD = object()
# The same, but what came before is a frame.
_FRAME = object()


class Turn:
    """Which of the streams was written to last, if any since the last barrier."""

    def __init__(self, barrier):
        self.holder = None
        # Both write to one pipe: a flush is enough.
        self.is_combined = False
        self._barrier = barrier

    def take(self, buffer):
        if self.holder is not None:
            if self.holder is not _CHILD and self.holder is not _FRAME:
                self._flush_holder()
            if self.holder is _FRAME or not self.is_combined:
                self._barrier()
        self.holder = buffer

    def pass_to_child(self):
        if self.holder is _FRAME or self.holder not in (None, _CHILD) and not self.is_combined:
            self._barrier()
        self.holder = _CHILD

    def _flush_holder(self):
        try:
            self.holder.flush()
        except (OSError, ValueError):
            pass  # closed


class _Buffer(io.BufferedWriter):
    def __init__(self, raw, turn):
        super().__init__(raw)
        self._turn = turn

    def write(self, data):
        if self._turn.holder is not self:
            self._turn.take(self)
        return super().write(data)


def _preceded(function, before):
    @functools.wraps(function)
    def preceded(*args, **kwargs):
        before()
        return function(*args, **kwargs)

    return preceded


def _open(fd, name, turn):
    # The descriptor stays open when a program closes the stream: the next cell has to print, too.
    raw = io.FileIO(fd, "wb", closefd=False)
    raw.name = name
    # Nothing that can be in a string makes print() fail.
    stream = io.TextIOWrapper(
        _Buffer(raw, turn), encoding="utf-8", errors="backslashreplace", line_buffering=True, write_through=True
    )
    stream.mode = "w"
    return stream
