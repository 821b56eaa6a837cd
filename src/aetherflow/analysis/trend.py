"""How nodes went over a long series of runs, and where they changed for good."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Final, Literal, TypeAlias

from aetherflow.analysis.distributions import t_survival
from aetherflow.analysis.metrics import Job
from aetherflow.analysis.node_samples import NodeKey, comparable_durations, sample_of
from aetherflow.analysis.rates import WARNING_LIMITS, RateKey, observe_rates
from aetherflow.analysis.shifts import FEWEST_FOR_FACTOR
from aetherflow.errors import MissingExtraError
from aetherflow.telemetry.conventions import NODE_DURATION, VCS_REVISION

__all__ = ["ChangePoint", "Detector", "Method", "RateTrend", "Trend", "find_rate_trends", "find_steps", "find_trends"]

Method: TypeAlias = Literal["steps", "otava"]
Detector: TypeAlias = Callable[[Sequence[float]], list[int]]
"""Takes a series of logarithms and gives the indexes at which a new level begins, in ascending order."""

_SHORTEST: Final = 5
"""Runs on either side that a change must have lasted for."""
_ALPHA: Final = 0.001
_FLOOR: Final = 0.01**2
_TYPICAL_DIFFERENCE: Final = 0.954
"""Median absolute difference of two normal values, in their standard deviation."""
_WINDOW: Final = 50
_RATE_LIMIT: Final = 0.10
"""The smallest change of the odds, as a fraction, that counts as a change of a rate."""


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """A change that stayed.

    Attributes:
        index: The first run of the new level.
        run: The name of that run.
        time: When it began, in nanoseconds since the epoch.
        revision: The commit that it was of; None where that is not known.
        change: From the previous level to the new one, as a fraction; for a rate, the difference.
    """

    index: int
    run: str
    time: int
    revision: str | None
    change: float


@dataclass(frozen=True, slots=True)
class Trend:
    """A node over a series of runs.

    Attributes:
        key: The node; None for what all of them had in common, relative to its typical value.
        values: Its medians, in seconds without what the machines did, by index of the run; not every run has it.
        changes: Where it changed for good.
    """

    key: NodeKey | None
    values: Mapping[int, float]
    changes: tuple[ChangePoint, ...]


@dataclass(frozen=True, slots=True)
class RateTrend:
    """A rate over a series of runs.

    Attributes:
        key: The rate.
        values: The values of the rate by index of the run; a run without the rate has none.
        changes: Lasting changes, of at least the size from which the gate warns.
    """

    key: RateKey
    values: Mapping[int, float]
    changes: tuple[ChangePoint, ...]


def find_trends(jobs: Sequence[Job], *, limit: float = 0.10, method: Method = "steps") -> list[Trend]:
    """Find how nodes went.

    Args:
        jobs: The runs, the oldest first.
        limit: The smallest change that is told, as a fraction.
        method: ``steps`` looks for splits that part a series best, one after the other; ``otava`` is Apache Otava's.

    Returns:
        The nodes, those that changed last first, and at the end what they had in common, where that can be told.

    Raises:
        ConfigurationError: Apache Otava is asked for and not installed.
    """
    detect = _otava(limit) if method == "otava" else lambda logs: find_steps(logs, limit)
    logs = _medians(jobs)
    factors = _factors(logs)
    own = {
        key: {index: value - factors.get(index, 0.0) for index, value in values.items()} for key, values in logs.items()
    }
    trends = [_trend(key, values, jobs, detect) for key, values in own.items()]
    trends.sort(key=lambda trend: (-trend.changes[-1].index if trend.changes else 0, str(trend.key)))
    return [*trends, _trend(None, factors, jobs, detect)] if factors else trends


def find_rate_trends(jobs: Sequence[Job], *, method: Method = "steps") -> list[RateTrend]:
    """Find lasting changes of hit ratios, retry rates and error rates.

    Args:
        jobs: The runs, the oldest first.
        method: As for `find_trends`.

    Returns:
        The rates that were ever above 0, in the order of their keys.

    Raises:
        ConfigurationError: Apache Otava is asked for and not installed.
    """
    detect = _otava(_RATE_LIMIT) if method == "otava" else lambda logs: find_steps(logs, _RATE_LIMIT)
    rates = [observe_rates(job) for job in jobs]
    keys = sorted({key for each in rates for key, rate in each.items() if key.rate != "throughput" and rate.part})
    trends = []
    for key in keys:
        series = {index: each[key] for index, each in enumerate(rates) if key in each and each[key].whole}
        values = {index: rate.part / rate.whole for index, rate in series.items()}
        steps = detect([rate.sample(key.rate).x for rate in series.values()])
        changes = _changes(list(values), list(values.values()), steps, jobs)
        notable = (change for change in changes if abs(change.change) >= WARNING_LIMITS[key.rate])
        trends.append(RateTrend(key, values, tuple(notable)))
    return trends


def find_steps(logs: Sequence[float], limit: float) -> list[int]:
    """Find where a series steps to another level, by splitting it where its parts differ most, again and again.

    Args:
        logs: Logarithms.
        limit: The smallest step, as a fraction.

    Returns:
        The indexes at which new levels begin.
    """
    noise = _noise(logs)
    found: list[int] = []
    waiting = [(0, len(logs))]
    while waiting:
        low, high = waiting.pop()
        splits = range(low + _SHORTEST, high - _SHORTEST + 1)
        if not splits:
            continue
        best = max(splits, key=lambda at: _distance(logs[low:at], logs[at:high], noise))
        # The noise is that of the whole series: within a part it would hide a step that is taken back later.
        if 2 * t_survival(_distance(logs[low:best], logs[best:high], noise), len(logs)) * len(splits) < _ALPHA:
            found.append(best)
            waiting += [(low, best), (best, high)]
    return _confirmed(logs, sorted(found), limit)


def _noise(logs: Sequence[float]) -> float:
    """Estimate the variance about the levels from one run to the next, where few steps do not matter."""
    if len(logs) <= 1:
        return _FLOOR
    typical = statistics.median(abs(after - before) for before, after in itertools.pairwise(logs))
    return max(_FLOOR, (typical / _TYPICAL_DIFFERENCE) ** 2)


def _confirmed(logs: Sequence[float], found: list[int], limit: float) -> list[int]:
    """Leave out the step that is most easily explained by noise on either side of it, until none is."""
    edges = [0, *found, len(logs)]
    doubts = {}
    for place, at in enumerate(found, 1):
        before, after = logs[edges[place - 1] : at], logs[at : edges[place + 1]]
        p = 2 * t_survival(_distance(before, after, _variance(before, after)), len(before) + len(after) - 2)
        small = abs(statistics.fmean(after) - statistics.fmean(before)) < math.log1p(limit)
        if p >= _ALPHA or small:
            doubts[at] = 1.0 if small else p
    if not doubts:
        return found
    worst = max(doubts, key=doubts.__getitem__)
    return _confirmed(logs, [at for at in found if at != worst], limit)


def _variance(before: Sequence[float], after: Sequence[float]) -> float:
    """Give the variance within two parts, about the mean of each."""
    centres = statistics.fmean(before), statistics.fmean(after)
    squares = math.fsum((value - centres[0]) ** 2 for value in before)
    squares += math.fsum((value - centres[1]) ** 2 for value in after)
    return max(_FLOOR, squares / (len(before) + len(after) - 2))


def _distance(before: Sequence[float], after: Sequence[float], variance: float) -> float:
    """Give how many standard errors two parts are apart."""
    apart = abs(statistics.fmean(after) - statistics.fmean(before))
    return apart / math.sqrt(variance * (1 / len(before) + 1 / len(after)))


def _otava(limit: float) -> Detector:
    try:
        find: Any = import_module("otava.analysis").compute_change_points
    except ImportError as error:
        raise MissingExtraError("the method 'otava' (the default is 'steps')", "apache-otava", "trend") from error

    def detect(logs: Sequence[float]) -> list[int]:
        values = [math.exp(value - logs[0]) for value in logs]
        points, _ = find(values, window_len=_WINDOW, max_pvalue=_ALPHA, min_magnitude=limit)
        return sorted(int(point.index) for point in points)

    return detect


def _medians(jobs: Sequence[Job]) -> dict[NodeKey, dict[int, float]]:
    found: defaultdict[NodeKey, dict[int, float]] = defaultdict(dict)
    for index, durations in enumerate(comparable_durations(jobs)):
        for key, histogram in durations.items():
            if sample := sample_of(histogram, fine=histogram.is_fine):
                found[key][index] = sample.x
    return dict(found)


def _factors(logs: Mapping[NodeKey, Mapping[int, float]]) -> dict[int, float]:
    """Find what the machine of each run did to all nodes."""
    distances: defaultdict[int, list[float]] = defaultdict(list)
    for key, values in logs.items():
        if key.metric == NODE_DURATION.name:
            centre = statistics.median(values.values())
            for index, value in values.items():
                distances[index].append(value - centre)
    enough = all(len(each) >= FEWEST_FOR_FACTOR for each in distances.values())
    return {index: statistics.median(distances[index]) for index in sorted(distances)} if enough else {}


def _trend(key: NodeKey | None, values: Mapping[int, float], jobs: Sequence[Job], detect: Detector) -> Trend:
    indexes, logs = list(values), list(values.values())
    seconds = {index: math.exp(value) for index, value in values.items()}
    changes = _changes(indexes, logs, detect(logs), jobs)
    return Trend(key, seconds, tuple(replace(each, change=math.expm1(each.change)) for each in changes))


def _changes(
    indexes: Sequence[int], values: Sequence[float], steps: Sequence[int], jobs: Sequence[Job]
) -> Iterator[ChangePoint]:
    """Yield the steps of a series, each with the difference of the levels before and after it."""
    edges = [0, *steps, len(values)]
    for place, at in enumerate(steps, 1):
        before, after = values[edges[place - 1] : at], values[at : edges[place + 1]]
        job = jobs[indexes[at]]
        revision = dict(job.resource).get(VCS_REVISION)
        change = statistics.fmean(after) - statistics.fmean(before)
        yield ChangePoint(indexes[at], job.name, job.started, str(revision) if revision else None, change)
