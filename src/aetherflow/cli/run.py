"""``aetherflow run``: run anyone's flow once and show its trace."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import pprint
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from rich.text import Text

from aetherflow.cli.command import (
    Command,
    Consoles,
    ExitCode,
    UsageError,
    add_display_arguments,
    add_export_arguments,
    add_input_arguments,
)
from aetherflow.cli.loading import entered, load_flow, read_inputs

__all__ = ["COMMAND", "format_output"]

_LONGEST: Final = 60
"""Lines of a result that a terminal is shown, so that the trace stays in sight."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("flow", metavar="MODULE:FLOW", help="the flow, for example shop.flows:checkout")
    add_input_arguments(parser)
    parser.add_argument("--quiet", action="store_true", help="print the result only")
    add_export_arguments(parser)
    add_display_arguments(parser)


def _run(arguments: argparse.Namespace, consoles: Consoles) -> ExitCode:
    # The engine is imported here, so that other commands start without it.
    from aetherflow.cli.session import run_watched
    from aetherflow.errors import MissingInputError, UnknownInputError

    inputs = read_inputs(arguments.inputs)
    flow, given = load_flow(arguments.flow, arguments.context)
    with entered(given) as context:
        try:
            return run_watched(
                flow,
                inputs,
                context,
                arguments=arguments,
                consoles=consoles,
                show=lambda output: _show(output, consoles),
                watching=_spinner(flow.name, consoles),
                extra_inputs=arguments.extra_inputs,
            )
        except MissingInputError as error:
            hint = f"give it with --input {error.parameter}=… or --context" if error.flow == flow.name else ""
            raise UsageError(f"{error}; {hint}" if hint else str(error)) from error
        except UnknownInputError as error:
            raise UsageError(f"{error} On the command line: --extra-inputs ignore") from error


def _spinner(name: str, consoles: Consoles) -> contextlib.AbstractContextManager[object] | None:
    """Show that something is going on; not where output is redirected, since what nodes print would be caught."""
    if not (consoles.err.is_terminal and consoles.out.is_terminal):
        return None
    return consoles.err.status(Text(f"running {name}"))


def _show(output: object, consoles: Consoles) -> None:
    """Print a result; the items of a stream as they come."""
    if isinstance(output, Iterator):
        with contextlib.ExitStack() as stack:
            # Closed at once when the reader is gone, so that the nodes' ``finally`` clauses run.
            if callable(close := getattr(output, "close", None)):
                stack.callback(close)
            for item in output:
                consoles.out.print(Text(format_output(item, indent=None)), soft_wrap=True)
        return
    lines = format_output(output).splitlines()
    shown = lines[:_LONGEST] if consoles.out.is_terminal else lines
    consoles.out.print(Text("\n".join(shown)), soft_wrap=True)
    if len(shown) < len(lines):
        more = f"… {len(lines) - len(shown):,} more lines; pipe the output to see them all"
        consoles.out.print(Text(more, style="dim"))


def format_output(output: object, *, indent: int | None = 2) -> str:
    """Write an output as JSON where that says it all, dataclasses as objects; else as Python shows it.

    Args:
        output: Anything.
        indent: How far JSON is indented; None for one line.
    """
    try:
        return json.dumps(output, indent=indent, ensure_ascii=False, default=_plain)
    except (TypeError, ValueError, RecursionError):
        return pprint.pformat(output, width=100, compact=True, sort_dicts=False)


def _plain(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


COMMAND: Final = Command(
    name="run",
    summary="run a flow once and show its trace",
    description="Run a flow once: print its result, show its trace as a waterfall, and tell where the trace is.",
    add_arguments=_add_arguments,
    run=_run,
    examples=(
        "aetherflow run shop.flows:checkout --input order=17 --input express=true",
        "aetherflow run shop.flows:checkout --input @order.json --context shop.flows:ShopContext",
        "OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 aetherflow run shop.flows:checkout",
    ),
)
