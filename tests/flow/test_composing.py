"""Composing: what can be put together and how, that nothing changes by it, and what is refused at once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from aetherflow.errors import BranchError, CompositionError, ConfigurationError
from aetherflow.flow.decorating import node
from aetherflow.flow.node import Node


@node
def start(n: int = 1) -> int:
    """Give the number."""
    return n


@node
def double(value: int) -> int:
    return value * 2


@node
def negate(value: int) -> int:
    return -value


@node
def total(results: dict[str, int]) -> int:
    return sum(results.values())


# --- what composing gives -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flow", "output"),
    [
        (start.then(double).then(double), 4),
        (start.fan_out_to([double, negate]), {"double": 2, "negate": -1}),
        (start.fan_out_to((double, negate)).fan_in(total), 1),
        (start.fan_out_to([double, negate]).then(total), 1),
        (start.fan_out_in([double, negate], total), 1),
        (start.then(double).repeat(2), 4),
        (start.branch_on({1: double, 2: negate}), 2),
        (start.branch_on({5: negate}, default=double), 2),
        (node(lambda: [1, 2, 3]).map(double), [2, 4, 6]),
        (start >> double >> negate, -2),
        (start >> [double, negate] >> total, 1),
        (start >> (double, negate), {"double": 2, "negate": -1}),
    ],
)
def test_every_way_of_composing_computes_what_it_says(flow: Node[..., Any], output: object) -> None:
    """Each method and operator gives a flow with the output that its name promises."""
    assert flow.run() == output


def test_fan_out_results_are_in_the_order_written() -> None:
    """Whatever finishes first, the mapping's order is that of the branches."""
    names = ["z", "a", "m", "b"]
    flow = start.fan_out_to([double.named(name) for name in names])
    assert list(flow.run()) == names


def test_repeat_feeds_each_round_with_the_round_before() -> None:
    """The first round takes the inputs, the next ones the output before, until the condition holds."""

    @node
    def grow(n: int, by: int = 1) -> int:
        return n + by

    assert grow.repeat(5).run({"n": 10, "by": 2}) == 20
    assert grow.repeat(100, until=lambda n: n > 12).run({"n": 10}) == 13
    assert grow.repeat(1).run(0) == 1
    assert (start >> grow.repeat(3)).run() == 4
    assert grow.repeat(2).repeat(2).run(0) == 4


def test_rounds_of_a_longer_flow_begin_at_its_first_node() -> None:
    """A body of several nodes takes the output of the round before in its first node; later nodes do as ever."""
    flow = (double >> node(name="plus_two")(lambda value: value + 2)).repeat(2)
    assert flow.run(1) == 10


def test_a_branch_is_chosen_by_the_whole_output() -> None:
    """Any hashable output chooses; what stands for nothing takes the default, what cannot be hashed too."""
    flow = node(lambda key: key).branch_on({"a": node(name="a")(lambda k: 1), None: node(name="b")(lambda k: 2)})
    assert [flow.run({"key": key}) for key in ("a", None)] == [1, 2]
    with pytest.raises(BranchError, match=r"'<lambda>' for \['a'\]; branches: 'a', None"):
        flow.run({"key": ["a"]})


def test_a_chosen_flow_of_an_earlier_round_is_not_remembered() -> None:
    """In a repeat, what a branch gave in one round is not there in the next one."""

    @node(name="seen")
    def seen(odd: int | None = None, even: int | None = None) -> int:
        observed.append((odd, even))
        return (odd if even is None else even) or 0

    observed: list[tuple[int | None, int | None]] = []
    odd, even = (node(name=name)(lambda value: value + 1) for name in ("odd", "even"))
    flow = node(name="pick")(lambda n: n % 2).branch_on({1: odd, 0: even}) >> seen
    flow.repeat(2).run({"n": 1})
    assert observed == [(2, None), (None, 1)]


# --- composing never mutates --------------------------------------------------------------------------------------


def test_composing_never_mutates() -> None:
    """Nodes and flows are what they were, whatever was made of them: values, names, texts and steps."""
    base = start.then(double)
    before = [(str(part), part.name, part._step) for part in (start, double, base)]
    base.then(negate)
    base.fan_out_to([negate, double.named("again")])
    base.repeat(3)
    base.branch_on({2: negate})
    base.map(negate)
    base.named("flow")
    base.named("flow").then(negate)
    _ = base >> [negate, total]
    assert [(str(part), part.name, part._step) for part in (start, double, base)] == before
    assert base.run() == 2
    assert start.run() == 1


