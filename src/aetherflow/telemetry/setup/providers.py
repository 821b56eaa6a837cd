"""The providers that ``configure()`` makes where the application has none."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from pathlib import Path

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.environment_variables import OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics._internal.measurement_consumer import SynchronousMeasurementConsumer
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Sampler

from aetherflow.errors import ConfigurationError
from aetherflow.telemetry.export.destination import Destination
from aetherflow.telemetry.export.exporters import log_exporter, metric_reader
from aetherflow.telemetry.export.files import ProcessFile
from aetherflow.telemetry.export.pipeline import SpanPipeline
from aetherflow.telemetry.export.samplers import TailFilter, rate_limited
from aetherflow.telemetry.export.sampling_policy import QUEUE_BYTES, KeepErrorsAndSlow, OnFull, RateLimit
from aetherflow.telemetry.export.span_pipelines import span_pipeline
from aetherflow.telemetry.forks import renew_in_children

__all__ = ["make_logger_provider", "make_meter_provider", "make_tracer_provider"]


def make_tracer_provider(
    destinations: Iterable[Destination],
    file: ProcessFile,
    service_name: str | None,
    sampling: Sampler | RateLimit | KeepErrorsAndSlow | None = None,
    *,
    on_full: OnFull = "drop",
    queue_bytes: int = QUEUE_BYTES,
) -> tuple[TracerProvider, tuple[SpanPipeline | TailFilter, ...]]:
    """Return a provider that exports spans, and the ways that they take out of it.

    Args:
        destinations: Where to.
        file: What a file destination writes to.
        service_name: The service's name; None for what the variables say, or else the program's.
        sampling: Which spans; None for what the variables say.
        on_full: As for :class:`SpanPipeline`.
        queue_bytes: As for :class:`SpanPipeline`.

    Raises:
        ConfigurationError: A variable names something that is not there.
    """
    pipelines = [span_pipeline(each, file, on_full=on_full, queue_bytes=queue_bytes) for each in destinations]
    ways: tuple[SpanPipeline | TailFilter, ...] = tuple(pipelines)
    sampler: Sampler | None
    if isinstance(sampling, RateLimit):
        sampler = rate_limited(sampling, lambda: pipelines[0].started)
    elif isinstance(sampling, KeepErrorsAndSlow):
        sampler, ways = _sampler(), tuple(TailFilter(sampling, pipeline) for pipeline in pipelines)
    else:
        sampler = sampling or _sampler()
    provider = TracerProvider(sampler, _resource(service_name), shutdown_on_exit=False)
    for way in ways:
        provider.add_span_processor(way)
    return provider, ways


def make_meter_provider(
    destinations: Iterable[Destination],
    file: ProcessFile,
    service_name: str | None,
    interval: float | None,
    attributes: Mapping[str, str] | None = None,
) -> MeterProvider:
    """Return a provider that exports metrics.

    Args:
        destinations: Where to.
        file: What a file destination writes to.
        service_name: As for spans.
        interval: Seconds between two exports; None for what ``OTEL_METRIC_EXPORT_INTERVAL`` says.
        attributes: What the resource says besides, unless the variables say it too.
    """
    readers = [metric_reader(each, file, interval) for each in destinations]
    return _MeterProvider(readers, Resource(dict(attributes or {})).merge(_resource(service_name)))


def make_logger_provider(
    destinations: Iterable[Destination], file: ProcessFile, service_name: str | None
) -> LoggerProvider:
    """Return a provider that exports log records.

    Args:
        destinations: Where to.
        file: What a file destination writes to.
        service_name: As for spans.
    """
    provider = LoggerProvider(_resource(service_name), shutdown_on_exit=False)
    for each in destinations:
        provider.add_log_record_processor(BatchLogRecordProcessor(log_exporter(each, file)))
    return provider


class _MeterProvider(MeterProvider):
    """A provider whose sums begin at nothing in a forked child: the SDK's would report the parent's a second time."""

    def __init__(self, readers: list[MetricReader], resource: Resource) -> None:
        super().__init__(readers, resource, shutdown_on_exit=False)
        renew_in_children(self)

    def after_fork(self) -> None:
        """Forget what the parent has counted, and its locks."""
        consumer = self._measurement_consumer
        fresh = SynchronousMeasurementConsumer(self._sdk_config, self._metric_readers)
        consumer._reader_storages = fresh._reader_storages
        consumer._lock = fresh._lock


def _sampler() -> Sampler | None:
    """Return the sampler that ``OTEL_TRACES_SAMPLER`` names; None for one of the SDK's, which it reads itself.

    Raises:
        ConfigurationError: There is none of that name.
    """
    name = os.environ.get(OTEL_TRACES_SAMPLER, "").strip().lower()
    offered = entry_points(group="opentelemetry_traces_sampler")
    if name and name not in offered.names:
        raise ConfigurationError(f"{OTEL_TRACES_SAMPLER} is {name!r}; allowed: {', '.join(sorted(offered.names))}")
    if not name or offered[name].value.startswith("opentelemetry.sdk."):
        return None
    made: Sampler = offered[name].load()(os.environ.get(OTEL_TRACES_SAMPLER_ARG))
    return made


def _resource(service_name: str | None) -> Resource:
    resource = Resource.create()
    if service_name is None and not str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        return resource
    return resource.merge(Resource({SERVICE_NAME: service_name or _program_name(sys.argv[0] if sys.argv else "")}))


def _program_name(argv0: str) -> str:
    """Return what the running program is called: its file, or for ``python -m package`` the package."""
    path = Path(argv0)
    name = path.parent.name if path.stem == "__main__" else path.stem
    return "python" if not name or name.startswith("-") else name
