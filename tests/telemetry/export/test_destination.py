"""Where a signal goes, decided from the argument and the standard variables."""

from __future__ import annotations

import pytest

from aetherflow.errors import ConfigurationError
from aetherflow.telemetry.export.destination import Destination, destinations

HTTP_TRACES = Destination("otlp", "http/protobuf", "http://c:1/v1/traces")
GRPC_TRACES = Destination("otlp", "grpc", "http://c:1")
BASE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Destination("file")),
        ({"OTEL_TRACES_EXPORTER": "", "OTEL_EXPORTER_OTLP_ENDPOINT": " "}, Destination("file")),
        (BASE, HTTP_TRACES),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1/"}, HTTP_TRACES),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:1/x"}, Destination("otlp", "http/protobuf", "http://c:1/x")),
        (
            {**BASE, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://d:2/"},
            Destination("otlp", "http/protobuf", "http://d:2/"),
        ),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:1/x"}, Destination("file")),
        ({**BASE, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, GRPC_TRACES),
        (
            {**BASE, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
            HTTP_TRACES,
        ),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, Destination("otlp", "http/protobuf", "http://localhost:4318/v1/traces")),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            Destination("otlp", "grpc", "http://localhost:4317"),
        ),
        ({**BASE, "OTEL_TRACES_EXPORTER": "otlp_proto_grpc"}, GRPC_TRACES),
        ({**BASE, "OTEL_TRACES_EXPORTER": "otlp_proto_http", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, HTTP_TRACES),
        ({**BASE, "OTEL_TRACES_EXPORTER": "console"}, Destination("console")),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, Destination("file")),
    ],
)
def test_auto_follows_the_standard_variables(environ, expected):
    """``auto`` exports spans as the ``OTEL_*`` variables say, and to a file where they say nothing of spans."""
    assert destinations("traces", "auto", environ) == (expected,)


def test_several_exporters_may_be_named():
    """A list in ``OTEL_TRACES_EXPORTER`` gives each of its exporters once, in order."""
    found = destinations("traces", "auto", {**BASE, "OTEL_TRACES_EXPORTER": " console, otlp,console"})
    assert found == (Destination("console"), HTTP_TRACES)


@pytest.mark.parametrize("exporter", ["auto", "otlp", "file", "console", "none"])
@pytest.mark.parametrize(
    "environ", [{"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_SDK_DISABLED": "True"}], ids=["none", "disabled"]
)
def test_what_is_turned_off_stays_off(exporter, environ):
    """``OTEL_TRACES_EXPORTER=none`` and ``OTEL_SDK_DISABLED=true`` win over the argument."""
    assert destinations("traces", exporter, {**BASE, **environ}) == ()


def test_each_signal_is_looked_at_for_itself():
    """Turning traces off leaves metrics on; the disabled SDK turns both off."""
    assert destinations("metrics", "auto", {"OTEL_TRACES_EXPORTER": "none"}) == (Destination("file"),)
    assert destinations("metrics", "auto", {"OTEL_SDK_DISABLED": "true"}) == ()


@pytest.mark.parametrize("exporter", ["otlp", "file", "console"])
def test_the_argument_insists(exporter):
    """An exporter given as argument is used whatever the variables name."""
    (found,) = destinations("traces", exporter, {"OTEL_TRACES_EXPORTER": "console", **BASE})
    assert found.exporter == exporter


@pytest.mark.parametrize(
    ("environ", "variable", "value"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER", "zipkin"),
        ({**BASE, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ({**BASE, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "udp"}, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "udp"),
    ],
)
def test_a_bad_variable_is_named(environ, variable, value):
    """The error names the variable, its value and what is allowed."""
    with pytest.raises(ConfigurationError, match=rf"{variable} .*'{value}'; allowed: \w+"):
        destinations("traces", "auto", environ)
