"""The one exact store: a list append for each value on the hot path, folded in bulk by whoever reads.

A ``list.append`` is atomic under the interpreter lock, so recording needs no lock and no thread-local that could
leak or be lost when a thread dies. Folding takes the values recorded so far and adds them to count, sum, minimum,
maximum and base-2 exponential buckets; nothing is sampled and nothing is approximated but the bucket of a value.
Whoever publishes the store is a :class:`Sink`: it is told each fold once, so that no value is doubled or lost.

Values are whole numbers: nanoseconds where the metric's unit is the second, else the unit itself.
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
from typing import Final, Protocol, TypeVar

from opentelemetry.context import Context

from aetherflow.telemetry.conventions import MetricDefinition

__all__ = ["FOLD_AT", "SCALE", "Exemplar", "Folded", "Registry", "Series", "Sink", "Totals", "View", "bucket_of"]
__all__ += ["registry", "unkept"]

SCALE: Final = 4
"""Buckets grow by 2^(2^-4), 4.4 %: a quantile read as a bucket's middle is at most 2.2 % off."""

FOLD_AT: Final = 8192
"""Pending values that make the recording thread fold, so that memory stays bounded when nobody reads."""

_PER_OCTAVE: Final = 1 << SCALE
_NANO_SHIFT: Final = math.log2(1e9) * _PER_OCTAVE
_FORK_TIMEOUT: Final = 1.0

Exemplar = tuple[int, Context, int]
"""One value that stands for many: itself, the context with its span, and the time of day in nanoseconds."""


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
    """What values add up to; ``minimum`` is infinite where nothing was recorded."""

    count: int = 0
    total: int = 0
    minimum: float = math.inf
    maximum: int = 0
    zeros: int = 0
    buckets: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Sequence[int]) -> Totals:
        """Return what some values add up to; there is at least one."""
        return cls.of_distinct(Counter(values))

    @classmethod
    def of_distinct(cls, distinct: Mapping[int, int]) -> Totals:
        """Return what some values add up to, each with the times it occurs; there is at least one."""
        buckets: dict[int, int] = {}
        for value, times in distinct.items():
            if value:
                index = bucket_of(value)
                buckets[index] = buckets.get(index, 0) + times
        total = sum(value * times for value, times in distinct.items())
        count = sum(distinct.values())
        return cls(count, total, min(distinct), max(distinct), distinct.get(0, 0), buckets)

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


@dataclass(frozen=True, slots=True)
class Folded:
    """What one fold of a series has taken in.

    Args:
        values: In the order they were recorded.
        distinct: How often each of them occurs: short executions repeat few values.
        totals: What they add up to.
        since: A time of day, in nanoseconds, before which none of them was recorded: that of the fold before.
        exemplar: A value that points into a trace; None without one.
    """

    values: Sequence[int]
    distinct: Mapping[int, int]
    totals: Totals
    since: int
    exemplar: Exemplar | None


class Sink(Protocol):
    """Who is told each fold, once, in the order of folds, and with the store's lock held."""

    def take(self, series: Series, folded: Folded) -> None:
        """Take in what a series has folded; must not raise."""
        ...

    def after_fork(self) -> None:
        """Forget, in a child process, what its parent measured."""
        ...


class Series:
    """The values of one metric with one set of attributes.

    ``add(value)`` records one value; it is ``list.append`` itself. Whoever calls it looks at ``len(pending)`` now and
    then, and calls :meth:`relieve` above :data:`FOLD_AT`. ``exemplar`` is for observers to fill.
    """

    __slots__ = ("_registry", "_totals", "add", "attributes", "definition", "exemplar", "pending", "since")
    add: Callable[[int], None]

    def __init__(self, definition: MetricDefinition, attributes: Mapping[str, str], registry: Registry) -> None:
        self.definition = definition
        self.attributes = dict(attributes)
        self.pending: list[int] = []
        self.add = self.pending.append
        self.exemplar: Exemplar | None = None
        self.since = time.time_ns()
        self._registry = registry
        self._totals = Totals()

    def fold(self) -> None:
        """Add the pending values up. Safe from any thread, while others record."""
        registry = self._registry
        with registry.lock:
            if registry.is_folding:  # below us, on this thread: we are a finaliser or a signal handler
                return
            registry.is_folding = True
            try:
                self._fold()
            finally:
                registry.is_folding = False

    def relieve(self) -> None:
        """Add the pending values up, unless a thread is folding just now: whoever records never waits for a reader."""
        lock = self._registry.lock
        if lock.acquire(blocking=False):
            try:
                self.fold()
            finally:
                lock.release()

    def _fold(self) -> None:
        pending = self.pending
        since, self.since = self.since, time.time_ns()
        count = len(pending)
        if not count:
            return
        values = pending[:count]
        del pending[:count]
        exemplar, self.exemplar = self.exemplar, None
        distinct = Counter(values)
        folded = Folded(values, distinct, Totals.of_distinct(distinct), since, exemplar)
        self._totals.add(folded.totals)
        for sink in self._registry.sinks():
            sink.take(self, folded)

    def totals(self) -> Totals:
        """Return what everything recorded so far adds up to."""
        with self._registry.lock:
            self.fold()
            return self._totals.copy()

    def after_fork(self) -> None:
        """Forget what the parent process measured: it reports that itself."""
        self.pending.clear()
        self.exemplar = None
        self.since = time.time_ns()
        self._totals = Totals()


