"""Files that commands write: each appears whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Final

from aetherflow.cli.command import UsageError

__all__ = ["STANDARD_OUTPUT", "write_output"]

STANDARD_OUTPUT: Final = Path("-")


def write_output(path: Path, content: str) -> None:
    """Write a file beside its place and put it there when it is complete, whoever else writes it.

    Args:
        path: The file, which is replaced; `STANDARD_OUTPUT`, or what is no regular file, is written to as it is.
        content: What is in it; lone surrogates, which UTF-8 has no place for, become question marks.

    Raises:
        UsageError: It cannot be written.
    """
    data = content.encode(errors="replace")
    if path == STANDARD_OUTPUT:
        sys.stdout.write(data.decode())
        return
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)
        else:
            _replace(path.resolve(), data)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}; name another file with -o") from error


def _replace(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".partial")
    try:
        with open(handle, "wb") as file:
            file.write(data)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
