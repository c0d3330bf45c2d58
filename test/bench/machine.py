"""What the figures were measured on."""

import os
import pathlib
import platform
import shutil
import subprocess


def first_line(*command):
    """What a program says of its version, or None when it is not there."""
    if not shutil.which(str(command[0])):
        return None
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    lines = (result.stdout or result.stderr).splitlines()
    return lines[0].strip() if lines else None


def _field(path, name):
    for line in pathlib.Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def describe():
    memory = _field("/proc/meminfo", "MemTotal")
    return {
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": int(memory.split()[0]) * 1024,
        "kernel": platform.release(),
        "cgroups": "v2" if pathlib.Path("/sys/fs/cgroup/cgroup.controllers").exists() else "v1 or hybrid",
    }


def load():
    return pathlib.Path("/proc/loadavg").read_text().split()[:3]


def children(pid):
    return [int(word) for word in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def program_of(pid):
    return os.path.basename(pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace"))


def resident_bytes(pid):
    """RSS of a process."""
    return int(_field(f"/proc/{pid}/status", "VmRSS").split()[0]) * 1024
