"""What a profile costs the node that is profiled, and what its absence costs the others.

    python benchmarks/profiling.py [--rounds 15] [--threads 1 8]

The node computes a Fibonacci number by recursion: nothing but calls, the worst case for cProfile. Times are CPU seconds
of the whole process, so that the sampling thread counts and a busy machine does not; cases take turns, and each figure
is the median of the rounds, beside that of the node without a profile.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from aetherflow import Node, ProfilePolicy, node
from aetherflow.telemetry import active
from aetherflow.telemetry.profiling import observer as profiling
from aetherflow.telemetry.profiling.sampling import sampler

NUMBER: Final = 27
"""The Fibonacci number of a profiled node: tens of milliseconds of nothing but calls."""

RUNS: Final = 2
"""Executions a round and thread."""

QUICK: Final = 2_000
"""Runs a round of nodes that do nothing, to see what is paid where nothing is profiled."""

Work = Callable[[], object]
Setting = Callable[[], AbstractContextManager[None]]


def fibonacci(number: int) -> int:
    """Return a Fibonacci number, by recursion."""
    return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)


def work() -> int:
    """Do nothing but calls."""
    return fibonacci(NUMBER)


def first() -> int:
    """Return at once."""
    return 1


def second(first: int) -> int:
    """Return at once."""
    return first


def third(second: int) -> int:
    """Return at once."""
    return second


def repeated(made: Node[[], object, object], times: int, threads: int) -> Work:
    """Return what runs a node so many times on each of so many threads."""

    def run() -> None:
        for _ in range(times):
            made.run()

    def run_on_threads() -> None:
        all_threads = [threading.Thread(target=run) for _ in range(threads)]
        for thread in all_threads:
            thread.start()
        for thread in all_threads:
            thread.join()

    return run if threads == 1 else run_on_threads


@contextmanager
def installed(policy: ProfilePolicy | None) -> Iterator[None]:
    """Have a policy in force for all nodes."""
    if policy is not None:
        profiling.install(policy)
    try:
        yield
    finally:
        active.set_profiling(None)


class Discard(SpanExporter):
    """Takes spans and forgets them."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Forget them."""
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """There is nothing to close."""


@contextmanager
def traced() -> Iterator[None]:
    """Have spans, exported by the stock batch processor into nothing."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Discard(), max_queue_size=1 << 16))
    active.set_active(active.Providers(provider))
    try:
        yield
    finally:
        active.set_active(None)
        provider.shutdown()


def measured(cases: dict[str, tuple[Work, ProfilePolicy | None]], rounds: int, setting: Setting) -> dict[str, float]:
    """Return the median CPU seconds of each case; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, (run, policy) in cases.items():
            with installed(policy), setting():
                run()  # whatever is only done once
                before = time.process_time()
                run()
                times[name].append(time.process_time() - before)
    return {name: statistics.median(each) for name, each in times.items()}


def show(title: str, found: dict[str, float], executions: int) -> None:
    """Print a table of the cases, the first one being what the others are compared with."""
    bare = next(iter(found.values()))
    print(f"\n{title}")
    for name, seconds in found.items():
        print(f"  {name:<34} {seconds / executions * 1e6:>10.1f} µs   {seconds / bare:>5.2f} x")


def main() -> None:
    """Print what profiles cost."""
    parser = argparse.ArgumentParser(description="What a profile costs.")
    parser.add_argument("--rounds", type=int, default=15, help="times that each case is measured")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 8], help="threads that run the node at once")
    options = parser.parse_args()
    print(f"Python {sys.version.split()[0]}")
    plain = node(work)
    sampled = node(name="sampled", profile=ProfilePolicy(profiler="sampling"))(work)
    counted = node(name="counted", profile=ProfilePolicy(profiler="cprofile"))(work)
    for threads in options.threads:
        ticks = sampler().ticks
        found = measured(
            {
                "not profiled": (repeated(plain, RUNS, threads), None),
                "sampling": (repeated(sampled, RUNS, threads), None),
                "cProfile, one execution at a time": (repeated(counted, RUNS, threads), None),
            },
            options.rounds,
            traced,
        )
        show(f"profiled on {threads} threads, an execution", found, RUNS * threads)
        print(f"  looks taken: {sampler().ticks - ticks}")
    flow = node(first) >> node(second) >> node(third)
    policies = {
        "no policy": None,
        "policy for other nodes": ProfilePolicy(nodes="other"),
        "rate=1e-9": ProfilePolicy(rate=1e-9),
        "slower_than=1": ProfilePolicy(slower_than=1.0),
        'slower_than="p99"': ProfilePolicy(slower_than="p99"),
    }
    for title, setting in (("without a tracer", nullcontext), ("traced", traced)):
        found = measured(
            {name: (repeated(flow, QUICK, 1), policy) for name, policy in policies.items()}, options.rounds, setting
        )
        show(f"a node of a chain of three that do nothing, {title}", found, 3 * QUICK)


if __name__ == "__main__":
    main()
