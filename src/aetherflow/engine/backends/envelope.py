"""What crosses to a worker and back: a task envelope, and the report on what became of it.

Containers and thread-locals do not pickle, so an envelope names what the worker has to import: the node's function and
the context class that it builds a context of its own from.
"""

from __future__ import annotations

import importlib
import io
import os
import pickle
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial, reduce
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from opentelemetry.trace import SpanContext

from aetherflow.engine.backends.errors import INTERRUPTIONS, NotImportableError, NotPicklableError, unpickled
from aetherflow.engine.graph import Task
from aetherflow.telemetry.conventions import ExecutionKind
from aetherflow.telemetry.export.relay import Relayed
from aetherflow.telemetry.observation import error_type
from aetherflow.telemetry.profiling.policy import ProfilePolicy
from aetherflow.user_exceptions import message_of

__all__ = ["Envelope", "Reference", "Report", "context_reference", "function_of", "pack", "pickled", "process_id"]
__all__ += ["task_reference", "unpack"]


@dataclass(frozen=True, slots=True)
class Reference:
    """The name of something that both sides can import."""

    module: str
    qualname: str

    def __str__(self) -> str:
        return f"{self.module}.{self.qualname}"

    def resolve(self) -> Any:
        """Import it.

        Raises:
            ImportError: There is no such module.
            AttributeError: The module holds no such name.
        """
        module = importlib.import_module(self.module)
        return reduce(getattr, self.qualname.split("."), module)


@dataclass(frozen=True, slots=True)
class Envelope:
    """One execution, as it is sent to a worker.

    Args:
        node: The node's name.
        function: Where to import the function from, or the pickled function itself.
        arguments: The positional and keyword arguments, as :func:`pack` pickled them.
        injected: The parameters that the worker injects.
        context: The context class that it injects them from, and the values of its configurations, pickled.
        attributes: Attributes of the span.
        label: How a note on an error names the node.
        links: Spans that the execution follows from.
        carrier: The trace context in W3C headers.
        wants_spans: Whether the sender emits spans that the worker has no provider for.
        sender: The process that sent it.
        executor: The kind of worker.
        profile: How the execution is profiled; None where it is not.
        error_note: A note for an exception that the node raises; empty for none.
        expected: The pickled classes of exceptions that are no failures; empty for none.
        has_details: Whether the execution reports details.
    """

    node: str
    function: Reference | bytes
    arguments: bytes
    injected: tuple[str, ...]
    context: tuple[Reference, bytes] | None
    attributes: Mapping[str, Any]
    label: str
    links: tuple[SpanContext, ...]
    carrier: Mapping[str, str]
    wants_spans: bool
    sender: str
    executor: str
    profile: ProfilePolicy | None = None
    error_note: str = ""
    expected: bytes = b""
    has_details: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What became of an execution.

    Args:
        value: The pickled result; None where an error was raised.
        error: The pickled error; None where there was none.
        duration: Nanoseconds; None if nothing is known but the error.
        span: The context of the node's span, where the worker itself has emitted it.
        relayed: What the sender has to emit, the node's span first.
        kind: The execution's kind; None if it was computed at its first attempt.
        is_unread: Whether the worker could not unpickle the envelope; nothing was executed then.
    """

    value: bytes | None
    error: bytes | None
    duration: int | None
    span: SpanContext | None
    relayed: Relayed
    kind: ExecutionKind | None = None
    is_unread: bool = False


def process_id() -> str:
    """Return what tells this process from all others, on other machines too."""
    return f"{platform.node()}:{os.getpid()}"


def pickled(value: object, node: str, what: str) -> bytes:
    """Pickle a value that a node takes or returns.

    Raises:
        NotPicklableError: It does not pickle; ``what`` tells which value it is.
    """
    buffer = io.BytesIO()
    _dump(pickle.Pickler(buffer, pickle.HIGHEST_PROTOCOL), value, node, what)
    return buffer.getvalue()


def _dump(pickler: pickle.Pickler, value: object, node: str, what: str) -> None:
    try:
        pickler.dump(value)
    except INTERRUPTIONS:
        raise
    except BaseException as error:  # pickling runs code of any class
        raise NotPicklableError(node, what, value, message_of(error) or error_type(error)) from error


def pack(task: Task, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    """Pickle the arguments of an execution one after another, so that each failure concerns one parameter.

    An object in several arguments is pickled once, since one pickler pickles all of them.

    Raises:
        NotPicklableError: One of them does not pickle; names its parameter.
    """
    parameters = [parameter.name for parameter in task.parameters]
    if isinstance(task.func, MethodType):
        parameters.insert(0, "self")
    parameters += [f"*{index}" for index in range(len(parameters), len(args))]
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, pickle.HIGHEST_PROTOCOL)
    pickler.dump((parameters[: len(args)], list(kwargs)))
    for name, value in zip([*parameters[: len(args)], *kwargs], (*args, *kwargs.values()), strict=True):
        _dump(pickler, value, task.name, f"parameter {name!r}")
    return buffer.getvalue()


def unpack(data: bytes, node: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and keyword arguments that :func:`pack` pickled.

    Raises:
        NotUnpicklableError: One of them does not unpickle; names its parameter.
    """
    unpickler = pickle.Unpickler(io.BytesIO(data))
    positional, keywords = unpickler.load()
    args = tuple(unpickled(unpickler.load, node, f"parameter {name!r}") for name in positional)
    return args, {name: unpickled(unpickler.load, node, f"parameter {name!r}") for name in keywords}


