"""Providers that return awaitables: their recognition, and the awaiting of the object that is injected.

dependency-injector creates an asyncio future in many providers that depend on an async one, bound to the event loop
that runs at that moment. Only singletons have to go that way, because they store the future themselves; all other
common kinds are evaluated here, argument by argument, so that a cancellation reaches the function that is awaited.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from traceback import walk_tb
from typing import Any, Final, Literal, NoReturn, TypeAlias, cast

from dependency_injector import providers

from aetherflow.errors import ConfigurationError
from aetherflow.resources.scopes import AnyProvider, effective_provider, scope_of

__all__ = [
    "Awaiting",
    "LostLoopError",
    "awaiting_of",
    "call_provider",
    "call_sync",
    "check_threads",
    "is_async",
    "prepare_context_locals",
    "prepare_singletons",
    "refuse_awaitable",
    "reset_singleton",
    "result_of",
    "value_of",
]

Awaiting: TypeAlias = Literal["never", "unknown", "async"]
"""The need to await the object of a provider: never, known only after calling the provider, or always."""

_MAKERS: Final = (providers.BaseResource, providers.BaseSingleton, providers.Factory, providers.Callable)
_CONSTANTS: Final = (
    providers.Object,
    providers.ConfigurationOption,
    providers.TypedConfigurationOption,
    providers.Container,
    providers.Self,
    providers.Delegate,
    providers.Resource,
)
_CALLS: Final = frozenset(
    {
        providers.Factory,
        providers.DelegatedFactory,
        providers.Callable,
        providers.DelegatedCallable,
        providers.Coroutine,
        providers.DelegatedCoroutine,
    }
)
"""The exact kinds that are evaluated here: a subclass may provide its objects in another way."""
_DERIVED: Final = (
    providers.ProvidedInstance,
    providers.AttributeGetter,
    providers.ItemGetter,
    providers.MethodCaller,
)


# --- recognition -----------------------------------------------------------------------------------------------


def is_async(provider: AnyProvider) -> bool:
    """Return whether calling a provider returns an awaitable, as far as its own declaration shows."""
    if isinstance(provider, providers.Coroutine):
        return True
    if type(provider) is providers.Object:
        return _is_awaitable(provider.provides)
    if not isinstance(provider, _MAKERS) or not callable(provider.provides):
        return False
    if isinstance(provider, providers.BaseResource):
        function = inspect.unwrap(provider.provides)
        if isinstance(function, type):
            return hasattr(function, "__aenter__") and not hasattr(function, "__enter__")
        return _is_coroutine_function(function) or inspect.isasyncgenfunction(function)
    # A synchronous wrapper around an async function is not unwrapped: it may run that function itself.
    return not isinstance(provider.provides, type) and _is_coroutine_function(provider.provides)


def _is_coroutine_function(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _is_awaitable(value: object) -> bool:
    """Return whether a value is a coroutine or a future; an object of a user's awaitable class is neither."""
    return isinstance(value, Coroutine) or asyncio.isfuture(value)


def awaiting_of(provider: AnyProvider) -> Awaiting:
    """Return whether the object of a provider has to be awaited.

    Resources count as objects, since a run opens them before it starts.

    Args:
        provider: Any provider, overridden or not.
    """
    awaiting: Awaiting = "never"
    for each in _called_by(provider):
        if isinstance(each, providers.Resource):
            continue
        if is_async(each):
            return "async"
        is_class = isinstance(each, _MAKERS) and isinstance(each.provides, type)
        if not isinstance(each, _CONSTANTS) and not (is_class and next(_next_calls(each), None) is None):
            awaiting = "unknown"
    return awaiting


def _called_by(provider: AnyProvider) -> Iterator[AnyProvider]:
    """Yield the effective providers that calling one may call, itself first."""
    visited: set[AnyProvider] = set()
    waiting = [provider]
    while waiting:
        current = effective_provider(waiting.pop())
        if current not in visited:
            visited.add(current)
            yield current
            waiting.extend(_next_calls(current))


def _next_calls(provider: AnyProvider, *, within_resource: bool = False) -> Iterator[AnyProvider]:
    """Yield the providers that a call of an effective provider may call directly, by default none for a resource."""
    if isinstance(provider, (providers.Delegate, providers.Container)):
        return  # the object is injected as it is
    if isinstance(provider, providers.BaseResource) and not within_resource:
        return  # opened before
    for related in provider.related:
        if not providers.is_delegated(related):
            yield related


# --- refusal ---------------------------------------------------------------------------------------------------


