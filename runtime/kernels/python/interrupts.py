"""What SIGINT does.

Ctrl-C reaches the program and nothing else: a KeyboardInterrupt while its code runs, nothing while the kernel is between
cells. The handler stays in place all the time (a signal that is ignored would be ignored in children, too).

A cell with `await` runs as a task of the kernel's event loop. An exception raised in the middle of the loop could lose
what the loop was about to do, so there the task is cancelled instead, unless the signal came while the task itself computes.
"""

import _signal
import contextlib
import os
import signal
import sys

_ALL = frozenset(map(int, signal.valid_signals()))


class Interrupts:
    def __init__(self):
        self._pid = None
        self._handler = None
        self._is_running = False
        self._is_held = False
        self._is_wanted = None
        self._is_deferred = False
        self._has_deferred = False
        self._mask = ()
        self._task = None
        self._loop = None
        # The cell's task was cancelled by a signal: its CancelledError is a KeyboardInterrupt to people.
        self.has_cancelled = False

    def install(self, is_wanted):
        """@is_wanted tells whether somebody waits for the kernel while a background task keeps it from listening."""
        self._pid = os.getpid()
        self._is_wanted = is_wanted
        # asyncio.run() takes Ctrl-C over, and gives it back, only where it finds the default handler.
        signal.default_int_handler = self._handler = self._on_sigint
        signal.signal(signal.SIGINT, self._handler)
        _signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def hold(self):
        """The kernel's own steps begin: no signal handler, ours or a program's, may raise in them."""
        while True:
            try:
                self._is_running = False
                if not self._is_held:
                    self._mask = _signal.pthread_sigmask(signal.SIG_BLOCK, ()) - {signal.SIGINT}
                    self._is_held = True
                _signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)
                return
            except BaseException:
                # From a handler, at the last moment: too late for the program.
                continue

    def release(self, running):
        """The program's steps begin, in a cell or (not @running) in the event loop between cells."""
        if _signal.getsignal(signal.SIGINT) is not self._handler:
            signal.signal(signal.SIGINT, self._handler)
        self.has_cancelled = False
        self._is_deferred = self._has_deferred = False
        self._is_running = running
        self._is_held = False
        _signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    @contextlib.contextmanager
    def deferred(self):
        """What must not be cut in two; the interrupt comes at its end. Children may be started: the signal mask stays."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
        if self._has_deferred:
            self._has_deferred = False
            raise KeyboardInterrupt

    def enter_task(self, task, loop):
        self._loop, self._task = loop, task

    def leave_task(self):
        self._task = self._loop = None

    def _on_sigint(self, signum, frame):
        if os.getpid() != self._pid:
            raise KeyboardInterrupt
        if not self._is_running:
            if self._is_wanted() and self._is_background_task_running():
                raise KeyboardInterrupt
            return
        if self._is_deferred:
            self._has_deferred = True
            return
        if self._task is None:
            raise KeyboardInterrupt
        self._interrupt_task()

    def _is_background_task_running(self):
        asyncio = sys.modules.get("asyncio")
        try:
            return asyncio is not None and asyncio.current_task() is not None
        except RuntimeError:
            return False

    def _interrupt_task(self):
        asyncio = sys.modules["asyncio"]
        current = asyncio.current_task(self._loop)
        if current is self._task or (current is not None and self.has_cancelled):
            raise KeyboardInterrupt
        self.has_cancelled = True
        self._task.cancel()
        self._loop.call_soon_threadsafe(lambda: None)
