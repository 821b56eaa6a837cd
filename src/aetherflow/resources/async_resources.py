"""Async resources of a context: their event loops, and how they are opened, reopened and closed."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

from dependency_injector import providers

from aetherflow.errors import ResourceError
from aetherflow.resources.async_providers import (
    LostLoopError,
    call_provider,
    is_async,
    prepare_singletons,
    reset_singleton,
    result_of,
)
from aetherflow.resources.scopes import AnyProvider, effective_provider, reachable, scope_of

__all__ = ["AnyResource", "AsyncResources", "Loop", "RunLoop", "in_opening_order"]

AnyResource: TypeAlias = providers.BaseResource[Any]
Loop: TypeAlias = asyncio.AbstractEventLoop
RunLoop: TypeAlias = Callable[[], Loop | None]
"""A function that returns the event loop of a run; None if it is not known yet."""

_logger = logging.getLogger(__name__)

_reset_marks: Final[ContextVar[frozenset[tuple[int, int]]]] = ContextVar("aetherflow_reset_marks", default=frozenset())
"""Context-local singletons that were reset in this context, each with the number of the loss that caused it."""


class _Owner(NamedTuple):
    """The event loop of a resource, the name of the thread that ran it, and the task that opens the resource."""

    loop: Loop
    thread: str
    opening: asyncio.Task[None] | None = None

    def __str__(self) -> str:
        return _description(self.loop, self.thread)


class AsyncResources:
    """The async resources of one context.

    Each belongs to the event loop that opened it. Once it is open, its provider returns the object, not an awaitable.

    Args:
        lock: Held while the state changes; the context holds it when it opens its other resources.
        providers_of: Returns all providers of the context with its nested containers.
        name_of: Returns the name of a provider in the context.
    """

    def __init__(
        self,
        lock: AbstractContextManager[Any],
        providers_of: Callable[[type[AnyProvider]], Iterable[AnyProvider]],
        name_of: Callable[[AnyProvider], str],
    ) -> None:
        self._lock = lock
        self._providers_of = providers_of
        self._name_of = name_of
        self._owners: dict[AnyResource, _Owner] = {}
        self._reported: set[AnyResource] = set()
        self._losses = 0
        self._stale: dict[AnyProvider, tuple[AnyResource, _Owner, int]] = {}

    # --- state ---------------------------------------------------------------------------------------------

    def loops(self) -> set[Loop]:
        """Return the event loops that resources belong to."""
        return {owner.loop for owner in self._owners.values()}

    def loop_of(self, resource: AnyResource) -> Loop | None:
        """Return the event loop that a resource belongs to; None if it is not async or not open."""
        owner = self._owners.get(resource)
        return None if owner is None else owner.loop

    def is_open(self, resource: AnyResource) -> bool:
        """Return whether the provider of an async resource returns its object."""
        owner = self._owners.get(resource)
        return owner is not None and owner.opening is None and not resource.is_async_mode_enabled()

    def register(self, resource: AnyResource, loop: Loop) -> None:
        """Record that the user opens a resource on an event loop."""
        self._owners.setdefault(resource, _Owner(loop, threading.current_thread().name))

    def remove(self, resource: AnyResource) -> None:
        """Forget a resource that is shut down, and the singletons that hold its object."""
        with self._lock:
            if self._owners.pop(resource, None) is not None:
                for singleton in self._dependents(resource, providers.BaseSingleton):
                    if scope_of(singleton) == "singleton":
                        reset_singleton(singleton)

    # --- rules ---------------------------------------------------------------------------------------------

    def check(self, resource: AnyResource, loop: RunLoop, *, is_shared: bool) -> None:
        """Raise an error if a run must not use an open resource; forget the resource if its event loop is closed.

        Args:
            resource: The resource.
            loop: Returns the event loop of the run; None if it is not known yet.
            is_shared: Whether only synchronous code of a synchronous run takes the object: it can do so in any thread.

        Raises:
            ResourceError: The resource belongs to another event loop, which is not closed.
        """
        with self._lock:
            owner = self._owners.get(resource)
            if owner is None:
                return
            if owner.opening is None and not resource.initialized:  # the user has shut it down by hand
                resource.reset_async_mode()
                self.remove(resource)
            elif owner.loop.is_closed():
                self._forget(resource, owner)
            elif not is_shared:
                user = loop()
                if user is not None and owner.loop is not user:
                    if owner.loop is asyncio._get_running_loop():
                        reason = "a synchronous run uses a background event loop; await `arun()` on this one instead"
                    else:
                        reason = (
                            "use one context for each event loop, or shut the context down with `await "
                            "context.shutdown_resources()` before another event loop needs it"
                        )
                    raise ResourceError(self._name_of(resource), str(owner), _description(user), reason)

    def check_blocked(self, resource: AnyResource) -> None:
        """Raise an error if a synchronous run blocks the event loop on which a resource is being opened.

        Raises:
            ResourceError: It does: the two would wait for each other.
        """
        owner = self._owners.get(resource)
        if owner is not None and owner.opening is not None and owner.loop is asyncio._get_running_loop():
            reason = "it is still being opened on the event loop that this run blocks; await `arun()` instead"
            raise ResourceError(self._name_of(resource), str(owner), "a synchronous run", reason)

    def check_singletons(self, needs: Iterable[AnyProvider], loop: RunLoop) -> None:
        """Keep a run from taking a singleton that holds a resource of a closed event loop.

        Args:
            needs: The providers of the run.
            loop: Returns the event loop of the run; None if it is not known yet.

        Raises:
            ResourceError: A thread-local singleton may hold such a resource in threads that this one cannot reach.
        """
        if not self._stale:
            return
        for singleton in (each for need in needs for each in reachable(need)):
            if (stale := self._stale.get(singleton)) is None:
                continue
            resource, owner, loss = stale
            if isinstance(singleton, providers.ContextLocalSingleton):
                marks = _reset_marks.get()
                if (mark := (id(singleton), loss)) not in marks:
                    _reset_marks.set(marks | {mark})
                    reset_singleton(singleton)
                continue
            reason = (
                f"the thread-local singleton {self._name_of(singleton)!r} may hold the closed resource in any thread; "
                f"create a new context, and shut each context down before its event loop ends; or use a Singleton"
            )
            user = loop()
            needed_on = "a run" if user is None else _description(user)
            raise ResourceError(self._name_of(resource), str(owner), needed_on, reason)

    def _forget(self, resource: AnyResource, owner: _Owner) -> None:
        """Reset a resource whose event loop was closed, and everything that holds its object."""
        if resource not in self._reported:
            self._reported.add(resource)
            _logger.warning(
                "resource %r belongs to %s and was never shut down: a new one is opened. Shut the context down, for "
                "example with `async with`, before its event loop ends.",
                self._name_of(resource),
                owner,
            )
        self._losses += 1
        dependents = [each for each in self._dependents(resource, providers.BaseResource) if each.initialized]
        for dependent in reversed(in_opening_order(dependents)):
            self._owners.pop(dependent, None)
            _abandon(dependent, self._name_of(dependent))
        del self._owners[resource]
        _abandon(resource, self._name_of(resource))
        for singleton in self._dependents(resource, providers.BaseSingleton):
            if scope_of(singleton) == "singleton":
                reset_singleton(singleton)
            else:
                self._stale[singleton] = (resource, owner, self._losses)

    def _dependents(self, resource: AnyResource, kind: type[Any]) -> Iterator[Any]:
        for provider in self._providers_of(kind):
            effective = effective_provider(provider)
            if isinstance(effective, kind) and effective is not resource and resource in reachable(effective):
                yield effective

    # --- opening -------------------------------------------------------------------------------------------

    async def open(self, resources: Iterable[AnyResource], shared: Collection[AnyResource]) -> None:
        """Open resources on the running event loop, each once however many callers need it.

        Args:
            resources: The resources.
            shared: Those of them that only synchronous code takes.

        Raises:
            ResourceError: A resource belongs to another event loop.
            Exception: Opening a resource raised it; the resource is then as if it had never been opened.
        """
        for resource in in_opening_order(resources):
            if isinstance(resource, providers.ContextLocalResource):
                await _initialise(resource)  # in the context of the caller
            else:
                await self._opened(resource, is_shared=resource in shared)

    async def _opened(self, resource: AnyResource, *, is_shared: bool) -> None:
        here = asyncio.get_running_loop()
        while True:
            with self._lock:
                self.check(resource, lambda: here, is_shared=is_shared)
                if self.is_open(resource):
                    return
                owner = self._owners.get(resource)
                opening = None if owner is None else owner.opening
                if opening is None:  # a task of its own: a caller that is cancelled must not take it away
                    opening = here.create_task(_initialise(resource))
                    self._owners[resource] = _Owner(here, threading.current_thread().name, opening)
                    opening.add_done_callback(partial(self._end_opening, resource))
            try:
                await result_of(opening)
            except LostLoopError:
                continue
            return

    def _end_opening(self, resource: AnyResource, opening: asyncio.Task[None]) -> None:
        with self._lock:
            owner = self._owners.get(resource)
            if owner is None or owner.opening is not opening:
                return
            if opening.cancelled() or opening.exception() is not None:
                del self._owners[resource]
                _reset_state(resource)
                resource.reset_async_mode()
            else:
                self._owners[resource] = owner._replace(opening=None)

    # --- closing -------------------------------------------------------------------------------------------

    async def shut_down(self, resources: Iterable[AnyResource]) -> None:
        """Shut resources down in this order, async ones on their event loops; never suspends if all are sync.

        Raises:
            Exception: Shutting a resource down raised it; all others were shut down before.
        """
        failures = []
        for resource in resources:
            try:
                await self._shut_one_down(resource)
            except Exception as failure:  # noqa: BLE001  # one that cannot close must not keep the others open
                failures.append(failure)
            resource.reset_async_mode()
            self.remove(resource)
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise ExceptionGroup("resources failed to shut down", failures)

    async def _shut_one_down(self, resource: AnyResource) -> None:
        loop = self.loop_of(resource)
        if loop is None or not loop.is_running() or loop is asyncio.get_running_loop():
            await _shut_down(resource)
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_shut_down(resource), loop))


def _reset_state(resource: Any) -> None:  # the stubs leave the method out
    resource.reset_state()


async def _initialise(resource: AnyResource) -> None:
    await prepare_singletons(resource)
    opening = call_provider(resource)
    if inspect.isawaitable(opening):
        await opening
    resource.disable_async_mode()


async def _shut_down(resource: AnyResource) -> None:
    closing: Any = resource.shutdown()
    if inspect.isawaitable(closing):
        await closing


def _abandon(resource: AnyResource, name: str) -> None:
    """Reset a resource without its event loop: a synchronous one is still shut down."""
    if is_async(resource):
        _reset_state(resource)
    else:
        try:
            closing: Any = resource.shutdown()
            if isinstance(closing, Coroutine):
                closing.close()
        except Exception:
            _logger.warning("resource %r failed to shut down after the one it depends on was lost", name, exc_info=True)
    resource.reset_async_mode()


def in_opening_order(resources: Iterable[AnyResource]) -> list[AnyResource]:
    """Return resources with those that others depend on first: they reach fewer providers."""
    return sorted(resources, key=lambda resource: len(list(reachable(resource))))


def _description(loop: Loop, thread: str = "") -> str:
    ident = getattr(loop, "_thread_id", None)
    running_in = next((each.name for each in threading.enumerate() if each.ident == ident), thread)
    state = "closed" if loop.is_closed() else "running" if loop.is_running() else "stopped"
    return f"event loop {id(loop):#x} of thread {running_in or 'unknown'!r} ({state})"
