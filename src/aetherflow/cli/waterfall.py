"""A trace as a waterfall: the tree of its spans, each with its bar on the common time axis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from aetherflow.analysis.spans import Span
from aetherflow.analysis.traces import SpanTree
from aetherflow.cli.span_cells import Palette, batch_of, note_of, scope_of, thread_of
from aetherflow.cli.terminal import TIMES, format_seconds, printable

__all__ = ["FOLD_ABOVE", "Row", "Waterfall", "rows_of"]

FOLD_ABOVE: Final = 12
"""Siblings of one name that are shown one by one; more are folded into one row."""

_MAX_GUIDE: Final = 24
"""Cells that the lines of the tree take at most, so that deep traces keep room for names."""

_ROOMY: Final = 100
"""Cells from which on columns stand two cells apart."""

_SHORTEST_BAR: Final = 8

_AIR: Final = 4
"""Cells left empty on both sides of the middle of the axis."""

_ASCII: Final = str.maketrans(f"├└│━╸╺…⋯{TIMES}Σ✗◌↻µ", "|`|=--.~xS!o^u")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the waterfall.

    Attributes:
        guide: The lines of the tree before the name.
        spans: The span of the row, or the siblings that are folded into it.
        inside: How many spans are below folded ones, and so not shown.
    """

    guide: str
    spans: tuple[Span, ...]
    inside: int = 0

    @property
    def name(self) -> str:
        """The name, with the number of spans where several are folded."""
        name = printable(self.spans[0].name) or "(no name)"
        return f"{TIMES}{len(self.spans)} {name}" if len(self.spans) > 1 else name


def rows_of(tree: SpanTree, *, fold_above: int | None = FOLD_ABOVE) -> Iterator[Row]:
    """Yield the rows of a tree, parents before children.

    Args:
        tree: The trace.
        fold_above: Fold siblings of one name where there are more than this; None to show every span.
    """
    stack = [("", "", group) for group in reversed(_groups(tree.roots, fold_above))]
    while stack:
        guide, below, spans = stack.pop()
        if len(spans) > 1:
            yield Row(guide, spans, sum(1 for _ in tree.walk(*spans)) - len(spans))
            continue
        yield Row(guide, spans)
        groups = _groups(tree.children_of(spans[0]), fold_above)
        last = len(groups) - 1
        stack.extend(
            (_extended(below, "└ " if at == last else "├ "), _extended(below, "  " if at == last else "│ "), groups[at])
            for at in range(last, -1, -1)
        )


def _groups(siblings: Sequence[Span], fold_above: int | None) -> list[tuple[Span, ...]]:
    """Put siblings that are to be folded together, where the first of them stands."""
    if fold_above is None or len(siblings) <= fold_above:
        return [(span,) for span in siblings]
    counts = Counter(span.name for span in siblings)
    groups: dict[str, list[Span]] = {}
    for span in siblings:
        groups.setdefault(span.name if counts[span.name] > fold_above else span.span_id, []).append(span)
    return [tuple(group) for group in groups.values()]


def _extended(guide: str, step: str) -> str:
    """Give the guide one level deeper, cut at its beginning where it would become too long."""
    longer = guide + step
    return longer if len(longer) <= _MAX_GUIDE else "⋯ " + longer[4:]


@dataclass(slots=True)
class _Column:
    """A column beside the bars: its cells, what they are cut to first, and how narrow it may become.

    Threads are told apart by the end of their names, so that column keeps the end and loses the beginning.
    """

    title: str
    cells: list[Text]
    minimum: int
    short: list[Text] | None = None
    right: bool = False
    keep_end: bool = False
    width: int = 0

    def __post_init__(self) -> None:
        longest = max((cell.cell_len for cell in self.cells), default=0)
        self.width = max(longest, cell_len(self.title)) if longest else 0
        self.minimum = min(self.minimum, self.width)

    def shortened(self) -> _Column:
        """Give the column with its short cells."""
        return self if self.short is None else _Column(self.title, self.short, self.minimum)

    def fitted(self, cell: Text) -> Text:
        """Give a cell in exactly the width of the column."""
        shown = cell.copy()
        if self.keep_end and shown.cell_len > self.width > 1:
            shown.plain = "…" + set_cell_size(shown.plain[::-1], self.width - 1)[::-1]
        shown.truncate(self.width, overflow="ellipsis")
        shown.align("right" if self.right else "left", self.width)
        return shown


