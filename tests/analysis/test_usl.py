"""The law of scaling is found again in what follows it, and doubted where the measurements do not."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetherflow.analysis.usl import Law, fit_law, fit_scaling

LEVELS = (1, 2, 4, 8, 16, 32)


def measured(law: Law, noise: float = 0.0, repeats: int = 3, levels: Sequence[int] = LEVELS, seed: int = 0) -> list:
    rng = random.Random(seed)
    return [(float(n), law.throughput(n) * math.exp(rng.gauss(0, noise))) for n in levels for _ in range(repeats)]


@given(st.floats(1e-2, 1e5), st.floats(0, 0.9), st.floats(0, 0.1))
def test_a_law_without_noise_is_found_exactly(rate: float, contention: float, coherency: float) -> None:
    """Whatever the parameters, also those that are zero."""
    found = fit_law(measured(Law(rate, contention, coherency)))
    assert found.rate == pytest.approx(rate, rel=1e-6)
    assert found.contention == pytest.approx(contention, abs=1e-6)
    assert found.coherency == pytest.approx(coherency, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("contention", "coherency"), [(0.05, 0.001), (0.1, 0.005), (0.3, 0.002)])
def test_a_noisy_law_is_found_within_five_percent(contention: float, coherency: float, seed: int) -> None:
    """At noise of half a percent all parameters, the best concurrency and the knee are within 5 %."""
    law = Law(1000.0, contention, coherency)
    found = fit_scaling(measured(law, 0.005, levels=(*LEVELS, 64, 128), seed=seed), seed=seed).law
    assert found.rate == pytest.approx(law.rate, rel=0.05)
    assert found.contention == pytest.approx(contention, rel=0.05)
    assert found.coherency == pytest.approx(coherency, rel=0.05)
    assert found.peak == pytest.approx(law.peak, rel=0.05)
    assert found.knee == pytest.approx(law.knee, rel=0.05)


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Of 60 intervals of 95 %, not many miss; and they are not wide for nothing."""
    law = Law(500.0, 0.08, 0.002)
    held = 0
    for seed in range(60):
        found = fit_scaling(measured(law, 0.02, seed=seed), seed=seed)
        held += found.contention.low <= law.contention <= found.contention.high
        assert found.contention.high - found.contention.low < 0.08
    assert held >= 52


def test_the_peak_and_the_knee_are_where_they_are_defined() -> None:
    """Throughput is highest at the peak, throughput by latency at the knee."""
    law = Law(100.0, 0.05, 0.002)
    around = [1 + step / 100 for step in range(6000)]
    assert law.peak == pytest.approx(max(around, key=law.throughput), abs=0.02)
    assert law.knee == pytest.approx(max(around, key=lambda n: law.throughput(n) ** 2 / n), abs=0.02)


def test_what_scales_without_limit_has_none() -> None:
    """Without coherency there is no best concurrency; without contention no knee either."""
    assert Law(1.0, 0.1, 0.0).peak == math.inf
    assert Law(1.0, 0.1, 0.0).knee == pytest.approx(9.0)
    assert Law(1.0, 0.0, 0.0).knee == math.inf
    assert Law(1.0, 0.9, 0.5).peak == 1.0


def test_what_gets_worse_at_once_is_best_alone() -> None:
    """A flow that more threads only slow down has its best concurrency at one."""
    scaling = fit_scaling([(1.0, 100.0), (2.0, 80.0), (4.0, 50.0), (8.0, 20.0)])
    assert scaling.law.peak < 1.6
    assert scaling.law.knee == 1.0


@pytest.mark.parametrize(
    ("points", "doubt"),
    [
        (measured(Law(100, 0.1, 0.01), levels=(1, 2, 4)), "3 levels are fitted by many curves"),
        (measured(Law(100, 0.1, 0.01), 0.4), "off the law"),
        (measured(Law(100, 0.01, 1e-5), levels=(1, 2, 3, 4)), "far beyond the largest that was measured, 4"),
        ([(1.0, 10.0), (2.0, 30.0), (4.0, 80.0), (8.0, 200.0)], "rises faster than concurrency"),
    ],
)
def test_a_bad_fit_is_told(points: list[tuple[float, float]], doubt: str) -> None:
    """Too few levels, scatter, a guess far out and what the law does not know are said."""
    assert any(doubt in each for each in fit_scaling(points).doubts)
    assert fit_scaling(measured(Law(100, 0.1, 0.01))).doubts == ()


def test_two_levels_are_refused() -> None:
    """Any law goes through two points."""
    with pytest.raises(ValueError, match="2 levels of concurrency; the law takes at least 3"):
        fit_scaling([(1.0, 1.0), (2.0, 2.0)])


@pytest.mark.parametrize("coherency", [1e-9, 1e-14, 1e-18, 1e-300])
def test_the_knee_is_steady_where_threads_cost_each_other_nearly_nothing(coherency: float) -> None:
    """A coherency near zero has nearly the knee of none at all."""
    assert Law(100.0, 0.1, coherency).knee == pytest.approx(Law(100.0, 0.1, 0.0).knee, rel=1e-5)
