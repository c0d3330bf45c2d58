"""sys.stdout and sys.stderr, so that what is written to both arrives in the order of the writes.

Both are ordinary line-buffered text streams over descriptors 1 and 2: C code, children and threads that write to the
descriptors are in no one's way. hotcelld reads two pipes and cannot know which of them was written to first; so where the
writes change from one stream to the other, the first is flushed, and a barrier waits until hotcelld has read it.

The text layer passes every write on at once (`write_through`), so that the check sits in one place, the buffer below it,
and also sees what is written to `sys.stdout.buffer`.
"""

import io
import os
import sys


class Streams:
    def __init__(self, barrier):
        self.turn = Turn(barrier)
        self._stdout = self._stderr = None

    def install(self):
        """Puts streams in place, also new ones for those that a program closed. What it put there itself stays."""
        if self._stdout is None or self._stdout.closed:
            stdout = _open(1, "<stdout>", self.turn)
            if sys.stdout is self._stdout or self._stdout is None:
                sys.stdout = stdout
            sys.__stdout__ = self._stdout = stdout
        if self._stderr is None or self._stderr.closed:
            stderr = _open(2, "<stderr>", self.turn)
            if sys.stderr is self._stderr or self._stderr is None:
                sys.stderr = stderr
            sys.__stderr__ = self._stderr = stderr

    def settle(self):
        """Passes on what is still buffered. A frame that waits for its ACK follows, so that nothing precedes the next write."""
        for stream in (self._stdout, self._stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                pass  # closed by the program, the stream or the descriptor: its loss
        self.turn.holder = None


class Turn:
    """Which of the streams was written to last, if any since the last barrier."""

    def __init__(self, barrier):
        self.holder = None
        # Both write to one pipe: a flush is enough.
        self.is_combined = False
        self._barrier = barrier

    def take(self, buffer):
        if self.holder is not None:
            try:
                self.holder.flush()
            except (OSError, ValueError):
                pass
            if not self.is_combined:
                self._barrier()
        self.holder = buffer


class _Buffer(io.BufferedWriter):
    def __init__(self, raw, turn):
        super().__init__(raw)
        self._turn = turn

    def write(self, data):
        if self._turn.holder is not self:
            self._turn.take(self)
        return super().write(data)


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


def flush_before_fork():
    """A child must not inherit, and write once more, what is buffered here."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass


def at_fork():
    os.register_at_fork(before=flush_before_fork)
