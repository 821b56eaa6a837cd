"""The one pool of threads, and work on it that never waits for a free thread.

Whoever waits helps: the caller of :func:`side_by_side` runs branches itself and asks the pool only for company.
A request that no thread has taken up yet is void once there is nothing left to run, so fan-outs nested in each
other on a full pool always finish. Branches may therefore run on the caller's thread.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from time import perf_counter_ns
from typing import Any, Final

from aetherflow.config import perf_config
from aetherflow.resources.waiting import lent_thread, works_for
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.metrics import gauges
from aetherflow.telemetry.metrics.accumulators import registry
from aetherflow.telemetry.observer import emit
from aetherflow.user_exceptions import is_error

__all__ = ["Outcome", "PoolFuture", "ThreadPool", "Ticket", "default_pool", "lent_thread", "side_by_side"]

IDLE_SECONDS: Final = 60.0
"""A thread without work for this long ends; thread-local objects live until then."""

MIN_SWEEP: Final = 64
"""So many tickets may be withdrawn before the queue is looked through for them."""


class Ticket:
    """Work that waits for a thread; without work once a thread has begun it, or it was withdrawn.

    ``is_sure`` tells whether a thread was free for it, or started for it, when it was submitted.
    """

    __slots__ = ("is_sure", "submitted", "work")

    def __init__(self, work: Callable[[], object]) -> None:
        self.work: Callable[[], object] | None = work
        self.is_sure = True
        self.submitted = perf_counter_ns()

    def take(self) -> Callable[[], object] | None:
        """Return the work, once."""
        work, self.work = self.work, None
        return work


class PoolFuture(Future["Outcome"]):
    """The future of a call's outcome on a pool; once cancelled it keeps nothing of the call alive."""

    ticket: Ticket

    def __init__(self, pool: ThreadPool) -> None:
        super().__init__()
        self._pool = pool

    def cancel(self) -> bool:
        """Take the call back, unless a thread has begun it; tell whether it is taken back."""
        cancelled = super().cancel()
        if cancelled:
            self._pool.withdraw((self.ticket,))
        return cancelled


