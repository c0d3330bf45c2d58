#!/usr/bin/python3
"""What metering costs: programs in a sandbox, with the BPF programs of the meter attached and without, by turns. `./dev bench meter` runs it.

Each pair is one run with them and one without, in another order each time; its ratio is of wall times. Told are the median of all ratios with the
interval in which 95 of 100 such medians would be (bootstrap), and the times themselves. Then: what 5,000 leaves cost in which nothing happens.
Exit code: 0 all bars met, 1 something failed, 2 wrong arguments, 3 a bar missed.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import machine
import report
import stats
from programs import Failed, Program

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
import daemons  # noqa: E402  pylint: disable=wrong-import-position
import scenario  # noqa: E402  pylint: disable=wrong-import-position
import stubs  # noqa: E402  pylint: disable=wrong-import-position

PAIRS = 400
PAIRS_MIN = 10  # below that an interval says nothing
SETTLE_SECONDS = 0.005  # after a switch, which interrupts all CPUs
RATIO = 1.01
IDLE, LEAVES = "idle", 5000


@dataclasses.dataclass(frozen=True)
class Workload:
    name: str
    code: str
    n: int  # of what a time is told of
    what: str
    bar: float | None = None


WORKLOADS = [
    Workload("ping-pong", "ping_pong, 3000", 6000, "one message between two processes on one CPU, each a switch"),
    Workload("fork", "fork_load, 8", 8, "one shell command that starts four processes, as a build of a kernel does", RATIO),
    Workload("pandas", "pandas_script", 1, "a join, a grouping and a search over 100,000 rows", RATIO),
]


@dataclasses.dataclass
class Result:
    """Nanoseconds of each run, pair by pair."""

    workload: Workload
    on: list = dataclasses.field(default_factory=list)
    off: list = dataclasses.field(default_factory=list)
    cpu_on: list = dataclasses.field(default_factory=list)
    cpu_off: list = dataclasses.field(default_factory=list)

    def ratios(self):
        return [on / off for on, off in zip(self.on, self.off)]

    def cpu_ratios(self):
        return [on / off for on, off in zip(self.cpu_on, self.cpu_off)]

    def verdict(self):
        if self.workload.bar is None:
            return None
        return stats.Bar("median ratio", self.workload.bar).judge(stats.median(self.ratios()))

    def as_json(self):
        return {"name": self.workload.name, "pairs": len(self.on), "bar": self.workload.bar, "verdict": self.verdict(),
                "ratio": stats.median(self.ratios()), "interval": stats.median_interval(self.ratios()),
                "cpu_ratio": stats.median(self.cpu_ratios()), "cpu_interval": stats.median_interval(self.cpu_ratios()),
                "on": dataclasses.asdict(stats.Summary.of(self.on)), "off": dataclasses.asdict(stats.Summary.of(self.off))}


class Bench:
    """A sandbox whose runtime measures by files alone, and programs that measure its context and can be taken away. A context manager."""

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            running = stack.enter_context(daemons.Daemons(runtime_arguments=["--no-meter-programs"]))
            self.client = stack.enter_context(stubs.Client(running.target))
            limits = {"cpu_millis": 2000, "disk_bytes": 64 << 20}
            self.sandbox_id = scenario.create(self.client, memory=1 << 30, limits=limits).sandbox_id
            context_id = self.run((HERE / "meter_programs.py").read_text(encoding="utf-8") + "prepare_pandas(100_000)\n").context_id
            groups = [path for path in running.cgroups()
                      if f"-{context_id}-" in pathlib.Path(path).name and (pathlib.Path(path) / "cgroup.type").exists()]
            if len(groups) != 1:
                raise Failed(f"{len(groups)} groups of version 2 for the context")
            self.switch = stack.enter_context(Program([daemons.build_folder() / "test/bench/meter_switch", groups[0]]))
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.stack.close()

    def run(self, code):
        done = scenario.execute(self.client, self.sandbox_id, code)
        if done.outcome != "OK":
            raise Failed(f"`{code[-100:]}` in a sandbox: {done.outcome} {done.error.value if done.error else ''}")
        return done

    def sample(self, workload, is_on):
        """(nanoseconds of wall time, of CPU time)."""
        self.switch.ask("on" if is_on else "off")
        time.sleep(SETTLE_SECONDS)
        return json.loads(self.run(f"timed({workload.code})").stdout)

    def measure(self, workload, n_pairs):
        result = Result(workload)
        for is_on in (True, False):
            self.sample(workload, is_on)
        for n in range(n_pairs):
            for is_on in ((True, False), (False, True))[n % 2]:
                wall, cpu = self.sample(workload, is_on)
                (result.on if is_on else result.off).append(wall)
                (result.cpu_on if is_on else result.cpu_off).append(cpu)
        self.check(workload)
        return result

    def check(self, workload):
        """What is compared was there, and measured: else there would be nothing to see."""
        self.switch.ask("on")
        _, before = self.switch.ask("read")
        self.run(f"timed({workload.code})")
        _, after = self.switch.ask("read")
        if int(after) <= int(before):
            raise Failed(f"{workload.name}: the programs saw no switch")


def measure_workloads(workloads, n_pairs):
    if not workloads:
        return []
    results = []
    with Bench() as bench:
        for workload in workloads:
            print(f"bench: measuring {workload.name}", file=sys.stderr, flush=True)
            results.append(bench.measure(workload, n_pairs))
    return results


def measure_idle():
    """(what it says, whether the bar is met), by the test that does so with fewer leaves."""
    environment = {**os.environ, "HOTCELL_TEST_LEAVES": str(LEAVES), "CK_TAP_LOG_FILE_NAME": "-", "CK_VERBOSITY": "silent"}
    done = subprocess.run([daemons.build_folder() / "test/meter/test_idle"], env=environment, stdout=subprocess.PIPE, text=True, check=False)
    said = next((line[2:] for line in done.stdout.splitlines() if line.startswith("# ")), None)
    if not said:
        raise Failed(f"test_idle ended with {done.returncode}:\n{done.stdout}")
    return said, stats.MET if done.returncode == 0 else stats.MISSED


def pairs(text):
    number = int(text)
    if number < PAIRS_MIN:
        raise argparse.ArgumentTypeError(f"at least {PAIRS_MIN}")
    return number


def parse_arguments():
    parser = argparse.ArgumentParser(prog="./dev bench meter", description=__doc__.splitlines()[0], epilog=__doc__.split("\n\n")[1])
    parser.add_argument("--pairs", type=pairs, default=PAIRS, metavar="N", help=f"of runs, of each program ({PAIRS})")
    parser.add_argument("--only", action="append", choices=[*(workload.name for workload in WORKLOADS), IDLE], help="only this; may be repeated")
    parser.add_argument("--json", metavar="FILE", help="write everything there")
    return parser.parse_args()


def interval_text(ratios):
    low, high = stats.median_interval(ratios)
    return f"{stats.median(ratios):.4f} [{low:.4f}, {high:.4f}]"


def show(results):
    print(f"{'program':<12}{'with':>11}{'without':>11}  {'ratio and its interval':<26}{'of CPU time':<26}{'p99':>10}{'without':>10}{'pairs':>7}")
    for result in results:
        on, off = stats.Summary.of(result.on), stats.Summary.of(result.off)
        times = [f"{value / result.workload.n / 1000:.2f}" for value in (on.median, off.median, on.p99, off.p99)]
        verdict = result.verdict()
        bar = f"  bar: at most {result.workload.bar}: {verdict.upper()}" if verdict else ""
        print(f"{result.workload.name:<12}{times[0]:>11}{times[1]:>11}  {interval_text(result.ratios()):<26}{interval_text(result.cpu_ratios()):<26}"
              f"{times[2]:>10}{times[3]:>10}{len(result.on):>7}{bar}")
    print("\nTimes are in microseconds, of:")
    for result in results:
        print(f"  {result.workload.name}: {result.workload.what}")


def main():
    arguments = parse_arguments()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    host, before = machine.describe(), machine.load()
    try:
        results = measure_workloads([one for one in WORKLOADS if one.name in (arguments.only or [one.name])], arguments.pairs)
        idle = measure_idle() if IDLE in (arguments.only or [IDLE]) else None
    except (Failed, OSError, AssertionError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return report.EXIT_FAILED
    print(f"{host['cpus']} x {host['cpu']}, Linux {host['kernel']}; load average {' '.join(before)} before, {' '.join(machine.load())} after\n")
    if results:
        show(results)
    if idle:
        print(f"\n{idle[0]}; bar: less than 1 %: {idle[1].upper()}")
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps({"machine": host, "figures": [r.as_json() for r in results], "idle": idle}, indent=2) + "\n")
    verdicts = [*(result.verdict() for result in results), idle and idle[1]]
    return report.EXIT_MISSED if stats.MISSED in verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
