"""Profile events as flame graphs.

An event has functions with their times and not who called whom. Where the profile was also written for speedscope, and
the file is still there, its stacks are shown; else each node's functions by their own time, which adds up.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from aetherflow.analysis.spans import Span, SpanEvent
from aetherflow.telemetry import conventions as names

__all__ = ["Frame", "profiles_of"]

_MAX_FILE: Final = 16 * 1024 * 1024
_MAX_FILES: Final = 200
_MAX_FRAMES: Final = 5_000
_SPEEDSCOPE: Final = ".speedscope.json"
_EXPORTER: Final = "aetherflow"


@dataclass(slots=True)
class Frame:
    """A function where it was called from; ``seconds`` are with all that it called."""

    name: str
    seconds: float = 0.0
    below: dict[str, Frame] = field(default_factory=dict)

    def child(self, name: str) -> Frame:
        """Give the frame of a function that this one called."""
        found = self.below.get(name)
        if found is None:
            found = self.below[name] = Frame(name)
        return found


@dataclass(slots=True)
class _NodeProfiles:
    """All profiles of one node."""

    flat: Frame
    stacked: Frame
    events: list[int] = field(default_factory=list)
    profilers: dict[str, None] = field(default_factory=dict)
    functions: dict[str, list[float]] = field(default_factory=dict)
    taken: int = 0
    with_stacks: int = 0
    truncated: int = 0
    other_threads: int = 0
    skipped: dict[str, int] = field(default_factory=dict)


def profiles_of(spans: Sequence[Span], where: Mapping[tuple[str, str], int]) -> list[dict[str, Any]]:
    """Put the profiles of each node together.

    Args:
        spans: Any spans.
        where: The index of each span in the report, by trace and id.

    Returns:
        For each node: ``name``, ``spans`` (indexes), ``profilers``, ``taken``, ``withStacks``, ``truncated``,
        ``otherThreads``, ``skipped`` (reasons and how often), ``functions`` (name, self and cumulative seconds, calls;
        by cumulative time), and ``frames``: depth, name, seconds and start of each, parents before children.
    """
    nodes: dict[str, _NodeProfiles] = {}
    files_left = _MAX_FILES
    for span in spans:
        for event in span.events:
            if event.name != names.PROFILE_EVENT:
                continue
            name = _node_of(span)
            node = nodes.setdefault(name, _NodeProfiles(Frame(name), Frame(name)))
            node.events.append(where.get((span.trace_id, span.span_id), -1))
            files_left -= _add(node, event, files_left > 0)
    return [_told(node) for node in nodes.values()]


def _node_of(span: Span) -> str:
    return str(span.attributes.get(names.NODE_NAME) or span.name)


def _add(node: _NodeProfiles, event: SpanEvent, may_read: bool) -> int:
    """Add a profile, and tell how many files were read for it."""
    attributes = event.attributes
    node.profilers[str(attributes.get(names.PROFILE_PROFILER, ""))] = None
    skipped = attributes.get(names.PROFILE_SKIPPED)
    if skipped is not None:
        node.skipped[str(skipped)] = node.skipped.get(str(skipped), 0) + 1
        return 0
    node.taken += 1
    node.truncated += attributes.get(names.PROFILE_TRUNCATED) is True
    node.other_threads += attributes.get(names.PROFILE_OTHER_THREADS) is True
    for function, own, cumulative, calls in _functions(attributes):
        total = node.functions.setdefault(function, [0.0, 0.0, 0.0])
        for place, value in enumerate((own, cumulative, calls)):
            total[place] += value
        node.flat.child(function).seconds += own
        node.flat.seconds += own
    uri = attributes.get(names.PROFILE_URI)
    if not isinstance(uri, str) or not may_read:
        return 0
    stacks = _stacks(uri)
    for stack, seconds in stacks:
        frame = node.stacked
        frame.seconds += seconds
        for function in stack:
            frame = frame.child(function)
            frame.seconds += seconds
    node.with_stacks += bool(stacks)
    return 1


def _functions(attributes: Mapping[str, object]) -> Iterator[tuple[str, float, float, float]]:
    columns = []
    for key in (
        names.PROFILE_FUNCTIONS,
        names.PROFILE_SELF_TIME,
        names.PROFILE_CUMULATIVE_TIME,
        names.PROFILE_CALLS,
    ):
        column = attributes.get(key)
        columns.append(column if isinstance(column, tuple) else ())
    for function, *numbers in zip(*columns, strict=False):
        if all(isinstance(number, int | float) for number in numbers):
            own, cumulative, calls = numbers
            yield str(function), max(0.0, own), max(0.0, cumulative), calls


def _stacks(uri: str) -> list[tuple[list[str], float]]:
    """Read the speedscope file beside a pstats file; the latter could run anything when it is loaded, so it is not."""
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc:
        return []
    path = Path(unquote(parts.path)).with_suffix(_SPEEDSCOPE)
    try:
        if not path.is_file() or path.stat().st_size > _MAX_FILE:
            return []
        data = json.loads(path.read_bytes())
        if data["exporter"] != _EXPORTER:
            return []
        frames = [f"{frame['name']} ({Path(frame['file']).name}:{frame['line']})" for frame in data["shared"]["frames"]]
        profile = data["profiles"][0]
        return [
            ([frames[index] for index in stack], float(seconds))
            for stack, seconds in zip(profile["samples"], profile["weights"], strict=True)
        ]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []  # it was taken away, or is not what it was: the event tells of the same profile


def _told(node: _NodeProfiles) -> dict[str, Any]:
    root = node.stacked if node.stacked.below else node.flat
    functions = sorted(node.functions.items(), key=lambda item: -item[1][1])
    return {
        "name": root.name,
        "spans": node.events,
        "profilers": list(node.profilers),
        "taken": node.taken,
        "withStacks": node.with_stacks if node.stacked.below else 0,
        "truncated": node.truncated,
        "otherThreads": node.other_threads,
        "skipped": sorted(node.skipped.items()),
        "functions": [[name, *numbers] for name, numbers in functions],
        "frames": list(_flattened(root)),
    }


def _flattened(root: Frame) -> Iterator[tuple[int, str, float, float]]:
    """Yield frames, parents before children, the longest child first, as many as can be looked at."""
    stack = [(0, root, 0.0)]
    yielded = 0
    while stack and yielded < _MAX_FRAMES:
        depth, frame, start = stack.pop()
        yield depth, frame.name, frame.seconds, start
        yielded += 1
        at = start
        placed = []
        for child in sorted(frame.below.values(), key=lambda each: -each.seconds):
            placed.append((depth + 1, child, at))
            at += child.seconds
        stack.extend(reversed(placed))
