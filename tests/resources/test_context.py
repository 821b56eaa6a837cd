"""Contexts: what they hold, how they are read, and when their resources open and close."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Self

import pytest
from dependency_injector import containers, providers

from aetherflow.errors import ConfigurationError, ResourceError
from aetherflow.resources.context import (
    BaseFlowContext,
    FlowContextInstance,
    context_class,
    init_resources_for,
    provider_at,
    provider_names,
    resources_of,
)

events: list[str] = []


@pytest.fixture(autouse=True)
def _forget_events() -> None:
    events.clear()


def opened(name: str, *needs: object) -> Iterator[str]:
    """A resource that tells when it opens and closes."""
    events.append(f"open {name}")
    yield name
    events.append(f"close {name}")


async def opened_async(name: str, *needs: object) -> AsyncIterator[str]:
    """An async resource that tells when it opens and closes, and on which loop."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(0)
    events.append(f"open {name}")
    yield name
    assert asyncio.get_running_loop() is loop
    events.append(f"close {name}")


class Service:
    """What leans on a resource."""

    def __init__(self, needs: object = None) -> None:
        self.needs = needs


class Opening(BaseFlowContext):
    """A pool on a database, a service on the pool, and something else."""

    database = providers.Resource(opened, "database")
    pool = providers.Resource(opened, "pool", providers.List(database))
    service = providers.Singleton(Service, pool)
    other = providers.Resource(opened, "other")
    plain = providers.Object(1)


class OpeningAsync(BaseFlowContext):
    """The same with an async database."""

    database = providers.Resource(opened_async, "database")
    pool = providers.Resource(opened, "pool", database)
    service = providers.ThreadLocalSingleton(Service, database)


@contextmanager
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_state_is_a_dict_for_each_thread() -> None:
    """`state` is the same dict for one thread and another one for the next."""
    ctx = BaseFlowContext()
    assert ctx.state() is ctx.state()
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(ctx.state).result() is not ctx.state()


def test_context_is_a_dict_for_each_contextvars_context() -> None:
    """`context` is one dict for a context and the copies made after its first use, another one elsewhere."""
    ctx = BaseFlowContext()
    elsewhere = contextvars.Context()
    first = elsewhere.run(ctx.context)
    assert elsewhere.run(ctx.context) is first
    assert elsewhere.copy().run(ctx.context) is first
    assert contextvars.Context().run(ctx.context) is not first


def test_shared_data_is_one_dict_for_all_threads() -> None:
    """16 threads that ask at once get one dict; another instance has its own."""
    ctx = BaseFlowContext()
    start = threading.Barrier(16)
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda _: (start.wait(), ctx.shared_data())[1], range(16)))
    assert len({id(one) for one in found}) == 1
    assert BaseFlowContext().shared_data() is not ctx.shared_data()


def test_an_instance_knows_its_class_and_has_providers_of_its_own() -> None:
    """Overriding a provider of an instance leaves its class and other instances alone."""
    ctx = Opening()
    assert isinstance(ctx, FlowContextInstance)
    assert context_class(ctx) is context_class(Opening()) is context_class(Opening) is Opening
    with provider_at(ctx, "plain").override(2):
        assert provider_at(ctx, "plain")() == 2
        assert provider_at(Opening(), "plain")() == 1


def test_a_context_that_was_given_more_providers_stands_for_itself() -> None:
    """A plan for the class would not know them; wiring, which leaves a mark among the providers, is no such thing."""
    ctx: Any = Opening()
    ctx.wire(modules=[ModuleType("empty")])
    assert context_class(ctx) is Opening
    assert "__self__" not in provider_names(ctx)
    assert context_class(Opening()) is Opening
    ctx.extra = providers.Object(1)
    assert context_class(ctx) is ctx
    assert "extra" in provider_names(ctx)


def test_other_containers_are_contexts_too() -> None:
    """Any dependency-injector container can be read; a dynamic one stands for itself."""

    class Foreign(containers.DeclarativeContainer):
        service = providers.Factory(Service)

    dynamic = containers.DynamicContainer()
    dynamic.service = providers.Factory(Service)
    assert context_class(Foreign()) is Foreign
    assert context_class(dynamic) is dynamic
    assert provider_names(dynamic) == provider_names(Foreign) == {"service"}
    assert isinstance(provider_at(Foreign(), "service")(), Service)


