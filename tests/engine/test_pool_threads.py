"""The pool of threads: that each call finds a thread, and that nothing withdrawn stays behind."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue

from aetherflow.engine.pool import ThreadPool, Ticket, side_by_side


def happens(event: threading.Event) -> None:
    assert event.wait(30), "what should have happened did not"


def full(pool: ThreadPool) -> threading.Event:
    """Keep all threads of a pool busy until the event is set."""
    released = threading.Event()
    inside = threading.Barrier(pool.size + 1)

    def work() -> None:
        inside.wait(30)
        happens(released)

    for _ in range(pool.size):
        pool.submit(work)
    inside.wait(30)
    return released


class LateQueue(SimpleQueue[Ticket]):
    """A queue that lets something happen right after a thread has found it empty, once."""

    def __init__(self, then: Callable[[], None]) -> None:
        self._then: Callable[[], None] | None = then
        self.taken = threading.Event()

    def get_nowait(self) -> Ticket:
        if threading.current_thread().name.endswith("-2"):
            self.taken.wait(1)  # where the first thread is to take what has just come
        try:
            return super().get_nowait()
        except Empty:
            then, self._then = self._then, None
            if then is not None:
                then()
            raise


def test_a_thread_that_is_just_going_idle_is_not_counted_on_twice():
    """Work submitted between a thread's last look into the queue and its rest leaves the count of idle threads right.

    Were it one too high, later work would wait for a thread that is not there, though more could be started.
    """
    pool = ThreadPool(8, "test")
    released = threading.Event()
    inside = threading.Semaphore(0)

    def work() -> None:
        queue.taken.set()
        inside.release()
        happens(released)

    def submit_elsewhere() -> None:
        other = threading.Thread(target=pool.submit, args=(work,))
        other.start()
        other.join(0.2)  # it may have to wait until the idle thread has been counted: that is the point

    queue = LateQueue(submit_elsewhere)
    pool._queue = queue
    pool.submit(lambda: None)
    assert inside.acquire(timeout=30)
    for _ in range(3):
        pool.submit(work)
    try:
        assert all(inside.acquire(timeout=5) for _ in range(3)), pool.statistics()
    finally:
        released.set()


def test_calls_find_threads_up_to_the_size():
    """As many calls as the pool has threads run at once, however often."""
    pool = ThreadPool(6, "test")
    for round_ in range(200):
        together = threading.Barrier(1 + round_ % 6)
        calls = [pool.call(together.wait, 30) for _ in range(together.parties)]
        assert sorted(call.result().get() for call in calls) == list(range(together.parties))
    assert pool.statistics()["workers"] <= 6


def test_a_fan_out_on_a_full_pool_leaves_nothing_in_the_queue():
    """Requests for company that no thread took up are withdrawn with the fan-out, and so are its results."""
    pool = ThreadPool(1, "test")
    released = full(pool)

    class Result:
        pass

    results = [
        weakref.ref(outcome.value)
        for _ in range(1_000)
        for outcome in side_by_side([Result] * 3, None, stop_on_error=True, pool=pool)
    ]
    assert len(results) == 3_000
    assert pool.statistics()["queued"] < 200
    gc.collect()
    assert not any(result() for result in results)
    released.set()


def test_a_cancelled_call_keeps_nothing_alive():
    """A call that is cancelled before a thread has begun it lets go of its arguments at once, and never runs."""
    pool = ThreadPool(1, "test")
    released = full(pool)
    calls = []

    class Argument:
        def __call__(self) -> None:
            calls.append(self)

    alive = []
    for _ in range(1_000):
        argument = Argument()
        alive.append(weakref.ref(argument))
        assert pool.call(argument).cancel()
    del argument
    gc.collect()
    assert not any(argument() for argument in alive)
    assert pool.statistics()["queued"] < 200
    released.set()
    pool.call(int).result(30)
    assert calls == []


def test_withdrawing_leaves_the_work_of_others_and_its_order():
    """Whatever is withdrawn around it, other work runs, first come first."""
    pool = ThreadPool(1, "test")
    released = full(pool)
    ran: list[int] = []
    for index in range(300):
        pool.withdraw([pool.submit(lambda: ran.append(-1)) for _ in range(3)])
        pool.submit(lambda index=index: ran.append(index))  # type: ignore[misc]
    last = pool.call(ran.copy)
    released.set()
    assert last.result(30).get() == list(range(300))


def test_a_ticket_tells_whether_a_thread_was_free_for_it():
    """While threads can be started or are idle a ticket is sure; on a full pool it is not."""
    pool = ThreadPool(1, "test")
    first = pool.call(int)
    assert first.ticket.is_sure
    released = full(pool)
    waiting = pool.call(int)
    assert not waiting.ticket.is_sure
    released.set()
    assert waiting.result(30).get() == 0
