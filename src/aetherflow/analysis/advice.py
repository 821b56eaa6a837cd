"""What would make a program faster or smaller, each point from evidence in its telemetry.

A point names what was seen with its figures, the change in code, and how to see whether it helped. Where the telemetry
does not show something, nothing is said about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from aetherflow.analysis.advice_of_loads import advise_on_contention
from aetherflow.analysis.advice_of_metrics import (
    advise_on_batches,
    advise_on_caches,
    advise_on_executors,
    advise_on_pools,
)
from aetherflow.analysis.advice_of_traces import (
    advise_on_coarse_nodes,
    advise_on_critical_nodes,
    advise_on_fan_outs,
    advise_on_fine_nodes,
    advise_on_thread_locals,
)
from aetherflow.analysis.advice_point import Advice
from aetherflow.analysis.metrics import Job
from aetherflow.analysis.run_evidence import RunEvidence

__all__ = ["Advice", "advise"]

_OF_METRICS: Final[tuple[Callable[[Sequence[Job]], Iterable[Advice]], ...]] = (
    advise_on_caches,
    advise_on_pools,
    advise_on_batches,
    advise_on_executors,
)
_OF_TRACES: Final[tuple[Callable[[RunEvidence], Iterable[Advice]], ...]] = (
    advise_on_fine_nodes,
    advise_on_coarse_nodes,
    advise_on_fan_outs,
    advise_on_critical_nodes,
)


def advise(jobs: Sequence[Job], runs: RunEvidence, sizes: Mapping[str, int] | None = None) -> list[Advice]:
    """Find what would help.

    Args:
        jobs: The metrics, of ordinary runs and of loads.
        runs: What the traces of runs show.
        sizes: Bytes that an object of a provider takes, by the provider's name, where that is known.

    Returns:
        The points, those of metrics first.
    """
    found = [point for rule in _OF_METRICS for point in rule(jobs)]
    found += advise_on_contention(jobs, runs)
    found += [point for rule in _OF_TRACES for point in rule(runs)]
    found += advise_on_thread_locals(runs, sizes or {})
    return found
