"""Encoded spans go through OpenTelemetry's own exporters: their retries, headers and limits, and what comes back."""

from __future__ import annotations

import io
import json
import logging
from concurrent import futures
from contextlib import contextmanager
from types import SimpleNamespace

import grpc
import pytest
from hypothesis import given
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import ConsoleSpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode
from tests.support.receivers import Answer, HttpReceiver, closed_port, silent_server, wait_until
from tests.telemetry.spans_at_random import batches

from aetherflow.telemetry.encoding.decoded import decode_spans
from aetherflow.telemetry.encoding.encoder import protobuf_encoder
from aetherflow.telemetry.export import otlp_transport as module
from aetherflow.telemetry.export.ledger import SpanLedger
from aetherflow.telemetry.export.otlp_transport import GrpcTransport, HttpTransport, encoded_probe, otlp_transport
from aetherflow.telemetry.export.pipeline import SpanPipeline
from aetherflow.telemetry.export.schedule import Schedule
from aetherflow.telemetry.export.transport import ExporterTransport

PRINTABLE = ReadableSpan(
    "printable",
    SpanContext(1, 2, is_remote=False),
    SpanContext(1, 3, is_remote=True),
    Resource({"service.name": "shop"}, "https://example.org/schema"),
    {"text": "ä", "list": ("a", "b"), "share": 0.5},
    [Event("event", {"number": 1}, 5)],
    [Link(SpanContext(4, 5, is_remote=False), {"yes": True})],
    SpanKind.CLIENT,
    status=Status(StatusCode.ERROR, "because"),
    start_time=1_000,
    end_time=2_000,
    instrumentation_scope=InstrumentationScope("scope", "1"),
)
needs_client = pytest.mark.skipif(
    not hasattr(HttpExporter(), "_client"), reason="this version of the exporter is used through its public interface"
)
UNHURRIED = Schedule(delay=3600.0)


class GrpcReceiver(TraceServiceServicer):
    """An OTLP/gRPC receiver in this process; set ``answer`` to make it misbehave."""

    def __init__(self, address="127.0.0.1:0"):
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.answer = lambda context: ExportTraceServiceResponse()
        self.server = grpc.server(futures.ThreadPoolExecutor(2))
        add_TraceServiceServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port(address)
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def Export(self, request, context):
        self.headers.append(dict(context.invocation_metadata()))
        self.requests.append(request)
        return self.answer(context)

    def __enter__(self):
        self.server.start()
        return self

    def __exit__(self, *_):
        self.server.stop(0).wait()


@contextmanager
def piped(make):
    pipeline = SpanPipeline(protobuf_encoder(), make, schedule=UNHURRIED)
    try:
        yield pipeline
    finally:
        pipeline.close(10)


@pytest.fixture(autouse=True)
def quiet(caplog):
    """The exporters log each failure; that they do is not the point here."""
    caplog.set_level(logging.CRITICAL, "opentelemetry")


def http(receiver):
    return HttpTransport(HttpExporter(endpoint=f"{receiver.endpoint}/v1/traces"))


# --- over HTTP -------------------------------------------------------------------------------------------------------


@needs_client
@pytest.mark.parametrize("compression", ["none", "gzip", "deflate"])
def test_http_sends_what_the_exporter_would_send(monkeypatch, compression):
    """Endpoint, headers and compression are those of the variables, and the request is the stock exporter's."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret")
    with HttpReceiver() as receiver:
        exporter = HttpExporter(endpoint=f"{receiver.endpoint}/v1/traces")
        if compression != "deflate":  # which our receiver does not read
            exporter.export([module.PROBE])
        transport = otlp_transport(exporter)
        assert isinstance(transport, HttpTransport)
        assert receiver.headers[1:] == []  # the self-test sent nothing
        if compression != "deflate":
            assert transport.send(encoded_probe(), 1).failed == 0
            stock, ours = receiver.headers
            assert ours["api-key"] == "secret"
            assert {**stock, "Content-Length": ""} == {**ours, "Content-Length": ""}
            assert receiver.spans[0] == receiver.spans[1]
        transport.close()


@needs_client
@pytest.mark.parametrize(("status", "reason"), [(400, "status 400"), (401, "status 401"), (500, "status 500")])
def test_what_http_refuses_for_good_is_failed_at_once(status, reason):
    """A status that promises nothing to another attempt is a failure after one."""
    with HttpReceiver(Answer(status)) as receiver:
        transport = http(receiver)
        delivery = transport.send(encoded_probe(), 7)
        transport.close()
    assert (delivery.failed, delivery.reason, len(receiver.requests)) == (7, reason, 1)


class BusyAtFirst(HttpReceiver):
    """A receiver that has no room for the first request."""

    @property
    def answer(self):
        return Answer() if self.requests else Answer(503, retry_after=0)

    @answer.setter
    def answer(self, _): ...


@needs_client
def test_http_tries_again_where_the_receiver_asks_for_it():
    """A receiver that has no room now gets the request again, after the time that it asks for."""
    with BusyAtFirst() as receiver:
        transport = http(receiver)
        assert transport.send(encoded_probe(), 1).failed == 0
        transport.close()
    assert (len(receiver.requests), len(receiver.spans)) == (2, 1)


@needs_client
def test_http_counts_what_a_receiver_takes_in_part():
    """Spans that a receiver says it rejected are failed, though the request succeeded."""
    answer = ExportTraceServiceResponse(partial_success=ExportTracePartialSuccess(rejected_spans=2))
    with HttpReceiver(Answer(body=answer.SerializeToString())) as receiver, piped(lambda: http(receiver)) as pipeline:
        for _ in range(5):
            pipeline.push(module.PROBE)
        assert not pipeline.flush(10)
        assert pipeline.ledger() == SpanLedger(5, 3, 0, 2, 0, {}, {"rejected": 2})


@needs_client
def test_a_receiver_that_is_not_there_is_told_as_such(monkeypatch):
    """A refused connection fails with the name of the error, after the attempts that the time limit allows."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.05")
    with closed_port() as port, piped(lambda: http(SimpleNamespace(endpoint=f"http://127.0.0.1:{port}"))) as pipeline:
        pipeline.push(module.PROBE)
        assert not pipeline.flush(10)
        assert pipeline.ledger().failed_by == {"ConnectionError": 1}


