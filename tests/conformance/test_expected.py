"""Exceptions that a node declares with ``expected=``: the caller gets them, and they are failures nowhere."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest
from tests.conformance.conftest import TelemetryPath
from tests.conformance.contract import check_contract

from aetherflow.analysis.spans import Span
from aetherflow.errors import ConfigurationError
from aetherflow.flow.decorating import node
from aetherflow.flow.node import Node
from aetherflow.flow.policies import RetryPolicy
from aetherflow.resources.batching import BatchItemError, BatchPolicy
from aetherflow.resources.caching import CachePolicy
from aetherflow.telemetry import conventions as names
from aetherflow.testing import CapturedTelemetry


class NotFoundError(LookupError):
    pass


class GoneError(NotFoundError):
    pass


@node
def source(n: int) -> int:
    return n


@node
def other(n: int) -> int:
    return n


def sync_node(error: Exception, **options: Any) -> Node[..., Any]:
    @node(name="find", expected=NotFoundError, **options)
    def find(n: int) -> NoReturn:
        raise error

    return find


def async_node(error: Exception, **options: Any) -> Node[..., Any]:
    @node(name="find", expected=(NotFoundError, ValueError), **options)
    async def find(n: int) -> NoReturn:
        raise error

    return find


def timed_node(error: Exception, **options: Any) -> Node[..., Any]:
    return sync_node(error, timeout=30, **options)


def cached_node(error: Exception, **options: Any) -> Node[..., Any]:
    return sync_node(error, cache=CachePolicy(cache_errors=True), **options)


def retried_node(error: Exception, **options: Any) -> Node[..., Any]:
    return sync_node(error, retry=RetryPolicy(on=LookupError, attempts=3, sleep=pytest.fail), **options)


def batched_node(error: Exception, **options: Any) -> Node[..., Any]:
    @node(name="find", expected=NotFoundError, batch=BatchPolicy(size=1), **options)
    def find(ns: list[int]) -> list[Any]:
        raise error

    return find


NODES = [sync_node, async_node, timed_node, cached_node, retried_node, batched_node]
every_node = pytest.mark.parametrize("make", NODES, ids=lambda make: make.__name__)


def run(flow: Node[..., Any]) -> Any:
    return flow.run({"n": 1})


def arun(flow: Node[..., Any]) -> Any:
    return asyncio.run(flow.arun({"n": 1}))


every_way = pytest.mark.parametrize("way", [run, arun], ids=lambda way: way.__name__)


def spans_of(path: TelemetryPath) -> dict[str, Span]:
    spans = path.spans()
    check_contract(spans)
    return {span.name: span for span in spans}


def assert_expected(span: Span, error: Exception) -> None:
    result = names.RUN_RESULT if names.FLOW_NODES in span.attributes else names.NODE_RESULT
    assert span.attributes[result] == "expected"
    assert span.status.code == "unset"
    assert names.ERROR_TYPE not in span.attributes
    assert [event.name for event in span.events] == []
    if names.FLOW_NODES not in span.attributes:
        assert span.attributes[names.EXPECTED_TYPE] == f"{type(error).__module__}.{type(error).__qualname__}"


@every_node
@every_way
@pytest.mark.parametrize("kind", [NotFoundError, GoneError])
def test_an_expected_exception_is_no_failure_of_the_node_or_the_run(
    telemetry_path: TelemetryPath, make: Callable[..., Node[..., Any]], way: Callable[..., Any], kind: type[Exception]
) -> None:
    """The caller gets the exception; the spans have the result ``expected`` and no error."""
    error = kind("no such thing")
    with pytest.raises(kind) as raised:
        way(source >> make(error))
    assert raised.value is error
    assert not hasattr(error, "__notes__")
    spans = spans_of(telemetry_path)
    assert_expected(spans["find"], error)
    assert_expected(spans["run source"], error)
    assert names.NODE_RESULT not in spans["source"].attributes


@every_node
def test_other_exceptions_are_failures(telemetry_path: TelemetryPath, make: Callable[..., Node[..., Any]]) -> None:
    """Only the declared classes are expected."""
    with pytest.raises(TypeError):
        (source >> make(TypeError("n"))).run({"n": 1})
    spans = spans_of(telemetry_path)
    assert spans["find"].attributes[names.NODE_RESULT] == "failure"
    assert spans["run source"].status.code == "error"


def test_a_node_that_does_not_expect_it_fails(telemetry_path: TelemetryPath) -> None:
    """An exception that passes through another node is a failure of that one, and of its run."""
    inner = sync_node(NotFoundError("no"))

    @node
    def outer(n: int) -> Any:
        return inner(n)

    with pytest.raises(NotFoundError):
        (source >> outer).run({"n": 1})
    spans = spans_of(telemetry_path)
    assert_expected(spans["find"], NotFoundError("no"))
    assert spans["outer"].attributes[names.NODE_RESULT] == "failure"
    assert [event.name for event in spans["outer"].events] == ["exception"]
    assert spans["run source"].attributes[names.RUN_RESULT] == "failure"


@every_way
def test_in_a_fan_out_it_ends_the_run_as_any_exception_does(
    telemetry_path: TelemetryPath, way: Callable[..., Any]
) -> None:
    """The run ends with it, and its result is ``expected``."""
    with pytest.raises(NotFoundError):
        way(source >> [sync_node(NotFoundError("no")), other])
    assert_expected(spans_of(telemetry_path)["run source"], NotFoundError("no"))


@every_way
def test_a_group_is_expected_if_all_in_it_are(telemetry_path: TelemetryPath, way: Callable[..., Any]) -> None:
    """Two branches that fail as expected make a run that ends as expected."""
    both = threading.Barrier(2)

    def raising(error: Exception) -> Node[..., Any]:
        @node(name=str(error), expected=LookupError)
        def find(n: int) -> NoReturn:
            both.wait(30)  # so that neither branch keeps the other from starting
            raise error

        return find

    with pytest.raises(ExceptionGroup):
        way(source >> [raising(NotFoundError("one")), raising(GoneError("two"))])
    spans = spans_of(telemetry_path)
    assert spans["run source"].attributes[names.RUN_RESULT] == "expected"


@every_way
def test_a_group_that_a_node_raises_is_expected_if_all_in_it_are(
    telemetry_path: TelemetryPath, way: Callable[..., Any]
) -> None:
    """As a task group raises it, nested groups included."""
    error = ExceptionGroup("two", [NotFoundError(1), ExceptionGroup("one", [GoneError(2)])])
    with pytest.raises(ExceptionGroup):
        way(source >> sync_node(error))
    spans = spans_of(telemetry_path)
    assert spans["find"].attributes[names.NODE_RESULT] == "expected"
    assert spans["run source"].attributes[names.RUN_RESULT] == "expected"


def test_a_group_with_another_exception_is_a_failure(telemetry_path: TelemetryPath) -> None:
    """One exception that is not declared is enough."""
    with pytest.raises(ExceptionGroup):
        (source >> sync_node(ExceptionGroup("two", [NotFoundError(1), TypeError()]))).run({"n": 1})
    assert spans_of(telemetry_path)["find"].attributes[names.NODE_RESULT] == "failure"


@pytest.mark.parametrize("is_mapped", [False, True])
def test_a_stage_between_nodes_takes_over_what_they_expect(telemetry_path: TelemetryPath, is_mapped: bool) -> None:
    """Neither `chunked` nor `map_batches` turns an expected exception into a failure."""

    @node(expected=NotFoundError)
    def numbers(n: int) -> Iterator[int]:
        yield n
        raise NotFoundError("no")

    flow = numbers.map_batches(node(lambda ns: ns, name="keep"), 1) if is_mapped else numbers.chunked(1)
    with pytest.raises(NotFoundError):
        list(flow.stream({"n": 1}))
    ended = telemetry_path.spans()
    check_contract(ended)
    assert {span.status.code for span in ended} == {"unset"}
    assert {span.attributes.get(names.NODE_RESULT) for span in ended if span.name in ("numbers", "chunked")} == {
        "expected"
    }


def test_collected_failures_hold_it(telemetry_path: TelemetryPath) -> None:
    """With ``on_error="collect"`` it stands in the results, and the run has no result."""
    error = NotFoundError("no")
    results = source.fan_out_to([sync_node(error), other], on_error="collect").run({"n": 1})
    assert results["find"].exception is error
    spans = spans_of(telemetry_path)
    assert_expected(spans["find"], error)
    assert names.RUN_RESULT not in spans["run source"].attributes


def test_in_a_batch_only_the_item_is_expected(telemetry_path: TelemetryPath) -> None:
    """An exception in the place of a result is that of one caller."""

    class MissingItemError(BatchItemError):
        pass

    @node(expected=MissingItemError, batch=BatchPolicy(size=2))
    def look_up(ns: list[int]) -> list[Any]:
        return [n or MissingItemError("no") for n in ns]

    results = node(lambda: [0, 1], name="source").map(look_up, on_error="collect").run()
    assert isinstance(results[0].exception, MissingItemError)
    assert results[1] == 1
    looked_up = [span for span in telemetry_path.spans() if span.name == "look_up"]
    assert sorted(span.attributes.get(names.NODE_RESULT, "") for span in looked_up) == ["", "expected"]
    assert {span.status.code for span in telemetry_path.spans()} == {"unset"}


@every_node
def test_its_duration_is_not_that_of_an_error(make: Callable[..., Node[..., Any]]) -> None:
    """Neither the node's duration nor the run's has an ``error.type``."""
    with CapturedTelemetry() as captured, pytest.raises(NotFoundError):
        (source >> make(NotFoundError("no"))).run({"n": 1})
    points = [*captured.points(names.NODE_DURATION.name), *captured.points(names.RUN_DURATION.name)]
    assert len(points) == 3
    assert not any(names.ERROR_TYPE in point.attributes for point in points)
    assert sum(point.count for point in points) == 3


@pytest.mark.parametrize("expected", ["LookupError", BaseException, (KeyError, 3), KeyboardInterrupt, [KeyError], None])
def test_anything_but_exception_classes_is_refused(expected: Any) -> None:
    """The error names the node, the value and what is allowed."""
    with pytest.raises(ConfigurationError, match=r"node 'f': expected=.*allowed is a subclass of Exception"):
        node(name="f", expected=expected)(lambda: None)
