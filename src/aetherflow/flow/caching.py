"""Nodes whose results are cached: the key of an execution, and what its span says of the cache."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from opentelemetry import trace

from aetherflow.engine.graph import Kind
from aetherflow.errors import AetherFlowError, ConfigurationError
from aetherflow.resources.caching import CacheKeyError, CachePolicy, CacheResult, CacheStatistics
from aetherflow.resources.markers import marker_target
from aetherflow.resources.scoped_cache import ScopedCache
from aetherflow.telemetry.conventions import NODE_CACHE_HIT
from aetherflow.telemetry.retries import classify_execution

__all__ = ["NodeCache", "NotCachedError", "cached", "node_cache", "sparing"]

_REMEDY: Final = "arguments that have a hash, or CachePolicy(key=…)"


class NotCachedError(AetherFlowError, AttributeError):
    """A node was asked for its cache and has none."""

    def __init__(self, node: str) -> None:
        self.node = node
        super().__init__(f"node {node!r} has no cache; decorate it with @node(cache=CachePolicy(…))")


class _Arbitrary:
    """Stands in a key for an argument that does not count, because it is injected."""

    def __repr__(self) -> str:
        return "*"


_ANY: Final = _Arbitrary()


@dataclass(frozen=True, slots=True)
class _Keys:
    """How the arguments of an execution become a key.

    Args:
        node: The node's name, for errors.
        parameters: The function's, variadic ones left out.
        own: The key function of the policy.
        spared: Parameters that do not count.
        variants: All sets of those that keys of this node were made with, shared by all of them.
    """

    node: str
    parameters: Sequence[inspect.Parameter]
    own: Callable[..., Hashable] | None
    spared: frozenset[str]
    variants: set[frozenset[str]] = field(default_factory=set)
    is_plain: bool = field(init=False)
    """Whether as many positional arguments as there are parameters are a key as they are."""

    def __post_init__(self) -> None:
        positional = all(p.kind is not p.KEYWORD_ONLY for p in self.parameters)
        object.__setattr__(self, "is_plain", self.own is None and positional and not self.spared)
        self.variants.add(self.spared)

    def sparing(self, names: Collection[str]) -> _Keys:
        """Return the same with more parameters that do not count."""
        return _Keys(self.node, self.parameters, self.own, self.spared.union(names), self.variants)

    def key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable:
        """Return the key.

        Raises:
            CacheKeyError: It has no hash.
        """
        if self.own is not None:
            key = self.own(*args, **kwargs)
        elif self.is_plain and not kwargs and len(args) == len(self.parameters):
            key = args
        else:
            key = self._bound(args, kwargs)
        try:
            hash(key)
        except TypeError:
            raise self._blamed(key, args, kwargs) from None
        return key

    def _bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable:
        """Return the arguments in the order of the parameters, however they were given and defaults filled in."""
        left = dict(kwargs)
        found = []
        taken = 0
        for parameter in self.parameters:
            value = left.pop(parameter.name, parameter.default)
            if parameter.kind is not parameter.KEYWORD_ONLY and taken < len(args):
                value = args[taken]
                taken += 1
            found.append(_ANY if value is parameter.empty or parameter.name in self.spared else value)
        return (*found, args[taken:], frozenset(left.items())) if left or args[taken:] else tuple(found)

    def _blamed(self, key: Hashable, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> CacheKeyError:
        if self.own is not None:
            return CacheKeyError(self.node, "what CachePolicy(key=…) gave", key, "anything that has a hash")
        names = [parameter.name for parameter in self.parameters if parameter.kind is not parameter.KEYWORD_ONLY]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        for name, value in given.items():
            try:
                hash(value)
            except TypeError:
                if name not in self.spared:
                    return CacheKeyError(self.node, f"argument {name!r}", value, _REMEDY)
        return CacheKeyError(self.node, "one of its arguments", key, _REMEDY)


@dataclass(frozen=True, slots=True)
class NodeCache:
    """The cache of a node, as ``node.cache``."""

    _cache: ScopedCache
    _keys: _Keys
    _bound: tuple[Any, ...] = ()

    def invalidate(self, /, *args: Any, **kwargs: Any) -> bool:
        """Forget the result for these arguments, those of a call; injected ones can be left out.

        Returns:
            Whether something was kept.

        Raises:
            CacheKeyError: The arguments have no hash.
        """
        every = [self._keys.sparing(names) for names in tuple(self._keys.variants)]
        keys = {keys.key((*self._bound, *args), kwargs) for keys in every}
        return any([self._cache.invalidate(key) for key in keys])  # noqa: C419  # all of them, not up to the first

    def clear(self) -> None:
        """Forget every result."""
        self._cache.clear()

    def statistics(self) -> CacheStatistics:
        """Count what is and what was.

        Returns:
            A frozen snapshot; with ``scope="thread"`` of the caches of all threads together.
        """
        return self._cache.statistics()

    def bound(self, instance: object) -> NodeCache:
        """Return the cache as that of a method of an object."""
        return replace(self, _bound=(*self._bound, instance))


class _Cached:
    """A function whose results are cached; calling it asks the cache first."""

    def __init__(self, call: Callable[..., Any], cache: ScopedCache, keys: _Keys) -> None:
        self.call = call
        self.cache = cache
        self.keys = keys

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        key = self.keys.key(args, kwargs)
        return self.cache.here().get_or_compute(key, partial(self.call, *args, **kwargs))

    def sparing(self, names: Collection[str]) -> _Cached:
        """Return the same with parameters that do not count for the key."""
        return type(self)(self.call, self.cache, self.keys.sparing(names))


class _CachedAsync(_Cached):
    async def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        key = self.keys.key(args, kwargs)
        return await self.cache.here().aget_or_compute(key, partial(self.call, *args, **kwargs))


def node_cache(name: str, kind: Kind, parameters: Sequence[inspect.Parameter], policy: CachePolicy) -> NodeCache:
    """Return the cache of a node.

    Args:
        name: The node's name, which is the cache's.
        kind: How it gives its result.
        parameters: The function's, variadic ones left out.
        policy: What the cache is like.

    Raises:
        ConfigurationError: The policy does not fit the function.
    """
    given: object = policy
    if not isinstance(given, CachePolicy):
        raise ConfigurationError(f"node {name!r}: cache={policy!r}; allowed is CachePolicy(…) or None")
    if kind in (Kind.STREAM, Kind.ASYNC_STREAM):
        raise ConfigurationError(
            f"node {name!r} is a generator, whose items can be taken only once: cache= is allowed on functions only"
        )
    marked = [p.name for p in parameters if marker_target(p.default, p.annotation) is not None]
    keys = _Keys(name, parameters, policy.key, frozenset(marked))
    return NodeCache(ScopedCache(name, policy, _tell), keys)


def cached(call: Callable[..., Any], kind: Kind, cache: NodeCache) -> Callable[..., Any]:
    """Put a cache in front of a node: a result that is there needs none of its other policies.

    Args:
        call: The function with those policies around it.
        kind: How it gives its result.
        cache: The node's.
    """
    return (_CachedAsync if kind is Kind.ASYNC else _Cached)(call, cache._cache, cache._keys)


def sparing(call: Callable[..., Any], names: Collection[str]) -> Callable[..., Any]:
    """Return a node's call with parameters left out of its cache's key, because they are injected."""
    if isinstance(call, partial):  # a method's, with its object
        return partial(sparing(call.func, names), *call.args)
    return call.sparing(names) if isinstance(call, _Cached) else call


def _tell(result: CacheResult) -> None:
    """Report on the node's span, and to its execution, whether its result was there."""
    if result != "miss":
        classify_execution("cache_hit" if result == "hit" else "coalesced")
    span = trace.get_current_span()
    if span.is_recording():
        span.set_attribute(NODE_CACHE_HIT, result == "hit")
