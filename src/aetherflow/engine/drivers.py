"""How a walk executes nodes and branches: by blocking the calling thread, or by awaiting on the running loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any, ClassVar, Protocol, Self, TypeAlias, TypeVar

from aetherflow.engine import pool
from aetherflow.engine.awaitables import awaited, resolved
from aetherflow.engine.backends.dispatch import Submission
from aetherflow.engine.backends.worker import is_worker
from aetherflow.engine.buffering import buffered
from aetherflow.engine.execution import Deferred, links, observed, observed_async, observed_or_deferred, opened, told
from aetherflow.engine.graph import Kind
from aetherflow.engine.loops import Home, drive, off_loop, run_coroutine
from aetherflow.engine.plan import CallOp, Slots
from aetherflow.engine.pool import Outcome
from aetherflow.engine.streaming import Stream, close_all
from aetherflow.engine.together import Calls
from aetherflow.engine.under_way import begin_apart, end_apart
from aetherflow.resources.gathering import Entry
from aetherflow.resources.item_groups import ItemGroup
from aetherflow.telemetry.observation import Observer
from aetherflow.user_exceptions import is_error

__all__ = ["AsyncDriver", "Driver", "SyncDriver"]

T = TypeVar("T")
Work: TypeAlias = "Callable[[Driver], Sequence[Callable[[], Coroutine[Any, Any, Any]]]]"


class Driver(Protocol):
    """Executes what a walk comes upon."""

    observer: Observer

    @property
    def awaiting(self) -> bool:
        """Whether it awaits, or blocks."""
        ...

    def home(self) -> Home | None:
        """Return the loop that asynchronous generators are to run on; None for that of their first pull."""
        ...

    def hold(self, stream: Stream[Any]) -> Stream[Any]:
        """Take a stream for one of the run's, which are made ahead if the run says so, and are closed with it."""
        ...

    def apart(self) -> Self:
        """Return one of the same kind for a part of the run whose streams are its own."""
        ...

    async def call(self, op: CallOp, slots: Slots) -> Any:
        """Execute a node and return its result."""
        ...

    async def side_by_side(
        self, work: Sequence[Callable[[], Coroutine[Any, Any, Any]]], limit: int | None, *, stop_on_error: bool
    ) -> list[Outcome]:
        """Walk branches at once, at most ``limit``, and wait for all that began."""
        ...

    async def as_tasks(self, work: Work, limit: int | None, *, stop_on_error: bool) -> list[Outcome]:
        """Do the same with branches that wait for each other, for which a thread each would be too much.

        Args:
            work: Gives the branches, for the driver that walks them.
            limit: The most at once.
            stop_on_error: Whether no more begin once one has failed.
        """
        ...

    async def give(self, group: ItemGroup, calls: Calls, is_last: bool) -> Sequence[Entry]:
        """Pass items to a batcher and wait for the batches that they fill; if they are the last items, for all."""
        ...

    async def resolve(self, value: Any) -> Any:
        """Return a value, awaited if it is awaitable."""
        ...

    async def prepared(self, op: CallOp, slots: Slots) -> Slots:
        """Return the slots of an execution with its injected objects awaited."""
        ...

    async def finish(self, result: Any = None, failure: BaseException | None = None) -> None:
        """Close the streams that were opened, but those that the result still pulls.

        Args:
            result: What the run returns.
            failure: What it raises instead.
        """
        ...


class _Opening:
    """What both drivers have in common: the streams they have opened.

    Args:
        observer: What observes executions.
        buffer: The most items that each stage makes ahead, on a thread of its own; None for stages that make an item
            when it is pulled.
    """

    __slots__ = ("_buffer", "_streams", "observer")

    awaiting: ClassVar[bool]

    def __init__(self, observer: Observer, buffer: int | None = None) -> None:
        self.observer = observer
        self._buffer = buffer
        self._streams: list[Stream[Any]] = []

    def apart(self) -> Self:
        """Return one of the same kind for a part of the run whose streams are its own."""
        return type(self)(self.observer)

    def hold(self, stream: Stream[Any]) -> Stream[Any]:
        """Take a stream for one of the run's, which are made ahead if the run says so, and are closed with it."""
        if self._buffer is not None:
            stream = buffered(stream, self._buffer)
        self._streams.append(stream)
        return stream

    async def finish(self, result: Any = None, failure: BaseException | None = None) -> None:
        """Close the streams that were opened, but those that the result still pulls."""
        left = [stream for stream in self._streams if stream is not result and stream.is_open]
        if not left:
            return
        if type(result) is Stream and result.is_open:
            result.close_after(left)
        elif not _may_pull(result):
            await close_all(left, awaiting=self.awaiting, failure=failure)


def _may_pull(result: Any) -> bool:
    """Return whether a result is an iterator, or contains iterators, as the results of a fan-out or map may."""
    parts = result.values() if type(result) is dict else result if type(result) in (list, tuple) else ()
    return any(issubclass(type(part), Iterator | AsyncIterator) for part in (result, *parts))


