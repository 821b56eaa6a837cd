"""What two sets of jobs say of each node, laid side by side for the gate."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from aetherflow.analysis.histograms import Histogram
from aetherflow.analysis.metrics import Job
from aetherflow.analysis.node_samples import NodeKey, durations_of, sample_of
from aetherflow.analysis.regression_rules import NodeRule, Rules
from aetherflow.analysis.shifts import Sample

__all__ = ["NodeEvidence", "Side", "gather_evidence"]

_COARSE: Final = 2
"""Times that the limit is wider for a mean, where buckets are too coarse for a median."""


@dataclass(frozen=True, slots=True)
class Side:
    """A node on one side of a comparison.

    Attributes:
        jobs: The jobs that have it.
        calls: Its executions in them.
        median: In seconds, the geometric mean over the jobs; None where there is none.
        mean: The same of their means.
        p95: The same of their 95th percentiles.
    """

    jobs: int
    calls: int
    median: float | None
    mean: float | None
    p95: float | None


@dataclass(frozen=True, slots=True)
class NodeEvidence:
    """A node on both sides.

    Attributes:
        key: The node.
        rule: What is tolerated of it.
        limit: The shift that is a regression, as a fraction.
        coarse: Whether buckets are too coarse for medians, so that the samples are means, and the limit is wider.
        baseline: What it was.
        candidate: What it is.
        samples: The samples of either side, by number of the job.
        obstacle: Why the sides cannot be compared; empty where they can.
    """

    key: NodeKey
    rule: NodeRule
    limit: float
    coarse: bool
    baseline: Side
    candidate: Side
    samples: tuple[Mapping[int, Sample], Mapping[int, Sample]]
    obstacle: str

    @property
    def pairs(self) -> dict[int, tuple[Sample, Sample]]:
        """The samples that are there on both sides, by number."""
        before, after = self.samples
        return {number: (before[number], after[number]) for number in before if number in after}


def gather_evidence(baseline: Iterable[Job], candidate: Iterable[Job], rules: Rules) -> list[NodeEvidence]:
    """Lay side by side what jobs say of each node.

    Args:
        baseline: The jobs of one side.
        candidate: Those of the other.
        rules: What is tolerated.

    Returns:
        Every node that is on any side and not ignored, in the order of their keys.
    """
    sides = [durations_of(job) for job in baseline], [durations_of(job) for job in candidate]
    keys = sorted({key for side in sides for durations in side for key in durations})
    found = []
    for key in keys:
        rule = rules.for_node(key.flow, key.node, key.metric)
        if not rule.ignore:
            before, after = ({n: each[key] for n, each in enumerate(side) if key in each} for side in sides)
            found.append(_evidence(key, rule, before, after, rules))
    return found


def _evidence(
    key: NodeKey, rule: NodeRule, before: Mapping[int, Histogram], after: Mapping[int, Histogram], rules: Rules
) -> NodeEvidence:
    fine = all(each.is_fine for side in (before, after) for each in side.values())
    samples = _samples(before, fine=fine), _samples(after, fine=fine)
    baseline, candidate = _side(before), _side(after)
    obstacle = ""
    if min(baseline.calls, candidate.calls) < rules.min_calls:
        obstacle = f"fewer than {rules.min_calls:,} calls on a side"
    elif not all(samples):
        obstacle = "no job has enough durations above zero"
    limit = (rule.limit or rules.limit) * (1 if fine else _COARSE)
    return NodeEvidence(key, rule, limit, not fine, baseline, candidate, samples, obstacle)


def _samples(histograms: Mapping[int, Histogram], *, fine: bool) -> dict[int, Sample]:
    return {number: sample for number, each in histograms.items() if (sample := sample_of(each, fine=fine))}


def _side(histograms: Mapping[int, Histogram]) -> Side:
    known = histograms.values()
    quantiles = [each.quantiles(0.5, 0.95) for each in known]
    return Side(
        len(known),
        sum(each.count for each in known),
        _geometric(each[0] for each in quantiles),
        _geometric(each.mean for each in known),
        _geometric(each[1] for each in quantiles),
    )


def _geometric(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value and value > 0]
    return statistics.geometric_mean(known) if known else None
