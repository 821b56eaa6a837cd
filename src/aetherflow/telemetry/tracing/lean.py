"""The lean span: an API span whose constant part is made once and whose rest is filled in as it happens.

Nearly all spans of nodes are the same but for ids, times and thread. A :class:`LeanSpan` holds just those and a
reference to what it shares with others (``lean_parts``). What is rarely asked of a span (events, a status, another
name, links added late) is left to a span of the SDK that takes its place from then on, so that limits, cleaning and
warnings are the SDK's own. To whoever reads it, it is a ``ReadableSpan`` of the SDK.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Final

from opentelemetry import trace
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.util.types import Attributes, AttributeValue
from typing_extensions import override

from aetherflow.telemetry import shield
from aetherflow.telemetry.conventions import RUN_ID
from aetherflow.telemetry.observation import ThreadFacts
from aetherflow.telemetry.tracing.lean_parts import Origin, Rest, Template, Trace

__all__ = ["LeanSpan"]


class _FullSpan(sdk.Span):
    """The SDK's own span; its class cannot be made directly."""


_UNSET: Final = Status(StatusCode.UNSET)
_PLAIN: Final = frozenset({str, bool, int, float})
"""Types of attributes that need no cleaning."""
_NAMES: Final = frozenset({str})
_MOST_LATE: Final = 64
"""Attributes that may come late before a span of the SDK counts them; with those given at first, below any limit."""
_lock = threading.Lock()


def _renew_lock() -> None:
    global _lock  # noqa: PLW0603  # one lock for what is rare: a lock a span would cost more than the span
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


