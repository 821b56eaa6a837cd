"""One execution under observation, and the place where it happens.

A :class:`Site` carries all that never changes about a place where executions are observed, and an
:class:`Observation` is one execution under way: here without a span, its duration only.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from types import TracebackType
from typing import Any, ClassVar, Final, Protocol, Self, TypeVar

from opentelemetry import trace
from opentelemetry.context import Context, get_current
from opentelemetry.trace import SpanContext, SpanKind

from aetherflow.errors import NodeTimeoutError
from aetherflow.telemetry import active
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.conventions import ExecutionKind, MetricDefinition, NodeResult
from aetherflow.telemetry.metrics.accumulators import FOLD_AT, Series, registry, unkept
from aetherflow.telemetry.profiling.policy import ProfilePolicy
from aetherflow.user_exceptions import add_note, attributes_of, is_error, is_expected

__all__ = ["ExecutionDetails", "Lane", "Observation", "Observer", "Site", "ThreadFacts", "add", "add_all"]
__all__ += ["current_details", "error_type", "executing_here", "is_marked_expected", "keep", "mark_handled"]
__all__ += ["new_run_id", "offer", "thread_facts"]

_now = time.perf_counter_ns
_local = threading.local()
E = TypeVar("E", bound=BaseException)
T = TypeVar("T")


class ThreadFacts:
    """The attributes that tell a thread, made once a thread; what encoders make of them, once as well."""

    __slots__ = ("attributes", "json", "wire")

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        self.attributes = attributes
        self.wire: bytes | None = None
        self.json: str | None = None


def thread_facts() -> ThreadFacts:
    """Return ``thread.id`` and ``thread.name`` of the calling thread."""
    try:
        found: ThreadFacts = _local.facts
    except AttributeError:
        thread = threading.current_thread()
        found = _local.facts = ThreadFacts({names.THREAD_ID: thread.ident, names.THREAD_NAME: thread.name})
    return found


def error_type(error: BaseException) -> str:
    """Return the qualified class name of an error, without the module for builtins."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def new_run_id() -> str:
    """Return a random identifier of a run, 16 hexadecimal digits, not all of them 0."""
    return f"{random.getrandbits(64) or 1:016x}"


def mark_handled(error: E, causes: Sequence[BaseException]) -> E:
    """Mark an error as a combination of errors that are recorded already, so that no span records it again.

    If all of these errors were expected, the error is expected, too.
    """
    marks = [attributes_of(cause) for cause in causes]
    traces = [mark[_MARK] for mark in marks if _MARK in mark]
    if traces:
        attributes_of(error)[_MARK] = traces[0]
    if marks and all(mark.get(_EXPECTED) for mark in marks):
        attributes_of(error)[_EXPECTED] = True
    return error


def is_marked_expected(error: BaseException) -> bool:
    """Return whether the last node that an exception left expected it."""
    return _EXPECTED in attributes_of(error)


def executing_here(function: Callable[[], T]) -> T:
    """Call a function on a thread other than the one its span began on, and say so on the span."""
    span = trace.get_current_span()
    if span.is_recording():
        span.set_attributes(thread_facts().attributes)
    moved = active.moved.get()
    return function() if moved is None else moved(function)


