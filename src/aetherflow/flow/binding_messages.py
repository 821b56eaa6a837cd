"""Messages about arguments: the source of each, parameters that nothing fills, and outputs that no parameter takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final

from aetherflow.config import nearest_name
from aetherflow.engine.graph import Task
from aetherflow.engine.plan import INPUTS
from aetherflow.engine.signatures import accepts_mapping
from aetherflow.flow.arguments import BoundArgument, SlotCandidate
from aetherflow.flow.sources import BindingContext, NodeSources, PreviousOutput

__all__ = ["NEAR_MISS", "code", "reason_for_runs", "reason_missing", "source_text", "unused_output"]

NEAR_MISS: Final = 0.75
"""The similarity from which on a name counts as a misspelling of another, for `difflib`."""

_COMPARED: Final = 1_000
"""The most names that are searched for the nearest spelling."""


def code(name: str) -> str:
    """Return a name in backticks, with everything that does not print written as an escape."""
    return f"`{repr(name)[1:-1]}`"


def source_text(argument: BoundArgument, task: Task, context: BindingContext) -> str:
    """Return a description of the source of an argument.

    Args:
        argument: The argument.
        task: Its node.
        context: The values that could have filled it.
    """
    name = argument.parameter.name
    candidates = [candidate for candidate in argument.candidates if candidate.slot not in context.rounds]
    texts = [_slot_text(candidate.slot, name, context) for candidate in candidates]
    if (marker := task.markers.get(name)) is not None and not candidates:
        texts.append(f"the value of {marker}")
    elif argument.provider is not None:
        texts.append(f"the provider {code(name)}")
    elif not (candidates and candidates[-1].is_last) and argument.error is None:
        texts.append("its default")
    return " or ".join(dict.fromkeys(texts))


def _slot_text(slot: int, parameter: str, context: BindingContext) -> str:
    if slot == context.inputs.get(parameter):
        return f"the run input {code(parameter)}"
    return "the whole input" if slot == INPUTS else f"the output of {code(context.describe(slot))}"


# --- parameters that nothing fills ---------------------------------------------------------------------------------


def reason_missing(sources: NodeSources, parameter: inspect.Parameter) -> str:
    """Return the reason why nothing fills a parameter, and the next step for whoever reads it."""
    context = sources.context
    if parameter.name in context.ambiguous:
        return (
            f"several branches of a fan-out have an output {code(parameter.name)}; take it from `parallel_results`, or "
            f"give the nodes different names"
        )
    reasons = [_misspelling(sources, parameter) or _reason_of_inputs(sources, parameter)]
    if context.previous is not None:
        reasons.append(_reason_of_output(sources, parameter, context.previous))
    if not context.has_context and parameter is not sources.value_parameter:
        reasons.append("if a provider is to fill it, run the flow with context=…")
    return "; ".join(filter(None, reasons))


def _misspelling(sources: NodeSources, parameter: inspect.Parameter) -> str:
    """Return the name of an input or a provider that is nearly the parameter's name."""
    context = sources.context
    unknown = islice(context.inputs.keys() - context.flow_parameters(), _COMPARED)
    if (near := nearest_name(parameter.name, unknown, NEAR_MISS)) is not None:
        return f"did you mean {code(parameter.name)} instead of the input {code(near)}?"
    if (near := nearest_name(parameter.name, islice(context.providers, _COMPARED), NEAR_MISS)) is not None:
        return f"did you mean the provider {code(near)}?"
    return ""


def _reason_of_inputs(sources: NodeSources, parameter: inspect.Parameter) -> str:
    """Return the reason why a parameter of a first node takes no run input."""
    context = sources.context
    if not context.is_first or parameter.kind is parameter.KEYWORD_ONLY:
        return ""
    if not context.has_mapping:
        return "" if context.has_value else f"the run has no inputs; pass them as a mapping, {{{parameter.name!r}: …}}"
    if parameter is not sources.mapping_parameter:
        return "no run input has this name"
    if not accepts_mapping(parameter.annotation):
        annotation = code(inspect.formatannotation(parameter.annotation))
        return f"no run input has this name, and the annotation {annotation} does not take the whole input mapping"
    unknown = [name for name in context.inputs if name not in context.flow_parameters()]
    if not unknown:
        return "each run input has a parameter of its name, so the inputs are not passed as one mapping"
    near = nearest_name(unknown[0], [each.name for each in sources.task.parameters], NEAR_MISS)
    return f"did you mean {code(near or '')} instead of the input {code(unknown[0])}?"


