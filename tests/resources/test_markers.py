"""`Provide[...]` defaults, read and resolved against instances without any wiring."""

from __future__ import annotations

import inspect
import re
from typing import Annotated, Any, cast, get_type_hints

import pytest
from dependency_injector import containers, providers
from dependency_injector.wiring import Closing, Provide, as_, as_float, as_int, invariant, provided, required
from dependency_injector.wiring import Provider as ProviderItself

from aetherflow.errors import ConfigurationError
from aetherflow.resources.context import BaseFlowContext, context_class
from aetherflow.resources.markers import Marker, marker_target, resolve_marker
from aetherflow.resources.scopes import scope_of

# At run time these are classes to be indexed with nearly anything, which the stubs do not say.
Provide, Closing, ProviderItself = cast("Any", Provide), cast("Any", Closing), cast("Any", ProviderItself)


class Service:
    """Something with an attribute, items and a method."""

    name = "service"

    def __getitem__(self, key: str) -> str:
        return f"item {key}"

    def times(self, factor: int) -> str:
        return self.name * factor


class Storage(containers.DeclarativeContainer):
    """A container inside the context."""

    database = providers.Singleton(dict[str, Any])


class Context(BaseFlowContext):
    """A context with a bit of everything."""

    config = providers.Configuration()
    service: providers.Provider[Service] = providers.ThreadLocalSingleton(Service)
    factory = providers.Factory(Service)
    storage = providers.Container(Storage)
    storages = providers.DependenciesContainer(database=providers.Dependency())
    name = service.provided.name
    current = providers.Object("ada")


class Sub(Context):
    """A subclass that declares the service anew."""

    service = providers.Singleton(Service)


@pytest.fixture
def ctx() -> Any:
    """An instance with values in its configuration."""
    ctx: Any = Context()
    ctx.config.from_dict({"db": {"host": "localhost", "port": "5432"}, "users": {"ada": {"age": 36}}, "rate": "0.5"})
    return ctx


def marker_id(marker: object) -> str:
    """Return its text without addresses in memory: an id has to be the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(marker))


def give(marker: object, ctx: Any) -> Any:
    """What a parameter with this default is given in ``ctx``."""
    target = marker_target(marker)
    assert target is not None
    return resolve_marker(target, context_class(ctx))(ctx)()


@pytest.mark.parametrize(
    "marker",
    [
        Provide["service"],
        Provide[Context.service],
        Provide[BaseFlowContext.state],
        Provide["state"],
        Closing[Provide["service"]],
        Closing[Provide[Context.service]],
        Provide["storage.database"],
        Provide[Context.storage.database],
    ],
    ids=marker_id,
)
def test_a_marker_gives_the_object_of_the_instance(marker: object, ctx: Any) -> None:
    """A name or a provider of the class stands for the provider of each instance, nested and inherited ones too."""
    target = marker_target(marker)
    assert target is not None
    getter = resolve_marker(target, context_class(ctx))
    assert getter(ctx)() is getter(ctx)()
    assert getter(ctx)() is not getter(Context())()


@pytest.mark.parametrize(
    ("marker", "value"),
    [
        (Provide[Context.config.db.host], "localhost"),
        (Provide["config.db.host"], "localhost"),
        (Provide[Context.config.db.port.as_int()], 5432),
        (Provide["config.db.port", as_int()], 5432),
        (Provide["config.rate", as_float()], 0.5),
        (Provide["config.db.port", as_(complex)], 5432 + 0j),
        (Provide["config.db.port", required()], "5432"),
        (Provide["config.db.port", required().as_int()], 5432),
        (Provide[Context.config.db.port.required().as_int()], 5432),
        (Provide[Context.config.rate.as_(round, 2)], None),
        (Provide[Context.config.users[Context.current].age], 36),
        (Provide["config.users", invariant("current")], {"age": 36}),
        (Provide[Context.service.provided.name], "service"),
        (Provide[Context.service.provided["key"]], "item key"),
        (Provide[Context.service.provided.times.call(2)], "serviceservice"),
        (Provide["service", provided().name], "service"),
        (Provide["service", provided()["key"]], "item key"),
        (Provide["service", provided().times.call(2)], "serviceservice"),
        (Provide["name"], "service"),
        (Provide[Context.name], "service"),
        (Provide[Context.current], "ada"),
    ],
    ids=marker_id,
)
def test_options_and_attributes_are_those_of_the_instance(marker: object, value: object, ctx: Any) -> None:
    """Options, conversions and `provided` attributes are read from the instance at hand."""
    if value is None:
        ctx.config.rate.override(0.126)
        value = 0.13
    assert give(marker, ctx) == value


def test_the_container_itself_can_be_asked_for(ctx: Any) -> None:
    """`Provide[Context]` and `Provide["<container>"]` give the instance, in subclasses too."""
    assert give(Provide[Context], ctx) is ctx
    assert give(Provide["<container>"], ctx) is ctx
    sub = Sub()
    assert give(Provide[Context], sub) is sub


def test_a_provider_itself_can_be_asked_for(ctx: Any) -> None:
    """`Provider[...]` and `Provide[x.provider]` hand over the provider, to be called by the node."""
    for marker in (ProviderItself["factory"], ProviderItself[Context.factory], Provide[Context.factory.provider]):
        assert give(marker, ctx) is ctx.factory


def test_a_subclass_that_declares_a_provider_anew_is_followed() -> None:
    """`Provide[Base.service]` means the service of the context at hand."""
    target = marker_target(Provide[Context.service])
    assert target is not None
    assert scope_of(resolve_marker(target, Context)(Context())) == "thread_local"
    assert scope_of(resolve_marker(target, Sub)(Sub())) == "singleton"


def test_an_override_in_a_test_reaches_the_marker(ctx: Any) -> None:
    """The provider found is the instance's own, so an override of it is seen while it lasts."""
    with ctx.service.override("fake"):
        assert give(Provide[Context.service], ctx) == "fake"
        assert give(Provide["service"], ctx) == "fake"
    assert isinstance(give(Provide["service"], ctx), Service)