def test_a_node_in_two_flows_stays_itself() -> None:
    """Flows that share nodes and parts do not see each other."""
    base = start.then(double)
    left, right = base.then(negate), base.then(double)
    assert (left.run(), right.run(), base.run()) == (-2, 4, 2)
    assert (left.execute().outputs, right.execute().outputs) == (
        {"start": 1, "double": 2, "negate": -2},
        {"start": 1, "double": 4},
    )


def test_lists_and_mappings_given_may_change_afterwards() -> None:
    """A flow keeps its own copy of branches and choices."""
    branches, choices = [double, negate], {1: double}
    fanned, branched = start.fan_out_to(branches), start.branch_on(choices)
    branches.pop()
    choices.clear()
    assert fanned.run() == {"double": 2, "negate": -1}
    assert branched.run() == 2


# --- names --------------------------------------------------------------------------------------------------------


def test_names_come_from_the_function_or_from_the_user() -> None:
    """A node is called like its function unless named; a flow like its first node."""
    assert double.name == "double"
    assert node(name="other")(double.func).name == "other"
    assert double.named("third").name == "third"
    assert (start >> double >> negate).name == "start"
    assert (start >> [double, negate]).name == "start"
    assert (start >> double).named("etl").name == "etl"
    assert (start >> double).named("etl").then(negate).name == "etl"


def test_naming_a_node_gives_another_node() -> None:
    """`.named` on a node renames that use of it: results are found under the new name."""
    flow = start >> double.named("twice") >> node(lambda twice, double="none": (double, twice))
    assert flow.run() == ("none", 2)
    assert set(flow.execute().outputs) == {"start", "twice", "<lambda>"}


def test_a_named_flow_is_one_step() -> None:
    """Its output is found by its name, the outputs of its nodes under that; they do not meet the others' names."""
    inner = (double >> negate).named("inner")
    flow = start >> inner >> node(name="last")(lambda inner, start: (inner, start))
    assert flow.run() == (-2, 1)
    assert flow.execute().outputs == {
        "start": 1,
        "inner": -2,
        "inner.double": 2,
        "inner.negate": -2,
        "last": (-2, 1),
    }


def test_nodes_of_a_named_flow_are_not_seen_outside() -> None:
    """A name used inside a named flow and outside means the one outside."""
    inner = (node(name="double")(lambda v: "inside") >> node(name="end")(lambda v: v)).named("inner")
    flow = start >> double >> inner >> node(name="last")(lambda value, double: double)
    assert flow.run() == 2


def test_an_unnamed_flow_is_part_of_the_other() -> None:
    """Its nodes are nodes of the flow it was put into."""
    flow = start >> (double >> negate) >> node(name="last")(lambda value, double: (value, double))
    assert flow.run() == (-2, 2)


def test_a_flow_as_a_branch_is_keyed_by_its_name() -> None:
    """An unnamed flow by that of its first node, a named one by its own."""
    flow = start >> [double >> negate, (negate >> double).named("other")]
    assert flow.run() == {"double": -2, "other": -2}


def test_flows_nest_five_deep() -> None:
    """A flow of flows of flows runs as one."""
    flow = start >> double
    for depth in range(5):
        flow = (flow >> double).named(f"level {depth}")
    assert flow.run() == 64
    assert flow.execute().outputs["level 3.level 2.level 1.level 0.start"] == 1


# --- what is refused ----------------------------------------------------------------------------------------------


def plain(value: int) -> int:
    return value


