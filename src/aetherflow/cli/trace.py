"""``aetherflow trace``: show a trace that is in a file, or give it to another viewer."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from aetherflow.analysis.spans import Span, read_spans
from aetherflow.analysis.traces import TraceSummary, summarise_traces
from aetherflow.cli.command import Command, Consoles, ExitCode, UsageError, add_display_arguments
from aetherflow.cli.output import STANDARD_OUTPUT, write_output
from aetherflow.cli.terminal import format_count, format_seconds, printable
from aetherflow.cli.trace_view import TraceView
from aetherflow.report.chrome_trace import chrome_trace
from aetherflow.report.speedscope import speedscope
from aetherflow.telemetry.export.files import DEFAULT_DIRECTORY, DIRECTORY_VARIABLE, export_directory, latest_file

__all__ = ["COMMAND"]

_LISTED: Final = 10
_EVERY: Final = "all"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE",
        help="OTLP JSON lines or a JSON document, gzipped or not; or a folder, for the newest traces in it "
        f"(default: what {DIRECTORY_VARIABLE} names, or {DEFAULT_DIRECTORY}/)",
    )
    parser.add_argument(
        "--trace-id",
        metavar="PREFIX",
        help="the trace to show: its id, or the beginning of it (default: the newest); or all, with --format",
    )
    parser.add_argument(
        "--format",
        choices=("text", "perfetto", "speedscope"),
        default="text",
        help="text, a waterfall (default); perfetto, Chrome's trace events, for ui.perfetto.dev and chrome://tracing; "
        "or speedscope, for www.speedscope.app",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="where perfetto and speedscope are written (default: standard output)",
    )
    add_display_arguments(parser)


def _run(arguments: argparse.Namespace, consoles: Consoles) -> ExitCode:
    is_text = arguments.format == "text"
    if is_text and arguments.output is not None:
        raise UsageError("-o is for --format perfetto and --format speedscope; text goes to standard output")
    if is_text and arguments.trace_id == _EVERY:
        raise UsageError("--trace-id all is for --format perfetto and --format speedscope")
    file = _file(arguments.file)

    def tell_of_cut(path: Path, line: int) -> None:
        consoles.err.print(
            f"{path}, line {line}: is cut short, so it is left out", markup=False, style="yellow", soft_wrap=True
        )

    summaries = summarise_traces(read_spans(file, on_truncated=tell_of_cut))
    if not summaries:
        raise UsageError(f"{file} holds no spans; give a file of OTLP JSON traces")
    if arguments.trace_id is None:
        chosen = summaries[-1]
        if len(summaries) > 1 and is_text:
            consoles.out.print(_listing(summaries))
    elif arguments.trace_id == _EVERY:
        return _export(arguments, file, list(read_spans(file)), consoles)
    else:
        chosen = _by_prefix(summaries, arguments.trace_id.lower(), file)
    # A second pass keeps only the spans of one trace in memory, however large the file is.
    spans = [span for span in read_spans(file) if span.trace_id == chosen.trace_id]
    if not is_text:
        return _export(arguments, file, spans, consoles)
    consoles.out.print(TraceView(spans, show_all=arguments.all))
    return ExitCode.FINE


def _export(arguments: argparse.Namespace, file: Path, spans: Sequence[Span], consoles: Consoles) -> ExitCode:
    told = chrome_trace(spans) if arguments.format == "perfetto" else speedscope(spans, file.name)
    write_output(arguments.output or STANDARD_OUTPUT, json.dumps(told, separators=(",", ":")) + "\n")
    if arguments.output not in (None, STANDARD_OUTPUT):
        count = format_count(len(spans), "span")
        consoles.err.print(f"{count} written to {arguments.output}", markup=False, soft_wrap=True)
    return ExitCode.FINE


def _file(given: Path | None) -> Path:
    """Give the file to read: the one that was named, or the newest in a folder."""
    if given is not None and not given.is_dir():
        return given
    folder = given or export_directory()
    newest = latest_file("traces", folder)
    if newest is None:
        raise UsageError(f"there are no traces in {folder}/; run 'aetherflow demo' first, or name a file")
    return newest


def _by_prefix(summaries: Sequence[TraceSummary], prefix: str, file: Path) -> TraceSummary:
    found = [summary for summary in summaries if summary.trace_id.startswith(prefix)]
    if not found:
        known = ", ".join(summary.trace_id for summary in summaries[: -_LISTED - 1 : -1])
        raise UsageError(f"no trace in {file} has an id that begins with {prefix!r}; the newest are: {known}")
    if len(found) > 1:
        raise UsageError(f"{len(found):,} traces in {file} have ids that begin with {prefix!r}; give more of the id")
    return found[0]


def _listing(summaries: Sequence[TraceSummary]) -> RenderableType:
    """List the newest traces, the one that is shown below at the end."""
    title = format_count(len(summaries), "trace")
    if len(summaries) > _LISTED:
        title += f", the newest {_LISTED} of them"
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("trace", no_wrap=True)
    table.add_column("started", no_wrap=True)
    table.add_column("name", overflow="ellipsis", no_wrap=True)
    for heading in ("time", "spans", "errors"):
        table.add_column(heading, justify="right", no_wrap=True)
    for summary in summaries[-_LISTED:]:
        began = datetime.fromtimestamp(summary.start / 1e9, UTC).astimezone()
        table.add_row(
            summary.trace_id[:12],
            f"{began:%Y-%m-%d %H:%M:%S}",
            Text(printable(summary.name)),
            format_seconds(summary.duration),
            f"{summary.spans:,}",
            Text(f"{summary.errors:,}" if summary.errors else "", style="red"),
        )
    note = Text("the last one is shown below; --trace-id shows another", style="dim")
    return Group(Text(title, style="bold"), table, note, "")


COMMAND: Final = Command(
    name="trace",
    summary="show a trace that is in a file, as a waterfall",
    description="Show a trace that is in an OTLP JSON file, as a waterfall; or write it for Perfetto or speedscope.",
    add_arguments=_add_arguments,
    run=_run,
    examples=(
        "aetherflow trace",
        "aetherflow trace .aetherflow/traces-20250101T120000.000000Z-42.jsonl",
        "aetherflow trace export.json.gz --trace-id 4bf92f35 --all",
        "aetherflow trace --format perfetto -o trace.json",
        "aetherflow trace export.json.gz --trace-id all --format speedscope -o traces.speedscope.json",
    ),
)
