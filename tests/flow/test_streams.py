"""Streams: items pulled through generator nodes of both kinds, by both kinds of code, with and without buffers."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

import pytest

from aetherflow import ConfigurationError, Node, NotAStreamError, StreamError, node

Flow = Node[..., Any, Any]
KINDS = ["sync", "async"]
SHAPES = list(itertools.product(KINDS, repeat=3))
shapes = pytest.mark.parametrize("shape", SHAPES, ids="-".join)
buffers = pytest.mark.parametrize("buffer", [None, 1, 4])
awaiting = pytest.mark.parametrize("awaited", [False, True], ids=["stream", "astream"])


class Log:
    """What happens in the stages of a flow, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.add = self.events.append

    def stage(self, kind: str, name: str, work: Callable[[int], int] = lambda item: item) -> Flow:
        """A node that passes items on, and says what it does."""

        @node(name=name)
        def passing(items: Iterator[int]) -> Iterator[int]:
            try:
                for item in items:
                    self.add(f"{name} {item}")
                    yield work(item)
            finally:
                self.add(f"{name} closed")

        @node(name=name)
        async def passing_apart(items: AsyncIterator[int]) -> AsyncIterator[int]:
            try:
                async for item in items:
                    self.add(f"{name} {item}")
                    yield work(item)
            finally:
                await asyncio.sleep(0)
                self.add(f"{name} closed")

        return passing if kind == "sync" else passing_apart

    def source(self, kind: str, work: Callable[[int], int] = lambda item: item) -> Flow:
        """A node that counts."""

        @node(name="source")
        def counting(n: int) -> Iterator[int]:
            try:
                for item in range(n):
                    self.add(f"source {item}")
                    yield work(item)
            finally:
                self.add("source closed")

        @node(name="source")
        async def counting_apart(n: int) -> AsyncIterator[int]:
            try:
                for item in range(n):
                    self.add(f"source {item}")
                    await asyncio.sleep(0)
                    yield work(item)
            finally:
                await asyncio.sleep(0)
                self.add("source closed")

        return counting if kind == "sync" else counting_apart

    def flow(self, shape: tuple[str, ...], **work: Callable[[int], int]) -> Flow:
        """A source and stages of these kinds; ``work`` is what those of that name do with an item."""
        first, *others = shape
        flow = self.source(first, **({"work": work["source"]} if "source" in work else {}))
        for kind, name in zip(others, ("stage", "sink"), strict=False):
            flow = flow >> self.stage(kind, name, **({"work": work[name]} if name in work else {}))
        return flow

    @property
    def closed(self) -> set[str]:
        return {event.removesuffix(" closed") for event in self.events if event.endswith("closed")}


@pytest.fixture
def log() -> Log:
    return Log()


def take(flow: Flow, n: int, count: int | None, *, awaited: bool, buffer: int | None = None) -> list[int]:
    """Pull some items of a flow, all if ``count`` is None, and close it."""

    async def main() -> list[int]:
        found = []
        async with aclosing(flow.astream({"n": n}, buffer=buffer)) as items:
            while count is None or len(found) < count:
                try:
                    found.append(await anext(items))
                except StopAsyncIteration:
                    break
        return found

    if awaited:
        return asyncio.run(main())
    with flow.stream({"n": n}, buffer=buffer) as items:
        return list(itertools.islice(items, count))


def stream_threads() -> list[threading.Thread]:
    """Return the threads of stages that have not ended; those on their last instruction are waited for."""
    found = [thread for thread in threading.enumerate() if thread.name.startswith("aetherflow-stream-")]
    for thread in found:
        thread.join(timeout=1)
    return [thread for thread in found if thread.is_alive()]


# --- pulling ------------------------------------------------------------------------------------------------------


@awaiting
@shapes
def test_items_are_pulled_one_by_one(log: Log, shape: tuple[str, ...], awaited: bool) -> None:
    """An item has gone through every stage before the next one is made, whichever kind each stage is."""
    assert take(log.flow(shape), 3, None, awaited=awaited) == [0, 1, 2]
    made = [event for event in log.events if not event.endswith("closed")]
    assert made == [f"{name} {item}" for item in range(3) for name in ("source", "stage", "sink")]
    assert log.closed == {"source", "stage", "sink"}


