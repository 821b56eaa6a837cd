"""Registered checks: what they may say, how long they may take, and that nobody ever waits for longer."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import wait
from typing import Any

import pytest
from dependency_injector import providers

from aetherflow import BaseFlowContext, ConfigurationError, HealthMonitor


def failing() -> None:
    raise ConnectionError("postgres://user:secret@host")


async def later() -> bool:
    await asyncio.sleep(0)
    return False


@pytest.mark.parametrize(
    ("check", "status", "output"),
    [
        (lambda: None, "ok", ""),
        (lambda: True, "ok", ""),
        (lambda: "PONG", "ok", ""),
        (lambda: False, "error", ""),
        (lambda: "warning", "warning", ""),
        (lambda: "unknown", "unknown", ""),
        (failing, "error", "ConnectionError"),
        (later, "error", ""),
        (lambda: sys.exit(3), "error", "SystemExit"),
    ],
)
def test_what_a_check_says(check: Any, status: str, output: str) -> None:
    """Anything but False and an error is good; of an error only the type is told, since its text may be a secret."""
    monitor = HealthMonitor()
    monitor.add_check("mine", check, timeout=30)
    found = monitor.check().checks["mine"]
    assert (found.status, found.output, found.threshold) == (status, output, 30)
    assert found.value is not None


def test_a_check_decides_for_its_views_with_its_severity() -> None:
    """A cache that is gone degrades; where a check was not registered for it does not count, but in health all do."""
    monitor = HealthMonitor()
    monitor.add_check("cache", lambda: False, severity="degraded")
    monitor.add_check("configured", lambda: False, views=("live", "ready"))
    report = monitor.check()
    assert set(report.view("ready").checks) == {"configured"}
    assert report.to_dict()["checks"].keys() == {"cache", "configured"}
    assert report.statuses == {"live": "unhealthy", "ready": "unhealthy", "health": "unhealthy"}
    other = HealthMonitor()
    other.add_check("cache", lambda: False, severity="degraded")
    assert other.check().statuses == {"live": "unknown", "ready": "unknown", "health": "degraded"}


def test_a_check_that_hangs_fails_and_is_not_called_again_before_it_ends() -> None:
    """The evaluation returns after the time limit; a thousand evaluations have one thread waiting, not a thousand."""
    monitor, release, calls = HealthMonitor(), threading.Event(), []

    def hang() -> None:
        calls.append(threading.current_thread().name)
        release.wait(30)

    monitor.add_check("stuck", hang, timeout=0.02)
    for _ in range(3):
        found = monitor.check().checks["stuck"]
        assert (found.status, found.output) == ("error", "it did not end in time")
    assert calls == ["aetherflow-check-stuck"]
    release.set()
    wait([monitor._probes["stuck"]._call], 30)  # type: ignore[list-item]
    monitor._probes["stuck"].timeout = 30
    assert monitor.check().checks["stuck"].status == "ok"
    assert calls == ["aetherflow-check-stuck"] * 2


def test_checks_run_side_by_side_in_the_callers_context() -> None:
    """Two that wait for each other both succeed; each has a copy of the context variables."""
    monitor, together, tenant = HealthMonitor(), threading.Barrier(2), contextvars.ContextVar[str]("tenant")
    tenant.set("a")

    def meet() -> bool:
        together.wait(10)
        return tenant.get() == "a"

    for name in ("first", "second"):
        monitor.add_check(name, meet, timeout=20.0)
    assert {check.status for check in monitor.check().checks.values()} == {"ok"}


def test_a_check_that_asks_for_the_health_does_not_hang() -> None:
    """It waits for the evaluation that waits for it, until its time is up."""
    monitor = HealthMonitor()
    monitor.add_check("itself", lambda: monitor.check().passes, timeout=0.02)
    assert monitor.check().checks["itself"].status == "error"


def test_a_check_has_one_thread_which_ends_with_its_monitor() -> None:
    """Thread-local resources are made once for it, and nothing is left behind."""
    monitor, threads = HealthMonitor(), set()
    monitor.add_check("mine", lambda: threads.add(threading.current_thread()))
    monitor.check()
    monitor.check()
    (thread,) = threads
    del monitor
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()


AT_EXIT = """
import atexit, threading, aetherflow
monitor = aetherflow.HealthMonitor()
monitor.add_check("stuck", threading.Event().wait, timeout=0.01)
print(monitor.check().checks["stuck"].status)
late = aetherflow.HealthMonitor()
late.add_check("late", lambda: None, timeout=30)
atexit.register(lambda: print(late.check().checks["late"].status))
"""


def test_nothing_hangs_at_exit() -> None:
    """A process with a check that never ends leaves; one evaluated while it leaves is told or unknown."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", AT_EXIT], capture_output=True, text=True, check=False, timeout=50
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() in (["error", "ok"], ["error", "unknown"])


