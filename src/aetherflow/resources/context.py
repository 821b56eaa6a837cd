"""`BaseFlowContext`, the container nodes are injected from, and what a planner needs to read any container.

A context class is declarative; calling it gives a container of its own providers (a `FlowContextInstance`), so two
instances share nothing but what their factories share. What holds for the class is decided once for the class:
`context_class` is the key to remember it by.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from typing import Any, Self, TypeAlias, cast

from dependency_injector import containers, providers

from aetherflow.errors import ConfigurationError
from aetherflow.resources.async_providers import is_async
from aetherflow.resources.async_resources import AnyResource, AsyncResources, RunLoop, in_opening_order
from aetherflow.resources.scopes import AnyProvider, effective_provider, reachable

__all__ = [
    "AnyContext",
    "BaseFlowContext",
    "ContextClass",
    "FlowContextInstance",
    "context_class",
    "init_resources_for",
    "provider_at",
    "provider_names",
    "resources_of",
]

AnyContext: TypeAlias = containers.Container | type[containers.DeclarativeContainer]
"""What may be passed as a context: an instance, or a declarative class itself."""

ContextClass: TypeAlias = type[containers.DeclarativeContainer] | containers.DynamicContainer
"""What a plan is remembered by: the declarative class, or a dynamic container that has no class of its own."""


class _Closing:
    """``with`` and ``async with`` for a container; declared on the class too, where type checkers look for it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        raise NotImplementedError


