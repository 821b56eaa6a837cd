"""Exported metrics are read right, or refused with file and line, whatever wrote them and however."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.analysis.metric_samples import (
    SECOND,
    START,
    attributed,
    explicit,
    exponential,
    message,
    metric,
    node_durations,
    of_node,
    save,
)

from aetherflow.analysis.histograms import Histogram
from aetherflow.analysis.metrics import Job, Level, metric_files, read_jobs
from aetherflow.analysis.otlp_files import UnreadableTelemetryError
from aetherflow.telemetry import conventions as names

RUN = names.PIPELINE_RUN_ID


def histogram(job: Job) -> Histogram:
    (found,) = job.histograms.values()
    return found


def point(*values: float, start: int = START, after: float = 60, **fields: Any) -> dict[str, Any]:
    """A point of one node that was taken so many seconds after its start."""
    times = {"startTimeUnixNano": str(start), "timeUnixNano": str(start + round(after * SECOND))}
    return of_node(exponential(values, **times, **fields), "n")


def total(path: Path, *messages: Mapping[str, Any]) -> float:
    """What a counter comes to in a file."""
    (job,) = read_jobs([save(path, *messages)])
    (found,) = job.sums.values()
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def test_a_file_is_a_job(file: Path) -> None:
    """Series by metric and attributes, with what is known of the resource and the times."""
    save(file, message(node_durations(point(1.0, 2.0), of_node(exponential([4.0]), "m"))))
    (job,) = read_jobs([file])
    assert (job.name, job.files) == (str(file), (file,))
    assert {series.get(names.NODE_NAME): found.count for series, found in job.histograms.items()} == {"n": 2, "m": 1}
    assert job.duration == 60
    assert dict(job.resource)["service.name"] == "shop"


def test_of_cumulative_points_the_last_counts(file: Path) -> None:
    """A process tells all that happened since its start each time."""
    points = [message(node_durations(point(*values, after=after))) for values, after in (((1,), 10), ((1, 2), 20))]
    assert histogram(*read_jobs([save(file, *points)])).count == 2


def test_delta_points_add_up(file: Path) -> None:
    """A process that tells what happened since the last time is summed up."""
    points = [message(node_durations(point(*values), temporality=1)) for values in ((1.0,), (1.0, 2.0))]
    found = histogram(*read_jobs([save(file, *points)]))
    assert (found.count, found.total) == (3, 4.0)


@pytest.mark.parametrize("temporality", [1, 2, "AGGREGATION_TEMPORALITY_DELTA"])
def test_a_processes_points_are_its_own(file: Path, temporality: int | str) -> None:
    """Several processes in one file are told apart by their instance, and added up."""
    lines = [
        message(node_durations(point(*values), temporality=temporality), instance=instance)
        for instance, values in (("a", (1.0, 1.0)), ("b", (2.0,)), ("c", (4.0, 4.0, 4.0)))
    ]
    assert histogram(*read_jobs([save(file, *lines)])).count == 6


def test_a_process_that_started_anew_is_added(file: Path) -> None:
    """A new start time begins a new count, also where the count is larger than before."""
    lines = [
        message(node_durations(point(*[1.0] * count, start=start)))
        for count, start in ((5, START), (3, START + 100 * SECOND), (9, START + 200 * SECOND))
    ]
    assert histogram(*read_jobs([save(file, *lines)])).count == 17


def test_a_count_that_falls_is_a_new_start(file: Path) -> None:
    """An exporter that does not tell start times is taken to have started anew when its count falls."""
    lines = [
        message(node_durations(point(*[1.0] * count, after=after))) for count, after in ((5, 10), (2, 20), (3, 30))
    ]
    assert histogram(*read_jobs([save(file, *lines)])).count == 8


def test_a_late_line_changes_nothing(file: Path) -> None:
    """A cumulative point that is older than one before it says nothing new."""
    lines = [message(node_durations(point(*[1.0] * count, after=after))) for count, after in ((5, 20), (2, 10))]
    assert histogram(*read_jobs([save(file, *lines)])).count == 5


def test_a_run_of_the_pipeline_is_a_job(tmp_path: Path) -> None:
    """Files of one CI run are one job, and a file may hold several."""
    one = save(tmp_path / "1", message(node_durations(point(1.0)), **{RUN: "7"}))
    two = save(
        tmp_path / "2",
        message(node_durations(point(1.0, 2.0)), instance="2", **{RUN: "7"}),
        message(node_durations(point(1.0)), instance="3", **{RUN: "8"}),
    )
    jobs = {job.name: job for job in read_jobs([one, two])}
    assert {name: histogram(job).count for name, job in jobs.items()} == {"7": 3, "8": 1}
    assert jobs["7"].files == (one, two)
    assert [job.name for job in read_jobs([one, two], job="all")] == ["all"]


def test_a_file_that_was_full_goes_on_in_the_next(tmp_path: Path) -> None:
    """What a process tells in a second file, begun when the first was full, is not counted twice."""
    files = [
        save(tmp_path / name, message(node_durations(point(*[1.0] * count, after=after)), **{RUN: "7"}))
        for name, count, after in (("1", 5, 10), ("2", 8, 20))
    ]
    assert histogram(*read_jobs(files)).count == 8


def test_a_forked_process_is_counted_beside_its_parent(tmp_path: Path) -> None:
    """A child has its parent's instance and start; that both tell at the same time shows that they are two."""

    def line(count: int, after: float) -> dict[str, Any]:
        return message(node_durations(point(*[1.0] * count, after=after)), **{RUN: "7"})

    parent = save(tmp_path / "parent", line(5, 10), line(9, 30))
    child = save(tmp_path / "child", line(4, 20))
    assert histogram(*read_jobs([parent, child])).count == 13


