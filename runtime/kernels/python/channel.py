"""The two pipes to hotcelld: who may speak, and how a frame stays whole.

A program's signal handlers and Ctrl-C raise exceptions between any two steps of Python code, also in here, and threads
display things while the main thread does. So:

* An outgoing message is one buffer inside a C object that counts for itself what has left. An exception leaves the rest
  where it is, and the next message goes out behind it.
* The count of acknowledgements owed is lowered before one is read. If an exception strikes between, a later barrier ends
  one acknowledgement early (some output may then be out of order), but none ever waits for one that was already taken.
* Waiting is poll(), which an exception may end at any time without harm.
* Commands are numbered. A hotcelld that took over from one that was killed may say again what was heard already: that is
  dropped. A gap is left by an exception that struck while a command was read: nobody waits for it.
* Whoever speaks holds the lock until the answer is there, so there is one conversation at a time and no reader thread.

A forked child inherits all of this and must stay silent: it is told so by the fork hook, and by its process id where a C
library forked without Python's knowledge.
"""

import collections
import fcntl
import io
import os
import select
import threading

from . import frames

COMMANDS_VARIABLE = "HOTCELL_COMMANDS_FD"
EVENTS_VARIABLE = "HOTCELL_EVENTS_FD"

# Low numbers belong to the program: it may expect that its first open() gives 3.
FIRST_FD = 200


def from_environment():
    """Takes the channel that the environment names out of the environment."""
    commands_fd = _take(COMMANDS_VARIABLE)
    events_fd = _take(EVENTS_VARIABLE)
    return Channel(commands_fd, events_fd)


def _take(variable):
    fd = int(os.environ.pop(variable))
    if fd < FIRST_FD:
        low, fd = fd, fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FD)
        os.close(low)
    os.set_inheritable(fd, False)
    return fd


class Channel:
    def __init__(self, commands_fd, events_fd):
        self.commands_fd = commands_fd
        self._events_fd = events_fd
        self._pid = os.getpid()
        self._execution = None
        self._lock = threading.RLock()
        self._unsent = None
        self._n_owed = 0
        self._next_serial = 0
        # What was said by a signal handler or a finaliser while its own thread was speaking.
        self._interjections = collections.deque()
        # Goes out in front of the next message.
        self._delayed = ()
        self._readable = select.poll()
        self._readable.register(commands_fd, select.POLLIN)
        os.register_at_fork(after_in_child=self._after_fork_in_child)

    def is_ours(self):
        """Whether this is the process that speaks, not a child of it."""
        return os.getpid() == self._pid

    def begin(self, execution):
        self._execution = execution
        self._delayed = ()

    def announce(self, payload):
        """Says READY, the only thing that belongs to no execution."""
        self._post(frames.frame(frames.READY, 0, payload), 0)

    def say(self, *messages, is_last=False):
        """Sends messages (type, flags, payload) in one piece and waits for what they want acknowledged.

        Returns false where there is nobody to speak to: no execution runs, or this is a forked child.
        """
        if self._execution is None or not self.is_ours():
            return False
        if self._lock._is_owned():
            self._interjections.append(messages)
            return True
        with self._lock:
            if self._execution is None:
                return False
            self._converse(messages)
            while self._interjections:
                self._converse(self._interjections.popleft())
            if is_last:
                self._execution = None
        return True

    def say_with_next(self, *messages):
        """Sends messages, none of which is SYNC, together with what is said next: hotcelld wakes up once for both."""
        if self._execution is None or not self.is_ours() or self._lock._is_owned():
            return False
        with self._lock:
            self._delayed += messages
        return True

    def barrier(self):
        """Waits until hotcelld has read everything that was written to the outputs so far."""
        if self._execution is None or not self.is_ours() or self._lock._is_owned():
            return
        self.say((frames.BARRIER, frames.SYNC, b""))

    def has_command(self, timeout_msec=0):
        """Whether a command can be read; waits for ever with None."""
        poll = select.poll()
        poll.register(self.commands_fd, select.POLLIN)
        return bool(poll.poll(timeout_msec))

    def receive(self):
        """Returns (header, payload) of the next frame. Not for use while an execution runs."""
        pieces = []
        while True:
            try:
                header = frames.header(self._read(frames.HEADER.size))
            except frames.Malformed as e:
                leave(str(e))
            payload = self._read(header.size)
            if (header.serial - self._next_serial) & 0xFFFF >= 0x8000:
                continue
            self._next_serial = (header.serial + 1) & 0xFFFF
            pieces.append(payload)
            if header.type != frames.MORE:
                return header, b"".join(pieces)
            if sum(map(len, pieces)) > frames.PAYLOAD_MAX:
                leave("a command is too long")

    def _converse(self, messages):
        messages = (*self._delayed, *messages)
        blob = b"".join(frames.frame(type, self._execution, payload, flags) for type, flags, payload in messages)
        self._delayed = ()
        self._post(blob, sum(1 for _, flags, _ in messages if flags & frames.SYNC))
        while self._n_owed > 0:
            self._readable.poll()
            self._n_owed -= 1
            self._read_ack()

    def _post(self, blob, n_acks):
        self._flush()
        # The buffer holds all of the message, so this write() is a copy and cannot stop half-way.
        unsent = io.BufferedWriter(io.FileIO(self._events_fd, "wb", closefd=False), len(blob) + 1)
        unsent.write(blob)
        self._unsent = unsent
        self._n_owed += n_acks
        self._flush()

    def _flush(self):
        if self._unsent is None:
            return
        try:
            self._unsent.flush()
        except OSError:
            leave("the event pipe is gone")
        self._unsent = None

    def _read_ack(self):
        while True:
            header, _ = self.receive()
            if header.type == frames.ACK:
                return
            if header.type in (frames.HELLO, frames.EXECUTE):
                leave("a command came while another one runs")

    def _read(self, size):
        chunks = []
        while size:
            try:
                chunk = os.read(self.commands_fd, size)
            except OSError:
                leave("the command pipe is gone")
            if not chunk:
                os._exit(0)
            chunks.append(chunk)
            size -= len(chunk)
        return b"".join(chunks)

    def _after_fork_in_child(self):
        self._execution = None
        self._delayed = ()
        if self._unsent is not None:
            # Else the parent's words would be repeated when the child lets go of its copy.
            self._unsent.raw.close()
        for fd in (self.commands_fd, self._events_fd):
            try:
                os.close(fd)
            except OSError:
                pass


def leave(why):
    """Ends the process at once: threads that a program left behind would keep an orderly exit waiting."""
    try:
        os.write(2, f"hotcell: python kernel ends: {why}\n".encode())
    finally:
        os._exit(1)
