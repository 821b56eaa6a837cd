"""Endpoints beside a program that is no web application: what a probe, Prometheus and `aetherflow top` are told.

It asks itself, over loopback, and ends. A program that stays says the same for as long as it runs.
"""

import json
import re
import time
import urllib.error
import urllib.request

from aetherflow import HealthMonitor, configure, node
from aetherflow.serving import serve


@node
def lookup(key):
    """Look a key up."""
    time.sleep(0.002)
    return {"a": 1, "b": 2}[key]


def ask(url):
    """Return the status code and the body of an answer."""
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.status, error.read().decode()


def show(url, *paths):
    for path in paths:
        code, body = ask(url + path)
        print(f"{path}: {code} {json.loads(body)['status']}")


def main():
    monitor = HealthMonitor(interval=0)  # evaluated for each question; a real service is content with every 5 s
    is_loaded = [False]
    monitor.add_check("configured", lambda: is_loaded[0], views=["ready"])

    with configure(service_name="serving", health=monitor), serve(port=0, monitor=monitor) as url:
        show(url, "/livez", "/readyz")

        is_loaded[0] = True
        for _ in range(12):
            lookup.run({"key": "a"})
        monitor.check()
        monitor.check()
        show(url, "/livez", "/readyz", "/health")

        metrics = ask(f"{url}/metrics")[1]
        (count,) = re.findall(r"^aetherflow_node_duration_seconds_count\{.*\} (\S+)$", metrics, re.MULTILINE)
        print(f"/metrics: {float(count):.0f} executions, with an exemplar: {'trace_id=' in metrics}")


if __name__ == "__main__":
    main()
