"""So many elements at a time: ``chunked`` and ``map_batches`` over lists and streams, in both worlds."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import pytest
from dependency_injector import providers
from hypothesis import given
from hypothesis import strategies as st

from aetherflow import BaseFlowContext, CompositionError, Node, SplitError, StreamError, node
from aetherflow.engine.streaming import Stream

Flow = Node[..., Any, Any]


@node(name="source")
def listed(n: int) -> list[int]:
    return list(range(n))


@node(name="source")
def wrapped(n: int) -> dict[str, list[int]]:
    return {"items": list(range(n))}


@node(name="source")
def streamed(n: int) -> Iterator[int]:
    yield from range(n)


@node(name="source")
async def streamed_apart(n: int) -> AsyncIterator[int]:
    for item in range(n):
        yield item


@node(name="source")
def iterated(n: int) -> Iterator[int]:
    return iter(range(n))


SOURCES: dict[str, Flow] = {
    "list": listed, "mapping": wrapped, "generator": streamed, "async generator": streamed_apart, "iterator": iterated,
}  # fmt: skip
LISTS = ("list", "mapping")


@node(name="twice")
def twice(batch: list[int]) -> list[int]:
    return [item * 2 for item in batch]


@node(name="twice")
async def twice_apart(batch: list[int]) -> list[int]:
    await asyncio.sleep(0)
    return [item * 2 for item in batch]


@node(name="twice")
def twice_lazily(batch: list[int]) -> Iterator[int]:
    for item in batch:
        yield item * 2


@node(name="twice")
async def twice_lazily_apart(batch: list[int]) -> AsyncIterator[int]:
    for item in batch:
        yield item * 2


BODIES: dict[str, Flow] = {
    "function": twice, "async function": twice_apart, "generator": twice_lazily, "async generator": twice_lazily_apart,
}  # fmt: skip


def run(flow: Flow, n: int, *, awaited: bool) -> Any:
    """Run a flow; a stream's items as a list, in a tuple to tell it from one."""

    async def main() -> Any:
        output = await flow.arun({"n": n})
        return ([item async for item in output],) if isinstance(output, Stream) else output

    if awaited:
        return asyncio.run(main())
    output = flow.run({"n": n})
    return (list(output),) if isinstance(output, Stream) else output


sources = pytest.mark.parametrize("source", SOURCES)
awaiting = pytest.mark.parametrize("awaited", [False, True], ids=["run", "arun"])


@awaiting
@sources
@pytest.mark.parametrize(("n", "expected"), [(5, [[0, 1], [2, 3], [4]]), (4, [[0, 1], [2, 3]]), (0, [])])
def test_chunks_are_lists_of_so_many(source: str, awaited: bool, n: int, expected: list[list[int]]) -> None:
    """The last one may have fewer; of a list there is a list of them, of a stream a stream."""
    made = run(SOURCES[source].chunked(2), n, awaited=awaited)
    assert made == (expected if source in LISTS else (expected,))


@awaiting
@sources
@pytest.mark.parametrize("body", BODIES)
def test_batches_are_executed_one_after_the_other(source: str, body: str, awaited: bool) -> None:
    """The results of all batches follow each other: in a list, or in a stream where the elements were one."""
    made = run(SOURCES[source].map_batches(BODIES[body], 3), 8, awaited=awaited)
    expected = [item * 2 for item in range(8)]
    assert made == (expected if source in LISTS else (expected,))


@awaiting
@pytest.mark.parametrize("buffer", [None, 2])
@pytest.mark.parametrize("body", BODIES)
def test_batches_of_a_stream_can_be_made_ahead(body: str, awaited: bool, buffer: int | None) -> None:
    """With a buffer the batches are executed on a thread of their own."""
    flow = streamed_apart.map_batches(BODIES[body], 3).chunked(5)

    async def main() -> list[Any]:
        return [item async for item in flow.astream({"n": 8}, buffer=buffer)]

    made = asyncio.run(main()) if awaited else list(flow.stream({"n": 8}, buffer=buffer))
    assert made == [[0, 2, 4, 6, 8], [10, 12, 14]]


