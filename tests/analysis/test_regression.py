"""The gate finds what became slower, is quiet where nothing did, and says when it cannot tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.analysis.metric_samples import (
    START,
    attributed,
    explicit,
    exponential,
    message,
    metric,
    node_durations,
    of_node,
    run_job,
    save,
)

from aetherflow.analysis.metrics import Job, read_jobs
from aetherflow.analysis.rates import RateResult
from aetherflow.analysis.regression import Comparison, NodeResult, compare_jobs, compare_pairs
from aetherflow.analysis.regression_rules import NodeRule, RateLimits, Rules, SuiteRule, read_rules
from aetherflow.errors import ConfigurationError
from aetherflow.telemetry import conventions as names

ERROR = names.ERROR_TYPE


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Makes jobs: as many, of a side, as `run_job` describes them."""

    def jobs(side: str, count: int, **options: Any) -> list[Job]:
        return read_jobs([run_job(tmp_path / side / f"{n}.jsonl", f"{side}{n}", **options) for n in range(count)])

    return jobs


def node(comparison: Comparison, name: str) -> NodeResult:
    return next(result for result in comparison.nodes if result.key.node == name)


def rate(comparison: Comparison, name: str) -> RateResult:
    return next(result for result in comparison.rates if result.key.rate == name)


def test_a_slower_node_is_found_and_no_other(run: Any) -> None:
    """One node of six that takes half as long again is the regression, by about that much."""
    comparison = compare_jobs(run("was", 5), run("is", 3, slow={2: 1.5}), Rules())
    assert [each.key.node for each in comparison.nodes if each.verdict == "regression"] == ["node-2"]
    first = comparison.nodes[0]
    assert first.finding is not None
    assert first.finding.change == pytest.approx(0.5, abs=0.08)
    assert first.fails
    assert (comparison.verdict, comparison.failed) == ("regression", True)
    assert {each.verdict for each in comparison.nodes[1:]} <= {"ok", "inconclusive"}


def test_nothing_is_found_where_nothing_is(run: Any) -> None:
    """Two sets of jobs of the same code differ by their machines alone."""
    comparison = compare_jobs(run("was", 6), run("is", 4), Rules())
    assert (comparison.verdict, comparison.failed) == ("ok", False)
    assert comparison.suite.verdict in ("ok", "inconclusive")


def test_a_faster_node_is_an_improvement(run: Any) -> None:
    """What became faster is told and fails nothing."""
    comparison = compare_jobs(run("was", 5), run("is", 3, slow={1: 0.5}), Rules())
    assert node(comparison, "node-1").verdict == "improvement"
    assert not comparison.failed


def test_what_slows_all_nodes_is_the_suites(run: Any) -> None:
    """Where machines are steady a change of everything is found, as one of the suite."""
    slow = dict.fromkeys(range(6), 1.6)
    comparison = compare_jobs(run("was", 6, machine=0.01), run("is", 4, machine=0.01, slow=slow), Rules())
    assert comparison.suite.verdict == "regression"
    assert comparison.suite.fails
    assert not [each for each in comparison.nodes if each.verdict == "regression"]
    tolerant = Rules(suite=SuiteRule(fail=False))
    again = compare_jobs(run("was", 6, machine=0.01), run("is", 4, machine=0.01, slow=slow), tolerant)
    assert (again.suite.verdict, again.failed, again.verdict) == ("regression", False, "inconclusive")


@pytest.mark.parametrize("jobs", [(4, 3), (5, 2), (1, 1)])
def test_few_jobs_only_warn(run: Any, jobs: tuple[int, int]) -> None:
    """Below five jobs and three a regression is told, with what is missing, and fails nothing."""
    comparison = compare_jobs(run("was", jobs[0]), run("is", jobs[1], slow={2: 3.0}), Rules())
    found = node(comparison, "node-2")
    assert found.verdict == "regression"
    assert "a failure takes 5 of the baseline and 3 of the candidate" in found.reason
    assert (comparison.failed, comparison.verdict) == (False, "inconclusive")


