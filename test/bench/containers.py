"""crun and bwrap on the template's root: containers that do nothing but run `true`."""

import contextlib
import copy
import json
import os
import pathlib
import shutil
import subprocess

from programs import Failed, Program

# What hotcelld gives a sandbox of whose limits nothing is said: as much work for the container's cgroups.
MEMORY_BYTES = 1 << 30
PROCESSES = 257
CPU_PERIOD_USEC = CPU_QUOTA_USEC = 100_000
FIRST_ID, N_IDS = 1_000_000_000, 65536

# crun refuses a host that has controllers in both dialects. What it sees here is version 1 alone; on other hosts
# nothing is there to be taken away. The template is bound read-only where everybody may look: it lies in a private folder.
PRIVATE_MOUNTS = """
set -e
mount --bind "$1" "$2"
mount -o remount,bind,ro "$2"
if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
shift 2
exec "$@"
"""


class Containers:
    """Runs containers in a mount namespace of its own. Use as a context manager."""

    def __init__(self, folder, build, template_root):
        self.folder = pathlib.Path(folder)
        self.build = pathlib.Path(build)
        self.root = self.folder / "root"
        self.template_root = template_root
        self.cgroup = f"hotcell-bench-{os.getpid()}"
        self.crun = shutil.which("crun")
        self.bwrap = shutil.which("bwrap")
        self.n_started = 0

    def __enter__(self):
        self.root.mkdir()
        with contextlib.ExitStack() as stack:
            stack.callback(self._remove_cgroups)  # when the runner has ended, and with it its last container
            self.runner = stack.enter_context(
                Program(
                    ["/usr/bin/unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", PRIVATE_MOUNTS, "bench",
                     self.template_root, self.root, self.build / "test/bench/runner"],
                    separator="\t",
                )
            )
            if self.crun:
                default = self._default_config()
                self._write_bundle("plain", default)
                self._write_bundle("walled", self._walled_config(default))
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.stack.close()

    def _write_bundle(self, name, config):
        bundle = self.folder / name
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(config))

    def _default_config(self):
        """`crun spec` as it comes, but for the program, its terminal and the root."""
        bundle = self.folder / "spec"
        bundle.mkdir()
        subprocess.run([self.crun, "spec"], cwd=bundle, check=True)
        config = json.loads((bundle / "config.json").read_text())
        config["process"]["terminal"] = False
        config["process"]["args"] = ["/usr/bin/true"]
        config["root"] = {"path": str(self.root), "readonly": True}
        config["linux"]["cgroupsPath"] = f"/{self.cgroup}/container"
        return config

    def _walled_config(self, default):
        """@default with what a sandbox of hotcell also has: ids and limits of its own, a filter of system calls."""
        config = copy.deepcopy(default)
        linux = config["linux"]
        mapping = [{"containerID": 0, "hostID": FIRST_ID, "size": N_IDS}]
        linux["uidMappings"] = linux["gidMappings"] = mapping
        linux["namespaces"].append({"type": "user"})
        linux["resources"]["memory"] = {"limit": MEMORY_BYTES}
        linux["resources"]["cpu"] = {"period": CPU_PERIOD_USEC, "quota": CPU_QUOTA_USEC}
        linux["resources"]["pids"] = {"limit": PROCESSES}
        linux["seccomp"] = json.loads(
            subprocess.run([self.build / "test/bench/seccomp_profile"], check=True, capture_output=True).stdout
        )
        return config

    def run_crun(self, bundle):
        """Nanoseconds of `crun run`: made, executed, over, removed."""
        self.n_started += 1
        name = f"bench-{os.getpid()}-{self.n_started}"
        return self._run(
            self.crun, "--root", self.folder / "crun", "--cgroup-manager", "cgroupfs", "run",
            "--bundle", self.folder / bundle, name,
        )

    def run_bwrap(self):
        """Nanoseconds of `bwrap --unshare-all`."""
        return self._run(
            self.bwrap, "--unshare-all", "--ro-bind", self.root, "/", "--proc", "/proc", "--dev", "/dev", "/usr/bin/true"
        )

    def _run(self, *command):
        nanoseconds, code = map(int, self.runner.ask(*command))
        if code != 0:
            raise Failed(f"{' '.join(map(str, command))}: exit code {code}")
        return nanoseconds

    def _remove_cgroups(self):
        for controller in pathlib.Path("/sys/fs/cgroup").glob(f"**/{self.cgroup}"):
            with contextlib.suppress(OSError):
                controller.rmdir()
