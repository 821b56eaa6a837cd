"""Caches: what is kept and for how long, who computes, who waits, and what each error says."""

from __future__ import annotations

import asyncio
import csv
import gc
import io
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from traceback import walk_tb

import pytest
from dependency_injector import providers

from aetherflow.config import PerformanceConfig
from aetherflow.errors import ConfigurationError
from aetherflow.resources.caching import CacheKeyError, CachePolicy, CacheService, NotCacheableError
from aetherflow.resources.context import BaseFlowContext
from aetherflow.resources.entries import Flight
from aetherflow.resources.scoped_cache import ScopedCache
from aetherflow.telemetry.conventions import CACHE_ENTRIES, CACHE_NAME, CACHE_REQUESTS, CACHE_RESULT
from aetherflow.testing import CapturedTelemetry, FakeClock


def until(condition: Callable[[], object]) -> None:
    """Let other threads run until ``condition`` holds."""
    while not condition():
        time.sleep(0)


async def auntil(condition: Callable[[], object]) -> None:
    """Let other tasks and threads run until ``condition`` holds."""
    while not condition():
        await asyncio.sleep(0)


def waiting(cache: CacheService[int], key: object) -> int:
    """How many callers wait for the computation of a key."""
    flight = cache._flights.get(key)
    return 0 if flight is None else len(flight.waiters)


def never() -> int:
    """Stand for a computation that must not happen."""
    raise AssertionError("computed")


class Held:
    """A computation that begins, and then goes on only when it is told how."""

    def __init__(self, outcome: int | BaseException = 1) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.outcome = outcome
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        self.begun.set()
        self.go.wait()
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


# --- keeping -----------------------------------------------------------------------------------------------


def test_a_value_is_computed_once():
    """What was computed is returned for its key without computing, and other keys have their own."""
    cache = CacheService[int]()
    assert [cache.get_or_compute("a", lambda: 1), cache.get_or_compute("a", never)] == [1, 1]
    assert cache.get_or_compute("b", lambda: 2) == 2
    statistics = cache.statistics()
    assert (statistics.hits, statistics.misses, statistics.coalesced, statistics.entries) == (1, 2, 0, 2)
    assert statistics.requests == 3
    assert statistics.hit_ratio == pytest.approx(1 / 3)


def test_none_is_a_value():
    """A computation that gives None is kept like any other."""
    cache = CacheService[None]()
    cache.get_or_compute("a", lambda: None)
    assert cache.get_or_compute("a", never) is None


def test_an_entry_lives_for_its_ttl():
    """An entry is there up to its time to live and not from then on."""
    clock = FakeClock()
    cache = CacheService[int](ttl=10, clock=clock.monotonic)
    cache.set("a", 1)
    clock.advance(9.999)
    assert cache.get("a") == 1
    clock.advance(0.001)
    assert cache.get("a") is None
    assert len(cache) == 0
    assert cache.get_or_compute("a", lambda: 2) == 2


def test_an_endless_ttl_never_ends():
    """With a time to live of infinity, entries leave only for want of room."""
    clock = FakeClock()
    cache = CacheService[int](ttl=math.inf, clock=clock.monotonic)
    cache.set("a", 1)
    clock.advance(1e9)
    assert cache.get("a") == 1


def test_the_least_recently_used_goes_first():
    """Where there is no room, the entry goes that was used longest ago, and it is counted."""
    cache = CacheService[int](maxsize=2)
    cache.set("a", 1)
    cache.set("b", 2)
    cache.get("a")
    cache.set("c", 3)
    assert ("a" in cache, "b" in cache, "c" in cache) == (True, False, True)
    assert cache.statistics().evicted == 1


def test_a_hit_hashes_its_key_for_the_look_up_alone():
    """A key whose hash is costly is hashed no more often on a hit than the entries themselves do to find it."""

    class Key:
        def __init__(self) -> None:
            self.hashes = 0

        def __hash__(self) -> int:
            self.hashes += 1
            return 1

    def hashes(ask: Callable[[Key], object]) -> int:
        key.hashes = 0
        ask(key)
        return key.hashes

    key = Key()
    cache = CacheService[int]()
    cache.set(key, 1)
    expected = hashes(lambda key: cache._entries[key])
    assert hashes(lambda key: cache.get_or_compute(key, never)) == expected
    assert hashes(cache.get) == expected


