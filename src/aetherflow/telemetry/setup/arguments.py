"""What ``configure()`` may be called with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from aetherflow.errors import ConfigurationError
from aetherflow.telemetry.export.destination import Exporter
from aetherflow.telemetry.export.sampling_policy import KeepErrorsAndSlow, OnFull, RateLimit, is_sampler
from aetherflow.telemetry.health.monitor import HealthMonitor
from aetherflow.telemetry.profiling.policy import ProfilePolicy

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.sampling import Sampler

__all__ = ["AlreadyConfiguredError", "Arguments"]


class AlreadyConfiguredError(ConfigurationError):
    """``configure()`` was called again with other arguments.

    Args:
        differing: Each argument that differs: its value in the first call and in this one.
    """

    def __init__(self, differing: Mapping[str, tuple[object, object]]) -> None:
        self.differing = dict(differing)
        changes = ", ".join(f"{name}={first!r}, now {now!r}" for name, (first, now) in self.differing.items())
        super().__init__(
            f"already configured with {changes}; use the same arguments, or shut the first Telemetry down before"
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Arguments:
    """The arguments of one call, checked.

    Raises:
        ConfigurationError: One has a value that is not allowed.
    """

    service_name: str | None
    exporter: Exporter
    tracer_provider: TracerProvider | None
    meter_provider: MeterProvider | None
    metric_interval: float | None
    health: HealthMonitor | bool
    profile: ProfilePolicy | None
    logs: bool
    sampler: Sampler | RateLimit | KeepErrorsAndSlow | None
    on_full: OnFull
    queue_bytes: int
    set_global: bool
    directory: Path

    def __post_init__(self) -> None:
        """Check them."""
        if self.exporter not in get_args(Exporter):
            raise ConfigurationError(f"exporter is {self.exporter!r}; allowed: {', '.join(get_args(Exporter))}")
        if self.metric_interval is not None and not 0 < self.metric_interval < math.inf:
            raise ConfigurationError(f"metric_interval is {self.metric_interval!r}; allowed: seconds, more than 0")
        if self.service_name is not None and not self.service_name.strip():
            raise ConfigurationError(f"service_name is {self.service_name!r}; allowed: a name, or None")
        if not isinstance(self.health, HealthMonitor | bool):
            raise ConfigurationError(f"health is {self.health!r}; allowed: a HealthMonitor, True, False")
        if not isinstance(self.profile, ProfilePolicy | None):
            raise ConfigurationError(f"profile is {self.profile!r}; allowed: a ProfilePolicy, or None")
        if self.on_full not in get_args(OnFull):
            raise ConfigurationError(f"on_full is {self.on_full!r}; allowed: {', '.join(get_args(OnFull))}")
        is_number = isinstance(self.queue_bytes, int) and not isinstance(self.queue_bytes, bool)
        if not is_number or self.queue_bytes < 1:
            raise ConfigurationError(f"queue_bytes is {self.queue_bytes!r}; allowed: a whole number of bytes, from 1")
        if self.sampler is not None and not is_sampler(self.sampler):
            raise ConfigurationError(
                f"sampler is {self.sampler!r}; allowed: a Sampler of OpenTelemetry's SDK, a RateLimit, "
                "a KeepErrorsAndSlow, or None"
            )
        for name in ("logs", "set_global"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name} is {getattr(self, name)!r}; allowed: True, False")

    def differing(self, other: Arguments) -> dict[str, tuple[object, object]]:
        """Return each argument that differs in another call, with both values."""
        pairs = {each.name: (getattr(self, each.name), getattr(other, each.name)) for each in fields(self)}
        return {name: (first, now) for name, (first, now) in pairs.items() if first != now}
