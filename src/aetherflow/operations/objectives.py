"""What an operator states: thresholds as the health monitor has them, and the objective of a service."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator

from aetherflow.errors import ConfigurationError
from aetherflow.telemetry.conventions import DURATION_BOUNDARIES
from aetherflow.telemetry.health.limits import LimitsByName
from aetherflow.validation import format_validation_errors

__all__ = ["Expectations", "Latency", "Objective", "read_expectations"]

_YAML: Final = frozenset({".yaml", ".yml"})


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Latency(_Table):
    """Which share of runs must end within which time."""

    within: float
    """Seconds; one of the boundaries of the histograms, since no other can be told from them."""
    share: float = Field(default=0.99, gt=0, lt=1)
    """Of all runs, failed ones too."""

    @field_validator("within")
    @classmethod
    def _is_boundary(cls, value: float) -> float:
        if value not in DURATION_BOUNDARIES:
            raise ValueError(
                f"must be a boundary of the histograms: {', '.join(map('{:g}'.format, DURATION_BOUNDARIES))}"
            )
        return value


class Objective(_Table):
    """What is promised of the runs of every flow."""

    success: float = Field(default=0.999, gt=0, lt=1)
    """The share of runs that do not fail."""
    latency: Latency | None = None
    """How fast they are; nothing is promised where it is left out."""
    days: PositiveInt = 30
    """The period that the promise is kept over."""


class Expectations(_Table):
    """What alerts are made from."""

    objective: Objective = Objective()
    limits: Mapping[str, Any] = Field(default_factory=dict)
    """Thresholds, by the names that ``HealthMonitor`` has for them; ``false`` leaves one out."""
    per: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    """Thresholds of single components, by name, by kind and name (``node fetch``), or by a pattern for either."""
    window: PositiveInt = 300
    """Seconds that thresholds are held against: several times the interval of scraping."""
    min_samples: int = Field(default=10, ge=0)
    """With fewer values in the window nothing is said of a component."""
    job: str = ""
    """The service, as Prometheus has it in the label ``job``; empty for every one that emits our metrics."""
    labels: Mapping[str, str] = Field(default_factory=dict)
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
    try:
        found = Expectations.model_validate(data)
        _ = found.thresholds
    except ValidationError as failure:
        raise ConfigurationError(f"{path}: {format_validation_errors(failure)}") from None
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    return found


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
