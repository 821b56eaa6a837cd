"""What a command of the program is, and the arguments that several of them share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final, get_args

from rich.console import Console
from rich.text import Text

from aetherflow.errors import AetherFlowError
from aetherflow.telemetry.export.destination import Exporter

__all__ = [
    "Command",
    "Consoles",
    "ExitCode",
    "UsageError",
    "UsersOwnError",
    "add_display_arguments",
    "add_export_arguments",
    "add_input_arguments",
    "at_least",
    "number",
    "put_out",
    "write_file",
]


class ExitCode(IntEnum):
    """What the program tells the shell: ``FAILED`` is said of what was asked about, ``UNUSABLE`` of all else."""

    FINE = 0
    FAILED = 1
    UNUSABLE = 2
    INTERRUPTED = 130
    NO_READER = 141


class UsageError(AetherFlowError):
    """The command was given something it cannot work with; says what, and how to mend it."""


class UsersOwnError(Exception):
    """Code of the user's raised outside of a run; its cause is shown as Python shows it, and the command has failed."""


@dataclass(frozen=True, slots=True)
class Consoles:
    """Where a command prints: results to ``out``, progress and problems to ``err``."""

    out: Console
    err: Console


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        name: What the user types.
        summary: One line, shown in the list of commands.
        description: What it does, shown by its ``--help``.
        add_arguments: Declares its arguments.
        run: Does it, and gives the exit code; an `AetherFlowError` is told as a bad argument.
        examples: Command lines, shown by its ``--help``.
        gate: Whether CI takes its exit code for a verdict, which a defect of our own must not look like.
    """

    name: str
    summary: str
    description: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Consoles], ExitCode]
    examples: tuple[str, ...] = ()
    gate: bool = False


_EXPORTERS: Final = get_args(Exporter)


def add_display_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what every command that shows a trace takes."""
    parser.add_argument("--all", action="store_true", help="show every span, however many there are of one name")
    parser.add_argument("--no-color", action="store_true", help="print without colours (NO_COLOR=1 does the same)")


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what a flow is run with: its inputs, and its context."""
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="KEY=VALUE|@FILE",
        dest="inputs",
        help="an input: a value that is not JSON is a string; @FILE is a JSON object with several (may be repeated)",
    )
    parser.add_argument(
        "--context", metavar="MODULE:CLASS", help="what nodes are injected from: a BaseFlowContext, or an instance"
    )
    parser.add_argument(
        "--extra-inputs",
        choices=("raise", "ignore"),
        help="treat an input that no parameter takes as an error, or ignore it (default: set by named(), else raise)",
    )


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what every command that runs a flow takes."""
    parser.add_argument(
        "--exporter",
        choices=_EXPORTERS,
        default="auto",
        help="where spans and metrics go; auto, the default, takes what the OTEL_* variables name, else files "
        "below .aetherflow/",
    )


def write_file(file: Path, text: str, *, mode: str = "w") -> None:
    """Write text to a file; what is in the way of that is told as a bad argument."""
    try:
        with file.open(mode, encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror or error}") from error


def put_out(text: str, file: Path | None, consoles: Consoles) -> None:
    """Write text to a file, or to standard output without one."""
    if file is None:
        consoles.out.print(Text(text), soft_wrap=True, end="")
    else:
        write_file(file, text)


def at_least(minimum: int) -> Callable[[str], int]:
    """Give an argument type: a whole number that is not too small."""

    def whole_number(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if number < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {minimum}")
        return number

    return whole_number


def number(*, above: float = -math.inf, least: float = -math.inf, below: float = math.inf) -> Callable[[str], float]:
    """Give an argument type: a number between bounds, which only ``least`` belongs to."""
    bounds = (("above", above), ("at least", least), ("below", below))
    allowed = " and ".join(f"{word} {bound:g}" for word, bound in bounds if math.isfinite(bound))

    def bounded(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (above < value < below and least <= value):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {allowed}".rstrip())
        return value

    return bounded
