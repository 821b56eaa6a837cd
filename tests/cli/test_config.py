"""``aetherflow config``: the settings as they are in force where it is called."""

from __future__ import annotations

from tests.cli.program import run

DEFAULTS = """\
setting              value  from     variable
max_threads              8  default  AETHER_MAX_THREADS
thread_pool_size         4  default  AETHER_THREAD_POOL_SIZE
batch_size             100  default  AETHER_BATCH_SIZE
max_batch_wait_time    1.0  default  AETHER_MAX_BATCH_WAIT
cache_size            1000  default  AETHER_CACHE_SIZE
cache_ttl             3600  default  AETHER_CACHE_TTL
memory_pool_size        10  default  AETHER_MEMORY_POOL_SIZE
gc_threshold          1000  default  AETHER_GC_THRESHOLD
"""


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_every_setting_is_told():
    """Each setting is one line: its name, value, where that came from, and the variable that changes it."""
    done = run("config")
    assert (done.returncode, done.stderr) == (0, "")
    assert lines(done.stdout) == lines(DEFAULTS)


def test_a_variable_is_told_as_the_source():
    """A setting from the environment says so; one whose variable is empty is the default."""
    done = run("config", AETHER_MAX_BATCH_WAIT="0.25", AETHER_CACHE_TTL="86400", AETHER_CACHE_SIZE="")
    told = {line[0]: line[1:] for line in lines(done.stdout)}
    assert told["max_batch_wait_time"] == ["0.25", "environment", "AETHER_MAX_BATCH_WAIT"]
    assert told["cache_ttl"] == ["86400", "environment", "AETHER_CACHE_TTL"]
    assert told["cache_size"] == ["1000", "default", "AETHER_CACHE_SIZE"]


def test_a_bad_value_is_one_line():
    """Every variable with a value that is not allowed is named, with the value and what is allowed."""
    done = run("config", AETHER_BATCH_SIZE="many", AETHER_MAX_BATCH_WAIT="-1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "aetherflow config: AETHER_BATCH_SIZE='many' is not allowed; allowed: a whole number, 1 or more; "
        "AETHER_MAX_BATCH_WAIT='-1' is not allowed; allowed: a number of seconds above 0\n"
    )
