"""Totals over the series of a node: counts of executions of all kinds, latencies of computed ones."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.metrics.accumulators import Series, Totals

__all__ = ["ExecutionTotals", "group_totals"]

K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class ExecutionTotals:
    """Executions of a node or an operation, or waits for a resource.

    Attributes:
        count: Executions of all kinds, failed ones too.
        errors: Executions that failed.
        total: Nanoseconds in all executions.
        computed: Durations of the executions that were computed at their first attempt, failed ones too.
    """

    count: int = 0
    errors: int = 0
    total: int = 0
    computed: Totals = field(default_factory=Totals)

    def add(self, series: Series, totals: Totals) -> None:
        """Add the totals of a series."""
        self.count += totals.count
        self.total += totals.total
        if names.ERROR_TYPE in series.attributes:
            self.errors += totals.count
        if names.EXECUTION_KIND not in series.attributes:
            self.computed.add(totals)


def group_totals(values: Iterable[tuple[K, Series, Totals]]) -> dict[K, ExecutionTotals]:
    """Return the sums of the totals of series, by key."""
    grouped: dict[K, ExecutionTotals] = {}
    for key, series, totals in values:
        grouped.setdefault(key, ExecutionTotals()).add(series, totals)
    return grouped
