"""What sends encoded spans: to a file, or through any of OpenTelemetry's exporters."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final, Protocol

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from aetherflow.telemetry.encoding.decoded import decode_spans
from aetherflow.telemetry.export.files import ProcessFile

__all__ = ["Delivery", "ExporterTransport", "FileTransport", "Transport"]

_LOGGER: Final = logging.getLogger("aetherflow")


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a request.

    Args:
        failed: How many of its spans did not arrive.
        reason: Why, of a few words that do not tell one request from another; empty where all arrived.
        interrupted: Whether another attempt was due when the transport was told to make no more.
    """

    failed: int = 0
    reason: str = ""
    interrupted: bool = False


class Transport(Protocol):
    """Sends requests, one after the other, from one thread."""

    def send(self, body: bytes, count: int) -> Delivery:
        """Send a request, again where that promises something.

        Args:
            body: The request, as the encoder that belongs to the transport made it.
            count: How many spans it holds.
        """
        ...

    def interrupt(self) -> None:
        """Have :meth:`send` attempt each request only once from now on; called by another thread."""
        ...

    def close(self) -> None:
        """Let go of connections, if need be under a request; called by another thread."""
        ...


class FileTransport:
    """Appends requests, which are lines of JSON, to a file.

    Args:
        file: The file.
    """

    __slots__ = ("_file",)

    def __init__(self, file: ProcessFile) -> None:
        self._file = file

    def send(self, body: bytes, count: int) -> Delivery:
        """Append a request."""
        try:
            self._file.append(body)
        except OSError as error:
            _LOGGER.debug("%s cannot be written", self._file.path, exc_info=error)
            return Delivery(count, type(error).__name__)
        return Delivery()

    def interrupt(self) -> None:
        """Do nothing: there is one attempt."""

    def close(self) -> None:
        """Do nothing: the file is open only while it is written."""


class ExporterTransport:
    """Sends requests through an exporter's public interface, which takes spans: so it gets the request decoded.

    Args:
        exporter: Any exporter of spans; it is shut down with the transport.
    """

    __slots__ = ("_exporter",)

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def send(self, body: bytes, count: int) -> Delivery:
        """Have the exporter export what is in a request."""
        result = self._exporter.export(decode_spans(body))
        return Delivery() if result is SpanExportResult.SUCCESS else Delivery(count, "exporter")

    def interrupt(self) -> None:
        """Do nothing: an exporter cannot be told."""

    def close(self) -> None:
        """Shut the exporter down."""
        self._exporter.shutdown()