@awaiting
@shapes
@pytest.mark.parametrize("buffer", [1, 4])
def test_a_buffer_changes_no_item(log: Log, shape: tuple[str, ...], awaited: bool, buffer: int) -> None:
    """Stages on threads of their own give the same items in the same order."""
    flow = log.flow(shape, stage=lambda item: item * 2, sink=lambda item: item + 1)
    assert take(flow, 50, None, awaited=awaited, buffer=buffer) == [item * 2 + 1 for item in range(50)]
    assert log.closed == {"source", "stage", "sink"}
    assert not stream_threads()


@awaiting
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("buffer", [1, 3, 10])
def test_a_buffer_is_bounded(kind: str, awaited: bool, buffer: int) -> None:
    """A slow consumer slows the source: what is made is at most the buffer, and an item in hand, ahead of it."""
    made = taken = most = 0

    @node(name="source")
    def counting() -> Iterator[int]:
        nonlocal made, most
        for item in range(200):
            made += 1
            most = max(most, made - taken)
            yield item

    @node(name="source")
    async def counting_apart() -> AsyncIterator[int]:
        for item in counting.func():
            yield item

    async def main() -> None:
        nonlocal taken
        async for _ in flow.astream(buffer=buffer):
            taken += 1

    flow: Flow = counting if kind == "sync" else counting_apart
    if awaited:
        asyncio.run(main())
    else:
        for _ in flow.stream(buffer=buffer):
            taken += 1
    assert taken == 200
    assert 1 < most <= buffer + 2


def test_with_a_buffer_each_stage_has_a_thread(log: Log) -> None:
    """The stages and the consumer run on four threads, named after the stages, which end with the stream."""
    where: dict[str, threading.Thread] = {}

    def note(name: str) -> Callable[[int], int]:
        return lambda item: (where.setdefault(name, threading.current_thread()), item)[1]

    flow = log.flow(("sync", "sync", "sync"), **{name: note(name) for name in ("source", "stage", "sink")})
    assert take(flow, 10, None, awaited=False, buffer=2) == list(range(10))
    assert {name: thread.name for name, thread in where.items()} == {
        name: f"aetherflow-stream-{name}" for name in ("source", "stage", "sink")
    }
    assert threading.current_thread() not in where.values()
    for thread in where.values():
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_stages_on_threads_see_the_context_of_the_run() -> None:
    """Context variables of whoever runs the flow are there in every stage."""
    variable: ContextVar[str] = ContextVar("variable", default="unset")

    @node
    def source() -> Iterator[str]:
        yield variable.get()

    @node
    def stage(items: Iterator[str]) -> Iterator[str]:
        yield from items
        yield variable.get()

    variable.set("set")
    assert list((source >> stage).stream(buffer=1)) == ["set", "set"]


@pytest.mark.parametrize("awaited", [False, True])
@buffers
def test_a_function_at_the_end_takes_the_stream_in(log: Log, awaited: bool, buffer: int | None) -> None:
    """``source.then(stage).then(sink)`` with a function for a sink: it pulls, and the run returns what it makes."""

    @node
    def total(items: Iterator[int]) -> int:
        return sum(items)

    flow = log.source("sync").then(log.stage("async", "stage")).then(total)
    assert (asyncio.run(flow.arun({"n": 5})) if awaited else flow.run({"n": 5})) == 10
    assert log.closed == {"source", "stage"}


def test_any_iterable_can_be_streamed() -> None:
    """A flow that ends in a list, an iterator or an asynchronous one is iterated over like one of a generator node."""

    async def counting() -> AsyncIterator[int]:
        yield 1
        yield 2

    async def awaited(flow: Flow) -> list[int]:
        return [item async for item in flow.astream()]

    for make in (lambda: [1, 2], lambda: iter([1, 2]), counting):
        flow = node(lambda make=make: make(), name="items")
        assert list(flow.stream()) == [1, 2]
        assert asyncio.run(awaited(flow)) == [1, 2]


@pytest.mark.parametrize("buffer", [0, -1, True, 1.5, "many"])
def test_a_bad_buffer_is_refused(buffer: Any) -> None:
    """The message says what is allowed; nothing has run."""
    flow = node(lambda: iter(()), name="items")
    with pytest.raises(ConfigurationError, match=rf"stream\(buffer={buffer!r}\): allowed is a whole number from 1"):
        flow.stream(buffer=buffer)


def test_what_has_no_items_is_refused_with_a_buffer_too() -> None:
    """A flow that ends in a number cannot be streamed."""
    with pytest.raises(NotAStreamError, match=r"'number'.*int"):
        node(lambda: 5, name="number").stream(buffer=3)  # type: ignore[misc]  # what the types forbid as well


