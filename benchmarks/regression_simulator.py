"""How often the regression gate raises false alarms, and how much it finds, beside other tools on the same runs.

Run it with ``nox -s regression_simulator``, which brings the other tools, or with
``python benchmarks/regression_simulator.py [--comparisons 200] [--seed N] [--alpha 0.01] [--markdown]``, which leaves
out what is not installed. Every figure in ``docs/regression.md`` that is not of a real machine comes from here.

A job draws the calls of its nodes: each node has a level, a spread and a share of slow calls; each job has a machine
that makes all nodes faster or slower by a normal factor, and each node in it moves by 1 to 5 % of its own. What a
comparison sees are the histograms that the file exporter would have written. Pairs share a machine, up to 3 %.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from rich.console import Console
from rich.table import Table

from aetherflow.analysis.histograms import Counts, ExponentialBuckets, Histogram
from aetherflow.analysis.metric_points import Series
from aetherflow.analysis.metrics import Job
from aetherflow.analysis.regression import compare_jobs, compare_pairs
from aetherflow.analysis.regression_rules import Rules
from aetherflow.telemetry import conventions as names

SCALE = 5
LIMIT = 0.10
SLOW_NODE = 3
MEDIANS = Sequence[Sequence[float]]
"""Seconds, by node and job."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of comparison, drawn many times."""

    name: str
    baseline: int
    candidate: int
    factor: float = 1.0
    """By how much one node is slower."""
    paired: bool = False
    calls: tuple[int, int] = (200, 1_000)
    machine: float = 0.10
    """Standard deviation of what a machine does to all nodes, of the logarithm."""
    indifferent: float = 0.0
    """Share of the nodes that the machine does nothing to, such as those that wait."""
    nodes: int = 20


SCENARIOS = (
    Scenario("A/A, 5+3 jobs", 5, 3),
    Scenario("A/A, 20+3 jobs", 20, 3),
    Scenario("A/A, 5 pairs", 5, 5, paired=True),
    Scenario("A/A, 10 pairs", 10, 10, paired=True),
    Scenario("A/A, 5+3 jobs, a third of the nodes only wait", 5, 3, indifferent=1 / 3),
    Scenario("50 % slower, 5+3 jobs", 5, 3, factor=1.5),
    Scenario("20 % slower, 10 pairs", 10, 10, factor=1.2, paired=True),
    Scenario("20 % slower, 10 pairs, 500 calls or more", 10, 10, factor=1.2, paired=True, calls=(500, 1_000)),
    Scenario("20 % slower, 20+10 jobs", 20, 10, factor=1.2),
)


@dataclass(frozen=True, slots=True)
class Runs:
    """The jobs of one comparison, as the tools take them: medians by node and job, and histograms."""

    baseline: list[Job]
    candidate: list[Job]
    before: MEDIANS
    after: MEDIANS
    paired: bool


@dataclass(slots=True)
class Tally:
    """How a tool did in a scenario."""

    found: int = 0
    alarms: int = 0
    alarmed: int = 0
    """Comparisons with any alarm that is false."""
    comparisons: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    """What a node is like."""

    level: float
    spread: float
    wander: float
    slow_share: float
    calls: int
    follows_machine: bool


def draw_nodes(scenario: Scenario, rng: random.Random) -> list[Node]:
    """Draw what the nodes of a comparison are like."""
    low, high = map(math.log, scenario.calls)
    return [
        Node(
            level=math.log(rng.uniform(1e-4, 1e-1)),
            spread=rng.uniform(0.05, 0.6),
            wander=rng.uniform(0.01, 0.05),
            slow_share=rng.uniform(0, 0.05),
            calls=round(math.exp(rng.uniform(low, high))),
            follows_machine=rng.random() >= scenario.indifferent,
        )
        for _ in range(scenario.nodes)
    ]


def draw_job(
    name: str, nodes: Sequence[Node], machine: float, slow: float, rng: random.Random
) -> tuple[Job, list[float]]:
    """Draw a job, and the medians of its nodes in seconds."""
    histograms, medians = {}, []
    for number, node in enumerate(nodes):
        level = node.level + machine * node.follows_machine + rng.gauss(0, node.wander)
        level += math.log(slow) if number == SLOW_NODE else 0.0
        logs = [rng.gauss(level, node.spread) for _ in range(node.calls)]
        for index in range(round(node.slow_share * node.calls)):
            logs[index] += rng.expovariate(1.0)
        histogram = _histogram(logs)
        attributes = ((names.FLOW_NAME, "flow"), (names.NODE_NAME, f"node-{number:02}"))
        histograms[Series(names.NODE_DURATION.name, "s", attributes)] = histogram
        medians.append(math.exp(statistics.median(logs)))
    return Job(name, (), (), 0, 0, histograms, {}, {}), medians


def _histogram(logs: Sequence[float]) -> Histogram:
    """Make the histogram that the SDK would have made of the values with these logarithms."""
    resolution = 2**SCALE / math.log(2)
    counts = Counter(math.ceil(value * resolution) - 1 for value in logs)
    first, last = min(counts), max(counts)
    buckets = Counts(first, tuple(counts[index] for index in range(first, last + 1)))
    total = math.fsum(map(math.exp, logs))
    return Histogram(
        len(logs), total, ExponentialBuckets(SCALE, positive=buckets), math.exp(min(logs)), math.exp(max(logs))
    )


