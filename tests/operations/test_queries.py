"""Every query of every panel and rule, on a real Prometheus that scrapes a real program."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.support.receivers import HttpReceiver, free_ports, wait_until
from tests.support.scraping import Prometheus, needs_prometheus
from tests.support.shop import shop

from aetherflow.cli.main import main
from aetherflow.operations.alerts import alert_document, alert_groups
from aetherflow.operations.dashboards import dashboard_json
from aetherflow.operations.objectives import Expectations, Latency, Objective
from aetherflow.operations.panels import FLOW_VARIABLE, JOB_VARIABLE
from aetherflow.operations.promql import metric_name
from aetherflow.operations.rules import Alert, Recording
from aetherflow.telemetry.conventions import ALL_METRICS, COLLECTED_METRICS, HEALTH_STATE, MetricDefinition

EXPECTED = Expectations(objective=Objective(latency=Latency(within=0.5)))
VARIABLES = {"$__rate_interval": "5s", f"${JOB_VARIABLE}": ".*", f"${FLOW_VARIABLE}": ".*"}
NAME = re.compile(r"\b(?:aetherflow|error)_[a-z_]+")
RECORDED = re.compile(r"\b\w+:\w+:\w+\b")


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(dashboard_json())["panels"]
    return found


def panel_queries() -> dict[str, str]:
    """The queries of the dashboard as Grafana sends them, by panel."""
    found = {}
    for panel in panels():
        for target in panel.get("targets", ()):
            query = target["expr"]
            for variable, value in VARIABLES.items():
                query = query.replace(variable, value)
            found[f"{panel['title']} {target['refId']}"] = query
    return found


def rule_queries() -> dict[str, str]:
    """What is recorded, and what alerts hold against their thresholds."""
    rules = [rule for group in alert_groups(EXPECTED) for rule in group.rules]
    recorded = {rule.name: rule.query for rule in rules if isinstance(rule, Recording)}
    return recorded | {f"{rule.name} {rule.value}": rule.value for rule in rules if isinstance(rule, Alert)}


def needs_collector(query: str) -> bool:
    return any(metric_name(metric) in query for metric in COLLECTED_METRICS)


def names_of(metric: MetricDefinition) -> set[str]:
    name = metric_name(metric)
    return (
        {f"{name}{suffix}" for suffix in ("_bucket", "_sum", "_count")} if metric.instrument == "histogram" else {name}
    )


def test_no_query_names_what_is_not_emitted() -> None:
    """Every metric and label in a query, and in a variable, is one of the conventions, by Prometheus's name for it."""
    metrics = (*ALL_METRICS, *COLLECTED_METRICS)
    known = {name for metric in metrics for name in names_of(metric)}
    known |= {re.sub(r"\W", "_", attribute) for metric in metrics for attribute in metric.attributes}
    told = json.dumps([json.loads(dashboard_json())["templating"], *panel_queries().values(), *rule_queries().values()])
    assert set(RECORDED.findall(told)) <= rule_queries().keys()
    used = set(NAME.findall(RECORDED.sub("", told)))
    assert used
    assert used <= known


def test_every_metric_is_shown() -> None:
    """Each metric of the conventions is in a panel."""
    told = " ".join(panel_queries().values())
    assert [metric.name for metric in (*ALL_METRICS, *COLLECTED_METRICS) if metric_name(metric) not in told] == []


def test_durations_lead_to_traces() -> None:
    """A panel of durations asks for exemplars, once."""
    for panel in panels():
        if panel.get("fieldConfig", {}).get("defaults", {}).get("unit") == "s" and "Average" not in panel["title"]:
            assert [target["exemplar"] for target in panel["targets"]].count(True) == 1, panel["title"]


def test_the_dashboard_is_whole(tmp_path: Path) -> None:
    """Ids are unique, panels do not overlap, each tells how to read it, and it has the title asked for."""
    assert main(["dashboard", "--title", "Shop", "-o", str(tmp_path / "f.json")]) == 0
    board = json.loads((tmp_path / "f.json").read_text("utf-8"))
    assert (board["title"], board["uid"]) == ("Shop", "aetherflow")
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    places = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(set(places)) == len(places)
    assert all(panel["description"] for panel in board["panels"] if panel["type"] != "row")


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has scraped the shop for a while, with our rules loaded."""
    folder = tmp_path_factory.mktemp("prometheus")
    (port,) = free_ports(1)
    rules = alert_document(EXPECTED)
    for group in rules["groups"]:
        group["interval"] = "500ms"
    with ExitStack() as stack:
        receiver = stack.enter_context(HttpReceiver())
        stack.enter_context(
            shop(
                folder,
                OTEL_METRICS_EXPORTER="prometheus",
                OTEL_EXPORTER_PROMETHEUS_PORT=str(port),
                OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{receiver.endpoint}/v1/traces",
                OTEL_TRACES_EXPORTER="otlp",
            )
        )
        yield stack.enter_context(Prometheus(folder, {"shop": f"localhost:{port}"}, rules))


@pytest.mark.backend
@needs_prometheus
@pytest.mark.timeout(90)
def test_every_query_returns_data(prometheus: Prometheus) -> None:
    """No panel is empty, no recorded series missing, and no alert watches what is not there."""
    queries = {name: query for name, query in (panel_queries() | rule_queries()).items() if not needs_collector(query)}
    assert len(queries) > 60

    def empty() -> list[str]:
        return [name for name, query in queries.items() if not prometheus.query(query)]

    wait_until(lambda: not empty(), "all queries to return data", timeout=40)
    for name in rule_queries():
        if ":" in name and " " not in name:
            assert prometheus.query(name), f"{name} is not recorded"


@pytest.mark.backend
@needs_prometheus
def test_names_are_what_is_served(prometheus: Prometheus) -> None:
    """Prometheus knows every metric of the conventions by the name that we say, with the labels that we say."""
    for metric in ALL_METRICS:
        for name in names_of(metric):
            (found, *_) = wait_until(lambda name=name: prometheus.query(name), name)
            labels = {label for label in found["metric"] if label.startswith(("aetherflow", "error"))}
            assert labels <= {re.sub(r"\W", "_", attribute) for attribute in metric.attributes}
    assert len(wait_until(lambda: prometheus.query("aetherflow_health_status"), "health")) == 3
    assert HEALTH_STATE.replace(".", "_") in prometheus.query("aetherflow_health_status")[0]["metric"]
