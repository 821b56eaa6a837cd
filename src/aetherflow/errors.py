"""Every error AetherFlow raises on purpose; each builds its message from the data that it carries."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

__all__ = [
    "AetherFlowError",
    "BranchError",
    "CompositionError",
    "ConfigurationError",
    "MissingExtraError",
    "MissingInputError",
    "NodeTimeoutError",
    "NotAStreamError",
    "ResourceError",
    "SplitError",
    "StreamError",
    "UnknownInputError",
    "UnusedOutputWarning",
]


SHOWN_NAMES: Final = 8
"""The most unknown inputs that a message lists."""

_SHOWN: Final = 20
"""The most available names that a message lists."""

_LONGEST_NAME: Final = 80
"""The most characters of a name that a message shows."""


def short_repr(value: object) -> str:
    """Return a representation of a value for a message, shortened, also of an integer with too many digits for one."""
    try:
        return reprlib.repr(value)
    except ValueError:
        return f"an {type(value).__name__} with thousands of digits"


class AetherFlowError(Exception):
    """Base class of the errors that AetherFlow itself raises; each of them can be pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        # The message is built from other arguments: calling the class with it would fail.
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(kind: type[AetherFlowError], args: tuple[Any, ...], state: dict[str, Any]) -> AetherFlowError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class CompositionError(AetherFlowError, ValueError):
    """Nodes were put together in a way that cannot run; raised where the composing happens."""


class ConfigurationError(AetherFlowError, ValueError):
    """A setting or argument has a value that is not allowed; names it, the value and what is allowed."""


class MissingExtraError(AetherFlowError, ImportError):
    """A feature needs a package that only an extra installs.

    Args:
        feature: The feature, such as ``aetherflow serve``.
        package: The package that is not installed.
        extra: The extra of this distribution that installs it.
    """

    def __init__(self, feature: str, package: str, extra: str) -> None:
        self.feature = feature
        self.package = package
        self.extra = extra
        super().__init__(f"{feature} needs {package}: pip install 'aetherflow-otel[{extra}]'", name=package)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.feature, self.package, self.extra)


class MissingInputError(AetherFlowError, LookupError):
    """A parameter of a node cannot be filled.

    Args:
        flow: The flow's name.
        node: The node whose parameter is open.
        parameter: The parameter's name.
        available: Names it could have been filled from.
        reason: What else a user should know.
    """

    def __init__(self, flow: str, node: str, parameter: str, available: Iterable[str], reason: str = "") -> None:
        self.flow = flow
        self.node = node
        self.parameter = parameter
        self.available = tuple(available)
        self.reason = reason
        shown = [name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…" for name in self.available[:_SHOWN]]
        more = len(self.available) - len(shown)
        names = (", ".join(shown) or "nothing") + (f" and {more} more" if more else "")
        tail = f" ({reason})" if reason else ""
        super().__init__(
            f"flow {flow!r}: nothing fills parameter {parameter!r} of node {node!r}; available: {names}{tail}"
        )


class UnknownInputError(AetherFlowError, LookupError):
    """No parameter of a flow takes one of the run inputs; raised before any node runs.

    Args:
        flow: The flow's name.
        inputs: The names of the inputs that no parameter takes.
        hints: The reason, or the nearest spelling, for those inputs that have one.
        allowed: The names of the inputs that the flow takes.
    """

    def __init__(self, flow: str, inputs: Iterable[str], hints: Mapping[str, str], allowed: Iterable[str]) -> None:
        self.flow = flow
        self.inputs = tuple(inputs)
        self.hints = dict(hints)
        self.allowed = tuple(allowed)
        noun = "input" if len(self.inputs) == 1 else "inputs"
        reasons = [self.hints[name] for name in self.inputs[:SHOWN_NAMES] if name in self.hints]
        sentences = [
            f"flow {flow!r}: no parameter takes the {noun} {_listed(self.inputs)}.",
            *(hint if hint.endswith("?") else f"{hint}." for hint in reasons),
            f"Inputs of this flow: {_listed(self.allowed) or 'none'}.",
            'To ignore unknown inputs, pass extra_inputs="ignore" to the run.',
        ]
        super().__init__(" ".join(sentences))


class UnusedOutputWarning(UserWarning):
    """A node does not use the output of the previous step, or probably uses it for the wrong parameter."""


def _listed(names: Iterable[object]) -> str:
    every = [repr(name)[:_LONGEST_NAME] for name in names]
    more = len(every) - SHOWN_NAMES
    return ", ".join(every[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


class BranchError(AetherFlowError, LookupError):
    """No branch stands for the value that a node returned, and there is no default."""

    def __init__(self, node: str, value: object, allowed: Iterable[object]) -> None:
        self.node = node
        self.value = value
        self.allowed = tuple(allowed)
        keys = ", ".join(map(repr, self.allowed))
        super().__init__(f"no branch after {node!r} for {value!r}; branches: {keys}; or give default=")


class NodeTimeoutError(AetherFlowError, TimeoutError):
    """A node ran longer than its ``timeout``, in seconds."""

    def __init__(self, node: str, timeout: float) -> None:
        self.node = node
        self.timeout = timeout
        super().__init__(f"node {node!r} did not finish within its timeout of {timeout:g} s")


class SplitError(AetherFlowError, TypeError):
    """What a node should be executed on, element by element, has no elements."""

    def __init__(self, node: str, value: object) -> None:
        self.node = node
        super().__init__(
            f"node {node!r} maps over the output before it, which is a {type(value).__name__}; "
            f"allowed: an iterable other than str and bytes, or a mapping whose only value is a list or tuple"
        )


class NotAStreamError(AetherFlowError, TypeError):
    """A flow was streamed whose last output has no items to iterate over."""

    def __init__(self, flow: str, output: object) -> None:
        self.flow = flow
        super().__init__(
            f"flow {flow!r} ends in a {type(output).__name__}, which cannot be streamed; end it with a generator node, "
            f"or use run()"
        )


class ResourceError(AetherFlowError, RuntimeError):
    """An async resource is needed on an event loop that it does not belong to.

    Args:
        resource: The name of the resource.
        owner: The event loop that the resource belongs to.
        user: The event loop, or the run, that needs it.
        reason: The remedy, and anything else that a user should know.
    """

    def __init__(self, resource: str, owner: str, user: str, reason: str) -> None:
        self.resource = resource
        self.owner = owner
        self.user = user
        super().__init__(f"resource {resource!r} belongs to {owner}, but {user} needs it: {reason}")


class StreamError(AetherFlowError, RuntimeError):
    """A stream was used in a way that it does not allow.

    Args:
        node: The node that yields the items; for an iterator that is no stream, the node that reads it.
        reason: The rule that was broken, and the alternatives.
        subject: The beginning of the message, before the node's name.
    """

    def __init__(self, node: str, reason: str, *, subject: str = "the stream of node") -> None:
        self.node = node
        super().__init__(f"{subject} {node!r} {reason}")
