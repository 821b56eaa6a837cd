"""Which argument comes from where, decided once per flow, input names and context class.

A parameter is filled from the first of these that has its name or its place:

1. the output of an earlier node of that name (``parallel_results``: the results of the last fan-out);
2. a run input of that name;
3. a provider of that name in the context, also through a ``Provide[…]`` default;
4. for a node's first positional parameter: the output of the node before;
5. the parameter's default;
6. in a first node, for the first positional parameter if it has no default: the whole input mapping.

Keyword-only parameters take no part in 4 and 6. Every context has the providers ``state``, ``context`` and
``shared_data``, so parameters of those names mean them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

from aetherflow.engine.plan import UNSET, Slots
from aetherflow.errors import ConfigurationError, MissingInputError

__all__ = ["Binding", "Candidate", "bind"]


class Candidate(NamedTuple):
    """A slot that may fill a parameter; ``certain`` where something has always filled it by then."""

    slot: int
    certain: bool = True


@dataclass(slots=True)
class Open:
    """What can fill the parameters of one node.

    Args:
        flow: The flow's name, for errors.
        node: The node's name, for errors.
        outputs: Slots of earlier outputs of a name, the latest first.
        given: The slot of a run input, None where there is none of that name.
        provider: The slot of the provider that a parameter asks for, or None; asked only where it would be used, since
            what is asked for is made ready before a run.
        previous: Slots of the output before, for rule 4.
        whole: The slot of the whole input mapping in a first node, for rule 6.
        forced: What the first positional parameter takes before any rule but the third.
        available: Every name that could have been used, for errors.
    """

    flow: str
    node: str
    outputs: Callable[[str], Sequence[Candidate]]
    given: Callable[[str], int | None]
    provider: Callable[[inspect.Parameter], int | None]
    previous: Sequence[Candidate] = ()
    whole: int | None = None
    forced: Sequence[Candidate] = ()
    available: Callable[[], Sequence[str]] = tuple


@dataclass(slots=True)
class Binding:
    """How a node is called: how ``function(slots)`` calls it, and what its arguments are made of.

    ``arguments(slots)`` gives them by name, those apart that the function or a provider fills: for calls elsewhere.
    """

    invoke: Callable[[Slots], Any]
    arguments: Callable[[Slots], dict[str, Any]]
    takes: list[Sequence[Candidate]] = field(default_factory=list)
    """What may be read for each parameter, providers apart: the first that is set counts."""
    providers: list[tuple[str, int]] = field(default_factory=list)
    """Parameters that are injected, and their providers' slots."""
    injected: list[str] = field(default_factory=list)
    """Those of them that always are."""


Getter = Callable[[Slots], Any]


class _Bound(NamedTuple):
    parameter: inspect.Parameter
    get: Getter
    slot: int | None  # where the value simply is what the slot holds
    is_default: bool
    injected_over: Sequence[int] | None = None  # slots that come before the provider


def bind(call: Callable[..., Any], parameters: Sequence[inspect.Parameter], sources: Open) -> Binding:
    """Decide where each argument of a node comes from.

    Args:
        call: The function to call.
        parameters: Its parameters, variadic ones left out.
        sources: What there is to fill them from.

    Raises:
        MissingInputError: Nothing can fill a parameter.
    """
    binding = Binding(call, lambda slots: {})
    first = next((p for p in parameters if p.kind is not p.KEYWORD_ONLY), None)
    bound = [_bind_one(parameter, parameter is first, sources, binding) for parameter in parameters]
    positional = [b for b in bound if b.parameter.kind is not inspect.Parameter.KEYWORD_ONLY]
    while positional and positional[-1].is_default:
        positional.pop()  # the function fills these itself
    keyword = [b for b in bound if b.parameter.kind is inspect.Parameter.KEYWORD_ONLY and not b.is_default]
    binding.invoke = _invoker(call, positional, keyword)
    binding.arguments = _collector(bound)
    return binding


