"""`CacheService`: what was computed once is kept for a while, for threads and async tasks alike.

Callers that miss the same key at once share one computation: the first leads, the others wait for it. User code
(computations, and finalizers of what is dropped) runs without the lock.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Generic, Literal, get_args

from typing_extensions import TypeVar

from aetherflow.config import perf_config
from aetherflow.errors import AetherFlowError, ConfigurationError
from aetherflow.resources.entries import (
    NOTHING,
    CacheResult,
    CacheStatistics,
    Counts,
    Entries,
    Flight,
    InstanceRef,
    Raised,
    above,
    value_of,
    would_wait_for_itself,
)
from aetherflow.resources.waiting import TaskWaiter, ThreadWaiter, Waiter
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.forks import renew_in_children
from aetherflow.telemetry.metrics import gauges
from aetherflow.telemetry.metrics.accumulators import registry
from aetherflow.telemetry.observer import emit
from aetherflow.user_exceptions import is_error, with_traceback

__all__ = [
    "CacheKeyError",
    "CachePolicy",
    "CacheResult",
    "CacheScope",
    "CacheService",
    "CacheStatistics",
    "NotCacheableError",
]

V = TypeVar("V", default=Any)
W = TypeVar("W", bound=Waiter[None])
_thread: Callable[[float], ThreadWaiter[None]] = ThreadWaiter
_task: Callable[[float], TaskWaiter[None]] = TaskWaiter
CacheScope = Literal["shared", "thread"]


class CacheKeyError(AetherFlowError, TypeError):
    """A cache was asked for something that cannot be a key.

    Args:
        cache: The cache's name.
        what: What it is that cannot be hashed, such as ``argument 'rows'``.
        value: The value.
        remedy: What is allowed.
        problem: The property of the value that does not allow it.
    """

    def __init__(self, cache: str, what: str, value: object, remedy: str, problem: str = "has no hash") -> None:
        self.cache = cache
        super().__init__(f"cache {cache!r}: {what} is a {type(value).__name__}, which {problem}; allowed: {remedy}")


class NotCacheableError(AetherFlowError, TypeError):
    """What was computed can be used only once, so that no second caller could have it from a cache."""

    def __init__(self, cache: str, value: object) -> None:
        self.cache = cache
        super().__init__(
            f"cache {cache!r}: the result is a {type(value).__name__}, which can be used only once; "
            f"allowed: values that stay what they are, such as a list of what it yields"
        )


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How the results of a node are cached: ``@node(cache=CachePolicy(ttl=60))``.

    Args:
        maxsize: Entries kept at most, those used last; None for the setting ``AETHER_CACHE_SIZE``.
        ttl: Seconds an entry lives, ``math.inf`` for as long as there is room; None for ``AETHER_CACHE_TTL``.
        key: Called with the arguments of an execution, gives what identifies the result; by default the arguments
            themselves, without those that are injected.
        scope: ``"shared"`` for one cache, or ``"thread"`` for one a thread, which ends with it.
        cache_errors: Whether an exception is kept like a result: a copy of it, without tracebacks, is raised again.
        clock: Monotonic time in seconds.

    Raises:
        ConfigurationError: A value is not allowed.
    """

    maxsize: int | None = None
    ttl: float | None = None
    key: Callable[..., Hashable] | None = None
    scope: CacheScope = "shared"
    cache_errors: bool = False
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        _check_limits("CachePolicy", self.maxsize, self.ttl)
        if self.key is not None and not callable(self.key):
            raise ConfigurationError(f"CachePolicy(key={self.key!r}): allowed is a function of the arguments, or None")
        if self.scope not in get_args(CacheScope):
            allowed = ", ".join(map(repr, get_args(CacheScope)))
            raise ConfigurationError(f"CachePolicy(scope={self.scope!r}): allowed are {allowed}")


