"""Exceptions of users reach every caller of a batch or a cache unchanged, whatever they refuse."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.support.stubborn import ERRORS, HostileResult

from aetherflow.resources import carrying
from aetherflow.resources.batching import Batcher
from aetherflow.resources.caching import CacheService
from aetherflow.resources.gathering import Batch, BatchOutcomeError, Entry, Given
from aetherflow.telemetry import shield

LONG = 60.0
"""Seconds that nobody waits in a test."""

each_error = pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
Ask = Callable[[Batcher[int, Any], int], list[Any]]


def error_of(call: Callable[[], object]) -> object:
    """Return the exception that a call raises; the result of the call if it raises none."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001  # what a test looks at
        return error


async def async_error_of(call: Callable[[], Any]) -> object:
    """Do the same for a coroutine function."""
    try:
        return await call()
    except Exception as error:  # noqa: BLE001  # what a test looks at
        return error


def in_threads(batcher: Batcher[int, Any], count: int) -> list[Any]:
    """Pass items from one thread each."""
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(lambda item: error_of(lambda: batcher.run(item)), range(count)))


def in_tasks(batcher: Batcher[int, Any], count: int) -> list[Any]:
    """Pass items from one task each."""

    async def main() -> list[Any]:
        return await asyncio.gather(*[async_error_of(lambda item=item: batcher.arun(item)) for item in range(count)])

    return asyncio.run(main())


def from_one_thread(batcher: Batcher[int, Any], count: int) -> list[Any]:
    """Pass all items from one thread, as a map does."""
    entries = batcher.group(waits=False).give([(Given((), item, (), {}), None) for item in range(count)], is_last=True)
    return [error_of(entry.outcome) for entry in entries]


each_caller = pytest.mark.parametrize("ask", [in_threads, in_tasks, from_one_thread])


def batcher_of(func: Callable[[list[int]], Any], size: int, *, is_async: bool, **options: Any) -> Batcher[int, Any]:
    async def awaited(items: list[int]) -> Any:
        return func(items)

    return Batcher(awaited if is_async else func, size=size, max_wait=LONG, name="f", **options)


both = pytest.mark.parametrize("is_async", [False, True], ids=["function", "coroutine function"])


# --- batches -----------------------------------------------------------------------------------------------


@each_error
@each_caller
@both
@pytest.mark.parametrize(("size", "retry_singly"), [(1, True), (3, False), (3, True)])
def test_a_raised_error_reaches_every_caller_of_a_batch(kind, ask: Ask, is_async, size, retry_singly):
    """Each caller gets the very exception that the function raised, and none is left waiting."""
    error = kind()

    def fail(items: list[int]) -> list[int]:
        raise error

    outcomes = ask(batcher_of(fail, size, is_async=is_async, retry_singly=retry_singly), size)
    assert [outcome is error for outcome in outcomes] == [True] * size


@each_error
@each_caller
def test_a_returned_error_reaches_the_caller_of_its_item(kind, ask: Ask):
    """An exception in the place of a result is raised to the caller of that item alone, whatever it refuses."""
    error = kind()

    def fail_on_one(items: list[int]) -> list[Any]:
        return [error if item == 1 else item for item in items]

    first, second, third = ask(batcher_of(fail_on_one, 3, is_async=False), 3)
    assert (first, third) == (0, 2)
    assert second is error


@each_caller
def test_a_result_of_a_batch_is_not_asked_for_anything(ask: Ask):
    """A result whose class, truth value and equality raise is returned like any other."""
    result = HostileResult()
    (outcome,) = ask(batcher_of(lambda items: [result], 1, is_async=False), 1)
    assert outcome is result


@each_caller
@both
def test_a_failure_of_telemetry_does_not_replace_the_users_error(ask: Ask, is_async, monkeypatch):
    """If the note on the batch's span fails, items are still tried one by one."""
    failures: list[BaseException] = []

    def fail_to_note(*args: object) -> None:
        raise RuntimeError("telemetry")

    monkeypatch.setattr(carrying, "noted", fail_to_note)
    monkeypatch.setattr(shield, "caught", lambda failure, doing: failures.append(failure))

    def fail_on_zero(items: list[int]) -> list[float]:
        return [1 / item for item in items]

    first, second = ask(batcher_of(fail_on_zero, 2, is_async=is_async), 2)
    assert type(first) is ZeroDivisionError
    assert second == 1.0
    assert len(failures) == 1


