"""Memory of `run_many` over ever more inputs: it must not grow with their number.

    python benchmarks/run_many_memory.py [--inputs 1000000] [--workers 8]

Each input carries 1 kB, so that a million kept alive would be a gigabyte. Peaks are those of the whole process, above
what it needed after a tenth of a percent of the inputs; a peak never falls, so the lines show its growth.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import Final

from aetherflow import node

if sys.platform == "win32":
    raise SystemExit("peak memory is read in a way that this system does not have")

import resource

PAYLOAD: Final = 1_000
"""Bytes an input."""

_UNIT: Final = 1 if sys.platform == "darwin" else 1024
"""Bytes in the unit of the peak that the system tells."""


@node
def measured(payload: bytes) -> int:
    """Return how long an input is."""
    return len(payload)


@node
def checked(length: int) -> int:
    """Return the length, for a flow of more than one node."""
    return length


def peak() -> float:
    """Return the most memory that the process has had so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT / 1e6


def run(inputs: int, workers: int, ordered: bool) -> float:
    """Run a flow over so many inputs; return the seconds it took."""

    def source() -> Iterator[bytes]:
        for index in range(inputs):
            yield index.to_bytes(4, "big") * (PAYLOAD // 4)

    started = time.perf_counter()
    total = sum((measured >> checked).run_many(source(), max_workers=workers, ordered=ordered))
    assert total == inputs * PAYLOAD
    return time.perf_counter() - started


def main() -> None:
    """Print how the peak grows with the number of inputs."""
    parser = argparse.ArgumentParser(description="Memory of run_many over ever more inputs.")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="the most inputs")
    parser.add_argument("--workers", type=int, default=8, help="runs in flight")
    options = parser.parse_args()
    for ordered in (True, False):
        run(max(1, options.inputs // 1_000), options.workers, ordered)
    start = peak()
    print(f"peak at the start: {start:.1f} MB")
    print(f"{'inputs':>10}  {'order':<8}  {'peak above start':>16}  {'inputs/s':>9}")
    for inputs in (options.inputs // 100, options.inputs // 10, options.inputs):
        for ordered in (True, False):
            seconds = run(inputs, options.workers, ordered)
            order = "ordered" if ordered else "as ready"
            print(f"{inputs:>10,}  {order:<8}  {peak() - start:>13.1f} MB  {inputs / seconds:>9,.0f}")


if __name__ == "__main__":
    main()