another_double = node(name="double")(plain)
misuse: list[tuple[Callable[[], object], str]] = [
    (lambda: start.then(plain), r"then\(\): .*plain.* is a function, not a node; decorate it with @node"),  # type: ignore[arg-type]
    (lambda: start.then(None), r"then\(\): None is a NoneType, not a node$"),  # type: ignore[arg-type]
    (lambda: start >> 5, r"then\(\): 5 is a int, not a node"),  # type: ignore[operator]
    (lambda: start.fan_out_to([]), r"fan_out_to\(\[\]\): allowed is a list of at least one node"),
    (lambda: start >> [], "at least one node"),
    (lambda: start.fan_out_to(double), r"fan_out_to\(<Node 'double'"),  # type: ignore[arg-type]
    (lambda: start.fan_out_to([double, "negate"]), r"fan_out_to\(\): 'negate' is a str, not a node"),  # type: ignore[list-item]
    (lambda: start.fan_out_to([double, double, negate]), r"two branches .* named 'double'.*\[node\] \* k"),
    (lambda: start.fan_out_to([double, another_double]), "two branches .* named 'double'"),
    (lambda: start >> double >> another_double, "two different nodes are named 'double'"),
    (lambda: start >> [double >> negate, total >> node(name="negate")(plain)], "named 'negate'"),
    (lambda: start >> node(lambda v: v) >> node(lambda v: -v), "two different nodes are named '<lambda>'"),
    (lambda: start >> (double >> negate).named("x") >> (negate >> double).named("x"), "named 'x'"),
    (lambda: start.fan_in(total), r"fan_in\(\): flow 'start' does not end in a fan-out; use then\(\)"),
    (lambda: start.fan_out_to([double, negate]).fan_in(plain), "not a node"),  # type: ignore[arg-type]
    (lambda: start.fan_out_to([double], on_error="ignore"), "on_error='ignore': allowed are 'raise' and 'collect'"),  # type: ignore[arg-type]
    (lambda: start.fan_out_to([double], executor="gpu"), "executor='gpu': allowed are 'thread'"),  # type: ignore[arg-type]
    (lambda: start.fan_out_to([double], max_workers=0), "max_workers=0: allowed is a whole number from 1"),
    (lambda: start.fan_out_to([double, negate], split=True), r"split=True.* \[n\] \* k"),
    (lambda: start.branch_on({}), r"branch_on\({}\): allowed is a mapping from outputs to nodes, not empty"),
    (lambda: start.branch_on([double]), r"branch_on\(\[<Node"),  # type: ignore[arg-type]
    (lambda: start.branch_on({1: plain}), r"branch_on\(\): .*not a node"),  # type: ignore[dict-item]
    (lambda: start.branch_on({1: double}, default=plain), r"branch_on\(\): .*not a node"),  # type: ignore[arg-type]
    (lambda: start.repeat(0), "times=0: allowed is a whole number from 1"),
    (lambda: start.repeat(True), "times=True"),
    (lambda: start.repeat(None), "repeat.None.: allowed is a whole number from 1"),  # type: ignore[arg-type]
    (lambda: start.repeat(2, until=3), "repeat.until=3.: allowed is a function"),  # type: ignore[arg-type]
    (lambda: start.map(plain), r"map\(\): .*not a node"),  # type: ignore[arg-type]
    (lambda: start.map(double, max_concurrency=-1), "max_concurrency=-1"),
    (lambda: start.named(""), "named.''.: allowed is a string that is not empty"),
    (lambda: (start >> double).named(5), "named.5.: allowed is a string"),  # type: ignore[arg-type]
    (lambda: node(start), "@node: 'start' is a node already"),
    (lambda: node(5), "@node: 5 is a int; allowed is a function or another callable"),  # type: ignore[call-overload]
    (lambda: node(name="")(plain), "@node.name=''.: allowed is a string that is not empty"),
    (lambda: node(executor="gpu")(plain), "executor='gpu'"),  # type: ignore[call-overload]
]


@pytest.mark.parametrize(("compose", "message"), misuse)
def test_wrong_composition_fails_when_composed(compose: Callable[[], object], message: str) -> None:
    """Each mistake is an error at once, whose message names what was wrong and what is allowed."""
    with pytest.raises(CompositionError, match=message):
        compose()


def test_alternatives_of_a_branch_may_share_a_name() -> None:
    """Only one of them runs; what comes after finds the one that did under that name."""
    one, two = (node(name="same")(functools.partial(lambda by, n: n * by, by)) for by in (10, 20))
    flow = start.branch_on({1: one, 2: two}) >> node(name="last")(lambda same: same)
    assert [flow.run({"n": n}) for n in (1, 2)] == [10, 40]


def test_the_same_node_twice_is_no_accident() -> None:
    """A node may be used again along a flow, and in several branches behind different first nodes."""
    assert (start >> double >> double).run() == 4
    assert (start >> [negate >> double, double.named("other") >> double]).run() == {"negate": -2, "other": 4}


