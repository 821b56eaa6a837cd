"""Jobs read from a Prometheus server: the same as from files, as far as it keeps what files say.

What a series came to is its last value within the time asked for, less what it was when that began; where it started
anew in between, all of its samples are read. Minima, maxima, and when a process began are not kept by Prometheus.
"""

from __future__ import annotations

import functools
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import attrgetter
from typing import Final, TypeAlias

from aetherflow.analysis.histograms import Histogram, merge_histograms
from aetherflow.analysis.metric_points import FrozenAttributes, Series
from aetherflow.analysis.metrics import Job, Level
from aetherflow.analysis.prometheus_api import PrometheusError, PrometheusSource, Sample, ask
from aetherflow.analysis.prometheus_series import (
    Identity,
    assembled,
    label_of,
    numbers_of_histograms,
    resource_of,
    series_of,
    without,
)
from aetherflow.telemetry.conventions import PIPELINE_RUN_ID

__all__ = ["read_prometheus"]

_NAMES: Final = r'__name__=~"aetherflow[_.].+"'
_INFO: Final = "target_info"
_SAME_PROCESS: Final = "and on (job, instance)"
_STEP: Final = "4m"
"""Less than the five minutes that Prometheus looks back for a sample."""
_RUN: Final = label_of(PIPELINE_RUN_ID)
_WITHOUT_RUN: Final = f'{_RUN}=""'

_Value: TypeAlias = "Histogram | float"
_Process: TypeAlias = tuple[str, str]
"""The labels ``job`` and ``instance``, by which ``target_info`` belongs to series."""
_Labels: TypeAlias = tuple[tuple[str, str], ...]
_Vector: TypeAlias = Callable[..., str]
"""PromQL for a vector, with more label matchers."""


def read_prometheus(source: PrometheusSource) -> list[Job]:
    """Read the metrics that a Prometheus server holds, job by job.

    A job is what has the same value of the label that is said to name it, or else the same ``cicd.pipeline.run.id``, as
    a label or in ``target_info``, or else what one instance emitted.

    Args:
        source: The server, and what of it.

    Returns:
        The jobs, by start; those of which it is not known when they started come first.

    Raises:
        PrometheusError: The server does not answer as one does, or says what cannot be.
    """
    questions = _Questions(source)
    latest = questions.latest()
    if not latest:
        return []
    before, restarted, levels = questions.before(), questions.restarted(latest), questions.levels(latest)
    infos, starts = questions.infos(), questions.starts()
    drafts: dict[str, _Draft] = {}
    for identity, values in latest.items():
        labels = dict(identity.labels)
        process, series = _process(labels), series_of(identity)
        info = infos.get(process, {})
        name = _name_of(source, {**info, **labels})
        draft = drafts.setdefault(name, _Draft(name, resource_of(info, labels)))
        draft.started = min(filter(None, (draft.started, starts.get(process, 0))), default=0)
        if identity in levels:
            draft.levels[series].append(levels[identity])
        else:
            draft.values[series] += _grown(restarted.get(identity, values), before.get(identity))
    return sorted((draft.finished() for draft in drafts.values()), key=attrgetter("started", "name"))


def _name_of(source: PrometheusSource, labels: Mapping[str, str]) -> str:
    if source.label:
        return labels[source.label]
    if run := labels.get(_RUN) or labels.get(PIPELINE_RUN_ID):
        return run
    until = f"{datetime.fromtimestamp(source.end, UTC):%Y-%m-%dT%H:%M:%SZ}"
    return f"{labels.get('job', '')}/{labels.get('instance', '')} until {until}"


@dataclass(slots=True)
class _Draft:
    """A job that is being read."""

    name: str
    resource: FrozenAttributes
    started: int = 0
    values: defaultdict[Series, list[_Value]] = field(default_factory=lambda: defaultdict(list))
    levels: defaultdict[Series, list[Level]] = field(default_factory=lambda: defaultdict(list))

    def finished(self) -> Job:
        histograms = {
            key: [each for each in found if isinstance(each, Histogram)] for key, found in self.values.items()
        }
        return Job(
            self.name,
            (),
            self.resource,
            self.started,
            self.started,  # how long it took is not known
            {key: merged for key, found in histograms.items() if (merged := merge_histograms(found))},
            {
                key: sum(numbers)
                for key, found in self.values.items()
                if (numbers := [each for each in found if isinstance(each, float)])
            },
            {key: functools.reduce(_together, found) for key, found in self.levels.items()},
        )


