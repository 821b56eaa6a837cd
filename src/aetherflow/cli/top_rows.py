"""What ``aetherflow top`` shows of a process: what each of its parts did between two scrapes, and how it is now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from aetherflow.analysis.histograms import Histogram, merge_histograms
from aetherflow.analysis.metric_points import Series
from aetherflow.analysis.scrapes import Change
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.conventions import MetricDefinition

__all__ = ["Loss", "Row", "activities", "batches", "caches", "health", "loss", "resources"]

Key = tuple[str, ...]
_NOTHING: Final = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A part of a process.

    Attributes:
        name: What it is called, from the general to the particular.
        rate: What it did, a second.
        errors: What of that failed, a second.
        p50: Median duration of computed executions, in seconds; None if there were none.
        p95: What 95 % of them do not exceed.
        busy: Seconds spent, a second.
        total: What it has done since it began.
        levels: How it is now: numbers by what they count.
    """

    name: Key
    rate: float = 0.0
    errors: float = 0.0
    p50: float | None = None
    p95: float | None = None
    busy: float = 0.0
    total: float = 0.0
    levels: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Loss:
    """What became of spans: a second, and how many were lost since the process began."""

    exported: float
    lost: float
    lost_ever: float


def activities(change: Change, metric: MetricDefinition, *attributes: str) -> list[Row]:
    """Return what a histogram of durations says, the busiest first; by those attributes."""
    now = _by(attributes, ((each, _count(change, each)) for each in _series(change, metric)))
    since = change.recorded(metric.name)
    active = _levels(change, names.NODE_ACTIVE, attributes)
    retried = _levels_of(change.counted(names.NODE_RETRIES.name), attributes)
    rows = []
    for key, totals in now.items():
        chosen = [each for each in since if _key(each, attributes) == key]
        failed = sum(since[each].count for each in chosen if each.get(names.ERROR_TYPE))
        levels = {"active": active.get(key, 0.0), "retries": retried.get(key, 0.0) / change.seconds}
        kinds = [each for each in chosen if each.get(names.EXECUTION_KIND) in names.CACHED_KINDS]
        if kinds and (executions := sum(since[each].count for each in chosen)):
            levels["hits"] = sum(since[each].count for each in kinds) / executions
        computed = [since[each] for each in chosen if not each.get(names.EXECUTION_KIND)]
        row = _row(key, [since[each] for each in chosen], change.seconds, failed, sum(totals), levels)
        times = _row(key, computed, change.seconds, 0, 0, {})
        rows.append(replace(row, p50=times.p50, p95=times.p95))
    return sorted(rows, key=lambda row: (-row.busy, -row.rate, -row.total, row.name))


def resources(change: Change) -> list[Row]:
    """Return executors and pools: how many of their workers or objects are used, who waits, and for how long."""
    rows = []
    for kind, name, states, state, waiting, wait in (
        (
            "executor",
            names.EXECUTOR_NAME,
            names.EXECUTOR_WORKERS,
            names.EXECUTOR_STATE,
            names.EXECUTOR_QUEUE,
            names.EXECUTOR_WAIT,
        ),
        ("pool", names.POOL_NAME, names.POOL_OBJECTS, names.POOL_STATE, names.POOL_WAITING, names.POOL_WAIT),
    ):
        waited, queued = change.recorded(wait.name), _levels(change, waiting, (name,))
        there = _levels(change, states, (name, state))
        for key in sorted({(each[0],) for each in there} | set(queued) | {_key(each, (name,)) for each in waited}):
            levels = {
                "used": there.get((*key, "used"), 0.0),
                "idle": there.get((*key, "idle"), 0.0),
                "waiting": queued.get(key, 0.0),
            }
            chosen = [value for each, value in waited.items() if _key(each, (name,)) == key]
            rows.append(_row((kind, *key), chosen, change.seconds, 0, 0, levels))
    return rows


