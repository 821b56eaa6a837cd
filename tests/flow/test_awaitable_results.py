"""An awaitable that a node's function returns is awaited, on every path, before anybody gets the result."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any
from unittest.mock import AsyncMock

import pytest
from opentelemetry.trace import StatusCode
from starlette.background import BackgroundTask

from aetherflow.engine.awaitables import MAX_PLAIN_TYPES, PLAIN_TYPES, is_awaitable
from aetherflow.flow.decorating import node
from aetherflow.flow.node import Node
from aetherflow.flow.policies import RetryPolicy
from aetherflow.resources.batching import BatchPolicy
from aetherflow.resources.caching import CachePolicy
from aetherflow.telemetry import conventions as names
from aetherflow.testing import CapturedTelemetry

Function = Callable[..., Any]


async def add_one(x: int) -> int:
    await asyncio.sleep(0)
    return x + 1


class Caller:
    """An object that is called like a function, and returns a coroutine."""

    async def __call__(self, x: int) -> int:
        return await add_one(x)

    async def method(self, x: int) -> int:
        return await add_one(x)


class Later:
    """An awaitable that is not a coroutine."""

    def __init__(self, x: int) -> None:
        self._x = x

    def __await__(self) -> Generator[Any, None, int]:
        return add_one(self._x).__await__()


def logged(function: Function) -> Function:
    """A typical decorator, which knows nothing of coroutines."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


async def returns_a_coroutine(x: int) -> Any:
    return add_one(x)


@types.coroutine
def of_a_generator(x: int) -> Generator[Any, None, int]:
    yield from asyncio.sleep(0).__await__()
    return x + 1


FUNCTIONS: dict[str, Function] = {
    "plain decorator around an async def": logged(add_one),
    "lambda": lambda x: add_one(x),  # noqa: PLW0108  # that is the point
    "object with an async __call__": Caller(),
    "bound method": Caller().method,
    "partial": functools.partial(add_one),
    "partial of an object": functools.partial(Caller()),
    "object with __await__": Later,
    "coroutine of a coroutine": returns_a_coroutine,
    "AsyncMock": AsyncMock(side_effect=lambda x: x + 1),
    "lambda around an AsyncMock": lambda x: AsyncMock(return_value=x + 1)(),
    "function that is marked": logged(of_a_generator),
}
every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)

source = node(lambda x: x, name="source")
after = node(lambda value: value * 10, name="after")


def named(function: Function, **options: Any) -> Node[..., Any]:
    if isinstance(function, AsyncMock):
        return node(lambda x: function(x), name="step", **options)  # noqa: PLW0108  # no parameters of its own
    return node(function, name="step", **options)


def as_called(step: Node[..., Any]) -> Any:
    result = step(1)
    assert inspect.iscoroutine(result)
    return asyncio.run(result) * 10


def in_a_chain(step: Node[..., Any]) -> Any:
    return (step >> after).run({"x": 1})


def in_a_chain_async(step: Node[..., Any]) -> Any:
    return asyncio.run((step >> after).arun({"x": 1}))


def in_a_fan_out(step: Node[..., Any]) -> Any:
    return (source >> [step, source.named("other")]).run({"x": 1})["step"] * 10


def in_a_fan_out_async(step: Node[..., Any]) -> Any:
    return asyncio.run((source >> [step, source.named("other")]).arun({"x": 1}))["step"] * 10


def in_a_map(step: Node[..., Any]) -> Any:
    return node(lambda x: [x], name="source").map(step).run({"x": 1})[0] * 10


def alone_within_a_loop(step: Node[..., Any]) -> Any:
    async def blocking() -> Any:
        return step.run({"x": 1})

    return asyncio.run(blocking()) * 10


def over_many(step: Node[..., Any]) -> Any:
    return next(iter(step.run_many([1]))) * 10


def executed(step: Node[..., Any]) -> Any:
    return step.execute({"x": 1}).output * 10


def repeated(step: Node[..., Any]) -> Any:
    return step.repeat(1).run({"x": 1}) * 10


WAYS = [in_a_chain, in_a_chain_async, in_a_fan_out, in_a_fan_out_async, in_a_map, alone_within_a_loop, over_many]
WAYS += [executed, repeated]
every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


@every_function
@every_way
def test_the_result_is_what_the_awaitable_gives(function: Function, way: Callable[..., Any]) -> None:
    """The next node gets the value, and the node's span lasts until it is there."""
    with CapturedTelemetry() as captured:
        assert way(named(function)) == 20
    (span,) = captured.spans_named("step")
    assert span.status.status_code is StatusCode.UNSET
    assert span.end_time is not None


@every_function
def test_a_direct_call_returns_a_coroutine(function: Function) -> None:
    """A direct caller of the node awaits it like the function."""
    if isinstance(function, AsyncMock):
        function = logged(add_one)
    with CapturedTelemetry() as captured:
        assert as_called(named(function)) == 20
    assert len(captured.spans_named("step")) == 1


