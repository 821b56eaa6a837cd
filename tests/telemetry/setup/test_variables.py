"""Every ``OTEL_*`` variable that docs/configuration.md names is honoured as it says."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path
from urllib.request import urlopen

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.trace import sampling
from tests.support.dev_extra import NEEDS_DEV
from tests.support.receivers import HttpReceiver, free_ports, silent_server, wait_until

from aetherflow import node
from aetherflow.errors import ConfigurationError, MissingExtraError
from aetherflow.telemetry.setup import configuring as setup
from aetherflow.telemetry.setup import providers
from aetherflow.telemetry.setup.configuring import configure

PAGE = Path(__file__).resolve().parents[3] / "docs" / "configuration.md"


@node
def work(n):
    return n


@pytest.fixture
def receiver(monkeypatch):
    with HttpReceiver() as started:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", started.endpoint)
        yield started


def test_every_variable_of_the_page_is_tested_here():
    """No line of the table goes without a test, here or where the schedule of the export is tested."""
    named = set(re.findall(r"`(OTEL_\w+)", PAGE.read_text("utf-8")))
    here = Path(__file__)
    tests = here.read_text("utf-8") + (here.parents[1] / "export" / "test_schedule.py").read_text("utf-8")
    tested = set(re.findall(r"OTEL_\w+", tests))
    assert named
    assert named - tested == set()


def span_of(receiver):
    (span,) = receiver.wait_for_spans(1)
    return span


def resource(receiver) -> dict[str, str]:
    (found,) = receiver.metrics[-1].resource_metrics
    return {each.key: each.value.string_value for each in found.resource.attributes}


# --- everything, and where it comes from -----------------------------------------------------------------------------


def test_the_disabled_sdk_sends_nothing(monkeypatch, receiver):
    """``OTEL_SDK_DISABLED=true``: no signal leaves, and the code runs as before."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with configure(logs=True) as telemetry:
        assert work.run({"n": 1}) == 1
        assert (telemetry.exporter, telemetry.metrics_exporter, telemetry.logs_exporter) == ("none",) * 3
    assert receiver.requests == []


def test_the_resource_is_as_the_variables_say(monkeypatch, receiver):
    """``OTEL_SERVICE_NAME``, ``OTEL_RESOURCE_ATTRIBUTES`` and ``OTEL_EXPERIMENTAL_RESOURCE_DETECTORS`` make it up."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "named")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=a,service.name=other")
    monkeypatch.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "process")
    with configure():
        work.run({"n": 1})
    assert span_of(receiver).service == "named"
    found = resource(receiver)
    assert (found["service.name"], found["team"]) == ("named", "a")
    assert "process.runtime.name" in found
    assert found["service.instance.id"]


@pytest.mark.parametrize(("said", "headers"), [("tracecontext", ["traceparent"]), ("none", []), ("baggage", [])])
def test_propagators_are_as_the_variable_says(said, headers):
    """``OTEL_PROPAGATORS`` decides what goes along to other processes."""
    script = """
from opentelemetry import trace
from aetherflow.telemetry.propagation import inject_context
from aetherflow.telemetry.setup.configuring import configure
with configure(exporter="file"), trace.get_tracer("t").start_as_current_span("s"):
    print(*inject_context())
"""
    finished = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "OTEL_PROPAGATORS": said},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert finished.stdout.split() == headers


# --- OTEL_CONFIG_FILE ------------------------------------------------------------------------------------------------

DECLARED = """
file_format: "1.0"
resource:
  attributes:
    - {name: service.name, value: declared}
tracer_provider:
  processors:
    - batch: {exporter: {otlp_http: {endpoint: "ENDPOINT/v1/traces"}}}
meter_provider:
  readers:
    - periodic: {exporter: {otlp_http: {endpoint: "ENDPOINT/v1/metrics"}}}
