"""What is printed is safe to print, and reads as people write it."""

from __future__ import annotations

import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetherflow.cli.terminal import AetherConsole, NoReaderError, format_count, format_seconds, open_consoles, printable

UNITS = {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1.0}


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0, "0 s"),
        (2e-10, "0 s"),
        (3e-9, "3.00 ns"),
        (456e-6, "456 µs"),
        (0.0123, "12.3 ms"),
        (0.9996, "1.00 s"),
        (0.99949, "999 ms"),
        (1.834, "1.83 s"),
        (99.96, "100 s"),
        (599.4, "599 s"),
        (599.6, "10 min 00 s"),
        (725.4, "12 min 05 s"),
        (360_000, "6,000 min 00 s"),
    ],
)
def test_durations_have_three_digits(seconds: float, expected: str) -> None:
    """Every duration is written in the unit that gives it three significant digits."""
    assert format_seconds(seconds) == expected


@given(seconds=st.floats(1e-9, 599))
def test_a_duration_is_as_long_as_it_says(seconds: float) -> None:
    """What is written is within half a unit of the third digit, and has no more than three."""
    number, unit = format_seconds(seconds).split()
    assert math.isclose(float(number) * UNITS[unit], seconds, rel_tol=0.00501)
    assert len(number.replace(".", "")) == 3


@pytest.mark.parametrize(("number", "expected"), [(0, "0 spans"), (1, "1 span"), (1_200, "1,200 spans")])
def test_counts_agree_with_their_noun(number: int, expected: str) -> None:
    """One is singular, all others plural."""
    assert format_count(number, "span") == expected
    assert format_count(2, "class", "classes") == "2 classes"


@given(text=st.text())
def test_no_text_reaches_the_terminal_with_a_control_sign(text: str) -> None:
    """Escape sequences, line ends and signs that turn the direction of text are replaced; the rest stays."""
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown) == len(text)
    assert all(new in (old, "�") for old, new in zip(text, shown, strict=True))


class _ClosedPipe(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_closed_pipe_is_told_to_the_program() -> None:
    """A reader that has gone is an exception of its own, and does not end the process."""
    with pytest.raises(NoReaderError):
        AetherConsole(file=_ClosedPipe()).print("hello")


@pytest.mark.parametrize("no_color", [True, False])
def test_color_is_left_out_on_request(monkeypatch: pytest.MonkeyPatch, no_color: bool) -> None:
    """The option and NO_COLOR both take colours away, and nothing else does."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert [console.no_color for console in open_consoles(no_color=no_color)] == [no_color, no_color]
    monkeypatch.setenv("NO_COLOR", "1")
    assert [console.no_color for console in open_consoles(no_color=no_color)] == [True, True]
