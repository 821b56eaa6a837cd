"""The exporters of each signal, made so that a forked child gets its own: with ``setup``, the place that imports them.

An exporter keeps a connection, and a lock that a thread may hold while another one forks. A child that went on with
either would lose what it exports, or hang.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from threading import Event, Lock
from typing import Any, Final, TextIO, TypeVar, cast

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION
from opentelemetry.sdk.metrics import Histogram
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.view import Aggregation, ExponentialBucketHistogramAggregation
from opentelemetry.sdk.trace.export import SpanExporter

from aetherflow.errors import ConfigurationError, MissingExtraError
from aetherflow.telemetry.export.destination import Destination, Signal
from aetherflow.telemetry.export.files import ProcessFile
from aetherflow.telemetry.per_process import PerProcess

__all__ = ["log_exporter", "metric_reader", "span_exporter"]

_OURS: Final = ("console", "file")
E = TypeVar("E", SpanExporter, MetricExporter, LogRecordExporter)


def span_exporter(to: Destination, file: ProcessFile) -> Callable[[], SpanExporter]:
    """Return what makes exporters of spans to a destination; a forked child needs one of its own.

    Args:
        to: The destination.
        file: What a file destination writes to.

    Returns:
        What makes one. It raises ConfigurationError where a variable has a value that the exporter refuses.
    """
    return _telling(to, _span_exporter(to, file))


def metric_reader(to: Destination, file: ProcessFile, interval: float | None) -> MetricReader:
    """Return what reads metrics and exports them to a destination, also from forked children.

    Args:
        to: The destination.
        file: What a file destination writes to.
        interval: Seconds between two exports; None for what ``OTEL_METRIC_EXPORT_INTERVAL`` says.

    Raises:
        ConfigurationError: A variable has a value that the exporter refuses.
        MissingExtraError: The package of the exporter is not installed.
    """
    if to.exporter == "prometheus":
        try:
            from aetherflow.telemetry.export.prometheus import PrometheusReader
        except ModuleNotFoundError as missing:
            package = "opentelemetry-exporter-prometheus"
            raise MissingExtraError("OTEL_METRICS_EXPORTER=prometheus", package, "prometheus") from missing
        return PrometheusReader()
    if to.protocol is None and to.exporter not in _OURS:
        offered = _offered("metrics", to.exporter)
        if isinstance(offered, type) and issubclass(offered, MetricReader):
            return offered()
    own = _own(to, _metric_exporter(to, file))
    if to.protocol == "grpc":  # made later; what it prefers is what the variables say, the same for either protocol
        like = _metric_exporter(replace(to, protocol="http/protobuf"), file)()
    else:
        with own.use() as made:
            like = made
    return _PeriodicReader(_MetricExporter(own, like), None if interval is None else interval * 1e3)


def log_exporter(to: Destination, file: ProcessFile) -> LogRecordExporter:
    """Return what exports log records to a destination, also from forked children.

    Args:
        to: The destination.
        file: What a file destination writes to.

    Raises:
        ConfigurationError: A variable has a value that the exporter refuses.
    """
    return _LogExporter(_own(to, _log_exporter(to, file)))


def _own(to: Destination, make: Callable[[], E]) -> PerProcess[E]:
    """Return what gives every process its own exporter.

    One over gRPC is made when it is needed, though imported now: forking is safe for gRPC only until a process first
    uses it, and servers that fork their workers export nothing before.
    """
    return PerProcess(_telling(to, make), at_once=to.protocol != "grpc")


def _telling(to: Destination, make: Callable[[], E]) -> Callable[[], E]:
    """Have whatever is wrong with an exporter told in one way: each kind refuses its variables in its own."""

    def made() -> E:
        try:
            return make()
        except Exception as error:
            raise ConfigurationError(f"the exporter {to.exporter!r} cannot be made: {error}") from error

    return made


class _MetricExporter(MetricExporter):
    def __init__(self, own: PerProcess[MetricExporter], like: MetricExporter) -> None:
        super().__init__(like._preferred_temporality, like._preferred_aggregation)
        self._own = own

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        with self._own.use() as exporter:
            return exporter.export(metrics_data, timeout_millis, **kwargs)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self._own.shutdown(timeout_millis, **kwargs)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        with self._own.use() as exporter:
            return exporter.force_flush(timeout_millis)


class _PeriodicReader(PeriodicExportingMetricReader):
    """A reader whose locks a forked child has anew: the SDK's own only starts the thread there."""

    def _at_fork_reinit(self) -> None:
        if not self._shutdown:
            self._export_lock = Lock()
            self._shutdown_event = Event()
            super()._at_fork_reinit()  # type: ignore[no-untyped-call]


