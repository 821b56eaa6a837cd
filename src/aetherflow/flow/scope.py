"""The outputs that a step of a flow can use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from aetherflow.flow.arguments import SlotCandidate
from aetherflow.flow.sources import PreviousOutput

__all__ = ["Scope"]


@dataclass(slots=True)
class Scope:
    """The outputs that a step can use, while a flow is planned from its first step to its last.

    Args:
        names: Earlier outputs by name, the latest first.
        ambiguous: Names that several branches of a fan-out have for outputs.
        previous: The output of the step before; None at the beginning.
        rounds: Slots of the outputs of the round before, for each ``repeat`` that begins with the next node.
        is_first: Whether no step came before.
        is_alternative: Whether an alternative of a ``branch_on`` starts with the next node.
        is_default: Whether that alternative is given as ``default=``.
        outputs: The outputs of a `FlowRun`: the name, the slot, and whether the slot holds the results of a map.
    """

    names: dict[str, tuple[SlotCandidate, ...]] = field(default_factory=dict)
    ambiguous: set[str] = field(default_factory=set)
    previous: PreviousOutput | None = None
    rounds: tuple[int, ...] = ()
    is_first: bool = True
    is_alternative: bool = False
    is_default: bool = False
    outputs: list[tuple[str, int, bool]] = field(default_factory=list)

    def inner(self) -> Scope:
        """Return a scope that begins with the same outputs and keeps those that are added to itself."""
        return replace(self, names=dict(self.names), ambiguous=set(self.ambiguous), outputs=[])

    def define(self, name: str, slot: int) -> None:
        """Make a name mean the output in a slot."""
        self.names[name] = (SlotCandidate(slot),)
        self.ambiguous.discard(name)

    def may_have(self, name: str, inner: Scope) -> None:
        """Add the outputs of a name from a step that may not run, or not to its end."""
        known = self.names.get(name, ())
        slots = {candidate.slot for candidate in known}
        added = (SlotCandidate(each.slot, False) for each in inner.names.get(name, ()) if each.slot not in slots)
        self.names[name] = (*added, *known)

    def may_have_any(self, names: Iterable[str], alternatives: Sequence[Scope]) -> None:
        """Add the outputs of names from steps of which exactly one runs, to its end.

        If each of them has an output of a name, one of these is there, and older outputs of that name never count.
        """
        self.ambiguous.update(*(inner.ambiguous for inner in alternatives))
        for name in dict.fromkeys(names):
            known = self.names.get(name, ())
            for inner in alternatives:
                self.may_have(name, inner)
            if all(_has_new(inner.names.get(name, ()), known) for inner in alternatives):
                new = self.names[name][: len(self.names[name]) - len(known)]
                self.names[name] = (*new[:-1], new[-1]._replace(completes=True))
                if not any(name in inner.ambiguous for inner in alternatives):
                    self.ambiguous.discard(name)

    def follow(self, output: PreviousOutput) -> None:
        """Make an output that of the step before."""
        self.previous = output
        self.rounds = ()
        self.is_first = self.is_alternative = self.is_default = False


def _has_new(candidates: Sequence[SlotCandidate], known: Sequence[SlotCandidate]) -> bool:
    """Return whether one of the candidates is always set, and none of the known ones comes before it."""
    slots = {candidate.slot for candidate in known}
    for candidate in candidates:
        if candidate.slot in slots:
            return False
        if candidate.is_last:
            return True
    return False
