"""Many values at once into the histograms of OpenTelemetry's SDK: the only module that knows its private parts.

``record()`` takes microseconds a value, since it looks the aggregation up each time. Here the aggregations of an
instrument are looked up once for all values of a fold, in every reader's storage and under every view that matches,
and are given what ``record()`` would have given them: counts a bucket, the scale of exponential histograms, sum,
minimum, maximum, an exemplar that passes the filter.

None of that is promised by the SDK. So :func:`difference` compares it with ``record()`` itself, once a process, and
where there is any difference, or any error, the public way is taken.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from opentelemetry import metrics
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter, Histogram, MeterProvider
from opentelemetry.sdk.metrics._internal._view_instrument_match import _hash_attributes, _ViewInstrumentMatch
from opentelemetry.sdk.metrics._internal.aggregation import (
    _DropAggregation,
    _ExplicitBucketHistogramAggregation,
    _ExponentialBucketHistogramAggregation,
    _LastValueAggregation,
    _SumAggregation,
)
from opentelemetry.sdk.metrics._internal.exponential_histogram.buckets import Buckets
from opentelemetry.sdk.metrics._internal.measurement import Measurement
from opentelemetry.sdk.metrics._internal.measurement_consumer import SynchronousMeasurementConsumer
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, ExponentialBucketHistogramAggregation
from opentelemetry.sdk.resources import Resource

from aetherflow.telemetry.conventions import NODE_DURATION, NODE_NAME, SCOPE_NAME
from aetherflow.telemetry.metrics.accumulators import Folded, Totals

__all__ = ["difference", "index_at", "is_sdk", "merge"]

_new_buckets: Final[Callable[[], Any]] = Buckets


_ROUNDS: Final = (
    (0, 0),
    (70_000, 5_000, 5_000, 81_250),
    (1, 0, 250_000_000, 3_000_000_000, 400_000_000_000, 5_000),
    (7_000_000,),
)
"""Nanoseconds that are published between collections to compare: a zero alone, one scale, a coarser one, and after."""


def is_sdk(histogram: metrics.Histogram) -> bool:
    """Tell whether a histogram is the SDK's own, whose aggregations are known here."""
    return (
        isinstance(histogram, Histogram)
        and type(histogram).record is Histogram.record
        and type(histogram._measurement_consumer) is SynchronousMeasurementConsumer
    )


class _Batch:
    """The values of a fold, in the unit of their instrument."""

    __slots__ = ("attributes", "count", "distinct", "folded", "maximum", "measurement", "minimum", "ticks", "total")

    def __init__(self, histogram: Histogram, attributes: Mapping[str, str], folded: Folded, ticks: int) -> None:
        self.folded = folded
        self.ticks = ticks
        value, context, at = folded.exemplar or (folded.values[-1], Context(), folded.since)
        self.measurement = Measurement(self.amount(value), at, histogram, context, attributes)
        self.attributes = self.measurement.attributes or {}  # as the SDK has cleaned them
        self.distinct = [(self.amount(value), times) for value, times in folded.distinct.items()]
        totals = folded.totals
        self.count = totals.count
        self.total = self.amount(totals.total)
        self.minimum = self.amount(int(totals.minimum))
        self.maximum = self.amount(totals.maximum)

    def amount(self, value: int) -> float:
        """Return a value in the instrument's unit; a number of items stays whole."""
        return value if self.ticks == 1 else value / self.ticks


def merge(histogram: Histogram, attributes: Mapping[str, str], folded: Folded, ticks: int) -> None:
    """Give a histogram of the SDK many values at once.

    Args:
        histogram: One for which :func:`is_sdk` is true.
        attributes: What all of the values are recorded with.
        folded: The values.
        ticks: How many of them are one unit of the instrument.
    """
    if not histogram._is_enabled():
        return
    batch = _Batch(histogram, attributes, folded, ticks)
    consumer: Any = histogram._measurement_consumer
    sample = batch.measurement
    is_exemplar = folded.exemplar is not None and consumer._sdk_config.exemplar_filter.should_sample(
        sample.value, sample.time_unix_nano, sample.attributes, sample.context
    )
    for storage in consumer._reader_storages.values():
        for match in storage._get_or_init_view_instrument_match(histogram):
            _merge_in(match, batch, is_exemplar)


