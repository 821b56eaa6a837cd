"""Every way out of the store is exact: any provider, any reader, at any time, whatever records and collects at once."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics._internal import _view_instrument_match
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import (
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    View,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, TraceIdRatioBased

from aetherflow import PerformanceMonitor, node
from aetherflow.telemetry import active
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.metrics import gauges, publishing
from aetherflow.telemetry.metrics.accumulators import FOLD_AT, registry
from aetherflow.telemetry.observer import current_observer, emit

takes_folds = pytest.mark.skipif(
    not hasattr(_view_instrument_match, "_hash_attributes"), reason="this SDK is recorded in one by one"
)
CUMULATIVE, DELTA = AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA
NODE = names.NODE_DURATION.name


@node
def work(x: int) -> int:
    return x


@node
def fail(x: int) -> int:
    raise KeyError(x)


def reader(temporality: AggregationTemporality = CUMULATIVE, exponential: bool = False) -> InMemoryMetricReader:
    """Return a reader that keeps what it collects in memory."""
    kind = ExponentialBucketHistogramAggregation() if exponential else ExplicitBucketHistogramAggregation()
    return InMemoryMetricReader({Histogram: temporality}, {Histogram: kind})


def provider(*readers: InMemoryMetricReader, **options: Any) -> MeterProvider:
    """Return a provider as an application makes it."""
    return MeterProvider(readers, Resource.get_empty(), shutdown_on_exit=False, **options)


def points(of: InMemoryMetricReader, name: str = NODE) -> list[Any]:
    """Collect, and return the points of a metric."""
    data = of.get_metrics_data()
    found = [m for r in (data.resource_metrics if data else ()) for s in r.scope_metrics for m in s.metrics]
    return [point for metric in found if metric.name == name for point in metric.data.data_points]


def counts(of: InMemoryMetricReader, name: str = NODE) -> dict[str, int]:
    """Collect, and return how often each node was executed; with its error, if it ended with one."""
    told = (names.NODE_NAME, names.ERROR_TYPE)
    return {
        " ".join(str(point.attributes[key]) for key in told if key in point.attributes): point.count
        for point in points(of, name)
    }


@contextmanager
def using(meters: metrics.MeterProvider | None, tracers: trace.TracerProvider | None = None) -> Iterator[None]:
    """Have AetherFlow use these providers."""
    active.set_active(active.Providers(tracers, meters))
    try:
        yield
    finally:
        active.set_active(None)


class _Recorded(metrics.NoOpHistogram):
    def __init__(self, name: str, values: list[tuple[str, float]]) -> None:
        super().__init__(name)
        self._kept = name, values

    def record(self, amount: float, attributes: Any = None, context: Any = None) -> None:
        self._kept[1].append((self._kept[0], amount))


class _Counted(metrics.NoOpCounter):
    def __init__(self, name: str, values: list[tuple[str, float]]) -> None:
        super().__init__(name)
        self._kept = name, values

    def add(self, amount: float, attributes: Any = None, context: Any = None) -> None:
        self._kept[1].append((self._kept[0], amount))


class OtherMeter(metrics.NoOpMeter):
    """A meter that is not the SDK's."""

    def __init__(self, values: list[tuple[str, float]]) -> None:
        super().__init__("other")
        self.values = values

    def create_histogram(self, name: str, *args: Any, **kwargs: Any) -> metrics.Histogram:
        return _Recorded(name, self.values)

    def create_counter(self, name: str, *args: Any, **kwargs: Any) -> metrics.Counter:
        return _Counted(name, self.values)


class OtherProvider(metrics.MeterProvider):
    """A provider that knows nothing but the API."""

    def __init__(self) -> None:
        self.values: list[tuple[str, float]] = []

    def get_meter(self, *args: Any, **kwargs: Any) -> metrics.Meter:
        return OtherMeter(self.values)


