"""Any tracer provider goes with any meter provider, whenever either comes: spans are where they belong, once."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from aetherflow import PerformanceMonitor, node
from aetherflow.analysis.metrics import read_jobs
from aetherflow.analysis.spans import read_spans
from aetherflow.telemetry.setup.configuring import configure

PROVIDERS = ("none", "ours", "application")


@node
def first(n):
    return n


@node
def second(first):
    with trace.get_tracer("app").start_as_current_span("inside"):
        return first


FLOW = (first >> second).named("both")


class Application:
    """An application's providers, with everything kept in memory."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meter_provider = MeterProvider([self.reader], shutdown_on_exit=False)

    def set_global(self, traces: str, measures: str) -> None:
        if traces == "application":
            trace.set_tracer_provider(self.tracer_provider)
        if measures == "application":
            metrics.set_meter_provider(self.meter_provider)

    def spans(self) -> Counter[str]:
        return Counter(span.name for span in self.exporter.get_finished_spans())

    def metrics(self) -> dict[str, Any]:
        data = self.reader.get_metrics_data()
        scopes = [scope for each in (data.resource_metrics if data else ()) for scope in each.scope_metrics]
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def durations(self) -> dict[str, tuple[int, float]]:
        """Return how often nodes were executed, and how long altogether, in all flows."""
        found: dict[str, tuple[int, float]] = {}
        metric = self.metrics().get("aetherflow.node.duration")
        for point in metric.data.data_points if metric else ():
            name = point.attributes["aetherflow.node.name"]
            count, total = found.get(name, (0, 0.0))
            found[name] = (count + point.count, total + point.sum)
        return found


@pytest.fixture
def application():
    return Application()


@pytest.fixture
def turned_off(monkeypatch):
    """A function that leaves on the signals that are ours alone."""

    def turn_off(traces: str, measures: str) -> None:
        for choice, signal in ((traces, "TRACES"), (measures, "METRICS")):
            if choice != "ours":
                monkeypatch.setenv(f"OTEL_{signal}_EXPORTER", "none")

    return turn_off


def written(telemetry) -> Counter[str]:
    if telemetry.path is None:
        return Counter()
    return Counter(span.name for span in read_spans(telemetry.path))


@pytest.mark.parametrize("comes", ["first", "after configure()", "after a run", "after a run, before configure()"])
@pytest.mark.parametrize("measures", PROVIDERS)
@pytest.mark.parametrize("traces", PROVIDERS)
def test_spans_are_where_they_belong(application, turned_off, traces, measures, comes):
    """All nine combinations, with the application's providers set at any time: each run's spans arrive once."""
    turned_off(traces, measures)
    if comes == "first":
        application.set_global(traces, measures)
    if comes == "after a run, before configure()":
        FLOW.run({"n": 0})
        application.set_global(traces, measures)
        FLOW.run({"n": 0})
    with configure() as telemetry:
        if comes == "after configure()":
            application.set_global(traces, measures)
        elif comes == "after a run":
            FLOW.run({"n": 0})
            application.set_global(traces, measures)
        FLOW.run({"n": 0})
    runs_of_ours = 2 if comes == "after a run" else 1
    runs_of_application = 2 if comes == "after a run, before configure()" else 1
    expected = {
        "none": (Counter(), Counter()),
        "ours": (times(runs_of_ours), Counter()),
        "application": (Counter(), times(runs_of_application)),
    }
    assert (written(telemetry), application.spans()) == expected[traces]
    assert ("aetherflow.node.duration" in application.metrics()) == (measures == "application")
    assert (telemetry.metrics_path is not None and telemetry.metrics_path.exists()) == (measures == "ours")


