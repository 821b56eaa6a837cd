"""A retried node never gets only the remainder of a stream."""

from __future__ import annotations

import asyncio
import io
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.trace import StatusCode

from aetherflow.errors import StreamError
from aetherflow.flow.decorating import node
from aetherflow.flow.node import Node
from aetherflow.flow.policies import RetryPolicy
from aetherflow.testing import CapturedTelemetry


async def no_wait(seconds: float) -> None: ...


POLICY = RetryPolicy(on=ConnectionError, attempts=3, sleep=lambda _: None, async_sleep=no_wait)


@node
def numbers(n: int) -> Iterator[int]:
    yield from range(n)


@node
async def numbers_apart(n: int) -> Any:
    for number in range(n):
        yield number


def total(fail_at: int | None, failures: int = 1, *, policy: RetryPolicy = POLICY) -> Node[..., int]:
    """A node that adds up a stream; it fails at an item, or before the first one."""
    errors = [ConnectionError("flaky sink") for _ in range(failures)]

    @node(retry=policy)
    def total(numbers: Any) -> int:
        if fail_at is None and errors:
            raise errors.pop()
        result = 0
        for number in numbers:
            result += number
            if number == fail_at and errors:
                raise errors.pop()
        return result

    return total


def total_apart(fail_at: int) -> Node[..., Any]:
    errors = [ConnectionError("flaky sink")]

    @node(name="total", retry=POLICY)
    async def total(numbers: Any) -> int:
        result = 0
        async for number in numbers:
            result += number
            if number == fail_at and errors:
                raise errors.pop()
        return result

    return total


def run(flow: Node[..., Any]) -> Any:
    return flow.run({"n": 10})


def arun(flow: Node[..., Any]) -> Any:
    return asyncio.run(flow.arun({"n": 10}))


both_ways = pytest.mark.parametrize("way", [run, arun])


@both_ways
@pytest.mark.parametrize("source", [numbers, numbers_apart], ids=lambda source: source.name)
def test_a_second_attempt_with_a_stream_that_was_read_is_refused(
    source: Node[..., Any], way: Callable[..., Any]
) -> None:
    """The error names both nodes and the remedy, its cause is the node's error, and the span has the status ERROR."""
    step = total(5) if source is numbers or way is run else total_apart(5)
    with CapturedTelemetry() as captured, pytest.raises(StreamError) as raised:
        way(source.named("numbers") >> step)
    assert "the stream of node 'numbers' cannot be read again: an attempt of node 'total'" in str(raised.value)
    assert isinstance(raised.value.__cause__, ConnectionError)
    (span,) = captured.spans_named("total")
    assert span.status.status_code is StatusCode.ERROR


@both_ways
def test_a_stream_that_was_not_read_is_whole_for_the_next_attempt(way: Callable[..., Any]) -> None:
    """A failure before the first item costs nothing."""
    assert way(numbers >> total(None, failures=2)) == 45


@both_ways
def test_the_error_of_the_last_attempt_stays_what_it_is(way: Callable[..., Any]) -> None:
    """Without another attempt there is nothing to refuse."""
    policy = RetryPolicy(on=ConnectionError, attempts=1)
    with pytest.raises(ConnectionError):
        way(numbers >> total(5, policy=policy))


def test_an_error_that_is_not_retried_stays_what_it_is() -> None:
    """Nor is there here."""
    policy = RetryPolicy(on=TimeoutError, attempts=3)
    with pytest.raises(ConnectionError):
        run(numbers >> total(5, policy=policy))


def test_a_stream_among_the_results_of_a_fan_out_counts() -> None:
    """Results are searched one level deep."""
    errors = [ConnectionError()]

    @node(retry=POLICY)
    def total(parallel_results: dict[str, Any]) -> int:
        first = next(parallel_results["numbers"])
        if errors:
            raise errors.pop()
        return first + sum(parallel_results["numbers"])

    with pytest.raises(StreamError, match="'numbers'"):
        run(node(lambda n: n, name="source") >> [numbers, node(lambda n: n, name="other")] >> total)


class Counter:
    """An iterator with more than iteration."""

    def __init__(self) -> None:
        self.count = -1

    def __iter__(self) -> Counter:
        return self

    def __next__(self) -> int:
        self.count += 1
        if self.count == 10:
            raise StopIteration
        return self.count

    def describe(self) -> str:
        """Return a text, as readers of files do with a dialect."""
        return str(self.count)


ITERATORS: dict[str, Callable[[], Any]] = {
    "generator": lambda: (number for number in range(10)),
    "map": lambda: map(int, range(10)),
    "list iterator": lambda: iter(list(range(10))),
    "chain": lambda: itertools.chain(range(10)),
    "object with methods of its own": Counter,
}


@pytest.mark.parametrize("make", ITERATORS.values(), ids=ITERATORS)
def test_an_iterator_as_an_input_counts(make: Callable[[], Any]) -> None:
    """An iterator of any origin can be read only once."""
    with pytest.raises(StreamError, match="passed to node 'total' cannot be read again"):
        total(5).run({"numbers": make()})


def test_a_generator_that_was_not_read_is_whole_for_the_next_attempt() -> None:
    """A generator shows whether it was read."""
    assert total(None).run({"numbers": (number for number in range(10))}) == 45


def test_a_file_is_left_to_the_function() -> None:
    """It can go back to the beginning."""
    errors = [ConnectionError()]

    @node(retry=POLICY)
    def lines(file: io.StringIO) -> int:
        file.seek(0)
        count = len(list(file))
        if errors:
            raise errors.pop()
        return count

    assert lines.run({"file": io.StringIO("a\nb\n")}) == 2


def test_a_list_is_read_again() -> None:
    """The documented remedy."""
    assert run(numbers.named("source") >> node(list, name="numbers") >> total(5)) == 45


def test_a_generator_deep_in_containers_counts() -> None:
    """As in the results of a fan-out of fan-outs."""
    failures_to_come = [ConnectionError()]

    @node(retry=POLICY)
    def total(nested: Any) -> int:
        first = next(nested["a"][0]["b"])
        if failures_to_come:
            raise failures_to_come.pop()
        return first

    with pytest.raises(StreamError, match="'total'"):
        total.run({"nested": {"a": [{"b": iter(range(3))}]}})


def test_a_container_that_holds_itself_is_searched_to_an_end() -> None:
    """The search has a limit."""
    endless: list[Any] = [1]
    endless.append(endless)
    assert total_of_anything().run({"numbers": endless}) == 2


def total_of_anything() -> Node[..., int]:
    failures_to_come = [ConnectionError()]

    @node(retry=POLICY)
    def total(numbers: Any) -> int:
        if failures_to_come:
            raise failures_to_come.pop()
        return len(numbers)

    return total
