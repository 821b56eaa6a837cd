"""Streams whose items are made ahead: each stage on a thread of its own, a bounded number of items between two.

Between two stages is a channel with one sender and one receiver, each a thread or a task. A stage that is asynchronous
is a task of its loop in place of a thread.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any, Final, TypeVar

from aetherflow.engine.feeds import LeakedStop
from aetherflow.engine.loops import running_loop
from aetherflow.engine.streaming import Stream, StreamClosing
from aetherflow.resources.leaving import flush_at_exit
from aetherflow.resources.waiting import TaskWaiter, ThreadWaiter, Waiter
from aetherflow.user_exceptions import is_error

__all__ = ["Channel", "buffered"]

W = TypeVar("W", bound=Waiter[Any])

_BLOCKING: Final[type[ThreadWaiter[None]]] = ThreadWaiter
_AWAITING: Final[type[TaskWaiter[None]]] = TaskWaiter


class _End:
    """What a channel gives in place of an item once there are no more."""


class Channel:
    """Items on their way from one sender to one receiver, a bounded number at a time.

    Args:
        size: The most items that have been sent and not been received.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[Any] = deque()
        self._ended = False
        self._error: BaseException | None = None
        self._sender: Waiter[None] | None = None
        self._receiver: Waiter[None] | None = None
        self._lock = threading.RLock()  # reentrant, for the garbage collector, which may cut it on any thread
        self.is_cut = False

    def send(self, item: object) -> bool:
        """Send an item, once there is room; tell whether anybody receives it."""
        while (waiter := self._offer(item, _BLOCKING)) is not None:
            waiter.wait(None)
        return not self.is_cut

    async def asend(self, item: object) -> bool:
        """Do what :meth:`send` does, waiting without blocking the event loop."""
        while (waiter := self._offer(item, _AWAITING)) is not None:
            await waiter.wait(None)
        return not self.is_cut

    def end(self, error: BaseException | None = None) -> bool:
        """Say that there are no more items, and of what error that is so; tell whether anybody receives it."""
        with self._lock:
            self._ended, self._error = True, error
            self._wake_receiver()
            return not self.is_cut

    def receive(self) -> Any:
        """Take the next item, once there is one.

        Raises:
            StopIteration: There are no more.
            BaseException: What the sender ended with.
            StreamClosing: It is cut.
        """
        while type(item := self._take(_BLOCKING)) is ThreadWaiter:
            item.wait(None)
        if item is _End:
            raise StopIteration
        return item

    async def areceive(self) -> Any:
        """Take the next item without blocking the event loop; raise ``StopAsyncIteration`` at the end.

        Raises:
            LeakedStop: The sender ended with a ``StopAsyncIteration``.
        """
        try:
            while type(item := self._take(_AWAITING)) is TaskWaiter:
                await item.wait(None)
        except StreamClosing:
            _Task.told()
            raise
        except StopAsyncIteration as error:
            raise LeakedStop(error) from error
        if item is _End:
            raise StopAsyncIteration
        return item

    def cut(self) -> None:
        """Have both sides stop: nothing more is sent or received."""
        with self._lock:
            self.is_cut = True
            self._items.clear()
            self._wake_sender()
            self._wake_receiver()

    def _offer(self, item: object, waiter_type: Callable[[float], W]) -> W | None:
        with self._lock:
            if self.is_cut:
                return None
            if len(self._items) < self._size:
                self._items.append(item)
                if self._receiver is not None:
                    self._wake_receiver()
                return None
            waiter = waiter_type(0.0)
            self._sender = waiter
            return waiter

    def _take(self, waiter_type: Callable[[float], Waiter[Any]]) -> Any:
        """Take the next item, or the end, or a waiter to wait with before trying again."""
        with self._lock:
            if self.is_cut:
                raise StreamClosing
            if self._items:
                item = self._items.popleft()
                # The sender is woken later than it could be: fewer switches between threads.
                if self._sender is not None and len(self._items) <= self._size // 2:
                    self._wake_sender()
                return item
            if self._ended:
                error, self._error = self._error, None
                if error is not None:
                    raise error
                return _End
            self._receiver = waiter_type(0.0)
            return self._receiver

    def _wake_sender(self) -> None:
        waiter, self._sender = self._sender, None
        if waiter is not None:
            waiter.wake()

    def _wake_receiver(self) -> None:
        waiter, self._receiver = self._receiver, None
        if waiter is not None:
            waiter.wake()


