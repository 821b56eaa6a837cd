"""The gate, trends and other tools judge computed executions only, and report the others as rates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.analysis.metric_samples import exponential, message, node_durations, of_node, run_job, save

from aetherflow import configure
from aetherflow import node as flow_node
from aetherflow.analysis.baselines import add_runs, find_baselines, this_machine
from aetherflow.analysis.histograms import Counts, ExponentialBuckets, Histogram
from aetherflow.analysis.metric_points import Series
from aetherflow.analysis.metrics import Job, metric_files, read_jobs
from aetherflow.analysis.node_samples import NodeKey, comparable_durations, durations_of, executions_of
from aetherflow.analysis.rates import RateResult
from aetherflow.analysis.regression import Comparison, NodeResult, compare_jobs, compare_pairs
from aetherflow.analysis.regression_rules import RateLimits, Rules
from aetherflow.analysis.trend import find_rate_trends, find_trends
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.metrics.accumulators import registry

SLOW = {2: 1.5}
KEY = NodeKey(names.NODE_DURATION.name, "flow", "node-2")


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """A function that makes a number of jobs of one side, as `run_job` describes them."""

    def jobs(side: str, count: int, folder: str = "", **options: Any) -> list[Job]:
        paths = (tmp_path / f"{side}{folder}" / f"{number}.jsonl" for number in range(count))
        return read_jobs([run_job(path, f"{side}{path.stem}", **options) for path in paths])

    return jobs


def node(comparison: Comparison, name: str = "node-2") -> NodeResult:
    return next(result for result in comparison.nodes if result.key.node == name)


def rates(comparison: Comparison) -> dict[tuple[str, str], RateResult]:
    return {(result.key.rate, result.key.name): result for result in comparison.rates}


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("ratio", [0.5, 0.9, 0.98])
def test_a_slowdown_behind_a_cache_is_found_as_without_it(run: Any, ratio: float, paired: bool) -> None:
    """The verdict depends on the computed executions, not on the share of cache hits beside them."""

    def compare(folder: str, **options: Any) -> Comparison:
        was, now = run("was", 8, folder, **options), run("is", 8, folder, slow=SLOW, **options)
        return compare_pairs(list(zip(was, now, strict=True)), Rules()) if paired else compare_jobs(was, now, Rules())

    bare, cached = compare("bare"), compare("cached", hits={2: ratio})
    assert [each.key.node for each in cached.nodes if each.fails] == ["node-2"]
    assert node(cached).finding == node(bare).finding
    assert cached.suite == bare.suite


@pytest.mark.parametrize("share", [0.01, 0.2, 0.6])
def test_a_slowdown_beside_retries_is_found_as_without_them(run: Any, share: float) -> None:
    """Retried executions, with their back-off, do not change the verdict on a node."""
    bare = compare_jobs(run("was", 5), run("is", 3, slow=SLOW), Rules())
    retried = {"retried": {2: share}}
    comparison = compare_jobs(run("was", 5, "r", **retried), run("is", 3, "r", slow=SLOW, **retried), Rules())
    assert [each.key.node for each in comparison.nodes if each.fails] == ["node-2"]
    assert node(comparison).finding == node(bare).finding


def test_retries_that_become_more_are_no_slowdown(run: Any) -> None:
    """A node that is retried in most executions, and never was before, is not slower: its retry rate is higher."""
    comparison = compare_jobs(run("was", 5), run("is", 3, retried={2: 0.6}), Rules())
    assert node(comparison).verdict in ("ok", "inconclusive")
    assert not comparison.failed
    result = rates(comparison)["retry_rate", "node-2"]
    assert (result.verdict, result.baseline) == ("regression", 0.0)
    assert result.candidate == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.5), (0.0, 0.98), (0.5, 0.9), (0.9, 0.98)])
def test_more_hits_are_no_alarm(run: Any, before: float, after: float) -> None:
    """A hit ratio that rises makes no node slower, and is no finding of the rates, limits or not."""
    rules = Rules(rates=RateLimits(error_rate=0.01, retry_rate=0.01, cache_hit_ratio=0.01))
    was = run("was", 5, hits={2: before})
    comparison = compare_jobs(was, run("is", 3, hits={2: after}), rules)
    assert not comparison.failed
    assert {each.verdict for each in (*comparison.nodes, *comparison.rates)} <= {"ok", "inconclusive"}


@pytest.mark.parametrize("limit", [None, 0.05])
def test_fewer_hits_are_a_finding_of_their_own(run: Any, limit: float | None) -> None:
    """A falling hit ratio is reported for the cache, fails the job only with a limit, and makes no node slower."""
    rules = Rules(rates=RateLimits(cache_hit_ratio=limit))
    comparison = compare_jobs(run("was", 5, hits={2: 0.9}), run("is", 3, hits={2: 0.5}), rules)
    result = rates(comparison)["cache_hit_ratio", "node-2"]
    assert (result.verdict, result.fails) == ("regression", limit is not None)
    assert result.change == pytest.approx(-0.4, abs=0.01)
    assert {each.verdict for each in comparison.nodes} <= {"ok", "inconclusive"}


def test_a_hit_ratio_that_wanders_is_no_finding(run: Any, tmp_path: Path) -> None:
    """A fall beyond the limit that jobs of one side show among themselves is not beyond doubt."""

    def jobs(side: str, ratios: list[float]) -> list[Job]:
        paths = [tmp_path / side / f"{number}.jsonl" for number in range(len(ratios))]
        return read_jobs([run_job(path, path, hits={2: ratio}) for path, ratio in zip(paths, ratios, strict=True)])

    was, now = jobs("was", [0.9, 0.3, 0.8, 0.5, 0.7]), jobs("is", [0.3, 0.8, 0.4])
    result = rates(compare_jobs(was, now, Rules(rates=RateLimits(cache_hit_ratio=0.05))))["cache_hit_ratio", "node-2"]
    assert result.change < -0.05
    assert (result.verdict, result.fails) == ("ok", False)


@pytest.mark.parametrize("limit", [None, 0.02])
def test_more_retries_are_a_finding_of_their_own(run: Any, limit: float | None) -> None:
    """A rising retry rate is reported for the node, and fails the job only with a limit."""
    rules = Rules(rates=RateLimits(retry_rate=limit))
    comparison = compare_jobs(run("was", 5, retried={2: 0.02}), run("is", 3, retried={2: 0.2}), rules)
    result = rates(comparison)["retry_rate", "node-2"]
    assert (result.verdict, result.fails) == ("regression", limit is not None)
    back = compare_jobs(run("is", 5, "b", retried={2: 0.2}), run("was", 3, "b", retried={2: 0.02}), rules)
    assert {each.verdict for each in back.rates} == {"ok"}


def test_rates_are_read_from_kinds_if_no_counter_says_them(run: Any) -> None:
    """Files without counters of requests and retries have the hit ratio, and the retry rate, of their executions."""

    def without_counters(jobs: list[Job]) -> list[Job]:
        return [replace(job, sums={}) for job in jobs]

    was = without_counters(run("was", 5, hits={2: 0.9}, retried={1: 0.02}))
    now = without_counters(run("is", 3, hits={2: 0.5}, retried={1: 0.2}))
    regressions = {key for key, each in rates(compare_jobs(was, now, Rules())).items() if each.verdict == "regression"}
    assert regressions == {("cache_hit_ratio", "node-2"), ("retry_rate", "node-1")}


@pytest.mark.parametrize("side", ["baseline", "candidate"])
def test_hits_are_never_compared_with_computations(run: Any, side: str) -> None:
    """A node of which one side has cache hits only is inconclusive, by name and reason, not new, gone or faster."""
    whole, bare = run("was", 5, hits={2: 0.5}), run("is", 5, hits={2: 0.5})
    hits_only = [
        replace(job, histograms={key: value for key, value in job.histograms.items() if not _is_computed(key)})
        for job in bare
    ]
    was, now = (hits_only, whole) if side == "baseline" else (whole, hits_only)
    result = node(compare_jobs(was, now, Rules()))
    assert (result.verdict, result.finding) == ("inconclusive", None)
    assert f"every successful execution of flow/node-2 in the {side} was a cache hit" in result.reason


def _is_computed(series: Series) -> bool:
    return series.get(names.NODE_NAME) == "node-2" and series.get(names.EXECUTION_KIND) is None


def test_few_computed_executions_are_too_few(run: Any) -> None:
    """The calls that a verdict takes are computed ones: hits do not add to them."""
    options = {"calls": 20, "hits": {2: 0.98}}
    result = node(compare_jobs(run("was", 5, **options), run("is", 3, slow={2: 3.0}, **options), Rules()))
    assert (result.verdict, result.candidate.calls) == ("inconclusive", 60)
    assert result.candidate.executions == 3000
    assert "besides those that were a cache hit" in result.reason


def test_failures_of_all_kinds_are_in_the_error_rate(tmp_path: Path) -> None:
    """A retried execution that failed is a failure, and all executions are what it is a share of."""

    def jobs(side: str, count: int, failures: int) -> list[Job]:
        more = {names.EXECUTION_KIND: "retried", names.ERROR_TYPE: "KeyError"}
        points = [
            of_node(exponential([1e-3] * 400), "n"),
            of_node(exponential([1e-5] * 500), "n", **{names.EXECUTION_KIND: "cache_hit"}),
            of_node(exponential([0.6] * failures), "n", **more),
        ]
        return read_jobs([save(tmp_path / side / f"{n}", message(node_durations(*points))) for n in range(count)])

    result = rates(compare_jobs(jobs("was", 5, 1), jobs("is", 3, 100), Rules()))["error_rate", "n"]
    assert (result.verdict, round(result.candidate, 2)) == ("regression", 0.1)


def test_a_node_that_always_fails_is_not_gone(tmp_path: Path) -> None:
    """A node whose executions all fail is still there, and cannot be compared."""

    def jobs(side: str, count: int, **more: str) -> list[Job]:
        line = message(node_durations(of_node(exponential([1e-3] * 400), "n", **more)))
        return read_jobs([save(tmp_path / side / f"{number}", line) for number in range(count)])

    result = node(compare_jobs(jobs("was", 5), jobs("is", 3, **{names.ERROR_TYPE: "KeyError"}), Rules()), "n")
    assert (result.verdict, result.reason) == ("inconclusive", "every execution of flow/n in the candidate failed")


# --- files that are older than kinds -------------------------------------------------------------------------


def test_older_files_are_compared_with_new_ones(run: Any) -> None:
    """A node without a cache is judged as before, though its baseline does not know kinds."""
    was = run("was", 5, hits={4: 0.9}, has_kinds=False)
    comparison = compare_jobs(was, run("is", 3, slow=SLOW, hits={4: 0.9}), Rules())
    assert [each.key.node for each in comparison.nodes if each.fails] == ["node-2"]


@pytest.mark.parametrize("other", [{"hits": {2: 0.9}}, {"retried": {2: 0.6}}])
def test_older_files_do_not_pass_hits_for_computations(run: Any, other: dict[str, Any]) -> None:
    """A node with hits or retries in an older baseline is inconclusive, and the reason has the remedy."""
    for was, now in ((False, True), (True, False)):
        before = run("was", 5, f"{was}", has_kinds=was, **other)
        comparison = compare_jobs(before, run("is", 3, f"{now}", has_kinds=now, **other), Rules())
        assert node(comparison).verdict == "inconclusive"
        assert "record it again" in node(comparison).reason
        assert not comparison.failed


def test_a_rare_retry_is_no_reason_not_to_compare(run: Any) -> None:
    """A few retried executions among many move no median: older files are compared all the same."""
    was = run("was", 5, retried={2: 0.01}, has_kinds=False)
    assert node(compare_jobs(was, run("is", 3, slow=SLOW, retried={2: 0.01}), Rules())).fails


def test_of_a_baseline_that_is_old_in_part_the_new_part_is_compared(run: Any) -> None:
    """Runs that were added before there were kinds are left out for the nodes whose durations mean something else."""
    was = [*run("old", 5, hits={2: 0.9}, has_kinds=False), *run("was", 5, hits={2: 0.9})]
    result = node(compare_jobs(was, run("is", 3, slow=SLOW, hits={2: 0.9}), Rules()))
    assert (result.fails, result.baseline.jobs) == (True, 5)
    assert node(compare_jobs(was, run("is", 3, hits={2: 0.9}), Rules()), "node-1").baseline.jobs == 10


def test_a_trend_has_no_step_where_kinds_begin(run: Any) -> None:
    """Runs before and after the change of version, behind the same cache, are no change of the node."""
    jobs = [*run("old", 10, hits={2: 0.9}, has_kinds=False), *run("new", 10, hits={2: 0.9})]
    (trend,) = (trend for trend in find_trends(jobs) if trend.key == KEY)
    assert trend.changes == ()
    assert list(trend.values) == list(range(10, 20))


def test_a_trend_is_of_computed_executions(run: Any) -> None:
    """A cache that is put before a node, and retries, are no change; a slowdown behind the cache is one."""
    steps = [run("a", 8), run("b", 8, hits={2: 0.98}), run("c", 8, hits={2: 0.98}, retried={2: 0.4}, slow={2: 1.6})]
    jobs = [job for part in steps for job in part]
    (trend,) = (trend for trend in find_trends(jobs) if trend.key == KEY)
    assert [change.index for change in trend.changes] == [16]


def test_a_trend_tells_where_hits_fall_and_retries_rise(run: Any) -> None:
    """Lasting changes of a hit ratio and a retry rate are reported, with the run and the difference; others are not."""
    steps = [
        run("a", 8, hits={2: 0.9, 3: 0.9}, retried={1: 0.01}),
        run("b", 8, hits={2: 0.6, 3: 0.9}, retried={1: 0.2}),
    ]
    changes = {
        (trend.key.rate, trend.key.name): [(change.index, round(change.change, 2)) for change in trend.changes]
        for trend in find_rate_trends([job for part in steps for job in part])
    }
    assert changes == {
        ("cache_hit_ratio", "node-2"): [(8, -0.3)],
        ("cache_hit_ratio", "node-3"): [],
        ("retry_rate", "node-1"): [(8, 0.19)],
    }


def test_a_rate_that_changes_little_is_not_told(run: Any) -> None:
    """A retry rate of 1 in 500 whose odds double stays below the limit from which the gate warns."""
    jobs = [*run("a", 8, retried={2: 0.0025}), *run("b", 8, retried={2: 0.01})]
    assert [trend.changes for trend in find_rate_trends(jobs)] == [()]


# --- storage and addition ----------------------------------------------------------------------------------


@flow_node
def node_that_runs() -> None: ...


def test_kinds_in_the_store_are_read_from_exported_files(tmp_path: Path) -> None:
    """The counts of the store by kind and by error survive export and reading."""
    about = {names.FLOW_NAME: "exported", names.NODE_NAME: "by_kind"}
    with configure(exporter="file", directory=tmp_path):
        node_that_runs.run()  # metrics are published from the first run on
        for more, count in (({}, 30), ({"kind": "cache_hit"}, 500), ({"kind": "retried", "error": "KeyError"}, 4)):
            labels = {"kind": names.EXECUTION_KIND, "error": names.ERROR_TYPE}
            series = registry.series(names.NODE_DURATION, about | {labels[key]: text for key, text in more.items()})
            for _ in range(count):
                series.add(1_000_000)
    (job,) = read_jobs(metric_files([tmp_path]))
    counts = executions_of(job)[NodeKey(names.NODE_DURATION.name, "exported", "by_kind")]
    assert (counts.total, counts.failed, counts.computed) == (534, 4, 30)
    assert counts.kinds == {"cache_hit": 500, "retried": 4}


def test_kept_baselines_keep_kinds(run: Any, tmp_path: Path) -> None:
    """A run that is added to a baseline is read from it with the same executions of each kind."""
    (job,) = run("was", 1, hits={2: 0.9}, retried={2: 0.1})
    add_runs(tmp_path / "kept", this_machine({}), [job], {})
    (file,) = find_baselines(tmp_path / "kept")
    (again,) = file.jobs()
    assert executions_of(again) == executions_of(job)
    assert durations_of(again) == durations_of(job)
    assert executions_of(job)[KEY].kinds == {"cache_hit": 3600, "retried": 44}


_KINDS = st.sampled_from(["cache_hit", "coalesced", "retried", "of-a-later-version"])
_OTHERS = st.lists(st.tuples(_KINDS, st.booleans(), st.integers(1, 10**6), st.integers(-700, 200)), max_size=6)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Job], list[Job]]:
    folder = tmp_path_factory.mktemp("jobs")
    was = [run_job(folder / "was" / f"{number}", f"was{number}") for number in range(5)]
    now = [run_job(folder / "is" / f"{number}", f"is{number}", slow=SLOW) for number in range(3)]
    return read_jobs(was), read_jobs(now)


@given(st.lists(_OTHERS, min_size=8, max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_executions_of_a_kind_never_move_a_duration(
    jobs: tuple[list[Job], list[Job]], others: list[list[tuple[str, bool, int, int]]]
) -> None:
    """Adding executions of other kinds, of any number and duration, does not change the verdicts on nodes."""
    was, now = jobs
    more = [_with_others(job, each) for job, each in zip([*was, *now], others, strict=True)]
    before, after = compare_jobs(was, now, Rules()), compare_jobs(more[: len(was)], more[len(was) :], Rules())
    assert after.suite == before.suite
    assert [(each.key, each.verdict, each.finding) for each in after.nodes] == [
        (each.key, each.verdict, each.finding) for each in before.nodes
    ]
    assert comparable_durations(more) == comparable_durations([*was, *now])


def _with_others(job: Job, others: list[tuple[str, bool, int, int]]) -> Job:
    histograms = dict(job.histograms)
    for kind, failed, count, offset in others:
        attributes = {names.FLOW_NAME: "flow", names.NODE_NAME: "node-2", names.EXECUTION_KIND: kind}
        attributes |= {names.ERROR_TYPE: "KeyError"} if failed else {}
        series = Series(names.NODE_DURATION.name, "s", tuple(sorted(attributes.items())))
        histograms[series] = Histogram(count, None, ExponentialBuckets(5, positive=Counts(offset, (count,))))
    return replace(job, histograms=histograms)
