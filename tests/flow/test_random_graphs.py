"""Random flows give what a plain-Python reading of them gives, run and awaited, in one well-formed trace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan

from aetherflow import Node, node
from aetherflow.telemetry.capture import CapturedTelemetry

# A shape is a nested tuple that says how nodes are put together; its leaves are small functions of one whole number.
Shape = tuple[Any, ...]
FUNCTIONS: Sequence[Callable[[int], int]] = (lambda v: v + 1, lambda v: v * 2, lambda v: v - 3, lambda v: v % 7)

leaves = st.tuples(st.just("call"), st.integers(0, len(FUNCTIONS) - 1), st.booleans())
shapes: st.SearchStrategy[Shape] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(st.just("chain"), st.lists(inner, min_size=2, max_size=3)),
        st.tuples(st.just("fan_out"), st.lists(inner, min_size=1, max_size=3)),
        st.tuples(st.just("pool"), inner, st.integers(2, 3), st.integers(0, 4)),
        st.tuples(st.just("map"), inner, st.integers(0, 4)),
        st.tuples(st.just("branch"), inner, inner),
        st.tuples(st.just("repeat"), inner, st.integers(1, 3)),
        st.tuples(st.just("named"), inner),
    ),
    max_leaves=8,
)


class Builder:
    """Makes a flow of a shape; every node takes the output before it by place, under a name of its own."""

    def __init__(self) -> None:
        self.count = 0

    def node(self, function: Callable[[Any], Any], *, awaited: bool = False) -> Node[..., Any, Any]:
        self.count += 1
        name = f"n{self.count}"
        if not awaited:

            @node(name=name)
            def step(value: Any, /) -> Any:
                return function(value)

            return step

        @node(name=name)
        async def step_apart(value: Any, /) -> Any:
            await asyncio.sleep(0)
            return function(value)

        return step_apart

    def build(self, shape: Shape) -> Node[..., Any, Any]:
        match shape:
            case "call", index, awaited:
                return self.node(FUNCTIONS[index], awaited=awaited)
            case "chain", parts:
                flow, *others = [self.build(part) for part in parts]
                for other in others:
                    flow = flow >> other
                return flow
            case "fan_out", parts:
                branches = [self.build(part) for part in parts]
                return self.node(lambda v: v) >> branches >> self.node(lambda results: sum(results.values()))
            case "pool", body, workers, size:
                spread = self.node(lambda v: {"parts": [v + i for i in range(size)]})
                return spread >> [self.build(body)] * workers >> self.node(lambda results: sum(results.values()))
            case "map", body, size:
                spread = self.node(lambda v: tuple(v + i for i in range(size)))
                return spread.map(self.build(body), max_concurrency=2) >> self.node(sum)
            case "branch", odd, even:
                choose = self.node(lambda v: v % 2)
                return choose.branch_on({1: self.build(odd)}, default=self.build(even))
            case "repeat", body, times:
                return self.build(body).repeat(times)
            case _, body:
                self.count += 1
                return (self.node(lambda v: v) >> self.build(body)).named(f"f{self.count}")


def reference(shape: Shape, value: int) -> int:
    """Return what the shape computes, without AetherFlow."""
    match shape:
        case "call", index, _:
            return FUNCTIONS[index](value)
        case "chain", parts:
            for part in parts:
                value = reference(part, value)
            return value
        case "fan_out", parts:
            return sum(reference(part, value) for part in parts)
        case ("pool", body, _, size) | ("map", body, size):
            return sum(reference(body, value + i) for i in range(size))
        case "branch", odd, even:
            return reference(odd if value % 2 else even, value % 2)
        case "repeat", body, times:
            for _ in range(times):
                value = reference(body, value)
            return value
        case _, body:
            return reference(body, value)


def executions(shape: Shape, value: int) -> int:
    """Return how many spans a run of the shape has, the outermost run span not counted."""
    match shape:
        case "call", _, _:
            return 1
        case "chain", parts:
            count = 0
            for part in parts:
                count += executions(part, value)
                value = reference(part, value)
            return count
        case "fan_out", parts:
            return 2 + sum(executions(part, value) for part in parts)
        case ("pool", body, _, size) | ("map", body, size):
            return 2 + sum(executions(body, value + i) for i in range(size))
        case "branch", odd, even:
            return 1 + executions(odd if value % 2 else even, value % 2)
        case "repeat", body, times:
            count = 0
            for _ in range(times):
                count += executions(body, value)
                value = reference(body, value)
            return count
        case _, body:
            return 2 + executions(body, value)


def check_trace(spans: Sequence[ReadableSpan]) -> None:
    """One trace, one root, every parent there, every child within its parent's time."""
    by_id = {span.context.span_id: span for span in spans if span.context is not None}
    assert len({span.context.trace_id for span in spans if span.context is not None}) == 1
    assert sum(span.parent is None for span in spans) == 1
    for span in spans:
        if span.parent is not None:
            parent = by_id[span.parent.span_id]
            assert parent.start_time is not None
            assert parent.end_time is not None
            assert span.start_time is not None
            assert span.end_time is not None
            assert parent.start_time <= span.start_time <= span.end_time <= parent.end_time


@given(shapes, st.integers(-20, 20))
def test_a_random_flow_computes_what_its_reference_computes_in_one_trace(shape: Shape, value: int) -> None:
    """Run and awaited alike: the reference's value, and a trace with a span for every execution."""
    builder = Builder()
    flow = builder.node(lambda v: v) >> builder.build(shape)  # two nodes at least, so that there is a run span
    expected, count = reference(shape, value), 2 + executions(shape, value)
    with CapturedTelemetry() as captured:
        assert flow.run(value) == expected
        check_trace(captured.spans)
        assert len(captured.spans) == count
        captured.clear()
        assert asyncio.run(flow.arun(value)) == expected
        check_trace(captured.spans)
        assert len(captured.spans) == count
