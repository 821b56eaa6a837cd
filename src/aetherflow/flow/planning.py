"""From a graph to a plan: every value gets a slot, every node a site and a closure that calls it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from aetherflow.engine.graph import Branch, Call, Chain, FanOut, Kind, Map, Repeat, Step, Sub, Task, is_parallel, tasks
from aetherflow.engine.plan import (
    FIRST,
    INPUTS,
    UNSET,
    BranchOp,
    CallOp,
    ChainOp,
    FanOutOp,
    MapOp,
    Op,
    Plan,
    RepeatOp,
    SubOp,
)
from aetherflow.errors import ConfigurationError
from aetherflow.flow.binding import Binding, Candidate, Open, bind
from aetherflow.resources.context import AnyContext, context_class, provider_at, provider_names, resources_of
from aetherflow.resources.markers import Getter, marker_target, resolve_marker
from aetherflow.resources.scopes import AnyProvider, combined_scope, context_locals_of, scope_of
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.conventions import ProviderScope
from aetherflow.telemetry.observer import Site

__all__ = ["ParameterProvider", "plan"]

PARALLEL_RESULTS = "parallel_results"
"""The parameter name that means the results of the last fan-out."""

_TYPES: Mapping[Kind, names.NodeType] = {
    Kind.SYNC: "sync",
    Kind.ASYNC: "async",
    Kind.STREAM: "stream",
    Kind.ASYNC_STREAM: "stream",
}


@dataclass(slots=True)
class ParameterProvider:
    """One provider that a flow takes from its context: what asked for it, and how to get it from an instance."""

    name: str
    get: Getter
    slot: int
    scope: ProviderScope


@dataclass(slots=True)
class _Scope:
    """What a step can see: names of earlier outputs, the output before, and what a first parameter must take."""

    names: dict[str, tuple[Candidate, ...]] = field(default_factory=dict)
    previous: tuple[Candidate, ...] = ()
    forced: tuple[Candidate, ...] = ()
    first: bool = True
    outputs: list[tuple[str, int, bool]] = field(default_factory=list)

    def inner(self) -> _Scope:
        """Return a scope that sees the same and keeps what is added to itself."""
        return replace(self, names=dict(self.names), outputs=[])

    def took(self, slot: int) -> None:
        """Note that the step just planned left its output in ``slot``."""
        self.previous = (Candidate(slot),)
        self.forced = ()
        self.first = False


def plan(
    flow: str, step: Step, inputs: tuple[str, ...] | None, context: AnyContext | None, *, value: bool = False
) -> Plan:
    """Plan a flow for a set of input names and the class of a context.

    Args:
        flow: The flow's name.
        step: Its graph.
        inputs: The names of its inputs, in the order of their slots; None where it is run without.
        context: A context of the class to plan for.
        value: The flow is run on one value that is no mapping, which the first node's first parameter takes.

    Raises:
        MissingInputError: Nothing can fill a parameter.
    """
    return _Planner(flow, inputs, context, value).plan(step)


class _Planner:
    def __init__(self, flow: str, inputs: tuple[str, ...] | None, context: AnyContext | None, value: bool) -> None:
        self._flow = flow
        self._root = flow
        self._inputs = {name: FIRST + index for index, name in enumerate(inputs or ())}
        self._has_inputs = inputs is not None
        self._value = value
        self._context = context
        self._size = FIRST + len(self._inputs)
        self._providers: dict[object, ParameterProvider] = {}
        self._executor: str | None = None
        self._makers: dict[int, tuple[str, ...]] = {}  # slot -> names of the nodes that fill it
        self._spans: dict[int, Callable[[], list[int]]] = {}  # slot -> slots of the spans that filled it
        self._parallel: set[int] = set()
        self._output_slots: list[int] = []

    def plan(self, step: Step) -> Plan:
        scope = _Scope(forced=(Candidate(INPUTS),) if self._value else ())
        op = self._step(step, scope)
        single = isinstance(op, CallOp)
        site = None if single else self._run_site(self._root, step)
        parts: Sequence[Op] = op.ops if isinstance(op, ChainOp) else (op,)
        calls = [part for part in parts if isinstance(part, CallOp) and part.kind is Kind.SYNC and not part.executor]
        if single:
            self._spans[op.slot]()
        providers = list(self._providers.values())
        given = [found.get(self._context) for found in providers] if self._context is not None else []
        return Plan(
            flow=self._root,
            op=op,
            site=site,
            blank=[UNSET] * (self._size - FIRST - len(self._inputs)),
            providers=tuple((found.get, found.slot) for found in providers),
            scopes=tuple(found.scope for found in providers),
            outputs=tuple(scope.outputs),
            linear=tuple(calls) if len(calls) == len(parts) else (),
            single=single,
            context_local=tuple(found.slot for found in providers if self._is_context_local(found)),
            has_resources=bool(resources_of(self._context, given)) if self._context is not None else False,
            overridden=any(provider.last_overriding is not None for provider in given),
        )

    def _is_context_local(self, found: ParameterProvider) -> bool:
        return self._context is not None and bool(context_locals_of(found.get(self._context)))

    def _run_site(self, flow: str, step: Step) -> Site:
        attributes = {names.FLOW_NAME: flow, names.FLOW_NODES: sum(1 for _ in tasks(step))}
        return Site(
            names.RUN_SPAN.format(flow=flow),
            names.RUN_DURATION,
            {names.FLOW_NAME: flow},
            attributes,
            is_node=False,
        )

    def _slot(self) -> int:
        self._size += 1
        return self._size - 1

    def _output_slot(self) -> int:
        slot = self._slot()
        self._output_slots.append(slot)
        return slot

    def _step(self, step: Step, scope: _Scope) -> Op:
        match step:
            case Call(task):
                return self._call(task, scope)
            case Chain(steps):
                ops = tuple(self._step(part, scope) for part in steps)
                return ChainOp(ops, ops[-1].slot)
            case FanOut():
                return self._fan_out(step, scope)
            case Map():
                return self._map(step, scope)
            case Branch():
                return self._branch(step, scope)
            case Repeat():
                return self._repeat(step, scope)
            case Sub(name, body):
                return self._sub(name, body, step, scope)

    # --- one node ------------------------------------------------------------------------------------------

    def _call(self, task: Task, scope: _Scope) -> CallOp:
        binding = bind(task.call, task.parameters, self._sources(task, scope))
        if scope.first and self._value and INPUTS not in binding.slots:
            raise ConfigurationError(
                f"flow {self._root!r} was run on a single value, but its first node {task.name!r} has no positional "
                f"parameter to take it; give a mapping of inputs"
            )
        executor = self._executor_of(task)
        slot = self._output_slot()
        op = CallOp(
            site=self._node_site(task, binding),
            kind=task.kind,
            invoke=binding.invoke,
            slot=slot,
            task=task,
            arguments=lambda slots: ((), binding.arguments(slots)),
            links=self._links(scope),
            executor=executor,
            injected=tuple(binding.providers),
            container=self._provider_slot("<container>", _container) if executor and binding.providers else None,
        )
        self._makers[slot] = (task.name,)
        self._spans[slot] = lambda: [self._span_slot(op)]
        scope.names[task.name] = (Candidate(slot),)
        scope.outputs.append((task.name, slot, False))
        scope.took(slot)
        return op

    def _executor_of(self, task: Task) -> str | None:
        chosen = task.executor or self._executor
        if chosen is None or chosen == "thread":  # where the flow runs, branches are on threads already
            return None
        if task.kind in (Kind.STREAM, Kind.ASYNC_STREAM):
            raise ConfigurationError(
                f"node {task.name!r} is a generator, which cannot leave its process; executor={chosen!r} is allowed "
                f"on functions only"
            )
        return chosen

    def _sources(self, task: Task, scope: _Scope) -> Open:
        def available() -> list[str]:
            context = () if self._context is None else sorted(provider_names(self._context))
            return [
                *(f"output {name!r}" for name in scope.names),
                *(f"input {name!r}" for name in self._inputs),
                *(f"provider {name!r}" for name in context),
            ]

        return Open(
            flow=self._flow,
            node=task.name,
            outputs=lambda name: scope.names.get(name, ()),
            given=self._inputs.get,
            provider=self._provider,
            previous=scope.previous,
            whole=INPUTS if scope.first and self._has_inputs else None,
            forced=scope.forced,
            available=available,
        )

    def _provider(self, parameter: inspect.Parameter) -> int | None:
        marker = marker_target(parameter.default, parameter.annotation)
        context = self._context
        key: object
        if marker is not None:
            key = str(marker)
            if context is None:
                raise ConfigurationError(f"{marker} needs a context; run the flow with context=…")
            get = resolve_marker(marker, context_class(context))
        elif context is not None and parameter.name in provider_names(context):
            key = name = parameter.name
            get = _named(name)
        else:
            return None
        return self._provider_slot(key, get, parameter.name)

    def _provider_slot(self, key: object, get: Getter, name: str = "") -> int:
        found = self._providers.get(key)
        if found is None:
            scope = scope_of(get(self._context))  # type: ignore[arg-type]  # there is one where anything is injected
            found = self._providers[key] = ParameterProvider(name, get, self._slot(), scope)
        return found.slot

    def _node_site(self, task: Task, binding: Binding) -> Site:
        by_slot = {found.slot: found for found in self._providers.values()}
        injected = [(name, by_slot[slot].scope) for name, slot in binding.providers]
        upstream = dict.fromkeys(name for slot in binding.slots for name in self._makers.get(slot, ()))
        attributes: dict[str, Any] = {
            names.FLOW_NAME: self._flow,
            names.NODE_NAME: task.name,
            names.NODE_TYPE: _TYPES[task.declared],
            names.CODE_FUNCTION_NAME: task.qualname,
            names.PROVIDER_SCOPE: combined_scope(scope for _, scope in injected),
        }
        if injected:
            attributes[names.PROVIDER_NAMES] = tuple(name for name, _ in injected)
            attributes[names.PROVIDER_SCOPES] = tuple(scope for _, scope in injected)
        if upstream:
            attributes[names.NODE_UPSTREAM] = tuple(upstream)
        if task.retries:
            attributes[names.NODE_ATTEMPT] = 1
        return Site(
            task.name,
            names.NODE_DURATION,
            {names.FLOW_NAME: self._flow, names.NODE_NAME: task.name},
            attributes,
            label=f"node {task.name!r} of flow {self._flow!r}",
        )

    def _span_slot(self, op: CallOp | SubOp) -> int:
        if op.span_slot is None:
            op.span_slot = self._slot()
        return op.span_slot

    def _links(self, scope: _Scope) -> tuple[int, ...]:
        if not any(candidate.slot in self._parallel for candidate in scope.previous):
            return ()
        found = [slot for candidate in scope.previous for slot in self._spans[candidate.slot]()]
        return tuple(dict.fromkeys(found))

    def _merged(self, slots: Sequence[int], slot: int) -> None:
        """Say that ``slot`` is filled by what fills ``slots``."""
        self._makers[slot] = tuple(dict.fromkeys(name for part in slots for name in self._makers.get(part, ())))
        self._spans[slot] = lambda: [found for part in slots if part in self._spans for found in self._spans[part]()]

    # --- steps side by side --------------------------------------------------------------------------------

    def _within(self, executor: str | None, work: Callable[[], Op]) -> Op:
        before, self._executor = self._executor, executor or self._executor
        try:
            return work()
        finally:
            self._executor = before

    def _fan_out(self, step: FanOut, scope: _Scope) -> FanOutOp:
        scopes = [scope.inner() for _ in step.branches]
        ops = tuple(
            self._within(step.executor, lambda branch=branch, inner=inner: self._step(branch, inner))  # type: ignore[misc]
            for branch, inner in zip(step.branches, scopes, strict=True)
        )
        slot = self._output_slot()
        self._share(scope, scopes, step.keys)
        self._merged([op.slot for op in ops], slot)
        self._parallel.add(slot)
        scope.names[PARALLEL_RESULTS] = (Candidate(slot),)
        scope.took(slot)
        return FanOutOp(step.keys, ops, slot, step.max_workers, step.collect)

    def _share(self, scope: _Scope, scopes: Sequence[_Scope], keys: Sequence[str]) -> None:
        """Make what branches have named visible after them; a name that several give says nothing any more."""
        own = [{name for name, _, _ in inner.outputs} for inner in scopes]
        for inner, key, mine in zip(scopes, keys, own, strict=True):
            for name in mine:
                if sum(name in other for other in own) == 1:
                    scope.names[name] = inner.names.get(name, ())
                else:
                    scope.names.pop(name, None)
            for name, slot, spread in inner.outputs:
                clash = sum(name in other for other in own) > 1
                scope.outputs.append((f"{key}.{name}" if clash and name != key else name, slot, spread))

    def _map(self, step: Map, scope: _Scope) -> MapOp:
        (source,) = scope.previous
        inner = scope.inner()
        body = self._within(step.executor, lambda: self._step(step.body, inner))
        slot = self._output_slot()
        op = MapOp(step.name, body, source.slot, slot, step.workers, step.split, step.keyed, step.collect)
        self._makers[slot] = self._makers.get(body.slot, ())
        self._spans[slot] = lambda: self._gathered(op)
        self._parallel.add(slot)
        scope.names[step.name] = scope.names[PARALLEL_RESULTS] = (Candidate(slot),)
        scope.outputs.append((step.name, slot, True))
        scope.took(slot)
        return op

    def _gathered(self, op: MapOp) -> list[int]:
        if not op.span_slots:
            op.span_slots.extend((inner, self._slot()) for inner in self._spans[op.op.slot]())
        return [outer for _, outer in op.span_slots]

    # --- choices, rounds, flows in flows -------------------------------------------------------------------

    def _branch(self, step: Branch, scope: _Scope) -> BranchOp:
        (source,) = scope.previous
        begin = len(self._output_slots)
        planned: dict[int, tuple[Op, _Scope]] = {}
        for choice in step.alternatives:  # a step that stands for several values is planned once
            if id(choice) not in planned:
                inner = scope.inner()
                planned[id(choice)] = (self._step(choice, inner), inner)
        clears = tuple(self._output_slots[begin:])
        slot = self._output_slot()
        for _, inner in planned.values():
            for name, _, _ in inner.outputs:
                found = tuple(Candidate(candidate.slot, False) for candidate in inner.names.get(name, ()))
                known = scope.names.get(name, ())
                scope.names[name] = (*found, *(other for other in known if other not in found))
            scope.outputs.extend(inner.outputs)
        self._merged([op.slot for op, _ in planned.values()], slot)
        before = ", ".join(self._makers.get(source.slot, ()))
        scope.took(slot)
        return BranchOp(
            name=before,
            source=source.slot,
            choices={key: planned[id(choice)][0] for key, choice in step.choices.items()},
            default=None if step.default is None else planned[id(step.default)][0],
            slot=slot,
            clears=clears,
        )

    def _repeat(self, step: Repeat, scope: _Scope) -> RepeatOp:
        round_before = self._slot()
        outer = scope.forced
        scope.forced = (Candidate(round_before, certain=False), *outer)
        op = self._step(step.body, scope)
        self._makers[round_before] = self._makers.get(op.slot, ())
        slot = self._output_slot()
        self._merged([op.slot], slot)
        if is_parallel(step.body):
            self._parallel.add(slot)
        scope.took(slot)
        return RepeatOp(op, step.times, step.until, round_before, slot)

    def _sub(self, name: str, body: Step, step: Sub, scope: _Scope) -> SubOp:
        before, self._flow = self._flow, name
        try:
            inner = scope.inner()
            op = self._step(body, inner)
        finally:
            self._flow = before
        slot = self._output_slot()
        sub = SubOp(self._run_site(name, body), op, slot)
        self._makers[slot] = (name,)
        self._spans[slot] = lambda: [self._span_slot(sub)]
        scope.names[name] = (Candidate(slot),)
        scope.outputs.append((name, slot, False))
        scope.outputs.extend((f"{name}.{inner_name}", held, spread) for inner_name, held, spread in inner.outputs)
        scope.took(slot)
        return sub


def _container(context: AnyContext) -> AnyProvider:
    return cast("AnyProvider", context.__self__)


def _named(name: str) -> Getter:
    return lambda context: provider_at(context, name)
