"""The guide's own benchmarks: thread-isolated against shared state, telemetry off and on, beside the guide's figures.

    python benchmarks/performance_benchmarks.py [--quick] [--rounds 3] [--output DIR]

prints Markdown tables and leaves in DIR the metrics as OTLP JSON lines, for the regression gate, and `scaling.svg`.

The guide does not say what its light operation does. Its 43,600 op/s on 8 threads at 180 µs each, growing with the
threads on one interpreter lock, are only possible where most of the 180 µs is waiting. So there are two light
operations here: `light` computes only, which shows what a run costs; `waiting` also waits 100 µs, as the guide's must.
Isolated state is a session a thread, shared state is one session behind a lock; both remember the last results. The
fastest of the rounds counts, isolated and shared in turn. Without telemetry all runs in a process of its own.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import threading
import time
import tracemalloc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from dependency_injector import providers

from aetherflow import BaseFlowContext, Node, Telemetry, configure, node

Mode: TypeAlias = Literal["isolated", "shared"]
MODES: Final[tuple[Mode, ...]] = ("isolated", "shared")
WAIT: Final = 100e-6
"""Seconds that the waiting operation waits for."""
REMEMBERED: Final = 1_000
"""Results that a session remembers."""
GUIDE_LIGHT: Final = {"isolated": ("45,000", "180"), "shared": ("38,000", "210")}
GUIDE_HEAVY: Final = {"isolated": ("850", "85 %", "none"), "shared": ("820", "90 %", "high")}
GUIDE_SCALING: Final = {
    "isolated": {1: 5_800, 2: 11_200, 4: 21_800, 8: 43_600, 16: 52_400},
    "shared": {1: 5_200, 2: 10_100, 4: 18_900, 8: 35_200, 16: 38_100},
}


# --- what is measured ----------------------------------------------------------------------------------------


class Session:
    """What a thread remembers; not safe to share."""

    def __init__(self) -> None:
        self.results: dict[int, bytes] = {}
        self.contended = 0

    def remember(self, item: int, result: bytes) -> int:
        """Keep a result in place of an older one."""
        self.results[item % REMEMBERED] = result
        return len(self.results)


class SharedSession(Session):
    """What all threads remember; counts how often one had to wait for another."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def remember(self, item: int, result: bytes) -> int:
        """Keep a result in place of an older one, one thread at a time."""
        waits = not self.lock.acquire(blocking=False)
        if waits:
            self.lock.acquire()
        try:
            self.contended += waits
            return super().remember(item, result)
        finally:
            self.lock.release()


class IsolatedContext(BaseFlowContext):
    """A session for each thread."""

    session = providers.ThreadLocalSingleton(Session)


class SharedContext(BaseFlowContext):
    """One session for all."""

    session = providers.Singleton(SharedSession)


CONTEXTS: Final[Mapping[Mode, type[BaseFlowContext]]] = {"isolated": IsolatedContext, "shared": SharedContext}


@node
def light(item: int, session: Session) -> int:
    """Remember a small result."""
    return session.remember(item, b"%128d" % item)


@node
def waiting(item: int, session: Session) -> int:
    """Wait, as for another service, then remember a small result."""
    time.sleep(WAIT)
    return session.remember(item, b"%128d" % item)


@node
def heavy(item: int, session: Session) -> int:
    """Compute for about a millisecond, then remember the result."""
    value = item
    for _ in range(11_000):
        value = (value * 1_103_515_245 + 12_345) & 0x7FFFFFFF
    return session.remember(item, b"%128d" % value)


FLOWS: Final[Mapping[tuple[str, Mode], Node[..., Any]]] = {
    (each.name, mode): each.named(f"{each.name}_{mode}") for each in (light, waiting, heavy) for mode in MODES
}
"""Each operation under a name for each mode, so that the exported series are apart."""


class Case(NamedTuple):
    """What was run: a workload, in a mode, on so many threads, without or with telemetry."""

    workload: str
    mode: Mode
    threads: int
    telemetry: bool


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it. Times are in seconds."""

    operations: int
    wall: float
    latency: float
    """Mean time of an operation in its thread."""
    cpu: float
    """Of the whole process, exporting included."""
    contended: int
    """Operations that waited for another's lock."""
    memory: int
    """Bytes that were held while all threads lived; 0 where they were not traced."""

    @property
    def throughput(self) -> float:
        """Operations a second."""
        return self.operations / self.wall


