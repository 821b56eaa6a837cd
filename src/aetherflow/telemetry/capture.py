"""Telemetry kept in memory, for tests: nothing global is set and nothing leaves the process."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from types import TracebackType
from typing import Any, Self

from opentelemetry.sdk.environment_variables import (
    OTEL_EXPERIMENTAL_RESOURCE_DETECTORS,
    OTEL_RESOURCE_ATTRIBUTES,
    OTEL_SERVICE_NAME,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Sampler

from aetherflow.telemetry import active

__all__ = ["CapturedTelemetry", "DeterministicIdGenerator", "SpanTree"]


_RESOURCE_VARIABLES = (OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME, OTEL_EXPERIMENTAL_RESOURCE_DETECTORS)


@cache
def _resource(*variables: str | None) -> Resource:
    """Return the resource for values of the variables that it is read from; its detectors run on threads each time."""
    return Resource.create()


class DeterministicIdGenerator(IdGenerator):
    """Trace and span ids that count up from 1, each for itself, so that a test's ids are the same every time."""

    def __init__(self) -> None:
        self._span_ids = count(1)
        self._trace_ids = count(1)

    def generate_span_id(self) -> int:
        """Return the next span id."""
        return next(self._span_ids)

    def generate_trace_id(self) -> int:
        """Return the next trace id."""
        return next(self._trace_ids)


@dataclass(frozen=True, slots=True)
class SpanTree:
    """A span with the spans below it, ordered by start; as a string an outline of their names."""

    span: ReadableSpan
    children: tuple[SpanTree, ...]

    @property
    def name(self) -> str:
        """The span's name."""
        return self.span.name

    def __str__(self) -> str:
        return "\n".join([self.name, *("  " + line for child in self.children for line in str(child).splitlines())])


class CapturedTelemetry:
    """Within ``with``, what AetherFlow emits is kept here, as if the application had set these providers.

    Only AetherFlow is told of them: the API's global providers stay what they are. What belongs into the same trace
    takes its tracer from :attr:`tracer_provider`. What was captured can be read afterwards too.

    Args:
        sampler: Which traces are recorded; all of them by default.
    """

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self._before: active.Providers | None = None
        resource = _resource(*map(os.environ.get, _RESOURCE_VARIABLES))
        self.tracer_provider = TracerProvider(
            sampler=sampler, resource=resource, id_generator=DeterministicIdGenerator(), shutdown_on_exit=False
        )
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meter_provider = MeterProvider([self._reader], resource=resource, shutdown_on_exit=False)

    def __enter__(self) -> Self:
        self._before = active.providers
        active.set_active(active.Providers(self.tracer_provider, self.meter_provider))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        active.set_active(self._before)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """The spans that have ended, ordered by start."""
        return tuple(sorted(self._exporter.get_finished_spans(), key=_by_start))

    def spans_named(self, name: str) -> tuple[ReadableSpan, ...]:
        """Return the spans of that name that have ended, ordered by start."""
        return tuple(span for span in self.spans if span.name == name)

    def tree(self) -> tuple[SpanTree, ...]:
        """Return the spans that have ended as trees, one for each whose parent is not among them."""
        spans = self.spans
        ids = {_id(span) for span in spans}
        below: defaultdict[int | None, list[ReadableSpan]] = defaultdict(list)
        for span in spans:
            below[span.parent.span_id if span.parent and span.parent.span_id in ids else None].append(span)

        def grow(parent: int | None) -> tuple[SpanTree, ...]:
            return tuple(SpanTree(span, grow(_id(span))) for span in below[parent])

        return grow(None)

    def metrics(self) -> dict[str, Metric]:
        """Return every metric with its points so far, by name."""
        data = self._reader.get_metrics_data()
        scopes = [scope for resource in (data.resource_metrics if data else ()) for scope in resource.scope_metrics]
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def points(self, name: str, attributes: Mapping[str, object] | None = None) -> Sequence[Any]:
        """Return the data points of a metric.

        Args:
            name: The metric's name.
            attributes: What the points' attributes must have, among others.

        Returns:
            The SDK's data points; none where nothing was recorded.
        """
        wanted = (attributes or {}).items()
        metric = self.metrics().get(name)
        points = metric.data.data_points if metric else ()
        return [point for point in points if wanted <= (point.attributes or {}).items()]

    def clear(self) -> None:
        """Forget the spans captured so far; metrics go on adding up."""
        self._exporter.clear()


def _id(span: ReadableSpan) -> int:
    context = span.get_span_context()
    return context.span_id if context else 0


def _by_start(span: ReadableSpan) -> tuple[int, int]:
    return span.start_time or 0, _id(span)  # ids count up: they decide where the clock did not tick
