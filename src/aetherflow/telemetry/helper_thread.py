"""Blocking work done elsewhere, so that the caller can stop waiting for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from queue import SimpleQueue

from aetherflow.telemetry.forks import renew_in_children

__all__ = ["HelperThread", "finish"]

_Task = tuple[Future[object], Callable[[], object]]


class HelperThread:
    """A daemon thread that runs tasks one after the other.

    It is made beforehand because an interpreter that is going down starts no thread any more (CPython 3.12 and
    later), and it is a daemon because nobody waits for a task that never ends. A forked child has one of its own.

    Args:
        name: The thread's name.
    """

    __slots__ = ("__weakref__", "_name", "_stopped", "_tasks", "_thread")

    def __init__(self, name: str) -> None:
        self._name = name
        self._stopped = False
        self._start()
        renew_in_children(self)

    def _start(self) -> None:
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._thread = threading.Thread(target=_serve, args=(self._tasks,), name=self._name, daemon=True)
        self._thread.start()

    def after_fork(self) -> None:
        """Start the child's own thread, without the tasks of the parent."""
        if not self._stopped:
            self._start()

    def submit(self, task: Callable[[], object]) -> Future[object]:
        """Have the thread run a task.

        Args:
            task: What to run, without arguments.

        Returns:
            What comes of it; cancelled at once where the thread is gone, after :meth:`stop`.
        """
        future: Future[object] = Future()
        if self._thread.is_alive():
            self._tasks.put((future, task))
        else:
            future.cancel()
            future.set_running_or_notify_cancel()  # else a waiter does not count it as done
        return future

    def stop(self) -> None:
        """Let the thread end after the tasks it has already been given; does not wait for it."""
        self._stopped = True
        self._tasks.put(None)


def _serve(tasks: SimpleQueue[_Task | None]) -> None:
    while (entry := tasks.get()) is not None:
        future, task = entry
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(task())
        except BaseException as error:  # noqa: BLE001  # whatever it is, it belongs to whoever asked
            future.set_exception(error)


def finish(futures: Iterable[Future[object]], timeout: float) -> bool:
    """Wait for tasks, no longer than a limit for all of them together; those not begun by then never run.

    Args:
        futures: What :meth:`HelperThread.submit` returned.
        timeout: The limit, in seconds.

    Returns:
        Whether all ended in time, none raised and none returned False.
    """
    done, late = wait(futures, timeout)
    for future in late:
        future.cancel()
    return not late and not any(map(_failed, done))


def _failed(future: Future[object]) -> bool:
    return future.cancelled() or future.exception() is not None or future.result() is False
