"""One frame of ``aetherflow top``: tables that fit the terminal, whatever its size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from aetherflow.analysis.scrapes import Change
from aetherflow.cli.terminal import format_seconds, printable
from aetherflow.cli.top_rows import Row, activities, batches, caches, health, loss, resources
from aetherflow.telemetry import conventions as names

__all__ = ["Frame"]

_NONE: Final = "\N{EN DASH}"
_HEALTH_STYLES: Final = {"healthy": "green", "degraded": "yellow", "unhealthy": "bold red"}
_LEAST_ROWS: Final = 3
_CHROME: Final = 3
"""Lines that a table takes besides its rows: its head, the line that says what is left out, and one between tables."""

Column = tuple[str, int, Callable[[Row], Text]]
"""Its head, the width of the terminal from which on it is shown, and what it says."""


class Frame:
    """What a process does.

    Args:
        change: What it said; None where it has said nothing so far.
        url: Where it says it.
        trouble: Why it does not answer now.
        height: Lines that it may take; None for as many as it needs.
    """

    def __init__(self, change: Change | None, url: str, trouble: str = "", height: int | None = None) -> None:
        self._change = change
        self._url = url
        self._trouble = trouble
        self._height = height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay it out in the width that there is."""
        width = options.max_width
        parts: list[RenderableType] = [_head(self._change, self._url)]
        if self._trouble:
            parts.append(Text(printable(self._trouble), style="bold red"))
        elif self._change is None:
            parts.append(Text("rates come with the second look", style="dim"))
        if self._change is not None:
            tables = [(columns, rows) for columns, rows in _tables(self._change) if rows]
            if not tables:
                parts.append(Text("no metrics of AetherFlow there yet: has a node been executed?", style="dim"))
            room = None if self._height is None else self._height - len(parts)
            for (columns, rows), limit in zip(tables, _shares([len(rows) for _, rows in tables], room), strict=True):
                parts += ["", *_table(columns, rows, width, limit)]
        yield Group(*parts)


def _shares(wanted: Sequence[int], room: int | None) -> list[int]:
    """Divide lines among tables: those that want little get it, and the first ones the rest."""
    if room is None:
        return list(wanted)
    left = max(room - _CHROME * len(wanted), 0)
    given = [min(each, _LEAST_ROWS) for each in wanted]
    left -= sum(given)
    for index, each in enumerate(wanted):
        more = max(min(each - given[index], left), 0)
        given[index] += more
        left -= more
    return given


def _head(change: Change | None, url: str) -> Text:
    head = Text.assemble(("aetherflow top", "bold"))
    if change is None:
        return head.append(f"  {printable(url)}", style="dim")
    now = change.now
    head.append(f"  {printable(now.resource.get('service_name', ''))}".rstrip(), style="bold")
    head.append(f"  {printable(url)}", style="dim")
    facts = [Text("restarted", style="yellow")] if change.is_restarted else []
    state = health(change)
    if state:
        facts.append(Text(printable(state), style=_HEALTH_STYLES.get(state, "")))
    before, spent = (each.process.get("process_cpu_seconds_total") for each in (change.before, now))
    if before is not None and spent is not None and spent >= before:
        facts.append(Text(f"{(spent - before) / change.seconds:.0%} of a processor"))
    if memory := now.process.get("process_resident_memory_bytes"):
        facts.append(Text(f"{memory / 1e6:,.0f} MB"))
    if (spans := loss(change)) is not None:
        facts.append(Text(f"{_number(spans.exported)} spans/s exported"))
        style = "bold red" if spans.lost else "yellow" if spans.lost_ever else "green"
        facts.append(Text(f"{_number(spans.lost)}/s lost, {spans.lost_ever:,.0f} in all", style=style))
    if facts:
        head.append("\n").append_text(Text(" · ").join(facts))
    return head


def _name(row: Row) -> Text:
    parts = [printable(each) for each in row.name if each]
    if len(parts) > 1 and parts[0] == parts[1]:  # a node that is run by itself is its own flow
        del parts[0]
    return Text(" ").join([*(Text(each, style="dim") for each in parts[:-1]), Text(parts[-1] if parts else _NONE)])


