"""Encoded spans through OpenTelemetry's own OTLP exporters, below the point where these encode spans themselves.

So retries, compression, headers, TLS and time limits are theirs and follow ``OTEL_EXPORTER_OTLP_*``. What is used of
them is private: each transport first has its exporter send a span both ways to nowhere, and only if both requests are
the same, and meant for the same place, is it used. Else the exporter is used through its public interface.
"""

from __future__ import annotations

import gzip
import logging
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode

from aetherflow.telemetry.encoding.encoder import protobuf_encoder
from aetherflow.telemetry.export.transport import Delivery, ExporterTransport, Transport

__all__ = ["GrpcTransport", "HttpTransport", "otlp_transport"]

_LOGGER: Final = logging.getLogger("aetherflow")
_EXPORT: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class UnlikeError(Exception):
    """An exporter does not do what a transport takes for granted."""


def otlp_transport(exporter: SpanExporter, timeout: float | None = None) -> Transport:
    """Return a transport through an exporter.

    Args:
        exporter: An exporter of OpenTelemetry for OTLP over HTTP or gRPC, or any other.
        timeout: Seconds that a request with its retries may take, where the exporter would allow more.
    """
    for kind in (HttpTransport, GrpcTransport):
        if kind.is_for(exporter):
            try:
                return kind(exporter, timeout)
            except Exception as error:  # noqa: BLE001  # another version of it may do anything
                _LOGGER.info("%s is used through its public interface: %r", type(exporter).__qualname__, error)
    return ExporterTransport(exporter)


class HttpTransport:
    """Sends over HTTP.

    Args:
        exporter: The exporter.
        timeout: As for :func:`otlp_transport`.

    Raises:
        Exception: The exporter is another one than this transport was written for.
    """

    def __init__(self, exporter: Any, timeout: float | None = None) -> None:
        self._exporter = exporter
        self._client = exporter._client
        self._http = exporter._client._transport
        self._last: Any = None
        self._stopping = exporter._client._shutdown_event
        self._check()
        self._client._transport = self  # what the client sends with; it passes on, and keeps the answer
        if timeout is not None:
            self._client._timeout = min(self._client._timeout, timeout)

    @staticmethod
    def is_for(exporter: object) -> bool:
        """Tell whether an exporter may be sent through."""
        return type(exporter).__module__.startswith("opentelemetry.exporter.otlp.proto.http")

    def _check(self) -> None:
        nowhere = _Nowhere()
        self._client._transport = nowhere
        try:
            self._exporter.export([PROBE])
            self._client.export(encoded_probe())
        finally:
            self._client._transport = self._http
        public, ours = nowhere.requests
        if (public.place, public.message) != (ours.place, ours.message):
            raise UnlikeError("it sends something else")

    def send(self, body: bytes, count: int) -> Delivery:
        """Send a request, as often as the exporter would."""
        was_stopping, self._last = self._stopping.is_set(), None
        result = self._client.export(body)
        if result.success:
            return _taken(self._last.content(), count)
        interrupted = self._stopping.is_set() and not was_stopping
        status = result.status_code or (self._last and self._last.status_code)
        error = result.error or (self._last and self._last.error)
        return Delivery(count, f"status {status}" if status else type(error).__name__, interrupted)

    def interrupt(self) -> None:
        """End the wait for another attempt, and make no more of them."""
        self._stopping.set()

    def close(self) -> None:
        """Let go of the connection."""
        self._client._transport = self._http
        self._exporter.shutdown()

    # --- what the client needs of what it sends with -----------------------------------------------------------

    def request(self, *args: Any, **kwargs: Any) -> Any:
        """Pass a request on and keep what comes of it."""
        self._last = self._http.request(*args, **kwargs)
        return self._last

    def is_connection_error(self, error: Exception | None) -> bool:
        """Tell whether an error is the connection's."""
        return bool(self._http.is_connection_error(error))


