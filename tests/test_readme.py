"""The README keeps its promises: two commands first, and code that runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS = [(language, code.strip()) for language, code in FENCE.findall((ROOT / "README.md").read_text("utf-8"))]
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
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", listing], capture_output=True, text=True, check=False, timeout=50
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
