"""Tell healthy from not (健康检查和告警).

The node of the guide, by hand over the statistics that the monitor keeps anyway.
"""

import time
from typing import Any

from aetherflow import configure, node, perf_monitor


@node
def lookup(key, delay=0.0):
    """Look a key up; may be slow, and fails where there is none."""
    time.sleep(delay)
    return {"a": 1, "b": 2}[key]


def get_error_rate():
    """Return the share of all executions that failed."""
    stats = perf_monitor.get_stats().values()
    executions = sum(metrics["count"] for metrics in stats)
    return sum(metrics["error_count"] for metrics in stats) / executions if executions else 0.0


@node
def health_check_node():
    """Check latencies and errors."""
    stats = perf_monitor.get_stats()

    health_status: dict[str, Any] = {"status": "healthy", "timestamp": time.time(), "checks": {}}

    # The average response times.
    for operation, metrics in stats.items():
        avg_time = metrics["avg_time"]

        if avg_time > 1.0:  # above 1 second: warn
            health_status["status"] = "degraded"
            health_status["checks"][f"{operation}_latency"] = {
                "status": "warning",
                "value": avg_time,
                "threshold": 1.0,
            }
        else:
            health_status["checks"][f"{operation}_latency"] = {"status": "ok", "value": avg_time, "threshold": 1.0}

    # The error rate.
    error_rate = get_error_rate()
    if error_rate > 0.01:  # above 1 %
        health_status["status"] = "unhealthy"
        health_status["checks"]["error_rate"] = {"status": "error", "value": error_rate, "threshold": 0.01}

    return health_status


def show(when):
    health = health_check_node.run()
    checks = {name: check["status"] for name, check in health["checks"].items() if not name.startswith("health_check")}
    print(f"{when}: {health['status']} {checks}")
    return health


def main():
    show("before any traffic")

    lookup.run({"key": "a"})
    show("one quick look-up")

    perf_monitor.reset()
    lookup.run({"key": "b", "delay": 1.1})
    show("a slow one")

    try:
        lookup.run({"key": "c"})
    except KeyError:
        rate = show("one of two fails")["checks"]["error_rate"]
        print(f"error rate: {rate['value']:.2f} of at most {rate['threshold']}")


if __name__ == "__main__":
    with configure(service_name="health-check"):
        main()