class CacheService(Generic[V]):
    """Keep what was computed, the least recently used going first; every call may come from any thread.

    ``providers.Singleton(CacheService, …)`` is one cache for all threads of a context,
    ``providers.ThreadLocalSingleton(CacheService, …)`` one for each.

    Args:
        maxsize: Entries kept at most; None for the setting ``AETHER_CACHE_SIZE``.
        ttl: Seconds an entry lives, ``math.inf`` for as long as there is room; None for ``AETHER_CACHE_TTL``.
        cache_errors: Whether an exception of a computation is kept like a result: a copy of it, without tracebacks, is
            raised again.
        name: In errors, statistics and metrics; of low cardinality.
        clock: Monotonic time in seconds.
        on_request: Called with what became of each request, in the caller's context; must not raise.

    Raises:
        ConfigurationError: An argument has a value that is not allowed.
    """

    def __init__(
        self,
        maxsize: int | None = None,
        ttl: float | None = None,
        *,
        cache_errors: bool = False,
        name: str = "cache",
        clock: Callable[[], float] = time.monotonic,
        on_request: Callable[[CacheResult], object] | None = None,
    ) -> None:
        _check_limits("CacheService", maxsize, ttl)
        self.name = name
        self.maxsize = perf_config.cache_size if maxsize is None else maxsize
        self.ttl: float = perf_config.cache_ttl if ttl is None else ttl
        self._cache_errors = cache_errors
        self._clock = clock
        self._on_request = on_request
        self.counts = Counts()
        self._lock = threading.RLock()  # reentrant, for what the garbage collector may run in between
        self._flights: dict[Hashable, Flight] = {}
        self._gone: deque[InstanceRef] = deque()  # by finalizers, which must not wait for the lock
        self._entries = self._no_entries()
        self._series = {
            result: registry.series(names.CACHE_REQUESTS, {names.CACHE_NAME: name, names.CACHE_RESULT: result})
            for result in get_args(CacheResult)
        }
        gauges.observe(names.CACHE_ENTRIES, self, _readings)
        renew_in_children(self)

    # --- requests ------------------------------------------------------------------------------------------

    def get_or_compute(self, key: Hashable, compute: Callable[[], V]) -> V:
        """Return what is kept for a key, or compute and keep it; at once, callers compute it only once.

        Args:
            key: Anything that has a hash.
            compute: Gives the value. An exception goes to all who wait for it.

        Raises:
            CacheKeyError: The key has no hash.
            NotCacheableError: The value is an iterator or a coroutine.
        """
        while True:
            kept, flight, waiter = self._enter(key, _thread)
            if flight is None:
                return self._served(kept)
            if waiter is None:
                with _Leading(self, key, flight):
                    flight.value = value = self._usable(compute())
                return value
            waiter.wait(None)
            if flight.has_landed:
                try:
                    return self._shared(flight)
                finally:
                    del flight  # leave no circle of an exception, its traceback and this frame

    async def aget_or_compute(self, key: Hashable, compute: Callable[[], Awaitable[V]]) -> V:
        """Do what `get_or_compute` does with an async computation, waiting without blocking the event loop.

        A caller that is cancelled while it computes leaves that to the next who waits.
        """
        loop = asyncio.get_running_loop()
        while True:
            kept, flight, waiter = self._enter(key, _task, loop)
            if flight is None:
                return self._served(kept)
            if waiter is None:
                with _Leading(self, key, flight):
                    flight.value = value = self._usable(await compute())
                return value
            await waiter.wait(None)
            if flight.has_landed:
                try:
                    return self._shared(flight)
                finally:
                    del flight  # leave no circle of an exception, its traceback and this frame

    def get(self, key: Hashable, default: V | None = None) -> V | None:
        """Return what is kept for a key, else the default; counts as a hit or a miss."""
        with self._lock:
            kept = self._kept(key)
            if kept is not NOTHING:
                self.counts.hits += 1
            else:
                self.counts.misses += 1
        if kept is not NOTHING:
            return self._served(kept)
        self._tell("miss")
        return default

    def set(self, key: Hashable, value: V) -> None:
        """Keep a value; what is being computed for the same key is then not kept."""
        self._check_key(key)
        self._usable(value)
        with _Changing(self):
            self._flights.pop(key, None)
            self._entries.forget(key)
            self._entries[key] = value

    def invalidate(self, key: Hashable) -> bool:
        """Forget what is kept for a key; what is being computed for it goes to those who wait and is not kept.

        Returns:
            Whether something was kept.
        """
        self._check_key(key)
        with _Changing(self):
            self._flights.pop(key, None)
            return self._entries.forget(key)

    def clear(self) -> None:
        """Forget everything; what is being computed goes to those who wait and is not kept."""
        with _Changing(self):
            self._flights.clear()
            self._entries = self._no_entries()

    def statistics(self) -> CacheStatistics:
        """Count what is and what was.

        Returns:
            A frozen snapshot.
        """
        if self._gone:
            self._drop_gone()
        with _Changing(self):
            return self.counts.snapshot(self.name, self.maxsize, self.ttl, len(self._entries))

    def __len__(self) -> int:
        if self._gone:
            self._drop_gone()
        with _Changing(self):
            return len(self._entries)

    def __contains__(self, key: Hashable) -> bool:
        self._check_key(key)
        with self._lock:
            return key in self._entries

    # --- instances that are gone ---------------------------------------------------------------------------

    def forget_instance(self, instance: InstanceRef) -> None:
        """Drop the entries of an instance that is gone: now if the lock is free, else with the next request.

        Safe in a finalizer.
        """
        self._gone.append(instance)
        lock: Any = self._lock
        if not lock._is_owned() and lock.acquire(blocking=False):  # else its holder would find its entries changed
            try:
                self._drop_gone()
            finally:
                lock.release()

    def _drop_gone(self) -> None:
        with _Changing(self):
            while self._gone:
                self._entries.forget_instance(self._gone.popleft())

    # --- turns ---------------------------------------------------------------------------------------------

    def _enter(
        self, key: Hashable, kind: Callable[[float], W], loop: asyncio.AbstractEventLoop | None = None
    ) -> tuple[Any, Flight | None, W | None]:
        """Return what is kept, or the computation that the caller leads, or one that it waits for and with what."""
        if self._gone:
            self._drop_gone()
        with self._lock:
            kept = self._kept(key)
            if kept is not NOTHING:
                self.counts.hits += 1
                return kept, None, None
            flight = self._flights.get(key)
            if flight is not None and not would_wait_for_itself(flight, loop):
                waiter = kind(0.0)
                flight.waiters.append(waiter)
                return NOTHING, flight, waiter
            mine = Flight(loop)
            if flight is None:
                self._flights[key] = mine
            self.counts.misses += 1
        self._tell("miss")
        return NOTHING, mine, None

    def _served(self, kept: Any) -> V:
        self._tell("hit")
        return value_of(kept)  # type: ignore[no-any-return]  # only values of this type are kept

    def _shared(self, flight: Flight) -> V:
        with self._lock:
            self.counts.coalesced += 1
        self._tell("coalesced")
        if flight.error is not None:
            try:
                raise with_traceback(flight.error, flight.trace)  # not what others who raised it have added
            finally:
                del flight  # as above
        return flight.value  # type: ignore[no-any-return]  # as above

    def _land(self, key: Hashable, flight: Flight) -> None:
        entry = flight.value
        if self._cache_errors and flight.error is not None:
            entry = Raised.of(flight.error) or NOTHING
        with _Changing(self):
            if self._flights.get(key) is flight:  # else what it was computed from has changed since
                del self._flights[key]
                if entry is not NOTHING:
                    self._entries[key] = entry
        if not flight.waiters:  # then nobody asks for them: leave no circle of an exception and its frames
            flight.error = flight.trace = None
        for waiter in flight.waiters:
            waiter.wake()

    def _kept(self, key: Hashable) -> Any:
        try:
            return self._entries[key]
        except KeyError:
            return NOTHING
        except TypeError:
            self._check_key(key)  # only now: on a hit, no more hashes are taken than the look-up takes
            raise

    def _no_entries(self) -> Entries:
        return Entries(self.maxsize, self.ttl, self._clock, self.counts, self)

    def after_fork(self) -> None:
        """Go on in a child process, which has the entries but not the threads that compute or hold the lock."""
        self.counts.reset()  # each process counts its own
        if not self._lock.acquire(blocking=False):
            self._entries = self._no_entries()  # another thread was about to change them
        self._lock = threading.RLock()
        self._flights = {}

    def _check_key(self, key: object) -> None:
        try:
            hash(key)
        except TypeError:
            raise CacheKeyError(self.name, "the key", key, "anything that has a hash, such as a tuple") from None

    def _usable(self, value: V) -> V:
        if _is_used_up(value):
            raise NotCacheableError(self.name, value)
        return value

    def _tell(self, result: CacheResult) -> None:
        emit(self._series[result])
        if self._on_request is not None:
            self._on_request(result)


