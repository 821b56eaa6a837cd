"""The caches of a policy: one for all threads, or one a thread; made when first used."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet, finalize

from aetherflow.config import perf_config
from aetherflow.resources.caching import CachePolicy, CacheService
from aetherflow.resources.entries import CacheResult, CacheStatistics, Counts
from aetherflow.telemetry.forks import renew_in_children

__all__ = ["ScopedCache"]


class ScopedCache:
    """One cache or several, as the scope of a policy says, under one name.

    A thread's own cache ends with the thread; only what it has counted is kept.

    Args:
        name: The caches' name.
        policy: What they are like; settings are read when the first one is made.
        on_request: Called with what became of each request, in the caller's context.
    """

    def __init__(
        self, name: str, policy: CachePolicy, on_request: Callable[[CacheResult], object] | None = None
    ) -> None:
        self.name = name
        self._policy = policy
        self._on_request = on_request
        self._place: Any = threading.local() if policy.scope == "thread" else SimpleNamespace()
        self._lock = threading.RLock()  # reentrant, for what the garbage collector may run in between
        self._caches: WeakSet[CacheService[Any]] = WeakSet()
        self._ended: deque[Counts] = deque()  # by finalizers, which must not wait for a lock
        self._former = Counts()
        renew_in_children(self)

    def here(self) -> CacheService[Any]:
        """Return the calling thread's cache, or the one for all."""
        try:
            return self._place.cache  # type: ignore[no-any-return]  # a namespace knows no types
        except AttributeError:
            return self._make()

    def invalidate(self, key: Hashable) -> bool:
        """Forget a key in every cache; tell whether one had it."""
        found = [cache.invalidate(key) for cache in self._all()]
        return any(found)

    def clear(self) -> None:
        """Forget everything in every cache."""
        for cache in self._all():
            cache.clear()

    def statistics(self) -> CacheStatistics:
        """Count what is and what was, in all caches together, those that have ended too."""
        caches = self._all()
        with self._lock:
            self._take_in()
            counts = Counts()
            counts.add(self._former)
        entries = 0
        for cache in caches:
            found = cache.statistics()
            entries += found.entries
            counts.add(cache.counts)
        policy = self._policy
        return counts.snapshot(
            self.name,
            perf_config.cache_size if policy.maxsize is None else policy.maxsize,
            perf_config.cache_ttl if policy.ttl is None else policy.ttl,
            entries,
        )

    def after_fork(self) -> None:
        """Go on in a child process, where another thread may have held the lock."""
        self._lock = threading.RLock()
        self._ended.clear()
        self._former.reset()

    def _make(self) -> CacheService[Any]:
        policy = self._policy
        with self._lock:
            if hasattr(self._place, "cache"):  # another thread was first to make the one for all
                return self._place.cache  # type: ignore[no-any-return]  # as above
            self._take_in()
            cache: CacheService[Any] = CacheService(
                policy.maxsize,
                policy.ttl,
                cache_errors=policy.cache_errors,
                name=self.name,
                clock=policy.clock,
                on_request=self._on_request,
            )
            self._caches.add(cache)
            if policy.scope == "thread":
                finalize(cache, self._ended.append, cache.counts).atexit = False
            self._place.cache = cache
            return cache

    def _all(self) -> list[CacheService[Any]]:
        with self._lock:
            return list(self._caches)

    def _take_in(self) -> None:
        """Add up the counts of caches that have ended."""
        while self._ended:
            self._former.add(self._ended.popleft())
