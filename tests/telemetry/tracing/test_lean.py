"""Lean spans: what they say and do is what the SDK's own spans would."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.context import get_current
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Span, Status, StatusCode

from aetherflow import node
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry import observer as observer_module
from aetherflow.telemetry import shield, tracing
from aetherflow.telemetry.active import Providers, set_active
from aetherflow.telemetry.metrics.accumulators import registry
from aetherflow.telemetry.observer import current_observer
from aetherflow.telemetry.tracing import sdk_spans
from aetherflow.telemetry.tracing.lean import LeanSpan
from aetherflow.telemetry.tracing.lean_observer import LeanObserver
from aetherflow.testing import CapturedTelemetry, DeterministicIdGenerator


class App:
    """An application's provider that AetherFlow is told of, and what it has exported."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, **options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def __enter__(self) -> App:
        set_active(Providers(self.provider))
        return self

    def __exit__(self, *_: object) -> None:
        set_active(None)
        self.provider.shutdown()

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()

    def one(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.spans if span.name == name]
        return found


@pytest.fixture
def app() -> Iterator[App]:
    with App() as app:
        yield app


class SeesStarts(SpanProcessor):
    """A processor that wants to see spans begin, as one that copies baggage does."""

    def __init__(self) -> None:
        self.started: list[Span] = []

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        self.started.append(span)
        span.set_attribute("seen", True)


@node
def one(x: int) -> int:
    return x


@node
def two(one: int) -> int:
    return one


chain = one >> two

Act = Callable[[Span], object]

ACTS: dict[str, Act] = {
    "attribute": lambda span: span.set_attribute("mine", (1, 2)),
    "attributes": lambda span: span.set_attributes({"a": "x", names.NODE_NAME: "renamed"}),
    "attributes of all kinds": lambda span: span.set_attributes({"b": 1, "mine": (1, 2), "": 3, "c": object()}),  # type: ignore[dict-item]
    "invalid attribute": lambda span: span.set_attribute("", 1),
    "many attributes": lambda span: span.set_attributes({f"k{n}": n for n in range(200)}),
    "event": lambda span: span.add_event("said", {"n": 1}, 5),
    "many events": lambda span: [span.add_event("said", {"n": n}, 5) for n in range(200)],
    "link": lambda span: span.add_link(trace.SpanContext(3, 4, is_remote=True), {"why": "so"}),
    "name": lambda span: span.update_name("another"),
    "error": lambda span: span.set_status(Status(StatusCode.ERROR, "bad")),
    "ok, then error": lambda span: (span.set_status(StatusCode.OK), span.set_status(StatusCode.ERROR, "late")),
    "end": lambda span: span.end(7),
}


def told(span: ReadableSpan) -> dict[str, Any]:
    """Return all that a span says but its times, threads and ids."""
    found: dict[str, Any] = json.loads(span.to_json())
    for key in ("start_time", "end_time", "context", "parent_id"):
        del found[key]
    for key in (names.THREAD_ID, names.THREAD_NAME, names.RUN_ID):
        found["attributes"].pop(key, None)
    dropped = (span.dropped_attributes, span.dropped_events, span.dropped_links)
    read = (span.name, dict(span.attributes or {}).keys(), span.status.status_code, len(span.events), len(span.links))
    return {**found, "dropped": dropped, "read": read, "scope": span.instrumentation_scope, "kind": span.kind}


def spans_of(acts: Sequence[str], *processors: SpanProcessor) -> dict[str, Any]:
    """Run a node that does something to its span; return what its span then says."""

    @node
    def acting(x: int) -> int:
        for act in acts:
            ACTS[act](trace.get_current_span())
        return x

    with App() as app:
        for processor in processors:
            app.provider.add_span_processor(processor)
        (one >> acting).run(1)
        return told(app.spans[1])


class _Silent(SeesStarts):
    """Has spans take the public path without changing them."""

    def on_start(self, span: Span, parent_context: Any = None) -> None: ...


@given(st.lists(st.sampled_from(sorted(ACTS)), max_size=4))
def test_whatever_a_node_does_to_its_span_is_told_as_the_sdk_would_tell_it(acts: list[str]) -> None:
    """Attributes, events, links, names, statuses, limits and an early end, in any order."""
    assert spans_of(acts) == spans_of(acts, _Silent())


def test_the_sdks_own_provider_has_lean_spans(app: App) -> None:
    """Without this the other tests would compare the public path with itself."""
    chain.run(1)
    assert all(type(span) is LeanSpan for span in app.spans)
    assert [span.name for span in app.spans] == ["one", "two", "run one"]


