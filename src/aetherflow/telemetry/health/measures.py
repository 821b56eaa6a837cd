"""Checks derived from what the meters say: latencies, errors, waits, progress, and loss of telemetry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Final, NamedTuple

from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.health.facts import Queue
from aetherflow.telemetry.health.limits import Limits, LimitsByName
from aetherflow.telemetry.health.report import CheckResult
from aetherflow.telemetry.health.status import CheckStatus, ViewName
from aetherflow.telemetry.metrics.accumulators import Series, Totals
from aetherflow.telemetry.metrics.execution_totals import ExecutionTotals, group_totals

__all__ = ["Progress", "of_durations", "of_spans"]

_HEALTH: Final[frozenset[ViewName]] = frozenset({"health"})
_READY: Final[frozenset[ViewName]] = frozenset({"ready", "health"})
_LIVE: Final[frozenset[ViewName]] = frozenset({"live", "ready", "health"})

_COMPONENTS: Final = {
    names.NODE_DURATION.name: ("node", names.NODE_NAME),
    names.OPERATION_DURATION.name: ("operation", names.OPERATION_NAME),
    names.EXECUTOR_WAIT.name: ("executor", names.EXECUTOR_NAME),
    names.POOL_WAIT.name: ("pool", names.POOL_NAME),
}
"""What kind of component the series of a metric is about, and the attribute that names it."""


def of_durations(recorded: Mapping[Series, Totals], limits: LimitsByName, min_samples: int) -> Iterator[CheckResult]:
    """Yield the checks of nodes and operations, and of the waits for executors and pools.

    Error rates are over executions of all kinds; latencies are those of the executions that were computed at their
    first attempt.

    Args:
        recorded: What a window holds.
        limits: Thresholds.
        min_samples: So many values make a check known.
    """
    by_component = ((_component(series), series, totals) for series, totals in recorded.items())
    grouped = group_totals(
        (component, series, totals) for component, series, totals in by_component if component is not None
    )
    for (kind, name), executions in sorted(grouped.items(), key=itemgetter(0)):
        measured = _served if kind in ("executor", "pool") else _executed
        for found, samples in measured(limits.of(kind, name), executions):
            if found.threshold is not None:
                status = found.status() if samples >= min_samples else "unknown"
                yield CheckResult(
                    f"{kind} {name}", found.measurement, status, found.value, found.threshold, found.unit, found.views
                )


def _component(series: Series) -> tuple[str, str] | None:
    if series.definition.name not in _COMPONENTS:
        return None
    kind, attribute = _COMPONENTS[series.definition.name]
    monitor = series.attributes.get(names.MONITOR_NAME)
    name = series.attributes[attribute]
    return kind, name if monitor is None else f"{monitor}/{name}"


class _Measured(NamedTuple):
    measurement: str
    value: float
    threshold: float | None
    unit: str
    bad: CheckStatus
    views: frozenset[ViewName]

    def status(self) -> CheckStatus:
        return self.bad if self.threshold is not None and self.value > self.threshold else "ok"


def _executed(limits: Limits, executions: ExecutionTotals) -> Iterator[tuple[_Measured, int]]:
    """Yield each measurement, and the number of values that it rests on."""
    computed = executions.computed
    if computed.count:
        average = computed.total / computed.count / 1e9
        yield _Measured("average latency", average, limits["average"], "s", "warning", _HEALTH), computed.count
        p95 = computed.quantile(0.95)
        yield _Measured("p95 latency", p95, limits["p95"], "s", "warning", _HEALTH), computed.count
    error_rate = executions.errors / executions.count
    yield _Measured("error rate", error_rate, limits["error_rate"], "1", "error", _HEALTH), executions.count


def _served(limits: Limits, waits: ExecutionTotals) -> Iterator[tuple[_Measured, int]]:
    """Yield each measurement, and the number of values that it rests on."""
    p95 = waits.computed.quantile(0.95)
    yield _Measured("p95 wait", p95, limits["wait"], "s", "warning", _READY), waits.count


class Progress:
    """Since when executors and pools have had somebody waiting and served nobody.

    Args:
        queues: Those of now.
        now: Monotonic time in seconds.
    """

    def __init__(self, queues: Iterable[Queue], now: float) -> None:
        self._last = {key: (*found, now) for key, found in _by_name(queues).items()}

    def of(self, queues: Iterable[Queue], limits: LimitsByName, now: float) -> Iterator[CheckResult]:
        """Yield the checks of those that somebody has wanted something of since the last time.

        Args:
            queues: Those of now.
            limits: Thresholds.
            now: Monotonic time in seconds.
        """
        last, self._last = self._last, {}
        for key, (waiting, served) in _by_name(queues).items():
            waiting_before, served_before, since = last.get(key, (0, 0, now))
            if not (waiting and waiting_before) or served != served_before:
                since = now
            self._last[key] = waiting, served, since
            threshold = limits.of(*key)["progress"]
            if threshold is None or (not waiting and served == served_before):
                continue
            status: CheckStatus = "error" if now - since > threshold else "ok"
            # a pool's objects are a dependency: to restart this process would not free them
            views = _LIVE if key[0] == "executor" else _READY
            yield CheckResult(" ".join(key), "time without progress", status, now - since, threshold, "s", views)


def _by_name(queues: Iterable[Queue]) -> dict[tuple[str, str], tuple[int, int]]:
    """Those of one name together: metrics do not tell them apart either."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for queue in queues:
        waiting, served = found.get((queue.kind, queue.name), (0, 0))
        found[queue.kind, queue.name] = waiting + queue.waiting, served + queue.served
    return found


def of_spans(lately: Mapping[str, int], limits: LimitsByName, min_samples: int) -> Iterator[CheckResult]:
    """Yield the check of how much telemetry was lost.

    Args:
        lately: How many spans were exported, dropped and failed within the window, by that word.
        limits: Thresholds.
        min_samples: So many spans make the check known.
    """
    threshold, total = limits.of("telemetry", "spans")["telemetry_loss"], sum(lately.values())
    if threshold is None or not total:
        return
    share = (total - lately.get("exported", 0)) / total  # exact where the threshold is reached
    found = _Measured("loss", share, threshold, "1", "warning", _HEALTH)
    status = found.status() if total >= min_samples else "unknown"
    yield CheckResult("telemetry", found.measurement, status, share, threshold, found.unit, found.views)
