"""``configure()``: which providers are used, where their telemetry goes, and that asking twice changes nothing."""

from __future__ import annotations

import json
import logging
import socket
import threading
from pathlib import Path

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.support.receivers import wait_until

from aetherflow import node
from aetherflow.errors import ConfigurationError
from aetherflow.telemetry import active
from aetherflow.telemetry.health.monitor import HealthMonitor, current_monitor
from aetherflow.telemetry.profiling.policy import ProfilePolicy
from aetherflow.telemetry.setup import configuring as setup
from aetherflow.telemetry.setup.configuring import AlreadyConfiguredError, configure

PROVIDERS = ("none", "ours", "application")


@node
def worker(n):
    return n


class Application:
    """Providers that an application made for itself, everything kept in memory."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meter_provider = MeterProvider([self.reader], shutdown_on_exit=False)

    def spans(self) -> int:
        return len(self.exporter.get_finished_spans())

    def metrics(self) -> int:
        data = self.reader.get_metrics_data()
        return sum(
            len(scope.metrics) for each in (data.resource_metrics if data else ()) for scope in each.scope_metrics
        )


@pytest.fixture
def application():
    return Application()


def emit(tracer_provider=None, meter_provider=None) -> None:
    """One trace of two spans and one measurement, through the API."""
    tracer = trace.get_tracer("test", tracer_provider=tracer_provider)
    with tracer.start_as_current_span("parent"), tracer.start_as_current_span("child"):
        histogram = metrics.get_meter("test", meter_provider=meter_provider).create_histogram("duration", "s")
        histogram.record(0.25)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def spans_in(path: Path) -> list[dict]:
    scopes = [scope for line in lines(path) for each in line["resourceSpans"] for scope in each["scopeSpans"]]
    return [span for scope in scopes for span in scope["spans"]]


def metrics_in(path: Path) -> dict[str, dict]:
    scopes = [scope for line in lines(path) for each in line["resourceMetrics"] for scope in each["scopeMetrics"]]
    return {metric["name"]: metric for scope in scopes for metric in scope["metrics"]}


def resource_of(path: Path) -> dict[str, str]:
    (first, *_) = lines(path)
    attributes = first["resourceSpans"][0]["resource"]["attributes"]
    return {each["key"]: next(iter(each["value"].values())) for each in attributes}


def test_spans_and_metrics_go_to_files_of_this_process(tmp_path):
    """Without any variable, OTLP JSON lines below ``.aetherflow``: the parent ids intact, nothing lost at the end."""
    with configure("shop") as telemetry:
        emit()
    assert telemetry.exporter == telemetry.metrics_exporter == "file"
    assert telemetry.endpoint is telemetry.metrics_endpoint is None
    assert telemetry.path.parent == telemetry.metrics_path.parent == tmp_path / ".aetherflow"
    child, parent = spans_in(telemetry.path)
    assert (child["name"], parent["name"]) == ("child", "parent")
    assert child["parentSpanId"] == parent["spanId"]
    assert child["traceId"] == parent["traceId"]
    assert not parent.get("parentSpanId")
    assert resource_of(telemetry.path)["service.name"] == "shop"
    (point,) = metrics_in(telemetry.metrics_path)["duration"]["exponentialHistogram"]["dataPoints"]
    assert (int(point["count"]), point["sum"]) == (1, 0.25)


def test_a_process_that_emits_nothing_leaves_no_file():
    """The files are there from the first batch on only."""
    with configure() as telemetry:
        assert telemetry.force_flush()
    assert not telemetry.path.exists()
    assert not telemetry.metrics_path.exists()


def test_force_flush_exports_at_once():
    """What was recorded before ``force_flush`` is in the files when it returns."""
    telemetry = configure()
    emit()
    assert telemetry.force_flush()
    assert len(spans_in(telemetry.path)) == 2
    assert "duration" in metrics_in(telemetry.metrics_path)


def test_the_histogram_variable_is_honoured(monkeypatch):
    """``OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION`` decides over our default."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "explicit_bucket_histogram")
    with configure() as telemetry:
        emit()
    assert "histogram" in metrics_in(telemetry.metrics_path)["duration"]


