"""Messages for values of a configuration file that pydantic refuses."""

from __future__ import annotations

from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

__all__ = ["format_validation_errors"]

_WANTED: Final = {
    **dict.fromkeys(("model_type", "dict_type", "mapping_type"), "a table"),
    **dict.fromkeys(("list_type", "tuple_type"), "a list"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    "string_type": "text",
}
"""What is allowed, by pydantic's name for what is wrong."""


def format_validation_errors(failure: ValidationError) -> str:
    """Return one message that names each value that is not allowed, and what is."""
    return "; ".join(map(_complaint, failure.errors()))


def _complaint(error: ErrorDetails) -> str:
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).removeprefix(".")
    if error["type"] == "extra_forbidden":
        return f"{where}={error['input']!r}: there is no such key"
    wanted = _WANTED.get(error["type"])
    if wanted is None:
        return f"{where}={error['input']!r}: {error['msg'].removeprefix('Value error, ')}"
    return f"{where}={error['input']!r} is not allowed; allowed: {wanted}"