def test_pairs_find_less_than_jobs_by_themselves(run: Any) -> None:
    """Ten pairs find a node that is a fifth slower, on machines that differ by a tenth."""
    pairs = list(zip(run("was", 10, machine=0.1), run("is", 10, machine=0.1, slow={4: 1.2}), strict=True))
    comparison = compare_pairs(pairs, Rules())
    assert [each.key.node for each in comparison.nodes if each.fails] == ["node-4"]
    assert comparison.paired
    few = compare_pairs(pairs[:4], Rules(limit=0.1))
    assert not few.failed
    assert compare_pairs(pairs[:1], Rules()).suite.verdict == "inconclusive"


def test_few_calls_are_inconclusive(run: Any) -> None:
    """Below 200 calls on a side nothing is said of a node, however much it moved."""
    comparison = compare_jobs(run("was", 5, calls=30), run("is", 3, calls=30, slow={2: 3.0}), Rules())
    found = node(comparison, "node-2")
    assert (found.verdict, found.finding) == ("inconclusive", None)
    assert "200" in found.reason
    assert comparison.verdict == "inconclusive"
    enough = compare_jobs(run("was", 5, calls=30), run("is", 3, calls=30, slow={2: 3.0}), Rules(min_calls=50))
    assert node(enough, "node-2").verdict == "regression"


def test_noise_is_inconclusive_and_says_what_could_be_found(tmp_path: Path) -> None:
    """A node whose jobs disagree is neither ok nor a regression; what could have been found is above the limit."""

    def jobs(side: str, levels: list[float]) -> list[Job]:
        files = []
        for number, level in enumerate(levels):
            steady = [of_node(exponential([1e-3] * 300), f"steady-{n}") for n in range(4)]
            wild = of_node(exponential([level * 1e-3] * 300), "wild")
            files.append(save(tmp_path / side / f"{number}", message(node_durations(*steady, wild))))
        return read_jobs(files)

    comparison = compare_jobs(jobs("was", [1, 2, 0.5, 1.5, 0.7]), jobs("is", [2.2, 0.6, 1.4]), Rules())
    found = node(comparison, "wild")
    assert found.verdict == "inconclusive"
    assert found.finding is not None
    assert found.finding.detectable > 0.1
    assert found.finding.upper > 0.1
    assert node(comparison, "steady-1").verdict == "ok"


def test_new_and_gone_nodes_are_told(run: Any) -> None:
    """A node that is only on one side is not compared."""
    comparison = compare_jobs(run("was", 5, nodes=5), run("is", 3, nodes=4), Rules())
    assert node(comparison, "node-4").verdict == "gone"
    back = compare_jobs(run("was", 5, nodes=4), run("is", 3, nodes=5), Rules())
    assert node(back, "node-4").verdict == "new"


def test_coarse_buckets_are_judged_by_the_mean(run: Any) -> None:
    """Explicit buckets are marked, with twice the limit: a fifth is not a regression there, a half is."""
    options = {"kind": "histogram", "machine": 0.01}
    comparison = compare_jobs(run("was", 6, **options), run("is", 4, **options, slow={1: 1.15, 2: 1.6}), Rules())
    assert all(each.coarse and each.limit == pytest.approx(0.2) for each in comparison.nodes)
    assert [each.key.node for each in comparison.nodes if each.fails] == ["node-2"]


def test_times_of_zero_cannot_be_compared(tmp_path: Path) -> None:
    """A node whose median is zero has no logarithm; it is inconclusive and harms no other."""
    point = {"count": "300", "sum": 0, "scale": 5, "zeroCount": "300", "startTimeUnixNano": "1", "timeUnixNano": "2"}

    def jobs(side: str, count: int) -> list[Job]:
        line = message(node_durations(of_node(point, "zero"), of_node(exponential([1e-3] * 300), "n")))
        return read_jobs([save(tmp_path / side / f"{number}", line) for number in range(count)])

    found = node(compare_jobs(jobs("was", 5), jobs("is", 3), Rules()), "zero")
    assert (found.verdict, found.reason) == ("inconclusive", "no job has enough durations above zero")


