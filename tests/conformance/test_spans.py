"""What spans say of executions, and how they end: attributes, errors, retries, time limits, cancellation, streams."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any, NoReturn

import pytest
from dependency_injector import providers
from opentelemetry import trace
from tests.conformance.conftest import TelemetryPath
from tests.conformance.contract import check_contract, outline
from tests.support.receivers import wait_until

from aetherflow import BaseFlowContext, CachePolicy, Failure, MissingInputError, NodeTimeoutError, RetryPolicy, node
from aetherflow.analysis.spans import Span
from aetherflow.telemetry import conventions as names


class Seen:
    """What a path has given, held to the contract whenever it is looked at."""

    def __init__(self, path: TelemetryPath) -> None:
        self._path = path

    def all(self) -> list[Span]:
        spans = [span for span in self._path.spans() if span.scope.name == "aetherflow"]
        if spans:
            check_contract(spans)
        return spans

    def named(self, name: str) -> list[Span]:
        return [span for span in self.all() if span.name == name]

    def one(self, name: str) -> Span:
        (span,) = self.named(name)
        return span

    def trace_id(self) -> str:
        (found,) = {span.trace_id for span in self.all()}
        return found


@pytest.fixture
def seen(telemetry_path: TelemetryPath) -> Seen:
    return Seen(telemetry_path)


@node
def source(n: int = 1) -> int:
    return n


@node
def identity(value: Any) -> Any:
    return value


@node
def fail(value: Any = None) -> NoReturn:
    raise KeyError("gone")


@node
async def fail_apart(value: Any = None) -> NoReturn:
    await asyncio.sleep(0)
    raise KeyError("gone")


def events_of(span: Span) -> list[str]:
    return [event.name for event in span.events]


def result_of(span: Span) -> object:
    return span.attributes.get(names.RUN_RESULT if names.FLOW_NODES in span.attributes else names.NODE_RESULT)


# --- attributes ---------------------------------------------------------------------------------------------------


def test_a_run_span_says_what_the_contract_lists(seen: Seen) -> None:
    """Flow name, run id and the number of nodes, those of named flows inside it too; and no more."""
    flow = (source >> (identity >> identity.named("again")).named("inner")).named("outer")
    told = flow.execute()
    assert seen.one("run outer").attributes == {
        names.FLOW_NAME: "outer",
        names.FLOW_NODES: 3,
        names.RUN_ID: told.run_id,
    }
    inner = seen.one("run inner").attributes
    assert (inner[names.FLOW_NAME], inner[names.FLOW_NODES]) == ("inner", 2)
    assert inner[names.RUN_ID] not in ("", told.run_id)


def test_a_node_span_says_what_the_contract_lists(seen: Seen) -> None:
    """The fixed attributes and upstream; the flow is the innermost named one."""
    (source >> (identity >> identity.named("again")).named("inner")).run()
    thread = threading.current_thread()
    fixed = {
        names.NODE_TYPE: "sync",
        names.PROVIDER_SCOPE: "none",
        names.THREAD_ID: thread.ident,
        names.THREAD_NAME: thread.name,
    }
    function = f"{__name__}.identity"
    assert seen.one("source").attributes == fixed | {
        names.FLOW_NAME: "source",
        names.NODE_NAME: "source",
        names.CODE_FUNCTION_NAME: f"{__name__}.source",
    }
    assert seen.one("again").attributes == fixed | {
        names.FLOW_NAME: "inner",
        names.NODE_NAME: "again",
        names.CODE_FUNCTION_NAME: function,
        names.NODE_UPSTREAM: ("identity",),
    }


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("sync", lambda: node(name="n")(lambda: 1)),
        ("async", lambda: node(name="n")(fail_apart.func)),
        ("stream", lambda: node(name="n")(lambda: (yield 1))),
    ],
)
def test_a_node_tells_its_type(seen: Seen, kind: str, make: Callable[[], Any]) -> None:
    """Functions, coroutine functions and generators are told apart."""
    with contextlib.suppress(KeyError, TypeError):
        list(make().run())
    assert seen.one("n").attributes[names.NODE_TYPE] == kind


def test_a_synchronous_node_with_a_time_limit_is_still_one(seen: Seen) -> None:
    """It runs on a thread of its own, which its span tells, and is of type sync."""
    limited = node(name="limited", timeout=30)(lambda: threading.get_ident())  # noqa: PLW0108  # a builtin has no signature
    ident = limited.run()
    told = seen.one("limited").attributes
    assert told[names.NODE_TYPE] == "sync"
    assert told[names.THREAD_ID] == ident != threading.get_ident()


def test_each_execution_tells_its_own_thread(seen: Seen) -> None:
    """Branches on threads of the pool, asynchronous nodes on their loop's thread."""
    gate = threading.Barrier(3, timeout=10)

    @node
    def meet(element: int) -> int | None:
        gate.wait()
        return threading.current_thread().ident

    @node
    async def apart(value: Any) -> int | None:
        return threading.current_thread().ident

    found = (node(lambda: [1, 2, 3], name="parts") >> [meet] * 3 >> identity).run()
    told = {span.attributes[names.BATCH_INDEX]: span.attributes[names.THREAD_ID] for span in seen.named("meet")}
    assert told == dict(enumerate(found.values()))
    assert len(set(told.values())) == 3
    assert apart.run(1) == seen.one("apart").attributes[names.THREAD_ID]


