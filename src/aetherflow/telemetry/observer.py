"""What the engine calls around an execution, chosen anew by one identity check a run.

An observer turns executions into durations and, where a tracer is set, into spans; it knows neither nodes nor flows. A
span goes to whatever provider the application has set, through ``opentelemetry-api``; without one only durations are
kept.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any, Final, Protocol

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.environment_variables import OTEL_PYTHON_METER_PROVIDER, OTEL_PYTHON_TRACER_PROVIDER
from opentelemetry.metrics import _internal as metrics_internal
from opentelemetry.trace import SpanContext

from aetherflow.telemetry import active
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.accumulators import Series
from aetherflow.telemetry.api_observer import ApiObserver, MeteringObserver
from aetherflow.telemetry.observation import Observation, Site

__all__ = ["Observer", "current_observer"]

try:
    VERSION = metadata.version("aetherflow-otel")
except metadata.PackageNotFoundError:  # a checkout on the path, not installed
    VERSION = "0.0.0"

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.37.0"


class Observer(Protocol):
    """What stands between the engine and telemetry."""

    tracing: bool
    """Whether executions have spans."""
    idle: bool
    """Whether nothing but durations is kept."""
    tracer: trace.Tracer | None
    """What makes the spans; None where executions have none."""

    def begin(
        self,
        site: Site,
        extra: Mapping[str, Any] | None = None,
        links: Sequence[SpanContext] = (),
        parent: Context | None = None,
    ) -> Observation:
        """Start observing an execution.

        Args:
            site: Where it happens.
            extra: Attributes of this execution alone.
            links: Spans that it follows from.
            parent: The context it happens in; None for the current one.
        """
        ...

    def measure(self, site: Site) -> Observation:
        """Start observing an operation, which has no span of its own."""
        ...

    def keep(self, series: Series, duration: int, context: Context) -> None:
        """Keep a duration that was measured elsewhere.

        Args:
            series: Where it belongs.
            duration: Nanoseconds.
            context: Where the span is current that it is the duration of.
        """
        ...


class _Selection:
    """The observer in use and the providers it was chosen for."""

    __slots__ = ("meter_provider", "observer", "told", "tracer_provider")

    def __init__(self) -> None:
        self.tracer_provider: object = None
        self.meter_provider: object = None
        self.told: object = None
        self.observer: Observer = MeteringObserver()


_selection = _Selection()


def current_observer() -> Observer:
    """Return the observer for the providers that are set now; costs three identity checks unless they changed."""
    selection = _selection
    if (
        trace._TRACER_PROVIDER is selection.tracer_provider
        and metrics_internal._METER_PROVIDER is selection.meter_provider
        and active.providers is selection.told
    ):
        return selection.observer
    return _choose()


def _choose() -> Observer:
    global _selection
    if OTEL_PYTHON_TRACER_PROVIDER in os.environ:
        trace.get_tracer_provider()  # loads the named provider, as the API promises
    if OTEL_PYTHON_METER_PROVIDER in os.environ:
        metrics.get_meter_provider()
    chosen = _Selection()
    chosen.told = told = active.providers
    chosen.tracer_provider = tracer_provider = trace._TRACER_PROVIDER
    chosen.meter_provider = meter_provider = metrics_internal._METER_PROVIDER
    if told is not None:
        tracer_provider = told.tracer_provider or tracer_provider
        meter_provider = told.meter_provider or meter_provider
    tracer = meter = None
    if tracer_provider is not None and not isinstance(tracer_provider, trace.NoOpTracerProvider):
        tracer = tracer_provider.get_tracer(names.SCOPE_NAME, VERSION, schema_url=SCHEMA_URL)
    if meter_provider is not None and not isinstance(meter_provider, metrics.NoOpMeterProvider):
        meter = meter_provider.get_meter(names.SCOPE_NAME, VERSION, schema_url=SCHEMA_URL)
    if tracer is not None or meter is not None:
        chosen.observer = ApiObserver(tracer, meter)
    _selection = chosen
    return chosen.observer
