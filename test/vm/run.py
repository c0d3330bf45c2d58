#!/usr/bin/python3
"""Runs tests in a virtual machine with pure cgroup v2 (machine.py) and reports each as a line of TAP: run.py [SECTION…]

Environment: HOTCELL_BUILD, HOTCELL_STORE, as for the other tests.

The tests come as sections, each a program that speaks TAP, one after the other in one machine. A section that ends early, or counts
other than it planned, fails, and so does a machine that does not reach its end.
"""

import os
import pathlib
import platform
import re
import shlex
import shutil
import signal
import sys

import machine

ROOT = pathlib.Path(__file__).resolve().parents[2]
SECONDS = 1400  # until the end; some 600 beside other tests
PATIENCE = 10  # how much longer than elsewhere tests and daemons wait before they give up

TABLE = "egress-table.txt"

# Programs of the build folder, and files of tests for Debian's Python. The last one looks at what all of them left.
SECTIONS = {
    "seccomp_filter": "test/container/seccomp_filter_test",
    "isolation": "test/container/isolation_test",
    "spawner": "test/container/spawner_test",
    "egress_wall": "test/bpf/test_wall",
    "egress_redirect": "test/bpf/test_redirect",
    "egress_direct": "test/bpf/test_direct",
    "egress_direct_packets": "test/bpf/test_direct_packets",
    "egress_table": "test/egress/test_table.py",
    "meter": "test/bpf/test_meter",
    "meter_memory": "test/bpf/test_meter_memory",
    "meter_tables": "test/bpf/test_meter_tables",
    "runtime-meters": "test/supervisor/test_meters",
    "meter_workloads": "test/vm/test_meter.py",
    "runtime-start": "test/supervisor/test_start",
    "runtime-daemon": "test/supervisor/test_daemon",
    "runtime-limits": "test/supervisor/test_limits",
    "pure_v2": "test/vm/test_pure_v2.py",
    "traces": "test/vm/test_traces.py",
}

# Only when named: too long for every day.
ON_DEMAND = {"limits": "test/integration/test_limits.py"}


def make_script(build, template, sections):
    """What the machine runs. Whatever a section starts is in the root group, as without systemd."""
    quoted = {name: shlex.quote(str(value)) for name, value in
              {"build": build, "root": ROOT, "digest": template.name}.items()}
    lines = [
        "set -eu",
        "cd /run/disk",
        # The disk holds the template itself; a store is made around it, and a folder for tests with a template of their own.
        f"mkdir -p store/by-name store/{quoted['digest']} tmp",
        f"mv root tree manifest.json store/{quoted['digest']}/",
        f"ln -s ../{quoted['digest']} store/by-name/python",
        "mount --bind tmp /var/tmp",
        "cd /",
        "hostname hotcell-vm",
        "ulimit -n 32768",
        "export CK_TAP_LOG_FILE_NAME=- CK_VERBOSITY=silent PYTHONDONTWRITEBYTECODE=1",
        f"export CK_TIMEOUT_MULTIPLIER={PATIENCE} HOTCELL_TEST_PATIENCE={PATIENCE}",
        f"export HOTCELL_STORE=/run/disk/store HOTCELL_TEST_TEMPLATE_ROOT=/run/disk/store/{quoted['digest']}/root",
        f"export HOTCELL_TEST_TABLE=/run/job/{TABLE}",
        f"export HOTCELL_BUILD={quoted['build']} HOTCELL_CLI={quoted['build']}/cli/hotcell",
        'section() { local name=$1 begin=$SECONDS; shift; echo "BEGIN $name"; local code=0; "$@" || code=$?;'
        ' echo "END $code $((SECONDS - begin))"; }',
        'echo "MACHINE $(uname -r), controllers $(cat /sys/fs/cgroup/cgroup.controllers)"',
    ]
    for name, path in sections.items():
        is_python = path.endswith(".py")
        lines.append(f"section {name} " + (f"/usr/bin/python3 {quoted['root']}/test/lib/tap.py {quoted['root']}/{path}" if is_python
                                           else f"{quoted['build']}/{path}"))
    return "\n".join(lines) + "\n"


