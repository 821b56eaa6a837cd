"""OTLP receivers for the tests: ``rotel``, a real one, and two of our own that misbehave when told to."""

from __future__ import annotations

import gzip
import os
import re
import socket
import subprocess
import sysconfig
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

__all__ = [
    "Answer",
    "HttpReceiver",
    "ReceivedSpan",
    "Rotel",
    "closed_port",
    "free_ports",
    "parse_debug_log",
    "silent_server",
    "wait_until",
]

_HOST: Final = "127.0.0.1"
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
            each.bind((_HOST, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@contextmanager
def closed_port() -> Iterator[int]:
    """Give a port that refuses connections, and is nobody else's meanwhile: bound, never listened on."""
    with socket.socket() as bound:
        bound.bind((_HOST, 0))
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

    with socket.create_server((_HOST, 0)) as listener:
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
        return f"http://{_HOST}:{self.server.server_port}"

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
            instance = str(_attributes(resource.resource.attributes).get("service.instance.id", ""))
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
        super().__init__((_HOST, 0), _Handler)
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
        service = str(_attributes(resource_spans.resource.attributes).get("service.name", ""))
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                yield ReceivedSpan(span.name, *ids, _attributes(span.attributes), service)


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, object]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> object:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return tuple(map(_value, value.array_value.values))
    return getattr(value, kind)


class Rotel:
    """``rotel-agent`` as a subprocess: a real OTLP receiver that prints what it gets.

    Args:
        folder: Where its output is kept.
        detailed: Whether it prints every span, or only how many it gets.
        signal: What it prints: ``traces`` or ``metrics``.
    """

    def __init__(self, folder: Path, *, detailed: bool = True, signal: str = "traces") -> None:
        self._detailed = detailed
        self._signal = signal
        self._output = folder / "rotel.log"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.http_endpoint = self.grpc_endpoint = ""

    def spans(self) -> list[ReceivedSpan]:
        return parse_debug_log(self._output.read_text(encoding="utf-8"))

    def wait_for_spans(self, count: int) -> list[ReceivedSpan]:
        wait_until(lambda: len(self.spans()) >= count, f"{count} spans in rotel")
        return self.spans()

    def histograms(self, metric: str, attribute: str) -> dict[str, dict[str, float]]:
        """Return what points of a histogram said last, by the value of an attribute: Count, Sum, Min and Max."""
        found: dict[str, dict[str, float]] = {}
        name = told = ""
        for line in self._output.read_text(encoding="utf-8").splitlines():
            if line.startswith("     -> Name: "):
                name = line.removeprefix("     -> Name: ")
            elif (pair := _ATTRIBUTE.fullmatch(line)) and pair[1] == attribute:
                told = str(_printed_value(pair[2]))
            elif name == metric and (number := _NUMBER.fullmatch(line)):
                found.setdefault(told, {})[number[1]] = float(number[2])
        return found

    def count(self) -> int:
        """Return how many spans it has got, where it prints no more than that."""
        return sum(int(found) for found in _COUNT.findall(_STYLE.sub("", self._output.read_text(encoding="utf-8"))))

    def wait_for_count(self, count: int) -> None:
        """Wait until it has got so many: it prints a moment after it has answered."""
        wait_until(lambda: self.count() >= count, f"{count} spans in rotel")

    def __enter__(self) -> Self:
        for _ in range(3):  # somebody may take a port between the choice and the start
            http, grpc = free_ports(2)
            self._process = self._start(http, grpc)
            self.http_endpoint, self.grpc_endpoint = f"http://{_HOST}:{http}", f"http://{_HOST}:{grpc}"
            wait_until(lambda: self._exited() or all(map(_listening, (http, grpc))), "rotel to listen")  # noqa: B023
            if not self._exited():
                return self
        output = self._output.read_text(encoding="utf-8")
        if "error while loading shared libraries" in output:
            pytest.skip(f"rotel embeds Python, and this one came without its shared library: {output}")
        raise RuntimeError(f"rotel does not start:\n{output}")

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _exited(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _start(self, http: int, grpc: int) -> subprocess.Popen[bytes]:
        package = find_spec("rotel")
        if package is None or not package.submodule_search_locations:
            raise RuntimeError("the tests need rotel, a real OTLP receiver: install the extra 'test'")
        options = {
            "exporter": "blackhole",
            "debug-log": self._signal,
            "debug-log-verbosity": "detailed" if self._detailed else "basic",
            "otlp-http-endpoint": f"{_HOST}:{http}",
            "otlp-grpc-endpoint": f"{_HOST}:{grpc}",
            "pid-file": str(self._folder / "rotel.pid"),
            "log-file": str(self._folder / "rotel.own.log"),
        }
        command = [f"{package.submodule_search_locations[0]}/rotel-agent", "start", "--disable-batching"]
        command += [part for name, value in options.items() for part in (f"--{name}", value)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ROTEL_", "OTEL_"))}
        # It embeds Python, whose shared library only the interpreter itself knows where to find.
        libraries = [sysconfig.get_config_var("LIBDIR"), environment.get("LD_LIBRARY_PATH")]
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
        with self._output.open("wb") as output:
            return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((_HOST, port)) == 0


_STYLE: Final = re.compile(r"\x1b\[[0-9;]*m")
_COUNT: Final = re.compile(r"Received traces\..* spans=(\d+)")
_NUMBER: Final = re.compile(r"(Count|Sum|Min|Max): (.*)")
_FIELD: Final = re.compile(r"    (Trace ID|Parent ID|ID|Name) +: ?(.*)")
_ATTRIBUTE: Final = re.compile(r"     -> ([^:]+): (.*)")
_VALUE: Final = re.compile(r"(Str|Int|Double|Bool|Slice)\((.*)\)")


def parse_debug_log(text: str) -> list[ReceivedSpan]:
    """Return the spans in what ``rotel-agent --debug-log traces --debug-log-verbosity detailed`` prints."""
    spans: list[ReceivedSpan] = []
    fields: dict[str, str] = {}
    resource: dict[str, object] = {}
    attributes: dict[str, object] = {}
    section: dict[str, object] | None = None
    for line in text.splitlines():
        if line.startswith("ResourceSpans #"):
            resource, section = {}, None
        elif line == "Resource attributes:":
            section = resource
        elif line.startswith(("ScopeSpans #", "Span #", "Events:", "Links:")):
            section = None
        elif line == "Attributes:":
            section = attributes
        elif (found := _ATTRIBUTE.fullmatch(line)) and section is not None:
            section[found[1]] = _printed_value(found[2])
        elif found := _FIELD.fullmatch(line):
            fields[found[1]] = found[2]
            if found[1] == "Name":  # the last of the four
                attributes = {}
                ids = (fields["Trace ID"], fields["ID"], fields["Parent ID"])
                spans.append(ReceivedSpan(fields["Name"], *ids, attributes, str(resource.get("service.name", ""))))
    return spans


def _printed_value(text: str) -> object:
    found = _VALUE.fullmatch(text)
    if found is None:
        return text
    kind, inner = found.groups()
    match kind:
        case "Int":
            return int(inner)
        case "Double":
            return float(inner)
        case "Bool":
            return inner == "true"
        case "Slice":
            return tuple(map(_printed_value, re.split(r"(?<=\)), ", inner)))
        case _:
            return inner