TRACERS: dict[str, Callable[[], trace.TracerProvider | None]] = {
    "no tracer": lambda: None,
    "sampled": lambda: TracerProvider(ALWAYS_ON, shutdown_on_exit=False),
    "sampled out": lambda: TracerProvider(ALWAYS_OFF, shutdown_on_exit=False),
    "half sampled": lambda: TracerProvider(TraceIdRatioBased(0.5), shutdown_on_exit=False),
}


@pytest.mark.parametrize("tracers", TRACERS)
def test_each_reader_sees_each_execution_once(tracers: str) -> None:
    """Cumulative and delta, explicit and exponential, over several collections, failures by their type."""
    readers = [reader(temporality, exponential) for temporality in (CUMULATIVE, DELTA) for exponential in (False, True)]
    with using(provider(*readers), TRACERS[tracers]()):
        for round_ in (1, 2, 3):
            for x in range(5):
                work.run(x)
                with pytest.raises(KeyError):
                    fail.run(x)
            for index, each in enumerate(readers):
                times = 1 if index >= 2 else round_
                assert counts(each) == {"work": 5 * times, "fail KeyError": 5 * times}


@pytest.mark.parametrize("tracers", TRACERS)
@pytest.mark.parametrize("temporality", [CUMULATIVE, DELTA], ids=["cumulative", "delta"])
def test_nothing_is_lost_while_threads_run_and_readers_collect(
    tracers: str, temporality: AggregationTemporality
) -> None:
    """Many more executions than are folded at once, on eight threads, while one thread collects all the time."""
    of, busy = reader(temporality, exponential=True), threading.Event()
    total, (threads, times) = 0, (8, FOLD_AT // 4)
    monitor = PerformanceMonitor()

    def run() -> None:
        for x in range(times):
            work.run(x)

    with using(provider(of), TRACERS[tracers]()):
        running = [threading.Thread(target=run) for _ in range(threads)]
        for thread in running:
            thread.start()
        while any(thread.is_alive() for thread in running):
            total = sum(counts(of).values()) + (total if temporality is DELTA else 0)
            busy.wait(0.001)
        last = sum(counts(of).values())
        assert (last + total if temporality is DELTA else last) == threads * times
    assert monitor.get_stats()["work"]["count"] == threads * times


def test_sum_minimum_and_maximum_are_those_of_the_store() -> None:
    """In every reader, what statistics tell of the same executions."""
    readers = [reader(temporality, exponential) for temporality in (CUMULATIVE, DELTA) for exponential in (False, True)]
    monitor = PerformanceMonitor()
    with using(provider(*readers)):
        for x in range(100):
            work.run(x)
        stats = monitor.get_stats()["work"]
        for each in readers:
            (point,) = points(each)
            assert (point.count, point.min, point.max) == (100, stats["min_time"], stats["max_time"])
            assert point.sum == pytest.approx(stats["total_time"], rel=1e-12)


def test_what_was_recorded_before_a_provider_came_is_not_published_in_it() -> None:
    """It belongs to nobody, or to the provider before, which gets all of it."""
    first, second = reader(), reader()
    work.run(1)
    with using(provider(first)):
        work.run(1)
        work.run(1)
    with using(provider(second)):
        work.run(1)
        assert counts(second) == {"work": 1}
    work.run(1)
    assert counts(first) == {"work": 2}
    assert counts(second) == {"work": 1}


def test_a_provider_that_is_used_again_goes_on() -> None:
    """Its instruments are made once, so nothing is published twice."""
    of = reader()
    mine = provider(of)
    for _ in range(3):
        with using(mine):
            work.run(1)
            work.run(1)
        with using(provider(reader())):
            work.run(1)
    assert counts(of) == {"work": 6}


def test_a_provider_that_is_set_globally_late_gets_what_comes_then() -> None:
    """Nobody has to tell AetherFlow."""
    work.run(1)
    of = reader()
    metrics.set_meter_provider(provider(of))
    work.run(1)
    assert counts(of) == {"work": 1}


def test_a_reader_that_comes_late_gets_what_comes_then() -> None:
    """What was collected before is not its own."""
    first, second = reader(), reader()
    mine = provider(first)
    with using(mine):
        work.run(1)
        assert counts(first) == {"work": 1}
        mine.add_metric_reader(second)
        work.run(1)
        assert (counts(first), counts(second)) == ({"work": 2}, {"work": 1})


def test_the_applications_views_are_applied() -> None:
    """To names, attributes and boundaries."""
    of = reader()
    views = [
        View(instrument_name=NODE, name="mine", attribute_keys={names.FLOW_NAME}),
        View(instrument_name=names.RUN_DURATION.name, aggregation=ExplicitBucketHistogramAggregation((1e-9, 1e6))),
    ]
    flow = (work >> node(lambda x: x, name="next")).named("both")
    with using(provider(of, views=views)):
        flow.run({"x": 1})
        (nodes,) = points(of, "mine")
        assert (nodes.attributes, nodes.count) == ({names.FLOW_NAME: "both"}, 2)
        (runs,) = points(of, names.RUN_DURATION.name)
        assert (runs.explicit_bounds, runs.bucket_counts) == ((1e-9, 1e6), (0, 1, 0))


def test_the_boundaries_are_those_advised_by_default() -> None:
    """A reader that says nothing of histograms has buckets from 100 µs to 300 s."""
    of = InMemoryMetricReader()
    with using(provider(of)):
        work.run(1)
        (point,) = points(of)
        assert tuple(point.explicit_bounds) == names.DURATION_BOUNDARIES


@takes_folds
def test_an_exemplar_points_into_the_trace_of_the_slowest_sampled_execution() -> None:
    """One a series and collection; none of what was sampled out."""
    of = reader()
    tracers = TracerProvider(TraceIdRatioBased(0.5), shutdown_on_exit=False)
    seen: dict[int, bool] = {}

    @node
    def look() -> None:
        context = trace.get_current_span().get_span_context()
        seen[context.trace_id] = context.trace_flags.sampled

    with using(provider(of), tracers):
        for _ in range(30):
            look.run()
        (point,) = points(of)
        (exemplar,) = point.exemplars
        assert seen[exemplar.trace_id]
        assert point.min <= exemplar.value <= point.max
        assert points(of)[0].exemplars == []


def test_no_exemplar_passes_a_filter_that_lets_none_through() -> None:
    """The application's filter decides."""
    of = reader()
    with using(provider(of, exemplar_filter=AlwaysOffExemplarFilter()), TRACERS["sampled"]()):
        work.run(1)
        (point,) = points(of)
        assert (point.count, list(point.exemplars)) == (1, [])


def test_counts_and_sizes_are_exact_and_keep_their_unit() -> None:
    """A counter adds up, in both temporalities; a histogram of items has whole numbers."""
    requests = registry.series(names.CACHE_REQUESTS, {names.CACHE_NAME: "c", names.CACHE_RESULT: "hit"})
    sizes = registry.series(names.BATCH_SIZE_METRIC, {names.NODE_NAME: "n"})
    cumulative, delta = InMemoryMetricReader(), InMemoryMetricReader({Counter: DELTA})
    with using(provider(cumulative, delta)):
        for round_ in (1, 2):
            for size in (1, 3, 200):
                emit(requests)
                emit(requests, 2)
                emit(sizes, size)
            for of, times in ((cumulative, round_), (delta, 1)):
                (counted,) = points(of, names.CACHE_REQUESTS.name)
                assert counted.value == 9 * times
                assert counted.attributes == {names.CACHE_NAME: "c", names.CACHE_RESULT: "hit"}
            (point,) = points(cumulative, names.BATCH_SIZE_METRIC.name)
            assert (point.sum, point.min, point.max, point.count) == (204 * round_, 1, 200, 3 * round_)


def test_any_other_provider_is_recorded_in_one_by_one() -> None:
    """With nothing but the API, whether there are spans or not."""
    other = OtherProvider()
    retries = registry.series(names.NODE_RETRIES, {names.NODE_NAME: "n"})
    monitor = PerformanceMonitor()
    for tracers in TRACERS.values():
        with using(other, tracers()):
            work.run(1)
            with monitor.measure("op"):
                pass
            emit(retries)
    assert [name for name, _ in other.values] == [NODE, names.OPERATION_DURATION.name, names.NODE_RETRIES.name] * 4
    stats = monitor.get_stats()
    assert sum(amount for name, amount in other.values if name == NODE) == pytest.approx(stats["work"]["total_time"])
    assert stats["op"]["count"] == 4


@takes_folds
def test_an_sdk_that_is_not_known_is_recorded_in_one_by_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With one line in the log, and the same numbers."""
    from aetherflow.telemetry.metrics import sdk_metrics

    monkeypatch.setattr(sdk_metrics, "difference", lambda: "they moved the buckets")
    publishing._is_trusted.cache_clear()
    try:
        of = reader()
        with using(provider(of)), caplog.at_level(logging.WARNING, "aetherflow"):
            assert not current_observer().idle
            for x in range(3):
                work.run(x)
        with using(provider(reader())):
            work.run(1)
        assert counts(of) == {"work": 3}
        assert [record.getMessage() for record in caplog.records] == [
            "this OpenTelemetry SDK takes no folds, so each value is recorded by itself: they moved the buckets"
        ]
    finally:
        publishing._is_trusted.cache_clear()


def test_a_node_run_by_a_callback_of_the_application_does_not_hang_its_collection() -> None:
    """The SDK cannot make an instrument in the middle of a collection; it is made at the next occasion."""
    of = reader()
    mine = provider(of)

    def callback(options: metrics.CallbackOptions) -> list[metrics.Observation]:
        return [metrics.Observation(work.run(7))]

    mine.get_meter("app").create_observable_gauge("seven", [callback])
    with using(mine):
        assert [point.value for point in points(of, "seven")] == [7]
        work.run(1)
        assert [counts(of)["work"] for _ in range(2)] == [3, 4]  # one more by each collection's own callback


def test_a_provider_that_is_let_go_is_not_kept_alive() -> None:
    """By nothing of ours, once another one is used."""
    mine = provider(reader())
    gone = weakref.ref(mine)
    with using(mine):
        work.run(1)
    del mine
    work.run(1)
    gc.collect()
    assert gone() is None


def test_what_is_observed_is_asked_for_at_each_collection_as_long_as_it_lives() -> None:
    """By a provider that came before or after; two owners with the same attributes are added up."""

    class Queue:
        def __init__(self, length: int) -> None:
            self.length = length

    attributes = {names.CACHE_NAME: "a name that no other test has"}
    first, second = Queue(2), Queue(3)
    definition = names.CACHE_ENTRIES

    def ask(queue: Queue) -> list[gauges.Reading]:
        return [(queue.length, attributes)]

    def told() -> list[int]:
        return [point.value for point in points(of, definition.name) if point.attributes == attributes]

    of = reader()
    gauges.observe(definition, first, ask)
    with using(provider(of)):
        work.run(1)
        gauges.observe(definition, second, ask)
        assert told() == [5]
        first.length = 10
        del second
        gc.collect()
        assert told() == [10]
    work.run(1)
    assert told() == []


def test_one_who_cannot_answer_does_not_silence_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure is counted, and the metric has what the others told."""
    monkeypatch.delenv("PYTEST_CURRENT_TEST")

    class Pool:
        broken = False

    broken, whole = Pool(), Pool()
    broken.broken = True

    def ask(pool: Pool) -> list[gauges.Reading]:
        if pool.broken:
            raise RuntimeError("gone")
        return [(1, {names.POOL_NAME: "p"})]

    gauges.observe(names.POOL_OBJECTS, broken, ask)
    gauges.observe(names.POOL_OBJECTS, whole, ask)
    assert (1, {names.POOL_NAME: "p"}) in gauges.readings(names.POOL_OBJECTS)
