"""What a process says at its ``/metrics``, and what happened between two looks at it."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from aetherflow.analysis.fetching import NoAnswerError, fetch
from aetherflow.analysis.histograms import ExplicitBuckets, Histogram
from aetherflow.analysis.metric_points import Series
from aetherflow.analysis.prometheus_api import Sample
from aetherflow.analysis.prometheus_series import assembled, series_of, without
from aetherflow.errors import AetherFlowError
from aetherflow.telemetry.conventions import ALL_METRICS

__all__ = ["Change", "Scrape", "ScrapeError", "read_scrape", "scrape"]

_ACCEPTED: Final = "text/plain;version=0.0.4,application/openmetrics-text;version=1.0.0;q=0.5"
"""What is least work for who answers, and enough: exemplars are not looked at."""
_OPEN: Final = "application/openmetrics-text"
_LARGEST: Final = 64 * 2**20
_LEVELS: Final = {each.name for each in ALL_METRICS if each.instrument == "observable_up_down_counter"}
_STARTED: Final = "process_start_time_seconds"


class ScrapeError(AetherFlowError):
    """Nothing can be read at an address; tells the address and why.

    Args:
        url: The address.
        reason: Why.
    """

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        self.reason = reason
        super().__init__(f"{url}: {reason}")


@dataclass(frozen=True, slots=True)
class Scrape:
    """What a process said of itself.

    Attributes:
        at: When, in seconds of a monotonic clock.
        values: What its metrics were, by series.
        resource: What it is: the labels of ``target_info``.
        process: Its processor time, memory and the like, by the names that Prometheus' clients give them.
    """

    at: float
    values: Mapping[Series, Histogram | float] = field(default_factory=dict)
    resource: Mapping[str, str] = field(default_factory=dict)
    process: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """What happened between two scrapes of a process, and how it is now.

    Args:
        before: The earlier one.
        now: The later one.
    """

    before: Scrape
    now: Scrape

    @property
    def seconds(self) -> float:
        """How long it was, above 0."""
        return max(self.now.at - self.before.at, 1e-9)

    @property
    def is_restarted(self) -> bool:
        """Whether another process answers by now, which has counted from nothing."""
        return self.now.process.get(_STARTED) != self.before.process.get(_STARTED)

    def recorded(self, metric: str) -> dict[Series, Histogram]:
        """Return what a histogram recorded meanwhile, by series; empty ones too."""
        found: dict[Series, Histogram] = {}
        for series, now in self.now.values.items():
            if series.metric == metric and isinstance(now, Histogram):
                before = None if self.is_restarted else self.before.values.get(series, _nothing_like(now))
                since = without(now, before) if isinstance(before, Histogram) else None
                found[series] = now if since is None else since
        return found

    def counted(self, metric: str) -> dict[Series, float]:
        """Return by how much a counter grew meanwhile, by series; all of it where it has begun anew."""
        found: dict[Series, float] = {}
        for series, now in self.now.values.items():
            if series.metric == metric and not isinstance(now, Histogram):
                before = 0.0 if self.is_restarted else self.before.values.get(series, 0.0)
                since = now - before if not isinstance(before, Histogram) else now
                found[series] = now if since < 0 else since
        return found

    def level(self, metric: str) -> dict[Series, float]:
        """Return what a gauge says now, by series."""
        values = self.now.values.items()
        return {key: value for key, value in values if key.metric == metric and not isinstance(value, Histogram)}


def _nothing_like(histogram: Histogram) -> Histogram | None:
    match histogram.buckets:
        case ExplicitBuckets(bounds, counts):
            return Histogram(0, 0.0, ExplicitBuckets(bounds, (0,) * len(counts)))
    return None


def scrape(url: str, *, token: str | None = None, timeout: float = 5.0) -> Scrape:
    """Ask a process for its metrics.

    Args:
        url: The address of its ``/metrics``.
        token: A bearer token to show; None for none.
        timeout: Seconds that it may take to say something.

    Raises:
        ScrapeError: It does not answer, or not with metrics.
    """
    try:
        request = urllib.request.Request(url, headers={"Accept": _ACCEPTED})
        if token:
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        body, headers = fetch(request, timeout=timeout, most=_LARGEST)
    except urllib.error.HTTPError as error:
        with error:
            hint = "; it asks for a token" if error.code == HTTPStatus.UNAUTHORIZED else ""
            raise ScrapeError(url, f"answers {error.code} {error.reason}{hint}") from error
    except (NoAnswerError, ValueError) as error:
        raise ScrapeError(url, str(error)) from error
    media_type = headers.get("Content-Type", "")
    try:
        return read_scrape(body.decode(), time.monotonic(), is_open=media_type.startswith(_OPEN))
    except ValueError as error:
        raise ScrapeError(url, f"says what are no metrics for Prometheus ({error})") from error


def read_scrape(text: str, at: float, *, is_open: bool = True) -> Scrape:
    """Read an answer.

    Args:
        text: Its body.
        at: When it was given, in seconds of a monotonic clock.
        is_open: Whether it is OpenMetrics; else the text that Prometheus had before.

    Raises:
        ValueError: It is neither.
    """
    samples, resource, process = [], {}, {}
    for sample in _parsed(text, is_open=is_open):
        if sample.name == "target_info":
            resource = dict(sample.labels)
        elif sample.name.startswith("process_"):
            process[sample.name] = float(sample.value)
        else:
            samples.append(Sample({"__name__": sample.name, **sample.labels}, ((at, sample.value),)))
    values: dict[Series, Histogram | float] = {}
    for identity, moments in assembled(samples).items():
        series, value = series_of(identity), moments[at]
        values[series] = _together(values.get(series), value)
    return Scrape(at, values, resource, process)


def _together(one: Histogram | float | None, other: Histogram | float) -> Histogram | float:
    """Add up what differs in labels that say nothing, such as the instrumentation's."""
    if one is None:
        return other
    if isinstance(one, Histogram):
        return one.merged(other) if isinstance(other, Histogram) else one
    return one if isinstance(other, Histogram) else one + other


def _parsed(text: str, *, is_open: bool) -> Iterable[Any]:
    from prometheus_client import parser
    from prometheus_client.openmetrics import parser as open_parser

    read = open_parser.text_string_to_metric_families if is_open else parser.text_string_to_metric_families
    try:
        return [sample for family in read(text) for sample in family.samples]
    except (KeyError, IndexError, TypeError, AttributeError) as error:  # what the parsers make of garbage at times
        raise ValueError(f"{type(error).__name__}: {error}") from error
