"""What ``get_stats()`` tells is what a reference computed by hand tells, and what every way out of the process tells.

Time stands still but for what each thread says has passed, so that every duration is known beforehand.
"""

from __future__ import annotations

import json
import math
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from tests.support.otlp_receiver import otlp_receiver
from tests.support.receivers import wait_until

from aetherflow import PerformanceMonitor
from aetherflow.telemetry import active, observation
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.setup.configuring import configure

THREADS = 8
TIMES = 1_250
OPERATIONS = ("read", "write")


class ThreadClock(threading.local):
    """The time of each thread, in nanoseconds."""

    now = 0

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ThreadClock:
    """What durations are read off."""
    made = ThreadClock()
    monkeypatch.setattr(observation, "_now", made)
    return made


@dataclass(frozen=True)
class Reference:
    """What is true of an operation, in nanoseconds."""

    durations: list[int]
    errors: int

    def quantile(self, share: float) -> int:
        return sorted(self.durations)[max(math.ceil(share * len(self.durations)), 1) - 1]


def workload(seed: int) -> list[list[tuple[str, int, bool]]]:
    """Return for each thread the operations it measures: name, nanoseconds, and whether it fails."""
    rng = random.Random(seed)
    return [
        [
            (rng.choice(OPERATIONS), round(10 ** rng.uniform(2, 11)) if rng.random() < 0.9 else 0, rng.random() < 0.1)
            for _ in range(TIMES)
        ]
        for _ in range(THREADS)
    ]