def _merge_in(match: _ViewInstrumentMatch, batch: _Batch, is_exemplar: bool) -> None:
    kept = match._view._attribute_keys
    attributes = {key: value for key, value in batch.attributes.items() if kept is None or key in kept}
    key = _hash_attributes(attributes)
    with match._lock:  # until all is in: a collection may throw the aggregations away
        known = len(match._attributes_aggregation)
        aggregation: Any = match._get_or_create_aggregation(key, attributes)
        if len(match._attributes_aggregation) > known and match._previous_collection_start_nanos is None:
            _date_back(aggregation, batch.folded.since)
        into = _INTO.get(type(aggregation), _one_by_one)
        into(aggregation, batch)
        if is_exemplar and (batch.measurement.value or into is not _into_exponential):  # which takes none of 0
            aggregation._sample_exemplar(batch.measurement, True)


def _date_back(aggregation: Any, since: int) -> None:
    """Have an aggregation begin before its values; the SDK thinks that it is made with the first of them."""
    for name in ("_start_time_unix_nano", "_previous_collection_start_nano"):
        if hasattr(aggregation, name):
            setattr(aggregation, name, since)


def _one_by_one(aggregation: Any, batch: _Batch) -> None:
    """Do as ``record()`` does, where an aggregation is the application's own."""
    sample = batch.measurement
    for value in batch.folded.values:
        one = Measurement(batch.amount(value), sample.time_unix_nano, sample.instrument, Context(), batch.attributes)
        aggregation.aggregate(one, False)


def _into_sum(aggregation: Any, batch: _Batch) -> None:
    with aggregation._lock:
        aggregation._value = (aggregation._value or 0) + batch.total


def _into_last_value(aggregation: Any, batch: _Batch) -> None:
    with aggregation._lock:
        aggregation._value = batch.amount(batch.folded.values[-1])


def _into_nothing(aggregation: Any, batch: _Batch) -> None:
    """Drop them, as a view asks for."""


def _into_explicit(aggregation: Any, batch: _Batch) -> None:
    with aggregation._lock:
        if aggregation._value is None:
            aggregation._value = aggregation._get_empty_bucket_counts()
        counts, boundaries = aggregation._value, aggregation._boundaries
        for amount, times in batch.distinct:
            counts[bisect_left(boundaries, amount)] += times
        _add_up(aggregation, batch)


def _into_exponential(aggregation: Any, batch: _Batch) -> None:
    with aggregation._lock:
        if aggregation._value_positive is None:
            aggregation._value_positive = _new_buckets()
        if aggregation._value_negative is None:
            aggregation._value_negative = _new_buckets()
        _add_up(aggregation, batch)
        aggregation._count += batch.count
        zeros = batch.folded.totals.zeros
        aggregation._zero_count += zeros
        if zeros == batch.count:
            if aggregation._count == aggregation._zero_count:
                aggregation._scale = 0
            return
        scale: int = aggregation._mapping.scale
        counts: dict[int, int] = {}
        for amount, times in batch.distinct:
            if amount:
                index = index_at(scale, amount)
                counts[index] = counts.get(index, 0) + times
        shift = _make_room(aggregation, min(counts), max(counts))
        buckets, base = aggregation._value_positive, aggregation._value_positive.index_base
        for index, times in counts.items():
            position = (index >> shift) - base
            buckets.increment_bucket(position if position >= 0 else position + len(buckets.counts), times)
        aggregation._scale = aggregation._mapping.scale


def index_at(scale: int, amount: float) -> int:
    """Return the index of the bucket that holds an amount above 0, as the SDK's own mappings have it.

    Args:
        scale: A bucket's upper bound is 2^(2^-scale) times its lower one.
        amount: At most the upper bound, and above the lower one, of the bucket.
    """
    exponent = math.frexp(amount)[1]
    if amount == math.ldexp(1.0, exponent - 1):  # a power of two, exactly, is the upper bound of its bucket
        return ((exponent - 1) << scale) - 1 if scale > 0 else (exponent - 2) >> -scale
    return math.floor(math.log(amount) * math.ldexp(1 / math.log(2), scale)) if scale > 0 else (exponent - 1) >> -scale


def _make_room(aggregation: Any, low: int, high: int) -> int:
    """Have the positive buckets reach from one index to another; return by how much indexes shrink to the right."""
    buckets = aggregation._value_positive
    if len(buckets):
        low, high = min(low, buckets.index_start), max(high, buckets.index_end)
    shift: int = aggregation._get_scale_change(low, high)
    if shift:
        aggregation._downscale(shift, buckets, aggregation._value_negative)
        aggregation._mapping = aggregation._new_mapping(aggregation._mapping.scale - shift)
        low, high = low >> shift, high >> shift
    if not len(buckets):
        buckets.index_start = buckets.index_end = buckets.index_base = low
    span = high - low
    if span >= len(buckets.counts):
        buckets.grow(span + 1, aggregation._max_size)
    buckets.index_start, buckets.index_end = low, high
    return shift


