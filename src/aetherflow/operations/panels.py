"""What a dashboard shows, as data: rows of panels, and the queries behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from aetherflow.operations.promql import INSTANCE, JOB, Query, label, quoted
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


def _one(query: str, *by: str, told: str = "") -> list[Target]:
    return [Target(query, told or _legend(*by))]


_RUN: Final = names.RUN_DURATION
_FLOWS: Final = Row(
    "Flows",
    (
        Panel("Runs", "reqps", _one(_FLOW.rate(_RUN), names.FLOW_NAME), "Runs that ended, a second.", stacked=True),
        Panel("Failed runs", "percentunit", _one(_FLOW.failed(_RUN), names.FLOW_NAME), "The share that failed."),
        Panel(
            "Failures by error",
            "reqps",
            _one(
                _FLOW.where(f'{label(names.ERROR_TYPE)}!=""').split(names.ERROR_TYPE).rate(_RUN),
                names.FLOW_NAME,
                names.ERROR_TYPE,
            ),
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
            _one(_NODE.rate(names.NODE_DURATION), names.FLOW_NAME, names.NODE_NAME),
            "Executions that ended, a second.",
        ),
        Panel(
            "Failed executions",
            "percentunit",
            _one(_NODE.failed(names.NODE_DURATION), names.FLOW_NAME, names.NODE_NAME),
            "The share of executions that failed.",
        ),
        Panel(
            "p95 of the duration",
            "s",
            _quantiles(_NODE, names.NODE_DURATION, 0.95),
            "95 % of executions take no longer. Each dot is an execution: it leads to its trace.",
        ),
        Panel(
            "Average duration",
            "s",
            _one(_NODE.average(names.NODE_DURATION), names.FLOW_NAME, names.NODE_NAME),
            "Time in a node over its executions.",
        ),
        Panel(
            "Where the time goes",
            "short",
            _one(_NODE.busy(names.NODE_DURATION), names.FLOW_NAME, names.NODE_NAME),
            "Seconds spent in a node, a second: as many as executions were under way on average.",
            stacked=True,
        ),
        Panel(
            "Under way",
            "short",
            _one(_NODE.level(names.NODE_ACTIVE), names.FLOW_NAME, names.NODE_NAME),
            "Executions that have begun and not ended.",
            stacked=True,
        ),
        Panel(
            "Retries",
            "ops",
            _one(
                _NODE.split(names.ERROR_TYPE).rate(names.NODE_RETRIES),
                names.FLOW_NAME,
                names.NODE_NAME,
                names.ERROR_TYPE,
            ),
            "Attempts made again, a second, by the class of what was raised.",
        ),
        Panel(
            "Items of streams",
            "ops",
            _one(_NODE.rate(names.STREAM_ITEMS_METRIC), names.FLOW_NAME, names.NODE_NAME),
            "Items that stream stages yielded, a second.",
        ),
    ),
)

_EXECUTOR: Final = _ALL.split(names.EXECUTOR_NAME)
_SCOPE: Final = _ALL.split(names.PROVIDER_SCOPE).where(f'{label(names.PROVIDER_SCOPE)}!=""')
_CONCURRENCY: Final = Row(
    "Concurrency and provider scopes",
    (
        Panel(
            "Workers",
            "short",
            _one(
                _EXECUTOR.split(names.EXECUTOR_STATE).level(names.EXECUTOR_WORKERS),
                names.EXECUTOR_NAME,
                names.EXECUTOR_STATE,
            ),
            "Threads or processes that work, and that wait for work.",
            stacked=True,
        ),
        Panel(
            "Queue",
            "short",
            _one(_EXECUTOR.level(names.EXECUTOR_QUEUE), names.EXECUTOR_NAME),
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
            _one(_SCOPE.rate(names.SPAN_CALLS), names.PROVIDER_SCOPE),
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
            _one(_BATCH.rate(names.BATCH_SIZE_METRIC), names.NODE_NAME),
            "Calls for many, a second.",
        ),
        Panel("Items", "ops", _one(_BATCH.busy(names.BATCH_SIZE_METRIC), names.NODE_NAME), "Items in them, a second."),
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
            _one(_CACHE.share(names.CACHE_REQUESTS, f'{label(names.CACHE_RESULT)}!="miss"'), names.CACHE_NAME),
            "The share of look-ups that computed nothing: found, or waited for another caller's result.",
        ),
        Panel(
            "Look-ups",
            "ops",
            _one(_CACHE.split(names.CACHE_RESULT).rate(names.CACHE_REQUESTS), names.CACHE_NAME, names.CACHE_RESULT),
            "Look-ups a second, by result.",
            stacked=True,
        ),
        Panel("Entries", "short", _one(_CACHE.level(names.CACHE_ENTRIES), names.CACHE_NAME), "Results that are kept."),
        Panel(
            "Pooled objects",
            "short",
            _one(_POOL.split(names.POOL_STATE).level(names.POOL_OBJECTS), names.POOL_NAME, names.POOL_STATE),
            "Objects lent and free.",
            stacked=True,
        ),
        Panel(
            "Callers waiting",
            "short",
            _one(_POOL.level(names.POOL_WAITING), names.POOL_NAME),
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
            _one(_OPERATION.rate(names.OPERATION_DURATION), names.OPERATION_NAME),
            "What PerformanceMonitor.measure() measured, a second.",
        ),
        Panel(
            "Failed operations",
            "percentunit",
            _one(_OPERATION.failed(names.OPERATION_DURATION), names.OPERATION_NAME),
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
            _one(_ALL.split(names.HEALTH_STATE).level(names.HEALTH_STATUS), names.HEALTH_STATE),
            "Processes by what they say of themselves.",
            stacked=True,
        ),
        Panel(
            "Spans",
            "ops",
            _one(_ALL.split(names.TELEMETRY_OUTCOME).rate(names.TELEMETRY_SPANS), names.TELEMETRY_OUTCOME),
            "Spans a second, by what became of them.",
            stacked=True,
        ),
        Panel(
            "Spans lost",
            "percentunit",
            _one(
                _ALL.split(JOB, INSTANCE).share(names.TELEMETRY_SPANS, f'{label(names.TELEMETRY_OUTCOME)}!="exported"'),
                JOB,
                INSTANCE,
            ),
            "The share of spans that were dropped or could not be exported, by process.",
        ),
    ),
)

ROWS: Final = (_FLOWS, _NODES, _CONCURRENCY, _BATCHES, _CACHES, _OPERATIONS, _HEALTH)
"""The dashboard, from what a service does down to how well we know it."""
