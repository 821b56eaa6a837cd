"""`HealthMonitor`: how this process does, from what its meters have recorded lately and what else is registered.

A monitor, a check of one's own, and what they say::

    monitor = HealthMonitor(window=60.0, p95=0.5, per={"import_*": {"average": 30.0, "p95": 60.0}})
    monitor.add_check("database", lambda: connection.execute("SELECT 1"), timeout=0.5)
    monitor.check().to_dict()
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, Unpack, get_args

from aetherflow.errors import ConfigurationError
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.forks import renew_in_children
from aetherflow.telemetry.health.facts import Facts, Metered, Queue
from aetherflow.telemetry.health.limits import Limits, LimitsByName
from aetherflow.telemetry.health.measures import Progress, of_durations, of_spans
from aetherflow.telemetry.health.probes import Check, Probe, Severity, evaluate, pings
from aetherflow.telemetry.health.report import MEDIA_TYPE, CheckResult, HealthReport
from aetherflow.telemetry.health.status import CheckStatus, Hysteresis, Status, ViewName, worst
from aetherflow.telemetry.metrics import gauges
from aetherflow.telemetry.metrics.windows import CounterWindow, SlidingWindow

__all__ = [
    "MEDIA_TYPE",
    "CheckResult",
    "CheckStatus",
    "Facts",
    "HealthMonitor",
    "HealthReport",
    "Limits",
    "Queue",
    "Severity",
    "Status",
    "ViewName",
    "current_monitor",
    "set_current_monitor",
]

_READY: Final[tuple[ViewName, ...]] = ("ready",)


class HealthMonitor:
    """Tells how nodes and operations did within the last seconds, and whether executors, pools and telemetry keep up.

    It reads the meters that record every execution anyway, from its construction on; monitors are independent of each
    other. Nothing happens between evaluations: no thread runs and nothing is sampled.

    Args:
        window: Seconds that count; at most a twelfth more do.
        per: Thresholds of single components, in place of those of all: by name (``fetch``), by kind and name
            (``node fetch``, ``operation parse``, ``executor aetherflow``, ``pool connections``), or by a pattern for
            either (``fetch_*``); the first entry that fits, exact names before patterns.
        min_samples: With fewer values in the window a check is unknown, and ignored.
        worsen_after: Evaluations in a row that must agree before the status becomes worse.
        improve_after: The same, before it becomes better.
        interval: Seconds for which `latest` gives the same report.
        clock: Monotonic time in seconds.
        wall_clock: Seconds since the epoch.
        facts: What there is to know of executors, pools and spans; None for what their metrics say.
        limits: Thresholds of all components: `Limits`.

    Raises:
        ConfigurationError: An argument has a value that is not allowed.
    """

    def __init__(
        self,
        window: float = 60.0,
        *,
        per: Mapping[str, Limits] | None = None,
        min_samples: int = 10,
        worsen_after: int = 2,
        improve_after: int = 3,
        interval: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        facts: Facts | None = None,
        **limits: Unpack[Limits],
    ) -> None:
        for name, value in (
            ("min_samples", min_samples),
            ("worsen_after", worsen_after),
            ("improve_after", improve_after),
        ):
            _expect(name, value, _is_number(value, int) and value >= 1, "a whole number, 1 or more")
        _expect("interval", interval, _is_number(interval, float) and interval >= 0, "seconds, 0 or more")
        self._window = SlidingWindow(window, clock=clock)
        self._limits = LimitsByName(window, limits, {} if per is None else per)
        self._min_samples = min_samples
        self._interval = interval
        self._clock = clock
        self._wall_clock = wall_clock
        self._facts = Metered() if facts is None else facts
        self._patience = worsen_after, improve_after
        self._probes: dict[str, Probe] = {}
        self._begin(tuple(self._facts.queues()), self._facts.spans())
        renew_in_children(self)

    def _begin(self, queues: Sequence[Queue], spans: Mapping[str, int]) -> None:
        """Begin to look, with what there is already as the base."""
        now = self._clock()
        self._progress = Progress(queues, now)
        self._spans = CounterWindow(self._window.length, spans, now)
        self._held = {view: Hysteresis(*self._patience) for view in get_args(ViewName)}
        self._last: tuple[float, HealthReport] | None = None
        self._lock = threading.RLock()

    def check(self) -> HealthReport:
        """Evaluate every check, now.

        Safe from any thread. Takes as long as the longest time limit of a registered check at most.

        Returns:
            What was found, as the view ``health`` sees it.
        """
        return self._check(wait=True)

    def _check(self, *, wait: bool) -> HealthReport:
        with self._lock:
            found = {result.name: result for result in self._results(wait=wait)}
            statuses: dict[ViewName, Status] = {
                view: held.observe(worst(check.status for check in found.values() if view in check.views))
                for view, held in self._held.items()
            }
            report = HealthReport(statuses["health"], self._wall_clock(), found, statuses)
            self._last = self._clock(), report
            return report

    def latest(self, max_age: float | None = None) -> HealthReport:
        """Return the last report, or evaluate where it is too old: for probes and metrics, however many ask.

        Args:
            max_age: Seconds that it may be old; None for the monitor's ``interval``.
        """
        if max_age is None:
            max_age = self._interval
        _expect("max_age", max_age, _is_number(max_age, float) and max_age >= 0, "seconds, 0 or more, or None")
        with self._lock:
            return self._fresh(max_age) or self.check()

    def glance(self) -> HealthReport | None:
        """Return what is known without waiting for anyone: for metrics, whose collection must not be held up.

        A registered check that is under way counts as it did the last time.

        Returns:
            The report, as fresh as that of `latest` unless another thread is evaluating; None where there is none yet.
        """
        if self._lock.acquire(blocking=False):
            try:
                return self._fresh(self._interval) or self._check(wait=False)
            finally:
                self._lock.release()
        last = self._last
        return None if last is None else last[1]

    def _fresh(self, max_age: float) -> HealthReport | None:
        last = self._last
        return last[1] if last is not None and self._clock() - last[0] < max_age else None

    def add_check(
        self,
        name: str,
        check: Check,
        *,
        timeout: float = 1.0,
        severity: Severity = "unhealthy",
        views: Collection[ViewName] = (),
    ) -> None:
        """Register a check of your own.

        Args:
            name: Its name in reports.
            check: A function without arguments that raises, or returns False, where something is wrong; it may return
                ``"ok"``, ``"warning"``, ``"error"`` or ``"unknown"`` as well. A coroutine function has an event loop
                of its own. It is called in a thread of its own, always the same.
            timeout: Seconds that it may take, at most 60; late, it has failed, and it is not called again before it
                has ended.
            severity: What the status becomes where it fails.
            views: Where it counts besides ``health``, which has all. Leave dependencies out of ``live``: restarting
                this process does not mend them.

        Raises:
            ConfigurationError: An argument has a value that is not allowed, or the name is taken.
        """
        probe = Probe(name, check, timeout, severity, views)
        with self._lock:
            if name in self._probes:
                raise ConfigurationError(f"there is a check {name!r} already; allowed: a name of its own for each")
            self._probes[name] = probe

    def add_resources(
        self,
        context: Any,
        *,
        timeout: float = 1.0,
        severity: Severity = "unhealthy",
        views: Collection[ViewName] = _READY,
    ) -> None:
        """Register the ``ping()`` of each resource in a dependency-injector container, as ``resource NAME``.

        A resource that is not initialised is left alone, and unknown.

        Args:
            context: The container, or its class.
            timeout: As for `add_check`, and so are the others.
            severity: What the status becomes where one fails.
            views: Where they count besides ``health``.

        Raises:
            ConfigurationError: An argument has a value that is not allowed, or a name is taken.
        """
        for name, check in pings(context).items():
            self.add_check(f"resource {name}", check, timeout=timeout, severity=severity, views=views)

    def after_fork(self) -> None:
        """Begin anew: what is known is the parent's, and so are its lock and the checks under way."""
        self._begin((), {})  # not asked for: what counts may not have begun anew yet
        for probe in self._probes.values():
            probe.forget()

    def _results(self, *, wait: bool) -> Iterator[CheckResult]:
        now = self._clock()
        yield from of_durations(self._window.totals(), self._limits, self._min_samples)
        yield from self._progress.of(self._facts.queues(), self._limits, now)
        yield from of_spans(self._spans.advance(self._facts.spans(), now), self._limits, self._min_samples)
        yield from evaluate(tuple(self._probes.values()), wait_for_them=wait)


