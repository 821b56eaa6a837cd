"""A module of the user's own, for commands that import one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Write a module into the working directory and give its name; it is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    known = set(sys.modules)
    written: list[str] = []

    def write(content: str) -> str:
        name = f"users_own_{len(written)}"
        (tmp_path / f"{name}.py").write_text(content, encoding="utf-8")
        written.append(name)
        sys.path_importer_cache.pop(str(tmp_path), None)
        return name

    yield write
    for name in set(sys.modules) - known:
        if name in written:
            del sys.modules[name]
