"""Tells a person, or a log, how far a build is."""

import sys
import time

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_CLEAR = "\r\x1b[K"
_REDRAW_SECONDS = 0.1


class Progress:
    """One line that is redrawn per stage on a terminal, two plain lines elsewhere."""

    def __init__(self, mode, prefix, stream=None, clock=time.monotonic):
        self._stream = stream or sys.stderr
        if mode == "auto":
            mode = "live" if self._stream.isatty() else "plain"
        self._mode = mode
        self._prefix = prefix
        self._clock = clock
        self._stage = None
        self._started = 0.0
        self._n_ticks = 0
        self._drawn = 0.0
        self.seconds = {}

    def begin(self, stage):
        self.end()
        self._stage = stage
        self._started = self._drawn = self._clock()
        if self._mode == "plain":
            self._write(f"{self._prefix}: {stage} ...\n")
        elif self._mode == "live":
            self._write(f"{_CLEAR}{_FRAMES[0]} {self._prefix}: {stage}")

    def tick(self):
        """Called at least several times a second while something runs."""
        if self._mode != "live" or self._stage is None:
            return
        now = self._clock()
        if now - self._drawn < _REDRAW_SECONDS:
            return
        self._drawn = now
        self._n_ticks += 1
        frame = _FRAMES[self._n_ticks % len(_FRAMES)]
        elapsed = now - self._started
        self._write(f"{_CLEAR}{frame} {self._prefix}: {self._stage} {elapsed:.0f} s")

    def end(self):
        if self._stage is None:
            return
        elapsed = self._clock() - self._started
        self.seconds[self._stage] = elapsed
        clear = _CLEAR if self._mode == "live" else ""
        self._write(f"{clear}{self._prefix}: {self._stage}: {elapsed:.1f} s\n")
        self._stage = None

    def abort(self):
        """Leaves the line free for an error message."""
        if self._mode == "live" and self._stage is not None:
            self._write(_CLEAR)
        self._stage = None

    def note(self, text):
        clear = _CLEAR if self._mode == "live" else ""
        self._write(f"{clear}{self._prefix}: {text}\n")

    def _write(self, text):
        if self._mode == "none":
            return
        self._stream.write(text)
        self._stream.flush()
