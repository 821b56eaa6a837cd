"""Validation of configuration files by pydantic, which is imported only when a file is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aetherflow.errors import ConfigurationError, MissingExtraError, short_repr

if TYPE_CHECKING:
    from pydantic_core import CoreSchema, ErrorDetails

__all__ = ["Bounds", "Check", "validate_table"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bounds:
    """The range of a number, for ``Annotated``: a finite value that is above, at least, below or at most a limit."""

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], CoreSchema]) -> CoreSchema:
        limits = {name: getattr(self, name) for name in ("gt", "ge", "lt", "le")}
        schema: Any = {**handler(source), **{name: limit for name, limit in limits.items() if limit is not None}}
        if schema["type"] == "float":
            schema["allow_inf_nan"] = False
        return schema  # type: ignore[no-any-return]  # the same type of schema with limits


@dataclass(frozen=True, slots=True)
class Check:
    """A condition on a value, for ``Annotated``: a function that returns the value or raises a ValueError."""

    function: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], CoreSchema]) -> CoreSchema:
        from pydantic_core.core_schema import no_info_after_validator_function

        return no_info_after_validator_function(self.function, handler(source))


def validate_table(kind: type[T], data: object, file: str, extra: str) -> T:
    """Return a dataclass with the values of a table.

    Args:
        kind: The dataclass. Nested dataclasses, ``Bounds`` and ``Check`` are validated too.
        data: The table as the parser of the file returned it.
        file: The name of the file, for messages.
        extra: The extra that installs pydantic for this feature.

    Raises:
        ConfigurationError: A key is unknown or a value is not allowed; one message names all of them.
        MissingExtraError: Pydantic is not installed.
    """
    try:
        from pydantic import TypeAdapter, ValidationError
    except ImportError as error:
        raise MissingExtraError(f"reading {file}", error.name or "pydantic", extra) from error
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as failure:
        raise ConfigurationError(f"{file}: {'; '.join(map(_complaint, failure.errors()))}") from None


_ALLOWED: Final = {
    **dict.fromkeys(("dataclass_type", "dict_type", "mapping_type"), "a table"),
    **dict.fromkeys(("list_type", "tuple_type"), "a list"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    "string_type": "text",
}
"""The kind of value that is allowed, by pydantic's type of the error."""


def _complaint(error: ErrorDetails) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{_key(part)}" for part in error["loc"])
    where, value = path.removeprefix("."), short_repr(error["input"])
    subject = f"{where}={value}" if where else value
    if error["type"] == "unexpected_keyword_argument":
        return f"{subject}: there is no such key"
    allowed = _ALLOWED.get(error["type"])
    if allowed is None:
        return f"{subject}: {error['msg'].removeprefix('Value error, ')}"
    return f"{subject} is not allowed; allowed: {allowed}"


def _key(part: str) -> str:
    """Return a key for a message; a key of a file may have any characters, those that control a terminal too."""
    return part if part.isidentifier() else repr(part)
