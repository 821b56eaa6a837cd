"""Objects that have to be awaited before a node gets them."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Annotated, Any

import pytest
from dependency_injector import containers, providers
from dependency_injector.wiring import Provide
from opentelemetry.trace import StatusCode

from aetherflow import BaseFlowContext, BatchPolicy, CachePolicy, ConfigurationError, node
from aetherflow.testing import CapturedTelemetry

created: list[Connection] = []


@pytest.fixture(autouse=True)
def _forget_connections() -> None:
    created.clear()


class Connection:
    """Something that an async function creates."""

    host = "db"

    def __init__(self, *parts: object) -> None:
        self.parts = parts

    def name(self) -> str:
        return "connection"

    async def aname(self) -> str:
        return "awaited name"


class Service:
    """Something that is built on a connection."""

    label: Any = None

    def __init__(self, connection: Any = None) -> None:
        self.connection = connection


async def connect(*parts: object) -> Connection:
    await asyncio.sleep(0)
    connection = Connection(*parts)
    created.append(connection)
    return connection


class Connector:
    """An object whose call is async."""

    async def __call__(self) -> Connection:
        return await connect()


class Context(BaseFlowContext):
    """Every kind of provider with an async part."""

    factory = providers.Factory(connect)
    partial = providers.Factory(functools.partial(connect, 1))
    connector = providers.Factory(Connector())
    coroutine = providers.Coroutine(connect)
    function = providers.Callable(connect)
    singleton = providers.Singleton(connect)
    safe_singleton = providers.ThreadSafeSingleton(connect)
    context_singleton = providers.ContextLocalSingleton(connect)
    delegated_singleton = providers.DelegatedSingleton(connect)
    service = providers.Factory(Service, factory)
    shared_service = providers.Singleton(Service, singleton)
    safe_service = providers.ThreadSafeSingleton(Service, factory)
    deep_service = providers.Singleton(Service, providers.List(shared_service, providers.Dict(one=service)))
    labelled = providers.Factory(Service).add_attributes(label=factory)
    several = providers.List(factory, singleton)
    mapping = providers.Dict(one=factory, two=singleton)
    config = providers.Configuration(default={"kind": "shared"})
    choice = providers.Selector(config.kind, shared=singleton, unused=providers.Singleton(connect, "unused"))
    dependency: providers.Provider[Connection] = providers.Dependency(default=singleton)
    host = factory.provided.host
    name_of = factory.provided.name.call()
    awaited_name = singleton.provided.aname.call()


SHARED = {
    "singleton",
    "safe_singleton",
    "delegated_singleton",
    "shared_service",
    "safe_service",
    "deep_service",
    "choice",
    "dependency",
}
PROVIDERS = sorted(set(Context.providers) - set(BaseFlowContext.providers) - {"config"})

CODE = {
    "sync": "def take({0}): return {0}",
    "async": "async def take({0}): return {0}",
    "generator": "def take({0}): yield {0}",
    "async generator": "async def take({0}): yield {0}",
}


def taking(parameter: str, kind: str = "async", **policies: Any) -> Any:
    """Return a node of a kind that returns, or yields, its injected objects."""
    namespace: dict[str, Any] = {}
    exec(CODE[kind].format(parameter), namespace)
    return node(**policies)(namespace["take"])


async def items_of(stream: Any) -> list[Any]:
    return [item async for item in stream]


def in_thread(call: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(call).result()


RUNS: dict[str, Callable[[Any, Any], Any]] = {
    "run": lambda flow, context: flow.run(context=context),
    "run in a thread": lambda flow, context: in_thread(lambda: flow.run(context=context)),
    "execute": lambda flow, context: flow.execute(context=context).output,
    "run_many": lambda flow, context: next(iter(flow.run_many([{}], context))),
    "arun": lambda flow, context: asyncio.run(flow.arun(context=context)),
    "aexecute": lambda flow, context: asyncio.run(flow.aexecute(context=context)).output,
}
STREAMS: dict[str, Callable[[Any, Any], Any]] = {
    "stream": lambda flow, context: next(iter(list(flow.stream(context=context)))),
    "astream": lambda flow, context: asyncio.run(items_of(flow.astream(context=context)))[0],
}
WAYS = [
    *((kind, way) for kind in ("sync", "async") for way in RUNS),
    *((kind, way) for kind in ("generator", "async generator") for way in STREAMS),
]


def parts_of(value: Any) -> Iterator[Any]:
    """Yield a value and everything in it."""
    yield value
    match value:
        case Service():
            yield from parts_of(value.connection)
            yield from parts_of(value.label)
        case list() | tuple():
            for item in value:
                yield from parts_of(item)
        case dict():
            for item in value.values():
                yield from parts_of(item)


def is_complete(value: Any) -> bool:
    """Return whether a value holds an awaited object and nothing that still has to be awaited."""
    parts = list(parts_of(value))
    has_result = any(isinstance(part, Connection | str) for part in parts)
    return has_result and not any(inspect.isawaitable(part) for part in parts)


@pytest.mark.parametrize(("kind", "way"), WAYS)
@pytest.mark.parametrize("name", PROVIDERS)
def test_the_object_is_injected_not_an_awaitable(name: str, kind: str, way: str) -> None:
    """For every provider, node and method: the awaited object, a span that is not in error, and one singleton."""
    context = Context()
    run = {**RUNS, **STREAMS}[way]
    with CapturedTelemetry() as captured:
        first = run(taking(name, kind), context)
        second = run(taking(name, kind), context)
    assert is_complete(first)
    assert is_complete(second)
    assert [span.status.status_code for span in captured.spans_named("take")] == [StatusCode.UNSET] * 2
    if name in SHARED:
        assert first is second
    assert "unused" not in [part for connection in created for part in connection.parts]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_object_is_awaited_inside_the_span_of_its_node(kind: str) -> None:
    """An exception of the async function is the error of the node, and of the run."""

    async def refuse() -> Connection:
        raise OSError("no route")

    class Refusing(BaseFlowContext):
        connection = providers.Factory(refuse)

    for run in (RUNS["run"], RUNS["arun"]):
        with CapturedTelemetry() as captured, pytest.raises(OSError, match="no route"):
            run(taking("connection", kind), Refusing())
        (span,) = captured.spans_named("take")
        assert span.status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("way", ["run", "arun"])
def test_a_sync_node_is_called_where_it_is_called_otherwise(way: str) -> None:
    """On the calling thread in a synchronous run, on another one than the event loop's in an asynchronous run."""

    @node
    def thread_of(factory: Connection) -> int:
        return threading.get_ident()

    is_here = RUNS[way](thread_of, Context()) == threading.get_ident()
    assert is_here is (way == "run")


