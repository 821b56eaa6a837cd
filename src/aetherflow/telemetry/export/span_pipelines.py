"""The pipeline to each kind of destination."""

from __future__ import annotations

import os
from operator import attrgetter

from aetherflow.telemetry.encoding.encoder import MAX_REQUEST_BYTES, json_encoder, protobuf_encoder
from aetherflow.telemetry.encoding.lean_wire import encode_lean, encode_lean_json
from aetherflow.telemetry.export.destination import Destination
from aetherflow.telemetry.export.exporters import span_exporter
from aetherflow.telemetry.export.files import ProcessFile
from aetherflow.telemetry.export.otlp_transport import otlp_transport
from aetherflow.telemetry.export.pipeline import SpanPipeline
from aetherflow.telemetry.export.sampling_policy import QUEUE_BYTES, OnFull
from aetherflow.telemetry.export.schedule import Schedule
from aetherflow.telemetry.export.transport import FileTransport, Transport
from aetherflow.telemetry.tracing.lean import LeanSpan

__all__ = ["span_pipeline"]


def span_pipeline(
    to: Destination, file: ProcessFile, *, on_full: OnFull = "drop", queue_bytes: int = QUEUE_BYTES
) -> SpanPipeline:
    """Return the way of spans to a destination.

    Args:
        to: The destination.
        file: What a file destination writes to.
        on_full: As for :class:`SpanPipeline`.
        queue_bytes: As for :class:`SpanPipeline`.

    Raises:
        ConfigurationError: A variable has a value that the exporter refuses.
    """
    schedule = Schedule.from_environ(os.environ)
    # A piece of half the queue always finds room in the end.
    max_bytes = min(MAX_REQUEST_BYTES, queue_bytes // 2)
    encoder = json_encoder(max_bytes) if to.exporter == "file" else protobuf_encoder(max_bytes)
    encode = encode_lean_json if to.exporter == "file" else encode_lean
    encoder.register(LeanSpan, encode, origin=attrgetter("trace.origin"))

    exporter = span_exporter(to, file)

    def transport() -> Transport:
        if to.exporter == "file":
            return FileTransport(file)
        return otlp_transport(exporter(), schedule.export_timeout)

    return SpanPipeline(
        encoder,
        transport,
        on_full=on_full,
        queue_bytes=queue_bytes,
        schedule=schedule,
        # Forking is safe for gRPC only until a process first uses it, and servers that fork export nothing before.
        at_once=to.protocol != "grpc",
    )
