"""The sender's side: an execution becomes an envelope, and the report on it a result, a span and a duration."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, NoReturn

from dependency_injector import providers
from opentelemetry.context import attach, detach, get_current
from opentelemetry.semconv.attributes.exception_attributes import EXCEPTION_TYPE
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    get_current_span,
    set_span_in_context,
)

from aetherflow.engine.backends.base import backend
from aetherflow.engine.backends.envelope import (
    Envelope,
    Reference,
    Report,
    context_reference,
    pack,
    pickled,
    process_id,
    task_reference,
)
from aetherflow.engine.backends.errors import (
    NotImportableError,
    NotUnpicklableError,
    RemoteError,
    WorkerLostError,
    load_error,
    unpickled,
)
from aetherflow.engine.plan import CallOp, Slots
from aetherflow.engine.pool import lent_thread
from aetherflow.errors import ConfigurationError
from aetherflow.resources.context import context_class
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry import shield
from aetherflow.telemetry.conventions import ExecutionKind, NodeResult
from aetherflow.telemetry.export.relay import Relayed, SpanData, replay
from aetherflow.telemetry.metrics.accumulators import registry
from aetherflow.telemetry.observation import Observation, Observer, error_type, is_marked_expected
from aetherflow.telemetry.profiling.observer import due_policy
from aetherflow.telemetry.propagation import inject_context
from aetherflow.user_exceptions import is_error, summary_of

__all__ = ["Submission"]

LARGE: Final = 1 << 16
"""Bytes of a report from which on it is unpickled off the event loop."""

_METRICS: Final = {metric.name: metric for metric in names.ALL_METRICS}


class Submission:
    """One execution on a worker: :meth:`wait` for its result, or await :meth:`arrival`.

    Args:
        observer: What observes it.
        op: The node.
        slots: The run's slots.
        extra: Attributes of this execution alone.
        links: Spans that it follows from.
    """

    __slots__ = ("_attributes", "_future", "_links", "_observer", "_op", "_parent", "_slots", "_started")

    def __init__(
        self,
        observer: Observer,
        op: CallOp,
        slots: Slots,
        extra: Mapping[str, Any] | None,
        links: Sequence[SpanContext],
    ) -> None:
        self._observer = observer
        self._op = op
        self._slots = slots
        self._attributes = {**op.site.attributes, **(extra or {})}
        self._links = links
        self._parent = get_current()
        self._started = time.time_ns()
        self._future: Future[bytes] | None = None

    def wait(self) -> Any:
        """Send the execution and return its result; blocks until it is there."""
        future = self._send()
        try:
            with lent_thread():
                payload = future.result()
        except BaseException as error:  # noqa: BLE001  # raised again
            self._give_up(error)
        return self._arrived(payload)

    async def arrival(self, off_loop: Callable[..., Awaitable[Any]]) -> Any:
        """Send the execution and return its result.

        Args:
            off_loop: Awaits a call on a thread, where what would block the event loop is done.
        """
        try:
            await off_loop(self._send)
        except asyncio.CancelledError as error:
            self._give_up(error)
        assert self._future is not None  # it was sent
        try:
            payload = await asyncio.wrap_future(self._future)
        except BaseException as error:  # noqa: BLE001  # raised again
            self._give_up(error)
        return await off_loop(self._arrived, payload) if len(payload) > LARGE else self._arrived(payload)

    # --- there ---------------------------------------------------------------------------------------------

    def _send(self) -> Future[bytes]:
        tracer, op = self._observer.tracer, self._op
        if tracer is None:
            return self._sent()
        attributes = {names.FLOW_NAME: op.site.attributes[names.FLOW_NAME], names.EXECUTOR_NAME: str(op.executor)}
        name = names.SUBMIT_SPAN.format(node=op.task.name)
        span = tracer.start_span(name, self._parent, SpanKind.PRODUCER, attributes)
        self._parent = set_span_in_context(span, self._parent)
        token = attach(self._parent)
        try:
            return self._sent()
        except Exception as error:
            _record_failure(span, error)
            self._blame(error)
            raise
        finally:
            detach(token)
            span.end()

    def _sent(self) -> Future[bytes]:
        op, slots = self._op, self._slots
        function, owner = task_reference(op.task)
        args, kwargs = op.arguments(slots)
        envelope = Envelope(
            node=op.task.name,
            function=function,
            arguments=pack(op.task, (*owner, *args), kwargs),
            injected=tuple(name for name, _ in op.injected),
            context=_context_for(op, slots),
            attributes=self._attributes,
            label=op.site.label,
            links=tuple(self._links),
            carrier=inject_context(self._parent),
            wants_spans=self._observer.tracing,
            sender=process_id(),
            executor=str(op.executor),
            profile=due_policy(self._observer, op.site),
            error_note=op.site.error_note,
            expected=pickled(op.task.expected, op.task.name, "expected=") if op.task.expected else b"",
            has_details=op.site.has_details,
        )
        self._future = backend(envelope.executor).submit(pickle.dumps(envelope, pickle.HIGHEST_PROTOCOL))
        return self._future

    def _blame(self, error: BaseException) -> None:
        """Mark an error as recorded, so that no span above records it again."""
        context = get_current_span(self._parent).get_span_context()
        is_traced = context.is_valid and self._observer.tracing
        Observation(self._op.site).blame(error, f"{context.trace_id:032x}" if is_traced else "")

    # --- and back ------------------------------------------------------------------------------------------

    def _arrived(self, payload: bytes) -> Any:
        """Emit what the worker reports and return the result, or raise the error that it reports."""
        node = self._op.task.name
        report: Report | None = None
        value: Any = None
        error: BaseException | None = None
        try:
            report = unpickled(partial(pickle.loads, payload), node, "the report of the worker")
            assert report is not None  # narrows the type: a worker sends nothing else
            if report.error is not None:
                error = load_error(report.error)
                if report.is_unread:
                    error = NotUnpicklableError(node, "the execution request", error)
            else:
                assert report.value is not None  # a report has one of both
                value = unpickled(partial(pickle.loads, report.value), node, "the result")
        except BaseException as exception:  # noqa: BLE001  # raised below, once the spans have it
            error = exception
        if error is None:
            assert report is not None  # else there is an error
            assert report.duration is not None  # as above
            self._keep(report.relayed, report.duration, None, report.span, report.kind)
            return value
        self._keep_failed(report, error)
        raise error

    def _keep_failed(self, report: Report | None, error: BaseException) -> None:
        """Emit an execution that failed on the worker, or whose report, result or error cannot be unpickled."""
        if report is None or report.duration is None:
            self._keep_lost(error)
            return
        if report.relayed.spans:
            _mark_failed(report.relayed.spans[0], self._result_of(error), error)
        elif report.error is None and report.span is not None:  # the worker has emitted its span, without an error
            self._keep_lost(error, (report.span,), report.duration)
            return
        if is_error(error, Exception) and not _is_expected_stand_in(error):
            self._blame(error)
        self._keep(report.relayed, report.duration, error, report.span, report.kind)

    def _give_up(self, error: BaseException) -> NoReturn:
        """Emit that the execution ended without a report, and raise why.

        Args:
            error: What ended the wait: whatever the backend says, or an interruption, which begins no more.
        """
        future = self._future
        if future is not None and (is_error(error, Exception) or _was_taken_away(future, error)):
            failure = WorkerLostError(self._op.task.name, str(self._op.executor), summary_of(error))
            self._keep_lost(failure)
            raise failure from error
        if future is not None and not backend(str(self._op.executor)).cancel(future):
            self._keep_lost(error)
        raise error

    def _keep_lost(self, error: BaseException, links: Sequence[SpanContext] = (), duration: int | None = None) -> None:
        """Emit a span, from the submission until now, for an execution of which nothing else is known.

        Args:
            error: The error that ended the execution.
            links: More spans that this one follows from.
            duration: The execution's duration; None if it is not known either.
        """
        span = SpanData(self._op.task.name, SpanKind.CONSUMER, self._started, ended=time.time_ns())
        span.attributes = dict(self._attributes)
        span.links = [*self._links, *links]
        _mark_failed(span, self._result_of(error), error)
        if is_error(error, Exception):
            self._blame(error)
        self._keep(Relayed((span,)), time.time_ns() - self._started if duration is None else duration, error, None)

    def _result_of(self, error: BaseException) -> NodeResult:
        """Return the result of the execution."""
        return "expected" if _is_expected_stand_in(error) else self._op.site.result_of(error)

    def _keep(
        self,
        relayed: Relayed,
        duration: int,
        error: BaseException | None,
        span: SpanContext | None,
        kind: ExecutionKind | None = None,
    ) -> None:
        op, observer, context = self._op, self._observer, self._parent
        try:
            if observer.tracer is not None and relayed.spans:
                span = replay(relayed, observer.tracer, self._parent)[0]
            if span is not None:
                context = set_span_in_context(NonRecordingSpan(span), context)
            if op.span_slot is not None:
                self._slots[op.span_slot] = span
            is_expected = error is not None and self._result_of(error) == "expected"
            observer.keep(op.site.series_for(None if is_expected else error, kind), duration, context)
            for name, attributes, amount in relayed.amounts:
                metric = _METRICS[name]
                observer.keep(registry.series(metric, attributes), round(amount * metric.ticks), context)
        except Exception as failure:  # noqa: BLE001  # rule 3: telemetry never breaks the host
            shield.caught(failure, "emitting what a worker has reported")


def _record_failure(span: Span, error: BaseException) -> None:
    """Record the exception that ended a span: its status, error type and event."""
    span.set_attribute(names.ERROR_TYPE, error_type(error))
    span.set_status(StatusCode.ERROR, summary_of(error))
    try:
        span.record_exception(error)
    except Exception:  # noqa: BLE001  # recording runs code of the exception, such as its __str__
        span.add_event("exception", {EXCEPTION_TYPE: error_type(error)})


def _is_expected_stand_in(error: BaseException) -> bool:
    """Return whether an error stands for an exception that cannot be sent, and that the node expected."""
    return type(error) is RemoteError and is_marked_expected(error)


def _mark_failed(span: SpanData, result: NodeResult, error: BaseException) -> None:
    """Record an exception in the data of a node's span: its result, and the status and event if they are missing."""
    span.attributes[names.NODE_RESULT] = result
    if result == "expected":
        span.attributes.setdefault(names.EXPECTED_TYPE, error_type(error))
    if result in ("cancellation", "expected") or (span.status is not None and span.status[0] is StatusCode.ERROR):
        return
    span.attributes[names.ERROR_TYPE] = error_type(error)
    span.status = (StatusCode.ERROR, summary_of(error))
    span.record_exception(error, at=span.ended)


