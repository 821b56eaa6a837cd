"""The observer for a tracer provider of the SDK, whose spans are lean ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import getrandbits
from time import perf_counter_ns, time_ns
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, TraceFlags
from opentelemetry.trace.span import TraceState
from typing_extensions import override

from aetherflow.telemetry import conventions as names
from aetherflow.telemetry import shield
from aetherflow.telemetry.api_observer import ApiObserver, Record, RecordedObservation, SpanObservation
from aetherflow.telemetry.metrics.accumulators import Series
from aetherflow.telemetry.observation import Observation, Site, thread_facts
from aetherflow.telemetry.tracing.lean import LeanSpan
from aetherflow.telemetry.tracing.lean_parts import Origin, Rest, Template, Trace
from aetherflow.telemetry.tracing.lean_under_way import ChainLane, LeanObservation, template_of
from aetherflow.telemetry.tracing.sdk_spans import (
    SPAN_KEY,
    always,
    attach,
    current_span,
    detach,
    get_current,
    is_random,
    sampling_of,
    span_context,
    with_span,
)

__all__ = ["LeanObserver"]

_ROOT_STATE: Final = TraceState()
_SAMPLED: Final = TraceFlags.SAMPLED
_KNOWN_FLAGS: Final = TraceFlags(TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID)


class _SampledOut(RecordedObservation):
    """One execution under way below which nothing is sampled: its duration only."""

    __slots__ = ("_current", "context")

    sampled_out = True

    def __init__(self, site: Site, current: Context | None, context: SpanContext, record: Record | None) -> None:
        self._current = current
        self.context = context
        super().__init__(site, record or _nothing)

    @override
    def enter(self) -> object:
        return None if self._current is None else attach(self._current)

    @override
    def leave(self, token: object) -> None:
        if token is not None:
            detach(token)  # type: ignore[arg-type]  # what enter() gave: the API types it as a Token


def _nothing(series: Series, value: int, context: Context | None) -> None:
    """Record nothing: the store is published as it is."""


class LeanObserver(ApiObserver):
    """Spans that cost a fraction of the tracer's own; what a sampler is known to decide is not asked.

    Args:
        origin: Where the spans come from.
        record: As for :class:`ApiObserver`.
    """

    def __init__(self, origin: Origin, record: Record | None) -> None:
        super().__init__(origin.tracer, record)
        self._origin = origin
        self._sampler = origin.tracer.sampler
        self._sampling = sampling_of(self._sampler)
        ids = origin.tracer.id_generator
        self._new_trace_id: Callable[[], int] = ids.generate_trace_id
        self._new_span_id: Callable[[], int] = ids.generate_span_id
        if is_random(ids):  # what they do, without their calls
            self._new_trace_id, self._new_span_id = _random_trace_id, _random_span_id
        self._followed = self._origin if self._sampling.below_sampled else None
        # Between two nodes nothing is shielded: nobody else's code may run there.
        self._has_lanes = record is None and is_random(ids) and self._sampling.below_sampled
        self._takes_roots = self._sampling.root is always
        self._random_bit = TraceFlags(TraceFlags.RANDOM_TRACE_ID if ids.is_trace_id_random() else 0)
        self._root_flags = TraceFlags(_SAMPLED | self._random_bit)

    @override
    def begin_run(self, site: Site, run_id: str | None = None) -> Observation:
        try:
            context, run = get_current(), _number_of(run_id)
            place = self._place_in(context)
            if place is None:
                return self._begin_otherwise(site, context, None, run)
            trace, above = place
            return self._begun(site, context, trace, above, None, run)
        except Exception as failure:  # noqa: BLE001  # rule 3: telemetry never breaks the host
            shield.caught(failure, "starting a span")
            return Observation(site)

    @override
    def lane(self, site: Site, run_id: str | None = None) -> ChainLane | None:
        if not self._has_lanes:
            return None
        try:
            now, context = perf_counter_ns(), get_current()
            place = self._place_in(context)
            if place is None:
                return None
            template, number = site.template or template_of(site), _number_of(run_id)
            trace, above = place
            run = LeanSpan(trace, above, template, None, self._new_span_id(), now, number)
            return ChainLane(site, run, context, now, self._new_span_id)
        except Exception as failure:  # noqa: BLE001  # rule 3: telemetry never breaks the host
            shield.caught(failure, "starting a span")
            return None

    @override
    def begin(
        self,
        site: Site,
        extra: Mapping[str, Any] | None = None,
        links: Sequence[SpanContext] = (),
        parent: Context | None = None,
    ) -> Observation:
        try:
            context = get_current() if parent is None else parent
            if len(links) > names.MAX_LINKS:
                extra = {**(extra or {}), names.LINK_DROPPED_COUNT: len(links) - names.MAX_LINKS}
                links = links[: names.MAX_LINKS]
            rest = Rest(extra, links) if extra or links else None
            place = self._place_in(context)
            if place is None:
                return self._begin_otherwise(site, context, rest)
            trace, above = place
            return self._begun(site, context, trace, above, rest)
        except Exception as failure:  # noqa: BLE001  # rule 3: telemetry never breaks the host
            shield.caught(failure, "starting a span")
            return Observation(site)

    def _place_in(self, context: Context) -> tuple[Trace, LeanSpan | SpanContext | None] | None:
        """Return the trace of a span that begins in a context, and what is above it, if it is sampled for sure."""
        outer = context.get(SPAN_KEY)
        if outer is None:
            if not self._takes_roots:
                return None
            new_trace_id = self._new_trace_id  # a variable, since CPython calls what an attribute holds more slowly
            return self._rooted(new_trace_id()), None
        if self._followed is None:
            return None
        if type(outer) is LeanSpan and outer.trace.origin is self._followed:
            return outer.trace, outer
        span = current_span(context)
        above = span.get_span_context()
        flags = above.trace_flags
        if not above.is_valid or above.is_remote or not flags & _SAMPLED:
            return None
        if flags > _KNOWN_FLAGS:
            flags = TraceFlags(flags & _KNOWN_FLAGS)
        return Trace(self._origin, above.trace_id, flags, above.trace_state, _offset_below(span)), above

    def _rooted(self, trace_id: int) -> Trace:
        """Return what the spans of a new trace have in common."""
        return Trace(self._origin, trace_id, self._root_flags, _ROOT_STATE, time_ns() - perf_counter_ns())

    def _begun(
        self,
        site: Site,
        context: Context,
        trace: Trace,
        above: LeanSpan | SpanContext | None,
        rest: Rest | None,
        run: int = 0,
    ) -> Observation:
        now = perf_counter_ns()
        thread = thread_facts() if site.is_node else None
        new_span_id = self._new_span_id
        span = LeanSpan(trace, above, site.template or template_of(site), thread, new_span_id(), now, run, rest)
        return LeanObservation(site, span, context, self._record if site.is_kept else None, now)

    def _begin_otherwise(self, site: Site, context: Context, rest: Rest | None, run: int = 0) -> Observation:
        """Begin what may not be sampled."""
        above = current_span(context).get_span_context() if SPAN_KEY in context else None
        if above is not None and above.is_valid:
            if above.is_remote or above.trace_flags & _SAMPLED or self._sampling.below_unsampled:
                return self._ask(site, context, above, above.trace_id, rest, run)
            return _SampledOut(site, None, above, self._record if site.is_kept else None)
        trace_id = self._new_trace_id()
        decide = self._sampling.root
        if decide is None:
            return self._ask(site, context, None, trace_id, rest, run)
        if decide(trace_id):
            return self._begun(site, context, self._rooted(trace_id), None, rest, run)
        return self._dropped(site, context, trace_id, self._random_bit, _ROOT_STATE)

    def _ask(
        self, site: Site, context: Context, above: SpanContext | None, trace_id: int, rest: Rest | None, run: int
    ) -> Observation:
        """Begin what the sampler has to be asked about."""
        rest = rest or Rest({names.RUN_ID: f"{run:016x}"} if run else None)
        thread = thread_facts() if site.is_node else None
        attributes = {**site.attributes, **(thread.attributes if thread else {}), **(rest.extra or {})}
        links = [Link(link) for link in rest.links]
        decided = self._sampler.should_sample(context, trace_id, site.span_name, site.kind, attributes, links)
        is_sampled = decided.decision is Decision.RECORD_AND_SAMPLE
        random_bit = (self._random_bit if above is None else above.trace_flags) & TraceFlags.RANDOM_TRACE_ID
        flags = TraceFlags(random_bit | (_SAMPLED if is_sampled else 0))
        state = _ROOT_STATE if decided.trace_state is None else decided.trace_state
        if decided.decision is Decision.DROP:
            return self._dropped(site, context, trace_id, flags, state)
        template = Template(site.span_name, site.kind, dict(decided.attributes))
        origin = self._origin if is_sampled else self._origin.unsampled
        trace = Trace(origin, trace_id, flags, state, _offset_below(current_span(context)))
        now = perf_counter_ns()
        span = LeanSpan(trace, above, template, None, self._new_span_id(), now, rest=Rest(links=rest.links))
        return LeanObservation(site, span, context, self._record if site.is_kept else None, now)

    def _dropped(
        self, site: Site, context: Context, trace_id: int, flags: TraceFlags, state: TraceState
    ) -> Observation:
        identity = span_context(trace_id, self._new_span_id(), flags, state)
        span, record = NonRecordingSpan(identity), self._record if site.is_kept else None
        if self._sampling.below_unsampled:
            return SpanObservation(site, span, context, record)
        return _SampledOut(site, with_span(span, context), identity, record)


def _offset_below(outer: Span) -> int:
    """Return what the performance counter is behind the time of day, for spans below another."""
    return outer.trace.offset if type(outer) is LeanSpan else time_ns() - perf_counter_ns()


def _number_of(run_id: str | None) -> int:
    """Return a run's identifier as a number, a new one where there is none."""
    return getrandbits(64) or 1 if run_id is None else int(run_id, 16)


def _random_trace_id() -> int:
    return getrandbits(128) or _random_trace_id()


def _random_span_id() -> int:
    return getrandbits(64) or _random_span_id()
