"""Processes that fork: parent and children each count their own, and everything that they emit arrives once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.support.otlp_receiver import otlp_receiver
from tests.support.receivers import HttpReceiver, silent_server

pytestmark = [pytest.mark.process_heavy, pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")]

FORKING = """
import os, sys, time
from opentelemetry import metrics, trace
from aetherflow import node
from aetherflow.telemetry.setup.configuring import configure

@node
def work(n):
    return n

telemetry = configure("forking", metric_interval=0.2)
tracer, counter = trace.get_tracer("t"), metrics.get_meter("t").create_counter("requests")

def emit(times):
    for n in range(times):
        with tracer.start_as_current_span(f"of {os.getpid()}"):
            counter.add(1)
        work.run({"n": n})

emit(5)
assert telemetry.force_flush()  # the connection is open, the threads have run, the sums are five
emit(2)  # still queued
children = []
for _ in range(4):
    if (child := os.fork()) == 0:
        emit(3)
        time.sleep(0.5)  # exported in between as well
        emit(4)
        sys.exit()
    children.append(child)
emit(1)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
print(os.getpid(), *children)
assert codes == [0] * 4, codes
"""
IN_PARENT, IN_CHILD, CHILDREN = 8, 7, 4


def run(script, folder, **environment):
    file = Path(folder, "program.py")
    file.write_text(script)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    finished = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", file],  # 3.12 and later warn of every such fork
        cwd=folder, env=inherited | environment, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    return finished


def counted(receiver) -> list[int]:
    """What each process has summed up last, from the smallest."""
    return sorted(point.as_int for (point,) in receiver.last_points("requests").values())


def test_every_process_tells_its_own(tmp_path):
    """Over a connection that was open before the fork: each span arrives once, each process sums its own alone."""
    with HttpReceiver() as receiver:
        finished = run(FORKING, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)
        parent, *children = finished.stdout.split()
        names = Counter(span.name for span in receiver.spans)
        counts = counted(receiver)
    assert finished.stderr == ""
    assert names == {f"of {parent}": IN_PARENT, **{f"of {child}": IN_CHILD for child in children}, "work": 36}
    assert len({(span.trace_id, span.span_id) for span in receiver.spans}) == len(receiver.spans)
    assert counts == [IN_CHILD] * CHILDREN + [IN_PARENT]


def test_every_process_writes_its_own_file(tmp_path):
    """To files the same holds: one a process, none twice, and the instance ids differ."""
    finished = run(FORKING, tmp_path)
    assert finished.stderr == ""
    instances = set()
    for process, expected in zip(finished.stdout.split(), [IN_PARENT, *[IN_CHILD] * CHILDREN], strict=True):
        (traces,) = tmp_path.glob(f".aetherflow/traces-*-{process}.jsonl")
        text = traces.read_text()
        assert text.count(f'"of {process}"') == expected
        assert text.count('"of ') == expected
        (measures,) = tmp_path.glob(f".aetherflow/metrics-*-{process}.jsonl")
        (resource,) = json.loads(measures.read_text().splitlines()[-1])["resourceMetrics"]
        found = {each["key"]: each["value"] for each in resource["resource"]["attributes"]}
        instances.add(found["service.instance.id"]["stringValue"])
        points = {
            metric["name"]: next(
                iter(metric[kind]["dataPoints"] for kind in ("sum", "exponentialHistogram") if kind in metric)
            )
            for scope in resource["scopeMetrics"]
            for metric in scope["metrics"]
        }
        assert int(points["requests"][0]["asInt"]) == expected
        assert int(points["aetherflow.node.duration"][0]["count"]) == expected
    assert len(instances) == 1 + CHILDREN


@pytest.fixture
def receiver(tmp_path):
    with otlp_receiver(tmp_path) as started:
        yield started


def test_every_process_tells_its_own_over_grpc(tmp_path, receiver):
    """A parent that forks before it has exported anything, as the master of a server does, disturbs no child."""
    early = FORKING[FORKING.index("emit(5)") : FORKING.index("children = []")]
    finished = run(
        FORKING.replace(early, ""),
        tmp_path,
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.grpc_endpoint,
        OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
    )
    parent, *children = finished.stdout.split()
    expected = {f"of {parent}": 1, **{f"of {child}": IN_CHILD for child in children}, "work": 1 + CHILDREN * IN_CHILD}
    assert Counter(span.name for span in receiver.wait_for_spans(sum(expected.values()))) == expected


EXPORTING = """
import os
from datetime import UTC, datetime
from pathlib import Path
from aetherflow.telemetry.export import exporters
from aetherflow.telemetry.export.destination import Destination
from aetherflow.telemetry.export.files import ProcessFile

