"""Which nodes are executing now: found out when metrics are collected, so that most executions pay nothing for it.

An execution that keeps a thread busy is on that thread's stack, where whoever collects looks. Only executions that may
be suspended, those of coroutines and streams and those sent to workers, are put down when they begin and end. A stream
is asked then how many items it has yielded, too, so that no item pays for being counted.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any, Final, Protocol, TypeVar
from weakref import ref

from aetherflow.engine.plan import UNSET
from aetherflow.telemetry.conventions import ERROR_TYPE, EXECUTION_KIND, NODE_ACTIVE, NODE_DURATION
from aetherflow.telemetry.frames import current_frames
from aetherflow.telemetry.metrics import gauges
from aetherflow.telemetry.metrics.accumulators import Registry, registry
from aetherflow.telemetry.observation import Site

__all__ = ["begin_apart", "begin_stream", "end_apart", "end_stream", "shows_chain", "shows_node"]


class Yielding(Protocol):
    """A stream."""

    site: Site | None

    def tell(self) -> None:
        """Count the items that it has yielded since this was last called."""
        ...


F = TypeVar("F", bound=Callable[..., Any])

_apart: Final[dict[object, Site]] = {}
_streams: Final[dict[int, ref[Yielding]]] = {}
_of_nodes: Final[set[CodeType]] = set()
_of_chains: Final[set[CodeType]] = set()


def begin_apart(site: Site) -> object:
    """Put down that an execution has begun that may leave its thread; give the result to :func:`end_apart`."""
    key = object()
    _apart[key] = site
    return key


def end_apart(key: object) -> None:
    """Put down that an execution has ended; a second time changes nothing."""
    _apart.pop(key, None)


def begin_stream(stream: Yielding) -> None:
    """Put down that a stream has begun; it is held weakly."""
    key = id(stream)
    _streams[key] = ref(stream, lambda _: _streams.pop(key, None))


def end_stream(stream: Yielding) -> None:
    """Put down that a stream has ended; a second time changes nothing."""
    _streams.pop(id(stream), None)


def _tell_items() -> None:
    for reference in list(_streams.values()):
        stream = reference()
        if stream is not None:
            stream.tell()


def shows_node(function: F) -> F:
    """Mark a function that executes the node in its variable ``op``."""
    _of_nodes.add(function.__code__)
    return function


def shows_chain(function: F) -> F:
    """Mark a function that executes a straight chain: that of its variable ``plan``, with ``slots`` filled so far."""
    _of_chains.add(function.__code__)
    return function


def _on_stacks() -> Iterator[Site]:
    for top in current_frames().values():
        frame: FrameType | None = top
        while frame is not None:
            code = frame.f_code
            if code in _of_nodes:
                yield frame.f_locals["op"].site
            elif code in _of_chains:
                slots = frame.f_locals["slots"]
                for op in frame.f_locals["plan"].linear:
                    if slots[op.slot] is UNSET:
                        yield op.site
                        break
            frame = frame.f_back


def _readings(store: Registry) -> list[gauges.Reading]:
    """Return how many executions of each node are under way: 0 for nodes that were executed before."""
    found: Counter[frozenset[tuple[str, str]]] = Counter()
    for series in store.all():
        if series.definition is NODE_DURATION:
            outcome = (ERROR_TYPE, EXECUTION_KIND)
            found[frozenset((key, value) for key, value in series.attributes.items() if key not in outcome)] = 0
    of_streams = [stream.site for reference in list(_streams.values()) if (stream := reference()) is not None]
    for site in (*_on_stacks(), *list(_apart.values()), *of_streams):
        if site is not None and site.is_kept:
            found[frozenset(site.metric_attributes.items())] += 1
    return [(count, dict(attributes)) for attributes, count in found.items()]


def _begin_anew() -> None:  # what the parent's other threads were at is not under way in a forked child
    _apart.clear()
    _streams.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
gauges.observe(NODE_ACTIVE, registry, _readings)
registry.before_fold(_tell_items)
