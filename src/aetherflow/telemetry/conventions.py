"""Every name AetherFlow emits, with its unit and meaning.

Nothing else in the package spells an attribute, event, span or metric name: dashboards, alert rules, the
regression gate and other people's queries rely on the names below, and changing one is a breaking change.
Stable OpenTelemetry attributes come from ``opentelemetry.semconv.attributes``; incubating ones (``thread.*``)
are copied, because their package makes no promise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from opentelemetry.semconv.attributes.code_attributes import CODE_FUNCTION_NAME
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE

__all__ = [
    "ALL_METRICS",
    "CODE_FUNCTION_NAME",
    "DURATION_BOUNDARIES",
    "ERROR_TYPE",
    "SCOPE_NAME",
    "SIZE_BOUNDARIES",
    "MetricDefinition",
]

SCOPE_NAME: Final = "aetherflow"
"""Instrumentation scope of our tracer and meter."""

# --- attributes of spans ---------------------------------------------------------------------------------
FLOW_NAME: Final = "aetherflow.flow.name"
"""string: the name of the flow, its first node's unless it was given one."""
FLOW_NODES: Final = "aetherflow.flow.nodes"
"""int: how many nodes the flow has; on the span of a run."""
RUN_ID: Final = "aetherflow.run.id"
"""string: what this run alone is called; on the span of a run, or of a node that was run by itself."""
RUN_RESULT: Final = "aetherflow.run.result"
"""string: `failure`, `timeout`, `cancellation` or `expected`, on the span of a run; absent on success."""
NODE_NAME: Final = "aetherflow.node.name"
"""string: the name of the node, its function's unless it was given one."""
NODE_TYPE: Final = "aetherflow.node.type"
"""string: what kind of function it is: `sync`, `async`, `stream`, or `batch` where callers share calls."""
NODE_UPSTREAM: Final = "aetherflow.node.upstream"
"""string[]: the nodes whose output it took; absent where there are none."""
NODE_ATTEMPT: Final = "aetherflow.node.attempt"
"""int: which attempt it was, from 1; only where retries are configured."""
NODE_RESULT: Final = "aetherflow.node.result"
"""string: `failure`, `timeout`, `cancellation` or `expected`; absent on success. `expected` stands for an exception
that the node declares with `expected=`: the status stays unset, and there is no `error.type` and no exception event."""
EXPECTED_TYPE: Final = "aetherflow.expected.type"
"""string: the qualified class name of an expected exception, as in `error.type`; only if the result is `expected`."""
EXECUTION_KIND: Final = "aetherflow.execution.kind"
"""string: `cache_hit`, `coalesced` (waited for the computation of another caller) or `retried` (more than one attempt);
absent if the execution was computed at its first attempt. On spans and on `aetherflow.node.duration`."""
RETRY_WAIT: Final = "aetherflow.retry.wait"
"""double: seconds between the attempts of an execution, in total; only after a retry. Also the name of a metric."""
NODE_CACHE_HIT: Final = "aetherflow.node.cache.hit"
"""boolean: whether the result was taken from the cache; only of cached nodes."""
PROVIDER_SCOPE: Final = "aetherflow.provider.scope"
"""string: how what is injected is kept: `thread_local`, `context_local`, `singleton`, `factory`, `mixed` where
several differ, `none` where nothing is injected, `unknown` where that cannot be told."""
PROVIDER_NAMES: Final = "aetherflow.provider.names"
"""string[]: the providers that are injected."""
PROVIDER_SCOPES: Final = "aetherflow.provider.scopes"
"""string[]: the scope of each of them, in the same order."""
BATCH_SIZE: Final = "aetherflow.batch.size"
"""int: items in the batch, or the length of the element that this execution of a fan-out got, where it has one."""
BATCH_INDEX: Final = "aetherflow.batch.index"
"""int: which item or element it was, from 0."""
BATCH_COUNT: Final = "aetherflow.batch.count"
"""int: how many elements there were, in a fan-out over partitions."""
BATCH_WAIT: Final = "aetherflow.batch.wait"
"""double: seconds the item waited for its batch."""
STREAM_ITEMS: Final = "aetherflow.stream.items"
"""int: items that the stage of a stream yielded."""
LINK_DROPPED_COUNT: Final = "aetherflow.link.dropped_count"
"""int: upstream spans that this one, at its limit, has no link to."""
EXECUTOR_NAME: Final = "aetherflow.executor.name"
"""string: what runs executions: `process`, or the name of a pool of threads; on submissions and metrics."""
THREAD_ID: Final = "thread.id"
"""int: the thread that executed it."""
THREAD_NAME: Final = "thread.name"
"""string: the name of that thread."""

