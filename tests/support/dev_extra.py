"""Packages that only `pytest --all` needs."""

from __future__ import annotations

from typing import Final

__all__ = ["NEEDS_DEV"]

NEEDS_DEV: Final = "install the extra 'dev' for it"
"""The reason of a test that is skipped without a package of the extra ``dev``; `pytest --all` insists on them all."""
