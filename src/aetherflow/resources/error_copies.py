"""Copies of user exceptions without tracebacks, for a cache that raises an exception many times.

A traceback holds the frames of all functions that an exception passed through, and frames hold their local variables.
"""

from __future__ import annotations

from contextlib import suppress
from types import MemberDescriptorType
from typing import Any, Final

from aetherflow.user_exceptions import attributes_of

__all__ = ["copy_of"]

MAX_CHAIN: Final = 100
"""Exceptions copied at most of one chain of causes and contexts."""

_HEAP_TYPE: Final = 1 << 9
"""The flag of classes that Python code has created."""

_ARGUMENTS: Final[Any] = BaseException.__dict__["args"]
_CAUSE: Final[Any] = BaseException.__dict__["__cause__"]
_CONTEXT: Final[Any] = BaseException.__dict__["__context__"]
_SUPPRESS: Final[Any] = BaseException.__dict__["__suppress_context__"]
_REFERRED: Final = (AttributeError.__dict__["obj"],)
"""Members that only serve to suggest other names, and refer to an object of the failed computation."""


def copy_of(error: BaseException) -> BaseException | None:
    """Return a copy of an exception with its attributes, notes, causes and contexts, and without any traceback.

    No code of the exception runs: neither its constructor nor its ``__setattr__`` or ``__reduce__``.

    Returns:
        None if the exception cannot be copied, as some that extension modules define.
    """
    try:
        return _copy(error, {})
    except Exception:  # noqa: BLE001  # the classes of extension modules may refuse in any way
        return None


def _copy(error: BaseException, copies: dict[int, BaseException]) -> BaseException:
    if id(error) in copies:
        return copies[id(error)]
    kind = type(error)
    builtin: Any = kind
    while builtin.__flags__ & _HEAP_TYPE:
        builtin = builtin.__base__
    arguments = tuple(_copied(value, copies) for value in builtin.__reduce__(error)[1])
    copy: BaseException = builtin.__new__(kind, *arguments)
    copies[id(error)] = copy
    builtin.__init__(copy, *arguments)
    _ARGUMENTS.__set__(copy, tuple(_copied(value, copies) for value in _ARGUMENTS.__get__(error)))
    for base in kind.__mro__:
        for member in vars(base).values():
            if type(member) is MemberDescriptorType and member not in _REFERRED:
                _copy_member(member, error, copy, copies)
    attributes = {name: _copied(value, copies) for name, value in attributes_of(error).items()}
    notes = attributes.get("__notes__")
    if type(notes) is list:
        attributes["__notes__"] = list(notes)  # each copy is given notes of its own
    attributes_of(copy).update(attributes)
    for link in (_CAUSE, _CONTEXT):
        other = link.__get__(error)
        if other is not None and len(copies) < MAX_CHAIN:
            link.__set__(copy, _copy(other, copies))
    _SUPPRESS.__set__(copy, _SUPPRESS.__get__(error))
    return copy


def _copy_member(member: Any, error: BaseException, copy: BaseException, copies: dict[int, BaseException]) -> None:
    with suppress(AttributeError, TypeError):  # not set, or read-only and so set by the constructor
        value = member.__get__(error)
        with suppress(AttributeError):  # the copy has no value yet
            if value is member.__get__(copy):  # OSError reads None if it has no value, and prints a None that it has
                return
        member.__set__(copy, _copied(value, copies))


def _copied(value: Any, copies: dict[int, BaseException]) -> Any:
    """Return the copy of an exception, or of a list or tuple of exceptions; anything else as it is."""
    kind = type(value)
    if issubclass(kind, BaseException):
        return _copy(value, copies)
    if kind in (list, tuple) and any(issubclass(type(part), BaseException) for part in value):
        return kind(_copied(part, copies) for part in value)
    return value
