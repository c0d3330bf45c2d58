"""What all measurements share: the clients, the tools beside, the idle gaps. Takes everything down at the end."""

import contextlib
import functools
import pathlib
import shutil
import subprocess
import tempfile
import time

import jupyter
from containers import Containers
from programs import Failed, Program

OUTCOME_OK = "1"


class Lab:
    """Use as a context manager."""

    def __init__(self, target, build, store, runtime_pid, gap_seconds):
        self.target = target
        self.build = pathlib.Path(build)
        self.store = pathlib.Path(store)
        self.runtime_pid = runtime_pid
        self.gap_seconds = gap_seconds
        self.missing = []

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.folder = pathlib.Path(tempfile.mkdtemp(prefix="hotcell-bench-tools.", dir="/run"))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.folder.chmod(0o755)
            self.hotcell = stack.enter_context(Program([self.client_path(), self.target]))
            self.echo = stack.enter_context(self._echo())
            root = (self.store / "by-name/python").resolve() / "root"
            self.containers = stack.enter_context(Containers(self.folder, self.build, root))
            jupyter.keep_apart(self.folder)
            self._name_missing()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.stack.close()

    def client_path(self):
        return self.build / "test/bench/bench_client"

    @contextlib.contextmanager
    def _echo(self):
        """A client of the bare server."""
        address = f"unix:{self.folder}/echo.sock"
        server = subprocess.Popen([self.build / "test/bench/echo_server", address], stdout=subprocess.PIPE, text=True,
                                  start_new_session=True)
        try:
            if server.stdout.readline() != "ready\n":
                raise Failed(f"echo_server ended with {server.wait()}")
            with Program([self.client_path(), address]) as client:
                yield client
        finally:
            server.terminate()
            server.wait()
            server.stdout.close()

    def _name_missing(self):
        for tool in ("crun", "bwrap"):
            if not getattr(self.containers, tool):
                self.missing.append(f"{tool} is not installed")
        if jupyter.missing:
            self.missing.append(f"ipykernel cannot be imported by this Python: {jupyter.missing}")

    @functools.cached_property
    def egress(self):
        """Networks and daemons for the figures of egress, made for the first of them."""
        from egress_lab import EgressLab  # pylint: disable=import-outside-toplevel  # it generates a client first

        return self.stack.enter_context(EgressLab(self))

    def pause(self):
        time.sleep(self.gap_seconds)

    @contextlib.contextmanager
    def sandbox(self):
        """Id of a sandbox that ends with the block."""
        _, sandbox_id = self.hotcell.ask("create")
        try:
            yield sandbox_id
        finally:
            self.hotcell.ask("delete", sandbox_id)

    def run(self, sandbox_id, code, result, output_bytes=0):
        """(nanoseconds to the result, to `ended`, bytes of output, nanoseconds of output) of @code, which must give @result."""
        answer = self.hotcell.ask("run", sandbox_id, output_bytes, code)
        to_result, to_ended, outcome, n_bytes, output_time, *text = answer
        if outcome != OUTCOME_OK or " ".join(text) != result:
            raise Failed(f"`{code}` ended with outcome {outcome} and result `{' '.join(text)}` instead of `{result}`")
        return int(to_result), int(to_ended), int(n_bytes), int(output_time)
