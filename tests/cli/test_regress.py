"""``aetherflow regress`` as a user and as CI run it."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from tests.analysis.metric_samples import exponential as durations
from tests.analysis.metric_samples import message, node_durations, of_node, run_job, save
from tests.cli import program

from aetherflow.cli.main import main
from aetherflow.telemetry import conventions as names


@pytest.fixture(autouse=True)
def no_step_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


@pytest.fixture
def sides(tmp_path: Path) -> tuple[str, str]:
    """A folder of five jobs, and one of three of which one node is half as slow again."""
    for number in range(5):
        run_job(tmp_path / "was" / f"{number}.jsonl", f"was{number}")
    for number in range(3):
        run_job(tmp_path / "is" / f"{number}.jsonl", f"is{number}", slow={2: 1.5})
    return str(tmp_path / "was"), str(tmp_path / "is")


def regress(*arguments: str) -> int:
    return main(["regress", *arguments])


def test_a_regression_is_exit_code_1(sides: tuple[str, str]) -> None:
    """As a program of its own: the table names the node, its times and its change, and the shell is told."""
    done = program.run("regress", "--baseline", sides[0], "--candidate", sides[1])
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("regression: 6 nodes (1 regression")
    (row,) = [line for line in lines if line.startswith("regression  ")]
    assert "flow/node-2" in row
    assert "ms" in row
    assert "%" in row
    assert done.stderr == ""


def test_nothing_slower_is_exit_code_0(sides: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """A baseline against other runs of itself is fine."""
    files = sorted(Path(sides[0]).iterdir())
    candidates = [str(run_job(Path(f"more/{number}.jsonl"), f"more{number}")) for number in range(3)]
    assert regress("--baseline", *map(str, files), "--candidate", *candidates) == 0
    assert "regression" not in capsys.readouterr().out


def test_json_has_the_promised_keys(sides: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Other programs find schema, verdict, suite, and each node with change as a fraction."""
    assert regress("--baseline", sides[0], "--candidate", sides[1], "--format", "json") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["verdict"]) == (1, "regression")
    assert {"verdict", "change", "p", "detectable"} <= told["suite"].keys()
    first = told["nodes"][0]
    wanted = {"flow", "node", "metric", "verdict", "change", "p", "detectable", "baseline", "candidate"}
    assert wanted <= first.keys()
    assert (first["flow"], first["node"], first["metric"]) == ("flow", "node-2", names.NODE_DURATION.name)
    assert first["change"] == pytest.approx(0.5, abs=0.08)
    assert first["baseline"]["jobs"] == 5
    assert first["candidate"]["calls"] == 1200


