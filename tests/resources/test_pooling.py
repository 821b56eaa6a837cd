"""Object pools: lending, waiting, discarding, closing, and every error they give."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from dependency_injector import providers

from aetherflow.errors import ConfigurationError
from aetherflow.resources.context import BaseFlowContext, init_resources_for
from aetherflow.resources.pooling import (
    ObjectPool,
    PoolClosedError,
    PoolReleaseError,
    PoolTimeoutError,
)


class Worker:
    """A costly object, as the guide writes it."""

    def __init__(self) -> None:
        self.operations = 0
        self.scratch: list[object] = []
        self.closed = 0

    def reset(self) -> None:
        self.scratch.clear()

    def close(self) -> None:
        self.closed += 1


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def until(condition: Callable[[], object]) -> None:
    """Let other threads run until ``condition`` holds."""
    while not condition():
        time.sleep(0)


def test_an_object_is_made_once_and_lent_again() -> None:
    """The object released last is lent next, reset by its own `reset()`."""
    pool = ObjectPool(Worker)
    worker = pool.acquire()
    worker.operations += 1
    worker.scratch.append("data")
    pool.release(worker)
    assert pool.acquire() is worker
    assert worker.scratch == []
    assert worker.operations == 1


def test_the_object_released_last_is_lent_first() -> None:
    """It is the one most likely still warm, and the others can grow old."""
    pool = ObjectPool(Worker)
    first, second = pool.acquire(), pool.acquire()
    pool.release(first)
    pool.release(second)
    assert pool.acquire() is second
    assert pool.acquire() is first


def test_without_block_any_number_is_lent_and_max_size_kept() -> None:
    """The surplus is closed when it comes back."""
    pool = ObjectPool(Worker, max_size=2)
    workers = [pool.acquire() for _ in range(5)]
    for worker in workers:
        pool.release(worker)
    assert [worker.closed for worker in workers] == [0, 0, 1, 1, 1]
    statistics = pool.statistics()
    assert (statistics.idle, statistics.used, statistics.created) == (2, 0, 5)
    assert statistics.discarded == {"full": 3}


@pytest.mark.parametrize("factory", [list, dict, bytearray, object], ids=lambda kind: kind.__name__)
def test_objects_need_neither_hash_nor_weak_references(factory: Callable[[], object]) -> None:
    """Equal lists are told apart, by identity."""
    pool = ObjectPool(factory)
    first, second = pool.acquire(), pool.acquire()
    pool.release(first)
    with pytest.raises(PoolReleaseError, match="was released already"):
        pool.release(first)
    assert pool.acquire() is first
    pool.release(second)


def test_what_is_not_out_cannot_be_released() -> None:
    """A foreign object and one discarded since are an error that names pool and object; nothing changes."""
    pool = ObjectPool(Worker, max_size=1, name="workers")
    first, second = pool.acquire(), pool.acquire()
    pool.release(first)
    pool.release(second)
    before = pool.statistics()
    for stranger in (Worker(), second):
        with pytest.raises(
            PoolReleaseError, match=r"^pool 'workers': <.*Worker object at .*> is not of this pool, or no"
        ):
            pool.release(stranger)
    assert pool.statistics() == before


def test_a_factory_that_gives_the_same_object_twice_is_an_error() -> None:
    """Two holders of one object would be told so here, before they meet; the room is not lost."""
    pool = ObjectPool(lambda: shared, max_size=2, block=True, timeout=0, name="shared")
    shared = Worker()
    pool.acquire()
    for _ in range(3):
        with pytest.raises(
            ConfigurationError, match=r"factory_func of pool 'shared' returned .*; allowed: a different"
        ):
            pool.acquire()
    assert pool.statistics().created == 1


def test_a_lease_gives_back_whatever_happens() -> None:
    """The object comes back after the block, after an exception too, and the lease can be used again."""
    pool = ObjectPool(Worker)
    lease = pool.lease()
    with lease as first:
        assert pool.statistics().used == 1

    def fail() -> None:
        with lease as second:
            assert second is first
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert pool.statistics().idle == 1


def test_a_lease_is_entered_one_at_a_time() -> None:
    """Entering an open lease again is an error and takes nothing."""
    pool = ObjectPool(Worker, name="workers")
    lease = pool.lease()
    with lease, pytest.raises(ConfigurationError, match="a lease of pool 'workers' is entered already"):
        lease.__enter__()
    assert pool.statistics().created == 1


def test_an_object_released_within_its_lease_is_an_error_even_if_lent_again() -> None:
    """The lease's end does not take the object from its next holder."""
    pool = ObjectPool(Worker)
    lease = pool.lease()
    worker = lease.__enter__()
    pool.release(worker)
    assert pool.acquire() is worker
    with pytest.raises(PoolReleaseError, match="was released before its lease ended"):
        lease.__exit__()
    assert pool.statistics().used == 1


