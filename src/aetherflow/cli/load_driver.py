"""Load on a callable: from a number of threads, each after its own last call, or at a stated rate of arrivals."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from aetherflow.telemetry.observation import is_marked_expected

__all__ = ["Call", "LoadResult", "arrivals", "drive"]

_DRAIN: Final = 1.0
"""Times the duration that is waited for calls that were due and have not been started."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call: seconds from when it was due to its end, and the exception that it failed with, if it did."""

    latency: float
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What became of a load.

    Attributes:
        calls: The calls that ended.
        seconds: How long it lasted: its duration, or to the end of its last call where that was later.
        unserved: Calls that were due and never started, by the seconds that each had waited.
    """

    calls: tuple[Call, ...]
    seconds: float
    unserved: tuple[float, ...] = ()


def arrivals(rate: float, duration: float, rng: random.Random) -> Iterator[float]:
    """Yield when calls are due, in seconds from the start: at random, independent of each other (Poisson).

    Args:
        rate: Calls a second, on average.
        duration: Seconds after which none is due any more.
        rng: Where chance comes from.
    """
    at = rng.expovariate(rate)
    while at < duration:
        yield at
        at += rng.expovariate(rate)


def drive(
    call: Callable[[], object], threads: int, duration: float, schedule: Iterator[float] | None = None
) -> LoadResult:
    """Call something from threads, until the time is over.

    With a schedule, the latency of a call counts from when it was due, also where no thread was free then: a slow call
    is not allowed to hide how long those behind it had to wait. What is still due when twice the time is over, is told
    as unserved.

    Args:
        call: What is called; an exception is a call that failed.
        threads: How many threads call it.
        duration: Seconds.
        schedule: When calls are due, ascending, in seconds from the start; None for each thread to call again at once.

    Returns:
        What became of it.
    """
    load = _Load(call, duration, None if schedule is None else list(schedule))
    workers = [threading.Thread(target=load.work, name=f"load-{number}", daemon=True) for number in range(threads)]
    for worker in workers:
        worker.start()
    load.began = time.perf_counter()
    load.start.set()
    try:
        for worker in workers:
            worker.join()
    finally:
        load.over.set()
    ended = max(load.ended, default=0.0)
    waiting = time.perf_counter() - load.began
    return LoadResult(
        tuple(load.calls),
        max(ended, duration),
        tuple(waiting - due for due in load.left()),
    )


@dataclass(slots=True)
class _Load:
    """What the threads share."""

    call: Callable[[], object]
    duration: float
    due: list[float] | None
    began: float = 0.0
    taken: int = 0
    start: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    calls: list[Call] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)

    def work(self) -> None:
        """Be one thread."""
        own: list[Call] = []
        end = 0.0
        self.start.wait()
        while not self.over.is_set() and (due := self._next_due()) is not None:
            began = time.perf_counter() - self.began
            if due > began and self.over.wait(due - began):
                break
            error = None
            try:
                self.call()
            except Exception as raised:  # noqa: BLE001  # whatever the user's code raises is a failed call
                error = None if is_marked_expected(raised) else raised
            end = time.perf_counter() - self.began
            own.append(Call(end - due, error))
        with self.lock:
            self.calls += own
            self.ended.append(end)

    def _next_due(self) -> float | None:
        """Give when the next call of this thread is due; None where there is none any more."""
        now = time.perf_counter() - self.began
        if self.due is None:
            return now if now < self.duration else None
        with self.lock:
            if self.taken == len(self.due) or now > (1 + _DRAIN) * self.duration:
                return None
            self.taken += 1
            return self.due[self.taken - 1]

    def left(self) -> list[float]:
        """Give when those were due that no thread has taken."""
        return [] if self.due is None else self.due[self.taken :]
