"""One point of advice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Advice", "Rule"]

Rule: TypeAlias = Literal[
    "cache-misses",
    "cache-oversized",
    "pool-waits",
    "pool-idle",
    "batch-timeouts",
    "executor-waits",
    "singleton-contention",
    "thread-local-memory",
    "node-too-fine",
    "node-too-coarse",
    "fan-out-imbalance",
    "critical-node",
]


@dataclass(frozen=True, slots=True)
class Advice:
    """One point.

    Attributes:
        rule: What kind it is.
        subject: What it is about: a node as ``flow/node``, a flow, a cache, a pool.
        seen: What was seen, in a sentence with its figures.
        figures: The figures, in seconds, bytes, numbers or shares.
        change: What to change, with code.
        check: How to see whether it helped.
    """

    rule: Rule
    subject: str
    seen: str
    figures: Mapping[str, float]
    change: str
    check: str