@pytest.mark.parametrize("way", ["run", "arun"])
def test_every_step_of_a_flow_gets_the_one_object(way: str) -> None:
    """In chains, branches, maps, rounds, cached and batched nodes, sync and async."""

    @node
    def numbers(singleton: Connection) -> list[int]:
        return [1, 2]

    @node
    async def each(number: int, singleton: Connection) -> Connection:
        return singleton

    @node
    def left(each: Any, singleton: Connection) -> Connection:
        return singleton

    @node
    async def right(each: Any, singleton: Connection) -> Connection:
        return singleton

    @node(cache=CachePolicy())
    def cached(singleton: Connection) -> Connection:
        return singleton

    @node(batch=BatchPolicy(size=2, max_wait=0.001))
    def batched(items: list[Any], singleton: Connection) -> list[Connection]:
        return [singleton for _ in items]

    @node(batch=BatchPolicy(size=2, max_wait=0.001))
    async def abatched(items: list[Any], singleton: Connection) -> list[Connection]:
        return [singleton for _ in items]

    @node
    def again(previous: Any, singleton: Connection) -> Connection:
        return singleton

    flow = numbers.map(each).fan_out_to([left, right])
    context = Context()
    results = list(RUNS[way](flow, context).values())
    for batch in (batched, abatched):
        results += RUNS[way](numbers.map(batch), context)
    results.append(RUNS[way](cached, context))
    results.append(RUNS[way](numbers >> again.repeat(3), context))
    assert all(isinstance(result, Connection) for result in results)
    assert len({id(result) for result in results}) == len(created) == 1