def caches(change: Change) -> list[Row]:
    """Return caches: look-ups a second, the share of hits, and entries."""
    asked = change.counted(names.CACHE_REQUESTS.name)
    results = _levels_of(asked, (names.CACHE_NAME, names.CACHE_RESULT))
    entries = _levels(change, names.CACHE_ENTRIES, (names.CACHE_NAME,))
    rows = []
    for key in sorted(entries.keys() | {_key(each, (names.CACHE_NAME,)) for each in asked}):
        found = {result: count for (name, result), count in results.items() if (name,) == key}
        requests = sum(found.values())
        levels = {"entries": entries.get(key, 0.0)}
        if requests:
            levels["hits"] = (requests - found.get("miss", 0.0)) / requests
        rows.append(Row(key, requests / change.seconds, levels=levels))
    return rows


def batches(change: Change) -> list[Row]:
    """Return micro-batches: how many a second, of what size, and how long items waited for them."""
    sizes, waits = change.recorded(names.BATCH_SIZE_METRIC.name), change.recorded(names.BATCH_WAIT_METRIC.name)
    rows = []
    for key in sorted({_key(each, (names.NODE_NAME,)) for each in sizes}):
        waited = [value for each, value in waits.items() if _key(each, (names.NODE_NAME,)) == key]
        size = merge_histograms(value for each, value in sizes.items() if _key(each, (names.NODE_NAME,)) == key)
        row = _row(key, waited, change.seconds, 0, 0, {"size": size.mean} if size and size.mean is not None else {})
        rows.append(Row(key, size.count / change.seconds if size else 0.0, p50=row.p50, p95=row.p95, levels=row.levels))
    return rows


def loss(change: Change) -> Loss | None:
    """Return what became of spans; None where that is not told."""
    counted = _levels_of(change.counted(names.TELEMETRY_SPANS.name), (names.TELEMETRY_OUTCOME,))
    if not counted:
        return None
    ever = _levels_of(change.level(names.TELEMETRY_SPANS.name), (names.TELEMETRY_OUTCOME,))
    lost, lost_ever = (sum(each.get((key,), 0.0) for key in ("dropped", "failed")) for each in (counted, ever))
    return Loss(counted.get(("exported",), 0.0) / change.seconds, lost / change.seconds, lost_ever)


def health(change: Change) -> str | None:
    """Return the state that the process says it is in; None where it says nothing of any."""
    states = change.level(names.HEALTH_STATUS.name)
    return next(
        (series.get(names.HEALTH_STATE) for series, value in states.items() if value), "unknown" if states else None
    )


def _row(
    key: Key, since: Iterable[Histogram], seconds: float, failed: int, total: float, levels: Mapping[str, float]
) -> Row:
    found = merge_histograms(since)
    if found is None or not found.count:
        return Row(key, total=total, levels=levels)
    p50, p95 = found.quantiles(0.5, 0.95)
    busy = (found.total or 0.0) / seconds
    return Row(key, found.count / seconds, failed / seconds, p50, p95, busy, total, levels)


def _series(change: Change, metric: MetricDefinition) -> list[Series]:
    return [each for each in change.now.values if each.metric == metric.name]


def _count(change: Change, series: Series) -> float:
    value = change.now.values[series]
    return value.count if isinstance(value, Histogram) else value


def _key(series: Series, attributes: Iterable[str]) -> Key:
    return tuple(series.get(each) or _NOTHING for each in attributes)


def _by(attributes: Iterable[str], values: Iterable[tuple[Series, float]]) -> dict[Key, list[float]]:
    wanted = tuple(attributes)
    found: dict[Key, list[float]] = {}
    for series, value in values:
        found.setdefault(_key(series, wanted), []).append(value)
    return found


def _levels_of(values: Mapping[Series, float], attributes: Iterable[str]) -> dict[Key, float]:
    return {key: sum(each) for key, each in _by(attributes, values.items()).items()}


def _levels(change: Change, metric: MetricDefinition, attributes: Iterable[str]) -> dict[Key, float]:
    return _levels_of(change.level(metric.name), attributes)
