"""The reference of telemetry is what the conventions say, all of it."""

from __future__ import annotations

from typing import get_args

from tools.telemetry_reference import PAGE, names, page

from aetherflow.telemetry import conventions

NOT_NAMES = {"RETRIED_KIND", "SCOPE_NAME", "UNSERVED"}
"""Strings of the conventions that are neither spans, events nor attributes."""


def test_the_page_is_current() -> None:
    """The committed page is what `python -m tools.telemetry_reference` writes."""
    assert PAGE.read_text("utf-8") == page().rstrip() + "\n"


def test_every_name_is_documented() -> None:
    """Each span, event and attribute has a string below it that says its type and its meaning in one sentence."""
    found = [name for name in names() if name.constant not in NOT_NAMES]
    assert len(found) >= 50
    types = {"string", "string[]", "int", "int[]", "double", "double[]", "boolean", "event", "INTERNAL", "PRODUCER"}
    assert not [name.constant for name in found if name.type not in types or not name.meaning.endswith(".")]


def test_every_name_is_on_the_page() -> None:
    """What the conventions hold is on the page: names, metrics, and the values that an attribute may have."""
    text = PAGE.read_text("utf-8")
    metrics = [value for value in vars(conventions).values() if isinstance(value, conventions.MetricDefinition)]
    literals = [conventions.NodeType, conventions.NodeResult, conventions.ExecutionKind, conventions.ProviderScope]
    wanted = {
        *(name.value for name in names() if name.constant not in NOT_NAMES),
        *(metric.name for metric in metrics),
        *(attribute for metric in metrics for attribute in metric.attributes),
        *(value for literal in literals for value in get_args(literal)),
        conventions.CODE_FUNCTION_NAME,
    }
    assert not {name for name in wanted if f"`{name}`" not in text}
