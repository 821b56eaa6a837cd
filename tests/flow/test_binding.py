"""Where an argument comes from: every rule, every conflict of two rules, and what happens where none applies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import pytest
from dependency_injector import providers
from dependency_injector.wiring import Provide

from aetherflow.errors import ConfigurationError, MissingInputError
from aetherflow.flow import running
from aetherflow.flow.decorating import node
from aetherflow.flow.node import Node
from aetherflow.resources.context import BaseFlowContext
from aetherflow.telemetry.capture import CapturedTelemetry


class Context(BaseFlowContext):
    x = providers.Object("provider")
    other = providers.Object("other provider")


def source(text: str = "previous", name: str = "source") -> Node[..., Any]:
    """A first node that takes nothing and gives ``text``."""
    return node(name=name)(lambda: text)


# --- each rule ----------------------------------------------------------------------------------------------------


def test_an_earlier_output_of_that_name_is_rule_1() -> None:
    """A parameter takes the output of the node that has its name, however far back."""

    @node
    def third(second: str, first: str) -> str:
        return f"{second} {first}"

    assert source("1", "first").then(source("2", "second")).then(third).run() == "2 1"


def test_a_run_input_of_that_name_is_rule_2() -> None:
    """Parameters of any node take the run inputs of their names."""

    @node
    def first(a: int) -> int:
        return a

    @node
    def second(first: int, b: int) -> int:
        return first + b

    assert first.then(second).run({"b": 2, "a": 1}) == 3


def test_a_provider_of_that_name_is_rule_3() -> None:
    """A parameter takes the object that the context's provider of its name gives."""
    assert node(lambda x: x).run(context=Context()) == "provider"


def test_a_context_class_injects_as_an_instance_does() -> None:
    """A declarative class may be passed as it is."""
    assert node(lambda x: x).run(context=Context) == "provider"


@pytest.mark.parametrize("target", ["other", Context.other], ids=["by name", "by provider"])
def test_a_marker_as_default_is_rule_3(target: object) -> None:
    """A `Provide[...]` default injects that provider, whatever the parameter is called."""

    @node
    def takes(service: str = Provide[target]) -> str:
        return service

    assert takes.run(context=Context()) == "other provider"


def test_a_marker_in_an_annotation_is_rule_3() -> None:
    """`Annotated[..., Provide[...]]` counts as the default does."""

    def takes(service):  # type: ignore[no-untyped-def]
        return service

    takes.__annotations__ = {"service": Annotated[str, Provide["other"]]}
    assert node(takes).run(context=Context()) == "other provider"


def test_the_previous_output_is_rule_4() -> None:
    """The first positional parameter takes the output before, whatever it is called."""
    assert source().then(node(lambda anything: anything)).run() == "previous"


def test_the_default_is_rule_5() -> None:
    """What nothing fills keeps its default, between filled parameters too."""

    @node
    def takes(first: str, second: str = "default", x: str = "unused", *, third: str = "third") -> tuple[str, ...]:
        return first, second, x, third

    assert takes.run({"first": "input"}, Context()) == ("input", "default", "provider", "third")


def test_the_whole_input_mapping_is_rule_6() -> None:
    """In a first node the first positional parameter takes all inputs, and is given the very mapping."""
    inputs = {"id": 1, "query": "…"}
    assert node(lambda request_data: request_data).run(inputs) is inputs


def test_an_empty_mapping_is_an_input() -> None:
    """`run({})` gives a first node the empty mapping; `run()` gives it nothing."""
    takes = node(lambda request: request)
    assert takes.run({}) == {}
    with pytest.raises(MissingInputError):
        takes.run()


# --- conflicts of two rules ---------------------------------------------------------------------------------------


def test_an_earlier_output_goes_before_a_run_input() -> None:
    """1 before 2."""
    assert source("output", "a").then(source()).then(node(lambda a: a)).run({"a": "input"}) == "output"


