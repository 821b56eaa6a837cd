"""`PerformanceMonitor`: what it counts, whose it is, and what it costs in memory."""

from __future__ import annotations

import asyncio
import io
import math
import threading

import pytest
from rich.console import Console

from aetherflow import PerformanceMonitor, node
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.capture import CapturedTelemetry
from aetherflow.telemetry.metrics.accumulators import FOLD_AT, registry


def test_what_is_measured_is_counted_exactly_on_eight_threads() -> None:
    """10,000 measurements: count, errors and their sum add up, with no SDK at all."""
    monitor = PerformanceMonitor()

    def measure(thread: int) -> None:
        for index in range(1_250):
            try:
                with monitor.measure("work"):
                    if index % 10 == 0:
                        raise ValueError
            except ValueError:
                pass

    threads = [threading.Thread(target=measure, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = monitor.get_stats()["work"]
    assert (stats["count"], stats["error_count"], stats["error_rate"]) == (10_000, 1_000, 0.1)
    assert stats["min_time"] <= stats["p50"] <= stats["p95"] <= stats["p99"] <= stats["max_time"]
    assert stats["avg_time"] == pytest.approx(stats["total_time"] / 10_000)


def test_nodes_appear_without_any_measuring_and_beside_an_operation_of_their_name() -> None:
    """A node is shown by its name; where an operation has that name, as ``node NAME``."""
    monitor = PerformanceMonitor()

    @node
    def fetch() -> None: ...

    fetch.run()
    assert monitor.get_stats()["fetch"]["count"] == 1
    with monitor.measure("fetch"):
        pass
    fetch()
    stats = monitor.get_stats()
    assert (stats["fetch"]["count"], stats["node fetch"]["count"]) == (1, 2)


def record(name: str, *seconds: float, **attributes: str) -> None:
    """Record executions of a node."""
    for each in seconds:
        about = {names.FLOW_NAME: name, names.NODE_NAME: name, **attributes}
        registry.series(names.NODE_DURATION, about).add(round(each * 1e9))


def test_counts_are_of_all_executions_and_latencies_of_computed_ones() -> None:
    """Cache hits and retried executions are counted, with their errors and time, and are in no average or quantile."""
    monitor = PerformanceMonitor()
    record("priced", *[0.02] * 10)
    record("priced", *[0.00002] * 980, **{names.EXECUTION_KIND: "cache_hit"})
    record("priced", *[0.6] * 10, **{names.EXECUTION_KIND: "retried", names.ERROR_TYPE: "KeyError"})
    stats = monitor.get_stats()["priced"]
    assert (stats["count"], stats["error_count"], stats["error_rate"]) == (1000, 10, 0.01)
    assert stats["total_time"] == pytest.approx(10 * 0.02 + 980 * 0.00002 + 10 * 0.6)
    times = [stats[key] for key in ("avg_time", "min_time", "max_time", "p50", "p95", "p99")]
    assert times == pytest.approx([0.02] * 6)


def test_a_node_of_hits_only_has_no_latency() -> None:
    """Without a computed execution averages and quantiles are NaN; the table can be printed all the same."""
    monitor = PerformanceMonitor()
    record("found_again", 0.00002, **{names.EXECUTION_KIND: "coalesced"})
    stats = monitor.get_stats()["found_again"]
    assert stats["count"] == 1
    assert all(math.isnan(stats[key]) for key in ("avg_time", "min_time", "max_time", "p50", "p95", "p99"))
    monitor.report(Console(file=io.StringIO()))


def test_unnamed_monitors_share_operations_and_named_ones_keep_their_own() -> None:
    """Each since it was made or reset."""
    first, second, own = PerformanceMonitor(), PerformanceMonitor(), PerformanceMonitor("own")
    with first.measure("shared"):
        pass
    with own.measure("mine"):
        pass
    assert "shared" in second.get_stats()
    assert set(own.get_stats()) == {"mine"}
    assert "mine" not in first.get_stats()
    first.reset()
    assert first.get_stats() == {}
    assert second.get_stats()["shared"]["count"] == 1


def test_timed_measures_functions_and_coroutines() -> None:
    """Under their qualified names, results and errors as they are."""
    monitor = PerformanceMonitor()

    @monitor.timed
    def plain(value: int) -> int:
        return value

    @monitor.timed
    async def apart() -> None:
        raise KeyError

    assert plain(3) == 3
    with pytest.raises(KeyError):
        asyncio.run(apart())
    counts = {name.rpartition(".")[2]: (s["count"], s["error_count"]) for name, s in monitor.get_stats().items()}
    assert counts == {"plain": (1, 0), "apart": (1, 1)}


def test_an_applications_meter_records_operations_and_memory_stays_bounded() -> None:
    """Its histogram has the same count; what is pending in our own store never grows past one fold."""
    monitor = PerformanceMonitor()
    with CapturedTelemetry() as captured:
        for _ in range(FOLD_AT + 100):
            with monitor.measure("op"):
                pass
        (point,) = captured.points(names.OPERATION_DURATION.name, {names.OPERATION_NAME: "op"})
    assert point.count == FOLD_AT + 100
    assert len(monitor._site("op").series.pending) <= FOLD_AT
    assert monitor.get_stats()["op"]["count"] == FOLD_AT + 100


def test_the_report_is_a_table_of_every_operation() -> None:
    """One row each, with its count."""
    monitor = PerformanceMonitor("table")
    for name in ("first", "second"):
        with monitor.measure(name):
            pass
    text = io.StringIO()
    monitor.report(Console(file=text, width=200))
    assert all(name in text.getvalue() for name in ("Performance of table", "first", "second"))
