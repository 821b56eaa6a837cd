"""Argument binding: every rule, every conflict of two rules, and the errors if no rule applies."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Annotated, Any, NewType, Optional, TypedDict, TypeVar, Union

import pytest
from dependency_injector import containers, providers
from dependency_injector.wiring import Provide

from aetherflow.errors import ConfigurationError, MissingInputError, UnknownInputError, UnusedOutputWarning
from aetherflow.flow import running
from aetherflow.flow.decorating import node
from aetherflow.flow.node import Node
from aetherflow.flow.policies import RetryPolicy
from aetherflow.flow.running import NO_INPUT
from aetherflow.resources.batching import BatchPolicy
from aetherflow.resources.caching import CachePolicy
from aetherflow.resources.context import BaseFlowContext
from aetherflow.telemetry.capture import CapturedTelemetry


class Context(BaseFlowContext):
    x = providers.Object("provider")
    other = providers.Object("other provider")


def source(text: str = "previous", name: str = "source") -> Node[..., Any]:
    """A first node that takes no arguments and returns ``text``."""
    return node(name=name)(lambda: text)


def quiet(name: str = "quiet") -> Node[..., Any]:
    """A node that is annotated ``-> None``."""

    def stay_quiet() -> None: ...

    return node(name=name)(stay_quiet)


def last(function: Callable[..., Any]) -> Node[..., Any]:
    return node(name="last")(function)


# --- rule 1: explicit markers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["other", Context.other], ids=["by name", "by provider"])
def test_a_marker_as_default_injects_its_provider(target: object) -> None:
    """A `Provide[...]` default injects that provider, whatever the parameter is called."""

    @node
    def takes(service: str = Provide[target]) -> str:
        return service

    assert takes.run(context=Context()) == "other provider"


def test_a_marker_in_an_annotation_injects_its_provider() -> None:
    """`Annotated[..., Provide[...]]` counts as the default does."""

    def takes(service):  # type: ignore[no-untyped-def]
        return service

    takes.__annotations__ = {"service": Annotated[str, Provide["other"]]}
    assert node(takes).run(context=Context()) == "other provider"


def test_a_marker_comes_before_every_other_rule() -> None:
    """With a context, neither an earlier output, nor the previous one, nor an input replaces a marker's provider."""

    @node(name="last")
    def takes(value: str, service: str = Provide["other"]) -> tuple[str, str]:
        return value, service

    flow = source("output", "service") >> source() >> takes
    assert flow.run(context=Context()) == ("previous", "other provider")
    assert flow.run({"service": "input"}, Context(), extra_inputs="ignore") == ("previous", "other provider")


def test_without_a_context_an_input_replaces_a_marker() -> None:
    """A test needs no container: it gives the object as a run input."""

    @node
    def takes(service: str = Provide["other"]) -> str:
        return service

    assert takes.run({"service": "input"}) == "input"
    assert (source() >> last(takes.func)).run({"service": "input"}) == "input"


def test_a_marker_without_a_context_is_a_missing_input() -> None:
    """The error names the parameter and says that a context is needed; the previous output does not replace it."""

    @node
    def takes(service: str = Provide["other"]) -> str:
        return service

    with pytest.raises(MissingInputError, match=r"'service' of node 'takes'.*context=") as caught:
        source().then(takes).run()
    assert caught.value.available == ("output 'source'",)


def test_a_marker_that_the_context_lacks_is_a_missing_input() -> None:
    """The error names the parameter, the marker, and the providers of the context."""

    @node
    def takes(service: str = Provide["nowhere"]) -> str:
        return service

    with pytest.raises(MissingInputError, match=r"'service' of node 'takes'.*nowhere") as caught:
        takes.run(context=Context())
    assert "provider 'other'" in caught.value.available


# --- rule 2: earlier outputs by name ------------------------------------------------------------------------------


def test_an_earlier_output_is_taken_by_name() -> None:
    """A parameter takes the output of the node that has its name, however far back."""
    flow = source("1", "first") >> source("2", "second") >> last(lambda second, first: f"{second} {first}")
    assert flow.run() == "2 1"


def test_an_earlier_output_comes_before_an_input_and_a_provider() -> None:
    """Rule 2 comes before rules 4 and 5."""
    flow = source("output", "x") >> source() >> last(lambda source, x: x)
    assert flow.run({"x": "input"}, Context(), extra_inputs="ignore") == "output"


def test_the_latest_output_of_a_name_counts() -> None:
    """A node that is used twice means its latest output."""
    count = iter(range(9))
    again = node(name="again")(lambda: next(count))
    assert (again >> again >> source() >> last(lambda source, again: again)).run() == 1


def test_a_named_flow_is_taken_by_its_name() -> None:
    """Its name means its last output; the names of its nodes mean nothing outside of it."""
    inner = (source("1", "inside") >> node(name="end")(lambda inside: inside + "!")).named("inner")
    assert (source() >> inner >> source(name="more") >> last(lambda more, inner: inner)).run() == "1!"
    with pytest.raises(MissingInputError, match="'inside' of node 'last'"):
        (source() >> inner >> last(lambda value, inside: inside)).run()


# --- rule 3: the previous step's output ---------------------------------------------------------------------------


@pytest.mark.parametrize("inputs", [NO_INPUT, {"text": "  A  "}, "  A  "])
def test_the_previous_output_goes_to_the_first_parameter(inputs: Any) -> None:
    """Whatever the parameter is called, and whatever inputs the run has: chained functions compose."""
    strip = node(name="strip")(lambda text="  A  ": text.strip())
    lower = node(name="lower")(lambda text: text.lower())
    assert (strip >> lower).run(inputs) == "a"
    assert (strip >> lower >> node(name="list")(lambda text: [text])).run(inputs) == ["a"]


def test_the_same_node_several_times_composes() -> None:
    """A node takes its own previous output, and not its first argument again."""
    inc = node(name="inc")(lambda n: n + 1)
    assert (inc >> inc >> inc).run({"n": 1}) == 4


def test_the_previous_output_comes_before_a_default() -> None:
    """A first parameter with a default takes the output too."""
    assert (source() >> last(lambda value=0: value)).run() == "previous"


@pytest.mark.parametrize("value", [(1, 2), {"a": 1, "b": 2}, [1], None])
def test_an_output_is_one_value(value: Any) -> None:
    """A tuple or a mapping is never spread over parameters."""
    assert (source(value) >> last(lambda a, b="default": (a, b))).run() == (value, "default")


