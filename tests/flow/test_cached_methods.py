"""Cached methods: results belong to an instance by its identity, for as long as the instance lives."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from aetherflow import BatchPolicy, CacheKeyError, CachePolicy, node
from aetherflow.resources.caching import CacheService
from aetherflow.resources.entries import InstanceRefs


class Model:
    """A class whose methods are cached in several ways."""

    calls = 0

    @node(cache=CachePolicy())
    def predict(self, x: int) -> int:
        return self.count(x)

    @node(cache=CachePolicy())
    async def apredict(self, x: int) -> int:
        return self.count(x)

    @node(cache=CachePolicy(scope="thread"))
    def by_thread(self, x: int) -> int:
        return self.count(x)

    @node(cache=CachePolicy(), batch=BatchPolicy(size=1))
    def together(self, xs: list[int]) -> list[int]:
        return [self.count(x) for x in xs]

    @node(cache=CachePolicy(cache_errors=True))
    def fail(self, x: int) -> int:
        raise ValueError(x)

    def count(self, x: int) -> int:
        self.calls += 1
        return x


def failing(model: Model) -> None:
    with pytest.raises(ValueError, match="1"):
        model.fail(1)


ways = pytest.mark.parametrize(
    ("name", "ask"),
    [
        ("predict", lambda model: model.predict(1)),
        ("predict", lambda model: model.predict.run({"x": 1})),
        ("predict", lambda model: Model.predict(model, 1)),
        ("apredict", lambda model: asyncio.run(model.apredict(1))),
        ("by_thread", lambda model: model.by_thread(1)),
        ("together", lambda model: model.together(1)),
        ("fail", failing),
    ],
)


@ways
def test_a_cached_method_keeps_no_instance_alive(name: str, ask: Callable[[Model], object]):
    """An instance is free as soon as its user lets go of it, and its entries leave the cache with it."""
    cache = getattr(Model, name).cache
    cache.clear()
    model = Model()
    ask(model)
    assert cache.statistics().entries == 1
    alive = weakref.ref(model)
    del model
    gc.collect()  # of nodes bound to it
    assert alive() is None
    assert cache.statistics().entries == 0


def test_a_value_is_free_with_its_instance():
    """The value of a dead instance is not kept until the next request."""

    class Value:
        pass

    class Maker:
        @node(cache=CachePolicy())
        def make(self) -> Value:
            return Value()

    maker = Maker()
    value = weakref.ref(maker.make())
    gc.collect()
    assert value() is not None
    del maker
    gc.collect()
    assert value() is None


def test_an_instance_does_not_get_the_entries_of_another_that_had_its_id():
    """Of many short-lived instances, of which some have the id of a former one, each gets what it computed."""

    class Numbered:
        def __init__(self, number: int) -> None:
            self.number = number

        @node(cache=CachePolicy())
        def get(self) -> int:
            return self.number

    identities = set()
    for number in range(200):
        instance = Numbered(number)
        identities.add(id(instance))
        assert instance.get() == number
    assert len(identities) < 200  # else this has tested nothing


def test_a_reference_is_new_if_its_id_is_used_again():
    """The reference to a dead instance is never handed out for a new one with the same id."""

    class Thing:
        pass

    refs = InstanceRefs()
    first, second = Thing(), Thing()
    stale = refs.of(first)
    refs._refs[id(second)] = stale  # as if the first instance had died there, unnoticed so far
    fresh = refs.of(second)
    assert fresh is not stale
    assert fresh() is second
    assert refs.of(second) is fresh


def test_the_entries_of_an_instance_are_told_apart_by_identity():
    """Equal instances have results of their own, and an instance needs no hash."""

    @dataclass
    class Point:
        x: int

        @node(cache=CachePolicy())
        def where(self) -> int:
            return id(self)

    one, other = Point(1), Point(1)
    assert one.where() == one.where() == id(one)
    assert other.where() == id(other)


def test_a_key_function_decides_for_methods():
    """With ``key=``, instances share results of the same key, which may use the instance itself."""

    @dataclass(frozen=True)
    class Point:
        x: int

        @node(cache=CachePolicy(key=lambda self, by=1: (self.x, by)))
        def scaled(self, by: int = 1) -> int:
            computed.append(self.x)
            return self.x * by

    computed: list[int] = []
    assert [Point(2).scaled(), Point(2).scaled(), Point.scaled(Point(2)), Point(2).scaled(by=3)] == [2, 2, 2, 6]
    assert computed == [2, 2]
    assert Point(2).scaled.cache.invalidate()


class SlottedModel:
    __slots__ = ()

    @node(cache=CachePolicy())
    def predict(self, x: int) -> int:
        return x

    @node(cache=CachePolicy(key=lambda self, x: x))
    def predict_by_key(self, x: int) -> int:
        return x


class Row(NamedTuple):
    number: int

    @node(cache=CachePolicy())
    def predict(self, x: int) -> int:
        return x


@pytest.mark.parametrize(
    ("instance", "remedy"),
    [
        (SlottedModel(), r'"__weakref__" in the __slots__ of its class, or CachePolicy\(key=…\)'),
        (Row(1), r"CachePolicy\(key=…\)"),
    ],
    ids=lambda instance: type(instance).__name__,
)
def test_an_instance_that_cannot_be_referenced_weakly_is_refused(instance: Any, remedy: str):
    """The first call raises an error that names the node, the class and the remedies that the class allows."""
    match = (
        f"cache 'predict': the instance of the method is a {type(instance).__name__}, "
        "which cannot be referenced weakly; "
        rf"allowed: {remedy}\n"
    )
    with pytest.raises(CacheKeyError, match=match):
        instance.predict(1)


def test_with_a_key_function_no_weak_reference_is_needed():
    """An instance that cannot be referenced weakly can have methods with a key function."""
    assert SlottedModel().predict_by_key(1) == 1


def test_invalidating_is_for_one_instance():
    """`invalidate` of a bound method, or with the instance as the first argument, forgets only its result."""
    one, other = Model(), Model()
    one.predict(1)
    other.predict(1)
    assert one.predict.cache.invalidate(1)
    assert not one.predict.cache.invalidate(x=1)
    assert Model.predict.cache.invalidate(other, 1)
    one.predict(1)
    other.predict(1)
    assert (one.calls, other.calls) == (2, 2)


def test_the_entries_of_every_thread_go_with_an_instance():
    """With a cache per thread, a dead instance leaves the caches of all threads."""
    model = Model()
    Model.by_thread.cache.clear()
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(model.by_thread, 1).result() == model.by_thread(1) == 1
        assert Model.by_thread.cache.statistics().entries == 2
        threads.submit(lambda: None).result()
        del model
        gc.collect()
        assert Model.by_thread.cache.statistics().entries == 0


def test_an_instance_that_dies_while_the_lock_is_held_leaves_with_the_next_request():
    """A finalizer changes nothing under the hands of a thread that holds the lock."""

    class Thing:
        pass

    refs, cache = InstanceRefs(), CacheService[int]()
    thing, other = Thing(), Thing()
    cache.set((refs.of(thing), 1), 1)
    cache.set((refs.of(other), 1), 2)
    with cache._lock:
        del thing
        gc.collect()
        assert len(cache._entries) == 2
    assert len(cache) == 1
    assert cache.get((refs.of(other), 1)) == 2


def test_what_an_instance_has_is_forgotten_with_its_entries():
    """Entries that leave the cache by eviction, expiry or invalidation leave nothing behind for their instance."""
    now = [0.0]

    class Thing:
        pass

    refs, cache = InstanceRefs(), CacheService[int](maxsize=2, ttl=10, clock=lambda: now[0])
    thing = Thing()
    keys = [(refs.of(thing), number) for number in range(4)]
    for number, key in enumerate(keys):
        cache.set(key, number)  # two are evicted
    assert cache._entries._by_instance == {refs.of(thing): set(keys[2:])}
    cache.invalidate(keys[2])
    now[0] = 10.0
    assert len(cache) == 0
    assert cache._entries._by_instance == {}
