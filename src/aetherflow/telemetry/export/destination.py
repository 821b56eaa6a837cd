"""Where each signal goes, as the arguments of ``configure()`` and the standard ``OTEL_*`` variables say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Final, Literal, get_args

from aetherflow.errors import ConfigurationError

__all__ = ["Destination", "Exporter", "Protocol", "Signal", "destinations", "is_disabled"]

Exporter = Literal["auto", "otlp", "file", "console", "none"]
Protocol = Literal["http/protobuf", "grpc"]
Signal = Literal["traces", "metrics", "logs"]


@dataclass(frozen=True, slots=True)
class Destination:
    """One place that a signal goes to.

    Args:
        exporter: How it gets there: ``otlp``, ``file``, ``console``, ``prometheus``, or the name of an exporter that an
            installed package offers.
        protocol: How OTLP is sent; None for the others.
        endpoint: The URL that OTLP is sent to; None for the others.
    """

    exporter: str
    protocol: Protocol | None = None
    endpoint: str | None = None


_DEFAULT_BASE: Final[Mapping[Protocol, str]] = {
    "http/protobuf": "http://localhost:4318",
    "grpc": "http://localhost:4317",
}
_OTLP_NAMES: Final[Mapping[str, Protocol | None]] = {
    "otlp": None,
    "otlp_proto_http": "http/protobuf",
    "otlp_proto_grpc": "grpc",
}
"""OTLP as ``OTEL_TRACES_EXPORTER`` and its like name it, and the protocol that the name fixes."""


_COMPRESSIONS: Final = ("gzip", "deflate", "none")


def destinations(signal: Signal, exporter: Exporter, environ: Mapping[str, str]) -> tuple[Destination, ...]:
    """Decide where a signal goes.

    ``OTEL_SDK_DISABLED=true`` and an exporter of ``none``, as the argument or in the signal's variable, turn it off.
    Else the argument decides; ``auto`` takes what the signal's variable names, OTLP where an endpoint is named,
    and else a local file. Logs are an exception: they are on standard output anyhow, so ``console`` adds nothing, and
    without a name or an endpoint they go nowhere else.

    Args:
        signal: The signal.
        exporter: The argument of ``configure()``.
        environ: The environment variables.

    Returns:
        The destinations; none where the signal is turned off.

    Raises:
        ConfigurationError: A variable names an exporter, a protocol or a compression that is not there.
    """
    named = _named_exporters(signal, environ)
    if exporter == "none" or "none" in named or is_disabled(environ):
        return ()
    if exporter != "auto":
        chosen: tuple[str, ...] = (exporter,)
    elif named:
        chosen = named
    elif _endpoint(signal, environ) or _base_endpoint(environ):
        chosen = ("otlp",)
    else:
        chosen = () if signal == "logs" else ("file",)
    here_already = "console" if signal == "logs" else None
    return tuple(_destination(name, signal, environ) for name in chosen if name != here_already)


def is_disabled(environ: Mapping[str, str]) -> bool:
    """Tell whether ``OTEL_SDK_DISABLED`` turns everything off."""
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _destination(name: str, signal: Signal, environ: Mapping[str, str]) -> Destination:
    if name not in _OTLP_NAMES:
        return Destination(name)
    protocol = _OTLP_NAMES[name] or _protocol(signal, environ)
    _check_compression(signal, environ)
    endpoint = _endpoint(signal, environ)
    if endpoint is None:
        base = _base_endpoint(environ) or _DEFAULT_BASE[protocol]
        # gRPC tells the signals apart by service, not by path.
        endpoint = base if protocol == "grpc" else f"{base.removesuffix('/')}/v1/{signal}"
    return Destination("otlp", protocol, endpoint)


def _variable(environ: Mapping[str, str], name: str) -> str | None:
    """Return a variable's value; an empty one counts as not set, as the specification has it."""
    return environ.get(name, "").strip() or None


def _endpoint(signal: Signal, environ: Mapping[str, str]) -> str | None:
    return _variable(environ, f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")


def _base_endpoint(environ: Mapping[str, str]) -> str | None:
    return _variable(environ, "OTEL_EXPORTER_OTLP_ENDPOINT")


def _named_exporters(signal: Signal, environ: Mapping[str, str]) -> tuple[str, ...]:
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    names = tuple(dict.fromkeys(filter(None, map(str.strip, environ.get(variable, "").split(",")))))
    known = (*_OTLP_NAMES, "console", "none", *(("prometheus",) if signal == "metrics" else ()))
    if set(names) <= set(known):
        return names
    allowed = (*known, *sorted(entry_points(group=f"opentelemetry_{signal}_exporter").names - set(known)))
    for name in names:
        if name not in allowed:
            raise ConfigurationError(f"{variable} names {name!r}; allowed: {', '.join(allowed)}")
    return names


def _protocol(signal: Signal, environ: Mapping[str, str]) -> Protocol:
    for variable in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        match _variable(environ, variable):
            case None:
                continue
            case "http/protobuf" | "grpc" as protocol:
                return protocol
            case other:
                raise ConfigurationError(f"{variable} is {other!r}; allowed: {', '.join(get_args(Protocol))}")
    return "http/protobuf"


def _check_compression(signal: Signal, environ: Mapping[str, str]) -> None:
    for variable in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"):
        said = _variable(environ, variable)
        if said is not None and said.lower() not in _COMPRESSIONS:
            raise ConfigurationError(f"{variable} is {said!r}; allowed: {', '.join(_COMPRESSIONS)}")