def test_a_parameter_that_takes_the_output_by_name_keeps_it() -> None:
    """If a parameter has the previous step's name, the first parameter takes an input instead."""
    inc = node(name="inc")(lambda x: x + 1)
    add = node(name="add")(lambda inc, x: (inc, x))
    assert (inc >> add).run({"x": 1}) == (2, 1)
    assert (inc >> node(name="add")(lambda x, inc: (x, inc))).run({"x": 1}) == (1, 2)
    assert (inc >> node(name="add")(lambda x, *, inc: (x, inc))).run({"x": 1}) == (1, 2)


def test_parameters_with_a_marker_are_passed_over() -> None:
    """The output goes to the first parameter without a marker."""

    def takes(service, value):  # type: ignore[no-untyped-def]
        return service, value

    takes.__annotations__ = {"service": Annotated[str, Provide["other"]]}
    assert (source() >> last(takes)).run(context=Context()) == ("other provider", "previous")


def test_parameters_with_the_name_of_a_provider_are_passed_over() -> None:
    """The output goes to the next parameter; without a context, the name means nothing."""
    flow = source() >> last(lambda x, value: (x, value))
    assert flow.run(context=Context()) == ("provider", "previous")
    assert flow.run({"value": "input"}) == ("previous", "input")


def test_behind_a_parameter_that_is_passed_over_a_default_stays() -> None:
    """A parameter behind one that is passed over takes the output only if it has no default."""
    flow = source() >> last(lambda x, value="default": (x, value))
    with pytest.warns(UnusedOutputWarning, match="`x` takes the provider `x`"):
        assert flow.run(context=Context()) == ("provider", "default")


def test_a_provider_name_that_an_earlier_output_has_is_not_passed_over() -> None:
    """Rule 2 fills the first parameter, and no later parameter takes the previous output."""
    flow = source("output", "x") >> source() >> last(lambda x, value="default": (x, value))
    with pytest.warns(UnusedOutputWarning, match="`x` takes the output of `x`"):
        assert flow.run(context=Context()) == ("output", "default")
    with pytest.raises(MissingInputError, match="would go to the first parameter, `x`, which takes the output of `x`"):
        (source("output", "x") >> source() >> last(lambda x, value: value)).run()


@pytest.mark.parametrize("name", ["state", "context", "shared_data"])
def test_the_built_in_providers_are_not_passed_over(name: str) -> None:
    """A first parameter with the name of a provider that every context has takes the output."""
    function = eval(f"lambda {name}, more=None: ({name}, more)")
    assert (source() >> last(function)).run(context=Context()) == ("previous", None)

    class Declared(BaseFlowContext): ...

    setattr(Declared, name, providers.Object("declared again"))
    assert (source() >> last(function)).run(context=Declared()) == ("previous", None)


def test_built_in_names_behind_the_first_are_injected() -> None:
    """Only a first parameter takes the output; others are injected from any context."""
    flow = source() >> last(lambda value, state, context, shared_data: [type(e) for e in (state, context, shared_data)])
    assert flow.run(context=BaseFlowContext()) == [dict, dict, dict]


def test_any_container_has_users_providers() -> None:
    """The providers of a plain container are passed over as those of a `BaseFlowContext` are."""

    class Plain(containers.DeclarativeContainer):
        x = providers.Object("plain")

    flow = source() >> last(lambda x, value: (x, value))
    assert flow.run(context=Plain()) == flow.run(context=Plain) == ("plain", "previous")


def test_keyword_only_parameters_do_not_take_the_output() -> None:
    """They take an input, a provider or their default, or an output of their name."""
    flow = source() >> last(lambda *, value="default": value)
    assert flow.run() == "default"
    assert flow.run({"value": "input"}) == "input"
    assert (source() >> last(lambda *, source: source)).run() == "previous"
    with pytest.raises(MissingInputError, match="keyword-only parameters do not take the previous output"):
        (source() >> last(lambda *, value: value)).run()


def test_a_node_annotated_none_passes_on_nothing() -> None:
    """The next node takes its arguments by name only, and there is no warning; by its name, the node gives None."""
    flow = source() >> quiet() >> last(lambda text: text)
    assert flow.run({"text": "input"}) == "input"
    assert (quiet() >> last(lambda quiet, more=1: (quiet, more))).run() == (None, 1)
    with pytest.raises(MissingInputError, match="`quiet` is annotated `-> None`, so it passes on no output"):
        flow.run()


def test_a_flow_that_ends_in_such_a_node_passes_on_nothing() -> None:
    """A named flow, a repeat and a branch pass on what their last nodes do."""
    inner = (source("1", "begin") >> quiet()).named("inner")
    assert (inner >> last(lambda text: text)).run({"text": "input"}) == "input"
    assert (quiet().repeat(2) >> last(lambda text: text)).run({"text": "input"}) == "input"
    both = source("a").branch_on({"a": quiet("q1"), "b": quiet("q2")})
    assert (both >> last(lambda text: text)).run({"text": "input"}) == "input"


def test_an_alternative_that_passes_on_nothing() -> None:
    """The alternative that ran decides: after the one annotated `-> None`, the parameter takes the input."""
    choose = node(name="choose")(lambda key: key)
    flow = choose.branch_on({"q": quiet(), "s": source()}) >> last(lambda text: text)
    assert [flow.run({"key": key, "text": "input"}) for key in "qs"] == ["input", "previous"]
    named = choose.branch_on({"q": quiet(), "s": source()}).named("inner") >> last(lambda text: text)
    assert [named.run({"key": key, "text": "input"}) for key in "qs"] == ["input", "previous"]


def test_a_class_passes_on_its_instance() -> None:
    """Its `__init__` is annotated `-> None`, and the class is not."""

    @dataclass
    class Order:
        id: int

    class Plain:
        def __init__(self, id: int) -> None:  # a name that users choose
            self.id = id

    for made in (node(Order), node(Plain), node(functools.partial(Plain, id=3), name="Plain")):
        assert (made >> last(lambda order=None: order)).run({"id": 3}).id == 3
    assert node(Order).repeat(2).run({"id": 3}) == Order(Order(3))  # type: ignore[arg-type]


