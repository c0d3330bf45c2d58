"""Figures as a table for people and as JSON for programs."""

import dataclasses
import functools

import stats

# What a unit is shown in, and divided by for that.
SHOWN = {"ns": ("ms", 1e6), "B": ("MiB", 2**20), "B/s": ("MiB/s", 2**20)}
EXIT_FAILED, EXIT_MISSED, EXIT_NOT_JUDGED = 1, 3, 4


@dataclasses.dataclass(frozen=True)
class Series:
    """Samples of one side, with what they include."""

    name: str
    unit: str
    includes: str
    samples: list
    is_ours: bool = False  # more of hotcell, not a comparison

    @functools.cached_property
    def summary(self):
        return stats.Summary.of(self.samples)

    def slow_end(self):
        """The 99th percentile of times and sizes; of rates, where less is worse, the first."""
        return self.summary.p1 if self.unit == "B/s" else self.summary.p99

    def shown(self, value):
        return f"{value / SHOWN[self.unit][1]:.2f}"

    def as_json(self):
        return {"name": self.name, "unit": self.unit, "includes": self.includes, **dataclasses.asdict(self.summary)}


@dataclasses.dataclass(frozen=True)
class Figure:
    """What hotcell took, what others took beside it, and the bars."""

    name: str
    ours: Series
    beside: list
    bars: list

    def verdict(self, bar):
        series = next(one for one in (self.ours, *self.beside) if bar.of in (None, one.name))
        return bar.judge(series.slow_end() if bar.of_slow_end else series.summary.median)

    def verdicts(self):
        return [self.verdict(bar) for bar in self.bars]

    def as_json(self):
        ours = self.ours.summary.median
        return {
            "name": self.name,
            "hotcell": self.ours.as_json(),
            "beside": [{**s.as_json(), "ratio": _ratio(ours, s)} for s in self.beside],
            "bars": [{**dataclasses.asdict(bar), "verdict": self.verdict(bar)} for bar in self.bars],
        }


def _ratio(ours, series):
    return None if series.is_ours else stats.ratio(ours, series.summary.median)


def exit_code(figures, failures):
    if failures:
        return EXIT_FAILED
    verdict = stats.worst([verdict for figure in figures for verdict in figure.verdicts()])
    return {stats.MISSED: EXIT_MISSED, stats.NOT_JUDGED: EXIT_NOT_JUDGED}.get(verdict, 0)


def _row(name, series, ratio=""):
    summary = series.summary
    return (
        f"{name:<19}{series.name:<38}{series.shown(summary.median):>10}{series.shown(series.slow_end()):>10}"
        f" {SHOWN[series.unit][0]:<6}{summary.n:>5}{ratio:>10}"
    )


def _bar_row(figure, bar):
    limit = "unknown" if bar.limit is None else f"{figure.ours.shown(bar.limit)} {SHOWN[figure.ours.unit][0]}"
    return f"{'':<19}bar: {bar.text} ({limit}): {figure.verdict(bar).upper()}"


def table(figures):
    """One block for each figure, ours first; a ratio is ours to theirs."""
    lines = [f"{'figure':<19}{'':<38}{'median':>10}{'p99':>10} {'':<6}{'n':>5}{'ratio':>10}"]
    for figure in figures:
        lines.append("")
        lines.append(_row(figure.name, figure.ours))
        for series in figure.beside:
            times = _ratio(figure.ours.summary.median, series)
            lines.append(_row("", series, f"{times:.2f}x" if times else ""))
        lines += [_bar_row(figure, bar) for bar in figure.bars]
    return "\n".join(lines)


def notes(figures):
    """What each side's figure includes."""
    lines = [
        "A ratio is hotcell's median to theirs. p99 is the slow end: of rates the 1st percentile; of fewer than 100 samples the worst.",
        "What the figures include:",
    ]
    for figure in figures:
        for series in (figure.ours, *figure.beside):
            lines.append(f"  {figure.name}, {series.name}: {series.includes}")
    return "\n".join(lines)
