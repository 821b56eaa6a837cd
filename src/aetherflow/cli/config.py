"""``aetherflow config``: tell every setting, its value and where it came from."""

from __future__ import annotations

import argparse
from typing import Final

from rich.table import Table

from aetherflow.cli.command import Command, Consoles, ExitCode
from aetherflow.config import PerformanceConfig

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-color", action="store_true", help="print without colours (NO_COLOR=1 does the same)")


def _run(arguments: argparse.Namespace, consoles: Consoles) -> ExitCode:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("setting")
    table.add_column("value", justify="right")
    table.add_column("from")
    table.add_column("variable")
    for setting in PerformanceConfig().explain():
        style = "dim" if setting.source == "default" else "green"
        source = "default" if setting.source == "default" else "environment"
        table.add_row(setting.name, str(setting.value), source, setting.variable, style=style)
    consoles.out.print(table)
    return ExitCode.FINE


COMMAND: Final = Command(
    name="config",
    summary="tell every setting, its value and where it came from",
    description="Tell every setting of AetherFlow as it is in force here, and the variable that changes it.",
    add_arguments=_add_arguments,
    run=_run,
    examples=("aetherflow config", "AETHER_BATCH_SIZE=300 aetherflow config"),
)