def test_every_way_to_write_none_counts() -> None:
    """As text, quoted twice under postponed evaluation, as its type, for an async function and behind a wrapper."""

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        return functools.wraps(function)(lambda *args: [function(*args)])

    def as_text() -> "None": ...  # noqa: UP037  # quoted twice

    async def later() -> None: ...

    def as_type(): ...  # type: ignore[no-untyped-def]

    as_type.__annotations__ = {"return": type(None)}
    for function in (as_text, later, as_type, wrapped(as_text), functools.partial(as_text)):
        flow = node(name="quiet")(function) >> last(lambda text: text)
        assert flow.run({"text": "input"}) == "input"


def test_a_generator_always_passes_on_its_items() -> None:
    """Annotated `-> None` by mistake, it has an output all the same."""

    def items() -> None:  # type: ignore[misc]
        yield from (1, 2)

    assert list((node(items) >> last(lambda items: [*items])).run()) == [1, 2]
    assert node(items).map(node(name="double")(lambda n: 2 * n)).run() == [2, 4]


# --- side by side -------------------------------------------------------------------------------------------------


def fanned(**options: Any) -> Node[..., Any]:
    return source().fan_out_to([source("b", "b"), source("c", "c")], **options)


@pytest.mark.parametrize("name", ["parallel_results", "anything"])
def test_a_fan_in_takes_the_mapping_of_results(name: str) -> None:
    """As `parallel_results` or as the first parameter; an input with the parameter's name does not replace it."""
    flow = fanned().fan_in(last(eval(f"lambda {name}: {name}")))
    assert flow.run() == {"b": "b", "c": "c"}
    assert flow.run({name: "input"}, extra_inputs="ignore") == {"b": "b", "c": "c"}


def test_branches_take_the_output_before_an_input() -> None:
    """Each branch starts from the source's output, and the fan-in from the results, whatever the parameters' names."""
    inc = node(name="inc")(lambda x: x + 1)
    join = node(name="join")(lambda x: x)
    assert (inc >> [inc.named("p"), inc.named("q")] >> join).run({"x": 1}) == {"p": 3, "q": 3}
    assert (inc >> [inc.named("p")] * 2 >> join).run({"x": 1}) == {"p[0]": 3, "p[1]": 3}


def test_parallel_results_may_stand_anywhere() -> None:
    """The name counts in a keyword-only parameter and in a later node."""
    joined = node(name="joined")(lambda b, *, parallel_results: (b, parallel_results))
    assert fanned().fan_in(joined).run() == ("b", {"b": "b", "c": "c"})
    later = last(lambda joined, parallel_results: parallel_results)
    assert (fanned().fan_in(joined) >> later).run() == {"b": "b", "c": "c"}


def test_a_branch_taken_by_name_counts_as_use_of_the_results() -> None:
    """The first parameter then takes an input instead of the mapping of results."""
    assert fanned().fan_in(last(lambda c, b: (c, b))).run() == ("c", "b")
    assert fanned().fan_in(last(lambda text, c: (text, c))).run({"text": "input"}) == ("input", "c")
    with pytest.raises(MissingInputError, match="`c` already takes that output"):
        fanned().fan_in(last(lambda text, c: text)).run()


def test_branches_do_not_see_each_other() -> None:
    """The outputs of a branch are not visible in the branch beside it."""
    flow = source().fan_out_to([source("b", "b"), node(name="c")(lambda value, b: (value, b))])
    with pytest.raises(MissingInputError, match="'b' of node 'c'"):
        flow.run()


def test_a_name_in_two_branches_means_neither() -> None:
    """After a fan-out whose branches both ran a node, its name fills nothing."""
    shared = node(name="shared")(lambda value: value)
    flow = source().fan_out_to([source(name="b") >> shared, source(name="c") >> shared])
    with pytest.raises(MissingInputError, match="'shared'"):
        flow.fan_in(last(lambda parallel_results, shared: shared)).run()


@pytest.mark.parametrize(
    "function",
    [lambda shared: shared, lambda value, shared="default": shared, lambda value, *, shared=None: shared],
)
def test_a_name_in_two_branches_is_refused_even_if_something_else_could_fill_it(function: Any) -> None:
    """Neither an earlier output, nor the previous one, nor an input or a default takes its place by a guess."""
    shared = node(name="shared")(lambda value: value)
    flow = source() >> shared >> [source("b", "b") >> shared, source("c", "c") >> shared] >> last(function)
    with pytest.raises(MissingInputError, match="several branches of a fan-out have an output `shared`"):
        flow.run({"shared": "input"}, extra_inputs="ignore")
    again = source() >> [source("b", "b") >> shared, source("c", "c") >> shared] >> node(name="mid")(lambda x: "mid")
    assert (again >> shared >> last(lambda shared: shared)).run() == "mid"


def test_a_name_that_was_in_two_branches_means_a_later_output() -> None:
    """Once a single node gives it an output again: in one branch of a fan-out, or in every alternative."""
    count = iter(range(99))
    shared = node(name="shared")(lambda value: next(count))
    twice = source() >> [source("b", "b") >> shared, source("c", "c") >> shared] >> node(name="mid")(lambda x: "m")
    end, by_name = node(name="end")(lambda value: value), last(lambda *, shared: shared)
    assert (twice >> [source("d", "d") >> shared >> end, source("e", "e")] >> by_name).run() == 2
    assert (twice.branch_on({"m": shared >> end, "n": source("f", "f") >> shared}) >> by_name).run() == 5
    some = twice.branch_on({"m": shared >> end, "n": source("f", "f")}) >> by_name
    with pytest.raises(MissingInputError, match="several branches of a fan-out have an output `shared`"):
        some.run()


def test_a_key_means_the_branch_that_has_it() -> None:
    """Even if a node of another branch has that name."""
    shared = node(name="shared")(lambda value: f"<{value}>")
    flow = source().fan_out_to([source("b", "b") >> shared, shared >> node(name="end")(lambda value: value + "!")])
    assert flow.fan_in(last(lambda shared: shared)).run() == "<previous>!"


def test_the_body_of_a_map_takes_the_element() -> None:
    """As its first parameter, whatever its name, or by the source's name."""
    split = node(name="split")(lambda text: text.split())
    assert split.map(node(name="each")(lambda text: text.upper())).run({"text": "a b"}) == ["A", "B"]
    assert split.map(node(name="each")(lambda text, split: (text, split))).run({"text": "a b"}) == [
        ("a b", "a"),
        ("a b", "b"),
    ]
    assert (split >> [node(name="each")(lambda text: text.upper())] * 2).run({"text": "a b"}) == {
        "each[0]": "A",
        "each[1]": "B",
    }
    assert split.map_batches(node(name="each")(lambda text: text[::-1]), 2).run({"text": "a b"}) == ["b", "a"]
    assert (split.chunked(2) >> last(lambda text: text)).run({"text": "a b"}) == [["a", "b"]]


