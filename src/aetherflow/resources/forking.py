"""Locks and waiting callers are made anew in a forked child, which has neither the threads nor what they held."""

from __future__ import annotations

import os
from typing import Final, Protocol
from weakref import WeakSet

__all__ = ["renew_after_fork"]


class Renewed(Protocol):
    """What has something to make anew in a forked child."""

    def after_fork(self) -> None:
        """Go on in a child process, where no other thread is left."""
        ...


_alive: Final[WeakSet[Renewed]] = WeakSet()


def renew_after_fork(what: Renewed) -> None:
    """Have ``what.after_fork()`` called in each forked child, as long as it is alive."""
    _alive.add(what)


def _after_fork() -> None:
    for what in list(_alive):
        what.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
