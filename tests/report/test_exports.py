"""Traces for other viewers: what they document is what they get."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.analysis.otlp_samples import SECOND, attribute, line, made, span, write
from tests.support.dev_extra import NEEDS_DEV

from aetherflow.analysis.spans import Span, SpanLink
from aetherflow.cli.main import main
from aetherflow.report.chrome_trace import chrome_trace
from aetherflow.report.speedscope import speedscope
from aetherflow.report.tracks import Track, lay_out

SCHEMA = json.loads((Path(__file__).parent / "schemas" / "speedscope-1.25.0.json").read_text("utf-8"))
PHASES: dict[str, dict[str, type | tuple[type, ...]]] = {
    "M": {"name": str, "pid": int, "tid": int, "args": dict},
    "X": {"name": str, "cat": str, "pid": int, "tid": int, "ts": (int, float), "dur": (int, float), "args": dict},
    "i": {"name": str, "cat": str, "pid": int, "tid": int, "ts": (int, float), "s": str},
    "s": {"name": str, "cat": str, "pid": int, "tid": int, "ts": (int, float), "id": int},
    "f": {"name": str, "cat": str, "pid": int, "tid": int, "ts": (int, float), "id": int, "bp": str},
}
"""What the Trace Event Format document asks of the events that are written."""


@st.composite
def traces(draw: st.DrawFn) -> list[Span]:
    spans = []
    for number in range(1, draw(st.integers(1, 16))):
        start = draw(st.integers(0, 30))
        parent = draw(st.none() | st.integers(1, number))
        threads = draw(st.sampled_from(({}, {"thread.name": "a"}, {"thread.name": "b"}, {"thread.id": 7})))
        links = (SpanLink("a" * 32, f"{draw(st.integers(1, 16)):016x}", {}),)
        end = start + draw(st.integers(-2, 20))
        spans.append(made(number, parent, start, end, attributes=threads, links=links))
    return spans


def overlaps(spans: Sequence[Span]) -> bool:
    """Whether any span is in part inside another."""
    pairs = [(one, other) for one in spans for other in spans if one.start < other.start]
    return any(other.start < one.end < other.end for one, other in pairs)


@given(traces())
def test_on_a_track_spans_nest(spans: list[Span]) -> None:
    """Every span is on exactly one track of its process, and none overlaps another there in part."""
    tracks: list[Track] = [track for process in lay_out(spans) for track in process.tracks]
    placed = sorted(span.span_id for track in tracks for span in track.spans)
    assert placed == sorted(span.span_id for span in spans)
    assert not any(overlaps(track.spans) for track in tracks)


def test_a_run_is_on_the_track_of_what_it_began_with() -> None:
    """A span without a thread is on that of the first below it, another on that of its parent; alone it has its own."""
    main, other = {"thread.name": "main"}, {"thread.name": "other"}
    spans = [
        made(1, end=9),
        made(2, 1, 1, 3, attributes=main),
        made(3, 1, 2, 8, attributes=other),
        made(4, 2, 1, 2),
        made(5, start=20, end=21),
    ]
    (process,) = lay_out(spans)
    told = {track.name: [span.name for span in track.spans] for track in process.tracks}
    assert told == {"main": ["n1", "n2", "n4"], "other": ["n3"], "spans": ["n5"]}


@given(traces())
def test_chrome_events_have_the_documented_fields(spans: list[Span]) -> None:
    """Each event has what its phase needs, tracks are named, and both ends of every arrow lie at a slice's start."""
    told = json.loads(json.dumps(chrome_trace(spans)))
    events = told["traceEvents"]
    for event in events:
        for field, kind in PHASES[event["ph"]].items():
            assert isinstance(event[field], kind), (event, field)
    slices = [event for event in events if event["ph"] == "X"]
    assert len(slices) == len(spans)
    named = {(event["pid"], event["tid"]) for event in events if event["name"] == "thread_name"}
    assert {(event["pid"], event["tid"]) for event in slices} == named
    starts = {(event["pid"], event["tid"], event["ts"]) for event in slices}
    arrows: dict[int, list[dict[str, Any]]] = {}
    for event in events:
        if event["ph"] in "sf":
            arrows.setdefault(event["id"], []).append(event)
            assert (event["pid"], event["tid"], event["ts"]) in starts
    assert all(sorted(end["ph"] for end in ends) == ["f", "s"] for ends in arrows.values())


