"""``configure()``: where the spans, metrics and logs of this process go.

Importing this module sets no global, starts no thread and opens no socket. The SDK and its exporters are imported by
the functions that build them: they cost more to import than all the rest of the package.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from opentelemetry import _logs, metrics, trace
from opentelemetry._logs._internal import ProxyLoggerProvider
from opentelemetry.metrics._internal import _ProxyMeterProvider

from aetherflow.errors import ConfigurationError
from aetherflow.telemetry import active
from aetherflow.telemetry.export.destination import Destination, Exporter, Signal, destinations, is_disabled
from aetherflow.telemetry.export.files import ProcessFile, export_directory
from aetherflow.telemetry.export.sampling_policy import QUEUE_BYTES, KeepErrorsAndSlow, OnFull, RateLimit
from aetherflow.telemetry.forks import renew_in_children
from aetherflow.telemetry.health.monitor import HealthMonitor, current_monitor, set_current_monitor
from aetherflow.telemetry.profiling.observer import install
from aetherflow.telemetry.profiling.policy import ProfilePolicy, policy_from_environment
from aetherflow.telemetry.setup import declarative
from aetherflow.telemetry.setup.arguments import AlreadyConfiguredError, Arguments
from aetherflow.telemetry.setup.handle import EXIT_TIMEOUT, Route, Telemetry

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.sampling import Sampler

__all__ = ["AlreadyConfiguredError", "Telemetry", "configure"]

_LOGGER: Final = logging.getLogger("aetherflow")
_UNSET: Final = (trace.ProxyTracerProvider, _ProxyMeterProvider, ProxyLoggerProvider)
"""What the API has where nobody has set a provider."""


def configure(
    service_name: str | None = None,
    exporter: Exporter = "auto",
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
    metric_interval: float | None = None,
    health: HealthMonitor | bool = False,
    profile: ProfilePolicy | None = None,
    logs: bool = False,
    sampler: Sampler | RateLimit | KeepErrorsAndSlow | None = None,
    on_full: OnFull = "drop",
    queue_bytes: int = QUEUE_BYTES,
    set_global: bool = True,
    directory: str | os.PathLike[str] | None = None,
) -> Telemetry:
    """Set up where the spans, metrics and logs of this process go.

    Everything standard is taken from the ``OTEL_*`` variables. Where the application has set a provider of its own,
    it is used and nothing is added to it; each signal's is looked at for itself. Called again with the same arguments,
    it returns the same object.

    Args:
        service_name: The service's name; by default ``OTEL_SERVICE_NAME``, ``OTEL_RESOURCE_ATTRIBUTES``, or else the
            name of the program.
        exporter: ``auto`` takes what the ``OTEL_*`` variables name, signal by signal, and writes OTLP JSON lines to
            ``directory`` where they name nothing; ``otlp``, ``file`` and ``console`` insist; ``none`` exports nothing.
        tracer_provider: A provider of the application to use for spans instead of the global one.
        meter_provider: The same for metrics.
        metric_interval: Seconds between two exports of metrics; by default ``OTEL_METRIC_EXPORT_INTERVAL``, or 60.
        health: The monitor of this process, until shutdown: ``health_check_node`` asks it, and its status is a metric;
            True for the one with the defaults.
        profile: Which executions are profiled, until shutdown; by default what ``AETHER_PROFILE`` says.
        logs: Whether structlog and the standard library are set up to write JSON lines to standard output, or lines
            for people in a terminal, each with the trace, flow and node it was made in. What the application has
            configured of either stays. Where the variables name an exporter of logs or an OTLP endpoint, or
            ``exporter`` insists, they are exported too.
        sampler: Which runs have spans: a limit of spans a second, failed and slow runs only, or any sampler of the SDK;
            by default what ``OTEL_TRACES_SAMPLER`` says. Metrics are exact under all of them.
        on_full: What happens to spans while the export queue is full: ``drop`` drops and counts them, ``block`` has the
            thread that made them wait, for 5 seconds at most.
        queue_bytes: Encoded bytes that the queue holds at most.
        set_global: Whether the providers become OpenTelemetry's global ones, where the application has set none;
            else AetherFlow alone uses them.
        directory: Where files are written; by default ``AETHER_EXPORT_DIRECTORY``, or ``.aetherflow``.

    Returns:
        What was set up.

    Raises:
        AlreadyConfiguredError: It was called before with other arguments.
        ConfigurationError: An argument, an ``OTEL_*`` variable or ``AETHER_PROFILE`` has a value that is not allowed.
    """
    arguments = Arguments(
        service_name=service_name,
        exporter=exporter,
        tracer_provider=tracer_provider,
        meter_provider=meter_provider,
        metric_interval=metric_interval,
        health=health,
        profile=profile,
        logs=logs,
        sampler=sampler,
        on_full=on_full,
        queue_bytes=queue_bytes,
        set_global=set_global,
        directory=Path(directory or export_directory()).absolute(),
    )
    with _state.lock:
        if _state.current is None or _state.arguments is None:
            _state.current, _state.arguments = _build(arguments), arguments
        elif differing := _state.arguments.differing(arguments):
            raise AlreadyConfiguredError(differing)
        return _state.current


class _State:
    """What is in force, and every provider that was ever made here: none of those is the application's."""

    __slots__ = ("__weakref__", "arguments", "current", "lock", "made", "told")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.arguments: Arguments | None = None
        self.current: Telemetry | None = None
        self.told: active.Providers | None = None
        self.made: WeakSet[object] = WeakSet()
        renew_in_children(self)

    def after_fork(self) -> None:
        """Leave the lock to the parent, where another thread may be configuring, and see to the child's end."""
        self.lock = threading.RLock()
        if self.current is not None:
            _close_with_process(self.current)


