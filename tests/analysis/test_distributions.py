"""Student's t and Holm's adjustment, against known values and against what defines them."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetherflow.analysis.distributions import adjust_holm, t_quantile, t_survival

TABLE = [
    # p, df, t: printed tables, to more digits as SciPy 1.16 gives them
    (0.95, 1, 6.313751514800932),
    (0.975, 1, 12.706204736432095),
    (0.95, 2, 2.919985580355516),
    (0.975, 3, 3.182446305284263),
    (0.95, 4, 2.131846786326649),
    (0.999, 6, 5.207626238838042),
    (0.975, 10, 2.228138851964939),
    (0.995, 10, 3.16927267261695),
    (0.975, 30, 2.042272456301238),
    (0.975, 120, 1.979930405052777),
    (0.9995, 120, 3.3734537685625328),
]


@pytest.mark.parametrize(("p", "df", "t"), TABLE)
def test_known_quantiles(p: float, df: float, t: float) -> None:
    """Quantiles are those of the printed tables, on both sides, and the tail beyond them is what is left."""
    assert t_quantile(p, df) == pytest.approx(t, rel=1e-9)
    assert t_quantile(1 - p, df) == pytest.approx(-t, rel=1e-9)
    assert t_survival(t, df) == pytest.approx(1 - p, rel=1e-8)


@given(st.floats(-1e3, 1e3))
def test_one_degree_of_freedom_is_cauchys(t: float) -> None:
    """With one degree of freedom the tail is that of the Cauchy distribution."""
    exact = math.atan2(1, t) / math.pi
    assert t_survival(t, 1) == pytest.approx(exact, rel=1e-8)


@given(st.floats(-1e3, 1e3))
def test_two_degrees_of_freedom_have_a_closed_form(t: float) -> None:
    """With two degrees of freedom the distribution is a square root."""
    exact = 1 / (2 + t * t + abs(t) * math.sqrt(2 + t * t))
    assert t_survival(t, 2) == pytest.approx(exact if t >= 0 else 1 - exact, rel=1e-8)


@given(st.floats(-8, 8))
def test_many_degrees_of_freedom_are_the_normal_distribution(t: float) -> None:
    """With very many degrees of freedom it is the normal distribution."""
    assert t_survival(t, 1e9) == pytest.approx(math.erfc(t / math.sqrt(2)) / 2, rel=1e-5)


@given(st.floats(1e-9, 1 - 1e-9), st.floats(1, 1e4))
def test_quantile_and_tail_undo_each_other(p: float, df: float) -> None:
    """What is below a quantile is the probability it was asked for."""
    assert 1 - t_survival(t_quantile(p, df), df) == pytest.approx(p, rel=1e-6)


@pytest.mark.parametrize(("t", "df"), [(1.0, 0), (1.0, -1), (math.nan, 5), (1.0, math.nan)])
def test_a_tail_that_is_not_defined_is_refused(t: float, df: float) -> None:
    """Degrees of freedom that are not above zero, or what is no number, are told."""
    with pytest.raises(ValueError, match="allowed"):
        t_survival(t, df)


@pytest.mark.parametrize("p", [0, 1, -0.1, 2, math.nan])
def test_a_quantile_that_is_not_defined_is_refused(p: float) -> None:
    """Only probabilities strictly between 0 and 1 have a quantile."""
    with pytest.raises(ValueError, match="allowed"):
        t_quantile(p, 5)


def test_infinity_has_no_tail() -> None:
    """Nothing is beyond infinity, and everything above minus infinity."""
    assert t_survival(math.inf, 5) == 0
    assert t_survival(-math.inf, 5) == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0.001, 0.999))
def test_holm_rejects_what_closed_testing_rejects(p_values: list[float], alpha: float) -> None:
    """An adjusted p-value is below alpha when every set of hypotheses with it is rejected by Bonferroni's test."""
    adjusted = adjust_holm(p_values)
    everyone = range(len(p_values))
    for index in everyone:
        sets = (
            chosen
            for size in range(1, len(p_values) + 1)
            for chosen in itertools.combinations(everyone, size)
            if index in chosen
        )
        closed = max(min(1.0, len(chosen) * min(p_values[each] for each in chosen)) for chosen in sets)
        assert adjusted[index] == pytest.approx(closed)
        assert (adjusted[index] < alpha) == (closed < alpha) or adjusted[index] == pytest.approx(alpha)


def test_nothing_adjusted_is_nothing() -> None:
    """No p-values give none."""
    assert adjust_holm([]) == []
