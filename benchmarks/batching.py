"""What a micro-batch costs an item, its span included, and how late one begins that is not full.

Run it with ``python benchmarks/batching.py [--rounds 30]``. Each way of giving 100 items to a batched node is measured
without telemetry, and with the spans and metrics of an application's SDK, whose exporter discards them between two
rounds; each figure is the median of the rounds, in CPU µs an item. For comparison: an ordinary node called as often,
and 100 bare asyncio tasks, which are most of what the async way costs.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from rich.console import Console
from rich.table import Table

from aetherflow import BatchPolicy, node
from aetherflow.telemetry import active

ITEMS = 100
THREADS = 10
MAX_WAIT = 0.05

Call = Callable[[], object]


@node(batch=BatchPolicy(size=ITEMS, max_wait=60))
def trivial(items: list[int]) -> list[int]:
    """Give each item back."""
    return items


@node(batch=BatchPolicy(size=ITEMS, max_wait=60))
async def trivial_async(items: list[int]) -> list[int]:
    """Give each item back."""
    return items


@node(batch=BatchPolicy(size=THREADS, max_wait=60))
def trivial_for_threads(items: list[int]) -> list[int]:
    """Give each item back."""
    return items


@node(batch=BatchPolicy(size=2, max_wait=MAX_WAIT))
def never_full(items: list[float]) -> list[float]:
    """Give each item how late its batch began, in seconds."""
    now = time.monotonic()
    return [now - item - MAX_WAIT for item in items]


@node
def single(item: int) -> int:
    """Give the item back."""
    return item


@node
def numbers(n: int) -> list[int]:
    """Give the items."""
    return list(range(n))


def one_by_one() -> None:
    """Call an ordinary node for each item."""
    for item in range(ITEMS):
        single(item)


def bare_tasks(loop: asyncio.AbstractEventLoop) -> Call:
    """Return what awaits as many tasks that do nothing but wait once."""

    async def wait() -> None:
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future

    async def gather() -> None:
        await asyncio.gather(*[wait() for _ in range(ITEMS)])

    return lambda: loop.run_until_complete(gather())


def tasks(loop: asyncio.AbstractEventLoop) -> Call:
    """Return what awaits a batched coroutine function in a task for each item."""

    async def gather() -> None:
        await asyncio.gather(*[trivial_async(item) for item in range(ITEMS)])

    return lambda: loop.run_until_complete(gather())


def threads(pool: ThreadPoolExecutor) -> Call:
    """Return what calls a batched function from ten threads, ten items each."""

    def ten() -> None:
        for item in range(ITEMS // THREADS):
            trivial_for_threads(item)

    return lambda: [future.result() for future in [pool.submit(ten) for _ in range(THREADS)]]


class Discard(SpanExporter):
    """Takes spans and forgets them."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Forget them."""
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """There is nothing to close."""


def measured(call: Call, rounds: int, afterwards: Call) -> float:
    """Return the median cost of an item, in µs of the processor: the machine may be busy with other things."""
    call()
    taken = []
    for _ in range(rounds):
        started = time.process_time()
        call()
        taken.append((time.process_time() - started) / ITEMS * 1e6)
        afterwards()
    return statistics.median(taken)


def with_and_without(ways: dict[str, Call], rounds: int) -> dict[str, tuple[float, float]]:
    """Return what an item costs without telemetry and with spans, in µs, by the way it is given."""
    tracer_provider = TracerProvider(shutdown_on_exit=False)
    tracer_provider.add_span_processor(BatchSpanProcessor(Discard(), max_queue_size=1 << 17))
    told = active.Providers(tracer_provider, MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False))
    costs = {}
    for name, call in ways.items():
        off = measured(call, rounds, lambda: None)
        active.set_active(told)
        costs[name] = off, measured(call, rounds, tracer_provider.force_flush)
        active.set_active(None)
    return costs


def lateness(loop: asyncio.AbstractEventLoop, rounds: int) -> dict[str, list[float]]:
    """Return by how many seconds too late batches began that were not full."""

    async def alone() -> float:
        return await never_full.arun(time.monotonic())

    return {
        "thread": [never_full(time.monotonic()) for _ in range(rounds)],
        "event loop": [loop.run_until_complete(alone()) for _ in range(rounds)],
    }


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="rounds of each measurement")
    rounds = parser.parse_args().rounds
    loop = asyncio.new_event_loop()
    flow = numbers.map(trivial)
    with ThreadPoolExecutor(THREADS) as pool:
        ways: dict[str, Call] = {
            "ordinary node, called in a loop": one_by_one,
            "bare asyncio tasks": bare_tasks(loop),
            "numbers.map(batched)": lambda: flow.run(ITEMS),
            "batched.run_many(…)": lambda: list(trivial.run_many(range(ITEMS))),
            "await batched(…), a task for each": tasks(loop),
            f"batched(…) from {THREADS} threads, size {THREADS}": threads(pool),
        }
        costs = with_and_without(ways, rounds)
    table = Table(title=f"{ITEMS} trivial items, CPU µs an item")
    for column in ("way", "no telemetry", "with spans"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for name, (off, on) in costs.items():
        table.add_row(name, f"{off:.1f}", f"{on:.1f}")
    late = Table(title=f"A batch that is not full begins after {MAX_WAIT * 1e3:.0f} ms; ms too late")
    for column in ("waiting on", "median", "most"):
        late.add_column(column, justify="left" if column == "waiting on" else "right")
    for name, seconds in lateness(loop, min(rounds, 20)).items():
        late.add_row(name, f"{statistics.median(seconds) * 1e3:.2f}", f"{max(seconds) * 1e3:.2f}")
    loop.close()
    console = Console()
    console.print(table)
    console.print(late)


if __name__ == "__main__":
    main()
