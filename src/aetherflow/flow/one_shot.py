"""Arguments that can be read only once, such as streams and generators: a second attempt would get the remainder."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator, Mapping
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Final

from aetherflow.engine.streaming import Stream
from aetherflow.errors import StreamError

__all__ = ["error_of_used_stream"]

_ITERATION: Final = frozenset({"aclose", "asend", "athrow", "close", "send", "throw"})
"""Public methods of iterators that are only for iteration."""


def error_of_used_stream(node: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> StreamError | None:
    """Return the error for another attempt if one of its arguments has been read; None if the attempt is safe.

    The results of a fan-out, and other lists, tuples and mappings, are searched one level deep. An iterator with
    public methods beside those of iteration, such as an open file or a cursor, is left to the function.

    Args:
        node: The node that is attempted.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
    """
    for value in (*args, *kwargs.values()):
        if isinstance(value, Mapping):
            parts = tuple(value.values())
        else:
            parts = tuple(value) if isinstance(value, list | tuple) else ()
        for part in (value, *parts):
            if _is_used(part):
                reason = (
                    f"cannot be read again: an attempt of node {node!r} that failed has read from it; read it into a "
                    f"list in a node before {node!r}, or retry the node that reads it and passes on a list"
                )
                if isinstance(part, Stream):
                    return StreamError(part.node, reason)
                return StreamError(node, reason, subject=f"the {type(part).__name__} passed to node")
    return None


def _is_used(value: object) -> bool:
    """Return whether a value can be read only once, and may have been read."""
    if isinstance(value, Stream):
        return not value.is_new
    if isinstance(value, GeneratorType):
        return inspect.getgeneratorstate(value) != inspect.GEN_CREATED
    if isinstance(value, AsyncGeneratorType):
        return value.ag_running or value.ag_frame is None or value.ag_frame.f_lasti >= 0
    return isinstance(value, Iterator | AsyncIterator) and _only_iterates(type(value))


def _only_iterates(kind: type) -> bool:
    if kind.__module__ in ("builtins", "itertools"):
        return True
    return all(name.startswith("_") or name in _ITERATION for name in dir(kind))
