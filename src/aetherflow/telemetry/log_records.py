"""Events of structlog as OpenTelemetry log records, emitted through the logs API."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry import context as api_context
from opentelemetry._logs import LoggerProvider, LogRecord, SeverityNumber
from opentelemetry.semconv.attributes import exception_attributes
from opentelemetry.util.types import AnyValue
from structlog.typing import EventDict, WrappedLogger

from aetherflow.telemetry import conventions as names
from aetherflow.telemetry import shield
from aetherflow.user_exceptions import message_of, traceback_text_of

__all__ = ["LogEmitter"]

_SEVERITIES: Final = {
    "debug": SeverityNumber.DEBUG,
    "info": SeverityNumber.INFO,
    "warning": SeverityNumber.WARN,
    "error": SeverityNumber.ERROR,
    "critical": SeverityNumber.FATAL,
}
_TOLD_OTHERWISE: Final = frozenset(
    {"event", "exc_info", "level", "logger", "span_id", "stack_info", "timestamp", "trace_id"}
)
"""Keys of an event that a log record has fields of its own for, or gets from the context."""


class LogEmitter:
    """A structlog processor that emits each event as a log record, with the current trace context.

    It belongs before the processors that render: exceptions and values are told as they are.

    Args:
        provider: Where the records go.
    """

    __slots__ = ("_provider",)

    def __init__(self, provider: LoggerProvider) -> None:
        self._provider = provider

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """Emit the event; it is passed on as it is."""
        # What is logged while telemetry is exported would be exported in turn, and so without end.
        if not api_context.get_value(api_context._SUPPRESS_INSTRUMENTATION_KEY):
            try:
                self._provider.get_logger(str(event.get("logger") or names.SCOPE_NAME)).emit(_record(event))
            except Exception as failure:  # noqa: BLE001  # rule 3: telemetry never breaks the host
                shield.caught(failure, "emitting a log record")
        return event


def _record(event: Mapping[str, Any]) -> LogRecord:
    level, now = str(event.get("level", "info")), time.time_ns()
    severity = _SEVERITIES.get(level)
    told = ((key, value) for key, value in event.items() if key not in _TOLD_OTHERWISE)
    attributes = {names.LOG_FIELDS.get(key, key): _value(value) for key, value in told}
    return LogRecord(
        timestamp=now,
        observed_timestamp=now,
        context=api_context.get_current(),
        severity_number=severity,
        severity_text=severity.name if severity else level.upper(),
        body=_value(event.get("event")),
        attributes={**attributes, **_exception(event.get("exc_info"))},
    )


def _exception(said: object) -> dict[str, AnyValue]:
    """Return the attributes of an exception, given in any of the ways that structlog takes it."""
    match said:
        case BaseException() as error:
            pass
        case (_, BaseException() as error, _):
            pass
        case _:
            error = sys.exception() if said else None  # type: ignore[assignment]
    if error is None:
        return {}
    kind = type(error)
    return {
        exception_attributes.EXCEPTION_TYPE: f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."),
        exception_attributes.EXCEPTION_MESSAGE: message_of(error) or "",
        exception_attributes.EXCEPTION_STACKTRACE: traceback_text_of(error),
    }


def _value(value: object) -> AnyValue:
    """Return a value as OTLP can carry it; what it cannot carry is told by its ``repr``."""
    match value:
        case None | str() | bool() | int() | float() | bytes():
            return value
        case Mapping():
            return {str(key): _value(each) for key, each in value.items()}
        case Sequence():
            return [_value(each) for each in value]
        case _:
            return repr(value)
