"""A flow over many inputs: the order of outputs, how many run at once, and that memory stays constant."""

from __future__ import annotations

import gc
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice

import pytest
from dependency_injector import providers

from aetherflow.engine import pool as pool_module
from aetherflow.engine.pool import ThreadPool
from aetherflow.errors import ConfigurationError
from aetherflow.flow.decorating import node
from aetherflow.resources.context import BaseFlowContext
from aetherflow.testing import CapturedTelemetry

both_orders = pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "as ready"])


@pytest.fixture
def use_pool(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], ThreadPool]:
    """Have flows run on a pool of a given size for the length of a test."""

    def use(size: int) -> ThreadPool:
        pool = ThreadPool(size, "test")
        monkeypatch.setattr(pool_module._Default, "pool", pool)
        return pool

    return use


def happens(event: threading.Event) -> None:
    assert event.wait(30), "what should have happened did not"


@node
def double(value: int) -> int:
    return 2 * value


class Gauge:
    """Counts how many are inside at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = 0
        self.peak = 0

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.peak = max(self.peak, self.now)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self.now -= 1


# --- outputs -----------------------------------------------------------------------------------------------------


@both_orders
def test_every_input_gives_one_output(ordered):
    """Mappings are inputs by name, anything else goes to the first parameter; each gives its output."""
    outputs = double.run_many([{"value": 1}, 2, *({"value": value} for value in range(3, 40))], ordered=ordered)
    assert sorted(outputs) == [2 * value for value in range(1, 40)]


@both_orders
def test_no_input_gives_no_output(ordered):
    """An empty source is no error."""
    assert list(double.run_many([], ordered=ordered)) == []


def test_outputs_come_in_the_order_of_the_inputs(use_pool):
    """Ordered outputs keep the inputs' order, even where every run ends only after the one that follows it."""
    use_pool(4)
    ended = [threading.Event() for _ in range(5)]
    ended[4].set()

    @node
    def late(index: int) -> int:
        happens(ended[index + 1])
        ended[index].set()
        return index

    assert list(late.run_many(range(4), max_workers=4)) == [0, 1, 2, 3]


def test_outputs_come_as_they_are_ready(use_pool):
    """Unordered outputs do not wait for a slow run that began before them, and no run is lost."""
    use_pool(3)
    for _ in range(20):
        released = threading.Event()

        @node
        def slow_first(index: int, released: threading.Event = released) -> int:
            if index == 0:
                happens(released)
            return index

        outputs = slow_first.run_many(range(6), max_workers=3, ordered=False)
        assert sorted(islice(outputs, 5)) == [1, 2, 3, 4, 5]
        released.set()
        assert list(outputs) == [0]


@both_orders
def test_every_run_is_injected_from_the_context(ordered):
    """The context that is given to run_many is each run's context."""

    class Context(BaseFlowContext):
        factor = providers.Object(10)

    @node
    def scaled(value: int, factor: int) -> int:
        return value * factor

    assert sorted(scaled.run_many([1, 2, 3], Context(), ordered=ordered)) == [10, 20, 30]


@both_orders
def test_runs_belong_to_the_current_trace(ordered):
    """Each run is a child of the span that is current where its output is asked for."""
    with CapturedTelemetry() as captured:
        tracer = captured.tracer_provider.get_tracer("test")
        with tracer.start_as_current_span("outside"):
            assert len(list(double.run_many(range(10), max_workers=3, ordered=ordered))) == 10
    (tree,) = captured.tree()
    assert str(tree) == "outside" + "\n  double" * 10


# --- how much at once ---------------------------------------------------------------------------------------------


@both_orders
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_never_more_than_max_workers_run_at_once(ordered, workers, use_pool):
    """So many runs are under way at once, and never one more, however many threads there are."""
    use_pool(16)
    gauge = Gauge()
    together = threading.Barrier(workers)
    one_more = threading.Event()

    @node
    def counted(index: int) -> int:
        with gauge:
            if index < workers:
                together.wait(30)
                one_more.wait(0.05)  # leave a run that is too many the time to show
            else:
                one_more.set()
        return index

    assert len(list(counted.run_many(range(300), max_workers=workers, ordered=ordered))) == 300
    assert gauge.peak == workers


@both_orders
def test_without_max_workers_the_size_of_the_pool_counts(ordered, use_pool):
    """As many runs are under way at once as the pool has threads."""
    use_pool(3)
    gauge = Gauge()
    together = threading.Barrier(3)

    @node
    def counted(index: int) -> None:
        with gauge:
            if index < 3:
                together.wait(30)

    assert len(list(counted.run_many(range(100), ordered=ordered))) == 100
    assert gauge.peak == 3


