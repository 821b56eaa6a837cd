"""Traces are put together from whatever was exported."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.analysis.otlp_samples import MS, RESOURCE, SCOPE, SECOND, line, made, span, write

from aetherflow.analysis.spans import Span, SpanStatus, read_spans
from aetherflow.analysis.traces import SpanTree, summarise_traces


def names(tree: SpanTree) -> list[str]:
    return [item.name for item in tree.walk()]


def test_children_stand_under_their_parents_by_start() -> None:
    """Parents come before children and siblings in the order they started, whatever the order of the file."""
    tree = SpanTree.of([made(4, 2, 40), made(3, 1, 30), made(2, 1, 20), made(1, None, 10)])
    assert names(tree) == ["n1", "n2", "n4", "n3"]
    assert [item.name for item in tree.children_of(tree.roots[0])] == ["n2", "n3"]
    assert [item.name for item in tree.walk(*tree.children_of(tree.roots[0])[:1])] == ["n2", "n4"]


def test_orphans_are_roots() -> None:
    """A span whose parent was not exported is shown, with everything below it."""
    assert names(SpanTree.of([made(1, None, 10), made(2, 99, 5), made(3, 2, 6)])) == ["n2", "n3", "n1"]


def test_a_circle_is_opened_at_its_earliest_span() -> None:
    """Parents in a circle, which only a broken exporter writes, neither hang nor hide a span."""
    tree = SpanTree.of([made(1, 3, 10), made(2, 1, 20), made(3, 2, 30), made(4, 4, 40), made(5, None, 50)])
    assert names(tree) == ["n1", "n2", "n3", "n4", "n5"]


def test_a_span_exported_twice_counts_once() -> None:
    """The later of two exports of one span stands."""
    tree = SpanTree.of([made(1, None), made(1, None, end=9)])
    assert [item.end for item in tree.walk()] == [9]


@given(parents=st.lists(st.none() | st.integers(0, 30), max_size=30))
def test_every_span_is_in_the_tree_exactly_once(parents: list[int | None]) -> None:
    """Whatever the parents are, every span is walked once, and after its parent unless it is a root."""
    spans = [made(number, parent, start=number) for number, parent in enumerate(parents, 1)]
    tree = SpanTree.of(spans)
    walked = list(tree.walk())
    assert sorted(item.span_id for item in walked) == sorted(item.span_id for item in spans)
    roots = {item.span_id for item in tree.roots}
    seen: set[str] = set()
    for item in walked:
        assert item.span_id in roots or item.parent_id in seen
        seen.add(item.span_id)


def test_a_trace_may_be_deeper_than_the_interpreter_nests() -> None:
    """100,000 spans each inside the one before are a tree like any other."""
    tree = SpanTree.of(made(number, number - 1, start=number) for number in range(1, 100_001))
    assert sum(1 for _ in tree.walk()) == 100_000


def test_a_trace_is_summed_up_by_its_root() -> None:
    """A summary has the root's name, the whole extent and the errors, and the newest trace comes last."""
    other = Span("b" * 32, "1" * 16, None, "early", "internal", 1, 2, RESOURCE, SCOPE)
    spans = [
        made(2, 1, 12, 15, status=SpanStatus("error")),
        made(3, 1, 11, 25),
        made(1, None, 12, 20),
        other,
    ]
    early, late = summarise_traces(spans)
    assert (early.name, early.spans, early.errors) == ("early", 1, 0)
    assert (late.name, late.start, late.end, late.spans, late.errors) == ("n1", 11, 25, 3, 1)
    assert late.duration == 14e-9


def test_a_trace_without_its_root_has_its_earliest_name() -> None:
    """Where the root was not exported, the earliest span gives the name."""
    [summary] = summarise_traces([made(3, 2, 30), made(2, 1, 20)])
    assert summary.name == "n2"


@pytest.mark.parametrize("end", [0, 5])
def test_clocks_that_went_back_give_no_negative_duration(end: int) -> None:
    """A span that ends before it starts, or never ended, lasts 0 s."""
    backward = made(1, None, start=10, end=end)
    assert backward.duration == 0.0
    assert summarise_traces([backward])[0].duration == 0.0


def test_a_trace_spread_over_lines_is_one(tmp_path: Path) -> None:
    """Spans of one trace are together though they were exported at different times."""
    file = write(tmp_path / "f", line(span(3, 1)), line(span(1)), line(span(2, 1)))
    [summary] = summarise_traces(read_spans(file))
    assert (summary.name, summary.start, summary.spans) == ("n1", SECOND + MS, 3)
    assert names(SpanTree.of(read_spans(file))) == ["n1", "n2", "n3"]
