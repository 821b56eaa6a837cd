"""A flow over many inputs: a bounded number in flight, so that a slow consumer slows the source."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future, wait
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from aetherflow.engine.pool import ThreadPool, default_pool
from aetherflow.errors import ConfigurationError

__all__ = ["run_many"]

Run = Callable[[Any], Any]


def run_many(
    run: Run, inputs: Iterable[Any], name: str, *, max_workers: int | None, ordered: bool, progress: bool
) -> Iterator[Any]:
    """Run a flow once for each input and yield the outputs; see :meth:`aetherflow.flow.node.Node.run_many`.

    Args:
        run: Runs the flow on one input.
        inputs: Taken one by one, as they are needed.
        name: What the progress bar is called.
        max_workers: Runs in flight at most.
        ordered: Whether outputs come in the order of the inputs.
        progress: Whether to show a progress bar.
    """
    if max_workers is not None and (isinstance(max_workers, bool) or not isinstance(max_workers, int) or max_workers < 1):
        raise ConfigurationError(f"run_many(max_workers={max_workers!r}): allowed is a whole number from 1, or None")
    if isinstance(inputs, str | bytes) or not isinstance(inputs, Iterable):
        raise ConfigurationError(f"run_many({inputs!r}): allowed is an iterable of inputs")
    pool = default_pool()
    outputs = (_in_order if ordered else _as_ready)(run, inputs, max_workers or pool.size, pool)
    return _shown(outputs, name, len(inputs) if isinstance(inputs, Sized) else None) if progress else outputs


def _submit(pool: ThreadPool, run: Run, item: Any) -> Future[Any]:
    return pool.call(copy_context().run, run, item)


def _in_order(run: Run, inputs: Iterable[Any], limit: int, pool: ThreadPool) -> Iterator[Any]:
    window: deque[tuple[Future[Any], Any]] = deque()

    def next_output() -> Any:
        future, item = window.popleft()
        # Not begun: run it here, so that a run_many on a pool that is full of its callers gets on.
        return copy_context().run(run, item) if future.cancel() else future.result()

    try:
        for item in inputs:
            window.append((_submit(pool, run, item), item))
            if len(window) >= limit:
                yield next_output()
        while window:
            yield next_output()
    finally:
        _settle([future for future, _ in window])


def _as_ready(run: Run, inputs: Iterable[Any], limit: int, pool: ThreadPool) -> Iterator[Any]:
    ready: SimpleQueue[Future[Any]] = SimpleQueue()
    flying: dict[Future[Any], Any] = {}

    def next_output() -> Any:
        if ready.empty():
            for future, item in flying.items():
                if future.cancel():  # not begun: as above
                    del flying[future]
                    return copy_context().run(run, item)
        future = ready.get()
        del flying[future]
        return future.result()

    def land(future: Future[Any]) -> None:
        if not future.cancelled():
            ready.put(future)

    try:
        for item in inputs:
            future = _submit(pool, run, item)
            flying[future] = item
            future.add_done_callback(land)
            if len(flying) >= limit:
                yield next_output()
        while flying:
            yield next_output()
    finally:
        _settle(list(flying))


def _settle(futures: list[Future[Any]]) -> None:
    """Begin no more runs and wait for those under way."""
    wait([future for future in futures if not future.cancel()])


def _shown(outputs: Iterator[Any], name: str, total: int | None) -> Iterator[Any]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task(name, total=total)
        for output in outputs:
            yield output
            bar.advance(task)
