"""Exporters that every process has for itself, over forks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

    @contextmanager
    def use(self) -> Iterator[E]:
        """Give the exporter of this process, to one thread at a time."""
        with self._lock:
            if self._made is None:
                self._made = self._make()
            yield self._made

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
