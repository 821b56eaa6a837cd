"""`health_check_node`: the guide's node, ready to run."""

from __future__ import annotations

import json

from dependency_injector import providers

from aetherflow import BaseFlowContext, HealthMonitor, health_check_node, node
from aetherflow.telemetry.capture import CapturedTelemetry
from aetherflow.telemetry.health.monitor import current_monitor, set_current_monitor


@node
def looked_up(key: str) -> int:
    return {"a": 1}[key]


def test_it_tells_of_what_ran_before_it_was_asked() -> None:
    """In the guide's shape, from the monitor of the process, without anything set up before."""
    for _ in range(10):
        looked_up.run({"key": "a"})
    report = health_check_node.run()
    assert report.keys() == {"status", "timestamp", "checks"}
    assert report["checks"]["node looked_up: error rate"].keys() == {"status", "value", "threshold"}
    assert json.loads(json.dumps(report)) == report


def test_it_asks_the_monitor_of_its_context_or_input() -> None:
    """A provider or a run input named `health`; as the last node of a flow it leaves the output before it alone."""

    class Shop(BaseFlowContext):
        health = providers.Singleton(HealthMonitor, min_samples=1, error_rate=0.5)

    context = Shop()
    context.health()
    flow = looked_up >> health_check_node
    error_rate = flow.run({"key": "a"}, context)["checks"]["node looked_up: error rate"]
    assert error_rate == {"status": "ok", "value": 0.0, "threshold": 0.5}
    monitor = HealthMonitor(min_samples=1, error_rate=None)
    looked_up.run({"key": "a"})
    assert "node looked_up: error rate" not in health_check_node.run({"health": monitor})["checks"]


def test_the_process_may_be_told_which_monitor_is_its_own() -> None:
    """And may go back to the one with the defaults."""
    default, mine = current_monitor(), HealthMonitor()
    mine.add_check("mine", lambda: None)
    set_current_monitor(mine)
    try:
        assert health_check_node.run()["checks"].keys() >= {"mine"}
    finally:
        set_current_monitor(None)
    assert current_monitor() is default


def test_it_is_a_node_like_any_other() -> None:
    """With a span of its own name."""
    with CapturedTelemetry() as captured:
        health_check_node.run()
    assert [span.name for span in captured.spans] == ["health_check_node"]
