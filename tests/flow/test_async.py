"""Synchronous and asynchronous nodes in each other's runs."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from aetherflow import NotAStreamError, node
from aetherflow.engine import pool


@node
async def doubled(value: int) -> int:
    await asyncio.sleep(0)
    return value * 2


@node
def plus_one(value: int = 0) -> int:
    return value + 1


def test_run_drives_asynchronous_nodes_from_synchronous_code() -> None:
    """``run`` gives the awaited value, outside any loop."""
    assert (doubled >> plus_one).run(2) == 5


async def test_run_works_inside_a_running_loop() -> None:
    """``run`` on a loop's thread uses another loop."""
    assert doubled.run({"value": 2}) == 4


def test_an_asynchronous_node_may_run_an_asynchronous_node_five_deep() -> None:
    """Each depth has its own loop, so nothing waits for the loop that it blocks."""

    @node
    async def nest(depth: int) -> int:
        return 0 if depth == 0 else 1 + nest.run({"depth": depth - 1})

    assert nest.run({"depth": 5}) == 5


def test_arun_moves_synchronous_nodes_off_the_loop() -> None:
    """A synchronous node runs on another thread than the loop; an asynchronous one on the loop's."""

    @node
    def where() -> int:
        return threading.get_ident()

    @node
    async def here(value: int) -> tuple[int, int]:
        return value, threading.get_ident()

    apart, on_loop = asyncio.run((where >> here).arun())
    assert apart != on_loop == threading.get_ident()


def test_a_call_of_an_asynchronous_node_is_awaited_by_the_caller() -> None:
    """Calling it gives a coroutine, as the function would."""
    assert asyncio.run(doubled(3)) == 6


async def test_cancellation_reaches_the_awaited_node() -> None:
    """The node sees CancelledError and may clean up."""
    begun, cleaned = asyncio.Event(), asyncio.Event()

    @node
    async def endless() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    task = asyncio.create_task(endless.arun())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned.is_set()


async def test_a_branch_that_fails_leaves_running_ones_to_finish() -> None:
    """Awaited too: running branches are waited for, and the original exception is raised."""
    finished = asyncio.Event()

    @node
    def source() -> int:
        return 1

    @node
    async def slow(value: int) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        finished.set()

    @node
    async def fail(value: int) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await (source >> [slow, fail]).arun()
    assert finished.is_set()


@node
def numbers(n: int) -> Iterator[int]:
    yield from range(n)


@node
async def numbers_apart(n: int) -> AsyncIterator[int]:
    for number in range(n):
        await asyncio.sleep(0)
        yield number


@pytest.mark.parametrize("flow", [numbers, numbers_apart], ids=["sync", "async"])
def test_both_kinds_of_generator_stream_in_both_worlds(flow: Any) -> None:
    """``stream`` and ``astream`` give the items of either kind."""

    async def main() -> list[int]:
        return [item async for item in flow.astream({"n": 4})]

    assert list(flow.stream({"n": 4})) == [0, 1, 2, 3]
    assert asyncio.run(main()) == [0, 1, 2, 3]


def test_what_has_no_items_cannot_be_streamed() -> None:
    """One error that names the flow and what it ended in."""
    with pytest.raises(NotAStreamError, match=r"'plus_one'.*int"):
        plus_one.stream({"value": 1})  # type: ignore[misc]  # what the types forbid as well


def test_a_run_on_a_loops_thread_in_a_fresh_context_uses_another_loop() -> None:
    """Where a run is started counts, not only what the context says of it: a task with a context of its own."""

    @node
    async def outer() -> int:
        async def apart() -> int:
            return doubled.run({"value": 4})

        return await asyncio.create_task(apart(), context=contextvars.Context())

    assert outer.run() == 8


@pytest.mark.parametrize("on_own_loop", [False, True])
def test_threads_that_wait_for_a_loop_do_not_keep_it_from_getting_on(
    monkeypatch: pytest.MonkeyPatch, on_own_loop: bool
) -> None:
    """On a pool of two, all threads wait for coroutines that need a thread for their synchronous nodes."""
    small = pool.ThreadPool(2, "two")
    monkeypatch.setattr(pool._Default, "pool", small)
    everyone = threading.Barrier(3, timeout=10)
    flow = doubled >> plus_one

    @node
    async def apart(value: int) -> int:
        return await flow.arun(value)

    @node
    def branch(value: int) -> int:
        everyone.wait()
        return asyncio.run(flow.arun(value)) if on_own_loop else apart.run(value)

    parts = node(name="parts")(lambda: [1, 2, 3])
    assert parts.map(branch).run() == [3, 5, 7]
    assert small._lent == 0


def test_a_pool_that_lent_threads_shrinks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Surplus threads end once the ones that waited go on."""
    small = pool.ThreadPool(1, "one")
    monkeypatch.setattr(pool._Default, "pool", small)

    @node
    def bridge(value: int) -> int:
        return asyncio.run((doubled >> plus_one).arun(value))

    async def many() -> list[int]:
        return await asyncio.gather(*((plus_one >> bridge).arun(value) for value in range(5)))

    assert asyncio.run(many()) == [3, 5, 7, 9, 11]
    assert asyncio.run((plus_one >> plus_one.named("again")).arun(1)) == 3
    assert small.statistics()["workers"] <= 2