class View:
    """What was recorded since the view was opened; series by series."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._totals: dict[Series, Totals] = {}

    def take(self, series: Series, folded: Folded) -> None:
        """Take in what a series has folded."""
        self.add(series, folded.totals)

    def add(self, series: Series, new: Totals) -> None:
        """Take in what values of a series add up to."""
        with self._lock:
            mine = self._totals.get(series)
            if mine is None:
                self._totals[series] = new.copy()
            else:
                mine.add(new)

    def after_fork(self) -> None:
        """Forget what the parent process measured."""
        self._lock = threading.RLock()
        self._totals = {}

    def totals(self) -> dict[Series, Totals]:
        """Return a copy of what was folded so far."""
        with self._lock:
            return {series: totals.copy() for series, totals in self._totals.items()}

    def add_to(self, found: dict[Series, Totals]) -> None:
        """Add what was folded so far to totals of the caller's own."""
        with self._lock:
            for series, totals in self._totals.items():
                if series in found:
                    found[series].add(totals)
                else:
                    found[series] = totals.copy()


V = TypeVar("V", bound=View)


class Registry:
    """Every series, by metric and attributes.

    One lock guards all folding. It is reentrant: a finaliser or a signal handler may want to fold in the middle of a
    fold of its own thread. It finds the store busy then, and what it recorded is folded the next time.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.is_folding = False
        self._series: dict[tuple[str, frozenset[tuple[str, str]]], Series] = {}
        self._sinks: weakref.WeakSet[Sink] = weakref.WeakSet()
        self._tellers: list[Callable[[], object]] = []
        self._is_held_for_fork = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._before_fork, after_in_parent=self._after_fork, after_in_child=self._after_fork_in_child
            )

    def series(self, definition: MetricDefinition, attributes: Mapping[str, str]) -> Series:
        """Return the series of a metric for a set of attributes, made on first use.

        Args:
            definition: The metric.
            attributes: Low-cardinality attributes from the metric's own list.
        """
        key = (definition.name, frozenset(attributes.items()))
        found = self._series.get(key)
        if found is None:
            with self.lock:
                found = self._series.setdefault(key, Series(definition, attributes, self))
        return found

    def all(self) -> list[Series]:
        """Return every series, in order of creation."""
        with self.lock:
            return list(self._series.values())

    def before_fold(self, tell: Callable[[], object]) -> None:
        """Have something called before each fold of the whole store, to record what it has counted by itself."""
        self._tellers.append(tell)

    def fold(self) -> None:
        """Add up what every series has pending."""
        for tell in self._tellers:
            tell()
        for series in self.all():
            series.fold()

    def open_view(self) -> View:
        """Return a view of what is recorded from now on; it is fed as long as it is referenced."""
        return self.feed(View())

    def feed(self, view: V) -> V:
        """Feed a view with what is recorded from now on, as long as it is referenced; return it."""
        self.exchange(None, view)
        return view

    def exchange(self, old: Sink | None, new: Sink | None) -> None:
        """Tell no more folds to one sink, and those of what is recorded from now on to another.

        Args:
            old: It is told what was recorded so far; None where nobody is to be let go.
            new: It is held weakly; None where nobody takes its place.
        """
        with self.lock:
            self.fold()
            if old is not None:
                self._sinks.discard(old)
            if new is not None:
                self._sinks.add(new)

    def sinks(self) -> tuple[Sink, ...]:
        """Return who is told each fold."""
        return tuple(self._sinks)

    def _before_fork(self) -> None:
        # No thread is to be in the middle of a fold, holding locks of the SDK, which would stay locked in the child.
        self._is_held_for_fork = self.lock.acquire(timeout=_FORK_TIMEOUT)

    def _after_fork(self) -> None:
        if self._is_held_for_fork:
            self._is_held_for_fork = False
            self.lock.release()

    def _after_fork_in_child(self) -> None:
        self.lock = threading.RLock()
        self.is_folding = self._is_held_for_fork = False
        for series in self._series.values():
            series.after_fork()
        for sink in self._sinks:
            sink.after_fork()


registry: Final = Registry()
"""The process's one store: instruments publish it, statistics and health read it."""

unkept: Final = Registry()
"""Where values go that another process keeps; nobody reads it."""
