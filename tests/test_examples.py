"""The examples run as a reader runs them, print what they say, and leave the traces they are about."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.support.warm_interpreter import run_program

from aetherflow.analysis.spans import Span, read_spans
from aetherflow.telemetry import conventions as names

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

EXECUTIONS = {
    "async_bridge": {"async_bridge_node": 1, "traced_bridge_node": 1, "async_node": 1, "heavy_sync_processor": 9},
    "batching": {"inefficient_processor": 1, "batch_optimized_processor": 2},
    "cached_node": {"fingerprint": 10, "fingerprints": 2, "tag_line": 2},
    "caching": {"cache_aware_processor": 3},
    "concurrency_modes": {"high_frequency_task": 1_000, "low_frequency_task": 3},
    "health": {"lookup": 21, "health_check_node": 6},
    "health_check": {"lookup": 3, "health_check_node": 4},
    "hybrid_context": {"optimized_request_handler": 6},
    "logs": {"price": 1, "tax": 1},
    "micro_batching": {"place": 304},
    "object_pool": {"memory_efficient_processor": 20, "leasing_processor": 1},
    "parallel_partitions": {"data_partitioner": 2, "parallel_processor": 8, "result_aggregator": 2},
    "performance_monitor": {"monitored_processor": 6},
    "production_config": {"process_in_batches": 1},
    "profiled_node": {"profiled_processor": 1},
    "profiling": {"edit_distance": 1, "count_primes": 1, "look_up": 4},
    "serving": {"lookup": 12},
    "stream_stages": {"lines": 4, "requests": 4, "failures": 4, "count": 2, "store": 3, "store batches": 1},
    "streaming": {"streaming_data_source": 1, "streaming_processor": 1, "chunks": 2, "tally": 1},
}
"""How often each node of each example is executed."""


@dataclass(frozen=True)
class Outcome:
    """What a run of an example left behind."""

    code: int
    output: str
    errors: str
    spans: tuple[Span, ...]
    measured: Counter[str]

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


@cache
def run(example: str, **environment: str) -> Outcome:
    """Run an example in a process and folder of its own, with warnings as errors; the same run once only."""
    with TemporaryDirectory() as folder:
        done = run_program(EXAMPLES / f"{example}.py", cwd=folder, env=environment)
        exported = Path(folder, ".aetherflow")
        spans = tuple(span for file in exported.glob("traces-*") for span in read_spans(file))
        measured = Counter[str]()
        for file in exported.glob("metrics-*"):
            measured = Counter(dict(node_counts(file)))
    return Outcome(done.returncode, done.stdout, done.stderr, spans, measured)


def node_counts(file: Path) -> Iterator[tuple[str, int]]:
    """Yield nodes and how often they were measured, failures with the others, as the last export has it."""
    counts = Counter[str]()
    last = json.loads(file.read_text().splitlines()[-1])
    metrics = (
        metric
        for resource in last["resourceMetrics"]
        for scope in resource["scopeMetrics"]
        for metric in scope["metrics"]
    )
    for metric in metrics:
        if metric["name"] == names.NODE_DURATION.name:
            for point in metric["exponentialHistogram"]["dataPoints"]:
                attributes = {item["key"]: item["value"]["stringValue"] for item in point["attributes"]}
                counts[attributes[names.NODE_NAME]] += int(point["count"])
    yield from counts.items()


@pytest.fixture(params=sorted(EXECUTIONS))
def example(request) -> str:
    return request.param


# --- what holds for every one ------------------------------------------------------------------------------


def test_every_example_is_known_here():
    """No example goes untested."""
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(EXECUTIONS)


def test_the_index_names_every_example(example):
    """The index of the examples leads to each of them."""
    assert f"]({example}.py)" in (EXAMPLES / "README.md").read_text()


def test_runs_without_a_complaint(example):
    """An example runs from any folder with an empty environment, and warns of nothing."""
    outcome = run(example)
    assert (outcome.code, outcome.errors) == (0, "")


def test_every_execution_is_a_span(example):
    """Each execution of a node is in the exported trace, once."""
    outcome = run(example)
    nodes = Counter(
        str(span.attributes[names.NODE_NAME]) for span in outcome.spans if names.NODE_TYPE in span.attributes
    )
    assert nodes == EXECUTIONS[example]


def test_every_execution_is_measured(example):
    """The exported histogram counts as many executions as there are spans."""
    assert run(example).measured == EXECUTIONS[example]


def test_every_span_is_below_its_run(example):
    """Each span that is no run's own has its parent in the export, in the same trace; a batch has those it links to."""
    spans = run(example).spans
    ids = {(span.trace_id, span.span_id) for span in spans}
    assert all(
        (span.trace_id, span.parent_id) in ids
        or (span.parent_id is None and names.RUN_ID in span.attributes)
        or (span.parent_id is None and span.links and {(link.trace_id, link.span_id) for link in span.links} <= ids)
        for span in spans
    )


