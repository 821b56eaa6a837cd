"""Metrics as they were exported, read from OTLP JSON files and put together: one value a job and series."""

from __future__ import annotations

import itertools
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Final, TypeAlias

from aetherflow.analysis.histograms import Histogram, merge_histograms
from aetherflow.analysis.metric_points import FrozenAttributes, MetricPoint, Series, Source, points_of
from aetherflow.analysis.otlp_files import UnreadableTelemetryError, read_records
from aetherflow.telemetry.conventions import PIPELINE_RUN_ID

__all__ = ["Job", "Level", "metric_files", "read_jobs"]

_SUFFIXES: Final = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
_OTHER_SIGNALS: Final = ("traces-", "logs-")
"""How files begin that AetherFlow writes other signals to: not read in vain."""

_Value: TypeAlias = "Histogram | float"


@dataclass(frozen=True, slots=True)
class Level:
    """What a gauge, or a sum that goes up and down, stood at: over its points, added up over its sources.

    It is known at ``points`` moments, those of the source that has most, and not between them.
    """

    last: float
    mean: float
    largest: float
    points: int


@dataclass(frozen=True, slots=True)
class Job:
    """All that one job emitted, whatever processes and files it was emitted from.

    Attributes:
        name: The CI run that it was, or else the file.
        files: The files that it is in.
        resource: What is known of its first process.
        started: When the first measurement began, in nanoseconds since the epoch; 0 where that is not known.
        ended: When the last one was exported.
        histograms: What was recorded, by series.
        sums: What was counted, by series.
        levels: What gauges and up-down counters stood at, by series.
    """

    name: str
    files: tuple[Path, ...]
    resource: FrozenAttributes
    started: int
    ended: int
    histograms: Mapping[Series, Histogram]
    sums: Mapping[Series, float]
    levels: Mapping[Series, Level]

    @property
    def duration(self) -> float:
        """Seconds from the first measurement to the last export; 0 where they are not known."""
        return max(0, self.ended - self.started) / 1e9 if self.started else 0.0


