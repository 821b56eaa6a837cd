"""Profiles of executions: each holds what is its own, says why it is missing, and harms nobody."""

from __future__ import annotations

import asyncio
import cProfile
import gc
import json
import logging
import pstats
import sys
import threading
from pathlib import Path
from urllib.parse import urlparse

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from tests.support.profile_sizes import MAX_EVENT, size_of, value_size

from aetherflow import ProfilePolicy, RetryPolicy, node
from aetherflow.telemetry import active, observer
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.capture import CapturedTelemetry
from aetherflow.telemetry.conventions import NODE_DURATION
from aetherflow.telemetry.metrics.accumulators import Registry
from aetherflow.telemetry.observation import ExecutionDetails, Site
from aetherflow.telemetry.profiling import observer as profiling
from aetherflow.telemetry.profiling import sampling
from aetherflow.telemetry.profiling.event import MAX_ATTRIBUTE
from aetherflow.telemetry.profiling.rules import Rule, Rules
from aetherflow.telemetry.profiling.sampling import Sampler
from aetherflow.testing import FakeClock

SAMPLING = ProfilePolicy(profiler="sampling")
CPROFILE = ProfilePolicy(profiler="cprofile")
SEES_OTHER_THREADS = sys.version_info >= (3, 12)


@pytest.fixture
def captured():
    with CapturedTelemetry() as telemetry:
        yield telemetry


@pytest.fixture(autouse=True)
def look(monkeypatch):
    """A sampler without a thread; calling it is a look, for which 10 ms have passed."""
    clock = FakeClock()
    made = Sampler(None, clock.monotonic)
    monkeypatch.setattr(sampling._shared, "sampler", made)

    def look():
        clock.advance(0.01)
        made.tick()

    return look


def profiles(telemetry, name):
    """The attributes of the profile events on each span of that name."""
    return [
        [dict(event.attributes) for event in span.events if event.name == names.PROFILE_EVENT]
        for span in telemetry.spans_named(name)
    ]


def profile(telemetry, name):
    """The only profile of the only span of that name."""
    ((found,),) = profiles(telemetry, name)
    return found


def functions(found):
    """The functions of a profile, by their names alone."""
    return [name.partition(" (")[0].rpartition(".<locals>.")[2] for name in found[names.PROFILE_FUNCTIONS]]


# --- what a profile holds ----------------------------------------------------------------------------------


def test_a_synchronous_node_is_sampled(captured, look):
    """The event tells the node's own functions and their times, in seconds, and nothing of the engine."""

    def helper():
        look()
        look()

    @node(profile=SAMPLING)
    def work():
        look()
        helper()

    work.run()
    found = profile(captured, "work")
    assert found[names.PROFILE_PROFILER] == "sampling"
    assert dict(zip(functions(found), found[names.PROFILE_CALLS], strict=True)) == {"look": 3, "work": 3, "helper": 2}
    assert found[names.PROFILE_CUMULATIVE_TIME] == pytest.approx((0.03, 0.03, 0.02))
    assert not found[names.PROFILE_OTHER_THREADS]
    assert not found[names.PROFILE_TRUNCATED]


def test_cprofile_counts_every_call(captured):
    """Calls and times are those of the node's functions and builtins, without the engine's."""

    def helper():
        return len("abc")

    @node(profile=CPROFILE)
    def work():
        for _ in range(7):
            helper()

    work.run()
    found = profile(captured, "work")
    assert found[names.PROFILE_PROFILER] == "cprofile"
    assert dict(zip(functions(found), found[names.PROFILE_CALLS], strict=True)) == {
        "work": 1,
        "helper": 7,
        "<built-in method builtins.len>": 7,
    }


