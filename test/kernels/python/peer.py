"""Plays hotcelld for a Python kernel: starts it in a template's root, sends it code, reads its outputs and frames.

On every frame the two outputs are drained first, then the frame is noted, then acknowledged, as kernel.proto has it. What
came is one list of events in the order of their arrival; adjacent output of one stream is one event.
"""

import atexit
import fcntl
import functools
import importlib
import os
import pathlib
import re
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time

SOURCE_ROOT = pathlib.Path(__file__).resolve().parents[3]
KERNEL_DIRECTORY = SOURCE_ROOT / "runtime/kernels/python"
INSTALLED_DIRECTORY = "/usr/lib/hotcell/kernels/python"
DEFAULT_TEMPLATE_ROOT = "/var/lib/hotcell/templates/by-name/python/root"

SYNC = 1
CALLS = {
    "x86_64": {"clock_nanosleep": 230, "poll": 7, "rt_sigtimedwait": 128},
    "aarch64": {"clock_nanosleep": 115, "poll": 73, "rt_sigtimedwait": 137},  # ppoll
}
TIMEOUT_SEC = 60
HEADER = struct.Struct("<IBBHI")


def template_root():
    return os.environ.get("HOTCELL_TEST_TEMPLATE_ROOT") or os.path.realpath(DEFAULT_TEMPLATE_ROOT)


def generated_messages():
    """The messages as protoc makes them: an encoder and a decoder that are not ours."""
    if "kernel_pb2" not in sys.modules:
        directory = tempfile.mkdtemp(prefix="hotcell-test-")
        try:
            proto_directory = SOURCE_ROOT / "proto/hotcell/sandbox/v1"
            subprocess.run(
                ["protoc", f"--proto_path={proto_directory}", f"--python_out={directory}", "kernel.proto"], check=True
            )
            sys.path.insert(0, directory)
            importlib.import_module("kernel_pb2")
            sys.path.remove(directory)
        finally:
            shutil.rmtree(directory)
    return sys.modules["kernel_pb2"]


@functools.cache
def readable_sources():
    """The kernel's sources as a template has them: in a clone of one's own the kernel's user may not read them."""
    directory = tempfile.mkdtemp(prefix="hotcell-test-")
    atexit.register(shutil.rmtree, directory)
    os.chmod(directory, 0o755)
    for path in KERNEL_DIRECTORY.glob("*.py"):
        copy = shutil.copyfile(path, os.path.join(directory, path.name))
        os.chmod(copy, 0o644)
    return directory


class Event:
    """`kind` is stdout, stderr, or a frame's type in small letters; `value` is bytes, or the message."""

    def __init__(self, kind, value):
        self.kind = kind
        self.value = value

    def __repr__(self):
        return f"{self.kind}: {self.value!r}"


class KernelEnded(Exception):
    pass