def test_limits_come_from_the_settings(monkeypatch):
    """Without arguments the limits are those of the environment, read when the cache is made."""
    monkeypatch.setenv("AETHER_CACHE_SIZE", "7")
    monkeypatch.setenv("AETHER_CACHE_TTL", "60")
    assert (CacheService[int]().maxsize, CacheService[int]().ttl) == (7, 60)
    assert PerformanceConfig().cache_size == 7


def test_get_and_set():
    """`get` gives a default for what is not kept, and `set` replaces."""
    cache = CacheService[int]()
    assert cache.get("a") is None
    assert cache.get("a", 5) == 5
    cache.set("a", 1)
    cache.set("a", 2)
    assert cache.get("a") == 2
    assert len(cache) == 1
    assert (cache.statistics().hits, cache.statistics().misses) == (1, 2)


def test_invalidate_and_clear():
    """`invalidate` forgets one entry and tells whether there was one; `clear` forgets all."""
    cache = CacheService[int]()
    for number, key in enumerate("abc"):
        cache.set(key, number)
    assert cache.invalidate("a")
    assert not cache.invalidate("a")
    assert len(cache) == 2
    cache.clear()
    assert len(cache) == 0


def test_what_is_dropped_may_use_the_cache():
    """An entry whose finalizer uses the same cache is dropped without harm, on every way out."""
    cache = CacheService[object](maxsize=1)
    last: list[object] = []

    class Farewell:
        def __del__(self) -> None:
            last.append(threading.Thread(target=cache.statistics))
            last[-1].start()
            last[-1].join()  # would hang if the lock were still held

    cache.set("a", Farewell())
    cache.set("b", Farewell())  # evicts
    cache.set("b", Farewell())  # replaces
    cache.invalidate("b")
    cache.set("c", Farewell())
    cache.clear()
    gc.collect()
    assert len(last) == 4


# --- errors ------------------------------------------------------------------------------------------------


def test_an_error_is_not_kept():
    """An exception goes to the caller, and the next one computes again."""
    cache = CacheService[int]()
    with pytest.raises(ZeroDivisionError):
        cache.get_or_compute("a", lambda: 1 // 0)
    assert cache.get_or_compute("a", lambda: 1) == 1


def test_an_error_is_kept_where_asked():
    """With ``cache_errors`` a copy of the exception is raised each time, without growing, until it has expired."""
    clock = FakeClock()
    cache = CacheService[int](ttl=10, cache_errors=True, clock=clock.monotonic)
    with pytest.raises(ZeroDivisionError) as first:
        cache.get_or_compute("a", lambda: 1 // 0)
    lengths = []
    for _ in range(3):
        with pytest.raises(ZeroDivisionError) as again:
            cache.get_or_compute("a", never)
        assert (type(again.value), again.value.args) == (ZeroDivisionError, first.value.args)
        assert again.value is not first.value
        lengths.append(len(again.traceback))
    assert len(set(lengths)) == 1
    clock.advance(10)
    assert cache.get_or_compute("a", lambda: 1) == 1


def test_an_interruption_is_never_kept():
    """What ends the program is not a result, not even with ``cache_errors``."""
    cache = CacheService[int](cache_errors=True)

    def interrupt() -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.get_or_compute("a", interrupt)
    assert cache.get_or_compute("a", lambda: 1) == 1


@pytest.mark.parametrize("ask", [CacheService.get, CacheService.invalidate, CacheService.__contains__])
def test_a_key_without_a_hash_is_refused(ask):
    """What cannot be a key is named, with its type and what is allowed."""
    with pytest.raises(CacheKeyError, match=r"cache 'rows': the key is a list, .*allowed: anything that has a hash"):
        ask(CacheService(name="rows"), [])


@pytest.mark.parametrize(
    "value", [iter([]), (n for n in ()), csv.reader(io.StringIO())], ids=["iterator", "generator", "reader"]
)
def test_what_can_be_used_once_is_refused(value):
    """A value that the second caller would find used up is an error, and is not kept."""
    cache = CacheService(name="rows")
    with pytest.raises(NotCacheableError, match=r"can be used only once; allowed: .* such as a list"):
        cache.get_or_compute("a", lambda: value)
    with pytest.raises(NotCacheableError):
        cache.set("a", value)
    assert len(cache) == 0


def test_a_coroutine_is_refused():
    """An async computation given to the sync call is an error, not an entry."""

    async def compute() -> int:
        return 1

    coroutine = compute()
    with pytest.raises(NotCacheableError, match="coroutine"):
        CacheService().get_or_compute("a", lambda: coroutine)
    coroutine.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"maxsize": 0}, r"CacheService\(maxsize=0\): allowed is a whole number from 1, or None"),
        ({"maxsize": True}, r"maxsize=True"),
        ({"maxsize": 1.5}, r"maxsize=1.5"),
        ({"ttl": 0}, r"CacheService\(ttl=0\): allowed is a number of seconds above 0, or None"),
        ({"ttl": math.nan}, r"ttl=nan"),
        ({"ttl": "1"}, r"ttl='1'"),
    ],
)
def test_bad_limits_are_refused(arguments, message):
    """A limit that makes no sense is refused by name, with what is allowed."""
    with pytest.raises(ConfigurationError, match=message):
        CacheService(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"maxsize": -1}, r"CachePolicy\(maxsize=-1\)"),
        ({"ttl": -1}, r"CachePolicy\(ttl=-1\)"),
        ({"key": "id"}, r"CachePolicy\(key='id'\): allowed is a function of the arguments, or None"),
        ({"scope": "process"}, r"CachePolicy\(scope='process'\): allowed are 'shared', 'thread'"),
    ],
)
def test_a_bad_policy_is_refused(arguments, message):
    """A policy with a value that is not allowed is refused where it is written."""
    with pytest.raises(ConfigurationError, match=message):
        CachePolicy(**arguments)


