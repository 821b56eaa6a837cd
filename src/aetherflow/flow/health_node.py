"""`health_check_node`: the health of this process as a node, ready to run."""

from __future__ import annotations

from aetherflow.flow.decorating import node
from aetherflow.telemetry.health.monitor import HealthMonitor, current_monitor
from aetherflow.telemetry.health.report import GuideReport

__all__ = ["health_check_node"]


@node
def health_check_node(*, health: HealthMonitor | None = None) -> GuideReport:
    """Evaluate the health of this process, and return status, timestamp, and the checks with their thresholds.

    Args:
        health: The monitor to ask: a run input or a provider of that name; else that of the process.
    """
    return (current_monitor() if health is None else health).check().to_dict()