_state = _State()


def _forget(telemetry: Telemetry) -> None:
    """Make way for another ``configure()``."""
    atexit.unregister(telemetry.shutdown)
    with _state.lock:
        if _state.current is telemetry:
            if _state.told is not None and active.providers is _state.told:
                active.set_active(None)
            _state.current = _state.arguments = _state.told = None


def _build(arguments: Arguments) -> Telemetry:
    """Decide everything first, then make it: what is not allowed sets nothing up."""
    if arguments.profile is None:
        policy_from_environment()  # so that a bad value is told here, not in the log of the first run
    declared = _declared(arguments)
    plan = partial(_plan, arguments, declared, datetime.now(UTC))
    traces = plan("traces", arguments.tracer_provider, trace.get_tracer_provider())
    measures = plan("metrics", arguments.meter_provider, metrics.get_meter_provider())
    records = plan("logs", None, _logs.get_logger_provider()) if arguments.logs or declared else None
    with ExitStack() as undo:
        spans_route, metrics_route = traces.route(arguments, undo), measures.route(arguments, undo)
        logs_route = records.route(arguments, undo) if records is not None else None
        telemetry = Telemetry(spans_route, metrics_route, logs_route, _forget)
        if arguments.logs and logs_route is not None:
            _set_up_logs(telemetry, logs_route, set_global=arguments.set_global)
        _watch(telemetry, arguments)
        undo.pop_all()
    _state.told = _install(spans_route.provider, metrics_route.provider, set_global=arguments.set_global)
    _close_with_process(telemetry)
    return telemetry