def test_the_tree_is_that_of_the_sdk(app: App) -> None:
    """One trace, valid random ids, children within the time of their parent, flags as the SDK sets them."""
    chain.run(1)
    first, second, run = app.spans
    assert first.parent == second.parent == run.context
    assert run.parent is None
    assert len({span.context.span_id for span in app.spans}) == 3
    with app.provider.get_tracer("other").start_as_current_span("theirs") as theirs:
        assert run.context.trace_flags == theirs.get_span_context().trace_flags
    for span in (first, second):
        assert run.start_time <= span.start_time <= span.end_time <= run.end_time  # type: ignore[operator]


def test_what_was_current_is_current_again_after_a_run(app: App) -> None:
    """Also after one that failed, whose failing node alone records the error."""

    @node
    def fails(x: int) -> int:
        raise ValueError("bad")

    before = get_current()
    chain.run(1)
    assert get_current() is before
    with pytest.raises(ValueError, match="bad"):
        (one >> fails >> one).run(1)
    assert get_current() is before
    assert [(span.name, len(span.events), span.status.is_ok) for span in app.spans[3:]] == [
        ("one", 0, True),
        ("fails", 1, False),
        ("run one", 0, False),
    ]


def test_a_processor_that_fails_does_not_fail_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host gets its result; the failure is counted."""

    class Fails(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            raise OSError("disk full")

    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # under pytest failures are raised
    with App() as app:
        app.provider.add_span_processor(Fails())
        before = shield.failures()
        assert chain.run(1) == 1
        assert shield.failures() == before + 3


def test_spans_of_others_nest_in_ours_and_ours_in_theirs(app: App) -> None:
    """Whatever is instrumented otherwise is part of the same tree."""
    tracer = app.provider.get_tracer("other")

    @node
    def calls(x: int) -> int:
        with tracer.start_as_current_span("inside"):
            return x

    with tracer.start_as_current_span("outside"):
        (one >> calls).run(1)
    assert app.one("inside").parent == app.one("calls").context
    assert app.one("run one").parent == app.one("outside").context


def test_a_processor_that_sees_starts_sees_them(app: App) -> None:
    """Spans take the public path then, also when it is added after the first run."""
    chain.run(1)
    processor = SeesStarts()
    app.provider.add_span_processor(processor)
    app.exporter.clear()
    chain.run(1)
    assert len(processor.started) == 3
    assert all(span.attributes and span.attributes["seen"] for span in app.spans)


def test_every_processor_gets_every_span(app: App) -> None:
    """A second one, added late, is served too."""
    chain.run(1)
    second = InMemorySpanExporter()
    app.provider.add_span_processor(SimpleSpanProcessor(second))
    chain.run(1)
    assert len(app.spans) == 6
    assert [span.name for span in second.get_finished_spans()] == ["one", "two", "run one"]


def test_the_id_generator_is_asked() -> None:
    """Deterministic ids in tests, or ids that a back end wants, are honoured."""
    with App(id_generator=DeterministicIdGenerator()) as app:
        chain.run(1)
        run = app.one("run one")
        assert run.context.trace_id == 1
        assert {span.context.span_id for span in app.spans} == {1, 2, 3}
        assert not run.context.trace_flags.random_trace_id


@pytest.mark.parametrize("works", [0, 1, 2])
def test_an_id_generator_that_fails_does_not_fail_the_run(monkeypatch: pytest.MonkeyPatch, works: int) -> None:
    """The host gets its results, without the spans that have no id."""

    class Broken(DeterministicIdGenerator):
        asked = 0

        def generate_span_id(self) -> int:
            self.asked += 1
            if self.asked > works:
                raise OSError("no more ids")
            return super().generate_span_id()

    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # under pytest failures are raised
    with App(id_generator=Broken()) as app:
        assert (chain.run(1), one.run(1), one(1)) == (1, 1, 1)
        assert len(app.spans) == works


def test_short_limits_are_honoured() -> None:
    """An attribute that is cut at so many characters is cut in ours too."""
    with App(span_limits=SpanLimits(max_span_attribute_length=3)) as app:
        chain.run(1)
        attributes = app.one("two").attributes
        assert attributes is not None
        assert attributes[names.NODE_TYPE] == "syn"


class Asked(Sampler):
    """Decides by a function of the span's name, and notes what it was asked."""

    def __init__(self, decide: Callable[[str], SamplingResult]) -> None:
        self.decide = decide
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def should_sample(self, parent_context, trace_id, name, kind=None, attributes=None, links=None, trace_state=None):
        self.asked.append((name, dict(attributes or {})))
        return self.decide(name)

    def get_description(self) -> str:
        return "asked"


