"""Spans as OTLP JSON, written straight from their fields: what a file destination holds.

The same spans as in ``wire``, and what OpenTelemetry's own JSON encoder would write, in ASCII. An integer of more than
64 bits is left out here too: readers refuse a whole file for one.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from json import JSONEncoder
from typing import Any, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, TraceState

from aetherflow.telemetry.encoding.wire import KINDS, MAX_DEPTH, UNENCODABLE, plain

__all__ = [
    "any_value",
    "attributes",
    "encode_span",
    "flags",
    "identity",
    "key_value",
    "link",
    "listed",
    "name_and_kind",
    "parent_id",
    "quoted",
    "request",
    "resource_head",
    "scope_head",
    "status",
    "times",
    "trace_state",
]

quoted: Final = JSONEncoder().encode
"""Encode text as a JSON string."""

_SMALLEST, _LARGEST = -(1 << 63), (1 << 63) - 1
_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200


# --- values --------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _key(key: str) -> str:
    return f'{{"key":{_text(key)},"value":' if key else '{"value":'


def key_value(key: str, value: object) -> str:
    """Encode an attribute; arguments and errors as in ``wire``."""
    return f"{_key(key)}{any_value(value)}}}"


def attributes(pairs: Mapping[str, Any] | None) -> str:
    """Encode attributes as a field, with a comma before it; those that OTLP cannot carry are left out."""
    if not pairs:
        return ""
    parts = []
    for key, value in plain(pairs).items():
        try:
            parts.append(key_value(key, value))
        except UNENCODABLE:
            continue
    return f',"attributes":[{",".join(parts)}]' if parts else ""


def any_value(value: object, depth: int = 0) -> str:
    """Encode an ``AnyValue``; arguments and errors as in ``wire``."""
    if (encode := _ENCODERS.get(type(value))) is not None:
        return encode(value)
    for kind, encode in _ENCODERS.items():
        if isinstance(value, kind):
            return encode(value)
    if depth == MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    if isinstance(value, Sequence):
        parts, field = [any_value(item, depth + 1) for item in value], "arrayValue"
    elif isinstance(value, Mapping):
        parts = [f"{_key(str(key))}{any_value(item, depth + 1)}}}" for key, item in value.items()]
        field = "kvlistValue"
    else:
        raise TypeError(f"OTLP has no value for {type(value).__qualname__}")
    return f'{{"{field}":{{"values":[{",".join(parts)}]}}}}' if parts else f'{{"{field}":{{}}}}'


def _integer(value: int) -> str:
    if not _SMALLEST <= value <= _LARGEST:
        raise ValueError("an integer of more than 64 bits")
    return f'{{"intValue":"{int(value)}"}}'


def _double(value: float) -> str:
    if math.isfinite(value):
        return f'{{"doubleValue":{float.__repr__(value)}}}'
    return f'{{"doubleValue":"{"NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}"}}'


_ENCODERS: Final[Mapping[type, Callable[[Any], str]]] = {
    str: lambda value: f'{{"stringValue":{quoted(value)}}}',
    bool: lambda value: '{"boolValue":true}' if value else '{"boolValue":false}',  # before int, which it is one of
    int: _integer,
    float: _double,
    bytes: lambda value: f'{{"bytesValue":"{b64encode(value).decode()}"}}',
    type(None): lambda _: "{}",
}


# --- parts of a span -----------------------------------------------------------------------------------------------


def identity(trace_id: int, span_id: int) -> str:
    """Encode the ids of a span."""
    if not (0 <= trace_id < 1 << 128 and 0 <= span_id < 1 << 64):
        raise ValueError("an id that is none")
    return f'"traceId":"{trace_id:032x}","spanId":"{span_id:016x}"'


def parent_id(span_id: int) -> str:
    """Encode the id of a span's parent, with a comma before it."""
    if not 0 <= span_id < 1 << 64:
        raise ValueError("an id that is none")
    return f',"parentSpanId":"{span_id:016x}"'


def name_and_kind(name: str, kind: SpanKind) -> str:
    """Encode the name and the kind of a span, with a comma before them."""
    return f'{_named(name)},"kind":{KINDS[kind]}'


def _named(name: str) -> str:
    return f',"name":{_text(name)}' if name else ""


def _text(value: str) -> str:
    if not isinstance(value, str):  # a number would be written as one, and make a file unreadable
        raise TypeError(f"{value!r} is no text")
    return quoted(value)


