"""Alert and recording rules for Prometheus."""

from __future__ import annotations

from typing import Any

from aetherflow.operations.burn_rates import objective_groups
from aetherflow.operations.limits import limit_groups
from aetherflow.operations.objectives import Expectations
from aetherflow.operations.rules import Group, as_document

__all__ = ["alert_document", "alert_groups"]


def alert_groups(expected: Expectations) -> list[Group]:
    """Return all rules.

    Args:
        expected: Thresholds and objective.

    Raises:
        ConfigurationError: No alert can be made from what is expected.
    """
    return [*limit_groups(expected), *objective_groups(expected)]


def alert_document(expected: Expectations) -> dict[str, Any]:
    """Return what a rule file says.

    Args:
        expected: Thresholds and objective.

    Raises:
        ConfigurationError: No alert can be made from what is expected.
    """
    return as_document(alert_groups(expected), expected.labels)
