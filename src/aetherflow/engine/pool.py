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
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, Final

from aetherflow.config import perf_config

__all__ = ["Outcome", "ThreadPool", "default_pool", "side_by_side"]

IDLE_SECONDS: Final = 60.0
"""A thread without work for this long ends; thread-local objects live until then."""


class ThreadPool:
    """Daemon threads, started as work comes, at most ``size`` of them.

    Daemons, so that a node that never returns cannot keep the process from leaving.

    Args:
        size: The most threads at once.
        name: Prefix of the threads' names.
    """

    def __init__(self, size: int, name: str = "aetherflow") -> None:
        self.size = size
        self.name = name
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)  # the parent's threads are not in the child

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._queue: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._threads = 0
        self._idle = 0
        self._named = 0

    def submit(self, work: Callable[[], object]) -> None:
        """Have a thread run ``work``, which must not raise."""
        self._queue.put(work)
        with self._lock:
            if self._idle:
                self._idle -= 1  # that thread is spoken for, whichever takes the work
                return
            if self._threads >= self.size:
                return
            self._threads += 1
            self._named += 1
            name = f"{self.name}-{self._named}"
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have a thread call a function; return the future of its result."""
        future: Future[Any] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = function(*arguments)
            except BaseException as error:  # noqa: BLE001  # handed on to whoever waits
                future.set_exception(error)
            else:
                future.set_result(result)

        self.submit(work)
        return future

    def _work(self) -> None:
        queue = self._queue
        while True:
            try:
                work = queue.get_nowait()
            except Empty:
                with self._lock:
                    self._idle += 1
                try:
                    work = queue.get(timeout=IDLE_SECONDS)
                except Empty:
                    if self._retire():
                        return
                    continue
            work()
            del work  # a waiting thread must not keep the last result alive

    def _retire(self) -> bool:
        with self._lock:
            if not self._idle:  # spoken for just now
                return False
            self._idle -= 1
            self._threads -= 1
            return True

    def statistics(self) -> dict[str, int]:
        """Return how many threads there are, how many are idle, and how many calls wait."""
        return {"workers": self._threads, "idle": self._idle, "queued": self._queue.qsize(), "size": self.size}


class _Default:
    pool: ThreadPool | None = None
    lock = threading.Lock()


def default_pool() -> ThreadPool:
    """Return the process's pool, made on first use with ``AETHER_MAX_THREADS`` threads."""
    if _Default.pool is None:
        with _Default.lock:
            if _Default.pool is None:
                _Default.pool = ThreadPool(perf_config.max_threads)
    return _Default.pool


class Outcome:
    """What became of one branch: its value, or the error that ended it, or neither where it never started."""

    __slots__ = ("done", "error", "value")

    def __init__(self) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self.done = False


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

    def help(self) -> None:
        """Run branches until none is left to begin."""
        while True:
            try:
                index = self._todo.popleft()
            except IndexError:
                return
            outcome = self.outcomes[index]
            try:
                outcome.value = self._contexts[index].run(self.work[index])
                outcome.done = True
            except BaseException as error:  # noqa: BLE001  # handed on to the caller of the fan-out
                outcome.error = error
                if self._stop or not isinstance(error, Exception):
                    self.cancel()
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
    if company > 0:
        pool = pool or default_pool()
        for _ in range(min(company, pool.size)):
            pool.submit(batch.help)
    try:
        batch.help()
        batch.wait()
    except BaseException:  # Ctrl-C while waiting: what runs goes on, nothing more begins
        batch.cancel()
        raise
    return batch.outcomes