"""


@pytest.fixture
def declared(declare_unread):
    """The same, for a test that needs the package which reads such a file."""
    pytest.importorskip("opentelemetry.configuration", reason=NEEDS_DEV)
    return declare_unread


@pytest.fixture
def declare_unread(monkeypatch, tmp_path):
    """A function that declares providers which send to an endpoint."""

    def declare(endpoint: str) -> Path:
        file = tmp_path / "otel.yaml"
        file.write_text(DECLARED.replace("ENDPOINT", endpoint))
        monkeypatch.setenv("OTEL_CONFIG_FILE", str(file))
        return file

    return declare


def test_a_file_declares_the_providers(monkeypatch, receiver, declared):
    """``OTEL_CONFIG_FILE``: its providers are used, each signal arrives once, and shutdown closes them."""
    declared(receiver.endpoint)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")  # says nothing now
    with configure() as telemetry:
        assert (telemetry.exporter, telemetry.metrics_exporter) == ("declared", "declared")
        assert configure() is telemetry
        work.run({"n": 1})
    assert (span_of(receiver).name, span_of(receiver).service) == ("work", "declared")
    assert len(receiver.last_points("aetherflow.node.duration")) == 1
    sent = len(receiver.requests)
    trace.get_tracer("t").start_span("late").end()
    telemetry.tracer_provider.force_flush()
    assert len(receiver.requests) == sent


@pytest.mark.slow
def test_leaving_declared_providers_waits_two_seconds_at_most(tmp_path):
    """Also where a file has made the providers, a collector that never answers holds the end up for 2 s at most."""
    script = """
import time
from opentelemetry import trace
from aetherflow.telemetry.setup.configuring import configure
configure()
trace.get_tracer("t").start_span("s").end()
print(time.monotonic(), flush=True)
"""
    with silent_server() as port:
        (tmp_path / "otel.yaml").write_text(DECLARED.replace("ENDPOINT", f"http://127.0.0.1:{port}"))
        finished = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "OTEL_CONFIG_FILE": str(tmp_path / "otel.yaml")},
            capture_output=True,
            text=True,
            timeout=50,
            check=True,
        )
        left = time.monotonic()
    assert left - float(finished.stdout) < 10  # the SDK alone takes 10 s at the least
    assert "telemetry was not all exported" in finished.stderr


def test_a_file_without_the_package_is_an_error_that_names_it(monkeypatch, declare_unread):
    """Nothing is set up half: the error tells what to install."""
    declare_unread("http://c:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.configuration", None)
    with pytest.raises(MissingExtraError, match=r"OTEL_CONFIG_FILE=.*aetherflow-otel\[config-file\]"):
        configure()
    assert setup._state.current is None


def test_a_file_that_cannot_be_used_is_named(monkeypatch, tmp_path):
    """The error names the variable, the file and what is wrong with it."""
    pytest.importorskip("opentelemetry.configuration", reason=NEEDS_DEV)
    monkeypatch.setenv("OTEL_CONFIG_FILE", str(tmp_path / "nowhere.yaml"))
    with pytest.raises(ConfigurationError, match=r"OTEL_CONFIG_FILE is '.*nowhere.yaml', which cannot be used"):
        configure()


def test_an_argument_insists_over_the_file(receiver, declared):
    """``exporter="otlp"`` and the like say where telemetry goes; the file is for ``auto``."""
    declared("http://c:1")
    with configure("argued", exporter="otlp"):
        work.run({"n": 1})
    assert span_of(receiver).service == "argued"


def test_providers_of_the_application_stay_over_the_file(declared, caplog):
    """A file cannot take the place of what the application has set."""
    declared("http://c:1")
    metrics.set_meter_provider(MeterProvider(shutdown_on_exit=False))
    with configure() as telemetry:
        assert (telemetry.exporter, telemetry.metrics_exporter) == ("file", "application")
    assert "there are providers already" in caplog.text


def test_a_file_sets_the_global_providers_or_nothing(declared):
    """With ``set_global=False`` it is an error: a file knows global providers alone."""
    declared("http://c:1")
    with pytest.raises(ConfigurationError, match="set_global is False, but OTEL_CONFIG_FILE"):
        configure(set_global=False)


# --- spans -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "argument", "sampled"),
    [
        ("always_on", "", True),
        ("always_off", "", False),
        ("parentbased_always_off", "", False),
        ("traceidratio", "0", False),
        ("traceidratio", "1", True),
        ("parentbased_traceidratio", "0.0", False),
    ],
)
def test_the_sampler_is_as_the_variable_says(monkeypatch, receiver, sampler, argument, sampled):
    """``OTEL_TRACES_SAMPLER`` and ``OTEL_TRACES_SAMPLER_ARG`` decide about spans; metrics count every execution."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument or "ignored")
    with configure():
        work.run({"n": 1})
    assert [span.name for span in receiver.spans] == ["work"] * sampled
    assert len(receiver.last_points("aetherflow.node.duration")) == 1


