"""The values that can fill the parameters of one node, and the parameters that receive outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final, NamedTuple

from aetherflow.engine.graph import Task
from aetherflow.engine.plan import Condition
from aetherflow.flow.arguments import SlotCandidate, up_to_last
from aetherflow.resources.markers import Marker

__all__ = ["BUILT_IN_PROVIDERS", "PARALLEL_RESULTS", "Alternative", "BindingContext", "NodeSources", "PreviousOutput"]

PARALLEL_RESULTS: Final = "parallel_results"
"""The parameter name that means the results of the last fan-out or map."""

BUILT_IN_PROVIDERS: Final = frozenset({"state", "context", "shared_data"})
"""The providers that every `BaseFlowContext` has. A first parameter with one of these names takes the output."""


class Alternative(NamedTuple):
    """One of the steps that may have produced an output.

    Args:
        always: Slots that are set whenever this step has run, and whose use counts as use of the output.
        parts: These, and slots whose use counts too but that are set in some runs only.
        unset: Ranges of slots that are not set if this step has run, since they belong to the other alternatives.
    """

    always: frozenset[int]
    parts: frozenset[int]
    unset: tuple[range, ...] = ()

    def may_set(self, slot: int) -> bool:
        """Return whether a slot may be set if this step has run."""
        return not any(slot in each for each in self.unset)


@dataclass(slots=True, eq=False)
class PreviousOutput:
    """The output of the step before a node.

    Args:
        slot: The slot of the output.
        step: The name of the step, for messages.
        names: The names by which a parameter can take the output, or a part of it.
        same: Slots that hold the same value if they are set, the slot itself among them.
        parts: These, and the slots of what the output consists of: the results of a fan-out's branches.
        alternatives: The possible producers: the alternatives of a ``branch_on``, otherwise one step.
        silent: Slots of nodes annotated ``-> None``: if one of them is set, no output is passed on.
    """

    slot: int
    step: str
    names: tuple[str, ...]
    same: frozenset[int]
    parts: frozenset[int]
    alternatives: tuple[Alternative, ...]
    silent: tuple[int, ...] = ()

    @property
    def is_silent(self) -> bool:
        """True if the step is annotated ``-> None``, so that it never has an output to pass on."""
        return self.slot in self.silent

    @classmethod
    def of_step(cls, slot: int, step: str, names: tuple[str, ...], *, is_silent: bool = False) -> PreviousOutput:
        """Return the output of a step that produces one value."""
        slots = frozenset((slot,))
        return cls(slot, step, names, slots, slots, (Alternative(slots, slots),), (slot,) if is_silent else ())

    @classmethod
    def of_branches(
        cls, slot: int, step: str, keys: tuple[str, ...], branches: Sequence[PreviousOutput]
    ) -> PreviousOutput:
        """Return the output of a fan-out, which consists of the results of its branches."""
        slots = frozenset((slot,))
        parts = slots.union(*(branch.same for branch in branches))
        always = slots.union(branch.slot for branch in branches)
        return cls(slot, step, (PARALLEL_RESULTS, *keys), slots, parts, (Alternative(always, parts),))

    @classmethod
    def of_alternatives(
        cls, slot: int, step: str, alternatives: Sequence[PreviousOutput], ranges: Sequence[range]
    ) -> PreviousOutput:
        """Return the output of a step that executes one of several alternatives.

        Args:
            slot: The slot of the output.
            step: The name of the step, for messages.
            alternatives: The outputs of the alternatives.
            ranges: For each alternative, the slots that belong to it.
        """
        slots = frozenset((slot,))
        speaking = [each for each in alternatives if not each.is_silent]
        return cls(
            slot,
            step,
            tuple(dict.fromkeys(name for each in speaking for name in each.names)),
            slots.union(*(each.same for each in speaking)),
            slots.union(*(each.parts for each in speaking)),
            tuple(
                Alternative(
                    slots | inner.always,
                    slots | inner.parts,
                    (*inner.unset, *(other for other in ranges if each.slot not in other)),
                )
                for each in speaking
                for inner in each.alternatives
            ),
            tuple(slot for each in alternatives for slot in each.silent) if speaking else (slot,),
        )

    def of_flow(self, slot: int, step: str) -> PreviousOutput:
        """Return this output as the output of the named flow that ends with it."""
        slots = frozenset((slot,))
        silent = (slot,) if self.is_silent else self.silent
        return PreviousOutput(slot, step, (step,), slots, slots, (Alternative(slots, slots),), silent)


@dataclass(slots=True)
class BindingContext:
    """The values that can fill the parameters of one node.

    Args:
        flow: The flow's name, for messages.
        outputs: Returns the slots of the earlier outputs of a name, the latest first.
        ambiguous: Names that several branches of a fan-out have for outputs, so that they mean none of them.
        inputs: The slots of the run inputs, by name.
        has_mapping: Whether the run has a mapping of inputs, even an empty one.
        has_value: Whether the run has a single value in place of a mapping.
        has_context: Whether the run has a context.
        providers: The names of the context's providers.
        marked: Returns the slot of the provider that a marker asks for.
        named: Returns the slot of the provider of a name.
        previous: The output of the step before; None in the first node.
        rounds: Slots of the outputs of the round before, one for each ``repeat`` that begins with the node, inner ones
            first.
        is_first: Whether a run starts with the node.
        is_alternative: Whether an alternative of a ``branch_on`` starts with the node.
        is_default: Whether that alternative is given as ``default=``.
        flow_parameters: Returns the names of all parameters of the flow.
        extra: Inputs for ``**kwargs``, by name, which planning completes once all nodes are bound.
        describe: Returns the name of the step that fills a slot, for messages.
        available: Returns all names that could have filled a parameter, for errors.
        is_sketch: Whether a diagram is drawn, so that a parameter that nothing fills is no error.
    """

    flow: str
    outputs: Callable[[str], Sequence[SlotCandidate]]
    ambiguous: Set[str]
    inputs: Mapping[str, int]
    has_mapping: bool
    has_value: bool
    has_context: bool
    providers: frozenset[str]
    marked: Callable[[Marker, str], int]
    named: Callable[[str], int]
    previous: PreviousOutput | None
    rounds: tuple[int, ...]
    is_first: bool
    is_alternative: bool
    is_default: bool
    flow_parameters: Callable[[], frozenset[str]]
    extra: list[tuple[str, int]]
    describe: Callable[[int], str]
    available: Callable[[], Sequence[str]]
    is_sketch: bool = False


_KEYWORD_ONLY: Final = inspect.Parameter.KEYWORD_ONLY
_NOTHING: Final[frozenset[int]] = frozenset()


class NodeSources:
    """The rules about outputs, applied to one node: which parameters take outputs by name, by position, and in rounds.

    Args:
        task: The node.
        context: The values that can fill its parameters.
    """

    def __init__(self, task: Task, context: BindingContext) -> None:
        self.task = task
        self.context = context
        self.positional: list[inspect.Parameter] = []
        self.unmarked: list[inspect.Parameter] = []
        """The positional parameters without a marker."""
        self.named: dict[str, Sequence[SlotCandidate]] = {}
        """For each parameter without a marker, the outputs of its name (rule 2)."""
        outputs, markers = context.outputs, task.markers
        for parameter in task.parameters:
            name = parameter.name
            if name not in markers:
                self.named[name] = up_to_last(outputs(name))
            if parameter.kind is not _KEYWORD_ONLY:
                self.positional.append(parameter)
                if name not in markers:
                    self.unmarked.append(parameter)
        self.recipient, self._blockers = self._find_recipient()
        """The parameter that the previous step's output goes to, unless one takes it under rule 2."""
        previous = context.previous
        self.parts = _NOTHING if previous is None else previous.parts
        """Slots whose use counts as use of the previous step's output."""
        self.takers = [
            (name, candidate)
            for name, candidates in self.named.items()
            if candidates
            for candidate in candidates
            if candidate.slot in self.parts
        ]
        """Parameters that take the previous step's output under rule 2, at least in some runs."""
        self._is_always_taken = bool(self.takers) and previous is not None and self._takes_in_every_run(previous)
        self.output = None if previous is None else self._find_output(previous)
        """The previous step's output for the recipient (rule 3); None if that rule never applies."""
        self._overriders = self._find_overriders()
        """Slots that, if one of them is set, keep the recipient from taking the previous step's output."""
        self.rounds = self._find_rounds() if context.rounds else {}
        """Parameters that take the output of the round before, each with its condition."""
        self.value_parameter = self._first_unprovided() if context.is_first else None
        """The parameter that takes a single value in place of a mapping of inputs."""

    @property
    def mapping_parameter(self) -> inspect.Parameter | None:
        """The parameter that takes the whole input mapping (rule 7), if the mapping allows it."""
        if not self.context.is_first or not self.context.has_mapping:
            return None
        for parameter in self.positional:
            is_provided = parameter.name in self.task.markers or parameter.name in self.context.providers
            if parameter.default is parameter.empty and not is_provided:
                return parameter
        return None

    def uses_output(self, previous: PreviousOutput) -> bool:
        """Return whether a parameter takes the previous step's output in every run, whichever alternative has run."""
        taken_slots = {candidate.slot for _, candidate in self.takers}
        if self.output is None:
            return all(alternative.parts & taken_slots for alternative in previous.alternatives)
        return not self._overriders or all(
            alternative.always & taken_slots or not any(map(alternative.may_set, self._overriders))
            for alternative in previous.alternatives
        )

    def _takes_in_every_run(self, previous: PreviousOutput) -> bool:
        """Return whether a parameter takes the previous step's output under rule 2, whichever alternative has run."""
        if any(candidate.is_certain for _, candidate in self.takers):
            return True
        taken_slots = {candidate.slot for _, candidate in self.takers}
        return all(alternative.always & taken_slots for alternative in previous.alternatives)

    def _find_recipient(self) -> tuple[inspect.Parameter | None, tuple[int, ...]]:
        """Return the recipient, and slots that prevent it from taking the output if one of them is set."""
        blockers: list[int] = []
        has_passed_over = False
        for parameter in self.positional:
            name = parameter.name
            if name in self.task.markers:
                has_passed_over = True
                continue
            named = self.named[name]
            if named and named[-1].is_last:
                return None, ()
            if self._is_users_provider(name):
                blockers.extend(candidate.slot for candidate in named)
                has_passed_over = True
                continue
            if has_passed_over and parameter.default is not parameter.empty:
                return None, ()
            return parameter, tuple(blockers)
        return None, ()

    def _is_users_provider(self, name: str) -> bool:
        return name in self.context.providers and name not in BUILT_IN_PROVIDERS

    def _first_unprovided(self) -> inspect.Parameter | None:
        """Return the first positional parameter that has neither a marker nor the name of a user's provider."""
        return next((each for each in self.unmarked if not self._is_users_provider(each.name)), None)

    def _find_output(self, previous: PreviousOutput) -> SlotCandidate | None:
        if self.recipient is None or self._is_always_taken or previous.is_silent:
            return None
        if not (self.takers or self._blockers or previous.silent):
            return SlotCandidate(previous.slot)
        unset = (*(candidate.slot for _, candidate in self.takers), *self._blockers, *previous.silent)
        return SlotCandidate(previous.slot, False, Condition(unset=unset))

    def _find_overriders(self) -> tuple[int, ...]:
        older = () if self.recipient is None else self.named[self.recipient.name]
        slots = (*(each.slot for each in older), *self._blockers)
        return tuple(slot for slot in slots if slot not in self.parts) if slots else ()

    def _find_rounds(self) -> dict[str, Condition | None]:
        if self.context.is_first:
            first = self._first_unprovided()
            return {} if first is None else {first.name: None}
        same = frozenset() if self.context.previous is None else self.context.previous.same
        whole = [(name, candidate) for name, candidate in self.takers if candidate.slot in same]
        conditions: dict[str, Condition | None] = {
            name: None if candidate.is_certain else Condition(set_=(candidate.slot,)) for name, candidate in whole
        }
        if self.recipient is not None and not self._is_always_taken:
            name = self.recipient.name
            # In runs in which the recipient takes the whole output by its name, it takes the rounds' outputs as well.
            others = (each.slot for taker, each in self.takers if taker != name or each.slot not in same)
            unset = (*others, *self._overriders)
            conditions[name] = Condition(unset=unset) if unset else None
        return conditions
