"""Each point of advice is given where a program asks for it, and no longer where it was followed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dependency_injector import providers
from tests.analysis.metric_samples import START, attributed, exponential, message, metric, node_durations, of_node, save
from tests.analysis.otlp_samples import MS, SECOND, made

from aetherflow import BaseFlowContext, BatchPolicy, ObjectPool, configure, node
from aetherflow.analysis.advice import Advice, advise
from aetherflow.analysis.flow_graph import flow_graphs
from aetherflow.analysis.metrics import Job, metric_files, read_jobs
from aetherflow.analysis.run_evidence import RunEvidence, gather_runs
from aetherflow.analysis.spans import Span, read_spans
from aetherflow.flow.caching import CachePolicy
from aetherflow.telemetry import conventions as names

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def seen(tmp_path: Path) -> Callable[..., list[Advice]]:
    """Runs a program with telemetry in files, and gives the advice that follows."""
    folders = iter(range(100))

    def watch(program: Callable[[], object], **options: Any) -> list[Advice]:
        folder = tmp_path / f"telemetry-{next(folders)}"
        with configure(exporter="file", directory=folder, metric_interval=0.05):
            program()
        jobs = read_jobs(metric_files([folder]))
        spans = [span for file in folder.glob("traces-*") for span in read_spans(file)]
        return advise(jobs, gather_runs(spans), **options)

    return watch


def rules(advice: list[Advice]) -> set[str]:
    return {point.rule for point in advice}


def one(advice: list[Advice], rule: str) -> Advice:
    (point,) = (each for each in advice if each.rule == rule)
    assert point.seen
    assert point.change
    assert point.check
    return point


def test_nodes_that_do_next_to_nothing_are_to_be_merged() -> None:
    """Nodes that take less than the time between them are told; the same number of long ones is not."""
    short = [(name, 80 * at, 80 * at + 1, "") for at, name in enumerate(["add", "double"] * 6)]
    point = one(advise([], runs_of(*short)), "node-too-fine")
    assert point.subject == "f"
    assert point.figures == {
        "executions": 120,
        "between": pytest.approx(0.988),
        "cost": pytest.approx(0.988 * 10 / 120),
    }
    long = [(name, 80 * at, 80 * at + 70, "") for at, name in enumerate(["add", "double"] * 6)]
    assert "node-too-fine" not in rules(advise([], runs_of(*long)))


def test_uneven_partitions_are_to_be_cut_finer() -> None:
    """If one of two partitions takes most of the time, a worker waits; with even partitions none does."""
    uneven, even = [("work", 0, 10, ""), ("work", 0, 900, "")], [("work", 0, 900, ""), ("work", 0, 890, "")]
    point = one(advise([], runs_of(*uneven, partitions=2)), "fan-out-imbalance")
    assert point.subject == "f: work"
    assert "partitions" in point.change
    assert "fan-out-imbalance" not in rules(advise([], runs_of(*even, partitions=2)))


@pytest.mark.slow
def test_the_node_that_runs_wait_for_is_named(seen: Callable[..., list[Advice]]) -> None:
    """The gain from the slowest node is told; where two share the time, neither is the one."""

    def flow(first: float, second: float) -> Any:
        @node
        def load(n: int) -> int:
            time.sleep(first)
            return n

        @node
        def send(n: int) -> int:
            time.sleep(second)
            return n

        return (load >> send).named("mail")

    def run(flow: Any) -> Callable[[], None]:
        return lambda: [flow.run(n) for n in range(6)] and None

    point = one(seen(run(flow(0.05, 0.002))), "critical-node")
    assert point.subject == "mail/load"
    assert 0.6 < point.figures["share_load"] <= 1.0
    assert "critical-node" not in rules(run_spans(load=0.45, send=0.45))


def run_spans(repeat: int = 6, parts: bool = False, **seconds: float) -> list[Advice]:
    """Advice on runs whose nodes took so many seconds one after the other; 0.1 s more goes by in between."""
    return advise([], gather_runs(spans_of(repeat, parts, seconds)))


def spans_of(repeat: int, parts: bool, seconds: Mapping[str, float]) -> list[Span]:
    found = []
    for number in range(repeat):
        run_id, at = 100 * number, 0
        for place, (name, each) in enumerate(seconds.items(), 1):
            told = {names.NODE_NAME: name, names.THREAD_ID: 1} | ({names.BATCH_COUNT: 2} if parts else {})
            end = at + round(each * 1e9)
            found.append(made(run_id + place, run_id, SECOND + at, SECOND + end, name=name, attributes=told))
            at = end
        told = {names.FLOW_NAME: "f", names.FLOW_NODES: len(seconds)}
        found.append(made(run_id, None, SECOND, SECOND + at + 100_000_000, name="run f", attributes=told))
    return found


def test_a_long_node_is_to_be_split() -> None:
    """A node alone at work for seconds is told; one that is a part of a fan-out already is not, nor a short one."""
    point = one(run_spans(load=0.1, train=5.0), "node-too-coarse")
    assert point.subject == "f/train"
    assert "node-too-coarse" not in rules(run_spans(load=0.1, train=5.0, parts=True))
    assert "node-too-coarse" not in rules(run_spans(load=0.1, train=0.5))
    assert run_spans(4, load=0.1, train=5.0) == []


def runs_of(*executions: tuple[str, int, int, str], partitions: int = 0) -> RunEvidence:
    """Ten runs of a second, each with the same executions: node, beginning and end in milliseconds, and kind."""
    spans = []
    for run in range(10):
        trace = f"{run + 1:032x}"
        top = made(1, start=0, end=1_000 * MS, attributes={names.FLOW_NAME: "f", names.FLOW_NODES: 2})
        spans.append(replace(top, trace_id=trace))
        for number, (node_name, start, end, kind) in enumerate(executions, 2):
            about: dict[str, object] = {
                names.NODE_NAME: node_name,
                names.NODE_UPSTREAM: ("a",),
                names.THREAD_ID: number,
            }
            about |= {names.EXECUTION_KIND: kind} if kind else {}
            about |= {names.BATCH_COUNT: partitions, names.BATCH_INDEX: number - 2} if partitions else {}
            span = made(number, 1, start=start * MS, end=end * MS, attributes=about)
            spans.append(replace(span, trace_id=trace))
    return gather_runs(spans)


def test_hits_do_not_make_a_node_fine() -> None:
    """A node is judged by its computations: frequent cache hits are no reason to merge it."""
    hits = [("n", each * 60, each * 60 + 1, "cache_hit") for each in range(12)]
    computed = ("n", 800, 995, "")
    assert "node-too-fine" not in rules(advise([], runs_of(*hits, computed)))
    assert "node-too-fine" in rules(advise([], runs_of(*((*each[:3], "") for each in hits))))


@pytest.mark.parametrize(("rule", "end"), [("node-too-coarse", 1_000), ("critical-node", 900)])
def test_retried_executions_are_no_work_to_be_split(rule: str, end: int) -> None:
    """Back-off does not make a node long or worth optimising; the same time spent on work does."""
    slow, other = ("slow", 0, end, ""), ("other", end, 1_000, "")
    assert rule in rules(advise([], runs_of(slow, *([other] if end < 1_000 else []))))
    retried = ("slow", 0, end, "retried")
    assert rule not in rules(advise([], runs_of(retried, *([other] if end < 1_000 else []))))


@pytest.mark.parametrize("kind", ["cache_hit", "retried"])
def test_a_branch_that_was_not_computed_tells_nothing_of_a_fan_out(kind: str) -> None:
    """A hit beside a computed branch, or a retried one, is no imbalance of the work."""
    assert "fan-out-imbalance" in rules(advise([], runs_of(("b", 0, 10, ""), ("c", 0, 900, ""))))
    assert "fan-out-imbalance" not in rules(advise([], runs_of(("b", 0, 10, kind), ("c", 0, 900, ""))))


def test_a_run_that_ended_as_expected_is_a_run() -> None:
    """A run and a node that ended with an expected exception count as any that succeeded."""
    about = {names.FLOW_NAME: "f", names.FLOW_NODES: 1, names.RUN_RESULT: "expected", names.EXPECTED_TYPE: "E"}
    below = {names.NODE_NAME: "n", names.NODE_RESULT: "expected", names.EXPECTED_TYPE: "E"}
    spans = [made(1, end=2 * MS, attributes=about), made(2, 1, end=MS, attributes=below)]
    assert gather_runs(spans).flows["f"].nodes["n"].computed == 1
    graph = flow_graphs([spans])["f"]
    assert (graph.runs, graph.errors, graph.nodes["n"].errors) == (1, 0, 0)


def test_a_graph_has_the_mean_of_computed_executions() -> None:
    """The time of hits and retried executions is in the total of a node, and not in its mean."""
    kinds = ((None, 20), ("cache_hit", 1), ("retried", 900))
    spans = [made(1, end=1_000 * MS, attributes={names.FLOW_NAME: "f", names.FLOW_NODES: 1})]
    for number, (kind, length) in enumerate(kinds, 2):
        about = {names.NODE_NAME: "n"} | ({names.EXECUTION_KIND: kind} if kind else {})
        spans.append(made(number, 1, end=length * MS, attributes=about))
    seen_node = flow_graphs([spans])["f"].nodes["n"]
    assert (seen_node.executions, seen_node.seconds) == (3, pytest.approx(0.921))
    assert (seen_node.mean, seen_node.slowest) == (0.02, 0.02)


def test_thread_locals_of_known_size_are_added_up() -> None:
    """Eight threads with 50 MB each are told; of unknown size, small, or on one thread, nothing is."""

    def evidence(threads: int) -> RunEvidence:
        runs = gather_runs(spans_of(6, False, {"infer": 0.1}))
        runs.flows["f"].nodes["infer"].providers["model"] = "thread_local"
        runs.flows["f"].nodes["infer"].threads = set(range(threads))
        return runs

    size = 50 * 2**20
    point = one(advise([], evidence(8), {"model": size}), "thread-local-memory")
    assert point.figures == {"threads": 8.0, "bytes": 8.0 * size}
    for runs, sizes in ((evidence(8), {}), (evidence(8), {"model": 1000}), (evidence(1), {"model": 10 * size})):
        assert "thread-local-memory" not in rules(advise([], runs, sizes))


def test_a_cache_that_misses_is_told(seen: Callable[..., list[Advice]]) -> None:
    """Keys that never come again are misses; the same few are hits, and then a smaller cache would do."""

    @node(cache=CachePolicy(maxsize=1000))
    def price(item: int) -> int:
        return item

    def run(keys: int) -> Callable[[], None]:
        return lambda: [price.run({"item": n % keys}) for n in range(300)] and None

    assert one(seen(run(300)), "cache-misses").figures["hit_ratio"] == 0.0
    price.cache.clear()
    cured = seen(run(20))
    assert "cache-misses" not in rules(cured)
    assert one(cured, "cache-oversized").figures["entries"] == 20.0


def cache_of(tmp_path: Path, name: str, hits: int, misses: int, entries: int) -> list[Job]:
    times = {"startTimeUnixNano": str(START), "timeUnixNano": str(START + 1)}
    requests = [
        attributed({"asInt": str(count), **times}, **{names.CACHE_NAME: "c", names.CACHE_RESULT: result})
        for result, count in (("hit", hits), ("miss", misses))
    ]
    held = attributed({"asInt": str(entries), **times}, **{names.CACHE_NAME: "c"})
    line = message(
        metric(names.CACHE_REQUESTS.name, "sum", *requests, isMonotonic=True),
        metric(names.CACHE_ENTRIES.name, "sum", held),
    )
    return read_jobs([save(tmp_path / name, line)])


def test_a_cache_that_evicts_or_is_hardly_asked_is_left_alone(tmp_path: Path) -> None:
    """Entries that had to go show that it is not too large; few requests show nothing."""
    assert advise(cache_of(tmp_path, "full", 900, 100, 50), RunEvidence()) == []
    assert advise(cache_of(tmp_path, "few", 0, 99, 99), RunEvidence()) == []


@pytest.mark.slow
def test_a_pool_that_is_waited_for_is_to_grow(seen: Callable[..., list[Advice]]) -> None:
    """With one object for six threads callers wait; with six none does."""

    def run(size: int) -> Callable[[], None]:
        def program() -> None:
            with ObjectPool(object, max_size=size, block=True, name="connections") as pool:

                def borrow(_: int) -> None:
                    with pool.lease():
                        time.sleep(0.005)

                with ThreadPoolExecutor(6) as threads:
                    list(threads.map(borrow, range(150)))

        return program

    point = one(seen(run(1)), "pool-waits")
    assert point.subject == "connections"
    assert point.figures["wait_p95"] > 0.01
    assert "pool-waits" not in rules(seen(run(6)))


def test_a_pool_that_lies_idle_is_to_shrink(tmp_path: Path) -> None:
    """Of ten objects two were ever seen in use; of four used ones nothing is said, nor of a single look, at exit."""

    def pool(name: str, used: int, idle: int, looks: int = 12) -> list[Job]:
        lines = []
        for look in range(1, looks + 1):
            times = {"startTimeUnixNano": str(START), "timeUnixNano": str(START + look)}
            levels = [
                attributed({"asInt": str(count), **times}, **{names.POOL_NAME: "p", names.POOL_STATE: state})
                for state, count in (("used", used), ("idle", idle))
            ]
            waits = attributed(exponential([1e-6] * 200, **times), **{names.POOL_NAME: "p"})
            lines.append(
                message(
                    metric(names.POOL_OBJECTS.name, "sum", *levels),
                    metric(names.POOL_WAIT.name, "exponentialHistogram", waits),
                )
            )
        return read_jobs([save(tmp_path / name, *lines)])

    point = one(advise(pool("idle", 2, 10), RunEvidence()), "pool-idle")
    assert (point.figures["most_used"], point.figures["looks"]) == (2.0, 12.0)
    assert point.seen == "at 12 looks, at most 2 of 10 objects were in use"
    assert advise(pool("busy", 6, 10), RunEvidence()) == []
    assert advise(pool("small", 1, 3), RunEvidence()) == []
    assert advise(pool("at-exit", 0, 10, looks=1), RunEvidence()) == []
    assert advise([job for n in range(12) for job in pool(f"exit-{n}", 0, 10, looks=1)], RunEvidence()) == []


@pytest.mark.slow
def test_batches_that_time_out_are_told(seen: Callable[..., list[Advice]]) -> None:
    """Items that come one at a time wait in vain for others; where a batch fills up nobody does."""

    def program(size: int, callers: int) -> Callable[[], None]:
        @node(batch=BatchPolicy(size=size, max_wait=0.01))
        def embed(texts: list[int]) -> list[int]:
            return texts

        def run() -> None:
            with ThreadPoolExecutor(callers) as threads:
                list(threads.map(embed, range(110 * callers)))

        return run

    point = one(seen(program(100, 1)), "batch-timeouts")
    assert point.subject == "embed"
    assert point.figures["mean_size"] == pytest.approx(1.0)
    assert point.figures["timed_out"] > 0.5
    assert "batch-timeouts" not in rules(seen(program(1, 1)))


def test_work_that_waits_for_a_worker_is_told(tmp_path: Path) -> None:
    """Waits of the length of a node ask for workers; short ones do not."""

    def waiting(name: str, seconds: float) -> list[Job]:
        waits = attributed(exponential([seconds] * 200), **{names.EXECUTOR_NAME: "threads"})
        nodes = node_durations(of_node(exponential([0.01] * 200), "n"))
        line = message(nodes, metric(names.EXECUTOR_WAIT.name, "exponentialHistogram", waits))
        return read_jobs([save(tmp_path / name, line)])

    assert one(advise(waiting("long", 0.02), RunEvidence()), "executor-waits").subject == "threads"
    assert advise(waiting("short", 0.0005), RunEvidence()) == []


class Client:
    """Does one thing at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def call(self) -> None:
        with self._lock:
            time.sleep(0.004)


