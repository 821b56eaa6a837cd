"""Metrics for Prometheus to scrape, as ``OTEL_METRICS_EXPORTER=prometheus`` has it; the extra ``prometheus``."""

from __future__ import annotations

import os
from typing import Any, Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_PROMETHEUS_HOST, OTEL_EXPORTER_PROMETHEUS_PORT
from prometheus_client import start_http_server

from aetherflow.errors import ConfigurationError

__all__ = ["PrometheusReader"]

_LARGEST_PORT: Final = 65535


class PrometheusReader(PrometheusMetricReader):
    """Serves metrics on ``OTEL_EXPORTER_PROMETHEUS_HOST`` and ``_PORT``, by default ``localhost:9464``, until shutdown.

    Histograms have explicit buckets, the reader's own default: it cannot tell exponential ones to Prometheus.

    Raises:
        ConfigurationError: It cannot listen there.
    """

    def __init__(self) -> None:
        host, port = os.environ.get(OTEL_EXPORTER_PROMETHEUS_HOST, "localhost"), _port()
        try:
            self._server, self._thread = start_http_server(port, host)
        except OSError as error:
            raise ConfigurationError(
                f"{OTEL_EXPORTER_PROMETHEUS_HOST} and {OTEL_EXPORTER_PROMETHEUS_PORT} say {host}:{port}, where nothing "
                f"can be served ({error}); allowed: an address of this machine and a port that is free"
            ) from error
        super().__init__()

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Stop serving."""
        if self._thread.is_alive():  # not in a forked child, where nobody would ever answer
            self._server.shutdown()
        self._server.server_close()
        super().shutdown(timeout_millis, **kwargs)


def _port() -> int:
    said = os.environ.get(OTEL_EXPORTER_PROMETHEUS_PORT, "").strip() or "9464"
    if not said.isascii() or not said.isdigit() or int(said) > _LARGEST_PORT:
        raise ConfigurationError(f"{OTEL_EXPORTER_PROMETHEUS_PORT} is {said!r}; allowed: a port, 0 to {_LARGEST_PORT}")
    return int(said)