MAX_LINKS: Final = 128
"""Links a fan-in span carries at most; the rest is counted in ``LINK_DROPPED_COUNT``."""

NodeType = Literal["sync", "async", "stream", "batch"]
NodeResult = Literal["failure", "timeout", "cancellation", "expected"]
ExecutionKind = Literal["cache_hit", "coalesced", "retried"]
CACHED_KINDS: Final[tuple[ExecutionKind, ...]] = ("cache_hit", "coalesced")
"""Kinds of executions that returned a result which they did not compute themselves."""
RETRIED_KIND: Final[ExecutionKind] = "retried"
"""The kind of executions that took more than one attempt."""
ProviderScope = Literal["thread_local", "context_local", "singleton", "factory", "mixed", "none", "unknown"]

# --- span names --------------------------------------------------------------------------------------------
RUN_SPAN: Final = "run {flow}"
"""INTERNAL: a run of a flow, below whatever span is current."""
BATCH_SPAN: Final = "{node} batch"
"""INTERNAL: a call for the items of a micro-batch, without a parent; it links to the span of each item."""
SUBMIT_SPAN: Final = "submit {node}"
"""PRODUCER: the sending of an execution to another process; the node's span is below it, a CONSUMER there."""

# --- span events -------------------------------------------------------------------------------------------
RETRY_EVENT: Final = "aetherflow.retry"
"""event: an attempt failed and another follows; with the attempt's number, `error.type` and `exception.message`."""
RETRY_DELAY: Final = "aetherflow.retry.delay"
"""double: seconds until the next attempt."""
PROFILE_EVENT: Final = "aetherflow.profile"
"""event: where the execution spent its time, or why that cannot be told; at most one a span."""
PROFILE_PROFILER: Final = "aetherflow.profile.profiler"
"""string: what took it: `cprofile` or `sampling`."""
PROFILE_FUNCTIONS: Final = "aetherflow.profile.functions"
"""string[]: the functions with the most cumulative time, 20 at most."""
PROFILE_SELF_TIME: Final = "aetherflow.profile.self_time"
"""double[]: seconds in each of them itself."""
PROFILE_CUMULATIVE_TIME: Final = "aetherflow.profile.cumulative_time"
"""double[]: seconds in each of them and in what it called."""
PROFILE_CALLS: Final = "aetherflow.profile.calls"
"""int[]: calls of each of them; of a sampled profile, samples that it was found in."""
PROFILE_TRUNCATED: Final = "aetherflow.profile.truncated"
"""boolean: whether something was left out for its size."""
PROFILE_OTHER_THREADS: Final = "aetherflow.profile.other_threads"
"""boolean: whether calls of other threads may be among them, as with cProfile from Python 3.12 on."""
PROFILE_URI: Final = "aetherflow.profile.uri"
"""string: where the whole profile was written, if a file was asked for."""
PROFILE_SKIPPED: Final = "aetherflow.profile.skipped"
"""string: why a profile that was due could not be taken."""

# --- attributes of resources -------------------------------------------------------------------------------
PIPELINE_RUN_ID: Final = "cicd.pipeline.run.id"
"""string: the CI run that emitted the telemetry, where one is named: the sample that the regression gate compares."""
VCS_REVISION: Final = "vcs.ref.head.revision"
"""string: the commit that ran, in baselines."""

LOAD_CONCURRENCY: Final = "aetherflow.load.concurrency"
"""string: threads that `aetherflow load` called a flow from; all metrics of that process belong to that level."""
LOAD_RATE: Final = "aetherflow.load.rate"
"""string: runs a second that it started, whether or not others had ended; absent where threads waited for their own."""

# --- fields of log events --------------------------------------------------------------------------------
LOG_FIELDS: Final = {"flow": FLOW_NAME, "node": NODE_NAME}
"""What a log event made inside a node tells besides the ids, and the span attribute that it is taken from."""

