"""Things that the user names on the command line: objects in modules, and inputs."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from aetherflow.cli.command import UsageError, UsersOwnError

if TYPE_CHECKING:
    from aetherflow.flow.node import Node

__all__ = ["entered", "load_flow", "load_object", "read_inputs"]


def load_flow(flow: str, context: str | None) -> tuple[Node[..., Any], Any]:
    """Import a flow, and the context that it is to run in.

    Args:
        flow: ``module:name``.
        context: The same, of a context class or an instance; None for none.

    Returns:
        Both.

    Raises:
        UsageError: There is no such thing, or it is of another kind.
        UsersOwnError: A module raised something when it was imported.
    """
    # The engine is imported here, so that other commands start without it.
    from dependency_injector import containers

    from aetherflow.flow.node import Node

    kinds = (containers.DeclarativeContainer, containers.DynamicContainer)

    def is_context(found: object) -> bool:
        return isinstance(found, kinds) or (isinstance(found, type) and issubclass(found, kinds))

    try:
        return (
            load_object(flow, "flow", lambda found: isinstance(found, Node), "flow"),
            load_object(context, "--context", is_context, "context") if context else None,
        )
    except UsageError:
        raise
    except Exception as error:
        raise UsersOwnError from error


class entered:  # noqa: N801  # used like a function
    """Within ``with``, an instance of a context, entered if it is a context manager.

    A class rather than a generator, which could not pass on every exception that a flow raises within.

    Args:
        context: A context class, an instance, or None.

    Raises:
        UsersOwnError: It cannot be made or entered.
    """

    def __init__(self, context: Any) -> None:
        self._context = context
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Any:
        context = self._context
        try:
            if isinstance(context, type):
                context = context()
            if hasattr(context, "__enter__"):
                context = self._stack.enter_context(context)
        except Exception as error:
            raise UsersOwnError from error
        return context

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)


def load_object(reference: str, option: str, is_wanted: Callable[[object], bool], wanted: str) -> Any:
    """Import what a reference names.

    Args:
        reference: ``module:name``; the name may have dots. Modules in the working directory are found.
        option: What it was given as, for the message.
        is_wanted: Whether an object is of the kind that is wanted.
        wanted: That kind, in a word.

    Returns:
        The object.

    Raises:
        UsageError: There is no such thing, or it is of another kind.
        Exception: What the module raised when it was imported.
    """
    module_name, colon, name = reference.partition(":")
    if not colon or not module_name or not name:
        raise UsageError(f"{option} {reference!r}: write it as module:name, for example shop.flows:checkout")
    if module_name.endswith(".py") or "/" in module_name:
        dotted = module_name.removesuffix(".py").removeprefix("./").replace("/", ".")
        raise UsageError(f"{option} {reference!r}: name the module, not its file: {dotted}:{name}")
    module = _import(module_name, option)
    found: object = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if not is_wanted(found):
        what = f"there is no {name!r}" if found is None else f"{name!r} is no {wanted}"
        there = ", ".join(sorted(key for key, value in vars(module).items() if is_wanted(value))) or "none"
        raise UsageError(f"{option} {reference!r}: {what} in module {module_name!r}; its {wanted}s: {there}")
    return found


def _import(name: str, option: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there, and one that it imports is not
        raise UsageError(
            f"{option}: there is no module {error.name!r}, neither in the working directory nor among those installed"
        ) from error


def read_inputs(given: Iterable[str]) -> dict[str, Any]:
    """Read the values of ``--input``.

    Args:
        given: ``key=value``, where a value that is not JSON is a string, or ``@file.json``, an object with several.

    Returns:
        The inputs by name; of two with one name the later.

    Raises:
        UsageError: One is neither, or its file cannot be read.
    """
    inputs: dict[str, Any] = {}
    for item in given:
        if item.startswith("@"):
            inputs |= _inputs_in(Path(item[1:]))
            continue
        key, equals, value = item.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"--input {item!r}: write it as key=value, the key a Python name, or as @file.json")
        inputs[key] = _value_of(value)
    return inputs


def _inputs_in(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        problem = error.strerror if isinstance(error, OSError) else f"is not JSON ({error})"
        raise UsageError(f"--input @{file}: {problem}") from error
    if not isinstance(found, dict):
        raise UsageError(f"--input @{file}: holds a JSON {_kind(found)}; it must hold an object, with an input a key")
    return found


def _value_of(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _refuse(constant: str) -> NoReturn:
    """Leave ``NaN`` and ``Infinity`` strings: they are not JSON."""
    raise ValueError(constant)


def _kind(value: object) -> str:
    return {list: "array", str: "string", bool: "boolean", type(None): "null"}.get(type(value), "number")
