"""The lean span: an API span whose constant part is made once and whose rest is filled in as it happens.

Nearly all spans of nodes are the same but for ids, times and thread. A :class:`LeanSpan` holds just those and a
reference to its :class:`Template`. What is rarely asked of a span (events, a status, another name, links added late) is
left to a span of the SDK that takes its place from then on, so that limits, cleaning and warnings are the SDK's own.
To whoever reads it, it is a ``ReadableSpan`` of the SDK.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.util.types import Attributes, AttributeValue
from typing_extensions import override

from aetherflow.telemetry import conventions as names

__all__ = ["LeanSpan", "Origin", "Template", "ThreadFacts", "thread_facts"]


class Template:
    """What is the same in every span of one place.

    Args:
        name: Their name.
        kind: What they are to their parent and children.
        attributes: Their constant attributes.
    """

    __slots__ = ("attributes", "encoded", "kind", "name")

    def __init__(self, name: str, kind: SpanKind, attributes: Mapping[str, AttributeValue]) -> None:
        self.name = name
        self.kind = kind
        self.attributes = dict(attributes)
        self.encoded: dict[object, Any] = {}
        """What each encoder has made of the above, once."""


class ThreadFacts:
    """The attributes that tell a thread, made once a thread."""

    __slots__ = ("attributes", "encoded")

    def __init__(self, attributes: Mapping[str, AttributeValue]) -> None:
        self.attributes = attributes
        self.encoded: dict[object, Any] = {}


class Origin:
    """Where lean spans come from: all that a tracer of the SDK would give its spans.

    Args:
        tracer: The tracer.
        limits: The provider's limits.
        scope: The tracer's scope.
        processors: What spans that have ended are handed to; those that began were not.
        sampled: Whether the spans are: a processor's ``push`` takes those only, without looking.
    """

    __slots__ = ("limits", "processors", "scope", "sink", "tracer")

    def __init__(
        self,
        tracer: sdk.Tracer,
        limits: SpanLimits,
        scope: InstrumentationScope,
        processors: Sequence[SpanProcessor],
        *,
        sampled: bool = True,
    ) -> None:
        self.tracer = tracer
        self.limits = limits
        self.scope = scope
        self.processors = tuple(processors)
        self.sink: Callable[[LeanSpan], object] = self._each
        if len(self.processors) == 1:
            (only,) = self.processors
            self.sink = getattr(only, "push", only.on_end) if sampled else only.on_end

    @property
    def unsampled(self) -> Origin:
        """The same for spans that are recorded and yet not sampled."""
        return Origin(self.tracer, self.limits, self.scope, self.processors, sampled=False)

    def _each(self, span: LeanSpan) -> None:
        for processor in self.processors:
            processor.on_end(span)


class _FullSpan(sdk.Span):
    """The SDK's own span; its class cannot be made directly."""


_UNSET: Final = Status(StatusCode.UNSET)
_PLAIN: Final = frozenset({str, bool, int, float})
"""Types of attributes that need no cleaning."""
_MOST_LATE: Final = 64
"""Attributes that may come late before a span of the SDK counts them; with those given at first, below any limit."""
_lock = threading.Lock()
_local = threading.local()


def thread_facts() -> ThreadFacts:
    """Return the attributes of the calling thread."""
    try:
        found: ThreadFacts = _local.facts
    except AttributeError:
        thread = threading.current_thread()
        found = _local.facts = ThreadFacts({names.THREAD_ID: thread.ident or 0, names.THREAD_NAME: thread.name})
    return found


def _renew_lock() -> None:
    global _lock  # noqa: PLW0603  # one lock for what is rare: a lock a span would cost more than the span
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


