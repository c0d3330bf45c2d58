"""Runs the tools of a build so that nothing of them is left, however the build ends.

Each runs as the first process of its own pid namespace and in its own mount
namespace: when it is killed, all of its children and mounts go with it. If the
builder itself is killed, the kernel does that (parent death signals).
"""

import os
import signal
import subprocess

_KEEP = ["setpriv", "--pdeathsig", "KILL", "--", "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL"]

# Gives the root what programs expect of a machine, in this mount namespace only, and enters it.
# Nothing of the host's /dev but these four nodes.
_ENTER_ROOT = """
set -e
root=$1 share=$2 user=$3
shift 3
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t tmpfs -o nosuid,mode=0755 tmpfs "$root/dev"
for node in null zero random urandom; do
    : > "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir -m 1777 "$root/dev/shm"
mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs "$root/tmp"
if [ -n "$share" ]; then
    mkdir "$root/tmp/share"
    mount --bind -o ro "$share" "$root/tmp/share"
fi
exec chroot --userspec="$user" "$root" "$@"
"""


class Failed(Exception):
    """A tool ended with an error; @log is what it said."""

    def __init__(self, argv, status, log):
        super().__init__(f"{os.path.basename(argv[0])} ended with status {status}")
        self.log = log


def run(argv, *, env, log, tick, stdin=None):
    """Runs a tool of the host. Its output goes to the file @log, and beside it what it leaves in TMPDIR when killed."""
    env = {**env, "TMPDIR": os.path.dirname(os.path.abspath(log))}
    return _run(_KEEP + ["--mount-proc", "--"] + argv, argv, env, log, tick, stdin)


def run_in_root(root, argv, *, env, log, tick, user="0:0", share=""):
    """Runs a program of @root, without any network; @share is seen there as /tmp/share."""
    enter = ["--net", "--ipc", "--uts", "--", "/bin/sh", "-c", _ENTER_ROOT, "enter", root, share, user]
    return _run(_KEEP + enter + argv, argv, env, log, tick, None)


def _run(command, argv, env, log, tick, stdin):
    with open(log, "w+b") as output:
        process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _feed(process, stdin)
            status = _wait(process, tick)
        except BaseException:
            _kill(process)
            raise
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    if status != 0:
        # A Ctrl-C that came before the tool had its own session ended it, too: that is no failure of the tool.
        tick()
        raise Failed(argv, status, text)
    return text


def _feed(process, stdin):
    if stdin is None:
        return
    try:
        process.stdin.write(stdin.encode())
        process.stdin.close()
    except BrokenPipeError:
        pass  # it ended early: its status says why


def _wait(process, tick):
    while True:
        try:
            return process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            tick()


def _kill(process):
    """Returns when every process of the tool's namespace is gone."""
    children = f"/proc/{process.pid}/task/{process.pid}/children"
    try:
        with open(children, encoding="ascii") as file:
            firsts = [int(pid) for pid in file.read().split()]
    except OSError:
        firsts = []
    # unshare's only child is pid 1 of the namespace: unshare can reap it only after all the others are gone.
    for pid in firsts or [process.pid]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait()