class Peer:
    def __init__(self, environment=None, directory=None):
        self.kernel_pid = None
        self.pb = generated_messages()
        self.events = []
        self.parts = []
        self.execution = 0
        self.n_frames = 0
        self.serial = 0
        self.reads_outputs = True
        self._start(environment or {}, directory or "/home/user")
        self.send("HELLO", self.pb.Hello(protocol=2, working_directory="/home/user"), 0)
        self.wait_for("ready")
        self.kernel_pid = _leaf(self.process.pid)

    def _start(self, environment, directory):
        commands, self._commands = os.pipe()
        self._events, events = os.pipe()
        self._stdout, stdout = os.pipe()
        self._stderr, stderr = os.pipe()
        channel = [fcntl.fcntl(fd, fcntl.F_DUPFD, 300 + i * 10) for i, fd in enumerate((commands, events))]
        started = time.monotonic()
        self.process = subprocess.Popen(
            _command(channel, environment, directory),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            pass_fds=channel,
        )
        self.started = started
        for fd in (commands, events, stdout, stderr, *channel):
            os.close(fd)
        self._selector = selectors.DefaultSelector()
        for fd, kind in ((self._stdout, "stdout"), (self._stderr, "stderr"), (self._events, "events")):
            os.set_blocking(fd, False)
            self._selector.register(fd, selectors.EVENT_READ, kind)
        self._incoming = bytearray()
        self._is_over = False

    # Sending.

    def send(self, type, message, execution, flags=0):
        payload = message.SerializeToString() if message is not None else b""
        number = self.pb.FrameType.Value(f"FRAME_TYPE_{type}")
        self.send_raw(HEADER.pack(len(payload), number, flags, self.serial & 0xFFFF, execution) + payload)
        self.serial += 1

    def send_raw(self, data):
        os.set_blocking(self._commands, True)
        while data:
            data = data[os.write(self._commands, data) :]

    def start(self, code, environment=None, combine=False):
        """Sends code and returns at once."""
        self.execution += 1
        self.events = []
        message = self.pb.Execute(code=code, combine_output=combine)
        for name, value in (environment or {}).items():
            message.environment.add(name=name, value=value)
        self.send("EXECUTE", message, self.execution)

    def run(self, code, environment=None, combine=False):
        """Runs code to its end and returns what came."""
        self.start(code, environment, combine)
        return self.finish()

    def finish(self):
        self.wait_for("done")
        return Run(self.events)

    def signal(self, number):
        os.kill(self.kernel_pid, number)

    def interrupt(self):
        self.signal(signal.SIGINT)

    # Receiving.

    def wait_for(self, kind, text=None):
        """Waits for an event of @kind, in which @text occurs if given; returns it."""
        deadline = time.monotonic() + TIMEOUT_SEC
        while True:
            for event in self.events:
                if event.kind == kind and (text is None or text in event.value):
                    return event
            if self._is_over:
                raise KernelEnded(self.events)
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {kind} came, but: {self.events}")
            self.turn(deadline - time.monotonic())

    def wait_for_end(self):
        while not self._is_over:
            self.turn(TIMEOUT_SEC)
        return self.process.wait(TIMEOUT_SEC)

    def turn(self, timeout):
        ready = {key.data for key, _ in self._selector.select(timeout)}
        if self.reads_outputs and ready & {"stdout", "stderr"}:
            self._drain()
        if "events" in ready and self.reads_outputs:
            self._read_frames()

    def stop_reading_outputs(self):
        self.reads_outputs = False
        for fd in (self._stdout, self._stderr, self._events):
            self._selector.unregister(fd)

    def resume_reading_outputs(self):
        self.reads_outputs = True
        for fd, kind in ((self._stdout, "stdout"), (self._stderr, "stderr"), (self._events, "events")):
            self._selector.register(fd, selectors.EVENT_READ, kind)

    # What the kernel is doing, seen from outside. No event tells of it, so it is looked at again and again.

    @staticmethod
    def wait_until(condition, what):
        deadline = time.monotonic() + TIMEOUT_SEC
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"still not: {what}")
            time.sleep(0.001)

    def is_output_full(self):
        """Whether somebody is stuck in a write to the standard output."""
        return _unread(self._stdout) >= 60000

    def has_unread_frames(self):
        return _unread(self._events) > 0

    def has_read_commands(self):
        return _unread(self._commands) == 0

    def has_taken_interrupt(self):
        """No SIGINT waits to be delivered."""
        status = pathlib.Path(f"/proc/{self.kernel_pid}/status").read_text()
        return not any(int(word, 16) >> signal.SIGINT - 1 & 1 for word in re.findall(r"^S(?:ig|hd)Pnd:\s(\w+)", status, re.M))

    def wait_in_call(self, name):
        """Until the main thread sleeps in that system call."""
        number = str(CALLS[os.uname().machine][name])
        path = pathlib.Path(f"/proc/{self.kernel_pid}/syscall")
        self.wait_until(lambda: path.read_text().split()[0] == number, f"in {name}")

    def _drain(self):
        for fd, kind in ((self._stdout, "stdout"), (self._stderr, "stderr")):
            while True:
                try:
                    data = os.read(fd, 1 << 20)
                except BlockingIOError:
                    break
                if not data:
                    self._unregister(fd)
                    break
                self._note_output(kind, data)

    def _unregister(self, fd):
        try:
            self._selector.unregister(fd)
        except KeyError:
            pass

    def _note_output(self, kind, data):
        if self.events and self.events[-1].kind == kind:
            self.events[-1].value += data
        else:
            self.events.append(Event(kind, bytearray(data)))

    def _read_frames(self):
        try:
            data = os.read(self._events, 1 << 20)
        except BlockingIOError:
            return
        if not data:
            self._unregister(self._events)
            self._drain()
            self._is_over = True
            return
        self._incoming += data
        while len(self._incoming) >= HEADER.size:
            size, type, flags, zero, execution = HEADER.unpack_from(self._incoming)
            assert zero == 0 and size <= (1 << 20) + (64 << 10), "the kernel sent a malformed header"
            if len(self._incoming) < HEADER.size + size:
                break
            payload = bytes(self._incoming[HEADER.size : HEADER.size + size])
            del self._incoming[: HEADER.size + size]
            self._on_frame(type, flags, execution, payload)

    def _on_frame(self, type, flags, execution, payload):
        self._drain()
        self.n_frames += 1
        name = self.pb.FrameType.Name(type).removeprefix("FRAME_TYPE_")
        assert execution == self.execution, f"a {name} of execution {execution} came in {self.execution}"
        if name == "PART_DATA":
            self._on_part_data(self.pb.PartData.FromString(payload))
        elif name in ("RESULT", "DISPLAY"):
            self._on_bundle(name.lower(), self.pb.Bundle.FromString(payload))
        elif name != "BARRIER":
            message = {"READY": "Ready", "STARTED": "Started", "ERROR": "Error", "DONE": "Done", "CLEAR_OUTPUT": "ClearOutput"}
            event = Event(name.lower(), getattr(self.pb, message[name]).FromString(payload))
            # Nobody waits for the word that the code was taken: what was written since the code was sent comes after it.
            self.events.insert(0 if name == "STARTED" else len(self.events), event)
        if flags & SYNC:
            self.send("ACK", None, execution)

    def _on_bundle(self, kind, bundle):
        assert sum(len(part.data) for part in bundle.parts) <= 256 << 10
        self.parts = [(part.type, bytearray(part.data), part.size) for part in bundle.parts]
        for part in bundle.parts:
            part.data = b""
        self.events.append(Event(kind, Shown(bundle, self.parts)))

    def _on_part_data(self, message):
        assert len(message.data) <= 256 << 10
        _, data, size = self.parts[message.part]
        assert message.offset == len(data), "parts came out of order"
        data += message.data
        assert len(data) <= size

    def close(self):
        if self.process.poll() is None:
            os.kill(self.kernel_pid, signal.SIGKILL)
        self.process.wait()
        self._selector.close()
        for fd in (self._commands, self._events, self._stdout, self._stderr):
            os.close(fd)


