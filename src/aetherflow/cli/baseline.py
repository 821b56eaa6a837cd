"""``aetherflow baseline``: keep runs to compare later ones with."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.table import Table
from rich.text import Text

from aetherflow.analysis.baselines import BaselineFile, add_runs, find_baselines, prune_runs, this_machine
from aetherflow.cli.command import Command, Consoles, ExitCode, UsageError, at_least
from aetherflow.cli.regress import add_runner_argument
from aetherflow.cli.sources import SOURCES, listed, read_side, source
from aetherflow.cli.terminal import format_count

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, title="actions")
    add = actions.add_parser("add", help="append accepted runs", allow_abbrev=False)
    add.add_argument("folder", type=Path, metavar="DIR", help="where baselines are kept")
    add.add_argument("paths", type=source, nargs="+", metavar="PATH|URL", help=SOURCES)
    add_runner_argument(add)
    lists = actions.add_parser("list", help="list what is kept", allow_abbrev=False)
    lists.add_argument("folder", type=Path, metavar="DIR", help="where baselines are kept")
    prune = actions.add_parser("prune", help="forget the oldest runs", allow_abbrev=False)
    prune.add_argument("folder", type=Path, metavar="DIR", help="where baselines are kept")
    prune.add_argument(
        "--keep",
        type=at_least(1),
        default=50,
        metavar="N",
        help="runs that are kept of each kind of machine (default: %(default)s)",
    )
    for each in (add, lists, prune):
        each.set_defaults(parser=each)


def _run(arguments: argparse.Namespace, consoles: Consoles) -> ExitCode:
    return {"add": _add, "list": _list, "prune": _prune}[arguments.action](arguments, consoles)


def _add(arguments: argparse.Namespace, consoles: Consoles) -> ExitCode:
    jobs = read_side(arguments.paths, consoles)
    if not jobs:
        raise UsageError(f"there are no metrics in {listed(arguments.paths)}")
    machine = this_machine(os.environ, runner=arguments.runner)
    added = add_runs(arguments.folder, machine, jobs, os.environ)
    known = len(jobs) - len(added)
    told = f"added {format_count(len(added), 'run')} for {machine}"
    consoles.out.print(Text(f"{told}; {known} known already" if known else told), soft_wrap=True)
    return ExitCode.FINE


def _list(arguments: argparse.Namespace, consoles: Consoles) -> ExitCode:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
    for heading in ("runner", "python", "cpu", "runs", "first", "last"):
        table.add_column(heading, justify="right" if heading == "runs" else "left", no_wrap=True, overflow="ellipsis")
    for file in _known(arguments.folder):
        jobs = file.jobs()
        machine = file.machine
        times = (_date(job.started) for job in (jobs[0], jobs[-1])) if jobs else ("", "")
        table.add_row(*map(Text, (machine.runner, machine.python, machine.cpu, f"{len(jobs):,}", *times)))
    consoles.out.print(table)
    return ExitCode.FINE


def _prune(arguments: argparse.Namespace, consoles: Consoles) -> ExitCode:
    for file in _known(arguments.folder):
        gone = prune_runs(file, arguments.keep)
        consoles.out.print(Text(f"forgot {format_count(gone, 'run')} of {file.machine}"), soft_wrap=True)
    return ExitCode.FINE


def _known(folder: Path) -> Iterable[BaselineFile]:
    found = find_baselines(folder)
    if not found:
        raise UsageError(f"there are no baselines in {folder}/; 'aetherflow baseline add {folder} PATH' makes one")
    return found


def _date(nanoseconds: int) -> str:
    return f"{datetime.fromtimestamp(nanoseconds / 1e9, UTC):%Y-%m-%d %H:%M}"


COMMAND: Final = Command(
    name="baseline",
    summary="keep runs to compare later ones with",
    description="Keep runs to compare later ones with: one file for each class of runner, Python and processor, one\n"
    "line a run. 'aetherflow regress --baseline DIR' takes those of the machine that it runs on. Add every accepted\n"
    "run, so that the baseline moves along with the program.",
    add_arguments=_add_arguments,
    run=_run,
    examples=(
        "aetherflow baseline add baseline/ .aetherflow/",
        "aetherflow baseline add baseline/ run.jsonl --runner big-box",
        "aetherflow baseline list baseline/",
        "aetherflow baseline prune baseline/ --keep 30",
    ),
    gate=True,
)
