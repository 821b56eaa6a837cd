"""The sampling profiler: one thread looks at the stacks of the executions that are being profiled.

It is started by the first of them and ends a second after the last. An execution gets its own frames only: those that
its own thread, when it is looked at, has above the frame that the execution began in. A coroutine that is suspended
has no frames on any thread, so that nothing is put down to it while other tasks run.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

from aetherflow.telemetry.forks import renew_in_children
from aetherflow.telemetry.frames import current_frames
from aetherflow.telemetry.profiling.event import Function, FunctionTimes, Profile, function_name, function_of

__all__ = ["INTERVAL", "Sampler", "Samples", "Stack", "callers_here", "is_machinery", "sampler"]

INTERVAL: Final = 0.005
"""Seconds between two looks."""

IDLE: Final = 1.0
"""Seconds without anything to look at after which the thread ends."""

MAX_STACKS: Final = 10_000
"""Different stacks kept of one execution; what comes after is put down to the function at their bottom."""

Stack = tuple[Function, ...]
"""Functions under way, the outermost first."""

_PACKAGE: Final = str(Path(__file__).parents[2]) + os.sep
_OWN: Final = tuple(f"{_PACKAGE}{room}{os.sep}" for room in ("engine", "flow", "telemetry"))
_HELPERS: Final = tuple(f"{os.sep}{package}{os.sep}" for package in ("anyio", "opentelemetry", "tenacity"))


def is_machinery(code: CodeType, *, helpers: bool = True) -> bool:
    """Tell whether a function is what executes nodes, rather than part of one.

    Args:
        code: The function.
        helpers: Whether libraries that it works with count too.
    """
    file = code.co_filename
    return file.startswith(_OWN) or (helpers and any(part in file for part in _HELPERS))


def callers_here() -> tuple[FrameType, ...]:
    """Return the frames of the machinery that an execution begins in, innermost first, telemetry itself left out.

    Of the step of a stream the innermost one returns before the execution does: hence more than one.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_TELEMETRY):
        frame = frame.f_back
    found: list[FrameType] = []
    while frame is not None and len(found) < _ANCHORS and frame.f_code.co_filename.startswith(_OWN):
        found.append(frame)
        frame = frame.f_back
    return tuple(found)


_TELEMETRY: Final = f"{_PACKAGE}telemetry{os.sep}"
_ANCHORS: Final = 3


class Samples:
    """The stacks that one execution was found in, with the seconds each stands for and how often it was found."""

    __slots__ = ("_found", "is_closed")

    def __init__(self) -> None:
        self._found: dict[tuple[int, ...], _Found] = {}
        self.is_closed = False

    def add(self, stack: Sequence[CodeType], seconds: float) -> None:
        """Take note of a stack, the outermost function first."""
        key = tuple(map(id, stack))  # code objects take long to hash, and are equal across files
        found = self._found.get(key)
        if found is None:
            if len(self._found) >= MAX_STACKS:
                stack, key = stack[:1], key[:1]
            found = self._found.setdefault(key, _Found(tuple(stack)))
        found.seconds += seconds
        found.count += 1

    def stacks(self) -> Iterator[tuple[Stack, float, int]]:
        """Yield each stack without the machinery, the seconds it stands for, and in how many samples it was found."""
        for found in self._found.values():
            if stack := tuple(_of_nodes(found.stack)):
                yield stack, found.seconds, found.count

    def profile(self) -> Profile:
        """Return the times by function; one that calls itself counts once a stack."""
        own: defaultdict[Function, float] = defaultdict(float)
        cumulative: defaultdict[Function, float] = defaultdict(float)
        calls: defaultdict[Function, int] = defaultdict(int)
        for stack, seconds, count in self.stacks():
            own[stack[-1]] += seconds
            for function in dict.fromkeys(stack):
                cumulative[function] += seconds
                calls[function] += count
        return Profile(
            "sampling",
            [FunctionTimes(function_name(each), own[each], whole, calls[each]) for each, whole in cumulative.items()],
        )


