"""The pipeline to each kind of destination: what it leaves there, and what a forked child makes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from opentelemetry.exporter.otlp.json.file import FileSpanExporter
from tests.support.otlp_receiver import otlp_receiver
from tests.support.receivers import HttpReceiver
from tests.telemetry.export.test_pipeline import span
from tests.telemetry.spans_at_random import batches

from aetherflow.analysis.spans import read_spans
from aetherflow.telemetry.export.destination import Destination
from aetherflow.telemetry.export.files import ProcessFile
from aetherflow.telemetry.export.ledger import SpanLedger
from aetherflow.telemetry.export.span_pipelines import span_pipeline

STARTED = datetime(2026, 1, 2, tzinfo=UTC)


@settings(max_examples=20)  # that the JSON is the same is shown for many more where the encoder is tested
@given(batches)
def test_a_file_holds_what_the_stock_exporter_would_have_written(tmp_path_factory, spans):
    """The same spans through the stock exporter for files and through ours are the same JSON."""
    folder = tmp_path_factory.mktemp("files")
    file = ProcessFile(folder, "traces", STARTED)
    with (folder / "stock.jsonl").open("w") as stock:
        FileSpanExporter(stream=stock).export(spans)
    pipeline = span_pipeline(Destination("file"), file)
    for each in spans:
        pipeline.push(each)
    assert pipeline.close(10)
    assert json.loads(file.path.read_text()) == json.loads((folder / "stock.jsonl").read_text())


def test_a_file_is_appended_a_line_a_request(tmp_path):
    """Each request is one whole line, which our own reader reads, in the order that spans ended."""
    file = ProcessFile(tmp_path, "traces", STARTED)
    pipeline = span_pipeline(Destination("file"), file)
    for name in ("first", "second"):
        pipeline.push(span(name))
        assert pipeline.flush(10)
    assert len(file.path.read_text().splitlines()) == 2
    assert [each.name for each in read_spans(file.path)] == ["first", "second"]
    assert pipeline.close(10)


def test_a_file_that_cannot_be_written_fails_its_spans(tmp_path):
    """Where the folder is gone for good, spans are failed with the reason, and their threads notice nothing."""
    folder = tmp_path / "folder"
    pipeline = span_pipeline(Destination("file"), ProcessFile(folder, "traces", STARTED))
    folder.write_text("a file is in the way")
    pipeline.push(span())
    assert not pipeline.flush(10)
    assert pipeline.ledger().failed_by == {"FileExistsError": 1}
    assert pipeline.close(10)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_the_receiver_counts_what_the_ledger_counts(tmp_path, protocol):
    """A real receiver has got, by its own count, exactly what the ledger says was exported."""
    with otlp_receiver(tmp_path, detailed=False) as receiver:
        endpoint = receiver.grpc_endpoint if protocol == "grpc" else f"{receiver.http_endpoint}/v1/traces"
        pipeline = span_pipeline(Destination("otlp", protocol, endpoint), ProcessFile(tmp_path, "traces", STARTED))
        for _ in range(10_000):
            pipeline.push(span())
        assert pipeline.close(30)
        assert pipeline.ledger() == SpanLedger(10_000, 10_000)
        receiver.wait_for_count(10_000)
        assert receiver.count() == 10_000


FORKING = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
from opentelemetry.sdk.trace import TracerProvider
from aetherflow.telemetry.export.destination import Destination
from aetherflow.telemetry.export.files import ProcessFile
from aetherflow.telemetry.export.ledger import SpanLedger
from aetherflow.telemetry.export.span_pipelines import span_pipeline

file = ProcessFile(Path("."), "traces", datetime.now(UTC))
pipeline = span_pipeline(Destination("otlp", "http/protobuf", sys.argv[1]), file)
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(pipeline)
tracer = provider.get_tracer("t")

def emit(times):
    for _ in range(times):
        tracer.start_span(f"of {os.getpid()}").end()

emit(10)
assert pipeline.flush(10)
emit(3)  # left to the parent
worker = pipeline._worker
if (child := os.fork()) == 0:
    assert pipeline.ledger() == SpanLedger()
    assert pipeline._worker is None  # a child that makes no spans gets no thread
    emit(1)
    assert pipeline._worker not in (None, worker)
    emit(599)
    assert pipeline.flush(10)
    emit(7)
    assert pipeline.close(10)
    assert pipeline.ledger() == SpanLedger(607, 607)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
emit(2)
assert pipeline.close(10)
assert pipeline.ledger() == SpanLedger(15, 15)
print(os.getpid(), child)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_keeps_books_of_its_own(tmp_path):
    """Over a connection that was open before, parent and child each export their own spans once and count no others."""
    Path(tmp_path, "program.py").write_text(FORKING)
    with HttpReceiver() as receiver:
        finished = subprocess.run(
            [sys.executable, "-W", "ignore::DeprecationWarning", "program.py", f"{receiver.endpoint}/v1/traces"],
            cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False,
        )  # fmt: skip
        assert (finished.returncode, finished.stderr) == (0, "")
        parent, child = finished.stdout.split()
        names = [each.name for each in receiver.spans]
    assert (names.count(f"of {parent}"), names.count(f"of {child}"), len(names)) == (15, 607, 622)


FORKING_UNDER_LOAD = """
import os, sys, threading
from datetime import UTC, datetime
from pathlib import Path
from opentelemetry.sdk.trace import TracerProvider
from aetherflow.telemetry.export.destination import Destination
from aetherflow.telemetry.export.files import ProcessFile
from aetherflow.telemetry.export.ledger import SpanLedger
from aetherflow.telemetry.export.span_pipelines import span_pipeline

pipeline = span_pipeline(Destination("file"), ProcessFile(Path("."), "traces", datetime.now(UTC)))
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(pipeline)
tracer = provider.get_tracer("t")
done, made = threading.Event(), [0] * 4

def emit(index):
    while not done.is_set():
        tracer.start_span("parent").end()
        made[index] += 1

threads = [threading.Thread(target=emit, args=(each,)) for each in range(4)]
for each in threads:
    each.start()
for _ in range(6):
    if (child := os.fork()) == 0:
        for _ in range(300):
            tracer.start_span("child").end()
        whole = pipeline.close(20) and pipeline.ledger() == SpanLedger(300, 300)
        os._exit(0 if whole else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
done.set()
for each in threads:
    each.join()
assert pipeline.close(20)
assert pipeline.ledger() == SpanLedger(sum(made), sum(made)), (pipeline.ledger(), made)
print(sum(made))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_fork_amid_the_work_of_threads_confuses_no_books(tmp_path):
    """However many locks other threads hold when a process forks, the child works, and nothing is told twice."""
    Path(tmp_path, "program.py").write_text(FORKING_UNDER_LOAD)
    finished = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "program.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=55, check=False,
    )  # fmt: skip
    assert (finished.returncode, finished.stderr) == (0, "")
    names = Counter(each.name for file in tmp_path.glob("*.jsonl") for each in read_spans(file))
    assert names == {"parent": int(finished.stdout), "child": 6 * 300}
