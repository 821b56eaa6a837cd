"""Nodes whose calls become batches: each caller gives one item, and the function gets a list of them."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Sequence
from typing import Any, get_args

from opentelemetry import trace

from aetherflow.engine.graph import Kind
from aetherflow.engine.pool import default_pool
from aetherflow.errors import AetherFlowError, ConfigurationError
from aetherflow.flow.owners import BoundTo, MethodPlace
from aetherflow.resources.batching import Batcher, BatchPolicy
from aetherflow.resources.gathering import Given, Placement

__all__ = ["Batched", "NotBatchedError", "batched", "with_item_annotation"]


class NotBatchedError(AetherFlowError, AttributeError):
    """A node was asked for its batcher and has none."""

    def __init__(self, node: str) -> None:
        self.node = node
        super().__init__(f"node {node!r} has no batcher; decorate it with @node(batch=BatchPolicy(…))")


class Batched:
    """A function that is called with one item where it takes a list of them.

    Args:
        name: The node's name, which is the batcher's.
        func: The function.
        parameters: Its parameters, variadic ones left out.
        policy: What the batches are like; settings are read when the first item comes.
        expected: Exceptions of the function that are no failures.
    """

    def __init__(
        self,
        name: str,
        func: Callable[..., Any],
        parameters: Sequence[inspect.Parameter],
        policy: BatchPolicy,
        expected: tuple[type[Exception], ...] = (),
    ) -> None:
        self._name = name
        self._expected = expected
        self._func = func
        self._policy = policy
        self.parameters = tuple(parameters)
        self._place = MethodPlace.of(func)
        self._made: Batcher[Any, Any] | None = None
        self._lock = threading.Lock()

    @property
    def batcher(self) -> Batcher[Any, Any]:
        """What collects the items."""
        return self._made or self._make()

    def given(self, /, *args: Any, **kwargs: Any) -> Given:
        """Take the arguments of a call apart."""
        lead: tuple[Any, ...] = ()
        if args:
            first = args[0]
            if type(first) is BoundTo:
                lead, args = (first.instance,), args[1:]
            elif self._place is not None and self._place.is_owner(first):
                lead, args = args[:1], args[1:]
        if args:
            return Given(lead, args[0], args[1:], kwargs)
        places = self.parameters[len(lead) : len(lead) + 1]
        item = places[0].name if places else "items"
        if item not in kwargs:
            raise TypeError(f"{self._name}() is missing its item, the argument {item!r}")
        named = dict(kwargs)
        return Given(lead, named.pop(item), (), named)

    def call(self, /, *args: Any, **kwargs: Any) -> Any:
        """Give the item, and wait for its result."""
        return self.batcher.run_with(self.given(*args, **kwargs))

    async def acall(self, /, *args: Any, **kwargs: Any) -> Any:
        """Give the item, and await its result."""
        return await self.batcher.arun_with(self.given(*args, **kwargs))

    def _make(self) -> Batcher[Any, Any]:
        policy = self._policy
        with self._lock:
            if self._made is None:
                self._made = Batcher(
                    self._func,
                    policy.size,
                    policy.max_wait,
                    retry_singly=policy.retry_singly,
                    name=self._name,
                    clock=policy.clock,
                    on_item=_tell,
                    on_thread=_on_pool,
                    expected=self._expected,
                )
            return self._made


def batched(
    name: str,
    func: Callable[..., Any],
    kind: Kind,
    parameters: Sequence[inspect.Parameter],
    policy: BatchPolicy,
    expected: tuple[type[Exception], ...] = (),
) -> Batched:
    """Have a node called with one item where its function takes a list of them.

    Args:
        name: The node's name.
        func: The function.
        kind: How it gives its results.
        parameters: Its parameters, variadic ones left out.
        policy: What the batches are like.
        expected: Exceptions of the function that are no failures.

    Raises:
        ConfigurationError: The policy does not fit the function.
    """
    given: object = policy
    if not isinstance(given, BatchPolicy):
        raise ConfigurationError(f"node {name!r}: batch={policy!r}; allowed is BatchPolicy(…) or None")
    if kind in (Kind.STREAM, Kind.ASYNC_STREAM):
        raise ConfigurationError(f"node {name!r} is a generator: batch= is allowed on functions only")
    if all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters):
        raise ConfigurationError(
            f"node {name!r} has no parameter for the items: batch= is allowed on functions whose first one takes a list"
        )
    return Batched(name, func, parameters, policy, expected)


def with_item_annotation(parameters: tuple[inspect.Parameter, ...]) -> tuple[inspect.Parameter, ...]:
    """Return the parameters of a batched node as its callers see them: the first takes one item instead of a list."""
    if not parameters or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
        return parameters
    items = get_args(parameters[0].annotation)
    return (parameters[0].replace(annotation=items[0] if items else inspect.Parameter.empty), *parameters[1:])


def _tell(placement: Placement) -> None:
    """Say on the node's span where its item was."""
    span = trace.get_current_span()
    if span.is_recording():
        span.set_attributes(placement.attributes())


def _on_pool(work: Callable[[], object]) -> object:
    return default_pool().submit(work)
