"""The program as a whole: help, exit codes, interruption, readers that go away."""

from __future__ import annotations

import re
import signal
import sys
import time
from pathlib import Path

import pytest
from tests.cli.program import run, start

from aetherflow.cli.command import UsageError
from aetherflow.cli.main import COMMANDS, main
from aetherflow.errors import AetherFlowError

FLOWS = """
import threading
from pathlib import Path

from aetherflow import node


@node
def slow():
    Path("started").touch()
    threading.Event().wait(50)


@node
def endless():
    try:
        number = 0
        while True:
            yield number
            number += 1
    finally:
        Path("closed").touch()
"""


@pytest.fixture
def flows(tmp_path: Path) -> Path:
    (tmp_path / "flows.py").write_text(FLOWS, encoding="utf-8")
    return tmp_path


def wait_for(file: Path) -> None:
    for _ in range(1_000):
        if file.exists():
            return
        time.sleep(0.02)
    pytest.fail(f"{file} did not appear")


def test_the_help_lists_commands_a_line_each(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list of commands has each with its summary beside it, however long its name."""
    monkeypatch.setenv("COLUMNS", "120")
    assert main([]) == 0
    told = capsys.readouterr().out
    assert [
        command.name for command in COMMANDS if not re.search(rf"^    {command.name}  +\w", told, re.MULTILINE)
    ] == []


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The help of a command tells what it does, with examples of it."""
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"  aetherflow {command}" in capsys.readouterr().out


def test_without_a_command_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """The list of commands is what a newcomer sees first."""
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(f"    {command.name}" in out and command.summary in out for command in COMMANDS)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """``--version`` names the program."""
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.startswith("aetherflow ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["fly"], "aetherflow: argument COMMAND: invalid choice: 'fly'"),
        (["--fly"], "aetherflow: unrecognized arguments: --fly; see aetherflow --help"),
        (["demo", "--fly"], "aetherflow demo: unrecognized arguments: --fly; see aetherflow demo --help"),
        (["demo", "--limit", "0"], "aetherflow demo: argument --limit: '0' is not a whole number of at least 1"),
        (["demo", "--lim", "3"], "aetherflow demo: unrecognized arguments: --lim 3"),
        (["demo", "--workers", "many"], "'many' is not a whole number of at least 1"),
        (["demo", "--exporter", "pigeon"], "invalid choice: 'pigeon'"),
        (["run"], "aetherflow run: the following arguments are required: MODULE:FLOW"),
        (["trace", "a", "b"], "aetherflow trace: unrecognized arguments: b"),
    ],
)
def test_what_does_not_parse_is_one_line(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A bad argument is told in one line, with where to look, and exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert told in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("error", [UsageError("no [such] thing"), AetherFlowError("no [such] thing")])
def test_our_own_errors_are_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error that a command raises on purpose is told as text, markup or not, however long."""
    error.args = (error.args[0] + " x" * 200,)
    monkeypatch.setattr("aetherflow.cli.trace._file", lambda given: (_ for _ in ()).throw(error))
    assert main(["trace"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("aetherflow trace: no [such] thing x x")
    assert err.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
def test_interrupted_work_ends_with_130(flows: Path) -> None:
    """Ctrl-C ends a running flow at once, without a traceback, and what ran so far is exported."""
    with start("run", "flows:slow", cwd=flows) as process:
        wait_for(flows / "started")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=40)
    assert process.returncode == 130
    assert err == "interrupted\n"
    assert "slow" in run("trace", cwd=flows).stdout


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
def test_a_reader_that_goes_away_ends_the_program_in_silence(flows: Path) -> None:
    """``| head`` gets its lines, sees no traceback, and the flow is closed properly."""
    with start("run", "flows:endless", cwd=flows) as process:
        assert process.stdout
        assert process.stderr
        assert [process.stdout.readline() for _ in range(3)] == ["0\n", "1\n", "2\n"]
        process.stdout.close()
        assert process.wait(40) == 141
        assert process.stderr.read() == ""
    assert (flows / "closed").exists()


def test_a_terminal_that_knows_ascii_only_is_no_obstacle(flows: Path) -> None:
    """Where the output has no lines, bars and arrows, the page is there all the same."""
    shown = run("run", "flows:endless.func", cwd=flows)
    assert shown.returncode == 2
    shown = run("demo", "--limit", "2", cwd=flows, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "run standard_library" in shown.stdout


@pytest.mark.parametrize("command", ["regress", "ab", "baseline"])
def test_a_defect_of_ours_is_no_verdict(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where 1 says that something became slower, an exception that nobody expected ends with its traceback and 2."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("nobody thought of this")

    arguments = {
        "regress": ["--candidate", "is"],
        "ab": ["--baseline", "true", "--candidate", "true"],
        "baseline": ["list", "kept"],
    }
    for module, name in (("regress", "read_side"), ("ab", "run_trial"), ("baseline", "find_baselines")):
        monkeypatch.setattr(f"aetherflow.cli.{module}.{name}", fail)
    assert main([command, *arguments[command]]) == 2
    error = capsys.readouterr().err
    assert "ZeroDivisionError: nobody thought of this" in error
    assert f"aetherflow {command}: no verdict" in error
