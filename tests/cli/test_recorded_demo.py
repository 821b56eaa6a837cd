"""The gate on jobs that the real demo left behind, recorded by ``tests/recorded/record_demo.py``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli import program

DEMO = Path(__file__).resolve().parent.parent / "recorded" / "demo"


def regress(candidate: str) -> tuple[int, dict]:
    done = program.run(
        "regress", "--baseline", str(DEMO / "baseline"), "--candidate", str(DEMO / candidate), "--format", "json"
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def test_the_node_that_was_slowed_by_a_fifth_is_found() -> None:
    """A delay of a fifth, put into ``imports`` alone, is a regression of ``imports`` alone, of about that size."""
    code, told = regress("slower")
    assert code == 1
    failing = {node["node"]: node["change"] for node in told["nodes"] if node["fails"]}
    assert failing.keys() == {"imports"}
    assert failing["imports"] == pytest.approx(0.2, abs=0.1)


def test_the_same_code_is_quiet() -> None:
    """Other jobs of the same code raise no alarm."""
    code, told = regress("same")
    assert code == 0
    assert not [node["node"] for node in told["nodes"] if node["verdict"] == "regression"]
    assert told["suite"]["verdict"] != "regression"