def _tables(change: Change) -> list[tuple[Sequence[Column], list[Row]]]:
    runs = activities(change, names.RUN_DURATION, names.FLOW_NAME)
    nodes = activities(change, names.NODE_DURATION, names.FLOW_NAME, names.NODE_NAME)
    operations = activities(change, names.OPERATION_DURATION, names.MONITOR_NAME, names.OPERATION_NAME)
    return [
        (_activity("node", has_level=True), nodes),
        (_activity("flow"), runs),
        (_activity("operation"), operations),
        (_RESOURCES, resources(change)),
        (_CACHES, caches(change)),
        (_BATCHES, batches(change)),
    ]


def _activity(kind: str, *, has_level: bool = False) -> tuple[Column, ...]:
    own: tuple[Column, ...] = ()
    if has_level:
        own = (
            ("active", 60, lambda row: _level(row, "active")),
            ("retries/s", 100, lambda row: _rate(row.levels["retries"], "yellow")),
            ("hits", 110, lambda row: _share(row.levels.get("hits"))),
        )
    return (
        (kind, 0, _name),
        ("/s", 0, lambda row: _rate(row.rate)),
        ("errors/s", 45, lambda row: _rate(row.errors, "bold red")),
        ("p50", 70, lambda row: _duration(row.p50)),
        ("p95", 0, lambda row: _duration(row.p95)),
        *own,
        ("busy", 80, lambda row: Text(f"{row.busy:.2f}" if row.rate else _NONE, style="" if row.rate else "dim")),
        ("in all", 90, lambda row: Text(f"{row.total:,.0f}", style="dim")),
    )


_RESOURCES: Final[tuple[Column, ...]] = (
    ("executor, pool", 0, _name),
    ("used", 0, lambda row: _level(row, "used")),
    ("idle", 60, lambda row: _level(row, "idle")),
    ("waiting", 0, lambda row: _level(row, "waiting", "yellow")),
    ("begun/s", 70, lambda row: _rate(row.rate)),
    ("p95 wait", 45, lambda row: _duration(row.p95)),
)
_CACHES: Final[tuple[Column, ...]] = (
    ("cache", 0, _name),
    ("/s", 0, lambda row: _rate(row.rate)),
    ("hits", 0, lambda row: _share(row.levels.get("hits"))),
    ("entries", 45, lambda row: _level(row, "entries")),
)
_BATCHES: Final[tuple[Column, ...]] = (
    ("batches of", 0, _name),
    ("/s", 0, lambda row: _rate(row.rate)),
    ("mean size", 0, lambda row: Text(f"{row.levels['size']:.1f}" if "size" in row.levels else _NONE)),
    ("p95 wait", 45, lambda row: _duration(row.p95)),
)


def _table(columns: Sequence[Column], rows: Sequence[Row], width: int, limit: int) -> list[RenderableType]:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
    shown = [column for column in columns if column[1] <= width]
    for index, (head, _, _) in enumerate(shown):
        if index:
            table.add_column(head, justify="right", no_wrap=True, min_width=len(head))
        else:
            table.add_column(head, no_wrap=True, overflow="ellipsis", style="cyan")
    for row in rows[:limit]:
        table.add_row(*(say(row) for _, _, say in shown))
    left_out = len(rows) - limit
    return [table, Text(f"… {left_out:,} more", style="dim")] if left_out > 0 else [table]


def _rate(rate: float, style: str = "") -> Text:
    return Text(_number(rate), style=style) if rate else Text(_NONE, style="dim")


def _number(value: float) -> str:
    if value >= 100 or not value:  # noqa: PLR2004  # three digits say enough
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _duration(seconds: float | None) -> Text:
    return Text(_NONE, style="dim") if seconds is None else Text(format_seconds(seconds))


def _level(row: Row, key: str, style: str = "") -> Text:
    value = row.levels.get(key, 0.0)
    return Text(f"{value:,.0f}", style=style if value else "dim")


def _share(share: float | None) -> Text:
    return Text(_NONE, style="dim") if share is None else Text(f"{share:.0%}")
