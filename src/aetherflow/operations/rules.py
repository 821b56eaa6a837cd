"""Prometheus's rules as data, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Alert", "Group", "Recording", "as_document"]


@dataclass(frozen=True, slots=True)
class Recording:
    """A series that Prometheus computes and keeps."""

    name: str
    """``level:metric:operations``, as Prometheus's own guide has it."""
    query: str


@dataclass(frozen=True, slots=True)
class Alert:
    """What somebody is told of.

    Attributes:
        name: Of the alert.
        value: The query that is held against the threshold.
        condition: The rest of the expression: the comparison, and what else must be so.
        hold: How long it must be so, such as ``5m``.
        severity: ``critical`` wakes somebody; ``warning`` is for office hours.
        summary: What is wrong, in one line.
        description: What was seen, what was expected, and where to look.
        labels: More labels of the alert.
    """

    name: str
    value: str
    condition: str
    hold: str
    severity: str
    summary: str
    description: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated one after the other."""

    name: str
    rules: Sequence[Recording | Alert]
    interval: str = "30s"


def as_document(groups: Sequence[Group], labels: Mapping[str, str]) -> dict[str, Any]:
    """Give groups the shape of a rule file.

    Args:
        groups: The groups; empty ones are left out.
        labels: What every alert is labelled with, too.
    """
    return {
        "groups": [
            {"name": group.name, "interval": group.interval, "rules": [_as_rule(rule, labels) for rule in group.rules]}
            for group in groups
            if group.rules
        ]
    }


def _as_rule(rule: Recording | Alert, labels: Mapping[str, str]) -> dict[str, Any]:
    if isinstance(rule, Recording):
        return {"record": rule.name, "expr": rule.query}
    return {
        "alert": rule.name,
        "expr": f"{rule.value} {rule.condition}",
        "for": rule.hold,
        "labels": {"severity": rule.severity, **rule.labels, **labels},
        "annotations": {"summary": rule.summary, "description": rule.description},
    }
