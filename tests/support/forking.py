"""Forks of the test process itself."""

from __future__ import annotations

import os
import warnings

__all__ = ["fork"]


def fork() -> int:
    """Fork as :func:`os.fork` does, without the warning about other threads that Python 3.12 and later give.

    Every test process has other threads: pytest-xdist's, and those of the code under test. The child has to call only
    the code under test and to leave with :func:`os._exit`.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        return os.fork()
