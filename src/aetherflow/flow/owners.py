"""The instance of a method call: the binding of the call decides it, never the name of the first parameter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["BoundTo", "MethodPlace"]


class BoundTo:
    """A stand-in for the instance in a call of a bound method, passed as the first positional argument."""

    __slots__ = ("instance",)

    def __init__(self, instance: object) -> None:
        self.instance = instance


@dataclass(frozen=True, slots=True)
class MethodPlace:
    """The class body that a function is defined in.

    A call through the class, `Model.predict(model, 1)`, is not bound, and neither is a class method on Python 3.13: the
    instance or class is its first argument then. A static method has no such argument.

    Args:
        module: The module of the class.
        path: The qualified name of the class.
        name: The name of the function in it.
    """

    module: str
    path: str
    name: str

    @classmethod
    def of(cls, func: Callable[..., Any]) -> MethodPlace | None:
        """Return the place of a function; None if it is not defined in a class body."""
        module, qualname = getattr(func, "__module__", None), getattr(func, "__qualname__", None)
        if not isinstance(module, str) or not isinstance(qualname, str):
            return None
        path, _, name = qualname.rpartition(".")
        return cls(module, path, name) if path and not path.endswith("<locals>") else None

    def is_owner(self, value: object) -> bool:
        """Return whether a value is the instance or class that a call of the function is for."""
        kind = type(value)
        attribute = self._attribute(kind)
        if attribute is not None:
            return not isinstance(attribute, staticmethod | classmethod)
        return issubclass(kind, type) and isinstance(self._attribute(value), classmethod)  # type: ignore[arg-type]

    def _attribute(self, kind: type) -> object:
        """Return the function as an attribute of the class of this place; None if ``kind`` does not inherit from it."""
        for base in kind.__mro__:
            if base.__qualname__ == self.path and base.__module__ == self.module:
                return vars(base).get(self.name)
        return None
