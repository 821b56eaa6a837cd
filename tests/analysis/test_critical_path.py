"""The critical path leaves no moment out, and names what was waited for."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from tests.analysis.otlp_samples import made

from aetherflow.analysis.critical_path import critical_path
from aetherflow.analysis.spans import Span
from aetherflow.analysis.traces import SpanTree


def path_of(*spans: Span) -> list[tuple[str, int, int]]:
    tree = SpanTree.of(spans)
    return [(span.name, start, end) for span, start, end in critical_path(tree, tree.roots[0])]


def test_the_slower_of_two_branches_was_waited_for() -> None:
    """Of branches side by side the one that ended last is on the path; gaps are the parent's own time."""
    spans = made(1, end=10), made(2, 1, 1, 9), made(3, 1, 1, 5)
    assert path_of(*spans) == [("n1", 0, 1), ("n2", 1, 9), ("n1", 9, 10)]


def test_a_child_that_outlives_its_parent_is_cut() -> None:
    """What goes on after the end of its parent counts up to that end."""
    assert path_of(made(1, end=10), made(2, 1, 4, 15)) == [("n1", 0, 4), ("n2", 4, 10)]


def test_a_chain_thousands_deep_is_no_problem() -> None:
    """Depth costs no recursion."""
    spans = [made(1, end=10_000), *(made(number, number - 1, number, 10_000) for number in range(2, 5_000))]
    assert len(path_of(*spans)) == len(spans)


@st.composite
def traces(draw: st.DrawFn) -> list[Span]:
    spans = [made(1, end=draw(st.integers(0, 60)))]
    for number in range(2, draw(st.integers(2, 14))):
        start = draw(st.integers(-5, 60))
        spans.append(made(number, draw(st.integers(1, number - 1)), start, start + draw(st.integers(-3, 30))))
    return spans


@given(traces())
def test_the_path_covers_the_root_exactly(spans: list[Span]) -> None:
    """Segments follow each other from the root's start to its end, each within the span that it is of."""
    segments = critical_path(SpanTree.of(spans), spans[0])
    root = spans[0]
    if root.start == root.end:
        assert not segments
        return
    assert (segments[0].start, segments[-1].end) == (root.start, root.end)
    assert all(one.end == other.start for one, other in pairwise(segments))
    assert all(span.start <= start < end <= span.end for span, start, end in segments)
