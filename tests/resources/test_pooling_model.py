"""Object pools against a model: random histories of one caller, and exact accounts after many at once."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aetherflow.resources.pooling import ObjectPool, PoolClosedError, PoolLease, PoolReleaseError, PoolTimeoutError

MAX_AGE = 10.0


class Item:
    """An object that can be told from others by identity alone: all are equal, none has a hash or weak references."""

    __slots__ = ("born", "broken", "closed", "serial", "spoilt")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, serial: int, born: float) -> None:
        self.serial = serial
        self.born = born
        self.broken = self.spoilt = False
        self.closed = 0

    def __eq__(self, other: object) -> bool:
        return True

    def reset(self) -> None:
        if self.spoilt:
            raise ValueError("spoilt")

    def close(self) -> None:
        self.closed += 1
        if self.spoilt:
            raise ValueError("cannot even close")


class PoolHistory(RuleBasedStateMachine):
    """Whatever one caller does, the pool lends, keeps and discards what a model of lists and counts says."""

    @initialize(max_size=st.integers(1, 3), block=st.booleans())
    def start(self, max_size: int, block: bool) -> None:
        self.now = 0.0
        self.max_size = max_size
        self.block = block
        self.closed = self.failing = False
        self.made: list[Item] = []
        self.idle: list[Item] = []
        self.out: list[Item] = []
        self.leases: list[tuple[PoolLease[Item], Item]] = []
        self.gone: dict[int, str] = {}
        self.acquired = self.timeouts = 0
        self.pool = ObjectPool(
            self.make,
            max_size,
            block=block,
            timeout=0 if block else None,
            validate=lambda item: not item.broken,
            max_age=MAX_AGE,
            clock=lambda: self.now,
        )

    def make(self) -> Item:
        if self.failing:
            raise OSError("refused")
        item = Item(len(self.made), self.now)
        self.made.append(item)
        return item

    def discard(self, item: Item, reason: str) -> None:
        assert item.serial not in self.gone
        self.gone[item.serial] = reason

    def old(self, item: Item) -> bool:
        return self.now - item.born >= MAX_AGE

    def held(self) -> int:
        return len(self.out) + len(self.leases)

    def take(self, lease: PoolLease[Item] | None = None) -> None:
        """Acquire, and check that it gives what the model says."""
        call = lease.__enter__ if lease else self.pool.acquire
        if self.closed:
            with pytest.raises(PoolClosedError):
                call()
            return
        if not self.idle and self.block and self.held() >= self.max_size:
            with pytest.raises(PoolTimeoutError, match=f" {self.held()} out"):
                call()
            self.timeouts += 1
            return
        expected = self.idle.pop() if self.idle else None
        if expected and (self.old(expected) or expected.broken):
            self.discard(expected, "max_age" if self.old(expected) else "validate")
            expected = None
        if expected is None and self.failing:
            with pytest.raises(OSError, match="refused"):
                call()
            return
        item = call()
        assert item is (expected or self.made[-1])
        assert item.serial not in self.gone
        self.acquired += 1
        if lease:
            self.leases.append((lease, item))
        else:
            self.out.append(item)

    def come_back(self, item: Item) -> None:
        """Say what the model does with an object that is given back."""
        if self.closed:
            self.discard(item, "closed")
        elif self.old(item):
            self.discard(item, "max_age")
        elif item.spoilt:
            self.discard(item, "reset")
        elif len(self.idle) >= self.max_size:
            self.discard(item, "full")
        else:
            self.idle.append(item)

    @rule(leased=st.booleans())
    def acquire(self, leased: bool) -> None:
        self.take(self.pool.lease() if leased else None)

    @rule(leased=st.booleans())
    def acquire_while_the_factory_fails(self, leased: bool) -> None:
        self.failing = True
        self.take(self.pool.lease() if leased else None)
        self.failing = False

    @precondition(lambda self: self.out)
    @rule()
    def release_all(self) -> None:
        while self.out:
            item = self.out.pop()
            self.pool.release(item)
            self.come_back(item)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), spoilt=st.booleans())
    def release(self, data: st.DataObject, spoilt: bool) -> None:
        item = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        item.spoilt = spoilt
        self.pool.release(item)
        self.come_back(item)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def end_lease(self, data: st.DataObject) -> None:
        lease, item = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        lease.__exit__()
        self.come_back(item)

    @precondition(lambda self: self.leases)
    @rule()
    def lose_lease(self) -> None:
        lease, item = self.leases.pop()
        self.discard(item, "lost")
        with pytest.warns(ResourceWarning, match="was never ended"):
            del lease

    @rule(data=st.data())
    def release_what_is_not_out(self, data: st.DataObject) -> None:
        others = [item for item in self.made if item.serial in self.gone or any(item is kept for kept in self.idle)]
        item = data.draw(st.sampled_from([Item(-1, 0.0), *others]))
        with pytest.raises(PoolReleaseError):
            self.pool.release(item)

    @precondition(lambda self: self.made)
    @rule(data=st.data())
    def break_one(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.made)).broken = True

    @rule(seconds=st.sampled_from([0.5, 4.0, MAX_AGE]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: len(self.made) > 6)
    @rule()
    def close(self) -> None:
        self.pool.close()
        self.closed = True
        for item in self.idle:
            self.discard(item, "closed")
        self.idle.clear()

    @invariant()
    def accounts_agree(self) -> None:
        statistics = self.pool.statistics()
        assert statistics.idle == len(self.idle)
        assert statistics.used == self.held()
        assert statistics.created == len(self.made)
        assert statistics.acquired == self.acquired
        assert statistics.timeouts == self.timeouts
        assert statistics.waiting == statistics.waits == 0
        assert statistics.discarded == Counter(self.gone.values())
        assert statistics.created == statistics.idle + statistics.used + sum(statistics.discarded.values())
        if self.block:
            assert statistics.idle + statistics.used <= self.max_size

    @invariant()
    def exactly_the_discarded_are_closed(self) -> None:
        for item in self.made:
            assert item.closed == (self.gone.get(item.serial, "lost") != "lost")

    def teardown(self) -> None:
        for lease, _ in self.leases:
            lease.__exit__()


TestPoolHistory = PoolHistory.TestCase
TestPoolHistory.settings = settings(settings.default, stateful_step_count=40)


class Shared:
    """What many callers lend: it knows its holder and how many of its kind are alive."""

    lock = threading.Lock()

    def __init__(self, alive: Counter[str]) -> None:
        self.alive = alive
        self.free = threading.Lock()
        self.spoilt = False
        with self.lock:
            alive["now"] += 1
            alive["made"] += 1
            alive["most"] = max(alive["most"], alive["now"])

    def use(self, chance: random.Random) -> None:
        """Be used by one holder alone; once in a hundred times, be spoilt by it."""
        assert self.free.acquire(blocking=False), "lent to two at a time"
        self.spoilt = chance.random() < 0.01
        self.free.release()

    def close(self) -> None:
        with self.lock:
            self.alive["now"] -= 1


def refuse_spoilt(item: Shared) -> None:
    """Reset an item, unless it is spoilt."""
    if item.spoilt:
        raise ValueError("spoilt")


@pytest.fixture
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Keep a thousand failures that are meant out of the report."""
    caplog.set_level("CRITICAL", logger="aetherflow.resources.pooling")