# --- concurrency_modes -------------------------------------------------------------------------------------


def test_light_work_has_a_processor_a_thread():
    """Thread-isolated processors count every call of their own thread, without a lock."""
    output = run("concurrency_modes").output
    assert "4 threads, each 250 light calls: 4 processors\n" in output
    assert "without a lock: [250, 250, 250, 250]\n" in output


def test_heavy_work_shares_one_resource():
    """A singleton is made once, and what it computes is right."""
    output = run("concurrency_modes").output
    assert "primes below 100: 25\nprimes below 1,000: 168\nprimes below 100,000: 9,592\n" in output
    assert "all by the same resource: True\n" in output


def test_the_span_tells_the_concurrency_mode():
    """The span of an execution says how what it was injected with is kept."""
    outcome = run("concurrency_modes")
    scopes = {
        name: {span.attributes[names.PROVIDER_SCOPE] for span in outcome.named(name)}
        for name in ("high_frequency_task", "low_frequency_task")
    }
    assert scopes == {"high_frequency_task": {"thread_local"}, "low_frequency_task": {"singleton"}}


def test_light_work_ran_on_four_threads():
    """The spans show the threads that the work was on, a quarter of it on each."""
    threads = Counter(
        span.attributes[names.THREAD_NAME] for span in run("concurrency_modes").named("high_frequency_task")
    )
    assert list(threads.values()) == [250] * 4


# --- hybrid_context ----------------------------------------------------------------------------------------


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def hybrid(request) -> Outcome:
    """The example's run on a file, and on the server that the environment names."""
    if request.param == "SQLite":
        return run("hybrid_context")
    dsn = os.environ.get("AETHER_TEST_POSTGRES_DSN")
    if not dsn:
        pytest.skip("AETHER_TEST_POSTGRES_DSN names no PostgreSQL database to test with")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    return run("hybrid_context", DATABASE_DSN=dsn)


def test_the_hybrid_handler_answers_alike_in_each_thread(hybrid):
    """Each thread gets the same answers, the repeated request's from its own cache."""
    assert (hybrid.code, hybrid.errors) == (0, "")
    answers = "thread: [['setosa'], ['versicolor', 'virginica'], ['setosa']], of these from its cache: 1\n"
    assert f"first {answers}second {answers}" in hybrid.output


def test_the_hybrid_handler_queries_once_a_thread_and_request(hybrid):
    """What is in a thread's cache is not asked of the shared pool again, and every connection is given back."""
    assert "6 requests, 2 caches, 1 pool: 4 queries\n" in hybrid.output
    made, idle, used = re.search(r"connections: (\d) made, (\d) idle, (\d) in use\n", hybrid.output).groups()
    assert 1 <= int(made) == int(idle) <= 2
    assert used == "0"


def test_the_hybrid_context_runs_on_the_database_that_is_named(request, hybrid):
    """The same code, on a file or on the server."""
    assert hybrid.output.startswith(f"database: {request.node.callspec.params['hybrid']}\n")


def test_the_hybrid_context_shows_mixed_scopes(hybrid):
    """The span names each injected provider with its own scope."""
    for span in hybrid.spans:
        assert span.attributes[names.PROVIDER_SCOPE] == "mixed"
        scopes = dict(zip(span.attributes[names.PROVIDER_NAMES], span.attributes[names.PROVIDER_SCOPES], strict=True))
        assert scopes == {
            "user_session": "thread_local",
            "request_cache": "thread_local",
            "database_pool": "singleton",
            "ml_model": "thread_local",
        }


# --- batching ----------------------------------------------------------------------------------------------


def test_batches_pay_the_overhead_once_each():
    """250 items in batches of 100 are three transactions in place of 250, with the same results."""
    output = run("batching").output
    assert "one by one: 250 results, 250 transactions\nin batches: 250 results, 3 transactions\n" in output
    assert "same results: True\n" in output


