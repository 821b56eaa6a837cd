"""Inputs that look like nothing are values like any other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aetherflow.errors import MissingInputError
from aetherflow.flow.decorating import node
from aetherflow.flow.node import Node
from aetherflow.flow.running import NO_INPUT

VALUES = [None, 0, "", False, (), [], 0.0]


@node
def with_default(amount: Any = 100) -> Any:
    return amount


@node
def strict(amount: Any) -> Any:
    return amount


@node
async def awaited(amount: Any = 100) -> Any:
    return amount


after = node(lambda value: value, name="after")
FLOWS = [
    with_default,
    strict,
    awaited,
    with_default >> after,
    with_default.named("flow"),
    with_default >> [after, strict],
]
every_value = pytest.mark.parametrize("value", VALUES, ids=repr)
every_flow = pytest.mark.parametrize("flow", FLOWS, ids=str)


def single(result: Any) -> Any:
    """Return the result of a flow, whose branches all have the same."""
    return next(iter(result.values())) if isinstance(result, dict) else result


@every_value
@every_flow
def test_a_single_value_reaches_the_first_node(flow: Node[..., Any], value: Any) -> None:
    """However the flow is run."""
    assert single(flow.run(value)) == value
    assert single(flow.execute(value).output) == value
    assert single(asyncio.run(flow.arun(value))) == value
    assert single(asyncio.run(flow.aexecute(value)).output) == value
    assert type(single(flow.run(value))) is type(value)


@every_flow
def test_run_many_passes_on_every_value(flow: Node[..., Any]) -> None:
    """Lists of records contain None."""
    assert [single(each) for each in flow.run_many([1, None, 3, 0, ""])] == [1, None, 3, 0, ""]


@every_flow
def test_a_run_without_inputs_uses_the_default(flow: Node[..., Any]) -> None:
    """Leaving the argument out is no value."""
    if flow is strict:
        with pytest.raises(MissingInputError):
            flow.run()
    else:
        assert single(flow.run()) == 100
        assert single(flow.run(NO_INPUT)) == 100
        assert single(asyncio.run(flow.arun())) == 100


def test_none_reaches_a_stream() -> None:
    """As any value does."""

    @node
    def items(first: Any = 100) -> Any:
        yield first

    assert list(items.stream(None)) == [None]
    assert list(items.stream()) == [100]

    async def consume() -> list[Any]:
        return [item async for item in items.astream(None)]

    assert asyncio.run(consume()) == [None]


def test_a_mapping_may_hold_none() -> None:
    """Under the name of a parameter, and as a whole."""
    assert with_default.run({"amount": None}) is None
    assert (with_default >> after).run({"amount": None}) is None


def test_none_is_passed_on_between_nodes_and_elements() -> None:
    """An output of None is an output."""
    nothing = node(lambda: None, name="nothing")
    assert (nothing >> with_default).run() is None
    assert node(lambda: [1, None, 3], name="source").map(with_default).run() == [1, None, 3]
    assert (nothing >> with_default).repeat(2).run() is None


def test_the_sentinel_is_readable() -> None:
    """In a help text and in a traceback."""
    assert repr(NO_INPUT) == "NO_INPUT"
