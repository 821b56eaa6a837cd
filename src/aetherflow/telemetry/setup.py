"""``configure()``: where the spans and metrics of this process go.

Importing this module sets no global, starts no thread and opens no socket. The SDK and its exporters are imported by
the functions that build them: they cost more to import than all the rest of the package.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO, TypeVar, cast, get_args
from weakref import WeakSet

from opentelemetry import metrics, trace
from opentelemetry.metrics._internal import _ProxyMeterProvider

from aetherflow.errors import ConfigurationError
from aetherflow.telemetry import active
from aetherflow.telemetry.destination import Destination, Exporter, Signal, destinations
from aetherflow.telemetry.export_file import DEFAULT_DIRECTORY, ProcessFile
from aetherflow.telemetry.handle import EXIT_TIMEOUT, Route, Telemetry

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricReader
    from opentelemetry.sdk.metrics.view import Aggregation
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.export import SpanExporter

__all__ = ["AlreadyConfiguredError", "Telemetry", "configure"]

_LOGGER: Final = logging.getLogger("aetherflow")
_Provider = TypeVar("_Provider")


class AlreadyConfiguredError(ConfigurationError):
    """``configure()`` was called again with other arguments.

    Args:
        differing: Each argument that differs: its value in the first call and in this one.
    """

    def __init__(self, differing: Mapping[str, tuple[object, object]]) -> None:
        self.differing = dict(differing)
        changes = ", ".join(f"{name}={first!r}, now {now!r}" for name, (first, now) in self.differing.items())
        super().__init__(
            f"already configured with {changes}; use the same arguments, or shut the first Telemetry down before"
        )


def configure(
    service_name: str | None = None,
    exporter: Exporter = "auto",
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
    metric_interval: float | None = None,
    set_global: bool = True,
    directory: str | os.PathLike[str] = DEFAULT_DIRECTORY,
) -> Telemetry:
    """Set up where the spans and metrics of this process go.

    Everything standard is taken from the ``OTEL_*`` variables. Where the application has set a provider of its own,
    it is used and nothing is added to it; the tracer's and the meter's are looked at each for itself. Called again
    with the same arguments, it returns the same object.

    Args:
        service_name: The service's name; by default ``OTEL_SERVICE_NAME``, ``OTEL_RESOURCE_ATTRIBUTES``, or else the
            name of the program.
        exporter: ``auto`` takes what the ``OTEL_*`` variables name, signal by signal, and writes OTLP JSON lines to
            ``directory`` where they name nothing; ``otlp``, ``file`` and ``console`` insist; ``none`` exports nothing.
        tracer_provider: A provider of the application to use for spans instead of the global one.
        meter_provider: The same for metrics.
        metric_interval: Seconds between two exports of metrics; by default ``OTEL_METRIC_EXPORT_INTERVAL``, or 60.
        set_global: Whether the providers become OpenTelemetry's global ones, where the application has set none;
            else AetherFlow alone uses them.
        directory: Where files are written.

    Returns:
        What was set up.

    Raises:
        AlreadyConfiguredError: It was called before with other arguments.
        ConfigurationError: An argument or an ``OTEL_*`` variable has a value that is not allowed.
    """
    arguments = _Arguments(
        service_name=service_name,
        exporter=exporter,
        tracer_provider=tracer_provider,
        meter_provider=meter_provider,
        metric_interval=metric_interval,
        set_global=set_global,
        directory=Path(directory).absolute(),
    )
    with _state.lock:
        if _state.current is None or _state.arguments is None:
            _state.current, _state.arguments = _build(arguments), arguments
        elif differing := _state.arguments.differing(arguments):
            raise AlreadyConfiguredError(differing)
        return _state.current


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Arguments:
    """What ``configure()`` was called with, checked."""

    service_name: str | None
    exporter: Exporter
    tracer_provider: trace.TracerProvider | None
    meter_provider: metrics.MeterProvider | None
    metric_interval: float | None
    set_global: bool
    directory: Path

    def __post_init__(self) -> None:
        if self.exporter not in get_args(Exporter):
            raise ConfigurationError(f"exporter is {self.exporter!r}; allowed: {', '.join(get_args(Exporter))}")
        if self.metric_interval is not None and not self.metric_interval > 0:
            raise ConfigurationError(f"metric_interval is {self.metric_interval!r}; allowed: seconds, more than 0")
        if self.service_name is not None and not self.service_name.strip():
            raise ConfigurationError(f"service_name is {self.service_name!r}; allowed: a name, or None")

    def differing(self, other: _Arguments) -> dict[str, tuple[object, object]]:
        pairs = {each.name: (getattr(self, each.name), getattr(other, each.name)) for each in fields(self)}
        return {name: (first, now) for name, (first, now) in pairs.items() if first != now}


class _State:
    """What is in force, and every provider that was ever made here: none of those is the application's."""

    __slots__ = ("arguments", "current", "lock", "made", "told")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.arguments: _Arguments | None = None
        self.current: Telemetry | None = None
        self.told: active.Providers | None = None
        self.made: WeakSet[object] = WeakSet()