class Shared(BaseFlowContext):
    client = providers.ThreadSafeSingleton(Client)


class Apart(BaseFlowContext):
    client = providers.ThreadLocalSingleton(Client)


@pytest.mark.slow
@pytest.mark.parametrize(("context", "told"), [(Shared, True), (Apart, False)])
def test_a_shared_object_that_threads_queue_for_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: type[BaseFlowContext], told: bool
) -> None:
    """Loads show that a node with a locked singleton slows down with threads; with one a thread it does not."""
    from aetherflow.cli import load
    from aetherflow.cli.main import main

    @node
    def ask(n: int, client: Client) -> int:
        client.call()
        return n

    @node
    def rest(n: int) -> int:
        time.sleep(0.004)
        return n

    flow = (ask >> rest).named("shop")
    monkeypatch.setattr(load, "load_flow", lambda *_: (flow, context))
    with configure(exporter="file", directory=tmp_path / "runs"), context() as made_context:
        for n in range(6):
            flow.run(n, made_context)
    options = ["--threads", "1,6", "--duration", "0.5", "--repeats", "1", "--output", "loads"]
    assert main(["load", "m:f", "--context", "m:c", "--input", "n=1", *options]) == 0
    spans = [span for file in (tmp_path / "runs").glob("traces-*") for span in read_spans(file)]
    found = advise(read_jobs(metric_files(["loads"])), gather_runs(spans))
    assert ("singleton-contention" in rules(found)) is told
    if told:
        point = one(found, "singleton-contention")
        assert point.subject == "shop/ask"
        assert "client = providers.ThreadLocalSingleton" in point.change


def test_without_evidence_there_is_no_advice() -> None:
    """Nothing seen, nothing said."""
    assert advise([], RunEvidence()) == []
    assert run_spans(0) == []
