"""What the waterfall says of a span beside its bar: thread, provider scope, batch, and what was out of the ordinary."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from rich.text import Text

from aetherflow.analysis.spans import Span
from aetherflow.cli.terminal import TIMES, format_count, format_seconds, printable
from aetherflow.telemetry import conventions as names

__all__ = ["Palette", "batch_of", "error_of", "note_of", "scope_of", "thread_name", "thread_of"]

_COLORS: Final = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green", "bright_magenta")
_NO_THREAD: Final = "default"


class Palette:
    """A colour for each thread, in the order the threads first appear; failed spans are red.

    Args:
        spans: The spans that will be shown.
    """

    def __init__(self, spans: Iterable[Span]) -> None:
        threads = dict.fromkeys(name for span in spans if (name := thread_name(span)))
        self._colors = {thread: _COLORS[at % len(_COLORS)] for at, thread in enumerate(threads)}

    def style_of(self, spans: Sequence[Span]) -> str:
        """The style of one span, or of siblings that are shown as one."""
        if any(span.failed for span in spans):
            return "red"
        threads = {thread_name(span) for span in spans}
        return self._colors.get(threads.pop(), _NO_THREAD) if len(threads) == 1 else _NO_THREAD


def thread_of(spans: Sequence[Span], palette: Palette) -> Text:
    """The thread's name, or how many threads there were."""
    threads = {thread for span in spans if (thread := thread_name(span))}
    if len(threads) > 1:
        return Text(format_count(len(threads), "thread"))
    colored = [span for span in spans if not span.failed]
    return Text(threads.pop() if threads else "", style=palette.style_of(colored) if colored else "")


def scope_of(spans: Sequence[Span]) -> Text:
    """The provider scope; empty where nothing is injected."""
    scopes = {_text(span, names.PROVIDER_SCOPE) for span in spans} - {"", "none"}
    return Text(scopes.pop() if len(scopes) == 1 else f"{len(scopes)} scopes" if scopes else "")


def batch_of(spans: Sequence[Span], *, sizes: bool = True) -> Text:
    """The batch as ``3/8 (92)``: which of how many, and its size in items.

    Args:
        spans: The span, or the siblings that are folded into one row: of those only the sum of the sizes is told.
        sizes: Whether to tell the size.
    """
    known = _numbers(spans, names.BATCH_SIZE)
    size = f"({sum(known):,})" if sizes and known else ""
    index, count = _whole(spans[0], names.BATCH_INDEX), _whole(spans[0], names.BATCH_COUNT)
    if len(spans) > 1 or index is None:
        return Text(size)
    place = str(index + 1) if count is None else f"{index + 1}/{count}"
    return Text(f"{place} {size}".rstrip())


def note_of(spans: Sequence[Span], known: Collection[str], inside: int = 0) -> Text:
    """What is out of the ordinary: errors, other results than success, retries, cache hits, missing parents.

    For folded spans it is also the longest of them, and how many are hidden inside.

    Args:
        spans: The span, or the siblings that are folded into one row.
        known: Ids of all spans of the trace.
        inside: How many spans are hidden below the folded ones.
    """
    notes: list[tuple[str, str]] = []
    if errors := [span for span in spans if span.failed]:
        kinds = list(dict.fromkeys(error_of(span) for span in errors))
        notes.append((f"✗ {f'{len(errors)} {TIMES} ' if len(spans) > 1 else ''}{', '.join(kinds)}", "red"))
    results = {_result_of(span) for span in spans} - {"", "failure"}
    notes.extend((f"◌ {result}", "yellow") for result in sorted(results))
    if (attempt := max(_whole(span, names.NODE_ATTEMPT) or 1 for span in spans)) > 1:
        notes.append((f"↻ attempt {attempt}", "yellow"))
    if waits := [wait for span in spans if isinstance(wait := span.attributes.get(names.RETRY_WAIT), float)]:
        notes.append((f"waited {format_seconds(sum(waits))}", "yellow"))
    if hits := sum(span.attributes.get(names.NODE_CACHE_HIT) is True for span in spans):
        notes.append(("cache hit" if len(spans) == 1 else format_count(hits, "cache hit"), ""))
    if shared := sum(span.attributes.get(names.EXECUTION_KIND) == "coalesced" for span in spans):
        notes.append(("coalesced" if len(spans) == 1 else f"{shared:,} coalesced", ""))
    if yielded := _numbers(spans, names.STREAM_ITEMS):
        notes.append((format_count(sum(yielded), "item"), ""))
    if any(span.parent_id is not None and span.parent_id not in known for span in spans):
        notes.append(("parent elsewhere", "dim"))
    if len(spans) > 1:
        notes.append((f"max {format_seconds(max(span.duration for span in spans))}", ""))
    if inside:
        notes.append((f"{inside:,} inside", "dim"))
    return Text(", ").join(Text(note, style=style) for note, style in notes)


def _result_of(span: Span) -> str:
    """Return the result as text; for an expected exception, with its type."""
    if expected := span.expected_type:
        return f"expected {printable(expected)}"
    return _text(span, names.NODE_RESULT) or _text(span, names.RUN_RESULT)


def error_of(span: Span) -> str:
    """The error's type, else the status message, else simply ``error``."""
    return _text(span, names.ERROR_TYPE) or printable(span.status.message) or "error"


def thread_name(span: Span) -> str:
    """The name of the thread that a span ran on, its number where it has none, empty where neither is known."""
    name = _text(span, names.THREAD_NAME)
    return name or str(_whole(span, names.THREAD_ID) or "")


def _text(span: Span, key: str) -> str:
    value = span.attributes.get(key)
    return printable(value) if isinstance(value, str) else ""


def _whole(span: Span, key: str) -> int | None:
    value = span.attributes.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _numbers(spans: Iterable[Span], key: str) -> list[int]:
    return [number for span in spans if (number := _whole(span, key)) is not None]
