"""Settings: from arguments, else from ``AETHER_*`` environment variables, else their defaults; validated as one."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from contextlib import ExitStack
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

from pydantic import BaseModel, Field, PositiveInt, PrivateAttr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from aetherflow.errors import ConfigurationError

__all__ = ["SERVE_PORT", "SERVE_TOKEN_VARIABLE", "PerformanceConfig", "Setting", "complaints_of", "nearest_name"]
__all__ += ["perf_config"]

SERVE_PORT: Final = 9464
"""Where ``aetherflow serve`` listens, and ``aetherflow top`` looks, as OpenTelemetry's exporters for Prometheus do."""
SERVE_TOKEN_VARIABLE: Final = "AETHER_SERVE_TOKEN"
"""The variable that says the bearer token of the endpoints, where no argument does."""

_ALLOWED: dict[object, str] = {int: "a whole number, 1 or more", float: "a number of seconds above 0"}


class Setting(NamedTuple):
    """One setting as it is in force."""

    name: str
    value: float
    source: str
    """``argument``, the name of the environment variable, or ``default``."""


class PerformanceConfig(BaseSettings):
    """How much of everything: threads, batches, caches, pools.

    Values are frozen. An environment variable that is empty counts as not set.

    Args:
        values: Settings by name; those left out come from the environment.

    Raises:
        ConfigurationError: Values are not allowed; one message names each variable or argument, its value and what
            is allowed.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_ignore_empty=True, use_attribute_docstrings=True)

    max_threads: PositiveInt = Field(default=8, validation_alias="AETHER_MAX_THREADS")
    """Threads of the pool that fan-outs run on."""

    thread_pool_size: PositiveInt = Field(default=4, validation_alias="AETHER_THREAD_POOL_SIZE")
    """Threads for an application's own pools, such as one a service."""

    batch_size: PositiveInt = Field(default=100, validation_alias="AETHER_BATCH_SIZE")
    """Items in a micro-batch."""

    max_batch_wait_time: float = Field(default=1.0, gt=0, allow_inf_nan=False, validation_alias="AETHER_MAX_BATCH_WAIT")
    """Seconds an item waits for its batch at most."""

    cache_size: PositiveInt = Field(default=1000, validation_alias="AETHER_CACHE_SIZE")
    """Entries a cache holds."""

    cache_ttl: PositiveInt = Field(default=3600, validation_alias="AETHER_CACHE_TTL")
    """Seconds a cache entry lives."""

    memory_pool_size: PositiveInt = Field(default=10, validation_alias="AETHER_MEMORY_POOL_SIZE")
    """Objects an object pool keeps."""

    gc_threshold: PositiveInt = Field(default=1000, validation_alias="AETHER_GC_THRESHOLD")
    """Allocations between collections of the youngest generation; in force only after `apply_gc`."""

    _arguments: frozenset[str] = PrivateAttr(default=frozenset())

    def __init__(self, **values: float) -> None:
        variables = _variables(type(self))
        # By the same key as the environment's, so that an argument takes its place in every pydantic-settings.
        keyed: dict[str, Any] = {variables.get(name, name): value for name, value in values.items()}
        try:
            super().__init__(**keyed)
        except ValidationError as failure:
            raise ConfigurationError(_explained(type(self), failure, values)) from None
        self._arguments = frozenset(values)

    def explain(self) -> list[Setting]:
        """Tell every setting, its value and where it came from.

        Returns:
            The settings in the order they are declared.
        """
        return [
            Setting(name, getattr(self, name), self._source(name, variable))
            for name, variable in _variables(type(self)).items()
        ]

    def _source(self, name: str, variable: str) -> str:
        if name in self._arguments:
            return "argument"
        return variable if name in self.model_fields_set else "default"

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


_WANTED: Final = {
    **dict.fromkeys(("model_type", "dict_type", "mapping_type"), "a table"),
    **dict.fromkeys(("list_type", "tuple_type"), "a list"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    "string_type": "text",
}
"""What is allowed, by pydantic's name for what is wrong."""


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


def complaints_of(failure: ValidationError) -> str:
    """Tell all that is wrong with values that were read from a file, and what is allowed."""
    return "; ".join(map(_complaint, failure.errors()))


def _complaint(error: ErrorDetails) -> str:
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).removeprefix(".")
    if error["type"] == "extra_forbidden":
        return f"{where}={error['input']!r}: there is no such key"
    wanted = _WANTED.get(error["type"])
    if wanted is None:
        return f"{where}={error['input']!r}: {error['msg'].removeprefix('Value error, ')}"
    return f"{where}={error['input']!r} is not allowed; allowed: {wanted}"


def _variables(config: type[PerformanceConfig]) -> dict[str, str]:
    """Environment variables by the name of their setting."""
    return {name: str(field.validation_alias or name.upper()) for name, field in config.model_fields.items()}


def _explained(config: type[PerformanceConfig], failure: ValidationError, values: dict[str, float]) -> str:
    names = {variable: name for name, variable in _variables(config).items()}
    complaints = []
    for error in failure.errors():
        key = str(error["loc"][0])
        name = names.get(key)
        if name is None:
            complaints.append(f"{key} is not a setting; allowed: {', '.join(names.values())}")
            continue
        allowed = _ALLOWED.get(config.model_fields[name].annotation, error["msg"])
        complaints.append(f"{name if name in values else key}={error['input']!r} is not allowed; allowed: {allowed}")
    return "; ".join(complaints)


class _ReadOnFirstUse(PerformanceConfig):
    """A configuration that reads the environment when anything of it is first used, then is an ordinary one.

    So importing aetherflow neither fails on a bad variable nor misses one that the application sets after the import.
    """

    def __init__(self) -> None:
        pass

    def __getattribute__(self, name: str) -> Any:
        config = PerformanceConfig()
        # The state first: another thread sees an ordinary configuration only once it is complete.
        BaseModel.__setstate__(self, config.__getstate__())
        object.__setattr__(self, "__class__", PerformanceConfig)
        return getattr(self, name)


perf_config: PerformanceConfig = _ReadOnFirstUse()
"""The default settings, read from the environment when first used."""