# --- callers at once ---------------------------------------------------------------------------------------


def test_threads_that_miss_at_once_compute_once():
    """Of threads that ask for one key at once, the first computes and the others get its result."""
    cache = CacheService[int]()
    compute = Held(7)
    with ThreadPoolExecutor(5) as threads:
        leader = threads.submit(cache.get_or_compute, "a", compute)
        compute.begun.wait()
        others = [threads.submit(cache.get_or_compute, "a", never) for _ in range(4)]
        until(lambda: waiting(cache, "a") == 4)
        assert cache.get_or_compute("b", lambda: 1) == 1  # another key waits for nobody
        compute.go.set()
        assert [future.result() for future in (leader, *others)] == [7] * 5
    statistics = cache.statistics()
    assert (statistics.hits, statistics.misses, statistics.coalesced) == (0, 2, 4)


def test_an_error_goes_to_all_who_wait():
    """Those who wait for a computation that fails get the same exception."""
    cache = CacheService[int]()
    compute = Held(ValueError("no"))
    with ThreadPoolExecutor(3) as threads:
        leader = threads.submit(cache.get_or_compute, "a", compute)
        compute.begun.wait()
        others = [threads.submit(cache.get_or_compute, "a", never) for _ in range(2)]
        until(lambda: waiting(cache, "a") == 2)
        compute.go.set()
        errors = {future.exception() for future in (leader, *others)}
    assert errors == {compute.outcome}


def test_an_error_is_as_long_for_all_who_wait():
    """The traceback of an exception that many raise leads each of them to the computation, and to no other of them."""
    compute = Held(ValueError("no"))
    lengths = []
    turn = threading.Lock()

    class Turns(CacheService[int]):
        """Lets those who waited go on one after the other, so that each finds what the one before has added."""

        def _shared(self, flight: Flight) -> int:
            with turn:
                try:
                    return super()._shared(flight)
                except ValueError as error:
                    lengths.append(len(list(walk_tb(error.__traceback__))))
                    raise

    cache = Turns()
    with ThreadPoolExecutor(4) as threads:
        leader = threads.submit(cache.get_or_compute, "a", compute)
        compute.begun.wait()
        others = [threads.submit(cache.get_or_compute, "a", never) for _ in range(3)]
        until(lambda: waiting(cache, "a") == 3)
        compute.go.set()
        assert {future.exception() for future in (leader, *others)} == {compute.outcome}
    assert lengths == [lengths[0]] * 3
    assert lengths[0] > 2


