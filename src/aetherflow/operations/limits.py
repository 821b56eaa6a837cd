"""Rules from the thresholds of the health monitor: the same checks, over every process of a service."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from aetherflow.errors import ConfigurationError
from aetherflow.operations.objectives import Expectations
from aetherflow.operations.promql import INSTANCE, JOB, Query, equals, label, metric_name, quoted, unequal
from aetherflow.operations.rules import Alert, Group, Recording
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.conventions import MetricDefinition
from aetherflow.telemetry.health.limits import Limits

__all__ = ["limit_groups"]

_WILDCARD: Final = re.compile(r"\*|\?|\[!?\]?[^\]]*\]")
_Threshold = Literal["average", "p95", "error_rate", "wait", "progress", "telemetry_loss"]


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of component: what measures it, what names it, and what its alerts are called after."""

    name: str
    metric: MetricDefinition
    by: tuple[str, ...]
    waiting: MetricDefinition | None = None
    """How many wait for one; with it `metric` is how long they had waited."""

    @property
    def attribute(self) -> str:
        return self.by[-1]

    @property
    def has_kinds(self) -> bool:
        """Return whether the metric includes cache hits and retried executions, and tells them apart by kind."""
        return names.EXECUTION_KIND in self.metric.attributes

    @property
    def title(self) -> str:
        return self.name.capitalize()

    def recorded(self, operation: str) -> str:
        level = "_".join((JOB, *(attribute.split(".")[-2] for attribute in self.by)))
        return f"{level}:{metric_name(self.metric)}:{operation}"


_KINDS: Final = (
    _Kind("node", names.NODE_DURATION, (names.NODE_NAME,)),
    _Kind("operation", names.OPERATION_DURATION, (names.MONITOR_NAME, names.OPERATION_NAME)),
    _Kind("executor", names.EXECUTOR_WAIT, (names.EXECUTOR_NAME,), names.EXECUTOR_QUEUE),
    _Kind("pool", names.POOL_WAIT, (names.POOL_NAME,), names.POOL_WAITING),
)


def limit_groups(expected: Expectations) -> tuple[Group, Group]:
    """Return the recording rules and the alerts that follow from thresholds.

    Args:
        expected: The thresholds, their window, and the service.
    """
    matchers = (equals(JOB, expected.job),) if expected.job else ()
    query = Query(_duration(expected.window), (JOB,), matchers)
    recordings: list[Recording] = []
    alerts: list[Alert] = []
    for kind in _KINDS:
        recordings += _recordings(kind, query)
        for matching, limits in _parts(kind, expected):
            alerts += _alerts(kind, limits, matching, expected)
            if kind.waiting is not None and limits["progress"] is not None:
                alerts.append(_without_progress(kind, kind.waiting, query.where(*matching), limits["progress"]))
    return (
        Group("aetherflow-recordings", recordings),
        Group("aetherflow-thresholds", [*alerts, *_of_telemetry(query, expected), *_of_health(query)]),
    )


def _recordings(kind: _Kind, query: Query) -> Iterator[Recording]:
    each = query.split(*kind.by)
    window = query.window
    yield Recording(kind.recorded(f"increase{window}"), each.increase(kind.metric))
    if kind.has_kinds:
        computed = each.computed(kind.metric).increase(kind.metric)
        yield Recording(kind.recorded(f"computed_increase{window}"), computed)
    yield Recording(kind.recorded(f"p95_{window}"), each.quantile(0.95, kind.metric))
    if kind.waiting is None:
        yield Recording(kind.recorded(f"average_{window}"), each.average(kind.metric))
        yield Recording(kind.recorded(f"failed_{window}"), each.failed(kind.metric))


def _alerts(kind: _Kind, limits: Limits, matching: Sequence[str], expected: Expectations) -> Iterator[Alert]:
    window = _duration(expected.window)
    selected = f"{{{', '.join(matching)}}}" if matching else ""
    who = f"{kind.name} {{{{ $labels.{label(kind.attribute)} }}}} of {{{{ $labels.job }}}}"
    for threshold, operation, name, severity, told in _checks(kind):
        limit = limits[threshold]
        if limit is not None:
            number = "increase" if _is_share(threshold) or not kind.has_kinds else "computed_increase"
            known = f"and {kind.recorded(f'{number}{window}')} >= {expected.min_samples}"
            yield Alert(
                name,
                f"{kind.recorded(f'{operation}_{window}')}{selected}",
                f"> {limit:g} {known}",
                window,
                severity,
                f"{who}: {told}",
                f"{_shown(threshold)} over {window}; {_limit(threshold, limit)} is allowed (threshold {threshold}).",
            )


def _checks(kind: _Kind) -> tuple[tuple[_Threshold, str, str, str, str], ...]:
    """The threshold, the recorded operation, the alert's name, its severity, and what is told."""
    if kind.waiting is not None:
        return (("wait", "p95", f"AetherFlow{kind.title}Saturated", "warning", "callers wait long"),)
    return (
        ("average", "average", f"AetherFlow{kind.title}Slow", "warning", "slow on average"),
        ("p95", "p95", f"AetherFlow{kind.title}TailSlow", "warning", "one in twenty is slow"),
        ("error_rate", "failed", f"AetherFlow{kind.title}Failing", "critical", "fails too often"),
    )


