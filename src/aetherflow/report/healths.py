"""Health as telemetry tells it afterwards: what processes published, and which thresholds were exceeded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from aetherflow.analysis.metrics import Job
from aetherflow.report.figures import counted, recorded, summary
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.health.limits import LimitsByName
from aetherflow.telemetry.health.status import CheckStatus, worst

__all__ = ["MIN_SAMPLES", "health"]

MIN_SAMPLES: Final = 10
"""Values that make a check known, as `HealthMonitor` has it."""

_WINDOW: Final = 60.0


def health(jobs: Sequence[Job], latencies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Hold telemetry to the thresholds that `HealthMonitor` has by default, over all of its time.

    Args:
        jobs: The metrics.
        latencies: As `figures.latencies` gives them.

    Returns:
        ``status`` of all together, ``checks`` with measurement, status, value and threshold, ``published``, the last
        state of each process that published one, and ``spans``, what became of them.
    """
    limits = LimitsByName(_WINDOW, {}, {})
    spans = counted(jobs, names.TELEMETRY_SPANS, names.TELEMETRY_OUTCOME, "")
    outcomes = {outcome: int(sum(counts.values())) for outcome, counts in spans.items()}
    checks = [
        *_of_latencies(latencies, limits),
        *_of_waits(jobs, limits),
        *_of_spans(outcomes, limits),
    ]
    return {
        "status": worst(check["status"] for check in checks),
        "checks": checks,
        "published": list(_published(jobs)),
        "spans": outcomes,
    }


def _of_latencies(latencies: Sequence[Mapping[str, Any]], limits: LimitsByName) -> Iterator[dict[str, Any]]:
    for row in latencies:
        if row["kind"] == "run":
            continue
        allowed = limits.of(row["kind"], row["name"])
        component = f"{row['kind']} {row['name']}"
        count, computed = row["count"], row["computed"]
        if computed:
            yield _check(component, "average latency", row["mean"], allowed["average"], "s", "warning", computed)
            yield _check(component, "p95 latency", row["p95"], allowed["p95"], "s", "warning", computed)
        yield _check(component, "error rate", row["errors"] / count, allowed["error_rate"], "1", "error", count)


def _of_waits(jobs: Sequence[Job], limits: LimitsByName) -> Iterator[dict[str, Any]]:
    for metric, kind, attribute in (
        (names.EXECUTOR_WAIT, "executor", names.EXECUTOR_NAME),
        (names.POOL_WAIT, "pool", names.POOL_NAME),
    ):
        for series, histogram in recorded(jobs, metric).items():
            name = series.get(attribute) or ""
            allowed, found = limits.of(kind, name)["wait"], summary(histogram)
            yield _check(f"{kind} {name}", "p95 wait", found["p95"], allowed, "s", "warning", histogram.count)


def _of_spans(outcomes: Mapping[str, int], limits: LimitsByName) -> Iterator[dict[str, Any]]:
    total = sum(outcomes.values())
    if total:
        allowed = limits.of("telemetry", "spans")["telemetry_loss"]
        share = (total - outcomes.get("exported", 0)) / total
        yield _check("telemetry", "loss", share, allowed, "1", "warning", total)


def _check(
    component: str,
    measurement: str,
    value: float | None,
    threshold: float | None,
    unit: str,
    bad: CheckStatus,
    count: int,
) -> dict[str, Any]:
    status: CheckStatus = "unknown"
    if count >= MIN_SAMPLES and value is not None and threshold is not None:
        status = bad if value > threshold else "ok"
    return {
        "component": component,
        "measurement": measurement,
        "status": status,
        "value": value,
        "threshold": threshold,
        "unit": unit,
    }


def _published(jobs: Sequence[Job]) -> Iterator[dict[str, str]]:
    for job in jobs:
        for series, level in job.levels.items():
            if series.metric == names.HEALTH_STATUS.name and level.last >= 1:
                yield {"job": job.name, "status": series.get(names.HEALTH_STATE) or ""}
