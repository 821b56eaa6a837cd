"""What is scraped is what was recorded: every value once, in its bucket, with exemplars that lead to their traces."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as classic_families
from prometheus_client.samples import Sample
from tests.support.forking import fork

from aetherflow.flow.decorating import node
from aetherflow.resources.caching import CachePolicy
from aetherflow.resources.pooling import ObjectPool
from aetherflow.serving.openmetrics import Exposition
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.metrics.accumulators import registry
from aetherflow.telemetry.setup.configuring import configure

PROMETHEUS = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"


@node
def work(n: int) -> int:
    if n < 0:
        raise ValueError(n)
    return n


@node(cache=CachePolicy(maxsize=4))
def kept(n: int) -> int:
    return n


def scraped(exposition: Exposition, accept: str = PROMETHEUS) -> dict[str, list[Sample]]:
    """Samples by name, as Prometheus' own parser reads them."""
    text = exposition.render(accept)[0].decode()
    found: dict[str, list[Sample]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


def values(samples: Iterator[Sample] | list[Sample]) -> Mapping[tuple[tuple[str, str], ...], float]:
    """Values by labels; those of the instrumentation scope, which only some exporters tell, and empty ones aside."""
    return {tuple(sorted(_told(each))): each.value for each in samples}


def _told(sample: Sample) -> Iterator[tuple[str, str]]:
    return ((key, text) for key, text in sample.labels.items() if text and not key.startswith("otel_"))


def test_it_says_what_the_stock_exporter_says():
    """Names, labels, buckets and values of all metrics are those that OpenTelemetry's exporter has for Prometheus."""
    into = CollectorRegistry()
    provider = MeterProvider([PrometheusMetricReader(registry=into)], shutdown_on_exit=False)
    pool = ObjectPool(object, max_size=2, name="things")
    exposition = Exposition()
    with configure(exporter="none", meter_provider=provider):
        for n in range(5):
            work.run({"n": n})
            kept.run({"n": n % 2})
        with pytest.raises(ValueError, match="-1"):
            work.run({"n": -1})
        with pool.lease():
            theirs = list(classic_families(generate_latest(into).decode()))
            ours = scraped(exposition)
    provider.shutdown()
    samples = [each for family in theirs for each in family.samples if each.name.startswith("aetherflow_")]
    told = {each.name for each in samples}
    assert told == {name for name in ours if name.startswith("aetherflow_")}
    assert {"aetherflow_cache_requests_total", "aetherflow_pool_objects", "aetherflow_node_active"} <= told
    for name in told:
        assert values(ours[name]) == values(each for each in samples if each.name == name)
    executions = {"aetherflow_flow_name": "work", "aetherflow_node_name": "work"}
    counted = values(ours["aetherflow_node_duration_seconds_count"])
    assert counted[tuple(sorted(executions.items()))] == 5
    assert counted[tuple(sorted({**executions, "error_type": "ValueError"}.items()))] == 1


@given(st.lists(st.one_of(st.integers(0, 400 * 10**9), st.sampled_from([100_000, 100_001, 99_999, 10**9])), min_size=1))
def test_every_value_is_in_its_bucket(durations):
    """A bucket holds the values that are not above its bound, whatever they are and however they were folded."""
    exposition = Exposition()
    series = registry.series(names.OPERATION_DURATION, {names.OPERATION_NAME: "drawn"})
    for duration in durations:
        series.add(duration)
        if duration % 3 == 0:
            series.fold()
    found = scraped(exposition)
    for sample in found["aetherflow_operation_duration_seconds_bucket"]:
        bound = float(sample.labels["le"])
        assert sample.value == sum(duration <= bound * 1e9 for duration in durations)
    (count,) = found["aetherflow_operation_duration_seconds_count"]
    (total,) = found["aetherflow_operation_duration_seconds_sum"]
    assert count.value == len(durations)
    assert total.value == pytest.approx(sum(durations) / 1e9)


def test_exemplars_lead_to_their_traces():
    """A bucket has the trace and span of an execution in it, and the value that it took."""
    spans = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    exposition = Exposition()
    with configure(exporter="none", tracer_provider=provider):
        work.run({"n": 1})
        found = scraped(exposition)
    provider.shutdown()
    (span,) = spans.get_finished_spans()
    (exemplar,) = [each.exemplar for each in found["aetherflow_node_duration_seconds_bucket"] if each.exemplar]
    assert exemplar.labels["trace_id"] == f"{span.context.trace_id:032x}"
    assert exemplar.labels["span_id"] == f"{span.context.span_id:016x}"
    bound = min(float(each.labels["le"]) for each in found["aetherflow_node_duration_seconds_bucket"] if each.exemplar)
    assert 0 < exemplar.value <= bound


def test_it_tells_what_is_recorded_without_any_provider():
    """Nothing needs to be configured: the store has every execution."""
    exposition = Exposition()
    work.run({"n": 1})
    (count,) = scraped(exposition)["aetherflow_node_duration_seconds_count"]
    assert count.value == 1


def test_it_says_which_process_it_is():
    """The resource is ``target_info``; memory and processor time are those of the process."""
    with configure("shop", "file"):
        work.run({"n": 1})
        found = scraped(Exposition())
    (info,) = found["target_info"]
    assert info.labels["service_name"] == "shop"
    if os.path.exists("/proc/self/stat"):
        assert found["process_resident_memory_bytes"][0].value > 0


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", "application/openmetrics-text"),
        ("*/*", "application/openmetrics-text"),
        (PROMETHEUS, "application/openmetrics-text"),
        ("text/plain", "text/plain"),
        ("text/plain;version=0.0.4, */*", "text/plain"),
        ("\x00;;,,=", "application/openmetrics-text"),
    ],
)
def test_the_format_is_the_one_that_is_asked_for(accept, media_type):
    """OpenMetrics, unless only text as it was before is understood."""
    exposition = Exposition()
    work.run({"n": 1})
    body, told = exposition.render(accept)
    assert told.partition(";")[0] == media_type
    assert (b"# EOF" in body) == (media_type != "text/plain")


def test_names_that_are_no_identifiers_are_told_as_they_are():
    """Quotes, line ends and backslashes in the name of a node arrive as they were."""
    exposition = Exposition()
    name = 'a "b"\n\\c <é>'
    registry.series(names.OPERATION_DURATION, {names.OPERATION_NAME: name}).add(1)
    (count,) = scraped(exposition)["aetherflow_operation_duration_seconds_count"]
    assert count.labels["aetherflow_operation_name"] == name


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_tells_its_own():
    """What the parent counted is not told a second time by its child."""
    exposition = Exposition()
    work.run({"n": 1})
    exposition.render("")
    reader, writer = os.pipe()
    if (child := fork()) == 0:
        work.run({"n": 1})
        (count,) = scraped(exposition)["aetherflow_node_duration_seconds_count"]
        os.write(writer, str(count.value).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 20) == b"1.0"
    os.close(reader)
    os.close(writer)
