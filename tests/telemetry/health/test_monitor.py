"""`HealthMonitor`: what it makes of the meters, of executors, pools and telemetry, and of registered checks."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import FrozenInstanceError, dataclass, field
from itertools import count, groupby
from typing import Any

import pytest
from tests.support.forking import fork

from aetherflow import ConfigurationError, PerformanceMonitor, node
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.health.limits import LimitsByName
from aetherflow.telemetry.health.measures import of_spans
from aetherflow.telemetry.health.monitor import HealthMonitor, Limits, Queue, Status
from aetherflow.telemetry.metrics.accumulators import registry
from aetherflow.testing import FakeClock

_numbers = count()


class Traffic:
    """Executions of a node of its own, with the durations and outcomes that a test says."""

    def __init__(self, name: str = "fetch") -> None:
        self.name = f"{name}_{next(_numbers)}"

    def executions(self, number: int, seconds: float, *, failing: int = 0, kind: str = "") -> None:
        for index in range(number):
            attributes = {names.FLOW_NAME: "flow", names.NODE_NAME: self.name}
            if kind:
                attributes[names.EXECUTION_KIND] = kind
            if index < failing:
                attributes[names.ERROR_TYPE] = "ValueError"
            registry.series(names.NODE_DURATION, attributes).add(round(seconds * 1e9))


@dataclass
class Told:
    """Facts as a test tells them."""

    queued: dict[str, Queue] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)

    def queues(self) -> list[Queue]:
        return list(self.queued.values())

    def spans(self) -> Mapping[str, int]:
        return dict(self.outcomes)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def monitor_on(clock: FakeClock, **options: Any) -> HealthMonitor:
    if "facts" not in options:  # else what other tests' exporters in this process lose would count
        options.setdefault("telemetry_loss", None)
    return HealthMonitor(clock=clock.monotonic, wall_clock=clock.time, **options)


def transitions(statuses: list[tuple[float, Status]]) -> Iterator[tuple[float, Status]]:
    """When the status changed, in minutes, and to what."""
    for status, group in groupby(statuses, key=lambda each: each[1]):
        yield next(group)[0] / 60, status


# --- from the meters -----------------------------------------------------------------------------------------


def test_a_scripted_hour(clock: FakeClock) -> None:
    """Unknown without traffic, healthy, degraded while slow, unhealthy while failing, healthy again: no flapping."""
    traffic, monitor = Traffic(), monitor_on(clock)
    other = monitor_on(clock, average=None, p95=None, error_rate=None)
    seen: list[tuple[float, Status]] = []
    for ten_seconds in range(360):
        minute = ten_seconds // 6
        if 5 <= minute < 20 or minute >= 40:
            traffic.executions(5, 0.05)
        elif 20 <= minute < 30:
            traffic.executions(5, 1.5)
        elif 30 <= minute < 40:
            traffic.executions(20, 0.05, failing=1)
        seen.append((clock.monotonic(), monitor.check().status))
        assert other.check().status == "unknown"
        clock.advance(10.0)
    assert [(round(at, 2), status) for at, status in transitions(seen)] == [
        (0.0, "unknown"),
        (5.17, "healthy"),  # the second ten seconds bring the tenth execution, and it decides at once
        (20.17, "degraded"),  # two evaluations agree
        (30.17, "unhealthy"),
        (41.33, "healthy"),  # the last failures leave the window after 65 s, and three evaluations agree
    ]


def test_load_that_is_bad_now_and_then_does_not_flap(clock: FakeClock) -> None:
    """Every other window is slow: the status stays what it was, whichever that is."""
    traffic, monitor = Traffic(), monitor_on(clock)
    seen = []
    for index in range(40):
        traffic.executions(20, 3.0 if index % 2 else 0.01)
        seen.append(monitor.check().status)
        clock.advance(120.0)
    assert set(seen) == {"healthy"}


def test_a_bad_hour_two_days_ago_does_not_count(clock: FakeClock) -> None:
    """Nor does what was recorded before the monitor was made."""
    traffic = Traffic()
    traffic.executions(100, 9.0, failing=100)
    monitor = monitor_on(clock)
    assert monitor.check().status == "unknown"
    for _ in range(360):
        traffic.executions(10, 9.0, failing=10)
        clock.advance(10.0)
        monitor.check()
    assert monitor.check().status == "unhealthy"
    clock.advance(172_800.0)
    for _ in range(3):
        traffic.executions(10, 0.01)
        report = monitor.check()
        clock.advance(10.0)
    assert report.status == "healthy"
    assert report.checks[f"node {traffic.name}: error rate"].value == 0.0


def test_the_numbers_are_those_of_the_window(clock: FakeClock) -> None:
    """Average and error rate exact, the 95th percentile within its stated error, each with its threshold."""
    traffic, monitor = Traffic(), monitor_on(clock, average=0.5, p95=2.0, error_rate=0.1)
    traffic.executions(90, 0.1, failing=9)
    traffic.executions(10, 1.0)
    checks = monitor.check().to_dict()["checks"]
    assert checks[f"node {traffic.name}: average latency"] == {"status": "ok", "value": 0.19, "threshold": 0.5}
    assert checks[f"node {traffic.name}: error rate"] == {"status": "ok", "value": 0.09, "threshold": 0.1}
    p95 = checks[f"node {traffic.name}: p95 latency"]
    assert (p95["status"], p95["threshold"]) == ("ok", 2.0)
    assert p95["value"] == pytest.approx(1.0, rel=0.05)


def test_a_threshold_may_be_reached_but_not_exceeded(clock: FakeClock) -> None:
    """The guide's `>`: 1.0 s and one error in a hundred are still good."""
    traffic, monitor = Traffic(), monitor_on(clock, p95=None)
    traffic.executions(100, 1.0, failing=1)
    assert monitor.check().status == "healthy"


