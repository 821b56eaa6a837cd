"""Asking a server as a probe does: real requests, whatever the answer's status."""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import uvicorn
from tests.support.receivers import free_ports, wait_until


@dataclass(frozen=True)
class Answer:
    """What came back; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(url: str, method: str = "GET", **headers: str) -> Answer:
    """Ask, and give whatever is answered within ten seconds."""
    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return _read(answer)
    except urllib.error.HTTPError as error:
        with error:
            return _read(error)


def _read(answer: Any) -> Answer:
    headers = {key.lower(): value for key, value in answer.headers.items()}
    return Answer(answer.status, headers, answer.read().decode())


@contextlib.contextmanager
def running(app: Any) -> Iterator[str]:
    """Run an application of somebody else's, and give its URL."""
    (port,) = free_ports(1)
    config = uvicorn.Config(app, port=port, log_config=None, access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, "the application")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
