"""A trace as a page in the terminal: what it is, its waterfall, and what went wrong in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

from opentelemetry.semconv.attributes.exception_attributes import EXCEPTION_MESSAGE, EXCEPTION_TYPE
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from aetherflow.analysis.spans import Span, SpanEvent
from aetherflow.analysis.traces import SpanTree, summarise_traces
from aetherflow.cli.span_cells import thread_name
from aetherflow.cli.terminal import format_count, format_seconds, printable
from aetherflow.cli.waterfall import FOLD_ABOVE, Waterfall

__all__ = ["TraceView"]

_SHOWN_FAILURES: Final = 10


class TraceView:
    """A rich renderable: the facts of one trace, its waterfall, and the exceptions recorded in it.

    Args:
        spans: The spans of one trace, at least one.
        show_all: Whether to show every span, rather than fold many siblings of one name.
    """

    def __init__(self, spans: Iterable[Span], *, show_all: bool = False) -> None:
        self.tree = SpanTree.of(spans)
        self.spans = tuple(self.tree.walk())
        self._waterfall = Waterfall(self.tree, fold_above=None if show_all else FOLD_ABOVE)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the parts, a blank line between them."""
        yield from self._facts()
        yield Text()
        yield self._waterfall
        failures = [(span, event) for span in self.spans for event in _exceptions(span)]
        if failures:
            yield Text()
        for span, event in failures[:_SHOWN_FAILURES]:
            yield _failure(span, event)
        if len(failures) > _SHOWN_FAILURES:
            yield Text(f"… and {len(failures) - _SHOWN_FAILURES:,} more", style="dim")

    def _facts(self) -> Iterator[Text]:
        [summary] = summarise_traces(self.spans)
        threads = {(span.resource.service, name) for span in self.spans if (name := thread_name(span))}
        facts = [format_seconds(summary.duration), format_count(summary.spans, "span")]
        if threads:
            facts.append(format_count(len(threads), "thread"))
        if summary.errors:
            facts.append(format_count(summary.errors, "error"))
        yield Text.assemble((printable(summary.name), "bold"), "  ", " · ".join(facts))
        services = sorted({printable(span.resource.service) for span in self.spans} - {""})
        began = datetime.fromtimestamp(summary.start / 1e9, UTC).astimezone()
        origin = [f"trace {summary.trace_id}", *services, f"{began:%Y-%m-%d %H:%M:%S}"]
        yield Text(" · ".join(origin), style="dim")


def _exceptions(span: Span) -> Iterator[SpanEvent]:
    return (event for event in span.events if EXCEPTION_TYPE in event.attributes)


def _failure(span: Span, event: SpanEvent) -> Text:
    kind = printable(str(event.attributes[EXCEPTION_TYPE]))
    first, *more = str(event.attributes.get(EXCEPTION_MESSAGE, "")).splitlines() or [""]
    message = printable(first) + (" …" if more else "")
    sign, style = ("◌ ", "yellow") if span.expected_type else ("✗ ", "red")
    return Text.assemble(
        (sign, style), (printable(span.name), f"bold {style}"), f"  {kind}{': ' if message else ''}{message}"
    )