@given(traces())
def test_speedscope_files_keep_its_schema(spans: list[Span]) -> None:
    """The file is what speedscope's published schema describes; closings match openings, and time does not go back."""
    told = speedscope(spans, "all")
    pytest.importorskip("jsonschema", reason=NEEDS_DEV).validate(told, SCHEMA)
    for profile in told["profiles"]:
        opened, at = [], 0
        for event in profile["events"]:
            assert event["at"] >= at
            at = event["at"]
            if event["type"] == "O":
                opened.append(event["frame"])
            else:
                assert opened.pop() == event["frame"]
        assert not opened
        assert at == profile["endValue"]


def test_the_schema_refuses_what_is_not_speedscope() -> None:
    """The check above can fail."""
    jsonschema = pytest.importorskip("jsonschema", reason=NEEDS_DEV)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"profiles": "none"}, SCHEMA)


@pytest.fixture
def telemetry(tmp_path: Path) -> Path:
    """Two traces; in the later one a span runs on a thread of its own and links to its sibling."""
    threads = [[attribute("thread.name", {"stringValue": name})] for name in ("main", "<script>")]
    links = [{"traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "spanId": f"{2:016x}"}]
    late = str(SECOND + 900_000_000)
    return write(
        tmp_path / "two.jsonl",
        line(span(1, endTimeUnixNano=late, attributes=threads[0]), span(2, 1, attributes=threads[0])),
        line(span(3, 1, attributes=threads[1], links=links)),
        line(span(9, traceId="1" * 32, startTimeUnixNano="5", endTimeUnixNano="7")),
    )


def exported(*arguments: object) -> dict[str, Any]:
    output = Path(str(arguments[0])).with_name("out.json")
    assert main(["trace", *map(str, arguments), "-o", str(output)]) == 0
    told: dict[str, Any] = json.loads(output.read_text("utf-8"))
    return told


def test_the_command_writes_the_newest_trace_or_all(telemetry: Path) -> None:
    """`--format perfetto` writes the trace that would be shown; `--trace-id all` every one of the file."""
    one = exported(telemetry, "--format", "perfetto")["traceEvents"]
    assert [event["name"] for event in one if event["ph"] == "X"] == ["n1", "n2", "n3"]
    assert {event["name"] for event in one if event["ph"] == "s"} == {"link", "child"}
    every = exported(telemetry, "--format", "perfetto", "--trace-id", "all")
    assert len([event for event in every["traceEvents"] if event["ph"] == "X"]) == 4
    assert every["otherData"]["startTimeUnixNano"] == "5"
    scoped = exported(telemetry, "--format", "speedscope")
    assert [profile["name"] for profile in scoped["profiles"]] == ["shop · main", "shop · <script>"]


def test_without_a_file_it_goes_to_standard_output(telemetry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is written where nothing else is named is only the JSON."""
    assert main(["trace", str(telemetry), "--format", "speedscope"]) == 0
    assert json.loads(capsys.readouterr().out)["exporter"] == "aetherflow"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-o", "x"], "-o is for --format"),
        (["--trace-id", "all"], "--trace-id all is for"),
        (["--format", "perfetto", "-o", "nowhere/x"], "nowhere/x cannot be written: No such file"),
        (["--format", "perfetto", "-o", "."], "cannot be written: Is a directory"),
    ],
)
def test_what_cannot_be_is_refused(
    telemetry: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An option without sense, or a place that cannot be written to, is one line that names it."""
    assert main(["trace", str(telemetry), *arguments]) == 2
    assert told in capsys.readouterr().err
