"""What the demo says of the standard library is true, and the same whoever was first."""

from __future__ import annotations

import ast
import os
import sys
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetherflow.cli import demo_flow
from aetherflow.cli.demo_flow import DemoContext, make_flow
from aetherflow.cli.demo_source import Module, Parser, SourceFile, list_sources
from aetherflow.cli.main import main

SOURCE = """
import os, sys
import shop.paper as paper
from . import ink
from ..store import *
from json import loads


class Printer:
    def put(self, page, copies=1):
        import lazily
        for _ in range(copies):
            if page and (self.ready or self.warm or copies > 2):
                while True:
                    try:
                        pass
                    except OSError:
                        return [line for line in page if line]

        def nested():
            return 1 if page else 2

        match page:
            case 1:
                pass
            case _:
                pass


async def plain(): ...
"""


def parsed(tmp_path: Path, content: bytes, module: str = "shop.printing.machine", *, package: bool = False) -> Module:
    file = tmp_path / "machine.py"
    file.write_bytes(content)
    return Parser(lambda source: None).parse(SourceFile(file, module, len(content), package))


def test_functions_are_counted_with_the_ways_through_them(tmp_path: Path) -> None:
    """Branches, loops, handlers, conditions and cases each add a way; nested functions have ways of their own."""
    module = parsed(tmp_path, SOURCE.encode())
    assert (module.lines, module.classes, module.problem) == (SOURCE.count("\n"), 1, "")
    # put: one, and for, if, and, or twice, while, except, comprehension, two cases
    assert [(function.name, function.line, function.complexity) for function in module.functions] == [
        ("Printer.put", 10, 11),
        ("Printer.put.<locals>.nested", 20, 2),
        ("plain", 30, 1),
    ]


@pytest.mark.parametrize(
    ("package", "relative"), [(False, {"shop.printing.ink", "shop.printing", "shop.store"}), (True, None)]
)
def test_imports_are_those_of_the_module_itself(tmp_path: Path, package: bool, relative: set[str] | None) -> None:
    """Relative imports are resolved, for packages and modules; what a function imports later does not count."""
    expected = relative or {"shop.printing.machine.ink", "shop.printing.machine", "shop.printing.store"}
    found = parsed(tmp_path, SOURCE.encode(), package=package).imports
    assert found == {"os", "sys", "shop.paper", "json", "json.loads"} | expected


@pytest.mark.parametrize(
    "content", [b"print 'hello'", b"x = '\xff'", b"\0", b"# coding: nonsense\n", b"(" * 300 + b")" * 300],
    ids=["syntax", "bytes", "null", "coding", "deep"],
)  # fmt: skip
def test_a_file_that_does_not_parse_is_told(tmp_path: Path, content: bytes) -> None:
    """A file that is not Python is no failure of the flow: it is named with its problem."""
    module = parsed(tmp_path, content)
    assert (module.name, module.functions) == ("shop.printing.machine", ())
    assert module.problem


def test_the_library_is_listed_without_what_is_installed() -> None:
    """Modules of the library are there by name, sorted; installed packages are not, and tests only on request."""
    sources = list_sources()
    names = [source.module for source in sources]
    assert {"os", "json", "json.decoder", "asyncio.tasks", "email.mime.text"} <= set(names)
    assert names == sorted(names)
    others = {name.partition(".")[0] for name in names} - sys.stdlib_module_names
    assert all(name.startswith("_") for name in others), others  # CPython's __hello__, and Debian adds one of its own
    assert all(source.size == os.path.getsize(source.path) for source in sources[:50])
    assert len(list_sources(tests=True)) >= len(sources)


def test_a_limit_takes_the_largest() -> None:
    """With a limit, no file left out is larger than one taken."""
    sources = list_sources()
    taken = list_sources(limit=20)
    assert len(taken) == 20
    smallest = min(source.size for source in taken)
    assert {source for source in sources if source.size > smallest} <= set(taken)