# --- attributes of metrics only ----------------------------------------------------------------------------
OPERATION_NAME: Final = "aetherflow.operation.name"
"""string: what `PerformanceMonitor.measure` was given."""
MONITOR_NAME: Final = "aetherflow.monitor.name"
"""string: the name of the monitor; absent for one without."""
CACHE_NAME: Final = "aetherflow.cache.name"
"""string: the name of the cache, its node's unless it was given one."""
CACHE_RESULT: Final = "aetherflow.cache.result"
"""string: `hit`, `miss` where the caller computed, `coalesced` where it got what another computed."""
POOL_NAME: Final = "aetherflow.pool.name"
"""string: the name of the object pool."""
POOL_STATE: Final = "aetherflow.pool.state"
"""string: `idle` or `used`."""
EXECUTOR_STATE: Final = "aetherflow.executor.state"
"""string: `idle` or `used`."""
HEALTH_STATE: Final = "aetherflow.health.state"
"""string: `healthy`, `degraded` or `unhealthy`."""
TELEMETRY_OUTCOME: Final = "aetherflow.telemetry.outcome"
"""string: `exported`, `dropped` for want of room or time, or `failed` at the receiver."""

DURATION_BOUNDARIES: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
)  # fmt: skip
"""Advised histogram boundaries in seconds, from 100 µs to 300 s."""

