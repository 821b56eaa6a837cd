"""What a report is made of, read from files: whole traces up to a limit, and all metrics."""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Final, TypeAlias

from aetherflow.analysis.metrics import Job, read_jobs
from aetherflow.analysis.otlp_files import UnreadableTelemetryError
from aetherflow.analysis.spans import Span, read_spans
from aetherflow.analysis.traces import SpanTree, TraceSummary, summarise_traces

__all__ = ["DEFAULT_SPANS", "Gathered", "Trace", "gather"]

DEFAULT_SPANS: Final = 100_000
"""Spans in a report at most: some 25 MB of memory in a browser, and a file of some megabytes."""

OnTruncated: TypeAlias = Callable[[Path, int], None]

_SUFFIXES: Final = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
_TRACES, _METRICS, _LOGS = "traces-", "metrics-", "logs-"


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace: what can be said of it in a line, its tree, and how many of its spans had no room."""

    summary: TraceSummary
    tree: SpanTree
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Gathered:
    """What was read.

    Attributes:
        files: Every file, sorted.
        traces: By start; of very many the newest.
        traces_left_out: How many there was no room for.
        jobs: The metrics.
    """

    files: tuple[Path, ...]
    traces: tuple[Trace, ...] = ()
    traces_left_out: int = 0
    jobs: tuple[Job, ...] = ()


def gather(
    paths: Iterable[str | os.PathLike[str]], *, spans: int = DEFAULT_SPANS, on_truncated: OnTruncated | None = None
) -> Gathered:
    """Read the traces and metrics that are in files.

    Args:
        paths: OTLP JSON files of any signals, and folders, of which the files right in them are taken.
        spans: Spans to keep at most: those of the newest traces, and of a trace that has more the earliest.
        on_truncated: Called with the file and the line of a last record that was left out, once each.

    Raises:
        UnreadableTelemetryError: There is no such file or folder, or one cannot be read or is not OTLP.
    """
    files = _files(paths)
    told: set[tuple[Path, int]] = set()

    def tell_once(path: Path, line: int) -> None:
        if on_truncated is not None and (path, line) not in told:
            told.add((path, line))
            on_truncated(path, line)

    sources = [file for file in files if not file.name.startswith((_METRICS, _LOGS))]
    traces, left_out = _traces(lambda: _spans(sources, tell_once), spans)
    jobs = read_jobs([file for file in files if not file.name.startswith((_TRACES, _LOGS))], on_truncated=tell_once)
    return Gathered(tuple(files), tuple(traces), left_out, tuple(jobs))


def _files(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    found: set[Path] = set()
    for path in map(Path, paths):
        if path.is_dir():
            found.update(each for each in path.iterdir() if each.name.endswith(_SUFFIXES) and each.is_file())
        elif path.exists():
            found.add(path)
        else:
            raise UnreadableTelemetryError(path, None, "there is no such file or folder")
    return sorted({path.resolve(): path for path in sorted(found)}.values())


def _spans(files: Sequence[Path], on_truncated: OnTruncated) -> Iterator[Span]:
    for file in files:
        yield from read_spans(file, on_truncated=on_truncated)


def _traces(read: Callable[[], Iterator[Span]], limit: int) -> tuple[list[Trace], int]:
    """Read the traces that there is room for; the files are read a second time only where that is not all."""
    kept: list[Span] = []

    def keep() -> Iterator[Span]:
        for span in read():
            if len(kept) <= limit:
                kept.append(span)
            yield span

    summaries = summarise_traces(keep())
    chosen = _newest(summaries, limit)
    if len(kept) > limit:
        kept = heapq.nsmallest(limit, (span for span in read() if span.trace_id in chosen), key=attrgetter("start"))
    by_trace: dict[str, list[Span]] = {}
    for span in kept:
        by_trace.setdefault(span.trace_id, []).append(span)
    traces = [
        Trace(summary, SpanTree.of(by_trace[summary.trace_id]), max(0, summary.spans - limit))
        for summary in summaries
        if summary.trace_id in by_trace
    ]
    return traces, len(summaries) - len(traces)


def _newest(summaries: Sequence[TraceSummary], limit: int) -> set[str]:
    """Choose the newest traces that have room together, one at least."""
    chosen: set[str] = set()
    used = 0
    for summary in reversed(summaries):
        used += summary.spans
        if chosen and used > limit:
            break
        chosen.add(summary.trace_id)
    return chosen
