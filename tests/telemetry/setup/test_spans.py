"""``configure()``: what becomes of spans, and which there are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from tests.support.receivers import HttpReceiver, closed_port, silent_server, wait_until

from aetherflow import (
    ConfigurationError,
    KeepErrorsAndSlow,
    PerformanceMonitor,
    RateLimit,
    SpanLedger,
    Telemetry,
    configure,
    node,
)
from aetherflow.analysis.spans import read_spans
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.metrics import gauges


@node
def work(x: int) -> int:
    if x < 0:
        raise ValueError("negative")
    return x


@node
def after(work: int) -> int:
    return work


flow = work >> after


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Path]:
    """Where files go."""
    return tmp_path


def exported(telemetry: Telemetry) -> list[str]:
    """Return the names of the spans in the file, by now."""
    assert telemetry.force_flush()
    assert telemetry.path is not None
    return [span.name for span in read_spans(telemetry.path)] if telemetry.path.exists() else []


def test_the_ledger_tells_what_became_of_every_span(written: Path) -> None:
    """Pending before the flush, exported after it, and in the metric as well."""
    with configure(exporter="file", directory=written, set_global=False) as telemetry:
        flow.run(1)
        assert telemetry.ledger() == SpanLedger(started=3, pending=3)
        assert telemetry.force_flush()
        assert telemetry.ledger() == SpanLedger(started=3, exported=3)
        told = {
            attributes[names.TELEMETRY_OUTCOME]: value for value, attributes in gauges.readings(names.TELEMETRY_SPANS)
        }
        assert told["exported"] >= 3
        flow.run(1)
    assert telemetry.ledger() == SpanLedger(started=6, exported=6)


@pytest.mark.parametrize("server", [closed_port, silent_server])
def test_what_a_shutdown_could_not_deliver_is_in_the_ledger(server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector that is down, or never answers: nothing is pending afterwards, and all of it is told."""
    with server() as port:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        telemetry = configure(exporter="otlp", set_global=False)
        flow.run(1)
        assert not telemetry.shutdown(0.5)
        # The thread that closes the pipeline has the same time, and on a busy machine ends a moment later.
        wait_until(lambda: not telemetry.ledger().pending, "the end of the pipeline")
        ledger = telemetry.ledger()
    assert ledger.started == 3 == ledger.dropped + ledger.failed
    assert ledger.pending == ledger.exported == 0


def test_a_ledger_of_the_applications_provider_is_empty() -> None:
    """Its spans are its own."""
    with configure(tracer_provider=TracerProvider(shutdown_on_exit=False), exporter="none") as telemetry:
        flow.run(1)
        assert telemetry.ledger() == SpanLedger()


def test_the_receivers_own_count_is_the_ledgers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over HTTP, with what it refuses counted as failed."""
    with HttpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        with configure(exporter="otlp", set_global=False) as telemetry:
            for _ in range(1000):
                flow.run(1)
            assert telemetry.force_flush()
            assert telemetry.ledger() == SpanLedger(started=3000, exported=3000)
        assert len(receiver.spans) == 3000


def test_only_failed_and_slow_runs_are_exported_where_that_is_asked_for(written: Path) -> None:
    """Metrics count every run all the same."""
    monitor = PerformanceMonitor()
    policy = KeepErrorsAndSlow(slower_than=60)
    with configure(exporter="file", directory=written, set_global=False, sampler=policy) as telemetry:
        for _ in range(10):
            flow.run(1)
        assert exported(telemetry) == []
        with pytest.raises(ValueError, match="negative"):
            flow.run(-1)
        assert exported(telemetry) == ["work", "run work"]
        assert monitor.get_stats()["work"]["count"] == 11


def test_a_limit_of_spans_lets_whole_runs_through(written: Path) -> None:
    """As many as it admits, the last one whole; metrics count the others too."""
    monitor = PerformanceMonitor()
    limit = RateLimit(spans_per_second=0.001, burst=4_000)  # four spans, and no more while the test runs
    with configure(exporter="file", directory=written, set_global=False, sampler=limit) as telemetry:
        for _ in range(10):
            flow.run(1)
        assert exported(telemetry) == ["work", "after", "run work"] * 2
        assert monitor.get_stats()["work"]["count"] == 10


def test_a_sampler_of_the_sdk_is_taken(written: Path) -> None:
    """In place of what the variables say."""
    with configure(exporter="file", directory=written, set_global=False, sampler=ALWAYS_OFF) as telemetry:
        flow.run(1)
        assert telemetry.ledger() == SpanLedger()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_full": "wait"}, "on_full is 'wait'; allowed: drop, block"),
        ({"queue_bytes": 0}, "queue_bytes is 0; allowed: a whole number of bytes, from 1"),
        ({"queue_bytes": True}, "queue_bytes is True"),
        ({"sampler": 0.5}, "sampler is 0.5; allowed: a Sampler of OpenTelemetry's SDK, a RateLimit"),
    ],
)
def test_what_is_not_allowed_is_said_and_sets_nothing_up(arguments: dict[str, object], message: str) -> None:
    """The argument, its value, and what is allowed."""
    with pytest.raises(ConfigurationError, match=message):
        configure(exporter="none", **arguments)  # type: ignore[arg-type]
    configure(exporter="none", set_global=False).shutdown()


def test_a_full_queue_blocks_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost, however small the queue."""
    with HttpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        with configure(exporter="otlp", set_global=False, on_full="block", queue_bytes=500_000) as telemetry:
            for _ in range(3000):
                flow.run(1)
            assert telemetry.force_flush(30)
            assert telemetry.ledger() == SpanLedger(started=9000, exported=9000)
        assert len(receiver.spans) == 9000


def test_a_flush_that_was_given_up_does_not_keep_the_end_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a collector that never answers: the shutdown settles everything, however long the flush would go on."""
    with silent_server() as port:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        telemetry = configure(exporter="otlp", set_global=False)
        flow.run(1)
        assert not telemetry.force_flush(0.2)
        assert not telemetry.shutdown(1)
        assert telemetry.ledger().pending == 0
