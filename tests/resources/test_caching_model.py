"""Caches against a model: random histories of one caller, and exact accounts after many at once."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from aetherflow.resources.caching import CacheService
from aetherflow.testing import FakeClock

TTL = 10.0
KEYS = st.integers(0, 5)


class CacheHistory(RuleBasedStateMachine):
    """Whatever one caller does, the cache keeps, forgets and counts what a model of one ordered dict says."""

    @initialize(maxsize=st.integers(1, 4), cache_errors=st.booleans())
    def start(self, maxsize: int, cache_errors: bool) -> None:
        self.clock = FakeClock()
        self.maxsize = maxsize
        self.cache_errors = cache_errors
        self.cache = CacheService[object](maxsize, TTL, cache_errors=cache_errors, clock=self.clock.monotonic)
        self.model: dict[int, tuple[object, float]] = {}  # the least recently used first
        self.counts: Counter[str] = Counter()
        self.serial = 0

    def new_value(self, fails: bool) -> object:
        self.serial += 1
        return ValueError(self.serial) if fails else f"value {self.serial}"

    def alive(self) -> dict[int, tuple[object, float]]:
        return {key: entry for key, entry in self.model.items() if self.clock.monotonic() < entry[1]}

    def keep(self, key: int, value: object) -> None:
        self.model = self.alive()
        self.model.pop(key, None)
        if len(self.model) >= self.maxsize:
            del self.model[next(iter(self.model))]
            self.counts["evicted"] += 1
        self.model[key] = value, self.clock.monotonic() + TTL

    def use(self, key: int) -> object:
        entry = self.model.pop(key)
        self.model[key] = entry
        return entry[0]

    @rule(key=KEYS, fails=st.booleans(), meanwhile=st.sampled_from(["", "", "invalidate", "clear", "set"]))
    def get_or_compute(self, key: int, fails: bool, meanwhile: str) -> None:
        value = self.new_value(fails)
        other = self.new_value(fails=False)

        def compute() -> object:
            match meanwhile:
                case "invalidate":
                    self.cache.invalidate(key)
                case "clear":
                    self.cache.clear()
                case "set":
                    self.cache.set(key, other)
            if isinstance(value, Exception):
                raise value
            return value

        if key in self.alive():
            expected, is_computed = self.use(key), False
            self.counts["hits"] += 1
        else:
            expected, is_computed = value, True
            self.counts["misses"] += 1
            if meanwhile == "clear":
                self.model.clear()
            if meanwhile == "set":
                self.keep(key, other)
            if not meanwhile and (not fails or self.cache_errors):
                self.keep(key, value)
        if isinstance(expected, Exception):
            with pytest.raises(ValueError, match=f"^{expected}$") as raised:
                self.cache.get_or_compute(key, compute)
            assert (raised.value is expected) is is_computed
        else:
            assert self.cache.get_or_compute(key, compute) is expected

    @rule(key=KEYS)
    def get(self, key: int) -> None:
        entry = self.alive().get(key)
        if entry is None:
            self.counts["misses"] += 1
            assert self.cache.get(key, "default") == "default"
            return
        self.counts["hits"] += 1
        self.use(key)
        if isinstance(entry[0], Exception):
            with pytest.raises(ValueError, match=f"^{entry[0]}$"):
                self.cache.get(key)
        else:
            assert self.cache.get(key) is entry[0]

    @rule(key=KEYS)
    def set(self, key: int) -> None:
        value = self.new_value(fails=False)
        self.cache.set(key, value)
        self.keep(key, value)

    @rule(key=KEYS)
    def invalidate(self, key: int) -> None:
        assert self.cache.invalidate(key) is (key in self.alive())
        self.model.pop(key, None)

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.model.clear()

    @rule(seconds=st.sampled_from([0.5, 4.0, TTL]))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def the_same_is_kept(self) -> None:
        alive = self.alive()
        assert [key for key in range(6) if key in self.cache] == sorted(alive)
        assert len(self.cache) == len(alive) <= self.maxsize

    @invariant()
    def the_same_is_counted(self) -> None:
        statistics = self.cache.statistics()
        found = {name: getattr(statistics, name) for name in ("hits", "misses", "evicted")}
        assert {name: count for name, count in found.items() if count} == self.counts
        assert statistics.coalesced == 0

    @invariant()
    def nothing_is_under_way(self) -> None:
        assert not self.cache._flights


TestCacheHistory = CacheHistory.TestCase
TestCacheHistory.settings = settings(settings.default, stateful_step_count=40)


@pytest.mark.stress
def test_16_threads_and_100_000_requests_add_up(request):
    """Every request gets its key's value, each miss computed and nothing else did, and the counts are exact."""
    cache = CacheService[tuple[int, int]](maxsize=40, ttl=3600)
    computed = [0] * 16
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that threads meet in the middle of everything
    request.addfinalizer(lambda: sys.setswitchinterval(interval))

    def work(seed: int) -> None:
        chance = random.Random(seed)

        def compute() -> tuple[int, int]:
            computed[seed] += 1
            return key, seed

        for _ in range(6_250):
            key = min(chance.randrange(60), chance.randrange(60))
            if chance.random() < 0.01:
                cache.invalidate(key)
            assert cache.get_or_compute(key, compute)[0] == key

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(work, range(16)))
    statistics = cache.statistics()
    assert statistics.requests == 100_000
    assert statistics.misses == sum(computed)
    assert statistics.hits > 50_000
    assert statistics.evicted > 0
    assert statistics.coalesced > 0
    assert statistics.entries == len(cache) <= 40
    assert not cache._flights


async def test_tasks_that_are_cancelled_among_threads_add_up():
    """Tasks on one loop, cancelled at any moment, share a cache with threads: nobody is left waiting."""
    cache = CacheService[int](maxsize=5)
    chance = random.Random(0)
    computed = Counter[str]()

    async def ask(key: int) -> int:
        async def compute() -> int:
            computed["tasks"] += 1
            await asyncio.sleep(0)
            return key

        return await cache.aget_or_compute(key, compute)

    def ask_in_thread(seed: int) -> int:
        own_chance = random.Random(seed)
        count = 0

        def compute() -> int:
            nonlocal count
            count += 1
            return key

        for _ in range(500):
            key = own_chance.randrange(20)
            assert cache.get_or_compute(key, compute) == key
        return count

    running = [asyncio.ensure_future(asyncio.to_thread(ask_in_thread, seed)) for seed in range(4)]
    answered = 0
    for _ in range(100):
        keys = [chance.randrange(20) for _ in range(20)]
        tasks = [asyncio.ensure_future(ask(key)) for key in keys]
        for task in tasks:
            if chance.random() < 0.3:
                await asyncio.sleep(0)
                task.cancel()
        for key, end in zip(keys, await asyncio.gather(*tasks, return_exceptions=True), strict=True):
            assert end == key or isinstance(end, asyncio.CancelledError)
            answered += end == key
    by_threads = sum(await asyncio.gather(*running))
    statistics = cache.statistics()
    # A task that was cancelled while it computed counts as a miss; one that only waited was never answered.
    assert answered + 2_000 <= statistics.requests <= 2_000 + 2_000
    assert statistics.misses == by_threads + computed["tasks"]
    assert not cache._flights
