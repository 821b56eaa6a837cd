"""The lock that finalizers cannot hang on, and waiters that keep what they are given."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from aetherflow.resources.waiting import DeferringLock, TaskWaiter, ThreadWaiter, Waiter


def test_an_action_runs_at_once_where_nobody_holds_the_lock() -> None:
    """It runs before `later` returns, and its follow-up after it, free to take the lock."""
    lock, done = DeferringLock(), []

    def follow_up() -> None:
        with lock:
            done.append("follow-up")

    def action() -> Callable[[], object]:
        done.append("action")
        return follow_up

    lock.later(action)
    assert done == ["action", "follow-up"]


def test_an_action_left_by_the_holder_itself_runs_when_it_lets_go() -> None:
    """A finalizer that runs in the thread that holds the lock does not hang; order is kept."""
    lock, done = DeferringLock(), []
    with lock:
        lock.later(lambda: done.append(1))
        lock.later(lambda: done.append(2))
        assert done == []
    assert done == [1, 2]


def test_an_action_may_leave_another() -> None:
    """What is left while actions run is done too."""
    lock, done = DeferringLock(), []
    lock.later(lambda: lock.later(lambda: done.append("second")))
    assert done == ["second"]


def test_what_an_action_lets_go_of_dies_without_the_lock() -> None:
    """An object whose last reference an action held may take the lock in its own finalizer."""
    lock, done = DeferringLock(), []

    class Last:
        def __del__(self) -> None:
            done.append(lock._lock.locked())

    def action(_: object) -> None:
        pass

    with lock:
        lock.later(partial(action, Last()))
        lock.later(partial(action, Last()))
    assert done == [False, False]


def test_a_failing_action_lets_the_lock_go() -> None:
    """The lock is free after an action raised."""
    lock = DeferringLock()
    with pytest.raises(ZeroDivisionError):
        lock.later(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    with lock:
        pass


def test_every_action_of_many_threads_runs_once_and_alone() -> None:
    """8 threads that hold the lock and leave actions lose none, and no two run at a time."""
    lock, inside, total = DeferringLock(), threading.Semaphore(1), 0

    def alone() -> None:
        nonlocal total
        assert inside.acquire(blocking=False)
        total += 1
        inside.release()

    def work(_: int) -> None:
        for _ in range(500):
            lock.later(alone)
            with lock:
                alone()
                lock.later(alone)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert total == 8 * 500 * 3


def test_a_thread_that_is_served_has_its_grant() -> None:
    """Serving wakes the thread, with the grant on its waiter."""
    waiter: ThreadWaiter[str] = ThreadWaiter(0.0)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(waiter.wait, None)
        assert waiter.serve("object")
        waiting.result()
    assert waiter.served
    assert waiter.grant == "object"


async def test_a_task_that_is_served_from_another_thread_has_its_grant() -> None:
    """A thread wakes a task on its loop."""
    waiter: TaskWaiter[str] = TaskWaiter(0.0)
    assert await asyncio.to_thread(waiter.serve, "object")
    await waiter.wait(None)
    assert waiter.grant == "object"


async def test_a_task_that_is_not_served_goes_on_after_its_timeout() -> None:
    """Waiting ends without an error, and nothing is granted."""
    waiter: TaskWaiter[str] = TaskWaiter(0.0)
    await waiter.wait(0)
    assert not waiter.served


def test_a_task_whose_loop_is_closed_is_given_nothing() -> None:
    """Serving says so, so that the next one is served instead."""

    async def come() -> Waiter[str]:
        return TaskWaiter(0.0)

    waiter = asyncio.run(come())
    assert not waiter.serve("object")
    assert not waiter.served
    assert waiter.grant is None