class _Changing:
    """The lock of a cache; entries that are dropped while it is held end only after it is free.

    They may have finalizers.
    """

    __slots__ = ("_cache", "_dropped", "_entries")

    def __init__(self, cache: CacheService[Any]) -> None:
        self._cache = cache

    def __enter__(self) -> None:
        self._cache._lock.acquire()
        self._entries = self._cache._entries
        self._dropped = self._entries.dropped

    def __exit__(self, *exc_info: object) -> None:
        self._entries.dropped = []
        self._cache._lock.release()
        del self._entries, self._dropped


class _Leading:
    """A computation for all callers that wait for it; if it is interrupted rather than failed, the next one computes.

    No generator: that would change the user exceptions that pass through it.
    """

    __slots__ = ("_cache", "_flight", "_key", "_token")

    def __init__(self, cache: CacheService[Any], key: Hashable, flight: Flight) -> None:
        self._cache = cache
        self._key = key
        self._flight = flight

    def __enter__(self) -> None:
        self._token = above.set((*above.get(), self._flight))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is not None and is_error(error, Exception):
                self._flight.fail(error, traceback)
        finally:
            self._cache._land(self._key, self._flight)
            with suppress(ValueError):  # closed in another context, which has nothing to be reset
                above.reset(self._token)


_USED_UP: Final = (Iterator, AsyncIterator, Coroutine)


def _is_used_up(value: object) -> bool:
    """Return whether only one caller could use a value, whatever its class does when it is asked."""
    try:
        return isinstance(value, _USED_UP)
    except Exception:  # noqa: BLE001  # reading ``__class__`` runs code of the value
        return issubclass(type(value), _USED_UP)


def _readings(cache: CacheService[Any]) -> list[gauges.Reading]:
    return [(len(cache), {names.CACHE_NAME: cache.name})]


def _check_limits(owner: str, maxsize: object, ttl: object) -> None:
    if maxsize is not None and (isinstance(maxsize, bool) or not isinstance(maxsize, int) or maxsize < 1):
        raise ConfigurationError(f"{owner}(maxsize={maxsize!r}): allowed is a whole number from 1, or None")
    if ttl is not None and (isinstance(ttl, bool) or not isinstance(ttl, int | float) or not ttl > 0):
        raise ConfigurationError(f"{owner}(ttl={ttl!r}): allowed is a number of seconds above 0, or None")
