"""The CI jobs in docs/ci/ work as they are written: their steps are run here, on a repository that has an origin."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml
from tests.analysis.metric_samples import run_job
from tests.cli.program import environment

pytestmark = pytest.mark.slow

CI = Path(__file__).resolve().parent.parent / "docs" / "ci"

BENCH = """
import os, pathlib, shutil, time
samples, factor = pathlib.Path(os.environ["SAMPLES"]), float(pathlib.Path("factor").read_text())
number = len(list(samples.glob("taken-*")))
(samples / f"taken-{number}").touch()
folder = pathlib.Path(os.environ.get("AETHER_EXPORT_DIRECTORY", ".aetherflow"))
folder.mkdir(parents=True, exist_ok=True)
line = (samples / f"{factor}-{number % 10}").read_text()
job = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "").rpartition("cicd.pipeline.run.id=")[2]
(folder / f"metrics-{number}.jsonl").write_text(line.replace("THE-JOB", job or str(number)))
"""
"""Stands for a user's benchmark: it writes metrics made beforehand, of which one node is slower by a factor."""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with a benchmark, whose origin has a branch ``main``; and the programs that the steps call."""
    samples = tmp_path / "samples"
    for factor in (1.0, 1.6):
        for number in range(10):
            path = samples / f"{factor}-{number}"
            run_job(
                path, f"{factor}{number}", calls=200, nodes=4, slow={2: factor}, **{"cicd.pipeline.run.id": "THE-JOB"}
            )
    monkeypatch.setenv("SAMPLES", str(samples))
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, line in {
        "aetherflow": f'exec {sys.executable} -m aetherflow "$@"',
        "python": f'exec {sys.executable} "$@"',
        "pip": '[ "$*" = "install aetherflow-otel" ]',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    clone = tmp_path / "clone"
    run_git("init", "-q", "-b", "main", str(tmp_path / "origin"))
    commit(tmp_path / "origin", 1.0, BENCH)
    run_git("clone", "-q", str(tmp_path / "origin"), str(clone))
    return clone


def run_git(*arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=T", "-c", "user.email=t@example.org", *arguments], check=True)


def commit(folder: Path, factor: float, bench: str | None = None) -> None:
    (folder / "factor").write_text(str(factor), encoding="utf-8")
    if bench:
        (folder / "bench.py").write_text(bench, encoding="utf-8")
    run_git("-C", str(folder), "add", ".")
    run_git("-C", str(folder), "commit", "-q", "-m", f"factor {factor}", "--allow-empty")


def sh(script: str, folder: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a script as a CI system does: it ends at the first command that fails."""
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        cwd=folder,
        env=environment(**env),
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )


def filled_in(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\$\{\{ *(\S+) *\}\}", lambda found: values[found[1]], text)


def run_github(job: Mapping[str, Any], folder: Path, run: int, env: Mapping[str, str]) -> list[int]:
    """Run the steps of a GitHub job up to the first that fails, and give the exit codes; actions are passed over."""
    values = {"github.run_id": f"{run}", "github.run_attempt": "1"}
    codes = []
    for step in job["steps"]:
        if "run" not in step:
            assert step["uses"].split("@")[0].startswith("actions/")
            continue
        own = {name: filled_in(text, values) for name, text in step.get("env", {}).items()}
        done = sh(filled_in(step["run"], values), folder, {**env, **own})
        codes.append(done.returncode)
        if done.returncode:
            break
        assert "Traceback" not in done.stderr
    return codes


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("factor", "codes"), [(1.0, [0, 0]), (1.6, [0, 1])])
def test_githubs_comparison(repository: Path, tmp_path: Path, factor: float, codes: list[int]) -> None:
    """A pull request that makes a node slower fails, with a report and a summary; one that does not passes."""
    job = yaml.safe_load((CI / "github-actions.yml").read_text("utf-8"))["jobs"]["compare"]
    run_git("-C", str(repository), "checkout", "-q", "-b", "change")
    commit(repository, factor)
    summary = tmp_path / "summary.md"
    env = {"GITHUB_BASE_REF": "main", "GITHUB_STEP_SUMMARY": str(summary), "GITHUB_ACTIONS": "true"}
    assert run_github(job, repository, 1, env) == codes
    suite = ET.parse(repository / "performance.xml").getroot().find("testsuite")
    assert suite is not None
    assert suite.get("failures") == str(codes[-1])
    assert "10 pairs" in summary.read_text("utf-8")


@pytest.mark.timeout(240)
def test_githubs_record(repository: Path) -> None:
    """Each push adds one run to the baseline, which the cache hands on, and draws the trend."""
    job = yaml.safe_load((CI / "github-actions.yml").read_text("utf-8"))["jobs"]["record"]
    env = {"GITHUB_ACTIONS": "true", "RUNNER_OS": "Linux", "RUNNER_ARCH": "X64", "GITHUB_SHA": "abc"}
    for run in range(2):
        assert run_github(job, repository, run, env) == [0, 0, 0]
    (kept,) = (repository / "baseline" / "github-linux-x64").glob("*/*.baseline.jsonl")
    assert len(kept.read_text("utf-8").splitlines()) == 2
    assert ET.parse(repository / "trend.svg").getroot().tag.endswith("svg")


@pytest.mark.timeout(240)
def test_gitlabs_pipeline(repository: Path) -> None:
    """Three jobs a pipeline are measured and compared; a slower one fails, and is kept where it was merged."""
    pipeline = yaml.safe_load((CI / "gitlab-ci.yml").read_text("utf-8"))
    assert pipeline["measure"]["parallel"] == 3
    install = "\n".join(pipeline[".performance"]["before_script"])
    gate = "\n".join([install, *pipeline["gate"]["script"]])

    def run(number: int, branch: str) -> subprocess.CompletedProcess[str]:
        subprocess.run(["rm", "-rf", "runs"], cwd=repository, check=True)  # artifacts are of one pipeline
        variables = pipeline["measure"]["variables"]
        for node in (1, 2, 3):
            own = {"CI_PIPELINE_ID": f"{number}", "CI_NODE_INDEX": f"{node}"}
            env = {
                name: text.replace("$CI_PIPELINE_ID", str(number)).replace("$CI_NODE_INDEX", str(node))
                for name, text in variables.items()
            }
            done = sh("\n".join([install, *pipeline["measure"]["script"]]), repository, {**own, **env})
            assert done.returncode == 0, done.stderr
        env = {
            "CI_COMMIT_BRANCH": branch,
            "CI_DEFAULT_BRANCH": "main",
            "GITLAB_CI": "true",
            "CI_RUNNER_TAGS": "performance",
        }
        return sh(gate, repository, env)

    first = run(1, "main")
    assert first.returncode == 0
    assert "nothing to compare with" in first.stderr
    second = run(2, "main")
    assert second.returncode == 0
    assert "3 baseline and 3 candidate jobs" in second.stdout
    commit(repository, 1.6)
    slower = run(3, "change")
    assert slower.returncode == 1, slower.stdout
    assert "6 baseline and 3 candidate jobs" in slower.stdout
    assert (repository / "performance.xml").exists()
    merged = run(4, "main")
    assert merged.returncode == 1, merged.stdout
    assert "6 baseline and 3 candidate jobs" in merged.stdout
    after = run(5, "change")
    assert "9 baseline and 3 candidate jobs" in after.stdout