def test_partitions_tell_their_place(seen: Seen) -> None:
    """Executions over elements carry index, count and the element's length where it has one; others nothing."""
    parts = node(name="parts")(lambda: {"partitions": [[], [1], 7, "abc"]})
    (parts >> [identity >> identity.named("again")] * 2 >> source.named("end")).run()
    for name in ("identity", "again"):
        told = [span.attributes for span in seen.named(name)]
        places = {(t[names.BATCH_INDEX], t[names.BATCH_COUNT], t.get(names.BATCH_SIZE)) for t in told}
        assert places == {(0, 4, 0), (1, 4, 1), (2, 4, None), (3, 4, 3)}
    assert not {names.BATCH_INDEX, names.BATCH_COUNT, names.BATCH_SIZE} & seen.one("end").attributes.keys()


def test_executions_on_the_whole_output_have_a_place_and_no_size(seen: Seen) -> None:
    """``[n] * k`` over what is not split: index and count alone."""
    source.fan_out_to([identity] * 3, split=False).run()
    told = [span.attributes for span in seen.named("identity")]
    assert sorted(t[names.BATCH_INDEX] for t in told) == [0, 1, 2]  # type: ignore[type-var]  # whole numbers
    assert {t[names.BATCH_COUNT] for t in told} == {3}
    assert not any(names.BATCH_SIZE in t for t in told)


def test_providers_are_named_with_their_scopes(seen: Seen) -> None:
    """Nodes tell each injected parameter and its provider's scope, and one word for all; overrides are followed."""

    class Context(BaseFlowContext):
        cache = providers.ThreadLocalSingleton(dict)
        store = providers.Singleton(dict)

    @node
    def injected(n: int, cache: dict[str, int], store: dict[str, int], *, state: dict[str, int]) -> int:
        return n

    def told() -> tuple[object, ...]:
        span = seen.named("injected")[-1]
        return tuple(span.attributes[n] for n in (names.PROVIDER_NAMES, names.PROVIDER_SCOPES, names.PROVIDER_SCOPE))

    context = Context()
    injected.run({"n": 1}, context)
    assert told() == (("cache", "store", "state"), ("thread_local", "singleton", "thread_local"), "mixed")
    with context.store.override(providers.ThreadLocalSingleton(dict)):
        injected.run({"n": 1}, context)
    assert told() == (("cache", "store", "state"), ("thread_local",) * 3, "thread_local")
    injected.run({"n": 1, "store": {}}, context)
    assert told() == (("cache", "state"), ("thread_local",) * 2, "thread_local")


def test_a_run_of_one_node_carries_the_run_id(seen: Seen) -> None:
    """No run span around it; a node in a flow carries none."""
    told = source.execute()
    assert [span.attributes[names.RUN_ID] for span in seen.all()] == [told.run_id]
    (source >> identity).run()
    assert names.RUN_ID not in seen.named("source")[-1].attributes


