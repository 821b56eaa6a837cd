"""The SDK's tracing, as far as the lean spans look into it: the one module that knows its private names.

Everything here is looked at when an observer is chosen, and :func:`origin_of` refuses whatever is not just as it is
known to be; spans then take the public path.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, cast

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.environment_variables import OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, SynchronousMultiSpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import Span, SpanContext, TraceFlags, TraceState
from opentelemetry.trace.propagation import _SPAN_KEY as SPAN_KEY

from aetherflow.telemetry.tracing.lean import LeanSpan
from aetherflow.telemetry.tracing.lean_parts import Origin, Rest, Template, Trace

__all__ = [
    "SPAN_KEY",
    "Sampling",
    "attach",
    "current_span",
    "detach",
    "get_current",
    "is_as_expected",
    "is_random",
    "origin_of",
    "sampling_of",
    "span_context",
    "with_span",
]

_LOGGER: Final = logging.getLogger("aetherflow")
_LEAST_LIMIT: Final = 128
"""Limits from here up never meet what a lean span has by itself; it leaves all else to a span of the SDK."""


def _ways_of_contexts() -> tuple[
    Callable[[], Context], Callable[[Context], Token[Context]], Callable[[Token[Context]], object]
]:
    """Return the API's functions ``get_current``, ``attach`` and ``detach``, without their layers where that goes."""
    runtime = context_api._RUNTIME_CONTEXT
    variable = getattr(runtime, "_current_context", None)
    if type(runtime) is not ContextVarsRuntimeContext or not isinstance(variable, ContextVar):
        return context_api.get_current, context_api.attach, context_api.detach

    def leave(token: Token[Context]) -> None:
        try:
            variable.reset(token)
        except (ValueError, RuntimeError):  # left where it was not entered, of which the API tells
            context_api.detach(token)

    return variable.get, variable.set, leave


get_current, attach, detach = _ways_of_contexts()


def current_span(context: Context) -> Span:
    """Return the current span of a context: :func:`trace.get_current_span`, without its layers."""
    span = context.get(SPAN_KEY)
    return span if isinstance(span, Span) else trace.INVALID_SPAN


def with_span(span: Span, context: Context) -> Context:
    """Return a context with another current span: :func:`trace.set_span_in_context`, without its layers."""
    return Context({**context, SPAN_KEY: span})


def span_context(trace_id: int, span_id: int, flags: TraceFlags, state: TraceState) -> SpanContext:
    """Return the context of a local span with ids that are known to be valid."""
    return tuple.__new__(SpanContext, (trace_id, span_id, False, flags, state, True))


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a sampler is known to decide without being asked.

    Args:
        root: Decides on a root span by its trace id alone; None where the sampler has to be asked.
        below_sampled: Whether every child of a local sampled span is sampled.
        below_unsampled: Whether any child of a local unsampled span may be.
    """

    root: Callable[[int], bool] | None
    below_sampled: bool
    below_unsampled: bool


def sampling_of(sampler: Sampler) -> Sampling:
    """Return what is known of a sampler; of one that is not the SDK's own, nothing."""
    if isinstance(sampler, ParentBased) and type(sampler).should_sample is ParentBased.should_sample:
        return Sampling(
            root=_by_trace_id(sampler._root),
            below_sampled=sampler._local_parent_sampled is ALWAYS_ON,
            below_unsampled=sampler._local_parent_not_sampled is not ALWAYS_OFF,
        )
    always, never = sampler is ALWAYS_ON, sampler is ALWAYS_OFF
    return Sampling(root=_by_trace_id(sampler), below_sampled=always, below_unsampled=not never)


def _by_trace_id(sampler: Sampler) -> Callable[[int], bool] | None:
    if sampler is ALWAYS_ON:
        return always
    if sampler is ALWAYS_OFF:
        return _never
    if type(sampler) is TraceIdRatioBased:
        limit, bound = TraceIdRatioBased.TRACE_ID_LIMIT, sampler.bound
        return lambda trace_id: trace_id & limit < bound
    return None


def always(trace_id: int) -> bool:
    """Decide for every root, whatever its trace id."""
    return True


def _never(trace_id: int) -> bool:
    return False


