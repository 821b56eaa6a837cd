"""Groups of items: one caller passes many items to a batcher, as a map does, and waits for all of them.

Full batches begin immediately. The last items share a batch with the items of other callers, within the time that an
item waits at most. The thread of the caller keeps that time, or a timer of its event loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Sequence
from typing import Protocol

from opentelemetry.trace import SpanContext

from aetherflow.resources.gathering import Batch, Entry, Gathering, Given, pass_gate

__all__ = ["CarriesBatchesOut", "ItemGroup"]


class CarriesBatchesOut(Protocol):
    """The part of a batcher that a group of its items needs."""

    @property
    def is_async(self) -> bool:
        """Return whether its function is awaited."""
        ...

    def carry_out(self, batch: Batch) -> None:
        """Carry a batch out on this thread."""
        ...

    def hand_over(self, batch: Batch, instead_of: Entry | None = None) -> None:
        """Pass a batch to another thread, which carries it out."""
        ...

    def begin_on(self, loop: asyncio.AbstractEventLoop, batch: Batch) -> None:
        """Begin a batch without blocking an event loop."""
        ...

    def time_on(self, loop: asyncio.AbstractEventLoop, batch: Batch) -> None:
        """Begin a batch from an event loop when it is due."""
        ...

    def leave(self, entry: Entry) -> None:
        """Drop an item whose caller no longer waits for it."""
        ...


class ItemGroup:
    """Items that one caller passes to a batcher, one list after the other.

    Args:
        batcher: The batcher.
        gathering: Its open batches.
        waits: Whether the last batch waits to be filled by items of other callers; otherwise it begins as it is.
    """

    def __init__(self, batcher: CarriesBatchesOut, gathering: Gathering, *, waits: bool) -> None:
        self._batcher = batcher
        self._gathering = gathering
        self._waits = waits
        self._gate = threading.Lock()
        self._gate.acquire()
        self._pending: list[Entry] = []  # since all batches have ended
        self._batches: list[Batch] = []

    @property
    def is_async(self) -> bool:
        """Return whether the items have to be passed on an event loop."""
        return self._batcher.is_async

    def room(self) -> int:
        """Return the number of further items that fill a batch, as far as it is known before they are passed."""
        return self._gathering.room()

    # --- threads -------------------------------------------------------------------------------------------

    def give(self, calls: Iterable[tuple[Given, SpanContext | None]], is_last: bool) -> list[Entry]:
        """Pass items, and carry out the batches that they fill.

        Args:
            calls: The items, and the span that each comes from.
            is_last: Whether no more follow: then this blocks until all items of the group are done.

        Returns:
            The entry of each item, in order.
        """
        entries = [Entry(call, origin, gate=self._gate) for call, origin in calls]
        self._pending += entries
        try:
            start = 0
            while start < len(entries):
                start, batch = self._gathering.fill(entries, start, self._batches)
                if batch is not None:
                    self._carry_out(batch)
            if is_last and self._open_batches():
                self._finish()
        except BaseException:
            self._leave()
            raise
        self._forget()
        return entries

    def _forget(self) -> None:
        """Forget the items if all have ended."""
        if not self._open_batches():
            self._pending, self._batches = [], []

    def _finish(self) -> None:
        """Block until all items are done; carry out the batches that fall to this thread."""
        if not self._waits:
            for batch in self._gathering.take_all(self._pending):
                self._carry_out(batch)
        self._gathering.keep_time(self._pending)
        while batches := self._open_batches():
            timeout = self._advance(batches)
            if timeout is not None:
                pass_gate(self._gate, timeout)

    def _open_batches(self) -> list[Batch]:
        return list(dict.fromkeys(batch for batch in self._batches if not batch.ended))

    def _advance(self, batches: Iterable[Batch]) -> float | None:
        """Carry out the batches that fall to this thread.

        Returns:
            The seconds to wait for more to do, -1 for any time; None if something was done.
        """
        now = self._gathering.clock()
        timeout = -1.0
        for batch in batches:
            if self._is_of_group(batch.leader) and not batch.begun:
                self._carry_out(batch)
                return None
            if not batch.taken and self._is_of_group(batch.keeper):
                if now >= batch.due:
                    if self._gathering.take(batch, batch.keeper):
                        self._carry_out(batch)
                    return None
                timeout = batch.due - now if timeout < 0 else min(timeout, batch.due - now)
        return timeout

    def _carry_out(self, batch: Batch) -> None:
        """Carry a batch out here, unless this thread has to keep the time of another."""
        if any(self._has_to_keep_time(other) for other in self._open_batches() if other is not batch):
            self._batcher.hand_over(batch, batch.leader)
        else:
            self._batcher.carry_out(batch)

    def _has_to_keep_time(self, batch: Batch) -> bool:
        return not batch.taken and not batch.timers and (batch.keeper is None or self._is_of_group(batch.keeper))

    def _is_of_group(self, entry: Entry | None) -> bool:
        return entry is not None and entry.gate is self._gate

    # --- event loops ---------------------------------------------------------------------------------------

    async def agive(self, calls: Iterable[tuple[Given, SpanContext | None]], is_last: bool) -> list[Entry]:
        """Pass items as `give` does, without blocking the event loop."""
        loop = asyncio.get_running_loop()
        entries = [Entry(call, origin, loop) for call, origin in calls]
        self._pending += entries
        try:
            start = 0
            while start < len(entries):
                start, batch = self._gathering.fill(entries, start, self._batches)
                if batch is not None:
                    await self._begin(loop, [batch])
            if is_last and not self._waits:
                await self._begin(loop, self._gathering.take_all(self._pending))
            for batch in self._open_batches():
                if not batch.taken:
                    self._batcher.time_on(loop, batch)
            if is_last:
                await _all_done(self._pending)
        except BaseException:
            self._leave()
            raise
        self._forget()
        return entries

    async def _begin(self, loop: asyncio.AbstractEventLoop, batches: Sequence[Batch]) -> None:
        entries = [entry for entry in self._pending if entry.batch in batches]
        for batch in batches:
            self._batcher.begin_on(loop, batch)
        await _all_done(entries)

    def _leave(self) -> None:
        for entry in self._pending:
            self._batcher.leave(entry)


async def _all_done(entries: Iterable[Entry]) -> None:
    for entry in entries:
        await entry.future
