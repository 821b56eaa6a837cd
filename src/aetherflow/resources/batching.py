"""`Batcher`: callers each give one item, and one call of the function is made for many of them.

Which items belong together and when they begin is kept by `aetherflow.resources.gathering`, under a lock; here the
function is called, by one of the callers and without that lock.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, Concatenate, Generic, Self, TypeAlias, TypeVar

from opentelemetry import trace
from opentelemetry.trace import SpanContext

from aetherflow.config import perf_config
from aetherflow.errors import ConfigurationError
from aetherflow.resources.carrying import BatchInterruptedError, BatchItemError, BatchResultError, Carrier
from aetherflow.resources.gathering import (
    Batch,
    BatcherClosedError,
    BatchStatistics,
    Entry,
    Gathering,
    Given,
    Placement,
    open_gate,
    pass_gate,
)
from aetherflow.resources.item_groups import ItemGroup
from aetherflow.resources.leaving import flush_at_exit
from aetherflow.telemetry import shield
from aetherflow.telemetry.forks import renew_in_children

__all__ = [
    "BatchInterruptedError",
    "BatchItemError",
    "BatchPolicy",
    "BatchResultError",
    "BatchStatistics",
    "Batcher",
    "BatcherClosedError",
    "Results",
]

T = TypeVar("T")
R = TypeVar("R")
Results: TypeAlias = Sequence[R | BatchItemError]
"""What a batched function returns: a result for each item, or an error in its place."""


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """How calls of a node become batches: ``@node(batch=BatchPolicy(size=100, max_wait=1.0))``.

    Args:
        size: Items in a batch at most; None for the setting ``AETHER_BATCH_SIZE``.
        max_wait: Seconds that an item waits for its batch at most; None for ``AETHER_MAX_BATCH_WAIT``.
        retry_singly: Whether, when the function raises, it is called again with each item alone, so that only those
            fail that are at fault. False where a second call would do harm: then all items fail.
        clock: Monotonic time in seconds.

    Raises:
        ConfigurationError: A value is not allowed.
    """

    size: int | None = None
    max_wait: float | None = None
    retry_singly: bool = True
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        _check_limits("BatchPolicy", self.size, self.max_wait)


class Batcher(Generic[T, R]):
    """Collect the items of many callers and call a function with a list of them; every call may come from any thread.

    The caller that fills a batch carries it out; one that is not full is begun by a caller that has waited for
    ``max_wait``. A synchronous function runs on the thread of a caller, for async callers on another thread; a
    coroutine function is awaited on the event loop of an async caller, for threads alone on a loop made for it.

    A batch has a span of its own, which links to the spans that its items come from. As a context manager a batcher
    closes itself; batches that are open when the interpreter exits are carried out then.

    Args:
        func: ``def f(items: list[T]) -> list[R]``, or ``async def``: one result for each item, in order. An exception
            in the place of a result, such as `BatchItemError`, is raised to the caller of that item.
        size: Items in a batch at most; None for the setting ``AETHER_BATCH_SIZE``.
        max_wait: Seconds that an item waits for its batch at most; None for ``AETHER_MAX_BATCH_WAIT``.
        retry_singly: As in `BatchPolicy`.
        name: In errors, spans and statistics; by default the function's.
        clock: Monotonic time in seconds.
        on_item: Called in each caller's context, once its batch has ended, with where its item was; must not raise.
        on_thread: Has a thread do some work, for async callers of a synchronous function.
        expected: Exceptions of the function that are no failures of a batch.

    Raises:
        ConfigurationError: An argument has a value that is not allowed.
    """

    def __init__(
        self,
        func: Callable[Concatenate[list[T], ...], Results[R] | Awaitable[Results[R]]],
        size: int | None = None,
        max_wait: float | None = None,
        *,
        retry_singly: bool = True,
        name: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_item: Callable[[Placement], object] | None = None,
        on_thread: Callable[[Callable[[], object]], object] | None = None,
        expected: tuple[type[Exception], ...] = (),
    ) -> None:
        _check_limits("Batcher", size, max_wait)
        if not callable(func):
            raise ConfigurationError(f"Batcher(func={func!r}): allowed is a function of a list of items")
        name = name or getattr(func, "__name__", None) or type(func).__name__
        self.name: str = name
        self.size = perf_config.batch_size if size is None else size
        self.max_wait = perf_config.max_batch_wait_time if max_wait is None else max_wait
        self.clock = clock
        self._gathering = Gathering(name, self.size, self.max_wait, clock)
        self._carrier = Carrier(self._gathering, func, self._land, retry_singly=retry_singly, expected=expected)
        self._on_item = on_item
        self._on_thread = on_thread or _on_thread_of_loop
        self._tasks: set[asyncio.Task[None]] = set()  # a loop itself keeps its tasks only weakly
        renew_in_children(self)
        flush_at_exit(self)

    @property
    def is_async(self) -> bool:
        """Whether the function is awaited."""
        return self._carrier.is_async

    # --- callers -------------------------------------------------------------------------------------------

    def run(self, item: T, *args: Any, **kwargs: Any) -> R:
        """Give an item and return its result; blocks until its batch has ended.

        Args:
            item: Goes into the list that the function takes.
            args: What the function takes after the items. Only calls with the very same objects share a batch.
            kwargs: The same by name.

        Raises:
            BatcherClosedError: No more items are taken.
            BatchResultError: The function did not return one result for each item.
            BatchInterruptedError: What carried the batch out was stopped.
            Exception: What the function raised, or returned in the place of the result.
        """
        return self.run_with(Given((), item, args, kwargs))

    async def arun(self, item: T, *args: Any, **kwargs: Any) -> R:
        """Do what `run` does without blocking the event loop.

        The item of a caller that is cancelled is dropped, unless its batch has begun.
        """
        return await self.arun_with(Given((), item, args, kwargs))

    def run_with(self, given: Given) -> R:
        """Do what `run` does, also with arguments that the function takes before the items."""
        if self.is_async and asyncio._get_running_loop() is not None:
            raise ConfigurationError(
                f"batcher {self.name!r}: run() would block the event loop that it is called on; allowed: await arun()"
            )
        entry = Entry(given, _origin())
        try:
            batch = self._gathering.enter(entry)
            self._wait(entry, batch)
        except BaseException:
            self.leave(entry)
            raise
        return self._came(entry)

    async def arun_with(self, given: Given) -> R:
        """Do what `arun` does, also with arguments that the function takes before the items."""
        loop = asyncio.get_running_loop()
        entry = Entry(given, _origin(), loop)
        try:
            batch = self._gathering.enter(entry)
            if batch.leader is entry:
                self.begin_on(loop, batch)
            else:
                self.time_on(loop, batch)
            await entry.future
        except BaseException:
            self.leave(entry)
            raise
        return self._came(entry)

    def group(self, *, waits: bool = True) -> ItemGroup:
        """Return a group of items, for a caller that has many.

        Args:
            waits: Whether its last batch waits to be filled by items of other callers.
        """
        return ItemGroup(self, self._gathering, waits=waits)

    def flush(self) -> None:
        """Carry out what is waiting: on this thread, or on an event loop begin to."""
        loop = asyncio._get_running_loop()
        while (batch := self._gathering.take_any()) is not None:
            if loop is None:
                self.carry_out(batch)
            else:
                self.begin_on(loop, batch)

    def close(self) -> None:
        """Take no more items, and carry out what is waiting. Closing again does nothing."""
        self._gathering.closed = True
        self.flush()

    def statistics(self) -> BatchStatistics:
        """Count what is and what was.

        Returns:
            A frozen snapshot.
        """
        return self._gathering.statistics()

    def is_busy(self) -> bool:
        """Tell whether a batch is under way."""
        return self.statistics().running > 0

    def after_fork(self) -> None:
        """Go on in a child process, where nobody waits."""
        self._gathering.renew()
        self._tasks = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # --- waiting and leaving -------------------------------------------------------------------------------

    def _wait(self, entry: Entry, batch: Batch) -> None:
        """Block until the item is done; carry its batch out where that falls to this thread."""
        gathering, gate = self._gathering, entry.gate
        assert gate is not None  # a thread waits
        while not entry.is_done:
            is_due = batch.keeper is entry and gathering.clock() >= batch.due
            if batch.leader is entry or (is_due and gathering.take(batch, entry)):
                self.carry_out(batch)
            elif batch.keeper is entry and not batch.taken:
                pass_gate(gate, max(0.0, batch.due - gathering.clock()))
            else:
                pass_gate(gate)

    def leave(self, entry: Entry) -> None:
        """See to it that nobody else waits in vain for a caller that has stopped waiting."""
        keeper = self._gathering.withdraw(entry)
        if keeper is not None:
            open_gate(keeper.gate)
        batch = entry.batch
        if batch is not None and batch.leader is entry and not batch.begun:
            self.hand_over(batch, entry)

    def _came(self, entry: Entry) -> R:
        if self._on_item is not None:
            try:
                self._on_item(entry.placement)
            except Exception as failure:  # noqa: BLE001  # rule 3: telemetry never breaks the host
                shield.caught(failure, "recording where an item was")
        return entry.outcome()  # type: ignore[no-any-return]  # the function's own

    # --- beginning -----------------------------------------------------------------------------------------

    def time_on(self, loop: asyncio.AbstractEventLoop, batch: Batch) -> None:
        """Begin a batch from the event loop that this is called on when it is due."""
        if loop not in batch.timers:
            delay = max(0.0, batch.due - self._gathering.clock())
            batch.timers[loop] = loop.call_later(delay, self._come_due, loop, batch)

    def _come_due(self, loop: asyncio.AbstractEventLoop, batch: Batch) -> None:
        if self._gathering.take(batch):
            self.begin_on(loop, batch)

    def begin_on(self, loop: asyncio.AbstractEventLoop, batch: Batch) -> None:
        """Have a batch carried out without blocking the event loop that this is called on."""
        if self.is_async:
            task = loop.create_task(self._carrier.carry_out(batch))
            self._tasks.add(task)
            task.add_done_callback(partial(self._end_task, batch))
        else:
            self.hand_over(batch)

    def _end_task(self, batch: Batch, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not batch.begun:  # cancelled before its first step, as when its loop ends
            self.hand_over(batch)
        elif not task.cancelled():
            task.exception()  # asyncio would log it, although the callers of the batch have it

    def hand_over(self, batch: Batch, instead_of: Entry | None = None) -> None:
        """Have another thread carry a batch out: one that waits for it, since others may all be waiting for more."""
        leader = self._gathering.appoint(batch, instead_of)
        if leader is not None:
            open_gate(leader.gate)
            return
        context = copy_context()

        def work() -> None:
            context.run(self._carry_out_apart, batch)

        try:
            self._on_thread(work)
        except RuntimeError:  # no more threads are to be had: the interpreter exits
            work()

    # --- carrying out --------------------------------------------------------------------------------------

    def carry_out(self, batch: Batch) -> None:
        """Carry a batch out on this thread."""
        work = self._carrier.carry_out(batch)
        try:
            if self.is_async:
                asyncio.run(work)
            else:
                _drive(work)
        except BaseException as error:
            work.close()
            self._carrier.interrupt(batch, error)  # if there was no event loop to begin it on
            raise

    def _carry_out_apart(self, batch: Batch) -> None:
        with suppress(BaseException):  # those who wait for it have been told
            self.carry_out(batch)

    def _land(self, batch: Batch) -> None:
        """Let those go on who wait for a batch that has ended."""
        batch.ended = True
        by_loop: dict[asyncio.AbstractEventLoop, list[Entry]] = {loop: [] for loop in list(batch.timers)}
        for entry in batch.entries:
            if entry.is_helpful:
                open_gate(entry.gate)
            elif entry.loop is not None:
                by_loop.setdefault(entry.loop, []).append(entry)
        batch.entries, batch.leader, batch.keeper = [], None, None  # entries know their batch: leave no circle
        here = asyncio._get_running_loop()
        for loop, entries in by_loop.items():
            if loop is here:
                _resolve(batch, loop, entries)
            else:
                with suppress(RuntimeError):  # the loop is closed: nobody waits there any more
                    loop.call_soon_threadsafe(_resolve, batch, loop, entries)


def _resolve(batch: Batch, loop: asyncio.AbstractEventLoop, entries: Iterable[Entry]) -> None:
    """Let the tasks of one loop go on, on that loop."""
    timer = batch.timers.pop(loop, None)
    if timer is not None:
        timer.cancel()
    for entry in entries:
        if not entry.future.done():
            entry.future.set_result(None)


def _drive(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never suspends."""
    with suppress(StopIteration):
        coroutine.send(None)


def _origin() -> SpanContext | None:
    context = trace.get_current_span().get_span_context()
    return context if context.is_valid else None


def _on_thread_of_loop(work: Callable[[], object]) -> object:
    return asyncio.get_running_loop().run_in_executor(None, work)


def _check_limits(owner: str, size: object, max_wait: object) -> None:
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise ConfigurationError(f"{owner}(size={size!r}): allowed is a whole number from 1, or None")
    is_number = isinstance(max_wait, int | float) and not isinstance(max_wait, bool)
    if max_wait is not None and not (is_number and 0 < max_wait <= threading.TIMEOUT_MAX):  # type: ignore[operator]
        raise ConfigurationError(f"{owner}(max_wait={max_wait!r}): allowed is a number of seconds above 0, or None")
