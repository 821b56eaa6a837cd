"""Alerts on how fast the error budget of an objective is spent, each over a long window and a short one.

Source: The Site Reliability Workbook, chapter 5, "Multiwindow, multi-burn-rate alerts".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from aetherflow.errors import ConfigurationError
from aetherflow.operations.objectives import Expectations
from aetherflow.operations.promql import JOB, Query, equals, label, metric_name
from aetherflow.operations.rules import Alert, Group, Recording
from aetherflow.telemetry import conventions as names

__all__ = ["objective_groups"]


@dataclass(frozen=True, slots=True)
class _Tier:
    """Which share of the budget is spent within how many hours when somebody is told; the short window ends it soon."""

    spent: float
    hours: int
    long: str
    short: str
    hold: str
    severity: str


_TIERS: Final = (
    _Tier(0.02, 1, "1h", "5m", "2m", "critical"),
    _Tier(0.05, 6, "6h", "30m", "15m", "critical"),
    _Tier(0.10, 24, "1d", "2h", "1h", "warning"),
    _Tier(0.10, 72, "3d", "6h", "3h", "warning"),
)
_WINDOWS: Final = tuple(dict.fromkeys(window for tier in _TIERS for window in (tier.short, tier.long)))


@dataclass(frozen=True, slots=True)
class _Promise:
    """One part of the objective: what of all runs is bad, and how much of that there may be."""

    alert: str
    operation: str
    budget: float
    told: str

    def recorded(self, window: str) -> str:
        return f"{JOB}_flow:{metric_name(names.RUN_DURATION)}:{self.operation}_{window}"


def objective_groups(expected: Expectations) -> tuple[Group, Group]:
    """Return the recording rules and the alerts of an objective.

    Args:
        expected: The objective, and the service.

    Raises:
        ConfigurationError: An objective leaves so much room that no alert could ever fire.
    """
    matchers = (equals(JOB, expected.job),) if expected.job else ()
    recordings: list[Recording] = []
    alerts: list[Alert] = []
    for promise in _promises(expected):
        for window in _WINDOWS:
            query = Query(window, (JOB, names.FLOW_NAME), matchers)
            recordings.append(Recording(promise.recorded(window), _bad(promise, query, expected)))
        alerts += _alerts(promise, expected.objective.days)
    return Group("aetherflow-budgets", recordings, "1m"), Group("aetherflow-objectives", alerts, "1m")


def _promises(expected: Expectations) -> Iterator[_Promise]:
    objective = expected.objective
    told = f"of the runs fail; {objective.success * 100:g} % must not, over {objective.days} days"
    yield _Promise("AetherFlowErrorBudgetBurn", "failed", 1 - objective.success, told)
    if objective.latency is not None:
        told = f"of the runs take over {objective.latency.within:g} s; {objective.latency.share * 100:g} % must not, "
        told += f"over {objective.days} days"
        yield _Promise("AetherFlowLatencyBudgetBurn", "slow", 1 - objective.latency.share, told)


def _bad(promise: _Promise, query: Query, expected: Expectations) -> str:
    if promise.operation == "failed" or expected.objective.latency is None:
        return query.failed(names.RUN_DURATION)
    return query.slower(names.RUN_DURATION, expected.objective.latency.within)


def _alerts(promise: _Promise, days: int) -> list[Alert]:
    found = []
    for tier in _TIERS:
        factor = tier.spent * days * 24 / tier.hours
        limit = factor * promise.budget
        if limit < 1:  # no more than all runs can be bad
            who = f"flow {{{{ $labels.{label(names.FLOW_NAME)} }}}} of {{{{ $labels.job }}}}"
            found.append(
                Alert(
                    promise.alert,
                    promise.recorded(tier.long),
                    f"> {limit:.6g} and {promise.recorded(tier.short)} > {limit:.6g}",
                    tier.hold,
                    tier.severity,
                    f"{who} spends its budget {factor:.3g} times as fast as it may",
                    f"{{{{ $value | humanizePercentage }}}} {promise.told}.",
                    {"window": tier.long},
                )
            )
    if not found:
        raise ConfigurationError(
            f"no alert can be made from an objective that lets {promise.budget * 100:g} % be bad over {days} days; "
            "allowed: a share nearer to 1, or fewer days"
        )
    return found
