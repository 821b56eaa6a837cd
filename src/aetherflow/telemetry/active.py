"""Which providers AetherFlow was told to use, where that is not simply what the application has set globally.

Read :data:`providers` as an attribute of this module: it is looked at on every run, so it costs no call. Each change
puts another object there; compare by identity.
"""

from __future__ import annotations

from dataclasses import dataclass

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

__all__ = ["Providers", "providers", "set_active"]


@dataclass(frozen=True, slots=True, eq=False)
class Providers:
    """The providers that AetherFlow emits to.

    Args:
        tracer_provider: Where spans go; None follows the API's global provider, also when that is set late.
        meter_provider: Where metrics go; None as for the tracer.
    """

    tracer_provider: TracerProvider | None = None
    meter_provider: MeterProvider | None = None


providers: Providers | None = None
"""What AetherFlow was told to use; None follows the API's global providers for both signals."""


def set_active(told: Providers | None) -> None:
    """Tell AetherFlow which providers to use from the next run on.

    Args:
        told: The providers, or None to follow the API's global ones.
    """
    global providers  # noqa: PLW0603  # read on every run: a holder object would cost each of them a look-up
    providers = told
