"""`ProfilePolicy`: what it means, what it refuses, and how `AETHER_PROFILE` says it."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from aetherflow import ConfigurationError, ProfilePolicy, node
from aetherflow.telemetry.profiling.policy import policy_from_environment


def test_a_policy_means_every_execution_unless_it_says_what_is_slow():
    """Without a rate all executions are profiled, or only those that slower_than makes due; a rate says itself."""
    assert ProfilePolicy().share == 1.0
    assert ProfilePolicy(slower_than="p99").share == 0.0
    assert ProfilePolicy(rate=0.25, slower_than=0.5).share == 0.25


@pytest.mark.parametrize(
    ("nodes", "meant"),
    [("*", ["load", "fetch_user"]), ("fetch*", ["fetch_user"]), (["load", "x"], ["load"]), ("Load", [])],
)
def test_nodes_are_chosen_by_patterns_of_their_names(nodes, meant):
    """A node is meant where one of the patterns matches its whole name, case and all."""
    policy = ProfilePolicy(nodes=nodes)
    assert [name for name in ("load", "fetch_user") if policy.matches(name)] == meant


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"rate": 1.5}, "rate=1.5"),
        ({"rate": -0.1}, "rate=-0.1"),
        ({"rate": "x"}, "rate='x'"),
        ({"rate": True}, "rate=True"),
        ({"rate": float("nan")}, "rate=nan"),
        ({"slower_than": 0}, "slower_than=0"),
        ({"slower_than": "p50"}, "slower_than='p50'"),
        ({"interval": -1}, "interval=-1"),
        ({"nodes": ""}, "nodes=''"),
        ({"nodes": []}, "nodes=[]"),
        ({"nodes": [1]}, "nodes=[1]"),
        ({"profiler": "perf"}, "profiler='perf'"),
        ({"directory": ""}, "directory=''"),
        ({"directory": 3}, "directory=3"),
        ({"speedscope": "yes", "directory": "d"}, "speedscope='yes'"),
        ({"speedscope": True}, "speedscope=True"),
        ({"speedscope": True, "directory": "d", "profiler": "cprofile"}, "speedscope=True"),
    ],
)
def test_a_bad_value_is_refused_by_name(arguments, said):
    """The error names the argument, the value and what is allowed."""
    with pytest.raises(ConfigurationError, match="allowed") as raised:
        ProfilePolicy(**arguments)
    assert str(raised.value).startswith(f"ProfilePolicy({said})")


def test_a_policy_is_a_value(tmp_path):
    """Equal policies are equal and hash alike however they were written, and cross to another process."""
    policy = ProfilePolicy(nodes="a", directory=str(tmp_path))
    assert {policy, ProfilePolicy(nodes=["a"], directory=tmp_path)} == {pickle.loads(pickle.dumps(policy))}


def test_the_variable_says_all_that_an_argument_can(tmp_path, monkeypatch):
    """Every setting is read, spaces left out, and a relative directory is below the working one."""
    monkeypatch.chdir(tmp_path)
    text = "rate=0.01, slower_than=0.5,interval=5,nodes=fetch*|load ,profiler=sampling,directory=p,speedscope=true"
    assert policy_from_environment({"AETHER_PROFILE": text}) == ProfilePolicy(
        rate=0.01,
        slower_than=0.5,
        interval=5,
        nodes=("fetch*", "load"),
        profiler="sampling",
        directory=Path(tmp_path, "p"),
        speedscope=True,
    )
    assert policy_from_environment({"AETHER_PROFILE": "slower_than=p99"}) == ProfilePolicy(slower_than="p99")


@pytest.mark.parametrize(
    ("text", "policy"), [("", None), (" ", None), ("off", None), ("0", None), ("on", ProfilePolicy())]
)
def test_the_variable_turns_profiles_on_and_off(text, policy):
    """`on` profiles every execution; nothing, `0` and `off` none, as where the variable is not set."""
    assert policy_from_environment({"AETHER_PROFILE": text}) == policy
    assert policy_from_environment({}) is None


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("rate=2", "rate=2.0"),
        ("rate=often", "rate='often'"),
        ("slower_than=p50", "slower_than='p50'"),
        ("speedscope=maybe", "speedscope='maybe'"),
        ("share=1", "'share' is not a setting"),
        ("rate", "'rate' is not allowed"),
        ("rate=", "'rate=' is not allowed"),
        ("rate=1,,", "'' is not allowed"),
        ("rate=1,rate=1", "'rate=1' is given twice"),
    ],
)
def test_a_bad_variable_is_refused_by_name(text, part):
    """The error names the variable, its value, the part that is wrong and what is allowed."""
    with pytest.raises(ConfigurationError, match="allowed") as raised:
        policy_from_environment({"AETHER_PROFILE": text})
    assert str(raised.value).startswith(f"AETHER_PROFILE={text!r}: ")
    assert part in str(raised.value)


def test_a_node_takes_a_bool_or_a_policy():
    """Anything else is refused where the node is declared."""
    with pytest.raises(ConfigurationError, match=r"node 'work': profile=0\.5; allowed are True, False and"):

        @node(profile=0.5)
        def work(): ...


CPROFILE = ProfilePolicy(profiler="cprofile")


def test_cprofile_is_refused_on_what_leaves_its_thread():
    """Coroutines, generators and functions with a time limit are told to take the sampling profiler."""

    async def awaited(): ...

    def generated():
        yield

    for function, options in ((awaited, {}), (generated, {}), (lambda: None, {"timeout": 1.0})):
        with pytest.raises(ConfigurationError, match="use profiler='sampling'"):
            node(profile=CPROFILE, **options)(function)
