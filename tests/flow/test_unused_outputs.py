"""Outputs that no parameter takes, or probably the wrong one: a warning, once per flow and node."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from dependency_injector import providers
from dependency_injector.wiring import Provide

from aetherflow.errors import UnusedOutputWarning
from aetherflow.flow.decorating import node
from aetherflow.flow.node import Node
from aetherflow.flow.running import NO_INPUT
from aetherflow.resources.context import BaseFlowContext


class Context(BaseFlowContext):
    service = providers.Object("provider")


def source(text: Any = "previous", name: str = "source") -> Node[..., Any]:
    return node(name=name)(lambda: text)


def last(function: Callable[..., Any]) -> Node[..., Any]:
    return node(name="last")(function)


def texts_of(flow: Node[..., Any], inputs: Any = NO_INPUT, context: Any = None) -> list[str]:
    """Run a flow, and return what it was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        flow.run(inputs, context)
    assert all(issubclass(each.category, UnusedOutputWarning) for each in caught)
    return [str(each.message) for each in caught]


# --- (a) no parameter takes the output ----------------------------------------------------------------------------


def test_the_warning_names_the_step_the_node_the_parameter_and_what_fills_it() -> None:
    """It is a UserWarning, and it says what to write if that is meant."""
    (text,) = texts_of(source("old", "a") >> source() >> last(lambda a: a))
    assert issubclass(UnusedOutputWarning, UserWarning)
    assert text == (
        "flow 'a': node `last` does not use the output of `source`: its parameter `a` takes the output of `a`. If this "
        "is intended, write `*, a`; otherwise name a parameter `source`"
    )


UNUSED: list[tuple[str, Callable[[], Node[..., Any]], Any, str]] = [
    ("an older output", lambda: source("1", "a") >> source() >> last(lambda a: a), None, "the output of `a`"),
    ("a provider", lambda: source() >> last(lambda service: service), Context(), "the provider `service`"),
    ("a provider, then a default", lambda: source() >> last(lambda service, n=1: n), Context(), "provider `service`"),
    (
        "after a fan-out",
        lambda: source("1", "a") >> [source("b", "b"), source("c", "c")] >> last(lambda a: a),
        None,
        "does not use the output of `[b, c]`",
    ),
    (
        "after a named flow",
        lambda: source("1", "a") >> (source("2", "b") >> last(lambda x: x)).named("inner") >> node(lambda a: a),
        None,
        "does not use the output of `inner`",
    ),
    (
        "in a branch of a fan-out",
        lambda: source("1", "a") >> source("2", "b") >> [last(lambda a: a), node(name="c")(lambda v: v)],
        None,
        "does not use the output of `b`",
    ),
    (
        "in a map",
        lambda: source("1", "a").then(node(name="b")(lambda v: [1])).map(last(lambda a: a)),
        None,
        "does not use the output of `b`",
    ),
    (
        "if one alternative ran",
        lambda: (
            source("l", "choose").branch_on({"l": source("1", "left"), "r": source("2", "right")})
            >> last(lambda choose, left=None: choose)
        ),
        None,
        "does not always use the output of `left|right`",
    ),
    (
        "in rounds",
        lambda: source("1", "a") >> [source("b", "b"), source("c", "c")] >> last(lambda b, c: b + c).repeat(2),
        None,
        "does not use the output of the round before",
    ),
]


@pytest.mark.parametrize(("flow", "context", "text"), [case[1:] for case in UNUSED], ids=[case[0] for case in UNUSED])
def test_an_output_that_no_parameter_takes_is_warned_of(flow: Any, context: Any, text: str) -> None:
    """Whatever the step is and whatever the parameters take instead."""
    (warning,) = texts_of(flow(), context=context)
    assert text in warning


def annotated_none() -> None: ...


def takes_b(b: Any) -> None: ...


