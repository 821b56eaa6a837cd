"""Many executions of one node given to its batcher at once: no thread and no task for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from opentelemetry.context import get_current
from opentelemetry.trace import SpanContext

from aetherflow.engine.execution import begun
from aetherflow.engine.plan import CallOp, Slots
from aetherflow.engine.pool import Outcome
from aetherflow.engine.under_way import begin_apart, end_apart
from aetherflow.resources.batching import Batcher
from aetherflow.resources.gathering import Entry, Given
from aetherflow.telemetry.observation import Observation, Observer

__all__ = ["Calls", "Submitter", "observed_together"]

Calls: TypeAlias = list[tuple[Given, SpanContext | None]]


class Submitter(Protocol):
    """A driver, as far as batches need it."""

    async def give(self, batcher: Batcher[Any, Any], calls: Calls) -> Sequence[Entry]:
        """Pass many items to a batcher, each with its span, and wait for their results."""
        ...

    async def prepared(self, op: CallOp, slots: Slots) -> Slots:
        """Return the slots of an execution with its injected objects awaited."""
        ...


async def observed_together(
    observer: Observer, executions: Sequence[tuple[CallOp, Slots]], driver: Submitter, *, stop_on_error: bool
) -> list[Outcome]:
    """Execute a batched node many times, so many at once as a batch has room for.

    Args:
        observer: What observes each execution.
        executions: The node, maybe as it was planned for different runs, and the slots of each; at least one.
        driver: Passes the items to its batcher.
        stop_on_error: Whether no more batches begin once an execution has failed.
    """
    gather = executions[0][0].gather
    assert gather is not None  # else the node is executed like any other
    batcher = gather.batcher()
    outcomes = [Outcome() for _ in executions]
    for start in range(0, len(executions), batcher.size):
        chunk = slice(start, start + batcher.size)
        keys = [begin_apart(op.site) for op, _ in executions[chunk]]
        try:
            await _one_batch(observer, executions[chunk], outcomes[chunk], batcher, driver)
        finally:
            for key in keys:
                end_apart(key)
        if stop_on_error and any(outcome.error is not None for outcome in outcomes[chunk]):
            break
    return outcomes


async def _given(op: CallOp, slots: Slots, seen: Observation, driver: Submitter) -> Given:
    gather = op.gather
    assert gather is not None  # as above
    if not op.injected:
        return gather.given(slots)
    token = seen.enter()  # what providers do belongs to the execution
    try:
        return gather.given(slots if op.prepare is None else await driver.prepared(op, slots))
    finally:
        seen.leave(token)


async def _one_batch(
    observer: Observer,
    executions: Sequence[tuple[CallOp, Slots]],
    outcomes: Sequence[Outcome],
    batcher: Batcher[Any, Any],
    driver: Submitter,
) -> None:
    here = get_current()
    calls: Calls = []
    waiting: list[tuple[Observation, Outcome]] = []
    for (op, slots), outcome in zip(executions, outcomes, strict=True):
        seen = begun(observer, op, slots, here)
        try:
            calls.append((await _given(op, slots, seen, driver), seen.context))
        except Exception as error:  # noqa: BLE001  # that of one execution: the others go on
            outcome.error = error
            seen.end_apart(error)
        else:
            waiting.append((seen, outcome))
    try:
        entries = await driver.give(batcher, calls)
    except BaseException as error:
        for seen, _ in waiting:
            seen.end_apart(error)
        raise
    for (seen, outcome), entry in zip(waiting, entries, strict=True):
        seen.set(entry.placement.attributes())
        seen.end_apart(entry.error)
        outcome.value, outcome.error, outcome.done = entry.result, entry.error, entry.error is None
