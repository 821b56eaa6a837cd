"""``aetherflow report``: telemetry as one page for a browser."""

from __future__ import annotations

import argparse
import webbrowser
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from aetherflow.cli.command import Command, Consoles, ExitCode, UsageError, at_least
from aetherflow.cli.output import STANDARD_OUTPUT, write_output
from aetherflow.cli.terminal import format_count
from aetherflow.report.gathering import DEFAULT_SPANS, gather
from aetherflow.report.page import render
from aetherflow.telemetry.export.files import DEFAULT_DIRECTORY, DIRECTORY_VARIABLE, export_directory

__all__ = ["COMMAND"]

_DEFAULT: Final = Path("report.html")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths",
        type=Path,
        nargs="*",
        metavar="TELEMETRY",
        help="OTLP JSON of traces and metrics, gzipped or not: files, or folders, of which the files right in them are "
        f"taken (default: what {DIRECTORY_VARIABLE} names, or {DEFAULT_DIRECTORY}/)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=_DEFAULT,
        metavar="FILE",
        help=f"where the page is written; - is standard output (default: {_DEFAULT})",
    )
    parser.add_argument("--title", help="what the page is called (default: the names of the services)")
    parser.add_argument(
        "--spans",
        type=at_least(1),
        default=DEFAULT_SPANS,
        metavar="N",
        help=f"take the newest traces up to so many spans (default: {DEFAULT_SPANS:,})",
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")


def _run(arguments: argparse.Namespace, consoles: Consoles) -> ExitCode:
    paths = arguments.paths or [export_directory()]
    if not arguments.paths and not paths[0].exists():
        raise UsageError(f"there is no {paths[0]}/; run 'aetherflow demo' first, or name a file or folder")

    def tell_of_cut(path: Path, line: int) -> None:
        consoles.err.print(
            f"{path}, line {line}: is cut short, so it is left out", markup=False, style="yellow", soft_wrap=True
        )

    gathered = gather(paths, spans=arguments.spans, on_truncated=tell_of_cut)
    if not gathered.files:
        raise UsageError(f"there is no OTLP JSON in {', '.join(map(str, paths))}; run the program first")
    page = render(gathered, made=datetime.now(UTC), title=arguments.title)
    write_output(arguments.output, page)
    if arguments.output == STANDARD_OUTPUT:
        return ExitCode.FINE
    traces = format_count(len(gathered.traces), "trace")
    spans = format_count(sum(trace.summary.spans - trace.left_out for trace in gathered.traces), "span")
    consoles.out.print(f"{traces}, {spans}: {arguments.output}", markup=False, soft_wrap=True)
    if arguments.open and not webbrowser.open(arguments.output.resolve().as_uri()):
        consoles.err.print("no browser could be opened; open the file yourself", style="yellow")
    return ExitCode.FINE


COMMAND: Final = Command(
    name="report",
    summary="make a page of telemetry that any browser shows",
    description="Make one HTML page of telemetry: runs as waterfalls with links and critical paths, flow graphs,\n"
    "latencies, health, profiles, batches and caches. Everything is in the page; it asks nothing of any network.",
    add_arguments=_add_arguments,
    run=_run,
    examples=(
        "aetherflow report --open",
        "aetherflow report .aetherflow/ -o report.html",
        "aetherflow report traces.jsonl.gz metrics.jsonl.gz -o nightly.html --title 'Nightly import'",
    ),
)
