"""The books of a pool: which object is idle, which is lent, who waits. Bookkeeping under one lock, no user code.

A pool has room for so many objects. Room that comes free goes straight to the first caller in the queue, with the
object that had it or to make a new one, so nobody overtakes and nothing is lost between two holders.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from aetherflow.errors import AetherFlowError, ConfigurationError
from aetherflow.resources.waiting import DeferringLock, Waiter

__all__ = [
    "DiscardReason",
    "Lending",
    "Member",
    "PoolClosedError",
    "PoolReleaseError",
    "PoolStatistics",
    "PoolTimeoutError",
    "Where",
]

T = TypeVar("T")
W = TypeVar("W", bound=Waiter[Any])
Where: TypeAlias = tuple[str, int]
"""File and line."""

DiscardReason = Literal["full", "reset", "validate", "max_age", "closed", "lost", "failed"]
"""Why an object left the pool: enough are idle, its reset or validate failed, it is too old, the pool is closed, its
lease was garbage collected, or its caller was interrupted on the way."""


class PoolTimeoutError(AetherFlowError, TimeoutError):
    """No object came free in time.

    Args:
        pool: The pool's name.
        waited: Seconds the caller waited.
        out: Objects in use.
        longest: Seconds the one longest in use has been so.
        where: Where that one was acquired.
    """

    def __init__(self, pool: str, waited: float, out: int, longest: float, where: Where) -> None:
        self.pool = pool
        self.waited = waited
        self.out = out
        self.longest = longest
        self.where = where
        holder = f", the longest for {longest:.3g} s, acquired at {where[0]}:{where[1]}" if out else ""
        super().__init__(f"pool {pool!r}: nothing came free in {waited:.3g} s; {out} out{holder}")


class PoolReleaseError(AetherFlowError, ValueError):
    """An object was released that is not out: it was released before, or never came from this pool."""

    def __init__(self, pool: str, released: object, reason: str) -> None:
        self.pool = pool
        self.released = released
        super().__init__(f"pool {pool!r}: {object.__repr__(released)} {reason}; allowed: each acquired object, once")


class PoolClosedError(AetherFlowError, RuntimeError):
    """An object was asked of a pool that is closed."""

    def __init__(self, pool: str) -> None:
        self.pool = pool
        super().__init__(f"pool {pool!r} is closed")


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """A pool at one moment; counts are since it was made.

    At rest ``created`` is ``idle`` plus ``used`` plus all of ``discarded``.
    """

    name: str
    idle: int
    """Objects ready to be lent."""
    used: int
    """Objects lent."""
    waiting: int
    """Callers in the queue."""
    created: int
    """Objects made."""
    acquired: int
    """Objects lent, over again each time."""
    discarded: Mapping[DiscardReason, int]
    """Objects that left the pool, by reason; without the reasons that never came up."""
    waits: int
    """Callers that had to queue and were served."""
    wait_time: float
    """Seconds they queued, summed."""
    timeouts: int
    """Callers that gave up."""


@dataclass(slots=True, eq=False)
class Member(Generic[T]):
    """An object of the pool and its present holder; ``turn`` tells one holder from the next.

    An inherited object was lent or idle when this process was forked: it belongs to the parent.
    """

    value: T
    born: float
    out: bool = False
    turn: int = 0
    since: float = 0.0
    where: Where = ("", 0)
    inherited: bool = False


class Lending(Generic[T]):
    """Who has what.

    Args:
        name: The pool's, for errors.
        max_size: Objects kept idle at most.
        capacity: Objects alive at most, those being made among them; None for any number.
        clock: Monotonic time in seconds.
    """

    def __init__(self, name: str, max_size: int, capacity: int | None, clock: Callable[[], float]) -> None:
        self.name = name
        self.closed = False
        self.clock = clock
        self._max_size = max_size
        self._capacity = capacity
        self._inherited: dict[int, Member[T]] = {}
        self._reset()

    def _reset(self) -> None:
        self._lock = DeferringLock()
        self._rooms = 0  # taken: by members, and by those being made
        self._members: dict[int, Member[T]] = {}  # by id: objects need not be hashable
        self._idle: list[Member[T]] = []
        self._queue: deque[Waiter[Member[T]]] = deque()
        self._created = self._acquired = self._waits = self._timeouts = 0
        self._discarded: Counter[DiscardReason] = Counter()
        self._wait_time = 0.0

    def renew(self) -> None:
        """Start empty in a forked child: the objects, and the callers that wait for them, are the parent's.

        They are referenced as long as the pool is, since a finalizer may close what the parent uses. Objects that are
        out can be released, and are then not touched.
        """
        self._inherited.update(self._members)
        for member in self._inherited.values():
            member.inherited = True
        self._reset()

    def enter(self, waiter_type: Callable[[float], W], where: Where) -> Member[T] | W | None:
        """Get the member given back last, room to make one (None), or a place in the queue.

        Args:
            waiter_type: Makes the waiter from the time it comes.
            where: Who asks.

        Raises:
            PoolClosedError: The pool is closed.
        """
        with self._lock:
            if self.closed:
                raise PoolClosedError(self.name)
            if self._idle:
                return self._lend(self._idle.pop(), where)
            if self._capacity is not None and self._rooms >= self._capacity:
                waiter = waiter_type(self.clock())
                self._queue.append(waiter)
                return waiter
            self._rooms += 1
            return None

    def served(self, waiter: Waiter[Member[T]], where: Where) -> tuple[Member[T] | None, float]:
        """Get what a waiter was given, and the seconds it waited.

        Raises:
            PoolTimeoutError: Nothing came, and it stops waiting.
            PoolClosedError: The pool was closed meanwhile.
        """
        with self._lock:
            now = self.clock()
            waited = now - waiter.since
            if waiter.served:
                self._waits += 1
                self._wait_time += waited
                return None if waiter.grant is None else self._lend(waiter.grant, where), waited
            if self.closed:
                raise PoolClosedError(self.name)
            self._queue.remove(waiter)
            self._timeouts += 1
            out = [member for member in self._members.values() if member.out]
            oldest = min(out, key=lambda member: member.since, default=Member(None, now, since=now))
        raise PoolTimeoutError(self.name, waited, len(out), now - oldest.since, oldest.where)

    def withdraw(self, waiter: Waiter[Member[T]], discard: Callable[[Member[T], DiscardReason], object]) -> None:
        """Take a waiter back that was interrupted, and what it was given; safe in a finalizer.

        Args:
            waiter: From `enter`.
            discard: Called where the pool has no use for what it was given.
        """
        self._lock.later(partial(self._withdraw, waiter, discard))

    def _withdraw(
        self, waiter: Waiter[Member[T]], discard: Callable[[Member[T], DiscardReason], object]
    ) -> Callable[[], object] | None:
        if not waiter.served:
            if waiter in self._queue:
                self._queue.remove(waiter)
        elif waiter.grant is None:
            self._free_room()
        elif reason := self._keep(waiter.grant):
            return partial(discard, waiter.grant, reason)
        return None

    def admit(self, value: T, where: Where) -> Member[T]:
        """Enter an object made for room that the caller has, and lend it.

        Raises:
            ConfigurationError: The pool has this very object already.
        """
        with self._lock:
            if id(value) in self._members:
                raise ConfigurationError(
                    f"factory_func of pool {self.name!r} returned {object.__repr__(value)}, which the pool has; "
                    "allowed: a different object each time"
                )
            self._created += 1
            self._rooms = max(self._rooms, len(self._members) + 1)  # a fork in the factory has lost this one
            member = self._members[id(value)] = Member(value, self.clock())
            return self._lend(member, where)

    def _lend(self, member: Member[T], where: Where) -> Member[T]:
        member.out = True
        member.turn += 1
        member.since = self.clock()
        member.where = where
        self._acquired += 1
        return member

    def take_back(self, value: T) -> Member[T]:
        """Get the member of an object that its holder gives back.

        Raises:
            PoolReleaseError: It is not out.
        """
        with self._lock:
            member = self._members.get(id(value)) or self._inherited.get(id(value))
            if member is None:
                raise PoolReleaseError(self.name, value, "is not of this pool, or no longer")
            if not member.out:
                raise PoolReleaseError(self.name, value, "was released already")
            member.out = False
            return member

    def end_turn(self, member: Member[T], turn: int) -> None:
        """Take back a member from the holder that had it for ``turn``.

        Raises:
            PoolReleaseError: That holder has it no more.
        """
        with self._lock:
            if not (member.out and member.turn == turn):
                raise PoolReleaseError(self.name, member.value, "was released before its lease ended")
            member.out = False

    def keep(self, member: Member[T]) -> DiscardReason | None:
        """Pass a member on to the first in the queue, or keep it idle, or say why neither."""
        with self._lock:
            return self._keep(member)

    def _keep(self, member: Member[T]) -> DiscardReason | None:
        if self.closed:
            return "closed"
        if self._serve(member):
            return None
        if len(self._idle) >= self._max_size:
            return "full"
        self._idle.append(member)
        return None

    def _serve(self, member: Member[T] | None) -> bool:
        while self._queue:
            if self._queue.popleft().serve(member):
                return True
        return False

    def free_room(self) -> None:
        """Let room go that no member has."""
        with self._lock:
            self._free_room()

    def _free_room(self) -> None:
        if not self._serve(None):
            self._rooms = max(0, self._rooms - 1)

    def drop(self, member: Member[T], reason: DiscardReason, *, keep_room: bool) -> None:
        """Strike a member out; its room goes to the first in the queue, unless the caller keeps it."""
        with self._lock:
            if member.out:
                # It was lent but never reached its holder.
                self._acquired -= 1
            self._drop(member, reason)
            if not keep_room:
                self._free_room()

    def _drop(self, member: Member[T], reason: DiscardReason) -> None:
        member.out = False
        del self._members[id(member.value)]
        self._discarded[reason] += 1

    def lose(self, member: Member[T], turn: int) -> None:
        """Forget a member whose holder of ``turn`` is gone without giving it back; safe in a finalizer."""
        self._lock.later(partial(self._lose, member, turn))

    def _lose(self, member: Member[T], turn: int) -> None:
        if member.out and member.turn == turn and not member.inherited:
            self._drop(member, "lost")
            self._free_room()

    def close(self) -> list[Member[T]]:
        """Close: nobody is served any more, and those in the queue go on.

        Returns:
            The idle members, struck out.
        """
        with self._lock:
            self.closed = True
            idle, self._idle = self._idle, []
            for member in idle:
                self._drop(member, "closed")
                self._rooms -= 1
            queue, self._queue = self._queue, deque()
            for waiter in queue:
                waiter.wake()
        return idle

    def statistics(self) -> PoolStatistics:
        """Count what is and what was."""
        with self._lock:
            return PoolStatistics(
                name=self.name,
                idle=len(self._idle),
                used=sum(member.out for member in self._members.values()),
                waiting=len(self._queue),
                created=self._created,
                acquired=self._acquired,
                discarded=MappingProxyType(dict(self._discarded)),
                waits=self._waits,
                wait_time=self._wait_time,
                timeouts=self._timeouts,
            )
