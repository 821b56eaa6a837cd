"""Observers that need nothing but the public API: durations only, or spans of whatever provider is set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.semconv.attributes.exception_attributes import EXCEPTION_TYPE
from opentelemetry.trace import Link, Span, SpanContext, Status, StatusCode, set_span_in_context
from typing_extensions import override

from aetherflow.telemetry import conventions as names
from aetherflow.telemetry import shield
from aetherflow.telemetry.metrics.accumulators import Series
from aetherflow.telemetry.observation import (
    Lane,
    Observation,
    Observer,
    Site,
    add,
    add_all,
    error_type,
    new_run_id,
    offer,
    thread_facts,
)
from aetherflow.user_exceptions import message_of

__all__ = ["ApiObserver", "MeteringObserver", "Record", "RecordedObservation", "SpanObservation"]

Record = Callable[[Series, int, Context | None], None]
"""Records a value in an instrument of the application, for itself: the series, the value in the store's whole numbers,
and where its span is current, None for here. Not needed where the provider takes the folds of the store."""


class RecordedObservation(Observation):
    """One operation or execution under way without a span, whose duration is told elsewhere as well."""

    __slots__ = ("_record",)

    def __init__(self, site: Site, record: Record) -> None:
        self._record = record
        super().__init__(site)

    @override
    def end(self, error: BaseException | None = None) -> None:
        series, duration = self._keep(error)
        try:
            self._record(series, duration, None)
        except Exception as failure:  # noqa: BLE001  # rule 3: telemetry never breaks the host
            shield.caught(failure, "recording a duration")
        if error is not None:
            self.blame(error)


class SpanObservation(Observation):
    """One execution under way with a span of the application's provider, through the public API alone."""

    __slots__ = ("_current", "_record", "_span", "context")

    def __init__(self, site: Site, span: Span, parent: Context, record: Record | None) -> None:
        self._span = span
        self._record = record
        self._current = set_span_in_context(span, parent)
        self.context = span.get_span_context()
        super().__init__(site)

    @override
    def enter(self) -> object:
        return attach(self._current)

    @override
    def leave(self, token: object) -> None:
        detach(token)  # type: ignore[arg-type]  # what enter() gave: the API types it as a Token

    @override
    def set(self, attributes: Mapping[str, Any]) -> None:
        self._span.set_attributes(attributes)

    @override
    def end(self, error: BaseException | None = None) -> None:
        series, duration = self._keep(error)
        try:
            try:
                if self._record is not None:
                    self._record(series, duration, self._current)
                elif (kept := series.exemplar) is None or duration > kept[0]:
                    offer(series, duration, self._current)
                if self._site.has_details:
                    self._report_details()
                if error is not None:
                    self._fail(error)
            finally:  # a span that is never ended would orphan everything below it
                self._close(duration)
        except Exception as failure:  # noqa: BLE001  # rule 3: telemetry never breaks the host
            shield.caught(failure, "ending a span")

    @override
    def end_apart(self, error: BaseException | None) -> None:
        self.end(error)  # which knows where its span is current

    def _close(self, duration: int) -> None:
        self._span.end()

    def _report_details(self) -> None:
        details = self.details
        if details is None:
            return
        attributes: dict[str, Any] = {} if details.cache_hit is None else {names.NODE_CACHE_HIT: details.cache_hit}
        if details.kind is not None:
            attributes[names.EXECUTION_KIND] = details.kind
            if details.kind == "retried":
                attributes[names.RETRY_WAIT] = details.retry_wait / 1e9
        if attributes:
            self._span.set_attributes(attributes)

    def _fail(self, error: BaseException) -> None:
        span, site = self._span, self._site
        result = site.result_of(error)
        attributes: dict[str, str] = {names.NODE_RESULT if site.is_node else names.RUN_RESULT: result}
        is_failure = result in ("failure", "timeout")
        if is_failure:
            attributes[names.ERROR_TYPE] = error_type(error)
        elif result == "expected" and site.is_node:
            attributes[names.EXPECTED_TYPE] = error_type(error)
        span.set_attributes(attributes)
        if is_failure:  # before anything that may fail, since the exception may do anything
            message = message_of(error)
            name = type(error).__name__
            span.set_status(Status(StatusCode.ERROR, name if message is None else f"{name}: {message}"))
        context = span.get_span_context()
        raised_here = self.blame(error, f"{context.trace_id:032x}" if context.is_valid else "")
        if is_failure and raised_here:
            try:
                span.record_exception(error)
            except Exception:  # noqa: BLE001  # an error that cannot be printed; its span must still report it
                span.add_event("exception", {EXCEPTION_TYPE: error_type(error)})


