"""Random pipelines give what plain generators give, item by item, and close what plain generators close."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aetherflow import Node, node


class BrokenError(Exception):
    """What a stage raises."""


@dataclass(frozen=True)
class Stage:
    """One stage: what it does with its items, and at which of them it fails."""

    action: str
    number: int
    fails_at: int | None
    is_async: bool

    def apply(self, items: Iterator[int], closed: list[str], name: str) -> Iterator[int]:
        """The stage as a plain generator, which says when it is closed."""
        try:
            for place, item in enumerate(items):
                if place == self.fails_at:
                    raise BrokenError(name)
                if self.action == "stop" and place == self.number:
                    return
                if self.action == "drop" and item % (self.number + 2) == 0:
                    continue
                yield item
                if self.action == "double":
                    yield item
        finally:
            closed.append(name)

    def node(self, closed: list[str], name: str) -> Node[..., Any]:
        """The same as a generator node of its kind."""

        async def apply_apart(items: AsyncIterator[int]) -> AsyncIterator[int]:
            try:
                place = 0
                async for item in items:
                    if place == self.fails_at:
                        raise BrokenError(name)
                    if self.action == "stop" and place == self.number:
                        return
                    place += 1
                    if self.action == "drop" and item % (self.number + 2) == 0:
                        continue
                    yield item
                    if self.action == "double":
                        yield item
            finally:
                try:
                    await asyncio.sleep(0)  # a stage that ends by itself may be cancelled here: its task is, not it
                finally:
                    closed.append(name)

        def apply(items: Iterator[int]) -> Iterator[int]:
            yield from self.apply(items, closed, name)

        made: Callable[..., Any] = apply_apart if self.is_async else apply
        return node(name=name)(made)


stages = st.builds(
    Stage,
    action=st.sampled_from(["pass", "double", "drop", "stop"]),
    number=st.integers(0, 4),
    fails_at=st.none() | st.integers(0, 12),
    is_async=st.booleans(),
)


def outcome(pull: Callable[[], list[int]]) -> object:
    try:
        return pull()
    except BrokenError as error:
        return str(error)


def count(closed: list[str]) -> Iterator[int]:
    try:
        yield from range(20)
    finally:
        closed.append("source")


def plainly(pipeline: list[Stage], taken: int | None, closed: list[str]) -> list[int]:
    """Pull so many items through plain generators; those that are left are closed as they are forgotten."""
    items = count(closed)
    for place, stage in enumerate(pipeline):
        items = stage.apply(items, closed, f"stage {place}")
    return list(islice(items, taken))


def flow_of(pipeline: list[Stage], closed: list[str], *, is_async: bool) -> Node[..., Any]:
    """The same as a flow."""

    async def count_apart() -> AsyncIterator[int]:
        for item in count(closed):
            yield item

    made: Callable[..., Any] = count_apart if is_async else partial(count, closed)
    flow: Node[..., Any] = node(name="source")(made)
    for place, stage in enumerate(pipeline):
        flow = flow >> stage.node(closed, f"stage {place}")
    return flow


def pull(flow: Node[..., Any], taken: int | None, buffer: int | None, *, awaited: bool) -> list[int]:
    async def main() -> list[int]:
        found: list[int] = []
        async with aclosing(flow.astream(buffer=buffer)) as stream:
            while taken is None or len(found) < taken:
                try:
                    found.append(await anext(stream))
                except StopAsyncIteration:
                    break
        return found

    if awaited:
        return asyncio.run(main())
    with flow.stream(buffer=buffer) as stream:
        return list(islice(stream, taken))


@pytest.mark.parametrize("buffer", [None, 1, 3])
@pytest.mark.parametrize("awaited", [False, True])
@settings(max_examples=25)  # each starts threads
@given(pipeline=st.lists(stages, max_size=4), taken=st.none() | st.integers(0, 10), is_async=st.booleans())
def test_a_pipeline_is_what_its_generators_are(
    buffer: int | None, awaited: bool, pipeline: list[Stage], taken: int | None, is_async: bool
) -> None:
    """The same items or the same error; what a plain generator's end closes is closed, each stage once."""
    expected_closed: list[str] = []
    closed: list[str] = []
    expected = outcome(lambda: plainly(pipeline, taken, expected_closed))
    flow = flow_of(pipeline, closed, is_async=is_async)
    assert outcome(lambda: pull(flow, taken, buffer, awaited=awaited)) == expected
    gc.collect()  # an error keeps the plain generators of its traceback
    if buffer is None:
        assert sorted(closed) == sorted(expected_closed)
    else:
        assert set(closed) >= set(expected_closed)
        assert len(closed) == len(set(closed))
