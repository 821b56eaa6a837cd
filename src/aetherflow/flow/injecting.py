"""The providers that a flow takes from its context: how to get them, and what a plan depends on in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

from dependency_injector.providers import BaseResource

from aetherflow.errors import ConfigurationError
from aetherflow.resources.async_providers import Awaiting, awaiting_of
from aetherflow.resources.context import AnyContext, context_class, provider_at
from aetherflow.resources.markers import Getter, Marker, resolve_marker
from aetherflow.resources.scopes import AnyProvider, context_locals_of, nested_providers, reachable, scope_of
from aetherflow.telemetry.conventions import ProviderScope

__all__ = [
    "ParameterProvider",
    "Providers",
    "container_of",
    "has_resources",
    "is_overridden",
    "nature_of",
    "provider_named",
]


@dataclass(slots=True)
class ParameterProvider:
    """One provider that a flow takes from its context: what asked for it, and how to get it from an instance."""

    name: str
    get: Getter
    slot: int
    scope: ProviderScope
    awaiting: Awaiting


class Providers:
    """All that a flow takes from its context, each in a slot.

    Args:
        context: A context of the class that is planned for; None where the flow is run without.
        new_slot: Gives a slot that nothing else has.
    """

    def __init__(self, context: AnyContext | None, new_slot: Callable[[], int]) -> None:
        self._context = context
        self._new_slot = new_slot
        self._found: dict[object, ParameterProvider] = {}

    @property
    def found(self) -> list[ParameterProvider]:
        """What was taken so far."""
        return list(self._found.values())

    def marked(self, marker: Marker, parameter: str) -> int:
        """Return the slot of the provider that a marker asks for.

        Args:
            marker: The marker.
            parameter: The name of the parameter that has it.

        Raises:
            ConfigurationError: There is no context, or the context has no such provider.
        """
        if self._context is None:
            raise ConfigurationError(f"{marker} needs a context; run the flow with context=…")
        return self.take(str(marker), resolve_marker(marker, context_class(self._context)), parameter)

    def named(self, name: str) -> int:
        """Return the slot of the provider of a name that the context has."""
        return self.take(name, provider_named(name), name)

    def take(self, key: object, get: Getter, name: str = "") -> int:
        """Return the slot of a provider.

        Args:
            key: Tells it from the others.
            get: Gets it from a context.
            name: The parameter that asked for it.
        """
        entry = self._found.get(key)
        if entry is None:
            provider = get(self._context)  # type: ignore[arg-type]  # there is one where anything is injected
            scope, awaiting = scope_of(provider), awaiting_of(provider)
            entry = self._found[key] = ParameterProvider(name, get, self._new_slot(), scope, awaiting)
        return entry.slot

    def scopes(self, injected: Iterable[tuple[str, int]]) -> list[tuple[str, ProviderScope]]:
        """Return parameters with the scopes of their providers, from parameters with the slots of those."""
        scopes = {found.slot: found.scope for found in self._found.values()}
        return [(name, scopes[slot]) for name, slot in injected]

    def awaiting(self, slot: int) -> Awaiting:
        """Return whether the object of the provider in a slot has to be awaited."""
        return next(provider.awaiting for provider in self._found.values() if provider.slot == slot)


def nature_of(provider: AnyProvider) -> tuple[ProviderScope, bool, bool, Awaiting]:
    """Return all that a plan depends on in a provider, which an override may change.

    Returns:
        Its scope, whether it may open resources, whether its object is local to a context, and whether the
        object has to be awaited.
    """
    return scope_of(provider), has_resources(provider), bool(context_locals_of(provider)), awaiting_of(provider)


def is_overridden(provider: AnyProvider) -> bool:
    """Return whether a provider, or one that it depends on, is overridden."""
    return any(each.last_overriding is not None for each in (provider, *nested_providers(provider)))


def has_resources(provider: AnyProvider) -> bool:
    """Tell whether calling a provider may open resources."""
    return any(isinstance(found, BaseResource) for found in reachable(provider))


def container_of(context: AnyContext) -> AnyProvider:
    """Return the provider that gives the context itself."""
    return cast("AnyProvider", context.__self__)


def provider_named(name: str) -> Getter:
    """Return how to get the provider of that name out of a context."""
    return lambda context: provider_at(context, name)
