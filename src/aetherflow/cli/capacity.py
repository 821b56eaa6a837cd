"""``aetherflow capacity``: how a flow scales, its best concurrency, and how many replicas a rate takes."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from aetherflow.analysis.capacity import Capacity, Level, find_capacity, replicas_for
from aetherflow.analysis.usl import Estimate, Scaling
from aetherflow.cli.charts import Chart, Curve, draw_charts
from aetherflow.cli.command import Command, Consoles, ExitCode, UsageError, number, write_file
from aetherflow.cli.sources import listed, read_side, source, without_collections
from aetherflow.cli.terminal import format_seconds

__all__ = ["COMMAND"]

_CURVE_POINTS: Final = 60


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths",
        type=source,
        nargs="+",
        metavar="PATH|URL",
        help="what 'aetherflow load' exported: files, folders, or a Prometheus server: http://host:9090?range=1h",
    )
    parser.add_argument("--rate", type=number(above=0), metavar="R", help="tell how many replicas R runs a second take")
    parser.add_argument(
        "--headroom",
        type=number(least=0, below=1),
        default=0.3,
        metavar="X",
        help="the share of its throughput that a replica keeps free (default: %(default)g)",
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how it is written (default: text)")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw throughput and latency there, too")


@without_collections()
def _run(arguments: argparse.Namespace, consoles: Consoles) -> ExitCode:
    capacity = find_capacity(read_side(arguments.paths, consoles))
    if not capacity.levels:
        raise UsageError(
            f"there are no loads in {listed(arguments.paths)} in which a run was due; "
            "'aetherflow load MODULE:FLOW' makes some"
        )
    replicas = replicas_for(capacity, arguments.rate, arguments.headroom) if arguments.rate else None
    if arguments.format == "json":
        told = json.dumps(_as_json(capacity, replicas), indent=2, allow_nan=False)
        consoles.out.print(Text(told), soft_wrap=True)
    else:
        consoles.out.print(_page(capacity, replicas, arguments))
    if arguments.svg:
        write_file(arguments.svg, _svg(capacity))
    return ExitCode.FINE


def _page(capacity: Capacity, replicas: Estimate | None, arguments: argparse.Namespace) -> RenderableType:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
    for heading in ("threads", "runs/s", "p50", "p99", "failed", "unserved"):
        table.add_column(heading, justify="right", no_wrap=True)
    for level in capacity.levels:
        threads = f"{level.concurrency}" if level.rate is None else f"{level.concurrency}, {level.rate:g}/s due"
        p50, p99 = (format_seconds(value) for value in level.latencies.quantiles(0.5, 0.99))
        table.add_row(
            threads, f"{level.throughput:,.1f}", p50, p99, f"{level.failures or ''}", f"{level.unserved or ''}"
        )
    lines: list[RenderableType] = [table, Text()]
    if capacity.scaling is None:
        lines.append(Text(f"no law of scaling: {capacity.problem}", style="yellow"))
        return Group(*lines)
    lines += [Text(f"{name:<24}{_told(estimate)}") for name, estimate in _figures(capacity.scaling)]
    if replicas is not None:
        name = f"replicas for {arguments.rate:g}/s"
        lines.append(Text(f"{name:<24}{_told(replicas)}, each with {arguments.headroom:.0%} to spare"))
    lines.append(Text("in brackets: intervals of 95 % confidence", style="dim"))
    lines += [Text(f"do not rely on this: {doubt}", style="yellow") for doubt in capacity.scaling.doubts]
    return Group(*lines)


def _figures(scaling: Scaling) -> tuple[tuple[str, Estimate], ...]:
    return (
        ("one thread, runs/s", scaling.rate),
        ("contention (sigma)", scaling.contention),
        ("coherency (kappa)", scaling.coherency),
        ("best concurrency", scaling.peak),
        ("knee", scaling.knee),
    )


def _told(estimate: Estimate) -> str:
    value, low, high = ("no limit" if math.isinf(each) else f"{each:.4g}" for each in _values(estimate))
    return f"{value}  [{low} to {high}]"


def _values(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def _as_json(capacity: Capacity, replicas: Estimate | None) -> dict[str, Any]:
    scaling = capacity.scaling
    return {
        "schema": 1,
        "levels": [_level(level) for level in capacity.levels],
        "scaling": scaling
        and {
            "rate": _estimate(scaling.rate),
            "contention": _estimate(scaling.contention),
            "coherency": _estimate(scaling.coherency),
            "peak": _estimate(scaling.peak),
            "knee": _estimate(scaling.knee),
            "residual": scaling.residual,
            "doubts": list(scaling.doubts),
        },
        "problem": capacity.problem or None,
        "replicas": replicas and _estimate(replicas),
    }


def _level(level: Level) -> dict[str, Any]:
    quantiles = zip(("p50", "p95", "p99"), level.latencies.quantiles(0.5, 0.95, 0.99), strict=True)
    return {
        "concurrency": level.concurrency,
        "rate": level.rate,
        "throughput": level.throughput,
        "throughputs": list(level.throughputs),
        **dict(quantiles),
        "failures": level.failures,
        "unserved": level.unserved,
    }


def _estimate(estimate: Estimate) -> dict[str, float | None]:
    """Give a figure as JSON, in which what has no limit is null."""
    keys = ("value", "low", "high")
    return {key: each if math.isfinite(each) else None for key, each in zip(keys, _values(estimate), strict=True)}


def _svg(capacity: Capacity) -> str:
    closed = [level for level in capacity.levels if level.rate is None]
    measured = {float(level.concurrency): level.throughput for level in closed}
    curves, marks = [Curve(measured, dots=True)], {}
    if capacity.scaling and measured:
        law, most = capacity.scaling.law, max(measured)
        steps = (1 + (most * 1.5 - 1) * step / _CURVE_POINTS for step in range(_CURVE_POINTS + 1))
        curves.append(Curve({at: law.throughput(at) for at in steps}))
        figures = (("knee", law.knee), ("best", law.peak))
        marks = {at: f"{name} {at:.3g}" for name, at in figures if at <= most * 1.5}
    latencies = {float(level.concurrency): level.latencies.quantiles(0.5, 0.99) for level in closed}
    below = [Curve({at: each[number] * 1e3 for at, each in latencies.items()}, dashed=number == 1) for number in (0, 1)]
    return draw_charts(
        [
            Chart("throughput, runs/s: measured, and the law", curves, marks, "threads"),
            Chart("latency, ms: p50, and p99 dashed", below, {}, "threads"),
        ]
    )


COMMAND: Final = Command(
    name="capacity",
    summary="tell how a flow scales, and how many replicas a rate takes",
    description="Fit the Universal Scalability Law to what 'aetherflow load' measured: how much waits for its turn\n"
    "(contention), what threads cost each other (coherency), the concurrency with the highest throughput, the knee\n"
    "beyond which latency rises faster than throughput, and how many replicas a rate takes at the knee.",
    add_arguments=_add_arguments,
    run=_run,
    examples=(
        "aetherflow capacity .aetherflow/load",
        "aetherflow capacity .aetherflow/load --rate 2000 --headroom 0.4 --svg capacity.svg",
    ),
)
