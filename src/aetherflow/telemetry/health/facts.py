"""What health knows of executors, pools and exported spans: what the metrics say of them at this moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.conventions import MetricDefinition
from aetherflow.telemetry.metrics import gauges
from aetherflow.telemetry.metrics.accumulators import Registry, registry

__all__ = ["Facts", "Metered", "Queue"]


@dataclass(frozen=True, slots=True)
class Queue:
    """Somewhere that callers wait to be served, at one moment: an executor, or a pool of objects."""

    kind: str
    """``executor`` or ``pool``."""
    name: str
    waiting: int
    """Tasks not begun, or callers without an object."""
    served: int
    """Tasks begun, or objects lent, since the process began."""


class Facts(Protocol):
    """What others know at this moment; asked once an evaluation."""

    def queues(self) -> Iterator[Queue]:
        """Yield every executor and pool."""
        ...

    def spans(self) -> Mapping[str, int]:
        """Return how many spans were ever exported, dropped and failed, by that word."""
        ...


_QUEUES: Final[tuple[tuple[str, str, MetricDefinition, MetricDefinition], ...]] = (
    ("executor", names.EXECUTOR_NAME, names.EXECUTOR_QUEUE, names.EXECUTOR_WAIT),
    ("pool", names.POOL_NAME, names.POOL_WAITING, names.POOL_WAIT),
)
"""For each kind its name's attribute, how many wait, and the histogram of waits, whose count is of those served."""


class Metered:
    """What the gauges of this process and the waits in its store say.

    Args:
        store: Where the waits are.
    """

    def __init__(self, store: Registry = registry) -> None:
        self._store = store

    def queues(self) -> Iterator[Queue]:
        """Yield every executor and pool whose waits are recorded: of another nobody can tell whether it moves."""
        for kind, attribute, waiting, waits in _QUEUES:
            served = Counter[str]()
            for series in self._store.all():
                if series.definition is waits:
                    served[series.attributes[attribute]] += series.totals().count
            queued = Counter[str]()
            for value, attributes in gauges.readings(waiting):
                queued[attributes[attribute]] += int(value)
            for name, count in served.items():
                yield Queue(kind, name, queued[name], count)

    def spans(self) -> Mapping[str, int]:
        """Return how many spans were ever exported, dropped and failed."""
        counts = Counter[str]()
        for value, attributes in gauges.readings(names.TELEMETRY_SPANS):
            counts[attributes[names.TELEMETRY_OUTCOME]] += int(value)
        return counts
