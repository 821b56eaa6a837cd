"""What a flow can take: throughput and latency by concurrency, from the metrics of loads, and what follows."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aetherflow.analysis.histograms import Histogram, merge_histograms
from aetherflow.analysis.metric_points import Series
from aetherflow.analysis.metrics import Job
from aetherflow.analysis.usl import Estimate, Law, Scaling, fit_scaling
from aetherflow.telemetry import conventions as names

__all__ = ["Capacity", "Level", "find_capacity", "replicas_for"]


@dataclass(frozen=True, slots=True)
class Level:
    """The loads of one kind.

    Attributes:
        concurrency: From how many threads.
        rate: Runs a second that were due; None where each thread started the next run when its own had ended.
        throughputs: Runs a second that ended well, of each load.
        latencies: Seconds from when a run was due to its end, of all.
        failures: Runs that failed.
        unserved: Runs that were due and never started.
    """

    concurrency: int
    rate: float | None
    throughputs: tuple[float, ...]
    latencies: Histogram
    failures: int
    unserved: int

    @property
    def throughput(self) -> float:
        """The mean of the throughputs."""
        return math.fsum(self.throughputs) / len(self.throughputs)


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a flow can take.

    Attributes:
        levels: The loads, by concurrency, those with a rate last.
        scaling: The law that throughput follows; None where there are too few levels for one.
        problem: Why there is none; else empty.
    """

    levels: tuple[Level, ...]
    scaling: Scaling | None
    problem: str


def find_capacity(jobs: Iterable[Job]) -> Capacity:
    """Find what a flow can take.

    Args:
        jobs: The loads: those that say their concurrency, as `aetherflow load` does. Others are passed over, and
            those in which nothing was called.
    """
    groups: defaultdict[tuple[float, int], list[Job]] = defaultdict(list)
    for job in jobs:
        said = dict(job.resource)
        concurrency, rate = _number(said.get(names.LOAD_CONCURRENCY)), _number(said.get(names.LOAD_RATE))
        if concurrency >= 1 and _latencies(job):
            groups[rate, round(concurrency)].append(job)
    levels = tuple(_level(concurrency, rate or None, found) for (rate, concurrency), found in sorted(groups.items()))
    closed = [level for level in levels if level.rate is None]
    measured = [(float(level.concurrency), rate) for level in closed for rate in level.throughputs if rate > 0]
    try:
        return Capacity(levels, fit_scaling(measured), "")
    except ValueError as error:
        return Capacity(levels, None, str(error))


def replicas_for(capacity: Capacity, rate: float, headroom: float) -> Estimate | None:
    """Give how many replicas a rate takes, each at its knee, or at the largest concurrency measured if that is less.

    Args:
        capacity: What one of them can take.
        rate: Runs a second that are wanted in all.
        headroom: The share of its throughput there that each is to keep free, 0 to 1.

    Returns:
        How many; None where it is not known how one scales.
    """
    if capacity.scaling is None:
        return None
    most = max(level.concurrency for level in capacity.levels if level.rate is None)

    def replicas(law: Law) -> float:
        return math.ceil(rate / (law.throughput(min(law.knee, most)) * (1 - headroom)) - 1e-9)

    return capacity.scaling.estimate(replicas)


def _level(concurrency: int, rate: float | None, jobs: Sequence[Job]) -> Level:
    latencies = [(series, histogram) for job in jobs for series, histogram in _latencies(job)]
    merged = merge_histograms(histogram for _, histogram in latencies)
    assert merged is not None
    errors = [(series.get(names.ERROR_TYPE), histogram.count) for series, histogram in latencies]
    return Level(
        concurrency,
        rate,
        tuple(map(_throughput, jobs)),
        merged,
        sum(count for error, count in errors if error not in (None, names.UNSERVED)),
        sum(count for error, count in errors if error == names.UNSERVED),
    )


def _throughput(job: Job) -> float:
    seconds = math.fsum(value for series, value in job.sums.items() if series.metric == names.LOAD_TIME.name)
    ended = sum(histogram.count for series, histogram in _latencies(job) if series.get(names.ERROR_TYPE) is None)
    return ended / seconds if seconds > 0 else 0.0


def _latencies(job: Job) -> list[tuple[Series, Histogram]]:
    """Give the latencies of a load; a series that nothing was recorded in has no quantiles, and says nothing."""
    known = ((series, each) for series, each in job.histograms.items() if series.metric == names.LOAD_LATENCY.name)
    return [(series, each) for series, each in known if each.count]


def _number(value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        return 0.0
    return number if math.isfinite(number) else 0.0
