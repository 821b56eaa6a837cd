"""Advice from metrics alone: caches, pools, batches and executors."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from aetherflow.analysis.advice_point import Advice
from aetherflow.analysis.histograms import Histogram, merge_histograms
from aetherflow.analysis.metrics import Job
from aetherflow.analysis.node_samples import durations_of
from aetherflow.telemetry import conventions as names

__all__ = ["advise_on_batches", "advise_on_caches", "advise_on_executors", "advise_on_pools"]

_FEWEST: Final = 100
"""Requests, waits or batches below which nothing is said."""
_LOW_HITS: Final = 0.5
_MUCH_WAIT: Final = 0.010
"""Seconds that one in twenty waits for an object of a pool."""
_IDLE: Final = 0.5
_FEWEST_LOOKS: Final = 10
"""Points of a pool's level below which nothing is said of what lies idle: a program's only one is of its exit."""
_MANY_OBJECTS: Final = 4
"""Objects in a pool from which idle ones are worth a word: a few cost little."""
_TIMED_OUT: Final = 0.5
_NOTICED: Final = 0.001
_NEARLY_FULL: Final = 0.9
_SHARE_OF_NODE: Final = 0.2


def advise_on_caches(jobs: Sequence[Job]) -> Iterator[Advice]:
    """Find caches that mostly miss, and those that have never been full."""
    requests: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for job in jobs:
        for series, value in job.sums.items():
            if series.metric == names.CACHE_REQUESTS.name:
                requests[series.get(names.CACHE_NAME) or ""][series.get(names.CACHE_RESULT) or ""] += round(value)
    for cache, results in sorted(requests.items()):
        total, missed = results.total(), results["miss"]
        if total < _FEWEST:
            continue
        hits = 1 - missed / total
        figures = {"requests": float(total), "hit_ratio": hits}
        if hits < _LOW_HITS:
            yield Advice(
                "cache-misses",
                cache,
                f"of {total:,} requests {hits:.0%} were hits",
                figures,
                "a coarser key=, a longer ttl, or a larger maxsize where entries go early, so that requests meet; "
                "where nothing is asked for twice, take the cache away",
                f"the share of {names.CACHE_RESULT}=hit of {names.CACHE_REQUESTS.name} rises, or the cache is gone",
            )
        entries = max(_largest(jobs, names.CACHE_ENTRIES.name, names.CACHE_NAME, cache).values(), default=0.0)
        if entries and len(jobs) == 1 and entries >= missed:
            yield Advice(
                "cache-oversized",
                cache,
                f"nothing ever had to go: {entries:,.0f} entries are all that was computed",
                figures | {"entries": entries},
                f"maxsize={entries:.0f} would have held everything; give memory back where the limit is far above it",
                "the share of hits stays, and the process is smaller",
            )


def advise_on_pools(jobs: Sequence[Job]) -> Iterator[Advice]:
    """Find pools that callers wait for, and those that mostly lie idle."""
    waits = _merged(jobs, names.POOL_WAIT.name, names.POOL_NAME)
    pools = {
        series.get(names.POOL_NAME) or ""
        for job in jobs
        for series in job.levels
        if series.metric == names.POOL_OBJECTS.name
    }
    for pool in sorted(pools | waits.keys()):
        objects = _largest(jobs, names.POOL_OBJECTS.name, names.POOL_NAME, pool, names.POOL_STATE)
        wait = waits.get(pool)
        if wait and wait.count >= _FEWEST and (p95 := wait.quantile(0.95) or 0.0) > _MUCH_WAIT:
            yield Advice(
                "pool-waits",
                pool,
                f"one caller in twenty waits {p95 * 1e3:,.1f} ms or more for an object, of {wait.count:,}",
                {
                    "waits": float(wait.count),
                    "wait_p95": p95,
                    **{f"most_{key}": value for key, value in objects.items()},
                },
                f"providers.Singleton(ObjectPool, make, max_size={max(2, round(2 * sum(objects.values())))}), "
                "or hold each object for less time: lease() it only around the call that needs it",
                f"the 95th percentile of {names.POOL_WAIT.name} falls below {_MUCH_WAIT * 1e3:.0f} ms",
            )
            continue
        used, most = objects.get("used", 0.0), max(objects.get("idle", 0.0), objects.get("used", 0.0))
        looks = _looks(jobs, pool)
        known = wait is not None and wait.count >= _FEWEST and looks >= _FEWEST_LOOKS
        if wait and known and most >= _MANY_OBJECTS and used <= _IDLE * most:
            yield Advice(
                "pool-idle",
                pool,
                f"at {looks:,} looks, at most {used:.0f} of {most:.0f} objects were in use",
                {"objects": most, "most_used": used, "looks": float(looks), "waits": float(wait.count)},
                f"max_size={max(1, round(used))}, or a little more for what was between the looks: each further object "
                "costs its memory or connection for nothing",
                f"{names.POOL_WAIT.name} does not rise",
            )


def advise_on_batches(jobs: Sequence[Job]) -> Iterator[Advice]:
    """Find batches that mostly begin because the time is up, not because they are full."""
    sizes = _merged(jobs, names.BATCH_SIZE_METRIC.name, names.NODE_NAME)
    for node, waits in sorted(_merged(jobs, names.BATCH_WAIT_METRIC.name, names.NODE_NAME).items()):
        size, wait = sizes.get(node), waits.quantile(0.5) or 0.0
        if size is None or size.count < _FEWEST or not size.mean or not size.maximum or wait < _NOTICED:
            continue
        # A full batch has the largest size there is; items that wait for batches of one wait in vain.
        alone = size.maximum <= 1
        timed_out = 1.0 if alone else 1 - size.count_above(_NEARLY_FULL * size.maximum) / size.count
        if timed_out >= _TIMED_OUT:
            yield Advice(
                "batch-timeouts",
                node,
                f"{timed_out:.0%} of {size.count:,} batches began before they were full, after waits of typically "
                f"{wait * 1e3:,.1f} ms, with {size.mean:.1f} items on average",
                {"batches": float(size.count), "timed_out": timed_out, "mean_size": size.mean, "typical_wait": wait},
                f"@node(batch=BatchPolicy(size={max(1, round(size.mean))}, max_wait={wait / 2:.3g})): a size "
                "that is reached, or a shorter wait; or hand over lists with map and run_many, which do not wait",
                f"{names.BATCH_WAIT_METRIC.name} falls while the mean of {names.BATCH_SIZE_METRIC.name} stays",
            )


def advise_on_executors(jobs: Sequence[Job]) -> Iterator[Advice]:
    """Find executors in which work waits for a worker."""
    nodes = [histogram for job in jobs for key, histogram in durations_of(job).items() if key.node]
    typical = merge_histograms(nodes)
    for executor, waits in sorted(_merged(jobs, names.EXECUTOR_WAIT.name, names.EXECUTOR_NAME).items()):
        p95 = waits.quantile(0.95) or 0.0
        mean = typical.mean if typical else None
        if waits.count < _FEWEST or not mean or p95 < max(_NOTICED, _SHARE_OF_NODE * mean):
            continue
        workers = _largest(jobs, names.EXECUTOR_WORKERS.name, names.EXECUTOR_NAME, executor)
        yield Advice(
            "executor-waits",
            executor,
            f"one task in twenty waits {p95 * 1e3:,.1f} ms or more for a worker; nodes take {mean * 1e3:,.1f} ms",
            {"tasks": float(waits.count), "wait_p95": p95, "node_mean": mean, "workers": sum(workers.values())},
            'a higher AETHER_MAX_THREADS where nodes wait for others (files, networks); executor="process" where '
            "they compute; a smaller k in [node] * k where neither helps",
            f"the 95th percentile of {names.EXECUTOR_WAIT.name} falls and runs take less time",
        )


def _merged(jobs: Iterable[Job], metric: str, attribute: str) -> dict[str, Histogram]:
    """Put the histograms of a metric together, by an attribute."""
    found: dict[str, Histogram] = {}
    for job in jobs:
        for series, histogram in job.histograms.items():
            if series.metric == metric and histogram.count:
                key = series.get(attribute) or ""
                found[key] = found[key].merged(histogram) if key in found else histogram
    return found


def _looks(jobs: Iterable[Job], pool: str) -> int:
    """Give how often it was looked at what of a pool is in use."""
    wanted = {names.POOL_NAME: pool, names.POOL_STATE: "used"}
    return max(
        (
            level.points
            for job in jobs
            for series, level in job.levels.items()
            if series.metric == names.POOL_OBJECTS.name and all(series.get(key) == wanted[key] for key in wanted)
        ),
        default=0,
    )


def _largest(jobs: Iterable[Job], metric: str, attribute: str, value: str, by: str = "") -> dict[str, float]:
    """Give the largest level of a metric, for one value of an attribute, by another."""
    found: dict[str, float] = {}
    for job in jobs:
        for series, level in job.levels.items():
            if series.metric == metric and (series.get(attribute) or "") == value:
                key = series.get(by) or ""
                found[key] = max(found.get(key, 0.0), level.largest)
    return found
