"""The README keeps its promises: two commands first, and code that runs."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.warm_interpreter import run_program

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS = [(language, code.strip()) for language, code in FENCE.findall((ROOT / "README.md").read_text("utf-8"))]
[PATH] = [code for language, code in BLOCKS if language == "bash"]
LISTINGS = [code for language, code in BLOCKS if language == "python"]


def test_two_commands_come_first() -> None:
    """The first two fenced blocks are one-line shell commands, the demo and then the tests; there is no third."""
    shell = [(place, code) for place, (language, code) in enumerate(BLOCKS) if language == "sh"]
    assert [place for place, _ in shell] == [0, 1]
    assert all(len(code.splitlines()) == 1 and code.startswith("python3 -m venv ") for _, code in shell)
    (_, demo), (_, tests) = shell
    assert demo.endswith("aetherflow demo")
    assert tests.endswith("pytest -q")


@pytest.mark.parametrize("listing", LISTINGS, ids=[f"listing-{number}" for number, _ in enumerate(LISTINGS, 1)])
def test_listings_run(listing: str) -> None:
    """Every Python listing runs as it stands, warning of nothing."""
    done = run_program(listing)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_a_newcomer_sees_their_own_flow(tmp_path: Path) -> None:
    """Under ten lines lead from a clone to a report with the trace of one's own flow; here all but the installation."""
    lines = PATH.splitlines()
    assert len(lines) < 10
    assert lines.pop(0).endswith("pip install -q .")
    program = tmp_path / ".venv" / "bin" / "aetherflow"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -W error -m aetherflow "$@"\n')
    program.chmod(0o755)
    command = ["bash", "-euo", "pipefail", "-c", "\n".join(lines)]
    quiet = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "AETHER_"))}
    env = quiet | {"BROWSER": "true", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")
    page = (tmp_path / "report.html").read_text("utf-8")
    (packed,) = re.findall(r'id="data">(.*?)</script>', page)
    told = json.loads(gzip.decompress(base64.b64decode(packed)))
    assert {"run mine", "words", "longest"} <= set(told["spans"]["texts"])
    assert [flow["name"] for flow in told["flows"]] == ["mine"]


def test_pictures_are_there_and_small() -> None:
    """Every picture that the README shows is in the repository, and smaller than 300 kB."""
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text("utf-8"))
    assert pictures
    assert all(0 < (ROOT / picture).stat().st_size < 300_000 for picture in pictures)
