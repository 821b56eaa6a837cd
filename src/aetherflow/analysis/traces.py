"""Traces put together from exported spans: what a file holds, and the tree of each one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from aetherflow.analysis.spans import Span

__all__ = ["SpanTree", "TraceSummary", "summarise_traces"]


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """What can be said of a trace in one line.

    Attributes:
        trace_id: Lower-case hexadecimal.
        name: The name of its root span; of the earliest span where the root was not exported.
        start: Nanoseconds since the epoch: the earliest start of a span.
        end: Nanoseconds since the epoch: the latest end of a span.
        spans: How many spans were exported.
        errors: How many of them have the status error.
    """

    trace_id: str
    name: str
    start: int
    end: int
    spans: int
    errors: int

    @property
    def duration(self) -> float:
        """Seconds from the first start to the last end, never negative."""
        return max(0, self.end - self.start) / 1e9


@dataclass(slots=True)
class _Tally:
    """A summary in the making; the name that stands is the one with the smallest rank."""

    rank: tuple[bool, int]
    name: str
    start: int
    end: int
    spans: int = 0
    errors: int = 0

    def add(self, span: Span) -> None:
        rank = _rank(span)
        if rank < self.rank:
            self.rank, self.name = rank, span.name
        self.start = min(self.start, span.start)
        self.end = max(self.end, span.end)
        self.spans += 1
        self.errors += span.failed


def _rank(span: Span) -> tuple[bool, int]:
    """Roots before others, then the earliest."""
    return span.parent_id is not None, span.start


def summarise_traces(spans: Iterable[Span]) -> list[TraceSummary]:
    """Summarise every trace among the spans; only a few numbers a trace are kept in memory.

    Args:
        spans: Spans of any number of traces, in any order.

    Returns:
        One summary a trace, the one that started last at the end.
    """
    tallies: dict[str, _Tally] = {}
    for span in spans:
        tally = tallies.get(span.trace_id)
        if tally is None:
            tally = tallies[span.trace_id] = _Tally(_rank(span), span.name, span.start, span.end)
        tally.add(span)
    summaries = [
        TraceSummary(trace_id, tally.name, tally.start, tally.end, tally.spans, tally.errors)
        for trace_id, tally in tallies.items()
    ]
    return sorted(summaries, key=lambda summary: summary.start)


@dataclass(frozen=True, slots=True)
class SpanTree:
    """The spans of one trace by their parents.

    Every span is in it exactly once, whatever was exported: a span whose parent is missing stands among the roots, one
    that was exported twice counts as the later one, and a circle of parents is opened at its earliest span.

    Attributes:
        roots: Spans without a parent here, by start.
        children: Each span's children by its id, by start; a span without children has no entry.
    """

    roots: tuple[Span, ...]
    children: dict[str, tuple[Span, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, spans: Iterable[Span]) -> SpanTree:
        """Put the spans of one trace together, whatever their order."""
        by_id = {span.span_id: span for span in spans}
        below: dict[str, list[Span]] = {}
        roots: list[Span] = []
        for span in sorted(by_id.values(), key=_start):
            if span.parent_id in by_id:
                below.setdefault(span.parent_id, []).append(span)
            else:
                roots.append(span)
        reached: set[str] = set()
        children: dict[str, tuple[Span, ...]] = {}
        _reach(roots, below, reached, children)
        if len(reached) < len(by_id):  # circles are what no root leads to
            for span in sorted(by_id.values(), key=_start):
                if span.span_id not in reached:
                    roots.append(span)
                    _reach([span], below, reached, children)
        return cls(tuple(sorted(roots, key=_start)), children)

    def children_of(self, span: Span) -> Sequence[Span]:
        """The children of a span, by start."""
        return self.children.get(span.span_id, ())

    def walk(self, *tops: Span) -> Iterator[Span]:
        """Yield spans and all below them, parents before children, siblings by start.

        Args:
            tops: Where to begin; the roots where none are given.
        """
        stack = list(reversed(tops or self.roots))
        while stack:
            span = stack.pop()
            yield span
            stack.extend(reversed(self.children_of(span)))


def _start(span: Span) -> tuple[int, int, str]:
    """Order by start; of spans that start together the longer one first, since it is the likelier parent."""
    return span.start, -span.end, span.span_id


def _reach(
    tops: list[Span], below: dict[str, list[Span]], reached: set[str], children: dict[str, tuple[Span, ...]]
) -> None:
    """Fill ``children`` for everything under ``tops``, leaving out edges back to spans that were reached before."""
    reached.update(span.span_id for span in tops)
    stack = list(tops)
    while stack:
        span = stack.pop()
        fresh = tuple(child for child in below.get(span.span_id, ()) if child.span_id not in reached)
        if fresh:
            children[span.span_id] = fresh
            reached.update(child.span_id for child in fresh)
            stack.extend(fresh)
