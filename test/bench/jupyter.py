"""Debian's ipykernel through jupyter_client, as notebooks use it. Its own folders keep it off the user's settings and history."""

import os
import pathlib
import subprocess
import time

import machine

try:
    from jupyter_client import KernelManager
    import ipykernel  # noqa: F401 - only whether it is there
except ImportError as error:
    missing = str(error)
else:
    missing = None

TIMEOUT_SECONDS = 120


def keep_apart(folder):
    """All that Jupyter writes goes below @folder."""
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        path = pathlib.Path(folder) / name.lower()
        path.mkdir()
        os.environ[name] = str(path)
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # else each start warns that debugging may miss breakpoints


class Kernel:
    """One running kernel. Use as a context manager."""

    def __enter__(self):
        self.client = None
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self.client = self.manager.client()
            self.client.start_channels()
            self.client.wait_for_ready(timeout=TIMEOUT_SECONDS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.client:
            self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.client = self.manager = None  # they cannot be finalized at the end of Python

    def run(self, code):
        """Runs @code to its execute_reply, with all output read, as hotcell's stream brings it."""
        reply = self.client.execute_interactive(code, output_hook=lambda _: None, timeout=TIMEOUT_SECONDS)
        if reply["content"]["status"] != "ok":
            raise RuntimeError(f"ipykernel: {reply['content']}")

    def run_timed(self, code):
        start = time.perf_counter_ns()
        self.run(code)
        return time.perf_counter_ns() - start

    def rss_bytes(self):
        return machine.resident_bytes(self.manager.provisioner.pid)


def first_result(code):
    """Nanoseconds from nothing to the reply, and the kernel ended again."""
    start = time.perf_counter_ns()
    with Kernel() as kernel:
        kernel.run(code)
        return time.perf_counter_ns() - start
