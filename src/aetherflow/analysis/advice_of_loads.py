"""Advice from loads: what gets slower when more threads use it."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from aetherflow.analysis.advice_point import Advice
from aetherflow.analysis.histograms import Histogram
from aetherflow.analysis.metrics import Job
from aetherflow.analysis.node_samples import NodeKey, durations_of
from aetherflow.analysis.run_evidence import RunEvidence
from aetherflow.telemetry import conventions as names

__all__ = ["advise_on_contention"]

_GROWN: Final = 1.5
"""Times that a node's median is, under the largest load, what it is under the smallest, beyond that of the others."""
_SHARED: Final = ("singleton", "mixed")


def advise_on_contention(jobs: Sequence[Job], runs: RunEvidence) -> Iterator[Advice]:
    """Find nodes that are injected with a shared object and get slower with threads, while others do not."""
    levels = _by_level(jobs)
    if len(levels) <= 1:
        return
    least, most = min(levels), max(levels)
    grown = {}
    for key in levels[least].keys() & levels[most].keys():
        before, after = levels[least][key].quantile(0.5), levels[most][key].quantile(0.5)
        if key.metric == names.NODE_DURATION.name and before and after:
            grown[key] = (after / before, before, after)
    apart = [growth for key, (growth, *_) in grown.items() if runs.scope_of(key.flow, key.node) not in _SHARED]
    usual = statistics.median(apart) if apart else 1.0
    for key, (growth, before, after) in sorted(grown.items()):
        shared = runs.scope_of(key.flow, key.node)
        if shared not in _SHARED or growth < _GROWN * max(1.0, usual):
            continue
        evidence = runs.flows[key.flow].nodes[key.node]
        providers = sorted(name for name, scope in evidence.providers.items() if scope == "singleton")
        named = ", ".join(providers) or "what it is injected with"
        yield Advice(
            "singleton-contention",
            str(key),
            f"from {least} to {most} threads its median went from {before * 1e3:,.2f} to {after * 1e3:,.2f} ms, "
            f"{growth:.1f} times; nodes without a shared object went {usual:.1f} times; all threads share {named}",
            {"threads_few": float(least), "threads_many": float(most), "median_few": before, "median_many": after},
            "; ".join(f"{name} = providers.ThreadLocalSingleton(…)" for name in providers)
            or "a ThreadLocalSingleton in place of the Singleton",
            "'aetherflow load' again, then 'aetherflow capacity': the contention falls, and the node's median stays",
        )


def _by_level(jobs: Sequence[Job]) -> dict[int, dict[NodeKey, Histogram]]:
    """Put the durations of loads together, by their number of threads."""
    levels: defaultdict[int, dict[NodeKey, Histogram]] = defaultdict(dict)
    for job in jobs:
        said = str(dict(job.resource).get(names.LOAD_CONCURRENCY, ""))
        if said.isdigit():
            level = levels[int(said)]
            for key, histogram in durations_of(job).items():
                level[key] = level[key].merged(histogram) if key in level else histogram
    return dict(levels)
