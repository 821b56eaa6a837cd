"""Operations on exceptions that user code raised; none of them fails, whatever the exception does.

Such an exception is not ours to change. It may be a frozen dataclass, refuse every assignment, or have methods such
as ``__bool__``, ``__eq__``, ``__str__`` and ``add_note`` that raise. So it is compared with None by ``is``, its type is
read with ``type()``, and every change of it is an attempt.
"""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Any, Final, TypeVar

__all__ = ["add_note", "attributes_of", "is_error", "is_expected", "message_of", "notes_of", "set_cause", "summary_of"]
__all__ += ["traceback_of", "traceback_text_of", "with_traceback"]

E = TypeVar("E", bound=BaseException)

_EXCEPTIONS: Final[Any] = BaseExceptionGroup.__dict__["exceptions"]
_DICT: Final[Any] = BaseException.__dict__["__dict__"]
_TRACEBACK: Final[Any] = BaseException.__dict__["__traceback__"]


def is_error(error: BaseException, kinds: type[BaseException] | tuple[type[BaseException], ...]) -> bool:
    """Return whether an exception is of a class, as an ``except`` clause decides it.

    ``isinstance`` also reads ``__class__``, which may run code of the exception.
    """
    return issubclass(type(error), kinds)


def is_expected(error: BaseException, expected: tuple[type[BaseException], ...]) -> bool:
    """Return whether an exception is of one of these classes, or a group of which every exception is."""
    if not expected:
        return False
    if is_error(error, expected):
        return True
    if not is_error(error, BaseExceptionGroup):
        return False
    parts: tuple[BaseException, ...] = _EXCEPTIONS.__get__(error)
    return all(is_expected(part, expected) for part in parts)


def attributes_of(error: BaseException) -> dict[str, Any]:
    """Return the exception's own ``__dict__``, even if its class replaces that name; changes to it are kept."""
    return _DICT.__get__(error)  # type: ignore[no-any-return]  # the type of the descriptor is not public


def notes_of(error: BaseException) -> list[str]:
    """Return the notes of an exception that are strings; none if they cannot be read."""
    try:
        return [note for note in getattr(error, "__notes__", ()) if isinstance(note, str)]
    except Exception:  # noqa: BLE001  # reading an attribute runs code of the exception
        return []


def add_note(error: BaseException, note: str, *, is_new: bool = False) -> bool:
    """Add a note to an exception, unless it has the note already.

    Args:
        error: The exception.
        note: The note.
        is_new: Whether the exception is known not to have the note.

    Returns:
        False if the exception refused the note.
    """
    if not is_new and note in notes_of(error):
        return True
    try:
        error.add_note(note)
    except Exception:  # noqa: BLE001  # the exception may refuse any change
        return False
    return True


def set_cause(error: BaseException, cause: BaseException | None) -> bool:
    """Set the cause of an exception.

    Returns:
        False if the exception refused it.
    """
    try:
        error.__cause__ = cause
    except Exception:  # noqa: BLE001  # the exception may refuse any change
        return False
    return True


def message_of(error: BaseException) -> str | None:
    """Return the message of an exception; None if it cannot be printed."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001  # printing runs code of the exception
        return None


def summary_of(error: BaseException) -> str:
    """Return the class name of an exception and its message, if it has one that can be printed."""
    name, message = type(error).__name__, message_of(error)
    return f"{name}: {message}" if message else name


def traceback_text_of(error: BaseException) -> str:
    """Return the traceback of an exception as text; without its message and causes if these cannot be printed."""
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001  # printing runs code of the exception
        kind = type(error)
        lines = traceback.format_tb(_TRACEBACK.__get__(error))
        return "".join(("Traceback (most recent call last):\n", *lines, f"{kind.__module__}.{kind.__qualname__}\n"))


def traceback_of(error: BaseException) -> TracebackType | None:
    """Return the traceback of an exception, even if its class replaces that name."""
    return _TRACEBACK.__get__(error)  # type: ignore[no-any-return]  # the type of the descriptor is not public


def with_traceback(error: E, tb: TracebackType | None) -> E:
    """Set the traceback of an exception, which runs no code of it, and return the exception."""
    return BaseException.with_traceback(error, tb)