def test_a_coroutine_that_is_forgotten_has_the_name_of_the_function() -> None:
    """Python warns of it by that name."""
    coroutine = named(logged(add_one))(1)
    assert coroutine.__qualname__ == f"{__name__}.add_one"
    assert asyncio.run(coroutine) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"retry": RetryPolicy(on=OSError)},
        {"timeout": 30},
        {"cache": CachePolicy()},
        {"retry": RetryPolicy(on=OSError), "timeout": 30, "cache": CachePolicy()},
    ],
    ids=" ".join,
)
@every_way
def test_policies_are_about_the_result(options: dict[str, Any], way: Callable[..., Any]) -> None:
    """A cache keeps the value, not the coroutine; a time limit and attempts include the awaiting."""
    step = named(logged(add_one), **options)
    assert way(step) == 20
    assert way(step) == 20


def failing_twice() -> tuple[Callable[[int], Coroutine[Any, Any, int]], list[int]]:
    """Return a coroutine function that raises an exception in its first two calls, and the list of its calls."""
    calls: list[int] = []

    async def flaky(x: int) -> int:
        calls.append(x)
        if len(calls) < 3:
            raise ConnectionError
        return x + 1

    return flaky, calls


@every_way
def test_a_failure_while_awaiting_is_retried(way: Callable[..., Any]) -> None:
    """The exception is raised when the coroutine runs, after the function has returned."""
    flaky, calls = failing_twice()
    policy = RetryPolicy(on=ConnectionError, attempts=3, sleep=lambda _: None)
    assert way(named(logged(flaky), retry=policy)) == 20
    assert len(calls) == 3


@every_way
def test_policies_include_a_coroutine_that_a_coroutine_function_returns(way: Callable[..., Any]) -> None:
    """A failure of it is attempted again, and a cache keeps the value."""
    flaky, calls = failing_twice()

    async def forgets_to_await(x: int) -> Any:
        return flaky(x)

    async def no_wait(seconds: float) -> None: ...

    policy = RetryPolicy(on=ConnectionError, attempts=3, async_sleep=no_wait)
    step = named(forgets_to_await, retry=policy, cache=CachePolicy())
    assert [way(step), way(step)] == [20, 20]
    assert len(calls) == 3


@pytest.mark.parametrize("is_async", [False, True])
def test_a_batched_function_may_return_an_awaitable(is_async: bool) -> None:
    """The list is awaited."""

    async def add(xs: list[int]) -> list[int]:
        return [x + 1 for x in xs]

    step = node(name="step", batch=BatchPolicy(size=1))(logged(add))
    assert (asyncio.run(step.arun({"xs": 1})) if is_async else step.run({"xs": 1})) == 2


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("is_coroutine_function", [False, True])
def test_awaitables_among_the_results_of_a_batch_are_awaited(is_async: bool, is_coroutine_function: bool) -> None:
    """Each caller gets the value of its item, or its error."""

    async def item(x: int) -> int:
        if x == 2:
            raise LookupError("no")
        return x + 1

    def each(xs: list[int]) -> list[Any]:
        return [item(x) for x in xs]

    async def each_later(xs: list[int]) -> list[Any]:
        return [item(x) for x in xs]

    step = node(name="step", batch=BatchPolicy(size=3, retry_singly=False))(
        each_later if is_coroutine_function else each
    )
    flow = node(lambda: [1, 2, 3], name="source").map(step, on_error="collect")
    first, second, third = asyncio.run(flow.arun()) if is_async else flow.run()
    assert (first, third) == (2, 4)
    assert isinstance(second.exception, LookupError)


class Pool:
    """As some libraries have it: awaiting the pool opens it, and gives the pool itself."""

    def __await__(self) -> Generator[Any, None, Pool]:
        yield from asyncio.sleep(0).__await__()
        return self


async def open_pool(x: int) -> Pool:
    return await Pool()


@pytest.mark.timeout(30)
@pytest.mark.parametrize("function", [lambda x: Pool(), open_pool], ids=["sync", "async"])
@pytest.mark.parametrize("options", [{}, {"timeout": 30}, {"cache": CachePolicy()}], ids=" ".join)
@pytest.mark.parametrize("is_async", [False, True])
def test_an_object_that_can_be_awaited_again_is_a_result(
    function: Function, options: dict[str, Any], is_async: bool
) -> None:
    """Only coroutines and futures are awaited until there is another result."""
    step = node(function, name="step", **options)
    assert isinstance(asyncio.run(step.arun({"x": 1})) if is_async else step.run({"x": 1}), Pool)


@every_way
def test_an_error_of_the_awaitable_is_the_nodes(way: Callable[..., Any]) -> None:
    """The span has the status ERROR, and the exception is recorded on it."""

    async def fail(x: int) -> int:
        raise LookupError("no")

    with CapturedTelemetry() as captured, pytest.raises(LookupError, match="no"):
        way(named(logged(fail)))
    (span,) = captured.spans_named("step")
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes[names.ERROR_TYPE] == "LookupError"


