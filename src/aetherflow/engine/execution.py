"""One execution of a node, with its span current."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from opentelemetry.context import Context, get_current
from opentelemetry.trace import SpanContext

from aetherflow.engine.feeds import feed_of
from aetherflow.engine.loops import Home
from aetherflow.engine.plan import PARTITION, UNSET, CallOp, ChunkedOp, Slots
from aetherflow.engine.streaming import Stream
from aetherflow.engine.under_way import begin_apart, end_apart, shows_node
from aetherflow.telemetry.conventions import NODE_UPSTREAM
from aetherflow.telemetry.observation import Observation, Observer

__all__ = ["begun", "contexts", "links", "observed", "observed_alone", "observed_async", "opened", "told"]


@shows_node
def observed(observer: Observer, op: CallOp, slots: Slots) -> Any:
    """Execute a synchronous node with its span current."""
    with begun(observer, op, slots):
        return op.invoke(slots)


@shows_node
def observed_alone(observer: Observer, op: CallOp, slots: Slots) -> Any:
    """Execute a synchronous node that is a run by itself, with its span current."""
    invoke = op.invoke  # a variable, since CPython calls what an attribute holds more slowly
    with observer.begin_run(op.site):
        return invoke(slots)


async def observed_async(observer: Observer, op: CallOp, slots: Slots) -> Any:
    """Execute an asynchronous node with its span current."""
    key = begin_apart(op.site)
    try:
        with begun(observer, op, slots):
            return await op.invoke(slots)
    finally:
        end_apart(key)


def begun(observer: Observer, op: CallOp, slots: Slots, parent: Context | None = None) -> Observation:
    """Return the observation of an execution that begins; ``parent`` is its context, None for the current one."""
    extra = told(op, slots) if op.upstream else slots[PARTITION]
    seen = observer.begin(op.site, extra, links(op, slots) if op.links else (), parent)
    if op.span_slot is not None:
        slots[op.span_slot] = seen.context
    return seen


def links(op: CallOp, slots: Slots) -> list[SpanContext]:
    """Return the contexts of the spans that an execution follows from, where it takes branches in."""
    if any(slots[slot] is not UNSET for slot in op.rounds):
        return []
    return [context for slot in op.links for context in contexts(slots[slot])]


def contexts(held: Any) -> Sequence[SpanContext]:
    """Return what a slot for span contexts holds: those of a map, the one of a node, or none that has begun."""
    if isinstance(held, list):
        return held
    return (held,) if isinstance(held, SpanContext) else ()


def told(op: CallOp | ChunkedOp, slots: Slots) -> dict[str, Any] | None:
    """Return the span attributes of this execution alone, the nodes among them that it takes outputs of."""
    sources = [next((source for source in parameter if source.fills(slots)), None) for parameter in op.upstream]
    makers = [maker for source in sources if source is not None for maker in source.makers]
    found = dict.fromkeys(maker.name for maker in makers if maker.given is None or slots[maker.given] is not UNSET)
    return {**(slots[PARTITION] or {}), NODE_UPSTREAM: tuple(found)} if found else slots[PARTITION]


def opened(observer: Observer, op: CallOp, slots: Slots, home: Home | None = None) -> Stream[Any]:
    """Return the stream of a generator node; it is observed as it is pulled.

    Args:
        observer: What observes it.
        op: The node.
        slots: Where its arguments are.
        home: The loop that an asynchronous generator is to run on; None for that of the first pull.
    """
    observe = partial(observer.begin, op.site, told(op, slots), links(op, slots), get_current())
    return Stream(feed_of(op.invoke(slots), home), op.task.name, observe, op.site)
