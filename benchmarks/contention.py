"""How making spans scales with threads, and what it allocates: AetherFlow beside hand-written OpenTelemetry.

Run it with ``python -m benchmarks.contention [--rounds 9] [--calls 2000]``. As many calls are made by 1, 2, 4 and 8
threads that begin together; each call is one node, or one hand-written span with four attributes, a histogram and a
counter. Both go to a live ``rotel``, and the flush is outside of the measured time: what counts is how much longer the
threads wait for each other. Cases take turns; each figure is the median of the rounds. The allocations are the peak of
``tracemalloc`` while one thread makes the calls, in a round of its own, above what was there before.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.headline import throughput
from benchmarks.overhead import BY_HAND_EXPORTED, Call, hand_written, told
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from rich.console import Console
from rich.table import Table
from tests.support.rotel import Rotel

from aetherflow import configure, node
from aetherflow.telemetry import active

THREADS = (1, 2, 4, 8)
OURS = "AetherFlow, exported"


def double(x: int) -> int:
    """Do next to nothing."""
    return x * 2


@dataclass(frozen=True, slots=True)
class Way:
    """A way to have a call traced: the call, what is set up around it, and what sends the rest."""

    name: str
    call: Callable[[int], object]
    providers: active.Providers
    flush: Call


@contextmanager
def ways(endpoint: str) -> Iterator[list[Way]]:
    """Set up both ways, and shut them down."""
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
    tracing, metering = TracerProvider(shutdown_on_exit=False), PeriodicExportingMetricReader(OTLPMetricExporter())
    tracing.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), max_queue_size=1 << 17))
    meters = MeterProvider([metering], shutdown_on_exit=False)
    by_hand = hand_written(tracing, meters)(double)
    ours, untold = node(double), active.Providers()
    with configure(service_name="contention", exporter="otlp", set_global=False) as telemetry:
        yield [
            Way(OURS, lambda x: ours.run({"x": x}), active.providers or untold, lambda: telemetry.force_flush(60)),
            Way(BY_HAND_EXPORTED, by_hand, untold, tracing.force_flush),
        ]
    tracing.shutdown()
    meters.shutdown()


def peak(call: Callable[[int], object], calls: int) -> float:
    """Return the bytes a call that are allocated at the highest."""
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    for item in range(calls):
        call(item)
    _, highest = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (highest - before) / calls


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9, help="rounds over all cases (%(default)s)")
    parser.add_argument("--calls", type=int, default=2_000, help="calls of a case in a round (%(default)s)")
    options = parser.parse_args()
    taken: dict[tuple[str, int], list[float]] = {}
    allocated: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, Rotel(Path(folder)) as receiver, ways(receiver.http_endpoint) as all_:
        for _ in range(options.rounds):
            for threads in THREADS:
                for way in all_:
                    with told(way.providers.tracer_provider, way.providers.meter_provider):
                        taken.setdefault((way.name, threads), []).append(
                            1e6 / throughput(way.call, options.calls // threads, threads)
                        )
                    way.flush()
        for _ in range(3):
            for way in all_:
                with told(way.providers.tracer_provider, way.providers.meter_provider):
                    allocated.setdefault(way.name, []).append(peak(way.call, options.calls))
                way.flush()
        names = [way.name for way in all_]
    table = Table(title=f"{options.calls:,} calls shared out between threads: µs a call, and times one thread's")
    table.add_column("")
    for threads in THREADS:
        table.add_column(f"{threads} thread{'s' * (threads > 1)}", justify="right")
    table.add_column("peak, bytes a call", justify="right")
    for name in names:
        medians = [statistics.median(taken[name, threads]) for threads in THREADS]
        cells = [f"{value:.1f} ({value / medians[0]:.2f})" for value in medians]
        table.add_row(name, *cells, f"{statistics.median(allocated[name]):,.0f}")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
