"""One execution of a node, with its span current."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any

from opentelemetry.context import Context, get_current
from opentelemetry.trace import SpanContext

from aetherflow.engine.awaitables import PLAIN_TYPES, awaited, finished, is_awaitable, resolved
from aetherflow.engine.feeds import feed_of
from aetherflow.engine.loops import Home
from aetherflow.engine.plan import PARTITION, UNSET, CallOp, ChunkedOp, Slots
from aetherflow.engine.streaming import Stream
from aetherflow.engine.under_way import begin_apart, end_apart, shows_node
from aetherflow.telemetry.conventions import NODE_UPSTREAM
from aetherflow.telemetry.observation import ExecutionDetails, Observation, Observer

__all__ = ["Deferred", "begun", "contexts", "links", "observed", "observed_alone", "observed_async"]
__all__ += ["observed_or_deferred", "opened", "told"]


@shows_node
def observed(observer: Observer, op: CallOp, slots: Slots) -> Any:
    """Execute a synchronous node with its span current; an awaitable result is awaited on a background loop."""
    with begun(observer, op, slots) as observation:
        if op.site.has_details:
            with _details_of(op, observation):
                return op.invoke(slots)
        value = op.invoke(slots)
        return resolved(value) if _may_await(value) else value


@shows_node
def observed_alone(observer: Observer, op: CallOp, slots: Slots) -> Any:
    """Execute a synchronous node that is a run by itself, with its span current; otherwise as :func:`observed`."""
    invoke = op.invoke  # a variable, since CPython calls what an attribute holds more slowly
    with observer.begin_run(op.site) as observation:
        if op.site.has_details:
            with _details_of(op, observation):
                return invoke(slots)
        value = invoke(slots)
        try:
            is_plain = type(value) in PLAIN_TYPES
        except Exception:  # noqa: BLE001  # the hash of a class runs code of its metaclass
            is_plain = False
        return value if is_plain else resolved(value)


def _details_of(op: CallOp, observation: Observation) -> ExecutionDetails:
    """Return the details of an execution, which its observation reports when it ends."""
    details = ExecutionDetails(op.site)
    observation.report(details)
    return details


def _may_await(value: object) -> bool:
    """Return whether a result has a type that was not seen before, or that is awaitable."""
    try:
        return type(value) not in PLAIN_TYPES
    except Exception:  # noqa: BLE001  # the hash of a class runs code of its metaclass
        return True


class Deferred:
    """An execution whose function has returned an awaitable: it ends when that has been awaited."""

    __slots__ = ("_observation", "_op", "_value")

    def __init__(self, op: CallOp, observation: Observation, value: Any) -> None:
        self._op = op
        self._observation = observation
        self._value = value

    def coroutine(self) -> Coroutine[Any, Any, Any]:
        """Return a coroutine that awaits the result, under the name of the node's function."""
        coroutine: Any = self.finish()
        coroutine.__name__, coroutine.__qualname__ = self._op.task.name, self._op.task.qualname
        return coroutine  # type: ignore[no-any-return]  # typed so for the names, which the protocol lacks

    async def finish(self) -> Any:
        """Await the result with the span current, and return it."""
        key = begin_apart(self._op.site)
        try:
            with self._observation:
                return await awaited(self._value)
        finally:
            end_apart(key)


@shows_node
def observed_or_deferred(observer: Observer, op: CallOp, slots: Slots, *, is_run: bool = False) -> Any:
    """Execute a synchronous node with its span current, for a caller that can await.

    Args:
        observer: The observer of the execution.
        op: The node.
        slots: The run's slots.
        is_run: Whether the node is a run by itself.

    Returns:
        The result; a `Deferred` if that is awaitable.
    """
    observation = observer.begin_run(op.site) if is_run else begun(observer, op, slots)
    token = observation.enter()
    try:
        if op.site.has_details:
            with _details_of(op, observation):
                value = op.invoke(slots)
        else:
            value = op.invoke(slots)
            if _may_await(value) and is_awaitable(value):
                return Deferred(op, observation, value)
    except BaseException as error:
        observation.end(error)
        raise
    else:
        observation.end()
        return value
    finally:
        observation.leave(token)


async def observed_async(observer: Observer, op: CallOp, slots: Slots) -> Any:
    """Execute an asynchronous node with its span current."""
    key = begin_apart(op.site)
    try:
        with begun(observer, op, slots) as observation:
            if op.site.has_details:
                with _details_of(op, observation):
                    return await finished(await op.invoke(slots))
            value = await op.invoke(slots)
            return await finished(value) if _may_await(value) else value
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
