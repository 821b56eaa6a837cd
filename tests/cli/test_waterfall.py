"""A waterfall shows every trace, at every width, as it was."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from tests.analysis.otlp_samples import MS, made

from aetherflow.analysis.spans import Span, SpanEvent, SpanStatus
from aetherflow.analysis.traces import SpanTree
from aetherflow.cli.terminal import TIMES
from aetherflow.cli.trace_view import TraceView
from aetherflow.cli.waterfall import FOLD_ABOVE, Waterfall, rows_of
from aetherflow.telemetry import conventions as names

PARTITION = {names.THREAD_NAME: "worker-3", names.PROVIDER_SCOPE: "thread_local", names.BATCH_INDEX: 2}
PARTITION |= {names.BATCH_COUNT: 8, names.BATCH_SIZE: 92}


def shown(*spans: Span, width: int = 120, fold_above: int | None = FOLD_ABOVE, **options: Any) -> list[str]:
    """The lines of a waterfall, without the titles."""
    return page(*spans, width=width, fold_above=fold_above, **options)[1:]


def page(*spans: Span, width: int, fold_above: int | None = FOLD_ABOVE, **options: Any) -> list[str]:
    console = Console(file=io.StringIO(), width=width, **options)
    console.print(Waterfall(SpanTree.of(spans), fold_above=fold_above))
    return console.file.getvalue().splitlines()


def test_a_row_says_what_the_span_says() -> None:
    """Name, duration, thread, provider scope, batch index, count and size stand in the row of the span."""
    title, root, row = page(
        made(1, end=200 * MS, name="run etl"),
        made(2, 1, start=100 * MS, end=150 * MS, name="parse", attributes=PARTITION),
        width=120,
    )
    assert title.split() == ["span", "0", "100", "ms", "200", "ms", "time", "thread", "scope", "batch"]
    assert root.split() == ["run", "etl", root.split()[2], "200", "ms"]
    assert row.split()[:2] == ["└", "parse"]
    assert row.split()[3:] == ["50.0", "ms", "worker-3", "thread_local", "3/8", "(92)"]
    # The bar of the child begins at the middle of its parent's, and is a quarter as long.
    whole, part = root.split()[2], row.split()[2]
    assert abs(row.index(part) - root.index(whole) - len(whole) / 2) <= 1
    assert abs(len(part) - len(whole) / 4) <= 1


@pytest.mark.parametrize("width", [60, 80, 200])
def test_all_columns_have_room_from_sixty_cells_on(width: int) -> None:
    """Thread, scope and batch are told in a narrow terminal too, cut where they must be."""
    line = shown(made(1, name="a_very_long_name_of_a_node", end=MS, attributes=PARTITION), width=width)[0]
    words = line.split()
    assert words[0].startswith("a_very_lo")
    assert "1.00 ms" in line
    assert any(word.endswith("ker-3") for word in words)
    assert any(word.startswith("threa") for word in words)
    assert any(word.startswith("3/8") for word in words)


def test_errors_are_marked() -> None:
    """A failed span has its error beside it; cancellations, time-outs, retries and cache hits are told too."""
    failed = made(
        1, status=SpanStatus("error"), attributes={names.ERROR_TYPE: "KeyError", names.NODE_RESULT: "failure"}
    )
    assert shown(failed)[0].endswith("✗ KeyError")
    assert shown(made(1, status=SpanStatus("error", "out of paper")))[0].endswith("✗ out of paper")
    assert shown(made(1, status=SpanStatus("error")))[0].endswith("✗ error")
    assert shown(made(1, attributes={names.NODE_RESULT: "cancellation"}))[0].endswith("◌ cancellation")
    assert shown(made(1, attributes={names.NODE_ATTEMPT: 1}))[0].endswith("1.00 ns")
    assert shown(made(1, attributes={names.NODE_ATTEMPT: 3}))[0].endswith("↻ attempt 3")
    assert shown(made(1, attributes={names.NODE_CACHE_HIT: True}))[0].endswith("cache hit")
    assert shown(made(1, attributes={names.STREAM_ITEMS: 4}))[0].endswith("4 items")
    assert shown(made(1, parent=9))[0].endswith("parent elsewhere")


@pytest.mark.parametrize("result", [names.NODE_RESULT, names.RUN_RESULT])
def test_an_expected_exception_is_no_error(result: str) -> None:
    """It is shown as expected, with its type and not in the colour of errors, and is not counted as an error."""
    span = made(1, name="find", end=MS, attributes={result: "expected", names.EXPECTED_TYPE: "shop.SoldOut"})
    assert shown(span)[0].endswith("◌ expected shop.SoldOut")
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system="standard")
    console.print(TraceView([span]))
    text = console.file.getvalue()
    assert "error" not in text
    assert "✗" not in text
    assert "\x1b[31m" not in text


def test_an_exception_that_an_expected_span_recorded_is_no_failure() -> None:
    """An event that the program itself recorded is shown below the waterfall, and marked as the span is."""
    event = SpanEvent("exception", 1, {"exception.type": "shop.SoldOut", "exception.message": "none left"})
    about = {names.NODE_RESULT: "expected", names.EXPECTED_TYPE: "shop.SoldOut"}
    console = Console(file=io.StringIO(), width=120)
    console.print(TraceView([made(1, name="find", end=MS, attributes=about, events=(event,))]))
    assert console.file.getvalue().splitlines()[-1] == "◌ find  shop.SoldOut: none left"


def test_waits_between_attempts_are_told() -> None:
    """A retried execution shows how long it waited, so that its bar is not taken for work."""
    about = {names.NODE_ATTEMPT: 3, names.EXECUTION_KIND: "retried", names.RETRY_WAIT: 0.6}
    assert shown(made(1, end=MS, attributes=about))[0].endswith("↻ attempt 3, waited 600 ms")


def test_a_result_of_another_caller_is_told() -> None:
    """An execution that waited for the computation of another caller is marked as such."""
    assert shown(made(1, end=MS, attributes={names.EXECUTION_KIND: "coalesced"}))[0].endswith("coalesced")


def test_many_siblings_of_one_name_are_one_row() -> None:
    """More than a dozen siblings of one name are summed up, with all that went wrong in them, unless all are wanted."""
    many = [
        made(number, 1, start=number * MS, end=(number + number % 3) * MS, name="visit", attributes=PARTITION)
        for number in range(10, 153)
    ]
    below = [made(number + 1_000, number, start=number * MS, end=number * MS + 1) for number in range(10, 20)]
    failed = made(500, 1, name="visit", status=SpanStatus("error"), attributes={names.ERROR_TYPE: "OSError"})
    few = [made(number, 1, start=number, end=number + 1, name="other") for number in range(600, 612)]
    spans = [made(1, end=160 * MS), *many, *below, failed, *few]
    rows = shown(*spans, width=160)
    assert len(rows) == 1 + 1 + 12
    [folded] = [row for row in rows if f"{TIMES}144 visit" in row]
    assert "Σ 144 ms" in folded
    assert folded.endswith(f"(13,156)  ✗ 1 {TIMES} OSError, max 2.00 ms, 10 inside")
    assert len(shown(*spans, fold_above=None)) == len(spans)


def test_a_dozen_siblings_are_shown_one_by_one() -> None:
    """Folding begins above the limit, not at it."""
    siblings = [made(number, 1, name="visit") for number in range(2, 2 + FOLD_ABOVE)]
    assert len(list(rows_of(SpanTree.of([made(1), *siblings])))) == 1 + FOLD_ABOVE
    one_more = made(99, 1, name="visit")
    assert len(list(rows_of(SpanTree.of([made(1), *siblings, one_more])))) == 2


def test_names_are_shown_as_text() -> None:
    """Markup and escape sequences in a name are neither obeyed nor hidden."""
    assert shown(made(1, name="[red]x[/red]"))[0].startswith("[red]x[/red]")
    assert shown(made(1, name="[/]\x1b[31mred\n"), force_terminal=True, color_system=None)[0].startswith("[/]�[31mred�")
    hostile = {names.THREAD_NAME: "[b]t\x07[/b]", names.PROVIDER_SCOPE: "[u]s", names.ERROR_TYPE: "[i]\x1be"}
    row = shown(made(1, status=SpanStatus("error"), attributes=hostile), width=160)[0]
    assert [part in row for part in ("[b]t�[/b]", "[u]s", "[i]�e")] == [True] * 3


def test_plain_output_has_no_escape_sequence() -> None:
    """A pipe gets text alone; a terminal without colours gets no colour."""
    failed = made(1, status=SpanStatus("error"), attributes=PARTITION)
    assert "\x1b" not in "".join(shown(failed))
    assert "\x1b[1;31m" in shown(failed, force_terminal=True, color_system="standard")[0]
    assert "31m" not in shown(failed, force_terminal=True, color_system="standard", no_color=True)[0]


def test_a_terminal_that_knows_ascii_only_gets_ascii() -> None:
    """Where the encoding has no lines and bars, plain signs stand for them."""
    spans = [made(1, end=10 * MS), made(2, 1, end=MS), *(made(n, 2, name="x", end=2_000) for n in range(3, 40))]
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"), width=100)
    console.print(Waterfall(SpanTree.of(spans)))
    console.file.seek(0)
    lines = console.file.read().splitlines()
    assert lines[1].split()[1].strip("=") == ""
    assert lines[2].startswith("` n2")
    assert "x37 x" in lines[3]


def test_spans_at_odd_times_are_drawn_within_the_axis() -> None:
    """Spans that end before they start, or begin before their parents, stay within the bars' column."""
    rows = shown(made(1, start=10, end=20), made(2, 1, start=30, end=5), made(3, 1, start=0, end=2), width=80)
    assert [cell_len(row) <= 80 for row in rows] == [True] * 3
    assert all(any(sign in row for sign in "━╸╺") for row in rows)


