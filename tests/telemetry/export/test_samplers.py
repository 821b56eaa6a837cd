"""Samplers for production: what they keep, and that nothing is lost uncounted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags
from tests.support.forking import fork

from aetherflow import ConfigurationError, SpanLedger, node
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.active import Providers, set_active
from aetherflow.telemetry.encoding.encoder import protobuf_encoder
from aetherflow.telemetry.export.pipeline import SpanPipeline
from aetherflow.telemetry.export.samplers import TailFilter, rate_limited
from aetherflow.telemetry.export.sampling_policy import KeepErrorsAndSlow, RateLimit
from aetherflow.telemetry.export.transport import ExporterTransport
from aetherflow.testing import FakeClock


@node
def work(x: int) -> int:
    if x < 0:
        raise ValueError("negative")
    return x


@node
def after(work: int) -> int:
    return work


flow = work >> after


@contextmanager
def filtered(policy: KeepErrorsAndSlow) -> Iterator[tuple[TailFilter, Kept]]:
    """Have AetherFlow emit to a provider whose only processor decides at the end of runs."""
    provider = TracerProvider(shutdown_on_exit=False)
    tail, kept = tail_filter(policy)
    provider.add_span_processor(tail)
    set_active(Providers(provider))
    try:
        yield tail, kept
    finally:
        set_active(None)
        provider.shutdown()


class Kept(SpanExporter):
    """Keeps the names and traces of what it is given."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.traces: list[int] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.names += [span.name for span in spans]
        self.traces += [span.get_span_context().trace_id for span in spans]  # type: ignore[union-attr]
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None: ...


def tail_filter(policy: KeepErrorsAndSlow) -> tuple[TailFilter, Kept]:
    """Return a filter before a pipeline to this process."""
    kept = Kept()
    return TailFilter(policy, SpanPipeline(protobuf_encoder(), lambda: ExporterTransport(kept))), kept


def test_a_run_that_failed_is_kept_whole_and_others_are_not() -> None:
    """All its spans, those that ended before the error too."""
    with filtered(KeepErrorsAndSlow(slower_than=60)) as (tail, kept):
        flow.run(1)
        with pytest.raises(ValueError, match="negative"):
            (node(lambda x: x, name="first") >> work).run(-1)
        assert tail.force_flush()
        assert kept.names == ["first", "work", "run first"]
        assert (tail.statistics().kept, tail.statistics().discarded, tail.statistics().waiting) == (3, 3, 0)


def test_a_slow_run_is_kept() -> None:
    """The time of its root decides."""
    with filtered(KeepErrorsAndSlow(slower_than=1e-9)) as (tail, kept):
        flow.run(1)
        assert tail.force_flush()
        assert len(kept.names) == 3


def test_a_share_of_the_other_runs_is_kept() -> None:
    """All of them at a ratio of 1."""
    with filtered(KeepErrorsAndSlow(slower_than=60, ratio=1)) as (tail, kept):
        flow.run(1)
        assert tail.force_flush()
        assert len(kept.names) == 3


def span(
    trace: int, *, root: bool = False, error: bool = False, attributes: Mapping[str, str] | None = None
) -> ReadableSpan:
    """Return a span that has ended."""
    own = SpanContext(trace, 2, False, TraceFlags(1))
    parent = None if root else SpanContext(trace, 1, False, TraceFlags(1))
    status = Status(StatusCode.ERROR if error else StatusCode.UNSET)
    return ReadableSpan("n", own, parent, attributes=attributes, status=status, start_time=1, end_time=2)


def test_an_expected_exception_keeps_no_run() -> None:
    """An execution and a run that ended with an expected exception are no errors: their trace is not kept."""
    tail, kept = tail_filter(KeepErrorsAndSlow(slower_than=60))
    for root, result in ((False, names.NODE_RESULT), (True, names.RUN_RESULT)):
        tail.on_end(span(1, root=root, attributes={result: "expected", names.EXPECTED_TYPE: "KeyError"}))
    assert tail.close(30)
    assert (kept.names, tail.statistics().discarded) == ([], 2)