def _was_taken_away(future: Future[bytes], error: BaseException) -> bool:
    """Tell whether an awaited future was cancelled by its backend, rather than the task that awaits it."""
    if not is_error(error, asyncio.CancelledError) or not future.cancelled():
        return False
    task = asyncio.current_task()
    return task is None or task.cancelling() == 0


def _context_for(op: CallOp, slots: Slots) -> tuple[Reference, bytes] | None:
    """Return how a worker builds the context to inject from, and what it has to be configured with."""
    if op.container is None:
        return None
    for name, slot in op.injected:
        if slots[slot].last_overriding is not None:
            raise ConfigurationError(
                f"node {op.task.name!r}: the provider of parameter {name!r} is overridden, which does not reach the "
                f"context that a worker builds; run the node with executor='thread', or override it in a subclass"
            )
    container = slots[op.container]()
    kind = context_class(container)
    if not isinstance(kind, type):
        reason = "it has no class of its own; subclass BaseFlowContext"
        raise NotImportableError(op.task.name, f"its context {container!r}", reason)
    values = {
        name: value
        for name, provider in container.providers.items()
        if isinstance(provider, providers.Configuration) and isinstance(value := provider(), dict)
    }
    return context_reference(kind, op.task.name), pickled(values, op.task.name, "the configuration of its context")
