"""What a node may do besides calling its function: try again, and give up in time.

No test waits for a delay: retries sleep on a clock that only counts, and what is too late waits for an event that comes
when the time limit has been noticed. The limits themselves are a few hundredths of a second.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry import trace

from aetherflow.errors import ConfigurationError, NodeTimeoutError
from aetherflow.flow.decorating import node
from aetherflow.flow.node import Node
from aetherflow.flow.policies import RetryPolicy
from aetherflow.telemetry import conventions as names
from aetherflow.testing import CapturedTelemetry, FakeClock

TINY = 0.03
"""Seconds: a time limit that is meant to be exceeded."""

AMPLE = 30.0
"""Seconds: a time limit that is not."""


class NotReadyError(Exception):
    pass


class WorseError(NotReadyError):
    pass


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def policy(clock: FakeClock) -> RetryPolicy:
    """Three attempts on NotReadyError, 1 s and 2 s apart, on a clock that only counts."""
    return RetryPolicy(
        on=NotReadyError, wait_initial=1, wait_jitter=0, sleep=clock.sleep, async_sleep=clock.async_sleep
    )


class Failing:
    """Raises so many times before it returns how often it was called."""

    def __init__(self, times: int, error: Callable[[], Exception] = NotReadyError) -> None:
        self.times = times
        self.error = error
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error()
        return self.calls


def sync_and_async(failing: Failing, policy: RetryPolicy) -> dict[str, Node[[], Any]]:
    """The same failing function as a synchronous and as an asynchronous node."""

    @node(retry=policy)
    def fetch() -> int:
        return failing()

    async def afetch() -> int:
        return failing()

    return {"sync": fetch, "async": node(name="fetch", retry=policy)(afetch)}


def as_called(made: Node[..., Any]) -> Any:
    result = made()
    return asyncio.run(result) if asyncio.iscoroutine(result) else result


def as_awaited(made: Node[..., Any]) -> Any:
    return asyncio.run(made.arun())


def in_a_flow(made: Node[..., Any]) -> Any:
    return node(name="first")(lambda: None).then(made).run()


def in_a_fan_out(made: Node[..., Any]) -> Any:
    flow = node(name="first")(lambda: None).fan_out_to([made, node(name="other")(lambda: None)])
    return flow.run()[made.name]


async def _within(made: Node[..., Any]) -> Any:
    return made.run()


def within_a_running_loop(made: Node[..., Any]) -> Any:
    return asyncio.run(_within(made))


WAYS = [as_called, Node.run, as_awaited, in_a_flow, in_a_fan_out, within_a_running_loop]
every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
both_kinds = pytest.mark.parametrize("kind", ["sync", "async"])


# --- retries ------------------------------------------------------------------------------------------------------


@every_way
@both_kinds
def test_a_failed_execution_is_tried_again(kind, way, policy, clock):
    """Until it succeeds, however the node is run; the waits double and nothing really sleeps."""
    failing = Failing(2)
    assert way(sync_and_async(failing, policy)[kind]) == 3
    assert failing.calls == 3
    assert clock.monotonic() == 1 + 2


@every_way
@both_kinds
def test_after_the_last_attempt_the_error_itself_is_raised(kind, way, policy, clock):
    """No wrapper comes out, and there is no wait after the last attempt."""
    errors = [NotReadyError(index) for index in range(9)]
    failing = Failing(9, iter(errors).__next__)
    with pytest.raises(NotReadyError) as caught:
        way(sync_and_async(failing, policy)[kind])
    assert caught.value is errors[2]
    assert failing.calls == 3
    assert clock.monotonic() == 1 + 2


@both_kinds
@pytest.mark.parametrize(
    ("on", "error", "calls"),
    [
        (NotReadyError, NotReadyError, 3),
        (NotReadyError, WorseError, 3),
        (WorseError, NotReadyError, 1),
        (NotReadyError, KeyError, 1),
        ((KeyError, NotReadyError), KeyError, 3),
        ((KeyError, NotReadyError), OSError, 1),
    ],
)
def test_only_the_named_errors_are_tried_again(kind, on, error, calls, policy):
    """Errors of the named types and those derived from them; any other is raised at once."""
    failing = Failing(9, error)
    with pytest.raises(error):
        sync_and_async(failing, replace(policy, on=on))[kind].run()
    assert failing.calls == calls


@pytest.mark.parametrize("stop", [KeyboardInterrupt, GeneratorExit])
def test_an_interruption_is_not_tried_again(stop, policy):
    """What is no Exception ends the node, whatever the policy."""
    calls = []

    @node(retry=replace(policy, on=Exception))
    def interrupted() -> None:
        calls.append(1)
        raise stop

    with pytest.raises(stop):
        interrupted.run()
    assert len(calls) == 1


async def test_a_cancelled_node_is_not_tried_again(policy):
    """A cancellation ends an async node that waits, without another attempt."""
    calls = []
    begun = asyncio.Event()

    @node(retry=replace(policy, on=Exception))
    async def waiting() -> None:
        calls.append(1)
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(waiting.arun())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(calls) == 1


def test_one_attempt_is_no_retry(policy, clock):
    """With attempts=1 the first error is the last."""
    failing = Failing(1)
    with pytest.raises(NotReadyError):
        sync_and_async(failing, replace(policy, attempts=1))["sync"].run()
    assert (failing.calls, clock.monotonic()) == (1, 0)


def test_waits_are_bounded_and_jittered(policy):
    """Waits double up to wait_max, and each is at most wait_jitter longer."""
    waits: list[float] = []
    bounded = replace(policy, attempts=7, wait_max=6, wait_jitter=0.5, sleep=waits.append)
    assert sync_and_async(Failing(6), bounded)["sync"].run() == 7
    for waited, least in zip(waits, [1, 2, 4, 6, 6, 6], strict=True):
        assert least <= waited <= least + 0.5
    assert any(waited % 1 for waited in waits)


def test_arguments_of_any_name_reach_the_function(policy):
    """Neither the retries nor the time limit take an argument for themselves."""

    @node(retry=policy, timeout=AMPLE)
    def picky(fn: int, function: int, *, call: int, name: int) -> list[int]:
        return [fn, function, call, name]

    assert picky(fn=1, function=2, call=3, name=4) == [1, 2, 3, 4]
    assert picky.run({"fn": 1, "function": 2, "call": 3, "name": 4}) == [1, 2, 3, 4]


def test_a_method_is_tried_again(policy):
    """Retries work on methods, each object for itself."""

    class Client:
        def __init__(self) -> None:
            self.failing = Failing(1)

        @node(retry=policy)
        def fetch(self) -> int:
            return self.failing()

    assert [Client().fetch(), Client().fetch.run()] == [2, 2]


def test_runs_at_once_count_their_attempts_apart(policy):
    """Many runs of one node at once share nothing: each has all its attempts."""
    calls: dict[int, int] = {}

    @node(retry=policy)
    def fetch(key: int) -> int:
        calls[key] = calls.get(key, 0) + 1
        if calls[key] < 3:
            raise NotReadyError
        return key

    assert list(fetch.run_many(range(50), max_workers=8)) == list(range(50))
    assert set(calls.values()) == {3}


# --- retries in the trace -----------------------------------------------------------------------------------------


@every_way
@both_kinds
def test_each_retry_is_an_event_on_the_one_span(kind, way, policy):
    """The span tells the attempt it ended with, and of each retry the attempt, its error and the delay."""
    with CapturedTelemetry() as captured:
        way(sync_and_async(Failing(2), policy)[kind])
    (span,) = captured.spans_named("fetch")
    assert span.attributes[names.NODE_ATTEMPT] == 3
    error = f"{__name__}.NotReadyError"
    first = {names.NODE_ATTEMPT: 1, names.ERROR_TYPE: error, names.RETRY_DELAY: 1.0, "exception.message": ""}
    assert [(event.name, dict(event.attributes)) for event in span.events] == [
        (names.RETRY_EVENT, first),
        (names.RETRY_EVENT, {**first, names.NODE_ATTEMPT: 2, names.RETRY_DELAY: 2.0}),
    ]
    assert span.status.status_code is trace.StatusCode.UNSET
    assert names.NODE_RESULT not in span.attributes


@both_kinds
def test_a_node_that_never_succeeds_records_its_error_once(kind, policy):
    """Beside the retries there is one exception event, that of the last attempt."""
    with CapturedTelemetry() as captured, pytest.raises(NotReadyError):
        sync_and_async(Failing(9), policy)[kind].run()
    (span,) = captured.spans
    assert [event.name for event in span.events] == [names.RETRY_EVENT, names.RETRY_EVENT, "exception"]
    assert span.attributes[names.NODE_ATTEMPT] == 3
    assert span.attributes[names.NODE_RESULT] == "failure"


def test_an_attempt_is_told_only_where_retries_are_configured(policy):
    """A node that may be retried says attempt 1 even when the first succeeds; another says nothing."""
    with CapturedTelemetry() as captured:
        sync_and_async(Failing(0), policy)["sync"].run()
        node(name="plain")(lambda: None).run()
    attempts = {span.name: span.attributes.get(names.NODE_ATTEMPT) for span in captured.spans}
    assert attempts == {"fetch": 1, "plain": None}


# --- time limits --------------------------------------------------------------------------------------------------


@pytest.fixture
def late() -> Iterator[threading.Event]:
    """Set when the test is over, so that nothing waits on."""
    event = threading.Event()
    yield event
    event.set()


def slow(kind: str, late: threading.Event, **options: Any) -> Node[[], Any]:
    """A node that does not end by itself before the test does."""
    if kind == "sync":

        @node(name="slow", timeout=TINY, **options)
        def waits() -> None:
            late.wait(AMPLE)

        return waits

    @node(name="slow", timeout=TINY, **options)
    async def awaits() -> None:
        await asyncio.Event().wait()

    return awaits


@every_way
@both_kinds
def test_a_node_that_takes_too_long_raises(kind, way, late):
    """The error is a TimeoutError that names node and limit, however the node is run."""
    with pytest.raises(NodeTimeoutError, match=r"node 'slow' did not finish within its timeout of 0\.03 s") as caught:
        way(slow(kind, late))
    assert isinstance(caught.value, TimeoutError)
    assert (caught.value.node, caught.value.timeout) == ("slow", TINY)


@every_way
@both_kinds
def test_a_node_in_time_returns_as_without_a_limit(kind, way):
    """A limit that holds changes neither the result nor an error."""

    def check(*, fails: bool = False) -> str:
        if fails:
            raise TimeoutError("the node's own")
        return "in time"

    async def acheck(*, fails: bool = False) -> str:
        return check(fails=fails)

    made = node(name="check", timeout=AMPLE)(check if kind == "sync" else acheck)
    assert way(made) == "in time"
    with pytest.raises(TimeoutError, match="the node's own") as caught:
        made.run({"fails": True})
    assert not isinstance(caught.value, NodeTimeoutError)


def test_a_late_async_node_is_cancelled():
    """The awaited node hears of it, and its clean-up has run before the error is raised."""
    heard = []

    @node(timeout=TINY)
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            heard.append("cancelled")

    with pytest.raises(NodeTimeoutError):
        slow.run()
    assert heard == ["cancelled"]


def test_a_late_sync_node_is_left_to_itself(late):
    """Its thread goes on and its result is not used: the caller is free while it still runs."""
    ended = threading.Event()

    @node(timeout=TINY)
    def slow() -> None:
        late.wait(AMPLE)
        ended.set()

    with pytest.raises(NodeTimeoutError):
        slow.run()
    assert not ended.is_set()
    late.set()
    assert ended.wait(AMPLE)


@pytest.mark.parametrize("run", ["slow.run()", "asyncio.run(slow.arun())"])
def test_a_node_that_never_ends_does_not_keep_the_process(run):
    """A synchronous node that is stuck for good is given up, and the process leaves."""
    program = f"""
