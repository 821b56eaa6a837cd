"""Random chains whose parameters share names with inputs and nodes: no result is silently another than it reads."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from aetherflow.errors import MissingInputError, UnknownInputError, UnusedOutputWarning
from aetherflow.flow.decorating import node
from aetherflow.flow.node import Node

NODES = ("a", "b", "c", "d")
NAMES = (*NODES, "x", "y")


@dataclass(frozen=True)
class Parameter:
    name: str
    is_keyword_only: bool
    default: bool


@dataclass(frozen=True)
class Function:
    """A function of a chain: it returns its name and its arguments, so that an output shows what it was made of."""

    name: str
    parameters: tuple[Parameter, ...]
    returns_none: bool

    def make(self, ran: list[str]) -> Callable[..., Any]:
        def function(*args: Any, **named: Any) -> Any:
            ran.append(self.name)
            bound = signature.bind(*args, **named)
            bound.apply_defaults()
            return None if self.returns_none else (self.name, tuple(sorted(bound.arguments.items())))

        kinds = {False: inspect.Parameter.POSITIONAL_OR_KEYWORD, True: inspect.Parameter.KEYWORD_ONLY}
        signature = inspect.Signature(
            [
                inspect.Parameter(
                    each.name,
                    kinds[each.is_keyword_only],
                    default=f"default {each.name}" if each.default else inspect.Parameter.empty,
                    annotation=tuple,
                )
                for each in self.parameters
            ],
            return_annotation=None if self.returns_none else inspect.Signature.empty,
        )
        function.__signature__ = signature  # type: ignore[attr-defined]
        return function


@st.composite
def functions(draw: st.DrawFn) -> Sequence[Function]:
    chain = []
    for name in draw(st.lists(st.sampled_from(NODES), min_size=1, max_size=4, unique=True)):
        names = draw(st.lists(st.sampled_from(NAMES), max_size=3, unique=True))
        positional = draw(st.integers(0, len(names)))
        required = draw(st.integers(0, positional))
        parameters = [
            Parameter(each, index >= positional, draw(st.booleans()) if index >= positional else index >= required)
            for index, each in enumerate(names)
        ]
        chain.append(Function(name, tuple(parameters), draw(st.sampled_from((False, False, False, True)))))
    return chain


def composed(chain: Sequence[Function], ran: list[str]) -> Node[..., Any]:
    first, *others = [node(name=each.name)(each.make(ran)) for each in chain]
    flow: Node[..., Any] = first
    for other in others:
        flow = flow >> other
    return flow


class Reading:
    """The chain as one reads it: a variable per name, and the previous value for the first parameter."""

    def __init__(self, inputs: Mapping[str, Any]) -> None:
        self.inputs = inputs
        self.outputs: dict[str, Any] = {}
        self.used_inputs: set[str] = set()
        self.unused_outputs: list[str] = []

    def run(self, chain: Sequence[Function]) -> Any:
        """Return the last output.

        Raises:
            LookupError: A parameter has no value.
        """
        value = None
        before: Function | None = None
        for function in chain:
            arguments = {each.name: self._argument(function, each, before, value) for each in function.parameters}
            positional = [each for each in function.parameters if not each.is_keyword_only]
            if before is not None and not before.returns_none and positional and value not in arguments.values():
                self.unused_outputs.append(before.name)
            value = None if function.returns_none else (function.name, tuple(sorted(arguments.items())))
            self.outputs[function.name] = value
            before = function
        return value

    def _argument(self, function: Function, parameter: Parameter, before: Function | None, value: Any) -> Any:
        if parameter.name in self.outputs:
            return self.outputs[parameter.name]
        is_first = not parameter.is_keyword_only and function.parameters[0] is parameter
        by_name = before is not None and any(each.name == before.name for each in function.parameters)
        if before is not None and is_first and not by_name and not before.returns_none:
            return value
        if parameter.name in self.inputs:
            self.used_inputs.add(parameter.name)
            return self.inputs[parameter.name]
        if parameter.default:
            return f"default {parameter.name}"
        raise LookupError(parameter.name)


@given(functions(), st.sets(st.sampled_from(NAMES)))
def test_a_chain_computes_what_it_reads_as_or_says_that_it_does_not(chain: Sequence[Function], given: set[str]) -> None:
    """Either nothing runs and an error says why, or the output is that of the composed functions.

    Without a warning, each output went to the next node, and each input to some parameter.
    """
    inputs = {name: f"input {name}" for name in sorted(given)}
    ran: list[str] = []
    reading = Reading(inputs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            output = composed(chain, ran).run(inputs)
        except (MissingInputError, UnknownInputError) as error:
            assert ran == []
            failure: Exception | None = error
        else:
            failure = None
    try:
        expected = reading.run(chain)
    except LookupError:
        assert isinstance(failure, MissingInputError)
        return
    if reading.used_inputs != given:
        assert isinstance(failure, UnknownInputError)
        assert set(failure.inputs) == given - reading.used_inputs
        return
    assert failure is None
    assert output == expected
    assert ran == [function.name for function in chain]
    assert all(each.category is UnusedOutputWarning for each in caught)
    warned = [name for name in NODES if any(f"does not use the output of `{name}`" in str(w.message) for w in caught)]
    assert sorted(set(reading.unused_outputs)) == warned


@given(functions(), st.sets(st.sampled_from(NAMES)))
def test_with_warnings_as_errors_nothing_runs_that_is_warned_of(chain: Sequence[Function], given: set[str]) -> None:
    """A chain that runs under `-W error` loses no output and no input."""
    ran: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            composed(chain, ran).run({name: f"input {name}" for name in sorted(given)})
        except (MissingInputError, UnknownInputError, UnusedOutputWarning):
            assert ran == []
            return
    assert ran == [function.name for function in chain]
