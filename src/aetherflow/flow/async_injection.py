"""Injection of objects that have to be awaited: the step of an execution that awaits them before the call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple

from aetherflow.engine.awaitables import awaited
from aetherflow.engine.graph import Kind, Task
from aetherflow.engine.loops import off_loop, run_coroutine
from aetherflow.engine.plan import CallOp, PrepareSlots, Slots
from aetherflow.flow.arguments import Binding, Getter
from aetherflow.flow.injecting import Providers
from aetherflow.resources.async_providers import call_sync, check_threads, value_of
from aetherflow.telemetry.observation import executing_here

__all__ = ["await_injected", "bind_providers"]


class _Needed:
    """The value of a parameter whose provider has to be awaited."""


_NEEDED: Final = _Needed()


class AwaitedParameter(NamedTuple):
    """A parameter that may take an awaited object: its name, its argument as a function of the slots, and the slot."""

    name: str
    get: Getter
    slot: int


def bind_providers(task: Task, binding: Binding, providers: Providers) -> list[AwaitedParameter]:
    """Add checks for objects of providers that may be async, and return the parameters that have to be awaited.

    Args:
        task: The node.
        binding: The sources of its arguments, to which the checks are added.
        providers: The providers of the flow.
    """
    parameters = []
    arguments = []
    for argument in binding.arguments:
        slot, name = argument.provider, argument.parameter.name
        awaiting = "never" if slot is None else providers.awaiting(slot)
        if slot is not None and awaiting == "unknown":
            argument = argument._replace(inject=_checked(task.name, name, slot))  # noqa: PLW2901  # with a check
        elif slot is not None and awaiting == "async":
            parameters.append(AwaitedParameter(name, argument.getter(), slot))
        arguments.append(argument)
    binding.arguments = arguments
    return parameters


def _checked(node: str, parameter: str, slot: int) -> Getter:
    return lambda slots: call_sync(slots[slot], node, parameter)


def await_injected(op: CallOp, parameters: Sequence[AwaitedParameter]) -> None:
    """Make the executions of a node await the objects that are injected, inside the node's span.

    A synchronous function is still called where it would be called otherwise: on the thread of a synchronous run, on a
    thread of the pool in an asynchronous run.

    Args:
        op: The node.
        parameters: The parameters whose objects have to be awaited.
    """
    op.prepare = prepare = _preparation(op.task, parameters)
    on_loop = op.on_loop or op
    if on_loop.kind is Kind.ASYNC:
        on_loop = replace(on_loop, invoke=_awaiting(prepare, on_loop.invoke))
    elif on_loop.kind is Kind.SYNC:
        on_loop = replace(on_loop, kind=Kind.ASYNC, invoke=_awaiting(prepare, partial(_off_loop, on_loop.invoke)))
    else:
        return  # drivers prepare the slots of generator nodes
    if op.kind is Kind.SYNC:
        op.invoke = _blocking(prepare, op.invoke)
        op.on_loop = on_loop
    else:
        op.invoke = on_loop.invoke


def _awaiting(prepare: PrepareSlots, invoke: Callable[[Slots], Awaitable[Any]]) -> Callable[[Slots], Awaitable[Any]]:
    async def prepared(slots: Slots) -> Any:
        return await invoke(await prepare(slots))

    return prepared


def _blocking(prepare: PrepareSlots, invoke: Callable[[Slots], Any]) -> Callable[[Slots], Any]:
    return lambda slots: invoke(run_coroutine(prepare, slots))


async def _off_loop(invoke: Callable[[Slots], Any], slots: Slots) -> Any:
    return await awaited(await off_loop(executing_here, partial(invoke, slots)))


def _preparation(task: Task, parameters: Sequence[AwaitedParameter]) -> PrepareSlots:
    """Return a function that awaits the injected objects and returns slots with them in place of their providers."""
    is_sync = task.declared in (Kind.SYNC, Kind.STREAM)

    async def prepare(slots: Slots) -> Slots:
        copy = slots.copy()
        objects: dict[int, list[Any]] = {parameter.slot: [] for parameter in parameters}
        for slot in objects:
            copy[slot] = _needed
        for name, get, slot in parameters:
            if get(copy) is _NEEDED:
                if is_sync:
                    check_threads(slots[slot], task.name, name)
                objects[slot].append(await value_of(slots[slot]))
        for slot, values in objects.items():
            copy[slot] = iter(values).__next__  # parameters take theirs in the same order
        return copy

    return prepare


def _needed() -> _Needed:
    return _NEEDED
