"""What is told of an attempt that failed and is followed by another."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Any, Final

from opentelemetry import trace

from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.metrics.accumulators import registry
from aetherflow.telemetry.observation import Site, error_type
from aetherflow.telemetry.observer import emit

__all__ = ["begin_attempts", "end_attempts", "noted", "retried"]

_retrying: Final[ContextVar[Site | None]] = ContextVar("aetherflow_retrying", default=None)


def begin_attempts(site: Site) -> Token[Site | None]:
    """Say whose attempts are those from now on in this context; give the result to :func:`end_attempts`."""
    return _retrying.set(site)


def end_attempts(token: Token[Site | None]) -> None:
    """Say that there are no more of them."""
    _retrying.reset(token)


def retried(error: BaseException, attempt: int, delay: float) -> None:
    """Count that an attempt failed and another follows, and note it on the current span.

    Args:
        error: What ended the attempt.
        attempt: Its number, from 1.
        delay: Seconds until the next one.
    """
    site = _retrying.get()
    if site is not None:
        attributes = {**site.metric_attributes, names.ERROR_TYPE: error_type(error)}
        emit(registry.series(names.NODE_RETRIES, attributes))
    noted(error, attempt, delay)


def noted(error: BaseException, attempt: int, delay: float) -> None:
    """Note the same on the current span alone, where that is not an execution of a node."""
    span = trace.get_current_span()
    if span.is_recording():
        event: dict[str, Any] = {
            names.NODE_ATTEMPT: attempt,
            names.ERROR_TYPE: error_type(error),
            names.RETRY_DELAY: delay,
        }
        span.add_event(names.RETRY_EVENT, event)
        span.set_attribute(names.NODE_ATTEMPT, attempt + 1)