def test_too_few_samples_are_unknown_and_ignored(clock: FakeClock) -> None:
    """Nine bad executions say nothing; the tenth decides at once, since nothing was known."""
    traffic, monitor = Traffic(), monitor_on(clock)
    traffic.executions(9, 5.0, failing=9)
    report = monitor.check()
    assert {check.status for check in report.checks.values()} == {"unknown"}
    assert (report.status, report.passes) == ("unknown", True)
    traffic.executions(1, 5.0)
    assert monitor.check().status == "unhealthy"


def test_cache_hits_hide_no_slow_node(clock: FakeClock) -> None:
    """A node that computes slowly is slow behind any number of hits, in its average and in its p95."""
    traffic, monitor = Traffic(), monitor_on(clock)
    traffic.executions(20, 3.0)
    for kind in ("cache_hit", "coalesced"):
        traffic.executions(2000, 0.00002, kind=kind)
    checks = {
        check.measurement: check for check in monitor.check().checks.values() if check.component.endswith(traffic.name)
    }
    assert checks["average latency"].status == checks["p95 latency"].status == "warning"
    assert checks["average latency"].value == pytest.approx(3.0)
    assert checks["error rate"].status == "ok"


def test_retried_executions_are_not_slow_and_their_failures_count(clock: FakeClock) -> None:
    """Back-off is no latency; a retried execution that failed is a failure among all executions."""
    traffic, monitor = Traffic(), monitor_on(clock)
    traffic.executions(20, 0.01)
    traffic.executions(80, 9.0, failing=25, kind="retried")
    checks = {
        check.measurement: check for check in monitor.check().checks.values() if check.component.endswith(traffic.name)
    }
    assert checks["p95 latency"].value == pytest.approx(0.01, rel=0.03)
    assert (checks["error rate"].status, checks["error rate"].value) == ("error", 0.25)


def test_hits_alone_say_nothing_of_a_latency(clock: FakeClock) -> None:
    """Without a computed execution there is no latency to check; with a few it is unknown, however many hits."""
    traffic, monitor = Traffic(), monitor_on(clock)
    traffic.executions(50, 0.00002, kind="cache_hit")

    def latencies() -> dict[str, str]:
        checks = (check for check in monitor.check().checks.values() if check.component.endswith(traffic.name))
        return {check.measurement: check.status for check in checks}

    assert latencies() == {"error rate": "ok"}
    traffic.executions(3, 9.0)
    assert latencies() == {"average latency": "unknown", "p95 latency": "unknown", "error rate": "ok"}


