"""Blocking work that a caller can stop waiting for."""

from __future__ import annotations

import threading

import pytest

from aetherflow.telemetry.helper_thread import HelperThread, finish


@pytest.fixture
def helper():
    made = HelperThread("test-helper")
    yield made
    made.stop()
    made._thread.join(10)
    assert not made._thread.is_alive()


def test_tasks_run_in_order_on_the_thread(helper):
    """What was submitted runs, one after the other, on the thread of that name."""
    seen: list[tuple[int, str]] = []
    futures = [helper.submit(lambda n=n: seen.append((n, threading.current_thread().name))) for n in range(3)]
    assert finish(futures, 10)
    assert seen == [(n, "test-helper") for n in range(3)]


def fail() -> None:
    raise ValueError("no")


@pytest.mark.parametrize(
    ("task", "well"), [(lambda: True, True), (lambda: None, True), (lambda: False, False), (fail, False)]
)
def test_finish_tells_whether_all_went_well(helper, task, well):
    """An error or False is not well; the thread goes on after either."""
    assert finish([helper.submit(task)], 10) is well
    assert finish([helper.submit(lambda: None)], 10)


def test_the_caller_stops_waiting(helper):
    """A task that hangs holds nobody up, and what was queued behind it never runs."""
    release, ran = threading.Event(), []
    futures = [helper.submit(release.wait), helper.submit(lambda: ran.append(1))]
    assert not finish(futures, 0.01)
    release.set()
    assert finish([helper.submit(lambda: None)], 10)
    assert ran == []


def test_a_thread_that_is_gone_takes_nothing():
    """After the thread has ended, a task is cancelled at once instead of waiting for ever."""
    helper = HelperThread("test-gone")
    helper.stop()
    helper._thread.join(10)
    assert not finish([helper.submit(lambda: None)], 3_600)


def test_the_thread_keeps_no_process_alive(helper):
    """It is a daemon: an exit never joins it."""
    assert helper._thread.daemon