@given(
    st.lists(st.tuples(st.integers(1, 5), st.booleans(), st.booleans()), max_size=60),
    st.integers(1, 8),
)
def test_every_span_is_kept_discarded_or_waiting(given: Sequence[tuple[int, bool, bool]], room: int) -> None:
    """In any order, with any room: the three add up, and no more wait than there is room for."""
    tail, kept = tail_filter(KeepErrorsAndSlow(slower_than=60, max_spans=room))
    for count, (trace, root, error) in enumerate(given, start=1):
        tail.on_end(span(trace, root=root, error=error))
        found = tail.statistics()
        assert found.kept + found.discarded + found.waiting == count
        assert found.waiting <= room
        assert found.overflowed <= found.discarded
        assert tail.ledger().started == found.kept
    assert tail.close(30)
    assert tail.statistics().waiting == 0
    assert len(kept.names) == tail.statistics().kept


def test_a_span_that_ends_after_its_run_shares_its_fate() -> None:
    """As that of a stream that was left, or of a thread that was late."""
    tail, kept = tail_filter(KeepErrorsAndSlow(slower_than=60))
    for trace, error in ((1, True), (2, False)):
        tail.on_end(span(trace, root=True, error=error))
        tail.on_end(span(trace))
    assert tail.close(30)
    assert kept.traces == [1, 1]


def test_what_waits_at_the_end_is_decided_on_and_exported() -> None:
    """A run that has failed and not ended is not lost with the process."""
    tail, kept = tail_filter(KeepErrorsAndSlow(slower_than=60))
    tail.on_end(span(1, error=True))
    tail.on_end(span(2))
    assert tail.close(30)
    assert kept.traces == [1]
    assert tail.ledger() == SpanLedger(started=1, exported=1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_keeps_nothing_of_its_parent() -> None:
    """Neither what waits nor a lock that was held: the parent exports that itself."""
    tail, kept = tail_filter(KeepErrorsAndSlow(slower_than=60))
    tail.on_end(span(1, error=True))
    reading, writing = os.pipe()
    with tail._lock:
        child = fork()
        if child == 0:
            try:
                tail.on_end(span(2, error=True))
                closed = tail.close(30)
                os.write(writing, repr((closed, kept.traces)).encode())
            finally:
                os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100) == b"(True, [2])"
    os.close(reading)
    os.close(writing)
    assert tail.close(30)
    assert kept.traces == [1]


@given(st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 20)), max_size=60))
def test_the_rate_holds_on_average(runs: Sequence[tuple[float, int]]) -> None:
    """Whatever runs cost: no more spans than time and burst allow, but for the last run let through."""
    clock, spent, largest = FakeClock(), 0, 0
    sampler = rate_limited(RateLimit(spans_per_second=10, burst=2), lambda: spent, clock.monotonic)
    for pause, spans in runs:
        clock.advance(pause)
        if sampler.should_sample(None, 1, "run").decision is Decision.RECORD_AND_SAMPLE:
            spent += spans
            largest = max(largest, spans)
        assert spent <= 10 * (clock.monotonic() + 2) + largest
    clock.advance(1000)
    assert sampler.should_sample(None, 1, "run").decision is Decision.RECORD_AND_SAMPLE


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RateLimit(0), r"RateLimit\(spans_per_second=0\): allowed is a number above 0"),
        (lambda: RateLimit("many"), r"RateLimit\(spans_per_second='many'\)"),  # type: ignore[arg-type]
        (lambda: KeepErrorsAndSlow(slower_than=-1), r"slower_than=-1\): allowed is seconds above 0"),
        (lambda: KeepErrorsAndSlow(ratio=2), r"ratio=2\): allowed is a share from 0 to 1"),
        (lambda: KeepErrorsAndSlow(max_spans=0), r"max_spans=0\): allowed is a whole number from 1"),
    ],
)
def test_what_is_not_allowed_is_said(make, message: str) -> None:
    """The argument, its value, and what is allowed."""
    with pytest.raises(ConfigurationError, match=message):
        make()
