"""What of the spans that a program makes arrives at a receiver: our pipeline beside the stock batch processor.

Run it with ``python -m benchmarks.export [--seconds 2] [--rounds 3] [--spans nodes|sdk]``. The receiver is ``rotel``,
and what arrived is what it has counted itself. Every case runs in a process of its own, whose memory is that at its
highest above what it was before the first span.

- *flat out*: one thread, as fast as it can; the rate is what the receiver had when the thread stopped.
- *paced*: eight threads, 60,000 spans/s together, for five seconds.
- *block*: eight threads as fast as they can; a full queue holds them up. Nothing may be lost.
- *drop*: the same; a full queue drops. The ledger and the receiver must agree to the span.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, Literal, get_args

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from rich.console import Console
from rich.table import Table
from tests.support.rotel import Rotel

from aetherflow import node
from aetherflow.telemetry import active
from aetherflow.telemetry.export.destination import Destination
from aetherflow.telemetry.export.files import ProcessFile
from aetherflow.telemetry.export.pipeline import SpanPipeline
from aetherflow.telemetry.export.sampling_policy import OnFull
from aetherflow.telemetry.export.span_pipelines import span_pipeline

Processor = Literal["stock", "ours"]
Protocol = Literal["http/protobuf", "grpc"]
MIB: Final = 1024 * 1024
TICK: Final = 0.01
"""Seconds between two bursts of a paced thread."""


# --- who makes spans -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes spans.

    Args:
        call: Makes and ends some.
        spans: How many.
    """

    call: Callable[[], object]
    spans: int


def sdk_spans(provider: TracerProvider) -> Maker:
    """Make spans with the SDK's tracer, as large as those of nodes."""
    tracer = provider.get_tracer("benchmark")
    parent = trace.set_span_in_context(trace.NonRecordingSpan(trace.SpanContext(1, 2, False, trace.TraceFlags(1))))
    attributes: dict[str, str | int | tuple[str, ...]] = {
        "aetherflow.flow.name": "chain",
        "aetherflow.node.name": "double",
        "aetherflow.node.type": "sync",
        "aetherflow.node.upstream": ("add_one",),
        "aetherflow.provider.scope": "none",
        "code.function.name": "benchmarks.export.double",
        "thread.id": 1,
        "thread.name": "MainThread",
    }
    return Maker(lambda: tracer.start_span("double", parent, attributes=attributes).end(), 1)


@node
def add_one(x: int) -> int:
    """First node."""
    return x + 1


@node
def double(x: int) -> int:
    """Second node."""
    return x * 2


@node
def less_one(x: int) -> int:
    """Third node."""
    return x - 1


def node_spans(provider: TracerProvider) -> Maker:
    """Make spans by running a chain of three nodes: theirs, and the run's."""
    active.set_active(active.Providers(provider, None))
    chain = add_one >> double >> less_one
    return Maker(lambda: chain.run({"x": 1}), 4)


MAKERS: Final[Mapping[str, Callable[[TracerProvider], Maker]]] = {"sdk": sdk_spans, "nodes": node_spans}


# --- one case, in a process of its own -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """What is run.

    Args:
        processor: The stock batch processor, or our pipeline.
        spans: Who makes the spans, by its name in ``MAKERS``.
        protocol: How they are sent.
        endpoint: Where to.
        threads: How many make them.
        seconds: For how long.
        rate: Spans a second, all threads together; 0 for as many as they can.
        on_full: What our pipeline does when its queue is full.
    """

    processor: Processor
    spans: str
    protocol: Protocol
    endpoint: str
    threads: int = 1
    seconds: float = 2.0
    rate: int = 0
    on_full: OnFull = "drop"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it, as the process that made the spans sees it.

    Args:
        made: Spans made.
        seconds: How long that took.
        flushed: How long what was left took, in seconds.
        exported: Spans that the ledger calls exported; None without a ledger.
        lost: Spans that it calls dropped or failed.
        memory: Bytes above start, at the highest.
        cpu: Seconds of CPU, all of it, the export too.
    """

    made: int
    seconds: float
    flushed: float
    exported: int | None
    lost: int | None
    memory: int
    cpu: float


def run(case: Case, stopped: Callable[[], object]) -> Outcome:
    """Run a case in this process, and say when its threads have stopped."""
    logging.disable(logging.WARNING)
    provider = TracerProvider(shutdown_on_exit=False)
    pipeline = None
    if case.processor == "ours":
        to = Destination("otlp", case.protocol, case.endpoint)
        pipeline = span_pipeline(to, ProcessFile(Path(), "traces", datetime.now(UTC)), on_full=case.on_full)
        provider.add_span_processor(pipeline)
    else:
        exporter: SpanExporter = (GrpcExporter if case.protocol == "grpc" else HttpExporter)(endpoint=case.endpoint)
        provider.add_span_processor(BatchSpanProcessor(exporter))
    maker = MAKERS[case.spans](provider)
    start, cpu, started = _resident(), time.process_time(), time.perf_counter()
    made = _work(case, maker)
    worked = time.perf_counter()
    stopped()
    provider.force_flush(60_000)
    flushed = time.perf_counter()
    cpu = time.process_time() - cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - start
    ledger = pipeline.ledger() if isinstance(pipeline, SpanPipeline) else None
    return Outcome(
        made,
        worked - started,
        flushed - worked,
        None if ledger is None else ledger.exported,
        None if ledger is None else ledger.dropped + ledger.failed,
        memory,
        cpu,
    )


