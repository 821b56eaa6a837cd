"""A real Prometheus scrapes the endpoints, and keeps the exemplars."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.receivers import wait_until
from tests.support.scraping import Prometheus, needs_prometheus

from aetherflow.flow.decorating import node
from aetherflow.serving import serve
from aetherflow.telemetry.health.monitor import HealthMonitor
from aetherflow.telemetry.setup.configuring import configure


@node
def greet(name: str) -> str:
    return name


@pytest.mark.backend
@needs_prometheus
def test_prometheus_takes_everything(tmp_path: Path):
    """It finds the target healthy, counts every execution, and leads from a bucket to a trace."""
    with configure("shop", "file", health=HealthMonitor()), serve(port=0) as url:
        for _ in range(5):
            greet.run({"name": "a"})
        with Prometheus(tmp_path, {"shop": url.removeprefix("http://")}) as server:
            counted = 'aetherflow_node_duration_seconds_count{aetherflow_node_name="greet"}'
            wait_until(lambda: server.query(counted), "a scrape")
            (series,) = server.query(counted)
            assert series["value"][1] == "5"
            assert server.query("up")[0]["value"][1] == "1"
            assert server.query('target_info{service_name="shop"}')
            found = wait_until(lambda: server.exemplars("aetherflow_node_duration_seconds_bucket"), "exemplars")
    assert len(found[0]["exemplars"][0]["labels"]["trace_id"]) == 32
