r"""For the tests of those who use AetherFlow: captured telemetry, a clock that does as it is told, countable ids.

Needs pytest, which the extra ``test`` brings. In a ``conftest.py``::

    from aetherflow.testing import capture_telemetry

and then::

    def test_the_flow_is_one_trace(capture_telemetry):
        flow.run({"n": 1})
        (root,) = capture_telemetry.tree()
        assert str(root) == "run flow\n  load\n  report"
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from aetherflow.telemetry.capture import CapturedTelemetry, DeterministicIdGenerator, SpanTree

__all__ = ["CapturedTelemetry", "DeterministicIdGenerator", "FakeClock", "SpanTree", "capture_telemetry"]


@pytest.fixture
def capture_telemetry() -> Iterator[CapturedTelemetry]:
    """Keep what AetherFlow emits during the test; see :class:`CapturedTelemetry`, also usable by itself in ``with``."""
    with CapturedTelemetry() as captured:
        yield captured


class FakeClock:
    """A clock that stands still until it is told otherwise; its methods replace those of :mod:`time`.

    Args:
        wall: What :meth:`time` begins at, in seconds since the epoch; :meth:`monotonic` begins at 0.
    """

    def __init__(self, wall: float = 1_700_000_000.0) -> None:
        self._wall_ns = round(wall * 1e9)
        self._passed_ns = 0
        self._lock = threading.Lock()

    def monotonic(self) -> float:
        """Return the seconds that have passed."""
        return self._passed_ns / 1e9

    def monotonic_ns(self) -> int:
        """Return the nanoseconds that have passed."""
        return self._passed_ns

    def time(self) -> float:
        """Return the time of day, in seconds since the epoch."""
        return self.time_ns() / 1e9

    def time_ns(self) -> int:
        """Return the time of day, in nanoseconds since the epoch."""
        return self._wall_ns + self._passed_ns

    def advance(self, seconds: float) -> None:
        """Let time pass.

        Args:
            seconds: How much.

        Raises:
            ValueError: It is negative: clocks of this kind never go back.
        """
        if seconds < 0:
            raise ValueError(f"a clock cannot advance by {seconds!r} s; allowed: 0 or more")
        with self._lock:
            self._passed_ns += round(seconds * 1e9)

    def sleep(self, seconds: float) -> None:
        """Let time pass without waiting for it, in place of :func:`time.sleep`."""
        self.advance(seconds)

    async def async_sleep(self, seconds: float) -> None:
        """Let time pass without waiting for it, in place of ``asyncio.sleep`` or ``anyio.sleep``."""
        self.advance(seconds)
