"""Network namespaces that nothing but a descriptor holds: they end with the process that made them."""

import ctypes
import os
import subprocess
import threading

CLONE_NEWNET = 0x40000000

libc = ctypes.CDLL(None, use_errno=True)


class Network:
    """One of them. Close it at the end."""

    def __init__(self):
        # A thread has its own, so the others never leave theirs.
        self.error = None
        thread = threading.Thread(target=self._make)
        thread.start()
        thread.join()
        if self.error:
            raise self.error

    def _make(self):
        if libc.unshare(CLONE_NEWNET) < 0:
            self.error = OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            return
        self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def path(self):
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def command(self, *words, pdeathsig="KILL"):
        """The words of a command that runs there, and ends when the thread that starts it does."""
        return ["nsenter", f"--net={self.path}", "setpriv", "--pdeathsig", pdeathsig, *map(str, words)]

    def run(self, *words, text=None):
        """What a command prints there that is given @text. A Ctrl-C is not for it, but for who runs it."""
        return subprocess.run(self.command(*words), input=text or "", check=True, capture_output=True, text=True, start_new_session=True).stdout

    def close(self):
        os.close(self.fd)
