"""Looks at the daemons from outside: memory, descriptors, files."""

import os
import pathlib

import machine


def _descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def _size(path):
    return path.stat().st_size if path.exists() else 0


class Watch:
    """Keeps what it saw until it is taken."""

    def __init__(self, running):
        self.running = running
        self.looks = []

    def look(self):
        state, runtime = pathlib.Path(self.running.state), self.running.process.pid
        look = {
            "database": _size(state / "hotcell.db"), "wal": _size(state / "hotcell.db-wal"), "log": _size(self.running.log_path),
            "runtime_rss": machine.resident_bytes(runtime), "runtime_fds": _descriptors(runtime),
            "processes": len(machine.children(runtime)), "groups": len(self.running.cgroups()),
        }
        for pid in machine.children(runtime):
            try:
                look |= self._of_child(pid)
            except (OSError, AttributeError):
                pass  # it ended meanwhile
        self.looks.append(look)

    @staticmethod
    def _of_child(pid):
        name = {"hotcelld": "hotcelld", "hotcell-runtime": "spawner"}.get(machine.program_of(pid))
        return {f"{name}_rss": machine.resident_bytes(pid), f"{name}_fds": _descriptors(pid)} if name else {}

    def take(self):
        looks, self.looks = self.looks, []
        return looks
