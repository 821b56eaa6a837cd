"""The durations and counts of each node in a job, and the sample that the gate makes of durations."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from aetherflow.analysis.histograms import Histogram
from aetherflow.analysis.metric_points import Series
from aetherflow.analysis.metrics import Job
from aetherflow.analysis.shifts import Sample
from aetherflow.telemetry import conventions as names

__all__ = ["ExecutionCounts", "NodeKey", "comparable_durations", "durations_of", "executions_of", "sample_of"]

_FEWEST_CALLS: Final = 10
"""Calls in a job below which their median has no error that could be told."""
_NOTICEABLE: Final = 0.05
"""Share of cache hits and retried executions from which they noticeably shift a median."""


@dataclass(frozen=True, slots=True, order=True)
class NodeKey:
    """What durations are of: a node of a flow, a flow's runs (no node), or an operation (no flow)."""

    metric: str
    flow: str
    node: str

    def __str__(self) -> str:
        return f"{self.flow}/{self.node}" if self.flow and self.node else self.flow or self.node


@dataclass(slots=True)
class ExecutionCounts:
    """Number of executions of a node in a job.

    Attributes:
        total: All executions.
        failed: Executions that failed, of any kind.
        kinds: Executions that were not computed at their first attempt, by kind.
        computed: Executions that were computed at their first attempt and succeeded.
    """

    total: int = 0
    failed: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    computed: int = 0

    @property
    def cached(self) -> int:
        """Executions that returned a result which they did not compute themselves."""
        return sum(self.kinds[kind] for kind in names.CACHED_KINDS)

    def add(self, count: int, *, failed: bool, kind: str | None) -> None:
        """Count the executions of one series."""
        self.total += count
        self.failed += count if failed else 0
        if kind:
            self.kinds[kind] += count
        elif not failed:
            self.computed += count

    def merge(self, other: ExecutionCounts) -> None:
        """Add the executions of another job."""
        self.total += other.total
        self.failed += other.failed
        self.kinds += other.kinds
        self.computed += other.computed


def durations_of(job: Job) -> dict[NodeKey, Histogram]:
    """Return the durations of all executions that succeeded and were computed at their first attempt."""
    return _by_key(
        (series, histogram)
        for series, histogram in job.histograms.items()
        if series.get(names.ERROR_TYPE) is None and not series.get(names.EXECUTION_KIND)
    )


def comparable_durations(jobs: Sequence[Job]) -> list[dict[NodeKey, Histogram]]:
    """Return the durations of each job, without the nodes that cannot be compared between the jobs.

    Jobs that were recorded before executions had a kind have cache hits and retried executions among their durations.
    The durations of a node are left out of such a job if other jobs record a kind for a noticeable share of its
    executions.
    """
    executions = [executions_of(job) for job in jobs]
    together: defaultdict[NodeKey, ExecutionCounts] = defaultdict(ExecutionCounts)
    for counts in executions:
        if _has_kinds(counts):
            for key, each in counts.items():
                together[key].merge(each)
    apart = {key for key, each in together.items() if each.kinds.total() >= _NOTICEABLE * each.total}
    return [
        {
            key: histogram
            for key, histogram in durations_of(job).items()
            if key not in apart or _has_kinds(counts) or not _mixes_kinds(job, key)
        }
        for job, counts in zip(jobs, executions, strict=True)
    ]


def executions_of(job: Job) -> dict[NodeKey, ExecutionCounts]:
    """Return the number of executions of each node, of all kinds, failed ones included."""
    counts: defaultdict[NodeKey, ExecutionCounts] = defaultdict(ExecutionCounts)
    for series, histogram in job.histograms.items():
        key = _key_of(series)
        if key is not None and histogram.count:
            failed = series.get(names.ERROR_TYPE) is not None
            counts[key].add(histogram.count, failed=failed, kind=series.get(names.EXECUTION_KIND))
    return dict(counts)


def sample_of(histogram: Histogram, *, fine: bool) -> Sample | None:
    """Make durations a sample: the logarithm of their median.

    Args:
        histogram: The durations.
        fine: Whether all that it is compared with have buckets fine enough for that; else it is their mean.

    Returns:
        The sample; None where there are too few, or they are not above zero.
    """
    centre = histogram.log_median() if fine else histogram.log_mean()
    return None if centre is None or histogram.count < _FEWEST_CALLS else Sample(*centre, histogram.count)


def _has_kinds(counts: Mapping[NodeKey, ExecutionCounts]) -> bool:
    return any(each.kinds for each in counts.values())


def _mixes_kinds(job: Job, key: NodeKey) -> bool:
    """Return whether a job without kinds has cache hits, or retried executions of a node, among its durations."""
    return any(
        value > 0
        and (
            (series.metric == names.CACHE_REQUESTS.name and series.get(names.CACHE_RESULT) != "miss")
            or (
                series.metric == names.NODE_RETRIES.name
                and (series.get(names.FLOW_NAME), series.get(names.NODE_NAME)) == (key.flow, key.node)
            )
        )
        for series, value in job.sums.items()
    )


def _by_key(durations: Iterable[tuple[Series, Histogram]]) -> dict[NodeKey, Histogram]:
    merged: dict[NodeKey, Histogram] = {}
    for series, histogram in durations:
        key = _key_of(series)
        if key is not None and histogram.count:
            merged[key] = merged[key].merged(histogram) if key in merged else histogram
    return merged


@functools.lru_cache(maxsize=65_536)  # jobs have the same series
def _key_of(series: Series) -> NodeKey | None:
    attributes: Mapping[str, object] = dict(series.attributes)
    flow, node = (str(attributes.get(name, "")) for name in (names.FLOW_NAME, names.NODE_NAME))
    match series.metric:
        case names.NODE_DURATION.name:
            return NodeKey(series.metric, flow, node)
        case names.RUN_DURATION.name:
            return NodeKey(series.metric, flow, "")
        case names.OPERATION_DURATION.name:
            operation, monitor = (str(attributes.get(name, "")) for name in (names.OPERATION_NAME, names.MONITOR_NAME))
            return NodeKey(series.metric, "", f"{monitor}: {operation}" if monitor else operation)
    return None