class ThreadPool:
    """Daemon threads, started as work comes, at most ``size`` of them.

    Daemons, so that a node that never returns cannot keep the process from leaving.

    Args:
        size: The most threads at once.
        name: Prefix of the threads' names.
        executor: Its name in metrics; None for ``name``.
    """

    def __init__(self, size: int, name: str = "aetherflow", *, executor: str | None = None) -> None:
        self.size = size
        self.name = name
        self.attributes = {names.EXECUTOR_NAME: executor or name}
        self._waits = registry.series(names.EXECUTOR_WAIT, self.attributes)
        self._reset()
        gauges.observe(names.EXECUTOR_QUEUE, self, _queue_readings)
        gauges.observe(names.EXECUTOR_WORKERS, self, _worker_readings)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)  # the parent's threads are not in the child

    def _reset(self) -> None:
        # Reentrant, for what the garbage collector may run in between: a stream's end can start a fan-out.
        self._lock = threading.RLock()
        self._queue: SimpleQueue[Ticket] = SimpleQueue()
        self._threads = 0
        self._idle = 0
        self._named = 0
        self._withdrawn = 0
        self._lent = 0

    def submit(self, work: Callable[[], object]) -> Ticket:
        """Have a thread run ``work``, which must not raise; return the ticket to withdraw it with."""
        ticket = Ticket(work)
        with self._lock:
            self._queue.put(ticket)
            if self._idle:
                self._idle -= 1  # that thread is spoken for, whichever takes the work
                return ticket
            ticket.is_sure = self._grow()
        return ticket

    def _grow(self) -> bool:
        if self._threads >= self.size + self._lent:
            return False
        self._threads += 1
        self._named += 1
        threading.Thread(target=self._work, name=f"{self.name}-{self._named}", daemon=True).start()
        return True

    def lend(self) -> None:
        """Have one more thread, since one of the pool waits for what may need a thread to get on."""
        with self._lock:
            self._lent += 1
            if not self._idle and not self._queue.empty():
                self._grow()

    def take_back(self) -> None:
        """Have one thread less: the one that waited goes on. A surplus thread ends when it is done with its work."""
        with self._lock:
            self._lent -= 1

    def withdraw(self, tickets: Iterable[Ticket]) -> None:
        """Take work back that no thread has begun, so that it keeps nothing alive while it waits for a full pool."""
        count = 0
        for ticket in tickets:
            if ticket.work is not None:
                ticket.work = None
                count += 1
        if not count:
            return
        with self._lock:
            self._withdrawn += count
            if self._withdrawn > max(MIN_SWEEP, self._queue.qsize() // 2):
                self._withdrawn = 0
                self._sweep()

    def _sweep(self) -> None:
        for _ in range(self._queue.qsize()):
            try:
                ticket = self._queue.get_nowait()
            except Empty:  # threads take tickets meanwhile
                return
            if ticket.work is not None:
                self._queue.put(ticket)

    def call(self, function: Callable[..., Any], *arguments: Any) -> PoolFuture:
        """Call a function on a thread; return the future of its outcome.

        The future itself never fails: a failed future tests the truth of its exception, and loses a false one.
        """
        future = PoolFuture(self)

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            outcome = Outcome()
            try:
                outcome.value = function(*arguments)
                outcome.done = True
            except BaseException as error:  # noqa: BLE001  # handed on to whoever waits
                outcome.error = error
            future.set_result(outcome)

        future.ticket = self.submit(work)
        return future

    def _work(self) -> None:
        works_for(self)
        while (ticket := self._take()) is not None:
            self._use(ticket)

    def _use(self, ticket: Ticket) -> None:
        """Run the work; nothing of it is held on to, so that a waiting thread keeps no result alive."""
        work = ticket.take()
        if work is None:
            with self._lock:
                self._withdrawn -= 1
            return
        emit(self._waits, perf_counter_ns() - ticket.submitted)
        work()

    def _take(self) -> Ticket | None:
        """Return the next ticket, or None where the thread is to end."""
        while True:
            with self._lock:
                if self._threads > self.size + self._lent:
                    self._threads -= 1
                    return None
                try:
                    return self._queue.get_nowait()
                except Empty:  # known under the lock: nothing can be put between looking and being counted as idle
                    self._idle += 1
                    self._withdrawn = 0
            try:
                return self._queue.get(timeout=IDLE_SECONDS)
            except Empty:
                if self._retire():
                    return None

    def _retire(self) -> bool:
        with self._lock:
            if not self._idle:  # spoken for just now
                return False
            self._idle -= 1
            self._threads -= 1
            return True

    def statistics(self) -> dict[str, int]:
        """Return how many threads there are, how many are idle, and how many calls wait."""
        queued = max(self._queue.qsize() - max(self._withdrawn, 0), 0)
        return {"workers": self._threads, "idle": self._idle, "queued": queued, "size": self.size}


def _queue_readings(pool: ThreadPool) -> list[gauges.Reading]:
    return [(pool.statistics()["queued"], pool.attributes)]


def _worker_readings(pool: ThreadPool) -> list[gauges.Reading]:
    found = pool.statistics()
    states = {"idle": found["idle"], "used": found["workers"] - found["idle"]}
    return [(count, {**pool.attributes, names.EXECUTOR_STATE: state}) for state, count in states.items()]


class _Default:
    pool: ThreadPool | None = None
    lock = threading.Lock()


def default_pool() -> ThreadPool:
    """Return the process's pool, made on first use with ``AETHER_MAX_THREADS`` threads."""
    if _Default.pool is None:
        with _Default.lock:
            if _Default.pool is None:
                _Default.pool = ThreadPool(perf_config.max_threads, executor="thread")
    return _Default.pool


class Outcome:
    """What became of one branch: its value, or the error that ended it, or neither where it never started."""

    __slots__ = ("done", "error", "value")

    def __init__(self) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self.done = False

    def get(self) -> Any:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value


class _Batch:
    """Branches of one fan-out: a queue of those not begun, and a latch for those under way."""

    __slots__ = ("_contexts", "_finished", "_left", "_lock", "_stop", "_todo", "outcomes", "work")

    def __init__(self, work: Sequence[Callable[[], Any]], stop_on_error: bool) -> None:
        self.work = work
        self.outcomes = [Outcome() for _ in work]
        self._contexts = [contextvars.copy_context() for _ in work]
        self._todo = deque(range(len(work)))
        self._left = len(work)
        self._lock = threading.Lock()
        self._finished = threading.Lock()
        self._finished.acquire()
        self._stop = stop_on_error

    def help(self, *, on_caller: bool = False) -> None:
        """Run branches until none is left to begin.

        Args:
            on_caller: Whether this is the thread of the fan-out's caller, which an interruption such as Ctrl-C ends at
                once: the branches under way on other threads are not waited for then.
        """
        while True:
            try:
                index = self._todo.popleft()
            except IndexError:
                return
            outcome = self.outcomes[index]
            try:
                outcome.value = self._contexts[index].run(self.work[index])
                outcome.done = True
            except BaseException as error:  # handed on to the caller of the fan-out
                outcome.error = error
                if self._stop or not is_error(error, Exception):
                    self.cancel()
                if on_caller and is_error(error, (KeyboardInterrupt, SystemExit)):
                    raise
            finally:
                self._finish(1)

    def cancel(self) -> None:
        """Begin no more branches."""
        count = 0
        while True:
            try:
                self._todo.pop()
            except IndexError:
                break
            count += 1
        self._finish(count)

    def _finish(self, count: int) -> None:
        if not count:
            return
        with self._lock:
            self._left -= count
            last = self._left == 0
        if last:
            self._finished.release()

    def wait(self) -> None:
        """Wait for the branches under way."""
        self._finished.acquire()


def side_by_side(
    work: Sequence[Callable[[], Any]], limit: int | None, *, stop_on_error: bool, pool: ThreadPool | None = None
) -> list[Outcome]:
    """Run calls side by side, each in its own copy of the calling context, and wait for all that began.

    Args:
        work: The calls.
        limit: The most at once; None for as many as there are, which the pool's size bounds.
        stop_on_error: Whether calls not yet begun are given up once one has failed.
        pool: Where company comes from.

    Returns:
        One outcome a call, in order.
    """
    if not work:
        return []
    batch = _Batch(work, stop_on_error)
    company = min(len(work), limit or len(work)) - 1
    tickets: list[Ticket] = []
    if company > 0:
        pool = pool or default_pool()
        tickets = [pool.submit(batch.help) for _ in range(min(company, pool.size))]
    try:
        batch.help(on_caller=True)
        batch.wait()
    except BaseException:  # Ctrl-C while waiting: what runs goes on, nothing more begins
        batch.cancel()
        raise
    finally:
        if pool is not None:
            pool.withdraw(tickets)
    return batch.outcomes
