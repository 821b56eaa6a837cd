"""Messages for values of a configuration file that are not allowed."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aetherflow.validation import format_validation_errors


class Table(BaseModel):
    """A file with a key of each kind."""

    model_config = ConfigDict(extra="forbid")
    number: float = Field(default=1.0, lt=2)
    whole: int = 1
    flag: bool = True
    names: tuple[str, ...] = ()
    inner: dict[str, int] = {}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (3, "=3 is not allowed; allowed: a table"),
        ({"inner": 3}, "inner=3 is not allowed; allowed: a table"),
        ({"inner": {"a": "x"}}, "inner.a='x' is not allowed; allowed: a whole number"),
        ({"names": "x"}, "names='x' is not allowed; allowed: a list"),
        ({"names": [1]}, "names[0]=1 is not allowed; allowed: text"),
        ({"flag": "perhaps"}, "flag='perhaps' is not allowed; allowed: true or false"),
        ({"number": 3}, "number=3: Input should be less than 2"),
        ({"other": 3, "number": "x"}, "number='x' is not allowed; allowed: a number; other=3: there is no such key"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_what_is_allowed(data: object, told: str) -> None:
    """All of it at once, by the names that the file has."""
    with pytest.raises(ValidationError) as failure:
        Table.model_validate(data)
    assert format_validation_errors(failure.value) == told
