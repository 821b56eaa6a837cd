"""The parts of a function that its node keeps: attributes, keyword arguments, types and its name in a module."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aetherflow.flow.decorating import node
from aetherflow.flow.node import Node


@node
def at_module_level(x: int) -> int:
    return x + 1


@node
async def async_at_module_level(x: int) -> int:
    return x + 1


class Service:
    """Nodes that are methods; equal to every other one."""

    @node
    def method(self, x: int) -> int:
        return x + 1

    @node
    @classmethod
    def of_class(cls, x: int) -> int:
        return x + 1

    @staticmethod
    @node
    def static(x: int) -> int:
        return x + 1

    @node(name="renamed")
    def with_another_name(self, x: int) -> int:
        return x + 1


flow_at_module_level = at_module_level >> node(lambda value: value * 2, name="double")
named_at_module_level = at_module_level.named("other")


# --- attributes -----------------------------------------------------------------------------------------------

PUBLIC = [name for name in dir(Node) if not name.startswith("_")]


@pytest.mark.parametrize("name", [*PUBLIC, "_step", "_name", "_runner", "__rshift__"])
def test_an_attribute_of_the_function_never_replaces_one_of_the_node(name: str) -> None:
    """Decorators leave attributes such as ``run`` or ``name`` on a function."""

    def function(x: int) -> int:
        return x

    setattr(function, name, "the decorator's")
    wrapped = node(function)
    assert vars(wrapped).get(name) != "the decorator's"
    assert wrapped.run({"x": 1}) == 1
    assert (wrapped >> node(lambda value: value, name="after")).run({"x": 1}) == 1
    assert wrapped.named("other").run({"x": 1}) == 1


def test_other_attributes_stay_visible() -> None:
    """On a function's node, and on that of a method."""

    def function(x: int) -> int:
        return x

    function.label = "kept"  # type: ignore[attr-defined]  # as decorators do it
    function._mark = "kept"  # type: ignore[attr-defined]  # as frameworks do it

    class Owner:
        method = node(function)

    assert node(function).label == "kept"  # type: ignore[attr-defined]  # as above
    assert node(function)._mark == "kept"  # type: ignore[attr-defined]  # as above
    assert Owner().method.label == "kept"  # type: ignore[attr-defined]  # as above


def test_a_node_shows_the_signature_of_its_function() -> None:
    """As tools read it."""
    assert list(inspect.signature(at_module_level).parameters) == ["x"]
    assert at_module_level.__name__ == "at_module_level"


# --- keyword arguments of decorated methods -----------------------------------------------------------------------


def with_flag(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, verbose: bool = False) -> Any:
        return function(*args), verbose

    return wrapper


def with_options(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **options: Any) -> Any:
        return function(*args), options

    return wrapper


class Decorated:
    """Methods under decorators that take their arguments by ``*args``."""

    @node
    @with_flag
    def flagged(self) -> str:
        return "m"

    @node
    @with_options
    def optional(self) -> str:
        return "m"


def test_a_keyword_argument_of_a_decorated_method_is_passed_on() -> None:
    """Only a parameter that the object fills is taken away from the others."""
    assert Decorated().flagged(verbose=True) == ("m", True)
    assert Decorated().flagged.run({"verbose": True}) == ("m", True)
    assert Decorated().flagged.run() == ("m", False)
    assert Decorated().optional.run({"verbose": True}) == ("m", {"verbose": True})


# --- pickling -----------------------------------------------------------------------------------------------------

SERVICE = Service()


@pytest.mark.parametrize(
    "wrapped",
    [at_module_level, async_at_module_level, flow_at_module_level, named_at_module_level, Service.static],
    ids=lambda wrapped: wrapped.name,
)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_node_of_a_module_is_pickled_by_reference(wrapped: Node[..., Any], protocol: int) -> None:
    """Unpickling gives the very same node."""
    assert pickle.loads(pickle.dumps(wrapped, protocol)) is wrapped


def test_a_method_is_pickled_with_its_object() -> None:
    """The object is pickled, and the node is its method."""
    bound = pickle.loads(pickle.dumps(SERVICE.method))
    assert isinstance(bound.func.__self__, Service)
    assert bound.run({"x": 1}) == 2
    assert pickle.loads(pickle.dumps(Service.of_class)).run({"x": 1}) == 2


def test_a_node_that_no_module_has_is_refused() -> None:
    """The error names the node and the remedy."""
    local = node(lambda x: x, name="local")
    with pytest.raises(pickle.PicklingError, match=r"node 'local' cannot be pickled.*top of a module"):
        pickle.dumps(local)


def test_a_method_under_another_name_is_refused() -> None:
    """Unpickling would return another node."""
    with pytest.raises(pickle.PicklingError, match="'other'"):
        pickle.dumps(SERVICE.method.named("other"))


def test_a_node_is_unpickled_in_another_process(tmp_path: Path) -> None:
    """There it is the node that the module has."""
    (tmp_path / "nodes.py").write_text("from aetherflow import node\n\n@node\ndef add_one(x): return x + 1\n")
    make = "import nodes, pickle, sys; sys.stdout.buffer.write(pickle.dumps(nodes.add_one))"
    data = subprocess.run([sys.executable, "-c", make], cwd=tmp_path, capture_output=True, check=True).stdout
    use = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read()).run({'x': 1}))"
    result = subprocess.run([sys.executable, "-c", use], cwd=tmp_path, input=data, capture_output=True, check=True)
    assert result.stdout.split() == [b"2"]


@pytest.mark.parametrize("wrapped", [at_module_level, flow_at_module_level, node(lambda x: x, name="local")])
def test_a_copy_of_a_node_is_the_node(wrapped: Node[..., Any]) -> None:
    """Nothing ever changes a node, so configurations with nodes can be copied."""
    assert copy.copy(wrapped) is wrapped
    assert copy.deepcopy({"node": wrapped})["node"] is wrapped
