"""When how much is sent, as the standard ``OTEL_BSP_*`` variables say where they are set."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from opentelemetry.sdk.environment_variables import (
    OTEL_BSP_EXPORT_TIMEOUT,
    OTEL_BSP_MAX_EXPORT_BATCH_SIZE,
    OTEL_BSP_MAX_QUEUE_SIZE,
    OTEL_BSP_SCHEDULE_DELAY,
)

from aetherflow.telemetry.encoding.encoder import MAX_REQUEST_BYTES, MAX_REQUEST_SPANS

__all__ = ["Schedule"]

_LOGGER: Final = logging.getLogger("aetherflow")


@dataclass(frozen=True, slots=True)
class Schedule:
    """When how much is sent.

    Args:
        delay: Seconds after which what there is is sent, be it little.
        request_spans: How many spans a request may hold.
        request_bytes: How large a request may be, in bytes.
        queue_spans: How many encoded spans may wait; None sets no limit beside that in bytes.
        export_timeout: Seconds that a request with its retries may take, if that is less than the exporter allows.
    """

    delay: float = 5.0
    request_spans: int = MAX_REQUEST_SPANS
    request_bytes: int = MAX_REQUEST_BYTES
    queue_spans: int | None = None
    export_timeout: float | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Return what environment variables say; one that is no positive number is told of and left out."""
        default = cls()
        delay = _positive(environ, OTEL_BSP_SCHEDULE_DELAY)
        spans = _positive(environ, OTEL_BSP_MAX_EXPORT_BATCH_SIZE)
        timeout = _positive(environ, OTEL_BSP_EXPORT_TIMEOUT)
        return cls(
            delay=default.delay if delay is None else delay / 1e3,
            request_spans=default.request_spans if spans is None else min(spans, default.request_spans),
            queue_spans=_positive(environ, OTEL_BSP_MAX_QUEUE_SIZE),
            export_timeout=None if timeout is None else timeout / 1e3,
        )


def _positive(environ: Mapping[str, str], name: str) -> int | None:
    value = environ.get(name, "").strip()
    if not value:
        return None
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number > 0:
        return number
    _LOGGER.warning("%s is %r; allowed: a whole number, more than 0; the default is used", name, value)
    return None