_state = _State()


def _forget(telemetry: Telemetry) -> None:
    """Make way for another ``configure()``."""
    atexit.unregister(telemetry.shutdown)
    with _state.lock:
        if _state.current is telemetry:
            if _state.told is not None and active.providers is _state.told:
                active.set_active(None)
            _state.current = _state.arguments = _state.told = None


def _build(arguments: _Arguments) -> Telemetry:
    tracer_provider = _of_application(arguments.tracer_provider, trace.get_tracer_provider(), trace.ProxyTracerProvider)
    meter_provider = _of_application(arguments.meter_provider, metrics.get_meter_provider(), _ProxyMeterProvider)
    spans_to = _plan("traces", arguments) if tracer_provider is None else ()
    metrics_to = _plan("metrics", arguments) if meter_provider is None else ()
    started = datetime.now(UTC)
    spans_file = ProcessFile(arguments.directory, "traces", started)
    metrics_file = ProcessFile(arguments.directory, "metrics", started)
    if spans_to:
        tracer_provider = _make_tracer_provider(spans_to, spans_file, arguments)
    if metrics_to:
        meter_provider = _make_meter_provider(metrics_to, metrics_file, arguments)
    telemetry = Telemetry(
        Route(tracer_provider, spans_to, spans_file), Route(meter_provider, metrics_to, metrics_file), _forget
    )
    _state.told = _install(tracer_provider, meter_provider, set_global=arguments.set_global)
    atexit.register(telemetry.shutdown, EXIT_TIMEOUT)
    return telemetry


def _of_application(given: _Provider | None, current: _Provider, unset: type) -> _Provider | None:
    """Return the provider that the application gave or has set globally, if it has."""
    if given is not None:
        return given
    return None if isinstance(current, unset) or current in _state.made else current


def _plan(signal: Signal, arguments: _Arguments) -> tuple[Destination, ...]:
    """Decide where a signal of ours goes, and see that a file can be there."""
    found = destinations(signal, arguments.exporter, os.environ)
    if all(each.exporter != "file" for each in found):
        return found
    try:
        arguments.directory.mkdir(parents=True, exist_ok=True)
        if not os.access(arguments.directory, os.W_OK | os.X_OK):
            raise PermissionError("not writable")
    except OSError as error:
        problem = f"directory is {str(arguments.directory)!r}, where no file can be written ({error})"
        if arguments.exporter == "file":
            raise ConfigurationError(f"{problem}; allowed: a directory to write to") from error
        _LOGGER.warning("%s: no %s are exported", problem, signal)
        return tuple(each for each in found if each.exporter != "file")
    return found


