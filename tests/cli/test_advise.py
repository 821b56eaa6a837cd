"""``aetherflow advise`` prints what was seen, what to change, and how to check it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.analysis.metric_samples import START, attributed, message, metric, node_durations, of_node, save
from tests.analysis.metric_samples import exponential as durations
from tests.cli import program

from aetherflow.cli.main import main
from aetherflow.telemetry import conventions as names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Telemetry of a cache that misses."""
    times = {"startTimeUnixNano": str(START), "timeUnixNano": str(START + 1)}
    told = {names.CACHE_NAME: "prices", names.CACHE_RESULT: "miss"}
    misses = attributed({"asInt": "500", **times}, **told)
    line = message(metric(names.CACHE_REQUESTS.name, "sum", misses, isMonotonic=True))
    save(tmp_path / ".aetherflow" / "metrics-1.jsonl", line)
    return tmp_path


def test_a_point_is_told_with_its_change_and_check(folder: Path) -> None:
    """As a user runs it, on the default folder."""
    done = program.run("advise", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "prices  cache-misses"
    assert lines[1] == "  seen    of 500 requests 0% were hits"
    assert [line.split()[0] for line in lines[1:4]] == ["seen", "change", "check"]


def test_the_folder_that_the_environment_names_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was exported elsewhere by AETHER_EXPORT_DIRECTORY is found there, too."""
    (folder / ".aetherflow").rename(folder / "elsewhere")
    monkeypatch.setenv("AETHER_EXPORT_DIRECTORY", "elsewhere")
    assert main(["advise"]) == 0


def test_json_has_every_part(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another program finds the rule, the subject and the figures."""
    assert main(["advise", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == 1
    (point,) = told["advice"]
    assert (point["rule"], point["subject"]) == ("cache-misses", "prices")
    assert point["figures"] == {"requests": 500.0, "hit_ratio": 0.0}
    assert {"seen", "change", "check"} <= point.keys()


def test_nothing_to_say_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Telemetry that asks for nothing is no error."""
    save(tmp_path / "m.jsonl", message(node_durations(of_node(durations([1e-3]), "n"))))
    assert main(["advise", "m.jsonl"]) == 0
    assert capsys.readouterr().out == "nothing in this telemetry asks for a change\n"


@pytest.mark.parametrize(("path", "told"), [("empty", "no telemetry in empty"), ("nowhere", "nowhere")])
def test_no_telemetry_is_exit_code_2(path: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing was exported there is nothing to advise on."""
    Path("empty").mkdir()
    assert main(["advise", path]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("size", ["model", "model=", "model=lots", "=3M", "a b=3"])
def test_a_size_has_a_name_and_bytes(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no size is refused."""
    with pytest.raises(SystemExit):
        main(["advise", "--size", size])
    assert "is not PROVIDER=BYTES" in capsys.readouterr().err
