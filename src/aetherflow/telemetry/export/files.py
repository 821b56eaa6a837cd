"""The files that telemetry is written to: OTLP JSON lines, one file a process and signal."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from aetherflow.telemetry.export.destination import Signal

__all__ = ["DEFAULT_DIRECTORY", "DIRECTORY_VARIABLE", "ProcessFile", "export_directory", "latest_file"]

DEFAULT_DIRECTORY: Final = ".aetherflow"
"""Where the files are, below the working directory."""

DIRECTORY_VARIABLE: Final = "AETHER_EXPORT_DIRECTORY"
"""The environment variable that names another place."""


def export_directory() -> Path:
    """Return where the files are, unless the program itself says otherwise."""
    return Path(os.environ.get(DIRECTORY_VARIABLE) or DEFAULT_DIRECTORY)


class ProcessFile:
    """A text stream that appends to the file of the process that writes.

    The file is opened for each write, which happens once a batch: a process that emits nothing leaves no file, no
    descriptor is shared with a forked child, and a file that was moved away is begun anew.

    Args:
        directory: Where the file is.
        signal: What it holds.
        started: When the process began to export, aware; part of the name, so that names sort by time.
    """

    __slots__ = ("_directory", "_prefix")

    closed: Final = False

    def __init__(self, directory: Path, signal: Signal, started: datetime) -> None:
        self._directory = directory.absolute()
        self._prefix = f"{signal}-{started.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}"

    @property
    def path(self) -> Path:
        """The file of this process; it exists from the first batch on."""
        return self._directory / f"{self._prefix}-{os.getpid()}.jsonl"

    def write(self, text: str) -> int:
        """Append text to the file of this process."""
        self._directory.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            return file.write(text)

    def append(self, lines: bytes) -> None:
        """Append whole lines to the file of this process: all of them, or where there is no room for all, none.

        Args:
            lines: What to append, in UTF-8.

        Raises:
            OSError: It cannot be written.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            left = memoryview(lines)
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError:
                file.truncate(before)  # half a line would spoil the next one too
                raise

    def flush(self) -> None:
        """Do nothing: every write is complete."""


def latest_file(signal: Signal, directory: Path | str = DEFAULT_DIRECTORY) -> Path | None:
    """Return the file that the process which started last has written.

    Args:
        signal: What the file holds.
        directory: Where to look.

    Returns:
        The file, or None where there is none.
    """
    return max(Path(directory).glob(f"{signal}-*.jsonl"), key=lambda path: path.name, default=None)