def origin_of(
    provider: trace.TracerProvider, tracer: trace.Tracer, processors: Sequence[SpanProcessor]
) -> Origin | None:
    """Return where lean spans may come from in place of a tracer's own.

    Args:
        provider: The tracer's provider.
        tracer: The tracer.
        processors: The provider's processors.

    Returns:
        The origin, or None where spans must be made through the public API: for what is not the SDK's own, for limits
        or processors that a lean span cannot honour, or for an SDK that is not as it is known to be.
    """
    if type(provider) is not sdk.TracerProvider or type(tracer) is not sdk.Tracer or not is_as_expected():
        return None
    if not _can_be_honoured(provider, tracer) or not all(map(_looks_at_ends_only, processors)):
        return None
    return Origin(tracer, provider._span_limits, tracer._instrumentation_scope, processors)


def _can_be_honoured(provider: sdk.TracerProvider, tracer: sdk.Tracer) -> bool:
    limits = provider._span_limits
    return (
        isinstance(provider._active_span_processor, SynchronousMultiSpanProcessor)
        and tracer._is_enabled()
        and os.environ.get(OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED, "").strip().lower() != "true"
        and limits.max_span_attribute_length is None
        and all(
            most is None or most >= _LEAST_LIMIT
            for most in (limits.max_span_attributes, limits.max_links, limits.max_link_attributes)
        )
    )


_AT_START: Final = (SpanProcessor.on_start, BatchSpanProcessor.on_start, SimpleSpanProcessor.on_start)
_AT_ENDING: Final = tuple(
    getattr(each, "_on_ending", None) for each in (SpanProcessor, BatchSpanProcessor, SimpleSpanProcessor)
)


def _looks_at_ends_only(processor: SpanProcessor) -> bool:
    kind = type(processor)
    return kind.on_start in _AT_START and getattr(kind, "_on_ending", None) in _AT_ENDING


def is_random(ids: IdGenerator) -> bool:
    """Tell whether ids are the SDK's random ones, which need not be asked for."""
    return type(ids) is RandomIdGenerator


@lru_cache(maxsize=1)
def is_as_expected() -> bool:
    """Tell whether this SDK's private names are there and a lean span says what its own would; found out once."""
    try:
        _compare()
    except Exception:  # an SDK that is otherwise is no error: the public path is always there
        _LOGGER.info("this OpenTelemetry SDK is not as expected: spans take the public path", exc_info=True)
        return False
    return True


def _compare() -> None:
    provider = sdk.TracerProvider(ALWAYS_ON, Resource({}), shutdown_on_exit=False)
    tracer = cast("sdk.Tracer", provider.get_tracer("aetherflow.self-test", "1"))
    parent, attributes = SpanContext(1, 2, False, TraceFlags(1)), {"text": "t", "numbers": (1, 2)}
    before, context = trace.get_current_span(), trace.set_span_in_context(trace.NonRecordingSpan(parent))
    started = tracer.start_span("span", context, attributes=attributes, links=[trace.Link(parent)], start_time=1)
    theirs, identity = cast("sdk.Span", started), started.get_span_context()
    origin = Origin(tracer, provider._span_limits, tracer._instrumentation_scope, ())
    template = Template("span", trace.SpanKind.INTERNAL, attributes)
    shared = Trace(origin, identity.trace_id, identity.trace_flags, identity.trace_state, 0)
    ours = LeanSpan(shared, parent, template, None, identity.span_id, 1, rest=Rest(links=[parent]))
    for span in (theirs, ours):
        span.set_attribute("late", True)
        span.end(3)
    token = attach(context)
    entered, left = trace.get_current_span(), (detach(token), trace.get_current_span())[1]
    copied = span_context(identity.trace_id, identity.span_id, identity.trace_flags, identity.trace_state)
    expected: tuple[tuple[object, object], ...] = (
        (ours.to_json(), theirs.to_json()),
        (ours.attributes, theirs.attributes),
        (copied, identity),
        (with_span(theirs, context), trace.set_span_in_context(theirs, context)),
        (current_span(context), trace.get_current_span(context)),
        ((entered, left, get_current()), (trace.get_current_span(context), before, context_api.get_current())),
        (sampling_of(ParentBased(ALWAYS_ON)), Sampling(root=always, below_sampled=True, below_unsampled=False)),
        (provider._active_span_processor._span_processors, ()),
    )
    for found, wanted in expected:
        if found != wanted:
            raise AssertionError(f"found {found!r} where the SDK has {wanted!r}")