def test_an_earlier_output_goes_before_a_provider() -> None:
    """1 before 3."""
    flow = source("output", "x").then(source()).then(node(lambda x: x))
    assert flow.run(context=Context()) == "output"


def test_the_latest_output_of_a_name_counts() -> None:
    """1: a node used twice means its latest output."""
    count = iter(range(9))
    again = node(name="again")(lambda: next(count))
    assert again.then(again).then(source()).then(node(name="last")(lambda again: again)).run() == 1


def test_a_run_input_goes_before_a_provider() -> None:
    """2 before 3."""
    assert node(lambda x: x).run({"x": "input"}, Context()) == "input"


def test_a_run_input_goes_before_a_marker() -> None:
    """2 before 3, without a context too: what a test gives needs no container."""

    @node
    def takes(service: str = Provide["other"]) -> str:
        return service

    assert takes.run({"service": "input"}, Context()) == "input"
    assert takes.run({"service": "input"}) == "input"


def test_a_run_input_goes_before_the_previous_output() -> None:
    """2 before 4."""
    assert source().then(node(lambda a: a)).run({"a": "input"}) == "input"


def test_a_provider_goes_before_the_previous_output() -> None:
    """3 before 4, and the previous output does not move on to the second parameter."""
    assert source().then(node(lambda x: x)).run(context=Context()) == "provider"
    with pytest.raises(MissingInputError, match="'second'"):
        source().then(node(lambda x, second: (x, second))).run(context=Context())


def test_the_previous_output_goes_before_a_default() -> None:
    """4 before 5: `a.then(plus)` with `def plus(value=0)` gets a's output."""
    assert source().then(node(lambda value=0: value)).run() == "previous"


def test_a_default_goes_before_the_whole_mapping() -> None:
    """5 before 6."""
    assert node(lambda a="default": a).run({"b": 1}) == "default"


def test_the_whole_mapping_is_for_first_nodes_only() -> None:
    """6: a second node whose first parameter is open gets the previous output, and its others nothing."""
    with pytest.raises(MissingInputError, match="'other'"):
        source().then(node(lambda value, other: (value, other))).run({"b": 1})


def test_every_first_node_of_a_branch_still_follows_the_source() -> None:
    """6: the first node of a branch is no first node of the flow."""
    flow = source().fan_out_to([node(name="a")(lambda v: v), node(name="b")(lambda w: w)])
    assert flow.run({"z": 1}) == {"a": "previous", "b": "previous"}


# --- kinds of parameters ------------------------------------------------------------------------------------------


def test_keyword_only_parameters_take_no_part_in_rule_4() -> None:
    """The previous output is for positional parameters."""

    @node
    def takes(*, value: str = "default") -> str:
        return value

    @node
    def needs(*, value: str) -> str:
        return value

    assert source().then(takes).run() == "default"
    with pytest.raises(MissingInputError, match="'value' of node 'needs'"):
        source().then(needs).run()


def test_keyword_only_parameters_take_no_part_in_rule_6() -> None:
    """The whole mapping is for positional parameters."""

    @node
    def needs(*, request: Mapping[str, Any]) -> Mapping[str, Any]:
        return request

    with pytest.raises(MissingInputError, match="'request'"):
        needs.run({"id": 1})


def test_keyword_only_parameters_are_filled_by_name() -> None:
    """Outputs, inputs and providers reach them."""

    @node
    def takes(*, a: str, b: str, x: str) -> tuple[str, ...]:
        return a, b, x

    assert source("output", "a").then(takes).run({"b": "input"}, Context()) == ("output", "input", "provider")


def test_positional_only_parameters_are_filled_by_name_and_place() -> None:
    """They are bound as the others and passed by position, defaults before filled ones too."""

    @node
    def takes(first: str, /, second: str = "default", x: str = "unused") -> tuple[str, ...]:
        return first, second, x

    assert source().then(takes).run(context=Context()) == ("previous", "default", "provider")
    assert takes.run({"first": "a", "second": "b"}) == ("a", "b", "unused")


