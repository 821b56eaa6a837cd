"""What an executor is, and the one of each kind that this process has."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Final, Protocol

__all__ = ["Backend", "backend"]


class Backend(Protocol):
    """Workers in other processes."""

    def submit(self, payload: bytes) -> Future[bytes]:
        """Have a worker call :func:`aetherflow.engine.backends.worker.execute`.

        Args:
            payload: What to call it with.

        Returns:
            The future of what it returns. An error means that the worker was lost, since ``execute`` raises none.
        """
        ...

    def cancel(self, future: Future[bytes]) -> bool:
        """Begin an execution no more, where it has not begun.

        Returns:
            Whether it is known never to begin.
        """
        ...


def _processes() -> Backend:
    from aetherflow.engine.backends.processes import ProcessBackend

    return ProcessBackend()


_FACTORIES: Final[Mapping[str, Callable[[], Backend]]] = {"process": _processes}
"""By the name of the executor: what makes it."""

_made: dict[str, Backend] = {}
_inherited: list[object] = []
_lock = threading.RLock()


def _forget() -> None:
    """Have a forked child make its own; the parent's stay referenced, since their ends would wait for its threads."""
    global _lock  # noqa: PLW0603  # whoever held it is not in the child
    _lock = threading.RLock()
    _inherited.append(dict(_made))
    _made.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def backend(executor: str) -> Backend:
    """Return the process's workers of a kind, made on first use.

    Args:
        executor: ``"process"``.
    """
    with _lock:
        found = _made.get(executor)
        if found is None:
            found = _made[executor] = _FACTORIES[executor]()
        return found
