"""From inputs and a context to a run: the plan is looked up, the slots are filled, the engine runs."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeVar
from weakref import ref

from aetherflow.engine import run as engine
from aetherflow.engine.drivers import AsyncDriver, SyncDriver
from aetherflow.engine.execution import Deferred, observed_async, observed_or_deferred, opened
from aetherflow.engine.graph import Call, Kind, Step, Task, tasks
from aetherflow.engine.loops import background_loop, drive, run_coroutine, run_coroutine_in_context
from aetherflow.engine.plan import UNSET, CallOp, Plan, Slots
from aetherflow.engine.pool import Outcome
from aetherflow.engine.run import RunInfo
from aetherflow.engine.signatures import signature_of
from aetherflow.engine.streaming import Stream, stream_over
from aetherflow.errors import ConfigurationError, NotAStreamError, UnusedOutputWarning
from aetherflow.flow.extra_inputs import ExtraInputs, check_extra_inputs
from aetherflow.flow.injecting import nature_of
from aetherflow.flow.many import Batches
from aetherflow.flow.planning import plan
from aetherflow.flow.sites import observer_for
from aetherflow.resources.context import AnyContext, ContextClass, context_class, init_resources_for
from aetherflow.resources.scopes import nested_providers
from aetherflow.telemetry.conventions import RUN_ID
from aetherflow.telemetry.observation import new_run_id

__all__ = ["NO_INPUT", "FlowRun", "NoInput", "Runner"]

T = TypeVar("T")

_PACKAGE: Final = f"{Path(__file__).parent.parent}{os.sep}"

MAX_PLANS: Final = 256
"""Plans a flow keeps; input mappings with ever other names must not grow memory."""


@dataclass(frozen=True, slots=True)
class FlowRun(Generic[T]):
    """One run of a flow, when it has ended.

    Args:
        flow: The flow's name.
        output: The last output.
        outputs: Every node's output by name; those of ``n`` in ``[n] * k`` and ``map`` as ``n[0]``, ``n[1]``…; those
            in a named flow as ``flow.node``. Nodes of branches that were not chosen are missing.
        run_id: The run's identifier, 16 hexadecimal digits; ``aetherflow.run.id`` of its span.
        trace_id: The trace's identifier, 32 hexadecimal digits; None without a tracer.
        duration: Seconds.
    """

    flow: str
    output: T
    outputs: Mapping[str, Any] = field(repr=False)
    run_id: str
    trace_id: str | None
    duration: float


class NoInput(Enum):
    """The type of `NO_INPUT`."""

    NO_INPUT = "NO_INPUT"

    def __repr__(self) -> str:
        return self.name


NO_INPUT: Final = NoInput.NO_INPUT
"""The input of a run without inputs; None is an input like any other."""


class _Value:
    """Marks plans for a single value in place of a mapping of inputs."""


class _ContextKey(NamedTuple):
    """The key of a plan for runs with a context; `owner` tells it from the keys of plans without, tuples of names."""

    names: Any
    context: ContextClass
    natures: Any = None
    owner: type = _Value


class _Last:
    """The plan of the last run with a context: nearly always the next one is like it.

    Args:
        context: The run's context, held weakly.
        names: The names of its inputs.
        plan: The plan.
    """

    __slots__ = ("_context", "_count", "_names", "nested", "plan")

    def __init__(self, context: AnyContext, names: Any, plan: Plan) -> None:
        self.nested = [each for get, _ in plan.providers for each in nested_providers(get(context))]
        """The providers that those of the plan depend on: an override of one may need another plan."""
        self._context = ref(context, lambda _, nested=self.nested: nested.clear())  # type: ignore[misc]
        self._count = len(context.providers)
        self._names = names
        self.plan = plan

    def holds_for(self, context: AnyContext, names: Any) -> bool:
        """Tell whether a run is like the last one; a provider that was added since may make it another."""
        return self._context() is context and self._names == names and self._count == len(context.providers)


class Runner:
    """Runs one flow; keeps its plans.

    Args:
        name: The flow's name.
        step: Its graph.
        extra_inputs: The treatment of run inputs that no parameter takes.

    Raises:
        ConfigurationError: `extra_inputs` has another value.
    """

    def __init__(self, name: str, step: Step, extra_inputs: ExtraInputs = "raise") -> None:
        check_extra_inputs(extra_inputs)
        self.extra_inputs: ExtraInputs = extra_inputs
        self._name = name
        self._step = step
        self._plans: dict[object, Plan] = {}
        self._last: _Last | None = None
        self._warned: dict[tuple[str, str], object] = {}
        self._direct: CallOp | None = None
        self._observer = observer_for(step)
        self._other: Runner | None = None

    def treating(self, extra_inputs: ExtraInputs) -> Runner:
        """Return a runner of the same flow that treats run inputs that no parameter takes in a certain way.

        Raises:
            ConfigurationError: `extra_inputs` has another value.
        """
        check_extra_inputs(extra_inputs)
        if extra_inputs == self.extra_inputs:
            return self
        if self._other is None:
            other = Runner(self._name, self._step, extra_inputs)
            other._warned = self._warned
            self._other = other
        return self._other

    # --- plans ---------------------------------------------------------------------------------------------

    def _prepare(self, inputs: Any, context: AnyContext | None) -> tuple[Plan, Slots]:
        values: Iterable[Any]
        if inputs is NO_INPUT:
            names: Any = None
            values = ()
        elif type(inputs) is dict or isinstance(inputs, Mapping):  # a look at the type spares the usual case 0.3 µs
            names = tuple(inputs)
            values = inputs.values()
        else:
            names = _Value
            values = ()
        if context is None:
            found = self._plans.get(names) or self._planned(names, names, None)
            return found, [inputs, None, *values, *found.blank]
        if (last := self._last) is not None and last.holds_for(context, names):
            found = last.plan
        else:
            key = _ContextKey(names, context_class(context))
            found = self._plans.get(key) or self._planned(key, names, context)
            self._last = last = _Last(context, names, found)
        slots = [inputs, None, *values, *found.blank]
        for get, slot in found.providers:
            slots[slot] = provider = get(context)
            if provider.last_overriding is not None:
                return self._overridden(found, names, context, [inputs, None, *values])
        nested = last.nested
        if found.overridden or (nested and any(each.last_overriding is not None for each in nested)):
            return self._overridden(found, names, context, [inputs, None, *values])
        return found, slots

    def _planned(self, key: object, names: Any, context: AnyContext | None) -> Plan:
        flow_plan, texts = plan(
            self._name,
            self._step,
            None if names is _Value else names,
            context,
            value=names is _Value,
            extra_inputs=self.extra_inputs,
        )
        for place, text in texts.items():
            self._warn_once(place, text)
        if len(self._plans) >= MAX_PLANS:
            self._plans.clear()
        self._plans[key] = flow_plan
        return flow_plan

    def _warn_once(self, place: tuple[str, str], text: str) -> None:
        """Warn once per flow and node; if warnings are errors, each run fails before anything has run."""
        token = object()
        if self._warned.setdefault(place, token) is not token:
            return
        try:
            warnings.warn(text, UnusedOutputWarning, stacklevel=_level_of_caller())
        except UnusedOutputWarning:
            del self._warned[place]
            raise

    def _overridden(self, found: Plan, names: Any, context: Any, given: Slots) -> tuple[Plan, Slots]:
        """Fill the providers in where one is overridden, or was: that needs a plan that tells its scope."""
        providers = [get(context) for get, _ in found.providers]
        natures = tuple(map(nature_of, providers))
        if natures != found.natures:
            key = _ContextKey(names, context_class(context), natures)
            found = self._plans.get(key) or self._planned(key, names, context)
            providers = [get(context) for get, _ in found.providers]
        slots = [*given, *found.blank]
        for provider, (_, slot) in zip(providers, found.providers, strict=True):
            slots[slot] = provider
        return found, slots

    def _ready(self, inputs: Any, context: AnyContext | None) -> tuple[Plan, Slots]:
        found, slots = self._prepare(inputs, context)
        if found.has_resources:
            self._open(found, slots, context)
        return found, slots

    def _open(self, found: Plan, slots: Slots, context: Any) -> None:
        of_loop = [slots[slot] for _, slot in found.providers if slot in found.loop_bound]
        of_threads = [slots[slot] for _, slot in found.providers if slot not in found.loop_bound]
        opening = init_resources_for(context, of_loop, of_threads, background_loop)
        if opening is not None:
            run_coroutine_in_context(lambda: opening)

    async def _ready_async(self, inputs: Any, context: AnyContext | None) -> tuple[Plan, Slots]:
        found, slots = self._prepare(inputs, context)
        if found.has_resources:
            opening = init_resources_for(context, [slots[slot] for _, slot in found.providers])  # type: ignore[arg-type]
            if opening is not None:
                await opening
        return found, slots

    # --- runs ----------------------------------------------------------------------------------------------

    def run(self, inputs: Any = NO_INPUT, context: AnyContext | None = None) -> Any:
        """Run on the calling thread and return the last output."""
        found, slots = self._prepare(inputs, context)
        if found.has_resources:
            self._open(found, slots, context)
        return engine.run(found, slots)

    def batches(self, context: AnyContext | None) -> Batches | None:
        """Return how many runs are made in batches; None where no node waits for others."""
        batchers = [task.batched.batcher for task in tasks(self._step) if task.batched is not None]
        if not batchers:
            return None
        is_one = isinstance(self._step, Call) and self._step.task.given is not None
        together = partial(self._run_together, context=context) if is_one else None
        slowest = max(batchers, key=lambda each: each.max_wait)
        return Batches(max(each.size for each in batchers), slowest.max_wait, slowest.clock, together)

    def _run_together(self, inputs: Sequence[Any], context: AnyContext | None) -> list[Outcome]:
        """Run the one batched node that the flow is; what is wrong with one input fails its run alone."""
        outcomes = [Outcome() for _ in inputs]
        ready: dict[int, tuple[Plan, Slots]] = {}
        for index, each in enumerate(inputs):
            try:
                ready[index] = self._ready(each, context)
            except Exception as error:  # noqa: BLE001  # raised where the output would have been
                outcomes[index].error = error
        if ready:
            for index, outcome in zip(ready, engine.run_together(list(ready.values())), strict=True):
                outcomes[index] = outcome
        return outcomes

    async def arun(self, inputs: Any, context: AnyContext | None) -> Any:
        """Run on the running event loop and return the last output."""
        found, slots = await self._ready_async(inputs, context)
        return await engine.run_async(found, slots)

    def execute(self, inputs: Any, context: AnyContext | None) -> FlowRun[Any]:
        """Run on the calling thread and return the run."""
        found, slots = self._ready(inputs, context)
        info = RunInfo(new_run_id())
        started = time.perf_counter()
        output = engine.run(found, slots, info)
        return _flow_run(found, slots, info, output, time.perf_counter() - started)

    async def aexecute(self, inputs: Any, context: AnyContext | None) -> FlowRun[Any]:
        """Run on the running event loop and return the run."""
        found, slots = await self._ready_async(inputs, context)
        info = RunInfo(new_run_id())
        started = time.perf_counter()
        output = await engine.run_async(found, slots, info)
        return _flow_run(found, slots, info, output, time.perf_counter() - started)

    def stream(self, inputs: Any, context: AnyContext | None, buffer: int | None) -> Stream[Any]:
        """Run on the calling thread and return the stream at the end."""
        _check_buffer("stream", buffer)
        found, slots = self._ready(inputs, context)
        return _streamed(self._name, engine.run(found, slots, buffer=buffer))

    async def astream(self, inputs: Any, context: AnyContext | None, buffer: int | None) -> AsyncGenerator[Any, None]:
        """Run on the running event loop and iterate over the stream at the end."""
        _check_buffer("astream", buffer)
        found, slots = await self._ready_async(inputs, context)
        async with _streamed(self._name, await engine.run_async(found, slots, buffer=buffer)) as items:
            async for item in items:
                yield item

    # --- calls ---------------------------------------------------------------------------------------------

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run with exactly these arguments; those of a flow are its first node's."""
        if not isinstance(self._step, Call):
            return self.run(_inputs_of_call(self._name, next(tasks(self._step)), args, kwargs))
        op = self._direct
        if op is None:
            op = self._direct = _direct_call(self._name, self._step)
        observer = self._observer()
        if op.kind is Kind.SYNC and op.executor is None:
            result = observed_or_deferred(observer, op, [None, None, args, kwargs], is_run=True)
            return result.coroutine() if type(result) is Deferred else result
        slots: Slots = [None, {RUN_ID: new_run_id()} if observer.tracing else None, args, kwargs]
        if op.executor is not None:
            is_async = op.task.declared is Kind.ASYNC
            return AsyncDriver(observer).call(op, slots) if is_async else drive(SyncDriver(observer).call(op, slots))
        if op.kind is Kind.ASYNC:
            coroutine = observed_async(observer, op, slots)
            return run_coroutine(lambda: coroutine) if op.task.declared is Kind.SYNC else coroutine
        return opened(observer, op, slots)


