"""The event loop of the kernel: one for all cells.

It runs while a cell awaits and between cells, so that background tasks go on; it stands still while a plain cell runs, so
that such a cell may call asyncio.run(). What a plain cell starts with asyncio.create_task() goes on the kernel's loop, too.

asyncio is loaded, and the loop made, when a program first asks for it. The loop needs two descriptors to be woken by other
threads; it has them only from when it first waits until the next plain cell, so that a program finds no descriptors that it
did not open.
"""

import functools
import sys
import threading

from . import imports


FAILURES_MAX = 20


class Loops:
    def __init__(self, interrupts):
        self._interrupts = interrupts
        self._make_loop = None
        self._loop = None
        self._n_failures = 0
        imports.when_loaded("asyncio", self._on_asyncio)

    def before_cell(self):
        """Makes the kernel's loop the current one: asyncio.run() leaves none behind."""
        if self._make_loop is None:
            return
        self._n_failures = 0
        loop = self._living()
        loop.rest()
        sys.modules["asyncio"].set_event_loop(loop)

    def run_cell(self, coroutine):
        """Runs a cell that awaits: what IPython calls a loop runner."""
        import asyncio

        loop = self._living()
        asyncio.set_event_loop(loop)
        task = loop.create_task(coroutine)
        self._interrupts.enter_task(task, loop)
        try:
            while True:
                try:
                    return loop.run_until_complete(task)
                except KeyboardInterrupt:
                    # A background task took it: the cell was meant as well.
                    if task.done():
                        raise
                    self._interrupts.has_cancelled = True
                    task.cancel()
        finally:
            self._interrupts.leave_task()
            # Whatever it raised has left already; unasked, asyncio would print it into a later cell.
            if task.done() and not task.cancelled():
                task.exception()

    def run_until_command(self, channel):
        """Lets background tasks go on until a command can be read."""
        while not channel.has_command():
            if self._make_loop is None:
                channel.has_command(None)
            else:
                self._run_idle(self._living(), channel.commands_fd)

    def _run_idle(self, loop, commands_fd):
        try:
            loop.add_reader(commands_fd, loop.stop)
            try:
                loop.run_forever()
            finally:
                loop.remove_reader(commands_fd)
        except BaseException:
            # A task that exits, or a signal handler that raises. Over and over: whatever a program did to it, it does not run.
            self._n_failures += 1
            if self._n_failures > FAILURES_MAX:
                self._loop = None
            raise

    def _living(self):
        if self._loop is None or self._loop.is_closed():
            self._loop = self._make_loop()
        return self._loop

    def _on_asyncio(self, asyncio):
        self._make_loop = _loop_class(asyncio)
        self._loop = self._make_loop()
        asyncio.set_event_loop(self._loop)
        create_task = asyncio.create_task

        @functools.wraps(create_task)
        def create_task_on_kernel_loop(coro, **kwargs):
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                if threading.current_thread() is threading.main_thread():
                    return self._living().create_task(coro, **kwargs)
            return create_task(coro, **kwargs)

        asyncio.create_task = asyncio.tasks.create_task = create_task_on_kernel_loop


def _loop_class(asyncio):
    import selectors

    class Selector(selectors.PollSelector):
        """poll() needs no descriptor of its own."""

        loop = None

        def select(self, timeout=None):
            # A thread that came before the wake-up descriptors were there could not use them: look once without waiting.
            if self.loop.open_wakeup():
                timeout = 0
            return super().select(timeout)

    class KernelLoop(asyncio.SelectorEventLoop):
        def __init__(self):
            selector = Selector()
            selector.loop = self
            self._ssock = self._csock = None
            super().__init__(selector)

        def open_wakeup(self):
            if self._ssock is not None:
                return False
            super()._make_self_pipe()
            return True

        def rest(self):
            # A signal handler of the loop writes to the descriptor by its number: then it has to stay.
            if self._ssock is not None and not self._signal_handlers and not self.is_running():
                self._close_self_pipe()

        def add_signal_handler(self, sig, callback, *args):
            self.open_wakeup()
            super().add_signal_handler(sig, callback, *args)

        def _make_self_pipe(self):
            pass

        def _close_self_pipe(self):
            if self._ssock is not None:
                super()._close_self_pipe()

    return KernelLoop
