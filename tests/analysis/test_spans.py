"""Spans read from files say what the spans said that were exported."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.exporter.otlp.json.file import FileSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from tests.analysis.otlp_samples import SECOND, TRACE, attribute, line, span, write

from aetherflow.analysis.otlp_files import UnreadableTelemetryError
from aetherflow.analysis.spans import Span, read_spans


def read_one(path: Path, **fields: Any) -> Span:
    [found] = read_spans(write(path, line(span(1, **fields))))
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "spans.jsonl"


def test_what_the_exporter_wrote_is_read_back(file: Path) -> None:
    """A span of the real SDK keeps its ids, times, attributes, events, links, status, resource and scope."""
    provider = TracerProvider(resource=Resource({"service.name": "shop"}))
    provider.add_span_processor(SimpleSpanProcessor(FileSpanExporter(file)))
    tracer = provider.get_tracer("lib", "2.1")
    attributes = {"text": "é", "yes": True, "count": 2**53 + 1, "share": 0.5, "names": ("a", "b"), "sizes": (1, 2)}
    with tracer.start_as_current_span("cause") as cause:
        pass
    with (
        pytest.raises(KeyError),
        tracer.start_as_current_span("outer", kind=trace.SpanKind.CLIENT) as outer,
        tracer.start_as_current_span("inner", attributes=attributes, links=[trace.Link(cause.get_span_context())]),
    ):
        raise KeyError("lost")
    provider.shutdown()

    found = {item.name: item for item in read_spans(file)}
    inner = found["inner"]
    assert dict(inner.attributes) == attributes
    assert inner.parent_id == found["outer"].span_id == f"{outer.get_span_context().span_id:016x}"
    assert inner.trace_id == f"{outer.get_span_context().trace_id:032x}"
    assert found["outer"].parent_id is None
    assert (found["outer"].kind, inner.kind) == ("client", "internal")
    assert inner.status.code == "error"
    assert inner.failed
    assert not found["cause"].failed
    [event] = inner.events
    assert (event.name, event.attributes["exception.type"]) == ("exception", "KeyError")
    assert inner.start <= event.time <= inner.end
    assert [(link.trace_id, link.span_id) for link in inner.links] == [
        (found["cause"].trace_id, found["cause"].span_id)
    ]
    assert (inner.resource.service, inner.scope.name, inner.scope.version) == ("shop", "lib", "2.1")
    assert inner.duration == (inner.end - inner.start) / 1e9 > 0


def test_numbers_may_be_written_as_strings(file: Path) -> None:
    """64-bit integers come as strings or as numbers, and doubles that JSON cannot hold as words."""
    found = read_one(
        file,
        startTimeUnixNano=SECOND,
        endTimeUnixNano=str(SECOND + 5),
        attributes=[
            attribute("i", {"intValue": "-7"}),
            attribute("j", {"intValue": 7}),
            attribute("inf", {"doubleValue": "-Infinity"}),
            attribute("nan", {"doubleValue": "NaN"}),
            attribute("whole", {"doubleValue": 2}),
        ],
    )
    assert (found.start, found.end) == (SECOND, SECOND + 5)
    assert math.isnan(found.attributes.pop("nan"))
    assert found.attributes == {"i": -7, "j": 7, "inf": -math.inf, "whole": 2.0}


def test_every_kind_of_value_is_read(file: Path) -> None:
    """Nested values keep their shape; a kind from a later OTLP is None rather than an error."""
    kvlist = {"kvlistValue": {"values": [attribute("k", {"arrayValue": {"values": [{"boolValue": False}, {}]}})]}}
    found = read_one(
        file,
        attributes=[
            attribute("map", kvlist),
            attribute("bytes", {"bytesValue": "AAEC"}),
            attribute("empty", {"arrayValue": {}}),
            attribute("later", {"decimalValue": "1"}),
            {"key": "none"},
        ],
    )
    assert found.attributes == {
        "map": {"k": (False, None)},
        "bytes": b"\0\1\2",
        "empty": (),
        "later": None,
        "none": None,
    }


def test_what_is_absent_or_unknown_does_no_harm(file: Path) -> None:
    """A span needs its ids only; fields that are not known here are passed over."""
    bare = {"traceId": TRACE.upper(), "spanId": "00f067aa0ba902b7", "parentSpanId": "", "flags": 257, "new": {"x": [1]}}
    [found] = read_spans(write(file, line(bare)))
    assert (found.trace_id, found.parent_id, found.name, found.duration) == (TRACE, None, "", 0.0)
    assert (found.kind, found.status.code, found.attributes) == ("unspecified", "unset", {})


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(5, "consumer"), ("SPAN_KIND_SERVER", "server"), (99, "unspecified"), ("SPAN_KIND_NEW", "unspecified")],
)
def test_enumerations_are_numbers_or_names(file: Path, kind: object, expected: str) -> None:
    """Both spellings of protobuf's JSON are read, and values of a later OTLP are as good as none."""
    assert read_one(file, kind=kind).kind == expected