def test_the_results_of_a_map_have_the_names_of_a_fan_outs() -> None:
    """`parallel_results` and the body's name both mean the list, and the first parameter takes it."""
    flow = source([1, 2]).map(node(name="each")(lambda n: n * 2))  # type: ignore[arg-type]
    for function in (lambda anything: anything, lambda parallel_results: parallel_results, lambda each: each):
        assert (flow >> last(function)).run() == [2, 4]


# --- branches -----------------------------------------------------------------------------------------------------


def chosen(handle: Callable[..., Any], **more: Any) -> Node[..., Any]:
    classify = node(name="classify")(lambda doc: "a")
    return classify.branch_on({"a": node(name="handle")(handle)}, **more)


def test_the_first_node_of_an_alternative_takes_inputs_first() -> None:
    """The value has done its work by choosing: an input, or a provider, comes before it."""
    assert chosen(lambda doc: doc).run({"doc": "input"}) == "input"
    assert chosen(lambda state: [state]).run({"doc": "input"}, BaseFlowContext()) == [{}]
    assert chosen(lambda key: key).run({"doc": "input"}) == "a"
    assert chosen(lambda classify: classify).run({"doc": "input"}) == "a"
    assert chosen(lambda doc, classify: (doc, classify)).run({"doc": "input"}) == ("input", "a")


def test_only_the_first_node_of_an_alternative_does() -> None:
    """Later nodes of the alternative take the previous output; the first node of a named flow takes inputs first."""
    handle = node(name="handle")(lambda doc: f"<{doc}>")
    classify = node(name="classify")(lambda doc: "a")
    twice = handle >> node(name="more")(lambda doc: doc + "!")
    assert classify.branch_on({"a": twice}).run({"doc": "input"}) == "<input>!"
    assert classify.branch_on({"a": twice.named("inner")}).run({"doc": "input"}) == "<input>!"


def test_after_a_branch_the_alternative_that_ran_decides() -> None:
    """A parameter with the name of the alternative takes its output; if another one ran, the first parameter does."""
    choose = node(name="choose")(lambda side: side)
    flow = choose.branch_on({"l": source("left", "left"), "r": source("right", "right")})
    takes = last(lambda value="default", left="none": (value, left))
    assert (flow >> takes).run({"side": "l"}) == ("default", "left")
    assert (flow >> takes).run({"side": "r"}) == ("right", "none")
    assert (flow >> last(lambda left=None, right=None: (left, right))).run({"side": "r"}) == (None, "right")
    needs = flow >> last(lambda value, left=None: value)
    with pytest.raises(MissingInputError, match=r"'value' of node 'last'.*`left` already takes that output"):
        needs.run({"side": "l"})
    assert needs.run({"side": "r"}) == "right"


def test_if_every_alternative_is_taken_by_name_that_is_known_before_the_run() -> None:
    """Then a first parameter that nothing fills is missing in each run, so no node runs."""
    ran: list[str] = []
    choose = node(name="choose")(lambda side: ran.append("choose") or side)
    flow = choose.branch_on({"l": source("left", "left"), "r": source("right", "right")})
    with pytest.raises(MissingInputError, match="`left` already takes that output"):
        (flow >> last(lambda value, left=None, right=None: value)).run({"side": "l"})
    assert ran == []


def test_an_output_that_every_alternative_has_is_certain() -> None:
    """One of them is always there, so an input of that name is taken by no parameter, and no default is needed."""
    same = source("same", "same")
    flow = node(name="choose")(lambda side: side).branch_on({"l": same, "r": same >> source("more", "more")})
    by_name = last(lambda *, same: same)
    assert [(flow >> by_name).run({"side": side}) for side in "lr"] == ["same", "same"]
    with pytest.raises(UnknownInputError, match="`same` of `last` takes the output of `same`"):
        (flow >> by_name).run({"side": "l", "same": "input"})
    count = iter(range(9))
    again = node(name="again")(lambda: next(count))
    older = again >> node(name="pick")(lambda value: "r")
    assert (older.branch_on({"r": again, "l": again}) >> last(lambda *, again: again)).run() == 1
    end = node(name="end")(lambda same, value=0: (same, value))
    with pytest.warns(UnusedOutputWarning, match="does not use the output of `last`"):
        assert (flow >> by_name >> end).run({"side": "r"}) == ("same", 0)


def test_an_alternative_that_ends_in_a_fan_out() -> None:
    """A result taken by its branch's name counts as use of the output; `parallel_results` is that fan-out's."""
    choose = node(name="choose")(lambda side: side)
    fan_out = source("f", "f") >> [source("b", "b"), source("c", "c")]
    flow = choose.branch_on({"f": fan_out, "s": source("s", "s")})
    takes = last(lambda value="default", b="none", parallel_results="no fan-out": (value, b, parallel_results))
    assert (flow >> takes).run({"side": "f"}) == ("default", "b", {"b": "b", "c": "c"})
    assert (flow >> takes).run({"side": "s"}) == ("s", "none", "no fan-out")


def test_an_output_of_an_alternative_that_did_not_run_is_missing() -> None:
    """A parameter with its name takes its default, an input or a provider, or the run raises."""
    choose = node(name="choose")(lambda side: side)
    left_flow = source("inner", "inner") >> source("left", "left")
    flow = choose.branch_on({"l": left_flow, "r": source("right", "right")})
    assert (flow >> last(lambda value, inner: inner)).run({"side": "l"}) == "inner"
    assert (flow >> last(lambda value, inner="default": inner)).run({"side": "r"}) == "default"
    assert (flow >> last(lambda value, inner: inner)).run({"side": "r", "inner": "input"}) == "input"
    with pytest.raises(MissingInputError, match=r"'inner' of node 'last'.*did not get to run"):
        (flow >> last(lambda value, inner: inner)).run({"side": "r"})


