"""`PerformanceMonitor`: what operations and nodes have taken, read off the process's one store of durations."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self, TypedDict, TypeVar, cast

from rich.console import Console
from rich.table import Table

from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.metrics.accumulators import Series, registry
from aetherflow.telemetry.metrics.execution_totals import ExecutionTotals, group_totals
from aetherflow.telemetry.observation import Observation, Site
from aetherflow.telemetry.observer import current_observer

__all__ = ["OperationStats", "PerformanceMonitor", "perf_monitor"]

F = TypeVar("F", bound=Callable[..., Any])


class OperationStats(TypedDict):
    """Statistics of one operation or node. Times are in seconds; the percentiles are at most 2.2 % off.

    The counts and ``total_time`` are of all executions. The other times are of those that were computed at their first
    attempt, without cache hits and retried executions; they are NaN if there was none.
    """

    count: int
    avg_time: float
    min_time: float
    max_time: float
    total_time: float
    error_count: int
    error_rate: float
    p50: float
    p95: float
    p99: float


class _Measured:
    """One measurement, as a context manager."""

    __slots__ = ("_observation", "_site")
    _observation: Observation

    def __init__(self, site: Site) -> None:
        self._site = site

    def __enter__(self) -> Self:
        self._observation = current_observer().measure(self._site)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._observation.end(error)


class PerformanceMonitor:
    """Measures operations and tells what they and all nodes have taken since it was made or reset.

    Monitors are views of one set of meters: unnamed ones share their operations and show nodes without any
    measuring; a named one has operations of its own.

    Args:
        name: The name of a monitor that keeps its own operations.
    """

    def __init__(self, name: str | None = None) -> None:
        self._name = name
        self._sites: dict[str, Site] = {}
        self.reset()

    def reset(self) -> None:
        """Forget what was measured so far; other monitors and the exported metrics are not touched."""
        self._view = registry.open_view()

    def measure(self, operation: str) -> _Measured:
        """Return a context manager that measures what happens in it; an exception inside counts as an error.

        Args:
            operation: The operation's name; of low cardinality, since each is a series of its own.
        """
        return _Measured(self._site(operation))

    def timed(self, func: F) -> F:
        """Measure every call of a function or coroutine function; as a decorator."""
        site = self._site(func.__qualname__)
        if inspect.iscoroutinefunction(func):

            @functools.wraps(func)
            async def measured_async(*args: Any, **kwargs: Any) -> Any:
                with _Measured(site):
                    return await func(*args, **kwargs)

            return cast("F", measured_async)

        @functools.wraps(func)
        def measured(*args: Any, **kwargs: Any) -> Any:
            with _Measured(site):
                return func(*args, **kwargs)

        return cast("F", measured)

    def get_stats(self) -> dict[str, OperationStats]:
        """Return statistics by name, of operations and, for an unnamed monitor, of nodes.

        A node that has the name of an operation is shown as ``node NAME``.
        """
        registry.fold()
        by_key = ((self._key(series), series, totals) for series, totals in self._view.totals().items())
        grouped = group_totals((key, series, totals) for key, series, totals in by_key if key is not None)
        operations = {name for kind, name in grouped if kind == names.OPERATION_NAME}
        return {
            f"node {name}" if kind == names.NODE_NAME and name in operations else name: _stats(executions)
            for (kind, name), executions in grouped.items()
        }

    def report(self, console: Console | None = None) -> None:
        """Print the statistics as a table.

        Args:
            console: Where to; None for standard output.
        """
        table = Table(title="Performance" if self._name is None else f"Performance of {self._name}")
        table.add_column("operation")
        columns = ("count", "errors", "avg", "min", "max", "total", "p50", "p95", "p99")
        for column in columns:
            table.add_column(column, justify="right")
        for name, stats in sorted(self.get_stats().items(), key=lambda item: -item[1]["total_time"]):
            times = (stats[key] for key in ("avg_time", "min_time", "max_time", "total_time", "p50", "p95", "p99"))
            table.add_row(name, str(stats["count"]), str(stats["error_count"]), *(f"{time:.6f} s" for time in times))
        (console or Console()).print(table)

    def _site(self, operation: str) -> Site:
        found = self._sites.get(operation)
        if found is None:
            attributes = {names.OPERATION_NAME: operation}
            if self._name is not None:
                attributes[names.MONITOR_NAME] = self._name
            found = self._sites[operation] = Site(operation, names.OPERATION_DURATION, attributes, {})
        return found

    def _key(self, series: Series) -> tuple[str, str] | None:
        attributes = series.attributes
        if series.definition is names.OPERATION_DURATION:
            mine = attributes.get(names.MONITOR_NAME) == self._name
            return (names.OPERATION_NAME, attributes[names.OPERATION_NAME]) if mine else None
        if series.definition is names.NODE_DURATION and self._name is None:
            return names.NODE_NAME, attributes[names.NODE_NAME]
        return None


def _stats(executions: ExecutionTotals) -> OperationStats:
    computed = executions.computed
    return OperationStats(
        count=executions.count,
        avg_time=computed.total / computed.count / 1e9 if computed.count else math.nan,
        min_time=computed.minimum / 1e9 if computed.count else math.nan,
        max_time=computed.maximum / 1e9 if computed.count else math.nan,
        total_time=executions.total / 1e9,
        error_count=executions.errors,
        error_rate=executions.errors / executions.count,
        p50=computed.quantile(0.5),
        p95=computed.quantile(0.95),
        p99=computed.quantile(0.99),
    )


perf_monitor: Final = PerformanceMonitor()
"""The default monitor: all unnamed operations and all nodes of this process."""
