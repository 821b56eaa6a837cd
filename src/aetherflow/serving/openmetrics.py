"""AetherFlow's metrics as Prometheus scrapes them: read off the store, whatever meter provider there is, or none."""

from __future__ import annotations

import itertools
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Final

from opentelemetry import trace
from prometheus_client import ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.samples import Exemplar

from aetherflow.operations.promql import label, metric_name
from aetherflow.telemetry import active
from aetherflow.telemetry.conventions import ALL_METRICS, MetricDefinition
from aetherflow.telemetry.metrics import gauges
from aetherflow.telemetry.metrics.accumulators import Folded, Series, registry

__all__ = ["Exposition"]

_PREFERRED: Final = "application/openmetrics-text; version=1.0.0"
_CLASSIC: Final = "text/plain"


@dataclass(slots=True)
class _Kept:
    """What values of a series add up to: how many each bucket holds, and one of them that points into a trace."""

    counts: list[int]
    total: int = 0
    exemplars: dict[int, Exemplar] = field(default_factory=dict)


class Exposition:
    """Everything recorded from its construction on, and what is asked for at each scrape.

    Histograms have the advised boundaries, since few of those who scrape know exponential ones. A bucket's exemplar is
    the last value in it that was kept and whose trace was sampled.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[Series, _Kept] = {}
        self._process = ProcessCollector(registry=None)
        registry.exchange(None, self)

    def take(self, series: Series, folded: Folded) -> None:
        """Take in what a series has folded."""
        definition = series.definition
        bounds = _bounds(definition)
        with self._lock:
            kept = self._kept.get(series)
            if kept is None:
                kept = self._kept[series] = _Kept([0] * (len(bounds) + 1))
            kept.total += folded.totals.total
            for value, times in folded.distinct.items():
                kept.counts[bisect_left(bounds, value)] += times
            if folded.exemplar is not None:
                value, context, at = folded.exemplar
                span = trace.get_current_span(context).get_span_context()
                pointer = {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}
                told = Exemplar(pointer, value / definition.ticks, at / 1e9)
                kept.exemplars[bisect_left(bounds, value)] = told

    def after_fork(self) -> None:
        """Forget what the parent process measured: it tells that itself."""
        self._lock = threading.Lock()
        self._kept = {}

    def render(self, accept: str) -> tuple[bytes, str]:
        """Write a scrape down.

        Args:
            accept: The header of that name. Text as Prometheus had it first, without exemplars, only where that alone
                is asked for.

        Returns:
            What is written, and its media type.
        """
        encode, media_type = choose_encoder(accept if _CLASSIC in accept else _PREFERRED)
        return encode(self), media_type

    def collect(self) -> Iterator[Metric]:
        """Yield every metric that has a value, then those of the process and its resource."""
        registry.fold()
        by_name: defaultdict[str, dict[Series, _Kept]] = defaultdict(dict)
        with self._lock:
            for series, each in self._kept.items():
                copy = _Kept(list(each.counts), each.total, dict(each.exemplars))
                by_name[series.definition.name][series] = copy
        for definition in ALL_METRICS:
            if definition.instrument.startswith("observable"):
                family = _readings(definition)
            else:
                family = _recorded(definition, by_name[definition.name])
            if family.samples:
                yield family
        yield from self._process.collect()
        yield from _resource()


@cache
def _bounds(definition: MetricDefinition) -> list[int]:
    """The upper bounds of buckets, in the store's whole numbers."""
    if definition.instrument != "histogram":
        return []
    return [round(bound * definition.ticks) for bound in definition.boundaries]


def _readings(definition: MetricDefinition) -> Metric:
    is_counter = definition.instrument == "observable_counter"
    kind = CounterMetricFamily if is_counter else GaugeMetricFamily
    family = kind(_name(definition), definition.description, labels=_labels(definition), unit=_unit(definition))
    for value, attributes in gauges.readings(definition):
        family.add_metric(_values(definition, attributes), value)
    return family


def _recorded(definition: MetricDefinition, kept: Mapping[Series, _Kept]) -> Metric:
    name, description, labels, unit = _name(definition), definition.description, _labels(definition), _unit(definition)
    if definition.instrument == "counter":
        counter = CounterMetricFamily(name, description, labels=labels, unit=unit)
        for series, each in kept.items():
            counter.add_metric(_values(definition, series.attributes), each.total / definition.ticks)
        return counter
    histogram = HistogramMetricFamily(name, description, labels=labels, unit=unit)
    for series, each in kept.items():
        total = each.total / definition.ticks
        histogram.add_metric(_values(definition, series.attributes), _buckets(definition, each), total)
    return histogram


def _buckets(definition: MetricDefinition, kept: _Kept) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
    """Each bucket's upper bound, how many values are not above it, and its exemplar where it has one."""
    bounds = (*map(str, map(float, definition.boundaries)), "+Inf")
    told = enumerate(zip(bounds, itertools.accumulate(kept.counts), strict=True))
    exemplars = kept.exemplars
    return [(*each, exemplars[index]) if index in exemplars else each for index, each in told]


def _name(definition: MetricDefinition) -> str:
    return metric_name(definition).removesuffix("_total")  # which the samples of a counter are given anyway


def _unit(definition: MetricDefinition) -> str:
    return "seconds" if definition.unit == "s" else ""


def _labels(definition: MetricDefinition) -> list[str]:
    return [label(attribute) for attribute in definition.attributes]


def _values(definition: MetricDefinition, attributes: Mapping[str, object]) -> list[str]:
    return [str(attributes.get(attribute, "")) for attribute in definition.attributes]


def _resource() -> Iterable[Metric]:
    """What is served: the resource of the spans, where their provider tells it."""
    told = active.providers
    provider = (told and told.tracer_provider) or trace.get_tracer_provider()
    attributes = getattr(getattr(provider, "resource", None), "attributes", None)
    if attributes:
        yield InfoMetricFamily(
            "target", "Target metadata", value={label(key): str(value) for key, value in attributes.items()}
        )
