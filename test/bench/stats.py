"""Quantiles of samples, and bars that a figure has to meet. Pure: no clock, no machine."""

import dataclasses
import math
import random

# A figure may miss its bar, meet it, or have nothing to be held against.
MET, MISSED, NOT_JUDGED = "met", "missed", "not judged"


def quantile(samples, q):
    """The smallest sample that at least a share @q of all does not exceed: always one that was measured."""
    if not samples:
        raise ValueError("no samples")
    if not 0 <= q <= 1:
        raise ValueError(f"no share: {q}")
    ordered = sorted(samples)
    # Less a little, for 0.07 * 100 is more than 7.
    return ordered[max(0, math.ceil(q * len(ordered) - 1e-9) - 1)]


def median(samples):
    """The middle sample, or the mean of the two in the middle."""
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def median_interval(samples, n_resamples=2000):
    """(low, high): where 95 of 100 medians of as many samples would be, by resampling these. The same for the same samples."""
    draw = random.Random(1)
    medians = [median(draw.choices(samples, k=len(samples))) for _ in range(n_resamples)]
    return quantile(medians, 0.025), quantile(medians, 0.975)


@dataclasses.dataclass(frozen=True)
class Summary:
    """What is kept of a series of samples."""

    n: int
    min: float
    p1: float
    p10: float
    median: float
    p90: float
    p99: float
    max: float
    mean: float

    @staticmethod
    def of(samples):
        return Summary(
            n=len(samples),
            min=quantile(samples, 0),
            p1=quantile(samples, 0.01),
            p10=quantile(samples, 0.1),
            median=median(samples),
            p90=quantile(samples, 0.9),
            p99=quantile(samples, 0.99),
            max=quantile(samples, 1),
            mean=sum(samples) / len(samples),
        )


@dataclasses.dataclass(frozen=True)
class Bar:
    """A limit for a median, or for the slow end of the samples. A @limit of None could not be known: what it is made of was
    not measured. @of: the name of the series, if not that of the figure itself."""

    text: str
    limit: float | None
    more_is_better: bool = False
    of_slow_end: bool = False
    of: str | None = None

    def judge(self, value):
        if value is None or self.limit is None:
            return NOT_JUDGED
        if self.more_is_better:
            return MET if value >= self.limit else MISSED
        return MET if value <= self.limit else MISSED


def ratio(ours, theirs):
    """How many times theirs ours is, or None."""
    return ours / theirs if ours is not None and theirs else None


def worst(verdicts):
    """What a whole run comes to."""
    for verdict in (MISSED, NOT_JUDGED):
        if verdict in verdicts:
            return verdict
    return MET
