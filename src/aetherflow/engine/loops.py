"""Event loops in the background, for flows that are run from synchronous code and hold asynchronous nodes.

A run uses the loop of its depth: one started by a coroutine on the first loop blocks that loop, so what it awaits
runs on the second, and so on. The depth travels in the context, into threads and tasks alike.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any, Final, TypeVar

from aetherflow.engine.pool import lent_thread

__all__ = ["run_coroutine"]

T = TypeVar("T")

_depth: Final[ContextVar[int]] = ContextVar("aetherflow_loop_depth", default=0)
_lock = threading.Lock()
_loops: list[asyncio.AbstractEventLoop] = []


def _forget() -> None:  # a forked child has the loops, but not the threads that run them
    global _lock  # noqa: PLW0603  # the module is the one holder of the loops
    _lock = threading.Lock()
    _loops.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _loop(depth: int) -> asyncio.AbstractEventLoop:
    with _lock:
        while len(_loops) <= depth:
            loop = asyncio.new_event_loop()
            name = f"aetherflow-loop-{len(_loops)}"
            threading.Thread(target=loop.run_forever, name=name, daemon=True).start()
            _loops.append(loop)
        return _loops[depth]


def _free_depth() -> int:
    """Return the first depth from the context's on whose loop this thread does not run, and so does not block."""
    depth = _depth.get()
    try:
        here = asyncio.get_running_loop()
    except RuntimeError:
        return depth
    return max(depth, _loops.index(here) + 1) if here in _loops else depth


def run_coroutine(function: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
    """Run a coroutine function on a background loop, in the calling context, and wait for its result.

    An interruption of the wait, such as Ctrl-C, cancels the coroutine.
    """
    depth = _free_depth()

    async def descend() -> tuple[T | None, BaseException | None]:
        _depth.set(depth + 1)
        try:
            return await function(*arguments), None
        except (SystemExit, KeyboardInterrupt, StopIteration) as error:
            return None, error  # raised in a task, these would end the loop or be refused by it

    future = asyncio.run_coroutine_threadsafe(descend(), _loop(depth))
    try:
        with lent_thread():
            value, error = future.result()
    except BaseException:
        future.cancel()
        raise
    if error is not None:
        raise error
    return value  # type: ignore[return-value]  # None only beside an error