@pytest.mark.parametrize("wrong", [{"service": 1}, Service, Service(), None, 5, "context"])
def test_what_is_no_container_is_named(wrong: object) -> None:
    """Passing anything else as a context says what it was and what is allowed."""
    with pytest.raises(
        ConfigurationError, match=rf"a {type(wrong).__name__}; allowed: an instance of a BaseFlowContext"
    ):
        context_class(wrong)


def test_an_unknown_provider_is_named_with_those_there_are() -> None:
    """Asking for a provider that is not there lists the ones that are."""
    with pytest.raises(
        ConfigurationError, match=r"no provider 'nope' in the context; available: context, shared_data, state"
    ):
        provider_at(BaseFlowContext(), "nope")


def test_names_are_those_of_all_bases() -> None:
    """A subclass has its own providers and the inherited ones."""
    assert provider_names(Opening) == {
        "state",
        "context",
        "shared_data",
        "database",
        "pool",
        "service",
        "other",
        "plain",
    }


def test_only_the_resources_a_run_needs_are_opened() -> None:
    """The service opens its pool and that its database, in this order, and nothing else."""
    with Opening() as ctx:
        assert events == []
        assert init_resources_for(ctx, ["service", "state"]) is None
        assert events == ["open database", "open pool"]
        assert init_resources_for(ctx, ["pool"]) is None
        assert ctx.service().needs == "pool"
        assert events == ["open database", "open pool"]
    assert events == ["open database", "open pool", "close pool", "close database"]


def test_an_overridden_resource_is_not_opened() -> None:
    """A test that overrides the pool does not open the database behind it; the fake resource is opened."""
    ctx = Opening()
    with ctx, ctx.pool.override(providers.Resource(opened, "fake")):
        init_resources_for(ctx, ["service"])
        assert events == ["open fake"]
        assert ctx.service().needs == "fake"
        ctx.shutdown_resources()
    assert events == ["open fake", "close fake"]


def test_a_context_can_be_opened_again() -> None:
    """After closing, a run that needs a resource initialises it anew."""
    ctx = Opening()
    for _ in range(2):
        with ctx:
            init_resources_for(ctx, ["other"])
    assert events == ["open other", "close other"] * 2


def test_threads_that_need_one_resource_open_it_once() -> None:
    """16 runs that start at once share one initialisation."""
    start = threading.Barrier(16)
    with Opening() as ctx, ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda _: (start.wait(), init_resources_for(ctx, ["pool"])), range(16)))
        assert events == ["open database", "open pool"]


def test_resources_are_known_before_a_run() -> None:
    """`resources_of` finds them by name or provider, on a class too, so that a plan can leave them out."""
    assert resources_of(Opening, ["service"]) == (Opening.pool, Opening.database)
    assert resources_of(Opening, [Opening.service]) == (Opening.pool, Opening.database)
    assert resources_of(Opening, ["state", "plain"]) == ()


def test_one_failing_shutdown_does_not_keep_the_others_open() -> None:
    """Every resource is shut down; one failure is raised as it is, several as a group."""

    def stubborn(error: Exception) -> Iterator[str]:
        yield "stubborn"
        raise error

    class Failing(Opening):
        first = providers.Resource(stubborn, providers.Object(KeyError("first")))
        second = providers.Resource(stubborn, providers.Object(OSError("second")))

    ctx = Failing()
    init_resources_for(ctx, ["database", "first"])
    with pytest.raises(KeyError, match="first"), ctx:
        pass
    init_resources_for(ctx, ["database", "first", "second"])
    with pytest.raises(ExceptionGroup, match="resources failed to shut down") as failures, ctx:
        pass
    assert {type(failure) for failure in failures.value.exceptions} == {KeyError, OSError}
    assert events == ["open database", "close database"] * 2


def test_a_failing_resource_fails_the_run_and_is_tried_again() -> None:
    """What the resource raised comes out as it is; the next run tries anew."""
    tries: list[int] = []

    def flaky() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("no connection")
        return "connected"

    class Flaky(BaseFlowContext):
        database = providers.Resource(flaky)

    with Flaky() as ctx:
        with pytest.raises(OSError, match="no connection"):
            init_resources_for(ctx, ["database"])
        init_resources_for(ctx, ["database"])
        assert ctx.database() == "connected"


