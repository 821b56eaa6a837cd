"""What ``configure()`` may be told of sampling and of a full queue, beyond the standard variables; without the SDK."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final, Literal

from aetherflow.errors import ConfigurationError

__all__ = ["QUEUE_BYTES", "KeepErrorsAndSlow", "OnFull", "RateLimit", "is_sampler"]

OnFull = Literal["drop", "block"]
"""What happens to spans that the queue has no room for: they are dropped, or their thread waits, with a time limit."""
QUEUE_BYTES: Final = 64 << 20
"""Bytes of encoded spans that may wait or be under way, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most so many spans a second; whole runs are sampled or not, decided when they begin.

    What a run will cost is known only afterwards: the first run of a burst is let through however large, and what it
    cost beyond the limit is made up for before another is.

    Args:
        spans_per_second: The limit, on average.
        burst: Seconds of the limit that may be saved up while less is going on.

    Raises:
        ConfigurationError: A value is not allowed.
    """

    spans_per_second: float
    burst: float = 1.0

    def __post_init__(self) -> None:
        for name in ("spans_per_second", "burst"):
            _check_number(f"RateLimit({name}=…)", getattr(self, name), "a number above 0", above=True)


@dataclass(frozen=True, slots=True)
class KeepErrorsAndSlow:
    """Export runs that failed or were slow, and a share of the others; decided when a run ends.

    Until then its spans wait in a buffer, and so they cost what sampled spans cost, but for the export.

    Args:
        slower_than: Seconds from which a run is slow; its root in this process is what counts.
        ratio: The share of the other runs that is kept, from 0 to 1, chosen by trace id.
        max_spans: The most spans that wait. Beyond, the trace that has waited longest is decided on early.

    Raises:
        ConfigurationError: A value is not allowed.
    """

    slower_than: float = 1.0
    ratio: float = 0.0
    max_spans: int = 50_000

    def __post_init__(self) -> None:
        _check_number("KeepErrorsAndSlow(slower_than=…)", self.slower_than, "seconds above 0", above=True)
        _check_number("KeepErrorsAndSlow(ratio=…)", self.ratio, "a share from 0 to 1", most=1)
        if not isinstance(self.max_spans, int) or isinstance(self.max_spans, bool) or self.max_spans < 1:
            raise ConfigurationError(
                f"KeepErrorsAndSlow(max_spans={self.max_spans!r}): allowed is a whole number from 1"
            )


def _check_number(what: str, value: object, allowed: str, *, above: bool = False, most: float | None = None) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not (value > 0 if above else value >= 0) or (most is not None and value > most):  # type: ignore[operator]
        raise ConfigurationError(f"{what.replace('…', repr(value))}: allowed is {allowed}")


def is_sampler(value: object) -> bool:
    """Tell whether something says what to sample: one of the above, or a sampler of the SDK."""
    if isinstance(value, RateLimit | KeepErrorsAndSlow):
        return True
    sampling = sys.modules.get("opentelemetry.sdk.trace.sampling")  # a sampler cannot be there before its module is
    return sampling is not None and isinstance(value, sampling.Sampler)