_STATES: Final[tuple[Status, ...]] = ("healthy", "degraded", "unhealthy")


class _Current:
    def __init__(self) -> None:
        self.monitor: HealthMonitor | None = None

    def readings(self) -> Iterator[gauges.Reading]:
        """Yield 1 for the status and 0 for the others; nothing where no monitor was set."""
        report = None if self.monitor is None else self.monitor.glance()
        if report is not None:
            yield from ((int(report.status == state), {names.HEALTH_STATE: state}) for state in _STATES)


_current: Final = _Current()
gauges.observe(names.HEALTH_STATUS, _current, _Current.readings)


def current_monitor() -> HealthMonitor:
    """Return the monitor of this process: the one it was told to use, else one with the defaults."""
    return _current.monitor or _default


def set_current_monitor(monitor: HealthMonitor | None) -> None:
    """Tell `current_monitor` which to return, and publish its status as a metric.

    Args:
        monitor: The monitor; None for the one with the defaults, whose status is not published.
    """
    _current.monitor = monitor


def _expect(name: str, value: object, good: bool, allowed: str) -> None:
    if not good:
        raise ConfigurationError(f"{name}={value!r} is not allowed; allowed: {allowed}")


def _is_number(value: object, kind: type[int | float]) -> bool:
    return isinstance(value, int | kind) and not isinstance(value, bool)


_default: Final = HealthMonitor()
"""It watches from the import on, so that whoever asks it first is told of what has been until then."""