@given(items=st.lists(st.integers()), size=st.integers(1, 9))
def test_putting_the_chunks_together_gives_the_elements(items: list[int], size: int) -> None:
    """None is lost or doubled, all chunks but the last are full, and none is empty."""
    chunks = node(lambda: items, name="items").chunked(size).run()
    assert [item for chunk in chunks for item in chunk] == items
    assert all(len(chunk) == size for chunk in chunks[:-1])
    assert len(chunks) == math.ceil(len(items) / size)


def test_a_batch_is_made_when_it_is_pulled() -> None:
    """Of a stream no more is taken than a batch needs, and the next one waits until somebody asks."""
    events: list[object] = []

    @node
    def source() -> Iterator[int]:
        try:
            for item in range(100):
                events.append(item)
                yield item
        finally:
            events.append("closed")

    @node
    def work(batch: list[int]) -> list[int]:
        events.append(batch)
        return batch

    with source.map_batches(work, 3).stream() as results:
        assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
    assert events == [0, 1, 2, [0, 1, 2], 3, 4, 5, [3, 4, 5], "closed"]


def test_a_batch_may_give_any_number_of_results() -> None:
    """Results need not be one for each element."""
    evens = node(lambda batch: [item for item in batch if item % 4 == 0], name="evens")
    assert listed.map_batches(evens, 2).run({"n": 9}) == [0, 4, 8]


def test_a_batch_is_filled_in_like_any_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """From inputs, from the context, and from the batch under the name of the node that the elements came from."""

    class Context(BaseFlowContext):
        factor = providers.Object(10)

    @node
    def scale(source: list[int], factor: int, *, shift: int) -> list[int]:
        return [item * factor + shift for item in source]

    flow = streamed.map_batches(scale, 2)
    assert list(flow.stream({"n": 3, "shift": 1}, Context())) == [1, 11, 21]
    assert listed.map_batches(scale, 2).run({"n": 3, "shift": 1}, Context()) == [1, 11, 21]


@awaiting
def test_a_flow_can_be_executed_on_batches(awaited: bool) -> None:
    """A fan-out inside, a named flow, a stream of several stages: what ends each batch is its results."""
    add = node(
        lambda parallel_results: [sum(pair) for pair in zip(*parallel_results.values(), strict=True)], name="add"
    )
    fanned = node(lambda batch: batch, name="batch") >> [twice, node(lambda batch: batch, name="once")] >> add
    for flow in (fanned, fanned.named("inner"), twice_lazily >> node(lambda items: (i for i in items), name="last")):
        made = run(streamed.map_batches(flow, 2), 5, awaited=awaited)
        factor = 2 if flow.name == "twice" else 3
        assert made == ([item * factor for item in range(5)],)


def test_chunks_go_to_workers() -> None:
    """Of a list ``chunked`` makes the partitions that ``[n] * k`` runs over."""
    flow = listed.chunked(3) >> [node(sum, name="total")] * 2
    assert flow.run({"n": 7}) == {"total[0]": 3, "total[1]": 12, "total[2]": 6}


def test_the_results_have_the_name_of_their_node() -> None:
    """A later node finds them by it, and so does whoever looks at the run."""

    @node
    def last(twice: list[int], source: list[int]) -> tuple[list[int], list[int]]:
        return twice, source

    executed = (listed.map_batches(twice, 2) >> last).execute({"n": 3})
    assert executed.output == ([0, 2, 4], [0, 1, 2])
    assert executed.outputs["twice"] == [0, 2, 4]


