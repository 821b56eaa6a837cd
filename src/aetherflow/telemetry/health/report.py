"""`HealthReport`: what one evaluation of a `HealthMonitor` found, for people, programs and probes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, TypedDict

from aetherflow.telemetry.health.status import CheckStatus, Status, ViewName

__all__ = ["MEDIA_TYPE", "CheckResult", "GuideCheck", "GuideReport", "HealthReport"]

MEDIA_TYPE: Final = "application/health+json"
"""Of `HealthReport.to_health_json`. Source: draft-inadarei-api-health-check-06."""

_DRAFT_STATUS: Final[dict[CheckStatus, str]] = {"ok": "pass", "warning": "warn", "error": "fail"}


class _GuideCheck(TypedDict):
    status: CheckStatus
    value: float | None
    threshold: float | None


class GuideCheck(_GuideCheck, total=False):
    """One check in `HealthReport.to_dict`; ``output`` only where a number does not say it all."""

    output: str


class GuideReport(TypedDict):
    """What `HealthReport.to_dict` gives; ``timestamp`` is in seconds since the epoch."""

    status: Status
    timestamp: float
    checks: dict[str, GuideCheck]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found."""

    component: str
    """What was looked at, such as ``node fetch``."""
    measurement: str
    """What of it, such as ``p95 latency``; empty for a check that was registered by name."""
    status: CheckStatus
    value: float | None
    """What was measured; None where nothing was."""
    threshold: float | None
    """What the value may reach, and not exceed."""
    unit: str
    """UCUM; ``1`` for a share."""
    views: frozenset[ViewName]
    """The views that it counts in."""
    output: str = ""
    """Why, where a number does not say it."""

    @property
    def name(self) -> str:
        """Component and measurement, such as ``node fetch: p95 latency``."""
        return f"{self.component}: {self.measurement}" if self.measurement else self.component


@dataclass(frozen=True, slots=True)
class HealthReport:
    """What one evaluation found, as one view sees it."""

    status: Status
    """The status that is held: it may lag behind the checks, so that it does not flap."""
    timestamp: float
    """Seconds since the epoch."""
    checks: Mapping[str, CheckResult]
    """The view's checks by name."""
    statuses: Mapping[ViewName, Status]
    """The status of every view."""
    viewed: ViewName = "health"
    """The view."""

    @property
    def passes(self) -> bool:
        """Whether a probe should succeed: unless unhealthy; ready only unless degraded too, for that is saturated."""
        return self.status != "unhealthy" and not (self.viewed == "ready" and self.status == "degraded")

    def view(self, name: ViewName) -> HealthReport:
        """Return the report as another view sees it.

        Args:
            name: Of this report's view's checks, only those that count there too are kept: ask the report that the
                monitor gave, whose view, ``health``, has all of them.
        """
        checks = {key: check for key, check in self.checks.items() if name in check.views}
        return replace(self, status=self.statuses[name], checks=checks, viewed=name)

    def to_dict(self) -> GuideReport:
        """Return status, timestamp, and each check's status, value and threshold; ready for ``json.dumps``."""
        checks: dict[str, GuideCheck] = {}
        for name, check in self.checks.items():
            checks[name] = {"status": check.status, "value": check.value, "threshold": check.threshold}
            if check.output:
                checks[name]["output"] = check.output
        return {"status": self.status, "timestamp": self.timestamp, "checks": checks}

    def to_health_json(self) -> dict[str, Any]:
        """Return the same in the shape of `MEDIA_TYPE`; ready for ``json.dumps``.

        Statuses are ``pass``, ``warn`` and ``fail``; a check that is unknown has none. The threshold, which the draft
        does not know, is added to each check.
        """
        status = "fail" if not self.passes else "warn" if self.status == "degraded" else "pass"
        time = datetime.fromtimestamp(self.timestamp, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        checks: dict[str, list[dict[str, Any]]] = {}
        for check in self.checks.values():
            checks.setdefault(_draft_key(check), []).append(_draft_check(check, time))
        unsure = {"notes": ["nothing was measured often enough to tell"]} if self.status == "unknown" else {}
        return {"status": status, **unsure, "checks": checks}


def _draft_key(check: CheckResult) -> str:
    """Component and measurement, neither of which may contain the colon between them."""
    return f"{check.component.replace(':', '_')}:{check.measurement or 'responseTime'}"


def _draft_check(check: CheckResult, time: str) -> dict[str, Any]:
    told: dict[str, Any] = {"componentType": "component"}
    if check.value is not None:
        told |= {"observedValue": check.value, "observedUnit": check.unit}
    if check.threshold is not None:
        told["threshold"] = check.threshold
    if check.status != "unknown":
        told["status"] = _DRAFT_STATUS[check.status]
    if check.output and check.status != "ok":
        told["output"] = check.output
    return {**told, "time": time}