def test_explicit_buckets_are_read(file: Path) -> None:
    """A histogram with stated bounds is read as such."""
    point = of_node(explicit([0.2, 0.3, 4.0], (0.25, 1.0)), "n")
    found = histogram(*read_jobs([save(file, message(node_durations(point, kind="histogram")))]))
    assert found.buckets.held() == [1, 1, 1]
    assert not found.is_fine


def test_sums_and_levels_are_told_apart(file: Path) -> None:
    """Counters add up, what goes up and down has a level, and a gauge that has no value is passed over."""

    def number(value: object, after: int, kind: str = "asInt", **fields: Any) -> dict[str, Any]:
        return {"startTimeUnixNano": str(START), "timeUnixNano": str(START + after), kind: value, **fields}

    lines = [
        message(
            metric("calls", "sum", number("3", 1), isMonotonic=True),
            metric("size", "sum", number("4", 1)),
            metric("heat", "gauge", number("NaN", 1, "asDouble")),
        ),
        message(
            metric("calls", "sum", number(7, 2), number(0, 3, flags=1), isMonotonic=True),
            metric("size", "sum", number("2", 2)),
            metric("heat", "gauge", number(1.5, 2, "asDouble")),
        ),
    ]
    (job,) = read_jobs([save(file, *lines)])
    assert {series.metric: value for series, value in job.sums.items()} == {"calls": 7.0}
    levels = {series.metric: level for series, level in job.levels.items()}
    assert levels == {"size": Level(2.0, 3.0, 4.0, 2), "heat": Level(1.5, 1.5, 1.5, 1)}