def _declared(arguments: Arguments) -> Collection[object]:
    """Have ``OTEL_CONFIG_FILE`` applied where nothing else says what to do; return the providers that it made."""
    path = os.environ.get(declarative.VARIABLE, "").strip()
    if not path or arguments.exporter != "auto" or is_disabled(os.environ):
        return ()
    given = (arguments.tracer_provider, arguments.meter_provider)
    if any(given) or not all(
        isinstance(each, _UNSET) for each in (trace.get_tracer_provider(), metrics.get_meter_provider())
    ):
        _LOGGER.warning("%s is %r, but there are providers already: they stay", declarative.VARIABLE, path)
        return ()
    if not arguments.set_global:
        raise ConfigurationError(f"set_global is False, but {declarative.VARIABLE} sets the global providers")
    return declarative.apply_file(path)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What was decided about a signal: the provider that is there, or where one of ours exports to."""

    signal: Signal
    provider: Any
    is_declared: bool
    destinations: tuple[Destination, ...]
    file: ProcessFile

    def route(self, arguments: Arguments, undo: ExitStack) -> Route[Any]:
        provider, ways = self.provider, ()
        if self.destinations:
            provider, ways = self._made(arguments)
            _state.made.add(provider)
        route = Route(provider, self.destinations, self.file, ways, is_declared=self.is_declared)
        undo.callback(route.close, 0.0)
        return route

    def _made(self, arguments: Arguments) -> tuple[Any, tuple[Any, ...]]:
        """Return a provider, and the ways that spans take out of it."""
        from aetherflow.telemetry.setup import providers

        name = arguments.service_name
        match self.signal:
            case "traces":
                return providers.make_tracer_provider(
                    self.destinations,
                    self.file,
                    name,
                    arguments.sampler,
                    on_full=arguments.on_full,
                    queue_bytes=arguments.queue_bytes,
                )
            case "metrics":
                interval = arguments.metric_interval
                return providers.make_meter_provider(self.destinations, self.file, name, interval), ()
            case "logs":
                return providers.make_logger_provider(self.destinations, self.file, name), ()


def _plan(
    arguments: Arguments,
    declared: Collection[object],
    started: datetime,
    signal: Signal,
    given: object,
    current: object,
) -> _Plan:
    """Decide about a signal, and see that a file can be where it is to go."""
    file = ProcessFile(arguments.directory, signal, started)
    if given is None and not isinstance(current, _UNSET) and current not in _state.made:
        given = current
    if given is not None:
        return _Plan(signal, given, any(given is each for each in declared), (), file)
    found = () if declared else destinations(signal, arguments.exporter, os.environ)
    if all(each.exporter != "file" for each in found):
        return _Plan(signal, None, False, found, file)
    try:
        arguments.directory.mkdir(parents=True, exist_ok=True)
        if not os.access(arguments.directory, os.W_OK | os.X_OK):
            raise PermissionError("not writable")
    except OSError as error:
        problem = f"directory is {str(arguments.directory)!r}, where no file can be written ({error})"
        if arguments.exporter == "file":
            raise ConfigurationError(f"{problem}; allowed: a directory to write to") from error
        _LOGGER.warning("%s: no %s are exported", problem, signal)
        found = tuple(each for each in found if each.exporter != "file")
    return _Plan(signal, None, False, found, file)


def _install(
    tracer_provider: trace.TracerProvider | None, meter_provider: metrics.MeterProvider | None, *, set_global: bool
) -> active.Providers | None:
    """Make the providers the global ones where nobody has set any, and tell AetherFlow of those that are not."""
    if set_global:
        if tracer_provider is not None and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(tracer_provider)
        if meter_provider is not None and isinstance(metrics.get_meter_provider(), _ProxyMeterProvider):
            metrics.set_meter_provider(meter_provider)
    told = active.Providers(
        None if tracer_provider is trace.get_tracer_provider() else tracer_provider,
        None if meter_provider is metrics.get_meter_provider() else meter_provider,
    )
    if told.tracer_provider is None and told.meter_provider is None:
        return None
    active.set_active(told)
    return told


def _set_up_logs(telemetry: Telemetry, route: Route[_logs.LoggerProvider], *, set_global: bool) -> None:
    from aetherflow.telemetry.logs import set_up_logs

    if set_global and route.provider is not None and isinstance(_logs.get_logger_provider(), ProxyLoggerProvider):
        _logs.set_logger_provider(route.provider)
    # An application that has a provider has its own way to bring the standard library's records there.
    telemetry.on_shutdown(set_up_logs(route.provider, carries_standard=route.is_ours))


def _watch(telemetry: Telemetry, arguments: Arguments) -> None:
    """Put the monitor and the profiles in force until shutdown."""
    if arguments.health is not False:
        telemetry.on_shutdown(partial(set_current_monitor, None), last=True)
        set_current_monitor(current_monitor() if arguments.health is True else arguments.health)
    if arguments.profile is not None:
        telemetry.on_shutdown(partial(active.set_profiling, active.profiling), last=True)
        install(arguments.profile)


def _close_with_process(telemetry: Telemetry) -> None:
    """Have what is left exported when this process ends, also where that is a child of ``multiprocessing``."""
    atexit.unregister(telemetry.shutdown)
    atexit.register(telemetry.shutdown, EXIT_TIMEOUT)
    if (util := sys.modules.get("multiprocessing.util")) is not None:
        # Its children leave without what is registered above, but not without what it runs itself.
        _finalize(telemetry)
        util.register_after_fork(telemetry, _finalize)


def _finalize(telemetry: Telemetry) -> None:
    from multiprocessing import parent_process, util

    if parent_process() is not None:
        util.Finalize(None, telemetry.shutdown, args=(EXIT_TIMEOUT,), exitpriority=0)
