"""Argument binding is the same on every path: sync, async, streams, processes, `run_many`, cached and batched nodes."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from tests.flow import binding_samples as samples

from aetherflow.engine.streaming import Stream
from aetherflow.flow.decorating import node
from aetherflow.flow.node import Node
from aetherflow.resources.batching import BatchPolicy
from aetherflow.resources.caching import CachePolicy
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.capture import CapturedTelemetry

Make = Callable[[Callable[..., Any]], Node[..., Any]]
TEXT = "  Ab Cd  "


# --- paths: how a node is made of a function, and how a flow is run -----------------------------------------------


def on_loop(function: Callable[..., Any]) -> Node[..., Any]:
    @functools.wraps(function)
    async def later(*args: Any, **named: Any) -> Any:
        await asyncio.sleep(0)
        return function(*args, **named)

    return node(name=function.__name__)(later)


def plain(value: Any) -> Any:
    """Return the one item of a stream."""
    return next(value) if isinstance(value, Stream) else value


def streamed(function: Callable[..., Any]) -> Node[..., Any]:
    """Make a generator node that yields one item, and takes the item of each stream that it is given."""

    @functools.wraps(function)
    def stream(*args: Any, **named: Any) -> Iterator[Any]:
        yield function(*map(plain, args), **{name: plain(value) for name, value in named.items()})

    return node(name=function.__name__)(stream)


def streamed_on_loop(function: Callable[..., Any]) -> Node[..., Any]:
    @functools.wraps(function)
    async def stream(*args: Any, **named: Any) -> Any:
        values = [await anext(value) if isinstance(value, Stream) else value for value in args]
        yield function(*values, **named)

    return node(name=function.__name__)(stream)


def cached(function: Callable[..., Any]) -> Node[..., Any]:
    policy = CachePolicy(ttl=60, key=lambda *args, **named: repr((args, named)))
    return node(name=function.__name__, cache=policy)(function)


def batched(function: Callable[..., Any]) -> Node[..., Any]:
    @functools.wraps(function)
    def together(items: list[Any], *args: Any, **named: Any) -> list[Any]:
        return [function(item, *args, **named) for item in items]

    return node(name=function.__name__, batch=BatchPolicy(size=1))(together)


def in_process(function: Callable[..., Any]) -> Node[..., Any]:
    return node(name=function.__name__, executor="process")(function)


def in_thread(function: Callable[..., Any]) -> Node[..., Any]:
    return node(name=function.__name__, executor="thread")(function)


def here(function: Callable[..., Any]) -> Node[..., Any]:
    return node(name=function.__name__)(function)


def run(flow: Node[..., Any], inputs: Any, context: Any) -> Any:
    return plain(flow.run(inputs, context))


def arun(flow: Node[..., Any], inputs: Any, context: Any) -> Any:
    async def main() -> Any:
        output = await flow.arun(inputs, context)
        return await anext(output) if isinstance(output, Stream) else output

    return asyncio.run(main())


def run_many(flow: Node[..., Any], inputs: Any, context: Any) -> Any:
    first, second = flow.run_many([inputs, inputs], context, max_workers=2)
    assert first == second
    return first


def execute(flow: Node[..., Any], inputs: Any, context: Any) -> Any:
    return flow.execute(inputs, context).output


PATHS: Mapping[str, tuple[Make, Callable[..., Any]]] = {
    "sync": (here, run),
    "sync, executed": (here, execute),
    "sync, awaited": (here, arun),
    "async": (on_loop, run),
    "async, awaited": (on_loop, arun),
    "thread": (in_thread, run),
    "process": (in_process, run),
    "process, awaited": (in_process, arun),
    "stream": (streamed, run),
    "stream, awaited": (streamed, arun),
    "async stream, awaited": (streamed_on_loop, arun),
    "run_many": (here, run_many),
    "async, run_many": (on_loop, run_many),
    "cached": (cached, run),
    "cached, awaited": (cached, arun),
    "batched": (batched, run),
    "batched, awaited": (batched, arun),
    "batched, run_many": (batched, run_many),
}


# --- rules --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A flow that shows one rule.

    Args:
        flow: Makes the flow.
        expected: Its output.
        upstream: The nodes whose output its last node takes, as its span has them.
        inputs: The run's inputs.
        context: The run's context.
        in_streams: Whether it can be made of generator nodes, whose outputs choose nothing and are read once.
        in_batches: Whether it can be made of batched nodes, whose first positional parameter takes an item.
    """

    flow: Callable[[Make], Node[..., Any]]
    expected: Any
    upstream: tuple[str, ...] | None
    inputs: Any = None
    context: Any = None
    in_streams: bool = True
    in_batches: bool = True


