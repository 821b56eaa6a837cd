"""Generators as results: one span from the first pull to the end, never current across a ``yield``.

A span that stayed current while a generator is suspended would be current in the consumer's code too. So each pull
makes it current, takes an item, and lets go of it before handing the item out.

A stream is for synchronous and asynchronous code alike. Its :class:`Feed` makes the items in either world; what is
left to do around a pull or a close is one coroutine, which synchronous code drives and asynchronous code awaits.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from enum import Enum, auto
from itertools import islice
from opcode import opmap
from types import FrameType, TracebackType
from typing import Any, Final, Self, TypeVar, cast

from aetherflow.engine.feeds import Feed, LeakedStop, feed_of
from aetherflow.engine.loops import drive, off_loop
from aetherflow.engine.under_way import begin_stream, end_stream
from aetherflow.errors import StreamError
from aetherflow.telemetry.conventions import STREAM_ITEMS, STREAM_ITEMS_METRIC
from aetherflow.telemetry.metrics.accumulators import registry
from aetherflow.telemetry.observation import Observation, Site, mark_handled
from aetherflow.telemetry.observer import emit_late
from aetherflow.user_exceptions import add_note, is_error, summary_of

__all__ = ["Stream", "StreamClosing", "close_all", "stream_over"]

T_co = TypeVar("T_co", covariant=True)
Ended = Callable[[BaseException | None], None]


class StreamClosing(GeneratorExit):
    """The exception of a pull whose stream is being closed, unlike a ``GeneratorExit`` that user code raises."""


class _ExitFailure(Exception):  # noqa: N818  # it has the name of the exception that it stands for
    """A stand-in on spans for a ``GeneratorExit`` from the code of a stage, which would count as a cancellation."""


_ExitFailure.__name__ = _ExitFailure.__qualname__ = GeneratorExit.__name__
_ExitFailure.__module__ = GeneratorExit.__module__


class _State(Enum):
    NEW = auto()  # never pulled
    IDLE = auto()
    PULLED = auto()  # someone takes an item now
    CLOSING = auto()
    OVER = auto()  # exhausted, failed, or closed by its reader
    CUT = auto()  # closed with its run


_IDLE: Final = _State.IDLE  # what each pull looks at
_PULLED: Final = _State.PULLED


class Stream(Iterator[T_co], AsyncIterator[T_co]):
    """The items of a generator node, pulled one by one; a context manager that closes it.

    Iterate over it with ``for`` or ``async for``, whichever kind the node is. It has one reader: what one branch of a
    flow has taken, another does not see.

    Made by flows, not directly.

    Args:
        feed: What makes the items.
        node: The node's name.
        observe: Begins to observe it, at the first pull; None where nobody does.
        site: Where it is observed.
    """

    __slots__ = (
        "__weakref__",
        "_apull",
        "_ended",
        "_enter",
        "_items",
        "_leave",
        "_observe",
        "_pull",
        "_seen",
        "_state",
        "_told",
        "_upstream",
        "feed",
        "node",
        "site",
    )

    def __init__(
        self, feed: Feed, node: str, observe: Callable[[], Observation] | None = None, site: Site | None = None
    ) -> None:
        self.node = node
        self.site = site
        self.feed = feed
        self._pull = feed.pull
        self._apull = feed.apull
        self._state = _State.NEW
        self._items = 0
        self._told = 0
        self._ended: list[Ended] = []
        self._upstream: Sequence[Stream[Any]] = ()
        self._observe = observe
        self._seen: Observation | None = None
        self._enter: Callable[[], object] | None = None
        self._leave: Callable[[Any], object]

    # --- by whoever runs the flow ----------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether there may be more items."""
        return self._state in (_State.NEW, _State.IDLE, _State.PULLED)

    @property
    def is_new(self) -> bool:
        """Return whether nothing has been pulled yet."""
        return self._state is _State.NEW

    def on_end(self, ended: Ended) -> None:
        """Have ``ended`` called once, with the error if there was one, when the stream is exhausted or closed."""
        self._ended.append(ended)

    def close_after(self, upstream: Sequence[Stream[Any]]) -> None:
        """Have other streams, which it may pull, closed when it is over."""
        self._upstream = upstream

    # --- pulling -----------------------------------------------------------------------------------------------

    def __iter__(self) -> Self:
        return self

    def __aiter__(self) -> Self:
        return self

    def __next__(self) -> T_co:
        if self._state is not _IDLE:
            self._ready(StopIteration)
        self._state = _PULLED
        try:
            if (enter := self._enter) is None:
                item = self._pull()
            else:
                token = enter()
                try:
                    item = self._pull()
                finally:
                    self._leave(token)
        except StopIteration:
            drive(self._end(None, awaiting=False))
            raise
        except BaseException as error:
            drive(self._end(error, awaiting=False))
            raise
        self._state = _IDLE
        self._items += 1
        return cast("T_co", item)

    async def __anext__(self) -> T_co:
        if self._state is not _IDLE:
            self._ready(StopAsyncIteration)
        self._state = _PULLED
        try:
            if (enter := self._enter) is None:
                item = await self._apull()
            else:
                token = enter()
                try:
                    item = await self._apull()
                finally:
                    self._leave(token)
        except StopAsyncIteration:
            await self._end(None, awaiting=True)
            raise
        except LeakedStop as stop:
            await self._end(stop.error, awaiting=True)
            raise stop.visible() from stop.error
        except BaseException as error:
            if is_error(error, GeneratorExit) and not _is_awaited(sys._getframe()):
                self._pause()
            else:
                await self._end(error, awaiting=True)
            raise
        self._state = _IDLE
        self._items += 1
        return cast("T_co", item)

    def take(self, count: int) -> list[T_co]:
        """Pull so many items, fewer where there are no more, with at most one detour over an event loop."""
        home = self.feed.home
        return list(islice(self, count)) if home is None else home.run(self._collect, count)

    async def atake(self, count: int) -> list[T_co]:
        """Pull so many items, fewer where there are no more, with at most one detour over a thread."""
        if self.feed.awaits:
            return await self._collect(count)
        try:
            return await off_loop(list, islice(self, count))
        except StopAsyncIteration as error:
            raise LeakedStop(error).visible() from error

    async def _collect(self, count: int) -> list[T_co]:
        found: list[T_co] = []
        if count:
            async for item in self:
                found.append(item)
                if len(found) == count:
                    break
        return found

    def _ready(self, ended: type[BaseException]) -> None:
        """Begin with the first pull; refuse one that cannot be, with ``ended`` where there are no more items."""
        match self._state:
            case _State.NEW:
                self._begin()
            case _State.PULLED:
                raise StreamError(self.node, "is being pulled already; allowed: one reader at a time")
            case _State.CLOSING:
                raise StreamClosing
            case _State.CUT:
                raise StreamError(self.node, "was closed with its run; to keep it, end the flow with it")
            case _:
                raise ended

    def _begin(self) -> None:
        if self._observe is None:
            return
        seen = self._seen = self._observe()
        if self.site is not None:
            begin_stream(self)
        if type(seen).enter is not Observation.enter:  # which does nothing
            self._enter, self._leave = seen.enter, seen.leave

    async def _end(self, failure: BaseException | None, *, awaiting: bool) -> None:
        """End with the exception that a pull raised; None if there are no more items."""
        if failure is not None and is_error(failure, StreamClosing):
            self._pause()
            return
        self._state = _State.OVER
        if failure is not None:
            try:  # a pull that was interrupted leaves what makes the items where it is
                await self._close_feed(awaiting=awaiting)
            except Exception as another:  # noqa: BLE001  # told with the first one
                _tell_too(failure, another)
        await self._settle(failure, awaiting=awaiting)

    def _pause(self) -> None:
        """Leave a pull that is being closed; the caller that closes it ends the stream."""
        self._state = _IDLE if self._state is _PULLED else self._state

    # --- closing -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Take no more items: have the ``finally`` clauses run, in this stage and those before it, and end the spans.

        Where stages run on threads of their own, those are waited for.
        """
        drive(self._close(awaiting=False))

    async def aclose(self) -> None:
        """Do what :meth:`close` does, without blocking the event loop."""
        await self._close(awaiting=True)

    async def _close(self, *, awaiting: bool, cut: bool = False) -> None:
        if self._state is _PULLED and not (self.feed.home is None and self.feed.awaits):
            self._ready(StopIteration)
        if not self.is_open:
            return
        self._state = _State.CLOSING
        token = None if self._enter is None else self._enter()
        failure: BaseException | None = None
        try:
            await self._close_feed(awaiting=awaiting)
        except BaseException as error:  # noqa: BLE001  # raised below, when all is closed
            failure = error
        finally:
            if self._enter is not None:
                self._leave(token)
        self._state = _State.CUT if cut else _State.OVER
        await self._settle(failure, awaiting=awaiting)
        if failure is not None:
            raise failure

    async def _close_feed(self, *, awaiting: bool) -> None:
        for stream in (self, *reversed(self._upstream)):  # first, since what makes the items may wait for one of those
            stream.feed.cancel()
        await self.feed.aclose() if awaiting else self.feed.close()

    async def _settle(self, failure: BaseException | None, *, awaiting: bool) -> None:
        """End the span, close what was pulled, and tell whoever wants to know of the end."""
        self._end_span(failure)
        upstream, self._upstream = self._upstream, ()
        closing = None
        try:
            await close_all(upstream, awaiting=awaiting, failure=failure)
        except BaseException as error:
            closing = error
            raise
        finally:
            self._tell(closing if failure is None else failure)

    def tell(self) -> None:
        """Count in the metrics the items that were pulled since this was last called; from any thread."""
        with registry.lock:
            new, self._told = self._items - self._told, self._items
        if new and self.site is not None:
            emit_late(self.site.series_of(STREAM_ITEMS_METRIC), new)

    def _end_span(self, failure: BaseException | None) -> None:
        end_stream(self)
        self.tell()
        seen, self._seen = self._seen, None
        if seen is not None:
            seen.set({STREAM_ITEMS: self._items})
            seen.end_apart(_on_span(failure))

    def _tell(self, failure: BaseException | None) -> None:
        callbacks, self._ended = self._ended, []
        for ended in callbacks:
            ended(_on_span(failure))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if not self.is_open:
            return
        self._state = _State.OVER
        for stream in reversed(self._upstream):
            stream.feed.cancel()
        try:
            token = None if self._enter is None else self._enter()
            try:
                self.feed.drop()
            finally:
                if self._enter is not None:
                    self._leave(token)
        finally:
            self._end_span(None)
            self._tell(None)


def stream_over(items: Iterable[Any] | AsyncIterable[Any], node: str) -> Stream[Any]:
    """Return an iterable's items as a stream that nobody observes; of a stream, the stream itself.

    Args:
        items: What to iterate over.
        node: Whose output it is.
    """
    return items if isinstance(items, Stream) else Stream(feed_of(items), node)


async def close_all(streams: Sequence[Stream[Any]], *, awaiting: bool, failure: BaseException | None = None) -> None:
    """Close the streams of a run, the last one first, whatever each of them raises.

    Args:
        streams: In the order in which they were opened.
        awaiting: Whether to await, or to block.
        failure: The error that this is done for; it is told of what closing raises, which is raised otherwise.
    """
    errors: list[Exception] = []
    for stream in reversed(streams):
        if stream.is_open:
            stream.feed.cancel()
    for stream in reversed(streams):
        try:
            await stream._close(awaiting=awaiting, cut=True)
        except Exception as error:  # noqa: BLE001  # raised below, when all are closed
            errors.append(error)
    if failure is not None:
        for another in errors:
            _tell_too(failure, another)
    elif len(errors) == 1:
        raise errors[0]
    elif errors:
        raise mark_handled(ExceptionGroup(f"{len(errors)} streams failed to close", errors), errors)


def _tell_too(failure: BaseException, another: BaseException) -> None:
    add_note(failure, f"aetherflow: closing its streams failed too: {summary_of(another)}")


def _on_span(failure: BaseException | None) -> BaseException | None:
    """Return the exception that spans record for a failure of a stream."""
    if failure is None or not is_error(failure, GeneratorExit) or is_error(failure, StreamClosing):
        return failure
    return _ExitFailure(*failure.args).with_traceback(failure.__traceback__)


def _is_awaited(frame: FrameType) -> bool:
    """Return whether the current task awaits a coroutine, given the frame that executes it.

    A ``GeneratorExit`` in a coroutine that is awaited was raised by the code that it awaits. A coroutine that is
    discarded gets the exception from outside, and must not await anything then: other code has called its frame.
    """
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop is running
        return False
    while frame.f_back is not None and _awaits(frame.f_back):
        frame = frame.f_back
    return task is not None and getattr(task.get_coro(), "cr_frame", None) is frame


def _awaits(frame: FrameType) -> bool:
    """Return whether the current instruction of a frame is an ``await``."""
    code = frame.f_code.co_code
    index = frame.f_lasti
    while index > 0 and code[index] == _CACHE:  # these belong to the instruction before them
        index -= 2
    return code[index] == _SEND


_CACHE: Final = opmap["CACHE"]
_SEND: Final = opmap["SEND"]
