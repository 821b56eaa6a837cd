"""How far each of many series moved between jobs, beyond what the machine did to all of them.

A job is one sample: it ran on one machine at one time, which made all of its series faster or slower together. That
factor is the median over the series of each one's distance from its own baseline; what is left is the series' own.
All values are on a scale on which they add up, such as logarithms of seconds.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeAlias, TypeVar

from aetherflow.analysis.distributions import t_quantile, t_survival

__all__ = ["FEWEST_FOR_FACTOR", "Sample", "Shift", "Shifts", "independent_shifts", "paired_shifts"]

_KeyT = TypeVar("_KeyT", bound=Hashable)

FEWEST_FOR_FACTOR: Final = 3
"""Series below which the machine's part cannot be told from their own."""

_PRIOR_WEIGHT: Final = 4
"""Jobs that the typical series counts for in the variance of each."""
_SAMPLING_WEIGHT: Final = 3
"""Times that the sampling variance, as the histogram tells it, counts in the prior: it takes calls for independent."""
_FLOOR: Final = 0.02**2
"""Variance between jobs that is always there."""
_POWER: Final = 0.8


@dataclass(frozen=True, slots=True)
class Sample:
    """One series in one job.

    Attributes:
        x: Where it is.
        error: Standard error of that within the job; infinite where it is not known.
        calls: Values it rests on.
    """

    x: float
    error: float
    calls: int


@dataclass(frozen=True, slots=True)
class Shift:
    """How far a series moved.

    Attributes:
        estimate: From the baseline to the candidate.
        error: Standard error of the estimate.
        df: Degrees of freedom that the error rests on.
        jobs: The jobs that it rests on: those of the baseline, and of the candidate.
    """

    estimate: float
    error: float
    df: float
    jobs: tuple[int, int]

    def p_above(self, shift: float) -> float:
        """Give the p-value of the hypothesis that it moved up by no more than a shift."""
        return t_survival((self.estimate - shift) / self.error, self.df)

    def p_below(self, shift: float) -> float:
        """Give the p-value of the hypothesis that it moved down by no more than a shift, itself below 0."""
        return t_survival((shift - self.estimate) / self.error, self.df)

    def bound(self, confidence: float) -> float:
        """Give what it moved up by at most, with a confidence."""
        return self.estimate + t_quantile(confidence, self.df) * self.error

    def detectable(self, beyond: float, alpha: float) -> float:
        """Give the smallest shift that would be found four times in five.

        Args:
            beyond: The shift that is tolerated.
            alpha: The chance of a false alarm that is accepted, 0 to 1.
        """
        return beyond + (t_quantile(1 - alpha, self.df) + t_quantile(_POWER, self.df)) * self.error


@dataclass(frozen=True, slots=True)
class Shifts(Generic[_KeyT]):
    """What moved: each series beyond all, and all together; None where that cannot be told apart."""

    series: Mapping[_KeyT, Shift]
    suite: Shift | None


Panel: TypeAlias = Mapping[_KeyT, Mapping[int, Sample]]
"""Samples by series and job."""


def independent_shifts(
    baseline: Panel[_KeyT], candidate: Panel[_KeyT], factor_keys: Collection[_KeyT]
) -> Shifts[_KeyT]:
    """Compare the jobs of two sides that have nothing to do with each other.

    Args:
        baseline: The samples of one side.
        candidate: Those of the other, of the same series; of each at least one.
        factor_keys: The series that the machine's factor is found from; below `FEWEST_FOR_FACTOR` there is none.

    Returns:
        The shifts of the series that have samples in jobs whose factor is known, on both sides.
    """
    centres = {key: statistics.fmean(sample.x for sample in jobs.values()) for key, jobs in baseline.items()}
    before, after = (_factors(panel, centres, factor_keys) for panel in (baseline, candidate))
    if not (before and after):
        before = after = None
    spreads = {}
    for key, centre in centres.items():
        own = _residuals(baseline[key], centre, before), _residuals(candidate[key], centre, after)
        if all(own):
            known = (each for panel in (baseline, candidate) for each in panel[key].values())
            spreads[key] = _spread_of_two(*own, statistics.fmean(each.error**2 for each in known))
    suite = _spread_of_two(list(before.values()), list(after.values())) if before and after else None
    return _shifts(spreads, suite)