def test_operations_count_too_each_under_its_monitor(clock: FakeClock) -> None:
    """What `PerformanceMonitor.measure` records is checked as nodes are; a node of the same name is another check."""
    name, monitor = f"shared_{next(_numbers)}", monitor_on(clock, min_samples=1)

    @node(name=name)
    def executed() -> None: ...

    for performance in (PerformanceMonitor(), PerformanceMonitor("own")):
        with performance.measure(name):
            pass
    executed.run()
    components = {check.component for check in monitor.check().checks.values()}
    assert {f"operation {name}", f"operation own/{name}", f"node {name}"} <= components


def test_thresholds_by_name_and_pattern(clock: FakeClock) -> None:
    """An exact name comes before patterns, patterns in order, and what an entry leaves open is that of all."""
    exact, early, late, other = Traffic("early_exact"), Traffic("early_late"), Traffic("late"), Traffic("other")
    per: dict[str, Limits] = {
        "early*": {"average": 2.0},
        "*late*": {"average": 3.0, "error_rate": None},
        f"node {exact.name}": {"average": 4.0},
    }
    monitor = monitor_on(clock, average=0.5, per=per)
    for traffic in (exact, early, late, other):
        traffic.executions(10, 0.1)
    checks = monitor.check().checks
    averages = [checks[f"node {each.name}: average latency"].threshold for each in (exact, early, late, other)]
    assert averages == [4.0, 2.0, 3.0, 0.5]
    assert [f"node {each.name}: error rate" in checks for each in (early, late)] == [True, False]
    assert checks[f"node {exact.name}: error rate"].threshold == 0.01


def test_two_monitors_do_not_disturb_each_other(clock: FakeClock) -> None:
    """Each has a window, thresholds and a held status of its own, over the same meters."""
    traffic = Traffic()
    strict, lenient = monitor_on(clock, window=30.0, average=0.01), monitor_on(clock, average=5.0, p95=5.0)
    traffic.executions(20, 2.0)
    assert [each.check().status for each in (strict, lenient)] == ["degraded", "healthy"]
    clock.advance(40.0)
    later = monitor_on(clock)
    assert f"node {traffic.name}: average latency" not in strict.check().checks
    assert f"node {traffic.name}: average latency" in lenient.check().checks
    assert not later.check().checks


# --- executors, pools, telemetry -----------------------------------------------------------------------------


def test_an_executor_that_makes_no_progress_is_not_live(clock: FakeClock) -> None:
    """Stuck: tasks wait and none was done for longer than the window; slow, idle and just begun are not."""
    facts = Told({"e": Queue("executor", "main", 0, 0)})
    monitor = monitor_on(clock, facts=facts)

    def after(seconds: float, waiting: int, served: int) -> str:
        clock.advance(seconds)
        facts.queued["e"] = Queue("executor", "main", waiting, served)
        found = monitor.check().checks.get("executor main: time without progress")
        assert found is None or found.threshold == 60.0
        return "idle" if found is None else found.status

    assert after(3_600.0, 0, 0) == "idle"  # nobody has wanted anything of it
    assert after(3_600.0, 8, 0) == "ok"  # a burst after an idle hour
    assert after(60.0, 8, 0) == "ok"
    assert after(50.0, 8, 1) == "ok"  # slow, yet it moves
    assert after(60.0, 9, 1) == "ok"
    assert monitor.check().view("live").status == "healthy"
    assert after(1.0, 9, 1) == "error"
    assert after(1.0, 9, 1) == "error"
    report = monitor.check()
    assert report.statuses == {"live": "unhealthy", "ready": "unhealthy", "health": "unhealthy"}
    assert not report.view("live").passes
    assert after(1.0, 9, 2) == "ok"