def test_an_awaitable_is_awaited_on_the_running_loop() -> None:
    """The objects that it uses, such as a session of a client, belong to the loop of the application."""

    async def loop_of(x: int) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def main() -> bool:
        return await named(logged(loop_of)).arun({"x": 1}) is asyncio.get_running_loop()

    assert asyncio.run(main())


def test_a_task_of_the_running_loop_is_awaited() -> None:
    """A function may begin a task and return it."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()

        @node
        def begin(x: int) -> Awaitable[int]:
            return asyncio.run_coroutine_threadsafe(add_one(x), loop)  # type: ignore[return-value]

        @node
        async def begin_task(x: int) -> Awaitable[int]:
            return asyncio.ensure_future(add_one(x))

        assert not is_awaitable(
            await begin.arun({"x": 1})
        )  # a future of `concurrent.futures` is a value like any other
        return await begin_task.arun({"x": 1})

    assert asyncio.run(main()) == 2


@pytest.mark.parametrize("is_async", [False, True])
def test_a_condition_of_rounds_is_awaited(is_async: bool) -> None:
    """A coroutine is true, but its result decides."""

    async def is_ten(value: int) -> bool:
        return value >= 10

    flow = node(lambda x: x + 1, name="step").repeat(20, until=is_ten)
    assert (asyncio.run(flow.arun({"x": 1})) if is_async else flow.run({"x": 1})) == 10


def test_cancelling_a_run_cancels_the_awaitable() -> None:
    """Nothing goes on in the background."""
    events: list[str] = []

    async def endless(x: int) -> None:
        events.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            events.append("ended")

    async def main() -> None:
        task = asyncio.create_task(named(logged(endless)).arun({"x": 1}))
        while not events:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with CapturedTelemetry() as captured:
        asyncio.run(main())
    assert events == ["begun", "ended"]
    assert captured.spans_named("step")[0].attributes[names.NODE_RESULT] == "cancellation"


# --- the other direction --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"timeout": 30}, {"retry": RetryPolicy(on=OSError)}, {"cache": CachePolicy()}])
def test_an_async_node_is_recognised_as_a_coroutine_function(options: dict[str, Any]) -> None:
    """Libraries ask `asyncio` or `inspect`, about the node or about its ``__call__``."""
    send = node(name="send", **options)(add_one)
    if sys.version_info < (3, 14):
        assert asyncio.iscoroutinefunction(send)
    if sys.version_info >= (3, 12):
        assert inspect.iscoroutinefunction(send)
    assert inspect.iscoroutinefunction(send.__call__)
    assert not inspect.iscoroutinefunction(node(lambda x: x, name="sync").__call__)


def test_an_async_method_node_is_recognised_too() -> None:
    """A bound node is still a coroutine function."""

    class Service:
        @node
        async def send(self, x: int) -> int:
            return x + 1

    assert inspect.iscoroutinefunction(Service().send.__call__)
    assert asyncio.run(Service().send(1)) == 2


def test_a_background_task_of_starlette_runs_an_async_node() -> None:
    """Starlette runs any other function on a thread, and drops the result."""
    sent: list[int] = []

    @node
    async def send(x: int) -> None:
        sent.append(x)

    asyncio.run(BackgroundTask(send, 5)())
    assert sent == [5]


def test_types_of_results_are_remembered_up_to_a_bound() -> None:
    """Classes that a program makes at run time do not grow memory."""
    before = set(PLAIN_TYPES)
    try:
        for number in range(2 * MAX_PLAIN_TYPES):
            assert not is_awaitable(type(f"Class{number}", (), {})())
        assert len(PLAIN_TYPES) <= MAX_PLAIN_TYPES
    finally:
        PLAIN_TYPES.intersection_update(before)


def test_looking_at_a_result_runs_none_of_its_code() -> None:
    """A lazy query would be sent to its database."""

    class Lazy:
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(f"{name} was read")

    value = Lazy()
    assert node(lambda: value, name="lazy").run() is value
    assert asyncio.run(node(lambda: value, name="lazy").arun()) is value
    assert (node(lambda: value, name="lazy") >> node(lambda v: 1, name="use")).run() == 1


def test_a_class_without_a_hash_is_looked_at_every_time() -> None:
    """A metaclass may define ``__eq__`` and so have no hash."""

    class Meta(type):
        def __eq__(cls, other: object) -> bool:
            return cls is other

        __hash__ = None  # type: ignore[assignment]  # that is the point

    class Value(metaclass=Meta):
        pass

    value = Value()
    assert node(lambda: value, name="make").run() is value
    assert (node(lambda: value, name="make") >> node(lambda v: v, name="use")).run() is value