class ExecutionDetails:
    """Details of an execution that only the execution itself can report; a context manager around it.

    Attributes:
        site: The node.
        kind: The execution's kind; None if it was computed at its first attempt.
        cache_hit: Whether the result was taken from the cache; None if no cache was asked.
        retry_wait: Nanoseconds between its attempts, in total.
    """

    __slots__ = ("_token", "cache_hit", "kind", "retry_wait", "site")

    def __init__(self, site: Site) -> None:
        self.site = site
        self.kind: ExecutionKind | None = None
        self.cache_hit: bool | None = None
        self.retry_wait = 0

    def __enter__(self) -> Self:
        self._token = current_details.set(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        with suppress(ValueError):  # closed in another context, which has nothing to be reset
            current_details.reset(self._token)


current_details: Final[ContextVar[ExecutionDetails | None]] = ContextVar("aetherflow_details", default=None)
"""The details of the execution that the current code is part of."""


class Site:
    """What never changes about one place where executions are observed.

    Args:
        span_name: Name of its spans.
        metric: The duration metric of its executions.
        metric_attributes: That metric's attributes.
        attributes: Constant attributes of its spans, given at their creation.
        label: How a note on an error names this place; empty where no note is wanted.
        is_node: Whether executions are those of a node, which tell their thread and record their exception; else
            they are runs of a flow.
        kind: What its spans are to their parent and children.
        is_kept: Whether this process keeps the durations; False where another one does.
        profile: Which executions are profiled; None for what is in force for all nodes.
        error_note: A note for exceptions that executions raise; empty for none.
        expected: Classes of exceptions that are no failures of the node.
        has_details: Whether executions report details: those of nodes with a cache or retries.
        is_stage: Whether it is a stage without a function of the user, which takes over what its nodes expect.
    """

    __slots__ = (
        "_series",
        "attributes",
        "error_note",
        "expected",
        "has_details",
        "is_kept",
        "is_node",
        "is_stage",
        "kind",
        "label",
        "metric",
        "metric_attributes",
        "profile",
        "series",
        "span_name",
        "template",
    )

    def __init__(
        self,
        span_name: str,
        metric: MetricDefinition,
        metric_attributes: Mapping[str, str],
        attributes: Mapping[str, Any],
        *,
        label: str = "",
        is_node: bool = True,
        kind: SpanKind = SpanKind.INTERNAL,
        is_kept: bool = True,
        profile: ProfilePolicy | None = None,
        error_note: str = "",
        expected: tuple[type[Exception], ...] = (),
        has_details: bool = False,
        is_stage: bool = False,
    ) -> None:
        self.span_name = span_name
        self.metric = metric
        self.metric_attributes = dict(metric_attributes)
        self.attributes = dict(attributes)
        self.label = label
        self.is_node = is_node
        self.kind = kind
        self.is_kept = is_kept
        self.profile = profile
        self.error_note = error_note
        self.expected = expected
        self.has_details = has_details
        self.is_stage = is_stage
        self.template: Any = None  # what the observer in use keeps here of its spans
        self.series = self.series_of(metric)
        self._series: dict[tuple[str, ExecutionKind | None], Series] = {}

    def result_of(self, error: BaseException) -> NodeResult:
        """Return the result of an execution that an error ended.

        A run takes over the result of its last node.
        """
        if self._is_expected(error):
            return "expected"
        if is_error(error, NodeTimeoutError):
            return "timeout"
        # A subclass of both is a cancellation: asyncio treats it as one.
        return "failure" if is_error(error, Exception) and not is_error(error, _CANCELLED) else "cancellation"

    def _is_expected(self, error: BaseException) -> bool:
        return is_expected(error, self.expected) if self.is_node and not self.is_stage else is_marked_expected(error)

    def series_for(self, error: BaseException | None, kind: ExecutionKind | None = None) -> Series:
        """Return the series for the duration of an execution.

        Args:
            error: The error that ended it; None for none.
            kind: Its kind.
        """
        type_name = "" if error is None or self.result_of(error) not in _FAILURES else error_type(error)
        if not type_name and kind is None:
            return self.series
        series = self._series.get((type_name, kind))
        if series is None:
            attributes = {names.ERROR_TYPE: type_name} if type_name else {}
            if kind is not None:
                attributes[names.EXECUTION_KIND] = kind
            series = self._series[type_name, kind] = self.series_of(self.metric, attributes)
        return series

    def series_of(self, metric: MetricDefinition, more: Mapping[str, str] | None = None) -> Series:
        """Return the series of a metric with this place's attributes, and more of them."""
        attributes = {**self.metric_attributes, **(more or {})}
        return (registry if self.is_kept else unkept).series(metric, attributes)


class Observation:
    """One execution under way, without a span: its duration only."""

    __slots__ = ("_details", "_site", "_started", "_token")

    _details: ExecutionDetails

    context: SpanContext | None = None
    """The context of its span, for links; None without one."""

    sampled_out: ClassVar[bool] = False
    """Whether it has no span because a sampler said so, and nothing below it will have one either."""

    def __init__(self, site: Site, started: int | None = None) -> None:
        self._site = site
        self._started = _now() if started is None else started

    def __enter__(self) -> Self:
        """Make the execution's span the current one until the block ends, and the observation with it."""
        self._token = self.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.end(error)
        finally:
            self.leave(self._token)

    def enter(self) -> object:
        """Make the execution's span the current one; give the result to :meth:`leave`."""
        return None

    def leave(self, token: object) -> None:
        """Make the span current no longer."""

    def set(self, attributes: Mapping[str, Any]) -> None:
        """Set attributes that only the execution itself could tell."""

    def report(self, details: ExecutionDetails) -> None:
        """Set the details of an execution, which are reported when it ends."""
        self._details = details

    def end(self, error: BaseException | None = None) -> None:
        """Record how long the execution took and how it ended; call it while the span is current."""
        self._keep(error)
        if error is not None:
            self.blame(error)

    def _keep(self, error: BaseException | None) -> tuple[Series, int]:
        """Keep the duration; return what it was kept in, and itself, in nanoseconds."""
        duration, site = _now() - self._started, self._site
        if site.has_details:
            details = self.details
            series = site.series_for(error, None if details is None else details.kind)
        else:
            series = site.series if error is None else site.series_for(error)
        add(series, duration)
        return series, duration

    @property
    def details(self) -> ExecutionDetails | None:
        """The details that the execution reports; None for an execution that reports none."""
        return getattr(self, "_details", None)

    def end_apart(self, error: BaseException | None) -> None:
        """End the observation from where its span is not current."""
        self.__enter__()
        self.__exit__(None, error, None)

    def blame(self, error: BaseException, trace_id: str = "") -> bool:
        """Mark an error with the node that raised it; tell whether this is that node."""
        site = self._site
        if not is_error(error, Exception):
            return False
        marks = attributes_of(error)
        if site._is_expected(error):
            marks[_EXPECTED] = True
            return False
        if site.is_node:
            marks.pop(_EXPECTED, None)
        if site.error_note:
            add_note(error, site.error_note)
        if not site.label or marks.get(_MARK) == trace_id:
            return False
        is_first = _MARK not in marks
        marks[_MARK] = trace_id
        if is_first:
            note = f"aetherflow: raised by {site.label}" + (f", trace {trace_id}" if trace_id else "")
            add_note(error, note, is_new=True)
        return True


_FAILURES: Final = ("failure", "timeout")
_MARK: Final = "__aetherflow_trace__"
_EXPECTED: Final = "__aetherflow_expected__"
_CANCELLED: Final = asyncio.CancelledError


def add(series: Series, duration: int) -> None:
    """Keep a duration, in nanoseconds; fold where many are pending."""
    series.add(duration)
    if len(series.pending) > FOLD_AT:
        series.relieve()


def add_all(series: Series, values: Sequence[int]) -> None:
    """Do what `add` does with many values."""
    series.pending.extend(values)
    if len(series.pending) > FOLD_AT:
        series.relieve()


def offer(series: Series, value: int, context: Context | None = None) -> None:
    """Have a value stand for the others of its series until the next fold, if its trace is sampled and it is the most.

    Args:
        series: Where the value was recorded.
        value: The value.
        context: Where its span is current; None for here.
    """
    kept = series.exemplar
    if (kept is None or value > kept[0]) and trace.get_current_span(context).get_span_context().trace_flags.sampled:
        series.exemplar = (value, get_current() if context is None else context, time.time_ns())


def keep(series: Series, duration: int, context: Context | None = None) -> None:
    """Keep the duration of an execution with a sampled span, and have it stand for the others if it is the longest.

    Args:
        series: Where it belongs.
        duration: Nanoseconds.
        context: Where the span is current; None for here.
    """
    series.add(duration)
    if len(series.pending) > FOLD_AT:
        series.relieve()
    if (kept := series.exemplar) is None or duration > kept[0]:
        offer(series, duration, context)


class Lane(Protocol):
    """Begins the spans of a run whose nodes follow each other on one thread, that of the run first.

    The span of a node is the current one until the next begins; what was current before the run comes back with its
    end. The nodes' durations the caller keeps.
    """

    @property
    def context(self) -> SpanContext:
        """The context of the run's span."""
        ...

    def begin(self, site: Site, now: int) -> Any:
        """Begin a node's span at a reading of the performance counter; its ``finish(now)`` ends it."""
        ...

    def fail(self, site: Site, span: Any, started: int, error: BaseException) -> None:
        """End a node's span with an error, and keep its duration."""
        ...

    def end(self, error: BaseException | None = None) -> None:
        """End the run, and keep its duration."""
        ...


class Observer(Protocol):
    """What stands between the engine and telemetry."""

    tracing: bool
    """Whether executions have spans."""
    idle: bool
    """Whether nothing but durations is kept."""
    tracer: trace.Tracer | None
    """What makes the spans; None where executions have none."""

    @property
    def metering(self) -> Observer:
        """What observes executions below one that was sampled out."""
        ...

    def begin_run(self, site: Site, run_id: str | None = None) -> Observation:
        """Start observing a run.

        Args:
            site: The flow, or the node that is a run by itself.
            run_id: The run's identifier; None for a new one.
        """
        ...

    def lane(self, site: Site, run_id: str | None = None) -> Lane | None:
        """Begin a run of a straight chain, and return what begins the spans of its nodes; arguments as for a run.

        Returns:
            None where :meth:`begin_run` and :meth:`begin` have to, and nothing has begun.
        """
        ...

    def begin(
        self,
        site: Site,
        extra: Mapping[str, Any] | None = None,
        links: Sequence[SpanContext] = (),
        parent: Context | None = None,
    ) -> Observation:
        """Start observing an execution.

        Args:
            site: Where it happens.
            extra: Attributes of this execution alone.
            links: Spans that it follows from.
            parent: The context it happens in; None for the current one.
        """
        ...

    def measure(self, site: Site) -> Observation:
        """Start observing an operation, which has no span of its own."""
        ...

    def keep(self, series: Series, value: int, context: Context | None = None) -> None:
        """Keep a value that was measured elsewhere.

        Args:
            series: Where it belongs.
            value: Nanoseconds; for a metric in another unit than the second, a number of that.
            context: Where the span is current that it belongs to; None for the current context.
        """
        ...

    def keep_all(self, series: Series, values: Sequence[int]) -> None:
        """Do what :meth:`keep` does with many values that belong to the current context, at least one."""
        ...
