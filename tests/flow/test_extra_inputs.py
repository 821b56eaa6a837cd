"""Run inputs that no parameter takes: an error before anything runs, unless they are to be ignored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from dependency_injector import providers
from dependency_injector.wiring import Provide

from aetherflow.errors import AetherFlowError, ConfigurationError, UnknownInputError
from aetherflow.flow.decorating import node
from aetherflow.flow.node import Node
from aetherflow.resources.batching import BatchPolicy
from aetherflow.resources.context import BaseFlowContext
from aetherflow.telemetry.capture import CapturedTelemetry


class Context(BaseFlowContext):
    service = providers.Object("provider")


strip = node(name="strip")(lambda text: text.strip())
lower = node(name="lower")(lambda text: text.lower())
pad = node(name="pad")(lambda value, width=0: value.ljust(width))
items = node(name="items")(lambda n: iter(range(n)))


def error_of(flow: Node[..., Any], inputs: Any, context: Any = None) -> UnknownInputError:
    with pytest.raises(UnknownInputError) as caught:
        flow.run(inputs, context)
    return caught.value


# --- the error ----------------------------------------------------------------------------------------------------


def test_an_unknown_input_is_an_error_before_anything_runs() -> None:
    """No node runs and nothing is emitted; the error is a LookupError with the names as data."""
    ran: list[str] = []
    flow = node(name="first")(lambda text: [ran.append(text)]) >> node(name="second")(lambda value: value)
    with CapturedTelemetry() as telemetry:
        error = error_of(flow, {"text": "a", "more": 1, "most": 2})
    assert (ran, telemetry.spans) == ([], ())
    assert isinstance(error, AetherFlowError)
    assert isinstance(error, LookupError)
    assert (error.flow, error.inputs, error.allowed) == ("first", ("more", "most"), ("text",))
    assert "no parameter takes the inputs 'more', 'most'" in str(error)


def test_a_misspelled_input_is_told_with_its_nearest_spelling() -> None:
    """The nearest spelling is that of a parameter that would take an input."""
    error = error_of(strip >> pad, {"text": "a", "widht": 3})
    assert "Did you mean `width` instead of `widht`?" in str(error)
    assert error.allowed == ("text", "width")


REASONS: list[tuple[Callable[[], Node[..., Any]], dict[str, Any], Any, str]] = [
    (
        lambda: node(name="strip")(lambda: "a") >> lower,
        {"text": "b"},
        None,
        "`text` of `lower` takes the output of `strip`; write `*, text` to take the input.",
    ),
    (
        lambda: strip >> node(name="last")(lambda strip: strip),
        {"text": "a", "strip": "b"},
        None,
        "`strip` of `last` takes the output of `strip`. Inputs",
    ),
    (
        lambda: node(name="takes")(lambda service=Provide["service"]: service),
        {"service": 1},
        Context(),
        "`service` of `takes` takes the value of Provide['service'], since a marker comes before inputs",
    ),
    (
        lambda: strip >> [lower, pad] >> node(name="last")(lambda parallel_results: parallel_results),
        {"text": "a", "parallel_results": 1},
        None,
        "`parallel_results` of `last` takes the output of `[lower, pad]`",
    ),
]


@pytest.mark.parametrize(("flow", "inputs", "context", "reason"), REASONS)
def test_the_error_says_what_fills_the_parameter_instead(flow: Any, inputs: Any, context: Any, reason: str) -> None:
    """If a parameter has the input's name, the error names its node and what it takes."""
    assert reason in str(error_of(flow(), inputs, context))


def test_a_flow_without_inputs_says_so() -> None:
    """The list of inputs is then `none`."""
    assert "Inputs of this flow: none" in str(error_of(node(name="none")(lambda: 1), {"a": 1}))


def test_the_message_stays_short() -> None:
    """Of many unknown inputs, and of one with a long or odd name, the message shows a part; the data has all."""
    error = error_of(strip, {"text": "a", **{f"input{index}": 1 for index in range(10_000)}})
    assert len(error.inputs) == 10_000
    assert "and 9992 more" in str(error)
    assert len(str(error)) < 1_000
    odd = error_of(strip, {"text": "a", "\x1b[31m" + "x" * 10_000: 1, 7: 2})
    assert "\x1b" not in str(odd)
    assert len(str(odd)) < 1_000
    assert "7" in str(odd)


def test_an_input_that_only_some_runs_use_is_known() -> None:
    """A parameter of an alternative that does not run, or one that takes the input in some runs only, counts."""
    choose = node(name="choose")(lambda side: side)
    flow = choose.branch_on({"l": node(name="left")(lambda only: only), "r": node(name="right")(lambda side: side)})
    assert flow.run({"side": "r", "only": 1}) == "r"
    maybe = flow >> node(name="last")(lambda value, left=None: (value, left))
    assert maybe.run({"side": "r", "only": 1, "left": "input"}) == ("r", "input")


