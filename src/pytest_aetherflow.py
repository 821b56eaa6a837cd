"""The pytest plugin: ``pytest --aetherflow-export=DIR`` writes the metrics of a test run to files.

A module of its own, because importing anything below ``aetherflow`` imports all of it: here that waits until the option
is given, so that the plugin costs nothing where it is only installed.
"""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

__all__: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option."""
    parser.getgroup("aetherflow").addoption(
        "--aetherflow-export",
        type=Path,
        metavar="DIR",
        help="write the metrics of AetherFlow's nodes to files in this folder, for 'aetherflow regress'",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark, and export where that was asked for."""
    config.addinivalue_line(
        "markers",
        "aetherflow_regress(rounds=1): with --aetherflow-export, export the metrics of the marked tests only, "
        "and call each so many times",
    )
    directory: Path | None = config.getoption("aetherflow_export")
    if directory is not None:
        from aetherflow.testing import MetricExport

        # Processes of pytest-xdist share the run that its controller has named.
        run = getattr(config, "workerinput", {}).get("testrunuid") or uuid4().hex
        config.pluginmanager.register(MetricExport(directory.absolute(), f"pytest-{run}"))
