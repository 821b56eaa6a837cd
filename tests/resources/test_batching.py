"""Batchers: who carries a batch out and when, what each caller gets, and what the trace says of it."""

from __future__ import annotations

import array
import asyncio
import gc
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from dependency_injector import providers
from opentelemetry import baggage, context, trace
from opentelemetry.trace import StatusCode

from aetherflow.errors import ConfigurationError
from aetherflow.resources.batching import (
    Batcher,
    BatcherClosedError,
    BatchInterruptedError,
    BatchItemError,
    BatchPolicy,
    BatchResultError,
)
from aetherflow.resources.context import BaseFlowContext
from aetherflow.resources.gathering import Batch, Given
from aetherflow.telemetry.conventions import (
    BATCH_SIZE,
    BATCH_SIZE_METRIC,
    BATCH_WAIT_METRIC,
    CODE_FUNCTION_NAME,
    NODE_DURATION,
    NODE_NAME,
    THREAD_ID,
)
from aetherflow.telemetry.observer import current_observer
from aetherflow.testing import CapturedTelemetry, FakeClock

LONG = 60.0
"""Seconds that nobody waits in a test: what is not full by then would time the test out."""


class Calls:
    """A batched function that keeps what it was called with and where."""

    def __init__(self, outcome: Callable[[list[Any]], Any] = list) -> None:
        self.items: list[list[Any]] = []
        self.threads: list[int] = []
        self.outcome = outcome

    def __call__(self, items: list[Any]) -> Any:
        self.items.append(items)
        self.threads.append(threading.get_ident())
        return self.outcome(items)

    async def awaited(self, items: list[Any]) -> Any:
        await asyncio.sleep(0)
        return self(items)


def doubled(items: list[int]) -> list[int]:
    return [item * 2 for item in items]


def until(condition: Callable[[], object]) -> None:
    """Let other threads run until ``condition`` holds."""
    while not condition():
        time.sleep(0)


async def auntil(condition: Callable[[], object]) -> None:
    """Let other tasks and threads run until ``condition`` holds."""
    while not condition():
        await asyncio.sleep(0)


def waiting(batcher: Batcher[Any, Any]) -> int:
    return batcher.statistics().waiting


# --- gathering ---------------------------------------------------------------------------------------------


def test_the_caller_that_fills_a_batch_carries_it_out():
    """Callers get their own results of one call, which the last of them makes, in the order they came."""
    calls = Calls(doubled)
    batcher = Batcher(calls, size=3, max_wait=LONG)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(batcher.run, 1)
        until(lambda: waiting(batcher) == 1)
        second = threads.submit(batcher.run, 2)
        until(lambda: waiting(batcher) == 2)
        assert batcher.run(3) == 6
        assert [first.result(), second.result()] == [2, 4]
    assert calls.items == [[1, 2, 3]]
    assert calls.threads == [threading.get_ident()]
    statistics = batcher.statistics()
    assert (statistics.batches, statistics.full, statistics.ended, statistics.failed) == (1, 1, 3, 0)


def test_a_caller_carries_out_what_is_not_full_in_time():
    """A batch that does not fill begins after the wait, on the thread of the caller that came first."""
    calls = Calls(doubled)
    batcher = Batcher(calls, size=3, max_wait=0.001)
    assert batcher.run(1) == 2
    assert calls.threads == [threading.get_ident()]
    assert batcher.statistics().full == 0


def test_a_caller_that_comes_late_does_not_wait():
    """Where a batch should have begun and nobody got to, the next caller carries it out with its own item."""
    clock = FakeClock()
    batcher = Batcher(doubled, size=3, max_wait=LONG, clock=clock.monotonic)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(batcher.run, 1)
        until(lambda: waiting(batcher) == 1)
        clock.advance(LONG)
        assert batcher.run(2) == 4
        assert first.result() == 2


@pytest.mark.parametrize("is_async", [False, True], ids=["function", "coroutine function"])
async def test_tasks_share_a_batch(is_async):
    """Tasks get their own results of one call, on their loop where it is awaited, else on another thread."""
    calls = Calls(doubled)
    batcher = Batcher(calls.awaited if is_async else calls, size=3, max_wait=LONG)
    assert await asyncio.gather(*[batcher.arun(item) for item in (1, 2, 3)]) == [2, 4, 6]
    assert calls.items == [[1, 2, 3]]
    assert (calls.threads == [threading.get_ident()]) is is_async


