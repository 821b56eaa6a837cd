"""What our encoders write is what OpenTelemetry's own write, once a receiver has parsed it."""

from __future__ import annotations

import json
import logging
import math
import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.json.common.trace_encoder import encode_spans as stock_json
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as stock_protobuf
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import SpanContext, Status, StatusCode
from tests.telemetry.spans_at_random import batches, sdk_spans, values

from aetherflow.analysis.spans import read_spans
from aetherflow.telemetry.encoding import wire, wire_json

# The SDK logs everything that it cuts, which is what these tests have it do thousands of times.
logging.getLogger("opentelemetry.attributes").setLevel(logging.ERROR)

CONTEXT = SpanContext(1, 2, False)


def written(encoding: Any, spans: Any) -> bytes:
    """Group spans as an exporter does and encode them."""
    resources: dict[bytes, dict[bytes, list[bytes]]] = {}
    for span in spans:
        scopes = resources.setdefault(encoding.resource_head(span.resource), {})
        scopes.setdefault(encoding.scope_head(span.instrumentation_scope), []).append(encoding.encode_span(span))
    request: bytes = encoding.request(resources)
    return request


def parsed(spans: Any) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest.FromString(written(wire, spans))


def attributes_of(**attributes: Any) -> dict[str, AnyValue]:
    (group,) = parsed([ReadableSpan("s", CONTEXT, attributes=attributes)]).resource_spans
    return {pair.key: pair.value for pair in group.scope_spans[0].spans[0].attributes}


@given(batches)
def test_any_span_parses_to_what_the_stock_encoder_writes(spans):
    """A request of any spans, parsed, equals the stock encoder's, parsed."""
    assert parsed(spans) == ExportTraceServiceRequest.FromString(stock_protobuf(spans).SerializePartialToString())


@given(sdk_spans())
def test_what_the_sdk_made_under_limits_parses_to_the_same(spans):
    """Dropped counts, cut values and recorded exceptions of the SDK's own spans are those of the stock encoder."""
    assert parsed(spans) == stock_protobuf(spans)


@given(batches | sdk_spans())
def test_any_span_as_json_is_what_the_stock_encoder_writes(spans):
    """The JSON of any spans equals the stock encoder's, and is one line of ASCII."""
    line = written(wire_json, spans)
    assert json.loads(line) == stock_json(spans).to_dict()
    assert line.isascii()
    assert line.index(b"\n") == len(line) - 1


@given(st.floats())
@example(math.nan)
@example(-math.inf)
def test_any_float_is_kept(number):
    """Every double keeps its bits in protobuf, and its value in JSON, infinities and NaN as the words that OTLP has."""
    assert AnyValue.FromString(wire.any_value(number)) == AnyValue(double_value=number) or math.isnan(number)
    read = float(json.loads(wire_json.any_value(number))["doubleValue"])
    assert read == number or (math.isnan(read) and math.isnan(number))


@given(values)
def test_a_value_of_a_subclass_is_written_as_its_base(value):
    """Values of derived types, which attributes can be too, are written like those they derive from."""
    assert isinstance(value, bool | None) or len(written_alike(value)) == 1


def written_alike(value: Any) -> set[tuple[bytes, str]]:
    derived = type("Derived", (type(value),), {})(value)
    return {(wire.any_value(each), wire_json.any_value(each)) for each in (value, derived)}


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**40])
def test_an_integer_of_more_than_64_bits_costs_only_its_attribute(number):
    """Like the stock encoder we leave such an attribute out, also in JSON, where it would make a file unreadable."""
    span = ReadableSpan("s", CONTEXT, attributes={"huge": number, "list": (1, number), "small": 1})
    assert parsed([span]) == stock_protobuf([span])
    (kept,) = json.loads(wire_json.encode_span(span))["attributes"]
    assert kept == {"key": "small", "value": {"intValue": "1"}}


def test_a_value_that_otlp_does_not_know_costs_only_its_attribute():
    """An object that is no attribute value is left out, and the others stay."""
    assert attributes_of(odd=object(), even=2) == {"even": AnyValue(int_value=2)}


def test_nesting_that_parsers_refuse_costs_only_its_attribute():
    """A value as deep as parsers allow arrives; a deeper one, for which they refuse the whole request, is left out."""
    deepest: Any = "bottom"
    for _ in range(wire.MAX_DEPTH):
        deepest = (deepest,)
    assert set(attributes_of(deepest=deepest, deeper=(deepest,))) == {"deepest"}
    span = ReadableSpan("s", CONTEXT, attributes={"deepest": deepest, "deeper": (deepest,)})
    assert [pair["key"] for pair in json.loads(wire_json.encode_span(span))["attributes"]] == ["deepest"]


def test_a_lone_surrogate_is_written_as_its_escape():
    """Text that UTF-8 cannot carry, in a name, a key, a value or a status, still arrives, readable."""
    lone = "a\ud800b"
    span = ReadableSpan(
        lone,
        CONTEXT,
        attributes={lone: lone},
        events=[Event(lone, {lone: lone})],
        status=Status(StatusCode.ERROR, lone),
    )
    (group,) = parsed([span]).resource_spans
    (arrived,) = group.scope_spans[0].spans
    assert arrived.name == arrived.status.message == arrived.attributes[0].key == r"a\ud800b"
    assert arrived.attributes[0].value.string_value == r"a\ud800b"
    assert json.loads(wire_json.encode_span(span))["name"] == lone


@pytest.mark.parametrize(
    "span",
    [
        ReadableSpan("no context"),
        ReadableSpan("id", SpanContext(1 << 128, 1, False)),
        ReadableSpan("id", SpanContext(1, 1 << 64, False)),
        ReadableSpan("parent", CONTEXT, SpanContext(1, 1 << 64, False)),
        ReadableSpan("before the epoch", CONTEXT, start_time=-1),
        ReadableSpan("kind", CONTEXT, kind="server"),  # type: ignore[arg-type]
        ReadableSpan(7, CONTEXT),  # type: ignore[arg-type]
    ],
    ids=lambda span: str(span.name),
)
@pytest.mark.parametrize("encoding", [wire, wire_json], ids=["protobuf", "json"])
def test_a_span_that_is_none_raises(encoding, span):
    """What no receiver could read is an error of that one span."""
    with pytest.raises((ValueError, TypeError, LookupError, struct.error)):
        encoding.encode_span(span)


@given(batches)
def test_our_reader_reads_what_our_encoder_writes(tmp_path_factory, spans):
    """A file of our JSON is read by our own reader: every span, with its name, ids and times."""
    file = tmp_path_factory.mktemp("spans") / "traces.jsonl"
    file.write_bytes(written(wire_json, spans))
    read = [(span.name, int(span.trace_id, 16), int(span.span_id, 16), span.start) for span in read_spans(file)]
    expected = [(s.name, s.context.trace_id, s.context.span_id, s.start_time or 0) for s in spans]
    assert sorted(read) == sorted(expected)
