"""What tracing costs a node: AetherFlow beside the bare functions, hand-written OpenTelemetry and streamlet-py.

Run it with ``python -m benchmarks.overhead [--rounds 15] [--calls 300]``. All cases run in one process, in turn, so
that a change of the machine's speed meets all of them; each figure is the median of the rounds, above the bare
functions, in µs a node. The ratios are what to read: absolute times are those of this machine at this hour.

- *exported*: spans and metrics go to a live ``rotel`` over HTTP, ours as ``configure()`` does it, the hand-written ones
  through the stock batch processor and exporters. The flush is inside the measured round, and what counts is the CPU
  time of this process, all its threads together.
- the others: spans go to the stock batch processor with an exporter that discards them.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from rich.console import Console
from rich.table import Table
from tests.support.rotel import Rotel

from aetherflow import configure, node
from aetherflow.telemetry import active

Call = Callable[[], object]
BARE = "bare functions"
BY_HAND = "hand-written OpenTelemetry"
BY_HAND_EXPORTED = "hand-written OpenTelemetry, exported"
STREAMLET = "streamlet-py, no telemetry"


def add_one(x: int) -> int:
    """First node."""
    return x + 1


def double(x: int) -> int:
    """Second node."""
    return x * 2


def less_one(x: int) -> int:
    """Third node."""
    return x - 1


def negate(x: int) -> int:
    """A branch."""
    return -x


def total(results: dict[str, int]) -> int:
    """Take the branches in."""
    return sum(results.values())


@dataclass(frozen=True, slots=True)
class Case:
    """One way to do the same work, and how many nodes of ours that is."""

    name: str
    shape: str
    call: Call
    nodes: int
    setting: Callable[[], AbstractContextManager[None]] | None = None
    flush: Call | None = None
    threads: int = 1


class Discard(SpanExporter):
    """Takes spans and forgets them."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Forget them."""
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """There is nothing to close."""


def providers(sampler: Sampler) -> tuple[TracerProvider, MeterProvider]:
    """Return providers as an application sets them up."""
    tracer_provider = TracerProvider(sampler, shutdown_on_exit=False)
    tracer_provider.add_span_processor(BatchSpanProcessor(Discard(), max_queue_size=1 << 17))
    return tracer_provider, MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)


def hand_written(
    tracer_provider: trace.TracerProvider, meter_provider: metrics.MeterProvider
) -> Callable[[Callable[[int], int]], Callable[[int], int]]:
    """Instrument a function as one does by hand: a span with four attributes, a histogram and a counter."""
    tracer = tracer_provider.get_tracer("by hand")
    meter = meter_provider.get_meter("by hand")
    duration = meter.create_histogram("duration", "s")
    executions = meter.create_counter("executions")

    def instrumented(function: Callable[[int], int]) -> Callable[[int], int]:
        labels = {"node": function.__name__}

        def call(x: int) -> int:
            with tracer.start_as_current_span(function.__name__) as span:
                span.set_attribute("node", function.__name__)
                span.set_attribute("flow", "chain")
                span.set_attribute("thread", "main")
                span.set_attribute("scope", "none")
                started = time.perf_counter()
                try:
                    return function(x)
                finally:
                    duration.record(time.perf_counter() - started, labels)
                    executions.add(1, labels)

        return call

    return instrumented


@contextmanager
def told(tracer_provider: trace.TracerProvider | None, meter_provider: metrics.MeterProvider | None) -> Iterator[None]:
    """Have AetherFlow use these providers."""
    active.set_active(active.Providers(tracer_provider, meter_provider))
    try:
        yield
    finally:
        active.set_active(None)


@dataclass(frozen=True, slots=True)
class Exported:
    """Providers that export to a live receiver, and how to have them do so now."""

    tracer_provider: trace.TracerProvider
    meter_provider: metrics.MeterProvider
    flush: Call

    def setting(self) -> AbstractContextManager[None]:
        """Have AetherFlow use them."""
        return told(self.tracer_provider, self.meter_provider)


