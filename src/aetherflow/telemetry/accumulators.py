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
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from aetherflow.telemetry.conventions import MetricDefinition

__all__ = ["FOLD_AT", "SCALE", "Registry", "Series", "Snapshot", "registry"]

SCALE: Final = 4
"""Buckets grow by 2^(2^-4): a quantile read as a bucket's middle is at most 2.2 % off."""

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


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one series has added up to. Times are in nanoseconds; ``minimum`` is infinite where nothing was recorded."""

    count: int = 0
    total: int = 0
    minimum: float = math.inf
    maximum: int = 0
    zeros: int = 0
    buckets: Mapping[int, int] = field(default_factory=dict)


class Series:
    """The durations of one metric with one set of attributes.

    ``add(nanoseconds)`` records one value; it is ``list.append`` itself.
    """

    __slots__ = ("_buckets", "_count", "_lock", "_max", "_min", "_total", "_zeros", "add", "attributes", "definition")
    __slots__ += ("pending", "started")
    add: Callable[[int], None]

    def __init__(self, definition: MetricDefinition, attributes: Mapping[str, str]) -> None:
        self.definition = definition
        self.attributes = dict(attributes)
        self.pending: list[int] = []
        self.add = self.pending.append
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self.started = time.time_ns()
        self._count = self._total = self._max = self._zeros = 0
        self._min = math.inf
        self._buckets: dict[int, int] = {}

    def fold(self) -> None:
        """Add the pending values up. Safe from any thread, while others record."""
        pending = self.pending
        with self._lock:
            count = len(pending)
            if not count:
                return
            values = pending[:count]
            del pending[:count]
            distinct = Counter(values)  # short executions repeat few values: far fewer logarithms than values
            zeros = distinct.pop(0, 0)
            buckets = self._buckets
            for value, times in distinct.items():
                index = bucket_of(value)
                buckets[index] = buckets.get(index, 0) + times
            self._zeros += zeros
            self._count += count
            self._total += sum(values)
            self._min = min(self._min, min(values))
            self._max = max(self._max, max(values))

    def snapshot(self) -> Snapshot:
        """Return everything recorded so far."""
        self.fold()
        with self._lock:
            return Snapshot(self._count, self._total, self._min, self._max, self._zeros, dict(self._buckets))

    def after_fork(self) -> None:
        """Forget what the parent process measured: it reports that itself."""
        self._lock = threading.Lock()
        self.pending.clear()
        self._clear()


class Registry:
    """Every series of this process, by metric and attributes."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, frozenset[tuple[str, str]]], Series] = {}
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
                found = self._series.setdefault(key, Series(definition, attributes))
        return found

    def all(self) -> list[Series]:
        """Return every series, in order of creation."""
        with self._lock:
            return list(self._series.values())

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        for series in self._series.values():
            series.after_fork()


registry: Final = Registry()
"""The process's one store: instruments publish it, statistics and health read it."""
