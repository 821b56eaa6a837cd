"""A source of `run_many` that fails: the outputs of the inputs before the failure come first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.stubborn_errors import FalseError, FrozenError, WithoutTruthError

from aetherflow import BatchPolicy, Node, node

Flow = Node[..., Any]


@node
def same(x: int) -> int:
    return x


@node(batch=BatchPolicy(size=3, max_wait=60.0))
def batched(xs: list[int]) -> list[int]:
    return xs


@node(name="batched", batch=BatchPolicy(size=3, max_wait=1e-9))
def batched_soon(xs: list[int]) -> list[int]:
    return xs


FLOWS: dict[str, Flow] = {"one by one": same, "in chunks": batched, "through a batch": same >> batched_soon}
flows = pytest.mark.parametrize("flow", FLOWS)
orders = pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "as ready"])
SOURCE_FAILED = "aetherflow: the source of the inputs failed too: LookupError: broken"


def source(length: int, error: BaseException) -> Iterator[int]:
    yield from range(length)
    raise error


def received(outputs: Iterator[Any]) -> tuple[list[Any], BaseException | None]:
    """Return the outputs and the exception that follows them."""
    items: list[Any] = []
    try:
        for output in outputs:
            items.append(output)  # noqa: PERF402  # a copy would lose the outputs before the exception
    except BaseException as error:  # noqa: BLE001  # what the tests look at
        return items, error
    return items, None


@flows
@orders
@pytest.mark.parametrize("progress", [False, True], ids=["plain", "progress"])
@pytest.mark.parametrize("length", [0, 1, 2, 7])
def test_outputs_come_before_the_error_of_the_source(flow: str, ordered: bool, progress: bool, length: int) -> None:
    """With fewer inputs than workers, or than a batch holds, all of them give outputs; then the error is raised."""
    error = LookupError("broken")
    outputs = FLOWS[flow].run_many(source(length, error), ordered=ordered, progress=progress)
    items, failure = received(outputs)
    assert (sorted(items), failure) == (list(range(length)), error)
    assert items == sorted(items) or not ordered


@settings(max_examples=40)
@given(
    length=st.integers(0, 12),
    fails_at=st.none() | st.integers(0, 12),
    workers=st.none() | st.integers(1, 5),
    ordered=st.booleans(),
    flow=st.sampled_from(sorted(FLOWS)),
)
def test_the_outputs_are_those_of_the_inputs_before_the_failure(
    length: int, fails_at: int | None, workers: int | None, ordered: bool, flow: str
) -> None:
    """Whatever the length of the source, the place of its failure and the number of workers."""
    error = LookupError("broken")

    def inputs() -> Iterator[int]:
        for index in range(length):
            if index == fails_at:
                raise error
            yield index

    is_broken = fails_at is not None and fails_at < length
    items, failure = received(FLOWS[flow].run_many(inputs(), max_workers=workers, ordered=ordered))
    assert (items if ordered else sorted(items)) == list(range(fails_at if is_broken else length))
    assert failure is (error if is_broken else None)


@pytest.mark.parametrize("flow", ["one by one", "after a batch", "before a batch"])
@orders
def test_a_run_that_fails_comes_before_the_source_and_notes_its_error(flow: str, ordered: bool) -> None:
    """The error of the run is raised; a note says that the source has failed too."""

    @node
    def fails(x: int) -> int:
        raise KeyError(x)

    failing = {"one by one": fails, "after a batch": batched_soon >> fails, "before a batch": fails >> batched_soon}
    items, failure = received(failing[flow].run_many(source(1, LookupError("broken")), ordered=ordered))
    assert (items, type(failure)) == ([], KeyError)
    assert failure is not None
    assert SOURCE_FAILED in failure.__notes__


def test_a_failing_batch_notes_the_error_of_the_source() -> None:
    """A run that fails in a batch with others says that the source has failed too."""

    @node(batch=BatchPolicy(size=3, max_wait=60.0))
    def fails(xs: list[int]) -> list[int]:
        raise KeyError(len(xs))

    _, failure = received(fails.run_many(source(2, LookupError("broken"))))
    assert failure is not None
    assert SOURCE_FAILED in failure.__notes__


@orders
def test_an_interruption_in_the_source_is_raised_immediately(ordered: bool) -> None:
    """`KeyboardInterrupt` does not wait for the consumer, only for the runs that have begun."""
    start, release, end = threading.Event(), threading.Event(), threading.Event()

    @node
    def waits(x: int) -> int:
        start.set()
        assert release.wait(30)
        end.set()
        return x

    def interrupted() -> Iterator[int]:
        yield 1
        assert start.wait(30)
        release.set()
        raise KeyboardInterrupt

    items, failure = received(waits.run_many(interrupted(), max_workers=2, ordered=ordered))
    assert (items, type(failure)) == ([], KeyboardInterrupt)
    assert end.is_set()


@flows
@orders
def test_a_consumer_that_closes_early_does_not_see_the_error(flow: str, ordered: bool) -> None:
    """The rest of a source that has failed is dropped with the rest of the outputs."""
    outputs: Any = FLOWS[flow].run_many(source(3, LookupError("broken")), ordered=ordered)
    next(outputs)
    outputs.close()
    assert received(outputs) == ([], None)


@orders
def test_a_source_can_be_read_on_after_an_early_close(ordered: bool) -> None:
    """A generator is not closed by a consumer that has enough outputs."""
    inputs = (index for index in range(100))
    outputs: Any = same.run_many(inputs, max_workers=2, ordered=ordered)
    next(outputs)
    outputs.close()
    assert next(inputs) < 99


@flows
@orders
@pytest.mark.parametrize("kind", [FalseError, FrozenError, WithoutTruthError])
def test_a_stubborn_error_of_the_source_arrives_as_itself(
    flow: str, ordered: bool, kind: Callable[[int], BaseException]
) -> None:
    """An exception that is false, or refuses changes, is neither lost nor replaced."""
    error = kind(7)
    items, failure = received(FLOWS[flow].run_many(source(2, error), ordered=ordered))
    assert sorted(items) == [0, 1]
    assert failure is error


@orders
@pytest.mark.parametrize("kind", [FalseError, FrozenError, WithoutTruthError])
def test_a_stubborn_error_of_a_run_arrives_as_itself(ordered: bool, kind: Callable[[int], BaseException]) -> None:
    """Neither the thread pool nor the note on the source's error replaces it."""
    error = kind(7)

    @node
    def fails(x: int) -> int:
        raise error

    _, failure = received(fails.run_many(source(1, LookupError("broken")), ordered=ordered))
    assert failure is error


@flows
def test_a_stop_within_a_source_is_an_error_or_its_end(flow: str) -> None:
    """As in Python, a generator that raises `StopIteration` has failed, an iterator that does has ended."""

    class Two(Iterator[int]):
        def __init__(self) -> None:
            self.items = iter(range(2))

        def __next__(self) -> int:
            return next(self.items)

    items, failure = received(FLOWS[flow].run_many(source(2, StopIteration())))
    assert (items, type(failure)) == ([0, 1], RuntimeError)
    assert received(FLOWS[flow].run_many(Two())) == ([0, 1], None)