# --- one reader ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_has_one_reader_at_a_time(kind: str) -> None:
    """Pulling while someone pulls is an error that names the node, and does not end the stream."""
    stream: Any = None

    def again() -> str:
        with pytest.raises(StreamError, match="the stream of node 'source' is being pulled already"):
            next(stream)
        with pytest.raises(StreamError, match="the stream of node 'source' is being pulled already"):
            stream.close()
        return "refused"

    @node(name="source")
    def source() -> Iterator[str]:
        yield again()
        yield "last"

    @node(name="source")
    async def source_apart() -> AsyncIterator[str]:
        yield again()
        yield "last"

    flow: Flow = source if kind == "sync" else source_apart
    stream = flow.stream()
    assert list(stream) == ["refused", "last"]


def test_an_exhausted_stream_stays_so(log: Log) -> None:
    """It can be pulled and closed again, to no effect."""
    stream = log.source("sync").stream({"n": 1})
    assert list(stream) == [0]
    assert list(stream) == []
    stream.close()
    assert next(stream, None) is None
    assert log.events.count("source closed") == 1


def test_several_items_can_be_taken_at_once(log: Log) -> None:
    """``take`` and ``atake`` give as many as there are, in both worlds and of both kinds."""

    async def main(flow: Flow) -> list[list[int]]:
        stream: Any = await flow.arun({"n": 5})
        return [await stream.atake(2), await stream.atake(0), await stream.atake(9), await stream.atake(1)]

    for kind in KINDS:
        stream: Any = log.source(kind).run({"n": 5})
        assert [stream.take(2), stream.take(0), stream.take(9), stream.take(1)] == [[0, 1], [], [2, 3, 4], []]
        assert asyncio.run(main(log.source(kind))) == [[0, 1], [], [2, 3, 4], []]


# --- closing early ------------------------------------------------------------------------------------------------


@awaiting
@shapes
@buffers
def test_an_early_close_reaches_every_stage(
    log: Log, shape: tuple[str, ...], awaited: bool, buffer: int | None
) -> None:
    """When the block is left, every stage has run its ``finally`` clause, once, and no thread is left."""
    assert take(log.flow(shape), 1_000, 2, awaited=awaited, buffer=buffer) == [0, 1]
    assert sorted(event for event in log.events if event.endswith("closed")) == [
        "sink closed", "source closed", "stage closed",
    ]  # fmt: skip
    if buffer is None:
        assert log.events[-3:] == ["sink closed", "stage closed", "source closed"]
        assert "source 2" not in log.events
    assert not stream_threads()


@pytest.mark.parametrize("buffer", [1, 4])
def test_closing_does_not_wait_for_items_that_stages_wait_for(log: Log, buffer: int) -> None:
    """A stage that waits for one that has nothing to give is woken by the close, as if it were suspended at a yield."""
    given = threading.Event()

    @node
    def stalling() -> Iterator[int]:
        try:
            yield 1
            given.wait(30)
        finally:
            log.add("stalling closed")

    flow = stalling >> log.stage("sync", "stage") >> log.stage("sync", "sink")
    stream = flow.stream(buffer=buffer)
    assert next(stream) == 1
    closing = threading.Thread(target=stream.close)
    closing.start()
    while not log.closed >= {"stage", "sink"}:
        gc.collect()  # gives the stages time
    assert "stalling" not in log.closed
    given.set()
    closing.join(30)
    assert log.closed == {"stalling", "stage", "sink"}


async def test_closing_cancels_an_asynchronous_stage_that_waits() -> None:
    """With a buffer it is a task: what it awaits is cancelled, and its ``finally`` clause has run after the close."""
    events = []

    @node
    async def stalling() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            events.append("closed")

    stream = stalling.astream(buffer=1)
    assert await anext(stream) == 1
    await stream.aclose()
    assert events == ["closed"]


@pytest.mark.parametrize("awaited", [False, True])
@shapes
def test_a_sink_that_stops_early_closes_what_it_has_pulled(log: Log, shape: tuple[str, ...], awaited: bool) -> None:
    """When a run is over, so are the streams in it: its result no longer pulls them."""

    @node
    def first(items: Iterator[int]) -> int:
        return next(iter(items))

    @node(name="first")
    async def first_apart(items: AsyncIterator[int]) -> int:
        return await anext(aiter(items))

    flow = log.flow(shape[:2]) >> (first if shape[2] == "sync" else first_apart)
    run = asyncio.run(flow.aexecute({"n": 9})) if awaited else flow.execute({"n": 9})
    assert run.output == 0
    assert log.events[-2:] == ["stage closed", "source closed"]
    with pytest.raises(StreamError, match="the stream of node 'stage' was closed with its run; to keep it, end"):
        next(run.outputs["stage"])


