"""The life of the kernel: what can be done ahead, what belongs to one process, and the cells.

preload() does what is the same for every kernel. after_fork() takes over what belongs to this process: its channel, streams
and signals. serve() runs cells until the channel closes. A kernel that is started directly does one after the other.
"""

import fcntl
import os
import sys
import time

from . import channel, errors, frames, imports, interrupts, loop, pages, report, shell, streams

_LANGUAGE = "python"

# For libraries that a program may load; its own settings win.
_ENVIRONMENT = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    # The default is eight megabytes of JavaScript for the first figure.
    "PLOTLY_RENDERER": "plotly_mimetype",
    # Programs that would wait for a key.
    "PAGER": "cat",
    "GIT_PAGER": "cat",
}

_kernel = None


def preload():
    global _kernel
    _kernel = Kernel()
    pages.gather()


def after_fork():
    _kernel.adopt_process()


def serve():
    _kernel.serve()


class Kernel:
    def __init__(self):
        self._interrupts = interrupts.Interrupts()
        self._loops = loop.Loops(self._interrupts)
        self._report = report.Report()
        self._shell = shell.create(self._report, self._loops, self._interrupts)
        self._channel = None
        self._streams = None

    def adopt_process(self):
        try:
            self._channel = channel.from_environment()
        except (KeyError, ValueError, OSError) as e:
            channel.leave(f"it was started without its channel: {e!r}")
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self._streams = streams.Streams(self._channel.barrier)
        self._streams.install()
        self._streams.watch_children()
        self._report.connect(self._channel, self._streams)
        self._interrupts.install(is_wanted=self._channel.has_command)
        self._interrupts.hold()
        imports.expect_user_packages()
        sys.argv[:] = [""]

    def serve(self):
        while True:
            header, payload = self._channel.receive()
            try:
                if header.type == frames.HELLO:
                    self._on_hello(frames.parse_hello(payload))
                elif header.type == frames.EXECUTE:
                    self._on_execute(header.execution, frames.parse_execute(payload))
            except frames.Malformed as e:
                channel.leave(str(e))
            self._rest()

    def _on_hello(self, hello):
        if hello.protocol != frames.PROTOCOL:
            channel.leave(f"it does not speak version {hello.protocol} of its protocol")
        try:
            os.chdir(hello.working_directory)
        except OSError as e:
            channel.leave(f"its working directory cannot be used: {e}")
        self._shell.user_ns["_dh"][:] = [os.getcwd()]
        self._channel.announce(frames.ready(_LANGUAGE, "{}.{}.{}".format(*sys.version_info)))

    def _on_execute(self, number, request):
        self._channel.begin(number)
        self._report.begin()
        self._streams.install()
        self._streams.settle()
        self._shell.execution_count = number
        self._channel.say((frames.STARTED, 0, frames.started(number)))
        with _Combined(self._streams, request.combine_output), _Environment(request.environment) as environment:
            self._run(request.code, environment.error)
            self._streams.settle()
            if not self._channel.is_ours():
                # A child that the code forked has reached the end of the code.
                os._exit(1 if self._report.has_failed else self._shell.exit_code or 0)
        exit_code = None if self._report.has_failed else self._shell.exit_code
        self._channel.say((frames.DONE, frames.SYNC, frames.done(not self._report.has_failed, exit_code)), is_last=True)

    def _run(self, code, error):
        try:
            self._loops.before_cell()
            imports.look_again()
            self._interrupts.release(running=True)
            if error:
                raise error
            self._shell.execute(code)
        except BaseException as e:
            # IPython keeps nearly everything to itself; this came at its first or last step.
            self._interrupts.hold()
            self._report.error(e, e.__traceback__)
        finally:
            self._interrupts.hold()

    def _rest(self):
        """Waits for a command; meanwhile background tasks go on.

        Signals are let in at least once, else one that came late in a cell would hit the next.
        """
        while True:
            try:
                self._interrupts.release(running=False)
                self._loops.run_until_command(self._channel)
            except BaseException as e:
                self._interrupts.hold()
                self._streams.complain("\n".join(errors.render(e, e.__traceback__)[2]))
            finally:
                self._interrupts.hold()
            if self._channel.has_command():
                return


class _Environment:
    """Variables for one execution. What they were before, they are again."""

    def __init__(self, variables):
        self._variables = variables
        self._previous = {}
        self.error = None

    def __enter__(self):
        try:
            for name, value in self._variables:
                self._previous.setdefault(name, os.environ.get(name))
                os.environ[name] = value
        except (ValueError, OSError) as e:
            self.error = e
        self._apply_timezone()
        return self

    def __exit__(self, *exc):
        for name, value in self._previous.items():
            try:
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            except (ValueError, OSError):
                pass  # a name that could not be set either
        self._apply_timezone()

    def _apply_timezone(self):
        if "TZ" in self._previous:
            time.tzset()


class _Combined:
    """Standard error on the pipe of standard output, for one execution."""

    def __init__(self, streams, is_wanted):
        self._streams = streams
        self._is_wanted = is_wanted
        self._saved_fd = -1

    def __enter__(self):
        if not self._is_wanted:
            return
        try:
            self._saved_fd = fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, channel.FIRST_FD)
            os.dup2(1, 2)
        except OSError:
            return  # an earlier cell closed one of them
        self._streams.turn.is_combined = True

    def __exit__(self, *exc):
        self._streams.turn.is_combined = False
        if self._saved_fd >= 0:
            os.dup2(self._saved_fd, 2)
            os.close(self._saved_fd)
