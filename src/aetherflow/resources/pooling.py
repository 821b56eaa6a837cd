"""`ObjectPool`: costly objects, made once and lent in turn, to threads and async tasks alike.

Who has what is kept by `aetherflow.resources.lending`, under a lock; here objects are made, reset, validated and
closed, by user code and without that lock.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Self, TypeVar

from aetherflow.errors import ConfigurationError
from aetherflow.resources.lending import (
    DiscardReason,
    Lending,
    Member,
    PoolClosedError,
    PoolReleaseError,
    PoolStatistics,
    PoolTimeoutError,
    Where,
)
from aetherflow.resources.waiting import TaskWaiter, ThreadWaiter
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.forks import renew_in_children
from aetherflow.telemetry.metrics import gauges
from aetherflow.telemetry.metrics.accumulators import registry
from aetherflow.telemetry.observer import emit

__all__ = [
    "DiscardReason",
    "ObjectPool",
    "PoolClosedError",
    "PoolLease",
    "PoolReleaseError",
    "PoolStatistics",
    "PoolTimeoutError",
]

T = TypeVar("T")

_logger = logging.getLogger(__name__)


class ObjectPool(Generic[T]):
    """Lend objects that are costly to make; every call may come from any thread.

    ``with pool.lease() as item`` (or ``async with``) is the safe way; `acquire` and `release` are for code that is
    shaped otherwise. The factory, ``reset``, ``validate`` and the objects' ``close`` run in the caller's thread, for
    async callers on the event loop: keep them quick there.

    A forked child starts with an empty pool, and neither lends nor closes the objects of its parent; those that the
    forking thread holds can be released in the child, which changes nothing.

    As a context manager the pool closes itself, so ``providers.Resource(ObjectPool, …)`` closes it with its context
    and ``providers.Singleton(ObjectPool, …)`` keeps it for the life of the process.

    Args:
        factory_func: Makes an object; a different one each time.
        max_size: Objects kept idle at most; with ``block`` objects alive at most.
        reset: Called with an object that is released; by default its own ``reset()`` where it has one. An object
            whose reset raises is discarded.
        validate: Called with an idle object before it is lent again. One for which it is false or raises is
            discarded, and a new one is made.
        block: Whether callers wait, in the order they came, while ``max_size`` objects are in use.
        timeout: Seconds a caller waits at most; None waits for as long as it takes.
        max_age: Seconds after its making from which on an object is not lent again.
        name: In errors, statistics and metrics; by default the factory's.
        clock: Monotonic time in seconds.
        on_wait: Called with the seconds each caller waited, 0.0 where it did not; must not raise.

    Raises:
        ConfigurationError: An argument has a value that is not allowed.
    """

    def __init__(
        self,
        factory_func: Callable[[], T],
        max_size: int = 10,
        *,
        reset: Callable[[T], object] | None = None,
        validate: Callable[[T], object] | None = None,
        block: bool = False,
        timeout: float | None = None,
        max_age: float | None = None,
        name: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_wait: Callable[[float], object] | None = None,
    ) -> None:
        _check("factory_func", factory_func, callable(factory_func), "a callable without arguments")
        _check("max_size", max_size, _is_number(max_size, int) and max_size >= 1, "a whole number, 1 or more")
        if timeout is not None:
            good = _is_number(timeout, float) and 0 <= timeout <= threading.TIMEOUT_MAX
            _check("timeout", timeout, good, "seconds, 0 or more, or None")
            _check("timeout", timeout, block, "None where block=False, since nobody waits then")
        if max_age is not None:
            _check("max_age", max_age, _is_number(max_age, float) and max_age > 0, "seconds above 0, or None")
        name = name or getattr(factory_func, "__name__", None) or type(factory_func).__name__
        self.name: str = name
        self.max_size = max_size
        self._lending: Lending[T] = Lending(name, max_size, max_size if block else None, clock)
        self._factory = factory_func
        self._reset = reset or _own_reset
        self._validate = validate
        self._timeout = timeout
        self._max_age = max_age
        self._on_wait = on_wait
        self._waits = registry.series(names.POOL_WAIT, {names.POOL_NAME: name}) if block else None
        gauges.observe(names.POOL_OBJECTS, self, _objects)
        if block:
            gauges.observe(names.POOL_WAITING, self, _waiting)
        renew_in_children(self)

    def acquire(self) -> T:
        """Take an object: the one released last, or a new one.

        Returns:
            An object that is the caller's alone until `release`.

        Raises:
            PoolTimeoutError: With ``block``: none came free within ``timeout``.
            PoolClosedError: The pool is closed.
            Exception: What the factory raised.
        """
        return self._acquire(_caller()).value

    def aacquire(self) -> Coroutine[Any, Any, T]:
        """Do what `acquire` does, waiting without blocking the event loop; a cancelled caller loses no object.

        Returns:
            To be awaited: the object.

        Raises:
            PoolTimeoutError: As for `acquire`, when awaited; so are the others.
        """
        return self._aacquire_value(_caller())

    def lease(self) -> PoolLease[T]:
        """Borrow an object for the length of a ``with`` or ``async with`` block.

        Returns:
            The context manager; entering it gives the object.
        """
        return PoolLease(self, _caller())

    def release(self, obj: T) -> None:
        """Give an object back; it is reset, and discarded where that fails or enough are idle.

        Args:
            obj: What `acquire` gave.

        Raises:
            PoolReleaseError: It is not out: released before, or not from this pool. (Where someone else has it again
                by now, a second release cannot be told from theirs; leases can.)
        """
        self._return(self._lending.take_back(obj))

    def close(self) -> None:
        """Close the pool and each idle object that has a ``close()``; objects still out are closed when released.

        Callers in the queue get a `PoolClosedError`. Closing again does nothing.

        Raises:
            Exception: What an object's ``close()`` raised, after all were closed; an `ExceptionGroup` of several.
        """
        failures = []
        for member in self._lending.close():
            try:
                _call_own(member.value, "close")
            except Exception as failure:  # noqa: BLE001  # one that cannot close must not keep the others open
                failures.append(failure)
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise ExceptionGroup(f"pool {self.name!r}: objects failed to close", failures)

    def statistics(self) -> PoolStatistics:
        """Count what is and what was.

        Returns:
            A frozen snapshot.
        """
        return self._lending.statistics()

    def after_fork(self) -> None:
        """Start empty in a child process, which must not use or close the objects of its parent."""
        self._lending.renew()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _acquire(self, where: Where) -> Member[T]:
        turn: Member[T] | ThreadWaiter[Member[T]] | None = self._lending.enter(ThreadWaiter, where)
        if not isinstance(turn, ThreadWaiter):
            return self._hand_out(turn, where, 0.0)
        try:
            turn.wait(self._timeout)
        except BaseException:
            self._lending.withdraw(turn, self._discard)
            raise
        member, waited = self._lending.served(turn, where)
        return self._hand_out(member, where, waited)

    async def _aacquire(self, where: Where) -> Member[T]:
        turn: Member[T] | TaskWaiter[Member[T]] | None = self._lending.enter(TaskWaiter, where)
        if not isinstance(turn, TaskWaiter):
            return self._hand_out(turn, where, 0.0)
        try:
            await turn.wait(self._timeout)
        except BaseException:
            self._lending.withdraw(turn, self._discard)
            raise
        member, waited = self._lending.served(turn, where)
        return self._hand_out(member, where, waited)

    async def _aacquire_value(self, where: Where) -> T:
        return (await self._aacquire(where)).value

    def _hand_out(self, member: Member[T] | None, where: Where, waited: float) -> Member[T]:
        """Give the caller its member, or a new one where there is only room or the member is unfit."""
        try:
            if self._waits is not None:
                emit(self._waits, round(waited * 1e9))
            if self._on_wait is not None:
                self._on_wait(waited)
            if member is not None and (reason := self._unfit(member)):
                unfit, member = member, None
                self._discard(unfit, reason, keep_room=True)
            return self._lending.admit(self._factory(), where) if member is None else member
        except BaseException:
            if member is not None:
                self._discard(member, "failed")
            else:
                self._lending.free_room()
            raise

    def _return(self, member: Member[T]) -> None:
        if member.inherited:
            return
        try:
            reason = self._spoilt(member) or self._lending.keep(member)
        except BaseException:
            self._discard(member, "failed")
            raise
        if reason is not None:
            self._discard(member, reason)

    def _unfit(self, member: Member[T]) -> DiscardReason | None:
        """Why an idle member cannot be lent again."""
        if self._is_old(member):
            return "max_age"
        if self._validate is None or self._succeeds("validate", self._validate, member):
            return None
        return "validate"

    def _spoilt(self, member: Member[T]) -> DiscardReason | None:
        """Why a member that comes back cannot be kept; resets it otherwise."""
        if self._lending.closed:
            return "closed"
        if self._is_old(member):
            return "max_age"
        return None if self._succeeds("reset", self._reset, member, whatever=True) else "reset"

    def _is_old(self, member: Member[T]) -> bool:
        return self._max_age is not None and self._lending.clock() - member.born >= self._max_age

    def _discard(self, member: Member[T], reason: DiscardReason, *, keep_room: bool = False) -> None:
        """Close an object, and only then let its room go: no more are alive than there is room for."""
        if member.inherited:  # this process was forked meanwhile
            return
        try:
            self._succeeds("close", _own_close, member, whatever=True)
        finally:
            self._lending.drop(member, reason, keep_room=keep_room)

    def _succeeds(self, step: str, action: Callable[[T], object], member: Member[T], *, whatever: bool = False) -> bool:
        """Whether user code raises nothing and gives something true, or ``whatever``; what it raises is logged."""
        try:
            outcome = action(member.value)
            return whatever or bool(outcome)
        except Exception:
            _logger.warning("pool %r: %s of an object failed; it is discarded", self.name, step, exc_info=True)
            return False


def _waiting(pool: ObjectPool[Any]) -> list[gauges.Reading]:
    return [(pool.statistics().waiting, {names.POOL_NAME: pool.name})]


def _objects(pool: ObjectPool[Any]) -> list[gauges.Reading]:
    found = pool.statistics()
    states = {"idle": found.idle, "used": found.used}
    return [(count, {names.POOL_NAME: pool.name, names.POOL_STATE: state}) for state, count in states.items()]


class PoolLease(Generic[T]):
    """An object borrowed for the length of a ``with`` or ``async with`` block; may be used again after it.

    A lease that is garbage collected while it is open warns with a `ResourceWarning` that says where it was made. Its
    object leaves the pool, since someone may still use it, and its room comes free.
    """

    __slots__ = ("__weakref__", "_member", "_pool", "_turn", "_where")

    def __init__(self, pool: ObjectPool[T], where: Where) -> None:
        self._pool = pool
        self._where = where
        self._member: Member[T] | None = None
        self._turn = 0

    def __enter__(self) -> T:
        self._check_unused()
        return self._hold(self._pool._acquire(self._where))

    def __exit__(self, *exc_info: object) -> None:
        member, self._member = self._member, None
        if member is not None:
            self._pool._lending.end_turn(member, self._turn)
            self._pool._return(member)

    async def __aenter__(self) -> T:
        self._check_unused()
        return self._hold(await self._pool._aacquire(self._where))

    async def __aexit__(self, *exc_info: object) -> None:
        self.__exit__(*exc_info)

    def __del__(self) -> None:
        member = self._member
        if member is not None:
            self._pool._lending.lose(member, self._turn)
            message = f"a lease of pool {self._pool.name!r}, made at {self._where[0]}:{self._where[1]}, was never ended"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)

    def _check_unused(self) -> None:
        if self._member is not None:
            raise ConfigurationError(f"a lease of pool {self._pool.name!r} is entered already; allowed: one at a time")

    def _hold(self, member: Member[T]) -> T:
        self._member, self._turn = member, member.turn
        return member.value


def _check(name: str, value: object, good: bool, allowed: str) -> None:
    if not good:
        raise ConfigurationError(f"ObjectPool {name}={value!r} is not allowed; allowed: {allowed}")


def _is_number(value: object, kind: type[int | float]) -> bool:
    return isinstance(value, int | kind) and not isinstance(value, bool)


def _call_own(value: object, method: str) -> None:
    """Call a method of an object where it has one of this name."""
    found = getattr(value, method, None)
    if callable(found):
        found()


def _own_reset(value: object) -> None:
    _call_own(value, "reset")


def _own_close(value: object) -> None:
    _call_own(value, "close")


def _caller() -> Where:
    """File and line that called into the pool."""
    frame = sys._getframe(2)
    return frame.f_code.co_filename, frame.f_lineno
