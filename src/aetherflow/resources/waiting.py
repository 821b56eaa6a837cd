"""Callers that wait for their turn, threads and async tasks in one queue, and a lock that finalizers cannot hang on.

A thread of a pool that waits may be waited for by work that needs a thread of that pool, so it is lent meanwhile.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

__all__ = ["DeferringLock", "TaskWaiter", "ThreadWaiter", "Waiter", "lent_thread", "works_for"]

G = TypeVar("G")
Action: TypeAlias = Callable[[], Callable[[], object] | None]
"""Runs under the lock; what it gives, if anything, runs right after."""


class DeferringLock:
    """A lock with a queue of what is to be done under it by callers that must not wait for it.

    Finalizers run at any moment, even in a thread that holds the lock; waiting for it there would hang. They put an
    action into the queue instead, and whoever lets go of the lock next does it: at once where nobody holds it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._actions: deque[Action] = deque()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()
        if self._actions:
            self._run_actions()

    def later(self, action: Action) -> None:
        """Have ``action`` done under the lock, now or as soon as its holder lets go.

        Args:
            action: Short, and calls no user code; it may give a callable, to be called without the lock.
        """
        self._actions.append(action)
        self._run_actions()

    def _run_actions(self) -> None:
        # Whoever fails to get the lock leaves its action to the holder, who looks here after letting go.
        while self._actions and self._lock.acquire(blocking=False):
            done: list[Action] = []
            after: list[Callable[[], object] | None] = []
            try:
                while self._actions:
                    # Kept until the lock is free: an object that an action lets go of may have a finalizer.
                    done.append(self._actions.popleft())
                    after.append(done[-1]())
            finally:
                self._lock.release()
            for follow_up in after:
                if follow_up is not None:
                    follow_up()


class Waiter(Generic[G]):
    """A caller in the queue.

    What it is given is kept here rather than in what it waits on: a caller cancelled at the moment it is served still
    has it, and can give it back.

    Args:
        since: When it came, on the clock of whoever keeps the queue.
    """

    __slots__ = ("grant", "served", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.served = False
        self.grant: G | None = None

    def serve(self, grant: G | None) -> bool:
        """Give the caller its turn; the keeper of the queue calls this under its lock.

        Args:
            grant: What comes with it.

        Returns:
            False where the caller cannot go on any more: then it was given nothing.
        """
        self.grant, self.served = grant, True
        if not self.wake():
            self.grant, self.served = None, False
        return self.served

    def wake(self) -> bool:
        """Let the caller go on, served or not.

        Returns:
            False where it cannot any more.
        """
        raise NotImplementedError


class ThreadWaiter(Waiter[G]):
    """A thread that waits."""

    __slots__ = ("_gate",)

    def __init__(self, since: float) -> None:
        super().__init__(since)
        self._gate = threading.Lock()
        self._gate.acquire()

    def wake(self) -> bool:
        """Let the thread go on; it always can."""
        self._gate.release()
        return True

    def wait(self, timeout: float | None) -> None:
        """Block until woken, or for ``timeout`` seconds."""
        if not self._gate.acquire(blocking=False):
            with lent_thread():
                self._gate.acquire(timeout=-1 if timeout is None else timeout)


class TaskWaiter(Waiter[G]):
    """An asyncio task that waits; made on its event loop."""

    __slots__ = ("_future", "_loop")

    def __init__(self, since: float) -> None:
        super().__init__(since)
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()

    def wake(self) -> bool:
        """Let the task go on, from any thread; False where its loop is closed."""
        try:
            self._loop.call_soon_threadsafe(self._resolve)
        except RuntimeError:
            return False
        return True

    def _resolve(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self, timeout: float | None) -> None:
        """Suspend until woken, or for ``timeout`` seconds."""
        # Unlike wait_for, this raises only where the task itself is cancelled.
        await asyncio.wait([self._future], timeout=timeout)


class Lender(Protocol):
    """A pool that can do without one of its threads for a while."""

    def lend(self) -> None:
        """Have one more thread."""
        ...

    def take_back(self) -> None:
        """Have one thread less."""
        ...


class _Worker:
    """One thread of a pool: how many of its coroutines wait."""

    __slots__ = ("pool", "waits")

    def __init__(self, pool: Lender) -> None:
        self.pool = pool
        self.waits = 0


_here = threading.local()


def works_for(pool: Lender) -> None:
    """Say that the calling thread is one of a pool."""
    _here.worker = _Worker(pool)


class _LentThread:
    """A thread of a pool while it waits. No generator: that would change the user exceptions that pass through it."""

    __slots__ = ("_worker",)

    def __init__(self, worker: _Worker) -> None:
        self._worker = worker

    def __enter__(self) -> None:
        worker = self._worker
        worker.waits += 1
        if worker.waits == 1:  # of many coroutines that wait on one thread, only the first lends it
            worker.pool.lend()

    def __exit__(self, *exc_info: object) -> None:
        worker = self._worker
        worker.waits -= 1
        if not worker.waits:
            worker.pool.take_back()


_NOT_OF_A_POOL: Final = nullcontext()


def lent_thread() -> AbstractContextManager[None]:
    """While this thread waits, another may work in its place, if it is one of a pool.

    What is waited for may need a thread of that pool, all of which may wait like this one.
    """
    worker: _Worker | None = getattr(_here, "worker", None)
    return _NOT_OF_A_POOL if worker is None else _LentThread(worker)