def test_an_exhausted_pool_is_not_ready_but_live(clock: FakeClock) -> None:
    """A pool that lends nothing while callers wait is no reason to restart the process."""
    facts = Told({"p": Queue("pool", "connections", 0, 5)})
    monitor = monitor_on(clock, facts=facts, progress=10.0)
    for _ in range(4):
        facts.queued["p"] = Queue("pool", "connections", 3, 5)
        report = monitor.check()
        clock.advance(6.0)
    assert report.statuses == {"live": "unknown", "ready": "unhealthy", "health": "unhealthy"}
    assert set(report.view("ready").checks) == {"pool connections: time without progress"}
    assert not report.view("live").checks


@pytest.mark.parametrize(
    ("metric", "attribute", "kind"),
    [(names.EXECUTOR_WAIT, names.EXECUTOR_NAME, "executor"), (names.POOL_WAIT, names.POOL_NAME, "pool")],
)
def test_long_waits_are_saturation(clock: FakeClock, metric: Any, attribute: str, kind: str) -> None:
    """Degraded, and not ready for more; live all the same."""
    name = f"narrow_{next(_numbers)}"
    monitor = monitor_on(clock, wait=0.2)
    for _ in range(10):
        registry.series(metric, {attribute: name}).add(300_000_000)
    report = monitor.check()
    assert report.checks[f"{kind} {name}: p95 wait"].status == "warning"
    assert (report.status, report.passes) == ("degraded", True)
    assert (report.view("ready").status, report.view("ready").passes) == ("degraded", False)
    assert report.view("live").passes


def test_loss_of_telemetry_is_at_most_degraded(clock: FakeClock) -> None:
    """The share of spans dropped or failed lately; what was lost before does not count."""
    facts = Told(outcomes={"exported": 0, "dropped": 1_000, "failed": 0})
    monitor = monitor_on(clock, facts=facts)
    assert monitor.check().status == "unknown"
    clock.advance(10.0)
    facts.outcomes = {"exported": 0, "dropped": 1_020, "failed": 20}
    report = monitor.check()
    assert report.status == "degraded"
    assert report.to_dict()["checks"] == {"telemetry: loss": {"status": "warning", "value": 1.0, "threshold": 0.01}}
    for _ in range(3):
        clock.advance(70.0)
        facts.outcomes["exported"] += 100
        report = monitor.check()
    assert report.status == "healthy"


