"""Spans of every shape that the SDK allows, drawn by hypothesis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from aetherflow.telemetry.capture import DeterministicIdGenerator

__all__ = ["batches", "readable_spans", "sdk_spans", "values"]

text = st.text(st.characters(codec="utf-8"), max_size=6) | st.integers(100, 20_000).map("x".__mul__)
"""Any text that UTF-8 can carry, short and long."""
keys = st.text(st.characters(codec="utf-8"), min_size=1, max_size=4)
integers = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, -1, 127, 128, 2**14 - 1, 2**14, 2**63 - 1])
scalars = st.none() | text | st.booleans() | integers | st.floats(allow_nan=False) | st.binary(max_size=140)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=3,
)
attributes = st.dictionaries(keys, values, max_size=3)
nanoseconds = st.integers(0, 2**64 - 1)


def bounded(given: dict[str, Any], most: int) -> BoundedAttributes:
    return BoundedAttributes(most, given, immutable=True)


limited = attributes | st.builds(bounded, attributes, st.integers(1, 3)) | st.none()
states = st.dictionaries(st.sampled_from(["a", "b@c", "d"]), st.sampled_from(["1", "x y"]), max_size=2).map(
    lambda pairs: TraceState(list(pairs.items()))
)
contexts = st.builds(
    SpanContext,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.booleans(),
    st.sampled_from([TraceFlags(0), TraceFlags(1), TraceFlags(3)]),
    states,
)
events = st.builds(Event, text, limited, nanoseconds.filter(bool))
links = st.builds(Link, contexts, limited)
statuses = st.just(Status()) | st.sampled_from([Status(StatusCode.OK), Status(StatusCode.ERROR)])
statuses |= st.builds(lambda said: Status(StatusCode.ERROR, said), text)
resources = st.sampled_from(
    [Resource({}), Resource({"service.name": "shop", "host.id": 7}), Resource({"a": ("b", "c")}, "https://schema/1")]
)
scopes = st.sampled_from(
    [
        None,
        InstrumentationScope("aetherflow", "1.0", "https://schema/2"),
        InstrumentationScope("other", attributes={"yes": True}),
        InstrumentationScope("", "2"),
    ]
)
readable_spans = st.builds(
    ReadableSpan,
    name=text,
    context=contexts,
    parent=st.none() | contexts,
    resource=resources,
    attributes=limited,
    events=st.lists(events, max_size=2),
    links=st.lists(links, max_size=2),
    kind=st.sampled_from(SpanKind),
    status=statuses,
    start_time=st.none() | nanoseconds,
    end_time=st.none() | nanoseconds,
    instrumentation_scope=scopes,
)
batches = st.lists(readable_spans, min_size=1, max_size=3)


@st.composite
def sdk_spans(draw: st.DrawFn) -> Sequence[ReadableSpan]:
    """Draw what a provider of the SDK hands to an exporter, its limits far below what is recorded."""
    limits = SpanLimits(*(draw(st.integers(0, 2)) for _ in range(5)), max_span_attribute_length=draw(st.integers(1, 9)))
    kept = InMemorySpanExporter()
    provider = TracerProvider(
        resource=draw(resources),
        span_limits=limits,
        shutdown_on_exit=False,
        id_generator=DeterministicIdGenerator(),
    )
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer = provider.get_tracer("drawn", draw(text))
    with tracer.start_as_current_span(draw(text), attributes=draw(attributes), kind=draw(st.sampled_from(SpanKind))):
        span = tracer.start_span(draw(text), links=draw(st.lists(links, max_size=3)))
        for _ in range(draw(st.integers(0, 3))):
            span.add_event(draw(text), draw(attributes))
        span.set_attributes(draw(attributes))
        if draw(st.booleans()):
            span.record_exception(ValueError(draw(text)))
            span.set_status(StatusCode.ERROR, draw(text))
        span.end()
    return kept.get_finished_spans()
