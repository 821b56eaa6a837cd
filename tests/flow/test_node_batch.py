"""Batched nodes: one item a call, whoever calls and however, and what goes together with what."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from dependency_injector import providers

from aetherflow import (
    BaseFlowContext,
    BatchItemError,
    BatchPolicy,
    BatchResultError,
    CachePolicy,
    ConfigurationError,
    Failure,
    MissingInputError,
    Node,
    NodeTimeoutError,
    NotBatchedError,
    RetryPolicy,
    node,
)
from aetherflow.engine.pool import default_pool
from aetherflow.testing import FakeClock

LONG = 60.0
"""Seconds that nobody waits in a test: what is not full by then would time the test out."""

SHORT = 0.01


@pytest.fixture
def calls() -> list[Any]:
    """What a function was called with."""
    return []


def doubling(calls: list[Any], *, is_async: bool = False, size: int = 10, **options: Any) -> Node[[int], int]:
    """Return a batched node that doubles numbers, fails on negative ones, and keeps the sizes of its batches."""

    def double(items: list[int]) -> list[int | BatchItemError]:
        calls.append(len(items))
        return [item * 2 if item >= 0 else BatchItemError(f"{item} is negative") for item in items]

    async def double_apart(items: list[int]) -> list[int | BatchItemError]:
        await asyncio.sleep(0)
        return double(items)

    policy = BatchPolicy(size=size, max_wait=options.pop("max_wait", LONG))
    return node(batch=policy, name="double", **options)(double_apart if is_async else double)  # type: ignore[arg-type]


@node
def numbers(n: int) -> list[int]:
    return list(range(n))


def until(condition: Callable[[], object]) -> None:
    """Let other threads run until ``condition`` holds."""
    while not condition():
        time.sleep(0)


def sync_run(flow: Node[..., Any, Any], value: object) -> Any:
    return flow.run(value)


def async_run(flow: Node[..., Any, Any], value: object) -> Any:
    return asyncio.run(flow.arun(value))


both = pytest.mark.parametrize("is_async", [False, True], ids=["function", "coroutine function"])


# --- one item a call ---------------------------------------------------------------------------------------


def test_a_call_gives_an_item_and_gets_its_result(calls):
    """By place, by name, or by a run of any kind: one item in, its result out."""
    double = doubling(calls, size=1)
    assert [double(1), double(items=2), double.run(3), double.run({"items": 4})] == [2, 4, 6, 8]
    assert double.execute(5).output == 10
    assert asyncio.run(double.arun(6)) == 12
    assert double.func([1, 2]) == [2, 4]


def test_a_coroutine_function_is_awaited(calls):
    """A call gives a coroutine; a sync run awaits it."""
    double = doubling(calls, size=1, is_async=True)

    async def main() -> int:
        return await double(1)

    assert asyncio.run(main()) == 2
    assert double.run(2) == 4


@both
def test_calls_of_threads_become_a_batch(calls, is_async):
    """Threads that call at once get their own results of one call."""
    double = doubling(calls, size=4, is_async=is_async)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(double.run, range(4))) == [0, 2, 4, 6]
    assert calls == [4]


@both
async def test_runs_of_tasks_become_a_batch(calls, is_async):
    """Tasks that run it at once get their own results of one call, without a thread each."""
    double = doubling(calls, size=100, is_async=is_async)
    assert await asyncio.gather(*[double.arun(item) for item in range(100)]) == [item * 2 for item in range(100)]
    assert calls == [100]


def test_the_items_of_tasks_are_not_done_on_their_loop(calls):
    """A function that is not awaited runs on a thread of the pool, so that the loop goes on."""
    threads = []

    @node(batch=BatchPolicy(size=2, max_wait=LONG))
    def where(items: list[int]) -> list[int]:
        threads.append(threading.current_thread().name)
        return items

    async def main() -> None:
        await asyncio.gather(where.arun(1), where.arun(2))

    asyncio.run(main())
    assert threads[0].startswith("aetherflow-")


def test_settings_are_read_when_the_first_item_comes(calls, monkeypatch):
    """A policy without limits takes those of the environment, though that is set after the decoration."""

    @node(batch=BatchPolicy())
    def same(items: list[int]) -> list[int]:
        return items

    monkeypatch.setenv("AETHER_BATCH_SIZE", "1")
    assert same(1) == 1
    assert same.batcher.statistics().size == 1


# --- in flows ----------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("run", [sync_run, async_run])
def test_a_map_gives_its_elements_together(calls, is_async, run):
    """A map fills batches with its elements, which begin immediately; the last ones wait for those of other callers."""
    double = doubling(calls, is_async=is_async)
    assert run(numbers.map(double), 20) == [item * 2 for item in range(20)]
    assert calls == [10, 10]
    with ThreadPoolExecutor(1) as threads:
        results = threads.submit(run, numbers.map(double), 25)
        until(lambda: double.batcher.statistics().waiting == 5)
        assert calls == [10] * 4
        double.batcher.flush()
        assert results.result() == [item * 2 for item in range(25)]
    assert calls == [*[10] * 4, 5]


@both
@pytest.mark.parametrize("run", [sync_run, async_run])
def test_a_map_over_more_than_the_node_fills_batches_too(calls, is_async, run):
    """Where the batched node is one of several in the body, its executions still meet, more than there are threads."""

    @node
    def successor(number: int) -> int:
        return number + 1

    @node
    def text(number: int) -> str:
        return str(number)

    double = doubling(calls, is_async=is_async)
    assert run(numbers.map(successor >> double >> text), 20) == [str(item * 2) for item in range(1, 21)]
    assert calls == [10, 10]


def test_a_partitioned_fan_out_gives_its_elements_together(calls):
    """`[n] * k` over a batched node is as a map, keyed."""
    double = doubling(calls, size=6)
    assert (numbers >> [double] * 4).run(12) == {f"double[{item}]": item * 2 for item in range(12)}
    assert calls == [6, 6]


def test_a_map_over_nothing(calls):
    """No elements are no batch."""
    assert numbers.map(doubling(calls)).run(0) == []
    assert calls == []


@node
def signed(n: int) -> list[int]:
    return [item if item % 4 else -1 for item in range(1, n + 1)]


def test_an_error_in_a_map_is_that_of_its_element(calls):
    """Failures are raised together, and no further batch begins; or they are results where that is asked for."""
    double = doubling(calls, size=4)
    with pytest.raises(BatchItemError, match=r"^-1 is negative"):
        signed.map(double).run(12)
    assert calls == [4]
    results = signed.map(double, on_error="collect").run(8)
    assert [type(result) for result in results] == [int, int, int, Failure] * 2


def test_run_many_fills_batches(calls):
    """Runs over many inputs give items together, in order, with what is wrong with one of them in its place."""
    double = doubling(calls)
    assert list(double.run_many(range(25))) == [item * 2 for item in range(25)]
    assert sorted(calls) == [5, 10, 10]
    outputs = double.run_many([1, 2, -3, 4])
    assert [next(outputs), next(outputs)] == [2, 4]
    with pytest.raises(BatchItemError):
        next(outputs)


def test_run_many_fails_where_an_input_is_missing():
    """What is wrong with one input is raised in its place."""

    @node(batch=BatchPolicy(size=3, max_wait=LONG))
    def scale(items: list[int], factor: int) -> list[int]:
        return [item * factor for item in items]

    outputs = scale.run_many([{"items": 1, "factor": 2}, {"items": 1}, {"items": 2, "factor": 2}])
    assert next(outputs) == 2
    with pytest.raises(MissingInputError):
        next(outputs)


def test_run_many_as_they_are_ready(calls):
    """Unordered runs come a batch at a time."""
    double = doubling(calls)
    assert sorted(double.run_many(range(25), ordered=False)) == [item * 2 for item in range(25)]
    assert sorted(calls) == [5, 10, 10]


def test_run_many_has_no_more_in_flight_than_it_may(calls):
    """With a limit of workers, a batch holds as many items at most."""
    assert list(doubling(calls, max_wait=SHORT).run_many(range(10), max_workers=4)) == [item * 2 for item in range(10)]
    assert sorted(calls) == [2, 4, 4]


def test_run_many_takes_no_more_than_it_needs(calls):
    """The source is taken from as batches are consumed, and not to its end."""
    taken = []

    def endless() -> Iterator[int]:
        for item in range(10**9):
            taken.append(item)
            yield item

    outputs = doubling(calls).run_many(endless())
    assert [next(outputs) for _ in range(3)] == [0, 2, 4]
    outputs.close()  # type: ignore[attr-defined]  # it is a generator
    assert len(taken) <= 10 * (default_pool().size + 1)


def test_run_many_looks_at_the_time_when_an_input_arrives():
    """Inputs that have waited for ``max_wait`` on the policy's clock go with the next one that arrives."""
    clock = FakeClock()
    calls: list[list[int]] = []

    @node(batch=BatchPolicy(size=10, max_wait=5, clock=clock.monotonic))
    def same(items: list[int]) -> list[int]:
        calls.append(items)
        return items

    def source() -> Iterator[int]:
        for number in range(6):
            yield number
            clock.advance(2)  # seconds until the next one

    assert list(same.run_many(source(), max_workers=10)) == list(range(6))
    assert calls == [[0, 1, 2, 3], [4, 5]]