made = []
exporters._log_exporter = lambda to, file: lambda: made.append(os.getpid()) or Exporter()
class Exporter:
    def export(self, records):
        return made[-1]
    def shutdown(self):
        print("shut down", os.getpid(), flush=True)
mine = exporters.log_exporter(Destination("file"), ProcessFile(Path("."), "logs", datetime.now(UTC)))
assert mine.export([]) == os.getpid()
if os.fork() == 0:
    os._exit(mine.export([]) == mine.export([]) == os.getpid() and len(made) == 2)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 1
assert mine.export([]) == os.getpid() and len(made) == 1
"""


def test_a_child_makes_an_exporter_of_its_own(tmp_path):
    """The parent's, with its connection, is neither used nor closed by the child; the child's is made once."""
    assert run(EXPORTING, tmp_path).stdout == ""


def test_an_exporter_over_grpc_is_made_when_it_is_needed(tmp_path):
    """Until then forking is safe for gRPC: a parent that has exported nothing has made none."""
    script = EXPORTING.replace('Destination("file")', 'Destination("otlp", "grpc", "http://c:1")')
    script = script.replace("assert mine.export([]) == os.getpid()\nif", "if").replace(
        "len(made) == 2", "len(made) == 1"
    )
    run(script, tmp_path)


MULTIPROCESSING = """
import multiprocessing, sys
from opentelemetry import metrics, trace
from aetherflow.telemetry.setup.configuring import configure

def emit(n):
    if sys.argv[1] != "fork":
        configure("child")
    with trace.get_tracer("t").start_as_current_span("child"):
        metrics.get_meter("t").create_counter("requests").add(1)

if __name__ == "__main__":
    if sys.argv[1] == "fork":
        configure("parent")
    context = multiprocessing.get_context(sys.argv[1])
    processes = [context.Process(target=emit, args=(n,)) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 3
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_export_what_is_left(tmp_path, method):
    """They leave without what is registered for an exit, but export all the same, however they are started."""
    script = MULTIPROCESSING.replace("sys.argv[1]", repr(method))
    with HttpReceiver() as receiver:
        finished = run(script, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)
        assert finished.stderr == ""
        assert [span.name for span in receiver.spans] == ["child"] * 3
        assert counted(receiver) == [1] * 3


LEAVING = """
import os, sys, time
from opentelemetry import trace
from aetherflow.telemetry.setup.configuring import configure
configure("leaving")
if os.fork() == 0:
    with trace.get_tracer("t").start_as_current_span("s"):
        pass
    print(time.monotonic(), flush=True)
    sys.exit()
os.wait()
print(time.monotonic(), flush=True)
os._exit(0)
"""


def test_leaving_a_child_waits_two_seconds_at_most(tmp_path):
    """A forked child has threads of its own to wait with: a collector that never answers holds it up 2 s at most."""
    with silent_server() as port:
        finished = run(LEAVING, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}")
    began, left = map(float, finished.stdout.split())
    assert "telemetry was not all exported" in finished.stderr
    assert left - began < 10  # the SDK alone takes 10 s and more