def test_links_are_capped_and_the_rest_is_counted(seen: Seen) -> None:
    """A fan-in over 200 executions has 128 links and counts 72 more; over 128 it counts none."""
    for count in (200, 128):
        (node(list, name="parts") >> [identity] * 4 >> identity.named(f"end {count}")).run(range(count))
    assert len(seen.one("end 200").links) == len(seen.one("end 128").links) == names.MAX_LINKS == 128
    assert seen.one("end 200").attributes[names.LINK_DROPPED_COUNT] == 72
    assert names.LINK_DROPPED_COUNT not in seen.one("end 128").attributes


def test_links_are_in_the_order_of_the_branches(seen: Seen) -> None:
    """So that the cap keeps the first ones."""
    (node(list, name="parts") >> [identity] * 4 >> identity.named("end")).run(range(20))
    by_id = {span.span_id: span.attributes.get(names.BATCH_INDEX) for span in seen.named("identity")}
    assert [by_id[link.span_id] for link in seen.one("end").links] == list(range(20))


# --- where spans hang ---------------------------------------------------------------------------------------------


def test_ours_nest_in_the_applications_spans_and_theirs_in_ours(
    telemetry_path: TelemetryPath,
) -> None:
    """The current span is the run's parent, and in a node the current span is the node's."""

    @node
    def inside(value: Any) -> None:
        trace.get_current_span().set_attribute("mine", 1)
        with trace.get_tracer("app").start_as_current_span("theirs"):
            pass

    with trace.get_tracer("app").start_as_current_span("request"):
        (source >> inside).run()
        before = trace.get_current_span()
    spans = {span.name: span for span in telemetry_path.spans()}
    assert trace.get_current_span() is not before
    assert spans["run source"].parent_id == spans["request"].span_id
    assert spans["theirs"].parent_id == spans["inside"].span_id
    assert spans["inside"].attributes["mine"] == 1
    assert len({span.trace_id for span in spans.values()}) == 1


@pytest.mark.parametrize("threads", [1, 8])
def test_each_run_is_a_trace_of_its_own(seen: Seen, threads: int) -> None:
    """Runs after each other and at once on many threads never mix, and leave no span current."""
    flow = source >> [identity, identity.named("other")] >> identity.named("end")
    with ThreadPoolExecutor(threads) as pool:
        told = list(pool.map(lambda n: flow.execute({"n": n}), range(40)))
    assert not trace.get_current_span().get_span_context().is_valid
    traces = {run.trace_id: [span for span in seen.all() if span.trace_id == run.trace_id] for run in told}
    assert len(traces) == 40
    assert {outline(spans) for spans in traces.values()} == {
        "run source\n  end <- identity, other ~ identity, other\n  identity <- source\n  other <- source\n  source"
    }


def test_a_run_that_cannot_be_bound_emits_nothing(seen: Seen) -> None:
    """Arguments are bound before the run span starts."""
    with pytest.raises(MissingInputError):
        (source >> node(name="needy")(lambda value, missing: missing)).run()
    assert seen.all() == []


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", [fail, fail_apart], ids=str)
@pytest.mark.parametrize("awaited", [False, True])
def test_an_exception_is_recorded_once_on_the_node_that_raised(seen: Seen, failing: Any, awaited: bool) -> None:
    """The node has the event; the runs above it have status ERROR and error.type only; the note names them all."""
    flow = (source >> (identity >> failing.named("fail")).named("inner")).named("outer")
    with pytest.raises(KeyError) as raised:
        asyncio.run(flow.arun()) if awaited else flow.run()
    (event,) = seen.one("fail").events
    assert event.name == "exception"
    assert event.attributes["exception.type"] == "KeyError"
    assert event.attributes["exception.message"] == "'gone'"
    assert "raise KeyError" in str(event.attributes["exception.stacktrace"])
    for name in ("fail", "run inner", "run outer"):
        span = seen.one(name)
        assert span.status.code == "error"
        assert span.status.message == "KeyError: 'gone'"
        assert span.attributes[names.ERROR_TYPE] == "KeyError"
        assert result_of(span) == "failure"
        assert span.events == (() if name != "fail" else (event,))
    for name in ("source", "identity"):
        assert seen.one(name).status.code == "unset"
        assert result_of(seen.one(name)) is None
    (note,) = raised.value.__notes__
    assert all(part in note for part in ("node 'fail'", "flow 'inner'", seen.trace_id()))


