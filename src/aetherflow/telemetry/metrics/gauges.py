"""What is asked for when metrics are collected: pools, queues and caches tell then how they are.

Whoever has something to tell says so once, with :func:`observe`. It is held weakly, and asked by whatever
meter provider is in use, also by one that comes later.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from aetherflow.telemetry import shield
from aetherflow.telemetry.conventions import MetricDefinition

__all__ = ["Reading", "observe", "readings"]

Reading = tuple[float, Mapping[str, str]]
"""A value and the attributes of its data point."""

Owner = TypeVar("Owner")

_asked: Final[dict[str, dict[object, tuple[weakref.ref[Any], Callable[[Any], Iterable[Reading]]]]]] = {}
"""By metric. Owners come and go, and are asked, on any thread: each step here is one that no other can break into."""


def observe(definition: MetricDefinition, owner: Owner, ask: Callable[[Owner], Iterable[Reading]]) -> None:
    """Have an owner asked for values of a metric whenever it is collected, as long as the owner lives.

    Readings with the same attributes, of several owners, are added up: two pools of one name are one pool in the
    metrics.

    Args:
        definition: An observable metric.
        owner: Who is asked; held weakly, so ``ask`` must not hold it.
        ask: Gives the readings of an owner. Called on the thread that collects: it must be quick, and neither run
            a flow nor collect itself.
    """
    entries, key = _asked.setdefault(definition.name, {}), object()
    entries[key] = weakref.ref(owner, lambda _: entries.pop(key, None)), ask


def readings(definition: MetricDefinition) -> list[Reading]:
    """Ask every owner; one that fails is left out.

    Args:
        definition: An observable metric.

    Returns:
        One reading for each set of attributes.
    """
    entries = list(_asked.get(definition.name, {}).values())
    found: dict[frozenset[tuple[str, str]], float] = {}
    for reference, ask in entries:
        owner = reference()
        if owner is None:
            continue
        try:
            for value, attributes in ask(owner):
                key = frozenset(attributes.items())
                found[key] = found.get(key, 0) + value
        except Exception as failure:  # noqa: BLE001  # rule 3: telemetry never breaks the host
            shield.caught(failure, f"reading {definition.name}")
    return [(value, dict(key)) for key, value in found.items()]