def test_without_a_size_the_setting_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """``AETHER_BATCH_SIZE`` is read when a flow first runs, not when it is composed."""
    flow = listed.chunked()
    monkeypatch.setenv("AETHER_BATCH_SIZE", "4")
    assert [len(chunk) for chunk in flow.run({"n": 9})] == [4, 4, 1]


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "many"])
def test_a_bad_size_is_refused_when_composed(size: Any) -> None:
    """The message says what is allowed."""
    with pytest.raises(CompositionError, match=f"size={size!r}: allowed is a whole number from 1"):
        listed.chunked(size)
    with pytest.raises(CompositionError, match=f"size={size!r}: allowed is a whole number from 1"):
        listed.map_batches(twice, size)


def test_what_is_no_node_is_refused_when_composed() -> None:
    """A plain function is told how to become one."""
    with pytest.raises(CompositionError, match=r"map_batches\(\): <built-in function len> .* not a node"):
        listed.map_batches(len, 3)  # type: ignore[call-overload]  # what the types forbid as well


@pytest.mark.parametrize("value", [5, None, "text", b"bytes", {"a": 1, "b": 2}])
def test_what_has_no_elements_is_refused(value: object) -> None:
    """A number, a text or a mapping of several things cannot be taken apart."""
    with pytest.raises(SplitError, match=f"node 'chunked' maps over the output before it, .* {type(value).__name__}"):
        node(lambda: value, name="value").chunked(2).run()


@awaiting
@pytest.mark.parametrize("source", [listed, streamed], ids=["list", "stream"])
@pytest.mark.parametrize("result", [None, 7, "text", b"bytes", {"a": 1}], ids=repr)
def test_a_batch_without_results_is_an_error(source: Flow, awaited: bool, result: object) -> None:
    """A function that gives nothing to iterate over, or a text or a mapping by mistake, is told so by name."""
    flow = source.map_batches(node(lambda batch: result, name="nothing"), 2)
    found = rf"'nothing batches' got a {type(result).__name__} for a batch; allowed: an iterable"
    with pytest.raises(StreamError, match=found):
        run(flow, 3, awaited=awaited)


@pytest.mark.parametrize("body", [None, twice], ids=["chunked", "map_batches"])
def test_batches_made_ahead_and_forgotten_end(body: Flow | None) -> None:
    """A consumer that breaks off and forgets the stream leaves no thread of its stages behind."""
    before = set(threading.enumerate())
    flow = streamed.chunked(2) if body is None else streamed.map_batches(body, 2)
    for _ in flow.stream({"n": 1_000}, buffer=1):
        break
    while any(thread.name.startswith("aetherflow-stream") for thread in set(threading.enumerate()) - before):
        gc.collect()


@awaiting
@pytest.mark.parametrize("source", [listed, streamed, streamed_apart], ids=["list", "stream", "async stream"])
def test_an_error_in_a_batch_is_that_of_its_node(source: Flow, awaited: bool) -> None:
    """It comes out as it is, with the one note that names the node."""

    @node
    def broken(batch: list[int]) -> list[int]:
        return [1 // (item - 3) for item in batch]

    with pytest.raises(ZeroDivisionError) as raised:
        run(source.map_batches(broken, 2), 8, awaited=awaited)
    assert raised.value.__notes__ == ["aetherflow: raised by node 'broken' of flow 'source'"]


@awaiting
@pytest.mark.parametrize("body", [twice_lazily, twice_lazily_apart], ids=["sync", "async"])
def test_streams_within_a_batch_end_with_it(body: Flow, awaited: bool) -> None:
    """A body that stops early closes what it has pulled, batch by batch."""
    closed: list[int] = []

    @node
    def elements(batch: list[int]) -> Iterator[int]:
        try:
            yield from batch
        finally:
            closed.append(batch[0])

    @node
    def first(items: Iterable[int]) -> list[int]:
        return [next(iter(items))]

    made = run(listed.map_batches(elements >> body >> first, 3), 7, awaited=awaited)
    assert made == [0, 6, 12]
    assert closed == [0, 3, 6]
