"""Both OTLP receivers of the tests report the same telemetry, over HTTP and over gRPC."""

from __future__ import annotations

import urllib.request

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from tests.support.otlp_receiver import ProtobufReceiver, otlp_receiver
from tests.support.receivers import ReceivedSpan, wait_until
from tests.support.rotel import Rotel, parse_debug_log, reason_without_rotel


@pytest.fixture(params=["rotel", "protobuf"])
def receiver_type(request):
    if request.param == "protobuf":
        return lambda folder, **_: ProtobufReceiver()
    if reason := reason_without_rotel():
        pytest.skip(reason)
    return Rotel


def post(receiver, protocol, service, path, body):
    """Send a request and wait for its answer."""
    if protocol == "grpc":
        with grpc.insecure_channel(receiver.grpc_endpoint.removeprefix("http://")) as channel:
            channel.unary_unary(f"/opentelemetry.proto.collector.{service}/Export")(body, timeout=20)
        return
    headers = {"Content-Type": "application/x-protobuf"}
    request = urllib.request.Request(receiver.http_endpoint + path, body, headers, method="POST")
    with urllib.request.urlopen(request, timeout=20) as response:
        assert response.status == 200


def two_spans():
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    resource_spans.resource.attributes.add(key="service.name").value.string_value = "shop"
    spans = resource_spans.scope_spans.add().spans
    spans.add(name="parent", trace_id=b"\1" * 16, span_id=b"\2" * 8)
    child = spans.add(name="child: of", trace_id=b"\1" * 16, span_id=b"\3" * 8, parent_span_id=b"\2" * 8)
    child.attributes.add(key="a.b").value.string_value = "c: (d)"
    child.attributes.add(key="n").value.int_value = -3
    child.attributes.add(key="f").value.double_value = 1.5
    child.attributes.add(key="t").value.bool_value = True
    array = child.attributes.add(key="l").value.array_value
    array.values.add(string_value="x")
    array.values.add(string_value="y")
    return request.SerializeToString()


def a_histogram():
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="duration", unit="s")
    metric.exponential_histogram.aggregation_temporality = 2
    for name, values in (("load", [0.5, 0.25, 2.0]), ("save", [4.0])):
        point = metric.exponential_histogram.data_points.add(
            count=len(values), sum=sum(values), min=min(values), max=max(values)
        )
        attribute = KeyValue(key="operation")
        attribute.value.string_value = name
        point.attributes.append(attribute)
    return request.SerializeToString()


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_both_receivers_report_the_same_spans(tmp_path, receiver_type, protocol):
    """Names, ids, typed attributes and the service of every span are reported as they were sent."""
    with receiver_type(tmp_path) as receiver:
        post(receiver, protocol, "trace.v1.TraceService", "/v1/traces", two_spans())
        parent, child = receiver.wait_for_spans(2)
        assert receiver.spans() == [parent, child]
    trace_id = "01" * 16
    attributes = {"a.b": "c: (d)", "n": -3, "f": 1.5, "t": True, "l": ("x", "y")}
    assert parent == ReceivedSpan("parent", trace_id, "02" * 8, "", {}, "shop")
    assert child == ReceivedSpan("child: of", trace_id, "03" * 8, "02" * 8, attributes, "shop")


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_both_receivers_count_spans(tmp_path, receiver_type, protocol):
    """The count is the number of spans in all requests."""
    with receiver_type(tmp_path, detailed=False) as receiver:
        assert receiver.count() == 0
        for _ in range(3):
            post(receiver, protocol, "trace.v1.TraceService", "/v1/traces", two_spans())
        receiver.wait_for_count(6)
        assert receiver.count() == 6


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_both_receivers_report_the_same_histograms(tmp_path, receiver_type, protocol):
    """The points of a histogram are reported by the value of an attribute."""
    expected = {
        "load": {"Count": 3.0, "Sum": 2.75, "Min": 0.25, "Max": 2.0},
        "save": {"Count": 1.0, "Sum": 4.0, "Min": 4.0, "Max": 4.0},
    }
    with receiver_type(tmp_path, signal="metrics") as receiver:
        post(receiver, protocol, "metrics.v1.MetricsService", "/v1/metrics", a_histogram())
        wait_until(lambda: receiver.histograms("duration", "operation") == expected, "the histogram")
        assert receiver.histograms("other", "operation") == {}


def test_an_unknown_grpc_method_is_refused():
    """A call of any other method fails with UNIMPLEMENTED."""
    with ProtobufReceiver() as receiver, pytest.raises(grpc.RpcError) as refused:
        post(receiver, "grpc", "trace.v1.NoService", "", b"")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_receiver_is_chosen_for_this_python(tmp_path):
    """The tests use ``rotel`` if it runs here, and the receiver in this process otherwise."""
    with otlp_receiver(tmp_path) as receiver:
        assert type(receiver) is (ProtobufReceiver if reason_without_rotel() else Rotel)


PRINTED = """\
\x1b[2m2026-01-01T00:00:00Z\x1b[0m INFO Starting Rotel.
ResourceSpans #0
Resource attributes:
     -> service.name: Str(shop)
ScopeSpans #0
InstrumentationScope test
Span #0
    Trace ID       : aa
    Parent ID      : 01
    ID             : 02
    Name           : child: of
    Kind           : SPAN_KIND_INTERNAL
    Status message : bad
      Name          : not a name
Attributes:
     -> a.b: Str(c: (d))
     -> n: Int(-3)
     -> f: Double(1.5)
     -> l: Slice(Str(x, y), Int(2))
     -> t: Bool(true)
Events:
SpanEvent #0
     -> Name: event
     -> Attributes::
          -> q: Str(z)
Span #1
    Trace ID       : aa
    Parent ID      :
    ID             : 01
    Name           : parent
"""


def test_the_debug_log_is_understood():
    """Ids, names and typed attributes are read; those of events and text that looks alike are not."""
    child, parent = parse_debug_log(PRINTED)
    assert (child.name, child.trace_id, child.span_id, child.parent_id) == ("child: of", "aa", "02", "01")
    assert child.attributes == {"a.b": "c: (d)", "n": -3, "f": 1.5, "l": ("x, y", 2), "t": True}
    assert (parent.name, parent.parent_id, parent.attributes, parent.service) == ("parent", "", {}, "shop")
