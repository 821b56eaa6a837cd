"""What became of every span: exported, dropped, failed, or still on its way. They always add up."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["LossLog", "SpanBooks", "SpanLedger"]

_LOGGER: Final = logging.getLogger("aetherflow")
_QUIET: Final = 60.0
"""Seconds between two lines that tell of lost spans."""


@dataclass(frozen=True, slots=True)
class SpanLedger:
    """What became of the spans that one destination was given: ``started == exported + dropped + failed + pending``.

    Args:
        started: Spans that ended, sampled, and were handed to the pipeline.
        exported: Those that the receiver took.
        dropped: Those that were never sent: no room in the queue, or no time left to send them.
        failed: Those that could not be encoded, or that the receiver refused or never answered for.
        pending: Those that are still here.
        dropped_by: The dropped ones by reason: ``queue_full``, ``shutdown``, ``interrupted``.
        failed_by: The failed ones by reason: ``encoding``, ``rejected``, or what the transport said, such as
            ``status 503``, ``UNAVAILABLE`` or ``ConnectionError``.
    """

    started: int = 0
    exported: int = 0
    dropped: int = 0
    failed: int = 0
    pending: int = 0
    dropped_by: Mapping[str, int] = field(default_factory=dict)
    failed_by: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: SpanLedger) -> SpanLedger:
        """Return the sums over two destinations: a span that goes to both counts twice."""
        return SpanLedger(
            self.started + other.started,
            self.exported + other.exported,
            self.dropped + other.dropped,
            self.failed + other.failed,
            self.pending + other.pending,
            dict(Counter(self.dropped_by) + Counter(other.dropped_by)),
            dict(Counter(self.failed_by) + Counter(other.failed_by)),
        )


class SpanBooks:
    """Where the ledger is kept: not safe for threads, whoever has it holds a lock.

    Spans are taken in the order they came. What was taken together is a lot, named by the number of spans taken
    before it, and is outstanding until each of its spans is settled.
    """

    __slots__ = ("dropped", "exported", "failed", "outstanding", "taken")

    def __init__(self) -> None:
        self.taken = 0
        self.exported = 0
        self.dropped: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.outstanding: dict[int, int] = {}

    def take(self, count: int) -> int:
        """Open a lot and return its name."""
        lot = self.taken
        self.taken += count
        if count:
            self.outstanding[lot] = count
        return lot

    def settle(self, lot: int, *, exported: int = 0, dropped: int = 0, failed: int = 0, reason: str = "") -> None:
        """Note what became of spans of a lot; nothing where the lot was given up meanwhile.

        Args:
            lot: The lot's name.
            exported: How many were exported.
            dropped: How many were dropped, for a reason.
            failed: How many failed, for a reason.
            reason: The reason.
        """
        if lot not in self.outstanding:
            return
        self.exported += exported
        if dropped:
            self.dropped[reason] += dropped
        if failed:
            self.failed[reason] += failed
        self.outstanding[lot] -= exported + dropped + failed
        if not self.outstanding[lot]:
            del self.outstanding[lot]

    def give_up(self, reason: str) -> int:
        """Count all that is outstanding as dropped; return how many they were."""
        lost = sum(self.outstanding.values())
        if lost:
            self.dropped[reason] += lost
        self.outstanding.clear()
        return lost

    def is_settled(self, before: int) -> bool:
        """Tell whether the first ``before`` spans were all taken and none of them is outstanding."""
        return self.taken >= before and all(lot >= before for lot in self.outstanding)

    def ledger(self, waiting: int) -> SpanLedger:
        """Return the ledger.

        Args:
            waiting: How many spans are here that were not taken yet.
        """
        return SpanLedger(
            self.taken + waiting,
            self.exported,
            self.dropped.total(),
            self.failed.total(),
            sum(self.outstanding.values()) + waiting,
            dict(self.dropped),
            dict(self.failed),
        )


class LossLog:
    """Tells the log of lost spans, once in a while."""

    __slots__ = ("_last", "_reason")

    def __init__(self) -> None:
        self._last = -_QUIET
        self._reason: tuple[str, Exception | None] | None = None

    def note(self, reason: str, error: Exception | None = None) -> None:
        """Keep why spans were lost, for the next line."""
        self._reason = self._reason or (reason, error)

    def tell(self, books: SpanBooks) -> None:
        """Write a line if one is due. Nobody who calls this holds a lock: a handler of logs may do anything."""
        now = time.monotonic()
        if self._reason is None or now - self._last < _QUIET:
            return
        (reason, error), self._reason, self._last = self._reason, None, now
        lost = books.dropped.total(), books.failed.total(), books.taken
        _LOGGER.warning("spans are lost (%s): %d dropped and %d failed of %d so far", reason, *lost, exc_info=error)