async def test_tasks_that_miss_at_once_compute_once():
    """Of tasks that ask for one key at once, the first computes and the others get its result."""
    cache = CacheService[int]()
    calls = []

    async def compute() -> int:
        calls.append(1)
        await auntil(lambda: waiting(cache, "a") == 4)
        return 7

    assert await asyncio.gather(*[cache.aget_or_compute("a", compute) for _ in range(5)]) == [7] * 5
    assert calls == [1]
    assert await cache.aget_or_compute("a", compute) == 7
    assert (cache.statistics().hits, cache.statistics().misses, cache.statistics().coalesced) == (1, 1, 4)


async def test_threads_and_tasks_share_one_computation():
    """A task waits for a thread's computation, and a thread for a task's, without blocking the loop."""
    cache = CacheService[int]()

    async def never_async() -> int:
        raise AssertionError("computed")

    compute = Held(7)
    leader = asyncio.ensure_future(asyncio.to_thread(cache.get_or_compute, "a", compute))
    await auntil(compute.begun.is_set)
    task = asyncio.ensure_future(cache.aget_or_compute("a", never_async))
    await auntil(lambda: waiting(cache, "a") == 1)
    compute.go.set()
    assert await asyncio.gather(leader, task) == [7, 7]

    async def compute_async() -> int:
        await auntil(lambda: waiting(cache, "b") == 1)
        return 8

    task = asyncio.ensure_future(cache.aget_or_compute("b", compute_async))
    await auntil(lambda: "b" in cache._flights)
    assert await asyncio.to_thread(cache.get_or_compute, "b", never) == 8
    assert await task == 8


async def test_a_cancelled_task_leaves_the_computation_to_the_next():
    """Where the task that computes is cancelled, one of those who wait computes, and the others go on waiting."""
    cache = CacheService[int]()
    calls = []

    async def compute() -> int:
        calls.append(1)
        if len(calls) == 1:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        return 7

    leader = asyncio.ensure_future(cache.aget_or_compute("a", compute))
    await auntil(lambda: calls)
    others = [asyncio.ensure_future(cache.aget_or_compute("a", compute)) for _ in range(3)]
    thread = asyncio.ensure_future(asyncio.to_thread(cache.get_or_compute, "a", lambda: 7))
    await auntil(lambda: waiting(cache, "a") == 4)
    leader.cancel()
    assert await asyncio.gather(*others, thread) == [7] * 4
    with pytest.raises(asyncio.CancelledError):
        await leader
    assert cache.statistics().requests == 5
    assert cache.statistics().misses == 2


async def test_a_cancelled_task_that_waits_disturbs_nobody():
    """A task cancelled while it waits ends, and the computation goes on for the others."""
    cache = CacheService[int]()
    go = asyncio.Event()

    async def compute() -> int:
        await go.wait()
        return 7

    tasks = [asyncio.ensure_future(cache.aget_or_compute("a", compute)) for _ in range(3)]
    await auntil(lambda: waiting(cache, "a") == 2)
    tasks[1].cancel()
    await asyncio.sleep(0)
    go.set()
    assert await asyncio.gather(tasks[0], tasks[2]) == [7, 7]
    assert tasks[1].cancelled()


def test_an_interrupted_thread_leaves_the_computation_to_the_next():
    """Where what computes is interrupted, it is no result: one of those who wait computes."""
    cache = CacheService[int]()
    compute = Held(KeyboardInterrupt())

    def interrupted() -> None:
        with pytest.raises(KeyboardInterrupt):
            cache.get_or_compute("a", compute)

    with ThreadPoolExecutor(2) as threads:
        leader = threads.submit(interrupted)
        compute.begun.wait()
        other = threads.submit(cache.get_or_compute, "a", lambda: 7)
        until(lambda: waiting(cache, "a") == 1)
        compute.go.set()
        leader.result()
        assert other.result() == 7