def _of_nodes(stack: Sequence[CodeType]) -> Iterator[Function]:
    """Yield the functions of a stack that are neither machinery nor a helper that the machinery has called."""
    is_inside = True
    for code in stack:
        if is_machinery(code, helpers=is_inside):
            is_inside = True
        else:
            is_inside = False
            yield function_of(code)


@dataclass(slots=True)
class _Found:
    """A stack, which keeps its functions alive and so their identity, and what was found of it."""

    stack: tuple[CodeType, ...]
    seconds: float = 0.0
    count: int = 0


class _Watch:
    """One execution on one thread."""

    __slots__ = ("_anchors", "_last", "_thread_id", "samples")

    def __init__(self, samples: Samples, anchors: tuple[FrameType, ...], now: float) -> None:
        self.samples = samples
        self._thread_id = threading.get_ident()
        self._anchors = frozenset(anchors)
        self._last = now

    def look(self, frames: dict[int, FrameType], now: float) -> None:
        """Put the time since the last look down to the stack, if the execution is on its thread now."""
        elapsed, self._last = now - self._last, now
        frame = frames.get(self._thread_id)
        stack: list[CodeType] = []
        anchors = self._anchors
        while frame is not None:
            if frame in anchors:
                stack.reverse()
                self.samples.add(stack, elapsed)
                return
            stack.append(frame.f_code)
            frame = frame.f_back


class Sampler:
    """Looks at executions, in a thread of its own while there are any.

    Args:
        interval: Seconds between two looks; None for no thread: whoever made it calls :meth:`tick`.
        clock: Tells seconds.
    """

    def __init__(self, interval: float | None = INTERVAL, clock: Callable[[], float] = time.perf_counter) -> None:
        self._interval = interval
        self._clock = clock
        # Reentrant: while a look is under way, a collected stream may end its profile on the same thread.
        self._changed = threading.Condition(threading.RLock())
        self._watches: list[_Watch] = []
        self._thread: threading.Thread | None = None
        self.ticks = 0

    @property
    def is_running(self) -> bool:
        """Whether its thread is there."""
        return self._thread is not None and self._thread.is_alive()

    def watch(self, samples: Samples, anchors: tuple[FrameType, ...]) -> None:
        """Look at the calling thread from now on.

        Args:
            samples: Take what is found; closed ones take nothing any more.
            anchors: Frames that the execution is below of.

        Raises:
            RuntimeError: No thread can be started, as at the end of the process.
        """
        with self._changed:
            if samples.is_closed:
                return
            if self._interval is not None and not self.is_running:
                thread = threading.Thread(
                    target=self._work, args=(self._interval,), name="aetherflow-profiler", daemon=True
                )
                thread.start()
                self._thread = thread
            self._watches.append(_Watch(samples, anchors, self._clock()))
            self._changed.notify()

    def unwatch(self, samples: Samples) -> None:
        """Look no more at what the samples are of."""
        with self._changed:
            self._watches = [watch for watch in self._watches if watch.samples is not samples]

    def tick(self) -> None:
        """Look once at every execution."""
        with self._changed:
            self.ticks += 1
            watches = self._watches
            if watches:
                frames = current_frames()
                now = self._clock()
                for watch in watches:
                    watch.look(frames, now)

    def _work(self, interval: float) -> None:
        while True:
            time.sleep(interval)
            self.tick()
            with self._changed:
                if not self._watches and not self._changed.wait_for(lambda: self._watches, IDLE):
                    self._thread = None
                    return


class _Shared:
    """The process's sampler; a forked child has one of its own, as it has no thread of its parent's."""

    def __init__(self) -> None:
        self.sampler = Sampler()
        renew_in_children(self)

    def after_fork(self) -> None:
        """Begin with none."""
        self.sampler = Sampler()


_shared: Final = _Shared()


def sampler() -> Sampler:
    """Return the process's one sampler."""
    return _shared.sampler
