"""Shifts are found beyond what the machine did, with errors that hold."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetherflow.analysis.shifts import Sample, Shift, independent_shifts, paired_shifts

NODES = tuple(range(8))
jitters = st.floats(-0.5, 0.5)


def panel(factors: list[float], moved: Mapping[int, float] | None = None, noise: float = 0.0, seed: int = 0) -> dict:
    """Nodes that differ in level, in jobs whose machines have the factors."""
    rng = random.Random(seed)
    return {
        node: {
            job: Sample(node * 0.7 + factor + (moved or {}).get(node, 0.0) + rng.gauss(0, noise), 0.001, 500)
            for job, factor in enumerate(factors)
        }
        for node in NODES
    }


def pairs_of(before: dict, after: dict) -> list[dict]:
    return [{node: (before[node][job], after[node][job]) for node in before} for job in range(len(before[0]))]


@given(st.lists(jitters, min_size=2, max_size=6), st.lists(jitters, min_size=1, max_size=5), st.floats(-1, 1))
def test_the_machine_is_taken_out_whole(before: list[float], after: list[float], moved: float) -> None:
    """Whatever machines do to all nodes alike, one node's own shift is found exactly, and no other moves."""
    shifts = independent_shifts(panel(before), panel(after, {3: moved}), NODES)
    for node, shift in shifts.series.items():
        assert shift.estimate == pytest.approx(moved if node == 3 else 0.0, abs=1e-9)
    assert shifts.suite is not None or len(before) + len(after) == 2


@given(st.lists(st.tuples(jitters, jitters), min_size=2, max_size=6), st.floats(-1, 1))
def test_pairs_are_compared_with_each_other(factors: list[tuple[float, float]], moved: float) -> None:
    """In pairs, too, one node's own shift is found exactly."""
    before, after = panel([pair[0] for pair in factors]), panel([pair[1] for pair in factors], {3: moved})
    shifts = paired_shifts(pairs_of(before, after), NODES)
    for node, shift in shifts.series.items():
        assert shift.estimate == pytest.approx(moved if node == 3 else 0.0, abs=1e-9)
    assert shifts.suite is not None
    assert shifts.suite.estimate == pytest.approx(statistics.fmean(after - before for before, after in factors))


def test_what_moves_all_nodes_is_the_suites() -> None:
    """A change of everything is told as that of the suite, and of no node."""
    shifts = independent_shifts(panel([0.0, 0.01, -0.01, 0.0, 0.0]), panel([0.4, 0.41, 0.39]), NODES)
    assert shifts.suite is not None
    assert shifts.suite.estimate == pytest.approx(0.4)
    assert max(abs(shift.estimate) for shift in shifts.series.values()) < 1e-9


def test_with_two_nodes_nothing_is_taken_out() -> None:
    """What two nodes have in common cannot be told from their own."""
    before, after = panel([0.0] * 5), panel([0.0] * 3, {1: 0.3})
    two = {node: before[node] for node in (0, 1)}, {node: after[node] for node in (0, 1)}
    shifts = independent_shifts(*two, ())
    assert shifts.suite is None
    assert shifts.series[1].estimate == pytest.approx(0.3)


def test_a_job_without_a_factor_is_left_out() -> None:
    """A job that has too few nodes to tell its machine is not compared with those that have."""
    before, after = panel([0.0] * 5), panel([0.0, 0.0, 0.0])
    after[0][3] = Sample(9.0, 0.001, 500)
    assert independent_shifts(before, after, NODES).series[0].estimate == pytest.approx(0.0, abs=1e-9)


def test_the_error_is_shrunk_toward_the_typical() -> None:
    """A node that happens to be quiet is not taken at its word; one that is noisy stays noisy."""
    before, after = panel([0.0] * 5, noise=0.1, seed=1), panel([0.0] * 3, noise=0.1, seed=2)
    before[0] = {job: Sample(0.0, 0.001, 500) for job in range(5)}
    after[0] = {job: Sample(0.0, 0.001, 500) for job in range(3)}
    errors = {node: shift.error for node, shift in independent_shifts(before, after, NODES).series.items()}
    assert errors[0] > 0.03
    assert errors[0] < statistics.median(errors.values())


def test_errors_of_the_histogram_count() -> None:
    """Few calls make a median unsure, even where jobs happen to agree."""
    sure, unsure = panel([0.0] * 5), panel([0.0] * 3)
    unsure[2] = {job: Sample(1.4, 0.2, 20) for job in range(3)}
    sure[2] = {job: Sample(1.4, 0.2, 20) for job in range(5)}
    errors = independent_shifts(sure, unsure, NODES).series
    assert errors[2].error > 4 * errors[3].error


@pytest.mark.parametrize("jobs", [(5, 3), (8, 8)])
def test_p_values_hold(jobs: tuple[int, int]) -> None:
    """Of nodes that did not move, no more are called so than was accepted."""
    rng = random.Random(5)
    below = total = 0
    for seed in range(150):
        sides = [
            panel([rng.gauss(0, 0.1) for _ in range(count)], noise=0.04, seed=1000 * seed + count) for count in jobs
        ]
        shifts = independent_shifts(sides[0], {node: dict(jobs) for node, jobs in sides[1].items()}, NODES)
        below += sum(shift.p_above(0.0) < 0.05 for shift in shifts.series.values())
        total += len(shifts.series)
    assert below / total < 0.07


def test_what_is_detectable_is_found_four_times_in_five() -> None:
    """A shift of the size that is told as detectable is found in about 80 % of the cases."""
    rng = random.Random(3)
    error, found = 0.03, 0
    size = Shift(0.0, error, 1e6, (5, 5)).detectable(0.05, 0.05)
    for _ in range(2000):
        found += Shift(rng.gauss(size, error), error, 1e6, (5, 5)).p_above(0.05) < 0.05
    assert found / 2000 == pytest.approx(0.8, abs=0.03)


def test_a_bound_is_exceeded_one_time_in_twenty() -> None:
    """The true shift is above the bound as often as the confidence leaves."""
    rng = random.Random(4)
    beyond = sum(Shift(rng.gauss(0, 0.1), 0.1, 1e6, (5, 5)).bound(0.95) < 0 for _ in range(2000))
    assert beyond / 2000 == pytest.approx(0.05, abs=0.02)
    assert math.isclose(Shift(0.0, 0.1, 5, (3, 3)).p_below(0.0), 0.5)
