"""Student's t distribution and the adjustment for many tests: the little statistics that the gate needs, exactly.

They are written out here because SciPy would be a hundred megabytes of dependency for two functions.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Final

__all__ = ["adjust_holm", "t_quantile", "t_survival"]

_STEPS: Final = 400
_TINY: Final = 1e-300
_PRECISION: Final = 1e-15


def t_survival(t: float, df: float) -> float:
    """Give the probability that Student's t is greater than a value.

    Args:
        t: The value.
        df: Degrees of freedom, above 0.

    Returns:
        The upper tail, 0 to 1; accurate to about 12 digits, far out in the tail too.

    Raises:
        ValueError: ``df`` is not above 0, or ``t`` is not a number.
    """
    if not df > 0 or math.isnan(t):
        raise ValueError(f"t is {t!r} with df {df!r}; allowed: a number, with df above 0")
    tail = _beta_tail(t, df) / 2
    return tail if t >= 0 else 1 - tail


@functools.lru_cache(maxsize=4096)
def t_quantile(p: float, df: float) -> float:
    """Give the value that Student's t stays below with a probability.

    Args:
        p: The probability, above 0 and below 1.
        df: Degrees of freedom, above 0.

    Returns:
        The value, to about 10 digits.

    Raises:
        ValueError: An argument is outside its range.
    """
    if not 0 < p < 1:
        raise ValueError(f"p is {p!r}; allowed: above 0 and below 1")
    if p < 1 - p:  # the distribution is symmetric
        return -t_quantile(1 - p, df)
    low, high = 0.0, 1.0
    while t_survival(high, df) > 1 - p:
        low, high = high, high * 2
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if t_survival(middle, df) > 1 - p:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for there being many, after Holm: the chance of any false one stays what it is for one.

    Args:
        p_values: Each 0 to 1.

    Returns:
        The adjusted values, in the same order, none smaller than before.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = largest
    return adjusted


def _beta_tail(t: float, df: float) -> float:
    """Give the regularised incomplete beta function I_x(df/2, 1/2) at x = df / (df + t²): both tails of t."""
    square = t * t
    if math.isinf(square):
        return 0.0
    x, rest = df / (df + square), square / (df + square)
    a, b = df / 2, 0.5
    if rest == 0:
        return 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest))
    # The continued fraction converges quickly on this side of the mean; the symmetry serves the other.
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(x, a, b) / a
    return 1 - front * _beta_fraction(rest, b, a) / b


def _beta_fraction(x: float, a: float, b: float) -> float:
    """Evaluate the continued fraction of the incomplete beta function, by Lentz's method."""
    c, d = 1.0, 1 / _apart(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _STEPS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _apart(1 + term * d)
            c = _apart(1 + term / c)
            step = c * d
            value *= step
        if abs(step - 1) < _PRECISION:
            break
    return value


def _apart(value: float) -> float:
    """Keep a denominator away from zero."""
    return value if abs(value) > _TINY else _TINY
