"""From a graph to a plan: every value gets a slot, every node a site and a closure that calls it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from aetherflow.engine.graph import (
    Branch,
    Call,
    Chain,
    Chunked,
    FanOut,
    Kind,
    Map,
    Repeat,
    Step,
    Sub,
    Task,
    returns_none,
    tasks,
)
from aetherflow.engine.plan import (
    FIRST,
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
    Slots,
    Source,
    SubOp,
)
from aetherflow.errors import ConfigurationError
from aetherflow.flow.arguments import Binding, SlotCandidate
from aetherflow.flow.async_injection import await_injected, bind_providers
from aetherflow.flow.binding import bind
from aetherflow.flow.caching import sparing
from aetherflow.flow.declaring import check_stays
from aetherflow.flow.extra_inputs import BoundNode, ExtraInputs, assign_extra_inputs
from aetherflow.flow.injecting import Providers, container_of, has_resources, is_overridden, nature_of
from aetherflow.flow.scope import Scope
from aetherflow.flow.sites import DIAGRAM_SITE, node_site, observer_for, run_site, stage_site
from aetherflow.flow.sources import PARALLEL_RESULTS, BindingContext, PreviousOutput
from aetherflow.resources.context import AnyContext, provider_names
from aetherflow.resources.scopes import context_locals_of

__all__ = ["DiagramPlan", "Planned", "plan", "plan_for_diagram"]


class Planned(NamedTuple):
    """A plan, and what `UnusedOutputWarning` has to say of its nodes, by flow and node."""

    plan: Plan
    warnings: Mapping[tuple[str, str], str]


def plan(
    flow: str,
    step: Step,
    inputs: tuple[str, ...] | None,
    context: AnyContext | None,
    *,
    value: bool = False,
    extra_inputs: ExtraInputs = "raise",
) -> Planned:
    """Plan a flow for a set of input names and the class of a context.

    Args:
        flow: The flow's name.
        step: Its graph.
        inputs: The names of its inputs, in the order of their slots; None if it is run without.
        context: A context of the class to plan for.
        value: Whether the flow is run on a single value instead of a mapping of inputs.
        extra_inputs: Whether an input that no parameter takes is an error.

    Raises:
        MissingInputError: Nothing can fill a parameter.
        UnknownInputError: No parameter takes an input.
    """
    planner = _Planner(flow, step, inputs, context, value)
    planned_flow = planner.plan()
    assign_extra_inputs(flow, planner.inputs, planner.bound, extra_inputs)
    return Planned(planned_flow, planner.warnings)


class DiagramPlan(NamedTuple):
    """A plan for a diagram.

    Args:
        op: The operation of the flow.
        bindings: The bindings of its nodes, in the order in which they are planned.
        silent: The slots of steps that have no output to pass on, since they end in nodes annotated ``-> None``.
    """

    op: Op
    bindings: Sequence[Binding]
    silent: frozenset[int]


def plan_for_diagram(flow: str, step: Step, context: AnyContext | None) -> DiagramPlan:
    """Plan a flow whose inputs are not known, to find out where data flows.

    A parameter that nothing else fills is assumed to be a run input.

    Args:
        flow: The flow's name.
        step: Its graph.
        context: A context, or a context class, whose providers fill parameters; None for no providers.
    """
    planner = _Planner(flow, step, None, context, False, is_sketch=True)
    planner.plan()
    inputs = tuple(dict.fromkeys(name for each in planner.bound for name in each.binding.missing))
    planner = _Planner(flow, step, inputs, context, False, is_sketch=True)
    op = planner.plan().op
    return DiagramPlan(op, [each.binding for each in planner.bound], planner.silent_slots())


class _Planner:
    def __init__(
        self,
        flow: str,
        step: Step,
        inputs: tuple[str, ...] | None,
        context: AnyContext | None,
        value: bool,
        *,
        is_sketch: bool = False,
    ) -> None:
        self._flow = flow
        self._root = flow
        self._root_step = step
        self.inputs = {name: FIRST + index for index, name in enumerate(inputs or ())}
        self._has_inputs = inputs is not None
        self._value = value
        self._context = context
        self._provider_names = frozenset() if context is None else provider_names(context)
        self._is_sketch = is_sketch
        self._size = FIRST + len(self.inputs)
        self._providers = Providers(context, self._slot)
        self._loop_bound: set[int] = set()
        self._executor: str | None = None
        self._makers: dict[int, list[Maker]] = {}  # slot -> nodes that may have filled it
        self._spans: dict[int, Callable[[], list[int]]] = {}  # slot -> slots of the spans that filled it
        self._owners: dict[int, int] = {}  # slot of a span -> slot of the step that it shows
        self._parallel: set[int] = set()
        self._same: dict[int, tuple[int, ...]] = {}  # slot -> slots of which one holds the same value
        self._outputs: dict[int, PreviousOutput] = {}  # slot -> its value as the output of a step
        self._names_in_flow: frozenset[str] | None = None
        self.bound: list[BoundNode] = []
        self.warnings: dict[tuple[str, str], str] = {}

    def plan(self) -> Plan:
        step = self._root_step
        scope = Scope()
        op = self._step(step, scope)
        single = isinstance(op, CallOp)
        site = None if single or self._is_sketch else run_site(self._root, step)
        parts: Sequence[Op] = op.ops if isinstance(op, ChainOp) else (op,)
        calls = [part for part in parts if isinstance(part, CallOp) and part.kind is Kind.SYNC and not part.executor]
        if single:
            self._spans[op.slot]()
        providers = self._providers.found
        given = [found.get(self._context) for found in providers] if self._context is not None else []
        local = [p for p, each in zip(providers, given, strict=False) if context_locals_of(each)]
        return Plan(
            flow=self._root,
            op=op,
            site=site,
            blank=[UNSET] * (self._size - FIRST - len(self.inputs)),
            providers=tuple((found.get, found.slot) for found in providers),
            natures=tuple(map(nature_of, given)),
            outputs=tuple(scope.outputs),
            linear=tuple(calls) if len(calls) == len(parts) else (),
            single=single,
            context_local=tuple(p.slot for p in local if p.awaiting != "async"),
            awaited_local=tuple(p.slot for p in local if p.awaiting == "async"),
            loop_bound=frozenset(self._loop_bound) | {p.slot for p in providers if p.awaiting == "async"},
            has_resources=any(map(has_resources, given)),
            overridden=any(map(is_overridden, given)),
            observer=observer_for(step),
        )

    def silent_slots(self) -> frozenset[int]:
        """Return the slots of steps that have no output to pass on."""
        return frozenset(slot for slot, output in self._outputs.items() if output.is_silent)

    def _flow_parameters(self) -> frozenset[str]:
        """Return the names of all parameters of the flow."""
        if self._names_in_flow is None:
            parameters = (each for task in tasks(self._root_step) for each in task.parameters)
            self._names_in_flow = frozenset(parameter.name for parameter in parameters)
        return self._names_in_flow

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

    def _follow(self, scope: Scope, output: PreviousOutput) -> None:
        """Make an output the one that the next step follows."""
        self._outputs[output.slot] = output
        scope.follow(output)

    # --- one node ------------------------------------------------------------------------------------------

    def _call(self, task: Task, scope: Scope) -> CallOp:
        context = self._binding_context(scope)
        binding = bind(task, context)
        self.bound.append(BoundNode(task, context, binding))
        if binding.warning:
            self.warnings.setdefault((self._flow, task.name), binding.warning)
        if context.has_value and not binding.takes_value:
            raise ConfigurationError(
                f"flow {self._root!r} was run on a single value, but its first node {task.name!r} has no positional "
                f"parameter without a marker or a provider's name to take it; give a mapping of inputs"
            )
        awaited_parameters = bind_providers(task, binding, self._providers)
        call = task.call
        if task.cache is not None and binding.injected:
            call = sparing(call, binding.injected)
        executor = self._executor_of(task)
        slot = self._slot()
        upstream, makers = self._upstream(binding)
        note = "" if binding.whole_mapping is None else _whole_mapping_note(task.name, binding.whole_mapping)
        scopes = self._providers.scopes(binding.providers)
        site = DIAGRAM_SITE if self._is_sketch else node_site(self._flow, task, scopes, upstream, note)
        invoke = binding.invoker(call)
        arguments = binding.named_arguments() if executor else _no_arguments
        op = CallOp(
            site=site,
            kind=task.kind,
            invoke=invoke,
            slot=slot,
            task=task,
            arguments=lambda slots: ((), arguments(slots)),
            links=self._links(scope),
            rounds=scope.rounds,
            upstream=makers,
            executor=executor,
            injected=tuple(binding.providers),
            container=self._providers.take("<container>", container_of) if executor and binding.providers else None,
        )
        if task.batched is not None:
            self._gather(op, binding)
        if awaited_parameters:
            await_injected(op, awaited_parameters)
        if task.declared in (Kind.ASYNC, Kind.ASYNC_STREAM):
            self._loop_bound.update(provider for _, provider in binding.providers)
        self._makers[slot] = [Maker(task.name)]
        self._spans[slot] = lambda: [self._span_slot(op)]
        scope.define(task.name, slot)
        scope.outputs.append((task.name, slot, False))
        self._follow(scope, PreviousOutput.of_step(slot, task.name, (task.name,), is_silent=task.returns_none))
        return op

    def _gather(self, op: CallOp, binding: Binding) -> None:
        """Say what else can be done with a node whose calls become batches."""
        task = op.task
        if task.acall is not None:
            op.on_loop = replace(op, kind=Kind.ASYNC, invoke=binding.invoker(sparing(task.acall, binding.injected)))
        if task.given is not None:
            op.gather = Gather(binding.invoker(task.given), lambda: task.batched.batcher)

    def _executor_of(self, task: Task) -> str | None:
        chosen = task.executor or self._executor
        # Branches are on threads already; a diagram runs nothing.
        if self._is_sketch or chosen is None or chosen == "thread":
            return None
        if task.kind in (Kind.STREAM, Kind.ASYNC_STREAM):
            raise ConfigurationError(
                f"node {task.name!r} is a generator, which cannot leave its process; executor={chosen!r} is allowed "
                f"on functions only"
            )
        if task.cache is not None or task.batched is not None:
            check_stays(task.name, chosen)
        return chosen

    def _binding_context(self, scope: Scope) -> BindingContext:
        names = scope.names
        return BindingContext(
            flow=self._flow,
            outputs=lambda name: names.get(name, ()),
            ambiguous=scope.ambiguous,
            inputs=self.inputs,
            has_mapping=self._has_inputs and not self._value,
            has_value=self._value and scope.is_first,
            has_context=self._context is not None,
            providers=self._provider_names,
            marked=self._providers.marked,
            named=self._providers.named,
            previous=scope.previous,
            rounds=scope.rounds,
            is_first=scope.is_first,
            is_alternative=scope.is_alternative,
            is_default=scope.is_default,
            flow_parameters=self._flow_parameters,
            extra=[],
            describe=lambda slot: self._outputs[slot].step,
            available=lambda: self._available(names),
            is_sketch=self._is_sketch,
        )

    def _available(self, names: Mapping[str, Sequence[SlotCandidate]]) -> list[str]:
        return [
            *(f"output {name!r}" for name, candidates in names.items() if candidates),
            *(f"input {name!r}" for name in self.inputs),
            *(f"provider {name!r}" for name in sorted(self._provider_names)),
        ]

    def _upstream(self, binding: Binding) -> tuple[list[str], tuple[tuple[Source, ...], ...]]:
        """Return the nodes that a node takes outputs of: their names, or what tells them where runs differ."""
        sources: list[tuple[Source, ...]] = []
        is_certain = True
        for argument in binding.arguments:
            if argument.candidates:
                outputs = [each for each in argument.candidates if each.slot in self._makers]
                sources.append(tuple(Source(each.slot, self._makers[each.slot], each.condition) for each in outputs))
                is_certain = is_certain and all(each.is_certain for each in outputs)
        makers = [maker for parameter in sources for source in parameter for maker in source.makers]
        if is_certain and all(maker.given is None for maker in makers):
            return [maker.name for maker in makers], ()
        return [], tuple(filter(None, sources))

    def _span_slot(self, op: CallOp | SubOp) -> int:
        if op.span_slot is None:
            op.span_slot = self._slot()
            self._owners[op.span_slot] = op.slot
            if isinstance(op, CallOp) and op.on_loop is not None:
                op.on_loop.span_slot = op.span_slot
        return op.span_slot

    def _links(self, scope: Scope) -> tuple[int, ...]:
        previous = scope.previous
        if previous is None or previous.slot not in self._parallel:
            return ()
        return tuple(dict.fromkeys(self._spans[previous.slot]()))

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
        scope.define(PARALLEL_RESULTS, slot)
        results = [self._outputs[op.slot] for op in ops]
        self._follow(scope, PreviousOutput.of_branches(slot, step.name, step.keys, results))
        return FanOutOp(step.keys, ops, slot, step.max_workers, step.collect)

    def _share(self, scope: Scope, scopes: Sequence[Scope], step: FanOut, ops: Sequence[Op]) -> None:
        """Make the outputs of branches visible after them.

        A name that several branches have is ambiguous, unless it is the key of one: then it means the result of that
        branch. If failures are collected, only the results of branches are certain to be there.
        """
        own = [{name for name, _, _ in inner.outputs} for inner in scopes]
        ambiguous_before = frozenset(scope.ambiguous)
        for inner, key, mine, op in zip(scopes, step.keys, own, ops, strict=True):
            scope.ambiguous |= inner.ambiguous - ambiguous_before
            for name in mine:
                if sum(name in other for other in own) > 1:
                    scope.ambiguous.add(name)
                elif inner.names.get(name) == (SlotCandidate(op.slot),) or not step.collect:
                    scope.names[name] = inner.names.get(name, ())
                    if name not in inner.ambiguous:
                        scope.ambiguous.discard(name)
                else:
                    scope.may_have(name, inner)
            for name, slot, spread in inner.outputs:
                clash = sum(name in other for other in own) > 1
                scope.outputs.append((f"{key}.{name}" if clash and name != key else name, slot, spread))
        for key, op in zip(step.keys, ops, strict=True):
            scope.define(key, op.slot)

    def _map(self, step: Map, scope: Scope) -> MapOp:
        source = _previous_of(scope)
        body = self._within(step.executor, lambda: self._step(step.body, scope.inner()))
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
        self._makers[slot], op.ran = self._kept_makers(body.slot)
        self._spans[slot] = lambda: self._gathered(op)
        self._parallel.add(slot)
        scope.define(step.name, slot)
        scope.define(PARALLEL_RESULTS, slot)
        scope.outputs.append((step.name, slot, True))
        self._follow(scope, PreviousOutput.of_step(slot, step.name, (step.name, PARALLEL_RESULTS)))
        return op

    def _kept_makers(self, slot: int) -> tuple[list[Maker], tuple[tuple[int, int], ...]]:
        """Return the nodes that may have filled a slot, for use when the slots that show which ran are gone.

        Returns:
            The nodes, and pairs of a slot that shows whether a node ran and the slot that keeps this.
        """
        copies: dict[int, int] = {}
        makers = []
        for maker in self._makers.get(slot, []):
            if maker.given is not None and maker.given not in copies:
                copies[maker.given] = self._slot()
            makers.append(Maker(maker.name, None if maker.given is None else copies[maker.given]))
        return makers, tuple(copies.items())

    def _gathered(self, op: MapOp) -> list[int]:
        if not op.span_slots:
            for inner in self._spans[op.op.slot]():
                op.span_slots.append((inner, self._slot()))
                self._owners[self._size - 1] = op.slot
        return [outer for _, outer in op.span_slots]

    def _chunked(self, step: Chunked, scope: Scope) -> ChunkedOp:
        source = _previous_of(scope)
        body = None if step.body is None else self._step(step.body, scope.inner())
        makers = self._makers.get(source.slot, [])
        is_certain = all(maker.given is None for maker in makers)
        slot = self._slot()
        self._makers[slot] = [Maker(step.stage)]
        self._spans[slot] = list
        if body is not None:
            scope.define(step.name, slot)
            scope.outputs.append((step.name, slot, False))
        names = () if body is None else (step.name,)
        self._follow(scope, PreviousOutput.of_step(slot, step.name, names))
        producers = [maker.name for maker in makers] if is_certain else ()
        site = DIAGRAM_SITE if self._is_sketch else stage_site(self._flow, step.stage, producers)
        upstream = () if is_certain else ((Source(source.slot, makers),),)
        aliases = self._same.get(source.slot, ())
        return ChunkedOp(site, step.name, step.size, body, source.slot, slot, aliases, upstream)

    # --- choices, rounds, flows in flows -------------------------------------------------------------------

    def _branch(self, step: Branch, scope: Scope) -> BranchOp:
        source = _previous_of(scope)
        planned: dict[int, tuple[Op, Scope]] = {}
        ranges = []
        for choice in step.alternatives:  # a step that stands for several values is planned once
            if id(choice) not in planned:
                inner = scope.inner()
                inner.is_alternative, inner.is_default = True, choice is step.default
                first_slot = self._size
                planned[id(choice)] = (self._step(choice, inner), inner)
                ranges.append(range(first_slot, self._size))
        slot = self._slot()
        scopes = [inner for _, inner in planned.values()]
        scope.may_have_any((*(name for inner in scopes for name, _, _ in inner.outputs), PARALLEL_RESULTS), scopes)
        for inner in scopes:
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
        outputs = [self._outputs[part] for part in chosen]
        self._follow(scope, PreviousOutput.of_alternatives(slot, step.name, outputs, ranges))
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
        if not returns_none(step.body):
            scope.rounds = (round_before, *scope.rounds)
        op = self._step(step.body, scope)
        lasting = {provider.slot for provider in self._providers.found}
        # Slots of spans belong to the steps that they show, and those may come before the rounds.
        lasting |= {slot for slot, owner in self._owners.items() if owner < round_before}
        clears = tuple(slot for slot in range(round_before + 1, self._size) if slot not in lasting)
        kept_makers, ran = self._kept_makers(op.slot)
        makers.extend(kept_makers)
        silent = self._outputs[op.slot].silent
        return RepeatOp(op, step.times, step.until, round_before, op.slot, clears, silent, ran)

    def _sub(self, name: str, body: Step, step: Sub, scope: Scope) -> SubOp:
        before, self._flow = self._flow, name
        try:
            inner = scope.inner()
            op = self._step(body, inner)
        finally:
            self._flow = before
        slot = self._slot()
        sub = SubOp(DIAGRAM_SITE if self._is_sketch else run_site(name, body), op, slot)
        self._makers[slot] = [Maker(name)]
        self._spans[slot] = lambda: [self._span_slot(sub)]
        scope.define(name, slot)
        scope.outputs.append((name, slot, False))
        scope.outputs.extend((f"{name}.{inner_name}", held, spread) for inner_name, held, spread in inner.outputs)
        self._follow(scope, self._outputs[op.slot].of_flow(slot, name))
        return sub


def _previous_of(scope: Scope) -> PreviousOutput:
    assert scope.previous is not None  # composing begins with a node
    return scope.previous


def _no_arguments(slots: Slots) -> dict[str, Any]:
    """Return no arguments: only executions on workers are given them by name."""
    return {}


def _whole_mapping_note(node: str, parameter: str) -> str:
    return f"aetherflow: parameter {parameter!r} of node {node!r} received the whole mapping of run inputs"
