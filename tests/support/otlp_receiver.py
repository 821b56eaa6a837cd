"""The OTLP receiver of the tests: ``rotel`` if it runs here, else one in this process that decodes with protobuf."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from tests.support.receivers import HOST, HttpReceiver, ReceivedSpan, attribute_values, wait_until
from tests.support.rotel import Rotel, reason_without_rotel

__all__ = ["ProtobufReceiver", "otlp_receiver"]

_PATHS = {
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export": "/v1/traces",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export": "/v1/metrics",
    "/opentelemetry.proto.collector.logs.v1.LogsService/Export": "/v1/logs",
}
"""The path of the same service over HTTP, by the method of gRPC."""


class ProtobufReceiver:
    """An OTLP receiver over HTTP and gRPC that decodes requests with ``opentelemetry-proto``.

    It has the methods of :class:`~tests.support.rotel.Rotel` and runs on every Python.
    """

    def __init__(self) -> None:
        self._http = HttpReceiver()
        self._server = grpc.server(
            ThreadPoolExecutor(4, thread_name_prefix="grpc-receiver"),
            handlers=[_Export(self._http.receive)],
            options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)],
        )
        self.http_endpoint = self._http.endpoint
        self.grpc_endpoint = f"http://{HOST}:{self._server.add_insecure_port(f'{HOST}:0')}"

    def spans(self) -> list[ReceivedSpan]:
        return list(self._http.spans)

    def wait_for_spans(self, count: int) -> list[ReceivedSpan]:
        return self._http.wait_for_spans(count)

    def count(self) -> int:
        """Return the number of spans received."""
        return len(self._http.spans)

    def wait_for_count(self, count: int) -> None:
        wait_until(lambda: self.count() >= count, f"{count} spans")

    def histograms(self, metric: str, attribute: str) -> dict[str, dict[str, float]]:
        """Return the last point of a histogram per value of an attribute: Count, Sum, Min and Max."""
        return {
            str(attribute_values(point.attributes)[attribute]): {
                "Count": float(point.count),
                "Sum": point.sum,
                "Min": point.min,
                "Max": point.max,
            }
            for request in list(self._http.metrics)
            for point in _histogram_points(request, metric)
        }

    def __enter__(self) -> Self:
        self._http.__enter__()
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()
        self._http.__exit__()


class _Export(grpc.GenericRpcHandler):
    """Answers the three export methods with an empty message, and any other with UNIMPLEMENTED."""

    def __init__(self, receive: Callable[[str, bytes], None]) -> None:
        self._receive = receive

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        path = _PATHS.get(handler_call_details.method)
        if path is None:
            return None

        def export(body: bytes, _: grpc.ServicerContext) -> bytes:
            self._receive(path, body)
            return b""

        return grpc.unary_unary_rpc_method_handler(export)


def _histogram_points(request: ExportMetricsServiceRequest, metric: str) -> list[Any]:
    return [
        point
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for sent in scope.metrics
        if sent.name == metric
        for point in getattr(sent, sent.WhichOneof("data")).data_points
    ]


def otlp_receiver(folder: Path, *, detailed: bool = True, signal: str = "traces") -> Rotel | ProtobufReceiver:
    """Return a receiver to enter: ``rotel`` if it runs here, else :class:`ProtobufReceiver`.

    Args:
        folder: The folder for the output of ``rotel``.
        detailed: Whether ``rotel`` prints every span, or only the number of spans per request.
        signal: The signal that ``rotel`` prints; the other receiver keeps every signal.
    """
    return ProtobufReceiver() if reason_without_rotel() else Rotel(folder, detailed=detailed, signal=signal)
