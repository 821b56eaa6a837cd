"""The regression gate: which nodes became slower from one set of jobs to another, and how sure that is.

The job is the sample, not the call: all calls of a job share its machine, so that any number of them is one
observation of that. `shifts` takes the machine's part out; here the rest is judged, node by node, and told with
what could have been found.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from aetherflow.analysis.distributions import adjust_holm
from aetherflow.analysis.metrics import Job
from aetherflow.analysis.node_evidence import NodeEvidence, Side, gather_evidence
from aetherflow.analysis.node_samples import NodeKey
from aetherflow.analysis.rates import RateResult, compare_rates
from aetherflow.analysis.regression_rules import FEWEST_BASELINES, FEWEST_CANDIDATES, FEWEST_PAIRS, Rules
from aetherflow.analysis.shifts import (
    FEWEST_FOR_FACTOR,
    Sample,
    Shift,
    Shifts,
    independent_shifts,
    paired_shifts,
)
from aetherflow.telemetry.conventions import NODE_DURATION

__all__ = ["Comparison", "Finding", "NodeResult", "SuiteResult", "Verdict", "compare_jobs", "compare_pairs"]

Verdict: TypeAlias = Literal["regression", "improvement", "inconclusive", "new", "gone", "ok"]

_CONFIDENCE: Final = 0.95
_LARGEST: Final = 700.0
_SUITE_SHARE: Final = 0.5
"""Of the accepted false alarms, what the suite may raise: it is what the machine does to all nodes, too."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a shift comes to; all but ``p`` as fractions.

    Attributes:
        change: How far it moved.
        p: The chance of that, had it moved up by no more than the margin, adjusted for the number of nodes.
        detectable: The smallest slowdown that would be found four times in five.
        upper: What it became slower by at most, with 95 % confidence.
    """

    change: float
    p: float
    detectable: float
    upper: float


@dataclass(frozen=True, slots=True)
class NodeResult:
    """What became of a node.

    Attributes:
        key: The node.
        verdict: Whether it became slower.
        limit: The shift that is a regression, as a fraction.
        baseline: What it was.
        candidate: What it is.
        finding: How far it moved beyond all of them; None where they cannot be compared.
        coarse: Whether its buckets were too coarse, so that it is judged by the mean.
        fails: Whether it fails the job.
        reason: Why nothing can be said, or why a regression does not fail; else empty.
    """

    key: NodeKey
    verdict: Verdict
    limit: float
    baseline: Side
    candidate: Side
    finding: Finding | None = None
    coarse: bool = False
    fails: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """What happened to all nodes together; the attributes are as those of `NodeResult`."""

    verdict: Verdict
    limit: float
    baseline_jobs: int
    candidate_jobs: int
    finding: Finding | None = None
    fails: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sets of jobs, compared.

    Attributes:
        suite: What happened to all nodes together.
        nodes: What became of each, what matters most first.
        rates: What became of rates.
        paired: Whether the jobs ran in pairs.
    """

    suite: SuiteResult
    nodes: tuple[NodeResult, ...]
    rates: tuple[RateResult, ...]
    paired: bool

    @property
    def failed(self) -> bool:
        """Whether anything fails the job."""
        return self.suite.fails or any(node.fails for node in self.nodes) or any(rate.fails for rate in self.rates)

    @property
    def verdict(self) -> Verdict:
        """The verdict on it all: a regression only where that fails the job."""
        if self.failed:
            return "regression"
        verdicts = {self.suite.verdict} | {node.verdict for node in self.nodes}
        return "ok" if "regression" not in verdicts and verdicts & {"ok", "improvement"} else "inconclusive"


def compare_jobs(baseline: Sequence[Job], candidate: Sequence[Job], rules: Rules) -> Comparison:
    """Compare jobs that have nothing to do with each other.

    Args:
        baseline: What was, at least one.
        candidate: What is, at least one.
        rules: What is tolerated.
    """
    nodes = gather_evidence(baseline, candidate, rules)
    tested = [node for node in nodes if not node.obstacle]
    before, after = ({node.key: node.samples[side] for node in tested} for side in (0, 1))
    shifts = independent_shifts(before, after, _factor_keys(tested))
    gate = _Gate(rules, shifts, (FEWEST_BASELINES, FEWEST_CANDIDATES), paired=False)
    rates = compare_rates(baseline, candidate, rules, gate.lacking, paired=False)
    return Comparison(gate.suite(len(baseline), len(candidate)), gate.nodes(nodes), rates, paired=False)


def compare_pairs(pairs: Sequence[tuple[Job, Job]], rules: Rules) -> Comparison:
    """Compare the two sides of pairs that ran one beside the other.

    Args:
        pairs: The baseline's job and the candidate's, at least one.
        rules: What is tolerated.
    """
    baseline, candidate = [before for before, _ in pairs], [after for _, after in pairs]
    nodes = gather_evidence(baseline, candidate, rules)
    tested = [(node.key, node.pairs) for node in nodes if not node.obstacle and node.pairs]
    both: list[dict[NodeKey, tuple[Sample, Sample]]] = [
        {key: known[number] for key, known in tested if number in known} for number in range(len(pairs))
    ]
    shifts = paired_shifts(both, _factor_keys(node for node in nodes if not node.obstacle and node.pairs))
    gate = _Gate(rules, shifts, (FEWEST_PAIRS, FEWEST_PAIRS), paired=True)
    rates = compare_rates(baseline, candidate, rules, gate.lacking, paired=True)
    return Comparison(gate.suite(len(pairs), len(pairs)), gate.nodes(nodes), rates, paired=True)


