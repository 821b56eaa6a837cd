"""Histograms hold what was put in, however they are put together, and tell quantiles within their resolution."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.analysis.metric_samples import exponential

from aetherflow.analysis.histograms import (
    Counts,
    ExplicitBuckets,
    ExponentialBuckets,
    Histogram,
    merge_histograms,
)

values = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=60)
scales = st.integers(0, 8)


def fine(numbers: Sequence[float], scale: int = 5) -> Histogram:
    """The histogram that an exporter would have made of numbers."""
    point = exponential(numbers, scale=scale)
    buckets = point["positive"]
    counts = Counts(buckets["offset"], tuple(map(int, buckets["bucketCounts"])))
    return Histogram(
        len(numbers), math.fsum(numbers), ExponentialBuckets(scale, positive=counts), min(numbers), max(numbers)
    )


def coarse(numbers: Sequence[float], bounds: tuple[float, ...]) -> Histogram:
    edges = (-math.inf, *bounds, math.inf)
    counts = tuple(sum(low < number <= high for number in numbers) for low, high in itertools.pairwise(edges))
    return Histogram(len(numbers), math.fsum(numbers), ExplicitBuckets(bounds, counts), min(numbers), max(numbers))


def exact(numbers: Sequence[float], q: float) -> float:
    return sorted(numbers)[max(0, math.ceil(q * len(numbers) - 1e-9) - 1)]


@given(values, st.floats(0, 1), scales)
def test_a_quantile_is_within_the_resolution(numbers: list[float], q: float, scale: int) -> None:
    """A quantile lies in the bucket of the exact one: within a factor of the base, and never beyond what was seen."""
    found = fine(numbers, scale).quantile(q)
    assert found is not None
    base = 2 ** (2**-scale)
    assert exact(numbers, q) / base <= found * (1 + 1e-9)
    assert found <= exact(numbers, q) * base * (1 + 1e-9)
    assert min(numbers) * (1 - 1e-9) <= found <= max(numbers) * (1 + 1e-9)


@given(values, values, scales, scales)
def test_two_put_together_are_what_both_held(one: list[float], other: list[float], first: int, second: int) -> None:
    """Merging is as if all values had gone into one histogram of the coarser scale, or less fine where they spread."""
    merged = fine(one, first).merged(fine(other, second))
    whole = fine(one + other, min(first, second))
    assert isinstance(merged.buckets, ExponentialBuckets)
    assert isinstance(whole.buckets, ExponentialBuckets)
    assert merged.buckets == whole.buckets.coarsened(merged.buckets.scale)
    assert (merged.count, merged.minimum, merged.maximum) == (whole.count, whole.minimum, whole.maximum)
    assert merged.total == pytest.approx(whole.total)


@given(st.lists(st.tuples(values, scales), min_size=1, max_size=5), st.randoms())
def test_the_order_does_not_matter(parts: list[tuple[list[float], int]], rng: object) -> None:
    """Many histograms give the same in any order."""
    histograms = [fine(*part) for part in parts]
    forward, backward = merge_histograms(histograms), merge_histograms(histograms[::-1])
    assert forward is not None
    assert backward is not None
    assert forward.buckets == backward.buckets


bounds = st.lists(st.floats(1e-3, 1e3), unique=True, max_size=8).map(lambda found: tuple(sorted(found)))


@given(values, values, bounds, bounds)
def test_explicit_buckets_keep_the_bounds_of_both(
    one: list[float], other: list[float], first: tuple[float, ...], second: tuple[float, ...]
) -> None:
    """Values stay on the right side of every bound that both histograms had."""
    merged = coarse(one, first).merged(coarse(other, second))
    assert merged.buckets == coarse(one + other, tuple(sorted({*first} & {*second}))).buckets


def test_unlike_buckets_keep_the_mean() -> None:
    """Explicit and exponential buckets together still tell count, sum and extremes."""
    merged = fine([1.0, 2.0]).merged(coarse([3.0, 6.0], (4.0,)))
    assert (merged.count, merged.mean, merged.minimum, merged.maximum) == (4, 3.0, 1.0, 6.0)
    assert not merged.is_fine


def test_far_apart_values_do_not_make_endless_buckets() -> None:
    """Two histograms at the ends of what a double holds are put together in few buckets."""
    low = Histogram(1, 0.0, ExponentialBuckets(20, positive=Counts(-(2**30), (1,))))
    high = Histogram(1, 1.0, ExponentialBuckets(20, positive=Counts(2**29, (1,))))
    merged = low.merged(high)
    assert isinstance(merged.buckets, ExponentialBuckets)
    assert len(merged.buckets.positive.counts) <= 2048
    assert sum(merged.buckets.held()) == 2


def test_negative_values_and_zeros_are_in_order() -> None:
    """Quantiles go from the most negative value over zero to the largest."""
    buckets = ExponentialBuckets(0, zeros=1, threshold=0.0, positive=Counts(1, (1,)), negative=Counts(0, (1, 1)))
    histogram = Histogram(4, None, buckets)
    found = [histogram.quantile(q) for q in (0.25, 0.5, 0.75, 1.0)]
    assert found == [-2.0, -1.0, 0.0, 4.0]
    assert histogram.mean is None
    assert histogram.log_median() is None


def test_an_empty_histogram_knows_nothing() -> None:
    """Without values there is no quantile, no mean and no error; merged it changes nothing."""
    empty = Histogram(0, 0.0, ExponentialBuckets(5))
    assert (empty.quantile(0.5), empty.mean, empty.log_median(), empty.log_mean()) == (None, None, None, None)
    assert empty.merged(fine([1.0])) == fine([1.0])
    assert merge_histograms([]) is None


def test_explicit_quantiles_are_within_what_is_known() -> None:
    """The open buckets at both ends reach to the extremes, or no farther than their bound."""
    known = coarse([1.0, 2.0, 50.0], (1.5, 3.0))
    assert known.quantile(1.0) == 50.0
    unknown = Histogram(3, None, ExplicitBuckets((1.5, 3.0), (1, 1, 1)))
    assert unknown.quantile(1.0) == 3.0
    assert unknown.quantile(0.0) == pytest.approx(0.0, abs=1e-6)


@given(st.integers(50, 5000))
def test_the_error_of_a_median_shrinks_with_the_root_of_the_calls(calls: int) -> None:
    """Of values spread evenly over a factor of e, the median's error is about 1/2 by the root of their number."""
    numbers = [math.exp((index + 0.5) / calls) for index in range(calls)]
    found = fine(numbers).log_median()
    assert found is not None
    assert found[0] == pytest.approx(0.5, abs=0.02)
    assert found[1] == pytest.approx(0.5 / math.sqrt(calls), rel=0.2)


def test_the_error_of_a_mean_is_the_spread_by_the_root_of_the_calls() -> None:
    """Of values spread evenly from 1 to 3 the mean's relative error is that of a uniform distribution."""
    numbers = [1 + 2 * (index + 0.5) / 1000 for index in range(1000)]
    found = coarse(numbers, (1.5, 2.0, 2.5)).log_mean()
    assert found is not None
    assert found[0] == pytest.approx(math.log(2), abs=1e-9)
    assert found[1] == pytest.approx(2 / math.sqrt(12) / 2 / math.sqrt(1000), rel=0.01)
