"""``pytest --aetherflow-export=DIR`` exports the metrics of a test run, and costs nothing where it is not asked for."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.cli.program import environment

from aetherflow.analysis.metrics import Job, metric_files, read_jobs
from aetherflow.analysis.node_samples import durations_of

pytestmark = pytest.mark.process_heavy

TESTS = """
import asyncio
import pytest
from aetherflow import configure, node

@node
def double(n):
    return 2 * n

@node
async def wait(n):
    await asyncio.sleep(0)
    return n

@pytest.fixture
def number():
    return double.run({"n": 1}) // 2

def test_plain(number):
    assert double.run({"n": number}) == 2

@pytest.mark.parametrize("n", [1, 2])
def test_twice(n):
    double.run({"n": n})

def test_sets_up_telemetry_itself(tmp_path):
    with configure(exporter="file", directory=tmp_path):
        double.run({"n": 1})
    assert list(tmp_path.glob("traces-*"))
"""

MARKED = """
@pytest.mark.aetherflow_regress(rounds=25)
def test_marked(number):
    double.run({"n": number})

@pytest.mark.aetherflow_regress(rounds=3)
async def test_marked_async():
    await wait.arun({"n": 1})
"""


def run_pytest(folder: Path, content: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_users_own.py").write_text(content, encoding="utf-8")
    options = ("-q", "-p", "no:randomly", "-p", "no:cacheprovider", "--asyncio-mode=auto")
    command = [sys.executable, "-m", "pytest", *options, *arguments, "test_users_own.py"]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=50
    )


def calls(job: Job) -> dict[str, int]:
    return {key.node: histogram.count for key, histogram in durations_of(job).items()}


def test_the_metrics_of_a_test_run_are_exported(tmp_path: Path) -> None:
    """Every test's nodes are in one job, also of one that sets up telemetry of its own, whose spans it keeps."""
    done = run_pytest(tmp_path, TESTS, "--aetherflow-export=out")
    assert done.returncode == 0, done.stdout
    assert f"metrics of this run are in {tmp_path / 'out'}" in done.stdout
    (job,) = read_jobs(metric_files([tmp_path / "out"]))
    assert job.name.startswith("pytest-")
    assert calls(job) == {"double": 4}
    again = run_pytest(tmp_path, TESTS, "--aetherflow-export=out")
    assert again.returncode == 0
    assert len(read_jobs(metric_files([tmp_path / "out"]))) == 2


def test_marked_tests_are_exported_alone_and_in_rounds(tmp_path: Path) -> None:
    """Where a test is marked, others are not exported, nor fixtures; each has the rounds it asks for."""
    done = run_pytest(tmp_path, TESTS + MARKED, "--aetherflow-export=out", "--strict-markers")
    assert done.returncode == 0, done.stdout
    (job,) = read_jobs(metric_files([tmp_path / "out"]))
    assert calls(job) == {"double": 25, "wait": 3}


def test_without_the_option_nothing_is_imported_or_written(tmp_path: Path) -> None:
    """The plugin alone does not import AetherFlow, calls a marked test once, and leaves no file."""
    content = """
import sys
import pytest
called = []

@pytest.mark.aetherflow_regress(rounds=100)
def test_it():
    called.append(1)
    assert called == [1]
    assert "aetherflow" not in sys.modules
"""
    done = run_pytest(tmp_path, content, "--strict-markers")
    assert done.returncode == 0, done.stdout
    assert {path.name for path in tmp_path.iterdir()} <= {"test_users_own.py", "__pycache__"}


@pytest.mark.parametrize("rounds", ["0", "'many'"])
def test_rounds_that_are_none_are_told(tmp_path: Path, rounds: str) -> None:
    """A mark with another number of rounds than 1 or more is an error that says so."""
    content = f"import pytest\n@pytest.mark.aetherflow_regress(rounds={rounds})\ndef test_it(): pass\n"
    done = run_pytest(tmp_path, content, "--aetherflow-export=out")
    assert done.returncode == 1
    assert "allowed: a whole number, 1 or more" in done.stdout


def test_the_plugin_is_declared() -> None:
    """Whoever installs the distribution has the plugin, and its module."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["entry-points"]["pytest11"] == {"aetherflow": "pytest_aetherflow"}
    assert "src/pytest_aetherflow.py" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
