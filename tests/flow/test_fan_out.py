"""Branches side by side: what they get, how many run at once, and what becomes of failures."""

from __future__ import annotations

import contextvars
import signal
import subprocess
import sys
import textwrap
import threading
from collections import namedtuple
from typing import Any, NoReturn

import pytest
from dependency_injector import providers

from aetherflow import BaseFlowContext, Failure, MissingInputError, SplitError, node
from aetherflow.engine import pool

Point = namedtuple("Point", "x y")


@node
def source(value: Any) -> Any:
    return value


@node
def work(source: Any) -> Any:
    return source


@node
def results(parallel_results: dict[str, Any]) -> dict[str, Any]:
    return parallel_results


@node
def fail(value: Any) -> NoReturn:
    raise ValueError("no")


@node
def fail_too(value: Any) -> NoReturn:
    raise KeyError("gone")


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool of two threads, as if AETHER_MAX_THREADS were 2."""
    monkeypatch.setattr(pool._Default, "pool", pool.ThreadPool(2, "two"))


@pytest.mark.parametrize("count", [0, 1, 3, 4, 8])
def test_four_workers_take_one_element_each_execution(count: int) -> None:
    """``[n] * 4`` over a list runs once an element, keyed by place, and the fan-in still runs over none."""
    flow = source >> [work] * 4 >> results
    assert flow.run({"value": {"partitions": list(range(count))}}) == {f"work[{i}]": i for i in range(count)}
    assert flow.run({"value": list(range(count))}) == {f"work[{i}]": i for i in range(count)}


@pytest.mark.parametrize("value", [[1, 2, 3], [], 5, {"partitions": [1, 2]}])
def test_one_worker_is_a_pool_as_two_are(value: Any) -> None:
    """``[n] * k`` means the same at 1, as a count that comes from a setting may be; only the limit differs."""
    one, two = ((source >> [work] * k >> results).run({"value": value}) for k in (1, 2))
    assert one == two if isinstance(value, list | dict) else one == {"work[0]": value}
    assert (source >> [work] >> results).run({"value": value}) == one


def test_no_more_than_k_run_at_once() -> None:
    """Eight elements on four workers: four at once, and never five."""
    gate, lock = threading.Barrier(4, timeout=10), threading.Lock()
    running, most = 0, 0

    @node
    def meet(source: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        gate.wait()
        with lock:
            running -= 1

    (source >> [meet] * 4).run({"value": list(range(8))})
    assert most == 4


@pytest.mark.parametrize("value", [Point([1], [2]), "text", {"a": [1], "b": [2]}, 7])
def test_what_is_no_list_goes_whole_to_each_worker(value: Any) -> None:
    """A named tuple, a string, a mapping of two: each of the k executions gets all of it."""
    assert (source >> [work] * 2 >> results).run({"value": value}) == {"work[0]": value, "work[1]": value}


def test_split_false_gives_each_worker_the_whole_list() -> None:
    """``split=False`` splits nothing."""
    flow = source.fan_out_to([work] * 2, split=False)
    assert flow.run({"value": [1, 2, 3]}) == {"work[0]": [1, 2, 3], "work[1]": [1, 2, 3]}


def test_map_keeps_order_and_names_what_cannot_be_mapped() -> None:
    """``map`` gives a list in order over any iterable, and one clear error for what has no elements."""
    assert source.map(work, max_concurrency=3).run({"value": iter(range(20))}) == list(range(20))
    with pytest.raises(SplitError, match=r"'work'.*int"):
        source.map(work).run({"value": 5})


def test_one_failure_is_raised_as_it_is_and_several_as_a_group() -> None:
    """The original exception, with a note of flow and node; an ExceptionGroup of several."""
    with pytest.raises(ValueError, match="no") as raised:
        (source >> [work, fail]).run({"value": 1})
    assert any("'fail'" in note and "'source'" in note for note in raised.value.__notes__)
    gate = threading.Barrier(2, timeout=10)

    @node
    def together(source: int) -> None:
        gate.wait()
        raise ValueError(source)

    with pytest.raises(ExceptionGroup) as group:
        (source >> [together] * 2).run({"value": [1, 2]})
    assert sorted(str(error) for error in group.value.exceptions) == ["1", "2"]


def test_branches_not_begun_are_given_up_and_running_ones_awaited() -> None:
    """After a failure nothing more begins; what runs is finished before the error comes out."""
    begun: list[int] = []
    finished = threading.Event()
    failed = threading.Event()

    @node
    def step(source: int) -> None:
        begun.append(source)
        if source == 0:
            failed.set()
            raise ValueError
        failed.wait(10)
        finished.set()

    with pytest.raises(ValueError):  # noqa: PT011  # our own, without a message
        (source >> [step] * 2).run({"value": list(range(50))})
    assert len(begun) <= 4
    assert finished.is_set() or 1 not in begun


def test_collect_puts_failures_among_the_results() -> None:
    """With ``on_error="collect"`` each failed branch is a Failure that names it."""
    found = source.fan_out_in([work, fail, fail_too], results, on_error="collect").run({"value": 1})
    assert found["work"] == 1
    assert isinstance(found["fail"], Failure)
    assert found["fail"].node == "fail"
    assert isinstance(found["fail_too"].exception, KeyError)


@pytest.mark.usefixtures("two_threads")
def test_fan_outs_nested_five_deep_on_two_threads_finish() -> None:
    """Waiting threads help, so that a full pool never waits for itself."""

    def nested(depth: int) -> Any:
        if depth == 0:
            return lambda value: value + 1
        below = nested(depth - 1)

        @node(name=f"depth {depth}")
        def level(value: int) -> int:
            inner = node(below, name="below")
            flow = node(lambda value: [value] * 3, name="spread").map(inner)
            return sum(flow.run({"value": value}))

        return level.func

    assert node(nested(5), name="top").run({"value": 0}) == 3**5


def test_each_branch_has_its_own_copy_of_the_context() -> None:
    """What a branch sets in a context variable, its sibling and the caller do not see."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    @node
    def setting(source: int) -> str:
        before = variable.get()
        variable.set(f"set by {source}")
        return before

    assert (source >> [setting] * 2).run({"value": [1, 2, 3]}) == {f"setting[{i}]": "unset" for i in range(3)}
    assert variable.get() == "unset"