def check_threads(provider: AnyProvider, node: str, parameter: str) -> None:
    """Raise an error if a synchronous node would get an object that belongs to the thread of an event loop.

    Args:
        provider: A provider whose object is awaited.
        node: The node that the object is injected into.
        parameter: The parameter of the node.

    Raises:
        ConfigurationError: A thread-local singleton has to be awaited for the object.
    """
    for each in _called_by(provider):
        if scope_of(each) == "thread_local" and awaiting_of(each) == "async":
            raise ConfigurationError(
                f"node {node!r}, parameter {parameter!r}: the object of {each} belongs to the thread of the event loop "
                f"that awaits it, and a synchronous node runs on another thread; allowed: an async node, or a "
                f"Singleton, ContextLocalSingleton or Factory"
            )


def call_sync(provider: AnyProvider, node: str, parameter: str) -> Any:
    """Call a provider that is not known to be async and return its object.

    Args:
        provider: The provider.
        node: The node that the object is injected into.
        parameter: The parameter of the node.

    Raises:
        ConfigurationError: The provider returned an awaitable.
    """
    try:
        value = provider()
    except RuntimeError as error:
        if asyncio._get_running_loop() is None and _is_raised_for_future(error):
            refuse_awaitable(None, provider, node, parameter, error)
        raise
    if hasattr(type(value), "__await__") and _is_awaitable(value):
        refuse_awaitable(value, provider, node, parameter)
    return value


def _is_raised_for_future(error: RuntimeError) -> bool:
    """Return whether asyncio refused to create a future for dependency-injector, not for a function of the user."""
    if "There is no current event loop" not in str(error):
        return False
    files = [Path(frame.f_code.co_filename) for frame, _ in walk_tb(error.__traceback__)][1:]
    return all("dependency_injector" in file.parts or "asyncio" in file.parts for file in files)


def refuse_awaitable(
    value: object, provider: AnyProvider, node: str, parameter: str, cause: BaseException | None = None
) -> NoReturn:
    """Raise the error about a provider that returned an awaitable although nothing in its declaration is async.

    Raises:
        ConfigurationError: Always.
    """
    if isinstance(value, Coroutine):
        value.close()
    elif asyncio.isfuture(value) and not value.get_loop().is_closed():
        value.cancel()
    result = "a future" if value is None else f"a {type(value).__name__}"
    raise ConfigurationError(
        f"node {node!r}, parameter {parameter!r}: {provider} returned {result}, but its declaration does not show that "
        f"it is async; declare it with an `async def` function or providers.Coroutine"
    ) from cause


# --- awaiting --------------------------------------------------------------------------------------------------


async def value_of(provider: AnyProvider) -> Any:
    """Return the object of a provider, awaited if it has to be; run this on the event loop that may use the object.

    A singleton of an async function has one object on all event loops.

    Args:
        provider: Any provider, overridden or not.

    Raises:
        Exception: The exception of a function of the providers.
    """
    current = effective_provider(provider)
    if awaiting_of(current) == "never":
        return current()
    if isinstance(current, providers.BaseSingleton):
        return await _singleton_object(current)
    if type(current) in _CALLS:
        return await _call(cast("providers.Factory[Any]", current))
    if isinstance(current, _DERIVED):
        return await _derived_value(current)
    if isinstance(current, providers.List):
        return [await _argument(item) for item in current.args]
    if isinstance(current, providers.Dict):
        return {key: await _argument(item) for key, item in current.kwargs.items()}
    if isinstance(current, providers.Selector) and (chosen := _chosen(current)) is not None:
        return await value_of(chosen)
    return await result_of(call_provider(current))


async def _derived_value(provider: Any) -> Any:
    """Return the part that a ``provided`` provider takes from the object of another provider."""
    value = await value_of(provider.provides)
    if isinstance(provider, providers.AttributeGetter):
        return getattr(value, str(provider.name))
    if isinstance(provider, providers.ItemGetter):
        return value[await _argument(provider.name)]
    if isinstance(provider, providers.MethodCaller):
        return await result_of(value(*await _arguments(provider), **await _named_arguments(provider)))
    return value


async def _argument(value: Any) -> Any:
    if isinstance(value, providers.Provider) and not providers.is_delegated(value):
        return await value_of(value)
    return value


async def _arguments(provider: Any) -> list[Any]:
    return [await _argument(value) for value in provider.args]


async def _named_arguments(provider: Any) -> dict[str, Any]:
    return {name: await _argument(value) for name, value in provider.kwargs.items()}


