"""``aetherflow trend``: how nodes went over a long series of runs, and where they changed for good."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, get_args

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from aetherflow.analysis.metrics import Job
from aetherflow.analysis.trend import ChangePoint, Method, RateTrend, Trend, find_rate_trends, find_trends
from aetherflow.cli.charts import Chart, Curve, draw_charts, sparkline
from aetherflow.cli.command import Command, Consoles, ExitCode, UsageError, at_least, number, write_file
from aetherflow.cli.regress import add_runner_argument, baseline_paths
from aetherflow.cli.sources import SOURCES, listed, missing, read_side, source, without_collections
from aetherflow.cli.terminal import format_count, format_seconds, printable

__all__ = ["COMMAND"]

_SUITE: Final = "all nodes together"
_LARGEST_SHIFT: Final = 10
"""A shift of more is a mistyped percentage: nobody looks for nodes eleven times as slow only."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths",
        type=source,
        nargs="+",
        metavar="PATH|URL",
        help=f"{SOURCES}; of kept baselines, the one of this machine",
    )
    parser.add_argument(
        "--node", default="*", metavar="PATTERN", help="only nodes named so, as flow/node (default: all)"
    )
    parser.add_argument("--last", type=at_least(1), metavar="N", help="only the newest N runs")
    parser.add_argument(
        "--limit",
        type=number(above=0, below=_LARGEST_SHIFT),
        default=0.10,
        metavar="X",
        help="the smallest change that is told, as a fraction (default: 0.10)",
    )
    parser.add_argument(
        "--method",
        choices=get_args(Method),
        default="steps",
        help="how changes are found: steps, the default, needs nothing; otava is Apache Otava's (extra 'trend')",
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how it is written (default: text)")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the series there, too")
    add_runner_argument(parser)


@without_collections()
def _run(arguments: argparse.Namespace, consoles: Consoles) -> ExitCode:
    if lost := missing(arguments.paths):
        raise UsageError(f"there is no {listed(lost)}")
    jobs = read_side(list(baseline_paths(arguments.paths, arguments.runner, consoles)), consoles)
    jobs = jobs[-arguments.last :] if arguments.last else jobs
    if not jobs:
        raise UsageError(f"there are no metrics in {listed(arguments.paths)}")
    trends = [
        trend
        for trend in find_trends(jobs, limit=arguments.limit, method=arguments.method)
        if fnmatchcase(_name(trend), arguments.node)
    ]
    rates = [
        rate for rate in find_rate_trends(jobs, method=arguments.method) if fnmatchcase(_rated(rate), arguments.node)
    ]
    if arguments.format == "json":
        document = json.dumps(_as_json(trends, rates, jobs), indent=2, ensure_ascii=False)
        consoles.out.print(Text(document), soft_wrap=True)
    else:
        consoles.out.print(_page(trends, [rate for rate in rates if rate.changes], jobs))
    if arguments.svg:
        write_file(arguments.svg, _svg(trends))
    return ExitCode.FINE


def _name(trend: Trend) -> str:
    return str(trend.key) if trend.key else _SUITE


def _rated(rate: RateTrend) -> str:
    """Return the name of the node or cache of a rate."""
    return "/".join(filter(None, (rate.key.flow, rate.key.name)))


def _page(trends: Sequence[Trend], rates: Sequence[RateTrend], jobs: Sequence[Job]) -> RenderableType:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("node", overflow="ellipsis", no_wrap=True)
    table.add_column("last", justify="right", no_wrap=True)
    table.add_column(format_count(len(jobs), "run"), no_wrap=True)
    table.add_column("changes", overflow="fold")
    for trend in trends:
        values = list(trend.values.values())
        last = format_seconds(values[-1]) if trend.key else f"{values[-1] - 1:+.1%}"
        changes = "\n".join(_told(change, f"{change.change:+.1%}") for change in trend.changes)
        table.add_row(Text(printable(_name(trend))), last, sparkline(values), Text(changes))
    for rate in rates:
        values = list(rate.values.values())
        name = f"{rate.key.rate.replace('_', ' ')} of {_rated(rate)}"
        changes = "\n".join(_told(change, f"{100 * change.change:+.1f} points") for change in rate.changes)
        table.add_row(Text(printable(name)), f"{values[-1]:.1%}", sparkline(values), Text(changes))
    note = Text("what the machine did to all nodes of a run is taken out", style="dim")
    return Group(table, note) if any(trend.key is None for trend in trends) else table


def _told(change: ChangePoint, size: str) -> str:
    date = datetime.fromtimestamp(change.time / 1e9, UTC)
    commit = f"commit {change.revision[:12]}" if change.revision else f"run {change.run}"
    return printable(f"{size} since {date:%Y-%m-%d}, {commit}")


def _as_json(trends: Sequence[Trend], rates: Sequence[RateTrend], jobs: Sequence[Job]) -> dict[str, Any]:
    return {
        "schema": 1,
        "runs": [job.name for job in jobs],
        "nodes": [
            {
                "flow": trend.key.flow or None if trend.key else None,
                "node": trend.key.node or None if trend.key else None,
                "metric": trend.key.metric if trend.key else None,
                "values": [trend.values.get(index) for index in range(len(jobs))],
                "changes": _changes(trend),
            }
            for trend in trends
        ],
        "rates": [
            {
                "rate": rate.key.rate,
                "flow": rate.key.flow or None,
                "name": rate.key.name or None,
                "values": [rate.values.get(index) for index in range(len(jobs))],
                "changes": _changes(rate),
            }
            for rate in rates
        ],
    }


def _changes(trend: Trend | RateTrend) -> list[dict[str, Any]]:
    return [
        {
            "index": change.index,
            "run": change.run,
            "revision": change.revision,
            "time": datetime.fromtimestamp(change.time / 1e9, UTC).isoformat(),
            "change": change.change,
        }
        for change in trend.changes
    ]


def _svg(trends: Sequence[Trend]) -> str:
    return draw_charts(
        Chart(
            f"{_name(trend)}, {'ms' if trend.key else 'relative'}",
            [Curve({index: value * 1e3 if trend.key else value for index, value in trend.values.items()})],
            {change.index: f"{change.change:+.0%}" for change in trend.changes},
            "run",
        )
        for trend in trends
    )


COMMAND: Final = Command(
    name="trend",
    summary="show how nodes went over many runs, and where they changed",
    description="Show how the medians of nodes went over a series of runs, and since which run, or commit, they are\n"
    "at another level.",
    add_arguments=_add_arguments,
    run=_run,
    examples=(
        "aetherflow trend baseline/",
        "aetherflow trend baseline/ --node 'checkout/*' --svg trend.svg",
        "aetherflow trend runs/*.jsonl --method otava --format json",
    ),
)
