"""How large a profile event is, as back ends count it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from aetherflow.telemetry import conventions as names

__all__ = ["MAX_EVENT", "size_of", "value_size"]

MAX_EVENT: Final = 8_000
"""Bytes that an event may have; from the telemetry contract."""


def size_of(attributes: Mapping[str, Any]) -> int:
    """Return the bytes of an event: text encoded, 8 for a number."""
    return len(names.PROFILE_EVENT) + sum(len(key) + value_size(value) for key, value in attributes.items())


def value_size(value: Any) -> int:
    """Return the bytes of an attribute's value: text encoded, 8 for a number."""
    if isinstance(value, str):
        return len(value.encode())
    return sum(map(value_size, value)) if isinstance(value, Sequence) else 8
