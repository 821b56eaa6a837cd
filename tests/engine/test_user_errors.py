"""Exceptions of user code arrive as themselves from thread pools and background loops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.stubborn_errors import REBUILT

from aetherflow import BatchPolicy, node
from aetherflow.engine.loops import Home, off_loop, run_coroutine
from aetherflow.engine.pool import ThreadPool, side_by_side
from aetherflow.resources.carrying import BatchInterruptedError

PLAIN = [StopAsyncIteration, GeneratorExit, asyncio.CancelledError, KeyboardInterrupt, SystemExit]
kinds = pytest.mark.parametrize("kind", [*REBUILT, *PLAIN], ids=lambda kind: kind.__name__)
stubborn = pytest.mark.parametrize("kind", REBUILT, ids=lambda kind: kind.__name__)


def raising(error: BaseException) -> Any:
    raise error


async def raising_later(error: BaseException) -> Any:
    await asyncio.sleep(0)
    raise error


def caught(call: Callable[[], object]) -> BaseException | None:
    try:
        call()
    except BaseException as error:  # noqa: BLE001  # what the tests look at
        return error
    return None


def caught_later(call: Callable[[], Any]) -> BaseException | None:
    """Return the exception that awaiting raises; in the task itself, since asyncio treats some exceptions specially."""

    async def main() -> BaseException | None:
        try:
            await call()
        except BaseException as error:  # noqa: BLE001  # what the tests look at
            return error
        return None

    return asyncio.run(main())


@kinds
def test_an_error_of_a_coroutine_on_a_background_loop(kind: Callable[[int], BaseException]) -> None:
    """Synchronous code gets the exception that a coroutine raised, and the loop goes on."""
    error = kind(7)
    assert caught(lambda: run_coroutine(raising_later, error)) is error
    assert caught(lambda: run_coroutine(asyncio.sleep, 0)) is None


@kinds
def test_an_error_of_a_coroutine_on_another_loop(kind: Callable[[int], BaseException]) -> None:
    """Asynchronous code gets the exception of a coroutine that belongs to another loop."""
    error = kind(7)
    home = Home()
    assert caught(lambda: home.run(raising_later, error)) is error
    assert caught_later(lambda: home.arun(raising_later, error)) is error


@kinds
def test_an_error_of_a_function_on_a_thread(kind: Callable[[int], BaseException]) -> None:
    """Asynchronous code gets the exception of a function that a thread calls."""
    error = kind(7)
    assert caught_later(lambda: off_loop(raising, error)) is error


@kinds
def test_an_error_of_a_call_on_a_pool(kind: Callable[[int], BaseException]) -> None:
    """The outcome of a call has the exception."""
    error = kind(7)
    assert ThreadPool(1, "test").call(raising, error).result(30).error is error


@stubborn
def test_an_error_of_a_branch_stops_the_others(kind: Callable[[int], BaseException]) -> None:
    """A branch that fails is a branch that fails, whether or not its exception is true."""
    error = kind(7)
    first, second = side_by_side([lambda: raising(error), list], 1, stop_on_error=True)
    assert first.error is error
    assert (second.error, second.done) == (None, False)


@stubborn
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_an_error_of_a_node(kind: Callable[[int], BaseException], is_async: bool) -> None:
    """`run` and `arun` raise the exception of the node, for nodes of both kinds, alone and in a flow."""
    error = kind(7)

    @node
    def fails() -> None:
        raise error

    @node
    async def fails_later() -> None:
        raise error

    failing = fails_later if is_async else fails
    for flow in (failing, node(lambda: 1, name="first") >> failing):
        assert caught(lambda flow=flow: flow.run()) is error  # type: ignore[misc]  # the default's type
        assert caught_later(lambda flow=flow: flow.arun()) is error  # type: ignore[misc]  # as above


def test_an_interrupted_wait_cancels_the_coroutine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait that ends by an interruption cancels what it waits for, which runs its `finally` clauses."""
    start, cancellation = threading.Event(), threading.Event()

    async def waits() -> None:
        start.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancellation.set()

    class Interrupting:
        def __enter__(self) -> None:
            assert start.wait(30)
            raise KeyboardInterrupt

        def __exit__(self, *exc_info: object) -> None: ...

    monkeypatch.setattr("aetherflow.engine.loops.lent_thread", Interrupting)
    assert type(caught(lambda: run_coroutine(waits))) is KeyboardInterrupt
    assert cancellation.is_set()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_background_loop_outlives_a_task_that_ends_the_program(kind: type[BaseException]) -> None:
    """Neither the callers of the batch nor those of other nodes wait forever."""

    @node(batch=BatchPolicy(size=1))
    async def leave(xs: list[int]) -> list[int]:
        raise kind

    @node
    async def stay(x: int) -> int:
        return x

    with pytest.raises(BatchInterruptedError):
        leave.run(1)
    assert stay.run(2) == 2