def test_a_computation_closed_in_another_context_leaves_it_to_the_next():
    """Where what computes is closed from a context that is not its own, those who wait do not wait for ever."""
    cache = CacheService[int]()

    async def compute() -> int:
        await asyncio.Event().wait()
        raise AssertionError("went on")

    async def follow() -> int:
        leader = cache.aget_or_compute("a", compute)
        copy_context().run(leader.send, None)
        follower = asyncio.ensure_future(asyncio.to_thread(cache.get_or_compute, "a", lambda: 7))
        await auntil(lambda: waiting(cache, "a") == 1)
        leader.close()
        return await asyncio.wait_for(follower, 10)

    assert asyncio.run(follow()) == 7


# --- what would wait for itself ----------------------------------------------------------------------------


def test_a_computation_that_asks_for_its_own_key_computes_it():
    """A computation within that of the same key does not wait for itself, on another thread either."""
    cache = CacheService[int]()

    def outer() -> int:
        with ThreadPoolExecutor(1) as threads:
            below = threads.submit(copy_context().run, cache.get_or_compute, "a", lambda: 2).result()
        return below + cache.get_or_compute("a", lambda: 1)

    assert cache.get_or_compute("a", outer) == 3
    assert cache.get("a") == 3  # the outer one's, which was asked for first


async def test_a_thread_does_not_wait_for_the_loop_that_it_runs():
    """A sync request on the loop that a computation is awaited on computes for itself: it would block that loop."""
    cache = CacheService[int]()
    go = asyncio.Event()

    async def compute() -> int:
        await go.wait()
        return 7

    task = asyncio.ensure_future(cache.aget_or_compute("a", compute))
    await auntil(lambda: "a" in cache._flights)
    assert cache.get_or_compute("a", lambda: 8) == 8
    go.set()
    assert await task == 7
    assert cache.get("a") == 7


# --- what changes meanwhile --------------------------------------------------------------------------------


@pytest.mark.parametrize("forget", [lambda cache: cache.invalidate("a"), lambda cache: cache.clear()])
def test_what_was_invalidated_meanwhile_is_not_kept(forget):
    """A result computed from what has changed since goes to those who waited for it, and to nobody else."""
    cache = CacheService[int]()
    compute = Held(7)
    with ThreadPoolExecutor(2) as threads:
        leader = threads.submit(cache.get_or_compute, "a", compute)
        compute.begun.wait()
        other = threads.submit(cache.get_or_compute, "a", never)
        until(lambda: waiting(cache, "a") == 1)
        forget(cache)
        assert cache.get_or_compute("a", lambda: 8) == 8
        compute.go.set()
        assert [leader.result(), other.result()] == [7, 7]
    assert cache.get("a") == 8


def test_what_was_set_meanwhile_stays():
    """A value that is set while the key is computed is newer than the result."""
    cache = CacheService[int]()

    def compute() -> int:
        cache.set("a", 8)
        return 7

    assert cache.get_or_compute("a", compute) == 7
    assert cache.get("a") == 8


# --- in a context, a cache a thread, in a child process ----------------------------------------------------


def test_a_context_provides_caches():
    """Caches are made by providers, one for all threads or one for each."""

    class Context(BaseFlowContext):
        shared = providers.Singleton(CacheService, maxsize=5)
        own = providers.ThreadLocalSingleton(CacheService)

    context = Context()
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(context.shared).result() is context.shared()
        assert threads.submit(context.own).result() is not context.own()
    assert context.shared().maxsize == 5


def test_a_thread_has_a_cache_of_its_own():
    """With the scope ``thread`` nothing is shared, and invalidating reaches every thread's cache."""
    caches = ScopedCache("own", CachePolicy(scope="thread"))
    caches.here().set("a", 1)
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(lambda: caches.here().get("a")).result() is None
        threads.submit(lambda: caches.here().set("a", 2)).result()
        assert caches.here().get("a") == 1
        assert caches.statistics().entries == 2
        assert caches.invalidate("a")
        assert caches.statistics().entries == 0
        threads.submit(lambda: caches.here().set("b", 2)).result()
        caches.clear()
        assert caches.statistics().entries == 0