@pytest.mark.parametrize("wrap", [iter, list, dict.fromkeys], ids=["iterator", "list", "mapping"])
def test_what_a_result_may_pull_is_left_to_it(log: Log, wrap: Callable[[Any], Any]) -> None:
    """A result that is an iterator, or a list or mapping that holds one, keeps the streams of its run open."""

    @node
    def wrapped(items: Iterator[int]) -> Any:
        lazily = map(str, items)
        return {"items": lazily} if wrap is dict.fromkeys else [lazily] if wrap is list else lazily

    result = (log.source("sync") >> wrapped).run({"n": 3})
    items = result["items"] if wrap is dict.fromkeys else result[0] if wrap is list else result
    assert list(items) == ["0", "1", "2"]


@awaiting
@buffers
@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_is_left_alone_is_closed(log: Log, kind: str, awaited: bool, buffer: int | None) -> None:
    """A consumer that breaks off and forgets the stream: every stage still runs its ``finally`` clause."""
    flow = log.flow((kind, kind, kind))

    async def main() -> None:
        async for _ in flow.astream({"n": 1_000}, buffer=buffer):
            break
        while log.closed != {"source", "stage", "sink"}:
            gc.collect()
            await asyncio.sleep(0)

    if awaited:
        asyncio.run(main())
    else:
        for _ in flow.stream({"n": 1_000}, buffer=buffer):
            break
        while log.closed != {"source", "stage", "sink"}:
            gc.collect()


@pytest.mark.parametrize("buffer", [None, 2])
def test_a_stream_that_is_never_pulled_runs_nothing(log: Log, buffer: int | None) -> None:
    """No stage begins, no thread is started, and closing it is fine."""
    with log.flow(("sync", "async", "sync")).stream({"n": 3}, buffer=buffer):
        assert not stream_threads()
    assert log.events == []


@awaiting
@buffers
def test_a_named_flow_in_the_middle_is_closed_too(log: Log, awaited: bool, buffer: int | None) -> None:
    """Streams of a flow inside another end with the outer one's stream."""
    inner = log.flow(("sync", "async")).named("inner")
    assert take(inner >> log.stage("sync", "sink"), 100, 1, awaited=awaited, buffer=buffer) == [0]
    assert log.closed == {"source", "stage", "sink"}


# --- errors -------------------------------------------------------------------------------------------------------


def broken(item: int) -> int:
    if item == 2:
        raise KeyError("gone")
    return item


@awaiting
@shapes
@buffers
@pytest.mark.parametrize("where", ["source", "stage", "sink"])
def test_an_error_names_its_stage_and_closes_the_others(
    log: Log, shape: tuple[str, ...], awaited: bool, buffer: int | None, where: str
) -> None:
    """It is raised once, itself, with one note that names the stage; by then every stage has run its ``finally``."""
    with pytest.raises(KeyError, match="gone") as raised:
        take(log.flow(shape, **{where: broken}), 1_000, None, awaited=awaited, buffer=buffer)
    assert raised.value.__notes__ == [f"aetherflow: raised by node '{where}' of flow 'source'"]
    assert log.closed == {"source", "stage", "sink"}
    assert not stream_threads()


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_fails_closes_its_streams(log: Log, kind: str, awaited: bool) -> None:
    """The node after a stream raises: when the error reaches the caller, the stream's ``finally`` clauses have run."""

    @node
    def failing(items: Iterator[int]) -> None:
        next(iter(items))
        raise KeyError("gone")

    flow = log.source(kind) >> failing
    with pytest.raises(KeyError) as raised:
        asyncio.run(flow.arun({"n": 3})) if awaited else flow.run({"n": 3})
    assert log.closed == {"source"}
    assert len(raised.value.__notes__) == 1


@pytest.mark.parametrize("buffer", [None, 2])
def test_a_stage_may_catch_an_error(buffer: int | None) -> None:
    """It arrives in the stage that pulls, as an error of the iteration."""

    @node
    def source() -> Iterator[int]:
        yield 1
        raise KeyError("gone")

    @node
    def careful(items: Iterator[int]) -> Iterator[int | str]:
        try:
            yield from items
        except KeyError:
            yield "caught"

    assert list((source >> careful).stream(buffer=buffer)) == [1, "caught"]


