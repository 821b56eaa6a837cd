"""The profile event: what it shows, and the limits that nothing makes it break."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.profile_sizes import MAX_EVENT, size_of, value_size

from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.profiling.event import (
    MAX_ATTRIBUTE,
    MAX_FUNCTIONS,
    FunctionTimes,
    Profile,
    profile_attributes,
    skipped_attributes,
)

TEXT = st.text(st.characters(codec=None), max_size=600) | st.text("ä𝄞\ud800x", min_size=200, max_size=3_000)
TIMES = st.floats(0, 1e6)
FUNCTIONS = st.builds(FunctionTimes, TEXT, TIMES, TIMES, st.integers(0, 2**62))
PROFILES = st.builds(
    Profile, st.sampled_from(["cprofile", "sampling"]), st.lists(FUNCTIONS, max_size=60), st.booleans()
)
ARRAYS = (names.PROFILE_FUNCTIONS, names.PROFILE_SELF_TIME, names.PROFILE_CUMULATIVE_TIME, names.PROFILE_CALLS)


@given(profile=PROFILES, uri=st.none() | TEXT)
def test_no_event_outgrows_its_limits(profile, uri):
    """Whatever functions are called: an attribute has at most 2,000 bytes of UTF-8, the event at most 8,000."""
    attributes = profile_attributes(profile, uri)
    assert all(value_size(value) <= MAX_ATTRIBUTE for value in attributes.values())
    assert size_of(attributes) <= MAX_EVENT


@given(profile=PROFILES)
def test_the_arrays_tell_of_the_same_functions(profile):
    """They are as long as each other, at most 20, and begin with the functions of most cumulative time."""
    attributes = profile_attributes(profile)
    (length,) = {len(attributes[key]) for key in ARRAYS}
    assert length <= MAX_FUNCTIONS
    times = sorted((each.cumulative_time for each in profile.functions), reverse=True)
    assert list(attributes[names.PROFILE_CUMULATIVE_TIME]) == times[:length]


@given(profile=PROFILES)
def test_what_is_cut_is_said_to_be(profile):
    """An event that does not claim to be truncated names every function in full, whose names have an encoding."""
    attributes = profile_attributes(profile)
    whole = {each.name for each in profile.functions} == set(attributes[names.PROFILE_FUNCTIONS])
    assert attributes[names.PROFILE_TRUNCATED] is not whole


def test_twenty_usual_functions_are_shown_whole():
    """Names of usual length all fit."""
    functions = [FunctionTimes(f"package.module.Class{n}.method (a_module.py:{n})", 0.1, 0.2, 3) for n in range(20)]
    attributes = profile_attributes(Profile("sampling", functions), "file:///tmp/a.pstats")
    assert attributes == {
        names.PROFILE_PROFILER: "sampling",
        names.PROFILE_FUNCTIONS: tuple(each.name for each in functions),
        names.PROFILE_SELF_TIME: (0.1,) * 20,
        names.PROFILE_CUMULATIVE_TIME: (0.2,) * 20,
        names.PROFILE_CALLS: (3,) * 20,
        names.PROFILE_OTHER_THREADS: False,
        names.PROFILE_URI: "file:///tmp/a.pstats",
        names.PROFILE_TRUNCATED: False,
    }


def test_an_address_is_whole_or_left_out():
    """Part of an address would lead nowhere: one that does not fit is left out, and the event says truncated."""
    attributes = profile_attributes(Profile("sampling", []), "file:///" + "x" * MAX_ATTRIBUTE)
    assert names.PROFILE_URI not in attributes
    assert attributes[names.PROFILE_TRUNCATED] is True


@pytest.mark.parametrize("reason", ["busy", "ä" * 5_000])
def test_a_reason_fits_too(reason):
    """Why a profile was skipped is told in at most 2,000 bytes."""
    told = skipped_attributes("cprofile", reason)[names.PROFILE_SKIPPED]
    assert len(told.encode()) <= MAX_ATTRIBUTE
    assert reason.startswith(told.removesuffix("…"))
