"""Changes that stay are found in a long series, and nothing is found where there is none."""

from __future__ import annotations

import importlib.util
import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.analysis.metric_samples import START, exponential, message, node_durations, of_node, save

from aetherflow.analysis.metrics import Job, read_jobs
from aetherflow.analysis.trend import Trend, find_steps, find_trends
from aetherflow.errors import MissingExtraError
from aetherflow.telemetry import conventions as names


@given(st.integers(5, 30), st.integers(5, 30), st.floats(0.2, 2.0), st.booleans(), st.integers(0, 10_000))
def test_a_step_is_found_where_it_is(before: int, after: int, size: float, up: bool, seed: int) -> None:
    """Above noise of 2 % a step of a fifth or more, up or down, is found within a run of where it is."""
    rng = random.Random(seed)
    step = math.log1p(size) * (1 if up else -1)
    logs = [rng.gauss(0, 0.02) for _ in range(before)] + [rng.gauss(step, 0.02) for _ in range(after)]
    (found,) = find_steps(logs, 0.10)
    assert abs(found - before) <= 1


@given(st.floats(-20, 20))
def test_a_level_has_no_step(level: float) -> None:
    """A series that does not change has none, and a short one none either."""
    assert find_steps([level] * 40, 0.10) == []
    assert find_steps([level, level + 9] * 2, 0.10) == []
    assert find_steps([], 0.10) == []


def test_noise_is_no_step() -> None:
    """Of 200 series of noise of 5 % at most one has a step."""
    rng = random.Random(1)
    assert sum(bool(find_steps([rng.gauss(0, 0.05) for _ in range(60)], 0.05)) for _ in range(200)) <= 1


def test_one_bad_run_is_no_step() -> None:
    """A single slow run, however slow, is not a level."""
    logs = [0.01 * (number % 3) for number in range(40)]
    logs[20] = 2.0
    assert find_steps(logs, 0.10) == []


def test_there_and_back_are_two_steps() -> None:
    """A slowdown that was mended later is both found."""
    rng = random.Random(2)
    logs = [rng.gauss(0.3 if 15 <= number < 30 else 0.0, 0.02) for number in range(45)]
    assert find_steps(logs, 0.10) == [15, 30]


@pytest.fixture
def series(tmp_path: Path) -> Callable[..., list[Job]]:
    """Makes runs one after the other, on machines that differ, with nodes slower from a run on."""

    def runs(count: int, slower: dict[str, tuple[int, float]], nodes: int = 4) -> list[Job]:
        rng = random.Random(7)
        files = []
        for number in range(count):
            machine = math.exp(rng.gauss(0, 0.1))
            times = {"startTimeUnixNano": str(START + number), "timeUnixNano": str(START + number + 1)}
            points = []
            for node in (f"n{n}" for n in range(nodes)):
                since, factor = slower.get(node, (count, 1.0))
                level = 1e-3 * machine * (factor if number >= since else 1.0) * math.exp(rng.gauss(0, 0.01))
                points.append(of_node(exponential([level] * 50, **times), node))
            resource = {names.PIPELINE_RUN_ID: f"run-{number}", names.VCS_REVISION: f"c{number}"}
            files.append(save(tmp_path / f"{number}.jsonl", message(node_durations(*points), **resource)))
        return read_jobs(files)

    return runs


def by_name(trends: list[Trend]) -> dict[str, Trend]:
    return {trend.key.node if trend.key else "suite": trend for trend in trends}


def test_the_run_and_the_commit_of_a_change_are_told(series: Callable[..., list[Job]]) -> None:
    """Beyond machines that differ by a tenth, one node's step of a quarter is found, with its run and commit."""
    trends = find_trends(series(30, {"n1": (18, 1.25)}))
    found = by_name(trends)
    (change,) = found["n1"].changes
    assert (change.index, change.run, change.revision) == (18, "run-18", "c18")
    assert change.change == pytest.approx(0.25, abs=0.03)
    assert not [name for name, trend in found.items() if trend.changes and name not in ("n1", "suite")]
    assert trends[0].key is not None
    assert trends[0].key.node == "n1"
    assert trends[-1].key is None
    assert list(found["n1"].values) == list(range(30))


def test_without_enough_nodes_nothing_is_taken_out(series: Callable[..., list[Job]]) -> None:
    """Two nodes cannot tell their machine, so that there is nothing in common to show."""
    assert "suite" not in by_name(find_trends(series(12, {}, nodes=2)))


def test_otava_is_asked_where_it_is_installed(series: Callable[..., list[Job]]) -> None:
    """Apache Otava finds the same step; without it the extra is named."""
    jobs = series(30, {"n1": (18, 1.5)})
    if importlib.util.find_spec("otava") is None:
        with pytest.raises(MissingExtraError, match=r"aetherflow-otel\[trend\]"):
            find_trends(jobs, method="otava")
        return
    found = by_name(find_trends(jobs, method="otava"))
    assert [change.index for change in found["n1"].changes] == [18]