def test_a_context_local_object_is_one_over_all_branches() -> None:
    """It is resolved before the fan-out, so that branches share what their run has."""

    class Context(BaseFlowContext):
        request = providers.ContextLocalSingleton(object)

    @node
    def see(source: Any, request: object) -> int:
        return id(request)

    seen = (source >> [see] * 4).run({"value": list(range(8))}, Context())
    assert len(set(seen.values())) == 1


def test_ctrl_c_in_a_fan_out_leaves_promptly(tmp_path: Any) -> None:
    """A real SIGINT ends the program, though branches still run."""
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
        import os, threading
        from aetherflow import node
        @node
        def source(): return [1, 2, 3, 4]
        @node
        def stuck(source):
            os.write(1, b"begun\\n")  # in one piece, whatever the other threads write
            threading.Event().wait()
        (source >> [stuck] * 4).run()
        """)
    )
    with subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        begun = [process.stdout.readline() for _ in range(4)]
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=15)
        finally:
            process.kill()
    assert begun == [b"begun\n"] * 4
    assert b"KeyboardInterrupt" in errors
    assert process.returncode == -signal.SIGINT


def test_copies_may_be_more_than_run_at_once() -> None:
    """``split=False`` with a limit: still k executions, no more than the limit at once."""
    running, most, lock = 0, 0, threading.Lock()

    @node
    def count(source: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1
        return source

    found = source.fan_out_to([count] * 6, max_workers=2, split=False).run({"value": 7})
    assert found == {f"count[{i}]": 7 for i in range(6)}
    assert most <= 2


def test_within_an_execution_the_source_means_its_element() -> None:
    """By position and by the source's name, also for a repeated source and for a chosen one."""
    inc = node(name="inc")(lambda before: [*before, len(before)])
    grown = node(name="none")(list) >> inc.repeat(3)
    assert grown.map(node(name="each")(lambda x: x)).run() == [0, 1, 2]
    assert grown.map(node(name="each")(lambda *, inc: inc)).run() == [0, 1, 2]
    left, right = node(name="left")(lambda n: [1, 2]), node(name="right")(lambda n: [3])
    chosen = source.branch_on({"l": left, "r": right}).map(node(name="each")(lambda x=None, left=None: (x, left)))
    assert chosen.run({"value": "l"}) == [(None, 1), (None, 2)]
    assert chosen.run({"value": "r"}) == [(3, None)]


def test_what_a_failed_branch_did_not_get_to_is_missing() -> None:
    """With collected failures a node of a broken branch gives nothing by name: a default holds, else it is an error."""
    echo = node(name="echo")(lambda value: value)
    broken = echo.named("begin") >> fail >> echo.named("after")
    flow = source.fan_out_to([broken, work.named("other")], on_error="collect")
    assert flow.fan_in(node(name="end")(lambda results, fail="default": fail)).run({"value": 1}) == "default"
    with pytest.raises(MissingInputError, match=r"'fail' of node 'end'.*did not get to run"):
        flow.fan_in(node(name="end")(lambda results, fail: fail)).run({"value": 1})


def test_a_branchs_key_means_its_result() -> None:
    """After a fan-out, `plus` is the result of the branch `plus >> after`, as `parallel_results["plus"]` is."""
    after = node(name="after")(lambda value: -value)
    flow = source.fan_out_to([work.named("plus") >> after, fail], on_error="collect")
    end = node(name="end")(lambda plus, after, fail, parallel_results: (plus, after, fail, parallel_results))
    plus, after, failure, results = flow.fan_in(end).run({"value": 1})
    assert plus == after == results["plus"] == -1
    assert failure is results["fail"]
    assert isinstance(failure, Failure)


def test_no_round_finds_what_another_one_made() -> None:
    """In a repeat, a branch that fails in the second round leaves nothing of the first one behind."""
    outcomes = iter([True, False])
    seen: list[object] = []

    @node
    def first(entered: Any) -> str:
        if not next(outcomes):
            raise ValueError
        return "made"

    last = node(name="last")(lambda value: value)

    @node
    def look(results: Any, begun: str = "nothing") -> Any:
        seen.append(begun)
        return results

    begun = first.named("begun")
    flow = source.fan_out_to([work.named("enter") >> begun >> last, work.named("other")], on_error="collect") >> look
    flow.repeat(2).run({"value": 1})
    assert seen == ["made", "nothing"]
