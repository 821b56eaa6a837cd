"""Batched and cached functions as methods: the binding decides what the instance is, and no parameter's name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from aetherflow import BatchPolicy, CachePolicy, Node, RetryPolicy, node

POLICIES: dict[str, dict[str, Any]] = {
    "cache": {"cache": CachePolicy()},
    "batch": {"batch": BatchPolicy(size=1)},
    "cache and batch": {"cache": CachePolicy(), "batch": BatchPolicy(size=1)},
    "batch and retry": {"batch": BatchPolicy(size=1), "retry": RetryPolicy(on=OSError)},
}

each_policy = pytest.mark.parametrize("options", POLICIES.values(), ids=POLICIES)


def lifted(function: Callable[..., Any], options: dict[str, Any]) -> Callable[..., Any]:
    """Return the function, or its equivalent for a list of items if its calls become batches."""
    if "batch" not in options:
        return function

    def plain(self: Any, factor: int = 2) -> list[Any]:
        return [function(item, factor) for item in self]

    return plain


def call_of(flow: Node[..., Any, Any], kind: str) -> Any:
    """Pass the argument called ``self`` in one of the possible ways."""
    match kind:
        case "by position":
            return flow(3)
        case "by name":
            return flow(self=3)
        case "run":
            return flow.run({"self": 3})
        case "run with a value":
            return flow.run(3)
        case "arun":
            return asyncio.run(flow.arun({"self": 3}))
        case "flow":
            return (node(lambda n: n, name="first") >> flow).run(3)
        case _:
            return next(iter(flow.run_many([{"self": 3}])))


@each_policy
@pytest.mark.parametrize("kind", ["by position", "by name", "run", "run with a value", "arun", "flow", "run_many"])
def test_a_plain_function_may_have_a_parameter_called_self(options, kind):
    """A function that is no method takes its first argument, whatever that is called and however it is given."""

    def scale(self: int, factor: int = 2) -> int:
        return self * factor

    flow = node(name="scale", **options)(lifted(scale, options))
    assert call_of(flow, kind) == 6


@each_policy
def test_a_method_may_have_a_first_parameter_of_any_name(options):
    """The binding decides the instance of a method: through an instance, through the class, and in a subclass."""
    is_batched = "batch" in options

    class Model:
        factor = 2

        if is_batched:

            @node(**options)
            def scale(this, self: list[int], by: int = 1) -> list[int]:  # noqa: N805
                return [item * this.factor * by for item in self]

        else:

            @node(**options)
            def scale(this, self: int, by: int = 1) -> int:  # noqa: N805
                return self * this.factor * by

    class Larger(Model):
        factor = 10

    model, larger = Model(), Larger()
    assert [model.scale(3), model.scale(self=3), Model.scale(model, 3), model.scale(3, by=5)] == [6, 6, 6, 30]
    assert [larger.scale(3), Model.scale(larger, 3), Larger.scale(larger, self=3)] == [30, 30, 30]
    assert model.scale.run({"self": 4}) == 8
    assert asyncio.run(larger.scale.arun(4)) == 40
    assert list(model.scale.run_many([1, 2])) == [2, 4]


@each_policy
def test_static_and_class_methods(options):
    """A static method has no instance, also for items of its own class; a class method has its class."""
    is_batched = "batch" in options

    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

        if is_batched:

            @staticmethod
            @node(**options)
            def double(points: list[Point]) -> list[int]:
                return [point.x * 2 for point in points]

            @classmethod
            @node(**options)
            def name(kind, numbers: list[int]) -> list[str]:  # noqa: N804
                return [f"{kind.__name__} {number}" for number in numbers]

        else:

            @staticmethod
            @node(**options)
            def double(point: Point) -> int:
                return point.x * 2

            @classmethod
            @node(**options)
            def name(kind, number: int) -> str:  # noqa: N804
                return f"{kind.__name__} {number}"

    point = Point(4)
    assert [Point.double(point), point.double(point)] == [8, 8]
    assert [Point.name(1), point.name(2)] == ["Point 1", "Point 2"]


def test_a_batched_method_without_a_parameter_for_items_says_so():
    """A method that takes nothing but its instance is an error of its first call."""

    class Model:
        @node(batch=BatchPolicy(size=1))
        def predict(self) -> list[int]:
            return []

    with pytest.raises(TypeError, match=r"predict\(\) is missing its item"):
        Model().predict()


def test_a_function_bound_later_is_a_method():
    """A node that is put into a class after both were made is bound like a function."""

    def scale(model: Any, numbers: list[int]) -> list[int]:
        return [number * model.factor for number in numbers]

    class Model:
        factor = 3

    Model.scale = node(batch=BatchPolicy(size=1))(scale)  # type: ignore[attr-defined]
    assert Model().scale(2) == 6  # type: ignore[attr-defined]
