"""Many executions of one node given to its batcher at once: no thread and no task for each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from opentelemetry.context import Context, get_current
from opentelemetry.trace import SpanContext

from aetherflow.engine.execution import begun
from aetherflow.engine.plan import CallOp, Slots
from aetherflow.engine.pool import Outcome
from aetherflow.engine.under_way import begin_apart, end_apart
from aetherflow.resources.gathering import Entry, Given
from aetherflow.resources.item_groups import ItemGroup
from aetherflow.telemetry.observation import Observation, Observer

__all__ = ["Calls", "Give", "observed_together"]

Calls: TypeAlias = list[tuple[Given, SpanContext | None]]
Give: TypeAlias = Callable[[ItemGroup, Calls, bool], Awaitable[Sequence[Entry]]]
"""Gives many items, each with the span it comes from; the last is whether no more follow."""


class _Execution:
    """An execution whose item has been given, or is about to be."""

    __slots__ = ("_key", "_outcome", "_seen", "entry")

    def __init__(self, observer: Observer, op: CallOp, slots: Slots, outcome: Outcome, parent: Context) -> None:
        self._key = begin_apart(op.site)
        self._seen = begun(observer, op, slots, parent)
        self._outcome = outcome
        self.entry: Entry | None = None

    def call(self, op: CallOp, slots: Slots) -> tuple[Given, SpanContext | None]:
        """Return the item, and the context of the span that it comes from."""
        return _given(op, slots, self._seen), self._seen.context

    def settle(self) -> bool:
        """End the execution if its item is done; return whether it is."""
        entry = self.entry
        if entry is None or not entry.is_done:
            return False
        self._seen.set(entry.placement.attributes())
        self._outcome.value, self._outcome.done = entry.result, entry.error is None
        self.end(entry.error)
        return True

    def end(self, error: BaseException | None) -> None:
        """End the execution with an error, or without one."""
        self._outcome.error = error
        try:
            self._seen.end_apart(error)
        finally:
            end_apart(self._key)


async def observed_together(
    observer: Observer,
    executions: Sequence[tuple[CallOp, Slots]],
    give: Give,
    *,
    stop_on_error: bool,
    waits: bool = True,
) -> list[Outcome]:
    """Execute a batched node many times; the items are given in lists of as many as a batch has room for.

    Args:
        observer: What observes each execution.
        executions: The node, maybe as it was planned for different runs, and the slots of each; at least one.
        give: How its batcher is given the items.
        stop_on_error: Whether no more items are given once an execution has failed.
        waits: Whether the last batch waits to be filled by items of other callers.
    """
    gather = executions[0][0].gather
    assert gather is not None  # else the node is executed like any other
    group = gather.batcher().group(waits=waits)
    outcomes = [Outcome() for _ in executions]
    pending: list[_Execution] = []
    parent = get_current()
    start, is_last = 0, False
    try:
        while not is_last:
            stop = min(start + group.room(), len(executions))
            if stop_on_error and any(outcome.error is not None for outcome in outcomes[:start]):
                stop, is_last = start, True  # only those are waited for that have been given
            is_last = is_last or stop == len(executions)
            calls: Calls = []
            added: list[_Execution] = []
            for index in range(start, stop):
                op, slots = executions[index]
                execution = _Execution(observer, op, slots, outcomes[index], parent)
                try:
                    calls.append(execution.call(op, slots))
                except Exception as error:  # noqa: BLE001  # that of one execution: the others go on
                    execution.end(error)
                else:
                    added.append(execution)
                    pending.append(execution)
            for execution, entry in zip(added, await give(group, calls, is_last), strict=True):
                execution.entry = entry
            pending = [execution for execution in pending if not execution.settle()]
            start = stop
    except BaseException as error:
        for execution in pending:
            execution.end(error)
        raise
    return outcomes


def _given(op: CallOp, slots: Slots, seen: Observation) -> Given:
    gather = op.gather
    assert gather is not None  # as above
    if not op.injected:
        return gather.given(slots)
    token = seen.enter()  # what providers do belongs to the execution
    try:
        return gather.given(slots)
    finally:
        seen.leave(token)
