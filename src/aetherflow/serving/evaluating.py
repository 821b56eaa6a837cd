"""Answers that somebody waits for no longer than a limit, however long it takes to make them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar, cast

import anyio

from aetherflow.telemetry.forks import renew_in_children
from aetherflow.telemetry.health.monitor import HealthMonitor, HealthReport, current_monitor
from aetherflow.telemetry.helper_thread import HelperThread

__all__ = ["Evaluations", "Worker"]

T = TypeVar("T")
_LOOK_EVERY = 0.002


class Worker:
    """A thread of its own, so that neither the event loop nor its pool of threads is ever held up.

    Args:
        name: What it does.
    """

    def __init__(self, name: str) -> None:
        self._thread = HelperThread(f"aetherflow-serve-{name}")
        weakref.finalize(self, self._thread.stop)

    def begin(self, task: Callable[[], T]) -> Future[T]:
        """Have the thread do something."""
        return cast("Future[T]", self._thread.submit(task))

    @staticmethod
    async def within(limit: float, doing: Future[T]) -> bool:
        """Wait for what the thread does.

        Args:
            limit: Seconds to wait at most.
            doing: What `begin` gave.

        Returns:
            Whether there is a result, which may be an exception.
        """
        # Looked at again and again: a callback of the future would outlive the event loop where that is closed first.
        with anyio.move_on_after(limit):
            while not doing.done():
                await anyio.sleep(_LOOK_EVERY)
        return doing.done() and not doing.cancelled()


class Evaluations:
    """The reports of a monitor, of which one at most is under way.

    Args:
        monitor: The monitor; None for that of the process, whichever it is when asked.
        limit: Seconds that somebody waits for an evaluation.
    """

    def __init__(self, monitor: HealthMonitor | None, limit: float) -> None:
        self._monitor = monitor
        self._limit = limit
        self._worker = Worker("health")
        self._under_way: Future[HealthReport] | None = None
        renew_in_children(self)

    def after_fork(self) -> None:
        """Let go of an evaluation that only the parent has under way."""
        self._under_way = None

    async def report(self) -> tuple[HealthReport | None, bool]:
        """Evaluate, or join whoever does.

        Returns:
            The report, and whether it is of now: else of the last time, or None where there was none.
        """
        monitor = current_monitor() if self._monitor is None else self._monitor
        if self._under_way is None or self._under_way.done():
            self._under_way = self._worker.begin(monitor.latest)
        evaluation = self._under_way
        if await self._worker.within(self._limit, evaluation):
            return evaluation.result(), True
        return monitor.glance(), False
