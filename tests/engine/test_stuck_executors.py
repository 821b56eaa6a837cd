"""Health over real executors and pools: what makes no progress is found, whoever waits."""

from __future__ import annotations

import threading
from itertools import count

from aetherflow import HealthMonitor, ObjectPool
from aetherflow.engine.pool import ThreadPool
from aetherflow.telemetry.health.monitor import HealthReport
from aetherflow.testing import FakeClock

_numbers = count()


def test_a_thread_pool_whose_only_thread_never_returns_is_not_live() -> None:
    """While tasks wait and none is begun for longer than the window; live again once one is."""
    clock, pool = FakeClock(), ThreadPool(1, f"stuck-{next(_numbers)}")
    monitor = HealthMonitor(30.0, clock=clock.monotonic, wall_clock=clock.time)
    begun, release, done = threading.Event(), threading.Event(), threading.Event()

    def never_returns() -> None:
        begun.set()
        release.wait(30)

    def reports() -> list[HealthReport]:
        found = []
        for _ in range(6):
            found.append(monitor.check())
            clock.advance(10.0)
        return found

    pool.submit(never_returns)
    assert begun.wait(30)
    pool.submit(done.set)
    lives = [report.view("live") for report in reports()]
    name = f"executor {pool.name}: time without progress"
    assert [report.checks[name].status for report in lives] == ["ok"] * 4 + ["error"] * 2
    assert [report.passes for report in lives] == [True] * 5 + [False]
    release.set()
    assert done.wait(30)
    assert reports()[0].checks[name].status == "ok"


def test_an_object_pool_that_lends_nothing_to_those_who_wait_is_exhausted() -> None:
    """Objects that never come back make the process not ready; it lives."""
    clock, name = FakeClock(), f"leaking_{next(_numbers)}"
    monitor = HealthMonitor(30.0, clock=clock.monotonic, wall_clock=clock.time)
    pool = ObjectPool(object, 1, block=True, name=name)
    leaked = pool.acquire()
    waiter = threading.Thread(target=pool.acquire, daemon=True)
    waiter.start()
    while not pool.statistics().waiting:
        waiter.join(0.01)
    for _ in range(7):
        report = monitor.check()
        clock.advance(10.0)
    assert report.checks[f"pool {name}: time without progress"].status == "error"
    assert not report.view("ready").passes
    assert f"pool {name}: time without progress" not in report.view("live").checks
    pool.release(leaked)
    waiter.join(30)
    assert monitor.check().checks[f"pool {name}: time without progress"].status == "ok"