Results: TypeAlias = Mapping[Case, Result]


# --- measuring -----------------------------------------------------------------------------------------------


class Plan(NamedTuple):
    """How much is run."""

    rounds: int
    scale: float
    """Share of the guide's operations."""
    threads: tuple[int, ...]

    def operations(self, count: int) -> int:
        """Return how many of the guide's operations a thread carries out."""
        return max(1, int(count * self.scale))

    def workloads(self, number: int) -> list[tuple[str, int, int]]:
        """Return each workload of a round with its threads and the operations of a thread."""
        light, heavy = self.operations(1_000), self.operations(100)
        scaling = [(workload, threads, light) for workload in ("light", "waiting") for threads in self.threads]
        found = [("light", 8, light), ("heavy", 4, heavy), *scaling]
        if number == 0:  # memory is the same every time
            found += [("memory", threads, light) for threads in (1, 4, 8)]
        return list(dict.fromkeys(found))

    def spans(self) -> int:
        """Return how many operations a suite carries out, each of which is a span."""
        workloads = (workload for number in range(self.rounds) for workload in self.workloads(number))
        return len(MODES) * sum(threads * count for _, threads, count in workloads) + len(FLOWS)


def run_once(case: Case, operations: int, telemetry: Telemetry | None) -> Result:
    """Run a case on new threads, in a new context; the workload `memory` is the light one, traced."""
    traced = case.workload == "memory"
    flow, context = FLOWS["light" if traced else case.workload, case.mode], CONTEXTS[case.mode]()
    session = context.session()  # made before the threads race for it
    begin, end = threading.Barrier(case.threads + 1), threading.Barrier(case.threads + 1)
    times = [(0.0, 0.0)] * case.threads

    def worker(index: int) -> None:
        try:
            begin.wait()
            started = time.perf_counter()
            for item in range(operations):
                flow.run({"item": item}, context)
            times[index] = started, time.perf_counter()
            end.wait()
            end.wait()  # a thread that ends takes its session along
        except BaseException:
            end.abort()  # nobody waits for it then
            raise

    workers = [threading.Thread(target=worker, args=[index]) for index in range(case.threads)]
    for each in workers:
        each.start()
    if traced:
        tracemalloc.start()
    cpu = time.process_time()
    begin.wait()
    end.wait()
    if telemetry is not None:
        telemetry.force_flush()  # so that each run pays for exporting its own spans
    cpu = time.process_time() - cpu
    memory = held() if traced else 0
    end.wait()
    for each in workers:
        each.join()
    wall = max(ended for _, ended in times) - min(started for started, _ in times)
    count = case.threads * operations
    latency = sum(ended - started for started, ended in times) / count
    return Result(count, wall, latency, cpu, session.contended, memory)


def held() -> int:
    """Return the traced memory that is held and is no garbage, and stop tracing."""
    gc.collect()
    current, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return current


def run_suite(plan: Plan, telemetry: Telemetry | None = None) -> dict[Case, Result]:
    """Run every workload of the guide and return the fastest round of each."""
    for (_, mode), flow in FLOWS.items():
        flow.run({"item": 0}, CONTEXTS[mode]())  # plans are made
    found: dict[Case, Result] = {}
    for number in range(plan.rounds):  # outermost: a busy moment of the machine spoils one round of few cases
        for workload, threads, count in plan.workloads(number):
            for mode in MODES:
                case = Case(workload, mode, threads, telemetry is not None)
                result = run_once(case, count, telemetry)
                found[case] = min(result, found.get(case, result), key=lambda each: each.wall)
    return found


def export(results: Results, telemetry: Telemetry) -> None:
    """Record the results as gauges; the durations of the operations are exported by themselves."""
    meter = telemetry.meter_provider.get_meter("benchmarks")
    throughput = meter.create_gauge("benchmark.throughput", "{operation}/s", "Operations a second, all threads.")
    latency = meter.create_gauge("benchmark.latency", "s", "Mean time of an operation in its thread.")
    cpu = meter.create_gauge("benchmark.cpu", "s", "Processor time of an operation.")
    memory = meter.create_gauge("benchmark.memory", "By", "Memory held by the state of all threads.")
    for case, result in results.items():
        attributes = {f"benchmark.{name}": value for name, value in case._asdict().items()}
        if result.memory:
            memory.set(result.memory, attributes)
        else:
            throughput.set(result.throughput, attributes)
            latency.set(result.latency, attributes)
            cpu.set(result.cpu / result.operations, attributes)


