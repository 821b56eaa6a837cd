"""The collector's configuration: what it says, and what a real collector makes of it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cli import program
from tests.operations.test_queries import EXPECTED, names_of, panel_queries, rule_queries
from tests.support.collector import BUILDER, CONFIGURATION, Collector, built_path, collector, why_missing
from tests.support.receivers import wait_until
from tests.support.scraping import Prometheus, needs_prometheus
from tests.support.shop import shop

from aetherflow.analysis.spans import Span, read_spans
from aetherflow.operations.alerts import alert_document
from aetherflow.telemetry.conventions import (
    ALL_METRICS,
    COLLECTED_METRICS,
    DURATION_BOUNDARIES,
    RUN_DURATION,
    SPAN_CALLS,
)

needs_collector = pytest.mark.skipif(bool(why_missing()), reason=why_missing())
EXPLICIT = {
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "explicit_bucket_histogram",
    "OTEL_METRIC_EXPORT_INTERVAL": "500",
    "OTEL_BSP_SCHEDULE_DELAY": "200",
}


@pytest.fixture
def configuration() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(CONFIGURATION.read_text("utf-8"))
    return found


def kinds(section: dict[str, Any]) -> set[str]:
    return {name.partition("/")[0].replace("_", "") for name in section}


def test_just_what_is_used_is_built(configuration: dict[str, Any]) -> None:
    """The builder's components are those of the configuration, all of one version."""
    builder = yaml.safe_load(BUILDER.read_text("utf-8"))
    for section in ("receivers", "processors", "connectors", "exporters", "extensions"):
        modules = [each["gomod"].split()[0].rpartition("/")[2] for each in builder[section]]
        built = {module.removesuffix(section.rstrip("s")) for module in modules}
        assert built == {name.removesuffix("grpc") for name in kinds(configuration[section])}, section
    pinned = {each["gomod"].split()[1] for section, each in _modules(builder) if section != "providers"}
    assert pinned == {f"v{builder['dist']['version']}"}