def _together(one: Level, other: Level) -> Level:
    return Level(
        one.last + other.last, one.mean + other.mean, one.largest + other.largest, max(one.points, other.points)
    )


def _grown(values: Iterable[_Value], before: _Value | None) -> list[_Value]:
    """Give what a series grew to each time before it started anew, from values one after the other."""
    ends: list[_Value] = []
    for value in values:
        if ends and _size(value) >= _size(ends[-1]):
            ends.pop()
        ends.append(value)
    first = ends[0]
    if isinstance(first, Histogram) and isinstance(before, Histogram):
        ends[0] = without(first, before) or first
    elif isinstance(first, float) and isinstance(before, float) and before <= first:
        ends[0] = first - before
    return [value for value in ends if _size(value)]


def _size(value: _Value) -> float:
    return value.count if isinstance(value, Histogram) else value


class _Questions:
    """What is asked of one server: PromQL for the series that are meant."""

    def __init__(self, source: PrometheusSource) -> None:
        self._source = source
        self._window = f"{source.end - source.start}s"
        runs = "|".join(map(re.escape, source.runs))
        self._run = f"{source.label or _RUN}=~{json.dumps(runs)}" if runs else ""
        labelled = (f'{source.label}!=""', self._run) if source.label else ()
        self._match = _joined(source.match, *labelled)

    def latest(self) -> dict[Identity, list[_Value]]:
        """Ask what everything came to within the time, or for all of its values, one after the other."""
        found = self._ask(self._chosen(self._over("last_over_time", _NAMES)), self._source.end)
        latest = {identity: [value] for identity, value in _last(self._assembled(found)).items()}
        # Servers before native histograms were stable give 0 for what they last were.
        unread: defaultdict[str, set[_Labels]] = defaultdict(set)
        for name, labels in numbers_of_histograms(found):
            unread[name].add(labels)
        for name, wanted in unread.items():
            latest |= self._all_values(_named(name), wanted)
        return latest

    def before(self) -> dict[Identity, _Value]:
        """Ask what everything was when the time began."""
        return _last(self._values(self._chosen(lambda *more: self._selector(_NAMES, *more)), self._source.start))

    def restarted(self, found: Iterable[Identity]) -> dict[Identity, list[_Value]]:
        """Ask for all values of what started anew within the time, one after the other."""
        restarted: dict[Identity, list[_Value]] = {}
        for metric, name in sorted({(each.metric, each.name) for each in found}, key=lambda each: each[1]):
            if metric.instrument == "observable_up_down_counter":
                continue
            anew: set[_Labels] = set()
            for counted in (name, f"{name}_count") if metric.instrument == "histogram" else (name,):
                resets = f"({self._chosen(self._over('resets', _named(counted)))}) > 0"
                anew |= {tuple(sorted(sample.labels.items())) for sample in self._ask(resets, self._source.end)}
            if anew:
                restarted |= self._all_values(f"__name__=~{json.dumps(re.escape(name) + '(_bucket|_sum)?')}", anew)
        return restarted

    def _all_values(self, name: str, wanted: Set[_Labels]) -> dict[Identity, list[_Value]]:
        """Ask for all values of the series with some labels, one after the other."""
        instances = "|".join(sorted({re.escape(dict(each).get("instance", "")) for each in wanted}))
        series = self._selector(name, f"instance=~{json.dumps(instances)}")
        found = self._values(f"{series}[{self._window}]", self._source.end)
        return {
            identity: [moments[at] for at in sorted(moments)]
            for identity, moments in found.items()
            if identity.labels in wanted
        }

    def levels(self, latest: Mapping[Identity, Sequence[_Value]]) -> dict[Identity, Level]:
        """Ask what was between the last values of gauges and up-down counters."""
        found = {
            identity: _size(values[-1])
            for identity, values in latest.items()
            if identity.metric.instrument == "observable_up_down_counter"
        }
        levels: dict[Identity, Level] = {}
        for name in sorted({identity.name for identity in found}):
            mean, largest, points = (
                _last(self._values(self._chosen(self._over(function, _named(name))), self._source.end, name))
                for function in ("avg_over_time", "max_over_time", "count_over_time")
            )
            for identity in mean.keys() & largest.keys() & points.keys() & found.keys():
                each = found[identity], _size(mean[identity]), _size(largest[identity])
                levels[identity] = Level(*each, round(_size(points[identity])))
        return levels

    def infos(self) -> dict[_Process, Mapping[str, str]]:
        """Ask for the resource attributes of the processes.

        Raises:
            PrometheusError: One process is of two runs, whose metrics are in the same series then.
        """
        infos: dict[_Process, Mapping[str, str]] = {}
        for sample in self._ask(self._of_ours(f"last_over_time({_INFO}[{self._window}])"), self._source.end):
            process = _process(sample.labels)
            others = infos.setdefault(process, sample.labels)
            if others.get(_RUN) != sample.labels.get(_RUN):
                told = f"{others.get(_RUN)!r} and {sample.labels.get(_RUN)!r}"
                raise PrometheusError(
                    self._source,
                    f"has the runs {told} in the same series, those of job {process[0]!r} and instance {process[1]!r}; "
                    "give each run a service.instance.id or instance of its own, or ask for a time of one alone",
                )
        return infos

    def starts(self) -> dict[_Process, int]:
        """Ask when each process was first seen, in nanoseconds since the epoch."""
        # What was seen for the first time after the last step is found at the end itself.
        seen_at = f"timestamp({_INFO})"
        first = self._of_ours(f"(min_over_time({seen_at}[{self._window}:{_STEP}]) or {seen_at})")
        seen = self._ask(first, self._source.end)
        return {_process(each.labels): round(float(value) * 1e9) for each in seen for _, value in each.points}

    def _ask(self, expression: str, at: float) -> list[Sample]:
        return ask(self._source, expression, at)

    def _values(self, expression: str, at: float, name: str | None = None) -> dict[Identity, dict[float, _Value]]:
        """Evaluate, and put together what was found; functions other than the last value take names away."""
        found = self._ask(expression, at)
        if name:
            found = [Sample({**sample.labels, "__name__": name}, sample.points) for sample in found]
        return self._assembled(found)

    def _assembled(self, found: Iterable[Sample]) -> dict[Identity, dict[float, _Value]]:
        try:
            return assembled(found)
        except (ValueError, TypeError, KeyError) as error:
            raise PrometheusError(self._source, f"holds what cannot be: a series that {error}") from error

    def _selector(self, *matchers: str) -> str:
        return f"{{{_joined(*matchers, self._match)}}}"

    def _over(self, function: str, name: str) -> _Vector:
        return lambda *more: f"{function}({self._selector(name, *more)}[{self._window}])"

    def _chosen(self, vector: _Vector) -> str:
        """Ask for those series of a vector that belong to the runs and targets that are meant."""
        run = "" if self._source.label else self._run
        if not run:
            return f"{vector()}{self._with_target(self._source.target)}" if self._source.target else vector()
        own = vector(run) + (self._with_target(self._source.target) if self._source.target else "")
        others = vector(_WITHOUT_RUN)
        return f"{own} or {others}{self._with_target(_joined(self._source.target, run))}"

    def _with_target(self, matchers: str) -> str:
        return f" {_SAME_PROCESS} last_over_time({_INFO}{{{matchers}}}[{self._window}] @ {self._source.end})"

    def _of_ours(self, vector: str) -> str:
        return f"{vector} {_SAME_PROCESS} ({self._chosen(self._over('last_over_time', _NAMES))})"


def _joined(*matchers: str) -> str:
    return ", ".join(filter(None, matchers))


def _named(name: str) -> str:
    return f"__name__={json.dumps(name)}"


def _process(labels: Mapping[str, str]) -> _Process:
    return labels.get("job", ""), labels.get("instance", "")


def _last(values: Mapping[Identity, Mapping[float, _Value]]) -> dict[Identity, _Value]:
    return {identity: moments[max(moments)] for identity, moments in values.items()}