def test_full_batches_are_counted_right():
    """Where the last batch is full too, no further one is counted."""
    assert "batches of 50: 5\n" in run("batching").output


# --- caching -----------------------------------------------------------------------------------------------


def test_what_was_computed_is_not_computed_again():
    """The second run finds everything in its thread's cache."""
    output = run("caching").output
    assert "after 1 run: {'hits': 2, 'misses': 3}\nafter 2 runs: {'hits': 7, 'misses': 3}\n" in output


def test_the_cache_is_a_threads_own():
    """Another thread computes for itself."""
    assert "another thread: {'hits': 2, 'misses': 3}\n" in run("caching").output


# --- parallel_partitions -----------------------------------------------------------------------------------


def test_eight_partitions_on_four_workers_are_eight_executions():
    """Every partition is processed once and the aggregator puts all of them together, in order."""
    output = run("parallel_partitions").output
    assert "7,500 numbers in 8 partitions on 4 workers\n" in output
    assert "most Collatz steps: 261, from 6,171\n" in output
    assert "the last partition had 500 numbers\n" in output


def test_no_partitions_still_aggregate():
    """Without data the aggregator runs, over nothing."""
    assert "no data: 0 partitions, and the aggregator still ran\n" in run("parallel_partitions").output


def test_operators_make_the_same_flow():
    """`a >> [b] * 4 >> c` is the flow that the methods make."""
    assert "the same in operators: True\n" in run("parallel_partitions").output


def test_partitions_tell_their_place_in_the_batch():
    """The spans of the partitions carry their index, the count and the size of their element."""
    places = {
        (span.attributes[names.BATCH_INDEX], span.attributes[names.BATCH_COUNT])
        for span in run("parallel_partitions").named("parallel_processor")
    }
    assert places == {(index, 8) for index in range(8)}


def test_the_aggregator_links_to_every_partition():
    """A fan-in's span links to the spans of what it took in."""
    outcome = run("parallel_partitions")
    linked = {link.span_id for span in outcome.named("result_aggregator") for link in span.links}
    assert linked == {span.span_id for span in outcome.named("parallel_processor")}


# --- async_bridge ------------------------------------------------------------------------------------------


def test_a_bare_executor_loses_the_trace():
    """As the guide has it, the bridge and each of its three items are traces of their own."""
    assert "async_bridge_node: [285, 328350, 332833500] in 4 traces\n" in run("async_bridge").output


@pytest.mark.parametrize("bridge", ["traced_bridge_node", "async_node"])
def test_the_context_keeps_one_trace(bridge):
    """With the context taken along, and with `arun`, the items' spans are below the bridge's."""
    outcome = run("async_bridge")
    (top,) = outcome.named(bridge)
    below = [span for span in outcome.named("heavy_sync_processor") if span.parent_id == top.span_id]
    assert f"{bridge}: [285, 328350, 332833500] in 1 trace\n" in outcome.output
    assert [span.trace_id for span in below] == [top.trace_id] * 3


# --- object_pool -------------------------------------------------------------------------------------------


def test_a_pooled_processor_is_lent_over_and_over():
    """Twenty runs in turn share one processor, which is reset in between."""
    output = run("object_pool").output
    assert "20 runs in turn: 1 processor, 20 operations\n" in output
    assert "what the last run left in it: []\n" in output


def test_the_pool_makes_only_what_is_used_at_once():
    """Three users at once are three processors, and all come back."""
    output = run("object_pool").output
    assert "two more held meanwhile: 3 processors, 2 in use\nall back: 3 idle, 0 in use\n" in output


# --- streaming ---------------------------------------------------------------------------------------------


def test_the_stream_is_processed_in_chunks():
    """2,500 lines in chunks of a thousand are three, each folded into the tally."""
    output = run("streaming").output
    assert "2,500 lines in 3 batches of 833\nby status: {'200': 2250, '503': 250}\n" in output


def test_a_generator_node_streams_the_same():
    """A generator node gives what the guide's generator in a mapping gives, item by item when asked."""
    output = run("streaming").output
    assert "with a generator node the same: True\n" in output
    assert "taken one at a time: ['GET /items/0 503', 'GET /items/1 200', 'GET /items/2 200']\n" in output


def test_the_span_of_a_generator_node_counts_its_items():
    """A stream's span says how many items it yielded, also where its consumer stopped early."""
    items = [span.attributes[names.STREAM_ITEMS] for span in run("streaming").named("chunks")]
    assert sorted(items) == [1, 5]


