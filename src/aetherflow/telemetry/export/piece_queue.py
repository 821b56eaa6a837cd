"""The queue of encoded spans: bounded in bytes, and taken out of in requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from aetherflow.telemetry.encoding.encoder import Piece
from aetherflow.telemetry.export.schedule import Schedule

__all__ = ["PieceQueue", "QueuedPiece"]


class QueuedPiece(NamedTuple):
    """A piece, and the lot in the books that its spans are of."""

    lot: int
    piece: Piece


class PieceQueue:
    """What waits to be sent and what is under way; not safe for threads, whoever has it holds a lock.

    Args:
        max_bytes: How many bytes may wait or be under way.
        schedule: How much a request may hold, and how many spans may wait.
    """

    __slots__ = (
        "_bytes",
        "_enough_bytes",
        "_enough_spans",
        "_max_bytes",
        "_pieces",
        "_schedule",
        "_spans",
        "_under_way",
    )

    def __init__(self, max_bytes: int, schedule: Schedule) -> None:
        self._max_bytes = max_bytes
        self._schedule = schedule
        # Half a request, so that the receiver is never far behind: where the sender is, requests become whole. And half
        # of a small queue, so that there is always room for what a request may hold.
        self._enough_bytes = min(schedule.request_bytes, max_bytes) // 2
        self._enough_spans = min(schedule.request_spans, schedule.queue_spans or schedule.request_spans) // 2
        self.clear()

    def clear(self) -> None:
        """Forget all."""
        self._pieces: deque[QueuedPiece] = deque()
        self._bytes = self._spans = self._under_way = 0

    def has_room(self, piece: Piece) -> bool:
        """Tell whether a piece fits."""
        if self._bytes + self._under_way + len(piece.data) > self._max_bytes:
            return False
        most = self._schedule.queue_spans
        return most is None or self._spans + piece.spans <= most

    @property
    def is_enough(self) -> bool:
        """Whether what waits is worth a request."""
        return bool(self._pieces) and (self._spans >= self._enough_spans or self._bytes >= self._enough_bytes)

    def append(self, lot: int, piece: Piece) -> None:
        """Have a piece wait."""
        self._pieces.append(QueuedPiece(lot, piece))
        self._bytes += len(piece.data)
        self._spans += piece.spans

    def next_request(self) -> list[QueuedPiece]:
        """Take out what one request may hold; it is under way until :meth:`sent` is called with it."""
        batch: list[QueuedPiece] = []
        size = spans = 0
        while self._pieces:
            piece = self._pieces[0].piece
            size, spans = size + len(piece.data), spans + piece.spans
            if batch and (size > self._schedule.request_bytes or spans > self._schedule.request_spans):
                break
            batch.append(self._pieces.popleft())
            self._bytes -= len(piece.data)
            self._under_way += len(piece.data)
            self._spans -= piece.spans
        return batch

    def sent(self, batch: Iterable[QueuedPiece]) -> None:
        """Make room for others."""
        self._under_way = max(0, self._under_way - sum(len(each.piece.data) for each in batch))