def test_console_prints_spans_and_metrics(capsys):
    """``console`` writes both to standard output."""
    with configure(exporter="console") as telemetry:
        emit()
    assert telemetry.path is None
    printed = capsys.readouterr().out
    assert '"name": "child"' in printed
    assert '"name": "duration"' in printed


@pytest.mark.parametrize(
    ("argument", "environ", "argv0", "expected"),
    [
        ("shop", {"OTEL_SERVICE_NAME": "other"}, "app.py", "shop"),
        (None, {"OTEL_SERVICE_NAME": "named", "OTEL_RESOURCE_ATTRIBUTES": "service.name=other"}, "app.py", "named"),
        (None, {"OTEL_RESOURCE_ATTRIBUTES": "service.name=listed,team=a"}, "app.py", "listed"),
        (None, {}, "/srv/app.py", "app"),
        (None, {}, "/srv/my_tool/__main__.py", "my_tool"),
        (None, {}, "/usr/bin/aetherflow", "aetherflow"),
        (None, {}, "-c", "python"),
        (None, {}, "", "python"),
    ],
)
def test_the_service_has_a_name(monkeypatch, argument, environ, argv0, expected):
    """Its name is the argument, else what the variables say, else the program's."""
    monkeypatch.setattr("sys.argv", [argv0])
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with configure(argument) as telemetry:
        emit()
    resource = resource_of(telemetry.path)
    assert resource["service.name"] == expected
    assert resource.get("team") == ("a" if "team" in str(environ) else None)


def test_configuring_twice_is_configuring_once(tmp_path):
    """The same arguments give the same object and no second pipeline, also from several threads at once."""
    first = configure("shop", directory="here")
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.append(configure("shop", directory=tmp_path / "here"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each is first for each in found] == [True] * 4
    emit()
    assert first.shutdown()
    assert len(spans_in(first.path)) == 2


def test_other_arguments_are_an_error():
    """The error names each argument that differs, with both values, and leaves the first set-up in force."""
    first = configure("shop", "file")
    with pytest.raises(
        AlreadyConfiguredError, match=r"service_name='shop', now 'bank', exporter='file', now 'none'"
    ) as info:
        configure("bank", "none")
    assert info.value.differing == {"service_name": ("shop", "bank"), "exporter": ("file", "none")}
    assert isinstance(info.value, ConfigurationError)
    assert configure("shop", "file") is first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"exporter": "jaeger"}, "exporter is 'jaeger'; allowed: auto, otlp, file, console, none"),
        ({"metric_interval": 0}, "metric_interval is 0; allowed: seconds, more than 0"),
        ({"metric_interval": float("nan")}, "metric_interval is nan"),
        ({"metric_interval": float("inf")}, "metric_interval is inf"),
        ({"service_name": " "}, "service_name is ' '; allowed: a name"),
        ({"health": 60}, "health is 60; allowed: a HealthMonitor, True, False"),
        ({"profile": True}, "profile is True; allowed: a ProfilePolicy, or None"),
        ({"logs": "json"}, "logs is 'json'; allowed: True, False"),
        ({"set_global": None}, "set_global is None; allowed: True, False"),
    ],
)
def test_a_bad_argument_is_named(arguments, message):
    """The error names the argument, its value and what is allowed; nothing is set up."""
    with pytest.raises(ConfigurationError, match=message):
        configure(**arguments)
    assert setup._state.current is None


