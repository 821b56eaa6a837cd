"""The graph of a flow: frozen steps that composing builds and planning reads.

A graph says what runs after what and nothing of how: no slots, no threads, no spans. Steps are shared freely between
flows, because nothing ever changes one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from aetherflow.errors import CompositionError
from aetherflow.resources.markers import Marker
from aetherflow.telemetry.profiling.policy import ProfilePolicy

__all__ = ["Branch", "Call", "Chain", "Chunked", "FanOut", "Kind", "Map", "Repeat", "Step", "Sub", "Task"]


class Kind(Enum):
    """How a node's function gives its result."""

    SYNC = "sync"
    ASYNC = "async"
    STREAM = "stream"
    ASYNC_STREAM = "async_stream"


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """All that is known of a node from its decoration.

    Args:
        name: The node's name.
        func: The plain function.
        call: The function with its policies (retry, time limit, …) around it; what an execution calls.
        kind: How ``call`` gives its result.
        declared: How ``func`` does; a synchronous function with a time limit is awaited.
        parameters: The parameters that can be filled, in order; variadic ones left out.
        qualname: The function's qualified name.
        retries: Whether executions may be attempted more than once.
        executor: Where executions run; None for where the flow runs.
        cache: The cache of its results; None without.
        batched: What collects the items of a function that takes a list of them; None for any other function.
        acall: What an event loop awaits instead of ``call``, where that would wait for other callers; None else.
        given: What takes the arguments of a call apart, where many may be given at once; None else.
        profile: Which executions are profiled; None for what is in force for all nodes.
        markers: The explicit markers, such as ``Provide[…]``, by parameter name.
        returns_none: Whether ``func`` is annotated ``-> None``.
        has_var_positional: Whether ``func`` has a ``*args`` parameter.
        has_var_keyword: Whether ``func`` has a ``**kwargs`` parameter.
        names: The names of all parameters, including the one that a bound method has filled.
        expected: Classes of exceptions that are no failures of the node.
    """

    name: str
    func: Callable[..., Any]
    call: Callable[..., Any]
    kind: Kind
    declared: Kind
    parameters: tuple[inspect.Parameter, ...]
    qualname: str
    retries: bool = False
    executor: str | None = None
    cache: Any = None
    batched: Any = None
    acall: Callable[..., Any] | None = None
    given: Callable[..., Any] | None = None
    profile: ProfilePolicy | None = None
    markers: Mapping[str, Marker] = field(default_factory=dict)
    returns_none: bool = False
    has_var_positional: bool = False
    has_var_keyword: bool = False
    names: frozenset[str] = frozenset()
    expected: tuple[type[Exception], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """Execute one node."""

    task: Task

    @property
    def name(self) -> str:
        """The node's name."""
        return self.task.name


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """One step after the other."""

    steps: tuple[Step, ...]

    @property
    def name(self) -> str:
        """The name of the first step."""
        return self.steps[0].name


@dataclass(frozen=True, slots=True, eq=False)
class FanOut:
    """Different steps side by side, each on the whole output of the step before."""

    branches: tuple[Step, ...]
    executor: str | None = None
    max_workers: int | None = None
    collect: bool = False

    @property
    def name(self) -> str:
        """The names of the branches."""
        return f"[{', '.join(self.keys)}]"

    @property
    def keys(self) -> tuple[str, ...]:
        """The branches' names, under which their results are found."""
        return tuple(branch.name for branch in self.branches)


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """One step over the elements of the output before it, some at once.

    Args:
        body: What runs once an element.
        workers: How many run at once at most; None for as many as the pool has.
        split: True where the output must be iterable; None to split a list, a tuple or a mapping of one list, and
            to run the body ``copies`` times on the whole output otherwise; False to always do the latter.
        keyed: Whether results are a mapping ``name[0]``, ``name[1]``… or a list.
        copies: How many executions there are where nothing is split.
    """

    body: Step
    workers: int | None = None
    split: bool | None = True
    keyed: bool = False
    executor: str | None = None
    collect: bool = False
    copies: int = 1

    @property
    def name(self) -> str:
        """The body's name."""
        return self.body.name


@dataclass(frozen=True, slots=True, eq=False)
class Chunked:
    """The elements of the output before it, so many at a time.

    Args:
        size: How many; None for ``AETHER_BATCH_SIZE``.
        body: What runs on each list of them, one after the other; its results follow each other. None for the lists.
    """

    size: int | None
    body: Step | None = None

    @property
    def name(self) -> str:
        """The body's name."""
        return "chunked" if self.body is None else self.body.name

    @property
    def stage(self) -> str:
        """The name of what puts the lists together."""
        return "chunked" if self.body is None else f"{self.body.name} batches"


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """The one step that stands for the output before it."""

    choices: Mapping[Hashable, Step]
    default: Step | None = None

    @property
    def name(self) -> str:
        """The names of the choices."""
        return "|".join(dict.fromkeys(step.name for step in self.alternatives))

    @property
    def alternatives(self) -> tuple[Step, ...]:
        """Every step that may be chosen."""
        return (*self.choices.values(), *(() if self.default is None else (self.default,)))


@dataclass(frozen=True, slots=True, eq=False)
class Repeat:
    """A step several times over, each round on the output of the round before."""

    body: Step
    times: int
    until: Callable[[Any], bool] | None = None

    @property
    def name(self) -> str:
        """The body's name."""
        return self.body.name


@dataclass(frozen=True, slots=True, eq=False)
class Sub:
    """A named flow as one step of another: it has names and a run span of its own."""

    name: str
    body: Step


Step = Call | Chain | FanOut | Map | Chunked | Branch | Repeat | Sub


def parts(step: Step) -> tuple[Step, ...]:
    """Return the steps that a step is made of; none for a node."""
    match step:
        case Call():
            return ()
        case Chain(steps):
            return steps
        case FanOut(branches):
            return branches
        case Branch():
            return step.alternatives
        case Chunked(body=None):
            return ()
        case _:
            return (step.body,)  # type: ignore[return-value]  # narrowed above


def tasks(step: Step) -> Iterator[Task]:
    """Yield the nodes of a step from first to last, a node used twice twice, those of named flows inside it too."""
    if isinstance(step, Call):
        yield step.task
    for part in parts(step):
        yield from tasks(part)


def is_parallel(step: Step) -> bool:
    """Tell whether a step ends in results that lie side by side."""
    match step:
        case Chain(steps):
            return is_parallel(steps[-1])
        case FanOut() | Map():
            return True
        case _:
            return False


def returns_none(step: Step) -> bool:
    """Return whether a step ends in a node annotated ``-> None``, whichever alternative runs."""
    match step:
        case Call(task):
            return task.returns_none
        case Chain(steps):
            return returns_none(steps[-1])
        case Branch():
            return all(map(returns_none, step.alternatives))
        case Sub(_, body) | Repeat(body):
            return returns_none(body)
        case _:
            return False


def chain(first: Step, second: Step) -> Step:
    """Return the two steps one after the other; chains are laid flat."""
    left = first.steps if isinstance(first, Chain) else (first,)
    right = second.steps if isinstance(second, Chain) else (second,)
    return checked(Chain((*left, *right)))


def checked(step: Step) -> Step:
    """Return the step.

    Raises:
        CompositionError: Two different nodes or flows in it would share a result name.
    """
    _collect_names(step, {})
    return step


def _collect_names(step: Step, seen: dict[str, object]) -> None:
    match step:
        case Call(task):
            _claim(task.name, task.func, seen)
        case Sub(name, body):
            _claim(name, body, seen)
            _collect_names(body, {})
        case Branch():  # only one of them runs, so they may share a name
            found: dict[str, object] = {}
            for part in step.alternatives:
                own = dict(seen)
                _collect_names(part, own)
                found.update(own)
            seen.update(found)
        case FanOut():
            _check_keys(step)
            for part in step.branches:
                _collect_names(part, seen)
        case _:
            for part in parts(step):
                _collect_names(part, seen)


def _claim(name: str, owner: object, seen: dict[str, object]) -> None:
    other = seen.setdefault(name, owner)
    if other is not owner and other != owner:  # bound methods of one object are equal, not identical
        raise CompositionError(
            f"two different nodes are named {name!r} and would share a result; name one of them, "
            f"with @node(name=…) or .named(…)"
        )


def _check_keys(step: FanOut) -> None:
    keys = step.keys
    for key in keys:
        if keys.count(key) > 1:
            raise CompositionError(
                f"two branches of a fan-out are named {key!r} and would share a result; "
                f"name one of them with .named(…), or write [node] * k for k workers of one node"
            )
