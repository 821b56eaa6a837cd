"""What `scope_of` says of every kind of dependency-injector provider, overridden or not."""

from __future__ import annotations

import inspect
from typing import Any, get_args

import pytest
from dependency_injector import containers, providers
from hypothesis import given
from hypothesis import strategies as st

from aetherflow.resources.scopes import (
    combined_scope,
    context_locals_of,
    effective_provider,
    is_context_local,
    reachable,
    scope_of,
)
from aetherflow.telemetry.conventions import ProviderScope

AnyProvider = providers.Provider[Any]
SCOPES: tuple[ProviderScope, ...] = get_args(ProviderScope)


class Thing:
    """Something to inject."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.args = args
        self.kwargs = kwargs


class Nested(containers.DeclarativeContainer):
    """A container inside another."""

    service = providers.Singleton(Thing)


class Own(providers.Provider[int]):
    """A provider class of a user's own."""


async def coroutine() -> None:
    """Do nothing."""


SINGLETON = providers.Singleton(Thing)
LOCAL = providers.ThreadLocalSingleton(Thing)
FACTORY = providers.Factory(Thing)
CONFIG = providers.Configuration()
CASES: list[tuple[AnyProvider, ProviderScope]] = [
    (LOCAL, "thread_local"),
    (providers.DelegatedThreadLocalSingleton(Thing), "thread_local"),
    (providers.ContextLocalSingleton(Thing), "context_local"),
    (providers.ContextLocalResource(Thing), "context_local"),
    (SINGLETON, "singleton"),
    (providers.DelegatedSingleton(Thing), "singleton"),
    (providers.ThreadSafeSingleton(Thing), "singleton"),
    (providers.DelegatedThreadSafeSingleton(Thing), "singleton"),
    (providers.Resource(Thing), "singleton"),
    (providers.Object(1), "singleton"),
    (CONFIG, "singleton"),
    (CONFIG.db.host, "singleton"),
    (CONFIG.db.port.as_int(), "singleton"),
    (providers.Container(Nested), "singleton"),
    (providers.Self(Nested()), "singleton"),
    (FACTORY, "factory"),
    (providers.DelegatedFactory(Thing), "factory"),
    (providers.AbstractFactory(Thing), "factory"),
    (providers.Callable(Thing), "factory"),
    (providers.DelegatedCallable(Thing), "factory"),
    (providers.AbstractCallable(Thing), "factory"),
    (providers.Coroutine(coroutine), "factory"),
    (providers.DelegatedCoroutine(coroutine), "factory"),
    (providers.AbstractCoroutine(coroutine), "factory"),
    (providers.FactoryAggregate(a=FACTORY), "factory"),
    (providers.AbstractSingleton(Thing), "unknown"),
    (providers.DependenciesContainer(), "unknown"),
    (providers.Dependency(), "unknown"),
    (providers.ExternalDependency(), "unknown"),
    (providers.Dependency(default=LOCAL), "thread_local"),
    (providers.Dependency(default=5), "singleton"),
    (providers.Delegate(LOCAL), "thread_local"),
    (providers.FactoryDelegate(FACTORY), "factory"),
    (providers.SingletonDelegate(SINGLETON), "singleton"),
    (providers.CallableDelegate(providers.Callable(Thing)), "factory"),
    (providers.CoroutineDelegate(providers.Coroutine(coroutine)), "factory"),
    (LOCAL.provided, "thread_local"),
    (LOCAL.provided.connection, "thread_local"),
    (LOCAL.provided.connection["main"], "thread_local"),
    (LOCAL.provided.connect.call(), "unknown"),
    (providers.List(LOCAL, 1), "thread_local"),
    (providers.List(LOCAL, SINGLETON), "mixed"),
    (providers.List(LOCAL, providers.Dependency()), "unknown"),
    (providers.List(1, 2), "factory"),
    (providers.Dict(a=SINGLETON, b=2), "singleton"),
    (providers.Dict({"a": LOCAL, "b": FACTORY}), "mixed"),
    (providers.Selector(CONFIG.kind, a=LOCAL, b=providers.ThreadLocalSingleton(Thing)), "thread_local"),
    (providers.Selector(CONFIG.kind, a=LOCAL, b=SINGLETON), "unknown"),
    (providers.Selector(CONFIG.kind), "unknown"),
    (providers.Aggregate(a=SINGLETON, b=SINGLETON), "singleton"),
    (providers.Aggregate(a=SINGLETON, b=FACTORY), "unknown"),
    (Own(), "unknown"),
]