class MeteringObserver:
    """No tracer is set: durations are kept, nothing of the tracing API is called."""

    tracing = False
    idle = True
    tracer: trace.Tracer | None = None

    @property
    def metering(self) -> Observer:
        """This one."""
        return self

    def begin_run(self, site: Site, run_id: str | None = None) -> Observation:
        """Start observing a run."""
        return Observation(site)

    def lane(self, site: Site, run_id: str | None = None) -> None:
        """There are no spans."""

    def begin(
        self,
        site: Site,
        extra: Mapping[str, Any] | None = None,
        links: Sequence[SpanContext] = (),
        parent: Context | None = None,
    ) -> Observation:
        """Start observing an execution, as :class:`aetherflow.telemetry.observation.Observer` has it."""
        return Observation(site)

    def measure(self, site: Site) -> Observation:
        """Start observing an operation."""
        return Observation(site)

    def keep(self, series: Series, value: int, context: Context | None = None) -> None:
        """Keep a value that was measured elsewhere."""
        add(series, value)

    def keep_all(self, series: Series, values: Sequence[int]) -> None:
        """Keep many values that were measured elsewhere."""
        add_all(series, values)


class ApiObserver:
    """Spans through the public API of whatever provider is set, and where it takes no folds, ``record()`` as well.

    Args:
        tracer: What makes the spans; None for none.
        record: Records values one by one; None where they are published from the store.
    """

    def __init__(self, tracer: trace.Tracer | None, record: Record | None) -> None:
        self.tracing = tracer is not None
        self.idle = False
        self.tracer = tracer
        self._tracer = tracer or trace.NoOpTracer()
        self._record = record
        self._metering: Observer = (
            MeteringObserver() if record is None else ApiObserver(None, record) if tracer else self
        )

    @property
    def metering(self) -> Observer:
        """Durations only, in the same instruments."""
        return self._metering

    def begin_run(self, site: Site, run_id: str | None = None) -> Observation:
        """Start observing a run."""
        return self.begin(site, {names.RUN_ID: run_id or new_run_id()})

    def lane(self, site: Site, run_id: str | None = None) -> Lane | None:
        """Spans of the public API are begun one by one."""
        return None

    def begin(
        self,
        site: Site,
        extra: Mapping[str, Any] | None = None,
        links: Sequence[SpanContext] = (),
        parent: Context | None = None,
    ) -> Observation:
        """Start observing an execution, as :class:`aetherflow.telemetry.observation.Observer` has it."""
        try:
            attributes = {**site.attributes, **thread_facts().attributes} if site.is_node else dict(site.attributes)
            if extra:
                attributes.update(extra)
            if parent is None:
                parent = get_current()
            if len(links) > names.MAX_LINKS:
                attributes[names.LINK_DROPPED_COUNT] = len(links) - names.MAX_LINKS
            span = self._tracer.start_span(
                site.span_name, parent, site.kind, attributes, [Link(link) for link in links[: names.MAX_LINKS]]
            )
            return SpanObservation(site, span, parent, self._record if site.is_kept else None)
        except Exception as failure:  # noqa: BLE001  # rule 3: telemetry never breaks the host
            shield.caught(failure, "starting a span")
            return Observation(site)

    def measure(self, site: Site) -> Observation:
        """Start observing an operation."""
        return RecordedObservation(site, self._record or offer)

    def keep(self, series: Series, value: int, context: Context | None = None) -> None:
        """Keep a value that was measured elsewhere."""
        add(series, value)
        if self._record is not None:
            self._record(series, value, context)
        elif series.definition.instrument == "histogram":
            offer(series, value, context)

    def keep_all(self, series: Series, values: Sequence[int]) -> None:
        """Keep many values that were measured elsewhere."""
        add_all(series, values)
        if self._record is not None:
            for value in values:
                self._record(series, value, None)
        elif series.definition.instrument == "histogram":
            offer(series, max(values))
