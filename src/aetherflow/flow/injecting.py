"""The providers that a flow takes from its context: how to get them, and what a plan depends on in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from dependency_injector.providers import BaseResource

from aetherflow.resources.context import AnyContext, provider_at
from aetherflow.resources.markers import Getter
from aetherflow.resources.scopes import AnyProvider, context_locals_of, reachable, scope_of
from aetherflow.telemetry.conventions import ProviderScope

__all__ = ["ParameterProvider", "container_of", "has_resources", "nature_of", "provider_named"]


@dataclass(slots=True)
class ParameterProvider:
    """One provider that a flow takes from its context: what asked for it, and how to get it from an instance."""

    name: str
    get: Getter
    slot: int
    scope: ProviderScope


def nature_of(provider: AnyProvider) -> tuple[ProviderScope, bool, bool]:
    """Return all that a plan depends on in a provider, which an override may change.

    Returns:
        Its scope, whether it may open resources, and whether it gives something that is local to a context.
    """
    return scope_of(provider), has_resources(provider), bool(context_locals_of(provider))


def has_resources(provider: AnyProvider) -> bool:
    """Tell whether calling a provider may open resources."""
    return any(isinstance(found, BaseResource) for found in reachable(provider))


def container_of(context: AnyContext) -> AnyProvider:
    """Return the provider that gives the context itself."""
    return cast("AnyProvider", context.__self__)


def provider_named(name: str) -> Getter:
    """Return how to get the provider of that name out of a context."""
    return lambda context: provider_at(context, name)