MEANT: list[tuple[str, Callable[[], Node[..., Any]], Any, Any]] = [
    ("the output is taken", lambda: source() >> last(lambda value: value), NO_INPUT, None),
    ("it is taken by name", lambda: source() >> last(lambda text, source: text), {"text": 1}, None),
    ("a keyword-only parameter takes it", lambda: source() >> last(lambda *, source: source), NO_INPUT, None),
    ("there is no parameter", lambda: source() >> last(lambda: 1), NO_INPUT, None),
    ("there are keyword-only parameters only", lambda: source() >> last(lambda *, text: text), {"text": 1}, None),
    ("there are markers only", lambda: source() >> last(lambda s=Provide["service"]: s), NO_INPUT, Context()),
    ("the step is annotated None", lambda: node(annotated_none) >> last(lambda text: text), {"text": 1}, None),
    (
        "a branch is taken",
        lambda: source() >> [source("b", "b"), source("c", "c")] >> last(lambda c: c),
        NO_INPUT,
        None,
    ),
    (
        "each alternative is taken",
        lambda: (
            source("l", "choose").branch_on({"l": source("1", "left"), "r": source("2", "right")})
            >> last(lambda choose, left=None, right=None: choose)
        ),
        NO_INPUT,
        None,
    ),
    (
        "a provider of one alternative's name, taken in both",
        lambda: (
            source("l", "choose").branch_on({"l": source("1", "service"), "r": source("2", "right")})
            >> last(lambda service, value: (service, value))
        ),
        {"value": 1},
        Context(),
    ),
    (
        "an older output and a branch, of one alternative",
        lambda: (
            source("l", "choose").branch_on(
                {"l": source("1", "d") >> [source("2", "a"), source("3", "b")], "r": source("4", "e")}
            )
            >> last(lambda d, *, a=None: (d, a))
        ),
        NO_INPUT,
        None,
    ),
    (
        "rounds of a node annotated None",
        lambda: source() >> [source("b", "b"), source("c", "c")] >> node(takes_b).repeat(2),
        NO_INPUT,
        None,
    ),
    (
        "the node begins an alternative",
        lambda: source("l", "choose").branch_on({"l": last(lambda text: text)}),
        {"text": 1},
        None,
    ),
]


@pytest.mark.parametrize(("flow", "inputs", "context"), [case[1:] for case in MEANT], ids=[case[0] for case in MEANT])
def test_an_output_that_is_used_or_not_meant_to_be_is_not_warned_of(flow: Any, inputs: Any, context: Any) -> None:
    """Each documented way out, and each exception, is silent."""
    assert texts_of(flow(), inputs, context) == []


# --- (b) the alternative given as default= ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "context", "source_of_value"),
    [(lambda text: text, None, "the run input `text`"), (lambda state: state, Context(), "the provider `state`")],
)
def test_a_default_that_takes_an_input_is_warned_of(function: Any, context: Any, source_of_value: str) -> None:
    """Many write `default=` for what is to handle the value itself: the warning says that it takes something else."""
    keep = node(name="keep")(lambda text: text)
    flow = source("x", "choose").branch_on({"a": keep}, default=last(function))
    (text,) = texts_of(flow, {"text": "input"}, context)
    assert "node `last` is given as default= and does not use the output of `choose`" in text
    assert f"takes {source_of_value}" in text


def test_a_default_that_takes_the_value_is_not_warned_of() -> None:
    """By position if there is no such input, by name, or keyword-only."""
    choose = source("x", "choose")
    for function in (lambda value: value, lambda choose: choose, lambda *, text: text):
        flow = choose.branch_on({"a": node(name="a")(lambda text: text)}, default=last(function))
        assert texts_of(flow, {"text": "input"}) == []


# --- (c) a parameter with the name of an input --------------------------------------------------------------------


def test_an_output_beside_an_older_one_is_warned_of() -> None:
    """The first parameter has the name of an input and takes the output, and another one takes an older output."""
    load = node(name="load")(lambda text: text)
    double = node(name="double")(lambda loaded: 2 * loaded)
    (text,) = texts_of(load >> double >> last(lambda text, load: (text, load)), {"text": "t"})
    assert "parameter `text` of node `last` takes the output of `double` and not the run input `text`" in text
    assert "while `load` takes the output of `load`" in text


def test_that_is_not_warned_of_if_one_of_the_conditions_does_not_hold() -> None:
    """If the name is no input's, if no other parameter takes an older output, or if the parameter is keyword-only."""
    load = node(name="load")(lambda text: text)
    double = node(name="double")(lambda loaded: 2 * loaded)
    for function in (
        lambda value, load: (value, load),
        lambda text, more=1: (text, more),
        lambda *, text, load: (text, load),
        lambda text, double: (text, double),
    ):
        assert texts_of(load >> double >> last(function), {"text": "t"}) == []