def _work(case: Case, maker: Maker) -> int:
    """Have the threads make spans; return how many they made."""
    made = [0] * case.threads
    end = time.perf_counter() + case.seconds

    def flat_out(index: int) -> None:
        while time.perf_counter() < end:
            for _ in range(50):
                maker.call()
            made[index] += 50 * maker.spans

    def paced(index: int) -> None:
        share = case.rate / case.threads
        began = time.perf_counter()
        for tick in range(1, round(case.seconds / TICK) + 1):
            while made[index] < share * TICK * tick:
                maker.call()
                made[index] += maker.spans
            time.sleep(max(0.0, began + tick * TICK - time.perf_counter()))

    threads = [threading.Thread(target=paced if case.rate else flat_out, args=(each,)) for each in range(case.threads)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return sum(made)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# --- all of them -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Result:
    """A case and what came of it, with what the receiver has counted: when the threads stopped, and in the end."""

    case: Case
    outcome: Outcome
    live: int
    received: int

    @property
    def live_rate(self) -> float:
        """Spans a second that had arrived when the threads stopped."""
        return self.live / self.outcome.seconds


def measure(case: Case, rotel: Rotel) -> Result:
    """Run a case in a process of its own and ask the receiver."""
    before = rotel.count()
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_report, args=(case, there))
    process.start()
    here.recv()  # the threads have stopped
    live = rotel.count() - before
    outcome: Outcome = here.recv()
    process.join()
    _settled(rotel)
    return Result(case, outcome, live, rotel.count() - before)


def _report(case: Case, pipe: Connection) -> None:
    pipe.send(run(case, lambda: pipe.send(None)))


def _settled(rotel: Rotel) -> None:
    """Wait until the receiver counts no more: it prints a moment after it has answered."""
    last, at = -1, time.monotonic()
    while last != (last := rotel.count()) or time.monotonic() - at < 0.5:
        time.sleep(0.1)


def flat_out(rotel: Rotel, case: Case, rounds: int, console: Console) -> None:
    """Compare the live rates of one thread, in turn."""
    pairs: tuple[tuple[Processor, str], ...] = (("stock", "sdk"), ("ours", "sdk"), ("ours", "nodes"))
    cases = {f"{who}, {spans}": replace(case, processor=who, spans=spans) for who, spans in pairs}
    found: dict[str, list[Result]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, each in cases.items():
            found[name].append(measure(each, rotel))
    stock = statistics.median(each.live_rate for each in found["stock, sdk"])
    table = Table(title=f"one thread flat out, {case.protocol}, {rounds} rounds", title_justify="left")
    for heading in ("exporter, spans", "made/s", "live/s", "times stock", "lost", "CPU µs a span"):
        table.add_column(heading, justify="left" if heading.startswith("exporter") else "right")
    for name, results in found.items():
        rate = statistics.median(each.live_rate for each in results)
        made = statistics.median(each.outcome.made / each.outcome.seconds for each in results)
        lost = statistics.median(1 - each.received / each.outcome.made for each in results)
        cpu = statistics.median(each.outcome.cpu / each.outcome.made for each in results)
        table.add_row(name, f"{made:,.0f}", f"{rate:,.0f}", f"{rate / stock:.1f}", f"{lost:.1%}", f"{cpu * 1e6:.1f}")
    console.print(table)


def contended(rotel: Rotel, case: Case, seconds: float, console: Console) -> bool:
    """Run the cases of eight threads; return whether each keeps its promise."""
    cases = {
        "paced": replace(case, threads=8, seconds=5.0, rate=60_000),
        "block": replace(case, threads=8, seconds=seconds, on_full="block"),
        "drop": replace(case, threads=8, seconds=seconds),
    }
    table = Table(title=f"eight threads, {case.protocol}, {case.spans}", title_justify="left")
    for heading in ("", "made", "made/s", "received", "ledger", "lost", "flush s", "MiB above start", "kept"):
        table.add_column(heading, justify="right" if heading else "left")
    all_kept = True
    for name, each in cases.items():
        result = measure(each, rotel)
        done = result.outcome
        is_kept = result.received == done.exported and done.memory <= 128 * MIB
        is_kept = is_kept and (name == "drop" or result.received == done.made)
        all_kept = all_kept and is_kept
        cells = (done.made, done.made / done.seconds, result.received, done.exported or 0, done.lost or 0)
        row = [f"{cell:,.0f}" for cell in cells]
        table.add_row(name, *row, f"{done.flushed:.2f}", f"{done.memory / MIB:.0f}", "yes" if is_kept else "NO")
    console.print(table)
    return all_kept


def main() -> int:
    """Run the benchmarks and print their tables; return 1 where a promise was not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long threads work that are not paced")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the comparison")
    parser.add_argument("--spans", choices=sorted(MAKERS), default="nodes", help="who makes the spans")
    parser.add_argument("--protocol", choices=get_args(Protocol), default="http/protobuf")
    given = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as folder, Rotel(Path(folder), detailed=False) as rotel:
        endpoint = rotel.grpc_endpoint if given.protocol == "grpc" else f"{rotel.http_endpoint}/v1/traces"
        case = Case("ours", given.spans, given.protocol, endpoint, seconds=given.seconds)
        if given.rounds:
            flat_out(rotel, case, given.rounds, console)
        return 0 if contended(rotel, case, given.seconds, console) else 1


if __name__ == "__main__":
    sys.exit(main())
