"""``aetherflow regress``: did anything become slower, from exported metrics of jobs before and after."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from rich.text import Text

from aetherflow.analysis.baselines import find_baselines, this_machine
from aetherflow.analysis.regression import Comparison, compare_jobs
from aetherflow.analysis.regression_rules import Rules, read_rules
from aetherflow.cli.command import Command, Consoles, ExitCode, UsageError, write_file
from aetherflow.cli.regression_report import FORMATS, render
from aetherflow.cli.sources import SOURCES, Source, listed, missing, read_side, source, without_collections

__all__ = [
    "COMMAND",
    "add_report_arguments",
    "add_runner_argument",
    "baseline_paths",
    "report",
    "rules_of",
]

_STEP_SUMMARY: Final = "GITHUB_STEP_SUMMARY"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    for option, told in (("--baseline", "what was"), ("--candidate", "what is")):
        parser.add_argument(
            option,
            nargs="+",
            action="extend",
            type=source,
            default=[],
            required=option == "--candidate",
            metavar="PATH|URL",
            help=f"{told}: {SOURCES}",
        )
    parser.add_argument(
        "--require-baseline",
        action="store_true",
        help="fail with exit code 2 where there is no baseline to compare with",
    )
    add_runner_argument(parser)
    add_report_arguments(parser)


def add_runner_argument(parser: argparse.ArgumentParser) -> None:
    """Declare what every command takes that keeps or finds baselines by machine."""
    parser.add_argument(
        "--runner", metavar="CLASS", help="the class of this runner, in kept baselines (default: as the CI system says)"
    )


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what every command takes that judges and reports."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="limits, for all nodes or some (TOML)")
    parser.add_argument("--format", choices=FORMATS, default="text", help="how the report is written (default: text)")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write the report there, and print it as text all the same"
    )


@without_collections()
def _run(arguments: argparse.Namespace, consoles: Consoles) -> ExitCode:
    rules = rules_of(arguments)
    candidate = read_side(arguments.candidate, consoles)
    if not candidate:
        raise UsageError(f"there are no metrics in {listed(arguments.candidate)}; --candidate must hold some")
    lost = missing(arguments.baseline)
    given = [each for each in arguments.baseline if each not in lost]
    if given and lost:  # none at all is the first run of all; some is a slip
        raise UsageError(f"there is no {listed(lost)}, which --baseline names beside {listed(given)}")
    baseline = read_side(list(baseline_paths(given, arguments.runner, consoles)), consoles)
    if not baseline:
        told = (
            f"there are no metrics in {listed(arguments.baseline)}" if arguments.baseline else "--baseline is not given"
        )
        if arguments.require_baseline:
            raise UsageError(f"there is no baseline: {told}")
        consoles.err.print(Text(f"nothing to compare with: {told}", style="yellow"), soft_wrap=True)
        return ExitCode.FINE
    if both := {job.name for job in baseline} & {job.name for job in candidate}:
        raise UsageError(
            f"on both sides: {', '.join(sorted(both))}; a job is either of the baseline or of the candidate"
        )
    return report(compare_jobs(baseline, candidate, rules), arguments, consoles)


def baseline_paths(sources: Iterable[Source], runner: str | None, consoles: Consoles) -> Iterator[Source]:
    """Give the files, folders and servers to read; of kept baselines the one of this machine.

    Args:
        sources: Files and folders that are there, and servers.
        runner: The class of this runner, where it is known better than from the variables of the CI system.
        consoles: Where it is told that there is none of this machine.
    """
    machine = this_machine(os.environ, runner=runner)
    for path in sources:
        found = find_baselines(path) if isinstance(path, Path) and path.is_dir() else ()
        kept = {file.machine: file.path for file in found}
        if not kept:
            yield path
        elif machine in kept:
            yield kept[machine]
        else:
            told = f"{path} has no baseline for {machine}; it has some for: {'; '.join(map(str, kept))}"
            consoles.err.print(Text(told, style="yellow"), soft_wrap=True)


def rules_of(arguments: argparse.Namespace) -> Rules:
    """Read the configuration that was named, if one was."""
    return read_rules(arguments.config) if arguments.config else Rules()


def report(comparison: Comparison, arguments: argparse.Namespace, consoles: Consoles) -> ExitCode:
    """Write the report where it was asked for, and in the summary of a GitHub step.

    Args:
        comparison: What to report.
        arguments: Those of `add_report_arguments`.
        consoles: Where to print.

    Returns:
        Whether the job fails.

    Raises:
        UsageError: The report cannot be written.
    """
    if arguments.output:
        write_file(arguments.output, render(comparison, arguments.format))
    shown = render(comparison, "text" if arguments.output else arguments.format)
    consoles.out.print(Text(shown), end="", soft_wrap=True)
    if summary := os.environ.get(_STEP_SUMMARY):
        write_file(Path(summary), render(comparison, "markdown"), mode="a")
    return ExitCode.FAILED if comparison.failed else ExitCode.FINE


COMMAND: Final = Command(
    name="regress",
    summary="tell whether nodes became slower, from exported metrics",
    description="Compare exported metrics of jobs before and after: tell which nodes became slower, beyond what the\n"
    "machine did to all of them, and what could have been found. A job is a CI run (cicd.pipeline.run.id), or a file.\n"
    "Exit code 1: something became slower beyond its limit, and there were enough jobs to say so; 2: no verdict, for\n"
    "example on unusable input.",
    add_arguments=_add_arguments,
    run=_run,
    examples=(
        "aetherflow regress --baseline baseline/ --candidate .aetherflow/",
        "aetherflow regress --baseline main/*.jsonl --candidate pr/*.jsonl --config regress.toml",
        "aetherflow regress --baseline baseline/ --candidate now/ --format junit --output regress.xml",
        "aetherflow regress --baseline 'http://prom:9090?range=14d&run=1198&run=1199' --candidate .aetherflow/",
    ),
    gate=True,
)
