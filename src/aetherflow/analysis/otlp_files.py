"""OTLP JSON files, read as a stream of records: JSON lines, or whole JSON documents, gzipped or not.

A record is one exported message (``ExportTraceServiceRequest``, ``ExportMetricsServiceRequest``, …) with the place
it came from; what is in it is read by the modules that know the signal. Nothing is kept, so a file may be far larger
than memory; only one record must fit.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from aetherflow.errors import AetherFlowError

__all__ = ["MAX_RECORD_BYTES", "OtlpRecord", "UnreadableTelemetryError", "read_records"]

MAX_RECORD_BYTES: Final = 64 * 1024 * 1024
"""Uncompressed bytes that one line, or one document that is not JSON lines, may have."""

_GZIP_MAGIC: Final = b"\x1f\x8b"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_NOT_BLANK: Final = re.compile(r"\S")


class UnreadableTelemetryError(AetherFlowError, ValueError):
    """A telemetry file cannot be read, or holds something that is not OTLP.

    Args:
        path: The file.
        line: The line at fault, from 1; None where the file as a whole is.
        problem: What is wrong with it.
    """

    def __init__(self, path: Path, line: int | None, problem: str) -> None:
        self.path = path
        self.line = line
        self.problem = problem
        place = str(path) if line is None else f"{path}, line {line}"
        super().__init__(f"{place}: {problem}")


@dataclass(frozen=True, slots=True)
class OtlpRecord:
    """One exported message: the JSON object, and the file and line (from 1) that it starts at."""

    path: Path
    line: int
    data: Mapping[str, object]


def read_records(
    path: str | os.PathLike[str],
    *,
    max_bytes: int = MAX_RECORD_BYTES,
    on_truncated: Callable[[Path, int], None] | None = None,
) -> Iterator[OtlpRecord]:
    """Read a file record by record.

    A last line without an end, as a process leaves it that is killed or still writing, is not an error: it is left out.

    Args:
        path: JSON lines, or one or more JSON documents of any layout; gzip is recognised by its content.
        max_bytes: Uncompressed bytes that one record may have.
        on_truncated: Called with the file and the line of a last record that was left out.

    Yields:
        The records, in the order of the file.

    Raises:
        UnreadableTelemetryError: The file cannot be opened, is not JSON, or has a record beyond ``max_bytes``.
    """
    file = Path(path)
    try:
        with file.open("rb") as raw:
            zipped = raw.read(2) == _GZIP_MAGIC
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) if zipped else raw as stream:
                yield from _Reader(file, stream, max_bytes, on_truncated or _ignore).records()
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UnreadableTelemetryError(file, None, f"is broken gzip ({error})") from error
    except OSError as error:
        raise UnreadableTelemetryError(file, None, error.strerror or str(error)) from error


def _ignore(path: Path, line: int) -> None:
    """Nobody asked about the record that was left out."""


class _Reader:
    """One pass over an open file."""

    def __init__(
        self, path: Path, stream: BinaryIO | gzip.GzipFile, max_bytes: int, on_truncated: Callable[[Path, int], None]
    ) -> None:
        self.path = path
        self.stream = stream
        self.max_bytes = max_bytes
        self.on_truncated = on_truncated
        self.line = 0

    def records(self) -> Iterator[OtlpRecord]:
        """Yield the records, whichever of the two layouts the file has: its first line tells."""
        first = self._next_line()
        if first is None:
            return
        first = first.removeprefix(_BYTE_ORDER_MARK)
        ended = first.endswith(b"\n")
        try:
            value = _parse(first)
        except (ValueError, RecursionError) as error:
            if not first.lstrip().startswith((b"{", b"[")):
                raise self._error(_why(error)) from error
            if not ended:
                self.on_truncated(self.path, self.line)
                return
        else:
            yield from self._of(value)
            yield from self._lines()
            return
        yield from self._documents(first)

    def _lines(self) -> Iterator[OtlpRecord]:
        """Yield the rest of a file of JSON lines."""
        while (line := self._next_line()) is not None:
            try:
                value = _parse(line)
            except (ValueError, RecursionError) as error:
                if line.endswith(b"\n"):
                    raise self._error(_why(error)) from error
                self.on_truncated(self.path, self.line)
                return
            yield from self._of(value)

    def _documents(self, head: bytes) -> Iterator[OtlpRecord]:
        """Yield what a file holds that is laid out over several lines: it is read whole, within the limit."""
        start = self.line
        try:
            body = head + self.stream.read(self.max_bytes + 1 - len(head))
        except EOFError as error:
            raise self._error("is cut short") from error
        if len(body) > self.max_bytes:
            raise self._error(f"is neither a JSON line nor a document of at most {self.max_bytes:,} bytes")
        try:
            text = body.decode()
        except UnicodeDecodeError as error:
            raise self._error(f"is not UTF-8 ({error})") from error
        decoder = json.JSONDecoder()
        at = _skip_blanks(text, 0)
        self.line += text.count("\n", 0, at)
        while at < len(text):
            try:
                value, end = decoder.raw_decode(text, at)
            except json.JSONDecodeError as error:
                self.line = start + error.lineno - 1
                raise self._error(_why(error)) from error
            except (ValueError, RecursionError) as error:
                raise self._error(_why(error)) from error
            yield from self._of(value)
            end = _skip_blanks(text, end)
            self.line += text.count("\n", at, end)
            at = end

    def _next_line(self) -> bytes | None:
        """Give the next line that is not blank, with its end if it has one; None at the end of the file."""
        while True:
            try:
                line = self.stream.readline(self.max_bytes + 1)
            except EOFError:  # a gzip stream whose end is missing
                self.on_truncated(self.path, self.line + 1)
                return None
            if not line:
                return None
            self.line += 1
            if len(line) > self.max_bytes:
                raise self._error(f"is longer than {self.max_bytes:,} bytes")
            if line.strip():
                return line

    def _of(self, value: object) -> Iterator[OtlpRecord]:
        """Yield the records in a JSON value: an object is one, an array holds them."""
        for data in value if isinstance(value, list) else (value,):
            if not isinstance(data, dict):
                raise self._error("is not a JSON object, as every OTLP message is")
            yield OtlpRecord(self.path, self.line, data)

    def _error(self, problem: str) -> UnreadableTelemetryError:
        return UnreadableTelemetryError(self.path, self.line, problem)


def _parse(line: bytes) -> object:
    """Decode one line; what is wrong with it is a ValueError or a RecursionError."""
    return json.loads(line.decode())


def _why(error: ValueError | RecursionError) -> str:
    """Say what is wrong with text that does not decode; its own line number would be that within the text."""
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON ({error.msg}, column {error.colno})"
    return f"is not JSON ({error})"


def _skip_blanks(text: str, at: int) -> int:
    """Give the position of the next character that is not blank, or the length of the text."""
    match = _NOT_BLANK.search(text, at)
    return match.start() if match else len(text)