def test_run_many_of_a_flow_fills_batches(calls):
    """Runs of a flow with a batched node in it are in flight as many as fill a batch, more than there are threads."""

    @node
    def successor(number: int) -> int:
        return number + 1

    flow = successor >> doubling(calls, size=20)
    assert list(flow.run_many(range(40))) == [item * 2 for item in range(1, 41)]
    assert calls == [20, 20]


# --- other arguments ---------------------------------------------------------------------------------------


class Table:
    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def find(self, numbers: list[int]) -> list[str]:
        self.asked.append(numbers)
        return [f"row {number}" for number in numbers]


class Context(BaseFlowContext):
    shared = providers.Singleton(Table)
    own = providers.Factory(Table)


def test_what_is_injected_is_shared_by_a_batch():
    """Items meet in a batch where the same object is injected, and do not where each has one of its own."""

    @node(batch=BatchPolicy(size=3, max_wait=SHORT))
    def look_up(numbers: list[int], shared: Table) -> list[str]:
        return shared.find(numbers)

    @node(batch=BatchPolicy(size=3, max_wait=SHORT))
    def look_up_alone(numbers: list[int], own: Table) -> list[int]:
        own.find(numbers)
        return [len(found) for found in own.asked for _ in numbers]

    context = Context()
    assert numbers.map(look_up).run(5, context) == [f"row {number}" for number in range(5)]
    assert context.shared().asked == [[0, 1, 2], [3, 4]]
    assert numbers.map(look_up_alone).run(5, context) == [1] * 5


