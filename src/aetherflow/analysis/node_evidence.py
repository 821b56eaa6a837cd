"""What two sets of jobs say of each node, laid side by side for the gate."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from aetherflow.analysis.histograms import Histogram
from aetherflow.analysis.metrics import Job
from aetherflow.analysis.node_samples import ExecutionCounts, NodeKey, comparable_durations, executions_of, sample_of
from aetherflow.analysis.regression_rules import NodeRule, Rules
from aetherflow.analysis.shifts import Sample

__all__ = ["NodeEvidence", "Side", "gather_evidence"]

_KINDS: Final = {"cache_hit": "a cache hit", "coalesced": "coalesced", "retried": "retried"}
_COARSE: Final = 2
"""Times that the limit is wider for a mean, where buckets are too coarse for a median."""


@dataclass(frozen=True, slots=True)
class Side:
    """A node on one side of a comparison.

    Attributes:
        executions: All of its executions, failed ones too.
        left_out: Executions that are not judged since they were not computed at their first attempt, by kind.
        jobs: The jobs whose executions are judged.
        calls: The executions that are judged: those that succeeded and were computed at their first attempt.
        median: In seconds, the geometric mean over the jobs; None where there is none.
        mean: The same of their means.
        p95: The same of their 95th percentiles.
    """

    executions: int
    left_out: Mapping[str, int]
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


def gather_evidence(baseline: Sequence[Job], candidate: Sequence[Job], rules: Rules) -> list[NodeEvidence]:
    """Lay side by side what jobs say of each node.

    Args:
        baseline: The jobs of one side.
        candidate: Those of the other.
        rules: What is tolerated.

    Returns:
        Every node that is on any side and not ignored, in the order of their keys.
    """
    durations = comparable_durations([*baseline, *candidate])
    sides = durations[: len(baseline)], durations[len(baseline) :]
    counts = _counts(baseline), _counts(candidate)
    keys = sorted({key for side in counts for key, each in side.items() if each.total > each.failed})
    evidence = []
    for key in keys:
        rule = rules.for_node(key.flow, key.node, key.metric)
        if not rule.ignore:
            before, after = ({n: each[key] for n, each in enumerate(side) if key in each} for side in sides)
            totals = [side.get(key, ExecutionCounts()) for side in counts]
            evidence.append(_evidence(key, rule, (before, after), totals, rules))
    return evidence


def _counts(jobs: Iterable[Job]) -> dict[NodeKey, ExecutionCounts]:
    """Return the number of executions of each node over all jobs of a side."""
    together: dict[NodeKey, ExecutionCounts] = {}
    for job in jobs:
        for key, counts in executions_of(job).items():
            together.setdefault(key, ExecutionCounts()).merge(counts)
    return together


def _evidence(
    key: NodeKey,
    rule: NodeRule,
    durations: tuple[Mapping[int, Histogram], Mapping[int, Histogram]],
    counts: Sequence[ExecutionCounts],
    rules: Rules,
) -> NodeEvidence:
    before, after = durations
    fine = all(each.is_fine for side in durations for each in side.values())
    samples = _samples(before, fine=fine), _samples(after, fine=fine)
    baseline, candidate = _side(before, counts[0]), _side(after, counts[1])
    obstacle = _nothing_computed(key, "baseline", baseline, counts[0])
    obstacle = obstacle or _nothing_computed(key, "candidate", candidate, counts[1])
    if not obstacle and min(baseline.calls, candidate.calls) < rules.min_calls:
        others = Counter(baseline.left_out) + Counter(candidate.left_out)
        besides = f", besides those that were {_kinds(others)}" if others else ""
        obstacle = f"fewer than {rules.min_calls:,} calls on a side{besides}"
    elif not obstacle and not all(samples):
        obstacle = "no job has enough durations above zero"
    limit = (rule.limit or rules.limit) * (1 if fine else _COARSE)
    return NodeEvidence(key, rule, limit, not fine, baseline, candidate, samples, obstacle)


def _nothing_computed(key: NodeKey, name: str, side: Side, counts: ExecutionCounts) -> str:
    """Return the reason why a side that executed a node has no duration to judge; "" if there is none."""
    if side.jobs or not side.executions:
        return ""
    if counts.computed:
        return (
            f"the {name} was recorded before cache hits and retried executions of {key} were told apart; "
            "record it again to compare"
        )
    if counts.total == counts.failed:
        return f"every execution of {key} in the {name} failed"
    return (
        f"every successful execution of {key} in the {name} was {_kinds(side.left_out)}: "
        "there is no computed one to compare"
    )


def _kinds(counts: Mapping[str, int]) -> str:
    """Return the kinds that have executions as text, in a fixed order."""
    return " or ".join(text for kind, text in _KINDS.items() if counts.get(kind)) or "of another kind"


def _samples(histograms: Mapping[int, Histogram], *, fine: bool) -> dict[int, Sample]:
    return {number: sample for number, each in histograms.items() if (sample := sample_of(each, fine=fine))}


def _side(histograms: Mapping[int, Histogram], counts: ExecutionCounts) -> Side:
    known = histograms.values()
    quantiles = [each.quantiles(0.5, 0.95) for each in known]
    return Side(
        counts.total,
        dict(counts.kinds),
        len(known),
        sum(each.count for each in known),
        _geometric(each[0] for each in quantiles),
        _geometric(each.mean for each in known),
        _geometric(each[1] for each in quantiles),
    )


def _geometric(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value and value > 0]
    return statistics.geometric_mean(known) if known else None