@pytest.mark.parametrize("is_async", [False, True], ids=["function", "coroutine function"])
async def test_a_task_does_not_wait_longer_than_the_wait(is_async):
    """A batch of tasks alone that does not fill begins after the wait."""
    calls = Calls(doubled)
    batcher = Batcher(calls.awaited if is_async else calls, size=3, max_wait=0.001)
    assert await asyncio.gather(batcher.arun(1), batcher.arun(2)) == [2, 4]
    assert calls.items == [[1, 2]]


@pytest.mark.parametrize("is_async", [False, True], ids=["function", "coroutine function"])
@pytest.mark.parametrize("thread_is_first", [False, True], ids=["task first", "thread first"])
@pytest.mark.parametrize("size", [2, 3], ids=["full", "not full"])
async def test_threads_and_tasks_share_a_batch(is_async, thread_is_first, size):
    """A thread and a task get their results of one call, whoever comes first, whether it is full or not."""
    calls = Calls(doubled)
    batcher = Batcher(calls.awaited if is_async else calls, size=size, max_wait=LONG if size == 2 else 0.3)
    first, second = (asyncio.to_thread(batcher.run, 1), batcher.arun(2))
    if not thread_is_first:
        first, second = second, first
    one = asyncio.ensure_future(first)
    await auntil(lambda: waiting(batcher) == 1)
    other = asyncio.ensure_future(second)
    assert sorted(await asyncio.gather(one, other)) == [2, 4]
    assert [sorted(items) for items in calls.items] == [[1, 2]]


async def test_a_full_batch_of_threads_and_tasks_needs_no_further_thread():
    """Where a task fills a batch, a thread that waits for it carries it out: all others may be waiting for more."""
    calls = Calls(doubled)
    batcher = Batcher(calls, size=2, max_wait=LONG, on_thread=lambda work: pytest.fail("asked for a thread"))
    thread = asyncio.ensure_future(asyncio.to_thread(batcher.run, 1))
    await auntil(lambda: waiting(batcher) == 1)
    assert await batcher.arun(2) == 4
    assert await thread == 2


async def test_where_there_are_no_more_threads_the_loop_does_the_work():
    """When the interpreter exits no thread can be had: then the batch is carried out where it is."""

    def refuse(work: Callable[[], object]) -> object:
        raise RuntimeError("cannot schedule new futures after shutdown")

    calls = Calls(doubled)
    assert await Batcher(calls, size=1, on_thread=refuse).arun(1) == 2
    assert calls.threads == [threading.get_ident()]


def test_threads_alone_can_use_a_coroutine_function():
    """Where there is no event loop to await the function on, one is made for the batch."""
    batcher = Batcher(Calls(doubled).awaited, size=1)
    assert batcher.run(1) == 2


async def test_a_thread_does_not_block_the_loop_that_it_would_wait_for():
    """A sync call of a coroutine function on an event loop is refused, with what to do instead."""
    batcher = Batcher(Calls().awaited, name="f")
    with pytest.raises(ConfigurationError, match=r"'f': run\(\) would block .* allowed: await arun\(\)"):
        batcher.run(1)


def test_other_arguments_must_be_the_same_objects():
    """Calls share a batch only where what else they give is the very same; the function gets it as it was given."""
    seen = []

    def f(items: list[int], *others: object, **named: object) -> list[int]:
        seen.append((sorted(items), others, named))
        return items

    batcher = Batcher(f, size=2, max_wait=LONG)
    one, other = [1], [1]
    with ThreadPoolExecutor(4) as threads:
        futures = [
            threads.submit(batcher.run, 1, one, by=other),
            threads.submit(batcher.run, 2, other, by=other),
            threads.submit(batcher.run, 3, one, by=other),
            threads.submit(batcher.run, 4, other, by=other),
        ]
        assert [future.result() for future in futures] == [1, 2, 3, 4]
    assert sorted(items for items, _, _ in seen) == [[1, 3], [2, 4]]
    assert all(
        others[0] is (one if items == [1, 3] else other) and named["by"] is other for items, others, named in seen
    )


