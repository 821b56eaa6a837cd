"""What every thread of the process is at: the one place that asks the interpreter."""

from __future__ import annotations

import gc
import os
import sys
import threading
from types import FrameType
from typing import Final

__all__ = ["current_frames"]

_COLLECTS_INSIDE: Final = sys.version_info < (3, 12)
"""Whether a garbage collection may begin inside ``sys._current_frames()``; later ones begin between instructions."""
_lock = threading.RLock()


def _renew_lock() -> None:
    global _lock  # noqa: PLW0603  # a forked child must not wait for a thread that it does not have
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def current_frames() -> dict[int, FrameType]:
    """Return the topmost frame of each thread, by the thread's identifier.

    CPython holds the lock of its list of threads meanwhile. Before 3.12 a garbage collection may begin there, and what
    it runs may need the same lock, or wait for a thread that does: the whole process then stops for good
    (CPython gh-106883, mended in 3.11.9). So collections are held off for that moment.
    """
    if not _COLLECTS_INSIDE:
        return sys._current_frames()
    with _lock:
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            return sys._current_frames()
        finally:
            if was_enabled:
                gc.enable()