# --- stream_stages -----------------------------------------------------------------------------------------


def test_stages_are_closed_early_last_one_first():
    """One item is taken, and the block is left: the stages have cleaned up by then."""
    output = run("stream_stages").output
    assert "failures: 500\nthe first one: GET /items/0\nclosed early: ['requests', 'lines']\n" in output


def test_stages_on_threads_and_batches_give_the_same():
    """Every failure comes through, and two hundred of them go into one transaction."""
    output = run("stream_stages").output
    assert "the same number on three threads: 500\nstored: 500 in 3 transactions\n" in output


def test_a_stage_on_a_thread_says_so_in_its_span():
    """The span of a stage that was on a thread of its own names it."""
    threads = {span.attributes[names.THREAD_NAME] for span in run("stream_stages").named("lines")}
    assert "aetherflow-stream-lines" in threads


# --- performance_monitor -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "calls"),
    [(r"processor_thread_\d+", 6), ("result_serialization", 5), ("monitored_processor", 6)],
)
def test_the_report_counts_operations_and_nodes(operation, calls):
    """What was measured is reported with its exact count, and so is the node that nobody measured."""
    assert re.search(
        rf"^{operation}:\n   calls:   {calls}\n   average: \d+\.\d{{6}}s$",
        run("performance_monitor").output,
        re.MULTILINE,
    )


def test_the_report_counts_failures():
    """An execution that raised counts among the executions, and as an error."""
    assert "executions of the node: 6, of which failed: 1\n" in run("performance_monitor").output


def test_the_failed_execution_is_an_error_in_the_trace():
    """The span of the execution that raised has the status error and names its type."""
    (failed,) = [span for span in run("performance_monitor").spans if span.failed]
    assert failed.attributes[names.ERROR_TYPE] == "statistics.StatisticsError"


# --- profiled_node -----------------------------------------------------------------------------------------


def test_the_profile_names_the_bottleneck():
    """The report lists the functions of the node with the exact number of their calls."""
    output = run("profiled_node").output
    assert "kitten -> sitting: 3\naether -> weather: 2\nflow -> flow: 0\nprocessed: 3\n" in output
    assert re.search(r"^ +3 .*\(complex_algorithm\)$", output, re.MULTILINE)
    assert re.search(r"^ +100 .*\(cheapest_edit\)$", output, re.MULTILINE)


# --- profiling ---------------------------------------------------------------------------------------------


def test_profiles_name_the_bottlenecks():
    """Counted or sampled, the files lead to the function that takes the time."""
    assert run("profiling").output == (
        "kitten -> sitting: 3\n"
        "it spends its time in cheapest_edit\n"
        "primes below 100,000: 9592\n"
        "it spends its time in is_prime\n"
        "files: count_primes.pstats count_primes.speedscope.json edit_distance.pstats\n"
    )


def test_the_execution_after_a_slow_one_is_profiled():
    """Of four look-ups the one that follows the slow one carries a profile, and no other."""
    spans = sorted(run("profiling").named("look_up"), key=lambda span: span.start)
    assert [[event.name for event in span.events] for span in spans] == [[], [], [names.PROFILE_EVENT], []]


# --- micro_batching ----------------------------------------------------------------------------------------


def test_many_callers_share_a_transaction():
    """Orders of runs and tasks are placed a hundred at a time, and what is wrong with one fails that one alone."""
    assert run("micro_batching").output == (
        "250 runs, from order-0001 to order-0250: 3 transactions\n"
        "50 tasks: 1 transaction, not full, begun after 50 ms\n"
        "order-0301, IntegrityError, BatchItemError, order-0302\n"
        "orders in the table: 302\n"
        "batches: 5, full: 2, tried item by item: 1\n"
        "items: 304, failed: 2\n"
    )


def test_a_batch_links_to_its_orders():
    """The span of each batch is a trace of its own and leads to the executions that it was carried out for."""
    sizes = [span.attributes[names.BATCH_SIZE] for span in run("micro_batching").named("place batch")]
    assert sorted(sizes) == [4, 50, 50, 100, 100]


# --- cached_node -------------------------------------------------------------------------------------------


