"""OTLP metrics to write files with, as the file exporter writes them, and jobs drawn at random."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.analysis.otlp_samples import attribute

from aetherflow.telemetry import conventions as names

START = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
SCALE = 5


def exponential(values: Iterable[float], *, scale: int = SCALE, **fields: Any) -> dict[str, Any]:
    """A data point with the buckets that the SDK would have put values into; all of them above zero."""
    known = list(values)
    counts = Counter(math.ceil(math.log2(value) * 2**scale) - 1 for value in known)
    first, last = min(counts), max(counts)
    point = {
        "startTimeUnixNano": str(START),
        "timeUnixNano": str(START + 60 * SECOND),
        "count": str(len(known)),
        "sum": math.fsum(known),
        "min": min(known),
        "max": max(known),
        "scale": scale,
        "positive": {"offset": first, "bucketCounts": [str(counts[index]) for index in range(first, last + 1)]},
    }
    return point | fields


def explicit(
    values: Iterable[float], bounds: Sequence[float] = names.DURATION_BOUNDARIES, **fields: Any
) -> dict[str, Any]:
    """A data point with the explicit buckets of values."""
    known = list(values)
    edges = (-math.inf, *bounds, math.inf)
    counts = [sum(low < value <= high for value in known) for low, high in itertools.pairwise(edges)]
    point = {
        "startTimeUnixNano": str(START),
        "timeUnixNano": str(START + 60 * SECOND),
        "count": str(len(known)),
        "sum": math.fsum(known),
        "explicitBounds": list(bounds),
        "bucketCounts": list(map(str, counts)),
    }
    return point | fields


def attributed(point: Mapping[str, Any], **attributes: str) -> dict[str, Any]:
    """A data point with attributes."""
    return {**point, "attributes": [attribute(key, {"stringValue": value}) for key, value in attributes.items()]}


def of_node(point: Mapping[str, Any], node: str, flow: str = "flow", **more: str) -> dict[str, Any]:
    return attributed(point, **{names.FLOW_NAME: flow, names.NODE_NAME: node}, **more)


def metric(name: str, kind: str, *points: Mapping[str, Any], temporality: int = 2, **fields: Any) -> dict[str, Any]:
    """A metric with data points."""
    data = {"dataPoints": list(points), **fields}
    if kind != "gauge":
        data["aggregationTemporality"] = temporality
    return {"name": name, "unit": "s", kind: data}


def node_durations(*points: Mapping[str, Any], kind: str = "exponentialHistogram", **fields: Any) -> dict[str, Any]:
    return metric(names.NODE_DURATION.name, kind, *points, **fields)


def message(*metrics: Mapping[str, Any], instance: str = "1", **resource: str) -> dict[str, Any]:
    """One export request."""
    pairs = {"service.name": "shop", "service.instance.id": instance, **resource}
    return {
        "resourceMetrics": [
            {
                "resource": {"attributes": [attribute(key, {"stringValue": text}) for key, text in pairs.items()]},
                "scopeMetrics": [{"scope": {"name": "aetherflow"}, "metrics": list(metrics)}],
            }
        ]
    }


def save(path: Path, *messages: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in messages), encoding="utf-8")
    return path


def run_job(
    path: Path,
    seed: object,
    *,
    nodes: int = 6,
    calls: int = 400,
    slow: Mapping[int, float] | None = None,
    machine: float = 0.05,
    kind: str = "exponentialHistogram",
    hits: Mapping[int, float] | None = None,
    retried: Mapping[int, float] | None = None,
    has_kinds: bool = True,
    **resource: str,
) -> Path:
    """A job of nodes that take about 1 ms, 2 ms, …, on a machine that is faster or slower by chance.

    Args:
        path: The file.
        seed: Two jobs of the same seed have the same computed executions.
        nodes: The number of nodes.
        calls: Executions of each that are computed at their first attempt.
        slow: Factors by which some nodes are slower.
        machine: Standard deviation of the speed of the machine.
        kind: The kind of the histograms.
        hits: The share of cache hits among the executions of some nodes.
        retried: The share of retried executions of some nodes; each waits for 0.6 s.
        has_kinds: Whether the executions have kinds, unlike in older files.
        resource: More attributes of the resource.
    """
    rng = random.Random(f"{seed}")
    factor = math.exp(rng.gauss(0, machine))
    points, counters = [], []
    make = exponential if kind.startswith("exp") else explicit
    for node in range(nodes):
        median = 1e-3 * (node + 1) * factor * math.exp(rng.gauss(0, 0.01)) * (slow or {}).get(node, 1.0)
        values = [median * math.exp(rng.gauss(0, 0.2)) for _ in range(calls)]
        name = f"node-{node}"
        others = {"cache_hit": (_beside(calls, hits, node), 20e-6), "retried": (_beside(calls, retried, node), 0.63)}
        for each, (count, seconds) in others.items():
            if count and has_kinds:
                points.append(of_node(make([seconds] * count), name, **{names.EXECUTION_KIND: each}))
            elif count:
                values += [seconds] * count
        points.append(of_node(make(values), name))
        if hits and node in hits:
            requests = {names.CACHE_NAME: name}
            counters.append(counter(names.CACHE_REQUESTS, calls, **requests, **{names.CACHE_RESULT: "miss"}))
            counters.append(
                counter(names.CACHE_REQUESTS, others["cache_hit"][0], **requests, **{names.CACHE_RESULT: "hit"})
            )
        if retried and node in retried:
            where = {names.FLOW_NAME: "flow", names.NODE_NAME: name}
            counters.append(counter(names.NODE_RETRIES, others["retried"][0], **where))
    return save(path, message(node_durations(*points, kind=kind), *counters, **resource))


def _beside(calls: int, shares: Mapping[int, float] | None, node: int) -> int:
    """Return the number of executions beside the computed ones that makes them a share of all."""
    share = (shares or {}).get(node, 0.0)
    return round(calls * share / (1 - share))


def counter(definition: names.MetricDefinition, value: int, **attributes: str) -> dict[str, Any]:
    """A counter with one data point."""
    point = {"startTimeUnixNano": str(START), "timeUnixNano": str(START + 60 * SECOND), "asInt": str(value)}
    return metric(definition.name, "sum", attributed(point, **attributes), isMonotonic=True)
