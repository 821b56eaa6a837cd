"""Errors of AetherFlow as values: every one of them crosses from one process to another."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest

from aetherflow.engine.backends.errors import NotPicklableError, NotUnpicklableError, RemoteError, WorkerLostError
from aetherflow.errors import (
    AetherFlowError,
    MissingInputError,
    NodeTimeoutError,
    NotAStreamError,
    ResourceError,
    SplitError,
    StreamError,
)
from aetherflow.resources.caching import CacheKeyError
from aetherflow.resources.lending import PoolTimeoutError

MAKERS: list[Callable[[], AetherFlowError]] = [
    lambda: NodeTimeoutError("n", 1.5),
    lambda: MissingInputError("f", "n", "p", ["a"]),
    lambda: StreamError("n", "is closed"),
    lambda: NotAStreamError("f", 3),
    lambda: SplitError("n", 3),
    lambda: ResourceError("r", "a loop", "another loop", "wait"),
    lambda: CacheKeyError("c", "argument 'x'", [], "a tuple"),
    lambda: PoolTimeoutError("p", 1.0, 2, 3.0, ("file", 4)),
    lambda: NotPicklableError("n", "the result", 3, "no"),
    lambda: NotUnpicklableError("n", "the result", KeyError("x")),
    lambda: RemoteError("a.B", "no"),
    lambda: WorkerLostError("n", "process", "gone"),
]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: type(make()).__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_can_be_pickled(make: Callable[[], AetherFlowError], protocol: int) -> None:
    """With its message, its attributes and its notes."""
    error = make()
    error.add_note("a note")
    copy = pickle.loads(pickle.dumps(error, protocol))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.__dict__.keys() == error.__dict__.keys()
    assert copy.__notes__ == ["a note"]
