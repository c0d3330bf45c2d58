#!/usr/bin/python3
"""Mixed load for minutes, with kills of hotcelld, and whether anything grows. `./dev bench soak` runs it.

Everything is compared with its own value after the first two minutes, so a soak takes at least four.
Exit code: 0 all bars met, 1 something failed, 2 wrong arguments, 3 a bar missed.
"""

import argparse
import json
import pathlib
import signal
import sys
import time

import machine
import report
import restarts
import soak_load
import stats
from soak_figures import FIGURES, Minute, judge, table
from soak_watch import Watch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import daemons  # noqa: E402  pylint: disable=wrong-import-position
import kills  # noqa: E402  pylint: disable=wrong-import-position
import stubs  # noqa: E402  pylint: disable=wrong-import-position

MINUTES_MIN = 4

# What is over is kept so little that it stops growing within two minutes.
BOUNDS = ["--retention-executions=2000", "--retention-sandboxes=200", "--retention-events=1000", "--request-ids-max=1000",
          "--rings-retained=8MiB"]


def minutes(text):
    number = int(text)
    if number < MINUTES_MIN:
        raise argparse.ArgumentTypeError(f"at least {MINUTES_MIN}: the first two are to settle in")
    return number


def parse_arguments():
    parser = argparse.ArgumentParser(prog="./dev bench soak", description=__doc__.splitlines()[0], epilog=__doc__.split("\n\n")[1])
    parser.add_argument("--minutes", type=minutes, default=10, metavar="N", help=f"how long (10, at least {MINUTES_MIN})")
    parser.add_argument("--kill-every", type=float, default=30, metavar="SECONDS", help="between kills of hotcelld (30)")
    parser.add_argument("--json", metavar="FILE", help="write everything there")
    return parser.parse_args()


def soak(arguments, running):
    """(minutes, load, restarted): one Minute for each, the Load, and the milliseconds until each new hotcelld served."""
    watch, load = Watch(running), soak_load.Load(running.target)
    done, restarted = [], []
    with load:
        start = time.monotonic()
        next_kill = start + arguments.kill_every
        for number in range(arguments.minutes):
            end = start + 60 * (number + 1)
            while time.monotonic() < end:
                if time.monotonic() >= next_kill:
                    restarted.append(kill(running))
                    next_kill = time.monotonic() + arguments.kill_every
                watch.look()
                time.sleep(0.5)
            done.append(Minute(load.take_latencies(), watch.take()))
            print(f"soak: minute {number + 1} of {arguments.minutes}: {len(done[-1].latencies_msec)} cells", file=sys.stderr, flush=True)
    return done, load, restarted


def _is_ready(client):
    return client.server.GetServerInfo(stubs.server_service.GetServerInfoRequest(), timeout=60).ready


def kill(running):
    """Milliseconds until the next hotcelld serves. It is asked and not `hotcell doctor`, which without a server loads the wall's programs anew."""
    begin = time.monotonic()
    kills.kill(running)
    daemons.wait_until(lambda: restarts.first(running.target, _is_ready), "serving again")
    return (time.monotonic() - begin) * 1000


def main():
    arguments = parse_arguments()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    result = {"machine": machine.describe(), "load_before": machine.load(), "minutes": arguments.minutes,
              "kill_every_seconds": arguments.kill_every}
    with daemons.Daemons(BOUNDS) as running:
        done, load, restarted = soak(arguments, running)
        verdicts = judge(done)
        result |= {
            "load_after": machine.load(), "restarts_msec": restarted, "counts": dict(load.counts), "failures": load.failures,
            "by_minute": [{name: figure.of(minute) for name, figure in FIGURES.items()} for minute in done],
            "bars": verdicts,
        }
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)
            file.write("\n")
    print(table(result))
    if load.failures:
        return report.EXIT_FAILED
    return report.EXIT_MISSED if any(one["verdict"] != stats.MET for one in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
