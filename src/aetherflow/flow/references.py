"""Pickling of nodes and flows by name, and their look-up in another process."""

from __future__ import annotations

import importlib
import sys
from functools import reduce
from pickle import PicklingError
from types import MethodType
from typing import Any

from aetherflow.engine.graph import Call, Step, tasks

__all__ = ["node_reference"]


def node_reference(node: object, step: Step, name: str) -> tuple[Any, ...]:
    """Return how to pickle a node: by the module and the name that hold it, or as a method of its pickled object.

    Args:
        node: The node, or the flow.
        step: Its graph.
        name: Its name, for the error.

    Raises:
        PicklingError: No module holds it.
    """
    if isinstance(step, Call):
        func: Any = step.task.func
        if isinstance(func, MethodType):
            return getattr, (func.__self__, _method_name(func, node, name))
        module, path = getattr(func, "__module__", None), getattr(func, "__qualname__", "")
        if isinstance(module, str) and _is_at(node, module, path):
            return _node_at, (module, path)
    first_modules = ("__main__", *dict.fromkeys(str(getattr(task.func, "__module__", "")) for task in tasks(step)))
    for module in dict.fromkeys((*first_modules, *sys.modules)):
        for path, value in list(getattr(sys.modules.get(module), "__dict__", {}).items()):
            if value is node:
                return _node_at, (module, path)
    label = "node" if isinstance(step, Call) else "flow"
    raise PicklingError(
        f"{label} {name!r} cannot be pickled: a {label} is pickled by its name in a module, and no module has it; "
        f"assign it to a name at the top of a module"
    )


def _method_name(func: MethodType, node: object, name: str) -> str:
    """Return the name of a node that is a method, as an attribute of its object."""
    attribute = getattr(func, "__name__", "")
    bound = getattr(func.__self__, attribute, None)
    if type(bound) is type(node) and getattr(bound, "func", None) == func and getattr(bound, "name", "") == name:
        return attribute
    raise PicklingError(
        f"node {name!r} cannot be pickled: it is a method of a {type(func.__self__).__qualname__}, whose "
        f"attribute {attribute!r} is something else; use the name of the function as the name of the node"
    )


def _is_at(node: object, module: str, path: str) -> bool:
    try:
        return _node_at(module, path) is node
    except (ImportError, AttributeError):
        return False


def _node_at(module: str, path: str) -> Any:
    return reduce(getattr, path.split("."), importlib.import_module(module))
