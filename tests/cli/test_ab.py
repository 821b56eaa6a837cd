"""``aetherflow ab`` runs two versions in turn, gates on the pairs, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.analysis.metric_samples import run_job
from tests.cli import program

from aetherflow.cli.main import main
from aetherflow.cli.trials import interleaved

REAL = """
import time
from aetherflow import configure, node
from cost import COST

def spend(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass

@node
def first(n): spend(2e-4)
@node
def second(n): spend(2e-4)
@node
def third(n): spend(2e-4)
@node
def last(n): spend(COST)

with configure():
    for n in range(220):
        (first >> second >> third >> last).named("f").run({"n": n})
"""
"""A program of which one node costs what its repository says."""

LIGHT = """
import json, os, pathlib, shutil, sys

root, wanted = pathlib.Path(__file__).parent, float(sys.argv[1])
folder, log = pathlib.Path(os.environ["AETHER_EXPORT_DIRECTORY"]), root / "log"
number = len(log.read_text().splitlines()) if log.exists() else 0
shutil.copy(root / f"sample-{wanted}-{number % 10}", folder / "metrics-1.jsonl")
said = {name: value for name, value in os.environ.items() if name.startswith(("OTEL_", "AETHER_", "PYTHONPATH"))}
with log.open("a") as file:
    print(json.dumps([folder.parent.name, folder.name, os.getcwd(), said]), file=file)
"""
"""A program that starts fast and writes metrics made beforehand, of which one node is slower by its argument."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, and another for what is temporary."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    assert list(temporary.iterdir()) == []


@pytest.fixture
def light(here: Path) -> str:
    """The light program's command."""
    program_file = here.parent / "light.py"
    program_file.write_text(LIGHT, encoding="utf-8")
    for slow in (1.0, 1.6):
        for number in range(10):
            run_job(here.parent / f"sample-{slow}-{number}", number, calls=200, nodes=4, slow={2: slow})
    return f"{sys.executable} {program_file}"


def git(*arguments: str) -> str:
    identity = ("-c", "user.name=T", "-c", "user.email=t@example.org")
    done = subprocess.run(["git", *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def ab(*arguments: str) -> int:
    return main(["ab", "--warm-up=0", *arguments])


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_reference_is_compared_with_what_is_here(here: Path) -> None:
    """The node that costs half as much again since the commit is the regression; the checkout is gone afterwards."""
    git("init", "-q")
    (here / "src").mkdir()
    (here / "bench.py").write_text(REAL, encoding="utf-8")
    (here / "src" / "cost.py").write_text("COST = 2e-4\n", encoding="utf-8")
    git("add", ".")
    git("commit", "-qm", "one")
    (here / "src" / "cost.py").write_text("COST = 3e-4\n", encoding="utf-8")
    arguments = ("--baseline", "HEAD", "--candidate", "python bench.py", "--pairs", "5", "--format", "json")
    with program.start("ab", *arguments) as process:
        out, err = process.communicate(timeout=230)
    assert process.returncode == 1, err
    told = json.loads(out)
    slower = {node["node"]: node["change"] for node in told["nodes"] if node["verdict"] == "regression"}
    assert slower.keys() - {None} == {"last"}
    assert slower["last"] == pytest.approx(0.5, abs=0.15)
    assert told["paired"] is True
    assert err.count("pair ") == 5
    assert len(git("worktree", "list").splitlines()) == 1


def test_both_sides_run_in_turn(here: Path, light: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A B B A, each run with a folder of its own, and the same code raises no alarm."""
    assert ab("--baseline", f"{light} 1", "--candidate", f"{light} 1.0", "--pairs=5", "--keep=runs") == 0
    runs = [json.loads(line)[:2] for line in (here.parent / "log").read_text().splitlines()]
    a, b = "baseline", "candidate"
    assert [side for side, _ in runs] == [a, b, b, a, a, b, b, a, a, b]
    assert len({tuple(run) for run in runs}) == 10
    assert len(list((here / "runs").glob("*/*/metrics-1.jsonl"))) == 10
    assert "5 pairs" in capsys.readouterr().out


def test_a_slower_command_fails(light: str) -> None:
    """Two commands are compared as they are, and the slower one is found."""
    assert ab("--baseline", f"{light} 1", "--candidate", f"{light} 1.6", "--pairs=5") == 1
    assert ab("--baseline", f"{light} 1", "--candidate", f"{light} 1.6", "--pairs=4") == 0


def test_a_run_sees_where_its_metrics_go(here: Path, light: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would send telemetry elsewhere is not handed on, other settings are; the code of the side comes first."""
    git("init", "-q")
    (here / "src").mkdir()
    git("commit", "-qm", "one", "--allow-empty")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=shop")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(here / "lib"), "/elsewhere")))
    assert ab("--baseline", "HEAD", "--candidate", f"{light} 1", "--pairs=1") == 0
    (_, _, base_folder, base), (_, _, folder, candidate) = map(
        json.loads, (here.parent / "log").read_text().splitlines()
    )
    for said in (base, candidate):
        assert {name for name in said if "EXPORTER" in name or "DISABLED" in name} == {"OTEL_TRACES_EXPORTER"}
        assert said["OTEL_RESOURCE_ATTRIBUTES"].startswith("team=shop,cicd.pipeline.run.id=ab-")
    assert folder == str(here)
    assert base_folder != folder
    assert candidate["PYTHONPATH"].split(os.pathsep) == [f"{here}/src", f"{here}/lib", "/elsewhere"]
    # Git keeps no empty folders, so that the commit has no src/.
    assert base["PYTHONPATH"].split(os.pathsep) == [base_folder, f"{base_folder}/lib", "/elsewhere"]


@pytest.mark.parametrize(
    ("baseline", "candidate", "told"),
    [
        ("{light} 1", "{light} slow", "the candidate ended with exit code 1"),
        ("{light} 1", "{light} slow", "ValueError: could not convert string to float"),
        ("true", "{light} 1", "the baseline left no metrics"),
        ("no-such-thing", "{light} 1", "'no-such-thing' is neither a git reference here nor a command"),
        ("", "{light} 1", "'' is neither"),
        ("HEAD", "false", "the baseline ended with exit code 1"),
    ],
)
def test_what_cannot_be_compared_is_exit_code_2(
    light: str, baseline: str, candidate: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program that fails is shown with the end of its output, and one that says nothing is told what to do."""
    git("init", "-q")
    git("commit", "-qm", "one", "--allow-empty")
    sides = (text.format(light=light) for text in (baseline, candidate))
    assert ab("--baseline", next(sides), "--candidate", next(sides), "--pairs=1") == 2
    assert told in capsys.readouterr().err
    assert len(git("worktree", "list").splitlines()) == 1


def test_a_folder_that_is_there_is_not_written_to(here: Path, light: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs are not mixed with those of another time."""
    (here / "runs").mkdir()
    assert ab("--baseline", f"{light} 1", "--candidate", f"{light} 1", "--keep=runs") == 2
    assert "a folder that is not there yet" in capsys.readouterr().err


@pytest.mark.process_heavy
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_behind(here: Path, number: int) -> None:
    """Ctrl-C, and the end that a CI system puts to a job, take the program, its children and the checkout with them."""
    git("init", "-q")
    (here / "hang.sh").write_text("sleep 600 & echo $! >> ../pids; echo $$ >> ../pids; wait\n", encoding="utf-8")
    git("add", ".")
    git("commit", "-qm", "one")
    pids = here / "pids"
    with program.start("ab", "--baseline", "HEAD", "--candidate", f"cd {here}/x; sh ../hang.sh") as process:
        (here / "x").mkdir()
        deadline = time.monotonic() + 50
        while not (pids.exists() and pids.read_text().count("\n") == 2):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert len(git("worktree", "list").splitlines()) == 2
        process.send_signal(number)
        _, err = process.communicate(timeout=50)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted"
    assert len(git("worktree", "list").splitlines()) == 1
    for pid in map(int, pids.read_text().split()):
        assert not is_running(pid)


def is_running(pid: int) -> bool:
    """Tell whether a process does anything; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_the_order_meets_both_sides_alike() -> None:
    """Over an even number of pairs each side is first as often as second."""
    order = list(interleaved(4))
    assert order == [(0, 0), (0, 1), (1, 1), (1, 0), (2, 0), (2, 1), (3, 1), (3, 0)]
