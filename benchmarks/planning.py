"""The cost of planning a flow, which happens once per flow, context class and input names, and of a diagram.

Run it with ``python -m benchmarks.planning [--rounds 300]``. Each figure is the median of the rounds, in µs. To compare
two versions, run both in turn several times and compare the medians: absolute times are those of this machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

from dependency_injector import providers

from aetherflow import BaseFlowContext, Node, node
from aetherflow.flow.planning import plan


class Context(BaseFlowContext):
    """A context with one provider of its own."""

    service: providers.Provider[dict[str, str]] = providers.Singleton(dict)


def first(text: str, limit: int = 1) -> str:
    """First node: takes a run input."""
    return text * limit


def later(value: str, service: dict[str, str] | None = None, *, limit: int = 3) -> str:
    """Each later node: takes the previous output, a provider and a default."""
    return f"{value}{service}{limit}"


def chain(length: int) -> Node[..., str]:
    """Return a chain of so many nodes."""
    flow: Node[..., str] = node(name="node0")(first)
    for index in range(1, length):
        flow = flow >> node(name=f"node{index}")(later)
    return flow


def median(call: Callable[[], object], rounds: int) -> float:
    """Return the median duration of a call, in µs."""
    durations = []
    for _ in range(rounds):
        started = time.perf_counter_ns()
        call()
        durations.append(time.perf_counter_ns() - started)
    return statistics.median(durations) / 1e3


def main() -> None:
    """Print the cost for chains of several lengths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300, help="rounds per figure (default: %(default)s)")
    rounds = parser.parse_args().rounds
    context = Context()
    print(f"{'nodes':>5} {'plan, µs':>10} {'with a context':>15} {'diagram, µs':>12}")
    for length in (1, 10, 100):
        flow = chain(length)
        step = flow._step
        figures = (
            median(partial(plan, "flow", step, ("text",), None), rounds),
            median(partial(plan, "flow", step, ("text",), context), rounds),
            median(flow.to_mermaid, max(rounds // 10, 1)),
        )
        print(f"{length:>5} {figures[0]:>10.0f} {figures[1]:>15.0f} {figures[2]:>12.0f}")


if __name__ == "__main__":
    main()