class LeanSpan(trace.Span, ReadableSpan):
    """A span under way, or ended; see the module.

    Args:
        trace: What it has in common with all of its trace.
        above: Its parent, or that one's context where it is no lean span; None for a root.
        template: What it has in common with others of its place.
        thread: Its thread, where it tells that.
        span_id: Its id.
        started: When it began, by the performance counter, in nanoseconds.
        run: The identifier of the run that it is; 0 where it is none.
        rest: What few spans have.
    """

    __slots__ = ("_identity", "above", "ended", "rest", "run", "span_id", "started", "template", "thread", "trace")

    is_remote: ClassVar[bool] = False
    """As of a span's context, in whose place it stands above others."""

    def __init__(
        self,
        trace: Trace,
        above: LeanSpan | SpanContext | None,
        template: Template,
        thread: ThreadFacts | None,
        span_id: int,
        started: int,
        run: int = 0,
        rest: Rest | None = None,
    ) -> None:
        self.trace = trace
        self.above = above
        self.template = template
        self.thread = thread
        self.span_id = span_id
        self.started = started + trace.offset
        self.run = run
        self.rest = rest
        self.ended: int | None = None
        self._identity: SpanContext | None = None

    # --- what whoever has the current span may do to it ------------------------------------------------------

    @override
    def get_span_context(self) -> SpanContext:
        identity = self._identity
        if identity is None:  # most spans are never asked
            shared = self.trace
            identity = SpanContext(shared.trace_id, self.span_id, False, shared.flags, shared.state)
            self._identity = identity
        return identity

    @override
    def is_recording(self) -> bool:
        return self.ended is None

    @override
    def set_attribute(self, key: str, value: AttributeValue) -> None:
        if self.ended is None and type(value) in _PLAIN and type(key) is str and key:
            rest = self.rest or self._open_rest()
            if rest.full is None and len(rest.late) < _MOST_LATE:
                rest.late[key] = value
                if rest.full is None:  # else another thread has made it full in between
                    return
        self.full().set_attribute(key, value)

    @override
    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        if self.ended is None and _are_plain(attributes):
            rest = self.rest or self._open_rest()
            if rest.full is None and len(rest.late) + len(attributes) <= _MOST_LATE:
                rest.late.update(attributes)
                if rest.full is None:  # as above
                    return
        self.full().set_attributes(attributes)

    def _open_rest(self) -> Rest:
        with _lock:
            rest = self.rest = self.rest or Rest()
            return rest

    @override
    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        self.full().add_event(name, attributes, timestamp)

    @override
    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        self.full().add_link(context, attributes)

    @override
    def update_name(self, name: str) -> None:
        self.full().update_name(name)

    @override
    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        self.full().set_status(status, description)

    @override
    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        self.full().record_exception(exception, attributes, timestamp, escaped)

    @override
    def end(self, end_time: int | None = None) -> None:
        """End the span and hand it on, the first time only."""
        with _lock:
            is_first = self.ended is None
            if is_first:
                self.ended = time.perf_counter_ns() + self.trace.offset if end_time is None else end_time
        if not is_first:
            self.full().end(end_time)  # says so in the SDK's words
            return
        if self.inflated is not None:
            self.inflated.end(self.ended)
        self.trace.origin.sink(self)

    def finish(self, now: int) -> None:
        """End the span at a reading of the performance counter: :meth:`end` for the one place that ends it once."""
        if self.ended is not None:  # by hand
            return
        ended = now + self.trace.offset
        if self.rest is not None and self.rest.full is not None:
            self.end(ended)
            return
        self.ended = ended
        sink = self.trace.origin.sink
        try:
            sink(self)
        except Exception as failure:  # noqa: BLE001  # rule 3: a processor that fails never breaks the host
            shield.caught(failure, "ending a span")

    def full(self) -> sdk.Span:
        """Return the span of the SDK that takes this one's place from now on."""
        rest = self.rest or self._open_rest()
        if rest.full is None:
            with _lock:
                if rest.full is None:
                    rest.full = self._inflated()
        return rest.full

    @property
    def inflated(self) -> sdk.Span | None:
        """The span of the SDK that has taken this one's place, if one has."""
        return None if self.rest is None else self.rest.full

    def _inflated(self) -> sdk.Span:
        origin = self.trace.origin
        tracer = origin.tracer
        full = _FullSpan(
            self.template.name,
            self.get_span_context(),
            self.parent,
            resource=tracer.resource,
            attributes=self._all(),
            links=self._linked(),
            kind=self.template.kind,
            limits=origin.limits,
            instrumentation_info=tracer.instrumentation_info,
            instrumentation_scope=origin.scope,
        )
        full.start(self.started)
        if self.ended is not None:
            full.end(self.ended)
        return full

    # --- what whoever exports it may read ----------------------------------------------------------------------

    def given(self) -> dict[str, AttributeValue]:
        """Return the attributes that it had from the beginning."""
        thread, rest = self.thread, self.rest
        found = {**self.template.attributes, **thread.attributes} if thread else dict(self.template.attributes)
        if self.run:
            found[RUN_ID] = f"{self.run:016x}"
        if rest is not None and rest.extra:
            found.update(rest.extra)
        return found

    def _all(self) -> dict[str, AttributeValue]:
        return self.given() if self.rest is None else {**self.given(), **self.rest.late}

    def _linked(self) -> list[Link]:
        return [] if self.rest is None else [Link(context) for context in self.rest.links]

    @property
    def origin(self) -> Origin:
        """Where it comes from."""
        return self.trace.origin

    @property
    @override
    def name(self) -> str:
        full = self.inflated
        return self.template.name if full is None else full.name

    @property
    @override
    def context(self) -> SpanContext:
        return self.get_span_context()

    @property
    @override
    def kind(self) -> SpanKind:
        return self.template.kind

    @property
    @override
    def parent(self) -> SpanContext | None:
        above = self.above
        return above.get_span_context() if isinstance(above, LeanSpan) else above

    @property
    @override
    def start_time(self) -> int:
        return self.started

    @property
    @override
    def end_time(self) -> int | None:
        return self.ended

    @property
    @override
    def status(self) -> Status:
        full = self.inflated
        return _UNSET if full is None else full.status

    @property
    @override
    def attributes(self) -> Attributes:
        full = self.inflated
        return MappingProxyType(self._all()) if full is None else full.attributes

    @property
    @override
    def events(self) -> Sequence[Event]:
        full = self.inflated
        return () if full is None else full.events

    @property
    @override
    def links(self) -> Sequence[Link]:
        full = self.inflated
        return tuple(self._linked()) if full is None else full.links

    @property
    @override
    def resource(self) -> Resource:
        return self.trace.origin.tracer.resource

    @property
    @override
    def instrumentation_scope(self) -> InstrumentationScope:
        return self.trace.origin.scope

    @property
    @override
    def dropped_attributes(self) -> int:
        full = self.inflated
        return 0 if full is None else full.dropped_attributes

    @property
    @override
    def dropped_events(self) -> int:
        full = self.inflated
        return 0 if full is None else full.dropped_events

    @property
    @override
    def dropped_links(self) -> int:
        full = self.inflated
        return 0 if full is None else full.dropped_links

    def __repr__(self) -> str:
        return f'LeanSpan(name="{self.name}", context={self.get_span_context()})'


def _are_plain(attributes: Mapping[str, AttributeValue]) -> bool:
    return (
        _PLAIN.issuperset(map(type, attributes.values()))
        and _NAMES.issuperset(map(type, attributes))
        and "" not in attributes
    )


def _field(name: str) -> property:
    return property(lambda span: getattr(span.full(), name))


# What the SDK's own code reads of its spans beside all that, as to_json() does, comes of a span of the SDK. There is no
# `__getattr__` for it, since that would make reading any attribute ten times as slow.
for _name in vars(_FullSpan("", trace.INVALID_SPAN_CONTEXT)).keys() - vars(LeanSpan).keys():
    setattr(LeanSpan, _name, _field(_name))
