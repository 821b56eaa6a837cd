"""Rates of a job: error and retry rates, cache hit ratios and throughput, compared as the gate compares nodes."""

from __future__ import annotations

import functools
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from aetherflow.analysis.distributions import adjust_holm
from aetherflow.analysis.metrics import Job
from aetherflow.analysis.node_samples import executions_of
from aetherflow.analysis.regression_rules import Rules
from aetherflow.analysis.shifts import Sample, Shifts, independent_shifts, paired_shifts
from aetherflow.telemetry import conventions as names

__all__ = ["WARNING_LIMITS", "ObservedRate", "Rate", "RateKey", "RateResult", "compare_rates", "observe_rates"]

Rate: TypeAlias = Literal["error_rate", "retry_rate", "cache_hit_ratio", "throughput"]

WARNING_LIMITS: Final[Mapping[Rate, float]] = {
    "error_rate": 0.01,
    "retry_rate": 0.01,
    "cache_hit_ratio": 0.05,
    "throughput": 0.10,
}
"""Changes from which a rate warns without configuration: points, and a fraction for throughput."""
_WORSE_ABOVE: Final[frozenset[Rate]] = frozenset({"error_rate", "retry_rate"})
"""Rates that are worse if they rise; the others are worse if they fall."""
_UNBOUNDED: Final[frozenset[Rate]] = frozenset({"retry_rate", "throughput"})
"""Rates that are not shares: an execution may be retried several times."""


@dataclass(frozen=True, slots=True, order=True)
class RateKey:
    """What a rate is of: a flow's node, a cache, or a flow."""

    rate: Rate
    flow: str
    name: str


@dataclass(frozen=True, slots=True)
class RateResult:
    """What became of a rate.

    Attributes:
        key: The rate.
        verdict: Whether it became worse.
        limit: The change that is a regression.
        baseline: The rate over all jobs: a share, retries per execution, or for throughput runs per second.
        candidate: What it is.
        change: The difference of shares, or for throughput the change as a fraction.
        p: The chance of that, had it not become worse, adjusted for the number of rates.
        fails: Whether it fails the job: only where a limit is configured.
        reason: Why a regression does not fail; else empty.
    """

    key: RateKey
    verdict: Literal["regression", "ok"]
    limit: float
    baseline: float
    candidate: float
    change: float
    p: float
    fails: bool
    reason: str


@dataclass(frozen=True, slots=True)
class ObservedRate:
    """A rate in one job: so many of so many, or so many in a number of seconds."""

    part: float
    whole: float

    def sample(self, rate: Rate) -> Sample:
        """Return it on a scale on which changes add up: the logarithm of the odds, or of a rate that is not a share."""
        # Half a case is added on either side, so that shares of 0 and 1 have a finite logarithm.
        part, rest = self.part + 0.5, self.whole - self.part + 0.5
        if rate in _UNBOUNDED:
            return Sample(math.log(part / self.whole), 1 / math.sqrt(part), round(self.part))
        return Sample(math.log(part / rest), math.sqrt(1 / part + 1 / rest), round(self.whole))


def compare_rates(
    baseline: Sequence[Job],
    candidate: Sequence[Job],
    rules: Rules,
    lacking: Callable[[int, int], str],
    *,
    paired: bool,
) -> tuple[RateResult, ...]:
    """Compare all rates that both sides have.

    Args:
        baseline: The jobs of one side.
        candidate: Those of the other.
        rules: What is tolerated.
        lacking: Says, of how many jobs of each side were compared, why that may not fail; empty where it may.
        paired: Whether jobs of the same place in both are pairs.

    Returns:
        What became of each rate, the regressions first.
    """
    ignored = functools.cache(lambda flow, node, metric: rules.for_node(flow, node, metric).ignore)
    sides = [observe_rates(job, ignored) for job in baseline], [observe_rates(job, ignored) for job in candidate]
    results: list[RateResult] = []
    for rate in WARNING_LIMITS:
        # Rates that are 0 on both sides have no spread, and would make the spread of the others look smaller.
        present = {key for side in sides for rates in side for key, each in rates.items() if each.part}
        panels = [_panel(side, rate, present) for side in sides]
        shifts = _shifts(panels[0], panels[1], paired=paired).series
        tails = [shift.p_above(0) if rate in _WORSE_ABOVE else shift.p_below(0) for shift in shifts.values()]
        for (key, shift), p in zip(shifts.items(), adjust_holm(tails), strict=True):
            was, now = (_overall(side, key) for side in sides)
            results.append(_result(key, was, now, p, rules, lacking(*shift.jobs)))
    return tuple(sorted(results, key=lambda result: (result.verdict != "regression", result.key)))