def test_a_sampler_of_a_package_is_loaded(monkeypatch):
    """A name that an installed package offers gives its sampler, made with the argument."""

    class Offered(sampling.StaticSampler):
        def __init__(self, argument: str | None) -> None:
            super().__init__(sampling.Decision.DROP)
            self.argument = argument

    class Offers(dict):
        names = property(dict.keys)
        value = "package:Offered"
        load = staticmethod(lambda: Offered)

    offers = Offers()
    offers["offered"] = offers
    monkeypatch.setattr(providers, "entry_points", lambda group: offers)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "offered")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "7")
    with configure() as telemetry:
        assert telemetry.tracer_provider.sampler.argument == "7"


def test_a_sampler_that_is_not_there_is_named(monkeypatch):
    """The error lists the samplers that are installed."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "sometimes")
    with pytest.raises(ConfigurationError, match=r"OTEL_TRACES_SAMPLER is 'sometimes'; allowed: always_off, always_on"):
        configure()
    assert setup._state.current is None


@pytest.mark.parametrize("variable", ["OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"])
def test_the_number_of_attributes_is_limited(monkeypatch, receiver, variable):
    """A span has no more attributes than the variables allow."""
    monkeypatch.setenv(variable, "2")
    with configure():
        work.run({"n": 1})
    assert len(span_of(receiver).attributes) == 2


@pytest.mark.parametrize("variable", ["OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"])
def test_the_length_of_attributes_is_limited(monkeypatch, receiver, variable):
    """Text on a span is no longer than the variables allow."""
    monkeypatch.setenv(variable, "3")
    with configure():
        work.run({"n": 1})
    assert span_of(receiver).attributes["aetherflow.node.name"] == "wor"


def test_events_and_links_are_limited(monkeypatch):
    """``OTEL_SPAN_EVENT_COUNT_LIMIT`` and ``OTEL_SPAN_LINK_COUNT_LIMIT`` hold for nodes and for spans inside them."""
    monkeypatch.setenv("OTEL_SPAN_EVENT_COUNT_LIMIT", "1")
    monkeypatch.setenv("OTEL_SPAN_LINK_COUNT_LIMIT", "1")

    @node
    def talking(left, right):
        for n in range(3):
            trace.get_current_span().add_event(f"said {n}")

    @node
    def left(n):
        return n

    @node
    def right(n):
        return n

    @node
    def begin(n):
        return n

    with configure(exporter="file") as telemetry:
        begin.fan_out_in([left, right], talking).run({"n": 1})
    scopes = [
        scope
        for line in telemetry.path.read_text().splitlines()
        for each in json.loads(line)["resourceSpans"]
        for scope in each["scopeSpans"]
    ]
    (span,) = [span for scope in scopes for span in scope["spans"] if span["name"] == "talking"]
    assert [event["name"] for event in span["events"]] == ["said 2"]
    assert len(span["links"]) == 1
    assert (span["droppedEventsCount"], span["droppedLinksCount"]) == (2, 1)


def test_spans_are_exported_as_often_as_the_variable_says(monkeypatch, receiver):
    """``OTEL_BSP_SCHEDULE_DELAY``: milliseconds, without any flush."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with configure():
        work.run({"n": 1})
        receiver.wait_for_spans(1)


# --- exporters -------------------------------------------------------------------------------------------------------


