"""What an operator states: thresholds as the health monitor has them, and the objective of a service."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from aetherflow.errors import ConfigurationError
from aetherflow.telemetry.conventions import DURATION_BOUNDARIES
from aetherflow.telemetry.health.limits import LimitsByName
from aetherflow.validation import Bounds, Check, validate_table

__all__ = ["Expectations", "Latency", "Objective", "read_expectations"]

_YAML: Final = frozenset({".yaml", ".yml"})


class _Table:
    __pydantic_config__: ClassVar = {"extra": "forbid"}


def _boundary(value: float) -> float:
    if value not in DURATION_BOUNDARIES:
        raise ValueError(f"must be a boundary of the histograms: {', '.join(map('{:g}'.format, DURATION_BOUNDARIES))}")
    return value


@dataclass(frozen=True)
class Latency(_Table):
    """Which share of runs must end within which time."""

    within: Annotated[float, Check(_boundary)]
    """Seconds; one of the boundaries of the histograms, since no other can be told from them."""
    share: Annotated[float, Bounds(gt=0, lt=1)] = 0.99
    """Of all runs, failed ones too."""


@dataclass(frozen=True)
class Objective(_Table):
    """What is promised of the runs of every flow."""

    success: Annotated[float, Bounds(gt=0, lt=1)] = 0.999
    """The share of runs that do not fail."""
    latency: Latency | None = None
    """How fast they are; nothing is promised where it is left out."""
    days: Annotated[int, Bounds(gt=0)] = 30
    """The period that the promise is kept over."""


@dataclass(frozen=True)
class Expectations(_Table):
    """What alerts are made from."""

    objective: Objective = Objective()
    limits: Mapping[str, Any] = field(default_factory=dict)
    """Thresholds, by the names that ``HealthMonitor`` has for them; ``false`` leaves one out."""
    per: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Thresholds of single components, by name, by kind and name (``node fetch``), or by a pattern for either."""
    window: Annotated[int, Bounds(gt=0, le=31_536_000)] = 300
    """Seconds that thresholds are held against: several times the interval of scraping."""
    min_samples: Annotated[int, Bounds(ge=0)] = 10
    """With fewer values in the window nothing is said of a component."""
    job: str = ""
    """The service, as Prometheus has it in the label ``job``; empty for every one that emits our metrics."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that every alert gets, such as ``team``."""

    @property
    def thresholds(self) -> LimitsByName:
        """The thresholds, checked as ``HealthMonitor`` checks them.

        Raises:
            ConfigurationError: One is unknown or not allowed.
        """
        per = {pattern: _without_false(each) for pattern, each in self.per.items()}
        return LimitsByName(float(self.window), _without_false(self.limits), per)


def read_expectations(path: Path) -> Expectations:
    """Read a configuration file.

    Args:
        path: TOML, or YAML where it is named ``.yaml`` or ``.yml``; its keys are the names of `Expectations`.

    Raises:
        ConfigurationError: It cannot be read, or has a key or a value that is not allowed; tells all of them.
    """
    kind = "YAML" if path.suffix in _YAML else "TOML"
    try:
        data = _parsed(path.read_text(encoding="utf-8"), kind)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not {kind}: {error}") from error
    expectations = validate_table(Expectations, data, str(path), "operations")
    try:
        _ = expectations.thresholds
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    return expectations


def _parsed(text: str, kind: str) -> object:
    if kind == "TOML":
        return tomllib.loads(text)
    import yaml

    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(error) from error


def _without_false(limits: Mapping[str, Any]) -> dict[str, Any]:
    """TOML has no null: ``false`` stands for it."""
    return {name: None if value is False else value for name, value in limits.items()}
