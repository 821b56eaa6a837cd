"""What pools, retries, streams and queues tell in metrics."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from aetherflow import BatchPolicy, CachePolicy, CacheService, ObjectPool, RetryPolicy, node
from aetherflow.engine.pool import ThreadPool
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.api_observer import ApiObserver, MeteringObserver
from aetherflow.telemetry.capture import CapturedTelemetry
from aetherflow.telemetry.metrics.accumulators import Registry, Series
from aetherflow.telemetry.observation import Observer
from aetherflow.telemetry.observer import current_observer
from aetherflow.telemetry.profiling.observer import ProfilingObserver
from aetherflow.telemetry.profiling.rules import Rules


@pytest.fixture
def captured() -> Iterator[CapturedTelemetry]:
    """A provider of the application's."""
    with CapturedTelemetry() as captured:
        yield captured


class _Unlucky:
    """Fails as often as it is told to, each time with another error in turn."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def __call__(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


POLICY = RetryPolicy(on=(OSError, KeyError), attempts=5, sleep=lambda _: None, wait_initial=0, wait_jitter=0)


def retries(captured: CapturedTelemetry) -> dict[tuple[str, str, str], int]:
    """Return the retries by flow, node and error."""
    told = (names.FLOW_NAME, names.NODE_NAME, names.ERROR_TYPE)
    return {
        tuple(point.attributes[key] for key in told): point.value for point in captured.points(names.NODE_RETRIES.name)
    }


@pytest.mark.parametrize("way", ["run", "call", "in a flow", "async", "with a time limit"])
def test_each_retry_is_counted_with_its_error(way: str, captured: CapturedTelemetry) -> None:
    """By the flow and the node, however it is run; those of one node are not those of another inside it."""
    unlucky = _Unlucky(OSError(), KeyError(), OSError())

    async def retried_async() -> None:
        unlucky()

    def retried() -> None:
        inner = _Unlucky(KeyError())
        node(inner, name="inner", retry=POLICY).run()
        unlucky()

    if way == "async":
        policy = RetryPolicy(on=(OSError, KeyError), attempts=5, wait_initial=0, wait_jitter=0)
        node(retried_async, name="outer", retry=policy).run()
        expected = {}
    elif way == "with a time limit":
        policy = RetryPolicy(on=(OSError, KeyError), attempts=5, wait_initial=0, wait_jitter=0)
        node(retried, name="outer", retry=policy, timeout=30).run()
        expected = {("inner", "inner", "KeyError"): 4}
    else:
        outer = node(retried, name="outer", retry=POLICY)
        flow = (outer >> node(lambda: None, name="end")).named("flow") if way == "in a flow" else outer
        (flow if way == "call" else flow.run)()
        expected = {("inner", "inner", "KeyError"): 4}
    name = "flow" if way == "in a flow" else "outer"
    expected |= {(name, "outer", "OSError"): 2, (name, "outer", "KeyError"): 1}
    assert retries(captured) == expected


def test_items_of_a_stream_are_counted_as_they_come(captured: CapturedTelemetry) -> None:
    """Not only at its end: whoever collects meanwhile sees those that were yielded."""

    @node
    def numbers() -> Iterator[int]:
        yield from range(10)

    def counted() -> list[int]:
        points = captured.points(names.STREAM_ITEMS_METRIC.name, {names.NODE_NAME: "numbers"})
        return [point.value for point in points]

    stream = numbers.stream()
    assert counted() == []
    for _ in range(3):
        next(stream)
    assert counted() == [3]
    assert len(list(stream)) == 7
    assert counted() == [10]


def test_a_pool_tells_its_objects_and_how_long_callers_waited(captured: CapturedTelemetry) -> None:
    """By its name, the factory's by default; two of one name are one in the metrics."""

    def connection() -> object:
        return object()

    def told(name: str) -> dict[str, Any]:
        points = captured.points(names.POOL_OBJECTS.name, {names.POOL_NAME: name})
        return {point.attributes[names.POOL_STATE]: point.value for point in points}

    current_observer()
    pools = [ObjectPool(connection, max_size=3, block=True) for _ in range(2)]
    other = ObjectPool(connection, name="other")
    lent = pools[0].acquire()
    with pools[1].lease():
        assert told("connection") == {"idle": 0, "used": 2}
    assert told("connection") == {"idle": 1, "used": 1}
    assert told("other") == {"idle": 0, "used": 0}
    pools[0].release(lent)
    assert told("connection") == {"idle": 2, "used": 0}
    (waits,) = captured.points(names.POOL_WAIT.name)
    assert (waits.attributes, waits.count, waits.sum) == ({names.POOL_NAME: "connection"}, 2, 0)
    assert other.acquire()
    assert len(captured.points(names.POOL_WAIT.name)) == 1  # nobody ever waits for a pool that does not block


def test_a_caller_who_waited_is_told_by_the_time_it_took(captured: CapturedTelemetry) -> None:
    """On the pool's own clock."""
    now, asking = [0.0], threading.Event()

    def clock() -> float:
        return now[0]

    pool = ObjectPool(object, max_size=1, block=True, name="one", clock=clock)
    current_observer()
    lent = pool.acquire()

    def ask() -> None:
        asking.set()
        pool.release(pool.acquire())

    thread = threading.Thread(target=ask)
    thread.start()
    while not pool.statistics().waiting:
        asking.wait(0.001)
    assert [point.value for point in captured.points(names.POOL_WAITING.name, {names.POOL_NAME: "one"})] == [1]
    now[0] = 2.5
    pool.release(lent)
    thread.join()
    (waits,) = captured.points(names.POOL_WAIT.name, {names.POOL_NAME: "one"})
    assert (waits.count, waits.min, waits.max) == (2, 0, 2.5)


