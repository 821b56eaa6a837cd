"""The pipeline accounts for every span, whatever the receiver, the encoder and the process do."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from opentelemetry import trace
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, get_value
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanContext, TraceFlags
from tests.support.receivers import wait_until

from aetherflow.telemetry.encoding.encoder import ChunkEncoder, Group, protobuf_encoder
from aetherflow.telemetry.export.ledger import SpanLedger
from aetherflow.telemetry.export.pipeline import CHUNK, SpanPipeline
from aetherflow.telemetry.export.schedule import Schedule
from aetherflow.telemetry.export.transport import Delivery

UNHURRIED = Schedule(delay=3600.0)
"""Nothing is sent because time has passed."""
TAKEN = Delivery()
CONTEXT = SpanContext(1, 2, False, TraceFlags(TraceFlags.SAMPLED))


class Scripted:
    """A transport that does what it is told, and can be held in the middle of a request."""

    def __init__(self, delivery: Delivery | Exception = TAKEN) -> None:
        self.delivery = delivery
        self.bodies: list[bytes] = []
        self.is_let_on = threading.Event()
        self.is_let_on.set()
        self.is_called = threading.Event()
        self.is_interrupted = threading.Event()
        self.is_closed = False
        self.suppressed: object = None

    def send(self, body: bytes, count: int) -> Delivery:
        self.bodies.append(body)
        self.suppressed = get_value(_SUPPRESS_INSTRUMENTATION_KEY)
        self.is_called.set()
        self.is_let_on.wait()
        if isinstance(self.delivery, Exception):
            raise self.delivery
        return self.delivery

    def interrupt(self) -> None:
        self.is_interrupted.set()

    def close(self) -> None:
        self.is_closed = True
        self.is_let_on.set()

    @property
    def counts(self) -> list[int]:
        return [
            sum(
                len(scope.spans)
                for group in ExportTraceServiceRequest.FromString(body).resource_spans
                for scope in group.scope_spans
            )
            for body in self.bodies
        ]


def span(name: str = "span", **attributes: object) -> ReadableSpan:
    return ReadableSpan(name, CONTEXT, attributes=attributes, resource=RESOURCE)  # type: ignore[arg-type]


RESOURCE = Resource({"service.name": "shop"})
BROKEN = ReadableSpan("broken", resource=RESOURCE)
"""A span without a context, which cannot be encoded."""


@contextmanager
def piped(transport: Scripted, encoder: ChunkEncoder | None = None, **options: object) -> Iterator[SpanPipeline]:
    options.setdefault("schedule", UNHURRIED)
    pipeline = SpanPipeline(encoder or protobuf_encoder(), lambda: transport, **options)  # type: ignore[arg-type]
    try:
        yield pipeline
    finally:
        transport.is_let_on.set()
        pipeline.close(10)


def adds_up(ledger: SpanLedger) -> bool:
    return (
        ledger.started == ledger.exported + ledger.dropped + ledger.failed + ledger.pending
        and ledger.dropped == sum(ledger.dropped_by.values())
        and ledger.failed == sum(ledger.failed_by.values())
        and min(ledger.started, ledger.exported, ledger.pending) >= 0
    )


def test_every_span_of_many_threads_is_sent_once():
    """What eight threads end at once is all sent, nothing twice, in requests that are as full as may be."""
    transport = Scripted()
    with piped(transport) as pipeline:
        threads = [threading.Thread(target=lambda: [pipeline.push(span()) for _ in range(3_000)]) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert pipeline.flush(30)
        assert pipeline.ledger() == SpanLedger(24_000, 24_000)
    assert sum(transport.counts) == 24_000
    assert max(transport.counts) <= 8192


def test_what_waits_is_bytes_and_not_objects():
    """The thread whose span fills a chunk encodes it at once: no object stays alive while the receiver is slow."""
    transport = Scripted()
    transport.is_let_on.clear()
    with piped(transport) as pipeline:
        spans = [span() for _ in range(3 * CHUNK)]
        alive = [weakref.ref(each) for each in spans]
        for each in spans:
            pipeline.push(each)
        del spans, each
        gc.collect()
        assert not any(reference() for reference in alive)
        assert pipeline.ledger().pending == 3 * CHUNK


def test_only_sampled_spans_are_taken():
    """As a processor it takes what is sampled, and counts nothing else as started."""
    transport = Scripted()
    with piped(transport) as pipeline:
        for provider in (TracerProvider(shutdown_on_exit=False), TracerProvider(ALWAYS_OFF, shutdown_on_exit=False)):
            provider.add_span_processor(pipeline)
            provider.get_tracer("t").start_span("s").end()
        pipeline.on_end(ReadableSpan("recorded only", SpanContext(1, 2, False)))
        assert pipeline.flush(10)
        assert pipeline.ledger() == SpanLedger(1, 1)


def test_a_full_queue_drops_and_counts_exactly():
    """With a receiver that holds everything up, what does not fit is dropped, by whole chunks, and the rest arrives."""
    transport = Scripted()
    transport.is_let_on.clear()
    with piped(transport, protobuf_encoder(50_000), queue_bytes=100_000) as pipeline:
        for _ in range(20 * CHUNK):
            pipeline.push(span(text="x" * 40))
        full = pipeline.ledger()
        assert adds_up(full)
        assert 0 < full.pending < full.dropped_by["queue_full"]
        transport.is_let_on.set()
        assert pipeline.flush(10)
        after = pipeline.ledger()
        assert (after.pending, after.dropped, after.exported) == (0, full.dropped, full.pending)
    assert sum(transport.counts) == after.exported


def test_the_queue_never_holds_more_than_its_bytes():
    """However much comes, what waits and what is under way stay below the limit together."""
    transport = Scripted()
    transport.is_let_on.clear()
    with piped(transport, protobuf_encoder(50_000), queue_bytes=100_000) as pipeline:
        for _ in range(20 * CHUNK):
            pipeline.push(span(text="x" * 40))
        assert pipeline._queue._bytes + pipeline._queue._under_way <= 100_000
        assert len(pipeline._pending) < CHUNK


def test_block_loses_nothing_where_the_receiver_is_only_slow():
    """With ``on_full="block"`` threads wait for room, and everything arrives."""
    transport = Scripted()
    with piped(transport, protobuf_encoder(20_000), queue_bytes=40_000, on_full="block") as pipeline:
        threads = [threading.Thread(target=lambda: [pipeline.push(span()) for _ in range(4_000)]) for _ in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert pipeline.flush(30)
        assert pipeline.ledger() == SpanLedger(16_000, 16_000)


def test_block_waits_no_longer_than_its_limit():
    """With a receiver that never answers a thread waits for its limit only; what it has is dropped and counted."""
    transport = Scripted()
    transport.is_let_on.clear()
    options = {"queue_bytes": 40_000, "on_full": "block", "block_timeout": 0.01}
    with piped(transport, protobuf_encoder(20_000), **options) as pipeline:
        for _ in range(10 * CHUNK):
            pipeline.push(span())
        assert pipeline.ledger().dropped_by["queue_full"] > 0
        assert adds_up(pipeline.ledger())


@pytest.mark.parametrize(
    ("delivery", "failed_by"),
    [
        (Delivery(10_000, "status 503"), {"status 503": 3}),
        (Delivery(2, "rejected"), {"rejected": 2}),
        (ValueError("of a transport"), {"ValueError": 3}),
    ],
    ids=["refused", "in part", "raised"],
)
def test_what_the_receiver_does_not_take_is_failed(delivery, failed_by):
    """Spans of a request that fails, in whole or in part, are failed for its reason, and flush says so."""
    transport = Scripted(delivery)
    with piped(transport) as pipeline:
        for _ in range(3):
            pipeline.push(span())
        assert not pipeline.flush(10)
        lost = sum(failed_by.values())
        assert pipeline.ledger() == SpanLedger(3, 3 - lost, 0, lost, 0, {}, failed_by)


def test_a_span_that_cannot_be_encoded_fails_alone():
    """Its neighbours arrive, its reason is counted, and whoever ended it notices nothing."""
    transport = Scripted()
    with piped(transport) as pipeline:
        for each in (span(), BROKEN, span()):
            pipeline.push(each)
        assert not pipeline.flush(10)
        assert pipeline.ledger() == SpanLedger(3, 2, 0, 1, 0, {}, {"encoding": 1})
    assert transport.counts == [2]


def test_an_encoder_that_fails_altogether_loses_its_chunk_only():
    """An encoder that raises costs the chunk it was given; the next arrives."""

    class Moody(ChunkEncoder):
        def encode(self, items):
            if len(items) == 1:
                raise RuntimeError("not today")
            return super().encode(items)

    from aetherflow.telemetry.encoding import wire

    with piped(Scripted(), Moody(wire, b"")) as pipeline:
        pipeline.push(span())
        assert not pipeline.flush(10)
        pipeline.push(span())
        pipeline.push(span())
        assert pipeline.flush(10)
        assert pipeline.ledger() == SpanLedger(3, 2, 0, 1, 0, {}, {"encoding": 1})


def test_spans_of_other_types_are_encoded_as_registered():
    """Items of a registered type go through their own function, next to the SDK's, each below its own scope."""
    encoder = protobuf_encoder()

    class Lean:
        pass

    plain = protobuf_encoder().encode([span("lean")]).pieces[0]
    encoder.register(Lean, lambda item: plain.data, lambda item: Group(plain.group.resource, b"\x0a\x03\x0a\x01s"))
    transport = Scripted()
    with piped(transport, encoder) as pipeline:
        for each in (Lean(), span("other"), Lean()):
            pipeline.push(each)
        assert pipeline.flush(10)
    (group,) = ExportTraceServiceRequest.FromString(transport.bodies[0]).resource_spans
    assert [(each.scope.name, [s.name for s in each.spans]) for each in group.scope_spans] == [
        ("s", ["lean", "lean"]),
        ("", ["other"]),
    ]


