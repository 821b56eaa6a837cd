"""What every flow can do: run, once or over many inputs, and give its last output, all outputs, or a stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Generic, TypeVar

from aetherflow.engine.graph import Step
from aetherflow.engine.streaming import Stream
from aetherflow.flow.extra_inputs import ExtraInputs
from aetherflow.flow.many import run_many
from aetherflow.flow.running import NO_INPUT, FlowRun, Runner
from aetherflow.resources.context import AnyContext

__all__ = ["Runs"]

T_co = TypeVar("T_co", covariant=True)
S = TypeVar("S")


class Runs(Generic[T_co]):
    """A flow as whoever runs it sees it; ``T_co`` is what a run gives.

    Args:
        name: The flow's name.
        step: Its graph.
        extra_inputs: The treatment of run inputs that no parameter takes, unless a call says otherwise.
    """

    def __init__(self, name: str, step: Step, extra_inputs: ExtraInputs = "raise") -> None:
        self._name = name
        self._step = step
        self._runner = Runner(name, step, extra_inputs)

    @property
    def name(self) -> str:
        """The node's name, or the flow's: the one it was given, else that of its first node."""
        return self._name

    def _runner_for(self, extra_inputs: ExtraInputs | None) -> Runner:
        return self._runner if extra_inputs is None else self._runner.treating(extra_inputs)

    def run(
        self,
        inputs: Mapping[str, Any] | object = NO_INPUT,
        context: AnyContext | None = None,
        *,
        extra_inputs: ExtraInputs | None = None,
    ) -> T_co:
        """Run it and return the last output.

        Args:
            inputs: A mapping of inputs by name; anything else, None included, goes to the first node's first parameter.
                Leave it out for a run without inputs.
            context: A container, or container class, that nodes are injected from.
            extra_inputs: ``"raise"`` an `UnknownInputError` for an input that no parameter takes, or ``"ignore"`` it.
                None for the value given to :meth:`Node.named`, which is ``"raise"`` by default.

        Raises:
            MissingInputError: Nothing fills a parameter. Raised before anything runs, unless it depends on the run.
            UnknownInputError: No parameter takes an input. Raised before anything runs.

        Warns:
            UnusedOutputWarning: Once per flow and node, if a node does not use the output of the step before it.
        """
        runner = self._runner if extra_inputs is None else self._runner.treating(extra_inputs)
        return runner.run(inputs, context)  # type: ignore[no-any-return]  # what its last node gives

    async def arun(
        self,
        inputs: Mapping[str, Any] | object = NO_INPUT,
        context: AnyContext | None = None,
        *,
        extra_inputs: ExtraInputs | None = None,
    ) -> T_co:
        """Run it on the running event loop, synchronous nodes on threads; as :meth:`run` otherwise."""
        runner = self._runner_for(extra_inputs)
        return await runner.arun(inputs, context)  # type: ignore[no-any-return]  # what its last node gives

    def execute(
        self,
        inputs: Mapping[str, Any] | object = NO_INPUT,
        context: AnyContext | None = None,
        *,
        extra_inputs: ExtraInputs | None = None,
    ) -> FlowRun[T_co]:
        """Run it and return every node's output, with the run's identifiers and duration; arguments as for `run`."""
        return self._runner_for(extra_inputs).execute(inputs, context)

    async def aexecute(
        self,
        inputs: Mapping[str, Any] | object = NO_INPUT,
        context: AnyContext | None = None,
        *,
        extra_inputs: ExtraInputs | None = None,
    ) -> FlowRun[T_co]:
        """Run it on the running event loop; as :meth:`execute` otherwise."""
        return await self._runner_for(extra_inputs).aexecute(inputs, context)

    def stream(
        self: Runs[Iterable[S] | AsyncIterable[S]],
        inputs: Mapping[str, Any] | object = NO_INPUT,
        context: AnyContext | None = None,
        *,
        buffer: int | None = None,
        extra_inputs: ExtraInputs | None = None,
    ) -> Stream[S]:
        """Run it and iterate over the items of the generator at its end; the run lasts as long.

        Each item is pulled through all generator nodes of the flow, and made when it is pulled. Leaving the block of
        ``with flow.stream(…) as items`` early closes each of them, so that their ``finally`` clauses run.

        Args:
            inputs: As for :meth:`run`.
            context: As for :meth:`run`.
            buffer: The most items that each generator node makes ahead, on a thread of its own.
            extra_inputs: As for :meth:`run`.
        """
        return self._runner_for(extra_inputs).stream(inputs, context, buffer)

    def astream(
        self: Runs[Iterable[S] | AsyncIterable[S]],
        inputs: Mapping[str, Any] | object = NO_INPUT,
        context: AnyContext | None = None,
        *,
        buffer: int | None = None,
        extra_inputs: ExtraInputs | None = None,
    ) -> AsyncGenerator[S, None]:
        """Run it on the running event loop; as :meth:`stream` otherwise.

        With ``buffer``, asynchronous generators are tasks of the loop in place of threads. To end it early, close it
        (``contextlib.aclosing``), as any asynchronous generator.
        """
        return self._runner_for(extra_inputs).astream(inputs, context, buffer)

    def run_many(
        self,
        inputs: Iterable[Mapping[str, Any] | object],
        context: AnyContext | None = None,
        *,
        max_workers: int | None = None,
        ordered: bool = True,
        progress: bool = False,
        extra_inputs: ExtraInputs | None = None,
    ) -> Iterator[T_co]:
        """Run it once for each of many inputs and yield the outputs.

        If the source of the inputs raises an exception, the outputs of the inputs before it are yielded first.

        Args:
            inputs: Mappings of inputs by name; anything else, None included, goes to the first node's first parameter.
                Taken as they are needed: a bounded number is in flight, so a slow consumer slows the source.
            context: A container that nodes are injected from.
            max_workers: Runs at once at most; None for as many as the pool has threads, and as fill a batch.
            ordered: Whether outputs come in the order of the inputs, or as they are ready.
            progress: Whether to show a progress bar on the terminal.
            extra_inputs: As for :meth:`run`.
        """
        runner = self._runner_for(extra_inputs)
        run = partial(runner.run, context=context)
        batches = runner.batches(context)
        return run_many(
            run, inputs, self._name, max_workers=max_workers, ordered=ordered, progress=progress, batches=batches
        )
