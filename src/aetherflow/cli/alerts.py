"""``aetherflow alerts``: alert and recording rules for Prometheus."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from aetherflow.cli.command import Command, Consoles, ExitCode, put_out
from aetherflow.errors import MissingExtraError
from aetherflow.operations.alerts import alert_document
from aetherflow.operations.objectives import Expectations, read_expectations

__all__ = ["COMMAND"]

_HEAD: Final = "# Made by 'aetherflow alerts': change its configuration rather than this.\n"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="thresholds and objective (TOML, or YAML by its name); without it those of the health monitor, and that "
        "99.9%% of runs succeed",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write there rather than to standard output")


def _run(arguments: argparse.Namespace, consoles: Consoles) -> ExitCode:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("aetherflow alerts", "PyYAML", "operations") from error
    expected = read_expectations(arguments.config) if arguments.config else Expectations()
    text = _HEAD + yaml.safe_dump(alert_document(expected), sort_keys=False, width=110, allow_unicode=True)
    put_out(text, arguments.output, consoles)
    return ExitCode.FINE


COMMAND: Final = Command(
    name="alerts",
    summary="write alert and recording rules for Prometheus",
    description="Write rules for Prometheus to a file that it loads (rule_files): alerts on the thresholds that the\n"
    "health monitor has, over all processes of a service, and on how fast the error budget of an objective is spent.\n"
    "A configuration looks like this; all of it may be left out:\n\n"
    '  job = "shop"                  # the service; by default every one that emits these metrics\n'
    "  window = 300                  # seconds that thresholds are held against\n"
    "  min_samples = 10              # fewer values than that say nothing\n\n"
    "  [objective]                   # of the runs of each flow, over a period\n"
    "  success = 0.999\n"
    "  days = 30\n"
    "  latency = {within = 0.5, share = 0.99}\n\n"
    "  [limits]                      # as HealthMonitor(...) takes them; false leaves one out\n"
    "  p95 = 2.0\n"
    "  average = false\n\n"
    '  [per."import_*"]              # a name, or a pattern, of a node, operation, executor or pool\n'
    "  p95 = 60.0\n\n"
    "  [labels]                      # of every alert\n"
    '  team = "data"',
    add_arguments=_add_arguments,
    run=_run,
    examples=(
        "aetherflow alerts -o rules.yaml && promtool check rules rules.yaml",
        "aetherflow alerts --config alerts.toml > rules.yaml",
    ),
)