def paired_shifts(
    pairs: Sequence[Mapping[_KeyT, tuple[Sample, Sample]]], factor_keys: Collection[_KeyT]
) -> Shifts[_KeyT]:
    """Compare the two sides of pairs that ran one beside the other.

    Args:
        pairs: For each pair the samples of the baseline and the candidate, by series.
        factor_keys: The series that the machine's factor is found from; below `FEWEST_FOR_FACTOR` there is none.

    Returns:
        The shifts of the series that are in pairs whose factor is known.
    """
    panel: dict[_KeyT, dict[int, Sample]] = {}
    for number, pair in enumerate(pairs):
        for key, (before, after) in pair.items():
            difference = Sample(after.x - before.x, math.hypot(before.error, after.error), before.calls + after.calls)
            panel.setdefault(key, {})[number] = difference
    factors = _factors(panel, dict.fromkeys(panel, 0.0), factor_keys) or None
    spreads = {}
    for key, samples in panel.items():
        if own := _residuals(samples, 0.0, factors):
            spreads[key] = _spread_of_one(own, statistics.fmean(each.error**2 for each in samples.values()))
    return _shifts(spreads, _spread_of_one(list(factors.values())) if factors else None)


def _factors(
    panel: Panel[_KeyT], centres: Mapping[_KeyT, float], factor_keys: Collection[_KeyT]
) -> dict[int, float] | None:
    """Find the factor of each job that has enough series."""
    by_job: defaultdict[int, list[float]] = defaultdict(list)
    for key in factor_keys:
        for job, sample in panel.get(key, {}).items():
            by_job[job].append(sample.x - centres[key])
    return {job: statistics.median(found) for job, found in by_job.items() if len(found) >= FEWEST_FOR_FACTOR}


def _residuals(jobs: Mapping[int, Sample], centre: float, factors: Mapping[int, float] | None) -> list[float]:
    """Give the distances of a series from its centre, without the factors of the jobs."""
    if factors is None:
        return [sample.x - centre for sample in jobs.values()]
    return [sample.x - centre - factors[job] for job, sample in jobs.items() if job in factors]


@dataclass(frozen=True, slots=True)
class _Spread:
    """What a shift is computed from: the estimate, squares about the means and their degrees of freedom.

    ``per_job`` turns the variance of a job into that of the estimate; ``sampling`` is the variance within a job.
    """

    estimate: float
    squares: float
    df: int
    per_job: float
    sampling: float
    jobs: tuple[int, int]


def _spread_of_two(before: Sequence[float], after: Sequence[float], sampling: float = 0.0) -> _Spread:
    estimate = statistics.fmean(after) - statistics.fmean(before)
    squares = _squares(before) + _squares(after)
    jobs = len(before), len(after)
    return _Spread(estimate, squares, sum(jobs) - 2, 1 / jobs[0] + 1 / jobs[1], sampling, jobs)


def _spread_of_one(values: Sequence[float], sampling: float = 0.0) -> _Spread:
    jobs = len(values)
    return _Spread(statistics.fmean(values), _squares(values), jobs - 1, 1 / jobs, sampling, (jobs, jobs))


def _shifts(spreads: Mapping[_KeyT, _Spread], suite: _Spread | None) -> Shifts[_KeyT]:
    """Judge each spread by itself and by what is typical."""
    excess = [spread.squares / spread.df - spread.sampling for spread in spreads.values() if spread.df]
    typical = max(0.0, statistics.median(excess)) if excess else 0.0
    shifts = {}
    for key, spread in spreads.items():
        prior = max(_FLOOR, typical + _SAMPLING_WEIGHT * spread.sampling)
        df = spread.df + _PRIOR_WEIGHT
        variance = (spread.squares + _PRIOR_WEIGHT * prior) / df
        shifts[key] = Shift(spread.estimate, math.sqrt(variance * spread.per_job), df, spread.jobs)
    return Shifts(shifts, _suite(suite))


def _suite(spread: _Spread | None) -> Shift | None:
    """Judge the factors by their own spread alone: there is nothing typical to lean on."""
    if spread is None or not spread.df:
        return None
    variance = max(_FLOOR, spread.squares / spread.df)
    return Shift(spread.estimate, math.sqrt(variance * spread.per_job), spread.df, spread.jobs)


def _squares(values: Sequence[float]) -> float:
    centre = statistics.fmean(values)
    return math.fsum((value - centre) ** 2 for value in values)