def measure(monitor: PerformanceMonitor, clock: ThreadClock, work: list[list[tuple[str, int, bool]]]) -> None:
    """Measure it, all threads at once."""
    start = threading.Barrier(len(work))

    def run(mine: list[tuple[str, int, bool]]) -> None:
        start.wait()
        for name, nanoseconds, fails in mine:
            try:
                with monitor.measure(name):
                    clock.now += nanoseconds
                    if fails:
                        raise ValueError(name)
            except ValueError:
                pass

    threads = [threading.Thread(target=run, args=(mine,)) for mine in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def references(work: list[list[tuple[str, int, bool]]]) -> dict[str, Reference]:
    flat = [each for mine in work for each in mine]
    return {
        name: Reference(
            [nanoseconds for other, nanoseconds, _ in flat if other == name],
            sum(fails for other, _, fails in flat if other == name),
        )
        for name in OPERATIONS
    }


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(seed=st.integers(0, 2**32))
def test_statistics_are_those_computed_by_hand(clock: ThreadClock, seed: int) -> None:
    """10,000 measurements on 8 threads: all exact but the percentiles, which are at most 5 % off."""
    monitor, work = PerformanceMonitor(), workload(seed)
    measure(monitor, clock, work)
    stats = monitor.get_stats()
    assert stats.keys() == set(OPERATIONS)
    assert sum(found["count"] for found in stats.values()) == THREADS * TIMES
    for name, expected in references(work).items():
        found, count = stats[name], len(expected.durations)
        assert (found["count"], found["error_count"]) == (count, expected.errors)
        assert (found["min_time"], found["max_time"]) == (min(expected.durations) / 1e9, max(expected.durations) / 1e9)
        assert found["total_time"] == sum(expected.durations) / 1e9
        assert found["avg_time"] == sum(expected.durations) / count / 1e9
        assert found["error_rate"] == expected.errors / count
        for key, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            assert found[key] == pytest.approx(expected.quantile(share) / 1e9, rel=0.05)  # type: ignore[literal-required]


Told = dict[str, float]
"""What a way out tells of an operation: count, errors, sum, min and max."""


def expected_of(work: list[list[tuple[str, int, bool]]]) -> dict[str, Told]:
    return {
        name: {
            "count": len(reference.durations),
            "errors": reference.errors,
            "sum": pytest.approx(sum(reference.durations) / 1e9, rel=1e-12),
            "min": min(reference.durations) / 1e9,
            "max": max(reference.durations) / 1e9,
        }
        for name, reference in references(work).items()
    }


def put_together(points: Iterator[tuple[str, bool, int, float, float, float]]) -> dict[str, Told]:
    """Put points together by operation: its name, whether it is of errors, count, sum, min and max."""
    found: dict[str, Told] = {}
    for name, is_error, count, total, low, high in points:
        told = found.setdefault(name, {"count": 0, "errors": 0, "sum": 0.0, "min": math.inf, "max": 0.0})
        told["count"] += count
        told["errors"] += count if is_error else 0
        told["sum"] += total
        told["min"], told["max"] = min(told["min"], low), max(told["max"], high)
    return found


def of_reader(*collections: Any) -> dict[str, Told]:
    def points() -> Iterator[tuple[str, bool, int, float, float, float]]:
        for data in collections:
            for metric in (m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics):
                if metric.name == names.OPERATION_DURATION.name:
                    for p in metric.data.data_points:
                        is_error = names.ERROR_TYPE in p.attributes
                        yield p.attributes[names.OPERATION_NAME], is_error, p.count, p.sum, p.min, p.max

    return put_together(points())


@pytest.mark.parametrize("exponential", [False, True], ids=["explicit", "exponential"])
def test_an_applications_readers_see_the_same(clock: ThreadClock, exponential: bool) -> None:
    """Cumulative and delta, the deltas of two collections together; with no tracer at all."""
    aggregation = {Histogram: ExponentialBucketHistogramAggregation()} if exponential else {}
    cumulative = InMemoryMetricReader(preferred_aggregation=aggregation)
    delta = InMemoryMetricReader({Histogram: AggregationTemporality.DELTA}, aggregation)
    monitor, work = PerformanceMonitor(), workload(1)
    active.set_active(active.Providers(None, MeterProvider([cumulative, delta], shutdown_on_exit=False)))
    measure(monitor, clock, [mine[: TIMES // 2] for mine in work])
    first = delta.get_metrics_data()
    measure(monitor, clock, [mine[TIMES // 2 :] for mine in work])
    expected = expected_of(work)
    assert of_reader(cumulative.get_metrics_data()) == expected
    assert of_reader(first, delta.get_metrics_data()) == expected
    assert {name: found["count"] for name, found in monitor.get_stats().items()} == {
        name: told["count"] for name, told in expected.items()
    }


def test_an_exported_file_has_the_same(clock: ThreadClock, tmp_path: Path) -> None:
    """As OTLP JSON, by the exporter that ``configure()`` makes."""
    monitor, work = PerformanceMonitor(), workload(2)
    with configure(exporter="file", directory=tmp_path) as telemetry:
        measure(monitor, clock, work)
    assert telemetry.metrics_path is not None

    def points() -> Iterator[tuple[str, bool, int, float, float, float]]:
        *_, last = telemetry.metrics_path.read_text(encoding="utf-8").splitlines()  # type: ignore[union-attr]
        for metric in (m for r in json.loads(last)["resourceMetrics"] for s in r["scopeMetrics"] for m in s["metrics"]):
            if metric["name"] != names.OPERATION_DURATION.name:
                continue
            for p in metric["exponentialHistogram"]["dataPoints"]:
                told = {each["key"]: each["value"].get("stringValue") for each in p["attributes"]}
                low, high = float(p["min"]), float(p["max"])
                yield told[names.OPERATION_NAME], names.ERROR_TYPE in told, int(p["count"]), float(p["sum"]), low, high

    assert put_together(points()) == expected_of(work)


def test_a_receiver_gets_the_same(clock: ThreadClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same histograms arrive over OTLP."""
    monitor, work = PerformanceMonitor("its own"), workload(3)
    succeeding = [[(name, nanoseconds, False) for name, nanoseconds, _ in mine] for mine in work]
    with otlp_receiver(tmp_path, signal="metrics") as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.http_endpoint)
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
        with configure():
            measure(monitor, clock, succeeding)

        def arrived() -> dict[str, dict[str, float]]:
            found = receiver.histograms(names.OPERATION_DURATION.name, names.OPERATION_NAME)
            complete = found.keys() >= set(OPERATIONS) and all("Max" in found[name] for name in OPERATIONS)
            return found if complete else {}

        received = wait_until(arrived, "the histograms")
    for name, told in expected_of(succeeding).items():
        found = received[name]
        assert (found["Count"], found["Sum"], found["Min"]) == (told["count"], told["sum"], told["min"])
        assert found["Max"] == told["max"]