def check_accounts(pool: ObjectPool[Any], alive: Counter[str], acquired: int) -> None:
    """Hold the pool at rest against what the objects saw."""
    statistics = pool.statistics()
    assert statistics.used == statistics.waiting == 0
    assert statistics.acquired == acquired
    assert statistics.created == alive["made"] == statistics.idle + sum(statistics.discarded.values())
    assert statistics.idle == alive["now"] <= pool.max_size
    assert set(statistics.discarded) <= {"reset", "full"}
    pool.close()
    assert alive["now"] == 0


@pytest.mark.stress
@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("block", [False, True])
def test_16_threads_and_100_000_loans_add_up(block: bool) -> None:
    """No object is lent to two at a time, none is lost, and the counts are exact."""
    alive: Counter[str] = Counter()
    pool = ObjectPool(lambda: Shared(alive), max_size=5, block=block, reset=refuse_spoilt)

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(6_250):
            if chance.random() < 0.5:
                with pool.lease() as item:
                    item.use(chance)
            else:
                item = pool.acquire()
                item.use(chance)
                pool.release(item)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(work, range(16)))
    assert pool.statistics().discarded["reset"] > 500
    assert alive["most"] <= (5 if block else 16 + 5)
    check_accounts(pool, alive, 100_000)


@pytest.mark.usefixtures("_quiet")
async def test_tasks_that_are_cancelled_among_threads_lose_nothing() -> None:
    """Tasks on one loop, cancelled at any moment, share a pool with threads: every object is back in the end."""
    alive: Counter[str] = Counter()
    pool = ObjectPool(lambda: Shared(alive), max_size=3, block=True, reset=refuse_spoilt)
    chance = random.Random(0)
    loans = Counter[str]()

    async def borrow() -> None:
        async with pool.lease() as item:
            loans["tasks"] += 1
            item.use(chance)
            await asyncio.sleep(0)

    def borrow_in_thread(seed: int) -> None:
        own_chance = random.Random(seed)
        for _ in range(500):
            with pool.lease() as item:
                item.use(own_chance)

    threads = [asyncio.to_thread(borrow_in_thread, seed) for seed in range(4)]
    running = [asyncio.ensure_future(thread) for thread in threads]
    for _ in range(100):
        tasks = [asyncio.ensure_future(borrow()) for _ in range(20)]
        for task in tasks:
            if chance.random() < 0.5:
                await asyncio.sleep(0)
                task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(end) for end in ended} <= {type(None), asyncio.CancelledError}
    await asyncio.gather(*running)
    # A task cancelled after it was served and before it could go on was lent nothing.
    check_accounts(pool, alive, loans["tasks"] + 2_000)