def test_an_item_without_an_outcome_is_an_internal_error(monkeypatch):
    """A batch that ends without a result or an error for an item raises, and never returns a placeholder."""
    monkeypatch.setattr(carrying, "_settle", lambda entry, result: None)
    (outcome,) = in_threads(Batcher(list, size=1, name="f"), 1)
    assert type(outcome) is BatchOutcomeError
    assert str(outcome).startswith("batcher 'f': the batch ended with neither a result nor an error")


def test_an_entry_that_has_not_ended_has_no_outcome():
    """An entry is never mistaken for a result before its batch has ended."""
    with pytest.raises(BatchOutcomeError):
        Entry(Given((), 1, (), {}), None).outcome()


def test_callers_go_on_if_there_is_no_loop_for_their_batch(monkeypatch):
    """If no event loop can be made for a coroutine function, every thread that waits for the batch gets that error."""

    def refuse(work: Any) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(asyncio, "run", refuse)
    batcher = batcher_of(list, 2, is_async=True)
    assert [type(outcome) for outcome in in_threads(batcher, 2)] == [OSError, OSError]
    assert batcher.statistics().running == 0


async def test_a_batch_whose_task_is_cancelled_before_it_begins_is_carried_out_elsewhere():
    """A thread that waits in a batch carries it out if the task for the batch never began."""
    batcher = batcher_of(list, 2, is_async=True)
    thread = asyncio.ensure_future(asyncio.to_thread(batcher.run, 1))
    while not batcher.statistics().waiting:
        await asyncio.sleep(0)
    other = asyncio.ensure_future(batcher.arun(2))
    await asyncio.sleep(0)  # the other task fills the batch, whose own task has not begun
    for task in batcher._tasks:
        task.cancel()
    assert await asyncio.wait_for(thread, 10) == 1
    assert await asyncio.wait_for(other, 10) == 2


def test_a_batch_is_carried_out_once():
    """If two callers carry a batch out, the second does nothing."""
    batcher = Batcher(list, size=2, max_wait=LONG)
    batch = Batch(None, Given((), 1, (), {}), 0.0)
    assert batcher._gathering.begin(batch)
    assert not batcher._gathering.begin(batch)


# --- caches ------------------------------------------------------------------------------------------------


@each_error
@pytest.mark.parametrize("cache_errors", [False, True], ids=["forgets errors", "keeps errors"])
def test_an_error_reaches_threads_that_lead_and_that_wait(kind, cache_errors):
    """The caller that computes and those that wait for it get the very exception of the computation."""
    cache = CacheService[int](cache_errors=cache_errors)
    error, go = kind(), threading.Event()

    def fail() -> int:
        go.wait()
        raise error

    with ThreadPoolExecutor(3) as threads:
        futures = [threads.submit(error_of, lambda: cache.get_or_compute("a", fail)) for _ in range(3)]
        while sum(len(flight.waiters) for flight in list(cache._flights.values())) < 2:
            time.sleep(0)
        go.set()
        outcomes = [future.result() for future in futures]
    assert [outcome is error for outcome in outcomes] == [True] * 3


@each_error
@pytest.mark.parametrize("cache_errors", [False, True], ids=["forgets errors", "keeps errors"])
async def test_an_error_reaches_tasks_that_lead_and_that_wait(kind, cache_errors):
    """Tasks that compute or wait get the very exception of the computation too."""
    cache = CacheService[int](cache_errors=cache_errors)
    error = kind()

    async def fail() -> int:
        await asyncio.sleep(0)
        raise error

    outcomes = await asyncio.gather(*[async_error_of(lambda: cache.aget_or_compute("a", fail)) for _ in range(3)])
    assert [outcome is error for outcome in outcomes] == [True] * 3


def test_a_cached_value_is_not_asked_for_anything():
    """A value whose class raises is kept like any other."""
    result = HostileResult()
    cache = CacheService[Any]()
    assert cache.get_or_compute("a", lambda: result) is result
    assert cache.get_or_compute("a", lambda: None) is result


def test_a_failure_of_telemetry_does_not_replace_a_result(monkeypatch):
    """If the place of an item cannot be recorded, its caller still gets the result."""
    failures: list[BaseException] = []
    monkeypatch.setattr(shield, "caught", lambda failure, doing: failures.append(failure))

    def refuse(placement: object) -> None:
        raise RuntimeError("telemetry")

    assert Batcher(list, size=1, on_item=refuse).run(3) == 3
    assert [str(failure) for failure in failures] == ["telemetry"]
