"""Histograms as OTLP has them, with explicit or exponential buckets: put together, and asked for quantiles."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

__all__ = ["Bucket", "Counts", "ExplicitBuckets", "ExponentialBuckets", "Histogram", "merge_histograms"]

_LARGEST_POWER: Final = 1023.0
"""Of two, that a double holds."""
_TINY: Final = 1e-9
_MOST_BUCKETS: Final = 1024
"""That two histograms are put together in; exporters have 160 on either side."""
_FINE_SCALE: Final = 3
"""A factor of 1.09 between two bounds: quantiles are interpolated to a few percent."""


class Bucket(NamedTuple):
    """Values above ``low`` up to ``high``, of which it holds so many."""

    low: float
    high: float
    held: int


@dataclass(frozen=True, slots=True)
class Counts:
    """How many values consecutive buckets hold, the first of which has the index ``offset``."""

    offset: int = 0
    counts: tuple[int, ...] = ()

    @property
    def end(self) -> int:
        """The index after the last."""
        return self.offset + len(self.counts)

    def merged(self, other: Counts) -> Counts:
        """Put two together."""
        if not self.counts or not other.counts:
            return self if self.counts else other
        offset = min(self.offset, other.offset)
        total = [0] * (max(self.end, other.end) - offset)
        for each in (self, other):
            for index, count in enumerate(each.counts, each.offset - offset):
                total[index] += count
        return Counts(offset, tuple(total))

    def coarsened(self, shift: int) -> Counts:
        """Make every 2 ** shift buckets one."""
        if shift == 0 or not self.counts:
            return self
        offset = self.offset >> shift
        total = [0] * (((self.end - 1) >> shift) - offset + 1)
        for index, count in enumerate(self.counts, self.offset):
            total[(index >> shift) - offset] += count
        return Counts(offset, tuple(total))


_NONE: Final = Counts()


@dataclass(frozen=True, slots=True)
class ExponentialBuckets:
    """Buckets whose bounds grow by the factor 2 ** 2 ** -scale, the base.

    Attributes:
        scale: The resolution.
        zeros: How many values are at most ``threshold`` away from zero.
        threshold: See there.
        positive: How many values are above base ** i and up to base ** (i + 1), by i.
        negative: The same for the negative ones, without their sign.
    """

    scale: int
    zeros: int = 0
    threshold: float = 0.0
    positive: Counts = _NONE
    negative: Counts = _NONE

    def held(self) -> list[int]:
        """Give what the buckets hold, in ascending order."""
        return [*reversed(self.negative.counts), self.zeros, *self.positive.counts]

    def at(self, position: int) -> Bucket:
        """Give the bucket at a position of `held`."""
        middle = len(self.negative.counts)
        if position < middle:
            index = self.negative.end - 1 - position
            return Bucket(
                -self._bound(index + 1), -self._bound(index), self.negative.counts[index - self.negative.offset]
            )
        if position == middle:
            return Bucket(-self.threshold if self.negative.counts else 0.0, self.threshold, self.zeros)
        index = self.positive.offset + position - middle - 1
        return Bucket(self._bound(index), self._bound(index + 1), self.positive.counts[position - middle - 1])

    def merged(self, other: ExponentialBuckets) -> ExponentialBuckets:
        """Put two together, in the resolution of the coarser one, or one in which they are not too many."""
        scale = min(self.scale, other.scale)
        mine, others = self.coarsened(scale), other.coarsened(scale)
        span = max(_span(mine.positive, others.positive), _span(mine.negative, others.negative))
        if span > _MOST_BUCKETS:
            scale -= (span // _MOST_BUCKETS).bit_length()
            mine, others = mine.coarsened(scale), others.coarsened(scale)
        return ExponentialBuckets(
            scale,
            self.zeros + other.zeros,
            max(self.threshold, other.threshold),
            mine.positive.merged(others.positive),
            mine.negative.merged(others.negative),
        )

    def coarsened(self, scale: int) -> ExponentialBuckets:
        """Give the same values in a resolution that is no finer."""
        shift = self.scale - scale
        if shift == 0:
            return self
        return ExponentialBuckets(
            scale, self.zeros, self.threshold, self.positive.coarsened(shift), self.negative.coarsened(shift)
        )

    def _bound(self, index: int) -> float:
        power = math.ldexp(index, -self.scale)
        if not -_LARGEST_POWER <= power <= _LARGEST_POWER:
            power = math.copysign(_LARGEST_POWER, power)
        return float(2.0**power)


@dataclass(frozen=True, slots=True)
class ExplicitBuckets:
    """Buckets with stated bounds: ``counts`` has one more than ``bounds``, which ascend."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]

    def held(self) -> list[int]:
        """Give what the buckets hold, in ascending order."""
        return list(self.counts)

    def at(self, position: int) -> Bucket:
        """Give the bucket at a position of `held`."""
        low = self.bounds[position - 1] if position else -math.inf
        high = self.bounds[position] if position < len(self.bounds) else math.inf
        return Bucket(low, high, self.counts[position])

    def merged(self, other: ExplicitBuckets) -> ExplicitBuckets:
        """Put two together, with the bounds that both have, so that every value stays between right ones."""
        bounds = self.bounds if self.bounds == other.bounds else tuple(sorted({*self.bounds} & {*other.bounds}))
        pairs = zip(self._within(bounds), other._within(bounds), strict=True)
        return ExplicitBuckets(bounds, tuple(mine + others for mine, others in pairs))

    def _within(self, bounds: tuple[float, ...]) -> tuple[int, ...]:
        if bounds == self.bounds:
            return self.counts
        counts = [0] * (len(bounds) + 1)
        for high, count in zip((*self.bounds, math.inf), self.counts, strict=True):
            counts[bisect.bisect_left(bounds, high)] += count
        return tuple(counts)


