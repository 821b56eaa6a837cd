"""The observer for a tracer provider of the SDK, whose spans are lean ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter_ns, time_ns
from typing import Any, Final, Self

from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, TraceFlags
from opentelemetry.trace.span import TraceState
from typing_extensions import override

from aetherflow.telemetry import conventions as names
from aetherflow.telemetry import shield
from aetherflow.telemetry.accumulators import Series
from aetherflow.telemetry.api_observer import ApiObserver, Record, RecordedObservation, SpanObservation
from aetherflow.telemetry.lean import LeanSpan
from aetherflow.telemetry.lean_parts import Frame, Origin, Rest, Template
from aetherflow.telemetry.observation import Observation, Site, new_run_id, thread_facts
from aetherflow.telemetry.sdk_spans import (
    always,
    current_span,
    has_span,
    is_random,
    sampling_of,
    span_context,
    with_span,
)

__all__ = ["LeanObserver"]

_ROOT_STATE: Final = TraceState()
_SAMPLED: Final = TraceFlags.SAMPLED
_KNOWN_FLAGS: Final = TraceFlags(TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID)


class _LeanObservation(SpanObservation):
    """One execution under way with a lean span."""

    __slots__ = ()
    _span: LeanSpan

    def __init__(self, site: Site, span: LeanSpan, parent: Context, record: Record | None, started: int) -> None:
        self._span = span
        self._record = record
        self._current = with_span(span, parent)
        Observation.__init__(self, site, started)

    @property
    def context(self) -> SpanContext:  # type: ignore[override]  # made when it is asked for
        return self._span.get_span_context()

    @override
    def _close(self, duration: int) -> None:
        self._span.finish(self._started + duration)


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


class LeanLane:
    """Begins spans one after the other on one thread, below one sampled run; see :class:`observation.Lane`."""

    __slots__ = ("_base", "_frame", "_new_span_id")

    def __init__(self, base: Context, frame: Frame, new_span_id: Callable[[], int]) -> None:
        self._base = base
        self._frame = frame
        self._new_span_id = new_span_id

    def begin(self, site: Site, now: int) -> LeanSpan:
        """Begin a span that is the current one until the next begins."""
        span = LeanSpan(self._frame, site.template or _template(site), self._new_span_id(), now)
        attach(with_span(span, self._base))
        return span

    def fail(self, site: Site, span: LeanSpan, started: int, error: BaseException) -> None:
        """End a span with an error."""
        _LeanObservation(site, span, self._base, None, started).end(error)


class _LoneLane(LeanLane):
    """The lane of a single node that is a run by itself, whose span is a root."""

    __slots__ = ("_rest", "_token")

    def __init__(self, base: Context, frame: Frame, new_span_id: Callable[[], int], rest: Rest) -> None:
        super().__init__(base, frame, new_span_id)
        self._rest = rest

    @override
    def begin(self, site: Site, now: int) -> LeanSpan:
        frame = self._frame
        frame.offset = time_ns() - now
        span = LeanSpan(frame, site.template or _template(site), self._new_span_id(), now, self._rest)
        self._token = attach(with_span(span, self._base))
        return span

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        detach(self._token)


class LeanObserver(ApiObserver):
    """Spans that cost a tenth of the tracer's own; what a sampler is known to decide is not asked.

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
        # What the SDK's own generator does, without its call.
        self._new_span_id: Callable[[], int] = _random_span_id if is_random(ids) else ids.generate_span_id
        self._has_lanes = record is None and is_random(ids) and self._sampling.below_sampled
        self._has_lone_lane = record is None and is_random(ids) and self._sampling.root is always
        self._random_bit = TraceFlags(TraceFlags.RANDOM_TRACE_ID if ids.is_trace_id_random() else 0)
        self._root_flags = TraceFlags(_SAMPLED | self._random_bit)

    @override
    def begin_run(self, site: Site, run_id: str | None = None) -> Observation:
        sampling = self._sampling
        try:
            context = get_current()
            above = current_span(context).get_span_context() if has_span(context) else None
            if above is not None and above.is_valid:
                if not (above.trace_flags & _SAMPLED or above.is_remote or sampling.below_unsampled):
                    return _SampledOut(site, None, above, self._record)
            elif sampling.root is not None:
                trace_id = self._new_trace_id()
                if not sampling.root(trace_id):
                    return self._dropped(site, context, trace_id, self._random_bit, _ROOT_STATE)
                rest = Rest({names.RUN_ID: run_id or new_run_id()})
                return self._begun(site, context, None, trace_id, self._root_flags, _ROOT_STATE, rest)
        except Exception as failure:  # noqa: BLE001  # rule 3: telemetry never breaks the host
            shield.caught(failure, "starting a span")
        return super().begin_run(site, run_id)

    @override
    def lone_lane(self) -> _LoneLane | None:
        # Only where every root is sampled: one that is dropped here would be decided on once more by begin().
        if not self._has_lone_lane:
            return None
        context = get_current()
        if has_span(context) and current_span(context).get_span_context().is_valid:
            return None
        frame = Frame(self._origin, None, self._new_trace_id(), self._root_flags, _ROOT_STATE, thread_facts(), 0)
        return _LoneLane(context, frame, self._new_span_id, Rest({names.RUN_ID: new_run_id()}))

    @override
    def lane(self, run: Observation) -> LeanLane | None:
        if not self._has_lanes or not isinstance(run, _LeanObservation):
            return None
        span, frame = run._span, run._span.frame
        if not frame.flags & _SAMPLED:
            return None
        above = span.get_span_context()
        below = Frame(frame.origin, above, frame.trace_id, frame.flags, frame.state, thread_facts(), frame.offset)
        return LeanLane(run._current, below, self._new_span_id)

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
            outer = current_span(context)
            above = outer.get_span_context()
            rest = Rest(extra, links) if extra or links else None
            if not above.is_valid:
                return self._begin_root(site, context, rest)
            flags = above.trace_flags
            if above.is_remote or not flags & _SAMPLED:
                return self._begin_below_other(site, context, above, rest)
            if not self._sampling.below_sampled:
                return self._ask(site, context, above, above.trace_id, rest)
            if flags > _KNOWN_FLAGS:
                flags = TraceFlags(flags & _KNOWN_FLAGS)
            return self._begun(site, context, above, above.trace_id, flags, above.trace_state, rest, outer)
        except Exception as failure:  # noqa: BLE001  # rule 3: telemetry never breaks the host
            shield.caught(failure, "starting a span")
            return Observation(site)

    def _begin_root(self, site: Site, context: Context, rest: Rest | None) -> Observation:
        trace_id = self._new_trace_id()
        decide = self._sampling.root
        if decide is None:
            return self._ask(site, context, None, trace_id, rest)
        if decide(trace_id):
            return self._begun(site, context, None, trace_id, self._root_flags, _ROOT_STATE, rest)
        return self._dropped(site, context, trace_id, self._random_bit, _ROOT_STATE)

    def _begin_below_other(self, site: Site, context: Context, above: SpanContext, rest: Rest | None) -> Observation:
        """Begin below a span of another process, or one that is not sampled."""
        if above.is_remote or self._sampling.below_unsampled:
            return self._ask(site, context, above, above.trace_id, rest)
        return _SampledOut(site, None, above, self._record if site.is_kept else None)

    def _begun(
        self,
        site: Site,
        context: Context,
        above: SpanContext | None,
        trace_id: int,
        flags: TraceFlags,
        state: TraceState,
        rest: Rest | None,
        outer: Span | None = None,
    ) -> Observation:
        now = perf_counter_ns()
        thread = thread_facts() if site.is_node else None
        if type(outer) is LeanSpan:
            frame = None if thread is None else thread.frame
            if frame is None or frame.parent is not above or frame.origin is not self._origin:
                frame = Frame(self._origin, above, trace_id, flags, state, thread, outer.frame.offset)
                if thread is not None:
                    thread.frame = frame
        else:
            frame = Frame(self._origin, above, trace_id, flags, state, thread, time_ns() - now)
        span = LeanSpan(frame, site.template or _template(site), self._new_span_id(), now, rest)
        return _LeanObservation(site, span, context, self._record if site.is_kept else None, now)

    def _ask(
        self, site: Site, context: Context, above: SpanContext | None, trace_id: int, rest: Rest | None
    ) -> Observation:
        """Begin what the sampler has to be asked about."""
        rest = rest or Rest()
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
        now, outer = perf_counter_ns(), current_span(context)
        offset = outer.frame.offset if type(outer) is LeanSpan else time_ns() - now
        origin = self._origin if is_sampled else self._origin.unsampled
        frame = Frame(origin, above, trace_id, flags, state, None, offset)
        span = LeanSpan(frame, template, self._new_span_id(), now, Rest(links=rest.links))
        return _LeanObservation(site, span, context, self._record if site.is_kept else None, now)

    def _dropped(
        self, site: Site, context: Context, trace_id: int, flags: TraceFlags, state: TraceState
    ) -> Observation:
        identity = span_context(trace_id, self._new_span_id(), flags, state)
        span, record = NonRecordingSpan(identity), self._record if site.is_kept else None
        if self._sampling.below_unsampled:
            return SpanObservation(site, span, context, record)
        return _SampledOut(site, with_span(span, context), identity, record)


def _template(site: Site) -> Template:
    site.template = made = Template(site.span_name, site.kind, site.attributes)
    return made


def _random_span_id() -> int:
    return random.getrandbits(64) or _random_span_id()
