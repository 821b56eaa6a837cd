"""Signatures of every kind of callable, with annotations that are evaluated one by one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import pytest
from dependency_injector.wiring import Provide

from aetherflow.engine.signatures import accepts_mapping, read_signature
from aetherflow.resources.markers import marker_target

if TYPE_CHECKING:
    from nowhere import Service

T = TypeVar("T")


def annotations_of(function: Callable[..., Any]) -> dict[str, Any]:
    return {parameter.name: parameter.annotation for parameter in read_signature(function).parameters}


def empty() -> Any:
    return read_signature(lambda value: value).parameters[0].annotation


def test_each_annotation_is_evaluated_by_itself() -> None:
    """One that fails, in whatever way, counts as none; the others are types."""

    def function(name_error, valid, attribute_error, type_error, zero_division_error, syntax_error): ...

    function.__annotations__ = {
        "name_error": "Decimal",
        "valid": "list[int]",
        "attribute_error": "functools.NoLongerThere",
        "type_error": "'int' | None",
        "zero_division_error": "1 / 0",
        "syntax_error": "the length, in metres",
        "return": "NotThere",
    }
    annotations = annotations_of(function)
    assert annotations.pop("valid") == list[int]
    assert set(annotations.values()) == {empty()}
    assert read_signature(function).returns is empty()


def test_a_marker_is_kept_if_its_type_is_unknown() -> None:
    """`Annotated[Service, Provide["service"]]` injects even if `Service` is imported for type checkers only."""

    def function(service: Annotated[Service, Provide["service"]], other: Service | None = None) -> None: ...

    service, other = read_signature(function).parameters
    assert str(marker_target(service.default, service.annotation)) == "Provide['service']"
    assert accepts_mapping(service.annotation)
    assert other.annotation is empty()


def test_a_marker_is_kept_whatever_else_of_its_annotation_fails() -> None:
    """The type, and other metadata, may raise anything."""

    def function(
        a: Annotated[int | None, Provide["service"]],
        b: Annotated[Service, Service.missing, Provide["service"]],
        c: Annotated[1 / 0, Provide["service"]],
    ) -> None: ...

    markers = [str(marker_target(each.default, each.annotation)) for each in read_signature(function).parameters]
    assert markers == ["Provide['service']"] * 3


def test_local_names_and_type_variables_are_known() -> None:
    """A name of the enclosing function that the function uses, and a type variable."""

    class Local: ...

    def function(value: Local, other: T) -> Local:
        return Local()

    assert annotations_of(function) == {"value": Local, "other": T}
    assert read_signature(function).returns is Local


class Callables:
    def __init__(self, value: int) -> None: ...

    def __call__(self, value: int) -> None: ...

    def method(self, value: int) -> None: ...

    @staticmethod
    def static(value: int) -> None: ...

    @classmethod
    def of_class(cls, value: int) -> None: ...


def plain(value: int, *more: int, flag: bool = False, **named: int) -> None: ...


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **named: Any) -> Any:
        return function(*args, **named)

    return wrapper


@pytest.mark.parametrize(
    "function",
    [
        Callables,
        Callables(1),
        Callables(1).method,
        Callables.static,
        Callables.of_class,
        functools.partial(plain, flag=True),
        functools.partial(Callables(1).method),
        functools.partial(Callables(1)),
        wrapped(plain),
        wrapped(wrapped(Callables(1).method)),
    ],
)
def test_every_kind_of_callable_is_read(function: Any) -> None:
    """The annotations are those of the function behind it, in its own module."""
    assert annotations_of(function)["value"] is int


def test_a_class_has_no_return_annotation() -> None:
    """That of its `__init__` says nothing of what calling the class returns."""
    for function in (Callables, functools.partial(Callables, 1)):
        assert read_signature(function).returns is empty()
    assert read_signature(Callables(1)).returns is None


def test_variadic_parameters_are_reported_apart() -> None:
    """They are no parameters that something could fill by name."""
    signature = read_signature(plain)
    assert [parameter.name for parameter in signature.parameters] == ["value", "flag"]
    assert (signature.has_var_positional, signature.has_var_keyword) == (True, True)
    assert signature.returns is None
    signature = read_signature(lambda value: value)
    assert (signature.has_var_positional, signature.has_var_keyword) == (False, False)
    assert signature.returns is empty()


def test_what_has_no_signature_is_an_error() -> None:
    """As `inspect.signature` has it."""
    with pytest.raises(TypeError):
        read_signature(3)  # type: ignore[arg-type]  # what is tested
    with pytest.raises(ValueError, match="no signature"):
        read_signature(max)
