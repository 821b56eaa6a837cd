"""What a cache is made of: its entries, their counts, and the computations that are under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, TypeAlias

from cachetools import TTLCache

from aetherflow.resources.waiting import Waiter

__all__ = ["NOTHING", "CacheResult", "CacheStatistics", "Counts", "Entries", "Flight", "Raised", "above", "value_of"]
__all__ += ["would_wait_for_itself"]

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


class Entries(TTLCache[Hashable, Any]):
    """The entries; what falls out lies in ``dropped`` until the lock is free, since it may have finalizers."""

    def __init__(self, maxsize: int, ttl: float, clock: Callable[[], float], counts: Counts) -> None:
        super().__init__(maxsize, ttl, clock)
        self.dropped: list[Any] = []
        self._counts = counts

    def popitem(self) -> tuple[Hashable, Any]:
        """Make room: drop what was used least recently."""
        item = super().popitem()
        self._counts.evicted += 1
        self.dropped.append(item)
        return item

    def expire(self, time: float | None = None) -> list[tuple[Hashable, Any]]:
        """Drop what has had its time."""
        expired = super().expire(time)
        self.dropped.extend(expired)
        return expired

    def forget(self, key: Hashable) -> bool:
        """Drop an entry; tell whether it was there."""
        found = self.pop(key, NOTHING)
        self.dropped.append(found)
        return found is not NOTHING


class Raised:
    """An entry that is an exception."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


def value_of(kept: Any) -> Any:
    """Return what is kept, or raise it."""
    if type(kept) is Raised:
        raise kept.error.with_traceback(None)  # each raise would add to the traceback of all before it
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
