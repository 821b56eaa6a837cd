"""``configure()`` in processes of its own: what importing does, and how long leaving takes when nobody listens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from tests.support.receivers import HttpReceiver, closed_port, silent_server

STOCK_EXIT = 10.0
"""Seconds; the SDK alone takes that long at the least to leave a collector that does not answer."""

IMPORTING = """
import json, sys, threading, socket
opened = []
sys.addaudithook(lambda event, arguments: opened.append(event) if event.startswith("socket.") else None)
import aetherflow.telemetry.setup.configuring
import aetherflow.telemetry.observer
from opentelemetry import metrics, trace
print(json.dumps({
    "threads": threading.active_count(),
    "sockets": opened,
    "tracer": type(trace.get_tracer_provider()).__name__,
    "meter": type(metrics.get_meter_provider()).__name__,
    "heavy": [name for name in sys.modules if name.startswith(("grpc", "opentelemetry.exporter", "opentelemetry.sdk"))],
}))
"""

LEAVING = """
import sys, time
from opentelemetry import metrics, trace
from aetherflow.telemetry.setup.configuring import configure
configure("leaving", metric_interval=0.2)
tracer, counter = trace.get_tracer("t"), metrics.get_meter("t").create_counter("c")
for _ in range(600):  # more than one batch, so that an export is under way
    with tracer.start_as_current_span("s"):
        counter.add(1)
time.sleep(0.5)
print(time.monotonic(), flush=True)
"""


def run(script, **environment):
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "-c", script],
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_importing_does_nothing():
    """Importing sets no global provider, starts no thread, opens no socket and loads neither SDK nor exporters."""
    finished = run(IMPORTING)
    assert finished.stderr == ""
    assert json.loads(finished.stdout) == {
        "threads": 1,
        "sockets": [],
        "tracer": "ProxyTracerProvider",
        "meter": "_ProxyMeterProvider",
        "heavy": [],
    }


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("server", [closed_port, silent_server], ids=["refuses", "never answers"])
def test_leaving_waits_two_seconds_at_most(server, protocol):
    """A collector that is down or never answers holds up the end of the process for 2 s at most, and is reported."""
    with server() as port:
        finished = run(
            LEAVING, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}", OTEL_EXPORTER_OTLP_PROTOCOL=protocol
        )
        left = time.monotonic()
    assert finished.returncode == 0
    assert "telemetry was not all exported" in finished.stderr
    # The clock is the machine's, so the child's reading compares with ours. Between 2 s and what the SDK takes by
    # itself there is room for a machine that is busy with other things.
    assert left - float(finished.stdout) < STOCK_EXIT


def test_leaving_exports_what_is_left():
    """With a collector that answers, everything arrives and nothing is complained about."""
    with HttpReceiver() as receiver:
        finished = run(LEAVING, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)
        assert (finished.returncode, finished.stderr) == (0, "")
        assert len(receiver.spans) == 600
        points = [
            metric.sum.data_points[0].as_int
            for request in receiver.metrics
            for metric in request.resource_metrics[0].scope_metrics[0].metrics
        ]
        assert points[-1] == 600


def test_a_slow_metrics_endpoint_costs_no_spans():
    """Spans and metrics leave side by side: where one endpoint hangs, the other signal still arrives."""
    with HttpReceiver() as receiver, silent_server() as port:
        finished = run(
            LEAVING,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"http://127.0.0.1:{port}/v1/metrics",
        )
        assert finished.returncode == 0
        assert "telemetry was not all exported" in finished.stderr
        assert len(receiver.spans) == 600
