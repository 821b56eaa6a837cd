"""What waits for more when the interpreter exits is done then: the threads that wait for it may not get to."""

from __future__ import annotations

import atexit
import time
from typing import Final, Protocol
from weakref import WeakSet

__all__ = ["EXIT_TIMEOUT", "flush_at_exit"]

EXIT_TIMEOUT: Final = 2.0
"""Seconds that leaving the process waits at most for what other threads are at."""


class Flushed(Protocol):
    """What has something to do before the process ends."""

    def flush(self) -> None:
        """Do what waits."""
        ...

    def is_busy(self) -> bool:
        """Tell whether other threads are at something."""
        ...


_alive: Final[WeakSet[Flushed]] = WeakSet()


def flush_at_exit(what: Flushed) -> None:
    """Have ``what.flush()`` called when the interpreter exits, if it is alive then."""
    # Registered with the first of them, since the last registered comes first: before telemetry that was set up earlier
    # in the program, so that spans of this still get out.
    if not _alive:
        atexit.unregister(_flush)  # of others, which are gone
        atexit.register(_flush)
    _alive.add(what)


def _flush() -> None:
    left = list(_alive)
    for what in left:
        what.flush()
    until = time.monotonic() + EXIT_TIMEOUT
    while any(what.is_busy() for what in left) and time.monotonic() < until:
        time.sleep(0.001)