@pytest.mark.parametrize("comes", ["first", "after configure()", "after a run", "after a run, before configure()"])
@pytest.mark.parametrize("measures", PROVIDERS)
@pytest.mark.parametrize("traces", PROVIDERS)
def test_metrics_are_exact_where_they_belong(application, turned_off, traces, measures, comes):
    """All nine combinations, with the application's providers set at any time: each execution is counted once.

    Those before a provider was set are not its own; count and sum are those of the monitor's own statistics.
    """
    turned_off(traces, measures)
    monitor = PerformanceMonitor()

    def run(times: int) -> None:
        for n in range(times):
            FLOW.run({"n": n})
            first(n)

    if comes == "first":
        application.set_global(traces, measures)
    if comes == "after a run, before configure()":
        run(2)
        application.set_global(traces, measures)
        monitor.reset()
        run(3)
        told = monitor.get_stats()
        assert application.durations() == (durations_of(told) if measures == "application" else {})
    with configure() as telemetry:
        if measures == "ours" or comes == "first":
            monitor.reset()
        if comes == "after configure()":
            application.set_global(traces, measures)
            monitor.reset()
        elif comes == "after a run":
            run(2)
            application.set_global(traces, measures)
            if measures == "application":
                monitor.reset()
        run(5)
    stats = durations_of(monitor.get_stats())
    assert stats["first"][0] == 2 * stats["second"][0]
    assert application.durations() == (stats if measures == "application" else {})
    assert written_durations(telemetry) == (stats if measures == "ours" else {})


def durations_of(stats) -> dict[str, tuple[int, Any]]:
    return {
        name: (found["count"], pytest.approx(found["total_time"], rel=1e-9))
        for name, found in stats.items()
        if name in ("first", "second")
    }


def written_durations(telemetry) -> dict[str, tuple[int, float]]:
    if telemetry.metrics_path is None or not telemetry.metrics_path.exists():
        return {}
    (job,) = read_jobs([telemetry.metrics_path])
    found: dict[str, tuple[int, float]] = {}
    for series, histogram in job.histograms.items():
        if series.metric == "aetherflow.node.duration":
            name = dict(series.attributes)["aetherflow.node.name"]
            count, total = found.get(name, (0, 0.0))
            found[name] = (count + histogram.count, total + histogram.total)
    return found


def times(runs: int) -> Counter[str]:
    return Counter(dict.fromkeys(("run both", "first", "second", "inside"), runs))


class Marking(SpanProcessor):
    """Marks every span at its start and counts its ends."""

    def __init__(self) -> None:
        self.ended: Counter[str] = Counter()
        self.marked: Counter[str] = Counter()

    def on_start(self, span, parent_context=None) -> None:
        span.set_attribute("marked", True)

    def on_end(self, span) -> None:
        self.ended[span.name] += 1
        self.marked[span.name] += bool(span.attributes.get("marked"))


@pytest.mark.parametrize("owner", ["ours", "application"])
def test_a_processor_that_comes_late_sees_every_span(application, owner):
    """Added after the first run, to our provider or the application's, it starts and ends every span from then on."""
    if owner == "application":
        application.set_global("application", "none")
    late = Marking()
    with configure(exporter="file") as telemetry:
        FLOW.run({"n": 0})
        telemetry.tracer_provider.add_span_processor(late)
        FLOW.run({"n": 0})
    assert late.ended == times(1)
    assert late.marked == times(1)
    exported = application.spans() if owner == "application" else written(telemetry)
    assert exported == times(2)
    if owner == "ours":
        marked = [span.name for span in read_spans(telemetry.path) if span.attributes.get("marked")]
        assert Counter(marked) == times(1)


@pytest.mark.parametrize("owner", ["ours", "application"])
def test_spans_of_a_given_provider_are_in_the_trace_that_is_current(application, owner):
    """With ``set_global=False`` our spans are below the application's current one, whoever exports them."""
    other = Application()
    arguments = {"tracer_provider": other.tracer_provider} if owner == "application" else {}
    tracer = application.tracer_provider.get_tracer("app")
    with configure(exporter="file", set_global=False, **arguments) as telemetry, tracer.start_as_current_span("outer"):
        done = first.execute({"n": 1})
    (outer,) = application.exporter.get_finished_spans()
    assert done.trace_id == f"{outer.context.trace_id:032x}"
    if owner == "application":
        (span,) = other.exporter.get_finished_spans()
        assert span.parent.span_id == outer.context.span_id
        assert telemetry.path is None
    else:
        (written_span,) = read_spans(telemetry.path)
        assert written_span.parent_id == f"{outer.context.span_id:016x}"


def test_many_threads_that_configure_at_once_get_one_set_up():
    """First calls that come at the same moment give the same object, and every span is exported once."""
    barrier = threading.Barrier(8)
    found: list[object] = []

    def begin() -> None:
        barrier.wait()
        found.append(configure("shop", "file"))
        FLOW.run({"n": 0})

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (telemetry,) = set(found)
    assert telemetry.shutdown(30)
    assert written(telemetry) == times(8)