def test_limits_are_for_nodes_by_pattern(run: Any) -> None:
    """The first rule that covers a node holds: a wider limit, a warning, or nothing at all."""
    rules = Rules(
        node=(
            NodeRule(node="node-1", limit=1.0),
            NodeRule(flow="f*", node="node-[23]", fail=False),
            NodeRule(node="node-4", ignore=True),
            NodeRule(node="*", limit=0.3),
        )
    )
    slow = {1: 1.5, 2: 1.5, 4: 1.5, 5: 1.2}
    comparison = compare_jobs(run("was", 5, nodes=9), run("is", 3, nodes=9, slow=slow), rules)
    found = {each.key.node: each for each in comparison.nodes}
    assert not comparison.failed
    assert (found["node-2"].verdict, found["node-2"].reason) == ("regression", "only a warning")
    assert found["node-1"].verdict != "regression"
    assert found["node-5"].verdict != "regression"
    assert "node-4" not in found


def test_runs_and_operations_are_judged_too(tmp_path: Path) -> None:
    """Durations of runs and of operations have verdicts of their own, and a name each."""

    def jobs(side: str, count: int, factor: float) -> list[Job]:
        files = []
        for number in range(count):
            points = [of_node(exponential([1e-3] * 300), f"n{n}") for n in range(4)]
            run = attributed(exponential([factor * 1e-2] * 300), **{names.FLOW_NAME: "f"})
            operation = {names.OPERATION_NAME: "load", names.MONITOR_NAME: "m"}
            metrics = (
                node_durations(*points),
                metric(names.RUN_DURATION.name, "exponentialHistogram", run),
                metric(
                    names.OPERATION_DURATION.name,
                    "exponentialHistogram",
                    attributed(exponential([1e-2] * 300), **operation),
                ),
            )
            files.append(save(tmp_path / side / f"{number}", message(*metrics)))
        return read_jobs(files)

    comparison = compare_jobs(jobs("was", 5, 1.0), jobs("is", 3, 1.5), Rules())
    assert {str(each.key): each.verdict for each in comparison.nodes if "n" not in each.key.node} == {
        "f": "regression",
        "m: load": "ok",
    }
    assert not comparison.failed  # runs only warn
    strict = Rules(node=(NodeRule(metric=names.RUN_DURATION.name),))
    assert compare_jobs(jobs("was", 5, 1.0), jobs("is", 3, 1.5), strict).failed


def counted(failures: int, hits: int, misses: int, calls: int = 1000, seconds: float = 60.0) -> dict[str, Any]:
    """A job's message: executions with failures, and requests of a cache."""
    times = {"startTimeUnixNano": str(START), "timeUnixNano": str(START + round(seconds * 1e9))}
    points = [of_node(exponential([1e-3] * (calls - failures), **times), "n")]
    if failures:
        points.append(of_node(exponential([1e-3] * failures, **times), "n", **{ERROR: "KeyError"}))
    run = attributed(exponential([1e-2] * calls, **times), **{names.FLOW_NAME: "f"})
    requests = [
        attributed({"asInt": str(number), **times}, **{names.CACHE_NAME: "c", names.CACHE_RESULT: result})
        for result, number in (("hit", hits), ("miss", misses))
    ]
    return message(
        node_durations(*points),
        metric(names.RUN_DURATION.name, "exponentialHistogram", run),
        metric(names.CACHE_REQUESTS.name, "sum", *requests, isMonotonic=True),
    )


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("limit", [None, 0.02])
def test_rates_only_warn_until_they_are_configured(tmp_path: Path, paired: bool, limit: float | None) -> None:
    """More errors, fewer hits and less throughput are told, and fail the job where a limit was set."""

    def jobs(side: str, **what: Any) -> list[Job]:
        return read_jobs([save(tmp_path / side / f"{n}", counted(**what | {"calls": 1000 + n})) for n in range(5)])

    before = jobs("was", failures=5, hits=900, misses=100)
    after = jobs("is", failures=80, hits=600, misses=400, seconds=90.0)
    rules = Rules(rates=RateLimits(error_rate=limit, cache_hit_ratio=limit, throughput=limit))
    comparison = (
        compare_pairs(list(zip(before, after, strict=True)), rules) if paired else compare_jobs(before, after, rules)
    )
    assert comparison.failed is (limit is not None)
    changes = {each.key.rate: (each.verdict, round(each.change, 2)) for each in comparison.rates}
    assert changes == {
        "error_rate": ("regression", 0.07),
        "cache_hit_ratio": ("regression", -0.3),
        "throughput": ("regression", -0.33),
    }
    same = compare_jobs(before, jobs("again", failures=5, hits=900, misses=100), rules)
    assert {each.verdict for each in same.rates} == {"ok"}
    assert rate(same, "cache_hit_ratio").baseline == pytest.approx(0.9)


