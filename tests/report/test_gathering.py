"""What a report is made of: whole traces, as many as there is room for, and all metrics."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.analysis.metric_samples import exponential, message, node_durations, of_node, save
from tests.analysis.otlp_samples import MS, SECOND, TRACE, attribute, line, made, span, write

from aetherflow.analysis.histograms import Counts, ExplicitBuckets, ExponentialBuckets, Histogram
from aetherflow.analysis.metrics import read_jobs
from aetherflow.analysis.otlp_files import UnreadableTelemetryError
from aetherflow.analysis.spans import SpanStatus
from aetherflow.analysis.traces import SpanTree, summarise_traces
from aetherflow.report.columns import columns_of
from aetherflow.report.figures import bars, latencies, usage
from aetherflow.report.gathering import Trace, gather
from aetherflow.report.healths import health
from aetherflow.report.page import render
from aetherflow.telemetry import conventions as names


def traces(*sizes: int) -> str:
    """Lines of traces of so many spans, each a second after the one before; roots come last, as they are exported."""
    lines = []
    for number, size in enumerate(sizes):
        start = SECOND + number * 1_000 * MS
        for index in range(size, 0, -1):
            times = {"startTimeUnixNano": str(start + index), "endTimeUnixNano": str(start + 9_000)}
            lines.append(line(span(index, 1 if index > 1 else None, traceId=f"{number + 1:032x}", **times)))
    return "".join(lines)


def test_all_is_kept_where_there_is_room(tmp_path: Path) -> None:
    """Up to the limit, which may be reached, every trace is whole."""
    gathered = gather([write(tmp_path / "f", traces(3, 4))], spans=7)
    assert [trace.summary.spans for trace in gathered.traces] == [3, 4]
    assert (gathered.traces_left_out, gathered.traces[0].left_out) == (0, 0)


def test_the_newest_traces_are_kept_whole(tmp_path: Path) -> None:
    """Beyond the limit older traces are left out, and counted; those that stay are whole."""
    gathered = gather([write(tmp_path / "f", traces(5, 3, 2))], spans=6)
    assert [len(list(trace.tree.walk())) for trace in gathered.traces] == [3, 2]
    assert gathered.traces_left_out == 1


def test_of_a_trace_that_is_too_large_the_beginning_stays(tmp_path: Path) -> None:
    """A trace with more spans than there is room for keeps its earliest ones, its root among them."""
    (trace,) = gather([write(tmp_path / "f", traces(10))], spans=4).traces
    assert [each.span_id[-1] for each in trace.tree.walk()] == ["1", "2", "3", "4"]
    assert trace.left_out == 6


def test_a_folder_is_what_is_right_in_it(tmp_path: Path) -> None:
    """Of a folder the OTLP files in it count, each once; what is below, or named otherwise, does not."""
    write(tmp_path / "traces-1.jsonl", traces(1))
    write(tmp_path / "notes.txt", "hello")
    (tmp_path / "baseline").mkdir()
    write(tmp_path / "baseline" / "traces-2.jsonl", traces(1, 1))
    gathered = gather([tmp_path, tmp_path / "traces-1.jsonl"])
    assert (len(gathered.files), len(gathered.traces)) == (1, 1)


def test_a_cut_line_is_told_once(tmp_path: Path) -> None:
    """A last line without an end is told once, however often the file is read."""
    told: list[tuple[Path, int]] = []
    file = write(tmp_path / "f", traces(3, 3), '{"resourceSpans')
    gather([file], spans=3, on_truncated=lambda path, number: told.append((path, number)))
    assert told == [(file, 7)]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """A path that is not there is an error that names it."""
    with pytest.raises(UnreadableTelemetryError, match="nowhere: there is no such file"):
        gather([tmp_path / "nowhere"])


def test_columns_hold_the_tree(tmp_path: Path) -> None:
    """Parents stand before their children, texts and sets once, and links lead to where the other span is."""
    links = [{"traceId": TRACE, "spanId": f"{2:016x}"}, {"traceId": "e" * 32, "spanId": "f" * 16}]
    kinds = [attribute("thread.name", {"stringValue": "main"})]
    spans = [span(1), span(2, 1, attributes=kinds), span(3, 1, links=links, attributes=kinds), span(4, 9)]
    told = columns_of(gather([write(tmp_path / "f", line(*spans))]).traces).as_json()
    assert told["spans"]["parent"] == [-1, 0, 0, -2]
    assert len(set(told["texts"])) == len(told["texts"])
    assert told["spans"]["set"][1] == told["spans"]["set"][2]
    assert [link[0] for link in told["links"][2]] == [1, -1]
    assert len(told["ids"]) == 4 * 16


HISTOGRAMS = st.builds(
    lambda counts, offset, scale: Histogram(
        sum(counts), 1.0, ExponentialBuckets(scale, 0, 0.0, Counts(offset, tuple(counts)))
    ),
    st.lists(st.integers(0, 5), min_size=1, max_size=300),
    st.integers(-200, 200),
    st.integers(0, 6),
)


@given(HISTOGRAMS)
def test_bars_hold_every_value(histogram: Histogram) -> None:
    """Few enough to look at, the bars ascend without overlap, and hold as many values as the histogram."""
    drawn = bars(histogram)
    assert sum(count for _, _, count in drawn) == histogram.count
    assert len(drawn) <= 50
    assert all(low <= high for low, high, _ in drawn)
    assert all(one[1] <= other[0] * 1.000001 for one, other in itertools.pairwise(drawn))


def test_open_bars_are_closed() -> None:
    """The last of explicit buckets ends where the largest value is."""
    histogram = Histogram(3, 9.0, ExplicitBuckets((1.0, 2.0), (0, 1, 2)), 1.5, 4.0)
    assert bars(histogram) == [(1.0, 2.0, 1), (2.0, 4.0, 2)]
    assert bars(Histogram(0, 0.0, ExplicitBuckets((1.0,), (0, 0)))) == []


def test_without_metrics_spans_are_counted() -> None:
    """Latencies, batches and caches of telemetry that has traces alone come from the spans."""
    hits = [
        made(number, attributes={names.NODE_NAME: "find", names.NODE_CACHE_HIT: number > 1}) for number in (1, 2, 3)
    ]
    failed = made(4, attributes={names.FLOW_NAME: "shop", names.FLOW_NODES: 1}, start=0, end=2_000_000_000)
    rows = {(row["kind"], row["name"]): row for row in latencies([], [*hits, failed])}
    assert rows["run", "shop"]["max"] == 2.0
    assert (rows["node", "find"]["count"], rows["node", "find"]["source"]) == (3, "spans")
    assert usage([], hits)["caches"][0]["results"] == {"miss": 1, "hit": 2}


def test_latencies_are_those_of_computed_executions(tmp_path: Path) -> None:
    """Cache hits and retried executions are counted, with their failures, and are in no quantile; of spans as well."""
    others = [("", "", 0.02, 20), ("cache_hit", "", 0.00002, 960), ("retried", "KeyError", 0.6, 20)]
    points, spans = [], []
    for kind, error, seconds, count in others:
        about = {names.EXECUTION_KIND: kind} if kind else {}
        points.append(
            of_node(exponential([seconds] * count), "n", **about, **({names.ERROR_TYPE: error} if error else {}))
        )
        status = SpanStatus("error" if error else "unset")
        fields = {"attributes": {names.FLOW_NAME: "flow", names.NODE_NAME: "n", **about}, "status": status}
        spans += [made(len(spans) + each, end=round(seconds * 1e9), **fields) for each in range(count)]
    jobs = read_jobs([save(tmp_path / "m", message(node_durations(*points)))])
    for row in (*latencies(jobs, ()), *latencies((), spans)):
        counts = [row[key] for key in ("count", "errors", "computed", "cached", "retried")]
        assert counts == [1000, 20, 20, 960, 20]
        assert [row["p50"], row["p95"], row["mean"], row["max"]] == pytest.approx([0.02] * 4, rel=0.03)


def test_hits_alone_have_no_latency(tmp_path: Path) -> None:
    """A node of which only hits are known is in the report without times, and its latency is not checked."""
    point = of_node(exponential([0.00002] * 50), "n", **{names.EXECUTION_KIND: "cache_hit"})
    jobs = read_jobs([save(tmp_path / "m", message(node_durations(point)))])
    (row,) = latencies(jobs, ())
    assert (row["count"], row["p50"], row["bars"]) == (50, None, [])
    assert [check["measurement"] for check in health(jobs, [row])["checks"]] == ["error rate"]


def test_health_of_a_report_is_not_that_of_the_hits(tmp_path: Path) -> None:
    """A slow node behind a cache is above its thresholds; the share of failures is of all executions."""
    points = [
        of_node(exponential([3.0] * 20), "n"),
        of_node(exponential([0.00002] * 980), "n", **{names.EXECUTION_KIND: "coalesced"}),
    ]
    jobs = read_jobs([save(tmp_path / "m", message(node_durations(*points)))])
    checks = {each["measurement"]: each["status"] for each in health(jobs, latencies(jobs, ()))["checks"]}
    assert checks == {"average latency": "warning", "p95 latency": "warning", "error rate": "ok"}


def test_equal_telemetry_makes_equal_pages(tmp_path: Path) -> None:
    """The page depends on nothing but what is in it: no clock, no order of hashes."""
    gathered = gather([write(tmp_path / "f", traces(3, 4))])
    made_at = datetime(2026, 1, 2, tzinfo=UTC)
    assert render(gathered, made=made_at) == render(gathered, made=made_at)
    assert Counter(render(gathered, made=made_at).split("<"))["script>"] == 0


def test_a_trace_is_told_apart_by_its_roots() -> None:
    """Runs, batches and other traces are known by what their roots carry."""
    kinds = []
    for attributes in ({names.RUN_ID: "1"}, {names.BATCH_SIZE: 3, names.NODE_NAME: "n"}, {}):
        spans = [made(1, attributes=attributes)]
        (summary,) = summarise_traces(spans)
        kinds.append(columns_of([Trace(summary, SpanTree.of(spans))]).traces[0][-1])
    assert kinds == [1, 2, 0]
