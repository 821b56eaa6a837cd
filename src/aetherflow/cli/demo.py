"""``aetherflow demo``: a real flow over real input, and what its trace looks like."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from rich.console import Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from aetherflow.cli.command import (
    Command,
    Consoles,
    ExitCode,
    add_display_arguments,
    add_export_arguments,
    at_least,
)
from aetherflow.cli.terminal import format_count

if TYPE_CHECKING:
    from aetherflow.cli.demo_flow import DemoContext, Report
    from aetherflow.cli.demo_source import SourceFile

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit", type=at_least(1), metavar="N", help="parse the N largest files only (default: all of them)"
    )
    parser.add_argument(
        "--workers", type=at_least(1), default=4, metavar="N", help="parse on N threads (default: %(default)s)"
    )
    parser.add_argument("--tests", action="store_true", help="parse the library's own tests too, where installed")
    parser.set_defaults(quiet=False)
    add_export_arguments(parser)
    add_display_arguments(parser)


def _run(arguments: argparse.Namespace, consoles: Consoles) -> ExitCode:
    # The engine is imported here, so that other commands start without it.
    from aetherflow.cli.demo_flow import DemoContext, make_flow
    from aetherflow.cli.session import run_watched

    with DemoContext() as context:
        return run_watched(
            make_flow(arguments.workers),
            {"limit": arguments.limit, "tests": arguments.tests},
            context,
            arguments=arguments,
            consoles=consoles,
            show=lambda report: consoles.out.print(_page(report, consoles.out.width)),
            watching=_progress(context, consoles),
        )


class _Bar:
    """Shows on a progress bar what the flow tells its watcher."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def expect(self, files: int) -> None:
        self._progress.update(self._task, total=files)

    def parsed(self, source: SourceFile) -> None:
        self._progress.advance(self._task)


@contextlib.contextmanager
def _progress(context: DemoContext, consoles: Consoles) -> Iterator[None]:
    """Show how many files are parsed while the flow runs, on a terminal."""
    columns = (TextColumn("parsing"), BarColumn(), MofNCompleteColumn(), TextColumn("files"), TimeElapsedColumn())
    bar = Progress(
        *columns, console=consoles.err, transient=True, disable=not consoles.err.is_terminal, redirect_stdout=False
    )
    with bar, context.watcher.override(_Bar(bar, bar.add_task("", total=None))):
        yield


_WIDE: Final = 110
"""Cells from which on tables stand side by side."""


def _page(report: Report, width: int) -> RenderableType:
    """Lay the report out: what was read, then the tables."""
    facts = (
        format_count(report.files, "file"),
        format_count(report.lines, "line"),
        format_count(report.classes, "class", "classes"),
        format_count(report.complexity.functions, "function"),
    )
    head = Text.assemble((f"The standard library of Python {report.python}", "bold"), "\n", " · ".join(facts), "\n")
    tables = (_complexity(report), _imports(report))
    side_by_side = Table.grid(padding=(0, 6, 0, 0))
    side_by_side.add_row(*tables)
    body: RenderableType = side_by_side if width >= _WIDE else Group(tables[0], "", tables[1])
    if not report.unparsed:
        return Group(head, body)
    count = format_count(len(report.unparsed), "file")
    return Group(head, body, "", Text(f"{count} could not be parsed: {', '.join(report.unparsed)}", style="dim"))


def _complexity(report: Report) -> RenderableType:
    found = report.complexity
    table = _table("ways", "function", "where")
    for function in found.most_complex:
        place = Text(f"{function.module}:{function.line}", style="dim")
        table.add_row(f"{function.complexity}", Text(function.name), place)
    note = f"ways through it: the median function has {found.median:g}"
    return Group(Text("Most intricate functions", style="bold"), table, Text(note, style="dim"))


def _imports(report: Report) -> RenderableType:
    found = report.imports
    table = _table("by", "module")
    for module, count in found.most_imported:
        table.add_row(f"{count}", Text(module))
    circle = len(found.largest_circle)
    note = format_count(found.edges, "import")
    note += f"; {circle} modules import each other in a circle" if circle else "; no circle"
    return Group(Text("Most imported modules", style="bold"), table, Text(note, style="dim"))


def _table(number: str, *texts: str) -> Table:
    table = Table(header_style="dim", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(number, justify="right", style="cyan", no_wrap=True, min_width=len(number))
    for text in texts:
        table.add_column(text, overflow="ellipsis", no_wrap=True)
    return table


COMMAND: Final = Command(
    name="demo",
    summary="parse Python's standard library and show the trace of that",
    description="Run a real flow over real input: read the source files of the running Python's standard library,\n"
    "parse them in parts on several threads, analyse them in two ways side by side, and show the trace.",
    add_arguments=_add_arguments,
    run=_run,
    examples=(
        "aetherflow demo",
        "aetherflow demo --limit 60 --workers 2",
        "OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 aetherflow demo",
    ),
)