def test_each_signal_has_its_exporter(monkeypatch, capsys):
    """``OTEL_TRACES_EXPORTER``, ``OTEL_METRICS_EXPORTER`` and ``OTEL_LOGS_EXPORTER`` name them one by one."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "otlp,console")
    with configure(logs=True) as telemetry:
        assert (telemetry.exporter, telemetry.metrics_exporter, telemetry.logs_exporter) == ("console", "none", "otlp")
        work.run({"n": 1})
    assert '"name": "work"' in capsys.readouterr().out


@pytest.mark.parametrize("signal", ["TRACES", "METRICS", "LOGS"])
def test_an_exporter_of_a_package_is_loaded(monkeypatch, capsys, signal):
    """A name that an installed package offers gives its exporter; this one prints JSON lines."""
    offered = entry_points(group=f"opentelemetry_{signal.lower()}_exporter", name="otlp_json_file")
    assert offered
    for each in ("TRACES", "METRICS", "LOGS"):
        monkeypatch.setenv(f"OTEL_{each}_EXPORTER", "otlp_json_file" if each == signal else "none")
    with configure(logs=True) as telemetry:
        work.run({"n": 1})
        if signal == "LOGS":
            telemetry._logs.provider.get_logger("t").emit(body="work")
    printed = [line for line in capsys.readouterr().out.splitlines() if '"resource' in line]
    assert len(printed) == 1
    assert "work" in printed[0]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_TRACES_EXPORTER", "prometheus"),
        ("OTEL_METRICS_EXPORTER", "zipkin"),
        ("OTEL_LOGS_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip"),
    ],
)
def test_a_bad_value_is_named_before_anything_is_set_up(monkeypatch, receiver, variable, value):
    """The error names the value; no provider is set."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=value):
        configure(logs=True)
    assert setup._state.current is None
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def test_otlp_is_sent_as_the_variables_say(monkeypatch, receiver):
    """``OTEL_EXPORTER_OTLP_HEADERS`` and ``OTEL_EXPORTER_OTLP_COMPRESSION`` hold for every signal."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=a")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    with configure():
        work.run({"n": 1})
    assert sorted(set(receiver.requests)) == ["/v1/metrics", "/v1/traces"]
    for headers in receiver.headers:
        assert (headers["x-team"], headers["Content-Encoding"]) == ("a", "gzip")


def test_one_signal_may_have_its_own_place(monkeypatch, receiver):
    """``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`` is used as it is, and for spans alone."""
    with HttpReceiver() as other:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{other.endpoint}/v1/traces")
        with configure():
            work.run({"n": 1})
        assert set(other.requests) == {"/v1/traces"}
    assert set(receiver.requests) == {"/v1/metrics"}


def test_a_request_takes_as_long_as_the_variable_says(monkeypatch):
    """``OTEL_EXPORTER_OTLP_TIMEOUT``, in seconds: a flush comes back when a collector does not answer."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    with silent_server() as port:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        telemetry = configure()
        work.run({"n": 1})
        telemetry.force_flush(30)  # with the default of 10 s a request, and one more try, this test would time out
        assert telemetry.shutdown(30)