def test_error_types_are_qualified_except_for_builtins(seen: Seen) -> None:
    """``error.type`` is module and qualified name; of a builtin the name alone."""

    class OwnError(Exception): ...

    @node
    def own() -> None:
        raise OwnError

    with pytest.raises(OwnError):
        own.run()
    expected = f"{__name__}.test_error_types_are_qualified_except_for_builtins.<locals>.OwnError"
    assert seen.one("own").attributes[names.ERROR_TYPE] == expected


def test_an_error_that_cannot_be_printed_keeps_its_span(seen: Seen) -> None:
    """It reaches the caller as it is, and its spans are there, with its type in place of its message."""

    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    @node
    def unprintable(value: int) -> None:
        raise UnprintableError

    with pytest.raises(UnprintableError):
        (source >> unprintable).run()
    for name in ("unprintable", "run source"):
        assert seen.one(name).failed
        assert seen.one(name).attributes[names.ERROR_TYPE].endswith("UnprintableError")
    assert events_of(seen.one("unprintable")) == ["exception"]


def test_a_caller_of_a_failing_node_does_not_record_it_again(seen: Seen) -> None:
    """The exception's event stands on the inner node, however deep; each caller only says that it failed."""

    @node
    def outer() -> None:
        (source >> fail).run()

    with pytest.raises(KeyError):
        (source.named("first") >> outer).run()
    assert events_of(seen.one("fail")) == ["exception"]
    for name in ("run source", "outer", "run first"):
        assert events_of(seen.one(name)) == []
        assert seen.one(name).attributes[names.ERROR_TYPE] == "KeyError"
        assert seen.one(name).failed


def test_an_exception_made_of_another_is_recorded_where_it_was_made(seen: Seen) -> None:
    """``raise … from …`` in a caller is an exception of the caller's own."""

    @node
    def outer() -> None:
        try:
            fail()
        except KeyError as error:
            raise RuntimeError("no data") from error

    with pytest.raises(RuntimeError):
        outer.run()
    assert [event.attributes["exception.type"] for event in seen.one("outer").events] == ["RuntimeError"]
    assert [event.attributes["exception.type"] for event in seen.one("fail").events] == ["KeyError"]


def test_a_handled_error_is_none_of_its_caller(seen: Seen) -> None:
    """The node that raised says so; the one that handled it, and the run, succeed."""

    @node
    def outer(value: Any) -> str:
        try:
            fail()
        except KeyError:
            return "handled"
        return "never"

    assert (source >> outer).run() == "handled"
    assert seen.one("fail").failed
    assert not seen.one("outer").failed
    assert not seen.one("run source").failed


def test_the_same_exception_in_another_run_is_recorded_there_too(seen: Seen) -> None:
    """An exception object that is raised again belongs to each of its traces, and its notes do not pile up."""
    error = ValueError("kept")

    @node
    def again() -> None:
        raise error

    for _ in range(3):
        with pytest.raises(ValueError, match="kept"):
            again.run()
    assert [events_of(span) for span in seen.named("again")] == [["exception"]] * 3
    assert len(error.__notes__) == 1


@pytest.mark.parametrize("awaited", [False, True])
def test_failures_of_several_branches_are_each_recorded_once(seen: Seen, awaited: bool) -> None:
    """Each node has its own exception; the run and a node around it say ExceptionGroup and record nothing."""
    gate = threading.Barrier(2, timeout=10)

    @node
    def together(element: int) -> None:
        gate.wait()
        raise ValueError(element)

    flow = node(name="parts")(lambda: [1, 2]) >> [together] * 2

    @node
    async def outer() -> None:
        await flow.arun() if awaited else flow.run()

    with pytest.raises(ExceptionGroup):
        asyncio.run(outer.arun())
    assert sorted(str(e.attributes["exception.message"]) for s in seen.named("together") for e in s.events) == [
        "1",
        "2",
    ]
    for name in ("run parts", "outer"):
        assert seen.one(name).attributes[names.ERROR_TYPE] == "ExceptionGroup"
        assert events_of(seen.one(name)) == []


