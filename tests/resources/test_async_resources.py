"""Async resources and the event loops that they belong to."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Self

import pytest
from dependency_injector import providers

from aetherflow import BaseFlowContext, ResourceError, node
from aetherflow.resources.context import init_resources_for

events: list[str] = []


@pytest.fixture(autouse=True)
def _forget_events() -> None:
    events.clear()


class Session:
    """An object that belongs to the event loop that opens it."""

    def __init__(self) -> None:
        self.is_open = True
        self.loop = asyncio.get_running_loop()


async def open_session() -> AsyncIterator[Session]:
    await asyncio.sleep(0)
    events.append("open")
    session = Session()
    try:
        yield session
    finally:  # also when Python closes the generator together with its event loop
        session.is_open = False
        events.append("close")


class Service:
    """An object that is built on another object."""

    def __init__(self, base: Any) -> None:
        self.base = base


def open_pool(session: Session) -> Iterator[Service]:
    events.append("open pool")
    yield Service(session)
    events.append("close pool")


class Context(BaseFlowContext):
    """A session and everything that can be built on one."""

    session = providers.Resource(open_session)
    factory = providers.Factory(Service, session)
    singleton = providers.Singleton(Service, session)
    safe_singleton = providers.ThreadSafeSingleton(Service, singleton)
    context_singleton = providers.ContextLocalSingleton(Service, session)
    thread_singleton = providers.ThreadLocalSingleton(Service, session)
    pool = providers.Resource(open_pool, session)
    on_pool = providers.Singleton(Service, pool)


def taking(parameter: str, kind: str = "async") -> Any:
    """Return a node that returns its injected object."""
    namespace: dict[str, Any] = {}
    exec(f"{'async ' if kind == 'async' else ''}def take({parameter}): return {parameter}", namespace)
    return node(namespace["take"])


def session_of(value: Any) -> Session:
    """Return the session that something is built on."""
    while isinstance(value, Service):
        value = value.base
    assert isinstance(value, Session)
    return value


async def gets_open_one(flow: Any, context: Any) -> bool:
    """Return whether a run on the running event loop gets an open session of this loop."""
    session = session_of(await flow.arun(context=context))
    return session.is_open and session.loop is asyncio.get_running_loop()


def as_awaitable(initialising: Awaitable[None] | None) -> Awaitable[None]:
    """Return the coroutine that initialises resources of which at least one is async."""
    assert initialising is not None
    return initialising


@contextmanager
def running_loop() -> Iterator[asyncio.AbstractEventLoop]:
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


def on(loop: asyncio.AbstractEventLoop, flow: Any, context: Any) -> Any:
    return asyncio.run_coroutine_threadsafe(flow.arun(context=context), loop).result()


BUILT = ["session", "factory", "singleton", "safe_singleton", "context_singleton", "pool", "on_pool"]


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("name", BUILT)
def test_a_resource_of_a_closed_loop_is_opened_again(name: str, kind: str) -> None:
    """Each `asyncio.run` gets an open session of its own event loop, however it is wrapped."""
    context = Context()

    flow = taking(name, kind)
    assert [asyncio.run(gets_open_one(flow, context)) for _ in range(3)] == [True] * 3


def test_the_lost_resource_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """One line names the resource, its event loop and the remedy, however many loops end without a shutdown."""
    context = Context()
    with caplog.at_level(logging.WARNING, logger="aetherflow"):
        for _ in range(4):
            asyncio.run(taking("session").arun(context=context))
    (record,) = caplog.records
    assert "'session'" in record.getMessage()
    assert "(closed)" in record.getMessage()
    assert "async with" in record.getMessage()


def test_a_sync_resource_on_a_lost_one_is_shut_down(caplog: pytest.LogCaptureFixture) -> None:
    """A pool on the session is closed before a new one is opened; if that fails, the failure is logged."""
    context = Context()
    asyncio.run(taking("pool").arun(context=context))
    asyncio.run(taking("session").arun(context=context))
    assert [event for event in events if "pool" in event] == ["open pool", "close pool"]

    def failing(session: Session) -> Iterator[Service]:
        yield Service(session)
        raise OSError("the session is closed")

    with (
        caplog.at_level(logging.WARNING, logger="aetherflow"),
        context.pool.override(providers.Resource(failing, context.session)),
    ):
        asyncio.run(taking("pool").arun(context=context))
        asyncio.run(taking("session").arun(context=context))
    assert "failed to shut down" in caplog.text


def test_a_context_that_is_shut_down_on_its_loop_is_used_on_the_next() -> None:
    """`async with` closes the session, and nothing is logged or refused afterwards; singletons are built again."""
    context = Context()

    async def use() -> Session:
        async with context:
            session = session_of(await taking("singleton").arun(context=context))
            assert session.is_open
        assert not session.is_open
        return session

    first, second = asyncio.run(use()), asyncio.run(use())
    assert first is not second
    assert events == ["open", "close"] * 2


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_resource_that_the_user_shut_down_is_opened_again(kind: str) -> None:
    """Also on another event loop, since nothing of it is left on the first one."""
    context = Context()
    flow = taking("singleton", kind)

    async def use_and_shut_down() -> bool:
        is_open = await gets_open_one(flow, context)
        closing: Any = context.session.shutdown()
        await closing
        return is_open

    with running_loop() as loop:
        assert asyncio.run_coroutine_threadsafe(use_and_shut_down(), loop).result()
        assert session_of(flow.run(context=context)).is_open
        with context:
            pass


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_resource_of_a_running_loop_is_refused_elsewhere(kind: str) -> None:
    """The error names the resource and both event loops."""
    context = Context()
    flow = taking("factory", kind)
    with running_loop() as loop, running_loop() as other:
        assert session_of(on(loop, flow, context)).loop is loop
        with pytest.raises(ResourceError, match=f"'session' .*{id(loop):#x}.*{id(other):#x}") as caught:
            on(other, flow, context)
        assert caught.value.resource == "session"
        assert f"{id(loop):#x}" in caught.value.owner
        assert f"{id(other):#x}" in caught.value.user
        assert session_of(on(loop, flow, context)).is_open
        with context:
            pass


def test_a_stopped_loop_that_is_not_closed_keeps_its_resource() -> None:
    """It may run again, and then needs the session."""
    context = Context()
    loop = asyncio.new_event_loop()
    first = loop.run_until_complete(taking("session").arun(context=context))
    with pytest.raises(ResourceError, match="stopped"):
        asyncio.run(taking("session").arun(context=context))
    assert loop.run_until_complete(taking("session").arun(context=context)) is first
    loop.run_until_complete(context.__aexit__(None, None, None))
    loop.close()


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_resource_of_synchronous_runs_is_refused_on_another_loop(kind: str) -> None:
    """Synchronous runs share one background loop, which is not that of the application."""
    context = Context()
    flow = taking("session", kind)
    with context:
        assert flow.run(context=context) is flow.run(context=context)
        with pytest.raises(ResourceError, match="aetherflow-loop-0"):
            asyncio.run(flow.arun(context=context))
        assert flow.run(context=context).is_open


async def test_a_sync_run_below_an_async_one_shares_its_resource() -> None:
    """A sync node takes the object in any thread; an async node of that run would use it on another event loop."""
    async with Context() as context:

        @node
        def nested(session: Session) -> tuple[Session, Session]:
            return session, taking("session", "sync").run(context=context)

        @node
        def refused(session: Session) -> None:
            taking("session", "async").run(context=context)

        outer, inner = await nested.arun(context=context)
        assert outer is inner
        with pytest.raises(ResourceError, match="'session'"):
            await refused.arun(context=context)


def test_a_sync_run_waits_for_a_resource_that_is_being_opened_elsewhere() -> None:
    """A run in a thread shares the session of a run on a loop that came first."""
    began = threading.Event()
    gate: list[asyncio.Future[None]] = []

    async def slow() -> AsyncIterator[Session]:
        gate.append(asyncio.get_running_loop().create_future())
        began.set()
        await gate[0]
        yield Session()

    class Slow(BaseFlowContext):
        session = providers.Resource(slow)

    context = Slow()
    with running_loop() as loop, ThreadPoolExecutor(1) as threads:
        first = asyncio.run_coroutine_threadsafe(taking("session").arun(context=context), loop)
        began.wait()
        second = threads.submit(taking("session", "sync").run, context=context)
        loop.call_soon_threadsafe(gate[0].set_result, None)
        assert first.result() is second.result()
        with context:
            pass


async def test_a_sync_run_that_blocks_the_opening_is_refused() -> None:
    """It would wait for the event loop that it blocks."""
    async with Context() as context:
        first = asyncio.ensure_future(taking("session").arun(context=context))
        await asyncio.sleep(0)
        with pytest.raises(ResourceError, match="being opened on the event loop that this run blocks"):
            taking("session", "sync").run(context=context)
        assert (await first).is_open


def test_many_threads_and_tasks_open_a_resource_once() -> None:
    """Concurrent runs share one opening, in threads and on a loop."""
    start = threading.Barrier(8)
    with Context() as context, ThreadPoolExecutor(8) as threads:
        sessions = threads.map(lambda _: (start.wait(), taking("session").run(context=context))[1], range(8))
        assert len(set(sessions)) == 1

    async def use(context: Any) -> set[Session]:
        async with context:
            return set(await asyncio.gather(*[taking("session").arun(context=context) for _ in range(8)]))

    assert len(asyncio.run(use(Context()))) == 1
    assert events == ["open", "close"] * 2


async def test_a_cancelled_opener_leaves_the_resource_to_the_others() -> None:
    """The opening goes on, and so does every other run that waits for it."""
    async with Context() as context:
        runs = [asyncio.ensure_future(taking("session").arun(context=context)) for _ in range(3)]
        await asyncio.sleep(0)
        runs[0].cancel()
        ended = await asyncio.gather(*runs, return_exceptions=True)
        assert isinstance(ended[0], asyncio.CancelledError)
        assert ended[1] is ended[2]
    assert events == ["open", "close"]


async def test_a_resource_whose_opening_fails_is_not_half_open() -> None:
    """Every waiting run gets the error; the next one opens the resource."""

    async def flaky() -> AsyncIterator[Session]:
        await asyncio.sleep(0)
        events.append("try")
        if len(events) == 1:
            raise OSError("no route")
        yield Session()

    class Flaky(BaseFlowContext):
        session = providers.Resource(flaky)

    async with Flaky() as context:
        runs = [taking("session").arun(context=context) for _ in range(3)]
        assert [type(end) for end in await asyncio.gather(*runs, return_exceptions=True)] == [OSError] * 3
        assert not context.session.initialized
        assert (await taking("session").arun(context=context)).is_open
    assert events == ["try"] * 2


def test_a_resource_whose_opening_failed_belongs_to_no_loop() -> None:
    """Another event loop may open it while the first one still runs."""

    async def flaky() -> AsyncIterator[Session]:
        events.append("try")
        if len(events) == 1:
            raise OSError("no route")
        yield Session()

    class Flaky(BaseFlowContext):
        session = providers.Resource(flaky)

    context = Flaky()
    with running_loop() as loop:
        with pytest.raises(OSError, match="no route"):
            on(loop, taking("session"), context)
        assert asyncio.run(gets_open_one(taking("session"), context))


def test_a_context_local_singleton_on_a_lost_resource_is_built_again() -> None:
    """Also in a context that outlives the event loop."""
    context = Context()
    here = contextvars.copy_context()
    sessions = []
    for _ in range(2):
        loop = asyncio.new_event_loop()
        run = loop.create_task(taking("context_singleton", "sync").arun(context=context), context=here)
        sessions.append(session_of(loop.run_until_complete(run)))
        loop.close()
    assert [session.loop is loop for session in sessions] == [False, True]


def test_an_opening_that_its_loop_does_not_finish_is_begun_again() -> None:
    """A resource that was half open on a closed loop does not keep the next run waiting."""
    gate: list[asyncio.Future[None]] = []

    async def slow() -> AsyncIterator[Session]:
        if not gate:
            gate.append(asyncio.get_running_loop().create_future())
            await gate[0]
        yield Session()

    class Slow(BaseFlowContext):
        session = providers.Resource(slow)

    context = Slow()

    async def begin() -> None:
        asyncio.ensure_future(taking("session").arun(context=context))  # noqa: RUF006  # the loop ends before it does
        while not gate:
            await asyncio.sleep(0)

    asyncio.run(begin())
    assert asyncio.run(gets_open_one(taking("session"), context))


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_thread_local_singleton_on_a_lost_resource_is_refused(kind: str) -> None:
    """Other threads may still hold the closed session, and nothing can reach them."""
    context = Context()
    flow = taking("thread_singleton", kind)
    assert asyncio.run(gets_open_one(flow, context))
    with pytest.raises(ResourceError, match="thread-local singleton 'thread_singleton' may hold the closed resource"):
        asyncio.run(flow.arun(context=context))


def test_resources_that_the_user_initialised_belong_to_that_loop() -> None:
    """`await context.init_resources()` opens them on the running loop, again after the first one was closed."""
    context = Context()

    async def use() -> bool:
        await as_awaitable(context.init_resources())
        return await gets_open_one(taking("session"), context)

    assert [asyncio.run(use()) for _ in range(2)] == [True, True]
    other = Context()

    async def initialise() -> None:
        await as_awaitable(other.init_resources())

    asyncio.run(initialise())
    assert asyncio.run(gets_open_one(taking("session"), other))
    with running_loop() as loop:
        on(loop, taking("session"), context)
        with pytest.raises(ResourceError, match="'session'"):
            asyncio.run(use())
        with context:
            pass


@pytest.mark.parametrize(
    "run",
    [lambda flow, context: flow.run(context=context), lambda flow, context: asyncio.run(flow.arun(context=context))],
)
def test_a_context_local_resource_is_opened_in_each_context(run: Callable[[Any, Any], Any]) -> None:
    """Its nodes share one, sync and async, and get the object, not an awaitable."""

    class Local(BaseFlowContext):
        session = providers.ContextLocalResource(open_session)

    @node
    def first(session: Session) -> Session:
        return session

    @node
    async def second(first: Session, session: Session) -> tuple[Session, Session]:
        return first, session

    for _ in range(2):
        one, other = run(first >> second, Local())
        assert one is other
        assert isinstance(one, Session)


async def test_a_resource_may_depend_on_an_awaited_object() -> None:
    """An async factory or singleton among the arguments of a resource is awaited."""

    async def find_address() -> str:
        await asyncio.sleep(0)
        return "db:5432"

    class Connected(BaseFlowContext):
        address = providers.Singleton(find_address)
        sync_resource = providers.Resource(lambda text: f"sync {text}", address)
        async_resource = providers.Resource(open_pool, providers.Factory(find_address))

    async with Connected() as context:
        assert await taking("sync_resource").arun(context=context) == "sync db:5432"
        assert (await taking("async_resource", "sync").arun(context=context)).base == "db:5432"


async def test_resources_of_one_context_close_on_their_own_loops() -> None:
    """Closing from one event loop shuts a resource down on the loop that opened it."""

    class Noted:
        async def __aenter__(self) -> Self:
            self.loop = asyncio.get_running_loop()
            return self

        async def __aexit__(self, *exc_info: object) -> None:
            events.append("own loop" if self.loop is asyncio.get_running_loop() else "other loop")

    class Two(BaseFlowContext):
        first = providers.Resource(Noted)
        second = providers.Resource(Noted)

    with running_loop() as loop:
        async with Two() as context:
            opening = init_resources_for(context, ["first"])
            assert opening is not None
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(opening, loop))
            await taking("second").arun(context=context)
    assert events == ["own loop"] * 2
