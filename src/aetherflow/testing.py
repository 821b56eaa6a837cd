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
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from aetherflow.telemetry import active
from aetherflow.telemetry.capture import CapturedTelemetry, DeterministicIdGenerator, SpanTree
from aetherflow.telemetry.conventions import PIPELINE_RUN_ID
from aetherflow.telemetry.export.destination import Destination
from aetherflow.telemetry.export.files import ProcessFile
from aetherflow.telemetry.setup.providers import make_meter_provider

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider

__all__ = [
    "CapturedTelemetry",
    "DeterministicIdGenerator",
    "FakeClock",
    "MetricExport",
    "SpanTree",
    "capture_telemetry",
]

REGRESS_MARK: Final = "aetherflow_regress"


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


class MetricExport:
    """A pytest plugin that writes the metrics of a test run to files: what ``--aetherflow-export=DIR`` registers.

    While a test is called, and only then, AetherFlow's metrics go here, and nowhere else. Where any test is marked
    ``aetherflow_regress``, only those tests count; ``aetherflow_regress(rounds=N)`` calls the test N times, so that its
    nodes have enough executions to be compared.

    Args:
        directory: Where the files are.
        run: What tells this run from others, on every process that takes part in it.
    """

    def __init__(self, directory: Path, run: str) -> None:
        self._directory = directory
        self._run = run
        self._provider: MeterProvider | None = None
        self._marked_only = False

    @pytest.hookimpl
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Look whether there are marks."""
        self._marked_only = any(item.get_closest_marker(REGRESS_MARK) for item in session.items)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, None, None]:
        """Take the metrics of a test."""
        if self._marked_only and not item.get_closest_marker(REGRESS_MARK):
            return (yield)
        if self._provider is None:
            file = ProcessFile(self._directory, "metrics", datetime.now(UTC))
            self._provider = make_meter_provider([Destination("file")], file, None, None, {PIPELINE_RUN_ID: self._run})
        before = active.providers
        active.set_active(active.Providers(before.tracer_provider if before else None, self._provider))
        try:
            return (yield)
        finally:
            active.set_active(before)

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> None:
        """Call a test that has rounds all of them but the last, which is pytest's own."""
        mark = pyfuncitem.get_closest_marker(REGRESS_MARK)
        rounds = mark.kwargs.get("rounds", 1) if mark else 1
        if not isinstance(rounds, int) or rounds < 1:
            raise pytest.UsageError(f"{REGRESS_MARK}(rounds={rounds!r}); allowed: a whole number, 1 or more")
        arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
        for _ in range(rounds - 1):
            pyfuncitem.obj(**arguments)

    def pytest_sessionfinish(self) -> None:
        """Write what is left."""
        if self._provider is not None:
            self._provider.shutdown()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Tell where the files are."""
        terminalreporter.write_line(f"aetherflow: metrics of this run are in {self._directory}")
