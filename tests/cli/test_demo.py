"""The command line's main job, as a user runs it: real processes, real input, a real receiver."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.cli import program
from tests.support.otlp_receiver import otlp_receiver
from tests.support.warm_interpreter import run_program

from aetherflow.cli.main import main

NODES = {"find_sources", "partition", "parse", "gather", "complexity", "imports", "report"}
"""The nodes of the demo's flow."""


def aetherflow(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder, with nothing of telemetry in its environment but what is given."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "AETHER_"))}
    return run_program("-m aetherflow", *arguments, cwd=folder, env={**clean, "COLUMNS": "120", **environment})


def spans_in(folder: Path) -> list[dict[str, Any]]:
    """Return every span in the trace files of a folder."""
    lines = [line for file in folder.glob(".aetherflow/traces-*.jsonl") for line in file.read_text().splitlines()]
    return [
        span
        for line in lines
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def test_the_demo_prints_its_result_and_one_trace(tmp_path: Path) -> None:
    """Tables, the waterfall and the file; in the file one trace of every node of the flow, well linked."""
    shown = aetherflow(tmp_path, "demo", "--limit", "20")
    assert shown.returncode == 0, shown.stderr
    for text in ("20 files", "Most intricate functions", "run standard_library", "thread", ".aetherflow/traces-"):
        assert text in shown.stdout
    spans = spans_in(tmp_path)
    assert {span["name"] for span in spans} == NODES | {"run standard_library"}
    assert len({span["traceId"] for span in spans}) == 1
    ids = {span["spanId"] for span in spans}
    assert [span["name"] for span in spans if span.get("parentSpanId", "") not in ids] == ["run standard_library"]
    again = aetherflow(tmp_path, "trace")
    assert again.returncode == 0
    assert "run standard_library" in again.stdout


@pytest.mark.slow
def test_the_whole_standard_library_gives_the_same_result_twice(tmp_path: Path) -> None:
    """Real input, all of it, in parallel: the report does not depend on who was first."""

    def result() -> str:
        shown = aetherflow(tmp_path, "demo")
        assert shown.returncode == 0, shown.stderr
        return shown.stdout.partition("run standard_library")[0]

    first = result()
    assert "files" in first
    assert first == result()


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_the_demos_trace_reaches_a_real_receiver(tmp_path: Path, protocol: str) -> None:
    """Over HTTP and over gRPC, every span with its parent; no file is written then."""
    with otlp_receiver(tmp_path) as receiver:
        endpoint = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
        shown = aetherflow(
            tmp_path,
            "demo",
            "--limit",
            "20",
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_METRICS_EXPORTER="none",
        )
        assert shown.returncode == 0, shown.stderr
        received = receiver.wait_for_spans(8)
    assert {span.name for span in received} == NODES | {"run standard_library"}
    (root,) = (span for span in received if not span.parent_id)
    assert {span.parent_id for span in received if span is not root} == {root.span_id}
    assert len({span.trace_id for span in received}) == 1
    assert spans_in(tmp_path) == []


def test_run_runs_anyones_flow(tmp_path: Path) -> None:
    """``aetherflow run module:flow`` fills inputs by name and from a file, and prints the result and the trace."""
    (tmp_path / "mine.py").write_text("from aetherflow import node\n@node\ndef add(a, b):\n    return {'sum': a + b}\n")
    (tmp_path / "more.json").write_text('{"b": 40}')
    shown = aetherflow(tmp_path, "run", "mine:add", "--input", "a=2", "--input", "@more.json")
    assert shown.returncode == 0, shown.stderr
    assert '"sum": 42' in shown.stdout
    assert "trace" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run", "nosuch:flow"), "nosuch"),
        (("run", "json:nosuch"), "nosuch"),
        (("run", "mine"), "mine"),
        (("demo", "--limit", "none"), "none"),
        (("trace", "nosuch.jsonl"), "nosuch.jsonl"),
        (("trace",), "trace"),
    ],
)
def test_a_bad_argument_is_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    """What is wrong is named; no traceback."""
    assert program.code_of(*arguments) == 2
    errors = capsys.readouterr().err
    assert told in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("columns", ["70", "110"])
def test_the_tables_keep_their_numbers_where_there_is_little_room(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What has to give way is text, which says so by an ellipsis, and never a whole column."""
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["demo", "--limit", "20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(line for line in lines if "function" in line and "where" in line)
    assert head.split()[0] == "ways"
    assert lines[lines.index(head) + 1].split()[0].isdigit()
