"""What can go wrong with executions on workers, and how an exception gets from one process to another."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from types import FunctionType, MemberDescriptorType
from typing import Any, Final

from aetherflow.errors import AetherFlowError, ConfigurationError
from aetherflow.telemetry.observation import error_type, mark_handled
from aetherflow.user_exceptions import (
    add_note,
    attributes_of,
    is_error,
    message_of,
    notes_of,
    summary_of,
    traceback_text_of,
)

__all__ = ["NotImportableError", "NotPicklableError", "NotUnpicklableError", "RemoteError", "WorkerLostError"]
__all__ += ["INTERRUPTIONS", "dump_error", "load_error", "unpickled"]

INTERRUPTIONS: Final = (KeyboardInterrupt, SystemExit)
"""Exceptions that are never replaced: a signal may have raised them, whatever code was running."""

_ARGS: Final[Any] = BaseException.__dict__["args"]


class NotImportableError(ConfigurationError):
    """A worker cannot import what an execution needs: a node's function, or a context class.

    Args:
        node: The node to execute.
        what: What is needed, with its name.
        reason: Why it cannot be imported.
    """

    def __init__(self, node: str, what: str, reason: str) -> None:
        self.node = node
        super().__init__(f"node {node!r} cannot run on a worker, which has to import {what}: {reason}")


class NotPicklableError(AetherFlowError, TypeError):
    """A value cannot be sent to a worker or back.

    Args:
        node: The node that takes or returns it.
        what: The value: ``"parameter 'lock'"`` or ``"the result"``.
        value: The value itself.
        reason: What pickle said.
    """

    def __init__(self, node: str, what: str, value: object, reason: str) -> None:
        self.node = node
        kind = type(value)
        super().__init__(f"node {node!r}: {what}, a {kind.__qualname__}, does not pickle: {reason}")


class NotUnpicklableError(AetherFlowError, TypeError):
    """A value was pickled and sent, but the other process cannot rebuild it.

    Args:
        node: The node that takes or returns it.
        what: The value: ``"parameter 'image'"`` or ``"the result"``.
        error: The exception that unpickling raised.
    """

    def __init__(self, node: str, what: str, error: BaseException) -> None:
        self.node = node
        super().__init__(
            f"node {node!r}: {what} was pickled, but cannot be unpickled ({summary_of(error)}); "
            f"allowed: objects whose __reduce__ and __setstate__ restore them there, such as built-in types"
        )


class WorkerLostError(AetherFlowError, RuntimeError):
    """A worker ended before its execution did, or could not begin.

    Args:
        node: The node whose execution is lost.
        executor: The kind of worker.
        reason: What the backend said.
    """

    def __init__(self, node: str, executor: str, reason: str) -> None:
        self.node = node
        self.executor = executor
        super().__init__(
            f"node {node!r}: its {executor} worker was lost, for example killed for want of memory, or never began, "
            f"as where a script starts flows outside of `if __name__ == '__main__':` ({reason})"
        )


class RemoteError(AetherFlowError):
    """A stand-in for an exception that cannot be sent from a worker, or cannot be rebuilt in the receiving process.

    Args:
        type_name: The exception's qualified class name.
        message: Its message.
    """

    def __init__(self, type_name: str, message: str) -> None:
        self.type_name = type_name
        self.message = message
        super().__init__(f"{type_name}: {message}")


_BUILT_IN_REDUCERS: Final = (BaseException.__reduce__, OSError.__reduce__, ImportError.__reduce__)
"""Methods that call the class with the arguments of the exception, which its own ``__init__`` may not take."""


class _Pickler(pickle.Pickler):
    """A pickler for exceptions whose class pickle would call with other arguments, or whose slots it would omit."""

    def reducer_override(self, value: Any) -> Any:
        kind: Any = type(value)
        if not issubclass(kind, BaseException) or kind.__reduce__ not in _BUILT_IN_REDUCERS:
            return NotImplemented
        if kind.__reduce_ex__ is not object.__reduce_ex__:
            return NotImplemented
        slots = {key: slot.__get__(value) for key, slot in _slots_of(kind) if _is_set(slot, value)}
        if not slots and not isinstance(kind.__init__, FunctionType):
            return NotImplemented
        return _rebuilt, (kind, _ARGS.__get__(value)), (attributes_of(value), slots), None, None, _restore


def _slots_of(kind: type) -> Iterator[tuple[tuple[int, str], Any]]:
    """Yield the slots that the classes of an exception define, each with its place among the classes and its name."""
    for index, base in enumerate(reversed(kind.__mro__)):
        if "__slots__" in vars(base):
            for name, member in vars(base).items():
                if isinstance(member, MemberDescriptorType):
                    yield (index, name), member


def _is_set(slot: Any, error: BaseException) -> bool:
    try:
        slot.__get__(error)
    except AttributeError:
        return False
    return True


def _rebuilt(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """Return a new exception without calling its ``__init__``, nor any ``__setattr__``: the class may be frozen."""
    error = kind.__new__(kind, *args)
    _ARGS.__set__(error, args)
    return error


def _restore(error: BaseException, state: tuple[dict[str, Any], dict[tuple[int, str], Any]]) -> None:
    attributes, values = state
    attributes_of(error).update(attributes)
    slots = dict(_slots_of(type(error)))
    for key, value in values.items():
        slots[key].__set__(error, value)


def dump_error(error: BaseException, worker: str) -> bytes:
    """Pickle an exception with its traceback as a note.

    Args:
        error: What was raised.
        worker: Where, for the note.

    Returns:
        For :func:`load_error`; includes the parts of a :class:`RemoteError`, for an exception that cannot be rebuilt.
    """
    note = f"traceback of {worker}:\n{traceback_text_of(error).rstrip()}"
    add_note(error, note)
    data: bytes | None
    try:
        data = _dumped(error)
        if type(_loaded(data)) is not type(error):
            data = None
    except BaseException:  # noqa: BLE001  # pickling runs code of any class; what it raises must not hide the error itself
        data = None
    message = message_of(error)
    stand_in = mark_handled(
        RemoteError(error_type(error), "its message cannot be printed" if message is None else str(message)), [error]
    )
    for text in dict.fromkeys((*notes_of(error), note)):
        stand_in.add_note(str(text))
    return pickle.dumps((data, _dumped(stand_in)), pickle.HIGHEST_PROTOCOL)


def _dumped(error: BaseException) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(error)
    return buffer.getvalue()


def _loaded(data: bytes) -> BaseException:
    load: Callable[[bytes], Any] = pickle.loads
    error = load(data)
    if not is_error(error, BaseException):
        raise TypeError(f"not an exception, but a {type(error).__qualname__}")
    return error  # type: ignore[no-any-return]  # checked just now


def load_error(data: bytes) -> BaseException:
    """Return the exception that :func:`dump_error` pickled, or a :class:`RemoteError` if it cannot be rebuilt."""
    pickled_error, pickled_stand_in = pickle.loads(data)
    if pickled_error is not None:
        try:
            return _loaded(pickled_error)
        except INTERRUPTIONS:
            raise
        except BaseException as error:  # noqa: BLE001  # unpickling runs code of any class
            stand_in = _loaded(pickled_stand_in)
            add_note(stand_in, f"aetherflow: the original exception cannot be unpickled here ({summary_of(error)})")
            return stand_in
    return _loaded(pickled_stand_in)


def unpickled(load: Callable[[], Any], node: str, what: str) -> Any:
    """Return the value that ``load`` unpickles.

    Args:
        load: Unpickles the value.
        node: The node that takes or returns it.
        what: The value, as in :class:`NotUnpicklableError`.

    Raises:
        NotUnpicklableError: Unpickling raised an exception.
        KeyboardInterrupt, SystemExit: Unpickling was interrupted; with a note that names the node.
    """
    try:
        return load()
    except INTERRUPTIONS as error:
        add_note(error, f"aetherflow: raised while {what} of node {node!r} was unpickled")
        raise
    except BaseException as error:  # unpickling runs code of any class
        raise NotUnpicklableError(node, what, error) from error
