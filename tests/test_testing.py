"""What users test with: captured telemetry, the fake clock, deterministic ids."""

from __future__ import annotations

from contextlib import suppress

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from aetherflow import node, testing
from aetherflow.telemetry import active
from aetherflow.testing import CapturedTelemetry, DeterministicIdGenerator, FakeClock, capture_telemetry

__all__ = ["capture_telemetry"]  # a fixture is used by being here

pytest_plugins = ("pytester",)


@node
def load(n):
    return list(range(n))


@node
def total(load):
    return sum(load)


def tracer_of(captured: CapturedTelemetry) -> trace.Tracer:
    return captured.tracer_provider.get_tracer("test")


def test_the_fixture_tells_aetherflow_alone(capture_telemetry):
    """During the test AetherFlow is told of the captured providers, and the API's global ones stay unset."""
    told = active.providers
    assert told.tracer_provider is capture_telemetry.tracer_provider
    assert told.meter_provider is capture_telemetry.meter_provider
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def test_a_flow_is_captured_whole(capture_telemetry):
    """The spans of a run and the durations of its nodes are there to look at, and nothing needs to be flushed."""
    flow = (load >> total).named("etl")
    done = flow.execute({"n": 4})
    (root,) = capture_telemetry.tree()
    assert str(root) == "run etl\n  load\n  total"
    assert f"{root.span.context.trace_id:032x}" == done.trace_id
    (point,) = capture_telemetry.points("aetherflow.node.duration", {"aetherflow.node.name": "total"})
    assert point.count == 1


def test_captures_nest_and_end():
    """The innermost capture is in force, and each puts back what was before it, also after an error."""
    with CapturedTelemetry() as outer:
        with suppress(KeyError), CapturedTelemetry() as inner:
            assert active.providers.tracer_provider is inner.tracer_provider
            raise KeyError
        assert active.providers.tracer_provider is outer.tracer_provider
    assert active.providers is None


def test_spans_come_in_order_of_start(capture_telemetry):
    """Spans are listed as they started, though children end first, and can be picked by name."""
    tracer = tracer_of(capture_telemetry)
    with tracer.start_as_current_span("a"):
        for name in ("b", "c", "b"):
            with tracer.start_as_current_span(name):
                ...
        assert [span.name for span in capture_telemetry.spans] == ["b", "c", "b"]
    assert [span.name for span in capture_telemetry.spans] == ["a", "b", "c", "b"]
    first, second = capture_telemetry.spans_named("b")
    assert first.context.span_id < second.context.span_id
    assert capture_telemetry.spans_named("d") == ()


def test_spans_that_start_in_the_same_instant_keep_their_order(capture_telemetry):
    """Where the clock did not tick between two starts, the ids decide."""
    tracer = tracer_of(capture_telemetry)
    spans = [tracer.start_span(name, start_time=7) for name in ("z", "y", "x")]
    for span in reversed(spans):
        span.end()
    assert [span.name for span in capture_telemetry.spans] == ["z", "y", "x"]


def test_the_tree_is_what_ran_under_what(capture_telemetry):
    """A tree for each root, children ordered by start, printed as an outline; an absent parent makes a root."""
    tracer = tracer_of(capture_telemetry)
    with tracer.start_as_current_span("run"):
        with tracer.start_as_current_span("load"), tracer.start_as_current_span("read"):
            ...
        with tracer.start_as_current_span("report"):
            ...
    with tracer.start_as_current_span("other"):
        with tracer.start_as_current_span("orphan"):
            ...
        roots = capture_telemetry.tree()
    assert [root.name for root in roots] == ["run", "orphan"]
    assert str(roots[0]) == "run\n  load\n    read\n  report"
    assert [child.name for child in roots[0].children] == ["load", "report"]
    assert roots[0].span is capture_telemetry.spans_named("run")[0]