SIZE_BOUNDARIES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Advised histogram boundaries of numbers of items."""

Instrument = Literal["histogram", "counter", "observable_counter", "observable_up_down_counter"]


@dataclass(frozen=True, slots=True)
class MetricDefinition:
    """One metric: its name, instrument, unit (UCUM), meaning and the only attributes it may carry."""

    name: str
    instrument: Instrument
    unit: str
    description: str
    attributes: tuple[str, ...]

    @property
    def ticks(self) -> int:
        """How many of the whole numbers that the store keeps are one unit: a second is kept in nanoseconds."""
        return 1_000_000_000 if self.unit == "s" else 1

    @property
    def boundaries(self) -> tuple[float, ...]:
        """The boundaries advised for a histogram, in its unit."""
        return DURATION_BOUNDARIES if self.unit == "s" else SIZE_BOUNDARIES


NODE_DURATION: Final = MetricDefinition(
    "aetherflow.node.duration",
    "histogram",
    "s",
    "Duration of node executions.",
    (FLOW_NAME, NODE_NAME, ERROR_TYPE, EXECUTION_KIND),
)
RUN_DURATION: Final = MetricDefinition(
    "aetherflow.run.duration", "histogram", "s", "Duration of flow runs.", (FLOW_NAME, ERROR_TYPE)
)
OPERATION_DURATION: Final = MetricDefinition(
    "aetherflow.operation.duration",
    "histogram",
    "s",
    "Duration of operations measured by a PerformanceMonitor.",
    (OPERATION_NAME, MONITOR_NAME, ERROR_TYPE),
)
NODE_ACTIVE: Final = MetricDefinition(
    "aetherflow.node.active",
    "observable_up_down_counter",
    "{execution}",
    "Node executions under way.",
    (FLOW_NAME, NODE_NAME),
)
NODE_RETRIES: Final = MetricDefinition(
    "aetherflow.node.retries", "counter", "{retry}", "Retried attempts.", (FLOW_NAME, NODE_NAME, ERROR_TYPE)
)
RETRY_WAIT_METRIC: Final = MetricDefinition(
    RETRY_WAIT, "histogram", "s", "Time between two attempts.", (FLOW_NAME, NODE_NAME)
)
BATCH_SIZE_METRIC: Final = MetricDefinition(
    "aetherflow.batch.size", "histogram", "{item}", "Items in a micro-batch.", (NODE_NAME,)
)
BATCH_WAIT_METRIC: Final = MetricDefinition(
    "aetherflow.batch.wait", "histogram", "s", "Time an item waited for its batch.", (NODE_NAME,)
)
CACHE_REQUESTS: Final = MetricDefinition(
    "aetherflow.cache.requests", "counter", "{request}", "Cache look-ups by result.", (CACHE_NAME, CACHE_RESULT)
)
CACHE_ENTRIES: Final = MetricDefinition(
    "aetherflow.cache.entries", "observable_up_down_counter", "{entry}", "Entries held by a cache.", (CACHE_NAME,)
)
POOL_OBJECTS: Final = MetricDefinition(
    "aetherflow.pool.objects",
    "observable_up_down_counter",
    "{object}",
    "Objects of a pool by state.",
    (POOL_NAME, POOL_STATE),
)
POOL_WAITING: Final = MetricDefinition(
    "aetherflow.pool.waiting",
    "observable_up_down_counter",
    "{caller}",
    "Callers without an object yet.",
    (POOL_NAME,),
)
POOL_WAIT: Final = MetricDefinition(
    "aetherflow.pool.wait", "histogram", "s", "Time a caller waited for a pooled object.", (POOL_NAME,)
)
EXECUTOR_QUEUE: Final = MetricDefinition(
    "aetherflow.executor.queue",
    "observable_up_down_counter",
    "{task}",
    "Tasks waiting for a worker.",
    (EXECUTOR_NAME, EXECUTOR_STATE),
)
EXECUTOR_WORKERS: Final = MetricDefinition(
    "aetherflow.executor.workers",
    "observable_up_down_counter",
    "{worker}",
    "Workers by state.",
    (EXECUTOR_NAME, EXECUTOR_STATE),
)
EXECUTOR_WAIT: Final = MetricDefinition(
    "aetherflow.executor.wait", "histogram", "s", "Time from submission to start.", (EXECUTOR_NAME,)
)
STREAM_ITEMS_METRIC: Final = MetricDefinition(
    "aetherflow.stream.items", "counter", "{item}", "Items yielded by a stream stage.", (FLOW_NAME, NODE_NAME)
)
HEALTH_STATUS: Final = MetricDefinition(
    "aetherflow.health.status",
    "observable_up_down_counter",
    "1",
    "1 for the current health state, 0 for the others.",
    (HEALTH_STATE,),
)
TELEMETRY_SPANS: Final = MetricDefinition(
    "aetherflow.telemetry.spans", "observable_counter", "{span}", "Spans by what became of them.", (TELEMETRY_OUTCOME,)
)

ALL_METRICS: Final = (
    NODE_DURATION, RUN_DURATION, OPERATION_DURATION, NODE_ACTIVE, NODE_RETRIES, RETRY_WAIT_METRIC, BATCH_SIZE_METRIC,
    BATCH_WAIT_METRIC, CACHE_REQUESTS, CACHE_ENTRIES, POOL_OBJECTS, POOL_WAITING, POOL_WAIT, EXECUTOR_QUEUE,
    EXECUTOR_WORKERS, EXECUTOR_WAIT, STREAM_ITEMS_METRIC, HEALTH_STATUS, TELEMETRY_SPANS,
)  # fmt: skip
"""Every metric, in the order of the telemetry contract."""

LOAD_LATENCY: Final = MetricDefinition(
    "aetherflow.load.latency", "histogram", "s", "Time from when a run was due to its end.", (FLOW_NAME, ERROR_TYPE)
)
LOAD_TIME: Final = MetricDefinition("aetherflow.load.time", "counter", "s", "Time that a load lasted.", (FLOW_NAME,))
UNSERVED: Final = "unserved"
"""The ``error.type`` of a run that was due and never started, with the time that it had waited for."""
# The load generator records these by itself, once, when a load is over: they are none of the instruments above.

SPAN_CALLS: Final = MetricDefinition(
    "aetherflow.span.calls",
    "counter",
    "",
    "Spans, as the collector counted them.",
    (FLOW_NAME, NODE_NAME, PROVIDER_SCOPE, EXECUTION_KIND),
)
SPAN_DURATION: Final = MetricDefinition(
    "aetherflow.span.duration",
    "histogram",
    "s",
    "Duration of spans, as the collector read it.",
    (FLOW_NAME, NODE_NAME, PROVIDER_SCOPE, EXECUTION_KIND),
)
COLLECTED_METRICS: Final = (SPAN_CALLS, SPAN_DURATION)
"""What the collector makes of all spans before it samples any, as ``otel-collector.yaml`` has it: scopes are on spans
only, and of each metric above the attributes are fixed."""
