"""Flows are put together from what their spans say."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from tests.analysis.otlp_samples import made

from aetherflow import configure, node
from aetherflow.analysis.flow_graph import flow_graphs
from aetherflow.analysis.spans import Span, read_spans
from aetherflow.telemetry import conventions as names


@node
def source(x: int) -> int:
    return x


@node
def left(source: int) -> int:
    return source


@node
def right(source: int) -> int:
    if source < 0:
        raise ValueError(source)
    return source


@node
def join(parallel_results: dict[str, int]) -> int:
    return sum(parallel_results.values())


@node
def begin(x: int) -> int:
    return x


@node
def last(x: int) -> int:
    return x


@node
def apart(*, x: int) -> int:
    return x


@node
def takes_both(begin: int, x: int) -> tuple[int, int]:
    return begin, x


def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flow: Any, *inputs: int) -> list[list[Span]]:
    monkeypatch.chdir(tmp_path)
    with configure(exporter="file") as telemetry:
        for x in inputs:
            with contextlib.suppress(ValueError):
                flow.run({"x": x})
    assert telemetry.path
    traces: dict[str, list[Span]] = {}
    for span in read_spans(telemetry.path):
        traces.setdefault(span.trace_id, []).append(span)
    return list(traces.values())


def test_a_real_flow_is_drawn_as_composed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Edges are whose output was taken, or, where none was, what ended before; runs, errors and nested flows count."""
    inner = (source >> [left, right] >> join).named("inner")
    flow = (begin >> inner >> last >> apart).named("outer")
    graphs = flow_graphs(exported(tmp_path, monkeypatch, flow, 1, 2, -1))
    assert (graphs["outer"].runs, graphs["outer"].errors) == (3, 1)
    assert graphs["outer"].nodes["inner"].is_flow
    assert dict(graphs["outer"].edges) == {("begin", "inner"): 3, ("inner", "last"): 2}
    assert dict(graphs["outer"].order) == {("last", "apart"): 2}
    drawn = graphs["inner"]
    assert drawn.edges[("left", "join")] == drawn.edges[("right", "join")] == 2
    assert drawn.edges[("source", "left")] == 3
    assert (drawn.nodes["right"].executions, drawn.nodes["right"].errors) == (3, 1)


def test_a_flow_inside_another_takes_the_outputs_that_its_nodes_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of nodes outside of it, however deep inside they are taken; not those of its own nodes of the same name."""
    deep = (last.named("begin") >> takes_both).named("deep")
    inner = (begin >> last.named("middle") >> (last >> deep).named("inner")).named("outer")
    graphs = flow_graphs(exported(tmp_path, monkeypatch, inner, 1))
    assert dict(graphs["outer"].edges) == {("begin", "middle"): 1, ("middle", "inner"): 1}
    assert dict(graphs["inner"].edges) == {("middle", "last"): 1, ("last", "deep"): 1}
    assert dict(graphs["deep"].edges) == {("last", "begin"): 1, ("begin", "takes_both"): 1}


def test_what_is_not_ours_is_no_flow() -> None:
    """Spans of other instrumentation make no graph, and neither does nothing."""
    assert flow_graphs([[made(1)], []]) == {}


def test_a_node_whose_run_is_missing_still_counts() -> None:
    """A run that was not exported leaves its nodes where they say that they belong."""
    attributes = {names.FLOW_NAME: "shop", names.NODE_NAME: "fetch"}
    graphs = flow_graphs([[made(2, 1, attributes=attributes)]])
    assert (graphs["shop"].runs, graphs["shop"].nodes["fetch"].executions) == (0, 1)