def _modules(builder: dict[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    for section, modules in builder.items():
        if section != "dist":
            yield from ((section, module) for module in modules)


def test_memory_is_limited_first_and_batches_are_the_queues(configuration: dict[str, Any]) -> None:
    """Each pipeline that takes from outside begins with the limiter; none batches other than in exporters' queues."""
    pipelines = configuration["service"]["pipelines"]
    assert all(each["processors"][0] == "memory_limiter" for each in pipelines.values() if "otlp" in each["receivers"])
    assert "batch" not in configuration["processors"]
    senders = [each for name, each in configuration["exporters"].items() if name.startswith("otlp")]
    assert len(senders) == 2
    assert all("batch" in each["sending_queue"] for each in senders)
    assert "span_metrics" in pipelines["traces"]["exporters"]
    assert pipelines["traces/sampled"]["processors"] == ["tail_sampling"]


def test_span_metrics_are_those_of_the_conventions(configuration: dict[str, Any]) -> None:
    """Names, attributes and boundaries of what is made of spans are the conventions'."""
    made = configuration["connectors"]["span_metrics"]
    assert {f"{made['namespace']}.{each}" for each in ("calls", "duration")} == {
        each.name for each in COLLECTED_METRICS
    }
    assert tuple(each["name"] for each in made["dimensions"]) == SPAN_CALLS.attributes
    units = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
    bounds = [re.fullmatch(r"(\d+)(us|ms|s)", each) for each in made["histogram"]["explicit"]["buckets"]]
    assert [float(each[1]) * units[each[2]] for each in bounds if each] == pytest.approx(DURATION_BOUNDARIES)


@pytest.mark.backend
@needs_collector
def test_the_configuration_is_valid() -> None:
    """The collector has nothing against its configuration."""
    subprocess.run([built_path(), "validate", "--config", CONFIGURATION], check=True, timeout=30)


@pytest.mark.backend
@needs_collector
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_the_demo_arrives(tmp_path: Path, protocol: str) -> None:
    """All spans of the demo are in the file, and its metrics in both the file and what Prometheus scrapes."""
    with collector(tmp_path, KEEP_PERCENT="100") as running:
        endpoint = running.grpc if protocol == "grpc" else running.http
        told = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol, **EXPLICIT}
        done = program.run("demo", "--limit", "16", cwd=tmp_path, **told)
        assert done.returncode == 0, done.stderr
        spans = wait_until(lambda: _spans(running), "the demo's spans in the file")
        wait_until(lambda: _counted(running, 'span_name="parse"') == 8, "eight parts in the metrics of spans")
        served = running.metrics()
    assert len({span.trace_id for span in spans}) == 1
    names = [span.name for span in spans]
    assert names.count("parse") == 8
    others = {"run standard_library", "find_sources", "partition", "gather", "complexity", "imports", "report"}
    assert others < set(names)
    assert f'"{RUN_DURATION.name}"' in running.file.read_text("utf-8")
    assert 'aetherflow_run_duration_seconds_count{aetherflow_flow_name="standard_library"' in served


def _spans(running: Collector) -> list[Span]:
    """The spans in the file, once there are any."""
    told = running.file.exists() and "resourceSpans" in running.file.read_text("utf-8")
    return list(read_spans(running.file)) if told else []


def _counted(running: Collector, label: str = "") -> float:
    """How many spans the metrics of spans are of."""
    found = re.findall(r"^aetherflow_span_calls_total\{([^}]*)\} (\S+)", running.metrics(), re.MULTILINE)
    return sum(float(value) for labels, value in found if label in labels)


@pytest.mark.backend
@needs_collector
def test_failed_runs_are_kept(tmp_path: Path) -> None:
    """Of ordinary runs none is kept where none is asked for; of failed ones all, and metrics are of all spans."""
    with (
        collector(tmp_path, KEEP_PERCENT="0", SLOW_MS="60000") as running,
        shop(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=running.http, **EXPLICIT),
    ):
        wait_until(lambda: len({span.trace_id for span in _spans(running)}) >= 3, "three failed runs", timeout=40)
        counted = _counted(running)
        kept = _spans(running)
    failed = {span.trace_id for span in kept if span.failed}
    assert {span.trace_id for span in kept} == failed
    assert counted > 3 * len(kept)


@pytest.mark.backend
@needs_collector
def test_slow_runs_are_kept(tmp_path: Path) -> None:
    """Runs that take longer than the limit are kept though none fails and none else is asked for."""
    with collector(tmp_path, KEEP_PERCENT="0", SLOW_MS="1") as running:
        told = {"OTEL_EXPORTER_OTLP_ENDPOINT": running.http, **EXPLICIT}
        assert program.run("demo", "--limit", "8", cwd=tmp_path, **told).returncode == 0
        assert wait_until(lambda: _spans(running), "the demo's spans in the file")


@pytest.mark.backend
@needs_collector
@needs_prometheus
@pytest.mark.timeout(120)
def test_every_query_returns_data_through_the_collector(tmp_path: Path) -> None:
    """All panels and rules have data, those from spans too, and an exemplar leads to a run that is there."""
    rules = alert_document(EXPECTED)
    for group in rules["groups"]:
        group["interval"] = "500ms"
    with ExitStack() as stack:
        running = stack.enter_context(collector(tmp_path, KEEP_PERCENT="100"))
        stack.enter_context(shop(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=running.http, **EXPLICIT))
        prometheus = stack.enter_context(Prometheus(tmp_path, {"collector": running.prometheus}, rules))
        queries = panel_queries() | rule_queries()
        wait_until(lambda: all(map(prometheus.query, queries.values())), "all queries to return data", timeout=60)
        for metric in (*ALL_METRICS, *COLLECTED_METRICS):
            for name in names_of(metric):
                (found, *_) = prometheus.query(f'{{__name__="{name}", job="shop"}}')
                assert found["metric"]["instance"]

        def traced() -> set[str]:
            exemplars = prometheus.exemplars("aetherflow_run_duration_seconds_bucket")
            told = {each["labels"]["trace_id"] for series in exemplars for each in series["exemplars"]}
            return told & {span.trace_id for span in _spans(running)}

        assert wait_until(traced, "an exemplar whose trace is kept", timeout=20)
