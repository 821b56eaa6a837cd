"""The fields of an OTLP JSON message, read as the protobuf JSON mapping allows them to be written.

Each function takes a message and the name of one of its fields, gives a neutral value where the field is absent or
null, and raises `MalformedFieldError` where it holds something that OTLP does not allow.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias, TypeVar, cast

from aetherflow.errors import short_repr

__all__ = [
    "AttributeValue",
    "Attributes",
    "MalformedFieldError",
    "Message",
    "attributes",
    "decimal",
    "decimals",
    "enumerated",
    "flag",
    "identifier",
    "message",
    "messages",
    "text",
    "whole",
    "wholes",
]

Message: TypeAlias = Mapping[str, object]
"""A JSON object: one OTLP message."""

AttributeValue: TypeAlias = "str | bool | int | float | bytes | tuple[AttributeValue, ...] | Attributes | None"
"""An OTLP ``AnyValue``: arrays are tuples, key-value lists are read-only mappings."""

Attributes: TypeAlias = Mapping[str, AttributeValue]
"""Attributes by key, in the order they were written."""

_NameT = TypeVar("_NameT", bound=str)

_EMPTY: Final[Message] = MappingProxyType({})
_MAX_DEPTH: Final = 32
_URL_SAFE: Final = str.maketrans("-_", "+/")
_SMALLEST: Final = -(2**63)
_LARGEST: Final = 2**64 - 1


class MalformedFieldError(ValueError):
    """A field holds what OTLP does not allow.

    Args:
        field: The field's name.
        value: What it holds.
        allowed: What it may hold.
    """

    def __init__(self, field: str, value: object, allowed: str) -> None:
        self.field = field
        self.value = value
        self.allowed = allowed
        shown = short_repr(value)
        super().__init__(f'"{field}" must be {allowed}, not {shown}')


def message(parent: Message, field: str) -> Message:
    """Give the message under a field; an empty one where it is absent."""
    value = parent.get(field)
    if value is None:
        return _EMPTY
    if not isinstance(value, dict):
        raise MalformedFieldError(field, value, "an object")
    return value


def messages(parent: Message, field: str) -> Iterator[Message]:
    """Yield the messages of a repeated field."""
    for item in _array(parent, field):
        if not isinstance(item, dict):
            raise MalformedFieldError(field, item, "an array of objects")
        yield item


def text(parent: Message, field: str) -> str:
    """Give a string; an empty one where it is absent."""
    value = parent.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedFieldError(field, value, "a string")
    return value


def whole(parent: Message, field: str) -> int:
    """Give an integer of up to 64 bits, written as a number or, as OTLP does, as a string; 0 where it is absent."""
    value = parent.get(field)
    if value is None:
        return 0
    number: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str):
        number = _whole_of(value)
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    if number is None or not _SMALLEST <= number <= _LARGEST:
        raise MalformedFieldError(field, value, "a whole number of up to 64 bits")
    return number


def decimal(parent: Message, field: str) -> float:
    """Give a double, written as a number or as the string ``NaN``, ``Infinity`` or ``-Infinity``; 0 where absent."""
    value = parent.get(field)
    if value is None:
        return 0.0
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise MalformedFieldError(field, value, "a number")


def wholes(parent: Message, field: str) -> list[int]:
    """Give a repeated field of integers, each written as `whole` allows."""
    items = _array(parent, field)
    if set(map(type, items)) == {str}:  # as OTLP writes them: a histogram has hundreds
        try:
            numbers = list(map(int, cast("list[str]", items)))
        except ValueError:
            numbers = []
        if numbers and min(numbers) >= _SMALLEST and max(numbers) <= _LARGEST:
            return numbers
    return [whole({field: item}, field) for item in items]


def decimals(parent: Message, field: str) -> list[float]:
    """Give a repeated field of doubles, each written as `decimal` allows."""
    return [decimal({field: item}, field) for item in _array(parent, field)]


def flag(parent: Message, field: str) -> bool:
    """Give a truth value; False where it is absent."""
    return parent.get(field) is not None and _truth(parent, field)


def identifier(parent: Message, field: str, digits: int) -> str:
    """Give a trace id (32 digits) or span id (16) in lower-case hexadecimal; empty where it is absent or all zeros."""
    value = text(parent, field).lower()
    if not value.strip("0"):
        return ""
    if len(value) != digits or value.strip("0123456789abcdef"):
        raise MalformedFieldError(field, value, f"{digits} hexadecimal digits")
    return value


def enumerated(parent: Message, field: str, prefix: str, names: tuple[_NameT, ...]) -> _NameT:
    """Give the name of an enumeration's value, written as its number or as ``{prefix}{NAME}``.

    Args:
        parent: The message.
        field: The field's name.
        prefix: What the names begin with in protobuf, for example ``SPAN_KIND_``.
        names: The names without it, in lower case, by number. A number beyond them gives the first.

    Returns:
        One of ``names``.
    """
    value = parent.get(field)
    if isinstance(value, str) and value.startswith(prefix):
        wanted = value.removeprefix(prefix).lower()
        return next((name for name in names if name == wanted), names[0])
    number = whole(parent, field)
    return names[number] if 0 <= number < len(names) else names[0]


def attributes(parent: Message, field: str = "attributes") -> dict[str, AttributeValue]:
    """Give a list of key-value pairs as a dictionary."""
    return _pairs(parent, field, 0)


def _pairs(parent: Message, field: str, depth: int) -> dict[str, AttributeValue]:
    return {text(item, "key"): _any_value(message(item, "value"), depth) for item in messages(parent, field)}


def _any_value(value: Message, depth: int) -> AttributeValue:
    """Decode an ``AnyValue``; one of a kind that is not known here is None, as an empty one is."""
    if depth > _MAX_DEPTH:
        raise MalformedFieldError("value", "…", f"nested at most {_MAX_DEPTH} deep")
    for kind in value:
        if kind in _SCALARS:
            return _SCALARS[kind](value, kind)
        if kind == "arrayValue":
            return tuple(_any_value(item, depth + 1) for item in messages(message(value, kind), "values"))
        if kind == "kvlistValue":
            return MappingProxyType(_pairs(message(value, kind), "values", depth + 1))
    return None


def _array(parent: Message, field: str) -> list[object]:
    value = parent.get(field)
    if value is None:
        return []
    if not isinstance(value, list):
        raise MalformedFieldError(field, value, "an array")
    return value


def _whole_of(value: str) -> int | None:
    try:
        return int(value)
    except ValueError:
        return None


def _bytes_of(parent: Message, field: str) -> bytes:
    encoded = text(parent, field)
    plain = encoded.translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedFieldError(field, encoded, "base64") from error


def _truth(parent: Message, field: str) -> bool:
    value = parent.get(field)
    if not isinstance(value, bool):
        raise MalformedFieldError(field, value, "true or false")
    return value


_SCALARS: Final[Mapping[str, Callable[[Message, str], AttributeValue]]] = {
    "stringValue": text,
    "intValue": whole,
    "doubleValue": decimal,
    "boolValue": _truth,
    "bytesValue": _bytes_of,
}
"""How each kind of ``AnyValue`` that holds no other is decoded."""