def test_flush_waits_for_what_another_thread_is_encoding():
    """A chunk that a thread has in hand when flush is called is part of what flush sends."""
    in_hand, go_on = threading.Event(), threading.Event()
    encoder = protobuf_encoder()

    class Slow:
        pass

    def encode(item):
        in_hand.set()
        go_on.wait()
        return encoder._encoding.encode_span(span("slow"))

    encoder.register(Slow, encode, lambda item: encoder.group(RESOURCE, None))
    chunk = [Slow(), *(span() for _ in range(CHUNK - 1))]
    transport = Scripted()
    with piped(transport, encoder) as pipeline:
        thread = threading.Thread(target=lambda: [pipeline.push(each) for each in chunk])
        thread.start()
        in_hand.wait()
        flushed: list[bool] = []
        flusher = threading.Thread(target=lambda: flushed.append(pipeline.flush(30)))
        flusher.start()
        assert pipeline.ledger().pending == CHUNK
        go_on.set()
        thread.join()
        flusher.join()
        assert flushed == [True]
        assert pipeline.ledger() == SpanLedger(CHUNK, CHUNK)


def test_what_is_due_is_sent_without_being_asked_for():
    """After the delay what there is is sent, be it one span."""
    transport = Scripted()
    with piped(transport, schedule=Schedule(delay=0.01)) as pipeline:
        pipeline.push(span())
        wait_until(lambda: pipeline.ledger().exported == 1, "the span to be sent")