def metric_files(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Find the files that hold metrics.

    Args:
        paths: Files, taken as they are, and folders, searched for OTLP JSON with all that is below them.

    Returns:
        The files, sorted, each once.

    Raises:
        UnreadableTelemetryError: There is no such file or folder, or a folder that cannot be searched.
    """
    found: set[Path] = set()
    for path in map(Path, paths):
        if path.is_dir():
            try:
                found.update(each for each in path.rglob("*") if _may_hold_metrics(each))
            except OSError as error:
                raise UnreadableTelemetryError(path, None, f"it cannot be searched: {error}") from error
        elif path.exists():
            found.add(path)
        else:
            raise UnreadableTelemetryError(path, None, "there is no such file or folder")
    return sorted({path.resolve(): path for path in sorted(found)}.values())


def _may_hold_metrics(path: Path) -> bool:
    return path.name.endswith(_SUFFIXES) and not path.name.startswith(_OTHER_SIGNALS) and path.is_file()


def read_jobs(
    files: Iterable[str | os.PathLike[str]],
    *,
    job: str | None = None,
    on_truncated: Callable[[Path, int], None] | None = None,
) -> list[Job]:
    """Read the metrics in files, job by job.

    A job is what has the same ``cicd.pipeline.run.id``, or else one file. Its processes are told apart by their
    resource, and one that started anew by the time that its points add up from, so that each counts once.

    Args:
        files: OTLP JSON, as `read_records` takes it; other signals in them are passed over.
        job: The name of the one job that it all is; None where it is as said above.
        on_truncated: Called with the file and the line of a last record that was left out.

    Returns:
        The jobs, by start.

    Raises:
        UnreadableTelemetryError: A file cannot be read, or holds what is not OTLP.
    """
    drafts: dict[str, _Draft] = {}
    for file in map(Path, files):
        for record in read_records(file, on_truncated=on_truncated):
            for source, points in itertools.groupby(points_of(record), key=attrgetter("source")):
                name = job or str(dict(source.resource).get(PIPELINE_RUN_ID) or file)
                if name not in drafts:
                    drafts[name] = _Draft(name, source.resource)
                for point in points:
                    drafts[name].add(point, file)
    return sorted((draft.finished() for draft in drafts.values()), key=attrgetter("started", "name"))


@dataclass(slots=True)
class _Life:
    """What a series of one process added up to since one moment, as one file tells it: the first point and the last."""

    first_time: int
    first: _Value
    time: int
    value: _Value


@dataclass(slots=True)
class _Heights:
    """The points of a level, of one process."""

    points: int = 0
    total: float = 0.0
    last: float = 0.0
    largest: float = -math.inf

    def add(self, value: float) -> None:
        self.points += 1
        self.total += value
        self.last = value
        self.largest = max(self.largest, value)


class _Draft:
    """A job that is being read."""

    def __init__(self, name: str, resource: FrozenAttributes) -> None:
        self._name = name
        self._resource = resource
        self._files: dict[Path, None] = {}
        self._started = 0
        self._ended = 0
        self._lives: defaultdict[tuple[Series, Source, int], dict[Path, _Life]] = defaultdict(dict)
        self._complete: defaultdict[Series, list[_Value]] = defaultdict(list)
        self._heights: defaultdict[Series, defaultdict[Source, _Heights]]
        self._heights = defaultdict(lambda: defaultdict(_Heights))

    def add(self, point: MetricPoint, file: Path) -> None:
        self._files[file] = None
        began = point.start or point.time
        self._started = min(self._started or began, began)
        self._ended = max(self._ended, point.time)
        if not isinstance(point.value, Histogram) and (point.temporality == "unspecified" or not point.monotonic):
            self._add_height(point, point.value)
        elif point.temporality == "delta":
            self._complete[point.series].append(point.value)
        else:
            self._add_life(point, file)

    def _add_height(self, point: MetricPoint, value: float) -> None:
        heights = self._heights[point.series][point.source]
        heights.add(value + heights.last if point.temporality == "delta" else value)

    def _add_life(self, point: MetricPoint, file: Path) -> None:
        lives = self._lives[point.series, point.source, point.start]
        life = lives.get(file)
        if life is None:
            lives[file] = _Life(point.time, point.value, point.time, point.value)
        elif point.time >= life.time:
            if _size(point.value) < _size(life.value):  # it started anew and does not say when
                self._complete[point.series].append(life.value)
            life.time, life.value = point.time, point.value

    def finished(self) -> Job:
        values = self._complete
        for (series, _, _), lives in self._lives.items():
            values[series] += _ends(lives.values())
        histograms = {key: [each for each in found if isinstance(each, Histogram)] for key, found in values.items()}
        return Job(
            self._name,
            tuple(self._files),
            self._resource,
            self._started,
            self._ended,
            {key: merged for key, found in histograms.items() if (merged := merge_histograms(found))},
            {
                key: sum(numbers)
                for key, found in values.items()
                if (numbers := [_ for _ in found if isinstance(_, float)])
            },
            {key: _level(found.values()) for key, found in self._heights.items()},
        )


def _ends(lives: Iterable[_Life]) -> Iterator[_Value]:
    """Yield what each process added up to.

    A file that begins after another ended, with no less, goes on with it: it was begun when the other was full. Where
    they overlap they are of two processes, of which one was forked from the other.
    """
    before: _Life | None = None
    for life in sorted(lives, key=attrgetter("first_time")):
        if before and (life.first_time <= before.time or _size(life.first) < _size(before.value)):
            yield before.value
        before = life
    if before:
        yield before.value


def _size(value: _Value) -> float:
    return value.count if isinstance(value, Histogram) else value


def _level(heights: Iterable[_Heights]) -> Level:
    known = list(heights)
    return Level(
        sum(each.last for each in known),
        sum(each.total / each.points for each in known),
        sum(each.largest for each in known),
        max(each.points for each in known),
    )