class GrpcTransport:
    """Sends over gRPC; arguments and errors as for :class:`HttpTransport`."""

    def __init__(self, exporter: Any, timeout: float | None = None) -> None:
        self._exporter = exporter
        self._answer = b""
        self._reason = ""
        self._stopping = exporter._shutdown_in_progress
        self._check()
        exporter._stub = self._stub
        exporter._client = self._stub(exporter._channel)
        if timeout is not None:
            exporter._timeout = min(exporter._timeout, timeout)

    @staticmethod
    def is_for(exporter: object) -> bool:
        """Tell whether an exporter may be sent through."""
        return type(exporter).__module__.startswith("opentelemetry.exporter.otlp.proto.grpc")

    def _check(self) -> None:
        exporter, requests = self._exporter, []

        def keep(request: Any, metadata: object, timeout: float) -> object:
            requests.append((request, metadata))
            return ExportTraceServiceResponse()

        client, exporter._client = exporter._client, SimpleNamespace(Export=keep)
        try:
            exporter.export([PROBE])
            exporter._translate_data = lambda batch: batch.body
            exporter._count_data = lambda batch: batch.count
            exporter._export(_Batch(encoded_probe(), 1))
            (public, public_metadata), (ours, metadata) = requests
            if public_metadata != metadata or public != ExportTraceServiceRequest.FromString(ours):
                raise UnlikeError("it sends something else")
        except BaseException:
            for name in ("_translate_data", "_count_data"):
                exporter.__dict__.pop(name, None)
            raise
        finally:
            exporter._client = client

    def _stub(self, channel: Any) -> SimpleNamespace:
        """Return what the exporter calls: takes encoded requests, and keeps what came of the last."""
        call: Callable[..., bytes] = channel.unary_unary(_EXPORT, None, None)

        def export(request: bytes, metadata: object, timeout: float) -> bytes:
            try:
                self._answer = call(request, metadata=metadata, timeout=timeout)
            except Exception as error:
                code = getattr(error, "code", None)
                self._reason = code().name if callable(code) else type(error).__name__
                raise
            return self._answer

        return SimpleNamespace(Export=export)

    def send(self, body: bytes, count: int) -> Delivery:
        """Send a request, as often as the exporter would."""
        was_stopping, self._reason = self._stopping.is_set(), "closed"
        result = self._exporter._export(_Batch(body, count))
        if result is self._exporter._result.SUCCESS:
            return _taken(self._answer, count)
        return Delivery(count, self._reason, self._stopping.is_set() and not was_stopping)

    def interrupt(self) -> None:
        """End the wait for another attempt, and make no more of them."""
        self._stopping.set()

    def close(self) -> None:
        """Let go of the connection, and of a request that is under way."""
        self._exporter.shutdown()


def _taken(answer: bytes, count: int) -> Delivery:
    """Return what a receiver says of a request that it has taken, all of it or in part."""
    try:
        partial = ExportTraceServiceResponse.FromString(answer).partial_success
    except Exception:  # noqa: BLE001  # whatever it says, it has taken the request
        return Delivery()
    if partial.error_message:
        _LOGGER.debug("the receiver says of %d spans: %s", count, partial.error_message)
    rejected = max(0, min(partial.rejected_spans, count))
    return Delivery(rejected, "rejected" if rejected else "")


@dataclass(frozen=True, slots=True)
class _Batch:
    """What the exporter for gRPC is given instead of spans."""

    body: bytes
    count: int


# --- the self-test ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Request:
    place: tuple[str, str, Mapping[str, str]]
    message: ExportTraceServiceRequest


@dataclass(slots=True)
class _Nowhere:
    """What the exporter for HTTP sends with during the self-test."""

    requests: list[_Request] = field(default_factory=list)

    def request(
        self, method: str, url: str, *, headers: Mapping[str, str], data: bytes, timeout: float
    ) -> SimpleNamespace:
        encoding = {name.lower(): value for name, value in headers.items()}.get("content-encoding", "")
        if encoding:
            data = gzip.decompress(data) if encoding == "gzip" else zlib.decompress(data)
        self.requests.append(_Request((method, url, dict(headers)), ExportTraceServiceRequest.FromString(data)))
        return SimpleNamespace(status_code=200, reason="OK", error=None)


_CONTEXT: Final = SpanContext(0x0102030405060708090A0B0C0D0E0F10, 0x1112131415161718, is_remote=False)
PROBE: Final = ReadableSpan(
    "probe",
    _CONTEXT,
    SpanContext(_CONTEXT.trace_id, 7, is_remote=True),
    Resource({"service.name": "probe"}, "https://example.org/resource"),
    {"text": "ä", "number": -1, "share": 0.5, "yes": True, "bytes": b"\x00", "list": ("a", 1), "map": {"k": None}},
    [Event("event", {"text": "t" * 200}, 3)],
    [Link(_CONTEXT, {"number": 1 << 40})],
    SpanKind.CLIENT,
    status=Status(StatusCode.ERROR, "because"),
    start_time=1,
    end_time=2,
    instrumentation_scope=InstrumentationScope("scope", "1", "https://example.org/scope", {"yes": False}),
)
"""The span of the self-test: something of everything that a span may have."""


def encoded_probe() -> bytes:
    """Return the request that holds the probe, as our encoder writes it."""
    encoder = protobuf_encoder()
    return encoder.request(encoder.encode([PROBE]).pieces)