@contextmanager
def exporting(endpoint: str) -> Iterator[tuple[Exported, Exported]]:
    """Give what ``configure()`` makes, and the stock way, both to the same receiver."""
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
    with configure(service_name="overhead", exporter="otlp", set_global=False) as telemetry:
        ours = Exported(telemetry.tracer_provider, telemetry.meter_provider, lambda: telemetry.force_flush(60))
        tracer_provider = TracerProvider(shutdown_on_exit=False)
        tracer_provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), max_queue_size=1 << 17))
        reader = PeriodicExportingMetricReader(OTLPMetricExporter())
        meter_provider = MeterProvider([reader], shutdown_on_exit=False)

        def flush() -> None:
            tracer_provider.force_flush(60_000)
            meter_provider.force_flush(60_000)

        yield ours, Exported(tracer_provider, meter_provider, flush)
        tracer_provider.shutdown()
        meter_provider.shutdown()
        print(telemetry.ledger())


def exported_cases(ours: Exported, stock: Exported) -> list[Case]:
    """Return the ways that end at a receiver, on one thread and on eight that contend."""
    chain = node(add_one) >> node(double) >> node(less_one)
    fan_out = node(add_one) >> [node(double), node(less_one), node(negate), node(abs)] >> node(total)
    inputs = {"x": 1}
    instrument = hand_written(stock.tracer_provider, stock.meter_provider)
    first, second, third = (instrument(function) for function in (add_one, double, less_one))
    found = [Case("AetherFlow, exported", "fan-out", lambda: fan_out.run(inputs), 6, ours.setting, ours.flush)]
    for threads, shape in ((1, "chain"), (8, "chain, 8 threads")):
        found += [
            Case(BARE, shape, lambda: less_one(double(add_one(1))), 3, threads=threads),
            Case("AetherFlow, exported", shape, lambda: chain.run(inputs), 3, ours.setting, ours.flush, threads),
            Case(BY_HAND_EXPORTED, shape, lambda: third(second(first(1))), 3, None, stock.flush, threads),
        ]
    return found[:1] + found[2:]  # one thread's bare functions are there already


def cases() -> list[Case]:
    """Return every way to do the work that ends in this process."""
    chain = node(add_one) >> node(double) >> node(less_one)
    source = node(add_one)
    fan_out = source >> [node(double), node(less_one), node(negate), node(abs)] >> node(total)
    inputs = {"x": 1}
    on_tracer, on_meter = providers(ALWAYS_ON)
    off_tracer, off_meter = providers(ALWAYS_OFF)
    by_hand = [hand_written(on_tracer, on_meter)(function) for function in (add_one, double, less_one)]
    first, second, third = by_hand

    def bare_fan_out() -> int:
        value = add_one(1)
        return total({"double": double(value), "less": less_one(value), "negate": negate(value), "abs": abs(value)})

    def run_chain() -> object:
        return chain.run(inputs)

    def run_fan_out() -> object:
        return fan_out.run(inputs)

    on, off = (lambda: told(on_tracer, on_meter)), (lambda: told(off_tracer, off_meter))
    found = [
        Case(BARE, "chain", lambda: less_one(double(add_one(1))), 3),
        Case("AetherFlow, nothing configured", "chain", run_chain, 3),
        Case("AetherFlow, sampled out", "chain", run_chain, 3, off),
        Case("AetherFlow, application's SDK, spans and metrics", "chain", run_chain, 3, on),
        Case(BY_HAND, "chain", lambda: third(second(first(1))), 3),
        Case(BARE, "fan-out", bare_fan_out, 6),
        Case("AetherFlow, nothing configured", "fan-out", run_fan_out, 6),
        Case("AetherFlow, application's SDK, spans and metrics", "fan-out", run_fan_out, 6, on),
    ]
    return found + streamlet_cases()


