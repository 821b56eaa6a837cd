"""How widely an injected object is shared, read off its dependency-injector provider.

The kinds of singleton are siblings in the library, not subclasses of ``Singleton`` (probed on 4.49.1), and a
provider that was overridden answers for the provider that took its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from dependency_injector import providers

from aetherflow.telemetry.conventions import ProviderScope

__all__ = [
    "combined_scope",
    "context_locals_of",
    "effective_provider",
    "is_context_local",
    "nested_providers",
    "reachable",
    "scope_of",
]

AnyProvider = providers.Provider[Any]

# Order matters: a TypedConfigurationOption is a Callable, a Configuration and a DependenciesContainer are Objects.
_SCOPES: Final[tuple[tuple[type[AnyProvider], ProviderScope], ...]] = (
    (providers.ThreadLocalSingleton, "thread_local"),
    (providers.ContextLocalSingleton, "context_local"),
    (providers.ContextLocalResource, "context_local"),
    (providers.Singleton, "singleton"),
    (providers.ThreadSafeSingleton, "singleton"),
    (providers.Resource, "singleton"),
    (providers.DependenciesContainer, "unknown"),
    (providers.Object, "singleton"),
    (providers.ConfigurationOption, "singleton"),
    (providers.TypedConfigurationOption, "singleton"),
    (providers.Container, "singleton"),
    (providers.Self, "singleton"),
    (providers.Factory, "factory"),
    (providers.Callable, "factory"),
    (providers.FactoryAggregate, "factory"),
)


def effective_provider(provider: AnyProvider) -> AnyProvider:
    """The provider that answers when ``provider`` is called.

    Args:
        provider: Any provider.

    Returns:
        The end of the chain of ``last_overriding``; ``provider`` itself where nothing overrides it.
    """
    overriding = provider.last_overriding
    return provider if overriding is None else effective_provider(overriding)


def scope_of(provider: AnyProvider) -> ProviderScope:
    """How widely the object that ``provider`` gives is shared.

    Delegates, dependencies and ``provided`` attributes count as the provider behind them; a list, dict, selector
    or aggregate as what it holds, where that agrees.

    Args:
        provider: Any provider, overridden or not.

    Returns:
        ``thread_local``, ``context_local``, ``singleton`` (one object for all), ``factory`` (a new one for each
        call), ``mixed`` (a collection that holds several kinds), or ``unknown`` where it cannot be told without
        calling the provider: an undefined dependency, a method's result, a provider class of the user's own.
    """
    provider = effective_provider(provider)
    for kind, scope in _SCOPES:
        if isinstance(provider, kind):
            return scope
    match provider:
        case providers.List():
            return _collection_scope(provider.args)
        case providers.Dict():
            return _collection_scope(provider.kwargs.values())
        case providers.Selector() | providers.Aggregate():
            scopes = {scope_of(choice) for choice in provider.providers.values()}
            return scopes.pop() if len(scopes) == 1 else "unknown"
        case providers.Dependency():
            behind: object = provider.default
        case providers.Delegate() | providers.ProvidedInstance() | providers.AttributeGetter() | providers.ItemGetter():
            behind = provider.provides
        case _:
            behind = None
    return scope_of(behind) if isinstance(behind, providers.Provider) else "unknown"


def _collection_scope(items: Iterable[object]) -> ProviderScope:
    """Scope of a list or dict made anew for each call: that of the providers in it, since it holds their objects."""
    scopes = [scope_of(item) for item in items if isinstance(item, providers.Provider)]
    return combined_scope(scopes) if scopes else "factory"


def combined_scope(scopes: Iterable[ProviderScope]) -> ProviderScope:
    """One word for the scopes of everything injected into a node.

    Args:
        scopes: The scopes, in any order; ``none`` among them counts as nothing.

    Returns:
        ``none`` where there is nothing; the scope where all agree; ``mixed`` where at least two known scopes
        differ, whatever the unknown ones are; ``unknown`` where an unknown one decides.
    """
    seen = set(scopes) - {"none"}
    known = seen - {"unknown"}
    if len(known) > 1:
        return "mixed"
    if "unknown" in seen:
        return "unknown"
    return known.pop() if known else "none"


def reachable(provider: AnyProvider) -> Iterator[AnyProvider]:
    """What calling ``provider`` may call in turn: itself and the providers among its arguments, overrides followed.

    A provider that is overridden is not reached, nor is what only it depends on: a test that overrides a database
    pool does not open the database.

    Args:
        provider: Where to start.

    Yields:
        Each effective provider once, ``provider``'s own first.
    """
    seen: set[AnyProvider] = set()
    waiting = [provider]
    while waiting:
        current = effective_provider(waiting.pop())
        if current not in seen:
            seen.add(current)
            yield current
            waiting += current.related


def nested_providers(provider: AnyProvider) -> Iterator[AnyProvider]:
    """The providers that ``provider`` depends on, directly and indirectly, whose overrides matter to it.

    Args:
        provider: Where to start.

    Yields:
        Each of them once, overridden ones too; not ``provider`` itself.
    """
    visited = {provider}
    waiting = list(provider.related)
    while waiting:
        current = waiting.pop()
        if current not in visited and not isinstance(current, providers.Self):
            visited.add(current)
            yield current
            waiting += current.related


def context_locals_of(provider: AnyProvider) -> tuple[AnyProvider, ...]:
    """The context-local providers that calling ``provider`` may call.

    First used inside two branches they give two objects, so call them in the parent before a fan-out.

    Args:
        provider: Any provider, overridden or not.

    Returns:
        Context-local singletons and resources, itself among them; empty for nearly every provider.
    """
    return tuple(found for found in reachable(provider) if scope_of(found) == "context_local")


def is_context_local(provider: AnyProvider) -> bool:
    """Whether ``provider`` gives one object for each context.

    Args:
        provider: Any provider, overridden or not.

    Returns:
        True for context-local singletons and resources, and for what stands for one.
    """
    return scope_of(provider) == "context_local"
