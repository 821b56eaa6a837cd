"""Exceptions that a generator raises in the middle of its items are the same with and without a buffer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from opentelemetry.trace import StatusCode
from tests.support.stubborn_errors import FalseError, FrozenError, WithoutClassError, WithoutTruthError

from aetherflow import Node, node
from aetherflow.telemetry import conventions as names
from aetherflow.testing import CapturedTelemetry

Flow = Node[..., Any, Any]

PLAIN: dict[str, Callable[[], BaseException]] = {
    "LookupError": lambda: LookupError("broken"),
    "StopIteration": lambda: StopIteration("broken"),
    "StopAsyncIteration": lambda: StopAsyncIteration("broken"),
    "GeneratorExit": lambda: GeneratorExit("broken"),
    "CancelledError": lambda: asyncio.CancelledError("broken"),
    "KeyboardInterrupt": lambda: KeyboardInterrupt("broken"),
    "SystemExit": lambda: SystemExit("broken"),
}
STUBBORN: dict[str, Callable[[], BaseException]] = {
    kind.__name__: lambda kind=kind: kind(7)  # type: ignore[misc]  # a default has no inferred type
    for kind in (FrozenError, FalseError, WithoutTruthError, WithoutClassError)
}
INTERRUPTIONS = ("CancelledError", "KeyboardInterrupt", "SystemExit")
errors = pytest.mark.parametrize("exception", [*PLAIN, *STUBBORN])
awaiting = pytest.mark.parametrize("awaited", [False, True], ids=["stream", "astream"])
ITEMS = 5


class Counter:
    """An iterator that is no generator: its errors reach whoever pulls as they are."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.items = iter(range(ITEMS))

    def __iter__(self) -> Counter:
        return self

    def __next__(self) -> int:
        for item in self.items:
            return item
        raise self.error


class AsyncCounter(Counter):
    def __aiter__(self) -> AsyncCounter:
        return self

    async def __anext__(self) -> int:
        return next(self)


def source(kind: str, exception: str) -> Flow:
    """Return a node that yields some items and then raises an exception."""
    make = (PLAIN | STUBBORN)[exception]

    @node(name="source")
    def counting() -> Iterator[int]:
        yield from range(ITEMS)
        raise make()

    @node(name="source")
    async def counting_apart() -> AsyncIterator[int]:
        for item in range(ITEMS):
            yield item
        raise make()

    return counting if kind == "sync" else counting_apart


def stage(kind: str) -> Flow:
    @node(name="stage")
    def passing(items: Iterator[int]) -> Iterator[int]:
        yield from items

    @node(name="stage")
    async def passing_apart(items: AsyncIterator[int]) -> AsyncIterator[int]:
        async for item in items:
            yield item

    return passing if kind == "sync" else passing_apart


@node(name="batch")
def same(batch: list[int]) -> list[int]:
    return batch


SHAPES: dict[str, Callable[[str], Flow]] = {
    "sync": lambda exception: source("sync", exception),
    "async": lambda exception: source("async", exception),
    "sync-sync": lambda exception: source("sync", exception) >> stage("sync"),
    "sync-async": lambda exception: source("sync", exception) >> stage("async"),
    "async-sync": lambda exception: source("async", exception) >> stage("sync"),
    "async-async": lambda exception: source("async", exception) >> stage("async"),
    "sync-chunked": lambda exception: source("sync", exception).chunked(1),
    "async-chunked": lambda exception: source("async", exception).chunked(1),
    "sync-batches": lambda exception: source("sync", exception).map_batches(same, 1),
    "async-batches": lambda exception: source("async", exception).map_batches(same, 1),
}
shapes = pytest.mark.parametrize("shape", SHAPES)


def pulled(flow: Flow, buffer: int | None, *, awaited: bool) -> tuple[list[Any], BaseException | None]:
    """Return the items that a consumer receives and the exception that it gets, None for a complete stream."""
    items: list[Any] = []

    async def main() -> BaseException | None:
        # Caught here, because asyncio.run() treats some exceptions specially.
        try:
            async for item in flow.astream(buffer=buffer):
                items.append(item)  # noqa: PERF401  # a comprehension would lose the items before the exception
        except BaseException as error:  # noqa: BLE001  # what the tests look at
            return error
        return None

    if awaited:
        return items, asyncio.run(main())
    try:
        for item in flow.stream(buffer=buffer):
            items.append(item)  # noqa: PERF402  # as above
    except BaseException as error:  # noqa: BLE001  # as above
        return items, error
    return items, None


def summary(error: BaseException | None) -> tuple[type, str]:
    return type(error), repr(BaseException.__dict__["args"].__get__(error)) if error is not None else ""


def ends(captured: CapturedTelemetry) -> list[tuple[object, ...]]:
    """Return how the spans ended."""
    return sorted(
        (span.name, span.status.status_code.name, *(str(span.attributes.get(key)) for key in (
            names.ERROR_TYPE, names.NODE_RESULT, names.RUN_RESULT, names.STREAM_ITEMS
        )))
        for span in captured.spans
        if span.name != "batch"
    )  # fmt: skip


