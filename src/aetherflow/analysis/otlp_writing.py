"""Jobs written as OTLP JSON, one line each: all that a job's processes and files said, put together."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from aetherflow.analysis.histograms import Counts, ExponentialBuckets, Histogram
from aetherflow.analysis.metric_points import FrozenAttributes, Series
from aetherflow.analysis.metrics import Job
from aetherflow.telemetry.conventions import SCOPE_NAME

__all__ = ["job_line"]

_CUMULATIVE: Final = 2


def job_line(job: Job, attributes: Mapping[str, str]) -> str:
    """Write a job's histograms and sums as one export request.

    Args:
        job: The job; what gauges and up-down counters stood at is left out.
        attributes: What the resource says besides, or instead of what it said.

    Returns:
        One line of JSON, with its end.
    """
    times = {"startTimeUnixNano": str(job.started), "timeUnixNano": str(job.ended)}
    metrics = [
        *_metrics(job.histograms, lambda value: _histogram(value) | times),
        *_metrics(job.sums, lambda value: {"asDouble": value, **times}),
    ]
    resource = tuple(({**dict(job.resource), **attributes}).items())
    message = {
        "resourceMetrics": [
            {
                "resource": {"attributes": _attributes(resource)},
                "scopeMetrics": [{"scope": {"name": SCOPE_NAME}, "metrics": metrics}],
            }
        ]
    }
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")) + "\n"


def _metrics(values: Mapping[Series, Any], point: Callable[[Any], dict[str, Any]]) -> Iterable[dict[str, Any]]:
    points: defaultdict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for series, value in values.items():
        described = {"attributes": _attributes(series.attributes), **point(value)}
        points[series.metric, series.unit, _kind(value)].append(described)
    for (name, unit, kind), found in points.items():
        data: dict[str, Any] = {"aggregationTemporality": _CUMULATIVE, "dataPoints": found}
        if kind == "sum":
            data["isMonotonic"] = True
        yield {"name": name, "unit": unit, kind: data}


def _kind(value: Histogram | float) -> str:
    if not isinstance(value, Histogram):
        return "sum"
    return "exponentialHistogram" if isinstance(value.buckets, ExponentialBuckets) else "histogram"


def _histogram(histogram: Histogram) -> dict[str, Any]:
    buckets = histogram.buckets
    known = {"sum": histogram.total, "min": histogram.minimum, "max": histogram.maximum}
    point: dict[str, Any] = {"count": str(histogram.count)}
    point |= {name: value for name, value in known.items() if value is not None}
    if isinstance(buckets, ExponentialBuckets):
        return point | {
            "scale": buckets.scale,
            "zeroCount": str(buckets.zeros),
            "zeroThreshold": buckets.threshold,
            "positive": _counts(buckets.positive),
            "negative": _counts(buckets.negative),
        }
    return point | {"explicitBounds": list(buckets.bounds), "bucketCounts": list(map(str, buckets.counts))}


def _counts(counts: Counts) -> dict[str, Any]:
    return {"offset": counts.offset, "bucketCounts": list(map(str, counts.counts))}


def _attributes(attributes: FrozenAttributes) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in attributes]


def _value(value: object) -> dict[str, Any]:
    """Write a value that was made a key; what was a mapping is an array of pairs."""
    match value:
        case bool():
            return {"boolValue": value}
        case str():
            return {"stringValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case bytes():
            return {"bytesValue": base64.b64encode(value).decode()}
        case tuple():
            return {"arrayValue": {"values": [_value(item) for item in value]}}
    return {}
