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
FLOW_NODES: Final = "aetherflow.flow.nodes"
RUN_ID: Final = "aetherflow.run.id"
RUN_RESULT: Final = "aetherflow.run.result"
NODE_NAME: Final = "aetherflow.node.name"
NODE_TYPE: Final = "aetherflow.node.type"
NODE_UPSTREAM: Final = "aetherflow.node.upstream"
NODE_ATTEMPT: Final = "aetherflow.node.attempt"
NODE_RESULT: Final = "aetherflow.node.result"
NODE_CACHE_HIT: Final = "aetherflow.node.cache.hit"
PROVIDER_SCOPE: Final = "aetherflow.provider.scope"
PROVIDER_NAMES: Final = "aetherflow.provider.names"
PROVIDER_SCOPES: Final = "aetherflow.provider.scopes"
BATCH_SIZE: Final = "aetherflow.batch.size"
BATCH_INDEX: Final = "aetherflow.batch.index"
BATCH_COUNT: Final = "aetherflow.batch.count"
BATCH_WAIT: Final = "aetherflow.batch.wait"
STREAM_ITEMS: Final = "aetherflow.stream.items"
LINK_DROPPED_COUNT: Final = "aetherflow.link.dropped_count"
EXECUTOR_NAME: Final = "aetherflow.executor.name"
"""On the span of a submission, and on the metrics of executors."""
THREAD_ID: Final = "thread.id"
THREAD_NAME: Final = "thread.name"

MAX_LINKS: Final = 128
"""Links a fan-in span carries at most; the rest is counted in ``LINK_DROPPED_COUNT``."""

NodeType = Literal["sync", "async", "stream", "batch"]
NodeResult = Literal["failure", "timeout", "cancellation", "skip"]
ProviderScope = Literal["thread_local", "context_local", "singleton", "factory", "mixed", "none", "unknown"]

# --- span names --------------------------------------------------------------------------------------------
RUN_SPAN: Final = "run {flow}"
BATCH_SPAN: Final = "{node} batch"
SUBMIT_SPAN: Final = "submit {node}"

# --- span events -------------------------------------------------------------------------------------------
RETRY_EVENT: Final = "aetherflow.retry"
RETRY_DELAY: Final = "aetherflow.retry.delay"
PROFILE_EVENT: Final = "aetherflow.profile"
PROFILE_PROFILER: Final = "aetherflow.profile.profiler"
PROFILE_FUNCTIONS: Final = "aetherflow.profile.functions"
PROFILE_SELF_TIME: Final = "aetherflow.profile.self_time"
PROFILE_CUMULATIVE_TIME: Final = "aetherflow.profile.cumulative_time"
PROFILE_CALLS: Final = "aetherflow.profile.calls"
PROFILE_TRUNCATED: Final = "aetherflow.profile.truncated"
PROFILE_OTHER_THREADS: Final = "aetherflow.profile.other_threads"
PROFILE_URI: Final = "aetherflow.profile.uri"
PROFILE_SKIPPED: Final = "aetherflow.profile.skipped"

# --- attributes of resources -------------------------------------------------------------------------------
PIPELINE_RUN_ID: Final = "cicd.pipeline.run.id"
"""The CI run that emitted the telemetry, where one is named: the sample that the regression gate compares."""
VCS_REVISION: Final = "vcs.ref.head.revision"
"""The commit that ran, in baselines."""

LOAD_CONCURRENCY: Final = "aetherflow.load.concurrency"
"""Threads that `aetherflow load` called a flow from; with it, all metrics of that process belong to that level."""
LOAD_RATE: Final = "aetherflow.load.rate"
"""Runs a second that it started, whether or not those before had ended; absent where each thread waited for its own."""

# --- fields of log events --------------------------------------------------------------------------------
LOG_FIELDS: Final = {"flow": FLOW_NAME, "node": NODE_NAME}
"""What a log event made inside a node tells besides the ids, and the span attribute that it is taken from."""

# --- attributes of metrics only ----------------------------------------------------------------------------
OPERATION_NAME: Final = "aetherflow.operation.name"
MONITOR_NAME: Final = "aetherflow.monitor.name"
CACHE_NAME: Final = "aetherflow.cache.name"
CACHE_RESULT: Final = "aetherflow.cache.result"
POOL_NAME: Final = "aetherflow.pool.name"
POOL_STATE: Final = "aetherflow.pool.state"
EXECUTOR_STATE: Final = "aetherflow.executor.state"
HEALTH_STATE: Final = "aetherflow.health.state"
TELEMETRY_OUTCOME: Final = "aetherflow.telemetry.outcome"

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
    "aetherflow.node.duration", "histogram", "s", "Duration of node executions.", (FLOW_NAME, NODE_NAME, ERROR_TYPE)
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
    NODE_DURATION, RUN_DURATION, OPERATION_DURATION, NODE_ACTIVE, NODE_RETRIES, BATCH_SIZE_METRIC, BATCH_WAIT_METRIC,
    CACHE_REQUESTS, CACHE_ENTRIES, POOL_OBJECTS, POOL_WAITING, POOL_WAIT, EXECUTOR_QUEUE, EXECUTOR_WORKERS,
    EXECUTOR_WAIT, STREAM_ITEMS_METRIC, HEALTH_STATUS, TELEMETRY_SPANS,
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
    (FLOW_NAME, NODE_NAME, PROVIDER_SCOPE),
)
SPAN_DURATION: Final = MetricDefinition(
    "aetherflow.span.duration",
    "histogram",
    "s",
    "Duration of spans, as the collector read it.",
    (FLOW_NAME, NODE_NAME, PROVIDER_SCOPE),
)
COLLECTED_METRICS: Final = (SPAN_CALLS, SPAN_DURATION)
"""What the collector makes of all spans before it samples any, as ``otel-collector.yaml`` has it: scopes are on spans
only, and of each metric above the attributes are fixed."""
