"""Where a traced run spends its time: making spans and encoding them, apart from each other and from the run itself.

Run it with ``python -m benchmarks.spans [--rounds 31] [--runs 500] [--profile SHAPE]``. The shapes are a run of one
node, a chain of three, and four branches between two nodes. Each is run without telemetry and with spans that are only
kept, in turn; then those spans are encoded. Figures are µs a run, the median and the lowest of the rounds, and what
they are of the run without telemetry: a ratio of two medians is what to read on a machine that others use as well. With
``--profile`` cProfile shows where one shape's traced runs spend it.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from rich.console import Console
from rich.table import Table

from aetherflow import Node, node
from aetherflow.telemetry import active
from aetherflow.telemetry.encoding.lean_wire import encode_lean

SHOWN = 25
"""Rows of a profile."""


class Keep(SpanProcessor):
    """Keeps spans as they are."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.push = self.spans.append  # what lean spans are handed to

    def on_end(self, span: ReadableSpan) -> None:
        """Keep one."""
        self.push(span)


def passing(name: str) -> Node[..., Any, Any]:
    """Return a node that does nothing."""

    def same(x: Any) -> Any:
        return x

    return node(name=name)(same)


def shapes() -> dict[str, Node[..., Any, Any]]:
    """Return the flows."""
    branches = [passing(name) for name in "abcd"]
    return {
        "one node": passing("alone"),
        "chain": passing("first") >> passing("second") >> passing("third"),
        "fan-out": passing("source") >> branches >> passing("sink"),
    }


def taken(call: Callable[[], object], runs: int) -> float:
    """Return the µs that one of several calls takes."""
    started = time.perf_counter()
    for _ in range(runs):
        call()
    return (time.perf_counter() - started) / runs * 1e6


def rounds(
    keep: Keep, flows: dict[str, Node[..., Any, Any]], number: int, runs: int
) -> Iterator[tuple[str, str, float]]:
    """Measure everything in turn; yield the shape, what was measured, and µs a run."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(keep)
    for _ in range(number):
        for shape, flow in flows.items():
            for what, providers in (("untraced", active.Providers()), ("spans kept", active.Providers(provider))):
                active.set_active(providers)
                yield shape, what, taken(partial(flow.run, {"x": 1}), runs)
            spans = [*keep.spans]
            keep.spans.clear()
            started = time.perf_counter()
            for span in spans:
                encode_lean(span)
            yield shape, "encoding", (time.perf_counter() - started) / runs * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=31, help="rounds over all cases (%(default)s)")
    parser.add_argument("--runs", type=int, default=500, help="runs of a case in a round (%(default)s)")
    flows = shapes()
    parser.add_argument("--profile", choices=list(flows), help="show where the traced runs of a shape spend their time")
    options = parser.parse_args()
    found: dict[tuple[str, str], list[float]] = {}
    for shape, what, value in rounds(Keep(), flows, options.rounds, options.runs):
        found.setdefault((shape, what), []).append(value)
    table = Table(title="µs a run: the median of the rounds, the lowest, and the median as times the untraced run's")
    for column in ("shape", "", "median", "lowest", "of untraced"):
        table.add_column(column, justify="right" if column in ("median", "lowest", "of untraced") else "left")
    for (shape, what), values in found.items():
        median = statistics.median(values)
        ratio = median / statistics.median(found[shape, "untraced"])
        table.add_row(shape, what, f"{median:.1f}", f"{min(values):.1f}", f"{ratio:.2f}")
    Console(width=100).print(table)
    if options.profile:
        profile = cProfile.Profile()
        profile.runcall(taken, lambda: flows[options.profile].run({"x": 1}), 5_000)
        pstats.Stats(profile).sort_stats("tottime").print_stats(SHOWN)


if __name__ == "__main__":
    main()
