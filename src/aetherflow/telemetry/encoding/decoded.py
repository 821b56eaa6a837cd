"""Spans out of an OTLP request: what an exporter is given that takes nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope as ScopeMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from aetherflow.telemetry.encoding.wire import KINDS

__all__ = ["decode_spans"]

_KINDS: Final = {number: kind for kind, number in KINDS.items()}
_IS_REMOTE: Final = 0x200
_Pairs: TypeAlias = Iterable[KeyValue]


def decode_spans(request: bytes) -> list[ReadableSpan]:
    """Return the spans of an ``ExportTraceServiceRequest``, in its order, as the SDK would give them to an exporter.

    Args:
        request: The request, in protobuf.
    """
    return list(_spans(ExportTraceServiceRequest.FromString(request)))


def _spans(request: ExportTraceServiceRequest) -> Iterator[ReadableSpan]:
    for group in request.resource_spans:
        resource = Resource(_attributes(group.resource.attributes), group.schema_url or None)
        for scoped in group.scope_spans:
            scope = _scope(scoped.scope, scoped.schema_url)
            for span in scoped.spans:
                yield _span(span, resource, scope)


def _scope(message: ScopeMessage, schema_url: str) -> InstrumentationScope:
    return InstrumentationScope(
        message.name, message.version or None, schema_url or None, _attributes(message.attributes)
    )


def _span(message: SpanMessage, resource: Resource, scope: InstrumentationScope) -> ReadableSpan:
    context = _context(message.trace_id, message.span_id, is_remote=False, state=message.trace_state)
    is_remote = bool(message.flags & _IS_REMOTE)
    return ReadableSpan(
        name=message.name,
        context=context,
        parent=_context(message.trace_id, message.parent_span_id, is_remote) if message.parent_span_id else None,
        resource=resource,
        attributes=_counted(message.attributes, message.dropped_attributes_count),
        events=_listed(map(_event, message.events), message.dropped_events_count),
        links=_listed(map(_link, message.links), message.dropped_links_count),
        kind=_KINDS.get(message.kind, SpanKind.INTERNAL),
        status=Status(StatusCode(message.status.code), message.status.message or None),
        start_time=message.start_time_unix_nano or None,
        end_time=message.end_time_unix_nano or None,
        instrumentation_scope=scope,
    )


def _context(trace_id: bytes, span_id: bytes, is_remote: bool, state: str = "") -> SpanContext:
    return SpanContext(
        int.from_bytes(trace_id, "big"),
        int.from_bytes(span_id, "big"),
        is_remote,
        TraceFlags(TraceFlags.SAMPLED),
        TraceState.from_header([state]) if state else None,
    )


def _event(message: SpanMessage.Event) -> Event:
    attributes = _counted(message.attributes, message.dropped_attributes_count)
    return Event(message.name, attributes, message.time_unix_nano)


def _link(message: SpanMessage.Link) -> Link:
    context = _context(message.trace_id, message.span_id, bool(message.flags & _IS_REMOTE))
    return Link(context, _counted(message.attributes, message.dropped_attributes_count))


def _counted(pairs: _Pairs, dropped: int) -> Mapping[str, Any]:
    attributes = _attributes(pairs)
    if not dropped:
        return attributes
    bounded = BoundedAttributes(attributes=attributes)
    bounded.dropped += dropped
    return bounded


def _listed(items: Iterator[Any], dropped: int) -> Any:
    listed = list(items)
    if not dropped:
        return listed
    bounded = BoundedList.from_seq(len(listed), listed)
    bounded.dropped = dropped
    return bounded


def _attributes(pairs: _Pairs) -> Mapping[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(message: AnyValue) -> Any:
    match message.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return tuple(map(_value, message.array_value.values))
        case "kvlist_value":
            return _attributes(message.kvlist_value.values)
        case kind:
            return getattr(message, kind)
