"""Exceptions as some libraries raise them: they refuse changes, or their methods fail."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FrozenError(Exception):
    code: int


@dataclass(frozen=True, slots=True)
class FrozenSlotsError(Exception):
    code: int


class SlotsError(Exception):
    __slots__ = ("code",)

    def __init__(self, code):
        super().__init__(f"code {code}")
        self.code = code


class StrictError(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.__dict__["code"] = code

    def __setattr__(self, name, value):
        raise AttributeError(f"{name} is read-only")


class TupleOfNotesError(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.code = code
        self.__notes__ = ("first", "second")


class WithoutNotesError(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.code = code

    def add_note(self, note):
        raise TypeError("takes no notes")


class UnprintableError(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.code = code

    def __str__(self):
        raise RuntimeError("no text")


class WithoutClassError(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.code = code

    @property
    def __class__(self):
        raise RuntimeError("no class")


class WithoutTruthError(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.code = code

    def __bool__(self):
        raise RuntimeError("no truth value")


class FalseError(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.code = code

    def __bool__(self):
        return False


class IncomparableError(Exception):
    __hash__ = None

    def __init__(self, code):
        super().__init__(code)
        self.code = code

    def __eq__(self, other):
        raise RuntimeError("not to be compared")


class WithoutLengthError(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.code = code

    def __len__(self):
        raise RuntimeError("no length")


class EmptyError(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.code = code

    def __len__(self):
        return 0


class ArgumentsFieldError(Exception):
    """Replaces ``args`` and ``__dict__`` by something else."""

    args = "not the arguments"

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class RefusesPicklingError(Exception):
    def __init__(self, code):
        super().__init__(code)

    def __reduce__(self):
        raise RuntimeError("not to be pickled")


class InterruptsPicklingError(Exception):
    def __init__(self, code):
        super().__init__(code)

    def __reduce__(self):
        raise SystemExit(3)


class BecomesTextError(Exception):
    def __init__(self, code):
        super().__init__(code)

    def __reduce__(self):
        return str, ("not an exception",)


class BecomesAnotherError(Exception):
    def __init__(self, code):
        super().__init__(code)

    def __reduce__(self):
        return ValueError, ("another exception",)


class NonsenseError(Exception):
    def __init__(self, code):
        super().__init__(code)

    def __reduce__(self):
        return 42


class MisreducedError(Exception):
    """Names arguments that its own constructor does not take."""

    def __init__(self, code):
        super().__init__(code)

    def __reduce__(self):
        return type(self), (1, 2, 3)


class PicklableError(Exception):
    """Cannot be rebuilt in the process that started the workers."""

    def __init__(self, code):
        super().__init__(code)

    def __reduce__(self):
        return _only_in_a_worker, (self.args[0],)


def _only_in_a_worker(code):
    import multiprocessing

    if multiprocessing.parent_process() is None:
        raise RuntimeError("not here")
    return PicklableError(code)


REBUILT = [
    FrozenError,
    FrozenSlotsError,
    SlotsError,
    StrictError,
    TupleOfNotesError,
    WithoutNotesError,
    UnprintableError,
    WithoutClassError,
    WithoutTruthError,
    FalseError,
    IncomparableError,
    WithoutLengthError,
    EmptyError,
    ArgumentsFieldError,
]
"""Classes of exceptions with a ``code``, which pickle."""

REPLACED = [
    RefusesPicklingError,
    InterruptsPicklingError,
    BecomesTextError,
    BecomesAnotherError,
    NonsenseError,
    MisreducedError,
    PicklableError,
]
"""Classes of exceptions that another process cannot rebuild."""