def _add_up(aggregation: Any, batch: _Batch) -> None:
    aggregation._sum += batch.total
    if aggregation._record_min_max:
        aggregation._min = min(aggregation._min, batch.minimum)
        aggregation._max = max(aggregation._max, batch.maximum)


_INTO: Final[Mapping[type, Callable[[Any, _Batch], None]]] = {
    _SumAggregation: _into_sum,
    _LastValueAggregation: _into_last_value,
    _DropAggregation: _into_nothing,
    _ExplicitBucketHistogramAggregation: _into_explicit,
    _ExponentialBucketHistogramAggregation: _into_exponential,
}
"""By exact class: what a subclass does with a value is unknown."""


def difference() -> str | None:
    """Compare many values at once with ``record()``, on providers of its own.

    Returns:
        What differs; None where nothing does.

    Raises:
        Exception: The SDK is not what it is taken for.
    """
    merged, recorded = _Probe(), _Probe()
    for index, values in enumerate(_ROUNDS):
        since = time.time_ns()
        distinct = Counter(values)
        folded = Folded(values, distinct, Totals.of_distinct(distinct), since, (values[-1], Context(), since))
        merge(merged.histogram, _PROBED, folded, NODE_DURATION.ticks)
        for value in values:
            recorded.histogram.record(value / NODE_DURATION.ticks, _PROBED)
        for reader, expected, found in zip(range(len(merged.readers)), recorded.points(), merged.points(), strict=True):
            if not _is_same(expected, found):
                return f"round {index}, reader {reader}: record() gives {expected}, merging {found}"
    return None


_PROBED: Final = {NODE_NAME: "probe"}


class _Probe:
    """A provider to compare on, with readers of both kinds of histogram and of temporality."""

    def __init__(self) -> None:
        self.readers = [
            InMemoryMetricReader({Histogram: temporality}, {Histogram: aggregation})
            for aggregation in (ExplicitBucketHistogramAggregation(), ExponentialBucketHistogramAggregation())
            for temporality in (AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA)
        ]
        provider = MeterProvider(
            self.readers, Resource.get_empty(), exemplar_filter=AlwaysOnExemplarFilter(), shutdown_on_exit=False
        )
        meter = provider.get_meter(SCOPE_NAME)
        histogram = meter.create_histogram(
            NODE_DURATION.name,
            NODE_DURATION.unit,
            NODE_DURATION.description,
            explicit_bucket_boundaries_advisory=NODE_DURATION.boundaries,
        )
        assert isinstance(histogram, Histogram)
        self.histogram = histogram

    def points(self) -> list[dict[str, Any]]:
        """Return what each reader collects."""
        return [_told(reader) for reader in self.readers]


def _told(reader: InMemoryMetricReader) -> dict[str, Any]:
    data: Any = reader.get_metrics_data()
    metrics = [m for r in (data.resource_metrics if data else ()) for s in r.scope_metrics for m in s.metrics]
    points = [point for metric in metrics if metric.name == NODE_DURATION.name for point in metric.data.data_points]
    told: dict[str, Any] = {"points": len(points), "sum": 0, "exemplars": frozenset()}
    for point in points:
        told |= {name: getattr(point, name) for name in ("attributes", "count", "sum", "min", "max")}
        for name in ("explicit_bounds", "bucket_counts", "scale", "zero_count"):
            told[name] = getattr(point, name, None)
        told["exemplars"] = {exemplar.value for exemplar in point.exemplars}
        told["is ordered"] = point.start_time_unix_nano <= point.time_unix_nano
        if (positive := getattr(point, "positive", None)) is not None:
            told["positive"] = {positive.offset + i: times for i, times in enumerate(positive.bucket_counts) if times}
    return told


def _is_same(expected: dict[str, Any], found: dict[str, Any]) -> bool:
    """Compare points; sums within rounding, and of the exemplars of all values one is enough."""
    some, all_of = found["exemplars"], expected["exemplars"]
    is_close = math.isclose(expected["sum"], found["sum"])
    has_exemplar = some <= all_of and bool(some) == bool(all_of)
    return {**expected, "sum": True, "exemplars": True} == {**found, "sum": is_close, "exemplars": has_exemplar}
