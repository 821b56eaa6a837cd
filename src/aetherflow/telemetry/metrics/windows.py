"""Sliding windows over the store of durations: what was recorded lately, without anything recorded twice.

A window is a view of the store that keeps what is folded in slices of time and forgets the slices that have become
too old, so that counts, sums, minima, maxima and buckets of what it still holds are as exact as the store's own.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from typing import Final, Generic, NamedTuple, TypeVar

from aetherflow.errors import ConfigurationError
from aetherflow.telemetry.metrics.accumulators import Registry, Series, Totals, View, registry

__all__ = ["SLICES", "CounterWindow", "SlidingWindow"]

SLICES: Final = 12
"""Slices of a window: it reaches back at least its length and at most a twelfth more."""

K = TypeVar("K", bound=Hashable)


class SlidingWindow(View):
    """What the store's series took in within the last seconds; the base is what they hold at construction.

    A value counts from the moment it is folded, which is when anyone reads the store, or at every 8,192nd value: what
    is read once a slice or more often is off by no more than a slice. Values folded within one slice are kept or
    forgotten together; of those kept everything is exact but the quantiles, which are as near as `Totals.quantile`.

    Args:
        length: Seconds.
        clock: Monotonic time in seconds.
        store: What is read.

    Raises:
        ConfigurationError: The length is not a number of seconds above 0.
    """

    def __init__(
        self, length: float, *, clock: Callable[[], float] = time.monotonic, store: Registry = registry
    ) -> None:
        super().__init__()
        if isinstance(length, bool) or not isinstance(length, int | float) or not 0 < length < threading.TIMEOUT_MAX:
            raise ConfigurationError(f"window={length!r} is not allowed; allowed: a number of seconds above 0")
        self.length = length
        self._clock = clock
        self._store = store
        self._slices: deque[tuple[int, View]] = deque()
        store.feed(self)

    def add(self, series: Series, new: Totals) -> None:
        """Take in what a series has folded, as of now."""
        with self._lock:
            current = self._number()
            if not self._slices or self._slices[-1][0] != current:
                self._forget(current)
                self._slices.append((current, View()))
            self._slices[-1][1].add(series, new)

    def after_fork(self) -> None:
        """Forget what the parent process measured."""
        super().after_fork()
        self._slices.clear()

    def totals(self) -> dict[Series, Totals]:
        """Fold the store and return what the window holds: only series that recorded something within it."""
        self._store.fold()
        with self._lock:
            self._forget(self._number())
            parts = [part for _, part in self._slices]
            found = parts.pop().totals() if parts else {}
        for part in parts:  # never to change again: nobody who records waits while they are added up
            part.add_to(found)
        return found

    def _number(self) -> int:
        return int(self._clock() // (self.length / SLICES))

    def _forget(self, current: int) -> None:
        while self._slices and self._slices[0][0] < current - SLICES:
            self._slices.popleft()


class _Snapshot(NamedTuple, Generic[K]):
    at: float
    counts: Mapping[K, int]


class CounterWindow(Generic[K]):
    """How far cumulative counters, which someone else keeps, have come within the last seconds.

    Args:
        length: Seconds.
        base: The counters at construction.
        now: Monotonic time in seconds.
    """

    def __init__(self, length: float, base: Mapping[K, int], now: float) -> None:
        self._length = length
        self._snapshots: deque[_Snapshot[K]] = deque([_Snapshot(now, dict(base))])

    def advance(self, counts: Mapping[K, int], now: float) -> dict[K, int]:
        """Take a snapshot and return how far each counter has come since the one a window's length ago.

        Args:
            counts: The counters now. One that is new counts from 0, and so does one that has gone back.
            now: Monotonic time in seconds.

        Returns:
            The difference for each of ``counts``, to the latest snapshot kept that is at least the length old; to the
            first of all where none is. One is kept a twelfth of the length, or less often where this is.
        """
        snapshots = self._snapshots
        while len(snapshots) > 1 and snapshots[1].at <= now - self._length:
            snapshots.popleft()
        base = snapshots[0].counts
        if now - snapshots[-1].at >= self._length / SLICES:  # so many are enough, however often they are asked for
            snapshots.append(_Snapshot(now, dict(counts)))
        return {
            key: count - before if (before := base.get(key, 0)) <= count else count for key, count in counts.items()
        }