def test_methods_are_batched_by_their_object(calls):
    """Items of one object meet; the function gets its object, as class methods their class."""

    class Model:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        @node(batch=BatchPolicy(size=2, max_wait=SHORT))
        def predict(self, rows: list[int], *, offset: int = 0) -> list[int]:
            calls.append(len(rows))
            return [row * self.factor + offset for row in rows]

        @classmethod
        @node(batch=BatchPolicy(size=1))
        def name_of(cls, rows: list[int]) -> list[str]:
            return [f"{cls.__name__} {row}" for row in rows]

        @staticmethod
        @node(batch=BatchPolicy(size=1))
        def text(rows: list[int]) -> list[str]:
            return [str(row) for row in rows]

    twice, thrice = Model(2), Model(3)
    assert numbers.map(twice.predict).run(4) == [0, 2, 4, 6]
    assert calls == [2, 2]

    async def main() -> list[int]:
        return await asyncio.gather(*[model.predict.arun(1) for model in (twice, thrice, twice, thrice)])

    assert asyncio.run(main()) == [2, 3, 2, 3]
    assert calls == [2, 2, 2, 2]
    assert [twice.predict(1, offset=5), Model.predict(thrice, 1)] == [7, 3]
    assert [Model.name_of(1), twice.name_of(1), Model.text(1), twice.text.run(2)] == ["Model 1", "Model 1", "1", "2"]


# --- with other policies -----------------------------------------------------------------------------------


