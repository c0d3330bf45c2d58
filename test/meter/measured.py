"""What the tests of metering share: what hotcell says that was used, what cgroup files say, and how far apart these may be.

HOTCELL_TEST_METER_PROGRAMS=0: with a runtime that must do without its BPF programs.
"""

import dataclasses
import os
import pathlib

import scenario
import stubs
from daemons import PATIENCE

HERE = pathlib.Path(__file__).parent
PRELUDE = (HERE / "inside.py").read_text()
MIB = 1 << 20
HAS_PROGRAMS = os.environ.get("HOTCELL_TEST_METER_PROGRAMS", "1") != "0"
RUNTIME_ARGUMENTS = () if HAS_PROGRAMS else ("--no-meter-programs",)
BY_PROGRAMS = {"scheduled_time", "run_queue_wait", "context_switches", "earlier_work_time", "rss_peak_bytes"}
# What an execution is told of its whole sandbox: counted in its sandbox's records alone.
OF_THE_SANDBOX = {"throttled_periods", "throttled_time"}
# Where processors are emulated, what comes right before and after a cell takes longer, too, and the host takes time away that nobody is told of.
CPU_SHARE, CPU_USEC = 0.01, 2000 if PATIENCE == 1 else 50_000
RSS_SHARE, RSS_BYTES = 0.05, 2 * MIB


def usec(duration):
    return duration.ToMicroseconds()


def cpu_bar(of):
    return max(CPU_SHARE * of, CPU_USEC)


def rss_bar(of):
    return max(RSS_SHARE * of, RSS_BYTES)


@dataclasses.dataclass(frozen=True)
class Files:
    """What the files of a group say."""

    cpu_usec: int
    memory_peak_bytes: int | None  # None: no file says it


class Groups:
    """The directories of a context's leaf, or of a whole sandbox; in cgroup v1 there is one in each hierarchy. They are only read."""

    def __init__(self, running, sandbox_id, context_id=None):
        found = [pathlib.Path(path) for path in running.cgroups() if f"/sandbox-{sandbox_id}" in path]
        if context_id:
            self.folders = [path for path in found if f"-{context_id}-" in path.name]
        else:
            self.folders = [path for path in found if path.name == f"sandbox-{sandbox_id}"]
        assert self.folders, f"{sandbox_id} {context_id}: no groups among {found}"

    def _file(self, *names):
        """The first that exists."""
        return next((folder / name for name in names for folder in self.folders if (folder / name).exists()), None)

    def read(self):
        # Only groups of version 2 have this file, and cpu.stat with time in it.
        stat = self._file("cgroup.type").with_name("cpu.stat").read_text()
        peak = self._file("memory.peak", "memory.max_usage_in_bytes")
        return Files(int(stat.split("usage_usec ")[1].split()[0]), int(peak.read_text()) if peak else None)


def fields(usage, without=()):
    """By name; durations in microseconds."""
    found = {}
    for field in usage.DESCRIPTOR.fields:
        value = getattr(usage, field.name)
        if field.name == "missing":
            value = sorted(set(value) - set(without))  # a record names what it leaves out
        elif field.message_type:
            value = usec(value)
        if field.name not in without:
            found[field.name] = value
    return found


def get_execution(client, execution_id):
    request = stubs.execution_service.GetExecutionRequest(execution_id=execution_id)
    return client.executions.GetExecution(request, timeout=60 * PATIENCE).execution


def ledger(client, **query):
    """(records, sums) of all pages."""
    records, sums, token = [], None, ""
    while True:
        request = stubs.usage_service.GetUsageRequest(page_size=1000, page_token=token, **query)
        answer = client.usage.GetUsage(request, timeout=60 * PATIENCE)
        sums = sums or answer.sums
        records += answer.records
        token = answer.next_page_token
        if not token:
            return records, sums


def sandbox(client, **options):
    """One with room for what is in inside.py."""
    limits = {"cpu_millis": 2000, "disk_bytes": 256 * MIB, **options.pop("limits", {})}
    return scenario.create(client, memory=options.pop("memory", 1024 * MIB), limits=limits, **options).sandbox_id


def run(client, sandbox_id, code, **options):
    done = scenario.execute(client, sandbox_id, code, **options)
    assert done.outcome == "OK", f"{done.outcome} {done.error} {done.stderr.decode()}"
    return done


def new_context(client, sandbox_id):
    """With inside.py in it: its id."""
    request = stubs.execution_service.CreateContextRequest(sandbox_id=sandbox_id)
    context_id = client.executions.CreateContext(request, timeout=60 * PATIENCE).context.context_id
    run(client, sandbox_id, PRELUDE, context_id=context_id)
    return context_id
