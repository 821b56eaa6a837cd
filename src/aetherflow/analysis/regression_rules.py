"""What the regression gate tolerates: its defaults, and ``regress.toml``, which changes them node by node."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, ClassVar, Final

from aetherflow.errors import ConfigurationError
from aetherflow.telemetry.conventions import RUN_DURATION
from aetherflow.validation import Bounds, validate_table

__all__ = [
    "FEWEST_BASELINES",
    "FEWEST_CANDIDATES",
    "FEWEST_PAIRS",
    "NodeRule",
    "RateLimits",
    "Rules",
    "SuiteRule",
    "read_rules",
]

FEWEST_BASELINES: Final = 5
FEWEST_CANDIDATES: Final = 3
FEWEST_PAIRS: Final = 5
"""Jobs of each kind below which the gate only warns."""

_Fraction = Annotated[float, Bounds(gt=0, le=10)]


class _Rule:
    __pydantic_config__: ClassVar = {"extra": "forbid"}


@dataclass(frozen=True)
class NodeRule(_Rule):
    """What holds for the nodes that patterns name; ``*`` and ``?`` stand for any characters."""

    flow: str = "*"
    """Pattern for the flow's name."""
    node: str = "*"
    """Pattern for the node's name, or the operation's."""
    metric: str = "*"
    """Pattern for the metric's name."""
    limit: _Fraction | None = None
    """The shift that is a regression, as a fraction; None for that of all nodes."""
    fail: bool = True
    """Whether a regression fails the job; without any rule, those of whole runs only warn."""
    ignore: bool = False
    """Whether they are left out altogether."""

    def covers(self, flow: str, node: str, metric: str) -> bool:
        """Whether it holds for a node."""
        pairs = ((flow, self.flow), (node, self.node), (metric, self.metric))
        return all(fnmatchcase(name, pattern) for name, pattern in pairs)


@dataclass(frozen=True)
class SuiteRule(_Rule):
    """What holds for all nodes together."""

    limit: _Fraction = 0.10
    """The shift that is a regression, as a fraction."""
    fail: bool = True
    """Whether it fails the job."""


@dataclass(frozen=True)
class RateLimits(_Rule):
    """The changes of rates that fail the job; those of a rate that has no limit only warn."""

    error_rate: _Fraction | None = None
    """In points: 0.01 is one percent of the executions."""
    retry_rate: _Fraction | None = None
    """In points: 0.01 is one retry per 100 executions."""
    cache_hit_ratio: _Fraction | None = None
    """In points: 0.05 is five percent of the requests."""
    throughput: _Fraction | None = None
    """As a fraction of what it was."""


@dataclass(frozen=True)
class Rules(_Rule):
    """What the gate tolerates."""

    limit: _Fraction = 0.10
    """The shift of a node that is a regression, as a fraction."""
    margin: Annotated[float, Bounds(ge=0, le=10)] = 0.05
    """The shift that must be exceeded beyond doubt, as a fraction; no more than the limit counts."""
    alpha: Annotated[float, Bounds(gt=0, lt=0.5)] = 0.01
    """The chance of a false alarm over all nodes together, were every one of them slower by just the margin."""
    min_calls: Annotated[int, Bounds(gt=0)] = 200
    """Calls on each side below which nothing is said of a node."""
    suite: SuiteRule = SuiteRule()
    """What holds for all nodes together."""
    rates: RateLimits = RateLimits()
    """Limits beyond which error and retry rates, cache hit ratios and throughput fail a comparison."""
    node: tuple[NodeRule, ...] = ()
    """What is different for some nodes; the first that covers a node holds."""

    def for_node(self, flow: str, node: str, metric: str) -> NodeRule:
        """Give what holds for a node."""
        # On a busy machine what is between nodes varies several times as much as they do, and a run contains it.
        usual = NodeRule(fail=metric != RUN_DURATION.name)
        return next((rule for rule in self.node if rule.covers(flow, node, metric)), usual)


def read_rules(path: Path) -> Rules:
    """Read a configuration file.

    Args:
        path: TOML, with the names of `Rules` as keys, ``[suite]`` and ``[rates]`` as tables and a ``[[node]]`` for
            each `NodeRule`.

    Raises:
        ConfigurationError: It cannot be read, or has a key or a value that is not allowed; tells all of them.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from error
    return validate_table(Rules, data, str(path), "gate")
