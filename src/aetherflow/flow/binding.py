"""Argument binding: the source of each argument, decided once per flow, context class and input names.

The first rule that applies to a parameter fills it:

1. the parameter has an explicit marker, such as ``Provide[…]``: the provider's value;
2. an earlier node or named flow has its name: the latest output of that name;
3. it is the first positional parameter of a node that is not the first: the previous step's output, unless a parameter
   takes that output under rule 2;
4. a run input has its name;
5. a provider has its name;
6. it has a default;
7. it is the first positional parameter of the first node that nothing fills: the whole input mapping.

``docs/binding.md`` states them in full, with examples.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from aetherflow.config import nearest_name
from aetherflow.engine.graph import Task
from aetherflow.engine.plan import INPUTS
from aetherflow.engine.signatures import accepts_mapping
from aetherflow.errors import ConfigurationError, MissingInputError
from aetherflow.flow.arguments import Binding, BoundArgument, SlotCandidate, up_to_last
from aetherflow.flow.binding_messages import NEAR_MISS, reason_for_runs, reason_missing, unused_output
from aetherflow.flow.sources import BindingContext, NodeSources
from aetherflow.resources.markers import Marker

__all__ = ["bind"]


def bind(task: Task, context: BindingContext) -> Binding:
    """Decide the source of each argument of a node.

    Args:
        task: The node.
        context: The values that can fill its parameters.

    Raises:
        MissingInputError: Nothing can fill a parameter.
    """
    return _Binder(task, context).bind()


class _Binder:
    def __init__(self, task: Task, context: BindingContext) -> None:
        self._task = task
        self._context = context
        self._sources = NodeSources(task, context)
        self._inputs: set[str] = set()
        self._whole_mapping: str | None = None
        self._missing_inputs: list[str] = []

    def bind(self) -> Binding:
        context, task, sources = self._context, self._task, self._sources
        arguments = {parameter.name: self._bind(parameter) for parameter in task.parameters}
        return Binding(
            tuple(arguments.values()),
            context.extra if task.has_var_keyword else None,
            frozenset(self._inputs),
            self._whole_mapping,
            context.has_value and sources.value_parameter is not None,
            unused_output(sources, arguments),
            self._missing_inputs,
        )

    def _bind(self, parameter: inspect.Parameter) -> BoundArgument:
        name = parameter.name
        if (marker := self._task.markers.get(name)) is not None:
            return self._bind_marked(parameter, marker)
        context = self._context
        if name in context.ambiguous and not context.is_sketch:
            raise self._missing(parameter, reason_missing(self._sources, parameter))
        candidates = self._candidates(parameter, name)
        if candidates and candidates[-1].is_last:
            if candidates[-1].slot == context.inputs.get(name):
                self._inputs.add(name)
            return BoundArgument(parameter, candidates)
        if name in context.providers:
            return BoundArgument(parameter, candidates, context.named(name))
        if parameter.default is not parameter.empty:
            return BoundArgument(parameter, candidates)
        if parameter is self._sources.mapping_parameter and self._takes_mapping(parameter):
            self._whole_mapping = name
            return BoundArgument(parameter, [*candidates, SlotCandidate(INPUTS)])
        if all(candidate.slot in context.rounds for candidate in candidates):  # so nothing fills it in the first round
            if not context.is_sketch:
                raise self._missing(parameter, reason_missing(self._sources, parameter))
            self._missing_inputs.append(name)
        reason = reason_for_runs(self._sources, candidates)
        return BoundArgument(parameter, candidates, None, self._missing(parameter, reason))

    def _bind_marked(self, parameter: inspect.Parameter, marker: Marker) -> BoundArgument:
        """Apply rule 1."""
        context = self._context
        if not context.has_context and (input_slot := context.inputs.get(parameter.name)) is not None:
            self._inputs.add(parameter.name)
            return BoundArgument(parameter, [SlotCandidate(input_slot)])
        if context.is_sketch:
            return BoundArgument(parameter, [])
        try:
            return BoundArgument(parameter, [], context.marked(marker, parameter.name))
        except ConfigurationError as error:
            raise self._missing(parameter, str(error)) from error

    def _candidates(self, parameter: inspect.Parameter, name: str) -> Sequence[SlotCandidate]:
        """Return the slots that fill a parameter by the rules before 5, up to the first behind which none counts."""
        context, sources = self._context, self._sources
        candidates: list[SlotCandidate] = []
        if name in sources.rounds:
            condition = sources.rounds[name]
            candidates.extend(SlotCandidate(slot, False, condition) for slot in context.rounds)
        if context.has_value and parameter is sources.value_parameter:
            candidates.append(SlotCandidate(INPUTS))
        candidates.extend(sources.named[name])
        input_slot = context.inputs.get(name)
        if sources.output is not None and parameter is sources.recipient:
            # An output that chose an alternative has done its work: inputs and providers come before it.
            is_filled = context.is_alternative and (input_slot is not None or name in context.providers)
            if not is_filled:
                candidates.append(sources.output)
        if input_slot is not None:
            candidates.append(SlotCandidate(input_slot))
        return up_to_last(candidates) if candidates else ()

    def _takes_mapping(self, parameter: inspect.Parameter) -> bool:
        """Return whether rule 7 applies: the annotation allows a mapping, and the inputs look like one."""
        inputs: Sequence[object] = tuple(self._context.inputs)
        names = self._context.flow_parameters()
        unknown = [name for name in inputs if name not in names]
        if not accepts_mapping(parameter.annotation) or (inputs and not unknown):
            return False
        names_of_node = [each.name for each in self._task.parameters]
        return len(unknown) != 1 or nearest_name(unknown[0], names_of_node, NEAR_MISS) is None

    def _missing(self, parameter: inspect.Parameter, reason: str) -> MissingInputError:
        context = self._context
        return MissingInputError(context.flow, self._task.name, parameter.name, context.available(), reason)
