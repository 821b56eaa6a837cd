"""Runs are kept as they were, by machine, and neither lost nor doubled."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.analysis.metric_samples import (
    START,
    attributed,
    explicit,
    exponential,
    message,
    metric,
    node_durations,
    of_node,
    run_job,
    save,
)

from aetherflow.analysis.baselines import Machine, add_runs, find_baselines, prune_runs, this_machine
from aetherflow.analysis.histograms import Counts, ExplicitBuckets, ExponentialBuckets, Histogram
from aetherflow.analysis.metric_points import Series
from aetherflow.analysis.metrics import Job, read_jobs
from aetherflow.analysis.otlp_files import UnreadableTelemetryError
from aetherflow.analysis.otlp_writing import job_line
from aetherflow.telemetry import conventions as names

MACHINE = Machine("linux", "cpython-3.11", "abacus-2")

counts = st.builds(Counts, st.integers(-50, 50), st.lists(st.integers(0, 9), min_size=1, max_size=5).map(tuple))
numbers = st.floats(allow_nan=False, allow_infinity=False)
counters = st.floats(0, allow_infinity=False)
exponentials = st.builds(
    ExponentialBuckets, st.integers(-2, 10), st.integers(0, 9), st.floats(0, 1), counts, counts
).map(lambda buckets: Histogram(sum(buckets.held()), 1.5, buckets, None, 3.0))
explicits = st.lists(st.integers(0, 9), min_size=1, max_size=4).map(
    lambda held: Histogram(sum(held), None, ExplicitBuckets(tuple(map(float, range(len(held) - 1))), tuple(held)))
)
values = st.recursive(
    st.text() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.binary() | numbers,
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=4,
)
attributes = st.dictionaries(st.text(), values, max_size=3).map(lambda found: tuple(sorted(found.items())))


def series(metric: str, key: tuple[tuple[str, object], ...]) -> Series:
    return Series(metric, "s", key)


@given(attributes, st.lists(st.tuples(attributes, exponentials | explicits), max_size=4), attributes, counters)
def test_a_job_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    resource: tuple[tuple[str, object], ...],
    histograms: list[tuple[tuple[tuple[str, object], ...], Histogram]],
    counted: tuple[tuple[str, object], ...],
    count: float,
) -> None:
    """Histograms of both kinds, sums, attributes of all kinds and times come back from a line."""
    known = {series(f"h{number}", key): histogram for number, (key, histogram) in enumerate(histograms)}
    job = Job("7", (), resource, START, START + 5, known, {series("c", counted): count}, {})
    file = tmp_path_factory.mktemp("line") / "f"
    file.write_text(job_line(job, {names.PIPELINE_RUN_ID: "7"}), encoding="utf-8")
    (found,) = read_jobs([file])
    assert (found.name, found.started, found.ended) == ("7", START, START + 5)
    assert found.histograms == job.histograms
    assert found.sums == job.sums
    assert dict(found.resource) == {**dict(resource), names.PIPELINE_RUN_ID: "7"}


def jobs(folder: Path, *numbers: int) -> list[Job]:
    """Jobs of files that begin one after the other."""
    times = [{"startTimeUnixNano": str(START + n), "timeUnixNano": str(START + n + 10)} for n in numbers]
    return read_jobs(
        save(folder / f"{n}.jsonl", message(node_durations(of_node(exponential([1.0], **time), "n"))))
        for n, time in zip(numbers, times, strict=True)
    )


def test_runs_are_appended_once(tmp_path: Path) -> None:
    """A run that is kept already is not kept again; the others follow it."""
    kept = tmp_path / "kept"
    assert len(add_runs(kept, MACHINE, jobs(tmp_path, 1, 2), {})) == 2
    before = find_baselines(kept)[0].path.read_bytes()
    assert [job.started for job in add_runs(kept, MACHINE, jobs(tmp_path, 2, 3), {})] == [START + 3]
    (file,) = find_baselines(kept)
    assert file.machine == MACHINE
    assert file.path.read_bytes().startswith(before)
    assert [job.started for job in file.jobs()] == [START + 1, START + 2, START + 3]


def test_machines_are_kept_apart(tmp_path: Path) -> None:
    """Each kind of machine has a file of its own."""
    other = Machine("linux", "cpython-3.12", "abacus-2")
    for machine in (other, MACHINE):
        add_runs(tmp_path / "kept", machine, jobs(tmp_path, 1), {})
    assert [file.machine for file in find_baselines(tmp_path / "kept")] == [MACHINE, other]
    assert find_baselines(tmp_path / "nowhere") == []


def test_a_line_that_was_cut_does_not_take_the_next_with_it(tmp_path: Path) -> None:
    """Where a process was killed while it appended, what is appended later is whole."""
    add_runs(tmp_path / "kept", MACHINE, jobs(tmp_path, 1), {})
    (file,) = find_baselines(tmp_path / "kept")
    with file.path.open("a", encoding="utf-8") as stream:
        stream.write('{"resourceMetrics": [')
    add_runs(tmp_path / "kept", MACHINE, jobs(tmp_path, 2), {})
    assert [job.started for job in file.jobs()] == [START + 1, START + 2]


def test_pruning_keeps_the_newest(tmp_path: Path) -> None:
    """The oldest runs go, whatever order they were added in, and nothing else changes."""
    add_runs(tmp_path / "kept", MACHINE, jobs(tmp_path, 5, 1, 9, 3), {})
    (file,) = find_baselines(tmp_path / "kept")
    last = file.jobs()[-2:]
    assert prune_runs(file, 2) == 2
    assert [(job.started, job.histograms) for job in file.jobs()] == [(job.started, job.histograms) for job in last]
    assert prune_runs(file, 2) == 0
    assert [path.name for path in file.path.parent.iterdir()] == [file.path.name]


def test_the_commit_is_kept(tmp_path: Path) -> None:
    """A run tells which commit it was of, as the CI system says or as it says itself."""
    own = save(
        tmp_path / "own",
        message(
            node_durations(of_node(exponential([1.0]), "n")), **{names.VCS_REVISION: "b", names.PIPELINE_RUN_ID: "1"}
        ),
    )
    add_runs(tmp_path / "kept", MACHINE, [*jobs(tmp_path, 1), *read_jobs([own])], {"GITHUB_SHA": "a"})
    found = [dict(job.resource) for job in find_baselines(tmp_path / "kept")[0].jobs()]
    assert {resource[names.VCS_REVISION] for resource in found} == {"a", "b"}


@pytest.mark.parametrize(
    ("environ", "runner"),
    [
        ({"GITHUB_ACTIONS": "true", "RUNNER_OS": "Linux", "RUNNER_ARCH": "X64"}, "github-linux-x64"),
        ({"GITLAB_CI": "true", "CI_RUNNER_TAGS": '["saas-linux", "m"]'}, "gitlab-saas-linux-m"),
    ],
)
def test_a_machine_has_a_class_that_is_safe_as_a_name(environ: dict[str, str], runner: str) -> None:
    """CI systems tell it, a user may tell it, and it never leaves the folder."""
    assert this_machine(environ).runner == runner
    given = this_machine(environ, runner="../../Big Box™")
    assert given.runner == "big-box"
    assert all("/" not in part and part for part in (given.runner, given.python, given.cpu))
    assert this_machine({}) == this_machine({})


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """Where a file is in the way, that is named."""
    (tmp_path / "kept").write_text("", encoding="utf-8")
    with pytest.raises(UnreadableTelemetryError, match="kept"):
        add_runs(tmp_path / "kept", MACHINE, jobs(tmp_path, 1), {})


def test_sums_and_coarse_buckets_are_kept(tmp_path: Path) -> None:
    """Counters and explicit buckets of a real file come through."""
    requests = attributed({"asInt": "7", "startTimeUnixNano": "1", "timeUnixNano": "2"}, **{names.CACHE_NAME: "c"})
    point = of_node(explicit([0.2, 0.3]), "n")
    line = message(
        metric(names.CACHE_REQUESTS.name, "sum", requests, isMonotonic=True), node_durations(point, kind="histogram")
    )
    add_runs(tmp_path / "kept", MACHINE, read_jobs([save(tmp_path / "f", line)]), {})
    (job,) = find_baselines(tmp_path / "kept")[0].jobs()
    assert list(job.sums.values()) == [7.0]
    assert not next(iter(job.histograms.values())).is_fine


def test_a_thousand_files_are_one_baseline(tmp_path: Path) -> None:
    """Runs of many nodes take little room: below 10 kB for ten nodes."""
    file = run_job(tmp_path / "f", 1, nodes=10)
    add_runs(tmp_path / "kept", MACHINE, read_jobs([file]), {})
    assert find_baselines(tmp_path / "kept")[0].path.stat().st_size < 10_000
