"""Nodes whose arguments, results and errors are pickled in one process and cannot be rebuilt in another."""

from __future__ import annotations

import asyncio
import enum
import threading

from dependency_injector import providers
from opentelemetry import trace
from tests.support import stubborn_errors

from aetherflow.engine.backends.dispatch import LARGE
from aetherflow.flow.decorating import node
from aetherflow.resources.context import BaseFlowContext

FAILURES = {
    "error": RuntimeError("cannot be read here"),
    "stop": StopIteration("cannot be read here"),
    "close": GeneratorExit("cannot be read here"),
    "cancel": asyncio.CancelledError("cannot be read here"),
    "memory": MemoryError("cannot be read here"),
}


def fail(kind):
    raise FAILURES[kind]


def exit_now():
    raise SystemExit("cannot be read here")


class Unreadable:
    """Unpickling it raises an exception."""

    def __init__(self, kind="error"):
        self.kind = kind

    def __reduce__(self):
        return fail, (self.kind,)


class Unrestorable:
    """Its state is refused when it is unpickled."""

    def __init__(self):
        self.lock = "locked"

    def __setstate__(self, state):
        raise KeyError("lock")


class Unsendable:
    """Pickling it raises an exception that is no `Exception`."""

    def __reduce__(self):
        raise GeneratorExit("not to be sent")


class Exiting:
    """Unpickling it exits the process."""

    def __reduce__(self):
        return exit_now, ()


class Shade(enum.StrEnum):
    DARK = "dark"


class Marked(str):
    """A string that cannot be unpickled."""

    def __reduce__(self):
        return fail, ("error",)


def unnamed(x):
    return x


class UnreadableFunction(Unreadable):
    def __call__(self, x):
        return x


class Configured(BaseFlowContext):
    config = providers.Configuration()
    limit = providers.Factory(int, config.limit)


@node(executor="process")
def takes_limit(x, limit):
    return limit


@node(executor="process")
def returns_large_unreadable(kind):
    return bytes(LARGE), Unreadable(kind)


@node(executor="process")
def returns_unreadable(kind):
    return Unreadable(kind)


@node(executor="process")
def returns_unrestorable(x):
    return Unrestorable()


@node(executor="process")
def returns_exiting(x):
    return Exiting()


@node(executor="process")
def takes_two(first, second):
    return first, second


@node(executor="process")
def takes_same(first, second):
    return first is second


@node(executor="process")
def sets_attributes(x):
    trace.get_current_span().set_attributes({"shade": Shade.DARK, "mark": Marked("marked"), "lock": threading.Lock()})
    trace.get_current_span().add_event("event", {"marks": [Marked("one"), Marked("two")]})
    return x


@node(executor="process")
def raises(name):
    raise getattr(stubborn_errors, name)(7)


@node(executor="process", name="raises")
async def raises_later(name):
    await asyncio.sleep(0)
    raise getattr(stubborn_errors, name)(7)


@node
def passes(x):
    return x
