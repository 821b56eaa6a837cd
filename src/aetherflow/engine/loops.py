"""Event loops in the background, for flows that are run from synchronous code and hold asynchronous nodes.

A run uses the loop of its depth: one started by a coroutine on the first loop blocks that loop, so what it awaits
runs on the second, and so on. The depth travels in the context, into threads and tasks alike.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import Any, Final, TypeVar

from aetherflow.engine.pool import Outcome, default_pool, lent_thread
from aetherflow.resources.leaving import flush_at_exit

__all__ = ["Home", "background_loop", "drive", "off_loop", "run_coroutine", "run_coroutine_in_context", "running_loop"]

T = TypeVar("T")
Loop = asyncio.AbstractEventLoop

GRACE_SECONDS: Final = 3.0
"""A coroutine whose wait was interrupted has this long to end, and to run its ``finally`` clauses."""

SETTLE_SECONDS: Final = 0.5
"""When the process leaves, what closes generators on a background loop has this long before the rest are closed."""

_depth: Final[ContextVar[int]] = ContextVar("aetherflow_loop_depth", default=0)
_lock = threading.Lock()
_loops: list[Loop] = []


def _forget() -> None:  # a forked child has the loops, but not the threads that run them
    global _lock  # noqa: PLW0603  # the module is the one holder of the loops
    _lock = threading.Lock()
    _loops.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class _Leaving:
    """Closes the asynchronous generators that were left alone: the threads of their loops just stop at exit."""

    def __init__(self) -> None:
        self._closing: list[Future[None]] = []

    def flush(self) -> None:
        """Have all closed."""
        self._closing += [asyncio.run_coroutine_threadsafe(_close_generators(loop), loop) for loop in _loops]

    def is_busy(self) -> bool:
        """Tell whether some are not."""
        return not all(closed.done() for closed in self._closing)


_leaving: Final = _Leaving()


async def _close_generators(loop: Loop) -> None:
    loop.set_exception_handler(lambda _, __: None)  # of one that is in the middle of an item: it cannot be closed
    under_way = asyncio.all_tasks() - {asyncio.current_task()}
    if under_way:
        await asyncio.wait(under_way, timeout=SETTLE_SECONDS)
    await loop.shutdown_asyncgens()


def _loop(depth: int) -> Loop:
    with _lock:
        if not _loops:
            flush_at_exit(_leaving)
        while len(_loops) <= depth:
            loop = asyncio.new_event_loop()
            name = f"aetherflow-loop-{len(_loops)}"
            threading.Thread(target=_run, args=(loop,), name=name, daemon=True).start()
            _loops.append(loop)
        return _loops[depth]


def _run(loop: Loop) -> None:
    """Run a background loop for as long as the process lasts.

    A task that ends with SystemExit or KeyboardInterrupt also ends `run_forever`. Whoever waits for the task gets the
    exception from the task itself; the tasks of everyone else go on.
    """
    while not loop.is_closed():
        with suppress(SystemExit, KeyboardInterrupt):
            loop.run_forever()
            return


def running_loop() -> Loop | None:
    """Return the loop that this thread runs."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def background_loop() -> Loop:
    """Return the first loop from the context's depth on that this thread does not run, and so does not block."""
    depth, here = _depth.get(), running_loop()
    return _loop(max(depth, _loops.index(here) + 1) if here in _loops else depth)


def _depth_below(loop: Loop) -> int:
    """Return the depth of what a coroutine on a loop starts."""
    return _loops.index(loop) + 1 if loop in _loops else _depth.get()


def run_coroutine(function: Callable[..., Coroutine[Any, Any, T]], *arguments: Any, on: Loop | None = None) -> T:
    """Run a coroutine function on a background loop, in the calling context, and wait for its result.

    An interruption of the wait, such as Ctrl-C, cancels the coroutine.

    Args:
        function: What to run.
        arguments: What to call it with.
        on: The loop, which another thread runs; None for a background loop.
    """
    loop = on or background_loop()
    depth = _depth_below(loop)
    over = threading.Event()

    async def descend() -> Outcome:
        _depth.set(depth)
        try:
            return await _outcome_of_coroutine(function, arguments)
        finally:
            over.set()

    future = asyncio.run_coroutine_threadsafe(descend(), loop)
    try:
        with lent_thread():
            outcome = future.result()
    except BaseException:
        if future.cancel():
            over.wait(GRACE_SECONDS)
        raise
    return outcome.get()  # type: ignore[no-any-return]  # the function's own