def test_a_full_request_is_sent_before_it_is_due():
    """Enough for a request is sent at once, however long the delay."""
    transport = Scripted()
    with piped(transport, schedule=Schedule(delay=3600.0, request_spans=10)) as pipeline:
        for _ in range(25):
            pipeline.push(span())
        wait_until(lambda: pipeline.ledger().exported == 20, "two requests")
        assert transport.counts == [10, 10]


def test_requests_stay_below_their_bytes():
    """No request is larger than allowed but for one that holds a single span."""
    schedule = Schedule(delay=3600.0, request_bytes=10_000)
    transport = Scripted()
    with piped(transport, protobuf_encoder(10_000), schedule=schedule) as pipeline:
        for size in [3_000] * 10 + [50_000] + [100] * 100:
            pipeline.push(span(text="x" * size))
        assert pipeline.flush(10)
    assert sum(transport.counts) == 111
    assert [count for count, body in zip(transport.counts, transport.bodies, strict=True) if len(body) > 10_500] == [1]


def test_closing_sends_what_is_left():
    """What is pending when the pipeline closes is sent, and the transport is closed."""
    transport = Scripted()
    with piped(transport) as pipeline:
        for _ in range(CHUNK + 5):
            pipeline.push(span())
        assert pipeline.close(10)
        assert pipeline.ledger() == SpanLedger(CHUNK + 5, CHUNK + 5)
    assert transport.is_closed


