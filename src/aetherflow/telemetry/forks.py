"""What a forked child must not share with its parent is made anew in it: threads, locks, connections, sums."""

from __future__ import annotations

import os
from typing import Final, Protocol
from weakref import WeakSet

from aetherflow.telemetry import shield

__all__ = ["Renewable", "renew_in_children"]


class Renewable(Protocol):
    """Something that holds what belongs to one process."""

    def after_fork(self) -> None:
        """Make it anew; called in the child, where no other thread runs yet."""
        ...


_renewables: Final[WeakSet[Renewable]] = WeakSet()


def renew_in_children(renewable: Renewable) -> None:
    """Have something made anew in every child that this process forks, for as long as it is referenced."""
    _renewables.add(renewable)


def _renew() -> None:
    for each in tuple(_renewables):
        try:
            each.after_fork()
        except Exception as failure:  # noqa: BLE001  # rule 3: telemetry never breaks the host
            shield.caught(failure, "making telemetry anew after a fork")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