def test_a_cached_node_computes_once():
    """Eight threads at once are one computation, and only what is invalidated is computed again."""
    assert run("cached_node").output == (
        "8 threads ask at once: 1 answer, computed 1 time\n"
        "invalidated, it is computed again: 2 times\n"
        "requests: 10, computed: 2, entries: 1\n"
        "tags: a, b and a, b\n"
        "injected: 5 requests, 2 hits, computed ['user', 'order', 'invoice']\n"
    )


# --- production_config -------------------------------------------------------------------------------------


def test_settings_have_the_defaults_of_the_guide():
    """Without variables every setting is the guide's, and says that it is the default."""
    lines = run("production_config").output.splitlines()[:8]
    assert lines == [
        "max_threads = 8 (default)",
        "thread_pool_size = 4 (default)",
        "batch_size = 100 (default)",
        "max_batch_wait_time = 1.0 (default)",
        "cache_size = 1000 (default)",
        "cache_ttl = 3600 (default)",
        "memory_pool_size = 10 (default)",
        "gc_threshold = 1000 (default)",
    ]


def test_settings_come_from_the_environment():
    """Variables change what the context provides and how the node works."""
    output = run("production_config", AETHER_BATCH_SIZE="300", AETHER_MEMORY_POOL_SIZE="3").output
    assert "batch_size = 300 (AETHER_BATCH_SIZE)\n" in output
    assert "the pool keeps 3 processors\n1,000 numbers: {'batches': 4, 'total': 499500}\n" in output


def test_a_bad_setting_is_refused_by_name():
    """A value that is not allowed ends the program with one line that names its variable."""
    outcome = run("production_config", AETHER_BATCH_SIZE="many")
    assert outcome.code == 1
    assert outcome.errors == "AETHER_BATCH_SIZE='many' is not allowed; allowed: a whole number, 1 or more\n"


# --- health_check ------------------------------------------------------------------------------------------


def test_health_follows_latency_and_errors():
    """The status is healthy without traffic and with quick calls, degraded when slow, unhealthy with failures."""
    assert run("health_check").output == (
        "before any traffic: healthy {}\n"
        "one quick look-up: healthy {'lookup_latency': 'ok'}\n"
        "a slow one: degraded {'lookup_latency': 'warning'}\n"
        "one of two fails: unhealthy {'lookup_latency': 'ok', 'error_rate': 'error'}\n"
        "error rate: 0.33 of at most 0.01\n"
    )


# --- health ------------------------------------------------------------------------------------------------


def test_a_monitor_tells_when_evaluations_agree():
    """Unknown first, then at once healthy; worse only when a second evaluation agrees, whatever one check says."""
    latency, errors = "'node lookup: average latency'", "'node lookup: error rate'"
    assert run("health").output == (
        "before any traffic: unknown {}\n"
        f"ten quick look-ups: healthy {{{latency}: 'ok', {errors}: 'ok'}}\n"
        f"ten slow ones: healthy {{{latency}: 'warning', {errors}: 'ok'}}\n"
        f"a second evaluation agrees: degraded {{{latency}: 'warning', {errors}: 'ok'}}\n"
        f"one fails: degraded {{{latency}: 'warning', {errors}: 'error'}}\n"
        f"a second evaluation agrees: unhealthy {{{latency}: 'warning', {errors}: 'error'}}\n"
        "live: unknown, for a probe: pass\n"
        "ready: unhealthy, for a probe: fail\n"
        "health: unhealthy, for a probe: fail\n"
    )


# --- logs --------------------------------------------------------------------------------------------------


def test_lines_lead_to_the_trace():
    """Lines of structlog and of the standard library tell the node's span; outside of a flow they tell none."""
    outcome = run("logs")
    opened, priced, assumed = map(json.loads, outcome.output.splitlines())
    assert "trace_id" not in opened
    for line, name, said in ((priced, "price", "priced"), (assumed, "tax", "rate of 19 % assumed")):
        (span,) = outcome.named(name)
        assert (line["event"], line["flow"], line["node"]) == (said, "bill", name)
        assert (line["trace_id"], line["span_id"]) == (span.trace_id, span.span_id)


def test_endpoints_follow_the_process():
    """A process that has not loaded what it needs is alive and not ready; then it is, and its metrics have traces."""
    outcome = run("serving")
    assert outcome.output.splitlines() == [
        "/livez: 200 pass",
        "/readyz: 503 fail",
        "/livez: 200 pass",
        "/readyz: 200 pass",
        "/health: 200 pass",
        "/metrics: 12 executions, with an exemplar: True",
    ]