def _without_progress(kind: _Kind, waiting: MetricDefinition, query: Query, seconds: float) -> Alert:
    each = query.split(INSTANCE, *kind.by)
    return Alert(
        f"AetherFlow{kind.title}Stuck",
        each.level(waiting),
        f"> 0 unless {each.increase(kind.metric)} > 0",
        _duration(seconds),
        "critical",
        f"{kind.name} {{{{ $labels.{label(kind.attribute)} }}}} of {{{{ $labels.instance }}}} serves nobody",
        f"{{{{ $value }}}} wait and none has been served for {_duration(seconds)} (threshold progress).",
    )


def _of_telemetry(query: Query, expected: Expectations) -> Iterator[Alert]:
    limit = expected.thresholds.of("telemetry", "spans")["telemetry_loss"]
    if limit is not None:
        lost = query.share(names.TELEMETRY_SPANS, unequal(names.TELEMETRY_OUTCOME, "exported"))
        yield Alert(
            "AetherFlowTelemetryLost",
            f"({lost})",
            f"> {limit:g} and {query.increase(names.TELEMETRY_SPANS)} >= {expected.min_samples}",
            query.window,
            "warning",
            "{{ $labels.job }} loses telemetry",
            f"{_shown('telemetry_loss')} of spans over {query.window} were dropped or not exported; "
            f"{_limit('telemetry_loss', limit)} is allowed (threshold telemetry_loss).",
        )


def _of_health(query: Query) -> Iterator[Alert]:
    each = query.split(INSTANCE)
    for state, severity in (("degraded", "warning"), ("unhealthy", "critical")):
        yield Alert(
            f"AetherFlow{state.capitalize()}",
            each.where(equals(names.HEALTH_STATE, state)).level(names.HEALTH_STATUS),
            "== 1",
            query.window,
            severity,
            f"{{{{ $labels.instance }}}} of {{{{ $labels.job }}}} calls itself {state}",
            "Its health report tells which check says so.",
        )


def _parts(kind: _Kind, expected: Expectations) -> Iterator[tuple[tuple[str, ...], Limits]]:
    """Yield what matches the components that share thresholds, and these; as the health monitor chooses them."""
    before: list[str] = []
    thresholds = expected.thresholds
    for pattern in _ordered(thresholds.own, kind.name):
        limits: Limits = {**thresholds.common, **thresholds.own[pattern]}
        regex = _regex(pattern.removeprefix(f"{kind.name} "))
        yield (_matches(kind, "=~", [regex]), *([_matches(kind, "!~", before)] if before else [])), limits
        before.append(regex)
    yield ((_matches(kind, "!~", before),) if before else ()), thresholds.common


def _ordered(own: Mapping[str, Limits], kind: str) -> list[str]:
    """Names before kind and name, these before patterns; without what is meant for other kinds."""
    others = tuple(f"{each.name} " for each in _KINDS if each.name != kind)

    def rank(pattern: str) -> int:
        return 2 if _WILDCARD.search(pattern) else int(pattern.startswith(f"{kind} "))

    return sorted((pattern for pattern in own if not pattern.startswith(others)), key=rank)


def _regex(pattern: str) -> str:
    """Write a pattern as ``fnmatch`` has them as a regular expression of Prometheus, which anchors it by itself.

    Raises:
        ConfigurationError: It has a range that ends before it begins, for which Prometheus would refuse the whole file.
    """
    made = "".join(map(_part, re.split(f"({_WILDCARD.pattern})", pattern)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of what Python may read otherwise one day, and Prometheus not
        try:
            re.compile(made)
        except re.error as error:
            raise ConfigurationError(f"no name can match {pattern!r}: {error}") from error
    return made


def _part(text: str) -> str:
    if text in ("*", "?"):
        return {"*": ".*", "?": "."}[text]
    if _WILDCARD.fullmatch(text):
        inner = text[1:-1].replace("\\", r"\\").replace("[", r"\[")  # else "[[:" would begin a class of characters
        return f"[^{inner[1:]}]" if inner.startswith("!") else f"[{inner.replace('^', chr(92) + '^')}]"
    return re.escape(text)


def _matches(kind: _Kind, operator: str, regexes: Sequence[str]) -> str:
    return f"{label(kind.attribute)}{operator}{quoted('|'.join(regexes))}"


def _shown(threshold: _Threshold) -> str:
    return "{{ $value | humanizePercentage }}" if _is_share(threshold) else "{{ $value | humanizeDuration }}"


def _limit(threshold: _Threshold, limit: float) -> str:
    return f"{limit * 100:g} %" if _is_share(threshold) else f"{limit:g} s"


def _is_share(threshold: _Threshold) -> bool:
    return threshold in ("error_rate", "telemetry_loss")


def _duration(seconds: float) -> str:
    """Write seconds as Prometheus has durations: in whole minutes where they are, else in seconds or milliseconds."""
    milliseconds = max(round(seconds * 1000), 1)
    for unit, length in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds % length == 0:
            return f"{milliseconds // length}{unit}"
    return f"{milliseconds}ms"
