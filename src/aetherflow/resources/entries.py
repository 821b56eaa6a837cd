"""What a cache is made of: its entries, their counts, and the computations that are under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Protocol, TypeAlias
from weakref import WeakSet, ref

from cachetools import TTLCache

from aetherflow.resources.error_copies import copy_of
from aetherflow.resources.waiting import Waiter

__all__ = ["NOTHING", "CacheResult", "CacheStatistics", "Counts", "Entries", "Flight", "InstanceRef", "InstanceRefs"]
__all__ += ["Raised", "above", "value_of", "would_wait_for_itself"]

CacheResult: TypeAlias = Literal["hit", "miss", "coalesced"]
"""What became of a request: it was there, was computed, or came from the computation of another caller."""

NOTHING: Final = object()
"""Stands for an entry that is not there."""


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """A cache at one moment; of a cache a thread, all of them together.

    Args:
        name: The cache's name.
        maxsize: Entries it keeps at most; of a cache a thread, each.
        ttl: Seconds an entry lives.
        entries: Entries that are alive.
        hits: Requests whose result was there.
        misses: Requests that computed it.
        coalesced: Requests that waited for the computation of another and took its result.
        evicted: Entries dropped before their time because there was no room.
    """

    name: str
    maxsize: int
    ttl: float
    entries: int
    hits: int
    misses: int
    coalesced: int
    evicted: int

    @property
    def requests(self) -> int:
        """All requests."""
        return self.hits + self.misses + self.coalesced

    @property
    def hit_ratio(self) -> float:
        """The share of requests whose result was there, from 0 to 1; 0 where there was none."""
        return self.hits / self.requests if self.requests else 0.0


class Counts:
    """What a cache has counted so far."""

    __slots__ = ("coalesced", "evicted", "hits", "misses")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.hits = self.misses = self.coalesced = self.evicted = 0

    def add(self, other: Counts) -> None:
        """Add other counts to these."""
        self.hits += other.hits
        self.misses += other.misses
        self.coalesced += other.coalesced
        self.evicted += other.evicted

    def snapshot(self, name: str, maxsize: int, ttl: float, entries: int) -> CacheStatistics:
        """Return these counts as the statistics of a cache."""
        return CacheStatistics(name, maxsize, ttl, entries, self.hits, self.misses, self.coalesced, self.evicted)


class OwnsEntries(Protocol):
    """A cache that has entries of instances."""

    def forget_instance(self, instance: InstanceRef) -> None:
        """Drop the entries of an instance that is gone; safe in a finalizer."""
        ...


class InstanceRef(ref[Any]):
    """The weak reference to an instance that keys of its methods begin with; equal to itself alone."""

    __slots__ = ("caches", "identity")

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    caches: WeakSet[OwnsEntries]
    identity: int


class InstanceRefs:
    """The weak references to the instances of one method, one for each instance."""

    def __init__(self) -> None:
        self._refs: dict[int, InstanceRef] = {}

    def of(self, instance: object) -> InstanceRef:
        """Return the reference to an instance.

        Raises:
            TypeError: The instance cannot be referenced weakly.
        """
        identity = id(instance)
        current = self._refs.get(identity)
        if current is not None and current() is instance:
            return current
        reference = InstanceRef(instance, self._forget)
        reference.caches, reference.identity = WeakSet(), identity
        current = self._refs.setdefault(identity, reference)  # another thread may have been first
        if current is not reference and current() is not instance:
            current = self._refs[identity] = reference
        return current

    def _forget(self, reference: InstanceRef) -> None:
        """Forget an instance that is gone; the garbage collector calls this in any thread."""
        if self._refs.get(reference.identity) is reference:
            self._refs.pop(reference.identity, None)
        for cache in tuple(reference.caches):
            cache.forget_instance(reference)


class Entries(TTLCache[Hashable, Any]):
    """The entries; removed ones stay in ``dropped`` until the lock is free, since they may have finalizers.

    Args:
        maxsize: The most entries.
        ttl: Seconds that an entry lives.
        clock: Monotonic time in seconds.
        counts: The counts of the cache.
        cache: The cache.
    """

    def __init__(
        self, maxsize: int, ttl: float, clock: Callable[[], float], counts: Counts, cache: OwnsEntries
    ) -> None:
        super().__init__(maxsize, ttl, clock)
        self.dropped: list[Any] = []
        self._counts = counts
        self._cache = ref(cache)
        self._by_instance: dict[InstanceRef, set[Hashable]] = {}

    def __setitem__(self, key: Hashable, value: Any, *more: Any) -> None:
        super().__setitem__(key, value, *more)
        instance, cache = instance_of(key), self._cache()
        if instance is not None and cache is not None:
            self._by_instance.setdefault(instance, set()).add(key)
            instance.caches.add(cache)

    def __delitem__(self, key: Hashable, *more: Any) -> None:
        self._unlink(key)
        super().__delitem__(key, *more)

    def _unlink(self, key: Hashable) -> None:
        instance = instance_of(key)
        keys = None if instance is None else self._by_instance.get(instance)
        if instance is not None and keys is not None:
            keys.discard(key)
            if not keys:
                del self._by_instance[instance]

    def forget_instance(self, instance: InstanceRef) -> None:
        """Drop all entries of an instance."""
        self.expire()
        for key in tuple(self._by_instance.get(instance, ())):
            self.forget(key)

    def popitem(self) -> tuple[Hashable, Any]:
        """Make room: drop what was used least recently."""
        item = super().popitem()
        self._counts.evicted += 1
        self.dropped.append(item)
        return item

    def expire(self, time: float | None = None) -> list[tuple[Hashable, Any]]:
        """Drop what has had its time."""
        expired = super().expire(time)
        for key, _ in expired:
            self._unlink(key)
        self.dropped.extend(expired)
        return expired

    def forget(self, key: Hashable) -> bool:
        """Drop an entry; tell whether it was there."""
        found = self.pop(key, NOTHING)
        self.dropped.append(found)
        return found is not NOTHING


def instance_of(key: Hashable) -> InstanceRef | None:
    """Return the reference to the instance whose method a key belongs to; None for any other key."""
    if type(key) is tuple and key and type(key[0]) is InstanceRef:
        return key[0]
    return None


class Raised:
    """An entry that is an exception: a copy that is never raised itself, so that it has no traceback.

    Args:
        error: The copy.
    """

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error

    @classmethod
    def of(cls, error: BaseException) -> Raised | None:
        """Return the entry for an exception; None if the exception cannot be copied."""
        copy = copy_of(error)
        return None if copy is None else cls(copy)


def value_of(kept: Any) -> Any:
    """Return the value of an entry, or raise a new copy of its exception."""
    if type(kept) is Raised:
        copy = copy_of(kept.error)  # raised itself, the entry would hold the frames of its callers
        try:
            raise kept.error if copy is None else copy
        finally:
            del copy  # leave no circle of the exception, its traceback and this frame
    return kept


class Flight:
    """One computation under way, and who waits for it; ``loop`` is where it is awaited."""

    __slots__ = ("error", "loop", "trace", "value", "waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self.loop = loop
        self.waiters: list[Waiter[None]] = []
        self.value: Any = NOTHING
        self.error: BaseException | None = None
        self.trace: TracebackType | None = None

    def fail(self, error: BaseException, trace: TracebackType | None) -> None:
        """Record the error that ended the computation, and the traceback that it has now."""
        self.error, self.trace = error, trace

    @property
    def has_landed(self) -> bool:
        """Whether it has come to a result; else it was interrupted."""
        return self.value is not NOTHING or self.error is not None


above: Final[ContextVar[tuple[Flight, ...]]] = ContextVar("aetherflow_cache_flights", default=())
"""The computations that the current code is part of: whoever waited for one of these would wait for itself."""


def would_wait_for_itself(flight: Flight, loop: asyncio.AbstractEventLoop | None) -> bool:
    """Tell whether a computation cannot end before its caller goes on.

    Args:
        flight: The computation.
        loop: Where its caller awaits it; None where it blocks.
    """
    if flight in above.get():
        return True
    return loop is None and flight.loop is not None and flight.loop is asyncio._get_running_loop()
