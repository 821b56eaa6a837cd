"""What nodes are injected with, kept apart and shared as its provider says."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dependency_injector import providers
from dependency_injector.wiring import Provide

from aetherflow import BaseFlowContext, node


@node
def begin(number: int, state: dict[str, Any]) -> int:
    state["number"] = number
    return number


@node
def finish(begin: int, state: dict[str, Any]) -> tuple[int, int, int]:
    return begin, state["number"], threading.get_ident()


def test_two_hundred_runs_on_sixteen_threads_keep_their_state_apart() -> None:
    """Thread-local state of one run is never seen by another, whatever runs at once."""
    context = BaseFlowContext()
    flow = begin >> finish
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda number: flow.run({"number": number}, context), range(200)))
    assert [first for first, _, _ in found] == [second for _, second, _ in found] == list(range(200))


class Service:
    """Tells how often it was made."""

    made = 0

    def __init__(self) -> None:
        type(self).made += 1


def test_each_kind_of_provider_gives_what_it_promises() -> None:
    """Singletons are one, factories many, objects and configuration as given."""

    class Context(BaseFlowContext):
        one = providers.Singleton(object)
        many = providers.Factory(object)
        fixed = providers.Object(42)
        config = providers.Configuration(default={"limit": 7})

    @node
    def take(one: object, many: object, fixed: int, config: dict[str, int]) -> tuple[Any, ...]:
        return one, many, fixed, config["limit"]

    context = Context()
    first, second = take.run({}, context), take.run({}, context)
    assert first[0] is second[0]
    assert first[1] is not second[1]
    assert first[2:] == (42, 7)


def test_a_provide_default_is_filled_from_the_context_at_hand() -> None:
    """``Provide[…]`` defaults name a provider, whatever the parameter's own name."""

    class Context(BaseFlowContext):
        limit = providers.Object(3)

    @node
    def take(bound: int = Provide[Context.limit]) -> int:
        return bound

    context = Context()
    assert take.run({}, context) == 3
    with context.limit.override(providers.Object(4)):
        assert take.run({}, context) == 4


def test_resources_open_before_the_run_that_needs_them_and_close_with_the_context() -> None:
    """A resource is opened by the first run that needs it, once, and closed by ``with``."""
    seen: list[str] = []

    def connection() -> Iterator[str]:
        seen.append("open")
        yield "connection"
        seen.append("close")

    class Context(BaseFlowContext):
        db = providers.Resource(connection)

    @node
    def query(db: str) -> str:
        seen.append("query")
        return db

    @node
    def nothing() -> None:
        seen.append("nothing")

    with Context() as context:
        nothing.run({}, context)
        assert query.run({}, context) == query.run({}, context) == "connection"
    assert seen == ["nothing", "open", "query", "query", "close"]


def test_an_input_in_place_of_a_resource_keeps_it_closed() -> None:
    """What is not injected is not opened: a test that gives a fake needs no database."""
    opened: list[str] = []

    class Context(BaseFlowContext):
        db = providers.Resource(opened.append, "open")

    @node
    def query(db: str) -> str:
        return db

    assert query.run({"db": "fake"}, Context()) == "fake"
    assert opened == []


def test_an_override_by_a_resource_is_opened_before_the_run() -> None:
    """Even an asynchronous one in place of a plain singleton, after the flow was planned for that."""

    async def connection() -> AsyncIterator[str]:
        yield "resource"

    class Context(BaseFlowContext):
        service = providers.Singleton(str, "plain")

    @node
    def take(service: str) -> str:
        return service

    context = Context()
    assert take.run({}, context) == "plain"
    with context.service.override(providers.Resource(connection)):
        assert take.run({}, context) == "resource"
    assert take.run({}, context) == "plain"
