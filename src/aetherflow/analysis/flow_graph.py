"""Flows as their traces show them: which nodes took whose output, how often, how long, and with how many errors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from aetherflow.analysis.spans import Span
from aetherflow.telemetry import conventions as names

__all__ = ["FlowGraph", "GraphNode", "flow_graphs"]


@dataclass(slots=True)
class GraphNode:
    """A node, or a flow inside a flow, over all runs; times in seconds.

    Attributes:
        executions: All executions.
        errors: Executions that failed.
        seconds: Time in all executions.
        computed: Executions that were computed at their first attempt.
        computed_seconds: Time in computed executions.
        slowest: The longest computed execution.
        is_flow: Whether it is a flow inside a flow.
    """

    executions: int = 0
    errors: int = 0
    seconds: float = 0.0
    computed: int = 0
    computed_seconds: float = 0.0
    slowest: float = 0.0
    is_flow: bool = False

    @property
    def mean(self) -> float | None:
        """Seconds that a computed execution takes; None if there was none."""
        return self.computed_seconds / self.computed if self.computed else None

    def add(self, span: Span) -> None:
        """Count one execution."""
        self.executions += 1
        self.errors += span.failed
        self.seconds += span.duration
        if span.is_computed:
            self.computed += 1
            self.computed_seconds += span.duration
            self.slowest = max(self.slowest, span.duration)


@dataclass(slots=True)
class FlowGraph:
    """One flow.

    Attributes:
        runs: Runs that were seen.
        errors: Those of them that failed.
        seconds: What they took together.
        nodes: By name, in the order in which they were first seen to begin.
        edges: How often the second took the output of the first.
        order: How often the second, which took no node's output, began when the first had ended.
    """

    runs: int = 0
    errors: int = 0
    seconds: float = 0.0
    nodes: dict[str, GraphNode] = field(default_factory=dict)
    edges: defaultdict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    order: defaultdict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))


def flow_graphs(traces: Iterable[Sequence[Span]]) -> dict[str, FlowGraph]:
    """Put the flows together that traces show.

    Args:
        traces: The spans of each trace, in any order.

    Returns:
        The flows by name. Only what AetherFlow emitted is part of one.
    """
    graphs: defaultdict[str, FlowGraph] = defaultdict(FlowGraph)
    for spans in traces:
        flow_of = {span.span_id: _text(span, names.FLOW_NAME) for span in spans if _is_run(span)}
        siblings: defaultdict[str, list[Span]] = defaultdict(list)
        for span in spans:
            if _is_run(span):
                _add_run(graphs[flow_of[span.span_id]], span)
            if span.parent_id in flow_of and _member(span):
                siblings[span.parent_id].append(span)
            elif span.parent_id not in flow_of and names.NODE_NAME in span.attributes and not _is_batch(span):
                siblings[""].append(span)
        for run, members in siblings.items():
            members.sort(key=lambda span: (span.start, span.end))
            for flow, part in _by_flow(members, flow_of.get(run)):
                _add_members(graphs[flow], part, siblings)
    return dict(graphs)


def _sources_of(span: Span, members_of: Mapping[str, Sequence[Span]]) -> tuple[str, ...]:
    """Return the names of the nodes whose outputs a node took; for a flow inside another, of nodes outside of it."""
    if not _is_run(span):
        upstream = span.attributes.get(names.NODE_UPSTREAM)
        return tuple(dict.fromkeys(map(str, upstream))) if isinstance(upstream, tuple) else ()
    sources: dict[str, None] = {}
    members = members_of.get(span.span_id, ())
    for member in members:
        inside = {_name(other) for other in members if other.end <= member.start}
        sources.update((name, None) for name in _sources_of(member, members_of) if name not in inside)
    return tuple(sources)


def _by_flow(members: Sequence[Span], flow: str | None) -> Iterator[tuple[str, Sequence[Span]]]:
    """Part the nodes whose run was not exported, or that ran on their own, by what they say of their flow."""
    if flow is not None:
        yield flow, members
        return
    parts: defaultdict[str, list[Span]] = defaultdict(list)
    for span in members:
        parts[_text(span, names.FLOW_NAME)].append(span)
    yield from parts.items()


def _add_run(graph: FlowGraph, span: Span) -> None:
    graph.runs += 1
    graph.errors += span.failed
    graph.seconds += span.duration


def _add_members(graph: FlowGraph, members: Sequence[Span], members_of: Mapping[str, Sequence[Span]]) -> None:
    """Add the nodes of one run, by start.

    Args:
        graph: The flow.
        members: The nodes of the run, and the flows in it.
        members_of: The nodes of each run of the trace, by the identifier of the run's span.
    """
    ended = sorted(members, key=lambda span: span.end)
    at = 0
    before: Span | None = None
    for span in members:
        while at < len(ended) and ended[at].end <= span.start and ended[at] is not span:
            before = ended[at]
            at += 1
        name = _name(span)
        node = graph.nodes.setdefault(name, GraphNode(is_flow=_is_run(span)))
        node.add(span)
        if sources := _sources_of(span, members_of):
            for source in sources:
                graph.nodes.setdefault(source, GraphNode())
                graph.edges[source, name] += 1
        elif before is not None and _name(before) != name:
            graph.order[_name(before), name] += 1


def _is_run(span: Span) -> bool:
    return names.FLOW_NODES in span.attributes


def _is_batch(span: Span) -> bool:
    return span.parent_id is None and names.FLOW_NAME not in span.attributes


def _member(span: Span) -> bool:
    return _is_run(span) or names.NODE_NAME in span.attributes


def _name(span: Span) -> str:
    return _text(span, names.FLOW_NAME if _is_run(span) else names.NODE_NAME)


def _text(span: Span, key: str) -> str:
    value = span.attributes.get(key)
    return value if isinstance(value, str) else span.name