def cache_of_some(folder: Path, jobs: int, having: int, hits: int, misses: int) -> list[Job]:
    """Jobs of which only the first have the cache."""
    sure = {"failures": 5, "calls": 1000}
    bare = counted(**sure, hits=0, misses=0)
    bare["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].pop()
    full = counted(**sure, hits=hits, misses=misses)
    return read_jobs([save(folder / f"{n}", full if n < having else bare) for n in range(jobs)])


def test_a_rate_that_few_jobs_have_only_warns(tmp_path: Path) -> None:
    """What counts is the jobs that were compared: a cache in one of five and one of three is no reason to fail."""
    rules = Rules(rates=RateLimits(cache_hit_ratio=0.05))

    def compare(before: int, after: int) -> RateResult:
        was = cache_of_some(tmp_path / f"was{before}", 5, before, 900, 100)
        now = cache_of_some(tmp_path / f"is{after}", 3, after, 300, 700)
        return rate(compare_jobs(was, now, rules), "cache_hit_ratio")

    assert compare(5, 3).fails
    few = compare(1, 1)
    assert (few.verdict, few.fails) == ("regression", False)
    assert "1 and 1 jobs" in few.reason


def test_a_node_that_few_jobs_have_only_warns(tmp_path: Path) -> None:
    """Jobs without a factor of their own are not compared, and do not count as if they were."""

    def jobs(side: str, count: int, whole: int, factor: float) -> list[Job]:
        files = []
        for number in range(count):
            nodes = [("it", factor), *((f"n{n}", 1.0) for n in range(3 if number < whole else 0))]
            points = [of_node(exponential([each * 1e-3] * 300), name) for name, each in nodes]
            files.append(save(tmp_path / f"{side}{whole}" / f"{number}", message(node_durations(*points))))
        return read_jobs(files)

    few = compare_jobs(jobs("was", 5, 1, 1.0), jobs("is", 3, 1, 9.0), Rules())
    assert node(few, "it").verdict == "regression"
    assert "1 and 1 jobs" in node(few, "it").reason
    assert compare_jobs(jobs("was", 5, 5, 1.0), jobs("is", 3, 3, 9.0), Rules()).failed


def test_the_suite_counts_the_jobs_that_have_a_factor(run: Any) -> None:
    """Jobs of one node say nothing of the suite, and do not turn its warning into a failure."""
    slow = dict.fromkeys(range(6), 3.0)
    was = run("was", 2, machine=0.01) + run("bare", 3, nodes=1)
    now = run("is", 2, machine=0.01, slow=slow) + run("bare-too", 1, nodes=1)
    found = compare_jobs(was, now, Rules()).suite
    assert (found.verdict, found.fails) == ("regression", False)
    assert "2 and 2 jobs" in found.reason


@pytest.mark.parametrize(
    ("rule", "gone"),
    [
        (NodeRule(flow="flow", node="n", ignore=True), "error_rate"),
        (NodeRule(flow="f", metric="*.run.duration", ignore=True), "throughput"),
        (NodeRule(node="c", ignore=True), "cache_hit_ratio"),
    ],
)
def test_what_is_ignored_has_no_rates(tmp_path: Path, rule: NodeRule, gone: str) -> None:
    """A rule that leaves out a node, a flow's runs or a cache leaves out their rate."""

    def jobs(side: str, **what: Any) -> list[Job]:
        return read_jobs([save(tmp_path / side / f"{n}", counted(**what)) for n in range(5)])

    before = jobs("was", failures=5, hits=900, misses=100)
    after = jobs("is", failures=80, hits=600, misses=400, seconds=90.0)
    limits = RateLimits(error_rate=0.01, cache_hit_ratio=0.05, throughput=0.1)
    all_three = {"error_rate", "throughput", "cache_hit_ratio"}
    for given, wanted in ((Rules(rates=limits), all_three), (Rules(rates=limits, node=(rule,)), all_three - {gone})):
        comparison = compare_jobs(before, after, given)
        assert {each.key.rate for each in comparison.rates} == wanted
        assert all(each.fails for each in comparison.rates)


CONFIG = """
limit = 0.15
alpha = 0.01
[suite]
fail = false
[rates]
error_rate = 0.02
[[node]]
flow = "etl-*"
node = "load"
limit = 0.5
[[node]]
metric = "*.run.duration"
ignore = true
"""


def test_rules_are_read_from_toml(tmp_path: Path) -> None:
    """Every key has its place."""
    file = tmp_path / "regress.toml"
    file.write_text(CONFIG, encoding="utf-8")
    rules = read_rules(file)
    assert (rules.limit, rules.alpha, rules.min_calls, rules.suite.fail) == (0.15, 0.01, 200, False)
    assert rules.rates == RateLimits(error_rate=0.02)
    assert rules.for_node("etl-1", "load", "m").limit == 0.5
    assert rules.for_node("f", "", names.RUN_DURATION.name).ignore
    assert rules.for_node("f", "n", names.NODE_DURATION.name) == NodeRule()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("limit = ", "is not TOML"),
        ("limits = 1", "limits=1"),
        ("limit = -1", "limit=-1"),
        ("limit = nan", "limit=nan"),
        ('[rates]\nerror_rate = "low"', "rates.error_rate='low'"),
        ("[[node]]\nlimit = 0.1\n[[node]]\nlimt = 0.1", "node[1].limt=0.1"),
        ("alpha = 1", "alpha=1"),
        ("node = 3", "node=3"),
    ],
)
def test_bad_rules_are_told_with_their_key(tmp_path: Path, content: str, told: str) -> None:
    """What is wrong in the file is named, with the value, in one line."""
    file = tmp_path / "regress.toml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        read_rules(file)
    assert told in str(caught.value)
    assert "regress.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rules_that_are_not_there_are_told(tmp_path: Path) -> None:
    """A file that cannot be read is named."""
    with pytest.raises(ConfigurationError, match="nowhere"):
        read_rules(tmp_path / "nowhere.toml")


def test_mixed_buckets_are_compared_by_their_means(tmp_path: Path) -> None:
    """A change of the exporter's buckets between the sides does not look like a change of the program."""

    def jobs(side: str, count: int, kind: str) -> list[Job]:
        make = exponential if kind == "exponentialHistogram" else explicit
        values = [1e-3 * (1 + n / 300) for n in range(300)]
        line = message(node_durations(*(of_node(make(values), f"n{n}") for n in range(4)), kind=kind))
        return read_jobs([save(tmp_path / side / f"{number}", line) for number in range(count)])

    comparison = compare_jobs(jobs("was", 5, "exponentialHistogram"), jobs("is", 3, "histogram"), Rules())
    assert {each.verdict for each in comparison.nodes} == {"ok"}
    assert all(each.coarse for each in comparison.nodes)