import asyncio, threading
from aetherflow.flow.decorating import node
@node(timeout={TINY})
def slow(): threading.Event().wait()
try: {run}
except TimeoutError as error: print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True)
    assert "did not finish within its timeout" in done.stdout
    assert done.stderr == ""


def test_a_node_with_a_limit_sees_the_context_of_its_run():
    """Its span is current on the thread it runs on, which the span names; a run inside it joins the trace."""
    inner = node(name="inner")(lambda: None)

    @node(timeout=AMPLE)
    def outer() -> str:
        inner.run()
        return threading.current_thread().name

    with CapturedTelemetry() as captured:
        name = outer.run()
    (tree,) = captured.tree()
    assert str(tree) == "outer\n  inner"
    assert tree.span.attributes[names.THREAD_NAME] == name != threading.current_thread().name


@both_kinds
def test_a_late_node_is_a_timeout_in_the_trace(kind, late):
    """The span says timeout and its error, and records the exception."""
    with CapturedTelemetry() as captured, pytest.raises(NodeTimeoutError):
        slow(kind, late).run()
    (span,) = captured.spans
    assert span.attributes[names.NODE_RESULT] == "timeout"
    assert span.attributes[names.NODE_TYPE] == kind
    assert span.attributes[names.ERROR_TYPE] == "aetherflow.errors.NodeTimeoutError"
    assert [event.name for event in span.events] == ["exception"]


