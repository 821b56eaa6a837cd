"""A planned flow: operations on the slots of a run.

Planning gives every value that a run can hold an index into one list, so that an execution only fills slots in.
Operations carry all that was decided beforehand and no state of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

from aetherflow.engine.graph import Kind, Task
from aetherflow.resources.batching import Batcher
from aetherflow.resources.gathering import Given
from aetherflow.telemetry.observation import Observer, Site
from aetherflow.telemetry.observer import current_observer

__all__ = ["FIRST", "INPUTS", "PARTITION", "UNSET", "BranchOp", "CallOp", "ChainOp", "ChunkedOp"]
__all__ += ["Condition", "FanOutOp", "Maker", "MapOp", "Op", "Plan", "PrepareSlots", "RepeatOp", "Slots", "Source"]
__all__ += ["SubOp", "holds"]

Slots = list[Any]

PrepareSlots: TypeAlias = Callable[[Slots], Coroutine[Any, Any, Slots]]
"""A coroutine function that awaits the injected objects of an execution and returns a copy of the slots with them."""


class _Unset:
    __slots__ = ()

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = _Unset()
"""What a slot holds until something fills it."""

INPUTS: Final = 0
"""The slot of the run's whole input mapping."""

PARTITION: Final = 1
"""The slot of the span attributes that tell a partition from the others; None outside a map."""

FIRST: Final = 2
"""The slot of the first named input."""


class Maker(NamedTuple):
    """A node that may have made a value; it has, if ``given`` is None or a slot that is set."""

    name: str
    given: int | None = None


class Condition(NamedTuple):
    """Slots that decide whether another slot counts.

    Args:
        unset: Slots that all have to be unset.
        set_: Slots of which one has to be set; empty for no such condition.
    """

    unset: tuple[int, ...] = ()
    set_: tuple[int, ...] = ()


def holds(condition: Condition, slots: Slots) -> bool:
    """Return whether a condition holds in a run."""
    if any(slots[slot] is not UNSET for slot in condition.unset):
        return False
    return not condition.set_ or any(slots[slot] is not UNSET for slot in condition.set_)


class Source(NamedTuple):
    """A slot that may fill a parameter, the nodes that may have produced its value, and the condition for it."""

    slot: int
    makers: Sequence[Maker]
    condition: Condition | None = None

    def fills(self, slots: Slots) -> bool:
        """Return whether the slot can fill the parameter in a run."""
        return slots[self.slot] is not UNSET and (self.condition is None or holds(self.condition, slots))


@dataclass(frozen=True, slots=True, eq=False)
class Gather:
    """How executions are given to a batcher.

    Args:
        given: Takes what an execution gives out of the slots.
        batcher: Gives the batcher.
    """

    given: Callable[[Slots], Given]
    batcher: Callable[[], Batcher[Any, Any]]


@dataclass(slots=True, eq=False)
class CallOp:
    """Execute one node.

    Args:
        site: Where it is observed.
        kind: How ``invoke`` gives its result.
        invoke: Calls the node's function with arguments out of the slots.
        slot: Where the result goes.
        span_slot: Where the context of its span goes, for links; None where nothing links to it.
        links: Slots of the span contexts it links to, in the first round if a ``repeat`` begins with it.
        rounds: Slots of the outputs of the round before, if a ``repeat`` begins with it.
        upstream: Where only a run can tell whose output it takes: the sources of each parameter, the first that is
            set counts.
        task: The task's function and name.
        executor: The kind of worker it runs on; None for where the flow runs.
        arguments: For executions sent to a worker: its positional arguments, and others by name.
        injected: For the same: parameters that the worker injects, and their providers' slots.
        container: For the same: the slot of the provider of the context itself; None where nothing is injected.
        on_loop: The same for an event loop, where that awaits something else.
        gather: How many of its executions are given at once, where its function takes them together.
        prepare: Awaits the objects that are injected, for generator nodes and batches; None if none is awaited.
    """

    site: Site
    kind: Kind
    invoke: Callable[[Slots], Any]
    slot: int
    task: Task
    arguments: Callable[[Slots], tuple[tuple[Any, ...], dict[str, Any]]]
    links: tuple[int, ...] = ()
    rounds: tuple[int, ...] = ()
    upstream: tuple[tuple[Source, ...], ...] = ()
    executor: str | None = None
    injected: tuple[tuple[str, int], ...] = ()
    container: int | None = None
    on_loop: CallOp | None = None
    gather: Gather | None = None
    span_slot: int | None = None
    prepare: PrepareSlots | None = None


@dataclass(slots=True, eq=False)
class ChainOp:
    """Operations one after the other."""

    ops: tuple[Op, ...]
    slot: int


@dataclass(slots=True, eq=False)
class FanOutOp:
    """Operations side by side; the mapping of their results goes to ``slot``."""

    keys: tuple[str, ...]
    ops: tuple[Op, ...]
    slot: int
    limit: int | None
    collect: bool


