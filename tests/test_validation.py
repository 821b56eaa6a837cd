"""Tables of configuration files: their values are validated, and one message names all that is wrong."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import pytest

from aetherflow.errors import ConfigurationError, MissingExtraError
from aetherflow.validation import Bounds, Check, validate_table


def refuse_odd(value: int) -> int:
    """Refuse an odd number."""
    if value % 2:
        raise ValueError("must be even")
    return value


@dataclass(frozen=True)
class Table:
    """A table with a key of each kind."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    number: Annotated[float, Bounds(lt=2)] = 1.0
    whole: int = 1
    even: Annotated[int, Check(refuse_odd)] = 2
    flag: bool = True
    names: tuple[str, ...] = ()
    inner: dict[str, int] = field(default_factory=dict)


def test_values_are_converted_to_the_types_of_the_fields() -> None:
    """Values of a file become those of the dataclass, and keys that are left out have the defaults."""
    table = validate_table(Table, {"number": 1, "names": ["a"], "inner": {"b": 3}}, "it.toml", "gate")
    assert table == Table(number=1.0, names=("a",), inner={"b": 3})


def test_a_file_needs_the_extra_with_pydantic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pydantic the error is an ImportError that names the file, the extra and the command."""
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(MissingExtraError) as caught:
        validate_table(Table, {}, "it.toml", "gate")
    assert str(caught.value) == "reading it.toml needs pydantic: pip install 'aetherflow-otel[gate]'"
    assert isinstance(caught.value, ImportError)
    assert caught.value.name == "pydantic"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (3, "3 is not allowed; allowed: a table"),
        ({"inner": 3}, "inner=3 is not allowed; allowed: a table"),
        ({"inner": {"a": "x"}}, "inner.a='x' is not allowed; allowed: a whole number"),
        ({"names": "x"}, "names='x' is not allowed; allowed: a list"),
        ({"names": [1]}, "names[0]=1 is not allowed; allowed: text"),
        ({"flag": "perhaps"}, "flag='perhaps' is not allowed; allowed: true or false"),
        ({"number": 3}, "number=3: Input should be less than 2"),
        ({"even": 3}, "even=3: must be even"),
        ({"\x1b[31m": 1}, "'\\x1b[31m'=1: there is no such key"),
        (
            {"inner": {"a": "x" * 1000}},
            "inner.a='xxxxxxxxxxxx...xxxxxxxxxxxxx' is not allowed; allowed: a whole number",
        ),
        ({"number": float("nan")}, "number=nan: Input should be a finite number"),
        ({"other": 3, "number": "x"}, "number='x' is not allowed; allowed: a number; other=3: there is no such key"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_what_is_allowed(data: object, told: str) -> None:
    """All of it at once, by the names that the file has."""
    with pytest.raises(ConfigurationError) as failure:
        validate_table(Table, data, "it.toml", "gate")
    assert str(failure.value) == f"it.toml: {told}"