def times(start: int | None, end: int | None) -> str:
    """Encode when a span began and ended, with a comma before it."""
    return _time("startTimeUnixNano", start) + _time("endTimeUnixNano", end)


def _time(field: str, nanoseconds: int | None) -> str:
    if not nanoseconds:
        return ""
    if not 0 < nanoseconds < 1 << 64:
        raise ValueError("a time that is none")
    return f',"{field}":"{nanoseconds:d}"'


def status(value: Status | None) -> str:
    """Encode the status of a span, with a comma before it."""
    if value is None:
        return ""
    parts = [f'"message":{quoted(value.description)}'] if value.description else []
    if value.status_code.value:
        parts.append(f'"code":{value.status_code.value}')
    return f',"status":{{{",".join(parts)}}}'


def flags(context: SpanContext | None) -> str:
    """Encode the flags of a span or a link, with a comma before them; arguments as in ``wire``."""
    return f',"flags":{_HAS_IS_REMOTE | (_IS_REMOTE if context and context.is_remote else 0)}'


def trace_state(state: TraceState | None) -> str:
    """Encode the state of a trace, with a comma before it."""
    if not state:
        return ""
    pairs = ",".join([f"{key}={value}" for key, value in state.items()])
    return f',"traceState":{quoted(pairs)}'


def _counted(field: str, count: int) -> str:
    return f',"{field}":{count:d}' if count else ""


def _event(event: Event) -> str:
    dropped = _counted("droppedAttributesCount", event.dropped_attributes)
    parts = _time("timeUnixNano", event.timestamp) + _named(event.name) + attributes(event.attributes) + dropped
    return f"{{{parts[1:]}}}"


def link(to: Link) -> str:
    """Encode a link."""
    context, dropped = to.context, _counted("droppedAttributesCount", to.dropped_attributes)
    return f"{{{identity(context.trace_id, context.span_id)}{attributes(to.attributes)}{dropped}{flags(context)}}}"


def listed(field: str, parts: Sequence[str]) -> str:
    """Encode a list as a field, with a comma before it."""
    return f',"{field}":[{",".join(parts)}]' if parts else ""


def encode_span(span: ReadableSpan) -> bytes:
    """Encode a span as an element of its scope's list; arguments and errors as in ``wire``."""
    context, parent = span.get_span_context(), span.parent
    if context is None:
        raise ValueError("a span without a context")
    encoded = "".join(
        (
            identity(context.trace_id, context.span_id),
            trace_state(context.trace_state),
            parent_id(parent.span_id) if parent else "",
            flags(parent),
            name_and_kind(span.name, span.kind),
            times(span.start_time, span.end_time),
            attributes(span.attributes),
            _counted("droppedAttributesCount", span.dropped_attributes),
            listed("events", [*map(_event, span.events)]),
            _counted("droppedEventsCount", span.dropped_events),
            listed("links", [*map(link, span.links)]),
            _counted("droppedLinksCount", span.dropped_links),
            status(span.status),
        )
    )
    return f"{{{encoded}}}".encode("ascii")


# --- what is around spans ------------------------------------------------------------------------------------------


def resource_head(resource: Resource) -> bytes:
    """Encode what the spans of a resource have beside them."""
    return f'"resource":{{{attributes(resource.attributes)[1:]}}}{_schema(resource.schema_url)}'.encode("ascii")


def scope_head(scope: InstrumentationScope | None) -> bytes:
    """Encode what the spans of a scope have beside them."""
    if scope is None:
        return b'"scope":{}'
    version = f',"version":{quoted(scope.version)}' if scope.version else ""
    fields = _named(scope.name) + version + attributes(scope.attributes)
    return f'"scope":{{{fields[1:]}}}{_schema(scope.schema_url)}'.encode("ascii")


def _schema(url: str | None) -> str:
    return f',"schemaUrl":{quoted(url)}' if url else ""


def request(resources: Mapping[bytes, Mapping[bytes, Iterable[bytes]]]) -> bytes:
    """Encode an ``ExportTraceServiceRequest`` as a line of its own; arguments as in ``wire``."""
    encoded = [
        b'{%s,"scopeSpans":[%s]}'
        % (head, b",".join([b'{%s,"spans":[%s]}' % (scope, b",".join(spans)) for scope, spans in scopes.items()]))
        for head, scopes in resources.items()
    ]
    return b'{"resourceSpans":[%s]}\n' % b",".join(encoded)
