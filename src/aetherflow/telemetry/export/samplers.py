"""What keeps to the sampling policies: a limit of spans a second, and only the runs that somebody will look at.

Metrics are exact under all of them: durations are kept whether or not an execution has a span.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, StatusCode, TraceState, get_current_span
from opentelemetry.util.types import Attributes
from typing_extensions import override

from aetherflow.telemetry.export.ledger import SpanLedger
from aetherflow.telemetry.export.pipeline import SpanPipeline
from aetherflow.telemetry.export.sampling_policy import KeepErrorsAndSlow, RateLimit
from aetherflow.telemetry.forks import renew_in_children
from aetherflow.telemetry.tracing.lean import LeanSpan

__all__ = ["TailFilter", "TailStatistics", "rate_limited"]

_REMEMBERED: Final = 4096
"""Traces whose decision is remembered for spans that end after the run did."""


def rate_limited(limit: RateLimit, spent: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> Sampler:
    """Return a sampler that keeps to a limit.

    Args:
        limit: The limit.
        spent: Tells how many spans there have been so far.
        clock: Seconds, going forward.
    """
    return ParentBased(_RateLimited(limit, spent, clock))


class _RateLimited(Sampler):
    def __init__(self, limit: RateLimit, spent: Callable[[], int], clock: Callable[[], float]) -> None:
        self._limit = limit
        self._spent = spent
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens = limit.spans_per_second * limit.burst
        self._seen = spent()
        self._at = clock()
        renew_in_children(self)

    def after_fork(self) -> None:
        """Begin in a child with what the parent had left, and none of its spans."""
        self._lock = threading.Lock()
        self._seen = self._spent()

    @override
    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        state = get_current_span(parent_context).get_span_context().trace_state
        if self._admits():
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, state)
        return SamplingResult(Decision.DROP, None, state)

    def _admits(self) -> bool:
        limit = self._limit
        with self._lock:
            now, spent = self._clock(), self._spent()
            earned = (now - self._at) * limit.spans_per_second
            tokens = min(self._tokens - (spent - self._seen) + earned, limit.spans_per_second * limit.burst)
            self._tokens, self._seen, self._at = tokens, spent, now
            return tokens > 0

    @override
    def get_description(self) -> str:
        return f"RateLimit{{{self._limit.spans_per_second:g}/s}}"


@dataclass(frozen=True, slots=True)
class TailStatistics:
    """What has become of the spans that a :class:`TailFilter` was given.

    Args:
        kept: Spans handed on.
        discarded: Spans of runs that nobody will look at.
        overflowed: Spans among those whose run was decided on early, since too many were waiting.
        waiting: Spans whose run has not ended.
    """

    kept: int
    discarded: int
    overflowed: int
    waiting: int


class _Trace:
    """The spans of a trace that wait for its end."""

    __slots__ = ("has_error", "spans")

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self.has_error = False


class TailFilter(SpanProcessor):
    """Hands on the spans of runs that are to be kept, when they have ended.

    Args:
        policy: What is to be kept.
        pipeline: What the spans are handed on to.
    """

    def __init__(self, policy: KeepErrorsAndSlow, pipeline: SpanPipeline) -> None:
        self._policy = policy
        self._pipeline = pipeline
        self._slow = policy.slower_than * 1e9
        self._bound = TraceIdRatioBased.get_bound_for_rate(policy.ratio)
        self._begin()
        renew_in_children(self)

    def _begin(self) -> None:
        """Begin with nothing."""
        self._waiting: OrderedDict[int, _Trace] = OrderedDict()
        self._decided: OrderedDict[int, bool] = OrderedDict()
        self._lock = threading.Lock()
        self._kept = self._discarded = self._overflowed = self._count = 0

    def after_fork(self) -> None:
        """Leave to the parent what waits there."""
        self._begin()

    def statistics(self) -> TailStatistics:
        """Return what has become of the spans so far."""
        with self._lock:
            return TailStatistics(self._kept, self._discarded, self._overflowed, self._count)

    @override
    def on_end(self, span: ReadableSpan) -> None:
        """Take a span that has ended."""
        if span.context is not None and span.context.trace_flags.sampled:
            self.push(span)

    def push(self, span: ReadableSpan) -> None:
        """Take a sampled span that has ended."""
        of = span.trace if isinstance(span, LeanSpan) else span.get_span_context()
        trace_id = of.trace_id  # type: ignore[union-attr]  # a span that has ended has a context
        parent = span.parent
        with self._lock:
            decided = self._decided.get(trace_id)
            if decided is None:
                ready = self._add(span, trace_id, is_root=parent is None or parent.is_remote)
            else:
                ready = [span] if decided else []
                self._kept += len(ready)
                self._discarded += not decided
        for each in ready:
            self._pipeline.push(each)

    def _add(self, span: ReadableSpan, trace_id: int, *, is_root: bool) -> list[ReadableSpan]:
        """Let a span wait; return those that wait no longer and are kept."""
        trace = self._waiting.get(trace_id)
        if trace is None:
            trace = self._waiting[trace_id] = _Trace()
        trace.spans.append(span)
        self._count += 1
        if span.status.status_code is StatusCode.ERROR:
            trace.has_error = True
        if is_root:
            is_slow = (span.end_time or 0) - (span.start_time or 0) >= self._slow
            return self._decide(trace_id, is_slow=is_slow)
        if self._count > self._policy.max_spans:
            oldest = next(iter(self._waiting))
            before = self._discarded
            kept = self._decide(oldest, is_slow=False)
            self._overflowed += self._discarded - before
            return kept
        return []

    def _decide(self, trace_id: int, *, is_slow: bool) -> list[ReadableSpan]:
        trace = self._waiting.pop(trace_id)
        keep = is_slow or trace.has_error or trace_id & TraceIdRatioBased.TRACE_ID_LIMIT < self._bound
        self._decided[trace_id] = keep
        if len(self._decided) > _REMEMBERED:
            self._decided.popitem(last=False)
        self._count -= len(trace.spans)
        if keep:
            self._kept += len(trace.spans)
            return trace.spans
        self._discarded += len(trace.spans)
        return []

    def ledger(self) -> SpanLedger:
        """Return what became of the spans that were handed on."""
        return self._pipeline.ledger()

    def close(self, timeout: float) -> bool:
        """Decide on what still waits, and close the pipeline; the argument and the result are the pipeline's."""
        with self._lock:
            ready = [span for trace_id in tuple(self._waiting) for span in self._decide(trace_id, is_slow=False)]
        for each in ready:
            self._pipeline.push(each)
        return self._pipeline.close(timeout)

    @override
    def shutdown(self) -> None:
        """Do as :meth:`close`, with the time limit that OpenTelemetry gives a processor."""
        self.close(30.0)

    @override
    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the pipeline; runs that have not ended go on waiting."""
        return self._pipeline.force_flush(timeout_millis)
