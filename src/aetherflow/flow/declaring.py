"""From a function to a task: all that is known of a node from its decoration, read once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal, get_args

from aetherflow.engine.graph import Kind, Task
from aetherflow.errors import CompositionError, ConfigurationError
from aetherflow.flow.caching import cached
from aetherflow.flow.policies import RetryPolicy, with_policies
from aetherflow.resources.caching import CachePolicy
from aetherflow.telemetry.profile_policy import ProfilePolicy, policy_of

__all__ = ["Executor", "check_executor", "check_stays", "make_task"]

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
    cache: CachePolicy | None,
    profile: bool | ProfilePolicy = False,
) -> Task:
    """Read all that a node needs to know of its function.

    Args:
        func: The function, or another callable.
        name: The node's name; None for the function's.
        retry: When to try a failed execution again.
        timeout: Seconds that an attempt may take.
        executor: Where executions run.
        cache: How results are cached.
        profile: Which executions are profiled.

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
    parameters = _parameters_of(func, chosen)
    call, kind = with_policies(chosen, func, declared, retry, timeout)
    kept = None
    if cache is not None:
        check_stays(chosen, executor)
        call, kept = cached(chosen, call, kind, parameters, cache)
    return Task(
        name=chosen,
        func=func,
        call=call,
        kind=kind,
        declared=declared,
        parameters=parameters,
        qualname=f"{getattr(func, '__module__', '')}.{getattr(func, '__qualname__', type(func).__qualname__)}",
        retries=retry is not None,
        executor=executor,
        cache=kept,
        profile=_profile_of(chosen, profile, kind),
    )


def check_stays(node: str, executor: str | None) -> None:
    """Refuse to send a node away whose executions share something in this process.

    Raises:
        ConfigurationError: The executor is another process.
    """
    if executor not in (None, "thread"):
        raise ConfigurationError(
            f"node {node!r} has a cache in this process, which a worker does not reach; executor={executor!r} is "
            f"allowed on nodes without cache="
        )


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
    if not inspect.isroutine(plain) and not isinstance(plain, type):
        plain = type(plain).__call__  # an object that is called like a function
    if inspect.isasyncgenfunction(plain):
        return Kind.ASYNC_STREAM
    if inspect.iscoroutinefunction(plain):
        return Kind.ASYNC
    return Kind.STREAM if inspect.isgeneratorfunction(plain) else Kind.SYNC


def _parameters_of(func: Callable[..., Any], name: str) -> tuple[inspect.Parameter, ...]:
    try:
        signature = inspect.signature(func, eval_str=True)
    except NameError:  # annotations that cannot be evaluated here say nothing to us
        signature = inspect.signature(func)
    except (TypeError, ValueError) as error:
        raise CompositionError(f"@node: the parameters of {name!r} cannot be read; wrap it in a function") from error
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return tuple(p for p in signature.parameters.values() if p.kind not in variadic)
