"""The guide's benchmarks run, and show and export what they measured."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "performance_benchmarks.py"


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> tuple[str, Path]:
    """What a quick run prints, and the folder that it leaves."""
    folder = tmp_path_factory.mktemp("benchmarks")
    done = subprocess.run(
        [sys.executable, "-W", "error", SCRIPT, "--quick", "--output", folder],
        cwd=folder, env={}, capture_output=True, text=True, timeout=55, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, folder


def metrics(folder: Path) -> Iterator[dict]:
    """Yield the metrics of the last export."""
    (file,) = folder.glob("metrics-*.jsonl")
    for resource in json.loads(file.read_text().splitlines()[-1])["resourceMetrics"]:
        for scope in resource["scopeMetrics"]:
            yield from scope["metrics"]


def attributes(point: dict) -> dict[str, object]:
    """Return a point's attributes; 64-bit whole numbers are text in OTLP JSON."""
    return {item["key"]: next(iter(item["value"].values())) for item in point["attributes"]}


@pytest.mark.parametrize(
    ("title", "rows"),
    [
        ("Light: 8 threads of 100 operations", 4),
        ("Heavy: 4 threads of 10 operations", 4),
        ("Scaling: op/s, waiting 100 µs", 3),
        ("Scaling: op/s, computing only", 3),
        ("Memory held, KiB", 3),
    ],
)
def test_every_table_of_the_guide_is_printed(quick, title, rows):
    """Each table has a row for everything that was run, each with as many cells as the header."""
    output, _ = quick
    table = output.split(f"## {title}\n\n")[1].split("\n\n")[0].splitlines()
    assert len(table) == 2 + rows
    assert len({line.count("|") for line in table}) == 1


def test_the_figures_of_the_guide_stand_beside(quick):
    """The guide's own figures are in the rows of the same operation."""
    output, _ = quick
    light = next(line for line in output.splitlines() if line.startswith("| isolated, telemetry off"))
    assert light.endswith("| 45,000 | 180 |")
    assert "| 5,800 | 5,200 | +12% |" in output


def test_what_was_left_to_export_is_told(quick):
    """Each operation with telemetry on is a span, and it is said how many of them were exported."""
    output, _ = quick
    operations = 2 * (8 * 100 + 4 * 10 + 2 * (1 + 2 + 4) * 100 + (1 + 4 + 8) * 100) + 6
    exported, made = output.split("spans exported: ")[1].splitlines()[0].split(" of ")
    assert made == f"{operations:,}"
    assert 0 < int(exported.replace(",", "")) <= operations


def test_the_results_are_exported_as_gauges(quick):
    """Every result is a point of a gauge with what was run as its attributes."""
    _, folder = quick
    found = {metric["name"]: metric["gauge"]["dataPoints"] for metric in metrics(folder) if "gauge" in metric}
    cases = [tuple(attributes(point).values()) for point in found["benchmark.throughput"]]
    scaled = {(workload, threads) for workload in ("light", "waiting") for threads in ("1", "2", "4")}
    assert set(cases) == {
        (workload, mode, threads, telemetry)
        for workload, threads in scaled | {("light", "8"), ("heavy", "4")}
        for mode in ("isolated", "shared")
        for telemetry in (False, True)
    }
    assert len(found["benchmark.memory"]) == 3 * 2 * 2
    assert all(point["asDouble"] > 0 for point in found["benchmark.throughput"])


def test_the_durations_are_exported_by_operation_and_mode(quick):
    """The gate finds a histogram for each operation and mode, with every execution that was traced."""
    _, folder = quick
    (durations,) = (metric for metric in metrics(folder) if metric["name"] == "aetherflow.node.duration")
    counts = {
        str(attributes(point)["aetherflow.node.name"]): int(point["count"])
        for point in durations["exponentialHistogram"]["dataPoints"]
    }
    light, waiting, heavy = (8 + 7 + 13) * 100 + 1, 7 * 100 + 1, 4 * 10 + 1
    assert counts == {
        "light_isolated": light, "light_shared": light,
        "waiting_isolated": waiting, "waiting_shared": waiting,
        "heavy_isolated": heavy, "heavy_shared": heavy,
    }  # fmt: skip


def test_isolated_state_takes_more_memory_on_more_threads(quick):
    """On eight threads isolated state holds more than shared state, as the guide says."""
    _, folder = quick
    (memory,) = (metric for metric in metrics(folder) if metric["name"] == "benchmark.memory")
    held = {tuple(attributes(point).values()): int(point["asInt"]) for point in memory["gauge"]["dataPoints"]}
    assert held["memory", "isolated", "8", False] > 2 * held["memory", "shared", "8", False]


def test_the_plot_is_an_svg_with_every_line(quick):
    """The plot has the lines of both panels, the guide's among them, each over all threads."""
    _, folder = quick
    drawing = ElementTree.parse(folder / "scaling.svg").getroot()
    lines = drawing.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    assert [len(line.get("points", "").split()) for line in lines] == [3] * 10


def test_rounds_below_one_are_refused():
    """A number of rounds that is not allowed ends with one line that says so, and exit code 2."""
    done = subprocess.run(
        [sys.executable, SCRIPT, "--rounds", "0"], capture_output=True, text=True, timeout=55, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("--rounds 0: allowed is 1 or more")
