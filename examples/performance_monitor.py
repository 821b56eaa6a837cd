"""Collect performance figures (性能指标收集).

The guide writes a `PerformanceMonitor` of its own; AetherFlow's gives the same statistics, exact, and the same figures
are exported as metrics. Nodes appear in it without any `measure`.
"""

import json
import statistics
import threading

from aetherflow import PerformanceMonitor, configure, node

# The monitor of this program.
perf_monitor = PerformanceMonitor()


def expensive_operation(data):
    return {"mean": statistics.fmean(data), "stdev": statistics.stdev(data)}


def serialize_result(result):
    return json.dumps(result)


@node
def monitored_processor(data):
    """Process, and measure the parts."""
    thread_id = threading.current_thread().ident

    # As in the guide. Each name is a series of its own: with many threads leave the id out, the span has it.
    with perf_monitor.measure(f"processor_thread_{thread_id}"):
        result = expensive_operation(data)

    with perf_monitor.measure("result_serialization"):
        serialized = serialize_result(result)

    return {"result": serialized, "thread_id": thread_id}


def print_performance_report():
    """Print the report of the guide; `perf_monitor.report()` prints a table with the percentiles too."""
    stats = perf_monitor.get_stats()

    print("Performance report")
    print("=" * 40)

    for operation, metrics in stats.items():
        print(f"\n{operation}:")
        print(f"   calls:   {metrics['count']}")
        print(f"   average: {metrics['avg_time']:.6f}s")
        print(f"   minimum: {metrics['min_time']:.6f}s")
        print(f"   maximum: {metrics['max_time']:.6f}s")
        print(f"   total:   {metrics['total_time']:.6f}s")


def main():
    for size in range(10, 60, 10):
        latest = monitored_processor.run({"data": list(range(size))})
    print(f"the last of 5 results: {latest['result']}\n")

    # A failure counts too.
    try:
        monitored_processor.run({"data": []})
    except statistics.StatisticsError:
        failed = perf_monitor.get_stats()["monitored_processor"]
        print(f"executions of the node: {failed['count']}, of which failed: {failed['error_count']}\n")

    print_performance_report()


if __name__ == "__main__":
    with configure(service_name="performance-monitor"):
        main()