def test_inputs_that_something_takes_are_no_error() -> None:
    """The whole mapping, `**kwargs`, a marker without a context, and a single value take what there is."""
    assert node(lambda request: request).run({"a": 1, "b": 2}) == {"a": 1, "b": 2}
    assert node(lambda **more: more).run({"a": 1}) == {"a": 1}
    assert node(lambda service=Provide["service"]: service).run({"service": 1}) == 1
    assert strip.run(" a ") == "a"
    assert (strip >> lower)(" A ") == "a"


# --- extra_inputs -------------------------------------------------------------------------------------------------


async def collected(stream: Any) -> list[Any]:
    return [item async for item in stream]


RUNS: dict[str, Callable[..., Any]] = {
    "run": lambda flow, inputs, **options: list(flow.run(inputs, **options)),
    "arun": lambda flow, inputs, **options: list(asyncio.run(flow.arun(inputs, **options))),
    "execute": lambda flow, inputs, **options: list(flow.execute(inputs, **options).output),
    "aexecute": lambda flow, inputs, **options: list(asyncio.run(flow.aexecute(inputs, **options)).output),
    "stream": lambda flow, inputs, **options: list(flow.stream(inputs, **options)),
    "astream": lambda flow, inputs, **options: asyncio.run(collected(flow.astream(inputs, **options))),
    "run_many": lambda flow, inputs, **options: list(next(flow.run_many([inputs], **options))),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_extra_inputs_of_a_call(run: Callable[..., Any]) -> None:
    """Every way to run a flow ignores unknown inputs on request, and raises otherwise."""
    inputs = {"n": 2, "more": 1}
    assert run(items, inputs, extra_inputs="ignore") == [0, 1]
    for options in ({}, {"extra_inputs": "raise"}, {"extra_inputs": None}):
        with pytest.raises(UnknownInputError, match="'more'"):
            run(items, inputs, **options)
    assert run(items, {"n": 2}) == [0, 1]


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_a_call_decides_before_the_name(run: Callable[..., Any]) -> None:
    """`named(extra_inputs=…)` is the default of its flow; an argument of the call comes before it."""
    inputs = {"n": 2, "more": 1}
    lenient = items.named("lenient", extra_inputs="ignore")
    assert run(lenient, inputs) == [0, 1]
    with pytest.raises(UnknownInputError):
        run(lenient, inputs, extra_inputs="raise")
    assert run(items.named("strict", extra_inputs="raise"), inputs, extra_inputs="ignore") == [0, 1]


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("value", ["ignroe", "", 0, False, ["ignore"], object])
def test_other_values_are_refused(run: Callable[..., Any], value: Any) -> None:
    """One error names the value, what is allowed, and the nearest spelling."""
    hint = ".*did you mean 'ignore'" if value == "ignroe" else ""
    with pytest.raises(ConfigurationError, match=f"extra_inputs must be 'raise' or 'ignore', got .*{hint}"):
        run(items, {"n": 2}, extra_inputs=value)
    with pytest.raises(ConfigurationError, match="extra_inputs must be"):
        items.named("x", extra_inputs=value)


def test_another_name_keeps_the_treatment() -> None:
    """`named` without the argument changes the name alone."""
    lenient = items.named("lenient", extra_inputs="ignore")
    assert list(lenient.named("again").run({"n": 1, "more": 2})) == [0]
    with pytest.raises(UnknownInputError):
        lenient.named("strict", extra_inputs="raise").run({"n": 1, "more": 2})


def test_rounds_do_not_hide_an_input() -> None:
    """The parameter that rounds feed takes its first value from an input of its name."""
    error = error_of(node(name="improve")(lambda prompt="p", draft="d": draft).repeat(2), {"promt": 1})
    assert error.allowed == ("prompt", "draft")
    assert "Did you mean `prompt` instead of `promt`?" in str(error)


def test_the_outermost_flow_decides() -> None:
    """A named flow inside another is run with the other's inputs, and the other's treatment of them."""
    inner = (strip >> lower).named("inner", extra_inputs="ignore")
    outer = inner >> pad
    with pytest.raises(UnknownInputError, match="flow 'inner'"):
        outer.run({"text": "A", "more": 1})
    assert outer.named("outer", extra_inputs="ignore").run({"text": "A", "more": 1}) == "a"


def test_methods_keep_what_their_name_says() -> None:
    """A node that is a method has the same default, bound to its object."""

    class Account:
        @node
        def add(self, amount: int) -> int:
            return amount + 1

        lenient = add.named("lenient", extra_inputs="ignore")

    assert Account().lenient.run({"amount": 1, "more": 2}) == 2
    with pytest.raises(UnknownInputError):
        Account().add.run({"amount": 1, "more": 2})


def test_in_run_many_one_unknown_input_fails_its_run_alone() -> None:
    """Outputs of the runs before it are there; batched nodes, too, run for the other inputs."""

    @node(batch=BatchPolicy(size=3))
    def double(values: list[int]) -> list[int]:
        return [2 * value for value in values]

    for flow in (node(name="one")(lambda values: 2 * values), double):
        outputs = flow.run_many([{"values": 1}, {"values": 2, "more": 1}, {"values": 3}], max_workers=1)
        assert next(outputs) == 2
        with pytest.raises(UnknownInputError, match="'more'"):
            next(outputs)