def test_a_dead_threads_cache_is_gone_and_its_counts_are_not():
    """The entries of a thread that has ended are freed; what it counted stays in the statistics."""
    caches = ScopedCache("own", CachePolicy(scope="thread"))

    def work() -> None:
        for _ in range(2):
            caches.here().get_or_compute("a", lambda: 1)

    for _ in range(20):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    gc.collect()
    statistics = caches.statistics()
    assert (statistics.hits, statistics.misses, statistics.entries) == (20, 20, 0)
    assert len(caches._all()) == 0


FORKED = """
import os, threading
from aetherflow.resources.caching import CachePolicy, CacheService
from aetherflow.resources.scoped_cache import ScopedCache

cache, calm = CacheService(), CacheService()
scoped = ScopedCache("scoped", CachePolicy())
calm.set("kept", 1)
begun, go = threading.Event(), threading.Event()

def compute():
    begun.set()
    go.wait()
    return 1

thread = threading.Thread(target=cache.get_or_compute, args=("a", compute))
thread.start()
begun.wait()
held = threading.Event()

def hold():
    with cache._lock, scoped._lock:
        held.set()
        go.wait()

holder = threading.Thread(target=hold)
holder.start()
held.wait()
if (child := os.fork()) == 0:
    assert cache.get_or_compute("a", lambda: 2) == 2
    assert calm.get("kept") == 1
    scoped.here().set("a", 1)
    os._exit(0)
_, status = os.waitpid(child, 0)
go.set()
thread.join()
holder.join()
assert cache.get("a") == 1
raise SystemExit(os.waitstatus_to_exitcode(status))
"""


def test_a_forked_child_neither_hangs_nor_forgets():
    """A child waits for no lock or computation that the fork left behind, and has the entries that were whole."""
    done = subprocess.run([sys.executable, "-c", FORKED], check=False, timeout=50, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_requests_are_told_in_the_callers_context():
    """`on_request` is called once for each request, with what became of it."""
    told: list[str] = []
    cache = CacheService[int](on_request=told.append)
    cache.get_or_compute("a", lambda: 1)
    cache.get_or_compute("a", never)
    cache.get("a")
    cache.get("b")
    assert told == ["miss", "hit", "hit", "miss"]


# --- metrics -----------------------------------------------------------------------------------------------


def test_requests_and_entries_are_metrics():
    """Each request is counted with its result, and a collection tells how many entries live, by the cache's name."""
    clock = FakeClock()
    with CapturedTelemetry() as captured:
        cache = CacheService[int](ttl=10, name="prices", clock=clock.monotonic)
        compute = Held(7)
        with ThreadPoolExecutor(2) as threads:
            leader = threads.submit(cache.get_or_compute, "a", compute)
            compute.begun.wait()
            other = threads.submit(cache.get_or_compute, "a", never)
            until(lambda: waiting(cache, "a") == 1)
            compute.go.set()
            leader.result()
            other.result()
        for _ in range(3):
            cache.get("a")
        clock.advance(5)
        cache.set("b", 1)
        counted = {point.attributes[CACHE_RESULT]: point.value for point in captured.points(CACHE_REQUESTS.name)}
        assert counted == {"miss": 1, "coalesced": 1, "hit": 3}
        assert {point.attributes[CACHE_NAME] for point in captured.points(CACHE_REQUESTS.name)} == {"prices"}
        (entries,) = captured.points(CACHE_ENTRIES.name, {CACHE_NAME: "prices"})
        assert entries.value == 2
        clock.advance(5)
        (entries,) = captured.points(CACHE_ENTRIES.name, {CACHE_NAME: "prices"})
        assert entries.value == 1


def test_the_caches_of_threads_are_one_in_the_metrics():
    """Entries of a cache a thread add up under its name, those of dead threads excepted."""
    caches = ScopedCache("own", CachePolicy(scope="thread"))
    with CapturedTelemetry() as captured:
        caches.here().get_or_compute("a", lambda: 1)
        with ThreadPoolExecutor(1) as threads:
            threads.submit(lambda: caches.here().set("a", 1)).result()
            (entries,) = captured.points(CACHE_ENTRIES.name, {CACHE_NAME: "own"})
            assert entries.value == 2
        gc.collect()
        (entries,) = captured.points(CACHE_ENTRIES.name, {CACHE_NAME: "own"})
        assert entries.value == 1
