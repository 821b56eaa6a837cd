"""A flow over many inputs: a bounded number in flight, so that a slow consumer slows the source."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future, wait
from contextlib import closing
from contextvars import copy_context
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from aetherflow.engine.pool import Outcome, PoolFuture, ThreadPool, default_pool
from aetherflow.errors import ConfigurationError, short_repr
from aetherflow.user_exceptions import add_note, summary_of

__all__ = ["Batches", "run_many"]

Run = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Batches:
    """How the runs of a flow are made that has a batched node in it.

    Args:
        size: Runs that fill a batch.
        max_wait: Seconds after which a run waits for no more than the next input to arrive.
        clock: Monotonic time in seconds.
        run: Runs the flow on many inputs at once; None where it is more than that node.
    """

    size: int
    max_wait: float
    clock: Callable[[], float]
    run: Callable[[Sequence[Any]], Sequence[Outcome]] | None


def run_many(
    run: Run,
    inputs: Iterable[Any],
    name: str,
    *,
    max_workers: int | None,
    ordered: bool,
    progress: bool,
    batches: Batches | None = None,
) -> Iterator[Any]:
    """Run a flow once for each input and yield the outputs; see :meth:`aetherflow.flow.node.Node.run_many`.

    Args:
        run: Runs the flow on one input.
        inputs: Taken one by one, as they are needed. If the iterable raises an exception, it comes after the
            outputs of the inputs before it.
        name: What the progress bar is called.
        max_workers: Runs in flight at most.
        ordered: Whether outputs come in the order of the inputs.
        progress: Whether to show a progress bar.
        batches: How the runs are made where they wait for each other.
    """
    workers: object = max_workers
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise ConfigurationError(f"run_many(max_workers={workers!r}): allowed is a whole number from 1, or None")
    if isinstance(inputs, str | bytes | Mapping) or not isinstance(inputs, Iterable):
        raise ConfigurationError(
            f"run_many({short_repr(inputs)}): allowed is an iterable of inputs, such as a list of mappings"
        )
    pool = default_pool()
    each = _in_order if ordered else _as_ready
    source = _Source(inputs)
    if batches is None:
        outputs = each(run, source, max_workers or pool.size, pool)
    elif batches.run is None:
        outputs = each(run, source, max_workers or max(pool.size, batches.size), pool)
    else:
        size = min(batches.size, max_workers or batches.size)
        chunks = _chunks(source, size, batches.max_wait, batches.clock)
        outputs = _spread(each(batches.run, chunks, max(1, max_workers // size) if max_workers else pool.size, pool))
    outputs = _until_failure(outputs, source)
    return _shown(outputs, name, len(inputs) if isinstance(inputs, Sized) else None) if progress else outputs


class _Source:
    """The inputs until the first exception, which is stored until the outputs of these inputs have been yielded.

    Exceptions such as ``KeyboardInterrupt`` are not stored, but raised immediately.
    """

    def __init__(self, inputs: Iterable[Any]) -> None:
        self._inputs = inputs
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[Any]:
        try:
            # "yield from" would close the generator of a caller that closes early.
            for item in self._inputs:  # noqa: UP028  # as above
                yield item
        except Exception as error:  # noqa: BLE001  # raised after the outputs
            self.failure = error


def _until_failure(outputs: Generator[Any, None, None], source: _Source) -> Generator[Any, None, None]:
    """Yield outputs, then raise the exception of the source if it has failed; of a run that fails, add it as a note."""
    with closing(outputs):
        try:
            yield from outputs
        except Exception as error:
            if source.failure is not None:
                add_note(error, f"aetherflow: the source of the inputs failed too: {summary_of(source.failure)}")
            raise
    if source.failure is not None:
        raise source.failure


def _in_order(run: Run, inputs: Iterable[Any], limit: int, pool: ThreadPool) -> Generator[Any, None, None]:
    window: deque[tuple[PoolFuture, Any]] = deque()

    def next_output() -> Any:
        future, item = window.popleft()
        # Not begun: run it here, so that a run_many on a pool that is full of its callers gets on.
        return copy_context().run(run, item) if future.cancel() else future.result().get()

    try:
        for item in inputs:
            window.append((pool.call(copy_context().run, run, item), item))
            if len(window) >= limit:
                yield next_output()
        while window:
            yield next_output()
    finally:
        _settle([future for future, _ in window])


def _as_ready(run: Run, inputs: Iterable[Any], limit: int, pool: ThreadPool) -> Generator[Any, None, None]:
    ready: SimpleQueue[Future[Outcome]] = SimpleQueue()
    flying: dict[Future[Outcome], tuple[PoolFuture, Any]] = {}

    def next_output() -> Any:
        # As above, but only where none is on its way: while one runs here, others that get ready have to wait.
        if ready.empty() and not any(future.running() for future in flying):
            for future, item in flying.values():
                if not future.ticket.is_sure and future.cancel():
                    del flying[future]
                    return copy_context().run(run, item)
        done = ready.get()
        del flying[done]
        return done.result().get()

    def land(future: Future[Outcome]) -> None:
        if not future.cancelled():
            ready.put(future)

    try:
        for item in inputs:
            future = pool.call(copy_context().run, run, item)
            flying[future] = (future, item)
            future.add_done_callback(land)
            if len(flying) >= limit:
                yield next_output()
        while flying:
            yield next_output()
    finally:
        _settle(flying)


def _chunks(inputs: Iterable[Any], size: int, max_wait: float, clock: Callable[[], float]) -> Iterator[list[Any]]:
    """Yield inputs in lists that are full, or whose first one has waited long enough when the next one arrives.

    Nobody looks at the time in between: while the source itself waits, so does what it has given.
    """
    chunk: list[Any] = []
    due = 0.0
    for item in inputs:
        due = due if chunk else clock() + max_wait
        chunk.append(item)
        if len(chunk) >= size or clock() >= due:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _spread(chunks: Generator[Sequence[Outcome], None, None]) -> Generator[Any, None, None]:
    """Yield the outputs of runs that were made together, one by one."""
    with closing(chunks):
        for outcomes in chunks:
            for outcome in outcomes:
                if outcome.error is not None:
                    raise outcome.error
                yield outcome.value


def _settle(futures: Iterable[Future[Any]]) -> None:
    """Begin no more runs and wait for those under way."""
    wait([future for future in futures if not future.cancel()])


def _shown(outputs: Generator[Any, None, None], name: str, total: int | None) -> Iterator[Any]:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
    )
    # A console of its own, because one console cannot show two bars; on stderr, because stdout is for what is printed.
    with closing(outputs), progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=total)
        for output in outputs:
            bar.advance(task)
            yield output