def _install(
    tracer_provider: trace.TracerProvider | None, meter_provider: metrics.MeterProvider | None, *, set_global: bool
) -> active.Providers | None:
    """Make the providers the global ones where nobody has set any, and tell AetherFlow of those that are not."""
    if set_global:
        if tracer_provider is not None and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(tracer_provider)
        if meter_provider is not None and isinstance(metrics.get_meter_provider(), _ProxyMeterProvider):
            metrics.set_meter_provider(meter_provider)
    told = active.Providers(
        None if tracer_provider is trace.get_tracer_provider() else tracer_provider,
        None if meter_provider is metrics.get_meter_provider() else meter_provider,
    )
    if told.tracer_provider is None and told.meter_provider is None:
        return None
    active.set_active(told)
    return told


def _resource(service_name: str | None) -> Resource:
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource

    resource = Resource.create()
    if service_name is None and not str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        return resource
    return resource.merge(Resource({SERVICE_NAME: service_name or _program_name(sys.argv[0] if sys.argv else "")}))


def _program_name(argv0: str) -> str:
    """Return what the running program is called: its file, or for ``python -m package`` the package."""
    path = Path(argv0)
    name = path.parent.name if path.stem == "__main__" else path.stem
    return "python" if not name or name.startswith("-") else name


def _make_tracer_provider(
    spans_to: tuple[Destination, ...], file: ProcessFile, arguments: _Arguments
) -> trace.TracerProvider:
    from opentelemetry.sdk.trace import TracerProvider

    provider = TracerProvider(resource=_resource(arguments.service_name), shutdown_on_exit=False)
    for each in spans_to:
        provider.add_span_processor(_span_processor(each, file))
    _state.made.add(provider)
    return provider


def _make_meter_provider(
    metrics_to: tuple[Destination, ...], file: ProcessFile, arguments: _Arguments
) -> metrics.MeterProvider:
    from opentelemetry.sdk.metrics import MeterProvider

    readers = [_metric_reader(each, file, arguments.metric_interval) for each in metrics_to]
    provider = MeterProvider(readers, _resource(arguments.service_name), shutdown_on_exit=False)
    _state.made.add(provider)
    return provider


def _span_processor(to: Destination, file: ProcessFile) -> SpanProcessor:
    """Return what takes finished spans to a destination: the one place where the span pipeline is chosen."""
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return BatchSpanProcessor(_span_exporter(to, file))


def _span_exporter(to: Destination, file: ProcessFile) -> SpanExporter:
    if to.exporter == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(out=sys.stdout)
    if to.exporter == "file":
        from opentelemetry.exporter.otlp.json.file import FileSpanExporter

        return FileSpanExporter(stream=cast("TextIO", file))
    if to.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter

        return GrpcSpanExporter(endpoint=to.endpoint)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter

    return HttpSpanExporter(endpoint=to.endpoint)


def _metric_reader(to: Destination, file: ProcessFile, interval: float | None) -> MetricReader:
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    return PeriodicExportingMetricReader(_metric_exporter(to, file), None if interval is None else interval * 1e3)


def _metric_exporter(to: Destination, file: ProcessFile) -> MetricExporter:
    if to.exporter == "console":
        from opentelemetry.sdk.metrics.export import ConsoleMetricExporter

        return ConsoleMetricExporter(out=sys.stdout)
    if to.exporter == "file":
        from opentelemetry.exporter.otlp.json.file import FileMetricExporter

        return FileMetricExporter(stream=cast("TextIO", file), preferred_aggregation=_aggregation())
    if to.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter

        return GrpcMetricExporter(endpoint=to.endpoint, preferred_aggregation=_aggregation())
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter

    return HttpMetricExporter(endpoint=to.endpoint, preferred_aggregation=_aggregation())


def _aggregation() -> dict[type, Aggregation]:
    """Return base-2 exponential histograms, unless the standard variable asks for something."""
    from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION
    from opentelemetry.sdk.metrics import Histogram
    from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation

    if os.environ.get(OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION):
        return {}
    return {Histogram: ExponentialBucketHistogramAggregation()}