def test_closing_gives_a_silent_receiver_up():
    """What is not out in time is dropped and counted, also what is under way; a late answer changes nothing."""
    transport = Scripted()
    transport.is_let_on.clear()
    with piped(transport, schedule=Schedule(delay=3600.0, request_spans=CHUNK)) as pipeline:
        for _ in range(9 * CHUNK):
            pipeline.push(span())
        transport.is_called.wait()
        pipeline.push(span())
        worker = pipeline._worker
        assert not pipeline.close(0.05)
        lost = SpanLedger(9 * CHUNK + 1, 0, 9 * CHUNK + 1, 0, 0, {"shutdown": 9 * CHUNK + 1})
        assert pipeline.ledger() == lost
        worker.join()
        assert pipeline.ledger() == lost


def test_spans_after_closing_are_dropped_and_counted():
    """A span that ends too late is not kept: its thread goes on, and the ledger says what became of it."""
    with piped(Scripted()) as pipeline:
        pipeline.close(10)
        for _ in range(3):
            pipeline.push(span())
        assert pipeline.ledger() == SpanLedger(3, 0, 3, 0, 0, {"shutdown": 3})
        assert not pipeline.flush(10)
        assert pipeline.close(10)


def test_closing_has_an_interrupted_request_attempted_once_more():
    """Where closing cuts a wait between two attempts short, the request is made again at once, and then no more."""

    class Waiting(Scripted):
        def send(self, body, count):
            self.bodies.append(body)
            self.is_called.set()
            if len(self.bodies) == 1:
                self.is_interrupted.wait()
                return Delivery(count, "status 503", interrupted=True)
            return TAKEN

    transport = Waiting()
    with piped(transport, schedule=Schedule(delay=3600.0, request_spans=1)) as pipeline:
        pipeline.push(span())
        transport.is_called.wait()
        assert pipeline.close(10)
        assert pipeline.ledger() == SpanLedger(1, 1)
    assert transport.counts == [1, 1]


def test_exporting_is_not_itself_traced():
    """Instrumentation of what sends the spans is told to keep quiet, or each request would make a span for the next."""
    transport = Scripted()
    with piped(transport) as pipeline:
        pipeline.push(span())
        pipeline.flush(10)
    assert transport.suppressed is True


def test_losses_are_told_once_in_a_while(caplog):
    """The log has one line for the first loss, with its reason, and none for each of the next."""
    caplog.set_level(logging.WARNING, "aetherflow")
    with piped(Scripted(Delivery(1, "status 400"))) as pipeline:
        for _ in range(3):
            pipeline.push(span())
            pipeline.flush(10)
    # The worker of another test's pipeline may write its line after that pipeline was closed.
    lines = [each.getMessage() for each in caplog.records if "(status 400)" in each.getMessage()]
    assert lines == ["spans are lost (status 400): 0 dropped and 1 failed of 1 so far"]


def test_ledgers_add_up_over_destinations():
    """The sum of two ledgers is one, with the counts of each reason."""
    one = SpanLedger(5, 1, 2, 1, 1, {"shutdown": 2}, {"rejected": 1})
    other = SpanLedger(3, 0, 1, 2, 0, {"queue_full": 1}, {"rejected": 2})
    assert one + other == SpanLedger(8, 1, 3, 3, 1, {"shutdown": 2, "queue_full": 1}, {"rejected": 3})
    assert adds_up(one + other)