def test_a_lost_lease_warns_with_its_place_and_frees_its_room() -> None:
    """A lease that is garbage collected while open says where it was made; a blocked caller gets the room."""
    pool = ObjectPool(Worker, max_size=1, block=True, name="workers")
    lease = pool.lease()
    worker = lease.__enter__()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(pool.acquire)
        until(lambda: pool.statistics().waiting)
        with pytest.warns(
            ResourceWarning, match=r"a lease of pool 'workers', made at .*test_pooling\.py:\d+, was never"
        ):
            del lease
        assert waiting.result() is not worker
    assert not worker.closed
    assert pool.statistics().discarded == {"lost": 1}


def test_an_object_whose_reset_fails_is_discarded(caplog: pytest.LogCaptureFixture) -> None:
    """Releasing does not raise, which would hide an error under way: the failure is logged, the object closed."""

    def reset(worker: Worker) -> None:
        raise OSError("connection lost")

    pool = ObjectPool(Worker, reset=reset, name="workers")
    worker = pool.acquire()
    with caplog.at_level(logging.WARNING):
        pool.release(worker)
    assert worker.closed == 1
    assert pool.statistics().discarded == {"reset": 1}
    assert "pool 'workers': reset of an object failed; it is discarded" in caplog.text
    assert "connection lost" in caplog.text


@pytest.mark.parametrize("raises", [True, False])
def test_an_object_that_is_not_valid_any_more_is_replaced(raises: bool) -> None:
    """`validate` is asked before an idle object is lent again; false and an exception count the same."""
    valid = True

    def validate(worker: Worker) -> bool:
        if raises and not valid:
            raise OSError
        return valid

    pool = ObjectPool(Worker, max_size=1, block=True, timeout=0, validate=validate)
    worker = pool.acquire()
    pool.release(worker)
    assert pool.acquire() is worker
    pool.release(worker)
    valid = False
    assert pool.acquire() is not worker
    assert worker.closed == 1
    assert pool.statistics().discarded == {"validate": 1}


def test_an_old_object_is_replaced() -> None:
    """From `max_age` on an object is not lent again, whether idle or just released."""
    clock = Clock()
    pool = ObjectPool(Worker, max_age=60, clock=clock)
    first, second = pool.acquire(), pool.acquire()
    pool.release(first)
    clock.now = 60.0
    pool.release(second)
    assert second.closed == 1
    assert pool.acquire() is not first
    assert first.closed == 1
    assert pool.statistics().discarded == {"max_age": 2}


def test_a_timeout_says_how_many_are_out_and_for_how_long() -> None:
    """The message also names where the one longest in use was acquired."""
    clock = Clock()
    pool = ObjectPool(Worker, max_size=2, block=True, timeout=0, clock=clock, name="workers")
    pool.acquire()
    clock.now = 10.0
    pool.acquire()
    clock.now = 12.5
    with pytest.raises(PoolTimeoutError) as failure:
        pool.acquire()
    place = (
        rf"{re.escape(__file__)}:{test_a_timeout_says_how_many_are_out_and_for_how_long.__code__.co_firstlineno + 4}"
    )
    assert re.fullmatch(
        rf"pool 'workers': nothing came free in 0 s; 2 out, the longest for 12\.5 s, acquired at {place}",
        str(failure.value),
    )
    assert (failure.value.out, failure.value.longest) == (2, 12.5)
    assert isinstance(failure.value, TimeoutError)
    assert pool.statistics().timeouts == 1
    assert pool.statistics().waiting == 0


