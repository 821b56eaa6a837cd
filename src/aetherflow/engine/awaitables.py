"""Awaitable results of functions that are not coroutine functions, such as a plain decorator around an ``async def``.

Only after a call is it known whether the result is an awaitable, so every result is examined. Usually this costs one
look-up of its type in `PLAIN_TYPES`, which is written out in each caller.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import wraps
from types import GeneratorType
from typing import Any, Final, cast

from aetherflow.engine.loops import run_coroutine

__all__ = ["PLAIN_TYPES", "awaited", "finished", "finishing", "is_awaitable", "is_coroutine_function"]
__all__ += ["mark_coroutine_function", "resolved", "resolving", "resolving_items"]

PLAIN_TYPES: Final[set[type]] = {bool, bytes, dict, float, int, list, set, str, tuple, type(None)}
"""Types of earlier results that are not awaitable, at most `MAX_PLAIN_TYPES`."""

MAX_PLAIN_TYPES: Final = 1024

_GENERATOR_COROUTINE: Final = inspect.CO_ITERABLE_COROUTINE
_PENDING: Final = (Coroutine, asyncio.Future)


def is_awaitable(value: object) -> bool:
    """Return whether ``await`` accepts a value. No code of its class runs."""
    kind = type(value)
    with suppress(Exception):  # the hash of a class runs code of its metaclass
        if kind in PLAIN_TYPES:
            return False
    for base in type.__dict__["__mro__"].__get__(kind):
        names = type.__dict__["__dict__"].__get__(base)
        if "__await__" in names:
            return names["__await__"] is not None
    if kind is GeneratorType:  # of `types.coroutine`
        return bool(cast("GeneratorType[Any, Any, Any]", value).gi_code.co_flags & _GENERATOR_COROUTINE)
    if len(PLAIN_TYPES) < MAX_PLAIN_TYPES:
        with suppress(Exception):  # as above
            PLAIN_TYPES.add(kind)
    return False


async def awaited(value: Any) -> Any:
    """Return a result, awaited if it is awaitable."""
    return await finished(await value) if is_awaitable(value) else value


async def finished(value: Any) -> Any:
    """Return what a coroutine function returned, awaited as long as that is a coroutine or a future.

    Anything else that can be awaited, such as a pool of connections, is a result: awaiting it may do something else.
    """
    while issubclass(type(value), _PENDING):
        value = await value
    return value


def resolved(value: Any) -> Any:
    """Return a result, awaited on a background loop if it is awaitable."""
    return run_coroutine(awaited, value) if is_awaitable(value) else value


def resolving(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a synchronous function that awaits awaitable results of a function on a background loop.

    Caches, attempts and time limits are about the result itself, so it has to be there when the function returns.
    """

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        value = function(*args, **kwargs)
        try:
            is_plain = type(value) in PLAIN_TYPES
        except Exception:  # noqa: BLE001  # the hash of a class runs code of its metaclass
            is_plain = False
        return value if is_plain else resolved(value)

    return call


def finishing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a coroutine function that also awaits a coroutine or a future that a coroutine function returns.

    A cache, an attempt or a time limit has to include that, as with :func:`resolving`.
    """

    @wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        return await finished(await function(*args, **kwargs))

    return call


def resolving_items(function: Callable[..., Any], *, is_async: bool) -> Callable[..., Any]:
    """Return a function that awaits awaitable results in the list that a batched function returns.

    Args:
        function: The batched function.
        is_async: Whether it is a coroutine function.
    """

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        results = function(*args, **kwargs)
        return run_coroutine(_items_awaited, results) if _has_awaitables(results) else results

    @wraps(function)
    async def acall(*args: Any, **kwargs: Any) -> Any:
        results = await function(*args, **kwargs)
        return await _items_awaited(results) if _has_awaitables(results) else results

    return acall if is_async else call


def _has_awaitables(results: Any) -> bool:
    if type(results) not in (list, tuple):
        return False
    with suppress(Exception):  # the hash of a class runs code of its metaclass
        if PLAIN_TYPES.issuperset(map(type, results)):
            return False
    return any(map(is_awaitable, results))


async def _items_awaited(results: list[Any]) -> list[Any]:
    """Await the results one after the other; an exception stands in the place of its result."""
    items: list[Any] = []
    for result in results:
        try:
            items.append(await awaited(result))
        except Exception as error:  # noqa: BLE001  # that of one item: the others go on
            items.append(error)
    return items


def is_coroutine_function(function: object) -> bool:
    """Return whether a callable is, or is marked as, a function whose calls return coroutines."""
    if sys.version_info >= (3, 14):  # the function of asyncio is deprecated there
        return inspect.iscoroutinefunction(function)
    return asyncio.iscoroutinefunction(function)


def mark_coroutine_function(function: Any) -> None:
    """Mark an object as a coroutine function, for `asyncio` and, from Python 3.12 on, for `inspect`."""
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
    else:
        function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # no public way on 3.11
