"""Copies of exceptions have the fields of the original, and hold no frame of the code that raised it."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from tests.support.stubborn import ERRORS

from aetherflow.resources.caching import CacheService
from aetherflow.resources.error_copies import copy_of
from aetherflow.user_exceptions import traceback_of


class ByName(Exception):  # noqa: N818  # short in the list below
    def __init__(self, *, code: int, reason: str) -> None:
        super().__init__(f"{reason} {code}")
        self.code = code


class SlottedError(Exception):
    __slots__ = ("code", "unset")

    def __init__(self) -> None:
        self.code = 5


class GroupOfOne(ExceptionGroup[Exception]):
    def __new__(cls, number: int) -> GroupOfOne:
        return super().__new__(cls, "one", [ValueError(number)])

    def __init__(self, number: int) -> None:
        self.number = number


def raised(error: BaseException) -> BaseException:
    """Return the same exception, with a traceback."""
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001  # what a test looks at
        return caught


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_any_exception_can_be_copied(kind):
    """A copy has the class, the arguments and the fields of the original, and no traceback, whatever that refuses."""
    error = raised(kind())
    copy = copy_of(error)
    assert copy is not None
    assert type(copy) is kind
    assert copy is not error
    assert copy.args == error.args
    assert getattr(copy, "code", None) == getattr(error, "code", None)
    assert traceback_of(copy) is None
    assert traceback_of(error) is not None


@pytest.mark.parametrize(
    ("error", "names"),
    [
        (FileNotFoundError(2, "no such file", "a.txt"), ["errno", "strerror", "filename"]),
        (ImportError("no", name="a", path="b"), ["msg", "name", "path"]),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), ["encoding", "object", "start", "end", "reason"]),
        (SyntaxError("bad", ("a.py", 1, 2, "text")), ["msg", "filename", "lineno", "offset", "text"]),
        (StopIteration(4), ["value"]),
        (SystemExit(3), ["code"]),
        (ByName(code=4, reason="no"), ["code"]),
        (SlottedError(), ["code"]),
        (KeyError("a"), []),
    ],
    ids=repr,
)
def test_a_copy_has_the_fields_of_its_class(error, names):
    """Fields of built-in classes, of slots and of constructors with other parameters are all there."""
    copy = copy_of(raised(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.args == error.args
    assert [getattr(copy, name) for name in names] == [getattr(error, name) for name in names]


def test_causes_contexts_and_groups_are_copied():
    """Every exception that another one leads to is a copy without a traceback, also in a circle."""
    error = raised(ExceptionGroup("two", [raised(ValueError(1)), raised(GroupOfOne(2))]))
    error.__cause__ = raised(KeyError("cause"))
    error.__context__ = raised(KeyError("context"))
    error.__context__.__context__ = error
    error.add_note("a note")
    error.original = raised(OSError(2))
    copy: Any = copy_of(error)
    chain = [copy, copy.__cause__, copy.__context__, *copy.exceptions, *copy.exceptions[1].exceptions, copy.original]
    assert [repr(each) for each in chain[1:3]] == ["KeyError('cause')", "KeyError('context')"]
    assert [traceback_of(each) for each in chain] == [None] * 7
    assert copy.__context__.__context__ is copy
    assert copy.__suppress_context__
    assert copy.exceptions[1].number == 2
    copy.add_note("another")
    assert error.__notes__ == ["a note"]


def test_an_exception_that_has_two_layouts_is_copied_by_the_one_it_has():
    """Of several built-in classes, the one that decides what an instance holds makes the copy."""

    class MissingFileError(KeyError, OSError):
        pass

    error = MissingFileError(2, "no")
    error.errno = 5
    copy = copy_of(raised(error))
    assert type(copy) is MissingFileError
    assert (copy.args, copy.errno) == ((2, "no"), 5)


def test_a_chain_is_copied_up_to_a_bound():
    """A chain of thousands of exceptions is neither too deep to be copied nor copied to its end."""
    error = ValueError(0)
    for number in range(1, 5_000):
        following = ValueError(number)
        following.__context__ = error
        error = following
    copy = copy_of(error)
    length = 0
    while copy is not None:
        copy = copy.__context__
        length += 1
    assert length == 100


class Local:
    """Something big that a function had in a variable."""


@pytest.mark.parametrize("kind", [ValueError, *ERRORS], ids=lambda kind: kind.__name__)
def test_a_cached_error_keeps_no_frames(kind):
    """Local variables of the computation, of its causes and of every caller are free as soon as the caller goes on."""
    cache = CacheService[int](cache_errors=True)
    alive: list[weakref.ref[Local]] = []

    def compute() -> int:
        local = Local()
        alive.append(weakref.ref(local))
        try:
            raise KeyError("cause")
        except KeyError as error:
            raise kind() from error

    def ask() -> int:
        local = Local()
        alive.append(weakref.ref(local))
        try:
            return cache.get_or_compute("a", compute)
        except Exception as error:  # noqa: BLE001  # what a test looks at
            depth = 0
            trace = traceback_of(error)
            while trace is not None:
                depth, trace = depth + 1, trace.tb_next
            return depth

    gc.disable()
    try:
        depths = [ask() for _ in range(3)]
        assert len(alive) == 4
        assert [each() for each in alive] == [None] * 4
    finally:
        gc.enable()
    assert depths[0] > 2  # the first caller sees where the computation failed
    assert depths[1] == depths[2]


def test_an_error_that_cannot_be_copied_is_not_kept(monkeypatch):
    """The next caller computes again if the exception's class refuses a copy, rather than finding its frames."""
    monkeypatch.setattr("aetherflow.resources.entries.copy_of", lambda error: None)
    cache = CacheService[int](cache_errors=True)
    with pytest.raises(ZeroDivisionError):
        cache.get_or_compute("a", lambda: 1 // 0)
    assert cache.get_or_compute("a", lambda: 7) == 7