def test_a_sampler_of_the_application_is_asked_about_every_span_with_its_attributes() -> None:
    """It sees what spans are created with, and may add to it."""
    sampler = Asked(lambda name: SamplingResult(Decision.RECORD_AND_SAMPLE, {"added": name}))
    with App(sampler=sampler) as app:
        chain.run(1)
    assert [name for name, _ in sampler.asked] == ["run one", "one", "two"]
    assert sampler.asked[1][1][names.NODE_NAME] == "one"
    assert app.one("two").attributes == {"added": "two"}


def test_a_sampler_may_drop_a_run_and_keep_its_nodes() -> None:
    """Only samplers that are known not to do so are not asked below what they dropped."""
    drop, keep = SamplingResult(Decision.DROP), SamplingResult(Decision.RECORD_AND_SAMPLE)
    with App(sampler=Asked(lambda name: keep if name == "two" else drop)) as app:
        chain.run(1)
    assert [span.name for span in app.spans] == ["two"]


def test_what_is_recorded_and_not_sampled_is_not_exported() -> None:
    """Processors look at the flag; the span records all the same."""
    recording: list[bool] = []

    @node
    def looks(x: int) -> int:
        recording.append(trace.get_current_span().is_recording())
        return x

    with App(sampler=Asked(lambda _: SamplingResult(Decision.RECORD_ONLY))) as app:
        (one >> looks).run(1)
    assert recording == [True]
    assert app.spans == ()


@pytest.mark.parametrize("sampler", [ParentBased(ALWAYS_OFF), ALWAYS_OFF, ParentBased(TraceIdRatioBased(0.0))])
def test_what_is_sampled_out_is_metered_all_the_same(sampler: Sampler) -> None:
    """No span is exported, nodes see an unsampled span of one trace, and every execution counts."""
    seen: list[trace.SpanContext] = []

    @node
    def unsampled(x: int) -> int:
        seen.append(trace.get_current_span().get_span_context())
        return x

    flow = (unsampled >> one >> [two, unsampled.named("again")]).named("sampled out")
    with App(sampler=sampler) as app:
        before = counts()
        assert flow.run(1) == {"two": 1, "again": 1}
        assert flow.execute(1).trace_id is not None
    assert app.spans == ()
    assert {key: count - before.get(key, 0) for key, count in counts().items() if "sampled out" in key} == {
        ("sampled out",): 2,
        ("sampled out", "unsampled"): 2,
        ("sampled out", "one"): 2,
        ("sampled out", "two"): 2,
        ("sampled out", "again"): 2,
    }
    assert all(context.is_valid and not context.trace_flags.sampled for context in seen)
    assert len({context.trace_id for context in seen}) == 2


@pytest.mark.parametrize("flow", [one, chain], ids=["a node alone", "a chain"])
def test_a_share_of_runs_is_that_share(flow: Any) -> None:
    """Each run is decided on once, however its spans are begun."""
    random.seed(7)  # what the SDK draws ids from
    with App(sampler=ParentBased(TraceIdRatioBased(0.25))) as app:
        for _ in range(1000):
            flow.run(1)
        assert 200 < len({span.context.trace_id for span in app.spans}) < 300


def counts() -> dict[tuple[str, ...], int]:
    """Return how often each flow and node was executed."""
    return {tuple(series.attributes.values()): series.totals().count for series in registry.all()}


def test_a_run_below_an_unsampled_span_is_not_sampled(app: App) -> None:
    """The decision of whoever called holds for the flow, without asking anybody."""
    outside = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False))
    with trace.use_span(outside):
        chain.run(1)
    assert app.spans == ()


def test_a_remote_parent_decides_by_its_flag(app: App) -> None:
    """A sampled caller's trace goes on, an unsampled one's does not."""
    for flags, exported in ((0, 0), (1, 3)):
        remote = trace.SpanContext(5, 6, is_remote=True, trace_flags=trace.TraceFlags(flags))
        with trace.use_span(trace.NonRecordingSpan(remote)):
            chain.run(1)
        assert len(app.spans) == exported
    run = app.one("run one")
    assert run.parent is not None
    assert run.parent.is_remote
    assert run.context.trace_id == 5


