#!/usr/bin/python3
"""Measures hotcell beside other tools in the same run. `./dev bench` starts the daemons and then this.

Exit code: 0 all bars met, 1 something failed, 2 wrong arguments, 3 a bar missed, 4 a bar could not be judged.
"""

import argparse
import json
import os
import signal
import sys

import egress_figures
import figures
import jupyter
import machine
import report
from lab import Lab
from programs import Failed

# How many samples of each; how much output a sample of stdout is.
FULL = {
    "create": 100, "delete": 30, "cold": 15, "warm": 200, "stdout": 7, "stdout_mib": 256, "memory": 5, "restart": 9,
    "egress-connect": 25, "egress-round-trip": 25, "egress-throughput": 7, "egress_mib": 256, "egress-dns": 16, "egress-update": 20, "egress-cut": 20,
    "egress-create": 100,
}
QUICK = {
    "create": 15, "delete": 5, "cold": 3, "warm": 30, "stdout": 3, "stdout_mib": 64, "memory": 2, "restart": 3,
    "egress-connect": 4, "egress-round-trip": 4, "egress-throughput": 3, "egress_mib": 64, "egress-dns": 4, "egress-update": 3, "egress-cut": 4,
    "egress-create": 15,
}
ALL = figures.ALL | egress_figures.ALL
GROUPS = {"egress": list(egress_figures.ALL)}  # figures that `--only` names at once


def parse_arguments():
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__.splitlines()[0])
    parser.add_argument("--runtime-pid", type=int, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--json", metavar="FILE", help="write everything there")
    parser.add_argument("--quick", action="store_true", help="few samples: a look, not a measurement")
    parser.add_argument("--only", action="append", choices=[*ALL, *GROUPS], help="only this figure; may be repeated")
    parser.add_argument("--gap", type=float, default=60, metavar="MS", help="idle time before each sample (60)")
    return parser.parse_args()


def versions(lab):
    return {
        "hotcell": machine.first_line(lab.build / "cli/hotcell", "--version"),
        "grpc": " ".join(lab.hotcell.greeting),
        "crun": machine.first_line("crun", "--version"),
        "bwrap": machine.first_line("bwrap", "--version"),
        "nft": machine.first_line("nft", "--version"),
        "ipykernel": None if jupyter.missing else jupyter.ipykernel.__version__,
    }


def chosen(only):
    """Names of the figures that `--only` means: all, unless it was given."""
    return list(dict.fromkeys(name for word in only or ALL for name in GROUPS.get(word, [word])))


def measure(lab, arguments):
    """(figures, failures): what fails does not keep the rest from being measured."""
    done, failures = [], []
    counts = QUICK if arguments.quick else FULL
    for name in chosen(arguments.only):
        print(f"bench: measuring {name}", file=sys.stderr, flush=True)
        try:
            done.append(ALL[name](lab, counts))
        except (Failed, OSError, RuntimeError) as error:
            failures.append(f"{name}: {error}")
    return done, failures


def show(result, done):
    host = result["machine"]
    print(f"{host['cpus']} x {host['cpu']}, Linux {host['kernel']}, cgroups {host['cgroups']}")
    print(f"load average {' '.join(result['load_before'])} before, {' '.join(result['load_after'])} after; "
          f"{result['gap_ms']:g} ms idle before each sample; all sides in one run, by turns")
    print("\n" + report.table(done) + "\n\n" + report.notes(done))
    for line in result["missing"]:
        print(f"NOT MEASURED: {line}")
    for line in result["failures"]:
        print(f"FAILED: {line}")


def main():
    arguments = parse_arguments()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    result = {"machine": machine.describe(), "load_before": machine.load(), "gap_ms": arguments.gap, "quick": arguments.quick}
    lab = Lab(os.environ["HOTCELL_TARGET"], os.environ["HOTCELL_BUILD"], os.environ["HOTCELL_STORE"],
              arguments.runtime_pid, arguments.gap / 1000)
    try:
        with lab:
            result["versions"] = versions(lab)
            done, failures = measure(lab, arguments)
    except (Failed, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return report.EXIT_FAILED
    result |= {"load_after": machine.load(), "missing": lab.missing, "failures": failures,
               "figures": [figure.as_json() for figure in done]}
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)
            file.write("\n")
    show(result, done)
    return report.exit_code(done, failures)


if __name__ == "__main__":
    sys.exit(main())
