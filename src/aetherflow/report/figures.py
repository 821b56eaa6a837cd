"""The numbers of a report: latencies, health, batches, caches, pools and executors, from metrics or else from spans."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aetherflow.analysis.histograms import (
    Counts,
    ExponentialBuckets,
    Histogram,
    merge_histograms,
)
from aetherflow.analysis.metric_points import Series
from aetherflow.analysis.metrics import Job
from aetherflow.analysis.spans import Span
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.conventions import MetricDefinition

__all__ = ["Recorded", "bars", "counted", "latencies", "levels", "recorded", "summary", "usage"]

Recorded = Mapping[Series, Histogram]
"""What was recorded of one metric, over all jobs."""

_FEWEST_BARS, _MOST_BARS = 10, 48
_SPAN_SCALE: Final = 5
"""Of histograms made from spans: buckets 2.2 % wide."""


def recorded(jobs: Iterable[Job], metric: MetricDefinition) -> Recorded:
    """Give what all jobs recorded of a metric, by series."""
    found: defaultdict[Series, list[Histogram]] = defaultdict(list)
    for job in jobs:
        for series, histogram in job.histograms.items():
            if series.metric == metric.name:
                found[series].append(histogram)
    return {series: merged for series, parts in found.items() if (merged := merge_histograms(parts))}


def counted(jobs: Iterable[Job], metric: MetricDefinition, attribute: str, by: str) -> dict[str, dict[str, float]]:
    """Give what all jobs counted of a metric, by the values of two attributes."""
    found: dict[str, dict[str, float]] = {}
    for job in jobs:
        for series, value in job.sums.items():
            if series.metric == metric.name:
                part = found.setdefault(series.get(attribute) or "", {})
                part[series.get(by) or ""] = part.get(series.get(by) or "", 0.0) + value
    return found


def levels(jobs: Iterable[Job], metric: MetricDefinition, attribute: str, by: str = "") -> dict[str, dict[str, Any]]:
    """Give what a level stood at, last and at most, by the values of two attributes, over all jobs."""
    found: dict[str, dict[str, Any]] = {}
    for job in jobs:
        for series, level in job.levels.items():
            if series.metric == metric.name:
                part = found.setdefault(series.get(attribute) or "", {})
                before = part.get(series.get(by) or "", {"last": 0.0, "most": 0.0})
                part[series.get(by) or ""] = {
                    "last": before["last"] + level.last,
                    "most": max(before["most"], level.largest),
                }
    return found


def summary(histogram: Histogram) -> dict[str, Any]:
    """Give count, mean, quantiles, extremes and bars of a histogram."""
    p50, p95, p99 = histogram.quantiles(0.5, 0.95, 0.99) or (None, None, None)
    return {
        "count": histogram.count,
        "mean": histogram.mean,
        "p50": p50,
        "p95": p95,
        "p99": p99,
        "min": histogram.minimum,
        "max": histogram.maximum,
        "bars": bars(histogram),
    }


def bars(histogram: Histogram) -> list[tuple[float, float, int]]:
    """Give the buckets of a histogram as few enough to look at: low, high and how many values are between.

    Open ends are closed where the extremes say how far values go; empty buckets at the ends are left out.
    """
    buckets = histogram.buckets
    most = min(_MOST_BARS, max(_FEWEST_BARS, round(2 * math.sqrt(histogram.count))))
    while isinstance(buckets, ExponentialBuckets) and len(buckets.positive.counts) > most:
        buckets = buckets.coarsened(buckets.scale - 1)
    found = []
    for position, count in enumerate(buckets.held()):
        low, high, _ = buckets.at(position)
        if math.isinf(high):
            high = histogram.maximum if histogram.maximum is not None else low * 2 or 1.0
        found.append((max(low, 0.0) if math.isinf(low) else low, max(low, high), count))
    full = [place for place, (_, _, count) in enumerate(found) if count]
    return [bar for bar in found[full[0] : full[-1] + 1] if bar[1] > bar[0] or bar[2]] if full else []


def latencies(jobs: Sequence[Job], spans: Iterable[Span]) -> list[dict[str, Any]]:
    """Return the durations of runs and nodes, from metrics if there are any, else from spans.

    Times are of the executions that were computed at their first attempt; cache hits and retried ones are counted.

    Returns:
        For each: ``kind`` (run, node or operation), ``flow``, ``name``, ``source``, the numbers of executions
        (``count``: all, ``errors``, ``computed``, ``cached``, ``retried``), and the `summary` of the computed ones.
    """
    parts: defaultdict[tuple[str, str, str], _Executions] = defaultdict(_Executions)
    for metric, kind, attribute in (
        (names.RUN_DURATION, "run", names.FLOW_NAME),
        (names.NODE_DURATION, "node", names.NODE_NAME),
        (names.OPERATION_DURATION, "operation", names.OPERATION_NAME),
    ):
        for series, histogram in recorded(jobs, metric).items():
            group = series.get(names.MONITOR_NAME if kind == "operation" else names.FLOW_NAME) or ""
            executions = parts[kind, group, series.get(attribute) or ""]
            failed = series.get(names.ERROR_TYPE) is not None
            executions.add(histogram, failed=failed, kind=series.get(names.EXECUTION_KIND) or "")
    source = "metrics"
    if not any(kind in ("run", "node") for kind, _, _ in parts):
        source = "spans"
        for (key, failed, execution_kind), durations in _durations_of(spans).items():
            parts[key].add(_histogram(durations), failed=failed, kind=execution_kind)
    return [
        {"kind": kind, "flow": flow, "name": name, "source": source, **executions.figures()}
        for (kind, flow, name), executions in parts.items()
        if executions.count
    ]


@dataclass(slots=True)
class _Executions:
    """Executions of a run, a node or an operation: their number by outcome, and durations of the computed ones."""

    count: int = 0
    errors: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    computed: list[Histogram] = field(default_factory=list)

    def add(self, durations: Histogram, *, failed: bool, kind: str) -> None:
        self.count += durations.count
        self.errors += durations.count if failed else 0
        if kind:
            self.kinds[kind] += durations.count
        else:
            self.computed.append(durations)

    def figures(self) -> dict[str, Any]:
        computed = merge_histograms(self.computed) or Histogram(0, None, ExponentialBuckets(_SPAN_SCALE))
        return {
            **summary(computed),
            "count": self.count,
            "errors": self.errors,
            "computed": computed.count,
            "cached": sum(self.kinds[kind] for kind in names.CACHED_KINDS),
            "retried": self.kinds[names.RETRIED_KIND],
        }


def _durations_of(spans: Iterable[Span]) -> dict[tuple[tuple[str, str, str], bool, str], list[float]]:
    """Return the durations of spans by subject, by whether they failed, and by the kind of execution."""
    durations: defaultdict[tuple[tuple[str, str, str], bool, str], list[float]] = defaultdict(list)
    for span in spans:
        kind = str(span.attributes.get(names.EXECUTION_KIND, ""))
        durations[_kind_of(span), span.failed, kind].append(span.duration)
    return durations


def _kind_of(span: Span) -> tuple[str, str, str]:
    flow = str(span.attributes.get(names.FLOW_NAME) or span.resource.service)
    if names.FLOW_NODES in span.attributes:
        return "run", flow, flow
    return "node", flow, str(span.attributes.get(names.NODE_NAME) or span.name)


def _histogram(values: Sequence[float]) -> Histogram:
    """Make a histogram of durations in seconds."""
    held: defaultdict[int, int] = defaultdict(int)
    for value in values:
        if value > 0:
            held[math.ceil(math.log2(value) * 2**_SPAN_SCALE) - 1] += 1
    low = min(held, default=0)
    counts = tuple(held.get(index, 0) for index in range(low, max(held, default=-1) + 1))
    buckets = ExponentialBuckets(_SPAN_SCALE, len(values) - sum(counts), 0.0, Counts(low, counts))
    return Histogram(len(values), math.fsum(values), buckets, min(values), max(values))


def usage(jobs: Sequence[Job], spans: Iterable[Span]) -> dict[str, Any]:
    """Tell how batches, caches, pools and executors were used.

    Returns:
        ``batches``, ``caches``, ``pools`` and ``executors``: a row for each by name, times in seconds.
    """
    seen = list(spans)
    return {
        "batches": _batches(jobs) or _batches_of_spans(seen),
        "caches": list(_caches(jobs)) or _caches_of_spans(seen),
        "pools": list(_pools(jobs)),
        "executors": list(_executors(jobs)),
    }


def _batches(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    waits = {series.get(names.NODE_NAME): each for series, each in recorded(jobs, names.BATCH_WAIT_METRIC).items()}
    return [
        {
            "name": name,
            "source": "metrics",
            "size": summary(sizes),
            "wait": summary(waits[name]) if name in waits else None,
        }
        for series, sizes in recorded(jobs, names.BATCH_SIZE_METRIC).items()
        for name in [series.get(names.NODE_NAME) or ""]
    ]


def _batches_of_spans(spans: Iterable[Span]) -> list[dict[str, Any]]:
    """Tell of batches from their own spans, which are those with a size and without a place in a fan-out."""
    sizes: defaultdict[str, list[float]] = defaultdict(list)
    for span in spans:
        size = span.attributes.get(names.BATCH_SIZE)
        if isinstance(size, int) and span.links and names.BATCH_INDEX not in span.attributes:
            sizes[str(span.attributes.get(names.NODE_NAME, span.name))].append(float(size))
    return [
        {"name": name, "source": "spans", "size": summary(_histogram(values)), "wait": None}
        for name, values in sizes.items()
    ]


def _caches(jobs: Sequence[Job]) -> Iterator[dict[str, Any]]:
    entries = levels(jobs, names.CACHE_ENTRIES, names.CACHE_NAME)
    for name, results in counted(jobs, names.CACHE_REQUESTS, names.CACHE_NAME, names.CACHE_RESULT).items():
        held = entries.get(name, {}).get("")
        yield {"name": name, "source": "metrics", "results": results, "entries": held["last"] if held else None}


def _caches_of_spans(spans: Iterable[Span]) -> list[dict[str, Any]]:
    found: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for span in spans:
        hit = span.attributes.get(names.NODE_CACHE_HIT)
        if isinstance(hit, bool):
            results = found[str(span.attributes.get(names.NODE_NAME, span.name))]
            results["hit" if hit else "miss"] = results.get("hit" if hit else "miss", 0.0) + 1
    return [{"name": name, "source": "spans", "results": results, "entries": None} for name, results in found.items()]


def _pools(jobs: Sequence[Job]) -> Iterator[dict[str, Any]]:
    waits = {series.get(names.POOL_NAME): each for series, each in recorded(jobs, names.POOL_WAIT).items()}
    waiting = levels(jobs, names.POOL_WAITING, names.POOL_NAME)
    objects = levels(jobs, names.POOL_OBJECTS, names.POOL_NAME, names.POOL_STATE)
    for name in dict.fromkeys([*objects, *(each or "" for each in waits)]):
        yield {
            "name": name,
            "states": objects.get(name, {}),
            "waiting": waiting.get(name, {}).get(""),
            "wait": summary(waits[name]) if name in waits else None,
        }


def _executors(jobs: Sequence[Job]) -> Iterator[dict[str, Any]]:
    waits = {series.get(names.EXECUTOR_NAME): each for series, each in recorded(jobs, names.EXECUTOR_WAIT).items()}
    workers = levels(jobs, names.EXECUTOR_WORKERS, names.EXECUTOR_NAME, names.EXECUTOR_STATE)
    queues = levels(jobs, names.EXECUTOR_QUEUE, names.EXECUTOR_NAME, names.EXECUTOR_STATE)
    for name in dict.fromkeys([*workers, *(each or "" for each in waits)]):
        yield {
            "name": name,
            "states": workers.get(name, {}),
            "queue": queues.get(name, {}),
            "wait": summary(waits[name]) if name in waits else None,
        }
