"""Profiles of executions on workers: taken there, told of on the span that returns."""

from __future__ import annotations

import pstats

from tests.backends.samples import awaited_primes, counted_primes, plain_primes

from aetherflow import ProfilePolicy, node
from aetherflow.telemetry import active
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.capture import CapturedTelemetry
from aetherflow.telemetry.profiling import observer as profiling

BUILTINS = {f"<built-in method builtins.{name}>" for name in ("all", "sum")}


def events(telemetry, name):
    """The profile events of all spans of that name."""
    return [event.attributes for span in telemetry.spans_named(name) for event in span.events]


def functions(found):
    return [name.partition(" (")[0] for name in found[names.PROFILE_FUNCTIONS]]


def mapped(body, remote):
    return node(lambda: [1_000, 2_000], name="limits").map(body, executor=remote)


def test_a_node_s_policy_goes_with_it(remote):
    """The profile is that of the function alone, without what the worker does around it."""
    with CapturedTelemetry() as telemetry:
        assert mapped(counted_primes, remote).run() == [168, 303]
    profiles = [found for found in events(telemetry, "counted_primes") if names.PROFILE_SKIPPED not in found]
    assert len(profiles) == 2
    for found in profiles:
        assert functions(found)[:2] == ["counted_primes", "primes"]
        assert set(functions(found)[2:]) <= BUILTINS | {"is_prime", "is_prime.<locals>.<genexpr>"}
    counts = [dict(zip(functions(found), found[names.PROFILE_CALLS], strict=True))["is_prime"] for found in profiles]
    assert sorted(counts) == [998, 1_998]


def test_a_coroutine_is_sampled_on_its_loop(remote):
    """An asynchronous node is looked at where it runs there, and has a profile or was too quick for one."""
    with CapturedTelemetry() as telemetry:
        mapped(awaited_primes, remote).run()
    for found in events(telemetry, "awaited_primes"):
        assert found[names.PROFILE_PROFILER] == "sampling"
        assert names.PROFILE_SKIPPED in found or "awaited_primes" in functions(found)


def test_what_is_due_is_decided_where_it_is_sent_from(remote, tmp_path):
    """A policy for all nodes, installed here only, reaches the workers; files are written there."""
    policy = ProfilePolicy(rate=1, nodes="plain*", profiler="cprofile", directory=tmp_path)
    with CapturedTelemetry() as telemetry:
        profiling.install(policy)
        mapped(plain_primes, remote).run()
        active.set_profiling(None)
        mapped(plain_primes, remote).run()
    found = events(telemetry, "plain_primes")
    assert len(found) == 2
    assert {file.as_uri() for file in tmp_path.iterdir()} == {each[names.PROFILE_URI] for each in found}
    for file in tmp_path.iterdir():
        assert any(name == "is_prime" for _, _, name in pstats.Stats(str(file)).stats)


def test_a_slow_execution_there_makes_the_next_one_due(remote):
    """Durations that come back from workers count like those measured here."""
    with CapturedTelemetry() as telemetry:
        profiling.install(ProfilePolicy(slower_than=1e-9, nodes="plain*", profiler="cprofile"))
        flow = node(lambda: [2_000], name="limit").map(plain_primes, executor=remote)
        flow.run()
        assert not events(telemetry, "plain_primes")
        flow.run()
    assert len(events(telemetry, "plain_primes")) == 1
