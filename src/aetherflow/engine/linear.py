"""The dedicated loop for straight chains of synchronous nodes.

Most flows are one, and here the engine's own cost is what a run costs: no coroutine, no dispatch, one clock reading
between two nodes.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any

from aetherflow.engine.awaitables import PLAIN_TYPES, resolved
from aetherflow.engine.execution import observed
from aetherflow.engine.plan import UNSET, Plan, Slots
from aetherflow.engine.under_way import shows_chain
from aetherflow.telemetry.metrics.accumulators import FOLD_AT
from aetherflow.telemetry.observation import ExecutionDetails, Lane, Observation, Observer, add, offer

__all__ = ["run_detailed", "run_metered", "run_observed", "run_traced"]


@shows_chain
def run_metered(plan: Plan, slots: Slots) -> Any:
    """Run a straight chain without spans and return its last output; durations are kept."""
    started = before = perf_counter_ns()
    value = None
    try:
        for invoke, slot, _, add in plan.steps:
            value = invoke(slots)
            try:
                is_plain = type(value) in PLAIN_TYPES
            except Exception:  # noqa: BLE001  # the hash of a class runs code of its metaclass
                is_plain = False
            if not is_plain:
                value = resolved(value)
            slots[slot] = value
            now = perf_counter_ns()
            add(now - before)
            before = now
    except BaseException as error:
        _fail(plan, slots, before, started, error)
        raise
    if plan.site is not None:
        plan.site.series.add(before - started)
    if len(plan.linear[-1].site.series.pending) > FOLD_AT:
        plan.relieve()
    return value


@shows_chain
def run_detailed(plan: Plan, slots: Slots) -> Any:
    """Run a chain with metrics only, in which the nodes with a cache or retries report details."""
    started = before = perf_counter_ns()
    value = details = None
    try:
        for op in plan.linear:
            site, details = op.site, None
            if site.has_details:
                details = ExecutionDetails(site)
                with details:
                    value = op.invoke(slots)
            else:
                value = resolved(op.invoke(slots))
            slots[op.slot] = value
            now = perf_counter_ns()
            add(site.series_for(None, None if details is None else details.kind), now - before)
            before = now
    except BaseException as error:
        _fail(plan, slots, before, started, error, details)
        raise
    if plan.site is not None:
        add(plan.site.series, before - started)
    return value


def _fail(
    plan: Plan,
    slots: Slots,
    before: int,
    started: int,
    error: BaseException,
    details: ExecutionDetails | None = None,
) -> None:
    for op in plan.linear:
        if slots[op.slot] is UNSET:
            observation = Observation(op.site, before)
            if details is not None:
                observation.report(details)
            observation.end(error)
            break
    if plan.site is not None:
        Observation(plan.site, started).end(error)


def run_observed(plan: Plan, slots: Slots, observer: Observer) -> Any:
    """Run the nodes of a straight chain one after the other, each with its span; return the last output."""
    value = None
    for op in plan.linear:
        slots[op.slot] = value = observed(observer, op, slots)
    return value


@shows_chain
def run_traced(plan: Plan, slots: Slots, lane: Lane) -> Any:
    """Run a straight chain with the spans that a lane begins; return the last output."""
    value = None
    before = perf_counter_ns()
    try:
        for invoke, slot, site, add in plan.steps:
            span = lane.begin(site, before)
            try:
                value = invoke(slots)
                try:
                    is_plain = type(value) in PLAIN_TYPES
                except Exception:  # noqa: BLE001  # as above
                    is_plain = False
                if not is_plain:
                    value = resolved(value)
                slots[slot] = value
            except BaseException as error:
                lane.fail(site, span, before, error)
                raise
            now = perf_counter_ns()
            duration = now - before
            add(duration)
            if (kept := site.series.exemplar) is None or duration > kept[0]:
                offer(site.series, duration)
            span.finish(now)
            before = now
    except BaseException as error:
        lane.end(error)
        raise
    lane.end()
    if len(site.series.pending) > FOLD_AT:
        plan.relieve()
    return value