@every_way
@both_kinds
def test_the_limit_holds_for_each_attempt(kind, way, late, clock):
    """A retried node has the whole time again, and its own waits between attempts do not count."""
    policy = RetryPolicy(
        on=NodeTimeoutError, wait_initial=60, wait_max=60, sleep=clock.sleep, async_sleep=clock.async_sleep
    )
    calls = []

    @node(name="slow", timeout=TINY, retry=policy)
    def waits() -> str:
        calls.append(1)
        if len(calls) < 3:
            late.wait(AMPLE)
        return "at last"

    @node(name="slow", timeout=TINY, retry=policy)
    async def awaits() -> str:
        calls.append(1)
        if len(calls) < 3:
            await asyncio.Event().wait()
        return "at last"

    with CapturedTelemetry() as captured:
        assert way(waits if kind == "sync" else awaits) == "at last"
    assert 120 <= clock.monotonic() <= 120.2
    (span,) = captured.spans_named("slow")
    assert [event.attributes[names.NODE_ATTEMPT] for event in span.events] == [1, 2]
    assert span.attributes[names.NODE_ATTEMPT] == 3


@both_kinds
def test_stop_iteration_of_a_node_with_a_limit_is_an_error_not_a_hang(kind):
    """No future takes a StopIteration as a result; it ends the run with Python's RuntimeError about it all the same."""

    def exhausted() -> object:
        return next(iter(()))

    async def aexhausted() -> object:
        return exhausted()

    made = node(name="exhausted", timeout=AMPLE)(exhausted if kind == "sync" else aexhausted)
    with pytest.raises(RuntimeError, match="StopIteration"):
        made.run()


