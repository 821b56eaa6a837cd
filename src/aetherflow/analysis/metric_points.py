"""The data points of OTLP metrics: each read, and refused where it says something that cannot be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from aetherflow.analysis.histograms import Counts, ExplicitBuckets, ExponentialBuckets, Histogram
from aetherflow.analysis.otlp_fields import (
    Attributes,
    AttributeValue,
    MalformedFieldError,
    Message,
    attributes,
    decimal,
    decimals,
    enumerated,
    flag,
    message,
    messages,
    text,
    whole,
    wholes,
)
from aetherflow.analysis.otlp_files import OtlpRecord, UnreadableTelemetryError

__all__ = ["FrozenAttributes", "MetricPoint", "Series", "Source", "Temporality", "points_of"]

Temporality: TypeAlias = Literal["unspecified", "delta", "cumulative"]

FrozenAttributes: TypeAlias = tuple[tuple[str, object], ...]
"""Attributes that can be a key: sorted pairs."""

_TEMPORALITIES: Final[tuple[Temporality, ...]] = ("unspecified", "delta", "cumulative")
_NO_VALUE: Final = 1
"""The flag of a point that says only that there is none."""
_SCALES: Final = range(-10, 21)
_NONE: Final = Counts()
_FARTHEST: Final = 1100
"""Power of two beyond which there are no doubles."""


@dataclass(frozen=True, slots=True)
class Series:
    """What a value is of: a metric with its attributes."""

    metric: str
    unit: str
    attributes: FrozenAttributes

    def get(self, name: str) -> str | None:
        """Give an attribute as text; None where it is not there."""
        return next((str(value) for key, value in self.attributes if key == name), None)


@dataclass(frozen=True, slots=True)
class Source:
    """What emitted a point: the resource, which tells processes apart, and the instrumentation."""

    resource: FrozenAttributes
    scope: str


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """One value of one series.

    Attributes:
        series: What it is of.
        source: What emitted it.
        start: Since when it adds up, in nanoseconds since the epoch; 0 where that is not known.
        time: When it was taken.
        value: A histogram, or a number.
        temporality: Whether it adds up since ``start``, or since the point before; of a gauge neither.
        monotonic: Whether a number only grows.
    """

    series: Series
    source: Source
    start: int
    time: int
    value: Histogram | float
    temporality: Temporality = "unspecified"
    monotonic: bool = False


def points_of(record: OtlpRecord) -> Iterator[MetricPoint]:
    """Yield the data points in one record; summaries, and what is not known here, are passed over.

    Raises:
        UnreadableTelemetryError: A field is not OTLP, or says something that cannot be.
    """
    try:
        for group in messages(record.data, "resourceMetrics"):
            resource = _frozen(attributes(message(group, "resource")))
            for scoped in messages(group, "scopeMetrics"):
                source = Source(resource, text(message(scoped, "scope"), "name"))
                for metric in messages(scoped, "metrics"):
                    yield from _points(metric, source)
    except MalformedFieldError as error:
        raise UnreadableTelemetryError(record.path, record.line, f"is not OTLP: {error}") from error


def _points(metric: Message, source: Source) -> Iterator[MetricPoint]:
    name, unit = text(metric, "name"), text(metric, "unit")
    for kind, read in _READERS.items():
        if kind not in metric:
            continue
        data = message(metric, kind)
        temporality = enumerated(data, "aggregationTemporality", "AGGREGATION_TEMPORALITY_", _TEMPORALITIES)
        monotonic = flag(data, "isMonotonic")
        if kind != "gauge" and temporality == "unspecified":
            raise MalformedFieldError(
                "aggregationTemporality", data.get("aggregationTemporality"), "delta (1) or cumulative (2)"
            )
        for point in messages(data, "dataPoints"):
            if whole(point, "flags") & _NO_VALUE:
                continue
            value = read(point)
            if isinstance(value, float) and math.isnan(value):
                if kind == "gauge":
                    continue  # an instrument that has nothing to tell
                raise MalformedFieldError("asDouble", value, "a number")
            if monotonic and isinstance(value, float) and not 0 <= value < math.inf:
                raise MalformedFieldError(
                    "asInt" if "asInt" in point else "asDouble", value, "0 or more and finite, as a counter is"
                )
            series = Series(name, unit, _frozen(attributes(point)))
            start, time = whole(point, "startTimeUnixNano"), whole(point, "timeUnixNano")
            yield MetricPoint(series, source, start, time, value, temporality, monotonic)


def _number(point: Message) -> float:
    return float(whole(point, "asInt")) if "asInt" in point else decimal(point, "asDouble")


def _histogram(point: Message) -> Histogram:
    bounds = tuple(decimals(point, "explicitBounds"))
    counts = wholes(point, "bucketCounts")
    count = _count(point, "count")
    if not counts and not bounds:
        counts = [count]
    if any(not low < high for low, high in itertools.pairwise(bounds)) or any(map(math.isnan, bounds)):
        raise MalformedFieldError("explicitBounds", bounds, "numbers in ascending order")
    if len(counts) != len(bounds) + 1:
        raise MalformedFieldError("bucketCounts", counts, f"{len(bounds) + 1} counts, one more than there are bounds")
    return _made(point, count, ExplicitBuckets(bounds, tuple(_counts("bucketCounts", counts))))


def _exponential(point: Message) -> Histogram:
    scale = whole(point, "scale")
    if scale not in _SCALES:
        raise MalformedFieldError("scale", scale, f"{_SCALES[0]} to {_SCALES[-1]}")
    threshold = _finite(point, "zeroThreshold") or 0.0
    if threshold < 0:
        raise MalformedFieldError("zeroThreshold", threshold, "0 or more")
    sides = (_side(message(point, name), scale) for name in ("positive", "negative"))
    return _made(
        point, _count(point, "count"), ExponentialBuckets(scale, _count(point, "zeroCount"), threshold, *sides)
    )


def _side(data: Message, scale: int) -> Counts:
    """Read the buckets on one side of zero."""
    if not data:  # as on the negative one of durations
        return _NONE
    offset, counts = whole(data, "offset"), _counts("bucketCounts", wholes(data, "bucketCounts"))
    reach = _FARTHEST * 2.0**scale
    if counts and not -reach <= offset <= offset + len(counts) <= reach:
        raise MalformedFieldError("offset", offset, f"where the bounds at scale {scale} are numbers")
    return Counts(offset, tuple(counts))


def _made(point: Message, count: int, buckets: ExplicitBuckets | ExponentialBuckets) -> Histogram:
    held = sum(buckets.held())
    if held != count:
        raise MalformedFieldError("count", count, f"what the buckets hold, {held}")
    total, minimum, maximum = (_finite(point, name) for name in ("sum", "min", "max"))
    return Histogram(count, total, buckets, minimum, maximum)


def _finite(point: Message, name: str) -> float | None:
    """Give a number that may be absent."""
    if point.get(name) is None:
        return None
    value = decimal(point, name)
    if not math.isfinite(value):
        raise MalformedFieldError(name, value, "a finite number")
    return value


def _count(point: Message, name: str) -> int:
    value = whole(point, name)
    if value < 0:
        raise MalformedFieldError(name, value, "0 or more")
    return value


def _counts(name: str, values: list[int]) -> list[int]:
    if values and min(values) < 0:
        raise MalformedFieldError(name, min(values), "counts of 0 or more")
    return values


def _frozen(given: Attributes) -> FrozenAttributes:
    return tuple(sorted((key, _key(value)) for key, value in given.items()))


def _key(value: AttributeValue) -> object:
    """Make an attribute's value something that can be a key."""
    if isinstance(value, Mapping):
        return _frozen(value)
    return tuple(map(_key, value)) if isinstance(value, tuple) else value


_READERS: Final[Mapping[str, Callable[[Message], Histogram | float]]] = {
    "exponentialHistogram": _exponential,
    "histogram": _histogram,
    "sum": _number,
    "gauge": _number,
}
"""How a point of each kind of metric is read."""