class Waterfall:
    """A rich renderable that shows a trace.

    It takes the width it is given: from about 120 cells all columns have room; below that names and columns are cut,
    and below 60 some columns are left out.

    Args:
        tree: The trace.
        fold_above: Fold siblings of one name where there are more than this; None to show every span.
    """

    def __init__(self, tree: SpanTree, *, fold_above: int | None = FOLD_ABOVE) -> None:
        self.rows = list(rows_of(tree, fold_above=fold_above))
        spans = [span for row in self.rows for span in row.spans]
        self.start = min((span.start for span in spans), default=0)
        self.length = max((span.end for span in spans), default=0) - self.start
        self._palette = Palette(spans)
        self._known = {span.span_id for span in tree.walk()}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render one line of text a row, under a line of titles."""
        names = _Column("span", [self._name(row) for row in self.rows], 12)
        scopes = [scope_of(row.spans) for row in self.rows]
        batches = [batch_of(row.spans) for row in self.rows]
        columns = [
            _Column("time", [Text(_time_of(row)) for row in self.rows], 12, right=True),
            _Column("thread", [thread_of(row.spans, self._palette) for row in self.rows], 7, keep_end=True),
            _Column("scope", scopes, 6, short=[Text(scope.plain.removesuffix("_local")) for scope in scopes]),
            _Column("batch", batches, 6, short=[batch_of(row.spans, sizes=False) for row in self.rows]),
            _Column("", [note_of(row.spans, self._known, row.inside) for row in self.rows], 5),
        ]
        columns = [column for column in columns if column.width]
        width = options.max_width
        bar = _fit(names, columns, width)
        yield _line(names, Text(self._axis(bar)), columns, None, options, style="dim")
        for at, row in enumerate(self.rows):
            yield _line(names, self._bar(row, bar), columns, at, options)

    def _name(self, row: Row) -> Text:
        failed = any(span.failed for span in row.spans)
        return Text.assemble((row.guide, "dim"), (row.name, "bold red" if failed else "bold" if not row.guide else ""))

    def _axis(self, width: int) -> str:
        """Write the beginning, the middle where there is room, and the end of the time axis."""
        end = format_seconds(max(self.length, 0) / 1e9)
        middle = format_seconds(max(self.length, 0) / 2e9)
        if width < len(end) + 2:
            return " " * width
        axis = "0" + end.rjust(width - 1)
        at = (width - len(middle)) // 2
        roomy = at > _AIR and at + len(middle) + _AIR < width - len(end)
        return axis[:at] + middle + axis[at + len(middle) :] if roomy else axis

    def _bar(self, row: Row, width: int) -> Text:
        """Draw when the spans of a row ran, to half a cell."""
        halves = bytearray(2 * width)
        last = len(halves) - 1
        for span in row.spans:
            first = min(max(int((span.start - self.start) * len(halves) / max(self.length, 1)), 0), last)
            past = int((span.end - self.start) * len(halves) / max(self.length, 1))
            for at in range(first, min(max(past, first + 1), last + 1)):
                halves[at] = 1
        signs = (" ", "╺", "╸", "━")
        drawn = "".join(signs[2 * halves[at] + halves[at + 1]] for at in range(0, len(halves), 2))
        return Text(drawn, style=self._palette.style_of(row.spans))


def _fit(names: _Column, columns: list[_Column], width: int) -> int:
    """Narrow the columns until they leave room for the bars, leaving some out where nothing else helps.

    Returns:
        The cells that the bars have.
    """
    names.width = max(names.minimum, min(names.width, width // 2))
    shortest = max(_SHORTEST_BAR, width // 4)
    gap = _gap(width)

    def room(widths: Iterable[int]) -> int:
        return width - names.width - gap - sum(cells + gap for cells in widths)

    if room(column.width for column in columns) < shortest:
        columns[:] = [column.shortened() for column in columns]
    for title in ("scope", "batch", "thread", "", "time"):
        if room(column.minimum for column in columns) + names.width - names.minimum >= _SHORTEST_BAR:
            break
        columns[:] = [column for column in columns if column.title != title]
    while room(column.width for column in columns) < shortest:
        widest = max((names, *columns), key=lambda column: column.width - column.minimum)
        if widest.width <= widest.minimum:
            break
        widest.width -= 1
    return max(room(column.width for column in columns), 1)


def _gap(width: int) -> int:
    """Give the cells between two columns."""
    return 2 if width >= _ROOMY else 1


def _line(
    names: _Column, bar: Text, columns: Sequence[_Column], at: int | None, options: ConsoleOptions, style: str = ""
) -> Text:
    """Put one line together: the row at ``at``, or the titles."""
    line = names.fitted(Text(names.title) if at is None else names.cells[at])
    gap = " " * _gap(options.max_width)
    line.append(gap).append_text(bar)
    for column in columns:
        line.append(gap).append_text(column.fitted(Text(column.title) if at is None else column.cells[at]))
    line.rstrip()
    if options.ascii_only:
        line.plain = line.plain.translate(_ASCII)
    line.stylize(style)
    line.no_wrap, line.overflow = True, "crop"
    return line


def _time_of(row: Row) -> str:
    total = format_seconds(sum(span.duration for span in row.spans))
    return f"Σ {total}" if len(row.spans) > 1 else total
