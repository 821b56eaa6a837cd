"""``@node``: from a function to a node."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypedDict, TypeVar, Unpack, overload

from aetherflow.engine.graph import Call, checked
from aetherflow.errors import CompositionError
from aetherflow.flow.declaring import Executor, make_task
from aetherflow.flow.node import Node
from aetherflow.flow.policies import RetryPolicy
from aetherflow.resources.batching import BatchPolicy, Results
from aetherflow.resources.caching import CachePolicy
from aetherflow.telemetry.profiling.policy import ProfilePolicy

__all__ = ["node"]

Q = ParamSpec("Q")
S = TypeVar("S")
T = TypeVar("T")
Owner = TypeVar("Owner")


class _Options(TypedDict, total=False):
    """The options of every node."""

    name: str | None
    retry: RetryPolicy | None
    timeout: float | None
    executor: Executor | None
    cache: CachePolicy | None
    profile: bool | ProfilePolicy
    expected: type[Exception] | tuple[type[Exception], ...]


class _Decorator(Protocol):
    """What ``node(…)`` gives: it makes a function a node."""

    @overload
    def __call__(self, func: Callable[Q, Coroutine[Any, Any, S]], /) -> Node[Q, Coroutine[Any, Any, S], S]: ...
    @overload
    def __call__(self, func: Callable[Q, S], /) -> Node[Q, S]: ...


class _BatchDecorator(Protocol):
    """What ``node(batch=…)`` gives: it makes a function of a list a node of one item; of a method's, too."""

    @overload
    def __call__(
        self, func: Callable[Concatenate[list[T], Q], Coroutine[Any, Any, Results[S]]], /
    ) -> Node[Concatenate[T, Q], Coroutine[Any, Any, S], S]: ...
    @overload
    def __call__(self, func: Callable[Concatenate[list[T], Q], Results[S]], /) -> Node[Concatenate[T, Q], S]: ...
    @overload
    def __call__(
        self, func: Callable[Concatenate[Owner, list[T], Q], Coroutine[Any, Any, Results[S]]], /
    ) -> Node[Concatenate[Owner, T, Q], Coroutine[Any, Any, S], S]: ...
    @overload
    def __call__(
        self, func: Callable[Concatenate[Owner, list[T], Q], Results[S]], /
    ) -> Node[Concatenate[Owner, T, Q], S]: ...


@overload
def node(
    func: Callable[Q, Coroutine[Any, Any, S]],
    /,
    **options: Unpack[_Options],
) -> Node[Q, Coroutine[Any, Any, S], S]: ...
@overload
def node(
    func: Callable[Q, S],
    /,
    **options: Unpack[_Options],
) -> Node[Q, S]: ...
@overload
def node(
    func: Callable[Concatenate[list[T], Q], Coroutine[Any, Any, Results[S]]],
    /,
    *,
    batch: BatchPolicy,
    **options: Unpack[_Options],
) -> Node[Concatenate[T, Q], Coroutine[Any, Any, S], S]: ...
@overload
def node(
    func: Callable[Concatenate[list[T], Q], Results[S]],
    /,
    *,
    batch: BatchPolicy,
    **options: Unpack[_Options],
) -> Node[Concatenate[T, Q], S]: ...
@overload
def node(
    **options: Unpack[_Options],
) -> _Decorator: ...
@overload
def node(
    *,
    batch: BatchPolicy,
    **options: Unpack[_Options],
) -> _BatchDecorator: ...
def node(
    func: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    executor: Executor | None = None,
    cache: CachePolicy | None = None,
    batch: BatchPolicy | None = None,
    profile: bool | ProfilePolicy = False,
    expected: type[Exception] | tuple[type[Exception], ...] = (),
) -> Any:
    """Make a function a node; as ``@node`` or ``@node(…)``.

    Args:
        func: A function, method, coroutine function, generator or async generator.
        name: The node's name; None for the function's.
        retry: When to try a failed execution again.
        timeout: Seconds that an attempt may take. A synchronous function then runs on a thread of its own; late, it
            is left to itself and its result is not used.
        executor: Where executions run, as in :meth:`Node.fan_out_to`; None for where the fan-out around it says.
        cache: How results are cached, if they are; ``node.cache`` then invalidates, clears and counts.
        batch: How calls become batches, if they do: the function takes a list of items and returns a list of results,
            and each call of the node gives one item and gets its result.
        profile: True to profile every execution, or which; False for what is in force for all nodes.
        expected: Exceptions that are no failures of the node, such as a handler's 404, subclasses included. The caller
            receives such an exception, but the span has no error, `retry` does not attempt the node again, and health,
            alerts and the regression gate do not count it.

    Raises:
        CompositionError: This cannot be a node.
        ConfigurationError: A value is not allowed.
    """
    if func is None:
        return lambda function: _decorated(function, name, retry, timeout, executor, cache, batch, profile, expected)
    return _decorated(func, name, retry, timeout, executor, cache, batch, profile, expected)


class _ClassNode:
    """A node that is a class method; ``@classmethod`` itself no longer binds other descriptors on Python 3.13."""

    def __init__(self, made: Node[..., Any]) -> None:
        self._made = made

    def __get__(self, instance: object, owner: type) -> Node[..., Any]:
        return self._made.__get__(owner)


def _decorated(func: Any, *options: Any) -> Any:
    if isinstance(func, staticmethod):
        return staticmethod(_decorated(func.__func__, *options))
    if isinstance(func, classmethod):
        return _ClassNode(_decorated(func.__func__, *options))
    if isinstance(func, Node):
        raise CompositionError(f"@node: {func.name!r} is a node already")
    task = make_task(func, *options)
    return Node(checked(Call(task)), task.name)
