"""PromQL over our metrics, under the names that Prometheus knows them by.

A query takes metrics and attributes from the conventions and nothing else, so that none can name what is not emitted.
Histograms are asked for as classic ones, with buckets: what the Prometheus exporter of the application serves, and the
collector's too where the application sends explicit buckets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Self

from aetherflow.telemetry.conventions import ERROR_TYPE, EXECUTION_KIND, MetricDefinition

__all__ = ["INSTANCE", "JOB", "Query", "below", "equals", "label", "metric_name", "one_of", "quoted", "unequal"]

JOB: Final = "job"
"""The label that Prometheus knows a service by."""
INSTANCE: Final = "instance"
"""The label that it knows a process by."""


def metric_name(metric: MetricDefinition) -> str:
    """Return what Prometheus calls a metric; of a histogram the part before ``_bucket``, ``_sum`` and ``_count``.

    Source: OpenTelemetry's Prometheus and OpenMetrics compatibility specification.
    """
    name = label(metric.name)
    if metric.unit == "s":
        name += "_seconds"
    return f"{name}_total" if metric.instrument in ("counter", "observable_counter") else name


def label(attribute: str) -> str:
    """Return what Prometheus calls an attribute."""
    return re.sub(r"[^a-zA-Z0-9_]+", "_", attribute)


def quoted(text: str) -> str:
    """Write a string as PromQL has it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def equals(attribute: str, value: str) -> str:
    """Match series with that value of an attribute."""
    return f"{label(attribute)}={quoted(value)}"


def one_of(attribute: str, values: Iterable[str]) -> str:
    """Match series with any of several values of an attribute."""
    return f"{label(attribute)}=~{quoted('|'.join(map(re.escape, values)))}"


def unequal(attribute: str, value: str) -> str:
    """Match series with another value of an attribute; with "" those that have it."""
    return f"{label(attribute)}!={quoted(value)}"


def below(bound: float) -> str:
    """Match the bucket of a bound, which some exporters write as 1 and others as 1.0."""
    digits = re.escape(f"{bound:g}").replace("\\", "\\\\")
    return f'le=~"{digits}"' if "." in digits else f'le=~"{digits}(\\\\.0)?"'


@dataclass(frozen=True, slots=True)
class Query:
    """Writes queries over some of the series, by some of their labels.

    Args:
        window: What rates are taken over, such as ``5m``.
        by: The attributes, or labels, that results are told apart by.
        matchers: What series must match.
    """

    window: str
    by: tuple[str, ...] = ()
    matchers: tuple[str, ...] = ()

    def split(self, *attributes: str) -> Self:
        """Return the same with results told apart by more."""
        return replace(self, by=(*self.by, *attributes))

    def where(self, *matchers: str) -> Self:
        """Return the same over fewer series."""
        return replace(self, matchers=(*self.matchers, *matchers))

    def computed(self, metric: MetricDefinition) -> Self:
        """Return the query over executions computed at their first attempt; over all if the metric has no kinds.

        An absent label equals "", so that series recorded before there were kinds match too.
        """
        return self.where(equals(EXECUTION_KIND, "")) if EXECUTION_KIND in metric.attributes else self

    def level(self, metric: MetricDefinition) -> str:
        """What a gauge says now."""
        return self._sum(self.series(metric))

    def rate(self, metric: MetricDefinition) -> str:
        """How much a counter grows a second, or how many values a histogram takes."""
        return self._sum(f"rate({self.series(metric, _counted(metric))}[{self.window}])")

    def increase(self, metric: MetricDefinition) -> str:
        """By how much a counter, or the number of a histogram's values, has grown within the window."""
        return self._sum(f"increase({self.series(metric, _counted(metric))}[{self.window}])")

    def busy(self, metric: MetricDefinition) -> str:
        """The sum of a histogram's values a second."""
        return self._sum(f"rate({self.series(metric, '_sum')}[{self.window}])")

    def average(self, metric: MetricDefinition) -> str:
        """The average of a histogram's values, of computed executions only; nothing if there are none."""
        computed = self.computed(metric)
        return f"{computed.busy(metric)} / ({computed.rate(metric)} > 0)"

    def quantile(self, quantile: float, metric: MetricDefinition) -> str:
        """A quantile of a histogram's values, of computed executions only; nothing if there are none."""
        computed = self.computed(metric)
        buckets = computed.split("le")._sum(f"rate({computed.series(metric, '_bucket')}[{self.window}])")
        return f"histogram_quantile({quantile:g}, {buckets}) >= 0"

    def share(self, metric: MetricDefinition, *matchers: str) -> str:
        """The share of what a counter or a histogram counted that matches; 0 where none does, nothing without any."""
        everything = self.rate(metric)
        return f"({self.where(*matchers).rate(metric)} or 0 * {everything}) / ({everything} > 0)"

    def failed(self, metric: MetricDefinition) -> str:
        """The share of the values of a histogram of durations that are of failures."""
        return self.share(metric, unequal(ERROR_TYPE, ""))

    def slower(self, metric: MetricDefinition, bound: float) -> str:
        """The share of a histogram's values above one of its boundaries, of computed executions only."""
        computed = self.computed(metric)
        fast = self._sum(f"rate({computed.where(below(bound)).series(metric, '_bucket')}[{self.window}])")
        return f"1 - {fast} / ({computed.rate(metric)} > 0)"

    def series(self, metric: MetricDefinition, suffix: str = "") -> str:
        """Select the series."""
        matching = f"{{{_joined(self.matchers)}}}" if self.matchers else ""
        return f"{metric_name(metric)}{suffix}{matching}"

    def _sum(self, series: str) -> str:
        return f"sum by ({_joined(map(label, self.by))}) ({series})"


def _counted(metric: MetricDefinition) -> str:
    return "_count" if metric.instrument == "histogram" else ""


def _joined(parts: Iterable[str]) -> str:
    return ", ".join(parts)