def test_variadic_parameters_stay_empty() -> None:
    """`*args` and `**kwargs` are filled from nothing, and do not stand in the way of the others."""

    @node
    def takes(first: str, *args: str, third: str = "c", **kwargs: str) -> tuple[Any, ...]:
        return first, args, third, kwargs

    assert source().then(takes).run({"args": 1, "kwargs": 2, "more": 3}) == ("previous", (), "c", {})


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
    assert given.then(source()).then(node(name="last")(lambda given="default": given)).run() == falsy
    assert node(lambda a="default": a).run({"a": falsy}) == falsy


# --- one value in place of a mapping ------------------------------------------------------------------------------


def test_a_value_goes_to_the_first_parameter() -> None:
    """Anything but a mapping goes to the first node's first parameter, before its default."""
    assert node(lambda text: text).run("value") == "value"
    assert node(lambda text="default": text).run("value") == "value"
    assert node(lambda text, x: (text, x)).run("value", Context()) == ("value", "provider")


def test_a_value_is_for_the_first_node_only() -> None:
    """Later nodes do not see it."""
    with pytest.raises(MissingInputError, match="'more'"):
        node(name="first")(lambda a: a).then(node(lambda b, more: (b, more))).run("value")


@pytest.mark.parametrize("takes", [lambda: 1, lambda *, text=None: text, lambda *texts: texts])
def test_a_value_that_nothing_takes_is_refused(takes: Callable[..., Any]) -> None:
    """A first node without a positional parameter cannot be run on a value."""
    with pytest.raises(ConfigurationError, match="first node 'takes' has no positional parameter"):
        node(name="takes")(takes).run("value")


# --- results side by side -----------------------------------------------------------------------------------------


def fanned() -> Node[..., Any]:
    return source().fan_out_to([source("b", "b"), source("c", "c")])


@pytest.mark.parametrize("name", ["parallel_results", "anything"])
def test_a_fan_in_takes_the_mapping_of_results(name: str) -> None:
    """Under `parallel_results`, or as the first parameter, it is the mapping of branch outputs."""
    scope: dict[str, Any] = {}
    exec(f"def joined({name}): return {name}", scope)
    assert fanned().fan_in(node(scope["joined"])).run() == {"b": "b", "c": "c"}


def test_parallel_results_may_stand_anywhere() -> None:
    """The name counts in a keyword-only parameter and in a later node."""

    @node
    def joined(b: str, *, parallel_results: Mapping[str, str]) -> tuple[Any, ...]:
        return b, parallel_results

    @node
    def later(joined: object, parallel_results: Mapping[str, str]) -> Mapping[str, str]:
        return parallel_results

    assert fanned().fan_in(joined).run() == ("b", {"b": "b", "c": "c"})
    assert fanned().fan_in(joined).then(later).run() == {"b": "b", "c": "c"}


def test_branches_can_be_taken_by_name_after_a_fan_in() -> None:
    """Each branch's output is an earlier output of its name."""
    assert fanned().fan_in(node(lambda c, b: (c, b))).run() == ("c", "b")


def test_branches_do_not_see_each_other() -> None:
    """What a branch names is not there for the branch beside it."""
    flow = source().fan_out_to([source("b", "b"), node(name="c")(lambda value, b: (value, b))])
    with pytest.raises(MissingInputError, match="'b' of node 'c'"):
        flow.run()


def test_a_name_that_two_branches_give_means_neither() -> None:
    """After a fan-out whose branches both ran a node, its name fills nothing."""
    shared = source("shared", "shared")
    flow = source().fan_out_to([source(name="b").then(shared), source(name="c").then(shared)])
    with pytest.raises(MissingInputError, match="'shared'"):
        flow.fan_in(node(lambda parallel_results, shared: shared)).run()


# --- what every context has ---------------------------------------------------------------------------------------


