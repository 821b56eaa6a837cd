"""The spans of each composition, held against the telemetry contract, with an application's own TracerProvider."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from dependency_injector import providers
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from aetherflow import BaseFlowContext, MissingInputError, NodeTimeoutError, RetryPolicy, node
from aetherflow.telemetry import conventions as names

NODE_ATTRIBUTES = {
    names.FLOW_NAME, names.NODE_NAME, names.NODE_TYPE, names.PROVIDER_SCOPE, names.CODE_FUNCTION_NAME,
    names.THREAD_ID, names.THREAD_NAME,
}  # fmt: skip
"""What every node span carries; anything else must be told by the execution."""


class Spans:
    """The spans that the application's exporter was given."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def all(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def trace_ids(self) -> set[int]:
        return {span.context.trace_id for span in self.all() if span.context is not None}


@pytest.fixture
def spans() -> Iterator[Spans]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    yield Spans(exporter)
    provider.shutdown()


@node
def source(n: int) -> list[int]:
    return list(range(n))


@node
def left(source: Any) -> Any:
    return source


@node
def right(source: Any) -> Any:
    return source


@node
def gather(parallel_results: Any) -> int:
    return len(parallel_results)


@node
def fail(value: Any = None) -> None:
    raise KeyError("gone")


@node
async def wait_for_it(value: Any = None) -> Any:
    await asyncio.sleep(0)
    return value


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_chain_is_a_run_span_with_one_child_a_node(spans: Spans) -> None:
    """The run span has the flow's name, run id and node count and no more; nodes hang under it, kind INTERNAL."""
    run = (source >> left.named("next")).execute({"n": 2})
    root = spans.one("run source")
    assert attributes_of(root) == {names.FLOW_NAME: "source", names.FLOW_NODES: 2, names.RUN_ID: run.run_id}
    assert root.parent is None
    assert f"{next(iter(spans.trace_ids())):032x}" == run.trace_id
    for name in ("source", "next"):
        span = spans.one(name)
        assert parent_of(span) == id_of(root)
        assert span.kind is SpanKind.INTERNAL
        assert span.status.status_code is StatusCode.UNSET


def test_a_node_says_what_the_contract_lists_and_no_more(spans: Spans) -> None:
    """Node spans carry the fixed attributes, and upstream only where they took an output."""
    (source >> left).run({"n": 2})
    assert set(attributes_of(spans.one("source"))) == NODE_ATTRIBUTES
    told = attributes_of(spans.one("left"))
    assert set(told) == NODE_ATTRIBUTES | {names.NODE_UPSTREAM}
    assert told[names.NODE_UPSTREAM] == ("source",)
    assert told[names.NODE_TYPE] == "sync"
    assert told[names.PROVIDER_SCOPE] == "none"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_run_of_one_node_is_one_span_with_the_run_id(spans: Spans, asynchronous: bool) -> None:
    """No run span around a single node: its own carries the run id."""
    flow = wait_for_it if asynchronous else source
    run = flow.execute({"n": 1, "value": 1})
    (span,) = spans.all()
    assert attributes_of(span)[names.RUN_ID] == run.run_id
    assert run.trace_id == f"{next(iter(spans.trace_ids())):032x}"


@pytest.mark.parametrize("awaited", [False, True])
def test_a_fan_in_links_to_each_branch(spans: Spans, awaited: bool) -> None:
    """The fan-in's parent is the run; it links to the spans whose output it took; all is one trace."""
    flow = source >> [left, right, wait_for_it] >> gather
    assert (asyncio.run(flow.arun({"n": 3})) if awaited else flow.run({"n": 3})) == 3
    fan_in = spans.one("gather")
    linked = {link.context.span_id for link in fan_in.links}
    assert linked == {id_of(spans.one(name)) for name in ("left", "right", "wait_for_it")}
    assert parent_of(fan_in) == id_of(spans.one("run source"))
    assert attributes_of(fan_in)[names.NODE_UPSTREAM] == ("left", "right", "wait_for_it")
    assert len(spans.trace_ids()) == 1