TEXTS = {"text": TEXT}
CASES: Mapping[str, Case] = {
    "the previous output comes before an input": Case(
        lambda m: m(samples.strip) >> m(samples.lower), "ab cd", ("strip",), TEXTS
    ),
    "in each of three steps": Case(
        lambda m: m(samples.strip) >> m(samples.lower) >> m(samples.upper), "AB CD", ("lower",), TEXTS
    ),
    "a single value is for the first node": Case(
        lambda m: m(samples.strip) >> m(samples.lower), "ab cd", ("strip",), TEXT
    ),
    "before a default": Case(lambda m: m(samples.strip) >> m(samples.with_default), "<Ab Cd>", ("strip",), TEXTS),
    "an older output by name": Case(
        lambda m: m(samples.strip) >> m(samples.lower) >> m(samples.by_name),
        "ab cd+Ab Cd",
        ("lower", "strip"),
        TEXTS,
        in_streams=False,
    ),
    "by name, so that the first parameter takes the input": Case(
        lambda m: m(samples.strip) >> m(samples.input_behind_name), f"{TEXT!r}+Ab Cd", ("strip",), TEXTS
    ),
    "keyword-only takes the input": Case(
        lambda m: m(samples.strip) >> m(samples.keyword_only), f"Ab Cd+{TEXT!r}", ("strip",), TEXTS
    ),
    "a provider is passed over": Case(
        lambda m: m(samples.strip) >> m(samples.passed_over),
        "service+Ab Cd",
        ("strip",),
        TEXTS,
        samples.Context(),
        in_batches=False,
    ),
    "a built-in provider is not": Case(
        lambda m: m(samples.strip) >> m(samples.built_in), "<Ab Cd>", ("strip",), TEXTS, samples.Context()
    ),
    "a marker comes first": Case(
        lambda m: m(samples.strip) >> m(samples.marked), "Ab Cd+service", ("strip",), TEXTS, samples.Context()
    ),
    "an input instead of a marker": Case(
        lambda m: m(samples.strip) >> m(samples.marked), "Ab Cd+input", ("strip",), {**TEXTS, "service": "input"}
    ),
    "the whole mapping": Case(lambda m: m(samples.describe), "a b", None, {"b": 1, "a": 2}),
    "var keyword": Case(lambda m: m(samples.var_keyword), "Ab Cd+[('a', 1)]", None, {**TEXTS, "a": 1}),
    "nothing is passed on by a node annotated None": Case(
        lambda m: m(samples.quiet) >> m(samples.lower), TEXT.lower(), None, TEXTS, in_streams=False, in_batches=False
    ),
    "branches and a fan-in": Case(
        lambda m: m(samples.strip) >> [m(samples.lower), m(samples.upper)] >> m(samples.join),
        "lower=ab cd+upper=AB CD",
        ("lower", "upper"),
        TEXTS,
        in_streams=False,
    ),
    "branches by key": Case(
        lambda m: m(samples.strip) >> [m(samples.lower) >> m(samples.grow), m(samples.upper)] >> m(samples.join_by_key),
        "AB CD+ab cd!",
        ("upper", "grow"),
        TEXTS,
        in_streams=False,
    ),
    "an alternative takes the input": Case(
        lambda m: m(samples.classify).branch_on({"long": m(samples.handle), "short": m(samples.grow)}),
        f"handled {TEXT!r}",
        None,
        TEXTS,
        in_streams=False,
    ),
    "after an alternative": Case(
        lambda m: (
            m(samples.classify).branch_on({"long": m(samples.handle)}, default=m(samples.built_in)) >> m(samples.upper)
        ),
        f"handled {TEXT!r}".upper(),
        ("handle",),
        TEXTS,
        in_streams=False,
    ),
    "rounds": Case(lambda m: m(samples.strip) >> m(samples.grow).repeat(3), "Ab Cd!!!", ("grow",), TEXTS),
    "rounds by name": Case(
        lambda m: m(samples.strip) >> m(samples.improve).repeat(2),
        "Ab Cd+p+p",
        ("improve",),
        {**TEXTS, "prompt": "p"},
        in_batches=True,
    ),
    "a named flow": Case(
        lambda m: (m(samples.strip) >> m(samples.lower)).named("clean") >> m(samples.grow), "ab cd!", ("clean",), TEXTS
    ),
    "elements of a map": Case(
        lambda m: m(samples.split).map(m(samples.upper)) >> here(lambda text: "+".join([*text])).named("end"),
        "AB+CD",
        ("upper",),
        TEXTS,
        in_streams=False,
    ),
}


def applies(case: Case, path: str) -> bool:
    if "stream" in path:
        return case.in_streams
    return case.in_batches or "batched" not in path


MATRIX = [
    pytest.param(path, case, id=f"{path}: {name}")
    for path in PATHS
    for name, case in CASES.items()
    if applies(case, path)
]


@pytest.mark.parametrize(("path", "case"), MATRIX)
def test_each_rule_on_each_path(path: str, case: Case) -> None:
    """The output is what the rules say, and the last node's span names the nodes whose output it took."""
    make, run_flow = PATHS[path]
    flow = case.flow(make)
    with CapturedTelemetry() as telemetry:
        assert run_flow(flow, case.inputs, case.context) == case.expected
    nodes = [span for span in telemetry.spans if names.NODE_UPSTREAM in (span.attributes or {})]
    if case.upstream is not None:
        ends = [span for span in nodes if set(span.attributes[names.NODE_UPSTREAM]) == set(case.upstream)]
        assert ends, [(span.name, span.attributes[names.NODE_UPSTREAM]) for span in nodes]
