"""Sliding windows: held against plain lists of what happened when."""

from __future__ import annotations

import gc
import threading
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetherflow.errors import ConfigurationError
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.metrics.accumulators import FOLD_AT, Registry, Totals
from aetherflow.telemetry.metrics.windows import SLICES, CounterWindow, SlidingWindow
from aetherflow.testing import FakeClock

LENGTH = float(SLICES)
"""Slices of one second."""

steps = st.lists(
    st.tuples(
        st.integers(0, 60).map(lambda quarters: quarters / 4),  # seconds, exact in binary
        st.sampled_from(["a", "b"]),
        st.lists(st.integers(0, 10**10), max_size=5),
        st.sampled_from(["read", "fold", "leave"]),
    ),
    max_size=40,
)


@given(steps)
def test_a_window_holds_what_was_folded_within_it(happened: list[tuple[float, str, list[int], str]]) -> None:
    """Exactly the values folded in this slice and the twelve before it: all bucket counts, sums, minima and maxima."""
    clock, store = FakeClock(), Registry()
    store.series(names.NODE_DURATION, {"n": "a"}).add(77)  # before its construction: not its own
    window = SlidingWindow(LENGTH, clock=clock.monotonic, store=store)
    pending: list[tuple[str, int]] = []
    folded: list[tuple[float, str, int]] = []
    for passed, name, values, then in happened:
        clock.advance(passed)
        for value in values:
            store.series(names.NODE_DURATION, {"n": name}).add(value)
            pending.append((name, value))
        if then == "leave":
            continue
        now = clock.monotonic()
        folded += [(now, *each) for each in pending]
        pending.clear()
        if then == "fold":
            store.fold()
            continue
        held = {series.attributes["n"]: totals for series, totals in window.totals().items()}
        kept = [each for each in folded if int(now) - int(each[0]) <= SLICES]
        expected = {key: [value for _, n, value in kept if n == key] for key in {n for _, n, _ in kept}}
        assert held == {key: Totals.of(values) for key, values in expected.items()}
        assert {each for each in folded if now - each[0] <= LENGTH} <= set(kept)
        assert all(now - each[0] < LENGTH + LENGTH / SLICES for each in kept)


def test_a_value_is_stamped_when_anyone_reads_the_store() -> None:
    """What a metric reader folded long ago is not counted as of now, though the window itself was not read since."""
    clock, store = FakeClock(), Registry()
    window = SlidingWindow(60.0, clock=clock.monotonic, store=store)
    series = store.series(names.NODE_DURATION, {"n": "a"})
    series.add(1)
    store.fold()
    clock.advance(172_800.0)
    series.add(2)
    assert window.totals() == {series: Totals.of([2])}


def test_reading_a_window_changes_nothing_in_it() -> None:
    """What a window gives is the caller's own: it may be read, and changed, as often as anyone likes."""
    clock, store = FakeClock(), Registry()
    window = SlidingWindow(LENGTH, clock=clock.monotonic, store=store)
    series = store.series(names.NODE_DURATION, {"n": "a"})
    for value in (1, 2):
        series.add(value)
        store.fold()
        clock.advance(1)
    store.series(names.NODE_DURATION, {"n": "b"}).add(3)  # the latest slice has none of the other series
    for _ in range(3):
        assert window.totals()[series] == Totals.of([1, 2])
        window.totals()[series].add(Totals.of([9]))


def test_nothing_is_lost_while_threads_record_and_others_read() -> None:
    """Every value recorded meanwhile is in the window, once."""
    clock, store = FakeClock(), Registry()
    window = SlidingWindow(60.0, clock=clock.monotonic, store=store)
    series, stop = store.series(names.NODE_DURATION, {"n": "a"}), threading.Event()

    def record() -> None:
        for value in range(FOLD_AT * 2):
            series.add(value)
            if len(series.pending) > FOLD_AT:
                series.fold()

    def read() -> None:
        while not stop.is_set():
            window.totals()

    recording, reading = [threading.Thread(target=record) for _ in range(4)], threading.Thread(target=read)
    for thread in (reading, *recording):
        thread.start()
    for thread in recording:
        thread.join()
    stop.set()
    reading.join()
    assert window.totals() == {series: Totals.of(list(range(FOLD_AT * 2)) * 4)}


def test_two_windows_and_a_dropped_one_do_not_disturb_each_other() -> None:
    """Each has its own length and base; one that nobody holds is not fed."""
    clock, store = FakeClock(), Registry()
    series = store.series(names.NODE_DURATION, {"n": "a"})
    short = SlidingWindow(6.0, clock=clock.monotonic, store=store)
    series.add(1)
    short.totals()
    long = SlidingWindow(60.0, clock=clock.monotonic, store=store)
    series.add(2)
    assert short.totals()[series] == Totals.of([1, 2])
    assert long.totals()[series] == Totals.of([2])
    clock.advance(30.0)
    assert not short.totals()
    assert long.totals()[series] == Totals.of([2])
    del short
    gc.collect()
    assert store.sinks() == (long,)


@pytest.mark.parametrize("length", [0, -1.0, float("nan"), float("inf"), True, "60", None])
def test_a_length_that_is_none_is_refused(length: object) -> None:
    """One error names the argument, the value and what is allowed."""
    with pytest.raises(ConfigurationError) as caught:
        SlidingWindow(length, store=Registry())  # type: ignore[arg-type]
    assert str(caught.value) == f"window={length!r} is not allowed; allowed: a number of seconds above 0"


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40))
def test_counters_count_since_a_window_ago(happened: list[tuple[int, int, int]]) -> None:
    """Differences to the latest snapshot that is as old as the window, or else to the first."""
    counts: dict[str, int] = {"a": 5}
    window: CounterWindow[str] = CounterWindow(LENGTH, counts, 0.0)
    snapshots: list[tuple[int, Mapping[str, int]]] = [(0, dict(counts))]
    now = 0
    for passed, more_a, more_b in happened:
        now += passed
        counts["a"] += more_a
        counts["b"] = counts.get("b", 0) + more_b
        old = [snapshot for at, snapshot in snapshots if at <= now - LENGTH]
        base = old[-1] if old else snapshots[0][1]
        assert window.advance(counts, float(now)) == {key: counts[key] - base.get(key, 0) for key in counts}
        snapshots.append((now, dict(counts)))


def test_a_counter_that_goes_back_counts_anew_and_snapshots_stay_few() -> None:
    """A process that was forked, or a part made anew, starts from 0; asking a thousand times a second keeps 14."""
    window: CounterWindow[str] = CounterWindow(LENGTH, {"a": 100}, 0.0)
    assert window.advance({"a": 3}, 1.0) == {"a": 3}
    for millisecond in range(1_000, 61_000):
        window.advance({"a": 3}, millisecond / 1_000)
    assert len(window._snapshots) <= SLICES + 2
