"""What the demo looks at: the source files of the standard library, and what one of them says of itself."""

from __future__ import annotations

import ast
import contextlib
import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Function", "Module", "Parser", "SourceFile", "list_sources"]

_TESTS: Final = frozenset({"test", "tests", "idle_test"})
_DECISIONS: Final = (
    ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.comprehension, ast.match_case,
)  # fmt: skip
_PARSING: Final = threading.Lock() if sys.version_info < (3, 12) else contextlib.nullcontext()
"""Held while the interpreter builds a tree: before 3.12 a garbage collection in the midst of that lets another thread
in, and both count their depth in one place (python/cpython#106905). That costs nothing where only one thread runs."""
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One source file: where it is, the module it is imported as, and its size in bytes."""

    path: Path
    module: str
    size: int
    is_package: bool


@dataclass(frozen=True, slots=True)
class Function:
    """One function or method.

    Attributes:
        name: Qualified within its module.
        module: The module it is in.
        line: Where it begins, from 1.
        complexity: Its cyclomatic complexity, functions nested in it left out: the ways through it, at least 1.
    """

    name: str
    module: str
    line: int
    complexity: int


@dataclass(frozen=True, slots=True)
class Module:
    """What a source file says of itself.

    Attributes:
        name: The module's name.
        lines: How many lines it has.
        classes: How many classes it defines.
        functions: Its functions and methods, nested ones too, by line.
        imports: Names of what it imports when it is imported itself: modules, or names in modules.
        problem: Why it could not be parsed; empty where it could.
    """

    name: str
    lines: int = 0
    classes: int = 0
    functions: tuple[Function, ...] = ()
    imports: frozenset[str] = frozenset()
    problem: str = ""


def list_sources(*, limit: int | None = None, tests: bool = False) -> list[SourceFile]:
    """List the source files of the running Python's standard library.

    Args:
        limit: Only this many, the largest.
        tests: Whether to list the library's own tests too, where they are installed.

    Returns:
        The files, by module.
    """
    root = Path(sysconfig.get_path("stdlib"))
    found: list[SourceFile] = []
    for folder, below, files in os.walk(root):
        # Only what can be imported by name is of the library: installed packages stand in ``site-packages``.
        below[:] = [name for name in below if name.isidentifier() and (tests or name not in _TESTS)]
        package = Path(folder).relative_to(root).parts
        paths = [Path(folder, name) for name in files if _is_module(name)]
        # A distribution may have links to files outside the library that are not installed.
        found += [_source_file(path, package) for path in paths if path.is_file()]
    if limit is not None:
        found = sorted(found, key=lambda source: (-source.size, source.module))[:limit]
    return sorted(found, key=lambda source: source.module)


def _is_module(file: str) -> bool:
    return file.endswith(".py") and file.removesuffix(".py").isidentifier()


def _source_file(path: Path, package: tuple[str, ...]) -> SourceFile:
    is_package = path.stem == "__init__"
    return SourceFile(path, ".".join(package if is_package else (*package, path.stem)), path.stat().st_size, is_package)


class Parser:
    """Parses source files; one belongs to one thread, since it counts without a lock.

    Args:
        parsed: Called after each file.
    """

    def __init__(self, parsed: Callable[[SourceFile], None]) -> None:
        self.files = 0
        self._parsed = parsed

    def parse(self, source: SourceFile) -> Module:
        """Parse one file. One that cannot be parsed, as a few in the library's tests, is told as such."""
        try:
            content = source.path.read_bytes()
            with _PARSING:
                tree = ast.parse(content, source.path.name)
            module = _examine(source, tree, content.count(b"\n"))
        except (OSError, SyntaxError, ValueError, RecursionError) as error:
            module = Module(source.module, problem=f"{type(error).__name__}: {error}")
        self.files += 1
        self._parsed(source)
        return module


@dataclass(slots=True)
class _Counted:
    """A function in the making."""

    name: str
    line: int
    complexity: int = 1


def _examine(source: SourceFile, tree: ast.Module, lines: int) -> Module:
    functions: list[_Counted] = []
    imports: set[str] = set()
    classes = 0
    within: _Counted | None
    # A stack rather than a visitor: generated code may nest deeper than the interpreter recurses.
    stack: list[tuple[ast.AST, str, _Counted | None]] = [(tree, "", None)]
    while stack:
        node, prefix, within = stack.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            if within is None:
                imports.update(_imported(node, source))
            continue
        if isinstance(node, _FUNCTIONS):
            within = _Counted(prefix + node.name, node.lineno)
            functions.append(within)
            prefix = f"{within.name}.<locals>."
        elif isinstance(node, ast.ClassDef):
            classes += 1
            prefix = f"{prefix}{node.name}."
        elif within is not None:
            within.complexity += _ways(node)
        stack.extend((child, prefix, within) for child in ast.iter_child_nodes(node))
    found = (Function(each.name, source.module, each.line, each.complexity) for each in functions)
    by_line = tuple(sorted(found, key=lambda function: (function.line, function.name)))
    return Module(source.module, lines, classes, by_line, frozenset(imports))


def _ways(node: ast.AST) -> int:
    """How many more ways through a function a node makes."""
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    return 1 if isinstance(node, _DECISIONS) else 0


def _imported(node: ast.Import | ast.ImportFrom, source: SourceFile) -> Iterator[str]:
    """Yield what an import statement names; whether the last part is a module is not known here."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = _absolute(node, source)
    yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
    if base:
        yield base


def _absolute(node: ast.ImportFrom, source: SourceFile) -> str:
    """The module that ``from … import`` names, with the dots of a relative one resolved."""
    if not node.level:
        return node.module or ""
    parts: Sequence[str] = source.module.split(".")
    parts = parts[: len(parts) - node.level + source.is_package]
    return ".".join((*parts, node.module) if node.module else parts)
