"""How items become batches: who waits in which, when one begins, and who sees to it. No user code runs here.

Whoever takes a batch carries it out. Of its callers that is the one that fills it, or once its first item has waited
long enough, the one that keeps the time: a waiting thread, and a timer of each event loop that callers wait on.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, NamedTuple

from opentelemetry.trace import SpanContext

from aetherflow.errors import AetherFlowError
from aetherflow.resources.waiting import lent_thread
from aetherflow.telemetry.conventions import BATCH_INDEX, BATCH_SIZE, BATCH_WAIT
from aetherflow.user_exceptions import traceback_of, with_traceback

__all__ = [
    "NOTHING",
    "Batch",
    "BatchOutcomeError",
    "BatchStatistics",
    "BatcherClosedError",
    "Entry",
    "Gathering",
    "Given",
    "Placement",
    "open_gate",
    "pass_gate",
]

NOTHING: Final = object()
"""The result of an item that has none."""


class BatcherClosedError(AetherFlowError):
    """An item came to a batcher that is closed."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"batcher {name!r} is closed: it takes no more items")


class BatchOutcomeError(AetherFlowError, RuntimeError):
    """A batch ended without a result or an error for one of its items: an internal error of aetherflow."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        subject = f"batcher {name!r}: the batch" if name else "a batch"
        super().__init__(f"{subject} ended with neither a result nor an error for an item")


@dataclass(frozen=True, slots=True)
class BatchStatistics:
    """A batcher at one moment. All items that ever came are ``waiting + running + ended + withdrawn``.

    Args:
        name: The batcher's name.
        size: Items in a batch at most.
        max_wait: Seconds that an item waits for its batch at most.
        waiting: Items in batches that have not begun.
        running: Items in batches under way.
        ended: Items in batches that have ended.
        failed: Those of them whose callers got an error.
        withdrawn: Items that were dropped because their callers did not wait.
        batches: Batches that have begun.
        full: Those of them that began because they were full.
        retried: Those of them that were carried out again, item by item.
    """

    name: str
    size: int
    max_wait: float
    waiting: int
    running: int
    ended: int
    failed: int
    withdrawn: int
    batches: int
    full: int
    retried: int


@dataclass(slots=True)  # not frozen: that would cost each item half a microsecond
class Placement:
    """Where an item was.

    Args:
        size: Items in its batch.
        index: Its place among them, from 0.
        wait: Seconds from its arrival until the batch began.
    """

    size: int
    index: int
    wait: float

    def attributes(self) -> dict[str, Any]:
        """Return what a span says of it."""
        return {BATCH_SIZE: self.size, BATCH_INDEX: self.index, BATCH_WAIT: self.wait}


class Given(NamedTuple):
    """A call with one item.

    Args:
        lead: Arguments of the function before the items, such as a method's object.
        item: The item.
        rest: Arguments after them. Only calls with the very same objects share a batch.
        named: Arguments by name.
    """

    lead: tuple[Any, ...]
    item: Any
    rest: tuple[Any, ...]
    named: Mapping[str, Any]


class Entry:
    """One item, its caller and what became of it.

    Args:
        given: What the caller gave.
        origin: The span it comes from, for a link.
        loop: The event loop that the caller awaits it on; None where a thread waits.
        gate: The gate of a thread that gives several items; it waits for them only from `Gathering.keep_time` on.
    """

    __slots__ = (
        "batch",
        "error",
        "future",
        "gate",
        "given",
        "is_helpful",
        "loop",
        "origin",
        "placement",
        "result",
        "since",
        "trace",
    )
    since: float
    placement: Placement

    def __init__(
        self,
        given: Given,
        origin: SpanContext | None,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        gate: threading.Lock | None = None,
    ) -> None:
        self.is_helpful = loop is None and gate is None
        self.gate = gate
        self.given = given
        self.origin = origin
        self.loop = loop
        self.batch: Batch | None = None
        self.result: Any = NOTHING
        self.error: BaseException | None = None
        self.trace: TracebackType | None = None
        if loop is not None:
            self.future: asyncio.Future[None] = loop.create_future()
        elif gate is None:
            self.gate = threading.Lock()
            self.gate.acquire()

    @property
    def is_done(self) -> bool:
        """Whether there is a result or an error."""
        return self.result is not NOTHING or self.error is not None

    def fail(self, error: BaseException) -> None:
        """Record an error, and the traceback that it has now."""
        self.error, self.trace = error, traceback_of(error)

    def outcome(self) -> Any:
        """Return the result, or raise the error.

        Raises:
            BatchOutcomeError: The entry has neither.
        """
        if self.error is not None:
            raise with_traceback(self.error, self.trace)  # not what other callers who raised it have added
        if self.result is NOTHING:
            raise BatchOutcomeError
        return self.result


def open_gate(gate: threading.Lock | None) -> None:
    """Let whoever waits at a gate go on."""
    if gate is not None and gate.locked():  # else it is open: the thread that waits has yet to look
        with suppress(RuntimeError):  # opened in between
            gate.release()


def pass_gate(gate: threading.Lock, timeout: float = -1) -> None:
    """Wait until a gate is open, or for so many seconds."""
    if not gate.acquire(blocking=False):
        with lent_thread():
            gate.acquire(timeout=timeout)


class Batch:
    """Items that are carried out together.

    Args:
        key: What they have in common.
        given: The first call, whose other arguments are those of all.
        due: When it begins at the latest.
    """

    __slots__ = ("begun", "due", "ended", "entries", "given", "keeper", "key", "leader", "taken", "timers")

    def __init__(self, key: object, given: Given, due: float) -> None:
        self.key = key
        self.given = given
        self.due = due
        self.entries: list[Entry] = []
        self.taken = False  # somebody is to carry it out,
        self.begun = False  # and does,
        self.ended = False  # and has
        self.leader: Entry | None = None
        self.keeper: Entry | None = None
        self.timers: dict[asyncio.AbstractEventLoop, asyncio.TimerHandle] = {}


class Gathering:
    """The open batches of one function, and the counts of all.

    Args:
        name: The function's, for errors and statistics.
        size: Items in a batch at most.
        max_wait: Seconds from the first item on after which a batch begins in any case.
        clock: Monotonic time in seconds.
    """

    def __init__(self, name: str, size: int, max_wait: float, clock: Callable[[], float]) -> None:
        self.name = name
        self.size = size
        self.max_wait = max_wait
        self.clock = clock
        self.closed = False
        self.renew()

    def renew(self) -> None:
        """Begin anew, as in a forked child: the open batches are those of its parent, which carries them out."""
        self._lock = threading.RLock()  # reentrant, for what the garbage collector may run in between
        self._open: dict[object, Batch] = {}
        self._batches = self._full = self._retried = 0
        self._running = self._ended = self._failed = self._withdrawn = 0

    def enter(self, entry: Entry) -> Batch:
        """Put an item into the batch that is open for its arguments, which are compared by identity.

        Returns:
            The batch; the caller is its leader and carries it out if it is full, or late.

        Raises:
            BatcherClosedError: No more items are taken.
        """
        with self._lock:
            return self._put(entry, self.clock())

    def _put(self, entry: Entry, now: float) -> Batch:
        if self.closed:
            raise BatcherClosedError(self.name)
        given = entry.given
        key = _key(given) if given.lead or given.rest or given.named else None
        batch = self._open.get(key)
        is_late = batch is not None and now >= batch.due
        if batch is None:
            batch = self._open[key] = Batch(key, given, now + self.max_wait)
        entry.since = now
        entry.batch = batch
        batch.entries.append(entry)
        is_full = len(batch.entries) >= self.size
        self._full += is_full
        if is_full or is_late:
            self._begin(batch, now, entry)
        elif entry.is_helpful and batch.keeper is None:
            batch.keeper = entry
        return batch

    def room(self) -> int:
        """Return the number of items that fill the next batch, if their other arguments are those of the open batch."""
        with self._lock:
            if len(self._open) != 1:
                return self.size
            (batch,) = self._open.values()
            return max(1, self.size - len(batch.entries))

    def fill(self, entries: Sequence[Entry], start: int, batches: list[Batch]) -> tuple[int, Batch | None]:
        """Add items to batches, up to the item that begins a batch because it is full or late.

        Args:
            entries: The items.
            start: The index of the first one.
            batches: Takes the batches of these items; one may be in it more than once.

        Returns:
            The index of the next item, and the batch, which is the caller's to carry out; None if none begins.
        """
        with self._lock:
            now = self.clock()
            for index in range(start, len(entries)):
                batch = self._put(entries[index], now)
                if not batches or batches[-1] is not batch:
                    batches.append(batch)
                if batch.taken:
                    return index + 1, batch
            return len(entries), None

    def take_all(self, entries: Iterable[Entry]) -> list[Batch]:
        """Claim all unclaimed batches of some items for the caller, and return them in the order of the items."""
        with self._lock:
            batches = {entry.batch: entry for entry in entries if entry.batch is not None and not entry.batch.taken}
            return [batch for batch, entry in batches.items() if self.take(batch, entry)]

    def keep_time(self, entries: Iterable[Entry]) -> None:
        """Record that the thread that passed these items waits for them from now on."""
        with self._lock:
            for entry in entries:
                entry.is_helpful = True
                batch = entry.batch
                if batch is not None and not batch.taken and batch.keeper is None:
                    batch.keeper = entry

    def take(self, batch: Batch, leader: Entry | None = None) -> bool:
        """Have the caller carry a batch out, if nobody does yet."""
        with self._lock:
            if batch.taken:
                return False
            self._begin(batch, self.clock(), leader)
            return True

    def take_any(self) -> Batch | None:
        """Have the caller carry out an open batch, if there is one."""
        with self._lock:
            for batch in self._open.values():
                self._begin(batch, self.clock(), None)
                return batch
            return None

    def _begin(self, batch: Batch, now: float, leader: Entry | None) -> None:
        batch.taken = True
        batch.leader = leader
        del self._open[batch.key]
        size = len(batch.entries)
        for index, entry in enumerate(batch.entries):
            entry.placement = Placement(size, index, now - entry.since)
        self._batches += 1
        self._running += size

    def withdraw(self, entry: Entry) -> Entry | None:
        """Take an item back whose caller no longer waits, unless its batch was taken.

        Returns:
            The thread that keeps the time in the place of the caller, where that did.
        """
        batch = entry.batch
        with self._lock:
            if batch is None or batch.taken:
                return None
            batch.entries.remove(entry)
            self._withdrawn += 1
            if not batch.entries:
                batch.taken = True
                del self._open[batch.key]
            if batch.keeper is not entry:
                return None
            batch.keeper = next((other for other in batch.entries if other.is_helpful), None)
            return batch.keeper

    def appoint(self, batch: Batch, instead_of: Entry | None = None) -> Entry | None:
        """Have a thread that waits for a batch carry it out; None where there is none."""
        with self._lock:
            gate = None if instead_of is None else instead_of.gate
            others = (entry for entry in batch.entries if entry.is_helpful and entry.gate is not gate)
            batch.leader = next(others, None)
            return batch.leader

    def begin(self, batch: Batch) -> bool:
        """Return whether the caller carries a batch out, because nobody has begun to."""
        with self._lock:
            begins, batch.begun = not batch.begun, True
            return begins

    def end(self, batch: Batch) -> None:
        """Count the items of a batch that has ended."""
        size = len(batch.entries)
        failed = sum(entry.error is not None for entry in batch.entries)
        with self._lock:
            self._running -= size
            self._ended += size
            self._failed += failed

    def count_retry(self) -> None:
        """Count a batch that is carried out item by item after all."""
        with self._lock:
            self._retried += 1

    def statistics(self) -> BatchStatistics:
        """Return what is and what was."""
        with self._lock:
            return BatchStatistics(
                self.name,
                self.size,
                self.max_wait,
                sum(len(batch.entries) for batch in self._open.values()),
                self._running,
                self._ended,
                self._failed,
                self._withdrawn,
                self._batches,
                self._full,
                self._retried,
            )


def _key(given: Given) -> tuple[object, ...]:
    named = tuple(sorted((name, id(value)) for name, value in given.named.items()))
    return (tuple(map(id, given.lead)), tuple(map(id, given.rest)), named)