class Shown:
    """A result or a display with all of its data."""

    def __init__(self, bundle, parts):
        self.display_id = bundle.display_id
        self.update = bundle.update
        self._parts = parts

    @property
    def types(self):
        return [type for type, _, _ in self._parts]

    def __getitem__(self, wanted):
        for type, data, size in self._parts:
            if type == wanted:
                assert len(data) == size, f"{size - len(data)} bytes are missing of {type}"
                return bytes(data)
        raise KeyError(f"{wanted} is not among {self.types}")

    @property
    def text(self):
        return self["text/plain"].decode()


class Run:
    """One finished execution."""

    def __init__(self, events):
        self.events = events
        self.kinds = [event.kind for event in events if event.kind not in ("started", "done")]

    def all(self, kind):
        return [event.value for event in self.events if event.kind == kind]

    def one(self, kind):
        values = self.all(kind)
        assert len(values) == 1, f"{len(values)} of {kind} in {self.events}"
        return values[0]

    @property
    def stdout(self):
        return b"".join(self.all("stdout")).decode("utf-8", "surrogateescape")

    @property
    def stderr(self):
        return b"".join(self.all("stderr")).decode("utf-8", "surrogateescape")

    @property
    def result(self):
        return self.one("result")

    @property
    def error(self):
        return self.one("error")

    @property
    def done(self):
        return self.one("done")


def _unread(pipe):
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4), sys.byteorder)


def _leaf(pid):
    """bwrap starts the kernel as its child."""
    while True:
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if not children:
            return pid
        pid = int(children[0])


def _command(channel, environment, directory):
    root = template_root()
    kernel = INSTALLED_DIRECTORY if os.path.isdir(root + INSTALLED_DIRECTORY) else "/srv"
    variables = {
        "HOME": "/home/user",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOTCELL_COMMANDS_FD": str(channel[0]),
        "HOTCELL_EVENTS_FD": str(channel[1]),
        **environment,
    }
    return [
        *("bwrap", "--ro-bind", root, "/", "--ro-bind", readable_sources(), kernel),
        *("--proc", "/proc", "--dev", "/dev"),
        *(word for path in ("/dev/shm", "/tmp", "/home/user") for word in ("--perms", "1777", "--tmpfs", path)),
        *("--die-with-parent", "--unshare-pid", "--unshare-net", "--chdir", directory),
        *("--clearenv", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"),
        *(word for name, value in variables.items() for word in ("--setenv", name, value)),
        *("setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", "--bounding-set", "-all", "--inh-caps", "-all"),
        *("/usr/bin/python3", f"{kernel}/main.py"),
    ]