def test_certificates_are_those_of_the_variable(monkeypatch, tmp_path, caplog):
    """``OTEL_EXPORTER_OTLP_CERTIFICATE`` is what a collector is verified with: without the file nothing is sent."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # which `requests` would let win
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:1")
    with configure():
        work.run({"n": 1})
    assert str(tmp_path / "ca.pem") in caplog.text


# --- metrics ---------------------------------------------------------------------------------------------------------


def test_metrics_are_exported_as_often_as_the_variable_says(monkeypatch, receiver):
    """``OTEL_METRIC_EXPORT_INTERVAL``: milliseconds, without any flush."""
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "50")
    with configure():
        work.run({"n": 1})
        wait_until(lambda: receiver.last_points("aetherflow.node.duration"), "metrics")


@pytest.mark.parametrize(("said", "sums"), [("cumulative", [1, 3]), ("delta", [1, 2]), ("lowmemory", [1, 2])])
def test_temporality_is_as_the_variable_says(monkeypatch, receiver, said, sums):
    """``OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE``: sums since the start, or since the last export."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", said)
    seen = []
    with configure() as telemetry:
        counter = metrics.get_meter("t").create_counter("requests")
        for amount in (1, 2):
            counter.add(amount)
            telemetry.force_flush()
            ((point,),) = receiver.last_points("requests").values()
            seen.append(point.as_int)
    assert seen == sums


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("", "exponential_histogram"),
        ("base2_exponential_bucket_histogram", "exponential_histogram"),
        ("explicit_bucket_histogram", "histogram"),
    ],
)
def test_histograms_are_as_the_variable_says(monkeypatch, receiver, said, kind):
    """Exponential unless ``OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION`` says otherwise."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", said)
    with configure():
        work.run({"n": 1})
    sent = [
        metric
        for request in receiver.metrics
        for scope in request.resource_metrics[0].scope_metrics
        for metric in scope.metrics
        if metric.name == "aetherflow.node.duration"
    ]
    assert [metric.WhichOneof("data") for metric in sent] == [kind]


# --- Prometheus ------------------------------------------------------------------------------------------------------


@pytest.fixture
def scrape(monkeypatch):
    """A function that asks the place which the variables name."""
    pytest.importorskip("opentelemetry.exporter.prometheus")
    (port,) = free_ports(1)
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus")
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_HOST", "127.0.0.1")
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", str(port))

    def ask() -> str:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            return answer.read().decode()

    return ask


def test_prometheus_scrapes_explicit_buckets(scrape):
    """Every execution is in the buckets advised for durations, and the place is free again after shutdown."""
    for times in (1, 2):
        with configure("shop", exporter="auto") as telemetry:
            assert telemetry.metrics_exporter == "prometheus"
            work.run({"n": times})
            found = scrape()
        assert 'aetherflow_node_duration_seconds_bucket{aetherflow_flow_name="work"' in found
        assert 'le="0.00025"' in found
        assert re.search(r'aetherflow_node_duration_seconds_count\{.*aetherflow_node_name="work".*\} \d', found)
    with pytest.raises(OSError, match="refused"):
        scrape()


def test_the_exporter_of_prometheus_fails_on_exponential_histograms():
    """Why buckets are explicit there; once this fails, exponential ones may be offered to Prometheus too."""
    prometheus = pytest.importorskip("opentelemetry.exporter.prometheus")
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    view = View(instrument_type=Histogram, aggregation=ExponentialBucketHistogramAggregation())
    provider = MeterProvider(
        [prometheus.PrometheusMetricReader(registry=registry)], shutdown_on_exit=False, views=[view]
    )
    provider.get_meter("t").create_histogram("h").record(1.0)
    with pytest.raises(AttributeError):
        generate_latest(registry)


def test_prometheus_without_its_package_is_an_error_that_names_it(monkeypatch):
    """The error tells what to install."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.prometheus", None)
    monkeypatch.delitem(sys.modules, "aetherflow.telemetry.export.prometheus", raising=False)
    with pytest.raises(MissingExtraError, match=r"=prometheus needs .*aetherflow-otel\[prometheus\]"):
        configure()


@pytest.mark.parametrize("port", ["http", "70000", "-1"])
def test_a_port_that_is_none_is_named(monkeypatch, scrape, port):
    """The error names the variable, its value and what is allowed."""
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", port)
    with pytest.raises(ConfigurationError, match=f"OTEL_EXPORTER_PROMETHEUS_PORT is '{port}'; allowed: a port"):
        configure()


def test_a_place_that_is_taken_is_named(scrape):
    """Where another server listens already, the error says so; the spans' exporter is not left behind."""
    place = ("127.0.0.1", int(os.environ["OTEL_EXPORTER_PROMETHEUS_PORT"]))
    with socket.create_server(place), pytest.raises(ConfigurationError, match="where nothing can be served"):
        configure()
    assert setup._state.current is None
