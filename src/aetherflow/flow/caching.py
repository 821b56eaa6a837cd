"""Nodes whose results are cached: the key of an execution, and what its span says of the cache."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from aetherflow.engine.graph import Kind
from aetherflow.engine.signatures import signature_of
from aetherflow.errors import AetherFlowError, ConfigurationError
from aetherflow.flow.owners import BoundTo, MethodPlace
from aetherflow.resources.caching import CacheKeyError, CachePolicy, CacheResult, CacheStatistics
from aetherflow.resources.entries import InstanceRef, InstanceRefs
from aetherflow.resources.markers import marker_target
from aetherflow.resources.scoped_cache import ScopedCache
from aetherflow.telemetry.observation import current_details

__all__ = ["NodeCache", "NotCachedError", "bound_call", "cached", "node_cache", "sparing"]

_REMEDY: Final = "arguments that have a hash, or CachePolicy(key=…)"
_KEY_REMEDY: Final = "CachePolicy(key=…)"
_METHOD_REMEDY: Final = '"__weakref__" in the __slots__ of its class, or CachePolicy(key=…)'


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
    """The way from the arguments of an execution to a key.

    Args:
        node: The node's name, for errors.
        func: The function, for errors.
        parameters: The parameters of the function, variadic ones left out; of a bound method those after the first.
        own: The key function of the policy.
        spared: Parameters that do not count.
        variants: All sets of spared parameters that keys of this node were made with, shared by all of them.
    """

    node: str
    func: Callable[..., Any]
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
        return replace(self, spared=self.spared.union(names))

    def key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return the key; a tuple unless the policy has a function for it.

        Raises:
            CacheKeyError: It has no hash.
        """
        if self.is_plain and not kwargs and len(args) == len(self.parameters):  # without a further call
            try:
                hash(args)
            except TypeError:
                raise self._error_of(args, kwargs) from None
            return args
        return self.default_key(args, kwargs) if self.own is None else self.own_key(args, kwargs)

    def own_key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable:
        """Return the key that the policy's own function returns for these arguments."""
        assert self.own is not None  # else there is no such function
        key = self.own(*args, **kwargs)
        try:
            hash(key)
        except TypeError:
            raise CacheKeyError(
                self.node, "the result of CachePolicy(key=…)", key, "anything that has a hash"
            ) from None
        return key

    def default_key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Hashable, ...]:
        """Return the arguments in the order of the parameters."""
        try:
            if self.is_plain and not kwargs and len(args) == len(self.parameters):
                key: tuple[Any, ...] = args
            else:
                key = self._bound(args, kwargs)
            hash(key)
        except TypeError:
            raise self._error_of(args, kwargs) from None
        return key

    def _bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the arguments in the order of the parameters, however they were given and defaults filled in."""
        values, rest, more = self._arranged(args, kwargs)
        key = tuple(_ANY if value is inspect.Parameter.empty else value for value in values.values())
        return (*key, rest, frozenset(more.items())) if more or rest else key

    def _arranged(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], tuple[Any, ...], dict[str, Any]]:
        """Return the value of each parameter, further positional arguments, and further ones by name.

        The value of a parameter that does not count, or has none, is ``inspect.Parameter.empty``.
        """
        more = dict(kwargs)
        values = {}
        count = 0
        for parameter in self.parameters:
            value = more.pop(parameter.name, parameter.default)
            if parameter.kind is not parameter.KEYWORD_ONLY and count < len(args):
                value = args[count]
                count += 1
            values[parameter.name] = parameter.empty if parameter.name in self.spared else value
        return values, args[count:], more

    def _error_of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> CacheKeyError:
        values, rest, more = self._arranged(args, kwargs)
        for name, value in {**values, **more}.items():
            if (item := _without_hash(value)) is not None:
                return self._error(f"argument {name!r}", *item)
        if (item := _without_hash(rest)) is not None:
            return self._error(f"argument {_variadic_name(self.func)!r}", *item)
        return CacheKeyError(self.node, "one of its arguments", args, _REMEDY)

    def _error(self, argument: str, value: object, path: str) -> CacheKeyError:
        return CacheKeyError(self.node, f"{argument} (item {path})" if path else argument, value, _REMEDY)


def _without_hash(value: object) -> tuple[object, str] | None:
    """Return the value, or the item nested in it, that has no hash, and the path to it; None if the value has one."""
    try:
        hash(value)
    except TypeError:
        if type(value) is tuple:
            for index, item in enumerate(value):
                if (nested := _without_hash(item)) is not None:
                    return nested[0], f"[{index}]{nested[1]}"
        return value, ""
    return None


def _variadic_name(func: Callable[..., Any]) -> str:
    """Return the name of the parameter that takes further positional arguments, with its asterisk."""
    parameters = signature_of(func).parameters.values()
    return next((f"*{each.name}" for each in parameters if each.kind is each.VAR_POSITIONAL), "*")


class _MethodKeys:
    """The way from the arguments of a method's execution to a key, which does not keep the instance alive.

    Args:
        keys: The keys of the arguments after the instance.
        instance: The instance.
        refs: The weak references to all instances.
    """

    __slots__ = ("_reference", "instance", "keys", "refs")

    def __init__(self, keys: _Keys, instance: object, refs: InstanceRefs) -> None:
        self.keys = keys
        self.instance = instance
        self.refs = refs
        self._reference: InstanceRef | None = None

    def sparing(self, names: Collection[str]) -> _MethodKeys:
        """Return the same with more parameters that do not count."""
        return _MethodKeys(self.keys.sparing(names), self.instance, self.refs)

    def key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable:
        """Return the key.

        Raises:
            CacheKeyError: An argument has no hash, or the instance cannot be referenced weakly.
        """
        keys, reference = self.keys, self._reference
        if reference is not None and keys.is_plain and not kwargs and len(args) == len(keys.parameters):
            key = (reference, *args)
            try:
                hash(key)  # without a further call
            except TypeError:
                pass
            else:
                return key
        if keys.own is not None:
            return keys.own_key((self.instance, *args), kwargs)
        if reference is None:
            reference = self._reference = self._refer()
        return (reference, *keys.key(args, kwargs))

    def _refer(self) -> InstanceRef:
        try:
            return self.refs.of(self.instance)
        except TypeError:
            raise CacheKeyError(
                self.keys.node,
                "the instance of the method",
                self.instance,
                _KEY_REMEDY if issubclass(type(self.instance), tuple | int | bytes | str) else _METHOD_REMEDY,
                "cannot be referenced weakly",
            ) from None


@dataclass(frozen=True, slots=True)
class _Methods:
    """The keys of a function as a method.

    Args:
        keys: The keys of the arguments after the instance.
        place: The class body that the function is defined in, if it is defined in one.
        refs: The weak references to all instances.
    """

    keys: _Keys
    place: MethodPlace | None
    refs: InstanceRefs

    @classmethod
    def of(cls, keys: _Keys) -> _Methods:
        """Return the keys of a function as a method, from its keys as a plain function."""
        return cls(
            replace(keys, parameters=keys.parameters[1:], variants=set()), MethodPlace.of(keys.func), InstanceRefs()
        )

    def sparing(self, names: Collection[str]) -> _Methods:
        """Return the same with more parameters that do not count."""
        return replace(self, keys=self.keys.sparing(names))

    def bound(self, instance: object) -> _MethodKeys:
        """Return the keys of calls on an instance."""
        return _MethodKeys(self.keys, instance, self.refs)


@dataclass(frozen=True, slots=True)
class NodeCache:
    """The cache of a node, as ``node.cache``."""

    _cache: ScopedCache
    _keys: _Keys
    _methods: _Methods
    _instance: BoundTo | None = None

    def invalidate(self, /, *args: Any, **kwargs: Any) -> bool:
        """Forget the result for these arguments, those of a call; injected ones can be left out.

        Returns:
            Whether something was kept.

        Raises:
            CacheKeyError: The arguments have no hash.
        """
        keys: _Keys | _MethodKeys = self._keys
        methods = self._methods
        if self._instance is not None:
            keys = methods.bound(self._instance.instance)
        elif methods.place is not None and args and methods.place.is_owner(args[0]):
            keys, args = methods.bound(args[0]), args[1:]
        variants = keys.keys.variants if isinstance(keys, _MethodKeys) else keys.variants
        every = {keys.sparing(names).key(args, kwargs) for names in tuple(variants)}
        return any([self._cache.invalidate(key) for key in every])  # noqa: C419  # all of them, not up to the first

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
        return replace(self, _instance=BoundTo(instance))


class _Cached:
    """A function whose results are cached; calling it asks the cache first.

    Args:
        call: The function, or a function that takes the instance and calls it.
        cache: The cache.
        keys: The way from arguments to a key.
        methods: The keys of calls on an instance; None if this is bound to an instance.
        unwraps: Whether `call` takes an instance as it is, rather than as a `BoundTo`.
    """

    def __init__(
        self,
        call: Callable[..., Any],
        cache: ScopedCache,
        keys: _Keys | _MethodKeys,
        methods: _Methods | None,
        *,
        unwraps: bool,
    ) -> None:
        self.call = call
        self.cache = cache
        self.keys = keys
        self.methods = methods
        self.unwraps = unwraps
        self.place = None if methods is None else methods.place

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        if self.place is not None and args and self.place.is_owner(args[0]):
            return self.bound(args[0])(*args[1:], **kwargs)
        key = self.keys.key(args, kwargs)
        return self.cache.here().get_or_compute(key, partial(self.call, *args, **kwargs))

    def sparing(self, names: Collection[str]) -> _Cached:
        """Return the same with parameters that do not count for the key."""
        methods = self.methods and self.methods.sparing(names)
        return type(self)(self.call, self.cache, self.keys.sparing(names), methods, unwraps=self.unwraps)

    def bound(self, instance: object) -> Callable[..., Any]:
        """Return a cached function for calls on an instance."""
        if self.methods is None:  # bound already, and so the instance is an argument like others
            return partial(self, instance)
        call = partial(self.call, instance if self.unwraps else BoundTo(instance))
        return type(self)(call, self.cache, self.methods.bound(instance), None, unwraps=self.unwraps)


class _CachedAsync(_Cached):
    async def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        if self.place is not None and args and self.place.is_owner(args[0]):
            return await self.bound(args[0])(*args[1:], **kwargs)
        key = self.keys.key(args, kwargs)
        return await self.cache.here().aget_or_compute(key, partial(self.call, *args, **kwargs))


def node_cache(
    name: str, func: Callable[..., Any], kind: Kind, parameters: Sequence[inspect.Parameter], policy: CachePolicy
) -> NodeCache:
    """Return the cache of a node.

    Args:
        name: The node's name, which is the cache's.
        func: The function.
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
    keys = _Keys(name, func, parameters, policy.key, frozenset(marked))
    return NodeCache(ScopedCache(name, policy, _tell), keys, _Methods.of(keys))