@pytest.mark.parametrize("protocol", [pytest.param("http", marks=needs_client), "grpc"])
def test_closing_interrupts_the_wait_between_attempts(monkeypatch, protocol):
    """A receiver that asks for a long wait does not hold up closing: the request is made once more, at once."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3000")
    with HttpReceiver(Answer(503, retry_after=1000)) as receiver, GrpcReceiver() as grpc_receiver:
        grpc_receiver.answer = unavailable_for_long
        exporter = (
            GrpcExporter(endpoint=grpc_receiver.endpoint)
            if protocol == "grpc"
            else HttpExporter(endpoint=f"{receiver.endpoint}/v1/traces")
        )
        with piped(lambda: otlp_transport(exporter)) as pipeline:
            pipeline.push(module.PROBE)
            assert not pipeline.flush(0.01)
            requests = grpc_receiver.requests if protocol == "grpc" else receiver.requests
            wait_until(lambda: requests, "an attempt")
            assert not pipeline.close(50)
            assert pipeline.ledger().failed_by == {"RESOURCE_EXHAUSTED" if protocol == "grpc" else "status 503": 1}
        assert len(requests) == 2


def unavailable_for_long(context):
    from google.protobuf.duration_pb2 import Duration
    from google.rpc.error_details_pb2 import RetryInfo

    info = RetryInfo(retry_delay=Duration(seconds=1000)).SerializeToString()
    context.set_trailing_metadata([("google.rpc.retryinfo-bin", info)])
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "not now")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [HttpExporter, GrpcExporter])
def test_closing_does_not_wait_for_a_receiver_that_never_answers(monkeypatch, kind):
    """A request under way is given up when the time is over, its spans dropped; the thread is no one's concern."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3")
    with silent_server() as port:
        exporter = kind(endpoint=f"http://127.0.0.1:{port}")
        with piped(lambda: otlp_transport(exporter)) as pipeline:
            pipeline.push(module.PROBE)
            assert not pipeline.flush(0.1)
            worker = pipeline._worker
            assert not pipeline.close(0.01)
            assert pipeline.ledger() == SpanLedger(1, 0, 1, 0, 0, {"shutdown": 1})
            worker.join()  # or it would draw its next wait at random, while hypothesis draws for other tests


@needs_client
def test_the_standard_export_timeout_limits_a_request(monkeypatch):
    """``OTEL_BSP_EXPORT_TIMEOUT`` shortens what the exporter would allow, and never lengthens it."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "7")
    for kind in (HttpExporter, GrpcExporter):
        for limit, expected in ((3.0, 3.0), (30.0, 7.0), (None, 7.0)):
            exporter = kind(endpoint="http://127.0.0.1:1")
            transport = otlp_transport(exporter, limit)
            assert (exporter._client._timeout if kind is HttpExporter else exporter._timeout) == expected
            transport.close()


# --- over gRPC -------------------------------------------------------------------------------------------------------


def test_grpc_sends_what_the_exporter_would_send(monkeypatch):
    """Headers are those of the variables, and the request is the stock exporter's."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret")
    with GrpcReceiver() as receiver:
        GrpcExporter(endpoint=receiver.endpoint).export([module.PROBE])
        transport = otlp_transport(GrpcExporter(endpoint=receiver.endpoint))
        assert isinstance(transport, GrpcTransport)
        assert len(receiver.requests) == 1  # the self-test sent nothing
        assert transport.send(encoded_probe(), 1).failed == 0
        transport.close()
    stock, ours = receiver.requests
    assert stock == ours
    assert [headers["api-key"] for headers in receiver.headers] == ["secret", "secret"]


