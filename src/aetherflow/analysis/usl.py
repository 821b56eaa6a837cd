"""The Universal Scalability Law: how throughput goes with concurrency, fitted with intervals of confidence.

With N at once the throughput is lambda N / (1 + sigma (N - 1) + kappa N (N - 1)): lambda is that of one alone, sigma
the share of the work that waits for its turn (contention), kappa what each costs every other one (coherency).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Estimate", "Law", "Scaling", "fit_law", "fit_scaling"]

_FEWEST_LEVELS: Final = 3
_ENOUGH_LEVELS: Final = 4
_ROUNDS: Final = 3
_RESAMPLES: Final = 200
_TAIL: Final = 0.025
_BAD_RESIDUAL: Final = 0.10
_FAR: Final = 2.0
_SINGULAR: Final = 1e-12
"""A pivot below this, in columns scaled to size one, tells nothing."""
"""Times the largest measured concurrency beyond which a best one is a guess."""


@dataclass(frozen=True, slots=True)
class Law:
    """The law with its parameters.

    Attributes:
        rate: lambda, in runs a second.
        contention: sigma.
        coherency: kappa.
    """

    rate: float
    contention: float
    coherency: float

    def throughput(self, concurrency: float) -> float:
        """Give the runs a second at a concurrency."""
        others = concurrency - 1
        return self.rate * concurrency / (1 + self.contention * others + self.coherency * concurrency * others)

    @property
    def peak(self) -> float:
        """The concurrency with the highest throughput; infinite where more is always more."""
        if self.coherency <= 0:
            return math.inf
        return max(1.0, math.sqrt(max(0.0, 1 - self.contention) / self.coherency))

    @property
    def knee(self) -> float:
        """The concurrency beyond which latency rises faster than throughput; infinite where it never does.

        That is where throughput by latency is highest (Kleinrock's power).
        """
        if self.coherency <= 0:
            return max(1.0, (1 - self.contention) / self.contention) if self.contention > 0 else math.inf
        spread, free = self.contention - self.coherency, max(0.0, 1 - self.contention)
        root = math.sqrt(spread * spread + 12 * self.coherency * free)
        if spread > 0:  # the same root of the equation, without a difference of nearly equal numbers
            return max(1.0, 2 * free / (spread + root))
        return max(1.0, (root - spread) / (6 * self.coherency))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and the interval that holds it with 95 % confidence."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Scaling:
    """A fit.

    Attributes:
        law: The law that fits best.
        rate: Its lambda.
        contention: Its sigma.
        coherency: Its kappa.
        peak: The concurrency with the highest throughput.
        knee: The concurrency beyond which latency rises faster than throughput.
        residual: How far the measurements typically are from the law, as a fraction.
        doubts: Why it is not to be relied on; none where it is.
        laws: Laws that fit as well, as measurements are repeated in thought.
    """

    law: Law
    rate: Estimate
    contention: Estimate
    coherency: Estimate
    peak: Estimate
    knee: Estimate
    residual: float
    doubts: tuple[str, ...]
    laws: tuple[Law, ...]

    def estimate(self, figure: Callable[[Law], float]) -> Estimate:
        """Give any figure of the law with its interval."""
        return _estimate(figure, self.law, self.laws)


def fit_scaling(measured: Sequence[tuple[float, float]], *, seed: int = 0) -> Scaling:
    """Fit the law, and say how sure it is.

    Args:
        measured: Concurrency and throughput, both above 0; every level may be there several times.
        seed: Of the resampling, so that the same measurements give the same intervals.

    Raises:
        ValueError: There are fewer than three levels, which any curve fits.
    """
    levels = {level for level, _ in measured}
    if len(levels) < _FEWEST_LEVELS:
        raise ValueError(f"{len(levels)} levels of concurrency; the law takes at least {_FEWEST_LEVELS}")
    law = fit_law(measured)
    residuals = [math.log(rate / law.throughput(level)) for level, rate in measured]
    free = max(1, len(measured) - 3)
    residual = math.sqrt(math.fsum(each * each for each in residuals) / free)
    laws = tuple(_resampled(measured, law, residuals, random.Random(seed)))
    return Scaling(
        law=law,
        rate=_estimate(lambda each: each.rate, law, laws),
        contention=_estimate(lambda each: each.contention, law, laws),
        coherency=_estimate(lambda each: each.coherency, law, laws),
        peak=_estimate(lambda each: each.peak, law, laws),
        knee=_estimate(lambda each: each.knee, law, laws),
        residual=residual,
        doubts=tuple(_doubts(law, levels, residual, measured)),
        laws=laws,
    )


def fit_law(measured: Sequence[tuple[float, float]]) -> Law:
    """Find the law that is nearest to measurements, by the ratio to each.

    N / throughput is linear in 1, sigma and kappa, each by lambda, and none of them is negative: where the best fit
    would make one so, the best of those without it is taken.
    """
    if whole := _fit(measured, (0, 1, 2)):
        return whole
    simpler = [law for columns in ((0, 1), (0, 2), (0,)) if (law := _fit(measured, columns))]
    return min(simpler, key=lambda law: _distance(law, measured))


def _fit(measured: Sequence[tuple[float, float]], columns: Sequence[int]) -> Law | None:
    """Fit the chosen terms; None where one would be negative."""
    rows = [(1.0, level - 1, level * (level - 1)) for level, _ in measured]
    times = [level / rate for level, rate in measured]
    scales = list(times)
    terms = [0.0, 0.0, 0.0]
    for _ in range(_ROUNDS):
        solved = _least_squares(
            [[row[column] / scale for column in columns] for row, scale in zip(rows, scales, strict=True)],
            [time / scale for time, scale in zip(times, scales, strict=True)],
        )
        if solved is None or solved[0] <= 0 or min(solved) < 0:
            return None
        terms = [0.0, 0.0, 0.0]
        for column, value in zip(columns, solved, strict=True):
            terms[column] = value
        # Errors are relative to what is true, which the fit knows better than each measurement does.
        scales = [sum(term * part for term, part in zip(terms, row, strict=True)) for row in rows]
    return Law(1 / terms[0], terms[1] / terms[0], terms[2] / terms[0])


def _distance(law: Law, measured: Iterable[tuple[float, float]]) -> float:
    return math.fsum(math.log(rate / law.throughput(level)) ** 2 for level, rate in measured)


def _least_squares(rows: Sequence[Sequence[float]], values: Sequence[float]) -> list[float] | None:
    """Solve the normal equations by elimination; None where they have no one solution."""
    width = len(rows[0])
    # Columns are brought to one size first: N (N - 1) is a thousand times 1.
    sizes = [math.sqrt(math.fsum(row[column] ** 2 for row in rows)) or 1.0 for column in range(width)]
    scaled = [[row[column] / sizes[column] for column in range(width)] for row in rows]
    table = [
        [math.fsum(row[i] * row[j] for row in scaled) for j in range(width)]
        + [math.fsum(row[i] * value for row, value in zip(scaled, values, strict=True))]
        for i in range(width)
    ]
    for i in range(width):
        pivot = max(range(i, width), key=lambda row: abs(table[row][i]))
        table[i], table[pivot] = table[pivot], table[i]
        if abs(table[i][i]) < _SINGULAR:
            return None
        for j in range(width):
            if j != i:
                factor = table[j][i] / table[i][i]
                table[j] = [a - factor * b for a, b in zip(table[j], table[i], strict=True)]
    return [table[i][width] / table[i][i] / sizes[i] for i in range(width)]


def _resampled(
    measured: Sequence[tuple[float, float]], law: Law, residuals: Sequence[float], rng: random.Random
) -> Iterable[Law]:
    """Measure again in thought: the law, with its residuals dealt out anew."""
    inflation = math.sqrt(len(residuals) / max(1, len(residuals) - 3))
    for _ in range(_RESAMPLES):
        again = [(level, law.throughput(level) * math.exp(inflation * rng.choice(residuals))) for level, _ in measured]
        yield fit_law(again)


def _doubts(law: Law, levels: set[float], residual: float, measured: Sequence[tuple[float, float]]) -> Iterable[str]:
    if len(levels) < _ENOUGH_LEVELS:
        yield f"{len(levels)} levels are fitted by many curves; measure at {_ENOUGH_LEVELS} or more"
    if residual > _BAD_RESIDUAL:
        yield f"the measurements are typically {residual:.0%} off the law"
    if _FAR * max(levels) < law.peak < math.inf:
        yield f"the best concurrency is far beyond the largest that was measured, {max(levels):g}"
    alone = [rate / level for level, rate in measured if level == min(levels)]
    best = max(rate / level for level, rate in measured)
    if best > (1 + _BAD_RESIDUAL) * max(alone):
        yield "throughput rises faster than concurrency, which the law does not know"


def _estimate(figure: Callable[[Law], float], law: Law, laws: Sequence[Law]) -> Estimate:
    values = sorted(map(figure, laws))
    low, high = (values[min(len(values) - 1, round(share * len(values)))] for share in (_TAIL, 1 - _TAIL))
    return Estimate(figure(law), low, high)
