"""Write the reference of all that is emitted, from the conventions: `python -m tools.telemetry_reference`.

What an attribute means is the string below its constant, `type: meaning`; its group is the comment above it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aetherflow.operations.promql import metric_name
from aetherflow.telemetry import conventions
from aetherflow.telemetry.conventions import MetricDefinition

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "telemetry.md"

_HEADING: Final = re.compile(r"^# --- (.+?) -+$", re.MULTILINE)
_TYPED: Final = re.compile(r"([A-Za-z]+(?:\[\])?): (.+)", re.DOTALL)
_SPAN_KINDS: Final = ("INTERNAL", "PRODUCER")
_STANDARD: Final = (
    (conventions.CODE_FUNCTION_NAME, "string", "the qualified name of the node's function."),
    (
        conventions.ERROR_TYPE,
        "string",
        "the class of the exception, with its module unless it is built in; on failures.",
    ),
)
"""Attributes of OpenTelemetry's own conventions, which the module imports."""

_INTRODUCTION: Final = """\
# Telemetry reference

All that AetherFlow emits, under the instrumentation scope `{scope}`. Changing a name is a breaking change. This page is
generated from `aetherflow.telemetry.conventions`, and a test holds it to that.
[What is emitted when](concepts.md#what-is-emitted), [metrics](metrics.md), [profiles](profiling.md) and
[logs](logs.md) say more.
"""


@dataclass(frozen=True, slots=True)
class Name:
    """A name of the conventions.

    Args:
        constant: What it is called in the module.
        value: The name that is emitted.
        group: The heading that it stands under.
        type: Its type; of a span, its kind; empty where the string below it says none.
        meaning: What it means, in Markdown; empty where there is no string below it.
    """

    constant: str
    value: str
    group: str
    type: str
    meaning: str


def names() -> Iterator[Name]:
    """Give every name that is a string, in the order of the module.

    Yields:
        The names, whether or not they are documented.
    """
    source = Path(conventions.__file__).read_text("utf-8")
    headings = [(source.count("\n", 0, found.start()) + 1, found[1]) for found in _HEADING.finditer(source)]
    body = ast.parse(source).body
    for statement, following in zip(body, [*body[1:], None], strict=True):
        match statement:
            case ast.AnnAssign(target=ast.Name(id=constant), value=ast.Constant(value=str(value))):
                group = next((text for line, text in reversed(headings) if line < statement.lineno), "")
                typed = _TYPED.fullmatch(_string(following))
                kind, meaning = (typed[1], " ".join(typed[2].split())) if typed else ("", "")
                yield Name(constant, value, group, kind, meaning)


def page() -> str:
    """Return the whole page, as Markdown."""
    found = [name for name in names() if name.meaning]
    spans = [name for name in found if name.type in _SPAN_KINDS]
    events = [name for name in found if name.type == "event"]
    return "\n".join(
        [
            _INTRODUCTION.format(scope=conventions.SCOPE_NAME),
            "## Spans\n",
            *_table(
                "name | kind | what it is",
                ["`{node}` | INTERNAL | an execution of a node, below its run or the node that called it."],
                (f"`{name.value}` | {name.type} | {name.meaning}" for name in spans),
            ),
            "## Events\n",
            *_table("name | what it is", (f"`{name.value}` | {name.meaning}" for name in events)),
            *_attributes([name for name in found if name not in spans and name not in events]),
            *_metrics(),
        ]
    )


def _string(statement: ast.stmt | None) -> str:
    match statement:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return text
    return ""


def _attributes(found: list[Name]) -> Iterator[str]:
    for group in dict.fromkeys(name.group for name in found):
        yield f"## {group[0].upper()}{group[1:]}\n".replace("Span events", "Attributes of events")
        rows = [f"`{name.value}` | {name.type} | {name.meaning}" for name in found if name.group == group]
        standard = [" | ".join((f"`{name}`", *rest)) for name, *rest in _STANDARD] if group.endswith("of spans") else []
        yield from _table("attribute | type | meaning", rows, standard)


def _metrics() -> Iterator[str]:
    known = conventions.ALL_METRICS
    collected = conventions.COLLECTED_METRICS
    every = [value for value in vars(conventions).values() if isinstance(value, MetricDefinition)]
    yield "## Metrics\n"
    yield (
        "Each carries the attributes listed here and no others. Of a histogram, Prometheus has that name with\n"
        "`_bucket`, `_sum` and `_count`.\n"
    )
    yield from _table(_METRIC, map(_metric, known))
    yield "## Metrics of `aetherflow load`\n"
    yield "Recorded once, when a load is over.\n"
    yield from _table(_METRIC, (_metric(metric) for metric in every if metric not in (*known, *collected)))
    yield "## Metrics that the collector makes of spans\n"
    yield from _table(_METRIC, map(_metric, collected))
    seconds = ", ".join(f"{bound:g}" for bound in conventions.DURATION_BOUNDARIES)
    items = ", ".join(map(str, conventions.SIZE_BOUNDARIES))
    yield "## Boundaries of histograms\n"
    yield "Advised, for back ends without exponential histograms:\n"
    yield f"- seconds: {seconds}\n- items: {items}\n"


_METRIC: Final = "metric, and what Prometheus calls it | instrument, unit | what it is | attributes"


def _metric(metric: MetricDefinition) -> str:
    unit = f"`{metric.unit}`" if metric.unit else "none"
    attributes = ", ".join(f"`{attribute}`" for attribute in metric.attributes)
    instrument = metric.instrument.replace("_", " ")
    name = metric_name(metric)
    return f"`{metric.name}`<br>`{name}` | {instrument}, {unit} | {metric.description} | {attributes}"


def _table(head: str, *rows: Iterable[str]) -> Iterator[str]:
    yield f"| {head} |"
    yield f"|{'---|' * (head.count(' | ') + 1)}"
    yield from (f"| {row} |" for some in rows for row in some)
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page().rstrip() + "\n", encoding="utf-8")
