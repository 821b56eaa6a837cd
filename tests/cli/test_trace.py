"""``aetherflow trace`` shows what is in a file, whatever wrote it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from tests.analysis.otlp_samples import MS, SECOND, attribute, document, line, span, write

from aetherflow.cli.main import main

EARLY, LATE = "1" * 32, "12" + "3" * 30


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def two_traces(tmp_path: Path) -> Path:
    """A file with two traces, the newer one first."""
    late = span(1, name="run late", traceId=LATE, startTimeUnixNano=str(SECOND + 2_000 * MS))
    late["endTimeUnixNano"] = str(SECOND + 2_250 * MS)
    return write(tmp_path / "two.jsonl", line(late), line(span(2, name="run early", traceId=EARLY, status={"code": 2})))


def output(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    assert main(["trace", *map(str, arguments)]) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def test_the_folder_that_the_environment_names_is_read(
    two_traces: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was exported elsewhere by AETHER_EXPORT_DIRECTORY is found there, too."""
    (two_traces.parent / "elsewhere").mkdir()
    two_traces.rename(two_traces.parent / "elsewhere" / "traces-1.jsonl")
    monkeypatch.setenv("AETHER_EXPORT_DIRECTORY", "elsewhere")
    assert "run late" in output(capsys)


def test_a_trace_is_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page tells what the trace is, shows its waterfall, and what exceptions were recorded in it."""
    event = {
        "name": "exception",
        "attributes": [
            attribute("exception.type", {"stringValue": "shop.OutOfPaper"}),
            attribute("exception.message", {"stringValue": "tray [2]\nis empty"}),
        ],
    }
    threads = [attribute("thread.name", {"stringValue": "worker"})]
    file = write(
        tmp_path / "f",
        line(
            span(1, name="run print", endTimeUnixNano=str(SECOND + 251 * MS)),
            span(2, 1, name="fetch", attributes=threads),
            span(3, 1, name="put", status={"code": 2}, events=[event], attributes=threads),
        ),
    )
    shown = output(capsys, file).splitlines()
    assert shown[0] == "run print  250 ms · 3 spans · 1 thread · 1 error"
    assert shown[1].startswith("trace 4bf92f3577b34da6a3ce929d0e0e4736 · shop · 2023-11-")
    assert [row.split()[:2] for row in shown[4:7]] == [["run", "print"], ["├", "fetch"], ["└", "put"]]
    assert shown[-1] == "✗ put  shop.OutOfPaper: tray [2] …"


def test_many_exceptions_are_not_all_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first ten exceptions are told, and how many more there are."""
    event = {"name": "exception", "attributes": [attribute("exception.type", {"stringValue": "E"})]}
    spans = [span(number, None, status={"code": 2}, events=[event]) for number in range(1, 26)]
    shown = output(capsys, write(tmp_path / "f", line(*spans))).splitlines()
    assert shown[-1] == "… and 15 more"
    assert sum(text.startswith("✗") for text in shown) == 10


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("layout", [None, 2], ids=["lines", "indented"])
def test_any_layout_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], packed: bool, layout: int | None
) -> None:
    """JSON lines and documents of any layout, gzipped or not, are the same trace."""
    content = json.dumps(document(span(1), span(2, 1)), indent=layout).encode()
    file = tmp_path / "export.json"
    file.write_bytes(gzip.compress(content) if packed else content)
    assert "2 spans" in output(capsys, file)


def test_several_traces_are_listed_and_the_newest_shown(two_traces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The list has a line a trace, by start, and the page below it is that of the last."""
    shown = output(capsys, two_traces).splitlines()
    assert shown[0].split() == ["2", "traces"]
    assert shown[2].startswith("1" * 12)
    assert shown[2].split()[-6:] == ["run", "early", "1.00", "ms", "1", "1"]
    assert shown[3].split()[-5:] == ["run", "late", "250", "ms", "1"]
    pages = [text for text in shown if text.startswith("trace ")]
    assert [text.split()[1] for text in pages if len(text.split()[1]) == 32] == [LATE]


def test_a_trace_is_chosen_by_the_beginning_of_its_id(two_traces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A prefix that is one trace's shows that trace alone, in upper case too."""
    shown = output(capsys, two_traces, "--trace-id", "111")
    assert shown.startswith("run early")
    assert LATE not in shown
    assert output(capsys, two_traces, "--trace-id", LATE.upper()).startswith("run late")


def test_a_prefix_must_be_one_traces(two_traces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A prefix of none, or of several, is a bad argument; what would do is told."""
    error = output(capsys, two_traces, "--trace-id", "f", code=2)
    assert LATE in error
    assert EARLY in error
    assert "2 traces" in output(capsys, two_traces, "--trace-id", "1", code=2)


def test_the_newest_file_is_the_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a file it is the newest below .aetherflow/; a folder stands for the newest in it."""
    folder = tmp_path / ".aetherflow"
    folder.mkdir()
    write(folder / "traces-20250101T000000.000000Z-2.jsonl", line(span(1, name="old")))
    write(folder / "traces-20250102T000000.000000Z-1.jsonl", line(span(1, name="new")))
    write(folder / "metrics-20250103T000000.000000Z-1.jsonl", "{}\n")
    assert output(capsys).startswith("new")
    assert output(capsys, folder).startswith("new")


def test_a_cut_line_is_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a killed process left of its last line does not hide the lines before it."""
    file = write(tmp_path / "cut.jsonl", line(span(1, name="whole")), line(span(2))[:40])
    assert main(["trace", str(file)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("whole")
    assert captured.err == f"{file}, line 2: is cut short, so it is left out\n"


def test_all_shows_every_span(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Many siblings of one name are folded, unless all are asked for."""
    file = write(tmp_path / "f", line(span(1), *(span(number, 1, name="visit") for number in range(2, 52))))
    assert output(capsys, file).count("visit") == 1
    assert output(capsys, file, "--all").count("visit") == 50


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{}\n", "holds no spans"),
        ('{"resourceMetrics": []}\n', "holds no spans"),
        ("hello\n", "line 1: is not JSON"),
        (line(span(1)) + line(span(2, name=3)), 'line 2: is not OTLP: "name" must be a string, not 3'),
    ],
)
def test_what_holds_no_trace_is_a_bad_argument(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, told: str
) -> None:
    """A file without spans, or that is not OTLP, is one line that says so."""
    error = output(capsys, write(tmp_path / "file.jsonl", content), code=2)
    assert told in error
    assert "file.jsonl" in error
    assert error.count("\n") == 1


def test_no_file_at_all_is_told_with_what_makes_one(capsys: pytest.CaptureFixture[str]) -> None:
    """In a folder where nothing ran yet, the user is told what to run."""
    assert "aetherflow demo" in output(capsys, code=2)
