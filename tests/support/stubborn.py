"""Exceptions and results that refuse operations or break them; each is legal Python that libraries contain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["ERRORS", "HostileResult"]


@dataclass(frozen=True)
class FrozenError(Exception):
    """Refuses every assignment with an exception of its own."""

    code: int = 7


@dataclass(frozen=True, slots=True)
class FrozenWithSlotsError(Exception):
    """Refuses every assignment, and its field is in a slot."""

    code: int = 7


class StrictError(Exception):
    """Has a ``__setattr__`` that raises."""

    def __setattr__(self, name: str, value: object) -> None:
        raise TypeError(f"no {name}")


class SlottedError(Exception):
    """Has attributes of its own in slots."""

    __slots__ = ("code",)


class BrokenDictError(Exception):
    """Has another meaning for the name ``__dict__``."""

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no dict")


class TupleOfNotesError(Exception):
    """Has notes that no note can be added to."""

    __notes__ = ("a note",)


class NoNotesError(Exception):
    """Raises when a note is added."""

    def add_note(self, note: str, /) -> None:
        raise RuntimeError(note)


class FalsyError(Exception):
    """Is false, as an exception with no items in it."""

    def __len__(self) -> int:
        return 0


class BrokenTruthError(Exception):
    """Raises when it is asked for its truth value."""

    def __bool__(self) -> bool:
        raise RuntimeError("no truth value")


class BrokenEqualityError(Exception):
    """Raises when it is compared, and has no hash."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    __hash__ = None  # type: ignore[assignment]


class BrokenClassError(Exception):
    """Raises when it is asked for its class."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class")


class BrokenTracebackError(Exception):
    """Raises when it is given a traceback."""

    def with_traceback(self, tb: object, /) -> Any:
        raise RuntimeError("no traceback")


class BrokenTextError(Exception):
    """Raises when it is printed."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


ERRORS: tuple[type[Exception], ...] = (
    FrozenError,
    FrozenWithSlotsError,
    StrictError,
    SlottedError,
    BrokenDictError,
    TupleOfNotesError,
    NoNotesError,
    FalsyError,
    BrokenTruthError,
    BrokenEqualityError,
    BrokenClassError,
    BrokenTracebackError,
    BrokenTextError,
)
"""Classes of exceptions, each with something that it refuses; all can be created without arguments."""


class HostileResult:
    """A result that raises when it is asked for its class, its truth value or its equality, as a lazy proxy may."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class")

    def __bool__(self) -> bool:
        raise RuntimeError("no truth value")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    __hash__ = None  # type: ignore[assignment]
