"""What a worker emits, kept there as plain data and emitted by the process that sent the work.

A worker process seldom has providers of its own: what a task emits through the API then goes into a
:class:`Recording`, returns with the task's result, and :func:`replay` emits it where an application's provider is, as
spans of the same trace with the worker's times. So no worker needs an exporter, and nothing has to be flushed when one
ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry import context as api_context
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics._internal import _ProxyMeterProvider
from opentelemetry.semconv.attributes import exception_attributes
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, set_span_in_context

from aetherflow.telemetry import active
from aetherflow.telemetry.active import Providers
from aetherflow.user_exceptions import message_of, traceback_text_of

__all__ = ["Recording", "Relayed", "SpanData", "recording_in", "relay_missing_signals", "replay"]

Attributes = Mapping[str, Any]


@dataclass(slots=True)
class SpanData:
    """One span as plain data; times in nanoseconds since the epoch.

    ``parent`` is the index of another one in the same recording, None for what the whole recording is below;
    ``links`` are such indexes, or contexts of spans elsewhere.
    """

    name: str
    kind: SpanKind
    started: int
    parent: int | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    links: list[int | SpanContext] = field(default_factory=list)
    events: list[tuple[str, Attributes, int]] = field(default_factory=list)
    status: tuple[StatusCode, str | None] | None = None
    ended: int | None = None

    def record_exception(
        self, error: BaseException, attributes: Attributes | None = None, at: int | None = None
    ) -> None:
        """Add the event that tells of an exception."""
        kind = type(error)
        said = {
            exception_attributes.EXCEPTION_TYPE: f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."),
            exception_attributes.EXCEPTION_STACKTRACE: traceback_text_of(error),
        }
        message = message_of(error)
        if message is not None:
            said[exception_attributes.EXCEPTION_MESSAGE] = message
        self.events.append(("exception", {**said, **(attributes or {})}, at or time.time_ns()))

    def simplify(self) -> None:
        """Replace values of user classes by values of built-in types, which every process can unpickle."""
        self.name = str.__str__(self.name)
        self.attributes = _simple_attributes(self.attributes)
        self.events = [(str.__str__(name), _simple_attributes(values), at) for name, values, at in self.events]
        if self.status is not None:
            code, description = self.status
            self.status = (code, str.__str__(description) if isinstance(description, str) else None)


def _simple_attributes(attributes: Attributes) -> dict[str, Any]:
    """Return the attributes with values of built-in types; without those that the API does not allow."""
    simple = {str.__str__(key): _simple(value) for key, value in attributes.items() if isinstance(key, str)}
    return {key: value for key, value in simple.items() if value is not None}


def _simple(value: Any) -> Any:
    kind = type(value)
    if kind is str or kind is bool or kind is int or kind is float or kind is bytes:
        return value
    if issubclass(kind, str):
        return str.__str__(value)
    if issubclass(kind, int):
        return int.__int__(value)
    if issubclass(kind, float):
        return float.__float__(value)
    if issubclass(kind, list | tuple):
        return tuple(_simple(element) for element in value)
    return None


@dataclass(frozen=True, slots=True)
class Relayed:
    """What one task has emitted.

    Args:
        spans: Parents before their children.
        amounts: Names of metrics, their attributes, and what was recorded in the metric's unit.
    """

    spans: tuple[SpanData, ...] = ()
    amounts: tuple[tuple[str, Attributes, float], ...] = ()


class Recording:
    """What a task emits, as long as it runs.

    Args:
        spans: Whether spans are wanted.
    """

    def __init__(self, *, spans: bool) -> None:
        self.wants_spans = spans
        self._spans: list[_RelayedSpan] = []
        self._indexes: dict[int, int] = {}
        self._amounts: list[tuple[str, Attributes, float]] = []
        self._lock = threading.Lock()

    def add_span(self, span: _RelayedSpan) -> int:
        """Keep a span that has started; return its index."""
        with self._lock:
            index = len(self._spans)
            self._spans.append(span)
            self._indexes[id(span.get_span_context())] = index
            return index

    def add_amount(self, metric: str, attributes: Attributes, amount: float) -> None:
        """Keep what was recorded of a metric."""
        self._amounts.append((metric, attributes, amount))

    def linked(self, context: SpanContext) -> int | SpanContext:
        """Return the index of the span that a context belongs to, or the context of a span elsewhere."""
        # By identity: to the outside, all spans of a recording are the one span that the work was sent with.
        return self._indexes.get(id(context), context)

    def taken(self) -> Relayed:
        """Return what was emitted so far; a span that has not ended ends now."""
        with self._lock:
            for span in self._spans:
                span.end()
                span.data.simplify()
            return Relayed(tuple(span.data for span in self._spans), tuple(self._amounts))


_KEY: Final = api_context.create_key("aetherflow-recording")


def recording_in(context: Context, recording: Recording) -> Context:
    """Return a context in which what is emitted goes into a recording, where the process has no provider for it."""
    return api_context.set_value(_KEY, recording, context)


def _recording(context: Context | None) -> Recording | None:
    found = api_context.get_value(_KEY, context)
    return found if isinstance(found, Recording) else None


class _RelayedSpan(Span):
    """A span that becomes data. To the outside it is the span that the work was sent with, whose id is a real one."""

    def __init__(self, recording: Recording, data: SpanData, outside: SpanContext) -> None:
        self.data = data
        # An object of its own, by which links to the span are known.
        self._context = SpanContext(
            outside.trace_id, outside.span_id, outside.is_remote, outside.trace_flags, outside.trace_state
        )
        self._clock = time.perf_counter_ns()
        self.index = recording.add_span(self)

    @property
    def attributes(self) -> Attributes:
        """What it holds so far, as spans of the SDK tell it: log lines name their node by it."""
        return self.data.attributes

    def get_span_context(self) -> SpanContext:
        return self._context

    def is_recording(self) -> bool:
        return self.data.ended is None

    def set_attribute(self, key: str, value: Any) -> None:
        self.data.attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        self.data.attributes.update(attributes)

    def add_event(self, name: str, attributes: Attributes | None = None, timestamp: int | None = None) -> None:
        self.data.events.append((name, dict(attributes or {}), timestamp or time.time_ns()))

    def update_name(self, name: str) -> None:
        self.data.name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        if isinstance(status, Status):
            self.data.status = (status.status_code, status.description)
        else:
            self.data.status = (status, description)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        self.data.record_exception(exception, attributes, timestamp)

    def end(self, end_time: int | None = None) -> None:
        if self.data.ended is None:
            self.data.ended = end_time or self.data.started + time.perf_counter_ns() - self._clock


class _RelayTracer(trace.NoOpTracer):
    """Starts spans that become data; outside of a recording, spans of nothing."""

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes | None = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> Span:
        recording = _recording(context)
        if recording is None or not recording.wants_spans:
            return trace.INVALID_SPAN
        above = trace.get_current_span(context)
        data = SpanData(
            name,
            kind,
            start_time or time.time_ns(),
            above.index if isinstance(above, _RelayedSpan) else None,
            dict(attributes or {}),
            [recording.linked(link.context) for link in links or ()],
        )
        return _RelayedSpan(recording, data, above.get_span_context())


class _RelayTracerProvider(trace.TracerProvider):
    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        return _RelayTracer()


class _RelayHistogram(metrics.NoOpHistogram):
    def __init__(self, name: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(name, *args, **kwargs)
        self._name = name

    def record(self, amount: float, attributes: Attributes | None = None, context: Context | None = None) -> None:
        recording = _recording(context)
        if recording is not None:
            recording.add_amount(self._name, attributes or {}, amount)


class _RelayCounter(metrics.NoOpCounter):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._name = name

    def add(self, amount: float, attributes: Attributes | None = None, context: Context | None = None) -> None:
        recording = _recording(context)
        if recording is not None:
            recording.add_amount(self._name, attributes or {}, amount)


class _RelayMeter(metrics.NoOpMeter):
    def create_counter(self, name: str, *args: Any, **kwargs: Any) -> metrics.Counter:
        return _RelayCounter(name)

    def create_histogram(self, name: str, *args: Any, **kwargs: Any) -> metrics.Histogram:
        return _RelayHistogram(name)


class _RelayMeterProvider(metrics.MeterProvider):
    def get_meter(self, name: str, *args: Any, **kwargs: Any) -> metrics.Meter:
        return _RelayMeter(name)


_tracers: Final = _RelayTracerProvider()
_meters: Final = _RelayMeterProvider()
_RELAYS: Final = {
    (True, True): Providers(_tracers, _meters),
    (True, False): Providers(tracer_provider=_tracers),
    (False, True): Providers(meter_provider=_meters),
    (False, False): None,
}


def relay_missing_signals() -> None:
    """Have AetherFlow emit into recordings, in this process, each signal that there is no provider for."""
    told = active.providers
    if told is not None and not any(told is relay for relay in _RELAYS.values()):
        return  # somebody knows where telemetry of this process goes
    wanted = _RELAYS[
        isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider),
        isinstance(metrics.get_meter_provider(), _ProxyMeterProvider),
    ]
    if wanted is not told:
        active.set_active(wanted)


def replay(relayed: Relayed, tracer: trace.Tracer, parent: Context) -> list[SpanContext]:
    """Emit spans that were recorded elsewhere.

    Args:
        relayed: What was recorded.
        tracer: What emits it.
        parent: The context with the span that the recording is below.

    Returns:
        The contexts of the spans, in the order of the recording.
    """
    spans: list[Span] = []
    contexts: list[Context] = []
    for data in relayed.spans:
        above = parent if data.parent is None else contexts[data.parent]
        links = [Link(spans[to].get_span_context() if isinstance(to, int) else to) for to in data.links]
        span = tracer.start_span(data.name, above, data.kind, data.attributes, links, data.started)
        for name, attributes, timestamp in data.events:
            span.add_event(name, attributes, timestamp)
        if data.status is not None:
            span.set_status(Status(*data.status))
        spans.append(span)
        contexts.append(set_span_in_context(span, above))
    for span, data in zip(reversed(spans), reversed(relayed.spans), strict=True):
        span.end(data.ended)
    return [span.get_span_context() for span in spans]