_Observations: TypeAlias = Mapping[RateKey, ObservedRate]


def observe_rates(job: Job, ignored: Callable[[str, str, str], bool] = lambda *_: False) -> dict[RateKey, ObservedRate]:
    """Return the rates of a job, except ignored ones; a cache counts as a node with its name and without a flow."""
    rates: dict[RateKey, ObservedRate] = {}
    retries: Counter[tuple[str, str]] = Counter()
    caches: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for series, value in job.sums.items():
        if series.metric == names.CACHE_REQUESTS.name:
            caches[series.get(names.CACHE_NAME) or ""][series.get(names.CACHE_RESULT) or ""] += round(value)
        elif series.metric == names.NODE_RETRIES.name:
            retries[series.get(names.FLOW_NAME) or "", series.get(names.NODE_NAME) or ""] += round(value)
    executions = executions_of(job)
    has_kinds = any(counts.kinds for counts in executions.values())
    for key, counts in executions.items():
        if ignored(key.flow, key.node, key.metric):
            continue
        if key.metric == names.NODE_DURATION.name:
            rates[RateKey("error_rate", key.flow, key.node)] = ObservedRate(counts.failed, counts.total)
            # Each retried execution has at least one retry, also in files that lack the counter of retries.
            retried = max(retries[key.flow, key.node], counts.kinds[names.RETRIED_KIND])
            rates[RateKey("retry_rate", key.flow, key.node)] = ObservedRate(retried, counts.total)
            if has_kinds and not caches:
                rates[RateKey("cache_hit_ratio", key.flow, key.node)] = ObservedRate(counts.cached, counts.total)
        elif key.metric == names.RUN_DURATION.name and job.duration:
            rates[RateKey("throughput", key.flow, "")] = ObservedRate(counts.total, job.duration)
    for cache, results in caches.items():
        if not ignored("", cache, names.CACHE_REQUESTS.name):
            hits = results.total() - results["miss"]
            rates[RateKey("cache_hit_ratio", "", cache)] = ObservedRate(hits, results.total())
    return rates


def _panel(side: Sequence[_Observations], rate: Rate, present: Set[RateKey]) -> dict[RateKey, dict[int, Sample]]:
    """Make the observations of one kind of rate samples, by key and number of the job."""
    panel: defaultdict[RateKey, dict[int, Sample]] = defaultdict(dict)
    for number, observations in enumerate(side):
        for key, seen in observations.items():
            if key.rate == rate and key in present and seen.whole:
                panel[key][number] = seen.sample(rate)
    return panel


def _shifts(
    before: Mapping[RateKey, Mapping[int, Sample]], after: Mapping[RateKey, Mapping[int, Sample]], *, paired: bool
) -> Shifts[RateKey]:
    keys = sorted(before.keys() & after.keys())
    if not paired:
        return independent_shifts({key: before[key] for key in keys}, {key: after[key] for key in keys}, ())
    numbers = sorted({number for key in keys for number in before[key].keys() & after[key].keys()})
    pairs = [
        {
            key: (before[key][number], after[key][number])
            for key in keys
            if number in before[key] and number in after[key]
        }
        for number in numbers
    ]
    return paired_shifts(pairs, ())


def _overall(side: Sequence[_Observations], key: RateKey) -> float:
    """Give the rate over all jobs; of throughput the typical one, since jobs differ in what they wait for."""
    seen = [observations[key] for observations in side if key in observations]
    if key.rate == "throughput":
        return statistics.median(each.part / each.whole for each in seen)
    return sum(each.part for each in seen) / sum(each.whole for each in seen)


def _result(key: RateKey, before: float, after: float, p: float, rules: Rules, lacking: str) -> RateResult:
    configured: float | None = getattr(rules.rates, key.rate)
    limit = configured or WARNING_LIMITS[key.rate]
    change = after / before - 1 if key.rate == "throughput" else after - before
    worse = change if key.rate in _WORSE_ABOVE else -change
    if p >= rules.alpha or worse < limit:
        return RateResult(key, "ok", limit, before, after, change, p, fails=False, reason="")
    reason = lacking or ("" if configured else f"only a warning: no limit for {key.rate} is configured")
    return RateResult(key, "regression", limit, before, after, change, p, fails=not reason, reason=reason)
