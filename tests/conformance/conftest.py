"""The ways that spans leave AetherFlow: each of them is held to the same contract by the same tests.

A path is a context manager that sets telemetry up and gives what the exporter was given, read back from OTLP JSON.
Another path takes its place in ``PATHS`` and is tested by all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.json.file import FileSpanExporter
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from aetherflow.analysis.spans import Span, read_spans
from aetherflow.telemetry.setup.configuring import configure


class TelemetryPath(Protocol):
    """One way that spans leave."""

    def spans(self) -> list[Span]:
        """Return the spans that have ended so far."""
        ...


class _Written:
    """Spans that were written to a file."""

    def __init__(self, folder: Path, flush: Callable[[], object]) -> None:
        self._folder = folder
        self._flush = flush

    def spans(self) -> list[Span]:
        self._flush()
        return [span for path in self._folder.glob("*.json*") for span in read_spans(path)]


@contextmanager
def application(folder: Path) -> Iterator[TelemetryPath]:
    """The application has set a TracerProvider of its own, globally; AetherFlow is told nothing."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(FileSpanExporter(folder / "spans.jsonl")))
    trace.set_tracer_provider(provider)
    try:
        yield _Written(folder, provider.force_flush)
    finally:
        provider.shutdown()


class _SeesStarts(SpanProcessor):
    """Wants to see spans begin, so that each is the SDK's own."""

    def on_start(self, span: object, parent_context: object = None) -> None: ...


@contextmanager
def public(folder: Path) -> Iterator[TelemetryPath]:
    """The same with a processor that lean spans do not serve: all goes through the public API."""
    with application(folder) as path:
        trace.get_tracer_provider().add_span_processor(_SeesStarts())
        yield path


@contextmanager
def configured(folder: Path) -> Iterator[TelemetryPath]:
    """``configure()`` has made the provider."""
    with configure(exporter="file", directory=folder) as telemetry:
        yield _Written(folder, telemetry.force_flush)


PATHS: dict[str, Callable[[Path], AbstractContextManager[TelemetryPath]]] = {
    "application": application,
    "public": public,
    "configured": configured,
}


@pytest.fixture(params=PATHS)
def telemetry_path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TelemetryPath]:
    """Each of the paths in turn."""
    folder = tmp_path / "telemetry"
    folder.mkdir()
    with PATHS[request.param](folder) as path:
        yield path