# --- what can be a node -------------------------------------------------------------------------------------------


class Account:
    """Methods as nodes."""

    rate = 3

    def __init__(self, balance: int) -> None:
        self.balance = balance

    @node
    def add(self, amount: int) -> int:
        """Add to the balance."""
        return self.balance + amount

    @node
    async def add_later(self, amount: int) -> int:
        return self.balance + amount

    @staticmethod
    @node
    def fee(amount: int) -> int:
        return amount // 10

    @node
    @staticmethod
    def tax(amount: int) -> int:
        return amount // 5

    @node
    @classmethod
    def interest(cls, amount: int) -> int:
        return amount * cls.rate


class Savings(Account):
    rate = 5


def test_a_method_is_bound_to_its_object() -> None:
    """It runs, composes and is called on its object; on the class it takes the object as its first argument."""
    account = Account(100)
    assert account.add.run({"amount": 5}) == 105
    assert account.add(5) == 105
    assert account.add(amount=5) == 105
    assert (start >> account.add).run() == 101
    assert account.add_later.run({"amount": 1}) == 101
    assert Account.add(account, 1) == 101
    assert Account.add.run({"self": account, "amount": 1}) == 101


def test_methods_of_two_objects_share_a_name_only_if_named() -> None:
    """The same method of one object may be used twice; of two objects one needs a name."""
    one, two = Account(1), Account(2)
    assert (start >> one.add >> one.add).run() == 3
    with pytest.raises(CompositionError, match="named 'add'"):
        start >> one.add >> two.add
    assert (start >> one.add >> two.add.named("add to two")).run() == 4


def test_static_and_class_methods_can_be_nodes() -> None:
    """Called, run and composed, through class and object; `@node` goes above `@classmethod`."""
    for owner in (Account, Account(1)):
        assert owner.tax(50) == owner.tax.run({"amount": 50}) == 10
        assert owner.fee(50) == 5
        assert owner.fee.run({"amount": 50}) == 5
        assert (start >> owner.fee).run({"n": 20}) == 2
        assert owner.interest(10) == 30
        assert owner.interest.run({"amount": 10}) == 30
        assert (start >> owner.interest).run() == 3
    assert Savings.interest(10) == Savings.interest.run({"amount": 10}) == 50


def test_a_callable_object_can_be_a_node() -> None:
    """Its `__call__` is what runs; its attributes do not become the node's."""

    class Scale:
        """Scale a number."""

        def __init__(self, by: int) -> None:
            self._name = self._step = self._runner = "mine"
            self.by = by

        def __call__(self, value: int) -> int:
            return value * self.by

    scale = node(Scale(3))
    assert scale.name == "Scale"
    assert scale(2) == 6
    assert scale.run(2) == 6
    assert (start >> scale >> node(name="end")(lambda Scale: Scale)).run() == 3


def test_an_asynchronous_callable_object_can_be_a_node() -> None:
    """An object whose `__call__` is a coroutine function is awaited."""

    class Later:
        async def __call__(self, value: int) -> int:
            return value + 1

    assert (start >> node(Later())).run() == 2


def test_a_partial_can_be_a_node() -> None:
    """What is given in the partial is not asked for; it is named by its function or by the user."""

    async def later(by: int, value: int) -> int:
        return value * by

    assert node(name="triple")(functools.partial(lambda by, value: value * by, 3)).run(2) == 6
    assert node(name="triple")(functools.partial(later, 3)).run(2) == 6
    assert (start >> node(name="keyword")(functools.partial(lambda value, by: value * by, by=3))).run() == 3


def test_builtins_and_classes_can_be_nodes() -> None:
    """Whatever has a signature that can be read."""

    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

    assert (node(lambda: [3, 1]) >> node(sorted)).run() == [1, 3]
    assert (start >> node(Point)).run().x == 1
    with pytest.raises(CompositionError, match="the parameters of 'getattr' cannot be read; wrap it in a function"):
        node(getattr)


def test_func_is_the_plain_function() -> None:
    """`.func` is what was decorated, for a flow that of its first node; of a bound method the bound one."""

    def function(value: int) -> int:
        return value

    assert node(function).func is function
    assert node(function).named("other").func is function
    assert (node(function) >> double).func is function
    account = Account(1)
    assert account.add.func(2) == 3
    assert Account.add.func(account, 2) == 3


