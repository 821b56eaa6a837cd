"""The files that telemetry is written to."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetherflow.telemetry.export.files import ProcessFile, latest_file

STARTED = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


def test_a_name_says_signal_time_and_process(tmp_path):
    """The file is named for what it holds, when the process began (UTC) and its pid."""
    east = STARTED.astimezone(timezone(timedelta(hours=9)))
    assert (
        ProcessFile(tmp_path, "traces", east).path == tmp_path / f"traces-20260102T030405.000678Z-{os.getpid()}.jsonl"
    )


@given(first=st.datetimes(datetime(1970, 1, 1)), second=st.datetimes(datetime(1970, 1, 1)))
def test_names_sort_by_time(tmp_path_factory, first, second):
    """Sorting the names sorts the files by when their processes began."""
    names = [
        ProcessFile(tmp_path_factory.getbasetemp(), "traces", at.replace(tzinfo=UTC)).path.name
        for at in (first, second)
    ]
    assert (first < second) == (names[0] < names[1])


def test_every_write_is_there_at_once(tmp_path):
    """Writing makes the directory and the file, appends, and leaves nothing in a buffer."""
    file = ProcessFile(tmp_path / "a" / "b", "metrics", STARTED)
    assert not file.path.parent.exists()
    file.write("one\n")
    assert file.path.read_text() == "one\n"
    file.write("two µ\n")
    assert file.path.read_text(encoding="utf-8") == "one\ntwo µ\n"


def test_a_file_taken_away_is_begun_anew(tmp_path):
    """Rotation by moving the file away loses nothing."""
    file = ProcessFile(tmp_path, "traces", STARTED)
    file.write("one\n")
    file.path.rename(tmp_path / "old")
    file.write("two\n")
    assert file.path.read_text() == "two\n"


def test_a_directory_given_relatively_stays_put(tmp_path, monkeypatch):
    """Changing the working directory later does not move the file."""
    monkeypatch.chdir(tmp_path)
    file = ProcessFile(tmp_path.joinpath("x").relative_to(tmp_path), "traces", STARTED)
    monkeypatch.chdir("/")
    file.write("one\n")
    assert file.path.parent == tmp_path / "x"


def test_the_latest_file_is_of_the_process_that_began_last(tmp_path):
    """Of several files the youngest by name is found, per signal; without any there is none."""
    assert latest_file("traces", tmp_path / "nowhere") is None
    for seconds in (2, 3, 1):
        ProcessFile(tmp_path, "traces", STARTED + timedelta(seconds=seconds)).write("x\n")
    ProcessFile(tmp_path, "metrics", STARTED + timedelta(seconds=9)).write("x\n")
    found = latest_file("traces", tmp_path)
    assert found == ProcessFile(tmp_path, "traces", STARTED + timedelta(seconds=3)).path


def test_lines_that_do_not_fit_leave_nothing_behind(tmp_path):
    """Where there is no room for all of what is appended, none of it stays: half a line would spoil the next."""
    resource = pytest.importorskip("resource")
    file = ProcessFile(tmp_path, "traces", STARTED)
    file.append(b"first\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        with pytest.raises(OSError, match="too large"):
            file.append(b"x" * 20_000 + b"\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    file.append(b"last\n")
    assert file.path.read_bytes() == b"first\nlast\n"