def test_grpc_counts_what_a_receiver_takes_in_part():
    """Spans that a receiver says it rejected are failed, though the call succeeded."""
    with GrpcReceiver() as receiver:
        transport = otlp_transport(GrpcExporter(endpoint=receiver.endpoint))
        partial = ExportTracePartialSuccess(rejected_spans=2, error_message="too old")
        receiver.answer = lambda _: ExportTraceServiceResponse(partial_success=partial)
        delivery = transport.send(encoded_probe(), 5)
        transport.close()
    assert (delivery.failed, delivery.reason) == (2, "rejected")


def test_grpc_tells_why_it_failed():
    """A call that is refused for good fails after one attempt, with the status as the reason."""
    with GrpcReceiver() as receiver:
        receiver.answer = lambda context: context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
        transport = otlp_transport(GrpcExporter(endpoint=receiver.endpoint))
        delivery = transport.send(encoded_probe(), 5)
        transport.close()
    assert (delivery.failed, delivery.reason, len(receiver.requests)) == (5, "PERMISSION_DENIED", 1)


def test_grpc_connects_anew_after_a_receiver_was_away():
    """A receiver that goes and comes back on its port gets the request, through the exporter's own reconnection."""
    with GrpcReceiver() as first:
        transport = otlp_transport(GrpcExporter(endpoint=first.endpoint))
        assert transport.send(encoded_probe(), 1).failed == 0
    with GrpcReceiver(f"127.0.0.1:{first.port}") as second:
        assert transport.send(encoded_probe(), 1).failed == 0
        assert len(second.requests) == 1
        transport.close()


# --- any exporter ----------------------------------------------------------------------------------------------------


def test_another_exporter_gets_the_spans_decoded():
    """Whatever exports spans can be exported through, with what it would have got from the stock processor."""
    exporter = InMemorySpanExporter()
    with piped(lambda: otlp_transport(exporter)) as pipeline:
        assert isinstance(pipeline._transport, ExporterTransport)
        pipeline.push(PRINTABLE)
        assert pipeline.flush(10)
        (arrived,) = exporter.get_finished_spans()
    assert json.loads(arrived.to_json()) == json.loads(PRINTABLE.to_json())
    assert (arrived.instrumentation_scope, arrived.resource) == (PRINTABLE.instrumentation_scope, PRINTABLE.resource)


@needs_client  # an older SDK leaves attributes without a value out
@given(batches)
def test_spans_survive_being_decoded(spans):
    """Any spans, encoded, decoded and encoded again, are what they were."""
    encoder = protobuf_encoder()
    request = encoder.request(encoder.encode(spans).pieces)
    assert encoder.request(encoder.encode(decode_spans(request)).pieces) == request


def test_an_exporter_that_fails_fails_its_spans():
    """An exporter that says it failed, or raises, has its spans counted as failed."""
    exporter = InMemorySpanExporter()
    exporter.shutdown()
    with piped(lambda: otlp_transport(exporter)) as pipeline:
        pipeline.push(module.PROBE)
        assert not pipeline.flush(10)
        assert pipeline.ledger().failed_by == {"exporter": 1}


class OtherExporter(InMemorySpanExporter):
    """One that says to be OpenTelemetry's, and has none of the private parts."""


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_an_exporter_without_the_private_parts_is_used_publicly(caplog, protocol):
    """Where a version has other private parts, spans arrive the public way, and one line says so."""
    caplog.set_level(logging.INFO, "aetherflow")
    OtherExporter.__module__ = f"opentelemetry.exporter.otlp.proto.{protocol}.trace_exporter"
    exporter = OtherExporter()
    transport = otlp_transport(exporter)
    assert isinstance(transport, ExporterTransport)
    assert [text for text in caplog.messages if text.startswith("OtherExporter is used through its public interface")]
    assert transport.send(encoded_probe(), 1).failed == 0
    assert len(exporter.get_finished_spans()) == 1


@pytest.mark.parametrize("kind", [HttpExporter, GrpcExporter])
def test_an_exporter_that_would_send_something_else_is_used_publicly(monkeypatch, kind):
    """Where the self-test sees two different requests, the exporter is left as it was, and its own way is taken."""
    encoder = protobuf_encoder()
    other = encoder.request(encoder.encode([module.PROBE] * 2).pieces)
    with HttpReceiver() as receiver, GrpcReceiver() as grpc_receiver, monkeypatch.context() as patch:
        endpoint = grpc_receiver.endpoint if kind is GrpcExporter else f"{receiver.endpoint}/v1/traces"
        patch.setattr(module, "encoded_probe", lambda: other)
        transport = otlp_transport(kind(endpoint=endpoint))
        assert isinstance(transport, ExporterTransport)
        assert transport.send(encoded_probe(), 1).failed == 0
        transport.close()
    assert len(receiver.spans) + len(grpc_receiver.requests) == 1


def test_the_console_shows_spans_as_it_always_did():
    """The console exporter prints the same JSON as for the stock processor."""
    encoder, stock, ours = protobuf_encoder(), io.StringIO(), io.StringIO()
    ConsoleSpanExporter(out=stock).export([PRINTABLE])
    transport = otlp_transport(ConsoleSpanExporter(out=ours))
    transport.send(encoder.request(encoder.encode([PRINTABLE]).pieces), 1)
    assert json.loads(ours.getvalue()) == json.loads(stock.getvalue())