def test_state_context_and_shared_data_are_in_every_context() -> None:
    """Parameters of these names are injected from any context."""

    @node
    def takes(state: Any, context: Any, shared_data: Any) -> list[type]:
        return [type(state), type(context), type(shared_data)]

    assert takes.run(context=BaseFlowContext()) == [dict, dict, dict]


def test_without_a_context_state_is_a_name_as_any_other() -> None:
    """Where no context is given, rule 4 and 6 fill a parameter called `state`."""
    assert source().then(node(lambda state: state)).run() == "previous"


# --- what nothing fills -------------------------------------------------------------------------------------------


def test_the_error_tells_what_is_missing_and_what_there_was() -> None:
    """MissingInputError names flow, node, parameter, and every output, input and provider there was."""

    @node
    def second(value: object, missing: object) -> None: ...

    with pytest.raises(MissingInputError) as caught:
        source(name="first").then(second).named("etl").run({"a": 1}, Context())
    error = caught.value
    assert (error.flow, error.node, error.parameter) == ("etl", "second", "missing")
    assert set(error.available) == {
        "output 'first'", "input 'a'", "provider 'x'", "provider 'other'",
        "provider 'state'", "provider 'context'", "provider 'shared_data'",
    }  # fmt: skip
    assert all(name in str(error) for name in ["'etl'", "'second'", "'missing'", *error.available])


def test_with_nothing_there_the_error_says_so() -> None:
    """The message of a first node without inputs ends in `available: nothing`."""
    with pytest.raises(MissingInputError, match="available: nothing"):
        node(lambda needed: needed).run()


def test_a_marker_without_a_context_is_a_missing_input() -> None:
    """The error names the parameter and says that a context is wanted; the previous output does not slip in."""

    @node
    def takes(service: str = Provide["other"]) -> str:
        return service

    with pytest.raises(MissingInputError, match=r"'service' of node 'takes'.*context=") as caught:
        source().then(takes).run()
    assert caught.value.available == ("output 'source'",)


def test_a_marker_that_the_context_lacks_is_a_missing_input() -> None:
    """The error names the parameter, what it asked for, and the providers there are."""

    @node
    def takes(service: str = Provide["nowhere"]) -> str:
        return service

    with pytest.raises(MissingInputError, match=r"'service' of node 'takes'.*nowhere") as caught:
        takes.run(context=Context())
    assert "provider 'other'" in caught.value.available


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


def test_an_output_that_a_branch_may_not_give_is_known_only_then() -> None:
    """A name from a branch that was not chosen is missing when its node runs; with a default it takes that."""

    @node
    def last(value: object, left: str) -> str:
        return left

    @node(name="last")
    def lenient(value: object, left: str = "default") -> str:
        return left

    choose = node(name="choose")(lambda side: side)
    flow = choose.branch_on({"l": source("left", "left"), "r": source("right", "right")})
    assert flow.then(last).run({"side": "l"}) == "left"
    with pytest.raises(MissingInputError, match="'left' of node 'last'"):
        flow.then(last).run({"side": "r"})
    assert flow.then(lenient).run({"side": "r"}) == "default"


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
    """Other values and other instances of the class take the plan that is there; other names or classes do not."""

    class Other(Context): ...

    takes = node(lambda a="default", x="none": (a, x))
    for _ in range(3):
        assert takes.run({"a": 1}, Context()) == (1, "provider")
        assert takes.run({"a": 2}, Context(x=providers.Object("own"))) == (2, "own")
    assert len(planned) == 1
    for _ in range(2):
        takes.run({"a": 1}, Other())
        takes.run({"b": 1}, Context())
        takes.run({"a": 1})
        takes.run("value")
        takes.run()
    assert len(planned) == 6


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
    assert [takes.run({f"name {index}": 1}) for index in range(1000)] == [1] * 1000
    assert len(takes._runner._plans) <= running.MAX_PLANS
