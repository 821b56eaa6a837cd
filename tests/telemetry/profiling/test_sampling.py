"""The sampling profiler: what it puts down to whom, and when its thread is there."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetherflow.telemetry.profiling import sampling
from aetherflow.telemetry.profiling.event import function_name, function_of
from aetherflow.telemetry.profiling.sampling import MAX_STACKS, Sampler, Samples
from aetherflow.testing import FakeClock

CODES = tuple(compile("0", f"file{n}.py", "eval") for n in range(5))  # equal, as code of different files may be
STACKS = st.lists(st.sampled_from(CODES), min_size=1, max_size=6).map(tuple)
HERE = sys._getframe  # the frame of whoever calls it


def named(code):
    return function_name(function_of(code))


def looks(sampler):
    """A function to be found in."""
    sampler.tick()


@given(st.lists(st.tuples(STACKS, st.integers(1, 8)), max_size=30))
def test_times_add_up(found):
    """A function's own time is that of the stacks it ends, its cumulative time that of all it is in, once each."""
    samples = Samples()
    for stack, seconds in found:
        samples.add(stack, seconds)
    profile = {each.name: each for each in samples.profile().functions}
    assert set(profile) == {named(code) for stack, _ in found for code in stack}
    for code in CODES:
        if (mine := profile.get(named(code))) is not None:
            within = [seconds for stack, seconds in found if any(each is code for each in stack)]
            assert mine.self_time == sum(seconds for stack, seconds in found if stack[-1] is code)
            assert mine.cumulative_time == sum(within)
            assert mine.calls == len(within)


def test_what_is_kept_is_bounded():
    """However many different stacks are found, a bounded number is kept, and no time is lost."""
    samples = Samples()
    for n in range(MAX_STACKS + 500):
        samples.add((CODES[0], *(CODES[int(digit)] for digit in f"{n:b}")), 1.0)
    assert len(list(samples.stacks())) <= MAX_STACKS + 1
    (root,) = [each for each in samples.profile().functions if each.name == named(CODES[0])]
    assert root.cumulative_time == MAX_STACKS + 500


def test_only_what_is_above_the_beginning_is_seen():
    """Of a thread's frames those above the anchor are taken, for the time since the last look."""
    clock, samples = FakeClock(), Samples()
    sampler = Sampler(None, clock.monotonic)

    def execution():
        clock.advance(0.25)
        looks(sampler)

    sampler.watch(samples, (HERE(),))
    execution()
    sampler.unwatch(samples)
    execution()
    found = {each.name: (each.self_time, each.cumulative_time) for each in samples.profile().functions}
    assert found == {named(execution.__code__): (0.0, 0.25), named(looks.__code__): (0.25, 0.25)}


def test_a_thread_that_does_something_else_is_not_seen():
    """While the anchor is on no stack of the thread, as of a suspended coroutine, nothing is put down."""
    clock, samples = FakeClock(), Samples()
    sampler = Sampler(None, clock.monotonic)

    def begun():
        sampler.watch(samples, (HERE(),))

    begun()
    clock.advance(1.0)
    sampler.tick()
    assert not samples.profile().functions


def test_other_threads_are_not_seen():
    """An execution gets the frames of its own thread."""
    samples, sampler = Samples(), Sampler(None)
    ready, done = threading.Event(), threading.Event()

    def other():
        ready.set()
        done.wait(30)

    thread = threading.Thread(target=other)
    thread.start()
    ready.wait(30)
    sampler.watch(samples, (HERE(),))
    looks(sampler)
    done.set()
    thread.join()
    assert not [each.name for each in samples.profile().functions if each.name.startswith("Event.wait")]
    assert samples.profile().functions


def test_closed_samples_take_nothing():
    """What has ended is not watched again, as by a thread that was left to itself."""
    samples, sampler = Samples(), Sampler(None)
    samples.is_closed = True
    sampler.watch(samples, (HERE(),))
    looks(sampler)
    assert not samples.profile().functions


def test_the_thread_is_there_while_it_is_needed(monkeypatch):
    """It starts with the first execution, is one for all, and ends when there has been none for a while."""
    monkeypatch.setattr(sampling, "IDLE", 0.0)
    sampler = Sampler(0.001)
    assert not sampler.is_running
    first, second = Samples(), Samples()
    sampler.watch(first, (HERE(),))
    thread = sampler._thread
    sampler.watch(second, (HERE(),))
    assert sampler._thread is thread
    assert thread.daemon
    while sampler.ticks < 3:
        pass
    sampler.unwatch(first)
    sampler.unwatch(second)
    thread.join(30)
    assert not sampler.is_running
    sampler.watch(first, (HERE(),))
    assert sampler.is_running
    sampler.unwatch(first)


FORKED = """
import os, warnings
from aetherflow.telemetry.profiling.sampling import sampler, Samples
import sys
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is what this is about
samples = Samples()
sampler().watch(samples, (sys._getframe(),))
child = os.fork()
mine = sampler()
if child == 0:
    assert not mine.is_running
    again = Samples()
    mine.watch(again, (sys._getframe(),))
    def busy():
        while mine.ticks < 3:
            pass
    busy()
    mine.unwatch(again)
    os._exit(0 if [each for each in again.profile().functions if each.name.startswith("busy")] else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert mine.is_running
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
def test_a_forked_child_samples_for_itself():
    """It has a sampler and thread of its own, and the parent keeps its."""
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
