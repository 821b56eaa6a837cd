"""What tracing costs a node: AetherFlow beside the bare functions, hand-written OpenTelemetry and streamlet-py.

Run it with ``python benchmarks/overhead.py [--rounds 15] [--calls 300]``. All cases run in one process, in turn, so
that a change of the machine's speed meets all of them; each figure is the median of the rounds, above the bare
functions, in µs a node. The ratios are what to read: absolute times are those of this machine at this hour.

Spans are exported by the stock batch processor into an exporter that discards them; CPU time includes its thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from rich.console import Console
from rich.table import Table

from aetherflow import node
from aetherflow.telemetry import active

Call = Callable[[], object]


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
    tracer_provider: TracerProvider, meter_provider: MeterProvider
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
def told(tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None) -> Iterator[None]:
    """Have AetherFlow use these providers."""
    active.set_active(active.Providers(tracer_provider, meter_provider))
    try:
        yield
    finally:
        active.set_active(None)


def cases() -> list[Case]:
    """Return every way to do the work."""
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
        Case("bare functions", "chain", lambda: less_one(double(add_one(1))), 3),
        Case("AetherFlow, nothing configured", "chain", run_chain, 3),
        Case("AetherFlow, sampled out", "chain", run_chain, 3, off),
        Case("AetherFlow, application's SDK, spans and metrics", "chain", run_chain, 3, on),
        Case("hand-written OpenTelemetry", "chain", lambda: third(second(first(1))), 3),
        Case("bare functions", "fan-out", bare_fan_out, 6),
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
        Case("streamlet-py, no telemetry", "chain", lambda: chain(1), 3),
        Case("streamlet-py, no telemetry", "fan-out", lambda: fan_out(1), 6),
    ]


def measure(case: Case, calls: int) -> tuple[float, float]:
    """Return wall and CPU time of one node, in µs."""
    call = case.call
    with case.setting() if case.setting else told(None, None):
        call()
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(calls):
            call()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    scale = 1e6 / calls / case.nodes
    return wall * scale, cpu * scale


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15, help="rounds over all cases (default 15)")
    parser.add_argument("--calls", type=int, default=300, help="calls of a case in a round (default 300)")
    options = parser.parse_args()
    all_cases = cases()
    taken: dict[int, list[tuple[float, float]]] = {index: [] for index in range(len(all_cases))}
    for _ in range(options.rounds):
        for index, case in enumerate(all_cases):
            taken[index].append(measure(case, options.calls))
    table = Table(title="µs a node above the bare functions, median of rounds")
    for column in ("shape", "case"):
        table.add_column(column)
    for column in ("wall", "CPU", "CPU / hand-written", "wall / streamlet-py"):
        table.add_column(column, justify="right")
    medians = {i: tuple(statistics.median(column) for column in zip(*taken[i], strict=True)) for i in taken}

    def above(shape: str, name: str) -> tuple[float, float] | None:
        found = {case.name: medians[i] for i, case in enumerate(all_cases) if case.shape == shape}
        if name not in found:
            return None
        bare = found["bare functions"]
        return found[name][0] - bare[0], found[name][1] - bare[1]

    by_hand = above("chain", "hand-written OpenTelemetry")
    for index, case in enumerate(all_cases):
        mine, other = above(case.shape, case.name), above(case.shape, "streamlet-py, no telemetry")
        if case.name == "bare functions":
            table.add_row(case.shape, case.name, *(f"{value:.2f}" for value in medians[index]), "", "")
        elif mine is not None:
            hand = f"{mine[1] / by_hand[1]:.3f}" if by_hand else ""
            table.add_row(
                case.shape,
                case.name,
                f"{mine[0]:.2f}",
                f"{mine[1]:.2f}",
                hand,
                f"{mine[0] / other[0]:.3f}" if other else "",
            )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