def test_collected_failures_are_no_errors_of_the_run(seen: Seen) -> None:
    """The node says that it failed; the fan-in is linked to it, and it and the run succeed."""
    found = source.fan_out_in([identity, fail], identity.named("end"), on_error="collect").run()
    assert isinstance(found["fail"], Failure)
    assert events_of(seen.one("fail")) == ["exception"]
    assert not seen.one("run source").failed
    assert not seen.one("end").failed
    assert {link.span_id for link in seen.one("end").links} == {seen.one(n).span_id for n in ("identity", "fail")}


def test_a_node_that_did_not_begin_has_no_span(seen: Seen) -> None:
    """What comes after a failure, and what is linked to it, is not there."""
    flow = source.fan_out_in([fail >> identity, identity.named("other")], identity.named("end"), on_error="collect")
    flow.run()
    assert seen.named("identity") == []
    assert [link.span_id for link in seen.one("end").links] == [seen.one("other").span_id]


# --- retries, time limits, cancellation ---------------------------------------------------------------------------


def flaky(failures: int, attempts: int, awaited: bool) -> Any:
    """A node that fails so often before it succeeds."""
    left = [ConnectionError(str(number)) for number in range(failures)]

    async def no_wait(seconds: float) -> None: ...

    policy = RetryPolicy(on=ConnectionError, attempts=attempts, sleep=lambda _: None, async_sleep=no_wait)

    def call(value: Any = None) -> str:
        if left:
            raise left.pop(0)
        return "done"

    async def call_apart(value: Any = None) -> str:
        return call()

    return node(name="flaky", retry=policy)(call_apart if awaited else call)


@pytest.mark.parametrize("awaited", [False, True])
def test_retries_are_events_and_no_errors(seen: Seen, awaited: bool) -> None:
    """A retried node that succeeds has one event a retry, the attempts it took, and no error."""
    assert (source >> flaky(2, 3, awaited)).run() == "done"
    span = seen.one("flaky")
    assert events_of(span) == [names.RETRY_EVENT] * 2
    for attempt, event in enumerate(span.events, 1):
        assert event.attributes[names.NODE_ATTEMPT] == attempt
        assert event.attributes[names.ERROR_TYPE] == "ConnectionError"
        assert event.attributes[names.RETRY_DELAY] >= 0  # type: ignore[operator]  # seconds
        assert event.attributes["exception.message"] == str(attempt - 1)
        assert len(event.attributes) == 4
    assert span.attributes[names.NODE_ATTEMPT] == 3
    assert span.status.code == seen.one("run source").status.code == "unset"
    assert len(seen.all()) == 3


@pytest.mark.parametrize("awaited", [False, True])
def test_the_error_of_the_last_attempt_is_the_nodes(seen: Seen, awaited: bool) -> None:
    """When attempts run out the last exception is recorded, once."""
    with pytest.raises(ConnectionError, match="1"):
        flaky(9, 2, awaited).run()
    assert events_of(seen.one("flaky")) == [names.RETRY_EVENT, "exception"]
    assert seen.one("flaky").events[-1].attributes["exception.message"] == "1"
    assert seen.one("flaky").attributes[names.NODE_ATTEMPT] == 2
    assert seen.one("flaky").attributes[names.ERROR_TYPE] == "ConnectionError"


def test_the_first_attempt_is_number_one_and_only_retried_nodes_count(seen: Seen) -> None:
    """``aetherflow.node.attempt`` is there only where retries are configured."""
    (source >> flaky(0, 3, awaited=False)).run()
    assert seen.one("flaky").attributes[names.NODE_ATTEMPT] == 1
    assert seen.one("flaky").events == ()
    assert names.NODE_ATTEMPT not in seen.one("source").attributes


