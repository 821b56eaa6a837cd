"""``aetherflow load`` measures, and ``aetherflow capacity`` says what follows."""

from __future__ import annotations

import json
import math
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from tests.analysis.metric_samples import START, attributed, exponential, message, metric, save
from tests.cli import program

from aetherflow.analysis.capacity import find_capacity, replicas_for
from aetherflow.analysis.metrics import metric_files, read_jobs
from aetherflow.analysis.usl import Law
from aetherflow.cli.load_driver import arrivals, drive
from aetherflow.cli.main import main
from aetherflow.flow.decorating import node
from aetherflow.telemetry import conventions as names

FLOW = """
import time
from aetherflow import node

@node
def work(n):
    time.sleep(0.002)
    if n == "bad":
        raise KeyError(n)

@node
def rest():
    return 1

flow = (work >> rest).named("shop")
"""


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def loads(tmp_path: Path) -> Path:
    """Loads as they would be of a flow that follows a law, twice each, and one at a rate."""
    law = Law(100.0, 0.05, 0.004)
    for threads in (1, 2, 4, 8, 16):
        for repeat in (1, 2):
            load(tmp_path / "loads" / f"{threads}-{repeat}.jsonl", threads, law.throughput(threads))
    load(tmp_path / "loads" / "open.jsonl", 4, 50.0, rate="60", unserved=30)
    return tmp_path / "loads"


def load(file: Path, threads: int, throughput: float, rate: str | None = None, unserved: int = 0) -> None:
    seconds = 100
    times = {"startTimeUnixNano": str(START), "timeUnixNano": str(START + 1)}
    runs = round(seconds * throughput)
    points = [attributed(exponential([0.01] * runs, **times), **{names.FLOW_NAME: "shop"})]
    for error, count in ((names.UNSERVED, unserved), ("KeyError", 3)):
        if count:
            told = {names.FLOW_NAME: "shop", names.ERROR_TYPE: error}
            points.append(attributed(exponential([9.0] * count, **times), **told))
    spent = attributed({"asDouble": float(seconds), **times}, **{names.FLOW_NAME: "shop"})
    said = {names.LOAD_CONCURRENCY: str(threads)} | ({names.LOAD_RATE: rate} if rate else {})
    save(
        file,
        message(
            metric(names.LOAD_LATENCY.name, "exponentialHistogram", *points),
            metric(names.LOAD_TIME.name, "sum", spent, isMonotonic=True),
            **said,
        ),
    )