def test_metrics_are_read_by_name_and_attributes(capture_telemetry):
    """Every metric is there with what it has added up to; points are picked by some of their attributes."""
    counter = capture_telemetry.meter_provider.get_meter("test").create_counter("c", "{thing}", "Things.")
    assert capture_telemetry.metrics() == {}
    counter.add(1, {"node": "a", "flow": "f"})
    counter.add(2, {"node": "b", "flow": "f"})
    counter.add(3, {"node": "b", "flow": "f"})
    metric = capture_telemetry.metrics()["c"]
    assert (metric.unit, metric.description) == ("{thing}", "Things.")
    assert [point.value for point in capture_telemetry.points("c", {"node": "b"})] == [5]
    assert sorted(point.value for point in capture_telemetry.points("c")) == [1, 5]
    assert capture_telemetry.points("c", {"node": "x"}) == []
    assert capture_telemetry.points("d") == []


def test_what_was_captured_stays_readable():
    """After the capture its spans and metrics can still be looked at."""
    with CapturedTelemetry() as captured:
        captured.meter_provider.get_meter("test").create_counter("c").add(1)
        tracer_of(captured).start_span("a").end()
    assert [span.name for span in captured.spans] == ["a"]
    assert list(captured.metrics()) == ["c"]


def test_clearing_forgets_spans_alone(capture_telemetry):
    """After ``clear`` only what ends from then on is listed, and metrics go on adding up."""
    capture_telemetry.meter_provider.get_meter("test").create_counter("c").add(1)
    tracer_of(capture_telemetry).start_span("a").end()
    capture_telemetry.clear()
    tracer_of(capture_telemetry).start_span("b").end()
    assert [span.name for span in capture_telemetry.spans] == ["b"]
    assert list(capture_telemetry.metrics()) == ["c"]


def test_a_sampler_may_be_given():
    """What the sampler drops is not captured."""
    with CapturedTelemetry(ALWAYS_OFF) as captured:
        tracer_of(captured).start_span("a").end()
    assert captured.spans == ()


def test_ids_count_up():
    """Trace and span ids are the same in every run: 1, 2, 3, each for itself."""
    ids = DeterministicIdGenerator()
    assert [ids.generate_trace_id(), ids.generate_span_id(), ids.generate_span_id(), ids.generate_trace_id()] == [
        1,
        1,
        2,
        2,
    ]


def test_the_fixture_works_where_users_put_it(pytester):
    """Imported into a ``conftest.py`` the fixture serves a user's tests."""
    pytester.makeconftest("from aetherflow.testing import capture_telemetry")
    pytester.makepyfile(
        """
        def test_it(capture_telemetry):
            capture_telemetry.tracer_provider.get_tracer("t").start_span("a").end()
            assert [span.name for span in capture_telemetry.spans] == ["a"]
        """
    )
    pytester.runpytest_inprocess("-p", "no:randomly", "-p", "no:asyncio").assert_outcomes(passed=1)


def test_the_clock_stands_still_until_told():
    """Both times move together, exactly, by what ``advance`` and ``sleep`` say and by nothing else."""
    clock = FakeClock(wall=1_000.0)
    assert (clock.monotonic(), clock.time()) == (0.0, 1_000.0)
    for _ in range(10):
        clock.advance(0.1)
    clock.sleep(2)
    assert (clock.monotonic(), clock.time()) == (3.0, 1_003.0)
    assert (clock.monotonic_ns(), clock.time_ns()) == (3_000_000_000, 1_003_000_000_000)


async def test_the_clock_sleeps_in_coroutines_too():
    """``async_sleep`` lets time pass without waiting."""
    clock = FakeClock()
    await clock.async_sleep(3_600)
    assert clock.monotonic() == 3_600


def test_the_clock_never_goes_back():
    """A negative step is an error that names it."""
    clock = FakeClock()
    with pytest.raises(ValueError, match=r"cannot advance by -1 s; allowed: 0 or more"):
        clock.sleep(-1)
    assert clock.monotonic() == 0


def test_everything_named_public_is_there():
    """``__all__`` is sorted and true."""
    assert testing.__all__ == sorted(testing.__all__)
    assert all(hasattr(testing, name) for name in testing.__all__)