def test_a_coroutine_is_sampled_while_it_runs(captured, look):
    """Tasks take turns on one thread: each gets the samples of its own turns, and none of another's."""

    async def turn(mine):
        mine()
        await asyncio.sleep(0)
        mine()

    def first_does():
        look()

    def second_does():
        look()

    @node(profile=SAMPLING)
    async def first():
        await turn(first_does)

    @node(profile=SAMPLING)
    async def second():
        await turn(second_does)

    async def both():
        await asyncio.gather(first(), second.arun())

    asyncio.run(both())
    assert sorted(functions(profile(captured, "first"))) == ["first", "first_does", "look", "turn"]
    assert sorted(functions(profile(captured, "second"))) == ["look", "second", "second_does", "turn"]
    assert profile(captured, "first")[names.PROFILE_CALLS][0] == 2


def test_a_stream_is_sampled_step_by_step(captured, look):
    """What the consumer does between two items is not the generator's; sync and async."""

    @node(profile=SAMPLING)
    def numbers():
        for number in range(3):
            look()
            yield number

    @node(profile=SAMPLING)
    async def letters():
        for letter in "abc":
            look()
            yield letter

    for _ in numbers.stream():
        look()

    async def read():
        async for _ in letters.astream():
            look()

    asyncio.run(read())
    for name in ("numbers", "letters"):
        found = profile(captured, name)
        assert dict(zip(functions(found), found[names.PROFILE_CALLS], strict=True)) == {"look": 3, name: 3}


def test_a_time_limit_moves_the_profile_to_the_thread_that_works(captured, look):
    """A synchronous function with a time limit runs on a thread of its own, and is sampled there; retried too."""
    attempts = []

    @node(profile=True, timeout=30, retry=RetryPolicy(on=ValueError, wait_initial=0, wait_jitter=0))
    def work():
        look()
        attempts.append(threading.current_thread())
        if len(attempts) == 1:
            raise ValueError

    work.run()
    found = profile(captured, "work")
    assert dict(zip(functions(found), found[names.PROFILE_CALLS], strict=True)) == {"look": 2, "work": 2}


def test_retries_are_one_profile(captured, look):
    """However many attempts an execution takes, its span has one event."""

    @node(profile=SAMPLING, retry=RetryPolicy(on=ValueError, attempts=2, wait_initial=0, wait_jitter=0))
    def work():
        look()
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        work.run()
    assert profile(captured, "work")[names.PROFILE_CALLS] == (2, 2)