def _factor_keys(tested: Iterable[NodeEvidence]) -> list[NodeKey]:
    """Choose what tells the machine's factor: the nodes, since all else contains them."""
    keys = [node.key for node in tested if node.key.metric == NODE_DURATION.name]
    return keys if len(keys) >= FEWEST_FOR_FACTOR else []


class _Gate:
    """Says what shifts mean, and which of them fail the job."""

    def __init__(self, rules: Rules, shifts: Shifts[NodeKey], fewest: tuple[int, int], *, paired: bool) -> None:
        self._rules = rules
        self._shifts = shifts
        self._fewest = fewest
        self._paired = paired

    def lacking(self, baseline: int, candidate: int) -> str:
        """Say which jobs are missing for a failure, of those that were compared; nothing where none are."""
        if baseline >= self._fewest[0] and candidate >= self._fewest[1]:
            return ""
        if self._paired:
            return f"only a warning: {baseline} pairs, and a failure takes {self._fewest[0]}"
        return (
            f"only a warning: {baseline} and {candidate} jobs, and a failure takes {self._fewest[0]} of the baseline "
            f"and {self._fewest[1]} of the candidate"
        )

    def suite(self, baseline: int, candidate: int) -> SuiteResult:
        """Judge all nodes together."""
        rule, shift = self._rules.suite, self._shifts.suite
        if shift is None:
            reason = f"needs {FEWEST_FOR_FACTOR} nodes, and two jobs on a side or two pairs"
            return SuiteResult("inconclusive", rule.limit, baseline, candidate, reason=reason)
        margin = math.log1p(min(self._rules.margin, rule.limit))
        alpha = self._rules.alpha * _SUITE_SHARE
        finding = _finding(shift, shift.p_above(margin), rule.limit, margin, alpha)
        verdict = _verdict(shift, finding, shift.p_below(-margin), rule.limit, alpha)
        reason = self._reason(verdict, finding, self.lacking(*shift.jobs), fail=rule.fail)
        fails = verdict == "regression" and not reason
        return SuiteResult(verdict, rule.limit, baseline, candidate, finding, fails, reason)

    def nodes(self, nodes: Sequence[NodeEvidence]) -> tuple[NodeResult, ...]:
        """Judge each node; the adjustment is for all that could be compared."""
        moved = [(node, shift) for node in nodes if (shift := self._shifts.series.get(node.key))]
        margins = [math.log1p(min(self._rules.margin, node.limit)) for node, _ in moved]
        slower = adjust_holm([shift.p_above(margin) for (_, shift), margin in zip(moved, margins, strict=True)])
        faster = adjust_holm([shift.p_below(-margin) for (_, shift), margin in zip(moved, margins, strict=True)])
        alpha = self._rules.alpha
        results = [_unknown(node) for node in nodes if node.key not in self._shifts.series]
        for (node, shift), margin, p_slower, p_faster in zip(moved, margins, slower, faster, strict=True):
            finding = _finding(shift, p_slower, node.limit, margin, alpha / len(moved))
            verdict = _verdict(shift, finding, p_faster, node.limit, alpha)
            results.append(self._result(node, verdict, finding, self.lacking(*shift.jobs)))
        order = get_args(Verdict)
        results.sort(
            key=lambda each: (order.index(each.verdict), -(each.finding.change if each.finding else 0), each.key)
        )
        return tuple(results)

    def _result(self, node: NodeEvidence, verdict: Verdict, finding: Finding, lacking: str) -> NodeResult:
        reason = self._reason(verdict, finding, lacking, fail=node.rule.fail)
        fails = verdict == "regression" and not reason
        return NodeResult(
            node.key, verdict, node.limit, node.baseline, node.candidate, finding, node.coarse, fails, reason
        )

    def _reason(self, verdict: Verdict, finding: Finding, lacking: str, *, fail: bool) -> str:
        """Say why nothing can be said, or why a regression does not fail."""
        if verdict == "inconclusive":
            return f"too noisy: it may be slower by up to {finding.upper:.0%}"
        if verdict != "regression":
            return ""
        return lacking or ("" if fail else "only a warning")


def _finding(shift: Shift, p: float, limit: float, margin: float, alpha: float) -> Finding:
    # Both must be passed: the test, and the limit by the estimate itself.
    detectable = max(shift.detectable(margin, alpha), shift.detectable(math.log1p(limit), 0.5))
    return Finding(_fraction(shift.estimate), p, _fraction(detectable), _fraction(shift.bound(_CONFIDENCE)))


def _fraction(shift: float) -> float:
    """Turn a shift of logarithms into a fraction; one that no double holds into a very large one."""
    return math.expm1(min(shift, _LARGEST))


def _verdict(shift: Shift, finding: Finding, p_faster: float, limit: float, alpha: float) -> Verdict:
    if finding.p < alpha and finding.change >= limit:
        return "regression"
    if p_faster < alpha and shift.estimate <= -math.log1p(limit):
        return "improvement"
    return "ok" if finding.upper < limit else "inconclusive"


def _unknown(node: NodeEvidence) -> NodeResult:
    verdict: Verdict = "inconclusive"
    reason = node.obstacle or "no two jobs of both sides can be compared"
    if not node.baseline.executions or not node.candidate.executions:
        verdict, reason = ("gone" if node.baseline.executions else "new"), ""
    return NodeResult(node.key, verdict, node.limit, node.baseline, node.candidate, coarse=node.coarse, reason=reason)
