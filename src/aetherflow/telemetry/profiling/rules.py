"""Which executions are due: a policy for each node, and what it has to remember of it."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import Final

from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.metrics.accumulators import Series
from aetherflow.telemetry.observation import Site
from aetherflow.telemetry.profiling.policy import ProfilePolicy

__all__ = ["Rule", "Rules"]

_ENOUGH: Final = 100
"""Executions from which on a node's p99 says something."""

_REFRESH: Final = 1.0
"""Seconds for which a p99 that was looked up holds."""


class Rule:
    """A policy for one node of one flow, and what it has to remember of it."""

    __slots__ = ("_armed", "_chance", "_clock", "_known_until", "_next", "_series", "_threshold", "policy")

    def __init__(
        self, policy: ProfilePolicy, series: Series, clock: Callable[[], float], chance: Callable[[], float]
    ) -> None:
        self.policy = policy
        self._series = series
        self._clock = clock
        self._chance = chance
        self._armed: list[bool] = []  # taken from without a lock: of executions that begin at once, one is profiled
        self._next = self._known_until = clock()
        self._threshold = math.inf

    def is_due(self) -> bool:
        """Tell whether the execution that begins now is to be profiled."""
        share = self.policy.share
        if share >= 1 or (share > 0 and self._chance() < share):
            return True
        try:
            self._armed.pop()
        except IndexError:
            return False
        self._next = self._clock() + self.policy.interval
        return True

    def took(self, nanoseconds: int) -> None:
        """Take note of how long an execution took that was not profiled."""
        if self.policy.slower_than is None:
            return
        now = self._clock()
        if now >= self._next and nanoseconds > self._limit(now) * 1e9:
            self._armed[:] = [True]

    def _limit(self, now: float) -> float:
        slower_than = self.policy.slower_than
        if isinstance(slower_than, int | float):
            return slower_than
        if now >= self._known_until:
            self._known_until = now + _REFRESH
            totals = self._series.totals()
            self._threshold = totals.quantile(0.99) if totals.count >= _ENOUGH else math.inf
        return self._threshold


class Rules:
    """Which executions are due.

    Args:
        policy: For nodes without one of their own; None for none of them.
        clock: Tells seconds; for tests.
        chance: Gives a number from 0 to 1, 1 left out; for tests. The host's own random numbers are left alone.
    """

    def __init__(
        self,
        policy: ProfilePolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] | None = None,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._chance = chance if chance is not None else random.Random().random
        self._rules: dict[object, Rule | None] = {}
        self._sent: dict[Series, Rule] = {}

    def rule(self, site: Site) -> Rule | None:
        """Return the rule for the executions at a place; None where none is ever due."""
        key: object = site.series if site.profile is None else (site.series, site.profile)
        try:
            return self._rules[key]
        except KeyError:
            return self._rules.setdefault(key, self._new_rule(site))

    def sent(self, site: Site) -> Rule | None:
        """Return the rule for an execution that is sent away, to be found again by the series of its duration."""
        rule = self.rule(site)
        if rule is not None:
            self._sent[site.series] = rule
        return rule

    def rule_of_sent(self, series: Series) -> Rule | None:
        """Return the rule for executions that were sent away and whose durations a series keeps."""
        return self._sent.get(series)

    def _new_rule(self, site: Site) -> Rule | None:
        policy = site.profile if site.profile is not None else self._policy
        if policy is None or not site.is_node or not policy.matches(site.attributes[names.NODE_NAME]):
            return None
        return Rule(policy, site.series, self._clock, self._chance)
