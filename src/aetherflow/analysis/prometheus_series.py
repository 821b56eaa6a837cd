"""The series that Prometheus makes of AetherFlow's metrics: their names, their labels, and their histograms."""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from aetherflow.analysis.histograms import Counts, ExplicitBuckets, ExponentialBuckets, Histogram
from aetherflow.analysis.metric_points import FrozenAttributes, Series
from aetherflow.analysis.prometheus_api import Sample
from aetherflow.telemetry import conventions as names

__all__ = ["Identity", "assembled", "label_of", "native_histogram", "resource_of", "series_of", "without"]

_Part: TypeAlias = Literal["value", "bucket", "sum", "count"]
_RESOURCE: Final = (names.PIPELINE_RUN_ID, names.VCS_REVISION, names.LOAD_CONCURRENCY, names.LOAD_RATE)
_CLASSIC: Final[tuple[_Part, ...]] = ("bucket", "sum", "count")
_NAME: Final = "__name__"
_BOUND: Final = "le"
_CLOSED: Final = 3
"""The rule of the bucket around zero, to which both its bounds belong."""
_FINEST, _COARSEST = 8, -4
_PRECISION: Final = 1e-6


def label_of(attribute: str) -> str:
    """Give the label that an attribute becomes where names are translated."""
    return re.sub(r"\W", "_", attribute, flags=re.ASCII)


@dataclass(frozen=True, slots=True)
class Identity:
    """A series as the server tells them apart; of a classic histogram all of its series."""

    metric: names.MetricDefinition
    name: str
    labels: tuple[tuple[str, str], ...]