class _LogExporter(LogRecordExporter):
    def __init__(self, own: PerProcess[LogRecordExporter]) -> None:
        self._own = own

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        with self._own.use() as exporter:
            return exporter.export(batch)

    def shutdown(self) -> None:
        self._own.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        with self._own.use() as exporter:
            return bool(exporter.force_flush(timeout_millis))


def _span_exporter(to: Destination, file: ProcessFile) -> Callable[[], SpanExporter]:
    if to.exporter == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return lambda: ConsoleSpanExporter(out=sys.stdout)
    if to.exporter == "file":
        from opentelemetry.exporter.otlp.json.file import FileSpanExporter

        return lambda: FileSpanExporter(stream=cast("TextIO", file))
    if to.protocol is None:
        return cast("Callable[[], SpanExporter]", _offered("traces", to.exporter))
    if to.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter

        return lambda: GrpcSpanExporter(endpoint=to.endpoint)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter

    return lambda: HttpSpanExporter(endpoint=to.endpoint)


def _metric_exporter(to: Destination, file: ProcessFile) -> Callable[[], MetricExporter]:
    if to.exporter == "console":
        from opentelemetry.sdk.metrics.export import ConsoleMetricExporter

        return lambda: ConsoleMetricExporter(out=sys.stdout)
    if to.exporter == "file":
        from opentelemetry.exporter.otlp.json.file import FileMetricExporter

        return lambda: FileMetricExporter(stream=cast("TextIO", file), preferred_aggregation=_aggregation())
    if to.protocol is None:
        return cast("Callable[[], MetricExporter]", _offered("metrics", to.exporter))
    if to.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter

        return lambda: GrpcMetricExporter(endpoint=to.endpoint, preferred_aggregation=_aggregation())
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter

    return lambda: HttpMetricExporter(endpoint=to.endpoint, preferred_aggregation=_aggregation())


def _log_exporter(to: Destination, file: ProcessFile) -> Callable[[], LogRecordExporter]:
    if to.exporter == "file":
        from opentelemetry.exporter.otlp.json.file._log_exporter import FileLogExporter

        return lambda: FileLogExporter(stream=cast("TextIO", file))
    if to.protocol is None:
        return cast("Callable[[], LogRecordExporter]", _offered("logs", to.exporter))
    if to.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter

        return lambda: GrpcLogExporter(endpoint=to.endpoint)
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogExporter

    return lambda: HttpLogExporter(endpoint=to.endpoint)


def _offered(signal: Signal, name: str) -> Callable[[], object]:
    """Return what makes the exporter, or metric reader, that an installed package offers by a name."""
    (found, *_) = entry_points(group=f"opentelemetry_{signal}_exporter", name=name)
    offered: Callable[[], object] = found.load()
    return offered


_HISTOGRAM_VARIABLE: Final = OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION


def _aggregation() -> dict[type, Aggregation]:
    """Return base-2 exponential histograms, unless the standard variable asks for something."""
    return {} if os.environ.get(_HISTOGRAM_VARIABLE) else {Histogram: ExponentialBucketHistogramAggregation()}