@pytest.mark.parametrize("point", [{"asInt": "-900"}, {"asDouble": -0.5}, {"asDouble": "Infinity"}])
def test_a_counter_that_cannot_be_is_refused(file: Path, point: dict[str, Any]) -> None:
    """What only grows is not below zero, and not without end; what goes up and down may be both."""
    times = {"startTimeUnixNano": str(START), "timeUnixNano": str(START + 1)}
    (kind,) = point
    with pytest.raises(UnreadableTelemetryError, match=rf"line 1: .*{kind}.* 0 or more and finite"):
        read_jobs([save(file, message(metric("calls", "sum", point | times, isMonotonic=True)))])
    assert read_jobs([save(file, message(metric("size", "sum", point | times)))])


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 50)), min_size=1, max_size=30),
    st.booleans(),
)
def test_no_count_is_lost_or_doubled(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, bool, int]], delta: bool
) -> None:
    """Whatever processes tell, in whatever order and with restarts, the sum is what was counted."""
    now = START
    counted: dict[str, int] = {}
    started = dict.fromkeys("abc", START)
    lines = []
    for process, restarts, more in steps:
        now += SECOND
        if restarts:
            started[process], counted[process] = now, 0
        before = counted.get(process, 0)
        counted[process] = before + more
        told = {
            "startTimeUnixNano": str(started[process]),
            "timeUnixNano": str(now + SECOND // 2),
            "asInt": str(more if delta else counted[process]),
        }
        lines.append(
            message(metric("calls", "sum", told, isMonotonic=True, temporality=1 if delta else 2), instance=process)
        )
    assert total(tmp_path_factory.mktemp("steps") / "f", *lines) == sum(more for _, _, more in steps)


def test_unknown_fields_and_other_signals_are_passed_over(file: Path) -> None:
    """What a later version of OTLP, or another signal, puts into a file does not keep metrics from being read."""
    known = message(node_durations({**point(1.0), "novel": [1]}), metric("s", "summary", {"count": "1"}))
    known["resourceMetrics"][0]["resource"]["entityRefs"] = [{}]
    save(file, {"resourceSpans": [{"x": 1}]}, known, {"resourceLogs": []}, {"resourceMetrics": [{}]})
    assert histogram(*read_jobs([file])).count == 1


def test_a_gzipped_file_is_read_and_a_cut_line_told(file: Path) -> None:
    """Neither packing nor a killed process keeps whole lines from being read."""
    line = json.dumps(message(node_durations(point(1.0)))).encode()
    file.write_bytes(gzip.compress(line + b"\n" + line[:50]))
    told: list[tuple[Path, int]] = []
    (job,) = read_jobs([file], on_truncated=lambda *where: told.append(where))
    assert histogram(job).count == 1
    assert told == [(file, 2)]


def wrong(**fields: Any) -> Callable[[], dict[str, Any]]:
    return lambda: node_durations({**point(1.0, 2.0), **fields})


BROKEN: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "negative count": (wrong(count="-1"), '"count" must be 0 or more, not -1'),
    "negative bucket": (wrong(positive={"offset": 0, "bucketCounts": ["3", "-1"]}), "must be counts of 0 or more"),
    "count unlike buckets": (wrong(count="3"), '"count" must be what the buckets hold, 2, not 3'),
    "count that is no number": (wrong(count="many"), '"count" must be a whole number'),
    "NaN sum": (wrong(sum="NaN"), '"sum" must be a finite number, not nan'),
    "infinite minimum": (wrong(min="-Infinity"), '"min" must be a finite number'),
    "scale": (wrong(scale=99), '"scale" must be -10 to 20, not 99'),
    "offset": (wrong(positive={"offset": 2**31, "bucketCounts": ["2"]}), '"offset" must be where the bounds'),
    "negative threshold": (wrong(zeroThreshold=-1), '"zeroThreshold" must be 0 or more'),
    "bucket of a kind": (wrong(positive={"bucketCounts": [{}]}), '"bucketCounts" must be a whole number'),
    "deep attribute": (
        wrong(attributes=[{"key": "a", "value": json.loads('{"arrayValue":{"values":[' * 40 + "]}}" * 40)}]),
        "nested at most 32 deep",
    ),
    "no temporality": (lambda: node_durations(point(1.0), temporality=0), '"aggregationTemporality" must be delta'),
    "bounds out of order": (
        lambda: node_durations({"count": "1", "explicitBounds": [2, 1], "bucketCounts": [1, 0, 0]}, kind="histogram"),
        '"explicitBounds" must be numbers in ascending order',
    ),
    "NaN bound": (
        lambda: node_durations({"count": "1", "explicitBounds": ["NaN"], "bucketCounts": [1, 0]}, kind="histogram"),
        '"explicitBounds" must be numbers in ascending order',
    ),
    "bucket missing": (
        lambda: node_durations({"count": "1", "explicitBounds": [1, 2], "bucketCounts": [1]}, kind="histogram"),
        '"bucketCounts" must be 3 counts',
    ),
    "NaN counter": (
        lambda: metric("calls", "sum", {"asDouble": "NaN"}, isMonotonic=True),
        '"asDouble" must be a number',
    ),
    "points that are none": (lambda: {"name": "n", "gauge": {"dataPoints": 7}}, '"dataPoints" must be an array'),
}


