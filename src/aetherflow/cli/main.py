"""``aetherflow``: finds the command that was asked for, runs it, and tells how it went as an exit code."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata
from typing import Final, NoReturn

from aetherflow.cli import (
    ab,
    advise,
    alerts,
    baseline,
    capacity,
    config,
    dashboard,
    demo,
    load,
    regress,
    report,
    run,
    serve,
    top,
    trace,
    trend,
)
from aetherflow.cli.command import Command, Consoles, ExitCode, UsersOwnError
from aetherflow.cli.terminal import open_consoles
from aetherflow.errors import AetherFlowError

__all__ = ["COMMANDS", "main"]

COMMANDS: Final = (
    demo.COMMAND,
    run.COMMAND,
    serve.COMMAND,
    top.COMMAND,
    trace.COMMAND,
    report.COMMAND,
    regress.COMMAND,
    ab.COMMAND,
    baseline.COMMAND,
    trend.COMMAND,
    load.COMMAND,
    capacity.COMMAND,
    advise.COMMAND,
    alerts.COMMAND,
    dashboard.COMMAND,
    config.COMMAND,
)
"""Every command, in the order in which the help lists them."""


class _Parser(argparse.ArgumentParser):
    """A parser that tells what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(ExitCode.UNUSABLE, f"{self.prog}: {message}; see {self.prog} --help\n")


class _Formatter(argparse.HelpFormatter):
    """Leaves room for the longest name, whose indentation argparse forgets when it lists commands."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog)
        self._action_max_length = max(len(command.name) for command in COMMANDS) + 4


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        argv: The arguments; those of the process by default.

    Returns:
        An `ExitCode`.

    Raises:
        SystemExit: The arguments do not parse, or only help was asked for.
    """
    parser = _build_parser()
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:  # argparse itself would send the user to the help of the whole program
        arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    command: Command | None = arguments.command
    if command is None:
        parser.print_help()
        return ExitCode.FINE
    consoles = Consoles(*open_consoles(no_color=getattr(arguments, "no_color", False)))
    try:
        code = command.run(arguments, consoles)
        sys.stdout.flush()
    except AetherFlowError as error:
        consoles.err.print(f"{parser.prog} {command.name}: {error}", markup=False, soft_wrap=True)
        return ExitCode.UNUSABLE
    except UsersOwnError as error:
        from aetherflow.cli.session import print_exception

        print_exception(error.__cause__ or error, consoles)
        return ExitCode.FAILED
    except KeyboardInterrupt:
        consoles.err.print("interrupted", style="yellow")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes standard output once more on its way out: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.NO_READER
    except Exception:
        if not command.gate:
            raise
        # Left to the interpreter it would end as 1, which says of the user's program that it became slower.
        traceback.print_exc()
        told = f"{parser.prog} {command.name}: no verdict, because of a defect of aetherflow itself: please report it"
        consoles.err.print(told, markup=False, soft_wrap=True)
        return ExitCode.UNUSABLE
    return code


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="aetherflow",
        description="Run flows and see their traces.",
        epilog="'aetherflow COMMAND --help' tells what a command takes.",
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"aetherflow {_version()}")
    parser.set_defaults(command=None, parser=parser)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", parser_class=_Parser)
    for command in COMMANDS:
        sub = commands.add_parser(
            command.name,
            help=command.summary,
            description=command.description,
            epilog="\n".join(("examples:", *(f"  {example}" for example in command.examples))),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_arguments(sub)
        sub.set_defaults(command=command, parser=sub)
    return parser


def _version() -> str:
    try:
        return metadata.version("aetherflow-otel")
    except metadata.PackageNotFoundError:  # a checkout on the path, not installed
        return "(not installed)"