def test_the_plain_function_stays_as_it_was(policy):
    """Policies are the node's: its function, called by itself, knows none of them."""
    failing = Failing(1)

    @node(retry=policy, timeout=AMPLE)
    def fetch() -> int:
        """Fetch it."""
        return failing()

    with pytest.raises(NotReadyError):
        fetch.func()
    assert (fetch.__name__, fetch.__doc__) == ("fetch", "Fetch it.")


# --- bad values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "values", "allowed"),
    [
        ("on", [None, (), "ValueError", ValueError(), (ValueError, 3), int, KeyboardInterrupt], "an exception class"),
        ("attempts", [0, -1, True, 2.0, "3", None], "a whole number from 1"),
        ("wait_initial", [-1, "1", None, True, float("nan")], "a number of seconds from 0"),
        ("wait_max", [-1, "1", None, True, float("nan")], "a number of seconds from 0"),
        ("wait_jitter", [-1, "1", None, True, float("nan")], "a number of seconds from 0"),
    ],
)
def test_a_bad_value_in_a_policy_is_refused(argument, values, allowed):
    """The error names the argument, its value and what is allowed, when the policy is made."""
    for value in values:
        with pytest.raises(ConfigurationError) as caught:
            RetryPolicy(**{"on": ValueError, argument: value})
        assert f"{argument}={value!r}" in str(caught.value)
        assert f"allowed is {allowed}" in str(caught.value)


@pytest.mark.parametrize("timeout", [0, -1, "1", True, float("nan"), (1,)])
def test_a_bad_time_limit_is_refused(timeout):
    """The error names node, value and what is allowed, when the node is made."""
    with pytest.raises(ConfigurationError, match=r"node 'work': timeout=.*allowed is a number of seconds above 0"):
        node(name="work", timeout=timeout)(lambda: None)


@pytest.mark.parametrize("retry", [3, ValueError, {"on": ValueError}, True])
def test_what_is_no_policy_is_refused(retry):
    """The error shows what a policy looks like, when the node is made."""
    with pytest.raises(ConfigurationError, match=r"node 'work': retry=.*allowed is RetryPolicy\(on=SomeError"):
        node(name="work", retry=retry)(lambda: None)


@pytest.mark.parametrize("options", [{"timeout": 1}, {"retry": RetryPolicy(on=ValueError)}], ids=["timeout", "retry"])
def test_generators_take_no_policies(options):
    """A generator gives its items out as they come, so that it can be neither tried again nor given up as a whole."""

    def items() -> Iterator[int]:
        yield 1

    async def aitems() -> Any:
        yield 1

    for function in (items, aitems):
        with pytest.raises(ConfigurationError, match=r"node '\w+' is a generator: retry= and timeout= are allowed on"):
            node(**options)(function)