def test_a_bad_variable_sets_nothing_up(monkeypatch):
    """Both signals are decided before anything is made: no provider is set, no thread left."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "zipkin")
    threads = set(threading.enumerate())
    with pytest.raises(ConfigurationError, match="OTEL_METRICS_EXPORTER"):
        configure()
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    assert set(threading.enumerate()) <= threads


def test_a_directory_that_cannot_be(tmp_path, caplog):
    """Asked for, a file that cannot be written is an error; where it was only the default, a warning and no export."""
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ConfigurationError, match=r"directory is .*taken/below.*allowed: a directory"):
        configure(exporter="file", directory=tmp_path / "taken" / "below")
    with caplog.at_level(logging.WARNING, "aetherflow"), configure(directory=tmp_path / "taken" / "below") as telemetry:
        emit()
    assert (telemetry.exporter, telemetry.metrics_exporter) == ("none", "none")
    assert "no traces are exported" in caplog.text
    assert "no metrics are exported" in caplog.text


def test_what_fails_halfway_leaves_no_thread(monkeypatch):
    """Where the second signal cannot be made, the first one's provider and threads are gone too."""
    pytest.importorskip("opentelemetry.exporter.prometheus")
    threads = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus")
        monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_HOST", "127.0.0.1")
        monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", str(taken.getsockname()[1]))
        with pytest.raises(ConfigurationError, match="nothing can be served"):
            configure()
    for thread in set(threading.enumerate()) - threads:
        thread.join(10)
        assert not thread.is_alive()


def test_a_monitor_is_in_force_until_shutdown():
    """``health`` is what the health node asks, and its status a metric; afterwards the default is asked again."""
    default, monitor = current_monitor(), HealthMonitor()
    with configure(health=monitor) as telemetry:
        assert current_monitor() is monitor
        for n in range(10):
            worker.run({"n": n})
    assert current_monitor() is default
    states = metrics_in(telemetry.metrics_path)["aetherflow.health.status"]["sum"]["dataPoints"]
    assert sum(int(point["asInt"]) for point in states) == 1
    with configure(health=True):
        assert current_monitor() is default


def test_a_policy_is_in_force_until_shutdown():
    """``profile`` decides which executions have a profile, and no longer."""
    with configure(profile=ProfilePolicy(rate=1.0)) as telemetry:
        worker.run({"n": 1})
    worker.run({"n": 1})
    (span,) = spans_in(telemetry.path)
    assert [event["name"] for event in span["events"]] == ["aetherflow.profile"]
    with configure(exporter="file") as telemetry:
        worker.run({"n": 1})
    assert "events" not in spans_in(telemetry.path)[0]


def test_a_bad_policy_of_the_environment_is_an_error(monkeypatch):
    """``AETHER_PROFILE`` is read by ``configure()``, which tells what is wrong with it."""
    monkeypatch.setenv("AETHER_PROFILE", "rate=often")
    with pytest.raises(ConfigurationError, match="AETHER_PROFILE"):
        configure()
    assert setup._state.current is None


@pytest.mark.parametrize("given", [False, True], ids=["set globally", "given"])
@pytest.mark.parametrize("measures", PROVIDERS)
@pytest.mark.parametrize("traces", PROVIDERS)
def test_any_two_providers_combine(monkeypatch, application, traces, measures, given):
    """Any tracer provider goes with any meter provider: each signal is exported where it belongs, once."""
    arguments: dict[str, object] = {}
    for choice, signal, kind, api in ((traces, "TRACES", "tracer", trace), (measures, "METRICS", "meter", metrics)):
        if choice == "none":
            monkeypatch.setenv(f"OTEL_{signal}_EXPORTER", "none")
        elif choice == "application" and given:
            arguments[f"{kind}_provider"] = getattr(application, f"{kind}_provider")
        elif choice == "application":
            getattr(api, f"set_{kind}_provider")(getattr(application, f"{kind}_provider"))
    with configure(**arguments) as telemetry:
        emit()
        assert active.providers is None
        assert telemetry.force_flush()
    labels = {"none": "none", "ours": "file", "application": "application"}
    assert (telemetry.exporter, telemetry.metrics_exporter) == (labels[traces], labels[measures])
    assert application.spans() == (2 if traces == "application" else 0)
    assert application.metrics() == (1 if measures == "application" else 0)
    assert [path is not None for path in (telemetry.path, telemetry.metrics_path)] == [
        traces == "ours",
        measures == "ours",
    ]
    if traces == "ours":
        assert len(spans_in(telemetry.path)) == 2
    if measures == "ours":
        assert list(metrics_in(telemetry.metrics_path)) == ["duration"]