def test_deep_traces_keep_room_for_names() -> None:
    """Below a dozen levels the lines of the tree are cut at their beginning, and names are still there."""
    spans = [made(number, number - 1 or None, start=number) for number in range(1, 3_001)]
    rows = shown(*spans, width=80)
    assert len(rows) == 3_000
    assert rows[-1].split()[:3] == ["⋯", "└", "n3000"]


_TEXT = st.text(max_size=40)
_SPANS = st.lists(
    st.builds(
        made,
        st.integers(1, 40),
        st.none() | st.integers(1, 40),
        st.integers(-5, 2**40),
        st.integers(-5, 2**64),
        name=_TEXT,
        status=st.builds(SpanStatus, st.sampled_from(["unset", "ok", "error"]), _TEXT),
        attributes=st.dictionaries(
            st.sampled_from([names.THREAD_NAME, names.PROVIDER_SCOPE, names.BATCH_INDEX, names.BATCH_COUNT])
            | st.sampled_from([names.BATCH_SIZE, names.ERROR_TYPE, names.NODE_RESULT, names.NODE_ATTEMPT]),
            _TEXT | st.integers() | st.booleans(),
        ),
    ),
    min_size=1,
    max_size=40,
)


@given(spans=_SPANS, width=st.integers(10, 250), fold=st.booleans())
def test_any_trace_fits_any_terminal(spans: list[Span], width: int, fold: bool) -> None:
    """Whatever the spans say, a row is one line that fits, and every span is in just one row."""
    tree = SpanTree.of(spans)
    waterfall = Waterfall(tree, fold_above=FOLD_ABOVE if fold else None)
    lines = page(*spans, width=width, fold_above=FOLD_ABOVE if fold else None)
    assert len(lines) == 1 + len(waterfall.rows)
    assert max(map(cell_len, lines)) <= width
    counted = sum(len(row.spans) + row.inside for row in waterfall.rows)
    assert counted == len({span.span_id for span in spans})