# --- reports -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", range(100, 1100, 100))
def test_a_loss_just_at_its_threshold_is_none(total: int) -> None:
    """One in a hundred, at any number of spans: a threshold may be reached."""
    limits = LimitsByName(60.0, {}, {})
    (found,) = of_spans({"exported": total - total // 100, "dropped": total // 100}, limits, 10)
    assert found.status == "ok"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_knows_nothing_of_its_parents_health(clock: FakeClock) -> None:
    """Its status is its own from the first evaluation on."""
    monitor = monitor_on(clock)
    monitor.add_check("mine", lambda: False, timeout=60)
    assert monitor.check().status == "unhealthy"
    reading, writing = os.pipe()
    child = fork()
    if child == 0:
        try:
            os.write(writing, repr((monitor._last, {held.status for held in monitor._held.values()})).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 1000) == b"(None, {'unknown'})"
    os.close(reading)
    os.close(writing)


def test_the_report_is_the_guides_and_frozen(clock: FakeClock) -> None:
    """Status, timestamp, checks with status, value and threshold; ready for JSON."""
    traffic, monitor = Traffic(), monitor_on(clock, p95=None, error_rate=None)
    traffic.executions(10, 2.0)
    report = monitor.check()
    expected = {
        "status": "degraded",
        "timestamp": clock.time(),
        "checks": {f"node {traffic.name}: average latency": {"status": "warning", "value": 2.0, "threshold": 1.0}},
    }
    assert report.to_dict() == json.loads(json.dumps(report.to_dict())) == expected
    with pytest.raises(FrozenInstanceError):
        report.status = "healthy"  # type: ignore[misc]


def test_the_report_is_health_json(clock: FakeClock) -> None:
    """Pass, warn or fail, and each check under component and measurement, with value, unit and time."""
    traffic, monitor = Traffic("a:b"), monitor_on(clock, p95=None)
    monitor.add_check("database", lambda: False)
    traffic.executions(10, 2.0)
    told = json.loads(json.dumps(monitor.check().to_health_json()))
    component = f"node {traffic.name.replace(':', '_')}"
    assert told["status"] == "fail"
    assert told["checks"][f"{component}:average latency"] == [
        {
            "componentType": "component",
            "observedValue": 2.0,
            "observedUnit": "s",
            "threshold": 1.0,
            "status": "warn",
            "time": "2023-11-14T22:13:20.000Z",
        }
    ]
    assert told["checks"][f"{component}:error rate"][0]["status"] == "pass"
    assert told["checks"]["database:responseTime"][0]["status"] == "fail"


def test_unknown_passes_and_says_so(clock: FakeClock) -> None:
    """A process without traffic is not taken out of service; a check that is unknown has no status."""
    traffic, monitor = Traffic(), monitor_on(clock)
    traffic.executions(1, 9.0)
    told = monitor.check().to_health_json()
    assert told["status"] == "pass"
    assert told["notes"] == ["nothing was measured often enough to tell"]
    assert all("status" not in check for (check,) in told["checks"].values())


def test_reading_does_not_evaluate_twice(clock: FakeClock) -> None:
    """Within the interval everyone gets one report; `check` and an older report evaluate."""
    monitor = monitor_on(clock, interval=5.0)
    first = monitor.latest()
    clock.advance(4.0)
    assert monitor.latest() is first
    assert monitor.latest(max_age=3.0) is not first
    evaluated = monitor.check()
    assert monitor.latest() is evaluated
    clock.advance(5.0)
    assert monitor.latest() is not evaluated


def test_concurrent_readers_share_one_evaluation(clock: FakeClock) -> None:
    """Eight threads that ask at once cause one."""
    monitor, evaluated, start = monitor_on(clock), [], threading.Barrier(8)
    monitor.add_check("counted", lambda: evaluated.append(1))

    def read() -> None:
        start.wait()
        monitor.latest()

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert evaluated == [1]


# --- arguments -----------------------------------------------------------------------------------------------

BAD: list[tuple[dict[str, Any], str]] = [
    ({"window": 0}, "window=0 is not allowed; allowed: a number of seconds above 0"),
    ({"min_samples": 0}, "min_samples=0 is not allowed; allowed: a whole number, 1 or more"),
    ({"worsen_after": 1.5}, "worsen_after=1.5 is not allowed; allowed: a whole number, 1 or more"),
    ({"improve_after": True}, "improve_after=True is not allowed; allowed: a whole number, 1 or more"),
    ({"interval": -1}, "interval=-1 is not allowed; allowed: seconds, 0 or more"),
    ({"average": "1"}, "average='1' is not allowed; allowed: seconds, 0 or more, or None for no check"),
    ({"p95": math.nan}, "p95=nan is not allowed; allowed: seconds, 0 or more, or None for no check"),
    ({"error_rate": 1.5}, "error_rate=1.5 is not allowed; allowed: a share from 0 to 1, or None for no check"),
    (
        {"p99": 1.0},
        "there is no threshold 'p99'; allowed: average, p95, error_rate, wait, progress, telemetry_loss",
    ),
    ({"per": 3}, "per=3 is not allowed; allowed: a mapping from names to thresholds"),
    ({"per": {"a": 3}}, "per['a']=3 is not allowed; allowed: a mapping from thresholds to numbers"),
    (
        {"per": {"a": {"wait": -1}}},
        "per['a']['wait']=-1 is not allowed; allowed: seconds, 0 or more, or None for no check",
    ),
    (
        {"per": {"a": {"waits": 1}}},
        "there is no threshold 'waits' (per['a']); allowed: average, p95, error_rate, wait, progress, telemetry_loss",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[repr(arguments) for arguments, _ in BAD])
def test_a_bad_argument_is_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    """One error names the argument, its value and what is allowed."""
    with pytest.raises(ConfigurationError) as caught:
        HealthMonitor(**arguments)
    assert str(caught.value) == message
