"""What the trace says of micro-batches: a span for each item where it came from, and one for all that links to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.conformance.conftest import TelemetryPath
from tests.conformance.contract import check_contract, outline

from aetherflow import BatchItemError, BatchPolicy, node
from aetherflow.analysis.spans import Span
from aetherflow.telemetry import conventions as names


@node
def numbers(n: int) -> list[int]:
    return list(range(n))


@node
def higher(n: int) -> list[int]:
    return list(range(100, 100 + n))


@node
def helper(n: int) -> int:
    return n


def batched(*, is_async: bool = False, retry_singly: bool = True, size: int = 3, max_wait: float = 60) -> Any:
    """Return a batched node that refuses 7 and raises at 13, and executes another node once a batch."""

    def invert(items: list[int]) -> list[int | BatchItemError]:
        helper(len(items))
        if 13 in items:
            raise ValueError("thirteen")
        return [-item if item != 7 else BatchItemError("seven") for item in items]

    async def invert_apart(items: list[int]) -> list[int | BatchItemError]:
        await asyncio.sleep(0)
        return invert(items)

    policy = BatchPolicy(size=size, max_wait=max_wait, retry_singly=retry_singly)
    return node(batch=policy, name="invert")(invert_apart if is_async else invert)


def checked(path: TelemetryPath) -> list[Span]:
    spans = [span for span in path.spans() if span.scope.name == "aetherflow"]
    check_contract(spans)
    return spans


def named(spans: list[Span], name: str) -> list[Span]:
    return [span for span in spans if span.name == name]


def together(flow: Any) -> None:
    flow.run(4)


def as_tasks(flow: Any) -> None:
    asyncio.run(flow.arun(4))


@pytest.mark.parametrize("is_async", [False, True], ids=["function", "coroutine function"])
@pytest.mark.parametrize("run", [together, as_tasks])
def test_the_shape_of_a_batch(telemetry_path: TelemetryPath, is_async: bool, run: Callable[[Any], None]) -> None:
    """Items are spans of their run; each batch is a trace of its own, with what it executed, and links to its items."""
    run(numbers.map(batched(is_async=is_async, max_wait=0.001)))
    assert outline(checked(telemetry_path)) == (
        "invert batch ~ invert, invert, invert\n"
        "  helper\n"
        "invert batch ~ invert\n"
        "  helper\n"
        "run numbers\n"
        "  invert[0] <- numbers\n"
        "  invert[0] <- numbers\n"
        "  invert[1] <- numbers\n"
        "  invert[2] <- numbers\n"
        "  numbers"
    )


def test_items_of_different_runs(telemetry_path: TelemetryPath) -> None:
    """Items of runs that have nothing else in common keep their traces, and say where they were in the batch."""
    invert = batched()

    async def main() -> None:
        await asyncio.gather(*[invert.arun(item) for item in (1, 2, 3)])

    asyncio.run(main())
    spans = checked(telemetry_path)
    (batch,) = named(spans, "invert batch")
    items = named(spans, "invert")
    assert len({span.trace_id for span in spans}) == 4
    assert {link.span_id for link in batch.links} == {span.span_id for span in items}
    assert sorted(span.attributes[names.BATCH_INDEX] for span in items) == [0, 1, 2]
    for span in items:
        assert span.attributes[names.NODE_TYPE] == "batch"
        assert span.attributes[names.BATCH_SIZE] == 3
        assert 0 <= span.attributes[names.BATCH_WAIT] <= 60  # type: ignore[operator]  # a number, by the contract
    assert batch.attributes[names.BATCH_SIZE] == 3


def test_an_items_error_is_that_of_its_span(telemetry_path: TelemetryPath) -> None:
    """The span of an item that was refused records the exception; the batch and the other items are no errors."""
    invert = batched()

    async def main() -> None:
        await asyncio.gather(*[invert.arun(item) for item in (1, 7, 3)], return_exceptions=True)

    asyncio.run(main())
    spans = checked(telemetry_path)
    failed = [span for span in spans if span.failed]
    assert [(span.name, span.attributes[names.ERROR_TYPE]) for span in failed] == [
        ("invert", "aetherflow.resources.carrying.BatchItemError")
    ]
    assert [event.name for event in failed[0].events] == ["exception"]


def test_a_batch_that_was_retried_item_by_item(telemetry_path: TelemetryPath) -> None:
    """It is no error, and says that it was retried; only the item at fault is one."""
    invert = batched()

    async def main() -> None:
        await asyncio.gather(*[invert.arun(item) for item in (1, 13, 3)], return_exceptions=True)

    asyncio.run(main())
    spans = checked(telemetry_path)
    (batch,) = named(spans, "invert batch")
    assert not batch.failed
    assert [event.name for event in batch.events] == [names.RETRY_EVENT]
    assert len(named(spans, "helper")) == 4
    assert sorted(span.failed for span in named(spans, "invert")) == [False, False, True]


def test_a_batch_that_failed(telemetry_path: TelemetryPath) -> None:
    """Without retries the batch and every item of it are errors, in their own traces."""
    invert = batched(retry_singly=False)

    async def main() -> None:
        await asyncio.gather(*[invert.arun(item) for item in (1, 13, 3)], return_exceptions=True)

    asyncio.run(main())
    spans = checked(telemetry_path)
    assert [span.name for span in spans if not span.failed] == ["helper"]
    assert sum(span.failed for span in spans) == 4


def test_a_large_batch_counts_the_links_it_leaves_out(telemetry_path: TelemetryPath) -> None:
    """A batch links to 128 of its items at most and says how many others there are."""
    higher.map(batched(size=200, max_wait=0.001)).run(150)
    (batch,) = named(checked(telemetry_path), "invert batch")
    assert len(batch.links) == names.MAX_LINKS
    assert batch.attributes[names.LINK_DROPPED_COUNT] == 150 - names.MAX_LINKS
