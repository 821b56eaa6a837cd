"""``aetherflow report`` writes one page, or says in one line why not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.analysis.otlp_samples import line, span, write

from aetherflow.cli.main import main
from aetherflow.report import page

ASSETS = Path(main.__code__.co_filename).parents[1] / "report" / "assets"


@pytest.fixture
def telemetry(tmp_path: Path) -> Path:
    return write(tmp_path / "traces-1.jsonl", line(span(1), span(2, 1)))


def test_the_page_is_written(
    telemetry: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without arguments the newest telemetry is found where it is exported to, and the page told by its name."""
    monkeypatch.chdir(telemetry.parent)
    monkeypatch.setenv("AETHER_EXPORT_DIRECTORY", ".")
    assert main(["report"]) == 0
    assert capsys.readouterr().out == "1 trace, 2 spans: report.html\n"
    file = Path("report.html")
    assert file.read_text("utf-8").startswith("<!doctype html>")
    mask = os.umask(0)
    os.umask(mask)
    assert file.stat().st_mode & 0o777 == 0o666 & ~mask
    assert main(["report", str(telemetry), "-o", "-"]) == 0
    assert capsys.readouterr().out.endswith("</html>\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere.jsonl"], "nowhere.jsonl: there is no such file or folder"),
        (["empty"], "there is no OTLP JSON in empty; run the program first"),
        (["picture.png"], "picture.png, line 1: is not JSON"),
        (["wrong.jsonl"], 'wrong.jsonl, line 1: is not OTLP: "spans" must be an array'),
        (["traces-1.jsonl", "-o", "nowhere/report.html"], "nowhere/report.html cannot be written"),
        (["traces-1.jsonl", "-o", "empty"], "empty cannot be written: Is a directory"),
        ([], "there is no .aetherflow/; run 'aetherflow demo' first"),
    ],
)
def test_what_cannot_be_is_one_line(
    telemetry: Path,
    arguments: list[str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Files that are missing, empty or something else, and places that cannot be written to, are named."""
    monkeypatch.chdir(telemetry.parent)
    monkeypatch.delenv("AETHER_EXPORT_DIRECTORY", raising=False)
    Path("empty").mkdir()
    Path("picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\xff")
    Path("wrong.jsonl").write_text('{"resourceSpans": [{"scopeSpans": [{"spans": 3}]}]}\n')
    assert main(["report", *arguments]) == 2
    captured = capsys.readouterr()
    assert told in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not list(Path().glob(".*.partial"))


def test_two_at_once_leave_a_whole_page(telemetry: Path) -> None:
    """Whoever writes the same page at the same time, it is one of the pages in the end, and nothing else is left."""
    file = telemetry.with_name("page.html")
    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(lambda _: main(["report", str(telemetry), "-o", str(file)]), range(8)))
    assert codes == [0] * 8
    assert file.read_text("utf-8").endswith("</html>\n")
    assert sorted(each.name for each in telemetry.parent.iterdir()) == ["page.html", telemetry.name]


def test_ctrl_c_leaves_what_was_there(
    telemetry: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An interrupt in the last moment leaves the page that was there, and nothing beside it."""
    file = telemetry.with_name("page.html")
    file.write_text("before")

    def interrupted(*paths: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    assert main(["report", str(telemetry), "-o", str(file)]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert file.read_text() == "before"
    assert sorted(each.name for each in telemetry.parent.iterdir()) == ["page.html", telemetry.name]


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed: its syntax check is not had")
def test_the_scripts_are_javascript() -> None:
    """Node takes every module of the page."""
    for script in sorted(ASSETS.glob("*.js")):
        done = subprocess.run(["node", "--check", script], capture_output=True, text=True, check=False, timeout=50)
        assert (done.returncode, done.stderr) == (0, "")


def test_every_module_is_in_the_page() -> None:
    """What one module imports is exported by another, which stands before it in the page."""
    assert sorted(page._MODULES) == sorted(each.name for each in ASSETS.glob("*.js"))
    exported: dict[str, set[str]] = {}
    for module in page._MODULES:
        source = (ASSETS / module).read_text("utf-8")
        for names, other in re.findall(r"^import \{(.*)\} from \"\./(.*)\";$", source, re.MULTILINE):
            assert {name.strip() for name in names.split(",")} <= exported[other], (module, other)
        exported[module] = {name for _, name in page._EXPORT.findall(source)}
        assert source.count("\nexport ") == len(exported[module])
        assert source.count("\nimport ") == len(page._IMPORT.findall(source))