def test_links_are_capped_and_the_rest_is_counted(spans: Spans) -> None:
    """A fan-in over 200 executions has 128 links and counts 72 more."""
    (source >> [left] * 4 >> gather).run({"n": 200})
    fan_in = spans.one("gather")
    assert len(fan_in.links) == names.MAX_LINKS
    assert attributes_of(fan_in)[names.LINK_DROPPED_COUNT] == 200 - names.MAX_LINKS


def test_partitions_tell_their_place(spans: Spans) -> None:
    """Executions over elements carry index, count and the element's length; one name serves them all."""

    @node
    def parts() -> dict[str, list[list[int]]]:
        return {"partitions": [[], [1], [1, 2]]}

    (parts >> [left.named("work")] * 2 >> gather).run()
    told = [attributes_of(span) for span in spans.named("work")]
    places = {(t[names.BATCH_INDEX], t[names.BATCH_COUNT], t[names.BATCH_SIZE]) for t in told}
    assert places == {(0, 3, 0), (1, 3, 1), (2, 3, 2)}


def test_an_exception_is_recorded_once_on_the_node_that_raised(spans: Spans) -> None:
    """The node has the event, status ERROR and error.type; the run has status and error.type only."""
    with pytest.raises(KeyError) as raised:
        (source >> fail).run({"n": 1})
    failed, run = spans.one("fail"), spans.one("run source")
    assert [event.name for event in failed.events] == ["exception"]
    assert run.events == ()
    for span, key in ((failed, names.NODE_RESULT), (run, names.RUN_RESULT)):
        assert span.status.status_code is StatusCode.ERROR
        assert attributes_of(span)[names.ERROR_TYPE] == "KeyError"
        assert attributes_of(span)[key] == "failure"
    (note,) = raised.value.__notes__
    assert "'fail'" in note
    assert "'source'" in note
    assert f"{next(iter(spans.trace_ids())):032x}" in note


def test_a_node_that_calls_a_failing_node_does_not_record_it_again(spans: Spans) -> None:
    """The exception's event stands on the inner node; the caller only says that it failed."""

    @node
    def outer() -> None:
        fail()

    with pytest.raises(KeyError):
        outer.run()
    assert parent_of(spans.one("fail")) == id_of(spans.one("outer"))
    assert [event.name for event in spans.one("fail").events] == ["exception"]
    assert spans.one("outer").events == ()
    assert spans.one("outer").status.status_code is StatusCode.ERROR


def test_retries_are_events_and_no_errors(spans: Spans) -> None:
    """A retried node that succeeds has one event a retry, the attempts it took, and no error."""
    left_to_fail = [ConnectionError("1"), ConnectionError("2")]

    @node(retry=RetryPolicy(on=ConnectionError, sleep=lambda _: None))
    def flaky() -> str:
        if left_to_fail:
            raise left_to_fail.pop(0)
        return "done"

    assert flaky.run() == "done"
    span = spans.one("flaky")
    assert [event.name for event in span.events] == [names.RETRY_EVENT] * 2
    assert set(span.events[0].attributes or {}) == {names.NODE_ATTEMPT, names.ERROR_TYPE, names.RETRY_DELAY}
    assert attributes_of(span)[names.NODE_ATTEMPT] == 3
    assert span.status.status_code is StatusCode.UNSET


def test_a_timeout_says_so(spans: Spans) -> None:
    """A node that ran out of time has the result ``timeout`` and is an error."""

    @node(timeout=0.01)
    async def endless() -> None:
        await asyncio.Event().wait()

    with pytest.raises(NodeTimeoutError):
        endless.run()
    assert attributes_of(spans.one("endless"))[names.NODE_RESULT] == "timeout"
    assert spans.one("endless").status.status_code is StatusCode.ERROR


