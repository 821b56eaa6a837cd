"""Exact durations per series: one list append on the hot path, folded in bulk by whoever reads.

A ``list.append`` is atomic under the interpreter lock, so recording needs no lock and no thread-local that could
leak or be lost when a thread dies. Folding takes the values recorded so far and adds them to count, sum, minimum,
maximum and base-2 exponential buckets; nothing is sampled and nothing is approximated but the bucket of a value.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from aetherflow.telemetry.conventions import MetricDefinition

__all__ = ["FOLD_AT", "SCALE", "Registry", "Series", "Totals", "View", "bucket_of", "registry"]

SCALE: Final = 4
"""Buckets grow by 2^(2^-4), 4.4 %: a quantile read as a bucket's middle is at most 2.2 % off."""

FOLD_AT: Final = 8192
"""Pending values that make the recording thread fold, so that memory stays bounded when nobody reads."""

_PER_OCTAVE: Final = 1 << SCALE
_NANO_SHIFT: Final = math.log2(1e9) * _PER_OCTAVE


def bucket_of(nanoseconds: int) -> int:
    """Return the index of the base-2 exponential bucket, in seconds, that holds a duration.

    Args:
        nanoseconds: A duration above 0.

    Returns:
        The index ``i`` with ``base**i < seconds <= base**(i + 1)``, ``base = 2**(2**-SCALE)``.
        Source: OpenTelemetry data model, ExponentialHistogram.
    """
    return math.ceil(math.log2(nanoseconds) * _PER_OCTAVE - _NANO_SHIFT) - 1


@dataclass(slots=True)
class Totals:
    """What durations add up to. Times are in nanoseconds; ``minimum`` is infinite where nothing was recorded."""

    count: int = 0
    total: int = 0
    minimum: float = math.inf
    maximum: int = 0
    zeros: int = 0
    buckets: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Sequence[int]) -> Totals:
        """Return what some durations add up to; ``values`` is not empty."""
        distinct = Counter(values)  # short executions repeat few values: far fewer logarithms than values
        zeros = distinct.pop(0, 0)
        buckets: dict[int, int] = {}
        for value, times in distinct.items():
            index = bucket_of(value)
            buckets[index] = buckets.get(index, 0) + times
        return cls(len(values), sum(values), min(values), max(values), zeros, buckets)

    def add(self, other: Totals) -> None:
        """Add other totals to these."""
        self.count += other.count
        self.total += other.total
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        self.zeros += other.zeros
        buckets = self.buckets
        for index, times in other.buckets.items():
            buckets[index] = buckets.get(index, 0) + times

    def copy(self) -> Totals:
        """Return a copy that does not change with these."""
        return Totals(self.count, self.total, self.minimum, self.maximum, self.zeros, dict(self.buckets))

    def quantile(self, share: float) -> float:
        """Return the duration, in seconds, that a share of all does not exceed; at most 2.2 % off.

        Args:
            share: From 0 to 1.
        """
        if not self.count:
            return math.nan
        needed = max(share * self.count, 1)
        seen = self.zeros
        if seen >= needed:
            return 0.0
        low, high = self.minimum / 1e9, self.maximum / 1e9
        for index in sorted(self.buckets):
            seen += self.buckets[index]
            if seen >= needed:
                return min(max(math.exp2((index + 0.5) / _PER_OCTAVE), low), high)
        return high


class Series:
    """The durations of one metric with one set of attributes.

    ``add(nanoseconds)`` records one value; it is ``list.append`` itself.
    """

    __slots__ = ("_lock", "_totals", "_views", "add", "attributes", "definition", "pending", "started")
    add: Callable[[int], None]

    def __init__(
        self, definition: MetricDefinition, attributes: Mapping[str, str], views: weakref.WeakSet[View]
    ) -> None:
        self.definition = definition
        self.attributes = dict(attributes)
        self.pending: list[int] = []
        self.add = self.pending.append
        self.started = time.time_ns()
        self._views = views
        self._lock = threading.RLock()
        self._totals = Totals()

    def fold(self) -> None:
        """Add the pending values up. Safe from any thread, while others record."""
        pending = self.pending
        with self._lock:
            count = len(pending)
            if not count:
                return
            values = pending[:count]
            del pending[:count]
            new = Totals.of(values)
            self._totals.add(new)
            for view in tuple(self._views):
                view.add(self, new)

    def totals(self) -> Totals:
        """Return what everything recorded so far adds up to."""
        with self._lock:
            self.fold()
            return self._totals.copy()

    def after_fork(self) -> None:
        """Forget what the parent process measured: it reports that itself."""
        self._lock = threading.RLock()
        self.pending.clear()
        self.started = time.time_ns()
        self._totals = Totals()


class View:
    """What was recorded since the view was opened; series by series."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals: dict[Series, Totals] = {}

    def add(self, series: Series, new: Totals) -> None:
        """Take in what a series has folded."""
        with self._lock:
            mine = self._totals.get(series)
            if mine is None:
                self._totals[series] = new.copy()
            else:
                mine.add(new)

    def totals(self) -> dict[Series, Totals]:
        """Return a copy of what was folded so far."""
        with self._lock:
            return {series: totals.copy() for series, totals in self._totals.items()}


V = TypeVar("V", bound=View)


class Registry:
    """Every series of this process, by metric and attributes."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, frozenset[tuple[str, str]]], Series] = {}
        self._views: weakref.WeakSet[View] = weakref.WeakSet()
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def series(self, definition: MetricDefinition, attributes: Mapping[str, str]) -> Series:
        """Return the series of a metric for a set of attributes, made on first use.

        Args:
            definition: The metric.
            attributes: Low-cardinality attributes from the metric's own list.
        """
        key = (definition.name, frozenset(attributes.items()))
        found = self._series.get(key)
        if found is None:
            with self._lock:
                found = self._series.setdefault(key, Series(definition, attributes, self._views))
        return found

    def all(self) -> list[Series]:
        """Return every series, in order of creation."""
        with self._lock:
            return list(self._series.values())

    def fold(self) -> None:
        """Add up what every series has pending."""
        for series in self.all():
            series.fold()

    def open_view(self) -> View:
        """Return a view of what is recorded from now on; it is fed as long as it is referenced."""
        return self.feed(View())

    def feed(self, view: V) -> V:
        """Feed a view with what is recorded from now on, as long as it is referenced; return it."""
        self.fold()
        self._views.add(view)
        return view

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        for series in self._series.values():
            series.after_fork()


registry: Final = Registry()
"""The process's one store: instruments publish it, statistics and health read it."""