@pytest.mark.parametrize("policy", [SAMPLING, CPROFILE, ProfilePolicy()], ids=lambda policy: policy.profiler)
def test_ten_at_once(captured, look, policy):
    """None fails, each has a profile or says why not, and a profile not marked holds its own functions alone."""
    barrier = threading.Barrier(10)
    results = {}

    def made(number):
        def own_part():
            look()
            return sum(range(2_000))

        own_part.__code__ = own_part.__code__.replace(co_name=f"own{number}", co_qualname=f"own{number}")

        def work():
            barrier.wait(30)
            total = own_part()
            barrier.wait(30)
            return total

        return node(name=f"work{number}", profile=policy)(work)

    def run(each):
        results[each.name] = each.run()

    threads = [threading.Thread(target=run, args=(made(number),)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == {f"work{number}": 1_999_000 for number in range(10)}
    for number in range(10):
        found = profile(captured, f"work{number}")
        assert size_of(found) <= MAX_EVENT
        assert all(value_size(value) <= MAX_ATTRIBUTE for value in found.values())
        if names.PROFILE_SKIPPED in found:
            assert policy.profiler == "cprofile"
            assert found[names.PROFILE_SKIPPED] == "another execution is being profiled with cProfile"
        else:
            own = [name for name in functions(found) if name.startswith("own")]
            assert found[names.PROFILE_OTHER_THREADS] or own == [f"own{number}"]
    taken = [number for number in range(10) if names.PROFILE_SKIPPED not in profile(captured, f"work{number}")]
    assert taken if policy.profiler == "cprofile" else len(taken) == 10


def test_ten_at_once_are_sampled_by_one_thread(captured, monkeypatch):
    """With the thread that samples in earnest: each busy node is found in its own function, never in another's."""
    made = Sampler(0.001)
    monkeypatch.setattr(sampling._shared, "sampler", made)

    def busy_on(number):
        def own_part():
            before = made.ticks
            while made.ticks < before + 10:
                sum(range(500))

        own_part.__code__ = own_part.__code__.replace(co_name=f"own{number}", co_qualname=f"own{number}")

        def work():
            own_part()

        return node(name=f"work{number}", profile=SAMPLING)(work)

    threads = [threading.Thread(target=busy_on(number).run) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for number in range(10):
        assert sorted(functions(profile(captured, f"work{number}"))) == [f"own{number}", "work"]


def test_cprofile_says_where_it_saw_other_threads(captured):
    """From Python 3.12 on it does: with other threads about, or started meanwhile, the event is marked."""

    @node(profile=CPROFILE)
    def alone(): ...

    @node(profile=CPROFILE)
    def starts():
        thread = threading.Thread(target=len, args=("",))
        thread.start()
        thread.join()

    alone.run()
    alone_is_marked = threading.active_count() > 1  # a loop of another test
    starts.run()
    assert profile(captured, "alone")[names.PROFILE_OTHER_THREADS] is (SEES_OTHER_THREADS and alone_is_marked)
    assert profile(captured, "starts")[names.PROFILE_OTHER_THREADS] is SEES_OTHER_THREADS


def test_nested_profiles(captured, look):
    """Within a profiled node another one is sampled as well, but cProfile is on once: the inner one is skipped."""

    @node(profile=SAMPLING)
    def sampled_inside():
        look()

    @node(profile=CPROFILE)
    def counted_inside(): ...

    @node(profile=SAMPLING)
    def sampled():
        sampled_inside()

    @node(profile=CPROFILE)
    def counted():
        counted_inside()

    counted_inside()
    captured.clear()
    sampled.run()
    gc.disable()  # cProfile sees the callbacks of whoever watches collections, as hypothesis does
    try:
        counted.run()
    finally:
        gc.enable()
    assert functions(profile(captured, "sampled")) == ["sampled", "sampled_inside", "look"]
    assert functions(profile(captured, "sampled_inside")) == ["sampled_inside", "look"]
    assert functions(profile(captured, "counted")) == ["counted", "counted_inside"]
    assert names.PROFILE_SKIPPED in profile(captured, "counted_inside")


def test_the_best_profiler_that_can_be_had(captured, look):
    """`auto` is cProfile before Python 3.12, sampling where that is taken, and from 3.12 on."""

    @node(profile=True)
    def inner():
        look()

    @node(profile=True)
    def outer():
        look()
        inner()

    outer.run()
    assert profile(captured, "outer")[names.PROFILE_PROFILER] == ("sampling" if SEES_OTHER_THREADS else "cprofile")
    assert profile(captured, "inner")[names.PROFILE_PROFILER] == "sampling"


def test_a_profiler_of_the_application_is_left_on(captured):
    """Where the application profiles already, its profile is whole and ours is skipped."""
    calls = []

    @node(profile=CPROFILE)
    def work():
        calls.append(1)

    own = cProfile.Profile()
    own.enable()
    work.run()
    functions({names.PROFILE_FUNCTIONS: ()})
    own.disable()
    assert names.PROFILE_SKIPPED in profile(captured, "work")
    assert any(name == "functions" and file == __file__ for file, _, name in pstats.Stats(own).stats)


def test_an_execution_too_short_to_be_looked_at_says_so(captured):
    """A sampled profile without a sample is skipped, with that as its reason."""
    node(name="short", profile=SAMPLING)(lambda: None).run()
    assert profile(captured, "short") == {
        names.PROFILE_PROFILER: "sampling",
        names.PROFILE_SKIPPED: "it ended before it was looked at",
    }


# --- what is not harmed ------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [SAMPLING, CPROFILE], ids=lambda policy: policy.profiler)
@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_errors_pass_through_and_the_profiler_is_off(captured, look, policy, error):
    """Whatever a node raises comes out as it was, is profiled, and leaves no profiler on."""

    @node(profile=policy)
    def work():
        look()
        raise error

    with pytest.raises(type(error)) as raised:
        work.run()
    assert raised.value is error
    assert "work" in functions(profile(captured, "work"))
    assert sys.getprofile() is None
    assert not sampling.sampler()._watches
    cProfile.Profile().runcall(len, "")  # which needs that no other is on


def test_without_a_span_nothing_is_taken(look):
    """No span records the event: no profiler is turned on, unless files are asked for."""
    with CapturedTelemetry(ALWAYS_OFF):

        @node(profile=SAMPLING)
        def work():
            return len(sampling.sampler()._watches)

        assert work.run() == 0


def test_without_a_span_files_are_written_still(look, tmp_path):
    """A profile that a file is asked for is taken with no provider at all."""

    @node(profile=ProfilePolicy(directory=tmp_path))
    def work():
        look()

    work.run()
    (path,) = tmp_path.iterdir()
    assert any(function == "work" or function.endswith(".work") for _, _, function in pstats.Stats(str(path)).stats)


def test_an_event_goes_to_the_own_span_only(captured, look):
    """With a span of the application around a run that is not traced, that span gets no event."""
    telemetry = CapturedTelemetry()
    with telemetry.tracer_provider.get_tracer("app").start_as_current_span("request"):
        active.set_active(None)

        @node(profile=SAMPLING)
        def work():
            look()

        work.run()
    (span,) = telemetry.spans
    assert not span.events


# --- files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [SAMPLING, CPROFILE], ids=lambda policy: policy.profiler)
def test_the_full_profile_is_a_pstats_file(captured, look, tmp_path, policy):
    """Its address is on the event, its name is safe, and `pstats` shows callers and callees."""

    def helper():
        look()

    @node(name="../a b/ü", profile=ProfilePolicy(profiler=policy.profiler, directory=tmp_path / "new"))
    def work():
        helper()

    work.run()
    path = Path(urlparse(profile(captured, "../a b/ü")[names.PROFILE_URI]).path)
    assert list((tmp_path / "new").iterdir()) == [path]
    assert path.match("_a_b_-*.pstats")
    stats = pstats.Stats(str(path))
    named = {name.rpartition(".")[2]: key for key in stats.stats for name in [key[2]]}
    primitive, calls, _, cumulative, callers = stats.stats[named["helper"]]
    assert (primitive, calls) == (1, 1)
    assert cumulative > 0
    assert list(callers) == [named["work"]]
    stats.calc_callees()
    assert named["helper"] in stats.all_callees[named["work"]]


def test_the_speedscope_file_keeps_to_its_schema(captured, look, tmp_path):
    """Samples point into the frames, each has a weight, and the weights add up to the end of the profile."""

    def helper():
        look()

    @node(profile=ProfilePolicy(directory=tmp_path, speedscope=True))
    def work():
        look()
        helper()

    work.run()
    (path,) = tmp_path.glob("work-*.speedscope.json")
    file = json.loads(path.read_text())
    assert file["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    frames = file["shared"]["frames"]
    assert {frozenset(frame) for frame in frames} == {frozenset({"name", "file", "line"})}
    (found,) = file["profiles"]
    assert found.keys() == {"type", "name", "unit", "startValue", "endValue", "samples", "weights"}
    assert (found["type"], found["unit"], found["name"], found["startValue"]) == ("sampled", "seconds", "work", 0)
    assert len(found["samples"]) == len(found["weights"]) == 2
    assert sum(found["weights"]) == pytest.approx(found["endValue"]) == pytest.approx(0.02)
    named = [[frames[index]["name"].rpartition(".")[2] for index in stack] for stack in found["samples"]]
    assert named == [["work", "look"], ["work", "helper", "look"]]


def test_a_disk_that_fails_harms_nobody(captured, look, tmp_path, monkeypatch, caplog):
    """The node's result and the event are there without an address; the failure is logged, nothing is left behind."""
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    monkeypatch.setattr("aetherflow.telemetry.shield._shield._last", -60.0)
    blocked = tmp_path / "file"
    blocked.write_text("")

    @node(profile=ProfilePolicy(directory=blocked))
    def work():
        look()
        return 1

    with caplog.at_level(logging.ERROR, "aetherflow"):
        assert work.run() == 1
    found = profile(captured, "work")
    assert names.PROFILE_URI not in found
    assert "work" in functions(found)
    assert "writing a profile" in caplog.text


def test_half_a_file_is_not_left_behind(captured, look, tmp_path, monkeypatch):
    """A file that cannot be put in its place is taken away."""
    monkeypatch.delenv("PYTEST_CURRENT_TEST")

    def fails(self, target):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fails)

    @node(profile=ProfilePolicy(directory=tmp_path))
    def work():
        look()

    work.run()
    assert not list(tmp_path.iterdir())


# --- which executions --------------------------------------------------------------------------------------


@pytest.fixture
def plain(captured, look):
    """Two plain nodes in a flow that has run before, by the names `fetch` and `store`."""

    @node
    def fetch():
        look()
        return 1

    @node
    def store(fetch):
        look()

    flow = fetch >> store
    flow.run()
    captured.clear()
    return flow


def test_a_policy_takes_effect_on_flows_that_have_run(captured, plain):
    """Installed, it holds from the next run on, for the nodes that it means; uninstalled, it does no more."""
    plain.run()
    profiling.install(ProfilePolicy(nodes="fet*", profiler="sampling"))
    plain.run()
    active.set_profiling(None)
    plain.run()
    assert [len(found) for found in profiles(captured, "fetch")] == [0, 1, 0]
    assert [len(found) for found in profiles(captured, "store")] == [0, 0, 0]


def test_a_policy_reaches_every_way_to_run(captured, look):
    """Calls, branches on threads, named flows and async runs alike."""
    profiling.install(SAMPLING)

    @node
    def one():
        look()

    @node
    def left():
        look()

    @node
    def right():
        look()

    one()
    (one >> [left, right]).named("sides").run()
    asyncio.run((one >> left.named("last")).arun())
    assert [len(found) for name in ("one", "left", "right", "last") for found in profiles(captured, name)] == [1] * 6


def test_without_a_policy_the_observer_is_the_plain_one():
    """Off costs an identity check a run: nothing stands between the engine and the observer."""
    assert not isinstance(observer.current_observer(), profiling.ProfilingObserver)

    @node(profile=True)
    def work(): ...

    work.run()
    assert not isinstance(observer.current_observer(), profiling.ProfilingObserver)
    profiling.install(ProfilePolicy())
    assert isinstance(observer.current_observer(), profiling.ProfilingObserver)


def test_a_node_s_own_policy_comes_first(captured, plain, look):
    """What is in force for all nodes does not change what a node says itself."""

    @node(profile=ProfilePolicy(rate=0))
    def never():
        look()

    profiling.install(SAMPLING)
    (plain >> never).run()
    assert [len(profiles(captured, name)[-1]) for name in ("fetch", "store", "never")] == [1, 1, 0]


def test_chance_picks_the_share(captured, plain):
    """An execution is profiled where the number drawn is below the rate; the host's random numbers are not drawn."""
    drawn = iter([0.1, 0.3, 0.25, 0.0] * 2)
    policy = ProfilePolicy(rate=0.25, nodes="fetch", profiler="sampling")
    active.set_profiling(profiling.observing(Rules(policy, chance=lambda: next(drawn))))
    for _ in range(8):
        plain.run()
    assert [len(found) for found in profiles(captured, "fetch")] == [1, 0, 0, 1] * 2


def test_a_slow_execution_makes_the_next_one_due(captured, plain):
    """After one that was slower, the next one of the same node is profiled; then none before the interval is over."""
    clock = FakeClock()
    policy = ProfilePolicy(slower_than=1e-9, interval=60, nodes="fetch", profiler="sampling")
    active.set_profiling(profiling.observing(Rules(policy, clock=clock.monotonic)))
    for passing in (1, 1, 1, 60, 1, 1):
        plain.run()
        clock.advance(passing)
    # slow; profiled; within the interval; slow again after it: the one after that
    assert [len(found) for found in profiles(captured, "fetch")] == [0, 1, 0, 0, 0, 1]


@pytest.mark.parametrize("kind", ["retried", "cache_hit", "coalesced"])
def test_an_execution_of_a_kind_makes_nothing_due(kind):
    """The duration of a retried execution has its back-off in it: it is no reason to profile the next one."""
    rules = Rules(ProfilePolicy(slower_than=1e-9))
    watching = profiling.ProfilingObserver(observer.current_observer(), rules)
    of_node = {names.FLOW_NAME: "f", names.NODE_NAME: f"kinds_{kind}"}
    site = Site("n", NODE_DURATION, of_node, of_node, is_node=True)
    observation = watching.begin(site)
    details = ExecutionDetails(site)
    details.kind = kind
    observation.report(details)
    observation.end()
    assert not rules.rule(site).is_due()
    watching.begin(site).end()
    assert rules.rule(site).is_due()


def test_slower_than_its_own_p99():
    """The threshold is the p99 of the node's own executions, from 100 of them on."""
    clock, series = FakeClock(), Registry().series(NODE_DURATION, {})
    rule = Rule(ProfilePolicy(slower_than="p99"), series, clock.monotonic, lambda: 0.5)
    for _ in range(99):
        series.add(1_000_000)
    rule.took(50_000_000)
    assert not rule.is_due()
    series.add(1_000_000)
    rule.took(50_000_000)
    assert not rule.is_due()  # what was looked up holds for a second
    clock.advance(1)
    rule.took(900_000)
    assert not rule.is_due()
    rule.took(50_000_000)
    assert rule.is_due()
    assert not rule.is_due()


def test_the_environment_is_read_on_the_first_run(captured, plain, monkeypatch):
    """`AETHER_PROFILE` is in force without any call, once."""
    monkeypatch.setenv("AETHER_PROFILE", "nodes=store,profiler=sampling")
    active.set_profiling(profiling.from_environment)  # as when the package has just been imported
    plain.run()
    plain.run()
    assert len(profiles(captured, "store")[-1]) == 1
    assert profiles(captured, "fetch")[-1] == []


def test_a_bad_variable_does_not_fail_the_runs(captured, plain, monkeypatch, caplog):
    """It is logged with its name, value and what is allowed; nothing is profiled."""
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    monkeypatch.setattr("aetherflow.telemetry.shield._shield._last", -60.0)
    monkeypatch.setenv("AETHER_PROFILE", "rate=often")
    active.set_profiling(profiling.from_environment)
    plain.run()
    assert profiles(captured, "fetch") == [[]]
    assert "AETHER_PROFILE='rate=often'" in caplog.text


def test_installing_nothing_installs_what_the_environment_says(monkeypatch):
    """`install()` follows `AETHER_PROFILE`, and without one takes away what was installed before."""
    monkeypatch.setenv("AETHER_PROFILE", "on")
    profiling.install()
    assert isinstance(observer.current_observer(), profiling.ProfilingObserver)
    monkeypatch.delenv("AETHER_PROFILE")
    profiling.install()
    assert not isinstance(observer.current_observer(), profiling.ProfilingObserver)


def test_a_sampler_that_can_have_no_thread_does_not_fail_the_node(captured, monkeypatch):
    """Also where the node runs on a thread of its own, for its time limit."""

    @node(profile=SAMPLING, timeout=30)
    def limited():
        return 2

    def refuse(*arguments):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(sampling.Sampler, "watch", refuse)
    assert limited.run() == 2
    assert names.PROFILE_SKIPPED in profile(captured, "limited")