def test_cancellation_is_no_error(spans: Spans) -> None:
    """A cancelled run and its node are ``cancellation`` with status UNSET, without error.type or event."""
    begun = asyncio.Event()

    @node
    async def endless(value: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task((source >> endless).arun({"n": 1}))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    for span, key in ((spans.one("endless"), names.NODE_RESULT), (spans.one("run source"), names.RUN_RESULT)):
        assert attributes_of(span)[key] == "cancellation"
        assert names.ERROR_TYPE not in attributes_of(span)
        assert span.status.status_code is StatusCode.UNSET
        assert span.events == ()


def test_a_named_flow_inside_another_has_a_run_span_of_its_own(spans: Spans) -> None:
    """Its run span hangs under the outer run and its nodes under that, with its own flow name."""
    inner = (left >> right.named("inner right")).named("inner")
    (source >> inner).run({"n": 1})
    outer_run, inner_run = spans.one("run source"), spans.one("run inner")
    assert parent_of(inner_run) == id_of(outer_run)
    assert parent_of(spans.one("left")) == id_of(inner_run)
    assert attributes_of(spans.one("left"))[names.FLOW_NAME] == "inner"
    assert attributes_of(inner_run)[names.RUN_ID] != attributes_of(outer_run)[names.RUN_ID]


def test_providers_are_named_with_their_scopes(spans: Spans) -> None:
    """Injected nodes tell each provider and its scope, and one word for them all; overrides are followed."""

    class Context(BaseFlowContext):
        cache = providers.ThreadLocalSingleton(dict)
        store = providers.Singleton(dict)

    @node
    def injected(n: int, cache: dict[str, int], store: dict[str, int]) -> int:
        return n

    context = Context()
    injected.run({"n": 1}, context)
    with context.store.override(providers.Factory(dict)):
        injected.run({"n": 1}, context)
    plain, overridden = (attributes_of(span) for span in spans.all())
    assert plain[names.PROVIDER_NAMES] == ("cache", "store")
    assert plain[names.PROVIDER_SCOPES] == ("thread_local", "singleton")
    assert plain[names.PROVIDER_SCOPE] == "mixed"
    assert overridden[names.PROVIDER_SCOPES] == ("thread_local", "factory")


def test_a_stream_is_one_span_never_current_in_its_consumer(spans: Spans) -> None:
    """From the first pull to exhaustion, with its items; what the consumer does meanwhile is not its child."""

    @node
    def count(n: int) -> Iterator[int]:
        for index in range(n):
            left(index)
            yield index

    for _ in count.stream({"n": 3}):
        assert not trace.get_current_span().is_recording()
    span = spans.one("count")
    assert attributes_of(span)[names.STREAM_ITEMS] == 3
    assert attributes_of(span)[names.NODE_TYPE] == "stream"
    assert {parent_of(inner) for inner in spans.named("left")} == {id_of(span)}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_run_lasts_as_long_as_the_stream_at_its_end(spans: Spans, asynchronous: bool) -> None:
    """The run span ends with the stream, early close included, and the generator's ``finally`` runs."""
    closed: list[bool] = []

    @node
    def items(source: list[int]) -> Iterator[int]:
        try:
            yield from source
        finally:
            closed.append(True)

    @node(name="items")
    async def items_apart(source: list[int]) -> AsyncIterator[int]:
        try:
            for item in source:
                yield item
        finally:
            closed.append(True)

    async def first() -> int:
        stream = (source >> items_apart).astream({"n": 5})
        found = await anext(stream)
        assert not spans.named("run source")
        await stream.aclose()  # type: ignore[attr-defined]  # an async generator
        return found

    if asynchronous:
        assert asyncio.run(first()) == 0
    else:
        stream = (source >> items).stream({"n": 5})
        assert next(stream) == 0
        assert not spans.named("run source")
        stream.close()  # type: ignore[attr-defined]  # a Stream
    assert closed == [True]
    assert parent_of(spans.one("items")) == id_of(spans.one("run source"))
    assert attributes_of(spans.one("items"))[names.STREAM_ITEMS] == 1


def test_ours_nest_in_the_applications_spans_and_theirs_in_ours(spans: Spans) -> None:
    """The current span is the run's parent, and ``get_current_span()`` in a node is that node's span."""

    @node
    def inside() -> None:
        trace.get_current_span().set_attribute("mine", 1)
        with trace.get_tracer("app").start_as_current_span("theirs"):
            pass

    with trace.get_tracer("app").start_as_current_span("request") as request:
        inside.run()
    assert parent_of(spans.one("inside")) == request.get_span_context().span_id
    assert parent_of(spans.one("theirs")) == id_of(spans.one("inside"))
    assert attributes_of(spans.one("inside"))["mine"] == 1


def test_a_run_that_cannot_be_bound_emits_nothing(spans: Spans) -> None:
    """Arguments are bound before the run span starts."""
    with pytest.raises(MissingInputError):
        (source >> left).run()
    assert spans.all() == ()
