"""Batchers against a model: random histories of what gathers, and exact accounts after many callers at once."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aetherflow.resources.batching import Batcher, BatcherClosedError, BatchItemError
from aetherflow.resources.gathering import Batch, Entry, Gathering, Given
from aetherflow.testing import FakeClock

MAX_WAIT = 10.0


class GatheringHistory(RuleBasedStateMachine):
    """Whatever comes and goes, every item is in one batch, in order, which begins once and in time for one leader."""

    @initialize(size=st.integers(1, 4))
    def start(self, size: int) -> None:
        self.clock = FakeClock()
        self.size = size
        self.gathering = Gathering("f", size, MAX_WAIT, self.clock.monotonic)
        self.loop = asyncio.new_event_loop()
        self.open: dict[int, list[Entry]] = {}  # by what the calls have in common
        self.begun: list[list[Entry]] = []
        self.running: list[tuple[Batch, list[Entry]]] = []
        self.counts: Counter[str] = Counter()
        self.closed = False
        self.owners = [object() for _ in range(2)]

    def begin(self, batch: Batch, entries: list[Entry]) -> None:
        """Check a batch that has begun against the model's."""
        assert batch.entries == entries
        for index, entry in enumerate(entries):
            placement = entry.placement
            assert (placement.size, placement.index) == (len(entries), index)
            assert placement.wait == pytest.approx(self.clock.monotonic() - entry.since)
        self.begun.append(entries)
        self.running.append((batch, list(entries)))
        self.counts["batches"] += 1

    @rule(owner=st.integers(0, 1), kind=st.sampled_from(["thread", "thread", "loop", "several"]))
    def enter(self, owner: int, kind: str) -> None:
        given = Given((self.owners[owner],), object(), (), {})
        gate = threading.Lock() if kind == "several" else None
        entry = Entry(given, None, self.loop if kind == "loop" else None, gate=gate)
        if self.closed:
            with pytest.raises(BatcherClosedError, match="'f' is closed"):
                self.gathering.enter(entry)
            return
        entries = self.open.setdefault(owner, [])
        is_late = bool(entries) and self.clock.monotonic() - entries[0].since >= MAX_WAIT
        batch = self.gathering.enter(entry)
        entries.append(entry)
        is_full = len(entries) == self.size
        self.counts["full"] += is_full
        if is_full or is_late:
            assert batch.leader is entry
            assert batch.given.lead == (self.owners[owner],)
            self.begin(batch, self.open.pop(owner))
        else:
            assert batch.leader is None

    @precondition(lambda self: not self.closed)
    @rule(owner=st.integers(0, 1), count=st.integers(1, 6), end=st.sampled_from(["takes", "waits", "adds"]))
    def give(self, owner: int, count: int, end: str) -> None:
        gate = threading.Lock()
        entries = [Entry(Given((self.owners[owner],), object(), (), {}), None, gate=gate) for _ in range(count)]
        waiting = self.open.pop(owner, [])
        start = 0
        while start < count:
            now = self.clock.monotonic()
            is_late = bool(waiting) and now - waiting[0].since >= MAX_WAIT
            stop, batch = self.gathering.fill(entries, start, [])
            waiting += entries[start:stop]
            if batch is None:
                assert stop == count
                assert len(waiting) < self.size
                self.open[owner] = waiting
                waiting = []
            else:
                assert batch.leader is entries[stop - 1]
                assert len(waiting) == self.size or is_late
                self.counts["full"] += len(waiting) == self.size
                self.begin(batch, waiting)
                waiting = []
            start = stop
        if end == "takes":
            for batch in self.gathering.take_all(entries):
                assert batch.leader in entries
                self.begin(batch, self.open.pop(owner))
        elif end == "waits":
            self.gathering.keep_time(entries)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        owner = data.draw(st.sampled_from(sorted(self.open)))
        batch = self.open[owner][0].batch
        assert batch is not None
        assert self.gathering.take(batch)
        assert not self.gathering.take(batch)
        self.begin(batch, self.open.pop(owner))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        owner = data.draw(st.sampled_from(sorted(self.open)))
        entries = self.open[owner]
        entry = data.draw(st.sampled_from(entries))
        batch = entry.batch
        assert batch is not None
        was_keeper = batch.keeper is entry
        keeper = self.gathering.withdraw(entry)
        entries.remove(entry)
        self.counts["withdrawn"] += 1
        assert keeper is (next((other for other in entries if other.is_helpful), None) if was_keeper else None)
        if not entries:
            del self.open[owner]
            assert not self.gathering.take(batch)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def withdraw_too_late(self, data: st.DataObject) -> None:
        _, entries = data.draw(st.sampled_from(self.running))
        assert self.gathering.withdraw(entries[0]) is None

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def appoint(self, data: st.DataObject) -> None:
        batch, entries = data.draw(st.sampled_from(self.running))
        first = self.gathering.appoint(batch)
        assert first is next((entry for entry in entries if entry.is_helpful), None)
        if first is not None:  # then a thread other than the one of that item, however many it gives
            other = next((entry for entry in entries if entry.is_helpful and entry.gate is not first.gate), None)
            assert self.gathering.appoint(batch, first) is other

    @precondition(lambda self: self.running)
    @rule(data=st.data(), fails=st.booleans())
    def end(self, data: st.DataObject, fails: bool) -> None:
        batch, entries = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        if fails:
            entries[0].error = ValueError()
            self.counts["failed"] += 1
        self.gathering.end(batch)
        self.counts["ended"] += len(entries)

    @rule()
    def take_any(self) -> None:
        batch = self.gathering.take_any()
        assert (batch is None) is (not self.open)
        if batch is not None:
            owner = self.owners.index(batch.given.lead[0])
            self.begin(batch, self.open.pop(owner))

    @rule(seconds=st.sampled_from([0.5, 4.0, MAX_WAIT]))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: len(self.begun) > 5)
    @rule()
    def close(self) -> None:
        self.gathering.closed = self.closed = True

    @invariant()
    def accounts_agree(self) -> None:
        found = self.gathering.statistics()
        assert found.waiting == sum(map(len, self.open.values()))
        assert found.running == sum(len(entries) for _, entries in self.running)
        for name in ("ended", "failed", "withdrawn", "batches", "full"):
            assert getattr(found, name) == self.counts[name]

    @invariant()
    def somebody_keeps_the_time(self) -> None:
        for entries in self.open.values():
            batch = entries[0].batch
            assert batch is not None
            helpful = [entry for entry in entries if entry.is_helpful]
            assert batch.keeper is (helpful[0] if helpful else None)

    def teardown(self) -> None:
        self.loop.close()


