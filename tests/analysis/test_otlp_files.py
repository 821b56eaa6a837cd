"""Reading OTLP JSON files: every layout, every way a file can be broken."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetherflow.analysis.otlp_files import OtlpRecord, UnreadableTelemetryError, read_records


def read(path: Path, content: bytes | str, **options: object) -> list[OtlpRecord]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_records(path, **options))


def refused(path: Path, content: bytes | str, **options: object) -> UnreadableTelemetryError:
    with pytest.raises(UnreadableTelemetryError) as caught:
        read(path, content, **options)
    return caught.value


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "telemetry.jsonl"


def test_lines_keep_their_numbers(file: Path) -> None:
    """Each line is one record, blank lines are passed over and still counted."""
    records = read(file, '{"a": 1}\n\n  \n{"a": 2}\n')
    assert [(record.line, record.data["a"]) for record in records] == [(1, 1), (4, 2)]
    assert {record.path for record in records} == {file}


@pytest.mark.parametrize("content", ["", "\n\n", "  "], ids=["nothing", "blank lines", "blanks"])
def test_an_empty_file_has_no_records(file: Path, content: str) -> None:
    """A file that nothing was written to yet is no error."""
    assert read(file, content) == []


def test_a_document_over_several_lines_is_one_record(file: Path) -> None:
    """A pretty-printed document is read whole, several of them one after the other, each with its first line."""
    one, two = (json.dumps({"n": n}, indent=2) for n in (1, 2))
    records = read(file, f"{one}\n\n{two}\n")
    assert [(record.line, record.data["n"]) for record in records] == [(1, 1), (5, 2)]


@pytest.mark.parametrize("layout", [None, 2], ids=["one line", "indented"])
def test_an_array_holds_records(file: Path, layout: int | None) -> None:
    """Documents in an array, as some tools save them, are records of their own."""
    assert [record.data["n"] for record in read(file, json.dumps([{"n": 1}, {"n": 2}], indent=layout))] == [1, 2]


def test_gzip_is_told_by_its_content(file: Path) -> None:
    """A gzipped file is read whatever its name."""
    assert [record.data for record in read(file, gzip.compress(b'{"n": 1}\n{"n": 2}\n'))] == [{"n": 1}, {"n": 2}]


def test_a_byte_order_mark_is_passed_over(file: Path) -> None:
    """Files saved by Windows tools are read."""
    assert [record.data for record in read(file, b'\xef\xbb\xbf{"n": 1}\n')] == [{"n": 1}]


@given(cut=st.integers(0, 60))
def test_a_last_line_cut_anywhere_is_left_out(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """Wherever a writer was killed, the whole lines are read and the rest is reported, never raised."""
    whole = '{"n": 1}\n'
    last = json.dumps({"n": "é" * 20, "deep": {"er": [1, 2]}}, ensure_ascii=False).encode()
    tail = last[: cut % len(last)]
    reported: list[int] = []
    records = read(
        tmp_path_factory.mktemp("cut") / "f",
        whole.encode() + tail,
        on_truncated=lambda _, line: reported.append(line),
    )
    assert [record.data for record in records] == [{"n": 1}]
    assert reported == ([2] if tail else [])


def test_an_only_line_that_is_cut_is_reported(file: Path) -> None:
    """A file whose first record is still being written has no records, and says so."""
    reported: list[int] = []
    assert read(file, '{"resourceSpans": [{"res', on_truncated=lambda _, line: reported.append(line)) == []
    assert reported == [1]


def test_an_unended_last_line_that_is_whole_counts(file: Path) -> None:
    """JSON lines need no line end after the last one."""
    assert [record.data for record in read(file, '{"n": 1}\n{"n": 2}')] == [{"n": 1}, {"n": 2}]


def test_gzip_cut_short_gives_the_lines_before(file: Path) -> None:
    """The lines that a cut gzip stream still holds are read, and the cut is reported."""
    lines = b"".join(b'{"n": %d, "pad": "%s"}\n' % (n, str(hash(n * 7919) ** 9).encode()) for n in range(5_000))
    packed = gzip.compress(lines)
    reported: list[int] = []
    records = read(file, packed[: len(packed) * 2 // 3], on_truncated=lambda _, line: reported.append(line))
    assert [record.data["n"] for record in records] == list(range(len(records)))
    assert 1_000 < len(records) < 5_000
    assert len(reported) == 1
    assert reported[0] - len(records) in (1, 2)  # the cut falls into a line, or between two


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        ("hello\n", 1, "is not JSON"),
        ("hello", 1, "is not JSON"),
        ('{"n": 1}\noops\n{"n": 2}\n', 2, "is not JSON"),
        ('{"n": 1}\n\n[1]\n', 3, "is not a JSON object"),
        ("17\n", 1, "is not a JSON object"),
        ('{\n  "n": 1,\n  "m": oops\n}\n', 3, "is not JSON"),
        (b'{"n": 1}\n{"n": "\xff"}\n', 2, "is not JSON"),
        (b'{\n"n": "\xff"\n}\n', 1, "is not UTF-8"),
        ('{"n": 1}\n' + "[" * 100_000 + "]" * 100_000 + "\n", 2, "nested too deeply"),
        ("[\n" * 100_000 + "]" * 100_000 + "\n", 1, "nested too deeply"),
        ('{"n": 1}\n{"n": ' + "9" * 5_000 + "}\n", 2, "is not JSON"),
    ],
)
def test_what_is_not_otlp_is_refused_with_its_line(file: Path, content: bytes | str, line: int, problem: str) -> None:
    """A broken record names the file, the line and what is wrong with it."""
    error = refused(file, content)
    assert (error.path, error.line) == (file, line)
    assert problem in error.problem
    assert str(error) == f"{file}, line {line}: {error.problem}"


def test_a_huge_line_is_refused_before_it_is_held(file: Path) -> None:
    """A record beyond the limit is refused with its line, in lines and in documents alike."""
    error = refused(file, '{"n": 1}\n{"n": "' + "x" * 1_000 + '"}\n', max_bytes=500)
    assert (error.line, error.problem) == (2, "is longer than 500 bytes")
    error = refused(file, '{\n"n": "' + "x" * 1_000 + '"}\n', max_bytes=500)
    assert (error.line, "500 bytes" in error.problem) == (1, True)


def test_a_missing_file_is_one_error(tmp_path: Path) -> None:
    """What the system refuses is the same error as what cannot be parsed."""
    with pytest.raises(UnreadableTelemetryError, match="No such file") as caught:
        list(read_records(tmp_path / "nowhere"))
    assert caught.value.line is None


def test_broken_gzip_is_refused(file: Path) -> None:
    """A file that begins like gzip and is not says so."""
    assert "gzip" in refused(file, b"\x1f\x8b" + b"garbage" * 20).problem


def test_records_are_read_one_by_one(file: Path) -> None:
    """What comes before a broken line is yielded before the error: nothing is read ahead."""
    file.write_text('{"n": 1}\noops\n', encoding="utf-8")
    records = read_records(file)
    assert next(records).data == {"n": 1}
    with pytest.raises(UnreadableTelemetryError):
        next(records)