def task_reference(task: Task) -> tuple[Reference | bytes, tuple[Any, ...]]:
    """Return how a worker finds a node's function, and the object it is a method of, as arguments.

    Raises:
        NotImportableError: A worker would not find it.
        NotPicklableError: It has no name of its own and does not pickle.
    """
    method: object = task.func
    owner = (method.__self__,) if isinstance(method, MethodType) else ()
    func, own = (_unbound(task.func), _unbound(task.call)) if owner else (task.func, task.call)
    if not isinstance(func, FunctionType | BuiltinFunctionType):
        if task.call is not task.func:
            raise NotImportableError(task.name, repr(func), "a node with retry= or timeout= has to be a function")
        return pickled(func, task.name, "the function"), ()
    reference = Reference(func.__module__, func.__qualname__)
    reason = _why_not(reference)
    if reason is None:
        call, plain = function_of(reference.resolve())
        if plain is not func or call is not own:
            reason = "that name holds something else; decorate the function with @node(…) where it is defined"
    if reason is not None:
        raise NotImportableError(task.name, f"its function {reference}", reason)
    return reference, owner


def _unbound(call: Any) -> Any:
    """Return the function of a method, which with policies around it is a partial call."""
    if isinstance(call, MethodType):
        return call.__func__
    return call.func if isinstance(call, partial) else call


def function_of(found: Any) -> tuple[Any, Any]:
    """Return what to call for a node or function that was imported, policies in place, and its plain function."""
    task = getattr(found, "task", None)
    return (task.call, task.func) if isinstance(task, Task) else (found, found)


def context_reference(kind: type, node: str) -> Reference:
    """Return how a worker finds a context class.

    Raises:
        NotImportableError: A worker would not find it.
    """
    reference = Reference(kind.__module__, kind.__qualname__)
    reason = _why_not(reference)
    if reason is None and reference.resolve() is not kind:
        reason = "that name holds something else"
    if reason is not None:
        raise NotImportableError(node, f"its context class {reference}", reason)
    return reference


def _why_not(reference: Reference) -> str | None:
    """Return why a worker could not import something; None where it could."""
    if "<locals>" in reference.qualname or "<lambda>" in reference.qualname:
        return "it is defined in a function, or a lambda; define it at the top of a module"
    module: ModuleType | None = sys.modules.get(reference.module)
    if reference.module == "__main__" and not (getattr(module, "__file__", None) or getattr(module, "__spec__", None)):
        return "it is defined interactively; define it in a module"
    try:
        reference.resolve()
    except (ImportError, AttributeError) as error:
        return str(error)
    return None