@dataclass(slots=True, eq=False)
class MapOp:
    """One operation over the elements in ``source``.

    Args:
        key: The results' name.
        op: The body, which works on a copy of the slots.
        source: Where the output to split is.
        slot: Where the results go.
        workers: The most at once; None for no limit.
        copies: How many executions there are where nothing is split.
        aliases: Other slots that may hold the output to split; they hold the element too then.
        split: As in :class:`aetherflow.engine.graph.Map`.
        keyed: Whether results are a mapping.
        collect: Whether failures are results.
        gathers: Whether executions in it wait for each other to become batches.
        span_slots: Pairs of a slot in an execution's copy and the slot that gathers them all.
        ran: Pairs of a slot in an execution's copy that shows whether a node ran, and the slot that keeps this.
    """

    key: str
    op: Op
    source: int
    slot: int
    workers: int | None
    copies: int
    split: bool | None
    keyed: bool
    collect: bool
    aliases: tuple[int, ...] = ()
    gathers: bool = False
    span_slots: list[tuple[int, int]] = field(default_factory=list)
    ran: tuple[tuple[int, int], ...] = ()

    @property
    def is_batched(self) -> bool:
        """Whether the body itself is a node whose executions become batches."""
        return isinstance(self.op, CallOp) and self.op.task.batched is not None


@dataclass(slots=True, eq=False)
class ChunkedOp:
    """The elements in ``source``, so many at a time.

    Args:
        site: Where the stage is observed.
        name: Whose results they are.
        size: How many; None for ``AETHER_BATCH_SIZE``.
        op: What is made of each list of them, on a copy of the slots; None for the lists themselves.
        source: Where the elements are.
        slot: Where the results go: a list, or a stream where the elements are.
        aliases: As in :class:`MapOp`.
        upstream: As in :class:`CallOp`.
    """

    site: Site
    name: str
    size: int | None
    op: Op | None
    source: int
    slot: int
    aliases: tuple[int, ...] = ()
    upstream: tuple[tuple[Source, ...], ...] = ()


@dataclass(slots=True, eq=False)
class BranchOp:
    """The one operation that stands for the value in ``source``."""

    name: str
    source: int
    choices: Mapping[Hashable, Op]
    default: Op | None
    slot: int


@dataclass(slots=True, eq=False)
class RepeatOp:
    """One operation, executed in several rounds.

    Args:
        op: The operation.
        times: The most rounds.
        until: Ends the rounds once it returns true for an output; None for no such condition.
        previous: The slot of the output of the round before.
        slot: The slot of the last round's output.
        clears: Slots that are unset before each round, so that no round finds values of another one.
        silent: Slots of nodes annotated ``-> None``: if one is set, the round has no output to pass on.
        ran: Pairs of a slot that shows whether a node ran in a round, and the slot that keeps this for the next one.
    """

    op: Op
    times: int
    until: Callable[[Any], bool] | None
    previous: int
    slot: int
    clears: tuple[int, ...] = ()
    silent: tuple[int, ...] = ()
    ran: tuple[tuple[int, int], ...] = ()


@dataclass(slots=True, eq=False)
class SubOp:
    """A named flow inside another, with a run span of its own."""

    site: Site
    op: Op
    slot: int
    span_slot: int | None = None


Op = CallOp | ChainOp | FanOutOp | MapOp | ChunkedOp | BranchOp | RepeatOp | SubOp


@dataclass(slots=True, eq=False)
class Plan:
    """A flow, planned for one set of input names and one context class.

    Args:
        flow: The flow's name.
        op: What a run does.
        site: Where the run is observed; None for the run of a single node, which is observed as the node.
        blank: The slots after those of the inputs, as a run finds them.
        providers: Names of the providers that a run takes from its context, and their slots.
        natures: What each of them was planned for.
        outputs: Names of results, their slots, and whether the slot holds the results of a map.
        linear: The calls of a straight chain of synchronous nodes; empty where the flow is anything else.
        single: Whether the flow is one node, observed without a run span.
        has_resources: Whether a run may have to initialise resources.
        overridden: Whether a provider was overridden when this was planned.
        context_local: Slots of the context-local providers, resolved before anything runs in a copy of the context.
        awaited_local: Slots of providers with context-local parts that have to be awaited then.
        loop_bound: Slots of the providers whose objects code on an event loop may use, in synchronous runs too.
        observer: Gives what observes a run that begins now.
    """

    flow: str
    op: Op
    site: Site | None
    blank: Slots
    providers: tuple[tuple[Callable[[Any], Any], int], ...]
    natures: tuple[object, ...]
    outputs: tuple[tuple[str, int, bool], ...]
    linear: tuple[CallOp, ...]
    single: bool
    context_local: tuple[int, ...] = ()
    awaited_local: tuple[int, ...] = ()
    loop_bound: frozenset[int] = frozenset()
    has_resources: bool = False
    overridden: bool = False
    observer: Callable[[], Observer] = current_observer
    steps: tuple[tuple[Callable[[Slots], Any], int, Site, Callable[[int], None]], ...] = field(init=False)
    has_details: bool = field(init=False)
    is_plain: bool = field(init=False)

    def __post_init__(self) -> None:
        # What a single node keeps its span's context for, a run that is asked for that begins otherwise.
        asked = any(op.span_slot is not None for op in self.linear) and not self.single
        self.has_details = any(op.site.has_details for op in self.linear)
        self.is_plain = not asked and not any(op.upstream or op.links for op in self.linear)
        # Of slots, CPython reads what it calls at once far more slowly than what is in a variable.
        self.steps = tuple((op.invoke, op.slot, op.site, op.site.series.add) for op in self.linear)

    def relieve(self) -> None:
        """Add up what the runs of a straight chain have recorded."""
        for op in self.linear:
            op.site.series.relieve()
        if self.site is not None:
            self.site.series.relieve()
