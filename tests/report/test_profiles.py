"""Profile events become flame graphs: from the stacks of files where there are any, else from the event."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.analysis.otlp_samples import made

from aetherflow.analysis.spans import Span, SpanEvent
from aetherflow.report.profiles import profiles_of
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.profiling.event import FunctionTimes, Profile, profile_attributes, skipped_attributes


def profiled(uri: str | None = None, number: int = 1) -> Span:
    functions = [FunctionTimes("outer (a.py:1)", 0.25, 1.0, 1), FunctionTimes("inner (a.py:5)", 0.75, 0.75, 3)]
    attributes: Any = profile_attributes(Profile("sampling", functions), uri)
    event = SpanEvent(names.PROFILE_EVENT, 0, attributes)
    return made(number, attributes={names.NODE_NAME: "work"}, events=(event,))


def speedscope(path: Path, **changed: Any) -> str:
    """Write a file as AetherFlow does, and give the address of the pstats file beside it."""
    frames = [{"name": name, "file": "/x/a.py", "line": line} for name, line in (("outer", 1), ("inner", 5))]
    profile = {"type": "sampled", "samples": [[0], [0, 1]], "weights": [0.5, 2.0]}
    told = {"exporter": "aetherflow", "shared": {"frames": frames}, "profiles": [profile]} | changed
    path.write_text(json.dumps(told), encoding="utf-8")
    return path.with_name(path.name.removesuffix(".speedscope.json") + ".pstats").as_uri()


def test_an_event_is_a_graph_of_own_times() -> None:
    """Without stacks a node's functions stand below it, by the time in themselves; times of all its profiles add up."""
    (told,) = profiles_of([profiled(), profiled(number=2)], {})
    assert told["frames"] == [
        (0, "work", 2.0, 0.0), (1, "inner (a.py:5)", 1.5, 0.0), (1, "outer (a.py:1)", 0.5, 1.5),
    ]  # fmt: skip
    assert told["functions"] == [["outer (a.py:1)", 0.5, 2.0, 2], ["inner (a.py:5)", 1.5, 1.5, 6]]
    assert (told["taken"], told["withStacks"]) == (2, 0)


def test_stacks_are_read_from_beside_the_profile(tmp_path: Path) -> None:
    """Where the speedscope file is still there, the graph shows who called whom."""
    (told,) = profiles_of([profiled(speedscope(tmp_path / "work-1.speedscope.json"))], {})
    assert told["frames"] == [
        (0, "work", 2.5, 0.0), (1, "outer (a.py:1)", 2.5, 0.0), (2, "inner (a.py:5)", 2.0, 0.0),
    ]  # fmt: skip
    assert told["withStacks"] == 1


@pytest.mark.parametrize(
    "changed",
    [{"exporter": "other"}, {"profiles": []}, {"shared": None}, {"profiles": [{"samples": [[9]], "weights": [1]}]}],
)
def test_a_file_that_is_something_else_is_left_alone(tmp_path: Path, changed: dict[str, Any]) -> None:
    """What is not the profile that the event speaks of changes nothing: the event is shown."""
    (told,) = profiles_of([profiled(speedscope(tmp_path / "work-1.speedscope.json", **changed))], {})
    assert (told["withStacks"], len(told["frames"])) == (0, 3)


@pytest.mark.parametrize(
    "uri", ["file:///no/x.pstats", "file://host/x.pstats", "https://x/y.pstats", "file:///%00", "%00", ""]
)
def test_no_other_address_is_followed(uri: str) -> None:
    """An address elsewhere, or of nothing, is not looked at."""
    (told,) = profiles_of([profiled(uri)], {})
    assert told["withStacks"] == 0


def test_profiles_that_were_not_taken_are_counted() -> None:
    """The reason why a profile was skipped is told, with how often; broken events count for nothing."""
    skipped: Any = skipped_attributes("cprofile", "another profiler is active")
    events = (SpanEvent(names.PROFILE_EVENT, 0, skipped), SpanEvent(names.PROFILE_EVENT, 0, {}), SpanEvent("x", 0, {}))
    (told,) = profiles_of([made(1, name="n", events=events)], {})
    assert told["skipped"] == [("another profiler is active", 1)]
    assert (told["taken"], told["functions"]) == (1, [])