def draw(scenario: Scenario, rng: random.Random) -> Runs:
    """Draw the jobs of one comparison."""
    nodes = draw_nodes(scenario, rng)
    machines = [rng.gauss(0, scenario.machine) for _ in range(scenario.baseline)]
    others = [rng.gauss(0, scenario.machine) for _ in range(scenario.candidate)]
    if scenario.paired:
        others = [machine + rng.gauss(0, 0.03) for machine in machines]
    before = [draw_job(f"a{number}", nodes, machine, 1.0, rng) for number, machine in enumerate(machines)]
    after = [draw_job(f"b{number}", nodes, machine, scenario.factor, rng) for number, machine in enumerate(others)]
    return Runs(
        [job for job, _ in before],
        [job for job, _ in after],
        list(zip(*(medians for _, medians in before), strict=True)),
        list(zip(*(medians for _, medians in after), strict=True)),
        scenario.paired,
    )


SUITE = -1
Judge = Callable[[Runs], set[int]]
"""Gives the numbers of the nodes that are called slower; `SUITE` stands for all of them together."""


def make_aetherflow(alpha: float) -> Judge:
    """The regression gate, as it fails a job."""
    rules = Rules(alpha=alpha)

    def judge(runs: Runs) -> set[int]:
        if runs.paired:
            comparison = compare_pairs(list(zip(runs.baseline, runs.candidate, strict=True)), rules)
        else:
            comparison = compare_jobs(runs.baseline, runs.candidate, rules)
        alarms = {int(result.key.node.removeprefix("node-")) for result in comparison.nodes if result.fails}
        return alarms | ({SUITE} if comparison.suite.fails else set())

    return judge


def judge_ratio(runs: Runs) -> set[int]:
    """The mean of the medians is more than a tenth higher."""
    pairs = zip(runs.before, runs.after, strict=True)
    return {
        number
        for number, (before, after) in enumerate(pairs)
        if statistics.fmean(after) > (1 + LIMIT) * statistics.fmean(before)
    }


def make_pytest_benchmark() -> Judge:
    """The check behind ``--benchmark-compare --benchmark-compare-fail=median:10%``: the run before against this one."""
    check: Any = import_module("pytest_benchmark.utils").parse_compare_fail(f"median:{LIMIT:.0%}")

    def judge(runs: Runs) -> set[int]:
        pairs = zip(runs.before, runs.after, strict=True)
        return {
            number
            for number, (before, after) in enumerate(pairs)
            if check.fails({"median": after[-1]}, {"median": before[-1]})
        }

    return judge


def make_otava() -> Judge:
    """Apache Otava's change points where the candidate begins; its own defaults, and a least magnitude of a tenth."""
    find: Any = import_module("otava.analysis").compute_change_points

    def judge(runs: Runs) -> set[int]:
        alarms = set()
        for number, (before, after) in enumerate(zip(runs.before, runs.after, strict=True)):
            points, _ = find([*before, *after], window_len=50, max_pvalue=0.001, min_magnitude=LIMIT)
            near = (point for point in points if abs(point.index - len(before)) <= 1)
            if any(point.stats.mean_2 > point.stats.mean_1 for point in near):
                alarms.add(number)
        return alarms

    return judge


def make_tools(alpha: float) -> dict[str, Judge]:
    """Give the tools that are installed, by name."""
    tools = {"aetherflow": make_aetherflow(alpha)}
    for name, make in (("apache-otava", make_otava), ("pytest-benchmark", make_pytest_benchmark)):
        try:
            tools[name] = make()
        except ImportError:
            print(f"{name} is not installed: left out", file=sys.stderr)
    return tools | {"plain ratio": judge_ratio}


def simulate(scenario: Scenario, tools: dict[str, Judge], comparisons: int, seed: int) -> dict[str, Tally]:
    """Draw comparisons of a scenario and let every tool judge each."""
    tallies = {name: Tally() for name in tools}
    for number in range(comparisons):
        runs = draw(scenario, random.Random(f"{seed}/{scenario.name}/{number}"))
        for name, judge in tools.items():
            alarms = judge(runs)
            slowed = {SLOW_NODE} if scenario.factor > 1 else set()
            tally = tallies[name]
            tally.comparisons += 1
            tally.found += bool(alarms & slowed)
            tally.alarms += len(alarms - slowed)
            tally.alarmed += bool(alarms - slowed)
    return tallies


def cells(scenario: Scenario, tally: Tally) -> str:
    """Say how a tool did."""
    false = f"{tally.alarms} in {tally.alarmed}"
    return false if scenario.factor == 1 else f"{tally.found / tally.comparisons:.1%}, {false}"


def rows(tools: dict[str, Judge], comparisons: int, seed: int) -> Iterator[list[str]]:
    """Simulate all scenarios, one after the other."""
    for scenario in SCENARIOS:
        tallies = simulate(scenario, tools, comparisons, seed)
        yield [scenario.name, *(cells(scenario, tally) for tally in tallies.values())]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=200, help="of each kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="a fresh one by default")
    parser.add_argument("--alpha", type=float, default=Rules().alpha, help="of aetherflow (default: %(default)s)")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    seed = time.time_ns() % 1_000_000 if arguments.seed is None else arguments.seed
    tools = make_tools(arguments.alpha)
    title = f"{arguments.comparisons} comparisons each, seed {seed}: found, false alarms in so many comparisons"
    found = rows(tools, arguments.comparisons, seed)
    if arguments.markdown:
        print(title, "", "| | " + " | ".join(tools) + " |", "| --- |" + " ---: |" * len(tools), sep="\n")
        for row in found:
            print("| " + " | ".join(row) + " |", flush=True)
        return
    table = Table("", *tools, title=title)
    for row in found:
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