def test_a_thread_pool_tells_its_queue_its_workers_and_its_waits(captured: CapturedTelemetry) -> None:
    """What was withdrawn waits no longer; a task that has begun has waited once."""
    pool, go, begun = ThreadPool(2, "mine"), threading.Event(), threading.Semaphore(0)
    current_observer()

    def work() -> None:
        begun.release()
        go.wait(30)

    def told(metric: names.MetricDefinition) -> dict[str, int]:
        points = captured.points(metric.name, {names.EXECUTOR_NAME: "mine"})
        return {point.attributes.get(names.EXECUTOR_STATE, ""): point.value for point in points}

    tickets = [pool.submit(work) for _ in range(5)]
    for _ in range(2):
        assert begun.acquire(timeout=30)
    assert told(names.EXECUTOR_QUEUE) == {"": 3}
    assert told(names.EXECUTOR_WORKERS) == {"idle": 0, "used": 2}
    pool.withdraw(tickets[3:4])
    assert told(names.EXECUTOR_QUEUE) == {"": 2}
    go.set()
    for _ in range(2):
        assert begun.acquire(timeout=30)
    while pool.statistics()["idle"] < 2:
        begun.acquire(timeout=0.001)
    assert told(names.EXECUTOR_QUEUE) == {"": 0}
    assert told(names.EXECUTOR_WORKERS) == {"idle": 2, "used": 0}
    (waits,) = captured.points(names.EXECUTOR_WAIT.name, {names.EXECUTOR_NAME: "mine"})
    assert waits.count == 4


def test_ten_thousand_runs_add_no_time_series(captured: CapturedTelemetry) -> None:
    """Run, thread and item ids are attributes of spans alone."""
    flow = node(lambda x: x, name="a") >> node(lambda a: a, name="b")

    def series() -> dict[str, int]:
        return {name: len(metric.data.data_points) for name, metric in captured.metrics().items()}

    flow.run({"x": 0})
    before = series()
    for x in range(10_000):
        flow.run({"x": x})
    captured.clear()
    assert {name for name, points in series().items() if points > before.get(name, 0)} == set()


def test_a_cache_tells_its_requests_and_its_entries(captured: CapturedTelemetry) -> None:
    """Each request is a hit, a miss, or shares what another computes; that of a node has the node's name."""

    def requests(name: str) -> dict[str, int]:
        points = captured.points(names.CACHE_REQUESTS.name, {names.CACHE_NAME: name})
        return {point.attributes[names.CACHE_RESULT]: point.value for point in points}

    def entries(name: str) -> list[int]:
        return [point.value for point in captured.points(names.CACHE_ENTRIES.name, {names.CACHE_NAME: name})]

    cache: CacheService[int] = CacheService(name="squares")
    for key in (1, 2, 1, 1):
        cache.get_or_compute(key, lambda: 1)
    assert (requests("squares"), entries("squares")) == ({"miss": 2, "hit": 2}, [2])
    go, computing = threading.Event(), threading.Event()

    def slow() -> int:
        computing.set()
        go.wait(30)
        return 9

    callers = [threading.Thread(target=cache.get_or_compute, args=(3, slow)) for _ in range(2)]
    callers[0].start()
    assert computing.wait(30)
    callers[1].start()
    go.set()
    for caller in callers:
        caller.join()
    assert requests("squares")["miss"] == 3
    assert requests("squares")["hit"] + requests("squares").get("coalesced", 0) == 3
    double = node(lambda x: 2 * x, name="double", cache=CachePolicy())
    for x in (1, 1, 2):
        double.run({"x": x})
    assert (requests("double"), entries("double")) == ({"miss": 2, "hit": 1}, [2])


def test_batches_tell_their_sizes_and_how_long_items_waited(captured: CapturedTelemetry) -> None:
    """One size a batch, one wait an item, in whole items and in seconds."""

    def double(xs: list[int]) -> list[int]:
        return [2 * x for x in xs]

    batched = node(name="doubles", batch=BatchPolicy(size=4, max_wait=0.001))(double)
    assert node(lambda: list(range(10)), name="source").map(batched).run() == [2 * x for x in range(10)]
    (sizes,) = captured.points(names.BATCH_SIZE_METRIC.name, {names.NODE_NAME: "doubles"})
    (waits,) = captured.points(names.BATCH_WAIT_METRIC.name, {names.NODE_NAME: "doubles"})
    assert (sizes.sum, waits.count) == (10, 10)
    assert sizes.max <= 4
    assert sizes.count >= 3
    assert sizes.explicit_bounds == tuple(names.SIZE_BOUNDARIES)
    assert waits.min >= 0


@pytest.mark.parametrize("way", ["metered", "recorded", "profiled"])
def test_many_values_at_once_are_kept_as_one_by_one(way: str) -> None:
    """The store and the application's own instruments are told the same, whichever observer is in use."""
    recorded: dict[Series, list[int]] = {}

    def record(series: Series, value: int, context: object) -> None:
        recorded.setdefault(series, []).append(value)

    recording = ApiObserver(None, record)
    observers: dict[str, Observer] = {
        "metered": MeteringObserver(),
        "recorded": recording,
        "profiled": ProfilingObserver(recording, Rules()),
    }
    store = Registry()
    singly, together = (store.series(names.BATCH_WAIT_METRIC, {names.NODE_NAME: name}) for name in ("a", "b"))
    values = [3, 1, 2]
    for value in values:
        observers[way].keep(singly, value)
    observers[way].keep_all(together, values)
    assert together.totals() == singly.totals()
    assert together.totals().count == 3
    assert recorded.get(together) == recorded.get(singly) == (None if way == "metered" else values)
