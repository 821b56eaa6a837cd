"""Spans laid out on tracks as timeline viewers want them: on one track each is inside another, or beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from aetherflow.analysis.spans import Resource, Span
from aetherflow.report.columns import shown
from aetherflow.telemetry import conventions as names

__all__ = ["Process", "Track", "lay_out"]

_UNNAMED: Final = "spans"


@dataclass(slots=True)
class Track:
    """Spans in the order in which they begin, outer ones first, none of which overlaps another in part."""

    name: str
    spans: list[Span] = field(default_factory=list)
    under_way: list[Span] = field(default_factory=list, repr=False)

    def takes(self, span: Span) -> bool:
        """Whether a span that begins no earlier than those before fits, inside another or after it."""
        while self.under_way and self.under_way[-1].end <= span.start:
            self.under_way.pop()
        return not self.under_way or span.end <= self.under_way[-1].end

    def add(self, span: Span) -> None:
        """Put a span that fits on the track."""
        self.spans.append(span)
        self.under_way.append(span)


@dataclass(slots=True)
class Process:
    """What one process emitted: its tracks, by thread and then in the order in which they were needed."""

    name: str
    resource: Resource
    tracks: list[Track] = field(default_factory=list)


def lay_out(spans: Iterable[Span]) -> list[Process]:
    """Lay spans out: a track a thread, and more of them where what ran on it took turns, as coroutines do.

    A span that does not say its thread, such as that of a run, is where the first span below it is, or its parent.

    Args:
        spans: Of any number of traces.

    Returns:
        Processes in the order in which they first emitted something; every span is on one track.
    """
    threads: dict[tuple[object, str], list[Track]] = {}
    processes: dict[object, Process] = {}
    ordered = sorted(spans, key=lambda each: (each.start, -max(each.start, each.end), each.parent_id is not None))
    known_threads = _threads(ordered)
    for span in ordered:
        known = tuple((key, shown(value)) for key, value in span.resource.attributes.items())
        process = processes.setdefault(known, Process(span.resource.service or "service", span.resource))
        thread = known_threads.get((span.trace_id, span.span_id), _UNNAMED)
        tracks = threads.setdefault((known, thread), [])
        track = _fitting(tracks, span)
        if track is None:
            track = Track(thread if not tracks else f"{thread} ({len(tracks) + 1})")
            tracks.append(track)
            process.tracks.append(track)
        track.add(span)
    return list(processes.values())


def _fitting(tracks: Sequence[Track], span: Span) -> Track | None:
    """Choose the track of the parent, else the first that has room."""
    fitting = [track for track in tracks if track.takes(span)]
    for track in fitting:
        if track.under_way and track.under_way[-1].span_id == span.parent_id:
            return track
    return fitting[0] if fitting else None


def _threads(spans: Sequence[Span]) -> dict[tuple[str, str], str]:
    """Tell which thread each span was on, as far as it can be known; spans are ordered by start."""
    found = {(span.trace_id, span.span_id): thread for span in spans if (thread := _thread(span))}
    below = dict(found)
    for span in reversed(spans):  # so that of several children the first is the last to tell
        here = below.get((span.trace_id, span.span_id))
        if here and span.parent_id and (span.trace_id, span.parent_id) not in found:
            below[span.trace_id, span.parent_id] = here
    for span in spans:
        parent = below.get((span.trace_id, span.parent_id or ""))
        if parent:
            below.setdefault((span.trace_id, span.span_id), parent)
    return below


def _thread(span: Span) -> str | None:
    thread = span.attributes.get(names.THREAD_NAME) or span.attributes.get(names.THREAD_ID)
    return None if thread is None else shown(thread)
