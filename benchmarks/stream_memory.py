"""Memory of a stream over ever more lines: it must not grow with their number.

    python benchmarks/stream_memory.py [--lines 10000000] [--buffer 1000]

Three generator nodes read a file, take lines apart and keep some of them. Peaks are those of the whole process, above
what it needed after a thousandth of the lines; a peak never falls, so the rows show its growth. Without ``--buffer``
items are made when they are pulled; with it each stage is on a thread of its own, that many items ahead.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from aetherflow import node

if sys.platform == "win32":
    raise SystemExit("peak memory is read in a way that this system does not have")

import resource

_UNIT: Final = 1 if sys.platform == "darwin" else 1024
"""Bytes in the unit of the peak that the system tells."""

Fields = tuple[str, int]


@node
def lines(path: Path, count: int) -> Iterator[str]:
    """Read the first lines of an access log."""
    with path.open() as log:
        for _, line in zip(range(count), log, strict=False):
            yield line


@node
def parsed(log: Iterator[str]) -> Iterator[Fields]:
    """Take each line apart: its path and its status."""
    for line in log:
        _, path, status = line.split()
        yield path, int(status)


@node
def failures(requests: Iterator[Fields]) -> Iterator[str]:
    """Keep the paths of requests that failed."""
    for path, status in requests:
        if status >= 500:
            yield path


flow = (lines >> parsed >> failures).named("failures")


def peak() -> float:
    """Return the most memory that the process has had so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT / 1e6


def write_log(path: Path, count: int) -> None:
    """Write an access log in which every tenth request failed."""
    with path.open("w") as log:
        for number in range(count):
            log.write(f"GET /items/{number} {503 if number % 10 == 0 else 200}\n")


def run(path: Path, count: int, buffer: int | None) -> float:
    """Pull the failures among so many lines through the flow; return the seconds it took."""
    started = time.perf_counter()
    with flow.stream({"path": path, "count": count}, buffer=buffer) as items:
        found = sum(1 for _ in items)
    assert found == -(-count // 10)
    return time.perf_counter() - started


def main() -> None:
    """Print how the peak grows with the number of lines."""
    parser = argparse.ArgumentParser(description="Memory of a stream over ever more lines.")
    parser.add_argument("--lines", type=int, default=10_000_000, help="the most lines")
    parser.add_argument("--buffer", type=int, default=None, metavar="N", help="items that each stage makes ahead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "access.log")
        write_log(path, options.lines)
        run(path, max(1, options.lines // 1_000), options.buffer)
        start = peak()
        print(f"peak at the start: {start:.1f} MB")
        print(f"{'lines':>12}  {'peak above start':>16}  {'lines/s':>11}")
        for count in (options.lines // 100, options.lines // 10, options.lines):
            seconds = run(path, count, options.buffer)
            print(f"{count:>12,}  {peak() - start:>13.1f} MB  {count / seconds:>11,.0f}")


if __name__ == "__main__":
    main()
