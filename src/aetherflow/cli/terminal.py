"""What every command prints with: consoles, text that is safe to show, and quantities as people read them."""

from __future__ import annotations

import sys
from typing import Final

from rich.console import Console

__all__ = ["TIMES", "AetherConsole", "NoReaderError", "format_count", "format_seconds", "open_consoles", "printable"]

TIMES: Final = "\N{MULTIPLICATION SIGN}"

_MINUTE: Final = 60
_LONGEST_IN_SECONDS: Final = 10 * _MINUTE


class NoReaderError(BrokenPipeError):
    """Nobody reads what the program prints any more; unlike a broken pipe of the user's own code, that is no error."""


class AetherConsole(Console):
    """A rich console that lets the program decide what happens when nobody reads its output any more."""

    def on_broken_pipe(self) -> None:
        """Tell the program.

        Raises:
            NoReaderError: Always.
        """
        raise NoReaderError


def open_consoles(*, no_color: bool = False) -> tuple[AetherConsole, AetherConsole]:
    """Open the consoles of a command.

    Args:
        no_color: Whether to print without colours, as ``NO_COLOR`` asks for too.

    Returns:
        One over standard output for results, one over standard error for progress and problems.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a sign gets a question mark
    colors = no_color or None  # None leaves it to NO_COLOR
    return AetherConsole(highlight=False, no_color=colors), AetherConsole(highlight=False, no_color=colors, stderr=True)


def printable(text: str) -> str:
    """Make text safe for a terminal: what is not printable, escape sequences and line ends among it, is replaced."""
    return text if text.isprintable() else "".join(sign if sign.isprintable() else "�" for sign in text)


def format_seconds(seconds: float) -> str:
    """Write a duration with three significant digits: ``456 µs``, ``12.3 ms``, ``1.83 s``, ``12 min 05 s``."""
    rounded = float(f"{seconds:.3g}")
    if rounded >= _LONGEST_IN_SECONDS:
        minutes, rest = divmod(round(seconds), _MINUTE)
        return f"{minutes:,} min {rest:02} s"
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs"), (1e9, "ns")):
        if (scaled := rounded * factor) >= 1:
            digits = 3 - len(str(int(scaled)))
            return f"{scaled:.{digits}f} {unit}"
    return "0 s"


def format_count(number: int, singular: str, plural: str | None = None) -> str:
    """Write a number of things: ``1 span``, ``1,200 spans``, ``2 branches``."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