async def _call(provider: providers.Factory[Any]) -> Any:
    """Call a factory, a callable or a coroutine provider, and await the result."""
    function = cast("Callable[..., Any]", provider.provides)
    value = await result_of(function(*await _arguments(provider), **await _named_arguments(provider)))
    for name, attribute in getattr(provider, "attributes", {}).items():
        setattr(value, name, await _argument(attribute))
    return value


def _chosen(selector: providers.Selector) -> AnyProvider | None:
    """Return the provider that a selector calls; None if it would raise an error."""
    key = None if selector.selector is None else selector.selector()
    return selector.providers.get(cast("str", key))


# --- singletons ------------------------------------------------------------------------------------------------

_creation = threading.RLock()
"""Held while a singleton is called, never while its object is awaited."""


def _renew_lock() -> None:  # no thread of a forked child holds it
    global _creation  # noqa: PLW0603  # the module is its one holder
    _creation = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


class LostLoopError(Exception):
    """The event loop of a future ended before the future had a result."""


async def prepare_singletons(provider: AnyProvider) -> None:
    """Create the objects of all singletons with awaited objects that calling a provider calls, dependencies first.

    Call the provider afterwards: it never gets a future that belongs to another event loop.

    Args:
        provider: Any provider, overridden or not.
    """
    current = effective_provider(provider)
    if isinstance(current, providers.Selector) and (chosen := _chosen(current)) is not None:
        await prepare_singletons(chosen)
    elif isinstance(current, providers.BaseSingleton):
        if awaiting_of(current) != "never":
            await _singleton_object(current)
    else:
        for each in _next_calls(current, within_resource=True):
            if awaiting_of(each) != "never":
                await prepare_singletons(each)


async def prepare_context_locals(provider: AnyProvider) -> None:
    """Create the objects of the context-local singletons that calling a provider may call, in the current context.

    Args:
        provider: Any provider, overridden or not.
    """
    for each in _called_by(provider):
        if isinstance(each, providers.ContextLocalSingleton):
            await value_of(each)


async def _singleton_object(singleton: Any) -> Any:
    """Return the one object of a singleton, whichever event loop creates it."""
    for dependency in _next_calls(singleton):
        await prepare_singletons(dependency)
    while True:
        with _creation:
            value = call_provider(singleton)
            if asyncio.isfuture(value) and _is_lost(value):
                reset_singleton(singleton)
                value = call_provider(singleton)
        try:
            return await result_of(value)
        except LostLoopError:
            continue


def _is_lost(future: asyncio.Future[Any]) -> bool:
    """Return whether a stored future will never have a result."""
    return future.cancelled() or not (future.done() or future.get_loop().is_running())


def reset_singleton(singleton: Any) -> None:
    """Make a singleton forget its object, also if that is a future of a closed event loop."""
    try:
        singleton.reset()
    except RuntimeError:  # the closed loop refused the callbacks of the future, which is cancelled now
        singleton.reset()


def call_provider(provider: AnyProvider) -> Any:
    """Call an effective provider on an event loop, whatever earlier calls with other overrides left behind.

    dependency-injector notes at the first call of a provider whether it is async. An override, also of a provider that
    it depends on, may change that.
    """
    chain = list(_declared_calls(provider))
    for each in chain:
        if each.is_async_mode_disabled():
            each.reset_async_mode()
    try:
        return provider()
    finally:
        if any(each.last_overriding is not None for each in chain):
            for each in chain:
                if not is_async(each):
                    each.reset_async_mode()


def _declared_calls(provider: AnyProvider) -> Iterator[AnyProvider]:
    """Yield the providers that calling one calls, overridden and overriding ones, but no other resources."""
    visited: set[AnyProvider] = set()
    waiting = [provider]
    while waiting:
        current = waiting.pop()
        if current in visited or (isinstance(current, providers.BaseResource) and current is not provider):
            continue
        visited.add(current)
        yield current
        following: Iterable[AnyProvider] = _next_calls(current, within_resource=True)
        waiting.extend(following if current.last_overriding is None else (current.last_overriding,))


async def result_of(value: Any) -> Any:
    """Return a value, awaited if it is a coroutine or a future of any event loop."""
    if not asyncio.isfuture(value):
        return await value if isinstance(value, Coroutine) else value
    if value.done() and not value.cancelled():
        return value.result()
    loop, here = value.get_loop(), asyncio.get_running_loop()
    if loop is here:
        # Others may wait for the same object: the cancellation of one of them must not take it away.
        return await asyncio.shield(value)

    async def wait() -> Any:
        return await asyncio.shield(value)

    waiting = wait()
    try:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(waiting, loop))
    except RuntimeError as error:
        waiting.close()
        if not loop.is_closed():
            raise
        raise LostLoopError from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise LostLoopError from error
