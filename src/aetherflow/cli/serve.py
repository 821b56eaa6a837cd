"""``aetherflow serve``: keep anyone's flow or program running, with its endpoints beside it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import inspect
import ipaddress
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn

from rich.text import Text

from aetherflow.cli.command import (
    Command,
    Consoles,
    ExitCode,
    UsageError,
    UsersOwnError,
    add_export_arguments,
    add_input_arguments,
    at_least,
    number,
)
from aetherflow.cli.loading import entered, load_flow, load_object, read_inputs
from aetherflow.config import SERVE_PORT, SERVE_TOKEN_VARIABLE

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("object", metavar="MODULE:OBJECT", help="a flow, a function, or a HealthMonitor")
    parser.add_argument(
        "--host", default="127.0.0.1", help="the address to listen on (default: %(default)s, this machine only)"
    )
    parser.add_argument(
        "--port", type=at_least(0), default=SERVE_PORT, help="the port to listen on; 0 for any (default: %(default)s)"
    )
    parser.add_argument(
        "--every",
        type=number(least=0),
        default=1.0,
        metavar="SECONDS",
        help="start a flow again so many seconds after it was started, or once it has ended (default: %(default)g)",
    )
    add_input_arguments(parser)
    add_export_arguments(parser)


def _run(arguments: argparse.Namespace, consoles: Consoles) -> ExitCode:
    # The engine and the server are imported here, so that other commands start without them.
    from aetherflow.flow.node import Node
    from aetherflow.serving import serve
    from aetherflow.telemetry.health.monitor import HealthMonitor

    found = _load(arguments.object, (Node, HealthMonitor))
    if not isinstance(found, Node) and (arguments.inputs or arguments.context):
        raise UsageError(f"--input and --context are for flows, and {arguments.object} is none")
    monitor = found if isinstance(found, HealthMonitor) else None
    with (
        _stopped_by_sigterm(),
        contextlib.suppress(_Stopped),
        serve(arguments.host, arguments.port, monitor=monitor) as url,
    ):
        _tell(url, arguments, consoles)
        if isinstance(found, Node):
            _keep_running(arguments, consoles)
        elif monitor is not None:
            _watch(monitor, arguments)
        else:
            _call(found, arguments.object)
    return ExitCode.FINE


def _load(reference: str, kinds: tuple[type, ...]) -> Any:
    def is_wanted(found: object) -> bool:
        return isinstance(found, kinds) or (callable(found) and not isinstance(found, type))

    try:
        found = load_object(reference, "object", is_wanted, "flow, monitor or function")
    except UsageError:
        raise
    except Exception as error:
        raise UsersOwnError from error
    if not isinstance(found, kinds):
        from aetherflow.engine.signatures import signature_of

        try:
            signature_of(found).bind()
        except TypeError as error:
            raise UsageError(f"{reference} is called without arguments, and has a {error}") from error
    return found


def _tell(url: str, arguments: argparse.Namespace, consoles: Consoles) -> None:
    paths = "/livez /readyz /health /metrics /openapi.json"
    consoles.err.print(Text(f"{arguments.object} at {url} {paths}; Ctrl-C ends it"), soft_wrap=True)
    if not _is_loopback(url) and not os.environ.get(SERVE_TOKEN_VARIABLE):
        warning = f"whoever reaches {url} reads its health and metrics: set {SERVE_TOKEN_VARIABLE} to ask for a token"
        consoles.err.print(Text(warning, style="yellow"), soft_wrap=True)


def _is_loopback(url: str) -> bool:
    return ipaddress.ip_address(url.removeprefix("http://").rpartition(":")[0].strip("[]")).is_loopback


def _keep_running(arguments: argparse.Namespace, consoles: Consoles) -> NoReturn:
    """Run a flow again and again; what a run raises is told, and in its telemetry."""
    from aetherflow.cli.session import warnings_without_place
    from aetherflow.errors import ConfigurationError, MissingInputError, UnknownInputError
    from aetherflow.flow.running import NO_INPUT
    from aetherflow.telemetry.setup.configuring import configure

    inputs = read_inputs(arguments.inputs)
    flow, given = load_flow(arguments.object, arguments.context)
    with (
        configure(exporter=arguments.exporter, health=True),
        entered(given) as context,
        warnings_without_place(consoles),
    ):
        while True:
            began = time.monotonic()
            try:
                _exhaust(flow.run(inputs or NO_INPUT, context, extra_inputs=arguments.extra_inputs))
            except (ConfigurationError, MissingInputError, UnknownInputError):
                raise
            except Exception as error:  # noqa: BLE001  # whatever a node raises, the next run may do better
                told = f"{flow.name} failed: {type(error).__name__}: {error}"
                consoles.err.print(Text(told, style="red"), soft_wrap=True)
            time.sleep(max(began + arguments.every - time.monotonic(), 0))


def _exhaust(output: object) -> None:
    """Pull the items of a stream: nothing happens before."""
    if isinstance(output, Iterator):
        for _ in output:
            pass


def _watch(monitor: Any, arguments: argparse.Namespace) -> NoReturn:
    """Leave everything to the threads that the module has started."""
    from aetherflow.telemetry.setup.configuring import configure

    with configure(exporter=arguments.exporter, health=monitor):
        while True:
            time.sleep(3600)


def _call(function: Callable[[], Any], reference: str) -> None:
    """Call a program once, on the main thread, as it would run by itself; it configures its own telemetry."""
    try:
        told = function()
        if inspect.iscoroutine(told):
            asyncio.run(told)
    except Exception as error:
        error.add_note(f"raised by {reference}")
        raise UsersOwnError from error


class _Stopped(SystemExit):
    """SIGTERM came: what runs on the main thread ends with its ``finally`` clauses."""


def _stopped_by_sigterm() -> contextlib.AbstractContextManager[object]:
    with contextlib.ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _stop))
        return stack.pop_all()


def _stop(number: int, frame: object) -> NoReturn:
    raise _Stopped(ExitCode.FINE)


COMMAND: Final = Command(
    name="serve",
    summary="keep a flow or a program running, with its endpoints",
    description="Run something and tell how it does over HTTP: /livez and /readyz for probes, /health for people, and\n"
    "/metrics for Prometheus and 'aetherflow top'. A flow is run again and again. A function is called once, as the\n"
    "program that it is, which configures its own telemetry; when it returns, serving ends. With a HealthMonitor of\n"
    "your own, threads of its module do the work.\n"
    "AETHER_SERVE_TOKEN, where it is set, is the bearer token that /health and /metrics ask for.",
    add_arguments=_add_arguments,
    run=_run,
    examples=(
        "aetherflow serve shop.flows:checkout --input order=17 --every 10",
        "aetherflow serve shop.worker:main --port 8080",
        "AETHER_SERVE_TOKEN=$TOKEN aetherflow serve shop.worker:main --host 0.0.0.0",
    ),
)
