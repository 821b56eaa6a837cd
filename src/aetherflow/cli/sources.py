"""Where exported metrics are, as the user says it: files, folders, and Prometheus servers; and reading them."""

from __future__ import annotations

import argparse
import contextlib
import gc
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from rich.text import Text

from aetherflow.analysis.metrics import Job, metric_files, read_jobs
from aetherflow.analysis.prometheus import read_prometheus
from aetherflow.analysis.prometheus_api import PrometheusSource, parse_source
from aetherflow.cli.command import Consoles
from aetherflow.errors import ConfigurationError

__all__ = ["SOURCES", "Source", "listed", "missing", "read_side", "source", "without_collections"]

Source: TypeAlias = Path | PrometheusSource

SOURCES: Final = "files of OTLP JSON metrics, folders that hold them, or a Prometheus server: http://host:9090?run=ID"
"""What the commands take, for their help."""


def source(text: str) -> Source:
    """Be an argument type: a path, or the address of a Prometheus server."""
    if not text.lower().startswith(("http://", "https://")):
        return Path(text)
    try:
        return parse_source(text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def missing(sources: Iterable[Source]) -> list[Source]:
    """Give the files and folders that are not there."""
    return [each for each in sources if isinstance(each, Path) and not each.exists()]


def listed(sources: Iterable[Source]) -> str:
    """Name sources in a sentence."""
    return ", ".join(map(str, sources))


def read_side(sources: Sequence[Source], consoles: Consoles, *, job: str | None = None) -> list[Job]:
    """Read the jobs of one side, and tell of lines that were cut short.

    Args:
        sources: Files, folders and servers.
        consoles: Where to tell.
        job: The name of the one job that all files are; None where each run or file is one.
    """

    def tell_of_cut(path: Path, line: int) -> None:
        told = f"{path}, line {line}: is cut short, so it is left out"
        consoles.err.print(Text(told, style="yellow"), soft_wrap=True)

    files = metric_files(each for each in sources if isinstance(each, Path))
    jobs = read_jobs(files, job=job, on_truncated=tell_of_cut)
    for each in sources:
        if isinstance(each, PrometheusSource):
            jobs += read_prometheus(each)
    return sorted(jobs, key=lambda found: (found.started, found.name))


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """Hold garbage collections off: they took a third of the time of reading and comparing, which leave no circles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