def assembled(samples: Iterable[Sample]) -> dict[Identity, dict[float, Histogram | float]]:
    """Put the samples of AetherFlow's metrics together: values by series, then by time; what is not known is left out.

    Raises:
        ValueError: A value says what cannot be; the text tells what.
    """
    found: defaultdict[Identity, dict[float, Histogram | float]] = defaultdict(dict)
    parts: defaultdict[Identity, defaultdict[float, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for sample in samples:
        name = sample.labels.get(_NAME, "")
        if name not in _KNOWN:
            continue
        metric, base, part = _KNOWN[name]
        labels = {key: value for key, value in sample.labels.items() if key not in (_NAME, _BOUND)}
        identity = Identity(metric, base, tuple(sorted(labels.items())))
        for at, value in sample.points:
            if isinstance(value, Mapping):
                found[identity][at] = native_histogram(value)
            elif part == "value" and metric.instrument != "histogram":
                found[identity][at] = float(value)
            elif part != "value":
                parts[identity][at][sample.labels.get(_BOUND, "") if part == "bucket" else part] = float(value)
    for identity, moments in parts.items():
        for at, classic in moments.items():
            if "+Inf" in classic and at not in found[identity]:
                found[identity][at] = _classic_histogram(identity.name, classic)
    return {identity: moments for identity, moments in found.items() if moments}


def series_of(identity: Identity) -> Series:
    """Give the series as files have it: with the attributes that the metric may carry."""
    labels = dict(identity.labels)
    known = {
        attribute: labels.get(attribute, labels.get(label_of(attribute))) for attribute in identity.metric.attributes
    }
    attributes = tuple(sorted((attribute, value) for attribute, value in known.items() if value))
    return Series(identity.metric.name, identity.metric.unit, attributes)


def numbers_of_histograms(samples: Iterable[Sample]) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    """Yield the names and the other labels of series that are histograms and are told as numbers."""
    for sample in samples:
        name = sample.labels.get(_NAME, "")
        metric, _, part = _KNOWN.get(name, (None, "", ""))
        number = not any(isinstance(value, Mapping) for _, value in sample.points)
        if metric and metric.instrument == "histogram" and part == "value" and number:
            yield name, tuple(sorted((key, value) for key, value in sample.labels.items() if key != _NAME))


def resource_of(info: Mapping[str, str], labels: Mapping[str, str]) -> FrozenAttributes:
    """Give the resource's attributes, under their own names where those are known.

    Args:
        info: The labels of ``target_info``.
        labels: Those of a series, which resource attributes may have been made.
    """
    translated = {label: attribute for attribute in _RESOURCE for label in (attribute, label_of(attribute))}
    known = {**info, **{name: value for name, value in labels.items() if name in translated}}
    return tuple(sorted((translated.get(name, name), value) for name, value in known.items() if name != _NAME))


def native_histogram(data: Mapping[str, Any]) -> Histogram:
    """Read a native histogram of an answer, whose buckets are ``[rule, low, high, count]``.

    Raises:
        ValueError: It says what cannot be.
    """
    count, zeros, threshold = _count("count", data["count"]), 0, 0.0
    sides: dict[bool, list[tuple[float, float, int]]] = {True: [], False: []}
    for rule, low, high, held in data.get("buckets", ()):
        bounds = float(low), float(high)
        if not bounds[0] < bounds[1] and not (rule == _CLOSED and bounds[0] == bounds[1]):
            raise ValueError(f"has a bucket from {low} to {high}")
        if rule == _CLOSED and bounds[0] <= 0 <= bounds[1]:
            zeros, threshold = _count("a bucket", held), bounds[1]
        else:
            sides[bounds[1] > 0].append((*bounds, _count("a bucket", held)))
    positive = sorted(sides[True])
    negative = sorted((-high, -low, held) for low, high, held in sides[False])
    scale = _scale_of([*positive, *negative])
    if scale is None:
        buckets: ExponentialBuckets | ExplicitBuckets = _custom(sorted([*positive, *sides[False]]), zeros, threshold)
    else:
        buckets = ExponentialBuckets(scale, zeros, threshold, _side(positive, scale), _side(negative, scale))
    if sum(buckets.held()) != count:
        raise ValueError(f"has {count} values, of which its buckets hold {sum(buckets.held())}")
    total = float(data["sum"])
    return Histogram(count, total if math.isfinite(total) else None, buckets)


def without(value: Histogram, before: Histogram) -> Histogram | None:
    """Take away what a histogram was before; None where it is not what the other became, since it started anew."""
    if value.count < before.count:
        return None
    total = None if value.total is None or before.total is None else value.total - before.total
    match value.buckets, before.buckets:
        case ExplicitBuckets(bounds, now), ExplicitBuckets(others, then) if bounds == others:
            counts = tuple(map(int.__sub__, now, then))
            return None if min(counts) < 0 else Histogram(sum(counts), total, ExplicitBuckets(bounds, counts))
        case ExponentialBuckets() as fine, ExponentialBuckets() as other:
            scale = min(fine.scale, other.scale)
            return _difference(fine.coarsened(scale), other.coarsened(scale), total)
    return None


def _difference(now: ExponentialBuckets, then: ExponentialBuckets, total: float | None) -> Histogram | None:
    negated = (Counts(side.offset, tuple(-count for count in side.counts)) for side in (then.positive, then.negative))
    positive, negative = next(negated), next(negated)
    buckets = ExponentialBuckets(
        now.scale,
        now.zeros - then.zeros,
        now.threshold,
        now.positive.merged(positive),
        now.negative.merged(negative),
    )
    held = buckets.held()
    return None if min(held) < 0 else Histogram(sum(held), total, buckets)


def _classic_histogram(name: str, parts: Mapping[str, float]) -> Histogram:
    buckets = sorted((float(bound), value) for bound, value in parts.items() if bound not in ("sum", "count"))
    cumulative = [_count(f"{name}_bucket", value) for _, value in buckets]
    counts = tuple(after - before for before, after in itertools.pairwise((0, *cumulative)))
    if min(counts) < 0:
        raise ValueError(f"has a bucket of {name} that holds less than the one below it")
    total = parts.get("sum", math.nan)
    bounds = tuple(bound for bound, _ in buckets[:-1])
    return Histogram(cumulative[-1], total if math.isfinite(total) else None, ExplicitBuckets(bounds, counts))


def _scale_of(buckets: Iterable[tuple[float, float, int]]) -> int | None:
    """Give the scale of exponential buckets; None where they are of another kind."""
    scale: int | None = _FINEST
    for number, (low, high, _) in enumerate(buckets):
        if not (low > 0 and math.isfinite(high)):
            return None
        mine = round(-math.log2(math.log2(high) - math.log2(low)))
        index = math.ldexp(math.log2(high), mine)
        if abs(index - round(index)) > _PRECISION * max(1.0, abs(index)) or (number and mine != scale):
            return None
        scale = mine
    return scale if scale is not None and _COARSEST <= scale <= _FINEST else None


def _side(buckets: Iterable[tuple[float, float, int]], scale: int) -> Counts:
    by_index = {round(math.ldexp(math.log2(high), scale)) - 1: held for _, high, held in buckets}
    if not by_index:
        return Counts()
    first, last = min(by_index), max(by_index)
    return Counts(first, tuple(by_index.get(index, 0) for index in range(first, last + 1)))


def _custom(buckets: Iterable[tuple[float, float, int]], zeros: int, threshold: float) -> ExplicitBuckets:
    """Make buckets with bounds of their own explicit ones; those between them, which are not told, are empty."""
    known = [*buckets, *([(-threshold or -math.inf, threshold, zeros)] if zeros else [])]
    bounds = sorted({bound for low, high, _ in known for bound in (low, high) if math.isfinite(bound)})
    held = {high: count for _, high, count in known}
    return ExplicitBuckets(tuple(bounds), tuple(held.get(bound, 0) for bound in (*bounds, math.inf)))


def _count(what: str, value: object) -> int:
    number = float(str(value))
    if not (0 <= number < 2**63):
        raise ValueError(f"says {number:g} of {what}, which is no count")
    return round(number)


def _known() -> dict[str, tuple[names.MetricDefinition, str, _Part]]:
    """Give what a series is of, by its name: with dots or underscores, with its unit or without."""
    known: dict[str, tuple[names.MetricDefinition, str, _Part]] = {}
    for metric in (*names.ALL_METRICS, names.LOAD_LATENCY, names.LOAD_TIME):
        suffixes = {"s": ("", "_seconds"), "1": ("", "_ratio")}.get(metric.unit, ("",))
        for base in (name + suffix for name in (label_of(metric.name), metric.name) for suffix in suffixes):
            known[base] = metric, base, "value"
            if metric.instrument == "histogram":
                known |= {f"{base}_{part}": (metric, base, part) for part in _CLASSIC}
            elif metric.instrument != "observable_up_down_counter":
                known[f"{base}_total"] = metric, f"{base}_total", "value"
    return known


_KNOWN: Final = _known()
