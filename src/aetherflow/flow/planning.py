"""From a graph to a plan: every value gets a slot, every node a site and a closure that calls it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from aetherflow.engine.graph import Branch, Call, Chain, Chunked, FanOut, Kind, Map, Repeat, Step, Sub, Task, tasks
from aetherflow.engine.plan import (
    FIRST,
    INPUTS,
    UNSET,
    BranchOp,
    CallOp,
    ChainOp,
    ChunkedOp,
    FanOutOp,
    Gather,
    Maker,
    MapOp,
    Op,
    Plan,
    RepeatOp,
    Source,
    SubOp,
)
from aetherflow.errors import ConfigurationError
from aetherflow.flow.binding import Binding, Candidate, Open, bind
from aetherflow.flow.caching import sparing
from aetherflow.flow.declaring import check_stays
from aetherflow.flow.injecting import Providers, container_of, has_resources, nature_of
from aetherflow.flow.policies import counted_at
from aetherflow.flow.scope import Scope
from aetherflow.flow.sites import node_site, observer_for, run_site, stage_site
from aetherflow.resources.context import AnyContext, provider_names
from aetherflow.resources.scopes import context_locals_of

__all__ = ["plan"]

PARALLEL_RESULTS = "parallel_results"
"""The parameter name that means the results of the last fan-out."""


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
        self._providers = Providers(context, self._slot)
        self._executor: str | None = None
        self._makers: dict[int, list[Maker]] = {}  # slot -> who may have filled it
        self._spans: dict[int, Callable[[], list[int]]] = {}  # slot -> slots of the spans that filled it
        self._parallel: set[int] = set()
        self._same: dict[int, tuple[int, ...]] = {}  # slot -> slots one of which holds the same

    def plan(self, step: Step) -> Plan:
        scope = Scope(forced=(Candidate(INPUTS),) if self._value else ())
        op = self._step(step, scope)
        single = isinstance(op, CallOp)
        site = None if single else run_site(self._root, step)
        parts: Sequence[Op] = op.ops if isinstance(op, ChainOp) else (op,)
        calls = [part for part in parts if isinstance(part, CallOp) and part.kind is Kind.SYNC and not part.executor]
        if single:
            self._spans[op.slot]()
        providers = self._providers.found
        given = [found.get(self._context) for found in providers] if self._context is not None else []
        return Plan(
            flow=self._root,
            op=op,
            site=site,
            blank=[UNSET] * (self._size - FIRST - len(self._inputs)),
            providers=tuple((found.get, found.slot) for found in providers),
            natures=tuple(map(nature_of, given)),
            outputs=tuple(scope.outputs),
            linear=tuple(calls) if len(calls) == len(parts) else (),
            single=single,
            context_local=tuple(p.slot for p, each in zip(providers, given, strict=False) if context_locals_of(each)),
            has_resources=any(map(has_resources, given)),
            overridden=any(provider.last_overriding is not None for provider in given),
            observer=observer_for(step),
        )

    def _slot(self) -> int:
        self._size += 1
        return self._size - 1

    def _step(self, step: Step, scope: Scope) -> Op:
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
            case Chunked():
                return self._chunked(step, scope)
            case Branch():
                return self._branch(step, scope)
            case Repeat():
                return self._repeat(step, scope)
            case Sub(name, body):
                return self._sub(name, body, step, scope)

    # --- one node ------------------------------------------------------------------------------------------

    def _call(self, task: Task, scope: Scope) -> CallOp:
        sources = self._sources(task, scope)
        binding = bind(task.call, task.parameters, sources)
        if task.cache is not None and binding.injected:
            binding = bind(sparing(task.call, binding.injected), task.parameters, sources)
        if scope.first and self._value and not any(Candidate(INPUTS) in taken for taken in binding.takes):
            raise ConfigurationError(
                f"flow {self._root!r} was run on a single value, but its first node {task.name!r} has no positional "
                f"parameter to take it; give a mapping of inputs"
            )
        executor = self._executor_of(task)
        slot = self._slot()
        upstream, makers = self._upstream(binding)
        site = node_site(self._flow, task, self._providers.scopes(binding.providers), upstream)
        op = CallOp(
            site=site,
            kind=task.kind,
            invoke=counted_at(site, binding.invoke, task.kind) if task.retries else binding.invoke,
            slot=slot,
            task=task,
            arguments=lambda slots: ((), binding.arguments(slots)),
            links=self._links(scope),
            upstream=makers,
            executor=executor,
            injected=tuple(binding.providers),
            container=self._providers.take("<container>", container_of) if executor and binding.providers else None,
        )
        if task.batched is not None:
            self._gather(op, binding, sources)
        self._makers[slot] = [Maker(task.name)]
        self._spans[slot] = lambda: [self._span_slot(op)]
        scope.names[task.name] = (Candidate(slot),)
        scope.outputs.append((task.name, slot, False))
        scope.took(slot)
        return op

    def _gather(self, op: CallOp, binding: Binding, sources: Open) -> None:
        """Say what else can be done with a node whose calls become batches."""
        task = op.task
        if task.acall is not None:
            invoke = bind(sparing(task.acall, binding.injected), task.parameters, sources).invoke
            counted = counted_at(op.site, invoke, Kind.ASYNC) if task.retries else invoke
            op.on_loop = replace(op, kind=Kind.ASYNC, invoke=counted)
        if task.given is not None:
            given = bind(task.given, task.parameters, sources).invoke
            op.gather = Gather(given, lambda: task.batched.batcher)

    def _executor_of(self, task: Task) -> str | None:
        chosen = task.executor or self._executor
        if chosen is None or chosen == "thread":  # where the flow runs, branches are on threads already
            return None
        if task.kind in (Kind.STREAM, Kind.ASYNC_STREAM):
            raise ConfigurationError(
                f"node {task.name!r} is a generator, which cannot leave its process; executor={chosen!r} is allowed "
                f"on functions only"
            )
        if task.cache is not None or task.batched is not None:
            check_stays(task.name, chosen)
        return chosen

    def _sources(self, task: Task, scope: Scope) -> Open:
        def available() -> list[str]:
            context = () if self._context is None else sorted(provider_names(self._context))
            return [
                *(f"output {name!r}" for name, found in scope.names.items() if found),
                *(f"input {name!r}" for name in self._inputs),
                *(f"provider {name!r}" for name in context),
            ]

        return Open(
            flow=self._flow,
            node=task.name,
            outputs=lambda name: scope.names.get(name, ()),
            given=self._inputs.get,
            provider=self._providers.asked_by,
            previous=scope.previous,
            whole=INPUTS if scope.first and self._has_inputs else None,
            forced=scope.forced,
            available=available,
        )

    def _upstream(self, binding: Binding) -> tuple[list[str], tuple[tuple[Source, ...], ...]]:
        """Return the nodes that a node takes outputs of: their names, or what tells them where runs differ."""
        made = [[each for each in taken if each.slot in self._makers] for taken in binding.takes]
        sources = tuple(tuple(Source(each.slot, self._makers[each.slot]) for each in taken) for taken in made if taken)
        makers = [maker for parameter in sources for source in parameter for maker in source.makers]
        if all(each.certain for taken in made for each in taken) and all(maker.given is None for maker in makers):
            return [maker.name for maker in makers], ()
        return [], sources

    def _span_slot(self, op: CallOp | SubOp) -> int:
        if op.span_slot is None:
            op.span_slot = self._slot()
            if isinstance(op, CallOp) and op.on_loop is not None:
                op.on_loop.span_slot = op.span_slot
        return op.span_slot

    def _links(self, scope: Scope) -> tuple[int, ...]:
        if not any(candidate.slot in self._parallel for candidate in scope.previous):
            return ()
        found = [slot for candidate in scope.previous for slot in self._spans[candidate.slot]()]
        return tuple(dict.fromkeys(found))

    def _merged(self, slots: Sequence[int], slot: int) -> None:
        """Say that ``slot`` is filled by what fills ``slots``."""
        self._makers[slot] = [maker for part in slots for maker in self._makers.get(part, [])]
        self._spans[slot] = lambda: [found for part in slots if part in self._spans for found in self._spans[part]()]

    # --- steps side by side --------------------------------------------------------------------------------

    def _within(self, executor: str | None, work: Callable[[], Op]) -> Op:
        before, self._executor = self._executor, executor or self._executor
        try:
            return work()
        finally:
            self._executor = before

    def _fan_out(self, step: FanOut, scope: Scope) -> FanOutOp:
        scopes = [scope.inner() for _ in step.branches]
        ops = tuple(
            self._within(step.executor, lambda branch=branch, inner=inner: self._step(branch, inner))  # type: ignore[misc]
            for branch, inner in zip(step.branches, scopes, strict=True)
        )
        slot = self._slot()
        self._share(scope, scopes, step, ops)
        self._merged([op.slot for op in ops], slot)
        self._parallel.add(slot)
        scope.names[PARALLEL_RESULTS] = (Candidate(slot),)
        scope.took(slot)
        return FanOutOp(step.keys, ops, slot, step.max_workers, step.collect)

    def _share(self, scope: Scope, scopes: Sequence[Scope], step: FanOut, ops: Sequence[Op]) -> None:
        """Make what branches have named visible after them; a name that several give says nothing any more.

        Of a branch whose failure is collected only the result is certain to be there.
        """
        own = [{name for name, _, _ in inner.outputs} for inner in scopes]
        for inner, key, mine, op in zip(scopes, step.keys, own, ops, strict=True):
            for name in mine:
                if sum(name in other for other in own) > 1:
                    scope.names.pop(name, None)
                elif inner.names.get(name) == (Candidate(op.slot),) or not step.collect:
                    scope.names[name] = inner.names.get(name, ())
                else:
                    scope.may_have(name, inner)
            for name, slot, spread in inner.outputs:
                clash = sum(name in other for other in own) > 1
                scope.outputs.append((f"{key}.{name}" if clash and name != key else name, slot, spread))

    def _map(self, step: Map, scope: Scope) -> MapOp:
        (source,) = scope.previous
        inner = scope.inner()
        body = self._within(step.executor, lambda: self._step(step.body, inner))
        slot = self._slot()
        op = MapOp(
            key=step.name,
            op=body,
            source=source.slot,
            slot=slot,
            workers=step.workers,
            copies=step.copies,
            split=step.split,
            keyed=step.keyed,
            collect=step.collect,
            aliases=self._same.get(source.slot, ()),
            gathers=any(task.batched is not None for task in tasks(step.body)),
        )
        self._makers[slot] = [Maker(maker.name) for maker in self._makers.get(body.slot, [])]
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

    def _chunked(self, step: Chunked, scope: Scope) -> ChunkedOp:
        (source,) = scope.previous
        body = None if step.body is None else self._step(step.body, scope.inner())
        makers = [maker.name for maker in self._makers.get(source.slot, []) if maker.given is None]
        slot = self._slot()
        self._makers[slot] = [Maker(step.stage)]
        self._spans[slot] = list
        if body is not None:
            scope.names[step.name] = (Candidate(slot),)
            scope.outputs.append((step.name, slot, False))
        scope.took(slot)
        site = stage_site(self._flow, step.stage, makers)
        return ChunkedOp(site, step.name, step.size, body, source.slot, slot, self._same.get(source.slot, ()))

    # --- choices, rounds, flows in flows -------------------------------------------------------------------

    def _branch(self, step: Branch, scope: Scope) -> BranchOp:
        (source,) = scope.previous
        planned: dict[int, tuple[Op, Scope]] = {}
        for choice in step.alternatives:  # a step that stands for several values is planned once
            if id(choice) not in planned:
                inner = scope.inner()
                planned[id(choice)] = (self._step(choice, inner), inner)
        slot = self._slot()
        for _, inner in planned.values():
            for name, _, _ in inner.outputs:
                scope.may_have(name, inner)
            scope.outputs.extend(inner.outputs)
        chosen = [op.slot for op, _ in planned.values()]
        self._merged(chosen, slot)
        self._makers[slot] = [
            maker if maker.given is not None else Maker(maker.name, part)
            for part in chosen
            for maker in self._makers.get(part, [])
        ]
        self._same[slot] = tuple(same for part in chosen for same in (part, *self._same.get(part, ())))
        before = ", ".join(dict.fromkeys(maker.name for maker in self._makers.get(source.slot, [])))
        scope.took(slot)
        return BranchOp(
            name=before,
            source=source.slot,
            choices={key: planned[id(choice)][0] for key, choice in step.choices.items()},
            default=None if step.default is None else planned[id(step.default)][0],
            slot=slot,
        )

    def _repeat(self, step: Repeat, scope: Scope) -> RepeatOp:
        round_before = self._slot()
        makers = self._makers[round_before] = []
        scope.forced = (Candidate(round_before, certain=False), *scope.forced)
        op = self._step(step.body, scope)
        makers.extend(Maker(maker.name) for maker in self._makers.get(op.slot, []))
        kept = {found.slot for found in self._providers.found}
        clears = tuple(slot for slot in range(round_before + 1, self._size) if slot not in kept)
        return RepeatOp(op, step.times, step.until, round_before, op.slot, clears)

    def _sub(self, name: str, body: Step, step: Sub, scope: Scope) -> SubOp:
        before, self._flow = self._flow, name
        try:
            inner = scope.inner()
            op = self._step(body, inner)
        finally:
            self._flow = before
        slot = self._slot()
        sub = SubOp(run_site(name, body), op, slot)
        self._makers[slot] = [Maker(name)]
        self._spans[slot] = lambda: [self._span_slot(sub)]
        scope.names[name] = (Candidate(slot),)
        scope.outputs.append((name, slot, False))
        scope.outputs.extend((f"{name}.{inner_name}", held, spread) for inner_name, held, spread in inner.outputs)
        scope.took(slot)
        return sub
