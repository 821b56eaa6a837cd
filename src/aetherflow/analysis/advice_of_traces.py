"""Advice from traces: how fine nodes are, what bounds a fan-out, and what a run mostly waits for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from aetherflow.analysis.advice_point import Advice
from aetherflow.analysis.run_evidence import FlowEvidence, RunEvidence
from aetherflow.telemetry import conventions as names

__all__ = [
    "advise_on_coarse_nodes",
    "advise_on_critical_nodes",
    "advise_on_fan_outs",
    "advise_on_fine_nodes",
    "advise_on_thread_locals",
]

_FEWEST_RUNS: Final = 5
_FEWEST_EXECUTIONS: Final = 100
_COST: Final = 0.2
"""Share of a run between its nodes from which on they are too fine."""
_COARSE_SECONDS: Final = 1.0
_COARSE_SHARE: Final = 0.8
_IDLE: Final = 0.3
_WEIGHT: Final = 0.2
"""Share of a run that a fan-out must take to be worth a word."""
_CRITICAL: Final = 0.5
_MUCH_MEMORY: Final = 100 * 1024 * 1024


def advise_on_fine_nodes(runs: RunEvidence) -> Iterator[Advice]:
    """Find flows that spend much of their time between nodes."""
    for name, flow in _known(runs):
        executions = sum(node.executions for node in flow.nodes.values())
        if executions < _FEWEST_EXECUTIONS or flow.between < _COST * flow.seconds:
            continue
        each = flow.between / executions
        fine = sorted(node for node, seen in flow.nodes.items() if seen.computed and seen.mean < each)
        if fine:
            yield Advice(
                "node-too-fine",
                name,
                f"{flow.between / flow.seconds:.0%} of the runs' time is between nodes, {each * 1e6:,.0f} µs for each "
                f"of {executions:,} executions, and less is done in {', '.join(fine)}",
                {"between": flow.between / flow.seconds, "cost": each, "executions": float(executions)},
                "one node that does what several do (a plain function that calls them), or lists instead of items: "
                "source.map_batches(node, 100), @node(batch=BatchPolicy(…))",
                f"{names.RUN_DURATION.name} of {name} falls by up to {flow.between / flow.runs * 1e3:,.2f} ms a run",
            )


def advise_on_coarse_nodes(runs: RunEvidence) -> Iterator[Advice]:
    """Find nodes that are nearly all of a run, for long, on one thread."""
    for name, flow in _known(runs):
        for node, seen in sorted(flow.nodes.items()):
            mean = seen.mean
            if mean >= _COARSE_SECONDS and not seen.parts and seen.alone >= _COARSE_SHARE * flow.seconds:
                yield Advice(
                    "node-too-coarse",
                    f"{name}/{node}",
                    f"for {seen.alone / flow.seconds:.0%} of the runs' time it is the only node at work, "
                    f"{mean:.2f} s at a time: nothing can run beside it, nor be retried, cached or seen apart",
                    {"share": seen.alone / flow.seconds, "mean": mean},
                    f"split its input and work on the parts side by side: split >> [{node}] * 4 >> join, or "
                    f'split.map({node}, max_concurrency=4, executor="process") where it computes',
                    f"the trace shows {node} several times side by side, and {names.RUN_DURATION.name} falls",
                )


def advise_on_fan_outs(runs: RunEvidence) -> Iterator[Advice]:
    """Find fan-outs in which workers mostly wait for the slowest branch."""
    for name, flow in _known(runs):
        for title, fan_out in sorted(flow.fan_outs.items()):
            idle = fan_out.idle / fan_out.seconds if fan_out.seconds else 0.0
            if fan_out.times < _FEWEST_RUNS or idle < _IDLE or fan_out.seconds < _WEIGHT * flow.seconds:
                continue
            slowest = max(fan_out.slowest, key=fan_out.slowest.__getitem__)
            change = (
                "more, smaller and more even partitions than workers: the same [node] * k over a longer list"
                if fan_out.partitioned
                else f"start {slowest} earlier, split it, or give the shorter branches more of the work"
            )
            yield Advice(
                "fan-out-imbalance",
                f"{name}: {title}",
                f"its workers wait for {idle:.0%} of the {fan_out.seconds / fan_out.times * 1e3:,.1f} ms it takes, "
                f"mostly for {slowest}",
                {
                    "idle": idle,
                    "seconds": fan_out.seconds / fan_out.times,
                    "branches": fan_out.branches / fan_out.times,
                },
                change,
                f"{names.RUN_DURATION.name} of {name} falls by up to {fan_out.idle / fan_out.times * 1e3:,.1f} ms",
            )


def advise_on_critical_nodes(runs: RunEvidence) -> Iterator[Advice]:
    """Find the nodes that runs mostly wait for, with nothing else going on."""
    for name, flow in _known(runs):
        ranked = sorted(flow.nodes, key=lambda node: -flow.nodes[node].alone)
        if len(ranked) <= 1 or flow.nodes[ranked[0]].alone < _CRITICAL * flow.seconds:  # one alone is the run
            continue
        shares = {node: flow.nodes[node].alone / flow.seconds for node in ranked[:3]}
        told = ", ".join(f"{node} {share:.0%}" for node, share in shares.items())
        first = ranked[0]
        yield Advice(
            "critical-node",
            f"{name}/{first}",
            f"runs wait for one node alone: {told} of {flow.seconds / flow.runs * 1e3:,.1f} ms",
            {f"share_{node}": share for node, share in shares.items()},
            f"make {first} faster before anything else (profile=True shows where its time goes), or let what does "
            "not need its output run beside it: a >> [b, c] >> d",
            f"twice as fast, {first} would save {shares[first] / 2:.0%} of {names.RUN_DURATION.name}",
        )


def advise_on_thread_locals(runs: RunEvidence, sizes: Mapping[str, int]) -> Iterator[Advice]:
    """Find thread-local objects that take much memory together; their sizes must be known."""
    threads: dict[str, set[object]] = {}
    for flow in runs.flows.values():
        for node in flow.nodes.values():
            for provider, scope in node.providers.items():
                if scope == "thread_local":
                    threads.setdefault(provider, set()).update(node.threads)
    for provider, seen in sorted(threads.items()):
        total = sizes.get(provider, 0) * len(seen)
        if total >= _MUCH_MEMORY and len(seen) > 1:
            yield Advice(
                "thread-local-memory",
                provider,
                f"{len(seen)} threads have one each, {total / 2**20:,.0f} MB in all",
                {"threads": float(len(seen)), "bytes": float(total)},
                f"{provider} = providers.ThreadSafeSingleton(…) where it may be shared, or "
                f"providers.Singleton(ObjectPool, …, max_size={max(1, len(seen) // 4)}) where it may not",
                "the process is smaller, and 'aetherflow capacity' shows no more contention",
            )


def _known(runs: RunEvidence) -> Iterator[tuple[str, FlowEvidence]]:
    return ((name, flow) for name, flow in sorted(runs.flows.items()) if flow.runs >= _FEWEST_RUNS and flow.seconds)
