"""``aetherflow top``: what a running process does, live."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Final
from urllib.parse import urlsplit

from rich.console import RenderableType

from aetherflow.analysis.scrapes import Change, Scrape, ScrapeError, scrape
from aetherflow.cli.command import Command, Consoles, ExitCode, UsageError, number
from aetherflow.cli.top_frame import Frame
from aetherflow.config import SERVE_PORT, SERVE_TOKEN_VARIABLE
from aetherflow.errors import MissingExtraError

__all__ = ["COMMAND"]

_DEFAULT_URL: Final = f"http://127.0.0.1:{SERVE_PORT}/metrics"
_PATIENCE: Final = 5.0


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "url", nargs="?", default=_DEFAULT_URL, metavar="URL", help="where its metrics are (default: %(default)s)"
    )
    parser.add_argument(
        "--interval",
        type=number(least=0.1, below=3600),
        default=2.0,
        metavar="SECONDS",
        help="time between two looks, which rates are of (default: %(default)g)",
    )
    parser.add_argument("--once", action="store_true", help="print one frame, after two looks, and end")
    parser.add_argument("--no-color", action="store_true", help="print without colours (NO_COLOR=1 does the same)")


def _run(arguments: argparse.Namespace, consoles: Consoles) -> ExitCode:
    if find_spec("prometheus_client") is None:
        raise MissingExtraError("aetherflow top", "prometheus-client", "serve")
    watch = _Watch(_address(arguments.url), os.environ.get(SERVE_TOKEN_VARIABLE) or None, arguments.interval)
    if arguments.once:
        watch.look()
        time.sleep(arguments.interval)
        consoles.out.print(Frame(watch.look(), watch.url))
        return ExitCode.FINE
    with contextlib.suppress(KeyboardInterrupt):  # how one leaves
        _show(watch, arguments.interval, consoles)
    return ExitCode.FINE


def _address(text: str) -> str:
    """Return the URL of the metrics; ``host:port`` will do."""
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or not url.isprintable() or " " in url:
        raise UsageError(f"URL {text!r}: write it as http://host:port/metrics, or host:port")
    return url if parts.path.strip("/") else parts._replace(path="/metrics").geturl()


class _Watch:
    """Looks at a process again and again.

    Args:
        url: Where its metrics are.
        token: The bearer token to show.
        interval: Seconds between two looks.
    """

    def __init__(self, url: str, token: str | None, interval: float) -> None:
        self.url = url
        self._token = token
        self._limit = max(interval, _PATIENCE)
        self._last: Scrape | None = None
        self._change: Change | None = None

    def look(self) -> Change | None:
        """Scrape, and return what happened since the last time; None the first time.

        Raises:
            ScrapeError: It does not answer.
        """
        before, now = self._last, scrape(self.url, token=self._token, timeout=self._limit)
        self._last = now
        self._change = None if before is None else Change(before, now)
        return self._change

    def frame(self, height: int | None) -> Frame:
        """Look, and show what is to be seen; what was last seen, and why, where it does not answer."""
        try:
            return Frame(self.look(), self.url, height=height)
        except ScrapeError as error:
            trouble = f"{error.reason}; trying again"
            return Frame(self._change, self.url, trouble, height)


def _show(watch: _Watch, interval: float, consoles: Consoles) -> None:
    if not consoles.out.is_terminal:
        _repeat(interval, lambda: consoles.out.print(watch.frame(None), ""))
        return
    from rich.live import Live

    # On a screen of its own, so that what was in the terminal is there again afterwards.
    with Live(console=consoles.out, screen=True, auto_refresh=False, transient=True) as live:

        def show() -> None:
            frame: RenderableType = watch.frame(consoles.out.height)
            live.update(frame, refresh=True)

        _repeat(interval, show)


def _repeat(interval: float, act: Callable[[], object]) -> None:
    """Do something at even intervals, for as long as nobody interrupts."""
    due = time.monotonic()
    while True:
        act()
        due = max(due + interval, time.monotonic())
        time.sleep(due - time.monotonic() if due > time.monotonic() else 0)


COMMAND: Final = Command(
    name="top",
    summary="watch what a running process does",
    description="Show, live, what a process does that serves its metrics ('aetherflow serve', aetherflow.serving, or\n"
    "OTEL_METRICS_EXPORTER=prometheus): its nodes, flows, operations, executors, pools, caches and batches, and how\n"
    "much telemetry it loses. Rates, errors and durations are of the time between two looks. Ctrl-C ends it.\n"
    "AETHER_SERVE_TOKEN, where it is set, is the bearer token that it shows.",
    add_arguments=_add_arguments,
    run=_run,
    examples=(
        "aetherflow top",
        "aetherflow top shop.internal:8080 --interval 5",
        "aetherflow top http://127.0.0.1:8000/ops/metrics --once",
    ),
)
