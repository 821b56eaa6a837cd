"""How the outcome of the regression gate is told: as text, Markdown, JSON and JUnit's XML."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Literal, NamedTuple, TypeAlias, get_args
from xml.etree import ElementTree as ET

from aetherflow.analysis.node_evidence import Side
from aetherflow.analysis.rates import RateResult
from aetherflow.analysis.regression import Comparison, NodeResult, SuiteResult, Verdict
from aetherflow.analysis.report import as_json
from aetherflow.cli.terminal import format_count, format_seconds, printable
from aetherflow.telemetry.conventions import NODE_DURATION

__all__ = ["FORMATS", "Format", "render"]

Format: TypeAlias = Literal["text", "json", "markdown", "junit"]
FORMATS: Final = get_args(Format)

_MARKS: Final[Mapping[str, str]] = {"regression": "✗ ", "warning": "⚠ ", "improvement": "✓ ", "ok": "✓ "}


def render(comparison: Comparison, form: Format) -> str:
    """Write the outcome.

    Args:
        comparison: The outcome.
        form: How it is written.

    Returns:
        The text, with a line end at its end.
    """
    return _WRITERS[form](comparison)


class _Row(NamedTuple):
    """What is told of a node, of the suite or of a rate."""

    verdict: str
    name: str
    before: str
    after: str
    change: str
    detectable: str
    samples: str
    remark: str


_HEADINGS: Final = _Row("verdict", "node", "was", "is", "change", "detectable", "jobs (calls)", "")
_RIGHT: Final = {"was", "is", "change", "detectable"}


def _rows(comparison: Comparison) -> Iterator[_Row]:
    suite = comparison.suite
    jobs = f"{suite.baseline_jobs} / {suite.candidate_jobs}"
    yield _Row(_verdict(suite), "whole suite", "", "", *_figures(suite), jobs, suite.reason)
    yield from map(_node_row, comparison.nodes)
    yield from (_rate_row(rate) for rate in comparison.rates if rate.verdict != "ok")


def _node_row(result: NodeResult) -> _Row:
    sides = result.baseline, result.candidate
    samples = " / ".join(f"{side.jobs} ({side.calls:,})" for side in sides)
    was, now = (_time(side, coarse=result.coarse) for side in sides)
    coarse = "by the mean: its buckets are coarse" if result.coarse and result.finding else ""
    remarks = [result.reason, coarse, _left_out(sides)]
    name = str(result.key)
    if result.key.metric != NODE_DURATION.name:
        name += " (run)" if result.key.flow else " (operation)"
    return _Row(_verdict(result), name, was, now, *_figures(result), samples, "; ".join(filter(None, remarks)))


def _left_out(sides: Iterable[Side]) -> str:
    """Return the shares of the executions that were not judged; "" if all were."""
    shares = [sum(side.left_out.values()) / side.executions if side.executions else 0.0 for side in sides]
    percentages = " / ".join(f"{share:.0%}" for share in shares)
    return f"not judged: {percentages} of the executions, which were cached or retried" if any(shares) else ""


def _rate_row(result: RateResult) -> _Row:
    throughput = result.key.rate == "throughput"
    name = f"{result.key.rate.replace('_', ' ')} of {'/'.join(filter(None, (result.key.flow, result.key.name)))}"
    was, now = (f"{value:.3g}/s" if throughput else f"{value:.2%}" for value in (result.baseline, result.candidate))
    change = f"{result.change:+.1%}" if throughput else f"{100 * result.change:+.2f} points"
    return _Row(_verdict(result), name, was, now, change, "", "", result.reason)


def _verdict(result: NodeResult | SuiteResult | RateResult) -> str:
    return "warning" if result.verdict == "regression" and not result.fails else result.verdict


def _figures(result: NodeResult | SuiteResult) -> tuple[str, str]:
    found = result.finding
    return (f"{found.change:+.1%}", f"{found.detectable:+.0%}") if found else ("", "")


def _time(side: Side, *, coarse: bool) -> str:
    value = side.mean if coarse else side.median
    return "" if value is None else format_seconds(value)


def _headline(comparison: Comparison) -> str:
    counts = Counter(_verdict(node) for node in comparison.nodes)
    told = ", ".join(
        f"{counts[name]} {name}" for name in ("regression", "warning", *get_args(Verdict)[1:]) if counts[name]
    )
    suite = comparison.suite
    sides = f"{suite.baseline_jobs} baseline and {suite.candidate_jobs} candidate jobs"
    if comparison.paired:
        sides = format_count(suite.baseline_jobs, "pair")
    return f"{comparison.verdict}: {format_count(len(comparison.nodes), 'node')} ({told or 'none'}), {sides}"


def _text(comparison: Comparison) -> str:
    rows = [_Row(*(printable(cell) for cell in row)) for row in _rows(comparison)]
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows, strict=True)]
    lines = [_headline(comparison), ""]
    for row in (_HEADINGS, *rows):
        cells = [
            cell.rjust(width) if heading in _RIGHT else cell.ljust(width)
            for cell, width, heading in zip(row, widths, _HEADINGS, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def _markdown(comparison: Comparison) -> str:
    rows = list(_rows(comparison))
    shown = [rows[0], *(row for row in rows[1:] if row.verdict != "ok")]
    quiet = [row for row in rows[1:] if row.verdict == "ok"]
    lines = [
        f"### {_MARKS.get(comparison.verdict, '')}Performance: {_headline(comparison)}",
        "",
        *_markdown_table(shown),
    ]
    if quiet:
        summary = f"<summary>{format_count(len(quiet), 'node')} ok</summary>"
        lines += ["", f"<details>{summary}", "", *_markdown_table(quiet), "", "</details>"]
    return "\n".join(lines) + "\n"


def _markdown_table(rows: Iterable[_Row]) -> Iterator[str]:
    yield _markdown_line(_HEADINGS)
    yield "|" + "|".join(" ---: " if heading in _RIGHT else " --- " for heading in _HEADINGS) + "|"
    for row in rows:
        yield _markdown_line(row._replace(verdict=_MARKS.get(row.verdict, "") + row.verdict))


def _markdown_line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"


def _escaped(cell: str) -> str:
    """Keep names from being taken for markup."""
    text = printable(cell).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{sign}" if sign in "\\`*_[]|" else sign for sign in text)


def _json(comparison: Comparison) -> str:
    return json.dumps(as_json(comparison), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _junit(comparison: Comparison) -> str:
    rows = list(_rows(comparison))
    suite = ET.Element("testsuite", name="aetherflow regress", tests=str(len(rows)), errors="0", time="0")
    outcomes = Counter[str]()
    for row in rows:
        case = ET.SubElement(suite, "testcase", classname="aetherflow.regress", name=printable(row.name), time="0")
        figures = f"{row.before} → {row.after}, " if row.before and row.after else ""
        told = printable(f"{row.verdict}: {figures}{row.change}, detectable {row.detectable}; {row.remark}")
        kind = {"regression": "failure", "ok": "", "improvement": ""}.get(row.verdict, "skipped")
        outcomes[kind] += 1
        if kind:
            ET.SubElement(case, kind, message=told)
        else:
            ET.SubElement(case, "system-out").text = told
    suite.set("failures", str(outcomes["failure"]))
    suite.set("skipped", str(outcomes["skipped"]))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


_WRITERS: Final[Mapping[Format, Callable[[Comparison], str]]] = {
    "text": _text,
    "json": _json,
    "markdown": _markdown,
    "junit": _junit,
}