@pytest.mark.parametrize("awaited", [False, True])
def test_a_timeout_says_so(seen: Seen, awaited: bool) -> None:
    """A node that ran out of time, and its run, have the result ``timeout`` and are errors."""
    release = threading.Event()

    async def endless(value: Any) -> None:
        await asyncio.Event().wait()

    made = node(name="endless", timeout=0.01)(endless if awaited else lambda value: release.wait())
    with pytest.raises(NodeTimeoutError):
        (source >> made).run()
    release.set()
    for name in ("endless", "run source"):
        assert result_of(seen.one(name)) == "timeout"
        assert seen.one(name).attributes[names.ERROR_TYPE] == "aetherflow.errors.NodeTimeoutError"
        assert seen.one(name).failed
    assert events_of(seen.one("endless")) == ["exception"]


def test_cancellation_is_no_error(seen: Seen) -> None:
    """A cancelled run and its nodes are ``cancellation`` with status UNSET, without error.type or event."""

    async def main() -> None:
        begun = [asyncio.Event(), asyncio.Event()]
        unset = iter(begun)

        @node
        async def endless(value: Any) -> None:
            next(unset).set()
            await asyncio.Event().wait()

        flow = source >> [endless, identity, (identity >> endless).named("inner")]
        task = asyncio.create_task(flow.arun())
        for event in begun:
            await event.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    for span in (*seen.named("endless"), seen.one("run source"), seen.one("run inner")):
        assert result_of(span) == "cancellation"
        assert span.status.code == "unset"
        assert span.events == ()
    assert len(seen.named("endless")) == 2
    assert {result_of(span) for name in ("source", "identity") for span in seen.named(name)} == {None}


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("awaited", [False, True])
def test_an_interruption_is_no_error(seen: Seen, interruption: type[BaseException], awaited: bool) -> None:
    """Ctrl-C and the program's end are cancellation, of a synchronous and an asynchronous node."""

    def end(value: Any) -> None:
        raise interruption

    async def end_apart(value: Any) -> None:
        raise interruption

    with pytest.raises(interruption):
        (source >> node(name="end")(end_apart if awaited else end)).run()
    for name in ("end", "run source"):
        assert result_of(seen.one(name)) == "cancellation"
        assert seen.one(name).status.code == "unset"


# --- streams ------------------------------------------------------------------------------------------------------


@node
def numbers(n: int) -> Iterator[int]:
    for index in range(n):
        identity(index)
        yield index


@node(name="numbers")
async def numbers_apart(n: int) -> AsyncIterator[int]:
    for index in range(n):
        identity(index)
        yield index


@pytest.mark.parametrize("flow", [numbers, numbers_apart], ids=["sync", "async"])
@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("buffer", [None, 2])
def test_a_stream_is_never_current_in_its_consumer(seen: Seen, flow: Any, awaited: bool, buffer: int | None) -> None:
    """What the consumer does between items is not its child; what the generator does is."""

    def consume() -> None:
        assert not trace.get_current_span().is_recording()
        source()

    async def main() -> None:
        async for _ in flow.astream({"n": 3}, buffer=buffer):
            consume()

    if awaited:
        asyncio.run(main())
    else:
        for _ in flow.stream({"n": 3}, buffer=buffer):
            consume()
    stream = seen.one("numbers")
    assert stream.attributes[names.STREAM_ITEMS] == 3
    assert [span.parent_id for span in seen.named("identity")] == [stream.span_id] * 3
    assert [span.parent_id for span in seen.named("source")] == [None] * 3


@node
def halves(items: Iterator[int]) -> Iterator[int]:
    for item in items:
        identity(item)
        if item % 2 == 0:
            yield item


@node(name="halves")
async def halves_apart(items: AsyncIterator[int]) -> AsyncIterator[int]:
    async for item in items:
        identity(item)
        if item % 2 == 0:
            yield item


