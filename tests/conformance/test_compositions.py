"""The trace of every composition: its spans, their parents, upstreams and links, run and awaited, on every path."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from textwrap import dedent
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from tests.conformance.conftest import TelemetryPath
from tests.conformance.contract import check_contract, outline

from aetherflow import FlowRun, Node, node
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.capture import CapturedTelemetry

Flow = Node[..., Any, Any]


def step(name: str, function: Callable[..., Any] = lambda value: value) -> Flow:
    return node(name=name)(function)


def later(name: str) -> Flow:
    @node(name=name)
    async def step_apart(value: Any) -> Any:
        await asyncio.sleep(0)
        return value

    return step_apart


@node
def start(value: Any = 1) -> Any:
    return value


def quiet() -> None: ...


@node
def calls(value: Any) -> Any:
    """Calls a node, and runs a flow, in its own execution."""
    called = step("called")(value)
    return (step("x") >> step("y")).run(called)


@node
async def awaits(value: Any) -> Any:
    """The same, awaited."""
    called = await later("called")(value)
    return await (step("x") >> later("y")).arun(called)


@node
def items(value: Any) -> Iterator[int]:
    yield from range(3)


@node
async def items_apart(value: Any) -> AsyncIterator[int]:
    for item in range(3):
        yield item


both = [step("b"), step("c")]
inner = (step("b") >> step("c")).named("inner")

CASES: dict[str, tuple[Flow, Any, str]] = {
    "one node": (start, 1, "start"),
    "one asynchronous node": (later("a"), 1, "a"),
    "one node under another name": (start.named("other"), 1, "other"),
    "chain": (
        start >> step("b") >> step("c"),
        1,
        """
        run start
          b <- start
          c <- b
          start
        """,
    ),
    "chain of both kinds": (
        start >> later("b") >> step("c") >> later("d"),
        1,
        """
        run start
          b <- start
          c <- b
          d <- c
          start
        """,
    ),
    "chain, by name": (
        start >> step("b") >> node(name="c")(lambda start, b: start + b),
        1,
        """
        run start
          b <- start
          c <- start, b
          start
        """,
    ),
    "named flow": (
        (start >> step("b")).named("etl"),
        1,
        """
        run etl
          b <- start
          start
        """,
    ),
    "fan-out and fan-in": (
        start >> [step("b"), later("c"), step("d")] >> step("e"),
        1,
        """
        run start
          b <- start
          c <- start
          d <- start
          e <- b, c, d ~ b, c, d
          start
        """,
    ),
    "fan-out to flows": (
        start >> [step("b") >> step("c"), (step("d") >> step("e")).named("inner")] >> step("f"),
        1,
        """
        run start
          b <- start
          c <- b
          f <- c, inner ~ c, run inner
          run inner
            d <- start
            e <- d
          start
        """,
    ),
    "pool of one worker": (
        start >> [step("b")] >> step("c"),
        1,
        """
        run start
          b[0] <- start
          c <- b ~ b
          start
        """,
    ),
    "fan-out in a fan-out": (
        start >> [step("b") >> [step("c"), step("d")], step("e")] >> step("f"),
        1,
        """
        run start
          b <- start
          c <- b
          d <- b
          e <- start
          f <- c, d, e ~ c, d, e
          start
        """,
    ),
    "pool over a list": (
        start >> [step("b")] * 2 >> step("c"),
        [10, 20, 30],
        """
        run start
          b[0] <- start
          b[1] <- start
          b[2] <- start
          c <- b ~ b, b, b
          start
        """,
    ),
    "pool over nothing": (
        start >> [step("b")] * 2 >> step("c"),
        [],
        """
        run start
          c <- b
          start
        """,
    ),
    "pool over the whole": (
        start >> [later("b")] * 2 >> later("c"),
        5,
        """
        run start
          b[0] <- start
          b[1] <- start
          c <- b ~ b, b
          start
        """,
    ),
    "map of a named flow": (
        start.map(inner, max_concurrency=2) >> step("d"),
        [1, 2],
        """
        run start
          d <- inner ~ run inner, run inner
          run inner
            b[0] <- start
            c[0] <- b
          run inner
            b[1] <- start
            c[1] <- b
          start
        """,
    ),
    "map in a map": (
        start.map(step("b").map(later("c"))) >> step("d"),
        [[1, 2], [3]],
        """
        run start
          b[0] <- start
          b[1] <- start
          c[0] <- b
          c[0] <- b
          c[1] <- b
          d <- c ~ c, c, c
          start
        """,
    ),
    "branch": (
        start.branch_on({1: step("b"), 2: step("c") >> step("d")}) >> step("e"),
        2,
        """
        run start
          c <- start
          d <- c
          e <- d
          start
        """,
    ),
    "default of a branch": (
        start.branch_on({1: step("b")}, default=later("other")) >> step("e", lambda value: None),
        2,
        """
        run start
          e <- other
          other <- start
          start
        """,
    ),
    "an older output by name": (
        start >> step("b") >> step("c", lambda value, start: [value, start]),
        1,
        """
        run start
          b <- start
          c <- b, start
          start
        """,
    ),
    "the previous output by name, beside an input": (
        start >> step("b", lambda more, start: [more, start]),
        {"value": 1, "more": 2},
        """
        run start
          b <- start
          start
        """,
    ),
    "an input in place of an output that is none": (
        node(quiet) >> step("b"),
        {"value": 1},
        """
        run quiet
          b
          quiet
        """,
    ),
    "a branch by its key": (
        start >> [step("b") >> step("c"), step("d")] >> step("e", lambda b: b),
        1,
        """
        run start
          b <- start
          c <- b
          d <- start
          e <- c ~ c, d
          start
        """,
    ),
    "an alternative by name": (
        start.branch_on({1: step("b"), 2: step("c") >> step("d")}) >> step("e", lambda value=0, b=0: [value, b]),
        1,
        """
        run start
          b <- start
          e <- b
          start
        """,
    ),
    "an alternative that has not the name": (
        start.branch_on({1: step("b"), 2: step("c") >> step("d")}) >> step("e", lambda value=0, b=0: [value, b]),
        2,
        """
        run start
          c <- start
          d <- c
          e <- d
          start
        """,
    ),
    "a repeat after a fan-out": (
        start >> [step("b"), step("c")] >> step("d").repeat(2),
        1,
        """
        run start
          b <- start
          c <- start
          d <- b, c ~ b, c
          d <- d
          start
        """,
    ),
    "a map of choices": (
        start.map(step("b").branch_on({1: step("c"), 2: step("d")})) >> step("e"),
        [1, 1],
        """
        run start
          b[0] <- start
          b[1] <- start
          c[0] <- b
          c[1] <- b
          e <- c ~ c, c
          start
        """,
    ),
    "lists of a choice": (
        start.branch_on({1: step("b", lambda _: [1, 2]), 2: step("c")}).chunked(2) >> step("d"),
        1,
        """
        run start
          b <- start
          chunked <- b
          d <- chunked
          start
        """,
    ),
    "rounds by name": (
        start >> step("b") >> step("c", lambda more, b: [more, b]).repeat(2),
        {"value": 1, "more": 2},
        """
        run start
          b <- start
          c <- b
          c <- c
          start
        """,
    ),
    "repeat": (
        step("a", lambda value: value + 1).repeat(3, until=lambda value: value == 2) >> step("b"),
        0,
        """
        run a
          a
          a <- a
          b <- a
        """,
    ),
    "repeat of a flow with choices": (
        (start.branch_on({0: step("b", lambda _: 1), 1: step("c", lambda _: 0)})).repeat(2),
        0,
        """
        run start
          b <- start
          c <- start
          start
          start <- b
        """,
    ),
    "nested named flow": (
        start >> inner >> step("d"),
        1,
        """
        run start
          d <- inner
          run inner
            b <- start
            c <- b
          start
        """,
    ),
    "named flow of one node": (
        start >> (step("b") >> [step("c")]).named("inner"),
        1,
        """
        run start
          run inner
            b <- start
            c[0] <- b
          start
        """,
    ),
    "named flows five deep": (
        ((((start >> step("a")).named("1") >> step("b")).named("2") >> step("c")).named("3") >> step("d")).named("4"),
        1,
        """
        run 4
          d <- 3
          run 3
            c <- 2
            run 2
              b <- 1
              run 1
                a <- start
                start
        """,
    ),
    "unnamed flow": (
        start >> (step("b") >> step("c")),
        1,
        """
        run start
          b <- start
          c <- b
          start
        """,
    ),
    "calls inside a node": (
        start >> calls,
        1,
        """
        run start
          calls <- start
            called
            run x
              x
              y <- x
          start
        """,
    ),
    "calls inside an asynchronous node": (
        start >> awaits,
        1,
        """
        run start
          awaits <- start
            called
            run x
              x
              y <- x
          start
        """,
    ),
    "calls inside branches": (
        start >> [calls, awaits],
        1,
        """
        run start
          awaits <- start
            called
            run x
              x
              y <- x
          calls <- start
            called
            run x
              x
              y <- x
          start
        """,
    ),
    "generator in the middle": (
        start >> items >> node(name="sum")(lambda items: sum(items)),  # noqa: PLW0108  # sum takes no `items`
        1,
        """
        run start
          items <- start
          start
          sum <- items
        """,
    ),
    "generator after branches": (
        start >> both >> items >> node(name="sum")(lambda items: sum(items)),  # noqa: PLW0108  # as above
        1,
        """
        run start
          b <- start
          c <- start
          items <- b, c ~ b, c
          start
          sum <- items
        """,
    ),
}


def run(flow: Flow, inputs: Any) -> FlowRun[Any]:
    return flow.execute(inputs)


def awaited(flow: Flow, inputs: Any) -> FlowRun[Any]:
    return asyncio.run(flow.aexecute(inputs))


@pytest.mark.parametrize("way", [run, awaited])
@pytest.mark.parametrize(("flow", "inputs", "expected"), CASES.values(), ids=CASES)
def test_every_composition_is_one_trace_of_the_form_it_has(
    telemetry_path: TelemetryPath, flow: Flow, inputs: Any, expected: str, way: Callable[..., FlowRun[Any]]
) -> None:
    """One trace with one root, whose ids the run tells; each span in its place, saying what the contract says."""
    told = way(flow, inputs)
    spans = telemetry_path.spans()
    assert outline(spans) == dedent(expected).strip()
    check_contract(spans)
    (root,) = [span for span in spans if span.parent_id is None]
    assert {span.trace_id for span in spans} == {told.trace_id}
    assert root.attributes[names.RUN_ID] == told.run_id
    assert root.attributes[names.FLOW_NAME] == told.flow == flow.name


@pytest.mark.parametrize("flow", [items, items_apart, start >> items, start >> items_apart], ids=str)
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("take", [1, 3])
def test_a_stream_is_one_trace_that_ends_with_it(
    telemetry_path: TelemetryPath, flow: Flow, asynchronous: bool, take: int
) -> None:
    """From the first pull to exhaustion or close; the run span lasts as long, and the items taken are counted."""

    async def consume() -> None:
        stream = flow.astream(1)
        for _ in range(take):
            await anext(stream)
        assert not [span for span in telemetry_path.spans() if span.name.startswith("items")]
        await stream.aclose()  # type: ignore[attr-defined]  # an async generator

    if asynchronous:
        asyncio.run(consume())
    else:
        stream: Any = flow.stream(1)
        for _ in range(take):
            next(stream)
        assert not [span for span in telemetry_path.spans() if span.name.startswith("items")]
        stream.close()
    spans = telemetry_path.spans()
    check_contract(spans)
    last = next(span for span in spans if span.name.startswith("items"))
    assert last.attributes[names.STREAM_ITEMS] == take
    assert len({span.trace_id for span in spans}) == 1
    assert len(spans) == (1 if flow in (items, items_apart) else 3)
    root = next(span for span in spans if span.parent_id is None)
    assert root.start <= last.start <= last.end <= root.end


@pytest.mark.parametrize("way", [run, awaited])
@pytest.mark.parametrize(("flow", "inputs"), [case[:2] for case in CASES.values()], ids=CASES)
@pytest.mark.parametrize("provider", [None, TracerProvider(ALWAYS_OFF, shutdown_on_exit=False)], ids=["none", "off"])
def test_what_is_not_sampled_runs_the_same_and_emits_nothing(
    flow: Flow, inputs: Any, provider: TracerProvider | None, way: Callable[..., FlowRun[Any]]
) -> None:
    """Without a provider, and with a sampler that takes nothing, outputs are those of a traced run."""
    with CapturedTelemetry():
        traced = way(flow, inputs)
    exporter = InMemorySpanExporter()
    if provider is not None:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
    untraced = way(flow, inputs)
    assert untraced.outputs.keys() == traced.outputs.keys()
    streams = {"items"}  # objects of each run
    assert all(untraced.outputs[name] == value for name, value in traced.outputs.items() if name not in streams)
    assert exporter.get_finished_spans() == ()
    assert (untraced.trace_id is None) == (provider is None)
