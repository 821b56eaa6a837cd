"""Nodes and contexts that worker processes import for the tests of backends."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from pathlib import Path
from typing import Annotated

from dependency_injector import containers, providers
from dependency_injector.wiring import Provide
from opentelemetry import baggage, trace

from aetherflow.errors import MissingInputError
from aetherflow.flow.decorating import node
from aetherflow.flow.policies import RetryPolicy
from aetherflow.resources.context import BaseFlowContext
from aetherflow.telemetry.profiling.policy import ProfilePolicy

EXECUTORS = ("thread", "process")


@node
def numbers(count=3):
    return list(range(count))


@node
def given(value=None):
    return value


def double(x):
    return 2 * x


double_on = {executor: node(executor=executor)(double) for executor in EXECUTORS}


@node
def twice(x):
    return 2 * x


@node
def negative(x):
    return -x


@node
async def twice_later(x):
    await asyncio.sleep(0)
    return 2 * x


@node
def total(parallel_results):
    values = parallel_results.values() if isinstance(parallel_results, dict) else parallel_results
    return sum(values)


@node
def where(x):
    return os.getpid(), threading.get_ident(), threading.current_thread().name


@node
def items(x):
    yield x


class PickyError(Exception):
    """Has a constructor that plain pickle calls wrongly: with the message."""

    def __init__(self, code, *, detail):
        self.code = code
        self.detail = detail
        super().__init__(f"code {code}: {detail}")


class MuteError(Exception):
    """Neither pickles nor prints."""

    def __init__(self):
        self.lock = threading.Lock()

    def __str__(self):
        raise RuntimeError("no text")


class LockedError(Exception):
    """Does not pickle."""

    def __init__(self, message):
        super().__init__(message)
        self.lock = threading.Lock()


@node
def picky(x):
    raise PickyError(x, detail="as asked")


def needs_key(request):
    return request["key"]


@node
def locked(x):
    raise LockedError("cannot leave")


@node
def missing(x):
    raise MissingInputError("a", "b", "c", ["d"])


def meet(folder, name):
    """Wait until two executions are here, so that neither ends before the other has begun."""
    (folder / name).touch()
    while len(list(folder.glob("met-*"))) < 2:
        time.sleep(0.005)


@node
def fails_here(folder):
    meet(folder, "met-here")
    raise PickyError(1, detail="here")


@node
def fails_there(folder):
    meet(folder, "met-there")
    raise KeyError("there")


@node
def odd_fails(x):
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x


@node
def returns_lock(x):
    return threading.Lock()


@node
def dies(x):
    if x:
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


@node
def seen_context(x):
    span = trace.get_current_span().get_span_context()
    return span.trace_id, span.span_id, baggage.get_baggage("customer")


@node
def calls_others(x):
    return twice(x) + inner_flow.run({"count": 2})


inner_flow = numbers.map(twice).then(total).named("inner")


@node
def sends_on(x):
    """Run a flow that would use a worker on the worker that it is on."""
    pids = numbers.map(where, executor="process").run({"count": 2})
    return os.getpid(), [pid for pid, _, _ in pids]


_attempts: list[int] = []


@node(retry=RetryPolicy(on=ConnectionError, attempts=3, wait_initial=0, wait_jitter=0))
def flaky(x):
    _attempts.append(x)
    if len(_attempts) % 2:
        raise ConnectionError("try again")
    return os.getpid()


@node(timeout=60)
def in_time(x):
    return x + 1


def wait_for_file(path: Path) -> None:
    while not path.exists():
        time.sleep(0.005)


@node
def waits(folder):
    """Say that it has begun, and wait until it is told to go on."""
    (folder / f"begun-{os.getpid()}-{time.monotonic_ns()}").touch()
    wait_for_file(folder / "go")
    return os.getpid()


@node
def positional(a, b=10, /, c=1, *, d=2):
    return a, b, c, d


class Adder:
    """A method as a node."""

    def __init__(self, amount):
        self.amount = amount

    @node
    def add(self, x):
        return self.amount + x

    @node(retry=RetryPolicy(on=ConnectionError))
    def add_surely(self, x):
        return self.amount + x


class Callable:
    """An object as a node."""

    def __call__(self, x):
        return 3 * x


thrice = node(name="thrice")(Callable())


def built(number):
    return number, os.getpid()


def opened(folder):
    yield f"open in {os.getpid()}"
    if folder:
        (Path(folder) / f"closed-{os.getpid()}").touch()


class Sample(BaseFlowContext):
    config = providers.Configuration()
    parser = providers.ThreadLocalSingleton(built, 1)
    service = providers.Singleton(built, 2)
    limit = providers.Factory(int, config.limit)
    resource = providers.Resource(opened, config.folder)


class Plain(containers.DeclarativeContainer):
    service = providers.Singleton(built, 3)


@node
def injected(x, parser, service=Provide["service"], *, limit: Annotated[int, Provide["limit"]]):
    return x, parser, service, limit


@node
def counts(x, state, shared_data, context):
    """Count executions in each of the dicts that every context has."""
    for found in (state, shared_data, context):
        found["calls"] = found.get("calls", 0) + 1
    return os.getpid(), state["calls"], shared_data["calls"], context["calls"]


@node
def uses_resource(x, resource):
    return resource, os.getpid()


@node
def asks_plain(x, service):
    return service


@node
def takes_input_or_service(service):
    return service


@node
def mute(value):
    raise MuteError


def is_prime(number):
    return all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def primes(below):
    return sum(map(is_prime, range(2, below)))


@node(profile=ProfilePolicy(profiler="cprofile"))
def counted_primes(below):
    return primes(below)


@node(profile=ProfilePolicy(profiler="sampling"))
async def awaited_primes(below):
    await asyncio.sleep(0)
    return primes(below)


@node
def plain_primes(below):
    return primes(below)


async def connect():
    await asyncio.sleep(0)
    return f"connection of {os.getpid()}"


def begin_connecting():
    return connect()


class Async(BaseFlowContext):
    connection = providers.Factory(connect)
    singleton = providers.Singleton(connect)
    service = providers.Singleton(list, providers.List(singleton, connection))
    undeclared = providers.Factory(begin_connecting)


@node
def takes_awaited(x, connection, singleton, service):
    return connection, singleton, service


@node
async def awaits_awaited(x, connection, singleton, service):
    return connection, singleton, service


@node
def takes_undeclared(x, undeclared):
    return undeclared