def _inputs_of_call(flow: str, first: Task, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a flow's call as inputs, by the names that its first node has for them."""
    inputs = signature_of(first.func).bind(*args, **kwargs).arguments
    allowed = [parameter.name for parameter in first.parameters]
    if not inputs.keys() <= set(allowed):
        raise ConfigurationError(
            f"flow {flow!r} was called with arguments that its first node {first.name!r} takes by * or **, which have "
            f"no name of their own; allowed: {', '.join(allowed) or 'none'}"
        )
    return inputs


def _direct_call(name: str, step: Call) -> CallOp:
    """Return the operation that calls a node with the arguments in slots 2 and 3."""
    op = plan(name, Call(replace(step.task, parameters=(), has_var_keyword=False)), None, None).plan.op
    assert isinstance(op, CallOp)  # a node plans to a call
    call = step.task.call
    op.invoke = lambda slots: call(*slots[2], **slots[3])
    op.arguments = lambda slots: (slots[2], slots[3])
    op.span_slot = None
    return op


def _level_of_caller() -> int:
    """Return the ``stacklevel`` of a warning that is to point at the first frame outside this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level


def _check_buffer(method: str, buffer: object) -> None:
    if buffer is not None and (isinstance(buffer, bool) or not isinstance(buffer, int) or buffer < 1):
        raise ConfigurationError(f"{method}(buffer={buffer!r}): allowed is a whole number from 1, or None")


def _streamed(flow: str, output: Any) -> Stream[Any]:
    if isinstance(output, Iterable | AsyncIterable) and not isinstance(output, str | bytes | Mapping):
        return stream_over(output, flow)
    raise NotAStreamError(flow, output)


def _flow_run(found: Plan, slots: Slots, info: RunInfo, output: Any, duration: float) -> FlowRun[Any]:
    outputs: dict[str, Any] = {}
    for name, slot, spread in found.outputs:
        value = slots[slot]
        if value is UNSET:
            continue
        if not spread:
            outputs[name] = value
        elif isinstance(value, Mapping):
            prefix = name.rpartition(".")[0]
            outputs.update({f"{prefix}.{key}" if prefix else key: item for key, item in value.items()})
        else:
            outputs.update({f"{name}[{index}]": item for index, item in enumerate(value)})
    context: Any = info.context
    if context is None and found.single and isinstance(found.op, CallOp) and found.op.span_slot is not None:
        context = slots[found.op.span_slot]
    has_trace = context is not None and context is not UNSET and context.is_valid
    trace_id = f"{context.trace_id:032x}" if has_trace else None
    return FlowRun(found.flow, output, outputs, info.run_id, trace_id, duration)
