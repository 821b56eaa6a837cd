"""``aetherflow dashboard``: a dashboard for Grafana."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from aetherflow.cli.command import Command, Consoles, ExitCode, put_out
from aetherflow.errors import MissingExtraError

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--title", default="AetherFlow", help="what it is called (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write there rather than to standard output")


def _run(arguments: argparse.Namespace, consoles: Consoles) -> ExitCode:
    try:
        from aetherflow.operations.dashboards import dashboard_json
    except ImportError as error:
        raise MissingExtraError("aetherflow dashboard", "grafana-foundation-sdk", "operations") from error
    text = dashboard_json(arguments.title)
    put_out(text, arguments.output, consoles)
    return ExitCode.FINE


COMMAND: Final = Command(
    name="dashboard",
    summary="write a dashboard for Grafana",
    description="Write a dashboard as JSON that Grafana 11.6 or later imports, or provisions from a file: flows\n"
    "(rate, errors, duration), nodes, concurrency and provider scopes, batches, caches and pools, operations, health\n"
    "and telemetry. It asks a Prometheus source. Dots on durations are single executions; they lead to their traces\n"
    "where that source knows a source of traces (exemplarTraceIdDestinations, as deploy/grafana has it).",
    add_arguments=_add_arguments,
    run=_run,
    examples=("aetherflow dashboard > aetherflow.json", 'aetherflow dashboard --title "Shop" -o shop.json'),
)
