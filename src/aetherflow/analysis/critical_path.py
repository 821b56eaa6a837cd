"""The critical path of a trace: what was waited for at each moment, from its end back to its beginning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from aetherflow.analysis.spans import Span
from aetherflow.analysis.traces import SpanTree

__all__ = ["Segment", "critical_path"]


class Segment(NamedTuple):
    """A stretch of time in which a span itself, and nothing below it, was on the path; nanoseconds since the epoch."""

    span: Span
    start: int
    end: int


def critical_path(tree: SpanTree, top: Span) -> list[Segment]:
    """Tell what the time from a span's start to its end was spent on.

    At each moment, going back from the end, the path is in the child that ended last before; what ran beside it was not
    waited for. A child that outlives its parent counts up to the parent's end.

    Args:
        tree: The trace.
        top: Where to begin, usually a root.

    Returns:
        Segments in order of time, which leave no moment of the span out and do not overlap.
    """
    found: list[Segment] = []
    stack = [_back_through(tree, top, top.start, top.end)]
    while stack:
        step = next(stack[-1], None)
        if step is None:
            stack.pop()
        elif isinstance(step, Segment):
            found.append(step)
        else:
            stack.append(_back_through(tree, *step))
    return found[::-1]


def _back_through(tree: SpanTree, span: Span, start: int, end: int) -> Iterator[Segment | tuple[Span, int, int]]:
    """Yield what a window of a span was spent on, last first: stretches of its own, and windows of its children."""
    at = end
    windows = [(min(child.end, end), max(child.start, start), child) for child in tree.children_of(span)]
    for ended, began, child in sorted(windows, key=lambda window: (-window[0], window[1])):
        if began >= ended or ended > at:
            continue
        if ended < at:
            yield Segment(span, ended, at)
        yield child, began, ended
        at = began
    if at > start:
        yield Segment(span, start, at)
