"""Exceptions that refuse changes, or whose methods raise: those of some libraries, and worse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

__all__ = ["STUBBORN"]


@dataclass(frozen=True)
class FrozenError(Exception):
    """A frozen dataclass, as some libraries raise them."""

    code: int = 7


class SlottedError(Exception):
    """Attributes of its own, and none for anybody else."""

    __slots__ = ("code",)

    def __init__(self, code: int = 7) -> None:
        self.code = code


class StrictError(Exception):
    """Every assignment is refused."""

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{name} is read-only")


class FixedNotesError(Exception):
    """The notes are a tuple, so that `add_note` fails."""

    def __init__(self) -> None:
        super().__init__("fixed")
        self.__notes__ = ("a note",)  # type: ignore[assignment]  # that is the point


class OwnAddNoteError(Exception):
    """A method of the same name that has another meaning."""

    def add_note(self, note: str) -> NoReturn:
        raise RuntimeError("add_note")


class NoDictError(Exception):
    """The name ``__dict__`` stands for something else."""

    __dict__ = property(lambda self: 1 / 0)  # type: ignore[assignment]  # that is the point


class NoClassError(Exception):
    """Reading ``__class__`` raises."""

    @property  # type: ignore[override]  # that is the point
    def __class__(self) -> NoReturn:
        raise RuntimeError("__class__")


class NoTruthError(Exception):
    """Neither true nor false."""

    def __bool__(self) -> NoReturn:
        raise RuntimeError("__bool__")


class NoEqualityError(Exception):
    """Equal to nothing, and no hash."""

    def __eq__(self, other: object) -> NoReturn:
        raise RuntimeError("__eq__")

    __hash__ = None  # type: ignore[assignment]  # that is the point


class NoTextError(Exception):
    """Printing it raises."""

    def __str__(self) -> NoReturn:
        raise RuntimeError("__str__")

    __repr__ = __str__


class FalsyError(Exception):
    """An exception with a length, of nothing."""

    def __len__(self) -> int:
        return 0


class NoTracebackError(Exception):
    """A method of the same name that has another meaning."""

    def with_traceback(self, tb: Any) -> NoReturn:
        raise RuntimeError("with_traceback")


STUBBORN: list[Callable[[], Exception]] = [
    FrozenError, SlottedError, StrictError, FixedNotesError, OwnAddNoteError, NoDictError, NoClassError,
    NoTruthError, NoEqualityError, NoTextError, FalsyError, NoTracebackError,
]  # fmt: skip
"""Makers of one exception each."""
