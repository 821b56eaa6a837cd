"""One coroutine walks any plan.

Synchronous runs drive it with ``send(None)``: their driver never suspends, it blocks. Asynchronous runs await it.
There is no second walker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from aetherflow.engine import pool
from aetherflow.engine.backends.dispatch import Submission
from aetherflow.engine.backends.worker import is_worker
from aetherflow.engine.execution import contexts, links, observed, observed_async, opened, told
from aetherflow.engine.graph import Kind
from aetherflow.engine.loops import run_coroutine
from aetherflow.engine.plan import (
    PARTITION,
    UNSET,
    BranchOp,
    CallOp,
    ChainOp,
    FanOutOp,
    MapOp,
    Op,
    RepeatOp,
    Slots,
    SubOp,
)
from aetherflow.engine.pool import Outcome
from aetherflow.engine.streaming import AsyncStream, Stream
from aetherflow.errors import BranchError, SplitError
from aetherflow.telemetry.conventions import BATCH_COUNT, BATCH_INDEX, BATCH_SIZE, RUN_ID
from aetherflow.telemetry.observation import Observation, Observer, mark_handled, new_run_id

__all__ = [
    "AsyncDriver",
    "Driver",
    "Failure",
    "SyncDriver",
    "drive",
    "walk",
    "walk_within",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failure:
    """What stands in the results of a fan-out for a branch that failed, with ``on_error="collect"``."""

    node: str
    exception: BaseException


class Driver(Protocol):
    """How a walk executes nodes and branches: by blocking, or by awaiting."""

    observer: Observer

    async def call(self, op: CallOp, slots: Slots) -> Any:
        """Execute a node and return its result."""
        ...

    async def side_by_side(
        self, work: Sequence[Callable[[], Coroutine[Any, Any, Any]]], limit: int | None, *, stop_on_error: bool
    ) -> list[Outcome]:
        """Walk branches at once, at most ``limit``, and wait for all that began."""
        ...


def _sent(observer: Observer, op: CallOp, slots: Slots) -> Submission:
    return Submission(observer, op, slots, told(op, slots), links(op, slots))


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends and return its result."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # StopIteration.value is untyped
    coroutine.close()
    raise RuntimeError("a synchronous walk suspended")


class SyncDriver:
    """Executes on the calling thread, with company from the pool; asynchronous nodes on a background loop."""

    __slots__ = ("observer",)

    def __init__(self, observer: Observer) -> None:
        self.observer = observer

    async def call(self, op: CallOp, slots: Slots) -> Any:
        """Execute a node and return its result."""
        if op.executor is not None and not is_worker():
            return _sent(self.observer, op, slots).wait()
        if op.kind is Kind.SYNC:
            return observed(self.observer, op, slots)
        if op.kind is Kind.ASYNC:
            return run_coroutine(observed_async, self.observer, op, slots)
        return opened(self.observer, op, slots)

    async def side_by_side(
        self, work: Sequence[Callable[[], Coroutine[Any, Any, Any]]], limit: int | None, *, stop_on_error: bool
    ) -> list[Outcome]:
        """Walk branches on the calling thread, with company from the pool."""
        calls = [partial(_drive_new, make) for make in work]
        return pool.side_by_side(calls, limit, stop_on_error=stop_on_error)


def _drive_new(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return drive(make())


class AsyncDriver:
    """Awaits asynchronous nodes; moves synchronous ones off the loop, to the pool."""

    __slots__ = ("observer",)

    def __init__(self, observer: Observer) -> None:
        self.observer = observer

    async def call(self, op: CallOp, slots: Slots) -> Any:
        """Execute a node and return its result."""
        if op.executor is not None and not is_worker():
            return await _sent(self.observer, op, slots).arrival(off_loop)
        if op.kind is Kind.SYNC:
            return await off_loop(observed, self.observer, op, slots)
        if op.kind is Kind.ASYNC:
            return await observed_async(self.observer, op, slots)
        return opened(self.observer, op, slots)

    async def side_by_side(
        self, work: Sequence[Callable[[], Coroutine[Any, Any, Any]]], limit: int | None, *, stop_on_error: bool
    ) -> list[Outcome]:
        """Walk branches as tasks of the running loop."""
        outcomes = [Outcome() for _ in work]
        todo = iter(range(len(work)))
        stopped = False

        async def worker() -> None:
            nonlocal stopped
            for index in todo:
                if stopped:
                    return
                try:
                    outcomes[index].value = await asyncio.create_task(work[index](), context=copy_context())
                    outcomes[index].done = True
                except (Exception, asyncio.CancelledError) as error:  # handed on to the flow
                    if _is_cancelled():
                        raise
                    outcomes[index].error = error
                    stopped = stopped or stop_on_error or not isinstance(error, Exception)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(len(work), limit or len(work))):
                group.create_task(worker())
        return outcomes


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def off_loop(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function on a thread of the pool, in a copy of the calling context.

    A cancellation takes a call back that no thread has begun; one that runs cannot be stopped and is waited for.
    """
    future = pool.default_pool().call(copy_context().run, _outcome_of, function, arguments)
    waiting = asyncio.wrap_future(future)
    try:
        with pool.lent_thread():  # the loop may be one that a node runs on a thread of the pool
            outcome = await asyncio.shield(waiting)
    except asyncio.CancelledError:
        if not future.cancel():
            await asyncio.wait([waiting])
        raise
    if outcome.error is not None:
        raise outcome.error
    return outcome.value  # type: ignore[no-any-return]  # the function's own


