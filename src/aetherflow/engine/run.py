"""A run from its first slot to its last: the run span around the walk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry.trace import SpanContext

from aetherflow.engine.drivers import AsyncDriver, Driver, SyncDriver
from aetherflow.engine.execution import observed_alone
from aetherflow.engine.linear import run_detailed, run_metered, run_observed, run_traced
from aetherflow.engine.loops import drive, run_coroutine_in_context
from aetherflow.engine.plan import PARTITION, CallOp, Plan, Slots
from aetherflow.engine.pool import Outcome
from aetherflow.engine.together import observed_together
from aetherflow.engine.walk import walk, walk_all, within
from aetherflow.resources.async_providers import prepare_context_locals
from aetherflow.telemetry.conventions import RUN_ID
from aetherflow.telemetry.observation import Lane, Observation, Observer, Site, new_run_id

__all__ = ["RunInfo", "run", "run_async", "run_together"]


@dataclass(slots=True)
class RunInfo:
    """What a run tells of itself: its identifier, and the context of its first span where there is one."""

    run_id: str
    context: SpanContext | None = None


def run(plan: Plan, slots: Slots, info: RunInfo | None = None, buffer: int | None = None) -> Any:
    """Run a planned flow on the calling thread and return its last output.

    Args:
        plan: The flow.
        slots: The run's slots, inputs and providers filled in.
        info: Takes what the run tells of itself.
        buffer: The most items that each generator node makes ahead, on a thread of its own; None for none.
    """
    current_observer = plan.observer  # a variable, since CPython calls what an attribute holds more slowly
    observer = current_observer()
    if plan.linear:
        if observer.idle:
            return run_detailed(plan, slots) if plan.has_details else run_metered(plan, slots)
        if plan.is_plain:
            if plan.site is None:
                if info is None:  # else the context of its span is asked for
                    return observed_alone(observer, plan.linear[0], slots)
            elif not plan.has_details and (lane := _lane(plan.site, observer, info)) is not None:
                return run_traced(plan, slots, lane)
        return _Run(plan, slots, observer, info).linear()
    _resolve_context_local(plan, slots)
    return drive(_Run(plan, slots, observer, info).walked(SyncDriver(observer, buffer)))


def _lane(site: Site, observer: Observer, info: RunInfo | None) -> Lane | None:
    """Begin the run of a straight chain, if its spans can be begun one after the other."""
    if info is None:
        return observer.lane(site)
    lane = observer.lane(site, info.run_id)
    if lane is not None:
        info.context = lane.context
    return lane


def run_together(runs: Sequence[tuple[Plan, Slots]]) -> list[Outcome]:
    """Run a flow that is one batched node many times at once, on the calling thread.

    Args:
        runs: The flow, maybe as it was planned for different inputs, and the slots of each run; at least one.
    """
    observer = runs[0][0].observer()
    for plan, slots in runs:
        _resolve_context_local(plan, slots)
        if observer.tracing:
            slots[PARTITION] = {RUN_ID: new_run_id()}
    executions = [(plan.op, slots) for plan, slots in runs if isinstance(plan.op, CallOp)]
    return drive(observed_together(observer, executions, SyncDriver(observer), stop_on_error=False, waits=False))


async def run_async(plan: Plan, slots: Slots, info: RunInfo | None = None, buffer: int | None = None) -> Any:
    """Run a planned flow on the running event loop and return its last output; as :func:`run` otherwise."""
    observer = plan.observer()
    for slot in plan.context_local:
        slots[slot]()
    await _await_context_local(plan, slots)
    return await _Run(plan, slots, observer, info).walked(AsyncDriver(observer, buffer))


def _resolve_context_local(plan: Plan, slots: Slots) -> None:
    for slot in plan.context_local:
        slots[slot]()
    if plan.awaited_local:
        run_coroutine_in_context(_await_context_local, plan, slots)


async def _await_context_local(plan: Plan, slots: Slots) -> None:
    for slot in plan.awaited_local:
        await prepare_context_locals(slots[slot])


class _Run:
    """One run under observation."""

    __slots__ = ("_info", "_observer", "_plan", "_slots")

    def __init__(self, plan: Plan, slots: Slots, observer: Observer, info: RunInfo | None) -> None:
        self._plan = plan
        self._slots = slots
        self._observer = observer
        self._info = info

    def linear(self) -> Any:
        plan, slots, observer = self._plan, self._slots, self._observer
        seen = self._begin()
        if seen is None:
            return run_observed(plan, slots, observer)
        if seen.sampled_out and observer.metering.idle:
            token = seen.enter()
            try:
                return run_detailed(plan, slots) if plan.has_details else run_metered(plan, slots)
            finally:
                seen.leave(token)
        with seen:
            return run_observed(plan, slots, observer)

    async def walked(self, driver: Driver) -> Any:
        plan, slots = self._plan, self._slots
        seen = self._begin()
        if seen is None:
            await walk(plan.op, slots, driver)
            return slots[plan.op.slot]
        if seen.sampled_out:
            driver.observer = self._observer.metering
        return await within(seen, walk_all(plan.op, slots, driver))

    def _begin(self) -> Observation | None:
        """Begin the run's observation; a run of a single node is observed as that node."""
        plan, info = self._plan, self._info
        run_id = None if info is None else info.run_id
        if plan.site is None:
            if self._observer.tracing:
                self._slots[PARTITION] = {RUN_ID: run_id or new_run_id()}
            return None
        seen = self._observer.begin_run(plan.site, run_id)
        if info is not None:
            info.context = seen.context
        return seen
