"""What AetherFlow was told to do other than follow what the application has set globally.

Read :data:`providers`, :data:`profiling` and :data:`change` as attributes of this module: the last is looked at on
every run, so that costs no call. Each change puts another object there; compare by identity.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

__all__ = ["Providers", "change", "moved", "profiling", "providers", "set_active", "set_profiling"]


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

profiling: Callable[[Any], Any] | None = None
"""Gives, for the observer that the providers stand for, the one to use instead; None for the observer itself."""

change: object = None
"""Another object after each change of the two above; what read them after it knows that they still hold."""


def set_active(told: Providers | None) -> None:
    """Tell AetherFlow which providers to use from the next run on.

    Args:
        told: The providers, or None to follow the API's global ones.
    """
    global change, providers  # noqa: PLW0603  # read on every run: a holder object would cost each of them a look-up
    providers = told
    change = object()


def set_profiling(wrap: Callable[[Any], Any] | None) -> None:
    """Have another observer used from the next run on.

    Args:
        wrap: Makes it of the one that the providers stand for; None for none.
    """
    global change, profiling  # noqa: PLW0603  # as above
    profiling = wrap
    change = object()


moved: Final[ContextVar[Callable[[Callable[[], Any]], Any] | None]] = ContextVar("aetherflow_moved", default=None)
"""Calls a function on a thread that the execution under way has moved to, for whoever follows it there."""