def test_other_signals_are_passed_over(file: Path) -> None:
    """Metrics and logs in the same file are not spans."""
    others = [json.dumps({"resourceMetrics": [{}]}) + "\n", json.dumps({"resourceLogs": None}) + "\n", "{}\n"]
    assert [item.name for item in read_spans(write(file, *others, line(span(1), span(2))))] == ["n1", "n2"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"traceId": "xyz"}, "traceId"),
        ({"traceId": "0" * 32}, "traceId"),
        ({"spanId": 7}, "spanId"),
        ({"spanId": None}, "spanId"),
        ({"parentSpanId": "S/kvNXezTaY="}, "parentSpanId"),
        ({"startTimeUnixNano": "soon"}, "startTimeUnixNano"),
        ({"startTimeUnixNano": math.nan}, "startTimeUnixNano"),
        ({"startTimeUnixNano": True}, "startTimeUnixNano"),
        ({"endTimeUnixNano": 2**70}, "endTimeUnixNano"),
        ({"endTimeUnixNano": "9" * 5_000}, "endTimeUnixNano"),
        ({"name": ["a"]}, "name"),
        ({"attributes": {"a": 1}}, "attributes"),
        ({"attributes": ["a"]}, "attributes"),
        ({"attributes": [attribute("a", {"doubleValue": "many"})]}, "doubleValue"),
        ({"attributes": [attribute("a", {"boolValue": "yes"})]}, "boolValue"),
        ({"attributes": [attribute("a", {"bytesValue": "!"})]}, "bytesValue"),
        ({"status": "fine"}, "status"),
        ({"links": [{"traceId": TRACE}]}, "spanId"),
    ],
)
def test_a_malformed_field_names_file_line_and_field(file: Path, fields: dict[str, Any], named: str) -> None:
    """One error says where, which field, what it holds and what it may hold."""
    content = line(span(1)) + line(span(2) | fields)
    with pytest.raises(UnreadableTelemetryError, match=f'line 2: is not OTLP: "{named}" must be ') as caught:
        list(read_spans(write(file, content)))
    assert len(str(caught.value)) < 400


def test_values_nested_without_end_are_refused(file: Path) -> None:
    """Depth that no real attribute has is an error of the file, not of the interpreter."""
    value: dict[str, Any] = {"intValue": 1}
    for _ in range(100):
        value = {"arrayValue": {"values": [value]}}
    with pytest.raises(UnreadableTelemetryError, match="nested at most 32 deep"):
        read_one(file, attributes=[attribute("a", value)])


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(field=st.sampled_from(sorted(span(1, 2, events=0, links=0, attributes=0, status=0))), value=_JSON)
def test_any_json_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, field: str, value: object) -> None:
    """Whatever a field holds, the span is read or the file refused; nothing else is ever raised."""
    path = write(tmp_path_factory.mktemp("any") / "f", line(span(1) | {field: value}))
    with contextlib.suppress(UnreadableTelemetryError):
        assert len(list(read_spans(path))) == 1
