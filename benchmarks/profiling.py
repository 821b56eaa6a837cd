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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from aetherflow import Node, ProfilePolicy, node
from aetherflow.telemetry import profiling
from aetherflow.telemetry.capture import CapturedTelemetry
from aetherflow.telemetry.sampling import sampler

NUMBER: Final = 27
"""The Fibonacci number of a profiled node: tens of milliseconds of nothing but calls."""

RUNS: Final = 2
"""Executions a round and thread."""

QUICK: Final = 2_000
"""Executions a round of the node that does nothing, to see what is paid when it is not profiled."""

Work = Callable[[], object]


def fibonacci(number: int) -> int:
    """Return a Fibonacci number, by recursion."""
    return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)


def work() -> int:
    """Do nothing but calls."""
    return fibonacci(NUMBER)


def nothing() -> None:
    """Return at once."""


def repeated(made: Node[[], object], times: int, threads: int) -> Work:
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
        profiling.uninstall()


def measured(cases: dict[str, tuple[Work, ProfilePolicy | None]], rounds: int) -> dict[str, float]:
    """Return the median CPU seconds of each case; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, (run, policy) in cases.items():
            with installed(policy), CapturedTelemetry():
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
    plain, own = node(work), node(name="own", profile=True)(nothing)
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
        )
        show(f"profiled on {threads} threads, an execution", found, RUNS * threads)
        print(f"  looks taken: {sampler().ticks - ticks}")
    quick = repeated(node(nothing), QUICK, 1)
    found = measured(
        {
            "no policy": (quick, None),
            "policy for other nodes": (quick, ProfilePolicy(nodes="other")),
            "rate=0.0001": (quick, ProfilePolicy(rate=0.0001)),
            "slower_than=1": (quick, ProfilePolicy(slower_than=1.0)),
            'slower_than="p99"': (quick, ProfilePolicy(slower_than="p99")),
            "own policy, each profiled": (repeated(own, QUICK, 1), None),
        },
        options.rounds,
    )
    show("a node that does nothing, traced, an execution", found, QUICK)


if __name__ == "__main__":
    main()
