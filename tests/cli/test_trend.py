"""``aetherflow trend`` shows a series of runs in the terminal, as JSON and as SVG."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from tests.analysis.metric_samples import run_job
from tests.cli import program

from aetherflow.cli.charts import Chart, Curve, draw_charts, sparkline
from aetherflow.cli.main import main


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen runs, one node half as slow again from the tenth on."""
    monkeypatch.setenv("COLUMNS", "160")
    for number in range(16):
        slow = {1: 1.5} if number >= 9 else None
        run_job(Path(f"runs/{number:02}.jsonl"), number, nodes=4, calls=100, slow=slow)


def test_a_change_is_shown_with_a_sparkline() -> None:
    """As a user runs it: the node that changed comes first, with how much and since when."""
    done = program.run("trend", "runs", COLUMNS="160")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "16 runs" in lines[0]
    assert lines[1].startswith("flow/node-1")
    assert "▁" in lines[1]
    assert "█" in lines[1]
    assert "% since 2023-11-14, run runs/09.jsonl" in lines[1]
    assert sum("since" in line for line in lines) == 1


def test_json_has_values_and_changes(capsys: pytest.CaptureFixture[str]) -> None:
    """Another program finds a value for each run, and the changes."""
    assert main(["trend", "runs", "--format", "json", "--node", "flow/*"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == 1
    assert len(told["runs"]) == 16
    first = told["nodes"][0]
    assert (first["flow"], first["node"], len(first["values"])) == ("flow", "node-1", 16)
    assert [change["index"] for change in first["changes"]] == [9]
    assert len(told["nodes"]) == 4


def test_a_hit_ratio_that_falls_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A rate has a row if it changed, with its last value and the difference in points; JSON has every rate."""
    for number in range(16):
        hits = {1: 0.9 if number < 9 else 0.5, 2: 0.9}
        run_job(Path(f"cached/{number:02}.jsonl"), number, nodes=4, calls=100, hits=hits)
    assert main(["trend", "cached"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("cache hit ratio")]
    assert row.split()[:6] == ["cache", "hit", "ratio", "of", "node-1", "50.0%"]
    assert "-40.0 points since 2023-11-14, run cached/09.jsonl" in row
    assert main(["trend", "cached", "--format", "json", "--node", "node-*"]) == 0
    rates = json.loads(capsys.readouterr().out)["rates"]
    assert [(rate["rate"], rate["name"], len(rate["values"])) for rate in rates] == [
        ("cache_hit_ratio", "node-1", 16),
        ("cache_hit_ratio", "node-2", 16),
    ]
    assert [[change["index"] for change in rate["changes"]] for rate in rates] == [[9], []]


def test_the_series_are_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    """The SVG has a line for each node and a mark at the change; only the newest runs are taken where asked."""
    assert main(["trend", "runs", "--svg", "trend.svg", "--last", "12"]) == 0
    assert "12 runs" in capsys.readouterr().out
    root = ET.parse("trend.svg").getroot()
    tags = [element.tag.rpartition("}")[2] for element in root.iter()]
    assert tags.count("polyline") == 5
    assert tags.count("g") == 0 or "+" in "".join(root.itertext())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["nowhere"], "there is no nowhere"), (["empty"], "no metrics in empty"), (["runs", "--svg", "no/x"], "no/x")],
)
def test_what_is_not_there_is_exit_code_2(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A path without runs, or one that cannot be written, is told in one line."""
    Path("empty").mkdir()
    assert main(["trend", *arguments]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("limit", ["0", "-1", "many", "nan", "11"])
def test_a_limit_is_a_fraction(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no fraction is refused."""
    with pytest.raises(SystemExit):
        main(["trend", "runs", f"--limit={limit}"])
    assert "is not a number above 0 and below 10" in capsys.readouterr().err


def test_sparklines() -> None:
    """Low is low and high is high, a level is a line, and long series are drawn together."""
    assert sparkline([]) == ""
    assert sparkline([1, 2, 3]) == "▁▅█"
    assert sparkline([5.0] * 4) == "▁▁▁▁"
    assert len(sparkline(list(range(1000)), 40)) == 40


def test_charts_are_well_formed_whatever_their_names() -> None:
    """Names with markup, curves without points, and a single point make an SVG all the same."""
    odd = Chart("<a>&\x1b", [Curve({}), Curve({1.0: 2.0}, dots=True), Curve({1.0: 0.0}, dashed=True)], {1.0: "<"})
    root = ET.fromstring(draw_charts([odd, odd]))
    assert "<a>&" in "".join(root.itertext())
