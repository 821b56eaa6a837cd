"""Many values at once into the SDK's histograms: what ``record()`` of each of them would have come to."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics._internal.aggregation import (
    _ExplicitBucketHistogramAggregation,
    _ExponentialBucketHistogramAggregation,
)
from opentelemetry.sdk.metrics._internal.exponential_histogram.mapping.exponent_mapping import ExponentMapping
from opentelemetry.sdk.metrics._internal.exponential_histogram.mapping.logarithm_mapping import LogarithmMapping
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import (
    Aggregation,
    DropAggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    LastValueAggregation,
    SumAggregation,
    View,
)
from opentelemetry.sdk.resources import Resource

from aetherflow.telemetry.conventions import NODE_DURATION
from aetherflow.telemetry.metrics.accumulators import Folded, Totals

sdk_metrics = pytest.importorskip(
    "aetherflow.telemetry.metrics.sdk_metrics", reason="this SDK takes no folds", exc_type=ImportError
)
difference, index_at, is_sdk, merge = (
    sdk_metrics.difference,
    sdk_metrics.index_at,
    sdk_metrics.is_sdk,
    sdk_metrics.merge,
)

CUMULATIVE, DELTA = AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA
ATTRIBUTES = {"node": "n", "flow": "f"}


class Doubling(_ExplicitBucketHistogramAggregation):
    """An application's own aggregation, which nothing is known of."""

    def aggregate(self, measurement: Any, should_sample_exemplar: bool = True) -> None:
        for _ in range(2):
            super().aggregate(measurement, should_sample_exemplar)


class DoublingAggregation(ExplicitBucketHistogramAggregation):
    def _create_aggregation(self, instrument, attributes, reservoir_factory, start_time_unix_nano):
        factory = reservoir_factory(_ExplicitBucketHistogramAggregation)
        return Doubling(attributes, DELTA, start_time_unix_nano, factory, (0.1, 1.0))


AGGREGATIONS: dict[str, Aggregation] = {
    "explicit": ExplicitBucketHistogramAggregation(),
    "explicit, two buckets": ExplicitBucketHistogramAggregation((0.5,)),
    "explicit, no minimum": ExplicitBucketHistogramAggregation(record_min_max=False),
    "exponential": ExponentialBucketHistogramAggregation(),
    "exponential, few buckets": ExponentialBucketHistogramAggregation(max_size=4),
    "exponential, coarse": ExponentialBucketHistogramAggregation(max_scale=-1),
    "sum": SumAggregation(),
    "last value": LastValueAggregation(),
    "drop": DropAggregation(),
    "an own one": DoublingAggregation(),
}


class Side:
    """A provider with readers of both temporalities, and its histogram."""

    def __init__(self, aggregation: Aggregation, ticks: int, views: Sequence[View] = ()) -> None:
        self.readers = [
            InMemoryMetricReader({Histogram: temporality}, {Histogram: aggregation})
            for temporality in (CUMULATIVE, DELTA)
        ]
        self.provider = MeterProvider(self.readers, Resource.get_empty(), views=views, shutdown_on_exit=False)
        unit = "s" if ticks > 1 else "{item}"
        self.histogram = self.provider.get_meter("m").create_histogram(
            "h", unit, explicit_bucket_boundaries_advisory=NODE_DURATION.boundaries
        )

    def points(self, reader: int) -> list[dict[str, Any]]:
        """Collect, and return what the points say, but for their times."""
        data = self.readers[reader].get_metrics_data()
        metrics = [m for r in (data.resource_metrics if data else ()) for s in r.scope_metrics for m in s.metrics]
        return [_told(metric.name, point) for metric in metrics for point in metric.data.data_points]


def _told(name: str, point: Any) -> dict[str, Any]:
    told = {key: getattr(point, key, None) for key in ("attributes", "count", "min", "max", "value", "scale")}
    told |= {key: getattr(point, key, None) for key in ("explicit_bounds", "bucket_counts", "zero_count")}
    told |= {"name": name, "sum": pytest.approx(getattr(point, "sum", 0), rel=1e-9)}
    if told["value"] is not None:
        told["value"] = pytest.approx(told["value"], rel=1e-9)
    if hasattr(point, "positive"):
        told["positive"] = {point.positive.offset + i: n for i, n in enumerate(point.positive.bucket_counts) if n}
    return told


def folded(values: Sequence[int], exemplar: Any = None) -> Folded:
    """Return what a fold of these values is."""
    distinct = Counter(values)
    return Folded(values, distinct, Totals.of_distinct(distinct), time.time_ns(), exemplar)


rounds = st.lists(st.lists(st.integers(0, 10**13), min_size=1, max_size=30), min_size=1, max_size=4)


@pytest.mark.parametrize("name", AGGREGATIONS)
@given(rounds=rounds, ticks=st.sampled_from([1, 10**9]))
def test_merging_comes_to_what_recording_does(name: str, rounds: list[list[int]], ticks: int) -> None:
    """Whatever the values, the aggregation, and the temporality, over several collections; other than by rounding."""
    merged, recorded = Side(AGGREGATIONS[name], ticks), Side(AGGREGATIONS[name], ticks)
    for values in rounds:
        merge(merged.histogram, ATTRIBUTES, folded(values), ticks)
        for value in values:
            recorded.histogram.record(value if ticks == 1 else value / ticks, ATTRIBUTES)
        for reader in (0, 1):
            expected, found = _recorded_by_the_sdk(recorded, reader), merged.points(reader)
            assert _without_rounding(expected) == _without_rounding(found)
            assert [p["sum"] for p in expected] == [p["sum"].expected for p in found]


