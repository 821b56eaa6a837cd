"""Settings: where they come from, what is refused, and that nothing is read or applied unasked."""

from __future__ import annotations

import copy
import gc
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, asdict, replace
from typing import Any

import pytest
from dependency_injector import containers, providers
from hypothesis import given
from hypothesis import strategies as st

from aetherflow import config as module
from aetherflow.config import PerformanceConfig, Setting
from aetherflow.errors import ConfigurationError

SETTINGS = [
    ("max_threads", "AETHER_MAX_THREADS", 8),
    ("thread_pool_size", "AETHER_THREAD_POOL_SIZE", 4),
    ("batch_size", "AETHER_BATCH_SIZE", 100),
    ("max_batch_wait_time", "AETHER_MAX_BATCH_WAIT", 1.0),
    ("cache_size", "AETHER_CACHE_SIZE", 1000),
    ("cache_ttl", "AETHER_CACHE_TTL", 3600),
    ("memory_pool_size", "AETHER_MEMORY_POOL_SIZE", 10),
    ("gc_threshold", "AETHER_GC_THRESHOLD", 1000),
]
EACH_SETTING = pytest.mark.parametrize(("name", "variable", "default"), SETTINGS, ids=[name for name, *_ in SETTINGS])


@pytest.fixture
def default_config() -> PerformanceConfig:
    """A default instance that nothing has used yet."""
    return module._ReadOnFirstUse()


def test_the_defaults_are_those_of_the_guide() -> None:
    """Without variables and arguments every setting has its documented default."""
    assert PerformanceConfig().explain() == [
        Setting(name, default, "default", variable) for name, variable, default in SETTINGS
    ]


