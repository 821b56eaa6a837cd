"""What can go wrong with executions on workers, and how an exception gets from one process to another."""

from __future__ import annotations

import io
import pickle
import traceback
from collections.abc import Callable
from types import FunctionType
from typing import Any

from aetherflow.errors import AetherFlowError, ConfigurationError
from aetherflow.telemetry.observation import error_type, mark_handled

__all__ = ["NotImportableError", "NotPicklableError", "RemoteError", "WorkerLostError"]
__all__ += ["dump_error", "load_error"]


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
    """Stands for an exception that cannot be sent from a worker.

    Args:
        type_name: The exception's qualified class name.
        message: Its message.
    """

    def __init__(self, type_name: str, message: str) -> None:
        self.type_name = type_name
        self.message = message
        super().__init__(f"{type_name}: {message}")


class _Pickler(pickle.Pickler):
    """Pickles exceptions whose class builds its message in ``__init__``, which plain pickle would call once more."""

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        if not isinstance(value, BaseException) or not isinstance(kind.__init__, FunctionType):
            return NotImplemented
        reduce: object = kind.__reduce__
        return (_rebuilt, (kind, value.args, value.__dict__)) if reduce is BaseException.__reduce__ else NotImplemented


def _rebuilt(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def dump_error(error: BaseException, worker: str) -> bytes:
    """Pickle an exception with its traceback as a note.

    Args:
        error: What was raised.
        worker: Where, for the note.

    Returns:
        For :func:`load_error`; a :class:`RemoteError` in place of what cannot be sent.
    """
    text = "".join(traceback.format_exception(error)).rstrip()
    try:
        error.add_note(f"traceback of {worker}:\n{text}")
        data = _dumped(error)
        load_error(data)
    except Exception:  # noqa: BLE001  # pickling runs code of any class
        stand_in = mark_handled(RemoteError(error_type(error), _message(error)), [error])
        stand_in.__notes__ = [note for note in getattr(error, "__notes__", ()) if isinstance(note, str)]
        data = _dumped(stand_in)
    return data


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  # printing runs code of any class; what it raises must not hide the error itself
        return "its message cannot be printed"


def _dumped(error: BaseException) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(error)
    return buffer.getvalue()


def load_error(data: bytes) -> BaseException:
    """Return the exception that :func:`dump_error` has pickled."""
    load: Callable[[bytes], Any] = pickle.loads
    error = load(data)
    if not isinstance(error, BaseException):
        raise TypeError(f"not an exception: {error!r}")
    return error
