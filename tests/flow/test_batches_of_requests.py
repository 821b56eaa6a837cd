"""Concurrent requests share batches, whatever the shape of their flows and however they run."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from aetherflow import BatchPolicy, Node, node
from aetherflow.resources.batching import Batcher
from aetherflow.resources.gathering import Given
from aetherflow.testing import FakeClock

LONG = 60.0
"""Seconds that nobody waits in a test: a batch that does not fill by then would time the test out."""

Batched = Node[[int], int]
Shape = Callable[[Batched], Node[..., Any, Any]]


@node
def same(number: int) -> int:
    return number


@node
def pair(number: int) -> list[int]:
    return [number, number + 100]


@node
def other(number: int) -> int:
    return -number


@node
def total(values: Any) -> int:
    """Add up the results of a map, a fan-out or one node."""
    values = values.values() if isinstance(values, dict) else values if isinstance(values, list) else [values]
    return sum(values)


SHAPES: dict[str, tuple[Shape, int, Callable[[int], int]]] = {
    "chain": (lambda double: same >> double >> total, 1, lambda number: number * 2),
    "map": (lambda double: pair.map(double) >> total, 2, lambda number: number * 4 + 200),
    "map of a chain": (lambda double: pair.map(same >> double) >> total, 2, lambda number: number * 4 + 200),
    "[n] * k": (lambda double: pair >> [double] * 2 >> total, 2, lambda number: number * 4 + 200),
    "[n] * k of a value": (lambda double: same >> [double] * 2 >> total, 2, lambda number: number * 4),
    "fan-out": (lambda double: same >> [double, other] >> total, 1, lambda number: number),
}
"""The flow over a batched node, the items of a run, and the output of a run."""


def until(condition: Callable[[], object]) -> None:
    """Let other threads run until ``condition`` holds."""
    while not condition():
        time.sleep(0)


def batched(calls: list[int], size: int, is_async: bool) -> Batched:
    """Return a batched node that doubles numbers and records the sizes of its batches."""

    def double(items: list[int]) -> list[int]:
        calls.append(len(items))
        return [item * 2 for item in items]

    async def double_async(items: list[int]) -> list[int]:
        return double(items)

    return node(batch=BatchPolicy(size=size, max_wait=LONG), name="double")(double_async if is_async else double)  # type: ignore[arg-type]


def in_threads(flow: Node[..., Any, Any], count: int) -> list[int]:
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(flow.run, range(count)))


def in_tasks(flow: Node[..., Any, Any], count: int) -> list[int]:
    async def main() -> list[int]:
        return await asyncio.gather(*[flow.arun(number) for number in range(count)])

    return asyncio.run(main())


def in_both(flow: Node[..., Any, Any], count: int) -> list[int]:
    async def main() -> list[int]:
        runs = [
            asyncio.to_thread(flow.run, number) if number % 2 else asyncio.ensure_future(flow.arun(number))
            for number in range(count)
        ]
        return await asyncio.gather(*runs)

    return asyncio.run(main())


@pytest.mark.parametrize("is_async", [False, True], ids=["function", "coroutine function"])
@pytest.mark.parametrize("run", [in_threads, in_tasks, in_both])
@pytest.mark.parametrize("shape", SHAPES)
def test_concurrent_runs_share_a_batch(shape, run, is_async):
    """Runs with fewer items each than a batch holds fill it together, and each gets its own results."""
    make, items, output = SHAPES[shape]
    calls: list[int] = []
    flow = make(batched(calls, 4 * items, is_async))
    assert run(flow, 4) == [output(number) for number in range(4)]
    assert calls == [4 * items]


@pytest.mark.parametrize("is_async", [False, True], ids=["function", "coroutine function"])
def test_flows_of_all_shapes_share_a_batch(is_async):
    """Runs of different flows over one batched node, on threads and on an event loop, meet in one batch."""
    calls: list[int] = []
    double = batched(calls, sum(items for _, items, _ in SHAPES.values()) * 2, is_async)
    flows = [make(double) for make, _, _ in SHAPES.values()]

    async def main() -> list[int]:
        runs = [asyncio.to_thread(flow.run, 3) for flow in flows]
        return await asyncio.gather(*runs, *[flow.arun(3) for flow in flows])

    assert asyncio.run(main()) == [output(3) for _, _, output in SHAPES.values()] * 2
    assert calls == [double.batcher.size]


def test_maps_on_a_full_pool_get_on():
    """More runs than there are threads, each of which waits for a part of a batch, end with their own results."""

    @node(batch=BatchPolicy(size=10, max_wait=0.01))
    def double(items: list[int]) -> list[int]:
        return [item * 2 for item in items]

    flow = pair.map(double) >> total
    assert list(flow.run_many(range(100), max_workers=100)) == [number * 4 + 200 for number in range(100)]


# --- groups of items ---------------------------------------------------------------------------------------


def calls_of(*items: Any, other: object = None) -> list[tuple[Given, None]]:
    """Return calls with one item each, and another argument if there is one."""
    return [(Given((), item, () if other is None else (other,), {}), None) for item in items]


def test_full_batches_begin_before_all_items_are_given():
    """A group carries a batch out as soon as it is full, and lets the remaining items wait for more."""
    calls: list[list[int]] = []
    batcher = Batcher(lambda items: calls.append(items) or items, size=2, max_wait=LONG, name="f")
    group = batcher.group()
    entries = group.give(calls_of(1, 2, 3), is_last=False)
    assert calls == [[1, 2]]
    assert [entry.is_done for entry in entries] == [True, True, False]
    group.give(calls_of(4), is_last=True)
    assert calls == [[1, 2], [3, 4]]


def test_the_last_items_of_a_group_do_not_wait_longer_than_the_time():
    """Items whose time is over when the group ends are carried out without any further wait."""
    clock = FakeClock()
    batcher = Batcher(list, size=3, max_wait=LONG, clock=clock.monotonic)
    group = batcher.group()
    (entry,) = group.give(calls_of(1), is_last=False)
    clock.advance(LONG)
    group.give([], is_last=True)
    assert entry.placement.wait == LONG


def test_a_caller_of_the_batcher_is_carried_out_with_the_items_of_a_group():
    """A thread that gives several items carries out a batch that a task on an event loop fills."""
    batcher = Batcher(list, size=3, max_wait=LONG, on_thread=lambda work: pytest.fail("asked for a thread"))
    with ThreadPoolExecutor(1) as threads:
        giving = threads.submit(batcher.group().give, calls_of(1, 2), is_last=True)
        until(lambda: all(entry.is_helpful for batch in batcher._gathering._open.values() for entry in batch.entries))
        until(lambda: batcher.statistics().waiting == 2)
        assert asyncio.run(batcher.arun(3)) == 3
        assert [entry.result for entry in giving.result()] == [1, 2]


def test_a_thread_with_several_batches_keeps_their_time():
    """While one batch of a group is in progress, the others begin in time: another thread carries the first one out."""
    works: list[Callable[[], object]] = []
    calls: list[list[str]] = []

    def record(items: list[str], database: object) -> list[str]:
        calls.append(items)
        return items

    batcher = Batcher(record, size=2, max_wait=0.001, on_thread=works.append)
    one, other = object(), object()
    items = [*calls_of("a", other=one), *calls_of("b", "c", other=other)]
    with ThreadPoolExecutor(1) as threads:
        giving = threads.submit(batcher.group().give, items, is_last=True)
        until(lambda: calls)
        assert calls == [["a"]]  # in time, although the full batch has not ended
        works[0]()
        assert [entry.result for entry in giving.result()] == ["a", "b", "c"]


def test_a_group_that_is_interrupted_takes_its_items_back(monkeypatch):
    """Items of a group whose thread stops waiting are dropped, and so hold nobody up."""
    batcher = Batcher(list, size=3, max_wait=LONG)

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("aetherflow.resources.item_groups.pass_gate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        batcher.group().give(calls_of(1, 2), is_last=True)
    statistics = batcher.statistics()
    assert (statistics.waiting, statistics.withdrawn) == (0, 2)


async def test_a_group_whose_task_is_cancelled_takes_its_items_back():
    """The same holds for items that are awaited."""
    batcher = Batcher(list, size=3, max_wait=LONG)
    task = asyncio.ensure_future(batcher.group().agive(calls_of(1, 2), True))
    await asyncio.sleep(0)
    assert batcher.statistics().waiting == 2
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert batcher.statistics().withdrawn == 2


def test_no_more_items_are_given_after_an_error():
    """A map stops passing items once an item has failed, and waits for those that it has passed."""
    calls: list[list[int]] = []

    @node(batch=BatchPolicy(size=2, max_wait=LONG, retry_singly=False))
    def fail(items: list[int]) -> list[int]:
        calls.append(items)
        raise ValueError(len(calls))

    @node
    def numbers(n: int) -> list[int]:
        return list(range(n))

    with pytest.raises(ExceptionGroup):
        numbers.map(fail).run(6)
    assert calls == [[0, 1]]


def test_the_threads_of_a_lone_map_are_its_callers():
    """A map that fills its batches carries them out on the thread of the run."""
    threads: set[int] = set()

    @node(batch=BatchPolicy(size=2, max_wait=LONG))
    def where(items: list[int]) -> list[int]:
        threads.add(threading.get_ident())
        return items

    pair.map(where).run(1)
    assert threads == {threading.get_ident()}
