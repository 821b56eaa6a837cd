"""Traces as Chrome's trace event format has them, which Perfetto opens.

Source: the Trace Event Format document of the Chromium project.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from aetherflow.analysis.spans import Span
from aetherflow.report.columns import shown
from aetherflow.report.tracks import Process, lay_out

__all__ = ["chrome_trace"]

_NS_IN_US: Final = 1_000


def chrome_trace(spans: Iterable[Span]) -> dict[str, Any]:
    """Give traces as what JSON is made of: a process a resource, a thread a track, flow events for parents and links.

    Times are microseconds since the earliest start, which is told in nanoseconds since the epoch beside them: no double
    holds both.

    Args:
        spans: Of any number of traces.
    """
    known = list(spans)
    base = min((span.start for span in known), default=0)
    processes = lay_out(known)
    arrows = _arrows(known, processes)
    events: list[dict[str, Any]] = []
    for number, process in enumerate(processes, 1):
        events.append(_named("process_name", number, 0, process.name))
        for at, track in enumerate(process.tracks, 1):
            place = {"pid": number, "tid": at}
            events.append(_named("thread_name", number, at, track.name))
            events.append({"ph": "M", "name": "thread_sort_index", **place, "args": {"sort_index": at}})
            for span in track.spans:
                time = (span.start - base) / _NS_IN_US
                events.append(_complete(span, base) | place)
                # Right after the slice, and at its start: viewers bind an arrow to the innermost slice of the moment.
                events += [{**arrow, **place, "ts": time} for arrow in arrows.get((span.trace_id, span.span_id), ())]
                events += [{**event, **place} for event in _instants(span, base)]
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {"exporter": "aetherflow", "startTimeUnixNano": str(base)},
    }


def _named(kind: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}}


def _complete(span: Span, base: int) -> dict[str, Any]:
    told: dict[str, Any] = {"trace_id": span.trace_id, "span_id": span.span_id}
    if span.status.code != "unset":
        told["status"] = span.status.code
    if span.status.message:
        told["status_message"] = span.status.message
    event = {
        "ph": "X",
        "name": span.name,
        "cat": "error" if span.failed else span.kind,
        "ts": (span.start - base) / _NS_IN_US,
        "dur": max(0, span.end - span.start) / _NS_IN_US,
        "args": told | {key: shown(value) for key, value in span.attributes.items()},
    }
    return event | ({"cname": "terrible"} if span.failed else {})


def _instants(span: Span, base: int) -> Iterator[dict[str, Any]]:
    for event in span.events:
        told = {key: shown(value) for key, value in event.attributes.items()}
        time = (event.time - base) / _NS_IN_US
        yield {"ph": "i", "s": "t", "name": event.name, "cat": "event", "ts": time, "args": told}


def _arrows(spans: Sequence[Span], processes: Sequence[Process]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Give the ends of arrows by the span that they are at: from linked spans, and to children on other tracks."""
    track_of = {
        (span.trace_id, span.span_id): (number, at)
        for number, process in enumerate(processes)
        for at, track in enumerate(process.tracks)
        for span in track.spans
    }
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    number = 0
    for span in spans:
        here = (span.trace_id, span.span_id)
        sources = [("link", (link.trace_id, link.span_id)) for link in span.links]
        parent = (span.trace_id, span.parent_id or "")
        if track_of.get(parent, track_of[here]) != track_of[here]:
            sources.append(("child", parent))
        for kind, source in sources:
            if source in track_of and source != here:
                number += 1
                arrow = {"name": kind, "cat": kind, "id": number}
                found.setdefault(source, []).append({"ph": "s", **arrow})
                found.setdefault(here, []).append({"ph": "f", "bp": "e", **arrow})
    return found
