"""Arguments that can be read only once, such as streams and generators: a second attempt would get the remainder."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from itertools import islice
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Final

from aetherflow.engine.streaming import Stream
from aetherflow.errors import StreamError

__all__ = ["error_of_used_stream"]

_CAN_GO_BACK: Final = ("seek", "scroll", "execute")
"""Methods of iterators that can go back to their beginning: files, and cursors of databases."""

_MAX_DEPTH: Final = 4
_MAX_VALUES: Final = 10_000


def error_of_used_stream(node: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> StreamError | None:
    """Return the error for another attempt with arguments of which one may have been read; None if that is safe.

    Built-in containers are searched `_MAX_DEPTH` levels deep. An iterator that can go back to its beginning, such as an
    open file or a cursor, is left to the function.

    Args:
        node: The node that is attempted.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
    """
    for value in islice(_values((args, kwargs), 0), _MAX_VALUES):
        state = _state_of(value)
        if state is not None:
            reason = (
                f"cannot be read again: an attempt of node {node!r} that failed {state} from it; read it into a list "
                f"in a node before {node!r}, or retry the node that reads it and passes on a list"
            )
            if isinstance(value, Stream):
                return StreamError(value.node, reason)
            return StreamError(node, reason, subject=f"the {type(value).__name__} passed to node")
    return None


def _values(value: Any, depth: int) -> Iterator[Any]:
    """Yield a value, or those in it if it is a built-in container."""
    kind = type(value)
    if depth <= _MAX_DEPTH and issubclass(kind, dict):
        parts: Iterable[Any] = list(dict.values(value))
    elif depth <= _MAX_DEPTH and issubclass(kind, list | tuple | set | frozenset | deque):
        parts = list(value)
    else:
        yield value
        return
    for part in parts:
        yield from _values(part, depth + 1)


def _state_of(value: Any) -> str | None:
    """Return what is known of a value that can be read only once; None for anything else, and if it is unread."""
    kind = type(value)
    if kind is Stream:
        return None if value.is_new else "has read"
    if kind is GeneratorType:
        return None if inspect.getgeneratorstate(value) == inspect.GEN_CREATED else "has read"
    if kind is AsyncGeneratorType:
        is_new = not value.ag_running and value.ag_frame is not None and value.ag_frame.f_lasti < 0
        return None if is_new else "has read"
    if issubclass(kind, Iterator | AsyncIterator) and not any(hasattr(kind, name) for name in _CAN_GO_BACK):
        return "may have read"
    return None