async def test_async_resources_open_when_awaited() -> None:
    """An async resource is opened by awaiting; then sync code, in any thread, gets the object itself."""
    async with OpeningAsync() as ctx:
        opening = init_resources_for(ctx, ["service"])
        assert opening is not None
        assert events == []
        await opening
        assert ctx.database() == "database"
        assert init_resources_for(ctx, ["service"]) is None
        assert (await asyncio.to_thread(ctx.service)).needs == "database"
    assert events == ["open database", "close database"]


async def test_a_sync_resource_on_an_async_one_is_opened_after_it() -> None:
    """Order holds across kinds, opening and closing."""
    async with OpeningAsync() as ctx:
        opening = init_resources_for(ctx, ["pool"])
        assert opening is not None
        await opening
        assert ctx.pool() == "pool"
    assert events == ["open database", "open pool", "close pool", "close database"]


async def test_runs_that_need_one_async_resource_open_it_once() -> None:
    """Concurrent runs wait for one initialisation, which the cancellation of one of them does not take away."""
    async with OpeningAsync() as ctx:
        runs = [asyncio.ensure_future(opening) for _ in range(5) if (opening := init_resources_for(ctx, ["database"]))]
        await asyncio.sleep(0)
        runs[0].cancel()
        ended = await asyncio.gather(*runs, return_exceptions=True)
        assert [type(end) for end in ended] == [asyncio.CancelledError, *[type(None)] * 4]
        assert ctx.database() == "database"
    assert events == ["open database", "close database"]


def test_async_resources_close_on_the_loop_they_were_opened_on() -> None:
    """`with` in sync code closes them there, also if another event loop was refused the resource in between."""
    with event_loop() as loop, event_loop() as other:
        with OpeningAsync() as ctx:
            opening = init_resources_for(ctx, ["pool"])
            assert opening is not None
            asyncio.run_coroutine_threadsafe(opening, loop).result()
            refused = init_resources_for(ctx, ["pool"])
            assert refused is not None
            with pytest.raises(ResourceError, match=f"{id(loop):#x} .* {id(other):#x}"):
                asyncio.run_coroutine_threadsafe(refused, other).result()
            assert ctx.database() == "database"
        assert events == ["open database", "open pool", "close pool", "close database"]


def test_async_resources_close_even_where_their_loop_has_ended() -> None:
    """What `asyncio.run` opened is shut down on a new loop by `with`."""

    class Connection:
        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *exc_info: object) -> None:
            events.append("close connection")

    class Connected(BaseFlowContext):
        connection = providers.Resource(Connection)

    async def work(ctx: Connected) -> None:
        opening = init_resources_for(ctx, ["connection"])
        assert opening is not None
        await opening

    with Connected() as ctx:
        asyncio.run(work(ctx))
    assert events == ["close connection"]


async def test_closing_async_resources_with_a_sync_with_is_refused() -> None:
    """On their own loop `with` cannot wait: it says so and leaves them open for `async with`."""
    ctx = OpeningAsync()
    opening = init_resources_for(ctx, ["database"])
    assert opening is not None
    await opening
    with pytest.raises(ConfigurationError, match="use `async with`"), ctx:
        pass
    async with ctx:
        assert ctx.database() == "database"
    assert events == ["open database", "close database"]


async def test_resources_the_user_initialised_are_closed_too() -> None:
    """`await ctx.database()` by hand is known to `async with`."""
    async with OpeningAsync() as ctx:
        awaited: Any = ctx.database()
        assert await awaited == "database"
    assert events == ["open database", "close database"]


def test_resources_of_other_containers_open_as_well() -> None:
    """A container that does not derive from `BaseFlowContext` can have sync resources; async ones are refused."""

    class Foreign(containers.DeclarativeContainer):
        database = providers.Resource(opened, "database")
        remote = providers.Resource(opened_async, "remote")

    ctx = Foreign()
    assert init_resources_for(ctx, ["database"]) is None
    assert events == ["open database"]
    with pytest.raises(ConfigurationError, match="is async; allowed in instances of BaseFlowContext subclasses only"):
        init_resources_for(ctx, ["remote"])
    ctx.shutdown_resources()


def test_nested_containers_open_and_close_with_the_outer_one() -> None:
    """Resources of a nested container count as the outer context's own."""

    class Outer(BaseFlowContext):
        inner = providers.Container(Opening)
        service = providers.Factory(Service, inner.database)

    with Outer() as ctx:
        init_resources_for(ctx, ["service"])
        assert ctx.service().needs == "database"
    assert events == ["open database", "close database"]