@pytest.mark.parametrize(("made", "problem"), BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_is_refused_with_its_line(file: Path, made: Callable[[], dict[str, Any]], problem: str) -> None:
    """A value that no process can have recorded names the file, the line and the field."""
    save(file, message(node_durations(point(1.0))), message(made()))
    with pytest.raises(UnreadableTelemetryError) as caught:
        read_jobs([file])
    assert (caught.value.path, caught.value.line) == (file, 2)
    assert problem in str(caught.value)


def test_deep_nesting_is_refused(file: Path) -> None:
    """A line that is nothing but brackets is told, and does not end the interpreter."""
    file.write_text("{}\n" + '{"resourceMetrics":' + "[" * 200_000 + "\n", encoding="utf-8")
    with pytest.raises(UnreadableTelemetryError, match="line 2"):
        read_jobs([file])


def test_an_endless_line_is_refused_before_it_is_read(file: Path) -> None:
    """Of a line of two gigabytes, here full of holes on disk, no more than the limit is read."""
    with file.open("wb") as stream:
        stream.write(b"{}\n")
        stream.truncate(2 * 1024**3)
    with pytest.raises(UnreadableTelemetryError, match="line 2: is longer than"):
        read_jobs([file])


def test_folders_are_searched(tmp_path: Path) -> None:
    """All OTLP JSON below a folder is found, traces aside, and each file once."""
    wanted = [save(tmp_path / name) for name in ("a/metrics-1.jsonl", "b.json", "c/d/e.jsonl.gz")]
    for other in ("traces-1.jsonl", "notes.txt", "logs-2.jsonl"):
        save(tmp_path / other)
    assert metric_files([tmp_path, wanted[0], tmp_path / "a"]) == sorted(wanted)
    text = tmp_path / "notes.txt"
    assert metric_files([text]) == [text]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    """A path that names nothing is an error that names it."""
    with pytest.raises(UnreadableTelemetryError, match="nowhere"):
        metric_files([tmp_path / "nowhere"])


def test_a_point_without_attributes_is_a_series(file: Path) -> None:
    """Attributes of every kind make a key, also none."""
    odd = attributed(exponential([1.0]))
    odd["attributes"] = [
        {"key": "list", "value": {"arrayValue": {"values": [{"intValue": "1"}]}}},
        {"key": "map", "value": {"kvlistValue": {"values": [{"key": "k", "value": {"boolValue": True}}]}}},
    ]
    (job,) = read_jobs([save(file, message(node_durations(exponential([1.0]), odd)))])
    assert sorted(len(series.attributes) for series in job.histograms) == [0, 2]


def test_a_folder_that_cannot_be_searched_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One message names it and says why: a process's folder under ``/proc`` may be gone while it is searched."""

    def gone(*_: object) -> list[Path]:
        raise OSError(3, "No such process")

    monkeypatch.setattr(Path, "rglob", gone)
    with pytest.raises(UnreadableTelemetryError, match=r"it cannot be searched: .*No such process"):
        metric_files([tmp_path])
