"""What ``configure()`` gives back: the ways that spans, metrics and logs take, and how to flush and close them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar, final

from opentelemetry import _logs, metrics, trace

from aetherflow.telemetry.export.destination import Destination
from aetherflow.telemetry.export.files import ProcessFile
from aetherflow.telemetry.export.ledger import SpanLedger
from aetherflow.telemetry.forks import renew_in_children
from aetherflow.telemetry.helper_thread import HelperThread, finish

if TYPE_CHECKING:
    from aetherflow.telemetry.export.pipeline import SpanPipeline
    from aetherflow.telemetry.export.samplers import TailFilter

__all__ = ["EXIT_TIMEOUT", "SHUTDOWN_TIMEOUT", "Route", "Telemetry"]

EXIT_TIMEOUT: Final = 1.65
"""Seconds that the end of the process waits for a collector; 2 s with what the interpreter needs to end as well."""
SHUTDOWN_TIMEOUT: Final = 2.0
"""Seconds that :meth:`Telemetry.shutdown` waits unless told otherwise."""

_LOGGER: Final = logging.getLogger("aetherflow")
_SHARE_OF_TIMEOUT: Final = 0.9
_Provider = TypeVar("_Provider", bound=trace.TracerProvider | metrics.MeterProvider | _logs.LoggerProvider)


@final
class Route(Generic[_Provider]):
    """The way that one signal takes, with threads of its own to flush and to close it.

    Args:
        provider: Where the signal enters; None where it is turned off: whatever is set globally, now or later.
        destinations: Where a provider that we made sends it; empty where the provider is not ours.
        file: What a file destination writes to.
        ways: The ways that spans take out of a provider that we made.
        is_declared: Whether the provider was made from ``OTEL_CONFIG_FILE``: it is ours to close.
    """

    __slots__ = (
        "__weakref__",
        "_closer",
        "_destinations",
        "_file",
        "_flush",
        "_flusher",
        "_is_declared",
        "_shutdown",
        "_ways",
        "is_ours",
        "provider",
    )

    def __init__(
        self,
        provider: _Provider | None,
        destinations: tuple[Destination, ...],
        file: ProcessFile,
        ways: Sequence[SpanPipeline | TailFilter] = (),
        *,
        is_declared: bool = False,
    ) -> None:
        self.provider = provider
        self.is_ours = bool(destinations) or is_declared
        self._is_declared = is_declared
        self._destinations = destinations
        self._file = file
        self._ways = tuple(ways)
        # The API knows neither: an application may have set a provider that cannot be flushed.
        self._flush: Callable[[], object] | None = getattr(provider, "force_flush", None)
        self._shutdown: Callable[[], object] | None = getattr(provider, "shutdown", None) if self.is_ours else None
        name = type(provider).__name__
        self._flusher = HelperThread(f"aetherflow-flush-{name}") if self._flush else None
        # A thread of its own: a flush that nobody waits for any longer must not keep the end waiting.
        self._closer = HelperThread(f"aetherflow-close-{name}") if self._flush else None

    @property
    def exporter(self) -> str:
        """How the signal is exported, as :attr:`Telemetry.exporter` says it."""
        names = ",".join(each.exporter for each in self._destinations)
        return names or ("none" if self.provider is None else "declared" if self._is_declared else "application")

    @property
    def endpoint(self) -> str | None:
        """The URL that the signal is sent to; None unless by OTLP."""
        return next((each.endpoint for each in self._destinations if each.endpoint), None)

    @property
    def path(self) -> Path | None:
        """The file that the signal is written to; None without one."""
        return self._file.path if any(each.exporter == "file" for each in self._destinations) else None

    def flush(self) -> list[Future[object]]:
        """Begin to export what was recorded so far."""
        return [self._flusher.submit(self._flush)] if self._flusher and self._flush else []

    def close(self, timeout: float) -> list[Future[object]]:
        """Begin to export what is left and to stop; the thread ends, the application's own provider does not.

        Args:
            timeout: Seconds after which spans are given up.
        """
        if self._flusher is None or self._closer is None:
            return []
        self._flusher.stop()
        closing = [self._closer.submit(partial(self._close, timeout))] if self._shutdown else []
        self._closer.stop()
        return closing

    def _close(self, timeout: float) -> bool:
        # A little less than the caller waits, so that it is told what became of the spans.
        end = time.monotonic() + timeout * _SHARE_OF_TIMEOUT
        closed = [way.close(max(end - time.monotonic(), 0.0)) for way in self._ways]
        if self._shutdown is not None:
            self._shutdown()
        return all(closed)

    def ledger(self) -> SpanLedger:
        """Return what became of the spans of a provider that we made."""
        return sum((way.ledger() for way in self._ways), SpanLedger())


@final
class Telemetry:
    """What ``configure()`` set up; as a context manager it is shut down at the end.

    Args:
        traces: The way of spans.
        metrics: The way of metrics.
        logs: The way of log records; None where logs were not asked for.
        forget: Called with the object when it begins to shut down, once.
    """

    __slots__ = ("__weakref__", "_closed", "_forget", "_logs", "_metrics", "_traces", "_undo", "_undo_last")

    def __init__(
        self,
        traces: Route[trace.TracerProvider],
        metrics: Route[metrics.MeterProvider],
        logs: Route[_logs.LoggerProvider] | None,
        forget: Callable[[Telemetry], None],
    ) -> None:
        self._traces = traces
        self._metrics = metrics
        self._logs = logs
        self._forget = forget
        self._undo, self._undo_last = ExitStack(), ExitStack()
        self._closed = threading.Event()
        renew_in_children(self)

    def after_fork(self) -> None:
        """Leave the lock inside to the parent, where another thread may be shutting down."""
        closed, self._closed = self._closed, threading.Event()
        if closed.is_set():
            self._closed.set()

    def on_shutdown(self, undo: Callable[[], object], *, last: bool = False) -> None:
        """Have something undone when this is shut down, what came last first.

        Args:
            undo: What undoes it.
            last: Whether that is after what is left was exported; else before.
        """
        (self._undo_last if last else self._undo).callback(undo)

    @property
    def tracer_provider(self) -> trace.TracerProvider:
        """Where spans go; the API's global provider where they are turned off."""
        return self._traces.provider or trace.get_tracer_provider()

    @property
    def meter_provider(self) -> metrics.MeterProvider:
        """Where metrics go; the API's global provider where they are turned off."""
        return self._metrics.provider or metrics.get_meter_provider()

    @property
    def exporter(self) -> str:
        """How spans are exported: ``otlp``, ``file``, ``console`` and the like, joined by commas, or ``none``.

        ``application`` where the application's own provider is used and nothing was added to it; ``declared`` where
        the provider is the one of ``OTEL_CONFIG_FILE``.
        """
        return self._traces.exporter

    @property
    def metrics_exporter(self) -> str:
        """How metrics are exported, in the words of :attr:`exporter`."""
        return self._metrics.exporter

    @property
    def logs_exporter(self) -> str:
        """How log records are exported, in the words of :attr:`exporter`; ``none`` without ``logs=True``."""
        return self._logs.exporter if self._logs else "none"

    @property
    def endpoint(self) -> str | None:
        """The URL that spans are sent to; None unless by OTLP."""
        return self._traces.endpoint

    @property
    def metrics_endpoint(self) -> str | None:
        """The URL that metrics are sent to; None unless by OTLP."""
        return self._metrics.endpoint

    @property
    def path(self) -> Path | None:
        """The file that spans of this process are written to, there from the first batch on; None without one."""
        return self._traces.path

    @property
    def metrics_path(self) -> Path | None:
        """The file that metrics of this process are written to, there from the first export on; None without one."""
        return self._metrics.path

    @property
    def logs_path(self) -> Path | None:
        """The file that log records of this process are written to; None without one."""
        return self._logs.path if self._logs else None

    def force_flush(self, timeout: float = 10.0) -> bool:
        """Export what has been recorded so far, through the application's providers too.

        Args:
            timeout: How long to wait at most, in seconds, all signals together.

        Returns:
            Whether everything was handed over in time; what a receiver made of it, the exporters do not tell.
            False after :meth:`shutdown`.
        """
        return not self._closed.is_set() and finish([each for way in self._ways() for each in way.flush()], timeout)

    def shutdown(self, timeout: float = SHUTDOWN_TIMEOUT) -> bool:
        """Export what is left and stop; the application's own providers stay as they are.

        Happens by itself when the process ends. Afterwards ``configure()`` may be called anew.

        Args:
            timeout: How long to wait at most, in seconds, all signals together. What is not out by then is lost.

        Returns:
            Whether everything was handed over in time; True where it was shut down before.
        """
        if self._closed.is_set():
            return True
        self._closed.set()
        self._forget(self)
        self._undo.close()
        finished = finish([each for way in self._ways() for each in way.close(timeout)], timeout)
        self._undo_last.close()
        if not finished:
            _LOGGER.warning("telemetry was not all exported within %g s of shutdown; the rest is lost", timeout)
        return finished

    def ledger(self) -> SpanLedger:
        """Return what became of every span of this process so far.

        Empty where the provider is the application's: nobody can tell then.
        """
        return self._traces.ledger()

    def _ways(self) -> Iterator[Route[Any]]:
        yield self._traces
        yield self._metrics
        if self._logs is not None:
            yield self._logs

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        spans, measures = self.endpoint or self.path or "", self.metrics_endpoint or self.metrics_path or ""
        logs = f"; logs: {self.logs_exporter}" if self._logs else ""
        return f"<Telemetry spans: {self.exporter} {spans}; metrics: {self.metrics_exporter} {measures}{logs}>"
