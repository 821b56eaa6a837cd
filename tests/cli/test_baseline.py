"""``aetherflow baseline`` keeps runs, and ``aetherflow regress`` takes those of its own machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.analysis.metric_samples import run_job
from tests.cli import program

from aetherflow.cli.main import main


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Five runs."""
    for number in range(5):
        run_job(tmp_path / "runs" / f"{number}.jsonl", f"was{number}", **{"cicd.pipeline.run.id": f"{number}"})
    return tmp_path / "runs"


def test_runs_are_kept_listed_and_forgotten(runs: Path) -> None:
    """As a user types it: add, add again, list, prune."""
    added = program.run("baseline", "add", "kept", str(runs), "--runner", "box")
    assert (added.returncode, added.stderr) == (0, "")
    assert added.stdout.startswith("added 5 runs for box, ")
    assert "added 0 runs" in program.run("baseline", "add", "kept", str(runs), "--runner", "box").stdout
    listed = program.run("baseline", "list", "kept").stdout.splitlines()
    assert len(listed) == 2
    assert listed[1].split()[0] == "box"
    assert " 5 " in listed[1]
    assert program.run("baseline", "prune", "kept", "--keep", "2").stdout.startswith("forgot 3 runs of box")


def test_regress_takes_the_runs_of_its_machine(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Kept runs of this machine are the baseline; those of another are none, and it is said which there are."""
    assert main(["baseline", "add", "kept", str(runs)]) == 0
    assert main(["baseline", "add", "kept", str(runs), "--runner", "other"]) == 0
    for number in range(3):
        run_job(Path(f"is/{number}.jsonl"), f"is{number}", slow={2: 1.5})
    capsys.readouterr()
    assert main(["regress", "--baseline", "kept", "--candidate", "is"]) == 1
    assert "5 baseline and 3 candidate jobs" in capsys.readouterr().out
    assert main(["regress", "--baseline", "kept", "--candidate", "is", "--runner", "third"]) == 0
    told = capsys.readouterr().err
    assert "has no baseline for third" in told
    assert "other" in told
    assert main(["regress", "--baseline", "kept", "--candidate", "is", "--runner", "third", "--require-baseline"]) == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["add", "kept", "nowhere"], "nowhere"),
        (["add", "kept", "empty"], "no metrics in empty"),
        (["list", "empty"], "no baselines in empty/"),
        (["prune", "nowhere"], "no baselines in nowhere/"),
    ],
)
def test_what_is_not_there_is_exit_code_2(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without runs or baselines is told in one line."""
    Path("empty").mkdir()
    assert main(["baseline", *arguments]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_baseline_that_cannot_be_written_is_exit_code_2(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the new file cannot be made the old one stays, and what is in the way is told in one line."""
    assert main(["baseline", "add", "kept", str(runs)]) == 0
    (file,) = Path("kept").glob("*/*/*.jsonl")
    before = file.read_bytes()
    file.with_name(f"{file.name}.new").mkdir()
    capsys.readouterr()
    assert main(["baseline", "prune", "kept", "--keep", "1"]) == 2
    error = capsys.readouterr().err
    assert ".new: Is a directory" in error
    assert error.count("\n") == 1
    assert file.read_bytes() == before


def test_an_action_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    """Without one, and with an argument that is none, the user is told in one line."""
    for arguments in ([], ["list", "kept", "--keep", "3"], ["prune", "kept", "--keep", "0"]):
        with pytest.raises(SystemExit) as caught:
            main(["baseline", *arguments])
        assert caught.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1