class FlowContextInstance(_Closing, containers.DynamicContainer):
    """What calling a `BaseFlowContext` class gives: its own copy of every provider.

    ``with`` and ``async with`` shut its resources down, dependents first; nothing is opened by entering, since a
    resource is initialised when a run first needs it. Every resource is shut down even where one fails; then the one
    failure, or an `ExceptionGroup` of several, is raised.

    An async resource belongs to the event loop that opens it, which is the first one that needs it, and is shut down
    there. Once it is open, its provider returns the object, so that sync nodes and other providers can take it in
    any thread. A run on another event loop raises `ResourceError`. If the event loop of a resource was closed, the next
    run opens a new one, and singletons that hold the old one are created again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._opening = threading.RLock()
        self._async = AsyncResources(self._opening, lambda kind: self.traverse([kind]), self._name_of)

    def __exit__(self, *exc_info: object) -> None:
        loops = self._async.loops()
        if _running_loop() in loops:
            raise ConfigurationError(
                "a context with async resources cannot be closed by `with` on their own event loop; use `async with`"
            )
        closing = self.shutdown_resources()
        if closing is None:
            return
        running = next((loop for loop in loops if loop.is_running()), None)
        if running is not None:
            asyncio.run_coroutine_threadsafe(closing, running).result()
        else:
            asyncio.run(closing)

    async def __aexit__(self, *exc_info: object) -> None:
        closing = self.shutdown_resources()
        if closing is not None:
            await closing

    def init_resources(self, resource_type: type[AnyResource] = providers.BaseResource) -> Awaitable[None] | None:
        """Initialise all resources, async ones on the running event loop.

        Args:
            resource_type: Only resources of this kind.

        Returns:
            None if no resource is async; otherwise an awaitable.

        Raises:
            ResourceError: An async resource belongs to another event loop, which is not closed.
            Exception: What a resource raised.
        """
        with self._opening:
            for resource in self.traverse([resource_type]):
                self._async.check(resource, _running_loop, is_shared=False)
            initialising = super().init_resources(resource_type)
            if initialising is not None:
                for resource in self.traverse([resource_type]):
                    if resource.initialized and resource.is_async_mode_enabled():
                        self._async.register(resource, asyncio.get_running_loop())
        return initialising

    def shutdown_resources(
        self, resource_type: type[AnyResource] = providers.BaseResource
    ) -> Coroutine[Any, Any, None] | None:
        """Shut every initialised resource down, dependents before what they depend on.

        Args:
            resource_type: Only resources of this kind.

        Returns:
            None where all is done; something to await where a resource is async.

        Raises:
            Exception: What the shutdown of a resource raised, after all others were shut down.
        """
        open_resources = [resource for resource in self.traverse([resource_type]) if resource.initialized]
        closing = self._async.shut_down(reversed(in_opening_order(open_resources)))
        if any(self._async.loop_of(each) is not None or each.is_async_mode_enabled() for each in open_resources):
            return closing
        with contextlib.suppress(StopIteration):
            closing.send(None)
        return None

    def _name_of(self, provider: AnyProvider) -> str:
        """Return the name of a provider or of the one that it overrides; its text if it is in a nested container."""
        named = ((name, each) for name, each in self.providers.items() if effective_provider(each) is provider)
        return next((name for name, _ in named), str(provider))

    def _open(
        self, needs: Sequence[AnyProvider], shared: Sequence[AnyProvider], loop: RunLoop
    ) -> Coroutine[Any, Any, None] | None:
        """Initialise sync resources; return a coroutine that opens the async ones, if any is not open."""
        of_loop, of_threads = resources_of(self, needs), resources_of(self, shared)
        only_shared = tuple(resource for resource in of_threads if resource not in of_loop)
        waiting = []
        with self._opening:
            for resource in (*of_loop, *only_shared):
                is_shared = resource in only_shared
                self._async.check(resource, loop, is_shared=is_shared)
                if self._async.is_open(resource) and (is_shared or loop() is not None):
                    continue
                is_owned = self._async.loop_of(resource) is not None
                if not is_owned and resource.initialized and not resource.is_async_mode_enabled():
                    continue
                if is_owned or any(map(is_async, reachable(resource))) or inspect.isawaitable(resource.init()):
                    if is_shared:
                        self._async.check_blocked(resource)
                    waiting.append(resource)
            self._async.check_singletons((*needs, *shared), loop)
        return self._async.open(waiting, only_shared) if waiting else None


class BaseFlowContext(_Closing, containers.DeclarativeContainer):
    """Declare what nodes are injected with: subclass it and add any dependency-injector providers.

    Calling the class gives a `FlowContextInstance`, with ``with`` and ``async with``; that is not an instance of the
    class itself. Override providers in tests with ``with ctx.service.override(fake):``.
    """

    instance_type = FlowContextInstance

    state: providers.Provider[dict[str, Any]] = providers.ThreadLocalSingleton(dict)
    """A dict for each thread: scratch space that needs no lock and that no other thread sees."""

    context: providers.Provider[dict[str, Any]] = providers.ContextLocalSingleton(dict)
    """A dict for each `contextvars` context: what belongs to one request or run, in threads and async tasks alike.

    Branches of a fan-out see the dict of their parent, since it is resolved before they start.
    """

    shared_data: providers.Provider[dict[str, Any]] = providers.ThreadSafeSingleton(dict)
    """One dict for the instance, seen by all threads and runs: single reads and writes are safe, read-then-write
    needs a lock."""


def context_class(context: object) -> ContextClass:
    """What a plan for ``context`` may be remembered by, since all that is decided once holds for it.

    Args:
        context: An instance, or a declarative container class.

    Returns:
        The declarative class of an instance; the class itself for a class; the container itself where it has no
        class of its own or was given providers that its class has not. Hold containers weakly.

    Raises:
        ConfigurationError: ``context`` is not a container.
    """
    if isinstance(context, containers.DynamicContainer):
        declared = cast("type[containers.DeclarativeContainer] | None", context.declarative_parent)
        return declared if declared is not None and _own(declared) == _own(context) else context
    if isinstance(context, type) and issubclass(context, containers.DeclarativeContainer):
        return context
    raise ConfigurationError(
        f"context={context!r} is a {type(context).__name__}; allowed: an instance of a BaseFlowContext subclass, "
        "any other dependency-injector container, or None"
    )


_SELF = "__self__"
"""What ``wire()`` leaves among the providers."""


def _own(context: AnyContext) -> int:
    return len(context.providers) - (_SELF in context.providers)


def provider_names(context: AnyContext) -> frozenset[str]:
    """Names that parameters can be filled from.

    Args:
        context: A container instance or class.

    Returns:
        The names of its providers, inherited ones among them; of nested containers only their own name.
    """
    return frozenset(context.providers) - {_SELF}


def provider_at(context: AnyContext, name: str) -> AnyProvider:
    """The provider called ``name``.

    Args:
        context: A container instance or class.
        name: One of `provider_names`.

    Returns:
        The provider as declared: an override is followed when it is called.

    Raises:
        ConfigurationError: There is none.
    """
    try:
        return context.providers[name]
    except KeyError:
        available = ", ".join(sorted(provider_names(context))) or "nothing"
        raise ConfigurationError(f"no provider {name!r} in the context; available: {available}") from None


def resources_of(context: AnyContext, needs: Iterable[str | AnyProvider]) -> tuple[AnyResource, ...]:
    """The resources that giving ``needs`` may initialise, overrides followed.

    Args:
        context: A container instance or class.
        needs: Names of its providers, or providers themselves.

    Returns:
        Each resource provider once; empty for most contexts, so that a plan can leave `init_resources_for` out.
    """
    reachable_providers = (provider for need in _providers(context, needs) for provider in reachable(need))
    return tuple(
        dict.fromkeys(provider for provider in reachable_providers if isinstance(provider, providers.BaseResource))
    )


_opening_elsewhere = threading.RLock()


def init_resources_for(
    context: AnyContext,
    needs: Iterable[str | AnyProvider],
    shared: Iterable[str | AnyProvider] = (),
    loop: RunLoop | None = None,
) -> Coroutine[Any, Any, None] | None:
    """Initialise the resources a run needs that are not initialised yet, each once, whatever the threads.

    Args:
        context: A container instance or class.
        needs: Names of its providers, or providers themselves.
        shared: More of them, which only synchronous code of a synchronous run takes: the async resources behind them
            may be open on any event loop.
        loop: Returns the event loop of the run; by default the running one, or else that on which the result is
            awaited.

    Returns:
        None where all is done; a coroutine, to be awaited on the event loop of the run before it starts, where a
        resource is async: an async (generator) function, an async context manager, or one that depends on such.

    Raises:
        ConfigurationError: A resource is async and the context does not derive from `BaseFlowContext`.
        ResourceError: An async resource belongs to another event loop.
        Exception: What a resource raised.
    """
    of_loop, of_threads = _providers(context, needs), _providers(context, shared)
    if isinstance(context, FlowContextInstance):
        return context._open(of_loop, of_threads, loop or _running_loop)
    for resource in resources_of(context, (*of_loop, *of_threads)):
        if any(map(is_async, reachable(resource))):
            raise ConfigurationError(f"{resource} is async; allowed in instances of BaseFlowContext subclasses only")
        with _opening_elsewhere:
            resource.init()
    return None


def _providers(context: AnyContext, needs: Iterable[str | AnyProvider]) -> list[AnyProvider]:
    return [provider_at(context, need) if isinstance(need, str) else need for need in needs]


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