@awaiting
@buffers
def test_an_error_while_closing_is_raised_and_keeps_nothing_open(log: Log, awaited: bool, buffer: int | None) -> None:
    """What a ``finally`` clause raises comes out of the close; the stages before it are closed all the same."""

    @node
    def stubborn(items: Iterator[int]) -> Iterator[int]:
        try:
            yield from items
        finally:
            raise OSError("busy")

    with pytest.raises(OSError, match="busy") as raised:
        take(log.source("sync") >> stubborn, 1_000, 1, awaited=awaited, buffer=buffer)
    assert raised.value.__notes__ == ["aetherflow: raised by node 'stubborn' of flow 'source'"]
    assert log.closed == {"source"}


@pytest.mark.parametrize("buffer", [None, 2])
def test_an_error_under_way_is_told_of_errors_while_closing(buffer: int | None) -> None:
    """The first error is the one that is raised; what closing the other stages raises is in its notes."""

    @node
    def stubborn() -> Iterator[int]:
        try:
            yield from range(1_000)
        finally:
            raise OSError("busy")

    @node
    def failing(items: Iterator[int]) -> Iterator[int]:
        yield next(iter(items))
        raise KeyError("gone")

    with pytest.raises(KeyError) as raised:
        list((stubborn >> failing).stream(buffer=buffer))
    assert raised.value.__notes__ == [
        "aetherflow: raised by node 'failing' of flow 'stubborn'",
        "aetherflow: closing its streams failed too: OSError: busy",
    ]


@awaiting
@buffers
def test_an_error_that_a_cancellation_led_to_is_an_error(awaited: bool, buffer: int | None) -> None:
    """A stage whose own time limit ran out has failed: it has not come to its end, and nothing is lost unseen."""

    @node
    async def limited(n: int) -> AsyncIterator[int]:
        yield n
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    @node
    def adding(items: Iterator[int]) -> Iterator[int]:
        yield from items

    with pytest.raises(TimeoutError) as raised:
        take(limited >> adding, 1_000, 1_000, awaited=awaited, buffer=buffer)
    assert raised.value.__notes__ == ["aetherflow: raised by node 'limited' of flow 'limited'"]


# --- loops --------------------------------------------------------------------------------------------------------


class Loops:
    """The loops that an asynchronous generator has run on."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def note(self) -> None:
        self.seen.add(id(asyncio.get_running_loop()))

    def source(self) -> Flow:
        @node(name="source")
        async def source(n: int) -> AsyncIterator[int]:
            try:
                for item in range(n):
                    self.note()
                    yield item
            finally:
                self.note()

        return source


@pytest.mark.parametrize("buffer", [None, 2])
async def test_awaited_generators_run_on_the_running_loop(log: Log, buffer: int | None) -> None:
    """What they hold, such as connections of that loop, works; a synchronous stage that pulls them changes nothing."""
    loops = Loops()
    flow = loops.source() >> log.stage("sync", "stage")
    async with aclosing(flow.astream({"n": 9}, buffer=buffer)) as items:
        assert await anext(items) == 0
    assert loops.seen == {id(asyncio.get_running_loop())}


@pytest.mark.parametrize("buffer", [None, 2])
def test_an_asynchronous_generator_keeps_to_one_loop(log: Log, buffer: int | None) -> None:
    """It is closed on the loop that it was pulled on, be it pulled by a stage on another one."""
    loops = Loops()
    flow = loops.source() >> log.stage("sync", "stage") >> log.stage("async", "sink")
    for _ in range(3):
        with flow.stream({"n": 9}, buffer=buffer) as items:
            assert next(items) == 0
    assert len(loops.seen) == 1


def test_a_stream_may_be_pulled_by_any_thread(log: Log) -> None:
    """One after the other, threads and loops share an asynchronous stream; all its items are made on one loop."""
    loops = Loops()
    stream: Any = loops.source().run({"n": 4})

    async def main() -> int:
        return await anext(stream)

    found = [next(stream)]
    thread = threading.Thread(target=lambda: found.append(next(stream)))
    thread.start()
    thread.join()
    found.append(asyncio.run(main()))
    assert [*found, *stream] == [0, 1, 2, 3]
    assert len(loops.seen) == 1
