"""Health from the meters: thresholds for each node, a status that does not flap, and checks of your own.

What the guide computes by hand in health_check.py, with a window, hysteresis, and a node that is ready to run.
"""

import contextlib
import time

from dependency_injector import providers

from aetherflow import BaseFlowContext, HealthMonitor, configure, health_check_node, node


class Catalogue:
    """Something to depend on, that can be pinged."""

    def __init__(self):
        self.is_up = True

    def ping(self):
        return self.is_up


def open_catalogue():
    yield Catalogue()


class ShopContext(BaseFlowContext):
    # 20 ms are slow for a look-up; importing may take its time
    health = providers.Singleton(HealthMonitor, average=0.02, p95=None, per={"import_*": {"average": 30.0}})
    catalogue = providers.Resource(open_catalogue)


@node
def lookup(key, catalogue, delay=0.0):
    """Look a key up; may be slow, and fails where there is none."""
    time.sleep(delay)
    return {"a": 1, "b": 2}[key]


def work(context, key="a", delay=0.0, times=10):
    for _ in range(times):
        with contextlib.suppress(KeyError):
            lookup.run({"key": key, "delay": delay}, context)


def show(when, context):
    report = health_check_node.run(context=context)
    checks = {name: check["status"] for name, check in report["checks"].items() if "lookup" in name}
    print(f"{when}: {report['status']} {checks}")


def main():
    with ShopContext() as context:
        monitor = context.health()  # counts from here on
        monitor.add_resources(context)
        show("before any traffic", context)

        work(context)
        show("ten quick look-ups", context)

        work(context, delay=0.05)
        show("ten slow ones", context)
        show("a second evaluation agrees", context)

        work(context, key="c", times=1)
        show("one fails", context)
        show("a second evaluation agrees", context)

        context.catalogue().is_up = False
        monitor.check()
        report = monitor.check()
        for view in ("live", "ready", "health"):
            told = report.view(view).to_health_json()
            print(f"{view}: {report.statuses[view]}, for a probe: {told['status']}")


if __name__ == "__main__":
    with configure(service_name="health"):
        main()