def test_the_order_of_arguments_by_name_does_not_matter():
    """Calls that give the same objects by name share a batch, in whatever order they name them."""
    calls = []

    def f(items: list[int], **named: object) -> list[int]:
        calls.append(items)
        return items

    given: list[tuple[Given, None]] = [
        (Given((), 1, (), {"left": calls, "right": None}), None),
        (Given((), 2, (), {"right": None, "left": calls}), None),
    ]
    Batcher(f, size=2, max_wait=LONG).group(waits=False).give(given, is_last=True)
    assert calls == [[1, 2]]


def test_limits_come_from_the_settings(monkeypatch):
    """Without arguments the limits are those of the environment, read when the batcher is made."""
    monkeypatch.setenv("AETHER_BATCH_SIZE", "7")
    monkeypatch.setenv("AETHER_MAX_BATCH_WAIT", "0.25")
    statistics = Batcher(doubled).statistics()
    assert (statistics.name, statistics.size, statistics.max_wait) == ("doubled", 7, 0.25)


def test_a_context_provides_a_batcher():
    """A batcher is a provider's like any other service."""

    class Context(BaseFlowContext):
        lookup = providers.Singleton(Batcher, doubled, size=1)

    assert Context().lookup().run(4) == 8


def test_what_has_ended_keeps_nothing_alive():
    """Items and results are free as soon as their callers let go of them, without the garbage collector."""

    class Item:
        pass

    def same(items: list[Item]) -> list[Item]:
        return items

    batcher = Batcher(same, size=1)
    gc.disable()
    try:
        item = Item()
        alive = weakref.ref(item)
        batcher.run(item)
        asyncio.run(batcher.arun(item))
        del item
        assert alive() is None
    finally:
        gc.enable()


# --- what goes wrong ---------------------------------------------------------------------------------------


def gathered(batcher: Batcher[Any, Any], items: list[Any]) -> list[Any]:
    """Give items from a task each; return results and errors."""

    async def give() -> list[Any]:
        return await asyncio.gather(*[batcher.arun(item) for item in items], return_exceptions=True)

    return asyncio.run(give())


@pytest.mark.parametrize("error", [BatchItemError("bad"), ValueError("bad")], ids=repr)
def test_an_exception_in_the_place_of_a_result_is_that_items_alone(error):
    """What the function returns for one item is raised to its caller, and the others get their results."""
    batcher = Batcher(lambda items: [error if item == 2 else item for item in items], size=3, max_wait=LONG)
    assert gathered(batcher, [1, 2, 3]) == [1, error, 3]
    assert (batcher.statistics().failed, batcher.statistics().retried) == (1, 0)


