"""Many executions of one node given to its batcher at once: no thread and no task for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from opentelemetry.context import get_current
from opentelemetry.trace import SpanContext

from aetherflow.engine.execution import begun
from aetherflow.engine.plan import CallOp, Slots
from aetherflow.engine.pool import Outcome
from aetherflow.engine.under_way import begin_apart, end_apart
from aetherflow.resources.gathering import NOTHING, Entry, Given
from aetherflow.resources.item_groups import ItemGroup
from aetherflow.telemetry.observation import Observation, Observer

__all__ = ["Calls", "Submitter", "observed_together"]

Calls: TypeAlias = list[tuple[Given, SpanContext | None]]


_Execution: TypeAlias = tuple[Observation, Outcome, object]
"""An execution whose item is passed to a batcher: its observation, its outcome and its active node."""


class Submitter(Protocol):
    """The part of a driver that batches need."""

    async def give(self, group: ItemGroup, calls: Calls, is_last: bool) -> Sequence[Entry]:
        """Pass items to a batcher, each with its span, and wait for the batches that they fill, or for all."""
        ...

    async def prepared(self, op: CallOp, slots: Slots) -> Slots:
        """Return the slots of an execution with its injected objects awaited."""
        ...


async def observed_together(
    observer: Observer,
    executions: Sequence[tuple[CallOp, Slots]],
    driver: Submitter,
    *,
    stop_on_error: bool,
    waits: bool = True,
) -> list[Outcome]:
    """Execute a batched node many times, passing its items on in lists that fill a batch.

    Args:
        observer: What observes each execution.
        executions: The node, maybe as it was planned for different runs, and the slots of each; at least one.
        driver: Passes the items to its batcher.
        stop_on_error: Whether no more items are passed on once an execution has failed.
        waits: Whether the last batch waits to be filled by items of other callers.
    """
    gather = executions[0][0].gather
    assert gather is not None  # else the node is executed like any other
    group = gather.batcher().group(waits=waits)
    outcomes = [Outcome() for _ in executions]
    pending: list[tuple[_Execution, Entry]] = []
    waiting: list[_Execution] = []
    parent = get_current()
    start, is_last = 0, False
    try:
        while not is_last:
            stop = min(start + group.room(), len(executions))
            if stop_on_error and any(outcome.error is not None for outcome in outcomes[:start]):
                stop, is_last = start, True  # wait only for the items passed so far
            is_last = is_last or stop == len(executions)
            calls: Calls = []
            for (op, slots), outcome in zip(executions[start:stop], outcomes[start:stop], strict=True):
                key = begin_apart(op.site)
                observation = begun(observer, op, slots, parent)
                execution = (observation, outcome, key)
                try:
                    calls.append((await _given(op, slots, observation, driver), observation.context))
                except Exception as error:  # noqa: BLE001  # one execution fails, the others continue
                    _end(execution, error)
                else:
                    waiting.append(execution)
            pending += zip(waiting, await driver.give(group, calls, is_last), strict=True)
            waiting = []
            pending = [each for each in pending if not _has_settled(*each)]
            start = stop
    except BaseException as error:
        for execution in [*(execution for execution, _ in pending), *waiting]:
            _end(execution, error)
        raise
    return outcomes


def _has_settled(execution: _Execution, entry: Entry) -> bool:
    """End an execution if its item is done; return whether it is."""
    error = entry.error
    if error is None and entry.result is NOTHING:
        return False
    observation, outcome, _ = execution
    observation.set(entry.placement.attributes())
    outcome.value, outcome.done = None if error is not None else entry.result, error is None
    _end(execution, error)
    return True


def _end(execution: _Execution, error: BaseException | None) -> None:
    observation, outcome, key = execution
    outcome.error = error
    try:
        observation.end_apart(error)
    finally:
        end_apart(key)


async def _given(op: CallOp, slots: Slots, observation: Observation, driver: Submitter) -> Given:
    gather = op.gather
    assert gather is not None  # as above
    if not op.injected:
        return gather.given(slots)
    token = observation.enter()  # what providers do belongs to the execution
    try:
        return gather.given(slots if op.prepare is None else await driver.prepared(op, slots))
    finally:
        observation.leave(token)