@both_orders
@pytest.mark.parametrize("workers", [1, 2, 7])
def test_a_slow_consumer_slows_the_source(ordered, workers):
    """An endless source is never taken further than max_workers ahead of what the consumer has asked for."""
    pulled = 0

    def source() -> Iterator[int]:
        nonlocal pulled
        while True:
            pulled += 1
            yield pulled

    outputs = double.run_many(source(), max_workers=workers, ordered=ordered)
    assert pulled == 0
    for taken in range(1, 50):
        next(outputs)
        assert taken <= pulled < taken + workers
    outputs.close()


@pytest.mark.stress
@both_orders
def test_100_000_inputs_take_constant_memory(ordered, use_pool):
    """However many inputs there are, only those in flight are alive."""
    use_pool(4)
    live: set[weakref.ref[object]] = set()
    peak = 0

    class Input:
        pass

    def source() -> Iterator[Input]:
        nonlocal peak
        for _ in range(100_000):
            item = Input()
            live.add(weakref.ref(item, live.discard))
            peak = max(peak, len(live))
            yield item

    @node
    def one(item: Input) -> int:
        return 1

    assert sum(one.run_many(source(), max_workers=8, ordered=ordered)) == 100_000
    assert peak <= 8 + 4 + 2  # in flight, on threads that are just letting go, in the hands of source and loop
    gc.collect()
    assert len(live) <= 4


@both_orders
def test_memory_is_constant_on_a_full_pool_too(ordered, use_pool):
    """Where no thread is free and the caller runs everything itself, nothing that it did stays in the pool's queue."""
    pool = use_pool(1)

    @node
    def outer(size: int) -> dict[str, int]:
        assert sum(1 for _ in double.run_many(range(size), max_workers=4, ordered=ordered)) == size
        return pool.statistics()

    busy = pool.call(outer, 5_000).result().get()
    assert busy["workers"] == 1
    assert busy["queued"] < 200


# --- ends ---------------------------------------------------------------------------------------------------------


def test_an_error_comes_in_its_place():
    """Ordered outputs before the failed run come first; then its own exception is raised, naming node and flow."""

    @node
    def tenth(value: int) -> float:
        return 10 / value

    outputs = tenth.run_many([1, 2, 0, 5])
    assert [next(outputs), next(outputs)] == [10, 5]
    with pytest.raises(ZeroDivisionError) as caught:
        next(outputs)
    assert "node 'tenth' of flow 'tenth'" in "".join(caught.value.__notes__)
    assert list(outputs) == []


@both_orders
def test_after_an_error_nothing_runs_any_more(ordered, use_pool):
    """When the error reaches the consumer, the runs under way have ended and no other has begun."""
    use_pool(4)
    begun, failing = threading.Event(), threading.Event()
    gauge = Gauge()
    ended = []

    @node
    def run(index: int) -> None:
        with gauge:
            if index == 0:
                happens(begun)
                failing.set()
                raise KeyError(index)
            if index == 1:
                begun.set()
                happens(failing)
            ended.append(index)

    with pytest.raises(KeyError):
        list(run.run_many(range(100), max_workers=2, ordered=ordered))
    assert gauge.now == 0
    before = list(ended)
    assert 1 in before
    assert len(before) < 99
    assert ended == before


@both_orders
def test_an_error_of_the_source_reaches_the_consumer(ordered):
    """What the source raises is raised as it is, once the runs under way have ended."""
    gauge = Gauge()

    def source() -> Iterator[int]:
        yield from range(5)
        raise OSError("the disk is gone")

    @node
    def run(index: int) -> int:
        with gauge:
            return index

    with pytest.raises(OSError, match="the disk is gone"):
        list(run.run_many(source(), max_workers=3, ordered=ordered))
    assert gauge.now == 0