@given(st.dictionaries(st.integers(0, 12).map(str), st.lists(st.integers(0, 12).map(str), max_size=4), max_size=13))
def test_circles_are_what_leads_back(edges: dict[str, list[str]]) -> None:
    """The components are those of a reference that follows every path: each other's successors."""
    names = sorted(edges.keys() | {target for targets in edges.values() for target in targets})
    graph = {name: edges.get(name, []) for name in names}

    def reached(name: str) -> set[str]:
        seen: set[str] = {name}
        waiting = [name]
        while waiting:
            fresh = set(graph[waiting.pop()]) - seen
            seen |= fresh
            waiting += fresh
        return seen

    after = {name: reached(name) for name in names}
    expected = {tuple(sorted(other for other in after[name] if name in after[other])) for name in names}
    assert sorted(demo_flow._components(graph)) == sorted(expected)


@given(sizes=st.lists(st.integers(0, 1_000), min_size=1, max_size=60), partitions=st.integers(1, 10))
def test_parts_are_even_and_lose_nothing(sizes: list[int], partitions: int) -> None:
    """Every file is in one part, no part is empty, and the largest exceeds the smallest by one file at most."""
    sources = [SourceFile(Path(f"{at}.py"), f"m{at:03}", size, False) for at, size in enumerate(sizes)]
    parts = demo_flow.partition.func(sources, demo_flow.Watcher(), partitions)
    assert sorted((source for part in parts for source in part), key=lambda source: source.module) == sources
    assert len(parts) == min(partitions, len(sources))
    weights = [sum(source.size for source in part) for part in parts]
    assert max(weights) - min(weights) <= max(sizes)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_report_does_not_depend_on_the_workers(workers: int) -> None:
    """However many threads parse, the report is that of a plain loop over the files, and every file was announced."""
    told: list[str] = []

    class Telling(demo_flow.Watcher):
        def expect(self, files: int) -> None:
            told.append(f"{files} files")

        def parsed(self, source: SourceFile) -> None:
            told.append(source.module)

    with DemoContext() as context, context.watcher.override(Telling()):
        report = make_flow(workers).run({"limit": 12}, context)
    sources = list_sources(limit=12)
    assert told[0] == "12 files"
    assert sorted(told[1:]) == [source.module for source in sources]
    modules = [Parser(lambda source: None).parse(source) for source in sources]
    assert report.files == 12
    assert report.lines == sum(module.lines for module in modules)
    assert report.complexity == demo_flow.complexity.func(modules)
    assert report.imports == demo_flow.imports.func(modules)
    functions = [
        part
        for source in sources
        for part in ast.walk(ast.parse(source.path.read_bytes()))
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert report.complexity.functions == len(functions)


@pytest.mark.parametrize("width", [40, 80, 160])
def test_the_page_fits_the_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tables and waterfall fit a narrow and a wide terminal; lines that are copied, such as the file's, may wrap."""
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["demo", "--limit", "3"]) == 0
    out = capsys.readouterr().out
    page, _, rest = out.partition("trace file")
    assert rest
    lines = page.splitlines()
    assert max(map(len, lines)) <= width
    assert "Most intricate functions" in page
    assert "Most imported modules" in page


def test_a_terminal_sees_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Progress is shown on a terminal, and only there; it is not mixed into the result."""
    assert main(["demo", "--limit", "3"]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(["demo", "--limit", "3", "--no-color"]) == 0
    out, err = capsys.readouterr()
    assert "3/3" in err
    assert "3/3" not in out.partition("run standard_library")[0]


def test_a_python_without_sources_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the library is not there as files, the demo fails with what is missing."""
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path / "nowhere"))
    assert main(["demo"]) == 1
    assert "no source files of its standard library" in capsys.readouterr().err


def test_a_link_to_a_missing_file_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library of a distribution may link to files that are not installed; they are not among the sources."""
    (tmp_path / "present.py").write_text("x = 1\n")
    (tmp_path / "sitecustomize.py").symlink_to(tmp_path / "nowhere.py")
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    assert [source.module for source in list_sources()] == ["present"]
