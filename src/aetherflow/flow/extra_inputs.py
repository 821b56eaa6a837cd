"""Run inputs that no parameter takes: passed to ``**kwargs``, refused, or ignored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple, get_args

from aetherflow.config import nearest_name
from aetherflow.engine.graph import Task
from aetherflow.errors import SHOWN_NAMES, ConfigurationError, UnknownInputError, short_repr
from aetherflow.flow.arguments import Binding
from aetherflow.flow.binding_messages import code, source_text
from aetherflow.flow.sources import BindingContext

__all__ = ["EXTRA_INPUTS", "BoundNode", "ExtraInputs", "assign_extra_inputs", "check_extra_inputs"]

ExtraInputs = Literal["raise", "ignore"]
"""The treatment of a run input that no parameter takes: raise `UnknownInputError`, or ignore it."""

EXTRA_INPUTS: Final[tuple[ExtraInputs, ...]] = get_args(ExtraInputs)


class BoundNode(NamedTuple):
    """A node with its binding, and the context that it was bound in."""

    task: Task
    context: BindingContext
    binding: Binding


def check_extra_inputs(value: object) -> None:
    """Raise an error if a value is not one of `EXTRA_INPUTS`.

    Raises:
        ConfigurationError: The value is not one of them.
    """
    if isinstance(value, str) and value in EXTRA_INPUTS:
        return
    near = nearest_name(value, EXTRA_INPUTS)
    hint = "" if near is None else f"; did you mean {near!r}?"
    raise ConfigurationError(f"extra_inputs must be 'raise' or 'ignore', got {short_repr(value)}{hint}")


def assign_extra_inputs(
    flow: str, inputs: Mapping[str, int], nodes: Sequence[BoundNode], extra_inputs: ExtraInputs
) -> None:
    """Assign the run inputs that no parameter of a flow takes to the nodes with ``**kwargs``.

    Args:
        flow: The flow's name.
        inputs: The slots of the inputs by name.
        nodes: The nodes of the flow.
        extra_inputs: The treatment of the remaining inputs.

    Raises:
        UnknownInputError: Inputs remain, and `extra_inputs` is ``"raise"``.
    """
    known_names = {name for node in nodes for name in node.binding.inputs}
    remaining = [name for name in inputs if name not in known_names]
    if not remaining:
        return
    for node in nodes:
        if node.task.has_var_keyword:
            names = [name for name in remaining if isinstance(name, str) and name not in node.task.names]
            node.context.extra.extend((name, inputs[name]) for name in names)
            known_names.update(names)
    if extra_inputs == "ignore" or any(node.binding.whole_mapping is not None for node in nodes):
        return
    unknown = [name for name in remaining if name not in known_names]
    if unknown:
        raise _unknown_inputs(flow, unknown, nodes)


def _unknown_inputs(flow: str, unknown: Sequence[str], nodes: Sequence[BoundNode]) -> UnknownInputError:
    allowed = list(dict.fromkeys(name for node in nodes for name in _possible_inputs(node)))
    hints = {name: hint for name in unknown[:SHOWN_NAMES] if (hint := _hint(name, allowed, nodes))}
    return UnknownInputError(flow, unknown, hints, allowed)


def _possible_inputs(node: BoundNode) -> list[str]:
    """Return the parameters that take a run input of their name, or would take it if it were given."""
    names = []
    for argument in node.binding.arguments:
        name = argument.parameter.name
        is_free = all(candidate.slot in node.context.rounds for candidate in argument.candidates)
        if name in node.binding.inputs or (is_free and name not in node.task.markers):
            names.append(name)
    return names


def _hint(name: str, allowed: Sequence[str], nodes: Sequence[BoundNode]) -> str:
    """Return the source of the parameter that has an input's name, or the nearest spelling."""
    for node in nodes:
        for argument in node.binding.arguments:
            if argument.parameter.name == name:
                source = source_text(argument, node.task, node.context)
                text = f"{code(name)} of {code(node.task.name)} takes {source}"
                if name in node.task.markers:
                    return f"{text}, since a marker comes before inputs in a run with a context"
                return text if node.context.outputs(name) else f"{text}; write `*, {name}` to take the input"
    near = nearest_name(name, allowed)
    return "" if near is None else f"Did you mean {code(near)} instead of {code(name)}?"
