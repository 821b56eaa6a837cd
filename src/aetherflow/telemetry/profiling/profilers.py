"""The two profilers: cProfile, which one execution at a time may have, and sampling, which any number may."""

from __future__ import annotations

import cProfile
import marshal
import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import CodeType
from typing import Any, Final, TypeVar

from aetherflow.errors import AetherFlowError
from aetherflow.telemetry import active
from aetherflow.telemetry.forks import renew_in_children
from aetherflow.telemetry.frames import current_frames
from aetherflow.telemetry.profiling.event import FunctionTimes, Profile, function_name, function_of
from aetherflow.telemetry.profiling.files import pstats_of, speedscope_of
from aetherflow.telemetry.profiling.sampling import Sampler, Samples, callers_here, is_machinery, sampler

__all__ = ["SEES_OTHER_THREADS", "CProfiler", "SamplingProfiler", "UnavailableError"]

T = TypeVar("T")

SEES_OTHER_THREADS: Final = sys.version_info >= (3, 12)
"""Whether cProfile is one for the whole process, and sees the calls of all threads."""


class UnavailableError(AetherFlowError):
    """A profile that is due cannot be taken; the message says why."""


class _OneAtATime:
    """Who may have cProfile on; a forked child starts with nobody."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        renew_in_children(self)

    def after_fork(self) -> None:
        """Start with nobody."""
        self.lock = threading.Lock()


_taken: Final = _OneAtATime()


class CProfiler:
    """cProfile over a synchronous function, started and stopped on its own thread."""

    __slots__ = ("_lock", "_profile", "_threads")

    def __init__(self) -> None:
        self._profile = cProfile.Profile()
        self._lock: threading.Lock | None = None
        self._threads = 0

    def start(self) -> None:
        """Turn it on.

        Raises:
            UnavailableError: Another execution has it on, or another tool is profiling.
        """
        lock = _taken.lock
        if not lock.acquire(blocking=False):
            raise UnavailableError("another execution is being profiled with cProfile")
        self._lock = lock
        try:
            if not SEES_OTHER_THREADS and sys.getprofile() is not None:  # it would be silently replaced
                raise UnavailableError("another profiler is on in this thread")
            self._threads = len(current_frames())
            self._profile.enable()
        except BaseException as error:
            self._release()
            if isinstance(error, ValueError):
                raise UnavailableError(str(error)) from error
            raise

    def stop(self) -> None:
        """Turn it off, if it is on."""
        if self._lock is not None:
            try:
                self._profile.disable()
            finally:
                self._release()
            self._threads = max(self._threads, len(current_frames()))

    def _release(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def profile(self) -> Profile:
        """Return the times by function; the machinery is left out, and what of Python only the machinery has called."""
        entries = self._profile.getstats()
        left_out = _machinery(entries)
        functions = [
            FunctionTimes(_name(entry.code), entry.inlinetime, entry.totaltime, entry.callcount)
            for entry in entries
            if id(entry.code) not in left_out
        ]
        started_one = any(start in _name(entry.code) for entry in entries for start in _STARTS_THREAD)
        return Profile("cprofile", functions, SEES_OTHER_THREADS and (started_one or self._threads > 1))

    def pstats(self) -> bytes:
        """Return all of it, in the format that :class:`pstats.Stats` loads."""
        self._profile.snapshot_stats()
        stats: Any = self._profile.stats
        return marshal.dumps(stats)


_STARTS_THREAD: Final = ("_thread.start_new_thread", "_thread.start_joinable_thread")
_LSPROF: Final = "_lsprof.Profiler"
_PYTHON: Final = (sysconfig.get_path("stdlib") + os.sep, "<")
_INSTALLED: Final = sysconfig.get_path("purelib") + os.sep


def _name(code: CodeType | str) -> str:
    return code if isinstance(code, str) else function_name(function_of(code))


def _machinery(entries: Sequence[Any]) -> set[int]:
    """Return the identities of the functions that execute nodes, and of Python's own that these alone have called."""
    callers: dict[int, set[int]] = {id(entry.code): set() for entry in entries}
    for entry in entries:
        for called in entry.calls or ():
            callers.setdefault(id(called.code), set()).add(id(entry.code))
    found = {id(entry.code) for entry in entries if _is_machinery(entry.code)}
    python = {id(entry.code) for entry in entries if _is_python(entry.code)}
    own = callers.keys() - found
    while more := {each for each in python - found if callers[each] and callers[each] <= found}:
        found |= more
    return found if found < callers.keys() else callers.keys() - own  # a node may itself be one of Python's functions


def _is_machinery(code: CodeType | str) -> bool:
    return _LSPROF in code if isinstance(code, str) else is_machinery(code)


def _is_python(code: CodeType | str) -> bool:
    if isinstance(code, str):
        return True
    return code.co_filename.startswith(_PYTHON) and not code.co_filename.startswith(_INSTALLED)


class SamplingProfiler:
    """Samples of an execution, wherever it runs.

    Args:
        moves: Whether it will run on another thread than the one that this is started on.
    """

    __slots__ = ("_before", "_moves", "_sampler", "_samples")

    def __init__(self, *, moves: bool = False) -> None:
        self._moves = moves
        self._samples = Samples()
        self._sampler: Sampler | None = None
        self._before: Callable[[Callable[[], Any]], Any] | None = None

    def start(self) -> None:
        """Look at the calling thread, or at the one that the execution moves to, from now on.

        Raises:
            UnavailableError: The process is ending.
        """
        self._sampler = chosen = sampler()
        if self._moves:
            self._before = active.moved.get()
            active.moved.set(self._follow)
            return
        try:
            chosen.watch(self._samples, callers_here())
        except RuntimeError as error:
            raise UnavailableError(str(error)) from error

    def stop(self) -> None:
        """Look no more, until it is started again."""
        chosen, self._sampler = self._sampler, None
        if chosen is not None:
            chosen.unwatch(self._samples)
            if self._moves:
                active.moved.set(self._before)

    def _follow(self, function: Callable[[], T]) -> T:
        """Call a function of the execution on another thread, and look at that as long as the execution lasts."""
        chosen = self._sampler
        if chosen is not None:
            with suppress(RuntimeError):  # there is no thread to be had: nothing is sampled, and the function runs
                chosen.watch(self._samples, (sys._getframe(),))
        return function()

    def profile(self) -> Profile:
        """Return the times by function."""
        return self._samples.profile()

    def pstats(self) -> bytes:
        """Return all of it, in the format that :class:`pstats.Stats` loads."""
        return pstats_of(self._samples)

    def speedscope(self, name: str) -> bytes:
        """Return all of it, in the format that speedscope opens."""
        return speedscope_of(self._samples, name).encode()
