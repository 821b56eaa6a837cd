"""`Provide[...]` defaults, read without wiring: planned once for a context class, resolved against any instance."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from dependency_injector import providers, wiring

from aetherflow.errors import ConfigurationError
from aetherflow.resources.context import AnyContext, ContextClass, provider_names
from aetherflow.resources.scopes import AnyProvider

__all__ = ["Marker", "marker_target", "resolve_marker"]

Getter: TypeAlias = Callable[[AnyContext], AnyProvider]
"""Gives the provider to call, of an instance or class of the context that it was planned for."""

# The stubs show instances of a protocol; at run time these are classes.
_PROVIDER_ITSELF = cast("type[Any]", wiring.Provider)
_MARKERS = tuple(cast("list[type[Any]]", [wiring.Provide, wiring.Provider, wiring.Closing]))


@dataclass(frozen=True, slots=True)
class Marker:
    """What a ``Provide[...]``, ``Provider[...]`` or ``Closing[...]`` marker asks for.

    Args:
        target: The dotted name, or the provider of a container class, in the brackets.
        modifier: ``as_int()``, ``required()``, ``provided()`` or ``invariant()``, where given.
        itself: The provider itself is asked for, not what it gives: ``Provider[...]``.
    """

    target: str | AnyProvider
    modifier: wiring.Modifier | None = None
    itself: bool = False

    def __str__(self) -> str:
        modifier = "" if self.modifier is None else f", {self.modifier!r}"
        return f"{'Provider' if self.itself else 'Provide'}[{self.target!r}{modifier}]"


def marker_target(default: object, annotation: object = None) -> Marker | None:
    """Read the marker of a parameter.

    Args:
        default: The parameter's default.
        annotation: Its annotation, evaluated: ``Annotated[Service, Provide["service"]]`` counts too.

    Returns:
        The marker; None where the parameter has none. ``Closing[...]`` counts as the marker within it: resources
        stay open until their context closes.
    """
    candidates = (*getattr(annotation, "__metadata__", ()), default)
    for candidate in candidates:
        if isinstance(candidate, _MARKERS):
            return _read(candidate)
    return None


def _read(marker: Any) -> Marker:
    if isinstance(marker.provider, _MARKERS):
        return _read(marker.provider)
    return Marker(marker.provider, marker.modifier, isinstance(marker, _PROVIDER_ITSELF))


def resolve_marker(marker: Marker, declared: ContextClass) -> Getter:
    """Plan how to get what ``marker`` asks for, out of any instance of ``declared``.

    A provider that a subclass declared anew is found by the name it has in the base: ``Provide[Base.service]`` gives
    the ``service`` of the context at hand.

    Args:
        marker: From `marker_target`.
        declared: From `aetherflow.resources.context.context_class`.

    Returns:
        A function from a context to the provider to call for the value. Modifiers and ``provided`` attributes make
        that provider anew, so get it once a run.

    Raises:
        ConfigurationError: The context declares nothing of that name, or not that provider.
    """
    getter = _getter(marker.target, declared)
    try:
        found = getter and getter(declared)
    except (AttributeError, LookupError):
        found = None
    if getter is None or not isinstance(found, providers.Provider):
        available = ", ".join(sorted(provider_names(declared))) or "nothing"
        owner = getattr(declared, "__name__", type(declared).__name__)
        raise ConfigurationError(f"{marker} is not in context {owner}; available: {available}")
    return _finished(getter, marker)


def _finished(getter: Getter, marker: Marker) -> Getter:
    modifier: Any = marker.modifier
    if modifier is not None:
        return lambda context: modifier.modify(getter(context), _Names(context))
    if marker.itself:
        return lambda context: getter(context).provider
    return getter


@dataclass(frozen=True, slots=True)
class _Names:
    """All that a modifier asks of wiring's map of providers, which would leave its mark on the container."""

    context: AnyContext

    def resolve_provider(self, name: str) -> AnyProvider:
        return _walk(name.split("."), self.context)


def _walk(path: Iterable[str], context: AnyContext) -> AnyProvider:
    return cast("AnyProvider", functools.reduce(getattr, path, context))


def _getter(target: str | AnyProvider, declared: ContextClass) -> Getter | None:
    """How to get from a context to ``target``; None where it is of no container that ``declared`` knows."""
    if target == "<container>" or (isinstance(target, providers.Self) and _is_kind_of(declared, target())):
        return lambda context: cast("AnyProvider", context.__self__)
    path = target.split(".") if isinstance(target, str) else _path_to(target, declared)
    if path is not None:
        return lambda context: _walk(path, context)
    return _derived(cast("AnyProvider", target), declared)


def _is_kind_of(declared: ContextClass, container: object) -> bool:
    return declared is container or (
        isinstance(declared, type) and isinstance(container, type) and issubclass(declared, container)
    )


def _path_to(target: AnyProvider, declared: ContextClass) -> tuple[str, ...] | None:
    for owner in declared.__mro__ if isinstance(declared, type) else (declared,):
        for path, provider in _paths(getattr(owner, "providers", {})):
            if provider is target:
                return path
    return None


def _paths(named: Mapping[str, AnyProvider]) -> Iterator[tuple[tuple[str, ...], AnyProvider]]:
    """Every provider with the names that lead to it, those in nested containers too."""
    for name, provider in named.items():
        yield (name,), provider
        if isinstance(provider, providers.Container | providers.DependenciesContainer):
            for path, nested in _paths(cast("dict[str, AnyProvider]", provider.providers)):
                yield (name, *path), nested


def _derived(target: AnyProvider, declared: ContextClass) -> Getter | None:
    """Follow what was written behind a declared provider: options, ``provided`` attributes, delegates."""
    source: Any
    derive: Callable[[Any], AnyProvider]
    match target:
        case providers.ConfigurationOption():
            return _option(target, declared)
        case providers.TypedConfigurationOption():
            # The option converted is the converter's first argument.
            more = target.args[1:]
            source, derive = target.option, lambda found: found.as_(target.provides, *more, **target.kwargs)
        case providers.Delegate():
            source, derive = target.provides, lambda found: found.provider
        case providers.ProvidedInstance():
            source, derive = target.provides, lambda found: found.provided
        case providers.AttributeGetter():
            source, derive = target.provides, lambda found: getattr(found, str(target.name))
        case providers.ItemGetter():
            source, derive = target.provides, lambda found: found[target.name]
        case providers.MethodCaller():
            arguments = cast("Any", target)  # the stubs leave them out
            source, derive = target.provides, lambda found: found.call(*arguments.args, **arguments.kwargs)
        case _:
            return None
    behind = _getter(source, declared)
    return behind and (lambda context: derive(behind(context)))


def _option(target: providers.ConfigurationOption, declared: ContextClass) -> Getter | None:
    """An option of a configuration; a key may itself come from a provider: ``config.users[current]``."""
    root = _getter(cast("Any", target)._get_root(), declared)  # the public ``root`` is read as an option of that name
    keys = target.get_name_segments()
    steps = [step for key in keys if (step := _key_step(key, declared))]
    if root is None or len(steps) < len(keys):
        return None
    required = target.is_required()

    def option(context: AnyContext) -> AnyProvider:
        found: Any = root(context)
        for step in steps:
            found = step(context, found)
        return cast("AnyProvider", found.required() if required else found)

    return option


def _key_step(key: str | AnyProvider, declared: ContextClass) -> Callable[[AnyContext, Any], Any] | None:
    if isinstance(key, str):
        return lambda _, found: getattr(found, key)
    getter = _getter(key, declared)
    return getter and (lambda context, found: found[getter(context)])
