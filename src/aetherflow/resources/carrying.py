"""Batches are carried out: the function is called, and each item is given what came of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set, Sized
from functools import partial
from typing import Any, Final, TypeGuard

from opentelemetry import baggage
from opentelemetry.trace import INVALID_SPAN, set_span_in_context

from aetherflow.errors import AetherFlowError
from aetherflow.resources.gathering import NOTHING, Batch, BatchOutcomeError, Entry, Gathering
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry import shield
from aetherflow.telemetry.metrics.accumulators import registry
from aetherflow.telemetry.observation import Observation, Site
from aetherflow.telemetry.observer import current_observer
from aetherflow.telemetry.retries import noted
from aetherflow.user_exceptions import is_error

__all__ = ["BatchInterruptedError", "BatchItemError", "BatchResultError", "Carrier"]


class BatchItemError(AetherFlowError):
    """Returned by a batched function in the place of a result, fails that item alone; raised to its caller."""


class BatchResultError(AetherFlowError, TypeError):
    """A batched function did not return one result for each item; all items of the batch fail.

    Args:
        name: The batcher's name.
        items: How many items there were.
        results: What it returned.
    """

    def __init__(self, name: str, items: int, results: object) -> None:
        self.name = name
        found = f"{len(results)} results" if _is_list(results) else f"a {type(results).__name__}"
        super().__init__(
            f"batcher {name!r}: the function was given {items} items and returned {found}; "
            f"allowed: a list of as many results, in the order of the items, with an exception where one failed"
        )


class BatchInterruptedError(AetherFlowError):
    """What carried the batch out was stopped in the middle; whether the item was done is not known.

    Args:
        name: The batcher's name.
        cause: What stopped it.
    """

    def __init__(self, name: str, cause: BaseException) -> None:
        self.name = name
        super().__init__(f"batcher {name!r}: the batch was interrupted by {type(cause).__name__}")


class Carrier:
    """Calls a function with the items of a batch.

    Args:
        gathering: Where the batches come from and are counted.
        func: The function.
        retry_singly: Whether it is called again with each item alone when it raises.
        land: Lets those go on who wait for a batch that has ended.
        expected: Exceptions of the function that are no failures.
    """

    def __init__(
        self,
        gathering: Gathering,
        func: Callable[..., Any],
        land: Callable[[Batch], None],
        *,
        retry_singly: bool,
        expected: tuple[type[Exception], ...] = (),
    ) -> None:
        self.is_async = _is_async(func)
        self._name = name = gathering.name
        self._gathering = gathering
        self._func = func
        self._land = land
        self._retry_singly = retry_singly
        self._sizes = registry.series(names.BATCH_SIZE_METRIC, {names.NODE_NAME: name})
        self._waits = registry.series(names.BATCH_WAIT_METRIC, {names.NODE_NAME: name})
        self._site = Site(
            names.BATCH_SPAN.format(node=name),
            names.NODE_DURATION,
            {},
            {names.NODE_NAME: name, names.CODE_FUNCTION_NAME: _qualname(func)},
            label=f"a batch of {name!r}",
            is_kept=False,
            expected=expected,
        )

    async def carry_out(self, batch: Batch) -> None:
        """Call the function and record the outcome of each item; only an interruption is raised here too.

        Nothing is done if somebody else has begun the batch.
        """
        if not self._gathering.begin(batch):
            return
        try:
            with self._observed(batch):
                self._measure(batch)
                try:
                    await self._call(batch)
                except BaseException as error:
                    self._fail(batch, error)  # here: nothing that telemetry may raise takes its place
                    raise
        except BaseException as error:
            self._fail(batch, error)
            if not is_error(error, Exception):
                raise
        finally:
            self._release(batch)

    def interrupt(self, batch: Batch, error: BaseException) -> None:
        """Fail the items of a batch that an error kept from starting."""
        if self._gathering.begin(batch):
            self._fail(batch, error)
            self._release(batch)

    def _fail(self, batch: Batch, error: BaseException) -> None:
        """Fail the items of a batch that have no outcome."""
        if not is_error(error, Exception):
            interruption = BatchInterruptedError(self._name, error)
            interruption.__cause__ = error
            error = interruption
        for entry in batch.entries:
            if not entry.is_done:
                entry.fail(error)

    def _release(self, batch: Batch) -> None:
        """Let the callers of a batch go on, whatever happened to it."""
        try:
            for entry in batch.entries:
                if entry.result is NOTHING and entry.error is None:
                    entry.fail(BatchOutcomeError(self._name))
            self._gathering.end(batch)
        finally:
            self._land(batch)

    def _measure(self, batch: Batch) -> None:
        try:
            observer, entries = current_observer(), batch.entries
            observer.keep(self._sizes, len(entries))
            observer.keep_all(self._waits, [round(entry.placement.wait * 1e9) for entry in entries])
        except Exception as failure:  # noqa: BLE001  # telemetry never breaks the host
            shield.caught(failure, "measuring a batch")

    async def _call(self, batch: Batch) -> None:
        entries = batch.entries
        try:
            results = await self._results(batch, entries)
        except BatchResultError:
            raise
        except Exception as error:
            if len(entries) == 1 or not self._retry_singly:
                raise
            _note_retry(error)
        else:
            for entry, result in zip(entries, results, strict=True):
                _settle(entry, result)
            return
        # Not while that error is handled: it would be the context of what each item may raise.
        self._gathering.count_retry()
        for entry in entries:
            await self._call_singly(batch, entry)

    async def _call_singly(self, batch: Batch, entry: Entry) -> None:
        try:
            (result,) = await self._results(batch, [entry])
        except Exception as error:  # noqa: BLE001  # raised to the caller of this item
            entry.fail(error)
        else:
            _settle(entry, result)

    async def _results(self, batch: Batch, entries: Sequence[Entry]) -> Collection[Any]:
        lead, _, rest, named = batch.given
        results: Any = self._func(*lead, [entry.given.item for entry in entries], *rest, **named)
        if self.is_async:
            results = await results
        if type(results) is not list:
            if not _is_list(results) or len(results) != len(entries):
                raise BatchResultError(self._name, len(entries), results)
            results = list(results)  # a subclass may report another length
        if len(results) != len(entries):
            raise BatchResultError(self._name, len(entries), results)
        return results  # type: ignore[no-any-return]  # the function's own

    def _observed(self, batch: Batch) -> Observation:
        """Return the observation of a batch: it belongs to none of its callers, and links to each."""
        apart = baggage.clear(set_span_in_context(INVALID_SPAN))
        origins = [entry.origin for entry in batch.entries if entry.origin is not None]
        return current_observer().begin(self._site, {names.BATCH_SIZE: len(batch.entries)}, origins, apart)


def _note_retry(error: BaseException) -> None:
    try:
        noted(error, 1, 0.0)
    except Exception as failure:  # noqa: BLE001  # rule 3: telemetry never breaks the host
        shield.caught(failure, "noting that a batch is carried out item by item")


def _settle(entry: Entry, result: Any) -> None:
    if issubclass(type(result), BaseException):  # isinstance() may run code of the result
        entry.fail(result)
    else:
        entry.result = result


def _is_list(results: object) -> TypeGuard[Collection[Any]]:
    kind = type(results)  # isinstance() may run code of the results
    return issubclass(kind, Sized) and issubclass(kind, Iterable) and not issubclass(kind, _NO_LISTS)


_NO_LISTS: Final = (str, bytes, Mapping, Set)


def _is_async(func: Callable[..., Any]) -> bool:
    while isinstance(func, partial):
        func = func.func
    return inspect.iscoroutinefunction(func) or inspect.iscoroutinefunction(type(func).__call__)


def _qualname(func: Callable[..., Any]) -> str:
    return f"{getattr(func, '__module__', '')}.{getattr(func, '__qualname__', type(func).__qualname__)}"
