"""The nodes between which data flows, for diagrams: derived from the flow's plan, not from the order of its steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from aetherflow.engine.graph import Step
from aetherflow.engine.plan import BranchOp, CallOp, ChainOp, ChunkedOp, FanOutOp, MapOp, Op, RepeatOp, SubOp
from aetherflow.flow.planning import DiagramPlan, plan_for_diagram
from aetherflow.resources.context import AnyContext, context_class

__all__ = ["DataFlow", "data_flow"]


@dataclass(slots=True)
class DataFlow:
    """The data flow of a graph; nodes are numbered in the order in which a diagram draws them, from 0.

    Args:
        sources: For each node, the numbers of the nodes whose outputs it takes.
        loops: For each ``repeat``, inner ones first, whether a round takes the output of the round before.
    """

    sources: list[frozenset[int]] = field(default_factory=list)
    loops: list[bool] = field(default_factory=list)


def data_flow(flow: str, step: Step, context: AnyContext | None) -> DataFlow:
    """Return the data flow of a graph. A parameter that nothing else fills is assumed to be a run input.

    Args:
        flow: The flow's name.
        step: Its graph.
        context: A context, or a context class, whose providers fill parameters; None for no providers.

    Raises:
        ConfigurationError: `context` is not a container.
    """
    if context is not None:
        context_class(context)
    return _Tracer(plan_for_diagram(flow, step, context)).trace()


class _Tracer:
    """Follows the operations of a plan in the order in which they were planned."""

    def __init__(self, plan: DiagramPlan) -> None:
        self._plan = plan
        self._bindings = iter(plan.bindings)
        self._flow = DataFlow()
        self._producers: dict[int, frozenset[int]] = {}  # slot -> nodes that may have filled it
        self._taken: set[int] = set()

    def trace(self) -> DataFlow:
        self._follow(self._plan.op)
        return self._flow

    def _follow(self, op: Op) -> frozenset[int]:
        """Add the nodes of an operation; return those that produce its output."""
        match op:
            case CallOp():
                candidates = (each for argument in next(self._bindings).arguments for each in argument.candidates)
                producers = self._node([each.slot for each in candidates])
            case ChunkedOp(op=None):
                producers = self._node([op.source])
            case ChainOp(ops):
                producers = [self._follow(part) for part in ops][-1]
            case RepeatOp():
                producers = self._follow(op.op)
                self._flow.loops.append(op.previous in self._taken)
            case BranchOp():
                followed = [(part, self._follow(part)) for part in _parts(op)]
                producers = frozenset().union(
                    *(nodes for part, nodes in followed if part.slot not in self._plan.silent)
                )
            case _:
                producers = frozenset().union(*[self._follow(part) for part in _parts(op)])
        self._producers[op.slot] = producers
        return producers

    def _node(self, slots: Sequence[int]) -> frozenset[int]:
        self._taken.update(slots)
        sources = (self._producers.get(slot, frozenset()) for slot in slots)
        self._flow.sources.append(frozenset().union(*sources))
        return frozenset((len(self._flow.sources) - 1,))


def _parts(op: FanOutOp | MapOp | ChunkedOp | BranchOp | SubOp) -> Iterator[Op]:
    match op:
        case FanOutOp(ops=ops):
            yield from ops
        case BranchOp():
            alternatives = (*op.choices.values(), *(() if op.default is None else (op.default,)))
            yield from {id(each): each for each in alternatives}.values()
        case _:
            assert op.op is not None  # a `chunked` without a body is a node of its own
            yield op.op