def _bind_one(parameter: inspect.Parameter, is_first: bool, sources: Open, binding: Binding) -> _Bound:
    candidates = list(sources.outputs(parameter.name))
    given = sources.given(parameter.name)
    if given is not None:
        candidates.append(Candidate(given))
    certain = any(candidate.certain for candidate in candidates)
    injected = None if certain else _provider(parameter, sources)
    if injected is not None:
        binding.providers.append((parameter.name, injected))
        before = [candidate.slot for candidate in candidates]
        if not before:
            binding.injected.append(parameter.name)
        binding.takes.append(candidates)
        return _Bound(parameter, _injecting(before, injected), None, False, before)
    if is_first:
        candidates = [*sources.forced, *candidates, *sources.previous]
    default = parameter.default
    fallback: Getter
    if default is not inspect.Parameter.empty:
        fallback = lambda slots: default  # noqa: E731  # a constant, in the form of a getter
    else:
        if is_first and sources.whole is not None:
            candidates.append(Candidate(sources.whole))
        reason = "the node that gives it did not get to run" if candidates else ""
        error = MissingInputError(sources.flow, sources.node, parameter.name, sources.available(), reason)
        if not candidates:
            raise error
        fallback = _missing(error)
    for index, candidate in enumerate(candidates):
        if candidate.certain:
            del candidates[index + 1 :]
    binding.takes.append(candidates)
    if candidates and candidates[0].certain:
        return _Bound(parameter, itemgetter(candidates[0].slot), candidates[0].slot, False)
    if not candidates:
        return _Bound(parameter, fallback, None, True)
    return _Bound(parameter, _first_set([c.slot for c in candidates], fallback), None, False)


def _provider(parameter: inspect.Parameter, sources: Open) -> int | None:
    try:
        return sources.provider(parameter)
    except ConfigurationError as error:
        raise MissingInputError(sources.flow, sources.node, parameter.name, sources.available(), str(error)) from error


def _injecting(candidates: Sequence[int], provider: int) -> Getter:
    def inject(slots: Slots) -> Any:
        return slots[provider]()

    return _first_set(candidates, inject) if candidates else inject


def _first_set(candidates: Sequence[int], fallback: Getter) -> Getter:
    def first_set(slots: Slots) -> Any:
        for slot in candidates:
            value = slots[slot]
            if value is not UNSET:
                return value
        return fallback(slots)

    return first_set


def _missing(error: MissingInputError) -> Getter:
    def missing(slots: Slots) -> Any:
        raise MissingInputError(error.flow, error.node, error.parameter, error.available, error.reason)

    return missing


def _invoker(
    call: Callable[..., Any], positional: Sequence[_Bound], keyword: Sequence[_Bound]
) -> Callable[[Slots], Any]:
    """Return the shortest closure that calls a function with arguments out of the slots."""
    slots_of = [b.slot for b in positional if b.slot is not None]
    if not keyword and len(slots_of) == len(positional):
        match slots_of:
            case []:
                return lambda slots: call()
            case [one]:
                return lambda slots: call(slots[one])
            case [one, two]:
                return lambda slots: call(slots[one], slots[two])
            case _:
                pick = itemgetter(*slots_of)
                return lambda slots: call(*pick(slots))
    getters = [b.get for b in positional]
    if not keyword:
        match getters:
            case [get]:
                return lambda slots: call(get(slots))
            case [get, then]:
                return lambda slots: call(get(slots), then(slots))
            case _:
                return lambda slots: call(*[get(slots) for get in getters])
    named = [(b.parameter.name, b.get) for b in keyword]
    return lambda slots: call(*[get(slots) for get in getters], **{name: get(slots) for name, get in named})


def _collector(bound: Sequence[_Bound]) -> Callable[[Slots], dict[str, Any]]:
    named = [
        (b.parameter.name, b.get if b.injected_over is None else _first_set(b.injected_over, lambda slots: UNSET))
        for b in bound
        if not b.is_default
    ]

    def arguments(slots: Slots) -> dict[str, Any]:
        found = {name: get(slots) for name, get in named}
        return {name: value for name, value in found.items() if value is not UNSET}

    return arguments
