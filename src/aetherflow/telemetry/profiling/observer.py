"""Profiles of executions: which are due, taking them, and telling of them on the span.

A profile is part of an observation: the profiler is on while that is entered and off when it is left or ends, whatever
the node raises. :func:`install` puts a policy in force for all nodes by having :func:`~.observer.current_observer`
choose an observer that consults it; without a policy nothing is added to a run or an execution. Flows
with nodes that have a policy of their own ask :func:`current_observer` here instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import SpanContext

from aetherflow.errors import ConfigurationError
from aetherflow.telemetry import active, observer, shield
from aetherflow.telemetry.metrics.accumulators import Series
from aetherflow.telemetry.observation import ExecutionDetails, Lane, Observation, Observer, Site
from aetherflow.telemetry.profiling.policy import ProfilePolicy, policy_from_environment
from aetherflow.telemetry.profiling.rules import Rule, Rules
from aetherflow.telemetry.profiling.session import ProfileSession

__all__ = ["ProfilingObserver", "current_observer", "due_policy", "from_environment", "install", "observing"]
__all__ += ["profiled_by"]


def install(policy: ProfilePolicy | None = None) -> None:
    """Put a policy in force for every node that has none of its own, from the next run on, in place of any before.

    Args:
        policy: The policy; None for what ``AETHER_PROFILE`` says, which may be nothing.

    Raises:
        ConfigurationError: ``AETHER_PROFILE`` holds what is not allowed.
    """
    if policy is None:
        policy = policy_from_environment()
    active.set_profiling(None if policy is None else observing(Rules(policy)))


def from_environment(chosen: Observer) -> Observer:
    """Put in force what ``AETHER_PROFILE`` says, when the first run chooses its observer.

    A bad value is logged rather than raised: the host's runs do not fail of it. :func:`install` raises.
    """
    try:
        policy = policy_from_environment()
    except ConfigurationError as error:
        policy = None
        shield.caught(error, "reading when to profile")
    if active.profiling is from_environment:
        active.set_profiling(None if policy is None else observing(Rules(policy)))
    return chosen


if active.profiling is None:
    active.set_profiling(from_environment)


def observing(rules: Rules) -> Callable[[Observer], Observer]:
    """Return what makes an observer profile what some rules find due."""
    return lambda inner: ProfilingObserver(inner, rules)


class ProfilingObserver:
    """Observes as another observer does, and profiles what is due.

    Args:
        inner: The other one.
        rules: Say what is due.
    """

    idle = False

    def __init__(self, inner: Observer, rules: Rules) -> None:
        self.inner = inner
        self.tracing = inner.tracing
        self.tracer = inner.tracer
        self._rules = rules

    @property
    def metering(self) -> Observer:
        """What observes executions below one that was sampled out: they may be profiled still, into files."""
        return ProfilingObserver(self.inner.metering, self._rules)

    def begin(
        self,
        site: Site,
        extra: Mapping[str, Any] | None = None,
        links: Sequence[SpanContext] = (),
        parent: Context | None = None,
    ) -> Observation:
        """Start observing an execution, and profiling it if it is due."""
        return self._watched(site, self.inner.begin(site, extra, links, parent))

    def _watched(self, site: Site, seen: Observation) -> Observation:
        rule = self._rules.rule(site) if site.is_kept else None  # else whoever sent it has decided
        if rule is None:
            return seen
        if rule.is_due():
            return _ProfiledObservation(seen, ProfileSession(rule.policy, site, seen.context))
        return seen if rule.policy.slower_than is None else _TimedObservation(seen, rule)

    def begin_run(self, site: Site, run_id: str | None = None) -> Observation:
        """Start observing a run; that of a flow is not profiled, that of a node is."""
        seen = self.inner.begin_run(site, run_id)
        return self._watched(site, seen) if site.is_node else seen

    def lane(self, site: Site, run_id: str | None = None) -> Lane | None:
        """Return None: each execution is observed for itself, since any may be profiled."""
        return None

    def measure(self, site: Site) -> Observation:
        """Start observing an operation."""
        return self.inner.measure(site)

    def keep(self, series: Series, value: int, context: Context | None = None) -> None:
        """Keep a value that was measured elsewhere; a long one may make a profile due."""
        self.inner.keep(series, value, context)
        rule = self._rules.rule_of_sent(series)
        if rule is not None:
            rule.took(value)

    def keep_all(self, series: Series, values: Sequence[int]) -> None:
        """Keep many values that were measured elsewhere; a long one may make a profile due."""
        self.inner.keep_all(series, values)
        rule = self._rules.rule_of_sent(series)
        if rule is not None:
            for value in values:
                rule.took(value)

    def due_policy(self, site: Site) -> ProfilePolicy | None:
        """Return the policy by which an execution that is sent away is to be profiled where it arrives."""
        rule = self._rules.sent(site)
        return rule.policy if rule is not None and rule.is_due() else None


_own = Rules()
_last: ProfilingObserver | None = None


def current_observer() -> Observer:
    """Return the observer for runs of flows with nodes that have a policy of their own."""
    global _last  # noqa: PLW0603  # looked at on every such run
    chosen = observer.current_observer()
    if isinstance(chosen, ProfilingObserver):
        return chosen
    last = _last
    if last is None or last.inner is not chosen:
        last = _last = ProfilingObserver(chosen, _own)
    return last


def due_policy(chosen: Observer, site: Site) -> ProfilePolicy | None:
    """Return the policy by which an execution that is sent to a worker is to be profiled there; None for no profile."""
    return chosen.due_policy(site) if isinstance(chosen, ProfilingObserver) else None


def profiled_by(policy: ProfilePolicy | None, site: Site, seen: Observation) -> AbstractContextManager[None]:
    """Return what profiles an execution within ``with``, where whoever sent it has found that due."""
    return nullcontext() if policy is None else ProfileSession(policy, site, seen.context)


class _Wrapped(Observation):
    """An observation with something more to it."""

    __slots__ = ("_inner", "context")

    def __init__(self, inner: Observation) -> None:
        self._inner = inner
        self.context = inner.context

    def enter(self) -> object:
        return self._inner.enter()

    def leave(self, token: object) -> None:
        self._inner.leave(token)

    def set(self, attributes: Mapping[str, Any]) -> None:
        self._inner.set(attributes)

    def report(self, details: ExecutionDetails) -> None:
        self._details = details
        self._inner.report(details)

    def end(self, error: BaseException | None = None) -> None:
        self._inner.end(error)

    def blame(self, error: BaseException, trace_id: str = "") -> bool:
        return self._inner.blame(error, trace_id)


class _TimedObservation(_Wrapped):
    """An execution whose duration may make the next one due, if it is computed at its first attempt."""

    __slots__ = ("_began", "_rule")

    def __init__(self, inner: Observation, rule: Rule) -> None:
        super().__init__(inner)
        self._rule = rule
        self._began = time.perf_counter_ns()

    def end(self, error: BaseException | None = None) -> None:
        took = time.perf_counter_ns() - self._began
        self._inner.end(error)
        try:
            details = self.details
            if details is None or details.kind is None:  # else it is a cache hit, or includes waits
                self._rule.took(took)
        except Exception as failure:  # noqa: BLE001  # rule 3: telemetry never breaks the host
            shield.caught(failure, "deciding what to profile")


class _ProfiledObservation(_Wrapped):
    """An execution that is profiled."""

    __slots__ = ("_profile",)

    def __init__(self, inner: Observation, profile: ProfileSession) -> None:
        super().__init__(inner)
        self._profile = profile

    def enter(self) -> object:
        token = self._inner.enter()
        try:
            self._profile.enter()
        except BaseException:
            self.leave(token)
            raise
        return token

    def leave(self, token: object) -> None:
        try:
            self._profile.leave()
        finally:
            self._inner.leave(token)

    def end(self, error: BaseException | None = None) -> None:
        try:
            self._profile.end()
        finally:
            self._inner.end(error)