def test_the_providers_of_the_application_outlive_us(application):
    """Shutting our Telemetry down does not shut down what is not ours."""
    trace.set_tracer_provider(application.tracer_provider)
    with configure():
        emit()
    emit()
    assert application.spans() == 4


def test_a_provider_of_another_kind_is_the_applications_too(tmp_path):
    """A provider that knows no flush, such as the API's no-op one, is used and left alone."""
    trace.set_tracer_provider(trace.NoOpTracerProvider())
    metrics.set_meter_provider(metrics.NoOpMeterProvider())
    with configure() as telemetry:
        emit()
        assert telemetry.force_flush()
    assert (telemetry.exporter, telemetry.metrics_exporter) == ("application", "application")
    assert list(tmp_path.iterdir()) == []


def test_nothing_global_on_request():
    """With ``set_global=False`` the API's providers stay unset; AetherFlow alone is told of ours, until the end."""
    with configure(set_global=False) as telemetry:
        assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
        told = active.providers
        assert told.tracer_provider is telemetry.tracer_provider
        assert told.meter_provider is telemetry.meter_provider
        emit()
        emit(told.tracer_provider, told.meter_provider)
    assert active.providers is None
    assert len(spans_in(telemetry.path)) == 2


def test_a_given_provider_is_used_beside_the_global_one(application):
    """A provider given as argument is AetherFlow's even where the application has set another one globally."""
    other = Application()
    trace.set_tracer_provider(other.tracer_provider)
    with configure(tracer_provider=application.tracer_provider, exporter="none") as telemetry:
        assert telemetry.tracer_provider is application.tracer_provider
        assert active.providers.tracer_provider is application.tracer_provider
        assert active.providers.meter_provider is None
        assert trace.get_tracer_provider() is other.tracer_provider


def test_a_signal_that_is_off_follows_the_application(application):
    """With ``exporter="none"`` a provider that the application sets later is the one in use."""
    telemetry = configure(exporter="none")
    trace.set_tracer_provider(application.tracer_provider)
    metrics.set_meter_provider(application.meter_provider)
    assert telemetry.tracer_provider is application.tracer_provider
    assert telemetry.meter_provider is application.meter_provider
    emit()
    assert (application.spans(), application.metrics()) == (2, 1)


def test_configuring_again_after_shutdown_works():
    """A notebook cell run twice: the second Telemetry is AetherFlow's, though OpenTelemetry keeps its first global."""
    with configure("one") as first:
        emit()
    with configure("two", exporter="file") as second:
        assert second is not first
        assert active.providers.tracer_provider is second.tracer_provider
        emit(second.tracer_provider, second.meter_provider)
    assert active.providers is None
    assert second.path != first.path
    assert [resource_of(each.path)["service.name"] for each in (first, second)] == ["one", "two"]
    assert len(spans_in(second.path)) == 2


def test_shutdown_is_done_once_and_ends_every_thread():
    """A second shutdown does nothing, flushing afterwards says so, and no thread of ours is left."""
    threads = set(threading.enumerate())
    telemetry = configure()
    started = set(threading.enumerate()) - threads
    assert started
    assert telemetry.shutdown()
    assert telemetry.shutdown()
    assert not telemetry.force_flush()
    for thread in started:
        thread.join(10)
        assert not thread.is_alive()


def test_metric_interval_is_in_seconds():
    """Metrics are exported every ``metric_interval`` seconds without being asked."""
    telemetry = configure(metric_interval=0.1)
    emit()
    wait_until(lambda: telemetry.metrics_path.exists() and telemetry.metrics_path.read_text(), "an export")
    assert "duration" in metrics_in(telemetry.metrics_path)


def test_the_repr_says_where_things_go(monkeypatch):
    """A notebook shows both signals' exporters and where they lead."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:1/v1/traces")
    with configure() as telemetry:
        assert (
            repr(telemetry) == f"<Telemetry spans: otlp http://c:1/v1/traces; metrics: file {telemetry.metrics_path}>"
        )