@pytest.mark.parametrize("stage", [halves, halves_apart], ids=["sync", "async"])
@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("buffer", [None, 2])
def test_each_stage_of_a_stream_has_a_span(seen: Seen, stage: Any, awaited: bool, buffer: int | None) -> None:
    """The stages' spans lie side by side below the run, count their own items, and hold what the stages call."""
    flow = numbers >> stage >> halves.named("quarters")

    async def main() -> list[int]:
        return [item async for item in flow.astream({"n": 6}, buffer=buffer)]

    assert (asyncio.run(main()) if awaited else list(flow.stream({"n": 6}, buffer=buffer))) == [0, 2, 4]
    run = seen.one("run numbers")
    items = {"numbers": 6, "halves": 3, "quarters": 3}
    for name, count in items.items():
        assert seen.one(name).parent_id == run.span_id
        assert seen.one(name).attributes[names.STREAM_ITEMS] == count
    calls = Counter(span.parent_id for span in seen.named("identity"))
    assert calls == {seen.one("numbers").span_id: 6, seen.one("halves").span_id: 6, seen.one("quarters").span_id: 3}
    assert seen.one("halves").attributes[names.NODE_UPSTREAM] == ("numbers",)
    assert all(span.end <= run.end for span in seen.all())


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("buffer", [None, 2])
def test_stages_that_are_closed_early_are_no_errors(seen: Seen, awaited: bool, buffer: int | None) -> None:
    """They count what they have yielded; the run is over when they are."""
    flow = numbers >> halves >> halves_apart.named("quarters")

    async def main() -> None:
        async with aclosing(flow.astream({"n": 1_000}, buffer=buffer)) as items:
            await anext(items)

    if awaited:
        asyncio.run(main())
    else:
        with flow.stream({"n": 1_000}, buffer=buffer) as items:
            next(items)
    for name in ("numbers", "halves", "quarters"):
        told = seen.one(name)
        assert (told.attributes[names.STREAM_ITEMS] == 1) if buffer is None else told.attributes[names.STREAM_ITEMS]
        assert told.status.code == "unset"
    assert result_of(seen.one("run numbers")) is None
    assert all(span.end <= seen.one("run numbers").end for span in seen.all())


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("buffer", [None, 2])
def test_the_error_of_a_stage_is_recorded_there(seen: Seen, awaited: bool, buffer: int | None) -> None:
    """The stages after it and the run are errors too, without an exception of their own; those before it are not."""

    @node(name="broken")
    def broken(items: Iterator[int]) -> Iterator[int]:
        for item in items:
            if item == 2:
                raise KeyError("gone")
            yield item

    flow = numbers >> broken >> halves

    async def main() -> list[int]:
        return [item async for item in flow.astream({"n": 9}, buffer=buffer)]

    with pytest.raises(KeyError):
        asyncio.run(main()) if awaited else list(flow.stream({"n": 9}, buffer=buffer))
    for name, events in {"broken": ["exception"], "halves": [], "run numbers": []}.items():
        assert events_of(seen.one(name)) == events
        assert seen.one(name).attributes[names.ERROR_TYPE] == "KeyError"
    assert seen.one("numbers").status.code == "unset"


@pytest.mark.parametrize("awaited", [False, True])
def test_a_sink_that_stops_early_ends_the_spans_before_its_run(seen: Seen, awaited: bool) -> None:
    """The streams of a run end within it, where its result does not pull them any more."""

    @node(name="first")
    def first(items: Iterator[int]) -> int:
        return next(iter(items))

    flow = numbers >> halves_apart >> first
    assert (asyncio.run(flow.arun({"n": 9})) if awaited else flow.run({"n": 9})) == 0
    run = seen.one("run numbers")
    for name in ("numbers", "halves"):
        assert seen.one(name).attributes[names.STREAM_ITEMS] == 1
        assert run.start <= seen.one(name).end <= run.end


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("source", [numbers, node(lambda n: list(range(n)), name="numbers")], ids=["stream", "list"])
def test_batches_tell_their_place(seen: Seen, source: Any, awaited: bool) -> None:
    """The executions lie below the stage that makes the batches; how many there are is told where it is known."""

    @node(name="work")
    def work(numbers: list[int]) -> list[int]:
        return numbers

    flow = source.map_batches(work, 2) >> node(list, name="all")
    assert (asyncio.run(flow.arun({"n": 5})) if awaited else flow.run({"n": 5})) == [0, 1, 2, 3, 4]
    stage = seen.one("work batches")
    assert stage.parent_id == seen.one("run numbers").span_id
    assert stage.attributes[names.STREAM_ITEMS] == 5
    assert stage.attributes[names.NODE_UPSTREAM] == ("numbers",)
    assert seen.one("all").attributes[names.NODE_UPSTREAM] == ("work batches",)
    told = sorted(seen.named("work"), key=lambda span: span.start)
    assert {span.parent_id for span in told} == {stage.span_id}
    assert [span.attributes[names.BATCH_INDEX] for span in told] == [0, 1, 2]
    assert [span.attributes[names.BATCH_SIZE] for span in told] == [2, 2, 1]
    assert {span.attributes.get(names.BATCH_COUNT) for span in told} == {None if source is numbers else 3}


