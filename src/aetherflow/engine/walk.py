"""One coroutine walks any plan.

Synchronous runs drive it with ``send(None)``: their driver never suspends, it blocks. Asynchronous runs await it.
There is no second walker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from aetherflow.engine.chunks import chunks_of
from aetherflow.engine.drivers import Driver
from aetherflow.engine.execution import contexts
from aetherflow.engine.plan import (
    PARTITION,
    UNSET,
    BranchOp,
    CallOp,
    ChainOp,
    ChunkedOp,
    FanOutOp,
    MapOp,
    Op,
    RepeatOp,
    Slots,
    SubOp,
)
from aetherflow.engine.pool import Outcome
from aetherflow.engine.streaming import Stream
from aetherflow.engine.together import observed_together
from aetherflow.errors import BranchError, SplitError
from aetherflow.telemetry.conventions import BATCH_COUNT, BATCH_INDEX, BATCH_SIZE, RUN_ID
from aetherflow.telemetry.observation import Observation, mark_handled, new_run_id
from aetherflow.user_exceptions import add_note, is_error

__all__ = ["Failure", "walk", "walk_all", "within"]


@dataclass(frozen=True, slots=True)
class Failure:
    """What stands in the results of a fan-out for a branch that failed, with ``on_error="collect"``."""

    node: str
    exception: BaseException


async def walk(op: Op, slots: Slots, driver: Driver) -> None:
    """Carry an operation out; its result is in its slot afterwards."""
    match op:
        case CallOp():
            slots[op.slot] = await driver.call(op, slots)
        case ChainOp():
            for part in op.ops:
                await walk(part, slots, driver)
        case FanOutOp():
            await _fan_out(op, slots, driver)
        case MapOp():
            await _map(op, slots, driver)
        case ChunkedOp():
            await _chunked(op, slots, driver)
        case BranchOp():
            chosen = _choose(op, slots[op.source])
            await walk(chosen, slots, driver)
            slots[op.slot] = slots[chosen.slot]
        case RepeatOp():
            await _repeat(op, slots, driver)
        case SubOp():
            await _sub(op, slots, driver)


async def _fan_out(op: FanOutOp, slots: Slots, driver: Driver) -> None:
    work = [partial(walk, branch, slots, driver) for branch in op.ops]
    outcomes = await driver.side_by_side(work, op.limit, stop_on_error=not op.collect)
    _raise_or_keep(op.keys, outcomes, op.collect)
    for branch, outcome, key in zip(op.ops, outcomes, op.keys, strict=True):
        if outcome.error is not None:
            slots[branch.slot] = Failure(key, outcome.error)
    slots[op.slot] = {key: slots[branch.slot] for key, branch in zip(op.keys, op.ops, strict=True)}


def _raise_or_keep(keys: Sequence[str], outcomes: Sequence[Outcome], collect: bool) -> None:
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if not errors or (collect and all(is_error(error, Exception) for error in errors)):
        return
    if len(errors) == 1:
        raise errors[0]
    failed = ", ".join(key for key, outcome in zip(keys, outcomes, strict=True) if outcome.error is not None)
    raise mark_handled(BaseExceptionGroup(f"{len(errors)} branches failed: {failed}", errors), errors)


async def _map(op: MapOp, slots: Slots, driver: Driver) -> None:
    value = slots[op.source]
    elements = elements_of(value, op.split, op.key)
    count = op.copies if elements is None else len(elements)
    is_batched = op.is_batched  # then its place among others is that in its batch
    copies = []
    for index in range(count):
        copy = slots.copy()
        copy[PARTITION] = extra = None if is_batched else {BATCH_INDEX: index, BATCH_COUNT: count}
        if elements is not None:
            copy[op.source] = element = elements[index]
            for alias in op.aliases:
                if copy[alias] is value:
                    copy[alias] = element
            if extra is not None and (size := _size_of(element)) is not None:
                extra[BATCH_SIZE] = size
        copies.append(copy)
    outcomes = await _executed(op, copies, driver)
    keys = [f"{op.key}[{index}]" for index in range(count)]
    _raise_or_keep(keys, outcomes, op.collect)
    results = [
        copy[op.op.slot] if outcome.error is None else Failure(key, outcome.error)
        for copy, outcome, key in zip(copies, outcomes, keys, strict=True)
    ]
    for inner, outer in op.span_slots:
        slots[outer] = [context for copy in copies for context in contexts(copy[inner])]
    for shown, kept in op.ran:
        slots[kept] = next((copy[shown] for copy in copies if copy[shown] is not UNSET), UNSET)
    slots[op.slot] = dict(zip(keys, results, strict=True)) if op.keyed else results


_BUILT_IN: Final = (list, tuple, dict, set, frozenset, str, bytes, bytearray, memoryview, range, deque)


def _size_of(element: object) -> int | None:
    """Return the length of a built-in container; None for anything else, whose ``__len__`` may do anything."""
    if not issubclass(type(element), _BUILT_IN):
        return None
    kind: Any = next(kind for kind in _BUILT_IN if issubclass(type(element), kind))
    try:
        return kind.__len__(element)  # type: ignore[no-any-return]  # an integer, of a built-in container
    except Exception:  # noqa: BLE001  # a memoryview of no dimension, or one that was released
        return None


async def _executed(op: MapOp, copies: Sequence[Slots], driver: Driver) -> list[Outcome]:
    """Execute the body of a map on each copy of the slots."""
    body, stop_on_error = op.op, not op.collect
    if isinstance(body, CallOp) and body.gather is not None and copies:
        executions = [(body, copy) for copy in copies]
        outcomes = await observed_together(driver.observer, executions, driver, stop_on_error=stop_on_error)
        for copy, outcome in zip(copies, outcomes, strict=True):
            copy[body.slot] = outcome.value
        return outcomes

    def work(walker: Driver) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        return [partial(walk, body, copy, walker) for copy in copies]

    if op.gathers:
        return await driver.as_tasks(work, op.workers, stop_on_error=stop_on_error)
    return await driver.side_by_side(work(driver), op.workers, stop_on_error=stop_on_error)


async def _chunked(op: ChunkedOp, slots: Slots, driver: Driver) -> None:
    value = slots[op.source]
    is_stream = isinstance(value, Iterator | AsyncIterable)
    elements = None if is_stream else elements_of(value, True, op.name)
    work = None if op.op is None else partial(walk_all, op.op)
    stage = chunks_of(elements, value, op, slots, driver, work)
    if is_stream:
        slots[op.slot] = driver.hold(stage)
    else:
        slots[op.slot] = [item async for item in stage] if driver.awaiting else list(stage)


def elements_of(value: Any, split: bool | None, node: str) -> Sequence[Any] | None:
    """Return the elements to execute a node on, or None where each execution gets the whole value.

    Args:
        value: The output to split.
        split: As in :class:`aetherflow.engine.graph.Map`.
        node: The node's name, for the error.

    Raises:
        SplitError: ``split`` is True and the value has no elements.
    """
    if split is False:
        return None
    if isinstance(value, Mapping) and len(value) == 1:
        (only,) = value.values()
        if _is_list(only):
            return only  # type: ignore[no-any-return]  # narrowed by _is_list
    if _is_list(value):
        return value  # type: ignore[no-any-return]
    if split is None:
        return None
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        return list(value)
    raise SplitError(node, value)


def _is_list(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, tuple) and not hasattr(value, "_fields"))


def _choose(op: BranchOp, value: Any) -> Op:
    """Return the alternative for a value.

    A value without a hash, such as a list, selects no choice. An error that its ``__hash__`` or ``__eq__`` raises is
    raised here, too.
    """
    if _has_no_hash(value):
        chosen = op.default
    else:
        try:
            chosen = op.choices.get(value, op.default)
        except Exception as error:
            add_note(error, f"aetherflow: raised when branch_on looked up the output of {op.name!r}")
            raise
    if chosen is None:
        raise BranchError(op.name, value, op.choices)
    return chosen


def _has_no_hash(value: object) -> bool:
    kind = type(value)
    if kind.__hash__ is tuple.__hash__:
        return any(map(_has_no_hash, value))  # type: ignore[call-overload]  # a tuple, or a named one
    return kind.__hash__ is None


async def _repeat(op: RepeatOp, slots: Slots, driver: Driver) -> None:
    slots[op.previous] = UNSET
    for _ in range(op.times):
        for slot in op.clears:
            slots[slot] = UNSET
        await walk(op.op, slots, driver)
        output = slots[op.op.slot]
        is_silent = any(slots[slot] is not UNSET for slot in op.silent)
        slots[op.previous] = UNSET if is_silent else output
        for shown, kept in op.ran:
            slots[kept] = slots[shown]
        if op.until is not None and await driver.resolve(op.until(output)):
            break
    slots[op.slot] = output


async def _sub(op: SubOp, slots: Slots, driver: Driver) -> None:
    seen = driver.observer.begin(op.site, {RUN_ID: new_run_id()})
    if op.span_slot is not None:
        slots[op.span_slot] = seen.context
    slots[op.slot] = await within(seen, _result_of(op.op, slots, driver))


async def _result_of(op: Op, slots: Slots, driver: Driver) -> Any:
    await walk(op, slots, driver)
    return slots[op.slot]


async def walk_all(op: Op, slots: Slots, driver: Driver) -> Any:
    """Carry out what a run does and return its result; streams that nothing is left to pull end with it."""
    try:
        await walk(op, slots, driver)
    except GeneratorExit:  # thrown away unfinished: nothing can be awaited any more
        raise
    except BaseException as error:
        await driver.finish(failure=error)
        raise
    result = slots[op.slot]
    await driver.finish(result)
    return result


async def within(seen: Observation, work: Coroutine[Any, Any, Any]) -> Any:
    """Await work within a run's observation, which ends with it, and return its result.

    A result that is a stream keeps the observation open until the stream ends.
    """
    token = seen.enter()
    error: BaseException | None = None
    handed_over = False
    try:
        value = await work
        if type(value) is Stream and value.is_open:
            value.on_end(seen.end_apart)
            handed_over = True
        return value
    except BaseException as raised:
        error = raised
        raise
    finally:
        if not handed_over:
            seen.end(error)
        seen.leave(token)
