"""The program as a user starts it: a process of its own, in a folder, with a terminal or a pipe."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.warm_interpreter import run_program

from aetherflow.cli.main import main

_SETTINGS = ("OTEL_", "AETHER_", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM")


def environment(**changed: str) -> dict[str, str]:
    """The variables a program is started with: ours without settings of any kind but those given."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
    return plain | {"COLUMNS": "120", "PYTHONIOENCODING": "utf-8"} | changed


def start(*arguments: str, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "aetherflow", *arguments]
    return subprocess.Popen(
        command,
        env=environment(**(env or {})),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        **options,
    )


def code_of(*arguments: str) -> int:
    """Give the exit code of the program within this process: for what ends before anything begins."""
    try:
        return main(arguments)
    except SystemExit as error:
        return int(error.code or 0)


def run(*arguments: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    return run_program("-m aetherflow", *arguments, env=environment(**env), cwd=cwd)
