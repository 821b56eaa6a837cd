"""Spans in OTLP's protobuf encoding, written straight from their fields.

What a receiver parses is what it would parse from OpenTelemetry's own encoder, at a fraction of its cost: no message
objects are built. Two things differ where that encoder would lose a whole batch: a lone surrogate, which UTF-8 cannot
carry, is written as its escape, and a span that cannot be encoded raises alone.

Every function returns bytes that are complete in themselves, so that what never changes can be encoded once and
joined with the rest.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, TraceState

__all__ = [
    "KINDS",
    "MAX_DEPTH",
    "UNENCODABLE",
    "any_value",
    "attributes",
    "bare_link",
    "delimited",
    "encode_span",
    "flags",
    "identity",
    "key_value",
    "link",
    "name_and_kind",
    "new_text",
    "parent_id",
    "plain",
    "request",
    "resource_head",
    "scope_head",
    "status",
    "text",
    "times",
    "trace_state",
    "varint",
]

MAX_DEPTH: Final = 32
"""How deep sequences and mappings may be nested in a value: parsers refuse a whole request for a deeper one."""
KINDS: Final[Mapping[SpanKind, int]] = {
    SpanKind.INTERNAL: 1,
    SpanKind.SERVER: 2,
    SpanKind.CLIENT: 3,
    SpanKind.PRODUCER: 4,
    SpanKind.CONSUMER: 5,
}
"""The kinds of spans by their number in OTLP."""

UNENCODABLE: Final = (ValueError, TypeError, AttributeError, RecursionError)
"""What encoding an attribute raises where OTLP cannot carry it."""

_SHORT: Final = 64
_ATTRIBUTES: Final = 9
_SMALLEST, _LARGEST = -(1 << 63), (1 << 63) - 1
_ONE_BYTE, _TWO_BYTES = 1 << 7, 1 << 14
"""What is below fits into a varint of that length."""
_BYTE: Final = tuple(bytes((value,)) for value in range(_ONE_BYTE))
_LOCAL, _REMOTE = struct.pack("<I", 0x100), struct.pack("<I", 0x300)
"""Flags that say that it is known where a context is from, and where."""
_FLAGS_LOCAL, _FLAGS_REMOTE = b"\x85\x01" + _LOCAL, b"\x85\x01" + _REMOTE
_identity: Final = struct.Struct(">2sQQ2sQ").pack
_parent: Final = struct.Struct(">2sQ").pack
_fixed: Final = struct.Struct("<BQ").pack
_double: Final = struct.Struct("<cd").pack
_HALF: Final = (1 << 64) - 1


# --- primitives ----------------------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    """Encode an integer of up to 64 bits; a negative one in two's complement."""
    if 0 <= number < _ONE_BYTE:
        return _BYTE[number]
    if 0 <= number < _TWO_BYTES:
        return bytes((number & 0x7F | 0x80, number >> 7))
    number &= _HALF
    out = bytearray()
    while number >= _ONE_BYTE:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_DELIMITED: Final = tuple(varint(field << 3 | 2) for field in range(32))


def delimited(field: int, content: bytes) -> bytes:
    """Encode a string, bytes or a message as a field, whose number is below 32."""
    return _DELIMITED[field] + varint(len(content)) + content


def text(value: str) -> bytes:
    """Encode text as UTF-8, lone surrogates as their escape."""
    try:
        return str.encode(value)
    except UnicodeEncodeError:
        return str.encode(value, errors="backslashreplace")


@lru_cache(maxsize=1024)
def _key(key: str) -> bytes:
    return delimited(1, text(key)) + b"\x12"


@lru_cache(maxsize=4096, typed=True)
def _short(key: str, value: str | int, field: int) -> bytes:
    """Encode an attribute that is likely to come again: most in attributes are names and small numbers."""
    return _key_value(key, any_value(value), field)


def key_value(key: str, value: object, field: int = _ATTRIBUTES) -> bytes:
    """Encode an attribute.

    Args:
        key: Its key.
        value: Its value, see :func:`any_value`.
        field: The number of the field that it is one of: 9 in a span, 3 in an event or a scope, 4 in a link, 1 in a
            resource.

    Raises:
        TypeError: OTLP has no such value.
        ValueError: It is an integer of more than 64 bits, or nested too deeply.
    """
    return _key_value(key, any_value(value), field)


