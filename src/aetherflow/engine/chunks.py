"""So many elements at a time: a stage that gives them as lists, or gives what a step makes of each list.

It is one generator for synchronous runs and one for asynchronous runs, which differ in nothing but their waiting.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count, islice
from math import ceil
from typing import Any

from opentelemetry.context import get_current

from aetherflow.config import perf_config
from aetherflow.engine.drivers import Driver
from aetherflow.engine.execution import told
from aetherflow.engine.feeds import feed_of
from aetherflow.engine.loops import drive
from aetherflow.engine.plan import PARTITION, ChunkedOp, Slots
from aetherflow.engine.streaming import Stream, stream_over
from aetherflow.errors import StreamError
from aetherflow.telemetry.conventions import BATCH_COUNT, BATCH_INDEX, BATCH_SIZE

__all__ = ["chunks_of"]

Work = Callable[[Slots, Driver], Coroutine[Any, Any, Any]]


class _Elements:
    """The elements of a list, a number at a time."""

    def __init__(self, elements: Sequence[Any]) -> None:
        self._rest = iter(elements)

    def take(self, number: int) -> list[Any]:
        return list(islice(self._rest, number))

    async def atake(self, number: int) -> list[Any]:
        return self.take(number)


def chunks_of(
    elements: Sequence[Any] | None, value: Any, op: ChunkedOp, slots: Slots, driver: Driver, work: Work | None
) -> Stream[Any]:
    """Return the stage over a value.

    Args:
        elements: The value's elements, where they are there already.
        value: What to iterate over, where they are not.
        op: What is to be done.
        slots: What a chunk's own slots are a copy of.
        driver: How it is done.
        work: Carries out what is made of a chunk and returns the results; None to give the chunk itself.
    """
    size = op.size or perf_config.batch_size
    source = stream_over(value, op.name) if elements is None else _Elements(elements)
    number = None if elements is None else ceil(len(elements) / size)
    # A copy of the slots and a driver apart, which do not hold the stream itself: it ends as soon as it is forgotten.
    chunk = partial(_chunk_slots, op, slots.copy(), number)
    make: Any = _awaiting if driver.awaiting else _blocking
    observe = partial(driver.observer.begin, op.site, told(op, slots), (), get_current())
    generator = make(op, source, size, chunk, driver.apart(), work)
    return Stream(feed_of(generator, driver.home()), op.site.span_name, observe, op.site)


def _chunk_slots(op: ChunkedOp, slots: Slots, number: int | None, index: int, chunk: list[Any]) -> Slots:
    copy = slots.copy()
    copy[PARTITION] = extra = {BATCH_INDEX: index, BATCH_SIZE: len(chunk)}
    if number is not None:
        extra[BATCH_COUNT] = number
    value, copy[op.source] = copy[op.source], chunk
    for alias in op.aliases:
        if copy[alias] is value:
            copy[alias] = chunk
    return copy


Slotted = Callable[[int, list[Any]], Slots]


def _blocking(
    op: ChunkedOp, source: Any, size: int, slotted: Slotted, driver: Driver, work: Work | None
) -> Iterator[Any]:
    for index in count():
        chunk = source.take(size)
        if not chunk:
            return
        if work is None:
            yield chunk
        else:
            results = _checked(op, drive(work(slotted(index, chunk), driver.apart())))
            yield from results if isinstance(results, Iterable) else stream_over(results, op.name)


async def _awaiting(
    op: ChunkedOp, source: Any, size: int, slotted: Slotted, driver: Driver, work: Work | None
) -> AsyncIterator[Any]:
    for index in count():
        chunk = await source.atake(size)
        if not chunk:
            return
        if work is None:
            yield chunk
            continue
        results = _checked(op, await work(slotted(index, chunk), driver.apart()))
        if isinstance(results, AsyncIterable):
            async with stream_over(results, op.name) as items:
                async for item in items:
                    yield item
        else:
            for item in results:
                yield item


def _checked(op: ChunkedOp, results: Any) -> Iterable[Any] | AsyncIterable[Any]:
    if isinstance(results, Iterable | AsyncIterable) and not isinstance(results, str | bytes | Mapping):
        return results
    reason = f"got a {type(results).__name__} for a batch; allowed: an iterable of results, such as a list"
    raise StreamError(op.site.span_name, reason)
