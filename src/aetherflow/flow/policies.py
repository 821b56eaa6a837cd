"""What an execution of a node may do besides calling its function: try again, and give up in time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, TypeGuard

import anyio
import tenacity

from aetherflow.engine.graph import Kind
from aetherflow.engine.plan import Slots
from aetherflow.engine.pool import Outcome
from aetherflow.errors import ConfigurationError, NodeTimeoutError
from aetherflow.telemetry.observation import Site, executing_here
from aetherflow.telemetry.retries import begin_attempts, end_attempts, retried

__all__ = ["RetryPolicy", "counted_at", "with_policies"]


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
        async_sleep: Waits in asynchronous nodes, and in synchronous ones with a time limit; for tests.

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
        kinds: tuple[object, ...] = self.on if isinstance(self.on, tuple) else (self.on,)
        if not kinds or not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
            raise ConfigurationError(f"RetryPolicy(on={self.on!r}): allowed is an exception class or a tuple of them")
        attempts: object = self.attempts
        if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
            raise ConfigurationError(f"RetryPolicy(attempts={attempts!r}): allowed is a whole number from 1")
        for name in ("wait_initial", "wait_max", "wait_jitter"):
            value: object = getattr(self, name)
            if not _is_number(value) or not value >= 0:
                raise ConfigurationError(f"RetryPolicy({name}={value!r}): allowed is a number of seconds from 0")

    def _arguments(self) -> dict[str, Any]:
        wait = tenacity.wait_exponential(self.wait_initial, self.wait_max) + tenacity.wait_random(0, self.wait_jitter)
        return {
            "stop": tenacity.stop_after_attempt(self.attempts),
            "wait": wait,
            "retry": tenacity.retry_if_exception_type(self.on),
            "before_sleep": _report,
            "reraise": True,
        }


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


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
    policy: object = retry
    if policy is not None and not isinstance(policy, RetryPolicy):
        raise ConfigurationError(f"node {name!r}: retry={retry!r}; allowed is RetryPolicy(on=SomeError, …) or None")
    if timeout is not None:
        if not _is_number(timeout) or not timeout > 0:
            raise ConfigurationError(f"node {name!r}: timeout={timeout!r}; allowed is a number of seconds above 0")
        limit = _limited if kind is Kind.ASYNC else _limited_on_thread
        function, kind = limit(name, function, float(timeout)), Kind.ASYNC
    if retry is not None:
        function = _retrying_async(function, retry) if kind is Kind.ASYNC else _retrying(function, retry)
    return function, kind


def counted_at(site: Site, invoke: Callable[[Slots], Any], kind: Kind) -> Callable[[Slots], Any]:
    """Have the retries of a node counted as those of one place.

    Args:
        site: The place.
        invoke: Calls the node's function, with its policies.
        kind: How that gives its result.
    """
    if kind is Kind.ASYNC:

        async def awaited(slots: Slots) -> Any:
            token = begin_attempts(site)
            try:
                return await invoke(slots)
            finally:
                end_attempts(token)

        return awaited

    def called(slots: Slots) -> Any:
        token = begin_attempts(site)
        try:
            return invoke(slots)
        finally:
            end_attempts(token)

    return called


def _retrying(function: Callable[..., Any], policy: RetryPolicy) -> Callable[..., Any]:
    retrying = tenacity.Retrying(sleep=policy.sleep, **policy._arguments())

    @wraps(function)
    def attempt(*arguments: Any, **named: Any) -> Any:
        return retrying.copy()(partial(function, *arguments, **named))

    return attempt


def _retrying_async(function: Callable[..., Any], policy: RetryPolicy) -> Callable[..., Any]:
    retrying = tenacity.AsyncRetrying(sleep=policy.async_sleep, **policy._arguments())

    @wraps(function)
    async def attempt(*arguments: Any, **named: Any) -> Any:
        return await retrying.copy()(partial(function, *arguments, **named))

    return attempt


def _limited(name: str, function: Callable[..., Any], timeout: float) -> Callable[..., Any]:
    @wraps(function)
    async def limited(*arguments: Any, **named: Any) -> Any:
        with anyio.move_on_after(timeout):
            return await function(*arguments, **named)
        raise NodeTimeoutError(name, timeout)

    return limited


def _limited_on_thread(name: str, function: Callable[..., Any], timeout: float) -> Callable[..., Any]:
    @wraps(function)
    async def limited(*arguments: Any, **named: Any) -> Any:
        call = partial(copy_context().run, executing_here, partial(function, *arguments, **named))
        with anyio.move_on_after(timeout):
            outcome = await asyncio.wrap_future(_begun_apart(name, call))
            if outcome.error is not None:
                raise outcome.error
            return outcome.value
        raise NodeTimeoutError(name, timeout)

    return limited


def _begun_apart(name: str, call: Callable[[], Any]) -> Future[Outcome]:
    """Begin a call on a thread of its own; one that is late is left to itself, its result unused.

    No thread can be stopped from outside, so the caller is set free rather than the thread. A daemon, it cannot keep
    the process from leaving either.
    """
    future: Future[Outcome] = Future()
    future.set_running_or_notify_cancel()  # from now on nobody can cancel it under the thread's hands

    def work() -> None:
        outcome = Outcome()
        try:
            outcome.value = call()
        except BaseException as error:  # noqa: BLE001  # handed on to whoever waits
            outcome.error = error
        future.set_result(outcome)  # a value even then: asyncio's futures refuse some exceptions

    threading.Thread(target=work, name=f"aetherflow-{name}", daemon=True).start()
    return future