def new_text(key: str, value: str, field: int = _ATTRIBUTES) -> bytes:
    """Encode an attribute whose text does not come again: as :func:`key_value`, and nothing is kept of it."""
    return _key_value(key, _string(value), field)


def _key_value(key: str, encoded: bytes, field: int) -> bytes:
    head, size = _key(key), len(encoded)
    if size < _ONE_BYTE:
        return _DELIMITED[field] + varint(len(head) + 1 + size) + head + _BYTE[size] + encoded
    return delimited(field, head + varint(size) + encoded)


def attributes(pairs: Mapping[str, Any] | None, field: int = _ATTRIBUTES) -> bytes:
    """Encode attributes; those that OTLP cannot carry are left out, as OpenTelemetry's own encoder does.

    Args:
        pairs: The attributes.
        field: As for :func:`key_value`.
    """
    if not pairs:
        return b""
    parts = []
    for key, value in plain(pairs).items():
        try:
            if type(value) is int or (type(value) is str and len(value) <= _SHORT):
                parts.append(_short(key, value, field))
            else:
                parts.append(_key_value(key, any_value(value), field))
        except UNENCODABLE:
            continue
    return b"".join(parts)


def plain(pairs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return attributes as a mapping that is quick to go through, which the SDK's own are not."""
    if type(pairs) is MappingProxyType or type(pairs) is BoundedAttributes:
        try:
            return pairs.copy()
        except AttributeError:  # a view of a mapping that cannot be copied
            pass
    return pairs


def any_value(value: object, depth: int = 0) -> bytes:
    """Encode the content of an ``AnyValue``: None, text, a boolean, number or bytes, sequences and mappings of them.

    Args:
        value: The value.
        depth: How deep it is nested.

    Raises:
        TypeError: OTLP has no such value.
        ValueError: It is an integer of more than 64 bits, or nested too deeply.
    """
    if (encode := _ENCODERS.get(type(value))) is not None:
        return encode(value)
    for kind, encode in _ENCODERS.items():
        if isinstance(value, kind):
            return encode(value)
    if depth == MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    if isinstance(value, Sequence):
        return delimited(5, b"".join([delimited(1, any_value(item, depth + 1)) for item in value]))
    if isinstance(value, Mapping):
        pairs = [_key_value(str(key), any_value(item, depth + 1), 1) for key, item in value.items()]
        return delimited(6, b"".join(pairs))
    raise TypeError(f"OTLP has no value for {type(value).__qualname__}")


def _string(value: str) -> bytes:
    encoded = text(value)
    size = len(encoded)
    return b"\x0a" + (_BYTE[size] if size < _ONE_BYTE else varint(size)) + encoded


def _boolean(value: bool) -> bytes:
    return b"\x10\x01" if value else b"\x10\x00"


def _integer(value: int) -> bytes:
    if not _SMALLEST <= value <= _LARGEST:
        raise ValueError("an integer of more than 64 bits")
    return b"\x18" + varint(value)


_ENCODERS: Final[Mapping[type, Callable[[Any], bytes]]] = {
    str: _string,
    bool: _boolean,  # before int, which it is one of
    int: _integer,
    float: lambda value: _double(b"\x21", value),
    bytes: lambda value: delimited(7, value),
    type(None): lambda _: b"",
}


# --- parts of a span -----------------------------------------------------------------------------------------------


def identity(trace_id: int, span_id: int) -> bytes:
    """Encode the ids of a span."""
    return _identity(b"\x0a\x10", trace_id >> 64, trace_id & _HALF, b"\x12\x08", span_id)


def parent_id(span_id: int) -> bytes:
    """Encode the id of a span's parent."""
    return _parent(b"\x22\x08", span_id)


@lru_cache(maxsize=512)
def name_and_kind(name: str, kind: SpanKind) -> bytes:
    """Encode the name and the kind of a span."""
    return (delimited(5, text(name)) if name else b"") + b"\x30" + _BYTE[KINDS[kind]]


def times(start: int | None, end: int | None) -> bytes:
    """Encode when a span began and ended, in nanoseconds since the epoch."""
    return (_fixed(0x39, start) if start else b"") + (_fixed(0x41, end) if end else b"")


def status(value: Status | None) -> bytes:
    """Encode the status of a span."""
    if value is None:
        return b""
    code = value.status_code.value
    if not code and not value.description:
        return b"\x7a\x00"
    message = delimited(2, text(value.description)) if value.description else b""
    return delimited(15, message + (b"\x18" + _BYTE[code] if code else b""))


def flags(parent: SpanContext | None) -> bytes:
    """Encode what the flags of a span say: whether its parent is in another process."""
    return _FLAGS_REMOTE if parent and parent.is_remote else _FLAGS_LOCAL


def _remoteness(context: SpanContext) -> bytes:
    return _REMOTE if context.is_remote else _LOCAL


def trace_state(state: TraceState | None) -> bytes:
    """Encode the state of a trace."""
    if not state:
        return b""
    return delimited(3, text(",".join([f"{key}={value}" for key, value in state.items()])))


def _counted(tag: bytes, count: int) -> bytes:
    return tag + varint(count) if count else b""


def _event(event: Event) -> bytes:
    stamp = _fixed(0x09, event.timestamp) if event.timestamp else b""
    dropped = _counted(b"\x20", event.dropped_attributes)
    return delimited(11, stamp + delimited(2, text(event.name)) + attributes(event.attributes, 3) + dropped)


def link(to: Link) -> bytes:
    """Encode a link."""
    context = to.context
    dropped = _counted(b"\x28", to.dropped_attributes)
    rest = attributes(to.attributes, 4) + dropped + b"\x35" + _remoteness(context)
    return delimited(13, identity(context.trace_id, context.span_id) + rest)


def bare_link(to: SpanContext) -> bytes:
    """Encode a link to a span that has no attributes."""
    return _LINK + identity(to.trace_id, to.span_id) + b"\x35" + _remoteness(to)


_LINK: Final = link(Link(SpanContext(1, 1, False)))[:2]


def encode_span(span: ReadableSpan) -> bytes:
    """Encode a span as a field of its scope.

    Args:
        span: The span, ended.

    Raises:
        Exception: It cannot be encoded: it has no context, or an id, time or kind that is none.
    """
    context, parent = span.get_span_context(), span.parent
    if context is None:
        raise ValueError("a span without a context")
    parts = [
        identity(context.trace_id, context.span_id),
        trace_state(context.trace_state),
        parent_id(parent.span_id) if parent else b"",
        name_and_kind(span.name, span.kind),
        times(span.start_time, span.end_time),
        attributes(span.attributes),
        _counted(b"\x50", span.dropped_attributes),
        *map(_event, span.events),
        _counted(b"\x60", span.dropped_events),
        *map(link, span.links),
        _counted(b"\x70", span.dropped_links),
        status(span.status),
        flags(parent),
    ]
    return delimited(2, b"".join(parts))


# --- what is around spans ------------------------------------------------------------------------------------------


def resource_head(resource: Resource) -> bytes:
    """Encode what the spans of a resource have before them."""
    schema = delimited(3, text(resource.schema_url)) if resource.schema_url else b""
    return delimited(1, attributes(resource.attributes, 1)) + schema


def scope_head(scope: InstrumentationScope | None) -> bytes:
    """Encode what the spans of a scope have before them."""
    if scope is None:
        return delimited(1, b"")
    name = delimited(1, text(scope.name)) if scope.name else b""
    version = delimited(2, text(scope.version)) if scope.version else b""
    schema = delimited(3, text(scope.schema_url)) if scope.schema_url else b""
    return delimited(1, name + version + attributes(scope.attributes, 3)) + schema


def request(resources: Mapping[bytes, Mapping[bytes, Iterable[bytes]]]) -> bytes:
    """Encode an ``ExportTraceServiceRequest``.

    Args:
        resources: Encoded spans by the head of their scope, by the head of their resource.
    """
    parts: list[bytes] = []  # joined once: a request is megabytes
    for head, scopes in resources.items():
        inner: list[bytes] = [head]
        for scope, spans in scopes.items():
            found = [scope, *spans]
            inner += (_DELIMITED[2] + varint(sum(map(len, found))), *found)
        parts += (_DELIMITED[1] + varint(sum(map(len, inner))), *inner)
    return b"".join(parts)
