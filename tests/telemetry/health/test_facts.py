"""What health learns of executors, pools and spans from their metrics; and the metric that it is itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import pytest

from aetherflow import HealthMonitor, configure, node
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.capture import CapturedTelemetry
from aetherflow.telemetry.health.facts import Metered, Queue
from aetherflow.telemetry.health.monitor import set_current_monitor
from aetherflow.telemetry.metrics import gauges
from aetherflow.telemetry.metrics.accumulators import registry
from aetherflow.testing import FakeClock

_numbers = count()


class Told:
    """Somebody who is asked when metrics are collected."""

    def __init__(self, definition: names.MetricDefinition, *readings: gauges.Reading) -> None:
        self.readings = list(readings)
        gauges.observe(definition, self, lambda told: told.readings)


@pytest.fixture
def name() -> str:
    return f"named_{next(_numbers)}"


@pytest.mark.parametrize(
    ("kind", "attribute", "waiting", "waits"),
    [
        ("executor", names.EXECUTOR_NAME, names.EXECUTOR_QUEUE, names.EXECUTOR_WAIT),
        ("pool", names.POOL_NAME, names.POOL_WAITING, names.POOL_WAIT),
    ],
)
def test_a_stuck_queue_is_seen_in_its_metrics(name: str, kind: str, attribute: str, waiting: Any, waits: Any) -> None:
    """Who waits is a gauge, who was served is the count of the waits; two of one name are one."""
    clock, series = FakeClock(), registry.series(waits, {attribute: name})
    first, second = Told(waiting, (2, {attribute: name})), Told(waiting, (1, {attribute: name}))
    series.add(1_000)
    assert Queue(kind, name, 3, 1) in list(Metered().queues())
    monitor = HealthMonitor(10.0, clock=clock.monotonic, wall_clock=clock.time)

    def status() -> str:
        clock.advance(6.0)
        found = monitor.check().checks.get(f"{kind} {name}: time without progress")
        return "idle" if found is None else found.status

    assert [status(), status()] == ["ok", "error"]
    series.add(1_000)
    assert status() == "ok"
    first.readings = second.readings = []
    assert status() == "idle"


def test_lost_spans_are_seen_in_their_metric() -> None:
    """By outcome."""
    told = Told(
        names.TELEMETRY_SPANS, *((n, {names.TELEMETRY_OUTCOME: how}) for n, how in ((7, "exported"), (2, "failed")))
    )
    before = Metered().spans()
    told.readings.append((5, {names.TELEMETRY_OUTCOME: "dropped"}))
    now = Metered().spans()
    assert {how: now[how] - before[how] for how in ("exported", "failed", "dropped")} == {
        "exported": 0, "failed": 0, "dropped": 5,
    }  # fmt: skip


class Nothing:
    """What is known of executors, pools and spans where nobody looks: other tests have left some that are at work."""

    def queues(self) -> Iterator[Queue]:
        return iter(())

    def spans(self) -> Mapping[str, int]:
        return {}


@pytest.fixture
def current() -> Iterator[HealthMonitor]:
    monitor = HealthMonitor(min_samples=2, interval=3600, facts=Nothing())
    set_current_monitor(monitor)
    yield monitor
    set_current_monitor(None)


def test_the_status_is_a_metric(current: HealthMonitor, name: str) -> None:
    """1 for the state that it is, 0 for the others, of the process's own monitor alone; all 0 while it is unknown."""
    other = HealthMonitor()
    other.add_check("bad", lambda: False)
    other.check()

    @node(name=name)
    def quick() -> None: ...

    with CapturedTelemetry() as captured:

        def states() -> dict[str, float]:
            points = captured.points(names.HEALTH_STATUS.name)
            return {point.attributes[names.HEALTH_STATE]: point.value for point in points}

        quick.run()
        assert states() == {"healthy": 0, "degraded": 0, "unhealthy": 0}
        quick.run()
        assert states() == {"healthy": 0, "degraded": 0, "unhealthy": 0}  # the report is not too old yet
        current.check()
        assert states() == {"healthy": 1, "degraded": 0, "unhealthy": 0}


def test_without_a_monitor_of_the_process_there_is_no_status() -> None:
    """Nobody is told of thresholds that nobody has chosen."""
    assert not gauges.readings(names.HEALTH_STATUS)


def test_spans_that_are_not_exported_degrade(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real pipeline, in front of a receiver that is not there: what it gives up is loss of telemetry."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")  # the SDK's exporter of metrics would go on retrying after it

    @node(name=name)
    def quick() -> None: ...

    telemetry, monitor = configure(set_global=False), HealthMonitor()
    for _ in range(20):
        quick.run()
    telemetry.shutdown(0.05)
    report = monitor.check()
    assert (report.status, report.checks["telemetry: loss"].value) == ("degraded", 1.0)
