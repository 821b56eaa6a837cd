"""A Prometheus server stands where files may, for every command that reads metrics."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.analysis.metric_samples import run_job
from tests.support import prometheus as support
from tests.support.prometheus import Prometheus

from aetherflow.analysis.metrics import Job, read_jobs
from aetherflow.cli.main import main
from aetherflow.telemetry import conventions as names

NOW = int(time.time())

pytestmark = [pytest.mark.backend, pytest.mark.skipif(support.PROGRAM is None, reason="Prometheus is not installed")]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five jobs of the branch main and three of another, in which one node is slower."""
    folder = tmp_path_factory.mktemp("jobs")
    for number in range(8):
        slow = {2: 1.5} if number >= 5 else {}
        run_job(folder / f"{number}.jsonl", number, nodes=4, slow=slow, **{names.PIPELINE_RUN_ID: f"run-{number}"})
    return folder


@pytest.fixture(scope="module")
def server(jobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A server that holds them."""
    with support.prometheus(tmp_path_factory.mktemp("prometheus")) as running:
        for number, job in enumerate(read_jobs(jobs.glob("*.jsonl"))):
            _write(running, job, f"{number}", "main" if job.name < "run-5" else "change")
        yield running


def _write(server: Prometheus, job: Job, instance: str, branch: str) -> None:
    process = {"job": "shop", "instance": instance}
    info = {"__name__": "target_info", "cicd_pipeline_run_id": job.name, "vcs_ref_head_name": branch}
    server.write({**info, **process}, (NOW - 60, 1.0))
    for series, histogram in job.histograms.items():
        labels = {key.replace(".", "_"): str(value) for key, value in series.attributes}
        server.write({"__name__": "aetherflow_node_duration_seconds", **labels, **process}, (NOW - 60, histogram))


def test_both_sides_are_on_a_server(server: Prometheus, jobs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Jobs chosen by a resource attribute get the verdicts that their files get."""
    of_main, of_change = (f'{server.url}?target=vcs_ref_head_name="{branch}"' for branch in ("main", "change"))
    assert main(["regress", "--baseline", of_main, "--candidate", of_change, "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    before, after = ([str(jobs / f"{number}.jsonl") for number in side] for side in (range(5), range(5, 8)))
    assert main(["regress", "--baseline", *before, "--candidate", *after, "--format", "json"]) == 1
    expected = json.loads(capsys.readouterr().out)
    for ours, theirs in zip(found["nodes"], expected["nodes"], strict=True):
        assert ours["verdict"] == theirs["verdict"]
        assert ours["change"] == pytest.approx(theirs["change"], abs=1e-3)
        assert ours["baseline"]["jobs"] == theirs["baseline"]["jobs"] == 5


def test_a_server_and_files_are_compared(server: Prometheus, jobs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One side may be on a server and the other in files; runs are named one by one."""
    runs = "&".join(f"run=run-{number}" for number in range(5))
    side = ["--candidate", *(str(jobs / f"{number}.jsonl") for number in (5, 6, 7))]
    assert main(["regress", "--baseline", f"{server.url}?{runs}", *side]) == 1
    assert "5 baseline and 3 candidate jobs" in capsys.readouterr().out


def test_other_commands_take_a_server(
    server: Prometheus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A baseline can be filled from a server, and trend and advise read from one."""
    monkeypatch.chdir(tmp_path)
    assert main(["baseline", "add", "kept", server.url]) == 0
    assert "added 8 runs" in capsys.readouterr().out
    assert main(["trend", server.url]) == 0
    assert "8 runs" in capsys.readouterr().out
    assert main(["advise", server.url]) == 0
    assert main(["capacity", server.url]) == 2
    assert f"there are no loads in {server.url} from 2" in capsys.readouterr().err


def test_nothing_found_is_told(server: Prometheus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A candidate that the server has nothing of is exit code 2; of a baseline it is told, as of files."""
    nothing, something = f"{server.url}?run=none", f"{server.url}?run=run-1"
    assert main(["regress", "--baseline", something, "--candidate", nothing]) == 2
    err = capsys.readouterr().err
    assert f"there are no metrics in {server.url} from 2" in err
    assert err.count("\n") == 1
    assert main(["regress", "--baseline", nothing, "--candidate", something]) == 0
    assert "nothing to compare with" in capsys.readouterr().err
    assert main(["regress", "--baseline", nothing, "--candidate", something, "--require-baseline"]) == 2


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://127.0.0.1:1", "aetherflow regress: http://127.0.0.1:1: cannot be reached (Connection refused)\n"),
        ("HTTP://127.0.0.1:1", "aetherflow regress: http://127.0.0.1:1: cannot be reached (Connection refused)\n"),
        ("http://h?runs=1", "argument --candidate: http://h: the parameter 'runs' is not known; allowed: run, label"),
    ],
)
def test_a_server_that_cannot_be_asked_is_exit_code_2(
    address: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether nobody is there or the address is wrong: one error, and no verdict."""
    try:
        code = main(["regress", "--candidate", address])
    except SystemExit as exit_:
        code = exit_.code
    assert code == 2
    assert told in capsys.readouterr().err