@shapes
@awaiting
@errors
def test_a_buffer_changes_neither_the_error_nor_the_spans(shape: str, awaited: bool, exception: str) -> None:
    """The same items arrive, the same exception follows them, and the spans have the same status and error type."""
    results = []
    for buffer in (None, 1, 10):
        with CapturedTelemetry() as captured:
            items, error = pulled(SHAPES[shape](exception), buffer, awaited=awaited)
        results.append((items, summary(error), ends(captured)))
    assert results[0][1] != (type(None), "")
    assert len(results[0][0]) == ITEMS
    assert results[1] == results[0]
    assert results[2] == results[0]


@shapes
@awaiting
@pytest.mark.parametrize("buffer", [None, 2])
@errors
def test_an_error_in_the_middle_ends_no_span_as_a_success(
    shape: str, awaited: bool, buffer: int | None, exception: str
) -> None:
    """The span of the stage that failed has the exception; an interruption is a cancellation."""
    with CapturedTelemetry() as captured:
        pulled(SHAPES[shape](exception), buffer, awaited=awaited)
    for span in captured.spans:
        if span.name != "batch":
            results = {span.attributes.get(key) for key in (names.NODE_RESULT, names.RUN_RESULT)} - {None}
            assert results == {"cancellation" if exception in INTERRUPTIONS else "failure"}, span.name
            is_error = span.status.status_code is StatusCode.ERROR
            assert is_error is (exception not in INTERRUPTIONS), span.name


@pytest.mark.parametrize("buffer", [None, 2])
@pytest.mark.parametrize("exception", ["StopAsyncIteration", "GeneratorExit", "CancelledError", "KeyboardInterrupt"])
def test_synchronous_code_gets_what_a_generator_raises(buffer: int | None, exception: str) -> None:
    """As with a plain generator, the exception arrives as it was raised."""
    items, error = pulled(source("sync", exception), buffer, awaited=False)
    assert (items, summary(error)) == (list(range(ITEMS)), summary(PLAIN[exception]()))


@pytest.mark.parametrize("buffer", [None, 2])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_asynchronous_code_does_not_take_an_error_for_the_end(buffer: int | None, kind: str) -> None:
    """A `StopAsyncIteration` that a generator raises becomes a `RuntimeError`, which is caused by it."""
    items, error = pulled(source(kind, "StopAsyncIteration"), buffer, awaited=True)
    assert items == list(range(ITEMS))
    assert type(error) is RuntimeError
    assert type(error.__cause__) is StopAsyncIteration


@awaiting
@pytest.mark.parametrize("buffer", [None, 2])
@pytest.mark.parametrize("exception", ["StopAsyncIteration", "GeneratorExit", "LookupError", "CancelledError"])
@pytest.mark.parametrize("counter", [Counter, AsyncCounter])
def test_an_iterator_that_is_no_generator_fails_alike(
    counter: type[Counter], awaited: bool, buffer: int | None, exception: str
) -> None:
    """An exception of its `__next__` follows the items, except the exception that ends such an iterator."""

    @node(name="source")
    def counting() -> Any:
        return counter(PLAIN[exception]())

    items, error = pulled(counting, buffer, awaited=awaited)
    assert items == list(range(ITEMS))
    if exception == "StopAsyncIteration" and counter is AsyncCounter:
        assert error is None
    elif exception == "StopAsyncIteration" and awaited:
        assert type(error) is RuntimeError
    else:
        assert summary(error) == summary(PLAIN[exception]())


class Never:
    """An asynchronous iterator without items and without end."""

    def __aiter__(self) -> Never:
        return self

    async def __anext__(self) -> int:
        await asyncio.Event().wait()
        return 1


@pytest.mark.parametrize("buffer", [None, 2])
def test_a_pull_that_is_thrown_away_is_no_failure(buffer: int | None) -> None:
    """A coroutine that is closed while it awaits an item does not await anything, and its stream can be closed."""

    @node(name="source")
    def waiting() -> Any:
        return Never()

    async def main() -> None:
        stream = waiting.stream(buffer=buffer)
        pull = anext(stream).__await__()
        pull.send(None)
        pull.close()
        assert stream.is_open
        await stream.aclose()

    with CapturedTelemetry() as captured:
        asyncio.run(main())
    assert {span.status.status_code for span in captured.spans} <= {StatusCode.UNSET}


@awaiting
@pytest.mark.parametrize("buffer", [None, 2])
def test_a_frozen_error_is_not_replaced_by_an_error_of_closing(awaited: bool, buffer: int | None) -> None:
    """An exception that takes no notes arrives as itself, although another stage fails to close."""

    @node
    def fails_to_close() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            raise OSError("still open")

    @node
    def fails(items: Iterator[int]) -> Iterator[int]:
        yield next(items)
        raise StubbornError

    _, error = pulled(fails_to_close >> fails, buffer, awaited=awaited)
    assert type(error) is StubbornError


class StubbornError(Exception):
    def add_note(self, note: str) -> None:
        if "raised by" not in note:
            raise TypeError("takes no such notes")