def _recorded_by_the_sdk(side: Side, reader: int) -> list[dict[str, Any]]:
    """Collect what was recorded; leave an example be that the SDK (1.45) itself stumbles over, with few buckets."""
    try:
        return side.points(reader)
    except Exception as error:
        assume(str(error) != "Incorrect merge scale")
        raise


def _without_rounding(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what a logarithm's rounding may change: on which side of a bound a value next to it is."""
    kept = [{key: point[key] for key in point if key not in ("sum", "value")} for point in points]
    for point in kept:
        if "positive" in point:
            point["positive"] = sum(point["positive"].values())
    return kept


@pytest.mark.parametrize("name", ["exponential", "exponential, few buckets", "exponential, coarse"])
@given(values=st.lists(st.integers(0, 20), min_size=1, max_size=30))
def test_buckets_are_those_of_recording(name: str, values: list[int]) -> None:
    """Where no value is next to a bound of a bucket but powers of two, each bucket has the count that it has there."""
    values = [3**value for value in values] + [2**value for value in values]
    merged, recorded = Side(AGGREGATIONS[name], 1), Side(AGGREGATIONS[name], 1)
    for half in (values[::2], values[1::2]):
        merge(merged.histogram, ATTRIBUTES, folded(half), 1)
        for value in half:
            recorded.histogram.record(value, ATTRIBUTES)
    for reader in (0, 1):
        assert [p["positive"] for p in merged.points(reader)] == [p["positive"] for p in recorded.points(reader)]


@given(st.integers(-10, 20), st.one_of(st.floats(1e-9, 1e9), st.integers(-29, 29).map(lambda n: 2.0**n)))
def test_an_index_is_the_sdks_own(scale: int, amount: float) -> None:
    """At every scale, powers of two among the values."""
    mapping = ExponentMapping(scale) if scale <= 0 else LogarithmMapping(scale)
    assert index_at(scale, amount) == mapping.map_to_index(amount)


def test_views_are_honoured() -> None:
    """Each view that matches gets the values, under its own name, with its own attributes and boundaries."""
    views = [
        View(instrument_name="h", attribute_keys={"node"}),
        View(instrument_name="h", name="other", aggregation=ExplicitBucketHistogramAggregation((0.001,))),
        View(instrument_name="h", name="gone", aggregation=DropAggregation()),
    ]
    side = Side(ExplicitBucketHistogramAggregation(), 10**9, views)
    for flow in ("f", "g"):
        merge(side.histogram, {"node": "n", "flow": flow}, folded([10**6, 10**7]), 10**9)
    for reader in (0, 1):
        first, *others = side.points(reader)
        assert (first["name"], first["attributes"], first["count"]) == ("h", {"node": "n"}, 4)
        assert [(p["name"], p["attributes"]["flow"], p["bucket_counts"]) for p in others] == [
            ("other", "f", (1, 1)),
            ("other", "g", (1, 1)),
        ]


def test_a_point_begins_before_its_values() -> None:
    """Else a rate over a point's time would be beyond measure; a delta begins where the one before ended."""
    side = Side(ExplicitBucketHistogramAggregation(), 10**9)
    first = folded([10**6])
    merge(side.histogram, ATTRIBUTES, first, 10**9)
    starts = []
    for _ in range(2):
        for reader in side.readers:
            data = reader.get_metrics_data()
            (point,) = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
            starts.append((point.start_time_unix_nano, point.time_unix_nano))
        merge(side.histogram, ATTRIBUTES, folded([10**6]), 10**9)
    cumulative, delta, cumulative_then, delta_then = starts
    assert cumulative[0] == delta[0] == cumulative_then[0] == first.since
    assert delta_then[0] == delta[1]


def test_attributes_beyond_the_limit_overflow() -> None:
    """As the SDK has it, none of their values is lost."""
    views = [View(instrument_name="h", aggregation_cardinality_limit=3)]
    side = Side(ExponentialBucketHistogramAggregation(), 10**9, views)
    for index in range(10):
        merge(side.histogram, {"node": str(index)}, folded([10**6]), 10**9)
    counts = [(*point["attributes"], point["count"]) for point in side.points(0)]
    assert counts == [("node", 1)] * 3 + [("otel.metric.overflow", 7)]


def test_the_sdk_of_this_process_is_known() -> None:
    """Merging and recording come to the same, and what is not the SDK's own is told from it."""
    assert difference() is None
    side = Side(ExplicitBucketHistogramAggregation(), 1)
    assert is_sdk(side.histogram)
    assert not is_sdk(MeterProvider.__mro__[1].get_meter)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "broken",
    [
        ("_into_explicit", _ExplicitBucketHistogramAggregation, lambda aggregation, batch: None),
        ("_into_exponential", _ExponentialBucketHistogramAggregation, lambda aggregation, batch: None),
    ],
    ids=lambda broken: broken[0],
)
def test_a_difference_is_found(broken: tuple[str, type, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """An SDK that keeps its histograms otherwise than expected is told from the one that is known."""
    monkeypatch.setitem(sdk_metrics._INTO, broken[1], broken[2])
    assert "record() gives" in (difference() or "")


def test_a_zero_goes_into_no_bucket() -> None:
    """An exponential histogram counts it by itself, and takes no exemplar of it."""
    side = Side(ExponentialBucketHistogramAggregation(), 10**9)
    merge(side.histogram, ATTRIBUTES, folded([0], (0, Context(), 1)), 10**9)
    (point,) = side.points(0)
    assert (point["count"], point["zero_count"], point["scale"]) == (1, 1, 0)
    assert math.isclose(point["sum"].expected, 0.0)