def test_junit_is_read_by_ci(sides: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --output the report is in the file and the terminal still shows the text."""
    file = tmp_path / "report.xml"
    assert regress("--baseline", sides[0], "--candidate", sides[1], "--format", "junit", "--output", str(file)) == 1
    suite = ET.parse(file).getroot().find("testsuite")
    assert suite is not None
    assert suite.get("failures") == "1"
    failed = [case.get("name") for case in suite if case.find("failure") is not None]
    assert failed == ["flow/node-2"]
    assert len(suite) == int(suite.get("tests") or 0) == 7
    assert capsys.readouterr().out.startswith("regression: ")


def test_a_github_step_gets_a_summary(
    sides: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Markdown is appended where GitHub asks for it, whatever the format."""
    summary = tmp_path / "summary.md"
    summary.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert regress("--baseline", sides[0], "--candidate", sides[1], "--format", "json") == 1
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("before\n### ✗ Performance: regression")
    assert "| ✗ regression | flow/node-2 |" in text
    json.loads(capsys.readouterr().out)


def test_names_are_not_taken_for_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A node's name with pipes, tags and escape sequences breaks neither a table nor a terminal nor XML."""
    odd = "a|<b>\x1b[31m\x00"
    for side, count in (("was", 5), ("is", 3)):
        for number in range(count):
            points = [of_node(durations([1e-3] * 300), name) for name in (odd, "n1", "n2")]
            save(tmp_path / side / f"{number}.jsonl", message(node_durations(*points)))
    for form in ("text", "markdown", "json", "junit"):
        assert regress("--baseline", "was", "--candidate", "is", "--format", form) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert "\x00" not in out
        if form == "markdown":
            assert r"a\|&lt;b>" in out
        if form == "junit":
            assert ET.fromstring(out.encode()).find("testsuite") is not None


@pytest.mark.parametrize("baseline", [[], ["--baseline", "empty"], ["--baseline", "nowhere"]])
def test_without_a_baseline_there_is_a_warning(
    sides: tuple[str, str], baseline: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The first run of all has nothing to compare with: that is no failure, unless a baseline is required."""
    Path("empty").mkdir()
    assert regress(*baseline, "--candidate", sides[1]) == 0
    assert "nothing to compare with" in capsys.readouterr().err
    assert regress(*baseline, "--candidate", sides[1], "--require-baseline") == 2
    assert "there is no baseline" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--candidate", "nowhere"], "nowhere"),
        (["--candidate", "empty"], "no metrics in empty"),
        (["--candidate", "broken.jsonl"], "broken.jsonl, line 1: is not JSON"),
        (["--candidate", "is", "--baseline", "broken.jsonl"], "broken.jsonl, line 1: is not JSON"),
        (["--candidate", "is", "--baseline", "is/1.jsonl"], "on both sides: is/1.jsonl"),
        (["--candidate", "is", "--baseline", "was", "wsa", "waz"], "there is no wsa, waz, which --baseline names"),
        (["--candidate", "is", "--baseline", "was", "--config", "nowhere.toml"], "nowhere.toml"),
        (["--candidate", "is", "--baseline", "was", "--config", "bad.toml"], "bad.toml: limt=3"),
        (["--candidate", "is", "--baseline", "was", "--output", "no/such/folder"], "no/such/folder"),
    ],
)
def test_unusable_input_is_exit_code_2(
    sides: tuple[str, str], arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be read or written is told in one line."""
    Path("empty").mkdir()
    Path("broken.jsonl").write_text("{{\n\n", encoding="utf-8")
    Path("bad.toml").write_text("limt = 3\n", encoding="utf-8")
    assert regress(*arguments) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_the_configuration_counts(sides: tuple[str, str]) -> None:
    """With a limit that is wide enough the same runs are fine."""
    Path("regress.toml").write_text('[[node]]\nnode = "node-2"\nlimit = 1.0\n', encoding="utf-8")
    assert regress("--baseline", sides[0], "--candidate", sides[1], "--config", "regress.toml") == 0


def test_a_cut_line_is_told(sides: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """A process that was killed while it wrote does not keep its job from being compared."""
    with Path(sides[1], "0.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"resourceMetrics": [')
    assert regress("--baseline", sides[0], "--candidate", sides[1]) == 1
    assert "0.jsonl, line 2: is cut short" in capsys.readouterr().err


def test_a_slowdown_behind_a_cache_fails_the_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three times as slow behind 98 % hits is exit code 1, and the row says how much was not judged."""
    for side, slow, count in (("was", {}, 5), ("is", {2: 3.0}, 3)):
        for number in range(count):
            run_job(tmp_path / side / f"{number}.jsonl", f"{side}{number}", slow=slow, hits={2: 0.98})
    assert regress("--baseline", str(tmp_path / "was"), "--candidate", str(tmp_path / "is")) == 1
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("regression  ")]
    assert "flow/node-2" in row
    assert row.endswith("not judged: 98% / 98% of the executions, which were cached or retried")


def test_json_counts_the_executions_that_are_not_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each side of a node has all of its executions, and those left out by kind, beside the calls that are judged."""
    for side, count in (("was", 5), ("is", 3)):
        for number in range(count):
            run_job(tmp_path / side / f"{number}.jsonl", f"{side}{number}", hits={2: 0.5}, retried={2: 0.2})
    regress("--baseline", str(tmp_path / "was"), "--candidate", str(tmp_path / "is"), "--format", "json")
    nodes = {each["node"]: each for each in json.loads(capsys.readouterr().out)["nodes"]}
    side = nodes["node-2"]["candidate"]
    assert (side["calls"], side["executions"], side["left_out"]) == (1200, 2700, {"cache_hit": 1200, "retried": 300})
    assert nodes["node-1"]["candidate"]["left_out"] == {}
