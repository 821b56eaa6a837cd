"""Where the items of a stream come from: a generator, or an asynchronous one, for both kinds of code."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, Final, Protocol, cast

from aetherflow.engine.loops import Home, off_loop
from aetherflow.engine.plan import UNSET

__all__ = ["Feed", "LeakedStop", "feed_of"]


class LeakedStop(Exception):  # noqa: N818  # not an error for users: a stream replaces it
    """A wrapper around a ``StopAsyncIteration`` that was raised as an error, and would look like the end of the stream.

    Args:
        error: The exception.
    """

    def __init__(self, error: StopAsyncIteration) -> None:
        super().__init__()
        self.error = error

    def visible(self) -> RuntimeError:
        """Return the error that asynchronous code gets instead, as from an asynchronous generator."""
        return RuntimeError("generator raised StopAsyncIteration")


class Feed(Protocol):
    """What makes a stream's items. Each step is there twice: it blocks the calling thread, or it is awaited."""

    @property
    def home(self) -> Home | None:
        """The loop that items are made on, where synchronous code has to go there for one."""
        ...

    @property
    def awaits(self) -> bool:
        """Whether asynchronous code can pull an item without a detour over a thread."""
        ...

    def pull(self) -> Any:
        """Return the next item; ``StopIteration`` where there is none."""
        ...

    def apull(self) -> Awaitable[Any]:
        """Return the next item; raise ``StopAsyncIteration`` at the end, :class:`LeakedStop` if that is an error."""
        ...

    def close(self) -> None:
        """Make no more items and wait until what made them has run its ``finally`` clauses."""
        ...

    async def aclose(self) -> None:
        """Do what :meth:`close` does."""
        ...

    def cancel(self) -> None:
        """Have whoever makes items elsewhere stop soon, without waiting."""
        ...

    def drop(self) -> None:
        """Close it from a finalizer, which must not wait for anyone."""
        ...


class _GeneratorFeed:
    """An iterator's items, made where they are pulled; for asynchronous code on a thread of the pool."""

    __slots__ = ("_iterator", "close", "drop", "pull")

    home = None
    awaits = False

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator
        self.pull: Callable[[], Any] = iterator.__next__
        self.close: Callable[[], None] = getattr(iterator, "close", _nothing)
        self.drop = self.close

    async def apull(self) -> Any:
        try:
            item = await off_loop(next, self._iterator, UNSET)
        except StopAsyncIteration as error:
            raise LeakedStop(error) from error
        if item is UNSET:
            raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        await off_loop(self.close)

    def cancel(self) -> None: ...


class _AsyncGeneratorFeed:
    """An asynchronous iterator's items, all made on one loop; for synchronous code on one in the background."""

    __slots__ = ("_aclose", "_pull", "home")

    awaits = True

    def __init__(self, iterator: AsyncIterator[Any], home: Home) -> None:
        self._pull = iterator.__anext__
        self._aclose = getattr(iterator, "aclose", _nothing_async)
        self.home = home

    def pull(self) -> Any:
        try:
            return self.home.run(cast("Any", self._pull))
        except StopAsyncIteration:
            raise StopIteration from None
        except StopIteration as error:
            raise RuntimeError(_STOPPED) from error

    def apull(self) -> Awaitable[Any]:
        try:
            return self._pull() if self.home.is_here() else self.home.arun(cast("Any", self._pull))
        except StopIteration as error:
            raise RuntimeError(_STOPPED) from error

    def close(self) -> None:
        self.home.run(self._aclose)

    async def aclose(self) -> None:
        await self.home.arun(self._aclose)

    def cancel(self) -> None: ...

    def drop(self) -> None: ...  # the loop that an asynchronous generator ran on closes it itself


_STOPPED: Final = "asynchronous iterator raised StopIteration"
"""The message for an ``__anext__`` that is no coroutine function, whose ``StopIteration`` would look like the end."""


def _nothing() -> None: ...


async def _nothing_async() -> None: ...


def feed_of(items: Iterable[Any] | AsyncIterable[Any], home: Home | None = None) -> Feed:
    """Return what makes a stream of any iterable's items.

    Args:
        items: What to iterate over.
        home: The loop of asynchronous items; None for that of the first pull.
    """
    if isinstance(items, AsyncIterable):
        return _AsyncGeneratorFeed(aiter(items), home or Home())
    return _GeneratorFeed(iter(items))
