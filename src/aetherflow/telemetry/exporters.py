"""The exporters of each signal, made so that a forked child gets its own: with ``setup``, the place that imports them.

An exporter keeps a connection, and a lock that a thread may hold while another one forks. A child that went on with
either would lose what it exports, or hang.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from threading import Event, Lock
from typing import Any, Final, Generic, TextIO, TypeVar, cast

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

from aetherflow.errors import ConfigurationError
from aetherflow.telemetry.destination import Destination, Signal
from aetherflow.telemetry.export_file import ProcessFile

__all__ = ["log_exporter", "metric_reader", "span_exporter"]

T = TypeVar("T")


def span_exporter(to: Destination, file: ProcessFile) -> SpanExporter:
    """Return what exports spans to a destination from this process; a forked child needs one of its own.

    Args:
        to: The destination.
        file: What a file destination writes to.

    Raises:
        ConfigurationError: A variable has a value that the exporter refuses.
    """
    return _PerProcess(to, lambda: _span_exporter(to, file)).get()


def metric_reader(to: Destination, file: ProcessFile, interval: float | None) -> MetricReader:
    """Return what reads metrics and exports them to a destination, also from forked children.

    Args:
        to: The destination.
        file: What a file destination writes to.
        interval: Seconds between two exports; None for what ``OTEL_METRIC_EXPORT_INTERVAL`` says.

    Raises:
        ConfigurationError: The package of the exporter is not installed, or a variable has a value it refuses.
    """
    if to.exporter == "prometheus":
        try:
            from aetherflow.telemetry.export_prometheus import PrometheusReader
        except ModuleNotFoundError as missing:
            raise ConfigurationError(
                f"OTEL_METRICS_EXPORTER names 'prometheus', but {missing.name} is missing; "
                "install aetherflow-otel[prometheus]"
            ) from missing
        return PrometheusReader()
    own = _PerProcess(to, lambda: _metric_exporter(to, file))
    made = own.get()
    if isinstance(made, MetricReader):
        return made
    return _PeriodicReader(
        _MetricExporter(cast("_PerProcess[MetricExporter]", own)), None if interval is None else interval * 1e3
    )


def log_exporter(to: Destination, file: ProcessFile) -> LogRecordExporter:
    """Return what exports log records to a destination, also from forked children.

    Args:
        to: The destination.
        file: What a file destination writes to.

    Raises:
        ConfigurationError: A variable has a value that the exporter refuses.
    """
    return _LogExporter(_PerProcess(to, lambda: _log_exporter(to, file)))


class _PerProcess(Generic[T]):
    """Something of which every process has its own, made at once here and on first use in a forked child."""

    __slots__ = ("_inherited", "_made", "_make", "_process")

    def __init__(self, to: Destination, make: Callable[[], T]) -> None:
        self._make = make
        self._inherited: list[T] = []
        try:
            self._made = make()
        except Exception as error:  # each kind of exporter refuses what its variables say in a way of its own
            raise ConfigurationError(f"the exporter {to.exporter!r} cannot be made: {error}") from error
        self._process = os.getpid()

    def get(self) -> T:
        """Return the one of this process."""
        if self._process != os.getpid():
            # Kept, because closing it would say good-bye on a connection that is the parent's.
            self._inherited.append(self._made)
            self._made = self._make()
            self._process = os.getpid()
        return self._made


class _MetricExporter(MetricExporter):
    def __init__(self, own: _PerProcess[MetricExporter]) -> None:
        made = own.get()
        super().__init__(made._preferred_temporality, made._preferred_aggregation)
        self._own = own

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        return self._own.get().export(metrics_data, timeout_millis, **kwargs)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self._own.get().shutdown(timeout_millis, **kwargs)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self._own.get().force_flush(timeout_millis)


class _PeriodicReader(PeriodicExportingMetricReader):
    """A reader whose locks a forked child has anew: the SDK's own only starts the thread there."""

    def _at_fork_reinit(self) -> None:
        if not self._shutdown:
            self._export_lock = Lock()
            self._shutdown_event = Event()
            super()._at_fork_reinit()  # type: ignore[no-untyped-call]


class _LogExporter(LogRecordExporter):
    def __init__(self, own: _PerProcess[LogRecordExporter]) -> None:
        self._own = own

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        return self._own.get().export(batch)

    def shutdown(self) -> None:
        self._own.get().shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return bool(self._own.get().force_flush(timeout_millis))


def _span_exporter(to: Destination, file: ProcessFile) -> SpanExporter:
    if to.exporter == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(out=sys.stdout)
    if to.exporter == "file":
        from opentelemetry.exporter.otlp.json.file import FileSpanExporter

        return FileSpanExporter(stream=cast("TextIO", file))
    if to.protocol is None:
        return cast("SpanExporter", _offered("traces", to.exporter))
    if to.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter

        return GrpcSpanExporter(endpoint=to.endpoint)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter

    return HttpSpanExporter(endpoint=to.endpoint)


def _metric_exporter(to: Destination, file: ProcessFile) -> MetricExporter | MetricReader:
    if to.exporter == "console":
        from opentelemetry.sdk.metrics.export import ConsoleMetricExporter

        return ConsoleMetricExporter(out=sys.stdout)
    if to.exporter == "file":
        from opentelemetry.exporter.otlp.json.file import FileMetricExporter

        return FileMetricExporter(stream=cast("TextIO", file), preferred_aggregation=_aggregation())
    if to.protocol is None:
        return cast("MetricExporter | MetricReader", _offered("metrics", to.exporter))
    if to.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter

        return GrpcMetricExporter(endpoint=to.endpoint, preferred_aggregation=_aggregation())
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter

    return HttpMetricExporter(endpoint=to.endpoint, preferred_aggregation=_aggregation())


def _log_exporter(to: Destination, file: ProcessFile) -> LogRecordExporter:
    if to.exporter == "file":
        from opentelemetry.exporter.otlp.json.file._log_exporter import FileLogExporter

        return FileLogExporter(stream=cast("TextIO", file))
    if to.protocol is None:
        return cast("LogRecordExporter", _offered("logs", to.exporter))
    if to.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter

        return GrpcLogExporter(endpoint=to.endpoint)
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogExporter

    return HttpLogExporter(endpoint=to.endpoint)


def _offered(signal: Signal, name: str) -> object:
    """Return the exporter, or metric reader, that an installed package offers by a name."""
    (found, *_) = entry_points(group=f"opentelemetry_{signal}_exporter", name=name)
    return found.load()()


_HISTOGRAM_VARIABLE: Final = OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION


def _aggregation() -> dict[type, Aggregation]:
    """Return base-2 exponential histograms, unless the standard variable asks for something."""
    return {} if os.environ.get(_HISTOGRAM_VARIABLE) else {Histogram: ExponentialBucketHistogramAggregation()}