async def _outcome_of_coroutine(
    function: Callable[..., Coroutine[Any, Any, Any]], arguments: tuple[Any, ...]
) -> Outcome:
    """Await a coroutine function and return its result or exception, whatever that is.

    Raised in a task, an exception would have to pass futures: some end the loop or are refused, a false one is
    lost, and a ``CancelledError`` becomes another exception.
    """
    outcome = Outcome()
    try:
        outcome.value = await function(*arguments)
    except BaseException as error:  # noqa: BLE001  # raised by whoever waits
        outcome.error = error
    return outcome


_CONTEXT_LOCAL: Final = frozenset({"_storage", "_cvar"})
"""Names of the context variables in which dependency-injector keeps objects that are local to a context."""


def run_coroutine_in_context(function: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
    """Run a coroutine as `run_coroutine` does, and keep the objects local to a context that the coroutine has created.

    A coroutine on another thread runs in a copy of the calling context, so that they would be lost.
    """
    context = copy_context()

    async def in_copy() -> T:
        return await asyncio.get_running_loop().create_task(function(*arguments), context=context)

    value = run_coroutine(in_copy)
    for variable, local in context.items():
        if variable.name in _CONTEXT_LOCAL and variable.get(None) is not local:
            variable.set(local)
    return value


class Home:
    """The one loop that something is used on, whoever uses it: that of its first use, unless told before.

    An asynchronous generator and what it holds, such as connections, belong to a loop.
    """

    __slots__ = ("_loop",)

    def __init__(self, loop: Loop | None = None) -> None:
        self._loop = loop

    def run(self, function: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
        """Run a coroutine function there and wait for its result; elsewhere where that would wait for itself."""
        loop = self._loop
        if loop is None or loop is running_loop() or not loop.is_running():
            loop = background_loop()
            self._loop = self._loop or loop
        return run_coroutine(function, *arguments, on=loop)

    def is_here(self) -> bool:
        """Tell whether it is the running loop; it is from now on, where it was not known before."""
        here = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = here
        return self._loop is here

    async def arun(self, function: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
        """Run a coroutine function there and await its result."""
        loop = self._loop
        if self.is_here() or loop is None or not loop.is_running():
            return await function(*arguments)
        coroutine = _outcome_of_coroutine(function, arguments)
        outcome = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))
        return outcome.get()  # type: ignore[no-any-return]  # the function's own

    def begin(self, function: Callable[..., Coroutine[Any, Any, object]], *arguments: Any) -> Loop:
        """Begin a coroutine function there, in the calling context, and return the loop."""
        loop = self._loop = self._loop or background_loop()
        depth = _depth_below(loop)

        async def descend() -> None:
            _depth.set(depth)
            await function(*arguments)

        asyncio.run_coroutine_threadsafe(descend(), loop)
        return loop


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends and return its result."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # StopIteration.value is untyped
    coroutine.close()
    raise RuntimeError("a coroutine that was to run on the spot suspended")


async def off_loop(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function on a thread of the pool, in a copy of the calling context.

    A cancellation takes a call back that no thread has begun; one that runs cannot be stopped and is waited for.
    """
    future = default_pool().call(copy_context().run, function, *arguments)
    waiting = asyncio.wrap_future(future)
    try:
        with lent_thread():  # the loop may be one that a node runs on a thread of the pool
            outcome = await asyncio.shield(waiting)
    except asyncio.CancelledError:
        if not future.cancel():
            await asyncio.wait([waiting])
        raise
    return outcome.get()  # type: ignore[no-any-return]  # the function's own
