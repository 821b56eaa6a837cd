"""The outcome of the regression gate as JSON, in a form that other programs may rely on."""

from __future__ import annotations

from typing import Any, Final

from aetherflow.analysis.node_evidence import Side
from aetherflow.analysis.rates import RateResult
from aetherflow.analysis.regression import Comparison, Finding, NodeResult

__all__ = ["SCHEMA", "as_json"]

SCHEMA: Final = 1
"""Rises when a key is taken away or changes its meaning."""


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Give what JSON is made of.

    Args:
        comparison: The outcome.

    Returns:
        ``schema``, ``verdict``, ``failed``, ``paired``, ``suite``, ``nodes`` and ``rates``. Changes are fractions, or
        differences of shares; times are seconds; what is not known is None.
    """
    suite = comparison.suite
    return {
        "schema": SCHEMA,
        "verdict": comparison.verdict,
        "failed": comparison.failed,
        "paired": comparison.paired,
        "suite": {
            "verdict": suite.verdict,
            **_finding(suite.finding),
            "limit": suite.limit,
            "fails": suite.fails,
            "reason": suite.reason,
            "baseline": {"jobs": suite.baseline_jobs},
            "candidate": {"jobs": suite.candidate_jobs},
        },
        "nodes": [_node(result) for result in comparison.nodes],
        "rates": [_rate(result) for result in comparison.rates],
    }


def _node(result: NodeResult) -> dict[str, Any]:
    return {
        "flow": result.key.flow or None,
        "node": result.key.node or None,
        "metric": result.key.metric,
        "verdict": result.verdict,
        **_finding(result.finding),
        "limit": result.limit,
        "resolution": "low" if result.coarse else "high",
        "fails": result.fails,
        "reason": result.reason,
        "baseline": _side(result.baseline),
        "candidate": _side(result.candidate),
    }


def _finding(finding: Finding | None) -> dict[str, float | None]:
    names = ("change", "p", "detectable", "upper")
    return {name: None if finding is None else getattr(finding, name) for name in names}


def _side(side: Side) -> dict[str, Any]:
    return {
        "jobs": side.jobs,
        "calls": side.calls,
        "executions": side.executions,
        "left_out": dict(side.left_out),
        "p50": side.median,
        "mean": side.mean,
        "p95": side.p95,
    }


def _rate(result: RateResult) -> dict[str, Any]:
    return {
        "rate": result.key.rate,
        "flow": result.key.flow or None,
        "name": result.key.name or None,
        "verdict": result.verdict,
        "change": result.change,
        "p": result.p,
        "limit": result.limit,
        "fails": result.fails,
        "reason": result.reason,
        "baseline": result.baseline,
        "candidate": result.candidate,
    }
