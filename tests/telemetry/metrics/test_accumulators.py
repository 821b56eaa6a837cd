"""The store of durations: exact whatever the threads, and quantiles within their stated error."""

from __future__ import annotations

import math
import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetherflow.telemetry.conventions import NODE_DURATION
from aetherflow.telemetry.metrics.accumulators import SCALE, Registry, Totals, bucket_of

durations = st.lists(st.integers(0, 10**12), min_size=1, max_size=200)


@given(st.integers(1, 10**15))
def test_a_bucket_holds_its_value(nanoseconds: int) -> None:
    """``base**i < value <= base**(i + 1)``, but for the rounding of the logarithm itself."""
    index, scale = bucket_of(nanoseconds), 2.0**-SCALE
    seconds, slack = nanoseconds / 1e9, 1e-9
    assert 2.0 ** (index * scale) * (1 - slack) < seconds <= 2.0 ** ((index + 1) * scale) * (1 + slack)


@given(durations, durations)
def test_totals_are_exact_and_add_up(first: list[int], second: list[int]) -> None:
    """Count, sum, minimum, maximum, zeros and buckets of two parts together are those of the whole."""
    together = Totals.of(first)
    together.add(Totals.of(second))
    whole = first + second
    assert together == Totals.of(whole)
    assert (together.count, together.total) == (len(whole), sum(whole))
    assert (together.minimum, together.maximum) == (min(whole), max(whole))
    assert together.zeros + sum(together.buckets.values()) == len(whole)
    assert together.buckets == Counter(bucket_of(value) for value in whole if value)


@given(durations, st.sampled_from([0.5, 0.95, 0.99]))
def test_quantiles_are_within_five_percent(values: list[int], share: float) -> None:
    """Relative to the value of that rank."""
    exact = sorted(values)[max(math.ceil(share * len(values)), 1) - 1] / 1e9
    assert Totals.of(values).quantile(share) == pytest.approx(exact, rel=0.05, abs=1e-12)


def test_nothing_is_lost_while_eight_threads_record_and_one_folds() -> None:
    """Values recorded while others are folded are counted once, in the totals and in a view alike."""
    registry = Registry()
    series, view, stop = registry.series(NODE_DURATION, {"n": "x"}), registry.open_view(), threading.Event()

    def record(start: int) -> None:
        for value in range(start, start + 10_000):
            series.add(value)

    def fold() -> None:
        while not stop.is_set():
            series.fold()

    recording = [threading.Thread(target=record, args=(n * 10_000,)) for n in range(8)]
    folding = threading.Thread(target=fold)
    for thread in (folding, *recording):
        thread.start()
    for thread in recording:
        thread.join()
    stop.set()
    folding.join()
    totals = series.totals()
    assert (totals.count, totals.total, totals.minimum, totals.maximum) == (80_000, sum(range(80_000)), 0, 79_999)
    assert view.totals()[series] == totals


def test_a_view_sees_what_came_after_it_and_is_let_go() -> None:
    """What was pending when it was opened is not its own; a view that nobody holds is not fed."""
    registry = Registry()
    series = registry.series(NODE_DURATION, {"n": "x"})
    series.add(1)
    view = registry.open_view()
    series.add(2)
    series.fold()
    assert view.totals()[series].total == 2
    del view
    assert not registry.sinks()


def test_a_series_forgets_what_its_parent_process_measured() -> None:
    """After a fork, the child counts from nothing."""
    series = Registry().series(NODE_DURATION, {})
    series.add(5)
    series.fold()
    series.add(6)
    series.after_fork()
    assert series.totals() == Totals()
