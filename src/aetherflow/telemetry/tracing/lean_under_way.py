"""What is under way with lean spans: one execution, or a run whose spans follow each other on one thread."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from types import TracebackType
from typing import Self

from opentelemetry.context import Context
from opentelemetry.trace import SpanContext
from typing_extensions import override

from aetherflow.telemetry.api_observer import Record, SpanObservation
from aetherflow.telemetry.observation import Site, keep, thread_facts
from aetherflow.telemetry.tracing.lean import LeanSpan
from aetherflow.telemetry.tracing.lean_parts import Template
from aetherflow.telemetry.tracing.sdk_spans import attach, detach, with_span

__all__ = ["ChainLane", "LeanObservation", "template_of"]


def template_of(site: Site) -> Template:
    """Return what the spans of a place have in common, made with its first one."""
    site.template = made = Template(site.span_name, site.kind, site.attributes)
    return made


class LeanObservation(SpanObservation):
    """One execution under way with a lean span."""

    __slots__ = ()
    _span: LeanSpan

    def __init__(self, site: Site, span: LeanSpan, parent: Context, record: Record | None, started: int) -> None:
        self._site = site
        self._started = started
        self._span = span
        self._record = record
        self._current = with_span(span, parent)

    @property
    def context(self) -> SpanContext:  # type: ignore[override]  # made when it is asked for
        """The context of its span."""
        return self._span.get_span_context()

    @override
    def __enter__(self) -> Self:
        self._token = attach(self._current)
        return self

    @override
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.end(error)
        finally:
            detach(self._token)  # type: ignore[arg-type]  # what attach() gave

    @override
    def end(self, error: BaseException | None = None) -> None:
        if error is not None or self._record is not None or self._site.has_details:
            super().end(error)
            return
        now = perf_counter_ns()
        keep(self._site.series, now - self._started, self._current)
        self._span.finish(now)

    @override
    def _close(self, duration: int) -> None:
        self._span.finish(self._started + duration)


class ChainLane:
    """Begins the spans of a run that has one of its own; see :class:`aetherflow.telemetry.observation.Lane`.

    Args:
        site: The flow.
        run: The run's span.
        outer: The context around it.
        started: When it began.
        new_span_id: Makes ids.
    """

    __slots__ = ("_base", "_new_span_id", "_outer", "_run", "_site", "_started", "_thread")

    def __init__(self, site: Site, run: LeanSpan, outer: Context, started: int, new_span_id: Callable[[], int]) -> None:
        self._site = site
        self._run = run
        self._outer = outer
        self._base = with_span(run, outer)
        self._thread = thread_facts()
        self._new_span_id = new_span_id
        self._started = started

    @property
    def context(self) -> SpanContext:
        """The context of the run's span."""
        return self._run.get_span_context()

    def begin(self, site: Site, now: int) -> LeanSpan:
        """Begin a span that is the current one until the next begins."""
        run, new_span_id = self._run, self._new_span_id
        span = LeanSpan(run.trace, run, site.template or template_of(site), self._thread, new_span_id(), now)
        attach(with_span(span, self._base))
        return span

    def fail(self, site: Site, span: LeanSpan, started: int, error: BaseException) -> None:
        """End a node's span with an error, and keep its duration."""
        LeanObservation(site, span, self._base, None, started).end(error)

    def end(self, error: BaseException | None = None) -> None:
        """End the run, and keep its duration; what was current before is so again."""
        try:
            if error is None:
                now = perf_counter_ns()
                keep(self._site.series, now - self._started, self._base)
                self._run.finish(now)
            else:
                LeanObservation(self._site, self._run, self._outer, None, self._started).end(error)
        finally:
            attach(self._outer)  # where the run began, on its thread: that needs no token
