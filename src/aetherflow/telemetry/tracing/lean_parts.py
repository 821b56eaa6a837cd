"""What lean spans are made of: what never changes, what a trace shares, and what few of them have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.util.types import AttributeValue

__all__ = ["Origin", "Rest", "Template", "Trace"]


class Template:
    """What is the same in every span of one place; what encoders make of it is kept here too.

    Args:
        name: Their name.
        kind: What they are to their parent and children.
        attributes: Their constant attributes.
    """

    __slots__ = ("attributes", "json", "kind", "name", "wire")

    def __init__(self, name: str, kind: SpanKind, attributes: Mapping[str, AttributeValue]) -> None:
        self.name = name
        self.kind = kind
        self.attributes = dict(attributes)
        self.wire: bytes | None = None
        self.json: str | None = None


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
        self.sink: Callable[[ReadableSpan], object] = self._each
        if len(self.processors) == 1:
            (only,) = self.processors
            self.sink = getattr(only, "push", only.on_end) if sampled else only.on_end

    @property
    def unsampled(self) -> Origin:
        """The same for spans that are recorded and yet not sampled."""
        return Origin(self.tracer, self.limits, self.scope, self.processors, sampled=False)

    def _each(self, span: ReadableSpan) -> None:
        for processor in self.processors:
            processor.on_end(span)


class Trace:
    """What the spans of one trace have in common in this process; what encoders make of it is kept here too.

    Args:
        origin: Where they come from.
        trace_id: Their trace.
        flags: The flags of their contexts.
        state: The state of their contexts.
        offset: What the performance counter is behind the time of day. All spans of a trace in this process share one,
            so that no step of the system's clock puts a child outside its parent.
    """

    __slots__ = ("flags", "json", "offset", "origin", "state", "trace_id", "wire")

    def __init__(self, origin: Origin, trace_id: int, flags: TraceFlags, state: TraceState, offset: int) -> None:
        self.origin = origin
        self.trace_id = trace_id
        self.flags = flags
        self.state = state
        self.offset = offset
        self.wire: bytes | None = None
        self.json: tuple[str, str] | None = None


class Rest:
    """What few spans have.

    Args:
        extra: Attributes of a span's own, known from the beginning.
        links: What it follows from.
    """

    __slots__ = ("extra", "full", "late", "links")

    def __init__(self, extra: Mapping[str, AttributeValue] | None = None, links: Sequence[SpanContext] = ()) -> None:
        self.extra = extra
        self.links = links
        self.late: dict[str, AttributeValue] = {}
        self.full: sdk.Span | None = None
