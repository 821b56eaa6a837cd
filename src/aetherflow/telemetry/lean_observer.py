"""The observer for a tracer provider of the SDK, whose spans are lean ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter_ns, time_ns
from typing import Any, Final

from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, TraceFlags
from opentelemetry.trace.span import TraceState
from typing_extensions import override

from aetherflow.telemetry import conventions as names
from aetherflow.telemetry import shield
from aetherflow.telemetry.api_observer import ApiObserver, Record, SpanObservation
from aetherflow.telemetry.lean import LeanSpan, Origin, Template, thread_facts
from aetherflow.telemetry.observation import Observation, Site
from aetherflow.telemetry.sdk_spans import current_span, is_random, sampling_of, span_context, with_span

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
        self.context = span.get_span_context()
        Observation.__init__(self, site, started)

    @override
    def _close(self, duration: int) -> None:
        self._span.finish(duration)


class _SampledOut(Observation):
    """One execution under way below which nothing is sampled: its duration only."""

    __slots__ = ("_current", "_record", "context")

    sampled_out = True

    def __init__(self, site: Site, current: Context | None, context: SpanContext, record: Record | None) -> None:
        self._current = current
        self._record = record
        self.context = context
        super().__init__(site)

    @override
    def enter(self) -> object:
        return None if self._current is None else attach(self._current)

    @override
    def leave(self, token: object) -> None:
        if token is not None:
            detach(token)  # type: ignore[arg-type]  # what enter() gave: the API types it as a Token

    @override
    def end(self, error: BaseException | None = None) -> None:
        series, duration = self._keep(error)
        if self._record is not None:
            try:
                self._record(series, duration, get_current())
            except Exception as failure:  # noqa: BLE001  # rule 3: telemetry never breaks the host
                shield.caught(failure, "recording a duration")
        if error is not None:
            self.blame(error)


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
        self._new_span_id: Callable[[], int] = ids.generate_span_id
        self._new_trace_id: Callable[[], int] = ids.generate_trace_id
        if is_random(ids):  # what the SDK's generator does, without its call
            self._new_span_id = _random_span_id
        self._root_flags = TraceFlags(_SAMPLED | (TraceFlags.RANDOM_TRACE_ID if ids.is_trace_id_random() else 0))

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
            if not above.is_valid:
                if not self._sampling.root:
                    return self._asked(site, context, None, extra, links)
                identity = span_context(self._new_trace_id(), self._new_span_id(), self._root_flags, _ROOT_STATE)
                return self._begun(site, context, self._span(site, identity, None, extra, links))
            flags = above.trace_flags
            if above.is_remote or not flags & _SAMPLED:
                return self._below_other(site, context, above, extra, links)
            if not self._sampling.below_sampled:
                return self._asked(site, context, above, extra, links)
            if flags > _KNOWN_FLAGS:
                flags = TraceFlags(flags & _KNOWN_FLAGS)
            identity = span_context(above.trace_id, self._new_span_id(), flags, above.trace_state)
            return self._begun(site, context, self._span(site, identity, above, extra, links), outer)
        except Exception as failure:  # noqa: BLE001  # rule 3: telemetry never breaks the host
            shield.caught(failure, "starting a span")
            return Observation(site)

    def _span(
        self,
        site: Site,
        identity: SpanContext,
        above: SpanContext | None,
        extra: Mapping[str, Any] | None,
        links: Sequence[SpanContext],
    ) -> LeanSpan:
        template = site.template
        if template is None:
            template = site.template = Template(site.span_name, site.kind, site.attributes)
        return LeanSpan(self._origin, template, identity, above, thread_facts() if site.is_node else None, extra, links)

    def _begun(self, site: Site, context: Context, span: LeanSpan, outer: Span | None = None) -> Observation:
        now = perf_counter_ns()
        span.offset = offset = outer.offset if type(outer) is LeanSpan else time_ns() - now
        span.started = now + offset
        return _LeanObservation(site, span, context, self._record if site.is_kept else None, now)

    def _below_other(
        self,
        site: Site,
        context: Context,
        above: SpanContext,
        extra: Mapping[str, Any] | None,
        links: Sequence[SpanContext],
    ) -> Observation:
        """Begin below a span of another process, or one that is not sampled."""
        if above.is_remote or self._sampling.below_unsampled:
            return self._asked(site, context, above, extra, links)
        return _SampledOut(site, None, above, self._record if site.is_kept else None)

    def _asked(
        self,
        site: Site,
        context: Context,
        above: SpanContext | None,
        extra: Mapping[str, Any] | None,
        links: Sequence[SpanContext],
    ) -> Observation:
        """Begin what the sampler has to be asked about."""
        thread = thread_facts().attributes if site.is_node else {}
        attributes = {**site.attributes, **thread, **(extra or {})}
        trace_id = self._new_trace_id() if above is None else above.trace_id
        linked = [Link(link) for link in links]
        decided = self._sampler.should_sample(context, trace_id, site.span_name, site.kind, attributes, linked)
        is_sampled = decided.decision is Decision.RECORD_AND_SAMPLE
        random_bit = (self._root_flags if above is None else above.trace_flags) & TraceFlags.RANDOM_TRACE_ID
        flags = TraceFlags(random_bit | (_SAMPLED if is_sampled else 0))
        identity = SpanContext(trace_id, self._new_span_id(), False, flags, decided.trace_state)
        if decided.decision is Decision.DROP:
            return self._dropped(site, context, identity)
        if is_sampled and dict(decided.attributes) == attributes:
            return self._begun(site, context, self._span(site, identity, above, extra, links), current_span(context))
        origin = self._origin if is_sampled else self._origin.unsampled
        template = Template(site.span_name, site.kind, dict(decided.attributes))
        span = LeanSpan(origin, template, identity, above, None, None, links)
        return self._begun(site, context, span, current_span(context))

    def _dropped(self, site: Site, context: Context, identity: SpanContext) -> Observation:
        span, record = NonRecordingSpan(identity), self._record if site.is_kept else None
        if self._sampling.below_unsampled:
            return SpanObservation(site, span, context, record)
        return _SampledOut(site, with_span(span, context), identity, record)


def _random_span_id() -> int:
    return random.getrandbits(64) or _random_span_id()
