"""What one step of a flow can see of those before it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from aetherflow.flow.binding import Candidate

__all__ = ["Scope"]


@dataclass(slots=True)
class Scope:
    """What a step can see, while a flow is planned from its first step to its last.

    Args:
        names: Earlier outputs by name, the latest first.
        previous: The output before.
        forced: What the first positional parameter of the next node takes before anything by name.
        first: Whether nothing came before.
        outputs: What a run tells of its outputs: the name, the slot, and whether that holds the results of a map.
    """

    names: dict[str, tuple[Candidate, ...]] = field(default_factory=dict)
    previous: tuple[Candidate, ...] = ()
    forced: tuple[Candidate, ...] = ()
    first: bool = True
    outputs: list[tuple[str, int, bool]] = field(default_factory=list)

    def inner(self) -> Scope:
        """Return a scope that sees the same and keeps what is added to itself."""
        return replace(self, names=dict(self.names), outputs=[])

    def may_have(self, name: str, inner: Scope) -> None:
        """Take over what a step that may not run, or not to its end, has under a name."""
        found = tuple(Candidate(candidate.slot, certain=False) for candidate in inner.names.get(name, ()))
        known = self.names.get(name, ())
        self.names[name] = (*found, *(other for other in known if other not in found))

    def took(self, slot: int) -> None:
        """Note that the step just planned left its output in ``slot``."""
        self.previous = (Candidate(slot),)
        self.forced = ()
        self.first = False
