"""Settings: from arguments, else from ``AETHER_*`` environment variables, else their defaults."""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, ClassVar, Final, NamedTuple

from aetherflow.errors import ConfigurationError, short_repr

__all__ = ["SERVE_PORT", "SERVE_TOKEN_VARIABLE", "PerformanceConfig", "Setting", "nearest_name", "perf_config"]

SERVE_PORT: Final = 9464
"""Where ``aetherflow serve`` listens, and ``aetherflow top`` looks, as OpenTelemetry's exporters for Prometheus do."""
SERVE_TOKEN_VARIABLE: Final = "AETHER_SERVE_TOKEN"
"""The variable that says the bearer token of the endpoints, where no argument does."""

_COUNT: Final = "a whole number, 1 or more"
_SECONDS: Final = "a number of seconds above 0"


class Setting(NamedTuple):
    """One setting as it is in force."""

    name: str
    value: float
    source: str
    """``argument``, the name of the environment variable, or ``default``."""
    variable: str
    """The environment variable that changes it."""


def _setting(default: float, variable: str, allowed: str = _COUNT) -> Any:
    return field(metadata={"default": default, "variable": variable, "allowed": allowed})


@dataclass(frozen=True, init=False)
class PerformanceConfig:
    """Sizes and limits: threads, batches, caches, pools.

    Values are frozen. An environment variable that is empty counts as not set.

    Args:
        values: Settings by name; those left out come from the environment.

    Raises:
        ConfigurationError: Values are not allowed; one message names each variable or argument, its value and what
            is allowed.
    """

    max_threads: int = _setting(8, "AETHER_MAX_THREADS")
    """Threads of the pool that fan-outs run on; 8 by default."""

    thread_pool_size: int = _setting(4, "AETHER_THREAD_POOL_SIZE")
    """Threads for an application's own pools, such as one per service; 4 by default."""

    batch_size: int = _setting(100, "AETHER_BATCH_SIZE")
    """Items in a micro-batch; 100 by default."""

    max_batch_wait_time: float = _setting(1.0, "AETHER_MAX_BATCH_WAIT", _SECONDS)
    """Seconds that an item waits for its batch at most; 1 by default."""

    cache_size: int = _setting(1000, "AETHER_CACHE_SIZE")
    """Entries that a cache holds; 1,000 by default."""

    cache_ttl: int = _setting(3600, "AETHER_CACHE_TTL")
    """Seconds that a cache entry lives; 3,600 by default."""

    memory_pool_size: int = _setting(10, "AETHER_MEMORY_POOL_SIZE")
    """Objects that an object pool keeps; 10 by default."""

    gc_threshold: int = _setting(1000, "AETHER_GC_THRESHOLD")
    """Allocations between collections of the youngest generation, 1,000 by default; in force only after `apply_gc`."""

    _sources: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """The origin of each value that is not a default: ``argument`` or the variable; no field, and set per instance."""

    def __init__(self, **values: float) -> None:
        settings = {each.name: each.metadata for each in fields(PerformanceConfig) if each.metadata}
        complaints = [
            f"{name if name.isidentifier() else repr(name)} is not a setting; allowed: {', '.join(settings)}"
            for name in values
            if name not in settings
        ]
        sources: dict[str, str] = {}
        for name, metadata in settings.items():
            variable, allowed = metadata["variable"], metadata["allowed"]
            raw: object = metadata["default"]
            if name in values:
                sources[name], raw = "argument", values[name]
            elif text := os.environ.get(variable):
                sources[name], raw = variable, text
            value = _number(raw, whole=allowed is _COUNT)
            if value is None:
                source = name if name in values else variable
                complaints.append(f"{source}={short_repr(raw)} is not allowed; allowed: {allowed}")
            object.__setattr__(self, name, value)
        if complaints:
            raise ConfigurationError("; ".join(complaints))
        object.__setattr__(self, "_sources", sources)

    def explain(self) -> list[Setting]:
        """Return every setting, its value and where it came from, in the order of their declaration."""
        return [
            Setting(
                each.name,
                getattr(self, each.name),
                self._sources.get(each.name, "default"),
                each.metadata["variable"],
            )
            for each in fields(PerformanceConfig)
            if each.metadata
        ]

    def apply_gc(self) -> ExitStack:
        """Put `gc_threshold` in force for this process.

        Returns:
            What puts the former thresholds back: leave it as a context manager, or call its ``close()``. Without
            either the threshold stays.
        """
        before = gc.get_threshold()
        gc.set_threshold(self.gc_threshold, *before[1:])
        undo = ExitStack()
        undo.callback(gc.set_threshold, *before)
        return undo


def _number(value: object, *, whole: bool) -> float | None:
    """Return a positive number, converted from text if it is text; None if it is not one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = int(value) if whole else float(value)
    except (ValueError, OverflowError):
        return None
    if whole:
        return number if number > 0 and (isinstance(value, str) or number == value) else None
    return number if number > 0 and math.isfinite(number) else None


def nearest_name(name: object, names: Iterable[object], cutoff: float = 0.6) -> str | None:
    """Return the name that is spelled most like another; None if no name is similar enough.

    Args:
        name: The name to compare with.
        names: The names to choose from; those that are not strings are left out.
        cutoff: The least similarity, from 0 to 1, as for ``difflib.get_close_matches``.
    """
    if not isinstance(name, str):
        return None
    nearest = get_close_matches(name, [each for each in names if isinstance(each, str)], 1, cutoff)
    return nearest[0] if nearest else None


class _ReadOnFirstUse(PerformanceConfig):
    """A configuration that reads the environment when anything of it is first used, then is an ordinary one.

    So importing aetherflow neither fails on a bad variable nor ignores one that the application sets after the import.
    """

    def __init__(self) -> None:
        pass

    def __getattribute__(self, name: str) -> Any:
        config = PerformanceConfig()
        # The values first: another thread sees an ordinary configuration only once it is complete.
        for setting, value in vars(config).items():
            object.__setattr__(self, setting, value)
        object.__setattr__(self, "__class__", PerformanceConfig)
        return getattr(self, name)


perf_config: PerformanceConfig = _ReadOnFirstUse()
"""The default settings, read from the environment when first used."""
