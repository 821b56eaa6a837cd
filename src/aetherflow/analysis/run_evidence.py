"""What the traces of runs show: when which node ran, alone or beside others, on which threads, with what injected."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from aetherflow.analysis.spans import Span
from aetherflow.telemetry import conventions as names

__all__ = ["FanOut", "FlowEvidence", "RunEvidence", "SeenNode", "gather_runs"]

_MOST_TRACES: Final = 2_000


@dataclass(slots=True)
class SeenNode:
    """A node over all runs.

    Attributes:
        executions: All executions.
        computed: Executions that were computed at their first attempt.
        seconds: Seconds in computed executions.
        alone: Seconds in computed executions during which nothing else of their run was active.
        scope: How what it is injected with is shared.
    """

    executions: int = 0
    computed: int = 0
    seconds: float = 0.0
    alone: float = 0.0
    scope: str = ""
    providers: dict[str, str] = field(default_factory=dict)
    """Scopes of the providers that it is injected from, by name."""
    threads: set[object] = field(default_factory=set)
    parts: int = 0
    """Executions that were parts of a partitioned fan-out."""

    @property
    def mean(self) -> float:
        """Seconds that a computed execution takes; 0 if there was none."""
        return self.seconds / self.computed if self.computed else 0.0


@dataclass(slots=True)
class FanOut:
    """Branches that ran side by side, over all runs: seconds from the first start to the last end, and those unused."""

    times: int = 0
    seconds: float = 0.0
    idle: float = 0.0
    branches: int = 0
    slowest: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    partitioned: bool = False


@dataclass(slots=True)
class FlowEvidence:
    """A flow over all runs: how many, their seconds, and those in which no node went on."""

    runs: int = 0
    seconds: float = 0.0
    between: float = 0.0
    nodes: defaultdict[str, SeenNode] = field(default_factory=lambda: defaultdict(SeenNode))
    fan_outs: defaultdict[str, FanOut] = field(default_factory=lambda: defaultdict(FanOut))


@dataclass(frozen=True, slots=True)
class RunEvidence:
    """What is known of flows, by name."""

    flows: dict[str, FlowEvidence] = field(default_factory=dict)

    def scope_of(self, flow: str, node: str) -> str:
        """Give the scope of what a node is injected with; empty where no trace shows it."""
        known = self.flows.get(flow)
        return known.nodes[node].scope if known and node in known.nodes else ""


def gather_runs(spans: Iterable[Span]) -> RunEvidence:
    """Gather what spans show of runs; of very many traces the first.

    Args:
        spans: Those of any number of traces, in any order.
    """
    traces: dict[str, list[Span]] = {}
    for span in spans:
        if span.trace_id in traces or len(traces) < _MOST_TRACES:
            traces.setdefault(span.trace_id, []).append(span)
    evidence = RunEvidence()
    for trace in traces.values():
        below: defaultdict[str | None, list[Span]] = defaultdict(list)
        for span in trace:
            below[span.parent_id].append(span)
        for span in trace:
            if names.FLOW_NODES in span.attributes and not span.failed:
                name = str(span.attributes.get(names.FLOW_NAME, ""))
                _add_run(evidence.flows.setdefault(name, FlowEvidence()), span, below[span.span_id])
    return evidence


def _add_run(flow: FlowEvidence, run: Span, children: Sequence[Span]) -> None:
    flow.runs += 1
    flow.seconds += run.duration
    inside = [span for span in children if names.NODE_NAME in span.attributes]
    for span in inside:
        _add_execution(flow.nodes[_name(span)], span)
    for active, seconds in _stretches(run, children):
        if not active:
            flow.between += seconds
        elif len(active) == 1 and active[0].is_computed:
            flow.nodes[_name(active[0])].alone += seconds
    for title, branches in _side_by_side(inside).items():
        if all(span.is_computed for span in branches):  # a hit ends early, a retried branch late: neither is the work
            _add_fan_out(flow.fan_outs[title], branches)


def _add_execution(node: SeenNode, span: Span) -> None:
    node.executions += 1
    if span.is_computed:
        node.computed += 1
        node.seconds += span.duration
    node.scope = str(span.attributes.get(names.PROVIDER_SCOPE, node.scope))
    node.parts += names.BATCH_COUNT in span.attributes
    node.threads.add(span.attributes.get(names.THREAD_ID))
    providers, scopes = span.attributes.get(names.PROVIDER_NAMES), span.attributes.get(names.PROVIDER_SCOPES)
    if isinstance(providers, tuple) and isinstance(scopes, tuple):
        node.providers |= {str(name): str(scope) for name, scope in zip(providers, scopes, strict=False)}


def _stretches(run: Span, children: Sequence[Span]) -> Iterable[tuple[list[Span], float]]:
    """Cut a run at each start and end of a child; yield the active children and the seconds of each piece."""
    moments = []
    for place, span in enumerate(children):
        start, end = max(run.start, span.start), min(run.end, span.end)
        if start < end:
            moments += [(start, 1, place), (end, 0, place)]
    active: set[int] = set()
    at = run.start
    for moment, begins, place in sorted(moments):
        if moment > at:
            yield [children[each] for each in sorted(active)], (moment - at) / 1e9
            at = moment
        if begins:
            active.add(place)
        else:
            active.remove(place)
    if run.end > at:
        yield [], (run.end - at) / 1e9


def _name(span: Span) -> str:
    return str(span.attributes.get(names.NODE_NAME) or span.attributes.get(names.FLOW_NAME) or span.name)


def _side_by_side(spans: Iterable[Span]) -> dict[str, list[Span]]:
    """Group what took the output of the same nodes, where any of it overlaps."""
    groups: defaultdict[tuple[object, str], list[Span]] = defaultdict(list)
    for span in spans:
        part = _name(span) if names.BATCH_COUNT in span.attributes else ""
        groups[span.attributes.get(names.NODE_UPSTREAM), part].append(span)
    found = {}
    for branches in groups.values():
        branches.sort(key=lambda span: span.start)
        if len(branches) > 1 and any(b.start < a.end for a, b in itertools.pairwise(branches)):
            found[", ".join(dict.fromkeys(map(_name, branches)))] = branches
    return found


def _add_fan_out(fan_out: FanOut, branches: Sequence[Span]) -> None:
    first, last = min(span.start for span in branches), max(span.end for span in branches)
    lanes = len({span.attributes.get(names.THREAD_ID) for span in branches})
    seconds = (last - first) / 1e9
    fan_out.times += 1
    fan_out.seconds += seconds
    fan_out.branches += len(branches)
    fan_out.idle += max(0.0, lanes * seconds - math.fsum(span.duration for span in branches)) / lanes
    fan_out.partitioned = names.BATCH_COUNT in branches[0].attributes
    fan_out.slowest[_name(max(branches, key=lambda span: span.duration))] += 1