EACH_CASE = pytest.mark.parametrize(
    ("provider", "scope"),
    CASES,
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)


@EACH_CASE
def test_each_kind_of_provider_has_its_scope(provider: AnyProvider, scope: ProviderScope) -> None:
    """Every kind of provider answers with its scope, or `unknown` rather than a guess."""
    assert scope_of(provider) == scope


def test_no_kind_of_the_library_is_forgotten() -> None:
    """Each concrete provider class of the installed library is in the table above."""
    kinds = {
        kind
        for kind in vars(providers).values()
        if inspect.isclass(kind) and issubclass(kind, providers.Provider) and not kind.__name__.startswith("Base")
    }
    assert kinds - {type(provider) for provider, _ in CASES} == {providers.Provider}


@EACH_CASE
def test_an_overridden_provider_answers_for_the_one_that_took_its_place(
    provider: AnyProvider, scope: ProviderScope
) -> None:
    """The end of the chain of overrides decides, and the original again after them."""
    first: AnyProvider = providers.Dependency()
    second: AnyProvider = providers.Factory(Thing)
    with first.override(second), second.override(provider):
        assert scope_of(first) == scope
    assert scope_of(second) == "factory"
    assert scope_of(first) == "unknown"


def test_override_with_a_plain_value_is_a_shared_object() -> None:
    """A test that overrides a thread-local service with a fake makes it a singleton while it lasts."""
    service = providers.ThreadLocalSingleton(Thing)
    with service.override("fake"):
        assert scope_of(service) == "singleton"
        assert effective_provider(service)() == "fake"
    assert scope_of(service) == "thread_local"


@given(st.lists(st.sampled_from(SCOPES)))
def test_combined_scope_is_the_one_word_for_all(scopes: list[ProviderScope]) -> None:
    """Empty is `none`, agreement is the scope, two known scopes are `mixed`, else an unknown one decides."""
    kinds = set(scopes) - {"none"}
    known = kinds - {"unknown"}
    expected = "none" if not kinds else "mixed" if len(known) > 1 else "unknown" if "unknown" in kinds else known.pop()
    assert combined_scope(scopes) == expected
    assert combined_scope(reversed(scopes)) == expected
    assert combined_scope([*scopes, "none"]) == expected


def test_reachable_follows_arguments_and_overrides() -> None:
    """What an overridden provider alone depends on is not reached; the rest is, once."""
    connection = providers.Resource(Thing)
    pool = providers.Singleton(Thing, connection)
    service = providers.Factory(Thing, pool=pool, again=pool)
    assert list(reachable(service)) == [service, pool, connection]
    fake = providers.Object(Thing())
    with pool.override(fake):
        assert list(reachable(service)) == [service, fake]


def test_context_locals_are_found_behind_other_providers() -> None:
    """A factory that takes a context-local object needs it resolved before a fan-out, without being one itself."""
    session = providers.ContextLocalSingleton(Thing)
    service = providers.Factory(Thing, session=session)
    assert context_locals_of(service) == (session,)
    assert context_locals_of(session) == (session,)
    assert context_locals_of(providers.Singleton(Thing)) == ()
    assert is_context_local(session)
    assert not is_context_local(service)
    with session.override({}):
        assert not is_context_local(session)
        assert context_locals_of(service) == ()
