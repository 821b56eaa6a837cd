"""Logs that tell the trace, the flow and the node they were made in, and what ``configure(logs=True)`` sets up.

:func:`add_trace_context` is a structlog processor; put it into any chain, also into the ``foreign_pre_chain`` of a
``ProcessorFormatter``::

    structlog.configure(processors=[add_trace_context, structlog.processors.JSONRenderer()])
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

import structlog
from opentelemetry import trace
from opentelemetry._logs import LoggerProvider
from structlog.stdlib import ExtraAdder, ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

from aetherflow.telemetry import conventions as names
from aetherflow.telemetry import shield
from aetherflow.telemetry.log_records import LogEmitter

__all__ = ["add_trace_context", "set_up_logs"]


def add_trace_context(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Add ``trace_id``, ``span_id``, ``flow`` and ``node`` of the execution in which an event is made.

    Only where the current span is valid; a key that the event has already stays as it is. The ids are in hexadecimal,
    32 and 16 digits.

    Args:
        logger: Not used.
        method: Not used.
        event: The event, changed in place.

    Returns:
        The event.
    """
    span = trace.get_current_span()
    context = span.get_span_context()
    if context.is_valid:
        event.setdefault("trace_id", f"{context.trace_id:032x}")
        event.setdefault("span_id", f"{context.span_id:016x}")
        # The API's spans cannot be read; those of every SDK that records can. Nothing is kept for logs on the way in.
        attributes = getattr(span, "attributes", None) or {}
        for field, attribute in names.LOG_FIELDS.items():
            if attribute in attributes:
                event.setdefault(field, attributes[attribute])
    return event


class _Line:
    """What structlog hands rendered events to; named and levelled by the standard logger of the same name.

    Args:
        name: The logger's name.
    """

    __slots__ = ("_levels", "name")

    def __init__(self, name: str | None = None, *_: object) -> None:
        self.name = name or "root"
        self._levels = logging.getLogger(name)

    def takes(self, method: str) -> bool:
        """Tell whether events of a method are wanted."""
        return self._levels.isEnabledFor(_LEVELS.get(method, logging.CRITICAL))

    def msg(self, message: str) -> None:
        """Write a line."""
        _write(message)

    log = debug = info = warn = warning = err = error = exception = fatal = failure = critical = msg


class _StandardRecords(logging.Handler):
    """Takes the records of the standard library through the chain of structlog.

    Args:
        processors: What follows on what every event gets; the last one renders.
        prints: Whether records are written, or only go through the chain.
    """

    def __init__(self, processors: list[Processor], *, prints: bool) -> None:
        super().__init__()
        self._prints = prints
        self.setFormatter(
            ProcessorFormatter(
                foreign_pre_chain=[*_SHARED, ExtraAdder()],
                processors=[ProcessorFormatter.remove_processors_meta, *processors],
            )
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001  # as every handler of the standard library has it
            self.handleError(record)
        else:
            if self._prints:
                _write(line)


def _write(line: str) -> None:
    # The stream is looked up each time: who replaces `sys.stdout` means the lines too.
    try:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except (AttributeError, OSError, ValueError) as failure:  # there is none, it is closed, or cannot take the line
        shield.caught(failure, "writing a log line")


_LEVELS: Final = {name.lower(): level for name, level in logging.getLevelNamesMapping().items()}


def _filter_by_level(logger: _Line, method: str, event: EventDict) -> EventDict:
    """Drop what the standard logger of the same name would not take."""
    if logger.takes(method):
        return event
    raise structlog.DropEvent


_SHARED: Final[list[Processor]] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    add_trace_context,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]
"""What every event gets, whoever made it."""


def set_up_logs(provider: LoggerProvider | None, *, carries_standard: bool = True) -> Callable[[], None]:
    """Have structlog and the standard library write to standard output, as JSON lines, or for people in a terminal.

    What the application has set up stays: structlog where it is configured, and handlers of the root logger, which
    then print the standard library's records as before.

    Args:
        provider: Where log records are exported to; None for nowhere.
        carries_standard: Whether the standard library's records are exported too.

    Returns:
        What undoes it.
    """
    undo = ExitStack()
    export: list[Processor] = [] if provider is None else [LogEmitter(provider)]
    carry = export if carries_standard else []
    if not structlog.is_configured():
        undo.callback(_configure_structlog([*export, *_renderers()]))
    root = logging.getLogger()
    if all(type(each).__module__.startswith("opentelemetry.") for each in root.handlers):  # those print nothing
        level = logging.INFO if root.level == logging.WARNING else root.level  # a level that nobody has set
        undo.callback(_add_handler(root, _StandardRecords([*carry, *_renderers()], prints=True), level))
    elif carry:
        undo.callback(_add_handler(root, _StandardRecords([*carry, _no_text], prints=False), root.level))
    return undo.close


def _renderers() -> list[Processor]:
    """Return what makes a line of an event: for people in a terminal, else for machines."""
    if sys.stdout is not None and sys.stdout.isatty():
        # Without the values of local variables, which other formatters show where they can.
        return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


def _no_text(logger: WrappedLogger, method: str, event: EventDict) -> str:
    return ""


def _configure_structlog(chain: list[Processor]) -> Callable[[], None]:
    stack = structlog.processors.StackInfoRenderer()
    processors: list[Processor] = [_filter_by_level, *_SHARED, stack, *chain]
    # Loggers are not cached: those that modules keep would go on exporting after it was undone.
    structlog.configure(
        processors,
        structlog.make_filtering_bound_logger(logging.NOTSET),
        logger_factory=_Line,
        cache_logger_on_first_use=False,
    )

    def undo() -> None:
        if structlog.get_config()["processors"] is processors:
            structlog.reset_defaults()

    return undo


def _add_handler(root: logging.Logger, handler: logging.Handler, level: int) -> Callable[[], None]:
    before = root.level
    root.addHandler(handler)
    root.setLevel(level)

    def undo() -> None:
        root.removeHandler(handler)
        if root.level == level:
            root.setLevel(before)

    return undo