@pytest.mark.parametrize("way", ["run", "arun"])
def test_markers_take_awaited_objects_too(way: str) -> None:
    """`Provide[…]` and `Annotated`, each with an object of its own if the provider is a factory."""

    @node
    def take(
        first: Connection = Provide["factory"],
        second: Connection = Provide["factory"],
        *,
        third: Annotated[Connection, Provide["singleton.provided"]],
    ) -> list[Connection]:
        return [first, second, third]

    connections = RUNS[way](take, Context())
    assert all(isinstance(connection, Connection) for connection in connections)
    assert len(set(connections)) == 3


def test_what_fills_a_parameter_instead_leaves_the_provider_alone() -> None:
    """A run input, or the output of a node that ran in this run, is taken without an object being created."""

    @node
    def begin(has_output: bool) -> bool:
        return has_output

    @node(name="factory")
    def output(begin: bool) -> str:
        return "output"

    @node
    def nothing(begin: bool) -> None:
        pass

    @node
    async def end(*, factory: Any) -> Any:
        return factory

    assert taking("factory").run({"factory": "fake"}, Context()) == "fake"
    flow = begin.branch_on({True: output, False: nothing}) >> end
    assert flow.run({"has_output": True}, Context()) == "output"
    assert created == []
    assert isinstance(flow.run({"has_output": False}, Context()), Connection)


@pytest.mark.parametrize("way", list(RUNS))
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("overridden", ["connection", "service"])
def test_overrides_may_be_async_or_not(overridden: str, kind: str, way: str) -> None:
    """Also of a provider that the injected one depends on; before a run, between runs and after it."""

    class Plain(BaseFlowContext):
        connection = providers.Factory(str, "plain")
        service = providers.Factory(Service, connection)
        asynchronous = providers.Factory(connect)

    flow = taking("service", kind)
    context = Plain()
    for _ in range(2):
        assert RUNS[way](flow, context).connection == "plain"
        for fake in (providers.Factory(connect), providers.Singleton(connect), providers.Coroutine(connect)):
            replacement = fake if overridden == "connection" else providers.Factory(Service, fake)
            with getattr(context, overridden).override(replacement):
                assert isinstance(RUNS[way](flow, context).connection, Connection)
    with context.asynchronous.override("fake"):
        assert RUNS[way](taking("asynchronous", kind), context) == "fake"
    assert isinstance(RUNS[way](taking("asynchronous", kind), context), Connection)


@pytest.mark.parametrize("way", ["run", "arun"])
def test_an_override_below_a_singleton_leaves_no_trace(way: str) -> None:
    """Nothing that dependency-injector noted about a provider turns an argument into a future, or leaves one."""

    class Plain(BaseFlowContext):
        connection = providers.Factory(str, "plain")
        service = providers.Factory(Service, connection)
        holder = providers.Singleton(Service, service)

    context = Plain()

    def connection() -> Any:
        context.holder.reset()
        return RUNS[way](taking("holder", "sync"), context).connection.connection

    for _ in range(2):
        assert connection() == "plain"
        with context.connection.override(providers.Factory(connect)):
            assert isinstance(connection(), Connection)


@pytest.mark.parametrize("name", ["service", "resource"])
async def test_what_is_built_on_a_singleton_that_another_loop_creates_waits_for_it(name: str) -> None:
    """A singleton or a resource on it is created on its own event loop when the object is there."""
    began = threading.Event()
    gates: list[asyncio.Future[None]] = []

    async def slow() -> Connection:
        gates.append(asyncio.get_running_loop().create_future())
        began.set()
        await gates[0]
        return await connect()

    class Slow(BaseFlowContext):
        singleton = providers.Singleton(slow)
        service = providers.Singleton(Service, singleton)
        resource = providers.Resource(Service, singleton)

    context = Slow()
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(taking("singleton").run, context=context)
        began.wait()
        run = asyncio.ensure_future(taking(name).arun(context=context))
        for _ in range(10):
            await asyncio.sleep(0)
        gates[0].get_loop().call_soon_threadsafe(gates[0].set_result, None)
        assert (await run).connection is first.result()
    await context.__aexit__(None, None, None)


