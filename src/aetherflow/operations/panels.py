"""What a dashboard shows, as data: rows of panels, and the queries behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, Final, Literal

from aetherflow.operations.promql import INSTANCE, JOB, Query, equals, label, one_of, quoted, unequal
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.conventions import MetricDefinition

__all__ = ["FLOW_VARIABLE", "JOB_VARIABLE", "ROWS", "Panel", "Row", "Target"]

JOB_VARIABLE: Final = "job"
FLOW_VARIABLE: Final = "flow"
"""Names of the dashboard's variables; each may hold several values, or all."""

Unit = Literal["s", "percentunit", "short", "reqps", "ops"]


@dataclass(frozen=True, slots=True)
class Target:
    """One query of a panel.

    Attributes:
        query: In PromQL.
        legend: What its series are called; labels stand in double braces.
        exemplars: Whether single executions are shown beside it, each with a link to its trace.
    """

    query: str
    legend: str
    exemplars: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture.

    Attributes:
        title: What it shows.
        unit: Of its values, as Grafana names it.
        targets: Its queries.
        description: How to read it.
        stacked: Whether the series add up to something.
    """

    title: str
    unit: Unit
    targets: Sequence[Target]
    description: str
    stacked: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: Sequence[Panel]


_ALL: Final = Query("$__rate_interval", (), (f"{JOB}=~{quoted(f'${JOB_VARIABLE}')}",))
_FLOW: Final = _ALL.where(f"{label(names.FLOW_NAME)}=~{quoted(f'${FLOW_VARIABLE}')}").split(names.FLOW_NAME)
_NODE: Final = _FLOW.split(names.NODE_NAME)


def _legend(*attributes: str) -> str:
    return " / ".join(f"{{{{{label(attribute)}}}}}" for attribute in attributes)


def _quantiles(query: Query, metric: MetricDefinition, *quantiles: float) -> list[Target]:
    """Quantiles of a histogram, the first with exemplars: they are of the metric and not of a quantile."""
    return [
        Target(query.quantile(quantile, metric), f"p{quantile * 100:g} {_legend(*query.by)}", exemplars=not place)
        for place, quantile in enumerate(quantiles)
    ]


def _each(measure: Callable[Concatenate[Query, ...], str], query: Query, *of: Any) -> list[Target]:
    """One query, whose series are called after what it is split by."""
    return [Target(measure(query, *of), _legend(*query.by))]


_RUN: Final = names.RUN_DURATION
_FLOWS: Final = Row(
    "Flows",
    (
        Panel("Runs", "reqps", _each(Query.rate, _FLOW, _RUN), "Runs that ended, a second.", stacked=True),
        Panel("Failed runs", "percentunit", _each(Query.failed, _FLOW, _RUN), "The share that failed."),
        Panel(
            "Failures by error",
            "reqps",
            _each(Query.rate, _FLOW.where(unequal(names.ERROR_TYPE, "")).split(names.ERROR_TYPE), _RUN),
            "Runs that failed, a second, by the class of what was raised.",
            stacked=True,
        ),
        Panel(
            "Duration of runs",
            "s",
            _quantiles(_FLOW, _RUN, 0.95, 0.5, 0.99),
            "Half, 95 % and 99 % of runs take no longer. Each dot is a run: it leads to its trace.",
        ),
    ),
)

_NODES: Final = Row(
    "Nodes",
    (
        Panel(
            "Executions",
            "ops",
            _each(Query.rate, _NODE, names.NODE_DURATION),
            "Executions that ended, a second.",
        ),
        Panel(
            "Failed executions",
            "percentunit",
            _each(Query.failed, _NODE, names.NODE_DURATION),
            "The share of executions that failed.",
        ),
        Panel(
            "p95 of the duration",
            "s",
            _quantiles(_NODE, names.NODE_DURATION, 0.95),
            "95 % of executions that were computed at their first attempt take no longer; cache hits and retried ones "
            "are left out. Each dot is an execution: it leads to its trace.",
        ),
        Panel(
            "Average duration",
            "s",
            _each(Query.average, _NODE, names.NODE_DURATION),
            "Time in a node over its executions, without cache hits and retried ones.",
        ),
        Panel(
            "Where the time goes",
            "short",
            _each(Query.busy, _NODE, names.NODE_DURATION),
            "Seconds spent in a node, a second: as many as executions were under way on average.",
            stacked=True,
        ),
        Panel(
            "Under way",
            "short",
            _each(Query.level, _NODE, names.NODE_ACTIVE),
            "Executions that have begun and not ended.",
            stacked=True,
        ),
        Panel(
            "Retries",
            "ops",
            _each(Query.rate, _NODE.split(names.ERROR_TYPE), names.NODE_RETRIES),
            "Attempts made again, a second, by the class of what was raised.",
        ),
        Panel(
            "Retried executions",
            "percentunit",
            _each(Query.share, _NODE, names.NODE_DURATION, equals(names.EXECUTION_KIND, names.RETRIED_KIND)),
            "The share of executions that took more than one attempt.",
        ),
        Panel(
            "Wait between attempts",
            "s",
            _quantiles(_NODE, names.RETRY_WAIT_METRIC, 0.95, 0.5),
            "How long an execution waits before its next attempt.",
        ),
        Panel(
            "Cached executions",
            "percentunit",
            _each(Query.share, _NODE, names.NODE_DURATION, one_of(names.EXECUTION_KIND, names.CACHED_KINDS)),
            "The share of executions that computed nothing: cache hits, and those that waited for another caller.",
        ),
        Panel(
            "Items of streams",
            "ops",
            _each(Query.rate, _NODE, names.STREAM_ITEMS_METRIC),
            "Items that stream stages yielded, a second.",
        ),
    ),
)

_EXECUTOR: Final = _ALL.split(names.EXECUTOR_NAME)
_SCOPE: Final = _ALL.split(names.PROVIDER_SCOPE).where(unequal(names.PROVIDER_SCOPE, ""))
_CONCURRENCY: Final = Row(
    "Concurrency and provider scopes",
    (
        Panel(
            "Workers",
            "short",
            _each(Query.level, _EXECUTOR.split(names.EXECUTOR_STATE), names.EXECUTOR_WORKERS),
            "Threads or processes that work, and that wait for work.",
            stacked=True,
        ),
        Panel(
            "Queue",
            "short",
            _each(Query.level, _EXECUTOR, names.EXECUTOR_QUEUE),
            "Tasks that no worker has begun.",
        ),
        Panel(
            "Wait for a worker",
            "s",
            _quantiles(_EXECUTOR, names.EXECUTOR_WAIT, 0.95, 0.5),
            "From submission to start: long where there are too few workers.",
        ),
        Panel(
            "Executions by provider scope",
            "ops",
            _each(Query.rate, _SCOPE, names.SPAN_CALLS),
            "What nodes are injected with, told from spans: needs the collector of otel-collector.yaml.",
            stacked=True,
        ),
        Panel(
            "Duration by provider scope",
            "s",
            _quantiles(_SCOPE, names.SPAN_DURATION, 0.95),
            "Told from all spans, before any are sampled: needs the collector of otel-collector.yaml.",
        ),
    ),
)

_BATCH: Final = _ALL.split(names.NODE_NAME)
_BATCHES: Final = Row(
    "Batches",
    (
        Panel(
            "Batches",
            "ops",
            _each(Query.rate, _BATCH, names.BATCH_SIZE_METRIC),
            "Calls for many, a second.",
        ),
        Panel("Items", "ops", _each(Query.busy, _BATCH, names.BATCH_SIZE_METRIC), "Items in them, a second."),
        Panel(
            "Size",
            "short",
            [
                Target(_BATCH.average(names.BATCH_SIZE_METRIC), f"average {_legend(names.NODE_NAME)}"),
                *_quantiles(_BATCH, names.BATCH_SIZE_METRIC, 0.95),
            ],
            "Items in a batch. Small ones mean that callers come one by one, or that it waits too short.",
        ),
        Panel(
            "Wait for a batch",
            "s",
            _quantiles(_BATCH, names.BATCH_WAIT_METRIC, 0.95, 0.5),
            "How long an item waits for its batch to be full.",
        ),
    ),
)

_CACHE: Final = _ALL.split(names.CACHE_NAME)
_POOL: Final = _ALL.split(names.POOL_NAME)
_CACHES: Final = Row(
    "Caches and pools",
    (
        Panel(
            "Hits",
            "percentunit",
            _each(Query.share, _CACHE, names.CACHE_REQUESTS, unequal(names.CACHE_RESULT, "miss")),
            "The share of look-ups that computed nothing: found, or waited for another caller's result.",
        ),
        Panel(
            "Look-ups",
            "ops",
            _each(Query.rate, _CACHE.split(names.CACHE_RESULT), names.CACHE_REQUESTS),
            "Look-ups a second, by result.",
            stacked=True,
        ),
        Panel("Entries", "short", _each(Query.level, _CACHE, names.CACHE_ENTRIES), "Results that are kept."),
        Panel(
            "Pooled objects",
            "short",
            _each(Query.level, _POOL.split(names.POOL_STATE), names.POOL_OBJECTS),
            "Objects lent and free.",
            stacked=True,
        ),
        Panel(
            "Callers waiting",
            "short",
            _each(Query.level, _POOL, names.POOL_WAITING),
            "They have none yet.",
        ),
        Panel(
            "Wait for an object",
            "s",
            _quantiles(_POOL, names.POOL_WAIT, 0.95, 0.5),
            "Long where a pool is too small, or its objects are kept too long.",
        ),
    ),
)

_OPERATION: Final = _ALL.split(names.OPERATION_NAME)
_OPERATIONS: Final = Row(
    "Operations",
    (
        Panel(
            "Operations",
            "ops",
            _each(Query.rate, _OPERATION, names.OPERATION_DURATION),
            "What PerformanceMonitor.measure() measured, a second.",
        ),
        Panel(
            "Failed operations",
            "percentunit",
            _each(Query.failed, _OPERATION, names.OPERATION_DURATION),
            "The share of them that failed.",
        ),
        Panel(
            "Duration of operations",
            "s",
            _quantiles(_OPERATION, names.OPERATION_DURATION, 0.95, 0.5),
            "Half, and 95 % of them, take no longer.",
        ),
    ),
)

_HEALTH: Final = Row(
    "Health and telemetry",
    (
        Panel(
            "Health",
            "short",
            _each(Query.level, _ALL.split(names.HEALTH_STATE), names.HEALTH_STATUS),
            "Processes by what they say of themselves.",
            stacked=True,
        ),
        Panel(
            "Spans",
            "ops",
            _each(Query.rate, _ALL.split(names.TELEMETRY_OUTCOME), names.TELEMETRY_SPANS),
            "Spans a second, by what became of them.",
            stacked=True,
        ),
        Panel(
            "Spans lost",
            "percentunit",
            _each(
                Query.share,
                _ALL.split(JOB, INSTANCE),
                names.TELEMETRY_SPANS,
                unequal(names.TELEMETRY_OUTCOME, "exported"),
            ),
            "The share of spans that were dropped or could not be exported, by process.",
        ),
    ),
)

ROWS: Final = (_FLOWS, _NODES, _CONCURRENCY, _BATCHES, _CACHES, _OPERATIONS, _HEALTH)
"""The dashboard, from what a service does down to how well we know it."""
