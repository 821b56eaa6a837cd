"""How often the regression gate raises false alarms, and how much it finds, beside other tools on the same runs.

Run it with ``nox -s regression_simulator``, which brings the other tools, or with ``python
benchmarks/regression_simulator.py [--only tools|kinds] [--comparisons 200] [--seed N] [--alpha 0.01] [--markdown]``,
which leaves out what is not installed. Every figure in ``docs/regression.md`` that is not of a real machine comes from
here.

A job draws the calls of its nodes: each node has a level, a spread and a share of slow calls; each job has a machine
that makes all nodes faster or slower by a normal factor, and each node in it moves by 1 to 5 % of its own. What a
comparison sees are the histograms that the file exporter would have written. Pairs share a machine, up to 3 %.

The second table shows nodes behind caches and with retries. The computed executions are those of the first table, and
cache hits and retried executions are added. The columns are the gate as it is, the gate over all executions together,
as before executions had a kind, and the findings of the rates, with limits of 5 points for hits and 1 point for
retries. The odds of a hit and of a retry vary by 10 % from job to job.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from rich.console import Console
from rich.table import Table

from aetherflow.analysis.histograms import Counts, ExponentialBuckets, Histogram, merge_histograms
from aetherflow.analysis.metric_points import Series
from aetherflow.analysis.metrics import Job
from aetherflow.analysis.regression import Comparison, compare_jobs, compare_pairs
from aetherflow.analysis.regression_rules import RateLimits, Rules
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
    hits: tuple[float, float] = (0.0, 0.0)
    """Share of cache hits: of all nodes, and afterwards of the node that is slower."""
    retried: tuple[float, float] = (0.0, 0.0)
    """Share of retried executions, in the same way."""


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
RATIOS = (0.0, 0.5, 0.9, 0.98)
KIND_SCENARIOS = (
    *(Scenario(f"50 % slower, {100 * ratio:g} % hits", 5, 3, factor=1.5, hits=(ratio, ratio)) for ratio in RATIOS),
    *(
        Scenario(f"20 % slower, 10 pairs, {100 * ratio:g} % hits", 10, 10, factor=1.2, paired=True, hits=(ratio, ratio))
        for ratio in RATIOS
    ),
    Scenario("50 % slower, 98 % hits, 40 to 100 computed calls", 5, 3, factor=1.5, hits=(0.98, 0.98), calls=(40, 100)),
    *(Scenario(f"A/A, {100 * ratio:g} % hits", 5, 3, hits=(ratio, ratio)) for ratio in RATIOS[1:]),
    *(
        Scenario(f"50 % slower, {100 * share:g} % retried", 5, 3, factor=1.5, retried=(share, share))
        for share in (0.01, 0.2)
    ),
    Scenario("A/A, 20 % retried", 5, 3, retried=(0.2, 0.2)),
    *(
        Scenario(f"hits rise from {100 * before:g} % to {100 * after:g} %", 5, 3, hits=(before, after))
        for before, after in ((0.0, 0.5), (0.0, 0.98), (0.5, 0.9), (0.9, 0.98))
    ),
    *(
        Scenario(f"hits fall from {100 * before:g} % to {100 * after:g} %", 5, 3, hits=(before, after))
        for before, after in ((0.98, 0.9), (0.9, 0.8), (0.9, 0.5))
    ),
    Scenario("retries rise from 1 % to 5 %", 5, 3, retried=(0.01, 0.05)),
    Scenario("retries rise from 1 % to 20 %", 5, 3, retried=(0.01, 0.2)),
)
HIT, WAIT = 20e-6, 0.6
"""Seconds that a cache hit takes, and that a retried execution waits."""
RATE_WANDER = 0.1


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
    name: str, nodes: Sequence[Node], machine: float, slow: float, rng: random.Random, others: Others
) -> tuple[Job, list[float]]:
    """Draw a job, and the medians of its nodes in seconds."""
    histograms: dict[Series, Histogram] = {}
    sums: dict[Series, float] = {}
    medians = []
    for number, node in enumerate(nodes):
        level = node.level + machine * node.follows_machine + rng.gauss(0, node.wander)
        level += math.log(slow) if number == SLOW_NODE else 0.0
        logs = [rng.gauss(level, node.spread) for _ in range(node.calls)]
        for index in range(round(node.slow_share * node.calls)):
            logs[index] += rng.expovariate(1.0)
        histogram = _histogram(logs)
        histograms[_durations(number)] = histogram
        _add_others(number, node, others, histograms, sums, rng)
        medians.append(math.exp(statistics.median(logs)))
    return Job(name, (), (), 0, 0, histograms, sums, {}), medians


Others = Callable[[int], tuple[float, float]]
"""A function that returns the shares of cache hits and of retried executions of a node, by its number."""


def _durations(number: int, kind: str = "") -> Series:
    attributes = {names.FLOW_NAME: "flow", names.NODE_NAME: f"node-{number:02}"}
    if kind:
        attributes[names.EXECUTION_KIND] = kind
    return Series(names.NODE_DURATION.name, "s", tuple(sorted(attributes.items())))


def _add_others(
    number: int,
    node: Node,
    others: Others,
    histograms: dict[Series, Histogram],
    sums: dict[Series, float],
    rng: random.Random,
) -> None:
    """Add cache hits and retried executions to the computed ones of a node, with the counters of both."""
    hits, retried = (round(node.calls * _odds(share, rng)) for share in others(number))
    if hits:
        histograms[_durations(number, "cache_hit")] = _equal(HIT, hits)
        for result, count in (("hit", hits), ("miss", node.calls)):
            attributes = ((names.CACHE_NAME, f"node-{number:02}"), (names.CACHE_RESULT, result))
            sums[Series(names.CACHE_REQUESTS.name, "{request}", attributes)] = float(count)
    if retried:
        histograms[_durations(number, "retried")] = _equal(WAIT + math.exp(node.level), retried)
        attributes = ((names.FLOW_NAME, "flow"), (names.NODE_NAME, f"node-{number:02}"))
        sums[Series(names.NODE_RETRIES.name, "{retry}", attributes)] = float(retried)


def _odds(share: float, rng: random.Random) -> float:
    return share / (1 - share) * math.exp(rng.gauss(0, RATE_WANDER)) if share else 0.0


def _equal(seconds: float, count: int) -> Histogram:
    """Make the histogram of equal values."""
    index = math.ceil(math.log2(seconds) * 2**SCALE) - 1
    return Histogram(count, seconds * count, ExponentialBuckets(SCALE, positive=Counts(index, (count,))))


def without_kinds(job: Job) -> Job:
    """Return a job as it was recorded before executions had a kind: all durations of a node together."""
    together: defaultdict[Series, list[Histogram]] = defaultdict(list)
    for series, histogram in job.histograms.items():
        plain = tuple(pair for pair in series.attributes if pair[0] != names.EXECUTION_KIND)
        together[Series(series.metric, series.unit, plain)].append(histogram)
    merged = {series: merge_histograms(parts) for series, parts in together.items()}
    return replace(job, histograms={series: histogram for series, histogram in merged.items() if histogram})


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

    def usual(number: int) -> tuple[float, float]:
        return scenario.hits[0], scenario.retried[0]

    def changed(number: int) -> tuple[float, float]:
        return (scenario.hits[1], scenario.retried[1]) if number == SLOW_NODE else usual(number)

    before = [draw_job(f"a{number}", nodes, machine, 1.0, rng, usual) for number, machine in enumerate(machines)]
    after = [
        draw_job(f"b{number}", nodes, machine, scenario.factor, rng, changed) for number, machine in enumerate(others)
    ]
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
        comparison = _compared(runs, rules)
        alarms = {int(result.key.node.removeprefix("node-")) for result in comparison.nodes if result.fails}
        return alarms | ({SUITE} if comparison.suite.fails else set())

    return judge


def _compared(runs: Runs, rules: Rules) -> Comparison:
    if runs.paired:
        return compare_pairs(list(zip(runs.baseline, runs.candidate, strict=True)), rules)
    return compare_jobs(runs.baseline, runs.candidate, rules)


def make_aetherflow_without_kinds(alpha: float) -> Judge:
    """The regression gate over all executions together."""
    gate = make_aetherflow(alpha)

    def judge(runs: Runs) -> set[int]:
        sides = ([without_kinds(job) for job in side] for side in (runs.baseline, runs.candidate))
        return gate(replace(runs, baseline=next(sides), candidate=next(sides)))

    return judge


def make_rates(alpha: float) -> Judge:
    """The findings of hit ratios and retry rates, with limits of 5 points and of 1 point."""
    rules = Rules(alpha=alpha, rates=RateLimits(cache_hit_ratio=0.05, retry_rate=0.01))

    def judge(runs: Runs) -> set[int]:
        rates = _compared(runs, rules).rates
        return {int(result.key.name.removeprefix("node-")) for result in rates if result.fails}

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
            slowed = {SLOW_NODE} if has_change(scenario, name) else set()
            tally = tallies[name]
            tally.comparisons += 1
            tally.found += bool(alarms & slowed)
            tally.alarms += len(alarms - slowed)
            tally.alarmed += bool(alarms - slowed)
    return tallies


RATES = "rates"


def has_change(scenario: Scenario, tool: str) -> bool:
    """Return whether there is something that a tool is to find."""
    if tool != RATES:
        return scenario.factor > 1
    return scenario.hits[1] < scenario.hits[0] or scenario.retried[1] > scenario.retried[0]


def cells(scenario: Scenario, tool: str, tally: Tally) -> str:
    """Say how a tool did."""
    false = f"{tally.alarms} in {tally.alarmed}"
    return f"{tally.found / tally.comparisons:.1%}, {false}" if has_change(scenario, tool) else false


def rows(scenarios: Sequence[Scenario], tools: Mapping[str, Judge], comparisons: int, seed: int) -> Iterator[list[str]]:
    """Simulate scenarios, one after the other."""
    for scenario in scenarios:
        tallies = simulate(scenario, dict(tools), comparisons, seed)
        yield [scenario.name, *(cells(scenario, tool, tally) for tool, tally in tallies.items())]


def make_kind_tools(alpha: float) -> dict[str, Judge]:
    """Return the tools that the second table compares, by name."""
    return {
        "aetherflow": make_aetherflow(alpha),
        "all executions together": make_aetherflow_without_kinds(alpha),
        RATES: make_rates(alpha),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=200, help="of each kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="a fresh one by default")
    parser.add_argument("--alpha", type=float, default=Rules().alpha, help="of aetherflow (default: %(default)s)")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--only", choices=("tools", "kinds"), help="one of the two tables (default: both)")
    arguments = parser.parse_args()
    seed = time.time_ns() % 1_000_000 if arguments.seed is None else arguments.seed
    title = f"{arguments.comparisons} comparisons each, seed {seed}: found, false alarms in so many comparisons"
    if arguments.only != "kinds":
        tools = make_tools(arguments.alpha)
        show(title, list(tools), rows(SCENARIOS, tools, arguments.comparisons, seed), markdown=arguments.markdown)
    if arguments.only != "tools":
        kinds = make_kind_tools(arguments.alpha)
        show(title, list(kinds), rows(KIND_SCENARIOS, kinds, arguments.comparisons, seed), markdown=arguments.markdown)


def show(title: str, columns: Sequence[str], lines: Iterator[list[str]], *, markdown: bool) -> None:
    """Print a table; as Markdown row by row."""
    if markdown:
        print(title, "", "| | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns), sep="\n")
        for row in lines:
            print("| " + " | ".join(row) + " |", flush=True)
        return
    table = Table("", *columns, title=title)
    for row in lines:
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
