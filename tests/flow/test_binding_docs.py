"""The examples in docs/binding.md, each of them run."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from dependency_injector import providers

from aetherflow import UnusedOutputWarning, node
from aetherflow import errors as public_errors
from aetherflow.resources.context import BaseFlowContext

PAGE = Path(__file__).resolve().parents[2] / "docs" / "binding.md"
ROW = re.compile(r"^\| `([^`]+)`, with (.+?) \| (.+?) \| [^|]+ \|$", re.MULTILINE)
EXAMPLES = ROW.findall(PAGE.read_text("utf-8"))


class Context(BaseFlowContext):
    db = providers.Object("db")


class Shown(str):
    """A text without quotes in another text."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def function(signature: str) -> Any:
    """Return a node that shows its arguments, unless its signature says what it returns."""
    head, _, body = signature.partition(":")
    name, parameters = re.fullmatch(r"(\w+)\((.*)\)", head).groups()  # type: ignore[union-attr]  # as the page has it
    names = [each for each in parameters.split(", ") if each != "*"]
    shown = ", ".join(f"{each}={{{each}!r}}" for each in names)
    default = f'return Shown(f"{name}({shown})")'
    scope: dict[str, Any] = {"Shown": Shown}
    exec(f"def {head}: {body.strip() or default}", scope)
    return node(scope[name])


def test_there_are_twelve_examples() -> None:
    """The table has as many as it promises, so that no row is skipped by its form."""
    assert len(EXAMPLES) == 12


@pytest.mark.parametrize(("run", "functions", "result"), EXAMPLES, ids=[run for run, _, _ in EXAMPLES])
def test_an_example(run: str, functions: str, result: str) -> None:
    """The result is the one in the table, and so is the warning or the error."""
    signatures = re.findall(r"`([^`]+)`", functions)
    names = {signature.partition("(")[0]: function(signature) for signature in signatures} | {"Context": Context}
    expected = re.findall(r"`([^`]+)`", result)
    errors = [name for name in expected if name.endswith("Error")]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if errors:
            with pytest.raises(getattr(public_errors, errors[0])):
                eval(run, names)
            return
        assert repr(eval(run, names)) == expected[0]
    assert [each.category for each in caught] == [UnusedOutputWarning] * ("UnusedOutputWarning" in expected)