class LeanSpan(trace.Span, ReadableSpan):
    """A span under way, or ended; see the module.

    Args:
        origin: Where it comes from.
        template: What it has in common with others.
        identity: Its own context.
        parent: Its parent's; None for a root.
        thread: The thread that it began on, where it tells that.
        extra: Attributes of its own, known from the beginning.
        links: What it follows from.
    """

    __slots__ = (
        "_full",
        "ended",
        "extra",
        "identity",
        "late",
        "linked",
        "offset",
        "origin",
        "parent_context",
        "started",
        "template",
        "thread",
    )  # fmt: skip

    started: int
    """When it began, in nanoseconds since the epoch."""
    offset: int
    """What the performance counter is behind that. All spans of a trace in this process share one, so that no step of
    the system's clock puts a child outside its parent."""

    def __init__(
        self,
        origin: Origin,
        template: Template,
        identity: SpanContext,
        parent: SpanContext | None,
        thread: ThreadFacts | None,
        extra: Mapping[str, AttributeValue] | None,
        links: Sequence[SpanContext],
    ) -> None:
        self.origin = origin
        self.template = template
        self.identity = identity
        self.parent_context = parent
        self.thread = thread
        self.extra = extra
        self.linked = links
        self.late: dict[str, AttributeValue] | None = None
        self._full: sdk.Span | None = None
        self.ended: int | None = None

    # --- what whoever has the current span may do to it ------------------------------------------------------

    @override
    def get_span_context(self) -> SpanContext:
        return self.identity

    @override
    def is_recording(self) -> bool:
        return self.ended is None

    @override
    def set_attribute(self, key: str, value: AttributeValue) -> None:
        if self._full is None and self.ended is None and type(value) in _PLAIN and type(key) is str and key:
            late = self.late
            if late is None:
                with _lock:
                    late = self.late = self.late or {}
            if len(late) < _MOST_LATE:
                late[key] = value
                if self._full is None:  # else another thread has made it full in between
                    return
        self.full().set_attribute(key, value)

    @override
    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        for key, value in attributes.items():
            self.set_attribute(key, value)

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
            if self.ended is not None:
                again = True
            else:
                again = False
                self.ended = time.perf_counter_ns() + self.offset if end_time is None else end_time
        if again:
            self.full().end(end_time)  # says so in the SDK's words
            return
        if self._full is not None:
            self._full.end(self.ended)
        self.origin.sink(self)

    def finish(self, duration: int) -> None:
        """End the span after so many nanoseconds: what :meth:`end` does, for the one place that surely ends it once."""
        if self._full is None and self.ended is None:
            self.ended = self.started + duration
            self.origin.sink(self)
        elif self.ended is None:  # not where the span was ended by hand
            self.end(self.started + duration)

    def full(self) -> sdk.Span:
        """Return the span of the SDK that takes this one's place from now on."""
        full = self._full
        if full is None:
            with _lock:
                if self._full is None:
                    self._full = self._inflated()
                full = self._full
        return full

    @property
    def inflated(self) -> sdk.Span | None:
        """The span of the SDK that has taken this one's place, if one has."""
        return self._full

    def _inflated(self) -> sdk.Span:
        origin = self.origin
        full = _FullSpan(
            self.template.name,
            self.identity,
            self.parent_context,
            resource=origin.tracer.resource,
            attributes=self._all(),
            links=[Link(context) for context in self.linked],
            kind=self.template.kind,
            limits=origin.limits,
            instrumentation_info=origin.tracer.instrumentation_info,
            instrumentation_scope=origin.scope,
        )
        full.start(self.started)
        if self.ended is not None:
            full.end(self.ended)
        return full

    # --- what whoever exports it may read ----------------------------------------------------------------------

    def _given(self) -> dict[str, AttributeValue]:
        thread, extra = self.thread, self.extra
        found = {**self.template.attributes, **thread.attributes} if thread else dict(self.template.attributes)
        if extra:
            found.update(extra)
        return found

    def _all(self) -> dict[str, AttributeValue]:
        late = self.late
        return {**self._given(), **late} if late else self._given()

    @property
    @override
    def name(self) -> str:
        return self.template.name if self._full is None else self._full.name

    @property
    @override
    def context(self) -> SpanContext:
        return self.identity

    @property
    @override
    def kind(self) -> SpanKind:
        return self.template.kind

    @property
    @override
    def parent(self) -> SpanContext | None:
        return self.parent_context

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
        return _UNSET if self._full is None else self._full.status

    @property
    @override
    def attributes(self) -> Attributes:
        return MappingProxyType(self._all()) if self._full is None else self._full.attributes

    @property
    @override
    def events(self) -> Sequence[Event]:
        return () if self._full is None else self._full.events

    @property
    @override
    def links(self) -> Sequence[Link]:
        return tuple(map(Link, self.linked)) if self._full is None else self._full.links

    @property
    @override
    def resource(self) -> Resource:
        return self.origin.tracer.resource

    @property
    @override
    def instrumentation_scope(self) -> InstrumentationScope:
        return self.origin.scope

    @property
    @override
    def dropped_attributes(self) -> int:
        return 0 if self._full is None else self._full.dropped_attributes

    @property
    @override
    def dropped_events(self) -> int:
        return 0 if self._full is None else self._full.dropped_events

    @property
    @override
    def dropped_links(self) -> int:
        return 0 if self._full is None else self._full.dropped_links

    def __getattr__(self, name: str) -> Any:
        """Answer for the fields that the SDK's own code reads of its spans, such as ``to_json()`` does."""
        if name.startswith("__") or name in LeanSpan.__slots__:
            raise AttributeError(name)
        return getattr(self.full(), name)

    def __repr__(self) -> str:
        return f'LeanSpan(name="{self.name}", context={self.identity})'
