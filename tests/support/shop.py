"""The shop of deploy/app as a process that is watched."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent


@contextmanager
def shop(folder: Path, **variables: str) -> Iterator[None]:
    """Keep the shop open, with these variables."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "AETHER_"))}
    command = [sys.executable, str(ROOT / "deploy" / "app" / "shop.py")]
    with (folder / "shop.log").open("wb") as log:
        process = subprocess.Popen(command, env=plain | variables, cwd=folder, stdout=log, stderr=log)
        try:
            yield
            assert process.poll() is None, (folder / "shop.log").read_text("utf-8")
        finally:
            process.terminate()
            process.wait(timeout=20)