def test_a_timeout_while_the_only_object_is_being_made_says_that_none_is_out() -> None:
    """Room may be taken by an object that is still in its factory."""
    making, made = threading.Event(), threading.Event()

    def slow() -> Worker:
        making.set()
        made.wait()
        return Worker()

    pool = ObjectPool(slow, max_size=1, block=True, timeout=0, name="slow")
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(pool.acquire)
        making.wait()
        with pytest.raises(PoolTimeoutError, match=r"^pool 'slow': nothing came free in .* s; 0 out$"):
            pool.acquire()
        made.set()
        pool.release(first.result())


def test_waiting_threads_and_tasks_are_served_in_the_order_they_came() -> None:
    """One queue for all, and nobody who comes later gets an object first."""
    pool = ObjectPool(Worker, max_size=1, block=True)
    worker = pool.acquire()
    order: list[int] = []

    def in_thread(number: int) -> None:
        with pool.lease():
            order.append(number)

    async def in_task(number: int) -> None:
        async with pool.lease():
            order.append(number)

    with ThreadPoolExecutor(10) as threads:
        running = []
        for number in range(10):
            work = (lambda n: asyncio.run(in_task(n))) if number % 2 else in_thread
            running.append(threads.submit(work, number))
            until(lambda: pool.statistics().waiting == len(running))
        pool.release(worker)
        for each in running:
            each.result()
    assert order == list(range(10))
    assert pool.statistics().created == 1
    assert pool.statistics().waits == 10


def test_room_that_comes_free_goes_to_the_first_in_the_queue() -> None:
    """Where the object is discarded, the waiter makes a new one."""
    pool = ObjectPool(Worker, max_size=1, block=True, reset=lambda worker: 1 / 0)
    worker = pool.acquire()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(pool.acquire)
        until(lambda: pool.statistics().waiting)
        pool.release(worker)
        assert waiting.result() is not worker
    assert worker.closed


def test_an_object_is_closed_before_its_room_is_taken() -> None:
    """Never are more than `max_size` alive, not even while one is being closed."""
    alive = most = 0

    class Counted(Worker):
        def __init__(self) -> None:
            nonlocal alive, most
            super().__init__()
            alive += 1
            most = max(most, alive)

        def close(self) -> None:
            nonlocal alive
            alive -= 1

    pool = ObjectPool(Counted, max_size=1, block=True, max_age=1, clock=(clock := Clock()))
    for _ in range(3):
        with pool.lease():
            clock.now += 0.6
    assert (alive, most) == (1, 1)


def test_a_failing_factory_does_not_take_room() -> None:
    """What it raised comes out, and the next caller, waiting or not, can try."""
    failures = iter([OSError("refused"), OSError("refused"), None])

    def connect() -> Worker:
        if failure := next(failures):
            raise failure
        return Worker()

    pool = ObjectPool(connect, max_size=1, block=True, timeout=0)
    for _ in range(2):
        with pytest.raises(OSError, match="refused"):
            pool.acquire()
    pool.acquire()
    assert pool.statistics().created == 1


@pytest.mark.parametrize("step", ["reset", "validate", "on_wait"])
def test_an_interrupt_in_user_code_loses_no_room(step: str) -> None:
    """`KeyboardInterrupt` goes through; the object it met is discarded."""
    armed = False

    def interrupted(_: object) -> bool:
        if armed:
            raise KeyboardInterrupt
        return True

    options: dict[str, Any] = {step: interrupted}
    pool = ObjectPool(Worker, max_size=1, block=True, timeout=0, **options)
    pool.release(pool.acquire())
    armed = True
    with pytest.raises(KeyboardInterrupt):
        pool.release(pool.acquire())
    armed = False
    pool.release(pool.acquire())
    statistics = pool.statistics()
    assert statistics.discarded == {"failed": 1}
    assert (statistics.idle, statistics.used, statistics.created) == (1, 0, 2)


