"""Starts hotcell-runtime and hotcelld for a test, in folders of their own, and ends them without a trace.

Environment: HOTCELL_BUILD (build folder; `build`), HOTCELL_STORE (template store; the default one), HOTCELL_TEST_PATIENCE (how many times
longer than usual to wait before giving up, on a slow machine; 1).
"""

import contextlib
import os
import pathlib
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time

SERVER_USER = "hotcell"
EGRESS_USER = "hotcell-egress"
PATIENCE = int(os.environ.get("HOTCELL_TEST_PATIENCE") or 1)


def build_folder():
    return pathlib.Path(os.environ.get("HOTCELL_BUILD") or pathlib.Path(__file__).resolve().parents[2] / "build")


def wait_until(condition, what, seconds=60):
    """Polls @condition, whose truth no event announces; fails after a generous time."""
    end = time.monotonic() + seconds * PATIENCE
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"after {seconds * PATIENCE} s still not: {what}")


@contextlib.contextmanager
def folder():
    """Where everybody may read."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="hotcell-test.", dir="/run"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Daemons:
    """One runtime with its hotcelld. Use as a context manager.

    @program: hotcelld's, if not the build's. @apart: hotcelld is a process of ours, not of the runtime. @inside: the words of a command that
    runs what follows them, such as in another network. @nameservers: with hotcell-egress, which asks these.
    """

    def __init__(self, server_arguments=(), runtime_arguments=(), wait=True, program=None, apart=False, inside=(), nameservers=()):
        self.program = program or build_folder() / "server/hotcelld"
        self.apart = apart
        self.server = None
        self.server_arguments = list(server_arguments)
        self.runtime_arguments = list(runtime_arguments)
        self.wait = wait
        self.inside = list(inside)
        self.nameservers = list(nameservers)
        self.process = None

    def __enter__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="hotcell-test.", dir="/run"))
        self.folder.chmod(0o755)
        self.state = self.folder / "state"
        self.state.mkdir(mode=0o700)
        user = pwd.getpwnam(SERVER_USER)
        os.chown(self.state, user.pw_uid, user.pw_gid)
        self.socket = self.folder / "hotcell.sock"
        self.target = f"unix:{self.socket}"
        self.log_path = self.folder / "log"
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def command(self):
        build = build_folder()
        return [
            *self.inside,
            str(build / "runtime/supervisor/hotcell-runtime"),
            "--run-dir", str(self.folder),
            "--store", os.environ.get("HOTCELL_STORE", "/var/lib/hotcell/templates"),
            "--init", str(build / "runtime/init/hotcell-init"),
            "--server-user", SERVER_USER,
            *self.egress_options(),
            *self.runtime_arguments,
            *([] if self.apart else ["--supervise", str(self.program), "--", *self.server_options()]),
        ]

    def egress_options(self):
        if not self.nameservers:
            return []
        return ["--egress", str(build_folder() / "runtime/egress/hotcell-egress"), "--egress-user", EGRESS_USER,
                *(f"--egress-nameserver={address}" for address in self.nameservers)]

    def server_options(self):
        return [
            "--unix", str(self.socket),
            "--runtime-socket", str(self.folder / "runtime.sock"),
            "--state-dir", str(self.state),
            *([f"--kernel-start-timeout={30 * PATIENCE}s"] if PATIENCE > 1 else []),
            *self.server_arguments,
        ]

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if self.apart and not self.server:
            # Before that only root may make a socket in the folder.
            wait_until((self.folder / "runtime.sock").exists, "the runtime listens")
            self.start_server()
        if self.wait:
            wait_until(self.is_ready, "ready")

    def start_server(self):
        """hotcelld as a process of ours."""
        with open(self.log_path, "ab") as log:
            # From its folder, which is entered as root: its user may be kept out of what is above.
            self.server = subprocess.Popen([f"./{self.program.name}", *self.server_options()], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                           user=SERVER_USER, group=SERVER_USER, extra_groups=[], cwd=self.program.parent)

    def is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"hotcell-runtime ended with {self.process.returncode}:\n{self.log()}")
        return subprocess.run([build_folder() / "cli/hotcell", "--target", self.target, "doctor"],
                              capture_output=True, check=False).returncode == 0

    def log(self):
        return self.log_path.read_text(errors="replace")

    def server_pid(self):
        """Process id of hotcelld: the runtime's child with that name."""
        return self.server.pid if self.apart else self.child_pid("hotcelld")

    def egress_pid(self):
        return self.child_pid("hotcell-egress")

    def child_pid(self, name):
        """Process id of the runtime's child with that program, or None."""
        for child in children(self.process.pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if name.encode() in pathlib.Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[0]:
                    return child
        return None

    def instance(self):
        """The name of the groups of the runtime that was started last."""
        return re.findall(r"instance=(hotcell-[a-z0-9]+)", self.log())[-1]

    def cgroups(self):
        """All cgroup folders of the runtime, in every hierarchy."""
        name = self.instance()
        # os.walk passes over folders that vanish meanwhile.
        return {folder for folder, _, _ in os.walk("/sys/fs/cgroup") if f"/{name}" in folder}

    def processes(self):
        """The runtime and all that comes from it."""
        return {self.process.pid, *descendants(self.process.pid)}

    def kill(self):
        """The runtime at once, without any order."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.server:
            self.server.terminate()
            self.server.wait(60 * PATIENCE)
            self.server = None
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60 * PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"hotcell-runtime did not stop:\n{self.log()}") from None
        return self.process.returncode if self.process else None

    def __exit__(self, *exc):
        try:
            self.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


def children(pid):
    """Of its first thread; none if it is gone."""
    try:
        text = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(word) for word in text.split()]


def descendants(pid):
    found = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def hotcell(daemons, *arguments, **options):
    """Runs the CLI against @daemons and returns the finished process."""
    options.setdefault("timeout", 120 * PATIENCE)
    options.setdefault("stdin", subprocess.DEVNULL if "input" not in options else None)
    if "input" in options:
        options.pop("stdin")
    return subprocess.run([build_folder() / "cli/hotcell", *map(str, arguments)], capture_output=True, check=False,
                          env={**os.environ, "HOTCELL_TARGET": daemons.target}, **options)
