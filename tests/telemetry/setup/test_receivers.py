"""What ``configure()`` sends is what a real OTLP receiver gets."""

from __future__ import annotations

import pytest
from opentelemetry import metrics, trace
from tests.support.otlp_receiver import otlp_receiver
from tests.support.receivers import HttpReceiver

from aetherflow import node
from aetherflow.telemetry.setup.configuring import configure


@node
def numbers(n):
    return list(range(n))


@node
def lowest(numbers):
    return min(numbers)


@node
def highest(numbers):
    return max(numbers)


@node
def report(parallel_results):
    return dict(parallel_results)


EXTREMES = numbers.fan_out_in([lowest, highest], report).named("extremes")


@pytest.fixture
def receiver(tmp_path):
    with otlp_receiver(tmp_path) as started:
        yield started


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_trace_arrives_whole(monkeypatch, receiver, protocol):
    """Over HTTP and over gRPC, names, parent ids, attributes and the service arrive as they were."""
    endpoint = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    attributes = {"text": "a: b", "count": 3, "share": 0.5, "yes": True, "list": ("x", "y")}
    with configure("shop") as telemetry:
        assert telemetry.exporter == "otlp"
        assert telemetry.endpoint.startswith(endpoint)
        tracer = trace.get_tracer("test")
        with (
            tracer.start_as_current_span("parent") as parent,
            tracer.start_as_current_span("child", attributes=attributes),
        ):
            ...
    child, received = receiver.wait_for_spans(2)
    assert (received.name, received.parent_id, received.service) == ("parent", "", "shop")
    assert (child.name, child.parent_id, child.trace_id) == ("child", received.span_id, received.trace_id)
    assert child.attributes == attributes
    assert received.trace_id == f"{parent.get_span_context().trace_id:032x}"
    assert received.span_id == f"{parent.get_span_context().span_id:016x}"


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_the_trace_of_a_flow_arrives_whole(monkeypatch, receiver, protocol):
    """A run over threads is one trace at the receiver: every span below its run, under the ids that the run told."""
    monkeypatch.setenv(
        "OTEL_EXPORTER_OTLP_ENDPOINT", receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
    )
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    with configure("shop"):
        done = EXTREMES.execute({"n": 4})
    spans = receiver.wait_for_spans(5)
    (run,) = [span for span in spans if span.name == "run extremes"]
    assert sorted(span.name for span in spans if span.parent_id == run.span_id) == [
        "highest",
        "lowest",
        "numbers",
        "report",
    ]
    assert {span.trace_id for span in spans} == {done.trace_id}
    assert run.attributes["aetherflow.run.id"] == done.run_id


def test_metrics_arrive_as_exponential_histograms(monkeypatch):
    """Over OTLP a histogram is a base-2 exponential one, with its exact count, sum, minimum and maximum."""
    with HttpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        with configure("shop") as telemetry:
            assert telemetry.metrics_endpoint == f"{receiver.endpoint}/v1/metrics"
            histogram = metrics.get_meter("test").create_histogram("duration", "s")
            for value in (0.5, 0.25, 2.0):
                histogram.record(value)
        (request,) = receiver.metrics
    (metric,) = request.resource_metrics[0].scope_metrics[0].metrics
    (point,) = metric.exponential_histogram.data_points
    assert (point.count, point.sum, point.min, point.max) == (3, 2.75, 0.25, 2.0)


def test_headers_and_compression_of_the_standard_variables_are_used(monkeypatch):
    """What the exporters themselves read from ``OTEL_EXPORTER_OTLP_*`` stays in force."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    with HttpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        with configure("shop"), trace.get_tracer("test").start_as_current_span("only"):
            ...
        assert [span.name for span in receiver.spans] == ["only"]
        assert receiver.headers[0]["Content-Encoding"] == "gzip"