@EACH_SETTING
def test_each_setting_has_its_variable(
    name: str, variable: str, default: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable sets its one setting, and `explain` names it; an argument goes before it."""
    monkeypatch.setenv(variable, "7")
    expected = [
        Setting(*((name, 7, variable) if name == other else (other, value, "default")), other_variable)
        for other, other_variable, value in SETTINGS
    ]
    assert PerformanceConfig().explain() == expected
    assert Setting(name, 3, "argument", variable) in PerformanceConfig(**{name: 3}).explain()


@EACH_SETTING
@pytest.mark.parametrize("bad", ["many", "0", "-1", "nan", "1e999", "1,5"])
def test_a_bad_variable_is_named_with_its_value_and_what_is_allowed(
    name: str, variable: str, default: float, bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One message, one line, says which variable is wrong, what it holds and what it may hold."""
    monkeypatch.setenv(variable, bad)
    allowed = "a whole number, 1 or more" if isinstance(default, int) else "a number of seconds above 0"
    with pytest.raises(ConfigurationError) as failure:
        PerformanceConfig()
    assert str(failure.value) == f"{variable}={bad!r} is not allowed; allowed: {allowed}"
    assert getattr(PerformanceConfig(**{name: 2}), name) == 2


@EACH_SETTING
@pytest.mark.parametrize("bad", ["many", 0, -1, None, 0.0, True, float("inf"), [3]])
def test_a_bad_argument_is_named_with_its_value_and_what_is_allowed(
    name: str, variable: str, default: float, bad: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for arguments, by their own name, even where the variable is set to something good."""
    monkeypatch.setenv(variable, "5")
    values: dict[str, object] = {name: bad}
    with pytest.raises(
        ConfigurationError, match=rf"^{name}={re.escape(repr(bad))} is not allowed; allowed: a (whole )?number"
    ):
        PerformanceConfig(**values)  # type: ignore[arg-type]


def test_several_bad_values_make_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is wrong is said at once, an unknown argument included."""
    monkeypatch.setenv("AETHER_MAX_THREADS", "many")
    with pytest.raises(ConfigurationError) as failure:
        PerformanceConfig(cache_size=0, max_thread=2)
    complaints = str(failure.value).split("; ")
    assert "AETHER_MAX_THREADS='many' is not allowed" in complaints
    assert "cache_size=0 is not allowed" in complaints
    assert "max_thread is not a setting" in complaints


@pytest.mark.parametrize("text", ["", " 7 ", "7"])
def test_space_around_a_value_does_not_matter(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable counts as not set, and blanks around a number are ignored."""
    monkeypatch.setenv("AETHER_MAX_THREADS", text)
    assert PerformanceConfig().max_threads == int(text or 8)


@given(st.dictionaries(st.sampled_from([name for name, *_ in SETTINGS]), st.integers(1, 10**9)))
def test_good_arguments_are_taken_as_they_are(values: dict[str, int]) -> None:
    """Any positive number is a good value for any setting, and the others keep their defaults."""
    config = PerformanceConfig(**values)
    for name, _, default in SETTINGS:
        assert getattr(config, name) == values.get(name, default)


def test_settings_are_frozen() -> None:
    """A setting cannot be changed after the fact."""
    config = PerformanceConfig()
    with pytest.raises(FrozenInstanceError, match="max_threads"):
        config.max_threads = 3  # type: ignore[misc]  # the assignment is what has to fail
    assert config.max_threads == 8


def test_settings_are_an_ordinary_dataclass() -> None:
    """The fields are the settings and nothing else, so that `asdict` and `replace` work."""
    config = PerformanceConfig(cache_size=7)
    assert asdict(config) == {name: 7 if name == "cache_size" else default for name, _, default in SETTINGS}
    assert PerformanceConfig(**asdict(config)) == config
    assert replace(config, batch_size=5) == PerformanceConfig(cache_size=7, batch_size=5)


def test_an_integer_with_too_many_digits_is_refused() -> None:
    """Python cannot write it in decimal digits; the message says so."""
    with pytest.raises(ConfigurationError, match=r"^max_batch_wait_time=.* is not allowed"):
        PerformanceConfig(max_batch_wait_time=10**5000)


@pytest.mark.parametrize("value", [10**309, 10**30, 2**53 + 1])
def test_large_numbers_are_numbers(value: int) -> None:
    """A whole number may be of any size; seconds are those that a float can hold."""
    assert PerformanceConfig(cache_size=value).cache_size == value
    if value < 10**309:
        assert PerformanceConfig(max_batch_wait_time=value).max_batch_wait_time == float(value)
    else:
        with pytest.raises(ConfigurationError, match=r"^max_batch_wait_time=1000.*0000 is not allowed"):
            PerformanceConfig(max_batch_wait_time=value)


def test_a_long_value_is_shortened_in_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message stays short, and control characters of a name are escaped."""
    monkeypatch.setenv("AETHER_MAX_THREADS", "x" * 100_000)
    with pytest.raises(ConfigurationError) as failure:
        PerformanceConfig(**{"\x1b[31m": 1})
    assert len(str(failure.value)) < 500
    assert "'\\x1b[31m' is not a setting" in str(failure.value)


def test_the_default_instance_reads_when_first_used(
    default_config: PerformanceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable set after the import counts, and one changed after the first use does not."""
    monkeypatch.setenv("AETHER_MAX_THREADS", "5")
    assert isinstance(default_config, PerformanceConfig)
    assert default_config.max_threads == 5
    assert type(default_config) is PerformanceConfig
    monkeypatch.setenv("AETHER_MAX_THREADS", "6")
    assert default_config.max_threads == 5


def test_a_bad_variable_fails_the_use_and_not_the_import(
    default_config: PerformanceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default instance complains on each use until the variable is mended."""
    monkeypatch.setenv("AETHER_MAX_THREADS", "many")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="AETHER_MAX_THREADS='many'"):
            _ = default_config.batch_size
    monkeypatch.setenv("AETHER_MAX_THREADS", "2")
    assert default_config.max_threads == 2
    command = [sys.executable, "-c", "import aetherflow.config"]
    subprocess.run(command, check=True, env={"AETHER_MAX_THREADS": "many"})


USES: dict[str, Callable[[Any], object]] = {
    "repr": repr,
    "equality": lambda config: config == PerformanceConfig(),
    "equality, the other way": lambda config: PerformanceConfig() == config,
    "hash": hash,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "as a dictionary": asdict,
    "pickle": lambda config: pickle.loads(pickle.dumps(config)),
    "explain": lambda config: config.explain(),
    "its attributes": lambda config: dict(vars(config)),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_the_default_instance_is_like_any_other(
    use: Callable[[Any], object], default_config: PerformanceConfig
) -> None:
    """Whatever is done with it first, it answers as an instance made on the spot does."""
    assert use(default_config) == use(PerformanceConfig())
    assert default_config.max_threads == 8


def test_threads_that_use_the_default_instance_first_agree(default_config: PerformanceConfig) -> None:
    """16 threads that use it at once see the same complete settings."""
    start = threading.Barrier(16)
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda _: (start.wait(), default_config.explain())[1], range(16)))
    assert found == [PerformanceConfig().explain()] * 16


def test_a_context_can_hold_settings(default_config: PerformanceConfig) -> None:
    """The guide's production context: `Object(perf_config)` gives that very instance, or an application's own."""

    class Context(containers.DeclarativeContainer):
        config = providers.Object(default_config)
        size = providers.Callable(int, default_config.memory_pool_size)

    own = PerformanceConfig(memory_pool_size=3)
    assert Context().config() is default_config
    assert Context().size() == 10
    assert Context(config=own).config().memory_pool_size == 3


def test_the_gc_threshold_is_applied_only_when_asked_and_undone() -> None:
    """Reading settings changes nothing; `apply_gc` sets the first threshold, and its handle puts all back, once."""
    before = gc.get_threshold()
    config = PerformanceConfig(gc_threshold=4321)
    assert gc.get_threshold() == before
    with config.apply_gc():
        assert gc.get_threshold() == (4321, *before[1:])
    assert gc.get_threshold() == before
    handle = config.apply_gc()
    handle.close()
    gc.set_threshold(*before)
    handle.close()
    assert gc.get_threshold() == before