# --- in some runs only --------------------------------------------------------------------------------------------


def test_the_source_may_differ_between_runs() -> None:
    """The warning then names each source that the parameter may have."""
    choose = source("l", "choose")
    flow = choose.branch_on({"l": source("1", "service"), "r": source("2", "right")})
    (text,) = texts_of(flow >> last(lambda service, value="default": service), context=Context())
    assert "does not always use the output of `service|right`" in text
    assert "its parameter `service` takes the output of `service` or the provider `service`" in text


def test_an_output_that_is_unused_in_some_runs_is_warned_of() -> None:
    """An older output that only some runs have takes its place in those."""
    choose = node(name="choose")(lambda key: key)
    flow = choose.branch_on({1: source("1", "b"), 2: source("2", "c")}) >> node(name="calc")(lambda z: z)
    (text,) = texts_of(flow >> last(lambda b, extra=None: (b, extra)), {"key": 1})
    assert "node `last` does not always use the output of `calc`: its parameter `b` takes the output of `b`" in text
    collected = choose.fan_out_to([source("1", "pre") >> last(lambda x: x) >> source("3", "end"), flow.named("other")])
    assert texts_of(collected >> node(name="calc2")(lambda z: z), {"key": 1}) == []


ADVICE: list[tuple[str, Callable[[], Node[..., Any]], str]] = [
    ("a node", lambda: source("1", "a") >> source("2", "b"), "name a parameter `b`"),
    (
        "a fan-out",
        lambda: source("1", "a") >> [source("2", "b"), source("3", "c")],
        "name a parameter `parallel_results` or `b` or `c`",
    ),
    (
        "alternatives",
        lambda: source("1", "a").branch_on({"1": source("2", "b") >> source("3", "d"), "2": source("4", "c")}),
        "name a parameter `d` or `c`",
    ),
    ("lists of elements", lambda: source([1], "a").chunked(2), "let the first parameter take it"),
]


@pytest.mark.parametrize(("flow", "advice"), [case[1:] for case in ADVICE], ids=[case[0] for case in ADVICE])
def test_the_advice_names_what_takes_the_output(flow: Any, advice: str) -> None:
    """A name that the warning recommends takes the output."""
    (text,) = texts_of(flow() >> last(lambda a: a))
    assert text.endswith(f"write `*, a`; otherwise {advice}")


# --- how often, and where -----------------------------------------------------------------------------------------


def unused() -> Node[..., Any]:
    return source("old", "a") >> source() >> last(lambda a, text=None: a)


def test_once_per_flow_and_node() -> None:
    """Other inputs and contexts plan again and do not warn again; another flow does."""
    flow = unused()
    assert len(texts_of(flow)) == 1
    assert texts_of(flow) == texts_of(flow, {"text": 1}) == texts_of(flow, context=Context()) == []
    assert len(texts_of(flow.named("other"))) == 1


def test_once_for_both_treatments_of_extra_inputs() -> None:
    """The flow is planned for each of them, and it is the same flow."""
    flow = unused()
    with pytest.warns(UnusedOutputWarning):
        flow.run()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow.run({"more": 1}, extra_inputs="ignore")


def test_the_warning_points_at_the_caller() -> None:
    """Its file is that of the code that runs the flow, whichever way the flow is run."""

    async def awaited(flow: Node[..., Any]) -> None:
        await flow.arun()

    for run in (
        lambda flow: flow.run(),
        lambda flow: flow.execute(),
        lambda flow: asyncio.run(awaited(flow)),
        lambda flow: flow(),
    ):
        with pytest.warns(UnusedOutputWarning) as caught:
            run(unused())
        assert [each.filename for each in caught] == [__file__]


def test_as_an_error_it_comes_before_anything_runs_and_each_time() -> None:
    """With `-W error`, no node has run, and the next run fails as the first one did."""
    ran: list[str] = []
    flow = node(name="a")(lambda: ran.append("a")) >> source() >> last(lambda a: a)
    for _ in range(2):
        with pytest.raises(UnusedOutputWarning):
            flow.run()
    assert ran == []


def test_drawing_does_not_warn() -> None:
    """A diagram shows a dashed edge instead."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "n2 -.-> n3" in unused().to_mermaid()
