"""Under ``opentelemetry-instrument`` the application has its providers before it starts: ours are its spans in them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.support.dev_extra import NEEDS_DEV
from tests.support.receivers import HttpReceiver

pytestmark = pytest.mark.process_heavy

pytest.importorskip("opentelemetry.instrumentation.auto_instrumentation", reason=NEEDS_DEV)

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
COMMAND = Path(sys.executable).with_name("opentelemetry-instrument")


def instrumented(script: Path, folder: Path, receiver: HttpReceiver, **environment: str):
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    set_up = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_SERVICE_NAME": "instrumented",
    }
    return subprocess.run(
        [COMMAND, sys.executable, script],
        cwd=folder, env=inherited | set_up | environment, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip


def test_an_example_emits_once_into_the_applications_providers(tmp_path):
    """``configure()`` in it adds no exporter: each span and measurement arrives once, as the application's own."""
    with HttpReceiver() as receiver:
        finished = instrumented(EXAMPLES / "parallel_partitions.py", tmp_path, receiver)
        (points,) = receiver.last_points("aetherflow.node.duration").values()
        spans = receiver.spans
    assert (finished.returncode, finished.stderr) == (0, "")
    nodes = Counter(str(span.attributes["aetherflow.node.name"]) for span in spans if not span.name.startswith("run "))
    assert nodes == {"data_partitioner": 2, "parallel_processor": 8, "result_aggregator": 2}
    assert len({span.span_id for span in spans}) == len(spans) == 14
    assert {span.service for span in spans} == {"instrumented"}
    assert sum(point.count for point in points) == 12
    assert list(tmp_path.iterdir()) == []


AROUND = """
from opentelemetry import trace
from aetherflow import node

@node
def inner(n):
    return n

with trace.get_tracer("app").start_as_current_span("outer"):
    inner.run({"n": 1})
"""


def test_our_spans_are_inside_the_applications(tmp_path):
    """Without any ``configure()``: a node's span has the application's current span as its parent."""
    script = tmp_path / "app.py"
    script.write_text(AROUND)
    with HttpReceiver() as receiver:
        finished = instrumented(script, tmp_path, receiver)
        assert (finished.returncode, finished.stderr) == (0, "")
        inner, outer = receiver.wait_for_spans(2)
    assert (outer.name, inner.name, inner.parent_id) == ("outer", "inner", outer.span_id)


def test_log_records_arrive_once_too(tmp_path):
    """Events of structlog go to the application's logger provider; its own handler carries the standard library's."""
    variable = "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED"
    with HttpReceiver() as receiver:
        finished = instrumented(EXAMPLES / "logs.py", tmp_path, receiver, **{variable: "true"})
        assert finished.returncode == 0  # on 3.12 and later the SDK's handler complains at the end, with or without us
        records = [
            record.body.string_value
            for request in receiver.logs
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]
    said = ["opened", "priced", "rate of 19 % assumed"]
    assert sorted(records) == said
    assert [json.loads(line)["event"] for line in finished.stdout.splitlines()] == said
