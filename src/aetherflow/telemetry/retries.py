"""Details of executions, reported by the code that serves a result from a cache or attempts a node again."""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.semconv.attributes.exception_attributes import EXCEPTION_MESSAGE

from aetherflow.telemetry import conventions as names
from aetherflow.telemetry import shield
from aetherflow.telemetry.conventions import ExecutionKind
from aetherflow.telemetry.metrics.accumulators import registry
from aetherflow.telemetry.observation import ExecutionDetails, Observation, Site, error_type
from aetherflow.telemetry.observer import emit
from aetherflow.user_exceptions import message_of

__all__ = ["DetailedExecution", "classify_execution", "noted", "retried", "waited"]

MAX_MESSAGE: Final = 2_000
"""The most bytes of an exception's message in an event."""

_current: Final[ContextVar[tuple[Site, ExecutionDetails] | None]] = ContextVar("aetherflow_details", default=None)


class DetailedExecution:
    """A context manager around an execution that reports details.

    Args:
        site: The node.
        observation: The execution.
    """

    __slots__ = ("_details", "_site", "_token")

    def __init__(self, site: Site, observation: Observation) -> None:
        self._site = site
        self._details = ExecutionDetails()
        observation.report(self._details)

    def __enter__(self) -> None:
        self._token = _current.set((self._site, self._details))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _current.reset(self._token)


def classify_execution(kind: ExecutionKind) -> None:
    """Set the kind of the current execution, unless an earlier event has set it."""
    current = _current.get()
    if current is not None and current[1].kind is None:
        current[1].kind = kind


def retried(error: BaseException, attempt: int, delay: float) -> None:
    """Count that an attempt of the current execution failed and another one follows.

    Args:
        error: The error that ended the attempt.
        attempt: Its number, from 1.
        delay: Seconds until the next attempt.
    """
    current = _current.get()
    if current is not None:
        site, details = current
        details.kind = "retried"
        emit(registry.series(names.NODE_RETRIES, {**site.metric_attributes, names.ERROR_TYPE: error_type(error)}))
    noted(error, attempt, delay)


def waited(nanoseconds: int) -> None:
    """Record the time between two attempts of the current execution."""
    current = _current.get()
    if current is not None:
        site, details = current
        details.retry_wait += nanoseconds
        emit(registry.series(names.RETRY_WAIT_METRIC, site.metric_attributes), nanoseconds)


def noted(error: BaseException, attempt: int, delay: float) -> None:
    """Add the event of a failed attempt to the current span."""
    try:
        span = trace.get_current_span()
        if not span.is_recording():
            return
        event: dict[str, Any] = {
            names.NODE_ATTEMPT: attempt,
            names.ERROR_TYPE: error_type(error),
            names.RETRY_DELAY: delay,
        }
        message = message_of(error)
        if message is not None:
            event[EXCEPTION_MESSAGE] = _truncated(message)
        span.add_event(names.RETRY_EVENT, event)
        span.set_attribute(names.NODE_ATTEMPT, attempt + 1)
    except Exception as failure:  # noqa: BLE001  # telemetry never breaks the host
        shield.caught(failure, "recording a failed attempt")


def _truncated(message: str) -> str:
    """Return a message of at most `MAX_MESSAGE` bytes of UTF-8; a lone surrogate is replaced."""
    data = message.encode("utf-8", "replace")
    return data[:MAX_MESSAGE].decode("utf-8", "ignore")