def test_the_account_balances_at_any_moment():
    """Whoever looks while threads push, chunks fail, requests fail in part and the queue is full sees it add up."""
    transport = Scripted(Delivery(3, "rejected"))
    done = threading.Event()
    seen: list[SpanLedger] = []
    with piped(transport, protobuf_encoder(10_000), queue_bytes=20_000, schedule=Schedule(0.001)) as pipeline:

        def push() -> None:
            for index in range(4_000):
                pipeline.push(BROKEN if index % 7 == 0 else span())

        def look() -> None:
            while not done.is_set():
                seen.append(pipeline.ledger())

        looking, *pushing = [threading.Thread(target=each) for each in (look, push, push, push)]
        for each in (looking, *pushing):
            each.start()
        for each in pushing:
            each.join()
        pipeline.flush(30)
        done.set()
        looking.join()
        last = pipeline.ledger()
    assert all(map(adds_up, seen))
    assert all(before.started <= after.started for before, after in pairwise(seen))
    assert (last.started, last.pending, last.failed_by["encoding"]) == (12_000, 0, 3 * len(range(0, 4_000, 7)))
    assert last.exported > 0
    assert last.failed_by["rejected"] > 0


class TheAccount(RuleBasedStateMachine):
    """Whatever happens in whatever order, the books balance, and what was sent and taken is what is exported."""

    @initialize(chunk=st.integers(1, 7), queue=st.sampled_from([1, 150, 400, 1_000_000]))
    def begin(self, chunk, queue):
        self.transport = Scripted()
        schedule = Schedule(delay=3600.0, request_spans=chunk)
        encoder = protobuf_encoder(max(1, min(10_000, queue // 2)))
        self.pipeline = SpanPipeline(encoder, lambda: self.transport, queue_bytes=queue, schedule=schedule)
        self.pushed = 0

    @rule(items=st.lists(st.sampled_from([span(), BROKEN, span(text="x" * 100), object()]), max_size=20))
    def push(self, items):
        for each in items:
            self.pipeline.push(each)
        self.pushed += len(items)

    @rule(delivery=st.sampled_from([TAKEN, Delivery(1, "rejected"), Delivery(9, "status 500"), OSError("no")]))
    def change(self, delivery):
        self.transport.delivery = delivery

    @rule()
    def hold(self):
        self.transport.is_let_on.clear()

    @rule()
    def let_on(self):
        self.transport.is_let_on.set()

    @rule()
    def flush(self):
        self.pipeline.flush(5.0 if self.transport.is_let_on.is_set() else 0.01)
        if self.transport.is_let_on.is_set():
            assert self.pipeline.ledger().pending == 0

    @rule()
    def close(self):
        self.pipeline.close(5.0 if self.transport.is_let_on.is_set() else 0.01)
        assert self.pipeline.ledger().pending == 0

    @invariant()
    def it_adds_up(self):
        if hasattr(self, "pipeline"):
            ledger = self.pipeline.ledger()
            assert adds_up(ledger)
            assert ledger.started == self.pushed

    def teardown(self):
        if hasattr(self, "pipeline"):
            self.transport.is_let_on.set()
            self.pipeline.close(5)
            assert self.pipeline.ledger().pending == 0


TestTheAccount = TheAccount.TestCase


def test_spans_in_the_queue_nest_as_they_were():
    """Parent and child, ended on different threads, arrive with the ids that they had."""
    transport = Scripted()
    with piped(transport) as pipeline:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(pipeline)
        tracer = provider.get_tracer("t")
        parent = tracer.start_span("parent")
        child = tracer.start_span("child", trace.set_span_in_context(parent))
        thread = threading.Thread(target=child.end)
        thread.start()
        thread.join()
        parent.end()
        assert pipeline.flush(10)
    (group,) = ExportTraceServiceRequest.FromString(transport.bodies[0]).resource_spans
    first, second = group.scope_spans[0].spans
    assert (first.name, first.parent_span_id, second.parent_span_id) == ("child", second.span_id, b"")
