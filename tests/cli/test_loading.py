"""What the user names on the command line is found, or told why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetherflow.cli.command import UsageError
from aetherflow.cli.loading import load_object, read_inputs


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        ("n=3", 3),
        ("n=-1.5", -1.5),
        ("n=true", True),
        ("n=null", None),
        ("n=[1, 2]", [1, 2]),
        ('n={"a": 1}', {"a": 1}),
        ('n="3"', "3"),
        ("n=three", "three"),
        ("n=", ""),
        ("n=a=b", "a=b"),
        ("n=[1", "[1"),
        ("n=NaN", "NaN"),
        ("n=-Infinity", "-Infinity"),
        ("n=@user", "@user"),
        ("n=" + "[" * 100_000, "[" * 100_000),
    ],
)  # fmt: skip
def test_a_value_is_json_or_a_string(given_value: str, expected: object) -> None:
    """What parses as JSON is that; anything else is the string as it stands."""
    assert read_inputs([given_value]) == {"n": expected}


@given(value=st.text())
def test_any_text_can_be_given(value: str) -> None:
    """Every text can be passed as a string: it is kept, or was JSON."""
    [(_, read)] = read_inputs([f"n={value}"]).items()
    assert read == value or not isinstance(read, str) or value.strip().startswith('"')


def test_files_and_values_add_up(tmp_path: Path) -> None:
    """Inputs come from files and values, the later winning."""
    (tmp_path / "in.json").write_text('{"a": 1, "b": 2}', encoding="utf-8")
    assert read_inputs(["a=0", f"@{tmp_path}/in.json", "b=3"]) == {"a": 1, "b": 3}


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ("order", "key=value"),
        ("=1", "key=value"),
        ("not a name=1", "key=value"),
        ("@nowhere.json", "No such file"),
        ("@text.json", "is not JSON"),
        ("@list.json", "a JSON array; it must hold an object"),
        ("@null.json", "a JSON null"),
        ("@latin.json", "is not JSON"),
    ],
)
def test_an_input_that_is_neither_is_refused(tmp_path: Path, item: str, told: str) -> None:
    """What is wrong with an input is told, and what it may be."""
    for name, content in {"text": b"hello", "list": b"[1]", "null": b"null", "latin": b'{"a": "\xff"}'}.items():
        (tmp_path / f"{name}.json").write_bytes(content)
    with pytest.raises(UsageError, match=told) as caught:
        read_inputs([item])
    assert item in str(caught.value)


def is_text(found: object) -> bool:
    return isinstance(found, str)


def test_an_object_is_found_in_the_working_directory(module: Callable[[str], str]) -> None:
    """Modules need not be installed, and names may have dots."""
    name = module("word = 'one'\nclass Words:\n    word = 'two'\n")
    assert load_object(f"{name}:word", "--it", is_text, "word") == "one"
    assert load_object(f"{name}:Words.word", "--it", is_text, "word") == "two"


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("shop", "module:name"),
        (":word", "module:name"),
        ("shop:", "module:name"),
        ("./shop/flows.py:word", "name the module, not its file: shop.flows:word"),
        ("no_such_module:word", "no module 'no_such_module'"),
        ("json.no_such_module:word", "no module 'json.no_such_module'"),
    ],
)
def test_a_reference_that_names_nothing_is_refused(reference: str, told: str) -> None:
    """What a reference must look like is told."""
    with pytest.raises(UsageError, match=told) as caught:
        load_object(reference, "--it", is_text, "word")
    assert str(caught.value).startswith("--it")


def test_an_object_that_is_not_there_is_told_with_those_that_are(module: Callable[[str], str]) -> None:
    """The message lists what of that kind the module has."""
    name = module("b = 'two'\na = 'one'\nnumber = 3\n")
    with pytest.raises(UsageError, match=r"there is no 'c' in .*; its words: .*a, b"):
        load_object(f"{name}:c", "--it", is_text, "word")
    with pytest.raises(UsageError, match=r"'number' is no word in"):
        load_object(f"{name}:number", "--it", is_text, "word")


def test_what_a_module_raises_is_left_as_it_is(module: Callable[[str], str]) -> None:
    """A module that fails to import, for whatever reason, is not taken for one that is missing."""
    with pytest.raises(ZeroDivisionError):
        load_object(f"{module('1 / 0')}:x", "--it", is_text, "word")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        load_object(f"{module('import no_such_module')}:x", "--it", is_text, "word")
