"""The measurement of a stream's memory runs, counts right and says what it promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BENCHMARK = Path(__file__).resolve().parent.parent.parent / "benchmarks" / "stream_memory.py"


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is read in a way that this system does not have")
@pytest.mark.parametrize("buffer", [[], ["--buffer", "10"]], ids=["pulled", "buffered"])
def test_the_peak_is_told_for_each_number_of_lines(buffer: list[str]) -> None:
    """A hundredth, a tenth and all of the lines go through the stages; at so few nothing can grow by 30 MB."""
    done = subprocess.run(
        [sys.executable, "-W", "error", BENCHMARK, "--lines", "20000", *buffer],
        capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    rows = re.findall(r"^ +([\d,]+) +([\d.]+) MB +[\d,]+$", done.stdout, re.MULTILINE)
    assert [lines for lines, _ in rows] == ["200", "2,000", "20,000"]
    assert all(float(growth) < 30 for _, growth in rows)
