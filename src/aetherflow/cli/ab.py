"""``aetherflow ab``: run two versions in turn, side by side on one machine, and tell whether one is slower."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Final

from rich.text import Text

from aetherflow.analysis.metrics import Job
from aetherflow.analysis.regression import compare_pairs
from aetherflow.cli.command import Command, Consoles, ExitCode, UsageError, at_least
from aetherflow.cli.regress import add_report_arguments, report, rules_of
from aetherflow.cli.sources import read_side
from aetherflow.cli.terminal import format_seconds
from aetherflow.cli.trials import Trial, checked_out, find_commit, interleaved, run_trial, toplevel
from aetherflow.telemetry.export.files import DIRECTORY_VARIABLE

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--baseline",
        required=True,
        metavar="REF|COMMAND",
        help="what was: a git reference, whose code the candidate's command is run with, or a command",
    )
    parser.add_argument("--candidate", required=True, metavar="COMMAND", help="what is: a command for the shell")
    parser.add_argument(
        "--pairs", type=at_least(1), default=10, metavar="N", help="run each side N times (default: %(default)s)"
    )
    parser.add_argument(
        "--warm-up",
        type=at_least(0),
        default=1,
        metavar="N",
        help="run each side N times before, unmeasured (default: %(default)s)",
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the metrics of all runs in this new folder")
    add_report_arguments(parser)


def _run(arguments: argparse.Namespace, consoles: Consoles) -> ExitCode:
    rules = rules_of(arguments)
    with _terminable(), contextlib.ExitStack() as stack:
        trials = stack.enter_context(_trials(arguments.baseline, arguments.candidate))
        folder = stack.enter_context(_folder(arguments.keep))
        for number in range(arguments.warm_up):
            for trial in trials:
                run_trial(trial, folder / "warm-up" / f"{trial.side}-{number + 1}")
        shutil.rmtree(folder / "warm-up", ignore_errors=True)
        pairs = list(_run_pairs(trials, arguments.pairs, folder, consoles))
    return report(compare_pairs(pairs, rules), arguments, consoles)


def _run_pairs(trials: tuple[Trial, Trial], pairs: int, folder: Path, consoles: Consoles) -> Iterator[tuple[Job, Job]]:
    """Run all pairs, and yield what each emitted."""
    jobs: dict[int, Job] = {}
    seconds: dict[int, float] = {}
    for pair, side in interleaved(pairs):
        trial = trials[side]
        export = folder / trial.side / f"{pair + 1:03}"
        seconds[side] = run_trial(trial, export)
        jobs[side] = _job(trial, export, consoles)
        if len(jobs) < len(trials):
            continue
        told = ", ".join(f"{each.side} {format_seconds(seconds[number])}" for number, each in enumerate(trials))
        consoles.err.print(Text(f"pair {pair + 1} of {pairs}: {told}", style="dim"), soft_wrap=True)
        yield jobs.pop(0), jobs.pop(1)


def _job(trial: Trial, export: Path, consoles: Consoles) -> Job:
    found = read_side([export], consoles, job=f"{trial.side} {export.name}")
    if not found:
        raise UsageError(
            f"the {trial.side} left no metrics: it must call configure(), or export them as OTLP JSON to the folder "
            f"that {DIRECTORY_VARIABLE} names: {trial.command}"
        )
    return found[0]


@contextlib.contextmanager
def _trials(baseline: str, candidate: str) -> Iterator[tuple[Trial, Trial]]:
    """Have both sides ready to run."""
    here = Path.cwd()
    commit = find_commit(baseline)
    if commit is None:
        if len(baseline.split()) <= 1 and shutil.which(baseline) is None:  # with arguments it is a command
            raise UsageError(f"--baseline {baseline!r} is neither a git reference here nor a command")
        yield Trial("baseline", baseline, here), Trial("candidate", candidate, here)
        return
    root = toplevel()
    with checked_out(commit) as other:
        folder = other / here.resolve().relative_to(root.resolve())
        if not folder.is_dir():
            raise UsageError(f"--baseline {baseline}: has no folder {here.resolve().relative_to(root.resolve())}")
        yield Trial("baseline", candidate, folder, other), Trial("candidate", candidate, here, root)


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Have a folder for the metrics of all runs."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="aetherflow-ab-") as temporary:
            yield Path(temporary)
        return
    try:
        keep.mkdir(parents=True)
    except OSError as error:
        raise UsageError(
            f"--keep {keep}: {error.strerror or error}; allowed: a folder that is not there yet"
        ) from error
    yield keep.absolute()


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Clean up as after Ctrl-C when a CI system ends the job."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


COMMAND: Final = Command(
    name="ab",
    summary="run two versions in turn and tell whether one is slower",
    description="Run a baseline and a candidate in turn (A B B A ...), and tell from their metrics which nodes are\n"
    "slower. Each run writes its metrics to a folder of its own, which AETHER_EXPORT_DIRECTORY names; traces are not\n"
    "exported. With a git reference as the baseline, the candidate's command is run on a checkout of it, whose src/,\n"
    "or root, comes first on PYTHONPATH. Exit codes are those of 'aetherflow regress'.",
    add_arguments=_add_arguments,
    run=_run,
    examples=(
        'aetherflow ab --pairs 10 --baseline origin/main --candidate "python bench.py"',
        'aetherflow ab --baseline "python bench.py --old" --candidate "python bench.py --new" --keep runs/',
        "aetherflow ab --baseline HEAD~1 --candidate 'pytest -q bench --aetherflow-export=$AETHER_EXPORT_DIRECTORY'",
    ),
    gate=True,
)