def test_closing_closes_idle_objects_now_and_others_when_released() -> None:
    """After it nothing is lent; closing again does nothing."""
    with ObjectPool(Worker, name="workers") as pool:
        idle, out = pool.acquire(), pool.acquire()
        pool.release(idle)
    pool.close()
    assert (idle.closed, out.closed) == (1, 0)
    with pytest.raises(PoolClosedError, match="pool 'workers' is closed"):
        pool.acquire()
    pool.release(out)
    assert out.closed == 1
    assert pool.statistics().discarded == {"closed": 2}


def test_callers_in_the_queue_are_told_that_the_pool_was_closed() -> None:
    """Threads and tasks that wait get a `PoolClosedError` rather than waiting on."""
    pool = ObjectPool(Worker, max_size=1, block=True)
    pool.acquire()
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(pool.acquire), threads.submit(lambda: asyncio.run(pool.aacquire()))]
        until(lambda: pool.statistics().waiting == 2)
        pool.close()
        for each in waiting:
            with pytest.raises(PoolClosedError):
                each.result()


def test_one_object_that_fails_to_close_does_not_keep_the_others_open() -> None:
    """All are closed; one failure is raised as it is, several as a group."""

    class Stubborn(Worker):
        def close(self) -> None:
            super().close()
            raise OSError("busy")

    for size, kind in ((1, OSError), (2, ExceptionGroup)):
        pool = ObjectPool(Stubborn)
        workers = [pool.acquire() for _ in range(size)]
        for worker in workers:
            pool.release(worker)
        with pytest.raises(kind):
            pool.close()
        assert all(worker.closed == 1 for worker in workers)


async def test_waiting_tasks_leave_the_loop_free() -> None:
    """While one task waits, others on the loop run and release what it waits for."""
    pool = ObjectPool(Worker, max_size=1, block=True)
    async with pool.lease() as worker:
        waiting = asyncio.ensure_future(pool.aacquire())
        await asyncio.sleep(0)
        assert not waiting.done()
        assert pool.statistics().waiting == 1
    assert await waiting is worker
    pool.release(worker)


async def test_a_task_times_out_as_a_thread_does() -> None:
    """The error is the same, and the queue is left."""
    pool = ObjectPool(Worker, max_size=1, block=True, timeout=0)
    async with pool.lease():
        with pytest.raises(PoolTimeoutError, match=r"1 out, the longest for .* acquired at .*test_pooling\.py"):
            await pool.aacquire()
    assert pool.statistics().waiting == 0
    assert pool.statistics().idle == 1


@pytest.mark.parametrize("after_release", [False, True])
async def test_a_cancelled_task_loses_no_object(after_release: bool) -> None:
    """Cancelled while waiting it leaves the queue; cancelled after it was served it gives the object on."""
    pool = ObjectPool(Worker, max_size=1, block=True)
    worker = await pool.aacquire()
    first, second = asyncio.ensure_future(pool.aacquire()), asyncio.ensure_future(pool.aacquire())
    await asyncio.sleep(0)
    if after_release:
        pool.release(worker)
        first.cancel()
    else:
        first.cancel()
        await asyncio.sleep(0)
        assert pool.statistics().waiting == 1
        pool.release(worker)
    assert await second is worker
    assert first.cancelled()
    pool.release(worker)
    assert pool.statistics().idle == 1


async def test_a_cancelled_task_that_was_given_room_gives_it_on() -> None:
    """The next in the queue makes the object instead."""
    pool = ObjectPool(Worker, max_size=1, block=True, reset=lambda worker: 1 / 0)
    worker = await pool.aacquire()
    first, second = asyncio.ensure_future(pool.aacquire()), asyncio.ensure_future(pool.aacquire())
    await asyncio.sleep(0)
    pool.release(worker)
    first.cancel()
    assert await second is not worker
    assert pool.statistics().used == 1


async def test_a_task_cancelled_after_the_pool_closed_leaves_no_object_open() -> None:
    """What it was given and cannot use is closed."""
    pool = ObjectPool(Worker, max_size=1, block=True)
    worker = await pool.aacquire()
    waiting = asyncio.ensure_future(pool.aacquire())
    await asyncio.sleep(0)
    pool.release(worker)
    pool.close()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert worker.closed == 1
    assert pool.statistics().discarded == {"closed": 1}


