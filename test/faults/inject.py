"""Daemons of which single calls can be made to fail, or syncs to take long: test/faults/inject.c, preloaded."""

import contextlib
import mmap
import os
import pathlib
import pwd
import shutil
import struct
import subprocess

import daemons

# As in inject.c.
MEMORY, CALL, SLOW_SYNC = 1, 2, 3
KINDS = {MEMORY: "memory", CALL: "call"}
RUNTIME, SPAWNER, SERVER = 1, 2, 3
ROLES = {RUNTIME: "runtime", SPAWNER: "spawner", SERVER: "hotcelld"}
FAILED_OFFSET, FAILED_SIZE = 136, 8192 * 8
PAGE_SIZE = FAILED_OFFSET + FAILED_SIZE + 4096 * 16


class Page:
    """What the preloaded library and the test share."""

    def __init__(self, path):
        path.write_bytes(bytes(PAGE_SIZE))
        path.chmod(0o666)
        with open(path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), PAGE_SIZE)

    def get(self, offset):
        return struct.unpack_from("<I", self.map, offset)[0]

    def put(self, offset, value):
        struct.pack_into("<I", self.map, offset, value)

    def arm(self, role, kind):
        """The next call of this kind that has not failed yet fails."""
        self.put(8, 0)
        self.put(132, self.get(132) + 1)
        self.put(4, role)
        self.put(0, kind)

    def disarm(self):
        """The function that failed and its callers' addresses; None if none did."""
        self.put(0, 0)
        if not self.get(8):
            return None
        function = self.map[32:64].split(b"\0")[0].decode()
        return function, struct.unpack_from("<8Q", self.map, 64)

    def forget(self):
        """All calls may fail again."""
        self.map[FAILED_OFFSET:FAILED_OFFSET + FAILED_SIZE] = bytes(FAILED_SIZE)

    @contextlib.contextmanager
    def slow_sync(self, msec):
        self.put(12, msec)
        self.put(20, 0)
        self.put(0, SLOW_SYNC)
        try:
            yield
        finally:
            self.put(0, 0)

    def n_syncs(self):
        return self.get(20)


class Daemons(daemons.Daemons):
    """A runtime and a hotcelld beside it, both with the library in them."""

    server = None

    def command(self):
        command = super().command()
        split = command.index("--supervise")
        self.server_command = command[split + 3:]
        return command[:split]

    def start(self):
        library, page = self.folder / "inject.so", self.folder / "faults"
        if not library.exists():
            # The build folder may be closed to hotcelld's user.
            shutil.copy(daemons.build_folder() / "test/faults/inject.so", library)
            shutil.copy(daemons.build_folder() / "server/hotcelld", self.folder / "hotcelld")
            self.page = Page(page)
        self.environment = {**os.environ, "LD_PRELOAD": str(library), "HOTCELL_FAULT_PAGE": str(page)}
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env={**self.environment, "HOTCELL_FAULT_ROLE": "runtime"})
            daemons.wait_until((self.folder / "runtime.sock").exists, "the runtime listens")
            user = pwd.getpwnam(daemons.SERVER_USER)
            self.server = subprocess.Popen(
                ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups",
                 "env", f"LD_PRELOAD={library}", f"HOTCELL_FAULT_PAGE={page}", "HOTCELL_FAULT_ROLE=server",
                 self.folder / "hotcelld", *self.server_command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if self.wait:
            daemons.wait_until(self.is_ready, "ready")
        self.bases = list(self.programs())

    def server_pid(self):
        return self.server.pid

    def spawner_pid(self):
        for child in daemons.children(self.process.pid):
            with contextlib.suppress(OSError):
                if pathlib.Path(f"/proc/{child}/comm").read_text().strip() == "hotcell-spawner":
                    return child
        return None

    def is_ready(self):
        if self.server.poll() is not None:
            raise AssertionError(f"hotcelld ended with {self.server.returncode}:\n{self.log()}")
        return super().is_ready()

    def processes(self):
        return {self.server.pid, *super().processes()}

    def stop(self):
        try:
            if self.server and self.server.poll() is None:
                self.server.terminate()
                self.server.wait(60 * daemons.PATIENCE)
        finally:
            code = super().stop()
        return code

    def symbols(self, frames):
        """Names of our own functions among the callers."""
        names = []
        for base, path in self.bases:
            inside = [frame - base for frame in frames if 0 < frame - base < 1 << 24]
            if inside:
                done = subprocess.run(["addr2line", "-f", "-e", path, *map(hex, inside)], capture_output=True, text=True,
                                      check=True)
                names += [name for name in done.stdout.splitlines()[::2] if name != "??"]
        return names

    def programs(self):
        for pid, path in ((self.process.pid, "runtime/supervisor/hotcell-runtime"), (self.server.pid, "server/hotcelld")):
            name = path.rsplit("/", 1)[-1]
            with contextlib.suppress(OSError):
                for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
                    if line.endswith(f"/{name}"):
                        yield int(line.split("-")[0], 16), daemons.build_folder() / path
                        break