# --- showing -------------------------------------------------------------------------------------------------


def table(title: str, header: str, rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; ``header`` has its columns between bars."""
    names = header.split(" | ")
    rule = ["---", *("---:" for _ in names[1:])]
    return "\n".join([f"## {title}\n", *("| " + " | ".join(row) + " |" for row in (names, rule, *rows)), ""])


def light_rows(found: Results) -> Iterator[list[str]]:
    """Yield the rows of the light table."""
    for case in [Case("light", mode, 8, telemetry) for telemetry in (False, True) for mode in MODES]:
        each = found[case]
        times = (f"{seconds * 1e6:.1f}" for seconds in (each.latency, each.cpu / each.operations))
        yield [label(case), f"{each.throughput:,.0f}", *times, share(each), *GUIDE_LIGHT[case.mode]]


def heavy_rows(found: Results) -> Iterator[list[str]]:
    """Yield the rows of the heavy table."""
    for case in [Case("heavy", mode, 4, telemetry) for telemetry in (False, True) for mode in MODES]:
        each = found[case]
        yield [
            label(case),
            f"{each.throughput:,.0f}",
            f"{each.cpu / each.wall:.0%}",
            share(each),
            *GUIDE_HEAVY[case.mode],
        ]


def scaling_rows(found: Results, workload: str, threads: Iterable[int]) -> Iterator[list[str]]:
    """Yield the rows of a scaling table."""
    for count in threads:
        row = [str(count)]
        for telemetry in (False, True):
            row += gain(*(found[Case(workload, mode, count, telemetry)].throughput for mode in MODES))
        yield [*row, *gain(*(GUIDE_SCALING[mode][count] for mode in MODES))]


def memory_rows(found: Results) -> Iterator[list[str]]:
    """Yield the rows of the memory table."""
    for count in (1, 4, 8):
        cases = [Case("memory", mode, count, telemetry) for telemetry in (False, True) for mode in MODES]
        yield [str(count), *(f"{found[case].memory / 1024:,.0f}" for case in cases), "high", "low"]


def gain(isolated: float, shared: float) -> list[str]:
    """Return the cells of two throughputs and what the first gains over the second."""
    return [f"{isolated:,.0f}", f"{shared:,.0f}", f"{isolated / shared - 1:+.0%}"]


def label(case: Case) -> str:
    """Return what tells the rows of a workload apart."""
    return f"{case.mode}, telemetry {'on' if case.telemetry else 'off'}"


def share(each: Result) -> str:
    """Return the share of operations that waited for a lock."""
    return f"{each.contended / each.operations:.2%}"


def tables(found: Results, plan: Plan) -> str:
    """Return every table."""
    operations = plan.operations(1_000)
    scaling = (
        "threads | isolated, off | shared, off | gain | isolated, on | shared, on | gain"
        " | guide: isolated | shared | gain"
    )
    return "\n".join([
        table(
            f"Light: 8 threads of {operations:,} operations",
            "mode | op/s | µs an op | CPU µs an op | waited for a lock | guide: op/s | guide: µs an op",
            light_rows(found),
        ),
        table(
            f"Heavy: 4 threads of {plan.operations(100):,} operations",
            "mode | op/s | CPU, with exporting | waited for a lock | guide: op/s | guide: CPU | guide: lock contention",
            heavy_rows(found),
        ),
        table("Scaling: op/s, waiting 100 µs", scaling, scaling_rows(found, "waiting", plan.threads)),
        table("Scaling: op/s, computing only", scaling, scaling_rows(found, "light", plan.threads)),
        table(
            "Memory held, KiB",
            "threads | isolated, off | shared, off | isolated, on | shared, on | guide: isolated | guide: shared",
            memory_rows(found),
        ),
    ])  # fmt: skip


# --- the plot ------------------------------------------------------------------------------------------------

Line: TypeAlias = tuple[str, str, Mapping[int, float]]
"""What a line is, how it is drawn, and its values by threads."""
WIDTH, HEIGHT, LEFT, TOP = 380, 240, 60, 40
COLOURS: Final[Mapping[Mode, str]] = {"isolated": 'stroke="#0b6e99"', "shared": 'stroke="#c2410c"'}


def lines_of(found: Results, workload: str, threads: Sequence[int]) -> Iterator[Line]:
    """Yield the lines of a workload, and of the guide where it did the same."""
    for telemetry, dashes in ((False, ""), (True, ' stroke-dasharray="6 3"')):
        for mode in MODES:
            cases = {count: Case(workload, mode, count, telemetry) for count in threads}
            values = {count: found[case].throughput for count, case in cases.items()}
            yield label(cases[threads[0]]), COLOURS[mode] + dashes, values
    if workload == "waiting":
        for mode in MODES:
            guide = {count: GUIDE_SCALING[mode][count] for count in threads}
            yield f"{mode}, the guide", COLOURS[mode] + ' stroke-dasharray="1 4"', guide


def plot(found: Results, threads: Sequence[int]) -> str:
    """Return an SVG of the throughput over threads: the waiting and the computing operation side by side."""
    waits, computes = (list(lines_of(found, workload, threads)) for workload in ("waiting", "light"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH + 220} {HEIGHT + 190}"'
        ' font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f'<g transform="translate({LEFT} {TOP})">{panel("waiting 100 µs", waits, threads)}</g>'
        f'<g transform="translate({LEFT + WIDTH + 100} {TOP})">{panel("computing only", computes, threads)}</g></svg>\n'
    )


def panel(title: str, lines: Sequence[Line], threads: Sequence[int]) -> str:
    """Return one set of axes with its lines and their legend."""
    top = max(value for _, _, values in lines for value in values.values())
    unit = 10 ** floor(log10(top / 4))
    top = 4 * unit * ceil(top / 4 / unit)
    across = {count: index * WIDTH / max(1, len(threads) - 1) for index, count in enumerate(threads)}
    parts = [f'<text y="-16" font-weight="bold">{escape(title)}: operations a second, by threads</text>']
    for step in range(5):
        y = HEIGHT * (1 - step / 4)
        parts.append(f'<path d="M0 {y:.0f}H{WIDTH}" stroke="#ddd"/>')
        parts.append(f'<text x="-6" y="{y + 4:.0f}" text-anchor="end">{top * step / 4:,.0f}</text>')
    parts += [f'<text x="{x:.0f}" y="{HEIGHT + 18}" text-anchor="middle">{count}</text>' for count, x in across.items()]
    for index, (name, style, values) in enumerate(lines):
        points = " ".join(f"{across[count]:.1f},{HEIGHT * (1 - value / top):.1f}" for count, value in values.items())
        parts.append(f'<polyline points="{points}" fill="none" stroke-width="2" {style}/>')
        y = HEIGHT + 42 + 18 * index
        parts.append(f'<path d="M0 {y - 4}h36" stroke-width="2" {style}/><text x="44" y="{y}">{escape(name)}</text>')
    return "".join(parts)


# --- the program ---------------------------------------------------------------------------------------------


def exported_spans(file: Path | None) -> int:
    """Return how many spans a file of OTLP JSON lines holds."""
    if file is None or not file.exists():
        return 0
    with file.open("rb") as lines:
        return sum(line.count(b'"startTimeUnixNano"') for line in lines)


def without_telemetry(plan: Plan) -> Results:
    """Run the suite in a process where nothing was configured and nothing was measured before."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(run_suite, plan).result()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the suite without and with telemetry and show both."""
    parser = argparse.ArgumentParser(description="The guide's benchmarks, beside the guide's figures.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the operations, one round, up to 4 threads")
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds of each, of which the fastest counts (%(default)s)"
    )
    parser.add_argument("--output", type=Path, default=Path(".aetherflow", "benchmarks"), help="where to (%(default)s)")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: allowed is 1 or more")
    plan = Plan(1, 0.1, (1, 2, 4)) if options.quick else Plan(options.rounds, 1.0, (1, 2, 4, 8, 16))

    found = dict(without_telemetry(plan))
    with configure("performance-benchmarks", "file", directory=options.output) as telemetry:
        found |= run_suite(plan, telemetry)
        export(found, telemetry)
    drawing = options.output / "scaling.svg"
    drawing.write_text(plot(found, plan.threads), encoding="utf-8")

    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, fastest of {plan.rounds} rounds\n")
    print(tables(found, plan))
    print(f"spans exported: {exported_spans(telemetry.path):,} of {plan.spans():,}")
    print(f"metrics: {telemetry.metrics_path}")
    print(f"plot: {drawing}")
    if telemetry.path is not None:
        telemetry.path.unlink(missing_ok=True)  # hundreds of megabytes that say no more than the metrics do


if __name__ == "__main__":
    main()