def cached(call: Callable[..., Any], kind: Kind, cache: NodeCache, *, is_batched: bool) -> Callable[..., Any]:
    """Put a cache in front of a node: a result that is there needs none of its other policies.

    Args:
        call: The function with those policies around it.
        kind: How it gives its result.
        cache: The node's.
        is_batched: Whether the function's calls become batches.
    """
    kind_of_call = _CachedAsync if kind is Kind.ASYNC else _Cached
    return kind_of_call(call, cache._cache, cache._keys, cache._methods, unwraps=not is_batched)


def bound_call(call: Callable[..., Any], instance: object) -> Callable[..., Any]:
    """Return a node's call on an instance, if its results are cached or its calls become batches."""
    return call.bound(instance) if isinstance(call, _Cached) else partial(call, BoundTo(instance))


def sparing(call: Callable[..., Any], names: Collection[str]) -> Callable[..., Any]:
    """Return a node's call with parameters left out of its cache's key, because they are injected."""
    return call.sparing(names) if isinstance(call, _Cached) else call


def _tell(result: CacheResult) -> None:
    """Report to the execution whether its result was in the cache."""
    details = current_details.get()
    if details is not None:
        details.cache_hit = result == "hit"
        if result != "miss" and details.kind is None:
            details.kind = "cache_hit" if result == "hit" else "coalesced"