def test_a_provider_name_that_an_alternative_may_have() -> None:
    """If the alternative ran, its output fills the first parameter; if not, that is passed over for the next."""
    choose = node(name="choose")(lambda side: side)
    left_flow = source("inner", "x") >> source("left", "left")
    flow = choose.branch_on({"l": left_flow, "r": source("right", "right")}) >> last(lambda x, value=None: (x, value))
    needs = choose.branch_on({"l": left_flow, "r": source("right", "right")}) >> last(lambda x, value: (x, value))
    with pytest.warns(UnusedOutputWarning, match="does not use"):
        assert flow.run({"side": "l"}, Context()) == ("inner", None)
    with pytest.warns(UnusedOutputWarning, match="does not always use"):
        assert needs.run({"side": "r"}, Context()) == ("provider", "right")
    with pytest.raises(MissingInputError, match="'value' of node 'last'"):
        needs.run({"side": "l"}, Context())


# --- repeat -------------------------------------------------------------------------------------------------------


def test_rounds_feed_the_parameter_that_took_the_output() -> None:
    """By name or by position: `prompt` stays the input, and `draft` takes the output of the round before."""
    draft = node(name="draft")(lambda topic: f"draft on {topic}")
    improve = node(name="improve")(lambda prompt, draft: f"{draft}+{prompt}")
    assert (draft >> improve.repeat(3)).run({"topic": "t", "prompt": "p"}) == "draft on t+p+p+p"
    by_place = node(name="improve")(lambda text, *, prompt: f"{text}+{prompt}")
    assert (draft >> by_place.repeat(2)).run({"topic": "t", "prompt": "p"}) == "draft on t+p+p"


def test_rounds_of_a_first_node_feed_the_parameter_of_a_single_value() -> None:
    """With inputs by name, and in the first round the whole mapping, too."""
    grow = node(name="grow")(lambda n, by=1: n + by)
    assert grow.repeat(3).run({"n": 1, "by": 2}) == 7
    assert grow.repeat(3).run(1) == 4
    count = node(name="count")(lambda request: request["n"] + 1 if isinstance(request, Mapping) else request + 1)
    assert count.repeat(3).run({"n": 1}) == 4
    behind = node(name="behind")(lambda x, n: f"{n}{x[0]}")
    assert behind.repeat(2).run({"n": "n"}, Context()) == "npp"


def test_rounds_come_before_names() -> None:
    """In the second round the parameter takes the round's output, although an earlier node has its name."""
    grow = node(name="grow")(lambda source: source + "!")
    assert (source() >> grow.repeat(3)).run() == "previous!!!"
    outer = source() >> (grow.repeat(2) >> node(name="end")(lambda value: value + "?")).repeat(2)
    assert outer.run() == "previous!!?!!?"


def test_rounds_feed_what_depends_on_the_alternative_that_ran() -> None:
    """The parameter that took the output in the first round takes the rounds' outputs too."""
    choose = node(name="choose")(lambda side: side)
    flow = choose.branch_on({"l": source("left", "left"), "r": source("right", "right")})
    grow = node(name="grow")(lambda value="-", left="-": f"{value}{left}!")
    assert (flow >> grow.repeat(2)).run({"side": "r"}) == "right-!-!"
    assert (flow >> grow.repeat(2)).run({"side": "l"}) == "--left!!"


def test_rounds_of_an_alternative() -> None:
    """Its first round takes the input, the next ones the output of the round before."""
    assert chosen(lambda doc: doc).run({"doc": "d"}) == "d"
    grow = node(name="grow")(lambda doc: doc + "!")
    assert node(name="classify")(lambda doc: "a").branch_on({"a": grow.repeat(3)}).run({"doc": "d"}) == "d!!!"


def test_what_nothing_fills_in_the_first_round_is_missing_before_anything_runs() -> None:
    """The error is the one without a repeat, also for a misspelled input."""
    ran: list[str] = []

    def log(t: str) -> None:
        ran.append(t)

    grow = node(name="grow")(lambda text: text)
    with pytest.raises(MissingInputError, match="`log` is annotated `-> None`"):
        (node(log) >> grow.repeat(2)).run({"t": "a"})
    assert ran == []
    with pytest.raises(MissingInputError, match="did you mean `text` instead of the input `txt`"):
        grow.repeat(2).run({"txt": "a"})
    with pytest.raises(MissingInputError, match="'draft' of node 'improve'"):
        node(name="improve")(lambda prompt, draft: draft).repeat(2).run({"prompt": "a"})


def test_rounds_feed_a_first_parameter_with_the_name_of_an_alternative() -> None:
    """Whichever alternative ran, by its name or by position."""
    choose = node(name="choose")(lambda side: side)
    flow = choose.branch_on({"l": source("left", "left"), "r": source("right", "right")})
    grow = node(name="grow")(lambda left: left + "!")
    assert [(flow >> grow.repeat(3)).run({"side": side}) for side in "lr"] == ["left!!!", "right!!!"]
    twice = (grow >> node(name="more")(lambda text: text + "?")).repeat(2)
    assert [(flow >> twice).run({"side": side}) for side in "lr"] == ["left!?!?", "right!?!?"]


def test_a_round_that_ends_in_a_node_annotated_none_feeds_nothing() -> None:
    """The next round takes what the first one took."""
    values: list[int] = []
    step = node(name="step")(lambda n: values.append(n) or n % 2)
    flow = step.branch_on({0: quiet(), 1: node(name="more")(lambda step: step + 1)}).repeat(3)
    assert flow.run({"n": 4}) is None
    assert values == [4, 4, 4]
    values.clear()
    assert flow.run({"n": 1}) == 2
    assert values == [1, 2, 1]


def test_rounds_keep_an_older_output_that_the_first_round_took() -> None:
    """In a run in which the parameter took an older output, no parameter takes the round's output."""
    choose = node(name="choose")(lambda side: side)
    flow = choose.branch_on({"l": source("left", "left"), "r": source("right", "right")}) >> source("mid", "mid")
    grow = node(name="grow")(lambda left: left + "!")
    with pytest.warns(UnusedOutputWarning, match="does not always use the output of `mid`"):
        assert (flow >> grow.repeat(3)).run({"side": "l"}) == "left!"
    with pytest.warns(UnusedOutputWarning):
        assert (flow >> grow.repeat(3)).run({"side": "r"}) == "mid!!!"


def test_rounds_of_a_node_annotated_none_are_all_alike() -> None:
    """There is no output to feed the next round with."""
    values: list[str] = []

    def keep(text: str) -> None:
        values.append(text)

    assert node(keep).repeat(2).run({"text": "a"}) is None
    assert (source() >> node(keep).repeat(2)).run() is None
    assert values == ["a", "a", "previous", "previous"]


