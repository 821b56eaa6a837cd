"""What a job says of each node: how long its executions took, how many failed, and a sample for the gate."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from aetherflow.analysis.histograms import Histogram
from aetherflow.analysis.metric_points import Series
from aetherflow.analysis.metrics import Job
from aetherflow.analysis.shifts import Sample
from aetherflow.telemetry import conventions as names

__all__ = ["NodeKey", "durations_of", "failures_of", "sample_of"]

_FEWEST_CALLS: Final = 10
"""Calls in a job below which their median has no error that could be told."""


@dataclass(frozen=True, slots=True, order=True)
class NodeKey:
    """What durations are of: a node of a flow, a flow's runs (no node), or an operation (no flow)."""

    metric: str
    flow: str
    node: str

    def __str__(self) -> str:
        return f"{self.flow}/{self.node}" if self.flow and self.node else self.flow or self.node


def durations_of(job: Job) -> dict[NodeKey, Histogram]:
    """Give the durations of all that succeeded."""
    return _by_key((series, each) for series, each in job.histograms.items() if series.get(names.ERROR_TYPE) is None)


def failures_of(job: Job) -> dict[NodeKey, int]:
    """Give how many executions failed."""
    failed = ((series, each) for series, each in job.histograms.items() if series.get(names.ERROR_TYPE) is not None)
    return {key: histogram.count for key, histogram in _by_key(failed).items()}


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


def _by_key(found: Iterable[tuple[Series, Histogram]]) -> dict[NodeKey, Histogram]:
    merged: dict[NodeKey, Histogram] = {}
    for series, histogram in found:
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
