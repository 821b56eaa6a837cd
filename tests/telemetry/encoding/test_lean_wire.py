"""Lean spans in OTLP: the same as the generic encoders write, which are proved against OpenTelemetry's own."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from aetherflow.telemetry.encoding import wire, wire_json
from aetherflow.telemetry.encoding.lean_wire import encode_lean, encode_lean_json
from aetherflow.telemetry.observation import ThreadFacts
from aetherflow.telemetry.tracing.lean import LeanSpan
from aetherflow.telemetry.tracing.lean_parts import Origin, Rest, Template, Trace

_provider = TracerProvider(shutdown_on_exit=False)
_tracer: Any = _provider.get_tracer("aetherflow")
_origin = Origin(_tracer, _provider._span_limits, _tracer._instrumentation_scope, ())

span_ids = st.integers(1, (1 << 64) - 1)
trace_ids = st.integers(1, (1 << 128) - 1)
keys = st.text(min_size=1, max_size=6)
plain = st.one_of(
    st.text(max_size=6), st.booleans(), st.integers(-(1 << 63), (1 << 63) - 1), st.floats(allow_nan=False)
)
values = st.one_of(plain, st.lists(st.text(max_size=3), max_size=3).map(tuple))
attributes = st.dictionaries(keys, values, max_size=4)
states = st.sampled_from([TraceState(), TraceState([("a", "1"), ("b", "2")])])


@st.composite
def contexts(draw: st.DrawFn) -> SpanContext:
    """Return the context of any span."""
    return SpanContext(draw(trace_ids), draw(span_ids), draw(st.booleans()), TraceFlags(1), draw(states))


@st.composite
def spans(draw: st.DrawFn) -> LeanSpan:
    """Return an ended span of any content, which somebody may have done something to."""
    shared = Trace(_origin, draw(trace_ids), TraceFlags(1), draw(states), draw(st.integers(0, 10**18)))
    ours = LeanSpan(shared, None, Template("above", SpanKind.INTERNAL, {}), None, draw(span_ids), 1)
    above = draw(st.sampled_from((None, ours)) | contexts())
    thread = draw(st.none() | st.builds(ThreadFacts, st.fixed_dictionaries({"thread.id": st.integers(0, 1 << 40)})))
    template = Template(draw(keys), draw(st.sampled_from(SpanKind)), {"first": 1, **draw(attributes)})
    rest = draw(st.none() | st.builds(Rest, st.none() | attributes, st.lists(contexts(), max_size=3)))
    span = LeanSpan(shared, above, template, thread, draw(span_ids), 5, draw(st.just(0) | span_ids), rest)
    for key, value in draw(st.dictionaries(keys | st.just("first"), plain, max_size=3)).items():
        span.set_attribute(key, value)
    if draw(st.booleans()):
        span.add_event("said", {"n": 1})
        span.set_status(Status(StatusCode.ERROR, "bad"))
    span.end(draw(st.integers(10**18 + 5, 2 * 10**18)))
    return span


def parsed(encoded: bytes) -> Any:
    """Return an encoded span as a receiver reads it, its attributes in no order."""
    (span,) = ScopeSpans.FromString(encoded).spans
    pairs = {pair.key: pair.value.SerializeToString() for pair in span.attributes}
    assert len(pairs) == len(span.attributes), "an attribute is there twice"
    del span.attributes[:]
    return span, pairs


def read(encoded: bytes) -> Any:
    """Return a JSON span as a reader reads it, its attributes in no order."""
    span = json.loads(encoded)
    pairs = {pair["key"]: pair.get("value") for pair in span["attributes"]}
    assert len(pairs) == len(span["attributes"]), "an attribute is there twice"
    return {**span, "attributes": pairs}


@given(spans())
def test_the_protobuf_of_a_lean_span_is_that_of_any_span(span: LeanSpan) -> None:
    """Ids, names, times, attributes, links, events, status and flags; encoded twice, the same bytes."""
    once = encode_lean(span)
    assert encode_lean(span) == once
    assert parsed(once) == parsed(wire.encode_span(span))


@given(spans())
def test_the_json_of_a_lean_span_is_that_of_any_span(span: LeanSpan) -> None:
    """What a file holds does not tell which way a span took."""
    once = encode_lean_json(span)
    assert encode_lean_json(span) == once
    assert read(once) == read(wire_json.encode_span(span))