def test_rounds_after_a_node_annotated_none() -> None:
    """The first round takes the input, the next ones the round's output."""
    grow = node(name="grow")(lambda text: text + "!")
    assert (quiet() >> grow.repeat(3)).run({"text": "a"}) == "a!!!"


# --- rules 4 to 6 -------------------------------------------------------------------------------------------------


def test_inputs_providers_and_defaults_fill_the_other_parameters() -> None:
    """In this order: input, provider, default; in later nodes as in the first."""

    def takes(value: str, x: str = "default", other: str = "default", more: str = "default") -> tuple[str, ...]:
        return x, other, more

    for flow in (node(takes), source() >> node(takes)):
        inputs = {"x": "input"} if flow.name == "source" else {"value": "v", "x": "input"}
        assert flow.run(inputs, Context()) == ("input", "other provider", "default")
        assert flow.run(inputs) == ("input", "default", "default")


def test_a_context_class_injects_as_an_instance_does() -> None:
    """A declarative class may be passed as it is."""
    assert node(lambda x: x).run(context=Context) == "provider"


def test_positional_only_parameters_are_filled_by_name_and_place() -> None:
    """They are bound as the others and passed by position, defaults before filled ones too."""

    @node
    def takes(first: str, /, second: str = "default", x: str = "unused") -> tuple[str, ...]:
        return first, second, x

    assert source().then(takes).run(context=Context()) == ("previous", "default", "provider")
    assert takes.run({"first": "a", "second": "b"}) == ("a", "b", "unused")


@pytest.mark.parametrize("count", range(5))
def test_any_number_of_arguments(count: int) -> None:
    """Nodes of no, one, two and more parameters get them all, in order, given by name or by default."""
    names = [f"p{index}" for index in range(count)]
    scope: dict[str, Any] = {}
    exec(f"def plain({', '.join(names)}): return ({''.join(f'{n}, ' for n in names)})", scope)
    exec(f"def last({', '.join([*names, 'z=7'])}): return ({''.join(f'{n}, ' for n in names)}z,)", scope)
    inputs = {name: name.upper() for name in names}
    assert node(scope["plain"]).run(inputs) == tuple(inputs.values())
    assert node(scope["last"]).run(inputs) == (*inputs.values(), 7)
    assert node(scope["last"]).run({**inputs, "z": 8}) == (*inputs.values(), 8)


@pytest.mark.parametrize("falsy", [None, 0, "", [], {}])
def test_a_falsy_value_is_a_value(falsy: object) -> None:
    """None and empty values fill a parameter as any other, by every rule."""
    given = source(falsy, "given")  # type: ignore[arg-type]
    assert given.then(node(lambda anything="default": anything)).run() == falsy
    assert given.then(source()).then(last(lambda source, given="default": given)).run() == falsy
    assert node(lambda a="default": a).run({"a": falsy}) == falsy


# --- rule 7: the whole mapping ------------------------------------------------------------------------------------


def test_a_first_node_takes_the_whole_mapping() -> None:
    """Its first open parameter is given the very mapping, if a key names no parameter of the flow."""
    inputs = {"id": 1, "query": "…"}
    assert node(lambda request_data: request_data).run(inputs) is inputs
    assert node(lambda x, request_data: request_data).run(inputs, Context()) is inputs
    assert node(lambda limit=3, *, more=4: limit).run({"limit": 1}) == 1
    assert node(lambda state, request: request).run(inputs, Context()) is inputs


def test_an_empty_mapping_is_an_input() -> None:
    """`run({})` gives a first node the empty mapping; `run()` gives it nothing."""
    takes = node(lambda request: request)
    assert takes.run({}) == {}
    with pytest.raises(MissingInputError):
        takes.run()


class Request(TypedDict):
    id: int


T = TypeVar("T")
MAPPINGS = [
    Any, object, T, dict, dict[str, int], Mapping, Mapping[str, Any], MutableMapping[str, Any], Request,
    Optional[dict[str, int]], Union[int, Mapping[str, int]], int | dict[str, int],  # noqa: UP007, UP045  # as users write
    Annotated[dict[str, int], "a request"], NewType("Payload", dict), "NotDefinedAnywhere", "dict[",
    "Optional[NotDefinedAnywhere]",
]  # fmt: skip
OTHERS = [str, int, list, list[dict[str, int]], str | None, Annotated[str, "a text"], NewType("Id", int), "str", type]


@pytest.mark.parametrize("annotation", MAPPINGS, ids=str)
def test_annotations_that_take_the_whole_mapping(annotation: Any) -> None:
    """Anything that may be a mapping does, and an annotation that cannot be evaluated."""

    def takes(request):  # type: ignore[no-untyped-def]
        return request

    takes.__annotations__ = {"request": annotation}
    assert node(takes).run({"id": 1}) == {"id": 1}


@pytest.mark.parametrize("annotation", OTHERS, ids=str)
def test_annotations_that_do_not_take_the_whole_mapping(annotation: Any) -> None:
    """The error names the annotation."""

    def takes(request):  # type: ignore[no-untyped-def]
        return request

    takes.__annotations__ = {"request": annotation}
    with pytest.raises(MissingInputError, match=r"'request' of node 'takes'.*does not take the whole input mapping"):
        node(takes).run({"id": 1})


def test_an_item_of_a_batch_may_be_the_whole_mapping() -> None:
    """A batched function is annotated with a list; the node takes one item of it."""

    @node(batch=BatchPolicy(size=1))
    def score(requests: list[Mapping[str, int]]) -> list[int]:
        return [request["id"] for request in requests]

    @node(batch=BatchPolicy(size=1))
    def texts(items: list[str]) -> list[str]:
        return items

    assert score.run({"id": 7}) == 7
    with pytest.raises(MissingInputError, match="annotation `str`"):
        texts.run({"id": 7})


def test_the_whole_mapping_is_for_the_parameter_that_nothing_fills() -> None:
    """If an input fills the first parameter, no later one takes the mapping."""
    with pytest.raises(MissingInputError, match="'request'"):
        node(lambda id, request: request).run({"id": 1, "query": "…"})  # a name that users choose


