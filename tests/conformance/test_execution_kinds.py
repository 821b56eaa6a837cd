"""Executions that were not computed at their first attempt have a kind on the span and in the metric."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.conformance.conftest import TelemetryPath
from tests.conformance.contract import check_contract

from aetherflow.flow.decorating import node
from aetherflow.flow.node import Node
from aetherflow.flow.policies import RetryPolicy
from aetherflow.resources.caching import CachePolicy
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.metrics.accumulators import registry
from aetherflow.testing import CapturedTelemetry, FakeClock

Counted = dict[tuple[str | None, str | None], int]


@node
def source(n: int) -> int:
    return n


def called(step: Node[..., Any]) -> Any:
    result = step(1)
    return asyncio.run(result) if asyncio.iscoroutine(result) else result


def run(step: Node[..., Any]) -> Any:
    return step.run({"n": 1})


def arun(step: Node[..., Any]) -> Any:
    return asyncio.run(step.arun({"n": 1}))


def in_a_chain(step: Node[..., Any]) -> Any:
    return (source >> step).run({"n": 1})


def in_a_chain_async(step: Node[..., Any]) -> Any:
    return asyncio.run((source >> step).arun({"n": 1}))


def in_a_fan_out(step: Node[..., Any]) -> Any:
    return (source >> [step, source.named("other")]).run({"n": 1})["step"]


WAYS = [called, run, arun, in_a_chain, in_a_chain_async, in_a_fan_out]
every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
both_kinds = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def step_of(function: Callable[[int], Any], is_async: bool, **options: Any) -> Node[..., Any]:
    async def later(n: int) -> Any:
        return function(n)

    return node(name="step", **options)(later if is_async else function)


def durations(captured: CapturedTelemetry) -> Counted:
    """Return the number of executions of the step by kind and type of error."""
    return {
        (point.attributes.get(names.EXECUTION_KIND), point.attributes.get(names.ERROR_TYPE)): point.count
        for point in captured.points(names.NODE_DURATION.name)
        if point.attributes[names.NODE_NAME] == "step"
    }


def kinds_of(captured: CapturedTelemetry) -> list[Any]:
    return [span.attributes.get(names.EXECUTION_KIND) for span in captured.spans_named("step")]


@every_way
@both_kinds
def test_cache_hits_have_a_kind(way: Callable[..., Any], is_async: bool) -> None:
    """The first execution is computed, and the others are hits, on the span and in the metric."""
    step = step_of(lambda n: n, is_async, cache=CachePolicy())
    with CapturedTelemetry() as captured:
        assert [way(step) for _ in range(3)] == [1, 1, 1]
    assert kinds_of(captured) == [None, "cache_hit", "cache_hit"]
    assert durations(captured) == {(None, None): 1, ("cache_hit", None): 2}


@every_way
@both_kinds
def test_retried_executions_have_a_kind_and_the_time_between_attempts(way: Callable[..., Any], is_async: bool) -> None:
    """The span has the sum, and the metric one value for each wait."""
    clock, failures = FakeClock(), [OSError(), OSError()]

    def flaky(n: int) -> int:
        if failures:
            raise failures.pop()
        return n

    policy = RetryPolicy(on=OSError, wait_jitter=0, sleep=clock.sleep, async_sleep=clock.async_sleep)
    step = step_of(flaky, is_async, retry=policy)
    with CapturedTelemetry() as captured:
        assert [way(step), way(step)] == [1, 1]
    assert kinds_of(captured) == ["retried", None]
    assert durations(captured) == {("retried", None): 1, (None, None): 1}
    (waits,) = captured.points(names.RETRY_WAIT)
    assert waits.count == 2
    assert waits.attributes[names.NODE_NAME] == "step"
    first, second = captured.spans_named("step")
    assert first.attributes[names.RETRY_WAIT] == pytest.approx(waits.sum)
    assert names.RETRY_WAIT not in second.attributes


@every_way
@both_kinds
def test_an_execution_that_fails_after_retries_has_both(way: Callable[..., Any], is_async: bool) -> None:
    """Its duration has the type of the error and the kind."""

    async def no_wait(seconds: float) -> None: ...

    def fail(n: int) -> int:
        raise ConnectionError

    step = step_of(fail, is_async, retry=RetryPolicy(on=OSError, sleep=lambda _: None, async_sleep=no_wait))
    with CapturedTelemetry() as captured, pytest.raises(ConnectionError):
        way(step)
    assert durations(captured) == {("retried", "ConnectionError"): 1}


@both_kinds
def test_an_error_out_of_a_cache_has_both(is_async: bool) -> None:
    """The second execution raises the exception of the first."""

    def fail(n: int) -> int:
        raise ConnectionError

    step = step_of(fail, is_async, cache=CachePolicy(cache_errors=True))
    with CapturedTelemetry() as captured:
        for _ in range(2):
            with pytest.raises(ConnectionError):
                run(step)
    assert durations(captured) == {(None, "ConnectionError"): 1, ("cache_hit", "ConnectionError"): 1}


def test_an_execution_that_waits_for_another_is_coalesced(telemetry_path: TelemetryPath) -> None:
    """One caller computes, and the other has its result."""
    computing, release = threading.Event(), threading.Event()

    @node(cache=CachePolicy())
    def step(n: int) -> int:
        computing.set()
        assert release.wait(30)
        return n

    results: list[int] = []
    leader = threading.Thread(target=lambda: results.append(step.run({"n": 1})))
    leader.start()
    assert computing.wait(30)
    follower = threading.Thread(target=lambda: results.append(step.run({"n": 1})))
    follower.start()
    while not any(flight.waiters for flight in step.cache._cache.here()._flights.values()):
        pass
    release.set()
    leader.join(30)
    follower.join(30)
    assert results == [1, 1]
    spans = telemetry_path.spans()
    check_contract(spans)
    kinds = [span.attributes.get(names.EXECUTION_KIND) for span in spans if span.name == "step"]
    assert sorted(kinds, key=str) == [None, "coalesced"]


def test_an_execution_that_is_closed_in_another_context_raises_nothing_of_its_own() -> None:
    """As the garbage collector closes a coroutine that nobody awaits to its end."""

    class Suspended:
        def __await__(self) -> Iterator[None]:
            yield

    @node(cache=CachePolicy())
    async def step(n: int) -> int:
        await Suspended()
        return n

    with CapturedTelemetry() as captured:
        coroutine = step(1)
        loop = asyncio.new_event_loop()
        try:
            begun = contextvars.copy_context()
            asyncio._set_running_loop(loop)
            begun.run(coroutine.send, None)
            contextvars.copy_context().run(coroutine.close)
        finally:
            asyncio._set_running_loop(None)
            loop.close()
    assert [span.attributes[names.NODE_RESULT] for span in captured.spans_named("step")] == ["cancellation"]


def test_a_node_without_cache_and_retries_has_no_kind() -> None:
    """Nor has one inside an execution that has a kind."""
    inner = node(lambda n: n, name="inner")

    @node(cache=CachePolicy())
    def outer(n: int) -> int:
        return inner(n)

    with CapturedTelemetry() as captured:
        outer.run({"n": 1})
        outer.run({"n": 1})
    assert len(captured.spans_named("inner")) == 1
    assert names.EXECUTION_KIND not in captured.spans_named("inner")[0].attributes


@pytest.mark.parametrize("way", [run, arun, in_a_chain])
def test_kinds_are_told_apart_without_telemetry(way: Callable[..., Any]) -> None:
    """Health reads the durations of a process that has configured nothing."""
    step = node(name=f"unobserved_{way.__name__}", cache=CachePolicy())(lambda n: n)
    for _ in range(3):
        way(step)
    series = [each for each in registry.all() if each.attributes.get(names.NODE_NAME) == step.name]
    durations_of_step = [each for each in series if each.definition is names.NODE_DURATION]
    assert {each.attributes.get(names.EXECUTION_KIND) for each in durations_of_step} == {None, "cache_hit"}


def test_the_message_of_an_attempt_is_truncated_to_2000_bytes(telemetry_path: TelemetryPath) -> None:
    """Bytes of UTF-8, and no character is cut in two."""
    failures = [OSError("é" * 1500), OSError("\ud800")]

    def flaky(n: int) -> int:
        if failures:
            raise failures.pop(0)
        return n

    node(name="step", retry=RetryPolicy(on=OSError, sleep=lambda _: None))(flaky).run({"n": 1})
    (span,) = telemetry_path.spans()
    messages = [event.attributes["exception.message"] for event in span.events]
    assert messages == ["é" * 1000, "?"]
