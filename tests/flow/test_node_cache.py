"""Cached nodes: what the key is made of, what the span says, and what goes together with what."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import pytest
from dependency_injector import providers
from dependency_injector.wiring import Provide

from aetherflow import (
    BaseFlowContext,
    CacheKeyError,
    CachePolicy,
    ConfigurationError,
    NodeTimeoutError,
    NotCachedError,
    RetryPolicy,
    node,
)
from aetherflow.telemetry.conventions import NODE_CACHE_HIT, NODE_NAME
from aetherflow.testing import CapturedTelemetry, FakeClock


class Calls(list[Any]):
    """What a function was called with."""


@pytest.fixture
def calls() -> Calls:
    return Calls()


# --- the key -----------------------------------------------------------------------------------------------


def test_arguments_are_the_key_however_they_are_given(calls):
    """By place, by name, by a run or left to their defaults: the same values are the same execution."""

    @node(cache=CachePolicy())
    def add(a: int, b: int = 2, *, c: int = 3) -> int:
        calls.append((a, b, c))
        return a + b + c

    results = [add(1), add(1, 2), add(a=1), add(1, c=3), add.run(1), add.run({"a": 1, "c": 3})]
    assert results == [6] * 6
    assert calls == [(1, 2, 3)]
    assert add(1, c=4) == 7
    assert add(2) == 7
    assert len(calls) == 3


def test_variadic_arguments_are_in_the_key(calls):
    """What a function takes by ``*`` and ``**`` tells executions apart too."""

    @node(cache=CachePolicy())
    def join(first: str, *others: str, **named: str) -> str:
        calls.append(first)
        return first + "".join(others) + "".join(sorted(named.values()))

    assert [join("a"), join("a", "b"), join("a", c="b"), join("a", d="b"), join("a", "b")] == ["a", *["ab"] * 4]
    assert len(calls) == 4


def test_an_argument_without_a_hash_is_refused():
    """The error names the node, the argument, its type and the way out, and nothing was executed."""

    @node(cache=CachePolicy())
    def total(rows: list[int], factor: int = 1) -> int:
        raise AssertionError("executed")

    with pytest.raises(CacheKeyError, match=r"'total': argument 'rows' is a list, .*CachePolicy\(key="):
        total.run({"factor": 2, "rows": [1]})


def test_a_key_function_gets_the_arguments(calls):
    """With ``key=`` the result is found by what that gives; arguments need no hash then."""

    @node(cache=CachePolicy(key=lambda rows, factor=1: (len(rows), factor)))
    def total(rows: list[int], factor: int = 1) -> int:
        calls.append(rows)
        return sum(rows) * factor

    assert [total([1, 2]), total([3, 4]), total([3, 4], factor=2)] == [3, 3, 14]
    assert total.cache.invalidate([0, 0])
    assert total([3, 4]) == 7


def test_a_key_without_a_hash_is_refused():
    """What a key function gives must have a hash."""

    @node(cache=CachePolicy(key=list))
    def total(rows: tuple[int, ...]) -> int:
        return sum(rows)

    with pytest.raises(CacheKeyError, match=r"the result of CachePolicy\(key=…\) is a list"):
        total((1, 2))


# --- what is injected --------------------------------------------------------------------------------------


class Database:
    __hash__ = None  # type: ignore[assignment]  # so that a key with it in it would fail

    def __init__(self) -> None:
        self.asked: list[int] = []

    def find(self, number: int) -> int:
        self.asked.append(number)
        return number * 10


class Context(BaseFlowContext):
    database = providers.ThreadLocalSingleton(Database)


@node(cache=CachePolicy())
def by_name(number: int, database: Database) -> int:
    return database.find(number)


@node(cache=CachePolicy())
def by_marker(number: int, database: Database = Provide["database"]) -> int:
    return database.find(number)


@node(cache=CachePolicy())
def by_annotation(number: int, database: Annotated[Database, Provide["database"]]) -> int:
    return database.find(number)


@node(cache=CachePolicy())
def by_name_or_default(number: int, database: Any = None) -> int:
    return -1 if database is None else database.find(number)


@pytest.mark.parametrize("lookup", [by_name, by_marker, by_annotation, by_name_or_default], ids=lambda node: node.name)
def test_what_is_injected_is_not_in_the_key(lookup):
    """An execution is found again on another thread, whatever was injected there, and is invalidated without it."""
    lookup.cache.clear()
    context = Context()
    assert lookup.run({"number": 1}, context) == 10
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(lookup.run, {"number": 1}, context).result() == 10
        assert threads.submit(lambda: context.database().asked).result() == []
    assert context.database().asked == [1]
    assert lookup.cache.invalidate(1)
    assert not lookup.cache.invalidate(number=1)
    lookup.run({"number": 1}, context)
    assert context.database().asked == [1, 1]


def test_what_is_injected_in_one_flow_and_given_in_another_is_told_apart():
    """A result computed from what was injected does not stand for one computed from an argument."""
    by_name_or_default.cache.clear()
    context = Context()
    assert by_name_or_default.run({"number": 1}, context) == 10
    assert by_name_or_default.run({"number": 1}) == -1
    assert by_name_or_default.cache.statistics().entries == 2
    assert by_name_or_default.cache.invalidate(1)
    assert by_name_or_default.cache.statistics().entries == 0


# --- what it goes together with ----------------------------------------------------------------------------


def test_a_flow_with_a_cached_node(calls):
    """A cached node is a node like any other: in flows, fan-outs and maps."""

    @node
    def numbers(n: int) -> list[int]:
        return [number % 3 for number in range(n)]

    @node(cache=CachePolicy())
    def square(number: int) -> int:
        calls.append(number)
        return number * number

    assert (numbers >> [square] * 4).run(30) == {f"square[{index}]": (index % 3) ** 2 for index in range(30)}
    assert sorted(calls) == [0, 1, 2]
    assert list(square.run_many(range(3))) == [0, 1, 4]
    assert square.cache.statistics().requests == 33
    assert len(calls) == 3


def test_an_async_node_is_cached(calls):
    """Tasks that miss at once share one execution, and sync runs use the same cache."""

    @node(cache=CachePolicy())
    async def fetch(url: str) -> str:
        calls.append(url)
        await asyncio.sleep(0)
        return url.upper()

    async def main() -> list[str]:
        return await asyncio.gather(*[fetch("a") for _ in range(5)], fetch.arun({"url": "a"}))

    assert asyncio.run(main()) == ["A"] * 6
    assert fetch.run({"url": "a"}) == "A"
    assert calls == ["a"]
    statistics = fetch.cache.statistics()
    assert (statistics.hits, statistics.misses, statistics.coalesced) == (1, 1, 5)


def test_a_pool_full_of_waiting_threads_gets_on():
    """Where every thread of the pool waits for one computation that needs a thread itself, it gets one."""

    @node
    def begin() -> list[int]:
        return list(range(40))

    @node
    def part(n: int) -> int:
        return n

    @node
    async def several(n: int) -> int:
        return sum(await asyncio.gather(*[part.arun({"n": number}) for number in range(10)]))

    started = threading.Event()

    @node(cache=CachePolicy())
    def heavy(name: str) -> int:
        started.set()
        while heavy.cache._cache.here()._flights["heavy",] and len(waiters()) < 8:  # all threads of the pool wait
            pass
        return several.run({"n": 1})

    def waiters() -> list[Any]:
        return heavy.cache._cache.here()._flights["heavy",].waiters

    @node
    def ask(n: int) -> int:
        return heavy("heavy")

    leader = threading.Thread(target=heavy, args=("heavy",))
    leader.start()
    started.wait()
    results = begin.map(ask).run()
    leader.join()
    assert results == [45] * 40


def test_methods_are_cached_by_their_object(calls):
    """Each object has results of its own, and invalidates its own."""

    class Shelf:
        def __init__(self, name: str) -> None:
            self.name = name

        @node(cache=CachePolicy())
        def label(self, number: int) -> str:
            calls.append(number)
            return f"{self.name}{number}"

        @classmethod
        @node(cache=CachePolicy())
        def size(cls, number: int) -> int:
            calls.append(number)
            return number

    a, b = Shelf("a"), Shelf("b")
    assert [a.label(1), b.label(1), a.label.run({"number": 1})] == ["a1", "b1", "a1"]
    assert len(calls) == 2
    assert a.label.cache.invalidate(1)
    assert (a.label(1), b.label(1)) == ("a1", "b1")
    assert len(calls) == 3
    assert [Shelf.size(5), a.size(5)] == [5, 5]
    assert len(calls) == 4


def test_a_hit_is_not_retried_and_an_error_is(calls):
    """The cache is in front of retries: what comes out of them is kept."""

    @node(cache=CachePolicy(), retry=RetryPolicy(on=OSError, sleep=lambda seconds: None))
    def flaky(name: str) -> str:
        calls.append(name)
        if len(calls) < 3:
            raise OSError
        return name

    assert [flaky("a"), flaky("a")] == ["a", "a"]
    assert len(calls) == 3


def test_a_time_limit_is_an_error_like_any_other():
    """An execution that is late is not kept."""
    go = threading.Event()

    @node(cache=CachePolicy(), timeout=0.001)
    def slow(name: str) -> str:
        go.wait()
        return name

    with pytest.raises(NodeTimeoutError):
        slow("a")
    go.set()
    assert slow.cache.statistics().entries == 0


def test_errors_are_kept_where_asked(calls):
    """With ``cache_errors`` a failure is raised again without executing, until it has had its time."""
    clock = FakeClock()

    @node(cache=CachePolicy(cache_errors=True, ttl=10, clock=clock.monotonic))
    def fail(name: str) -> str:
        calls.append(name)
        raise KeyError(name)

    for expected in (1, 1, 2):
        with pytest.raises(KeyError):
            fail("a")
        assert len(calls) == expected
        clock.advance(5)


def test_a_cache_a_thread(calls):
    """With the scope ``thread`` each thread executes for itself."""

    @node(cache=CachePolicy(scope="thread"))
    def load(name: str) -> int:
        calls.append(name)
        return threading.get_ident()

    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(load, "a").result() == threads.submit(load, "a").result() != load("a")
    assert len(calls) == 2


def test_another_name_is_the_same_cache():
    """A node under another name shares what its function gave."""

    @node(cache=CachePolicy())
    def load(name: str) -> object:
        return object()

    assert load.named("other")("a") is load("a")
    assert load.named("other").cache.statistics() == load.cache.statistics()


# --- what is refused ---------------------------------------------------------------------------------------


def test_a_generator_is_refused():
    """The items of a generator could be taken only once."""

    def items() -> Iterator[int]:
        yield 1

    async def items_apart():
        yield 1

    for func in (items, items_apart):
        with pytest.raises(ConfigurationError, match=f"'{func.__name__}' is a generator.* on functions only"):
            node(cache=CachePolicy())(func)


def test_another_process_is_refused():
    """A worker does not reach the cache, whether the node or a fan-out around it names the executor."""
    match = r"has a cache or a batcher in this process.*executor='process' is allowed on nodes without cache="
    with pytest.raises(ConfigurationError, match=match):
        node(cache=CachePolicy(), executor="process")(len)
    flow = node(name="source")(list).map(node(cache=CachePolicy(), name="size")(len), executor="process")
    with pytest.raises(ConfigurationError, match=match):
        flow.run([1])


def test_a_policy_that_is_none_is_refused():
    """Anything but a policy is refused with what is allowed."""
    with pytest.raises(ConfigurationError, match=r"node 'len': cache=60; allowed is CachePolicy\(…\) or None"):
        node(cache=60)(len)


def test_a_node_without_a_cache_says_so():
    """Asking a node for a cache that it does not have is an error that says how to get one."""
    plain = node(len)
    assert not hasattr(plain, "cache")
    with pytest.raises(NotCachedError, match=r"node 'len' has no cache; decorate it with @node\(cache="):
        plain.cache.clear()


# --- what the span says ------------------------------------------------------------------------------------


def test_the_span_says_whether_it_was_a_hit():
    """Each execution has a span, and only those of cached nodes say whether the result was there."""

    @node(cache=CachePolicy())
    def square(number: int) -> int:
        return number * number

    @node
    def plain(number: int) -> int:
        return number

    with CapturedTelemetry() as captured:
        square(2)
        square(2)
        (plain >> square).run(3)
    hits = [
        (span.attributes[NODE_NAME], span.attributes.get(NODE_CACHE_HIT))
        for span in captured.spans
        if NODE_NAME in span.attributes
    ]
    assert hits == [("square", False), ("square", True), ("plain", None), ("square", False)]


async def test_who_waited_for_another_had_no_hit():
    """An execution that took the result of another one that was under way did not find it in the cache."""

    @node(cache=CachePolicy())
    async def square(number: int) -> int:
        await asyncio.sleep(0)
        return number * number

    with CapturedTelemetry() as captured:
        await asyncio.gather(square(2), square(2))
    assert [span.attributes[NODE_CACHE_HIT] for span in captured.spans] == [False, False]
