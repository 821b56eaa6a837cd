"""The one place where failures inside telemetry end: the host program never sees them.

They are counted, and logged at most once a minute. Under pytest they are raised, so that our own tests and our users'
tests see a telemetry bug where it happens.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Final

__all__ = ["caught", "failures"]

_LOGGER: Final = logging.getLogger("aetherflow")
_INTERVAL: Final = 60.0


class _Shield:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last = -_INTERVAL
        self.count = 0

    def caught(self, error: BaseException, doing: str) -> None:
        if "PYTEST_CURRENT_TEST" in os.environ:
            raise error
        with self._lock:
            self.count += 1
            now = self._clock()
            if now - self._last < _INTERVAL:
                return
            self._last = now
            count = self.count
        _LOGGER.error("telemetry failed while %s (failure %d of this process)", doing, count, exc_info=error)


_shield = _Shield()


def caught(error: BaseException, doing: str) -> None:
    """Take note of a failure inside telemetry and go on.

    Args:
        error: What was raised.
        doing: What telemetry was at, for the log line, such as ``"starting a span"``.

    Raises:
        BaseException: The error itself, under pytest only.
    """
    _shield.caught(error, doing)


def failures() -> int:
    """Return how many failures telemetry has had in this process."""
    return _shield.count
