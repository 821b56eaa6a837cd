"""What an execution of a node may do besides calling its function: try again, and give up in time."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import anyio
import anyio.to_thread
import tenacity

from aetherflow.engine.graph import Kind
from aetherflow.errors import ConfigurationError, NodeTimeoutError
from aetherflow.telemetry.observer import executing_here, retried

__all__ = ["RetryPolicy", "with_policies"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Try a failed execution again, after a wait that doubles each time and is jittered.

    Args:
        on: The exceptions to try again on; nothing else is.
        attempts: The most attempts, the first one counted in.
        wait_initial: Seconds before the second attempt.
        wait_max: The most seconds between two attempts, jitter left out.
        wait_jitter: Up to so many random seconds are added to each wait.
        sleep: Waits in synchronous nodes; for tests.
        async_sleep: Waits in asynchronous nodes; for tests.

    Raises:
        ConfigurationError: A value is not allowed.
    """

    on: type[Exception] | tuple[type[Exception], ...]
    attempts: int = 3
    wait_initial: float = 0.1
    wait_max: float = 5.0
    wait_jitter: float = 0.1
    sleep: Callable[[float], None] = time.sleep
    async_sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def __post_init__(self) -> None:
        kinds = self.on if isinstance(self.on, tuple) else (self.on,)
        if not kinds or not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
            raise ConfigurationError(f"RetryPolicy(on={self.on!r}): allowed is an exception class or a tuple of them")
        if not isinstance(self.attempts, int) or self.attempts < 1:
            raise ConfigurationError(f"RetryPolicy(attempts={self.attempts!r}): allowed is a whole number from 1")
        for name in ("wait_initial", "wait_max", "wait_jitter"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not value >= 0:
                raise ConfigurationError(f"RetryPolicy({name}={value!r}): allowed is a number of seconds from 0")

    def _arguments(self, report: Callable[[tenacity.RetryCallState], None]) -> dict[str, Any]:
        return {
            "stop": tenacity.stop_after_attempt(self.attempts),
            "wait": tenacity.wait_exponential_jitter(self.wait_initial, self.wait_max, 2, self.wait_jitter),
            "retry": tenacity.retry_if_exception_type(self.on),
            "before_sleep": report,
            "reraise": True,
        }


def _report(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    if error is not None:
        retried(error, state.attempt_number, state.upcoming_sleep)


def with_policies(
    name: str, function: Callable[..., Any], kind: Kind, retry: RetryPolicy | None, timeout: float | None
) -> tuple[Callable[..., Any], Kind]:
    """Put a node's policies around its function; the time limit holds for each attempt.

    Args:
        name: The node's name, for errors.
        function: The plain function.
        kind: How it gives its result.
        retry: When to try again.
        timeout: Seconds that an attempt may take.

    Returns:
        What to call, and how that gives its result: a synchronous function with a time limit is awaited.

    Raises:
        ConfigurationError: A policy does not fit the function.
    """
    if retry is None and timeout is None:
        return function, kind
    if kind in (Kind.STREAM, Kind.ASYNC_STREAM):
        raise ConfigurationError(f"node {name!r} is a generator: retry= and timeout= are allowed on functions only")
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise ConfigurationError(f"node {name!r}: retry={retry!r}; allowed is RetryPolicy(on=SomeError, …) or None")
    if timeout is not None:
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
            raise ConfigurationError(f"node {name!r}: timeout={timeout!r}; allowed is a number of seconds above 0")
        limit = _limited if kind is Kind.ASYNC else _limited_on_thread
        function, kind = limit(name, function, float(timeout)), Kind.ASYNC
    if retry is not None:
        function = _retrying_async(function, retry) if kind is Kind.ASYNC else _retrying(function, retry)
    return function, kind


def _retrying(function: Callable[..., Any], policy: RetryPolicy) -> Callable[..., Any]:
    retrying = tenacity.Retrying(sleep=policy.sleep, **policy._arguments(_report))

    @wraps(function)
    def attempt(*arguments: Any, **named: Any) -> Any:
        return retrying.copy()(function, *arguments, **named)

    return attempt


def _retrying_async(function: Callable[..., Any], policy: RetryPolicy) -> Callable[..., Any]:
    retrying = tenacity.AsyncRetrying(sleep=policy.async_sleep, **policy._arguments(_report))

    @wraps(function)
    async def attempt(*arguments: Any, **named: Any) -> Any:
        return await retrying.copy()(function, *arguments, **named)

    return attempt


def _limited(name: str, function: Callable[..., Any], timeout: float) -> Callable[..., Any]:
    @wraps(function)
    async def limited(*arguments: Any, **named: Any) -> Any:
        with anyio.move_on_after(timeout) as scope:
            return await function(*arguments, **named)
        if scope.cancelled_caught:
            raise NodeTimeoutError(name, timeout)

    return limited


def _limited_on_thread(name: str, function: Callable[..., Any], timeout: float) -> Callable[..., Any]:
    """Call a synchronous function on a thread of its own; one that is late is left to itself, its result unused.

    No thread can be stopped from outside, so the caller is set free rather than the thread.
    """
    @wraps(function)
    async def limited(*arguments: Any, **named: Any) -> Any:
        call = partial(function, *arguments, **named)
        context = contextvars.copy_context()
        with anyio.move_on_after(timeout) as scope:
            return await anyio.to_thread.run_sync(
                context.run, executing_here, call, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
            )
        if scope.cancelled_caught:
            raise NodeTimeoutError(name, timeout)

    return limited