def streamlet_cases() -> list[Case]:
    """Return the same flows in streamlet-py, where it is installed."""
    try:
        from streamlet import node as streamlet_node
    except ImportError:
        print("streamlet-py is not installed: left out")
        return []
    chain = streamlet_node(add_one).then(streamlet_node(double)).then(streamlet_node(less_one))

    def absolute(x: int) -> int:
        return abs(x)

    def gather(results: dict[str, object]) -> int:
        return len(results)

    branches = [streamlet_node(function) for function in (double, less_one, negate, absolute)]
    fan_out = streamlet_node(add_one).fan_out_in(branches, streamlet_node(gather))
    return [
        Case(STREAMLET, "chain", lambda: chain(1), 3),
        Case(STREAMLET, "fan-out", lambda: fan_out(1), 6),
    ]


def measure(case: Case, calls: int) -> tuple[float, float]:
    """Return wall and CPU time of one node, in µs."""
    call, each = case.call, calls // case.threads

    def work() -> None:
        for _ in range(each):
            call()

    with case.setting() if case.setting else told(None, None):
        call()
        if case.flush:
            case.flush()
        threads = [threading.Thread(target=work) for _ in range(case.threads)] if case.threads > 1 else []
        wall, cpu = time.perf_counter(), time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if not threads:
            work()
        if case.flush:
            case.flush()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    scale = 1e6 / (each * case.threads) / case.nodes
    return wall * scale, cpu * scale


def medians_of(all_cases: Sequence[Case], rounds: int, calls: int) -> dict[tuple[str, str], tuple[float, float]]:
    """Measure all cases in turn; return each one's medians by shape and name."""
    taken: dict[tuple[str, str], list[tuple[float, float]]] = {(case.shape, case.name): [] for case in all_cases}
    for _ in range(rounds):
        for case in all_cases:
            # A flush costs the same for few spans as for many: enough of them, that it is shared as it would be.
            taken[case.shape, case.name].append(measure(case, calls * 10 if case.flush else calls))
    return {
        key: (statistics.median(wall for wall, _ in pairs), statistics.median(cpu for _, cpu in pairs))
        for key, pairs in taken.items()
    }


def table_of(medians: dict[tuple[str, str], tuple[float, float]]) -> Table:
    """Return what was measured, beside what it is compared with."""
    table = Table(title="µs a node above the bare functions, median of rounds")
    for column in ("shape", "case"):
        table.add_column(column)
    for column in ("wall", "CPU", "CPU / hand-written", "CPU / hand-written, exported", "wall / streamlet-py"):
        table.add_column(column, justify="right")

    def above(shape: str, name: str) -> tuple[float, float]:
        found, bare = medians.get((shape, name)), medians[shape, BARE]
        return (found[0] - bare[0], found[1] - bare[1]) if found else (math.nan, math.nan)

    for (shape, name), measured in medians.items():
        wall, cpu = measured if name == BARE else above(shape, name)
        compared = (
            cpu / above("chain", BY_HAND)[1],
            cpu / above(shape if (shape, BY_HAND_EXPORTED) in medians else "chain", BY_HAND_EXPORTED)[1],
            wall / above(shape, STREAMLET)[0],
        )
        ratios = ("" if name == BARE or math.isnan(ratio) else f"{ratio:.3f}" for ratio in compared)
        table.add_row(shape, name, f"{wall:.2f}", f"{cpu:.2f}", *ratios)
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15, help="rounds over all cases (default 15)")
    parser.add_argument("--calls", type=int, default=300, help="calls of a case in a round (default 300)")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        Rotel(Path(folder)) as receiver,
        exporting(receiver.http_endpoint) as (ours, stock),
    ):
        all_cases = cases() + exported_cases(ours, stock)
        medians = medians_of(all_cases, options.rounds, options.calls)
    Console(width=140).print(table_of(medians))


if __name__ == "__main__":
    main()
