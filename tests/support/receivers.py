"""Receivers in this process: one that decodes OTLP over HTTP and misbehaves on request, and bare sockets."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self, TypeVar

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

__all__ = [
    "HOST",
    "Answer",
    "HttpReceiver",
    "ReceivedSpan",
    "attribute_values",
    "closed_port",
    "free_ports",
    "silent_server",
    "wait_until",
]

HOST: Final = "127.0.0.1"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """What a receiver got of a span: ids in hexadecimal, the parent's empty for a root."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: Mapping[str, object]
    service: str


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that nobody listens on just now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@contextmanager
def closed_port() -> Iterator[int]:
    """Give a port that refuses connections, and is nobody else's meanwhile: bound, never listened on."""
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        yield bound.getsockname()[1]


@contextmanager
def silent_server() -> Iterator[int]:
    """Give a port that accepts connections and never says a word on them."""
    accepted: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                accepted.append(listener.accept()[0])
            except OSError:
                return

    with socket.create_server((HOST, 0)) as listener:
        thread = threading.Thread(target=accept, name="silent-server")
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept(), which closing alone does not
            thread.join()
            for each in accepted:
                each.close()


def wait_until(look: Callable[[], T], what: str, timeout: float = 15.0) -> T:
    """Return the first true answer, looking every few milliseconds; fail saying what was waited for."""
    end = time.monotonic() + timeout
    while not (answer := look()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout:g} s for {what}")
        time.sleep(0.02)
    return answer


@dataclass(frozen=True, slots=True)
class Answer:
    """How :class:`HttpReceiver` treats a request.

    Args:
        status: The HTTP status that it answers with; telemetry counts as received with 200 alone.
        delay: Seconds that it takes first.
        retry_after: Seconds that the client is asked to wait.
        silent: It reads the request and never answers.
        cut: It reads the request and closes the connection without an answer.
        body: What it answers with; by default the empty message: everything was taken.
    """

    status: int = 200
    delay: float = 0.0
    retry_after: int | None = None
    silent: bool = False
    cut: bool = False
    body: bytes = b""


@dataclass
class HttpReceiver:
    """An OTLP/HTTP receiver in this process; set :attr:`answer` at any time to make it misbehave."""

    answer: Answer = field(default_factory=Answer)
    spans: list[ReceivedSpan] = field(default_factory=list)
    metrics: list[ExportMetricsServiceRequest] = field(default_factory=list)
    logs: list[ExportLogsServiceRequest] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    """The path of every request that was read, whatever became of it."""
    headers: list[Mapping[str, str]] = field(default_factory=list)
    """The headers of each of them."""

    def __post_init__(self) -> None:
        self.closing = threading.Event()
        self.server = _Server(self)
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), name="http-receiver")

    @property
    def endpoint(self) -> str:
        """The base URL, for ``OTEL_EXPORTER_OTLP_ENDPOINT``."""
        return f"http://{HOST}:{self.server.server_port}"

    def receive(self, path: str, body: bytes) -> None:
        if path == "/v1/traces":
            self.spans.extend(_spans_of(ExportTraceServiceRequest.FromString(body)))
        elif path == "/v1/logs":
            self.logs.append(ExportLogsServiceRequest.FromString(body))
        else:
            self.metrics.append(ExportMetricsServiceRequest.FromString(body))

    def wait_for_spans(self, count: int) -> list[ReceivedSpan]:
        wait_until(lambda: len(self.spans) >= count, f"{count} spans")
        return list(self.spans)

    def last_points(self, metric: str) -> dict[str, list[Any]]:
        """Return the data points of a metric that each process has sent last, by its ``service.instance.id``."""
        found: dict[str, list[Any]] = {}
        for resource in (each for request in self.metrics for each in request.resource_metrics):
            instance = str(attribute_values(resource.resource.attributes).get("service.instance.id", ""))
            for sent in (each for scope in resource.scope_metrics for each in scope.metrics):
                if sent.name == metric:
                    found[instance] = list(getattr(sent, sent.WhichOneof("data")).data_points)
        return found

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.server.shutdown()
        self._thread.join()
        self.server.close_connections()
        self.server.server_close()


class _Server(ThreadingHTTPServer):
    """Knows its connections, to end those that are kept alive."""

    def __init__(self, receiver: HttpReceiver) -> None:
        super().__init__((HOST, 0), _Handler)
        self.receiver = receiver
        self._connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the client was faster


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections alive, as a collector does
    server: _Server

    def do_POST(self) -> None:
        receiver, body = self.server.receiver, self._body()
        answer = receiver.answer
        receiver.requests.append(self.path)
        receiver.headers.append(dict(self.headers))
        if answer.silent:
            receiver.closing.wait()
        if answer.silent or answer.cut or receiver.closing.wait(answer.delay):
            self.close_connection = True
            return
        if answer.status == 200:
            receiver.receive(self.path, body)
        self.send_response(answer.status)
        if answer.retry_after is not None:
            self.send_header("Retry-After", str(answer.retry_after))
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


def _spans_of(request: ExportTraceServiceRequest) -> Iterator[ReceivedSpan]:
    for resource_spans in request.resource_spans:
        service = str(attribute_values(resource_spans.resource.attributes).get("service.name", ""))
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                yield ReceivedSpan(span.name, *ids, attribute_values(span.attributes), service)


def attribute_values(pairs: Iterable[KeyValue]) -> dict[str, object]:
    """Return attributes as Python values by their keys."""
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> object:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return tuple(map(_value, value.array_value.values))
    return getattr(value, kind)
