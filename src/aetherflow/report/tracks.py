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

    Args:
        spans: Of any number of traces.

    Returns:
        Processes in the order in which they first emitted something; every span is on one track.
    """
    threads: dict[tuple[object, str], list[Track]] = {}
    processes: dict[object, Process] = {}
    for span in sorted(spans, key=lambda each: (each.start, -max(each.start, each.end), each.parent_id is not None)):
        known = tuple((key, shown(value)) for key, value in span.resource.attributes.items())
        process = processes.setdefault(known, Process(span.resource.service or "service", span.resource))
        thread = _thread(span)
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


def _thread(span: Span) -> str:
    thread = span.attributes.get(names.THREAD_NAME) or span.attributes.get(names.THREAD_ID)
    return _UNNAMED if thread is None else shown(thread)
