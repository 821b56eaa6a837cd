"""`aetherflow.node.active`: what executes at the moment of a collection, and nothing else."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from tests.support.forking import fork

from aetherflow import node
from aetherflow.engine import pool
from aetherflow.engine.under_way import _readings
from aetherflow.telemetry import active
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.metrics.accumulators import Registry

TRACERS: dict[str, Callable[[], TracerProvider | None]] = {
    "no tracer": lambda: None,
    "sampled": lambda: TracerProvider(ALWAYS_ON, shutdown_on_exit=False),
    "sampled out": lambda: TracerProvider(ALWAYS_OFF, shutdown_on_exit=False),
}


class Meter:
    """A provider, and what it tells of the executions under way."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader], shutdown_on_exit=False)

    def active(self) -> dict[str, int]:
        """Return the executions under way by node, those of all flows together."""
        data = self._reader.get_metrics_data()
        metrics = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics] if data else []
        found: dict[str, int] = {}
        for point in (
            p for metric in metrics if metric.name == names.NODE_ACTIVE.name for p in metric.data.data_points
        ):
            name = point.attributes[names.NODE_NAME]
            found[name] = found.get(name, 0) + point.value
        return found


@pytest.fixture(params=TRACERS)
def meter(request: pytest.FixtureRequest) -> Iterator[Meter]:
    """A meter in use, beside each kind of tracer."""
    made = Meter()
    active.set_active(active.Providers(TRACERS[request.param](), made.provider))
    yield made
    active.set_active(None)


class Gate:
    """Holds nodes up until they are let through."""

    def __init__(self, parties: int = 1) -> None:
        self._reached = threading.Semaphore(0)
        self._parties = parties
        self._open = threading.Event()

    def wait(self) -> None:
        self._reached.release()
        assert self._open.wait(30)

    @contextmanager
    def held(self, run: Callable[[], Any]) -> Iterator[None]:
        """While a thread runs something, and all parties are held up in it."""
        thread = threading.Thread(target=run)
        thread.start()
        for _ in range(self._parties):
            assert self._reached.acquire(timeout=30)
        try:
            yield
        finally:
            self._open.set()
            thread.join(30)
        assert not thread.is_alive()


def test_of_a_chain_the_node_that_executes_is_active(meter: Meter) -> None:
    """The ones before and after it are not; afterwards none is."""
    gate = Gate()
    held = node(lambda x: gate.wait(), name="second")
    flow = node(lambda: 1, name="first") >> held >> node(lambda x: x, name="third")
    with gate.held(flow.run):
        found = meter.active()
        assert found["second"] == 1
        assert not found.get("first")
        assert not found.get("third")
    assert {name: meter.active()[name] for name in ("first", "second", "third")} == dict.fromkeys(
        ("first", "second", "third"), 0
    )


def test_branches_and_elements_are_active_each_for_itself(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three elements of one node on threads, and the node that started them from inside."""
    monkeypatch.setattr(pool._Default, "pool", pool.ThreadPool(3, "three"))
    gate = Gate(parties=3)
    inner = node(lambda: [1, 2, 3], name="source").map(node(lambda x: gate.wait(), name="element"), max_concurrency=3)
    outer = node(inner.run, name="outer")
    with gate.held(outer.run):
        found = meter.active()
        assert (found["element"], found["outer"]) == (3, 1)
        assert not found.get("source")
    assert meter.active()["element"] == 0


def test_a_suspended_coroutine_is_active(meter: Meter) -> None:
    """Although no thread has it on its stack; until it ends, be it by cancellation."""

    async def run() -> None:
        reached = asyncio.Event()

        @node
        async def waiting() -> None:
            reached.set()
            await asyncio.Event().wait()

        tasks = [asyncio.create_task(waiting.arun()) for _ in range(2)]
        await reached.wait()
        await asyncio.sleep(0)
        assert meter.active()["waiting"] == 2
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert meter.active()["waiting"] == 0

    asyncio.run(run())


def test_a_stream_is_active_from_the_first_pull_to_its_end(meter: Meter) -> None:
    """Also while nobody pulls, and not before."""

    @node
    def numbers() -> Iterator[int]:
        yield from (1, 2)

    stream = numbers.stream()
    assert not meter.active().get("numbers")
    next(stream)
    assert meter.active()["numbers"] == 1
    stream.close()  # type: ignore[attr-defined]  # what a generator node gives has it
    assert meter.active()["numbers"] == 0


def test_a_node_that_fails_is_active_no_longer(meter: Meter) -> None:
    """And is told with the attributes of a node alone."""

    @node
    def fail() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        fail.run()
    assert meter.active()["fail"] == 0


def test_a_node_is_one_whatever_its_executions_were() -> None:
    """Failures, cache hits and retried executions are of the same node, which is listed once, without their kind."""
    store = Registry()
    of_node = {names.FLOW_NAME: "f", names.NODE_NAME: "n"}
    for more in ({}, {names.EXECUTION_KIND: "cache_hit"}, {names.EXECUTION_KIND: "retried", names.ERROR_TYPE: "E"}):
        store.series(names.NODE_DURATION, {**of_node, **more}).add(1)
    assert _readings(store) == [(0, of_node)]


def test_the_metric_is_one_a_late_reader_reads_right() -> None:
    """It tells how many there are, not by how many more there are than before."""
    definition = names.NODE_ACTIVE
    assert definition.instrument == "observable_up_down_counter"
    assert hasattr(metrics.Meter, f"create_{definition.instrument}")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_nothing_under_way() -> None:
    """Streams of the parent, which its other threads may pull, are not counted in the child."""

    @node
    def counting_here() -> Iterator[int]:
        yield from range(3)

    made = Meter()
    active.set_active(active.Providers(None, made.provider))
    with counting_here.stream() as stream:
        next(stream)
        assert made.active()["counting_here"] == 1
        child = fork()
        if child == 0:
            os._exit(made.active().get("counting_here", 0))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    active.set_active(None)