@dataclass(frozen=True, slots=True)
class Histogram:
    """What is known of many values.

    Attributes:
        count: How many they are.
        total: Their sum; None where the exporter left it out.
        buckets: How they are distributed.
        minimum: The smallest; None where it is not known.
        maximum: The largest.
    """

    count: int
    total: float | None
    buckets: ExponentialBuckets | ExplicitBuckets
    minimum: float | None = None
    maximum: float | None = None

    @property
    def is_fine(self) -> bool:
        """Whether quantiles are within a few percent, as of exponential buckets of a scale of at least 3."""
        return isinstance(self.buckets, ExponentialBuckets) and self.buckets.scale >= _FINE_SCALE

    @property
    def mean(self) -> float | None:
        """The mean of the values; None where there is none, or no sum."""
        return self.total / self.count if self.count and self.total is not None else None

    def quantile(self, q: float) -> float | None:
        """Estimate the value that a share of the values does not exceed; see `quantiles`."""
        return self.quantiles(q)[0] if self.count else None

    def quantiles(self, *shares: float) -> list[float]:
        """Estimate the values that shares of the values do not exceed.

        Args:
            shares: Each 0 to 1.

        Returns:
            The values, interpolated within their buckets; none where there are no values.
        """
        if not self.count:
            return []
        reached = list(itertools.accumulate(self.buckets.held()))
        found = []
        for share in shares:
            # The first bucket that is not empty holds what no value is below.
            rank = max(share * self.count, _TINY)
            position = min(bisect.bisect_left(reached, rank), len(reached) - 1)
            bucket = self.buckets.at(position)
            found.append(self._between(self._bounded(bucket), 1 - (reached[position] - rank) / bucket.held))
        return found

    def count_above(self, value: float) -> int:
        """Estimate how many values are above one: those of buckets whose middle is."""
        held = enumerate(self.buckets.held())
        buckets = (self._bounded(self.buckets.at(position)) for position, count in held if count)
        return sum(bucket.held for bucket in buckets if bucket.low + bucket.high > 2 * value)

    def merged(self, other: Histogram) -> Histogram:
        """Put two together; of unlike buckets only the mean and the extremes are kept."""
        if not self.count or not other.count:
            return self if self.count else other
        return Histogram(
            self.count + other.count,
            None if self.total is None or other.total is None else self.total + other.total,
            self._merged_buckets(other),
            _extreme(min, self.minimum, other.minimum),
            _extreme(max, self.maximum, other.maximum),
        )

    def log_median(self) -> tuple[float, float] | None:
        """Estimate the logarithm of the median and the standard error of that; None where it has none."""
        if not self.count:
            return None
        reach = min(0.5, 0.5 / math.sqrt(self.count))
        low, median, high = self.quantiles(0.5 - reach, 0.5, 0.5 + reach)
        return (math.log(median), math.log(high / low) / 2) if low > 0 else None

    def log_mean(self) -> tuple[float, float] | None:
        """Estimate the logarithm of the mean and the standard error of that; None where it has none."""
        mean = self.mean
        if not mean or mean <= 0:
            return None
        squares = 0.0
        for position in range(len(self.buckets.held())):
            bucket = self._bounded(self.buckets.at(position))
            # The mean square of values spread evenly over the bucket.
            low, high = bucket.low, bucket.high
            squares += bucket.held * (low * low + low * high + high * high) / 3
        variance = max(0.0, squares / self.count - mean * mean)
        return math.log(mean), math.sqrt(variance / self.count) / mean

    def _bounded(self, bucket: Bucket) -> Bucket:
        """Narrow a bucket to where values are known to be; one that stays open has no width."""
        low, high, held = bucket
        if self.minimum is not None and self.minimum > low:
            low = min(self.minimum, high)
        if self.maximum is not None and self.maximum < high:
            high = max(self.maximum, bucket.low)
        if math.isinf(low):
            low = min(0.0, high) if math.isfinite(high) else 0.0
        return Bucket(low, low if math.isinf(high) else max(low, high), held)

    def _between(self, bucket: Bucket, share: float) -> float:
        """Give the value a share of the way through a bucket, as far as its kind says values spread."""
        share = max(0.0, share)
        if isinstance(self.buckets, ExponentialBuckets) and bucket.low > 0:
            return float(bucket.low * (bucket.high / bucket.low) ** share)
        return bucket.low + (bucket.high - bucket.low) * share

    def _merged_buckets(self, other: Histogram) -> ExponentialBuckets | ExplicitBuckets:
        match self.buckets, other.buckets:
            case ExponentialBuckets() as mine, ExponentialBuckets() as others:
                return mine.merged(others)
            case ExplicitBuckets() as explicit, ExplicitBuckets() as more:
                return explicit.merged(more)
            case _:
                return ExplicitBuckets((), (self.count + other.count,))


def merge_histograms(histograms: Iterable[Histogram]) -> Histogram | None:
    """Put histograms together; None where there are none."""
    merged: Histogram | None = None
    for histogram in histograms:
        merged = histogram if merged is None else merged.merged(histogram)
    return merged


def _span(one: Counts, other: Counts) -> int:
    """Give how many buckets two have together, with those between them."""
    if not one.counts or not other.counts:
        return 0
    return max(one.end, other.end) - min(one.offset, other.offset)


def _extreme(choose: Callable[[float, float], float], one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else choose(one, other)