@pytest.mark.parametrize(
    ("make", "inputs", "reason"),
    [
        (lambda: node(lambda data, *, limit=1: data), {"limt": 1}, "did you mean `limit` instead of the input `limt`"),
        (
            lambda: node(lambda data: data) >> last(lambda x, *, limit: x),
            {"limit": 1},
            "each run input has a parameter",
        ),
        (lambda: node(lambda data: data), NO_INPUT, "the run has no inputs; pass them as a mapping, {'data': …}"),
        (lambda: node(lambda id, data: data), {"id": 1, "x": 2}, "no run input has this name"),
        (lambda: source() >> last(lambda a, b: b), NO_INPUT, "`a` takes the output of `source`, which is one value"),
        (lambda: node(lambda text, db: db), {"text": 1}, "if a provider is to fill it, run the flow with context=…"),
    ],
)
def test_the_reason_says_what_to_do(make: Any, inputs: Any, reason: str) -> None:
    """Whatever keeps the whole mapping or the previous output from a parameter is named."""
    with pytest.raises(MissingInputError, match=re.escape(reason)):
        make().run(inputs)


def test_a_misspelled_provider_is_told() -> None:
    """The nearest name among the context's providers."""
    with pytest.raises(MissingInputError, match="did you mean the provider `other`"):
        node(lambda text, othr: text).run({"text": 1}, Context())


def test_inputs_that_all_have_a_parameter_are_not_a_mapping_to_pass_on() -> None:
    """`load(path) >> save(target)` without a path: the mapping is not taken for one."""
    flow = node(name="load")(lambda path: path) >> node(name="save")(lambda value, target: target)
    with pytest.raises(MissingInputError, match="'path' of node 'load'"):
        flow.run({"target": "there"})


def test_a_misspelled_input_is_not_a_mapping_to_pass_on() -> None:
    """One unknown key that is nearly a parameter's name is a spelling mistake, and the error says so."""
    takes = node(name="takes")(lambda text: text)
    with pytest.raises(MissingInputError, match=r"did you mean `text` instead of the input `txet`"):
        takes.run({"txet": 1})
    assert takes.run({"txet": 1, "more": 2}) == {"txet": 1, "more": 2}
    assert takes.run({"payload": 1}) == {"payload": 1}


def test_keyword_only_parameters_do_not_take_the_whole_mapping() -> None:
    """The whole mapping is for positional parameters."""
    with pytest.raises(MissingInputError, match="'request'"):
        node(name="needs")(lambda *, request: request).run({"id": 1})


def test_the_whole_mapping_is_for_first_nodes_only() -> None:
    """A second node takes the previous output, and its other parameters are missing."""
    with pytest.raises(MissingInputError, match=r"'other'.*`value` takes the output of `source`"):
        (source() >> last(lambda value, other: (value, other))).run({"b": 1})


def fails(request: Any) -> Any:
    raise KeyError(request["id"])


async def fails_later(request: Any) -> Any:
    raise KeyError(request["id"])


def fails_in_a_stream(request: Any) -> Any:
    yield 1
    raise KeyError(request["id"])


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize(
    ("function", "retried"),
    [(fails, False), (fails, True), (fails_later, False), (fails_later, True), (fails_in_a_stream, False)],
)
def test_an_error_after_the_whole_mapping_has_a_note(function: Any, traced: bool, retried: bool) -> None:
    """One note says that the parameter received the whole mapping; other errors have none."""
    policy = {"retry": RetryPolicy(on=KeyError, attempts=2, wait_initial=0, wait_jitter=0)} if retried else {}
    flow = node(name="fails", **policy)(function)
    note = "aetherflow: parameter 'request' of node 'fails' received the whole mapping of run inputs"

    def notes(inputs: Any) -> list[str]:
        with pytest.raises(KeyError) as caught:
            list(flow.run(inputs))
        return caught.value.__notes__

    with CapturedTelemetry() if traced else pytest.MonkeyPatch.context():
        assert notes({"id": 1}).count(note) == 1
        assert note not in notes({"request": {"id": 1}})


# --- one value instead of a mapping -------------------------------------------------------------------------------


def test_a_single_value_goes_to_the_first_parameter() -> None:
    """Anything but a mapping goes to the first node's first parameter without a marker or a user's provider."""
    assert node(lambda text: text).run("value") == "value"
    assert node(lambda text="default": text).run("value") == "value"
    assert node(lambda text, x: (text, x)).run("value", Context()) == ("value", "provider")
    assert node(lambda x, text: (text, x)).run("value", Context()) == ("value", "provider")
    assert node(lambda x, text="default": (text, x)).run("value", Context()) == ("value", "provider")
    assert node(lambda state: state).run("value", Context()) == "value"
    assert (node(name="a")(lambda text: text) >> last(lambda text: text + "!")).run("value") == "value!"


def test_a_single_value_is_for_the_first_node_only() -> None:
    """Later nodes do not see it."""
    with pytest.raises(MissingInputError, match="'more'"):
        node(name="first")(lambda a: a).then(node(lambda b, more: (b, more))).run("value")


@pytest.mark.parametrize("takes", [lambda: 1, lambda *, text=None: text, lambda *texts: texts, lambda **texts: texts])
def test_a_single_value_that_nothing_takes_is_refused(takes: Callable[..., Any]) -> None:
    """A first node without a positional parameter cannot be run on a value."""
    with pytest.raises(ConfigurationError, match="first node 'takes' has no positional parameter"):
        node(name="takes")(takes).run("value")


# --- **kwargs -----------------------------------------------------------------------------------------------------


def test_var_keyword_takes_the_inputs_that_no_parameter_takes() -> None:
    """In any node of the flow; an input that a parameter anywhere in the flow takes is not among them."""
    first = node(name="first")(lambda text, **more: (text, more))
    assert first.run({"text": "t", "a": 1}) == ("t", {"a": 1})
    flow = first >> last(lambda value, limit, **more: (value, limit, more))
    assert flow.run({"text": "t", "limit": 3, "a": 1}) == (("t", {"a": 1}), 3, {"a": 1})
    assert first.run("t") == ("t", {})
    assert node(name="first")(lambda **more: more).run() == {}


def test_var_keyword_takes_inputs_of_any_name() -> None:
    """Also one called `self`, on every path; not the name of a method's own first parameter."""
    plain = node(name="plain")(lambda text, **more: (text, more))
    cached = node(name="cached", cache=CachePolicy(ttl=60))(plain.func)
    retried = node(name="retried", retry=RetryPolicy(on=OSError), timeout=60)(plain.func)
    batched = node(name="batched", batch=BatchPolicy(size=1))(lambda texts, **more: [(text, more) for text in texts])
    for made in (plain, cached, retried):
        assert made.run({"text": "t", "self": 1, "cls": 2}) == ("t", {"self": 1, "cls": 2})
    assert batched.run({"texts": "t", "self": 1}) == ("t", {"self": 1})

    class Account:
        @node
        def add(self, amount: int, **more: int) -> Any:
            return amount, more

    assert Account().add.run({"amount": 1, "other": 2}) == (1, {"other": 2})
    with pytest.raises(UnknownInputError, match="no parameter takes the input 'self'"):
        Account().add.run({"amount": 1, "self": 2})


