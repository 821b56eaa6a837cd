"""``OTEL_CONFIG_FILE``: providers as a file declares them, by the package ``opentelemetry-configuration``."""

from __future__ import annotations

import atexit
from typing import Any, Final

from opentelemetry import _logs, metrics, trace

from aetherflow.errors import ConfigurationError, MissingExtraError

__all__ = ["VARIABLE", "apply_file"]

VARIABLE: Final = "OTEL_CONFIG_FILE"


def apply_file(path: str) -> list[Any]:
    """Set the global providers that a file declares.

    Args:
        path: The file, YAML or JSON.

    Returns:
        The global providers, which are now to be closed by whoever asked.

    Raises:
        ConfigurationError: The file cannot be used.
        MissingExtraError: The package that reads it is not installed.
    """
    try:
        from opentelemetry.configuration import configure_sdk, load_config_file
    except ModuleNotFoundError as missing:
        raise MissingExtraError(f"{VARIABLE}={path!r}", "opentelemetry-configuration", "config-file") from missing
    try:
        configure_sdk(load_config_file(path))
    except Exception as error:
        raise ConfigurationError(f"{VARIABLE} is {path!r}, which cannot be used ({error})") from error
    providers = [trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider()]
    for each in providers:
        # The SDK would wait for a collector at the end of the process, 30 s a signal; now we close them.
        if (shutdown := getattr(each, "shutdown", None)) is not None:
            atexit.unregister(shutdown)
    return providers
