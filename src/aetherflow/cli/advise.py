"""``aetherflow advise``: what would make a program faster or smaller, from what it exported."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from rich.text import Text

from aetherflow.analysis.advice import Advice, advise
from aetherflow.analysis.run_evidence import gather_runs
from aetherflow.analysis.spans import Span, read_spans
from aetherflow.cli.command import Command, Consoles, ExitCode, UsageError
from aetherflow.cli.sources import Source, listed, read_side, source, without_collections
from aetherflow.cli.terminal import printable
from aetherflow.telemetry.export.files import DEFAULT_DIRECTORY, DIRECTORY_VARIABLE, export_directory

__all__ = ["COMMAND"]

_SIZES: Final = {"k": 1024, "M": 1024**2, "G": 1024**3}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths",
        type=source,
        nargs="*",
        metavar="PATH|URL",
        help="OTLP JSON of metrics and traces: files, or folders; metrics also from a Prometheus server, "
        "http://host:9090?range=1h "
        f"(default: what {DIRECTORY_VARIABLE} names, or {DEFAULT_DIRECTORY}/)",
    )
    parser.add_argument(
        "--size",
        action="append",
        type=_size,
        default=[],
        metavar="PROVIDER=BYTES",
        help="how much memory an object of a provider takes, such as model=300M (may be repeated)",
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how it is written (default: text)")


def _size(text: str) -> tuple[str, int]:
    name, _, amount = text.partition("=")
    digits, factor = (amount[:-1], _SIZES[amount[-1]]) if amount[-1:] in _SIZES else (amount, 1)
    if not name.isidentifier() or not digits.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not PROVIDER=BYTES, such as model=300M")
    return name, int(digits) * factor


@without_collections()
def _run(arguments: argparse.Namespace, consoles: Consoles) -> ExitCode:
    paths = arguments.paths or [export_directory()]
    jobs = read_side(paths, consoles)
    runs = gather_runs(_spans(paths))
    if not jobs and not runs.flows:
        raise UsageError(f"there is no telemetry in {listed(paths)}; run the program first")
    found = advise(jobs, runs, dict(arguments.size))
    if arguments.format == "json":
        told = [{name: getattr(point, name) for name in Advice.__slots__} for point in found]
        text = json.dumps({"schema": 1, "advice": told}, indent=2, ensure_ascii=False, default=dict)
        consoles.out.print(Text(text), soft_wrap=True)
    elif found:
        for point in found:
            _print(point, consoles)
    else:
        consoles.out.print("nothing in this telemetry asks for a change")
    return ExitCode.FINE


def _spans(sources: Sequence[Source]) -> Iterator[Span]:
    """Read the traces in files, and of folders those that are named so."""
    for path in (each for each in sources if isinstance(each, Path)):
        for file in sorted(path.rglob("traces-*.jsonl*")) if path.is_dir() else (path,):
            yield from read_spans(file)


def _print(point: Advice, consoles: Consoles) -> None:
    consoles.out.print(Text.assemble((printable(point.subject), "bold"), (f"  {point.rule}", "dim")), soft_wrap=True)
    for heading, text in (("seen", point.seen), ("change", point.change), ("check", point.check)):
        consoles.out.print(Text.assemble((f"  {heading:<8}", "dim"), printable(text)), soft_wrap=True)
    consoles.out.print()


COMMAND: Final = Command(
    name="advise",
    summary="tell what would make a program faster or smaller",
    description="Tell from exported metrics and traces what would make a program faster or smaller: what was seen,\n"
    "what to change, and how to see whether it helped. Where the telemetry does not show something, nothing is said.",
    add_arguments=_add_arguments,
    run=_run,
    examples=(
        "aetherflow advise",
        "aetherflow advise .aetherflow/ .aetherflow/load --size model=300M",
        "aetherflow advise traces-*.jsonl metrics-*.jsonl --format json",
    ),
)
