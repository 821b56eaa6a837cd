"""Synchronous and asynchronous nodes in each other's runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from aetherflow import NotAStreamError, node


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