TestGatheringHistory = GatheringHistory.TestCase
TestGatheringHistory.settings = settings(settings.default, stateful_step_count=40)


class Function:
    """A batched function that knows what it was called with; items that are a multiple of 97 are refused."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seen: Counter[int] = Counter()
        self.calls = 0

    def __call__(self, items: list[int]) -> list[int | BatchItemError]:
        with self.lock:
            self.calls += 1
            self.seen.update(items)
        return [BatchItemError(str(item)) if item % 97 == 0 else -item for item in items]

    async def awaited(self, items: list[int]) -> list[int | BatchItemError]:
        await asyncio.sleep(0)
        return self(items)


def give(batcher: Batcher[int, int], item: int) -> None:
    """Give an item from a thread and check what it gets."""
    if item % 97:
        assert batcher.run(item) == -item
    else:
        with pytest.raises(BatchItemError, match=f"^{item}$"):
            batcher.run(item)


@pytest.mark.stress
def test_16_threads_and_100_000_items_add_up():
    """Every item is done once and its caller gets its own result or error, and the counts are exact."""
    function = Function()
    batcher = Batcher(function, size=8, max_wait=0.002)

    def work(seed: int) -> None:
        for item in range(seed * 6_250, (seed + 1) * 6_250):
            give(batcher, item)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(work, range(16)))
    assert function.seen == Counter(range(100_000))
    statistics = batcher.statistics()
    assert (statistics.ended, statistics.failed) == (100_000, len(range(0, 100_000, 97)))
    assert statistics.batches == function.calls
    assert (statistics.waiting, statistics.running, statistics.withdrawn) == (0, 0, 0)
    assert statistics.full <= 100_000 // 8


@pytest.mark.parametrize("is_async", [False, True], ids=["function", "coroutine function"])
async def test_tasks_that_are_cancelled_among_threads_add_up(is_async):
    """Tasks of two loops, cancelled at any moment, share batches with threads: each item is done once or dropped."""
    function = Function()
    batcher = Batcher(function.awaited if is_async else function, size=7, max_wait=0.002)
    cancelled = Counter[str]()

    async def agive(item: int) -> None:
        if item % 97:
            assert await batcher.arun(item) == -item
        else:
            with pytest.raises(BatchItemError, match=f"^{item}$"):
                await batcher.arun(item)

    async def rounds(first: int) -> None:
        chance = random.Random(first)
        for start in range(first, first + 4_000, 40):
            tasks = [asyncio.ensure_future(agive(item)) for item in range(start, start + 40)]
            for task in tasks:
                if chance.random() < 0.2:
                    await asyncio.sleep(0)
                    cancelled["tasks"] += task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(end) for end in ends} <= {type(None), asyncio.CancelledError}

    def by_thread(first: int) -> None:
        for item in range(first, first + 1_000):
            give(batcher, item)

    threads = [asyncio.to_thread(by_thread, 10_000 + 1_000 * number) for number in range(4)]
    await asyncio.gather(rounds(0), asyncio.to_thread(asyncio.run, rounds(4_000)), *threads)
    statistics = batcher.statistics()
    assert (statistics.waiting, statistics.running) == (0, 0)
    assert set(function.seen.values()) == {1}
    assert statistics.ended == len(function.seen)
    # A task cancelled before it was begun never gave its item.
    assert 12_000 - cancelled["tasks"] <= statistics.ended <= statistics.ended + statistics.withdrawn <= 12_000
    assert {item for item in function.seen if item >= 10_000} == set(range(10_000, 14_000))