@pytest.mark.parametrize("is_async", [False, True], ids=["function", "coroutine function"])
def test_when_the_function_raises_each_item_is_tried_alone(is_async):
    """Only the items fail that are at fault, each with its own error; every item is given once more."""
    calls = Calls(lambda items: [10 // item for item in items])
    batcher = Batcher(calls.awaited if is_async else calls, size=3, max_wait=LONG)
    first, error, last = gathered(batcher, [1, 0, 5])
    assert (first, last) == (10, 2)
    assert isinstance(error, ZeroDivisionError)
    assert calls.items == [[1, 0, 5], [1], [0], [5]]
    assert (batcher.statistics().failed, batcher.statistics().retried) == (1, 1)


def test_without_retries_all_items_get_the_error():
    """Where a second call would do harm, the error of the first goes to every caller."""
    calls = Calls(lambda items: [10 // item for item in items])
    batcher = Batcher(calls, size=3, max_wait=LONG, retry_singly=False)
    errors = gathered(batcher, [1, 0, 5])
    assert isinstance(errors[0], ZeroDivisionError)
    assert errors == [errors[0]] * 3
    assert len(calls.items) == 1


def test_the_traceback_of_an_error_of_many_does_not_grow():
    """An error that every caller of a batch raises leads each of them to the function, and to no other caller."""
    batcher = Batcher(lambda items: [10 // item for item in items], size=3, max_wait=LONG, retry_singly=False)
    entries = batcher.group(waits=False).give([(Given((), item, (), {}), None) for item in (1, 0, 5)], is_last=True)
    lengths = []
    for entry in entries:
        with pytest.raises(ZeroDivisionError) as caught:
            entry.outcome()
        lengths.append(len(caught.traceback))
        assert caught.traceback[-1].path == Path(__file__)
    assert len(set(lengths)) == 1


def test_a_single_item_is_not_tried_again():
    """A batch of one has nothing to be told apart."""
    calls = Calls(lambda items: [10 // item for item in items])
    with pytest.raises(ZeroDivisionError):
        Batcher(calls, size=1).run(0)
    assert calls.items == [[0]]


@pytest.mark.parametrize(
    ("results", "found"),
    [
        ([1], "1 results"),
        ([1, 2, 3], "3 results"),
        (None, "a NoneType"),
        ("ab", "a str"),
        ({1: 1, 2: 2}, "a dict"),
        ({1, 2}, "a set"),
        ((n for n in (1, 2)), "a generator"),
        (2, "a int"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_result_that_does_not_fit_is_one_error_for_all(results, found):
    """Anything but one result for each item fails the whole batch, naming what came and what is allowed."""
    calls = Calls(lambda items: results)
    batcher = Batcher(calls, size=2, max_wait=LONG, name="f")
    first, second = gathered(batcher, [1, 2])
    assert first is second
    assert isinstance(first, BatchResultError)
    assert str(first) == (
        f"batcher 'f': the function was given 2 items and returned {found}; "
        f"allowed: a list of as many results, in the order of the items, with an exception where one failed"
    )
    assert len(calls.items) == 1


@pytest.mark.parametrize("kind", [tuple, lambda items: array.array("q", items)], ids=["tuple", "array"])
def test_a_list_may_be_of_any_kind(kind):
    """What has a length and gives one result after the other is a list."""
    assert gathered(Batcher(kind, size=2, max_wait=LONG, name="f"), [1, 2]) == [1, 2]


def test_what_an_interruption_leaves_behind_is_an_error():
    """Where what carries a batch out is interrupted, that is raised there, and the others are told."""

    def interrupted(items: list[int]) -> list[int]:
        raise KeyboardInterrupt

    batcher = Batcher(interrupted, size=2, max_wait=LONG, name="f")
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(batcher.run, 1)
        until(lambda: waiting(batcher) == 1)
        with pytest.raises(KeyboardInterrupt):
            batcher.run(2)
        error = first.exception()
    assert isinstance(error, BatchInterruptedError)
    assert str(error) == "batcher 'f': the batch was interrupted by KeyboardInterrupt"
    assert batcher.statistics().failed == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, r"Batcher\(size=0\): allowed is a whole number from 1, or None"),
        ({"size": True}, "size=True"),
        ({"max_wait": 0}, r"Batcher\(max_wait=0\): allowed is a number of seconds above 0, or None"),
        ({"max_wait": float("inf")}, "max_wait=inf"),
        ({"max_wait": "1"}, "max_wait='1'"),
        ({"func": None}, r"Batcher\(func=None\): allowed is a function of a list of items"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    """An argument that makes no sense is refused by name, with what is allowed."""
    with pytest.raises(ConfigurationError, match=message):
        Batcher(**{"func": doubled, **arguments})


def test_a_bad_policy_is_refused():
    """A policy with a value that is not allowed is refused where it is written."""
    with pytest.raises(ConfigurationError, match=r"BatchPolicy\(size=-1\)"):
        BatchPolicy(size=-1)


# --- who stops waiting -------------------------------------------------------------------------------------


async def test_the_item_of_a_cancelled_task_is_dropped():
    """A task cancelled before its batch begins is left out of it; a batch that nobody waits for never begins."""
    calls = Calls(doubled)
    batcher = Batcher(calls, size=3, max_wait=LONG)
    gone = asyncio.ensure_future(batcher.arun(0))
    await auntil(lambda: waiting(batcher) == 1)
    gone.cancel()
    await asyncio.wait([gone])
    assert waiting(batcher) == 0
    first = asyncio.ensure_future(batcher.arun(1))
    gone = asyncio.ensure_future(batcher.arun(0))
    await auntil(lambda: waiting(batcher) == 2)
    gone.cancel()
    assert await asyncio.gather(first, batcher.arun(2), batcher.arun(3)) == [2, 4, 6]
    assert calls.items == [[1, 2, 3]]
    assert batcher.statistics().withdrawn == 2


def test_a_loop_that_comes_while_a_batch_lands_disturbs_nobody():
    """Another event loop may begin to wait at the very moment at which a batch ends."""
    batcher = Batcher(doubled, size=2, max_wait=LONG)
    batch = Batch(None, Given((), 1, (), {}), 0.0)

    class Loop(asyncio.SelectorEventLoop):
        """Has another loop come whenever it is looked up: any other code may run there, on another thread."""

        def __hash__(self) -> int:
            if self in list(batch.timers) and other not in list(batch.timers):
                batch.timers[other] = timer
            return id(self)

    loop = Loop()
    other = asyncio.SelectorEventLoop()
    timer = other.call_later(LONG, print)
    try:
        batch.timers[loop] = loop.call_later(LONG, print)
        batcher._land(batch)
        assert other in batch.timers
    finally:
        loop.close()
        other.close()


async def test_a_task_cancelled_too_late_disturbs_nobody():
    """Once its batch has begun an item is done, whoever waits, though its caller filled the batch."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(items: list[int]) -> list[int]:
        begun.set()
        await go.wait()
        return items

    batcher = Batcher(slow, size=2, max_wait=LONG)
    first, filler = asyncio.ensure_future(batcher.arun(1)), asyncio.ensure_future(batcher.arun(2))
    await begun.wait()
    filler.cancel()
    await asyncio.wait([filler])
    go.set()
    assert await first == 1
    assert filler.cancelled()
    assert batcher.statistics().ended == 2


def test_a_thread_that_is_interrupted_hands_the_time_on():
    """Where the thread that keeps the time is interrupted, its item is dropped and another thread keeps it."""
    calls = Calls(doubled)
    batcher = Batcher(calls, size=3, max_wait=1)
    others = []

    def join_and_interrupt() -> None:
        until(lambda: waiting(batcher) == 1)
        others.append(threads.submit(batcher.run, 2))
        until(lambda: waiting(batcher) == 2)
        signal.raise_signal(signal.SIGINT)

    with ThreadPoolExecutor(2) as threads:
        threads.submit(join_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            batcher.run(1)
        assert others[0].result() == 4
    assert calls.items == [[2]]
    assert batcher.statistics().withdrawn == 1


def test_a_loop_that_ends_leaves_no_one_waiting():
    """A task whose loop ends is left out, and a thread that waits in the same batch is not."""
    calls = Calls(doubled)
    batcher = Batcher(calls, size=3, max_wait=1)

    async def abandon() -> None:
        task = asyncio.ensure_future(batcher.arun(0))
        await auntil(lambda: waiting(batcher) == 2)
        assert not task.done()

    with ThreadPoolExecutor(1) as threads:
        thread = threads.submit(batcher.run, 1)
        until(lambda: waiting(batcher) == 1)
        asyncio.run(abandon())
        assert thread.result() == 2
    assert calls.items == [[1]]


# --- the end -----------------------------------------------------------------------------------------------


def test_closing_carries_out_what_waits():
    """A closed batcher has done what it was given, takes no more, and can be closed again."""
    calls = Calls(doubled)
    with Batcher(calls, size=3, max_wait=LONG, name="f") as batcher, ThreadPoolExecutor(1) as threads:
        first = threads.submit(batcher.run, 1)
        until(lambda: waiting(batcher) == 1)
        batcher.close()
        assert first.result() == 2
    assert calls.threads == [threading.get_ident()]
    with pytest.raises(BatcherClosedError, match="batcher 'f' is closed: it takes no more items"):
        batcher.run(2)
    with pytest.raises(BatcherClosedError):
        asyncio.run(batcher.arun(2))
    batcher.close()


@pytest.mark.parametrize("is_async", [False, True], ids=["function", "coroutine function"])
async def test_flushing_on_a_loop(is_async):
    """`flush` begins every open batch, on an event loop without blocking it, and leaves the batcher open."""
    calls = Calls(doubled)
    batcher = Batcher(calls.awaited if is_async else calls, size=3, max_wait=LONG)
    first = asyncio.ensure_future(batcher.arun(1))
    await auntil(lambda: waiting(batcher) == 1)
    batcher.flush()
    assert await first == 2
    second = asyncio.ensure_future(batcher.arun(2))
    await auntil(lambda: waiting(batcher) == 1)
    batcher.flush()
    assert await second == 4


EXITING = """
import sys, threading, time
from aetherflow.resources.batching import Batcher

def shown(items):
    time.sleep(0.05)
    sys.stdout.write(f"{items}\\n")
    return items

batcher = Batcher(shown, size=2, max_wait=60)
threads = [threading.Thread(target=batcher.run, args=(number,), daemon=True) for number in range(3)]
for number, thread in enumerate(threads):
    thread.start()
    while sum((batcher.statistics().waiting, batcher.statistics().running, batcher.statistics().ended)) <= number:
        time.sleep(0)
"""


def test_leaving_the_interpreter_loses_nothing():
    """What waits is carried out at exit, once, and what daemon threads are at is waited for."""
    done = subprocess.run([sys.executable, "-c", EXITING], check=False, timeout=50, capture_output=True, text=True)
    assert done.stderr == ""
    assert sorted(done.stdout.splitlines()) == ["[0, 1]", "[2]"]


def test_what_is_flushed_at_exit_is_flushed_once():
    """Leaving flushes once what is alive then, however many batchers came and went before."""
    program = """
import gc
from aetherflow.resources.leaving import flush_at_exit

class Flushed:
    def flush(self):
        print("flushed")

    def is_busy(self):
        return False

for _ in range(3):
    flush_at_exit(last := Flushed())
    del last
    gc.collect()
flush_at_exit(last := Flushed())
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=50, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("flushed\n", "")


FORKED = """
import os, threading, time
from aetherflow.resources.batching import Batcher

batcher = Batcher(lambda items: [os.getpid() for _ in items], size=2, max_wait=60)
results = []
thread = threading.Thread(target=lambda: results.append(batcher.run(1)))
thread.start()
while not batcher.statistics().waiting:
    time.sleep(0)
held, go = threading.Event(), threading.Event()

def hold():
    with batcher._gathering._lock:
        held.set()
        go.wait()

holder = threading.Thread(target=hold)
holder.start()
held.wait()
if (child := os.fork()) == 0:
    other = threading.Thread(target=batcher.run, args=(1,))
    other.start()
    while not batcher.statistics().waiting:
        time.sleep(0)
    assert batcher.run(2) == os.getpid()
    other.join()
    assert batcher.statistics().ended == 2
    os._exit(0)
_, status = os.waitpid(child, 0)
go.set()
assert batcher.run(2) == os.getpid()
thread.join()
assert results == [os.getpid()]
raise SystemExit(os.waitstatus_to_exitcode(status))
"""


def test_a_forked_child_has_batches_of_its_own():
    """A child neither waits for what the fork left behind nor does its parent's items again."""
    done = subprocess.run([sys.executable, "-c", FORKED], check=False, timeout=50, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- several at once ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True], ids=["on the loop", "on this thread"])
def test_several_items_at_once(is_async):
    """Many items given at once become full batches and a rest that does not wait, without a thread or task for each."""
    calls = Calls(lambda items: [10 // item for item in items])
    batcher = Batcher(calls, size=3, max_wait=LONG)
    given = [(Given((), item, (), {}), None) for item in (1, 2, 5, 10, 0)]
    entries = (
        asyncio.run(batcher.group(waits=False).agive(given, is_last=True))
        if is_async
        else batcher.group(waits=False).give(given, is_last=True)
    )
    assert [entry.result for entry in entries[:4]] == [10, 5, 2, 1]
    assert isinstance(entries[4].error, ZeroDivisionError)
    assert calls.items == [[1, 2, 5], [10, 0], [10], [0]]
    assert [entry.placement.index for entry in entries] == [0, 1, 2, 0, 1]


def test_several_items_at_once_join_what_waits():
    """They fill the batch that is open, and do not keep others waiting for its time while they are busy elsewhere."""
    calls = Calls()
    batcher = Batcher(calls, size=3, max_wait=LONG)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(batcher.run, 0)
        until(lambda: waiting(batcher) == 1)
        batcher.group(waits=False).give([(Given((), item, (), {}), None) for item in range(1, 4)], is_last=True)
        assert first.result() == 0
    assert calls.items == [[0, 1, 2], [3]]


# --- what the trace says -----------------------------------------------------------------------------------


def test_a_batch_has_a_span_of_its_own():
    """It has no parent, links to the span of each item, and is current while the function runs."""
    inner = []

    def f(items: list[int]) -> list[int]:
        inner.append((trace.get_current_span(), baggage.get_all()))
        return items

    batcher = Batcher(f, size=2, max_wait=LONG, name="f")
    with CapturedTelemetry() as captured:
        tracer = current_observer().tracer
        assert tracer is not None

        async def give(item: int) -> int:
            with tracer.start_as_current_span(f"caller {item}"):
                token = context.attach(baggage.set_baggage("tenant", str(item)))
                try:
                    return await batcher.arun(item)
                finally:
                    context.detach(token)

        async def main() -> None:
            await asyncio.gather(give(1), give(2))

        asyncio.run(main())
        spans = {span.name: span for span in captured.spans}
    batch = spans["f batch"]
    assert batch.parent is None
    assert [link.context.span_id for link in batch.links] == [spans[f"caller {n}"].context.span_id for n in (1, 2)]
    assert len({span.context.trace_id for span in spans.values()}) == 3
    assert set(batch.attributes) >= {NODE_NAME, BATCH_SIZE, CODE_FUNCTION_NAME, THREAD_ID}
    assert batch.attributes[BATCH_SIZE] == 2
    ((current, what_callers_carry),) = inner
    assert current.get_span_context().span_id == batch.context.span_id
    assert what_callers_carry == {}


def test_a_batch_whose_function_raises_is_an_error():
    """Without retries the span of the batch records the exception; one that was retried is none, and says so."""
    with CapturedTelemetry() as captured:
        for retry_singly in (False, True):
            batcher = Batcher(lambda items: [1 // item for item in items], size=2, retry_singly=retry_singly, name="f")
            gathered(batcher, [0, 1])
    failed, retried = captured.spans
    assert failed.status.status_code is StatusCode.ERROR
    assert [event.name for event in failed.events] == ["exception"]
    assert retried.status.status_code is StatusCode.UNSET
    assert [event.name for event in retried.events] == ["aetherflow.retry"]


def test_where_an_item_was_is_told_in_its_callers_context():
    """`on_item` is called once for each item, with the size of its batch, its place and how long it waited."""
    clock = FakeClock()
    told = []
    batcher = Batcher(doubled, size=2, max_wait=LONG, clock=clock.monotonic, on_item=told.append)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(batcher.run, 1)
        until(lambda: waiting(batcher) == 1)
        clock.advance(3)
        batcher.run(2)
        first.result()
    assert sorted((each.size, each.index, each.wait) for each in told) == [(2, 0, 3.0), (2, 1, 0.0)]


def test_sizes_and_waits_are_metrics():
    """Each batch's size and each item's wait is in a histogram of the function's name."""
    clock = FakeClock()
    with CapturedTelemetry() as captured:
        batcher = Batcher(doubled, size=2, max_wait=LONG, name="f", clock=clock.monotonic)
        for _ in range(3):
            with ThreadPoolExecutor(1) as threads:
                first = threads.submit(batcher.run, 1)
                until(lambda: waiting(batcher) == 1)
                clock.advance(2)
                batcher.run(2)
                first.result()
        (sizes,) = captured.points(BATCH_SIZE_METRIC.name, {NODE_NAME: "f"})
        assert (sizes.count, sizes.sum) == (3, 6)
        (waits,) = captured.points(BATCH_WAIT_METRIC.name, {NODE_NAME: "f"})
        assert (waits.count, waits.sum, waits.min, waits.max) == (6, 6.0, 0.0, 2.0)
        assert captured.points(NODE_DURATION.name) == []  # a batch is no execution of a node
