"""What a profile comes to: times by function, and the event on the span, which never outgrows its limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePath
from types import CodeType
from typing import Final, Literal

from opentelemetry.util.types import AttributeValue

from aetherflow.telemetry import conventions as names

__all__ = ["MAX_ATTRIBUTE", "MAX_FUNCTIONS", "Function", "FunctionTimes", "Profile"]
__all__ += ["function_name", "function_of", "profile_attributes", "skipped_attributes"]

MAX_FUNCTIONS: Final = 20
"""Functions in an event: those with the most cumulative time."""

MAX_ATTRIBUTE: Final = 2_000
"""Bytes of an attribute's value; Tempo cuts at 2,048."""


Function = tuple[str, int, str]
"""A function: its file, first line and qualified name, as in ``pstats``."""

_MAX_NAME: Final = 250
_NUMBER: Final = 8
_CUT: Final = "…"


@dataclass(frozen=True, slots=True)
class FunctionTimes:
    """What a profile says of one function; times in seconds.

    Args:
        name: The function, as :func:`function_name` tells it.
        self_time: Spent in the function itself.
        cumulative_time: Spent in it and in what it called.
        calls: How often it was called; of a sampled profile, how many samples found it under way.
    """

    name: str
    self_time: float
    cumulative_time: float
    calls: int


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile of one execution.

    Args:
        profiler: What took it.
        functions: The functions, in any order.
        other_threads: Whether calls of other threads may be among them.
    """

    profiler: Literal["cprofile", "sampling"]
    functions: Sequence[FunctionTimes]
    other_threads: bool = False


def function_of(code: CodeType) -> Function:
    """Return which function a code object is of; code objects themselves are equal across files."""
    return code.co_filename, code.co_firstlineno, code.co_qualname


def function_name(function: Function) -> str:
    """Return how an event names a function: qualified, with file and line."""
    file, line, name = function
    return f"{name} ({PurePath(file).name}:{line})"


def profile_attributes(profile: Profile, uri: str | None = None) -> dict[str, AttributeValue]:
    """Return the attributes of the event that tells of a profile.

    Args:
        profile: The profile.
        uri: Where it was written in full.
    """
    by_time = sorted(profile.functions, key=lambda each: -each.cumulative_time)
    shown: list[tuple[str, FunctionTimes]] = []
    left = MAX_ATTRIBUTE
    for each in islice(by_time, MAX_FUNCTIONS):
        name = _cut(each.name, _MAX_NAME)
        left -= len(name.encode())
        if left < 0:
            break
        shown.append((name, each))
    is_cut = len(shown) < len(by_time) or any(name != each.name for name, each in shown)
    attributes: dict[str, AttributeValue] = {
        names.PROFILE_PROFILER: profile.profiler,
        names.PROFILE_FUNCTIONS: tuple(name for name, _ in shown),
        names.PROFILE_SELF_TIME: tuple(each.self_time for _, each in shown),
        names.PROFILE_CUMULATIVE_TIME: tuple(each.cumulative_time for _, each in shown),
        names.PROFILE_CALLS: tuple(each.calls for _, each in shown),
        names.PROFILE_OTHER_THREADS: profile.other_threads,
    }
    if uri is not None and uri == _cut(uri, MAX_ATTRIBUTE):
        attributes[names.PROFILE_URI] = uri  # part of an address would lead nowhere
    elif uri is not None:
        is_cut = True
    attributes[names.PROFILE_TRUNCATED] = is_cut
    return attributes


def skipped_attributes(profiler: str, reason: str) -> dict[str, AttributeValue]:
    """Return the attributes of the event that tells why a profile that was due could not be taken."""
    return {names.PROFILE_PROFILER: profiler, names.PROFILE_SKIPPED: _cut(reason, MAX_ATTRIBUTE)}


def _cut(text: str, limit: int) -> str:
    """Return the text, or its beginning and a mark, in at most ``limit`` bytes; what has no encoding is replaced."""
    encoded = text.encode(errors="replace")
    if len(encoded) > limit:
        encoded = encoded[: limit - len(_CUT.encode())]
        return encoded.decode(errors="ignore") + _CUT
    return encoded.decode()