def test_var_keyword_takes_nothing_that_the_function_has_a_parameter_for() -> None:
    """An input with the name of a parameter that takes the previous output would be an argument given twice."""
    flow = source() >> last(lambda text, **more: (text, more))
    assert flow.run({"text": "input", "a": 1}, extra_inputs="ignore") == ("previous", {"a": 1})


# --- what nothing fills -------------------------------------------------------------------------------------------


def test_the_error_names_the_parameter_and_what_was_available() -> None:
    """MissingInputError names flow, node, parameter, and every output, input and provider there was."""
    flow = (source(name="first") >> node(name="second")(lambda value, missing: None)).named("etl")
    with pytest.raises(MissingInputError) as caught:
        flow.run({"a": 1}, Context())
    error = caught.value
    assert (error.flow, error.node, error.parameter) == ("etl", "second", "missing")
    assert set(error.available) == {
        "output 'first'", "input 'a'", "provider 'x'", "provider 'other'",
        "provider 'state'", "provider 'context'", "provider 'shared_data'",
    }  # fmt: skip
    assert all(name in str(error) for name in ["'etl'", "'second'", "'missing'", *error.available])


def test_the_message_stays_short() -> None:
    """Of many available names, and of a long one, the message shows a part; the data has all."""
    with pytest.raises(MissingInputError) as caught:
        node(lambda text, *, more: text).run(
            {"text": 1, **{f"input{index}": 1 for index in range(10_000)}, "x" * 9999: 1}
        )
    assert len(caught.value.available) == 10_002
    assert "and 9982 more" in str(caught.value)
    assert len(str(caught.value)) < 3_000


def test_with_nothing_there_the_error_says_so() -> None:
    """The message of a first node without inputs ends in `available: nothing`."""
    with pytest.raises(MissingInputError, match="available: nothing"):
        node(lambda needed: needed).run()


def test_the_error_says_what_took_the_value_instead() -> None:
    """`def f(value, double)` after `double`: the parameter `double` already takes the output."""
    double = node(name="double")(lambda n: 2 * n)
    with pytest.raises(MissingInputError, match=r"'value' of node 'last'.*`double` already takes that output"):
        (double >> last(lambda value, double: value)).run({"n": 1})


def test_nothing_is_emitted_for_a_run_that_cannot_be_bound() -> None:
    """The error comes before the run span starts and before any node has run, deep in a flow too."""
    ran: list[str] = []
    needy = node(name="needy")(lambda value, missing: missing)
    first = node(name="first")(lambda: ran.append("first"))
    inner = source(name="inner").fan_out_to([source(name="other"), needy]).named("nested")
    with CapturedTelemetry() as telemetry, pytest.raises(MissingInputError, match="flow 'nested'"):
        first.then(inner).run()
    assert ran == []
    assert telemetry.spans == ()


# --- plans --------------------------------------------------------------------------------------------------------


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One entry for each plan made."""
    made: list[object] = []
    plan = running.plan

    def counted(*args: Any, **kwargs: Any) -> Any:
        made.append(args)
        return plan(*args, **kwargs)

    monkeypatch.setattr(running, "plan", counted)
    return made


def test_a_flow_is_planned_once_per_input_names_and_context_class(planned: list[object]) -> None:
    """Other values and instances of the class use the same plan; other names, classes or `extra_inputs` do not."""

    class Other(Context): ...

    takes = node(lambda a="default", x="none": (a, x))
    for _ in range(3):
        assert takes.run({"a": 1}, Context()) == (1, "provider")
        assert takes.run({"a": 2}, Context(x=providers.Object("own"))) == (2, "own")
    assert len(planned) == 1
    for _ in range(2):
        takes.run({"a": 1}, Other())
        takes.run({"x": 1}, Context())
        takes.run({"a": 1})
        takes.run({"a": 1}, extra_inputs="ignore")
        takes.run({"a": 1}, extra_inputs="raise")
        takes.run("value")
        takes.run()
    assert len(planned) == 7


def test_plans_for_odd_names_are_told_apart() -> None:
    """A mapping whose keys look like the key of another plan gets a plan of its own."""
    flow = node(name="first")(lambda x, db=None: x) >> last(lambda value: value)
    assert flow.run({"x": 1}, Context()) == 1
    odd = {("x",): 1, Context: 2}
    assert flow.run(odd) == odd


def test_planning_reads_no_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signatures are read when a node is decorated, once."""
    flow = source() >> last(lambda value, x, more=1: value)
    monkeypatch.setattr("inspect.signature", pytest.fail)
    assert flow.run(context=Context()) == "previous"


def test_composing_plans_nothing(planned: list[object]) -> None:
    """A flow is planned when it first runs."""
    source().then(source(name="b")).named("flow")
    assert planned == []


def test_overriding_a_provider_changes_what_is_injected_and_the_scope_reported() -> None:
    """An override holds from the next run on and is gone with the override, in the span's scopes as in the value."""

    class Overridden(BaseFlowContext):
        service = providers.Singleton(str, "real")

    takes = node(lambda service: service)
    context = Overridden()

    def run() -> tuple[str, Any]:
        with CapturedTelemetry() as telemetry:
            value = takes.run(context=context)
        (span,) = telemetry.spans
        return value, span.attributes["aetherflow.provider.scope"]

    assert run() == ("real", "singleton")
    with context.service.override(providers.Factory(str, "fake")):
        assert run() == ("fake", "factory")
    assert run() == ("real", "singleton")


def test_input_names_that_never_repeat_do_not_grow_memory() -> None:
    """A flow run over ever other input names keeps a bounded number of plans."""
    takes = node(name="takes")(len)
    for extra_inputs in ("raise", "ignore"):
        sizes = [takes.run({f"name {index}": 1}, extra_inputs=extra_inputs) for index in range(1000)]
        assert sizes == [1] * 1000
        assert len(takes._runner.treating(extra_inputs)._plans) <= running.MAX_PLANS