@pytest.mark.parametrize("awaited", [False, True])
def test_a_stream_that_fails_says_so(seen: Seen, awaited: bool) -> None:
    """The stage records the exception and the items before it; its run is an error too."""

    @node(name="broken")
    def broken(value: Any) -> Iterator[int]:
        yield 1
        raise KeyError("gone")

    async def main() -> None:
        async for _ in (source >> broken).astream():
            pass

    with pytest.raises(KeyError):
        asyncio.run(main()) if awaited else list((source >> broken).stream())
    assert events_of(seen.one("broken")) == ["exception"]
    assert seen.one("broken").attributes[names.STREAM_ITEMS] == 1
    assert seen.one("run source").attributes[names.ERROR_TYPE] == "KeyError"
    assert events_of(seen.one("run source")) == []


def test_a_stream_that_is_left_alone_ends_with_its_object(seen: Seen) -> None:
    """A consumer that breaks off and forgets the stream leaves complete spans behind."""
    for _ in (source >> node(name="items")(lambda value: (yield from range(9)))).stream():
        break
    assert seen.one("items").attributes[names.STREAM_ITEMS] == 1
    assert result_of(seen.one("run source")) is None


def test_an_asynchronous_stream_that_is_left_alone_ends_with_its_object(seen: Seen) -> None:
    """The same, where the flow's output itself was iterated and not closed."""

    async def main() -> None:
        async for _ in await (source >> numbers_apart).arun({"n": 5}):
            break

    asyncio.run(main())
    # The stream and the task that held it may be a circle, and a thread of the pool may not have let go of them yet.
    wait_until(lambda: gc.collect() is not None and seen.named("numbers"), "the end of the stream")
    assert seen.one("numbers").attributes[names.STREAM_ITEMS] == 1
    assert len(seen.named("run source")) == 1


# --- direct calls -------------------------------------------------------------------------------------------------


def test_a_direct_call_is_a_run_of_its_own_under_what_is_current(seen: Seen) -> None:
    """Its flow is the node, it carries a run id, and inside a node it is that node's child."""

    @node
    def outer(value: Any) -> Any:
        return source(value)

    (identity >> outer).run(1)
    called = seen.one("source")
    assert called.parent_id == seen.one("outer").span_id
    assert called.attributes[names.FLOW_NAME] == "source"
    assert called.attributes[names.RUN_ID] not in ("", seen.one("run identity").attributes[names.RUN_ID])


def test_a_called_coroutine_hangs_where_it_is_awaited(seen: Seen) -> None:
    """Tasks made of it are children of the node that made them."""

    @node
    async def sleepy(value: int) -> int:
        await asyncio.sleep(0)
        return value

    @node
    async def outer() -> list[int]:
        return await asyncio.gather(*(sleepy(value) for value in range(3)))

    assert asyncio.run(outer.arun()) == [0, 1, 2]
    assert {span.parent_id for span in seen.named("sleepy")} == {seen.one("outer").span_id}
    assert len(seen.named("sleepy")) == 3


# --- caches ------------------------------------------------------------------------------------------------


def test_a_cached_node_says_whether_it_was_a_hit(seen: Seen):
    """Each execution of a cached node has its span, whose result was there or was computed below it."""

    @node(cache=CachePolicy())
    def cached(value: int) -> Any:
        return identity(value)

    flow = source >> cached
    flow.run({"n": 1})
    flow.run({"n": 1})
    assert [span.attributes[names.NODE_CACHE_HIT] for span in seen.named("cached")] == [False, True]
    assert outline(seen.all()) == (
        "run source\n  cached <- source\n    identity\n  source\nrun source\n  cached <- source\n  source"
    )