class SyncDriver(_Opening):
    """Executes on the calling thread, with company from the pool; asynchronous nodes on a background loop."""

    __slots__ = ()

    awaiting = False

    def home(self) -> None:
        """Asynchronous generators run on the loop of their first pull."""

    async def call(self, op: CallOp, slots: Slots) -> Any:
        """Execute a node and return its result."""
        if op.executor is not None and not is_worker():
            key = begin_apart(op.site)
            try:
                return _sent(self.observer, op, slots).wait()
            finally:
                end_apart(key)
        if op.kind is Kind.SYNC:
            return observed(self.observer, op, slots)
        if op.kind is Kind.ASYNC:
            return run_coroutine(observed_async, self.observer, op, slots)
        return self.hold(opened(self.observer, op, await self.prepared(op, slots)))

    async def prepared(self, op: CallOp, slots: Slots) -> Slots:
        """Return the slots of an execution with its injected objects awaited, on a background loop."""
        return slots if op.prepare is None else run_coroutine(op.prepare, slots)

    async def side_by_side(
        self, work: Sequence[Callable[[], Coroutine[Any, Any, Any]]], limit: int | None, *, stop_on_error: bool
    ) -> list[Outcome]:
        """Walk branches on the calling thread, with company from the pool."""
        calls = [partial(_drive_new, make) for make in work]
        return pool.side_by_side(calls, limit, stop_on_error=stop_on_error)

    async def as_tasks(self, work: Work, limit: int | None, *, stop_on_error: bool) -> list[Outcome]:
        """Walk branches as tasks of a background loop."""
        driver = AsyncDriver(self.observer, self._buffer)
        driver._streams = self._streams  # they end with the run, not with these branches
        return run_coroutine(partial(driver.side_by_side, stop_on_error=stop_on_error), work(driver), limit)

    async def give(self, group: ItemGroup, calls: Calls, is_last: bool) -> Sequence[Entry]:
        """Pass items to a batcher and block until the batches have ended."""
        return run_coroutine(group.agive, calls, is_last) if group.is_async else group.give(calls, is_last)

    async def resolve(self, value: Any) -> Any:
        """Return a value, awaited on a background loop if it is awaitable."""
        return resolved(value)


def _drive_new(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return drive(make())


class AsyncDriver(_Opening):
    """Awaits asynchronous nodes; moves synchronous ones off the loop, to the pool."""

    __slots__ = ()

    awaiting = True

    def home(self) -> Home:
        """Return the running loop."""
        return Home(asyncio.get_running_loop())

    async def call(self, op: CallOp, slots: Slots) -> Any:
        """Execute a node and return its result."""
        op = op.on_loop or op
        if op.executor is not None and not is_worker():
            key = begin_apart(op.site)
            try:
                return await _sent(self.observer, op, slots).arrival(off_loop)
            finally:
                end_apart(key)
        if op.kind is Kind.SYNC:
            result = await off_loop(observed_or_deferred, self.observer, op, slots)
            return await result.finish() if type(result) is Deferred else result
        if op.kind is Kind.ASYNC:
            return await observed_async(self.observer, op, slots)
        return self.hold(opened(self.observer, op, await self.prepared(op, slots), self.home()))

    async def prepared(self, op: CallOp, slots: Slots) -> Slots:
        """Return the slots of an execution with its injected objects awaited."""
        return slots if op.prepare is None else await op.prepare(slots)

    async def side_by_side(
        self, work: Sequence[Callable[[], Coroutine[Any, Any, Any]]], limit: int | None, *, stop_on_error: bool
    ) -> list[Outcome]:
        """Walk branches as tasks of the running loop."""
        outcomes = [Outcome() for _ in work]
        todo = iter(range(len(work)))
        stopped = False

        async def worker() -> None:
            nonlocal stopped
            for index in todo:
                if stopped:
                    return
                try:
                    outcomes[index].value = await asyncio.create_task(work[index](), context=copy_context())
                    outcomes[index].done = True
                except (Exception, asyncio.CancelledError) as error:  # handed on to the flow
                    if _is_cancelled():
                        raise
                    outcomes[index].error = error
                    stopped = stopped or stop_on_error or not is_error(error, Exception)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(len(work), limit or len(work))):
                group.create_task(worker())
        return outcomes

    async def as_tasks(self, work: Work, limit: int | None, *, stop_on_error: bool) -> list[Outcome]:
        """Walk branches as tasks of the running loop."""
        return await self.side_by_side(work(self), limit, stop_on_error=stop_on_error)

    async def give(self, group: ItemGroup, calls: Calls, is_last: bool) -> Sequence[Entry]:
        """Pass items to a batcher and await the batches."""
        return await group.agive(calls, is_last)

    async def resolve(self, value: Any) -> Any:
        """Return a value, awaited if it is awaitable."""
        return await awaited(value)


def _sent(observer: Observer, op: CallOp, slots: Slots) -> Submission:
    return Submission(observer, op, slots, told(op, slots), links(op, slots))


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
