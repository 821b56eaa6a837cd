"""Nodes and flows: what a user writes. A flow is a node; composing gives a new node and changes none."""

from __future__ import annotations

import functools
import inspect
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import replace
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Self, cast, overload

from typing_extensions import TypeVar

from aetherflow.engine.awaitables import mark_coroutine_function
from aetherflow.engine.graph import (
    Branch,
    Call,
    Chunked,
    FanOut,
    Kind,
    Map,
    Repeat,
    Step,
    Sub,
    Task,
    chain,
    is_parallel,
    tasks,
)
from aetherflow.errors import CompositionError
from aetherflow.flow import drawing
from aetherflow.flow.batching import NotBatchedError
from aetherflow.flow.caching import NodeCache, NotCachedError
from aetherflow.flow.declaring import Executor, bound_task, check_executor
from aetherflow.flow.extra_inputs import ExtraInputs
from aetherflow.flow.references import node_reference
from aetherflow.flow.running import FlowRun
from aetherflow.flow.runs import Runs
from aetherflow.resources.batching import Batcher
from aetherflow.resources.context import AnyContext

__all__ = ["FlowRun", "Node"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R_co = TypeVar("R_co", covariant=True)
T_co = TypeVar("T_co", covariant=True, default=R_co)
S = TypeVar("S")
U = TypeVar("U")
Owner = TypeVar("Owner")
OnError = Literal["raise", "collect"]


class Node(Runs[T_co], Generic[P, R_co, T_co]):
    """A traced function, or a flow of them.

    Calling it runs it with exactly the arguments given; :meth:`run` fills the arguments from inputs, earlier results
    and a context (the order is in :mod:`aetherflow.flow.binding`). Every execution is a span and a duration.

    Made by ``@node`` and by composing, not directly. Its types are ``P``, what calling it takes; ``R_co``, what
    calling it gives, a coroutine for an ``async def``; and ``T_co``, what running it gives, with coroutines awaited.
    """

    def __new__(cls, step: Step, *args: Any, **kwargs: Any) -> Self:
        """Return a node, of the class whose ``__call__`` is a coroutine function if the node is one."""
        is_async = isinstance(step, Call) and step.task.declared is Kind.ASYNC
        return object.__new__(cast("type[Self]", _AsyncNode) if is_async and cls is Node else cls)

    def __init__(self, step: Step, name: str, *, is_named: bool = False, extra_inputs: ExtraInputs = "raise") -> None:
        if isinstance(step, Call):
            self._resemble(step.task.func)
        super().__init__(name, step, extra_inputs)
        self._is_named = is_named

    def _resemble(self, func: Callable[..., Any]) -> None:
        """Take over the name, the docstring and the attributes of a function, except those that a node itself has."""
        plain = getattr(func, "__func__", func)
        if inspect.isfunction(plain):  # the attributes of any other object are its own
            attributes = {name: value for name, value in vars(plain).items() if not hasattr(Node, name)}
            self.__dict__.update(attributes)  # those of the node itself are set later, and so replace these
        functools.update_wrapper(self, func, updated=())

    @property
    def func(self) -> Callable[P, R_co]:
        """The plain function; of a flow, that of its first node."""
        return self.task.func

    @property
    def task(self) -> Task:
        """What was read of the node when it was decorated; of a flow, of its first node."""
        return next(tasks(self._step))

    @property
    def cache(self) -> NodeCache:
        """The cache of a node with ``cache=``; of a flow, that of its first node.

        Raises:
            NotCachedError: It has none.
        """
        if self.task.cache is None:
            raise NotCachedError(self.task.name)
        return cast("NodeCache", self.task.cache)

    @property
    def batcher(self) -> Batcher[Any, Any]:
        """What collects the items of a node with ``batch=``; of a flow, those of its first node.

        Raises:
            NotBatchedError: It has none.
        """
        if self.task.batched is None:
            raise NotBatchedError(self.task.name)
        return cast("Batcher[Any, Any]", self.task.batched.batcher)

    def named(self, name: str, *, extra_inputs: ExtraInputs | None = None) -> Node[P, R_co, T_co]:
        """Return the same node or flow under another name; a named flow is one step in a flow it is put into.

        Args:
            name: The name.
            extra_inputs: The treatment of an input that no parameter takes, as for :meth:`run`, in runs of this node or
                flow itself, but not in runs of flows that it is put into. None to keep the present treatment.
        """
        if not isinstance(name, str) or not name:
            raise CompositionError(f"named({name!r}): allowed is a string that is not empty")
        extra = self._runner.extra_inputs if extra_inputs is None else extra_inputs
        if isinstance(self._step, Call):
            return Node(Call(replace(self._step.task, name=name)), name, extra_inputs=extra)
        return Node(self._step, name, is_named=True, extra_inputs=extra)

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(
        self: Node[Concatenate[Owner, Q], S, U], instance: Owner, owner: type | None = None
    ) -> Node[Q, S, U]: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Bind a node that is a method to its object."""
        if instance is None or not isinstance(self._step, Call):
            return self
        bound = Call(bound_task(self._step.task, instance, owner))
        return Node(bound, self._name, extra_inputs=self._runner.extra_inputs)

    # --- running -------------------------------------------------------------------------------------------

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run it traced with exactly these arguments; those of a flow are its first node's."""
        return self._runner.call(args, kwargs)  # type: ignore[no-any-return]  # what the function gives

    # --- composing -----------------------------------------------------------------------------------------

    def then(self, following: Node[..., Any, S]) -> Node[P, S]:
        """Return this flow followed by another node; after a fan-out, that takes the branches' results in."""
        return self._followed_by(_step_of(following, "then()"))

    @overload
    def __rshift__(self, following: Node[..., Any, S]) -> Node[P, S]: ...
    @overload
    def __rshift__(self, following: Sequence[Node[..., Any, Any]]) -> Node[P, dict[str, Any]]: ...
    def __rshift__(self, following: Node[..., Any, Any] | Sequence[Node[..., Any, Any]]) -> Node[P, Any]:
        """``a >> b`` is ``a.then(b)``; ``a >> [b, c]`` is ``a.fan_out_to([b, c])``."""
        return self.fan_out_to(following) if isinstance(following, list | tuple) else self.then(following)  # type: ignore[arg-type]

    def fan_out_to(
        self,
        branches: Sequence[Node[..., Any, Any]],
        *,
        executor: Executor | None = None,
        max_workers: int | None = None,
        on_error: OnError = "raise",
        split: bool | None = None,
    ) -> Node[P, dict[str, Any]]:
        """Return this flow followed by branches side by side, whose results are a mapping by name.

        Different nodes get the whole output each. One node ``k`` times, ``[n] * k`` from ``[n] * 1`` on, is ``k``
        workers over the elements of the output, where that is a list, a tuple or a mapping of just one; results are
        ``n[0]``, ``n[1]``…

        Args:
            branches: Nodes or flows.
            executor: Where they run: ``"thread"``, in this process as without it; or ``"process"``, on workers
                that import the functions and build a context of their own.
            max_workers: The most at once.
            on_error: ``"raise"`` the error of a branch, or ``"collect"`` a :class:`Failure` in its place.
            split: For one node several times: False to give each execution the whole output, True to insist on
                elements, None to look at the output.
        """
        collect = _is_collect(on_error)
        check_executor(executor)
        _check_count("max_workers", max_workers)
        if not isinstance(branches, list | tuple) or not branches:
            raise CompositionError(f"fan_out_to({branches!r}): allowed is a list of at least one node")
        steps = [_step_of(branch, "fan_out_to()") for branch in branches]
        same = all(branch is branches[0] for branch in branches)
        if same:
            workers = min(len(branches), max_workers or len(branches))
            step: Step = Map(steps[0], workers, split, True, executor, collect, len(branches))
        elif split is not None:
            raise CompositionError(f"fan_out_to(split={split}): only one node, [n] * k, can be split over")
        else:
            step = FanOut(tuple(steps), executor, max_workers, collect)
        return self._followed_by(step)

    def fan_in(self, following: Node[..., Any, S]) -> Node[P, S]:
        """Return this fan-out followed by a node that takes its results in."""
        if not is_parallel(self._step):
            raise CompositionError(f"fan_in(): flow {self._name!r} does not end in a fan-out; use then()")
        return self._followed_by(_step_of(following, "fan_in()"))

    def fan_out_in(
        self,
        branches: Sequence[Node[..., Any, Any]],
        following: Node[..., Any, S],
        *,
        executor: Executor | None = None,
        max_workers: int | None = None,
        on_error: OnError = "raise",
        split: bool | None = None,
    ) -> Node[P, S]:
        """Return this flow followed by branches and the node that takes their results in."""
        fanned = self.fan_out_to(branches, executor=executor, max_workers=max_workers, on_error=on_error, split=split)
        return fanned.fan_in(following)

    def branch_on(
        self, choices: Mapping[Any, Node[..., Any, Any]], default: Node[..., Any, Any] | None = None
    ) -> Node[P, Any]:
        """Return this flow followed by the one node that its output stands for.

        Args:
            choices: Nodes or flows by output.
            default: What follows any other output; without it that is a :class:`BranchError`.
        """
        if not isinstance(choices, Mapping) or not choices:
            raise CompositionError(f"branch_on({choices!r}): allowed is a mapping from outputs to nodes, not empty")
        steps: dict[int, Step] = {}

        def step_of(choice: object) -> Step:
            return steps.setdefault(id(choice), _step_of(choice, "branch_on()"))

        planned: dict[Hashable, Step] = {key: step_of(choice) for key, choice in choices.items()}
        return self._followed_by(Branch(planned, None if default is None else step_of(default)))

    def repeat(self, times: int, until: Callable[[Any], object] | None = None) -> Node[P, T_co]:
        """Return this flow several times over; each round's output is the next one's first positional argument.

        Args:
            times: The most rounds, from 1.
            until: Ends the rounds once it is true of an output.
        """
        _check_count("times", times)
        if times is None:
            raise CompositionError("repeat(None): allowed is a whole number from 1")
        if until is not None and not callable(until):
            raise CompositionError(f"repeat(until={until!r}): allowed is a function of the output, or None")
        return Node(Repeat(self._as_step(), times, cast("Any", until)), self._name)

    def map(
        self,
        body: Node[..., Any, S],
        *,
        max_concurrency: int | None = None,
        executor: Executor | None = None,
        on_error: OnError = "raise",
    ) -> Node[P, list[S]]:
        """Return this flow followed by a node executed on each element of its output; results are a list, in order.

        Args:
            body: The node or flow.
            max_concurrency: Executions at once at most; None for as many as there are threads.
            executor: Where they run, as in :meth:`fan_out_to`.
            on_error: ``"raise"`` the error of an execution, or ``"collect"`` a :class:`Failure` in its place.
        """
        collect = _is_collect(on_error)
        check_executor(executor)
        _check_count("max_concurrency", max_concurrency)
        return self._followed_by(Map(_step_of(body, "map()"), max_concurrency, True, False, executor, collect))

    @overload
    def chunked(
        self: Node[P, Any, Iterator[S] | AsyncIterator[S]], size: int | None = None
    ) -> Node[P, Iterator[list[S]]]: ...
    @overload
    def chunked(self: Node[P, Any, Iterable[S]], size: int | None = None) -> Node[P, list[list[S]]]: ...
    def chunked(self: Node[P, Any, Any], size: int | None = None) -> Node[P, Any]:
        """Return this flow followed by a stage that puts the elements of its output together in lists.

        Of a generator or another iterator it makes a stream of lists, of anything else that can be iterated over, or a
        mapping of just one list, a list of lists.

        Args:
            size: How many elements a list has, from 1; the last one may have fewer. None for ``AETHER_BATCH_SIZE``.
        """
        _check_count("size", size)
        return self._followed_by(Chunked(size))

    @overload
    def map_batches(  # type: ignore[overload-overlap]  # of an iterator: a stream; of all else: a list
        self: Node[P, Any, Iterator[Any] | AsyncIterator[Any]],
        body: Node[..., Any, Iterable[S] | AsyncIterable[S]],
        size: int | None = None,
    ) -> Node[P, Iterator[S]]: ...
    @overload
    def map_batches(
        self, body: Node[..., Any, Iterable[S] | AsyncIterable[S]], size: int | None = None
    ) -> Node[P, list[S]]: ...
    def map_batches(self: Node[P, Any, Any], body: Node[..., Any, Any], size: int | None = None) -> Node[P, Any]:
        """Return this flow followed by a node executed on lists of the elements of its output, one after the other.

        Of a generator or another iterator it makes a stream of results, of anything else a list.

        Args:
            body: The node or flow; it takes a list of elements, and what it gives are results, of any number.
            size: As for :meth:`chunked`.
        """
        _check_count("size", size)
        return self._followed_by(Chunked(size, _step_of(body, "map_batches()")))

    def _as_step(self) -> Step:
        if isinstance(self._step, Call) and self._step.task.has_var_positional:
            raise CompositionError(
                f"node {self._name!r} has a *args parameter, which no output or input can fill in a flow; give its "
                f"function named parameters, or wrap it in a function that has them"
            )
        return Sub(self._name, self._step) if self._is_named else self._step

    def _followed_by(self, step: Step) -> Node[P, Any]:
        return Node(chain(self._as_step(), step), self._name)

    # --- copies ----------------------------------------------------------------------------------------------

    def __copy__(self) -> Self:
        """Return the node itself: nothing ever changes it."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Return the node itself: nothing ever changes it."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a node by the name that it can be imported by.

        Raises:
            pickle.PicklingError: It has none.
        """
        return node_reference(self, self._step, self._name)

    # --- showing -------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        return drawing.to_text(self._step)

    def __repr__(self) -> str:
        return f"<Node {self._name!r}: {drawing.to_text(self._step)}>"

    def to_mermaid(self, context: AnyContext | None = None) -> str:
        """Return the graph as a Mermaid flowchart.

        An edge is solid if data flows along it. A dashed edge shows the order of two nodes only: the second takes its
        arguments from elsewhere.

        Args:
            context: A context, or a context class, whose providers fill parameters; None for no providers.
        """
        return drawing.to_mermaid(self._name, self._step, context)

    def to_dot(self, context: AnyContext | None = None) -> str:
        """Return the graph in Graphviz's language; edges and argument as for :meth:`to_mermaid`."""
        return drawing.to_dot(self._name, self._step, context)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return drawing.to_mimebundle(self._name, self._step)


class _AsyncNode(Node[P, R_co, T_co]):
    """A node made from a coroutine function, which other libraries have to recognise as one."""

    def __init__(self, step: Step, name: str, *, is_named: bool = False, extra_inputs: ExtraInputs = "raise") -> None:
        super().__init__(step, name, is_named=is_named, extra_inputs=extra_inputs)
        mark_coroutine_function(self)

    async def __call__(self, /, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # R_co is a coroutine
        """Run it traced with exactly these arguments."""
        return await self._runner.call(args, kwargs)


def _step_of(value: object, where: str) -> Step:
    if isinstance(value, Node):
        return value._as_step()
    hint = "; decorate it with @node" if callable(value) else ""
    raise CompositionError(f"{where}: {value!r} is a {type(value).__name__}, not a node{hint}")


def _is_collect(on_error: str) -> bool:
    if on_error not in ("raise", "collect"):
        raise CompositionError(f"on_error={on_error!r}: allowed are 'raise' and 'collect'")
    return on_error == "collect"


def _check_count(name: str, value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise CompositionError(f"{name}={value!r}: allowed is a whole number from 1")
