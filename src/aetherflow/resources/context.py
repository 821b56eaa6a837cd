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
from collections.abc import Coroutine, Iterable
from typing import Any, Self, TypeAlias, cast

from dependency_injector import containers, providers

from aetherflow.errors import ConfigurationError
from aetherflow.resources.async_providers import is_async
from aetherflow.resources.scopes import AnyProvider, reachable

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

AnyResource: TypeAlias = providers.BaseResource[Any]


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

    Async resources are opened on the event loop that first needs one and are shut down there. Once opened, their
    provider gives the object itself, so that sync nodes and other providers can take it in any thread.
    """

    def __init__(self) -> None:
        super().__init__()
        self._opening = threading.RLock()
        self._opened_async: list[AnyResource] = []
        self._home: asyncio.AbstractEventLoop | None = None

    def __exit__(self, *exc_info: object) -> None:
        home = self._home
        if home is not None and home is _running_loop():
            raise ConfigurationError(
                "a context with async resources cannot be closed by `with` on their own event loop; use `async with`"
            )
        closing = self.shutdown_resources()
        if closing is None:
            return
        if home is not None and home.is_running():
            asyncio.run_coroutine_threadsafe(closing, home).result()
        else:
            asyncio.run(closing)

    async def __aexit__(self, *exc_info: object) -> None:
        closing = self.shutdown_resources()
        if closing is not None:
            await self._at_home(closing)

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
        open_ones = [found for found in self.traverse([resource_type]) if found.initialized]
        # What a resource depends on reaches fewer providers than the resource itself.
        open_ones.sort(key=lambda resource: len(list(reachable(resource))), reverse=True)
        closing = _shut_down(open_ones)
        if any(resource in self._opened_async or resource.is_async_mode_enabled() for resource in open_ones):
            self._opened_async = [resource for resource in self._opened_async if resource not in open_ones]
            return closing
        with contextlib.suppress(StopIteration):
            closing.send(None)
        return None

    def _open(self, resources: Iterable[AnyResource]) -> Coroutine[Any, Any, None] | None:
        """Initialise sync resources; give what opens the async ones, to be awaited on any loop."""
        waiting = []
        with self._opening:
            for resource in resources:
                if resource in self._opened_async or (resource.initialized and not resource.is_async_mode_enabled()):
                    continue
                if any(map(is_async, reachable(resource))) or inspect.isawaitable(resource.init()):
                    waiting.append(resource)
        return self._at_home(self._settle(waiting)) if waiting else None

    async def _settle(self, resources: Iterable[AnyResource]) -> None:
        for resource in resources:
            opening = resource.init()
            if inspect.isawaitable(opening):
                # Another run may wait for the same resource: a cancelled one must not take it away.
                await asyncio.shield(opening)
            if resource not in self._opened_async:
                resource.disable_async_mode()
                self._opened_async.append(resource)

    async def _at_home(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` on the loop the async resources live on: this one, where there is none yet."""
        with self._opening:
            here = asyncio.get_running_loop()
            if self._home is None or not self._home.is_running():
                self._home = here
            home = self._home
        if home is here:
            await work
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, home))


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
    wanted = (provider_at(context, need) if isinstance(need, str) else need for need in needs)
    found = (provider for need in wanted for provider in reachable(need))
    return tuple(dict.fromkeys(provider for provider in found if isinstance(provider, providers.BaseResource)))


_opening_elsewhere = threading.RLock()


def init_resources_for(context: AnyContext, needs: Iterable[str | AnyProvider]) -> Coroutine[Any, Any, None] | None:
    """Initialise the resources a run needs that are not initialised yet, each once, whatever the threads.

    Args:
        context: A container instance or class.
        needs: Names of its providers, or providers themselves.

    Returns:
        None where all is done; a coroutine, to be awaited on any loop before the run, where a resource is async: an
        async (generator) function, an async context manager, or one that depends on such.

    Raises:
        ConfigurationError: A resource is async and the context does not derive from `BaseFlowContext`.
        Exception: What a resource raised.
    """
    resources = resources_of(context, needs)
    if isinstance(context, FlowContextInstance):
        return context._open(resources)
    for resource in resources:
        if any(map(is_async, reachable(resource))):
            raise ConfigurationError(f"{resource} is async; allowed in instances of BaseFlowContext subclasses only")
        with _opening_elsewhere:
            resource.init()
    return None


async def _shut_down(resources: Iterable[AnyResource]) -> None:
    """Shut all down in this order; never suspends where all are sync."""
    failures = []
    for resource in resources:
        try:
            closing = resource.shutdown()
            if inspect.isawaitable(closing):
                await closing
        except Exception as failure:  # noqa: BLE001  # one that cannot close must not keep the others open
            failures.append(failure)
        resource.reset_async_mode()
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise ExceptionGroup("resources failed to shut down", failures)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
