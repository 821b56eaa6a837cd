"""`serve`: the endpoints on a port of their own, beside a program that is no ASGI application."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import AbstractContextManager
from typing import Final

import uvicorn
from starlette.applications import Starlette

from aetherflow.config import SERVE_PORT
from aetherflow.errors import ConfigurationError
from aetherflow.serving.app import make_app
from aetherflow.telemetry.forks import renew_in_children
from aetherflow.telemetry.health.monitor import HealthMonitor

__all__ = ["serve"]

_LARGEST_PORT: Final = 65535
_BACKLOG: Final = 128
_GRACE: Final = 1
"""Seconds that answers under way have when serving ends."""


def serve(
    host: str = "127.0.0.1",
    port: int = SERVE_PORT,
    *,
    monitor: HealthMonitor | None = None,
    token: str | None = None,
) -> AbstractContextManager[str]:
    """Serve the endpoints of `make_app` on a thread of their own for as long as a ``with`` block runs.

    Args:
        host: An address of this machine; others reach it only by one that is not loopback.
        port: The port; 0 for any that is free.
        monitor: As for `make_app`.
        token: As for `make_app`.

    Returns:
        A context manager, which returns the URL, without a path.

    Raises:
        ConfigurationError: An argument has a value that is not allowed, or nobody can listen there.
    """
    return _Serving(make_app(monitor, token=token), host, port)


class _Serving(AbstractContextManager[str]):
    """A server for the length of a ``with`` block; a class, since a generator cannot pass on every exception."""

    def __init__(self, app: Starlette, host: str, port: int) -> None:
        self._app = app
        self._address = (host, port)

    def __enter__(self) -> str:
        self._server = _Server(self._app, _listen(*self._address))
        return self._server.url

    def __exit__(self, *exc_info: object) -> None:
        self._server.close()


class _Server:
    """A server on a thread; a forked child has none, and lets go of the port."""

    def __init__(self, app: Starlette, listening: socket.socket) -> None:
        host, self._port, *_ = listening.getsockname()
        self.url = f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}"
        self._socket = listening
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE,
        )
        self._server = uvicorn.Server(config)
        # Off the main thread uvicorn leaves signals alone: they are the program's own.
        self._thread = threading.Thread(
            target=self._server.run, args=([listening],), name="aetherflow-serve", daemon=True
        )
        self._thread.start()
        renew_in_children(self)

    def after_fork(self) -> None:
        """Leave the port to the parent: nobody would ever answer here."""
        self._socket.close()

    def close(self) -> None:
        """Answer what is under way, and stop."""
        self._server.should_exit = True
        self._thread.join(_GRACE * 5)
        self._socket.close()


def _listen(host: str, port: int) -> socket.socket:
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= _LARGEST_PORT:
        raise ConfigurationError(f"port is {port!r}; allowed: a whole number, 0 to {_LARGEST_PORT}, 0 for any")
    if not isinstance(host, str) or not host:
        raise ConfigurationError(f"host is {host!r}; allowed: an address of this machine")
    try:
        (family, _, _, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:
        known = isinstance(error, OSError) and not isinstance(error, socket.gaierror) and error.errno
        reason = os.strerror(known) if known else getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(
            f"cannot listen on {host}:{port} ({reason}); allowed: an address of this machine and a port that is free, "
            "0 for any"
        ) from error
