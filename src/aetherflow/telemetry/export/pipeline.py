"""The way of finished spans to a destination: a queue of encoded bytes, bounded, with an account of every span.

A span that ends costs its thread one append. The thread whose span fills a chunk encodes that chunk itself, so that
what waits is bytes and not objects (a backlog of objects costs more in garbage collection than encoding does), and
whoever makes spans faster than they can be sent pays for it. A thread of the pipeline's own sends what is encoded.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, set_value
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from typing_extensions import override

from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.encoding.encoder import EncodedChunk, Piece, SpanEncoder
from aetherflow.telemetry.export.ledger import LossLog, SpanBooks, SpanLedger
from aetherflow.telemetry.export.piece_queue import PieceQueue
from aetherflow.telemetry.export.sampling_policy import QUEUE_BYTES, OnFull
from aetherflow.telemetry.export.schedule import Schedule
from aetherflow.telemetry.export.transport import Delivery, Transport
from aetherflow.telemetry.forks import renew_in_children
from aetherflow.telemetry.metrics import gauges

__all__ = ["BLOCK_TIMEOUT", "CHUNK", "SpanPipeline"]

CHUNK: Final = 256
"""Spans that are encoded at a time: few enough to hold no thread up and to be young when they are collected, enough to
make the rest of the work cheap."""
BLOCK_TIMEOUT: Final = 5.0
"""Seconds that a thread waits for room at most, with ``on_full="block"``."""


class SpanPipeline(SpanProcessor):
    """Takes finished spans to one destination.

    ``push`` takes any object that the encoder knows; it is called with sampled spans only and never raises or waits,
    but for ``on_full="block"``.

    Args:
        encoder: Makes bytes of spans.
        transport: Makes what sends them; called again in a forked child, which must not use its parent's connection.
        on_full: What to do when the queue is full.
        queue_bytes: How many bytes of encoded spans may be here.
        schedule: When how much is sent; by default what the ``OTEL_BSP_*`` variables say.
        block_timeout: Seconds that a thread waits at most with ``on_full="block"``; what it has is dropped then.
        at_once: Whether ``transport`` is called now, which tells what is wrong with it, or when spans are sent.
    """

    def __init__(
        self,
        encoder: SpanEncoder,
        transport: Callable[[], Transport],
        *,
        on_full: OnFull = "drop",
        queue_bytes: int = QUEUE_BYTES,
        schedule: Schedule | None = None,
        block_timeout: float = BLOCK_TIMEOUT,
        at_once: bool = True,
    ) -> None:
        self._encoder = encoder
        self._make_transport = transport
        self._transport: Transport | None = transport() if at_once else None
        self._inherited: Transport | None = None
        self._schedule = schedule or Schedule.from_environ(os.environ)
        self._queue_bytes = queue_bytes
        self._patience = block_timeout if on_full == "block" else 0.0
        self._pending: list[object] = []
        self._chunk = min(CHUNK, self._schedule.request_spans, self._schedule.queue_spans or CHUNK)
        self._closing = self._closed = False
        self._losses = LossLog()
        self.push, self._set_threshold = _pushing(self._pending, self._relieve, self._chunk)
        self._begin()
        self._start_worker()
        renew_in_children(self)
        gauges.observe(names.TELEMETRY_SPANS, self, SpanPipeline._outcomes)

    def _outcomes(self) -> list[gauges.Reading]:
        ledger = self.ledger()
        outcomes = (("exported", ledger.exported), ("dropped", ledger.dropped), ("failed", ledger.failed))
        return [(count, {names.TELEMETRY_OUTCOME: outcome}) for outcome, count in outcomes]

    def _begin(self) -> None:
        """Make what belongs to one process."""
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._wake = threading.Event()
        self._books = SpanBooks()
        self._queue = PieceQueue(self._queue_bytes, self._schedule)
        self._urgent = 0
        self._worker: threading.Thread | None = None

    # --- what spans go through -----------------------------------------------------------------------------------

    @override
    def on_end(self, span: ReadableSpan) -> None:
        """Take a span, if it is sampled."""
        context = span.context
        if context is not None and context.trace_flags & 1:
            self.push(span)

    def _relieve(self) -> None:
        """Encode a chunk, on the thread whose span has filled it."""
        if threading.current_thread() is self._worker:  # what exporting itself does must not wait for exporting
            return
        if not self._lock.acquire(blocking=False):
            return  # somebody else does, or this thread does already and was interrupted by a finalizer
        try:
            if self._closing:
                self._drop_pending()
                return
            lot, items = self._take()
        finally:
            self._lock.release()
        if self._worker is None:
            self._start_worker()
        self._encode(lot, items, self._patience)

    def _take(self) -> tuple[int, Sequence[object]]:
        """Take the next chunk of what is pending; with the lock."""
        items = self._pending[: self._chunk]
        del self._pending[: len(items)]
        return self._books.take(len(items)), items

    def _encode(self, lot: int, items: Sequence[object], patience: float | None) -> None:
        """Encode a chunk and queue it; without the lock.

        Args:
            lot: The chunk's name in the books.
            items: The spans.
            patience: Seconds to wait for room; None takes no notice of the limit.
        """
        try:
            encoded = self._encoder.encode(items)
        except Exception as failure:  # noqa: BLE001  # rule 3: telemetry never breaks the host
            encoded = EncodedChunk(failed=len(items), error=failure)
        except BaseException:  # the thread is being ended: so is what it has in hand
            with self._lock:
                self._books.settle(lot, dropped=len(items), reason="interrupted")
            raise
        end = time.monotonic() + (patience or 0.0)
        left = len(items) - encoded.failed
        try:
            with self._changed:
                if encoded.failed:
                    self._lose(lot, failed=encoded.failed, reason="encoding", error=encoded.error)
                for piece in encoded.pieces:
                    if patience is None or self._wait_for_room(piece, end):
                        self._admit(lot, piece)
                    else:
                        self._lose(lot, dropped=piece.spans, reason="shutdown" if self._closed else "queue_full")
                    left -= piece.spans
                self._changed.notify_all()
            self._losses.tell(self._books)
        finally:
            if left:  # the thread was interrupted while it waited
                with self._lock:
                    self._books.settle(lot, dropped=left, reason="interrupted")

    def _wait_for_room(self, piece: Piece, end: float) -> bool:
        """Wait until a piece fits, or until ``end`` by the monotonic clock; with the lock."""
        while not self._queue.has_room(piece):
            self._wake.set()
            left = end - time.monotonic()
            if left <= 0 or self._closed:
                return False
            self._changed.wait(left)
        return True

    def _admit(self, lot: int, piece: Piece) -> None:
        """Queue a piece that is still wanted, and wake the worker where it has to do something; with the lock."""
        if lot not in self._books.outstanding:  # closing has given it up
            return
        self._queue.append(lot, piece)
        if lot < self._urgent or self._queue.is_enough:
            self._wake.set()

    # --- what sends them -----------------------------------------------------------------------------------------

    def _start_worker(self) -> None:
        with self._lock:
            if self._closing or (self._worker is not None and self._worker.is_alive()):
                return
            self._worker = threading.Thread(target=self._work, name="aetherflow-export", daemon=True)
            try:
                self._worker.start()
            except RuntimeError:  # the interpreter is going down and starts no thread any more
                self._worker = None
            else:
                self._set_threshold(self._chunk)

    def _work(self) -> None:
        attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
        due = time.monotonic() + self._schedule.delay
        while True:
            self._wake.wait(max(0.0, due - time.monotonic()))
            self._wake.clear()
            is_due = time.monotonic() >= due
            with self._lock:
                if self._closing and not self._books.outstanding:
                    return
                is_urgent = not self._books.is_settled(self._urgent)
            if is_due or is_urgent:
                self._send_all()
            else:
                self._send_full()
            if is_due:
                due = time.monotonic() + self._schedule.delay

    def _send_all(self) -> None:
        """Send what has come until now, and what is queued meanwhile."""
        with self._lock:
            until = self._books.taken + len(self._pending)
        while True:
            self._collect(until)
            if not self._send_next() and (self._closing or self._books.taken >= until):
                return

    def _send_full(self) -> None:
        while self._queue.is_enough and self._send_next():
            pass

    def _collect(self, until: int) -> None:
        """Encode what is pending, up to a number of spans taken, as long as there is not enough for a request."""
        while True:
            with self._lock:
                if self._closing or self._books.taken >= until or self._queue.is_enough:
                    return
                lot, items = self._take()
            self._encode(lot, items, None)

    def _send_next(self) -> bool:
        """Send a request; return False where nothing waits."""
        with self._lock:
            batch = self._queue.next_request()
        if not batch:
            return False
        count = sum(each.piece.spans for each in batch)
        delivery = self._deliver([each.piece for each in batch], count)
        failed = min(delivery.failed, count)
        with self._changed:
            for lot, piece in batch:
                lost = min(failed, piece.spans)
                failed -= lost
                self._books.settle(lot, exported=piece.spans - lost)
                if lost:
                    self._lose(lot, failed=lost, reason=delivery.reason)
            self._queue.sent(batch)
            self._changed.notify_all()
        self._losses.tell(self._books)
        return True

    def _deliver(self, pieces: Sequence[Piece], count: int) -> Delivery:
        try:
            if self._transport is None:
                self._transport = self._make_transport()
            body = self._encoder.request(pieces)
            delivery = self._transport.send(body, count)
            if delivery.interrupted and not self._closed:
                # Closing cut the wait for another attempt short: make it now. It is the last one.
                delivery = self._transport.send(body, count)
        except Exception as failure:  # noqa: BLE001  # rule 3: telemetry never breaks the host
            return Delivery(count, type(failure).__name__)
        return delivery

    # --- what is lost, and the account of all --------------------------------------------------------------------

    def _lose(
        self, lot: int, *, dropped: int = 0, failed: int = 0, reason: str, error: Exception | None = None
    ) -> None:
        """Note spans that do not arrive; with the lock."""
        if lot in self._books.outstanding:
            self._books.settle(lot, dropped=dropped, failed=failed, reason=reason)
            self._losses.note(reason, error)

    def _drop_pending(self) -> None:
        """Drop what came too late; with the lock."""
        late = len(self._pending)
        del self._pending[:late]
        lot = self._books.take(late)
        self._books.settle(lot, dropped=late, reason="shutdown")

    @property
    def started(self) -> int:
        """How many spans were handed over so far."""
        return self._books.taken + len(self._pending)

    def ledger(self) -> SpanLedger:
        """Return what became of every span of this process so far."""
        with self._lock:
            if self._closed:
                self._drop_pending()
            return self._books.ledger(len(self._pending))

    # --- when it ends --------------------------------------------------------------------------------------------

    @override
    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Do as :meth:`flush`, in milliseconds."""
        return self.flush(timeout_millis / 1e3)

    def flush(self, timeout: float) -> bool:
        """Send all that has come so far.

        Args:
            timeout: How long to wait at most, in seconds.

        Returns:
            Whether all of it has arrived in time; False too where other spans were lost meanwhile.
        """
        self._start_worker()
        with self._changed:
            if self._closing:
                return False
            before = self._books.ledger(len(self._pending))
            self._hurry(before.started)
            if self._worker is None:
                timeout = 0.0
            settled = self._changed.wait_for(lambda: self._books.is_settled(before.started), timeout)
            after = self._books.ledger(0)
        return settled and (after.dropped, after.failed) == (before.dropped, before.failed)

    def _hurry(self, until: int) -> None:
        """Have the worker send what has come up to a number of spans; with the lock."""
        self._urgent = max(self._urgent, until)
        self._wake.set()

    @override
    def shutdown(self) -> None:
        """Do as :meth:`close`, with the time limit that OpenTelemetry gives a processor."""
        self.close(30.0)

    def close(self, timeout: float) -> bool:
        """Send what is left, once, and stop; what is not out in time is dropped, as is every later span.

        Args:
            timeout: How long to wait at most, in seconds.

        Returns:
            Whether all that was left has arrived; True where it was closed before.
        """
        end = time.monotonic() + timeout
        self._start_worker()
        lots = []
        with self._changed:
            if self._closing:
                return True
            before = self._books.ledger(len(self._pending))
            while self._pending:
                lots.append(self._take())
            self._closing = True
            self._set_threshold(1)
        for lot, items in lots:
            self._encode(lot, items, None)
        if self._transport is not None:
            self._transport.interrupt()
        with self._changed:
            self._hurry(self._books.taken)
            if self._worker is not None:
                self._changed.wait_for(lambda: not self._books.outstanding, max(0.0, end - time.monotonic()))
            self._closed = True
            lost = self._books.give_up("shutdown")
            self._queue.clear()
            after = self._books.ledger(0)
            self._wake.set()
            self._changed.notify_all()
        if self._transport is not None:
            self._transport.close()
        return not lost and (after.dropped, after.failed) == (before.dropped, before.failed)

    def after_fork(self) -> None:
        """Leave to the parent what is the parent's; called in a forked child."""
        self._pending.clear()
        self._begin()
        # It is kept, so that nobody closes a connection that the parent is using, and not used.
        self._inherited, self._transport = self._transport, None
        self._closed = self._closing
        self._set_threshold(1)  # the first span starts the worker


def _pushing(
    pending: list[object], relieve: Callable[[], object], threshold: int
) -> tuple[Callable[[object], None], Callable[[int], None]]:
    """Return the two functions that keep a list short: cells are quicker to read than attributes."""

    def push(item: object) -> None:
        pending.append(item)
        if len(pending) >= threshold:
            relieve()

    def set_threshold(number: int) -> None:
        nonlocal threshold
        threshold = number

    return push, set_threshold
