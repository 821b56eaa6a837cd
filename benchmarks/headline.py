"""The guide's headline: light operations through ``.run(inputs, context)`` on eight threads, with everything on.

Run it with ``python -m benchmarks.headline [--rounds 7]``. Spans and metrics go to a live ``rotel``, as ``configure()``
does it. Beside it, in the same run and in turn: the same without telemetry, and the same function as a node of
streamlet-py, which has none. There the session is injected from a context as well, through its markers; a second way
without injection, with a session that the function finds by itself, tells what that costs. The guide's own figure,
45,000 operations a second, is one without telemetry. Each figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.performance_benchmarks import IsolatedContext, Session, light
from dependency_injector.wiring import Provide
from rich.console import Console
from rich.table import Table
from streamlet import node as streamlet_node
from tests.support.rotel import Rotel

from aetherflow import configure
from aetherflow.telemetry import active

THREADS = 8
GUIDE = 45_000
PEER = "streamlet-py"
ALONE = "streamlet-py, nothing injected"


def throughput(operation: Callable[[int], object], count: int, threads: int = THREADS) -> float:
    """Return operations a second of threads that begin together, so many of each."""
    begin = threading.Barrier(threads + 1)

    def work() -> None:
        begin.wait()
        for item in range(count):
            operation(item)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    begin.wait()
    started = time.perf_counter()
    for worker in workers:
        worker.join()
    return threads * count / (time.perf_counter() - started)


@streamlet_node
def injected(item: int, session: Session = Provide[IsolatedContext.session]) -> int:
    """Do what the node does, the session injected."""
    return session.remember(item, b"%128d" % item)


_local = threading.local()


@streamlet_node
def alone(item: int) -> int:
    """Do what the node does, with a session a thread."""
    try:
        session: Session = _local.session
    except AttributeError:
        session = _local.session = Session()
    return session.remember(item, b"%128d" % item)


def operations() -> dict[str, Callable[[int], object]]:
    """Return the light operation, each way."""
    context = IsolatedContext()
    context.wire(modules=[__name__])

    def ours(item: int) -> object:
        return light.run({"item": item}, context)

    return {"AetherFlow, everything on": ours, "AetherFlow, nothing configured": ours, PEER: injected, ALONE: alone}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7, help="rounds over all cases (%(default)s)")
    parser.add_argument("--operations", type=int, default=1_000, help="operations of a thread (%(default)s)")
    options = parser.parse_args()
    ways = operations()
    taken: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder, Rotel(Path(folder)) as receiver:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.http_endpoint
        with configure(service_name="headline", exporter="otlp", set_global=False) as telemetry:
            everything_on = active.providers
            for _ in range(options.rounds):
                for name, operation in ways.items():
                    active.set_active(everything_on if name.endswith("everything on") else active.Providers())
                    taken[name].append(throughput(operation, options.operations))
                    active.set_active(everything_on)
                    telemetry.force_flush(60)
            ledger = telemetry.ledger()
    medians = {name: statistics.median(values) for name, values in taken.items()}
    table = Table(
        title=f"{THREADS} threads x {options.operations:,} light operations, median of {options.rounds} rounds"
    )
    for column in ("", "operations/s", f"of {PEER}", f"of {ALONE}", "of the guide's figure"):
        table.add_column(column, justify="right" if column else "left")
    for name, value in medians.items():
        ratios = (value / medians[PEER], value / medians[ALONE], value / GUIDE)
        table.add_row(name, f"{value:,.0f}", *(f"{ratio:.2f}" for ratio in ratios))
    Console(width=120).print(table, ledger)


if __name__ == "__main__":
    main()