def test_a_sampler_for_remote_parents_is_asked() -> None:
    """Though that parent is sampled, its children need not be."""
    remote = trace.SpanContext(5, 6, is_remote=True, trace_flags=trace.TraceFlags(1))
    with App(sampler=ParentBased(ALWAYS_ON, remote_parent_sampled=ALWAYS_OFF)) as app:
        with trace.use_span(trace.NonRecordingSpan(remote)):
            chain.run(1)
            one.run(1)
        assert app.spans == ()


def test_flags_that_nobody_knows_are_not_handed_on(app: App) -> None:
    """Of a parent's flags its children have those that the SDK's own would have."""
    above = trace.SpanContext(5, 6, is_remote=False, trace_flags=trace.TraceFlags(0xFF))
    with trace.use_span(trace.NonRecordingSpan(above)):
        chain.run(1)
        with app.provider.get_tracer("other").start_as_current_span("theirs") as theirs:
            wanted = theirs.get_span_context().trace_flags
    assert {span.context.trace_flags for span in app.spans} == {wanted}


@pytest.mark.parametrize("fails", [False, True])
def test_a_traced_run_is_metered_once(app: App, fails: bool) -> None:
    """Its nodes and itself, whether it fails or not."""

    @node
    def last(one: int) -> int:
        return one // (0 if fails else 1)

    flow = (one >> last).named(f"metered-{fails}")
    for _ in range(3):
        with suppress(ZeroDivisionError):
            flow.run(1)
    counted: Counter[tuple[str, str | None]] = Counter()
    for series in registry.all():
        if series.attributes.get(names.FLOW_NAME) == flow.name:
            counted[series.definition.name, series.attributes.get(names.NODE_NAME)] += series.totals().count
    of_nodes = names.NODE_DURATION.name
    assert counted == {(names.RUN_DURATION.name, None): 3, (of_nodes, "one"): 3, (of_nodes, "last"): 3}


def test_every_field_of_the_sdks_spans_can_be_read(app: App) -> None:
    """Also the private ones, which code of the SDK and of vendors reads of spans that it exports."""
    chain.run(1)
    ours = app.one("run one")
    assert isinstance(ours, LeanSpan)
    told = {field: getattr(ours, field) for field in vars(ReadableSpan("any"))}
    assert told["_resource"] is app.provider.resource
    assert dict(told["_attributes"]) == dict(ours.attributes or {})
    assert (told["_start_time"], told["_end_time"]) == (ours.start_time, ours.end_time)
    assert ours._name == "run one"  # type: ignore[attr-defined]  # made of the SDK's own
    with pytest.raises(AttributeError, match="nothing"):
        _ = ours.nothing  # type: ignore[attr-defined]  # that is the point


def test_an_sdk_that_is_not_as_expected_leaves_the_public_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans of a later SDK are its own, until lean ones have learnt of it."""

    def differs() -> None:
        raise AssertionError("differs")

    monkeypatch.setattr(sdk_spans, "_compare", differs)
    sdk_spans.is_as_expected.cache_clear()
    try:
        with App() as app:
            assert not isinstance(current_observer(), LeanObserver)
            chain.run(1)
            assert [type(span) for span in app.spans] == [ReadableSpan] * 3
    finally:
        sdk_spans.is_as_expected.cache_clear()


def test_a_span_that_the_node_ends_is_exported_once(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """Ending it by hand is unwise and harmless; a second end says so, as the SDK does."""

    @node
    def ends(x: int) -> int:
        trace.get_current_span().end()
        trace.get_current_span().end()
        return x

    ends.run(1)
    assert len(app.spans) == 1
    assert "ended span" in caplog.text


def test_an_unknown_sdk_gets_spans_through_its_api(monkeypatch, caplog):
    """If the SDK lacks a name that fast spans need, each span is created by the SDK itself, after one warning."""
    monkeypatch.setitem(sys.modules, "aetherflow.telemetry.tracing.lean_observer", None)
    monkeypatch.delattr(tracing, "lean_observer", raising=False)
    observer_module._lean_modules.cache_clear()
    try:
        with CapturedTelemetry() as captured:
            work = node(lambda n: n, name="work")
            assert [work.run({"n": n}) for n in range(2)] == [0, 1]
        with CapturedTelemetry() as again:
            work.run({"n": 3})
    finally:
        observer_module._lean_modules.cache_clear()
    assert [type(span).__name__ for span in captured.spans] == ["ReadableSpan"] * 2
    assert len(again.spans) == 1
    (warning,) = [record.getMessage() for record in caplog.records if record.name == observer_module.__name__]
    assert warning.startswith("unrecognised OpenTelemetry SDK: creating each span through its public API (slower): ")