def test_a_dynamic_container_resolves_its_own_providers() -> None:
    """A container without a class is its own class, for names and providers."""
    dynamic: Any = containers.DynamicContainer()
    dynamic.service = providers.Singleton(Service)
    assert give(Provide["service"], dynamic) is give(Provide[dynamic.service], dynamic) is dynamic.service()
    assert give(Provide["<container>"], dynamic) is dynamic


@pytest.mark.parametrize(
    "marker",
    [
        Provide["nope"],
        Provide["storage.nope"],
        Provide["providers"],
        Provide[Storage],
        Provide[Storage.database],
        Provide[Storage.database.provided.size],
        Provide[Storage.database.provider],
        Provide[providers.Configuration().host],
        Provide[providers.Configuration().port.as_int()],
    ],
    ids=marker_id,
)
def test_what_the_context_does_not_declare_is_named(marker: object) -> None:
    """A marker for something else fails when planned, with what was asked for and what there is."""
    target = marker_target(marker)
    assert target is not None
    with pytest.raises(
        ConfigurationError, match=r"Provide\[.*\] is not in context Context; available: config, context"
    ):
        resolve_marker(target, Context)


@pytest.mark.parametrize("default", [inspect.Parameter.empty, None, 5, "service", Service(), Service, Context.service])
def test_other_defaults_are_no_markers(default: object) -> None:
    """Only a marker is one."""
    assert marker_target(default) is None
    assert marker_target(default, int) is None


def test_an_annotation_can_carry_the_marker() -> None:
    """`Annotated[Service, Provide["service"]]` says the same as a default."""

    def function(service: Annotated[Service, Provide["service"]], plain: int = 1) -> None: ...

    hints = get_type_hints(function, include_extras=True, localns={"Provide": Provide})
    assert marker_target(inspect.Parameter.empty, hints["service"]) == Marker("service")
    assert marker_target(1, hints["plain"]) is None


def test_a_marker_says_what_it_is() -> None:
    """`str` is what was written."""
    assert str(marker_target(Provide["config.port", as_int()])) == "Provide['config.port', TypeModifier(<class 'int'>)]"
    assert str(marker_target(ProviderItself["service"])) == "Provider['service']"