@both_orders
@pytest.mark.parametrize("progress", [False, True], ids=["plain", "progress"])
def test_closing_early_waits_for_what_runs_and_begins_nothing_more(ordered, progress, use_pool):
    """A consumer that has enough closes: runs under way end first, no input is taken any more."""
    use_pool(4)
    begun, released = threading.Event(), threading.Event()
    ended = []

    @node
    def run(index: int) -> None:
        if index == 2:
            begun.set()
            happens(released)
        ended.append(index)

    source = iter(range(100))
    outputs = run.run_many(source, max_workers=3, ordered=ordered, progress=progress)
    next(outputs)
    happens(begun)
    closing = threading.Thread(target=outputs.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive(), "closing did not wait for the run under way"
    released.set()
    closing.join(30)
    assert 2 in ended
    assert next(source) == 3


# --- within flows -------------------------------------------------------------------------------------------------


@both_orders
@pytest.mark.parametrize("size", [1, 2])
def test_many_within_many_on_a_small_pool_end(ordered, size, use_pool):
    """Runs that start many runs, three deep, finish on a pool that their callers fill."""
    use_pool(size)

    @node
    def middle(value: int) -> int:
        return sum(double.run_many(range(value), max_workers=3, ordered=ordered))

    @node
    def outer(value: int) -> int:
        return sum(middle.run_many(range(value), max_workers=3, ordered=ordered))

    expected = [sum(sum(2 * n for n in range(m)) for m in range(value)) for value in range(6)]
    assert sorted(outer.run_many(range(6), max_workers=4, ordered=ordered)) == sorted(expected)


@both_orders
def test_many_within_an_async_node_on_a_small_pool_end(ordered, use_pool):
    """A node on an event loop may start many runs too, while the pool's threads wait for that loop."""
    use_pool(2)

    @node
    async def tripled(value: int) -> int:
        return 3 * value

    @node
    async def outer(value: int) -> int:
        return sum(tripled.run_many(range(value), max_workers=3, ordered=ordered))

    assert sorted(outer.run_many(range(6), max_workers=4, ordered=ordered)) == [0, 0, 3, 9, 18, 30]


# --- progress -----------------------------------------------------------------------------------------------------


@contextmanager
def terminal() -> Iterator[Callable[[], str]]:
    """Make stderr a terminal; afterwards, what was written to it can be had.

    No fixture: pytest puts its own stderr in place after fixtures have run.
    """
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    written = bytearray()
    reader = threading.Thread(target=_read_all, args=(master, written))
    reader.start()
    with pytest.MonkeyPatch.context() as patch, os.fdopen(slave, "w") as stream:
        patch.setenv("TERM", "xterm")
        patch.setenv("COLUMNS", "100")
        patch.delenv("NO_COLOR", raising=False)
        patch.setattr(sys, "stderr", stream)
        yield written.decode
    reader.join(30)
    os.close(master)


def _read_all(descriptor: int, written: bytearray) -> None:
    while True:
        try:
            piece = os.read(descriptor, 4096)
        except OSError:  # how Linux says that the other side is closed
            return
        if not piece:
            return
        written += piece


@both_orders
def test_progress_is_shown_on_the_terminal(ordered, capsys):
    """The bar has the flow's name and goes from none to all; outputs are the same, and stdout is left alone."""
    flow = double.named("a [bold]name[/bold]")
    with terminal() as written:
        assert sorted(flow.run_many([1, 2, 3], ordered=ordered, progress=True)) == [2, 4, 6]
    assert "a [bold]name[/bold]" in written()
    assert "0/3" in written()
    assert "3/3" in written()
    assert capsys.readouterr().out == ""


def test_progress_over_a_source_of_unknown_length():
    """Without a length the bar counts."""
    with terminal() as written:
        assert list(double.run_many((n for n in range(4)), progress=True)) == [0, 2, 4, 6]
    assert "4/?" in written()


def test_progress_within_progress():
    """A run with a progress bar may be started while another bar is shown."""

    @node
    def outer(value: int) -> int:
        return sum(double.run_many(range(value), progress=True))

    with terminal() as written:
        assert list(outer.run_many([2, 3], progress=True)) == [2, 6]
    assert "2/2" in written()


def test_progress_without_a_terminal_prints_nothing(capsys):
    """Where nobody watches, the outputs are all there is."""
    assert list(double.run_many([1, 2], progress=True)) == [2, 4]
    captured = capsys.readouterr()
    assert (captured.out, captured.err.strip()) == ("", "")


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, -1, True, 1.5, "2"])
def test_a_bad_number_of_workers_is_refused_at_once(workers):
    """The error is raised by the call itself and names the value and what is allowed."""
    with pytest.raises(ConfigurationError, match=r"max_workers=.*allowed is a whole number from 1, or None") as caught:
        double.run_many([1], max_workers=workers)
    assert repr(workers) in str(caught.value)


@pytest.mark.parametrize("inputs", [None, 5, "text", b"bytes", {"value": 1}], ids=repr)
def test_what_is_no_series_of_inputs_is_refused_at_once(inputs):
    """Text and a single mapping are iterable, yet surely not meant: they are refused as what cannot be iterated is."""
    with pytest.raises(ConfigurationError, match="allowed is an iterable of inputs") as caught:
        double.run_many(inputs)
    assert repr(inputs) in str(caught.value)
