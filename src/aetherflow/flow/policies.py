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
from aetherflow.engine.pool import Outcome
from aetherflow.errors import ConfigurationError, NodeTimeoutError
from aetherflow.flow.one_shot import error_of_used_stream
from aetherflow.telemetry.observation import executing_here
from aetherflow.telemetry.retries import retried, waited
from aetherflow.user_exceptions import is_error, is_expected

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


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def with_policies(
    name: str,
    function: Callable[..., Any],
    kind: Kind,
    retry: RetryPolicy | None,
    timeout: float | None,
    expected: tuple[type[Exception], ...] = (),
) -> tuple[Callable[..., Any], Kind]:
    """Put a node's policies around its function; the time limit holds for each attempt.

    Args:
        name: The node's name, for errors.
        function: The plain function.
        kind: How it gives its result.
        retry: When to try again.
        timeout: Seconds that an attempt may take.
        expected: Exceptions that are no failures, and so no reason for another attempt.

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
        attempts = _Attempts(name, retry, expected)
        function = attempts.around_async(function) if kind is Kind.ASYNC else attempts.around(function)
    return function, kind


class _Attempts:
    """The attempts of the executions of one node.

    An attempt that fails is an outcome, not an exception, until the last one has ended: nothing in between raises an
    exception of the user, or looks into one.

    Args:
        name: The node's name, for errors.
        policy: When to try again.
        expected: Exceptions that are no reason for another attempt.
    """

    def __init__(self, name: str, policy: RetryPolicy, expected: tuple[type[Exception], ...]) -> None:
        self._name = name
        self._policy = policy
        self._expected = expected
        self._options: dict[str, Any] = {
            "wait": tenacity.wait_exponential(policy.wait_initial, policy.wait_max)
            + tenacity.wait_random(0, policy.wait_jitter),
            "before_sleep": _report,
        }

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a synchronous function with these attempts around it."""
        retrying = tenacity.Retrying(sleep=_measured(self._policy.sleep), **self._options)

        def attempt(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
            outcome = Outcome()
            try:
                outcome.value = function(*args, **kwargs)
            except Exception as error:  # noqa: BLE001  # raised after the last attempt
                outcome.error = error
            return outcome

        @wraps(function)
        def attempts(*args: Any, **kwargs: Any) -> Any:
            first = attempt(args, kwargs)
            if not self._is_retryable(first):
                return first.get()
            waiting = [first]
            again = retrying.copy(retry=self._condition(args, kwargs))
            return again(lambda: waiting.pop() if waiting else attempt(args, kwargs)).get()

        return attempts

    def around_async(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a coroutine function with these attempts around it."""
        retrying = tenacity.AsyncRetrying(sleep=_measured_async(self._policy.async_sleep), **self._options)

        async def attempt(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
            outcome = Outcome()
            try:
                outcome.value = await function(*args, **kwargs)
            except Exception as error:  # noqa: BLE001  # raised after the last attempt
                outcome.error = error
            return outcome

        @wraps(function)
        async def attempts(*args: Any, **kwargs: Any) -> Any:
            first = await attempt(args, kwargs)
            if not self._is_retryable(first):
                return first.get()
            waiting = [first]

            async def next_outcome() -> Outcome:
                return waiting.pop() if waiting else await attempt(args, kwargs)

            again = retrying.copy(retry=self._condition(args, kwargs))
            return (await again(next_outcome)).get()

        return attempts

    def _is_retryable(self, outcome: Outcome) -> bool:
        """Return whether an attempt ended with an exception on which the policy tries again."""
        error = outcome.error
        return error is not None and is_error(error, self._policy.on) and not is_expected(error, self._expected)

    def _condition(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[tenacity.RetryCallState], bool]:
        """Return the condition for another attempt with these arguments."""

        def is_retryable(state: tenacity.RetryCallState) -> bool:
            if state.outcome is None or state.outcome.failed:  # interrupted: the exception is not one of the outcomes
                return False
            outcome = _last_outcome(state)
            if not self._is_retryable(outcome) or state.attempt_number >= self._policy.attempts:
                return False
            refusal = error_of_used_stream(self._name, args, kwargs)
            if refusal is None:
                return True
            refusal.__cause__ = outcome.error
            outcome.error = refusal
            return False

        return is_retryable


def _report(state: tenacity.RetryCallState) -> None:
    error = _last_outcome(state).error
    if error is not None:
        retried(error, state.attempt_number, state.upcoming_sleep)


def _last_outcome(state: tenacity.RetryCallState) -> Outcome:
    assert state.outcome is not None  # an attempt has ended
    outcome: Outcome = state.outcome.result()
    return outcome


def _measured(sleep: Callable[[float], None]) -> Callable[[float], None]:
    """Return a function that sleeps and records the time between the two attempts."""

    def measured(seconds: float) -> None:
        started = time.perf_counter_ns()
        try:
            sleep(seconds)
        finally:
            waited(time.perf_counter_ns() - started)

    return measured


def _measured_async(sleep: Callable[[float], Awaitable[None]]) -> Callable[[float], Awaitable[None]]:
    """Return a coroutine function that sleeps and records the time between the two attempts."""

    async def measured(seconds: float) -> None:
        started = time.perf_counter_ns()
        try:
            await sleep(seconds)
        finally:
            waited(time.perf_counter_ns() - started)

    return measured


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
            return outcome.get()
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
