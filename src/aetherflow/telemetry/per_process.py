"""Exporters that every process has for itself, over forks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Generic, Protocol, TypeVar

from aetherflow.telemetry.forks import renew_in_children

__all__ = ["PerProcess"]


class _Exporter(Protocol):
    def shutdown(self, *args: Any, **kwargs: Any) -> Any: ...


E = TypeVar("E", bound=_Exporter)


class PerProcess(Generic[E]):
    """An exporter of which every process has its own: a forked child makes one when it first exports.

    Args:
        make: Makes it.
        at_once: Whether this process makes its own now, which tells what is wrong with it, or when it first exports.
    """

    def __init__(self, make: Callable[[], E], *, at_once: bool = True) -> None:
        self._make = make
        self._made: E | None = make() if at_once else None
        self._inherited: list[E] = []
        self._lock = threading.Lock()
        renew_in_children(self)

    def use(self) -> AbstractContextManager[E]:
        """Return the exporter of this process as a context manager, for one thread at a time."""
        return _Turn(self)

    def shutdown(self, *args: Any, **kwargs: Any) -> None:
        """Shut the exporter down, under an export if need be."""
        if self._made is not None:
            self._made.shutdown(*args, **kwargs)

    def after_fork(self) -> None:
        """Leave the parent's exporter alone: closing it would say good-bye on a connection that is the parent's."""
        self._lock = threading.Lock()
        if self._made is not None:
            self._inherited.append(self._made)
            self._made = None


class _Turn(AbstractContextManager[E]):
    """One thread's turn with an exporter; a class, since a generator cannot pass on every exception."""

    def __init__(self, owner: PerProcess[E]) -> None:
        self._owner = owner
        self._lock = owner._lock  # the current lock: a forked child has another

    def __enter__(self) -> E:
        self._lock.acquire()
        owner = self._owner
        try:
            if owner._made is None:
                owner._made = owner._make()
            return owner._made
        except BaseException:
            self._lock.release()
            raise

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()