async def test_a_waiting_coroutine_that_is_thrown_away_leaves_the_queue() -> None:
    """Closing a coroutine, as the garbage collector does, counts as cancelling it."""
    pool = ObjectPool(Worker, max_size=1, block=True)
    async with pool.lease():
        waiting = pool.aacquire()
        waiting.send(None)
        assert pool.statistics().waiting == 1
        waiting.close()
        assert pool.statistics().waiting == 0


def test_waits_are_counted_and_reported() -> None:
    """The hook gets every caller's wait; statistics sum those that queued."""
    clock = Clock()
    waits: list[float] = []
    pool = ObjectPool(Worker, max_size=1, block=True, clock=clock, on_wait=waits.append)
    worker = pool.acquire()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(pool.acquire)
        until(lambda: pool.statistics().waiting)
        clock.now = 2.5
        pool.release(worker)
        waiting.result()
    assert waits == [0.0, 2.5]
    statistics = pool.statistics()
    assert (statistics.waits, statistics.wait_time, statistics.acquired) == (1, 2.5, 2)


def test_statistics_are_a_frozen_snapshot() -> None:
    """A snapshot can neither be changed nor changes by itself."""
    pool = ObjectPool(Worker, name="workers")
    before = pool.statistics()
    pool.acquire()
    assert before.created == 0
    with pytest.raises(AttributeError):
        before.idle = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        before.discarded["full"] = 1  # type: ignore[index]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factory_func": 5}, "factory_func=5 is not allowed; allowed: a callable without arguments"),
        ({"max_size": 0}, "max_size=0 is not allowed; allowed: a whole number, 1 or more"),
        ({"max_size": "many"}, "max_size='many' is not allowed; allowed: a whole number, 1 or more"),
        ({"max_size": 1.5}, "max_size=1.5 is not allowed; allowed: a whole number, 1 or more"),
        ({"max_size": True}, "max_size=True is not allowed; allowed: a whole number, 1 or more"),
        ({"block": True, "timeout": -1}, "timeout=-1 is not allowed; allowed: seconds, 0 or more, or None"),
        ({"block": True, "timeout": "1"}, "timeout='1' is not allowed; allowed: seconds, 0 or more, or None"),
        ({"block": True, "timeout": float("inf")}, "timeout=inf is not allowed; allowed: seconds, 0 or more, or None"),
        ({"timeout": 1}, "timeout=1 is not allowed; allowed: None where block=False, since nobody waits then"),
        ({"max_age": 0}, "max_age=0 is not allowed; allowed: seconds above 0, or None"),
        ({"max_age": "old"}, "max_age='old' is not allowed; allowed: seconds above 0, or None"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_arguments_are_named_with_what_is_allowed(options: dict[str, Any], message: str) -> None:
    """One message says which argument, its value and what it may be."""
    arguments: dict[str, Any] = {"factory_func": Worker, **options}
    with pytest.raises(ConfigurationError, match=f"^{re.escape('ObjectPool ' + message)}$"):
        ObjectPool(**arguments)


def test_a_pool_is_named_by_its_factory() -> None:
    """Where no name is given, errors and statistics show the factory's."""
    assert ObjectPool(Worker).name == ObjectPool(Worker).statistics().name == "Worker"
    assert ObjectPool(Worker, name="workers").name == "workers"


def test_a_context_can_hold_a_pool() -> None:
    """As the guide's singleton it is one for all threads; as a resource it is closed with its context."""

    class Context(BaseFlowContext):
        shared = providers.Singleton(ObjectPool, factory_func=Worker, max_size=8)
        owned = providers.Resource(ObjectPool, factory_func=Worker)

    with Context() as ctx:
        init_resources_for(ctx, ["owned"])
        with ThreadPoolExecutor(1) as threads:
            assert threads.submit(ctx.shared).result() is ctx.shared()
        owned: ObjectPool[Worker] = ctx.owned()
        with owned.lease() as worker:
            pass
    assert worker.closed == 1