class _BufferFeed:
    """Another stream's items, which a thread, or a task of its loop, pulls ahead."""

    __slots__ = ("_cancel", "_channel", "_context", "_done", "_loop", "_stream")

    home = None
    awaits = True

    def __init__(self, stream: Stream[Any], size: int) -> None:
        self._stream = stream
        self._channel = Channel(size)
        self._context: Context = copy_context()
        self._done: Future[BaseException | None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._cancel: Callable[[], object] = self._channel.cut

    def pull(self) -> Any:
        if self._done is None:
            self._start()
        return self._channel.receive()

    async def apull(self) -> Any:
        if self._done is None:
            self._start()
        return await self._channel.areceive()

    def _start(self) -> None:
        done: Future[BaseException | None] = Future()
        done.set_running_or_notify_cancel()  # so that a cancelled wait for it leaves it alone
        pump = (self._stream, self._channel, done)
        home = self._stream.feed.home
        if home is None:
            name = f"aetherflow-stream-{self._stream.node}"
            threading.Thread(target=self._context.run, args=(_pump, *pump), name=name, daemon=True).start()
        else:
            task = _Task()
            self._loop = self._context.run(home.begin, _apump, *pump, task)
            self._cancel = partial(task.cancel, self._channel, self._loop)
        self._done = done
        _under_way.begin(done, self._cancel)

    def cancel(self) -> None:
        self._cancel()

    def drop(self) -> None:
        self._cancel()

    def close(self) -> None:
        self._cancel()
        if self._done is None:
            self._stream.close()
        elif self._loop is None or self._loop is not running_loop():  # which would wait for itself
            _raise(self._done.result())

    async def aclose(self) -> None:
        self._cancel()
        if self._done is None:
            await self._stream.aclose()
        else:
            _raise(await asyncio.wrap_future(self._done))


class _Task:
    """The task of a pump, as long as it pulls: a context manager around that."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        _pumping.set(self)

    def __exit__(self, *exc_info: object) -> None:
        self._task = None

    def cancel(self, channel: Channel, loop: asyncio.AbstractEventLoop) -> None:
        """Cut its channel, and cancel it where it waits for anything else."""
        channel.cut()
        with suppress(RuntimeError):  # the loop is closed, and all its tasks with it
            loop.call_soon_threadsafe(self._cancel)

    @staticmethod
    def told() -> None:
        """Do not cancel the current task any more: it has learnt another way, and is closing already."""
        pumping = _pumping.get()
        if pumping is not None and pumping._task is asyncio.current_task():
            pumping._task = None

    def _cancel(self) -> None:
        task, self._task = self._task, None  # once: a second time would hit what closes the stream
        if task is not None:
            task.cancel()


_pumping: Final[ContextVar[_Task | None]] = ContextVar("aetherflow_pumping", default=None)


def _pump(stream: Stream[Any], channel: Channel, done: Future[BaseException | None]) -> None:
    """Send a stream's items until it ends, or nobody receives them."""
    error: BaseException | None = None
    try:
        for item in stream:
            if not channel.send(item):
                break
    except BaseException as raised:  # noqa: BLE001  # handed on to whoever pulls
        error = raised
    failure = _end(channel, error)
    try:
        stream.close()
    except BaseException as raised:  # noqa: BLE001  # handed on to whoever closes
        failure = raised
    _finish(done, failure)


async def _apump(stream: Stream[Any], channel: Channel, done: Future[BaseException | None], task: _Task) -> None:
    error: BaseException | None = None
    try:
        with task:
            while not channel.is_cut:
                try:
                    item = await anext(stream)
                except StopAsyncIteration:
                    break
                if not await channel.asend(item):
                    break
    except BaseException as raised:  # noqa: BLE001  # handed on to whoever pulls
        error = raised
    failure = _end(channel, error)
    try:
        await stream.aclose()
    except BaseException as raised:  # noqa: BLE001  # handed on to whoever closes
        failure = raised
    _finish(done, failure)


def _end(channel: Channel, error: BaseException | None) -> BaseException | None:
    """End a channel with what ended the making of items; return that where it is an error of closing instead."""
    is_closed = error is not None and is_error(error, StreamClosing)
    is_received = channel.end(None if is_closed else error)
    return error if not is_received and _is_of_closing(error) else None


def _finish(done: Future[BaseException | None], failure: BaseException | None) -> None:
    """Report a failure of closing to the caller that closes; an item that nobody receives is no failure."""
    done.set_result(failure if failure is not None and is_error(failure, Exception) else None)


def _raise(failure: BaseException | None) -> None:
    if failure is not None:
        raise failure


def _is_of_closing(error: BaseException | None) -> bool:
    """Tell whether an error came up in a ``finally`` clause, while a generator was told to stop."""
    context = None if error is None else error.__context__
    while context is not None and not is_error(context, (GeneratorExit, asyncio.CancelledError)):
        context = context.__context__
    return context is not None


class _UnderWay:
    """Pumps that have begun and not ended, and what cancels each: at exit threads just stop otherwise."""

    def __init__(self) -> None:
        self._cancels: dict[Future[BaseException | None], Callable[[], object]] = {}
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._cancels.clear)  # the parent's threads are not in the child

    def begin(self, done: Future[BaseException | None], cancel: Callable[[], object]) -> None:
        """Put down that a pump has begun."""
        flush_at_exit(self)
        self._cancels[done] = cancel
        done.add_done_callback(self._cancels.pop)

    def flush(self) -> None:
        """Have all come to their end, and run their ``finally`` clauses."""
        for cancel in list(self._cancels.values()):
            cancel()

    def is_busy(self) -> bool:
        """Tell whether any has not."""
        return bool(self._cancels)


_under_way: Final = _UnderWay()


def buffered(stream: Stream[Any], size: int) -> Stream[Any]:
    """Return a stream whose items are made ahead, on a thread of their own, from the first pull on.

    Args:
        stream: What it takes its items from.
        size: The most items made ahead; their maker waits then.
    """
    return Stream(_BufferFeed(stream, size), stream.node)
