"""Details of executions, reported by the code that attempts a node again."""

from __future__ import annotations

from typing import Any, Final

from opentelemetry import trace
from opentelemetry.semconv.attributes.exception_attributes import EXCEPTION_MESSAGE

from aetherflow.telemetry import conventions as names
from aetherflow.telemetry import shield
from aetherflow.telemetry.metrics.accumulators import registry
from aetherflow.telemetry.observation import current_details, error_type
from aetherflow.telemetry.observer import emit
from aetherflow.user_exceptions import message_of

__all__ = ["noted", "retried", "waited"]

MAX_MESSAGE: Final = 2_000
"""The most bytes of an exception's message in an event."""


def retried(error: BaseException, attempt: int, delay: float) -> None:
    """Count that an attempt of the current execution failed and another one follows.

    Args:
        error: The error that ended the attempt.
        attempt: Its number, from 1.
        delay: Seconds until the next attempt.
    """
    details = current_details.get()
    if details is not None:
        details.kind = "retried"
        attributes = {**details.site.metric_attributes, names.ERROR_TYPE: error_type(error)}
        emit(registry.series(names.NODE_RETRIES, attributes))
    noted(error, attempt, delay)


def waited(nanoseconds: int) -> None:
    """Record the time between two attempts of the current execution."""
    details = current_details.get()
    if details is not None:
        details.retry_wait += nanoseconds
        emit(registry.series(names.RETRY_WAIT_METRIC, details.site.metric_attributes), nanoseconds)


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
