"""What a soak measures each minute, and the bars: no figure may be much larger at the end than after two minutes. Pure."""

import dataclasses

import stats

MIB = 2**20
SETTLED = 2  # minutes


@dataclasses.dataclass(frozen=True)
class Minute:
    """What was seen in a minute: the latency of each cell, and of each look what `soak_watch` sees."""

    latencies_msec: list
    looks: list


@dataclasses.dataclass(frozen=True)
class Figure:
    """One column. The bar: at most @times its value of the settled minute, and @more."""

    unit: str
    times: float
    more: float
    of: object  # of a Minute

    def limit(self, settled):
        return settled * self.times + self.more


def _latency(share):
    return lambda minute: round(stats.quantile(minute.latencies_msec, share), 2)


def _most(name):
    return lambda minute: max((look[name] for look in minute.looks if name in look), default=0)


def _mib(name):
    return lambda minute: round(_most(name)(minute) / MIB, 2)


# A restart may fall into a minute or not, and others may use the machine: latencies have more room than sizes.
FIGURES = {
    "cells": Figure("", 0, 0, lambda minute: len(minute.latencies_msec)),
    "median": Figure("ms", 2, 5, _latency(0.5)),
    "p99": Figure("ms", 3, 500, _latency(0.99)),
    "hotcelld RSS": Figure("MiB", 1.2, 4, _mib("hotcelld_rss")),
    "runtime RSS": Figure("MiB", 1.2, 1, _mib("runtime_rss")),
    "spawner RSS": Figure("MiB", 1.2, 1, _mib("spawner_rss")),
    "hotcelld fds": Figure("", 1.2, 20, _most("hotcelld_fds")),
    "runtime fds": Figure("", 1.2, 20, _most("runtime_fds")),
    "database": Figure("MiB", 1.2, 1, _mib("database")),
    "WAL": Figure("MiB", 1.2, 4, _mib("wal")),
    "log": Figure("MiB", 0, 0, _mib("log")),
    "processes": Figure("", 1.2, 20, _most("processes")),
    "groups": Figure("", 1.2, 20, _most("groups")),
}
NOT_JUDGED = ("cells", "log")  # the log is not rotated here: what it gains is bounded by the minute
LOG_MIB_A_MINUTE = 1


def judge(minutes):
    """[{name, settled, last, limit, verdict}] of what the minute after two and the last one say."""
    settled, last = minutes[SETTLED], minutes[-1]
    rows = []
    for name, figure in FIGURES.items():
        if name not in NOT_JUDGED:
            rows.append(_row(name, figure.of(settled), figure.of(last), figure.limit(figure.of(settled))))
    sizes = [FIGURES["log"].of(minute) for minute in minutes]
    gained = (sizes[-1] - sizes[SETTLED - 1]) / (len(sizes) - SETTLED)
    rows.append(_row("log a minute", 0, round(gained, 3), LOG_MIB_A_MINUTE))
    return rows


def _row(name, settled, last, limit):
    limit = round(limit, 2)
    return {"name": name, "settled": settled, "last": last, "limit": limit, "verdict": stats.Bar(name, limit).judge(last)}


def table(result):
    """For people."""
    names = list(FIGURES)
    lines = ["minute " + "".join(f"{name:>14}" for name in names)]
    lines.append("       " + "".join(f"{FIGURES[name].unit:>14}" for name in names))
    for number, row in enumerate(result["by_minute"], 1):
        lines.append(f"{number:>6} " + "".join(f"{row[name]:>14}" for name in names))
    lines.append("\nThe largest that was seen in each minute. Restarted: " + _restarts(result["restarts_msec"]))
    lines.append("Load: " + ", ".join(f"{n} {name}" for name, n in sorted(result["counts"].items())))
    lines.append(f"\n{'bar':<14}{'minute ' + str(SETTLED + 1):>12}{'last':>12}{'at most':>12}")
    for row in result["bars"]:
        lines.append(f"{row['name']:<14}{row['settled']:>12}{row['last']:>12}{row['limit']:>12}  {row['verdict'].upper()}")
    lines += [f"FAILED: {text}" for text in result["failures"]]
    return "\n".join(lines)


def _restarts(samples):
    if not samples:
        return "never"
    return f"{len(samples)} times, serving again after {stats.median(samples):.0f} ms (median), {max(samples):.0f} ms (most)"