FORKED = """
import os, threading, aetherflow
monitor, release = aetherflow.HealthMonitor(), threading.Event()
monitor.add_check("mine", release.wait, timeout=0.01)
assert monitor.check().status == "unhealthy"
with monitor._lock:
    child = os.fork()
if child == 0:
    release.set()
    monitor._probes["mine"].timeout = 30
    monitor.check()
    monitor.check()
    report = monitor.check()
    os._exit(0 if report.status == "healthy" else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_evaluates_for_itself() -> None:
    """Though its parent was in the middle of an evaluation and had a check under way."""
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=False, timeout=50)
    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr


# --- resources of a context ----------------------------------------------------------------------------------


class Database:
    def __init__(self) -> None:
        self.is_up = True

    def ping(self) -> bool:
        return self.is_up


def opened(resource: object) -> Iterator[object]:
    yield resource


class Shop(BaseFlowContext):
    database = providers.Resource(opened, providers.Factory(Database))
    mailer = providers.Resource(opened, providers.Factory(object))
    plain = providers.Object(1)


def test_resources_with_a_ping_are_checked_once_they_are_open() -> None:
    """No health check opens a resource; one without a ping says nothing."""
    monitor = HealthMonitor()

    def found(context: Any) -> dict[str, str]:
        return {name: check.status for name, check in monitor.check().checks.items()}

    with Shop() as context:
        monitor.add_resources(context, timeout=30)
        assert found(context) == {"resource database": "unknown", "resource mailer": "unknown"}
        assert not context.database.initialized
        database = context.database()
        context.mailer()
        assert found(context) == {"resource database": "ok", "resource mailer": "unknown"}
        database.is_up = False
        assert found(context)["resource database"] == "error"
        report = monitor.check()
        assert (report.statuses["live"], report.statuses["ready"]) == ("unknown", "unhealthy")
    assert found(context) == {"resource database": "unknown", "resource mailer": "unknown"}
    assert not context.database.initialized


BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "name='' is not allowed; allowed: a string that is not empty"),
    ({"check": 3}, "check=3 is not allowed; allowed: a function without arguments"),
    ({"timeout": 0}, "timeout=0 is not allowed; allowed: seconds above 0, 60 at most"),
    ({"timeout": None}, "timeout=None is not allowed; allowed: seconds above 0, 60 at most"),
    ({"timeout": 61}, "timeout=61 is not allowed; allowed: seconds above 0, 60 at most"),
    ({"severity": "warning"}, "severity='warning' is not allowed; allowed: 'degraded' or 'unhealthy'"),
    ({"views": "live"}, "views='live' is not allowed; allowed: some of 'live', 'ready', 'health'"),
    ({"views": ["alive"]}, "views=['alive'] is not allowed; allowed: some of 'live', 'ready', 'health'"),
    ({"name": "taken"}, "there is a check 'taken' already; allowed: a name of its own for each"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[repr(arguments) for arguments, _ in BAD])
def test_a_bad_check_is_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    """One error names the argument, its value and what is allowed."""
    monitor = HealthMonitor()
    monitor.add_check("taken", lambda: None)
    with pytest.raises(ConfigurationError) as caught:
        monitor.add_check(**{"name": "mine", "check": lambda: None, **arguments})
    assert str(caught.value) == message


def test_what_has_no_providers_is_no_context() -> None:
    """One error says so."""
    with pytest.raises(ConfigurationError, match=r"^context=3 is not allowed; allowed: a dependency"):
        HealthMonitor().add_resources(3)


def test_a_glance_waits_for_nobody() -> None:
    """A check that is under way counts as it did the last time: the collection of metrics is not held up by it."""
    entered, leave = threading.Event(), threading.Event()
    answers = iter([lambda: False, leave.wait])

    def check() -> object:
        answer = next(answers)
        entered.set()
        return answer()

    monitor = HealthMonitor(interval=0)
    monitor.add_check("mine", check, timeout=60)
    assert monitor.check().checks["mine"].status == "error"
    entered.clear()
    report = monitor.glance()
    assert report is not None
    assert report.checks["mine"].status == "error"
    assert entered.wait(30)
    leave.set()


def test_a_glance_at_first_knows_nothing_of_a_check_that_is_under_way() -> None:
    """Unknown, which counts for neither side."""
    leave = threading.Event()
    monitor = HealthMonitor()
    monitor.add_check("mine", leave.wait, timeout=60)
    report = monitor.glance()
    leave.set()
    assert report is not None
    assert report.checks["mine"].status == "unknown"


def test_a_glance_while_another_thread_evaluates_gives_what_is_known() -> None:
    """Nothing before the first evaluation has ended, then the last report."""
    entered, leave = threading.Event(), threading.Event()

    def check() -> bool:
        entered.set()
        return leave.wait(30)

    monitor = HealthMonitor(interval=0)
    monitor.add_check("mine", check, timeout=60)
    thread = threading.Thread(target=monitor.check)
    thread.start()
    assert entered.wait(30)
    assert monitor.glance() is None
    leave.set()
    thread.join()
    assert monitor.glance() is not None
