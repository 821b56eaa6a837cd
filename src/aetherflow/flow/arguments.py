"""The arguments of a node: the slots and providers that fill each of them, and the shortest call that uses them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

from aetherflow.engine.plan import UNSET, Condition, Slots, holds
from aetherflow.errors import MissingInputError

__all__ = ["Binding", "BoundArgument", "SlotCandidate", "up_to_last"]

Getter = Callable[[Slots], Any]


class SlotCandidate(NamedTuple):
    """A slot that may fill a parameter.

    Args:
        slot: The slot.
        is_certain: Whether the slot is set, and its condition holds, whenever the node runs.
        condition: The slots that have to be set or unset for this candidate to count; None for no condition.
        completes: Whether this candidate or one before it is set whenever the node runs.
    """

    slot: int
    is_certain: bool = True
    condition: Condition | None = None
    completes: bool = False

    @property
    def is_last(self) -> bool:
        """True if candidates behind this one never count."""
        return self.is_certain or self.completes


class BoundArgument(NamedTuple):
    """A parameter and everything that may fill it.

    Args:
        parameter: The parameter.
        candidates: Slots in order of priority: the first that is set, and whose condition holds, fills the parameter.
        provider: The slot of the provider that fills it otherwise; None for the default.
        error: The error to raise if nothing fills it; None if that cannot happen.
        inject: A function that takes the object of the provider from the slots; None to just call the provider.
    """

    parameter: inspect.Parameter
    candidates: Sequence[SlotCandidate]
    provider: int | None = None
    error: MissingInputError | None = None
    inject: Getter | None = None

    @property
    def slot(self) -> int | None:
        """The slot that always fills the parameter; None if that differs between runs, or if no slot does."""
        return self.candidates[0].slot if self.candidates and self.candidates[0].is_certain else None

    @property
    def is_default(self) -> bool:
        """True if the function itself fills the parameter."""
        return not self.candidates and self.provider is None and self.error is None

    @property
    def is_injected(self) -> bool:
        """True if a provider always fills the parameter."""
        return not self.candidates and self.provider is not None

    def getter(self) -> Getter:
        """Return a function that takes the argument from the slots of a run."""
        return _getter(self.candidates, self._fallback())

    def sent(self) -> Getter:
        """Return a function that takes the argument for a worker, ``UNSET`` if the worker itself injects it."""
        return _getter(self.candidates, self._fallback() if self.provider is None else lambda slots: UNSET)

    def _fallback(self) -> Getter:
        if (provider := self.provider) is not None:
            return self.inject or (lambda slots: slots[provider]())
        if (error := self.error) is not None:
            return _raising(error)
        default = self.parameter.default
        return lambda slots: default


@dataclass(slots=True)
class Binding:
    """The source of each argument of a node.

    Args:
        arguments: The node's parameters with their sources.
        extra: Run inputs for ``**kwargs``, by name; None if the function has no such parameter.
        inputs: Names of the run inputs that the node may take.
        whole_mapping: The parameter that takes the whole input mapping; None for none.
        takes_value: Whether a parameter takes the run's single value.
        warning: The text of the `UnusedOutputWarning` about the node; empty for no warning.
        missing: For a diagram, the parameters that nothing fills.
    """

    arguments: Sequence[BoundArgument]
    extra: list[tuple[str, int]] | None
    inputs: frozenset[str]
    whole_mapping: str | None = None
    takes_value: bool = False
    warning: str = ""
    missing: Sequence[str] = ()
    providers: list[tuple[str, int]] = field(init=False)
    """Parameters that may be injected, with the slots of their providers."""
    injected: list[str] = field(init=False)
    """Parameters that are always injected."""

    def __post_init__(self) -> None:
        self.providers = [(each.parameter.name, each.provider) for each in self.arguments if each.provider is not None]
        self.injected = [each.parameter.name for each in self.arguments if each.is_injected]

    def invoker(self, call: Callable[..., Any]) -> Callable[[Slots], Any]:
        """Return the shortest function that calls `call` with arguments from the slots of a run."""
        positional: list[BoundArgument] = []
        keyword: list[BoundArgument] = []
        for argument in self.arguments:
            if argument.parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                positional.append(argument)
            elif not argument.is_default:
                keyword.append(argument)
        while positional and positional[-1].is_default:
            positional.pop()  # the function fills these itself
        return _invoker(call, positional, keyword, self.extra)

    def named_arguments(self) -> Callable[[Slots], dict[str, Any]]:
        """Return a function that returns the arguments by name, except those that the function or a worker fills."""
        getters = [(each.parameter.name, each.sent()) for each in self.arguments if not each.is_default]
        extra = () if self.extra is None else self.extra  # planning completes it later

        def arguments(slots: Slots) -> dict[str, Any]:
            values = {name: get(slots) for name, get in getters}
            values.update((name, slots[slot]) for name, slot in extra)
            return {name: value for name, value in values.items() if value is not UNSET}

        return arguments


def up_to_last(candidates: Sequence[SlotCandidate]) -> Sequence[SlotCandidate]:
    """Return the candidates up to the first behind which none counts."""
    for index, candidate in enumerate(candidates):
        if candidate.is_certain or candidate.completes:
            return candidates[: index + 1]
    return candidates


def _getter(candidates: Sequence[SlotCandidate], fallback: Getter) -> Getter:
    if not candidates:
        return fallback
    if candidates[0].is_certain:
        return itemgetter(candidates[0].slot)
    if all(candidate.condition is None for candidate in candidates):
        unconditional = [candidate.slot for candidate in candidates]

        def first_set(slots: Slots) -> Any:
            for slot in unconditional:
                value = slots[slot]
                if value is not UNSET:
                    return value
            return fallback(slots)

        return first_set
    choices = [(candidate.slot, candidate.condition) for candidate in candidates]

    def first_allowed(slots: Slots) -> Any:
        for slot, condition in choices:
            value = slots[slot]
            if value is not UNSET and (condition is None or holds(condition, slots)):
                return value
        return fallback(slots)

    return first_allowed


def _raising(error: MissingInputError) -> Getter:
    def missing(slots: Slots) -> Any:
        raise MissingInputError(error.flow, error.node, error.parameter, error.available, error.reason)

    return missing


def _invoker(
    call: Callable[..., Any],
    positional: Sequence[BoundArgument],
    keyword: Sequence[BoundArgument],
    extra: Sequence[tuple[str, int]] | None,
) -> Callable[[Slots], Any]:
    """Return the shortest closure that calls a function with arguments from the slots."""
    certain = [argument.slot for argument in positional if argument.slot is not None]
    if not keyword and extra is None and len(certain) == len(positional):
        match certain:
            case []:
                return lambda slots: call()
            case [one]:
                return lambda slots: call(slots[one])
            case [one, two]:
                return lambda slots: call(slots[one], slots[two])
            case _:
                pick = itemgetter(*certain)
                return lambda slots: call(*pick(slots))
    getters = [argument.getter() for argument in positional]
    if not keyword and extra is None:
        return _positional_invoker(call, getters)
    named = [(argument.parameter.name, argument.getter()) for argument in keyword]
    if extra is None:
        return lambda slots: call(*[get(slots) for get in getters], **{name: get(slots) for name, get in named})
    return lambda slots: call(
        *[get(slots) for get in getters],
        **{name: get(slots) for name, get in named},
        **{name: slots[slot] for name, slot in extra},
    )


def _positional_invoker(call: Callable[..., Any], getters: Sequence[Getter]) -> Callable[[Slots], Any]:
    match getters:
        case [get]:
            return lambda slots: call(get(slots))
        case [get, then]:
            return lambda slots: call(get(slots), then(slots))
        case _:
            return lambda slots: call(*[get(slots) for get in getters])
