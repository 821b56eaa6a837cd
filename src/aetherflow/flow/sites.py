"""What the spans and durations of nodes and runs always carry, put together once a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from aetherflow.engine.chunks import chunks_of
from aetherflow.engine.graph import Kind, Step, Task, tasks
from aetherflow.resources.scopes import combined_scope
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry import observer
from aetherflow.telemetry.conventions import ProviderScope
from aetherflow.telemetry.observation import Observer, Site
from aetherflow.telemetry.profiling import observer as profiling

__all__ = ["DIAGRAM_SITE", "node_site", "observer_for", "run_site", "stage_site"]

DIAGRAM_SITE: Final = Site("diagram", names.NODE_DURATION, {}, {}, is_kept=False)
"""The site of everything in a plan for a diagram, which never runs: drawing a flow creates no metric series."""

_TYPES: Mapping[Kind, names.NodeType] = {
    Kind.SYNC: "sync",
    Kind.ASYNC: "async",
    Kind.STREAM: "stream",
    Kind.ASYNC_STREAM: "stream",
}


def observer_for(step: Step) -> Callable[[], Observer]:
    """Return what gives the observer for the runs of a flow: of one where no node asks for profiles, nobody looks."""
    asks = any(task.profile is not None for task in tasks(step))
    return profiling.current_observer if asks else observer.current_observer


def run_site(flow: str, step: Step) -> Site:
    """Return where the runs of a flow are observed."""
    return Site(
        names.RUN_SPAN.format(flow=flow),
        names.RUN_DURATION,
        {names.FLOW_NAME: flow},
        {names.FLOW_NAME: flow, names.FLOW_NODES: sum(1 for _ in tasks(step))},
        is_node=False,
    )


def stage_site(flow: str, name: str, upstream: Iterable[str]) -> Site:
    """Return where a stage of a flow is observed that is no function of the user's.

    Args:
        flow: The name of the flow that it is part of.
        name: The stage's.
        upstream: The nodes whose output it takes.
    """
    attributes: dict[str, Any] = {
        names.FLOW_NAME: flow,
        names.NODE_NAME: name,
        names.NODE_TYPE: "stream",
        names.CODE_FUNCTION_NAME: f"{chunks_of.__module__}.{chunks_of.__qualname__}",
        names.PROVIDER_SCOPE: "none",
    }
    if unique := tuple(dict.fromkeys(upstream)):
        attributes[names.NODE_UPSTREAM] = unique
    metered = {names.FLOW_NAME: flow, names.NODE_NAME: name}
    label = f"node {name!r} of flow {flow!r}"
    return Site(name, names.NODE_DURATION, metered, attributes, label=label, is_stage=True)


def node_site(
    flow: str,
    task: Task,
    injected: Sequence[tuple[str, ProviderScope]],
    upstream: Iterable[str] = (),
    error_note: str = "",
) -> Site:
    """Return where the executions of a node are observed.

    Args:
        flow: The name of the flow that it is part of.
        task: The node.
        injected: The parameters that are injected, each with its provider's scope.
        upstream: The nodes whose output it takes, where that is so in every run.
        error_note: A note for exceptions that the node raises; empty for none.
    """
    attributes: dict[str, Any] = {
        names.FLOW_NAME: flow,
        names.NODE_NAME: task.name,
        names.NODE_TYPE: "batch" if task.batched is not None else _TYPES[task.declared],
        names.CODE_FUNCTION_NAME: task.qualname,
        names.PROVIDER_SCOPE: combined_scope(scope for _, scope in injected),
    }
    if injected:
        attributes[names.PROVIDER_NAMES] = tuple(name for name, _ in injected)
        attributes[names.PROVIDER_SCOPES] = tuple(scope for _, scope in injected)
    if unique := tuple(dict.fromkeys(upstream)):
        attributes[names.NODE_UPSTREAM] = unique
    if task.retries:
        attributes[names.NODE_ATTEMPT] = 1
    return Site(
        task.name,
        names.NODE_DURATION,
        {names.FLOW_NAME: flow, names.NODE_NAME: task.name},
        attributes,
        label=f"node {task.name!r} of flow {flow!r}",
        profile=task.profile,
        error_note=error_note,
        expected=task.expected,
        has_details=task.retries or task.cache is not None,
    )