def test_docstring_name_and_signature_are_those_of_the_function() -> None:
    """Help, signature, annotations and attributes of the function are seen on the node."""

    def function(value: int, *, flag: bool = True) -> str:
        """Say what it does."""
        return f"{value}{flag}"

    function.marker = 1  # type: ignore[attr-defined]
    made = node(function)
    assert made.__doc__ == "Say what it does."
    assert made.__name__ == made.__qualname__.rpartition(".")[2] == "function"  # type: ignore[attr-defined]
    assert made.__module__ == __name__
    assert made.__wrapped__ is function  # type: ignore[attr-defined]
    assert made.marker == 1  # type: ignore[attr-defined]
    assert inspect.signature(made) == inspect.signature(function)
    assert str(inspect.signature(Account(1).add)) == "(amount: 'int') -> 'int'"
    assert Account(1).add.__doc__ == "Add to the balance."


# --- calling ------------------------------------------------------------------------------------------------------


def test_a_call_passes_exactly_the_arguments_given() -> None:
    """Positional, keyword, variadic and default arguments arrive as in a plain call, and so do its errors."""

    @node
    def takes(a: int, /, b: int = 2, *rest: int, c: int = 3, **more: int) -> tuple[Any, ...]:
        return a, b, rest, c, more

    assert takes(1) == (1, 2, (), 3, {})
    assert takes(1, 5, 6, 7, c=8, d=9) == (1, 5, (6, 7), 8, {"d": 9})
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        takes()  # type: ignore[call-arg]


async def test_a_call_of_an_asynchronous_node_is_awaited() -> None:
    """It gives a coroutine, as the function does."""

    @node
    async def later(value: int) -> int:
        return value + 1

    assert await later(1) == 2
    assert await Account(1).add_later(amount=2) == 3


def test_a_call_of_a_flow_gives_its_first_node_the_arguments() -> None:
    """And the other nodes what that makes of them; wrong arguments are a TypeError as in a plain call."""
    flow = start >> double
    assert flow(4) == flow(n=4) == 8
    assert flow() == 2
    with pytest.raises(TypeError, match="unexpected keyword argument 'm'"):
        flow(m=4)  # type: ignore[call-arg]


def test_a_call_of_a_flow_refuses_arguments_that_it_cannot_pass_on() -> None:
    """An argument that the first node would take by `**` has no parameter to fill: it is refused, not dropped."""
    flow = node(name="gather")(lambda a, **named: a) >> node(name="last")(lambda gathered: gathered)
    assert flow(1) == 1
    with pytest.raises(ConfigurationError, match=r"flow 'gather' .*\*\*"):
        flow(1, b=3)


COMPOSED_WITH_VAR_POSITIONAL = [
    lambda variadic: variadic >> start,
    lambda variadic: start >> variadic,
    lambda variadic: start >> [variadic, double],
    lambda variadic: start >> [variadic] * 2,
    start.map,
    start.map_batches,
    lambda variadic: variadic.chunked(2),
    lambda variadic: start.branch_on({1: variadic}),
    lambda variadic: start.branch_on({1: double}, default=variadic),
    lambda variadic: variadic.repeat(2),
]


@pytest.mark.parametrize("compose", COMPOSED_WITH_VAR_POSITIONAL)
def test_var_positional_parameters_are_refused_at_composition(compose: Any) -> None:
    """Nothing in a flow can fill `*args`, so composing raises; a node that is called, or run alone, may have them."""
    variadic = node(name="variadic")(lambda first=0, *more: (first, more))
    with pytest.raises(CompositionError, match=r"node 'variadic' has a \*args parameter"):
        compose(variadic)
    assert variadic(1, 2, 3) == (1, (2, 3))
    assert variadic.run({"first": 1}) == (1, ())


# --- showing ------------------------------------------------------------------------------------------------------


def test_a_flow_is_shown_by_its_operators() -> None:
    """`str` and `repr` show the graph in one line."""
    flow = (start >> [double, negate] >> total).named("etl")
    assert str(flow) == "start >> [double, negate] >> total"
    assert repr(flow) == "<Node 'etl': start >> [double, negate] >> total>"