class Report:
    """Folds the sections into one stream of TAP."""

    def __init__(self, sections):
        self.missing = list(sections)
        self.n = 0
        self.n_failed = 0
        self.table = []
        self.section = None
        self.exit_code = None
        print("TAP version 13", flush=True)

    def case(self, good, name, comment=""):
        self.n += 1
        self.n_failed += not good
        if comment:
            self.comment(comment)
        print(f"{'ok' if good else 'not ok'} {self.n} {name}", flush=True)

    @staticmethod
    def comment(text):
        for line in text.splitlines():
            print(f"# {line}", flush=True)

    def line(self, line):
        word, _, rest = line.partition(" ")
        if word == "BEGIN":
            self.section, self.planned, self.counts = rest, None, [0, 0]
        elif word == "END" and self.section:
            self.end_section(*map(int, rest.split()))
        elif word == "EXITCODE":
            self.exit_code = int(rest)
        elif found := re.fullmatch(r"1\.\.(\d+)( # SKIP.*)?", line):
            self.planned = int(found[1])
            self.comment(line if found[2] else "")
        elif self.section and (found := re.fullmatch(r"(not )?ok \d+ (?:- )?(.*)", line)):
            self.section_case(not found[1], found[2])
        elif line and not line.startswith("TAP version"):
            self.comment(line.removeprefix("# "))

    def section_case(self, good, text):
        """Check's lines are `file:case:test: message`, those of tap.py just the test, or `test # SKIP why`."""
        found = re.fullmatch(r"\S+\.c:\w+:(\w+): (.*)", text)
        name, message = (found[1], found[2]) if found else (text, "")
        if "# SKIP" in name:
            name, good, message = name.partition(" #")[0], False, f"{name}: skipped, which is not allowed here"
        self.counts[not good] += 1
        self.case(good, f"{self.section}: {name}", "" if good else message)

    def end_section(self, code, seconds):
        n = sum(self.counts)
        if not n or n != self.planned or (code != 0) != (self.counts[1] > 0):
            self.counts[1] += 1
            self.case(False, f"{self.section}: runs to its end",
                      f"exit code {code} after {n} tests of {self.planned}, {self.counts[1] - 1} of which failed")
        self.table.append((self.section, *self.counts, seconds))
        if self.section in self.missing:
            self.missing.remove(self.section)
        self.section = None

    def finish(self, problem, kernel_log):
        if self.section:
            problem = f"{problem or 'it ended'} in {self.section}, after {sum(self.counts)} tests"
        elif self.exit_code != 0:
            problem = problem or f"its script ended with {self.exit_code}"
        if self.missing and not problem:
            problem = f"not run: {', '.join(self.missing)}"
        if problem or self.n_failed:
            self.comment("\n".join(["the kernel's messages:", *kernel_log]))
        self.case(not problem, "the machine runs to its end", problem or "")
        self.comment(f"{'section':<16}{'passed':>8}{'failed':>8}{'seconds':>9}")
        for name, good, bad, seconds in self.table:
            self.comment(f"{name:<16}{good:>8}{bad:>8}{seconds:>9}")
        print(f"1..{self.n}", flush=True)
        return 1 if self.n_failed else 0


def keep_table(job, logs):
    """For test/run, which shows it beside the host's own."""
    if (job / TABLE).exists() and logs.is_dir():
        shutil.move(job / TABLE, logs / "egress-table-vm.txt")


def leave(number, _frame):
    sys.exit(128 + number)  # through the context managers


def main():
    build = pathlib.Path(os.environ.get("HOTCELL_BUILD") or ROOT / "build").resolve()
    store = pathlib.Path(os.environ.get("HOTCELL_STORE") or "/var/lib/hotcell/templates")
    if platform.machine() != "x86_64":
        print(f"Bail out! the test machine is an amd64 one, this host is {platform.machine()}")
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    template = (store / "by-name/python").resolve(strict=True)
    folder = build / "vm"
    folder.mkdir(exist_ok=True)
    sections = {name: {**SECTIONS, **ON_DEMAND}[name] for name in sys.argv[1:]} or SECTIONS
    report = Report(sections)
    problem = None
    with machine.Machine(folder, template, make_script(build, template, sections)) as guest:
        try:
            for line in guest.lines(SECONDS):
                report.line(line)
        except TimeoutError as error:
            problem = "{} in {} s".format(*error.args)
        keep_table(guest.job, build / "meson-logs")
        shutil.rmtree(guest.job)
    return report.finish(problem, guest.kernel_log())


if __name__ == "__main__":
    sys.exit(main())
