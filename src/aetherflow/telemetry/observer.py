"""What the engine calls around an execution, chosen anew by one identity check a run.

An observer turns executions into durations and, where a tracer is set, into spans; it knows neither nodes nor flows. A
span goes to whatever provider the application has set, through ``opentelemetry-api``; without one only durations are
kept.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from types import ModuleType
from typing import Any, Final

from opentelemetry import metrics, trace
from opentelemetry.environment_variables import OTEL_PYTHON_METER_PROVIDER, OTEL_PYTHON_TRACER_PROVIDER
from opentelemetry.metrics import _internal as metrics_internal

from aetherflow.telemetry import active, shield
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.api_observer import ApiObserver, MeteringObserver, Record
from aetherflow.telemetry.metrics.accumulators import Series
from aetherflow.telemetry.metrics.publishing import publish_in
from aetherflow.telemetry.observation import Observer

__all__ = ["current_observer", "emit", "emit_late"]

try:
    VERSION = metadata.version("aetherflow-otel")
except metadata.PackageNotFoundError:  # a checkout on the path, not installed
    VERSION = "0.0.0"

_LOGGER: Final = logging.getLogger(__name__)

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.37.0"

_UNSETTLED: Final = object()
"""Stands for no set of providers, so that the next run chooses again."""


class _Processors:
    """The span processors that a provider has; they are looked at before each run, since one may be added late.

    Args:
        provider: The provider; one that is not the SDK's has none that can be seen.
    """

    __slots__ = ("known", "multi")

    def __init__(self, provider: object) -> None:
        multi: Any = getattr(provider, "_active_span_processor", None)
        self.multi: Any = multi if hasattr(multi, "_span_processors") else _Nothing
        self.known: Sequence[Any] = self.multi._span_processors


class _Nothing:
    _span_processors = ()


class _Selection:
    """The observer in use and the providers it was chosen for."""

    __slots__ = ("meter_provider", "observer", "processors", "told", "tracer_provider")

    def __init__(self) -> None:
        self.tracer_provider: object = None
        self.meter_provider: object = None
        self.told: object = None
        self.processors = _Processors(None)
        self.observer: Observer = MeteringObserver()


_selection = _Selection()


def current_observer() -> Observer:
    """Return the observer for the providers that are set now; costs four identity checks unless they changed."""
    selection = _selection
    processors = selection.processors
    if (
        trace._TRACER_PROVIDER is selection.tracer_provider
        and metrics_internal._METER_PROVIDER is selection.meter_provider
        and active.change is selection.told
        and processors.multi._span_processors is processors.known
    ):
        return selection.observer
    return _choose()


def emit(series: Series, value: int = 1) -> None:
    """Record a value that is not the duration of an execution, such as a wait, a size or a count of one; never raises.

    Args:
        series: Where it belongs; :data:`aetherflow.telemetry.metrics.accumulators.registry` has it.
        value: Nanoseconds for a metric in seconds, else a whole number of its unit.
    """
    _keep(current_observer(), series, value)


def emit_late(series: Series, value: int) -> None:
    """Record what was counted until now: where things went until now, even if providers have changed since."""
    _keep(_selection.observer, series, value)


def _keep(observer: Observer, series: Series, value: int) -> None:
    try:
        observer.keep(series, value)
    except Exception as failure:  # noqa: BLE001  # rule 3: telemetry never breaks the host
        shield.caught(failure, "recording a value")


_choosing = threading.RLock()


def _renew_lock() -> None:
    global _choosing
    _choosing = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def _choose() -> Observer:
    """Choose the observer for the providers that are set now.

    A thread that comes while another one chooses waits for it: else an execution that began with a provider in place
    would be observed as if there were none.
    """
    global _selection
    if OTEL_PYTHON_TRACER_PROVIDER in os.environ:
        trace.get_tracer_provider()  # loads the named provider, as the API promises
    if OTEL_PYTHON_METER_PROVIDER in os.environ:
        metrics.get_meter_provider()
    with _choosing:
        chosen = _Selection()
        chosen.told = active.change  # before what it is about
        told = active.providers
        chosen.tracer_provider = tracer_provider = trace._TRACER_PROVIDER
        chosen.meter_provider = meter_provider = metrics_internal._METER_PROVIDER
        if told is not None:
            tracer_provider = told.tracer_provider or tracer_provider
            meter_provider = told.meter_provider or meter_provider
        chosen.processors = _Processors(tracer_provider)
        publisher = publish_in(meter_provider, _meter_of)
        record = None if publisher is None or publisher.is_bulk else publisher.record
        chosen.observer = _observer(tracer_provider, chosen.processors.known, record)
        profiling = active.profiling
        if profiling is not None:
            chosen.observer = profiling(chosen.observer)
        if publisher is not None and not publisher.complete():
            chosen.told = _UNSETTLED
        _selection = chosen
        return chosen.observer


def _meter_of(provider: metrics.MeterProvider) -> metrics.Meter:
    return provider.get_meter(names.SCOPE_NAME, VERSION, schema_url=SCHEMA_URL)


def _observer(
    tracer_provider: trace.TracerProvider | None, processors: Sequence[Any], record: Record | None
) -> Observer:
    if tracer_provider is None or isinstance(tracer_provider, trace.NoOpTracerProvider):
        return MeteringObserver() if record is None else ApiObserver(None, record)
    tracer = tracer_provider.get_tracer(names.SCOPE_NAME, VERSION, schema_url=SCHEMA_URL)
    return _lean(tracer_provider, tracer, processors, record) or ApiObserver(tracer, record)


def _lean(
    provider: trace.TracerProvider, tracer: trace.Tracer, processors: Sequence[Any], record: Record | None
) -> Observer | None:
    """Return the observer with lean spans, if the provider is one of the SDK that they can stand for."""
    if "opentelemetry.sdk.trace" not in sys.modules:  # it costs more to import than all the rest of the package
        return None
    modules = _lean_modules()
    if modules is None:
        return None
    lean_observer, sdk_spans = modules
    origin = sdk_spans.origin_of(provider, tracer, processors)
    return None if origin is None else lean_observer.LeanObserver(origin, record)


@cache
def _lean_modules() -> tuple[ModuleType, ModuleType] | None:
    """Return the modules that know the SDK's spans; None, after one warning, if the SDK lacks a name that they need."""
    try:
        from aetherflow.telemetry.tracing import lean_observer, sdk_spans
    except (ImportError, AttributeError) as error:
        _LOGGER.warning(
            "unrecognised OpenTelemetry SDK: creating each span through its public API (slower): %s: %s",
            type(error).__name__,
            error,
        )
        return None
    return lean_observer, sdk_spans
