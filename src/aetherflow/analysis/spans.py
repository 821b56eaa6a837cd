"""Spans as they were exported, read from OTLP JSON files; no SDK is needed to look at them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

from opentelemetry.semconv.attributes.service_attributes import SERVICE_NAME

from aetherflow.analysis.otlp_fields import (
    Attributes,
    MalformedFieldError,
    Message,
    attributes,
    enumerated,
    identifier,
    message,
    messages,
    text,
    whole,
)
from aetherflow.analysis.otlp_files import OtlpRecord, UnreadableTelemetryError, read_records
from aetherflow.telemetry import conventions as names

__all__ = [
    "Resource",
    "Scope",
    "Span",
    "SpanEvent",
    "SpanKind",
    "SpanLink",
    "SpanStatus",
    "StatusCode",
    "read_spans",
    "spans_of",
]

SpanKind: TypeAlias = Literal["unspecified", "internal", "server", "client", "producer", "consumer"]
StatusCode: TypeAlias = Literal["unset", "ok", "error"]

_KINDS: Final[tuple[SpanKind, ...]] = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATUS_CODES: Final[tuple[StatusCode, ...]] = ("unset", "ok", "error")
_TRACE_DIGITS: Final = 32
_SPAN_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class Resource:
    """What emitted the spans: a service, a process, a host."""

    attributes: Attributes

    @property
    def service(self) -> str:
        """The service's name; empty where none was given."""
        name = self.attributes.get(SERVICE_NAME)
        return name if isinstance(name, str) else ""


@dataclass(frozen=True, slots=True)
class Scope:
    """The instrumentation that made the spans."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """Something that happened at one moment of a span; ``time`` is in nanoseconds since the epoch."""

    name: str
    time: int
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class SpanLink:
    """A reference to another span, in lower-case hexadecimal ids."""

    trace_id: str
    span_id: str
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class SpanStatus:
    """How a span ended; ``message`` is empty except, perhaps, for errors."""

    code: StatusCode
    message: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """One exported span.

    Ids are lower-case hexadecimal, ``parent_id`` is None for a root; ``start`` and ``end`` are nanoseconds since the
    epoch, as the exporter's clock had them, so ``end`` may even come before ``start``.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: SpanKind
    start: int
    end: int
    resource: Resource
    scope: Scope
    status: SpanStatus = SpanStatus("unset")
    attributes: Attributes = field(default_factory=dict)
    events: tuple[SpanEvent, ...] = ()
    links: tuple[SpanLink, ...] = ()

    @property
    def duration(self) -> float:
        """Seconds from start to end, never negative."""
        return max(0, self.end - self.start) / 1e9

    @property
    def failed(self) -> bool:
        """Whether the status is an error."""
        return self.status.code == "error"

    @property
    def is_computed(self) -> bool:
        """Return whether the span is no cache hit and took one attempt, so that its duration is that of the work."""
        return not self.attributes.get(names.EXECUTION_KIND)

    @property
    def expected_type(self) -> str:
        """The class of an exception that the node declares as expected; "" if the span did not end with one."""
        results = (self.attributes.get(name) for name in (names.NODE_RESULT, names.RUN_RESULT))
        return str(self.attributes.get(names.EXPECTED_TYPE, "exception")) if "expected" in results else ""


def read_spans(
    path: str | os.PathLike[str], *, on_truncated: Callable[[Path, int], None] | None = None
) -> Iterator[Span]:
    """Read the spans of an OTLP JSON file, one by one; other signals in it are passed over.

    Args:
        path: The file, as `read_records` takes it.
        on_truncated: Called with the file and the line of a last record that was left out.

    Yields:
        The spans, in the order of the file.

    Raises:
        UnreadableTelemetryError: The file cannot be read, or a field of a span is not OTLP.
    """
    for record in read_records(path, on_truncated=on_truncated):
        yield from spans_of(record)


def spans_of(record: OtlpRecord) -> Iterator[Span]:
    """Yield the spans in one record.

    Raises:
        UnreadableTelemetryError: A field of a span is not OTLP.
    """
    try:
        for group in messages(record.data, "resourceSpans"):
            resource = Resource(attributes(message(group, "resource")))
            for scoped in messages(group, "scopeSpans"):
                origin = message(scoped, "scope")
                scope = Scope(text(origin, "name"), text(origin, "version"))
                for data in messages(scoped, "spans"):
                    yield _span(data, resource, scope)
    except MalformedFieldError as error:
        raise UnreadableTelemetryError(record.path, record.line, f"is not OTLP: {error}") from error


def _span(data: Message, resource: Resource, scope: Scope) -> Span:
    status = message(data, "status")
    return Span(
        trace_id=_required_id(data, "traceId", _TRACE_DIGITS),
        span_id=_required_id(data, "spanId", _SPAN_DIGITS),
        parent_id=identifier(data, "parentSpanId", _SPAN_DIGITS) or None,
        name=text(data, "name"),
        kind=enumerated(data, "kind", "SPAN_KIND_", _KINDS),
        start=whole(data, "startTimeUnixNano"),
        end=whole(data, "endTimeUnixNano"),
        resource=resource,
        scope=scope,
        status=SpanStatus(enumerated(status, "code", "STATUS_CODE_", _STATUS_CODES), text(status, "message")),
        attributes=attributes(data),
        events=tuple(_event(item) for item in messages(data, "events")),
        links=tuple(_link(item) for item in messages(data, "links")),
    )


def _event(data: Message) -> SpanEvent:
    return SpanEvent(text(data, "name"), whole(data, "timeUnixNano"), attributes(data))


def _link(data: Message) -> SpanLink:
    return SpanLink(
        _required_id(data, "traceId", _TRACE_DIGITS), _required_id(data, "spanId", _SPAN_DIGITS), attributes(data)
    )


def _required_id(data: Message, name: str, digits: int) -> str:
    value = identifier(data, name, digits)
    if not value:
        raise MalformedFieldError(name, data.get(name), f"{digits} hexadecimal digits that are not all zero")
    return value