def test_a_retry_gives_its_item_again(calls):
    """An item that failed is given again, in a later batch; its neighbours are done."""

    def double(numbers: list[int]) -> list[int | OSError]:
        calls.append(numbers)
        return [OSError() if number == 1 and len(calls) == 1 else number * 2 for number in numbers]

    retry = RetryPolicy(on=OSError, wait_initial=0, wait_jitter=0)
    batched = node(batch=BatchPolicy(size=3, max_wait=SHORT), retry=retry)(double)
    assert numbers.map(batched).run(3) == [0, 2, 4]
    assert calls == [[0, 1, 2], [1]]


@both
def test_a_time_limit_holds_for_each_item(calls, is_async):
    """An item that waits or takes too long is an error of its caller; one that was not begun is dropped."""
    double = doubling(calls, is_async=is_async, timeout=SHORT)
    with pytest.raises(NodeTimeoutError):
        double.run(1)
    assert calls == []
    assert double.batcher.statistics().withdrawn == 1


def test_what_is_cached_is_not_given(calls):
    """The cache is in front: only what it does not have becomes part of a batch, once, by runs and tasks alike."""

    @node
    def repeated(n: int) -> list[int]:
        return [number % 3 for number in range(n)]

    double = doubling(calls, cache=CachePolicy(), max_wait=SHORT)
    assert repeated.map(double).run(9) == [0, 2, 4] * 3
    assert calls == [3]
    assert double.run(1) == 2
    assert asyncio.run(double.arun(2)) == 4
    statistics = double.cache.statistics()
    assert (statistics.misses, statistics.coalesced + statistics.hits) == (3, 8)


def test_statistics_and_flush(calls):
    """`node.batcher` tells what waits and what was, and can begin a batch before its time."""
    double = doubling(calls, size=2)
    thread = threading.Thread(target=double, args=(1,))
    thread.start()
    while not double.batcher.statistics().waiting:
        pass
    double.batcher.flush()
    thread.join()
    statistics = double.batcher.statistics()
    assert (statistics.name, statistics.ended, statistics.full) == ("double", 1, 0)


# --- what is refused ---------------------------------------------------------------------------------------


def test_a_result_that_does_not_fit_is_an_error(calls):
    """The error names the node, how many items there were, and what came."""

    @node(batch=BatchPolicy(size=1))
    def forget(items: list[int]) -> list[int]:
        return []

    with pytest.raises(BatchResultError, match="'forget': the function was given 1 items and returned 0 results"):
        forget(1)


def test_a_call_without_an_item_is_a_type_error(calls):
    """As for any function."""
    with pytest.raises(TypeError, match=r"double\(\) is missing its item, the argument 'items'"):
        doubling(calls)()  # type: ignore[call-arg]  # the point of the test


def nothing() -> list[int]:
    return []


def items(numbers: list[int]) -> Iterator[int]:
    yield from numbers


@pytest.mark.parametrize(
    ("func", "policy", "message"),
    [
        (len, 100, r"node 'len': batch=100; allowed is BatchPolicy\(…\) or None"),
        (nothing, BatchPolicy(), "node 'nothing' has no parameter for the items"),
        (items, BatchPolicy(), "node 'items' is a generator: batch= is allowed on functions only"),
    ],
)
def test_what_cannot_be_batched_is_refused(func, policy, message):
    """A function or policy that does not fit is refused at its decoration, by name."""
    with pytest.raises(ConfigurationError, match=message):
        node(batch=policy)(func)


def test_another_process_is_refused(calls):
    """A worker does not reach the batcher, whether the node or a fan-out around it names the executor."""
    match = "has a cache or a batcher in this process"
    with pytest.raises(ConfigurationError, match=match):
        doubling(calls, executor="process")
    with pytest.raises(ConfigurationError, match=match):
        numbers.map(doubling(calls), executor="process").run(3)


def test_a_node_without_batches_says_so():
    """Asking a node for a batcher that it does not have is an error that says how to get one."""
    with pytest.raises(NotBatchedError, match=r"node 'numbers' has no batcher; decorate it with @node\(batch="):
        numbers.batcher.flush()
    assert not hasattr(numbers, "batcher")
