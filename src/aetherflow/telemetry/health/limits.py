"""What may be reached before a check complains: thresholds for all, and for components by name or pattern."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Final, TypedDict, cast

from aetherflow.errors import ConfigurationError

__all__ = ["DEFAULTS", "Limits", "LimitsByName"]


class Limits(TypedDict, total=False):
    """Thresholds, each of which may be reached but not exceeded; None leaves the check out."""

    average: float | None
    """Average latency of a node or operation in seconds; above it is degraded. By default 1.0."""
    p95: float | None
    """Its 95th percentile in seconds; above it is degraded. By default 1.0."""
    error_rate: float | None
    """The share of its executions that failed; above it is unhealthy. By default 0.01."""
    wait: float | None
    """95th percentile of the seconds waited for an executor's thread or for a pool's object; above it is degraded:
    saturated. By default 1.0."""
    progress: float | None
    """Seconds that an executor or pool may have somebody waiting and serve nobody; above it is unhealthy: stuck, or
    exhausted. By default the window's length."""
    telemetry_loss: float | None
    """The share of spans dropped or not exported; above it is degraded. By default 0.01."""


DEFAULTS: Final[Limits] = {
    "average": 1.0,
    "p95": 1.0,
    "error_rate": 0.01,
    "wait": 1.0,
    "telemetry_loss": 0.01,
}
"""Those of the guide, and of what it does not speak of."""

_SHARES: Final = frozenset({"error_rate", "telemetry_loss"})


class LimitsByName:
    """Thresholds of each component.

    Args:
        window: Seconds; the default of ``progress``.
        limits: Thresholds of all, in place of the defaults.
        per: Thresholds by component, in place of those of all: by its name (``fetch``), by kind and name
            (``node fetch``), or by a pattern for either (``fetch_*``). The name itself comes before kind and name,
            then patterns in the order given; one entry applies.

    Raises:
        ConfigurationError: A threshold is unknown or not allowed; the message names it.
    """

    def __init__(self, window: float, limits: Mapping[str, object], per: Mapping[str, Mapping[str, object]]) -> None:
        self._all: Limits = {**DEFAULTS, "progress": window, **_checked(limits, "")}
        if not isinstance(per, Mapping):
            raise ConfigurationError(f"per={per!r} is not allowed; allowed: a mapping from names to thresholds")
        self._per = {pattern: _checked(each, f"per[{pattern!r}]") for pattern, each in per.items()}
        self._known: dict[tuple[str, str], Limits] = {}

    @property
    def common(self) -> Limits:
        """The thresholds of all that have none of their own."""
        return self._all

    @property
    def own(self) -> Mapping[str, Limits]:
        """By name or pattern, in the order given: what replaces some of the common ones."""
        return self._per

    def of(self, kind: str, name: str) -> Limits:
        """Return the thresholds of a component whose kind is ``node``, ``executor`` or the like."""
        found = self._known.get((kind, name))
        if found is None:
            found = self._known[kind, name] = {**self._all, **self._own(name, f"{kind} {name}")}
        return found

    def _own(self, *names: str) -> Limits:
        for name in names:
            if name in self._per:
                return self._per[name]
        for pattern, limits in self._per.items():
            if any(fnmatchcase(name, pattern) for name in names):
                return limits
        return {}


def _checked(limits: object, where: str) -> Limits:
    if not isinstance(limits, Mapping):
        raise ConfigurationError(f"{where}={limits!r} is not allowed; allowed: a mapping from thresholds to numbers")
    _check_names(limits, where)
    for name, value in limits.items():
        allowed = "a share from 0 to 1" if name in _SHARES else "seconds, 0 or more"
        if value is not None and not _is_limit(value, 1.0 if name in _SHARES else math.inf):
            argument = f"{where}[{name!r}]" if where else name
            raise ConfigurationError(f"{argument}={value!r} is not allowed; allowed: {allowed}, or None for no check")
    return cast("Limits", dict(limits))


def _check_names(names: Iterable[object], where: str) -> None:
    known = Limits.__annotations__
    for name in names:
        if name not in known:
            raise ConfigurationError(
                f"there is no threshold {name!r}{where and f' ({where})'}; allowed: {', '.join(known)}"
            )


def _is_limit(value: object, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most