def test_a_resource_in_place_of_a_nested_provider_is_opened() -> None:
    """An override of any dependency of a service is planned for."""

    async def session() -> AsyncIterator[str]:
        yield "session"

    class Plain(BaseFlowContext):
        connection = providers.Factory(str, "plain")
        service = providers.Factory(Service, connection)

    context = Plain()
    flow = taking("service", "sync")
    assert flow.run(context=context).connection == "plain"
    with context.connection.override(providers.Resource(session)):
        assert flow.run(context=context).connection == "session"
    assert flow.run(context=context).connection == "plain"


@pytest.mark.parametrize("name", ["singleton", "safe_singleton", "shared_service"])
def test_a_singleton_is_one_object_for_all_threads_and_loops(name: str) -> None:
    """Threads and event loops that need it concurrently share one creation."""
    context = Context()
    start = threading.Barrier(8)

    def take(index: int) -> Any:
        start.wait()
        return RUNS["arun" if index % 2 else "run"](taking(name, ("sync", "async")[index // 2 % 2]), context)

    with ThreadPoolExecutor(8) as threads:
        objects = list(threads.map(take, range(8)))
    assert len({id(each) for each in objects}) == len(created) == 1


@pytest.mark.parametrize("end", ["cancelled", "abandoned"])
def test_a_singleton_survives_the_loop_that_was_to_create_it(end: str) -> None:
    """A run never waits for the event loop that ended before the object was there."""
    gate: list[asyncio.Future[None]] = []

    async def slow() -> Connection:
        if not gate:
            gate.append(asyncio.get_running_loop().create_future())
            await gate[0]
        return await connect()

    class Slow(BaseFlowContext):
        singleton = providers.Singleton(slow)

    context = Slow()
    flow = taking("singleton")

    async def begin() -> None:
        task = asyncio.ensure_future(flow.arun(context=context))
        while not gate:
            await asyncio.sleep(0)
        if end == "cancelled":
            task.cancel()

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, __: None)
    loop.run_until_complete(begin())
    unfinished = asyncio.all_tasks(loop)
    if end == "cancelled":
        for task in unfinished:
            task.cancel()
        loop.run_until_complete(asyncio.wait(unfinished))
    loop.close()
    first = flow.run(context=context)
    assert first is asyncio.run(flow.arun(context=context))
    for task in unfinished:  # nothing is left to say that they never ended
        task._log_destroy_pending = False  # type: ignore[attr-defined]


async def test_a_cancelled_run_leaves_the_singleton_to_the_others() -> None:
    """The cancellation of the run that creates it does not take it away."""
    context = Context()
    runs = [asyncio.ensure_future(taking("singleton").arun(context=context)) for _ in range(3)]
    await asyncio.sleep(0)
    runs[0].cancel()
    ended = await asyncio.gather(*runs, return_exceptions=True)
    assert isinstance(ended[0], asyncio.CancelledError)
    assert ended[1] is ended[2]
    assert len(created) == 1


async def test_a_cancelled_run_cancels_the_factory() -> None:
    """An async function that only this run waits for is cancelled with it, also below a service."""
    began = asyncio.Event()
    ended: list[str] = []

    async def endless() -> None:
        began.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append("finally")

    class Endless(BaseFlowContext):
        service = providers.Factory(Service, providers.Factory(endless))

    for kind in ("sync", "async"):
        began.clear()
        run = asyncio.ensure_future(taking("service", kind).arun(context=Endless()))
        await began.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    assert ended == ["finally"] * 2


@pytest.mark.parametrize("way", ["run", "arun"])
def test_a_context_local_singleton_is_one_object_for_each_context(way: str) -> None:
    """The branches of a run share it; a run in another context has its own."""

    @node
    def begin() -> int:
        return 0

    @node
    def left(begin: int, context_singleton: Connection) -> Connection:
        return context_singleton

    @node
    async def right(begin: int, context_singleton: Connection) -> Connection:
        return context_singleton

    context = Context()
    flow = begin.fan_out_to([left, right])

    def run() -> set[Connection]:
        return set(RUNS[way](flow, context).values())

    here = contextvars.copy_context()
    first = here.run(run)
    assert len(first) == 1
    assert (here.run(run) == first) is (way == "run")  # each `asyncio.run` has a context of its own
    assert contextvars.copy_context().run(run).isdisjoint(first)


def test_a_thread_local_singleton_belongs_to_the_thread_of_the_loop() -> None:
    """An async node gets it; a sync node, which runs on another thread, is refused."""

    class Local(BaseFlowContext):
        local = providers.ThreadLocalSingleton(connect)

    for run in (RUNS["run"], RUNS["arun"]):
        assert isinstance(run(taking("local"), Local()), Connection)
        with CapturedTelemetry() as captured, pytest.raises(ConfigurationError, match="'take', parameter 'local'"):
            run(taking("local", "sync"), Local())
        assert captured.spans_named("take")[0].status.status_code is StatusCode.ERROR


@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_an_awaitable_that_nobody_declared_is_refused(kind: str, way: str) -> None:
    """A function that is not async but returns a coroutine: the error names node, parameter and provider."""

    def undeclared() -> Any:
        return connect()

    class Undeclared(BaseFlowContext):
        connection = providers.Factory(undeclared)

    run = {**RUNS, **STREAMS}[way]
    with CapturedTelemetry() as captured, pytest.raises(ConfigurationError, match="'take', parameter 'connection'"):
        run(taking("connection", kind), Undeclared())
    assert all(span.status.status_code is StatusCode.ERROR for span in captured.spans_named("take"))


def test_a_singleton_that_needs_a_loop_nobody_expected_is_refused() -> None:
    """dependency-injector cannot create its future in a thread without an event loop: the error says why."""
    coroutine = connect()

    class Undeclared(BaseFlowContext):
        connection = providers.Singleton(lambda: coroutine)

    with (
        closing(coroutine),
        pytest.raises(ConfigurationError, match="returned a future, but its declaration does not show"),
    ):
        in_thread(lambda: taking("connection", "sync").run(context=Undeclared()))


def test_errors_of_the_user_about_event_loops_stay_as_they_are() -> None:
    """A synchronous function that asks for the running loop raises its own error."""

    def ask() -> Any:
        return asyncio.get_event_loop()

    class Asking(BaseFlowContext):
        connection = providers.Singleton(ask)

    with pytest.raises(RuntimeError, match="no current event loop") as caught:
        in_thread(lambda: taking("connection", "sync").run(context=Asking()))
    assert not isinstance(caught.value, ConfigurationError)


def test_awaitable_objects_of_a_class_are_injected_as_they_are() -> None:
    """An object that can also be awaited, such as a lazy pool, is neither coroutine nor future."""

    class Lazy:
        def __await__(self) -> Iterator[None]:
            yield None

    class Pools(BaseFlowContext):
        pool = providers.Singleton(Lazy)
        built = providers.Factory(lambda kind: kind(), providers.Object(Lazy))

    @node
    def is_lazy(pool: object, built: object) -> bool:
        return isinstance(pool, Lazy) and isinstance(built, Lazy)

    for run in (RUNS["run"], RUNS["arun"]):
        assert run(is_lazy, Pools())


def test_a_delegated_provider_is_not_called() -> None:
    """A parameter that asks for the provider itself gets the provider, and can await its object later."""

    class Delegating(BaseFlowContext):
        connection = providers.Singleton(connect)
        service = providers.Factory(Service, connection.provider)

    service = taking("service").run(context=Delegating())
    assert isinstance(service.connection, providers.Provider)
    assert created == []


def test_any_container_has_async_providers() -> None:
    """Also one that does not derive from `BaseFlowContext`, and a container class itself."""

    class Foreign(containers.DeclarativeContainer):
        connection = providers.Factory(connect)

    for context in (Foreign(), Foreign):
        assert isinstance(taking("connection", "sync").run(context=context), Connection)
