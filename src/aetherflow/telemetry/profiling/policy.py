"""Which executions are profiled, and how: :class:`ProfilePolicy`, from code or from ``AETHER_PROFILE``."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Literal, TypeGuard, get_args

from aetherflow.errors import ConfigurationError

__all__ = ["PROFILE_VARIABLE", "ProfilePolicy", "Profiler", "policy_from_environment", "policy_of"]

Profiler = Literal["auto", "cprofile", "sampling"]

PROFILE_VARIABLE: Final = "AETHER_PROFILE"
"""The environment variable that holds a policy, as ``rate=0.01,slower_than=0.5,nodes=fetch*|load``."""

_FORMAT: Final = "key=value, separated by commas"
_WORDS: Final[Mapping[str, bool]] = {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}


@dataclass(frozen=True, slots=True)
class ProfilePolicy:
    """Which executions of nodes are profiled, and how.

    An execution is profiled if chance picks it, with probability ``rate``; or if ``slower_than`` has made it due. A
    profile cannot be taken backwards: an execution that took longer than ``slower_than``, and was not profiled
    itself, makes the *next* execution of the same node in the same flow due, at most one every ``interval`` seconds.

    Args:
        rate: The share of executions, from 0 to 1; None for all of them, or for none where ``slower_than`` is given.
        slower_than: Seconds; or ``"p99"``, the duration that 99 % of the node's successful executions in this process
            did not exceed, known from 100 of them on, looked up at most once a second and at most 2.2 % off.
        interval: Seconds between two profiles of a node that ``slower_than`` makes due.
        nodes: Patterns of node names, such as ``"fetch*"``; one, or a sequence of them.
        profiler: ``"cprofile"`` counts every call of a synchronous function, at 4 to 6 times the cost of calls, one
            execution at a time; on Python 3.12 and later it sees the calls of other threads too. ``"sampling"`` looks
            at the stack every few milliseconds; any number of executions at once, coroutines and generators too.
            ``"auto"`` is cProfile before Python 3.12 where that can be had, and sampling otherwise.
        directory: Where a pstats file is written for each profile; None for no files.
        speedscope: Whether a speedscope file is written beside it; those are taken by sampling.

    Raises:
        ConfigurationError: A value is not allowed.
    """

    rate: float | None = None
    slower_than: float | Literal["p99"] | None = None
    interval: float = 60.0
    nodes: str | Sequence[str] = "*"
    profiler: Profiler = "auto"
    directory: str | os.PathLike[str] | None = None
    speedscope: bool = False

    def __post_init__(self) -> None:
        if self.rate is not None and not (_is_number(self.rate) and 0 <= self.rate <= 1):
            raise _refused("rate", self.rate, "a number from 0 to 1, or None")
        slow: object = self.slower_than
        if slow is not None and slow != "p99" and not (_is_number(slow) and slow > 0):
            raise _refused("slower_than", slow, "a number of seconds above 0, 'p99', or None")
        if not _is_number(self.interval) or self.interval < 0:
            raise _refused("interval", self.interval, "a number of seconds from 0")
        object.__setattr__(self, "nodes", _patterns(self.nodes))
        if self.profiler not in get_args(Profiler):
            raise _refused("profiler", self.profiler, ", ".join(map(repr, get_args(Profiler))))
        if self.directory is not None:
            if not isinstance(self.directory, str | os.PathLike) or not os.fspath(self.directory):
                raise _refused("directory", self.directory, "a path, or None")
            object.__setattr__(self, "directory", Path(self.directory).absolute())
        if not isinstance(self.speedscope, bool):
            raise _refused("speedscope", self.speedscope, "True and False")
        if self.speedscope and (self.directory is None or self.profiler == "cprofile"):
            raise _refused("speedscope", True, "True with a directory, and with a profiler other than 'cprofile'")

    @property
    def share(self) -> float:
        """The share of executions that chance picks, from 0 to 1."""
        if self.rate is not None:
            return self.rate
        return 1.0 if self.slower_than is None else 0.0

    def matches(self, node: str) -> bool:
        """Tell whether a node of that name is meant."""
        return any(fnmatchcase(node, pattern) for pattern in self.nodes)


def policy_of(profile: object, node: str) -> ProfilePolicy | None:
    """Return the policy that a node's ``profile=`` stands for; None where it asks for none.

    Raises:
        ConfigurationError: It is neither a bool nor a policy.
    """
    if profile is None or profile is False:
        return None
    if profile is True:
        return ProfilePolicy()
    if isinstance(profile, ProfilePolicy):
        return profile
    raise ConfigurationError(
        f"node {node!r}: profile={profile!r}; allowed are True, False and ProfilePolicy(rate=…, …)"
    )


def policy_from_environment(environ: Mapping[str, str] = os.environ) -> ProfilePolicy | None:
    """Return the policy in ``AETHER_PROFILE``; None where that is not set, empty or ``off``.

    The variable holds the arguments of :class:`ProfilePolicy` as ``key=value``, separated by commas, and several
    patterns of ``nodes`` by ``|``; ``on`` is a policy without arguments.

    Args:
        environ: The environment variables.

    Raises:
        ConfigurationError: The variable holds something else; names it, the value and what is allowed.
    """
    text = environ.get(PROFILE_VARIABLE, "").strip()
    if _WORDS.get(text.lower()) is False or not text:
        return None
    try:
        return ProfilePolicy(**({} if text.lower() in _WORDS else _parsed(text)))
    except ConfigurationError as error:
        raise ConfigurationError(f"{PROFILE_VARIABLE}={text!r}: {error}") from None


def _parsed(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in text.split(","):
        key, given, value = (piece.strip() for piece in part.partition("="))
        if not given or not value or key in found:
            problem = "is given twice" if key in found else "is not allowed"
            raise ConfigurationError(f"{part.strip()!r} {problem}; allowed: {_FORMAT}, or on, or off")
        found[key] = _value(key, value)
    return found


def _value(key: str, value: str) -> object:
    match key:
        case "rate" | "interval":
            return _number(value)
        case "slower_than":
            return value if value == "p99" else _number(value)
        case "nodes":
            return tuple(pattern.strip() for pattern in value.split("|"))
        case "speedscope":
            return _WORDS.get(value.lower(), value)
        case "profiler" | "directory":
            return value
    allowed = ", ".join(ProfilePolicy.__dataclass_fields__)
    raise ConfigurationError(f"{key!r} is not a setting of a policy; allowed: {allowed}")


def _number(value: str) -> float | str:
    """Return the number that a text says, or the text, which the policy then refuses."""
    try:
        return float(value)
    except ValueError:
        return value


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _patterns(nodes: object) -> tuple[str, ...]:
    found = (nodes,) if isinstance(nodes, str) else nodes
    if not isinstance(found, Sequence) or not found or not all(isinstance(each, str) and each for each in found):
        raise _refused("nodes", nodes, "a pattern of node names, or a sequence of them, not empty")
    return tuple(found)


def _refused(name: str, value: object, allowed: str) -> ConfigurationError:
    return ConfigurationError(f"ProfilePolicy({name}={value!r}): allowed: {allowed}")
