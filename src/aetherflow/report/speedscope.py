"""Traces in the format of speedscope: a profile a track, in which spans open and close.

Source: https://www.speedscope.app/file-format-schema.json
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from aetherflow.analysis.spans import Span
from aetherflow.report.tracks import Track, lay_out

__all__ = ["speedscope"]

_SCHEMA: Final = "https://www.speedscope.app/file-format-schema.json"


def speedscope(spans: Iterable[Span], name: str) -> dict[str, Any]:
    """Give traces as what JSON is made of; times are nanoseconds since the earliest start.

    Args:
        spans: Of any number of traces.
        name: What speedscope calls it all.
    """
    known = list(spans)
    base = min((span.start for span in known), default=0)
    frames: dict[str, int] = {}
    profiles = []
    for process in lay_out(known):
        for track in process.tracks:
            events = list(_events(track, base, frames))
            profiles.append(
                {
                    "type": "evented",
                    "name": f"{process.name} · {track.name}",
                    "unit": "nanoseconds",
                    "startValue": 0,
                    "endValue": max((event["at"] for event in events), default=0),
                    "events": events,
                }
            )
    return {
        "$schema": _SCHEMA,
        "name": name,
        "exporter": "aetherflow",
        "activeProfileIndex": 0,
        "shared": {"frames": [{"name": frame} for frame in frames]},
        "profiles": profiles,
    }


def _events(track: Track, base: int, frames: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Yield openings and closings in order of time, each closing before what opens at the same moment."""
    open_spans: list[Span] = []
    for span in track.spans:
        while open_spans and open_spans[-1].end <= span.start:
            yield _event("C", open_spans.pop(), base, frames)
        yield _event("O", span, base, frames)
        open_spans.append(span)
    while open_spans:
        yield _event("C", open_spans.pop(), base, frames)


def _event(kind: str, span: Span, base: int, frames: dict[str, int]) -> dict[str, Any]:
    time = span.start if kind == "O" else max(span.start, span.end)
    return {"type": kind, "frame": frames.setdefault(span.name, len(frames)), "at": time - base}