def _reason_of_output(sources: NodeSources, parameter: inspect.Parameter, previous: PreviousOutput) -> str:
    """Return the parameter that took the previous step's output, or the reason why there is no output."""
    step = code(previous.step)
    if previous.is_silent:
        return f"{step} is annotated `-> None`, so it passes on no output; return the value from it"
    if sources.takers:
        return f"{code(sources.takers[0][0])} already takes that output, the output of {step}"
    if parameter.kind is parameter.KEYWORD_ONLY:
        return (
            "keyword-only parameters do not take the previous output; name the parameter after the step whose output "
            "it is to take, or pass a run input of its name"
        )
    if sources.recipient is not None:
        return f"{code(sources.recipient.name)} takes {_taken_by_recipient(sources, sources.recipient, step)}"
    first = sources.unmarked[0]
    if first is parameter:
        return ""
    named = sources.named[first.name]
    other = f"the output of {code(sources.context.describe(named[0].slot))}" if named else "a provider"
    return f"the output of {step} would go to the first parameter, {code(first.name)}, which takes {other}"


def _taken_by_recipient(sources: NodeSources, recipient: inspect.Parameter, step: str) -> str:
    context = sources.context
    if context.is_alternative and recipient.name in context.inputs:
        return f"the run input {code(recipient.name)}"
    if context.is_alternative and recipient.name in context.providers:
        return f"the provider {code(recipient.name)}"
    return f"the output of {step}, which is one value"


def reason_for_runs(sources: NodeSources, candidates: Sequence[SlotCandidate]) -> str:
    """Return the reason why nothing fills a parameter in a run in which no candidate counts."""
    if sources.takers and sources.output is not None and sources.output in candidates:
        names = " or ".join(dict.fromkeys(code(name) for name, _ in sources.takers))
        return f"{names} already takes that output"
    return "the node that would fill it did not get to run; give the parameter a default"


# --- outputs that no parameter takes -------------------------------------------------------------------------------


def unused_output(sources: NodeSources, arguments: Mapping[str, BoundArgument]) -> str:
    """Return the warning about an output that a node does not use, or probably uses for the wrong parameter.

    Args:
        sources: The node, with the outputs that its parameters take.
        arguments: Its arguments by name.

    Returns:
        The text of the `UnusedOutputWarning`; empty for none.
    """
    context, previous = sources.context, sources.context.previous
    if not sources.unmarked:
        return ""
    if context.rounds and not sources.rounds:
        return _unused(sources, "does not use the output of the round before it", arguments)
    if previous is None or previous.is_silent:
        return ""
    if context.is_alternative:
        return _unused_by_default(sources, previous, arguments) if context.is_default else ""
    if not sources.uses_output(previous):
        often = "always " if sources.output is not None or sources.takers else ""
        return _unused(sources, f"does not {often}use the output of {code(previous.step)}", arguments)
    return _ambiguous(sources, previous, arguments)


def _unused(sources: NodeSources, fact: str, arguments: Mapping[str, BoundArgument]) -> str:
    name = sources.unmarked[0].name
    return (
        f"flow {sources.context.flow!r}: node {code(sources.task.name)} {fact}: its parameter {code(name)} takes "
        f"{source_text(arguments[name], sources.task, sources.context)}. If this is intended, write `*, {name}`; "
        f"otherwise {_renaming(sources)}"
    )


def _renaming(sources: NodeSources) -> str:
    """Return the advice to name a parameter after the previous step, with the name if there is one."""
    previous = sources.context.previous
    names = () if previous is None or sources.context.rounds else previous.names
    if not names:
        return "let the first parameter take it"
    return f"name a parameter {' or '.join(map(code, names))}"


def _unused_by_default(sources: NodeSources, previous: PreviousOutput, arguments: Mapping[str, BoundArgument]) -> str:
    if sources.recipient is None or sources.output is None:
        return ""
    if sources.output in arguments[sources.recipient.name].candidates:
        return ""
    return _unused(sources, f"is given as default= and does not use the output of {code(previous.step)}", arguments)


def _ambiguous(sources: NodeSources, previous: PreviousOutput, arguments: Mapping[str, BoundArgument]) -> str:
    """Return the warning about a parameter that has the name of an input, beside one that takes an older output."""
    if sources.output is None or sources.recipient is None or sources.recipient.name not in sources.context.inputs:
        return ""
    name = sources.recipient.name
    for other, candidates in sources.named.items():
        if other != name and candidates and candidates[0].slot not in sources.parts:
            source = source_text(arguments[other], sources.task, sources.context)
            return (
                f"flow {sources.context.flow!r}: parameter {code(name)} of node {code(sources.task.name)} takes the "
                f"output of {code(previous.step)} and not the run input {code(name)}, while {code(other)} takes "
                f"{source}. To take the input, write `*, {name}`; to take the output, {_renaming(sources)}"
            )
    return ""
