"""From a function to a task: all that is known of a node from its decoration, read once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from types import NoneType
from typing import Any, Literal, NamedTuple, cast, get_args

from aetherflow.engine.awaitables import finishing, is_coroutine_function, resolving, resolving_items
from aetherflow.engine.graph import Kind, Task
from aetherflow.engine.signatures import Signature, read_signature
from aetherflow.errors import CompositionError, ConfigurationError
from aetherflow.flow.batching import Batched, batched, with_item_annotation
from aetherflow.flow.caching import NodeCache, bound_call, cached, node_cache
from aetherflow.flow.policies import RetryPolicy, with_policies
from aetherflow.resources.batching import BatchPolicy
from aetherflow.resources.caching import CachePolicy
from aetherflow.resources.markers import marker_target
from aetherflow.telemetry.profiling.policy import ProfilePolicy, policy_of

__all__ = ["Executor", "bound_task", "check_executor", "check_stays", "make_task"]

Executor = Literal["thread", "process"]


def check_executor(executor: object) -> None:
    """Refuse the name of an executor that there is not.

    Raises:
        CompositionError: It is neither None nor allowed.
    """
    allowed = get_args(Executor)
    if executor is not None and executor not in allowed:
        raise CompositionError(f"executor={executor!r}: allowed are {', '.join(map(repr, allowed))}")


def make_task(
    func: Callable[..., Any],
    name: str | None,
    retry: RetryPolicy | None,
    timeout: float | None,
    executor: str | None,
    cache: CachePolicy | None = None,
    batch: BatchPolicy | None = None,
    profile: bool | ProfilePolicy = False,
    expected: type[Exception] | tuple[type[Exception], ...] = (),
) -> Task:
    """Read all that a node needs to know of its function.

    Args:
        func: The function, or another callable.
        name: The node's name; None for the function's.
        retry: When to try a failed execution again.
        timeout: Seconds that an attempt may take.
        executor: Where executions run.
        cache: How results are cached.
        batch: How calls become batches.
        profile: Which executions are profiled.
        expected: Exceptions that are no failures.

    Raises:
        CompositionError: This cannot be a node.
        ConfigurationError: A policy has a value that is not allowed.
    """
    if not callable(func):
        raise CompositionError(f"@node: {func!r} is a {type(func).__name__}; allowed is a function or another callable")
    check_executor(executor)
    chosen = name if name is not None else getattr(func, "__name__", type(func).__name__)
    if not isinstance(chosen, str) or not chosen:
        raise CompositionError(f"@node(name={name!r}): allowed is a string that is not empty")
    declared = _kind_of(func)
    signature = _signature_of(func, chosen)
    parameters = signature.parameters if batch is None else with_item_annotation(signature.parameters)
    markers = {p.name: marker_target(p.default, p.annotation) for p in parameters}
    classes = _expected_classes(chosen, expected)
    has_policies = not (retry is None and timeout is None and cache is None and batch is None)
    function = func
    if has_policies and declared in (Kind.SYNC, Kind.ASYNC):
        function = finishing(func) if declared is Kind.ASYNC else resolving(func)
    if batch is not None and declared in (Kind.SYNC, Kind.ASYNC):
        function = resolving_items(function, is_async=declared is Kind.ASYNC)
    calls = _calls_of(chosen, function, declared, signature.parameters, retry, timeout, batch, classes)
    kept = None
    if cache is not None:
        calls, kept = _kept(chosen, func, calls, parameters, cache)
    if cache is not None or batch is not None:
        check_stays(chosen, executor)
    return Task(
        name=chosen,
        func=func,
        call=calls.call,
        kind=calls.kind,
        declared=declared,
        parameters=parameters,
        qualname=f"{getattr(func, '__module__', '')}.{getattr(func, '__qualname__', type(func).__qualname__)}",
        retries=retry is not None,
        executor=executor,
        cache=kept,
        batched=calls.batched,
        acall=calls.acall,
        given=calls.given,
        profile=_profile_of(chosen, profile, calls.kind),
        markers={parameter: marker for parameter, marker in markers.items() if marker is not None},
        returns_none=declared in (Kind.SYNC, Kind.ASYNC)
        and (signature.returns is None or signature.returns is NoneType),
        names=frozenset(parameter.name for parameter in parameters),
        has_var_positional=signature.has_var_positional,
        has_var_keyword=signature.has_var_keyword,
        expected=classes,
    )


class _Calls(NamedTuple):
    """What executions of a node call; the fields are those of a task."""

    call: Callable[..., Any]
    kind: Kind
    acall: Callable[..., Any] | None = None
    batched: Batched | None = None
    given: Callable[..., Any] | None = None


def _calls_of(
    name: str,
    func: Callable[..., Any],
    kind: Kind,
    parameters: tuple[inspect.Parameter, ...],
    retry: RetryPolicy | None,
    timeout: float | None,
    batch: BatchPolicy | None,
    expected: tuple[type[Exception], ...],
) -> _Calls:
    if batch is None:
        return _Calls(*with_policies(name, func, kind, retry, timeout, expected))
    batching = batched(name, func, kind, parameters, batch, expected)
    batch_call = batching.given if retry is None and timeout is None else None
    acall, _ = with_policies(name, batching.acall, Kind.ASYNC, retry, timeout, expected)
    if kind is Kind.ASYNC or timeout is not None:
        return _Calls(acall, Kind.ASYNC, None, batching, batch_call)
    call, _ = with_policies(name, batching.call, kind, retry, None, expected)
    return _Calls(call, kind, acall, batching, batch_call)


def _kept(
    name: str,
    func: Callable[..., Any],
    calls: _Calls,
    parameters: tuple[inspect.Parameter, ...],
    policy: CachePolicy,
) -> tuple[_Calls, NodeCache]:
    cache = node_cache(name, func, calls.kind, parameters, policy)
    is_batched = calls.batched is not None
    call = cached(calls.call, calls.kind, cache, is_batched=is_batched)
    acall = None if calls.acall is None else cached(calls.acall, Kind.ASYNC, cache, is_batched=is_batched)
    return _Calls(call, calls.kind, acall, calls.batched), cache


def bound_task(task: Task, instance: object, owner: type | None) -> Task:
    """Return the task of a method, bound to its object."""

    def bound(call: Callable[..., Any]) -> Callable[..., Any]:
        if call is task.func:
            return cast("Callable[..., Any]", task.func.__get__(instance))
        return bound_call(call, instance) if is_wrapped else functools.partial(call, instance)

    is_wrapped = task.cache is not None or task.batched is not None
    parameters = task.parameters if task.batched is None else task.batched.parameters
    rest = _without_owner(parameters)
    return replace(
        task,
        func=task.func.__get__(instance, owner),
        call=bound(task.call),
        acall=task.acall and bound(task.acall),
        given=task.given and bound(task.given),
        parameters=rest if task.batched is None else with_item_annotation(rest),
        cache=task.cache and task.cache.bound(instance),
    )


def _without_owner(parameters: tuple[inspect.Parameter, ...]) -> tuple[inspect.Parameter, ...]:
    """Return the parameters of a method without the one that its object fills, unless ``*args`` takes the object."""
    if parameters and parameters[0].kind is not inspect.Parameter.KEYWORD_ONLY:
        return parameters[1:]
    return parameters


def check_stays(node: str, executor: str | None) -> None:
    """Refuse to send a node away whose executions share something in this process.

    Raises:
        ConfigurationError: The executor is another process.
    """
    if executor not in (None, "thread"):
        raise ConfigurationError(
            f"node {node!r} has a cache or a batcher in this process, which a worker does not reach; "
            f"executor={executor!r} is allowed on nodes without cache= and batch="
        )


def _expected_classes(node: str, expected: object) -> tuple[type[Exception], ...]:
    classes: tuple[Any, ...] = expected if isinstance(expected, tuple) else (expected,)
    for each in classes:
        if not isinstance(each, type) or not issubclass(each, Exception):
            raise ConfigurationError(
                f"node {node!r}: expected={expected!r}; allowed is a subclass of Exception, or a tuple of them"
            )
    return classes


def _profile_of(name: str, profile: object, kind: Kind) -> ProfilePolicy | None:
    policy = policy_of(profile, name)
    if policy is not None and policy.profiler == "cprofile" and kind is not Kind.SYNC:
        raise ConfigurationError(
            f"node {name!r}: profile=ProfilePolicy(profiler='cprofile') is allowed on synchronous functions without "
            f"timeout= only, which stay on their thread; use profiler='sampling'"
        )
    return policy


def _kind_of(func: Callable[..., Any]) -> Kind:
    plain = func
    while isinstance(plain, functools.partial):
        plain = plain.func
    called = () if inspect.isroutine(plain) or isinstance(plain, type) else (type(plain).__call__,)
    for each in (plain, *called):  # an object may be marked as a coroutine function, or have an ``async __call__``
        if inspect.isasyncgenfunction(each):
            return Kind.ASYNC_STREAM
        if is_coroutine_function(each):
            return Kind.ASYNC
        if inspect.isgeneratorfunction(each):
            return Kind.STREAM
    return Kind.SYNC


def _signature_of(func: Callable[..., Any], name: str) -> Signature:
    try:
        return read_signature(func)
    except (TypeError, ValueError) as error:
        raise CompositionError(f"@node: the parameters of {name!r} cannot be read; wrap it in a function") from error
