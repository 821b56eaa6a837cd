"""The caller of a node gets its exception, whatever that refuses, on every path; the span has the error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from opentelemetry.trace import StatusCode
from tests.support.stubborn import ERRORS

from aetherflow.errors import AetherFlowError
from aetherflow.flow.decorating import node
from aetherflow.flow.node import Node
from aetherflow.flow.policies import RetryPolicy
from aetherflow.resources.batching import BatchPolicy
from aetherflow.resources.caching import CachePolicy
from aetherflow.telemetry import conventions as names
from aetherflow.testing import CapturedTelemetry

Make = Callable[[], Exception]
every_exception = pytest.mark.parametrize("make", ERRORS, ids=lambda make: make.__name__)


def plain(error: Exception) -> Node[..., Any]:
    @node(name="fail")
    def fail(x: int) -> None:
        raise error

    return fail


def awaited(error: Exception) -> Node[..., Any]:
    @node(name="fail")
    async def fail(x: int) -> None:
        raise error

    return fail


def with_awaitable(error: Exception) -> Node[..., Any]:
    async def fail_later() -> None:
        raise error

    return node(lambda x: fail_later(), name="fail")


def timed(error: Exception) -> Node[..., Any]:
    @node(name="fail", timeout=30)
    def fail(x: int) -> None:
        raise error

    return fail


def timed_async(error: Exception) -> Node[..., Any]:
    @node(name="fail", timeout=30)
    async def fail(x: int) -> None:
        raise error

    return fail


def retried(error: Exception) -> Node[..., Any]:
    async def no_wait(seconds: float) -> None: ...

    policy = RetryPolicy(on=Exception, attempts=2, sleep=lambda _: None, async_sleep=no_wait)

    @node(name="fail", retry=policy)
    def fail(x: int) -> None:
        raise error

    return fail


def retried_async(error: Exception) -> Node[..., Any]:
    async def no_wait(seconds: float) -> None: ...

    policy = RetryPolicy(on=Exception, attempts=2, sleep=lambda _: None, async_sleep=no_wait)

    @node(name="fail", retry=policy)
    async def fail(x: int) -> None:
        raise error

    return fail


def cached(error: Exception) -> Node[..., Any]:
    @node(name="fail", cache=CachePolicy(cache_errors=True))
    def fail(x: int) -> None:
        raise error

    return fail


def cached_async(error: Exception) -> Node[..., Any]:
    @node(name="fail", cache=CachePolicy(cache_errors=True))
    async def fail(x: int) -> None:
        raise error

    return fail


def batched(error: Exception) -> Node[..., Any]:
    @node(name="fail", batch=BatchPolicy(size=1))
    def fail(x: list[int]) -> list[int]:
        raise error

    return fail


def batched_async(error: Exception) -> Node[..., Any]:
    @node(name="fail", batch=BatchPolicy(size=1))
    async def fail(x: list[int]) -> list[int]:
        raise error

    return fail


KINDS = [plain, awaited, with_awaitable, timed, timed_async, retried, retried_async, cached, cached_async]
KINDS += [batched, batched_async]


def finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine; the exception leaves the loop as a value, since asyncio itself fails on some."""

    async def caught() -> tuple[Any, BaseException | None]:
        try:
            return await coroutine, None
        except BaseException as error:  # noqa: BLE001  # raised below
            return None, error

    result, error = asyncio.run(caught())
    if error is not None:
        raise error
    return result


def exception_of(call: Callable[[], object]) -> BaseException | None:
    """Return the exception that a call raises, without pytest, which fails on some as well."""
    try:
        call()
    except BaseException as error:  # noqa: BLE001  # the caller compares it
        return error
    return None


source = node(lambda x: x, name="source")
other = node(lambda x: x, name="other")


def as_called(fail: Node[..., Any]) -> Any:
    result = fail(1)
    return finished(result) if asyncio.iscoroutine(result) else result


def alone(fail: Node[..., Any]) -> Any:
    return fail.run({"x": 1})


def alone_async(fail: Node[..., Any]) -> Any:
    return finished(fail.arun({"x": 1}))


def in_a_chain(fail: Node[..., Any]) -> Any:
    return (source >> fail).run({"x": 1})


def in_a_chain_async(fail: Node[..., Any]) -> Any:
    return finished((source >> fail).arun({"x": 1}))


def in_a_fan_out(fail: Node[..., Any]) -> Any:
    return (source >> [fail, other]).run({"x": 1})


def in_a_fan_out_async(fail: Node[..., Any]) -> Any:
    return finished((source >> [fail, other]).arun({"x": 1}))


def in_a_map(fail: Node[..., Any]) -> Any:
    return node(lambda x: [x], name="source").map(fail).run({"x": 1})


def in_a_named_flow(fail: Node[..., Any]) -> Any:
    return (source >> (other >> fail).named("inner")).run({"x": 1})


def over_many(fail: Node[..., Any]) -> Any:
    return list(fail.run_many([1]))


WAYS = [as_called, alone, alone_async, in_a_chain, in_a_chain_async, in_a_fan_out, in_a_fan_out_async, in_a_map]
WAYS += [in_a_named_flow, over_many]
every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@every_exception
@every_kind
@every_way
def test_the_callers_exception_is_the_nodes(
    make: Make, kind: Callable[[Exception], Node[..., Any]], way: Callable[[Node[..., Any]], Any]
) -> None:
    """Nothing replaces the exception, and every span from the node up has the status ERROR and its type."""
    error = make()
    with CapturedTelemetry() as captured:
        is_the_same = exception_of(lambda: way(kind(error))) is error
    assert is_the_same
    (span,) = captured.spans_named("fail")
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes[names.ERROR_TYPE] == f"{type(error).__module__}.{type(error).__qualname__}"
    assert span.attributes[names.NODE_RESULT] == "failure"
    assert [event.name for event in span.events if event.name == "exception"] == ["exception"]
    for run in (each for each in captured.spans if each.name.startswith("run ")):
        assert run.status.status_code is StatusCode.ERROR
    assert all(each.end_time is not None for each in captured.spans)


@every_exception
@pytest.mark.parametrize("is_async", [False, True])
def test_collected_failures_hold_the_exception(make: Make, is_async: bool) -> None:
    """With ``on_error="collect"`` the failure has the exception itself."""
    error = make()
    flow = source.fan_out_to([plain(error), other], on_error="collect")
    results = finished(flow.arun({"x": 1})) if is_async else flow.run({"x": 1})
    is_the_same = results["fail"].exception is error
    assert is_the_same


@every_exception
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("buffer", [None, 2])
def test_a_stream_raises_the_exception_of_its_generator(make: Make, is_async: bool, buffer: int | None) -> None:
    """The items before it arrive, then the exception itself."""
    error = make()

    @node
    def numbers(n: int) -> Iterator[int]:
        yield n
        raise error

    received: list[int] = []

    async def consume() -> None:
        async for item in numbers.astream({"n": 1}, buffer=buffer):
            received.append(item)  # noqa: PERF401  # an item counts although the next one fails

    def consume_here() -> None:
        for item in numbers.stream({"n": 1}, buffer=buffer):
            received.append(item)  # noqa: PERF402  # as above

    is_the_same = exception_of((lambda: finished(consume())) if is_async else consume_here) is error
    assert is_the_same
    assert received == [1]


def test_an_exception_that_accepts_it_names_the_node() -> None:
    """The note names the node and the flow."""
    with pytest.raises(AetherFlowError) as raised:
        (source >> plain(AetherFlowError("no"))).run({"x": 1})
    assert raised.value.__notes__ == ["aetherflow: raised by node 'fail' of flow 'source'"]