def _outcome_of(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Outcome:
    """Call a function and keep what it raises: an asyncio future would refuse a StopIteration, and never be done."""
    outcome = Outcome()
    try:
        outcome.value = function(*arguments)
    except BaseException as error:  # noqa: BLE001  # raised where it is awaited
        outcome.error = error
    return outcome


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
    if not errors or (collect and all(isinstance(error, Exception) for error in errors)):
        return
    if len(errors) == 1:
        raise errors[0]
    failed = ", ".join(key for key, outcome in zip(keys, outcomes, strict=True) if outcome.error is not None)
    raise mark_handled(BaseExceptionGroup(f"{len(errors)} branches failed: {failed}", errors), errors)


async def _map(op: MapOp, slots: Slots, driver: Driver) -> None:
    value = slots[op.source]
    elements = elements_of(value, op.split, op.key)
    count = op.copies if elements is None else len(elements)
    copies = []
    for index in range(count):
        copy = slots.copy()
        copy[PARTITION] = extra = {BATCH_INDEX: index, BATCH_COUNT: count}
        if elements is not None:
            copy[op.source] = element = elements[index]
            for alias in op.aliases:
                if copy[alias] is value:
                    copy[alias] = element
            if hasattr(element, "__len__"):
                extra[BATCH_SIZE] = len(element)
        copies.append(copy)
    work = [partial(walk, op.op, copy, driver) for copy in copies]
    outcomes = await driver.side_by_side(work, op.workers, stop_on_error=not op.collect)
    keys = [f"{op.key}[{index}]" for index in range(count)]
    _raise_or_keep(keys, outcomes, op.collect)
    results = [
        copy[op.op.slot] if outcome.error is None else Failure(key, outcome.error)
        for copy, outcome, key in zip(copies, outcomes, keys, strict=True)
    ]
    for inner, outer in op.span_slots:
        slots[outer] = [context for copy in copies for context in contexts(copy[inner])]
    slots[op.slot] = dict(zip(keys, results, strict=True)) if op.keyed else results


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
    try:
        return op.choices[value]
    except (KeyError, TypeError):  # TypeError: a value that cannot be hashed stands for no branch
        if op.default is not None:
            return op.default
    raise BranchError(op.name, value, op.choices)


async def _repeat(op: RepeatOp, slots: Slots, driver: Driver) -> None:
    slots[op.previous] = UNSET
    for _ in range(op.times):
        for slot in op.clears:
            slots[slot] = UNSET
        await walk(op.op, slots, driver)
        output = slots[op.previous] = slots[op.op.slot]
        if op.until is not None and op.until(output):
            break
    slots[op.slot] = output


async def _sub(op: SubOp, slots: Slots, driver: Driver) -> None:
    seen = driver.observer.begin(op.site, {RUN_ID: new_run_id()})
    if op.span_slot is not None:
        slots[op.span_slot] = seen.context
    slots[op.slot] = await walk_within(seen, op.op, slots, driver)


async def walk_within(seen: Observation, op: Op, slots: Slots, driver: Driver) -> Any:
    """Carry an operation out within a run's observation, which ends with it, and return its result.

    A result that is a stream keeps the observation open until the stream ends.
    """
    token = seen.enter()
    error: BaseException | None = None
    handed_over = False
    try:
        await walk(op, slots, driver)
        value = slots[op.slot]
        if isinstance(value, Stream | AsyncStream):
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
