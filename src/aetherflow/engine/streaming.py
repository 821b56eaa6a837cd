"""Generators as results: one span from the first pull to the end, never current across a ``yield``.

A span that stayed current while a generator is suspended would be current in the consumer's code too. So each step
makes it current, takes an item, and lets go of it before handing the item out.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from opentelemetry.context import get_current
from opentelemetry.trace import SpanContext

from aetherflow.engine.loops import run_coroutine
from aetherflow.telemetry.conventions import STREAM_ITEMS
from aetherflow.telemetry.observation import Observation, Observer, Site

__all__ = ["AsyncStream", "Stream"]

Ended = Callable[[BaseException | None], None]


class _Observed:
    """What both kinds of stream share: the observation and who wants to know of its end."""

    __slots__ = ("_ended", "_extra", "_items", "_links", "_observer", "_parent", "_seen", "_site", "closed")

    def __init__(
        self, observer: Observer, site: Site, extra: Mapping[str, Any] | None, links: Sequence[SpanContext]
    ) -> None:
        self._observer = observer
        self._site = site
        self._extra = extra
        self._links = links
        self._parent = get_current()
        self._seen: Observation | None = None
        self._items = 0
        self._ended: list[Ended] = []
        self.closed = False

    def on_end(self, ended: Ended) -> None:
        """Have ``ended`` called once, with the error if there was one, when the stream is exhausted or closed."""
        self._ended.append(ended)

    def _step(self) -> tuple[Observation, object]:
        if self._seen is None:
            self._seen = self._observer.begin(self._site, self._extra, self._links, self._parent)
        return self._seen, self._seen.enter()

    def _end(self, error: BaseException | None = None) -> None:
        if self.closed:
            return
        self.closed = True
        if self._seen is not None:
            self._seen.set(STREAM_ITEMS, self._items)
            self._seen.end(error)
        for ended in reversed(self._ended):
            ended(error)


class Stream(_Observed, Iterator[Any]):
    """The items of a generator node; also a context manager that closes it."""

    __slots__ = ("_generator",)

    def __init__(
        self,
        generator: Generator[Any, Any, Any],
        observer: Observer,
        site: Site,
        extra: Mapping[str, Any] | None = None,
        links: Sequence[SpanContext] = (),
    ) -> None:
        super().__init__(observer, site, extra, links)
        self._generator = generator

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if self.closed:
            raise StopIteration
        seen, token = self._step()
        try:
            item = next(self._generator)
        except StopIteration:
            self._end()
            raise
        except BaseException as error:
            self._end(error)
            raise
        finally:
            seen.leave(token)
        self._items += 1
        return item

    def close(self) -> None:
        """Close the generator, so that its ``finally`` clauses run, and end the span."""
        if self.closed:
            return
        if self._seen is None:
            self._generator.close()
            self._end()
            return
        token = self._seen.enter()
        try:
            self._generator.close()
        except BaseException as error:
            self._end(error)
            raise
        else:
            self._end()
        finally:
            self._seen.leave(token)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if not self.closed:
            self.close()


class AsyncStream(_Observed, AsyncIterator[Any]):
    """The items of an async generator node; synchronous code may iterate it too, on a background loop."""

    __slots__ = ("_generator",)

    def __init__(
        self,
        generator: AsyncGenerator[Any, Any],
        observer: Observer,
        site: Site,
        extra: Mapping[str, Any] | None = None,
        links: Sequence[SpanContext] = (),
    ) -> None:
        super().__init__(observer, site, extra, links)
        self._generator = generator

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self.closed:
            raise StopAsyncIteration
        seen, token = self._step()
        try:
            item = await anext(self._generator)
        except StopAsyncIteration:
            self._end()
            raise
        except BaseException as error:
            self._end(error)
            raise
        finally:
            seen.leave(token)
        self._items += 1
        return item

    async def aclose(self) -> None:
        """Close the generator, so that its ``finally`` clauses run, and end the span."""
        if self.closed:
            return
        if self._seen is None:
            await self._generator.aclose()
            self._end()
            return
        token = self._seen.enter()
        try:
            await self._generator.aclose()
        except BaseException as error:
            self._end(error)
            raise
        else:
            self._end()
        finally:
            self._seen.leave(token)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        self._end()  # left alone: the loop that it ran on closes the generator itself

    def __iter__(self) -> Iterator[Any]:
        try:
            while True:
                try:
                    item = run_coroutine(self.__anext__)
                except StopAsyncIteration:
                    return
                yield item
        finally:
            run_coroutine(self.aclose)