def test_the_law_is_told_with_what_follows(loads: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Levels, parameters with intervals, the best concurrency, the knee and the replicas."""
    assert main(["capacity", str(loads), "--rate", "1000", "--headroom", "0.5", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    law = Law(100.0, 0.05, 0.004)
    assert [(level["concurrency"], level["rate"]) for level in told["levels"]][-1] == (4, 60.0)
    assert told["levels"][-1]["unserved"] == 30
    assert told["levels"][0]["failures"] == 6
    assert told["scaling"]["contention"]["value"] == pytest.approx(0.05, rel=0.05)
    assert told["scaling"]["coherency"]["value"] == pytest.approx(0.004, rel=0.05)
    assert told["scaling"]["peak"]["value"] == pytest.approx(law.peak, rel=0.05)
    assert told["scaling"]["doubts"] == []
    wanted = math.ceil(1000 / (law.throughput(law.knee) * 0.5))
    assert told["replicas"]["value"] == wanted


def test_it_is_a_page_and_a_plot(loads: Path) -> None:
    """As a user runs it: a table, the figures with intervals, and an SVG with dots and a curve."""
    done = program.run("capacity", str(loads), "--rate", "1000", "--svg", "plot.svg", cwd=loads.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert "contention (sigma)" in done.stdout
    assert "replicas for 1000/s" in done.stdout
    assert "4, 60/s due" in done.stdout
    tags = [element.tag.rpartition("}")[2] for element in ET.parse(loads.parent / "plot.svg").getroot().iter()]
    assert tags.count("circle") == 5
    assert tags.count("polyline") == 3


def test_few_levels_are_told(loads: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two levels have no law, and no replicas follow."""
    files = [str(loads / f"{threads}-1.jsonl") for threads in (1, 2)]
    assert main(["capacity", *files, "--rate", "10"]) == 0
    assert "no law of scaling: 2 levels of concurrency" in capsys.readouterr().out
    assert replicas_for(find_capacity(read_jobs(files)), 10, 0.1) is None


def test_a_series_without_a_run_says_nothing(loads: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An exporter may write a histogram that holds nothing: the others count, and where there are none it is said."""
    none = {"startTimeUnixNano": str(START), "timeUnixNano": str(START + 1), "count": "0", "scale": 5}
    empty = metric(names.LOAD_LATENCY.name, "exponentialHistogram", attributed(none, **{names.FLOW_NAME: "shop"}))
    save(loads / "none.jsonl", message(empty, **{names.LOAD_CONCURRENCY: "3"}))
    assert main(["capacity", str(loads), "--format", "json"]) == 0
    assert 3 not in [level["concurrency"] for level in json.loads(capsys.readouterr().out)["levels"]]
    assert main(["capacity", str(loads / "none.jsonl")]) == 2
    assert "none.jsonl in which a run was due" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["capacity", "empty"], "there are no loads in empty"),
        (["capacity", "nowhere"], "nowhere"),
        (["load", "users:flow"], "there is no module 'users'"),
    ],
)
def test_what_is_not_there_is_exit_code_2(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing to read or to call is told in one line."""
    Path("empty").mkdir()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["load", "m:f", "--threads", "0,1"],
        ["load", "m:f", "--threads", ""],
        ["load", "m:f", "--duration", "0"],
        ["load", "m:f", "--rate", "inf"],
        ["capacity", "d", "--headroom", "1"],
        ["capacity", "d", "--rate", "nan"],
    ],
)
def test_numbers_are_checked(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What makes no sense as a number is refused by name."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "is not a" in capsys.readouterr().err


@pytest.mark.timeout(120)
def test_a_real_flow_is_loaded(module: Callable[[str], str], capsys: pytest.CaptureFixture[str]) -> None:
    """Each load is a job of its own, with its latencies, its time and the nodes of that level."""
    name = module(FLOW)
    options = ["--threads", "1,3", "--duration", "0.2", "--repeats", "2", "--output", "out"]
    assert main(["load", f"{name}:flow", "--input", "n=1", *options]) == 0
    assert capsys.readouterr().err.count("runs/s") == 4
    jobs = read_jobs(metric_files(["out"]))
    assert [dict(job.resource)[names.LOAD_CONCURRENCY] for job in jobs] == ["1", "3", "3", "1"]
    for job in jobs:
        counts = {series.metric: found.count for series, found in job.histograms.items()}
        assert counts[names.LOAD_LATENCY.name] == counts[names.RUN_DURATION.name] > 0
        assert sum(job.sums.values()) >= 0.2
    levels = find_capacity(jobs).levels
    assert [(level.concurrency, len(level.throughputs)) for level in levels] == [(1, 2), (3, 2)]
    assert levels[1].throughput > levels[0].throughput


@pytest.mark.timeout(120)
def test_runs_that_fail_are_told(module: Callable[[str], str], capsys: pytest.CaptureFixture[str]) -> None:
    """A flow that cannot run at all shows its exception, and no load is made of it."""
    name = module(FLOW)
    assert main(["load", f"{name}:flow", "--input", "n=bad", "--duration", "0.1", "--output", "out"]) == 1
    assert "KeyError: 'bad'" in capsys.readouterr().err
    assert not Path("out").exists()


def test_an_expected_exception_is_no_failed_run() -> None:
    """A flow whose node declares the exception has served the call."""

    @node(expected=LookupError)
    def find(n: int) -> int:
        raise KeyError(n)

    result = drive(lambda: find.run({"n": 1}), 1, 0.02)
    assert result.calls
    assert {call.error for call in result.calls} == {None}


def test_a_closed_load_calls_again_at_once() -> None:
    """Every thread calls until the time is over, and what fails is kept with its exception."""
    seen: set[str] = set()
    count = iter(range(10_000))

    def call() -> None:
        seen.add(threading.current_thread().name)
        time.sleep(0.001)
        if next(count) % 5 == 0:
            raise ValueError

    result = drive(call, 3, 0.5)
    assert len(seen) == 3
    assert result.seconds >= 0.5
    assert result.unserved == ()
    assert any(isinstance(each.error, ValueError) for each in result.calls)
    assert len(result.calls) > 10


def test_latency_counts_from_when_a_call_was_due() -> None:
    """Behind a call that hangs for a moment, those that were due meanwhile have waited for it."""
    hung = iter([0.3])

    def call() -> None:
        time.sleep(next(hung, 0.0))

    result = drive(call, 1, 2.0, iter([0.0, 0.05, 0.1, 0.15]))
    assert len(result.calls) == 4
    assert min(each.latency for each in result.calls) >= 0.3 - 0.15
    assert result.unserved == ()


def test_a_schedule_lasts_as_long_as_it_was_meant_to() -> None:
    """Two calls that were due early in a second are two a second, whenever the last of them has ended."""
    assert drive(lambda: None, 2, 1.0, iter([0.0, 0.01])).seconds == 1.0
    assert drive(lambda: None, 1, 1.0, iter([])).seconds == 1.0


def test_what_is_due_and_never_starts_is_told() -> None:
    """A thread that cannot keep up leaves calls behind, each with the time that it has waited."""
    result = drive(lambda: time.sleep(0.06), 1, 0.05, iter([0.0, 0.01, 0.02, 0.03, 0.04]))
    assert len(result.calls) + len(result.unserved) == 5
    assert result.unserved
    assert min(result.unserved) >= 0.05


def test_arrivals_are_random_at_the_rate() -> None:
    """They ascend, end with the duration, and are as many as the rate says."""
    due = list(arrivals(200.0, 50.0, random.Random(1)))
    assert due == sorted(due)
    assert due[-1] < 50.0
    assert len(due) == pytest.approx(10_000, rel=0.05)
